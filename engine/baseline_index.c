/* SPDX-License-Identifier: Apache-2.0
 *
 * baseline_index.c - which guest page is in which slot of a baseline, and the hash of what it should hold.
 *
 * The file: 4096 bytes of head, then 24 bytes a slot (page, hash; all integers big-endian). The head: "NOVABASE", u32
 * version, u32 slots, u64 created_ms, the digest of the entries, texts (u16 length, UTF-8 bytes), then the SHA-256 of the
 * head so far; the rest is 0. On the wire only the entries travel. Both the file and the peer are strangers: lengths
 * are bounded, a repeated page or hash only hides the earlier slot.
 *
 * Memory: 40 bytes a slot (entry 24, two tables of two u32 a slot each), touched as it fills: 1 % of the pages.
 */
#include "baseline.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define VERSION 1u
#define MAGIC "NOVABASE"

/* ---- hashing ------------------------------------------------------------------------------------ */

struct nova_base_hasher {
	EVP_MD *sha256;
	EVP_MD_CTX *ctx;
};

struct nova_base_hasher *nova_base_hasher_new(struct nova_error *err)
{
	struct nova_base_hasher *hasher = calloc(1, sizeof(*hasher));

	if (hasher) {
		hasher->sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
		hasher->ctx = EVP_MD_CTX_new();
		if (hasher->sha256 && hasher->ctx && EVP_DigestInit_ex2(hasher->ctx, hasher->sha256, NULL))
			return hasher;
	}
	nova_error_set(err, NOVA_SYSTEM, "OpenSSL has no SHA-256 for a baseline");
	return nova_base_hasher_free(hasher);
}

struct nova_base_hasher *nova_base_hasher_free(struct nova_base_hasher *hasher)
{
	if (!hasher)
		return NULL;
	EVP_MD_CTX_free(hasher->ctx);
	EVP_MD_free(hasher->sha256);
	free(hasher);
	return NULL;
}

void nova_base_hash(struct nova_base_hasher *hasher, const uint8_t *content, uint8_t hash[NOVA_BASE_HASH_BYTES])
{
	uint8_t whole[32] = { 0 };

	EVP_DigestUpdate(hasher->ctx, content, NOVA_PAGE_BYTES);
	EVP_DigestFinal_ex(hasher->ctx, whole, NULL);
	EVP_DigestInit_ex2(hasher->ctx, NULL, NULL); /* the same algorithm again */
	memcpy(hash, whole, NOVA_BASE_HASH_BYTES);
}

/* ---- the head ----------------------------------------------------------------------------------- */

struct text {
	size_t offset, size;
};
#define TEXT(member) { offsetof(struct nova_base_head, member), sizeof(((struct nova_base_head *)0)->member) }
static const struct text texts[] = { TEXT(id), TEXT(uuid), TEXT(guest), TEXT(owner), TEXT(image), TEXT(peer), TEXT(side) };

void nova_base_head_write(const struct nova_base_head *head, uint8_t file[NOVA_BASE_HEAD_BYTES])
{
	struct nova_writer w = nova_writer_of(file, NOVA_BASE_HEAD_BYTES);
	size_t used;

	memset(file, 0, NOVA_BASE_HEAD_BYTES);
	nova_put_bytes(&w, MAGIC, 8);
	nova_put_u32(&w, VERSION);
	nova_put_u32(&w, head->slots);
	nova_put_u64(&w, (uint64_t)head->created_ms);
	nova_put_bytes(&w, head->digest, sizeof(head->digest));
	for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++) {
		const char *text = (const char *)head + texts[i].offset;

		nova_put_u16(&w, (uint16_t)strlen(text));
		nova_put_bytes(&w, text, strlen(text));
	}
	used = nova_writer_used(&w);
	EVP_Digest(file, used, file + used, NULL, EVP_sha256(), NULL);
}

static void read_text(struct nova_cursor *c, char *text, size_t size)
{
	size_t length = nova_get_u16(c);
	const uint8_t *bytes = length < size ? nova_get_bytes(c, length) : NULL;

	if (!bytes || memchr(bytes, 0, length))
		c->bad = true;
	else
		memcpy(text, bytes, length);
}

