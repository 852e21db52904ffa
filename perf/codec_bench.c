/* SPDX-License-Identifier: Apache-2.0
 *
 * codec_bench.c - what the codec costs a core, beside what its parts cost alone, in the same run.
 *
 * The image is a guest in small: a third files of /usr, a third text, a sixth noise, a sixth repeats of 16
 *pages; as QEMU would send it, page records with headers. "delta" sends it again with eight bytes changed in
 *every page. Times are processor time of this process (other load on the machine does not count, but disturbs
 *the caches): the best of ROUNDS. Encoding includes the copy into the encoder's buffer, where the pipe has
 *its read(2).
 *
 *	codec_bench [MIB]	prints a table; with RESULTS=FILE in the environment appends one JSON object a
 *row
 */
#include <fcntl.h>
#include <ftw.h>
#include <lz4.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <xxhash.h>
#include <zstd.h>

#include "engine/codec.h"
#include "qmp/stream.h"

#define ROUNDS 3
#define BATCH (4u << 20) /* bytes encoded before they are decoded */
#define RECORD (8 + NOVA_PAGE_BYTES)

static uint8_t *image; /* `pages` records behind a head */
static size_t pages, image_bytes;
static FILE *results;

static double cpu_s(void)
{
	struct timespec t;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static uint64_t rnd(void)
{
	static uint64_t x = 88172645463325252ull;

	x ^= x << 13;
	x ^= x >> 7;
	return x ^= x << 17;
}

/* ---- the image ---------------------------------------------------------------------------------- */

static const uint8_t head[] = "QEVM\0\0\0\3\1\0\0\0\2\3ram\0\0\0\0\0\0\0\4";
#define HEAD (sizeof(head) - 1)

static uint8_t *page_at(size_t i)
{
	return image + HEAD + i * RECORD + 8;
}

static size_t file_next, file_end; /* pages to fill from files */

static int take_file(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	int fd;

	if (type != FTW_F || st->st_size < 65536)
		return 0;
	fd = open(path, O_RDONLY | O_CLOEXEC);
	while (fd >= 0 && file_next < file_end) {
		ssize_t n = read(fd, page_at(file_next), NOVA_PAGE_BYTES);

		if (n <= 0)
			break;
		memset(page_at(file_next) + n, 0, NOVA_PAGE_BYTES - (size_t)n);
		file_next++;
	}
	if (fd >= 0)
		close(fd);
	return file_next == file_end;
}

static void fill_text(uint8_t *page)
{
	static const char *const words[] = { "request", "session", "user", "error", "the", "and", "status",
		"200", "GET", "/api/v1/items", "cache", "thread", "lock", "value", "2024-05-17", "10.0.0.12",
		"latency_ms", "closed", "by", "peer", "INFO", "commit", "row", "table", "select", "from",
		"where", "order", "pending", "queue", "offset", "null" };
	size_t at = 0;

	while (at + 40 < NOVA_PAGE_BYTES) {
		uint64_t x = rnd();

		at += (size_t)sprintf((char *)page + at, "%s", words[x & 31]);
		if ((x >> 6 & 7) == 0)
			at += (size_t)sprintf((char *)page + at, "=%u", (unsigned)(x >> 10) % 100000);
		page[at++] = (x >> 40 & 15) ? ' ' : '\n';
	}
	memset(page + at, ' ', NOVA_PAGE_BYTES - at);
}

static void fill_noise(uint8_t *page)
{
	for (size_t i = 0; i < NOVA_PAGE_BYTES; i += 8) {
		uint64_t x = rnd();

		memcpy(page + i, &x, 8);
	}
}

static void build_image(size_t mib)
{
	pages = mib * 256;
	image_bytes = HEAD + pages * RECORD;
	image = malloc(image_bytes);
	memcpy(image, head, HEAD);
	for (size_t i = 0; i < pages; i++) {
		uint8_t *p = page_at(i) - 8;

		for (int k = 0; k < 8; k++)
			p[k] = (uint8_t)((i << 12 | 0x28) >> (56 - 8 * k));
	}
	file_end = pages / 3;
	nftw("/usr/bin", take_file, 20, FTW_PHYS);
	nftw("/usr/lib", take_file, 20, FTW_PHYS);
	for (size_t i = file_next; i < pages / 3 * 2; i++)
		fill_text(page_at(i));
	for (size_t i = pages / 3 * 2; i < pages * 5 / 6; i++)
		fill_noise(page_at(i));
	for (size_t i = pages * 5 / 6; i < pages; i++)
		memcpy(page_at(i), page_at(i % 16 * 97 % pages), NOVA_PAGE_BYTES);
}

static void edit_image(void)
{
	for (size_t i = 0; i < pages; i++) {
		uint64_t x = rnd();

		memcpy(page_at(i) + x % 512 * 8, &x, 8);
	}
}

/* ---- results ------------------------------------------------------------------------------------ */

static void report(const char *name, double encode_s, double decode_s, double ratio)
{
	double gb = (double)image_bytes / 1e9;

	printf("%-28s %8.2f", name, gb / encode_s);
	if (decode_s > 0)
		printf(" %8.2f", gb / decode_s);
	else
		printf(" %8s", "-");
	if (ratio > 0)
		printf(" %8.2f\n", ratio);
	else
		printf(" %8s\n", "-");
	if (!results)
		return;
	fprintf(results,
	    "{\"bench\":\"codec\",\"name\":\"%s\",\"GBps\":%.3f,\"decode_GBps\":%.3f,\"ratio\":%.3f}\n", name,
	    gb / encode_s, decode_s > 0 ? gb / decode_s : 0, ratio);
}

/* ---- limits ------------------------------------------------------------------------------------- */

static uint8_t scratch[512 * 1024];

struct limit {
	const char *name;
	size_t piece;
	/* Returns what the piece became, in bytes; 0: no matter. */
	size_t (*run)(void *state, const uint8_t *data, size_t length);
	void *(*open)(void);
	void (*close)(void *state);
};

static size_t run_memcpy(void *state, const uint8_t *data, size_t length)
{
	memcpy(scratch, data, length);
	__asm__ volatile("" : : "r"(scratch) : "memory");
	return 0;
}

static size_t run_xxh3(void *state, const uint8_t *data, size_t length)
{
	XXH3_128bits_update(state, data, length);
	return 0;
}

static void *open_xxh3(void)
{
	XXH3_state_t *state = XXH3_createState();

	XXH3_128bits_reset(state);
	return state;
}

static void close_xxh3(void *state)
{
	XXH3_freeState(state);
}

static size_t run_lz4(void *state, const uint8_t *data, size_t length)
{
	return (size_t)LZ4_compress_fast_continue(
	    state, (const char *)data, (char *)scratch, (int)length, sizeof(scratch), 1);
}

static void *open_lz4(void)
{
	return LZ4_createStream();
}

static void close_lz4(void *state)
{
	LZ4_freeStream(state);
}

static size_t run_zstd(void *state, const uint8_t *data, size_t length)
{
	ZSTD_inBuffer in = { data, length, 0 };
	ZSTD_outBuffer out = { scratch, sizeof(scratch), 0 };

	ZSTD_compressStream2(state, &out, &in, ZSTD_e_flush);
	return out.pos;
}

static void *open_zstd_level(int level)
{
	ZSTD_CCtx *state = ZSTD_createCCtx();

	ZSTD_CCtx_setParameter(state, ZSTD_c_compressionLevel, level);
	ZSTD_CCtx_setParameter(state, ZSTD_c_windowLog, 20);
	return state;
}

static void *open_zstd1(void)
{
	return open_zstd_level(1);
}

static void *open_zstd3(void)
{
	return open_zstd_level(3);
}

static void close_zstd(void *state)
{
	ZSTD_freeCCtx(state);
}

static size_t run_aes(void *state, const uint8_t *data, size_t length)
{
	static const uint8_t nonce[12];
	int n;

	EVP_EncryptInit_ex(state, NULL, NULL, NULL, nonce);
	EVP_EncryptUpdate(state, scratch, &n, data, (int)length);
	EVP_EncryptFinal_ex(state, scratch + n, &n);
	EVP_CIPHER_CTX_ctrl(state, EVP_CTRL_GCM_GET_TAG, 16, scratch);
	return 0;
}

static void *open_aes(void)
{
	static const uint8_t key[32];
	EVP_CIPHER_CTX *state = EVP_CIPHER_CTX_new();

	EVP_EncryptInit_ex(state, EVP_aes_256_gcm(), NULL, key, NULL);
	return state;
}

static void close_aes(void *state)
{
	EVP_CIPHER_CTX_free(state);
}

static const struct limit limits[] = {
	{ "limit: memcpy", 65536, run_memcpy },
	{ "limit: XXH3-128", 65536, run_xxh3, open_xxh3, close_xxh3 },
	{ "limit: AES-256-GCM", 16384, run_aes, open_aes, close_aes },
	{ "limit: LZ4", 65536, run_lz4, open_lz4, close_lz4 },
	{ "limit: zstd 1", 65536, run_zstd, open_zstd1, close_zstd },
	{ "limit: zstd 3", 65536, run_zstd, open_zstd3, close_zstd },
};

static void bench_limit(const struct limit *limit)
{
	double best = 1e9;
	size_t out = 0;

	for (int round = 0; round < ROUNDS; round++) {
		void *state = limit->open ? limit->open() : NULL;
		double began = cpu_s(), took;

		out = 0;
		for (size_t at = 0; at < image_bytes; at += limit->piece)
			out += limit->run(state, image + at,
			    image_bytes - at < limit->piece ? image_bytes - at : limit->piece);
		took = cpu_s() - began;
		best = took < best ? took : best;
		if (limit->close)
			limit->close(state);
	}
	report(limit->name, best, 0, out ? (double)image_bytes / (double)out : 0);
}

/* ---- ours --------------------------------------------------------------------------------------- */

struct ours {
	struct nova_encoder *encoder;
	struct nova_decoder *decoder;
	struct nova_buf *first, **last;
	double encode_s, decode_s;
	uint64_t encoded;
};

static void on_emit(void *arg, struct nova_buf *buf)
{
	struct ours *o = arg;

	buf->next = NULL;
	*o->last = buf;
	o->last = &buf->next;
	o->encoded += buf->length;
}

static void die(const struct nova_error *err)
{
	fprintf(stderr, "codec_bench: %s\n", err->text);
	exit(1);
}

static void decode_batch(struct ours *o)
{
	struct nova_error err;
	double began = cpu_s();

	for (struct nova_buf *buf = o->first; buf; buf = buf->next) {
		const uint8_t *raw;
		size_t length;

		if (nova_decoder_feed(o->decoder, buf->data, buf->length, &raw, &length, &err) < 0)
			die(&err);
	}
	o->decode_s += cpu_s() - began;
	while (o->first) {
		struct nova_buf *next = o->first->next;

		nova_buf_free(o->first);
		o->first = next;
	}
	o->last = &o->first;
}

static void send_image(struct ours *o, bool again)
{
	struct nova_error err;

	o->encode_s = o->decode_s = 0;
	o->encoded = 0;
	for (size_t at = again ? HEAD : 0, n; at < image_bytes; at += n) {
		double began = cpu_s();

		n = image_bytes - at < BATCH ? image_bytes - at : BATCH;
		if (nova_encoder_feed(o->encoder, image + at, n, &err) < 0)
			die(&err);
		if (at + n == image_bytes && nova_encoder_flush(o->encoder, false, &err) < 0)
			die(&err);
		o->encode_s += cpu_s() - began;
		decode_batch(o);
	}
}

static void check_digests(const struct ours *o)
{
	uint8_t sent[16], received[16];
	uint64_t sent_bytes, received_bytes;

	nova_encoder_digest(o->encoder, sent, &sent_bytes);
	nova_decoder_digest(o->decoder, received, &received_bytes);
	if (sent_bytes != received_bytes || memcmp(sent, received, 16) != 0) {
		fprintf(stderr, "codec_bench: the digests differ\n");
		exit(1);
	}
}

static void bench_codec(const char *name, const struct nova_codec_options *options, bool delta)
{
	double encode = 1e9, decode = 1e9;
	uint64_t encoded = 0;

	for (int round = 0; round < ROUNDS; round++) {
		struct nova_error err;
		struct ours o = { 0 };

		o.last = &o.first;
		o.encoder = nova_encoder_new(options, &qmp_stream_scanner, on_emit, &o, &err);
		o.decoder = nova_decoder_new(options, &err);
		if (!o.encoder || !o.decoder)
			die(&err);
		send_image(&o, false);
		if (delta) {
			edit_image();
			send_image(&o, true);
		}
		check_digests(&o);
		encode = o.encode_s < encode ? o.encode_s : encode;
		decode = o.decode_s < decode ? o.decode_s : decode;
		encoded = o.encoded;
		nova_encoder_free(o.encoder);
		nova_decoder_free(o.decoder);
	}
	report(name, encode, decode, (double)image_bytes / (double)encoded);
}

int main(int argc, char **argv)
{
	size_t mib = argc > 1 ? strtoul(argv[1], NULL, 10) : 96;
	size_t history = (mib + mib / 16) << 20;
	const char *path = getenv("RESULTS");
	const struct {
		const char *name;
		struct nova_codec_options options;
		bool delta;
	} rows[] = {
		{ "none", { NOVA_CODEC_NONE } },
		{ "none, history", { NOVA_CODEC_NONE, 0, history } },
		{ "lz4", { NOVA_CODEC_LZ4, 1 } },
		{ "lz4, history", { NOVA_CODEC_LZ4, 1, history } },
		{ "lz4 acceleration 8", { NOVA_CODEC_LZ4, 8 } },
		{ "zstd 1", { NOVA_CODEC_ZSTD, 1 } },
		{ "zstd 1, history", { NOVA_CODEC_ZSTD, 1, history } },
		{ "zstd 3, history", { NOVA_CODEC_ZSTD, 3, history } },
		{ "zstd 6, history", { NOVA_CODEC_ZSTD, 6, history } },
		{ "zstd 9, history", { NOVA_CODEC_ZSTD, 9, history } },
		{ "delta, none", { NOVA_CODEC_NONE, 0, history }, true },
		{ "delta, lz4", { NOVA_CODEC_LZ4, 1, history }, true },
		{ "delta, zstd 1", { NOVA_CODEC_ZSTD, 1, history }, true },
	};

	if (mib < 1 || mib > 4096) {
		fprintf(stderr, "usage: codec_bench [MIB], 1 to 4096\n");
		return 2;
	}
	results = path ? fopen(path, "a") : NULL;
	build_image(mib);
	printf("%zu MiB mixed guest, GB/s of raw stream per core\n%-28s %8s %8s %8s\n", mib, "", "encode",
	    "decode", "ratio");
	for (size_t i = 0; i < sizeof(limits) / sizeof(*limits); i++)
		bench_limit(&limits[i]);
	for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++)
		bench_codec(rows[i].name, &rows[i].options, rows[i].delta);
	if (results)
		fclose(results);
	free(image);
	return 0;
}
