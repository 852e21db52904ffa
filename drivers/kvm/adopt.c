/* SPDX-License-Identifier: Apache-2.0
 *
 * adopt.c - taking hold of a QEMU that runs already: REATTACH (ours, after a restart) and ADOPT (anybody's).
 *
 * A process is ours again if its pid and start time are those on record, or, had we died between its start
 * and the record of its pid, if its command line names our monitor socket. An adopted QEMU is known by the
 * credentials of its socket.
 */
#include "kvm.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define DEAF_MS 1000 /* a QEMU that answers takes a few */

static enum nova_step_result let_go(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct kvm_task *task = ctx;

	kvm_guest_drop(task->kvm, task->guest);
	return NOVA_STEP_DONE;
}

static enum nova_step_result check_free(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct kvm_task *task = ctx;

	if (!task->guest->driver_data)
		return NOVA_STEP_DONE;
	nova_error_set(err, NOVA_STATE, "guest %s has a QEMU already", task->guest->name);
	return NOVA_STEP_FAILED;
}

/* ---- REATTACH ------------------------------------------------------------------------------------- */

struct search {
	const char *qmp;
	pid_t pid;
	uint64_t start_time;
};

static bool has_our_monitor(void *arg, const struct kvm_seen *seen)
{
	struct search *search = arg;
	char qmp[PATH_MAX];

	kvm_seen_qmp(seen, qmp, sizeof(qmp));
	if (strcmp(qmp, search->qmp) != 0)
		return false;
	search->pid = seen->pid;
	search->start_time = seen->start_time;
	return true;
}

static bool find_process(const json_t *runtime, struct search *search)
{
	search->pid = (pid_t)kvm_spec_int(runtime, "pid");
	search->start_time = (uint64_t)kvm_spec_int(runtime, "start_time");
	search->qmp = kvm_spec_text(runtime, "qmp");
	if (!search->qmp)
		return false;
	if (search->pid > 0 && nova_process_alive(search->pid, search->start_time))
		return true;
	search->pid = 0;
	kvm_seen_each(has_our_monitor, search);
	return search->pid > 0;
}

static enum nova_step_result connect_again(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct kvm_task *task = ctx;
	struct nova_guest *guest = task->guest;
	struct kvm_guest *live;
	struct search search;
	int kept;

	if (!find_process(guest->runtime, &search)) {
		kvm_guest_ended(task->kvm, guest);
		kvm_guest_state(guest, NOVA_GUEST_STOPPED, "its QEMU is gone");
		return NOVA_STEP_DONE;
	}
	live = kvm_guest_get(task->kvm, guest, err);
	if (!live || kvm_qemu_watch(&live->qemu, search.pid, search.start_time, err) < 0)
		return NOVA_STEP_FAILED;
	json_object_set_new(guest->runtime, "pid", json_integer(search.pid));
	json_object_set_new(guest->runtime, "start_time", json_integer((json_int_t)search.start_time));
	kept = kvm_kept_monitor(task->kvm, guest, search.pid);
	json_object_set_new(task->notes, "kept", json_boolean(kept >= 0));
	if ((kept >= 0 ? kvm_qemu_take(&live->qemu, search.qmp, kept, err) : kvm_qemu_connect(&live->qemu, search.qmp, 0, err)) < 0)
		return NOVA_STEP_FAILED;
	return kvm_task_listen(task, kvm_match_ready, 0, err);
}

static enum nova_step_result state_found(struct kvm_task *task, json_t *value, struct nova_error *err)
{
	struct nova_guest *guest = task->guest;
	const char *status = kvm_spec_text(value, "status") ?: "";
	enum nova_guest_state state = kvm_state_of(status, kvm_guest_role(guest));

	if (state == NOVA_GUEST_MIGRATED)
		json_object_set_new(guest->runtime, "disks_elsewhere", json_true());
	kvm_guest_state(guest, state, status);
	kvm_guest_save(task->kvm, guest);
	return NOVA_STEP_DONE;
}

/* It runs in postcopy, and waits for a page with QEMU's big lock held: nothing in band is answered before the page comes. */
static enum nova_step_result match_deaf(struct kvm_task *task, const char *event, json_t *data, struct nova_error *err)
{
	if (strcmp(event, "TIMEOUT") != 0)
		return NOVA_STEP_WAIT;
	json_object_set_new(task->notes, "deaf", json_true());
	kvm_guest_state(task->guest, NOVA_GUEST_RUNNING, "waits for pages of its postcopy");
	return NOVA_STEP_DONE;
}

static enum nova_step_result find_state(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct kvm_task *task = ctx;

	if (!kvm_guest_live(task->guest))
		return NOVA_STEP_DONE;
	if (json_is_true(json_object_get(task->notes, "kept")) && kvm_task_listen(task, match_deaf, DEAF_MS, err) == NOVA_STEP_FAILED)
		return NOVA_STEP_FAILED;
	return kvm_task_qmp(task, "query-status", NULL, state_found, err);
}

