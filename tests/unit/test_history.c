/* SPDX-License-Identifier: Apache-2.0
 *
 * test_history.c - two page histories in step: what one finds in a slot, the other finds there, too; the
 * budget holds; hot pages stay. And the delta between two pages.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "engine/delta.h"
#include "engine/history.h"

static uint64_t seed = 0x243f6a8885a308d3ull;

static uint64_t rnd(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	return seed ^= seed << 17;
}

static void fill(uint8_t *page, uint64_t x)
{
	for (size_t i = 0; i < NOVA_PAGE_BYTES;
	     i += 8, x = x * 6364136223846793005ull + 1442695040888963407ull)
		memcpy(page + i, &x, 8);
}

static struct nova_history *make(size_t budget, bool by_content)
{
	struct nova_error err;
	struct nova_history *h = nova_history_new(budget, by_content, &err);

	assert_non_null(h);
	return h;
}

/* Store a page as new content; returns the slot. */
static uint32_t store(struct nova_history *h, uint64_t page, const uint8_t *content)
{
	uint32_t slot = nova_history_rewrite(h, page, nova_history_find(h, page));

	if (slot != NOVA_NO_SLOT)
		memcpy(nova_history_content(h, slot), content, NOVA_PAGE_BYTES);
	return slot;
}

static void test_found_again(void **state)
{
	struct nova_history *h = make(1 << 20, true);
	uint8_t page[NOVA_PAGE_BYTES], other[NOVA_PAGE_BYTES];
	uint64_t hash;
	uint32_t slot;

	fill(page, 1);
	fill(other, 2);
	assert_int_equal(nova_history_find(h, 0x5000), NOVA_NO_SLOT);
	assert_null(nova_history_content(h, 0));
	slot = store(h, 0x5000, page);
	hash = nova_history_hash(page);
	nova_history_index(h, slot, hash);
	assert_int_equal(nova_history_find(h, 0x5000), slot);
	assert_int_equal(nova_history_find(h, 1ull << 48 | 0x5000), NOVA_NO_SLOT); /* another block */
	assert_memory_equal(nova_history_content(h, slot), page, NOVA_PAGE_BYTES);
	assert_int_equal(nova_history_find_content(h, hash, page), slot);
	assert_int_equal(nova_history_find_content(h, hash, other), NOVA_NO_SLOT); /* the hash is no proof */
	nova_history_index(h, slot, 0);
	assert_int_equal(nova_history_find_content(h, hash, page), NOVA_NO_SLOT);
	nova_history_free(h);
}

/* A slot with several users is not written over. */
static void test_shared_content(void **state)
{
	struct nova_history *h = make(1 << 20, true);
	uint8_t page[NOVA_PAGE_BYTES], other[NOVA_PAGE_BYTES];
	uint32_t a, b;

	fill(page, 1);
	fill(other, 2);
	a = store(h, 0x1000, page);
	nova_history_share(h, 0x2000, a);
	assert_int_equal(nova_history_find(h, 0x2000), a);
	b = store(h, 0x2000, other);
	assert_int_not_equal(a, b);
	assert_memory_equal(nova_history_content(h, nova_history_find(h, 0x1000)), page, NOVA_PAGE_BYTES);
	assert_memory_equal(nova_history_content(h, nova_history_find(h, 0x2000)), other, NOVA_PAGE_BYTES);
	assert_int_equal(store(h, 0x1000, other), a); /* its only user again */
	nova_history_free(h);
}

