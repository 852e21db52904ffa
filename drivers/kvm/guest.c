/* SPDX-License-Identifier: Apache-2.0
 *
 * guest.c - one guest's QEMU: what its events and its end mean for the guest.
 *
 * The live object exists from the start of QEMU (or from REATTACH) to its end. States follow QEMU's events,
 * with two exceptions that belong to migrations: a destination stays INCOMING until it is resumed, and a
 * source whose stream was completed is MIGRATED, stopped, until it is resumed (rollback) or ended.
 */
#include "kvm.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

/* ---- files ---------------------------------------------------------------------------------------- */

/* BASE/guests, BASE/guests/NAME or BASE/guests/NAME/FILE */
static int guests_path(
    char *path, size_t size, const char *base, const char *name, const char *file, struct nova_error *err)
{
	int used = snprintf(
	    path, size, "%s/guests%s%s%s%s", base, name ? "/" : "", name ?: "", file ? "/" : "", file ?: "");

	if (used < 0 || (size_t)used >= size)
		return nova_error_set(err, NOVA_INVALID,
		    "path %s/guests/%s/%s is longer than %zu bytes: choose a shorter guest name or directory",
		    base, name ?: "", file ?: "", size - 1);
	return 0;
}

int kvm_guest_home(struct kvm *kvm, const char *name, char *path, size_t size, struct nova_error *err)
{
	return guests_path(path, size, kvm->env.runtime_dir, name, NULL, err);
}

int kvm_guest_socket(
    struct kvm *kvm, const char *name, const char *file, char *path, size_t size, struct nova_error *err)
{
	/* struct sockaddr_un has room for 108 bytes with the final 0, whatever the caller's buffer has. */
	size_t most = sizeof(((struct sockaddr_un *)0)->sun_path);

	return guests_path(path, size < most ? size : most, kvm->env.runtime_dir, name, file, err);
}

int kvm_guest_log_path(struct kvm *kvm, const char *name, char *path, size_t size, struct nova_error *err)
{
	return guests_path(path, size, kvm->env.state_dir, name, "qemu.log", err);
}

static int make_dir(const char *path, mode_t mode, struct nova_error *err)
{
	if (mkdir(path, mode) < 0 && errno != EEXIST)
		return nova_error_sys(err, errno, "cannot make %s", path);
	return 0;
}

/* QEMU's own user must reach its sockets: it may pass through what lies above, and not look. */
static int open_to_user(struct kvm *kvm, const char *guests, const char *home, struct nova_error *err)
{
	const char *user = kvm_config_text(kvm, "qemu-user");
	uid_t uid;
	gid_t gid;

	if (!user || !*user)
		return 0;
	if (kvm_user_ids(user, &uid, &gid, err) < 0)
		return -1;
	if (chmod(kvm->env.runtime_dir, 0711) < 0 || chmod(guests, 0711) < 0 || chown(home, uid, gid) < 0)
		return nova_error_sys(err, errno, "cannot let user %s use %s", user, home);
	return 0;
}

int kvm_guest_make_dirs(struct kvm *kvm, const char *name, struct nova_error *err)
{
	char guests[PATH_MAX], home[PATH_MAX];

	if (guests_path(guests, sizeof(guests), kvm->env.state_dir, NULL, NULL, err) < 0 ||
	    guests_path(home, sizeof(home), kvm->env.state_dir, name, NULL, err) < 0 ||
	    make_dir(guests, 0700, err) < 0 || make_dir(home, 0700, err) < 0)
		return -1;
	if (guests_path(guests, sizeof(guests), kvm->env.runtime_dir, NULL, NULL, err) < 0 ||
	    kvm_guest_home(kvm, name, home, sizeof(home), err) < 0 || make_dir(guests, 0700, err) < 0 ||
	    make_dir(home, 0700, err) < 0)
		return -1;
	return open_to_user(kvm, guests, home, err);
}

static void remove_files(const char *path)
{
	DIR *dir = opendir(path);
	struct dirent *entry;

	if (!dir)
		return;
	while ((entry = readdir(dir)))
		if (entry->d_name[0] != '.')
			unlinkat(dirfd(dir), entry->d_name, 0);
	closedir(dir);
}

void kvm_guest_remove_sockets(struct kvm *kvm, const char *name)
{
	char home[PATH_MAX];

	if (kvm_guest_home(kvm, name, home, sizeof(home), NULL) == 0)
		remove_files(home);
}

