/* SPDX-License-Identifier: Apache-2.0
 *
 * pipe.c - between a local socket and a channel: read, encode, send; receive, decode, write.
 *
 * Outwards, the socket is read in pieces of up to 256 KiB straight into the encoder's buffer, and encoded
 * block by block for as long as the channel has room. Inwards, a message is decoded when all before it has
 * left to the socket; those that come in the meantime wait encoded (the channel's window bounds them). So a
 * pipe holds at most 256 KiB of input, one decoded block of 64 KiB, and the window.
 *
 * Outward states: READING, FLUSHING (the socket paused: what the encoder has goes out, then READING again),
 * ENDING (the same after EOF, then DONE), DONE. fn is only called from an event of its own: nothing of ours
 * is below it on the stack, so it may free the pipe.
 */
#include "pipe.h"

#include "clock.h"
#include "codec_block.h"

#include <assert.h>
#include <errno.h>
#include <event2/event.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define TURN_NS 2000000u
#define RATE_MS 100   /* how often the encoder hears what the link takes */
#define STARVED_NS_MIN 10000000u /* of turns; fewer say little */
#define LIMIT_US 2000 /* how often a pipe at its limit looks again */
#define PAUSE_US 1000 /* how long a busy link waits for more before it sends what there is */

enum out_state {
	OUT_READING,
	OUT_FLUSHING,
	OUT_ENDING,
	OUT_DONE
};

/* A message that waits for the socket. */
struct held {
	struct held *next;
	size_t length;
	uint8_t data[];
};

/* Bytes sent, and how much of the stream they hold. */
struct mark {
	uint64_t emitted, raw;
};
#define MARKS 256u
#define MARK_BYTES (1u << 20)
#define AHEAD_BYTES (8u << 20) /* of the stream, that may be on the way, */
#define AHEAD_RATIO 32u        /* and so much for each byte that is */

struct nova_pipe {
	struct nova_channel *channel; /* owned; NULL: dead */
	int fd;
	nova_pipe_fn fn;
	void *arg;
	struct nova_encoder *encoder;
	struct nova_decoder *decoder;
	struct event *readable, *writable, *pause, *out_turn, *in_turn, *report;

	enum out_state out;
	bool out_blocked;             /* no room in the channel */
	uint64_t limit;               /* encoded bytes on the way at most; 0: none */
	uint64_t hold_until_ns;       /* the socket is not read before then; 0: it is */
	uint64_t emitted;             /* bytes of messages */
	struct mark marks[MARKS];     /* not yet taken by the other side, oldest first */
	unsigned mark_first, mark_count;
	uint64_t raw_gone;            /* of the stream, taken by the other side */
	uint64_t rate_ns, rate_bytes; /* when the rate was last reported, and what had left by then */
	uint64_t blocked_ns, blocked_since_ns; /* since then; 0: not blocked now */

	struct held *first, **last;
	size_t held_bytes;
	const uint8_t *raw; /* decoded, the socket has not taken it yet */
	size_t raw_left;
	size_t raw_message; /* bytes of the message it came from */
	bool in_busy;       /* drain() is running: it may be called back */
	bool in_finished;   /* the peer sends no more */
	bool keeps_open;    /* the socket is not told so yet */

	uint64_t step_ns; /* what a block takes to encode, the longest of late */
	struct {
		uint64_t ns, cpu_ns;                 /* of all turns since the rate was last reported */
		uint64_t longest_ns, longest_cpu_ns; /* of one */
	} turns;

	unsigned ended, reported;
	bool broken;
	struct nova_error error;
	uint64_t socket_in_bytes, socket_out_bytes;
};

static const struct timeval at_once = { 0, 0 };
static const struct timeval a_moment = { 0, 3000 };

/* ---- the end ------------------------------------------------------------------------------------ */

static void on_report(evutil_socket_t fd, short what, void *arg)
{
	struct nova_pipe *pipe = arg;
	unsigned ended = pipe->ended;

	if (pipe->broken) {
		pipe->fn(pipe->arg, ended, &pipe->error);
	} else if (ended != pipe->reported) {
		pipe->reported = ended;
		pipe->fn(pipe->arg, ended, NULL);
	}
}

