/* SPDX-License-Identifier: Apache-2.0
 *
 * migrate_ready.c - the rows of a source before the stream: what the guest is, the link, the reservation, what the
 * destination has of it already, carried disks; a guest that is to stop first stops here.
 */
#include "migrate_source.h"

#include "cleanup.h"
#include "migrate_baseline.h"

#include <errno.h>
#include <string.h>

/* ---- preflight ---- */

/* The driver may know that this mode is not to be had here, and which one is. */
static void take_mode(struct nova_source *source, const json_t *result)
{
	struct nova_job *job = source->job;
	const char *mode = json_string_value(json_object_get(result, "mode"));

	if (!mode || !strcmp(mode, nova_job_text(job, "mode")))
		return;
	source->mode = !strcmp(mode, "cold") ? NOVA_COLD : !strcmp(mode, "warm") ? NOVA_WARM : NOVA_LIVE;
	json_object_set_new(job->report, "mode_asked", json_incref(json_object_get(job->args, "mode")));
	json_object_set(job->report, "mode_why", json_object_get(result, "mode_why"));
	json_object_set_new(job->args, "mode", json_string(mode));
}

/* What the guest will lose is said before anything of it is stopped. */
static void tell_lost(struct nova_job *job, json_t *lost)
{
	if (!json_array_size(lost))
		return;
	json_object_set(job->report, "lost", lost);
	nova_host_emit(job->host, "JOB_LOSES",
	    json_pack("{s:s, s:s, s:s, s:s, s:O, s:O*}", "job", job->id, "guest", job->guest_name, "owner", job->owner, "peer",
		job->peer, "lost", lost, "mode_why", json_object_get(job->report, "mode_why")));
}

static enum nova_step_result prepared(struct nova_job *job, json_t *result, struct nova_error *err)
{
	struct nova_source *source = job->ctx;
	json_t *spec = json_object_get(result, "spec");

	if (!json_is_object(spec)) {
		nova_error_set(err, NOVA_REFUSED, "driver %s cannot say what the destination needs", job->slot->ops->name);
		return NOVA_STEP_FAILED;
	}
	source->spec = json_incref(spec);
	source->identity = json_incref(json_object_get(result, "direct"));
	source->memory_bytes = (uint64_t)json_integer_value(json_object_get(result, "memory_bytes"));
	source->settle_ms = (int)json_integer_value(json_object_get(result, "settle_ms"));
	if (json_array_size(json_object_get(result, "carried")) > NOVA_DISKS_MAX) {
		nova_error_set(err, NOVA_INVALID, "guest %s has more than %d disks to carry", job->guest_name, NOVA_DISKS_MAX);
		return NOVA_STEP_FAILED;
	}
	json_object_set(job->args, "carried", json_object_get(result, "carried"));
	json_object_set(job->args, "contents", json_object_get(result, "contents"));
	take_mode(source, result);
	tell_lost(job, json_object_get(result, "lost"));
	return nova_job_save(job, "preflight", false, err) < 0 ? NOVA_STEP_FAILED : NOVA_STEP_DONE;
}

enum nova_step_result nova_source_run_preflight(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct nova_job *job = ctx;
	enum nova_guest_state state = job->entry->guest.state;

	if (job->host->links == NULL) {
		nova_error_set(err, NOVA_STATE, "this daemon has no link to peers: set cert, key, ca and peers");
		return NOVA_STEP_FAILED;
	}
	if (nova_admit_migration(job, err) < 0)
		return NOVA_STEP_FAILED;
	if (json_object_set_new(job->args, "was_running", json_boolean(state == NOVA_GUEST_RUNNING)) < 0) {
		nova_error_sys(err, ENOMEM, "migration of %s", job->guest_name);
		return NOVA_STEP_FAILED;
	}
	return nova_job_call_then(job, NOVA_VERB_OUT_PREPARE,
	    json_pack("{s:s, s:b, s:{s:O*, s:O*, s:O*, s:O*}}", "mode", nova_job_text(job, "mode"), "direct",
		nova_path_may_be_direct(job), "disks", "pool", json_object_get(job->args, "disk-pool"), "map",
		json_object_get(job->args, "disk-map"), "include", json_object_get(job->args, "include-disk"), "exclude",
		json_object_get(job->args, "exclude-disk")),
	    prepared, err);
}

/* ---- connect ---- */

