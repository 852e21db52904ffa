/* SPDX-License-Identifier: Apache-2.0
 *
 * checkpoint.c - SNAPSHOT and RESTORE: a running container's processes are written down by CRIU, through the
 * engine, and go on from there.
 *
 * Only with an experimental engine and a CRIU that works on this kernel: their own words are passed on when
 * not. A checkpoint holds processes and memory, not files: those stay as they are at the time of RESTORE.
 */
#include "drivers/docker/docker.h"

#include <string.h>

#define CHECKPOINT_MS (10 * 60 * 1000)
#define VERSION_ROW { "version", docker_version_row, NULL, task_drop_row }

/* ---- snapshot ---- */

static enum nova_step_result write_down(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;
	NOVA_AUTOJSON json_t *body = json_pack("{s:O,s:b}", "CheckpointID", json_object_get(task->args, "name"), "Exit", false);
	struct http_call call = { .method = "POST", .body = body, .limit_ms = CHECKPOINT_MS };

	return docker_call(task, &call, NULL, err, "/containers/%s/checkpoints", docker_id(task->guest));
}

/* What is part of a directory's name over there. */
static int check_name(const json_t *args, struct nova_error *err)
{
	const char *name = task_text(args, "name") ?: "";

	if (*name && strlen(name) <= 63 && strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") == strlen(name) &&
	    *name != '.' && *name != '-')
		return 0;
	return nova_error_set(err, NOVA_INVALID, "'%.80s' is not a name of a snapshot: 1 to 63 of A-Z a-z 0-9 - _ .", name);
}

DOCKER_VERB(snapshot)
{
	static const struct nova_step rows[] = {
		VERSION_ROW,
		{ "checkpoint", write_down, NULL, task_drop_row },
		{ NULL },
	};

	if (check_name(args, err) < 0)
		return NULL;
	if (json_is_true(json_object_get(args, "external"))) {
		nova_error_set(err, NOVA_REFUSED, "not supported by docker: snapshots outside of the container's own directory");
		return NULL;
	}
	if (guest->state != NOVA_GUEST_RUNNING) {
		nova_error_set(err, NOVA_STATE, "guest %s is %s: docker takes checkpoints of running containers", guest->name,
		    nova_guest_state_name(guest->state));
		return NULL;
	}
	return task_new(self, &((struct docker *)self)->env, guest, args, rows, done, arg, err);
}

/* ---- restore ---- */

static enum nova_step_result there(struct task *task, json_t *value, struct nova_error *err)
{
	const char *name = task_text(task->args, "name");
	json_t *one;
	size_t i;

	json_array_foreach (json_object_get(value, "body"), i, one)
		if (!strcmp(task_text(one, "Name") ?: "", name))
			return NOVA_STEP_DONE;
	nova_error_set(err, NOVA_INVALID, "guest %s has no snapshot '%s'", task->guest->name, name);
	return NOVA_STEP_FAILED;
}

static enum nova_step_result is_there(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;

	return docker_ask(task, "GET", NULL, 0, there, err, "/containers/%s/checkpoints", docker_id(task->guest));
}

static enum nova_step_result thaw(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;

	if (task->guest->state != NOVA_GUEST_PAUSED)
		return NOVA_STEP_DONE;
	return docker_ask(task, "POST", NULL, 500, NULL, err, "/containers/%s/unpause", docker_id(task->guest));
}

static enum nova_step_result halt(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;
	struct docker_guest *known = task->guest->driver_data;

	if (known)
		known->signalled = true;
	return docker_ask(task, "POST", NULL, 0, NULL, err, "/containers/%s/stop?t=0", docker_id(task->guest));
}

static enum nova_step_result go_on(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;
	struct http_call call = { .method = "POST", .limit_ms = CHECKPOINT_MS };

	return docker_call(task, &call, NULL, err, "/containers/%s/start?checkpoint=%s", docker_id(task->guest),
	    task_text(task->args, "name"));
}

static enum nova_step_result told(struct task *task, json_t *value, struct nova_error *err)
{
	docker_take_state(task->self, task->guest, json_object_get(value, "body"), "restored");
	return nova_guest_save(task->guest, err) < 0 ? NOVA_STEP_FAILED : NOVA_STEP_DONE;
}

static enum nova_step_result look(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;

	return docker_ask(task, "GET", NULL, 0, told, err, "/containers/%s/json", docker_id(task->guest));
}

DOCKER_VERB(restore)
{
	static const struct nova_step rows[] = {
		VERSION_ROW,
		{ "is there", is_there, NULL, task_drop_row },
		{ "unpause", thaw, NULL, task_drop_row },
		{ "stop", halt, NULL, task_drop_row },
		{ "start", go_on, NULL, task_drop_row },
		{ "look", look, NULL, task_drop_row },
		{ NULL },
	};

	if (check_name(args, err) < 0)
		return NULL;
	return task_new(self, &((struct docker *)self)->env, guest, args, rows, done, arg, err);
}
