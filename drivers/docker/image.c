/* SPDX-License-Identifier: Apache-2.0
 *
 * image.c - IMPORT and EXPORT: images from files below the roots, and to them.
 *
 * IMPORT takes a root file system as a tar archive and gives it a name, or (without a name) an archive that
 * EXPORT wrote, which knows the names itself.
 */
#include "drivers/docker/docker.h"
#include "drivers/common/roots.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#define VERSION_ROW { "version", docker_version_row, NULL, task_drop_row }

/* ---- import ---- */

/* Progress and outcome come as a sequence of objects with status 200, also when it failed. */
static void look_for_error(void *arg, json_t *value)
{
	json_t *found = arg;

	if (task_text(value, "error"))
		json_object_set(found, "error", json_object_get(value, "error"));
	if (task_text(value, "stream"))
		json_object_set(found, "said", json_object_get(value, "stream"));
	if (task_text(value, "status"))
		json_object_set(found, "said", json_object_get(value, "status"));
}

enum nova_step_result docker_imported(struct task *task, json_t *value, struct nova_error *err)
{
	NOVA_AUTOJSON json_t *found = json_object();
	NOVA_AUTOFREE char *whole = NULL;
	struct json_stream stream = { 0 };
	const char *text = json_string_value(json_object_get(value, "text"));
	int rc;

	if (!text) {
		whole = json_dumps(json_object_get(value, "body"), JSON_ENCODE_ANY);
		text = whole;
	}
	rc = text ? json_stream_feed(&stream, text, strlen(text), look_for_error, found, err) : 0;
	json_stream_release(&stream);
	if (rc < 0)
		return NOVA_STEP_FAILED;
	if (task_text(found, "error")) {
		nova_error_set(err, NOVA_REFUSED, "docker: %.300s", task_text(found, "error"));
		return NOVA_STEP_FAILED;
	}
	json_object_set_new(task->result, "said", json_string(task_text(found, "said") ?: ""));
	return NOVA_STEP_DONE;
}

static enum nova_step_result send_image(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;
	struct http_call call = { .method = "POST", .send_fd = &task->fd[0], .limit_ms = DOCKER_IMAGE_MS };
	const char *name = task_text(task->args, "name"), *colon = name ? strrchr(name, ':') : NULL;
	NOVA_AUTOFREE char *escaped = name ? http_escape(name) : NULL;

	if (!name)
		return docker_call(task, &call, docker_imported, err, "/images/load?quiet=1");
	if (colon && strchr(colon, '/'))
		colon = NULL;
	if (!colon)
		return docker_call(task, &call, docker_imported, err, "/images/create?fromSrc=-&repo=%s&tag=latest", escaped ?: "");
	NOVA_AUTOFREE char *repo = strndup(name, (size_t)(colon - name));
	NOVA_AUTOFREE char *repo_escaped = repo ? http_escape(repo) : NULL;
	NOVA_AUTOFREE char *tag = http_escape(colon + 1);
	return docker_call(
	    task, &call, docker_imported, err, "/images/create?fromSrc=-&repo=%s&tag=%s", repo_escaped ?: "", tag ?: "");
}

static struct nova_op *with_file(struct docker *docker, const struct nova_step *rows, json_t *args, int flags, nova_done_fn done,
    void *arg, struct nova_error *err)
{
	const char *path = task_text(args, "file");
	NOVA_AUTOCLOSE int fd = path ? roots_open(docker->roots, path, flags) : -1;
	struct nova_op *op;

	if (!path)
		nova_error_set(err, NOVA_INVALID, "image: which file?");
	else if (fd < 0 && errno == EXDEV)
		roots_refuse(docker->roots, "image file", path, err);
	else if (fd < 0)
		nova_error_sys(err, errno, "image file %s", path);
	if (fd < 0)
		return NULL;
	op = task_new(docker, &docker->env, NULL, args, rows, done, arg, err);
	if (op)
		((struct task *)op)->fd[0] = nova_take_fd(&fd);
	return op;
}

DOCKER_VERB(import)
{
	static const struct nova_step rows[] = {
		VERSION_ROW,
		{ "import", send_image, NULL, task_drop_row },
		{ NULL },
	};

	return with_file(self, rows, args, O_RDONLY | O_NOFOLLOW, done, arg, err);
}

/* ---- export ---- */

static enum nova_step_result exported(struct task *task, json_t *value, struct nova_error *err)
{
	off_t end = lseek(task->fd[0], 0, SEEK_END);

	json_object_set_new(task->result, "bytes", json_integer(end > 0 ? end : 0));
	return NOVA_STEP_DONE;
}

static enum nova_step_result take_image(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;
	struct http_call call = { .method = "GET", .answer_fd = &task->fd[0], .limit_ms = DOCKER_IMAGE_MS };
	const char *name = task_text(task->args, "name");
	NOVA_AUTOFREE char *escaped = name ? http_escape(name) : NULL;

	return docker_call(task, &call, exported, err, "/images/get?names=%s", escaped ?: "");
}

/* A file of half an image is of no use. */
static enum nova_step_result drop_file(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;
	struct docker *docker = task->self;
	const char *path = task_text(task->args, "file");
	NOVA_AUTOCLOSE int fd = roots_open(docker->roots, path, O_PATH);

	return fd >= 0 && unlink(path) < 0 ? NOVA_STEP_FAILED : NOVA_STEP_DONE;
}

DOCKER_VERB(export)
{
	static const struct nova_step rows[] = {
		VERSION_ROW,
		{ "export", take_image, drop_file, task_drop_row },
		{ NULL },
	};

	if (!task_text(args, "name")) {
		nova_error_set(err, NOVA_INVALID, "docker: which image? Say its name");
		return NULL;
	}
	return with_file(self, rows, args, O_WRONLY | O_CREAT | O_EXCL, done, arg, err);
}
