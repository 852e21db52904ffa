/* SPDX-License-Identifier: Apache-2.0
 *
 * fuzz_stream.c - the scanner of QEMU's stream alone: spans lie in what it was given, records have the sizes
 * they claim, and it always gets on.
 */
#include <stdlib.h>
#include <string.h>

#include "qmp/stream.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const struct nova_span *span, size_t length)
{
	if (span->total_bytes == 0 || span->total_bytes > length || span->header_bytes > span->total_bytes)
		abort();
	if (span->kind == NOVA_SPAN_PAGE && span->total_bytes != span->header_bytes + NOVA_PAGE_BYTES)
		abort();
	if (span->kind == NOVA_SPAN_FILL && span->total_bytes != span->header_bytes + 1)
		abort();
	if (span->kind != NOVA_SPAN_BYTES && span->page % NOVA_PAGE_BYTES)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	void *scanner = qmp_stream_scanner.new();
	size_t window = size ? 1 + data[0] * 64u : 1;

	for (size_t at = 0; at < size;) {
		struct nova_span span = { 0 };
		size_t length = size - at < window ? size - at : window;
		uint8_t *copy = malloc(length); /* exactly: the sanitizer sees a read beyond */
		int rc;

		memcpy(copy, data + at, length);
		rc = qmp_stream_scanner.next(scanner, copy, length, &span);
		free(copy);
		if (rc) {
			check(&span, length);
			at += span.total_bytes;
			window = 1 + data[at % size] * 64u;
		} else if (length >= NOVA_SCAN_MAX) {
			abort();
		} else if (length == size - at) {
			break;
		} else {
			window *= 2;
		}
	}
	qmp_stream_scanner.free(scanner);
	return 0;
}
