/* SPDX-License-Identifier: Apache-2.0
 *
 * address.h - "10.0.0.2:7654", "[::1]:7654", "beta.example.org:7654".
 */
#ifndef NOVA_ADDRESS_H
#define NOVA_ADDRESS_H

#include <sys/socket.h>
#include <netinet/in.h>
#include <event2/util.h>

#include "novacron.h"

#define ADDRESS_TEXT 80u /* bytes for a numeric address in text */

struct address {
	struct sockaddr_storage at;
	socklen_t length;
};

/* Split text; the host comes without brackets. NOVA_INVALID names what is accepted. */
int address_split(const char *text, char host[256], char port[8], struct nova_error *err);
/* A numeric address. listening: an empty host means any. false: not numeric. */
bool address_numeric(const char *host, const char *port, bool listening, struct address *address);
/* "10.0.0.2:7654", "[::1]:7654". */
void address_text(const struct address *address, char text[ADDRESS_TEXT]);
/* The same host as far as limits are concerned: the same IPv4 address, the same /64. */
bool address_same_host(const struct address *a, const struct address *b);
/* A non-blocking listening socket bound to it, -1 and *err. */
int address_listen(const struct address *address, struct nova_error *err);
/* A non-blocking socket that connects to it, -1 and *err. */
int address_connect(const struct address *address, struct nova_error *err);

#endif
