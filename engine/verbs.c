/* SPDX-License-Identifier: Apache-2.0
 *
 * verbs.c - the local operations on guests: create, delete, adopt, and the verbs that are one call of the
 * driver. Each is a table of rows run as a job.
 */
#include "cleanup.h"
#include "host.h"

#include <stdio.h>
#include <string.h>

/* ---- rows shared by create and adopt ---- */

static enum nova_step_result take_spec(struct nova_job *job, json_t *result, struct nova_error *err)
{
	json_t *spec = json_object_get(result, "spec"), *needs = json_object_get(result, "needs");

	if (!json_is_object(spec)) {
		nova_error_set(err, NOVA_REFUSED, "driver %s answered without a specification", job->slot->ops->name);
		return NOVA_STEP_FAILED;
	}
	json_object_set(job->args, "spec", spec);
	if (json_is_object(needs))
		json_object_set(job->args, "needs", needs);
	return NOVA_STEP_DONE;
}

static enum nova_step_result run_check(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct nova_job *job = ctx;

	return nova_job_call_then(
	    job, NOVA_VERB_CHECK, json_pack("{s:O}", "spec", json_object_get(job->args, "spec")), take_spec, err);
}

static const char *owner_of(const struct nova_job *job)
{
	const char *owner = json_string_value(json_object_get(job->args, "owner"));

	return owner ? owner : job->who.name;
}

static enum nova_step_result run_admit(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct nova_job *job = ctx;
	json_t *needs = json_object_get(job->args, "needs");
	char uuid[37];

	nova_uuid_new(uuid);
	if (nova_entry_find(job->host, job->guest_name)) {
		nova_error_set(err, NOVA_STATE, "there is a guest %s on %s already", job->guest_name,
		    nova_host_name(job->host));
		return NOVA_STEP_FAILED;
	}
	if (nova_admit_guest(job->host, job->guest_name, needs, err) < 0)
		return NOVA_STEP_FAILED;
	job->entry = nova_entry_new(job->host, job->slot, job->guest_name, uuid, owner_of(job),
	    json_object_get(job->args, "spec"), needs, err);
	if (!job->entry)
		return NOVA_STEP_FAILED;
	job->entry->job = job;
	return nova_entry_save(job->entry, err) < 0 ? NOVA_STEP_FAILED : NOVA_STEP_DONE;
}

static enum nova_step_result undo_admit(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct nova_job *job = ctx;

	if (!job->entry)
		return NOVA_STEP_DONE;
	return nova_entry_forget(job->entry, err) < 0 ? NOVA_STEP_FAILED : NOVA_STEP_DONE;
}

/* ---- create ---- */

static enum nova_step_result run_create(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct nova_job *job = ctx;

	return nova_job_call(
	    job, NOVA_VERB_CREATE, json_pack("{s:O}", "spec", json_object_get(job->args, "spec")), err);
}

/* Disks that were there before stay: the driver knows which it made. */
static enum nova_step_result undo_create(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct nova_job *job = ctx;

	if (!job->entry)
		return NOVA_STEP_DONE;
	return nova_job_call(job, NOVA_VERB_DELETE, json_pack("{s:b, s:b}", "keep_disks", 0, "created_only", 1), err);
}

static enum nova_step_result run_created(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct nova_job *job = ctx;

	job->result = nova_entry_json(job->entry, true);
	return nova_entry_save(job->entry, err) < 0 ? NOVA_STEP_FAILED : NOVA_STEP_DONE;
}

const struct nova_step nova_create_steps[] = {
	/* what       how           take it back  stop waiting       limit_ms */
	{ "check",    run_check,    NULL,         nova_job_drop_op,  30000 },
	{ "admit",    run_admit,    undo_admit },
	{ "create",   run_create,   undo_create,  nova_job_drop_op,  600000 },
	{ "created",  run_created },
	{ NULL },
};

