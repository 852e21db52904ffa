/* SPDX-License-Identifier: Apache-2.0
 *
 * nbd.c - handshakes and headers of the Network Block Device protocol. See nbd.h.
 */
#include "nbd.h"

#include <endian.h>
#include <event2/buffer.h>
#include <string.h>

#define MAGIC_HELLO 0x4e42444d41474943ull  /* "NBDMAGIC" */
#define MAGIC_OPTION 0x49484156454f5054ull /* "IHAVEOPT" */
#define MAGIC_OPTION_REPLY 0x0003e889045565a9ull
#define MAGIC_REQUEST 0x25609513u
#define MAGIC_REPLY 0x67446698u

#define FLAG_FIXED_NEWSTYLE 1u
#define FLAG_NO_ZEROES 2u

#define OPTION_EXPORT_NAME 1u
#define OPTION_ABORT 2u
#define OPTION_GO 7u

#define REPLY_ACK 1u
#define REPLY_INFO 3u
#define REPLY_ERROR (1u << 31)
#define REPLY_ERROR_UNSUPPORTED (REPLY_ERROR + 1)

#define INFO_EXPORT 0u
#define INFO_BLOCK_SIZE 3u

#define OPTION_BYTES_MAX 8192u

/* Two steps of the handshake: the first words, then options until one of them begins the transmission. */
enum {
	STATE_NEW,
	STATE_GREETING,
	STATE_OPTIONS,
	STATE_DONE
};

/* ---- numbers ---- */

static uint64_t get(const uint8_t *at, int bytes)
{
	uint64_t value = 0;

	while (bytes--)
		value = value << 8 | *at++;
	return value;
}

static void put(struct evbuffer *out, uint64_t value, int bytes)
{
	uint64_t big = htobe64(value);

	evbuffer_add(out, (const uint8_t *)&big + 8 - bytes, (size_t)bytes);
}

/* The first bytes, left in the buffer; false: not all are there yet. */
static bool peek(struct evbuffer *in, uint8_t *bytes, size_t length)
{
	return evbuffer_get_length(in) >= length && evbuffer_copyout(in, bytes, length) == (ev_ssize_t)length;
}

static int breach(struct nova_error *err, const char *what)
{
	return nova_error_set(err, NOVA_REFUSED, "NBD: %s", what);
}

/* ---- the server's handshake ---- */

static void put_option_reply(struct evbuffer *out, uint32_t option, uint32_t type, uint32_t length)
{
	put(out, MAGIC_OPTION_REPLY, 8);
	put(out, option, 4);
	put(out, type, 4);
	put(out, length, 4);
}

static void put_export(struct evbuffer *out, const struct nova_nbd_export *export)
{
	put_option_reply(out, OPTION_GO, REPLY_INFO, 12);
	put(out, INFO_EXPORT, 2);
	put(out, export->size_bytes, 8);
	put(out, export->flags, 2);
	if (export->block_min) {
		put_option_reply(out, OPTION_GO, REPLY_INFO, 14);
		put(out, INFO_BLOCK_SIZE, 2);
		put(out, export->block_min, 4);
		put(out, export->block_preferred, 4);
		put(out, export->block_max, 4);
	}
	put_option_reply(out, OPTION_GO, REPLY_ACK, 0);
}

static void put_old_export(struct evbuffer *out, const struct nova_nbd_server *server)
{
	static const uint8_t zeroes[124];

	put(out, server->export.size_bytes, 8);
	put(out, server->export.flags, 2);
	if (!server->no_zeroes)
		evbuffer_add(out, zeroes, sizeof(zeroes));
}

static int serve_option(
    struct nova_nbd_server *server, uint32_t option, struct evbuffer *out, struct nova_error *err)
{
	switch (option) {
	case OPTION_GO:
		put_export(out, &server->export);
		return 1;
	case OPTION_EXPORT_NAME:
		put_old_export(out, server);
		return 1;
	case OPTION_ABORT:
		put_option_reply(out, option, REPLY_ACK, 0);
		return breach(err, "the client went away during the handshake");
	default:
		put_option_reply(out, option, REPLY_ERROR_UNSUPPORTED, 0);
		return 0;
	}
}

