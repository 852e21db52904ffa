/* SPDX-License-Identifier: Apache-2.0
 *
 * image.c - an image in containerd's store: its manifest, its configuration, and its layers as snapshots.
 *
 * What the store holds came from somebody else: blobs are bounded (CONTAINERD_BLOB_MAX), so is the number of layers,
 * and a layer that unpacks to something other than the configuration says is refused.
 */
#include "drivers/containerd/containerd.h"

#include <errno.h>
#include <openssl/sha.h>
#include <stdio.h>
#include <string.h>

#define LAYERS_MAX 127

/* ---- a blob as JSON ---- */

struct reading {
	struct nova_op op; /* first */
	struct nova_op *call; /* owned */
	char *bytes;          /* owned */
	size_t used;
	bool too_long;
	nova_done_fn done;
	void *arg;
};

static void reading_free(struct reading *reading)
{
	nova_op_drop(reading->call);
	free(reading->bytes);
	free(reading);
}

static void reading_drop(struct nova_op *op)
{
	reading_free((struct reading *)op);
}

static void reading_data(void *arg, json_t *value)
{
	struct reading *reading = arg;
	size_t length = 0;
	NOVA_AUTOFREE char *data = grpc_json_data(json_object_get(value, "data"), &length);
	char *grown;

	if (!data || reading->too_long)
		return;
	reading->too_long = reading->used + length > CONTAINERD_BLOB_MAX;
	grown = reading->too_long ? NULL : realloc(reading->bytes, reading->used + length);
	if (!grown) {
		reading->too_long = true;
		return;
	}
	memcpy(grown + reading->used, data, length);
	reading->bytes = grown;
	reading->used += length;
}

static void reading_done(void *arg, json_t *result, const struct nova_error *failure)
{
	struct reading *reading = arg;
	nova_done_fn done = reading->done;
	void *done_arg = reading->arg;
	NOVA_AUTOJSON json_t *value = NULL;
	struct nova_error err;

	reading->call = NULL;
	if (failure)
		err = *failure;
	else if (reading->too_long)
		nova_error_set(&err, NOVA_REFUSED, "containerd: a manifest or configuration of more than %u bytes", CONTAINERD_BLOB_MAX);
	else if (!(value = json_loadb(reading->bytes ? reading->bytes : "", reading->used, JSON_REJECT_DUPLICATES, NULL)))
		nova_error_set(&err, NOVA_REFUSED, "containerd: a manifest or configuration is not JSON");
	reading_free(reading);
	done(done_arg, value, value ? NULL : &err);
}

static enum nova_step_result read_blob(struct task *task, const char *digest, task_reply_fn reply, struct nova_error *err)
{
	struct reading *reading = calloc(1, sizeof(*reading));
	struct grpc_options options = { .limit_ms = CONTAINERD_ASK_MS, .each = reading_data, .each_arg = reading };

	if (!reading) {
		nova_error_sys(err, ENOMEM, "containerd");
		return NOVA_STEP_FAILED;
	}
	reading->op.drop = reading_drop;
	reading->done = task_done;
	reading->arg = task;
	reading->call = containerd_begin(task->self, CTRD_CONTENT_READ, json_pack("{s:s}", "digest", digest), &options, reading_done, reading, err);
	if (reading->call)
		return task_wait(task, &reading->op, reply);
	free(reading);
	return NOVA_STEP_FAILED;
}

/* ---- manifest and configuration ---- */

static const char *image_of(const struct task *task)
{
	return task_text(task->notes, "image") ?: "";
}

static enum nova_step_result image_told(struct task *task, json_t *value, struct nova_error *err)
{
	const json_t *target = json_object_get(json_object_get(json_object_get(value, "body"), "image"), "target");

	if (containerd_status(value) == GRPC_NOT_FOUND || !task_text(target, "digest")) {
		nova_error_set(err, NOVA_INVALID, "containerd has no image '%.120s' in namespace %.60s: see novacron import", image_of(task),
		    ((struct containerd *)task->self)->space);
		return NOVA_STEP_FAILED;
	}
	json_object_set(task->notes, "target", (json_t *)target);
	return NOVA_STEP_DONE;
}

enum nova_step_result containerd_image_row(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;

	return containerd_ask(task, CTRD_IMAGE_GET, json_pack("{s:s}", "name", image_of(task)), 1u << GRPC_NOT_FOUND, 0, image_told, err);
}

