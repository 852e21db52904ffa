/* SPDX-License-Identifier: Apache-2.0
 *
 * failover.c - start a guest from its replica: `failover` at the standby, and the handover that it asks the guest's
 * host for when it is planned. See replicate.h.
 *
 * The guest's disks become overlays on the images of a point, so that the point stays as it is. Planned: the guest's
 * host shuts the guest down, makes its last point, and lets go; nothing is lost. Unplanned: the newest whole point, and
 * the fence-hook (FENCE-HOOK GUEST JOB PEER destination, as novacron resolve runs it) must make sure first that the old
 * side cannot run the guest. A test is a guest of another name without network, on overlays of its own: it is thrown
 * away like any guest, and its replica goes on meanwhile.
 *
 * That the guest was started here is in the journal before it is: from then on no point is taken from the old side, and
 * what runs there is told so when it comes.
 */
#include "replicate.h"

#include "child.h"
#include "cleanup.h"
#include "migrate.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FENCE_LIMIT_MS 60000

struct failover {
	struct nova_job *job;           /* borrowed */
	struct nova_session *session;   /* owned: to the guest's host */
	json_t *spec, *needs;           /* owned */
	size_t at;                      /* disk */
};

static struct nova_replica *replica_of(const struct nova_job *job)
{
	return nova_replica_by_token(job->host, nova_job_text(job, "token"));
}

static bool is_test(const struct nova_job *job)
{
	return json_is_true(json_object_get(job->args, "test"));
}

static bool is_planned(const struct nova_job *job)
{
	return json_is_true(json_object_get(job->args, "planned"));
}

static enum nova_step_result no_replica(const struct nova_job *job, struct nova_error *err)
{
	nova_error_set(err, NOVA_STATE, "the replica of guest %s is gone", nova_job_text(job, "replica"));
	return NOVA_STEP_FAILED;
}

static void row_over(struct nova_job *job, const struct nova_error *err)
{
	if (err)
		nova_run_fail(job->run, err);
	else
		nova_run_done(job->run);
}

/* ---- handover: the guest's host makes the last point ---- */

static void handed_over(void *arg, json_t *result, const struct nova_error *err)
{
	struct nova_job *job = arg;
	struct nova_error why;

	job->op = NULL;
	if (!err) {
		json_object_set(job->args, "point", json_object_get(result, "point"));
		json_object_set_new(job->report, "handed_over", json_true());
		row_over(job, NULL);
		return;
	}
	why = *err;
	nova_error_prefix(&why, "%s", job->peer);
	row_over(job, &why);
}

static void session_up(void *arg, const char *peer)
{
	struct nova_job *job = arg;
	struct failover *failover = job->ctx;
	NOVA_AUTOJSON json_t *args = json_pack("{s:O, s:s, s:O*}", "token", json_object_get(job->args, "token"), "guest",
	    nova_job_text(job, "replica"), "timeout_ms", json_object_get(job->args, "stop-timeout"));
	struct nova_error err;

	job->op = job->host->plugins->links->request(
	    failover->session, "replica-handover", args, NOVA_REPLICA_HANDOVER_MS, handed_over, job, &err);
	if (!job->op)
		row_over(job, &err);
}

static void session_request(void *arg, const char *command, json_t *args, struct nova_request *request)
{
	struct nova_error err;

	nova_error_set(&err, NOVA_INVALID, "a fail-over does not know the request '%.40s'", command);
	((struct nova_job *)arg)->host->plugins->links->answer(request, NULL, &err);
}

static void session_channel(void *arg, uint16_t id, enum nova_channel_kind kind, struct nova_channel *channel)
{
	channel->ops->free(channel);
}

static void session_state(void *arg, const char *state, json_t *data)
{
}

static void session_closed(void *arg, const struct nova_error *err)
{
	struct nova_job *job = arg;
	struct failover *failover = job->ctx;
	struct nova_error why = *err, ignored;

	nova_error_prefix(&why, "link to %s", job->peer);
	failover->session = job->host->plugins->links->free(failover->session);
	nova_run_cancel(job->run, &why, &ignored);
}

static const struct nova_session_events session_events = { session_up, session_request, session_channel, session_state,
	session_closed };

