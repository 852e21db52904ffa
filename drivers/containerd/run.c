/* SPDX-License-Identifier: Apache-2.0
 *
 * run.c - START, STOP, PAUSE, RESUME, RESIZE: the task of a container.
 *
 * A task is made anew for each START and removed when it has ended, by STOP or by the next START. What it writes
 * goes to the guest's console.log, by the shim, which outlives us and containerd (not rotated). STOP asks (SIGTERM)
 * and kills after the time it was given.
 */
#include "drivers/containerd/containerd.h"
#include "drivers/containerd/api.pb-c.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#define STOP_MS 30000
#define DEAD_MS 15000 /* from SIGKILL to its end */
/* Somebody else, or the end of a shim, may have been faster. */
#define GONE (1u << GRPC_NOT_FOUND | 1u << GRPC_FAILED_PRECONDITION | 1u << GRPC_UNKNOWN)

enum { TASK_RUNNING = 2, TASK_STOPPED = 3, TASK_PAUSED = 4, TASK_PAUSING = 5 };

static json_t *task_id(const struct task *task)
{
	return json_pack("{s:s}", "container_id", containerd_id(task->guest));
}

static json_t *kill_request(const struct task *task, int signal)
{
	return json_pack("{s:s,s:i,s:b}", "container_id", containerd_id(task->guest), "signal", signal, "all", signal == SIGKILL);
}

static int status_in(const json_t *answer)
{
	return (int)json_integer_value(json_object_get(json_object_get(json_object_get(answer, "body"), "process"), "status"));
}

/* ---- ending a task for certain ---- */

static enum nova_step_result removed(struct task *task, json_t *value, struct nova_error *err)
{
	json_object_del(task->guest->runtime, "pid");
	return NOVA_STEP_DONE;
}

static enum nova_step_result dead(struct task *task, json_t *value, struct nova_error *err)
{
	return containerd_ask(task, CTRD_TASK_DELETE, task_id(task), 1u << GRPC_NOT_FOUND | 1u << GRPC_UNKNOWN, 0, removed, err);
}

static enum nova_step_result killed(struct task *task, json_t *value, struct nova_error *err)
{
	return containerd_ask(task, CTRD_TASK_WAIT, task_id(task), GONE, DEAD_MS, dead, err);
}

static enum nova_step_result thawed(struct task *task, json_t *value, struct nova_error *err)
{
	return containerd_ask(task, CTRD_TASK_KILL, kill_request(task, SIGKILL), GONE, 0, killed, err);
}

static enum nova_step_result to_end(struct task *task, json_t *value, struct nova_error *err)
{
	int status = status_in(value);

	/* None: but a containerd that died while it made one may know a shim that has none, and would make no other. */
	if (containerd_status(value) == GRPC_NOT_FOUND || status == TASK_STOPPED)
		return dead(task, value, err);
	/* What is frozen does not die. */
	if (status == TASK_PAUSED || status == TASK_PAUSING)
		return containerd_ask(task, CTRD_TASK_RESUME, task_id(task), GONE, 0, thawed, err);
	return thawed(task, value, err);
}

enum nova_step_result containerd_end_task_row(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;
	struct containerd_guest *known = task->guest->driver_data;

	if (!*containerd_id(task->guest))
		return NOVA_STEP_DONE;
	if (known)
		known->signalled = true;
	return containerd_ask(task, CTRD_TASK_GET, task_id(task), 1u << GRPC_NOT_FOUND, 0, to_end, err);
}

/* ---- every verb's end ---- */

static enum nova_step_result looked(struct task *task, json_t *value, struct nova_error *err)
{
	containerd_take_state(task->guest, value, "asked", false);
	return nova_guest_save(task->guest, err) < 0 ? NOVA_STEP_FAILED : NOVA_STEP_DONE;
}

enum nova_step_result containerd_look_row(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;

	return containerd_ask(task, CTRD_TASK_GET, task_id(task), 1u << GRPC_NOT_FOUND, 0, looked, err);
}

/* ---- start ---- */

static enum nova_step_result container_there(struct task *task, json_t *value, struct nova_error *err)
{
	const json_t *container = json_object_get(json_object_get(value, "body"), "container");

	if (!container) {
		nova_error_set(err, NOVA_STATE, "guest %s has no container any more: delete it, and create it again", task->guest->name);
		return NOVA_STEP_FAILED;
	}
	json_object_set(task->notes, "snapshotter", json_object_get(container, "snapshotter"));
	json_object_set(task->notes, "snapshot", json_object_get(container, "snapshot_key"));
	return NOVA_STEP_DONE;
}

static enum nova_step_result find(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;

	if (!*containerd_id(task->guest))
		return container_there(task, NULL, err);
	return containerd_ask(task, CTRD_CONTAINER_GET, json_pack("{s:s}", "id", containerd_id(task->guest)), 1u << GRPC_NOT_FOUND, 0, container_there, err);
}

static enum nova_step_result mounts_told(struct task *task, json_t *value, struct nova_error *err)
{
	json_object_set(task->notes, "mounts", json_object_get(json_object_get(value, "body"), "mounts"));
	return NOVA_STEP_DONE;
}

