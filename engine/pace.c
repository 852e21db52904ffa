/* SPDX-License-Identifier: Apache-2.0
 *
 * pace.c - see pace.h.
 */
#include "pace.h"

#define RETRY_MS 1000

int64_t nova_pace_next(int64_t every_ms, int64_t begun_ms, int64_t now_ms, unsigned failures)
{
	int64_t wait_ms = RETRY_MS, due_ms = begun_ms + every_ms;

	if (begun_ms < 0)
		return now_ms;
	if (!failures)
		return due_ms > now_ms ? due_ms : now_ms;
	for (unsigned i = 1; i < failures && wait_ms < every_ms; i++)
		wait_ms *= 2;
	return now_ms + (wait_ms < every_ms ? wait_ms : every_ms);
}

int64_t nova_pace_limit(int64_t every_ms)
{
	return 2 * every_ms;
}

bool nova_pace_late(int64_t every_ms, int64_t taken_ms, int64_t now_ms)
{
	return now_ms - taken_ms > nova_pace_limit(every_ms);
}

enum nova_thin nova_thin(const struct nova_thin_point *points, size_t count, unsigned keep)
{
	size_t whole = 0;
	bool next_stands_on_it = count > 1 && points[1].based;

	for (size_t i = 0; i < count; i++)
		whole += points[i].whole;
	if (count < 2 || points[0].held || (next_stands_on_it && points[1].held))
		return NOVA_THIN_NOTHING;
	if (points[0].whole && (whole < keep || whole < 2))
		return NOVA_THIN_NOTHING;
	/* What is no point by itself stays as long as nothing whole has come after it. */
	if (!points[0].whole && !whole)
		return next_stands_on_it ? NOVA_THIN_NOTHING : NOVA_THIN_REMOVE;
	return next_stands_on_it ? NOVA_THIN_MERGE : NOVA_THIN_REMOVE;
}