const char *containerd_choose(const json_t *manifests)
{
	json_t *row;
	size_t i;

	json_array_foreach ((json_t *)manifests, i, row) {
		const json_t *platform = json_object_get(row, "platform");
		const char *os = task_text(platform, "os"), *cpu = task_text(platform, "architecture");

		if ((!os || !strcmp(os, "linux")) && (!cpu || !strcmp(cpu, "amd64")))
			return task_text(row, "digest");
	}
	return NULL;
}

static enum nova_step_result manifest_told(struct task *task, json_t *value, struct nova_error *err)
{
	const json_t *manifests = json_object_get(value, "manifests");
	const char *chosen = containerd_choose(manifests);

	if (chosen && !json_object_get(task->notes, "chosen")) {
		json_object_set_new(task->notes, "chosen", json_string(chosen));
		return read_blob(task, chosen, manifest_told, err);
	}
	if (!task_text(json_object_get(value, "config"), "digest") || !json_is_array(json_object_get(value, "layers"))) {
		nova_error_set(err, NOVA_INVALID, manifests ? "image '%.120s' has nothing for linux on amd64" : "image '%.120s' has no manifest that we know",
		    image_of(task));
		return NOVA_STEP_FAILED;
	}
	json_object_set(task->notes, "manifest", value);
	return NOVA_STEP_DONE;
}

enum nova_step_result containerd_manifest_row(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;

	return read_blob(task, task_text(json_object_get(task->notes, "target"), "digest"), manifest_told, err);
}

static json_t *digest_of(const char *text, size_t length)
{
	unsigned char hash[SHA256_DIGEST_LENGTH];
	char hex[2 * sizeof(hash) + 8] = "sha256:";

	SHA256((const unsigned char *)text, length, hash);
	for (size_t i = 0; i < sizeof(hash); i++)
		snprintf(hex + 7 + 2 * i, 3, "%02x", hash[i]);
	return json_string(hex);
}

json_t *containerd_chain(const json_t *diff_ids)
{
	json_t *chain = json_array(), *id;
	size_t i;

	json_array_foreach ((json_t *)diff_ids, i, id) {
		const char *below = json_string_value(json_array_get(chain, i ? i - 1 : 0));
		char pair[256];
		int length = snprintf(pair, sizeof(pair), "%s %s", below ? below : "", json_string_value(id) ?: "");

		if (!json_is_string(id) || length < 0 || (size_t)length >= sizeof(pair)) {
			json_decref(chain);
			return NULL;
		}
		if (i)
			json_array_append_new(chain, digest_of(pair, (size_t)length));
		else
			json_array_append(chain, id);
	}
	return chain;
}

static enum nova_step_result config_told(struct task *task, json_t *value, struct nova_error *err)
{
	const json_t *ids = json_object_get(json_object_get(value, "rootfs"), "diff_ids");
	const json_t *layers = json_object_get(json_object_get(task->notes, "manifest"), "layers");
	NOVA_AUTOJSON json_t *chain = containerd_chain(ids);

	if (!chain || !json_array_size(chain) || json_array_size(chain) > LAYERS_MAX || json_array_size(chain) != json_array_size(layers)) {
		nova_error_set(err, NOVA_INVALID, "image '%.120s': its manifest and its configuration do not agree on its layers (1 to %d)", image_of(task),
		    LAYERS_MAX);
		return NOVA_STEP_FAILED;
	}
	json_object_set(task->notes, "config", value);
	json_object_set(task->notes, "chain", chain);
	return NOVA_STEP_DONE;
}

enum nova_step_result containerd_config_row(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;
	const json_t *manifest = json_object_get(task->notes, "manifest");

	return read_blob(task, task_text(json_object_get(manifest, "config"), "digest"), config_told, err);
}

/* ---- layers: those at the top may be there already; each of the others is unpacked upon the one below ---- */

static enum nova_step_result unpack_next(struct task *task, struct nova_error *err);

static json_int_t layer_at(const struct task *task)
{
	return json_integer_value(json_object_get(task->notes, "layer"));
}

static const char *chain_at(const struct task *task, json_int_t layer)
{
	return layer < 0 ? NULL : json_string_value(json_array_get(json_object_get(task->notes, "chain"), (size_t)layer));
}

static const char *snapshotter(const struct task *task)
{
	return ((const struct containerd *)task->self)->snapshotter;
}