/* The same calls leave the same state, through any number of evictions; what is found is right. */
static void test_in_step(void **state)
{
	struct nova_history *h[2] = { make(512 << 10, true), make(512 << 10, false) };
	uint8_t page[NOVA_PAGE_BYTES];
	size_t kept = 0, same = 0, shared = 0;

	for (int i = 0; i < 60000; i++) {
		uint64_t key = (rnd() % 300 + (rnd() % 4 ? 0 : 300)) * NOVA_PAGE_BYTES;
		uint64_t version = rnd() % 400;
		uint32_t slot = nova_history_find(h[0], key), other;
		uint64_t hash;

		assert_int_equal(slot, nova_history_find(h[1], key));
		fill(page, version);
		hash = nova_history_hash(page);
		if (slot != NOVA_NO_SLOT) {
			assert_memory_equal(nova_history_content(h[0], slot),
			    nova_history_content(h[1], slot), NOVA_PAGE_BYTES);
			if (memcmp(nova_history_content(h[0], slot), page, NOVA_PAGE_BYTES) == 0) {
				nova_history_same(h[0], slot);
				nova_history_same(h[1], slot);
				same++;
				continue;
			}
		}
		other = nova_history_find_content(h[0], hash, page);
		if (other != NOVA_NO_SLOT && rnd() % 2) {
			assert_memory_equal(nova_history_content(h[1], other), page, NOVA_PAGE_BYTES);
			nova_history_share(h[0], key, other);
			nova_history_share(h[1], key, other);
			shared++;
			continue;
		}
		slot = store(h[0], key, page);
		assert_int_equal(store(h[1], key, page), slot);
		if (slot != NOVA_NO_SLOT)
			nova_history_index(h[0], slot, hash);
		kept += slot != NOVA_NO_SLOT;
	}
	assert_true(kept > 1000 && same > 50 && shared > 1000);
	nova_history_free(h[0]);
	nova_history_free(h[1]);
}

static size_t held_of(const struct nova_history *h, uint64_t pages)
{
	size_t held = 0;

	for (uint64_t i = 0; i < pages; i++)
		held += nova_history_find(h, i * NOVA_PAGE_BYTES) != NOVA_NO_SLOT;
	return held;
}

static void test_hot_pages_stay(void **state)
{
	struct nova_history *h = make(4 << 20, false);
	uint8_t page[NOVA_PAGE_BYTES];
	size_t slots;

	fill(page, 1);
	for (uint64_t i = 0; i < 2000; i++)
		store(h, i * NOVA_PAGE_BYTES, page);
	slots = held_of(h, 2000);
	assert_true(slots > 950 && slots <= 1024); /* 4 MiB of pages, less the bookkeeping */
	for (int round = 0; round < 3; round++)
		for (uint64_t i = 1900; i < 2000; i++)
			store(h, i * NOVA_PAGE_BYTES, page);
	for (uint64_t i = 2000; i < 4500; i++)
		store(h, i * NOVA_PAGE_BYTES, page);
	assert_true(held_of(h, 2000) >= 99); /* only the hundred that came again */
	assert_int_equal(held_of(h, 1900), 0);
	nova_history_free(h);
}

/* A working set of twice the budget, again and again in the same order: a part of it must be found. */
static void test_cyclic_set(void **state)
{
	struct nova_history *h = make(4 << 20, false);
	uint8_t page[NOVA_PAGE_BYTES];
	size_t found = 0;

	fill(page, 1);
	for (int round = 0; round < 8; round++)
		for (uint64_t i = 0; i < 2000; i++) {
			found += nova_history_find(h, i * NOVA_PAGE_BYTES) != NOVA_NO_SLOT;
			store(h, i * NOVA_PAGE_BYTES, page);
		}
	assert_true(found > 7 * 600);
	nova_history_free(h);
}

static void test_budgets(void **state)
{
	struct nova_history *h = make(1000, true);
	uint8_t page[NOVA_PAGE_BYTES] = { 0 };

	assert_int_equal(store(h, 0, page), NOVA_NO_SLOT);
	assert_int_equal(nova_history_find(h, 0), NOVA_NO_SLOT);
	assert_int_equal(nova_history_find_content(h, 1, page), NOVA_NO_SLOT);
	assert_null(nova_history_free(h));
	h = make(64 << 10, true);
	for (uint64_t i = 0; i < 100; i++)
		store(h, i << 12, page);
	assert_in_range(held_of(h, 100), 1, 16);
	nova_history_free(h);
	h = make(8ull << 30, true); /* memory is taken as it fills */
	assert_int_not_equal(store(h, 0, page), NOVA_NO_SLOT);
	nova_history_free(h);
	assert_null(nova_history_free(NULL));
}

