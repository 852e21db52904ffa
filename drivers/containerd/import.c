/* SPDX-License-Identifier: Apache-2.0
 *
 * import.c - IMPORT, of an archive below the roots.
 *
 * With a name it is a root file system (an uncompressed tar archive), which becomes an image of one layer: layer,
 * configuration and manifest go into containerd's content store, the layer is unpacked, then the image gets its name
 * (one that had it is replaced). Without a name it is an OCI archive, as EXPORT writes it, which knows its name
 * itself: archive.c reads it. All of it under a lease, so that garbage collection keeps off.
 */
#include "drivers/containerd/containerd.h"
#include "drivers/common/roots.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define LEASE_S (60 * 60)
#define CONFIG_TYPE "application/vnd.oci.image.config.v1+json"

static json_t *descriptor(const char *type, const json_t *blob)
{
	return json_pack("{s:s,s:O,s:O}", "mediaType", type, "digest", json_object_get(blob, "digest"), "size", json_object_get(blob, "size"));
}

/* ---- rows ---- */

static enum nova_step_result leased(struct task *task, json_t *value, struct nova_error *err)
{
	json_object_set(task->notes, "lease", json_object_get(task->notes, "id"));
	return NOVA_STEP_DONE;
}

static enum nova_step_result take_lease(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;
	struct timespec now;
	time_t until = time(NULL) + LEASE_S;
	struct tm utc;
	char expires[32];

	clock_gettime(CLOCK_REALTIME, &now);
	strftime(expires, sizeof(expires), "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&until, &utc));
	json_object_set_new(task->notes, "id", json_sprintf("novacron-import-%lld-%ld", (long long)now.tv_sec, now.tv_nsec));
	return containerd_ask(task, CTRD_LEASE_CREATE,
	    json_pack("{s:O,s:{s:s}}", "id", json_object_get(task->notes, "id"), "labels", "containerd.io/gc.expire", expires), 0, 0, leased, err);
}

static enum nova_step_result end_lease(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;

	json_object_del(task->notes, "lease");
	return containerd_ask(task, CTRD_LEASE_DELETE, json_pack("{s:O}", "id", json_object_get(task->notes, "id")), 1u << GRPC_NOT_FOUND, 0, NULL, err);
}

static enum nova_step_result layer_stored(struct task *task, json_t *value, struct nova_error *err)
{
	NOVA_AUTOJSON json_t *ids = json_pack("[O]", json_object_get(value, "digest"));

	json_object_set_new(task->notes, "layer-blob", descriptor(CONTAINERD_LAYER_TYPE, value));
	json_object_set_new(task->notes, "chain", containerd_chain(ids));
	json_object_set_new(task->notes, "config",
	    json_pack("{s:s,s:s,s:{},s:{s:s,s:O}}", "architecture", "amd64", "os", "linux", "config", "rootfs", "type", "layers", "diff_ids", ids));
	return NOVA_STEP_DONE;
}

static enum nova_step_result store_layer(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;

	return containerd_upload(task, "layer", task->fd[0], NULL, NULL, layer_stored, err);
}

static enum nova_step_result config_stored(struct task *task, json_t *value, struct nova_error *err)
{
	json_object_set_new(task->notes, "manifest",
	    json_pack("{s:i,s:s,s:o,s:[O]}", "schemaVersion", 2, "mediaType", CONTAINERD_MANIFEST_TYPE, "config", descriptor(CONFIG_TYPE, value), "layers",
		json_object_get(task->notes, "layer-blob")));
	return NOVA_STEP_DONE;
}

static enum nova_step_result store_config(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;
	NOVA_AUTOFREE char *text = json_dumps(json_object_get(task->notes, "config"), JSON_COMPACT);
	char label[160];

	snprintf(label, sizeof(label), "containerd.io/gc.ref.snapshot.%.80s", ((struct containerd *)task->self)->snapshotter);
	return containerd_upload(task, "config", -1, text ? text : "", json_pack("{s:O}", label, json_array_get(json_object_get(task->notes, "chain"), 0)), config_stored, err);
}

static enum nova_step_result manifest_stored(struct task *task, json_t *value, struct nova_error *err)
{
	json_object_set_new(task->notes, "target",
	    json_pack("{s:s,s:O,s:O}", "media_type", CONTAINERD_MANIFEST_TYPE, "digest", json_object_get(value, "digest"), "size", json_object_get(value, "size")));
	return NOVA_STEP_DONE;
}

static enum nova_step_result store_manifest(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;
	const json_t *manifest = json_object_get(task->notes, "manifest");
	NOVA_AUTOFREE char *text = json_dumps(manifest, JSON_COMPACT);

	return containerd_upload(task, "manifest", -1, text ? text : "",
	    json_pack("{s:O,s:O}", "containerd.io/gc.ref.content.config", json_object_get(json_object_get(manifest, "config"), "digest"),
		"containerd.io/gc.ref.content.l.0", json_object_get(json_object_get(task->notes, "layer-blob"), "digest")),
	    manifest_stored, err);
}

static json_t *image_of(const struct task *task)
{
	return json_pack("{s:{s:O,s:O}}", "image", "name", json_object_get(task->notes, "image"), "target", json_object_get(task->notes, "target"));
}

static enum nova_step_result named(struct task *task, json_t *value, struct nova_error *err)
{
	if (containerd_status(value) == GRPC_ALREADY_EXISTS)
		return containerd_ask(task, CTRD_IMAGE_UPDATE, image_of(task), 0, 0, NULL, err);
	return NOVA_STEP_DONE;
}

enum nova_step_result containerd_name_row(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;

	if (task_text(task->args, "name"))
		json_object_set(task->notes, "image", json_object_get(task->args, "name"));
	json_object_set_new(task->result, "said", json_sprintf("imported %s", task_text(task->notes, "image")));
	return containerd_ask(task, CTRD_IMAGE_CREATE, image_of(task), 1u << GRPC_ALREADY_EXISTS, 0, named, err);
}

/* ---- the verb ---- */

static int check_archive(int fd, const char *path, struct nova_error *err)
{
	char head[512] = "";

	if (pread(fd, head, sizeof(head), 0) == (ssize_t)sizeof(head) && !memcmp(head + 257, "ustar", 5))
		return 0;
	return nova_error_set(err, NOVA_INVALID, "image file %s is not an uncompressed tar archive", path);
}

CONTAINERD_VERB(import)
{
	static const struct nova_step rows[] = {
		{ "lease", take_lease, end_lease, task_drop_row },
		{ "layer", store_layer, NULL, task_drop_row },
		{ "configuration", store_config, NULL, task_drop_row },
		{ "manifest", store_manifest, NULL, task_drop_row },
		{ "unpack", containerd_layers_row, NULL, task_drop_row },
		{ "name", containerd_name_row, NULL, task_drop_row },
		{ "unlease", end_lease, NULL, task_drop_row },
		{ NULL },
	};
	static const struct nova_step archive_rows[] = {
		{ "lease", take_lease, end_lease, task_drop_row },
		{ "directory", containerd_archive_directory_row, containerd_archive_remove_row, task_drop_row },
		{ "extract", containerd_archive_extract_row, NULL, task_drop_row },
		{ "index", containerd_archive_index_row },
		{ "blobs", containerd_archive_blobs_row, NULL, task_drop_row },
		{ "unpack", containerd_layers_row, NULL, task_drop_row },
		{ "name", containerd_name_row, NULL, task_drop_row },
		{ "remove", containerd_archive_remove_row, NULL, task_drop_row },
		{ "unlease", end_lease, NULL, task_drop_row },
		{ NULL },
	};
	struct containerd *containerd = self;
	const char *path = task_text(args, "file");
	NOVA_AUTOCLOSE int fd = path ? roots_open(containerd->roots, path, O_RDONLY | O_NOFOLLOW) : -1;
	struct nova_op *op;

	if (!path)
		nova_error_set(err, NOVA_INVALID, "image: which file?");
	else if (fd < 0 && errno == EXDEV)
		roots_refuse(containerd->roots, "image file", path, err);
	else if (fd < 0)
		nova_error_sys(err, errno, "image file %s", path);
	if (fd < 0 || check_archive(fd, path, err) < 0)
		return NULL;
	op = task_new(self, &containerd->env, guest, args, task_text(args, "name") ? rows : archive_rows, done, arg, err);
	if (op)
		((struct task *)op)->fd[0] = nova_take_fd(&fd);
	return op;
}
