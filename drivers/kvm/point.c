/* SPDX-License-Identifier: Apache-2.0
 *
 * point.c - what a running guest's disks hold at one instant, for a replica: POINT_MARK, POINT_TAKE, POINT_SEND,
 * POINT_CLEAR.
 *
 * A mark is a dirty bitmap of the same name on each disk, added to all of them in one transaction: it notes what
 * was written since. A point is taken in one transaction, too: a new mark, and for each disk a backup job
 * ("point-diskN") that copies what was written since the old mark into a staging image beside the disk
 * (DISK.nova-point). The guest's writes wait for that local copy only, never for the link. Sending ("send-diskN")
 * copies what the staging images hold to the NBD servers at our sockets, holes and zeroes as such. Marks are never
 * changed once made: whoever keeps the replica says which of its points is the newest, the mark of that one is what
 * the next point starts from, and all others are removed. So whatever fails, nothing is forgotten; a mark that is
 * gone (QEMU ended) costs a comparison of the whole disk.
 */
#include "kvm.h"

#include <stdio.h>
#include <string.h>

#define STAGING ".nova-point"
#define NODES "point-disk"
#define PIECE 65536 /* what a mark notes, and a job copies, at once */

static const char *const prefixes[] = { "point-disk", "send-disk", NULL };

static json_t *disk_at(const struct kvm_task *task, size_t at)
{
	return json_array_get(json_object_get(task->args, "disks"), at);
}

static size_t next_of(struct kvm_task *task)
{
	size_t at = (size_t)kvm_spec_int(task->notes, "at");

	json_object_set_new(task->notes, "at", json_integer((json_int_t)at + 1));
	return at;
}

static void begin_loop(struct kvm_task *task)
{
	json_object_set_new(task->notes, "at", json_integer(0));
}

static json_t *staging_of(const json_t *disk)
{
	return json_sprintf("%s" STAGING, kvm_spec_text(disk, "file"));
}

/* A point's own: what is left of an earlier one, and in use, is in nobody's way. The mark ends with the point's number. */
static json_t *node_of(const struct kvm_task *task, const json_t *disk, const char *kind)
{
	const char *mark = kvm_spec_text(task->args, "mark") ?: "", *number = strrchr(mark, '-');

	return json_sprintf("point-%s-%s.%s", kvm_spec_text(disk, "disk"), kind, number ? number + 1 : "0");
}

static enum nova_step_result cancel_jobs(struct nova_run *run, void *ctx, struct nova_error *err)
{
	return kvm_jobs_end(ctx, prefixes, 0, true, err);
}

/* ---- nodes and files of a point ---- */

static void note_refusal(struct kvm_task *task)
{
	const char *refusal = kvm_spec_text(task->notes, "refusal");

	if (refusal)
		kvm_log(task->kvm, NOVA_LOG_WARNING, "kvm: guest %s: an image of a point is not let go: %s", task->guest->name, refusal);
	json_object_del(task->notes, "refusal");
}

static enum nova_step_result remove_next(struct kvm_task *task, json_t *value, struct nova_error *err)
{
	json_t *node;

	note_refusal(task);
	node = json_array_get(json_object_get(task->notes, "nodes"), next_of(task));
	if (!node)
		return NOVA_STEP_DONE;
	return kvm_task_try(task, "blockdev-del", json_pack("{s:O}", "node-name", node), remove_next, err);
}

/* Targets first: they are all that is above a staging image. */
static enum nova_step_result named_nodes_known(struct kvm_task *task, json_t *value, struct nova_error *err)
{
	json_t *nodes = json_array(), *node;
	size_t i;

	json_array_foreach (value, i, node) {
		const char *name = kvm_spec_text(node, "node-name") ?: "";

		if (strncmp(name, NODES, strlen(NODES)) == 0 && strstr(name, "-target"))
			json_array_insert_new(nodes, 0, json_string(name));
		else if (strncmp(name, NODES, strlen(NODES)) == 0)
			json_array_append_new(nodes, json_string(name));
	}
	json_object_set_new(task->notes, "nodes", nodes);
	begin_loop(task);
	return remove_next(task, NULL, err);
}

