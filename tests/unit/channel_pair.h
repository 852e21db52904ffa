/* SPDX-License-Identifier: Apache-2.0
 *
 * channel_pair.h - two ends of a channel in this process, for tests of what sits on top of channels. Header only.
 */
#ifndef NOVA_TEST_CHANNEL_PAIR_H
#define NOVA_TEST_CHANNEL_PAIR_H

#include <event2/event.h>
#include <stdlib.h>

#include "engine/flow.h"

/* ---- a channel pair: what one end sends, the other gets from the loop, within a window ---- */

struct end {
	struct nova_channel channel; /* first */
	struct end *peer;            /* NULL: freed */
	const struct nova_channel_events *events;
	void *arg;
	struct event *deliver;
	struct nova_buf *first, **last;
	size_t window;
	uint64_t unacknowledged; /* by the peer's consumer */
	uint64_t most;           /* of it, ever */
	bool blocked, finished, closed;
};

static size_t end_room(struct nova_channel *channel)
{
	struct end *e = (struct end *)channel;

	e->blocked = e->unacknowledged >= e->window;
	return e->blocked ? 0 : e->window - e->unacknowledged;
}

static void end_wake(struct end *e)
{
	const struct timeval now = { 0, 0 };

	if (e)
		event_add(e->deliver, &now);
}

static void end_send(struct nova_channel *channel, struct nova_buf *buf)
{
	struct end *e = (struct end *)channel;

	assert_true(buf->length > 0 && !e->finished);
	e->unacknowledged += buf->length;
	if (e->unacknowledged > e->most)
		e->most = e->unacknowledged;
	buf->next = NULL;
	*e->last = buf;
	e->last = &buf->next;
	end_wake(e->peer);
}

static void end_consumed(struct nova_channel *channel, size_t bytes)
{
	struct end *peer = ((struct end *)channel)->peer;

	if (!peer)
		return;
	assert_true(peer->unacknowledged >= bytes);
	peer->unacknowledged -= bytes;
	end_wake(peer);
}

static void end_finish(struct nova_channel *channel)
{
	((struct end *)channel)->finished = true;
	end_wake(((struct end *)channel)->peer);
}

static uint64_t end_unacknowledged(struct nova_channel *channel)
{
	return ((struct end *)channel)->unacknowledged;
}

static void end_free(struct nova_channel *channel)
{
	struct end *e = (struct end *)channel;

	while (e->first) {
		struct nova_buf *next = e->first->next;

		nova_buf_free(e->first);
		e->first = next;
	}
	if (e->peer)
		e->peer->peer = NULL;
	event_free(e->deliver);
	free(e);
}

static const struct nova_channel_ops end_ops = {
	.room = end_room,
	.send = end_send,
	.consumed = end_consumed,
	.finish = end_finish,
	.unacknowledged = end_unacknowledged,
	.free = end_free,
};

static void end_deliver(evutil_socket_t fd, short what, void *arg)
{
	struct end *e = arg;

	while (e->peer && e->peer->first && e->events) {
		struct nova_buf *buf = e->peer->first;

		e->peer->first = buf->next;
		if (!e->peer->first)
			e->peer->last = &e->peer->first;
		e->events->message(e->arg, buf->data, buf->length);
		nova_buf_free(buf);
	}
	if (e->blocked && e->unacknowledged < e->window) {
		e->blocked = false;
		e->events->room(e->arg);
	}
	if (e->peer && e->peer->finished && !e->closed) {
		e->closed = true;
		e->events->closed(e->arg, NULL);
	}
}

static void set_events(struct nova_channel *channel, const struct nova_channel_events *events, void *arg)
{
	struct end *e = (struct end *)channel;

	e->events = events;
	e->arg = arg;
}
static const struct nova_link_ops links = { .channel_events = set_events };

static struct end *end_new(struct event_base *base, size_t window)
{
	struct end *e = calloc(1, sizeof(*e));

	e->channel.ops = &end_ops;
	e->window = window;
	e->last = &e->first;
	e->deliver = evtimer_new(base, end_deliver, e);
	return e;
}

#endif
