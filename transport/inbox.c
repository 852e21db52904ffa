/* SPDX-License-Identifier: Apache-2.0
 *
 * inbox.c - put frames that lanes deliver in any order, twice, or in pieces, back into messages.
 *
 * The common frame (one whole message, the next offset) is delivered from the lane's own buffer. Frames
 * that are early are kept: at most the window in bytes and FRAME_UNACKED_MAX in number, each in memory of
 * about its own size. A message in pieces is put together in one buffer of 256 KiB.
 */
#include "inbox.h"

#include <stdlib.h>
#include <string.h>

struct fragment {
	struct fragment *next;
	struct nova_buf *buf; /* owned; NULL: FIN */
	const uint8_t *data;  /* inside buf */
	uint64_t offset;
	uint32_t span; /* offsets it takes: bytes, or 1 for FIN */
	bool end;
};

void inbox_init(struct inbox *inbox)
{
	*inbox = (struct inbox) { .limit = FRAME_WINDOW_START, .window = FRAME_WINDOW_START };
}

static void fragment_free(struct fragment *fragment)
{
	nova_buf_free(fragment->buf);
	free(fragment);
}

void inbox_release(struct inbox *inbox)
{
	while (inbox->early) {
		struct fragment *fragment = inbox->early;

		inbox->early = fragment->next;
		fragment_free(fragment);
	}
	nova_buf_free(inbox->partial);
	*inbox = (struct inbox) { 0 };
}

void inbox_consumed(struct inbox *inbox, size_t bytes)
{
	uint64_t most = inbox->delivered - (inbox->finished ? 1 : 0) - inbox->consumed;

	inbox->consumed += bytes < most ? bytes : most;
}

struct frame_ack inbox_ack(struct inbox *inbox)
{
	if (inbox->consumed + inbox->window > inbox->limit)
		inbox->limit = inbox->consumed + inbox->window;
	return (struct frame_ack) {
		.received = inbox->received,
		.consumed = inbox->consumed,
		.window = (uint32_t)(inbox->limit - inbox->consumed),
	};
}

/* The next bytes in order. 1: go on, 0: the user let the channel go. */
static int deliver(struct inbox *inbox, const struct fragment *fragment, const struct inbox_events *events,
    void *arg, struct nova_error *err)
{
	struct nova_buf *whole;
	bool alive;

	if (inbox->finished)
		return nova_error_set(err, NOVA_INVALID, "data after the end of the channel");
	inbox->received += fragment->span;
	if (!fragment->data) {
		if (inbox->partial)
			return nova_error_set(err, NOVA_INVALID, "the channel ends inside a message");
		inbox->finished = true;
		inbox->delivered = inbox->received;
		return events->fin(arg);
	}
	if (fragment->end && !inbox->partial) {
		inbox->delivered = inbox->received;
		return events->message(arg, fragment->data, fragment->span);
	}
	if (!inbox->partial && !(inbox->partial = nova_buf_new(NOVA_MESSAGE_MAX)))
		return nova_error_set(err, NOVA_SYSTEM, "no memory for a message");
	if (fragment->span > NOVA_MESSAGE_MAX - inbox->partial->length)
		return nova_error_set(err, NOVA_INVALID, "message of more than %u bytes", NOVA_MESSAGE_MAX);
	memcpy(inbox->partial->data + inbox->partial->length, fragment->data, fragment->span);
	inbox->partial->length += fragment->span;
	if (!fragment->end)
		return 1;
	whole = inbox->partial;
	inbox->partial = NULL;
	inbox->delivered = inbox->received;
	alive = events->message(arg, whole->data, whole->length);
	nova_buf_free(whole);
	return alive;
}

static void trim_front(struct fragment *fragment, uint64_t until)
{
	uint32_t cut = (uint32_t)(until - fragment->offset);

	fragment->offset += cut;
	fragment->span -= cut;
	if (fragment->data)
		fragment->data += cut;
}

/* Hold the bytes in memory of about their size: a frame of few bytes must not pin a large buffer. */
static struct fragment *keep(const struct fragment *from, struct nova_buf **buf)
{
	struct fragment *kept = malloc(sizeof(*kept));

