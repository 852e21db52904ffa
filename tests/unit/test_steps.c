/* SPDX-License-Identifier: Apache-2.0
 *
 * test_steps.c - the runner of row tables: every row ends in every way, every undo too, and what must hold
 * then holds: rows run once and in order, undos newest first down to the first row, drop exactly where
 * something was waited for and will not answer, nothing undone after the commit row, the journal told before
 * each act, one end.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <errno.h>

#include "engine/steps.h"
#include "tests/unit/loop.h"

#define ROWS 4
#define COMMIT 2
#define TRACE 512

/* How a row, or its undo, ends. */
enum end {
	WELL,          /* at once */
	FAILS,         /* at once: refused */
	FAILS_LINK,    /* at once: link lost */
	LATER,         /* waits, then done */
	LATER_FAILS,   /* waits, then refused */
	LATER_LINK,    /* waits, then link lost */
	TOO_LATE,      /* waits past its limit */
	CANCELLED,     /* somebody cancels while it waits */
	CANCEL_INSIDE, /* somebody cancels from within the row, which then waits */
	JOURNAL,       /* before() fails */
	ENDS,
	SILENT /* waits for what the test does */
};
static const char *const end_names[ENDS] = { "well", "fails", "fails-link", "later", "later-fails",
	"later-link", "too-late", "cancelled", "cancel-inside", "journal" };

struct fixture {
	struct loop loop;
	struct nova_run *run;
	struct event *poke; /* answers the row that waits */
	bool poke_fails;
	struct nova_error answer;
	int row;                /* which row ends as `how`; -1: none */
	enum end how, undo_how; /* and how the undo of row 0 and of that row end */
	char trace[TRACE]; /* "R" run, "U" undo, "D" drop, "j" journal for run, "u" for undo; then the row */
	int depth;         /* > 0: inside a call into the runner */
	int ended;
	enum nova_outcome outcome;
	struct nova_error err;
	bool has_err;
	int starved; /* so many calls of the row, or of its undo, have no memory */
	char notes[4096];
	int cancel_result;
	struct nova_error cancel_err;
};

static const struct nova_step steps[];

static void mark(struct fixture *f, char what, int row)
{
	size_t used = strlen(f->trace);

	assert_true(used + 3 < sizeof(f->trace));
	snprintf(f->trace + used, sizeof(f->trace) - used, "%c%d", what, row);
}

static void cancel(struct fixture *f)
{
	struct nova_error why;

	nova_error_set(&why, NOVA_CANCELLED, "the operator said so");
	f->depth++;
	f->cancel_result = nova_run_cancel(f->run, &why, &f->cancel_err);
	f->depth--;
}

static void poke(evutil_socket_t fd, short what, void *arg)
{
	struct fixture *f = arg;

	f->depth++;
	if (f->poke_fails)
		nova_run_fail(f->run, &f->answer);
	else
		nova_run_done(f->run);
	f->depth--;
}

static void cancel_later(evutil_socket_t fd, short what, void *arg)
{
	cancel(arg);
}

static void schedule(struct fixture *f, event_callback_fn fn)
{
	if (f->poke)
		event_free(f->poke);
	f->poke = event_new(f->loop.base, -1, 0, fn, f);
	event_active(f->poke, EV_TIMEOUT, 0);
}

static enum nova_step_result act(struct fixture *f, enum end how, struct nova_error *err)
{
	enum nova_category category = how == FAILS_LINK || how == LATER_LINK ? NOVA_LINK : NOVA_REFUSED;

	nova_error_set(&f->answer, category, "no luck");
	f->poke_fails = how == LATER_FAILS || how == LATER_LINK;
	switch (how) {
	case FAILS:
	case FAILS_LINK:
		nova_error_copy(err, &f->answer);
		return NOVA_STEP_FAILED;
	case LATER:
	case LATER_FAILS:
	case LATER_LINK:
		schedule(f, poke);
		return NOVA_STEP_WAIT;
	case TOO_LATE:
		nova_run_set_limit(f->run, 1);
		return NOVA_STEP_WAIT;
	case SILENT:
		return NOVA_STEP_WAIT;
	case CANCELLED:
		schedule(f, cancel_later);
		return NOVA_STEP_WAIT;
	case CANCEL_INSIDE:
		cancel(f);
		if (f->cancel_result < 0) /* a commit row: it goes on */
			schedule(f, poke);
		return NOVA_STEP_WAIT;
	default:
		return NOVA_STEP_DONE;
	}
}

