/* SPDX-License-Identifier: Apache-2.0
 *
 * codec_encode.c - raw stream in, blocks out.
 *
 * Input collects in a buffer of 256 KiB. The scanner cuts it into spans; each span becomes tokens and content
 * of the block under construction, which goes out when its raw stream reaches 64 KiB, or on flush. A flush
 * may cut a record: the part that is there goes out as opaque bytes at once, but stays in the buffer until
 * the scanner has seen the whole record, so that the scanner never loses step; the rest of that record is
 * opaque, too.
 *
 * A block that looks random goes as it is, whatever the codec. Blocks shrink to 8 KiB of content while packing
 * one takes more than a millisecond.
 *
 * Memory: 256 KiB of input, and the packer's. One step takes what one block takes: about 20 us without a
 * codec, 0.1 ms with LZ4, 0.2 to 1 ms with zstd.
 */
#include "codec.h"
#include "adapt.h"
#include "baseline.h"
#include "codec_block.h"
#include "codec_pack.h"
#include "cursor.h"
#include "delta.h"
#include "history.h"

#include <assert.h>
#include <stdlib.h>
#include <xxhash.h>

#define INPUT_BYTES (256u * 1024)
#define INPUT_SPACE_MIN (64u * 1024)
#define RECORD_HEADER_MAX 1024u /* longer ones are opaque */
#define BLOCK_BYTES_MIN (8u * 1024)
#define PACK_NS_MAX 1000000u    /* a block that takes longer is too large */
#define RECORD_TOKENS_MAX 64u   /* bytes of tokens one span can take, and a pending run before it */

static_assert(INPUT_BYTES >= INPUT_SPACE_MIN + NOVA_BLOCK_RAW_MAX, "space can always be made");

#define RUN_BASE ((enum nova_token)8) /* a run of NOVA_NOTE_BASE */

/* The block under construction. */
struct building {
	uint8_t *content;     /* NULL: none is begun; NOVA_BODY_MAX bytes, the packer's or the message's */
	struct nova_buf *buf; /* owned: the message, of a block that is not to be packed; NULL: it is */
	size_t content_bytes;
	size_t raw_bytes;
	struct nova_writer tokens;
	enum nova_token run; /* not yet written: `count` of these; RUN_BASE too */
	uint64_t count;
	int64_t first_slot; /* of a run of references or of RUN_BASE, against what was predicted */
	uint8_t token_space[NOVA_TOKENS_MAX];
};

struct nova_encoder {
	const struct nova_scanner_ops *ops; /* NULL: everything is opaque */
	void *scanner;
	void (*emit)(void *arg, struct nova_buf *buf);
	void *arg;
	enum nova_codec codec;
	int level;
	struct nova_adapt *adapt; /* NULL: codec and level are pinned */
	uint64_t born_ns;
	struct nova_packer *packer;
	struct nova_history *history; /* NULL: none */
	struct nova_baseline *baseline; /* borrowed; NULL: none */
	struct nova_spool *spool;       /* borrowed; NULL: none */
	XXH3_state_t *digest;
	struct nova_codec_stats stats;
	uint64_t busy_ns;
	struct nova_predict predict;
	struct nova_span span; /* of input at `start`; total_bytes 0: ask the scanner */
	size_t start, end;     /* of input that is not consumed */
	size_t sent;           /* input before this went out already, cut by a flush */
	size_t block_bytes; /* most raw bytes of the next block, so that packing it does not take long */
	struct building block;
	uint8_t input[INPUT_BYTES];
};

/* ---- tokens ------------------------------------------------------------------------------------- */

static void put_token(struct nova_writer *w, enum nova_token op, uint64_t number)
{
	if (number < NOVA_TOKEN_MORE) {
		nova_put_u8(w, (uint8_t)(op << 5 | number));
		return;
	}
	nova_put_u8(w, (uint8_t)(op << 5 | NOVA_TOKEN_MORE));
	nova_put_varint(w, number - NOVA_TOKEN_MORE);
}

static void end_run(struct building *b)
{
	if (b->count && b->run == RUN_BASE) {
		put_token(&b->tokens, NOVA_TOKEN_NOTE, NOVA_NOTE_BASE);
		nova_put_varint(&b->tokens, b->count - 1);
		nova_put_zigzag(&b->tokens, b->first_slot);
	} else if (b->count) {
		put_token(&b->tokens, b->run, b->count - 1);
		if (b->run == NOVA_TOKEN_REF)
			nova_put_zigzag(&b->tokens, b->first_slot);
	}
	b->count = 0;
}

