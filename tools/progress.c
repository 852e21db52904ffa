/* SPDX-License-Identifier: Apache-2.0
 *
 * progress.c - one JOB_PROGRESS event as one line that fits.
 *
 * The line is made of pieces; each has a rank, and while the line is too long the piece of the highest rank
 * goes. The bar gets what room is left, 10 to 30 columns, or is left out. A line never fills the last
 * column: many terminals would wrap.
 */
#include "tools/format.h"
#include "tools/progress.h"
#include <stdlib.h>
#include <string.h>

enum {
	PIECES_MAX = 16,
	BAR_MIN = 10,
	BAR_MAX = 30
};

struct piece {
	unsigned rank; /* 0 stays always */
	char text[160];
};

struct pieces {
	struct piece list[PIECES_MAX];
	size_t count;
};

__attribute__((format(printf, 3, 4))) static void add(
    struct pieces *pieces, unsigned rank, const char *format, ...)
{
	struct piece *piece = &pieces->list[pieces->count];
	va_list args;

	if (pieces->count == PIECES_MAX)
		return;
	piece->rank = rank;
	va_start(args, format);
	vsnprintf(piece->text, sizeof(piece->text), format, args);
	va_end(args);
	pieces->count++;
}

static const char *string_of(const json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));

	return text ? text : "";
}

/* False if the number is not there: nothing is shown rather than a zero that nobody measured. */
static bool number_of(const json_t *object, const char *key, double *value)
{
	const json_t *member = json_object_get(object, key);

	*value = json_number_value(member);
	return json_is_number(member);
}

static void add_who(struct pieces *pieces, const json_t *progress)
{
	const char *guest = string_of(progress, "guest"), *peer = string_of(progress, "peer");

	if (*guest && *peer)
		add(pieces, 0, "%.60s -> %.60s", guest, peer);
	else
		add(pieces, 0, "%.60s", *guest ? guest : string_of(progress, "job"));
}

static void add_phase(struct pieces *pieces, const json_t *progress)
{
	double waited, limit, iteration;

	if (number_of(progress, "reconnect_waited_ms", &waited)) {
		if (number_of(progress, "reconnect_limit_ms", &limit))
			add(pieces, 0, "reconnecting (%.0f s of %.0f s)", waited / 1000, limit / 1000);
		else
			add(pieces, 0, "reconnecting (%.0f s)", waited / 1000);
		return;
	}
	if (number_of(progress, "iteration", &iteration) && iteration > 0)
		add(pieces, 0, "%.40s round %.0f", string_of(progress, "phase"), iteration);
	else
		add(pieces, 0, "%.40s", string_of(progress, "phase"));
}

static void add_numbers(struct pieces *pieces, const json_t *progress)
{
	double value, cap;

	if (number_of(progress, "percent", &value))
		add(pieces, 0, "%3.0f %%", value);
	if (number_of(progress, "rate_bps", &value))
		add(pieces, 2, "%s", format_rate(value).s);
	if (number_of(progress, "cap_bps", &cap) && cap > 0)
		add(pieces, 7, "(cap %s)", format_rate(cap).s);
	if (!json_object_get(progress, "percent") && number_of(progress, "raw_bytes", &value))
		add(pieces, 1, "%s moved", format_bytes(value).s); /* a relay does not know how much there is */
	if (number_of(progress, "remaining_bytes", &value))
		add(pieces, 3, "%s left", format_bytes(value).s);
	if (number_of(progress, "disk_total_bytes", &value) && value > 0 &&
	    number_of(progress, "disk_done_bytes", &cap))
		add(pieces, 5, "disks %s of %s", format_bytes(cap).s, format_bytes(value).s);
	if (number_of(progress, "dirty_bytes_per_s", &value) && value > 0)
		add(pieces, 5, "dirties %s/s", format_bytes(value).s);
	if (number_of(progress, "predicted_downtime_ms", &value) && value > 0)
		add(pieces, 4, "pause %s", format_duration(value).s);
	if (number_of(progress, "throttle_percent", &value) && value > 0)
		add(pieces, 6, "throttled %.0f %%", value);
	if (number_of(progress, "ratio", &value) && value > 0)
		add(pieces, 8, "%.2fx", value);
	if (number_of(progress, "eta_ms", &value))
		add(pieces, 1, "ETA %s", format_duration(value).s);
}

static size_t join(char *line, const struct pieces *pieces)
{
	line[0] = '\0';
	for (size_t i = 0; i < pieces->count; i++) {
		size_t used = strlen(line);
		snprintf(line + used, PROGRESS_MAX - used, "%s%s", i ? "  " : "", pieces->list[i].text);
	}
	return format_columns(line);
}

static bool drop_last_rank(struct pieces *pieces)
{
	size_t worst = 0;

	for (size_t i = 1; i < pieces->count; i++)
		if (pieces->list[i].rank > pieces->list[worst].rank)
			worst = i;
	if (pieces->count == 0 || pieces->list[worst].rank == 0)
		return false;
	pieces->count--;
	memmove(&pieces->list[worst], &pieces->list[worst + 1],
	    (pieces->count - worst) * sizeof(pieces->list[0]));
	return true;
}

static void add_bar(char *line, size_t used, size_t columns, double percent)
{
	size_t width = columns > used + 4 ? columns - used - 4 : 0, done, end = strlen(line);

	if (width > BAR_MAX)
		width = BAR_MAX;
	if (width < BAR_MIN || end + width + 5 > PROGRESS_MAX)
		return;
	done = percent <= 0 ? 0 : percent >= 100 ? width : (size_t)(percent * (double)width / 100);
	memcpy(line + end, "  [", 3);
	memset(line + end + 3, '#', done);
	memset(line + end + 3 + done, '.', width - done);
	memcpy(line + end + 3 + width, "]", 2);
}

static void cut(char *line, size_t columns)
{
	size_t seen = 0;

	for (char *c = line; *c; c++)
		if (((unsigned char)*c & 0xc0) != 0x80 && seen++ == columns) {
			*c = '\0';
			return;
		}
}

void progress_line(char *line, const json_t *progress, size_t columns)
{
	struct pieces pieces = { .count = 0 };
	char *clean;
	double percent;
	size_t used;

	add_who(&pieces, progress);
	add_phase(&pieces, progress);
	add_numbers(&pieces, progress);
	used = join(line, &pieces);
	if (columns) {
		columns--;
		while (used > columns && drop_last_rank(&pieces))
			used = join(line, &pieces);
		if (number_of(progress, "percent", &percent))
			add_bar(line, used, columns, percent);
		cut(line, columns);
	}
	clean = format_clean(line);
	if (clean)
		snprintf(line, PROGRESS_MAX, "%s", clean);
	free(clean);
}

bool progress_is_news(const json_t *before, const json_t *now)
{
	static const char *const keys[] = { "phase", "iteration", "cap_bps", "throttle_percent",
		"connections" };
	bool was_lost = json_object_get(before, "reconnect_waited_ms") != NULL;
	bool is_lost = json_object_get(now, "reconnect_waited_ms") != NULL;

	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
		const json_t *a = json_object_get(before, keys[i]), *b = json_object_get(now, keys[i]);
		if (a != b && !json_equal(a, b))
			return true;
	}
	return was_lost != is_lost;
}
