/* SPDX-License-Identifier: Apache-2.0
 *
 * history.c - the arena of page contents, the map from pages to slots, and who stays when it is full.
 *
 * A slot holds 4 KiB. Pages with the same content share one (users counts them). The map is a set-associative
 * table: four entries a bucket, one cache line; an entry names its slot and the slot's generation, so
 * evicting a slot forgets all its pages at once. A bucket that is full replaces one entry: that page is then
 * sent whole once.
 *
 * Full: pages that were sent again are hot (heat 2 more each time, at most 6). A page that asks for a slot
 * looks at one, round robin: if that is cold it takes it, otherwise it cools that slot by one and is not
 * kept. So the first pass through memory leaves its last pages, hot ones survive later passes, and a working
 * set three times the budget still finds a part of itself instead of chasing its own tail.
 *
 * Memory: 4153 bytes a slot: content 4096, map 32, generation and users 8, heat 1, hash and index 16 (the
 * last only with by_content; counted on both sides, so that they have the same number of slots).
 */
#include "history.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <xxhash.h>

#define WAYS 4u
#define HEAT_HIT 2u
#define HEAT_MAX 6u
#define SLOT_COST 4169u
#define BUDGET_MIN (64u * 1024)

struct entry {
	uint64_t page;
	uint32_t slot; /* and one; 0: empty */
	uint32_t generation;
};
struct bucket {
	struct entry way[WAYS];
} __attribute__((aligned(64)));

struct slot {
	uint32_t generation;
	uint32_t users; /* live entries of the map that name it */
};

struct nova_history {
	uint8_t *arena; /* all below is in one mapping of map_bytes */
	size_t map_bytes;
	struct bucket *buckets;
	struct slot *slots;
	uint8_t *heat;
	uint64_t *hashes; /* NULL: not by content */
	uint32_t *index;  /* slot and one, by hash; 0: none */
	uint32_t n_buckets, n_slots, n_index;
	uint32_t used; /* slots that were ever filled */
	uint32_t hand; /* the next to be looked at when all are */
	uint32_t pressure;
	uint32_t knocks; /* of pages that asked for a slot under pressure */
};

static uint64_t mix(uint64_t x)
{
	x = (x ^ (x >> 33)) * 0xff51afd7ed558ccdull;
	x = (x ^ (x >> 33)) * 0xc4ceb9fe1a85ec53ull;
	return x ^ (x >> 33);
}

static struct bucket *bucket_of(const struct nova_history *h, uint64_t hash)
{
	return &h->buckets[((hash >> 32) * h->n_buckets) >> 32];
}

/* Parts of the mapping are laid out one after the other, each at a multiple of 4 KiB. */
static void *take_part(size_t *at, uint8_t *map, size_t bytes)
{
	uint8_t *part = map ? map + *at : NULL;

	*at += (bytes + 4095) & ~(size_t)4095;
	return part;
}

static size_t lay_out(struct nova_history *h, uint8_t *map, bool by_content)
{
	size_t at = 0;

	h->arena = take_part(&at, map, (size_t)h->n_slots * NOVA_PAGE_BYTES);
	h->buckets = take_part(&at, map, (size_t)h->n_buckets * sizeof(struct bucket));
	h->slots = take_part(&at, map, (size_t)h->n_slots * sizeof(struct slot));
	h->heat = take_part(&at, map, h->n_slots);
	if (by_content) {
		h->hashes = take_part(&at, map, (size_t)h->n_slots * sizeof(uint64_t));
		h->index = take_part(&at, map, (size_t)h->n_index * sizeof(uint32_t));
	}
	return at;
}

struct nova_history *nova_history_new(size_t budget_bytes, bool by_content, struct nova_error *err)
{
	struct nova_history *h = calloc(1, sizeof(*h));
	size_t slots = budget_bytes < BUDGET_MIN ? 0 : budget_bytes / SLOT_COST;
	void *map;

