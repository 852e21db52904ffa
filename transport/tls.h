/* SPDX-License-Identifier: Apache-2.0
 *
 * tls.h - who we are and whom we believe: TLS 1.3 with certificates on both sides.
 */
#ifndef NOVA_TLS_H
#define NOVA_TLS_H

#include <openssl/ssl.h>

#include "novacron.h"

#define TLS_NAME 256u /* bytes for a certificate's name */

/* Certificate, key and the CA that signed the peers', PEM files. NULL and *err. */
SSL_CTX *tls_context_new(const char *cert, const char *key, const char *ca, struct nova_error *err);
/* The name of a certificate: its first DNS name, else its common name, else "". Printable. */
void tls_name(X509 *certificate, char name[TLS_NAME]);
/* Is the peer's certificate one for this name (DNS names; the common name only if it has none)? */
bool tls_is_for(SSL *ssl, const char *name);
void tls_peer_name(SSL *ssl, char name[TLS_NAME]);
/* Why TLS failed just now, for a person; takes OpenSSL's error queue. NOVA_REFUSED when the reason is a
 * certificate or an alert, NOVA_LINK otherwise. */
int tls_error(SSL *ssl, struct nova_error *err);

#endif
