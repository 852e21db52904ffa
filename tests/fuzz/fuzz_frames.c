/* SPDX-License-Identifier: Apache-2.0
 *
 * fuzz_frames.c - what an authenticated peer may do to us: any frames, in any order, on a session that is up.
 *
 * The input is a lane's plaintext. Users answer requests, consume every other message, free every fifth
 * channel. What must hold: memory is safe, bounded, all given back; the session ends or goes on.
 */
#include <event2/event.h>
#include <stdlib.h>
#include <string.h>

#include "transport/link.h"

struct user {
	struct nova_session *session;
	unsigned calls;
};

static void on_message(void *arg, const uint8_t *data, size_t length)
{
	struct user *user = arg;
	struct channel *channel = user->session->channels;

	while (channel && channel->in.delivered - channel->in.consumed < length)
		channel = channel->next;
	if (channel && !channel->dead && ++user->calls % 2)
		channel->public.ops->consumed(&channel->public, length);
}

static void on_closed(void *arg, const struct nova_error *err)
{
}

static const struct nova_channel_events channel_events = { on_message, NULL, on_closed };

static void on_channel(void *arg, uint16_t id, enum nova_channel_kind kind, struct nova_channel *channel)
{
	if (id % 5)
		channel_set_events(channel, &channel_events, arg);
}

static void on_request(void *arg, const char *command, json_t *args, struct nova_request *request)
{
	request_answer(request, json_incref(args), NULL);
}

static void on_session_closed(void *arg, const struct nova_error *err)
{
	struct user *user = arg;

	user->session = session_free(user->session);
}

static void on_answer(void *arg, json_t *result, const struct nova_error *err)
{
}

static const struct nova_session_events session_events = { NULL, on_request, on_channel, NULL,
	on_session_closed };

/* Something of ours is on its way, so that acknowledgements and answers mean something. */
static void prepare(struct nova_session *session, struct user *user)
{
	struct nova_channel *channel =
	    channel_open(session, 3, NOVA_CHANNEL_STREAM, &channel_events, user, NULL);

	for (int i = 0; i < 4; i++) {
		struct nova_buf *buf = nova_buf_new(5000);

		memset(buf->data, i, 5000);
		buf->length = 5000;
		channel->ops->send(channel, buf);
		outbox_take(&session->channels->out, 1, 3000);
	}
	request_send(session, "status", NULL, 0, on_answer, NULL, NULL);
	outbox_take(&session->control.out, 1, 65536);
}

static int take_frame(struct nova_session *session, struct lane *lane, const struct frame_header *header,
    const uint8_t *payload, struct nova_error *err)
{
	struct nova_buf *buf = nova_buf_new(header->length + 8);
	struct frame_hello hello;
	int result;

	memcpy(buf->data, payload, header->length);
	if (header->type == FRAME_HELLO || header->type == FRAME_WELCOME) {
		result = frame_get_hello(buf->data, header->length, &hello, err);
		if (result == 0)
			result = session_lane_up(session, lane, &hello, err);
		session->lanes_up = session->lanes_up ? 1 : 0;
	} else {
		result = session_frame(session, lane, header, &buf, err);
	}
	nova_buf_free(buf);
	return result;
}

static void feed(struct nova_session *session, struct lane *lane, const uint8_t *data, size_t size)
{
	struct frame_header header;
	struct nova_error err;
	int result = 0;

	while (result == 0 && size >= FRAME_HEADER_BYTES && session->state == SESSION_UP) {
		if (frame_get_header(data, &header, &err) < 0)
			break;
		data += FRAME_HEADER_BYTES;
		size -= FRAME_HEADER_BYTES;
		if (header.length > size)
			break;
		result = take_frame(session, lane, &header, data, &err);
		data += header.length;
		size -= header.length;
	}
	if (result < 0)
		session_close(session, &err);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct event_base *base;
	static const uint8_t id[16] = "fuzzed session";
	struct link_peer peer = { "peer", "peer", NULL };
	struct nova_links links = { 0 };
	struct lane lane = { .links = &links, .number = 2, .state = LANE_UP };
	struct user user = { 0 };

	if (!base)
		base = event_base_new();
	links.base = base;
	links_enter(&links);
	user.session = session_new(&links, &peer, false, id, NULL);
	session_set_events(user.session, &session_events, &user);
	user.session->state = SESSION_UP;
	user.session->lanes_up = 1;
	lane.session = user.session;
	prepare(user.session, &user);
	feed(user.session, &lane, data, size);
	if (user.session)
		session_end(user.session);
	links_leave(&links);
	event_base_loop(base, EVLOOP_NONBLOCK);
	return 0;
}
