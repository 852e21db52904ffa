/* SPDX-License-Identifier: Apache-2.0
 *
 * move.c - MIGRATE-OUT...: a container that leaves, cold.
 *
 * It is stopped by then. STATE/moving/UUID/image becomes its image as an OCI layout (blobs by digest: what the destination
 * holds is not sent) and changes.tar, what it has changed of its image, by containerd's Diff between its snapshot and the one
 * below. The record and the snapshot stay as they are until they are deleted, after the commit of the migration. Whatever is
 * made in containerd is under the guest's lease, and goes with it. Not here: checkpoints that are carried.
 */
#include "drivers/containerd/containerd.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

/* ---- the directory ---- */

int containerd_stage(const struct task *task, const char *sub, char *path, size_t size)
{
	const struct containerd *containerd = task->self;
	int length = snprintf(path, size, "%s/moving/%s%s%s", containerd->state_dir, task->guest->uuid, *sub ? "/" : "", sub);

	return length > 0 && (size_t)length < size ? 0 : -1;
}

enum nova_step_result containerd_stage_clear_row(struct nova_run *run, void *ctx, struct nova_error *err)
{
	char path[PATH_MAX];
	const char *argv[] = { "rm", "-rf", "--one-file-system", "--", path, NULL };

	if (containerd_stage(ctx, "", path, sizeof(path)) < 0 || access(path, F_OK) < 0)
		return NOVA_STEP_DONE;
	return task_program(ctx, argv, CONTAINERD_LONG_MS, NULL, err);
}

enum nova_step_result containerd_stage_make_row(struct nova_run *run, void *ctx, struct nova_error *err)
{
	static const char *const subs[] = { "..", "", "image" };
	struct task *task = ctx;
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/moving", ((struct containerd *)task->self)->state_dir);
	for (size_t i = 0; i < sizeof(subs) / sizeof(*subs); i++) {
		if (i > 0 && containerd_stage(task, subs[i], path, sizeof(path)) < 0)
			errno = ENAMETOOLONG;
		else if (mkdir(path, 0700) == 0 || errno == EEXIST)
			continue;
		nova_error_sys(err, errno, "cannot make %s", path);
		return NOVA_STEP_FAILED;
	}
	json_object_set_new(task->notes, "directory", json_string(path));
	return NOVA_STEP_DONE;
}

static enum nova_step_result make_blobs(struct nova_run *run, void *ctx, struct nova_error *err)
{
	static const char *const subs[] = { "image/blobs", "image/blobs/sha256" };
	char path[PATH_MAX];

	for (size_t i = 0; i < sizeof(subs) / sizeof(*subs); i++)
		if (containerd_stage(ctx, subs[i], path, sizeof(path)) < 0 || mkdir(path, 0700) < 0) {
			nova_error_sys(err, errno, "cannot make %s", path);
			return NOVA_STEP_FAILED;
		}
	return NOVA_STEP_DONE;
}

/* ---- prepare: what it is made of ---- */

const char *containerd_no_warm(const struct containerd *containerd)
{
	return containerd->driver->verb[NOVA_VERB_SNAPSHOT] ? "its processes do not move along yet: no checkpoint of containerd's is carried" :
							      "its processes are in a virtual machine whose monitor and devices its shim owns";
}

static int check_movable(const struct containerd *containerd, const struct nova_guest *guest, const char *mode, struct nova_error *err)
{
	const json_t *unknown = json_object_get(json_object_get(guest->spec, "adopted"), "unknown");

	if (json_array_size(unknown))
		return nova_error_set(err, NOVA_REFUSED, "guest %s was adopted, and the destination could not make it the same: %.200s", guest->name,
		    json_string_value(json_array_get(unknown, 0)) ?: "");
	if (guest->state == NOVA_GUEST_PAUSED)
		return nova_error_set(err, NOVA_STATE, "guest %s is paused: a container moves when it runs, or is stopped", guest->name);
	if (strcmp(mode, "cold"))
		return nova_error_set(err, NOVA_REFUSED, "%s: a container does not move %s here: %s; --mode cold stops it and starts it there",
		    containerd->driver->name, mode, containerd_no_warm(containerd));
	return 0;
}

static enum nova_step_result container_told(struct task *task, json_t *value, struct nova_error *err)
{
	json_t *container = json_object_get(json_object_get(value, "body"), "container");

