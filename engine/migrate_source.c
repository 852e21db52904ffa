/* SPDX-License-Identifier: Apache-2.0
 *
 * migrate_source.c - the source's half of a migration, as a table of rows, and the rows from the stream to the end. The
 * conversation with the destination is described in migrate.h. Before the stream: migrate_ready.c. The looks at a running
 * precopy: migrate_watch.c. When the commit's answer is lost: migrate_doubt.c; when a postcopy loses its stream:
 * migrate_rejoin.c. How it begins: migrate_command.c.
 */
#include "migrate_source.h"

#include "cleanup.h"
#include "migrate_baseline.h"
#include "replicate.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

json_t *nova_digest_json(const uint8_t digest[16])
{
	char text[33];

	for (size_t i = 0; i < 16; i++)
		snprintf(text + 2 * i, 3, "%02x", digest[i]);
	return json_string(text);
}

void nova_source_free(struct nova_job *job)
{
	struct nova_source *source = job->ctx;

	if (!source)
		return;
	nova_watch_stop(source);
	nova_tail_stop(source);
	nova_source_stop_stream(source);
	nova_disks_free(source->disks);
	nova_doubt_free(source->doubt);
	nova_rejoin_free(source->rejoin);
	nova_doubt_free(source->spare_doubt);
	nova_rejoin_free(source->spare_rejoin);
	free(source->series);
	nova_base_use_free(source->base);
	source->ops->free(source->session);
	nova_converge_free(source->converge);
	json_decref(source->spec);
	json_decref(source->identity);
	json_decref(source->direct_to);
	json_decref(source->served);
	json_decref(source->last);
	json_decref(source->offer);
	free(source);
	job->ctx = NULL;
}

struct nova_source *nova_source_of(struct nova_job *job)
{
	struct nova_source *source = job->ctx;
	const char *mode = nova_job_text(job, "mode");

	if (source)
		return source;
	source = calloc(1, sizeof(*source));
	if (!source)
		return NULL;
	source->job = job;
	source->ops = job->host->plugins->links;
	source->series = calloc(1, sizeof(*source->series));
	source->spare_doubt = nova_doubt_new(job);
	source->spare_rejoin = nova_rejoin_new(source);
	if (!source->series || !source->spare_doubt || !source->spare_rejoin) {
		nova_doubt_free(source->spare_doubt);
		nova_rejoin_free(source->spare_rejoin);
		free(source->series);
		free(source);
		return NULL;
	}
	source->listen_fd = source->stream_fd = -1;
	source->last_predicted_ms = -1;
	source->begin_ms = nova_now_ms();
	source->mode = !strcmp(mode, "cold") ? NOVA_COLD : !strcmp(mode, "warm") ? NOVA_WARM : NOVA_LIVE;
	source->cap_bps = (uint64_t)nova_job_int(job, "bandwidth");
	job->ctx = source;
	job->free_ctx = nova_source_free;
	job->on_guest = nova_source_on_guest;
	job->on_end = nova_source_on_end;
	job->on_doubt = nova_doubt_start;
	job->again = nova_source_again;
	return source;
}

/* ---- precopy ---- */

/* QEMU has begun: the row goes on until the controller switches over, or QEMU does by itself. */
static enum nova_step_result stream_begun(struct nova_job *job, json_t *result, struct nova_error *err)
{
	struct nova_source *source = job->ctx;

	source->streaming = true;
	if (source->completed || source->held)
		return NOVA_STEP_DONE;
	return nova_watch_start(source, err) < 0 ? NOVA_STEP_FAILED : NOVA_STEP_WAIT;
}

