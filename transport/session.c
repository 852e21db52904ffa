/* SPDX-License-Identifier: Apache-2.0
 *
 * session.c - one conversation with one peer: its states, its lanes coming and going, its end.
 *
 * A lane is dead after 5 s without a sign of life (both sides PING every second). When the last lane is
 * lost the dialling side redials and the other one waits, each for at most the resume limit; the new lane's
 * HELLO and WELCOME tell what has arrived, and only the rest is sent again. A freed session has 2 s to
 * deliver its answers and BYE.
 */
#include "link.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <openssl/rand.h>

#include "cursor.h"

#define TICK_NS 250000000ull
#define REPORT_NS 1000000000ull
#define EXTRA_LANE_MS 1000 /* before a lost lane beside others is dialled again */

static const struct nova_error given_up = { NOVA_CANCELLED, 0, "the session was given up" };

static void on_tick(evutil_socket_t fd, short what, void *arg);
static void on_kick(evutil_socket_t fd, short what, void *arg);
static void on_ack_timer(evutil_socket_t fd, short what, void *arg);

/* ---- states ---- */

static const struct {
	const char *name;
	unsigned next; /* bits */
} states[] = {
	[SESSION_NEW] = { "new", 1u << SESSION_UP | 1u << SESSION_CLOSED },
	[SESSION_UP] = { "up", 1u << SESSION_LOST | 1u << SESSION_LEAVING | 1u << SESSION_CLOSED },
	[SESSION_LOST] = { "lost", 1u << SESSION_UP | 1u << SESSION_CLOSED },
	[SESSION_LEAVING] = { "leaving", 1u << SESSION_CLOSED },
	[SESSION_CLOSED] = { "closed", 0 },
};
static_assert(sizeof(states) / sizeof(*states) == SESSION_STATES, "a row for each state");

static void session_set(struct nova_session *session, enum session_state state)
{
	links_log(session->links, NOVA_LOG_DEBUG, "session with %s: %s -> %s", session->peer->name,
	    states[session->state].name, states[state].name);
	assert(states[session->state].next & 1u << state);
	session->state = state;
}

void session_report(struct nova_session *session, const char *state, json_t *data)
{
	if (session->events && session->events->state && data)
		session->events->state(session->arg, state, data);
	json_decref(data);
}

static int since_ms(uint64_t ns)
{
	return (int)((links_now_ns() - ns) / 1000000u);
}

static void report_lost(struct nova_session *session, const struct nova_error *why)
{
	session->reported_ns = links_now_ns();
	session_report(session, "reconnecting",
	    json_pack("{s:i, s:i, s:s}", "waited_ms", since_ms(session->lost_ns), "limit_ms",
	        session->resume_limit_ms, "error", why->text));
}

/* ---- birth and death ---- */

static int make_timers(struct nova_session *session, struct nova_error *err)
{
	struct event_base *base = session->links->base;
	struct timeval tick = links_timeval(TICK_NS);

	session->kick = event_new(base, -1, 0, on_kick, session);
	session->tick = event_new(base, -1, EV_PERSIST, on_tick, session);
	session->ack_timer = evtimer_new(base, on_ack_timer, session);
	if (!session->kick || !session->tick || !session->ack_timer)
		return nova_error_set(err, NOVA_SYSTEM, "no memory for a session");
	evtimer_add(session->tick, &tick);
	return dial_init(session, err);
}

struct nova_session *session_new(struct nova_links *links, const struct link_peer *peer, bool dialled,
    const uint8_t id[16], struct nova_error *err)
{
	struct nova_session *session = calloc(1, sizeof(*session));

	if (!session) {
		nova_error_set(err, NOVA_SYSTEM, "no memory for a session");
		return NULL;
	}
	session->links = links;
	session->peer = peer;
	session->dialled = dialled;
	memcpy(session->id, id, sizeof(session->id));
	session->lanes_wanted = 1;
	session->sample_ns = links_now_ns();
	channel_init(&session->control, session, 0, NOVA_CHANNEL_CONTROL);
	measure_tune(session);
	if (make_timers(session, err) < 0) {
		session_destroy(session);
		return NULL;
	}
	session->next = links->sessions;
	links->sessions = session;
	links->session_count++;
	return session;
}