static void stop_events(struct nova_pipe *pipe)
{
	struct event *const events[] = { pipe->readable, pipe->writable, pipe->pause, pipe->out_turn,
		pipe->in_turn };

	for (size_t i = 0; i < sizeof(events) / sizeof(*events); i++)
		if (events[i])
			event_del(events[i]);
}

static void broke(struct nova_pipe *pipe, const struct nova_error *err)
{
	if (pipe->broken)
		return;
	pipe->broken = true;
	nova_error_copy(&pipe->error, err);
	stop_events(pipe);
	event_add(pipe->report, &at_once);
}

static void broke_sys(struct nova_pipe *pipe, const char *what)
{
	struct nova_error err;

	nova_error_sys(&err, errno, "%s the local socket", what);
	broke(pipe, &err);
}

static void direction_ended(struct nova_pipe *pipe, unsigned direction)
{
	pipe->ended |= direction;
	event_add(pipe->report, &at_once);
}

/* ---- turns of the loop -------------------------------------------------------------------------- */

struct turn {
	uint64_t began_ns, began_cpu_ns;
};

static struct turn begin_turn(void)
{
	return (struct turn) { nova_codec_clock_ns(), nova_codec_cpu_ns() };
}

static void end_turn(struct nova_pipe *pipe, const struct turn *turn)
{
	uint64_t ns = nova_codec_clock_ns() - turn->began_ns, cpu_ns = nova_codec_cpu_ns() - turn->began_cpu_ns;

	pipe->turns.ns += ns;
	pipe->turns.cpu_ns += cpu_ns;
	if (ns > pipe->turns.longest_ns)
		pipe->turns.longest_ns = ns;
	if (cpu_ns > pipe->turns.longest_cpu_ns)
		pipe->turns.longest_cpu_ns = cpu_ns;
}

/* We never sleep within a turn: what it took beyond our processor time, we waited for the processor. */
static void report_starved(struct nova_pipe *pipe)
{
	if (pipe->turns.ns < STARVED_NS_MIN)
		return;
	nova_encoder_starved(pipe->encoder, 1 - (double)pipe->turns.cpu_ns / (double)pipe->turns.ns);
	pipe->turns.ns = pipe->turns.cpu_ns = 0;
}

/* ---- socket to channel -------------------------------------------------------------------------- */

/* Remember how much of the stream is in the bytes sent so far, once a MiB; without room for a mark, coarser. */
static void set_mark(struct nova_pipe *pipe)
{
	const struct mark *last = &pipe->marks[(pipe->mark_first + pipe->mark_count - 1) % MARKS];

	if (pipe->mark_count == MARKS || (pipe->mark_count && pipe->socket_in_bytes - last->raw < MARK_BYTES))
		return;
	pipe->marks[(pipe->mark_first + pipe->mark_count++) % MARKS] =
	    (struct mark){ pipe->emitted, pipe->socket_in_bytes };
}

/* What shrinks a hundredfold fits a window a hundred times over, and all that the other side has not unpacked when the
 * guest stops is downtime. */
static bool too_far_ahead(struct nova_pipe *pipe)
{
	uint64_t on_the_way = pipe->channel->ops->unacknowledged(pipe->channel);

	while (pipe->mark_count && pipe->marks[pipe->mark_first].emitted + on_the_way <= pipe->emitted) {
		pipe->raw_gone = pipe->marks[pipe->mark_first].raw;
		pipe->mark_first = (pipe->mark_first + 1) % MARKS;
		pipe->mark_count--;
	}
	return on_the_way && pipe->socket_in_bytes - pipe->raw_gone > AHEAD_BYTES + AHEAD_RATIO * on_the_way;
}

static void on_emit(void *arg, struct nova_buf *buf)
{
	struct nova_pipe *pipe = arg;

	pipe->emitted += buf->length;
	set_mark(pipe);
	if (pipe->channel)
		pipe->channel->ops->send(pipe->channel, buf);
	else
		nova_buf_free(buf);
}