static enum nova_step_result run_precopy(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct nova_job *job = ctx;
	struct nova_source *source = job->ctx;
	struct nova_converge_options options = {
		.downtime_ms = (int)nova_job_int(job, "downtime"),
		.max_ms = nova_job_int(job, "max-time"),
		.half_trips = 1,
		.fixed_ms = nova_watch_remember(source),
	};

	if (source->mode == NOVA_COLD && !nova_job_contents(job))
		return NOVA_STEP_DONE;
	if (nova_stall_policy_parse(nova_job_text(job, "on-stall"), &options.policy, err) < 0 ||
	    (!source->direct && nova_source_listen(source, err) < 0))
		return NOVA_STEP_FAILED;
	source->converge = nova_converge_new(&options);
	if (!source->converge) {
		nova_error_sys(err, ENOMEM, "guest %s", job->guest_name);
		return NOVA_STEP_FAILED;
	}
	return nova_job_call_then(job, NOVA_VERB_OUT_START,
	    json_pack("{s:s*, s:s, s:b, s:b, s:o*, s:O*}", "path", source->path, "mode", nova_job_text(job, "mode"), "postcopy",
		options.policy == NOVA_STALL_POSTCOPY, "hold", nova_disks_any(source), "direct",
		source->direct ? nova_path_direct(source) : NULL, "contents", nova_job_contents(job)),
	    stream_begun, err);
}

static void drop_precopy(struct nova_run *run, void *ctx)
{
	struct nova_source *source = ((struct nova_job *)ctx)->ctx;

	nova_job_drop_op(run, ctx);
	nova_watch_stop(source);
	nova_tail_stop(source);
}

static enum nova_step_result undone_precopy(struct nova_job *job, json_t *result, struct nova_error *err)
{
	nova_source_stop_stream(job->ctx);
	return NOVA_STEP_DONE;
}

/* Also from after `completed`, and from postcopy before the commit, while all memory is still here: the driver lets the
 * guest go on. Not if an operator decided for this side: it may have run over there. A restarted daemon comes here, too. */
static enum nova_step_result undo_precopy(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct nova_job *job = ctx;
	struct nova_source *source = job->ctx;

	nova_watch_stop(source);
	nova_tail_stop(source);
	if (source->mode == NOVA_COLD && !nova_job_contents(job))
		return NOVA_STEP_DONE;
	if (!source->path && nova_job_contents(job) && nova_source_name_socket(source, err) < 0) /* a killed daemon's may be there */
		return NOVA_STEP_FAILED;
	if (!nova_job_contents(job) && nova_entry_at_rest(job->entry)) {
		nova_source_stop_stream(source);
		return NOVA_STEP_DONE; /* its QEMU is gone: nothing to bring back */
	}
	if (!nova_job_contents(job))
		nova_source_discard_stream(source);
	return nova_job_call_then(job, NOVA_VERB_OUT_CANCEL,
	    json_pack("{s:b, s:i, s:b}", "uncommitted", !json_object_get(job->report, "resolved"), "stream_fd", source->stream_fd, "resume", source->mode != NOVA_COLD && (source->mode == NOVA_LIVE || nova_job_contents(job)) && nova_job_was_running(job)),
	    undone_precopy, err);
}

/* ---- hold: with carried disks the guest stops first, they become whole, and only then the rest goes ---- */

/* The guest stands still from here on: it does not wait for a lost link for as long as one that runs. */
static void resume_soon(struct nova_source *source)
{
	if (source->mode != NOVA_COLD && nova_source_resume_limit(source->job) > NOVA_SWITCH_RESUME_MS)
		source->ops->session_limit(source->session, NOVA_SWITCH_RESUME_MS);
}

static enum nova_step_result run_hold(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct nova_job *job = ctx;
	struct nova_source *source = job->ctx;

	if (!nova_disks_any(source) || source->held || source->mode == NOVA_COLD)
		return NOVA_STEP_DONE;
	if (!source->session) {
		nova_error_set(err, NOVA_LINK, "the link to %s is gone", job->peer);
		return NOVA_STEP_FAILED;
	}
	resume_soon(source);
	return NOVA_STEP_WAIT;
}

/* ---- switchover: the guest stops, the last bytes and the device state go ---- */

static enum nova_step_result goes_on(struct nova_job *job, json_t *result, struct nova_error *err)
{
	struct nova_source *source = job->ctx;

