/* SPDX-License-Identifier: Apache-2.0
 *
 * probe.c - what the engine on this host can do, asked from itself: PROBE, CAPABILITIES; and CHECK, whether a
 * specification can be had here.
 */
#include "drivers/docker/docker.h"

#include <stdio.h>
#include <string.h>

#define NO_STEERING "not supported by docker: nothing of a container converges"

extern const struct nova_driver nova_driver_docker;

/* ---- probe ---- */

const char *docker_no_checkpoint(const json_t *info)
{
	if (!json_is_true(json_object_get(info, "ExperimentalBuild")))
		return "the engine offers checkpoints only with --experimental";
	return NULL;
}

static enum nova_step_result told(struct task *task, json_t *value, struct nova_error *err)
{
	static const char *const members[][2] = { { "storage", "Driver" }, { "cgroup-version", "CgroupVersion" },
		{ "cgroup-driver", "CgroupDriver" }, { "runtime", "DefaultRuntime" }, { "experimental", "ExperimentalBuild" },
		{ "live-restore", "LiveRestoreEnabled" }, { "memory-limit", "MemoryLimit" }, { "cpu-quota", "CpuCfsQuota" } };
	struct docker *docker = task->self;
	const json_t *info = json_object_get(value, "body");
	json_t *facts = json_pack("{s:s,s:o}", "socket", http_socket(docker->http), "api", json_sprintf("1.%d", docker->api));

	for (size_t i = 0; i < sizeof(members) / sizeof(*members); i++)
		if (json_object_get(info, members[i][1]))
			json_object_set(facts, members[i][0], json_object_get(info, members[i][1]));
	box_moves(facts, docker_no_checkpoint(info), box_no_live());
	json_decref(task->result);
	task->result = json_pack("{s:b,s:O?,s:o,s:o}", "found", true, "version", json_object_get(info, "ServerVersion"), "verbs",
	    box_verbs(&nova_driver_docker, NO_STEERING, docker_no_checkpoint(info)), "facts", facts);
	return NOVA_STEP_DONE;
}

static enum nova_step_result ask_info(struct nova_run *run, void *ctx, struct nova_error *err)
{
	return docker_ask(ctx, "GET", NULL, 0, told, err, "/info");
}

/* That there is no engine is an answer. */
static enum nova_step_result version_told(struct task *task, json_t *value, struct nova_error *err)
{
	return docker_agree(task->self, value, err) < 0 ? NOVA_STEP_FAILED : NOVA_STEP_DONE;
}

static enum nova_step_result ask_version(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;
	struct docker *docker = task->self;
	struct http_call call = { .method = "GET", .path = "/version", .limit_ms = 5000 };

	return task_wait(task, http_start(docker->http, &call, task_done, task, err), version_told);
}

DOCKER_VERB(probe)
{
	static const struct nova_step rows[] = {
		{ "version", ask_version, NULL, task_drop_row },
		{ "info", ask_info, NULL, task_drop_row },
		{ NULL },
	};

	return task_new(self, &((struct docker *)self)->env, guest, args, rows, done, arg, err);
}

static enum nova_step_result modes_told(struct task *task, json_t *value, struct nova_error *err)
{
	static const char *const modes[] = { "cold", "warm", "live" };

	for (size_t i = 0; i < sizeof(modes) / sizeof(*modes); i++) {
		const char *why = docker_no_move(modes[i], json_object_get(value, "body"));

		json_object_set_new(task->result, modes[i], why ? json_string(why) : json_true());
	}
	return NOVA_STEP_DONE;
}

static enum nova_step_result ask_modes(struct nova_run *run, void *ctx, struct nova_error *err)
{
	return docker_ask(ctx, "GET", NULL, 0, modes_told, err, "/info");
}

DOCKER_VERB(capabilities)
{
	static const struct nova_step rows[] = {
		{ "version", docker_version_row, NULL, task_drop_row },
		{ "info", ask_modes, NULL, task_drop_row },
		{ NULL },
	};

	return task_new(self, &((struct docker *)self)->env, guest, args, rows, done, arg, err);
}

/* ---- check ---- */

static enum nova_step_result image_there(struct task *task, json_t *value, struct nova_error *err)
{
	const char *image = task_text(json_object_get(task->result, "spec"), "image");

	if (docker_status(value) != 404)
		return NOVA_STEP_DONE;
	nova_error_set(err, NOVA_INVALID, "docker has no image '%.120s' on this host: see novacron import", image);
	return NOVA_STEP_FAILED;
}

/* Slashes are part of a path here: only what an image's name is made of goes in. */
static bool is_image_name(const char *name)
{
	return name && *name && strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-/:@") == strlen(name) &&
	       !strstr(name, "..") && *name != '/';
}

static enum nova_step_result ask_image(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;
	const char *image = task_text(json_object_get(task->result, "spec"), "image");

	if (!is_image_name(image)) {
		nova_error_set(err, NOVA_INVALID, "image: '%.120s' is not a name of an image", image ? image : "");
		return NOVA_STEP_FAILED;
	}
	if (json_is_true(json_object_get(task->args, "incoming")))
		return NOVA_STEP_DONE; /* it comes with the guest */
	return docker_ask(task, "GET", NULL, 404, image_there, err, "/images/%s/json", image);
}

DOCKER_VERB(check)
{
	static const struct nova_step rows[] = {
		{ "version", docker_version_row, NULL, task_drop_row },
		{ "image", ask_image, NULL, task_drop_row },
		{ NULL },
	};
	struct docker *docker = self;
	struct box_limits limits = {
		.params = docker_spec_params,
		.driver = "docker",
		.roots = docker->roots,
		.networks = docker->env.config ? nova_config_get(docker->env.config, "networks") : NULL,
	};
	json_t *spec = box_complete(json_object_get(args, "spec"), &limits, err);
	struct nova_op *op;

	if (!spec)
		return NULL;
	op = task_new(self, &docker->env, guest, args, rows, done, arg, err);
	if (op) {
		json_object_set_new(((struct task *)op)->result, "needs", box_needs(spec));
		json_object_set(((struct task *)op)->result, "spec", spec);
	}
	json_decref(spec);
	return op;
}
