/* SPDX-License-Identifier: Apache-2.0
 *
 * wire.h - one end of a QMP connection: messages in, bytes (and a descriptor) out. Both the client and the
 * server stand on it.
 */
#ifndef NOVA_QMP_WIRE_H
#define NOVA_QMP_WIRE_H

#include "reader.h"

#include <event2/event.h>

struct evbuffer;

struct qmp_wire {
	int fd;                 /* owned; -1: not open */
	struct event *readable; /* owned */
	struct event *writable; /* owned: armed while something is queued */
	struct event *look;     /* owned: armed while reading is paused, see qmp_wire_pause() */
	struct evbuffer *out;   /* owned */
	int pass_fd;            /* owned: travels with the byte at pass_after; -1: none */
	size_t pass_after;      /* bytes of out before it */
	struct qmp_reader reader;
};

#define QMP_WIRE_CLOSED                                                                                      \
	{                                                                                                    \
		.fd = -1, .pass_fd = -1                                                                      \
	}

/* fd (non-blocking, stolen also on failure) is watched from now on: on_read when there is something to read
 * or the peer is gone, on_write when queued bytes can leave. */
int qmp_wire_open(struct qmp_wire *wire, struct event_base *base, int fd, const struct qmp_limits *limits,
    event_callback_fn on_read, event_callback_fn on_write, void *arg, struct nova_error *err);
/* A closed wire (QMP_WIRE_CLOSED) is fine. */
void qmp_wire_close(struct qmp_wire *wire);

/* One read into the reader: 1 got something, 0 nothing there now, -1 NOVA_LINK, or NOVA_SYSTEM: no memory, what there is
 * stays in the socket. */
int qmp_wire_read(struct qmp_wire *wire, struct nova_error *err);
/* Stop or go on reading. Paused, on_read comes once a second with EV_TIMEOUT, to ask qmp_wire_hung_up(). */
void qmp_wire_pause(struct qmp_wire *wire, bool pause);
/* Stop reading for good. */
void qmp_wire_stop(struct qmp_wire *wire);
bool qmp_wire_hung_up(const struct qmp_wire *wire);

/* Memory for bytes that are queued next, so that a message is not queued in part. */
int qmp_wire_reserve(struct qmp_wire *wire, size_t length, struct nova_error *err);
size_t qmp_wire_queued(const struct qmp_wire *wire);
/* Queue bytes, to leave from the loop. pass_fd (stolen; -1: none) travels with their first byte; one at a
 * time. Fails only when out of memory. */
int qmp_wire_queue(
    struct qmp_wire *wire, const void *data, size_t length, int pass_fd, struct nova_error *err);
/* Write what the socket takes: -1 NOVA_LINK when the peer is gone. */
int qmp_wire_flush(struct qmp_wire *wire, struct nova_error *err);

/* Fill the address of a unix socket; NOVA_INVALID if the path does not fit (107 bytes). */
struct sockaddr_un;
int qmp_wire_address(struct sockaddr_un *address, const char *path, struct nova_error *err);

#endif
