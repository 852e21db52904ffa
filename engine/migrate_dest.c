/* SPDX-License-Identifier: Apache-2.0
 *
 * migrate_dest.c - the table of rows that a reservation runs at the destination. The conversation is described in
 * migrate.h; until the commit row has written the decision, everything that fails is undone here and the guest goes on at
 * the source. Not here: what peers ask (migrate_incoming.c), the guest's stream (migrate_receive.c).
 */
#include "migrate_dest.h"

#include "cleanup.h"
#include "replicate.h"

#include <errno.h>
#include <stdlib.h>

void nova_dest_answer(struct nova_dest *dest, struct nova_request **request, json_t *result, const struct nova_error *err)
{
	if (*request)
		dest->job->host->plugins->links->answer(*request, result, err);
	else
		json_decref(result);
	*request = NULL;
}

/* ---- admit ---- */

static enum nova_step_result admit_needs(struct nova_job *job, json_t *result, struct nova_error *err)
{
	json_t *spec = json_object_get(result, "spec"), *needs = json_object_get(result, "needs");

	if (nova_entry_find(job->host, job->guest_name)) {
		nova_error_set(err, NOVA_REFUSED, "there is a guest %s on %s already", job->guest_name,
		    nova_host_name(job->host));
		return NOVA_STEP_FAILED;
	}
	if (nova_admit_guest(job->host, job->guest_name, job->owner, needs, err) < 0)
		return NOVA_STEP_FAILED;
	job->entry = nova_entry_new(job->host, job->slot, job->guest_name, nova_text_of(job->args, "uuid"),
	    nova_text_of(job->args, "owner"), json_is_object(spec) ? spec : json_object_get(job->args, "spec"), needs, err);
	if (!job->entry)
		return NOVA_STEP_FAILED;
	job->entry->job = job;
	job->entry->guest.state = NOVA_GUEST_INCOMING;
	return nova_entry_save(job->entry, err) < 0 ? NOVA_STEP_FAILED : NOVA_STEP_DONE;
}

static enum nova_step_result run_admit(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct nova_job *job = ctx;
	struct nova_dest *dest = job->ctx;

	if (nova_admit_migration(job, err) < 0)
		return NOVA_STEP_FAILED;
	dest->copies = nova_copies_get(job->host, nova_text_of(job->args, "uuid"));
	return nova_job_call_then(job, NOVA_VERB_CHECK,
	    json_pack("{s:O, s:b, s:O}", "spec", json_object_get(job->args, "spec"), "incoming", 1, "copies",
		dest->copies),
	    admit_needs, err);
}

static enum nova_step_result undo_admit(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct nova_job *job = ctx;

	struct nova_dest *dest = job->ctx;

	if (job->entry && dest->undeleted) { /* with its place, until it is gone */
		nova_leftover(job->entry);
		return NOVA_STEP_DONE;
	}
	if (job->entry && nova_entry_forget(job->entry, err) < 0)
		return NOVA_STEP_FAILED;
	return NOVA_STEP_DONE;
}

/* ---- prepare ---- */

static bool wants_direct(const struct nova_job *job)
{
	return json_is_object(json_object_get(job->args, "direct"));
}

static bool carries(const struct nova_job *job)
{
	return json_integer_value(json_object_get(job->args, "disks")) > 0;
}

static enum nova_step_result guest_prepared(struct nova_job *job, json_t *result, struct nova_error *err)
{
	struct nova_dest *dest = job->ctx;

	if (wants_direct(job)) {
		dest->direct = json_incref(json_object_get(result, "direct"));
		if (dest->direct)
			return NOVA_STEP_DONE;
		nova_error_set(err, NOVA_REFUSED, "driver %s gave no port for guest %s", job->slot->ops->name, job->guest_name);
		return NOVA_STEP_FAILED;
	}
	if (nova_dest_streams(dest)) {
		dest->path = strdup(nova_text_of(result, "path"));
		if (!dest->path || !dest->path[0]) {
			nova_error_set(err, NOVA_REFUSED, "driver %s gave no socket for guest %s", job->slot->ops->name,
			    job->guest_name);
			return NOVA_STEP_FAILED;
		}
	}
	return NOVA_STEP_DONE;
}