void session_destroy(struct nova_session *session)
{
	dial_release(session);
	if (session->kick)
		event_free(session->kick);
	if (session->tick)
		event_free(session->tick);
	if (session->ack_timer)
		event_free(session->ack_timer);
	channel_release(&session->control);
	while (session->channels) {
		struct channel *channel = session->channels;

		session->channels = channel->next;
		channel_release(channel);
		free(channel);
	}
	free(session->heard);
	free(session);
}

/* Closed and freed by its user: links_leave() destroys it. */
static void bury(struct nova_session *session)
{
	struct nova_session **at = &session->links->sessions;

	while (*at != session)
		at = &(*at)->next;
	*at = session->next;
	session->links->session_count--;
	session->next = session->links->dead_sessions;
	session->links->dead_sessions = session;
}

/* Nobody may reach the session through what others own. */
static void let_go(struct nova_session *session)
{
	while (session->requests) {
		struct nova_request *request = session->requests;

		session->requests = request->next;
		request->session = NULL;
	}
	session->request_count = 0;
}

void session_close(struct nova_session *session, const struct nova_error *why)
{
	struct nova_error copy = *why, lost = *why;

	if (session->state == SESSION_CLOSED)
		return;
	links_enter(session->links);
	session_set(session, SESSION_CLOSED);
	while (session->lanes)
		lane_kill(session->lanes);
	session->lanes_up = 0;
	dial_stop(session);
	event_del(session->tick);
	event_del(session->kick);
	event_del(session->ack_timer);
	lost.category = NOVA_LINK;
	session->closing = true;
	for (struct channel *channel = session->channels; channel; channel = channel->next)
		channel_kill(channel, &copy);
	request_fail_all(session, &lost, true);
	let_go(session);
	if (session->events && !session->freed)
		session->events->closed(session->arg, &copy);
	session->closing = false;
	if (session->freed)
		bury(session);
	links_leave(session->links);
}

/* The user hears nothing more but the answers it is owed. */
static void abandon(struct nova_session *session)
{
	session->freed = true;
	session->events = NULL;
	request_fail_all(session, &given_up, false);
	let_go(session);
	for (struct channel *channel = session->channels; channel; channel = channel->next) {
		channel->freed = true;
		channel->events = NULL;
	}
}

void session_end(struct nova_session *session)
{
	bool freed = session->freed;

	abandon(session);
	if (session->state != SESSION_CLOSED)
		session_close(session, &given_up);
	else if (!session->closing && !freed)
		bury(session);
}

static void leave(struct nova_session *session)
{
	if (session->state != SESSION_UP)
		return; /* there was no memory for its last word: it is closed */
	session_set(session, SESSION_LEAVING);
	session->leave_ns = links_now_ns();
	dial_stop(session);
	if (session->links->entered == 1)
		session_send(session);
}

struct nova_session *session_free(struct nova_session *session)
{
	struct nova_links *links = session ? session->links : NULL;

	if (!session || session->freed)
		return NULL;
	links_enter(links);
	if (session->state == SESSION_UP) {
		abandon(session);
		request_send_bye(session);
		leave(session);
	} else {
		session_end(session);
	}
	links_leave(links);
	return NULL;
}

const char *session_user(struct nova_session *session)
{
	return session->user ? session->user->name : NULL;
}

const char *session_from(struct nova_session *session)
{
	return session->from;
}

struct nova_session *session_find(struct nova_links *links, const uint8_t id[16])
{
	struct nova_session *session = links->sessions;

	while (session && memcmp(session->id, id, sizeof(session->id)) != 0)
		session = session->next;
	return session;
}

struct nova_session *session_dial(struct nova_links *links, const char *peer,
    const struct nova_session_options *options, const struct nova_session_events *events, void *arg,
    struct nova_error *err)
{
	const struct link_peer *known = settings_peer(&links->settings, peer);
	struct nova_session *session;
	uint8_t id[16];

