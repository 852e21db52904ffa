/* SPDX-License-Identifier: Apache-2.0
 *
 * series.c - the bounded record of series.h. Columns, not rows: a report is kept in the journal, and the
 * names would be most of it.
 */
#include "series.h"

#define FIRST_MS 100 /* least distance of two points in the beginning */

static void thin_out(struct nova_series *series)
{
	for (size_t i = 1; i < NOVA_SERIES_MOST / 2; i++)
		series->points[i] = series->points[2 * i];
	series->count = NOVA_SERIES_MOST / 2;
	series->least_ms *= 2;
}

void nova_series_add(struct nova_series *series, const struct nova_point *point)
{
	if (!series->least_ms)
		series->least_ms = FIRST_MS;
	if (series->count && point->ms - series->points[series->count - 1].ms < series->least_ms)
		return;
	if (series->count == NOVA_SERIES_MOST)
		thin_out(series);
	series->points[series->count++] = *point;
}

static const struct {
	const char *name;
	size_t offset;
} columns[] = {
	{ "ms", offsetof(struct nova_point, ms) },
	{ "iteration", offsetof(struct nova_point, iteration) },
	{ "remaining_bytes", offsetof(struct nova_point, remaining_bytes) },
	{ "dirty_bytes_per_s", offsetof(struct nova_point, dirty_bytes_per_s) },
	{ "raw_bytes", offsetof(struct nova_point, raw_bytes) },
	{ "wire_bytes", offsetof(struct nova_point, wire_bytes) },
	{ "link_bytes_per_s", offsetof(struct nova_point, link_bytes_per_s) },
	{ "predicted_downtime_ms", offsetof(struct nova_point, predicted_downtime_ms) },
	{ "throttle_percent", offsetof(struct nova_point, throttle_percent) },
};

json_t *nova_series_json(const struct nova_series *series)
{
	json_t *json = json_object(), *column;

	for (size_t c = 0; c < sizeof(columns) / sizeof(*columns); c++) {
		column = json_array();
		for (size_t i = 0; i < series->count; i++)
			json_array_append_new(column,
			    json_integer(*(const int64_t *)((const char *)&series->points[i] + columns[c].offset)));
		json_object_set_new(json, columns[c].name, column);
	}
	column = json_array();
	for (size_t i = 0; i < series->count; i++)
		json_array_append_new(column, json_string(series->points[i].codec));
	json_object_set_new(json, "codec", column);
	return json;
}
