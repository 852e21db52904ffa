/* SPDX-License-Identifier: Apache-2.0
 *
 * follow.c - stay with a job until it ends.
 *
 * Events come on the connection from its beginning, so the job is asked for once after that: whatever
 * ended before is in the answer, whatever ends later is an event. It is asked for again every ASK_AGAIN_S: a daemon that
 * had no memory for the event sent none. Progress goes to standard error (one line
 * redrawn in place on a terminal, otherwise a line for each phase and every 5 s), the outcome to standard
 * output. Following never changes the job.
 */
#include "tools/exitcode.h"
#include "tools/follow.h"
#include "tools/progress_view.h"
#include "tools/views.h"
#include <event2/event.h>
#include <stdlib.h>
#include <string.h>

#define ASK_AGAIN_S 5

struct follow {
	struct session *session;
	const char *job;
	bool json;
	struct progress_view view;
	bool over, lost_shown;
	bool awake; /* the job ended, or is to be asked for again */
	json_t *ended;
};

void follow_put_json(const char *event, json_t *data)
{
	json_t *line = json_pack("{ss sO}", "event", event, "data", data);

	json_dumpf(line, stdout, JSON_COMPACT);
	putchar('\n');
	fflush(stdout);
	json_decref(line);
}

/* What the guest loses by moving, and why it does not move as was asked: before it is stopped. */
static void show_lost(struct follow *follow, const json_t *from)
{
	const json_t *lost = json_object_get(from, "lost"), *one;
	const char *why = json_string_value(json_object_get(from, "mode_why"));
	size_t i;

	if (follow->lost_shown || !json_array_size(lost))
		return;
	follow->lost_shown = true;
	progress_clear(&follow->view);
	if (why)
		view_lines(stderr, "", why);
	json_array_foreach ((json_t *)lost, i, one)
		view_lines(stderr, "it loses ", json_string_value(one));
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
		follow->over = follow->awake = true;
	} else if (!strcmp(event, "JOB_LOSES") && !follow->json) {
		show_lost(follow, data);
	} else if (!strcmp(event, "JOB_PROGRESS") && !follow->json) {
		progress_show(&follow->view, data);
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
	if (!follow->json)
		show_lost(follow, json_object_get(job, "report"));
	progress = json_object_get(job, "progress");
	if (!follow->over && !follow->json && json_object_size(progress))
		progress_show(&follow->view, progress);
	json_decref(job);
	return 0;
}

static void wake(evutil_socket_t fd, short what, void *arg)
{
	((struct follow *)arg)->awake = true;
}

/* What the daemon could not answer now, it may later. */
static int wait_for_end(struct follow *follow, struct event *alarm, struct nova_error *err)
{
	const struct timeval wait = { ASK_AGAIN_S, 0 };

	while (!follow->over) {
		follow->awake = false;
		if (alarm)
			evtimer_add(alarm, &wait);
		if (session_wait(follow->session, &follow->awake, err) < 0)
			return -1;
		if (!follow->over && ask(follow, err) < 0 && (follow->session->gone || follow->session->interrupted))
			return -1;
	}
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
	struct follow follow = { .session = session, .job = job, .json = json };
	struct nova_error err = { 0 };
	struct event *alarm = evtimer_new(session->base, wake, &follow);
	int status;

	progress_view_init(&follow.view);
	session->on_event = on_event;
	session->on_event_arg = &follow;
	if (ask(&follow, &err) < 0 || wait_for_end(&follow, alarm, &err) < 0) {
		progress_keep(&follow.view); /* it says how far the job was */
		status = left_early(&follow, &err);
	} else {
		progress_clear(&follow.view);
		if (!json)
			view_outcome(stdout, follow.ended);
		status = outcome_status(follow.ended);
	}
	session->on_event = NULL;
	session->on_event_arg = NULL;
	if (alarm)
		event_free(alarm);
	json_decref(follow.ended);
	progress_release(&follow.view);
	return status;
}