	if (!task_text(container, "image") || !task_text(container, "snapshot_key")) {
		nova_error_set(err, NOVA_REFUSED, "container %s is not made of an image and a snapshot of containerd, and does not move", containerd_id(task->guest));
		return NOVA_STEP_FAILED;
	}
	json_object_set(task->notes, "image", json_object_get(container, "image"));
	json_object_set(task->notes, "snapshot", json_object_get(container, "snapshot_key"));
	json_object_set(task->notes, "snapshotter", json_object_get(container, "snapshotter"));
	return NOVA_STEP_DONE;
}

static enum nova_step_result ask_container(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;

	return containerd_ask(task, CTRD_CONTAINER_GET, json_pack("{s:s}", "id", containerd_id(task->guest)), 0, 0, container_told, err);
}

static enum nova_step_result tell_contents(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;
	json_t *spec = json_deep_copy(task->guest->spec), *layers = json_array(), *layer, *lost = box_move_lost(spec, false);
	size_t i;

	json_object_del(spec, "adopted");
	json_array_foreach (json_object_get(json_object_get(task->notes, "manifest"), "layers"), i, layer)
		json_array_append(layers, json_object_get(layer, "digest"));
	json_array_append_new(lost, json_string("fractions of a second in the times of files that it has changed"));
	json_object_set(task->result, "memory_bytes", json_object_get(spec, "memory"));
	json_object_set_new(task->result, "state", json_string(nova_guest_state_name(task->guest->state)));
	json_object_set_new(task->result, "contents", json_pack("{s:o}", "layers", layers));
	json_object_set_new(task->result, "lost", lost);
	json_object_set_new(task->result, "spec", spec);
	return NOVA_STEP_DONE;
}

CONTAINERD_VERB(out_prepare)
{
	static const struct nova_step rows[] = {
		{ "container", ask_container, NULL, task_drop_row },
		CONTAINERD_IMAGE_ROWS,
		{ "contents", tell_contents },
		{ NULL },
	};

	if (check_movable(self, guest, task_text(args, "mode") ?: "cold", err) < 0)
		return NULL;
	return task_new(self, &((struct containerd *)self)->env, guest, args, rows, done, arg, err);
}

/* ---- start: what it has changed of its image ---- */

static enum nova_step_result below_told(struct task *task, json_t *value, struct nova_error *err)
{
	json_object_set(task->notes, "below", json_object_get(json_object_get(value, "body"), "mounts"));
	return NOVA_STEP_DONE;
}

static enum nova_step_result parent_told(struct task *task, json_t *value, struct nova_error *err)
{
	const json_t *chain = json_object_get(task->notes, "chain");
	json_t *parent = json_object_get(json_object_get(json_object_get(value, "body"), "info"), "parent");
	char key[96];

	if (!json_equal(parent, json_array_get(chain, json_array_size(chain) - 1))) {
		nova_error_set(err, NOVA_REFUSED, "container %s is not made upon what its image %.120s is now: the image was replaced since; import it again as it was",
		    containerd_id(task->guest), task_text(task->notes, "image"));
		return NOVA_STEP_FAILED;
	}
	snprintf(key, sizeof(key), "%s-below", task_text(task->notes, "lease"));
	return containerd_make_snapshot(task, CTRD_SNAPSHOT_VIEW,
	    json_pack("{s:O,s:s,s:O}", "snapshotter", json_object_get(task->notes, "snapshotter"), "key", key, "parent", parent), 0, below_told, err);
}

static enum nova_step_result ask_below(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;

	json_object_set_new(task->notes, "sync", json_true());
	return containerd_ask(task, CTRD_SNAPSHOT_STAT,
	    json_pack("{s:O,s:O}", "snapshotter", json_object_get(task->notes, "snapshotter"), "key", json_object_get(task->notes, "snapshot")), 0, 0, parent_told,
	    err);
}

static enum nova_step_result changes_told(struct task *task, json_t *value, struct nova_error *err)
{
	const char *digest = task_text(json_object_get(json_object_get(value, "body"), "diff"), "digest");
	char path[PATH_MAX];

	if (!digest) {
		nova_error_set(err, NOVA_REFUSED, "containerd compared snapshots but gave no digest");
		return NOVA_STEP_FAILED;
	}
	containerd_stage(task, "image/changes.tar", path, sizeof(path));
	task->fd[0] = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (task->fd[0] < 0) {
		nova_error_sys(err, errno, "%s", path);
		return NOVA_STEP_FAILED;
	}
	return containerd_download(task, digest, task->fd[0], NULL, err);
}

