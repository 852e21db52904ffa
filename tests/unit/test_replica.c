/* SPDX-License-Identifier: Apache-2.0
 *
 * test_replica.c - whoever wants to read images of a replica waits for the merge that writes them, and not for ever.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "engine/replicate.h"
#include "tests/unit/loop.h"

struct test {
	struct loop loop; /* first */
	struct nova_host host;
	struct nova_replica replica;
};

static int setup(void **state)
{
	struct test *test = calloc(1, sizeof(*test));

	assert_non_null(test);
	loop_init(&test->loop);
	test->host.base = test->loop.base;
	test->replica.host = &test->host;
	strcpy(test->replica.guest, "g1");
	TAILQ_INIT(&test->replica.waits);
	*state = test;
	return 0;
}

static int teardown(void **state)
{
	struct test *test = *state;

	loop_release(&test->loop);
	free(test);
	return 0;
}

static struct nova_op *begin(struct test *test, int limit_ms, struct answer *answer)
{
	struct nova_error err;
	struct nova_op *op = nova_replica_wait(&test->replica, limit_ms, answer_done, answer, &err);

	assert_non_null(op);
	assert_int_equal(answer->count, 0);
	return op;
}

static void nothing_is_written(void **state)
{
	struct test *test = *state;
	struct answer answer = { 0 };

	begin(test, 60000, &answer);
	LOOP_UNTIL(&test->loop, answer.count);
	assert_int_equal(answer.err.category, NOVA_OK);
}

static void the_end_of_a_merge_is_heard_by_all(void **state)
{
	struct test *test = *state;
	struct answer one = { 0 }, two = { 0 }, dropped = { 0 };

	nova_replica_set_merging(&test->replica, true);
	begin(test, 60000, &one);
	begin(test, 60000, &two);
	nova_op_drop(begin(test, 60000, &dropped));
	event_base_loop(test->loop.base, EVLOOP_NONBLOCK);
	assert_int_equal(one.count + two.count, 0);
	nova_replica_set_merging(&test->replica, false);
	LOOP_UNTIL(&test->loop, one.count && two.count);
	assert_int_equal(one.err.category, NOVA_OK);
	assert_int_equal(two.err.category, NOVA_OK);
	assert_int_equal(dropped.count, 0);
}

static void a_merge_without_end_is_named(void **state)
{
	struct test *test = *state;
	struct answer answer = { 0 };

	nova_replica_set_merging(&test->replica, true);
	begin(test, 1, &answer);
	LOOP_UNTIL(&test->loop, answer.count);
	assert_int_equal(answer.err.category, NOVA_TIMEOUT);
	assert_non_null(strstr(answer.err.text, "older points of guest g1 are still being merged after 0.001 s"));
	assert_true(TAILQ_EMPTY(&test->replica.waits));
}

static void the_replica_goes(void **state)
{
	struct test *test = *state;
	struct answer answer = { 0 };

	nova_replica_set_merging(&test->replica, true);
	begin(test, 60000, &answer);
	nova_replica_end_waits(&test->replica);
	LOOP_UNTIL(&test->loop, answer.count);
	assert_int_equal(answer.err.category, NOVA_CANCELLED);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(nothing_is_written, setup, teardown),
		cmocka_unit_test_setup_teardown(the_end_of_a_merge_is_heard_by_all, setup, teardown),
		cmocka_unit_test_setup_teardown(a_merge_without_end_is_named, setup, teardown),
		cmocka_unit_test_setup_teardown(the_replica_goes, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
