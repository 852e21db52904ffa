/* SPDX-License-Identifier: Apache-2.0
 *
 * exports.c - carried disks of a guest that arrives: MIRROR_IN, MIRROR_IN_END.
 *
 * The waiting QEMU serves its new, empty disks over NBD on a unix socket in the guest's private directory, each
 * as the export "diskN", and beside it an older copy, read-only, as "seed-diskN". An older copy that cannot be
 * opened is not used: the disk is sent whole then. The exports end before the guest runs: QEMU gives a disk to
 * one user only.
 */
#include "kvm.h"

#include <stdio.h>
#include <string.h>

static int socket_path(struct kvm_task *task, char path[PATH_MAX], struct nova_error *err)
{
	return kvm_guest_socket(task->kvm, task->guest->name, "nbd.sock", path, PATH_MAX, err);
}

static enum nova_step_result start_server(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct kvm_task *task = ctx;
	char path[PATH_MAX];

	if (socket_path(task, path, err) < 0)
		return NOVA_STEP_FAILED;
	json_object_set_new(task->result, "path", json_string(path));
	json_object_set_new(task->result, "disks", json_array());
	return kvm_task_qmp(task, "nbd-server-start",
	    json_pack("{s:{s:s,s:{s:s}}}", "addr", "type", "unix", "data", "path", path), NULL, err);
}

static enum nova_step_result end_server(struct nova_run *run, void *ctx, struct nova_error *err)
{
	return kvm_task_try(ctx, "nbd-server-stop", NULL, NULL, err);
}

static json_t *disks_now(const struct kvm_task *task)
{
	return json_object_get(task->guest->spec, "disk");
}

static enum nova_step_result export_next(struct kvm_task *task, json_t *value, struct nova_error *err)
{
	json_t *disks = disks_now(task);
	size_t at = (size_t)kvm_spec_int(task->notes, "at");

	while (at < json_array_size(disks) && !json_object_get(json_array_get(disks, at), "carried"))
		at++;
	json_object_set_new(task->notes, "at", json_integer((json_int_t)at + 1));
	if (at == json_array_size(disks))
		return NOVA_STEP_DONE;
	json_array_append_new(json_object_get(task->result, "disks"),
	    json_pack("{s:o,s:s}", "disk", json_sprintf("disk%zu", at), "sync",
	        json_object_get(json_object_get(task->guest->runtime, "based_on"),
	            kvm_spec_text(json_array_get(disks, at), "path"))
	            ? "top"
	            : "full"));
	return kvm_task_qmp(task, "block-export-add",
	    json_pack("{s:s,s:o,s:o,s:o,s:b}", "type", "nbd", "id", json_sprintf("carry-disk%zu", at),
	        "node-name", json_sprintf("disk%zu", at), "name", json_sprintf("disk%zu", at), "writable", 1),
	    export_next, err);
}

static enum nova_step_result export_disks(struct nova_run *run, void *ctx, struct nova_error *err)
{
	return export_next(ctx, NULL, err);
}

/* ---- older copies ------------------------------------------------------------------------------------ */

static enum nova_step_result seed_next(struct kvm_task *task, json_t *value, struct nova_error *err);

static json_t *seed_disk(const struct kvm_task *task)
{
	return json_array_get(json_object_get(task->result, "disks"), (size_t)kvm_spec_int(task->notes, "seed"));
}

static enum nova_step_result seed_over(struct kvm_task *task, struct nova_error *err)
{
	json_object_set_new(task->notes, "seed", json_integer(kvm_spec_int(task->notes, "seed") + 1));
	return seed_next(task, NULL, err);
}

/* value NULL: refused. */
static enum nova_step_result seed_exported(struct kvm_task *task, json_t *value, struct nova_error *err)
{
	json_t *disk = seed_disk(task);

	if (value)
		json_object_set_new(disk, "seed", json_sprintf("seed-%s", kvm_spec_text(disk, "disk")));
	return seed_over(task, err);
}

static enum nova_step_result seed_opened(struct kvm_task *task, json_t *value, struct nova_error *err)
{
	const char *disk = kvm_spec_text(seed_disk(task), "disk");

