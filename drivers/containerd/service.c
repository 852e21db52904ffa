/* SPDX-License-Identifier: Apache-2.0
 *
 * service.c - asking containerd: its methods, the namespace and lease that go with each call, and patience with a
 * containerd that is being restarted.
 */
#include "drivers/containerd/containerd.h"
#include "drivers/common/patience.h"
#include "drivers/containerd/api.pb-c.h"

#include <stdio.h>
#include <string.h>

#define METHOD(service, name, request, answer) \
	{ "/containerd.services." service "/" name, &ctrd__##request##__descriptor, &ctrd__##answer##__descriptor }

const struct grpc_method containerd_methods[CTRD_METHODS] = {
	[CTRD_VERSION] = METHOD("version.v1.Version", "Version", empty, version_response),
	[CTRD_PLUGINS] = METHOD("introspection.v1.Introspection", "Plugins", plugins_request, plugins_response),
	[CTRD_LEASE_CREATE] = METHOD("leases.v1.Leases", "Create", lease_create, empty),
	[CTRD_LEASE_DELETE] = METHOD("leases.v1.Leases", "Delete", lease_delete, empty),
	[CTRD_IMAGE_GET] = METHOD("images.v1.Images", "Get", image_name, image_message),
	[CTRD_IMAGE_CREATE] = METHOD("images.v1.Images", "Create", image_message, image_message),
	[CTRD_IMAGE_UPDATE] = METHOD("images.v1.Images", "Update", image_message, image_message),
	[CTRD_IMAGE_DELETE] = METHOD("images.v1.Images", "Delete", image_delete, empty),
	[CTRD_CONTENT_INFO] = METHOD("content.v1.Content", "Info", read_request, empty),
	[CTRD_CONTENT_READ] = METHOD("content.v1.Content", "Read", read_request, read_response),
	[CTRD_CONTENT_WRITE] = METHOD("content.v1.Content", "Write", write_request, write_response),
	[CTRD_CONTENT_ABORT] = METHOD("content.v1.Content", "Abort", ref, empty),
	[CTRD_SNAPSHOT_PREPARE] = METHOD("snapshots.v1.Snapshots", "Prepare", snapshot_prepare, mounts),
	[CTRD_SNAPSHOT_VIEW] = METHOD("snapshots.v1.Snapshots", "View", snapshot_prepare, mounts),
	[CTRD_SNAPSHOT_MOUNTS] = METHOD("snapshots.v1.Snapshots", "Mounts", snapshot_key, mounts),
	[CTRD_SNAPSHOT_COMMIT] = METHOD("snapshots.v1.Snapshots", "Commit", snapshot_commit, empty),
	[CTRD_SNAPSHOT_REMOVE] = METHOD("snapshots.v1.Snapshots", "Remove", snapshot_key, empty),
	[CTRD_SNAPSHOT_STAT] = METHOD("snapshots.v1.Snapshots", "Stat", snapshot_key, snapshot_stat),
	[CTRD_DIFF_APPLY] = METHOD("diff.v1.Diff", "Apply", apply_request, apply_response),
	[CTRD_DIFF_DIFF] = METHOD("diff.v1.Diff", "Diff", diff_request, diff_response),
	[CTRD_CONTAINER_GET] = METHOD("containers.v1.Containers", "Get", id, container_message),
	[CTRD_CONTAINER_LIST] = METHOD("containers.v1.Containers", "List", filters, container_list),
	[CTRD_CONTAINER_CREATE] = METHOD("containers.v1.Containers", "Create", container_message, container_message),
	[CTRD_CONTAINER_UPDATE] = METHOD("containers.v1.Containers", "Update", container_update, container_message),
	[CTRD_CONTAINER_DELETE] = METHOD("containers.v1.Containers", "Delete", id, empty),
	[CTRD_TASK_GET] = METHOD("tasks.v1.Tasks", "Get", task_id, task_got),
	[CTRD_TASK_LIST] = METHOD("tasks.v1.Tasks", "List", empty, task_list),
	[CTRD_TASK_CREATE] = METHOD("tasks.v1.Tasks", "Create", task_create, task_pid),
	[CTRD_TASK_START] = METHOD("tasks.v1.Tasks", "Start", task_id, task_started),
	[CTRD_TASK_KILL] = METHOD("tasks.v1.Tasks", "Kill", task_kill, empty),
	[CTRD_TASK_WAIT] = METHOD("tasks.v1.Tasks", "Wait", task_id, task_waited),
	[CTRD_TASK_DELETE] = METHOD("tasks.v1.Tasks", "Delete", task_event, task_deleted),
	[CTRD_TASK_PAUSE] = METHOD("tasks.v1.Tasks", "Pause", task_event, empty),
	[CTRD_TASK_RESUME] = METHOD("tasks.v1.Tasks", "Resume", task_event, empty),
	[CTRD_TASK_CHECKPOINT] = METHOD("tasks.v1.Tasks", "Checkpoint", task_checkpoint, empty),
	[CTRD_TASK_UPDATE] = METHOD("tasks.v1.Tasks", "Update", task_update, empty),
	[CTRD_EVENTS] = METHOD("events.v1.Events", "Subscribe", filters, envelope),
};

/* ---- asking ---- */

static struct nova_op *ask_under(struct containerd *containerd, const char *lease, enum containerd_method method, json_t *request,
    const struct grpc_options *options, nova_done_fn done, void *arg, struct nova_error *err)
{
	struct grpc_header headers[] = { { "containerd-namespace", containerd->space }, { lease ? "containerd-lease" : NULL, lease }, { NULL } };
	struct grpc_options with = *options;
	struct nova_op *op;

	if (!request && containerd_methods[method].request->n_fields) {
		nova_error_set(err, NOVA_INVALID, "containerd: a request could not be made: is all of it UTF-8?");
		return NULL;
	}
	with.headers = headers;
	op = grpc_ask(containerd->grpc, &containerd_methods[method], request, &with, done, arg, err);
	json_decref(request);
	return op;
}

struct nova_op *containerd_begin(struct containerd *containerd, enum containerd_method method, json_t *request,
    const struct grpc_options *options, nova_done_fn done, void *arg, struct nova_error *err)
{
	return ask_under(containerd, NULL, method, request, options, done, arg, err);
}

struct nova_op *containerd_begin_for(struct task *task, enum containerd_method method, json_t *request,
    const struct grpc_options *options, nova_done_fn done, void *arg, struct nova_error *err)
{
	return ask_under(task->self, task_text(task->notes, "lease"), method, request, options, done, arg, err);
}

enum nova_step_result containerd_ask(struct task *task, enum containerd_method method, json_t *request, uint32_t tolerated,
    int limit_ms, task_reply_fn reply, struct nova_error *err)
{
	struct grpc_options options = { .limit_ms = limit_ms ? limit_ms : CONTAINERD_ASK_MS, .tolerated = tolerated };

	return task_wait(task, containerd_begin_for(task, method, request, &options, task_done, task, err), reply);
}

int containerd_status(const json_t *answer)
{
	return (int)json_integer_value(json_object_get(answer, "status"));
}

/* ---- small things ---- */

json_t *containerd_any(const char *type_url, const ProtobufCMessageDescriptor *type, const json_t *value, struct nova_error *err)
{
	size_t length;
	NOVA_AUTOFREE void *bytes = grpc_json_pack(type, value, &length, err);

	return bytes ? json_pack("{s:s,s:o}", "type_url", type_url, "value", grpc_json_bytes(bytes, length)) : NULL;
}

json_t *containerd_any_json(const char *type_url, const json_t *value)
{
	NOVA_AUTOFREE char *text = json_dumps(value, JSON_COMPACT);

	return text ? json_pack("{s:s,s:o}", "type_url", type_url, "value", grpc_json_bytes(text, strlen(text))) : NULL;
}

const char *containerd_id(const struct nova_guest *guest)
{
	return task_text(guest->runtime, "id") ?: "";
}

void containerd_key(const struct nova_guest *guest, char key[64])
{
	snprintf(key, 64, "novacron-%.50s", guest->uuid);
}

int containerd_file(const struct containerd *containerd, const struct nova_guest *guest, const char *file, char *path, size_t size)
{
	int length = snprintf(path, size, "%s/guests/%s%s%s", containerd->state_dir, guest->name, *file ? "/" : "", file);

	return length < 0 || (size_t)length >= size ? -1 : 0;
}

/* ---- patience ---- */

static struct nova_op *ask_version(void *self, nova_done_fn done, void *arg, struct nova_error *err)
{
	struct grpc_options options = { .limit_ms = 5000 };

	return containerd_begin(self, CTRD_VERSION, NULL, &options, done, arg, err);
}

enum nova_step_result containerd_patient_row(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;

	if (!json_is_true(json_object_get(task->args, "created_only")) && !json_is_true(json_object_get(task->notes, "sync")))
		return NOVA_STEP_DONE;
	return task_wait(task, patience_new(task->env->base, ask_version, task->self, task_done, task, err), NULL);
}
