/* SPDX-License-Identifier: Apache-2.0
 *
 * grpc_json.h - gRPC calls with JSON in and out: messages are packed and unpacked by their protobuf-c descriptors.
 *
 * Members are called as the fields are; what has its default value is left out of answers and may be left out of
 * requests. Bytes are base64, enumerations numbers. A repeated message called Pair {string key, string value} is
 * an object: how protobuf's maps look on the wire.
 */
#ifndef NOVA_TRANSPORT_GRPC_JSON_H
#define NOVA_TRANSPORT_GRPC_JSON_H

#include "transport/grpc.h"

#include <protobuf-c/protobuf-c.h>

struct grpc_method {
	const char *path;
	const ProtobufCMessageDescriptor *request, *answer;
};

struct grpc_options {
	const struct grpc_header *headers;
	int limit_ms;
	uint32_t tolerated;
	/* A stream of answers instead of one: each, from the loop; value is borrowed. May drop the call. */
	void (*each)(void *arg, json_t *value);
	void *each_arg;
};

/* As grpc_start(). The answer is {"status": 0, "body": the message}; a stream has no body at its end. */
struct nova_op *grpc_ask(struct grpc *grpc, const struct grpc_method *method, const json_t *request,
    const struct grpc_options *options, nova_done_fn done, void *arg, struct nova_error *err);

/* A message as bytes; free() them. NULL and the reason, which names the member. */
void *grpc_json_pack(const ProtobufCMessageDescriptor *type, const json_t *value, size_t *length, struct nova_error *err);
/* New reference, or NULL and the reason. */
json_t *grpc_json_unpack(const ProtobufCMessageDescriptor *type, const void *bytes, size_t length, struct nova_error *err);
/* A member that is bytes: base64 of these. New reference. */
json_t *grpc_json_bytes(const void *bytes, size_t length);
/* And back, with a NUL behind them; free() them. NULL: no base64, or no memory. */
void *grpc_json_data(const json_t *value, size_t *length);

#endif
