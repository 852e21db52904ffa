/* SPDX-License-Identifier: Apache-2.0
 *
 * test_codec.c - decode(encode(x)) == x for real streams of QEMU, for what is left of them after cutting and
 * mutating, for noise, in any pieces; and a decoder that survives anything.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zstd.h>

#include "engine/codec.h"
#include "engine/codec_block.h"
#include "engine/codec_pack.h"
#include "qmp/stream.h"

#define STREAM_MAX (8u << 20)

struct stream {
	uint8_t *data;
	size_t length;
};

static uint64_t seed = 88172645463325252ull;

static uint64_t rnd(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	return seed ^= seed << 17;
}

static struct stream load(const char *name)
{
	const char *top = getenv("srcdir");
	struct stream s = { malloc(STREAM_MAX), 0 };
	uint8_t *packed = malloc(STREAM_MAX);
	char path[512];
	FILE *f;

	snprintf(path, sizeof(path), "%s/tests/fixtures/qemu72-%s.zst", top ? top : ".", name);
	f = fopen(path, "rb");
	assert_non_null(f);
	s.length = ZSTD_decompress(s.data, STREAM_MAX, packed, fread(packed, 1, STREAM_MAX, f));
	assert_false(ZSTD_isError(s.length));
	fclose(f);
	free(packed);
	return s;
}

/* ---- memory ---- */

#define BUDGET_MIB 32u
#ifdef __SANITIZE_ADDRESS__
#define BESIDE_MIB 440u /* ASan keeps up to 256 MiB of what was freed, and an eighth of all as its shadow */
#else
#define BESIDE_MIB 40u /* of the 64 that a daemon may take beside its history; the rest is the link's window */
#endif

static void drop(void *arg, struct nova_buf *buf)
{
	nova_buf_free(buf);
}

static long peak_kib(void)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	return usage.ru_maxrss;
}

/* Pages that only half pack, each at an address of its own: three times the budget. In a child, whose peak is
 * only its own from here on. */
static int encode_beyond_budget(void)
{
	const struct nova_codec_options options = { NOVA_CODEC_ZSTD, 8, BUDGET_MIB << 20 };
	struct nova_error err;
	struct nova_encoder *encoder;
	long before = peak_kib(), most = (long)(BUDGET_MIB + BESIDE_MIB) * 1024;
	static const uint8_t head[] = "QEVM\0\0\0\3\1\0\0\0\2\3ram\0\0\0\0\0\0\0\4";

	encoder = nova_encoder_new(&options, &qmp_stream_scanner, drop, NULL, &err);
	if (!encoder || nova_encoder_feed(encoder, head, sizeof(head) - 1, &err) < 0)
		return 2;
	for (uint64_t page = 0; page < BUDGET_MIB * 3 * 256; page++) {
		uint64_t header = htobe64(page << 12 | 0x28), record[513] = { 0 };

		record[0] = header;
		for (unsigned i = 1; i < 257; i++)
			record[i] = rnd();
		if (nova_encoder_feed(encoder, (const uint8_t *)record, 8 + NOVA_PAGE_BYTES, &err) < 0)
			return 2;
	}
	nova_encoder_free(encoder);
	return peak_kib() - before > most || peak_kib() - before < (long)BUDGET_MIB * 1024;
}

static void test_budget(void **state)
{
	int status;
	pid_t child = fork();

	if (getenv("NOVA_PATIENCE")) /* valgrind takes memory of its own */
		skip();
	if (child == 0)
		_exit(encode_beyond_budget());
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
}

/* Noise goes as it is; what packs, and what is too short to tell, does not count as noise. */
static void test_looks_random(void **state)
{
	static uint8_t data[65536];

	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = (uint8_t)(rnd() >> 32);
	assert_true(nova_looks_random(data, sizeof(data)));
	assert_true(nova_looks_random(data, 8192));
	assert_false(nova_looks_random(data, 512));
	assert_false(nova_looks_random(data, 0));
	for (size_t i = 0; i < sizeof(data); i++)
		data[i] &= 0x7f; /* seven bits of eight */
	assert_false(nova_looks_random(data, sizeof(data)));
	memset(data, 0, sizeof(data));
	assert_false(nova_looks_random(data, sizeof(data)));
}

