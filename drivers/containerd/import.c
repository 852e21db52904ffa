/* SPDX-License-Identifier: Apache-2.0
 *
 * import.c - IMPORT: a root file system, as an uncompressed tar archive below the roots, becomes an image of one
 * layer: layer, configuration and manifest go into containerd's content store, then the image gets its name (one
 * that had it is replaced) and its layer is unpacked. All of it under a lease, so that garbage collection keeps off.
 */
#include "drivers/containerd/containerd.h"
#include "drivers/containerd/api.pb-c.h"
#include "drivers/common/roots.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#define CHUNK_BYTES (256u << 10)
#define UPLOAD_MS (30 * 60 * 1000)
#define LEASE_S (60 * 60)
#define LAYER_TYPE "application/vnd.oci.image.layer.v1.tar"
#define CONFIG_TYPE "application/vnd.oci.image.config.v1+json"
#define MANIFEST_TYPE "application/vnd.oci.image.manifest.v1+json"

/* ---- a blob into the store: a chunk is sent when the one before was taken ---- */

struct upload {
	struct nova_op op; /* first */
	struct nova_op *call; /* owned */
	int fd;            /* borrowed; -1: text */
	char *text;        /* owned */
	char *ref;         /* owned */
	json_t *labels;    /* owned */
	char *chunk;       /* owned */
	EVP_MD_CTX *hash;  /* owned */
	char digest[80];
	int64_t size, sent;
	bool committing, failed;
	struct nova_error failure;
	nova_done_fn done;
	void *arg;
};

static void upload_free(struct upload *upload)
{
	nova_op_drop(upload->call);
	EVP_MD_CTX_free(upload->hash);
	json_decref(upload->labels);
	free(upload->text);
	free(upload->ref);
	free(upload->chunk);
	free(upload);
}

static void upload_drop(struct nova_op *op)
{
	upload_free((struct upload *)op);
}

static ssize_t next_bytes(struct upload *upload)
{
	int64_t left = upload->size - upload->sent;
	size_t most = left < (int64_t)CHUNK_BYTES ? (size_t)left : CHUNK_BYTES;

	if (upload->fd >= 0)
		return most ? pread(upload->fd, upload->chunk, most, upload->sent) : 0;
	memcpy(upload->chunk, upload->text + upload->sent, most);
	return (ssize_t)most;
}

static void name_digest(struct upload *upload)
{
	unsigned char hash[EVP_MAX_MD_SIZE];
	unsigned length = 0;

	EVP_DigestFinal_ex(upload->hash, hash, &length);
	strcpy(upload->digest, "sha256:");
	for (unsigned i = 0; i < length && i < 32; i++)
		snprintf(upload->digest + 7 + 2 * i, 3, "%02x", hash[i]);
}

/* The labels go with the commit. Returns the message; free() it. */
static void *next_message(struct upload *upload, size_t *length, struct nova_error *err)
{
	Ctrd__WriteRequest request = CTRD__WRITE_REQUEST__INIT;
	ssize_t got = next_bytes(upload);
	NOVA_AUTOJSON json_t *value = NULL;
	void *bytes;

	if (got < 0 || (got == 0 && upload->sent < upload->size)) {
		nova_error_sys(err, got < 0 ? errno : EIO, "the archive became shorter while it was read");
		return NULL;
	}
	EVP_DigestUpdate(upload->hash, upload->chunk, (size_t)got);
	request.action = 1;
	request.ref = upload->ref;
	request.offset = upload->sent;
	request.total = upload->size;
	request.data.data = (uint8_t *)upload->chunk;
	request.data.len = (size_t)got;
	upload->sent += got;
	if (got > 0) {
		*length = ctrd__write_request__get_packed_size(&request);
		bytes = malloc(*length);
		if (bytes)
			ctrd__write_request__pack(&request, bytes);
		else
			nova_error_sys(err, ENOMEM, "containerd");
		return bytes;
	}
	upload->committing = true;
	name_digest(upload);
	value = json_pack("{s:i,s:s,s:I,s:I,s:s,s:O?}", "action", 2, "ref", upload->ref, "offset", (json_int_t)upload->sent, "total",
	    (json_int_t)upload->size, "expected", upload->digest, "labels", upload->labels);
	return grpc_json_pack(&ctrd__write_request__descriptor, value, length, err);
}

static void taken(void *arg, const void *bytes, size_t length)
{
	struct upload *upload = arg;
	size_t size = 0;
	NOVA_AUTOFREE void *message = NULL;

	if (upload->committing || upload->failed)
		return;
	message = next_message(upload, &size, &upload->failure);
	upload->failed = !message || grpc_send(upload->call, message, size, upload->committing, &upload->failure) < 0;
	/* containerd waits for the rest: end it. */
	if (upload->failed)
		grpc_send(upload->call, "", 0, true, NULL);
}

static void uploaded(void *arg, json_t *result, const struct nova_error *err)
{
	struct upload *upload = arg;
	nova_done_fn done = upload->done;
	void *done_arg = upload->arg;
	struct nova_error failure = upload->failure;
	bool failed = upload->failed || err;
	NOVA_AUTOJSON json_t *answer = json_pack("{s:s,s:I}", "digest", upload->digest, "size", (json_int_t)upload->size);

	if (err && !upload->failed)
		failure = *err;
	upload->call = NULL;
	upload_free(upload);
	done(done_arg, failed ? NULL : answer, failed ? &failure : NULL);
}

static struct nova_op *upload_begin(struct containerd *containerd, const char *lease, struct upload *upload, struct nova_error *err)
{
	struct grpc_header headers[] = { { "containerd-namespace", containerd->space }, { "containerd-lease", lease }, { NULL } };
	struct grpc_call call = { .path = containerd_methods[CTRD_CONTENT_WRITE].path, .headers = headers, .more = true, .streaming = true,
		.limit_ms = UPLOAD_MS, .tolerated = 1u << GRPC_ALREADY_EXISTS, .message_came = taken, .message_arg = upload };
	NOVA_AUTOFREE void *first = NULL;

