/* SPDX-License-Identifier: Apache-2.0
 *
 * engine.c - asking the Engine API: which version both speak, and paths made of it.
 */
#include "drivers/docker/docker.h"
#include "drivers/common/patience.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

/* "1.41" as 41; -1: no such version. */
static int minor_of(const json_t *version, const char *member)
{
	const char *text = task_text(version, member);
	int minor = -1;

	return text && sscanf(text, "1.%d", &minor) == 1 && minor >= 0 && minor < 1000 ? minor : -1;
}

int docker_agree(struct docker *docker, const json_t *answer, struct nova_error *err)
{
	const json_t *version = json_object_get(answer, "body");
	int most = minor_of(version, "ApiVersion"), least = minor_of(version, "MinAPIVersion");

	docker->api = 0;
	if (most < DOCKER_API_LEAST)
		return nova_error_set(err, NOVA_REFUSED, "docker: its API is %.20s, we need 1.%d or newer",
		    task_text(version, "ApiVersion") ?: "unknown", DOCKER_API_LEAST);
	if (least > DOCKER_API_MOST)
		return nova_error_set(err, NOVA_REFUSED, "docker: it takes API 1.%d or newer only, we speak up to 1.%d", least,
		    DOCKER_API_MOST);
	docker->api = most < DOCKER_API_MOST ? most : DOCKER_API_MOST;
	return 0;
}

static enum nova_step_result version_told(struct task *task, json_t *value, struct nova_error *err)
{
	return docker_agree(task->self, value, err) < 0 ? NOVA_STEP_FAILED : NOVA_STEP_DONE;
}

static struct nova_op *ask_version(void *self, nova_done_fn done, void *arg, struct nova_error *err)
{
	struct docker *docker = self;
	struct http_call call = { .method = "GET", .path = "/version", .limit_ms = 5000 };

	return http_start(docker->http, &call, done, arg, err);
}

enum nova_step_result docker_version_row(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;
	const struct docker *docker = task->self;

	if (docker->api)
		return NOVA_STEP_DONE;
	return task_wait(task, ask_version(task->self, task_done, task, err), version_told);
}

/* ---- waiting for an engine that went away ---- */

enum nova_step_result docker_patient_row(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;

	if (!json_is_true(json_object_get(task->args, "created_only")))
		return docker_version_row(run, ctx, err);
	return task_wait(task, patience_new(task->env->base, ask_version, task->self, task_done, task, err), version_told);
}

/* ---- asking ---- */

static int path_of(const struct docker *docker, char *path, size_t size, const char *format, va_list ap)
{
	int head = snprintf(path, size, "/v1.%d", docker->api);
	int rest = vsnprintf(path + head, size - (size_t)head, format, ap);

	return rest < 0 || (size_t)(head + rest) >= size ? -1 : 0;
}

int docker_path(const struct docker *docker, char *path, size_t size, const char *format, ...)
{
	va_list ap;
	int rc;

	va_start(ap, format);
	rc = path_of(docker, path, size, format, ap);
	va_end(ap);
	return rc;
}

static enum nova_step_result call_path(struct task *task, struct http_call *call, const char *format, va_list ap,
    task_reply_fn reply, struct nova_error *err)
{
	struct docker *docker = task->self;
	char path[1600];

	if (path_of(docker, path, sizeof(path), format, ap) < 0) {
		nova_error_set(err, NOVA_INVALID, "docker: a name is too long");
		return NOVA_STEP_FAILED;
	}
	call->path = path;
	return task_wait(task, http_start(docker->http, call, task_done, task, err), reply);
}

enum nova_step_result docker_call(struct task *task, struct http_call *call, task_reply_fn reply,
    struct nova_error *err, const char *format, ...)
{
	enum nova_step_result result;
	va_list ap;

	va_start(ap, format);
	result = call_path(task, call, format, ap, reply, err);
	va_end(ap);
	return result;
}

enum nova_step_result docker_ask(struct task *task, const char *method, json_t *body, int tolerated,
    task_reply_fn reply, struct nova_error *err, const char *format, ...)
{
	struct http_call call = { .method = method, .body = body, .limit_ms = DOCKER_ASK_MS, .tolerated = tolerated };
	enum nova_step_result result;
	va_list ap;

	va_start(ap, format);
	result = call_path(task, &call, format, ap, reply, err);
	va_end(ap);
	json_decref(body);
	return result;
}

bool docker_is_id(const char *text)
{
	size_t length = text ? strlen(text) : 0;

	for (size_t i = 0; i < length; i++)
		if (!isxdigit((unsigned char)text[i]))
			return false;
	return length == 64;
}

const char *docker_id(const struct nova_guest *guest)
{
	const char *id = task_text(guest->runtime, "id");

	return docker_is_id(id) ? id : "";
}

int docker_status(const json_t *answer)
{
	return (int)json_integer_value(json_object_get(answer, "status"));
}
