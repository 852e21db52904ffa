/* SPDX-License-Identifier: Apache-2.0
 *
 * steps.h - run an operation that is a table of rows.
 *
 * The runner only schedules: no row's function runs below the frame of the caller of nova_run_new(),
 * nova_run_done() or nova_run_cancel(). A row's run either is done at once (NOVA_STEP_DONE), failed
 * (NOVA_STEP_FAILED, *err filled), or waits (NOVA_STEP_WAIT: later nova_run_done() or nova_run_fail(); the
 * row has drop, or nothing to stop). When a row fails, times out or is cancelled, what it waits for is
 * dropped, its own undo and those of the rows before run newest first, each of which may wait too; a
 * failing undo is recorded and the rest still runs. After the commit row nothing is undone: a failure
 * there is a leftover. An undo, or a row after the commit, that fails for want of memory (ENOMEM) is called again for 5 s,
 * before it counts as failed. A commit row that ends in NOVA_LINK or NOVA_TIMEOUT is IN_DOUBT. A commit row
 * cannot be cancelled.
 */
#ifndef NOVA_STEPS_H
#define NOVA_STEPS_H

#include "novacron.h"

enum nova_step_result { NOVA_STEP_DONE, NOVA_STEP_WAIT, NOVA_STEP_FAILED };
enum nova_outcome {
	NOVA_COMPLETED,
	NOVA_UNDONE,
	NOVA_UNDO_FAILED, /* undone but for what the report names */
	NOVA_LEFTOVERS,   /* committed; something after it failed */
	NOVA_IN_DOUBT,
	NOVA_OUTCOMES
};
const char *nova_outcome_name(enum nova_outcome outcome);

struct nova_run;

struct nova_step {
	const char *name;
	enum nova_step_result (*run)(struct nova_run *run, void *ctx, struct nova_error *err);
	enum nova_step_result (*undo)(struct nova_run *run, void *ctx, struct nova_error *err);
	void (*drop)(struct nova_run *run, void *ctx); /* stop waiting, for run and undo */
	int limit_ms;                                  /* 0: none */
	bool commit;
};

struct nova_run_events {
	/* Before each row runs or is undone: the place to write the journal. -1 fails the row. May be NULL. */
	int (*before)(void *ctx, const struct nova_step *step, bool undo, struct nova_error *err);
	/* The end. err: why it did not complete (NULL with COMPLETED); notes: failing undos and leftovers, one
	 * per line, "" if none. The run is freed after the call. */
	void (*ended)(void *ctx, enum nova_outcome outcome, const struct nova_error *err, const char *notes);
};

/* steps ends with a row whose name is NULL; it and events are borrowed until the end. start_at (NULL: the
 * first row) lets a restarted daemon go on: that row runs (again) and those after it; with undo_only that
 * row and those before it are undone instead (NOVA_STATE past the commit row). */
struct nova_run *nova_run_new(struct event_base *base, const struct nova_step *steps, const char *start_at,
    bool undo_only, const struct nova_run_events *events, void *ctx, struct nova_error *err);
/* The waiting row (run or undo) is done or failed. */
void nova_run_done(struct nova_run *run);
void nova_run_fail(struct nova_run *run, const struct nova_error *err);
/* Undo everything for this reason (before commit); -1 and NOVA_STATE from the commit row on, or when
 * undoing already. why is copied. */
int nova_run_cancel(struct nova_run *run, const struct nova_error *why, struct nova_error *err);
/* The limit of the row that waits now, from now; for rows whose limit is only known when they run. */
void nova_run_set_limit(struct nova_run *run, int limit_ms);
/* No row's or undo's limit is longer than this; rows without one stay so. 0: as the table says. */
void nova_run_cap_limits(struct nova_run *run, int most_ms);
const struct nova_step *nova_run_step(const struct nova_run *run);
bool nova_run_undoing(const struct nova_run *run);
bool nova_run_past_commit(const struct nova_run *run);
/* Forget everything without undoing (daemon shut-down): drops what waits, calls nothing else. */
struct nova_run *nova_run_free(struct nova_run *run);

#endif
