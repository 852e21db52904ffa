/* SPDX-License-Identifier: Apache-2.0
 *
 * migrate_dest.c - the destination's half of a migration: sessions that peers open, and the table of rows
 * that a reservation runs. The conversation is described in migrate.h. Until the commit row has written
 * the decision, everything that fails is undone here and the guest goes on at the source.
 */
#include "config.h"

#include "cleanup.h"
#include "estimate.h"
#include "migrate_baseline.h"
#include "migrate.h"
#include "pipe_child.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

struct nova_incoming {
	TAILQ_ENTRY(nova_incoming) link;
	struct nova_host *host;          /* borrowed */
	const struct nova_link_ops *ops; /* static */
	struct nova_session *session;    /* owned */
	struct nova_job *job;            /* borrowed: the reservation made here */
	struct nova_remote *remote;      /* owned: commands came over it */
	char peer[NOVA_NAME_MAX + 1];    /* "": a user, who may have commands executed and nothing else */
};

struct dest {
	struct nova_job *job;
	struct nova_incoming *incoming;       /* borrowed; NULL: the session is gone */
	struct nova_request *reserve, *commit, *abort; /* to be answered */
	json_t *commit_args;                  /* owned */
	struct nova_channel *channel;         /* owned until the pipe has it */
	struct nova_pipe *pipe;               /* owned; NULL: none yet, or a decoder */
	struct nova_pipe_child *decoder;      /* owned: instead, with sandbox-decoder */
	json_t *copies;                       /* owned: older copies of the guest's disks on this host */
	struct nova_disks_in *disks;          /* owned; NULL: none are carried */
	char *path;                           /* owned: where the guest's state goes */
	bool loaded, postcopy, cold, committed, arrived;
	struct nova_request *recover;         /* to be answered: the rest of a postcopy is about to come */
	struct nova_op *op;                   /* owned: the driver gets ready for it */
	json_t *direct;                       /* owned: where the guest waits for its stream; NULL: for ours */
	struct nova_base_use *base;           /* owned; NULL: not begun, or cold */
};

static const char *text_of(const json_t *object, const char *name)
{
	const char *text = json_string_value(json_object_get(object, name));

	return text ? text : "";
}

static bool row_is(const struct nova_job *job, const char *name)
{
	return job->run && !nova_run_undoing(job->run) && nova_run_step(job->run) &&
	       !strcmp(nova_run_step(job->run)->name, name);
}

static void give_up(struct nova_job *job, const struct nova_error *why)
{
	struct nova_error ignored;

	if (job->run)
		nova_run_cancel(job->run, why, &ignored);
}

static void answer(struct dest *dest, struct nova_request **request, json_t *result, const struct nova_error *err)
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
	job->entry = nova_entry_new(job->host, job->slot, job->guest_name, text_of(job->args, "uuid"),
	    text_of(job->args, "owner"), json_is_object(spec) ? spec : json_object_get(job->args, "spec"), needs, err);
	if (!job->entry)
		return NOVA_STEP_FAILED;
	job->entry->job = job;
	job->entry->guest.state = NOVA_GUEST_INCOMING;
	return nova_entry_save(job->entry, err) < 0 ? NOVA_STEP_FAILED : NOVA_STEP_DONE;
}

static enum nova_step_result run_admit(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct nova_job *job = ctx;
	struct dest *dest = job->ctx;

	if (nova_admit_migration(job, err) < 0)
		return NOVA_STEP_FAILED;
	dest->copies = nova_copies_get(job->host, text_of(job->args, "uuid"));
	return nova_job_call_then(job, NOVA_VERB_CHECK,
	    json_pack("{s:O, s:b, s:O}", "spec", json_object_get(job->args, "spec"), "incoming", 1, "copies",
		dest->copies),
	    admit_needs, err);
}

static enum nova_step_result undo_admit(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct nova_job *job = ctx;

	if (job->entry && nova_entry_forget(job->entry, err) < 0)
		return NOVA_STEP_FAILED;
	return NOVA_STEP_DONE;
}

/* ---- prepare ---- */

static bool wants_direct(const struct nova_job *job)
{
	return json_is_object(json_object_get(job->args, "direct"));
}

/* Is its stream its state? Of a machine that is shut down there is none. */
static bool streams(const struct dest *dest)
{
	return !dest->cold || nova_job_contents(dest->job);
}

static bool carries(const struct nova_job *job)
{
	return json_integer_value(json_object_get(job->args, "disks")) > 0;
}

static enum nova_step_result guest_prepared(struct nova_job *job, json_t *result, struct nova_error *err)
{
	struct dest *dest = job->ctx;