enum nova_step_result containerd_mounts_row(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;

	if (!task_text(task->notes, "snapshot"))
		return NOVA_STEP_DONE;
	return containerd_ask(task, CTRD_SNAPSHOT_MOUNTS,
	    json_pack("{s:O,s:O}", "snapshotter", json_object_get(task->notes, "snapshotter"), "key", json_object_get(task->notes, "snapshot")), 0, 0,
	    mounts_told, err);
}

json_t *containerd_task_request(struct task *task, json_t *options)
{
	json_t *request = task_id(task), *mounts = json_object_get(task->notes, "mounts");
	char log[PATH_MAX], url[PATH_MAX + 16];

	if (mounts)
		json_object_set(request, "rootfs", mounts);
	if (options)
		json_object_set_new(request, "options", options);
	if (containerd_file(task->self, task->guest, "console.log", log, sizeof(log)) == 0) {
		snprintf(url, sizeof(url), "file://%s", log);
		json_object_set_new(request, "stdout", json_string(url));
		json_object_set_new(request, "stderr", json_string(url));
	}
	return request;
}

static enum nova_step_result make_task(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;
	struct containerd_guest *known = task->guest->driver_data;

	if (known)
		known->signalled = false;
	return containerd_make_task(task, containerd_task_request(task, NULL), 0, err);
}

static enum nova_step_result launch(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;

	return containerd_ask(task, CTRD_TASK_START, task_id(task), 0, 0, NULL, err);
}

static enum nova_step_result started(struct task *task, json_t *value, struct nova_error *err)
{
	const json_t *process = json_object_get(json_object_get(value, "body"), "process");
	json_int_t code = json_integer_value(json_object_get(process, "exit_status"));

	if (looked(task, value, err) == NOVA_STEP_FAILED)
		return NOVA_STEP_FAILED;
	if (status_in(value) != TASK_STOPPED || code == 0)
		return NOVA_STEP_DONE;
	nova_error_set(err, NOVA_REFUSED, "container %s ended at once with status %lld: see novacron logs %s", task->guest->name, (long long)code,
	    task->guest->name);
	return NOVA_STEP_FAILED;
}

static enum nova_step_result look(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;

	return containerd_ask(task, CTRD_TASK_GET, task_id(task), 1u << GRPC_NOT_FOUND, 0, started, err);
}

CONTAINERD_VERB(start)
{
	static const struct nova_step rows[] = {
		{ "container", find, NULL, task_drop_row },
		{ "clear", containerd_end_task_row, NULL, task_drop_row },
		{ "mounts", containerd_mounts_row, NULL, task_drop_row },
		{ "task", make_task, containerd_end_task_row, task_drop_row },
		{ "start", launch, NULL, task_drop_row },
		{ "look", look, NULL, task_drop_row },
		{ NULL },
	};

	if (json_is_true(json_object_get(args, "paused"))) {
		nova_error_set(err, NOVA_REFUSED, "not supported by %s: a container cannot be started paused", ((struct containerd *)self)->driver->name);
		return NULL;
	}
	return task_new(self, &((struct containerd *)self)->env, guest, args, rows, done, arg, err);
}

/* ---- stop ---- */

static enum nova_step_result thaw(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;

	if (task->guest->state != NOVA_GUEST_PAUSED || !*containerd_id(task->guest))
		return NOVA_STEP_DONE;
	return containerd_ask(task, CTRD_TASK_RESUME, task_id(task), GONE, 0, NULL, err);
}

static long long patience_of(const struct task *task)
{
	const json_t *timeout = json_object_get(task->args, "timeout");

	return json_is_true(json_object_get(task->args, "force")) ? 0 : timeout ? json_integer_value(timeout) : STOP_MS;
}

static enum nova_step_result ask_end(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;
	struct containerd_guest *known = task->guest->driver_data;

	if (!*containerd_id(task->guest) || patience_of(task) <= 0)
		return NOVA_STEP_DONE;
	if (known)
		known->signalled = true;
	return containerd_ask(task, CTRD_TASK_KILL, kill_request(task, SIGTERM), GONE, 0, NULL, err);
}

static enum nova_step_result waited(struct task *task, json_t *value, struct nova_error *err)
{
	if (containerd_status(value) == GRPC_DEADLINE_EXCEEDED)
		json_object_set_new(task->result, "forced", json_string("the container did not end in time"));
	return NOVA_STEP_DONE;
}

static enum nova_step_result wait_end(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;

	if (!*containerd_id(task->guest) || patience_of(task) <= 0)
		return NOVA_STEP_DONE;
	return containerd_ask(task, CTRD_TASK_WAIT, task_id(task), GONE | 1u << GRPC_DEADLINE_EXCEEDED, (int)patience_of(task), waited, err);
}

static enum nova_step_result tell_stopped(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;

	/* However it ended: that was asked for. */
	if (task->guest->state != NOVA_GUEST_STOPPED)
		nova_guest_set_state(task->guest, NOVA_GUEST_STOPPED, "stopped");
	return nova_guest_save(task->guest, err) < 0 ? NOVA_STEP_FAILED : NOVA_STEP_DONE;
}