static enum nova_step_result run_handover(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct nova_job *job = ctx;
	struct failover *failover = job->ctx;
	const struct nova_session_options options = {
		.resume_limit_ms = (int)nova_config_int(job->host->config, "resume-limit"),
	};

	if (!is_planned(job))
		return NOVA_STEP_DONE;
	failover->session = job->host->links ? job->host->plugins->links->dial(
						   job->host->links, job->peer, &options, &session_events, job, err) :
					       NULL;
	return failover->session ? NOVA_STEP_WAIT : NOVA_STEP_FAILED;
}

static enum nova_step_result undo_handover(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct nova_job *job = ctx;
	struct failover *failover = job->ctx;

	if (failover->session)
		failover->session = job->host->plugins->links->free(failover->session);
	return NOVA_STEP_DONE;
}

static enum nova_step_result run_let_go(struct nova_run *run, void *ctx, struct nova_error *err)
{
	return undo_handover(run, ctx, err);
}

/* ---- fence ---- */

static void fenced(void *arg, json_t *result, const struct nova_error *failure)
{
	struct nova_job *job = arg;
	const char *hook = nova_config_text(job->host->config, "fence-hook");
	struct nova_error err;

	job->op = NULL;
	if (failure)
		err = *failure;
	if (!failure && nova_child_check(hook, result, &err) == 0) {
		json_object_set_new(job->report, "fence", json_string("the fence-hook succeeded"));
		row_over(job, NULL);
		return;
	}
	err.category = NOVA_REFUSED;
	nova_error_prefix(&err, "guest %s is not started: the fence-hook failed", nova_job_text(job, "replica"));
	row_over(job, &err);
}

static enum nova_step_result run_fence(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct nova_job *job = ctx;
	const char *hook = nova_config_text(job->host->config, "fence-hook");
	const char *const argv[] = { hook, nova_job_text(job, "replica"), job->id, job->peer, "destination", NULL };
	const struct nova_child_options options = { .limit_ms = FENCE_LIMIT_MS };

	if (is_test(job) || is_planned(job))
		return NOVA_STEP_DONE;
	json_object_set_new(job->report, "fence", json_string("none: nothing but you made sure that the other side does not run it"));
	if (!hook[0])
		return NOVA_STEP_DONE;
	job->op = nova_child_run(job->host->base, argv, &options, fenced, job, err);
	return job->op ? NOVA_STEP_WAIT : NOVA_STEP_FAILED;
}

/* ---- rest: a merge of old points is waited for; no other begins while this job is there ---- */

static void images_rest(void *arg, json_t *result, const struct nova_error *err)
{
	struct nova_job *job = arg;

	job->op = NULL;
	/* The guest is needed more than old points are: "hold" breaks the merge off, and it is done again some day. */
	if (err && !is_test(job))
		nova_host_log(job->host, NOVA_LOG_WARNING, "fail-over of %s: %s", job->guest_name, err->text);
	row_over(job, is_test(job) ? err : NULL);
}

static enum nova_step_result run_rest(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct nova_job *job = ctx;
	struct nova_replica *replica = replica_of(job);

	if (!replica)
		return no_replica(job, err);
	job->op = nova_replica_wait(replica, NOVA_REPLICA_MERGE_MS, images_rest, job, err);
	return job->op ? NOVA_STEP_WAIT : NOVA_STEP_FAILED;
}

/* ---- hold: the journal says it before it is so ---- */

static enum nova_step_result run_hold(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct nova_job *job = ctx;
	struct nova_replica *replica = replica_of(job);
	json_t *point, *before;
	bool made;

	if (!replica)
		return no_replica(job, err);
	point = nova_replica_point(replica, nova_job_int(job, "point"));
	if (!point) {
		nova_error_set(err, NOVA_STATE, "point %lld of guest %s is gone", (long long)nova_job_int(job, "point"), replica->guest);
		return NOVA_STEP_FAILED;
	}
	if (!is_test(job))
		nova_reception_drop(replica);
	json_object_set(job->report, "point", point);
	made = json_object_set(job->args, "point", json_object_get(point, "id")) == 0;
	before = nova_replica_change(replica, err);
	if (!before)
		return NOVA_STEP_FAILED;
	made = made && json_object_set(json_object_get(replica->body, "holds"), job->guest_name, json_object_get(job->args, "point")) == 0 &&
	       (is_test(job) || json_object_set_new(replica->body, "state", json_string("failed-over")) == 0);
	return nova_replica_changed(replica, before, made, err) < 0 ? NOVA_STEP_FAILED : NOVA_STEP_DONE;
}