/* Memory lacks first, then it ends as it is meant to. */
static enum nova_step_result act_starved(struct fixture *f, enum end how, struct nova_error *err)
{
	if (f->starved == 0)
		return act(f, how, err);
	f->starved--;
	nova_error_sys(f->starved % 2 ? err : &f->answer, ENOMEM, "a row");
	if (f->starved % 2)
		return NOVA_STEP_FAILED;
	f->poke_fails = true;
	schedule(f, poke);
	return NOVA_STEP_WAIT;
}

static int index_of(const struct nova_run *run)
{
	return (int)(nova_run_step(run) - steps);
}

static enum nova_step_result run_row(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct fixture *f = ctx;
	int row = index_of(run);

	assert_int_equal(f->depth, 0);
	assert_false(nova_run_undoing(run));
	mark(f, 'R', row);
	return row == f->row ? act_starved(f, f->how, err) : NOVA_STEP_DONE;
}

static enum nova_step_result undo_row(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct fixture *f = ctx;
	int row = index_of(run);

	assert_int_equal(f->depth, 0);
	assert_true(nova_run_undoing(run));
	mark(f, 'U', row);
	if (row == 0)
		return act(f, f->undo_how, err);
	return row == f->row ? act_starved(f, f->undo_how, err) : NOVA_STEP_DONE;
}

static void drop_row(struct nova_run *run, void *ctx)
{
	mark(ctx, 'D', index_of(run));
}

static const struct nova_step steps[] = {
	{ "prepare", run_row, undo_row, drop_row, 10000 },
	{ "reserve", run_row, undo_row, drop_row, 10000 },
	{ "handover", run_row, undo_row, drop_row, 10000, .commit = true },
	{ "release", run_row, NULL, drop_row, 10000 },
	{ NULL },
};

static int before(void *ctx, const struct nova_step *step, bool undo, struct nova_error *err)
{
	struct fixture *f = ctx;

	assert_int_equal(f->depth, 0);
	mark(f, undo ? 'u' : 'j', (int)(step - steps));
	if (step - steps == f->row && (undo ? f->undo_how : f->how) == JOURNAL)
		return nova_error_set(err, NOVA_TIMEOUT, "the disk is full");
	return 0;
}

static void ended(void *ctx, enum nova_outcome outcome, const struct nova_error *err, const char *notes)
{
	struct fixture *f = ctx;

	f->ended++;
	f->outcome = outcome;
	f->has_err = err != NULL;
	if (err)
		f->err = *err;
	snprintf(f->notes, sizeof(f->notes), "%s", notes);
	f->run = NULL;
}

static const struct nova_run_events events = { before, ended };

static void begin(struct fixture *f, int row, enum end how, enum end undo_how)
{
	f->row = row;
	f->how = how;
	f->undo_how = undo_how;
	f->trace[0] = 0;
	f->ended = 0;
}

static void start(
    struct fixture *f, int row, enum end how, enum end undo_how, const char *start_at, bool undo_only)
{
	begin(f, row, how, undo_how);
	f->run = nova_run_new(f->loop.base, steps, start_at, undo_only, &events, f, NULL);
	assert_non_null(f->run);
	assert_string_equal(f->trace, ""); /* nothing below our frame */
}

static void finish(struct fixture *f)
{
	char after[TRACE];

	LOOP_UNTIL(&f->loop, f->ended);
	strcpy(after, f->trace);
	event_base_loop(f->loop.base, EVLOOP_NONBLOCK);
	assert_int_equal(f->ended, 1);
	assert_string_equal(f->trace, after);
}

/* ---- the model: what a table with this row ending this way must do ---- */

static bool ends_well(enum end how, bool commit)
{
	return how == WELL || how == LATER || (commit && (how == CANCELLED || how == CANCEL_INSIDE));
}

static void expect_undo(struct fixture *f, char *trace, int row, enum end how)
{
	bool counts = row == 0 || row == f->row;

	sprintf(trace + strlen(trace), "u%dU%d", row, row);
	if (counts && how == TOO_LATE)
		sprintf(trace + strlen(trace), "D%d", row);
}

static enum nova_outcome expect(struct fixture *f, char *trace)
{
	bool well = true, undo_well = ends_well(f->undo_how, false) || f->undo_how == JOURNAL;
	enum end how = f->how;

	trace[0] = 0;
	for (int row = 0; row < ROWS; row++) {
		sprintf(trace + strlen(trace), row == f->row && how == JOURNAL ? "j%d" : "j%dR%d", row, row);
		if (row != f->row || ends_well(how, row >= COMMIT))
			continue;
		if (how == TOO_LATE || how == CANCELLED || how == CANCEL_INSIDE)
			sprintf(trace + strlen(trace), "D%d", row);
		well = false;
		if (row > COMMIT)
			continue;
		if (row == COMMIT && (how == FAILS_LINK || how == LATER_LINK || how == TOO_LATE))
			return NOVA_IN_DOUBT;
		for (; row >= 0; row--)
			expect_undo(f, trace, row, f->undo_how);
		return undo_well ? NOVA_UNDONE : NOVA_UNDO_FAILED;
	}
	return well ? NOVA_COMPLETED : NOVA_LEFTOVERS;
}

