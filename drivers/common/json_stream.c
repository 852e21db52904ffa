/* SPDX-License-Identifier: Apache-2.0
 *
 * json_stream.c - finds where an object ends by its braces and strings, and lets jansson read it.
 */
#include "drivers/common/json_stream.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static int keep(struct json_stream *stream, char byte, struct nova_error *err)
{
	size_t capacity = stream->capacity ? stream->capacity * 2 : 512;
	char *grown;

	if (stream->used == JSON_STREAM_MAX)
		return nova_error_set(err, NOVA_REFUSED, "an object of more than %u bytes came", JSON_STREAM_MAX);
	if (stream->used == stream->capacity) {
		grown = realloc(stream->bytes, capacity);
		if (!grown)
			return nova_error_sys(err, ENOMEM, "no memory for what came");
		stream->bytes = grown;
		stream->capacity = capacity;
	}
	stream->bytes[stream->used++] = byte;
	return 0;
}

/* True when this byte ends the object. */
static bool ends_object(struct json_stream *stream, char byte)
{
	if (stream->escaped)
		stream->escaped = false;
	else if (stream->in_string && byte == '\\')
		stream->escaped = true;
	else if (byte == '"')
		stream->in_string = !stream->in_string;
	else if (!stream->in_string && (byte == '{' || byte == '['))
		stream->depth++;
	else if (!stream->in_string && (byte == '}' || byte == ']'))
		return --stream->depth == 0;
	return false;
}

static int tell(struct json_stream *stream, json_stream_fn each, void *arg, struct nova_error *err)
{
	json_error_t why;
	json_t *value = json_loadb(stream->bytes, stream->used, JSON_REJECT_DUPLICATES, &why);

	stream->used = 0;
	if (!value)
		return nova_error_set(err, NOVA_REFUSED, "what came is not JSON: %s", why.text);
	each(arg, value);
	json_decref(value);
	return 0;
}

int json_stream_feed(struct json_stream *stream, const void *bytes, size_t length, json_stream_fn each, void *arg,
    struct nova_error *err)
{
	const char *at = bytes;

	for (size_t i = 0; i < length; i++) {
		if (stream->depth == 0 && strchr(" \t\r\n", at[i]) && at[i])
			continue;
		if (stream->depth == 0 && at[i] != '{')
			return nova_error_set(err, NOVA_REFUSED, "what came is no JSON object");
		if (keep(stream, at[i], err) < 0)
			return -1;
		if (ends_object(stream, at[i]) && tell(stream, each, arg, err) < 0)
			return -1;
	}
	return 0;
}

void json_stream_release(struct json_stream *stream)
{
	free(stream->bytes);
	memset(stream, 0, sizeof(*stream));
}
