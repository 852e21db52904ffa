/* SPDX-License-Identifier: Apache-2.0
 *
 * views.h - answers of the daemon as people read them.
 */
#ifndef TOOLS_VIEWS_H
#define TOOLS_VIEWS_H

#include "novacron.h"
#include <stdio.h>

/* The answer of a command. */
void view_answer(FILE *out, const char *command, const json_t *answer);

/* Why a job did not complete, {category, text}; borrowed, NULL if it did. */
const json_t *view_error(const json_t *ended);

/* How a job ended: data of JOB_ENDED, or the answer of "job". */
void view_outcome(FILE *out, const json_t *ended);

/* Each line of a text behind a label, without control characters. */
void view_lines(FILE *out, const char *label, const char *text);

#endif
