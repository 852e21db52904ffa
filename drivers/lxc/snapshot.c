/* SPDX-License-Identifier: Apache-2.0
 *
 * snapshot.c - SNAPSHOT and RESTORE: a stopped container's files, copied by lxc-snapshot (which needs rsync).
 *
 * LXC numbers its snapshots; guest->runtime.snapshots knows which name is which. RESTORE replaces the root file
 * system, so it is refused where that is a directory somebody gave us.
 */
#include "drivers/lxc/lxc.h"

#include <dirent.h>
#include <stdio.h>
#include <string.h>

#define COPY_MS (30 * 60 * 1000)

/* The highest N of snaps/snapN, or -1. */
static int newest(const struct nova_guest *guest)
{
	char path[PATH_MAX];
	struct dirent *entry;
	int number, most = -1;
	DIR *dir;

	if (lxc_file(guest, "snaps", path, sizeof(path)) < 0 || !(dir = opendir(path)))
		return -1;
	while ((entry = readdir(dir)))
		if (sscanf(entry->d_name, "snap%d", &number) == 1 && number > most)
			most = number;
	closedir(dir);
	return most;
}

static json_t *snapshots(const struct nova_guest *guest)
{
	json_t *known = json_object_get(guest->runtime, "snapshots");

	if (!known) {
		known = json_object();
		json_object_set_new(guest->runtime, "snapshots", known);
	}
	return known;
}

static int need_stopped(const struct nova_guest *guest, const char *what, struct nova_error *err)
{
	if (guest->state == NOVA_GUEST_STOPPED || guest->state == NOVA_GUEST_FAILED)
		return 0;
	return nova_error_set(err, NOVA_STATE, "guest %s is %s: lxc %s stopped containers only", guest->name,
	    nova_guest_state_name(guest->state), what);
}

static enum nova_step_result taken(struct task *task, json_t *value, struct nova_error *err)
{
	int number = newest(task->guest);
	char name[32];

	if (nova_child_check("lxc-snapshot", value, err) < 0)
		return NOVA_STEP_FAILED;
	if (number < 0) {
		nova_error_set(err, NOVA_REFUSED, "lxc: lxc-snapshot left no snapshot");
		return NOVA_STEP_FAILED;
	}
	snprintf(name, sizeof(name), "snap%d", number);
	json_object_set_new(snapshots(task->guest), task_text(task->args, "name"), json_string(name));
	return nova_guest_save(task->guest, err) < 0 ? NOVA_STEP_FAILED : NOVA_STEP_DONE;
}

static enum nova_step_result take(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;
	const char *argv[] = { "lxc-snapshot", "-P", lxc_path_of(task->guest), "-n", lxc_name_of(task->guest), NULL };

	return task_program(task, argv, COPY_MS, taken, err);
}

LXC_VERB(snapshot)
{
	static const struct nova_step rows[] = {
		{ "copy", take, NULL, task_drop_row },
		{ NULL },
	};

	if (json_is_true(json_object_get(args, "external"))) {
		nova_error_set(err, NOVA_REFUSED, "not supported by lxc: snapshots outside of the container's own directory");
		return NULL;
	}
	if (need_stopped(guest, "copies", err) < 0)
		return NULL;
	if (json_object_get(snapshots(guest), task_text(args, "name") ?: "")) {
		nova_error_set(err, NOVA_STATE, "guest %s has a snapshot '%.60s' already", guest->name, task_text(args, "name"));
		return NULL;
	}
	return task_new(self, &((struct lxc *)self)->env, guest, args, rows, done, arg, err);
}

static enum nova_step_result put_back(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;
	const char *name = task_text(snapshots(task->guest), task_text(task->args, "name"));
	const char *argv[] = { "lxc-snapshot", "-P", lxc_path_of(task->guest), "-n", lxc_name_of(task->guest), "-r", name, NULL };

	return task_program(task, argv, COPY_MS, NULL, err);
}

static bool is_own_rootfs(const struct nova_guest *guest)
{
	char rootfs[PATH_MAX];
	DIR *dir;

	if (!json_is_true(json_object_get(guest->runtime, "made")) || lxc_file(guest, "rootfs/..", rootfs, sizeof(rootfs)) < 0)
		return false;
	dir = opendir(task_text(guest->spec, "rootfs") ?: "");
	if (dir)
		closedir(dir);
	return !dir;
}

LXC_VERB(restore)
{
	static const struct nova_step rows[] = {
		{ "copy back", put_back, NULL, task_drop_row },
		{ NULL },
	};

	if (!task_text(snapshots(guest), task_text(args, "name") ?: "")) {
		nova_error_set(err, NOVA_INVALID, "guest %s has no snapshot '%.60s'", guest->name, task_text(args, "name") ?: "");
		return NULL;
	}
	if (need_stopped(guest, "goes back with", err) < 0)
		return NULL;
	if (!is_own_rootfs(guest)) {
		nova_error_set(err, NOVA_REFUSED, "guest %s uses the directory %s as it is: it is not ours to replace", guest->name,
		    task_text(guest->spec, "rootfs") ?: "");
		return NULL;
	}
	return task_new(self, &((struct lxc *)self)->env, guest, args, rows, done, arg, err);
}
