/* SPDX-License-Identifier: Apache-2.0
 *
 * estimate_probe.c - what a link carries: noise on a channel of its own, for a short while, counted as the
 * other side consumes it.
 *
 * A probe ends after PROBE_TRIPS round trips (a TCP connection has opened its window by then), at least
 * LEAST_MS, or at NOVA_PROBE_MOST_MS or NOVA_PROBE_MOST. The rate is the best over a window of WINDOW_MS, or over
 * all of it if it was shorter. A cap of the session holds for the probe, too, and is what it then finds.
 */
#include "cleanup.h"
#include "estimate.h"

#include <errno.h>
#include <event2/event.h>
#include <string.h>

#define LOOK_MS 10
#define LEAST_MS 300
#define PROBE_TRIPS 10
#define WINDOW_MS 200
#define LOOKS (NOVA_PROBE_MOST_MS / LOOK_MS + 1)
#define MESSAGE (64u * 1024)

struct probe {
	struct nova_op op;
	const struct nova_link_ops *ops;
	struct nova_session *session; /* borrowed */
	struct nova_channel *channel; /* owned */
	struct event *look;
	int64_t begin_ms;
	uint64_t sent;
	struct {
		int64_t ms;
		uint64_t arrived;
	} looks[LOOKS];
	size_t count;
	nova_done_fn done;
	void *arg;
};

static void probe_free(struct probe *probe)
{
	if (probe->channel)
		probe->channel->ops->free(probe->channel);
	if (probe->look)
		event_free(probe->look);
	free(probe);
}

static void probe_drop(struct nova_op *op)
{
	probe_free((struct probe *)op);
}

static double rate_between(const struct probe *probe, size_t from, size_t to)
{
	int64_t ms = probe->looks[to].ms - probe->looks[from].ms;

	return ms > 0 ? (double)(probe->looks[to].arrived - probe->looks[from].arrived) * 1000 / (double)ms : 0;
}

static double best_rate(const struct probe *probe)
{
	double best = probe->count > 1 ? rate_between(probe, 0, probe->count - 1) : 0;

	for (size_t from = 0, to = 0; to < probe->count; to++) {
		while (probe->looks[to].ms - probe->looks[from].ms > WINDOW_MS + LOOK_MS)
			from++;
		if (probe->looks[to].ms - probe->looks[from].ms >= WINDOW_MS && rate_between(probe, from, to) > best)
			best = rate_between(probe, from, to);
	}
	return best;
}

static void probe_end(struct probe *probe, const struct nova_error *err)
{
	NOVA_AUTOJSON json_t *result = NULL;
	struct nova_link_stats stats = { 0 };
	nova_done_fn done = probe->done;
	void *arg = probe->arg;

	if (!err) {
		probe->ops->stats(probe->session, &stats);
		result = json_pack("{s:I, s:I, s:I, s:I}", "link_bytes_per_s", (json_int_t)best_rate(probe), "rtt_us",
		    (json_int_t)stats.rtt_min_us, "sent_bytes", (json_int_t)probe->sent, "ms",
		    (json_int_t)(nova_now_ms() - probe->begin_ms));
	}
	probe_free(probe);
	done(arg, result, err);
}

/* Noise, so that nothing on the way can make it smaller than it is. */
static void fill_noise(uint8_t *data, size_t length, uint64_t seed)
{
	uint64_t x = seed * 0x9e3779b97f4a7c15ull + 1;

	for (size_t i = 0; i + 8 <= length; i += 8) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		memcpy(data + i, &x, 8);
	}
}

static void send_more(void *arg)
{
	struct probe *probe = arg;

	while (probe->channel && probe->sent < NOVA_PROBE_MOST && probe->channel->ops->room(probe->channel) > 0) {
		struct nova_buf *buf = nova_buf_new(MESSAGE);

		if (!buf)
			return;
		buf->length = MESSAGE;
		fill_noise(buf->data, MESSAGE, probe->sent + 1);
		probe->sent += MESSAGE;
		probe->channel->ops->send(probe->channel, buf);
	}
}

static void message(void *arg, const uint8_t *data, size_t length)
{
	struct probe *probe = arg;

	probe->channel->ops->consumed(probe->channel, length);
}

static void closed(void *arg, const struct nova_error *err)
{
	struct probe *probe = arg;

	if (err)
		probe_end(probe, err);
}

static const struct nova_channel_events probe_events = { message, send_more, closed };

static bool long_enough(const struct probe *probe, int64_t ms)
{
	struct nova_link_stats stats;

	probe->ops->stats(probe->session, &stats);
	return ms >= NOVA_PROBE_MOST_MS ||
	       (ms >= LEAST_MS && stats.rtt_min_us && ms >= PROBE_TRIPS * (int64_t)stats.rtt_min_us / 1000);
}

static void look(evutil_socket_t fd, short what, void *arg)
{
	struct probe *probe = arg;
	int64_t ms = nova_now_ms() - probe->begin_ms;
	uint64_t left = probe->channel->ops->unacknowledged(probe->channel);

	if (probe->count < LOOKS) {
		probe->looks[probe->count].ms = ms;
		probe->looks[probe->count++].arrived = probe->sent > left ? probe->sent - left : 0;
	}
	send_more(probe);
	if (long_enough(probe, ms) || probe->count == LOOKS || (probe->sent >= NOVA_PROBE_MOST && !left))
		probe_end(probe, NULL);
}

struct nova_op *nova_probe_start(struct event_base *base, const struct nova_link_ops *ops, struct nova_session *session,
    nova_done_fn done, void *arg, struct nova_error *err)
{
	const struct timeval period = nova_timeval_ms(LOOK_MS);
	struct probe *probe = calloc(1, sizeof(*probe));

	if (!probe) {
		nova_error_sys(err, ENOMEM, "a probe of the link");
		return NULL;
	}
	probe->op.drop = probe_drop;
	probe->ops = ops;
	probe->session = session;
	probe->done = done;
	probe->arg = arg;
	probe->begin_ms = nova_now_ms();
	probe->channel = ops->channel(session, NOVA_PROBE_CHANNEL, NOVA_CHANNEL_STREAM, &probe_events, probe, err);
	probe->look = event_new(base, -1, EV_PERSIST, look, probe);
	if (!probe->channel || !probe->look || event_add(probe->look, &period) < 0) {
		if (probe->channel)
			nova_error_sys(err, ENOMEM, "a probe of the link");
		probe_free(probe);
		return NULL;
	}
	return &probe->op;
}

/* ---- the other end: it keeps nothing but the channel ---- */

static void sink_message(void *arg, const uint8_t *data, size_t length)
{
	struct nova_channel *channel = arg;

	channel->ops->consumed(channel, length);
}

static void sink_room(void *arg)
{
}

static void sink_closed(void *arg, const struct nova_error *err)
{
	struct nova_channel *channel = arg;

	channel->ops->free(channel);
}

static const struct nova_channel_events sink_events = { sink_message, sink_room, sink_closed };

void nova_probe_accept(const struct nova_link_ops *ops, struct nova_channel *channel)
{
	ops->channel_events(channel, &sink_events, channel);
}
