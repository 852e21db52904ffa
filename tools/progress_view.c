/* SPDX-License-Identifier: Apache-2.0
 *
 * progress_view.c - progress on standard error: one line redrawn in place on a terminal, otherwise a line for each
 * phase and every PLAIN_EVERY_S seconds.
 */
#include "tools/progress_view.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum {
	PLAIN_EVERY_S = 5
};

static time_t now_s(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec;
}

static size_t terminal_columns(void)
{
	struct winsize size;

	return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col ? size.ws_col : 80;
}

static bool is_terminal(void)
{
	const char *term = getenv("TERM");

	return isatty(STDERR_FILENO) && (!term || strcmp(term, "dumb"));
}

void progress_view_init(struct progress_view *view)
{
	*view = (struct progress_view){ .terminal = is_terminal() };
}

void progress_show(struct progress_view *view, json_t *progress)
{
	char line[PROGRESS_MAX];

	if (view->terminal) {
		progress_line(line, progress, terminal_columns());
		fprintf(stderr, "\r%s\033[K", line);
		fflush(stderr);
		view->line_open = true;
		return;
	}
	if (view->shown && !progress_is_news(view->shown, progress) && now_s() - view->shown_at < PLAIN_EVERY_S)
		return;
	progress_line(line, progress, 0);
	fprintf(stderr, "%s\n", line);
	json_decref(view->shown);
	view->shown = json_deep_copy(progress);
	view->shown_at = now_s();
}

void progress_clear(struct progress_view *view)
{
	if (view->line_open)
		fputs("\r\033[K", stderr);
	view->line_open = false;
}

void progress_keep(struct progress_view *view)
{
	if (view->line_open)
		fputc('\n', stderr);
	view->line_open = false;
}

void progress_release(struct progress_view *view)
{
	json_decref(view->shown);
	view->shown = NULL;
}
