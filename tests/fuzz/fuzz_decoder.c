/* SPDX-License-Identifier: Apache-2.0
 *
 * fuzz_decoder.c - a hostile peer's messages, each behind a big-endian u16 of its length. The decoder holds a baseline of
 * eight pages, the last of which is damaged.
 */
#include <endian.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "engine/baseline.h"
#include "engine/codec.h"
#include "engine/cursor.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct nova_baseline *baseline_new(void)
{
	struct nova_error err;
	struct nova_base_index *index = nova_base_index_new(8, &err);
	struct nova_base_hasher *hasher = nova_base_hasher_new(&err);
	int fd = memfd_create("pages", MFD_CLOEXEC);
	uint8_t page[NOVA_PAGE_BYTES] = { 0 };

	for (uint64_t i = 0; i < 8; i++) {
		struct nova_base_entry entry = { .page = htobe64(i << 12) };

		page[7] = (uint8_t)i;
		nova_base_hash(hasher, page, entry.hash);
		page[8] = i == 7;
		if (nova_base_index_add(index, (const uint8_t *)&entry, sizeof(entry), &err) < 0 ||
		    write(fd, page, sizeof(page)) != sizeof(page))
			abort();
	}
	nova_base_hasher_free(hasher);
	return nova_baseline_new(index, NULL, fd, &err);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct nova_baseline *baseline = baseline_new();
	const struct nova_codec_options options = { .history_bytes = 256 * 1024, .baseline = baseline };
	struct nova_error err;
	struct nova_decoder *decoder = nova_decoder_new(&options, &err);
	struct nova_cursor c = nova_cursor_of(data, size);
	uint64_t total = 0, counted;
	uint8_t digest[16];

	while (nova_cursor_left(&c) >= 2) {
		size_t length = nova_get_u16(&c), raw_length;
		const uint8_t *raw;
		uint8_t *copy;
		int rc;

		if (length > nova_cursor_left(&c))
			length = nova_cursor_left(&c);
		copy = malloc(length + 1);
		memcpy(copy, nova_get_bytes(&c, length), length);
		rc = nova_decoder_feed(decoder, copy, length, &raw, &raw_length, &err);
		free(copy);
		if (rc < 0)
			break;
		if (raw_length == 0 || raw_length > NOVA_BLOCK_RAW_MAX)
			abort();
		total += raw_length;
	}
	nova_decoder_digest(decoder, digest, &counted);
	if (counted != total)
		abort();
	nova_decoder_free(decoder);
	nova_baseline_free(baseline);
	return 0;
}
