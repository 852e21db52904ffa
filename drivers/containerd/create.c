/* SPDX-License-Identifier: Apache-2.0
 *
 * create.c - CREATE and DELETE: a lease, the image's layers, the guest's own snapshot, and the container's record.
 *
 * Until the record is there, and refers to the snapshot, the lease keeps containerd's garbage collection off. It
 * expires by itself after a day, should nobody come back for it.
 */
#include "drivers/containerd/containerd.h"
#include "drivers/containerd/api.pb-c.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#define LEASE_S (24 * 60 * 60)
#define REMOVE_MS (10 * 60 * 1000)

static const json_t *spec_of(const struct task *task)
{
	const json_t *given = json_object_get(task->args, "spec");

	return given ? given : task->guest->spec;
}

/* ---- create ---- */

static enum nova_step_result leased(struct task *task, json_t *value, struct nova_error *err)
{
	char key[64];

	containerd_key(task->guest, key);
	json_object_set_new(task->notes, "lease", json_string(key));
	return NOVA_STEP_DONE;
}

enum nova_step_result containerd_lease_row(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;
	time_t until = time(NULL) + LEASE_S;
	struct tm utc;
	char key[64], expires[32];

	containerd_key(task->guest, key);
	strftime(expires, sizeof(expires), "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&until, &utc));
	return containerd_ask(task, CTRD_LEASE_CREATE, json_pack("{s:s,s:{s:s}}", "id", key, "labels", "containerd.io/gc.expire", expires),
	    1u << GRPC_ALREADY_EXISTS, 0, leased, err);
}

static bool is_exact(const struct task *task)
{
	return json_is_true(json_object_get(task->args, "created_only")) || json_is_true(json_object_get(task->notes, "sync"));
}

enum nova_step_result containerd_unlease_row(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;
	char key[64];

	containerd_key(task->guest, key);
	json_object_del(task->notes, "lease");
	/* What was half made is gone when that is answered. */
	return containerd_ask(task, CTRD_LEASE_DELETE, json_pack("{s:s,s:b}", "id", key, "sync", nova_run_undoing(run) || is_exact(task)),
	    1u << GRPC_NOT_FOUND, 0, NULL, err);
}

static enum nova_step_result name_image(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;

	json_object_set(task->notes, "image", json_object_get(spec_of(task), "image"));
	return NOVA_STEP_DONE;
}

enum nova_step_result containerd_snapshot_row(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;
	const struct containerd *containerd = task->self;
	const json_t *chain = json_object_get(task->notes, "chain");
	char key[64];

	containerd_key(task->guest, key);
	return containerd_make_snapshot(task, CTRD_SNAPSHOT_PREPARE,
	    json_pack("{s:s,s:s,s:O}", "snapshotter", containerd->snapshotter, "key", key, "parent", json_array_get(chain, json_array_size(chain) - 1)),
	    1u << GRPC_ALREADY_EXISTS, NULL, err);
}

static enum nova_step_result remove_snapshot(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;
	const struct containerd *containerd = task->self;
	const char *of = task_text(task->notes, "snapshotter");
	char key[64];

	containerd_key(task->guest, key);
	return containerd_ask(task, CTRD_SNAPSHOT_REMOVE,
	    json_pack("{s:s,s:s}", "snapshotter", of ? of : containerd->snapshotter, "key", task_text(task->notes, "snapshot") ?: key),
	    1u << GRPC_NOT_FOUND, REMOVE_MS, NULL, err);
}

static json_t *labels_of(const struct nova_guest *guest, const json_t *spec)
{
	json_t *labels = json_pack("{s:s}", "novacron.uuid", guest->uuid), *item;
	size_t i;

	json_array_foreach (json_object_get(spec, "label"), i, item) {
		const char *text = json_string_value(item), *equals = strchr(text, '=');
		NOVA_AUTOFREE char *name = equals ? strndup(text, (size_t)(equals - text)) : NULL;

		if (name)
			json_object_set_new(labels, name, json_string(equals + 1));
	}
	return labels;
}

/* On record before anything is started with it. */
static enum nova_step_result made(struct task *task, json_t *value, struct nova_error *err)
{
	json_object_set_new(task->guest->runtime, "id", json_string(task->guest->name));
	if (containerd_know(task->self, task->guest, err) < 0 || nova_guest_save(task->guest, err) < 0)
		return NOVA_STEP_FAILED;
	return NOVA_STEP_DONE;
}

enum nova_step_result containerd_record_row(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;
	const struct containerd *containerd = task->self;
	NOVA_AUTOJSON json_t *oci = containerd_oci_spec(task->guest, spec_of(task), json_object_get(task->notes, "config"), err);
	char key[64];

	if (!oci)
		return NOVA_STEP_FAILED;
	containerd_key(task->guest, key);
	return containerd_ask(task, CTRD_CONTAINER_CREATE,
	    json_pack("{s:{s:s,s:o,s:O,s:{s:s},s:o,s:s,s:s}}", "container", "id", task->guest->name, "labels", labels_of(task->guest, spec_of(task)), "image",
		json_object_get(task->notes, "image"), "runtime", "name", containerd->runtime, "spec",
		containerd_any_json("types.containerd.io/opencontainers/runtime-spec/1/Spec", oci), "snapshotter", containerd->snapshotter, "snapshot_key", key),
	    0, 0, made, err);
}

enum nova_step_result containerd_directory_row(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;
	const struct containerd *containerd = task->self;
	char path[PATH_MAX];

	if (containerd_file(containerd, task->guest, "", path, sizeof(path)) < 0) {
		nova_error_set(err, NOVA_INVALID, "%s: the path of guest %s is too long", containerd->driver->name, task->guest->name);
		return NOVA_STEP_FAILED;
	}
	*strrchr(path, '/') = 0;
	if (mkdir(path, 0700) < 0 && errno != EEXIST) {
		nova_error_sys(err, errno, "cannot make %s", path);
		return NOVA_STEP_FAILED;
	}
	containerd_file(containerd, task->guest, "", path, sizeof(path));
	if (mkdir(path, 0700) < 0 && errno != EEXIST) {
		nova_error_sys(err, errno, "cannot make %s", path);
		return NOVA_STEP_FAILED;
	}
	return NOVA_STEP_DONE;
}

static enum nova_step_result remove_directory(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;
	char path[PATH_MAX];
	const char *argv[] = { "rm", "-rf", "--one-file-system", "--", path, NULL };

	if (containerd_file(task->self, task->guest, "", path, sizeof(path)) < 0)
		return NOVA_STEP_DONE;
	return task_program(task, argv, REMOVE_MS, NULL, err);
}

/* Only one of ours by its label: the name may be somebody else's. */
static enum nova_step_result remove_made(struct nova_run *run, void *ctx, struct nova_error *err);

CONTAINERD_VERB(create)
{
	static const struct nova_step rows[] = {
		{ "name", name_image },
		CONTAINERD_IMAGE_ROWS,
		{ "directory", containerd_directory_row, remove_directory, task_drop_row },
		{ "lease", containerd_lease_row, containerd_unlease_row, task_drop_row },
		{ "layers", containerd_layers_row, NULL, task_drop_row },
		{ "snapshot", containerd_snapshot_row, remove_snapshot, task_drop_row },
		{ "container", containerd_record_row, remove_made, task_drop_row },
		{ "unlease", containerd_unlease_row, NULL, task_drop_row },
		{ NULL },
	};

	return task_new(self, &((struct containerd *)self)->env, guest, args, rows, done, arg, err);
}

/* ---- delete ---- */

/* The container's record, unless the name is somebody else's. */
static enum nova_step_result seen(struct task *task, json_t *value, struct nova_error *err)
{
	const json_t *container = json_object_get(json_object_get(value, "body"), "container");
	const char *uuid = task_text(json_object_get(container, "labels"), "novacron.uuid");
	bool adopted = *containerd_id(task->guest) && !uuid && !json_is_true(json_object_get(task->args, "created_only"));

	json_object_del(task->notes, "container");
	if (!container || !(adopted || (uuid && !strcmp(uuid, task->guest->uuid))))
		return NOVA_STEP_DONE;
	json_object_set(task->notes, "container", json_object_get(container, "id"));
	json_object_set(task->guest->runtime, "id", json_object_get(container, "id"));
	if (task_text(container, "snapshot_key")) {
		json_object_set(task->notes, "snapshot", json_object_get(container, "snapshot_key"));
		json_object_set(task->notes, "snapshotter", json_object_get(container, "snapshotter"));
	}
	return NOVA_STEP_DONE;
}

static enum nova_step_result find(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;
	const char *id = containerd_id(task->guest);

	return containerd_ask(task, CTRD_CONTAINER_GET, json_pack("{s:s}", "id", *id ? id : task->guest->name), 1u << GRPC_NOT_FOUND, 0, seen, err);
}

static enum nova_step_result end_task(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;
	struct containerd_guest *known = task->guest->driver_data;

	if (known)
		known->deleting = true;
	return task_text(task->notes, "container") ? containerd_end_task_row(run, ctx, err) : NOVA_STEP_DONE;
}

static enum nova_step_result remove_container(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;
	const char *id = task_text(task->notes, "container");

	if (!id)
		return NOVA_STEP_DONE;
	return containerd_ask(task, CTRD_CONTAINER_DELETE, json_pack("{s:s}", "id", id), 1u << GRPC_NOT_FOUND, 0, NULL, err);
}

static enum nova_step_result forget(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;

	json_object_del(task->guest->runtime, "id");
	containerd_forget(task->self, task->guest);
	return NOVA_STEP_DONE;
}

static enum nova_step_result found_made(struct task *task, json_t *value, struct nova_error *err)
{
	seen(task, value, err);
	return remove_container(NULL, task, err);
}

static enum nova_step_result remove_made(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;

	return containerd_ask(task, CTRD_CONTAINER_GET, json_pack("{s:s}", "id", task->guest->name), 1u << GRPC_NOT_FOUND, 0, found_made, err);
}

/* Taking back a CREATE waits for a containerd that died in the middle of it: nobody else knows what it made. */
CONTAINERD_VERB(delete)
{
	static const struct nova_step rows[] = {
		{ "stop moving", containerd_stop_moving_row },
		{ "containerd", containerd_patient_row, NULL, task_drop_row },
		{ "find", find, NULL, task_drop_row },
		{ "task", end_task, NULL, task_drop_row },
		{ "container", remove_container, NULL, task_drop_row },
		{ "snapshot", remove_snapshot, NULL, task_drop_row },
		{ "image", containerd_drop_image_row, NULL, task_drop_row },
		{ "lease", containerd_unlease_row, NULL, task_drop_row },
		{ "stage", containerd_stage_clear_row, NULL, task_drop_row },
		{ "directory", remove_directory, NULL, task_drop_row },
		{ "forget", forget },
		{ NULL },
	};

	return task_new(self, &((struct containerd *)self)->env, guest, args, rows, done, arg, err);
}