static void add_run(struct building *b, enum nova_token op, uint64_t count)
{
	if (b->run != op)
		end_run(b);
	b->run = op;
	b->count += count;
}

static void put_note(struct building *b, enum nova_note note)
{
	end_run(b);
	put_token(&b->tokens, NOVA_TOKEN_NOTE, note);
}

static void put_seek(struct building *b, uint64_t expected, uint64_t page)
{
	int64_t pages = (int64_t)(page - expected) / (int64_t)NOVA_PAGE_BYTES;

	end_run(b);
	if (pages >= 1 && pages <= (int64_t)NOVA_TOKEN_MORE) {
		put_token(&b->tokens, NOVA_TOKEN_SEEK, (uint64_t)pages - 1);
		return;
	}
	nova_put_u8(&b->tokens, NOVA_TOKEN_SEEK << 5 | NOVA_TOKEN_MORE);
	nova_put_zigzag(&b->tokens, pages);
}

static void add_content(struct building *b, const uint8_t *data, size_t length)
{
	memcpy(b->content + b->content_bytes, data, length);
	b->content_bytes += length;
}

/* ---- records ------------------------------------------------------------------------------------ */

/* Whether a span fits what is left of the block. */
static bool has_room(const struct nova_encoder *enc, size_t raw, size_t content)
{
	const struct building *b = &enc->block;

	return b->raw_bytes + raw <= NOVA_BLOCK_RAW_MAX &&
	       (!b->content_bytes || b->content_bytes + content <= enc->block_bytes) &&
	       (size_t)(b->tokens.end - b->tokens.at) >= RECORD_TOKENS_MAX;
}

static void add_header(
    struct nova_encoder *enc, enum nova_record record, uint64_t page, const uint8_t *header, size_t length)
{
	struct building *b = &enc->block;
	uint8_t predicted[NOVA_PREDICT_MAX];

	if (page != enc->predict.page)
		put_seek(b, enc->predict.page, page);
	enc->predict.page = page + NOVA_PAGE_BYTES;
	if (nova_predict_header(&enc->predict, record, page, predicted) == length &&
	    memcmp(predicted, header, length) == 0)
		return;
	put_note(b, record == NOVA_RECORD_PAGE ? NOVA_NOTE_PAGE_HEADER : NOVA_NOTE_FILL_HEADER);
	nova_put_varint(&b->tokens, length);
	add_content(b, header, length);
	nova_predict_learn(&enc->predict, record, header, length);
}

static void add_same(struct nova_encoder *enc, uint32_t slot)
{
	add_run(&enc->block, NOVA_TOKEN_SAME, 1);
	nova_history_same(enc->history, slot);
	enc->stats.same_pages++;
}

static void keep(struct nova_encoder *enc, uint32_t slot, uint64_t hash, const uint8_t *content)
{
	if (slot == NOVA_NO_SLOT)
		return;
	memcpy(nova_history_content(enc->history, slot), content, NOVA_PAGE_BYTES);
	nova_history_index(enc->history, slot, hash);
}

/* old: where the same changes are to be made; may be NULL. */
static void add_ranges(struct building *b, const uint8_t *content, const struct nova_range *ranges, int count,
    uint8_t *old)
{
	unsigned at = 0;

	for (int i = 0; i < count; i++) {
		nova_put_varint(&b->tokens, ranges[i].at - at);
		nova_put_varint(&b->tokens, ranges[i].length - 1u);
		add_content(b, content + ranges[i].at, ranges[i].length);
		if (old)
			memcpy(old + ranges[i].at, content + ranges[i].at, ranges[i].length);
		at = ranges[i].at + ranges[i].length;
	}
}

static void add_delta(struct nova_encoder *enc, uint32_t slot, const uint8_t *content,
    const struct nova_range *ranges, int count)
{
	struct building *b = &enc->block;
	uint32_t into = nova_history_rewrite(enc->history, enc->span.page, slot);
	uint8_t *old = into == slot ? nova_history_content(enc->history, slot) : NULL;

	end_run(b);
	put_token(&b->tokens, NOVA_TOKEN_DELTA, (uint64_t)count - 1);
	add_ranges(b, content, ranges, count, old);
	if (old)
		nova_history_index(enc->history, slot, 0);
	else
		keep(enc, into, 0, content);
	enc->stats.delta_pages++;
}

