/* SPDX-License-Identifier: Apache-2.0
 *
 * fuzz_nowhere.c - a QEMU that recovers a postcopy towards nobody, in two parts, or (first byte odd) its list of memory blocks.
 * What must hold beyond memory: what is answered is no more than the bitmaps of the blocks that were asked for.
 */
#include <event2/buffer.h>

#include "drivers/kvm/nowhere.h"
#include "scratch.h"

static void list(const uint8_t *data, size_t size)
{
	char *text = strndup((const char *)data, size);
	json_t *blocks = kvm_nowhere_blocks(text);

	require(json_is_object(blocks), "blocks are an object");
	json_decref(blocks);
	free(text);
}

static void talk(const uint8_t *data, size_t size)
{
	struct evbuffer *in = evbuffer_new(), *out = evbuffer_new();
	json_t *blocks = json_pack("{s:i, s:i}", "pc.ram", 1 << 20, "b", 4096);
	size_t first = (size - 1) * data[0] / 255;

	evbuffer_add(in, data + 1, first);
	if (kvm_nowhere_talk(blocks, in, out) == 0) {
		evbuffer_add(in, data + 1 + first, size - 1 - first);
		kvm_nowhere_talk(blocks, in, out);
	}
	require(evbuffer_get_length(out) <= 16 + size * 64, "the answer is bounded by the questions");
	json_decref(blocks);
	evbuffer_free(in);
	evbuffer_free(out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size > 1 && data[0] & 1)
		list(data + 1, size - 1);
	else if (size > 1)
		talk(data + 1, size - 1);
	return 0;
}
