/* SPDX-License-Identifier: Apache-2.0
 *
 * blob.c - blobs into containerd's content store, and out of it.
 *
 * One way in is Content/Write: a chunk is sent when the one before was taken, and its digest is computed here as it
 * goes, so that what is stored is what was read. The way out is Content/Read, into a file. Files are read and written
 * a chunk at a time, from and to the page cache.
 */
#include "drivers/containerd/containerd.h"
#include "drivers/containerd/api.pb-c.h"

#include <errno.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define CHUNK_BYTES (256u << 10)
#define UPLOAD_MS (30 * 60 * 1000)

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

enum nova_step_result containerd_upload(struct task *task, const char *what, int fd, const char *text, json_t *labels, task_reply_fn reply,
    struct nova_error *err)
{
	const char *lease = task_text(task->notes, "lease");
	struct upload *upload = calloc(1, sizeof(*upload));
	struct nova_op *op;
	struct stat st = { 0 };

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

/* ---- and out of it ---- */

struct download {
	struct nova_op op; /* first */
	struct nova_op *call; /* owned */
	int fd;               /* borrowed */
	int64_t size;
	int errnum;
	nova_done_fn done;
	void *arg;
};

static void download_drop(struct nova_op *op)
{
	struct download *download = (struct download *)op;

	nova_op_drop(download->call);
	free(download);
}

static void download_data(void *arg, json_t *value)
{
	struct download *download = arg;
	size_t length = 0, written = 0;
	NOVA_AUTOFREE char *data = grpc_json_data(json_object_get(value, "data"), &length);

	while (data && written < length && !download->errnum) {
		ssize_t now = write(download->fd, data + written, length - written);

		if (now < 0 && errno != EINTR)
			download->errnum = errno;
		written += now > 0 ? (size_t)now : 0;
	}
	download->size += (int64_t)written;
}

static void downloaded(void *arg, json_t *result, const struct nova_error *failure)
{
	struct download *download = arg;
	nova_done_fn done = download->done;
	void *done_arg = download->arg;
	NOVA_AUTOJSON json_t *answer = json_pack("{s:I}", "size", (json_int_t)download->size);
	struct nova_error err;
	bool failed = failure || download->errnum;

	if (failure)
		err = *failure;
	else if (failed)
		nova_error_sys(&err, download->errnum, "cannot write what containerd sends");
	free(download);
	done(done_arg, failed ? NULL : answer, failed ? &err : NULL);
}

enum nova_step_result containerd_download(struct task *task, const char *digest, int fd, task_reply_fn reply, struct nova_error *err)
{
	struct download *download = calloc(1, sizeof(*download));
	struct grpc_options options = { .limit_ms = UPLOAD_MS, .each = download_data, .each_arg = download };

	if (!download) {
		nova_error_sys(err, ENOMEM, "containerd");
		return NOVA_STEP_FAILED;
	}
	*download = (struct download){ .op.drop = download_drop, .fd = fd, .done = task_done, .arg = task };
	download->call = containerd_begin(task->self, CTRD_CONTENT_READ, json_pack("{s:s}", "digest", digest), &options, downloaded, download, err);
	if (download->call)
		return task_wait(task, &download->op, reply);
	free(download);
	return NOVA_STEP_FAILED;
}
