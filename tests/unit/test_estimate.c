/* SPDX-License-Identifier: Apache-2.0
 *
 * test_estimate.c - the arithmetic of estimates against what must hold for any guest: more bytes take longer,
 * rounds end, a guest that writes faster than memory drains does not converge, and the content sampler finds
 * what was put into a sample.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/estimate.h"
#include "tests/unit/loop.h"

#define MIB (1024.0 * 1024.0)

static struct nova_estimate_input guest(double dirty_mib_s)
{
	return (struct nova_estimate_input) { .memory_bytes = 1ull << 30,
		.full_share = 0.6,
		.ratio = 2,
		.link_bytes_per_s = (uint64_t)(12 * MIB),
		.dirty_bytes_per_s = (uint64_t)(dirty_mib_s * MIB),
		.fixed_ms = 40,
		.rtt_ms = 20,
		.downtime_ms = 300 };
}

static void test_an_idle_guest_takes_its_content(void **state)
{
	const struct nova_estimate_input input = guest(0);
	struct nova_estimate estimate;
	double wire = 0.6 * 1024 / 2;

	nova_estimate_model(&input, &estimate);
	assert_true(estimate.converges);
	assert_int_equal(estimate.rounds, 1);
	assert_true(estimate.wire_bytes / MIB > wire && estimate.wire_bytes / MIB < wire * 1.02);
	assert_true(estimate.time_ms > wire / 12 * 1000 && estimate.time_ms < wire / 12 * 1000 + 500);
	assert_int_equal(estimate.downtime_ms, 50);
}

static void test_more_writing_takes_longer(void **state)
{
	struct nova_estimate before = { 0 }, estimate;

	for (double dirty = 0; dirty < 20; dirty += 0.5) {
		const struct nova_estimate_input input = guest(dirty);

		nova_estimate_model(&input, &estimate);
		assert_true(estimate.converges);
		assert_true(estimate.downtime_ms <= input.downtime_ms);
		assert_true(estimate.wire_bytes >= before.wire_bytes && estimate.time_ms + 300 >= before.time_ms);
		assert_false(nova_estimate_hopeless(&input, &estimate));
		before = estimate;
	}
}

static void test_faster_than_the_drain_is_hopeless(void **state)
{
	struct nova_estimate_input input = guest(40);
	struct nova_estimate estimate;

	nova_estimate_model(&input, &estimate);
	assert_false(estimate.converges);
	assert_true(nova_estimate_hopeless(&input, &estimate));
	assert_true(estimate.downtime_ms > input.downtime_ms);
	assert_true(estimate.downtime_ms <= (int64_t)(0.6 * 1024 / 24 * 1000) + 51); /* all of it, at most */
	assert_non_null(strstr(estimate.why, "40960 KiB/s"));
	input.again_ratio = 50; /* what it writes shrinks to next to nothing, as was seen before */
	nova_estimate_model(&input, &estimate);
	assert_true(estimate.converges);
	input.again_ratio = 0;
	input.codec_bytes_per_s = 1 << 20; /* the processor is what is short */
	input.dirty_bytes_per_s = 2 << 20;
	nova_estimate_model(&input, &estimate);
	assert_true(nova_estimate_hopeless(&input, &estimate));
}

static void test_near_the_drain_is_not_hopeless(void **state)
{
	struct nova_estimate_input input = guest(25);
	struct nova_estimate estimate;

	nova_estimate_model(&input, &estimate);
	assert_false(estimate.converges);
	assert_false(nova_estimate_hopeless(&input, &estimate)); /* measurements have errors */
}

/* ---- the content ---- */

struct told {
	bool here;
	json_t *result;
};

static void answered(void *arg, json_t *result, const struct nova_error *err)
{
	struct told *answer = arg;

	assert_null(err);
	answer->result = json_incref(result);
	answer->here = true;
}

static void write_pages(int fd, int pages, int kind)
{
	uint8_t page[4096];

	for (int i = 0; i < pages; i++) {
		for (size_t at = 0; at < sizeof(page); at++)
			page[at] = (uint8_t)(kind == 0 ? 0 : kind == 1 ? "the quick brown fox "[(at + (size_t)i) % 20] : rand());
		assert_int_equal(write(fd, page, sizeof(page)), sizeof(page));
	}
}

static void test_the_sample_is_measured(void **state)
{
	struct event_base *base = event_base_new();
	char path[] = "/tmp/novacron-sample.XXXXXX";
	int fd = mkstemp(path);
	struct told answer = { 0 };
	struct nova_error err;

	write_pages(fd, 100, 0);
	write_pages(fd, 50, 1);
	write_pages(fd, 50, 2);
	close(fd);
	assert_non_null(nova_estimate_content(base, path, answered, &answer, &err));
	while (!answer.here)
		event_base_loop(base, EVLOOP_ONCE);
	assert_int_equal(json_integer_value(json_object_get(answer.result, "sampled_bytes")), 200 * 4096);
	assert_true(json_number_value(json_object_get(answer.result, "zero_share")) == 0.5);
	for (size_t i = 0; i < 2; i++) {
		const json_t *codec = json_object_get(answer.result, i ? "zstd" : "lz4");
		double ratio = json_number_value(json_object_get(codec, "ratio"));

		assert_true(ratio > 1.5 && ratio < 2.1); /* half of it is noise */
		assert_true(json_integer_value(json_object_get(codec, "bytes_per_s")) > 0);
	}
	json_decref(answer.result);
	unlink(path);
	assert_null(nova_estimate_content(base, path, answered, &answer, &err));
	assert_non_null(strstr(err.text, path));
	event_base_free(base);
}

static void test_dropped_in_the_middle(void **state)
{
	struct event_base *base = event_base_new();
	char path[] = "/tmp/novacron-sample.XXXXXX";
	int fd = mkstemp(path);
	struct told answer = { 0 };
	struct nova_op *op;
	struct nova_error err;

	write_pages(fd, 200, 1);
	close(fd);
	op = nova_estimate_content(base, path, answered, &answer, &err);
	assert_non_null(op);
	event_base_loop(base, EVLOOP_ONCE);
	nova_op_drop(op);
	event_base_loop(base, EVLOOP_NONBLOCK);
	assert_false(answer.here);
	unlink(path);
	event_base_free(base);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_an_idle_guest_takes_its_content),
		cmocka_unit_test(test_more_writing_takes_longer),
		cmocka_unit_test(test_faster_than_the_drain_is_hopeless),
		cmocka_unit_test(test_near_the_drain_is_not_hopeless),
		cmocka_unit_test(test_the_sample_is_measured),
		cmocka_unit_test(test_dropped_in_the_middle),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