	if (wants_direct(job)) {
		dest->direct = json_incref(json_object_get(result, "direct"));
		if (dest->direct)
			return NOVA_STEP_DONE;
		nova_error_set(err, NOVA_REFUSED, "driver %s gave no port for guest %s", job->slot->ops->name, job->guest_name);
		return NOVA_STEP_FAILED;
	}
	if (streams(dest)) {
		dest->path = strdup(text_of(result, "path"));
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
	struct dest *dest = job->ctx;
	json_t *spec = job->entry->guest.spec;

	if (!streams(dest) && !carries(job))
		return nova_job_call_then(job, NOVA_VERB_CREATE, json_pack("{s:O, s:b}", "spec", spec, "existing", 1),
		    guest_prepared, err);
	return nova_job_call_then(job, NOVA_VERB_IN_PREPARE,
	    json_pack("{s:O, s:s, s:b, s:O*, s:O*}", "spec", spec, "mode", text_of(job->args, "mode"), "postcopy",
		json_is_true(json_object_get(job->args, "postcopy")), "direct", json_object_get(job->args, "direct"), "contents",
		nova_job_contents(job)),
	    guest_prepared, err);
}

/* What was made here for this guest goes again; disks that were there stay. */

static enum nova_step_result undo_prepare(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct nova_job *job = ctx;

	if (!job->entry)
		return NOVA_STEP_DONE;
	return nova_job_call(job, NOVA_VERB_DELETE,
	    json_pack("{s:b, s:b, s:b}", "keep_disks", 1, "force", 1, "created_only",
		carries(job) || nova_job_contents(job) != NULL),
	    err);
}

/* ---- exports: carried disks are open to be written ---- */

static void look(struct dest *dest);

static void disks_changed(void *arg)
{
	look(arg);
}

static void disks_failed(void *arg, const struct nova_error *err)
{
	struct dest *dest = arg;

	if (!dest->committed)
		give_up(dest->job, err);
}

static const struct nova_disks_in_events disks_events = { disks_changed, disks_failed };

static enum nova_step_result exported(struct nova_job *job, json_t *result, struct nova_error *err)
{
	struct dest *dest = job->ctx;

	dest->disks = nova_disks_in_new(job->host, result, &disks_events, dest, err);
	json_object_set(job->report, "disks", json_object_get(result, "disks"));
	return dest->disks ? NOVA_STEP_DONE : NOVA_STEP_FAILED;
}

static enum nova_step_result run_exports(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct nova_job *job = ctx;
	struct dest *dest = job->ctx;

	if (!carries(job))
		return NOVA_STEP_DONE;
	return nova_job_call_then(
	    job, NOVA_VERB_MIRROR_IN, json_pack("{s:O?}", "copies", dest->copies), exported, err);
}

/* ---- offer: what is held of the guest from earlier ---- */

static void base_ready(struct nova_job *job)
{
	if (row_is(job, "offer"))
		nova_run_done(job->run);
}

static enum nova_step_result run_offer(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct nova_job *job = ctx;
	struct dest *dest = job->ctx;

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
	struct dest *dest = ((struct nova_job *)ctx)->ctx;

	nova_base_use_drop(dest->base);
}

/* ---- receive: the stream, until the source says commit ---- */

static bool may_commit(const struct dest *dest)
{
	if (!dest->commit || (dest->disks && !nova_disks_in_arrived(dest->disks)))
		return false;
	return !streams(dest) || dest->loaded ||
	       (dest->postcopy && json_is_true(json_object_get(dest->commit_args, "postcopy")));
}

static void look(struct dest *dest)
{
	if (row_is(dest->job, "receive") && may_commit(dest))
		nova_run_done(dest->job->run);
}

static void pipe_ended(void *arg, unsigned ended, const struct nova_error *err)
{
	struct dest *dest = arg;
	struct nova_error why;

	if (!err || dest->loaded || dest->committed)
		return;
	why = *err;
	nova_error_prefix(&why, "stream of guest %s", dest->job->guest_name);
	give_up(dest->job, &why);
}

static int connect_guest(const char *path, struct nova_error *err)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	NOVA_AUTOCLOSE int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0)
		return nova_error_sys(err, errno, "socket");
	if (snprintf(address.sun_path, sizeof(address.sun_path), "%s", path) >= (int)sizeof(address.sun_path))
		return nova_error_set(err, NOVA_INVALID, "socket path too long: %s", path);
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
		return nova_error_sys(err, errno, "connecting to %s", path);
	return nova_take_fd(&fd);
}

static int open_pipe(struct dest *dest, struct nova_error *err)
{
	struct nova_job *job = dest->job;
	struct nova_pipe_options options = { 0 };
	int fd = connect_guest(dest->path, err);

	if (fd < 0)
		return -1;
	options.out.codec = NOVA_CODEC_NONE;
	options.in.history_bytes = (size_t)json_integer_value(json_object_get(job->args, "history_bytes"));
	if (!strcmp(nova_config_text(job->host->config, "sandbox-decoder"), "on")) {
		dest->decoder = nova_pipe_child_new(job->host->base, job->host->plugins->links, fd, nova_take(&dest->channel),
		    &options, pipe_ended, dest, err);
		return dest->decoder ? 0 : -1;
	}
	nova_base_use_stream(dest->base, &options.in, (uint64_t)json_integer_value(json_object_get(job->args, "memory_bytes")));
	dest->pipe = nova_pipe_new(job->host->base, job->host->plugins->links, fd, nova_take(&dest->channel), &options,
	    pipe_ended, dest, err);
	return dest->pipe ? 0 : -1;
}

