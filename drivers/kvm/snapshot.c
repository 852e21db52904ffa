/* SPDX-License-Identifier: Apache-2.0
 *
 * snapshot.c - SNAPSHOT and RESTORE, internal and external.
 *
 * Internal: inside the guest's qcow2 disks; of a running guest with its memory (a QMP job, some seconds), of
 * a stopped one the disks alone (qemu-img). External: the disks as they are become read-only backing files of
 * new overlays, without memory; restoring one needs a stopped guest, makes its overlays anew and gives up the
 * later ones. guest->runtime.snapshots lists them: {name, kind, disks: [{path, overlay}]}.
 */
#include "kvm.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define JOB_LIMIT_MS 600000
#define JOB_ID "novacron-snapshot"

/* ---- names and disks ------------------------------------------------------------------------------ */

static int check_name(const char *name, struct nova_error *err)
{
	static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.";

	if (name && strlen(name) <= 64 && *name != '.' && *name != '-' &&
	    strspn(name, allowed) == strlen(name))
		return 0;
	return nova_error_set(err, NOVA_INVALID, "a snapshot's name has 1 to 64 letters, digits, - _ and .");
}

static json_t *snapshots_of(const struct nova_guest *guest)
{
	json_t *list = json_object_get(guest->runtime, "snapshots");

	if (!list) {
		list = json_array();
		json_object_set_new(guest->runtime, "snapshots", list);
	}
	return list;
}

/* Its place in the list, or -1. */
static int find_snapshot(const struct nova_guest *guest, const char *name)
{
	json_t *snapshot;
	size_t i;

	json_array_foreach (snapshots_of(guest), i, snapshot)
		if (strcmp(kvm_spec_text(snapshot, "name") ?: "", name) == 0)
			return (int)i;
	return -1;
}

/* Disks that can be written, as [{node, path, format}]; new. */
static json_t *writable_disks(const struct nova_guest *guest)
{
	NOVA_AUTOJSON json_t *spec = kvm_spec_now(guest);
	json_t *list = json_array(), *disk;
	size_t i;

	json_array_foreach (json_object_get(spec, "disk"), i, disk)
		if (!json_is_true(json_object_get(disk, "readonly")))
			json_array_append_new(list,
			    json_pack("{s:o,s:O,s:O,s:i,s:O*}", "node", json_sprintf("disk%zu", i), "path",
			        json_object_get(disk, "path"), "format", json_object_get(disk, "format"),
			        "index", (int)i, "owned", json_object_get(disk, "owned")));
	return list;
}

static int need_qcow2(const json_t *disks, struct nova_error *err)
{
	json_t *disk;
	size_t i;

	if (json_array_size(disks) == 0)
		return nova_error_set(err, NOVA_INVALID, "the guest has no disk that could hold a snapshot");
	json_array_foreach ((json_t *)disks, i, disk)
		if (!kvm_spec_is(disk, "format", "qcow2"))
			return nova_error_set(err, NOVA_INVALID,
			    "disk %s is not qcow2: only an external snapshot (external) is possible",
			    kvm_spec_text(disk, "path"));
	return 0;
}

static int remember(struct kvm_task *task, const char *kind, json_t *disks, struct nova_error *err)
{
	json_array_append_new(
	    snapshots_of(task->guest), json_pack("{s:s,s:s,s:o}", "name", kvm_spec_text(task->args, "name"),
	                                   "kind", kind, "disks", disks ?: json_array()));
	return nova_guest_save(task->guest, err);
}

/* ---- programs over all disks, one after the other -------------------------------------------------- */

/* The words after "qemu-img" for one disk; freed by the caller. */
typedef int (*words_fn)(
    struct kvm_task *task, const json_t *disk, struct kvm_argv *argv, struct nova_error *err);

