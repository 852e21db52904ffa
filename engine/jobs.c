/* SPDX-License-Identifier: Apache-2.0
 *
 * jobs.c - every change of a guest is a job: a table of rows, run by steps.c, with its row in the journal
 * before the row acts. A guest belongs to at most one job at a time.
 */
#include "host.h"
#include "cleanup.h"
#include "fault_hook.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#define NOVA_JOBS_KEPT 1000 /* ended jobs in the journal */

struct waiter {
	struct nova_op op;
	struct nova_job *job;
};

void nova_job_token_new(struct nova_job *job)
{
	unsigned char random[16];

	if (getrandom(random, sizeof(random), 0) != sizeof(random))
		abort(); /* cannot happen for 16 bytes once the kernel is seeded */
	for (size_t i = 0; i < sizeof(random); i++)
		snprintf(job->token + 2 * i, 3, "%02x", random[i]);
}

static struct nova_job_row job_row(struct nova_job *job, const char *step, bool undo)
{
	return (struct nova_job_row){
		.id = job->id,
		.kind = job->kind,
		.guest = job->guest_name,
		.peer = job->peer,
		.side = job->side,
		.token = job->token,
		.step = step,
		.undoing = undo,
		.args = job->args,
		.report = job->report,
		.who = job->who.name,
		.started_ms = job->started_ms,
	};
}

struct nova_job *nova_job_new(struct nova_host *host, const char *kind, const char *side,
    const struct nova_identity *who, const char *guest, json_t *args, struct nova_error *err)
{
	struct nova_job *job = calloc(1, sizeof(*job));

	if (!job) {
		nova_error_sys(err, ENOMEM, "a job");
		return NULL;
	}
	job->host = host;
	job->kind = kind;
	job->side = side;
	job->who = *who;
	snprintf(job->guest_name, sizeof(job->guest_name), "%s", guest ? guest : "");
	job->args = args ? json_deep_copy(args) : json_object();
	job->report = json_object();
	job->started_ms = nova_wall_ms();
	TAILQ_INSERT_TAIL(&host->jobs, job, link);
	job->debt = nova_debt_new(NULL);
	if (job->args && job->report && job->debt)
		return job;
	nova_error_sys(err, ENOMEM, "a job");
	return nova_job_free(job);
}

struct nova_job *nova_job_free(struct nova_job *job)
{
	if (!job)
		return NULL;
	nova_run_free(job->run);
	nova_op_drop(job->op);
	if (job->free_ctx)
		job->free_ctx(job);
	if (job->waiter)
		nova_op_drop(job->waiter);
	if (job->entry && job->entry->job == job)
		job->entry->job = NULL;
	TAILQ_REMOVE(&job->host->jobs, job, link);
	json_decref(job->args);
	json_decref(job->report);
	json_decref(job->result);
	nova_debt_free(job->debt);
	free(job);
	return NULL;
}

void nova_job_set_owner(struct nova_job *job, const char *owner)
{
	snprintf(job->owner, sizeof(job->owner), "%s", owner);
	json_object_set_new(job->report, "owner", json_string(job->owner));
}

int nova_job_save(struct nova_job *job, const char *step, bool undo, struct nova_error *err)
{
	struct nova_job_row row = job_row(job, step, undo);

	return nova_store_job_put(job->host->store, &row, err);
}

static int before_row(void *ctx, const struct nova_step *step, bool undo, struct nova_error *err)
{
	struct nova_job *job = ctx;

	nova_host_log(job->host, NOVA_LOG_DEBUG, "%s %s %s: %s%s", job->id, job->kind, job->guest_name,
	    undo ? "undo " : "", step->name);
	if (nova_store_job_step(job->host->store, job->id, step->name, undo, err) < 0) {
		if (!undo && !nova_run_past_commit(job->run))
			return -1;
		/* There is no way but this one: a journal that cannot be written must not stop a guest from running. */
		nova_host_log(job->host, NOVA_LOG_ERROR, "%s goes on with %s: %s", job->id, step->name, err->text);
	}
	return nova_fault_hook(job->host, job->id, job->kind, job->side, step->name, undo, err);
}

static json_t *ended_event(const struct nova_job *job, enum nova_outcome outcome, const struct nova_error *err,
    const char *notes)
{
	json_t *event = json_pack("{s:s, s:s, s:s, s:s, s:s, s:O}", "job", job->id, "kind", job->kind, "guest",
	    job->guest_name, "outcome", nova_outcome_name(outcome), "notes", notes, "report", job->report);

	if (err)
		json_object_set_new(event, "error",
		    json_pack("{s:s, s:s}", "category", nova_category_name(err->category), "text", err->text));
	json_object_set_new(event, "owner", json_string(job->owner));
	if (job->peer[0])
		json_object_set_new(event, "peer", json_string(job->peer));
	return event;
}

