/* SPDX-License-Identifier: Apache-2.0
 *
 * codec_bench.c - what the codec costs a core, beside what its parts cost alone, in the same run.
 *
 * "delta" sends the image again with eight bytes changed in every page. Times are processor time of this
 * process (other load on the machine does not count, but disturbs the caches): the best of ROUNDS. Encoding
 * includes the copy into the encoder's buffer, where the pipe has its read(2).
 *
 *	codec_bench [MIB]	prints a table; RESULTS=FILE appends one JSON object a row; QUICK=1: 32 MiB
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/codec.h"
#include "image.h"
#include "limits.h"
#include "qmp/stream.h"

#define ROUNDS 3
#define BATCH (4u << 20) /* bytes encoded before they are decoded */

static struct image image;
static FILE *results;

/* ---- results ------------------------------------------------------------------------------------ */

static void report(const char *name, double encode_s, double decode_s, double ratio)
{
	double gb = (double)image.length / 1e9;

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
	double began = limits_cpu_s();

	for (struct nova_buf *buf = o->first; buf; buf = buf->next) {
		const uint8_t *raw;
		size_t length;

		if (nova_decoder_feed(o->decoder, buf->data, buf->length, &raw, &length, &err) < 0)
			die(&err);
	}
	o->decode_s += limits_cpu_s() - began;
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
	for (size_t at = again ? image.head : 0, n; at < image.length; at += n) {
		double began = limits_cpu_s();

		n = image.length - at < BATCH ? image.length - at : BATCH;
		if (nova_encoder_feed(o->encoder, image.bytes + at, n, &err) < 0)
			die(&err);
		if (at + n == image.length && nova_encoder_flush(o->encoder, false, &err) < 0)
			die(&err);
		o->encode_s += limits_cpu_s() - began;
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

static void bench_limit(const struct limit *limit)
{
	char name[64];
	double ratio, took = limits_measure(limit, image.bytes, image.length, &ratio);

	snprintf(name, sizeof(name), "limit: %s", limit->name);
	report(name, took, 0, ratio);
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
			image_edit(&image);
			send_image(&o, true);
		}
		check_digests(&o);
		encode = o.encode_s < encode ? o.encode_s : encode;
		decode = o.decode_s < decode ? o.decode_s : decode;
		encoded = o.encoded;
		nova_encoder_free(o.encoder);
		nova_decoder_free(o.decoder);
	}
	report(name, encode, decode, (double)image.length / (double)encoded);
}

int main(int argc, char **argv)
{
	size_t mib = argc > 1 ? strtoul(argv[1], NULL, 10) : getenv("QUICK") ? 32 : 96;
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
	image_build(&image, mib);
	printf("%zu MiB mixed guest, GB/s of raw stream per core\n%-28s %8s %8s %8s\n", mib, "", "encode",
	    "decode", "ratio");
	for (size_t i = 0; i < n_limits; i++)
		bench_limit(&limits[i]);
	for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++)
		bench_codec(rows[i].name, &rows[i].options, rows[i].delta);
	if (results)
		fclose(results);
	image_free(&image);
	return 0;
}
