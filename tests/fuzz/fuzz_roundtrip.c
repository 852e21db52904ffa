/* SPDX-License-Identifier: Apache-2.0
 *
 * fuzz_roundtrip.c - decode(encode(x)) == x, whatever x, the pieces it comes in, flushes and changes of
 * codec.
 *
 * An input is a script: bytes as they are, or records of pages that are made up from a few bytes and come
 * again with small changes, so that the page history has something to do.
 */
#include <stdlib.h>
#include <string.h>

#include "engine/codec.h"
#include "engine/cursor.h"
#include "qmp/stream.h"

#define STREAM_MAX (1u << 20)

static uint8_t stream[STREAM_MAX]; /* between runs nobody reads it */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct run {
	struct nova_encoder *encoder;
	struct nova_decoder *decoder;
	uint8_t *raw; /* all that was fed */
	size_t fed, decoded;
};

static void emit(void *arg, struct nova_buf *buf)
{
	struct run *r = arg;
	struct nova_error err;
	const uint8_t *raw;
	size_t length;

	if (nova_decoder_feed(r->decoder, buf->data, buf->length, &raw, &length, &err) < 0)
		abort();
	if (length > r->fed - r->decoded || memcmp(raw, r->raw + r->decoded, length) != 0)
		abort();
	r->decoded += length;
	nova_buf_free(buf);
}

static void feed(struct run *r, const void *data, size_t length)
{
	struct nova_error err;

	if (!length || length > STREAM_MAX - r->fed)
		return;
	memcpy(r->raw + r->fed, data, length);
	r->fed += length;
	if (nova_encoder_feed(r->encoder, r->raw + r->fed - length, length, &err) < 0)
		abort();
}

/* A page of one of 16 patterns, changed in one place. */
static void feed_page(struct run *r, struct nova_cursor *c, bool named)
{
	uint8_t record[8 + 4 + NOVA_PAGE_BYTES];
	struct nova_writer w = nova_writer_of(record, sizeof(record));
	uint64_t page = nova_get_u8(c);
	uint8_t pattern = nova_get_u8(c);
	uint16_t place = nova_get_u16(c) % NOVA_PAGE_BYTES;
	uint8_t change = nova_get_u8(c);
	uint64_t x = 1, value;
	uint8_t *content;

	nova_put_u64(&w, page << 12 | (named ? 0x08 : 0x28));
	if (named)
		nova_put_bytes(&w, "\3mem", 4);
	content = nova_put_room(&w, NOVA_PAGE_BYTES);
	for (size_t i = 0; i < NOVA_PAGE_BYTES; i += sizeof(x)) {
		x = (x + pattern) * 0x9e3779b97f4a7c15ull;
		value = pattern < 128 ? x : x & 0x0101010101010101ull;
		memcpy(content + i, &value, sizeof(value));
	}
	content[place] ^= change;
	feed(r, record, nova_writer_used(&w));
}

static void feed_fills(struct run *r, struct nova_cursor *c)
{
	uint64_t page = nova_get_u8(c);
	unsigned count = nova_get_u8(c);
	uint8_t fill = nova_get_u8(c);

	for (; count; count--, page++) {
		uint8_t record[9];
		struct nova_writer w = nova_writer_of(record, sizeof(record));

		nova_put_u64(&w, page << 12 | 0x22);
		nova_put_u8(&w, fill & 0x80 ? fill : 0);
		feed(r, record, sizeof(record));
	}
}

static void play(struct run *r, struct nova_cursor *c)
{
	uint8_t op = nova_get_u8(c);
	struct nova_error err;
	size_t length;

	switch (op % 8) {
	case 0:
	case 1:
	case 2:
		feed_page(r, c, op & 0x80);
		break;
	case 3:
		feed_fills(r, c);
		break;
	case 4:
	case 5:
		length = op & 0x80 ? nova_get_u16(c) : op >> 3;
		if (length > nova_cursor_left(c))
			length = nova_cursor_left(c);
		feed(r, nova_get_bytes(c, length), length);
		break;
	case 6:
		if (nova_encoder_flush(r->encoder, false, &err) < 0 || r->decoded != r->fed)
			abort();
		break;
	case 7:
		if (nova_encoder_set_codec(r->encoder, (enum nova_codec)(op >> 3 & 3), op >> 6 & 1, &err) <
		        0 &&
		    (op >> 6 & 1) == 0)
			abort();
		break;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct nova_cursor c = nova_cursor_of(data, size);
	uint8_t first = nova_get_u8(&c);
	const struct nova_codec_options options = {
		.codec = (enum nova_codec)(first & 3),
		.history_bytes = first & 4 ? (first & 8 ? 64 : 1024) * 1024 : 0,
	};
	struct run r = { .raw = stream };
	uint8_t sent[16], received[16];
	uint64_t sent_bytes, received_bytes;
	struct nova_error err;

	r.encoder = nova_encoder_new(&options, first & 16 ? NULL : &qmp_stream_scanner, emit, &r, &err);
	r.decoder = nova_decoder_new(&options, &err);
	if (first & 32) /* the preempt channel: records from the first byte */
		feed(&r, "\0\0\0\0\0\0\0\x08\3mem", 12);
	else
		feed(&r, "QEVM\0\0\0\3\1\0\0\0\2\3ram\0\0\0\0\0\0\0\4", 25);
	while (nova_cursor_left(&c) && !c.bad)
		play(&r, &c);
	if (nova_encoder_flush(r.encoder, true, &err) < 0 || r.decoded != r.fed)
		abort();
	nova_encoder_digest(r.encoder, sent, &sent_bytes);
	nova_decoder_digest(r.decoder, received, &received_bytes);
	if (sent_bytes != r.fed || received_bytes != r.fed || memcmp(sent, received, 16) != 0)
		abort();
	nova_encoder_free(r.encoder);
	nova_decoder_free(r.decoder);
	return 0;
}