static void add_reference(struct nova_encoder *enc, uint32_t slot)
{
	struct building *b = &enc->block;

	if (b->run != NOVA_TOKEN_REF || !b->count || slot != enc->predict.slot) {
		end_run(b);
		b->first_slot = (int64_t)slot - (int64_t)enc->predict.slot;
	}
	add_run(b, NOVA_TOKEN_REF, 1);
	enc->predict.slot = slot + 1;
	nova_history_share(enc->history, enc->span.page, slot);
	enc->stats.reference_pages++;
}

/* ---- the baseline ---- */

static void add_base(struct nova_encoder *enc, uint32_t slot)
{
	struct building *b = &enc->block;

	if (b->run != RUN_BASE || !b->count || slot != enc->predict.base) {
		end_run(b);
		b->first_slot = (int64_t)slot - (int64_t)enc->predict.base;
	}
	add_run(b, RUN_BASE, 1);
	enc->predict.base = slot + 1;
	enc->stats.baseline_pages++;
}

/* What changed is kept in the history: it will change again. */
static void add_base_delta(struct nova_encoder *enc, uint32_t slot, const uint8_t *content,
    const struct nova_range *ranges, int count)
{
	struct building *b = &enc->block;

	put_note(b, NOVA_NOTE_BASE_DELTA);
	nova_put_zigzag(&b->tokens, (int64_t)slot - (int64_t)enc->predict.base);
	nova_put_varint(&b->tokens, (uint64_t)count - 1);
	add_ranges(b, content, ranges, count, NULL);
	enc->predict.base = slot + 1;
	if (enc->history)
		keep(enc,
		    nova_history_rewrite(
		        enc->history, enc->span.page, nova_history_find(enc->history, enc->span.page)),
		    0, content);
	enc->stats.baseline_delta_pages++;
}

static bool add_from_baseline(struct nova_encoder *enc, const uint8_t *content)
{
	struct nova_range ranges[NOVA_DELTA_RANGES_MAX];
	const uint8_t *old = NULL;
	uint32_t slot;
	int count;

	if (!enc->baseline)
		return false;
	switch (nova_baseline_look(enc->baseline, enc->span.page, content, &slot, &old)) {
	case NOVA_BASE_SAME:
		add_base(enc, slot);
		return true;
	case NOVA_BASE_OLD:
		count = nova_delta_find(old, content, ranges);
		if (count > 0)
			add_base_delta(enc, slot, content, ranges, count);
		return count > 0;
	case NOVA_BASE_UNKNOWN:
		break;
	}
	return false;
}

/* The ways a page may go, best first. */
static void add_content_of_page(struct nova_encoder *enc, const uint8_t *content)
{
	struct nova_range ranges[NOVA_DELTA_RANGES_MAX];
	uint32_t slot = NOVA_NO_SLOT, other;
	uint64_t hash;

	if (enc->history) {
		slot = nova_history_find(enc->history, enc->span.page);
		if (slot != NOVA_NO_SLOT) {
			int count =
			    nova_delta_find(nova_history_content(enc->history, slot), content, ranges);

			if (count == 0) {
				add_same(enc, slot);
				return;
			}
			if (count > 0) {
				add_delta(enc, slot, content, ranges, count);
				return;
			}
		}
	}
	if (add_from_baseline(enc, content))
		return;
	if (enc->history) {
		hash = nova_history_hash(content);
		other = nova_history_find_content(enc->history, hash, content);
		if (other != NOVA_NO_SLOT) {
			add_reference(enc, other);
			return;
		}
		keep(enc, nova_history_rewrite(enc->history, enc->span.page, slot), hash, content);
	}
	add_run(&enc->block, NOVA_TOKEN_PAGES, 1);
	add_content(&enc->block, content, NOVA_PAGE_BYTES);
	enc->stats.raw_pages++;
}

static void add_page(struct nova_encoder *enc, const uint8_t *data)
{
	add_header(enc, NOVA_RECORD_PAGE, enc->span.page, data, enc->span.header_bytes);
	add_content_of_page(enc, data + enc->span.header_bytes);
	if (enc->spool)
		nova_spool_page(enc->spool, enc->span.page, data + enc->span.header_bytes);
	enc->stats.pages++;
}

