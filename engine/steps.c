/* SPDX-License-Identifier: Apache-2.0
 *
 * steps.c - the runner of row tables described in steps.h. It is a small state machine that moves one row
 * per turn of the loop: forwards until the end or a failure, then backwards through the undos. Undos that
 * give no limit of their own have UNDO_LIMIT_MS. What has no way back, an undo or a row after the commit, is tried again
 * every AGAIN_MS, AGAIN_MOST times, when all it lacked was memory. Not here: what rows do, and the journal (before()).
 */
#include "steps.h"

#include "clock.h"

#include <assert.h>
#include <errno.h>
#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define UNDO_LIMIT_MS 30000
#define NOTES_BYTES 2048
#define AGAIN_MS 100
#define AGAIN_MOST 50

static const char *const outcome_names[] = { "completed", "undone", "undo-failed", "leftovers", "in-doubt" };
static_assert(sizeof(outcome_names) / sizeof(*outcome_names) == NOVA_OUTCOMES, "a name for each outcome");

struct nova_run {
	const struct nova_step *steps; /* borrowed */
	size_t at;                     /* the row that runs or is undone */
	bool cancelled;                /* while inside; why is set */
	bool inside;                   /* the row's function is being called */
	bool waiting, undoing, past_commit, failed, undo_failed;
	bool resting; /* before the row is tried again */
	int again;    /* times that it was */
	int limit_ms;                 /* of the row that waits */
	int most_ms;                  /* for any row's limit; 0: no such cap */
	bool answered, answered_well; /* the waiting row's answer, to be taken from the loop */
	struct nova_error answer;
	struct nova_error why; /* the first failure */
	char notes[NOTES_BYTES];
	struct event *turn, *limit;           /* owned */
	const struct nova_run_events *events; /* borrowed */
	void *ctx;
};

const char *nova_outcome_name(enum nova_outcome outcome)
{
	return (unsigned)outcome < NOVA_OUTCOMES ? outcome_names[outcome] : "unknown";
}

const struct nova_step *nova_run_step(const struct nova_run *run)
{
	return &run->steps[run->at];
}

bool nova_run_undoing(const struct nova_run *run)
{
	return run->undoing;
}

bool nova_run_past_commit(const struct nova_run *run)
{
	return run->past_commit;
}

static void soon(struct nova_run *run)
{
	event_active(run->turn, EV_TIMEOUT, 0);
}

static void note(struct nova_run *run, const char *what, const struct nova_error *err)
{
	size_t used = strlen(run->notes);

	snprintf(run->notes + used, sizeof(run->notes) - used, "%s%s %s: %s", used ? "\n" : "", what,
	    nova_run_step(run)->name, err->text);
}

static void end(struct nova_run *run, enum nova_outcome outcome)
{
	const struct nova_run_events *events = run->events;
	const struct nova_error *err = outcome == NOVA_COMPLETED ? NULL : &run->why;

	events->ended(run->ctx, outcome, err, run->notes);
	nova_run_free(run);
}

static void forwards(struct nova_run *run);
static void backwards(struct nova_run *run);

void nova_run_cap_limits(struct nova_run *run, int most_ms)
{
	run->most_ms = most_ms;
}

void nova_run_set_limit(struct nova_run *run, int wanted_ms)
{
	const int limit_ms = run->most_ms && wanted_ms > run->most_ms ? run->most_ms : wanted_ms;
	const struct timeval wait = nova_timeval_ms(limit_ms);

	run->limit_ms = limit_ms;
	evtimer_del(run->limit);
	if (limit_ms > 0)
		evtimer_add(run->limit, &wait);
}

static void stop_waiting(struct nova_run *run)
{
	const struct nova_step *step = nova_run_step(run);

	evtimer_del(run->limit);
	if (run->waiting && !run->answered && step->drop)
		step->drop(run, run->ctx);
	run->waiting = run->answered = false;
}

/* Call a row's function. Whoever is told of the row (an event's subscriber) may set a limit or cancel while
 * we are inside: the limit is kept, the cancellation is honoured when we are back. */
static enum nova_step_result call(struct nova_run *run, bool undo, struct nova_error *err)
{
	const struct nova_step *step = nova_run_step(run);
	enum nova_step_result result;

