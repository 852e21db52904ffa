/* SPDX-License-Identifier: Apache-2.0
 *
 * metrics.c - the counters of metrics.h: a list of series per metric of a static table. Not here: which
 * metrics there are (host.c).
 */
#include "metrics.h"
#include "cleanup.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct nova_metrics {
	const struct nova_metric *table; /* borrowed */
	json_t *values; /* owned: name -> number, or name -> {label value: number} */
	size_t series;  /* labelled values kept */
};

struct nova_metrics *nova_metrics_new(const struct nova_metric *table)
{
	struct nova_metrics *metrics = calloc(1, sizeof(*metrics));

	if (!metrics)
		return NULL;
	metrics->table = table;
	metrics->values = json_object();
	for (; table->name; table++)
		json_object_set_new(metrics->values, table->name, table->label ? json_object() : json_real(0));
	return metrics;
}

struct nova_metrics *nova_metrics_free(struct nova_metrics *metrics)
{
	if (!metrics)
		return NULL;
	json_decref(metrics->values);
	free(metrics);
	return NULL;
}

static const struct nova_metric *find(const struct nova_metrics *metrics, const char *name)
{
	const struct nova_metric *metric = metrics->table;

	while (metric->name && strcmp(metric->name, name))
		metric++;
	assert(metric->name); /* our own table */
	return metric;
}

/* The number to change; a label beyond the bound is counted under "other". */
static json_t *number(struct nova_metrics *metrics, const char *name, const char *label)
{
	json_t *value = json_object_get(metrics->values, name), *series;

	if (!find(metrics, name)->label)
		return value;
	series = json_object_get(value, label);
	if (series)
		return series;
	if (metrics->series >= NOVA_METRICS_SERIES_MAX)
		label = "other";
	if (!json_object_get(value, label) && json_object_set_new(value, label, json_real(0)) == 0)
		metrics->series++;
	return json_object_get(value, label);
}

void nova_metrics_add(struct nova_metrics *metrics, const char *name, const char *label, double delta)
{
	json_t *value = number(metrics, name, label);

	json_real_set(value, json_real_value(value) + delta);
}

void nova_metrics_set(struct nova_metrics *metrics, const char *name, const char *label, double value)
{
	json_real_set(number(metrics, name, label), value);
}

double nova_metrics_get(const struct nova_metrics *metrics, const char *name, const char *label)
{
	const json_t *value = json_object_get(metrics->values, name);

	return json_real_value(find(metrics, name)->label ? json_object_get(value, label) : value);
}

void nova_metrics_forget(struct nova_metrics *metrics, const char *label_name, const char *label)
{
	for (const struct nova_metric *metric = metrics->table; metric->name; metric++)
		if (metric->kind == NOVA_GAUGE && metric->label && !strcmp(metric->label, label_name) &&
		    json_object_del(json_object_get(metrics->values, metric->name), label) == 0)
			metrics->series--;
}

static void hide(const struct nova_metric *metric, json_t *series, nova_metrics_filter_fn filter, void *arg)
{
	const char *label;
	json_t *value;
	void *next;

	json_object_foreach_safe (series, next, label, value)
		if (!filter(arg, metric->label, label))
			json_object_del(series, label);
}

json_t *nova_metrics_json(const struct nova_metrics *metrics, nova_metrics_filter_fn filter, void *arg)
{
	json_t *values = json_deep_copy(metrics->values);

	for (const struct nova_metric *metric = metrics->table; filter && metric->name; metric++)
		if (metric->label)
			hide(metric, json_object_get(values, metric->name), filter, arg);
	return values;
}

/* ---- Prometheus ---- */

static void print_value(FILE *out, double value)
{
	if (value == floor(value) && fabs(value) < 1e15)
		fprintf(out, " %.0f\n", value);
	else
		fprintf(out, " %.17g\n", value);
}

static void print_label(FILE *out, const char *text)
{
	for (; *text; text++)
		if (*text == '\n')
			fputs("\\n", out);
		else if (*text == '"' || *text == '\\')
			fprintf(out, "\\%c", *text);
		else
			fputc(*text, out);
}

static void print_metric(FILE *out, const struct nova_metric *metric, json_t *value)
{
	const char *label;
	json_t *series;

	fprintf(out, "# HELP %s %s\n# TYPE %s %s\n", metric->name, metric->help, metric->name,
	    metric->kind == NOVA_COUNTER ? "counter" : "gauge");
	if (!metric->label) {
		fputs(metric->name, out);
		print_value(out, json_real_value(value));
		return;
	}
	json_object_foreach (value, label, series) {
		fprintf(out, "%s{%s=\"", metric->name, metric->label);
		print_label(out, label);
		fputs("\"}", out);
		print_value(out, json_real_value(series));
	}
}

char *nova_metrics_prometheus(const struct nova_metrics *metrics, nova_metrics_filter_fn filter, void *arg)
{
	json_t *values = nova_metrics_json(metrics, filter, arg);
	char *text = NULL;
	size_t length;
	FILE *out = open_memstream(&text, &length);

	for (const struct nova_metric *metric = metrics->table; out && metric->name; metric++)
		print_metric(out, metric, json_object_get(values, metric->name));
	if (out)
		fclose(out);
	json_decref(values);
	return text;
}