/* ---- an encoder whose messages go straight into a decoder, which must give back what went in ----- */

struct loop {
	struct nova_encoder *encoder;
	struct nova_decoder *decoder;
	const uint8_t *expected;
	size_t at, length;
	bool refused; /* pass_on: the decoder did not take a message */
};

static void pass_on(void *arg, struct nova_buf *buf)
{
	struct loop *l = arg;
	struct nova_error err;
	const uint8_t *raw;
	size_t length;

	if (nova_decoder_feed(l->decoder, buf->data, buf->length, &raw, &length, &err) < 0)
		l->refused = true;
	nova_buf_free(buf);
}

static void loop_emit(void *arg, struct nova_buf *buf)
{
	struct loop *l = arg;
	struct nova_error err;
	const uint8_t *raw;
	size_t raw_length;

	if (nova_decoder_feed(l->decoder, buf->data, buf->length, &raw, &raw_length, &err) < 0)
		fail_msg("at %zu of %zu: %s", l->at, l->length, err.text);
	assert_true(raw_length > 0 && raw_length <= l->length - l->at);
	assert_memory_equal(raw, l->expected + l->at, raw_length);
	l->at += raw_length;
	nova_buf_free(buf);
}

static void loop_open(struct loop *l, const struct nova_codec_options *options,
    const struct nova_scanner_ops *scanner, const uint8_t *data, size_t length)
{
	struct nova_error err;

	*l = (struct loop) { .expected = data, .length = length };
	l->encoder = nova_encoder_new(options, scanner, loop_emit, l, &err);
	l->decoder = nova_decoder_new(options, &err);
	assert_non_null(l->encoder);
	assert_non_null(l->decoder);
}

static void loop_feed(struct loop *l, size_t from, size_t length)
{
	struct nova_error err;

	if (nova_encoder_feed(l->encoder, l->expected + from, length, &err) < 0)
		fail_msg("%s", err.text);
}

static void loop_flush(struct loop *l, bool eof)
{
	struct nova_error err;

	if (nova_encoder_flush(l->encoder, eof, &err) < 0)
		fail_msg("%s", err.text);
}

static struct nova_codec_stats loop_close(struct loop *l)
{
	uint8_t sent[16], received[16];
	uint64_t sent_bytes, received_bytes;
	struct nova_codec_stats stats, other;

	loop_flush(l, true);
	assert_int_equal(l->at, l->length);
	nova_encoder_digest(l->encoder, sent, &sent_bytes);
	nova_decoder_digest(l->decoder, received, &received_bytes);
	assert_int_equal(sent_bytes, l->length);
	assert_int_equal(received_bytes, l->length);
	assert_memory_equal(sent, received, 16);
	nova_encoder_stats(l->encoder, &stats);
	nova_decoder_stats(l->decoder, &other);
	assert_int_equal(stats.pages, other.pages);
	assert_int_equal(stats.encoded_bytes, other.encoded_bytes);
	assert_null(nova_encoder_free(l->encoder));
	assert_null(nova_decoder_free(l->decoder));
	return stats;
}

static struct nova_codec_stats round_trip(const struct nova_codec_options *options,
    const struct nova_scanner_ops *scanner, const uint8_t *data, size_t length, size_t piece)
{
	struct loop l;

	loop_open(&l, options, scanner, data, length);
	for (size_t at = 0; at < length; at += piece)
		loop_feed(&l, at, length - at < piece ? length - at : piece);
	return loop_close(&l);
}

static const struct nova_codec_options all_options[] = {
	{ NOVA_CODEC_NONE },
	{ NOVA_CODEC_LZ4 },
	{ NOVA_CODEC_ZSTD, 1 },
	{ NOVA_CODEC_AUTO },
	{ NOVA_CODEC_NONE, 0, 64u << 20 },
	{ NOVA_CODEC_LZ4, 0, 300u << 10 }, /* 73 pages: always full */
	{ NOVA_CODEC_ZSTD, 3, 1u << 20 },
};
#define N_OPTIONS (sizeof(all_options) / sizeof(*all_options))

/* ---- real streams ------------------------------------------------------------------------------- */

static const char *const streams[] = { "xbzrle", "postcopy", "multifd" };

