/* SPDX-License-Identifier: Apache-2.0
 *
 * channel.c - channels: what users do with them, windows, acknowledgements, their end.
 *
 * An id is used once in a session (at most 512 of them): after its end the channel stays as a mark, so
 * that late frames of another lane fall on it and not on a successor. A freed channel that was finished
 * still delivers what it has.
 *
 * Window: twice what the user consumes in a round trip, 1 to 32 MiB, 4 MiB at first. A window that was
 * given is never taken back. Acknowledged is a sixteenth of the window, 1024 frames, or what is there 10 ms
 * after the first byte.
 */
#include "link.h"

#include <stdlib.h>

#define ACK_FRAMES 1024u
#define ACK_DELAY_NS 10000000ull
#define MEASURE_MIN_NS 20000000ull /* a shorter time says little about a rate */
#define WINDOW_MOST (32u << 20)    /* what both ends may have to hold; 1.8 Gbit/s at 150 ms */
#define HORIZON_NS 5000000ull      /* added to the round trip: what the ends take to answer */

static struct channel *of(struct nova_channel *public)
{
	return (struct channel *)public;
}

void channel_init(
    struct channel *channel, struct nova_session *session, uint16_t id, enum nova_channel_kind kind)
{
	*channel = (struct channel) { .session = session, .id = id, .kind = kind };
	outbox_init(&channel->out);
	inbox_init(&channel->in);
}

void channel_release(struct channel *channel)
{
	outbox_release(&channel->out);
	inbox_release(&channel->in);
}

struct channel *channel_find(struct nova_session *session, uint16_t id)
{
	struct channel *channel = session->channels;

	if (id == 0)
		return &session->control;
	while (channel && channel->id != id)
		channel = channel->next;
	return channel;
}

/* ---- windows and acknowledgements ---- */

static void follow(struct channel *channel)
{
	uint64_t now = links_now_ns(), elapsed = now - channel->measure_ns;
	uint64_t rtt_ns = (uint64_t)channel->session->rtt_min_us * 1000;
	uint32_t window = channel->in.window;
	double rate, wish, least = window * 0.875;

	if (!channel->measure_ns)
		channel->measure_ns = now;
	if (elapsed < rtt_ns || elapsed < MEASURE_MIN_NS || channel->measure_ns == now)
		return;
	rate = (double)(channel->in.consumed - channel->measure_consumed) / (double)elapsed;
	wish = rate * (double)(rtt_ns + HORIZON_NS) * 2;
	if (wish < least)
		wish = least;
	if (wish < FRAME_WINDOW_MIN)
		wish = FRAME_WINDOW_MIN;
	if (wish > WINDOW_MOST)
		wish = WINDOW_MOST;
	channel->in.window = (uint32_t)wish;
	channel->measure_ns = now;
	channel->measure_consumed = channel->in.consumed;
}

struct frame_ack channel_take_ack(struct channel *channel)
{
	struct frame_ack ack;

	follow(channel);
	ack = inbox_ack(&channel->in);
	channel->told_received = ack.received;
	channel->told_consumed = ack.consumed;
	channel->frames_untold = 0;
	channel->ack_due = false;
	return ack;
}

void channel_consider_ack(struct channel *channel)
{
	uint64_t received = channel->in.received - channel->told_received;
	uint64_t consumed = channel->in.consumed - channel->told_consumed, enough = channel->in.window / 16;
	struct timeval delay = links_timeval(ACK_DELAY_NS);

	if (channel->dead || channel->ack_due)
		return;
	if (received >= enough || consumed >= enough || channel->frames_untold >= ACK_FRAMES) {
		channel->ack_due = true;
		session_kick(channel->session);
	} else if ((received || consumed || channel->frames_untold) &&
	           !evtimer_pending(channel->session->ack_timer, NULL)) {
		evtimer_add(channel->session->ack_timer, &delay);
	}
}

int channel_acked(struct channel *channel, const struct frame_ack *ack, struct nova_error *err)
{
	channel->known = true;
	if (channel->dead)
		return 0;
	if (outbox_ack(&channel->out, ack, err) < 0)
		return nova_error_prefix(err, "channel %u", channel->id);
	channel_settle(channel);
	if (outbox_ready(&channel->out))
		session_kick(channel->session);
	return 0;
}

/* ---- what comes in ---- */

static bool on_message(void *arg, const uint8_t *data, size_t length)
{
	struct channel *channel = arg;

	channel->events->message(channel->arg, data, length);
	return !channel->dead && !channel->freed;
}

static bool on_fin(void *arg)
{
	struct channel *channel = arg;

	if (channel->events->closed)
		channel->events->closed(channel->arg, NULL);
	return false;
}

static const struct inbox_events inbox_events = { on_message, on_fin };

int channel_data(
    struct channel *channel, const struct frame_header *header, struct nova_buf **buf, struct nova_error *err)
{
	if (channel->dead || channel->freed)
		return 0;
	channel->frames_untold++;
	if (inbox_add(&channel->in, header, buf, &inbox_events, channel, err) < 0)
		return nova_error_prefix(err, "channel %u", channel->id);
	channel_consider_ack(channel);
	return 0;
}

static struct channel *add(
    struct nova_session *session, uint16_t id, enum nova_channel_kind kind, struct nova_error *err)
{
	struct channel *channel, **at = &session->channels;

	if (session->channel_count >= FRAME_CHANNELS_MAX - 1) {
		nova_error_set(
		    err, NOVA_INVALID, "more than %u channels in one session", FRAME_CHANNELS_MAX - 1);
		return NULL;
	}
	channel = malloc(sizeof(*channel));
	if (!channel) {
		nova_error_set(err, NOVA_SYSTEM, "no memory for a channel");
		return NULL;
	}
	channel_init(channel, session, id, kind);
	while (*at)
		at = &(*at)->next;
	*at = channel;
	session->channel_count++;
	return channel;
}