/* The socket has nothing now. If the link is busy, more may come before what we hold would leave. */
static void out_paused(struct nova_pipe *pipe)
{
	const struct timeval soon = nova_timeval_us(PAUSE_US);

	if (pipe->channel->ops->unacknowledged(pipe->channel) == 0) {
		pipe->out = OUT_FLUSHING;
		return;
	}
	event_add(pipe->readable, NULL);
	event_add(pipe->pause, &soon);
}

/* 1: something was read; 0: nothing now; -1: broken. */
static int out_read(struct nova_pipe *pipe)
{
	size_t room;
	uint8_t *space = nova_encoder_space(pipe->encoder, &room);
	ssize_t n;

	assert(space); /* the encoder has nothing left to do: it has room */
	n = read(pipe->fd, space, room);
	if (n > 0) {
		nova_encoder_filled(pipe->encoder, (size_t)n);
		pipe->socket_in_bytes += (uint64_t)n;
		event_del(pipe->pause);
		return 1;
	}
	if (n == 0) {
		event_del(pipe->readable);
		event_del(pipe->pause);
		pipe->out = OUT_ENDING;
		return 1;
	}
	if (errno == EINTR)
		return 1;
	if (errno != EAGAIN && errno != EWOULDBLOCK) {
		broke_sys(pipe, "reading");
		return -1;
	}
	out_paused(pipe);
	return pipe->out == OUT_FLUSHING;
}

/* The encoder has given all it had in this state. 1: go on; 0: wait. */
static int out_next(struct nova_pipe *pipe)
{
	switch (pipe->out) {
	case OUT_READING:
		return out_read(pipe) > 0;
	case OUT_FLUSHING:
		pipe->out = OUT_READING;
		event_add(pipe->readable, NULL);
		return 0;
	case OUT_ENDING:
		pipe->out = OUT_DONE;
		pipe->channel->ops->finish(pipe->channel);
		direction_ended(pipe, NOVA_PIPE_TO_CHANNEL);
		return 0;
	case OUT_DONE:
		break;
	}
	return 0;
}

static void set_blocked(struct nova_pipe *pipe, uint64_t now, bool blocked)
{
	if (pipe->blocked_since_ns)
		pipe->blocked_ns += now - pipe->blocked_since_ns;
	pipe->blocked_since_ns = blocked ? now : 0;
	pipe->out_blocked = blocked;
}

/* Tell the encoder what has left since the last time. The link is what limits us if we stood before a full
 * queue for more than a fifth of that time. */
static void report_rate(struct nova_pipe *pipe, uint64_t now)
{
	uint64_t left = pipe->emitted - pipe->channel->ops->unacknowledged(pipe->channel);
	uint64_t ns = now - pipe->rate_ns;

	if (ns < RATE_MS * 1000000ull)
		return;
	set_blocked(pipe, now, pipe->out_blocked);
	report_starved(pipe);
	if (pipe->rate_ns && left > pipe->rate_bytes)
		nova_encoder_link_rate(pipe->encoder, (double)(left - pipe->rate_bytes) * 1e9 / (double)ns,
		    pipe->blocked_ns > ns / 5);
	pipe->rate_ns = now;
	pipe->rate_bytes = left;
	pipe->blocked_ns = 0;
}

static int encode_step(struct nova_pipe *pipe, uint64_t now, struct nova_error *err)
{
	int rc = nova_encoder_step(pipe->encoder, pipe->out != OUT_READING, err);
	uint64_t took = nova_codec_clock_ns() - now, before = pipe->step_ns - pipe->step_ns / 8;

	pipe->step_ns = took > before ? took : before;
	return rc;
}

/* Nobody tells when less is on the way: look again soon. */
static bool at_limit(struct nova_pipe *pipe)
{
	const struct timeval soon = nova_timeval_us(LIMIT_US);

	if (!pipe->limit || pipe->channel->ops->unacknowledged(pipe->channel) < pipe->limit)
		return false;
	event_add(pipe->out_turn, &soon);
	return true;
}

