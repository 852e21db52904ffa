/* SPDX-License-Identifier: Apache-2.0
 *
 * checkpoint.c - SNAPSHOT and RESTORE: a running container's processes are written down by CRIU, through runc and
 * its shim, and go on from there.
 *
 * Only with a CRIU that works on this kernel in containerd's PATH: its own words are passed on when not. A checkpoint
 * is a directory, STATE/guests/NAME/checkpoints/SNAPSHOT; it holds processes and memory, not files: those stay as
 * they are at the time of RESTORE. A failing RESTORE leaves the container stopped.
 */
#include "drivers/containerd/containerd.h"
#include "drivers/containerd/api.pb-c.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

/* What is part of a directory's name. */
static int check_name(const json_t *args, struct nova_error *err)
{
	const char *name = task_text(args, "name") ?: "";

	if (*name && strlen(name) <= 63 && strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") == strlen(name) &&
	    *name != '.' && *name != '-')
		return 0;
	return nova_error_set(err, NOVA_INVALID, "'%.80s' is not a name of a snapshot: 1 to 63 of A-Z a-z 0-9 - _ .", name);
}

static int place(const struct task *task, const char *below, char *path, size_t size, struct nova_error *err)
{
	char file[160];

	snprintf(file, sizeof(file), "checkpoints/%s%s", task_text(task->args, "name"), below);
	if (containerd_file(task->self, task->guest, file, path, size) == 0)
		return 0;
	return nova_error_set(err, NOVA_INVALID, "guest %s: the path of its checkpoint is too long", task->guest->name);
}

/* ---- snapshot ---- */

static enum nova_step_result make_directory(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;
	char path[PATH_MAX], above[PATH_MAX];

	if (place(task, "", path, sizeof(path), err) < 0 || containerd_file(task->self, task->guest, "checkpoints", above, sizeof(above)) < 0)
		return NOVA_STEP_FAILED;
	if (mkdir(above, 0700) < 0 && errno != EEXIST) {
		nova_error_sys(err, errno, "cannot make %s", above);
		return NOVA_STEP_FAILED;
	}
	if (mkdir(path, 0700) == 0 && place(task, "/work", path, sizeof(path), err) == 0 && mkdir(path, 0700) == 0)
		return NOVA_STEP_DONE;
	if (errno == EEXIST)
		nova_error_set(err, NOVA_STATE, "guest %s has a snapshot '%s' already: it exists", task->guest->name, task_text(task->args, "name"));
	else
		nova_error_sys(err, errno, "cannot make %s", path);
	/* What is there is not ours to take back. */
	json_object_set_new(task->notes, "keep", json_true());
	return NOVA_STEP_FAILED;
}

static enum nova_step_result remove_directory(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;
	char path[PATH_MAX];
	const char *argv[] = { "rm", "-rf", "--one-file-system", "--", path, NULL };

	if (json_is_true(json_object_get(task->notes, "keep")) || place(task, "", path, sizeof(path), err) < 0)
		return NOVA_STEP_DONE;
	return task_program(task, argv, CONTAINERD_LONG_MS, NULL, err);
}

static enum nova_step_result write_down(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;
	char image[PATH_MAX], work[PATH_MAX];
	NOVA_AUTOJSON json_t *options = NULL;
	json_t *any;

	if (place(task, "", image, sizeof(image), err) < 0 || place(task, "/work", work, sizeof(work), err) < 0)
		return NOVA_STEP_FAILED;
	options = json_pack("{s:s,s:s}", "image_path", image, "work_path", work);
	any = containerd_any("containerd.runc.v1.CheckpointOptions", &ctrd__runc_checkpoint__descriptor, options, err);
	if (!any)
		return NOVA_STEP_FAILED;
	return containerd_ask(task, CTRD_TASK_CHECKPOINT, json_pack("{s:s,s:o}", "container_id", containerd_id(task->guest), "options", any), 0,
	    CONTAINERD_LONG_MS, NULL, err);
}

