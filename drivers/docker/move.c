/* SPDX-License-Identifier: Apache-2.0
 *
 * move.c - MIGRATE-OUT...: a container that leaves. With its processes: warm.c.
 *
 * It is stopped by then. What it has changed of its image becomes a layer (the engine's commit, named
 * novacron-moving:UUID until the end), and its images leave the engine as an archive, which is taken apart by layers
 * (stage.c). The source's container stays as it is until it is deleted, after the commit of the migration.
 */
#include "drivers/docker/docker.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define VERSION_ROW { "version", docker_version_row, NULL, task_drop_row }

const char *docker_no_move(const char *mode, const json_t *info)
{
	if (!strcmp(mode, "cold"))
		return NULL;
	return !strcmp(mode, "warm") ? docker_no_checkpoint(info) : box_no_live();
}

static const char *image_of(const struct task *task)
{
	return task_text(json_object_get(task->notes, "container"), "Image") ?: "";
}

/* ---- prepare: what it is made of ---- */

static int check_movable(const struct nova_guest *guest, struct nova_error *err)
{
	const json_t *unknown = json_object_get(json_object_get(guest->spec, "adopted"), "unknown");

	if (json_array_size(unknown))
		return nova_error_set(err, NOVA_REFUSED, "guest %s was adopted, and the destination could not make it the same: %.200s",
		    guest->name, json_string_value(json_array_get(unknown, 0)) ?: "");
	if (guest->state == NOVA_GUEST_PAUSED)
		return nova_error_set(err, NOVA_STATE, "guest %s is paused: a container moves when it runs, or is stopped", guest->name);
	return 0;
}

/* Live is not to be had: warm is what there is, if it is. */
static enum nova_step_result info_told(struct task *task, json_t *value, struct nova_error *err)
{
	const char *mode = task_text(task->args, "mode"), *why = docker_no_move("warm", json_object_get(value, "body"));

	if (why) {
		nova_error_set(err, NOVA_REFUSED, "docker: a container does not move %s here: %s; --mode cold stops it and starts it there",
		    mode, why);
		return NOVA_STEP_FAILED;
	}
	json_object_set_new(task->result, "mode", json_string("warm"));
	if (!strcmp(mode, "live"))
		json_object_set_new(task->result, "mode_why", json_string(box_no_live()));
	return NOVA_STEP_DONE;
}

static enum nova_step_result ask_mode(struct nova_run *run, void *ctx, struct nova_error *err)
{
	if (!strcmp(task_text(((struct task *)ctx)->args, "mode") ?: "cold", "cold"))
		return NOVA_STEP_DONE;
	return docker_ask(ctx, "GET", NULL, 0, info_told, err, "/info");
}

static enum nova_step_result container_told(struct task *task, json_t *value, struct nova_error *err)
{
	json_t *container = json_object_get(value, "body"), *mount;
	size_t i;

	json_object_set(task->notes, "container", container);
	json_array_foreach (json_object_get(container, "Mounts"), i, mount)
		if (strcmp(task_text(mount, "Type") ?: "", "bind")) {
			nova_error_set(err, NOVA_REFUSED, "container %s has a %s at %s, which is not carried", task->guest->name,
			    task_text(mount, "Type") ?: "mount", task_text(mount, "Destination") ?: "?");
			return NOVA_STEP_FAILED;
		}
	return NOVA_STEP_DONE;
}

static enum nova_step_result ask_container(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;

	return docker_ask(task, "GET", NULL, 0, container_told, err, "/containers/%s/json", docker_id(task->guest));
}

static enum nova_step_result image_told(struct task *task, json_t *value, struct nova_error *err)
{
	json_t *image = json_object_get(value, "body"), *spec = json_deep_copy(task->guest->spec);
	json_t *layers = json_object_get(json_object_get(image, "RootFS"), "Layers"), *lost;
	bool warm = strcmp(task_text(task->args, "mode") ?: "cold", "cold");

	json_object_del(spec, "adopted");
	if (json_array_size(layers) >= DOCKER_LAYERS_MAX) {
		json_decref(spec);
		nova_error_set(err, NOVA_REFUSED, "the image of container %s has %zu layers, and with its changes there may be %d: export and import it as one",
		    task->guest->name, json_array_size(layers), DOCKER_LAYERS_MAX);
		return NOVA_STEP_FAILED;
	}
	json_object_set(task->result, "memory_bytes", json_object_get(spec, "memory"));
	json_object_set_new(task->result, "state", json_string(nova_guest_state_name(task->guest->state)));
	json_object_set_new(task->result, "contents", json_pack("{s:O?}", "layers", layers));
	lost = box_move_lost(spec, warm);
	json_array_append_new(lost, json_string("fractions of a second in the times of files that it has changed"));
	if (!task_text(spec, "hostname"))
		json_array_append_new(lost, json_string("its host name, which is the container's id: see --hostname"));
	json_object_set_new(task->result, "lost", lost);
	json_object_set_new(task->result, "spec", spec);
	return NOVA_STEP_DONE;
}