/* With force nothing to stop is as good as stopped: somebody else may have removed the container. */
CONTAINERD_VERB(stop)
{
	static const struct nova_step rows[] = {
		{ "resume", thaw, NULL, task_drop_row },
		{ "ask", ask_end, NULL, task_drop_row },
		{ "wait", wait_end, NULL, task_drop_row },
		{ "end", containerd_end_task_row, NULL, task_drop_row },
		{ "tell", tell_stopped },
		{ NULL },
	};

	return task_new(self, &((struct containerd *)self)->env, guest, args, rows, done, arg, err);
}

/* ---- pause, resume ---- */

static enum nova_step_result freeze(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;

	return containerd_ask(task, CTRD_TASK_PAUSE, task_id(task), 0, 0, NULL, err);
}

static enum nova_step_result unfreeze(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;

	return containerd_ask(task, CTRD_TASK_RESUME, task_id(task), 0, 0, NULL, err);
}

CONTAINERD_VERB(pause)
{
	static const struct nova_step rows[] = {
		{ "pause", freeze, NULL, task_drop_row },
		{ "look", containerd_look_row, NULL, task_drop_row },
		{ NULL },
	};

	return task_new(self, &((struct containerd *)self)->env, guest, args, rows, done, arg, err);
}

CONTAINERD_VERB(resume)
{
	static const struct nova_step rows[] = {
		{ "resume", unfreeze, NULL, task_drop_row },
		{ "look", containerd_look_row, NULL, task_drop_row },
		{ NULL },
	};

	return task_new(self, &((struct containerd *)self)->env, guest, args, rows, done, arg, err);
}

/* ---- resize: the task now, the record for the next one ---- */

static enum nova_step_result new_spec(struct nova_run *run, void *ctx, struct nova_error *err)
{
	static const char *const members[] = { "memory", "vcpus" };
	struct task *task = ctx;
	json_t *spec = json_deep_copy(task->guest->spec);

	for (size_t i = 0; i < sizeof(members) / sizeof(*members); i++)
		if (json_object_get(task->args, members[i]))
			json_object_set(spec, members[i], json_object_get(task->args, members[i]));
	json_object_set_new(task->result, "needs", box_needs(spec));
	json_object_set(task->result, "memory_bytes", json_object_get(spec, "memory"));
	json_object_set(task->result, "vcpus", json_object_get(spec, "vcpus"));
	json_object_set_new(task->result, "spec", spec);
	return NOVA_STEP_DONE;
}

static enum nova_step_result resize_task(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;
	NOVA_AUTOJSON json_t *resources = containerd_resources(json_object_get(task->result, "spec"));

	if (task->guest->state != NOVA_GUEST_RUNNING && task->guest->state != NOVA_GUEST_PAUSED)
		return NOVA_STEP_DONE;
	return containerd_ask(task, CTRD_TASK_UPDATE,
	    json_pack("{s:s,s:o}", "container_id", containerd_id(task->guest), "resources",
		containerd_any_json("types.containerd.io/opencontainers/runtime-spec/1/LinuxResources", resources)),
	    0, 0, NULL, err);
}

static enum nova_step_result record_read(struct task *task, json_t *value, struct nova_error *err)
{
	const json_t *container = json_object_get(json_object_get(value, "body"), "container");
	size_t length = 0;
	NOVA_AUTOFREE char *text = grpc_json_data(json_object_get(json_object_get(container, "spec"), "value"), &length);
	NOVA_AUTOJSON json_t *oci = text ? json_loadb(text, length, 0, NULL) : NULL;
	json_t *resources = json_object_get(json_object_get(oci, "linux"), "resources");
	NOVA_AUTOJSON json_t *wanted = containerd_resources(json_object_get(task->result, "spec"));

	if (!resources) {
		nova_error_set(err, NOVA_REFUSED, "container %s: its record has no resources to change", containerd_id(task->guest));
		return NOVA_STEP_FAILED;
	}
	json_object_update(resources, wanted);
	return containerd_ask(task, CTRD_CONTAINER_UPDATE,
	    json_pack("{s:{s:s,s:o},s:{s:[s]}}", "container", "id", containerd_id(task->guest), "spec",
		containerd_any_json(task_text(json_object_get(container, "spec"), "type_url") ?: "", oci), "update_mask", "paths", "spec"),
	    0, 0, NULL, err);
}

static enum nova_step_result resize_record(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;

	return containerd_ask(task, CTRD_CONTAINER_GET, json_pack("{s:s}", "id", containerd_id(task->guest)), 0, 0, record_read, err);
}

CONTAINERD_VERB(resize)
{
	static const struct nova_step rows[] = {
		{ "specification", new_spec },
		{ "task", resize_task, NULL, task_drop_row },
		{ "record", resize_record, NULL, task_drop_row },
		{ NULL },
	};

	return task_new(self, &((struct containerd *)self)->env, guest, args, rows, done, arg, err);
}
