/* SPDX-License-Identifier: Apache-2.0
 *
 * test_baseline.c - pages of an earlier visit: what a spool keeps is found again, by page and by content; a stream that
 * uses it comes out as it went in; whatever is damaged on either side costs bytes or ends the stream, and never
 * makes another one.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/baseline.h"
#include "engine/codec_block.h"

#define PAGES 600u
#define RECORD (8u + NOVA_PAGE_BYTES)

static uint64_t seed = 88172645463325252ull;
static char directory[64];

static uint64_t rnd(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	return seed ^= seed << 17;
}

static int set_up(void **state)
{
	snprintf(directory, sizeof(directory), "/tmp/nova-baseline.XXXXXX");
	return mkdtemp(directory) ? 0 : -1;
}

static int tear_down(void **state)
{
	char command[128];

	snprintf(command, sizeof(command), "rm -rf '%s'", directory);
	return system(command);
}

/* ---- a guest of PAGES pages, and its stream: records of a big-endian page number and 4096 bytes ---- */

struct guest {
	uint8_t page[PAGES][NOVA_PAGE_BYTES];
};

static struct guest *guest_new(void)
{
	struct guest *guest = calloc(1, sizeof(*guest));

	for (size_t i = 0; i < sizeof(guest->page); i += 8) {
		uint64_t value = rnd();

		memcpy((uint8_t *)guest->page + i, &value, 8);
	}
	return guest;
}

static int scan(void *scanner, const uint8_t *data, size_t length, struct nova_span *span)
{
	uint64_t header;

	if (length < RECORD)
		return 0;
	memcpy(&header, data, sizeof(header));
	*span = (struct nova_span) { NOVA_SPAN_PAGE, 8, RECORD, be64toh(header) & ~0xfffull };
	return 1;
}

static void *scanner_new(void)
{
	return &seed; /* there is nothing to remember */
}

static void scanner_free(void *scanner)
{
}

static const struct nova_scanner_ops scanner = { scanner_new, scanner_free, scan };

struct trip {
	struct nova_encoder *encoder;
	struct nova_decoder *decoder;
	const uint8_t *expected;
	size_t at, length;
	bool refused;
	struct nova_error error;
};

static void emit(void *arg, struct nova_buf *buf)
{
	struct trip *trip = arg;
	const uint8_t *raw;
	size_t length;

	if (!trip->refused && nova_decoder_feed(trip->decoder, buf->data, buf->length, &raw, &length, &trip->error) < 0)
		trip->refused = true;
	if (!trip->refused) {
		assert_true(length <= trip->length - trip->at);
		assert_memory_equal(raw, trip->expected + trip->at, length);
		trip->at += length;
	}
	nova_buf_free(buf);
}

/* Send all pages; false: the decoder refused. */
static bool move(const struct guest *guest, const struct nova_codec_options *out, const struct nova_codec_options *in,
    struct nova_codec_stats *stats, struct nova_error *why)
{
	uint8_t *stream = malloc(PAGES * RECORD);
	struct trip trip = { .expected = stream, .length = PAGES * RECORD };
	struct nova_error err;
	bool refused;

	for (uint64_t i = 0; i < PAGES; i++) {
		uint64_t header = htobe64(i << 12 | 8);

		memcpy(stream + i * RECORD, &header, 8);
		memcpy(stream + i * RECORD + 8, guest->page[i], NOVA_PAGE_BYTES);
	}
	trip.encoder = nova_encoder_new(out, &scanner, emit, &trip, &err);
	trip.decoder = nova_decoder_new(in, &err);
	assert_non_null(trip.encoder);
	assert_non_null(trip.decoder);
	assert_int_equal(nova_encoder_feed(trip.encoder, stream, PAGES * RECORD, &err), 0);
	assert_int_equal(nova_encoder_flush(trip.encoder, true, &err), 0);
	nova_encoder_stats(trip.encoder, stats);
	if (!trip.refused)
		assert_int_equal(trip.at, trip.length);
	refused = trip.refused;
	if (refused && why)
		*why = trip.error;
	nova_encoder_free(trip.encoder);
	nova_decoder_free(trip.decoder);
	free(stream);
	return !refused;
}