/* All of them, whichever point they were of. */
static enum nova_step_result remove_nodes(struct nova_run *run, void *ctx, struct nova_error *err)
{
	if (!kvm_guest_live(((struct kvm_task *)ctx)->guest))
		return NOVA_STEP_DONE;
	return kvm_task_qmp(ctx, "query-named-block-nodes", json_pack("{s:b}", "flat", 1), named_nodes_known, err);
}

static enum nova_step_result remove_files(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct kvm_task *task = ctx;
	json_t *disk;
	size_t i;

	json_array_foreach (json_object_get(task->args, "disks"), i, disk) {
		NOVA_AUTOJSON json_t *path = staging_of(disk);

		unlink(json_string_value(path));
	}
	return NOVA_STEP_DONE;
}

void kvm_point_forget(const struct nova_guest *guest)
{
	char path[PATH_MAX];
	json_t *disk;
	size_t i;

	json_array_foreach (json_object_get(guest->spec, "disk"), i, disk) {
		snprintf(path, sizeof(path), "%s" STAGING, kvm_spec_text(disk, "path") ?: "");
		unlink(path);
	}
}

/* ---- marks ---- */

/* Those that every disk has; the others, and all but `keep` if that is given, go to notes.old: [node, name]. */
static bool on_all(json_t *nodes, const char *mark)
{
	json_t *marks;
	const char *node;

	json_object_foreach (nodes, node, marks)
		if (!json_object_get(marks, mark))
			return false;
	return true;
}

static enum nova_step_result unmark_next(struct kvm_task *task, json_t *value, struct nova_error *err)
{
	const json_t *old = json_array_get(json_object_get(task->notes, "old"), next_of(task));

	if (!old)
		return NOVA_STEP_DONE;
	return kvm_task_try(task, "block-dirty-bitmap-remove",
	    json_pack("{s:O,s:O}", "node", json_array_get(old, 0), "name", json_array_get(old, 1)), unmark_next, err);
}

static enum nova_step_result sort_marks(struct kvm_task *task, json_t *nodes, struct nova_error *err)
{
	const char *keep = kvm_spec_text(task->args, "keep"), *node, *mark;
	json_t *old = json_array(), *left = json_object(), *marks, *ignored;

	json_object_foreach (nodes, node, marks)
		json_object_foreach (marks, mark, ignored)
			if (!on_all(nodes, mark) || (keep && strcmp(mark, keep) != 0))
				json_array_append_new(old, json_pack("[s,s]", node, mark));
			else
				json_object_set_new(left, mark, json_true());
	json_object_set_new(task->notes, "old", old);
	json_object_set_new(task->result, "marks", json_array());
	json_object_foreach (left, mark, ignored)
		json_array_append_new(json_object_get(task->result, "marks"), json_string(mark));
	json_decref(left);
	begin_loop(task);
	return unmark_next(task, NULL, err);
}

static enum nova_step_result marks_known(struct kvm_task *task, json_t *value, struct nova_error *err)
{
	NOVA_AUTOJSON json_t *nodes = json_object();
	const char *prefix = kvm_spec_text(task->args, "prefix") ?: "";
	json_t *disk, *bitmap;
	size_t i, j;

	json_array_foreach (json_object_get(task->args, "disks"), i, disk) {
		const json_t *inserted = kvm_disk_inserted(value, disk);
		json_t *marks = json_object();

		json_object_set_new(nodes, kvm_spec_text(inserted, "node-name") ?: "", marks);
		json_array_foreach (json_object_get(inserted, "dirty-bitmaps"), j, bitmap)
			if (strncmp(kvm_spec_text(bitmap, "name") ?: "", prefix, strlen(prefix)) == 0 &&
			    !json_is_true(json_object_get(bitmap, "inconsistent")))
				json_object_set_new(marks, kvm_spec_text(bitmap, "name") ?: "", json_true());
	}
	return sort_marks(task, nodes, err);
}