static enum nova_step_result run_prepare(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct nova_job *job = ctx;
	struct nova_dest *dest = job->ctx;
	json_t *spec = job->entry->guest.spec;

	if (!nova_dest_streams(dest) && !carries(job))
		return nova_job_call_then(job, NOVA_VERB_CREATE, json_pack("{s:O, s:b}", "spec", spec, "existing", 1),
		    guest_prepared, err);
	return nova_job_call_then(job, NOVA_VERB_IN_PREPARE,
	    json_pack("{s:O, s:s, s:b, s:O*, s:O*}", "spec", spec, "mode", nova_text_of(job->args, "mode"), "postcopy",
		json_is_true(json_object_get(job->args, "postcopy")), "direct", json_object_get(job->args, "direct"), "contents",
		nova_job_contents(job)),
	    guest_prepared, err);
}

/* What was made here for this guest goes again; disks that were there stay. */

static enum nova_step_result deleted(struct nova_job *job, json_t *result, struct nova_error *err)
{
	((struct nova_dest *)job->ctx)->undeleted = false;
	return NOVA_STEP_DONE;
}

static enum nova_step_result undo_prepare(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct nova_job *job = ctx;
	struct nova_dest *dest = job->ctx;

	if (!job->entry)
		return NOVA_STEP_DONE;
	dest->undeleted = true;
	return nova_job_call_then(job, NOVA_VERB_DELETE,
	    json_pack("{s:b, s:b, s:b}", "keep_disks", 1, "force", 1, "created_only",
		carries(job) || nova_job_contents(job) != NULL),
	    deleted, err);
}

/* ---- exports: carried disks are open to be written ---- */

void nova_dest_look(struct nova_dest *dest);

static void disks_changed(void *arg)
{
	nova_dest_look(arg);
}

static void disks_failed(void *arg, const struct nova_error *err)
{
	struct nova_dest *dest = arg;

	if (!dest->committed)
		nova_job_give_up(dest->job, err);
}

static const struct nova_disks_in_events disks_events = { disks_changed, disks_failed };

static enum nova_step_result exported(struct nova_job *job, json_t *result, struct nova_error *err)
{
	struct nova_dest *dest = job->ctx;

	dest->disks = nova_disks_in_new(job->host, result, &disks_events, dest, err);
	json_object_set(job->report, "disks", json_object_get(result, "disks"));
	return dest->disks ? NOVA_STEP_DONE : NOVA_STEP_FAILED;
}

static enum nova_step_result run_exports(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct nova_job *job = ctx;
	struct nova_dest *dest = job->ctx;

	if (!carries(job))
		return NOVA_STEP_DONE;
	return nova_job_call_then(
	    job, NOVA_VERB_MIRROR_IN, json_pack("{s:O?}", "copies", dest->seeds ?: dest->copies), exported, err);
}

/* ---- offer: what is held of the guest from earlier ---- */

static void base_ready(struct nova_job *job)
{
	if (nova_job_at(job, "offer"))
		nova_run_done(job->run);
}

static enum nova_step_result run_offer(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct nova_job *job = ctx;
	struct nova_dest *dest = job->ctx;

	if (dest->cold || dest->direct || nova_job_contents(job))
		return NOVA_STEP_DONE;
	dest->base = nova_base_use_new(job, json_object_get(job->args, "spec"), base_ready, err);
	if (!dest->base)
		return NOVA_STEP_FAILED;
	if (!json_is_true(json_object_get(job->args, "baseline")) || json_is_true(json_object_get(job->args, "postcopy")) ||
	    !strcmp(nova_config_text(job->host->config, "sandbox-decoder"), "on")) /* which reaches no file */
		return NOVA_STEP_DONE;
	return nova_base_use_offer(dest->base) ? NOVA_STEP_WAIT : NOVA_STEP_DONE;
}

static void drop_offer(struct nova_run *run, void *ctx)
{
	struct nova_dest *dest = ((struct nova_job *)ctx)->ctx;

	nova_base_use_drop(dest->base);
}

/* ---- receive: the stream, until the source says commit (migrate_receive.c) ---- */