/* ---- files ---- */

static const char *path_of(const char *name, const char *suffix)
{
	static char path[4][160];
	static unsigned turn;
	char *to = path[turn++ % 4];

	snprintf(to, sizeof(path[0]), "%s/%s%s", directory, name, suffix);
	return to;
}

static void flip(const char *path, off_t at)
{
	int fd = open(path, O_RDWR);
	uint8_t byte;

	assert_int_equal(pread(fd, &byte, 1, at), 1);
	byte ^= 0x10;
	assert_int_equal(pwrite(fd, &byte, 1, at), 1);
	close(fd);
}

static struct nova_spool *spool_new(const char *name)
{
	struct nova_error err;
	struct nova_spool *spool = nova_spool_new(path_of(name, ""), PAGES + 8, &err);

	assert_non_null(spool);
	return spool;
}

static struct nova_base_head seal(struct nova_spool *spool)
{
	struct nova_base_head head = { .id = "0123456789abcdef0123456789abcdef", .uuid = "u", .guest = "web", .owner = "ada",
		.peer = "beta", .side = "source", .created_ms = 1234567 };
	struct nova_error err;
	int rc;

	while ((rc = nova_spool_seal(spool, &head, &err)) > 0)
		;
	assert_int_equal(rc, 0);
	nova_spool_free(spool);
	return head;
}

/* What is on the disk, as the catalogue reads it. NULL: it was refused. */
static struct nova_base_index *load(const char *name)
{
	int fd = open(path_of(name, ".index"), O_RDONLY);
	uint8_t file[NOVA_BASE_HEAD_BYTES], piece[1000];
	struct nova_base_head head;
	struct nova_base_index *index = NULL;
	struct nova_error err;
	ssize_t n;

	assert_true(fd >= 0);
	n = read(fd, file, sizeof(file));
	if (nova_base_head_read(&head, file, n > 0 ? (size_t)n : 0, &err) == 0)
		index = nova_base_index_new(head.slots, &err);
	while (index && (n = read(fd, piece, sizeof(piece))) > 0)
		if (nova_base_index_add(index, piece, (size_t)n, &err) < 0)
			index = nova_base_index_free(index);
	if (index && nova_base_index_check(index, head.digest, &err) < 0)
		index = nova_base_index_free(index);
	close(fd);
	return index;
}

/* ours: whose pages we read; theirs: whose index was offered. */
static struct nova_baseline *open_baseline(const char *theirs, const char *ours)
{
	struct nova_base_index *own = ours && strcmp(ours, theirs) ? load(ours) : NULL;
	int fd = ours ? open(path_of(ours, ".pages"), O_RDONLY) : -1;
	struct nova_error err;
	struct nova_baseline *baseline = nova_baseline_new(load(theirs), own, fd, &err);

	assert_non_null(baseline);
	return baseline;
}

/* The first move: both sides keep what they saw, under the names "a" and "b". */
static struct guest *first_move(void)
{
	struct guest *guest = guest_new();
	struct nova_codec_options out = { .codec = NOVA_CODEC_LZ4, .history_bytes = 1 << 20, .spool = spool_new("a") };
	struct nova_codec_options in = { .history_bytes = 1 << 20, .spool = spool_new("b") };
	struct nova_base_head a, b;
	struct nova_codec_stats stats;

	assert_true(move(guest, &out, &in, &stats, NULL));
	a = seal(out.spool);
	b = seal(in.spool);
	assert_int_equal(a.slots, PAGES);
	assert_memory_equal(a.digest, b.digest, sizeof(a.digest)); /* no page was too much for either */
	return guest;
}

/* It stayed over there: some pages were edited, some moved, some are new. */
static void live_there(struct guest *guest)
{
	for (unsigned i = 100; i < 200; i++)
		guest->page[i][rnd() % NOVA_PAGE_BYTES] ^= 0xff;
	memcpy(guest->page[300], guest->page[400], NOVA_PAGE_BYTES);
	for (unsigned i = 0; i < NOVA_PAGE_BYTES; i++)
		guest->page[500][i] = (uint8_t)rnd();
}