	return source->completed || source->postcopy ? NOVA_STEP_DONE : NOVA_STEP_WAIT;
}

static enum nova_step_result run_switchover(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct nova_job *job = ctx;
	struct nova_source *source = job->ctx;

	if (source->mode == NOVA_COLD || source->completed || source->postcopy)
		return NOVA_STEP_DONE;
	resume_soon(source);
	if (source->held)
		return nova_job_call_then(job, NOVA_VERB_OUT_SET, json_pack("{s:b}", "go_on", 1), goes_on, err);
	if (source->to_postcopy)
		return nova_job_call_then(job, NOVA_VERB_OUT_SET, json_pack("{s:b}", "postcopy", 1), goes_on, err);
	return NOVA_STEP_WAIT;
}

/* ---- handover: COMMIT ---- */

/* What is no answer to the commit leaves us in doubt: the guest here is not deleted for it. */
static void commit_answered(void *arg, json_t *result, const struct nova_error *err)
{
	struct nova_error nonsense;

	nova_error_set(&nonsense, NOVA_LINK, "its answer to the commit does not say whether the guest runs");
	if (!err && !json_is_boolean(json_object_get(result, "running")))
		err = &nonsense;
	nova_source_answered(arg, result, err);
}

static enum nova_step_result run_handover(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct nova_job *job = ctx;
	struct nova_source *source = job->ctx;
	NOVA_AUTOJSON json_t *args = NULL;
	uint8_t digest[16] = { 0 };
	uint64_t raw_bytes = 0;

	if (!source->session) {
		nova_error_set(err, NOVA_REFUSED, "the link to %s was lost before the commit was sent", job->peer);
		return NOVA_STEP_FAILED;
	}
	resume_soon(source); /* the hypervisor may have been quicker than the row before */
	if (source->pipe)
		nova_pipe_digest_out(source->pipe, digest, &raw_bytes);
	/* the stream has just ended well: until now the peer was there */
	json_object_set_new(job->report, "commit_sent_ms", json_integer(nova_wall_ms()));
	json_object_set_new(job->report, "peer_heard_ms", json_integer(nova_wall_ms()));
	args = json_pack("{s:s, s:o, s:I, s:b, s:b, s:o}", "token", job->token, "digest", nova_digest_json(digest), "raw_bytes",
	    (json_int_t)raw_bytes, "postcopy", source->postcopy, "run", nova_job_was_running(job), "disks",
	    nova_disks_digests(source));
	if (!args) {
		nova_error_sys(err, ENOMEM, "the commit");
		return NOVA_STEP_FAILED;
	}
	job->op = source->ops->request(source->session, "commit", args, 50000, commit_answered, job, err);
	return job->op ? NOVA_STEP_WAIT : NOVA_STEP_FAILED;
}

/* ---- drain (postcopy): pages the running guest still waits for ---- */

bool nova_source_drains(const struct nova_source *source)
{
	return nova_job_at(source->job, "drain") || source->drains_late;
}

static enum nova_step_result run_drain(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct nova_job *job = ctx;
	struct nova_source *source = job->ctx;
	struct nova_error lost;

	nova_tail_stop(source);
	if (source->stop_ms) /* the answer took half a round trip; the guest runs for that long */
		nova_watch_paused(source, nova_now_ms() - source->stop_ms - source->least_rtt_us / 2000);
	if (source->pipe)
		nova_pipe_keep_open(source->pipe, false);
	if (json_is_true(json_object_get(job->args, "in-postcopy")))
		source->postcopy = true; /* also after a restart */
	if (!source->postcopy || source->completed)
		return NOVA_STEP_DONE;
	if (source->session) {
		source->ops->session_limit(source->session, nova_source_resume_limit(job));
		return NOVA_STEP_WAIT;
	}
	nova_error_set(&lost, NOVA_LINK, "the link to %s is gone", job->peer);
	nova_rejoin_start(source, &lost);
	return NOVA_STEP_WAIT;
}

/* ---- release ---- */

