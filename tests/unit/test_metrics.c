/* SPDX-License-Identifier: Apache-2.0
 *
 * test_metrics.c - counters and gauges: values by label, what is forgotten with a guest, the bound on series,
 * and both exports.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/metrics.h"

static const struct nova_metric table[] = {
	{ "nova_jobs_total", NOVA_COUNTER, NULL, "jobs that ended" },
	{ "nova_sent_bytes_total", NOVA_COUNTER, "guest", "bytes sent" },
	{ "nova_memory_bytes", NOVA_GAUGE, "guest", "memory" },
	{ "nova_rtt_seconds", NOVA_GAUGE, "peer", "round trip" },
	{ NULL },
};

static void test_values(void **state)
{
	struct nova_metrics *metrics = nova_metrics_new(table);
	json_t *json, *expected;

	nova_metrics_add(metrics, "nova_jobs_total", NULL, 1);
	nova_metrics_add(metrics, "nova_jobs_total", NULL, 2);
	nova_metrics_add(metrics, "nova_sent_bytes_total", "g1", 5);
	nova_metrics_set(metrics, "nova_memory_bytes", "g1", 7);
	nova_metrics_set(metrics, "nova_memory_bytes", "g1", 6);
	nova_metrics_set(metrics, "nova_rtt_seconds", "g1", 0.25); /* a peer of the same name */
	assert_true(nova_metrics_get(metrics, "nova_memory_bytes", "g2") == 0);
	nova_metrics_add(metrics, "nova_memory_bytes", "\xff", 1); /* not text: counted nowhere, harmless */
	json = nova_metrics_json(metrics, NULL, NULL);
	expected =
	    json_pack("{s:f, s:{s:f}, s:{s:f}, s:{s:f}}", "nova_jobs_total", 3.0, "nova_sent_bytes_total",
	        "g1", 5.0, "nova_memory_bytes", "g1", 6.0, "nova_rtt_seconds", "g1", 0.25);
	assert_true(json_equal(json, expected));
	json_decref(json);
	json_decref(expected);

	nova_metrics_forget(metrics, "guest", "g1");
	assert_true(nova_metrics_get(metrics, "nova_memory_bytes", "g1") == 0);
	assert_true(nova_metrics_get(metrics, "nova_sent_bytes_total", "g1") == 5); /* counters stay */
	assert_true(nova_metrics_get(metrics, "nova_rtt_seconds", "g1") == 0.25);
	assert_null(nova_metrics_free(metrics));
	assert_null(nova_metrics_free(NULL));
}

static void test_series_are_bounded(void **state)
{
	struct nova_metrics *metrics = nova_metrics_new(table);
	json_t *json;
	char label[16];

	for (int i = 0; i < 3 * NOVA_METRICS_SERIES_MAX; i++) {
		snprintf(label, sizeof(label), "g%d", i);
		nova_metrics_add(metrics, "nova_sent_bytes_total", label, 1);
	}
	json = nova_metrics_json(metrics, NULL, NULL);
	assert_int_equal(
	    json_object_size(json_object_get(json, "nova_sent_bytes_total")), NOVA_METRICS_SERIES_MAX + 1);
	json_decref(json);
	assert_true(
	    nova_metrics_get(metrics, "nova_sent_bytes_total", "other") == 2 * NOVA_METRICS_SERIES_MAX);
	nova_metrics_add(metrics, "nova_sent_bytes_total", "g0", 1); /* those that are kept go on */
	assert_true(nova_metrics_get(metrics, "nova_sent_bytes_total", "g0") == 2);
	nova_metrics_free(metrics);
}

/* Gauges that come and go with guests do not use up the bound; nor do labels that cannot be kept. */
static void test_forgotten_series_make_room(void **state)
{
	struct nova_metrics *metrics = nova_metrics_new(table);
	char label[16];

	for (int i = 0; i < 2 * NOVA_METRICS_SERIES_MAX; i++) {
		snprintf(label, sizeof(label), "g%d", i);
		nova_metrics_set(metrics, "nova_memory_bytes", label, 1);
		nova_metrics_forget(metrics, "guest", label);
		nova_metrics_set(metrics, "nova_memory_bytes", "\xff", 1);
	}
	nova_metrics_set(metrics, "nova_memory_bytes", "last", 9);
	assert_true(nova_metrics_get(metrics, "nova_memory_bytes", "last") == 9);
	nova_metrics_free(metrics);
}

static void test_prometheus(void **state)
{
	struct nova_metrics *metrics = nova_metrics_new(table);
	char *text;

	nova_metrics_add(metrics, "nova_jobs_total", NULL, 1e12);
	nova_metrics_add(metrics, "nova_sent_bytes_total", "a\"b\\c\nd", 1);
	nova_metrics_set(metrics, "nova_rtt_seconds", "beta", 0.125);
	text = nova_metrics_prometheus(metrics, NULL, NULL);
	assert_string_equal(text,
	    "# HELP nova_jobs_total jobs that ended\n# TYPE nova_jobs_total counter\nnova_jobs_total "
	    "1000000000000\n"
	    "# HELP nova_sent_bytes_total bytes sent\n# TYPE nova_sent_bytes_total counter\n"
	    "nova_sent_bytes_total{guest=\"a\\\"b\\\\c\\nd\"} 1\n"
	    "# HELP nova_memory_bytes memory\n# TYPE nova_memory_bytes gauge\n"
	    "# HELP nova_rtt_seconds round trip\n# TYPE nova_rtt_seconds "
	    "gauge\nnova_rtt_seconds{peer=\"beta\"} 0.125\n");
	free(text);
	nova_metrics_free(metrics);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_values),
		cmocka_unit_test(test_series_are_bounded),
		cmocka_unit_test(test_forgotten_series_make_room),
		cmocka_unit_test(test_prometheus),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
