/* SPDX-License-Identifier: Apache-2.0
 *
 * frame.h - the frames of PROTOCOL.md: 16 bytes of header, at most 256 KiB of payload.
 */
#ifndef NOVA_FRAME_H
#define NOVA_FRAME_H

#include "flow.h"

#define FRAME_VERSION 1u
#define FRAME_HEADER_BYTES 16u
#define FRAME_PAYLOAD_MAX NOVA_MESSAGE_MAX
#define FRAME_SMALL_MAX 64u     /* payload of ACK, PING, PONG, OPEN */
#define FRAME_REFUSE_MAX 600u   /* payload of REFUSE */
#define FRAME_CHANNELS_MAX 512u /* channels named in one HELLO, ids of one session */
#define FRAME_HELLO_MAX (32u + 32u * FRAME_CHANNELS_MAX)
#define FRAME_WINDOW_START (4u << 20) /* bytes either side may send before the first ACK */
#define FRAME_WINDOW_MIN (1u << 20)
#define FRAME_WINDOW_MAX (64u << 20)
#define FRAME_UNACKED_MAX 4096u /* frames of one channel and direction in flight */
#define FRAME_RESUME_LIMIT_MAX_MS 3600000u

enum frame_type {
	FRAME_HELLO = 1, /* dialler's first; struct frame_hello */
	FRAME_WELCOME,   /* the answer; struct frame_hello */
	FRAME_REFUSE,    /* the other answer: u8 category, text */
	FRAME_OPEN,      /* u8 kind: this channel exists from now on */
	FRAME_DATA,      /* bytes of a channel from `offset` on */
	FRAME_ACK,       /* offset: consumed; u64 received, u32 window */
	FRAME_PING,      /* u64 for the peer to send back */
	FRAME_PONG,      /* the u64 of a PING */
	FRAME_TYPES
};

enum frame_flags {
	FRAME_END = 1, /* DATA: the last byte of the payload ends a message */
	FRAME_FIN = 2, /* DATA without payload: nothing follows; takes one offset */
	FRAME_KIND =
	    0x30, /* DATA: enum nova_channel_kind << 4, since DATA may overtake its OPEN on another lane */
};
#define FRAME_KIND_SHIFT 4

struct frame_header {
	uint32_t length; /* bytes of payload */
	uint8_t type;    /* enum frame_type */
	uint8_t flags;
	uint16_t channel;
	uint64_t offset;
};

void frame_put_header(uint8_t bytes[FRAME_HEADER_BYTES], const struct frame_header *header);
/* Every limit of the type is checked: payload length, flags, channel. NOVA_INVALID otherwise. */
int frame_get_header(
    const uint8_t bytes[FRAME_HEADER_BYTES], struct frame_header *header, struct nova_error *err);

struct frame_ack {
	uint64_t received; /* all bytes before it have arrived: need not be sent again */
	uint64_t consumed; /* all bytes before it have left the receiver */
	uint32_t window;   /* bytes from consumed on that may be sent */
};
#define FRAME_ACK_BYTES 12u
void frame_put_ack(
    uint8_t payload[FRAME_ACK_BYTES], struct frame_header *header, const struct frame_ack *ack);
int frame_get_ack(
    const struct frame_header *header, const uint8_t *payload, struct frame_ack *ack, struct nova_error *err);

struct frame_channel {
	uint16_t id;
	uint8_t kind;
	struct frame_ack ack; /* what the speaker has received on it */
};
struct frame_hello {
	uint16_t version_min, version_max; /* WELCOME: both are the version chosen */
	uint8_t session[16];
	uint32_t lane; /* grows with every dial of this session */
	bool known;    /* HELLO: a WELCOME was seen before, so the peer must know us */
	bool alone;    /* HELLO: all lanes with smaller numbers are dead */
	uint32_t resume_limit_ms;
	uint16_t channel_count;
	struct frame_channel channels[FRAME_CHANNELS_MAX];
};
/* Bytes used of payload[FRAME_HELLO_MAX]. */
size_t frame_put_hello(uint8_t *payload, const struct frame_hello *hello);
int frame_get_hello(const uint8_t *payload, size_t length, struct frame_hello *hello, struct nova_error *err);

/* A frame that carries only few bytes. Returns header and payload bytes in out[]. */
size_t frame_put_small(uint8_t out[FRAME_HEADER_BYTES + FRAME_SMALL_MAX], struct frame_header *header,
    const void *payload, size_t length);

#endif