static void test_real_streams(void **state)
{
	for (size_t i = 0; i < 3; i++) {
		struct stream s = load(streams[i]);

		for (size_t o = 0; o < N_OPTIONS; o++) {
			struct nova_codec_stats with, without;

			with = round_trip(&all_options[o], &qmp_stream_scanner, s.data, s.length, 262144);
			without = round_trip(&all_options[o], NULL, s.data, s.length, 262144);
			assert_true(with.encoded_bytes < without.encoded_bytes);
			assert_int_equal(without.pages, 0);
			assert_true(with.fill_pages > 16000); /* 64 MiB, nearly all zero */
		}
		free(s.data);
	}
}

/* Every page of the guest is seen as one: QEMU counted 160 and more of them in each pass. */
static void test_pages_are_found(void **state)
{
	static const struct {
		const char *name;
		uint64_t pages, fills;
	} known[] = { { "xbzrle", 625, 16146 }, { "postcopy", 889, 16146 }, { "multifd", 0, 16146 } };

	for (size_t i = 0; i < 3; i++) {
		struct stream s = load(known[i].name);
		struct nova_codec_stats stats =
		    round_trip(&all_options[0], &qmp_stream_scanner, s.data, s.length, 4096);

		assert_int_equal(stats.raw_pages, known[i].pages);
		assert_int_equal(stats.fill_pages, known[i].fills);
		free(s.data);
	}
}

/* A zero record is nine bytes of raw stream: a run of them must all but vanish, without any codec. */
static void test_headers_vanish(void **state)
{
	struct stream s = load("multifd");
	struct nova_codec_stats stats =
	    round_trip(&all_options[0], &qmp_stream_scanner, s.data, s.length, 262144);
	uint64_t opaque = s.length - stats.fill_pages * 9;

	assert_true(stats.encoded_bytes < opaque + stats.fill_pages / 8);
	free(s.data);
}

/* Pages come again in this stream: with a history they cost what changed. */
static void test_history_shrinks(void **state)
{
	struct stream s = load("postcopy");
	struct nova_codec_stats without =
	    round_trip(&all_options[0], &qmp_stream_scanner, s.data, s.length, 262144);
	struct nova_codec_stats with =
	    round_trip(&all_options[4], &qmp_stream_scanner, s.data, s.length, 262144);
	struct nova_codec_stats full =
	    round_trip(&all_options[5], &qmp_stream_scanner, s.data, s.length, 262144);

	assert_int_equal(with.raw_pages + with.same_pages + with.delta_pages + with.reference_pages, 889);
	assert_true(with.same_pages > 200 && with.delta_pages > 200 && with.reference_pages > 10);
	assert_true(with.encoded_bytes < without.encoded_bytes * 6 / 10);
	assert_true(full.same_pages + full.delta_pages > 50);
	free(s.data);
}

/* The decoder's history is its own affair: with less than the encoder's it must notice. */
static void test_unequal_histories(void **state)
{
	struct stream s = load("postcopy");
	struct nova_error err;
	struct loop l;

	loop_open(&l, &all_options[4], &qmp_stream_scanner, s.data, s.length);
	nova_decoder_free(l.decoder);
	l.decoder = nova_decoder_new(&all_options[0], &err);
	nova_encoder_free(l.encoder);
	l.encoder = nova_encoder_new(&all_options[4], &qmp_stream_scanner, pass_on, &l, &err);
	nova_encoder_feed(l.encoder, s.data, s.length, &err);
	nova_encoder_flush(l.encoder, true, &err);
	assert_true(l.refused);
	nova_encoder_free(l.encoder);
	nova_decoder_free(l.decoder);
	free(s.data);
}

static void test_pieces(void **state)
{
	static const size_t pieces[] = { 1, 7, 4104, 65536, 65537, 300000 };
	struct stream s = load("postcopy");
	size_t length = s.length / 4;

	for (size_t i = 0; i < sizeof(pieces) / sizeof(*pieces); i++)
		round_trip(&all_options[1], &qmp_stream_scanner, s.data, pieces[i] == 1 ? length / 4 : length,
		    pieces[i]);
	free(s.data);
}

