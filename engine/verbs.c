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
	if (nova_admit_guest(job->host, job->guest_name, job->owner, needs, err) < 0)
		return NOVA_STEP_FAILED;
	job->entry = nova_entry_new(job->host, job->slot, job->guest_name, uuid, job->owner,
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

/* Guests are made for oneself; only admins may make them for others, or quotas would not hold. */
static int take_owner(struct nova_job *job, struct nova_error *err)
{
	const char *owner = json_string_value(json_object_get(job->args, "owner"));

	if (owner && strcmp(owner, job->who.name) && job->who.role < NOVA_ROLE_ADMIN)
		return nova_error_set(err, NOVA_REFUSED, "%s may not make a guest for %.60s: only admins name another owner",
		    job->who.name, owner);
	if (owner && (!owner[0] || strlen(owner) >= sizeof(job->owner)))
		return nova_error_set(err, NOVA_INVALID, "owner: a name has 1 to %zu bytes", sizeof(job->owner) - 1);
	nova_job_set_owner(job, owner ? owner : job->who.name);
	return 0;
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
	if (take_owner(job, err) < 0) {
		nova_job_free(job);
		return NULL;
	}
	if (nova_job_start(job, nova_create_steps, NULL, false, err) < 0)
		return NULL;
	return nova_job_wait(job, done, arg, err);
}

static void set_needs(struct nova_entry *entry, const json_t *needs)
{
	json_decref(entry->needs);
	entry->needs = json_deep_copy(needs);
}

/* ---- adopt: take over a running one ---- */

static enum nova_step_result adopted(struct nova_job *job, json_t *result, struct nova_error *err)
{
	json_t *spec = json_object_get(result, "spec");

	if (json_is_object(spec))
		nova_entry_set_spec(job->entry, spec);
	if (json_is_object(json_object_get(result, "needs")))
		set_needs(job->entry, json_object_get(result, "needs"));
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
	if (take_owner(job, err) < 0) {
		nova_job_free(job);
		return NULL;
	}
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
	if (json_is_object(needs))
		set_needs(job->entry, needs);
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

/* ---- resize: what more it takes is reserved before it is given ---- */

/* What the guest would need; what it gives back counts as taken until it has given it back. */
static json_t *grown_needs(const struct nova_job *job)
{
	static const char *const members[][2] = { { "memory", "memory_bytes" }, { "vcpus", "vcpus" } };
	json_t *needs = json_deep_copy(job->entry->needs);

	for (size_t i = 0; i < 2; i++) {
		json_int_t wanted = json_integer_value(json_object_get(job->args, members[i][0]));

		if (wanted > json_integer_value(json_object_get(needs, members[i][1])))
			json_object_set_new(needs, members[i][1], json_integer(wanted));
	}
	return needs;
}

static enum nova_step_result run_reserve(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct nova_job *job = ctx;
	NOVA_AUTOJSON json_t *needs = grown_needs(job);

	if (!json_equal(needs, job->entry->needs) &&
	    nova_admit_guest(job->host, job->guest_name, job->entry->owner, needs, err) < 0)
		return NOVA_STEP_FAILED;
	json_object_set(job->args, "needs_before", job->entry->needs);
	set_needs(job->entry, needs);
	return nova_entry_save(job->entry, err) < 0 ? NOVA_STEP_FAILED : NOVA_STEP_DONE;
}

static enum nova_step_result undo_reserve(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct nova_job *job = ctx;
	json_t *before = json_object_get(job->args, "needs_before");

	if (!job->entry || !before)
		return NOVA_STEP_DONE;
	set_needs(job->entry, before);
	return nova_entry_save(job->entry, err) < 0 ? NOVA_STEP_FAILED : NOVA_STEP_DONE;
}

/* A daemon that is killed in between leaves the larger needs in the inventory: too much is counted, never too little. */
static const struct nova_step resize_steps[] = {
	{ "reserve", run_reserve, undo_reserve },
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
	if (nova_job_start(job, verb == NOVA_VERB_RESIZE ? resize_steps : verb_steps, NULL, false, err) < 0)
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

static enum nova_step_result deleted(struct nova_job *job, json_t *result, struct nova_error *err)
{
	return job->entry && nova_entry_forget(job->entry, err) < 0 ? NOVA_STEP_FAILED : NOVA_STEP_DONE;
}

/* What was deleted is forgotten in the same row: a journal that is full by then is told later. */
static enum nova_step_result run_delete(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct nova_job *job = ctx;

	if (!job->entry)
		return NOVA_STEP_DONE;
	return nova_job_call_then(job, NOVA_VERB_DELETE,
	    json_pack("{s:b}", "keep_disks", json_is_true(json_object_get(job->args, "keep-disks"))), deleted, err);
}

/* Nothing brings back what DELETE took: a restarted daemon goes on with it. */
const struct nova_step nova_delete_steps[] = {
	{ "stop",   run_stop,   NULL, nova_job_drop_op, 60000 },
	{ "delete", run_delete, NULL, nova_job_drop_op, 60000 },
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
	if (!nova_entry_at_rest(entry) && !json_is_true(json_object_get(args, "force"))) {
		nova_error_set(err, NOVA_STATE, "guest %s is %s: stop it first, or delete it with --force", entry->name,
		    nova_guest_state_name(entry->guest.state));
		return NULL;
	}
	job = nova_job_new(host, "delete", "local", who, entry->name, args, err);
	if (!job || nova_job_start(job, nova_delete_steps, NULL, false, err) < 0)
		return NULL;
	return nova_job_wait(job, done, arg, err);
}
