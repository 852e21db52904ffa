/* SPDX-License-Identifier: Apache-2.0
 *
 * tls.c - the TLS context of a daemon, certificate names, and errors in words.
 *
 * TLS 1.3 only, a certificate is required from both sides, the chain must end in the configured CA. No
 * session tickets: every lane shows its certificate. Not here: which names are peers (lane.c).
 */
#include "tls.h"

#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <ctype.h>
#include <stdio.h>
#include <string.h>

static int file_error(const char *what, const char *path, struct nova_error *err)
{
	unsigned long code = ERR_peek_last_error();

	ERR_clear_error();
	return nova_error_set(
	    err, NOVA_INVALID, "%s %s: %s", what, path, ERR_reason_error_string(code) ?: "not usable");
}

static int load(SSL_CTX *ctx, const char *cert, const char *key, const char *ca, struct nova_error *err)
{
	STACK_OF(X509_NAME) * names;

	ERR_clear_error();
	if (SSL_CTX_use_certificate_chain_file(ctx, cert) != 1)
		return file_error("certificate", cert, err);
	if (SSL_CTX_use_PrivateKey_file(ctx, key, SSL_FILETYPE_PEM) != 1)
		return file_error("key", key, err);
	if (SSL_CTX_load_verify_file(ctx, ca) != 1)
		return file_error("CA", ca, err);
	names = SSL_load_client_CA_file(ca);
	if (!names)
		return file_error("CA", ca, err);
	SSL_CTX_set_client_CA_list(ctx, names);
	return 0;
}

SSL_CTX *tls_context_new(const char *cert, const char *key, const char *ca, struct nova_error *err)
{
	SSL_CTX *ctx = SSL_CTX_new(TLS_method());

	if (!ctx) {
		nova_error_set(err, NOVA_SYSTEM, "no memory for a TLS context");
		return NULL;
	}
	SSL_CTX_set_min_proto_version(ctx, TLS1_3_VERSION);
	SSL_CTX_set_ciphersuites(
	    ctx, "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256");
	SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
	SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
	SSL_CTX_set_num_tickets(ctx, 0);
	SSL_CTX_set_max_early_data(ctx, 0);
	if (load(ctx, cert, key, ca, err) < 0) {
		SSL_CTX_free(ctx);
		return NULL;
	}
	return ctx;
}

static void copy_printable(char name[TLS_NAME], const uint8_t *from, size_t length)
{
	size_t n = length < TLS_NAME - 1 ? length : TLS_NAME - 1;

	for (size_t i = 0; i < n; i++)
		name[i] = isprint(from[i]) ? (char)from[i] : '?';
	name[n] = 0;
}

static bool dns_name(X509 *certificate, char name[TLS_NAME])
{
	GENERAL_NAMES *names = X509_get_ext_d2i(certificate, NID_subject_alt_name, NULL, NULL);
	bool found = false;

	for (int i = 0; !found && i < sk_GENERAL_NAME_num(names); i++) {
		const GENERAL_NAME *entry = sk_GENERAL_NAME_value(names, i);

		if (entry->type != GEN_DNS)
			continue;
		copy_printable(name, ASN1_STRING_get0_data(entry->d.dNSName),
		    (size_t)ASN1_STRING_length(entry->d.dNSName));
		found = true;
	}
	GENERAL_NAMES_free(names);
	return found;
}

void tls_name(X509 *certificate, char name[TLS_NAME])
{
	const X509_NAME *subject = X509_get_subject_name(certificate);
	int at = X509_NAME_get_index_by_NID(subject, NID_commonName, -1);
	const ASN1_STRING *text;

	name[0] = 0;
	if (dns_name(certificate, name) || at < 0)
		return;
	text = X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at));
	copy_printable(name, ASN1_STRING_get0_data(text), (size_t)ASN1_STRING_length(text));
}

bool tls_is_for(SSL *ssl, const char *name)
{
	X509 *certificate = SSL_get0_peer_certificate(ssl);

	return certificate && X509_check_host(certificate, name, 0, X509_CHECK_FLAG_NO_WILDCARDS, NULL) == 1;
}

void tls_peer_name(SSL *ssl, char name[TLS_NAME])
{
	X509 *certificate = SSL_get0_peer_certificate(ssl);

	name[0] = 0;
	if (certificate)
		tls_name(certificate, name);
}

int tls_error(SSL *ssl, struct nova_error *err)
{
	unsigned long code = ERR_peek_error();
	int reason = ERR_GET_REASON(code);
	long verdict = SSL_get_verify_result(ssl);
	const char *words = ERR_reason_error_string(code) ?: "protocol error";

	ERR_clear_error();
	if (reason == SSL_R_CERTIFICATE_VERIFY_FAILED)
		return nova_error_set(err, NOVA_REFUSED, "its certificate is not accepted: %s",
		    X509_verify_cert_error_string(verdict));
	if (reason == SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE)
		return nova_error_set(err, NOVA_REFUSED, "it shows no certificate");
	if (reason >= SSL_AD_REASON_OFFSET)
		return nova_error_set(err, NOVA_REFUSED, "it refuses our certificate or protocol: %s", words);
	if (reason == SSL_R_WRONG_VERSION_NUMBER || reason == SSL_R_HTTP_REQUEST ||
	    reason == SSL_R_UNKNOWN_PROTOCOL || reason == SSL_R_BAD_RECORD_TYPE)
		return nova_error_set(err, NOVA_LINK, "it does not speak TLS: %s", words);
	if (reason == SSL_R_UNEXPECTED_EOF_WHILE_READING)
		return nova_error_set(err, NOVA_LINK, "connection closed");
	return nova_error_set(err, NOVA_LINK, "TLS failed: %s", words);
}
