/* SPDX-License-Identifier: Apache-2.0
 *
 * mirror.c - carried disks of a guest that leaves: MIRROR_START, MIRROR_QUERY, MIRROR_END.
 *
 * For each disk an NBD client node ("carry-diskN-target") connects to a unix socket of ours, and a blockdev-mirror
 * job ("carry-diskN") copies the disk there and then follows what the guest writes. The guest goes on using its
 * own disk to the end: ending a mirror that is ready (in the pause) leaves a whole copy over there, and
 * cancelling it leaves nothing here. Zeroes are detected and discards passed on, so that what is sparse stays so.
 */
#include "kvm.h"

#include <stdio.h>
#include <string.h>

#define PREFIX "carry-"
/* What is dirty is kept in pieces of this size: small ones save bytes, and a bitmap of 8 MiB is enough. */
#define PIECE_SMALL 4096
#define PIECE_LARGE 65536
#define SMALL_PIECES_MAX (256ll << 30) /* bytes of a disk */

static const char *const prefixes[] = { PREFIX, NULL };

/* ---- what the jobs say by themselves ----------------------------------------------------------------- */

void kvm_mirror_event(struct kvm_guest *live, const char *name, json_t *data)
{
	const char *job = kvm_spec_text(data, "device"), *error = kvm_spec_text(data, "error");
	bool cancelled = strcmp(name, "BLOCK_JOB_CANCELLED") == 0;
	NOVA_AUTOJSON json_t *told = NULL;

	if (!kvm_is_job(job, prefixes) || !kvm_job_over(name))
		return;
	told = json_pack("{s:s,s:s}", "disk", job + sizeof(PREFIX) - 1, "status",
	    cancelled ? "cancelled" : error ? "failed" : "ended");
	if (error)
		json_object_set_new(told, "error", json_string(error));
	nova_guest_event(live->guest, "DISK_MIRROR", told);
}

/* ---- end, in order or not ------------------------------------------------------------------------------ */

static enum nova_step_result end_jobs(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct kvm_task *task = ctx;
	size_t count = (size_t)kvm_spec_int(task->args, "count");

	return kvm_jobs_end(task, prefixes, count, json_is_true(json_object_get(task->args, "cancel")), err);
}

static enum nova_step_result remove_next(struct kvm_task *task, json_t *value, struct nova_error *err)
{
	json_int_t at = kvm_spec_int(task->notes, "target");

	if (at == KVM_DISKS_MAX)
		return NOVA_STEP_DONE;
	json_object_set_new(task->notes, "target", json_integer(at + 1));
	return kvm_task_try(task, "blockdev-del",
	    json_pack("{s:o}", "node-name", json_sprintf(PREFIX "disk%d-target", (int)at)), remove_next, err);
}

static enum nova_step_result remove_targets(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct kvm_task *task = ctx;

	return kvm_guest_live(task->guest) ? remove_next(task, NULL, err) : NOVA_STEP_DONE;
}

KVM_VERB(mirror_end)
{
	static const struct nova_step rows[] = {
		{ "end", end_jobs, NULL, kvm_task_stop_waiting },
		{ "targets", remove_targets, NULL, kvm_task_stop_waiting },
		{ NULL },
	};

	return kvm_task_new(self, guest, args, rows, done, arg, err);
}

/* ---- start ----------------------------------------------------------------------------------------------- */

/* The node that a disk's device uses now: snapshots change it. */
static const json_t *inserted_of(const json_t *devices, const char *disk)
{
	char device[64];
	json_t *block;
	size_t i;

	snprintf(device, sizeof(device), "/%s-device/", disk);
	json_array_foreach ((json_t *)devices, i, block)
		if (strstr(kvm_spec_text(block, "qdev") ?: "", device))
			return json_object_get(block, "inserted");
	return NULL;
}

/* One that somebody else started names its devices otherwise: then the file tells. */
static const json_t *inserted_of_file(const json_t *devices, const char *path)
{
	json_t *block;
	size_t i;

	json_array_foreach ((json_t *)devices, i, block) {
		const json_t *inserted = json_object_get(block, "inserted");

		if (path && strcmp(kvm_spec_text(inserted, "file") ?: "", path) == 0)
			return inserted;
	}
	return NULL;
}

const json_t *kvm_disk_inserted(const json_t *devices, const json_t *disk)
{
	const json_t *inserted = inserted_of(devices, kvm_spec_text(disk, "disk") ?: "");

	return inserted ? inserted : inserted_of_file(devices, kvm_spec_text(disk, "file"));
}

static enum nova_step_result blocks_known(struct kvm_task *task, json_t *value, struct nova_error *err)
{
	json_t *disk;
	size_t i;