static enum nova_step_result next_disk(
    struct kvm_task *task, words_fn words, kvm_reply_fn reply, struct nova_error *err)
{
	json_t *disks = json_object_get(task->notes, "disks");
	size_t at = (size_t)kvm_spec_int(task->notes, "at");
	enum nova_step_result result;
	struct kvm_argv argv = { 0 };

	if (at >= json_array_size(disks))
		return NOVA_STEP_DONE;
	json_object_set_new(task->notes, "at", json_integer((json_int_t)at + 1));
	kvm_argv_add(&argv, "%s", kvm_qemu_img(task->kvm));
	if (words(task, json_array_get(disks, at), &argv, err) < 0 || argv.failed)
		result = NOVA_STEP_FAILED;
	else
		result = kvm_task_run_program(task, (const char *const *)argv.word, reply, err);
	kvm_argv_release(&argv);
	return result;
}

/* ---- internal ------------------------------------------------------------------------------------- */

static int snapshot_words(
    struct kvm_task *task, const json_t *disk, struct kvm_argv *argv, struct nova_error *err)
{
	kvm_argv_add(argv, "snapshot");
	kvm_argv_add(argv, json_is_true(json_object_get(task->notes, "restoring")) ? "-a" : "-c");
	kvm_argv_add(argv, "%s", kvm_spec_text(task->args, "name"));
	kvm_argv_add(argv, "%s", kvm_spec_text(disk, "path"));
	return 0;
}

static enum nova_step_result snapshot_one_done(struct kvm_task *task, json_t *value, struct nova_error *err)
{
	if (nova_child_check("qemu-img", value, err) < 0)
		return NOVA_STEP_FAILED;
	return next_disk(task, snapshot_words, snapshot_one_done, err);
}

static enum nova_step_result job_dismissed(struct kvm_task *task, json_t *value, struct nova_error *err)
{
	const char *error = kvm_spec_text(task->notes, "job_error");

	if (!error)
		return NOVA_STEP_DONE;
	nova_error_set(err, NOVA_REFUSED, "QEMU: %s", error);
	return NOVA_STEP_FAILED;
}

static enum nova_step_result jobs_told(struct kvm_task *task, json_t *value, struct nova_error *err)
{
	json_t *job;
	size_t i;

	json_array_foreach (value, i, job)
		if (strcmp(kvm_spec_text(job, "id") ?: "", JOB_ID) == 0 && kvm_spec_text(job, "error"))
			json_object_set(task->notes, "job_error", json_object_get(job, "error"));
	return kvm_task_qmp(task, "job-dismiss", json_pack("{s:s}", "id", JOB_ID), job_dismissed, err);
}

static enum nova_step_result match_job(
    struct kvm_task *task, const char *event, json_t *data, struct nova_error *err)
{
	if (strcmp(event, "LOST") == 0) {
		nova_error_set(err, NOVA_LINK, "monitor: %s", kvm_spec_text(data, "reason"));
		return NOVA_STEP_FAILED;
	}
	if (strcmp(event, "JOB_STATUS_CHANGE") != 0 || strcmp(kvm_spec_text(data, "id") ?: "", JOB_ID) != 0 ||
	    strcmp(kvm_spec_text(data, "status") ?: "", "concluded") != 0)
		return NOVA_STEP_WAIT;
	return NOVA_STEP_DONE;
}

static enum nova_step_result job_started(struct kvm_task *task, json_t *value, struct nova_error *err)
{
	return NOVA_STEP_WAIT; /* for its end */
}

static enum nova_step_result start_job(struct kvm_task *task, const char *command, struct nova_error *err)
{
	json_t *disks = json_object_get(task->notes, "disks"), *nodes = json_array(), *disk;
	size_t i;

	json_array_foreach (disks, i, disk)
		json_array_append(nodes, json_object_get(disk, "live_node"));
	if (kvm_task_listen(task, match_job, 0, err) == NOVA_STEP_FAILED) {
		json_decref(nodes);
		return NOVA_STEP_FAILED;
	}
	return kvm_task_qmp(task, command,
	    json_pack("{s:s,s:O,s:O,s:o}", "job-id", JOB_ID, "tag", json_object_get(task->args, "name"),
	        "vmstate", json_array_get(nodes, 0), "devices", nodes),
	    job_started, err);
}