/* A job in doubt has not ended: it waits for an answer at its commit row. */
static void record_end(struct nova_job *job, enum nova_outcome outcome, const struct nova_error *err,
    const char *notes)
{
	struct nova_job_row row = job_row(job, outcome == NOVA_IN_DOUBT ? "handover" : "", false);
	struct nova_error failure;

	if (err)
		json_object_set_new(job->report, "error",
		    json_pack("{s:s, s:s}", "category", nova_category_name(err->category), "text", err->text));
	if (notes[0])
		json_object_set_new(job->report, "notes", json_string(notes));
	row.outcome = nova_outcome_name(outcome);
	row.error = err ? err->text : NULL;
	row.ended_ms = outcome == NOVA_IN_DOUBT ? 0 : nova_wall_ms();
	if (nova_debts_pay(job->host, &failure) < 0 || nova_store_job_put(job->host->store, &row, &failure) < 0) {
		nova_host_log(job->host, NOVA_LOG_ERROR, "%s has ended, which is written down later: %s", job->id,
		    failure.text);
		if (row.ended_ms)
			nova_debt_job(job, &row);
	} else if (nova_store_jobs_prune(job->host->store, NOVA_JOBS_KEPT, &failure) < 0)
		nova_host_log(job->host, NOVA_LOG_ERROR, "%s: %s", job->id, failure.text);
}

static void audit_end(struct nova_job *job, enum nova_outcome outcome, const struct nova_error *err)
{
	json_t *record = json_pack("{s:s, s:s, s:s, s:s, s:s, s:I}", "job", job->id, "kind", job->kind, "side", job->side,
	    "guest", job->guest_name, "outcome", nova_outcome_name(outcome), "ms",
	    (json_int_t)(nova_wall_ms() - job->started_ms));

	if (job->peer[0])
		json_object_set_new(record, "peer", json_string(job->peer));
	if (err)
		json_object_set_new(record, "error", json_string(err->text));
	nova_host_audit(job->host, &job->who, record);
}

void nova_job_settle(struct nova_job *job, enum nova_outcome outcome, const struct nova_error *err,
    const char *notes)
{
	struct nova_host *host = job->host;
	nova_done_fn done = job->done;
	void *done_arg = job->done_arg;
	json_t *result = json_incref(job->result);
	json_t *event;
	struct nova_error why;

	if (err)
		why = *err;
	nova_host_log(host, err ? NOVA_LOG_WARNING : NOVA_LOG_INFO, "%s %s %s: %s%s%s%s%s", job->id, job->kind,
	    job->guest_name, nova_outcome_name(outcome), err ? ": " : "", err ? err->text : "", notes[0] ? "; " : "",
	    notes);
	if (job->on_end)
		job->on_end(job, outcome, err);
	event = ended_event(job, outcome, err, notes);
	record_end(job, outcome, err, notes);
	audit_end(job, outcome, err);
	nova_metrics_add(host->metrics, "novacron_jobs_total", nova_outcome_name(outcome), 1);
	job->done = NULL;
	free(job->waiter);
	job->waiter = NULL;
	if (outcome == NOVA_IN_DOUBT && job->on_doubt)
		job->on_doubt(job);
	else
		nova_job_free(job);
	nova_host_emit(host, "JOB_ENDED", event);
	if (done)
		done(done_arg, err ? NULL : result, err ? &why : NULL);
	json_decref(result);
}

static void run_ended(void *ctx, enum nova_outcome outcome, const struct nova_error *err, const char *notes)
{
	struct nova_job *job = ctx;

	job->run = NULL; /* freed by the runner after this call */
	if (outcome == NOVA_UNDONE && job->again && job->again(job, err))
		return;
	nova_job_settle(job, outcome, err, notes);
}

static const struct nova_run_events run_events = { before_row, run_ended };

int nova_job_again(struct nova_job *job, struct nova_error *err)
{
	if (nova_job_save(job, "", false, err) < 0)
		return -1;
	job->run = nova_run_new(job->host->base, job->steps, NULL, false, &run_events, job, err);
	return job->run ? 0 : -1;
}

int nova_job_start(struct nova_job *job, const struct nova_step *steps, const char *start_at, bool undo_only,
    struct nova_error *err)
{
	struct nova_entry *entry = nova_entry_find(job->host, job->guest_name);
	struct nova_job_row row;