static enum nova_step_result run_receive(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct nova_job *job = ctx;
	struct dest *dest = job->ctx;

	answer(dest, &dest->reserve,
	    json_pack("{s:s, s:O*, s:O*, s:o*}", "job", job->id, "direct", dest->direct, "disks",
		json_object_get(job->report, "disks"), "baseline", nova_base_use_offered(dest->base)),
	    NULL);
	if (may_commit(dest))
		return NOVA_STEP_DONE;
	return NOVA_STEP_WAIT;
}

/* From here on this side can never commit: whoever asks is told aborted. */
static enum nova_step_result undo_receive(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct nova_job *job = ctx;
	struct dest *dest = job->ctx;
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
	struct dest *dest = job->ctx;

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
	struct dest *dest = job->ctx;

	if (!dest->cold || !carries(job))
		return NOVA_STEP_DONE;
	return nova_job_call(job, NOVA_VERB_STOP, json_pack("{s:b}", "force", 1), err);
}

/* ---- load: a checkpoint of processes is brought to life here, and held at once, before anything is decided: what
 * cannot be restored goes on at the source ---- */

static enum nova_step_result run_load(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct nova_job *job = ctx;
	struct dest *dest = job->ctx;

	if (dest->cold || !nova_job_contents(job))
		return NOVA_STEP_DONE;
	return nova_job_call(job, NOVA_VERB_START, json_pack("{s:b}", "paused", 1), err);
}

/* ---- commit ---- */

static int check_digest(struct dest *dest, struct nova_error *err)
{
	NOVA_AUTOJSON json_t *ours = NULL;
	const char *theirs = text_of(dest->commit_args, "digest");
	uint64_t bytes = 0, sent = (uint64_t)json_integer_value(json_object_get(dest->commit_args, "raw_bytes"));
	uint8_t digest[16];

	if (!streams(dest) || dest->postcopy || dest->direct)
		return 0;
	if (!dest->pipe && !dest->decoder)
		return nova_error_set(err, NOVA_REFUSED, "no stream has arrived");
	if (dest->decoder)
		nova_pipe_child_digest_in(dest->decoder, sent, digest, &bytes);
	else
		nova_pipe_digest_in(dest->pipe, digest, &bytes);
	ours = nova_digest_json(digest);
	if (bytes == sent && !strcmp(theirs, json_string_value(ours)))
		return 0;
	return nova_error_set(err, NOVA_REFUSED,
	    "the stream differs: %llu bytes with digest %s arrived, %llu with %s were sent", (unsigned long long)bytes,
	    json_string_value(ours), (unsigned long long)sent, theirs);
}

static enum nova_step_result run_commit(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct nova_job *job = ctx;
	struct dest *dest = job->ctx;

	/* The journal has to know: a restarted daemon must not take the guest for complete. */
	json_object_set_new(job->args, "in-postcopy", json_boolean(dest->postcopy && !dest->loaded));
	if (check_digest(dest, err) < 0 || nova_job_save(job, "commit", false, err) < 0 || nova_store_decide(job->host->store, job->token, NOVA_COMMITTED, err) < 0)
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
	struct dest *dest = job->ctx;

	if (dest)
		answer(dest, &dest->commit, json_pack("{s:b}", "running", 1), NULL);
	return NOVA_STEP_DONE;
}

static enum nova_step_result run_run(struct nova_run *run, void *ctx, struct nova_error *err);

/* Its disks are its own here from now on. */
static enum nova_step_result arrived(struct nova_job *job, json_t *result, struct nova_error *err)
{
	((struct dest *)job->ctx)->arrived = true;
	return run_run(job->run, job, err);
}