static enum nova_step_result end_job(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct kvm_task *task = ctx;

	if (!json_is_true(json_object_get(task->notes, "job")))
		return NOVA_STEP_DONE;
	return kvm_task_qmp(task, "query-jobs", NULL, jobs_told, err);
}

static enum nova_step_result internal(struct kvm_task *task, const char *command, struct nova_error *err)
{
	if (need_qcow2(json_object_get(task->notes, "disks"), err) < 0)
		return NOVA_STEP_FAILED;
	if (!kvm_guest_live(task->guest))
		return next_disk(task, snapshot_words, snapshot_one_done, err);
	json_object_set_new(task->notes, "job", json_true());
	return start_job(task, command, err);
}

/* ---- external ------------------------------------------------------------------------------------- */

static bool wants_external(const struct kvm_task *task)
{
	return json_is_true(json_object_get(task->args, "external"));
}

/* "/dir/disk.qcow2" becomes "/dir/disk.NAME.qcow2"; in notes.disks[].overlay. */
static int name_overlays(struct kvm_task *task, struct nova_error *err)
{
	json_t *disks = json_object_get(task->notes, "disks"), *disk;
	size_t i;

	if (json_array_size(disks) == 0)
		return nova_error_set(err, NOVA_INVALID, "the guest has no disk to take a snapshot of");
	json_array_foreach (disks, i, disk) {
		const char *path = kvm_spec_text(disk, "path"), *dot = strrchr(path, '.');
		size_t stem = dot && !strchr(dot, '/') ? (size_t)(dot - path) : strlen(path);
		json_t *overlay =
		    json_sprintf("%.*s.%s.qcow2", (int)stem, path, kvm_spec_text(task->args, "name"));
		int there = kvm_path_creatable(task->kvm->roots, "overlay", json_string_value(overlay), err);

		json_object_set_new(disk, "overlay", overlay);
		if (there > 0)
			nova_error_set(err, NOVA_INVALID, "overlay %s exists already: choose another name",
			    json_string_value(overlay));
		if (there != 0)
			return -1;
	}
	return 0;
}

static int overlay_words(
    struct kvm_task *task, const json_t *disk, struct kvm_argv *argv, struct nova_error *err)
{
	kvm_argv_add(argv, "create");
	kvm_argv_add(argv, "-q");
	kvm_argv_add(argv, "-f");
	kvm_argv_add(argv, "qcow2");
	kvm_argv_add(argv, "-F");
	kvm_argv_add(argv, "%s", kvm_spec_text(disk, "format"));
	kvm_argv_add(argv, "-b");
	kvm_argv_add(argv, "%s", kvm_spec_text(disk, "path"));
	kvm_argv_add(argv, "%s", kvm_spec_text(disk, "overlay"));
	return 0;
}

static enum nova_step_result overlay_made(struct kvm_task *task, json_t *value, struct nova_error *err)
{
	if (nova_child_check("qemu-img", value, err) < 0)
		return NOVA_STEP_FAILED;
	return next_disk(task, overlay_words, overlay_made, err);
}

static json_t *snapshot_actions(const struct kvm_task *task)
{
	json_t *actions = json_array(), *disk;
	int number = (int)json_array_size(snapshots_of(task->guest));
	size_t i;

	json_array_foreach (json_object_get(task->notes, "disks"), i, disk)
		json_array_append_new(actions,
		    json_pack("{s:s,s:{s:o,s:O,s:s,s:o}}", "type", "blockdev-snapshot-sync", "data",
		        "node-name", json_incref(json_object_get(disk, "live_node")), "snapshot-file",
		        json_object_get(disk, "overlay"), "format", "qcow2", "snapshot-node-name",
		        json_sprintf("%s-%d", kvm_spec_text(disk, "node"), number + 1)));
	return json_pack("{s:o}", "actions", actions);
}