/* Disks that stay here are older copies from now on: they make the way back cheap. */
static int remember_copies(struct nova_job *job, json_t *left, struct nova_error *err)
{
	json_t *copy;
	size_t i;

	if (!json_is_array(left))
		return 0;
	json_array_foreach (left, i, copy) {
		json_object_set_new(copy, "peer", json_string(job->peer));
		json_object_set_new(copy, "time_ms", json_integer(nova_wall_ms()));
	}
	return nova_copies_set(job->host, job->entry->uuid, left, err);
}

static enum nova_step_result released(struct nova_job *job, json_t *result, struct nova_error *err)
{
	if (remember_copies(job, json_object_get(result, "left"), err) < 0 || nova_entry_forget(job->entry, err) < 0)
		return NOVA_STEP_FAILED;
	return NOVA_STEP_DONE;
}

static bool has_pages(const struct nova_job *job)
{
	return job->entry && !nova_entry_at_rest(job->entry);
}

static enum nova_step_result run_release(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct nova_job *job = ctx;
	struct nova_source *source = job->ctx;

	if (source->postcopy && !source->completed && !source->unwanted && has_pages(job)) {
		source->drains_late = true;
		nova_run_set_limit(run, 0);
		return run_drain(run, ctx, err);
	}
	nova_watch_stop(source);
	if (source->session)
		nova_watch_report(source);
	nova_source_stop_stream(source);
	nova_base_use_end(source->base, !source->postcopy && source->completed);
	nova_base_use_drop(source->base);
	source->disks = nova_disks_free(source->disks);
	source->session = source->ops->free(source->session);
	if (!job->entry)
		return NOVA_STEP_DONE;
	return nova_job_call_then(job, NOVA_VERB_DELETE,
	    json_pack("{s:b, s:b, s:O*, s:b}", "keep_disks", 1, "force", 1, "carried",
		json_object_get(job->args, "carried"), "keep_carried",
		json_is_true(json_object_get(job->args, "keep-copies"))),
	    released, err);
}

const struct nova_step nova_source_steps[] = {
	/* what           how                          take it back                 stop waiting               limit_ms */
	{ "points",       nova_points_row,             NULL,                        NULL,                      60000 },
	{ "preflight",    nova_source_run_preflight,   NULL,                        nova_job_drop_op,          150000 },
	{ "estimate",     nova_estimate_row,           NULL,                        nova_job_drop_op,          30000 },
	{ "connect",      nova_source_run_connect,     nova_source_undo_connect,    NULL,                      20000 },
	{ "path",         nova_path_row,               NULL,                        nova_job_drop_op,          10000 },
	{ "reserve",      nova_source_run_reserve,     nova_source_undo_reserve,    nova_job_drop_op,          310000 },
	{ "baseline",     nova_source_run_baseline,    NULL,                        nova_source_drop_baseline, 0 },
	{ "disks",        nova_source_run_disks,       nova_source_undo_disks,      nova_disks_drop,           0 },
	{ "quiesce",      nova_source_run_quiesce,     nova_source_undo_quiesce,    nova_job_drop_op,          0 },
	{ "open",         nova_source_run_open,        nova_source_run_close,       nova_job_drop_op,          60000 },
	{ "cold disks",   nova_source_run_cold_disks,  nova_source_undo_cold_disks, nova_disks_drop,           0 },
	{ "precopy",      run_precopy,                 undo_precopy,                drop_precopy,              0 },
	{ "hold",         run_hold,                    NULL,                        NULL,                      60000 },
	{ "detach",       nova_disks_detach,           NULL,                        nova_job_drop_op,          60000 },
	{ "close",        nova_source_run_close,       NULL,                        nova_job_drop_op,          60000 },
	{ "switchover",   run_switchover,              NULL,                        nova_job_drop_op,          60000 },
	{ "handover",     run_handover,                NULL,                        nova_job_drop_op,          60000, .commit = true },
	{ "drain",        run_drain,                   NULL,                        NULL,                      0 },
	{ "release",      run_release,                 NULL,                        nova_job_drop_op,          60000 },
	{ NULL },
};
