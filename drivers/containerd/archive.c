/* SPDX-License-Identifier: Apache-2.0
 *
 * archive.c - images as OCI archives (a tar archive: blobs/sha256, index.json, oci-layout): EXPORT, and the rows
 * of IMPORT that read one.
 *
 * Both go through a private directory in the state directory. An archive is foreign data: tar takes the names above
 * out of it and no others, files are opened beneath the directory only, JSON is bounded, and every blob must have
 * the digest that it is called by. Only sha256; of an index with several manifests, the one for this machine.
 */
#include "drivers/containerd/containerd.h"
#include "drivers/common/roots.h"
#include "engine/child.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#define TAR_MS (30 * 60 * 1000)
#define NAME_MAX_BYTES 255

/* ---- the directory ---- */

static const char *directory(const struct task *task)
{
	return task_text(task->notes, "directory") ?: "";
}

enum nova_step_result containerd_archive_directory_row(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;
	const struct containerd *containerd = task->self;
	char path[PATH_MAX], blobs[PATH_MAX + 16];

	if (snprintf(path, sizeof(path), "%s/image-XXXXXX", containerd->state_dir) >= (int)sizeof(path) || !mkdtemp(path)) {
		nova_error_sys(err, errno, "cannot make a directory in %s", containerd->state_dir);
		return NOVA_STEP_FAILED;
	}
	json_object_set_new(task->notes, "directory", json_string(path));
	snprintf(blobs, sizeof(blobs), "%s/blobs", path);
	if (mkdir(blobs, 0700) == 0 && snprintf(blobs, sizeof(blobs), "%s/blobs/sha256", path) > 0 && mkdir(blobs, 0700) == 0)
		return NOVA_STEP_DONE;
	nova_error_sys(err, errno, "cannot make %s", blobs);
	return NOVA_STEP_FAILED;
}

enum nova_step_result containerd_archive_remove_row(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;
	const char *argv[] = { "rm", "-rf", "--one-file-system", "--", directory(task), NULL };

	return *directory(task) ? task_program(task, argv, TAR_MS, NULL, err) : NOVA_STEP_DONE;
}

/* A file in it; -1 and the reason. What is no plain file is not opened (a fifo would wait for ever). */
int containerd_archive_open(const struct task *task, const char *name, int flags, struct nova_error *err)
{
	NOVA_AUTOJSON json_t *roots = json_pack("[s]", directory(task));
	char path[PATH_MAX];
	NOVA_AUTOCLOSE int fd = -1;
	struct stat st;

	snprintf(path, sizeof(path), "%s/%s", directory(task), name);
	fd = roots_open(roots, path, flags | O_NOFOLLOW | O_NONBLOCK);
	if (fd < 0)
		return nova_error_set(err, NOVA_INVALID, "the archive is no OCI image: %s: %s", name, strerrordesc_np(errno));
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
		return nova_error_set(err, NOVA_INVALID, "the archive is no OCI image: %s is not a file", name);
	return nova_take_fd(&fd);
}

/* "sha256:HEX" as the name of its file. */
static int blob_name(const char *digest, char name[96], struct nova_error *err)
{
	if (digest && !strncmp(digest, "sha256:", 7) && strlen(digest) == 71 && strspn(digest + 7, "0123456789abcdef") == 64) {
		snprintf(name, 96, "blobs/sha256/%s", digest + 7);
		return 0;
	}
	return nova_error_set(err, NOVA_INVALID, "'%.80s' is no digest that we know: sha256 and 64 digits", digest ? digest : "");
}

static json_t *read_json(const struct task *task, const char *name, struct nova_error *err)
{
	NOVA_AUTOCLOSE int fd = containerd_archive_open(task, name, O_RDONLY, err);
	struct stat st;
	json_t *value;

	if (fd < 0)
		return NULL;
	if (fstat(fd, &st) < 0 || st.st_size > (off_t)CONTAINERD_BLOB_MAX) {
		nova_error_set(err, NOVA_INVALID, "the archive's %s has more than %u bytes", name, CONTAINERD_BLOB_MAX);
		return NULL;
	}
	value = json_loadfd(fd, JSON_REJECT_DUPLICATES, NULL);
	if (!value)
		nova_error_set(err, NOVA_INVALID, "the archive's %s is not JSON", name);
	return value;
}

static json_t *read_blob(const struct task *task, const json_t *descriptor, struct nova_error *err)
{
	char name[96];

	return blob_name(task_text(descriptor, "digest"), name, err) < 0 ? NULL : read_json(task, name, err);
}

