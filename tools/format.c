/* SPDX-License-Identifier: Apache-2.0
 *
 * format.c - numbers and texts as people read them.
 *
 * Three significant digits are enough for a person; programs get exact numbers through --json. Which unit
 * a JSON member has is told by the end of its name, as everywhere in this project, so that an answer that
 * grows a member is shown well without a change here.
 */
#include "tools/format.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static struct text scaled(double value, double step, const char *const *units)
{
	struct text out;
	size_t i = 0;

	while (fabs(value) >= step * 0.9995 && units[i + 1]) {
		value /= step;
		i++;
	}
	if (i == 0 || fabs(value) >= 99.95)
		snprintf(out.s, sizeof(out.s), "%.0f %s", value, units[i]);
	else if (fabs(value - round(value)) < 0.005)
		snprintf(out.s, sizeof(out.s), "%.0f %s", round(value), units[i]);
	else
		snprintf(out.s, sizeof(out.s), "%.*f %s", fabs(value) < 9.995 ? 2 : 1, value, units[i]);
	return out;
}

struct text format_bytes(double bytes)
{
	static const char *const units[] = { "B", "KiB", "MiB", "GiB", "TiB", "PiB", NULL };

	return scaled(bytes, 1024, units);
}

struct text format_rate(double bits)
{
	static const char *const units[] = { "bit/s", "kbit/s", "Mbit/s", "Gbit/s", "Tbit/s", NULL };

	return scaled(bits, 1000, units);
}

struct text format_duration(double ms)
{
	struct text out;
	long long s = llround(ms / 1000);

	if (fabs(ms) < 10 && ms != round(ms))
		snprintf(out.s, sizeof(out.s), "%.1f ms", ms);
	else if (fabs(ms) < 999.5)
		snprintf(out.s, sizeof(out.s), "%.0f ms", ms);
	else if (ms < 59950)
		snprintf(out.s, sizeof(out.s), "%.1f s", ms / 1000);
	else if (s < 3600)
		snprintf(out.s, sizeof(out.s), "%lld min %lld s", s / 60, s % 60);
	else if (s < 86400)
		snprintf(out.s, sizeof(out.s), "%lld h %lld min", s / 3600, s / 60 % 60);
	else
		snprintf(out.s, sizeof(out.s), "%lld d %lld h", s / 86400, s / 3600 % 24);
	return out;
}

struct text format_number(double value)
{
	struct text out;

	snprintf(out.s, sizeof(out.s), value == round(value) && fabs(value) < 1e15 ? "%.0f" : "%.2f", value);
	return out;
}

static struct text format_percent(double value)
{
	struct text out;

	snprintf(out.s, sizeof(out.s), "%.4g %%", value);
	return out;
}

static struct text format_bytes_per_s(double value)
{
	struct text out = format_bytes(value);

	strncat(out.s, "/s", sizeof(out.s) - strlen(out.s) - 1);
	return out;
}

/* A span of more than 30 years is none: it counts from 1970. */
static struct text format_ms(double ms)
{
	time_t seconds = (time_t)(ms / 1000);
	struct text out;
	struct tm local;

	if (ms < 1e12 || !localtime_r(&seconds, &local))
		return format_duration(ms);
	strftime(out.s, sizeof(out.s), "%Y-%m-%d %H:%M:%S", &local);
	return out;
}

static struct text format_us(double us)
{
	return format_duration(us / 1000);
}

/* The longest ends come first. */
static const struct {
	const char *end;
	struct text (*format)(double value);
} units[] = {
	{ "_bytes_per_s", format_bytes_per_s },
	{ "_percent", format_percent },
	{ "_bytes", format_bytes },
	{ "_bps", format_rate },
	{ "_ms", format_ms },
	{ "_us", format_us },
};

static size_t unit_of(const char *name, size_t *end_length)
{
	size_t length = strlen(name), i;

	for (i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
		*end_length = strlen(units[i].end);
		if (length > *end_length && !strcmp(name + length - *end_length, units[i].end))
			return i;
		if (!strcmp(name, units[i].end + 1)) {
			*end_length = 0;
			return i;
		}
	}
	*end_length = 0;
	return i;
}

static struct text number_text(const char *name, double value)
{
	size_t end_length, unit = unit_of(name, &end_length);

	return unit < sizeof(units) / sizeof(units[0]) ? units[unit].format(value) : format_number(value);
}

struct text format_label(const char *name)
{
	struct text out;
	size_t end_length;

	unit_of(name, &end_length);
	snprintf(out.s, sizeof(out.s), "%.*s", (int)(strlen(name) - end_length), name);
	for (char *c = out.s; *c; c++)
		if (*c == '_' || *c == '-')
			*c = ' ';
	return out;
}

char *format_clean(const char *text)
{
	char *out = strdup(text);

	for (unsigned char *c = (unsigned char *)out; c && *c; c++) {
		bool c1 = c[0] == 0xc2 && c[1] >= 0x80 && c[1] < 0xa0; /* U+0080..U+009F in UTF-8 */
		if (*c < 0x20 || *c == 0x7f)
			*c = *c == '\n' || *c == '\t' ? ' ' : '?';
		else if (c1)
			c[0] = c[1] = '?';
	}
	return out;
}

size_t format_columns(const char *text)
{
	size_t columns = 0;

	for (; *text; text++)
		columns += ((unsigned char)*text & 0xc0) != 0x80;
	return columns;
}

static void compound(FILE *out, const char *name, const json_t *value)
{
	const char *key, *between = "";
	json_t *item;
	size_t i;

	if (json_is_array(value)) {
		json_array_foreach (value, i, item) {
			char *text = format_member(name, item);
			fprintf(out, "%s%s", between, text);
			free(text);
			between = json_is_object(item) ? "; " : ", ";
		}
		return;
	}
	json_object_foreach ((json_t *)value, key, item) {
		char *text = format_member(key, item);
		struct text label = format_label(key);
		fprintf(out, "%s%s %s", between, label.s, text);
		free(text);
		between = ", ";
	}
}

char *format_member(const char *name, const json_t *value)
{
	char *raw = NULL, *clean;
	size_t size;
	FILE *out;

	if (json_is_string(value))
		return format_clean(json_string_value(value));
	if (json_is_number(value))
		return strdup(number_text(name, json_number_value(value)).s);
	if (json_is_boolean(value))
		return strdup(json_is_true(value) ? "yes" : "no");
	if (!json_is_array(value) && !json_is_object(value))
		return strdup("-");
	out = open_memstream(&raw, &size);
	compound(out, name, value);
	fclose(out);
	clean = format_clean(raw);
	free(raw);
	return clean;
}
