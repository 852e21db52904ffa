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

bool nova_thin_idle(const struct nova_thin_point *points, size_t count, size_t at)
{
	if (points[at].held)
		return false;
	for (size_t i = at + 1; i < count && points[i].based; i++)
		if (points[i].held)
			return false;
	return true;
}

enum nova_thin nova_thin(const struct nova_thin_point *points, size_t count, unsigned keep, size_t *at)
{
	size_t first = 0, whole = 0;
	bool next_stands_on_it;

	while (first < count && !nova_thin_idle(points, count, first))
		first++;
	for (size_t i = first; i < count; i++)
		whole += points[i].whole;
	if (first + 1 >= count)
		return NOVA_THIN_NOTHING;
	if (points[first].whole && (whole < keep || whole < 2))
		return NOVA_THIN_NOTHING;
	*at = first;
	next_stands_on_it = points[first + 1].based;
	/* What is no point by itself stays as long as nothing whole has come after it. */
	if (!points[first].whole && !whole)
		return next_stands_on_it ? NOVA_THIN_NOTHING : NOVA_THIN_REMOVE;
	return next_stands_on_it ? NOVA_THIN_MERGE : NOVA_THIN_REMOVE;
}