static enum nova_step_result ask_changes(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;

	return containerd_ask(task, CTRD_DIFF_DIFF,
	    json_pack("{s:O?,s:O?,s:s}", "left", json_object_get(task->notes, "below"), "right", json_object_get(task->notes, "mounts"), "media_type",
		CONTAINERD_LAYER_TYPE),
	    0, CONTAINERD_LONG_MS, changes_told, err);
}

static enum nova_step_result go(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;
	struct containerd *containerd = task->self;
	struct containerd_guest *known = task->guest->driver_data;
	const struct parcel_part part = { .name = "image", .path = task_text(task->notes, "directory") };

	box_move_free(known->move);
	known->move = box_move_out(&containerd->env, task->guest, task_text(task->args, "path") ?: "", &part, 1, err);
	return known->move ? NOVA_STEP_DONE : NOVA_STEP_FAILED;
}

/* What is left by a failure, OUT_CANCEL takes away. A task that ended by itself would still have the files mounted. */
CONTAINERD_VERB(out_start)
{
	static const struct nova_step rows[] = {
		{ "end", containerd_end_task_row, NULL, task_drop_row },
		{ "clear", containerd_stage_clear_row, NULL, task_drop_row },
		{ "stage", containerd_stage_make_row },
		{ "blobs", make_blobs },
		{ "container", ask_container, NULL, task_drop_row },
		CONTAINERD_IMAGE_ROWS,
		{ "target", containerd_archive_target_row },
		{ "lease", containerd_lease_row, NULL, task_drop_row },
		{ "below", ask_below, NULL, task_drop_row },
		{ "mounts", containerd_mounts_row, NULL, task_drop_row },
		{ "changes", ask_changes, NULL, task_drop_row },
		{ "unlease", containerd_unlease_row, NULL, task_drop_row },
		{ "fetch", containerd_archive_fetch_row, NULL, task_drop_row },
		{ "layout", containerd_archive_layout_row },
		{ "send", go },
		{ NULL },
	};

	if (guest->state == NOVA_GUEST_RUNNING || guest->state == NOVA_GUEST_PAUSED) {
		nova_error_set(err, NOVA_STATE, "guest %s is %s: it moves when it is stopped", guest->name, nova_guest_state_name(guest->state));
		return NULL;
	}
	if (containerd_know(self, guest, err) < 0)
		return NULL;
	return task_new(self, &((struct containerd *)self)->env, guest, args, rows, done, arg, err);
}

CONTAINERD_VERB(out_query)
{
	const struct containerd_guest *known = guest->driver_data;

	return nova_op_later(((struct containerd *)self)->env.base, box_move_query(known ? known->move : NULL), NULL, done, arg, err);
}

/* ---- it stays ---- */

enum nova_step_result containerd_stop_moving_row(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;
	struct containerd_guest *known = task->guest->driver_data;

	if (known) {
		nova_op_drop(nova_take(&known->landing));
		known->move = box_move_free(known->move);
	}
	box_move_clear(task->env, task->guest);
	return NOVA_STEP_DONE;
}

static enum nova_step_result wait_for_it(struct nova_run *run, void *ctx, struct nova_error *err)
{
	json_object_set_new(((struct task *)ctx)->notes, "sync", json_true());
	return containerd_patient_row(run, ctx, err);
}

static enum nova_step_result tell_stopped(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct nova_guest *guest = ((struct task *)ctx)->guest;

	if (guest->state == NOVA_GUEST_MIGRATED || guest->state == NOVA_GUEST_IN_DOUBT)
		nova_guest_set_state(guest, NOVA_GUEST_STOPPED, "it stays here");
	return nova_guest_save(guest, err) < 0 ? NOVA_STEP_FAILED : NOVA_STEP_DONE;
}

/* After a restart, too, with nothing but the record. */
CONTAINERD_VERB(out_cancel)
{
	static const struct nova_step rows[] = {
		{ "stop", containerd_stop_moving_row },
		{ "clear", containerd_stage_clear_row, NULL, task_drop_row },
		{ "containerd", wait_for_it, NULL, task_drop_row },
		{ "lease", containerd_unlease_row, NULL, task_drop_row },
		{ "tell", tell_stopped },
		{ NULL },
	};

	return task_new(self, &((struct containerd *)self)->env, guest, args, rows, done, arg, err);
}