static enum nova_step_result migration_found(struct kvm_task *task, json_t *value, struct nova_error *err)
{
	const char *status = kvm_spec_text(value, "status");

	if (status)
		json_object_set_new(task->result, "migration", kvm_migration_sample(value));
	if (status && strcmp(status, "completed") == 0)
		kvm_monitor_give_back(kvm_guest_live(task->guest));
	return NOVA_STEP_DONE;
}

static enum nova_step_result find_migration(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct kvm_task *task = ctx;

	json_object_set_new(task->result, "state", json_string(nova_guest_state_name(task->guest->state)));
	if (!kvm_guest_live(task->guest) || json_object_get(task->notes, "deaf"))
		return NOVA_STEP_DONE;
	return kvm_task_qmp(task, "query-migrate", NULL, migration_found, err);
}

KVM_VERB(reattach)
{
	static const struct nova_step rows[] = {
		{ "check", check_free },
		{ "connect", connect_again, let_go, kvm_task_stop_waiting, 10000 },
		{ "state", find_state, NULL, kvm_task_stop_waiting },
		{ "migration", find_migration, NULL, kvm_task_stop_waiting },
		{ "thaw", kvm_agent_try_thaw_row, NULL, kvm_task_stop_waiting },
		{ NULL },
	};
	json_t *runtime = json_object_get(args, "runtime");

	if (json_is_object(runtime))
		json_object_update_missing(guest->runtime, runtime);
	return kvm_task_new(self, guest, args, rows, done, arg, err);
}

/* ---- ADOPT ---------------------------------------------------------------------------------------- */

/* Connected: whose monitor is it? */
static enum nova_step_result match_adopted(
    struct kvm_task *task, const char *event, json_t *data, struct nova_error *err)
{
	struct kvm_guest *live = task->guest->driver_data;
	struct kvm_seen seen;
	enum nova_step_result result = kvm_match_ready(task, event, data, err);
	json_t *words = json_array();
	pid_t pid;

	json_object_set_new(task->notes, "words", words);
	if (result != NOVA_STEP_DONE)
		return result;
	pid = qmp_client_pid(live->qemu.qmp);
	if (kvm_seen_read(&seen, pid, err) < 0) {
		nova_error_prefix(err, "%s", live->qemu.path);
		return NOVA_STEP_FAILED;
	}
	for (size_t i = 0; i < seen.count; i++)
		json_array_append_new(words, json_string(seen.word[i]) ?: json_string(""));
	json_object_set_new(task->notes, "pid", json_integer(pid));
	json_object_set_new(task->notes, "start_time", json_integer((json_int_t)seen.start_time));
	if (kvm_qemu_watch(&live->qemu, pid, seen.start_time, err) < 0)
		result = NOVA_STEP_FAILED;
	kvm_seen_release(&seen);
	return result;
}

static enum nova_step_result connect_first(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct kvm_task *task = ctx;
	const char *path = kvm_spec_text(task->args, "qmp");
	struct kvm_guest *live;

	if (!path) {
		nova_error_set(
		    err, NOVA_INVALID, "qmp is missing: the path of the QMP socket of the QEMU to adopt");
		return NOVA_STEP_FAILED;
	}
	live = kvm_guest_get(task->kvm, task->guest, err);
	if (!live || kvm_qemu_connect(&live->qemu, path, 0, err) < 0)
		return NOVA_STEP_FAILED;
	return kvm_task_listen(task, match_adopted, 0, err);
}

static enum nova_step_result noted(struct kvm_task *task, json_t *value, const char *as)
{
	json_object_set(task->notes, as, value ?: json_null());
	return NOVA_STEP_DONE;
}

static enum nova_step_result name_told(struct kvm_task *task, json_t *value, struct nova_error *err)
{
	return noted(task, json_object_get(value, "name"), "name");
}

static enum nova_step_result ask_name(struct nova_run *run, void *ctx, struct nova_error *err)
{
	return kvm_task_qmp(ctx, "query-name", NULL, name_told, err);
}

static enum nova_step_result uuid_told(struct kvm_task *task, json_t *value, struct nova_error *err)
{
	return noted(task, json_object_get(value, "UUID"), "uuid");
}

static enum nova_step_result ask_uuid(struct nova_run *run, void *ctx, struct nova_error *err)
{
	return kvm_task_qmp(ctx, "query-uuid", NULL, uuid_told, err);
}

static enum nova_step_result status_told(struct kvm_task *task, json_t *value, struct nova_error *err)
{
	return noted(task, json_object_get(value, "status"), "status");
}

static enum nova_step_result ask_status(struct nova_run *run, void *ctx, struct nova_error *err)
{
	return kvm_task_qmp(ctx, "query-status", NULL, status_told, err);
}