/* After an external snapshot the device uses another node: the name QEMU knows it by now. */
static enum nova_step_result nodes_told(struct kvm_task *task, json_t *value, struct nova_error *err)
{
	json_t *disks = json_object_get(task->notes, "disks"), *disk, *device;
	size_t i, k;

	json_array_foreach (disks, i, disk) {
		json_array_foreach (value, k, device) {
			const json_t *inserted = json_object_get(device, "inserted");
			const char *file = kvm_spec_text(inserted, "file") ?: "";

			if (strcmp(file, kvm_spec_text(disk, "path")) == 0)
				json_object_set(disk, "live_node", json_object_get(inserted, "node-name"));
		}
		if (!kvm_spec_text(disk, "live_node")) {
			nova_error_set(err, NOVA_REFUSED, "QEMU has no disk %s", kvm_spec_text(disk, "path"));
			return NOVA_STEP_FAILED;
		}
	}
	return NOVA_STEP_DONE;
}

static enum nova_step_result external(struct kvm_task *task, struct nova_error *err)
{
	if (name_overlays(task, err) < 0)
		return NOVA_STEP_FAILED;
	if (!kvm_guest_live(task->guest))
		return next_disk(task, overlay_words, overlay_made, err);
	return kvm_task_qmp(task, "transaction", snapshot_actions(task), NULL, err);
}

/* From now on the guest's disks are the overlays. */
static int use_overlays(struct kvm_task *task, json_t *disks, struct nova_error *err)
{
	NOVA_AUTOJSON json_t *spec = kvm_spec_now(task->guest);
	json_t *list = json_object_get(spec, "disk"), *disk;
	size_t i;

	json_array_foreach (disks, i, disk) {
		json_t *changed = json_array_get(list, (size_t)kvm_spec_int(disk, "index"));

		json_object_set(changed, "path", json_object_get(disk, "overlay"));
		json_object_set_new(changed, "format", json_string("qcow2"));
	}
	return kvm_spec_change(task->guest, "disk", json_incref(list), err);
}

/* ---- SNAPSHOT ------------------------------------------------------------------------------------- */

static enum nova_step_result begin_snapshot(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct kvm_task *task = ctx;
	const char *name = kvm_spec_text(task->args, "name");

	if (check_name(name, err) < 0)
		return NOVA_STEP_FAILED;
	if (find_snapshot(task->guest, name) >= 0) {
		nova_error_set(
		    err, NOVA_INVALID, "guest %s has a snapshot %s already", task->guest->name, name);
		return NOVA_STEP_FAILED;
	}
	json_object_set_new(task->notes, "disks", writable_disks(task->guest));
	if (!kvm_guest_live(task->guest))
		return NOVA_STEP_DONE;
	return kvm_task_qmp(task, "query-block", NULL, nodes_told, err);
}

static enum nova_step_result take_snapshot(struct nova_run *run, void *ctx, struct nova_error *err)
{
	return wants_external(ctx) ? external(ctx, err) : internal(ctx, "snapshot-save", err);
}

static enum nova_step_result note_snapshot(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct kvm_task *task = ctx;
	json_t *disks = json_object_get(task->notes, "disks");
	bool live = kvm_guest_live(task->guest);
	int result;

	if (wants_external(task)) {
		result = use_overlays(task, disks, err);
		if (result == 0)
			result = remember(task, "external", json_incref(disks), err);
	} else {
		result = remember(task, live ? "memory" : "disks", NULL, err);
	}
	return result < 0 ? NOVA_STEP_FAILED : NOVA_STEP_DONE;
}

KVM_VERB(snapshot)
{
	static const struct nova_step rows[] = {
		{ "begin", begin_snapshot, NULL, kvm_task_stop_waiting },
		{ "take", take_snapshot, NULL, kvm_task_stop_waiting, JOB_LIMIT_MS },
		{ "end job", end_job, NULL, kvm_task_stop_waiting },
		{ "note", note_snapshot },
		{ NULL },
	};

	return kvm_task_new(self, guest, args, rows, done, arg, err);
}