	if (!known || !json_array_size(known->addresses)) {
		nova_error_set(
		    err, NOVA_INVALID, known ? "peer %s has no address" : "no peer %s is configured", peer);
		return NULL;
	}
	if (options->resume_limit_ms < 0 || options->resume_limit_ms > (int)FRAME_RESUME_LIMIT_MAX_MS ||
	    options->lanes < 0 || options->lanes > (int)SESSION_LANES_MAX) {
		nova_error_set(err, NOVA_INVALID,
		    "a resume limit of 0 to %u ms and 0 to %u lanes are possible", FRAME_RESUME_LIMIT_MAX_MS,
		    SESSION_LANES_MAX);
		return NULL;
	}
	if (links->session_count >= LINKS_SESSIONS_MAX || RAND_bytes(id, sizeof(id)) != 1) {
		nova_error_set(err, NOVA_STATE, "too many sessions, or no random numbers");
		return NULL;
	}
	session = session_new(links, known, true, id, err);
	if (!session)
		return NULL;
	session->events = events;
	session->arg = arg;
	session->resume_limit_ms = options->resume_limit_ms;
	session->lanes_auto = options->lanes == 0;
	session->lanes_wanted = options->lanes ? (uint32_t)options->lanes : 1;
	bucket_set(&session->bucket, options->rate_bps, links_now_ns());
	measure_tune(session);
	dial_start(session, 0);
	return session;
}

/* ---- lanes come and go ---- */

static size_t lanes_of(struct nova_session *session, struct lane *lanes[SESSION_LANES_MAX])
{
	size_t count = 0;

	for (struct lane *lane = session->lanes; lane && count < SESSION_LANES_MAX; lane = lane->next) {
		if (lane->state == LANE_UP)
			lanes[count++] = lane;
	}
	return count;
}

void session_fill_hello(struct nova_session *session, struct frame_hello *hello)
{
	struct frame_channel *row = hello->channels;

	hello->version_min = hello->version_max = FRAME_VERSION;
	memcpy(hello->session, session->id, sizeof(hello->session));
	hello->known = session->welcomed || !session->dialled;
	hello->alone = session->lanes_up == 0;
	hello->resume_limit_ms = (uint32_t)session->resume_limit_ms;
	*row++ = (struct frame_channel) { 0, NOVA_CHANNEL_CONTROL, channel_take_ack(&session->control) };
	for (struct channel *channel = session->channels; channel; channel = channel->next) {
		if (!channel->dead)
			*row++ = (struct frame_channel) { channel->id, (uint8_t)channel->kind,
				channel_take_ack(channel) };
	}
	hello->channel_count = (uint16_t)(row - hello->channels);
}

static int hear_hello(struct nova_session *session, const struct frame_hello *hello, struct nova_error *err)
{
	for (size_t i = 0; i < hello->channel_count; i++) {
		const struct frame_channel *row = &hello->channels[i];
		struct channel *channel = channel_heard(session, row->id, row->kind, err);

		if (!channel || channel_acked(channel, &row->ack, err) < 0)
			return -1;
	}
	return 0;
}

static void lane_lost(struct nova_session *session, const struct lane *lane)
{
	outbox_lane_lost(&session->control.out, lane->number, lane->pump.sent_bytes);
	session->control.ack_due = true;
	for (struct channel *channel = session->channels; channel; channel = channel->next) {
		outbox_lane_lost(&channel->out, lane->number, lane->pump.sent_bytes);
		channel->ack_due = true;
		channel->open_due = !channel->known;
	}
}

/* What older lanes still hold for us need not be sent again: it is read before we say what has arrived. */
void session_read_rest(struct nova_session *session)
{
	struct lane *lanes[SESSION_LANES_MAX];
	size_t count = lanes_of(session, lanes);

	for (size_t i = 0; i < count; i++)
		lane_read(lanes[i]);
}

/* The peer says that all its older lanes are gone; ours may not have noticed. */
static void drop_older(struct nova_session *session, const struct lane *newest)
{
	struct lane *lane = session->lanes, *next;

	for (; lane; lane = next) {
		next = lane->next;
		if (lane->state != LANE_UP || lane->number >= newest->number)
			continue;
		lane_kill(lane);
		session->lanes_up--;
		lane_lost(session, lane);
	}
}