	nova_run_set_limit(run, undo && !step->limit_ms ? UNDO_LIMIT_MS : step->limit_ms);
	run->inside = true;
	result = undo ? step->undo(run, run->ctx, err) : step->run(run, run->ctx, err);
	run->inside = false;
	run->waiting = result == NOVA_STEP_WAIT;
	if (!run->waiting)
		evtimer_del(run->limit);
	return result;
}

/* The journal's word before the act. */
static int before(struct nova_run *run, bool undo, struct nova_error *err)
{
	int result;

	if (!run->events->before)
		return 0;
	run->inside = true;
	result = run->events->before(run->ctx, nova_run_step(run), undo, err);
	run->inside = false;
	return result;
}

static bool rests(struct nova_run *run, const struct nova_error *err)
{
	const struct timeval wait = nova_timeval_ms(AGAIN_MS);

	if (err->errnum != ENOMEM || run->again == AGAIN_MOST || evtimer_add(run->limit, &wait) < 0)
		return false;
	run->again++;
	run->resting = true;
	return true;
}

/* ---- backwards ---- */

static void undo_over(struct nova_run *run, const struct nova_error *failure)
{
	if (failure && rests(run, failure))
		return;
	run->again = 0;
	if (failure) {
		run->undo_failed = true;
		note(run, "undo of", failure);
	}
	if (run->at == 0) {
		end(run, run->undo_failed ? NOVA_UNDO_FAILED : NOVA_UNDONE);
		return;
	}
	run->at--;
	soon(run);
}

static void backwards(struct nova_run *run)
{
	const struct nova_step *step = nova_run_step(run);
	struct nova_error err = { 0 };
	enum nova_step_result result = NOVA_STEP_DONE;

	if (step->undo) {
		/* An unwritable journal must not keep a guest from being brought back. */
		if (before(run, true, &err) < 0)
			note(run, "journal at undo of", &err);
		result = call(run, true, &err);
	}
	if (result != NOVA_STEP_WAIT)
		undo_over(run, result == NOVA_STEP_FAILED ? &err : NULL);
}

static void begin_undo(struct nova_run *run, const struct nova_error *why)
{
	run->failed = true;
	run->why = *why;
	run->undoing = true;
	soon(run);
}

/* ---- forwards ---- */

static void next_row(struct nova_run *run)
{
	run->past_commit |= nova_run_step(run)->commit;
	run->again = 0;
	run->at++;
	soon(run);
}

static void row_failed(struct nova_run *run, const struct nova_error *err)
{
	const struct nova_step *step = nova_run_step(run);

	if (run->past_commit && rests(run, err))
		return;
	if (run->past_commit) {
		if (!run->failed)
			run->why = *err;
		run->failed = true;
		note(run, "left over at", err);
		next_row(run);
	} else if (step->commit && (err->category == NOVA_LINK || err->category == NOVA_TIMEOUT)) {
		run->why = *err;
		end(run, NOVA_IN_DOUBT);
	} else
		begin_undo(run, err);
}

/* A cancellation that came while we were inside the row. */
static void take_cancel(struct nova_run *run)
{
	const struct nova_error why = run->why;

	run->cancelled = false;
	stop_waiting(run);
	begin_undo(run, &why);
}

static void forwards(struct nova_run *run)
{
	const struct nova_step *step = nova_run_step(run);
	struct nova_error err = { 0 };
	enum nova_step_result result;

	if (!step->name) {
		end(run, run->failed ? NOVA_LEFTOVERS : NOVA_COMPLETED);
		return;
	}
	if (before(run, false, &err) < 0) {
		/* The row has not acted: even a commit row is known not to have. */
		if (err.category == NOVA_LINK || err.category == NOVA_TIMEOUT)
			err.category = NOVA_SYSTEM;
		row_failed(run, &err);
		return;
	}
	if (run->cancelled) {
		take_cancel(run);
		return;
	}
	result = call(run, false, &err);
	if (run->cancelled)
		take_cancel(run);
	else if (result == NOVA_STEP_DONE)
		next_row(run);
	else if (result == NOVA_STEP_FAILED)
		row_failed(run, &err);
}

/* ---- turns of the loop ---- */

