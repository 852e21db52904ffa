/* SPDX-License-Identifier: Apache-2.0
 *
 * reader.c - split a byte stream into JSON objects, then let jansson parse each whole one.
 *
 * The splitter knows strings, escapes and brackets, nothing else: it finds where a message ends and holds the
 * stream to its limits (4 MiB a message, 64 levels unless told) before any memory is spent on values. What
 * it lets pass may still be no JSON; jansson says so. Refused: anything but an object at the top, NUL bytes
 * (raw or escaped), invalid UTF-8, the same key twice. White space between messages is free.
 *
 * QEMU sends unsigned 64-bit numbers, JSON integers of jansson are signed: a reader that saturates gives
 * INT64_MAX for them, so that one odd counter does not cost the monitor.
 */
#include "reader.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define MESSAGE_BYTES (4u << 20)
#define DEPTH 64
#define KEEP_BYTES 4096u /* an empty reader gives back more than this */

void qmp_reader_init(struct qmp_reader *reader, const struct qmp_limits *limits)
{
	*reader = (struct qmp_reader) {
		.message_bytes = limits && limits->message_bytes ? limits->message_bytes : MESSAGE_BYTES,
		.depth_max = limits && limits->depth ? limits->depth : DEPTH,
	};
}

void qmp_reader_release(struct qmp_reader *reader)
{
	free(reader->data);
	reader->data = NULL;
	reader->start = reader->scan = reader->end = reader->room = 0;
}

/* Move what is held to the front; forget the buffer when nothing is. */
static void compact(struct qmp_reader *reader)
{
	size_t held = reader->end - reader->start;

	if (held == 0 && reader->room > KEEP_BYTES) {
		free(reader->data);
		reader->data = NULL;
		reader->room = 0;
	} else if (held && reader->start) {
		memmove(reader->data, reader->data + reader->start, held);
	}
	reader->scan -= reader->start;
	reader->start = 0;
	reader->end = held;
}

int qmp_reader_feed(struct qmp_reader *reader, const void *data, size_t length, struct nova_error *err)
{
	compact(reader);
	if (length > reader->room - reader->end) {
		size_t room =
		    reader->room * 2 > reader->end + length ? reader->room * 2 : reader->end + length;
		char *grown = realloc(reader->data, room);

		if (!grown)
			return nova_error_sys(err, ENOMEM, "no memory for a message of %zu bytes", room);
		reader->data = grown;
		reader->room = room;
	}
	if (length)
		memcpy(reader->data + reader->end, data, length);
	reader->end += length;
	return 0;
}

static bool is_space(char c)
{
	return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

/* Between messages: white space, then the bracket that opens one. */
static int find_start(struct qmp_reader *reader, struct nova_error *err)
{
	while (reader->start < reader->end && is_space(reader->data[reader->start]))
		reader->start++;
	reader->scan = reader->start;
	if (reader->start == reader->end || reader->data[reader->start] == '{')
		return 0;
	return nova_error_set(err, NOVA_INVALID,
	    "a message starts with byte 0x%02x; only JSON objects are accepted",
	    (unsigned char)reader->data[reader->start]);
}

static int step(struct qmp_reader *reader, char c, struct nova_error *err)
{
	if (c == 0)
		return nova_error_set(err, NOVA_INVALID, "a message contains a NUL byte");
	if (reader->escape) {
		reader->escape = false;
	} else if (reader->string) {
		reader->escape = c == '\\';
		reader->string = c != '"';
	} else if (c == '"') {
		reader->string = true;
	} else if (c == '{' || c == '[') {
		if (++reader->depth > reader->depth_max)
			return nova_error_set(err, NOVA_INVALID, "a message is nested deeper than %d levels",
			    reader->depth_max);
	} else if (c == '}' || c == ']') {
		reader->depth--;
	}
	return 0;
}

/* Overwrite a run of digits that 64 signed bits cannot hold: such a run is never shorter than the limit. */
static void saturate_number(char *digits, size_t length, bool negative)
{
	const char *limit = negative ? "9223372036854775808" : "9223372036854775807";
	size_t limit_length = strlen(limit);

	if (length < limit_length || (length == limit_length && memcmp(digits, limit, length) <= 0))
		return;
	memset(digits, ' ', length);
	memcpy(digits, limit, limit_length);
}

/* Integers only: a run of digits that belongs to a fraction or an exponent is left alone. */
static void saturate(char *text, size_t length)
{
	bool string = false;

	for (size_t i = 0; i < length; i++) {
		size_t first = i;

		if (string && text[i] == '\\') {
			i++;
		} else if (text[i] == '"') {
			string = !string;
		} else if (!string && text[i] >= '0' && text[i] <= '9') {
			while (i + 1 < length && text[i + 1] >= '0' && text[i + 1] <= '9')
				i++;
			if (!strchr(".eE+", text[first - 1]) && !strchr(".eE", text[i + 1]))
				saturate_number(text + first, i + 1 - first, text[first - 1] == '-');
		}
	}
}

static int parse(struct qmp_reader *reader, json_t **message, struct nova_error *err)
{
	char *text = reader->data + reader->start;
	size_t length = reader->scan - reader->start;
	json_error_t why;
	json_t *value = json_loadb(text, length, JSON_REJECT_DUPLICATES, &why);

	if (!value && reader->saturate && json_error_code(&why) == json_error_numeric_overflow) {
		saturate(text, length);
		value = json_loadb(text, length, JSON_REJECT_DUPLICATES, &why);
	}
	reader->misread = !value;
	if (!value) {
		reader->scan = reader->start;
		return nova_error_set(err, NOVA_INVALID,
		    "a message of %zu bytes is not valid JSON: %s at byte %d", length, why.text,
		    why.position);
	}
	reader->start = reader->scan;
	*message = value;
	return 1;
}

int qmp_reader_next(struct qmp_reader *reader, json_t **message, struct nova_error *err)
{
	if (reader->depth == 0 && find_start(reader, err) < 0)
		return -1;
	while (reader->scan < reader->end) {
		if (reader->scan - reader->start >= reader->message_bytes)
			return nova_error_set(
			    err, NOVA_INVALID, "a message is longer than %zu bytes", reader->message_bytes);
		if (step(reader, reader->data[reader->scan++], err) < 0)
			return -1;
		if (reader->depth == 0)
			return parse(reader, message, err);
	}
	return 0;
}