static void add_fill(struct nova_encoder *enc, const uint8_t *data)
{
	struct building *b = &enc->block;
	uint8_t fill = data[enc->span.header_bytes];

	add_header(enc, NOVA_RECORD_FILL, enc->span.page, data, enc->span.header_bytes);
	if (fill != enc->predict.fill) {
		put_note(b, NOVA_NOTE_FILL_BYTE);
		nova_put_u8(&b->tokens, fill);
		enc->predict.fill = fill;
	}
	add_run(b, NOVA_TOKEN_FILLS, 1);
	enc->stats.pages++;
	enc->stats.fill_pages++;
}

static void add_bytes(struct nova_encoder *enc, const uint8_t *data, size_t length)
{
	add_run(&enc->block, NOVA_TOKEN_BYTES, length);
	add_content(&enc->block, data, length);
}

/* ---- blocks ------------------------------------------------------------------------------------- */

static void begin_block(struct nova_encoder *enc)
{
	struct building *b = &enc->block;

	b->buf = enc->codec == NOVA_CODEC_NONE ? nova_buf_new(NOVA_BLOCK_HEAD_MAX + NOVA_BODY_MAX) : NULL;
	b->content = b->buf ? b->buf->data + NOVA_BLOCK_HEAD_MAX : nova_packer_body(enc->packer);
	b->content_bytes = 0;
	b->raw_bytes = 0;
	b->tokens = nova_writer_of(b->token_space, sizeof(b->token_space));
	b->run = NOVA_TOKEN_BYTES;
	b->count = 0;
}

static size_t make_head(
    const struct nova_encoder *enc, unsigned kind, size_t token_length, uint8_t head[NOVA_BLOCK_HEAD_MAX])
{
	struct nova_writer w = nova_writer_of(head, NOVA_BLOCK_HEAD_MAX);

	nova_put_u8(&w, (uint8_t)kind);
	nova_put_varint(&w, enc->block.raw_bytes);
	nova_put_varint(&w, enc->block.content_bytes);
	nova_put_varint(&w, token_length);
	return nova_writer_used(&w);
}

static void hand_out(struct nova_encoder *enc, struct nova_buf *buf)
{
	enc->stats.encoded_bytes += buf->length;
	enc->stats.blocks++;
	if (enc->adapt)
		nova_adapt_sent(enc->adapt, enc->block.raw_bytes, buf->length);
	enc->emit(enc->arg, buf);
}

static int emit_packed(struct nova_encoder *enc, enum nova_codec codec, bool fresh, const uint8_t *packed,
    size_t packed_length, size_t token_length, struct nova_error *err)
{
	struct nova_buf *buf = nova_buf_new(NOVA_BLOCK_HEAD_MAX + packed_length);
	size_t head;

	if (!buf)
		return nova_error_set(err, NOVA_SYSTEM, "out of memory for a message");
	head = make_head(enc, codec | (fresh ? NOVA_BLOCK_FRESH : 0), token_length, buf->data);
	memcpy(buf->data + head, packed, packed_length);
	buf->length = (uint32_t)(head + packed_length);
	hand_out(enc, buf);
	return 0;
}

/* The body is in its message already: the head goes right before it. */
static void emit_in_place(struct nova_encoder *enc, size_t token_length)
{
	struct nova_buf *buf = enc->block.buf;
	uint8_t head[NOVA_BLOCK_HEAD_MAX];
	size_t length = make_head(enc, NOVA_CODEC_NONE, token_length, head);
	uint32_t unused = NOVA_BLOCK_HEAD_MAX - (uint32_t)length;

	enc->block.buf = NULL;
	buf->data += unused;
	buf->capacity -= unused;
	memcpy(buf->data, head, length);
	buf->length = (uint32_t)(length + enc->block.content_bytes + token_length);
	hand_out(enc, buf);
}

/* Slow levels get smaller blocks, so that the loop turns. */
static void fit_block(struct nova_encoder *enc, size_t length, uint64_t ns)
{
	if (ns > PACK_NS_MAX && enc->block_bytes > BLOCK_BYTES_MIN)
		enc->block_bytes /= 2;
	else if (ns < PACK_NS_MAX * 2 / 5 && length > enc->block_bytes / 2 && enc->block_bytes < NOVA_BLOCK_RAW_MAX)
		enc->block_bytes *= 2;
}

