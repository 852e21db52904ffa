/* SPDX-License-Identifier: Apache-2.0
 *
 * pace.h - when points of a replica are due, when they are late, and which of them go. Pure: times come as arguments.
 */
#ifndef NOVA_PACE_H
#define NOVA_PACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NOVA_KEEP_MAX 48 /* points: a chain of images has an end */

/* When the next attempt begins. begun_ms: when the last one did (negative: there was none); failures: how many of the
 * last ones failed in a row. An attempt that took longer than the interval is followed at once; one that failed after
 * 1 s, 2 s, 4 s ..., at most the interval. All times are monotonic, in ms. */
int64_t nova_pace_next(int64_t every_ms, int64_t begun_ms, int64_t now_ms, unsigned failures);

/* How old the standby's newest point may become before it is late: the point that should replace it was due one
 * interval after it was taken, and is late when it has not arrived by the interval after that. */
int64_t nova_pace_limit(int64_t every_ms);
bool nova_pace_late(int64_t every_ms, int64_t taken_ms, int64_t now_ms);

/* What happens to old points before a new one arrives. */
enum nova_thin {
	NOVA_THIN_NOTHING,
	NOVA_THIN_MERGE,  /* the next one is an overlay on it: it becomes part of that */
	NOVA_THIN_REMOVE, /* nothing is above it */
};
struct nova_thin_point {
	bool whole; /* false: only what the next one stands on */
	bool based; /* on the one before it */
	bool held;  /* somebody uses its images, and those of all that it stands on */
};
/* May the images of point `at` be written: nobody uses what stands on them? */
bool nova_thin_idle(const struct nova_thin_point *points, size_t count, size_t at);
/* points: oldest first. keep: how many whole ones shall be there when the new one has arrived, beside those that are held
 * and what those stand on; the newest always stays until then. *at: the point that it happens to. */
enum nova_thin nova_thin(const struct nova_thin_point *points, size_t count, unsigned keep, size_t *at);

#endif