static enum nova_step_result machine_told(struct kvm_task *task, json_t *value, struct nova_error *err)
{
	const char *type = json_string_value(value);
	size_t length = type ? strlen(type) : 0;

	if (length > 8 && strcmp(type + length - 8, "-machine") == 0)
		json_object_set_new(task->notes, "machine", json_sprintf("%.*s", (int)length - 8, type));
	return NOVA_STEP_DONE;
}

static enum nova_step_result ask_machine(struct nova_run *run, void *ctx, struct nova_error *err)
{
	return kvm_task_try(ctx, "qom-get", json_pack("{s:s,s:s}", "path", "/machine", "property", "type"),
	    machine_told, err);
}

/* The specification its command line amounts to, completed as ours are; where that fails, say so. */
static json_t *derive_spec(struct kvm_task *task, const struct kvm_limits *limits)
{
	json_t *words = json_object_get(task->notes, "words"), *word, *spec, *complete,
	       *unknown = json_array();
	NOVA_AUTOFREE char **argv = calloc(json_array_size(words) + 1, sizeof(*argv));
	struct nova_error err;
	size_t i;

	json_array_foreach (words, i, word)
		if (argv)
			argv[i] = (char *)json_string_value(word);
	spec = kvm_spec_of_words(argv ?: (char *[]) { NULL }, kvm_spec_text(task->notes, "machine"), unknown);
	complete = kvm_spec_complete(spec, limits, &err);
	if (complete) {
		json_decref(spec);
		spec = complete;
	} else {
		json_array_append_new(unknown, json_string(err.text));
	}
	json_object_set_new(spec, "adopted", json_pack("{s:o,s:O}", "unknown", unknown, "command", words));
	return spec;
}

static int find_spec(struct kvm_task *task, struct nova_error *err)
{
	json_t *given = json_object_get(task->args, "spec"), *spec;
	struct kvm_limits limits = {
		.facts = kvm_probe_facts(task->kvm, kvm_spec_accel(task->notes)),
		.roots = task->kvm->roots,
	};

	spec =
	    json_object_size(given) > 0 ? kvm_spec_complete(given, &limits, err) : derive_spec(task, &limits);
	if (!spec)
		return -1;
	json_object_set_new(task->result, "needs", kvm_spec_needs(spec));
	json_object_set_new(task->result, "spec", spec);
	return 0;
}

static enum nova_step_result take_over(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct kvm_task *task = ctx;
	struct nova_guest *guest = task->guest;
	const char *status = kvm_spec_text(task->notes, "status") ?: "";

	if (find_spec(task, err) < 0)
		return NOVA_STEP_FAILED;
	json_object_set(guest->runtime, "pid", json_object_get(task->notes, "pid"));
	json_object_set(guest->runtime, "start_time", json_object_get(task->notes, "start_time"));
	json_object_set(guest->runtime, "qmp", json_object_get(task->args, "qmp"));
	json_object_set(task->result, "runtime", guest->runtime);
	json_object_set(task->result, "name", json_object_get(task->notes, "name"));
	json_object_set(task->result, "uuid", json_object_get(task->notes, "uuid"));
	kvm_guest_state(guest, kvm_state_of(status, ""), "adopted");
	json_object_set_new(task->result, "state", json_string(nova_guest_state_name(guest->state)));
	return nova_guest_save(guest, err) < 0 ? NOVA_STEP_FAILED : NOVA_STEP_DONE;
}

/* Which accelerator it was started with: the probe asks about the same. */
static enum nova_step_result ask_facts(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct kvm_task *task = ctx;
	json_t *words = json_object_get(task->notes, "words"), *word;
	bool kvm = false;
	size_t i;

	json_array_foreach (words, i, word) {
		const char *text = json_string_value(word);

		kvm |= strcmp(text, "-enable-kvm") == 0 || strstr(text, "accel=kvm") ||
		       (i && strcmp(text, "kvm") == 0 &&
		           strcmp(json_string_value(json_array_get(words, i - 1)), "-accel") == 0);
	}
	json_object_set_new(task->notes, "accel", json_string(kvm ? "kvm" : "tcg"));
	return kvm_probe_row(run, ctx, err);
}

KVM_VERB(adopt)
{
	static const struct nova_step rows[] = {
		{ "check", check_free },
		{ "connect", connect_first, let_go, kvm_task_stop_waiting, 10000 },
		{ "name", ask_name, NULL, kvm_task_stop_waiting },
		{ "uuid", ask_uuid, NULL, kvm_task_stop_waiting },
		{ "machine", ask_machine, NULL, kvm_task_stop_waiting },
		{ "facts", ask_facts, NULL, kvm_probe_drop, KVM_START_LIMIT_MS },
		{ "status", ask_status, NULL, kvm_task_stop_waiting },
		{ "take over", take_over },
		{ NULL },
	};

	return kvm_task_new(self, guest, args, rows, done, arg, err);
}
