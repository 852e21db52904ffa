/* SPDX-License-Identifier: Apache-2.0
 *
 * metrics.h - counters and gauges by name, as a JSON object and as Prometheus text.
 *
 * The table of metrics is the owner's and static; a metric has one value, or one for each value of its
 * label (guest, peer, ...). At most NOVA_METRICS_SERIES_MAX labelled values are kept: what a peer can name
 * must not grow without bound; further ones are counted in the metric's value with the label "other".
 */
#ifndef NOVA_METRICS_H
#define NOVA_METRICS_H

#include "novacron.h"

#define NOVA_METRICS_SERIES_MAX 4096

enum nova_metric_kind {
	NOVA_COUNTER,
	NOVA_GAUGE
};

struct nova_metric {
	const char *name; /* "novacron_jobs_total"; ends with a row whose name is NULL */
	enum nova_metric_kind kind;
	const char *label; /* "guest"; NULL: one value only */
	const char *help;
};

struct nova_metrics;

/* table is borrowed until nova_metrics_free(). */
struct nova_metrics *nova_metrics_new(const struct nova_metric *table);
struct nova_metrics *nova_metrics_free(struct nova_metrics *metrics);
/* name must be in the table (assert); label is its label's value, NULL for a metric without one. */
void nova_metrics_add(struct nova_metrics *metrics, const char *name, const char *label, double delta);
void nova_metrics_set(struct nova_metrics *metrics, const char *name, const char *label, double value);
/* 0 if never set. */
double nova_metrics_get(const struct nova_metrics *metrics, const char *name, const char *label);
/* The guest or peer is gone: forget the gauges of this label's value; counters stay. */
void nova_metrics_forget(struct nova_metrics *metrics, const char *label_name, const char *label);

/* Which series somebody may see; NULL: all. */
typedef bool (*nova_metrics_filter_fn)(void *arg, const char *label_name, const char *label);

/* {"novacron_jobs_total": 3, "novacron_guest_memory_bytes": {"g1": 268435456}}; the caller owns it. */
json_t *nova_metrics_json(const struct nova_metrics *metrics, nova_metrics_filter_fn filter, void *arg);
/* Text format 0.0.4; the caller frees it. NULL when out of memory. */
char *nova_metrics_prometheus(const struct nova_metrics *metrics, nova_metrics_filter_fn filter, void *arg);

#endif