/* Also where the journal cannot say so now: the guest's host must not hear that the guest was started here. */
static enum nova_step_result undo_hold(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct nova_job *job = ctx;
	struct nova_replica *replica = replica_of(job);

	if (!replica)
		return NOVA_STEP_DONE;
	json_object_del(json_object_get(replica->body, "holds"), job->guest_name);
	if (!is_test(job) && json_object_set_new(replica->body, "state", json_string("standby")) < 0) {
		nova_error_sys(err, ENOMEM, "replica of guest %s", replica->guest);
		return NOVA_STEP_FAILED;
	}
	if (nova_replica_save(replica, err) < 0) {
		nova_host_log(job->host, NOVA_LOG_ERROR, "%s: that replica of %s can be started again is written down later: %s", job->id,
		    replica->guest, err->text);
		nova_debt_replica(replica);
	}
	return NOVA_STEP_DONE;
}

/* ---- images ---- */

static json_t *image_of(const struct nova_job *job, const struct nova_replica *replica, size_t i)
{
	return json_sprintf("%s/%s.%s.qcow2", nova_replica_text(replica, "directory"), job->guest_name,
	    json_string_value(json_object_get(json_array_get(json_object_get(replica->body, "disks"), i), "disk")));
}

static enum nova_step_result image_next(struct nova_job *job, struct nova_error *err);

static void image_made(void *arg, json_t *result, const struct nova_error *err)
{
	struct nova_job *job = arg;
	struct failover *failover = job->ctx;
	enum nova_step_result next;
	struct nova_error why;

	job->op = NULL;
	if (err) {
		why = *err;
		row_over(job, &why);
		return;
	}
	failover->at++;
	next = image_next(job, &why);
	if (next != NOVA_STEP_WAIT)
		row_over(job, next == NOVA_STEP_FAILED ? &why : NULL);
}

static enum nova_step_result image_next(struct nova_job *job, struct nova_error *err)
{
	struct failover *failover = job->ctx;
	struct nova_replica *replica = replica_of(job);
	const json_t *files;
	const json_t *disk = replica ? json_array_get(json_object_get(replica->body, "disks"), failover->at) : NULL;
	json_t *args;

	if (!replica)
		return no_replica(job, err);
	if (!disk)
		return NOVA_STEP_DONE;
	/* Where its images are now: a point that is held is not merged. */
	files = json_object_get(nova_replica_point(replica, nova_job_int(job, "point")), "files");
	args = json_pack("{s:o, s:O, s:O, s:b}", "path", image_of(job, replica, failover->at), "size", json_object_get(disk, "size"),
	    "backing", json_array_get(files, failover->at), "for_guest", 1);
	job->op = nova_slot_call(job->slot, NOVA_VERB_REPLICA_MAKE, NULL, args, image_made, job, err);
	json_decref(args);
	return job->op ? NOVA_STEP_WAIT : NOVA_STEP_FAILED;
}

static enum nova_step_result run_images(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct nova_job *job = ctx;

	((struct failover *)job->ctx)->at = 0;
	return image_next(job, err);
}

static enum nova_step_result undo_images(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct nova_job *job = ctx;
	struct nova_replica *replica = replica_of(job);

	for (size_t i = 0; replica && i < json_array_size(json_object_get(replica->body, "disks")); i++) {
		NOVA_AUTOJSON json_t *path = image_of(job, replica, i);

		unlink(json_string_value(path));
	}
	return NOVA_STEP_DONE;
}

/* ---- check, admit ---- */

