/* SPDX-License-Identifier: Apache-2.0
 *
 * codec_decode.c - blocks in, raw stream out. Trusts nothing in a message.
 *
 * Every token is checked against what is left of content, tokens and the 64 KiB of raw stream that a block
 * may have; the first thing that an encoder cannot have made ends the decoder. Memory: 64 KiB and the
 * unpacker's.
 */
#include "codec.h"
#include "baseline.h"
#include "codec_block.h"
#include "codec_pack.h"
#include "cursor.h"
#include "history.h"

#include <stdlib.h>
#include <xxhash.h>

struct nova_decoder {
	struct nova_unpacker *unpacker;
	struct nova_history *history; /* NULL: none */
	struct nova_baseline *baseline; /* borrowed; NULL: none */
	struct nova_spool *spool;       /* borrowed; NULL: none */
	struct nova_error base_error;   /* of the block at hand, if base_failed */
	bool base_failed;
	XXH3_state_t *digest;
	struct nova_codec_stats stats;
	uint64_t busy_ns;
	struct nova_predict predict;
	bool broken;

	/* the block at hand */
	struct nova_cursor content, tokens;
	struct nova_writer out;
	const uint8_t *header[NOVA_RECORDS]; /* for the next record of that kind; NULL: as predicted */
	size_t header_length[NOVA_RECORDS];
	uint8_t raw[NOVA_BLOCK_RAW_MAX];
};

struct head {
	enum nova_codec codec;
	bool fresh;
	size_t raw, content, tokens;
};

static int read_head(struct nova_cursor *c, struct head *head, struct nova_error *err)
{
	uint8_t first = nova_get_u8(c);
	uint64_t raw = nova_get_varint(c);
	uint64_t content = nova_get_varint(c);
	uint64_t tokens = nova_get_varint(c);
	unsigned codec = first & 0x0f;

	if (c->bad)
		return nova_error_set(err, NOVA_INVALID, "a block ends within its head");
	if (codec == NOVA_CODEC_AUTO || codec >= NOVA_CODECS || (first & ~(0x0fu | NOVA_BLOCK_FRESH)))
		return nova_error_set(err, NOVA_INVALID, "a block of unknown kind 0x%02x", first);
	if (raw == 0 || raw > NOVA_BLOCK_RAW_MAX || content > NOVA_BLOCK_RAW_MAX || tokens > NOVA_TOKENS_MAX)
		return nova_error_set(err, NOVA_INVALID, "a block beyond the limits (%ju bytes, %ju, %ju)",
		    (uintmax_t)raw, (uintmax_t)content, (uintmax_t)tokens);
	*head = (struct head) { (enum nova_codec)codec, first & NOVA_BLOCK_FRESH, raw, content, tokens };
	return 0;
}

/* ---- records ------------------------------------------------------------------------------------ */

static void put_header(struct nova_decoder *dec, enum nova_record record)
{
	struct nova_predict *p = &dec->predict;
	uint8_t predicted[NOVA_PREDICT_MAX];

	if (dec->header[record]) {
		nova_put_bytes(&dec->out, dec->header[record], dec->header_length[record]);
		nova_predict_learn(p, record, dec->header[record], dec->header_length[record]);
		dec->header[record] = NULL;
	} else {
		size_t length = nova_predict_header(p, record, p->page, predicted);

		nova_put_bytes(&dec->out, predicted, length);
	}
	p->page += NOVA_PAGE_BYTES;
	dec->stats.pages++;
}

static void put_copied(struct nova_decoder *dec, uint64_t length)
{
	const uint8_t *from = length <= NOVA_BLOCK_RAW_MAX ? nova_get_bytes(&dec->content, length) : NULL;

	if (from)
		nova_put_bytes(&dec->out, from, length);
	else
		dec->content.bad = true;
}

/* Header and room for the content of a page record; NULL: it does not fit. *page is the page it is of. */
static uint8_t *begin_page(struct nova_decoder *dec, uint64_t *page)
{
	*page = dec->predict.page;
	put_header(dec, NOVA_RECORD_PAGE);
	return nova_put_room(&dec->out, NOVA_PAGE_BYTES);
}

/* The page record is whole. */
static void end_page(struct nova_decoder *dec, uint64_t page, const uint8_t *content)
{
	if (dec->spool)
		nova_spool_page(dec->spool, page, content);
}

static void keep(struct nova_decoder *dec, uint32_t slot, const uint8_t *content)
{
	if (slot != NOVA_NO_SLOT)
		memcpy(nova_history_content(dec->history, slot), content, NOVA_PAGE_BYTES);
}

