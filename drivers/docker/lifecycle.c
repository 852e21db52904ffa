/* SPDX-License-Identifier: Apache-2.0
 *
 * lifecycle.c - CREATE, START, STOP, PAUSE, RESUME, DELETE, RESIZE.
 *
 * STOP lets the engine ask (SIGTERM, or the image's own signal) and kill after the time it was given. A
 * container that has ended before START answers is told with its last words.
 */
#include "drivers/docker/docker.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define STOP_MS 30000
#define FIND_ROW { "container", find, NULL, task_drop_row }
#define VERSION_ROW { "version", docker_version_row, NULL, task_drop_row }

/* ---- which container ---- */

static enum nova_step_result seen(struct task *task, json_t *value, struct nova_error *err)
{
	json_t *first = json_array_get(json_object_get(value, "body"), 0);
	const char *id = task_text(first, "Id");

	if (docker_is_id(id)) {
		json_object_set_new(task->guest->runtime, "id", json_string(id));
		return nova_guest_save(task->guest, err) < 0 ? NOVA_STEP_FAILED : NOVA_STEP_DONE;
	}
	if (json_is_true(json_object_get(task->notes, "may_be_gone")))
		return NOVA_STEP_DONE;
	nova_error_set(err, NOVA_STATE, "guest %s has no container any more: delete it, and create it again", task->guest->name);
	return NOVA_STEP_FAILED;
}

/* By the id on record; a daemon that ended between CREATE's request and its answer knows only the label. */
static enum nova_step_result find(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;
	char filter[128];
	NOVA_AUTOFREE char *escaped = NULL;

	if (*docker_id(task->guest))
		return NOVA_STEP_DONE;
	snprintf(filter, sizeof(filter), "{\"label\":[\"novacron.uuid=%s\"]}", task->guest->uuid);
	escaped = http_escape(filter);
	return docker_ask(task, "GET", NULL, 0, seen, err, "/containers/json?all=1&filters=%s", escaped ?: "");
}

/* Every verb's end: what is the container's state now? */
static enum nova_step_result inspected(struct task *task, json_t *value, struct nova_error *err)
{
	docker_take_state(task->self, task->guest, json_object_get(value, "body"), "asked");
	return nova_guest_save(task->guest, err) < 0 ? NOVA_STEP_FAILED : NOVA_STEP_DONE;
}

static enum nova_step_result inspect(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;

	return docker_ask(task, "GET", NULL, 0, inspected, err, "/containers/%s/json", docker_id(task->guest));
}

/* ---- create ---- */

static enum nova_step_result created(struct task *task, json_t *value, struct nova_error *err)
{
	const char *id = task_text(json_object_get(value, "body"), "Id");

	if (!docker_is_id(id)) {
		nova_error_set(err, NOVA_REFUSED, "docker: it made a container but gave no id");
		return NOVA_STEP_FAILED;
	}
	json_object_set_new(task->guest->runtime, "id", json_string(id));
	if (docker_know(task->self, task->guest, err) < 0 || nova_guest_save(task->guest, err) < 0)
		return NOVA_STEP_FAILED;
	return NOVA_STEP_DONE;
}

enum nova_step_result docker_make(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;
	const json_t *given = json_object_get(task->args, "spec");
	json_t *body = docker_create_body(task->guest, given ? given : task->guest->spec);

	if (task_text(task->guest->runtime, "image"))
		json_object_set(body, "Image", json_object_get(task->guest->runtime, "image"));
	return docker_ask(task, "POST", body, 0, created, err, "/containers/create?name=%s", task->guest->name);
}

static enum nova_step_result removed(struct task *task, json_t *value, struct nova_error *err)
{
	json_object_del(task->guest->runtime, "id");
	docker_forget(task->self, task->guest);
	return NOVA_STEP_DONE;
}

static enum nova_step_result remove_it(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;
	struct docker_guest *known = task->guest->driver_data;

	if (!*docker_id(task->guest))
		return removed(task, NULL, err);
	if (known)
		known->deleting = true;
	return docker_ask(task, "DELETE", NULL, 404, removed, err, "/containers/%s?force=1&v=%d", docker_id(task->guest),
	    !json_is_true(json_object_get(task->args, "keep_disks")));
}

