/* SPDX-License-Identifier: Apache-2.0
 *
 * disk_record.c - records of a disk's way, as bytes. Each is read whole, and bounded before it is used.
 */
#include "disk_record.h"

#include <endian.h>
#include <openssl/evp.h>
#include <string.h>

#define INFO_BYTES 30u
#define SAME_BYTES 8u

static void put(struct evbuffer *out, uint64_t value, int bytes)
{
	uint64_t big = htobe64(value);

	evbuffer_add(out, (const uint8_t *)&big + 8 - bytes, (size_t)bytes);
}

static uint64_t get(const uint8_t *at, int bytes)
{
	uint64_t value = 0;

	while (bytes--)
		value = value << 8 | *at++;
	return value;
}

static int damaged(struct nova_error *err, const char *what)
{
	return nova_error_set(err, NOVA_INVALID, "the other side's end of the disk sent %s", what);
}

int disk_record_get(struct evbuffer *in, struct disk_record *record, struct nova_error *err)
{
	uint8_t header[DISK_RECORD_HEADER];
	uint32_t length;

	if (evbuffer_copyout(in, header, sizeof(header)) != (ev_ssize_t)sizeof(header))
		return 0;
	length = (uint32_t)get(header + 1, 4);
	if (length > DISK_RECORD_MAX)
		return damaged(err, "a record that is too long");
	if (evbuffer_get_length(in) < sizeof(header) + length)
		return 0;
	evbuffer_drain(in, sizeof(header));
	record->type = header[0];
	record->length = length;
	return 1;
}

void disk_record_put(struct evbuffer *out, enum disk_record_type type, uint32_t length)
{
	put(out, type, 1);
	put(out, length, 4);
}

void disk_record_move(struct evbuffer *out, enum disk_record_type type, struct evbuffer *from, size_t length)
{
	while (length) {
		size_t piece = length < DISK_RECORD_MAX ? length : DISK_RECORD_MAX;

		disk_record_put(out, type, (uint32_t)piece);
		evbuffer_remove_buffer(from, out, piece);
		length -= piece;
	}
}

void disk_info_put(struct evbuffer *out, const struct disk_info *info)
{
	disk_record_put(out, DISK_INFO, INFO_BYTES);
	put(out, info->size_bytes, 8);
	put(out, info->flags, 2);
	put(out, info->block_min, 4);
	put(out, info->block_preferred, 4);
	put(out, info->block_max, 4);
	put(out, info->seed_block, 4);
	put(out, info->seed_blocks, 4);
}

int disk_info_get(struct evbuffer *in, uint32_t length, struct disk_info *info, struct nova_error *err)
{
	uint8_t bytes[INFO_BYTES];

	if (length != sizeof(bytes) || evbuffer_remove(in, bytes, sizeof(bytes)) != (int)sizeof(bytes))
		return damaged(err, "a damaged description of its disk");
	info->size_bytes = get(bytes, 8);
	info->flags = (uint16_t)get(bytes + 8, 2);
	info->block_min = (uint32_t)get(bytes + 10, 4);
	info->block_preferred = (uint32_t)get(bytes + 14, 4);
	info->block_max = (uint32_t)get(bytes + 18, 4);
	info->seed_block = (uint32_t)get(bytes + 22, 4);
	info->seed_blocks = (uint32_t)get(bytes + 26, 4);
	if (info->size_bytes > INT64_MAX || info->seed_blocks > NOVA_DISK_BLOCKS_MAX)
		return damaged(err, "a disk that is too large");
	if (info->seed_blocks && (info->seed_block < NOVA_DISK_BLOCK_MIN || info->seed_block > DISK_READ_BYTES / 2))
		return damaged(err, "blocks of a size that is not accepted");
	return 0;
}

void disk_same_put(struct evbuffer *out, uint32_t first, uint32_t count)
{
	disk_record_put(out, DISK_SAME, SAME_BYTES);
	put(out, first, 4);
	put(out, count, 4);
}

int disk_same_get(
    struct evbuffer *in, uint32_t length, uint32_t blocks, uint32_t *first, uint32_t *count, struct nova_error *err)
{
	uint8_t bytes[SAME_BYTES];

	if (length != sizeof(bytes) || evbuffer_remove(in, bytes, sizeof(bytes)) != (int)sizeof(bytes))
		return damaged(err, "a damaged reference");
	*first = (uint32_t)get(bytes, 4);
	*count = (uint32_t)get(bytes + 4, 4);
	if (*count == 0 || *first >= blocks || *count > blocks - *first)
		return damaged(err, "a reference to blocks that are not there");
	return 0;
}

void disk_hash(const void *data, size_t length, uint8_t hash[NOVA_DISK_HASH_BYTES])
{
	EVP_Digest(data, length, hash, NULL, EVP_sha256(), NULL);
}

uint32_t disk_block_bytes(uint64_t size_bytes)
{
	uint32_t block = NOVA_DISK_BLOCK_MIN;

	while (size_bytes / block > NOVA_DISK_BLOCKS_MAX && block < DISK_READ_BYTES / 2)
		block *= 2;
	return block;
}
