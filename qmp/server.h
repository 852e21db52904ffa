/* SPDX-License-Identifier: Apache-2.0
 *
 * server.h - what the parts of the QMP server share: listen.c makes the socket, server.c holds the
 * connections, connection.c is one of them. Nobody else includes it.
 */
#ifndef NOVA_QMP_SERVER_H
#define NOVA_QMP_SERVER_H

#include "wire.h"

#include <sys/queue.h>
#include <sys/types.h>

TAILQ_HEAD(connections, qmp_connection);
TAILQ_HEAD(requests, request);

struct qmp_server {
	struct event_base *base;
	char *path;      /* owned */
	json_t *version; /* owned */
	struct qmp_server_events events;
	void *arg;
	int max_connections, count;
	size_t events_bytes; /* bound of unread events, all connections together */
	int handshake_ms;    /* limit until a connection is ready, and to read why it is refused */
	int fd;              /* owned, listening */
	dev_t device;        /* of our file at path: removed only while it is still ours */
	ino_t inode;
	struct event *acceptable;   /* owned */
	struct event *accept_again; /* owned: after running out of descriptors */
	struct connections connections;
};

/* GREETED -> READY; either -> CLOSING: nothing is read any more, what is queued still goes out. A connection
 * is only freed from its own events or with the server: never below emit or an answer. */
enum connection_state {
	CONNECTION_GREETED,
	CONNECTION_READY,
	CONNECTION_CLOSING
};

struct qmp_connection {
	TAILQ_ENTRY(qmp_connection) link;
	struct qmp_server *server;
	enum connection_state state;
	struct nova_identity who;
	struct qmp_wire wire;
	struct event *limit; /* owned: of the handshake, and of CLOSING */
	bool paused;         /* not reading, until something is answered or written */
	bool doomed;         /* its queue is full: the next event frees it */
	struct requests requests;
	unsigned request_count;
	size_t request_bytes;
};

/* A listening socket, or -1. */
int qmp_listen(const char *path, unsigned mode, struct nova_error *err);

/* ---- connection.c ---- */

/* fd is stolen. The connection adds itself to its server, greets (or says why not) and ends by itself. */
int qmp_connection_new(struct qmp_server *server, int fd, struct nova_error *err);
struct qmp_connection *qmp_connection_free(struct qmp_connection *connection);
/* Queue the text of an event; more than `share` bytes unread and the connection is closed. */
void qmp_connection_emit(struct qmp_connection *connection, const char *text, size_t length, size_t share);

#endif