void kvm_guest_remove_dirs(struct kvm *kvm, const char *name)
{
	char home[PATH_MAX];

	if (kvm_guest_home(kvm, name, home, sizeof(home), NULL) == 0) {
		remove_files(home);
		rmdir(home);
	}
	if (guests_path(home, sizeof(home), kvm->env.state_dir, name, NULL, NULL) == 0) {
		remove_files(home);
		rmdir(home);
	}
}

/* ---- states --------------------------------------------------------------------------------------- */

const char *kvm_guest_role(const struct nova_guest *guest)
{
	return json_string_value(json_object_get(json_object_get(guest->runtime, "migration"), "role")) ?: "";
}

/* QEMU's run states; role: of the migration it is in, if any. */
enum nova_guest_state kvm_state_of(const char *status, const char *role)
{
	if (strcmp(role, "destination") == 0 && strcmp(status, "running") != 0)
		return NOVA_GUEST_INCOMING;
	if (strcmp(status, "running") == 0 || strcmp(status, "finish-migrate") == 0)
		return NOVA_GUEST_RUNNING;
	if (strcmp(status, "postmigrate") == 0)
		return NOVA_GUEST_MIGRATED;
	if (strcmp(status, "inmigrate") == 0)
		return NOVA_GUEST_INCOMING;
	if (strcmp(status, "internal-error") == 0 || strcmp(status, "io-error") == 0)
		return NOVA_GUEST_FAILED;
	return NOVA_GUEST_PAUSED;
}

void kvm_guest_state(struct nova_guest *guest, enum nova_guest_state state, const char *why)
{
	if (guest->state != state)
		nova_guest_set_state(guest, state, why);
}

void kvm_guest_clear_runtime(struct nova_guest *guest)
{
	static const char *const of_process[] = { "pid", "start_time", "qmp", "migration", "frozen" };

	for (size_t i = 0; i < sizeof(of_process) / sizeof(*of_process); i++)
		json_object_del(guest->runtime, of_process[i]);
}

void kvm_guest_save(struct kvm *kvm, struct nova_guest *guest)
{
	struct nova_error err;

	if (nova_guest_save(guest, &err) < 0)
		kvm_log(kvm, NOVA_LOG_ERROR, "kvm: guest %s: %s", guest->name, err.text);
}

void kvm_guest_ended(struct kvm *kvm, struct nova_guest *guest)
{
	kvm_guest_remove_sockets(kvm, guest->name);
	kvm_point_forget(guest);
	kvm_guest_clear_runtime(guest);
	kvm_guest_save(kvm, guest);
}

static void tell_listeners(struct kvm_guest *live, const char *event, json_t *data)
{
	struct kvm_task **at = &live->listeners;

	while (*at) {
		struct kvm_task *task = *at;
		struct nova_error err;
		enum nova_step_result result = task->match(task, event, data, &err);

		if (result == NOVA_STEP_WAIT && strcmp(event, "EXIT") == 0) {
			nova_error_set(&err, NOVA_STATE, "QEMU ended: %s",
			    json_string_value(json_object_get(data, "reason")) ?: "");
			result = NOVA_STEP_FAILED;
		}
		if (result == NOVA_STEP_WAIT) {
			at = &task->next;
			continue;
		}
		kvm_task_stop_waiting(
		    NULL, task); /* takes it out of the list, and its timer out of the loop */
		kvm_task_end_row(task, result, &err);
	}
}

/* ---- migration events ----------------------------------------------------------------------------- */

static void tell_migration(struct kvm_guest *live, const char *status, const char *error)
{
	NOVA_AUTOJSON json_t *data = json_pack("{s:s}", "status", status);

	if (error)
		json_object_set_new(data, "error", json_string(error));
	nova_guest_event(live->guest, "MIGRATION", data);
}

/* After a failure: where are we, and why? The state first, so that who hears of the failure sees it. */
static void failed_status(void *arg, json_t *result, const struct nova_error *failure)
{
	struct kvm_guest *live = arg;
	const char *status = json_string_value(json_object_get(result, "status"));
	NOVA_AUTOJSON json_t *error = json_incref(json_object_get(live->guest->runtime, "migration_error"));

	live->inquiry = NULL;
	json_object_del(live->guest->runtime, "migration_error");
	/* Finishing or finished: stopped, and "RESUME" would come if it ran again. */
	if (status && strcmp(status, "postmigrate") != 0 && strcmp(status, "finish-migrate") != 0)
		nova_guest_set_state(
		    live->guest, kvm_state_of(status, kvm_guest_role(live->guest)), "migration failed");
	tell_migration(live, "failed", json_string_value(error) ?: "QEMU gave no reason");
}