static void is_up(struct nova_session *session, const struct lane *lane)
{
	enum session_state before = session->state;

	if (before != SESSION_UP)
		session_set(session, SESSION_UP);
	if (before == SESSION_NEW) {
		links_log(session->links, NOVA_LOG_INFO, "session with %s (%s) is up", session->peer->name,
		    lane->from);
		if (session->events && session->events->up)
			session->events->up(session->arg, session->certificate);
	} else if (before == SESSION_LOST) {
		session->reconnects++;
		links_log(session->links, NOVA_LOG_INFO, "session with %s (%s) resumed after %d ms",
		    session->peer->name, lane->from, since_ms(session->lost_ns));
		session_report(
		    session, "resumed", json_pack("{s:i}", "waited_ms", since_ms(session->lost_ns)));
	} else {
		session_report(session, "lane up",
		    json_pack("{s:i, s:i}", "lane", lane->number, "lanes", session->lanes_up));
	}
}

int session_lane_up(
    struct nova_session *session, struct lane *lane, const struct frame_hello *hello, struct nova_error *err)
{
	if (lane->number > session->last_lane)
		session->last_lane = lane->number;
	session->lanes_up++;
	if (hello->alone && !session->dialled)
		drop_older(session, lane);
	is_up(session, lane);
	if (session->state != SESSION_UP)
		return 0;
	if (hear_hello(session, hello, err) < 0)
		return -1;
	if (session->state != SESSION_UP)
		return 0;
	measure_tune(session);
	if (session->dialled && session->lanes_up < session->lanes_wanted)
		dial_start(session, 0);
	session_kick(session);
	return 0;
}

void session_lane_down(struct nova_session *session, struct lane *lane, const struct nova_error *why)
{
	if (session->state == SESSION_CLOSED)
		return;
	session->lanes_up--;
	lane_lost(session, lane);
	if (session->lanes_up) {
		links_log(session->links, NOVA_LOG_INFO, "session with %s lost a lane: %s",
		    session->peer->name, why->text);
		session_report(session, "lane lost",
		    json_pack("{s:i, s:i, s:s}", "lane", lane->number, "lanes", session->lanes_up, "error",
		        why->text));
		if (session->state == SESSION_UP && session->dialled)
			dial_start(session, EXTRA_LANE_MS);
		session_kick(session);
		return;
	}
	if (session->state == SESSION_LEAVING || session->resume_limit_ms <= 0) {
		session_close(session, why);
		return;
	}
	links_log(session->links, NOVA_LOG_WARNING, "session with %s lost its connection: %s",
	    session->peer->name, why->text);
	session_set(session, SESSION_LOST);
	session->lost_ns = links_now_ns();
	session->dial.last = *why;
	if (session->dialled)
		dial_start(session, 0);
	report_lost(session, why);
}

/* ---- frames ---- */

struct control_call {
	struct nova_session *session;
	bool failed;
	struct nova_error err;
};

static bool on_control(void *arg, const uint8_t *data, size_t length)
{
	struct control_call *call = arg;
	struct nova_session *session = call->session;

	if (request_heard(session, data, length, &call->err) < 0) {
		call->failed = true;
		return false;
	}
	inbox_consumed(&session->control.in, length);
	return session->state != SESSION_CLOSED;
}

static bool on_control_fin(void *arg)
{
	struct control_call *call = arg;

	nova_error_set(&call->err, NOVA_INVALID, "the control channel never ends");
	call->failed = true;
	return false;
}

static const struct inbox_events control_events = { on_control, on_control_fin };

static int control_data(struct nova_session *session, const struct frame_header *header,
    struct nova_buf **buf, struct nova_error *err)
{
	struct control_call call = { .session = session };

	session->control.frames_untold++;
	if (inbox_add(&session->control.in, header, buf, &control_events, &call, err) < 0)
		return nova_error_prefix(err, "control channel");
	if (call.failed)
		return nova_error_copy(err, &call.err);
	if (session->state != SESSION_CLOSED)
		channel_consider_ack(&session->control);
	return 0;
}

static int on_data(struct nova_session *session, const struct frame_header *header, struct nova_buf **buf,
    struct nova_error *err)
{
	struct channel *channel =
	    channel_heard(session, header->channel, (header->flags & FRAME_KIND) >> FRAME_KIND_SHIFT, err);