static int server_greeted(struct nova_nbd_server *server, struct evbuffer *in, struct nova_error *err)
{
	uint8_t bytes[4];

	if (!peek(in, bytes, sizeof(bytes)))
		return 0;
	evbuffer_drain(in, sizeof(bytes));
	if (!(get(bytes, 4) & FLAG_FIXED_NEWSTYLE))
		return breach(err, "the client does not speak the fixed newstyle handshake");
	server->no_zeroes = get(bytes, 4) & FLAG_NO_ZEROES;
	server->state = STATE_OPTIONS;
	return 1;
}

/* 1: the transmission begins, 0: more must come, 2: go on. */
static int server_option(
    struct nova_nbd_server *server, struct evbuffer *in, struct evbuffer *out, struct nova_error *err)
{
	uint8_t bytes[16];
	uint32_t length;
	int result;

	if (!peek(in, bytes, sizeof(bytes)))
		return 0;
	length = (uint32_t)get(bytes + 12, 4);
	if (get(bytes, 8) != MAGIC_OPTION)
		return breach(err, "the client's option has no magic number");
	if (length > OPTION_BYTES_MAX)
		return breach(err, "the client's option is too long");
	if (evbuffer_get_length(in) < sizeof(bytes) + length)
		return 0;
	evbuffer_drain(in, sizeof(bytes) + length);
	result = serve_option(server, (uint32_t)get(bytes + 8, 4), out, err);
	return result == 0 ? 2 : result;
}

int nova_nbd_server_step(
    struct nova_nbd_server *server, struct evbuffer *in, struct evbuffer *out, struct nova_error *err)
{
	int result;

	if (server->state == STATE_NEW) {
		put(out, MAGIC_HELLO, 8);
		put(out, MAGIC_OPTION, 8);
		put(out, FLAG_FIXED_NEWSTYLE | FLAG_NO_ZEROES, 2);
		server->state = STATE_GREETING;
	}
	if (server->state == STATE_GREETING) {
		result = server_greeted(server, in, err);
		if (result != 1)
			return result;
	}
	do {
		result = server_option(server, in, out, err);
	} while (result == 2);
	if (result == 1)
		server->state = STATE_DONE;
	return result;
}

/* ---- the client's handshake ---- */

static int client_greeted(
    struct nova_nbd_client *client, struct evbuffer *in, struct evbuffer *out, struct nova_error *err)
{
	uint8_t bytes[18];
	size_t name = strlen(client->name);

	if (!peek(in, bytes, sizeof(bytes)))
		return 0;
	evbuffer_drain(in, sizeof(bytes));
	if (get(bytes, 8) != MAGIC_HELLO || get(bytes + 8, 8) != MAGIC_OPTION ||
	    !(get(bytes + 16, 2) & FLAG_FIXED_NEWSTYLE))
		return breach(err, "the server does not speak the fixed newstyle handshake");
	put(out, FLAG_FIXED_NEWSTYLE | (get(bytes + 16, 2) & FLAG_NO_ZEROES), 4);
	put(out, MAGIC_OPTION, 8);
	put(out, OPTION_GO, 4);
	put(out, 4 + name + 2 + 2, 4);
	put(out, name, 4);
	evbuffer_add(out, client->name, name);
	put(out, 1, 2);
	put(out, INFO_BLOCK_SIZE, 2);
	client->state = STATE_OPTIONS;
	return 1;
}

static void take_info(struct nova_nbd_client *client, const uint8_t *data, size_t length)
{
	if (length >= 12 && get(data, 2) == INFO_EXPORT) {
		client->export.size_bytes = get(data + 2, 8);
		client->export.flags = (uint16_t)get(data + 10, 2);
	} else if (length >= 14 && get(data, 2) == INFO_BLOCK_SIZE) {
		client->export.block_min = (uint32_t)get(data + 2, 4);
		client->export.block_preferred = (uint32_t)get(data + 6, 4);
		client->export.block_max = (uint32_t)get(data + 10, 4);
	}
}