static void take_answer(struct nova_run *run)
{
	bool well = run->answered_well;
	struct nova_error err = run->answer;

	evtimer_del(run->limit);
	run->waiting = run->answered = false;
	if (run->undoing)
		undo_over(run, well ? NULL : &err);
	else if (well)
		next_row(run);
	else
		row_failed(run, &err);
}

static void turn(evutil_socket_t fd, short what, void *arg)
{
	struct nova_run *run = arg;

	if (run->waiting && run->answered)
		take_answer(run);
	else if (!run->waiting && run->undoing)
		backwards(run);
	else if (!run->waiting)
		forwards(run);
}

static void too_late(evutil_socket_t fd, short what, void *arg)
{
	struct nova_run *run = arg;
	struct nova_error err;

	if (run->resting) {
		run->resting = false;
		soon(run);
	}
	if (!run->waiting || run->answered)
		return;
	nova_error_set(&err, NOVA_TIMEOUT, "%s%s took longer than %g s", run->undoing ? "undo of " : "",
	    nova_run_step(run)->name, run->limit_ms / 1000.0);
	stop_waiting(run);
	if (run->undoing)
		undo_over(run, &err);
	else
		row_failed(run, &err);
}

static void answer(struct nova_run *run, const struct nova_error *err)
{
	if (!run->waiting || run->answered)
		return;
	run->answered = true;
	run->answered_well = err == NULL;
	if (err)
		run->answer = *err;
	soon(run);
}

void nova_run_done(struct nova_run *run)
{
	answer(run, NULL);
}

void nova_run_fail(struct nova_run *run, const struct nova_error *err)
{
	assert(err); /* a failure says why */
	answer(run, err);
}

int nova_run_cancel(struct nova_run *run, const struct nova_error *why, struct nova_error *err)
{
	const struct nova_step *step = nova_run_step(run);

	if (run->undoing || run->cancelled)
		return nova_error_set(err, NOVA_STATE, "it is being undone already (%s)", run->why.text);
	if (run->past_commit || !step->name || (step->commit && (run->waiting || run->inside)))
		return nova_error_set(err, NOVA_STATE, "it is past its point of no return (%s)",
		    step->name ? step->name : "end");
	if (run->inside) {
		run->why = *why;
		run->cancelled = true;
		return 0;
	}
	stop_waiting(run);
	begin_undo(run, why);
	return 0;
}

/* ---- beginning and end ---- */

static int find_row(const struct nova_step *steps, const char *name)
{
	for (int i = 0; steps[i].name; i++)
		if (!name || !strcmp(steps[i].name, name))
			return i;
	return -1;
}

struct nova_run *nova_run_new(struct event_base *base, const struct nova_step *steps, const char *start_at,
    bool undo_only, const struct nova_run_events *events, void *ctx, struct nova_error *err)
{
	int at = find_row(steps, start_at);
	struct nova_run *run = at < 0 ? NULL : calloc(1, sizeof(*run));

	if (!run) {
		if (at < 0)
			nova_error_set(err, NOVA_INVALID, "there is no step '%s'", start_at ? start_at : "");
		else
			nova_error_sys(err, ENOMEM, "an operation");
		return NULL;
	}
	run->steps = steps;
	run->at = (size_t)at;
	run->events = events;
	run->ctx = ctx;
	for (int i = 0; i < at; i++)
		run->past_commit |= steps[i].commit;
	if (undo_only && run->past_commit) {
		nova_error_set(
		    err, NOVA_STATE, "%s is past the point of no return: it is not undone", steps[at].name);
		return nova_run_free(run);
	}
	run->turn = event_new(base, -1, 0, turn, run);
	run->limit = evtimer_new(base, too_late, run);
	if (!run->turn || !run->limit) {
		nova_error_sys(err, ENOMEM, "an operation");
		return nova_run_free(run);
	}
	if (undo_only) {
		nova_error_set(&run->why, NOVA_CANCELLED, "interrupted by a restart of the daemon");
		run->undoing = run->failed = true;
	}
	soon(run);
	return run;
}

struct nova_run *nova_run_free(struct nova_run *run)
{
	if (!run)
		return NULL;
	if (run->limit && run->turn)
		stop_waiting(run);
	if (run->turn)
		event_free(run->turn);
	if (run->limit)
		event_free(run->limit);
	free(run);
	return NULL;
}