/* Nothing is held back by a flush, wherever it comes; and the scanner stays in step across it. */
static void test_flush_anywhere(void **state)
{
	struct stream s = load("postcopy");

	for (size_t o = 0; o < N_OPTIONS; o++) {
		struct nova_codec_stats stats;
		struct loop l;

		loop_open(&l, &all_options[o], &qmp_stream_scanner, s.data, s.length);
		for (size_t at = 0, n; at < s.length; at += n) {
			n = 1 + rnd() % 60000;
			n = n < s.length - at ? n : s.length - at;
			loop_feed(&l, at, n);
			loop_flush(&l, false);
			assert_int_equal(l.at, at + n);
		}
		stats = loop_close(&l);
		assert_true(stats.pages - stats.fill_pages + s.length / 30000 * 2 > 889);
	}
	free(s.data);
}

static void test_truncations(void **state)
{
	struct stream s = load("xbzrle");

	for (int i = 0; i < 60; i++) {
		size_t from = i % 2 ? rnd() % s.length : 0;
		size_t length = (s.length - from) % (1 + rnd() % (i < 50 ? 300000 : s.length));

		round_trip(
		    &all_options[rnd() % N_OPTIONS], &qmp_stream_scanner, s.data + from, length, 100000);
	}
	free(s.data);
}

static void test_mutations(void **state)
{
	struct stream s = load("postcopy");
	uint8_t *data = malloc(s.length);

	for (int i = 0; i < 24; i++) {
		memcpy(data, s.data, s.length);
		for (int k = 1 << (i % 12); k > 0; k--)
			data[rnd() % s.length] = (uint8_t)rnd();
		if (i % 3 == 0) /* a piece is missing */
			memmove(data + 100000, data + 100000 + rnd() % 9000, 200000);
		round_trip(&all_options[i % N_OPTIONS], &qmp_stream_scanner, data, s.length, 65536);
	}
	free(data);
	free(s.data);
}

static void test_noise(void **state)
{
	uint8_t *data = malloc(1 << 20);

	for (size_t i = 0; i < 1 << 20; i++)
		data[i] = (uint8_t)rnd();
	for (size_t o = 0; o < N_OPTIONS; o++) {
		struct nova_codec_stats stats =
		    round_trip(&all_options[o], &qmp_stream_scanner, data, 1 << 20, 50000);

		assert_true(stats.encoded_bytes < (1 << 20) + stats.blocks * 32);
	}
	round_trip(&all_options[1], &qmp_stream_scanner, data, 0, 1);
	free(data);
}

/* A scanner that lies about everything costs bytes, never correctness. */
static int lie(void *scanner, const uint8_t *data, size_t length, struct nova_span *span)
{
	static const uint32_t contents[] = { 0, NOVA_PAGE_BYTES, 1, 17 };

	if (rnd() % 8 == 0 && length < NOVA_SCAN_MAX)
		return 0;
	span->kind = (enum nova_span_kind)(rnd() % 3);
	span->header_bytes = rnd() % 4 ? 8 * (uint32_t)(rnd() % 2) : (uint32_t)(rnd() % 6000);
	span->total_bytes = span->header_bytes + contents[rnd() % 16 ? span->kind : rnd() % 4];
	span->page = rnd() % 4 ? (rnd() % 256) * NOVA_PAGE_BYTES : rnd();
	return 1;
}

static void *lie_new(void)
{
	return malloc(1);
}

static void test_lying_scanner(void **state)
{
	static const struct nova_scanner_ops liar = { lie_new, free, lie };
	struct stream s = load("xbzrle");

	for (size_t o = 0; o < N_OPTIONS; o++)
		round_trip(&all_options[o], &liar, s.data, s.length, 70000);
	free(s.data);
}

static void test_change_in_flight(void **state)
{
	struct stream s = load("postcopy");
	struct nova_error err;
	struct loop l;

	loop_open(&l, &all_options[0], &qmp_stream_scanner, s.data, s.length);
	for (size_t at = 0, n; at < s.length; at += n) {
		n = s.length - at < 90000 ? s.length - at : 90000;
		nova_encoder_set_codec(l.encoder, (enum nova_codec)(rnd() % NOVA_CODECS), 0, &err);
		if (rnd() % 2)
			nova_encoder_set_codec(l.encoder, NOVA_CODEC_ZSTD, 1 + (int)(rnd() % 9), &err);
		loop_feed(&l, at, n);
	}
	loop_close(&l);
	l = (struct loop) { 0 };
	loop_open(&l, &all_options[0], NULL, s.data, 0);
	assert_int_equal(nova_encoder_set_codec(l.encoder, NOVA_CODECS, 0, &err), -1);
	assert_int_equal(nova_encoder_set_codec(l.encoder, NOVA_CODEC_ZSTD, 20, &err), -1);
	assert_int_equal(nova_encoder_set_codec(l.encoder, NOVA_CODEC_LZ4, -1, &err), -1);
	loop_close(&l);
	free(s.data);
}

