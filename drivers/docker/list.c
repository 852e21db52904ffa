/* SPDX-License-Identifier: Apache-2.0
 *
 * list.c - LIST, ADOPT, REATTACH: containers that are there already.
 */
#include "drivers/docker/docker.h"

#include <string.h>

#define VERSION_ROW { "version", docker_version_row, NULL, task_drop_row }

/* ---- list ---- */

static const char *name_of(json_t *container)
{
	const char *name = json_string_value(json_array_get(json_object_get(container, "Names"), 0)) ?: "";

	return *name == '/' ? name + 1 : name;
}

static enum nova_step_result listed(struct task *task, json_t *value, struct nova_error *err)
{
	json_t *list = json_array(), *container;
	size_t i;

	json_array_foreach (json_object_get(value, "body"), i, container) {
		const char *uuid = task_text(json_object_get(container, "Labels"), "novacron.uuid");
		json_t *row = json_pack("{s:s,s:O?,s:O?,s:O?,s:b}", "name", name_of(container), "id",
		    json_object_get(container, "Id"), "image", json_object_get(container, "Image"), "state",
		    json_object_get(container, "State"), "ours", uuid != NULL);

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

static enum nova_step_result ask_list(struct nova_run *run, void *ctx, struct nova_error *err)
{
	return docker_ask(ctx, "GET", NULL, 0, listed, err, "/containers/json?all=1");
}

DOCKER_VERB(list)
{
	static const struct nova_step rows[] = {
		VERSION_ROW,
		{ "list", ask_list, NULL, task_drop_row },
		{ NULL },
	};

	return task_new(self, &((struct docker *)self)->env, guest, args, rows, done, arg, err);
}

/* ---- adopt ---- */

static enum nova_step_result adopted(struct task *task, json_t *value, struct nova_error *err)
{
	struct docker *docker = task->self;
	struct nova_guest *guest = task->guest;
	json_t *inspected = json_object_get(value, "body"), *unknown = json_array(), *spec;
	const char *id = task_text(inspected, "Id"), *name = task_text(inspected, "Name") ?: "";

	if (!docker_is_id(id)) {
		json_decref(unknown);
		nova_error_set(err, NOVA_REFUSED, "docker: it says nothing of the container's id");
		return NOVA_STEP_FAILED;
	}
	spec = docker_spec_of(inspected, unknown);
	json_object_set_new(spec, "adopted", json_pack("{s:o}", "unknown", unknown));
	json_object_set_new(guest->runtime, "id", json_string(id));
	json_object_set_new(task->result, "needs", box_needs(spec));
	json_object_set_new(task->result, "spec", spec);
	json_object_set_new(task->result, "name", json_string(*name == '/' ? name + 1 : name));
	if (docker_know(docker, guest, err) < 0)
		return NOVA_STEP_FAILED;
	docker_take_state(docker, guest, inspected, "adopted");
	json_object_set(task->result, "runtime", guest->runtime);
	json_object_set_new(task->result, "state", json_string(nova_guest_state_name(guest->state)));
	return NOVA_STEP_DONE;
}

static enum nova_step_result ask_adopt(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;
	NOVA_AUTOFREE char *escaped = http_escape(task_text(task->args, "id"));

	return docker_ask(task, "GET", NULL, 0, adopted, err, "/containers/%s/json", escaped ?: "");
}

static bool has_one(struct docker *docker, const char *id)
{
	for (struct docker_guest *known = docker->guests; known; known = known->next)
		if (!strcmp(docker_id(known->guest), id))
			return true;
	return false;
}

static enum nova_step_result not_twice(struct task *task, json_t *value, struct nova_error *err)
{
	const char *id = task_text(json_object_get(value, "body"), "Id") ?: "";

	if (!has_one(task->self, id))
		return NOVA_STEP_DONE;
	nova_error_set(err, NOVA_STATE, "container %.12s is a guest already", id);
	return NOVA_STEP_FAILED;
}

static enum nova_step_result ask_first(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;
	NOVA_AUTOFREE char *escaped = http_escape(task_text(task->args, "id"));

	return docker_ask(task, "GET", NULL, 0, not_twice, err, "/containers/%s/json", escaped ?: "");
}

DOCKER_VERB(adopt)
{
	static const struct nova_step rows[] = {
		VERSION_ROW,
		{ "look", ask_first, NULL, task_drop_row },
		{ "adopt", ask_adopt, NULL, task_drop_row },
		{ NULL },
	};

	if (!task_text(args, "id")) {
		nova_error_set(err, NOVA_INVALID, "docker: which container? Say its name or id (id)");
		return NULL;
	}
	return task_new(self, &((struct docker *)self)->env, guest, args, rows, done, arg, err);
}

/* ---- reattach ---- */

static enum nova_step_result found(struct task *task, json_t *value, struct nova_error *err)
{
	if (docker_status(value) == 404) {
		json_object_del(task->guest->runtime, "id");
		nova_error_set(err, NOVA_STATE, "its container is gone");
		return NOVA_STEP_FAILED;
	}
	docker_take_state(task->self, task->guest, json_object_get(value, "body"), "found");
	json_object_set_new(task->result, "state", json_string(nova_guest_state_name(task->guest->state)));
	return NOVA_STEP_DONE;
}

static enum nova_step_result ask_state(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;

	if (!*docker_id(task->guest)) { /* CREATE had not come so far */
		json_object_set_new(task->result, "state", json_string(nova_guest_state_name(NOVA_GUEST_STOPPED)));
		return NOVA_STEP_DONE;
	}
	return docker_ask(task, "GET", NULL, 404, found, err, "/containers/%s/json", docker_id(task->guest));
}

/* Known first: an engine that does not answer now may do so later, and the guest's state follows then. */
DOCKER_VERB(reattach)
{
	static const struct nova_step rows[] = {
		VERSION_ROW,
		{ "look", ask_state, NULL, task_drop_row },
		{ NULL },
	};

	if (docker_know(self, guest, err) < 0)
		return NULL;
	return task_new(self, &((struct docker *)self)->env, guest, args, rows, done, arg, err);
}
