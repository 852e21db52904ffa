/* SPDX-License-Identifier: Apache-2.0
 *
 * arrive.c - MIGRATE-IN: a container that comes (move.c says as what). Layers that containerd has are not asked for; when the
 * rest is on disk it goes the way of an archive that is imported, where every blob must have the digest that it is called by,
 * and the container is made from the specification as any other.
 *
 * Names of the source's images are not taken over: the image is called novacron/carried:UUID, and goes with the guest. The
 * changes are unpacked by containerd, upon the guest's own snapshot.
 */
#include "drivers/containerd/containerd.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#define LAYERS_MAX 127

static json_t *carried_name(const struct nova_guest *guest)
{
	return json_sprintf("novacron/carried:%s", guest->uuid);
}

enum nova_step_result containerd_drop_image_row(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;

	if (!json_is_true(json_object_get(task->args, "created_only")) && !json_is_true(json_object_get(task->guest->runtime, "carried")))
		return NOVA_STEP_DONE;
	return containerd_ask(task, CTRD_IMAGE_DELETE, json_pack("{s:o,s:b}", "name", carried_name(task->guest), "sync", true), 1u << GRPC_NOT_FOUND,
	    CONTAINERD_LONG_MS, NULL, err);
}

/* ---- what is here already ---- */

static enum nova_step_result name_told(struct task *task, json_t *value, struct nova_error *err)
{
	if (containerd_status(value) == GRPC_NOT_FOUND)
		return NOVA_STEP_DONE;
	nova_error_set(err, NOVA_STATE, "containerd has a container %s on this host already", task->guest->name);
	return NOVA_STEP_FAILED;
}

static enum nova_step_result ask_name(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;

	return containerd_ask(task, CTRD_CONTAINER_GET, json_pack("{s:s}", "id", task->guest->name), 1u << GRPC_NOT_FOUND, 0, name_told, err);
}

static enum nova_step_result look_next(struct task *task, json_t *value, struct nova_error *err)
{
	json_t *layers = json_object_get(json_object_get(task->args, "contents"), "layers");
	size_t next = (size_t)json_integer_value(json_object_get(task->notes, "next"));
	json_t *layer = json_array_get(layers, next);

	if (value && containerd_status(value) == 0)
		json_array_append(json_object_get(task->notes, "held"), json_array_get(layers, next - 1));
	if (next >= LAYERS_MAX || !layer)
		return NOVA_STEP_DONE;
	json_object_set_new(task->notes, "next", json_integer((json_int_t)next + 1));
	return containerd_ask(task, CTRD_CONTENT_INFO, json_pack("{s:O}", "digest", layer), 1u << GRPC_NOT_FOUND, 0, look_next, err);
}

static enum nova_step_result ask_layers(struct nova_run *run, void *ctx, struct nova_error *err)
{
	json_object_set_new(((struct task *)ctx)->notes, "held", json_array());
	return look_next(ctx, NULL, err);
}

/* ---- waiting for it ---- */

static void landed(void *arg);

static enum nova_step_result wait_for_parcel(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;
	struct containerd *containerd = task->self;
	struct containerd_guest *known = task->guest->driver_data;
	NOVA_AUTOJSON json_t *hex = json_array();
	const struct parcel_part part = { .name = "image", .path = task_text(task->notes, "directory"), .held = hex };
	json_t *digest;
	size_t i;

	json_array_foreach (json_object_get(task->notes, "held"), i, digest)
		if (!strncmp(json_string_value(digest) ?: "", "sha256:", 7))
			json_array_append_new(hex, json_string(json_string_value(digest) + 7));
	box_move_free(known->move);
	known->move = box_move_in(&containerd->env, task->guest, &part, 1, landed, known, err);
	if (!known->move)
		return NOVA_STEP_FAILED;
	known->containerd = containerd;
	json_decref(known->held);
	known->held = json_incref(json_object_get(task->notes, "held"));
	json_object_set_new(task->result, "path", json_string(box_move_path(known->move)));
	return NOVA_STEP_DONE;
}

