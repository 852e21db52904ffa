/* SPDX-License-Identifier: Apache-2.0
 *
 * series.h - a bounded record of a migration over time, for its report and for perf/plot.
 *
 * At most NOVA_SERIES_MOST points are kept: when they are full, every second one goes, and from then on only
 * points at twice the distance are taken. So any length of time fits, evenly.
 */
#ifndef NOVA_SERIES_H
#define NOVA_SERIES_H

#include "novacron.h"

#define NOVA_SERIES_MOST 160
#define NOVA_SERIES_CODEC 16 /* bytes of a codec's name, with its end */

struct nova_point {
	int64_t ms; /* since the migration began */
	int64_t iteration, remaining_bytes, dirty_bytes_per_s, raw_bytes, wire_bytes, link_bytes_per_s;
	int64_t predicted_downtime_ms; /* -1: not known */
	int64_t throttle_percent;
	char codec[NOVA_SERIES_CODEC]; /* "zstd-3" */
};

struct nova_series {
	struct nova_point points[NOVA_SERIES_MOST];
	size_t count;
	int64_t least_ms; /* between two points */
};

/* A point too soon after the last one is not taken. */
void nova_series_add(struct nova_series *series, const struct nova_point *point);
/* {"ms": [...], "remaining_bytes": [...], ..., "codec": [...]}, all of one length. The caller owns it. */
json_t *nova_series_json(const struct nova_series *series);

#endif
