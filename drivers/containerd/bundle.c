/* SPDX-License-Identifier: Apache-2.0
 *
 * bundle.c - making a task, also where containerd was killed at the beginning of a start.
 *
 * It leaves the task's directory then, without a shim, cannot clear it up when it is started again (1.6), and refuses each later
 * start because of it. The directory is named in its refusal; ours to remove is only one that is exactly where this
 * container's belongs, and has nothing in it but what containerd writes before a shim runs.
 */
#include "drivers/containerd/containerd.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define BEFORE "mkdir "
#define AFTER ": file exists"

/* The directory that is in the way, in path; false: the refusal is about something else. */
static bool in_the_way(const struct task *task, const char *refusal, char path[PATH_MAX])
{
	const struct containerd *containerd = task->self;
	const char *from = strstr(refusal, BEFORE "/"), *to = from ? strstr(from, AFTER) : NULL;
	char end[PATH_MAX];
	size_t length, tail;

	if (!to)
		return false;
	from += strlen(BEFORE);
	length = (size_t)(to - from);
	tail = (size_t)snprintf(end, sizeof(end), "/io.containerd.runtime.v2.task/%s/%s", containerd->space, containerd_id(task->guest));
	if (length >= PATH_MAX || length <= tail)
		return false;
	memcpy(path, from, length);
	path[length] = 0;
	return !strcmp(path + length - tail, end) && !strstr(path, "/../");
}

static bool is_known(const char *name)
{
	static const char *const before_a_shim[] = { ".", "..", "config.json", "options.json", "rootfs", "work", "log", NULL };

	for (size_t i = 0; before_a_shim[i]; i++)
		if (!strcmp(name, before_a_shim[i]))
			return true;
	return false;
}

static int check_known(DIR *dir, const char *path, struct nova_error *err)
{
	const struct dirent *entry;
	struct stat info;

	if (fstat(dirfd(dir), &info) < 0)
		return nova_error_sys(err, errno, "%s", path);
	if (info.st_uid != geteuid())
		return nova_error_set(err, NOVA_REFUSED, "it is not containerd's");
	while ((entry = readdir(dir)))
		if (!is_known(entry->d_name))
			return nova_error_set(err, NOVA_REFUSED, "it has %.100s in it, of a shim that may still run", entry->d_name);
	return 0;
}

static int remove_left(const char *path, struct nova_error *err)
{
	static const char *const files[] = { "config.json", "options.json", "work", "log", NULL };
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	int rc;

	if (!dir) {
		rc = nova_error_sys(err, errno, "%s", path);
		if (fd >= 0)
			close(fd);
		return rc;
	}
	rc = check_known(dir, path, err);
	for (size_t i = 0; rc == 0 && files[i]; i++)
		unlinkat(fd, files[i], 0);
	if (rc == 0)
		unlinkat(fd, "rootfs", AT_REMOVEDIR);
	closedir(dir);
	return rc < 0 ? rc : rmdir(path) == 0 ? 0 : nova_error_sys(err, errno, "%s", path);
}

static enum nova_step_result refused_or_made(struct task *task, json_t *value, struct nova_error *err)
{
	const char *text = task_text(value, "text") ?: "no reason given";
	char path[PATH_MAX];
	struct nova_error why;

	if (containerd_status(value) == GRPC_OK)
		return NOVA_STEP_DONE;
	if (!in_the_way(task, text, path)) {
		nova_error_set(err, NOVA_REFUSED, "containerd: %s (gRPC %d)", text, containerd_status(value));
		return NOVA_STEP_FAILED;
	}
	if (remove_left(path, &why) < 0) {
		nova_error_set(err, NOVA_REFUSED, "containerd has a directory left of a start of %s that was cut off: %s. Remove it when no shim of %s runs: %s",
		    task->guest->name, path, task->guest->name, why.text);
		return NOVA_STEP_FAILED;
	}
	driver_log(task->env, NOVA_LOG_INFO, "guest %s: removed %s, which containerd had left of a start that was cut off", task->guest->name, path);
	return containerd_ask(task, CTRD_TASK_CREATE, json_incref(json_object_get(task->notes, "request")), 0, CONTAINERD_LONG_MS, NULL, err);
}

enum nova_step_result containerd_make_task(struct task *task, json_t *request, int limit_ms, struct nova_error *err)
{
	json_object_set(task->notes, "request", request);
	return containerd_ask(task, CTRD_TASK_CREATE, request, 1u << GRPC_UNKNOWN, limit_ms, refused_or_made, err);
}
