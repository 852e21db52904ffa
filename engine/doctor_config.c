/* SPDX-License-Identifier: Apache-2.0
 *
 * doctor_config.c - the doctor's look at the configuration: certificates and keys, who may do what, programs that are
 * named, directories. Not here: syntax (a daemon that runs has read it).
 */
#include "doctor.h"
#include "cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SOON_DAYS 30
#define SOCKET_LONGEST 107
#define GUEST_SOCKET_LONGEST "incoming.sock"

static const char *option(const struct nova_doctor *doctor, const char *name)
{
	return nova_config_text(doctor->host->config, name);
}

/* ---- certificates ---- */

static X509 *read_certificate(struct nova_doctor *doctor, const char *name)
{
	const char *path = option(doctor, name);
	FILE *file = fopen(path, "re");
	X509 *certificate = file ? PEM_read_X509(file, NULL, NULL, NULL) : NULL;

	if (!certificate)
		nova_doctor_say(doctor, NOVA_BAD, "certificate", "name a readable PEM file", "%s %s cannot be read: %s", name, path,
		    file ? "it holds no certificate" : strerror(errno));
	if (file)
		fclose(file);
	ERR_clear_error();
	return certificate;
}

static void check_dates(struct nova_doctor *doctor, const char *what, const X509 *certificate)
{
	int days = 0, seconds = 0;

	if (X509_cmp_current_time(X509_get0_notBefore(certificate)) > 0)
		nova_doctor_say(doctor, NOVA_BAD, "certificate", "set this host's clock, or wait", "%s is not valid yet", what);
	ASN1_TIME_diff(&days, &seconds, NULL, X509_get0_notAfter(certificate));
	if (days < 0 || seconds < 0)
		nova_doctor_say(doctor, NOVA_BAD, "certificate", "renew it, then restart the daemon: no peer will talk to this host",
		    "%s has expired %d days ago", what, -days);
	else
		nova_doctor_say(doctor, days < SOON_DAYS ? NOVA_WARN : NOVA_FINE, "certificate",
		    days < SOON_DAYS ? "renew it, then restart the daemon" : NULL, "%s is valid for %d more days", what, days);
}

static void check_names(struct nova_doctor *doctor, X509 *certificate)
{
	const char *name = nova_host_name(doctor->host);
	char common[256] = "";

	if (X509_check_host(certificate, name, 0, X509_CHECK_FLAG_NO_WILDCARDS, NULL) == 1) {
		nova_doctor_say(doctor, NOVA_FINE, "certificate", NULL, "it is for this host's name, %s", name);
		return;
	}
	X509_NAME_get_text_by_NID(X509_get_subject_name(certificate), NID_commonName, common, sizeof(common));
	nova_doctor_say(doctor, NOVA_WARN, "certificate",
	    "peers need certificate-name with a name it does carry in their [peer] section for this host",
	    "it is not for this host's name, %s (its subject is %s)", name, common);
}

static void check_chain(struct nova_doctor *doctor, X509 *certificate)
{
	X509_STORE *store = X509_STORE_new();
	X509_STORE_CTX *ctx = X509_STORE_CTX_new();

	if (store && ctx && X509_STORE_load_file(store, option(doctor, "ca")) == 1 &&
	    X509_STORE_CTX_init(ctx, store, certificate, NULL) == 1 && X509_verify_cert(ctx) != 1)
		nova_doctor_say(doctor, NOVA_BAD, "certificate", "peers that trust the same CA will refuse this host: use its certificate",
		    "the CA %s does not vouch for it: %s", option(doctor, "ca"),
		    X509_verify_cert_error_string(X509_STORE_CTX_get_error(ctx)));
	X509_STORE_CTX_free(ctx);
	X509_STORE_free(store);
	ERR_clear_error();
}

