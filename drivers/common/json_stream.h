/* SPDX-License-Identifier: Apache-2.0
 *
 * json_stream.h - JSON objects out of a stream of bytes, one after the other, with or without white space
 * between them: how runtimes send events and progress.
 */
#ifndef NOVA_DRIVER_JSON_STREAM_H
#define NOVA_DRIVER_JSON_STREAM_H

#include "engine/novacron.h"

#define JSON_STREAM_MAX (1u << 20) /* bytes of one object */

struct json_stream {
	char *bytes; /* owned: of an object that has begun */
	size_t used, capacity;
	unsigned depth;
	bool in_string, escaped;
};

/* value is borrowed. */
typedef void (*json_stream_fn)(void *arg, json_t *value);

/* All zero is a fresh one. Call each for every object that is complete; -1 when the bytes are no sequence of
 * objects, or one is too long: the stream is of no use any more then. */
int json_stream_feed(struct json_stream *stream, const void *bytes, size_t length, json_stream_fn each, void *arg,
    struct nova_error *err);
void json_stream_release(struct json_stream *stream);

#endif