static void failed_why(void *arg, json_t *result, const struct nova_error *failure)
{
	struct kvm_guest *live = arg;
	const char *why = json_string_value(json_object_get(result, "error-desc"));

	live->inquiry = NULL;
	if (failure)
		why = failure->text;
	if (why)
		json_object_set_new(live->guest->runtime, "migration_error", json_string(why));
	live->inquiry = kvm_qmp(&live->qemu, "query-status", NULL, failed_status, live, NULL);
	if (!live->inquiry)
		failed_status(live, NULL, NULL);
}

static void migration_failed(struct kvm_guest *live)
{
	nova_op_drop(nova_take(&live->inquiry));
	live->inquiry = kvm_qmp(&live->qemu, "query-migrate", NULL, failed_why, live, NULL);
	if (!live->inquiry)
		failed_why(live, NULL, NULL);
}

/* The source's side is over: what it has is kept, stopped, until it is known who runs the guest. */
static void source_completed(struct kvm_guest *live)
{
	json_object_set_new(live->guest->runtime, "disks_elsewhere", json_true());
	kvm_guest_save(live->qemu.kvm, live->guest);
	nova_guest_set_state(live->guest, NOVA_GUEST_MIGRATED, "the stream is complete");
}

void kvm_guest_migration(struct kvm_guest *live, json_t *data)
{
	const char *status = json_string_value(json_object_get(data, "status")) ?: "";
	json_t *record = json_object_get(live->guest->runtime, "migration");

	if (record)
		json_object_set_new(record, "status", json_string(status));
	if (strcmp(status, "failed") == 0) {
		migration_failed(live);
		return;
	}
	/* In postcopy the destination runs already when it completes: that is not ours to change. */
	if (strcmp(status, "completed") == 0 && strcmp(kvm_guest_role(live->guest), "source") == 0)
		source_completed(live);
	if (strcmp(status, "completed") == 0)
		kvm_monitor_give_back(live);
	nova_guest_event(live->guest, "MIGRATION", data);
}

/* ---- QEMU's voice --------------------------------------------------------------------------------- */

static void qemu_stopped(struct kvm_guest *live)
{
	if (live->guest->state == NOVA_GUEST_RUNNING)
		nova_guest_set_state(live->guest, NOVA_GUEST_PAUSED, "stopped");
}

static void qemu_resumed(struct kvm_guest *live)
{
	kvm_guest_state(live->guest, NOVA_GUEST_RUNNING, "running");
}

static void qemu_shutdown(struct kvm_guest *live)
{
	live->powered_off = true;
}

static void qemu_panicked(struct kvm_guest *live)
{
	kvm_log(live->qemu.kvm, NOVA_LOG_WARNING, "kvm: guest %s panicked", live->guest->name);
}

/* Events that change something here, and those that are merely passed on. */
static const struct {
	const char *name;
	void (*act)(struct kvm_guest *live);
} known_events[] = {
	{ "STOP", qemu_stopped },
	{ "RESUME", qemu_resumed },
	{ "SHUTDOWN", qemu_shutdown },
	{ "GUEST_PANICKED", qemu_panicked },
	{ "MIGRATION_PASS", NULL },
	{ "POWERDOWN", NULL },
	{ "RESET", NULL },
	{ "BLOCK_IO_ERROR", NULL },
	{ "BALLOON_CHANGE", NULL },
	{ "DEVICE_DELETED", NULL },
	{ "WATCHDOG", NULL },
};

static void live_event(void *arg, const char *name, json_t *data)
{
	struct kvm_guest *live = arg;
	struct nova_guest *guest = live->guest;

	tell_listeners(live, name, data);
	if (strcmp(name, "MIGRATION") == 0) {
		kvm_guest_migration(live, data);
		return;
	}
	kvm_mirror_event(live, name, data);
	for (size_t i = 0; i < sizeof(known_events) / sizeof(*known_events); i++) {
		if (strcmp(known_events[i].name, name) != 0)
			continue;
		if (known_events[i].act)
			known_events[i].act(live);
		nova_guest_event(guest, name, data);
		return;
	}
}