CONTAINERD_VERB(snapshot)
{
	static const struct nova_step rows[] = {
		{ "directory", make_directory, remove_directory, task_drop_row },
		{ "checkpoint", write_down, NULL, task_drop_row },
		{ "look", containerd_look_row, NULL, task_drop_row },
		{ NULL },
	};
	struct containerd *containerd = self;

	if (check_name(args, err) < 0)
		return NULL;
	if (json_is_true(json_object_get(args, "external"))) {
		nova_error_set(err, NOVA_REFUSED, "not supported by %s: snapshots outside of the guest's own directory", containerd->driver->name);
		return NULL;
	}
	if (guest->state != NOVA_GUEST_RUNNING) {
		nova_error_set(err, NOVA_STATE, "guest %s is %s: %s takes checkpoints of running containers", guest->name, nova_guest_state_name(guest->state),
		    containerd->driver->name);
		return NULL;
	}
	return task_new(self, &containerd->env, guest, args, rows, done, arg, err);
}

/* ---- restore ---- */

static enum nova_step_result is_there(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;
	char path[PATH_MAX];

	if (place(task, "", path, sizeof(path), err) < 0)
		return NOVA_STEP_FAILED;
	if (access(path, F_OK) == 0)
		return NOVA_STEP_DONE;
	nova_error_set(err, NOVA_INVALID, "guest %s has no snapshot '%s'", task->guest->name, task_text(task->args, "name"));
	return NOVA_STEP_FAILED;
}

static enum nova_step_result record_read(struct task *task, json_t *value, struct nova_error *err)
{
	const json_t *container = json_object_get(json_object_get(value, "body"), "container");

	json_object_set(task->notes, "snapshotter", json_object_get(container, "snapshotter"));
	json_object_set(task->notes, "snapshot", json_object_get(container, "snapshot_key"));
	return NOVA_STEP_DONE;
}

static enum nova_step_result ask_record(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;

	return containerd_ask(task, CTRD_CONTAINER_GET, json_pack("{s:s}", "id", containerd_id(task->guest)), 0, 0, record_read, err);
}

static enum nova_step_result go_on(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;
	char image[PATH_MAX], work[PATH_MAX];
	NOVA_AUTOJSON json_t *options = NULL;
	json_t *any;

	if (place(task, "", image, sizeof(image), err) < 0 || place(task, "/work", work, sizeof(work), err) < 0)
		return NOVA_STEP_FAILED;
	options = json_pack("{s:s,s:s}", "criu_image_path", image, "criu_work_path", work);
	any = containerd_any("containerd.runc.v1.Options", &ctrd__runc_options__descriptor, options, err);
	if (!any)
		return NOVA_STEP_FAILED;
	return containerd_make_task(task, containerd_task_request(task, any), CONTAINERD_LONG_MS, err);
}

static enum nova_step_result launch(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;
	struct containerd_guest *known = task->guest->driver_data;

	if (known)
		known->signalled = false;
	return containerd_ask(task, CTRD_TASK_START, json_pack("{s:s}", "container_id", containerd_id(task->guest)), 0, CONTAINERD_LONG_MS, NULL, err);
}

CONTAINERD_VERB(restore)
{
	static const struct nova_step rows[] = {
		{ "is there", is_there },
		{ "record", ask_record, NULL, task_drop_row },
		{ "end", containerd_end_task_row, NULL, task_drop_row },
		{ "mounts", containerd_mounts_row, NULL, task_drop_row },
		{ "task", go_on, containerd_end_task_row, task_drop_row },
		{ "start", launch, NULL, task_drop_row },
		{ "look", containerd_look_row, NULL, task_drop_row },
		{ NULL },
	};

	if (check_name(args, err) < 0)
		return NULL;
	return task_new(self, &((struct containerd *)self)->env, guest, args, rows, done, arg, err);
}
