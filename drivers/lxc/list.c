/* SPDX-License-Identifier: Apache-2.0
 *
 * list.c - LIST, ADOPT, REATTACH, STATS, LOGS: containers that are there already, and what is known of them.
 */
#include "drivers/lxc/lxc.h"
#include "drivers/common/console.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* ---- list ---- */

static bool is_ours(const struct lxc *lxc, const char *name)
{
	for (const struct lxc_guest *live = lxc->guests; live; live = live->next)
		if (!strcmp(lxc_name_of(live->guest), name) && !strcmp(lxc_path_of(live->guest), lxc->path))
			return true;
	return false;
}

static enum nova_step_result listed(struct task *task, json_t *value, struct nova_error *err)
{
	NOVA_AUTOFREE char *text = strdup(task_text(value, "stdout") ?: "");
	json_t *list = json_array();
	char *rest = text, *name;

	while (text && (name = strsep(&rest, "\n"))) {
		name[strcspn(name, " ")] = 0;
		if (!*name)
			continue;
		json_array_append_new(list, is_ours(task->self, name) ? json_pack("{s:s,s:b}", "name", name, "ours", 1) :
									json_pack("{s:s,s:b,s:b}", "name", name, "ours", 0, "adoptable", 1));
	}
	json_decref(task->result);
	task->result = list;
	return NOVA_STEP_DONE;
}

static enum nova_step_result ask_list(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;
	const char *argv[] = { "lxc-ls", "-P", ((struct lxc *)task->self)->path, "-1", NULL };

	return task_program(task, argv, LXC_COMMAND_MS, listed, err);
}

LXC_VERB(list)
{
	static const struct nova_step rows[] = {
		{ "list", ask_list, NULL, task_drop_row },
		{ NULL },
	};

	return task_new(self, &((struct lxc *)self)->env, guest, args, rows, done, arg, err);
}

/* ---- what runs already ---- */

/* state and pid of lxc-info are the guest's; its end will be seen. */
static int take_info(struct lxc *lxc, struct nova_guest *guest, const json_t *info, struct nova_error *err)
{
	struct lxc_guest *live = lxc_know(lxc, guest, err);
	pid_t pid = lxc_info_pid(info), monitor;

	if (!live)
		return -1;
	json_object_del(guest->runtime, "pid");
	if (pid > 0) {
		monitor = lxc_parent(pid);
		if (monitor <= 1 || lxc_watch(live, monitor, err) < 0)
			return nova_error_set(err, NOVA_STATE, "container %s ended just now", lxc_name_of(guest));
		json_object_set_new(guest->runtime, "pid", json_integer(pid));
	}
	lxc_tell(guest, lxc_info_state(info), "found");
	return 0;
}

int lxc_take_running(struct lxc *lxc, struct nova_guest *guest, const json_t *info, struct nova_error *err)
{
	struct lxc_guest *live = lxc_know(lxc, guest, err);
	pid_t pid = lxc_info_pid(info), monitor = pid > 0 ? lxc_parent(pid) : 0;

	if (!live)
		return -1;
	if (monitor <= 1 || lxc_watch(live, monitor, err) < 0)
		return nova_error_set(err, NOVA_REFUSED, "container %s did not come up, or ended at once", lxc_name_of(guest));
	json_object_set_new(guest->runtime, "pid", json_integer(pid));
	return nova_guest_save(guest, err);
}

static int64_t memory_limit(const struct nova_guest *guest)
{
	struct cgroup_places places;
	struct box_figures figures;

	box_figures_init(&figures);
	cgroup_find((pid_t)json_integer_value(json_object_get(guest->runtime, "pid")), &places);
	cgroup_read(&places, &figures);
	return figures.limit_bytes > 0 && figures.limit_bytes < (int64_t)1 << 50 ? figures.limit_bytes : 0;
}

static enum nova_step_result adopted(struct task *task, json_t *value, struct nova_error *err)
{
	struct nova_guest *guest = task->guest;
	json_t *spec;