	if (!value) {
		kvm_log(task->kvm, NOVA_LOG_WARNING, "kvm: guest %s: the older copy of %s cannot be opened: not used",
		    task->guest->name, disk);
		return seed_over(task, err);
	}
	return kvm_task_try(task, "block-export-add",
	    json_pack("{s:s,s:o,s:o,s:o,s:b}", "type", "nbd", "id", json_sprintf("seed-%s", disk), "node-name",
	        json_sprintf("seed-%s", disk), "name", json_sprintf("seed-%s", disk), "writable", 0),
	    seed_exported, err);
}

/* Is the older copy there, where it may be? */
static bool usable(const struct kvm_task *task, const json_t *copy, const char *path)
{
	const char *format = kvm_spec_text(copy, "format") ?: "";
	struct nova_error why;
	int64_t size = strcmp(format, "qcow2") == 0 ? kvm_path_qcow2(task->kvm->roots, path, &why)
	                                            : kvm_path_existing(task->kvm->roots, "older copy", path, &why);

	if (size >= 0 && json_is_true(json_object_get(copy, "replica")) && kvm_replica_open_to_user(task->kvm, path, &why) < 0)
		size = -1;
	if (size < 0)
		kvm_log(task->kvm, NOVA_LOG_WARNING, "kvm: guest %s: older copy not used: %s", task->guest->name,
		    why.text);
	return size >= 0;
}

static enum nova_step_result seed_next(struct kvm_task *task, json_t *value, struct nova_error *err)
{
	const json_t *disk = seed_disk(task), *copy;
	const char *path;

	if (!disk)
		return NOVA_STEP_DONE;
	copy = kvm_carry_copy(json_object_get(task->args, "copies"), kvm_spec_text(disk, "disk"));
	path = copy ? kvm_carry_seed(task->guest, copy) : NULL;
	if (!path || !usable(task, copy, path))
		return seed_over(task, err);
	return kvm_task_try(task, "blockdev-add",
	    json_pack("{s:O,s:o,s:b,s:{s:s,s:s,s:b}}", "driver", json_object_get(copy, "format"), "node-name",
	        json_sprintf("seed-%s", kvm_spec_text(disk, "disk")), "read-only", 1, "file", "driver", "file",
	        "filename", path, "read-only", 1),
	    seed_opened, err);
}

static enum nova_step_result export_seeds(struct nova_run *run, void *ctx, struct nova_error *err)
{
	return seed_next(ctx, NULL, err);
}

KVM_VERB(mirror_in)
{
	static const struct nova_step rows[] = {
		{ "server", start_server, end_server, kvm_task_stop_waiting },
		{ "disks", export_disks, NULL, kvm_task_stop_waiting },
		{ "older copies", export_seeds, NULL, kvm_task_stop_waiting },
		{ NULL },
	};

	return kvm_task_new(self, guest, args, rows, done, arg, err);
}

/* ---- end ------------------------------------------------------------------------------------------------ */

static enum nova_step_result close_next(struct kvm_task *task, json_t *value, struct nova_error *err)
{
	json_int_t at = kvm_spec_int(task->notes, "at");
	char path[PATH_MAX];

	if (at == 0 && socket_path(task, path, err) == 0)
		unlink(path);
	if (at == KVM_DISKS_MAX)
		return NOVA_STEP_DONE;
	json_object_set_new(task->notes, "at", json_integer(at + 1));
	return kvm_task_try(task, "blockdev-del",
	    json_pack("{s:o}", "node-name", json_sprintf("seed-disk%d", (int)at)), close_next, err);
}

static enum nova_step_result stop_server(struct nova_run *run, void *ctx, struct nova_error *err)
{
	return kvm_task_qmp(ctx, "nbd-server-stop", NULL, close_next, err);
}

KVM_VERB(mirror_in_end)
{
	static const struct nova_step rows[] = {
		{ "stop", stop_server, NULL, kvm_task_stop_waiting },
		{ NULL },
	};

	return kvm_task_new(self, guest, args, rows, done, arg, err);
}