static void check_key(struct nova_doctor *doctor, X509 *certificate)
{
	const char *path = option(doctor, "key");
	FILE *file = fopen(path, "re");
	EVP_PKEY *key = file ? PEM_read_PrivateKey(file, NULL, NULL, NULL) : NULL;
	struct stat status;

	if (!key)
		nova_doctor_say(doctor, NOVA_BAD, "key", "name a readable PEM file", "key %s cannot be read: %s", path,
		    file ? "it holds no private key" : strerror(errno));
	else if (X509_check_private_key(certificate, key) != 1)
		nova_doctor_say(doctor, NOVA_BAD, "key", "name the key that belongs to the certificate", "%s is not the certificate's key",
		    path);
	else if (fstat(fileno(file), &status) == 0 && (status.st_mode & 077))
		nova_doctor_say(doctor, NOVA_BAD, "key", "chmod 600 it, and think of replacing it: whoever reads it is this host",
		    "%s may be read by others (mode %03o)", path, status.st_mode & 0777);
	else
		nova_doctor_say(doctor, NOVA_FINE, "key", NULL, "%s belongs to the certificate and is private", path);
	EVP_PKEY_free(key);
	if (file)
		fclose(file);
	ERR_clear_error();
}

static void check_certificates(struct nova_doctor *doctor)
{
	X509 *certificate, *ca;

	if (!option(doctor, "cert")[0]) {
		nova_doctor_say(doctor, NOVA_NOTE, "certificate", "set cert, key, ca and listen to move guests",
		    "this host has no certificate: it meets no peers");
		return;
	}
	certificate = read_certificate(doctor, "cert");
	ca = read_certificate(doctor, "ca");
	if (certificate) {
		check_dates(doctor, "the certificate", certificate);
		check_names(doctor, certificate);
		check_chain(doctor, certificate);
		check_key(doctor, certificate);
	}
	if (ca)
		check_dates(doctor, "the CA", ca);
	X509_free(certificate);
	X509_free(ca);
}

/* ---- who may do what ---- */

static void list_role(struct nova_doctor *doctor, const char *role, const char *always)
{
	const json_t *list = nova_config_get(doctor->host->config, role);
	char text[400];
	int used = snprintf(text, sizeof(text), "%s", always);
	size_t i;
	json_t *item;

	json_array_foreach ((json_t *)list, i, item) {
		const char *who = json_string_value(item);

		if (used < (int)sizeof(text))
			used += snprintf(text + used, sizeof(text) - (size_t)used, "%s%s", used ? ", " : "", who);
		if (strncmp(who, "uid:", 4) && strncmp(who, "gid:", 4) && strncmp(who, "cert:", 5))
			nova_doctor_say(doctor, NOVA_WARN, "roles", "write uid:NAME, gid:NAME or cert:NAME",
			    "%s has '%s', which is nobody", role, who);
	}
	nova_doctor_say(doctor, NOVA_FINE, "roles", NULL, "%s: %s", role, text[0] ? text : "nobody");
}

/* A host that can ask for everything is more than a peer. */
static void check_peer_roles(struct nova_doctor *doctor)
{
	json_t *peers = (json_t *)nova_config_get(doctor->host->config, "peers"), *peer;
	const char *name;

	json_object_foreach (peers, name, peer) {
		const char *certificate = json_string_value(json_object_get(peer, "certificate-name"));
		struct nova_identity who;

		nova_host_identify_certificate(doctor->host, certificate ? certificate : name, "", &who);
		if (who.role != NOVA_ROLE_NONE)
			nova_doctor_say(doctor, NOVA_WARN, "roles", "give people certificates of their own",
			    "the certificate of peer %s is %s here as well: whoever holds that host's key may command this one", name,
			    nova_role_name(who.role));
		if (json_array_size(json_object_get(peer, "address")) == 0)
			nova_doctor_say(doctor, NOVA_NOTE, "peers", "give it an address to move guests there",
			    "peer %s has no address: it can only come to us", name);
	}
}

static void check_roles(struct nova_doctor *doctor)
{
	list_role(doctor, "admins", "root");
	list_role(doctor, "operators", "");
	list_role(doctor, "viewers", "");
	check_peer_roles(doctor);
}

/* ---- programs and switches ---- */