static void put_pages(struct nova_decoder *dec, uint64_t count)
{
	for (; count && !dec->out.bad && !dec->content.bad; count--) {
		uint64_t page;
		uint8_t *to = begin_page(dec, &page);
		const uint8_t *from = nova_get_bytes(&dec->content, NOVA_PAGE_BYTES);

		if (!to || !from)
			return;
		memcpy(to, from, NOVA_PAGE_BYTES);
		if (dec->history)
			keep(dec,
			    nova_history_rewrite(dec->history, page, nova_history_find(dec->history, page)),
			    to);
		end_page(dec, page, to);
		dec->stats.raw_pages++;
	}
}

/* The slot that holds a page which the encoder says both of us have. */
static uint32_t known_slot(struct nova_decoder *dec, uint64_t page)
{
	uint32_t slot = dec->history ? nova_history_find(dec->history, page) : NOVA_NO_SLOT;

	if (slot == NOVA_NO_SLOT)
		dec->tokens.bad = true;
	return slot;
}

static void put_same(struct nova_decoder *dec, uint64_t count)
{
	for (; count && !dec->out.bad; count--) {
		uint64_t page;
		uint8_t *to = begin_page(dec, &page);
		uint32_t slot = known_slot(dec, page);

		if (!to || slot == NOVA_NO_SLOT)
			return;
		memcpy(to, nova_history_content(dec->history, slot), NOVA_PAGE_BYTES);
		nova_history_same(dec->history, slot);
		end_page(dec, page, to);
		dec->stats.same_pages++;
	}
}

/* Put the changed ranges into the page, and into its history if that is given. */
static void patch(struct nova_decoder *dec, uint64_t ranges, uint8_t *page, uint8_t *old)
{
	size_t at = 0;

	for (; ranges; ranges--) {
		uint64_t skip = nova_get_varint(&dec->tokens);
		uint64_t length = nova_get_varint(&dec->tokens);
		const uint8_t *from;

		if (skip >= NOVA_PAGE_BYTES - at || length >= NOVA_PAGE_BYTES - at - skip) {
			dec->tokens.bad = true;
			return;
		}
		at += skip;
		length++;
		from = nova_get_bytes(&dec->content, length);
		if (!from || dec->tokens.bad)
			return;
		memcpy(page + at, from, length);
		if (old)
			memcpy(old + at, from, length);
		at += length;
	}
}

static void put_delta(struct nova_decoder *dec, uint64_t ranges)
{
	uint64_t page;
	uint8_t *to = begin_page(dec, &page);
	uint32_t slot = known_slot(dec, page), into;

	if (!to || slot == NOVA_NO_SLOT)
		return;
	memcpy(to, nova_history_content(dec->history, slot), NOVA_PAGE_BYTES);
	into = nova_history_rewrite(dec->history, page, slot);
	patch(dec, ranges, to, into == slot ? nova_history_content(dec->history, slot) : NULL);
	if (into != slot)
		keep(dec, into, to);
	end_page(dec, page, to);
	dec->stats.delta_pages++;
}

static void put_references(struct nova_decoder *dec, uint64_t count)
{
	uint32_t slot = dec->predict.slot + (uint32_t)nova_get_zigzag(&dec->tokens);

	for (; count && !dec->out.bad; count--, slot++) {
		uint64_t page;
		uint8_t *to = begin_page(dec, &page);
		const uint8_t *from = dec->history ? nova_history_content(dec->history, slot) : NULL;

		if (!to || !from) {
			dec->tokens.bad = true;
			return;
		}
		memcpy(to, from, NOVA_PAGE_BYTES);
		nova_history_share(dec->history, page, slot);
		end_page(dec, page, to);
		dec->stats.reference_pages++;
	}
	dec->predict.slot = slot;
}

/* ---- the baseline ---- */

static const uint8_t *base_content(struct nova_decoder *dec, uint32_t slot)
{
	const uint8_t *content = dec->baseline ? nova_baseline_content(dec->baseline, slot, &dec->base_error) : NULL;

	if (dec->baseline && !content)
		dec->base_failed = true;
	if (!content)
		dec->tokens.bad = true;
	return content;
}

