/* SPDX-License-Identifier: Apache-2.0
 *
 * watch.c - what happens to a container, whoever does it: its end is seen through its monitor's pidfd, and
 * once a second we look whether it is frozen (control groups tell nobody).
 */
#include "drivers/lxc/lxc.h"

#include <errno.h>
#include <event2/event.h>
#include <stdio.h>
#include <string.h>

void lxc_tell(struct nova_guest *guest, enum nova_guest_state state, const char *why)
{
	if (guest->state != state)
		nova_guest_set_state(guest, state, why);
}

const char *lxc_path_of(const struct nova_guest *guest)
{
	return task_text(guest->runtime, "path") ?: "";
}

const char *lxc_name_of(const struct nova_guest *guest)
{
	return task_text(guest->runtime, "container") ?: "";
}

int lxc_file(const struct nova_guest *guest, const char *file, char *path, size_t size)
{
	int length = snprintf(path, size, "%s/%s%s%s", lxc_path_of(guest), lxc_name_of(guest), *file ? "/" : "", file);

	return length > 0 && (size_t)length < size ? 0 : -1;
}

/* ---- frozen? ---- */

static void look_again(struct lxc *lxc)
{
	struct timeval second = { 1, 0 };

	if (lxc->guests)
		event_add(lxc->look, &second);
}

static void look(evutil_socket_t fd, short what, void *arg)
{
	struct lxc *lxc = arg;

	for (struct lxc_guest *live = lxc->guests; live; live = live->next) {
		pid_t pid = (pid_t)json_integer_value(json_object_get(live->guest->runtime, "pid"));
		struct cgroup_places places;

		if (!live->watch || pid <= 0)
			continue;
		cgroup_find(pid, &places);
		if (!places.of[CGROUP_FREEZER].version)
			continue;
		if (live->guest->state == NOVA_GUEST_RUNNING && cgroup_frozen(&places))
			lxc_tell(live->guest, NOVA_GUEST_PAUSED, "frozen");
		else if (live->guest->state == NOVA_GUEST_PAUSED && !cgroup_frozen(&places))
			lxc_tell(live->guest, NOVA_GUEST_RUNNING, "unfrozen");
	}
	look_again(lxc);
}

/* ---- guests ---- */

struct lxc_guest *lxc_know(struct lxc *lxc, struct nova_guest *guest, struct nova_error *err)
{
	struct lxc_guest *live = guest->driver_data;

	if (live)
		return live;
	live = calloc(1, sizeof(*live));
	if (live && !lxc->look)
		lxc->look = event_new(lxc->env.base, -1, 0, look, lxc);
	if (!live || !lxc->look) {
		free(live);
		nova_error_sys(err, ENOMEM, "guest %s", guest->name);
		return NULL;
	}
	live->lxc = lxc;
	live->guest = guest;
	live->next = lxc->guests;
	lxc->guests = live;
	guest->driver_data = live;
	look_again(lxc);
	return live;
}

void lxc_forget_guest(struct lxc *lxc, struct nova_guest *guest)
{
	struct lxc_guest **at = &lxc->guests, *live = guest->driver_data;

	if (!live)
		return;
	while (*at != live)
		at = &(*at)->next;
	*at = live->next;
	guest->driver_data = NULL;
	nova_process_unwatch(live->watch);
	box_move_free(live->move);
	free(live);
}

/* ---- its end ---- */

static void ended(void *arg, const struct nova_exit *how)
{
	struct lxc_guest *live = arg;
	struct nova_guest *guest = live->guest;
	bool bad = !live->stopping && how->known && (how->status || how->signal);
	char why[160] = "the container ended";
	NOVA_AUTOJSON json_t *data = NULL;
	struct nova_error err;

	live->watch = nova_process_unwatch(live->watch);
	if (how->known && how->signal)
		snprintf(why, sizeof(why), "its monitor was killed by signal %d", how->signal);
	else if (how->known && how->status)
		snprintf(why, sizeof(why), "the container ended with status %d", how->status);
	json_object_del(guest->runtime, "pid");
	if (nova_guest_save(guest, &err) < 0)
		driver_log(&live->lxc->env, NOVA_LOG_ERROR, "lxc: guest %s: %s", guest->name, err.text);
	lxc_tell(guest, bad ? NOVA_GUEST_FAILED : NOVA_GUEST_STOPPED, why);
	data = json_pack("{s:s,s:b}", "reason", why, "expected", !bad);
	nova_guest_event(guest, "EXIT", data);
}

int lxc_watch(struct lxc_guest *live, pid_t monitor, struct nova_error *err)
{
	uint64_t start_time = nova_process_start_time(monitor, err);

	if (!start_time)
		return -1;
	nova_process_unwatch(live->watch);
	live->stopping = false;
	live->watch = nova_process_watch(live->lxc->env.base, monitor, start_time, ended, live, err);
	return live->watch ? 0 : -1;
}

pid_t lxc_parent(pid_t pid)
{
	char path[64], line[512];
	const char *after;
	int parent = 0;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	file = fopen(path, "re");
	if (!file)
		return 0;
	after = fgets(line, sizeof(line), file) ? strrchr(line, ')') : NULL;
	if (!after || sscanf(after, ") %*c %d", &parent) != 1)
		parent = 0;
	fclose(file);
	return parent;
}

/* ---- lxc-info ---- */

pid_t lxc_info_pid(const json_t *answer)
{
	const char *text = task_text(answer, "stdout"), *at = text ? strstr(text, "PID:") : NULL;

	return at ? atoi(at + 4) : 0;
}

enum nova_guest_state lxc_info_state(const json_t *answer)
{
	static const struct {
		const char *word;
		enum nova_guest_state state;
	} states[] = { { "STOPPED", NOVA_GUEST_STOPPED }, { "RUNNING", NOVA_GUEST_RUNNING }, { "FROZEN", NOVA_GUEST_PAUSED },
		{ "FREEZING", NOVA_GUEST_PAUSED }, { "THAWED", NOVA_GUEST_RUNNING }, { "STARTING", NOVA_GUEST_STARTING },
		{ "STOPPING", NOVA_GUEST_RUNNING } };
	const char *text = task_text(answer, "stdout") ?: "";

	for (size_t i = 0; i < sizeof(states) / sizeof(*states); i++)
		if (strstr(text, states[i].word))
			return states[i].state;
	return NOVA_GUEST_FAILED;
}

enum nova_step_result lxc_ask_info(struct task *task, task_reply_fn reply, struct nova_error *err)
{
	const char *argv[] = { "lxc-info", "-P", lxc_path_of(task->guest), "-n", lxc_name_of(task->guest), "-s", "-p", NULL };

	return task_program(task, argv, LXC_COMMAND_MS, reply, err);
}