/* As the guest's host had it, with the disks that are here. */
static json_t *spec_of(const struct nova_job *job, const struct nova_replica *replica)
{
	json_t *spec = json_deep_copy(json_object_get(replica->body, "spec")), *disk;
	size_t i;

	json_array_foreach (json_object_get(replica->body, "disks"), i, disk) {
		unsigned number = 0;
		json_t *own;

		sscanf(json_string_value(json_object_get(disk, "disk")), "disk%u", &number);
		own = json_array_get(json_object_get(spec, "disk"), number);
		json_object_del(own, "carried");
		json_object_set_new(own, "path", image_of(job, replica, i));
		json_object_set_new(own, "format", json_string("qcow2"));
		json_object_set_new(own, "owned", json_true());
	}
	if (is_test(job))
		json_object_del(spec, "net");
	return spec;
}

static enum nova_step_result checked(struct nova_job *job, json_t *result, struct nova_error *err)
{
	struct failover *failover = job->ctx;

	json_decref(failover->spec);
	failover->spec = json_incref(json_object_get(result, "spec"));
	failover->needs = json_incref(json_object_get(result, "needs"));
	return NOVA_STEP_DONE;
}

static enum nova_step_result run_check(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct nova_job *job = ctx;
	struct failover *failover = job->ctx;
	struct nova_replica *replica = replica_of(job);

	if (!replica)
		return no_replica(job, err);
	failover->spec = spec_of(job, replica);
	return nova_job_call_then(job, NOVA_VERB_CHECK, json_pack("{s:O, s:b}", "spec", failover->spec, "incoming", 1), checked, err);
}

/* What stayed here when the guest went: the same guest, which ran elsewhere since. Its disks are left where they are. */
static int replace_stale(struct nova_job *job, const char *uuid, struct nova_error *err)
{
	struct nova_entry *old = nova_entry_find(job->host, job->guest_name);

	if (!old)
		return 0;
	if (strcmp(old->uuid, uuid) || (old->job && old->job != job) ||
	    !nova_entry_at_rest(old))
		return nova_error_set(err, NOVA_STATE, "there is a guest %s on %s already", job->guest_name, nova_host_name(job->host));
	json_object_set(job->report, "replaced", json_object_get(old->guest.spec, "disk"));
	return nova_entry_forget(old, err);
}

static enum nova_step_result run_admit(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct nova_job *job = ctx;
	struct failover *failover = job->ctx;
	struct nova_replica *replica = replica_of(job);
	char uuid[37];

	if (!replica)
		return no_replica(job, err);
	nova_uuid_new(uuid);
	if (!is_test(job))
		snprintf(uuid, sizeof(uuid), "%s", nova_replica_text(replica, "uuid"));
	if (nova_admit_guest(job->host, job->guest_name, job->owner, failover->needs, err) < 0 ||
	    replace_stale(job, uuid, err) < 0)
		return NOVA_STEP_FAILED;
	json_object_set_new(job->args, "admitted", json_true());
	if (nova_job_save(job, "admit", false, err) < 0)
		return NOVA_STEP_FAILED;
	job->entry = nova_entry_new(
	    job->host, job->slot, job->guest_name, uuid, replica->owner, failover->spec, failover->needs, err);
	if (!job->entry)
		return NOVA_STEP_FAILED;
	job->entry->job = job;
	return nova_entry_save(job->entry, err) < 0 ? NOVA_STEP_FAILED : NOVA_STEP_DONE;
}

/* Or one that was left here, and is not touched? */
static bool is_ours(const struct nova_job *job)
{
	return job->entry && json_is_true(json_object_get(job->args, "admitted"));
}

static enum nova_step_result undo_admit(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct nova_job *job = ctx;

	return is_ours(job) && nova_entry_forget(job->entry, err) < 0 ? NOVA_STEP_FAILED : NOVA_STEP_DONE;
}

/* ---- create, start ---- */

static enum nova_step_result run_create(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct nova_job *job = ctx;

	return nova_job_call(
	    job, NOVA_VERB_CREATE, json_pack("{s:O, s:b}", "spec", job->entry->guest.spec, "existing", 1), err);
}

static enum nova_step_result undo_create(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct nova_job *job = ctx;

	if (!is_ours(job))
		return NOVA_STEP_DONE;
	return nova_job_call(job, NOVA_VERB_DELETE, json_pack("{s:b, s:b}", "keep_disks", 1, "force", 1), err);
}

