/* SPDX-License-Identifier: Apache-2.0
 *
 * session.h - one conversation with a daemon, from a program that has nothing else to do meanwhile.
 */
#ifndef TOOLS_SESSION_H
#define TOOLS_SESSION_H

#include "novacron.h"

struct event;

struct session {
	const char *path; /* borrowed: of its socket, or its host */
	bool remote;
	struct event_base *base;
	struct nova_client *client;
	struct event *interrupt;
	nova_event_fn on_event; /* the user's; NULL: events are ignored */
	void *on_event_arg;
	bool interrupted; /* ^C */
	bool quiet;       /* no note on stderr when the daemon is slow */
	bool heard;       /* the daemon answered at least once */
	bool gone;        /* the connection is over, why says how */
	struct nova_error why;
};

/* Connect to the daemon at path. */
int session_open(struct session *session, const char *path, struct nova_error *err);
/* Connect to the daemon of another host (nova_client_new_remote). */
int session_open_remote(
    struct session *session, const struct nova_config *config, const char *host, struct nova_error *err);
void session_hang_up(struct session *session);

/* Execute one command and wait for its answer: *result (may be NULL) is the caller's. args is borrowed.
 * ^C ends the waiting with NOVA_CANCELLED and sets interrupted; so does limit_ms (0: none) with
 * NOVA_TIMEOUT. */
int session_call(struct session *session, const char *command, json_t *args, int limit_ms, json_t **result,
    struct nova_error *err);

/* Run the loop until *over, ^C, or the end of the connection. */
int session_wait(struct session *session, const bool *over, struct nova_error *err);

#endif