static int pack(struct nova_encoder *enc, enum nova_codec codec, size_t length, const uint8_t **packed,
    size_t *packed_length, bool *fresh, struct nova_error *err)
{
	uint64_t began = nova_codec_cpu_ns(), ns;

	if (nova_packer_pack(enc->packer, codec, enc->level, length, packed, packed_length, fresh, err) < 0)
		return -1;
	ns = nova_codec_cpu_ns() - began;
	fit_block(enc, length, ns);
	if (enc->adapt && codec == enc->codec)
		nova_adapt_block(enc->adapt, length, *packed_length, ns);
	return 0;
}

static int pack_and_emit(struct nova_encoder *enc, size_t tokens, struct nova_error *err)
{
	const struct building *b = &enc->block;
	enum nova_codec codec = nova_looks_random(b->content, b->content_bytes) ? NOVA_CODEC_NONE : enc->codec;
	const uint8_t *packed;
	size_t length;
	bool fresh;

	if (pack(enc, codec, b->content_bytes + tokens, &packed, &length, &fresh, err) < 0)
		return -1;
	return emit_packed(enc, codec, fresh, packed, length, tokens, err);
}

static int end_block(struct nova_encoder *enc, struct nova_error *err)
{
	struct building *b = &enc->block;
	size_t tokens;

	end_run(b);
	tokens = nova_writer_used(&b->tokens);
	if (b->tokens.bad || b->content_bytes > NOVA_BLOCK_RAW_MAX)
		return nova_error_set(err, NOVA_SYSTEM, "a block outgrew its limits");
	memcpy(b->content + b->content_bytes, b->token_space, tokens);
	if (b->buf)
		emit_in_place(enc, tokens);
	else if (pack_and_emit(enc, tokens, err) < 0)
		return -1;
	b->content = NULL;
	return 1;
}

/* ---- cutting the input -------------------------------------------------------------------------- */

static bool is_record(const struct nova_span *span)
{
	uint32_t content = span->kind == NOVA_SPAN_PAGE ? NOVA_PAGE_BYTES : 1;

	return span->kind != NOVA_SPAN_BYTES && span->header_bytes <= RECORD_HEADER_MAX &&
	       span->total_bytes == span->header_bytes + content && span->page % NOVA_PAGE_BYTES == 0;
}

static bool next_span(struct nova_encoder *enc)
{
	size_t length = enc->end - enc->start;
	struct nova_span *span = &enc->span;

	if (span->total_bytes)
		return true;
	if (!length)
		return false;
	if (!enc->ops) {
		*span = (struct nova_span) { .total_bytes = (uint32_t)length };
	} else if (!enc->ops->next(enc->scanner, enc->input + enc->start, length, span)) {
		span->total_bytes = 0; /* whatever it wrote there */
		return false;
	}
	if (!is_record(span))
		span->kind = NOVA_SPAN_BYTES;
	if (!span->total_bytes || span->total_bytes > length) /* the scanner's mistake costs bytes only */
		*span = (struct nova_span) { .total_bytes = (uint32_t)length };
	return true;
}

static void consume(struct nova_encoder *enc, size_t length)
{
	enc->start += length;
	enc->span.total_bytes -= (uint32_t)length;
	if (enc->start == enc->end)
		enc->start = enc->end = enc->sent = 0;
}

/* Drop what a flush has sent already; what remains of that span is opaque. */
static void skip_sent(struct nova_encoder *enc)
{
	size_t gone = enc->sent > enc->start ? enc->sent - enc->start : 0;

	if (!gone)
		return;
	enc->span.kind = NOVA_SPAN_BYTES;
	consume(enc, gone < enc->span.total_bytes ? gone : enc->span.total_bytes);
}

static size_t bytes_that_fit(const struct nova_encoder *enc, size_t length)
{
	const struct building *b = &enc->block;
	size_t raw = NOVA_BLOCK_RAW_MAX - b->raw_bytes;
	size_t content = enc->block_bytes > b->content_bytes ? enc->block_bytes - b->content_bytes : 0;
	size_t most = raw < content ? raw : content;

	return length < most ? length : most;
}