	if (!channel)
		return -1;
	if (header->channel == 0)
		return control_data(session, header, buf, err);
	return channel_data(channel, header, buf, err);
}

static int on_ack(struct nova_session *session, const struct frame_header *header, const uint8_t *payload,
    struct nova_error *err)
{
	struct channel *channel = channel_find(session, header->channel);
	struct frame_ack ack;

	if (!channel)
		return nova_error_set(
		    err, NOVA_INVALID, "acknowledgement of channel %u, which there is not", header->channel);
	return frame_get_ack(header, payload, &ack, err) < 0 ? -1 : channel_acked(channel, &ack, err);
}

void session_pong(struct nova_session *session, struct lane *lane, uint64_t stamp_ns)
{
	uint64_t now = links_now_ns(), rtt_us = stamp_ns <= now ? (now - stamp_ns) / 1000 : UINT32_MAX;

	if (rtt_us >= 3600000000u)
		return;
	session->rtt_us =
	    session->rtt_us ? (uint32_t)((session->rtt_us * 7ull + rtt_us) / 8) : (uint32_t)rtt_us;
	if (!session->rtt_min_us || rtt_us <= session->rtt_min_us) {
		session->rtt_min_us = rtt_us ? (uint32_t)rtt_us : 1;
		session->rtt_min_ns = now;
	}
}

int session_frame(struct nova_session *session, struct lane *lane, const struct frame_header *header,
    struct nova_buf **buf, struct nova_error *err)
{
	const uint8_t *payload = (*buf)->data;
	uint64_t stamp = 0;

	if (header->length >= sizeof(stamp))
		memcpy(&stamp, payload, sizeof(stamp));
	switch (header->type) {
	case FRAME_DATA:
		return on_data(session, header, buf, err);
	case FRAME_ACK:
		return on_ack(session, header, payload, err);
	case FRAME_OPEN:
		return channel_heard(session, header->channel, payload[0], err) ? 0 : -1;
	case FRAME_PING:
		lane->pong = stamp;
		lane->pong_due = true;
		session_kick(session);
		return 0;
	case FRAME_PONG:
		session_pong(session, lane, stamp);
		return 0;
	default:
		return nova_error_set(
		    err, NOVA_INVALID, "frame of type %u in the middle of a session", header->type);
	}
}

/* ---- sending ---- */

void session_kick(struct nova_session *session)
{
	if (session->lanes_up && session->state != SESSION_CLOSED)
		event_active(session->kick, EV_TIMEOUT, 0);
}

static void offer_room(struct nova_session *session)
{
	for (struct channel *channel = session->channels; channel && session->state < SESSION_LEAVING;
	     channel = channel->next)
		channel_room_again(channel);
}

/* One batch a lane in turn, for at most one turn of the loop. */
void session_send(struct nova_session *session)
{
	uint64_t start = links_now_ns();
	struct lane *lanes[SESSION_LANES_MAX];
	size_t count = lanes_of(session, lanes);
	int more = count > 0;

	links_enter(session->links);
	while (more && session->state != SESSION_CLOSED && links_now_ns() - start < LANE_TURN_NS) {
		more = 0;
		for (size_t i = 0; i < count; i++) {
			struct lane *lane = lanes[(i + session->lane_turn) % count];

			if (lane->state == LANE_UP)
				more |= lane_send(lane);
		}
		session->lane_turn++;
		offer_room(session);
	}
	if (more)
		session_kick(session);
	offer_room(session);
	if (session->state == SESSION_LEAVING && outbox_all_received(&session->control.out))
		session_close(session, &given_up);
	links_leave(session->links);
}

static void on_kick(evutil_socket_t fd, short what, void *arg)
{
	session_send(arg);
}

static void on_ack_timer(evutil_socket_t fd, short what, void *arg)
{
	struct nova_session *session = arg;
	struct channel *channel = &session->control;

	for (; channel; channel = channel == &session->control ? session->channels : channel->next) {
		if (!channel->dead &&
		    (channel->frames_untold || channel->in.received != channel->told_received ||
		        channel->in.consumed != channel->told_consumed))
			channel->ack_due = true;
	}
	session_send(session);
}

/* ---- time ---- */