int nova_base_head_read(struct nova_base_head *head, const uint8_t *file, size_t length, struct nova_error *err)
{
	struct nova_cursor c = nova_cursor_of(file, length < NOVA_BASE_HEAD_BYTES ? length : NOVA_BASE_HEAD_BYTES);
	const uint8_t *magic = nova_get_bytes(&c, 8);
	uint32_t version = nova_get_u32(&c);
	struct nova_base_head read = { 0 };
	const uint8_t *bytes;
	uint8_t check[32];

	if (!magic || memcmp(magic, MAGIC, 8))
		return nova_error_set(err, NOVA_INVALID, "this is not the index of a baseline");
	if (version != VERSION)
		return nova_error_set(err, NOVA_INVALID, "an index of version %u, %u is known", version, VERSION);
	read.slots = nova_get_u32(&c);
	read.created_ms = (int64_t)nova_get_u64(&c);
	bytes = nova_get_bytes(&c, sizeof(read.digest));
	if (bytes)
		memcpy(read.digest, bytes, sizeof(read.digest));
	for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++)
		read_text(&c, (char *)&read + texts[i].offset, texts[i].size);
	EVP_Digest(file, (size_t)(c.at - file), check, NULL, EVP_sha256(), NULL);
	bytes = nova_get_bytes(&c, sizeof(check));
	if (!bytes || memcmp(bytes, check, sizeof(check)))
		return nova_error_set(err, NOVA_INVALID, "the head of the index is damaged");
	while (nova_cursor_left(&c))
		if (nova_get_u8(&c))
			return nova_error_set(err, NOVA_INVALID, "the head of the index is damaged");
	if (read.slots > NOVA_BASE_SLOTS_MAX || strlen(read.id) != 32 || strspn(read.id, "0123456789abcdef") != 32)
		return nova_error_set(err, NOVA_INVALID, "the head of the index is beyond its limits");
	*head = read;
	return 0;
}

/* ---- entries ------------------------------------------------------------------------------------ */

struct nova_base_index {
	void *map;
	size_t map_bytes;
	struct nova_base_entry *entries;
	uint32_t *by_page, *by_hash; /* slot and one; 0: empty. Open addressing, n_table places each */
	uint64_t n_table;
	uint32_t capacity, slots;
	EVP_MD_CTX *digest;
	uint8_t cut[NOVA_BASE_ENTRY_BYTES]; /* the beginning of an entry that has not come whole */
	size_t cut_bytes;
};

static_assert(sizeof(struct nova_base_entry) == NOVA_BASE_ENTRY_BYTES, "an entry is in memory as it is in the file");

static size_t lay_out(struct nova_base_index *index)
{
	size_t entries = (size_t)index->capacity * sizeof(*index->entries);
	size_t table = index->n_table * sizeof(uint32_t);

	if (index->map) {
		index->entries = index->map;
		index->by_page = (uint32_t *)((uint8_t *)index->map + entries);
		index->by_hash = (uint32_t *)((uint8_t *)index->map + entries + table);
	}
	return entries + 2 * table;
}

struct nova_base_index *nova_base_index_new(uint32_t slots, struct nova_error *err)
{
	struct nova_base_index *index = calloc(1, sizeof(*index));