DOCKER_VERB(create)
{
	static const struct nova_step rows[] = {
		VERSION_ROW,
		{ "create", docker_make, NULL, task_drop_row },
		{ NULL },
	};

	return task_new(self, &((struct docker *)self)->env, guest, args, rows, done, arg, err);
}

/* Taking back a CREATE waits for an engine that died in the middle of it: nobody else knows what it made. */
DOCKER_VERB(delete)
{
	static const struct nova_step rows[] = {
		{ "stop moving", docker_stop_moving },
		{ "version", docker_patient_row, NULL, task_drop_row },
		FIND_ROW,
		{ "remove", remove_it, NULL, task_drop_row },
		{ "images", docker_drop_images, NULL, task_drop_row },
		{ "clear", docker_stage_clear, NULL, task_drop_row },
		{ NULL },
	};
	struct nova_op *op = task_new(self, &((struct docker *)self)->env, guest, args, rows, done, arg, err);

	if (op)
		json_object_set_new(((struct task *)op)->notes, "may_be_gone", json_true());
	return op;
}

/* ---- start ---- */

static enum nova_step_result launch(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;
	struct docker_guest *known = task->guest->driver_data;

	if (known)
		known->signalled = false;
	return docker_ask(task, "POST", NULL, 0, NULL, err, "/containers/%s/start", docker_id(task->guest));
}

static enum nova_step_result started(struct task *task, json_t *value, struct nova_error *err)
{
	json_t *state = json_object_get(json_object_get(value, "body"), "State");
	json_int_t code = json_integer_value(json_object_get(state, "ExitCode"));

	if (inspected(task, value, err) == NOVA_STEP_FAILED)
		return NOVA_STEP_FAILED;
	if (json_is_true(json_object_get(state, "Running")) || code == 0)
		return NOVA_STEP_DONE;
	nova_error_set(err, NOVA_REFUSED, "container %s ended at once with status %lld%s%s: see novacron logs %s",
	    task->guest->name, (long long)code, task_text(state, "Error") ? ": " : "", task_text(state, "Error") ?: "",
	    task->guest->name);
	return NOVA_STEP_FAILED;
}

static enum nova_step_result look(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;

	return docker_ask(task, "GET", NULL, 0, started, err, "/containers/%s/json", docker_id(task->guest));
}

DOCKER_VERB(start)
{
	static const struct nova_step rows[] = {
		VERSION_ROW,
		FIND_ROW,
		{ "start", launch, NULL, task_drop_row },
		{ "look", look, NULL, task_drop_row },
		{ NULL },
	};

	if (json_is_true(json_object_get(args, "paused")))
		return docker_start_paused(self, guest, args, done, arg, err);
	return task_new(self, &((struct docker *)self)->env, guest, args, rows, done, arg, err);
}

/* ---- stop ---- */

static enum nova_step_result thaw(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;

	if (task->guest->state != NOVA_GUEST_PAUSED || !*docker_id(task->guest))
		return NOVA_STEP_DONE;
	return docker_ask(task, "POST", NULL, 500, NULL, err, "/containers/%s/unpause", docker_id(task->guest));
}

static enum nova_step_result halt(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;
	struct docker_guest *known = task->guest->driver_data;
	const json_t *timeout = json_object_get(task->args, "timeout");
	bool force = json_is_true(json_object_get(task->args, "force"));
	long long ms = force ? 0 : timeout ? json_integer_value(timeout) : STOP_MS;
	struct http_call call = { .method = "POST", .limit_ms = (int)(ms + DOCKER_ASK_MS), .tolerated = force ? 404 : 0 };

	if (!*docker_id(task->guest))
		return NOVA_STEP_DONE;
	if (known)
		known->signalled = true;
	return docker_call(task, &call, NULL, err, "/containers/%s/stop?t=%lld", docker_id(task->guest), (ms + 999) / 1000);
}

static enum nova_step_result stopped(struct task *task, json_t *value, struct nova_error *err)
{
	json_t *state = json_object_get(json_object_get(value, "body"), "State");