static enum nova_step_result run_start(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct nova_job *job = ctx;
	const struct nova_replicate *replicate = nova_replicate_find(job->host, job->guest_name);

	/* Nobody has told us yet that the peer had started it: when it does, that is over. */
	if (replicate && !is_test(job) && replicate->state != NOVA_REPLICATE_HANDED_OVER)
		nova_replicate_came_back(job->host, job->guest_name, job->peer);
	if (job->entry && job->entry->guest.state == NOVA_GUEST_RUNNING) /* before a restart */
		return NOVA_STEP_DONE;
	return nova_job_call(ctx, NOVA_VERB_START, json_object(), err);
}

static enum nova_step_result undo_start(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct nova_job *job = ctx;

	if (!is_ours(job) || job->entry->guest.state == NOVA_GUEST_STOPPED)
		return NOVA_STEP_DONE;
	return nova_job_call(job, NOVA_VERB_STOP, json_pack("{s:b}", "force", 1), err);
}

static enum nova_step_result run_tell(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct nova_job *job = ctx;
	struct nova_replicate *replicate = nova_replicate_find(job->host, job->guest_name);

	/* It came back: what was replicated from here before is of no use any more. */
	if (replicate && !is_test(job) && replicate->state == NOVA_REPLICATE_HANDED_OVER)
		nova_replicate_delete(replicate, err);
	nova_host_emit(job->host, "FAILOVER",
	    json_pack("{s:s, s:s, s:s, s:s, s:O, s:b, s:b}", "job", job->id, "guest", job->guest_name, "owner", job->owner, "peer",
		job->peer, "point", json_object_get(job->args, "point"), "planned", is_planned(job), "test", is_test(job)));
	return NOVA_STEP_DONE;
}

/* A restarted daemon undoes it, from "start" on it goes on with it. */
const struct nova_step nova_failover_steps[] = {
	/* what        how           take it back   stop waiting      limit_ms */
	{ "handover",  run_handover, undo_handover, nova_job_drop_op, NOVA_REPLICA_HANDOVER_MS },
	{ "let go",    run_let_go,   NULL },
	{ "fence",     run_fence,    NULL,          nova_job_drop_op },
	{ "rest",      run_rest,     NULL,          nova_job_drop_op },
	{ "hold",      run_hold,     undo_hold },
	{ "images",    run_images,   undo_images,   nova_job_drop_op, 60000 },
	{ "check",     run_check,    NULL,          nova_job_drop_op, 30000 },
	{ "admit",     run_admit,    undo_admit },
	{ "create",    run_create,   undo_create,   nova_job_drop_op, 60000 },
	{ "start",     run_start,    undo_start,    nova_job_drop_op, 60000 },
	{ "tell",      run_tell,     NULL },
	{ NULL },
};

/* ---- the command ---- */

static void failover_free(struct nova_job *job)
{
	struct failover *failover = job->ctx;
	struct nova_replica *replica = replica_of(job);

	if (replica && replica->job == job)
		replica->job = NULL;
	if (failover->session)
		job->host->plugins->links->free(failover->session);
	json_decref(failover->spec);
	json_decref(failover->needs);
	free(failover);
}

int nova_failover_attach(struct nova_job *job, struct nova_error *err)
{
	struct failover *failover = calloc(1, sizeof(*failover));
	struct nova_replica *replica = replica_of(job);

	if (!failover)
		return nova_error_sys(err, ENOMEM, "fail-over of %s", job->guest_name);
	failover->job = job;
	job->ctx = failover;
	job->free_ctx = failover_free;
	if (replica) {
		replica->job = job;
		job->slot = replica->slot;
	}
	return 0;
}

