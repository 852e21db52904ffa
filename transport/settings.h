/* SPDX-License-Identifier: Apache-2.0
 *
 * settings.h - what the transport needs to know, checked once.
 */
#ifndef NOVA_SETTINGS_H
#define NOVA_SETTINGS_H

#include "novacron.h"

struct link_peer {
	const char *name;        /* borrowed: from settings.peers */
	const char *certificate; /* borrowed: the name its certificate must carry */
	const json_t *addresses; /* borrowed: array of "host:port", maybe empty; NULL: a user, never dialled */
};

struct link_settings {
	json_t *listen;          /* owned: array of "host:port", NULL: none */
	char *cert, *key, *ca;   /* owned: paths; NULL: no links at all */
	uint64_t bandwidth_bps;  /* of the host, 0: no limit */
	json_t *table;           /* owned: the peers as configured */
	struct link_peer *peers; /* owned array */
	size_t peer_count;
	struct link_peer *users; /* owned array: certificates that the roles name, admins first */
	size_t user_count;
	json_t *user_names;      /* owned: what users' names are borrowed from */
	/* In milliseconds; fixed but for tests. */
	int handshake_ms; /* from connecting to WELCOME */
	int heartbeat_ms; /* between PINGs */
	int silence_ms;   /* a lane that hears nothing for so long is dead */
};

/* From a JSON object with the members listen, cert, key, ca, bandwidth, peers, admins, operators, viewers, named and formed as in the
 * configuration. values is borrowed; *settings is to be released, also after a failure. */
int settings_init(struct link_settings *settings, const json_t *values, struct nova_error *err);
void settings_release(struct link_settings *settings);
/* NULL if no such peer is configured. */
const struct link_peer *settings_peer(const struct link_settings *settings, const char *name);

#endif