static void live_ready(void *arg)
{
	struct kvm_guest *live = arg;
	bool lost = live->lost;

	live->lost = false;
	tell_listeners(live, "READY", NULL);
	if (lost)
		kvm_guest_regained(live);
}

static void live_lost(void *arg, const struct nova_error *err)
{
	struct kvm_guest *live = arg;
	NOVA_AUTOJSON json_t *data = json_pack("{s:s,s:i}", "reason", err->text, "category", err->category);

	live->lost = true;
	kvm_log(live->qemu.kvm, NOVA_LOG_WARNING, "kvm: guest %s: monitor: %s", live->guest->name, err->text);
	tell_listeners(live, "LOST", data);
}

/* Why it ended, in words: our wish, the guest's, or its log's last lines. */
static void describe_exit(struct kvm_guest *live, const struct nova_exit *how, char *why, size_t size)
{
	char log[PATH_MAX], tail[300] = "";
	const char *name = live->guest->name;

	if (live->quitting || live->powered_off) {
		snprintf(why, size, "%s", live->quitting ? "stopped on request" : "the guest powered off");
		return;
	}
	if (kvm_guest_log_path(live->qemu.kvm, name, log, sizeof(log), NULL) == 0)
		kvm_log_tail(log, tail, sizeof(tail));
	if (how->known && how->signal)
		snprintf(why, size, "QEMU was killed by signal %d", how->signal);
	else if (how->known)
		snprintf(why, size, "QEMU exited with status %d%s%s", how->status, *tail ? ": " : "", tail);
	else
		snprintf(why, size, "QEMU is gone%s%s", *tail ? ": " : "", tail);
}

static void live_exited(void *arg, const struct nova_exit *how)
{
	struct kvm_guest *live = arg;
	struct nova_guest *guest = live->guest;
	struct kvm *kvm = live->qemu.kvm;
	bool expected = live->quitting || live->powered_off;
	char why[400];
	NOVA_AUTOJSON json_t *data = NULL;

	describe_exit(live, how, why, sizeof(why));
	data = json_pack("{s:s,s:b}", "reason", why, "expected", expected);
	tell_listeners(live, "EXIT", data);
	kvm_guest_drop(kvm, guest);
	kvm_guest_ended(kvm, guest);
	nova_guest_set_state(guest, expected ? NOVA_GUEST_STOPPED : NOVA_GUEST_FAILED, why);
	nova_guest_event(guest, "EXIT", data);
}

static const struct kvm_qemu_events live_events = {
	.ready = live_ready,
	.event = live_event,
	.lost = live_lost,
	.exited = live_exited,
};

/* ---- the live object ------------------------------------------------------------------------------ */

struct kvm_guest *kvm_guest_get(struct kvm *kvm, struct nova_guest *guest, struct nova_error *err)
{
	struct kvm_guest *live = guest->driver_data;

	if (live)
		return live;
	live = calloc(1, sizeof(*live));
	if (!live) {
		nova_error_sys(err, ENOMEM, "no memory for guest %s", guest->name);
		return NULL;
	}
	kvm_qemu_init(&live->qemu, kvm, &live_events, live);
	live->guest = guest;
	live->next = kvm->guests;
	kvm->guests = live;
	guest->driver_data = live;
	return live;
}

struct kvm_guest *kvm_guest_live(struct nova_guest *guest)
{
	struct kvm_guest *live = guest ? guest->driver_data : NULL;

	return live && live->qemu.pid ? live : NULL;
}

void kvm_guest_drop(struct kvm *kvm, struct nova_guest *guest)
{
	struct kvm_guest *live = guest->driver_data, **at = &kvm->guests;

	if (!live)
		return;
	while (*at != live)
		at = &(*at)->next;
	*at = live->next;
	guest->driver_data = NULL;
	nova_op_drop(live->inquiry);
	kvm_qemu_release(&live->qemu);
	free(live);
}

int kvm_guest_need_qmp(struct nova_guest *guest, struct nova_error *err)
{
	struct kvm_guest *live = kvm_guest_live(guest);

	if (!live)
		return nova_error_set(err, NOVA_STATE, "guest %s does not run", guest->name);
	if (!live->qemu.qmp || !qmp_client_ready(live->qemu.qmp))
		return nova_error_set(err, NOVA_LINK,
		    "guest %s runs (pid %d), but its monitor %s does not answer", guest->name,
		    (int)live->qemu.pid, live->qemu.path);
	return 0;
}
