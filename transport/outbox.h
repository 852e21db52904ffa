/* SPDX-License-Identifier: Apache-2.0
 *
 * outbox.h - one channel's sending direction: messages until the peer has them.
 *
 * Messages are cut into segments as lanes ask for bytes. A segment remembers the lane that carried it:
 * if that lane dies before the peer says it has the bytes, the segment goes again, over any lane, in the
 * same shape. Offsets count payload bytes; FIN takes one.
 */
#ifndef NOVA_OUTBOX_H
#define NOVA_OUTBOX_H

#include "frame.h"

struct segment {
	struct segment *next;
	struct nova_buf *buf; /* borrowed: in the outbox while the segment is; NULL: FIN */
	uint64_t offset;
	uint32_t within; /* where in buf it starts */
	uint32_t span;   /* offsets it takes */
	uint32_t lane;   /* that carries it; 0: lost, to be sent again */
	uint64_t at;     /* of that lane's bytes: all of it has left when so many have */
	bool end, resent, unsent;
};

struct outbox {
	struct nova_buf *head, *tail; /* owned: not yet wholly received over there */
	struct nova_buf *cursor;      /* the next new byte is in it; NULL: all were sent */
	uint32_t cursor_within;
	struct segment *segments, *last; /* owned: sent and not received, by offset */
	uint32_t segment_count, lost_count;
	uint64_t end;                /* queued: offset after the last byte */
	uint64_t sent;               /* next new offset */
	uint64_t received, consumed; /* the peer's word */
	uint64_t limit;              /* new bytes may be sent up to here */
	bool finished, fin_sent;     /* finished: end counts FIN */
};

void outbox_init(struct outbox *outbox);
void outbox_release(struct outbox *outbox);
/* buf (stolen) has at least one byte. Not after outbox_finish(). */
void outbox_add(struct outbox *outbox, struct nova_buf *buf);
void outbox_finish(struct outbox *outbox);
/* Is there a segment that may be sent now? */
bool outbox_ready(const struct outbox *outbox);
/* The next segment for this lane (> 0), of at most most_bytes if it is new; NULL: nothing may be sent, or
 * out of memory (try later). */
struct segment *outbox_take(struct outbox *outbox, uint32_t lane, uint32_t most_bytes);
/* The peer's word; NOVA_INVALID if it acknowledges what was never sent. Old news are fine. */
int outbox_ack(struct outbox *outbox, const struct frame_ack *ack, struct nova_error *err);
/* What the lane carried and the peer has not confirmed must go again. sent_bytes of its bytes had left: what lies beyond
 * is sent late, not again. */
void outbox_lane_lost(struct outbox *outbox, uint32_t lane, uint64_t sent_bytes);

static inline uint64_t outbox_unsent(const struct outbox *outbox)
{
	return outbox->end - outbox->sent;
}
/* Payload bytes the peer has not consumed. */
static inline uint64_t outbox_unconsumed(const struct outbox *outbox)
{
	uint64_t end = outbox->end - (outbox->finished ? 1 : 0);

	return outbox->consumed < end ? end - outbox->consumed : 0;
}
static inline bool outbox_all_received(const struct outbox *outbox)
{
	return outbox->received == outbox->end;
}

#endif
