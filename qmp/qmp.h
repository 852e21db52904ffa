/* SPDX-License-Identifier: Apache-2.0
 *
 * qmp.h - QEMU Machine Protocol: client and server on one loop.
 *
 * Protocol: QEMU's docs/interop/qmp-spec. Errors of the peer keep its class and text: category
 * NOVA_REFUSED (class CommandNotFound too), text "CLASS: text"; an error object with a member "category" (our
 * own daemons send it) gives that category and the text alone. Messages are bounded in bytes and
 * nesting; a peer that sends more is closed with NOVA_INVALID.
 */
#ifndef NOVA_QMP_H
#define NOVA_QMP_H

#include "engine/novacron.h"

/* ---- client ---- */

struct qmp_client;

struct qmp_limits {
	size_t message_bytes; /* longest line accepted; 0: 4 MiB */
	int depth;            /* deepest nesting accepted; 0: 64 */
	int greeting_ms;      /* 0: 5 s */
};

struct qmp_events {
	/* Greeting read and capabilities negotiated. greeting (borrowed) is the object under "QMP"; NULL: qmp_client_take(). */
	void (*ready)(void *arg, json_t *greeting);
	void (*event)(void *arg, const char *name, json_t *data /* borrowed, may be NULL */);
	/* The connection is over (also when it never began): NOVA_LINK "refused"/"closed by the peer"/...;
	 * NOVA_STATE if the socket accepts but never greets: "monitor is owned by someone else". Outstanding
	 * calls have been answered with the same error. Free the client (allowed in here). */
	void (*closed)(void *arg, const struct nova_error *err);
};

/* Connect to a unix socket. events and limits (may be NULL) are copied. Fails only for bad arguments and
 * lack of memory or descriptors; a refused connection is reported through closed. */
struct qmp_client *qmp_client_new(struct event_base *base, const char *path, const struct qmp_limits *limits,
    const struct qmp_events *events, void *arg, struct nova_error *err);
/* Take over a connection on which out-of-band commands were negotiated by somebody who is dead. fd (non-blocking) is stolen,
 * also on failure; path is what errors call it. What the peer still says to the dead is dropped; ready comes when it has
 * answered us, out of band, with a NULL greeting. */
struct qmp_client *qmp_client_take(struct event_base *base, int fd, const char *path, const struct qmp_limits *limits,
    const struct qmp_events *events, void *arg, struct nova_error *err);
/* Borrowed; -1 when it is not connected. */
int qmp_client_fd(const struct qmp_client *client);
/* Outstanding calls are dropped without an answer. */
struct qmp_client *qmp_client_free(struct qmp_client *client);
bool qmp_client_ready(const struct qmp_client *client);
/* The pid at the other end (SO_PEERCRED), or -1. */
int qmp_client_pid(const struct qmp_client *client);
/* Messages that were no event and answered nothing we asked: duplicate or invented replies. */
uint64_t qmp_client_strays(const struct qmp_client *client);

struct qmp_call {
	int limit_ms; /* 0: 10 s, < 0: none; the answer then is NOVA_TIMEOUT and a late reply is ignored */
	int fd;       /* sent along (SCM_RIGHTS) if > 0; borrowed for the call */
	bool oob;     /* exec-oob where offered, else in band */
};
/* args is stolen (may be NULL); call may be NULL. Commands are pipelined; before ready they wait. */
struct nova_op *qmp_execute(struct qmp_client *client, const char *command, json_t *args,
    const struct qmp_call *call, nova_done_fn done, void *arg, struct nova_error *err);

/* ---- the agent in a guest (agent.c) ---- */

/* Ask it one command without arguments (a static string) at the socket of its port: it may take 2 s to say that it is there, and
 * limit_ms from then on. Its answer, or NOVA_REFUSED, whatever went wrong: no agent owes us anything. If it was asked to do
 * something and did not answer in time, it may do it later. Thread: base's. */
struct nova_op *qmp_agent_ask(struct event_base *base, const char *path, const char *command, int limit_ms,
    nova_done_fn done, void *arg, struct nova_error *err);

/* ---- server (our control socket) ---- */

struct qmp_server;

/* None of these may free the server. */
struct qmp_server_events {
	/* A client connected: fill *who from its credentials (role NONE refuses it with a message). */
	void (*identify)(void *arg, unsigned uid, unsigned gid, int pid, struct nova_identity *who);
	/* Start a command: same contract as nova_host_execute. Answers may come out of order. */
	struct nova_op *(*execute)(void *arg, const struct nova_identity *who, const char *command, json_t *args,
	    nova_done_fn done, void *done_arg, struct nova_error *err);
	/* Is there such a command? If not the error has the class CommandNotFound. NULL: execute decides. */
	bool (*knows)(void *arg, const char *command);
	/* May this client see this event? NULL: all. */
	bool (*may_see)(void *arg, const struct nova_identity *who, const char *event, json_t *data);
};

/* Listen on a unix socket (mode 0: 0660; a stale socket file is replaced, a live one is an error).
 * version (stolen) goes into the greeting. At most max_connections (0: 1200) are served. */
struct qmp_server *qmp_server_new(struct event_base *base, const char *path, unsigned mode, json_t *version,
    int max_connections, const struct qmp_server_events *events, void *arg, struct nova_error *err);
struct qmp_server *qmp_server_free(struct qmp_server *server);
/* Send an event to every client that may see it. A client that does not read is closed at 4 MiB
 * queued, or earlier when there are many. */
void qmp_server_emit(struct qmp_server *server, const char *event, json_t *data);

#endif
