/* SPDX-License-Identifier: Apache-2.0
 *
 * test_box.c - container specifications without a runtime: completing, and refusing what this host does not
 * allow; files below the roots; JSON objects out of a stream.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "drivers/common/box.h"
#include "drivers/common/json_stream.h"
#include "drivers/common/roots.h"
#include "drivers/docker/docker.h"

static char root[64];
static json_t *roots, *networks;

static int set_up(void **state)
{
	char path[100];

	strcpy(root, "/tmp/nova-box-XXXXXX");
	assert_non_null(mkdtemp(root));
	snprintf(path, sizeof(path), "%s/data", root);
	assert_int_equal(mkdir(path, 0700), 0);
	snprintf(path, sizeof(path), "%s/out", root);
	assert_int_equal(symlink("/etc", path), 0);
	roots = json_pack("[s]", root);
	networks = json_pack("[s]", "bridge");
	return 0;
}

static int tear_down(void **state)
{
	char command[100];

	json_decref(roots);
	json_decref(networks);
	snprintf(command, sizeof(command), "rm -rf %s", root);
	return system(command);
}

static json_t *complete(const char *text, struct nova_error *err)
{
	struct box_limits limits = { docker_spec_params, "docker", roots, networks };
	json_t *spec = json_loads(text, 0, NULL), *result;

	assert_non_null(spec);
	result = box_complete(spec, &limits, err);
	json_decref(spec);
	return result;
}

static void expect_refusal(const char *text, const char *words)
{
	struct nova_error err = { 0 };

	assert_null(complete(text, &err));
	assert_int_equal(err.category, NOVA_INVALID);
	if (!strstr(err.text, words))
		fail_msg("%s: nothing about '%s'", err.text, words);
}

static void test_complete(void **state)
{
	char text[400];
	struct nova_error err;
	json_t *spec, *again, *needs;
	struct box_limits limits = { docker_spec_params, "docker", roots, networks };

	snprintf(text, sizeof(text),
	    "{\"image\":\"bb:1\",\"network\":\"bridge\",\"env\":[\"A=b=c\"],\"volume\":[\"source=%s/data,target=/d,readonly=on\"]}", root);
	spec = complete(text, &err);
	assert_non_null(spec);
	assert_int_equal(json_integer_value(json_object_get(spec, "memory")), 256 << 20);
	assert_true(json_is_true(json_object_get(json_array_get(json_object_get(spec, "volume"), 0), "readonly")));
	again = box_complete(spec, &limits, &err);
	assert_true(json_equal(spec, again));
	needs = box_needs(spec);
	assert_int_equal(json_integer_value(json_object_get(needs, "vcpus")), 1);
	json_decref(needs);
	json_decref(again);
	json_decref(spec);
}

static void test_refusals(void **state)
{
	char text[400];

	expect_refusal("{}", "image is missing");
	expect_refusal("{\"image\":\"a\",\"privileged\":true}", "privileged");
	expect_refusal("{\"image\":\"a\",\"memory\":1}", "memory");
	expect_refusal("{\"image\":\"a\",\"env\":[\"A\"]}", "NAME=VALUE");
	expect_refusal("{\"image\":\"a\",\"env\":[\"=A\"]}", "NAME=VALUE");
	expect_refusal("{\"image\":\"a\",\"env\":[1]}", "env");
	expect_refusal("{\"image\":\"a\",\"command\":[\"a\\u0001\"]}", "control character");
	expect_refusal("{\"image\":\"a\",\"label\":[\"novacron.uuid=1\"]}", "our own");
	expect_refusal("{\"image\":\"a\",\"network\":\"host\"}", "not allowed");
	expect_refusal("{\"image\":\"a\",\"network\":\"container:other\"}", "not allowed");
	expect_refusal("{\"image\":\"a\",\"workdir\":\"/proc/self/fd/8\"}", "outside of /proc");
	expect_refusal("{\"image\":\"a\",\"workdir\":\"/x/../proc/self/fd/8\"}", "outside of /proc");
	expect_refusal("{\"image\":\"a\",\"volume\":[\"source=/etc,target=/d\"]}", "outside of the roots");
	expect_refusal("{\"image\":\"a\",\"volume\":[\"target=/d\"]}", "source is missing");
	expect_refusal("{\"image\":\"a\",\"volume\":[\"/etc:/d\"]}", "name=value");
	snprintf(text, sizeof(text), "{\"image\":\"a\",\"volume\":[\"source=%s/out,target=/d\"]}", root);
	expect_refusal(text, "outside of the roots"); /* a link that leads out */
	snprintf(text, sizeof(text), "{\"image\":\"a\",\"volume\":[\"source=%s/data/../../etc,target=/d\"]}", root);
	expect_refusal(text, "outside of the roots");
	snprintf(text, sizeof(text), "{\"image\":\"a\",\"volume\":[\"source=%s/data,target=/a/../..\"]}", root);
	expect_refusal(text, "no place inside");
	snprintf(text, sizeof(text), "{\"image\":\"a\",\"volume\":[{\"source\":\"%s/data\",\"target\":\"/\"}]}", root);
	expect_refusal(text, "no place inside");
}

/* ---- objects out of a stream ---- */

static void count(void *arg, json_t *value)
{
	++*(int *)arg;
	assert_true(json_is_object(value));
}

static void test_stream_pieces(void **state)
{
	static const char text[] = "{\"a\":\"}\\\"{\"} \r\n{\"b\":[{}]}{\"c\":1}\n";

	for (size_t piece = 1; piece < sizeof(text); piece++) {
		struct json_stream stream = { 0 };
		int seen = 0;

		for (size_t at = 0; at < sizeof(text) - 1; at += piece)
			assert_int_equal(json_stream_feed(&stream, text + at,
			                     sizeof(text) - 1 - at < piece ? sizeof(text) - 1 - at : piece, count, &seen, NULL), 0);
		assert_int_equal(seen, 3);
		json_stream_release(&stream);
	}
}

static void test_stream_garbage(void **state)
{
	static const char *const bad[] = { "[1]", "x", "{\"a\":}", "{]" };
	struct nova_error err;
	int seen = 0;

	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		struct json_stream stream = { 0 };

		assert_int_equal(json_stream_feed(&stream, bad[i], strlen(bad[i]), count, &seen, &err), -1);
		json_stream_release(&stream);
	}
	assert_int_equal(seen, 0);
}

static void test_stream_bound(void **state)
{
	struct json_stream stream = { 0 };
	struct nova_error err;
	char spaces[4096];
	int seen = 0, rc;

	memset(spaces, ' ', sizeof(spaces));
	assert_int_equal(json_stream_feed(&stream, "{", 1, count, &seen, &err), 0);
	for (size_t i = 0; (rc = json_stream_feed(&stream, spaces, sizeof(spaces), count, &seen, &err)) == 0; i++)
		assert_true(i < JSON_STREAM_MAX / sizeof(spaces) + 1);
	assert_non_null(strstr(err.text, "more than"));
	json_stream_release(&stream);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_complete),
		cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_stream_pieces),
		cmocka_unit_test(test_stream_garbage),
		cmocka_unit_test(test_stream_bound),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
