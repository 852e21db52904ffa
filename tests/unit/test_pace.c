/* SPDX-License-Identifier: Apache-2.0
 *
 * test_pace.c - when points of a replica are due, late, and gone; spans of time as the loop takes them.
 */
#include "engine/clock.h"
#include "engine/pace.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

static void due_once_an_interval(void **state)
{
	assert_int_equal(nova_pace_next(15000, -1, 7, 0), 7);
	assert_int_equal(nova_pace_next(15000, 1000, 4000, 0), 16000);
	assert_int_equal(nova_pace_next(15000, 1000, 16000, 0), 16000);
	/* One that took longer than the interval is followed at once, and what was missed is not caught up. */
	assert_int_equal(nova_pace_next(15000, 1000, 90000, 0), 90000);
}

static void failures_are_tried_again_sooner(void **state)
{
	assert_int_equal(nova_pace_next(15000, 1000, 2000, 1), 3000);
	assert_int_equal(nova_pace_next(15000, 1000, 2000, 2), 4000);
	assert_int_equal(nova_pace_next(15000, 1000, 2000, 4), 10000);
	assert_int_equal(nova_pace_next(15000, 1000, 2000, 5), 17000);
	assert_int_equal(nova_pace_next(15000, 1000, 2000, 4000000000u), 17000);
	assert_int_equal(nova_pace_next(500, 1000, 2000, 1), 2500);
}

static void late_after_one_interval_more(void **state)
{
	assert_int_equal(nova_pace_limit(15000), 30000);
	assert_false(nova_pace_late(15000, 1000, 31000));
	assert_true(nova_pace_late(15000, 1000, 31001));
	assert_false(nova_pace_late(15000, 1000, 500)); /* the clock was set back */
}

/* 'b': a base, 'B': a base on nothing before it that is held; 'w': whole, on the one before; 'W': whole, on nothing;
 * 'h': whole, on the one before, held */
static enum nova_thin thin_at(const char *points, unsigned keep, size_t *at)
{
	struct nova_thin_point found[16];
	size_t count = strlen(points);

	for (size_t i = 0; i < count; i++)
		found[i] = (struct nova_thin_point) { .whole = points[i] != 'b' && points[i] != 'B',
			.based = points[i] == 'w' || points[i] == 'h', .held = points[i] == 'h' || points[i] == 'B' };
	return nova_thin(found, count, keep, at);
}

/* The oldest one is what it happens to. */
static enum nova_thin thin(const char *points, unsigned keep)
{
	size_t at = 0;
	enum nova_thin what = thin_at(points, keep, &at);

	assert_int_equal(at, 0);
	return what;
}

static void thinned(void **state)
{
	assert_int_equal(thin("", 3), NOVA_THIN_NOTHING);
	assert_int_equal(thin("b", 3), NOVA_THIN_NOTHING);
	assert_int_equal(thin("bw", 3), NOVA_THIN_MERGE); /* what is no point by itself goes at once */
	assert_int_equal(thin("Ww", 3), NOVA_THIN_NOTHING);
	assert_int_equal(thin("Www", 3), NOVA_THIN_MERGE); /* so that there are three when the next one has come */
	assert_int_equal(thin("Wwwww", 3), NOVA_THIN_MERGE);
	/* The newest whole one stays until another one has come, however few are to be kept. */
	assert_int_equal(thin("W", 1), NOVA_THIN_NOTHING);
	assert_int_equal(thin("Ww", 1), NOVA_THIN_MERGE);
	assert_int_equal(thin("Wb", 1), NOVA_THIN_NOTHING);
	/* After a comparison a new chain begins: the end of the old one is removed, not merged. */
	assert_int_equal(thin("Wbw", 2), NOVA_THIN_REMOVE);
	assert_int_equal(thin("Wbw", 3), NOVA_THIN_NOTHING);
	assert_int_equal(thin("bb", 3), NOVA_THIN_REMOVE);
}