static void check_lane(struct lane *lane, uint64_t now)
{
	const struct link_settings *settings = &lane->links->settings;
	uint64_t silence = (uint64_t)settings->silence_ms * 1000000u;
	struct nova_error err;

	if (now - lane->heard_ns > silence)
		lane_read(lane); /* perhaps it was us who slept */
	if (lane->state != LANE_UP)
		return;
	if (lane->heard_ns < now && now - lane->heard_ns > silence) {
		nova_error_set(
		    &err, NOVA_LINK, "%s: no sign of life for %d ms", lane->from, settings->silence_ms);
		if (lane->dialled && lane->session->lanes_up == 1)
			dial_rotate(lane->session);
		lane_fail(lane, &err);
	} else if (now - lane->pinged_ns > (uint64_t)settings->heartbeat_ms * 1000000u) {
		lane->ping_due = true;
	}
}

static void check_limits(struct nova_session *session)
{
	uint64_t now = links_now_ns();
	struct nova_error err = session->dial.last;

	if (session->state == SESSION_LEAVING && now - session->leave_ns > SESSION_LEAVE_MS * 1000000ull) {
		session_close(session, &err);
	} else if (session->state == SESSION_LOST && since_ms(session->lost_ns) >= session->resume_limit_ms) {
		nova_error_prefix(&err, "connection with %s lost for more than %d ms", session->peer->name,
		    session->resume_limit_ms);
		err.category = NOVA_LINK;
		session_close(session, &err);
	} else if (session->state == SESSION_LOST && now - session->reported_ns >= REPORT_NS) {
		report_lost(session, &err);
	}
}

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
	struct nova_session *session = arg;
	struct nova_links *links = session->links;
	struct lane *lanes[SESSION_LANES_MAX];
	uint64_t now = links_now_ns();
	size_t count = lanes_of(session, lanes);

	links_enter(links);
	for (size_t i = 0; i < count; i++) {
		if (lanes[i]->state == LANE_UP)
			check_lane(lanes[i], now);
	}
	check_limits(session);
	if (session->state != SESSION_CLOSED) {
		measure_tick(session, links_now_ns());
		session_send(session);
	}
	links_leave(links);
}

/* ---- what users set and ask ---- */

void session_set_events(struct nova_session *session, const struct nova_session_events *events, void *arg)
{
	session->events = events;
	session->arg = arg;
}

void session_rate(struct nova_session *session, uint64_t rate_bps)
{
	bucket_set(&session->bucket, rate_bps, links_now_ns());
	measure_tune(session);
	session_kick(session);
}

void session_limit(struct nova_session *session, int resume_limit_ms)
{
	if (resume_limit_ms < 0)
		resume_limit_ms = 0;
	if (resume_limit_ms > (int)FRAME_RESUME_LIMIT_MAX_MS)
		resume_limit_ms = (int)FRAME_RESUME_LIMIT_MAX_MS;
	session->resume_limit_ms = resume_limit_ms;
	if (session->dialled && session->state < SESSION_LEAVING)
		request_send_limit(session, (uint32_t)resume_limit_ms);
}

static uint64_t received_bytes(const struct nova_session *session)
{
	uint64_t received = session->closed_received;

	for (const struct lane *lane = session->lanes; lane; lane = lane->next)
		received += lane->pump.received_bytes;
	return received;
}

void session_stats(struct nova_session *session, struct nova_link_stats *stats)
{
	*stats = (struct nova_link_stats) {
		.wire_sent_bytes = measure_sent(session),
		.wire_received_bytes = received_bytes(session),
		.resent_bytes = session->resent_bytes,
		.rate_now_bps = session->rate_bps,
		.rtt_us = session->rtt_us,
		.rtt_min_us = session->rtt_min_us,
		.lanes = session->lanes_up,
		.reconnects = session->reconnects,
	};
	stats->queued_bytes = outbox_unsent(&session->control.out);
	for (const struct channel *channel = session->channels; channel; channel = channel->next)
		stats->queued_bytes += outbox_unsent(&channel->out);
	for (const struct lane *lane = session->lanes; lane; lane = lane->next)
		stats->queued_bytes += pump_backlog(&lane->pump);
}