/* A cancelled commit row refuses, and then ends well by itself. */
static void answer_commit(struct fixture *f)
{
	if (f->row < COMMIT || f->how != CANCELLED)
		return;
	LOOP_UNTIL(&f->loop, f->cancel_result < 0 || f->ended);
	assert_int_equal(f->cancel_err.category, NOVA_STATE);
	nova_run_done(f->run);
}

static void test_every_end_of_every_row(void **state)
{
	static const enum end undos[] = { WELL, FAILS, LATER, LATER_FAILS, TOO_LATE, JOURNAL };
	struct fixture *f = *state;
	char trace[TRACE];

	for (int row = 0; row < ROWS; row++)
		for (enum end how = WELL; how < ENDS; how++)
			for (size_t undo = 0; undo < sizeof(undos) / sizeof(*undos); undo++) {
				enum nova_outcome outcome;

				f->cancel_result = 0;
				start(f, row, how, undos[undo], NULL, false);
				outcome = expect(f, trace);
				answer_commit(f);
				finish(f);
				if (f->outcome != outcome || strcmp(f->trace, trace))
					fail_msg("row %d %s, undo %s: %s %s, expected %s %s", row,
					    end_names[how], end_names[undos[undo]],
					    nova_outcome_name(f->outcome), f->trace,
					    nova_outcome_name(outcome), trace);
				assert_int_equal(f->has_err, outcome != NOVA_COMPLETED);
				if (f->has_err)
					assert_int_not_equal(f->err.category, NOVA_OK);
			}
}

static void test_rows_without_a_way_back_wait_for_memory(void **state)
{
	struct fixture *f = *state;

	f->starved = 3; /* its row, and its undo twice */
	start(f, 1, WELL, WELL, NULL, false);
	finish(f);
	assert_int_equal(f->outcome, NOVA_UNDONE);
	assert_string_equal(f->trace, "j0R0j1R1u1U1u1U1u1U1u0U0");
	assert_string_equal(f->notes, "");

	f->starved = 2;
	start(f, 3, WELL, WELL, NULL, false);
	finish(f);
	assert_int_equal(f->outcome, NOVA_COMPLETED);
	assert_string_equal(f->trace, "j0R0j1R1j2R2j3R3j3R3j3R3");
}

static void test_reasons_and_notes(void **state)
{
	struct fixture *f = *state;

	start(f, 1, LATER_FAILS, FAILS, NULL, false);
	finish(f);
	assert_int_equal(f->err.category, NOVA_REFUSED);
	assert_string_equal(f->err.text, "no luck");
	assert_string_equal(f->notes, "undo of reserve: no luck\nundo of prepare: no luck");

	start(f, 0, CANCELLED, WELL, NULL, false);
	finish(f);
	assert_int_equal(f->err.category, NOVA_CANCELLED);
	assert_string_equal(f->err.text, "the operator said so");
	assert_string_equal(f->notes, "");

	start(f, 3, FAILS, WELL, NULL, false);
	finish(f);
	assert_string_equal(f->notes, "left over at release: no luck");

	start(f, 1, TOO_LATE, TOO_LATE, NULL, false);
	finish(f);
	assert_int_equal(f->err.category, NOVA_TIMEOUT);
	assert_string_equal(f->err.text, "reserve took longer than 0.001 s");
	assert_non_null(strstr(f->notes, "undo of reserve: undo of reserve took longer than 0.001 s"));

	/* A journal that cannot be written for the commit row is no doubt: the row has not acted. */
	start(f, COMMIT, JOURNAL, WELL, NULL, false);
	finish(f);
	assert_int_equal(f->outcome, NOVA_UNDONE);
	assert_string_equal(f->err.text, "the disk is full");

	/* The undo is done all the same if only the journal cannot be written, and the report says so. */
	start(f, 1, FAILS, JOURNAL, NULL, false);
	finish(f);
	assert_int_equal(f->outcome, NOVA_UNDONE);
	assert_string_equal(f->notes, "journal at undo of reserve: the disk is full");
}

