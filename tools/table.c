/* SPDX-License-Identifier: Apache-2.0
 *
 * table.c - JSON answers as aligned text.
 *
 * At most 24 columns; every cell is formatted twice (once to measure, once to print), which is nothing for
 * the few hundred rows that people read.
 */
#include "tools/table.h"
#include "tools/format.h"
#include <ctype.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum {
	COLUMNS_MAX = 24,
	LINE_MAX_COLUMNS = 100
};

struct column {
	char name[48];
	size_t width;
	bool used, number;
};

struct table {
	struct column columns[COLUMNS_MAX];
	size_t count;
};

/* The last part of "a.b", which carries the unit. */
static const char *own_name(const struct column *column)
{
	const char *dot = strrchr(column->name, '.');

	return dot ? dot + 1 : column->name;
}

static bool has_column(const struct table *table, const char *name)
{
	for (size_t i = 0; i < table->count; i++)
		if (!strcmp(table->columns[i].name, name))
			return true;
	return false;
}

static void add_column(struct table *table, const char *name, size_t length)
{
	struct column *column;

	if (table->count == COLUMNS_MAX || length >= sizeof(column->name))
		return;
	column = &table->columns[table->count++];
	*column = (struct column) { .number = true };
	memcpy(column->name, name, length);
	column->width = strlen(format_label(own_name(column)).s);
}

static const char *next_word(const char **words, size_t *length)
{
	const char *start = *words + strspn(*words, " ");

	*length = strcspn(start, " ");
	*words = start + *length;
	return *length ? start : NULL;
}

static void choose_columns(struct table *table, const json_t *rows, const char *names)
{
	const char *key, *word;
	json_t *row, *value;
	size_t i, length;

	while (names && (word = next_word(&names, &length)))
		add_column(table, word, length);
	if (table->count)
		return;
	json_array_foreach (rows, i, row)
		json_object_foreach (row, key, value)
			if (!has_column(table, key))
				add_column(table, key, strlen(key));
}

static bool is_empty(const json_t *value)
{
	return !value || json_is_null(value) || (json_is_string(value) && !*json_string_value(value)) ||
	       (json_is_array(value) && !json_array_size(value)) ||
	       (json_is_object(value) && !json_object_size(value));
}

static const json_t *find_value(const struct column *column, const json_t *row)
{
	const char *name = own_name(column);
	char outer[sizeof(column->name)];

	if (name == column->name)
		return json_object_get(row, name);
	snprintf(outer, sizeof(outer), "%.*s", (int)(name - 1 - column->name), column->name);
	return json_object_get(json_object_get(row, outer), name);
}

static char *cell(const struct column *column, const json_t *row)
{
	const json_t *value = find_value(column, row);

	return is_empty(value) ? strdup("-") : format_member(own_name(column), value);
}

static void measure(struct column *column, const json_t *row)
{
	const json_t *value = find_value(column, row);
	char *text = cell(column, row);
	size_t width = format_columns(text);

	free(text);
	if (width > column->width)
		column->width = width;
	if (is_empty(value))
		return;
	column->used = true;
	if (!json_is_number(value))
		column->number = false;
}

static void put(FILE *out, const char *text, const struct column *column, bool last)
{
	size_t columns = format_columns(text);
	int fill = column->width > columns ? (int)(column->width - columns) : 0;

	if (column->number)
		fprintf(out, "%*s%s%s", fill, "", text, last ? "" : "  ");
	else
		fprintf(out, "%s%*s", text, last ? 0 : fill + 2, "");
}

static void upper(char *text)
{
	for (; *text; text++)
		*text = (char)toupper((unsigned char)*text);
}

static void print_head(FILE *out, const struct table *table, size_t last)
{
	for (size_t i = 0; i <= last; i++) {
		struct text title = format_label(own_name(&table->columns[i]));
		upper(title.s);
		if (table->columns[i].used)
			put(out, title.s, &table->columns[i], i == last);
	}
	fputc('\n', out);
}

static void print_indented(FILE *out, const json_t *rows, const char *columns, unsigned indent)
{
	struct table table = { .count = 0 };
	size_t i, last = 0;
	json_t *row;

	choose_columns(&table, rows, columns);
	for (size_t c = 0; c < table.count; c++) {
		json_array_foreach (rows, i, row)
			measure(&table.columns[c], row);
		if (table.columns[c].used)
			last = c;
	}
	if (!table.count)
		return;
	fprintf(out, "%*s", (int)indent, "");
	print_head(out, &table, last);
	json_array_foreach (rows, i, row) {
		fprintf(out, "%*s", (int)indent, "");
		for (size_t c = 0; c <= last; c++) {
			char *text;
			if (!table.columns[c].used)
				continue;
			text = cell(&table.columns[c], row);
			put(out, text, &table.columns[c], c == last);
			free(text);
		}
		fputc('\n', out);
	}
}

void table_print(FILE *out, const json_t *rows, const char *columns)
{
	print_indented(out, rows, columns, 0);
}

/* Break long lists behind a comma; the rest starts in the same column. */
static void put_wrapped(FILE *out, const char *text, size_t column)
{
	size_t at = column;

	while (*text) {
		const char *comma = strstr(text, ", ");
		size_t length = comma ? (size_t)(comma - text) + 2 : strlen(text);
		if (at > column && at + length > LINE_MAX_COLUMNS) {
			fprintf(out, "\n%*s", (int)column, "");
			at = column;
		}
		fprintf(out, "%.*s", (int)length, text);
		at += length;
		text += length;
	}
	fputc('\n', out);
}

static void print_member(FILE *out, const char *key, json_t *value, size_t width, unsigned indent)
{
	struct text label = format_label(key);
	char *text;

	fprintf(out, "%*s%s", (int)indent, "", label.s);
	if (json_is_object(value) && json_object_size(value)) {
		fputc('\n', out);
		object_print(out, value, NULL, indent + 2);
		return;
	}
	if (json_is_array(value) && json_is_object(json_array_get(value, 0))) {
		fputc('\n', out);
		print_indented(out, value, NULL, indent + 2);
		return;
	}
	text = is_empty(value) ? strdup("-") : format_member(key, value);
	fprintf(out, "%*s", (int)(width - strlen(label.s) + 2), "");
	put_wrapped(out, text, indent + width + 2);
	free(text);
}

static bool among(const char *words, const char *name)
{
	const char *word;
	size_t length;

	while (words && (word = next_word(&words, &length)))
		if (strlen(name) == length && !memcmp(word, name, length))
			return true;
	return false;
}

void object_print(FILE *out, const json_t *object, const char *first, unsigned indent)
{
	const char *key, *word, *lead = first;
	size_t width = 0, length;
	json_t *value;

	json_object_foreach ((json_t *)object, key, value) {
		size_t label = strlen(format_label(key).s);
		if (label > width)
			width = label;
	}
	while (lead && (word = next_word(&lead, &length))) {
		char name[48];
		snprintf(name, sizeof(name), "%.*s", (int)length, word);
		value = json_object_get(object, name);
		if (value)
			print_member(out, name, value, width, indent);
	}
	json_object_foreach ((json_t *)object, key, value)
		if (!among(first, key))
			print_member(out, key, value, width, indent);
}
