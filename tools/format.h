/* SPDX-License-Identifier: Apache-2.0
 *
 * format.h - numbers and texts as people read them.
 */
#ifndef TOOLS_FORMAT_H
#define TOOLS_FORMAT_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <jansson.h>

/* A text of bounded size, by value: formatters can be nested in one printf. */
struct text {
	char s[64];
};

struct text format_bytes(double bytes);  /* 1.5 GiB: powers of 1024 */
struct text format_rate(double bits);    /* 200 Mbit/s: powers of 1000 */
struct text format_duration(double ms);  /* 85 ms, 12.3 s, 3 min 5 s, 2 h 10 min */
struct text format_number(double value); /* 3, 2.35 */

/* How the value of a JSON member is best written; its name carries the unit (_ms, _us, _bytes, _bps,
 * _bytes_per_s, _percent); milliseconds since 1970 become a local time. Objects and lists become "a, b". The
 * caller frees the text. */
char *format_member(const char *name, const json_t *value);

/* The same text without control characters, so that no name from elsewhere can drive the terminal.
 * The caller frees it. */
char *format_clean(const char *text);

/* Columns a text takes on the terminal: UTF-8 characters, none wide. */
size_t format_columns(const char *text);

/* A member's name as a label: "wire_bytes" is "wire", "total_ms" is "total". */
struct text format_label(const char *name);

#endif