struct nova_op *nova_cmd_create(struct nova_host *host, const struct nova_identity *who, json_t *args,
    nova_done_fn done, void *arg, struct nova_error *err)
{
	const char *name = json_string_value(json_object_get(args, "guest"));
	const char *driver = json_string_value(json_object_get(args, "driver"));
	struct nova_slot *slot = nova_slot_find(host, driver, err);
	struct nova_job *job;
	json_t *spec;

	if (!slot || nova_guest_name_check(name, err) < 0)
		return NULL;
	spec = nova_params_fill(slot->ops->spec_params, json_object_get(args, "spec"), driver, err);
	if (!spec)
		return NULL;
	if (nova_entry_find(host, name)) {
		json_decref(spec);
		nova_error_set(err, NOVA_STATE, "there is a guest %s on %s already", name, nova_host_name(host));
		return NULL;
	}
	job = nova_job_new(host, "create", "local", who, name, args, err);
	if (!job) {
		json_decref(spec);
		return NULL;
	}
	json_object_set_new(job->args, "spec", spec);
	job->slot = slot;
	if (nova_job_start(job, nova_create_steps, NULL, false, err) < 0)
		return NULL;
	return nova_job_wait(job, done, arg, err);
}

/* ---- adopt: take over a running one ---- */

static enum nova_step_result adopted(struct nova_job *job, json_t *result, struct nova_error *err)
{
	json_t *spec = json_object_get(result, "spec");

	if (json_is_object(spec))
		nova_entry_set_spec(job->entry, spec);
	if (json_is_object(json_object_get(result, "needs"))) {
		json_decref(job->entry->needs);
		job->entry->needs = json_deep_copy(json_object_get(result, "needs"));
	}
	job->result = nova_entry_json(job->entry, true);
	return nova_entry_save(job->entry, err) < 0 ? NOVA_STEP_FAILED : NOVA_STEP_DONE;
}

static enum nova_step_result run_adopt(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct nova_job *job = ctx;

	return nova_job_call_then(job, NOVA_VERB_ADOPT, json_incref(job->args), adopted, err);
}

const struct nova_step nova_adopt_steps[] = {
	{ "admit", run_admit, undo_admit },
	{ "adopt", run_adopt, NULL, nova_job_drop_op, 30000 },
	{ NULL },
};

struct nova_op *nova_cmd_adopt(struct nova_host *host, const struct nova_identity *who, json_t *args,
    nova_done_fn done, void *arg, struct nova_error *err)
{
	const char *name = json_string_value(json_object_get(args, "guest"));
	struct nova_slot *slot = nova_slot_find(host, json_string_value(json_object_get(args, "driver")), err);
	struct nova_job *job;

	if (!slot || nova_guest_name_check(name, err) < 0)
		return NULL;
	job = nova_job_new(host, "adopt", "local", who, name, args, err);
	if (!job)
		return NULL;
	if (!json_object_get(job->args, "spec"))
		json_object_set_new(job->args, "spec", json_object());
	job->slot = slot;
	if (nova_job_start(job, nova_adopt_steps, NULL, false, err) < 0)
		return NULL;
	return nova_job_wait(job, done, arg, err);
}

/* ---- verbs that are one call ---- */

#define STATE(s) (1u << NOVA_GUEST_##s)

static const struct {
	enum nova_verb verb;
	unsigned states; /* where it makes sense */
	const char *hint;
} verb_rules[] = {
	{ NOVA_VERB_START, STATE(STOPPED) | STATE(FAILED), "it can be started when it is stopped" },
	{ NOVA_VERB_STOP, STATE(RUNNING) | STATE(PAUSED) | STATE(STARTING) | STATE(FAILED),
	    "it can be stopped when it is running or paused" },
	{ NOVA_VERB_PAUSE, STATE(RUNNING), "it can be paused when it is running" },
	{ NOVA_VERB_RESUME, STATE(PAUSED), "it can be resumed when it is paused" },
	{ NOVA_VERB_SNAPSHOT, STATE(RUNNING) | STATE(PAUSED) | STATE(STOPPED), "not in this state" },
	{ NOVA_VERB_RESTORE, STATE(RUNNING) | STATE(PAUSED) | STATE(STOPPED), "not in this state" },
	{ NOVA_VERB_RESIZE, STATE(RUNNING) | STATE(PAUSED) | STATE(STOPPED), "not in this state" },
};

static int check_state(const struct nova_entry *entry, enum nova_verb verb, struct nova_error *err)
{
	for (size_t i = 0; i < sizeof(verb_rules) / sizeof(*verb_rules); i++) {
		if (verb_rules[i].verb != verb || verb_rules[i].states & 1u << entry->guest.state)
			continue;
		return nova_error_set(err, NOVA_STATE, "guest %s is %s: %s", entry->name,
		    nova_guest_state_name(entry->guest.state), verb_rules[i].hint);
	}
	return 0;
}