static enum nova_step_result look_at_marks(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct kvm_task *task = ctx;

	json_object_set_new(task->result, "marks", json_array());
	return kvm_guest_live(task->guest) ? kvm_task_qmp(task, "query-block", NULL, marks_known, err) : NOVA_STEP_DONE;
}

KVM_VERB(point_clear)
{
	static const struct nova_step rows[] = {
		{ "thaw", kvm_agent_try_thaw_row, NULL, kvm_task_stop_waiting, 30000 },
		{ "jobs", cancel_jobs, NULL, kvm_task_stop_waiting, 30000 },
		{ "nodes", remove_nodes, NULL, kvm_task_stop_waiting, 30000 },
		{ "files", remove_files },
		{ "marks", look_at_marks, NULL, kvm_task_stop_waiting, 30000 },
		{ NULL },
	};

	return kvm_task_new(self, guest, args, rows, done, arg, err);
}

/* ---- mark ---- */

static enum nova_step_result nodes_known(struct kvm_task *task, json_t *value, struct nova_error *err)
{
	json_t *disk;
	size_t i;

	json_array_foreach (json_object_get(task->args, "disks"), i, disk) {
		const char *node = kvm_spec_text(kvm_disk_inserted(value, disk), "node-name");

		if (!node) {
			nova_error_set(err, NOVA_REFUSED, "QEMU has no %s", kvm_spec_text(disk, "disk") ?: "such disk");
			return NOVA_STEP_FAILED;
		}
		json_object_set_new(disk, "node", json_string(node));
	}
	return NOVA_STEP_DONE;
}

static enum nova_step_result find_nodes(struct nova_run *run, void *ctx, struct nova_error *err)
{
	return kvm_task_qmp(ctx, "query-block", NULL, nodes_known, err);
}

static void add_marks(const struct kvm_task *task, json_t *actions)
{
	json_t *disk;
	size_t i;

	json_array_foreach (json_object_get(task->args, "disks"), i, disk)
		json_array_append_new(actions,
		    json_pack("{s:s,s:{s:O,s:O,s:i}}", "type", "block-dirty-bitmap-add", "data", "node",
		        json_object_get(disk, "node"), "name", json_object_get(task->args, "mark"), "granularity", PIECE));
}

static enum nova_step_result mark(struct nova_run *run, void *ctx, struct nova_error *err)
{
	json_t *actions = json_array();

	add_marks(ctx, actions);
	return kvm_task_qmp(ctx, "transaction", json_pack("{s:o}", "actions", actions), NULL, err);
}

KVM_VERB(point_mark)
{
	static const struct nova_step rows[] = {
		{ "nodes", find_nodes, NULL, kvm_task_stop_waiting },
		{ "mark", mark, NULL, kvm_task_stop_waiting },
		{ NULL },
	};

	return kvm_task_new(self, guest, args, rows, done, arg, err);
}

/* ---- take ---- */

static enum nova_step_result make_next(struct kvm_task *task, json_t *value, struct nova_error *err)
{
	size_t at = next_of(task);
	const json_t *disk = disk_at(task, at);
	NOVA_AUTOJSON json_t *path = NULL;
	char size[32];
	const char *argv[] = { kvm_qemu_img(task->kvm), "create", "-q", "-f", "qcow2", NULL, size, NULL };