static void test_limits_can_be_capped(void **state)
{
	struct fixture *f = *state;

	start(f, 1, SILENT, WELL, NULL, false);
	nova_run_cap_limits(f->run, 1);
	LOOP_UNTIL(&f->loop, strstr(f->trace, "R1"));
	assert_false(nova_run_past_commit(f->run));
	nova_run_set_limit(f->run, 60000);
	finish(f);
	assert_int_equal(f->outcome, NOVA_UNDONE);
	assert_string_equal(f->err.text, "reserve took longer than 0.001 s");

	start(f, 3, SILENT, WELL, "release", false);
	assert_true(nova_run_past_commit(f->run));
	f->run = nova_run_free(f->run);
}

static void test_go_on_after_a_restart(void **state)
{
	struct fixture *f = *state;
	struct nova_error err;

	start(f, -1, WELL, WELL, "reserve", false);
	finish(f);
	assert_int_equal(f->outcome, NOVA_COMPLETED);
	assert_string_equal(f->trace, "j1R1j2R2j3R3");

	start(f, -1, WELL, WELL, "release", false);
	finish(f);
	assert_string_equal(f->trace, "j3R3");

	start(f, 3, LATER_LINK, WELL, "release", false); /* past the commit row already */
	finish(f);
	assert_int_equal(f->outcome, NOVA_LEFTOVERS);

	start(f, -1, WELL, WELL, "reserve", true);
	finish(f);
	assert_int_equal(f->outcome, NOVA_UNDONE);
	assert_int_equal(f->err.category, NOVA_CANCELLED);
	assert_string_equal(f->trace, "u1U1u0U0");

	assert_null(nova_run_new(f->loop.base, steps, "release", true, &events, f, &err));
	assert_int_equal(err.category, NOVA_STATE);
	assert_null(nova_run_new(f->loop.base, steps, "no such row", false, &events, f, &err));
	assert_int_equal(err.category, NOVA_INVALID);
	assert_string_equal(err.text, "there is no step 'no such row'");
}

static void test_cancel_at_other_moments(void **state)
{
	struct fixture *f = *state;

	/* Before the first row ran: its undo runs (it must cope), nothing else. */
	start(f, -1, WELL, WELL, NULL, false);
	cancel(f);
	assert_int_equal(f->cancel_result, 0);
	cancel(f); /* twice is once */
	assert_int_equal(f->cancel_result, -1);
	assert_int_equal(f->cancel_err.category, NOVA_STATE);
	finish(f);
	assert_int_equal(f->outcome, NOVA_UNDONE);
	assert_string_equal(f->trace, "u0U0");

	/* After the answer came, before it was taken: nothing to drop. */
	start(f, 0, SILENT, WELL, NULL, false);
	LOOP_UNTIL(&f->loop, strstr(f->trace, "R0"));
	nova_run_done(f->run);
	nova_run_done(f->run); /* a second answer is ignored */
	cancel(f);
	finish(f);
	assert_string_equal(f->trace, "j0R0u0U0");

	/* An answer after the cancellation belongs to nobody. */
	start(f, 0, SILENT, LATER, NULL, false);
	LOOP_UNTIL(&f->loop, strstr(f->trace, "R0"));
	cancel(f);
	nova_run_done(f->run);
	finish(f);
	assert_string_equal(f->trace, "j0R0D0u0U0");
}

static void test_free_drops_and_says_nothing(void **state)
{
	struct fixture *f = *state;

	start(f, 1, SILENT, WELL, NULL, false);
	LOOP_UNTIL(&f->loop, strstr(f->trace, "R1"));
	f->run = nova_run_free(f->run);
	assert_string_equal(f->trace, "j0R0j1R1D1");
	event_base_loop(f->loop.base, EVLOOP_NONBLOCK);
	assert_int_equal(f->ended, 0);
	assert_null(nova_run_free(NULL));
}

static void test_names(void **state)
{
	assert_string_equal(nova_outcome_name(NOVA_IN_DOUBT), "in-doubt");
	assert_string_equal(nova_outcome_name((enum nova_outcome)99), "unknown");
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	loop_init(&f->loop);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	if (f->poke)
		event_free(f->poke);
	nova_run_free(f->run);
	loop_release(&f->loop);
	free(f);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_every_end_of_every_row, setup, teardown),
		cmocka_unit_test_setup_teardown(test_rows_without_a_way_back_wait_for_memory, setup, teardown),
		cmocka_unit_test_setup_teardown(test_reasons_and_notes, setup, teardown),
		cmocka_unit_test_setup_teardown(test_limits_can_be_capped, setup, teardown),
		cmocka_unit_test_setup_teardown(test_go_on_after_a_restart, setup, teardown),
		cmocka_unit_test_setup_teardown(test_cancel_at_other_moments, setup, teardown),
		cmocka_unit_test_setup_teardown(test_free_drops_and_says_nothing, setup, teardown),
		cmocka_unit_test(test_names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