	if (!index || slots > NOVA_BASE_SLOTS_MAX) {
		free(index);
		nova_error_set(err, index ? NOVA_INVALID : NOVA_SYSTEM, "an index of %u slots", slots);
		return NULL;
	}
	index->capacity = slots;
	index->n_table = (uint64_t)slots * 2 + 16;
	index->map_bytes = lay_out(index);
	index->map = mmap(
	    NULL, index->map_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	index->digest = EVP_MD_CTX_new();
	if (index->map == MAP_FAILED)
		index->map = NULL;
	if (!index->map || !index->digest || !EVP_DigestInit_ex(index->digest, EVP_sha256(), NULL)) {
		nova_error_sys(err, ENOMEM, "an index of %u slots", slots);
		return nova_base_index_free(index);
	}
	lay_out(index);
	return index;
}

struct nova_base_index *nova_base_index_free(struct nova_base_index *index)
{
	if (!index)
		return NULL;
	if (index->map)
		munmap(index->map, index->map_bytes);
	EVP_MD_CTX_free(index->digest);
	free(index);
	return NULL;
}

static uint64_t mix(uint64_t x)
{
	x = (x ^ (x >> 33)) * 0xff51afd7ed558ccdull;
	x = (x ^ (x >> 33)) * 0xc4ceb9fe1a85ec53ull;
	return x ^ (x >> 33);
}

static uint64_t place_of(const struct nova_base_index *index, uint64_t key)
{
	return ((key >> 32) * index->n_table) >> 32;
}

static uint64_t hash_key(const uint8_t *hash)
{
	uint64_t key;

	memcpy(&key, hash, sizeof(key));
	return key;
}

/* The place of this page or hash, or the empty one where it belongs. Half of the places are empty. A peer that made
 * many of its hashes begin alike would make this slow: after 64 steps the place at hand is given up for the new one. */
static uint32_t *find_place(const struct nova_base_index *index, uint32_t *table, uint64_t key, const void *wanted,
    size_t offset, size_t length)
{
	uint64_t at = place_of(index, key);

	for (unsigned step = 0; step < 64 && table[at]; step++) {
		const struct nova_base_entry *entry = &index->entries[table[at] - 1];

		if (!memcmp((const uint8_t *)entry + offset, wanted, length))
			break;
		at = at + 1 < index->n_table ? at + 1 : 0;
	}
	return &table[at];
}

static uint32_t *page_place(const struct nova_base_index *index, uint64_t page)
{
	return find_place(index, index->by_page, mix(page), &page, offsetof(struct nova_base_entry, page), sizeof(page));
}

static uint32_t *hash_place(const struct nova_base_index *index, const uint8_t *hash)
{
	return find_place(index, index->by_hash, hash_key(hash), hash, offsetof(struct nova_base_entry, hash),
	    NOVA_BASE_HASH_BYTES);
}

static int add_entry(struct nova_base_index *index, const uint8_t *bytes, struct nova_error *err)
{
	struct nova_base_entry *entry = &index->entries[index->slots];

	if (index->slots == index->capacity)
		return nova_error_set(err, NOVA_INVALID, "more entries than the %u slots there are", index->capacity);
	memcpy(entry, bytes, sizeof(*entry));
	entry->page = be64toh(entry->page);
	index->slots++;
	*page_place(index, entry->page) = index->slots;
	*hash_place(index, entry->hash) = index->slots;
	return 0;
}

int nova_base_index_add(struct nova_base_index *index, const uint8_t *bytes, size_t length, struct nova_error *err)
{
	EVP_DigestUpdate(index->digest, bytes, length);
	while (length) {
		size_t piece = sizeof(index->cut) - index->cut_bytes;

		if (piece > length)
			piece = length;
		memcpy(index->cut + index->cut_bytes, bytes, piece);
		index->cut_bytes += piece;
		bytes += piece;
		length -= piece;
		if (index->cut_bytes < sizeof(index->cut))
			return 0;
		index->cut_bytes = 0;
		if (add_entry(index, index->cut, err) < 0)
			return -1;
	}
	return 0;
}

int nova_base_index_check(struct nova_base_index *index, const uint8_t digest[32], struct nova_error *err)
{
	uint8_t found[32] = { 0 };

	EVP_DigestFinal_ex(index->digest, found, NULL);
	if (index->slots != index->capacity || index->cut_bytes)
		return nova_error_set(err, NOVA_INVALID, "an index with %u of %u entries", index->slots, index->capacity);
	if (memcmp(found, digest, sizeof(found)))
		return nova_error_set(err, NOVA_INVALID, "an index whose entries are damaged");
	return 0;
}

uint32_t nova_base_index_slots(const struct nova_base_index *index)
{
	return index->slots;
}

const struct nova_base_entry *nova_base_index_at(const struct nova_base_index *index, uint32_t slot)
{
	return slot < index->slots ? &index->entries[slot] : NULL;
}

static uint32_t slot_at(const uint32_t *place)
{
	return *place ? *place - 1 : NOVA_BASE_NONE;
}

uint32_t nova_base_index_find_page(const struct nova_base_index *index, uint64_t page)
{
	uint32_t slot = slot_at(page_place(index, page));

	return slot != NOVA_BASE_NONE && index->entries[slot].page == page ? slot : NOVA_BASE_NONE;
}

uint32_t nova_base_index_find_hash(const struct nova_base_index *index, const uint8_t hash[NOVA_BASE_HASH_BYTES])
{
	uint32_t slot = slot_at(hash_place(index, hash));

	return slot != NOVA_BASE_NONE && !memcmp(index->entries[slot].hash, hash, NOVA_BASE_HASH_BYTES) ? slot :
													  NOVA_BASE_NONE;
}
