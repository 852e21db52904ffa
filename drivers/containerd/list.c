/* SPDX-License-Identifier: Apache-2.0
 *
 * list.c - LIST, ADOPT, REATTACH, STATS, LOGS: containers that are there already, and what is known of them. LIST
 * shows those of our namespace and of the driver's runtime only.
 */
#include "drivers/containerd/containerd.h"
#include "drivers/common/cgroup.h"
#include "drivers/common/console.h"

#include <errno.h>
#include <string.h>

/* ---- list ---- */

static const char *status_name(json_int_t status)
{
	static const char *const names[] = { "unknown", "created", "running", "stopped", "paused", "pausing" };

	return status >= 0 && status < (json_int_t)(sizeof(names) / sizeof(*names)) ? names[status] : names[0];
}

static const json_t *task_of(const json_t *tasks, const char *id)
{
	json_t *task;
	size_t i;

	json_array_foreach ((json_t *)tasks, i, task)
		if (!strcmp(task_text(task, "id") ?: "", id))
			return task;
	return NULL;
}

static enum nova_step_result listed(struct task *task, json_t *value, struct nova_error *err)
{
	const struct containerd *containerd = task->self;
	json_t *list = json_array(), *container;
	size_t i;

	json_array_foreach (json_object_get(json_object_get(value, "body"), "containers"), i, container) {
		const char *uuid = task_text(json_object_get(container, "labels"), "novacron.uuid"), *id = task_text(container, "id") ?: "";
		const json_t *running = task_of(json_object_get(task->notes, "tasks"), id), *pid = json_object_get(running, "pid");
		json_t *row;

		if (strcmp(task_text(json_object_get(container, "runtime"), "name") ?: "", containerd->runtime))
			continue;
		row = json_pack("{s:s,s:s,s:O?,s:s,s:b}", "name", id, "id", id, "image", json_object_get(container, "image"), "state",
		    running ? status_name(json_integer_value(json_object_get(running, "status"))) : "stopped", "ours", uuid != NULL);
		if (pid)
			json_object_set(row, "pid", (json_t *)pid);
		if (uuid)
			json_object_set_new(row, "uuid", json_string(uuid));
		else
			json_object_set_new(row, "adoptable", json_true());
		json_array_append_new(list, row);
	}
	json_decref(task->result);
	task->result = list;
	return NOVA_STEP_DONE;
}

static enum nova_step_result ask_containers(struct nova_run *run, void *ctx, struct nova_error *err)
{
	return containerd_ask(ctx, CTRD_CONTAINER_LIST, json_object(), 0, 0, listed, err);
}

static enum nova_step_result tasks_listed(struct task *task, json_t *value, struct nova_error *err)
{
	json_object_set(task->notes, "tasks", json_object_get(json_object_get(value, "body"), "tasks"));
	return NOVA_STEP_DONE;
}

static enum nova_step_result ask_tasks(struct nova_run *run, void *ctx, struct nova_error *err)
{
	return containerd_ask(ctx, CTRD_TASK_LIST, json_object(), 0, 0, tasks_listed, err);
}

CONTAINERD_VERB(list)
{
	static const struct nova_step rows[] = {
		{ "tasks", ask_tasks, NULL, task_drop_row },
		{ "containers", ask_containers, NULL, task_drop_row },
		{ NULL },
	};

	return task_new(self, &((struct containerd *)self)->env, guest, args, rows, done, arg, err);
}

/* ---- adopt ---- */

static bool has_one(const struct containerd *containerd, const char *id)
{
	for (struct containerd_guest *known = containerd->guests; known; known = known->next)
		if (!strcmp(containerd_id(known->guest), id))
			return true;
	return false;
}

static enum nova_step_result record_read(struct task *task, json_t *value, struct nova_error *err)
{
	const struct containerd *containerd = task->self;
	const json_t *container = json_object_get(json_object_get(value, "body"), "container");
	const char *runtime = task_text(json_object_get(container, "runtime"), "name") ?: "";
	json_t *unknown = json_array(), *spec;