static enum nova_step_result run_run(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct nova_job *job = ctx;
	struct dest *dest = job->ctx;

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

/* The stream is gone and pages are missing: the hypervisor keeps the guest, which waits when it needs one, until the
 * source comes again. */
static void stream_lost(struct dest *dest, const struct nova_error *why)
{
	struct nova_job *job = dest->job;

	dest->pipe = nova_pipe_free(dest->pipe);
	dest->decoder = nova_pipe_child_free(dest->decoder);
	nova_host_log(job->host, NOVA_LOG_WARNING,
	    "%s: %s; guest %s runs here, and pages that it may need are at %s: it waits for them until %s comes again",
	    job->id, why->text, job->guest_name, job->peer, job->peer);
}

static void ready_for_rest(void *arg, json_t *result, const struct nova_error *err)
{
	struct dest *dest = arg;
	struct nova_job *job = dest->job;

	dest->op = NULL;
	if (err) {
		nova_host_log(job->host, NOVA_LOG_WARNING, "%s: guest %s cannot take the rest yet: %s", job->id,
		    job->guest_name, err->text);
		answer(dest, &dest->recover, NULL, err);
		return;
	}
	if (json_is_true(json_object_get(result, "complete"))) { /* it had all, and nobody was there to hear it */
		answer(dest, &dest->recover, json_pack("{s:b}", "complete", 1), NULL);
		dest->loaded = true;
		nova_run_done(job->run);
		return;
	}
	free(dest->path);
	dest->path = strdup(text_of(result, "path"));
	answer(dest, &dest->recover, NULL, NULL);
}

static int prepare_for_rest(struct dest *dest, struct nova_error *err)
{
	struct nova_job *job = dest->job;
	NOVA_AUTOJSON json_t *args = json_pack("{s:b}", "recover", 1);

	dest->pipe = nova_pipe_free(dest->pipe);
	dest->decoder = nova_pipe_child_free(dest->decoder);
	if (dest->channel)
		dest->channel->ops->free(nova_take(&dest->channel));
	nova_op_drop(nova_take(&dest->op));
	dest->op =
	    nova_slot_call(job->slot, NOVA_VERB_IN_PREPARE, &job->entry->guest, args, ready_for_rest, dest, err);
	return dest->op ? 0 : -1;
}

/* Postcopy: the guest runs and still asks for pages. The source closes the session when its QEMU has heard
 * that all have arrived; until then the way back to it must stay open. */
static enum nova_step_result run_drain(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct nova_job *job = ctx;
	struct dest *dest = job->ctx;

	if (!dest->postcopy || dest->cold || (dest->loaded && !dest->incoming))
		return NOVA_STEP_DONE;
	if (!dest->incoming && prepare_for_rest(dest, err) < 0) /* a restart, or the link is gone already */
		return NOVA_STEP_FAILED;
	return NOVA_STEP_WAIT;
}

static const struct nova_step dest_steps[] = {
	/* what       how          take it back   stop waiting       limit_ms */
	{ "admit",    run_admit,   undo_admit,    nova_job_drop_op,  30000 },
	{ "prepare",  run_prepare, undo_prepare,  nova_job_drop_op,  300000 },
	{ "offer",    run_offer,   NULL,          drop_offer,        60000 },
	{ "exports",  run_exports, NULL,          nova_job_drop_op,  30000 },
	{ "receive",  run_receive, undo_receive,  NULL,              0 },
	{ "detach",   run_detach,  NULL,          nova_job_drop_op,  15000 },
	{ "close",    run_close,   NULL,          nova_job_drop_op,  15000 },
	{ "load",     run_load,    NULL,          nova_job_drop_op,  40000 },
	{ "commit",   run_commit,  NULL,          NULL,              0, .commit = true },
	{ "run",      run_run,     NULL,          nova_job_drop_op,  60000 },
	{ "drain",    run_drain,   NULL,          NULL,              0 },
	{ NULL },
};

/* ---- what the guest's driver says ---- */

static void on_guest(struct nova_job *job, const char *event, json_t *data)
{
	struct dest *dest = job->ctx;
	const char *status = text_of(data, "status");
	const char *reason = text_of(data, "reason");
	struct nova_error why;

	if (!job->run || nova_run_undoing(job->run) || row_is(job, "close"))
		return;
	if (!strcmp(event, "MIGRATION") && !strcmp(status, "completed"))
		dest->loaded = true;
	else if (!strcmp(event, "MIGRATION") && !strcmp(status, "postcopy-active"))
		dest->postcopy = true;
	else if (!strcmp(event, "EXIT") || (!strcmp(event, "MIGRATION") && !strcmp(status, "failed"))) {
		nova_error_set(&why, NOVA_REFUSED, "guest %s could not be received: %s", job->guest_name,
		    reason[0] ? reason : text_of(data, "error"));
		if (row_is(job, "drain"))
			nova_run_fail(job->run, &why);
		else
			give_up(job, &why);
		return;
	}
	if (row_is(job, "drain") && dest->loaded && !dest->incoming)
		nova_run_done(job->run);
	else
		look(dest);
}

/* ---- the end ---- */

static void told(void *arg, json_t *result, const struct nova_error *err)
{
	/* Whether the source heard it or not: it asks, or misses us. */
}

static void on_end(struct nova_job *job, enum nova_outcome outcome, const struct nova_error *err)
{
	struct dest *dest = job->ctx;
	struct nova_incoming *incoming = dest->incoming;
	struct nova_error ignored;
	NOVA_AUTOJSON json_t *args = NULL;
	bool source_waits = dest->reserve || dest->commit || dest->abort, damaged;

	if (dest->committed && err && job->entry && job->entry->guest.state == NOVA_GUEST_INCOMING)
		nova_guest_set_state(&job->entry->guest, NOVA_GUEST_PAUSED, "it belongs here, but could not be let run: see novacron resume");
	nova_base_use_end(dest->base, dest->committed && !dest->postcopy && dest->loaded);
	damaged = nova_base_use_damaged(dest->base);
	answer(dest, &dest->reserve, NULL, err);
	if (dest->committed)
		answer(dest, &dest->commit, json_pack("{s:b, s:s}", "running", 0, "why", err ? err->text : ""), NULL);
	answer(dest, &dest->commit, NULL, err);
	answer(dest, &dest->recover, NULL, err);
	answer(dest, &dest->abort, json_pack("{s:b}", "baseline_damaged", damaged), NULL);
	if (!err || source_waits || !incoming || dest->committed)
		return;
	args = json_pack("{s:s, s:s, s:b}", "token", job->token, "text", err->text, "baseline_damaged", damaged);
	incoming->ops->request(incoming->session, "failed", args, 5000, told, NULL, &ignored);
}

static void dest_free(struct nova_job *job)
{
	struct dest *dest = job->ctx;

	if (!dest)
		return;
	if (dest->incoming)
		dest->incoming->job = NULL;
	nova_op_drop(dest->op);
	nova_pipe_free(dest->pipe);
	nova_pipe_child_free(dest->decoder);
	nova_base_use_free(dest->base);
	nova_disks_in_free(dest->disks);
	json_decref(dest->copies);
	if (dest->channel)
		dest->channel->ops->free(dest->channel);
	json_decref(dest->commit_args);
	json_decref(dest->direct);
	free(dest->path);
	free(dest);
	job->ctx = NULL;
}

static struct dest *dest_of(struct nova_job *job)
{
	struct dest *dest = calloc(1, sizeof(*dest));

	if (!dest)
		return NULL;
	dest->job = job;
	dest->cold = !strcmp(text_of(job->args, "mode"), "cold");
	job->ctx = dest;
	job->free_ctx = dest_free;
	job->on_guest = on_guest;
	job->on_end = on_end;
	return dest;
}

/* ---- requests of the source ---- */

typedef int (*request_fn)(struct nova_incoming *incoming, json_t *args, struct nova_request *request,
    struct nova_error *err);

/* {subjects: [...]}: who may connect to the guest's own port */
static int check_direct(const json_t *direct)
{
	const json_t *subjects = json_object_get(direct, "subjects"), *subject;
	size_t i;

	json_array_foreach (subjects, i, subject)
		if (!json_is_string(subject) || !json_string_length(subject) || json_string_length(subject) > 512)
			return -1;
	return json_array_size(subjects) >= 1 && json_array_size(subjects) <= 4 ? 0 : -1;
}

static int check_reserve(const json_t *args, struct nova_error *err)
{
	static const char *const texts[] = { "token", "guest", "uuid", "owner", "driver", "mode" };

	for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++)
		if (!json_is_string(json_object_get(args, texts[i])))
			return nova_error_set(err, NOVA_INVALID, "reserve: %s must be a text", texts[i]);
	if (strlen(text_of(args, "token")) != 32 || strspn(text_of(args, "token"), "0123456789abcdef") != 32)
		return nova_error_set(err, NOVA_INVALID, "reserve: token must be 32 hexadecimal digits");
	if (strlen(text_of(args, "uuid")) != 36)
		return nova_error_set(err, NOVA_INVALID, "reserve: uuid must have 36 characters");
	if (!json_is_object(json_object_get(args, "spec")))
		return nova_error_set(err, NOVA_INVALID, "reserve: spec must be an object");
	if (json_object_get(args, "direct") && check_direct(json_object_get(args, "direct")) < 0)
		return nova_error_set(err, NOVA_INVALID, "reserve: direct must name 1 to 4 subjects of certificates");
	if (json_object_get(args, "contents") && !json_is_object(json_object_get(args, "contents")))
		return nova_error_set(err, NOVA_INVALID, "reserve: contents must be an object");
	if (json_integer_value(json_object_get(args, "disks")) < 0 ||
	    json_integer_value(json_object_get(args, "disks")) > NOVA_DISKS_MAX)
		return nova_error_set(err, NOVA_INVALID, "reserve: disks must be 0 to %d", NOVA_DISKS_MAX);
	if (json_integer_value(json_object_get(args, "memory_bytes")) < 0 ||
	    json_integer_value(json_object_get(args, "memory_bytes")) > (json_int_t)1 << 46)
		return nova_error_set(err, NOVA_INVALID, "reserve: memory_bytes must be 0 to 64 TiB");
	if (json_integer_value(json_object_get(args, "history_bytes")) < 0 ||
	    json_integer_value(json_object_get(args, "history_bytes")) > (json_int_t)1 << 36)
		return nova_error_set(err, NOVA_INVALID, "reserve: history_bytes must be 0 to 64 GiB");
	return nova_guest_name_check(text_of(args, "guest"), err);
}

