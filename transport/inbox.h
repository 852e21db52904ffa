/* SPDX-License-Identifier: Apache-2.0
 *
 * inbox.h - one channel's receiving direction: frames in any order, messages in order.
 */
#ifndef NOVA_INBOX_H
#define NOVA_INBOX_H

#include "frame.h"

struct fragment;

struct inbox {
	uint64_t received;      /* everything before it was delivered or is in partial */
	uint64_t delivered;     /* handed over, FIN included */
	uint64_t consumed;      /* bytes the user is done with */
	uint64_t limit;         /* the highest offset the peer was allowed to send to */
	uint32_t window;        /* bytes from consumed on that it may send */
	struct fragment *early; /* owned: ahead of received, by offset, not overlapping */
	uint32_t early_count;
	struct nova_buf *partial; /* owned: message being put together */
	bool finished;            /* FIN was delivered */
};

struct inbox_events {
	/* A whole message (borrowed). false: the channel is gone, stop. */
	bool (*message)(void *arg, const uint8_t *data, size_t length);
	/* The peer finished. false: as above. */
	bool (*fin)(void *arg);
};

void inbox_init(struct inbox *inbox);
void inbox_release(struct inbox *inbox);
/* A DATA frame. *buf holds its payload; if the inbox keeps it, *buf is NULL afterwards. -1: the peer broke
 * the protocol (NOVA_INVALID), or no memory. */
int inbox_add(struct inbox *inbox, const struct frame_header *header, struct nova_buf **buf,
    const struct inbox_events *events, void *arg, struct nova_error *err);
/* The user is done with bytes that were delivered. */
void inbox_consumed(struct inbox *inbox, size_t bytes);
/* What to tell the peer; raises limit accordingly. */
struct frame_ack inbox_ack(struct inbox *inbox);

#endif