/* tar, with the archive as its file number fd. */
static enum nova_step_result run_tar(struct task *task, const char *const argv[], struct nova_error *err)
{
	struct nova_child_options options = { .limit_ms = TAR_MS, .keep_fds = &task->fd[0], .keep_fd_count = 1, .no_new_privs = true };

	task->program = "tar";
	return task_wait(task, nova_child_run(task->env->base, argv, &options, task_done, task, err), NULL);
}

/* ---- import ---- */

static enum nova_step_result extracted(struct task *task, json_t *value, struct nova_error *err)
{
	return nova_child_check("tar", value, err) < 0 ? NOVA_STEP_FAILED : NOVA_STEP_DONE;
}

enum nova_step_result containerd_archive_extract_row(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;
	char file[32];
	const char *argv[] = { "tar", "--extract", "--no-same-owner", "--no-same-permissions", "--directory", directory(task), "--file", file, "--wildcards",
		"--no-wildcards-match-slash", "index.json", "blobs/sha256/*", NULL };
	enum nova_step_result result;

	snprintf(file, sizeof(file), "/proc/self/fd/%d", task->fd[0]);
	result = run_tar(task, argv, err);
	task->reply = extracted;
	return result;
}

static const char *name_in(const json_t *index, const char *digest)
{
	json_t *row;
	size_t i;

	json_array_foreach (json_object_get(index, "manifests"), i, row) {
		const json_t *notes = json_object_get(row, "annotations");

		if (!strcmp(task_text(row, "digest") ?: "", digest))
			return task_text(notes, "io.containerd.image.name") ?: task_text(notes, "org.opencontainers.image.ref.name");
	}
	return NULL;
}

static int take_manifest(struct task *task, const json_t *index, struct nova_error *err)
{
	const char *digest = containerd_choose(json_object_get(index, "manifests"));
	const char *name = digest ? name_in(index, digest) : NULL;
	NOVA_AUTOJSON json_t *descriptor = json_pack("{s:s*}", "digest", digest), *manifest = NULL, *config = NULL, *chain = NULL;

	if (!digest || !name || strlen(name) > NAME_MAX_BYTES)
		return nova_error_set(err, NOVA_INVALID, "the archive's index.json has no image for linux on amd64 with a name");
	manifest = read_blob(task, descriptor, err);
	config = manifest ? read_blob(task, json_object_get(manifest, "config"), err) : NULL;
	if (!config)
		return -1;
	chain = containerd_chain(json_object_get(json_object_get(config, "rootfs"), "diff_ids"));
	if (!json_array_size(chain) || json_array_size(chain) != json_array_size(json_object_get(manifest, "layers")))
		return nova_error_set(err, NOVA_INVALID, "the archive's manifest and configuration do not agree on its layers");
	json_object_set_new(task->notes, "image", json_string(name));
	json_object_set(task->notes, "target", descriptor);
	json_object_set(task->notes, "manifest", manifest);
	json_object_set(task->notes, "config", config);
	json_object_set(task->notes, "chain", chain);
	return 0;
}

enum nova_step_result containerd_archive_index_row(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;
	NOVA_AUTOJSON json_t *index = read_json(task, "index.json", err);

	return index && take_manifest(task, index, err) == 0 ? NOVA_STEP_DONE : NOVA_STEP_FAILED;
}

/* Blob number i of an image: its layers from below, its configuration, its manifest; NULL behind the last. */
static const json_t *blob_at(const struct task *task, size_t i)
{
	const json_t *manifest = json_object_get(task->notes, "manifest"), *layers = json_object_get(manifest, "layers");
	size_t count = json_array_size(layers);

	return i < count ? json_array_get(layers, i) : i == count ? json_object_get(manifest, "config") :
						     i == count + 1 ? json_object_get(task->notes, "target") :
								      NULL;
}

static size_t blob_number(const struct task *task)
{
	return (size_t)json_integer_value(json_object_get(task->notes, "blob"));
}