static int came_here(void *arg, const struct nova_job_row *row)
{
	return row->side && !strcmp(row->side, "destination") ? -2 : 0;
}

/* A token means one migration for ever: what was decided of an older one must not count for this. */
static int check_new(struct nova_host *host, const char *token, struct nova_error *err)
{
	enum nova_decision decision;
	int found = nova_store_job_find(host->store, NULL, token, came_here, NULL, err);

	if (found == -1 || nova_store_decision(host->store, token, &decision, err) < 0)
		return -1;
	if (found == 0 && decision == NOVA_UNDECIDED)
		return 0;
	return nova_error_set(err, NOVA_INVALID, "reserve: this token was used before");
}

static int reserve(struct nova_incoming *incoming, json_t *args, struct nova_request *request, struct nova_error *err)
{
	struct nova_host *host = incoming->host;
	struct nova_identity who = { .role = NOVA_ROLE_OPERATOR };
	struct nova_slot *slot;
	struct nova_job *job;
	struct dest *dest;

	if (check_reserve(args, err) < 0)
		return -1;
	if (incoming->job)
		return nova_error_set(err, NOVA_STATE, "this session has a reservation already");
	if (check_new(host, text_of(args, "token"), err) < 0)
		return -1;
	slot = nova_slot_find(host, text_of(args, "driver"), err);
	if (!slot)
		return -1;
	snprintf(who.name, sizeof(who.name), "%s", incoming->peer);
	snprintf(who.from, sizeof(who.from), "peer %s", incoming->peer);
	job = nova_job_new(host, "migrate", "destination", &who, text_of(args, "guest"), args, err);
	if (!job)
		return -1;
	snprintf(job->peer, sizeof(job->peer), "%s", incoming->peer);
	snprintf(job->token, sizeof(job->token), "%s", text_of(args, "token"));
	nova_job_set_owner(job, text_of(args, "owner"));
	job->slot = slot;
	dest = dest_of(job);
	if (!dest) {
		nova_job_free(job);
		return nova_error_sys(err, ENOMEM, "reservation");
	}
	dest->incoming = incoming;
	incoming->job = job;
	if (nova_job_start(job, dest_steps, NULL, false, err) < 0)
		return -1;
	dest->reserve = request;
	return 0;
}