	if (strcmp(runtime, containerd->runtime)) {
		json_decref(unknown);
		nova_error_set(err, NOVA_INVALID, "container %.80s has the runtime %.80s, not %s", task_text(task->args, "id"), runtime, containerd->runtime);
		return NOVA_STEP_FAILED;
	}
	spec = containerd_spec_of(container, unknown);
	json_object_set_new(spec, "adopted", json_pack("{s:o}", "unknown", unknown));
	json_object_set(task->guest->runtime, "id", json_object_get(container, "id"));
	json_object_set_new(task->result, "needs", box_needs(spec));
	json_object_set_new(task->result, "spec", spec);
	json_object_set(task->result, "name", json_object_get(container, "id"));
	return NOVA_STEP_DONE;
}

static enum nova_step_result ask_record(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;

	return containerd_ask(task, CTRD_CONTAINER_GET, json_pack("{s:O}", "id", json_object_get(task->args, "id")), 0, 0, record_read, err);
}

static enum nova_step_result adopted(struct task *task, json_t *value, struct nova_error *err)
{
	if (containerd_know(task->self, task->guest, err) < 0)
		return NOVA_STEP_FAILED;
	containerd_take_state(task->guest, value, "adopted", false);
	json_object_set(task->result, "runtime", task->guest->runtime);
	json_object_set_new(task->result, "state", json_string(nova_guest_state_name(task->guest->state)));
	return NOVA_STEP_DONE;
}

static enum nova_step_result ask_state(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;

	return containerd_ask(task, CTRD_TASK_GET, json_pack("{s:s}", "container_id", containerd_id(task->guest)), 1u << GRPC_NOT_FOUND, 0, adopted, err);
}

CONTAINERD_VERB(adopt)
{
	static const struct nova_step rows[] = {
		{ "record", ask_record, NULL, task_drop_row },
		{ "adopt", ask_state, NULL, task_drop_row },
		{ NULL },
	};
	struct containerd *containerd = self;
	const char *id = task_text(args, "id");

	if (!id) {
		nova_error_set(err, NOVA_INVALID, "%s: which container of namespace %s? Say its id (id)", containerd->driver->name, containerd->space);
		return NULL;
	}
	if (has_one(containerd, id)) {
		nova_error_set(err, NOVA_STATE, "container %.80s is a guest already", id);
		return NULL;
	}
	return task_new(self, &containerd->env, guest, args, rows, done, arg, err);
}

/* ---- reattach ---- */

static enum nova_step_result found(struct task *task, json_t *value, struct nova_error *err)
{
	containerd_take_state(task->guest, value, "found", true);
	json_object_set_new(task->result, "state", json_string(nova_guest_state_name(task->guest->state)));
	return NOVA_STEP_DONE;
}

static enum nova_step_result ask_found(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;

	if (!*containerd_id(task->guest)) { /* CREATE had not come so far */
		json_object_set_new(task->result, "state", json_string(nova_guest_state_name(NOVA_GUEST_STOPPED)));
		return NOVA_STEP_DONE;
	}
	return containerd_ask(task, CTRD_TASK_GET, json_pack("{s:s}", "container_id", containerd_id(task->guest)), 1u << GRPC_NOT_FOUND, 0, found, err);
}

/* Known first: a containerd that does not answer now may do so later, and the guest's state follows then. */
CONTAINERD_VERB(reattach)
{
	static const struct nova_step rows[] = {
		{ "look", ask_found, NULL, task_drop_row },
		{ NULL },
	};

	if (containerd_know(self, guest, err) < 0)
		return NULL;
	return task_new(self, &((struct containerd *)self)->env, guest, args, rows, done, arg, err);
}

/* ---- stats, logs: read here, both are short ---- */

CONTAINERD_VERB(stats)
{
	struct containerd *containerd = self;

	return nova_op_later(containerd->env.base, cgroup_stats(guest), NULL, done, arg, err);
}

CONTAINERD_VERB(logs)
{
	struct containerd *containerd = self;
	char path[PATH_MAX];
	json_t *text;

	if (containerd_file(containerd, guest, "console.log", path, sizeof(path)) < 0) {
		nova_error_sys(err, ENAMETOOLONG, "guest %s", guest->name);
		return NULL;
	}
	text = console_read(path, json_integer_value(json_object_get(args, "lines")), err);
	return text ? nova_op_later(containerd->env.base, text, NULL, done, arg, err) : NULL;
}