	if (value && nova_child_check("qemu-img", value, err) < 0)
		return NOVA_STEP_FAILED;
	if (at > 0) {
		path = staging_of(disk_at(task, at - 1));
		if (kvm_hand_to_user(task->kvm, json_string_value(path), err) < 0)
			return NOVA_STEP_FAILED;
		json_decref(nova_take(&path));
	}
	if (!disk)
		return NOVA_STEP_DONE;
	path = staging_of(disk);
	if (kvm_path_creatable(task->kvm->roots, "staging image", json_string_value(path), err) < 0)
		return NOVA_STEP_FAILED;
	argv[5] = json_string_value(path);
	snprintf(size, sizeof(size), "%lld", (long long)kvm_spec_int(disk, "size"));
	return kvm_task_run_program(task, argv, make_next, err);
}

static enum nova_step_result make_staging(struct nova_run *run, void *ctx, struct nova_error *err)
{
	begin_loop(ctx);
	return make_next(ctx, NULL, err);
}

static enum nova_step_result open_next(struct kvm_task *task, json_t *value, struct nova_error *err)
{
	const json_t *disk = disk_at(task, next_of(task));

	if (!disk)
		return NOVA_STEP_DONE;
	return kvm_task_qmp(task, "blockdev-add",
	    json_pack("{s:s,s:o,s:s,s:{s:s,s:o}}", "driver", "qcow2", "node-name",
	        node_of(task, disk, "staging"), "discard", "unmap", "file", "driver", "file",
	        "filename", staging_of(disk)),
	    open_next, err);
}

static enum nova_step_result open_staging(struct nova_run *run, void *ctx, struct nova_error *err)
{
	begin_loop(ctx);
	return open_next(ctx, NULL, err);
}

static enum nova_step_result undo_staging(struct nova_run *run, void *ctx, struct nova_error *err)
{
	remove_files(run, ctx, err);
	return remove_nodes(run, ctx, err);
}

/* Their ends are waited for from here on. */
static enum nova_step_result await_taken(struct kvm_task *task, struct nova_error *err)
{
	json_object_set(task->notes, "jobs", json_object_get(task->notes, "taking"));
	return kvm_jobs_wait(task, err);
}

/* If it does not go on, the point fails: the next attempt comes soon, and asks again. */
static enum nova_step_result goes_on(struct kvm_task *task, json_t *value, struct nova_error *err)
{
	if (kvm_agent_thawed(task, value, err) == NOVA_STEP_FAILED)
		return NOVA_STEP_FAILED;
	return await_taken(task, err);
}

/* Whatever the jobs copy now is what stood there at that instant: the guest may go on. */
static enum nova_step_result taken(struct kvm_task *task, json_t *value, struct nova_error *err)
{
	if (json_is_true(json_object_get(task->notes, "froze")))
		return kvm_agent_thaw(task, goes_on, err);
	return await_taken(task, err);
}

/* Everything in it happens at one instant of the guest. */
static enum nova_step_result take(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct kvm_task *task = ctx;
	json_t *actions = json_array(), *jobs = json_array(), *disk;
	size_t i;

	if (kvm_jobs_listen(task, prefixes, err) == NOVA_STEP_FAILED)
		return NOVA_STEP_FAILED;
	add_marks(task, actions);
	json_array_foreach (json_object_get(task->args, "disks"), i, disk) {
		json_t *job = json_sprintf("point-%s", kvm_spec_text(disk, "disk"));

		json_array_append(jobs, job);
		json_array_append_new(actions,
		    json_pack("{s:s,s:{s:o,s:O,s:o,s:s,s:O,s:s}}", "type", "blockdev-backup", "data", "job-id", job, "device",
		        json_object_get(disk, "node"), "target", node_of(task, disk, "staging"),
		        "sync", "bitmap", "bitmap", json_object_get(task->args, "since"), "bitmap-mode", "never"));
	}
	json_object_set_new(task->notes, "taking", jobs);
	return kvm_task_qmp(task, "transaction", json_pack("{s:o}", "actions", actions), taken, err);
}

