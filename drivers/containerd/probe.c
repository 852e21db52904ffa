/* SPDX-License-Identifier: Apache-2.0
 *
 * probe.c - what containerd on this host can do, asked from itself: PROBE, CAPABILITIES; and CHECK, whether a
 * specification can be had here.
 */
#include "drivers/containerd/containerd.h"
#include "engine/child.h"

#include <stdio.h>
#include <string.h>

#define CRIU_MS 20000

/* ---- probe ---- */

static enum nova_step_result told(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;
	struct containerd *containerd = task->self;
	const char *no_checkpoint = containerd->driver->verb[NOVA_VERB_SNAPSHOT] ? task_text(task->notes, "no_checkpoint") : NULL;
	json_t *verbs = box_verbs(containerd->driver, "", no_checkpoint);
	json_t *facts = json_pack("{s:s,s:s,s:s,s:s,s:O?}", "socket", grpc_socket(containerd->grpc), "namespace", containerd->space, "runtime",
	    containerd->runtime, "snapshotter", containerd->snapshotter, "snapshotters", json_object_get(task->notes, "snapshotters"));

	box_moves(facts, containerd_no_warm(containerd), containerd_no_warm(containerd));
	json_decref(task->result);
	task->result = json_pack("{s:b,s:O?,s:o,s:o}", "found", true, "version", json_object_get(task->notes, "version"), "verbs", verbs, "facts", facts);
	return NOVA_STEP_DONE;
}

static enum nova_step_result criu_told(struct task *task, json_t *value, struct nova_error *err)
{
	struct nova_error why;

	if (nova_child_check("criu", value, &why) < 0)
		json_object_set_new(task->notes, "no_checkpoint", json_string(why.text));
	return NOVA_STEP_DONE;
}

/* The one in our PATH: containerd's may be another. */
static enum nova_step_result ask_criu(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;
	const char *argv[] = { "sh", "-c", "command -v criu >/dev/null || { echo 'there is no criu' >&2; exit 127; }; exec criu check", NULL };

	return task_program(task, argv, CRIU_MS, criu_told, err);
}

static enum nova_step_result plugins_told(struct task *task, json_t *value, struct nova_error *err)
{
	const struct containerd *containerd = task->self;
	json_t *names = json_array(), *plugin;
	bool there = false;
	size_t i;

	json_array_foreach (json_object_get(json_object_get(value, "body"), "plugins"), i, plugin) {
		json_array_append(names, json_object_get(plugin, "id"));
		there = there || !strcmp(task_text(plugin, "id") ?: "", containerd->snapshotter);
	}
	json_object_set_new(task->notes, "snapshotters", names);
	if (there)
		return NOVA_STEP_DONE;
	nova_error_set(err, NOVA_REFUSED, "containerd has no snapshotter %s (containerd-snapshotter)", containerd->snapshotter);
	return NOVA_STEP_FAILED;
}

static enum nova_step_result ask_plugins(struct nova_run *run, void *ctx, struct nova_error *err)
{
	return containerd_ask(ctx, CTRD_PLUGINS, json_pack("{s:[s]}", "filters", "type==io.containerd.snapshotter.v1"), 0, 0, plugins_told, err);
}

static enum nova_step_result version_told(struct task *task, json_t *value, struct nova_error *err)
{
	json_object_set(task->notes, "version", json_object_get(json_object_get(value, "body"), "version"));
	return NOVA_STEP_DONE;
}

/* That there is no containerd is an answer. */
static enum nova_step_result ask_version(struct nova_run *run, void *ctx, struct nova_error *err)
{
	return containerd_ask(ctx, CTRD_VERSION, NULL, 0, 5000, version_told, err);
}

CONTAINERD_VERB(probe)
{
	static const struct nova_step rows[] = {
		{ "version", ask_version, NULL, task_drop_row },
		{ "snapshotters", ask_plugins, NULL, task_drop_row },
		{ "criu", ask_criu, NULL, task_drop_row },
		{ "answer", told },
		{ NULL },
	};

	return task_new(self, &((struct containerd *)self)->env, guest, args, rows, done, arg, err);
}

CONTAINERD_VERB(capabilities)
{
	struct containerd *containerd = self;
	const char *no = containerd_no_warm(containerd);

	return nova_op_later(containerd->env.base, json_pack("{s:b,s:s,s:s}", "cold", 1, "warm", no, "live", no), NULL, done, arg, err);
}

/* ---- check ---- */

/* With the image's configuration: a command, a user that we can take. */
static enum nova_step_result try_spec(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;
	const struct nova_guest nobody = { .name = "nobody", .uuid = "00000000-0000-0000-0000-000000000000" };
	NOVA_AUTOJSON json_t *oci = containerd_oci_spec(&nobody, json_object_get(task->result, "spec"), json_object_get(task->notes, "config"), err);

	return oci ? NOVA_STEP_DONE : NOVA_STEP_FAILED;
}

CONTAINERD_VERB(check)
{
	static const struct nova_step rows[] = {
		CONTAINERD_IMAGE_ROWS,
		{ "specification", try_spec },
		{ NULL },
	};
	struct containerd *containerd = self;
	struct box_limits limits = {
		.params = containerd_spec_params,
		.driver = containerd->driver->name,
		.roots = containerd->roots,
		.networks = containerd->env.config ? nova_config_get(containerd->env.config, "networks") : NULL,
	};
	NOVA_AUTOJSON json_t *spec = box_complete(json_object_get(args, "spec"), &limits, err);
	const char *network = task_text(spec, "network") ?: "none";
	struct nova_op *op;

	if (!spec)
		return NULL;
	if (strcmp(network, "none") && strcmp(network, "host")) {
		nova_error_set(err, NOVA_INVALID, "network '%.60s': %s has none and host", network, containerd->driver->name);
		return NULL;
	}
	/* With its image, whose configuration is looked at when it has come. */
	if (json_is_true(json_object_get(args, "incoming")))
		return nova_op_later(containerd->env.base, json_pack("{s:o,s:O}", "needs", box_needs(spec), "spec", spec), NULL, done, arg, err);
	op = task_new(self, &containerd->env, guest, args, rows, done, arg, err);
	if (!op)
		return NULL;
	json_object_set_new(((struct task *)op)->result, "needs", box_needs(spec));
	json_object_set(((struct task *)op)->result, "spec", spec);
	json_object_set(((struct task *)op)->notes, "image", json_object_get(spec, "image"));
	return op;
}
