/* SPDX-License-Identifier: Apache-2.0
 *
 * launch.c - starting and ending a guest's QEMU: rows that several verbs share.
 *
 * What a restarted daemon needs to find the process again is in the inventory before the process exists (the
 * path of its monitor) and again when its pid is known.
 */
#include "kvm.h"

#include <errno.h>
#include <signal.h>
#include <string.h>

#define QUIT_LIMIT_MS 5000 /* to close its disks after "quit"; then it is killed */
#define QUIT_EMPTY_MS 1000 /* of a QEMU whose guest is elsewhere: it has nothing to close */

static const char default_sandbox[] =
    "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny";

static const char *sandbox(const struct kvm *kvm)
{
	const json_t *value = kvm_config(kvm, "sandbox");

	if (json_is_false(value))
		return NULL;
	return json_string_length(value) ? json_string_value(value) : default_sandbox;
}

/* Everything up to the process. */
static int spawn(struct kvm_task *task, struct kvm_guest *live, const json_t *spec, const char *home,
    struct nova_error *err)
{
	struct nova_guest *guest = task->guest;
	struct kvm_argv_options options = {
		.program = task->kvm->qemu,
		.name = guest->name,
		.uuid = guest->uuid,
		.home = home,
		.sandbox = sandbox(task->kvm),
		.incoming = json_is_true(json_object_get(task->notes, "incoming")),
	};
	struct kvm_argv argv;
	char log[PATH_MAX];
	int result;

	if (kvm_guest_log_path(task->kvm, guest->name, log, sizeof(log), err) < 0 ||
	    kvm_argv_build(&argv, spec, &options, err) < 0)
		return -1;
	result = kvm_qemu_spawn(&live->qemu, argv.word, log, err);
	kvm_argv_release(&argv);
	if (result < 0)
		return -1;
	json_object_set_new(guest->runtime, "pid", json_integer(live->qemu.pid));
	json_object_set_new(guest->runtime, "start_time", json_integer((json_int_t)live->qemu.start_time));
	return nova_guest_save(guest, err);
}

static int prepare(struct kvm_task *task, char *home, char *socket, size_t size, struct nova_error *err)
{
	struct nova_guest *guest = task->guest;

	if (kvm_guest_home(task->kvm, guest->name, home, size, err) < 0 ||
	    kvm_guest_socket(task->kvm, guest->name, "incoming.sock", socket, size, err) <
	        0 || /* the longest */
	    kvm_guest_socket(task->kvm, guest->name, "qmp.sock", socket, size, err) < 0 ||
	    kvm_guest_make_dirs(task->kvm, guest->name, err) < 0)
		return -1;
	kvm_guest_remove_sockets(task->kvm, guest->name);
	json_object_set_new(guest->runtime, "qmp", json_string(socket));
	return nova_guest_save(guest, err);
}

/* task->notes may hold "spec" (else the guest's is used) and "incoming". */
enum nova_step_result kvm_launch_row(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct kvm_task *task = ctx;
	struct nova_guest *guest = task->guest;
	json_t *given = json_object_get(task->notes, "spec");
	NOVA_AUTOJSON json_t *spec = given ? json_incref(given) : kvm_spec_now(guest);
	struct kvm_guest *live;
	char home[PATH_MAX], socket[PATH_MAX];

	if (kvm_guest_live(guest)) {
		nova_error_set(err, NOVA_STATE, "guest %s runs already (pid %d)", guest->name,
		    (int)kvm_guest_live(guest)->qemu.pid);
		return NOVA_STEP_FAILED;
	}
	json_object_set_new(task->notes, "launched", json_true());
	live = kvm_guest_get(task->kvm, guest, err);
	if (!live)
		return NOVA_STEP_FAILED;
	if (prepare(task, home, socket, sizeof(home), err) < 0 || spawn(task, live, spec, home, err) < 0) {
		if (live->qemu.pid)
			kvm_qemu_kill(&live->qemu);
		kvm_guest_drop(task->kvm, guest);
		kvm_guest_remove_sockets(task->kvm, guest->name);
		kvm_guest_clear_runtime(guest);
		return NOVA_STEP_FAILED;
	}
	kvm_guest_state(guest, NOVA_GUEST_STARTING, "QEMU starts");
	if (kvm_qemu_connect(&live->qemu, socket, KVM_START_LIMIT_MS, err) < 0)
		return NOVA_STEP_FAILED;
	return kvm_task_listen(task, kvm_match_ready, 0, err);
}

enum nova_step_result kvm_match_ready(
    struct kvm_task *task, const char *event, json_t *data, struct nova_error *err)
{
	if (strcmp(event, "READY") == 0)
		return NOVA_STEP_DONE;
	if (strcmp(event, "LOST") != 0)
		return NOVA_STEP_WAIT;
	nova_error_set(err, (enum nova_category)kvm_spec_int(data, "category"), "monitor of guest %s: %s",
	    task->guest->name, kvm_spec_text(data, "reason"));
	return NOVA_STEP_FAILED;
}

static enum nova_step_result match_exit(
    struct kvm_task *task, const char *event, json_t *data, struct nova_error *err)
{
	struct kvm_guest *live = task->guest->driver_data;

	if (strcmp(event, "EXIT") == 0)
		return NOVA_STEP_DONE;
	if (strcmp(event, "TIMEOUT") == 0)
		kvm_qemu_kill(&live->qemu);
	return NOVA_STEP_WAIT;
}

enum nova_step_result kvm_launch_undo(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct kvm_task *task = ctx;
	struct kvm_guest *live = kvm_guest_live(task->guest);

	/* A guest that ran before is not ours to kill. */
	if (!live || !json_object_get(task->notes, "launched"))
		return NOVA_STEP_DONE;
	live->quitting = true;
	kvm_qemu_kill(&live->qemu);
	return kvm_task_listen(task, match_exit, 0, err);
}

static enum nova_step_result quit_accepted(struct kvm_task *task, json_t *value, struct nova_error *err)
{
	return NOVA_STEP_WAIT; /* for EXIT */
}

enum nova_step_result kvm_quit_row(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct kvm_task *task = ctx;
	struct kvm_guest *live = kvm_guest_live(task->guest);
	struct nova_error not_said;
	int limit_ms = task->guest->state == NOVA_GUEST_MIGRATED ? QUIT_EMPTY_MS : QUIT_LIMIT_MS;

	if (!live)
		return NOVA_STEP_DONE;
	live->quitting = true;
	if (kvm_task_listen(task, match_exit, limit_ms, err) == NOVA_STEP_FAILED)
		return NOVA_STEP_FAILED;
	/* With its monitor lost, SIGTERM says the same. */
	if (kvm_task_qmp(task, "quit", NULL, quit_accepted, &not_said) == NOVA_STEP_FAILED)
		nova_process_signal(live->qemu.watch, SIGTERM, NULL);
	return NOVA_STEP_WAIT;
}