/* ---- what users do ---- */

static size_t op_room(struct nova_channel *public)
{
	struct channel *channel = of(public);
	uint64_t queued = outbox_unsent(&channel->out);

	if (!channel->dead && queued < channel->session->queue_bytes)
		return channel->session->queue_bytes - queued;
	channel->room_wanted = true;
	return 0;
}

static void op_send(struct nova_channel *public, struct nova_buf *buf)
{
	struct channel *channel = of(public);

	if (channel->dead || !buf->length) {
		nova_buf_free(buf);
		return;
	}
	outbox_add(&channel->out, buf);
	session_kick(channel->session);
}

static void op_consumed(struct nova_channel *public, size_t bytes)
{
	struct channel *channel = of(public);

	if (channel->dead)
		return;
	inbox_consumed(&channel->in, bytes);
	channel_consider_ack(channel);
}

static void op_finish(struct nova_channel *public)
{
	struct channel *channel = of(public);

	if (channel->dead)
		return;
	outbox_finish(&channel->out);
	session_kick(channel->session);
}

static uint64_t op_unacknowledged(struct nova_channel *public)
{
	return outbox_unconsumed(&of(public)->out);
}

static void op_free(struct nova_channel *public)
{
	struct channel *channel = of(public);

	if (!channel || channel->freed)
		return;
	channel->freed = true;
	channel->events = NULL;
	channel_settle(channel);
}

static const struct nova_channel_ops channel_ops = {
	op_room,
	op_send,
	op_consumed,
	op_finish,
	op_unacknowledged,
	op_free,
};

/* Bulk is asked for in large pieces; urgent users at once, or bulk would go while they are not asked. */
void channel_room_again(struct channel *channel)
{
	uint64_t most = channel->session->queue_bytes;

	if (!channel->room_wanted || channel->dead || channel->freed || !channel->events ||
	    !channel->events->room)
		return;
	if (outbox_unsent(&channel->out) >= (channel->kind == NOVA_CHANNEL_URGENT ? most : most / 2))
		return;
	channel->room_wanted = false;
	channel->events->room(channel->arg);
}

struct nova_channel *channel_open(struct nova_session *session, uint16_t id, enum nova_channel_kind kind,
    const struct nova_channel_events *events, void *arg, struct nova_error *err)
{
	struct channel *channel;

	if (id == 0 || kind <= NOVA_CHANNEL_CONTROL || kind > NOVA_CHANNEL_DISK) {
		nova_error_set(err, NOVA_INVALID, "channel %u of kind %d cannot be opened", id, (int)kind);
		return NULL;
	}
	if (session->state >= SESSION_LEAVING) {
		nova_error_set(err, NOVA_STATE, "the session with %s is over", session->peer->name);
		return NULL;
	}
	if (channel_find(session, id)) {
		nova_error_set(err, NOVA_STATE, "channel %u was used before in this session", id);
		return NULL;
	}
	channel = add(session, id, kind, err);
	if (!channel)
		return NULL;
	channel->public.ops = &channel_ops;
	channel->events = events;
	channel->arg = arg;
	channel->open_due = true;
	session_kick(session);
	return &channel->public;
}

void channel_set_events(struct nova_channel *public, const struct nova_channel_events *events, void *arg)
{
	struct channel *channel = of(public);

	channel->events = events;
	channel->arg = arg;
}

/* ---- the peer opens one ---- */

struct channel *channel_heard(struct nova_session *session, uint16_t id, uint8_t kind, struct nova_error *err)
{
	struct channel *channel = channel_find(session, id);

	if (channel) {
		channel->known = true;
		if (channel->dead || channel->kind == kind)
			return channel;
		nova_error_set(err, NOVA_INVALID, "channel %u is of kind %d and of kind %u", id,
		    (int)channel->kind, kind);
		return NULL;
	}
	if (kind <= NOVA_CHANNEL_CONTROL || kind > NOVA_CHANNEL_DISK) {
		nova_error_set(err, NOVA_INVALID, "channel %u of kind %u", id, kind);
		return NULL;
	}
	channel = add(session, id, kind, err);
	if (!channel)
		return NULL;
	channel->public.ops = &channel_ops;
	channel->known = true;
	channel->ack_due = true;
	if (session->events && session->events->channel && session->state == SESSION_UP)
		session->events->channel(session->arg, id, kind, &channel->public);
	if (!channel->events)
		op_free(&channel->public);
	return channel;
}

/* ---- the end ---- */

static void die(struct channel *channel)
{
	channel->dead = true;
	channel_release(channel);
}

void channel_mark(struct nova_session *session, uint16_t id)
{
	struct channel *channel = add(session, id, NOVA_CHANNEL_STREAM, NULL);

	if (!channel)
		return;
	channel->freed = true;
	die(channel);
}

void channel_settle(struct channel *channel)
{
	bool told;

	if (!channel->freed || channel->dead)
		return;
	if (channel->out.finished && !outbox_all_received(&channel->out))
		return;
	told = channel->out.finished && channel->in.finished;
	die(channel);
	if (!told)
		request_send_reset(channel->session, channel->id);
}

void channel_kill(struct channel *channel, const struct nova_error *why)
{
	const struct nova_channel_events *events = channel->events;

	if (channel->dead)
		return;
	die(channel);
	if (events && events->closed && !channel->freed)
		events->closed(channel->arg, why);
}
