/* SPDX-License-Identifier: Apache-2.0
 *
 * grpc.h - gRPC calls to a daemon of this host over its unix socket, by nghttp2 on our loop.
 *
 * One connection carries all calls. It is made by the first call, and again by the first one after it was lost;
 * a loss ends every call that is under way with NOVA_LINK. Messages are bytes here: grpc_json.h puts protobuf-c
 * and JSON on top. Not here: TLS, TCP, compression, retries.
 */
#ifndef NOVA_TRANSPORT_GRPC_H
#define NOVA_TRANSPORT_GRPC_H

#include "engine/op.h"

#define GRPC_MESSAGE_MAX (16u << 20) /* bytes of one message, either way: what containerd and etcd take */
#define GRPC_CALLS_MAX 512           /* under way at a time on one connection */

/* Statuses that callers look at; all of them: grpc_category(). */
enum {
	GRPC_OK = 0,
	GRPC_UNKNOWN = 2,
	GRPC_INVALID_ARGUMENT = 3,
	GRPC_DEADLINE_EXCEEDED = 4,
	GRPC_NOT_FOUND = 5,
	GRPC_ALREADY_EXISTS = 6,
	GRPC_FAILED_PRECONDITION = 9,
	GRPC_UNIMPLEMENTED = 12,
	GRPC_STATUSES = 17
};

struct grpc;

struct grpc_header {
	const char *name; /* lower case; NULL ends a list */
	const char *value;
};

/* Everything is borrowed for the call. */
struct grpc_call {
	const char *path; /* "/containerd.services.version.v1.Version/Version" */
	const struct grpc_header *headers; /* may be NULL */
	const void *message;
	size_t length;
	bool more;        /* more messages follow, by grpc_send(); without it, this is the only one */
	bool streaming;   /* the server sends any number of messages; without it, exactly one */
	int limit_ms;     /* of the whole call, told to the server as well; 0: none */
	uint32_t tolerated; /* bits (1u << status): answers, not errors */
	/* Each message, from the loop. May drop the call. */
	void (*message_came)(void *arg, const void *bytes, size_t length);
	void *message_arg;
};

/* name: of whom we talk to, for errors; static. socket is copied. */
struct grpc *grpc_new(struct event_base *base, const char *name, const char *socket, struct nova_error *err);
/* Drop all calls first. NULL is fine. Returns NULL. */
struct grpc *grpc_free(struct grpc *grpc);
const char *grpc_name(const struct grpc *grpc);
const char *grpc_socket(const struct grpc *grpc);
/* Answers {"status": 0, or one that is tolerated; "text": what the server says to it, if anything}. Errors have the category
 * of grpc_category() and the server's words; NOVA_LINK when there is no connection (then NULL is returned at once) or it
 * broke; NOVA_TIMEOUT past limit_ms; NOVA_REFUSED for what breaks the bounds above. Dropping cancels the call over there. */
struct nova_op *grpc_start(struct grpc *grpc, const struct grpc_call *call, nova_done_fn done, void *arg,
    struct nova_error *err);
/* One more message of a call that was started with more; last: no other follows. */
int grpc_send(struct nova_op *op, const void *message, size_t length, bool last, struct nova_error *err);
/* What a status means for us: NOVA_OK for 0; numbers that are no status are NOVA_REFUSED. */
enum nova_category grpc_category(int status);

#endif
