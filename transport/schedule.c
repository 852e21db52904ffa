/* SPDX-License-Identifier: Apache-2.0
 *
 * schedule.c - which frame a lane sends next.
 *
 * First what keeps the session alive and moving (PONG, PING, OPEN, ACK), then requests and answers: these
 * bypass the rate limits, and are charged to them. Then urgent channels, then the bulk channel that has
 * had the least so far for its weight: a disk gets a third of what a stream gets, as a guest's memory is what its
 * pause waits for. A bulk frame is at most frame_bytes long (measure.c), so nothing urgent waits long
 * behind one.
 */
#include "link.h"

#include <string.h>

#define DISK_COST 3u /* a disk's bytes weigh so much more than a stream's when both have something to send */

static int put_small(struct lane *lane, struct frame_header *header, const void *payload, size_t length,
    struct nova_error *err)
{
	uint8_t frame[FRAME_HEADER_BYTES + FRAME_SMALL_MAX];
	size_t used = frame_put_small(frame, header, payload, length);

	return pump_put(&lane->pump, frame, used, err) < 0 ? -1 : 1;
}

static int put_stamp(struct lane *lane, enum frame_type type, uint64_t stamp, struct nova_error *err)
{
	struct frame_header header = { .type = (uint8_t)type };

	return put_small(lane, &header, &stamp, sizeof(stamp), err);
}

static int put_heartbeat(struct lane *lane, uint64_t now_ns, struct nova_error *err)
{
	if (lane->pong_due) {
		lane->pong_due = false;
		return put_stamp(lane, FRAME_PONG, lane->pong, err);
	}
	lane->ping_due = false;
	lane->pinged_ns = now_ns;
	return put_stamp(lane, FRAME_PING, now_ns, err);
}

static int put_note(struct lane *lane, struct channel *channel, struct nova_error *err)
{
	struct frame_header header = { .channel = channel->id };
	uint8_t kind = (uint8_t)channel->kind, payload[FRAME_ACK_BYTES];
	struct frame_ack ack;

	if (channel->open_due) {
		channel->open_due = false;
		header.type = FRAME_OPEN;
		return put_small(lane, &header, &kind, 1, err);
	}
	ack = channel_take_ack(channel);
	header.type = FRAME_ACK;
	frame_put_ack(payload, &header, &ack);
	return put_small(lane, &header, payload, sizeof(payload), err);
}

/* The header goes right below the segment's bytes for the call, so that one TLS record holds both. The
 * bytes there may belong to a part that must still be sent again. */
static int put_segment(struct lane *lane, struct channel *channel, struct nova_error *err)
{
	struct segment *segment = outbox_take(&channel->out, lane->number, lane->session->frame_bytes);
	struct frame_header header = { .type = FRAME_DATA, .channel = channel->id };
	uint8_t saved[FRAME_HEADER_BYTES], *at;
	int result;

	if (!segment)
		return 0;
	header.flags = (uint8_t)((segment->end ? FRAME_END : 0) | (segment->buf ? 0 : FRAME_FIN) |
	                         channel->kind << FRAME_KIND_SHIFT);
	header.offset = segment->offset;
	if (segment->resent)
		lane->session->resent_bytes += segment->span;
	channel->virtual_bytes += (uint64_t)segment->span * (channel->kind == NOVA_CHANNEL_DISK ? DISK_COST : 1);
	if (!segment->buf)
		return put_small(lane, &header, NULL, 0, err);
	header.length = segment->span;
	segment->at = UINT64_MAX; /* until it is known */
	at = segment->buf->data + segment->within - FRAME_HEADER_BYTES;
	memcpy(saved, at, sizeof(saved));
	frame_put_header(at, &header);
	result = pump_put(&lane->pump, at, FRAME_HEADER_BYTES + segment->span, err);
	memcpy(at, saved, sizeof(saved));
	segment->at = lane->pump.made_bytes + lane->pump.staged;
	return result < 0 ? -1 : 1;
}

static bool note_due(const struct channel *channel)
{
	return !channel->dead && (channel->open_due || channel->ack_due);
}

static bool tokens(struct nova_session *session, uint64_t now_ns)
{
	struct bucket *own = &session->bucket, *host = &session->links->bucket;
	uint64_t wait;

	if (bucket_ready(own, now_ns) && bucket_ready(host, now_ns))
		return true;
	wait = bucket_wait_ns(own);
	if (wait < bucket_wait_ns(host))
		wait = bucket_wait_ns(host);
	session->starved = true;
	links_want_tokens(session->links, wait);
	return false;
}

/* The channel whose turn it is; NULL: none has anything to send. */
static struct channel *next_channel(struct nova_session *session)
{
	struct channel *best = NULL;

	for (struct channel *channel = session->channels; channel; channel = channel->next) {
		bool urgent = channel->kind == NOVA_CHANNEL_URGENT,
		     best_urgent = best && best->kind == NOVA_CHANNEL_URGENT;

		if (channel->dead || !outbox_ready(&channel->out) || (best_urgent && !urgent))
			continue;
		if (!best || (urgent && !best_urgent) || channel->virtual_bytes < best->virtual_bytes)
			best = channel;
	}
	return best;
}

/* Who was idle does not get what it did not use. */
static void keep_pace(struct nova_session *session, const struct channel *chosen)
{
	for (struct channel *channel = session->channels; channel; channel = channel->next) {
		if (channel->virtual_bytes < chosen->virtual_bytes && !outbox_ready(&channel->out))
			channel->virtual_bytes = chosen->virtual_bytes;
	}
}

int schedule_next(struct lane *lane, uint64_t now_ns, struct nova_error *err)
{
	struct nova_session *session = lane->session;
	struct channel *channel;

	if (lane->pong_due || lane->ping_due)
		return put_heartbeat(lane, now_ns, err);
	if (note_due(&session->control))
		return put_note(lane, &session->control, err);
	for (channel = session->channels; channel; channel = channel->next) {
		if (note_due(channel))
			return put_note(lane, channel, err);
	}
	if (outbox_ready(&session->control.out))
		return put_segment(lane, &session->control, err);
	channel = next_channel(session);
	if (!channel || !tokens(session, now_ns))
		return 0;
	keep_pace(session, channel);
	return put_segment(lane, channel, err);
}

size_t schedule_batch(const struct nova_session *session)
{
	return session->queue_bytes < LANE_BATCH_BYTES ? session->queue_bytes : LANE_BATCH_BYTES;
}