static enum nova_step_result run_receive(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct nova_job *job = ctx;
	struct nova_dest *dest = job->ctx;

	nova_dest_answer(dest, &dest->reserve,
	    json_pack("{s:s, s:O*, s:O*, s:o*}", "job", job->id, "direct", dest->direct, "disks",
		json_object_get(job->report, "disks"), "baseline", nova_base_use_offered(dest->base)),
	    NULL);
	if (nova_dest_may_commit(dest))
		return NOVA_STEP_DONE;
	return NOVA_STEP_WAIT;
}

/* From here on this side can never commit: whoever asks is told aborted. */
static enum nova_step_result undo_receive(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct nova_job *job = ctx;
	struct nova_dest *dest = job->ctx;
	struct nova_error why;

	if (dest) {
		dest->pipe = nova_pipe_free(dest->pipe);
		dest->decoder = nova_pipe_child_free(dest->decoder);
		dest->disks = nova_disks_in_free(dest->disks);
		if (dest->channel)
			dest->channel->ops->free(nova_take(&dest->channel));
	}
	/* Undecided is as good as aborted, since this job will not decide: writing it down only saves the asking. */
	if (nova_store_decide(job->host->store, job->token, NOVA_ABORTED, &why) < 0)
		nova_host_log(job->host, NOVA_LOG_ERROR, "%s: %s", job->id, why.text);
	return NOVA_STEP_DONE;
}

/* ---- detach: carried disks are whole, nobody writes them any more until the guest runs ---- */

static enum nova_step_result run_detach(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct nova_job *job = ctx;
	struct nova_dest *dest = job->ctx;

	if (!dest->disks)
		return NOVA_STEP_DONE;
	if (nova_disks_in_check(dest->disks, json_object_get(dest->commit_args, "disks"), err) < 0)
		return NOVA_STEP_FAILED;
	dest->disks = nova_disks_in_free(dest->disks);
	return nova_job_call(job, NOVA_VERB_MIRROR_IN_END, json_object(), err);
}

/* Cold: the hypervisor was there for the disks only. */
static enum nova_step_result run_close(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct nova_job *job = ctx;
	struct nova_dest *dest = job->ctx;

	nova_dest_leave_seeds(dest);
	if (!dest->cold || !carries(job))
		return NOVA_STEP_DONE;
	return nova_job_call(job, NOVA_VERB_STOP, json_pack("{s:b}", "force", 1), err);
}

/* ---- load: a checkpoint of processes is brought to life here, and held at once, before anything is decided: what
 * cannot be restored goes on at the source ---- */

static enum nova_step_result run_load(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct nova_job *job = ctx;
	struct nova_dest *dest = job->ctx;

	if (dest->cold || !nova_job_contents(job))
		return NOVA_STEP_DONE;
	return nova_job_call(job, NOVA_VERB_START, json_pack("{s:b}", "paused", 1), err);
}

/* ---- commit ---- */

static enum nova_step_result run_commit(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct nova_job *job = ctx;
	struct nova_dest *dest = job->ctx;

	/* The journal has to know: a restarted daemon must not take the guest for complete. */
	json_object_set_new(job->args, "in-postcopy", json_boolean(dest->postcopy && !dest->loaded));
	if (nova_dest_check_digest(dest, err) < 0 || nova_job_save(job, "commit", false, err) < 0 || nova_store_decide(job->host->store, job->token, NOVA_COMMITTED, err) < 0)
		return NOVA_STEP_FAILED;
	dest->committed = true;
	/* The guest uses its disks here again: what it left when it moved away is used up. */
	if (json_array_size(dest->copies) && nova_copies_set(job->host, job->entry->uuid, NULL, err) < 0)
		nova_host_log(job->host, NOVA_LOG_WARNING, "older copies of guest %s: %s", job->guest_name, err->text);
	return NOVA_STEP_DONE;
}

/* ---- run ---- */

static enum nova_step_result runs(struct nova_job *job, json_t *result, struct nova_error *err)
{
	struct nova_dest *dest = job->ctx;

	if (dest)
		nova_dest_answer(dest, &dest->commit, json_pack("{s:b}", "running", 1), NULL);
	return NOVA_STEP_DONE;
}

static enum nova_step_result run_run(struct nova_run *run, void *ctx, struct nova_error *err);

/* Its disks are its own here from now on. */
static enum nova_step_result arrived(struct nova_job *job, json_t *result, struct nova_error *err)
{
	((struct nova_dest *)job->ctx)->arrived = true;
	return run_run(job->run, job, err);
}