/* What keeps the blobs and snapshots that this one refers to. */
static json_t *labels_of(const struct task *task, size_t i)
{
	const json_t *chain = json_object_get(task->notes, "chain"), *manifest = json_object_get(task->notes, "manifest");
	size_t layers = json_array_size(chain);
	json_t *labels = json_object();
	char name[160];

	if (i == layers) {
		snprintf(name, sizeof(name), "containerd.io/gc.ref.snapshot.%.80s", ((struct containerd *)task->self)->snapshotter);
		json_object_set(labels, name, json_array_get(chain, layers - 1));
	}
	if (i <= layers)
		return labels;
	json_object_set(labels, "containerd.io/gc.ref.content.config", json_object_get(json_object_get(manifest, "config"), "digest"));
	for (size_t layer = 0; layer < layers; layer++) {
		snprintf(name, sizeof(name), "containerd.io/gc.ref.content.l.%zu", layer);
		json_object_set(labels, name, json_object_get(json_array_get(json_object_get(manifest, "layers"), layer), "digest"));
	}
	return labels;
}

static enum nova_step_result upload_next(struct task *task, struct nova_error *err);

static enum nova_step_result stored(struct task *task, json_t *value, struct nova_error *err)
{
	const json_t *blob = blob_at(task, blob_number(task));

	if (!json_equal(json_object_get(blob, "digest"), json_object_get(value, "digest"))) {
		nova_error_set(err, NOVA_INVALID, "the archive's blob %.80s is not what it is called: %.80s", task_text(blob, "digest"), task_text(value, "digest"));
		return NOVA_STEP_FAILED;
	}
	if (!blob_at(task, blob_number(task) + 1)) /* the manifest */
		json_object_set_new(task->notes, "target",
		    json_pack("{s:s,s:O,s:O}", "media_type", task_text(json_object_get(task->notes, "manifest"), "mediaType") ?: CONTAINERD_MANIFEST_TYPE,
			"digest", json_object_get(value, "digest"), "size", json_object_get(value, "size")));
	json_object_set_new(task->notes, "blob", json_integer((json_int_t)blob_number(task) + 1));
	return upload_next(task, err);
}

static bool is_held(const struct task *task, const json_t *blob)
{
	json_t *held;
	size_t i;

	json_array_foreach (json_object_get(task->notes, "held"), i, held)
		if (json_equal(held, json_object_get(blob, "digest")))
			return true;
	return false;
}

static enum nova_step_result upload_next(struct task *task, struct nova_error *err)
{
	size_t i = blob_number(task);
	const json_t *blob;
	char name[96], what[32];

	while ((blob = blob_at(task, i)) && is_held(task, blob))
		i++;
	json_object_set_new(task->notes, "blob", json_integer((json_int_t)i));

	if (task->fd[1] >= 0)
		close(task->fd[1]);
	task->fd[1] = -1;
	if (!blob)
		return NOVA_STEP_DONE;
	if (blob_name(task_text(blob, "digest"), name, err) < 0 || (task->fd[1] = containerd_archive_open(task, name, O_RDONLY, err)) < 0)
		return NOVA_STEP_FAILED;
	snprintf(what, sizeof(what), "blob-%zu", i);
	return containerd_upload(task, what, task->fd[1], NULL, labels_of(task, i), stored, err);
}

enum nova_step_result containerd_archive_blobs_row(struct nova_run *run, void *ctx, struct nova_error *err)
{
	return upload_next(ctx, err);
}

/* ---- export ---- */

static enum nova_step_result name_image(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;

	json_object_set(task->notes, "image", json_object_get(task->args, "name"));
	return NOVA_STEP_DONE;
}

/* The manifest, and no index above it, is what is exported. */
enum nova_step_result containerd_archive_target_row(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;
	json_t *chosen = json_object_get(task->notes, "chosen");

	if (chosen)
		json_object_set_new(task->notes, "target", json_pack("{s:O}", "digest", chosen));
	return NOVA_STEP_DONE;
}

static enum nova_step_result download_next(struct task *task, struct nova_error *err);

static enum nova_step_result fetched(struct task *task, json_t *value, struct nova_error *err)
{
	if (!blob_at(task, blob_number(task) + 1))
		json_object_set(json_object_get(task->notes, "target"), "size", json_object_get(value, "size"));
	json_object_set_new(task->notes, "blob", json_integer((json_int_t)blob_number(task) + 1));
	return download_next(task, err);
}

static enum nova_step_result download_next(struct task *task, struct nova_error *err)
{
	const json_t *blob = blob_at(task, blob_number(task));
	char name[96];

	if (task->fd[1] >= 0)
		close(task->fd[1]);
	task->fd[1] = -1;
	if (!blob)
		return NOVA_STEP_DONE;
	if (blob_name(task_text(blob, "digest"), name, err) < 0 || (task->fd[1] = containerd_archive_open(task, name, O_WRONLY | O_CREAT | O_TRUNC, err)) < 0)
		return NOVA_STEP_FAILED;
	return containerd_download(task, task_text(blob, "digest"), task->fd[1], fetched, err);
}

