/* SPDX-License-Identifier: Apache-2.0
 *
 * codec.h - the lossless stream transform: bytes in, messages out, the same bytes out again.
 *
 * For every input, decode(encode(x)) == x, whatever the scanner believes about x. The scanner (a parser
 * of the producer's stream) is a hint that tells pages from other bytes. The format of a message is in
 * transport/BLOCKS.md. Both sides hash the raw bytes (XXH3-128).
 */
#ifndef NOVA_CODEC_H
#define NOVA_CODEC_H

#include "flow.h"

#define NOVA_PAGE_BYTES 4096u
#define NOVA_BLOCK_RAW_MAX (64u * 1024) /* bytes of raw stream in one block */

/* ---- hints ---- */

enum nova_span_kind {
	NOVA_SPAN_BYTES, /* opaque: any number of bytes */
	NOVA_SPAN_PAGE,  /* header bytes, then NOVA_PAGE_BYTES of content */
	NOVA_SPAN_FILL,  /* header bytes, then one byte that stands for a page of it */
};
struct nova_span {
	enum nova_span_kind kind;
	uint32_t header_bytes; /* before the content */
	uint32_t total_bytes;  /* header and content */
	uint64_t page;         /* identifies the guest page: (block number << 48) | page address */
};
struct nova_scanner_ops {
	void *(*new)(void);
	void (*free)(void *scanner);
	/* Classify from data[0]: fill *span and return 1 for a span that lies whole in data[0..length), or
	 * return 0 if it takes more bytes to tell; the next call starts where the span ended (or at the same
	 * place, with more). Must make progress when length >= NOVA_SCAN_MAX: then a span of kind BYTES is
	 * always possible. Records whose page is not a multiple of NOVA_PAGE_BYTES count as BYTES. */
	int (*next)(void *scanner, const uint8_t *data, size_t length, struct nova_span *span);
};
#define NOVA_SCAN_MAX 8192u

/* ---- encoder ---- */

enum nova_codec {
	NOVA_CODEC_AUTO,
	NOVA_CODEC_NONE,
	NOVA_CODEC_LZ4,
	NOVA_CODEC_ZSTD,
	NOVA_CODECS
};
const char *nova_codec_name(enum nova_codec codec);

struct nova_baseline;
struct nova_spool;

struct nova_codec_options {
	enum nova_codec codec;
	int level;            /* of that codec; 0: its default */
	size_t history_bytes; /* budget of the page history, the same on both sides; 0: none */
	struct nova_baseline *baseline; /* borrowed: what the decoder's side holds from earlier; NULL: nothing */
	struct nova_spool *spool;       /* borrowed: is told every page; NULL: nobody is */
};

struct nova_codec_stats {
	uint64_t raw_bytes, encoded_bytes;
	uint64_t pages, fill_pages, same_pages, delta_pages, reference_pages, raw_pages;
	uint64_t baseline_pages, baseline_delta_pages; /* by reference to the baseline, as a change of it */
	uint64_t blocks;
	uint64_t busy_us; /* time spent in the codec */
};

struct nova_encoder;
/* emit: one message, stolen. scanner NULL: everything is opaque. */
struct nova_encoder *nova_encoder_new(const struct nova_codec_options *options,
    const struct nova_scanner_ops *scanner, void (*emit)(void *arg, struct nova_buf *buf), void *arg,
    struct nova_error *err);
struct nova_encoder *nova_encoder_free(struct nova_encoder *encoder);
/* Take raw bytes. Blocks are emitted as they fill; the rest waits for more input or flush. */
int nova_encoder_feed(
    struct nova_encoder *encoder, const uint8_t *raw, size_t length, struct nova_error *err);
/* Emit what is there: input paused. eof: nothing more will come. */
int nova_encoder_flush(struct nova_encoder *encoder, bool eof, struct nova_error *err);
/* The same in small steps and without a copy: write up to *room bytes (at least 64 KiB) to the place
 * returned, say how many, then step until it returns 0: each step emits at most one block (1) or needs more
 * input (0). flush: what is there goes out, also half a record. NULL: step first. */
uint8_t *nova_encoder_space(struct nova_encoder *encoder, size_t *room);
void nova_encoder_filled(struct nova_encoder *encoder, size_t length);
int nova_encoder_step(struct nova_encoder *encoder, bool flush, struct nova_error *err);
/* Bytes that were taken and have not gone out yet. */
size_t nova_encoder_holds(const struct nova_encoder *encoder);
/* From the next block on; NOVA_INVALID for a codec or level there is not. */
/* NOVA_CODEC_AUTO chooses for itself (level is ignored). */
int nova_encoder_set_codec(
    struct nova_encoder *encoder, enum nova_codec codec, int level, struct nova_error *err);
/* With NOVA_CODEC_AUTO: what the link took, several times a second, and whether there always was more to
 * send. The codec follows. cpu_share: the part of one core that may be used, 0: the default (0.85). */
void nova_encoder_link_rate(struct nova_encoder *encoder, double bytes_per_second, bool queue_full);
void nova_encoder_cpu_share(struct nova_encoder *encoder, double cpu_share);
/* The part of the time that the encoder's thread waited for a processor; with NOVA_CODEC_AUTO it then asks
 * for less of it. */
void nova_encoder_starved(struct nova_encoder *encoder, double part);
/* The choices so far, first to last; borrowed until the next call into the encoder. */
struct nova_codec_choice {
	uint64_t t_ms; /* since the encoder was made */
	enum nova_codec codec;
	int level;
	uint64_t link_Bps, codec_Bps; /* what the choice was based on, bytes a second */
	double ratio;                 /* of bodies, without what the history saved before */
	uint64_t raw_bytes, encoded_bytes; /* that went while it held */
};
const struct nova_codec_choice *nova_encoder_choices(const struct nova_encoder *encoder, size_t *count);
/* Of the raw bytes fed so far, also those not yet emitted. */
void nova_encoder_digest(const struct nova_encoder *encoder, uint8_t digest[16], uint64_t *raw_bytes);
void nova_encoder_stats(const struct nova_encoder *encoder, struct nova_codec_stats *stats);

/* ---- decoder ---- */

struct nova_decoder;
/* options: history_bytes as at the encoder. */
struct nova_decoder *nova_decoder_new(const struct nova_codec_options *options, struct nova_error *err);
struct nova_decoder *nova_decoder_free(struct nova_decoder *decoder);
/* One message gives *raw_length bytes at *raw (borrowed until the next call). NOVA_INVALID on anything an
 * encoder cannot have made; the decoder is useless afterwards, but memory safe. */
int nova_decoder_feed(struct nova_decoder *decoder, const uint8_t *message, size_t length,
    const uint8_t **raw, size_t *raw_length, struct nova_error *err);
void nova_decoder_digest(const struct nova_decoder *decoder, uint8_t digest[16], uint64_t *raw_bytes);
void nova_decoder_stats(const struct nova_decoder *decoder, struct nova_codec_stats *stats);

#endif
