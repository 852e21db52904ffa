/* SPDX-License-Identifier: Apache-2.0
 *
 * table.h - JSON answers as aligned text.
 */
#ifndef TOOLS_TABLE_H
#define TOOLS_TABLE_H

#include <stdio.h>
#include <jansson.h>

/* A list of objects, a line each. columns names the members to show, in order, separated by blanks,
 * "a.b" is member b of member a; NULL shows every member that is seen, in the order in which they are met.
 * Columns that no row fills are left out; numbers are aligned right. */
void table_print(FILE *out, const json_t *rows, const char *columns);

/* An object, a member a line. first names the members that lead, in order, separated by blanks; the rest
 * follows as it comes. Members of objects are indented below it; lists of objects become tables. */
void object_print(FILE *out, const json_t *object, const char *first, unsigned indent);

#endif