	json_array_foreach (json_object_get(task->args, "disks"), i, disk) {
		const char *name = kvm_spec_text(disk, "disk") ?: "";
		const char *node = kvm_spec_text(kvm_disk_inserted(value, disk), "node-name");

		if (!node) {
			nova_error_set(err, NOVA_REFUSED, "QEMU has no %s", name);
			return NOVA_STEP_FAILED;
		}
		json_object_set_new(disk, "node", json_string(node));
	}
	return NOVA_STEP_DONE;
}

static enum nova_step_result find_nodes(struct nova_run *run, void *ctx, struct nova_error *err)
{
	return kvm_task_qmp(ctx, "query-block", NULL, blocks_known, err);
}

static enum nova_step_result mirror_next(struct kvm_task *task, json_t *value, struct nova_error *err);

static enum nova_step_result target_added(struct kvm_task *task, json_t *value, struct nova_error *err)
{
	size_t at = (size_t)kvm_spec_int(task->notes, "at");
	const json_t *disk = json_array_get(json_object_get(task->args, "disks"), at);
	const char *name = kvm_spec_text(disk, "disk");
	int piece = kvm_spec_int(disk, "size") > SMALL_PIECES_MAX ? PIECE_LARGE : PIECE_SMALL;

	json_object_set_new(task->notes, "at", json_integer((json_int_t)at + 1));
	return kvm_task_qmp(task, "blockdev-mirror",
	    json_pack("{s:o,s:O,s:o,s:s,s:i,s:s,s:s}", "job-id", json_sprintf(PREFIX "%s", name), "device",
	        json_object_get(disk, "node"), "target", json_sprintf(PREFIX "%s-target", name), "sync",
	        kvm_spec_text(disk, "sync") ?: "full", "granularity", piece, "on-source-error", "report",
	        "on-target-error", "report"),
	    mirror_next, err);
}

static enum nova_step_result mirror_next(struct kvm_task *task, json_t *value, struct nova_error *err)
{
	size_t at = (size_t)kvm_spec_int(task->notes, "at");
	const json_t *disk = json_array_get(json_object_get(task->args, "disks"), at);

	if (!disk)
		return NOVA_STEP_DONE;
	return kvm_task_qmp(task, "blockdev-add",
	    json_pack("{s:s,s:o,s:{s:s,s:O},s:s,s:s,s:s}", "driver", "nbd", "node-name",
	        json_sprintf(PREFIX "%s-target", kvm_spec_text(disk, "disk")), "server", "type", "unix", "path",
	        json_object_get(disk, "path"), "export", "", "discard", "unmap", "detect-zeroes", "unmap"),
	    target_added, err);
}

static enum nova_step_result start_mirrors(struct nova_run *run, void *ctx, struct nova_error *err)
{
	return mirror_next(ctx, NULL, err);
}

/* What was begun is cancelled. */
static enum nova_step_result undo_mirrors(struct nova_run *run, void *ctx, struct nova_error *err)
{
	return kvm_jobs_end(ctx, prefixes, 0, true, err);
}

static enum nova_step_result undo_targets(struct nova_run *run, void *ctx, struct nova_error *err)
{
	return remove_targets(run, ctx, err);
}

static enum nova_step_result nothing(struct nova_run *run, void *ctx, struct nova_error *err)
{
	return NOVA_STEP_DONE;
}

KVM_VERB(mirror_start)
{
	static const struct nova_step rows[] = {
		{ "nodes", find_nodes, NULL, kvm_task_stop_waiting },
		{ "targets", nothing, undo_targets, kvm_task_stop_waiting },
		{ "mirrors", start_mirrors, undo_mirrors, kvm_task_stop_waiting },
		{ NULL },
	};

	return kvm_task_new(self, guest, args, rows, done, arg, err);
}

/* ---- query ------------------------------------------------------------------------------------------------- */

static enum nova_step_result tell_jobs(struct kvm_task *task, json_t *value, struct nova_error *err)
{
	json_t *disks = json_array(), *job;
	size_t i;

	json_array_foreach (value, i, job)
		if (kvm_is_job(kvm_spec_text(job, "device"), prefixes))
			json_array_append_new(disks,
			    json_pack("{s:s,s:b,s:I,s:I}", "disk",
			        kvm_spec_text(job, "device") + sizeof(PREFIX) - 1, "ready",
			        json_is_true(json_object_get(job, "ready")), "done_bytes",
			        (json_int_t)kvm_spec_int(job, "offset"), "total_bytes",
			        (json_int_t)kvm_spec_int(job, "len")));
	json_object_set_new(task->result, "disks", disks);
	return NOVA_STEP_DONE;
}

static enum nova_step_result ask_jobs(struct nova_run *run, void *ctx, struct nova_error *err)
{
	return kvm_task_qmp(ctx, "query-block-jobs", NULL, tell_jobs, err);
}

KVM_VERB(mirror_query)
{
	static const struct nova_step rows[] = {
		{ "ask", ask_jobs, NULL, kvm_task_stop_waiting },
		{ NULL },
	};

	return kvm_task_new(self, guest, args, rows, done, arg, err);
}