/* 1: the transmission begins, 0: more must come, 2: go on. */
static int client_reply(struct nova_nbd_client *client, struct evbuffer *in, struct nova_error *err)
{
	uint8_t bytes[20], *data;
	uint32_t type, length;

	if (!peek(in, bytes, sizeof(bytes)))
		return 0;
	type = (uint32_t)get(bytes + 12, 4);
	length = (uint32_t)get(bytes + 16, 4);
	if (get(bytes, 8) != MAGIC_OPTION_REPLY || get(bytes + 8, 4) != OPTION_GO)
		return breach(err, "the server answers what was not asked");
	if (length > OPTION_BYTES_MAX)
		return breach(err, "the server's answer is too long");
	if (evbuffer_get_length(in) < sizeof(bytes) + length)
		return 0;
	data = evbuffer_pullup(in, (ev_ssize_t)(sizeof(bytes) + length));
	if (!data)
		return breach(err, "no memory for the server's answer");
	data += sizeof(bytes);
	if (type & REPLY_ERROR)
		return nova_error_set(err, NOVA_REFUSED, "NBD: the server has no export %s (%.*s)", client->name,
		    (int)(length < 200 ? length : 200), data);
	if (type == REPLY_INFO)
		take_info(client, data, length);
	evbuffer_drain(in, sizeof(bytes) + length);
	return type == REPLY_ACK ? 1 : 2;
}

int nova_nbd_client_step(
    struct nova_nbd_client *client, struct evbuffer *in, struct evbuffer *out, struct nova_error *err)
{
	int result;

	if (client->state == STATE_NEW)
		client->state = STATE_GREETING;
	if (client->state == STATE_GREETING) {
		result = client_greeted(client, in, out, err);
		if (result != 1)
			return result;
	}
	do {
		result = client_reply(client, in, err);
	} while (result == 2);
	if (result == 1 && client->export.size_bytes > INT64_MAX)
		return breach(err, "the server's export is too large");
	if (result == 1)
		client->state = STATE_DONE;
	return result;
}

/* ---- transmission ---- */

int nova_nbd_request_get(
    struct evbuffer *in, uint64_t size_bytes, struct nova_nbd_request *request, struct nova_error *err)
{
	uint8_t bytes[NOVA_NBD_REQUEST_BYTES];
	struct nova_nbd_request seen;

	if (!peek(in, bytes, sizeof(bytes)))
		return 0;
	if (get(bytes, 4) != MAGIC_REQUEST)
		return breach(err, "a request has no magic number");
	seen.flags = (uint16_t)get(bytes + 4, 2);
	seen.type = (uint16_t)get(bytes + 6, 2);
	seen.cookie = get(bytes + 8, 8);
	seen.offset = get(bytes + 16, 8);
	seen.length = (uint32_t)get(bytes + 24, 4);
	if (nova_nbd_payload(&seen) > NOVA_NBD_DATA_MAX)
		return breach(err, "a request carries too much");
	if (seen.type != NOVA_NBD_DISCONNECT && seen.type != NOVA_NBD_FLUSH &&
	    (seen.offset > size_bytes || seen.length > size_bytes - seen.offset))
		return breach(err, "a request reaches beyond the end of the disk");
	evbuffer_drain(in, sizeof(bytes));
	*request = seen;
	return 1;
}

void nova_nbd_request_put(struct evbuffer *out, const struct nova_nbd_request *request)
{
	put(out, MAGIC_REQUEST, 4);
	put(out, request->flags, 2);
	put(out, request->type, 2);
	put(out, request->cookie, 8);
	put(out, request->offset, 8);
	put(out, request->length, 4);
}

int nova_nbd_reply_get(struct evbuffer *in, struct nova_nbd_reply *reply, struct nova_error *err)
{
	uint8_t bytes[NOVA_NBD_REPLY_BYTES];

	if (!peek(in, bytes, sizeof(bytes)))
		return 0;
	if (get(bytes, 4) != MAGIC_REPLY)
		return breach(err, "a reply has no magic number");
	reply->error = (uint32_t)get(bytes + 4, 4);
	reply->cookie = get(bytes + 8, 8);
	evbuffer_drain(in, sizeof(bytes));
	return 1;
}