static enum nova_step_result ask_image(struct nova_run *run, void *ctx, struct nova_error *err)
{
	return docker_ask(ctx, "GET", NULL, 0, image_told, err, "/images/%s/json", image_of(ctx));
}

DOCKER_VERB(out_prepare)
{
	static const struct nova_step rows[] = {
		VERSION_ROW,
		{ "mode", ask_mode, NULL, task_drop_row },
		{ "container", ask_container, NULL, task_drop_row },
		{ "image", ask_image, NULL, task_drop_row },
		{ NULL },
	};

	if (check_movable(guest, err) < 0)
		return NULL;
	return task_new(self, &((struct docker *)self)->env, guest, args, rows, done, arg, err);
}

/* ---- start: out of the engine, and on its way ---- */

static enum nova_step_result changes_told(struct task *task, json_t *value, struct nova_error *err)
{
	json_object_set_new(task->notes, "changed", json_boolean(json_array_size(json_object_get(value, "body")) > 0));
	json_object_set_new(task->notes, "image", json_string(image_of(task)));
	json_object_set(task->notes, "base", json_object_get(task->notes, "image"));
	/* Of one that came from elsewhere, the image below its earlier changes. */
	if (task_text(task->guest->runtime, "base") && !strcmp(task_text(task->guest->runtime, "image") ?: "", image_of(task)))
		json_object_set(task->notes, "base", json_object_get(task->guest->runtime, "base"));
	return NOVA_STEP_DONE;
}

static enum nova_step_result ask_changes(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;
	struct http_call call = { .method = "GET", .limit_ms = DOCKER_IMAGE_MS };

	return docker_call(task, &call, changes_told, err, "/containers/%s/changes", docker_id(task->guest));
}

static enum nova_step_result committed(struct task *task, json_t *value, struct nova_error *err)
{
	const char *id = task_text(json_object_get(value, "body"), "Id");

	if (!id || strncmp(id, "sha256:", 7) || !docker_is_id(id + 7)) {
		nova_error_set(err, NOVA_REFUSED, "docker: it made an image but gave no id");
		return NOVA_STEP_FAILED;
	}
	json_object_set_new(task->notes, "image", json_string(id));
	return NOVA_STEP_DONE;
}

/* On record before it is there. */
static enum nova_step_result commit(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;
	NOVA_AUTOJSON json_t *body = json_object();
	struct http_call call = { .method = "POST", .body = body, .limit_ms = DOCKER_IMAGE_MS };

	if (!json_is_true(json_object_get(task->notes, "changed")))
		return NOVA_STEP_DONE;
	json_object_set_new(task->guest->runtime, "moving", json_true());
	if (nova_guest_save(task->guest, err) < 0)
		return NOVA_STEP_FAILED;
	return docker_call(task, &call, committed, err, "/commit?container=%s&repo=novacron-moving&tag=%s&pause=0",
	    docker_id(task->guest), task->guest->uuid);
}

static enum nova_step_result save(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;
	struct http_call call = { .method = "GET", .answer_fd = &task->fd[0], .limit_ms = DOCKER_IMAGE_MS };
	const char *image = task_text(task->notes, "image"), *base = task_text(task->notes, "base");
	char path[PATH_MAX];

	docker_stage(task->self, task->guest, "images.tar", path, sizeof(path));
	task->fd[0] = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (task->fd[0] < 0) {
		nova_error_sys(err, errno, "%s", path);
		return NOVA_STEP_FAILED;
	}
	if (!strcmp(image, base))
		return docker_call(task, &call, NULL, err, "/images/get?names=%s", image);
	return docker_call(task, &call, NULL, err, "/images/get?names=%s&names=%s", image, base);
}

static enum nova_step_result unpack(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;
	char tar[PATH_MAX], raw[PATH_MAX];
	const char *argv[] = { "tar", "--extract", "--no-same-owner", "--directory", raw, "--file", tar, NULL };

	docker_stage(task->self, task->guest, "images.tar", tar, sizeof(tar));
	docker_stage(task->self, task->guest, "raw", raw, sizeof(raw));
	if (mkdir(raw, 0700) < 0) {
		nova_error_sys(err, errno, "%s", raw);
		return NOVA_STEP_FAILED;
	}
	return task_program(task, argv, DOCKER_IMAGE_MS, NULL, err);
}