static enum nova_step_result run_run(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct nova_job *job = ctx;
	struct nova_dest *dest = job->ctx;

	bool go = json_is_true(json_object_get(job->args, "run"));

	if (dest->cold && carries(job) && !dest->arrived)
		return nova_job_call_then(job, NOVA_VERB_CREATE,
		    json_pack("{s:O, s:b}", "spec", job->entry->guest.spec, "existing", 1), arrived, err);
	if (dest->cold) {
		nova_guest_set_state(&job->entry->guest, NOVA_GUEST_STOPPED, "arrived stopped");
		return go ? nova_job_call_then(job, NOVA_VERB_START, json_object(), runs, err) : runs(job, NULL, err);
	}
	return nova_job_call_then(job, go ? NOVA_VERB_RESUME : NOVA_VERB_PAUSE, json_object(), runs, err);
}

/* After the commit a row that fails is passed over; the pages are still needed then, and the last row waits for them. */
bool nova_dest_drains(const struct nova_job *job)
{
	return nova_job_at(job, "drain") || nova_job_at(job, "release");
}

/* Postcopy: the guest runs and still asks for pages. The source closes the session when its QEMU has heard
 * that all have arrived; until then the way back to it must stay open. */
static enum nova_step_result run_drain(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct nova_job *job = ctx;
	struct nova_dest *dest = job->ctx;

	if (!dest->postcopy || dest->cold || (dest->loaded && !dest->incoming))
		return NOVA_STEP_DONE;
	if (!dest->incoming && nova_dest_prepare_for_rest(dest, err) < 0) /* a restart, or the link is gone already */
		return NOVA_STEP_FAILED;
	return NOVA_STEP_WAIT;
}

static enum nova_step_result run_release(struct nova_run *run, void *ctx, struct nova_error *err)
{
	return ((struct nova_dest *)((struct nova_job *)ctx)->ctx)->ended ? NOVA_STEP_DONE : run_drain(run, ctx, err);
}

const struct nova_step nova_dest_steps[] = {
	/* what       how          take it back   stop waiting       limit_ms */
	{ "admit",    run_admit,   undo_admit,    nova_job_drop_op,  30000 },
	{ "prepare",  run_prepare, undo_prepare,  nova_job_drop_op,  300000 },
	{ "offer",    run_offer,   NULL,          drop_offer,        60000 },
	{ "seeds",    nova_dest_run_seeds, NULL,  nova_job_drop_op,  0 },
	{ "exports",  run_exports, NULL,          nova_job_drop_op,  30000 },
	{ "receive",  run_receive, undo_receive,  NULL,              0 },
	{ "detach",   run_detach,  NULL,          nova_job_drop_op,  15000 },
	{ "close",    run_close,   NULL,          nova_job_drop_op,  15000 },
	{ "load",     run_load,    NULL,          nova_job_drop_op,  40000 },
	{ "commit",   run_commit,  NULL,          NULL,              0, .commit = true },
	{ "run",      run_run,     NULL,          nova_job_drop_op,  60000 },
	{ "drain",    run_drain,   NULL,          NULL,              0 },
	{ "release",  run_release, NULL,          NULL,              0 },
	{ NULL },
};

/* ---- what the guest's driver says ---- */

static void on_guest(struct nova_job *job, const char *event, json_t *data)
{
	struct nova_dest *dest = job->ctx;
	const char *status = nova_text_of(data, "status");
	const char *reason = nova_text_of(data, "reason");
	struct nova_error why;

	if (!job->run || nova_run_undoing(job->run) || nova_job_at(job, "close"))
		return;
	if (!strcmp(event, "MIGRATION") && !strcmp(status, "completed"))
		dest->loaded = true;
	else if (!strcmp(event, "MIGRATION") && !strcmp(status, "postcopy-active"))
		dest->postcopy = true;
	else if (!strcmp(event, "EXIT") || (!strcmp(event, "MIGRATION") && !strcmp(status, "failed"))) {
		dest->ended = true;
		nova_error_set(&why, NOVA_REFUSED, "guest %s could not be received: %s", job->guest_name,
		    reason[0] ? reason : nova_text_of(data, "error"));
		if (nova_dest_drains(job))
			nova_run_fail(job->run, &why);
		else
			nova_job_give_up(job, &why);
		return;
	}
	if (nova_dest_drains(job) && dest->loaded && !dest->incoming)
		nova_run_done(job->run);
	else
		nova_dest_look(dest);
}

