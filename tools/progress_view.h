/* SPDX-License-Identifier: Apache-2.0
 *
 * progress_view.h - progress events on standard error, as they come.
 */
#ifndef TOOLS_PROGRESS_VIEW_H
#define TOOLS_PROGRESS_VIEW_H

#include "tools/progress.h"
#include <time.h>

struct progress_view {
	bool terminal;
	bool line_open; /* the cursor is on a progress line */
	json_t *shown;  /* owned: progress of the last plain line */
	time_t shown_at;
};

void progress_view_init(struct progress_view *view);
void progress_show(struct progress_view *view, json_t *progress);
/* Whatever comes next begins on a line of its own: without the progress line, or below it. */
void progress_clear(struct progress_view *view);
void progress_keep(struct progress_view *view);
void progress_release(struct progress_view *view);

#endif