static void put_base(struct nova_decoder *dec)
{
	uint64_t count = nova_get_varint(&dec->tokens);
	uint32_t slot = dec->predict.base + (uint32_t)nova_get_zigzag(&dec->tokens);

	if (count >= NOVA_BLOCK_RAW_MAX)
		dec->tokens.bad = true;
	for (count++; count && !dec->out.bad && !dec->tokens.bad; count--, slot++) {
		uint64_t page;
		uint8_t *to = begin_page(dec, &page);
		const uint8_t *from = to ? base_content(dec, slot) : NULL;

		if (!from)
			return;
		memcpy(to, from, NOVA_PAGE_BYTES);
		end_page(dec, page, to);
		dec->stats.baseline_pages++;
	}
	dec->predict.base = slot;
}

static void put_base_delta(struct nova_decoder *dec)
{
	uint32_t slot = dec->predict.base + (uint32_t)nova_get_zigzag(&dec->tokens);
	uint64_t ranges = nova_get_varint(&dec->tokens), page;
	uint8_t *to = dec->tokens.bad ? NULL : begin_page(dec, &page);
	const uint8_t *from = to ? base_content(dec, slot) : NULL;

	if (!from || ranges >= NOVA_PAGE_BYTES) {
		dec->tokens.bad = true;
		return;
	}
	memcpy(to, from, NOVA_PAGE_BYTES);
	patch(dec, ranges + 1, to, NULL);
	dec->predict.base = slot + 1;
	if (dec->history)
		keep(dec, nova_history_rewrite(dec->history, page, nova_history_find(dec->history, page)), to);
	end_page(dec, page, to);
	dec->stats.baseline_delta_pages++;
}

static void put_fills(struct nova_decoder *dec, uint64_t count)
{
	for (; count && !dec->out.bad; count--) {
		put_header(dec, NOVA_RECORD_FILL);
		nova_put_u8(&dec->out, dec->predict.fill);
		dec->stats.fill_pages++;
	}
}

static void seek(struct nova_decoder *dec, unsigned number)
{
	int64_t pages = number < NOVA_TOKEN_MORE ? (int64_t)number + 1 : nova_get_zigzag(&dec->tokens);

	dec->predict.page += (uint64_t)pages * NOVA_PAGE_BYTES;
}

static void take_header(struct nova_decoder *dec, enum nova_record record)
{
	uint64_t length = nova_get_varint(&dec->tokens);

	dec->header[record] = length <= NOVA_BLOCK_RAW_MAX ? nova_get_bytes(&dec->content, length) : NULL;
	dec->header_length[record] = length;
	if (!dec->header[record])
		dec->content.bad = true;
}

static void take_note(struct nova_decoder *dec, unsigned note)
{
	switch (note) {
	case NOVA_NOTE_PAGE_HEADER:
		take_header(dec, NOVA_RECORD_PAGE);
		break;
	case NOVA_NOTE_FILL_HEADER:
		take_header(dec, NOVA_RECORD_FILL);
		break;
	case NOVA_NOTE_FILL_BYTE:
		dec->predict.fill = nova_get_u8(&dec->tokens);
		break;
	case NOVA_NOTE_BASE:
		put_base(dec);
		break;
	case NOVA_NOTE_BASE_DELTA:
		put_base_delta(dec);
		break;
	default:
		dec->tokens.bad = true;
	}
}

static uint64_t take_count(struct nova_decoder *dec, unsigned number)
{
	uint64_t more = number < NOVA_TOKEN_MORE ? 0 : nova_get_varint(&dec->tokens);

	if (more > NOVA_BLOCK_RAW_MAX)
		dec->tokens.bad = true;
	return dec->tokens.bad ? 0 : number + more + 1;
}

static void take_token(struct nova_decoder *dec)
{
	uint8_t byte = nova_get_u8(&dec->tokens);
	unsigned number = byte & 0x1f;

	switch ((enum nova_token)(byte >> 5)) {
	case NOVA_TOKEN_BYTES:
		put_copied(dec, take_count(dec, number));
		break;
	case NOVA_TOKEN_PAGES:
		put_pages(dec, take_count(dec, number));
		break;
	case NOVA_TOKEN_FILLS:
		put_fills(dec, take_count(dec, number));
		break;
	case NOVA_TOKEN_SAME:
		put_same(dec, take_count(dec, number));
		break;
	case NOVA_TOKEN_DELTA:
		put_delta(dec, take_count(dec, number));
		break;
	case NOVA_TOKEN_REF:
		put_references(dec, take_count(dec, number));
		break;
	case NOVA_TOKEN_SEEK:
		seek(dec, number);
		break;
	case NOVA_TOKEN_NOTE:
		take_note(dec, number);
		break;
	}
}

