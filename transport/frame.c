/* SPDX-License-Identifier: Apache-2.0
 *
 * frame.c - headers and the payloads of frames that are not data, to bytes and back.
 *
 * Whatever comes from a peer is checked here against the limits in frame.h, so that what follows may
 * trust lengths, kinds and counts. Not here: whether a frame is allowed at this moment (lane.c), and
 * what offsets mean (inbox.c, outbox.c).
 */
#include "frame.h"

#include <assert.h>

#include "cursor.h"

#define MAGIC 0x4e4f5641u /* NOVA */

/* Payload bytes and flags a type may have. */
static const struct {
	const char *name;
	uint32_t least, most;
	uint8_t flags;
} types[] = {
	[FRAME_HELLO] = { "HELLO", 36, FRAME_HELLO_MAX, 0 },
	[FRAME_WELCOME] = { "WELCOME", 36, FRAME_HELLO_MAX, 0 },
	[FRAME_REFUSE] = { "REFUSE", 1, FRAME_REFUSE_MAX, 0 },
	[FRAME_OPEN] = { "OPEN", 1, 1, 0 },
	[FRAME_DATA] = { "DATA", 0, FRAME_PAYLOAD_MAX, FRAME_END | FRAME_FIN | FRAME_KIND },
	[FRAME_ACK] = { "ACK", FRAME_ACK_BYTES, FRAME_ACK_BYTES, 0 },
	[FRAME_PING] = { "PING", 8, 8, 0 },
	[FRAME_PONG] = { "PONG", 8, 8, 0 },
};
static_assert(sizeof(types) / sizeof(*types) == FRAME_TYPES, "a row for each type");

void frame_put_header(uint8_t bytes[FRAME_HEADER_BYTES], const struct frame_header *header)
{
	struct nova_writer w = nova_writer_of(bytes, FRAME_HEADER_BYTES);

	nova_put_u32(&w, header->length);
	nova_put_u8(&w, header->type);
	nova_put_u8(&w, header->flags);
	nova_put_u16(&w, header->channel);
	nova_put_u64(&w, header->offset);
}

int frame_get_header(
    const uint8_t bytes[FRAME_HEADER_BYTES], struct frame_header *header, struct nova_error *err)
{
	struct nova_cursor c = nova_cursor_of(bytes, FRAME_HEADER_BYTES);
	struct frame_header got;

	got.length = nova_get_u32(&c);
	got.type = nova_get_u8(&c);
	got.flags = nova_get_u8(&c);
	got.channel = nova_get_u16(&c);
	got.offset = nova_get_u64(&c);
	if (got.type < FRAME_HELLO || got.type >= FRAME_TYPES)
		return nova_error_set(err, NOVA_INVALID, "frame of unknown type %u", got.type);
	if (got.length < types[got.type].least || got.length > types[got.type].most)
		return nova_error_set(err, NOVA_INVALID, "%s frame of %u bytes: %u to %u are allowed",
		    types[got.type].name, got.length, types[got.type].least, types[got.type].most);
	if (got.flags & ~types[got.type].flags)
		return nova_error_set(
		    err, NOVA_INVALID, "%s frame with flags %#x", types[got.type].name, got.flags);
	if (got.type == FRAME_DATA &&
	    (got.flags & FRAME_FIN ? got.length || got.flags & FRAME_END : !got.length))
		return nova_error_set(
		    err, NOVA_INVALID, "DATA frame of %u bytes with flags %#x", got.length, got.flags);
	if (got.offset > UINT64_MAX / 2)
		return nova_error_set(err, NOVA_INVALID, "%s frame with offset %#llx", types[got.type].name,
		    (unsigned long long)got.offset);
	*header = got;
	return 0;
}

size_t frame_put_small(uint8_t out[FRAME_HEADER_BYTES + FRAME_SMALL_MAX], struct frame_header *header,
    const void *payload, size_t length)
{
	assert(length <= FRAME_SMALL_MAX);
	header->length = (uint32_t)length;
	frame_put_header(out, header);
	if (length)
		memcpy(out + FRAME_HEADER_BYTES, payload, length);
	return FRAME_HEADER_BYTES + length;
}

void frame_put_ack(uint8_t payload[FRAME_ACK_BYTES], struct frame_header *header, const struct frame_ack *ack)
{
	struct nova_writer w = nova_writer_of(payload, FRAME_ACK_BYTES);

	header->offset = ack->consumed;
	nova_put_u64(&w, ack->received);
	nova_put_u32(&w, ack->window);
}