	if (docker_status(value) == 404)
		return NOVA_STEP_DONE;
	if (json_integer_value(json_object_get(state, "ExitCode")) == 137 &&
	    !json_is_true(json_object_get(task->args, "force")))
		json_object_set_new(task->result, "forced", json_string("the container did not end in time"));
	if (inspected(task, value, err) == NOVA_STEP_FAILED)
		return NOVA_STEP_FAILED;
	/* However it ended: that was asked for. */
	if (task->guest->state == NOVA_GUEST_FAILED)
		nova_guest_set_state(task->guest, NOVA_GUEST_STOPPED, "stopped");
	return NOVA_STEP_DONE;
}

static enum nova_step_result look_stopped(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;

	if (!*docker_id(task->guest))
		return NOVA_STEP_DONE;
	return docker_ask(task, "GET", NULL, 404, stopped, err, "/containers/%s/json", docker_id(task->guest));
}

/* With force nothing to stop is as good as stopped: somebody else may have removed the container. */
DOCKER_VERB(stop)
{
	static const struct nova_step rows[] = {
		VERSION_ROW,
		FIND_ROW,
		{ "unpause", thaw, NULL, task_drop_row },
		{ "stop", halt, NULL, task_drop_row },
		{ "look", look_stopped, NULL, task_drop_row },
		{ NULL },
	};
	struct nova_op *op = task_new(self, &((struct docker *)self)->env, guest, args, rows, done, arg, err);

	if (op)
		json_object_set(((struct task *)op)->notes, "may_be_gone", json_object_get(args, "force"));
	return op;
}

/* ---- pause, resume ---- */

static enum nova_step_result freeze(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;

	return docker_ask(task, "POST", NULL, 0, NULL, err, "/containers/%s/pause", docker_id(task->guest));
}

static enum nova_step_result unfreeze(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;
	struct docker_guest *known = task->guest->driver_data;

	if (known)
		known->released = true;

	return docker_ask(task, "POST", NULL, 0, NULL, err, "/containers/%s/unpause", docker_id(task->guest));
}

DOCKER_VERB(pause)
{
	static const struct nova_step rows[] = {
		VERSION_ROW,
		FIND_ROW,
		{ "pause", freeze, NULL, task_drop_row },
		{ "look", inspect, NULL, task_drop_row },
		{ NULL },
	};

	return task_new(self, &((struct docker *)self)->env, guest, args, rows, done, arg, err);
}

DOCKER_VERB(resume)
{
	static const struct nova_step rows[] = {
		VERSION_ROW,
		FIND_ROW,
		{ "unpause", unfreeze, NULL, task_drop_row },
		{ "look", inspect, NULL, task_drop_row },
		{ NULL },
	};

	return task_new(self, &((struct docker *)self)->env, guest, args, rows, done, arg, err);
}

/* ---- resize ---- */

static enum nova_step_result resized(struct task *task, json_t *value, struct nova_error *err)
{
	json_t *spec = json_deep_copy(task->guest->spec);
	static const char *const members[] = { "memory", "vcpus" };

	for (size_t i = 0; i < sizeof(members) / sizeof(*members); i++)
		if (json_object_get(task->args, members[i]))
			json_object_set(spec, members[i], json_object_get(task->args, members[i]));
	json_object_set_new(task->result, "needs", box_needs(spec));
	json_object_set(task->result, "memory_bytes", json_object_get(spec, "memory"));
	json_object_set(task->result, "vcpus", json_object_get(spec, "vcpus"));
	json_object_set_new(task->result, "spec", spec);
	return NOVA_STEP_DONE;
}

static enum nova_step_result update(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;
	json_int_t memory = json_integer_value(json_object_get(task->args, "memory"));
	json_int_t vcpus = json_integer_value(json_object_get(task->args, "vcpus"));
	json_t *body = json_object();

	if (memory) {
		json_object_set_new(body, "Memory", json_integer(memory));
		json_object_set_new(body, "MemorySwap", json_integer(memory));
	}
	if (vcpus)
		json_object_set_new(body, "NanoCpus", json_integer(vcpus * 1000000000));
	return docker_ask(task, "POST", body, 0, resized, err, "/containers/%s/update", docker_id(task->guest));
}

DOCKER_VERB(resize)
{
	static const struct nova_step rows[] = {
		VERSION_ROW,
		FIND_ROW,
		{ "update", update, NULL, task_drop_row },
		{ NULL },
	};

	return task_new(self, &((struct docker *)self)->env, guest, args, rows, done, arg, err);
}