static enum nova_step_result tell_taken(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct kvm_task *task = ctx;
	json_t *disks = json_array(), *disk;
	size_t i;

	json_array_foreach (json_object_get(task->args, "disks"), i, disk) {
		NOVA_AUTOJSON json_t *job = json_sprintf("point-%s", kvm_spec_text(disk, "disk"));

		json_array_append_new(disks,
		    json_pack("{s:O,s:I}", "disk", json_object_get(disk, "disk"), "bytes",
		        (json_int_t)kvm_spec_int(json_object_get(task->notes, "copied"), json_string_value(job))));
	}
	json_object_set_new(task->result, "disks", disks);
	json_object_set_new(task->result, "consistency", json_string(kvm_spec_text(task->notes, "consistency") ?: "crash"));
	return NOVA_STEP_DONE;
}

KVM_VERB(point_take)
{
	static const struct nova_step rows[] = {
		{ "nodes", find_nodes, NULL, kvm_task_stop_waiting },
		{ "staging", make_staging, undo_staging, kvm_task_stop_waiting },
		{ "open", open_staging, NULL, kvm_task_stop_waiting },
		{ "freeze", kvm_agent_freeze_row, kvm_agent_thaw_row, kvm_task_stop_waiting },
		{ "take", take, cancel_jobs, kvm_task_stop_waiting },
		{ "tell", tell_taken },
		{ NULL },
	};

	return kvm_task_new(self, guest, args, rows, done, arg, err);
}

/* ---- send ---- */

static enum nova_step_result connect_next(struct kvm_task *task, json_t *value, struct nova_error *err)
{
	const json_t *disk = disk_at(task, next_of(task));

	if (!disk)
		return NOVA_STEP_DONE;
	return kvm_task_qmp(task, "blockdev-add",
	    json_pack("{s:s,s:o,s:{s:s,s:O},s:s,s:s,s:s}", "driver", "nbd", "node-name",
	        node_of(task, disk, "target"), "server", "type", "unix", "path",
	        json_object_get(disk, "path"), "export", "", "discard", "unmap", "detect-zeroes", "unmap"),
	    connect_next, err);
}

static enum nova_step_result connect_targets(struct nova_run *run, void *ctx, struct nova_error *err)
{
	begin_loop(ctx);
	return connect_next(ctx, NULL, err);
}

static enum nova_step_result copy_next(struct kvm_task *task, json_t *value, struct nova_error *err)
{
	const json_t *disk = disk_at(task, next_of(task));
	const char *name = kvm_spec_text(disk, "disk");

	if (!disk)
		return kvm_jobs_wait(task, err);
	return kvm_task_qmp(task, "blockdev-backup",
	    json_pack("{s:o,s:o,s:o,s:s}", "job-id", json_sprintf("send-%s", name), "device",
	        node_of(task, disk, "staging"), "target", node_of(task, disk, "target"), "sync", "top"),
	    copy_next, err);
}

static enum nova_step_result copy_out(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct kvm_task *task = ctx;
	json_t *jobs = json_array(), *disk;
	size_t i;

	begin_loop(task);
	if (kvm_jobs_listen(task, prefixes, err) == NOVA_STEP_FAILED)
		return NOVA_STEP_FAILED;
	json_array_foreach (json_object_get(task->args, "disks"), i, disk)
		json_array_append_new(jobs, json_sprintf("send-%s", kvm_spec_text(disk, "disk")));
	json_object_set_new(task->notes, "jobs", jobs);
	return copy_next(task, NULL, err);
}

KVM_VERB(point_send)
{
	static const struct nova_step rows[] = {
		{ "targets", connect_targets, remove_nodes, kvm_task_stop_waiting },
		{ "copy", copy_out, cancel_jobs, kvm_task_stop_waiting },
		{ "close", remove_nodes, NULL, kvm_task_stop_waiting },
		{ "files", remove_files },
		{ NULL },
	};

	return kvm_task_new(self, guest, args, rows, done, arg, err);
}