	if (entry)
		nova_job_set_owner(job, entry->owner);
	else if (!job->owner[0])
		nova_job_set_owner(job, job->who.name);
	row = job_row(job, "", false);
	if (entry && entry->job && entry->job != job) {
		nova_error_set(err, NOVA_STATE, "guest %s is busy: %s (job %s); see novacron job %s", entry->name,
		    entry->job->kind, entry->job->id, entry->job->id);
		nova_job_free(job);
		return -1;
	}
	if (entry && entry->attaching) {
		nova_error_set(err, NOVA_STATE, "guest %s is still being found after the restart: try again in a moment",
		    entry->name);
		nova_job_free(job);
		return -1;
	}
	if (!job->id[0] && (nova_debts_pay(job->host, err) < 0 ||
			       nova_store_job_new(job->host->store, &row, job->id, err) < 0)) {
		nova_job_free(job);
		return -1;
	}
	if (entry) {
		entry->job = job;
		job->entry = entry;
		job->slot = entry->slot;
	}
	job->steps = steps;
	job->run = nova_run_new(job->host->base, steps, start_at, undo_only, &run_events, job, err);
	if (!job->run) {
		nova_job_free(job);
		return -1;
	}
	nova_fault_limit(job->host, job->run);
	nova_host_emit(job->host, "JOB_STARTED", nova_job_json(job));
	return 0;
}

/* ---- whoever waits ---- */

static void waiter_drop(struct nova_op *op)
{
	struct nova_job *job = ((struct waiter *)op)->job;

	job->done = NULL;
	job->waiter = NULL;
	free(op);
}

struct nova_op *nova_job_wait(struct nova_job *job, nova_done_fn done, void *arg, struct nova_error *err)
{
	struct waiter *waiter = calloc(1, sizeof(*waiter));

	if (!waiter) {
		nova_error_sys(err, ENOMEM, "job %s goes on, its end cannot be waited for", job->id);
		return NULL;
	}
	waiter->op.drop = waiter_drop;
	waiter->job = job;
	job->waiter = &waiter->op;
	job->done = done;
	job->done_arg = arg;
	return &waiter->op;
}

struct nova_job *nova_job_find(struct nova_host *host, const char *id)
{
	struct nova_job *job;

	TAILQ_FOREACH (job, &host->jobs, link)
		if (!strcmp(job->id, id))
			return job;
	return NULL;
}

struct nova_job *nova_job_by_token(struct nova_host *host, const char *side, const char *token)
{
	struct nova_job *job;

	TAILQ_FOREACH (job, &host->jobs, link)
		if (!strcmp(job->side, side) && !strcmp(job->token, token))
			return job;
	return NULL;
}

json_t *nova_job_json(const struct nova_job *job)
{
	const struct nova_step *step = job->run ? nova_run_step(job->run) : NULL;

	return json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:b, s:s, s:s, s:I, s:O, s:O}", "job", job->id, "kind", job->kind,
	    "guest", job->guest_name, "peer", job->peer, "side", job->side, "step", step ? step->name : "",
	    "undoing", job->run ? nova_run_undoing(job->run) : 0, "who", job->who.name, "owner", job->owner, "started_ms",
	    (json_int_t)job->started_ms, "args", job->args, "report", job->report);
}

/* ---- rows that call the driver ---- */

static void row_answered(void *arg, json_t *result, const struct nova_error *err)
{
	struct nova_job *job = arg;
	struct nova_error failure;
	enum nova_step_result end = NOVA_STEP_DONE;

	job->op = NULL;
	if (err) {
		nova_run_fail(job->run, err);
		return;
	}
	if (job->seen)
		end = job->seen(job, result, &failure);
	if (end == NOVA_STEP_FAILED)
		nova_run_fail(job->run, &failure);
	else if (end == NOVA_STEP_DONE)
		nova_run_done(job->run);
}

enum nova_step_result nova_job_call_then(struct nova_job *job, enum nova_verb verb, json_t *args, nova_seen_fn seen,
    struct nova_error *err)
{
	if (!args) {
		nova_error_sys(err, ENOMEM, "%s", job->guest_name);
		return NOVA_STEP_FAILED;
	}
	job->seen = seen;
	job->op = nova_slot_call(
	    job->slot, verb, job->entry ? &job->entry->guest : NULL, args, row_answered, job, err);
	json_decref(args);
	return job->op ? NOVA_STEP_WAIT : NOVA_STEP_FAILED;
}

enum nova_step_result nova_job_call(struct nova_job *job, enum nova_verb verb, json_t *args, struct nova_error *err)
{
	return nova_job_call_then(job, verb, args, NULL, err);
}

void nova_job_drop_op(struct nova_run *run, void *ctx)
{
	struct nova_job *job = ctx;

	nova_op_drop(nova_take(&job->op));
}