/* Every reservation that is asked for is on record, and what became of it. */
static int on_reserve(struct nova_incoming *incoming, json_t *args, struct nova_request *request, struct nova_error *err)
{
	struct nova_identity who = { .role = NOVA_ROLE_NONE };
	int result = reserve(incoming, args, request, err);
	json_t *record = json_pack("{s:s, s:s, s:s, s:s, s:s}", "decision", "reserve", "guest", text_of(args, "guest"), "owner",
	    text_of(args, "owner"), "mode", text_of(args, "mode"), "outcome",
	    result < 0 ? nova_category_name(err->category) : "accepted");

	if (result < 0)
		json_object_set_new(record, "error", json_string(err->text));
	snprintf(who.name, sizeof(who.name), "peer %s", incoming->peer);
	snprintf(who.from, sizeof(who.from), "tls %.100s", incoming->ops->from(incoming->session));
	nova_host_audit(incoming->host, &who, record);
	return result;
}

static struct dest *dest_for(struct nova_incoming *incoming, const json_t *args, struct nova_error *err)
{
	struct nova_job *job = incoming->job;

	if (job && !strcmp(job->token, text_of(args, "token")))
		return job->ctx;
	nova_error_set(err, NOVA_REFUSED, "there is no reservation for this migration on %s",
	    nova_host_name(incoming->host));
	return NULL;
}

static int on_commit(struct nova_incoming *incoming, json_t *args, struct nova_request *request, struct nova_error *err)
{
	struct dest *dest = dest_for(incoming, args, err);

	if (!dest)
		return -1;
	if (dest->commit || !dest->job->run || nova_run_undoing(dest->job->run))
		return nova_error_set(err, NOVA_REFUSED, "%s has given this migration up", nova_host_name(incoming->host));
	dest->commit_args = json_incref(args);
	dest->commit = request;
	look(dest);
	return 0;
}

static int on_abort(struct nova_incoming *incoming, json_t *args, struct nova_request *request, struct nova_error *err)
{
	struct nova_error why, ignored;
	struct dest *dest = dest_for(incoming, args, &ignored);

	if (!dest) { /* nothing is reserved: that is what was asked for */
		incoming->ops->answer(request, NULL, NULL);
		return 0;
	}
	nova_error_set(&why, NOVA_CANCELLED, "the source gave up");
	if (!nova_run_undoing(dest->job->run) && nova_run_cancel(dest->job->run, &why, err) < 0)
		return -1;
	dest->abort = request;
	return 0;
}

static int belongs_to(void *peer, const struct nova_job_row *row)
{
	return row->peer && !strcmp(row->peer, peer) && row->side && !strcmp(row->side, "destination") ? -2 : 0;
}

/* Nothing was decided in a journal that has no line of this migration: another journal may have known better. */
static int check_known(struct nova_incoming *incoming, const char *token, struct nova_error *err)
{
	int found = nova_store_job_find(incoming->host->store, NULL, token, belongs_to, incoming->peer, err);

	if (found == -2)
		return 0;
	return found < 0 ? -1 :
			   nova_error_set(err, NOVA_STATE,
			       "the journal of %s knows nothing of this migration from %s (it was renewed since?)",
			       nova_host_name(incoming->host), incoming->peer);
}