	if (!kept)
		return NULL;
	*kept = *from;
	if (!from->data)
		return kept;
	if (from->span >= (*buf)->capacity / 2) {
		kept->buf = *buf;
		*buf = NULL;
		return kept;
	}
	kept->buf = nova_buf_new(from->span);
	if (!kept->buf) {
		free(kept);
		return NULL;
	}
	memcpy(kept->buf->data, from->data, from->span);
	kept->data = kept->buf->data;
	return kept;
}

static int insert_early(
    struct inbox *inbox, struct fragment *fragment, struct nova_buf **buf, struct nova_error *err)
{
	struct fragment **at = &inbox->early, *kept;

	while (*at && (*at)->offset + (*at)->span <= fragment->offset)
		at = &(*at)->next;
	if (*at && (*at)->offset <= fragment->offset) {
		if ((*at)->offset + (*at)->span >= fragment->offset + fragment->span)
			return 1;
		trim_front(fragment, (*at)->offset + (*at)->span);
		at = &(*at)->next;
	}
	while (*at && (*at)->offset + (*at)->span <= fragment->offset + fragment->span) {
		struct fragment *covered = *at;

		*at = covered->next;
		inbox->early_count--;
		fragment_free(covered);
	}
	if (*at && (*at)->offset < fragment->offset + fragment->span) {
		fragment->span = (uint32_t)((*at)->offset - fragment->offset);
		fragment->end = false;
	}
	if (!fragment->span)
		return 1;
	if (inbox->early_count >= FRAME_UNACKED_MAX)
		return nova_error_set(
		    err, NOVA_INVALID, "more than %u frames ahead of a missing one", FRAME_UNACKED_MAX);
	kept = keep(fragment, buf);
	if (!kept)
		return nova_error_set(err, NOVA_SYSTEM, "no memory for a frame");
	kept->next = *at;
	*at = kept;
	inbox->early_count++;
	return 1;
}

/* Frames that had waited for what was just delivered. */
static int deliver_early(
    struct inbox *inbox, const struct inbox_events *events, void *arg, struct nova_error *err)
{
	int more = 1;

	while (more > 0 && inbox->early && inbox->early->offset <= inbox->received) {
		struct fragment *fragment = inbox->early;

		inbox->early = fragment->next;
		inbox->early_count--;
		if (fragment->offset < inbox->received && fragment->offset + fragment->span > inbox->received)
			trim_front(fragment, inbox->received);
		if (fragment->offset == inbox->received)
			more = deliver(inbox, fragment, events, arg, err);
		fragment_free(fragment);
	}
	return more;
}

int inbox_add(struct inbox *inbox, const struct frame_header *header, struct nova_buf **buf,
    const struct inbox_events *events, void *arg, struct nova_error *err)
{
	struct fragment fragment = {
		.data = header->flags & FRAME_FIN ? NULL : (*buf)->data,
		.offset = header->offset,
		.span = header->flags & FRAME_FIN ? 1 : header->length,
		.end = header->flags & FRAME_END,
	};
	int more;

	if (fragment.data && fragment.offset + fragment.span > inbox->limit)
		return nova_error_set(err, NOVA_INVALID, "data up to %llu: %llu is the end of the window",
		    (unsigned long long)(fragment.offset + fragment.span), (unsigned long long)inbox->limit);
	if (!fragment.data && fragment.offset > inbox->limit)
		return nova_error_set(err, NOVA_INVALID, "end of the channel beyond its window");
	if (fragment.offset + fragment.span <= inbox->received)
		return 0;
	if (fragment.offset < inbox->received)
		trim_front(&fragment, inbox->received);
	if (fragment.offset > inbox->received)
		return insert_early(inbox, &fragment, buf, err) < 0 ? -1 : 0;
	more = deliver(inbox, &fragment, events, arg, err);
	if (more > 0)
		more = deliver_early(inbox, events, arg, err);
	return more < 0 ? -1 : 0;
}
