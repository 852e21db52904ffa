/* SPDX-License-Identifier: Apache-2.0
 *
 * progress.h - one JOB_PROGRESS event as one line.
 */
#ifndef TOOLS_PROGRESS_H
#define TOOLS_PROGRESS_H

#include <stdbool.h>
#include <stddef.h>
#include <jansson.h>

enum {
	PROGRESS_MAX = 512
};

/* Write what fits into columns (0: everything) into line, PROGRESS_MAX bytes. With a width there is a bar
 * as well. */
void progress_line(char *line, const json_t *progress, size_t columns);

/* Something a line-by-line log should tell at once: the phase, the round, or a lost connection changed. */
bool progress_is_news(const json_t *before, const json_t *now);

#endif