/* What was decided. Undecided becomes aborted before it is told, so that it stays true. */
static int on_outcome(struct nova_incoming *incoming, json_t *args, struct nova_request *request, struct nova_error *err)
{
	struct nova_host *host = incoming->host;
	const char *token = text_of(args, "token");
	struct nova_job *job = nova_job_by_token(host, "destination", token);
	enum nova_decision decision;
	struct nova_error why;

	if (strlen(token) != 32)
		return nova_error_set(err, NOVA_INVALID, "outcome: token must be 32 hexadecimal digits");
	if (nova_store_decision(host->store, token, &decision, err) < 0)
		return -1;
	if (decision == NOVA_UNDECIDED) {
		if (check_known(incoming, token, err) < 0)
			return -1;
		decision = NOVA_ABORTED;
		if (nova_store_decide(host->store, token, decision, err) < 0)
			return -1;
		nova_error_set(&why, NOVA_CANCELLED, "the source asked for the outcome before it was decided");
		if (job)
			give_up(job, &why);
	}
	incoming->ops->answer(request, json_pack("{s:s}", "decision", nova_decision_name(decision)), NULL);
	return 0;
}

/* No job is open for it: either the guest has all and runs, or it is gone. */
static int recover_ended(struct nova_incoming *incoming, json_t *args, struct nova_request *request, struct nova_error *err)
{
	struct nova_host *host = incoming->host;
	struct nova_entry *entry = nova_entry_find(host, text_of(args, "guest"));
	enum nova_decision decision;

	if (nova_store_decision(host->store, text_of(args, "token"), &decision, err) < 0)
		return -1;
	if (decision == NOVA_COMMITTED && entry && !strcmp(entry->uuid, text_of(args, "uuid")) &&
	    (entry->guest.state == NOVA_GUEST_RUNNING || entry->guest.state == NOVA_GUEST_PAUSED)) {
		incoming->ops->answer(request, json_pack("{s:b}", "complete", 1), NULL);
		return 0;
	}
	return nova_error_set(err, NOVA_REFUSED, "guest %s ended on %s: the rest of it is of no use", text_of(args, "guest"),
	    nova_host_name(host));
}

/* A postcopy lost its stream; over this session comes the rest. */
static int on_recover(struct nova_incoming *incoming, json_t *args, struct nova_request *request, struct nova_error *err)
{
	struct nova_job *job = nova_job_by_token(incoming->host, "destination", text_of(args, "token"));
	struct dest *dest = job ? job->ctx : NULL;

	if (!job)
		return recover_ended(incoming, args, request, err);
	if (strcmp(job->peer, incoming->peer) || (incoming->job && incoming->job != job))
		return nova_error_set(err, NOVA_INVALID, "recover: this migration is not one of this session's");
	if (!row_is(job, "drain") || !dest->postcopy || dest->recover)
		return nova_error_set(err, NOVA_STATE, "guest %s is not ready for its rest yet", job->guest_name);
	if (dest->incoming)
		dest->incoming->job = NULL; /* the old session, which has not noticed */
	dest->incoming = incoming;
	incoming->job = job;
	if (prepare_for_rest(dest, err) < 0)
		return -1;
	dest->recover = request;
	return 0;
}

static int on_about(struct nova_incoming *incoming, json_t *args, struct nova_request *request, struct nova_error *err)
{
	struct nova_host *host = incoming->host;
	json_t *drivers = json_array();

	for (size_t i = 0; i < host->slot_count; i++)
		if (host->slots[i].self)
			json_array_append_new(drivers, json_string(host->slots[i].ops->name));
	incoming->ops->answer(request,
	    json_pack("{s:s, s:s, s:s, s:o}", "name", nova_host_name(host), "version", PACKAGE_VERSION, "uuid",
		nova_store_host_uuid(host->store), "drivers", drivers),
	    NULL);
	return 0;
}

static void incoming_free(struct nova_incoming *incoming);

static void remote_lost(void *arg)
{
	incoming_free(arg);
}

/* A command, by whoever the certificate says: a peer has no role unless the configuration gives it one. */
static int on_remote(struct nova_incoming *incoming, const char *command, json_t *args, struct nova_request *request,
    struct nova_error *err)
{
	if (incoming->job)
		return nova_error_set(err, NOVA_STATE, "this session carries a migration: commands take another one");
	if (!incoming->remote)
		incoming->remote = nova_remote_new(incoming->host, incoming->session, incoming->peer, remote_lost, incoming);
	if (!incoming->remote)
		return nova_error_sys(err, ENOMEM, "commands of %s", incoming->ops->from(incoming->session));
	return nova_remote_request(incoming->remote, command, args, request, err);
}

static const struct {
	const char *name;
	request_fn fn;
} requests[] = {
	{ "about", on_about },
	{ "reserve", on_reserve },
	{ "commit", on_commit },
	{ "abort", on_abort },
	{ "outcome", on_outcome },
	{ "recover", on_recover },
};

/* ---- sessions ---- */