static void check_program(struct nova_doctor *doctor, const char *name, bool wanted, const char *unset_advice)
{
	const char *path = option(doctor, name);

	if (path[0] && access(path, X_OK) < 0)
		nova_doctor_say(doctor, NOVA_BAD, name, "install it there, executable", "%s cannot be run: %s", path, strerror(errno));
	else if (path[0] || wanted)
		nova_doctor_say(doctor, path[0] ? NOVA_FINE : NOVA_NOTE, name, path[0] ? NULL : unset_advice, "%s",
		    path[0] ? path : "is not set");
}

static void check_switches(struct nova_doctor *doctor)
{
	check_program(doctor, "fence-hook", doctor->host->links != NULL,
	    "set it to a program that can turn the other host off: a migration in doubt is then resolved safely");
	if (option(doctor, "fault-hook")[0])
		nova_doctor_say(doctor, NOVA_WARN, "fault-hook", "take it out: it is for tests and stops the daemon while it runs",
		    "fault-hook is set");
	if (!option(doctor, "qemu-user")[0] && geteuid() == 0)
		nova_doctor_say(doctor, NOVA_WARN, "qemu-user", "set qemu-user to a user of its own that may open the disks",
		    "QEMU runs as root: who breaks out of a guest has the host");
	if (json_is_false(nova_config_get(doctor->host->config, "sandbox")))
		nova_doctor_say(doctor, NOVA_WARN, "sandbox", "take sandbox = no out", "QEMU runs without its sandbox");
	if (option(doctor, "control-group")[0])
		nova_doctor_say(doctor, NOVA_NOTE, "control-group", NULL, "members of %s may connect; what they may do is a matter of roles",
		    option(doctor, "control-group"));
}

/* ---- directories ---- */

static void check_private(struct nova_doctor *doctor, const char *name)
{
	struct stat status;

	if (stat(option(doctor, name), &status) < 0)
		nova_doctor_say(doctor, NOVA_BAD, name, "make it again and restart the daemon", "%s: %s", option(doctor, name),
		    strerror(errno));
	else if (status.st_uid != geteuid() || (status.st_mode & 022))
		nova_doctor_say(doctor, NOVA_BAD, name, "chown it to the daemon's user and chmod 700 it",
		    "others may write to %s (owner %u, mode %03o)", option(doctor, name), status.st_uid, status.st_mode & 0777);
	else
		nova_doctor_say(doctor, NOVA_FINE, name, NULL, "%s is ours (mode %03o)", option(doctor, name), status.st_mode & 0777);
}

static void check_socket_length(struct nova_doctor *doctor)
{
	long room = SOCKET_LONGEST - (long)strlen(option(doctor, "runtime-dir")) - (long)strlen("/guests//" GUEST_SOCKET_LONGEST);

	if (room >= NOVA_NAME_MAX)
		return;
	nova_doctor_say(doctor, room < 8 ? NOVA_BAD : NOVA_NOTE, "runtime-dir", "choose a shorter runtime-dir",
	    "names of guests have at most %ld bytes here, since socket paths have %d at most", room > 0 ? room : 0, SOCKET_LONGEST);
}

static void check_roots(struct nova_doctor *doctor)
{
	const json_t *roots = nova_config_get(doctor->host->config, "roots");
	struct stat status;
	size_t i;
	json_t *item;

	json_array_foreach ((json_t *)roots, i, item) {
		const char *root = json_string_value(item);

		if (stat(root, &status) < 0 || !S_ISDIR(status.st_mode))
			nova_doctor_say(doctor, NOVA_WARN, "roots", "make the directory, or take the line out",
			    "%s is no directory: guests cannot have files there", root);
		else if (status.st_mode & 002)
			nova_doctor_say(doctor, NOVA_WARN, "roots", "chmod o-w it", "everybody may write to %s", root);
		else
			nova_doctor_say(doctor, NOVA_FINE, "roots", NULL, "%s", root);
	}
}

static void check_directories(struct nova_doctor *doctor)
{
	check_private(doctor, "state-dir");
	check_private(doctor, "runtime-dir");
	check_socket_length(doctor);
	check_roots(doctor);
}

const nova_check_fn nova_config_checks[] = { check_certificates, check_roles, check_switches, check_directories, NULL };
