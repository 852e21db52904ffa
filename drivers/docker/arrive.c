/* SPDX-License-Identifier: Apache-2.0
 *
 * arrive.c - MIGRATE-IN: a container that comes. Layers that the engine has, below any image, are not asked for; when the
 * rest is on disk the engine loads the images, and the container is made from the specification as any other.
 */
#include "drivers/docker/docker.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#define IMAGES_MAX 2000 /* that are looked at for layers */
#define VERSION_ROW { "version", docker_version_row, NULL, task_drop_row }

/* ---- what is here already ---- */

static enum nova_step_result name_told(struct task *task, json_t *value, struct nova_error *err)
{
	if (docker_status(value) == 404)
		return NOVA_STEP_DONE;
	nova_error_set(err, NOVA_STATE, "docker has a container %s on this host already", task->guest->name);
	return NOVA_STEP_FAILED;
}

static enum nova_step_result ask_name(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;

	return docker_ask(task, "GET", NULL, 404, name_told, err, "/containers/%s/json", task->guest->name);
}

/* A layer is of use where everything below it is the same, too. */
static void compare_layers(struct task *task, const json_t *image)
{
	json_t *wanted = json_object_get(json_object_get(task->args, "contents"), "layers");
	json_t *there = json_object_get(json_object_get(image, "RootFS"), "Layers");
	json_int_t best = json_integer_value(json_object_get(task->notes, "held"));
	json_int_t same = 0;

	while (same < (json_int_t)json_array_size(wanted) && same < DOCKER_LAYERS_MAX &&
	       json_equal(json_array_get(wanted, (size_t)same), json_array_get(there, (size_t)same)))
		same++;
	if (same > best)
		json_object_set_new(task->notes, "held", json_integer(same));
}

static enum nova_step_result look_next(struct task *task, json_t *value, struct nova_error *err)
{
	json_t *ids = json_object_get(task->notes, "images");
	json_int_t next = json_integer_value(json_object_get(task->notes, "next"));
	const char *id = json_string_value(json_array_get(ids, (size_t)next));

	if (docker_status(value) == 200)
		compare_layers(task, json_object_get(value, "body"));
	if (!id)
		return NOVA_STEP_DONE;
	json_object_set_new(task->notes, "next", json_integer(next + 1));
	return docker_ask(task, "GET", NULL, 404, look_next, err, "/images/%s/json", id);
}

static enum nova_step_result images_told(struct task *task, json_t *value, struct nova_error *err)
{
	json_t *ids = json_array(), *image;
	size_t i;

	json_array_foreach (json_object_get(value, "body"), i, image)
		if (i < IMAGES_MAX && task_text(image, "Id"))
			json_array_append(ids, json_object_get(image, "Id"));
	json_object_set_new(task->notes, "images", ids);
	return look_next(task, NULL, err);
}

static enum nova_step_result ask_images(struct nova_run *run, void *ctx, struct nova_error *err)
{
	return docker_ask(ctx, "GET", NULL, 0, images_told, err, "/images/json?all=1");
}

/* ---- waiting for it ---- */

static void landed(void *arg);

static enum nova_step_result wait_for_parcel(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;
	struct docker *docker = task->self;
	struct docker_guest *known = task->guest->driver_data;
	json_t *wanted = json_object_get(json_object_get(task->args, "contents"), "layers");
	json_int_t count = json_integer_value(json_object_get(task->notes, "held"));
	NOVA_AUTOJSON json_t *held = json_array();
	char image[PATH_MAX], checkpoint[PATH_MAX];
	const struct parcel_part parts[] = { { .name = "image", .path = image, .held = held }, { .name = "checkpoint", .path = checkpoint } };

	for (json_int_t i = 0; i < count; i++)
		json_array_append_new(held, json_string(json_string_value(json_array_get(wanted, (size_t)i)) + strlen("sha256:")));
	docker_stage(docker, task->guest, "image", image, sizeof(image));
	docker_stage(docker, task->guest, "checkpoint", checkpoint, sizeof(checkpoint));
	box_move_free(known->move);
	known->move = box_move_in(&docker->env, task->guest, parts, 2, landed, known, err);
	if (!known->move)
		return NOVA_STEP_FAILED;
	known->docker = docker;
	known->warm = docker_is_warm(task);
	json_decref(known->images);
	known->images = json_incref(json_object_get(task->notes, "images"));
	json_object_set_new(task->result, "path", json_string(box_move_path(known->move)));
	return NOVA_STEP_DONE;
}