static int rebuild(
    struct nova_decoder *dec, const struct head *head, const uint8_t *body, struct nova_error *err)
{
	dec->content = nova_cursor_of(body, head->content);
	dec->tokens = nova_cursor_of(body + head->content, head->tokens);
	dec->out = nova_writer_of(dec->raw, head->raw);
	dec->header[NOVA_RECORD_PAGE] = dec->header[NOVA_RECORD_FILL] = NULL;
	while (nova_cursor_left(&dec->tokens) && !dec->content.bad && !dec->out.bad)
		take_token(dec);
	if (dec->base_failed)
		return nova_error_copy(err, &dec->base_error), -1;
	if (dec->tokens.bad || dec->content.bad || dec->out.bad)
		return nova_error_set(err, NOVA_INVALID, "a block's tokens do not fit its content");
	if (nova_cursor_left(&dec->content) || nova_writer_used(&dec->out) != head->raw)
		return nova_error_set(err, NOVA_INVALID, "a block makes %zu bytes and says %zu",
		    nova_writer_used(&dec->out), head->raw);
	return 0;
}

static int decode(struct nova_decoder *dec, const uint8_t *message, size_t length, struct nova_error *err)
{
	struct nova_cursor c = nova_cursor_of(message, length);
	struct head head = { 0 };
	const uint8_t *body;

	if (length > NOVA_MESSAGE_MAX)
		return nova_error_set(
		    err, NOVA_INVALID, "a message of %zu bytes, %u are allowed", length, NOVA_MESSAGE_MAX);
	if (read_head(&c, &head, err) < 0 ||
	    nova_unpacker_unpack(dec->unpacker, head.codec, head.fresh, c.at, nova_cursor_left(&c),
	        head.content + head.tokens, &body, err) < 0 ||
	    rebuild(dec, &head, body, err) < 0)
		return -1;
	XXH3_128bits_update(dec->digest, dec->raw, head.raw);
	dec->stats.raw_bytes += head.raw;
	dec->stats.encoded_bytes += length;
	dec->stats.blocks++;
	return 0;
}

/* ---- the interface ------------------------------------------------------------------------------ */

struct nova_decoder *nova_decoder_new(const struct nova_codec_options *options, struct nova_error *err)
{
	struct nova_decoder *dec = malloc(sizeof(*dec));

	if (!dec) {
		nova_error_set(err, NOVA_SYSTEM, "out of memory for the decoder");
		return NULL;
	}
	memset(dec, 0, offsetof(struct nova_decoder, raw));
	dec->baseline = options->baseline;
	dec->spool = options->spool;
	dec->unpacker = nova_unpacker_new(err);
	dec->digest = XXH3_createState();
	if (options->history_bytes && !(dec->history = nova_history_new(options->history_bytes, false, err)))
		return nova_decoder_free(dec);
	if (!dec->unpacker || !dec->digest) {
		nova_error_set(err, NOVA_SYSTEM, "out of memory for the decoder");
		return nova_decoder_free(dec);
	}
	XXH3_128bits_reset(dec->digest);
	return dec;
}

struct nova_decoder *nova_decoder_free(struct nova_decoder *dec)
{
	if (!dec)
		return NULL;
	XXH3_freeState(dec->digest);
	nova_unpacker_free(dec->unpacker);
	nova_history_free(dec->history);
	free(dec);
	return NULL;
}

int nova_decoder_feed(struct nova_decoder *dec, const uint8_t *message, size_t length, const uint8_t **raw,
    size_t *raw_length, struct nova_error *err)
{
	uint64_t began = nova_codec_clock_ns();

	if (dec->broken)
		return nova_error_set(err, NOVA_STATE, "this decoder has failed before");
	if (decode(dec, message, length, err) < 0) {
		dec->broken = true;
		return -1;
	}
	*raw = dec->raw;
	*raw_length = nova_writer_used(&dec->out);
	dec->busy_ns += nova_codec_clock_ns() - began;
	return 0;
}

void nova_decoder_digest(const struct nova_decoder *dec, uint8_t digest[16], uint64_t *raw_bytes)
{
	XXH128_canonical_t canonical;

	XXH128_canonicalFromHash(&canonical, XXH3_128bits_digest(dec->digest));
	memcpy(digest, canonical.digest, sizeof(canonical.digest));
	*raw_bytes = dec->stats.raw_bytes;
}

void nova_decoder_stats(const struct nova_decoder *dec, struct nova_codec_stats *stats)
{
	*stats = dec->stats;
	stats->busy_us = dec->busy_ns / 1000;
}