static void session_up(void *arg, const char *peer)
{
}

static void session_request(void *arg, const char *command, json_t *args, struct nova_request *request)
{
	struct nova_incoming *incoming = arg;
	struct nova_error err;

	if (!strcmp(command, "execute") || !strcmp(command, "events")) {
		if (on_remote(incoming, command, args, request, &err) < 0)
			incoming->ops->answer(request, NULL, &err);
		return;
	}
	nova_error_set(&err, NOVA_INVALID, "%s does not know the request '%.40s'", nova_host_name(incoming->host), command);
	if (!incoming->peer[0])
		nova_error_set(&err, NOVA_REFUSED, "%.40s is for hosts that are peers of %s", command,
		    nova_host_name(incoming->host));
	for (size_t i = 0; i < sizeof(requests) / sizeof(*requests) && incoming->peer[0]; i++)
		if (!strcmp(requests[i].name, command)) {
			if (requests[i].fn(incoming, args, request, &err) < 0)
				break;
			return;
		}
	incoming->ops->answer(request, NULL, &err);
}

static void session_channel(void *arg, uint16_t id, enum nova_channel_kind kind, struct nova_channel *channel)
{
	struct nova_incoming *incoming = arg;
	struct dest *dest = incoming->job ? incoming->job->ctx : NULL;
	struct nova_error why;

	bool expected = dest && (row_is(incoming->job, "receive") || (row_is(incoming->job, "drain") && dest->path));

	if (id == NOVA_PROBE_CHANNEL && !incoming->job) {
		nova_probe_accept(incoming->ops, channel);
		return;
	}
	if (id == NOVA_BASELINE_CHANNEL && dest && row_is(incoming->job, "receive")) {
		nova_base_use_send(dest->base, channel);
		return;
	}
	if (kind == NOVA_CHANNEL_DISK && dest && dest->disks && row_is(incoming->job, "receive")) {
		if (nova_disks_in_channel(dest->disks, id, channel, &why) < 0)
			give_up(incoming->job, &why);
		return;
	}
	if (id != NOVA_STREAM_CHANNEL || !expected || dest->direct || dest->pipe || dest->decoder) {
		channel->ops->free(channel);
		return;
	}
	dest->channel = channel;
	if (open_pipe(dest, &why) < 0)
		give_up(incoming->job, &why);
}

static void session_state(void *arg, const char *state, json_t *data)
{
	struct nova_incoming *incoming = arg;

	nova_host_log(incoming->host, NOVA_LOG_INFO, "link from %s: %s",
	    incoming->peer[0] ? incoming->peer : incoming->ops->from(incoming->session), state);
}

static void incoming_free(struct nova_incoming *incoming)
{
	TAILQ_REMOVE(&incoming->host->incomings, incoming, link);
	nova_remote_free(incoming->remote);
	incoming->ops->free(incoming->session);
	free(incoming);
}

static void session_closed(void *arg, const struct nova_error *err)
{
	struct nova_incoming *incoming = arg;
	struct nova_job *job = incoming->job;
	struct nova_error why = *err;

	if (job) {
		struct dest *dest = job->ctx;

		nova_error_prefix(&why, "link from %s", incoming->peer);
		dest->incoming = NULL;
		if (row_is(job, "drain") && dest->loaded)
			nova_run_done(job->run);
		else if (row_is(job, "drain"))
			stream_lost(dest, &why);
		else
			give_up(job, &why);
	}
	incoming_free(incoming);
}

static const struct nova_session_events session_events = { session_up, session_request, session_channel, session_state,
	session_closed };

void nova_migrate_accept(void *arg, struct nova_session *session, const char *peer)
{
	struct nova_host *host = arg;
	struct nova_incoming *incoming = calloc(1, sizeof(*incoming));

	if (!incoming)
		return; /* without events the session is refused */
	incoming->host = host;
	incoming->ops = host->plugins->links;
	incoming->session = session;
	snprintf(incoming->peer, sizeof(incoming->peer), "%s", peer ? peer : "");
	TAILQ_INSERT_TAIL(&host->incomings, incoming, link);
	incoming->ops->set_events(session, &session_events, incoming);
}

void nova_incoming_close_all(struct nova_host *host)
{
	while (!TAILQ_EMPTY(&host->incomings))
		incoming_free(TAILQ_FIRST(&host->incomings));
}

/* ---- after a restart ---- */

int nova_dest_recover(struct nova_job *job, const char *step, struct nova_error *err)
{
	enum nova_decision decision;

	if (!dest_of(job))
		return nova_error_sys(err, ENOMEM, "migration of %s", job->guest_name);
	if (nova_store_decision(job->host->store, job->token, &decision, err) < 0)
		return -1;
	((struct dest *)job->ctx)->postcopy = json_is_true(json_object_get(job->args, "in-postcopy"));
	if (decision == NOVA_COMMITTED)
		return nova_job_start(job, dest_steps, "run", false, err);
	return nova_job_start(job, dest_steps, "receive", true, err);
}
