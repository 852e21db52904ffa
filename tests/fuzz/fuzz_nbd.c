/* SPDX-License-Identifier: Apache-2.0
 *
 * fuzz_nbd.c - what a hypervisor or the other side's end of a disk may say: handshakes, requests, replies, records.
 *
 * The first byte chooses the parser, the rest is what it reads, in two parts. What must hold: memory is safe, and
 * nothing that was read reaches beyond its limits.
 */
#include <event2/buffer.h>
#include <stdlib.h>

#include "engine/disk_record.h"
#include "engine/nbd.h"

#define EXPORT_BYTES (1ull << 30)

static int server(struct evbuffer *in, struct evbuffer *out, void *state)
{
	struct nova_error err;

	return nova_nbd_server_step(state, in, out, &err);
}

static int client(struct evbuffer *in, struct evbuffer *out, void *state)
{
	struct nova_nbd_client *client = state;
	struct nova_error err;

	client->name = "disk0";
	return nova_nbd_client_step(client, in, out, &err);
}

static int requests(struct evbuffer *in, struct evbuffer *out, void *state)
{
	struct nova_nbd_request request;
	struct nova_error err;
	int result;

	while ((result = nova_nbd_request_get(in, EXPORT_BYTES, &request, &err)) > 0) {
		if (nova_nbd_payload(&request) > NOVA_NBD_DATA_MAX ||
		    (nova_nbd_payload(&request) && request.offset + request.length > EXPORT_BYTES))
			abort();
		nova_nbd_request_put(out, &request);
	}
	return result;
}

static int replies(struct evbuffer *in, struct evbuffer *out, void *state)
{
	struct nova_nbd_reply reply;
	struct nova_error err;
	int result;

	do
		result = nova_nbd_reply_get(in, &reply, &err);
	while (result > 0);
	return result;
}

static int records(struct evbuffer *in, struct evbuffer *out, void *state)
{
	struct disk_record record;
	struct disk_info info;
	struct nova_error err;
	uint32_t first, count;
	int result;

	while ((result = disk_record_get(in, &record, &err)) > 0) {
		size_t before = evbuffer_get_length(in);

		if (record.length > DISK_RECORD_MAX || record.length > before)
			abort();
		if (record.type == DISK_INFO && disk_info_get(in, record.length, &info, &err) == 0 &&
		    (info.size_bytes > INT64_MAX || info.seed_blocks > NOVA_DISK_BLOCKS_MAX))
			abort();
		if (record.type == DISK_SAME && disk_same_get(in, record.length, 100, &first, &count, &err) == 0 &&
		    (!count || first >= 100 || count > 100 - first))
			abort();
		evbuffer_drain(in, record.length - (before - evbuffer_get_length(in)));
	}
	return result;
}

static int (*const parsers[])(struct evbuffer *in, struct evbuffer *out, void *state) = { server, client, requests,
	replies, records };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct evbuffer *in = evbuffer_new(), *out = evbuffer_new();
	uint64_t state[16] = { 0 };
	unsigned parser;

	if (size > 2) {
		parser = data[0] % (sizeof(parsers) / sizeof(*parsers));
		evbuffer_add(in, data + 2, (size - 2) * data[1] / 255);
		if (parsers[parser](in, out, state) == 0) {
			evbuffer_add(in, data + 2 + (size - 2) * data[1] / 255, size - 2 - (size - 2) * data[1] / 255);
			parsers[parser](in, out, state);
		}
	}
	evbuffer_free(in);
	evbuffer_free(out);
	return 0;
}