enum nova_step_result containerd_archive_fetch_row(struct nova_run *run, void *ctx, struct nova_error *err)
{
	return download_next(ctx, err);
}

static int write_json(const struct task *task, const char *name, json_t *value, struct nova_error *err)
{
	NOVA_AUTOCLOSE int fd = containerd_archive_open(task, name, O_WRONLY | O_CREAT | O_EXCL, err);
	int rc = fd < 0 ? -1 : json_dumpfd(value, fd, JSON_COMPACT);

	json_decref(value);
	return fd >= 0 && rc < 0 ? nova_error_sys(err, errno, "cannot write %s", name) : rc;
}

enum nova_step_result containerd_archive_layout_row(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;
	const json_t *target = json_object_get(task->notes, "target");
	const char *type = task_text(json_object_get(task->notes, "manifest"), "mediaType") ?: CONTAINERD_MANIFEST_TYPE;
	json_t *index = json_pack("{s:i,s:[{s:s,s:O,s:O,s:{s:O}}]}", "schemaVersion", 2, "manifests", "mediaType", type, "digest",
	    json_object_get(target, "digest"), "size", json_object_get(target, "size"), "annotations", "io.containerd.image.name",
	    json_object_get(task->notes, "image"));

	if (write_json(task, "index.json", index, err) < 0 || write_json(task, "oci-layout", json_pack("{s:s}", "imageLayoutVersion", "1.0.0"), err) < 0)
		return NOVA_STEP_FAILED;
	return NOVA_STEP_DONE;
}

static enum nova_step_result packed(struct task *task, json_t *value, struct nova_error *err)
{
	struct stat st;

	if (nova_child_check("tar", value, err) < 0)
		return NOVA_STEP_FAILED;
	json_object_set_new(task->result, "bytes", json_integer(fstat(task->fd[0], &st) == 0 ? st.st_size : 0));
	return NOVA_STEP_DONE;
}

static enum nova_step_result pack(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;
	char file[32];
	const char *argv[] = { "tar", "--create", "--numeric-owner", "--owner=0", "--group=0", "--directory", directory(task), "--file", file, "oci-layout",
		"index.json", "blobs", NULL };
	enum nova_step_result result;

	snprintf(file, sizeof(file), "/proc/self/fd/%d", task->fd[0]);
	result = run_tar(task, argv, err);
	task->reply = packed;
	return result;
}

/* A file of half an image is of no use. */
static enum nova_step_result drop_file(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;
	const char *path = task_text(task->args, "file");
	NOVA_AUTOCLOSE int fd = roots_open(((struct containerd *)task->self)->roots, path, O_PATH);

	return fd >= 0 && unlink(path) < 0 ? NOVA_STEP_FAILED : NOVA_STEP_DONE;
}

static enum nova_step_result nothing(struct nova_run *run, void *ctx, struct nova_error *err)
{
	return NOVA_STEP_DONE;
}

CONTAINERD_VERB(export)
{
	static const struct nova_step rows[] = {
		{ "file", nothing, drop_file },
		{ "name", name_image },
		CONTAINERD_IMAGE_ROWS,
		{ "target", containerd_archive_target_row },
		{ "directory", containerd_archive_directory_row, containerd_archive_remove_row, task_drop_row },
		{ "blobs", containerd_archive_fetch_row, NULL, task_drop_row },
		{ "index", containerd_archive_layout_row },
		{ "archive", pack, NULL, task_drop_row },
		{ "remove", containerd_archive_remove_row, NULL, task_drop_row },
		{ NULL },
	};
	struct containerd *containerd = self;
	const char *path = task_text(args, "file");
	NOVA_AUTOCLOSE int fd = -1;
	struct nova_op *op;

	if (!path || !task_text(args, "name")) {
		nova_error_set(err, NOVA_INVALID, "%s: which image into which file? Say name and file", containerd->driver->name);
		return NULL;
	}
	fd = roots_open(containerd->roots, path, O_RDWR | O_CREAT | O_EXCL);
	if (fd < 0) {
		if (errno == EXDEV)
			roots_refuse(containerd->roots, "image file", path, err);
		else
			nova_error_sys(err, errno, "image file %s", path);
		return NULL;
	}
	op = task_new(self, &containerd->env, guest, args, rows, done, arg, err);
	if (op)
		((struct task *)op)->fd[0] = nova_take_fd(&fd);
	return op;
}