	if (nova_child_check("lxc-info", value, err) < 0 || take_info(task->self, guest, value, err) < 0)
		return NOVA_STEP_FAILED;
	spec = json_pack("{s:s,s:i,s:I,s:i,s:{s:[o]}}", "network", "none", "vcpus", 1, "memory", (json_int_t)memory_limit(guest),
	    "cpu-shares", 1024, "adopted", "unknown",
	    json_sprintf("all that %s/%s/config says", lxc_path_of(guest), lxc_name_of(guest)));
	json_object_set_new(task->result, "needs", box_needs(spec));
	json_object_set_new(task->result, "spec", spec);
	json_object_set(task->result, "runtime", guest->runtime);
	json_object_set_new(task->result, "name", json_string(lxc_name_of(guest)));
	json_object_set_new(task->result, "state", json_string(nova_guest_state_name(guest->state)));
	return NOVA_STEP_DONE;
}

static enum nova_step_result ask_adopt(struct nova_run *run, void *ctx, struct nova_error *err)
{
	return lxc_ask_info(ctx, adopted, err);
}

/* "NAME" in our path, or "PATH/NAME". */
LXC_VERB(adopt)
{
	static const struct nova_step rows[] = {
		{ "adopt", ask_adopt, NULL, task_drop_row },
		{ NULL },
	};
	struct lxc *lxc = self;
	const char *id = task_text(args, "id"), *slash = id ? strrchr(id, '/') : NULL;

	if (!id || (slash && (*id != '/' || !slash[1]))) {
		nova_error_set(err, NOVA_INVALID, "lxc: which container? Its name in %s, or PATH/NAME (id)", lxc->path);
		return NULL;
	}
	if (!slash && is_ours(lxc, id)) {
		nova_error_set(err, NOVA_STATE, "container %s is a guest already", id);
		return NULL;
	}
	json_object_set_new(guest->runtime, "path", slash ? json_stringn(id, (size_t)(slash - id)) : json_string(lxc->path));
	json_object_set_new(guest->runtime, "container", json_string(slash ? slash + 1 : id));
	return task_new(self, &lxc->env, guest, args, rows, done, arg, err);
}

static enum nova_step_result found(struct task *task, json_t *value, struct nova_error *err)
{
	if (nova_child_check("lxc-info", value, err) < 0 || take_info(task->self, task->guest, value, err) < 0)
		return NOVA_STEP_FAILED;
	json_object_set_new(task->result, "state", json_string(nova_guest_state_name(task->guest->state)));
	return NOVA_STEP_DONE;
}

static enum nova_step_result ask_state(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;

	if (*lxc_name_of(task->guest))
		return lxc_ask_info(task, found, err);
	json_object_set_new(task->result, "state", json_string(nova_guest_state_name(NOVA_GUEST_STOPPED)));
	return NOVA_STEP_DONE;
}

LXC_VERB(reattach)
{
	static const struct nova_step rows[] = {
		{ "look", ask_state, NULL, task_drop_row },
		{ NULL },
	};

	if (!lxc_know(self, guest, err))
		return NULL;
	return task_new(self, &((struct lxc *)self)->env, guest, args, rows, done, arg, err);
}

/* ---- stats, logs: read here, both are short ---- */

LXC_VERB(stats)
{
	struct lxc *lxc = self;

	return nova_op_later(lxc->env.base, cgroup_stats(guest), NULL, done, arg, err);
}

LXC_VERB(logs)
{
	struct lxc *lxc = self;
	char path[PATH_MAX];
	json_t *text;

	if (lxc_file(guest, "console.log", path, sizeof(path)) < 0) {
		nova_error_sys(err, ENAMETOOLONG, "guest %s", guest->name);
		return NULL;
	}
	text = console_read(path, json_integer_value(json_object_get(args, "lines")), err);
	return text ? nova_op_later(lxc->env.base, text, NULL, done, arg, err) : NULL;
}
