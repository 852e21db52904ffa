/* SPDX-License-Identifier: Apache-2.0
 *
 * disk_record.h - the records that the two ends of a disk's way exchange (see disk.h). Private to both.
 */
#ifndef NOVA_DISK_RECORD_H
#define NOVA_DISK_RECORD_H

#include "disk.h"

#include <event2/buffer.h>

#define DISK_RECORD_MAX (256u * 1024)
#define DISK_RECORD_HEADER 5u
#define DISK_HASHES_MAX 1024u         /* in one record */
#define DISK_QUEUE_BYTES (1u << 20)   /* what waits for a slow reader before we stop reading the other side */
#define DISK_READ_BYTES (4u << 20)    /* most that is read ahead of being looked at */
#define DISK_TURN_BYTES (2u << 20)    /* most that is hashed in one turn of the loop: below 2 ms */

enum disk_record_type {
	DISK_INFO = 'I',
	DISK_HASHES = 'H',
	DISK_READY = 'R',
	DISK_ANSWER = 'A',
	DISK_DATA = 'D',
	DISK_SAME = 'S',
	DISK_END = 'E',
};

struct disk_record {
	uint8_t type;
	uint32_t length; /* of the payload */
};

struct disk_info {
	uint64_t size_bytes;
	uint16_t flags;
	uint32_t block_min, block_preferred, block_max;
	uint32_t seed_block, seed_blocks;
};

/* One whole record: its header is taken out, its payload is next in the buffer. 1, 0: more must come, -1. */
int disk_record_get(struct evbuffer *in, struct disk_record *record, struct nova_error *err);
void disk_record_put(struct evbuffer *out, enum disk_record_type type, uint32_t length);
/* The first `length` bytes of `from` as records of this type. */
void disk_record_move(struct evbuffer *out, enum disk_record_type type, struct evbuffer *from, size_t length);
void disk_info_put(struct evbuffer *out, const struct disk_info *info);
/* The payload of an INFO record; -1 if its numbers cannot be true. */
int disk_info_get(struct evbuffer *in, uint32_t length, struct disk_info *info, struct nova_error *err);
void disk_same_put(struct evbuffer *out, uint32_t first, uint32_t count);
int disk_same_get(
    struct evbuffer *in, uint32_t length, uint32_t blocks, uint32_t *first, uint32_t *count, struct nova_error *err);
void disk_hash(const void *data, size_t length, uint8_t hash[NOVA_DISK_HASH_BYTES]);
/* Bytes a block of a seed of this size. */
uint32_t disk_block_bytes(uint64_t size_bytes);

#endif