static void held_images_stay(void **state)
{
	assert_int_equal(thin("hwww", 9), NOVA_THIN_NOTHING);
	assert_int_equal(thin("Whww", 9), NOVA_THIN_NOTHING); /* merging would take its images away */
	assert_int_equal(thin("Wwhw", 2), NOVA_THIN_NOTHING); /* it stands on what merging would write */
	assert_int_equal(thin("Wwwh", 1), NOVA_THIN_NOTHING);
	assert_int_equal(thin("Bww", 3), NOVA_THIN_NOTHING);
}

static void what_came_after_held_images_is_thinned(void **state)
{
	size_t at = 0;

	assert_int_equal(thin_at("Wwhwwww", 2, &at), NOVA_THIN_MERGE);
	assert_int_equal(at, 3);
	assert_int_equal(thin_at("Bww", 2, &at), NOVA_THIN_MERGE);
	assert_int_equal(at, 1);
	assert_int_equal(thin_at("Whbw", 1, &at), NOVA_THIN_MERGE);
	assert_int_equal(at, 2);
	assert_int_equal(thin_at("Whbb", 1, &at), NOVA_THIN_REMOVE);
	assert_int_equal(at, 2);
	/* Another chain than the one that is held. */
	assert_int_equal(thin_at("WwWwh", 2, &at), NOVA_THIN_MERGE);
	assert_int_equal(at, 0);
	assert_int_equal(thin_at("WWwh", 2, &at), NOVA_THIN_REMOVE);
	assert_int_equal(at, 0);
}

static bool held_above(const char *points, size_t at)
{
	bool held = points[at] == 'h';

	while (points[++at] == 'w' || points[at] == 'h')
		held |= points[at] == 'h';
	return held;
}

/* Whatever there is: thinning ends, never takes the newest whole point, never writes what is held, and takes never more
 * than it must. */
static void every_short_history(void **state)
{
	static const char kinds[] = "bwWh";

	for (unsigned code = 0; code < 4096; code++)
		for (unsigned keep = 1; keep < 5; keep++) {
			char points[7] = "";
			size_t count = 6, steps = 0, at = 0;
			enum nova_thin what;

			for (size_t i = 0; i < count; i++)
				points[i] = kinds[code >> 2 * i & 3];
			points[count] = 0;
			if (points[0] == 'w')
				points[0] = 'W';
			while ((what = thin_at(points, keep, &at)) != NOVA_THIN_NOTHING) {
				size_t whole = 0;

				assert_in_range(++steps, 1, count);
				for (const char *p = points + at; *p; p++)
					whole += *p != 'b';
				assert_true(points[at] == 'b' || (whole >= 2 && whole >= keep));
				assert_false(held_above(points, at));
				if (what == NOVA_THIN_MERGE) {
					assert_true(points[at + 1] == 'w');
					points[at + 1] = points[at] == 'b' ? 'W' : points[at];
				} else {
					assert_true(points[at + 1] == 'W' || points[at + 1] == 'b');
				}
				memmove(points + at, points + at + 1, strlen(points + at));
			}
		}
}

/* A second and more in tv_usec makes libevent sleep for half an hour. */
static void spans(void **state)
{
	const int64_t us[] = { 0, 1, 999999, 1000000, 1000001, 2000000, 86400000001 };

	for (size_t i = 0; i < sizeof(us) / sizeof(*us); i++) {
		struct timeval span = nova_timeval_us(us[i]);

		assert_in_range(span.tv_usec, 0, 999999);
		assert_int_equal(span.tv_sec * 1000000 + span.tv_usec, us[i]);
	}
	assert_int_equal(nova_timeval_ms(2000).tv_sec, 2);
	assert_int_equal(nova_timeval_ms(2999).tv_usec, 999000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(due_once_an_interval),
		cmocka_unit_test(failures_are_tried_again_sooner),
		cmocka_unit_test(late_after_one_interval_more),
		cmocka_unit_test(thinned),
		cmocka_unit_test(held_images_stay),
		cmocka_unit_test(what_came_after_held_images_is_thinned),
		cmocka_unit_test(every_short_history),
		cmocka_unit_test(spans),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