static int check_ack(const struct frame_ack *ack, struct nova_error *err)
{
	if (ack->received > UINT64_MAX / 2 || ack->consumed > ack->received || ack->window > FRAME_WINDOW_MAX)
		return nova_error_set(err, NOVA_INVALID,
		    "acknowledgement with received %llu, consumed %llu, window %u",
		    (unsigned long long)ack->received, (unsigned long long)ack->consumed, ack->window);
	return 0;
}

int frame_get_ack(
    const struct frame_header *header, const uint8_t *payload, struct frame_ack *ack, struct nova_error *err)
{
	struct nova_cursor c = nova_cursor_of(payload, FRAME_ACK_BYTES);
	struct frame_ack got;

	got.consumed = header->offset;
	got.received = nova_get_u64(&c);
	got.window = nova_get_u32(&c);
	if (check_ack(&got, err) < 0)
		return -1;
	*ack = got;
	return 0;
}

size_t frame_put_hello(uint8_t *payload, const struct frame_hello *hello)
{
	struct nova_writer w = nova_writer_of(payload, FRAME_HELLO_MAX);

	assert(payload);
	nova_put_u32(&w, MAGIC);
	nova_put_u16(&w, hello->version_min);
	nova_put_u16(&w, hello->version_max);
	nova_put_bytes(&w, hello->session, sizeof(hello->session));
	nova_put_u32(&w, hello->lane);
	nova_put_u16(&w, (uint16_t)((hello->known ? 1 : 0) | (hello->alone ? 2 : 0)));
	nova_put_u32(&w, hello->resume_limit_ms);
	nova_put_u16(&w, hello->channel_count);
	for (size_t i = 0; i < hello->channel_count; i++) {
		nova_put_u16(&w, hello->channels[i].id);
		nova_put_u8(&w, hello->channels[i].kind);
		nova_put_u64(&w, hello->channels[i].ack.received);
		nova_put_u64(&w, hello->channels[i].ack.consumed);
		nova_put_u32(&w, hello->channels[i].ack.window);
	}
	assert(!w.bad);
	return nova_writer_used(&w);
}

static int get_hello_channels(struct nova_cursor *c, struct frame_hello *hello, struct nova_error *err)
{
	if (hello->channel_count > FRAME_CHANNELS_MAX)
		return nova_error_set(err, NOVA_INVALID, "HELLO with %u channels: at most %u",
		    hello->channel_count, FRAME_CHANNELS_MAX);
	for (size_t i = 0; i < hello->channel_count; i++) {
		struct frame_channel *channel = &hello->channels[i];

		channel->id = nova_get_u16(c);
		channel->kind = nova_get_u8(c);
		channel->ack.received = nova_get_u64(c);
		channel->ack.consumed = nova_get_u64(c);
		channel->ack.window = nova_get_u32(c);
		if (c->bad)
			break;
		if (check_ack(&channel->ack, err) < 0)
			return -1;
		if (channel->kind > NOVA_CHANNEL_DISK ||
		    (channel->kind == NOVA_CHANNEL_CONTROL) != (channel->id == 0))
			return nova_error_set(
			    err, NOVA_INVALID, "channel %u of kind %u", channel->id, channel->kind);
	}
	return 0;
}

int frame_get_hello(const uint8_t *payload, size_t length, struct frame_hello *hello, struct nova_error *err)
{
	struct nova_cursor c = nova_cursor_of(payload, length);
	uint32_t magic = nova_get_u32(&c);
	const uint8_t *id;
	uint16_t bits;

	if (magic != MAGIC)
		return nova_error_set(err, NOVA_INVALID, "HELLO without its magic: not a novacron peer");
	hello->version_min = nova_get_u16(&c);
	hello->version_max = nova_get_u16(&c);
	id = nova_get_bytes(&c, sizeof(hello->session));
	hello->lane = nova_get_u32(&c);
	bits = nova_get_u16(&c);
	hello->resume_limit_ms = nova_get_u32(&c);
	hello->channel_count = nova_get_u16(&c);
	if (c.bad || bits > 3 || hello->resume_limit_ms > FRAME_RESUME_LIMIT_MAX_MS)
		return nova_error_set(err, NOVA_INVALID, "malformed HELLO");
	memcpy(hello->session, id, sizeof(hello->session));
	hello->known = bits & 1;
	hello->alone = bits & 2;
	if (get_hello_channels(&c, hello, err) < 0)
		return -1;
	if (c.bad || nova_cursor_left(&c))
		return nova_error_set(err, NOVA_INVALID, "HELLO whose length does not fit its %u channels",
		    hello->channel_count);
	return 0;
}