/* ---- a hostile peer ----------------------------------------------------------------------------- */

struct pile {
	struct nova_buf *buf[256];
	size_t count;
};

static void pile_emit(void *arg, struct nova_buf *buf)
{
	struct pile *p = arg;

	if (p->count < 256)
		p->buf[p->count++] = buf;
	else
		nova_buf_free(buf);
}

static void feed_mutated(const struct pile *p, const struct nova_codec_options *options, int rounds)
{
	struct nova_error err;
	const uint8_t *raw;
	size_t length, failures = 0;

	for (int i = 0; i < rounds; i++) {
		struct nova_decoder *decoder = nova_decoder_new(options, &err);
		size_t victim = rnd() % p->count;

		for (size_t m = 0; m < p->count; m++) {
			size_t n = p->buf[m]->length;
			uint8_t *copy = malloc(n); /* exactly: the sanitizer sees an overrun */
			int rc;

			memcpy(copy, p->buf[m]->data, n);
			if (m == victim) {
				for (int k = 1 + (int)(rnd() % 4); k > 0; k--)
					copy[rnd() % (rnd() % 2 ? n : n < 16 ? n : 16)] = (uint8_t)rnd();
				n -= rnd() % 4 ? 0 : rnd() % n;
			}
			rc = nova_decoder_feed(decoder, copy, n, &raw, &length, &err);
			free(copy);
			if (rc == 0)
				assert_true(length <= NOVA_BLOCK_RAW_MAX);
			if (rc < 0) {
				failures++;
				assert_int_equal(
				    nova_decoder_feed(decoder, (const uint8_t *)"", 0, &raw, &length, &err),
				    -1);
				assert_int_equal(err.category, NOVA_STATE);
				break;
			}
		}
		nova_decoder_free(decoder);
	}
	assert_true(failures > (size_t)rounds / 8);
}

static void test_mutated_messages(void **state)
{
	struct stream s = load("postcopy");
	struct nova_error err;

	for (size_t o = 0; o < N_OPTIONS; o++) {
		struct pile p = { 0 };
		struct nova_encoder *encoder =
		    nova_encoder_new(&all_options[o], &qmp_stream_scanner, pile_emit, &p, &err);

		nova_encoder_feed(encoder, s.data, s.length / 4, &err);
		nova_encoder_flush(encoder, true, &err);
		nova_encoder_free(encoder);
		feed_mutated(&p, &all_options[o], 60);
		while (p.count)
			nova_buf_free(p.buf[--p.count]);
	}
	free(s.data);
}