	if (!h) {
		nova_error_set(err, NOVA_SYSTEM, "out of memory for the page history");
		return NULL;
	}
	h->n_slots = slots < 1u << 30 ? (uint32_t)slots : 1u << 30;
	h->n_buckets = h->n_slots - h->n_slots / 4;
	h->n_index = h->n_slots * 2;
	h->map_bytes = lay_out(h, NULL, by_content);
	if (!h->n_slots)
		return h;
	map = mmap(
	    NULL, h->map_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (map == MAP_FAILED) {
		nova_error_sys(err, errno, "memory for a page history of %zu MiB", budget_bytes >> 20);
		free(h);
		return NULL;
	}
	/* No huge pages: clearing one takes longer than a turn of the loop where a hypervisor is below us. */
	lay_out(h, map, by_content);
	return h;
}

struct nova_history *nova_history_free(struct nova_history *h)
{
	if (h && h->arena)
		munmap(h->arena, h->map_bytes);
	free(h);
	return NULL;
}

/* ---- looking ------------------------------------------------------------------------------------ */

static bool is_live(const struct nova_history *h, const struct entry *e)
{
	return e->slot && h->slots[e->slot - 1].generation == e->generation;
}

uint32_t nova_history_find(const struct nova_history *h, uint64_t page)
{
	const struct bucket *b;

	if (!h->n_slots)
		return NOVA_NO_SLOT;
	b = bucket_of(h, mix(page));
	for (unsigned i = 0; i < WAYS; i++)
		if (b->way[i].page == page && is_live(h, &b->way[i]))
			return b->way[i].slot - 1;
	return NOVA_NO_SLOT;
}

void nova_history_prefetch(const struct nova_history *h, uint64_t page)
{
	if (h->n_slots)
		__builtin_prefetch(bucket_of(h, mix(page)));
}

uint64_t nova_history_hash(const uint8_t *content)
{
	return XXH3_64bits(content, NOVA_PAGE_BYTES) | 1; /* 0 means none */
}

static uint32_t *index_of(const struct nova_history *h, uint64_t hash)
{
	return &h->index[((hash >> 32) * h->n_index) >> 32];
}

uint32_t nova_history_find_content(const struct nova_history *h, uint64_t hash, const uint8_t *content)
{
	uint32_t slot;

	if (!h->n_slots)
		return NOVA_NO_SLOT;
	slot = *index_of(h, hash);
	if (!slot-- || h->hashes[slot] != hash ||
	    memcmp(h->arena + (size_t)slot * NOVA_PAGE_BYTES, content, NOVA_PAGE_BYTES) != 0)
		return NOVA_NO_SLOT;
	return slot;
}

uint8_t *nova_history_content(struct nova_history *h, uint32_t slot)
{
	return slot < h->used ? h->arena + (size_t)slot * NOVA_PAGE_BYTES : NULL;
}

/* ---- changing ----------------------------------------------------------------------------------- */

static void heat_up(struct nova_history *h, uint32_t slot)
{
	h->heat[slot] = h->heat[slot] + HEAT_HIT > HEAT_MAX ? HEAT_MAX : h->heat[slot] + HEAT_HIT;
}

void nova_history_same(struct nova_history *h, uint32_t slot)
{
	heat_up(h, slot);
	h->pressure -= h->pressure > 0;
}

static void release(struct nova_history *h, const struct entry *e)
{
	if (is_live(h, e))
		h->slots[e->slot - 1].users--;
}

/* Where a page is entered: its own entry, or one that means nothing any more, or the coldest. */
static struct entry *choose_entry(struct nova_history *h, struct bucket *b, uint64_t page)
{
	struct entry *best = NULL;
	unsigned coldest = HEAT_MAX + 1;

	for (unsigned i = 0; i < WAYS; i++)
		if (b->way[i].slot && b->way[i].page == page)
			return &b->way[i];
	for (unsigned i = 0; i < WAYS; i++) {
		struct entry *e = &b->way[i];

		if (!is_live(h, e))
			return e;
		if (h->heat[e->slot - 1] < coldest) {
			coldest = h->heat[e->slot - 1];
			best = e;
		}
	}
	return best;
}

static void map_page(struct nova_history *h, uint64_t page, uint32_t slot)
{
	struct entry *e = choose_entry(h, bucket_of(h, mix(page)), page);

	release(h, e);
	*e = (struct entry) { page, slot + 1, h->slots[slot].generation };
	h->slots[slot].users++;
}

/* It is missed, but the map still knows it: it was here and had to go. */
static bool was_here(const struct nova_history *h, uint64_t page)
{
	const struct bucket *b = bucket_of(h, mix(page));

	for (unsigned i = 0; i < WAYS; i++)
		if (b->way[i].slot && b->way[i].page == page)
			return true;
	return false;
}

/* A slot for new content, or NOVA_NO_SLOT. */
static uint32_t obtain(struct nova_history *h)
{
	uint32_t slot;

	if (h->used < h->n_slots)
		return h->used++;
	if (!h->n_slots || (h->pressure > h->n_slots / 8 && ++h->knocks % 8))
		return NOVA_NO_SLOT;
	slot = h->hand;
	h->hand = slot + 1 < h->n_slots ? slot + 1 : 0;
	if (h->heat[slot]) {
		h->heat[slot]--;
		return NOVA_NO_SLOT;
	}
	h->slots[slot].generation++;
	h->slots[slot].users = 0;
	return slot;
}

uint32_t nova_history_rewrite(struct nova_history *h, uint64_t page, uint32_t slot)
{
	uint32_t fresh;

	if (slot != NOVA_NO_SLOT) {
		nova_history_same(h, slot); /* hot, so obtain() cannot take it from under us */
		if (h->slots[slot].users == 1)
			return slot;
	} else if (h->n_slots && h->pressure < h->n_slots && was_here(h, page)) {
		h->pressure++;
	}
	fresh = obtain(h);
	if (fresh != NOVA_NO_SLOT)
		map_page(h, page, fresh);
	return fresh;
}

void nova_history_share(struct nova_history *h, uint64_t page, uint32_t other)
{
	heat_up(h, other);
	map_page(h, page, other);
}

void nova_history_index(struct nova_history *h, uint32_t slot, uint64_t hash)
{
	h->hashes[slot] = hash;
	if (hash)
		*index_of(h, hash) = slot + 1;
}
