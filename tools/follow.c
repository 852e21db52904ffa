/* SPDX-License-Identifier: Apache-2.0
 *
 * follow.c - stay with a job until it ends.
 *
 * Events come on the connection from its beginning, so the job is asked for once after that: whatever
 * ended before is in the answer, whatever ends later is an event. Progress goes to standard error (one line
 * redrawn in place on a terminal, otherwise a line for each phase and every 5 s), the outcome to standard
 * output. Following never changes the job.
 */
#include "tools/exitcode.h"
#include "tools/follow.h"
#include "tools/progress.h"
#include "tools/views.h"
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

enum {
	PLAIN_EVERY_S = 5
};

struct follow {
	struct session *session;
	const char *job;
	bool json, terminal;
	bool line_open; /* the cursor is on a progress line */
	bool over;
	json_t *ended;
	json_t *shown; /* progress of the last plain line */
	time_t shown_at;
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

static void show_progress(struct follow *follow, json_t *progress)
{
	char line[PROGRESS_MAX];

	if (follow->terminal) {
		progress_line(line, progress, terminal_columns());
		fprintf(stderr, "\r%s\033[K", line);
		fflush(stderr);
		follow->line_open = true;
		return;
	}
	if (follow->shown && !progress_is_news(follow->shown, progress) &&
	    now_s() - follow->shown_at < PLAIN_EVERY_S)
		return;
	progress_line(line, progress, 0);
	fprintf(stderr, "%s\n", line);
	json_decref(follow->shown);
	follow->shown = json_deep_copy(progress);
	follow->shown_at = now_s();
}

static void close_line(struct follow *follow)
{
	if (follow->line_open)
		fputs("\r\033[K", stderr);
	follow->line_open = false;
}

void follow_put_json(const char *event, json_t *data)
{
	json_t *line = json_pack("{ss sO}", "event", event, "data", data);

	json_dumpf(line, stdout, JSON_COMPACT);
	putchar('\n');
	fflush(stdout);
	json_decref(line);
}

static void on_event(void *arg, const char *event, json_t *data)
{
	struct follow *follow = arg;
	const char *job = json_string_value(json_object_get(data, "job"));

	if (follow->over || !job || strcmp(job, follow->job))
		return;
	if (follow->json)
		follow_put_json(event, data);
	if (!strcmp(event, "JOB_ENDED")) {
		follow->ended = json_incref(data);
		follow->over = true;
	} else if (!strcmp(event, "JOB_PROGRESS") && !follow->json) {
		show_progress(follow, data);
	}
}

/* The job as it is now; ended jobs are remembered by the daemon. */
static int ask(struct follow *follow, struct nova_error *err)
{
	json_t *args = json_pack("{ss}", "job", follow->job), *job = NULL, *progress;
	int failed = session_call(follow->session, "job", args, 0, &job, err);

	json_decref(args);
	if (failed < 0)
		return follow->over ? 0 : -1;
	if (!follow->over && json_is_string(json_object_get(job, "outcome"))) {
		follow->over = true;
		follow->ended = json_incref(job);
		if (follow->json)
			follow_put_json("JOB_ENDED", job);
	}
	progress = json_object_get(job, "progress");
	if (!follow->over && !follow->json && json_object_size(progress))
		show_progress(follow, progress);
	json_decref(job);
	return 0;
}

static int left_early(struct follow *follow, const struct nova_error *err)
{
	const char *job = follow->job;

	if (follow->session->interrupted) {
		fprintf(stderr, "novacron: job %s goes on; novacron watch %s, novacron cancel %s\n", job, job,
		    job);
		return EXIT_INTERRUPTED;
	}
	if (follow->session->gone) {
		fprintf(stderr,
		    "novacron: the daemon went away (%s)\n"
		    "job %s is finished or undone when the daemon is back: novacron watch %s\n",
		    err->text, job, job);
		return exit_of(NOVA_LINK);
	}
	fprintf(stderr, "novacron: %s\n", err->text);
	return exit_of(err->category);
}

static int outcome_status(const json_t *ended)
{
	const char *outcome = json_string_value(json_object_get(ended, "outcome"));
	const json_t *error = view_error(ended);
	enum nova_category category = NOVA_OK;

	if (json_is_object(error))
		category = category_of(json_string_value(json_object_get(error, "category")));
	return exit_of_outcome(outcome ? outcome : "", category);
}

int follow_job(struct session *session, const char *job, bool json)
{
	struct follow follow = { .session = session, .job = job, .json = json, .terminal = is_terminal() };
	struct nova_error err = { 0 };
	int status;

	session->on_event = on_event;
	session->on_event_arg = &follow;
	if (ask(&follow, &err) < 0 || session_wait(session, &follow.over, &err) < 0) {
		if (follow.line_open)
			fputc('\n', stderr); /* the last line stays: it says how far the job was */
		status = left_early(&follow, &err);
	} else {
		close_line(&follow);
		if (!json)
			view_outcome(stdout, follow.ended);
		status = outcome_status(follow.ended);
	}
	session->on_event = NULL;
	json_decref(follow.ended);
	json_decref(follow.shown);
	return status;
}
