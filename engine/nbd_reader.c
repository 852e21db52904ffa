/* SPDX-License-Identifier: Apache-2.0
 *
 * nbd_reader.c - a client of an NBD server on a unix socket that only reads.
 *
 * A server answers in any order; we hand on in the order of the requests, and hold what came early.
 */
#include "nbd_reader.h"
#include "cleanup.h"
#include "socket.h"

#include <errno.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#define READ_MAX (4u << 20)

struct request {
	STAILQ_ENTRY(request) link;
	uint64_t cookie, offset;
	uint32_t length;
	struct evbuffer *data; /* owned; NULL: not answered */
};

struct nova_nbd_reader {
	struct bufferevent *server; /* owned */
	struct nova_nbd_client client;
	char *name; /* owned */
	const struct nova_nbd_reader_events *events;
	void *arg;
	STAILQ_HEAD(, request) requests;
	struct request *receiving; /* its data comes now; NULL: a reply's header does */
	uint64_t next_cookie;
	bool open;
	bool *freed; /* set by free() while a callback of ours runs */
};

static void fail(struct nova_nbd_reader *reader, const struct nova_error *why)
{
	bufferevent_disable(reader->server, EV_READ | EV_WRITE);
	reader->events->failed(reader->arg, why);
}

static void drop_request(struct nova_nbd_reader *reader)
{
	struct request *request = STAILQ_FIRST(&reader->requests);

	STAILQ_REMOVE_HEAD(&reader->requests, link);
	if (request->data)
		evbuffer_free(request->data);
	free(request);
}

static struct request *find(struct nova_nbd_reader *reader, uint64_t cookie)
{
	struct request *request;

	STAILQ_FOREACH (request, &reader->requests, link)
		if (request->cookie == cookie && !request->data)
			return request;
	return NULL;
}

/* 1, 0: more must come, -1. */
static int take_header(struct nova_nbd_reader *reader, struct evbuffer *in, struct nova_error *err)
{
	struct nova_nbd_reply reply;
	int result = nova_nbd_reply_get(in, &reply, err);

	if (result <= 0)
		return result;
	reader->receiving = find(reader, reply.cookie);
	if (!reader->receiving)
		return nova_error_set(err, NOVA_REFUSED, "NBD: an answer to nothing that was asked");
	if (reply.error)
		return nova_error_sys(err, (int)reply.error, "reading %s", reader->name);
	return 1;
}

static int take_data(struct nova_nbd_reader *reader, struct evbuffer *in, struct nova_error *err)
{
	struct request *request = reader->receiving;

	if (evbuffer_get_length(in) < request->length)
		return 0;
	request->data = evbuffer_new();
	if (!request->data || evbuffer_remove_buffer(in, request->data, request->length) != (int)request->length)
		return nova_error_sys(err, ENOMEM, "reading %s", reader->name);
	reader->receiving = NULL;
	return 1;
}

/* Answers that are at the head now. false: the reader was freed. */
static bool hand_on(struct nova_nbd_reader *reader)
{
	struct request *request;
	bool freed = false;

	while ((request = STAILQ_FIRST(&reader->requests)) && request->data) {
		const uint8_t *data = evbuffer_pullup(request->data, -1);

		/* cppcheck-suppress autoVariables ; whoever frees the reader says so there; it is taken back below */
		reader->freed = &freed;
		reader->events->got(reader->arg, request->offset, data, request->length);
		if (freed)
			return false;
		reader->freed = NULL;
		drop_request(reader);
	}
	return true;
}

static void server_read(struct bufferevent *side, void *arg)
{
	struct nova_nbd_reader *reader = arg;
	struct evbuffer *in = bufferevent_get_input(side);
	struct nova_error err;
	bool freed = false;
	int result = 1;

	if (!reader->open) {
		result = nova_nbd_client_step(&reader->client, in, bufferevent_get_output(side), &err);
		if (result > 0) {
			reader->open = true;
			reader->freed = &freed;
			reader->events->opened(reader->arg, &reader->client.export);
			if (freed)
				return;
			reader->freed = NULL;
		}
	}
	while (result > 0)
		result = reader->receiving ? take_data(reader, in, &err) : take_header(reader, in, &err);
	if (!hand_on(reader))
		return;
	if (result < 0)
		fail(reader, &err);
}

static void server_gone(struct bufferevent *side, short what, void *arg)
{
	struct nova_nbd_reader *reader = arg;
	struct nova_error err;

	if (!(what & (BEV_EVENT_EOF | BEV_EVENT_ERROR)))
		return;
	nova_error_set(&err, NOVA_REFUSED, "the NBD server closed the connection to %s", reader->name);
	fail(reader, &err);
}

struct nova_nbd_reader *nova_nbd_reader_new(struct event_base *base, const char *path, const char *name,
    const struct nova_nbd_reader_events *events, void *arg, struct nova_error *err)
{
	struct nova_nbd_reader *reader = calloc(1, sizeof(*reader));
	int fd = reader ? nova_unix_connect(path, err) : nova_error_sys(err, ENOMEM, "reading %s", name);

	if (fd < 0) {
		free(reader);
		return NULL;
	}
	STAILQ_INIT(&reader->requests);
	reader->events = events;
	reader->arg = arg;
	reader->name = strdup(name);
	reader->client.name = reader->name;
	reader->server = bufferevent_socket_new(base, fd, BEV_OPT_CLOSE_ON_FREE | BEV_OPT_DEFER_CALLBACKS);
	if (!reader->server)
		close(fd);
	if (!reader->server || !reader->name) {
		nova_error_sys(err, ENOMEM, "reading %s", name);
		return nova_nbd_reader_free(reader);
	}
	bufferevent_setcb(reader->server, server_read, NULL, server_gone, reader);
	bufferevent_enable(reader->server, EV_READ | EV_WRITE);
	return reader;
}

int nova_nbd_reader_read(struct nova_nbd_reader *reader, uint64_t offset, uint32_t length, struct nova_error *err)
{
	struct request *request = length <= READ_MAX ? calloc(1, sizeof(*request)) : NULL;
	struct nova_nbd_request header = {
		.type = NOVA_NBD_READ, .cookie = reader->next_cookie, .offset = offset, .length = length
	};

	if (!request)
		return nova_error_sys(err, ENOMEM, "reading %u bytes of %s", length, reader->name);
	request->cookie = reader->next_cookie++;
	request->offset = offset;
	request->length = length;
	STAILQ_INSERT_TAIL(&reader->requests, request, link);
	nova_nbd_request_put(bufferevent_get_output(reader->server), &header);
	return 0;
}

struct nova_nbd_reader *nova_nbd_reader_free(struct nova_nbd_reader *reader)
{
	if (!reader)
		return NULL;
	if (reader->freed)
		*reader->freed = true;
	if (reader->server)
		bufferevent_free(reader->server);
	while (!STAILQ_EMPTY(&reader->requests))
		drop_request(reader);
	free(reader->name);
	free(reader);
	return NULL;
}