CONTAINERD_VERB(in_prepare)
{
	static const struct nova_step rows[] = {
		{ "name", ask_name, NULL, task_drop_row },
		{ "layers", ask_layers, NULL, task_drop_row },
		{ "clear", containerd_stage_clear_row, NULL, task_drop_row },
		{ "stage", containerd_stage_make_row, containerd_stage_clear_row, task_drop_row },
		{ "listen", wait_for_parcel },
		{ NULL },
	};
	struct containerd *containerd = self;

	if (strcmp(task_text(args, "mode") ?: "cold", "cold")) {
		nova_error_set(err, NOVA_REFUSED, "not supported by %s: %s; --mode cold stops it and starts it there", containerd->driver->name,
		    containerd_no_warm(containerd));
		return NULL;
	}
	if (containerd_know(self, guest, err) < 0)
		return NULL;
	return task_new(self, &containerd->env, guest, args, rows, done, arg, err);
}

/* ---- it has come ---- */

/* On record before the image has its name. */
static enum nova_step_result rename_image(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;
	char key[64];

	containerd_key(task->guest, key);
	json_object_set_new(task->notes, "image", carried_name(task->guest));
	json_object_set_new(task->notes, "snapshot", json_string(key));
	json_object_set_new(task->notes, "snapshotter", json_string(((struct containerd *)task->self)->snapshotter));
	json_object_set_new(task->guest->runtime, "carried", json_true());
	return nova_guest_save(task->guest, err) < 0 ? NOVA_STEP_FAILED : NOVA_STEP_DONE;
}

static enum nova_step_result changes_stored(struct task *task, json_t *value, struct nova_error *err)
{
	return containerd_ask(task, CTRD_DIFF_APPLY,
	    json_pack("{s:{s:s,s:O,s:O},s:O?}", "diff", "media_type", CONTAINERD_LAYER_TYPE, "digest", json_object_get(value, "digest"), "size",
		json_object_get(value, "size"), "mounts", json_object_get(task->notes, "mounts")),
	    0, CONTAINERD_LONG_MS, NULL, err);
}

static enum nova_step_result apply_changes(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;

	task->fd[0] = containerd_archive_open(task, "changes.tar", O_RDONLY, err);
	return task->fd[0] < 0 ? NOVA_STEP_FAILED : containerd_upload(task, "changes", task->fd[0], NULL, NULL, changes_stored, err);
}

static void landing_over(void *arg, json_t *result, const struct nova_error *err)
{
	struct containerd_guest *known = arg;

	known->landing = NULL;
	box_move_arrived(known->move, err);
}

static void landed(void *arg)
{
	static const struct nova_step rows[] = {
		{ "index", containerd_archive_index_row },
		{ "image", rename_image },
		{ "lease", containerd_lease_row, NULL, task_drop_row },
		{ "blobs", containerd_archive_blobs_row, NULL, task_drop_row },
		{ "layers", containerd_layers_row, NULL, task_drop_row },
		{ "name", containerd_name_row, NULL, task_drop_row },
		{ "directory", containerd_directory_row },
		{ "snapshot", containerd_snapshot_row, NULL, task_drop_row },
		{ "mounts", containerd_mounts_row, NULL, task_drop_row },
		{ "changes", apply_changes, NULL, task_drop_row },
		{ "container", containerd_record_row, NULL, task_drop_row },
		{ "unlease", containerd_unlease_row, NULL, task_drop_row },
		{ "clear", containerd_stage_clear_row, NULL, task_drop_row },
		{ NULL },
	};
	struct containerd_guest *known = arg;
	struct task *task;
	char path[PATH_MAX];
	struct nova_error err;

	known->landing = task_new(known->containerd, &known->containerd->env, known->guest, NULL, rows, landing_over, known, &err);
	if (!known->landing) {
		box_move_arrived(known->move, &err);
		return;
	}
	task = (struct task *)known->landing;
	containerd_stage(task, "image", path, sizeof(path));
	json_object_set_new(task->notes, "directory", json_string(path));
	json_object_set(task->notes, "held", known->held);
	json_object_set_new(task->notes, "sync", json_true());
}
