/* SPDX-License-Identifier: Apache-2.0
 *
 * shaper.c - one direction of an emulated link (see shaper.h). Arithmetic only: the clock and the devices
 * are linkem.c's.
 */
#include "shaper.h"

#include <stdlib.h>
#include <string.h>

void shaper_init(struct shaper *shaper, uint64_t seed)
{
	memset(shaper, 0, sizeof(*shaper));
	shaper->random = seed | 1;
	shaper->end = &shaper->first;
}

void shaper_release(struct shaper *shaper)
{
	while (shaper->first) {
		struct packet *packet = shaper->first;

		shaper->first = packet->next;
		free(packet);
	}
	shaper->end = &shaper->first;
}

/* 0 <= x < 1 */
static double chance(struct shaper *shaper)
{
	shaper->random ^= shaper->random << 13;
	shaper->random ^= shaper->random >> 7;
	shaper->random ^= shaper->random << 17;
	return (double)(shaper->random >> 11) / 9007199254740992.0;
}

static uint64_t queue_limit(const struct shape *shape)
{
	uint64_t usual = shape->rate_bps / 8 / 20;

	if (shape->queue_bytes)
		return shape->queue_bytes;
	return usual > 65536 ? usual : 65536;
}

/* Use the wire: when the packet leaves it, or 0 if too many wait already. */
static uint64_t pass_wire(struct shaper *shaper, uint64_t now_ns, size_t wire_bytes)
{
	const struct shape *shape = &shaper->shape;
	uint64_t idle_ns = now_ns - SHAPER_SLACK_NS, start, waiting_ns;

	if (!shape->rate_bps)
		return now_ns;
	start = shaper->free_ns > idle_ns ? shaper->free_ns : idle_ns;
	waiting_ns = start > now_ns ? start - now_ns : 0;
	if ((double)waiting_ns * shape->rate_bps / 8e9 + wire_bytes > queue_limit(shape))
		return 0;
	shaper->free_ns = start + (uint64_t)(wire_bytes * 8e9 / shape->rate_bps);
	return shaper->free_ns > now_ns ? shaper->free_ns : now_ns;
}

static uint64_t arrival(struct shaper *shaper, uint64_t left_ns)
{
	const struct shape *shape = &shaper->shape;
	double shift = (2 * chance(shaper) - 1) * shape->jitter_ns;
	uint64_t due = left_ns + (shape->delay_ns + shift > 0 ? (uint64_t)(shape->delay_ns + shift) : 0);

	if (due < shaper->last_due_ns)
		due = shaper->last_due_ns;
	shaper->last_due_ns = due;
	return due;
}

void shaper_put(struct shaper *shaper, uint64_t now_ns, const uint8_t *data, size_t length, size_t wire_bytes)
{
	uint64_t left_ns = pass_wire(shaper, now_ns, wire_bytes);
	struct packet *packet;

	if (!left_ns || shaper->held_bytes + length > SHAPER_HELD_MAX) {
		shaper->overflowed++;
		return;
	}
	if (shaper->shape.hole || chance(shaper) < shaper->shape.loss) {
		shaper->lost++;
		return;
	}
	packet = malloc(sizeof(*packet) + length);
	if (!packet) {
		shaper->overflowed++;
		return;
	}
	packet->next = NULL;
	packet->due_ns = arrival(shaper, left_ns);
	packet->length = length;
	packet->wire_bytes = wire_bytes;
	memcpy(packet->data, data, length);
	shaper->held_bytes += length;
	*shaper->end = packet;
	shaper->end = &packet->next;
}

struct packet *shaper_take(struct shaper *shaper, uint64_t now_ns)
{
	struct packet *packet;

	for (;;) {
		packet = shaper->first;
		if (!packet || packet->due_ns > now_ns)
			return NULL;
		shaper->first = packet->next;
		if (!shaper->first)
			shaper->end = &shaper->first;
		shaper->held_bytes -= packet->length;
		if (!shaper->shape.hole)
			break;
		shaper->lost++;
		free(packet);
	}
	shaper->passed_packets++;
	shaper->passed_bytes += packet->wire_bytes;
	return packet;
}

uint64_t shaper_due(const struct shaper *shaper)
{
	return shaper->first ? shaper->first->due_ns : UINT64_MAX;
}
