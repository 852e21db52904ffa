/* SPDX-License-Identifier: Apache-2.0
 *
 * fuzz_decoder.c - a hostile peer's messages, each behind a big-endian u16 of its length.
 */
#include <stdlib.h>
#include <string.h>

#include "engine/codec.h"
#include "engine/cursor.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const struct nova_codec_options options = { .history_bytes = 256 * 1024 };
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
	return 0;
}