/* ---- the end ---- */

static void told(void *arg, json_t *result, const struct nova_error *err)
{
	/* Whether the source heard it or not: it asks, or misses us. */
}

static void on_end(struct nova_job *job, enum nova_outcome outcome, const struct nova_error *err)
{
	struct nova_dest *dest = job->ctx;
	struct nova_incoming *incoming = dest->incoming;
	struct nova_error ignored;
	NOVA_AUTOJSON json_t *args = NULL;
	bool source_waits = dest->reserve || dest->commit || dest->abort, damaged;

	if (dest->committed && err && job->entry && job->entry->guest.state == NOVA_GUEST_INCOMING && dest->cold)
		nova_guest_set_state(&job->entry->guest, NOVA_GUEST_STOPPED, "it belongs here, but could not be started: see novacron start");
	else if (dest->committed && err && job->entry && job->entry->guest.state == NOVA_GUEST_INCOMING)
		nova_guest_set_state(&job->entry->guest, NOVA_GUEST_PAUSED, "it belongs here, but could not be let run: see novacron resume");
	if (!err || dest->committed)
		nova_replicate_came_back(job->host, job->guest_name, job->peer);
	nova_base_use_end(dest->base, dest->committed && !dest->postcopy && dest->loaded);
	damaged = nova_base_use_damaged(dest->base);
	nova_dest_answer(dest, &dest->reserve, NULL, err);
	if (dest->committed)
		nova_dest_answer(dest, &dest->commit, json_pack("{s:b, s:s}", "running", 0, "why", err ? err->text : ""), NULL);
	nova_dest_answer(dest, &dest->commit, NULL, err);
	nova_dest_answer(dest, &dest->recover, NULL, err);
	nova_dest_answer(dest, &dest->abort, json_pack("{s:b}", "baseline_damaged", damaged), NULL);
	if (!err || source_waits || !incoming || dest->committed)
		return;
	args = json_pack("{s:s, s:s, s:b}", "token", job->token, "text", err->text, "baseline_damaged", damaged);
	incoming->ops->request(incoming->session, "failed", args, 5000, told, NULL, &ignored);
}

static void dest_free(struct nova_job *job)
{
	struct nova_dest *dest = job->ctx;

	if (!dest)
		return;
	if (dest->incoming)
		dest->incoming->job = NULL;
	nova_op_drop(dest->op);
	nova_pipe_free(dest->pipe);
	nova_pipe_child_free(dest->decoder);
	nova_base_use_free(dest->base);
	nova_disks_in_free(dest->disks);
	nova_dest_leave_seeds(dest);
	json_decref(dest->seeds);
	json_decref(dest->copies);
	if (dest->channel)
		dest->channel->ops->free(dest->channel);
	json_decref(dest->commit_args);
	json_decref(dest->direct);
	free(dest->path);
	free(dest);
	job->ctx = NULL;
}

struct nova_dest *nova_dest_of(struct nova_job *job)
{
	struct nova_dest *dest = calloc(1, sizeof(*dest));

	if (!dest)
		return NULL;
	dest->job = job;
	dest->cold = !strcmp(nova_text_of(job->args, "mode"), "cold");
	job->ctx = dest;
	job->free_ctx = dest_free;
	job->on_guest = on_guest;
	job->on_end = on_end;
	return dest;
}

/* ---- after a restart ---- */

int nova_dest_recover(struct nova_job *job, const char *step, struct nova_error *err)
{
	enum nova_decision decision;

	if (!nova_dest_of(job))
		return nova_error_sys(err, ENOMEM, "migration of %s", job->guest_name);
	if (nova_store_decision(job->host->store, job->token, &decision, err) < 0)
		return -1;
	((struct nova_dest *)job->ctx)->postcopy = json_is_true(json_object_get(job->args, "in-postcopy"));
	if (decision == NOVA_COMMITTED)
		return nova_job_start(job, nova_dest_steps, "run", false, err);
	return nova_job_start(job, nova_dest_steps, "receive", true, err);
}