static enum nova_step_result layer_done(struct task *task, json_t *value, struct nova_error *err)
{
	json_object_set_new(task->notes, "layer", json_integer(layer_at(task) + 1));
	return unpack_next(task, err);
}

/* Somebody else was faster: ours goes. */
static enum nova_step_result committed(struct task *task, json_t *value, struct nova_error *err)
{
	if (containerd_status(value) == 0)
		return layer_done(task, value, err);
	return containerd_ask(task, CTRD_SNAPSHOT_REMOVE, json_pack("{s:s,s:O}", "snapshotter", snapshotter(task), "key", json_object_get(task->notes, "unpacking")),
	    1u << GRPC_NOT_FOUND, 0, layer_done, err);
}

static enum nova_step_result applied(struct task *task, json_t *value, struct nova_error *err)
{
	const char *got = task_text(json_object_get(json_object_get(value, "body"), "applied"), "digest");
	const json_t *ids = json_object_get(json_object_get(json_object_get(task->notes, "config"), "rootfs"), "diff_ids");
	const char *wanted = json_string_value(json_array_get(ids, (size_t)layer_at(task)));

	if (!got || strcmp(got, wanted)) {
		nova_error_set(err, NOVA_REFUSED, "image '%.120s': a layer unpacks to %.80s, its configuration says %.80s", image_of(task), got ? got : "nothing",
		    wanted);
		return NOVA_STEP_FAILED;
	}
	return containerd_ask(task, CTRD_SNAPSHOT_COMMIT,
	    json_pack("{s:s,s:s,s:O}", "snapshotter", snapshotter(task), "name", chain_at(task, layer_at(task)), "key", json_object_get(task->notes, "unpacking")),
	    1u << GRPC_ALREADY_EXISTS, 0, committed, err);
}

static enum nova_step_result prepared(struct task *task, json_t *value, struct nova_error *err)
{
	const json_t *layer = json_array_get(json_object_get(json_object_get(task->notes, "manifest"), "layers"), (size_t)layer_at(task));
	json_t *diff = json_pack("{s:O,s:O,s:O}", "media_type", json_object_get(layer, "mediaType"), "digest", json_object_get(layer, "digest"), "size",
	    json_object_get(layer, "size"));

	if (!diff) {
		nova_error_set(err, NOVA_INVALID, "image '%.120s': its manifest does not say what layer %lld is", image_of(task), (long long)layer_at(task));
		return NOVA_STEP_FAILED;
	}
	return containerd_ask(task, CTRD_DIFF_APPLY, json_pack("{s:o,s:O}", "diff", diff, "mounts", json_object_get(json_object_get(value, "body"), "mounts")),
	    0, CONTAINERD_LONG_MS, applied, err);
}

static enum nova_step_result layer_seen(struct task *task, json_t *value, struct nova_error *err)
{
	const char *below = chain_at(task, layer_at(task) - 1);
	char key[100];

	if (containerd_status(value) == 0)
		return layer_done(task, value, err);
	snprintf(key, sizeof(key), "%s-layer-%lld", task_text(task->notes, "lease") ?: "novacron", (long long)layer_at(task));
	json_object_set_new(task->notes, "unpacking", json_string(key));
	return containerd_make_snapshot(task, CTRD_SNAPSHOT_PREPARE,
	    json_pack("{s:s,s:s,s:s}", "snapshotter", snapshotter(task), "key", key, "parent", below ? below : ""), 0, prepared, err);
}

static enum nova_step_result unpack_next(struct task *task, struct nova_error *err)
{
	const char *name = chain_at(task, layer_at(task));

	if (!name)
		return NOVA_STEP_DONE;
	return containerd_ask(task, CTRD_SNAPSHOT_STAT, json_pack("{s:s,s:s}", "snapshotter", snapshotter(task), "key", name), 1u << GRPC_NOT_FOUND, 0,
	    layer_seen, err);
}

static enum nova_step_result top_seen(struct task *task, json_t *value, struct nova_error *err)
{
	return containerd_status(value) == 0 ? NOVA_STEP_DONE : unpack_next(task, err);
}

enum nova_step_result containerd_layers_row(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;
	const char *top = chain_at(task, (json_int_t)json_array_size(json_object_get(task->notes, "chain")) - 1);

	return containerd_ask(task, CTRD_SNAPSHOT_STAT, json_pack("{s:s,s:s}", "snapshotter", snapshotter(task), "key", top), 1u << GRPC_NOT_FOUND, 0,
	    top_seen, err);
}
