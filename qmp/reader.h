/* SPDX-License-Identifier: Apache-2.0
 *
 * reader.h - JSON objects out of a byte stream, however it is cut.
 */
#ifndef NOVA_QMP_READER_H
#define NOVA_QMP_READER_H

#include "qmp.h"

struct qmp_reader {
	size_t message_bytes; /* longest message accepted; may change between messages */
	int depth_max;
	bool saturate; /* integers beyond 64 bits become the nearest that fits, instead of an error */
	char *data;    /* owned: bytes fed and not yet given out */
	size_t start;  /* of the message being collected */
	size_t scan;   /* next byte to look at */
	size_t end, room;
	int depth; /* open brackets at scan */
	bool string, escape;
	bool misread; /* next() failed at a whole message, which is still there */
};

/* limits may be NULL; zeros are the defaults of struct qmp_limits. */
void qmp_reader_init(struct qmp_reader *reader, const struct qmp_limits *limits);
void qmp_reader_release(struct qmp_reader *reader);

/* Append bytes. Feed only what is at hand and empty the reader with next(): what it holds is bounded by one
 * message and what was fed last. Fails only when out of memory. */
int qmp_reader_feed(struct qmp_reader *reader, const void *data, size_t length, struct nova_error *err);

/* The next whole message: 1 and *message (the caller's), 0 when more bytes are needed, -1 and NOVA_INVALID
 * when the stream cannot be trusted any further. Only release it then, unless it misread: jansson does not tell a bad text
 * from a lack of memory, so the same message may be asked for again. */
int qmp_reader_next(struct qmp_reader *reader, json_t **message, struct nova_error *err);

#endif