/* Held: look again when it is over. */
static bool on_hold(struct nova_pipe *pipe, uint64_t now)
{
	const struct timeval rest = nova_timeval_us((int64_t)(pipe->hold_until_ns - now) / 1000 + 1);

	if (pipe->hold_until_ns <= now) {
		pipe->hold_until_ns = 0;
		return false;
	}
	event_del(pipe->readable);
	event_del(pipe->pause);
	event_add(pipe->out_turn, &rest);
	return true;
}

static void pump_out_turn(struct nova_pipe *pipe, uint64_t began)
{
	struct nova_error err;
	bool stepped = false;

	set_blocked(pipe, began, false);
	if (!pipe->broken && pipe->out != OUT_DONE)
		report_rate(pipe, began);
	while (!pipe->broken && pipe->out != OUT_DONE) {
		uint64_t now = nova_codec_clock_ns();
		int rc;

		if (at_limit(pipe) || pipe->channel->ops->room(pipe->channel) == 0) {
			set_blocked(pipe, now, true);
			event_del(pipe->readable);
			event_del(pipe->pause);
			return;
		}
		if (pipe->out == OUT_READING && on_hold(pipe, now))
			return;
		if (pipe->out == OUT_READING && too_far_ahead(pipe)) {
			event_del(pipe->readable);
			event_del(pipe->pause);
			event_add(pipe->out_turn, &a_moment);
			return;
		}
		if (stepped && now - began + pipe->step_ns > TURN_NS) {
			event_del(pipe->readable);
			event_add(pipe->out_turn, &at_once);
			return;
		}
		rc = encode_step(pipe, now, &err);
		stepped = true;
		if (rc < 0)
			broke(pipe, &err);
		else if (rc == 0 && !out_next(pipe))
			return;
	}
}

static void pump_out(struct nova_pipe *pipe)
{
	struct turn turn = begin_turn();

	pump_out_turn(pipe, turn.began_ns);
	end_turn(pipe, &turn);
}

static void on_out(evutil_socket_t fd, short what, void *arg)
{
	pump_out(arg);
}

static void on_pause(evutil_socket_t fd, short what, void *arg)
{
	struct nova_pipe *pipe = arg;

	if (pipe->out == OUT_READING)
		pipe->out = OUT_FLUSHING;
	pump_out(pipe);
}

static void channel_room(void *arg)
{
	struct nova_pipe *pipe = arg;

	if (!pipe->broken && pipe->out_blocked)
		event_add(pipe->out_turn, &at_once);
}

/* ---- channel to socket -------------------------------------------------------------------------- */

/* 1: the decoded bytes are gone; 0: the socket is full; -1: broken. */
static int write_raw(struct nova_pipe *pipe)
{
	while (pipe->raw_left) {
		ssize_t n = send(pipe->fd, pipe->raw, pipe->raw_left, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n >= 0) {
			pipe->raw += n;
			pipe->raw_left -= (size_t)n;
			pipe->socket_out_bytes += (uint64_t)n;
			continue;
		}
		if (errno == EINTR)
			continue;
		if (errno == EAGAIN || errno == EWOULDBLOCK) {
			event_add(pipe->writable, NULL);
			return 0;
		}
		broke_sys(pipe, "writing");
		return -1;
	}
	if (pipe->raw_message && pipe->channel)
		pipe->channel->ops->consumed(pipe->channel, pipe->raw_message);
	pipe->raw_message = 0;
	return 1;
}

static int decode_and_write(struct nova_pipe *pipe, const uint8_t *data, size_t length)
{
	struct nova_error err;

	if (nova_decoder_feed(pipe->decoder, data, length, &pipe->raw, &pipe->raw_left, &err) < 0) {
		broke(pipe, &err);
		return -1;
	}
	pipe->raw_message = length;
	return write_raw(pipe);
}

static struct held *take_held(struct nova_pipe *pipe)
{
	struct held *held = pipe->first;

	if (!held)
		return NULL;
	pipe->first = held->next;
	if (!pipe->first)
		pipe->last = &pipe->first;
	pipe->held_bytes -= held->length;
	return held;
}