static int check_failover(struct nova_host *host, struct nova_replica *replica, const json_t *args, struct nova_error *err)
{
	bool test = json_is_true(json_object_get(args, "test")), planned = json_is_true(json_object_get(args, "planned"));
	json_int_t point = json_integer_value(json_object_get(args, "point"));
	const struct nova_entry *entry = nova_entry_find(host, replica->guest);

	if (test && planned)
		return nova_error_set(err, NOVA_INVALID, "a test leaves the guest where it runs: it is not planned");
	if (planned && point)
		return nova_error_set(err, NOVA_INVALID, "a planned fail-over makes a last point, and starts from that one");
	if (replica->job)
		return nova_error_set(err, NOVA_STATE, "%s starts guest %s from this replica already", replica->job->id, replica->guest);
	if (!test && strcmp(nova_replica_text(replica, "state"), "standby"))
		return nova_error_set(err, NOVA_STATE, "guest %s was started from this replica already", replica->guest);
	if (!nova_replica_point(replica, point) && point)
		return nova_error_set(err, NOVA_INVALID, "there is no point %lld of guest %s: see novacron replicate show %s",
		    (long long)point, replica->guest, replica->guest);
	if (!nova_replica_point(replica, 0) && !planned)
		return nova_error_set(err, NOVA_STATE, "no point of guest %s is whole yet", replica->guest);
	if (!test && entry && !nova_entry_at_rest(entry))
		return nova_error_set(err, NOVA_STATE, "there is a guest %s on %s already", replica->guest, nova_host_name(host));
	return 0;
}

struct nova_op *nova_cmd_failover(struct nova_host *host, const struct nova_identity *who, json_t *args, nova_done_fn done,
    void *arg, struct nova_error *err)
{
	const char *guest = json_string_value(json_object_get(args, "guest"));
	struct nova_replica *replica = nova_replica_find(host, guest);
	bool test = json_is_true(json_object_get(args, "test"));
	char name[NOVA_NAME_MAX + 1];
	struct nova_job *job;

	if (!replica || !nova_entry_visible(host, who, replica->owner)) {
		nova_error_set(err, NOVA_INVALID, "there is no replica of a guest '%.60s' on %s: see novacron replicate list", guest,
		    nova_host_name(host));
		return NULL;
	}
	if (check_failover(host, replica, args, err) < 0)
		return NULL;
	snprintf(name, sizeof(name), test ? "%.58s-test" : "%s", guest);
	if (test && nova_entry_find(host, name)) {
		nova_error_set(err, NOVA_STATE, "there is a guest %s already: throw it away first (novacron delete %s --force)", name, name);
		return NULL;
	}
	job = nova_job_new(host, "failover", "local", who, name, args, err);
	if (!job)
		return NULL;
	snprintf(job->peer, sizeof(job->peer), "%s", replica->peer);
	json_object_set_new(job->args, "token", json_string(replica->token));
	json_object_set_new(job->args, "replica", json_string(replica->guest));
	nova_job_set_owner(job, replica->owner);
	if (nova_failover_attach(job, err) < 0) {
		nova_job_free(job);
		return NULL;
	}
	if (nova_job_start(job, nova_failover_steps, NULL, false, err) < 0)
		return NULL;
	return nova_op_later(
	    host->base, json_pack("{s:s, s:s, s:s}", "job", job->id, "guest", job->guest_name, "peer", job->peer), NULL, done, arg, err);
}

/* ---- failback ---- */

struct nova_op *nova_cmd_failback(struct nova_host *host, const struct nova_identity *who, json_t *args, nova_done_fn done,
    void *arg, struct nova_error *err)
{
	const char *guest = json_string_value(json_object_get(args, "guest"));
	struct nova_replica *replica = nova_replica_find(host, guest);
	NOVA_AUTOJSON json_t *wanted = json_deep_copy(args);
	json_t *result;

	if (!replica || !nova_entry_visible(host, who, replica->owner) ||
	    strcmp(nova_replica_text(replica, "state"), "failed-over")) {
		nova_error_set(err, NOVA_INVALID, "guest '%.60s' was not started from a replica on %s: see novacron replicate list", guest,
		    nova_host_name(host));
		return NULL;
	}
	json_object_set_new(wanted, "to", json_string(replica->peer));
	if (!json_object_get(wanted, "every"))
		json_object_set(wanted, "every", json_object_get(replica->body, "every_ms"));
	if (!json_object_get(wanted, "keep"))
		json_object_set(wanted, "keep", json_object_get(replica->body, "keep"));
	result = nova_replicate_create(host, who, guest, wanted, err);
	return result ? nova_op_later(host->base, result, NULL, done, arg, err) : NULL;
}