/* Put the span, or what fits of it, into the block; false: the block is full. */
static bool add_span(struct nova_encoder *enc)
{
	const uint8_t *data = enc->input + enc->start;
	struct building *b = &enc->block;
	size_t length = enc->span.total_bytes;

	if (enc->span.kind == NOVA_SPAN_BYTES)
		length = bytes_that_fit(enc, length);
	if (!length || !has_room(enc, length, enc->span.kind == NOVA_SPAN_FILL ? 0 : length))
		return false;
	if (enc->span.kind == NOVA_SPAN_PAGE)
		add_page(enc, data);
	else if (enc->span.kind == NOVA_SPAN_FILL)
		add_fill(enc, data);
	else
		add_bytes(enc, data, length);
	b->raw_bytes += length;
	consume(enc, length);
	return true;
}

/* What the scanner cannot tell yet goes out as it is. Returns false when the block is full. */
static bool add_unscanned(struct nova_encoder *enc)
{
	struct building *b = &enc->block;
	size_t from = enc->sent > enc->start ? enc->sent : enc->start;
	size_t length = enc->end - from;

	if (!length)
		return true;
	length = bytes_that_fit(enc, length);
	if (!length || !has_room(enc, length, length))
		return false;
	add_bytes(enc, enc->input + from, length);
	b->raw_bytes += length;
	enc->sent = from + length;
	return enc->sent == enc->end;
}

static int step(struct nova_encoder *enc, bool flush, struct nova_error *err)
{
	if (!enc->block.content)
		begin_block(enc);
	while (next_span(enc)) {
		skip_sent(enc);
		if (enc->span.total_bytes && !add_span(enc))
			return end_block(enc, err);
	}
	if (flush && enc->end > enc->start && !add_unscanned(enc))
		return end_block(enc, err);
	if (flush && enc->block.raw_bytes)
		return end_block(enc, err);
	return 0;
}

/* ---- the interface ------------------------------------------------------------------------------ */

int nova_encoder_set_codec(struct nova_encoder *enc, enum nova_codec codec, int level, struct nova_error *err)
{
	static const int highest[NOVA_CODECS] = { [NOVA_CODEC_LZ4] = 64, [NOVA_CODEC_ZSTD] = 19 };

	if ((unsigned)codec >= NOVA_CODECS)
		return nova_error_set(err, NOVA_INVALID, "there is no codec %d", (int)codec);
	if (level < 0 || level > highest[codec])
		return nova_error_set(err, NOVA_INVALID, "codec %s has levels 0 to %d, not %d",
		    nova_codec_name(codec), highest[codec], level);
	if (codec == NOVA_CODEC_AUTO) {
		if (!enc->adapt && !(enc->adapt = nova_adapt_new(err)))
			return -1;
		nova_adapt_choice(enc->adapt, &enc->codec, &enc->level);
		return 0;
	}
	enc->adapt = nova_adapt_free(enc->adapt);
	enc->codec = codec;
	enc->level = level ? level : 1;
	return 0;
}

void nova_encoder_link_rate(struct nova_encoder *enc, double bytes_per_second, bool queue_full)
{
	uint64_t now_ms = (nova_codec_clock_ns() - enc->born_ns) / 1000000;

	if (enc->adapt && nova_adapt_link(enc->adapt, now_ms, bytes_per_second, queue_full))
		nova_adapt_choice(enc->adapt, &enc->codec, &enc->level);
}

void nova_encoder_cpu_share(struct nova_encoder *enc, double cpu_share)
{
	if (enc->adapt)
		nova_adapt_cpu_share(enc->adapt, cpu_share);
}

void nova_encoder_starved(struct nova_encoder *enc, double part)
{
	if (enc->adapt)
		nova_adapt_starved(enc->adapt, part);
}

const struct nova_codec_choice *nova_encoder_choices(const struct nova_encoder *enc, size_t *count)
{
	*count = 0;
	return enc->adapt ? nova_adapt_log(enc->adapt, count) : NULL;
}

struct nova_encoder *nova_encoder_new(const struct nova_codec_options *options,
    const struct nova_scanner_ops *scanner, void (*emit)(void *arg, struct nova_buf *buf), void *arg,
    struct nova_error *err)
{
	struct nova_encoder *enc = malloc(sizeof(*enc));