static void drain(struct nova_pipe *pipe)
{
	uint64_t began = nova_codec_clock_ns();
	int rc = write_raw(pipe);

	while (rc > 0 && pipe->first) {
		struct held *held;

		if (nova_codec_clock_ns() - began > TURN_NS) {
			event_add(pipe->in_turn, &at_once);
			return;
		}
		held = take_held(pipe);
		rc = decode_and_write(pipe, held->data, held->length);
		free(held);
	}
	if (rc > 0 && pipe->in_finished && !pipe->keeps_open && !(pipe->ended & NOVA_PIPE_TO_SOCKET)) {
		shutdown(pipe->fd, SHUT_WR);
		direction_ended(pipe, NOVA_PIPE_TO_SOCKET);
	}
}

static void pump_in(struct nova_pipe *pipe)
{
	struct turn turn;

	if (pipe->broken || pipe->in_busy)
		return;
	turn = begin_turn();
	pipe->in_busy = true;
	drain(pipe);
	pipe->in_busy = false;
	end_turn(pipe, &turn);
}

static void on_in(evutil_socket_t fd, short what, void *arg)
{
	pump_in(arg);
}

static void hold(struct nova_pipe *pipe, const uint8_t *data, size_t length)
{
	struct held *held = malloc(sizeof(*held) + length);
	struct nova_error err;

	if (!held) {
		nova_error_set(&err, NOVA_SYSTEM, "out of memory for a message of %zu bytes", length);
		broke(pipe, &err);
		return;
	}
	held->next = NULL;
	held->length = length;
	memcpy(held->data, data, length);
	*pipe->last = held;
	pipe->last = &held->next;
	pipe->held_bytes += length;
}

static void channel_message(void *arg, const uint8_t *data, size_t length)
{
	struct nova_pipe *pipe = arg;

	if (pipe->broken)
		return;
	if (pipe->in_busy || pipe->raw_left || pipe->first) {
		hold(pipe, data, length);
		return;
	}
	pipe->in_busy = true;
	decode_and_write(pipe, data, length);
	pipe->in_busy = false;
	if (pipe->first) /* came while we were busy */
		event_add(pipe->in_turn, &at_once);
}

static void channel_closed(void *arg, const struct nova_error *err)
{
	struct nova_pipe *pipe = arg;

	if (err) {
		pipe->channel->ops->free(pipe->channel);
		pipe->channel = NULL;
		broke(pipe, err);
		return;
	}
	pipe->in_finished = true;
	event_add(pipe->in_turn, &at_once);
}

/* ---- the interface ------------------------------------------------------------------------------ */

static const struct nova_channel_events events = {
	.message = channel_message,
	.room = channel_room,
	.closed = channel_closed,
};

static int make_events(struct nova_pipe *pipe, struct event_base *base)
{
	pipe->readable = event_new(base, pipe->fd, EV_READ | EV_PERSIST, on_out, pipe);
	pipe->writable = event_new(base, pipe->fd, EV_WRITE, on_in, pipe);
	pipe->pause = evtimer_new(base, on_pause, pipe);
	pipe->out_turn = evtimer_new(base, on_out, pipe);
	pipe->in_turn = evtimer_new(base, on_in, pipe);
	pipe->report = evtimer_new(base, on_report, pipe);
	return pipe->readable && pipe->writable && pipe->pause && pipe->out_turn && pipe->in_turn &&
	       pipe->report;
}

struct nova_pipe *nova_pipe_new(struct event_base *base, const struct nova_link_ops *links, int fd,
    struct nova_channel *channel, const struct nova_pipe_options *options, nova_pipe_fn fn, void *arg,
    struct nova_error *err)
{
	struct nova_pipe *pipe = calloc(1, sizeof(*pipe));