	upload->op.drop = upload_drop;
	upload->chunk = malloc(CHUNK_BYTES);
	upload->hash = EVP_MD_CTX_new();
	if (!upload->chunk || !upload->hash || !upload->ref || EVP_DigestInit_ex(upload->hash, EVP_sha256(), NULL) != 1) {
		nova_error_sys(err, ENOMEM, "containerd");
		return NULL;
	}
	first = next_message(upload, &call.length, err);
	call.message = first;
	upload->call = first ? grpc_start(containerd->grpc, &call, uploaded, upload, err) : NULL;
	return upload->call ? &upload->op : NULL;
}

/* fd (borrowed) or text; labels (stolen) may be NULL. what: part of the reference's name. */
static enum nova_step_result upload(struct task *task, const char *what, int fd, const char *text, json_t *labels, task_reply_fn reply,
    struct nova_error *err)
{
	const char *lease = task_text(task->notes, "lease");
	struct upload *upload = calloc(1, sizeof(*upload));
	struct nova_op *op;
	struct stat st;

	if (!upload || (fd >= 0 && fstat(fd, &st) < 0)) {
		nova_error_sys(err, upload ? errno : ENOMEM, "containerd");
		free(upload);
		json_decref(labels);
		return NOVA_STEP_FAILED;
	}
	upload->fd = fd;
	upload->text = text ? strdup(text) : NULL;
	upload->size = text ? (int64_t)strlen(text) : st.st_size;
	upload->labels = labels;
	upload->done = task_done;
	upload->arg = task;
	if (asprintf(&upload->ref, "%s-%s", lease, what) < 0)
		upload->ref = NULL;
	op = upload_begin(task->self, lease, upload, err);
	if (!op)
		upload_free(upload);
	return task_wait(task, op, reply);
}

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

	json_object_set_new(task->notes, "layer-blob", descriptor(LAYER_TYPE, value));
	json_object_set_new(task->notes, "chain", containerd_chain(ids));
	json_object_set_new(task->notes, "config",
	    json_pack("{s:s,s:s,s:{},s:{s:s,s:O}}", "architecture", "amd64", "os", "linux", "config", "rootfs", "type", "layers", "diff_ids", ids));
	return NOVA_STEP_DONE;
}

static enum nova_step_result store_layer(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;

	return upload(task, "layer", task->fd[0], NULL, NULL, layer_stored, err);
}

static enum nova_step_result config_stored(struct task *task, json_t *value, struct nova_error *err)
{
	json_object_set_new(task->notes, "manifest",
	    json_pack("{s:i,s:s,s:o,s:[O]}", "schemaVersion", 2, "mediaType", MANIFEST_TYPE, "config", descriptor(CONFIG_TYPE, value), "layers",
		json_object_get(task->notes, "layer-blob")));
	return NOVA_STEP_DONE;
}

static enum nova_step_result store_config(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;
	NOVA_AUTOFREE char *text = json_dumps(json_object_get(task->notes, "config"), JSON_COMPACT);
	char label[160];

	snprintf(label, sizeof(label), "containerd.io/gc.ref.snapshot.%.80s", ((struct containerd *)task->self)->snapshotter);
	return upload(task, "config", -1, text ? text : "", json_pack("{s:O}", label, json_array_get(json_object_get(task->notes, "chain"), 0)), config_stored, err);
}

static enum nova_step_result manifest_stored(struct task *task, json_t *value, struct nova_error *err)
{
	json_object_set_new(task->notes, "target",
	    json_pack("{s:s,s:O,s:O}", "media_type", MANIFEST_TYPE, "digest", json_object_get(value, "digest"), "size", json_object_get(value, "size")));
	return NOVA_STEP_DONE;
}

static enum nova_step_result store_manifest(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;
	const json_t *manifest = json_object_get(task->notes, "manifest");
	NOVA_AUTOFREE char *text = json_dumps(manifest, JSON_COMPACT);

	return upload(task, "manifest", -1, text ? text : "",
	    json_pack("{s:O,s:O}", "containerd.io/gc.ref.content.config", json_object_get(json_object_get(manifest, "config"), "digest"),
		"containerd.io/gc.ref.content.l.0", json_object_get(json_object_get(task->notes, "layer-blob"), "digest")),
	    manifest_stored, err);
}

static json_t *image_of(const struct task *task)
{
	return json_pack("{s:{s:O,s:O}}", "image", "name", json_object_get(task->args, "name"), "target", json_object_get(task->notes, "target"));
}

static enum nova_step_result named(struct task *task, json_t *value, struct nova_error *err)
{
	if (containerd_status(value) == GRPC_ALREADY_EXISTS)
		return containerd_ask(task, CTRD_IMAGE_UPDATE, image_of(task), 0, 0, NULL, err);
	return NOVA_STEP_DONE;
}

static enum nova_step_result name_it(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;

	json_object_set_new(task->result, "said", json_sprintf("imported %s", task_text(task->args, "name")));
	json_object_set(task->notes, "image", json_object_get(task->args, "name"));
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
		{ "name", name_it, NULL, task_drop_row },
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
	if (!task_text(args, "name")) {
		nova_error_set(err, NOVA_INVALID, "%s: which name shall the image have (name)?", containerd->driver->name);
		return NULL;
	}
	op = task_new(self, &containerd->env, guest, args, rows, done, arg, err);
	if (op)
		((struct task *)op)->fd[0] = nova_take_fd(&fd);
	return op;
}