/* ---- tests ---- */

static void test_comes_back(void **state)
{
	struct guest *guest = first_move();
	struct nova_codec_options out = { .codec = NOVA_CODEC_LZ4, .history_bytes = 1 << 20 }, in = out;
	struct nova_codec_stats stats;

	live_there(guest);
	out.baseline = open_baseline("a", "b");
	in.baseline = open_baseline("a", "a");
	assert_true(move(guest, &out, &in, &stats, NULL));
	assert_int_equal(stats.baseline_delta_pages, 100);
	assert_int_equal(stats.baseline_pages, PAGES - 101);
	assert_int_equal(stats.raw_pages, 1);
	assert_true(stats.encoded_bytes < 10000);
	nova_baseline_free(out.baseline);
	nova_baseline_free(in.baseline);
	free(guest);
}

/* The source holds nothing: unchanged pages are references all the same. */
static void test_without_a_counterpart(void **state)
{
	struct guest *guest = first_move();
	struct nova_codec_options out = { .codec = NOVA_CODEC_LZ4, .history_bytes = 0 }, in = out;
	struct nova_codec_stats stats;

	live_there(guest);
	out.baseline = open_baseline("a", NULL);
	in.baseline = open_baseline("a", "a");
	assert_true(move(guest, &out, &in, &stats, NULL));
	assert_int_equal(stats.baseline_delta_pages, 0);
	assert_int_equal(stats.baseline_pages, PAGES - 101);
	nova_baseline_free(out.baseline);
	nova_baseline_free(in.baseline);
	free(guest);
}

/* The source's own copy is of another time: old content serves where it is the same. */
static void test_another_counterpart(void **state)
{
	struct guest *guest = first_move();
	struct nova_codec_options out = { .codec = NOVA_CODEC_LZ4, .spool = spool_new("c") }, in = { .codec = 0 };
	struct nova_codec_stats stats;

	for (unsigned i = 100; i < 150; i++)
		guest->page[i][7] ^= 1;
	assert_true(move(guest, &out, &in, &stats, NULL)); /* to a third host */
	seal(out.spool);
	for (unsigned i = 100; i < 200; i++)
		guest->page[i][9] ^= 1;
	out = (struct nova_codec_options) { .codec = NOVA_CODEC_LZ4, .baseline = open_baseline("a", "c") };
	in.baseline = open_baseline("a", "a");
	assert_true(move(guest, &out, &in, &stats, NULL));
	assert_int_equal(stats.baseline_delta_pages, 50);
	assert_int_equal(stats.baseline_pages, PAGES - 100);
	assert_int_equal(stats.raw_pages, 50);
	nova_baseline_free(out.baseline);
	nova_baseline_free(in.baseline);
	free(guest);
}

/* Damage at the destination is noticed before a byte of it comes out. */
static void test_damaged_destination(void **state)
{
	struct guest *guest = first_move();
	struct nova_codec_options out = { .codec = NOVA_CODEC_LZ4 }, in = { .codec = 0 };
	struct nova_codec_stats stats;
	struct nova_error why;

	flip(path_of("a", ".pages"), 250 * 4096 + 17);
	for (unsigned round = 0; round < 2; round++) {
		out.baseline = open_baseline("a", "b");
		in.baseline = open_baseline("a", "a");
		assert_false(nova_baseline_damaged(in.baseline));
		assert_false(move(guest, &out, &in, &stats, &why));
		assert_true(nova_baseline_damaged(in.baseline));
		assert_non_null(strstr(why.text, "damaged"));
		nova_baseline_free(out.baseline);
		nova_baseline_free(in.baseline);
		flip(path_of("a", ".pages"), 250 * 4096 + 17);
		assert_int_equal(truncate(path_of("a", ".pages"), 4096 * 300 + 5), 0);
	}
	free(guest);
}

