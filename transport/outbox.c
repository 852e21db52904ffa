/* SPDX-License-Identifier: Apache-2.0
 *
 * outbox.c - cut messages into segments, keep them until the peer has them, send again what lanes lost.
 *
 * Bounded by the peer's window (at most 64 MiB), by FRAME_UNACKED_MAX segments in flight, and by the
 * channel's room() for what is queued. Not here: which channel comes next (schedule.c).
 */
#include "outbox.h"

#include <assert.h>
#include <stdlib.h>

void outbox_init(struct outbox *outbox)
{
	*outbox = (struct outbox) { .limit = FRAME_WINDOW_START };
}

void outbox_release(struct outbox *outbox)
{
	while (outbox->segments) {
		struct segment *segment = outbox->segments;

		outbox->segments = segment->next;
		free(segment);
	}
	while (outbox->head) {
		struct nova_buf *buf = outbox->head;

		outbox->head = buf->next;
		nova_buf_free(buf);
	}
	*outbox = (struct outbox) { 0 };
}

void outbox_add(struct outbox *outbox, struct nova_buf *buf)
{
	assert(!outbox->finished && buf->length);
	buf->next = NULL;
	buf->offset = outbox->end;
	outbox->end += buf->length;
	if (outbox->tail)
		outbox->tail->next = buf;
	else
		outbox->head = buf;
	outbox->tail = buf;
	if (!outbox->cursor)
		outbox->cursor = buf;
}

void outbox_finish(struct outbox *outbox)
{
	if (outbox->finished)
		return;
	outbox->finished = true;
	outbox->end++;
}

static bool new_ready(const struct outbox *outbox)
{
	if (outbox->segment_count >= FRAME_UNACKED_MAX)
		return false;
	if (outbox->cursor)
		return outbox->sent < outbox->limit;
	return outbox->finished && !outbox->fin_sent;
}

bool outbox_ready(const struct outbox *outbox)
{
	return outbox->lost_count || new_ready(outbox);
}

static struct segment *take_lost(struct outbox *outbox, uint32_t lane)
{
	struct segment *segment = outbox->segments;

	while (segment->lane)
		segment = segment->next;
	segment->lane = lane;
	segment->resent = !segment->unsent;
	outbox->lost_count--;
	return segment;
}

/* Fill a segment from the cursor and move it. */
static void cut(struct outbox *outbox, struct segment *segment, uint32_t most_bytes)
{
	struct nova_buf *buf = outbox->cursor;
	uint32_t left = buf->length - outbox->cursor_within;
	uint64_t window = outbox->limit - outbox->sent;

	/* A little over the wish is better than a tiny frame after it. */
	segment->span = left <= most_bytes + most_bytes / 2 ? left : most_bytes;
	if (segment->span > window)
		segment->span = (uint32_t)window;
	segment->buf = buf;
	segment->within = outbox->cursor_within;
	segment->end = segment->span == left;
	outbox->cursor_within += segment->span;
	if (segment->end) {
		outbox->cursor = buf->next;
		outbox->cursor_within = 0;
	}
}

struct segment *outbox_take(struct outbox *outbox, uint32_t lane, uint32_t most_bytes)
{
	struct segment *segment;

	if (outbox->lost_count)
		return take_lost(outbox, lane);
	if (!new_ready(outbox))
		return NULL;
	segment = calloc(1, sizeof(*segment));
	if (!segment)
		return NULL;
	segment->lane = lane;
	segment->offset = outbox->sent;
	if (outbox->cursor) {
		cut(outbox, segment, most_bytes);
	} else {
		segment->span = 1;
		outbox->fin_sent = true;
	}
	outbox->sent += segment->span;
	if (outbox->last)
		outbox->last->next = segment;
	else
		outbox->segments = segment;
	outbox->last = segment;
	outbox->segment_count++;
	return segment;
}

static void drop_received(struct outbox *outbox)
{
	while (outbox->segments && outbox->segments->offset + outbox->segments->span <= outbox->received) {
		struct segment *segment = outbox->segments;

		outbox->segments = segment->next;
		if (!outbox->segments)
			outbox->last = NULL;
		outbox->segment_count--;
		if (!segment->lane)
			outbox->lost_count--;
		free(segment);
	}
	/* A partly received segment still points into its message: that one stays. */
	while (outbox->head && outbox->head->offset + outbox->head->length <= outbox->received &&
	       (!outbox->segments || outbox->segments->buf != outbox->head)) {
		struct nova_buf *buf = outbox->head;

		outbox->head = buf->next;
		if (!outbox->head)
			outbox->tail = NULL;
		nova_buf_free(buf);
	}
}

int outbox_ack(struct outbox *outbox, const struct frame_ack *ack, struct nova_error *err)
{
	if (ack->received > outbox->sent)
		return nova_error_set(err, NOVA_INVALID, "peer acknowledges byte %llu of %llu sent",
		    (unsigned long long)ack->received, (unsigned long long)outbox->sent);
	if (ack->consumed > outbox->consumed)
		outbox->consumed = ack->consumed;
	if (ack->consumed + ack->window > outbox->limit)
		outbox->limit = ack->consumed + ack->window;
	if (ack->received > outbox->received) {
		outbox->received = ack->received;
		drop_received(outbox);
	}
	return 0;
}

void outbox_lane_lost(struct outbox *outbox, uint32_t lane, uint64_t sent_bytes)
{
	for (struct segment *segment = outbox->segments; segment; segment = segment->next) {
		if (segment->lane == lane) {
			segment->lane = 0;
			segment->unsent = segment->at > sent_bytes;
			outbox->lost_count++;
		}
	}
}