	if (!enc) {
		nova_error_set(err, NOVA_SYSTEM, "out of memory for the encoder");
		return NULL;
	}
	memset(enc, 0, offsetof(struct nova_encoder, block));
	enc->block.content = NULL;
	enc->block.buf = NULL;
	enc->block_bytes = NOVA_BLOCK_RAW_MAX;
	enc->emit = emit;
	enc->arg = arg;
	enc->baseline = options->baseline;
	enc->spool = options->spool;
	enc->born_ns = nova_codec_clock_ns();
	enc->packer = nova_packer_new(err);
	enc->digest = XXH3_createState();
	if (scanner && (enc->scanner = scanner->new ()))
		enc->ops = scanner;
	if (options->history_bytes && !(enc->history = nova_history_new(options->history_bytes, true, err)))
		return nova_encoder_free(enc);
	if (!enc->packer || !enc->digest || (scanner && !enc->ops)) {
		nova_error_set(err, NOVA_SYSTEM, "out of memory for the encoder");
		return nova_encoder_free(enc);
	}
	XXH3_128bits_reset(enc->digest);
	if (nova_encoder_set_codec(enc, options->codec, options->level, err) < 0)
		return nova_encoder_free(enc);
	return enc;
}

struct nova_encoder *nova_encoder_free(struct nova_encoder *enc)
{
	if (!enc)
		return NULL;
	if (enc->ops)
		enc->ops->free(enc->scanner);
	XXH3_freeState(enc->digest);
	nova_adapt_free(enc->adapt);
	nova_buf_free(enc->block.buf);
	nova_packer_free(enc->packer);
	nova_history_free(enc->history);
	free(enc);
	return NULL;
}

uint8_t *nova_encoder_space(struct nova_encoder *enc, size_t *room)
{
	if (INPUT_BYTES - enc->end < INPUT_SPACE_MIN) {
		memmove(enc->input, enc->input + enc->start, enc->end - enc->start);
		enc->end -= enc->start;
		enc->sent = enc->sent > enc->start ? enc->sent - enc->start : 0;
		enc->start = 0;
	}
	*room = INPUT_BYTES - enc->end;
	return *room < INPUT_SPACE_MIN ? NULL : enc->input + enc->end;
}

void nova_encoder_filled(struct nova_encoder *enc, size_t length)
{
	XXH3_128bits_update(enc->digest, enc->input + enc->end, length);
	enc->end += length;
	enc->stats.raw_bytes += length;
}

size_t nova_encoder_holds(const struct nova_encoder *enc)
{
	size_t unread = enc->end - (enc->sent > enc->start ? enc->sent : enc->start);

	return enc->block.content ? unread + enc->block.raw_bytes : unread;
}

int nova_encoder_step(struct nova_encoder *enc, bool flush, struct nova_error *err)
{
	uint64_t began = nova_codec_clock_ns();
	int rc = step(enc, flush, err);

	enc->busy_ns += nova_codec_clock_ns() - began;
	return rc;
}

int nova_encoder_feed(struct nova_encoder *enc, const uint8_t *raw, size_t length, struct nova_error *err)
{
	int rc = 0;

	while (length) {
		size_t room;
		uint8_t *space = nova_encoder_space(enc, &room);

		if (room > length)
			room = length;
		if (space) {
			memcpy(space, raw, room);
			nova_encoder_filled(enc, room);
			raw += room;
			length -= room;
		}
		while ((rc = nova_encoder_step(enc, false, err)) > 0)
			;
		if (rc < 0)
			return -1;
	}
	return 0;
}

int nova_encoder_flush(struct nova_encoder *enc, bool eof, struct nova_error *err)
{
	int rc;

	while ((rc = nova_encoder_step(enc, true, err)) > 0)
		;
	return rc;
}

void nova_encoder_digest(const struct nova_encoder *enc, uint8_t digest[16], uint64_t *raw_bytes)
{
	XXH128_canonical_t canonical;

	XXH128_canonicalFromHash(&canonical, XXH3_128bits_digest(enc->digest));
	memcpy(digest, canonical.digest, sizeof(canonical.digest));
	*raw_bytes = enc->stats.raw_bytes;
}

void nova_encoder_stats(const struct nova_encoder *enc, struct nova_codec_stats *stats)
{
	*stats = enc->stats;
	stats->busy_us = enc->busy_ns / 1000;
}