/* A resize may change the specification: a later start, or a destination, must have the same devices. */
static enum nova_step_result verb_seen(struct nova_job *job, json_t *result, struct nova_error *err)
{
	json_t *spec = json_object_get(result, "spec"), *needs = json_object_get(result, "needs");

	if (json_is_object(spec))
		nova_entry_set_spec(job->entry, spec);
	if (json_is_object(needs)) {
		json_decref(job->entry->needs);
		job->entry->needs = json_deep_copy(needs);
	}
	job->result = nova_entry_json(job->entry, false);
	return nova_entry_save(job->entry, err) < 0 ? NOVA_STEP_FAILED : NOVA_STEP_DONE;
}

static enum nova_step_result run_verb(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct nova_job *job = ctx;

	return nova_job_call_then(job, job->verb, json_incref(job->args), verb_seen, err);
}

static const struct nova_step verb_steps[] = {
	{ "act", run_verb, NULL, nova_job_drop_op, 0 },
	{ NULL },
};

struct nova_op *nova_verb_start(struct nova_host *host, const struct nova_identity *who, enum nova_verb verb,
    json_t *args, nova_done_fn done, void *arg, struct nova_error *err)
{
	struct nova_entry *entry =
	    nova_entry_need(host, who, json_string_value(json_object_get(args, "guest")), err);
	struct nova_job *job;

	if (!entry || check_state(entry, verb, err) < 0)
		return NULL;
	if (!entry->slot->ops->verb[verb]) {
		nova_error_set(err, NOVA_REFUSED, "%s is not supported by driver %s", nova_verb_name(verb),
		    entry->slot->ops->name);
		return NULL;
	}
	job = nova_job_new(host, nova_verb_name(verb), "local", who, entry->name, args, err);
	if (!job)
		return NULL;
	job->verb = verb;
	if (nova_job_start(job, verb_steps, NULL, false, err) < 0)
		return NULL;
	return nova_job_wait(job, done, arg, err);
}

/* ---- delete ---- */

static enum nova_step_result run_stop(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct nova_job *job = ctx;

	if (!job->entry || job->entry->guest.state == NOVA_GUEST_STOPPED)
		return NOVA_STEP_DONE;
	return nova_job_call(job, NOVA_VERB_STOP, json_pack("{s:b}", "force", 1), err);
}

static enum nova_step_result run_delete(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct nova_job *job = ctx;

	if (!job->entry)
		return NOVA_STEP_DONE;
	return nova_job_call(job, NOVA_VERB_DELETE,
	    json_pack("{s:b}", "keep_disks", json_is_true(json_object_get(job->args, "keep-disks"))), err);
}

static enum nova_step_result run_forget(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct nova_job *job = ctx;

	if (job->entry && nova_entry_forget(job->entry, err) < 0)
		return NOVA_STEP_FAILED;
	return NOVA_STEP_DONE;
}

/* Nothing brings back what DELETE took: a restarted daemon goes on with it. */
const struct nova_step nova_delete_steps[] = {
	{ "stop",   run_stop,   NULL, nova_job_drop_op, 60000 },
	{ "delete", run_delete, NULL, nova_job_drop_op, 60000 },
	{ "forget", run_forget },
	{ NULL },
};

struct nova_op *nova_cmd_delete(struct nova_host *host, const struct nova_identity *who, json_t *args,
    nova_done_fn done, void *arg, struct nova_error *err)
{
	struct nova_entry *entry =
	    nova_entry_need(host, who, json_string_value(json_object_get(args, "guest")), err);
	struct nova_job *job;

	if (!entry)
		return NULL;
	if (entry->guest.state != NOVA_GUEST_STOPPED && entry->guest.state != NOVA_GUEST_FAILED &&
	    !json_is_true(json_object_get(args, "force"))) {
		nova_error_set(err, NOVA_STATE, "guest %s is %s: stop it first, or delete it with --force", entry->name,
		    nova_guest_state_name(entry->guest.state));
		return NULL;
	}
	job = nova_job_new(host, "delete", "local", who, entry->name, args, err);
	if (!job || nova_job_start(job, nova_delete_steps, NULL, false, err) < 0)
		return NULL;
	return nova_job_wait(job, done, arg, err);
}
