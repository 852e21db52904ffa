/* SPDX-License-Identifier: Apache-2.0
 *
 * shaper.h - one direction of an emulated link: a wire of a certain rate behind a queue of a certain
 * length, then a delay. What goes in comes out later, in order, or not at all.
 *
 * A packet leaves the wire when those before it have left and its own bytes have passed; it arrives a delay
 * later. When the wire seems to have been idle, up to SHAPER_SLACK_NS of that are made good: more likely we
 * were not scheduled. So the average rate is exact, and a burst of that length passes at once.
 */
#ifndef NOVA_PERF_SHAPER_H
#define NOVA_PERF_SHAPER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SHAPER_SLACK_NS 4000000
#define SHAPER_HELD_MAX (256u << 20) /* bytes under way, delay included */

struct shape {
	uint64_t rate_bps;    /* bits a second; 0: no limit */
	uint64_t delay_ns;    /* one way */
	uint64_t jitter_ns;   /* the delay varies by up to this, evenly, either way; order is kept */
	double loss;          /* 0 to 1, each packet by itself, after it used the wire */
	uint64_t queue_bytes; /* what may wait for the wire; 0: 50 ms of the rate, at least 64 KiB */
	bool hole;            /* nothing arrives any more */
};

struct packet {
	struct packet *next;
	uint64_t due_ns;
	size_t length, wire_bytes;
	uint8_t data[];
};

struct shaper {
	struct shape shape;
	uint64_t free_ns; /* when the wire is free again */
	uint64_t last_due_ns;
	uint64_t random;
	struct packet *first, **end;
	size_t held_bytes;
	uint64_t passed_packets, passed_bytes, lost, overflowed; /* since the start */
};

void shaper_init(struct shaper *shaper, uint64_t seed);
void shaper_release(struct shaper *shaper);
/* A packet enters now and takes wire_bytes of the wire; data is copied. Lost ones are counted and forgotten.
 */
void shaper_put(
    struct shaper *shaper, uint64_t now_ns, const uint8_t *data, size_t length, size_t wire_bytes);
/* The next packet that has arrived by now, for the caller to free(); NULL: none yet. */
struct packet *shaper_take(struct shaper *shaper, uint64_t now_ns);
/* When the next one arrives; UINT64_MAX: nothing is under way. */
uint64_t shaper_due(const struct shaper *shaper);

#endif