	if (!pipe) {
		close(fd);
		channel->ops->free(channel);
		nova_error_set(err, NOVA_SYSTEM, "out of memory for a pipe");
		return NULL;
	}
	pipe->fd = fd;
	pipe->channel = channel;
	pipe->fn = fn;
	pipe->arg = arg;
	pipe->last = &pipe->first;
	pipe->encoder = nova_encoder_new(&options->out, options->scanner, on_emit, pipe, err);
	pipe->decoder = pipe->encoder ? nova_decoder_new(&options->in, err) : NULL;
	if (!pipe->decoder)
		return nova_pipe_free(pipe);
	if (!make_events(pipe, base)) {
		nova_error_set(err, NOVA_SYSTEM, "out of memory for the events of a pipe");
		return nova_pipe_free(pipe);
	}
	links->channel_events(channel, &events, pipe);
	event_add(pipe->readable, NULL);
	return pipe;
}

struct nova_pipe *nova_pipe_free(struct nova_pipe *pipe)
{
	struct held *held;

	if (!pipe)
		return NULL;
	if (pipe->readable)
		event_free(pipe->readable);
	if (pipe->writable)
		event_free(pipe->writable);
	if (pipe->pause)
		event_free(pipe->pause);
	if (pipe->out_turn)
		event_free(pipe->out_turn);
	if (pipe->in_turn)
		event_free(pipe->in_turn);
	if (pipe->report)
		event_free(pipe->report);
	if (pipe->channel)
		pipe->channel->ops->free(pipe->channel);
	while ((held = take_held(pipe)))
		free(held);
	nova_encoder_free(pipe->encoder);
	nova_decoder_free(pipe->decoder);
	close(pipe->fd);
	free(pipe);
	return NULL;
}

void nova_pipe_stats(const struct nova_pipe *pipe, struct nova_pipe_stats *stats)
{
	nova_encoder_stats(pipe->encoder, &stats->out);
	nova_decoder_stats(pipe->decoder, &stats->in);
	stats->socket_in_bytes = pipe->socket_in_bytes;
	stats->socket_out_bytes = pipe->socket_out_bytes;
	stats->held_bytes = pipe->held_bytes + pipe->raw_left;
	stats->longest_turn_us = pipe->turns.longest_ns / 1000;
	stats->longest_turn_cpu_us = pipe->turns.longest_cpu_ns / 1000;
	stats->unacknowledged_bytes = pipe->channel ? pipe->channel->ops->unacknowledged(pipe->channel) : 0;
}

void nova_pipe_limit(struct nova_pipe *pipe, uint64_t bytes)
{
	pipe->limit = bytes;
}

void nova_pipe_hold(struct nova_pipe *pipe, int ms)
{
	if (pipe->broken || (!ms && !pipe->hold_until_ns))
		return;
	pipe->hold_until_ns = ms ? nova_codec_clock_ns() + (uint64_t)ms * 1000000 : 0;
	event_add(pipe->out_turn, &at_once);
}

void nova_pipe_keep_open(struct nova_pipe *pipe, bool keep)
{
	pipe->keeps_open = keep;
	if (!keep && !pipe->broken)
		event_add(pipe->in_turn, &at_once);
}

/* The encoder holds what it has in the states READING (a pause is timed) and FLUSHING. */
bool nova_pipe_idle(const struct nova_pipe *pipe)
{
	struct pollfd socket = { .fd = pipe->fd, .events = POLLIN };

	if (pipe->broken || pipe->out_blocked || pipe->out != OUT_READING || nova_encoder_holds(pipe->encoder))
		return false;
	return poll(&socket, 1, 0) == 0;
}

const struct nova_codec_choice *nova_pipe_choices(const struct nova_pipe *pipe, size_t *count)
{
	return nova_encoder_choices(pipe->encoder, count);
}

void nova_pipe_cpu_share(struct nova_pipe *pipe, double cpu_share)
{
	nova_encoder_cpu_share(pipe->encoder, cpu_share);
}

void nova_pipe_digest_out(const struct nova_pipe *pipe, uint8_t digest[16], uint64_t *raw_bytes)
{
	nova_encoder_digest(pipe->encoder, digest, raw_bytes);
}

void nova_pipe_digest_in(const struct nova_pipe *pipe, uint8_t digest[16], uint64_t *raw_bytes)
{
	nova_decoder_digest(pipe->decoder, digest, raw_bytes);
}