enum nova_step_result nova_source_run_connect(struct nova_run *run, void *ctx, struct nova_error *err)
{
	return nova_source_dial(((struct nova_job *)ctx)->ctx, err) < 0 ? NOVA_STEP_FAILED : NOVA_STEP_WAIT;
}

enum nova_step_result nova_source_undo_connect(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct nova_source *source = ((struct nova_job *)ctx)->ctx;

	nova_source_stop_stream(source); /* an undo that failed left it: its channel goes with the session */
	source->session = source->ops->free(source->session);
	return NOVA_STEP_DONE;
}

/* ---- requests to the destination ---- */

void nova_source_answered(void *arg, json_t *result, const struct nova_error *err)
{
	struct nova_job *job = arg;
	struct nova_source *source = job->ctx;
	struct nova_error why;

	job->op = NULL;
	source->base_damaged |= json_is_true(json_object_get(result, "baseline_damaged"));
	if (!source->offer)
		source->offer = json_incref(json_object_get(result, "baseline"));
	if (!err && nova_job_at(job, "reserve"))
		source->served = json_incref(json_object_get(result, "disks"));
	/* Undoing with the link gone: the other side undoes by itself when it misses us. */
	if (!err || (nova_run_undoing(job->run) && (err->category == NOVA_LINK || err->category == NOVA_TIMEOUT))) {
		nova_run_done(job->run);
		return;
	}
	why = *err;
	/* Whatever its reason: it answered, so its state is known. */
	if (why.category != NOVA_LINK && why.category != NOVA_TIMEOUT && why.category != NOVA_CANCELLED)
		why.category = NOVA_REFUSED;
	nova_error_prefix(&why, "%s", job->peer);
	nova_run_fail(job->run, &why);
}

static enum nova_step_result ask(struct nova_job *job, const char *command, json_t *args, int limit_ms,
    struct nova_error *err)
{
	struct nova_source *source = job->ctx;

	job->op = source->ops->request(source->session, command, args, limit_ms, nova_source_answered, job, err);
	json_decref(args);
	return job->op ? NOVA_STEP_WAIT : NOVA_STEP_FAILED;
}

static void base_ready(struct nova_job *job)
{
	if (nova_job_at(job, "baseline"))
		nova_run_done(job->run);
}

/* On the direct path no page comes by here; past the commit of a postcopy nobody could begin nova_source_again without it. */
bool nova_source_wants_baseline(const struct nova_job *job)
{
	const struct nova_source *source = job->ctx;

	return !source->direct && !nova_job_contents(job) && json_is_true(json_object_get(job->args, "baseline")) &&
	       strcmp(nova_job_text(job, "on-stall"), "postcopy");
}

static void reserved(void *arg, json_t *result, const struct nova_error *err)
{
	struct nova_job *job = arg;
	struct nova_source *source = job->ctx;

	if (!err && source->direct)
		source->direct_to = json_incref(json_object_get(result, "direct"));
	nova_source_answered(arg, result, err);
}

enum nova_step_result nova_source_run_reserve(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct nova_job *job = ctx;
	struct nova_source *source = job->ctx;
	const struct nova_guest *guest = &job->entry->guest;
	NOVA_AUTOJSON json_t *args = json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:O, s:b, s:b, s:I, s:I}", "token", job->token, "guest",
	    guest->name, "uuid", guest->uuid, "owner", guest->owner, "driver", job->slot->ops->name, "mode",
	    nova_job_text(job, "mode"), "spec", source->spec, "run", nova_job_was_running(job), "postcopy",
	    !strcmp(nova_job_text(job, "on-stall"), "postcopy"), "memory_bytes", (json_int_t)source->memory_bytes,
	    "history_bytes", (json_int_t)nova_source_history_bytes(source));

	json_object_set_new(args, "disks", json_integer((json_int_t)json_array_size(json_object_get(job->args, "carried"))));
	if (source->direct)
		json_object_set(args, "direct", source->identity);
	json_object_set(args, "contents", nova_job_contents(job));
	json_object_set_new(args, "baseline", json_boolean(nova_source_wants_baseline(job)));
	if (source->mode != NOVA_COLD && !source->direct && !nova_job_contents(job) &&
	    !(source->base = nova_base_use_new(job, source->spec, base_ready, err)))
		return NOVA_STEP_FAILED;
	job->op = source->ops->request(source->session, "reserve", args, 300000, reserved, job, err);
	return job->op ? NOVA_STEP_WAIT : NOVA_STEP_FAILED;
}