/* ---- delta -------------------------------------------------------------------------------------- */

static void test_delta_places(void **state)
{
	static const uint16_t places[] = { 0, 1, 63, 64, 65, 127, 2048, 4095 };
	struct nova_range ranges[NOVA_DELTA_RANGES_MAX];
	uint8_t old[NOVA_PAGE_BYTES], new[NOVA_PAGE_BYTES];

	fill(old, 7);
	memcpy(new, old, sizeof(new));
	assert_int_equal(nova_delta_find(old, new, ranges), 0);
	for (size_t i = 0; i < sizeof(places) / sizeof(*places); i++) {
		new[places[i]] ^= 0x80;
		assert_int_equal(nova_delta_find(old, new, ranges), 1);
		assert_int_equal(ranges[0].at, places[i]);
		assert_int_equal(ranges[0].length, 1);
		new[places[i]] ^= 0x80;
	}
	memset(new + 60, 0, 200); /* across strides: one range */
	memset(old + 60, 1, 200);
	assert_int_equal(nova_delta_find(old, new, ranges), 1);
	assert_int_equal(ranges[0].at, 60);
	assert_int_equal(ranges[0].length, 200);
}

static void test_delta_limits(void **state)
{
	struct nova_range ranges[NOVA_DELTA_RANGES_MAX];
	uint8_t old[NOVA_PAGE_BYTES] = { 0 }, new[NOVA_PAGE_BYTES] = { 0 };

	memset(new, 1, NOVA_DELTA_BYTES_MAX);
	assert_int_equal(nova_delta_find(old, new, ranges), 1);
	new[NOVA_DELTA_BYTES_MAX] = 1;
	assert_int_equal(nova_delta_find(old, new, ranges), -1);
	memset(new, 0, sizeof(new));
	for (size_t i = 0; i < NOVA_DELTA_RANGES_MAX; i++)
		new[i * 8] = 1;
	assert_int_equal(nova_delta_find(old, new, ranges), NOVA_DELTA_RANGES_MAX);
	new[NOVA_DELTA_RANGES_MAX * 8] = 1;
	assert_int_equal(nova_delta_find(old, new, ranges), -1);
	memset(new, 0, sizeof(new));
	new[10] = new[14] = 1; /* three equal bytes between: one range; four: two */
	assert_int_equal(nova_delta_find(old, new, ranges), 1);
	new[19] = 1;
	assert_int_equal(nova_delta_find(old, new, ranges), 2);
}

/* The ranges cover every byte that differs and rebuild the page. */
static void test_delta_rebuilds(void **state)
{
	struct nova_range ranges[NOVA_DELTA_RANGES_MAX];
	uint8_t old[NOVA_PAGE_BYTES], new[NOVA_PAGE_BYTES];

	for (int round = 0; round < 3000; round++) {
		int count;

		fill(old, (uint64_t)round);
		memcpy(new, old, sizeof(new));
		for (int k = (int)(rnd() % 60); k > 0; k--) {
			size_t at = rnd() % NOVA_PAGE_BYTES, n = 1 + rnd() % (rnd() % 8 ? 16 : 300);

			for (; n && at < NOVA_PAGE_BYTES; n--, at++)
				new[at] ^= (uint8_t)rnd();
		}
		count = nova_delta_find(old, new, ranges);
		for (int i = 0; i < count; i++)
			memcpy(old + ranges[i].at, new + ranges[i].at, ranges[i].length);
		if (count >= 0)
			assert_memory_equal(old, new, NOVA_PAGE_BYTES);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_found_again),
		cmocka_unit_test(test_shared_content),
		cmocka_unit_test(test_in_step),
		cmocka_unit_test(test_hot_pages_stay),
		cmocka_unit_test(test_cyclic_set),
		cmocka_unit_test(test_budgets),
		cmocka_unit_test(test_delta_places),
		cmocka_unit_test(test_delta_limits),
		cmocka_unit_test(test_delta_rebuilds),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