DOCKER_VERB(in_prepare)
{
	static const struct nova_step rows[] = {
		VERSION_ROW,
		{ "name", ask_name, NULL, task_drop_row },
		{ "images", ask_images, NULL, task_drop_row },
		{ "clear", docker_stage_clear, NULL, task_drop_row },
		{ "stage", docker_stage_make, docker_stage_clear, task_drop_row },
		{ "listen", wait_for_parcel },
		{ NULL },
	};

	if (!strcmp(task_text(args, "mode") ?: "", "warm") && box_checkpoints_refused(&((struct docker *)self)->env, err) < 0)
		return NULL;
	if (docker_know(self, guest, err) < 0)
		return NULL;
	return task_new(self, &((struct docker *)self)->env, guest, args, rows, done, arg, err);
}

/* ---- it has come ---- */

/* What is going to be loaded is on record before it is. */
static enum nova_step_result assemble(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;
	struct docker_guest *known = task->guest->driver_data;
	struct docker_arrival arrival = { .loaded = json_array(), .files = json_array() };
	int rc = docker_stage_assemble(task->self, task->guest, known->images, &arrival, err);

	json_object_set_new(task->notes, "files", arrival.files);
	json_object_set_new(task->guest->runtime, "loaded", arrival.loaded);
	json_object_set_new(task->guest->runtime, "image", json_string(arrival.image));
	json_object_set_new(task->guest->runtime, "base", json_string(arrival.base));
	return rc < 0 || nova_guest_save(task->guest, err) < 0 ? NOVA_STEP_FAILED : NOVA_STEP_DONE;
}

static bool anything_to_load(const struct task *task)
{
	return json_array_size(json_object_get(task->guest->runtime, "loaded")) > 0;
}

static enum nova_step_result pack(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;
	const json_t *files = json_object_get(task->notes, "files");
	const char *argv[2 * DOCKER_LAYERS_MAX + 16] = { "tar", "--create" };
	char image[PATH_MAX], tar[PATH_MAX];
	size_t count = 2;

	if (!anything_to_load(task))
		return NOVA_STEP_DONE;
	docker_stage(task->self, task->guest, "image", image, sizeof(image));
	docker_stage(task->self, task->guest, "images.tar", tar, sizeof(tar));
	argv[count++] = "--directory";
	argv[count++] = image;
	argv[count++] = "--file";
	argv[count++] = tar;
	argv[count++] = "manifest.json";
	for (size_t i = 0; i < json_array_size(files) && i < DOCKER_LAYERS_MAX + 2; i++)
		argv[count++] = json_string_value(json_array_get(files, i));
	return task_program(task, argv, DOCKER_IMAGE_MS, NULL, err);
}

static enum nova_step_result load(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;
	struct http_call call = { .method = "POST", .send_fd = &task->fd[0], .limit_ms = DOCKER_IMAGE_MS };
	char tar[PATH_MAX];

	if (!anything_to_load(task))
		return NOVA_STEP_DONE;
	docker_stage(task->self, task->guest, "images.tar", tar, sizeof(tar));
	task->fd[0] = open(tar, O_RDONLY | O_CLOEXEC);
	if (task->fd[0] < 0) {
		nova_error_sys(err, errno, "%s", tar);
		return NOVA_STEP_FAILED;
	}
	return docker_call(task, &call, docker_imported, err, "/images/load?quiet=1");
}

static void landing_over(void *arg, json_t *result, const struct nova_error *err)
{
	struct docker_guest *known = arg;

	known->landing = NULL;
	box_move_arrived(known->move, err);
}

static void landed(void *arg)
{
	static const struct nova_step rows[] = {
		VERSION_ROW,
		{ "assemble", assemble },
		{ "pack", pack, NULL, task_drop_row },
		{ "load", load, NULL, task_drop_row },
		{ "create", docker_make, NULL, task_drop_row },
		{ "root", docker_ask_root, NULL, task_drop_row },
		{ "checkpoint", docker_place_checkpoint, NULL, task_drop_row },
		{ "clear", docker_stage_clear, NULL, task_drop_row },
		{ NULL },
	};
	struct docker_guest *known = arg;
	struct nova_error err;

	known->landing = task_new(known->docker, &known->docker->env, known->guest, NULL, rows, landing_over, known, &err);
	if (known->landing)
		json_object_set_new(((struct task *)known->landing)->notes, "warm", json_boolean(known->warm));
	else
		box_move_arrived(known->move, &err);
}