/* The destination undoes by itself when the session is gone; asking makes sure that nothing is left there. */
enum nova_step_result nova_source_undo_reserve(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct nova_job *job = ctx;
	struct nova_source *source = job->ctx;

	if (!source->session || source->reconnect_limit_ms)
		return NOVA_STEP_DONE;
	return ask(job, "abort", json_pack("{s:s}", "token", job->token), 15000, err);
}

/* ---- baseline: what the destination has of the guest ---- */

enum nova_step_result nova_source_run_baseline(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct nova_source *source = ((struct nova_job *)ctx)->ctx;

	if (source->base && source->session && nova_source_wants_baseline(ctx) &&
	    nova_base_use_accept(source->base, source->offer, source->session, source->memory_bytes))
		return NOVA_STEP_WAIT;
	return NOVA_STEP_DONE;
}

void nova_source_drop_baseline(struct nova_run *run, void *ctx)
{
	struct nova_source *source = ((struct nova_job *)ctx)->ctx;

	nova_base_use_drop(source->base);
}

/* ---- quiesce: warm and cold stop the guest before its state moves ---- */

enum nova_step_result nova_source_run_quiesce(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct nova_job *job = ctx;
	struct nova_source *source = job->ctx;

	if (source->mode == NOVA_LIVE || !nova_job_was_running(job))
		return NOVA_STEP_DONE;
	source->stop_ms = nova_now_ms();
	if (source->mode == NOVA_WARM && nova_job_contents(job))
		return NOVA_STEP_DONE; /* it stops when its checkpoint is taken */
	if (source->mode == NOVA_WARM)
		return nova_job_call(job, NOVA_VERB_PAUSE, json_object(), err);
	return nova_job_call(job, NOVA_VERB_STOP, json_pack("{s:I}", "timeout", (json_int_t)nova_job_int(job, "stop-timeout")), err);
}

enum nova_step_result nova_source_undo_quiesce(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct nova_job *job = ctx;
	enum nova_guest_state state = job->entry->guest.state;

	if (!nova_job_was_running(job) || state == NOVA_GUEST_RUNNING)
		return NOVA_STEP_DONE;
	if (state == NOVA_GUEST_STOPPED)
		return nova_source_of(job)->mode == NOVA_COLD ? nova_job_call(job, NOVA_VERB_START, json_object(), err) :
								NOVA_STEP_DONE;
	return nova_job_call(job, NOVA_VERB_RESUME, json_object(), err);
}

/* ---- open, close: a guest that is shut down has nobody who reads its disks; its hypervisor does, and runs nothing ---- */

static bool cold_with_disks(const struct nova_source *source)
{
	return source->mode == NOVA_COLD && nova_disks_any(source);
}

enum nova_step_result nova_source_run_open(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct nova_job *job = ctx;

	if (!cold_with_disks(job->ctx))
		return NOVA_STEP_DONE;
	return nova_job_call(job, NOVA_VERB_START, json_pack("{s:b}", "paused", 1), err);
}

enum nova_step_result nova_source_run_close(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct nova_job *job = ctx;
	enum nova_guest_state state = job->entry->guest.state;

	if (!cold_with_disks(job->ctx) || state == NOVA_GUEST_STOPPED || state == NOVA_GUEST_FAILED)
		return NOVA_STEP_DONE;
	return nova_job_call(job, NOVA_VERB_STOP, json_pack("{s:b}", "force", 1), err);
}

enum nova_step_result nova_source_run_cold_disks(struct nova_run *run, void *ctx, struct nova_error *err)
{
	return cold_with_disks(((struct nova_job *)ctx)->ctx) ? nova_disks_run(run, ctx, err) : NOVA_STEP_DONE;
}

enum nova_step_result nova_source_undo_cold_disks(struct nova_run *run, void *ctx, struct nova_error *err)
{
	return cold_with_disks(((struct nova_job *)ctx)->ctx) ? nova_disks_undo(run, ctx, err) : NOVA_STEP_DONE;
}

enum nova_step_result nova_source_run_disks(struct nova_run *run, void *ctx, struct nova_error *err)
{
	return cold_with_disks(((struct nova_job *)ctx)->ctx) ? NOVA_STEP_DONE : nova_disks_run(run, ctx, err);
}

enum nova_step_result nova_source_undo_disks(struct nova_run *run, void *ctx, struct nova_error *err)
{
	return cold_with_disks(((struct nova_job *)ctx)->ctx) ? NOVA_STEP_DONE : nova_disks_undo(run, ctx, err);
}
