/* SPDX-License-Identifier: Apache-2.0
 *
 * baseline.h - what a host knows of a guest's memory from an earlier visit, on disk, so that a guest that comes back
 * sends what changed. Private to engine/.
 *
 * A baseline is two files: PAGES holds page contents, 4096 bytes a slot, in no particular order; INDEX says for
 * each slot which guest page it is and the hash of its content: the first 128 bits of its SHA-256. (The hash is
 * the proof that two hosts hold the same content. A guest that finds two contents with the same hash, 2^64 steps of
 * work, can break its own migration: the digest of the whole stream then differs.)
 *
 *   spool      takes pages during a migration, on both sides; hashes them when it is sealed    baseline_spool.c
 *   index      slots, pages, hashes: in memory, as a file, on the wire; untrusted in each      baseline_index.c
 *   baseline   what the codec asks: the encoder, what the other side holds; the decoder, what we hold   baseline.c
 *
 * Nothing here is trusted to be what was written: content is hashed when it is used. Files are not synced: what a
 * crash leaves behind is found out by its hash and costs bytes.
 */
#ifndef NOVA_BASELINE_H
#define NOVA_BASELINE_H

#include "codec.h"
#include "cursor.h"

#define NOVA_BASE_HASH_BYTES 16u
#define NOVA_BASE_SLOTS_MAX (1u << 28) /* 1 TiB of pages */
#define NOVA_BASE_NONE UINT32_MAX
#define NOVA_BASE_TEXT_MAX 255u /* bytes of a text in an index's head */

/* ---- hashing ---- */

struct nova_base_hasher;
struct nova_base_hasher *nova_base_hasher_new(struct nova_error *err);
struct nova_base_hasher *nova_base_hasher_free(struct nova_base_hasher *hasher);
void nova_base_hash(struct nova_base_hasher *hasher, const uint8_t *content, uint8_t hash[NOVA_BASE_HASH_BYTES]);

/* ---- the index ---- */

#define NOVA_BASE_ENTRY_BYTES 24u
struct nova_base_entry {
	uint64_t page;                      /* as nova_span names it */
	uint8_t hash[NOVA_BASE_HASH_BYTES]; /* of its content */
};

/* Whose it is and what it is called. */
struct nova_base_head {
	char id[33];   /* token of the migration it was made in: 32 hexadecimal digits */
	char uuid[37]; /* of the guest */
	char guest[NOVA_BASE_TEXT_MAX + 1], owner[NOVA_BASE_TEXT_MAX + 1];
	char image[NOVA_BASE_TEXT_MAX + 1]; /* what the guest was made from, "" unknown */
	char peer[NOVA_BASE_TEXT_MAX + 1];  /* the host at the other end */
	char side[NOVA_BASE_TEXT_MAX + 1];  /* "source" or "destination": what we were */
	int64_t created_ms;                 /* since the epoch */
	uint32_t slots;
	uint8_t digest[32]; /* SHA-256 of all entries as they are in the file */
};

#define NOVA_BASE_HEAD_BYTES 4096u /* of a file of an index; entries follow */
void nova_base_head_write(const struct nova_base_head *head, uint8_t file[NOVA_BASE_HEAD_BYTES]);
/* NOVA_INVALID for anything that nova_base_head_write cannot have written. */
int nova_base_head_read(struct nova_base_head *head, const uint8_t *file, size_t length, struct nova_error *err);

/* Entries, found by page and by content. */
struct nova_base_index;
struct nova_base_index *nova_base_index_new(uint32_t slots, struct nova_error *err);
struct nova_base_index *nova_base_index_free(struct nova_base_index *index);
/* The next entries, as bytes of the file (NOVA_BASE_ENTRY_BYTES each; pieces may be cut anywhere). NOVA_INVALID: more
 * than there are slots. Takes 0.1 us a byte at most. */
int nova_base_index_add(struct nova_base_index *index, const uint8_t *bytes, size_t length, struct nova_error *err);
/* All entries are there: is this their digest? */
int nova_base_index_check(struct nova_base_index *index, const uint8_t digest[32], struct nova_error *err);
uint32_t nova_base_index_slots(const struct nova_base_index *index); /* added so far */
const struct nova_base_entry *nova_base_index_at(const struct nova_base_index *index, uint32_t slot);
uint32_t nova_base_index_find_page(const struct nova_base_index *index, uint64_t page);
uint32_t nova_base_index_find_hash(const struct nova_base_index *index, const uint8_t hash[NOVA_BASE_HASH_BYTES]);

/* ---- the spool ---- */

struct nova_spool;
/* Make `path`.pages (0600; it must not be there) for at most `slots` pages. */
struct nova_spool *nova_spool_new(const char *path, uint32_t slots, struct nova_error *err);
/* Unless it was kept, its files are removed. */
struct nova_spool *nova_spool_free(struct nova_spool *spool);
/* A page has this content now. Never fails: what cannot be written, or not without taking more than a quarter of the
 * time, is not kept. */
void nova_spool_page(struct nova_spool *spool, uint64_t page, const uint8_t *content);
/* Hash what is there and write the index, a slice at a time. 1: again; 0: the baseline is complete; -1: it cannot be. */
int nova_spool_seal(struct nova_spool *spool, struct nova_base_head *head, struct nova_error *err);
uint64_t nova_spool_bytes(const struct nova_spool *spool); /* on disk */

/* ---- what the codec asks ---- */

struct nova_baseline;
/* offered: what the destination holds. own, pages_fd: what we hold ourselves (own NULL: the same as offered; pages_fd
 * -1: nothing). All are stolen, also on failure. */
struct nova_baseline *nova_baseline_new(struct nova_base_index *offered, struct nova_base_index *own, int pages_fd,
    struct nova_error *err);
struct nova_baseline *nova_baseline_free(struct nova_baseline *baseline);

/* The index of what the destination holds; borrowed. */
const struct nova_base_index *nova_baseline_offered(const struct nova_baseline *baseline);

enum nova_base_match {
	NOVA_BASE_UNKNOWN, /* nothing there that helps */
	NOVA_BASE_SAME,    /* slot *slot has exactly this content */
	NOVA_BASE_OLD,     /* slot *slot has older content of the page: *old, borrowed until the next call */
};
/* For the encoder. */
enum nova_base_match nova_baseline_look(struct nova_baseline *baseline, uint64_t page, const uint8_t *content,
    uint32_t *slot, const uint8_t **old);
/* For the decoder: content of a slot, as its hash says it must be; borrowed until the next call. NULL: there is none. */
const uint8_t *nova_baseline_content(struct nova_baseline *baseline, uint32_t slot, struct nova_error *err);
/* nova_baseline_content has failed for a slot that there is: the files are damaged. */
bool nova_baseline_damaged(const struct nova_baseline *baseline);

#endif
