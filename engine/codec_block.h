/* SPDX-License-Identifier: Apache-2.0
 *
 * codec_block.h - what encoder and decoder must agree on: the tokens of a block, and how headers are
 * predicted.
 *
 * A message is one block: a head, then the packed body. The body is the content (page contents, header bytes
 * that could not be predicted, opaque bytes, changed bytes; in the order of the stream) followed by the
 * tokens that say how to put the raw stream together from it. transport/BLOCKS.md describes every byte.
 *
 * Limits: raw stream of a block 64 KiB, tokens 32 KiB; so a body is at most 96 KiB and a message fits in
 * NOVA_MESSAGE_MAX even when nothing shrinks.
 */
#ifndef NOVA_CODEC_BLOCK_H
#define NOVA_CODEC_BLOCK_H

#include "codec.h"

#include <endian.h>
#include <string.h>
#include <time.h>

#define NOVA_TOKENS_MAX (32u * 1024)
#define NOVA_BODY_MAX (NOVA_BLOCK_RAW_MAX + NOVA_TOKENS_MAX)
#define NOVA_BLOCK_HEAD_MAX 16u /* bytes of head at most */
#define NOVA_BLOCK_FRESH 0x10u  /* in the first byte: a new zstd frame begins */

/* A token is one byte: op in the upper three bits, a number in the lower five. The number is a count less
 * one (or, with SEEK, a step); NOVA_TOKEN_MORE says that a varint of what exceeds it follows. */
enum nova_token {
	NOVA_TOKEN_BYTES, /* count opaque bytes from the content */
	NOVA_TOKEN_PAGES, /* count page records, contents from the content */
	NOVA_TOKEN_FILLS, /* count fill records */
	NOVA_TOKEN_SAME,  /* count page records whose page is as last sent */
	NOVA_TOKEN_DELTA, /* one page record; the number is of changed ranges: (skip, length - 1) varints
	                     follow */
	NOVA_TOKEN_REF,   /* count page records with the contents of consecutive slots; first slot: zigzag
	                     varint */
	NOVA_TOKEN_SEEK,  /* the next page is number + 1 pages further, or (MORE) by a zigzag varint of pages
	                   */
	NOVA_TOKEN_NOTE,  /* the number says which, see below */
};
enum nova_note {
	NOVA_NOTE_PAGE_HEADER, /* the next page record has this header: varint length, bytes in the content */
	NOVA_NOTE_FILL_HEADER, /* the same for the next fill record */
	NOVA_NOTE_FILL_BYTE,   /* from now on fills are of this byte */
	NOVA_NOTE_BASE,        /* page records with the contents of consecutive slots of the baseline: varint count
	                          - 1, first slot: zigzag varint */
	NOVA_NOTE_BASE_DELTA,  /* one page record, as a slot of the baseline with ranges changed: zigzag varint slot,
	                          varint ranges - 1, then as DELTA */
};
#define NOVA_TOKEN_MORE 31u

/* The kinds of record that have headers of their own. */
enum nova_record {
	NOVA_RECORD_PAGE,
	NOVA_RECORD_FILL,
	NOVA_RECORDS
};

/* Runs through the whole stream on both sides, in step. A predicted header is the page's address and the
 * flags of the last header of its kind, as a big-endian u64; or nothing, where the last one was empty. */
struct nova_predict {
	uint64_t page; /* of the next record unless a SEEK says otherwise */
	uint16_t flags[NOVA_RECORDS];
	bool empty[NOVA_RECORDS];
	uint8_t fill;
	uint32_t slot; /* of the next REF */
	uint32_t base; /* slot of the next BASE or BASE_DELTA */
};
#define NOVA_PREDICT_MAX 8u /* bytes of a predicted header */

static inline size_t nova_predict_header(
    const struct nova_predict *p, enum nova_record record, uint64_t page, uint8_t header[NOVA_PREDICT_MAX])
{
	uint64_t value = htobe64((page & 0x0000fffffffff000ull) | p->flags[record]);

	if (p->empty[record])
		return 0;
	memcpy(header, &value, sizeof(value));
	return sizeof(value);
}

/* Learn from a header that was sent as it is. Other lengths teach nothing: the short form comes back. */
static inline void nova_predict_learn(
    struct nova_predict *p, enum nova_record record, const uint8_t *header, size_t length)
{
	if (length == NOVA_PREDICT_MAX)
		p->flags[record] = (uint16_t)((header[6] << 8 | header[7]) & 0xfff);
	if (length == 0 || length == NOVA_PREDICT_MAX)
		p->empty[record] = length == 0;
}

static inline uint64_t nova_codec_clock_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Of this thread. */
static inline uint64_t nova_codec_cpu_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

#endif
