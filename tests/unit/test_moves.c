/* SPDX-License-Identifier: Apache-2.0
 *
 * test_moves.c - what is remembered of migrations: the bounded series of a report, and the moves of the past
 * that predictions read.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/moves.h"
#include "engine/series.h"

static json_int_t at(const json_t *json, const char *column, size_t i)
{
	return json_integer_value(json_array_get(json_object_get(json, column), i));
}

static void test_a_series_is_bounded_and_spans_all_of_it(void **state)
{
	struct nova_series series = { .count = 0 };
	struct nova_point point = { .codec = "lz4" };
	json_t *json;
	size_t count;

	for (int i = 0; i < 36000; i++) { /* an hour, ten times a second */
		point.ms = i * 100;
		point.remaining_bytes = 36000 - i;
		nova_series_add(&series, &point);
	}
	json = nova_series_json(&series);
	count = json_array_size(json_object_get(json, "ms"));
	assert_true(count > NOVA_SERIES_MOST / 2 && count <= NOVA_SERIES_MOST);
	assert_int_equal(at(json, "ms", 0), 0);
	assert_true(at(json, "ms", count - 1) > 3500000);
	for (size_t i = 1; i < count; i++)
		assert_true(at(json, "ms", i) - at(json, "ms", i - 1) >= 25600);
	assert_int_equal(json_array_size(json_object_get(json, "codec")), count);
	assert_int_equal(at(json, "remaining_bytes", 0), 36000);
	json_decref(json);
}

static void test_points_too_close_are_left_out(void **state)
{
	struct nova_series series = { .count = 0 };
	struct nova_point point = { .ms = 0 };

	nova_series_add(&series, &point);
	point.ms = 50;
	nova_series_add(&series, &point);
	point.ms = 120;
	nova_series_add(&series, &point);
	assert_int_equal(series.count, 2);
}

static struct nova_store *open_store(char *directory)
{
	struct nova_error err;
	struct nova_store *store;

	strcpy(directory, "/tmp/novacron-moves.XXXXXX");
	assert_non_null(mkdtemp(directory));
	store = nova_store_open(directory, &err);
	assert_non_null(store);
	return store;
}

static void close_store(struct nova_store *store, const char *directory)
{
	static const char *const files[] = { "novacron.db", "novacron.db-wal", "novacron.db-shm" };
	char path[128];

	nova_store_close(store);
	for (size_t i = 0; i < 3; i++) {
		snprintf(path, sizeof(path), "%s/%s", directory, files[i]);
		unlink(path);
	}
	assert_int_equal(rmdir(directory), 0);
}

static void add(struct nova_store *store, const char *peer, const char *uuid, int number)
{
	json_t *move = json_pack("{s:s, s:i}", "uuid", uuid, "fixed_ms", number);
	struct nova_error err;

	assert_int_equal(nova_moves_add(store, peer, move, &err), 0);
	json_decref(move);
}

static json_int_t last(struct nova_store *store, const char *peer, const char *uuid, bool own)
{
	json_t *move = nova_moves_last(store, peer, uuid, own);
	json_int_t number = move ? json_integer_value(json_object_get(move, "fixed_ms")) : -1;

	json_decref(move);
	return number;
}

static void test_the_newest_of_a_guest_or_of_any(void **state)
{
	char directory[64];
	struct nova_store *store = open_store(directory);

	assert_int_equal(last(store, "beta", "a", false), -1);
	add(store, "beta", "a", 1);
	add(store, "beta", "a", 2);
	add(store, "beta", "b", 3);
	assert_int_equal(last(store, "beta", "a", false), 2);
	assert_int_equal(last(store, "beta", "b", true), 3);
	assert_int_equal(last(store, "beta", "c", false), 3);
	assert_int_equal(last(store, "beta", "c", true), -1);
	assert_int_equal(last(store, "gamma", "a", false), -1);
	for (int i = 0; i < 3 * NOVA_MOVES_KEPT; i++)
		add(store, "beta", "d", i);
	assert_int_equal(last(store, "beta", "a", true), -1); /* long ago */
	assert_int_equal(last(store, "beta", "d", true), 3 * NOVA_MOVES_KEPT - 1);
	close_store(store, directory);
}

static void test_what_cannot_be_read_is_nothing(void **state)
{
	static const char *const broken[] = { "", "{", "{\"a\": 1}", "[1, \"x\", null]", "[[]]" };
	char directory[64];
	struct nova_store *store = open_store(directory);
	struct nova_error err;

	for (size_t i = 0; i < sizeof(broken) / sizeof(*broken); i++) {
		assert_int_equal(nova_store_meta_set(store, "moves beta", broken[i], &err), 0);
		assert_int_equal(last(store, "beta", "a", false), -1);
		add(store, "beta", "a", 7);
		assert_int_equal(last(store, "beta", "a", false), 7);
	}
	close_store(store, directory);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_series_is_bounded_and_spans_all_of_it),
		cmocka_unit_test(test_points_too_close_are_left_out),
		cmocka_unit_test(test_the_newest_of_a_guest_or_of_any),
		cmocka_unit_test(test_what_cannot_be_read_is_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