/* Messages that an encoder cannot have made, one for each check. */
static void test_bad_messages(void **state)
{
	static const struct {
		const char *what, *bytes;
		size_t length;
	} bad[] = {
		{ "nothing", "", 0 },
		{ "no lengths", "\x01", 1 },
		{ "automatic is no codec", "\x00\x01\x01\x01X\x00", 6 },
		{ "unknown codec", "\x0f\x01\x01\x01X\x00", 6 },
		{ "unknown flag", "\x21\x01\x01\x01X\x00", 6 },
		{ "raw too long", "\x01\x81\x80\x04\x01\x01X\x00", 8 },
		{ "content too long", "\x01\x01\x81\x80\x04\x01X\x00", 8 },
		{ "tokens too long", "\x01\x01\x01\x81\x80\x02X\x00", 8 },
		{ "body shorter than it says", "\x01\x01\x01\x01\x00", 5 },
		{ "content left over", "\x01\x01\x02\x01XY\x00", 7 },
		{ "content missing", "\x01\x02\x01\x01X\x01", 6 },
		{ "makes less than it says", "\x01\x02\x01\x01X\x00", 6 },
		{ "makes more than it says", "\x01\x01\x02\x01XY\x01", 7 },
		{ "a page without content", "\x01\x80\x20\x00\x01\x20", 6 },
		{ "a count without end", "\x01\x01\x01\x02X\x1f", 6 },
		{ "a huge count", "\x01\x09\x00\x07\x5f\xff\xff\xff\xff\xff\x01", 11 },
		{ "unknown note", "\x01\x01\x01\x02X\xe5\x00", 7 },
		{ "a header from nowhere", "\x01\x09\x00\x03\xe1\x08\x40", 7 },
		{ "zstd without a frame", "\x03\x01\x01\x01X\x00", 6 },
		{ "LZ4 that is none", "\x02\x10\x10\x01\xff\xff", 6 },
	};

	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		struct nova_error err = { 0 };
		struct nova_decoder *decoder = nova_decoder_new(&all_options[0], &err);
		const uint8_t *raw;
		size_t length;

		if (nova_decoder_feed(
		        decoder, (const uint8_t *)bad[i].bytes, bad[i].length, &raw, &length, &err) == 0)
			fail_msg("%s: was accepted", bad[i].what);
		assert_int_equal(err.category, NOVA_INVALID);
		nova_decoder_free(decoder);
	}
}

/* The format on the wire is a promise to other versions: a message made by hand. */
static void test_known_message(void **state)
{
	static const uint8_t message[] = {
		0x01, 0x0d, 0x0c, 0x09,            /* stored; raw 13 bytes, content 12, tokens 9 */
		'a', 'b', 'c',                     /* content: opaque, */
		0, 0, 0, 0, 0, 0, 0x10, 0x22, 'd', /* a header, opaque */
		NOVA_TOKEN_BYTES << 5 | 2,         /* tokens: 3 opaque bytes, */
		NOVA_TOKEN_SEEK << 5 | 0,          /* one page further, */
		NOVA_TOKEN_NOTE << 5 | NOVA_NOTE_FILL_HEADER, 8,  /* a header of 8 bytes, */
		NOVA_TOKEN_NOTE << 5 | NOVA_NOTE_FILL_BYTE, 0x55, /* fills are of 0x55, */
		NOVA_TOKEN_FILLS << 5 | 0,                        /* a fill, */
		NOVA_TOKEN_BYTES << 5 | 0,                        /* an opaque byte */
		NOVA_TOKEN_SEEK << 5 | 4,                         /* and a step without consequence */
	};
	static const uint8_t next[] = { 0x01, 0x12, 0x00, 0x01, NOVA_TOKEN_FILLS << 5 | 1 };
	struct nova_error err;
	struct nova_decoder *decoder = nova_decoder_new(&all_options[0], &err);
	const uint8_t *raw;
	size_t length;

	assert_int_equal(nova_decoder_feed(decoder, message, sizeof(message), &raw, &length, &err), 0);
	assert_int_equal(length, 13);
	assert_memory_equal(raw,
	    "abc\0\0\0\0\0\0\x10\x22\x55"
	    "d",
	    13);
	assert_int_equal(nova_decoder_feed(decoder, next, sizeof(next), &raw, &length, &err), 0);
	assert_int_equal(length, 18); /* the address goes on: page 1 was followed by a step of 5 */
	assert_memory_equal(raw, "\0\0\0\0\0\0\x70\x22\x55\0\0\0\0\0\0\x80\x22\x55", 18);
	nova_decoder_free(decoder);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_budget), /* first: a child inherits its parent's peak */
		cmocka_unit_test(test_looks_random),
		cmocka_unit_test(test_real_streams),
		cmocka_unit_test(test_pages_are_found),
		cmocka_unit_test(test_headers_vanish),
		cmocka_unit_test(test_history_shrinks),
		cmocka_unit_test(test_unequal_histories),
		cmocka_unit_test(test_pieces),
		cmocka_unit_test(test_flush_anywhere),
		cmocka_unit_test(test_truncations),
		cmocka_unit_test(test_mutations),
		cmocka_unit_test(test_noise),
		cmocka_unit_test(test_lying_scanner),
		cmocka_unit_test(test_change_in_flight),
		cmocka_unit_test(test_mutated_messages),
		cmocka_unit_test(test_bad_messages),
		cmocka_unit_test(test_known_message),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
