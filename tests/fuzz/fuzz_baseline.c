/* SPDX-License-Identifier: Apache-2.0
 *
 * fuzz_baseline.c - the index of a baseline, from a damaged disk or a hostile peer: a head, then entries in pieces of any
 * size. What is accepted must be written back the same, and what was added must be found, or be hidden by its like.
 */
#include <stdlib.h>
#include <string.h>

#include "engine/baseline.h"

#define SLOTS_MAX 4096u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_head(const uint8_t *data, size_t size)
{
	uint8_t written[NOVA_BASE_HEAD_BYTES];
	struct nova_base_head head, again;
	struct nova_error err;

	memset(&head, 0, sizeof(head));
	memset(&again, 0, sizeof(again));
	if (nova_base_head_read(&head, data, size, &err) < 0)
		return;
	nova_base_head_write(&head, written);
	if (nova_base_head_read(&again, written, sizeof(written), &err) < 0 || memcmp(&head, &again, sizeof(head)) != 0)
		abort();
}

static void check_found(const struct nova_base_index *index)
{
	for (uint32_t slot = 0; slot < nova_base_index_slots(index); slot++) {
		const struct nova_base_entry *entry = nova_base_index_at(index, slot);
		uint32_t page = nova_base_index_find_page(index, entry->page);
		uint32_t hash = nova_base_index_find_hash(index, entry->hash);

		if (page != NOVA_BASE_NONE && nova_base_index_at(index, page)->page != entry->page)
			abort();
		if (hash != NOVA_BASE_NONE && memcmp(nova_base_index_at(index, hash)->hash, entry->hash, sizeof(entry->hash)))
			abort();
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const uint8_t nothing[32];
	struct nova_cursor c = nova_cursor_of(data, size);
	struct nova_base_index *index;
	struct nova_error err;

	check_head(data, size);
	index = nova_base_index_new(nova_get_u16(&c) % SLOTS_MAX, &err);
	while (index && nova_cursor_left(&c) > 1) {
		size_t length = nova_get_u8(&c);

		if (length > nova_cursor_left(&c))
			length = nova_cursor_left(&c);
		if (nova_base_index_add(index, nova_get_bytes(&c, length), length, &err) < 0)
			break;
	}
	if (index) {
		check_found(index);
		nova_base_index_check(index, nothing, &err);
	}
	nova_base_index_free(index);
	return 0;
}