static enum nova_step_result arrange(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;
	char path[PATH_MAX];

	docker_stage(task->self, task->guest, "images.tar", path, sizeof(path));
	unlink(path);
	return docker_stage_arrange(task->self, task->guest, task_text(task->notes, "image"), task_text(task->notes, "base"), err) < 0 ?
		   NOVA_STEP_FAILED :
		   NOVA_STEP_DONE;
}

static enum nova_step_result go(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;
	struct docker *docker = task->self;
	struct docker_guest *known = task->guest->driver_data;
	char image[PATH_MAX], checkpoint[PATH_MAX];
	const struct parcel_part parts[] = { { .name = "image", .path = image }, { .name = "checkpoint", .path = checkpoint } };

	docker_stage(docker, task->guest, "image", image, sizeof(image));
	docker_checkpoint_part(task, checkpoint, sizeof(checkpoint));
	box_move_free(known->move);
	known->move = box_move_out(&docker->env, task->guest, task_text(task->args, "path") ?: "", parts, 2, err);
	return known->move ? NOVA_STEP_DONE : NOVA_STEP_FAILED;
}

/* What is left by a failure, OUT_CANCEL takes away. */
DOCKER_VERB(out_start)
{
	static const struct nova_step rows[] = {
		VERSION_ROW,
		{ "clear", docker_stage_clear, NULL, task_drop_row },
		{ "stage", docker_stage_make },
		{ "container", ask_container, NULL, task_drop_row },
		{ "root", docker_ask_root, NULL, task_drop_row },
		{ "checkpoint", docker_take_checkpoint, NULL, task_drop_row },
		{ "changes", ask_changes, NULL, task_drop_row },
		{ "commit", commit, NULL, task_drop_row },
		{ "save", save, NULL, task_drop_row },
		{ "unpack", unpack, NULL, task_drop_row },
		{ "arrange", arrange },
		{ "send", go },
		{ NULL },
	};

	if (docker_know(self, guest, err) < 0)
		return NULL;
	return task_new(self, &((struct docker *)self)->env, guest, args, rows, done, arg, err);
}

DOCKER_VERB(out_query)
{
	const struct docker_guest *known = guest->driver_data;

	return nova_op_later(((struct docker *)self)->env.base, box_move_query(known ? known->move : NULL), NULL, done, arg, err);
}

/* ---- images that are of no use any more ---- */

/* One that is gone, or that somebody else uses, is as good. */
static void lenient(void *arg, json_t *result, const struct nova_error *err)
{
	bool fine = !err || err->category == NOVA_INVALID || err->category == NOVA_STATE;

	task_done(arg, fine ? result : NULL, fine ? NULL : err);
}

static enum nova_step_result drop_next(struct task *task, json_t *value, struct nova_error *err)
{
	struct docker *docker = task->self;
	json_t *list = json_object_get(task->notes, "drop");
	struct http_call call = { .method = "DELETE", .limit_ms = DOCKER_IMAGE_MS };
	char path[256];
	const char *name = json_string_value(json_array_get(list, 0));

	if (!name) {
		json_object_del(task->guest->runtime, "moving");
		return NOVA_STEP_DONE;
	}
	docker_path(docker, path, sizeof(path), "/images/%s", name);
	call.path = path;
	json_array_remove(list, 0);
	return task_wait(task, http_start(docker->http, &call, lenient, task, err), drop_next);
}

enum nova_step_result docker_drop_images(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;
	const json_t *runtime = task->guest->runtime;
	const char *image = task_text(runtime, "image"), *base = task_text(runtime, "base");
	json_t *list = json_array();

	if (json_is_true(json_object_get(runtime, "moving")))
		json_array_append_new(list, json_sprintf("novacron-moving:%s", task->guest->uuid));
	if (json_is_true(json_object_get(task->args, "created_only")))
		json_array_extend(list, json_object_get(runtime, "loaded"));
	else if (image && base && strcmp(image, base) && !json_is_true(json_object_get(task->notes, "stays")))
		json_array_append_new(list, json_string(image));
	json_object_set_new(task->notes, "drop", list);
	return drop_next(task, NULL, err);
}

/* ---- it stays ---- */

enum nova_step_result docker_stop_moving(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;
	struct docker_guest *known = task->guest->driver_data;

	if (known) {
		nova_op_drop(nova_take(&known->landing));
		known->move = box_move_free(known->move);
	}
	box_move_clear(task->env, task->guest);
	return NOVA_STEP_DONE;
}

enum nova_step_result docker_keep_images(struct nova_run *run, void *ctx, struct nova_error *err)
{
	json_object_set_new(((struct task *)ctx)->notes, "stays", json_true());
	return docker_drop_images(run, ctx, err);
}