/* ---- RESTORE -------------------------------------------------------------------------------------- */

static int check_restore(struct kvm_task *task, const json_t *snapshot, struct nova_error *err)
{
	const char *kind = kvm_spec_text(snapshot, "kind"), *name = kvm_spec_text(task->args, "name");
	bool live = kvm_guest_live(task->guest);

	if (!kind)
		return nova_error_set(
		    err, NOVA_INVALID, "guest %s has no snapshot %s", task->guest->name, name);
	if (strcmp(kind, "external") == 0 && live)
		return nova_error_set(err, NOVA_STATE, "snapshot %s is external: stop guest %s to restore it",
		    name, task->guest->name);
	if (strcmp(kind, "disks") == 0 && live)
		return nova_error_set(err, NOVA_STATE,
		    "snapshot %s has no memory: stop guest %s to restore it", name, task->guest->name);
	return 0;
}

static enum nova_step_result begin_restore(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct kvm_task *task = ctx;
	const char *name = kvm_spec_text(task->args, "name");
	json_t *snapshot;

	if (check_name(name, err) < 0)
		return NOVA_STEP_FAILED;
	snapshot = json_array_get(snapshots_of(task->guest), (size_t)find_snapshot(task->guest, name));
	if (check_restore(task, snapshot, err) < 0)
		return NOVA_STEP_FAILED;
	json_object_set_new(task->notes, "restoring", json_true());
	json_object_set(task->notes, "snapshot", snapshot);
	json_object_set_new(task->notes, "disks",
	    kvm_spec_is(snapshot, "kind", "external")
	        ? json_incref(json_object_get(snapshot, "disks"))
	        : writable_disks(task->guest));
	if (!kvm_guest_live(task->guest))
		return NOVA_STEP_DONE;
	return kvm_task_qmp(task, "query-block", NULL, nodes_told, err);
}

static enum nova_step_result restore_it(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct kvm_task *task = ctx;
	const json_t *snapshot = json_object_get(task->notes, "snapshot");

	if (!kvm_spec_is(snapshot, "kind", "external"))
		return internal(task, "snapshot-load", err);
	return next_disk(task, overlay_words, overlay_made, err);
}

/* Later snapshots stood on what was given up. */
static void give_up_later(struct kvm_task *task, size_t keep)
{
	json_t *list = snapshots_of(task->guest), *disk;
	size_t i;

	while (json_array_size(list) > keep) {
		size_t last = json_array_size(list) - 1;

		json_array_foreach (json_object_get(json_array_get(list, last), "disks"), i, disk)
			unlink(kvm_spec_text(disk, "overlay"));
		json_array_remove(list, last);
	}
}

static enum nova_step_result note_restored(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct kvm_task *task = ctx;
	const json_t *snapshot = json_object_get(task->notes, "snapshot");
	int at = find_snapshot(task->guest, kvm_spec_text(task->args, "name"));

	if (!kvm_spec_is(snapshot, "kind", "external"))
		return NOVA_STEP_DONE;
	give_up_later(task, (size_t)at + 1);
	return use_overlays(task, json_object_get(task->notes, "disks"), err) < 0 ? NOVA_STEP_FAILED
	                                                                          : NOVA_STEP_DONE;
}

KVM_VERB(restore)
{
	static const struct nova_step rows[] = {
		{ "begin", begin_restore, NULL, kvm_task_stop_waiting },
		{ "restore", restore_it, NULL, kvm_task_stop_waiting, JOB_LIMIT_MS },
		{ "end job", end_job, NULL, kvm_task_stop_waiting },
		{ "note", note_restored },
		{ NULL },
	};

	return kvm_task_new(self, guest, args, rows, done, arg, err);
}