/* Damage at the source costs bytes. */
static void test_damaged_source(void **state)
{
	struct guest *guest = first_move();
	struct nova_codec_options out = { .codec = NOVA_CODEC_LZ4 }, in = { .codec = 0 };
	struct nova_codec_stats stats;

	live_there(guest);
	for (unsigned i = 110; i < 120; i++)
		flip(path_of("b", ".pages"), i * 4096 + (off_t)(rnd() % 4096));
	assert_int_equal(truncate(path_of("b", ".pages"), 4096 * 190), 0);
	out.baseline = open_baseline("a", "b");
	in.baseline = open_baseline("a", "a");
	assert_true(move(guest, &out, &in, &stats, NULL));
	assert_int_equal(stats.baseline_delta_pages, 80);
	assert_int_equal(stats.baseline_pages, PAGES - 101);
	nova_baseline_free(out.baseline);
	nova_baseline_free(in.baseline);
	free(guest);
}

/* Every bit of an index counts. */
static void test_damaged_index(void **state)
{
	struct guest *guest = first_move();
	struct nova_base_index *index = load("a");
	struct stat file;

	assert_non_null(index);
	nova_base_index_free(index);
	assert_int_equal(stat(path_of("a", ".index"), &file), 0);
	assert_int_equal(file.st_mode & 0777, 0600);
	for (off_t at = 0; at < file.st_size; at += at < 300 ? 1 : 97) {
		flip(path_of("a", ".index"), at);
		assert_null(load("a"));
		flip(path_of("a", ".index"), at);
	}
	index = load("a");
	assert_non_null(index);
	nova_base_index_free(index);
	for (off_t length = file.st_size - 1; length > 0; length -= length / 7 + 1) {
		assert_int_equal(truncate(path_of("a", ".index"), length), 0);
		assert_null(load("a"));
	}
	free(guest);
}

static void test_stale_names(void **state)
{
	struct nova_spool *spool = spool_new("a");
	const uint8_t page[NOVA_PAGE_BYTES] = { 1 };
	struct nova_error err;

	assert_null(nova_spool_new(path_of("a", ""), 10, &err)); /* never over what is there */
	assert_int_equal(access(path_of("a", ".pages"), F_OK), 0);
	nova_spool_page(spool, 4096, page);
	nova_spool_free(spool); /* not kept */
	assert_int_equal(access(path_of("a", ".pages"), F_OK), -1);
}

/* More pages than a spool may hold: the first ones stay, also in what they hold last. */
static void test_full_spool(void **state)
{
	struct nova_error err;
	struct nova_spool *spool = nova_spool_new(path_of("a", ""), 20, &err);
	struct nova_base_index *index;
	uint8_t page[NOVA_PAGE_BYTES] = { 0 }, hash[NOVA_BASE_HASH_BYTES];
	struct nova_base_hasher *hasher = nova_base_hasher_new(&err);
	struct nova_base_head head;

	for (unsigned round = 0; round < 3; round++)
		for (uint64_t i = 0; i < 40; i++) {
			page[0] = (uint8_t)i;
			page[1] = (uint8_t)round;
			nova_spool_page(spool, i << 12, page);
		}
	head = seal(spool);
	assert_int_equal(head.slots, 20);
	index = load("a");
	for (uint64_t i = 0; i < 40; i++) {
		uint32_t slot = nova_base_index_find_page(index, i << 12);

		page[0] = (uint8_t)i;
		page[1] = 2;
		nova_base_hash(hasher, page, hash);
		assert_int_equal(slot, i < 20 ? i : NOVA_BASE_NONE);
		assert_int_equal(nova_base_index_find_hash(index, hash), slot);
	}
	nova_base_hasher_free(hasher);
	nova_base_index_free(index);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(test_comes_back),
		TEST(test_without_a_counterpart),
		TEST(test_another_counterpart),
		TEST(test_damaged_destination),
		TEST(test_damaged_source),
		TEST(test_damaged_index),
		TEST(test_stale_names),
		TEST(test_full_spool),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
