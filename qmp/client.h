/* SPDX-License-Identifier: Apache-2.0
 *
 * client.h - what the two halves of the QMP client share: client.c is the connection, call.c the commands on
 * their way. Nobody else includes it.
 */
#ifndef NOVA_QMP_CLIENT_H
#define NOVA_QMP_CLIENT_H

#include "wire.h"
#include "engine/op.h"

#include <sys/queue.h>

/* CONNECTING -> GREETING -> NEGOTIATING -> READY; every state may fall to CLOSED, and only fail() in client.c
 * goes there. Calls may be queued in all but CLOSED; they are sent in READY only. */
enum client_state {
	CLIENT_CONNECTING,
	CLIENT_GREETING,
	CLIENT_NEGOTIATING,
	CLIENT_READY,
	CLIENT_CLOSED,
	CLIENT_STATES
};

/* A command that is not answered yet. done NULL: nobody waits any more (dropped or timed out after it was
 * sent); it stays until its reply has been swallowed, so that what the peer still works on is known. */
struct call {
	struct nova_op op; /* first */
	TAILQ_ENTRY(call) link;
	struct qmp_client *client;
	uint64_t id;
	char *command; /* owned */
	char *text;    /* owned: the message after its first key; NULL once sent */
	size_t length;
	int fd; /* owned until sent; -1: none */
	bool sent, oob, carries_fd;
	int limit_ms;
	struct event *limit; /* owned; NULL: no limit */
	nova_done_fn done;
	void *arg;
};
TAILQ_HEAD(calls, call);

struct qmp_client {
	struct event_base *base;
	char *path; /* owned */
	struct qmp_limits limits;
	struct qmp_events events;
	void *arg;
	enum client_state state;
	struct nova_error failure; /* why it is CLOSED */
	int fd;                    /* owned until the wire has it */
	struct qmp_wire wire;
	struct event *timer; /* owned: connecting again, and the limit of the handshake */
	int64_t give_up_ms;  /* monotonic */
	json_t *greeting;    /* owned, until READY */
	int pid;
	bool oob; /* negotiated */
	bool skip; /* the rest of a line that is not for us */
	int misread; /* times that the message at hand could not be read */
	uint64_t last_id, strays;
	struct calls waiting, sent;
	unsigned count;       /* calls in both lists */
	unsigned in_band;     /* of sent: not out-of-band */
	unsigned fds;         /* of sent: came with a descriptor (0 or 1) */
	size_t waiting_bytes; /* of waiting: their texts */
	unsigned busy;        /* frames of ours below a callback: the struct outlives them */
	bool freed;
};

/* ---- call.c ---- */

/* A new call at the end of waiting; args is stolen. */
struct call *qmp_call_new(struct qmp_client *client, const char *command, json_t *args,
    const struct qmp_call *options, nova_done_fn done, void *arg, struct nova_error *err);
/* No more calls may be made now: NOVA_STATE. */
bool qmp_calls_full(const struct qmp_client *client, struct nova_error *err);
/* Out of its list and gone; nothing is called. */
void qmp_call_free(struct call *call);
/* Hand to the wire what may be sent now: -1 NOVA_LINK or out of memory. */
int qmp_call_send(struct qmp_client *client, struct call *call, struct nova_error *err);
int qmp_calls_pump(struct qmp_client *client, struct nova_error *err);
/* A message with "return" or "error": answers its call, or counts it as stray. */
void qmp_calls_reply(struct qmp_client *client, const json_t *message);
/* Answer the oldest call with this error: false when there was none. */
bool qmp_calls_fail_one(struct qmp_client *client, const struct nova_error *why);
/* Fill *err from the error object of a reply. */
void qmp_error_decode(const json_t *error, struct nova_error *err);

#endif
