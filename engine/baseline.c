/* SPDX-License-Identifier: Apache-2.0
 *
 * baseline.c - pages of an earlier visit, as the codec asks for them.
 *
 * The encoder knows the hash of each page that the other side offered. A page whose hash is among them is there. For a
 * page that changed, the old content is read from our own files, if its hash is the offered one: then both hold
 * the same old bytes, and the change can be sent. The decoder reads its files and believes nothing but the hash.
 *
 * Reading: 32 KiB at a time, from the page cache or, with POSIX_FADV_WILLNEED 1 MiB ahead, from a disk that is asked
 * early; a disk that is slower makes the loop wait for one such read (nothing is mapped: a file that is
 * cut short is an error, not a signal). One hash a page on each side: 3 us with SHA instructions, 10 us without.
 */
#include "baseline.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define WINDOW 8u            /* pages of one read */
#define AHEAD (1u << 20)     /* bytes that are asked for before they are needed */

struct nova_baseline {
	struct nova_base_index *offered; /* owned */
	struct nova_base_index *own;     /* owned, or the same as offered */
	struct nova_base_hasher *hasher; /* owned */
	int pages_fd;                    /* owned; -1: none */
	uint32_t first, held;            /* slots in the window */
	uint8_t proved;                  /* bits: of these the hash was found right */
	uint32_t asked;                  /* slots before this one were asked for */
	bool damaged;
	uint8_t window[WINDOW * NOVA_PAGE_BYTES];
};

static_assert(WINDOW <= 8, "a bit of `proved` for each page");

struct nova_baseline *nova_baseline_new(struct nova_base_index *offered, struct nova_base_index *own, int pages_fd,
    struct nova_error *err)
{
	struct nova_baseline *baseline = calloc(1, sizeof(*baseline));

	if (!baseline) {
		nova_base_index_free(offered);
		nova_base_index_free(own);
		if (pages_fd >= 0)
			close(pages_fd);
		nova_error_sys(err, ENOMEM, "a baseline");
		return NULL;
	}
	baseline->offered = offered;
	baseline->own = own ? own : offered;
	baseline->pages_fd = pages_fd;
	baseline->hasher = nova_base_hasher_new(err);
	return baseline->hasher ? baseline : nova_baseline_free(baseline);
}

struct nova_baseline *nova_baseline_free(struct nova_baseline *baseline)
{
	if (!baseline)
		return NULL;
	if (baseline->own != baseline->offered)
		nova_base_index_free(baseline->own);
	nova_base_index_free(baseline->offered);
	nova_base_hasher_free(baseline->hasher);
	if (baseline->pages_fd >= 0)
		close(baseline->pages_fd);
	free(baseline);
	return NULL;
}

const struct nova_base_index *nova_baseline_offered(const struct nova_baseline *baseline)
{
	return baseline->offered;
}

bool nova_baseline_damaged(const struct nova_baseline *baseline)
{
	return baseline && baseline->damaged;
}

/* ---- our own pages ------------------------------------------------------------------------------ */

static void ask_ahead(struct nova_baseline *b, uint32_t slot)
{
	if (slot >= b->asked || slot + AHEAD / NOVA_PAGE_BYTES < b->asked) {
		posix_fadvise(b->pages_fd, (off_t)slot * NOVA_PAGE_BYTES, 2 * AHEAD, POSIX_FADV_WILLNEED);
		b->asked = slot + AHEAD / NOVA_PAGE_BYTES;
	}
}

/* Bring the slot into the window; what the file no longer holds is not in it. */
static bool fill_window(struct nova_baseline *b, uint32_t slot)
{
	ssize_t n;

	if (slot >= b->first && slot - b->first < b->held)
		return true;
	b->held = 0;
	b->proved = 0;
	if (b->pages_fd < 0)
		return false;
	ask_ahead(b, slot);
	do
		n = pread(b->pages_fd, b->window, sizeof(b->window), (off_t)slot * NOVA_PAGE_BYTES);
	while (n < 0 && errno == EINTR);
	b->first = slot;
	b->held = n > 0 ? (uint32_t)((size_t)n / NOVA_PAGE_BYTES) : 0;
	return b->held > 0;
}

/* Content of one of our own slots, as its hash says; NULL: it is not there. */
static const uint8_t *own_content(struct nova_baseline *b, uint32_t slot)
{
	const struct nova_base_entry *entry = nova_base_index_at(b->own, slot);
	uint8_t hash[NOVA_BASE_HASH_BYTES];
	const uint8_t *content;

	if (!entry || !fill_window(b, slot))
		return NULL;
	content = b->window + (size_t)(slot - b->first) * NOVA_PAGE_BYTES;
	if (b->proved & 1u << (slot - b->first))
		return content;
	nova_base_hash(b->hasher, content, hash);
	if (memcmp(hash, entry->hash, sizeof(hash)))
		return NULL;
	b->proved |= (uint8_t)(1u << (slot - b->first));
	return content;
}

const uint8_t *nova_baseline_content(struct nova_baseline *b, uint32_t slot, struct nova_error *err)
{
	const uint8_t *content;

	if (!nova_base_index_at(b->offered, slot)) {
		nova_error_set(err, NOVA_INVALID, "slot %u of a baseline that has %u", slot, nova_base_index_slots(b->offered));
		return NULL;
	}
	content = own_content(b, slot);
	if (content)
		return content;
	b->damaged = true;
	nova_error_set(err, NOVA_REFUSED, "the baseline kept here is damaged (slot %u)", slot);
	return NULL;
}

/* ---- what the other side holds ------------------------------------------------------------------ */

/* Our own copy of what an offered slot holds. */
static const uint8_t *counterpart(struct nova_baseline *b, uint32_t slot)
{
	if (b->own != b->offered)
		slot = nova_base_index_find_hash(b->own, nova_base_index_at(b->offered, slot)->hash);
	return slot == NOVA_BASE_NONE ? NULL : own_content(b, slot);
}

enum nova_base_match nova_baseline_look(struct nova_baseline *b, uint64_t page, const uint8_t *content, uint32_t *slot,
    const uint8_t **old)
{
	uint32_t by_page = nova_base_index_find_page(b->offered, page), by_hash;
	uint8_t hash[NOVA_BASE_HASH_BYTES];

	nova_base_hash(b->hasher, content, hash);
	if (by_page != NOVA_BASE_NONE && !memcmp(nova_base_index_at(b->offered, by_page)->hash, hash, sizeof(hash))) {
		*slot = by_page;
		return NOVA_BASE_SAME;
	}
	by_hash = nova_base_index_find_hash(b->offered, hash);
	if (by_hash != NOVA_BASE_NONE) {
		*slot = by_hash;
		return NOVA_BASE_SAME;
	}
	*old = by_page == NOVA_BASE_NONE ? NULL : counterpart(b, by_page);
	*slot = by_page;
	return *old ? NOVA_BASE_OLD : NOVA_BASE_UNKNOWN;
}
