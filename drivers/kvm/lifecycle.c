/* SPDX-License-Identifier: Apache-2.0
 *
 * lifecycle.c - CREATE, START, STOP, PAUSE, RESUME, DELETE.
 *
 * STOP asks the guest through ACPI and waits 30 s (timeout) before QEMU is told to quit. DELETE removes
 * only disks that are the guest's own (made by CREATE, or owned=on), and never while another host's side of a
 * migration has them.
 */
#include "kvm.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define POWERDOWN_MS 30000

/* ---- create --------------------------------------------------------------------------------------- */

/* Disks that this guest's CREATE made; they are on record before they are there. */
static json_t *created_list(struct kvm_task *task)
{
	json_t *list = json_object_get(task->guest->runtime, "created");

	if (!list) {
		list = json_array();
		json_object_set_new(task->guest->runtime, "created", list);
	}
	return list;
}

/* A disk that QEMU's own user must be able to use. */
int kvm_hand_to_user(const struct kvm *kvm, const char *path, struct nova_error *err)
{
	const char *user = kvm_config_text(kvm, "qemu-user");
	uid_t uid;
	gid_t gid;

	if (!user || !*user)
		return 0;
	if (kvm_user_ids(user, &uid, &gid, err) < 0)
		return -1;
	if (chown(path, uid, gid) < 0)
		return nova_error_sys(err, errno, "cannot give disk %s to user %s", path, user);
	return 0;
}

static enum nova_step_result make_disks(struct nova_run *run, void *ctx, struct nova_error *err);

static enum nova_step_result disk_made(struct kvm_task *task, json_t *value, struct nova_error *err)
{
	const char *path = kvm_spec_text(task->notes, "making");

	if (nova_child_check("qemu-img", value, err) < 0)
		return NOVA_STEP_FAILED;
	if (kvm_hand_to_user(task->kvm, path, err) < 0)
		return NOVA_STEP_FAILED;
	return make_disks(task->run, task, err);
}

/* The next disk that is not there yet; done when all are. */
static enum nova_step_result make_disks(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct kvm_task *task = ctx;
	json_t *disk;
	size_t i;

	json_array_foreach (json_object_get(json_object_get(task->notes, "spec"), "disk"), i, disk) {
		const char *path = kvm_spec_text(disk, "path");
		const char *qemu_img = kvm_qemu_img(task->kvm);
		char size[32];
		const char *argv[] = { qemu_img, "create", "-q", "-f", kvm_spec_text(disk, "format"), path,
			size, NULL };
		int there = kvm_path_creatable(task->kvm->roots, "disk", path, err);

		if (there < 0)
			return NOVA_STEP_FAILED;
		if (there)
			continue;
		if (json_is_true(json_object_get(task->args, "existing"))) {
			nova_error_set(err, NOVA_REFUSED,
			    "disk %s is not on this host: it must be on shared storage", path);
			return NOVA_STEP_FAILED;
		}
		snprintf(size, sizeof(size), "%lld", (long long)kvm_spec_int(disk, "size"));
		json_array_append_new(created_list(task), json_string(path));
		json_object_set_new(task->notes, "making", json_string(path));
		if (nova_guest_save(task->guest, err) < 0)
			return NOVA_STEP_FAILED;
		return kvm_task_run_program(task, argv, disk_made, err);
	}
	return NOVA_STEP_DONE;
}

static enum nova_step_result unmake_disks(struct nova_run *run, void *ctx, struct nova_error *err)
{
	json_t *path;
	size_t i;

	json_array_foreach (created_list(ctx), i, path)
		unlink(json_string_value(path));
	return NOVA_STEP_DONE;
}

static enum nova_step_result make_dirs(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct kvm_task *task = ctx;
	char socket[PATH_MAX];

	if (kvm_guest_socket(task->kvm, task->guest->name, "incoming.sock", socket, sizeof(socket), err) <
	        0 ||
	    kvm_guest_make_dirs(task->kvm, task->guest->name, err) < 0)
		return NOVA_STEP_FAILED;
	return NOVA_STEP_DONE;
}

static enum nova_step_result unmake_dirs(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct kvm_task *task = ctx;

	kvm_guest_remove_dirs(task->kvm, task->guest->name);
	return NOVA_STEP_DONE;
}

/* Disks that are there already are the guest's: so are those that came with it from elsewhere. */
static enum nova_step_result take_disks(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct kvm_task *task = ctx;

	if (!json_is_true(json_object_get(task->args, "existing")))
		return NOVA_STEP_DONE;
	kvm_carry_arrived(task->guest);
	return nova_guest_save(task->guest, err) < 0 ? NOVA_STEP_FAILED : NOVA_STEP_DONE;
}

KVM_VERB(create)
{
	/* A row that fails is undone itself too: what it began is taken back. */
	static const struct nova_step rows[] = {
		{ "directories", make_dirs, unmake_dirs },
		{ "disks", make_disks, unmake_disks, kvm_task_stop_waiting, 120000 },
		{ "take", take_disks },
		{ NULL },
	};
	struct nova_op *op = kvm_task_new(self, guest, args, rows, done, arg, err);
	json_t *given = json_object_get(args, "spec");

	if (op)
		json_object_set(((struct kvm_task *)op)->notes, "spec", given ?: guest->spec);
	return op;
}

/* ---- start ---------------------------------------------------------------------------------------- */

static enum nova_step_result run_guest(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct kvm_task *task = ctx;

	if (!json_is_true(json_object_get(task->args, "paused")))
		return kvm_task_qmp(task, "cont", NULL, NULL, err);
	kvm_guest_state(task->guest, NOVA_GUEST_PAUSED, "started paused");
	return NOVA_STEP_DONE;
}

static enum nova_step_result tell_running(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct kvm_task *task = ctx;

	if (task->guest->state == NOVA_GUEST_STARTING)
		kvm_guest_state(task->guest, NOVA_GUEST_RUNNING, "started");
	/* Its QEMU was lost when it had just arrived: it writes to its disks from here on. */
	if (!json_is_true(json_object_get(task->args, "paused")) && json_object_get(task->guest->runtime, "disks_elsewhere")) {
		kvm_carry_arrived(task->guest);
		kvm_guest_save(task->kvm, task->guest);
	}
	return NOVA_STEP_DONE;
}

KVM_VERB(start)
{
	static const struct nova_step rows[] = {
		{ "launch", kvm_launch_row, kvm_launch_undo, kvm_task_stop_waiting, KVM_START_LIMIT_MS },
		{ "run", run_guest, NULL, kvm_task_stop_waiting },
		{ "tell", tell_running },
		{ NULL },
	};

	return kvm_task_new(self, guest, args, rows, done, arg, err);
}

/* ---- stop ----------------------------------------------------------------------------------------- */

static enum nova_step_result match_power_off(
    struct kvm_task *task, const char *event, json_t *data, struct nova_error *err)
{
	bool keep = json_is_true(json_object_get(task->args, "keep"));
	bool over = strcmp(event, "EXIT") == 0 || strcmp(event, "TIMEOUT") == 0 || (keep && strcmp(event, "STOP") == 0);

	if (keep && strcmp(event, "EXIT") == 0) {
		nova_error_set(err, NOVA_REFUSED, "QEMU ended with its guest");
		return NOVA_STEP_FAILED;
	}

	if (strcmp(event, "TIMEOUT") == 0)
		json_object_set_new(
		    task->result, "forced", json_string("the guest did not power off in time"));
	return over ? NOVA_STEP_DONE : NOVA_STEP_WAIT;
}

static enum nova_step_result powerdown_sent(struct kvm_task *task, json_t *value, struct nova_error *err)
{
	return NOVA_STEP_WAIT; /* for the guest */
}

static bool hears_acpi(const struct nova_guest *guest)
{
	const char *machine = kvm_spec_text(guest->spec, "machine");

	return guest->state == NOVA_GUEST_RUNNING &&
	       (!machine || kvm_family_of(machine) != KVM_FAMILY_MICROVM);
}

static enum nova_step_result power_down(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct kvm_task *task = ctx;
	int limit_ms = (int)kvm_spec_int(task->args, "timeout") ?: POWERDOWN_MS;

	if (!kvm_guest_live(task->guest) || json_is_true(json_object_get(task->args, "force")))
		return NOVA_STEP_DONE;
	if (!hears_acpi(task->guest) || kvm_guest_need_qmp(task->guest, NULL) < 0) {
		json_object_set_new(
		    task->result, "forced", json_string("the guest cannot hear ACPI's power button"));
		return NOVA_STEP_DONE;
	}
	if (kvm_task_listen(task, match_power_off, limit_ms, err) == NOVA_STEP_FAILED)
		return NOVA_STEP_FAILED;
	return kvm_task_qmp(task, "system_powerdown", NULL, powerdown_sent, err);
}

static enum nova_step_result tell_stopped(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct kvm_task *task = ctx;

	kvm_guest_state(task->guest, NOVA_GUEST_STOPPED, "stopped");
	return NOVA_STEP_DONE;
}

/* The guest powers off, its QEMU stays, halted: what it notes of the disks does not get lost. */
static enum nova_step_result keep_hypervisor(struct nova_run *run, void *ctx, struct nova_error *err)
{
	return kvm_task_qmp(ctx, "set-action", json_pack("{s:s}", "shutdown", "pause"), NULL, err);
}

static enum nova_step_result halt_hypervisor(struct nova_run *run, void *ctx, struct nova_error *err)
{
	return kvm_task_qmp(ctx, "stop", NULL, NULL, err);
}

KVM_VERB(stop)
{
	static const struct nova_step keep_rows[] = {
		{ "keep", keep_hypervisor, NULL, kvm_task_stop_waiting },
		{ "power down", power_down, NULL, kvm_task_stop_waiting },
		{ "halt", halt_hypervisor, NULL, kvm_task_stop_waiting },
		{ NULL },
	};
	static const struct nova_step rows[] = {
		{ "power down", power_down, NULL, kvm_task_stop_waiting },
		{ "quit", kvm_quit_row, NULL, kvm_task_stop_waiting },
		{ "tell", tell_stopped },
		{ NULL },
	};
	bool keep = json_is_true(json_object_get(args, "keep"));

	return kvm_task_new(self, guest, args, keep ? keep_rows : rows, done, arg, err);
}

/* ---- pause, resume -------------------------------------------------------------------------------- */

static enum nova_step_result halt(struct nova_run *run, void *ctx, struct nova_error *err)
{
	return kvm_task_qmp(ctx, "stop", NULL, NULL, err);
}

static enum nova_step_result tell_paused(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct kvm_task *task = ctx;
	struct nova_guest *guest = task->guest;

	if (guest->state == NOVA_GUEST_RUNNING)
		kvm_guest_state(guest, NOVA_GUEST_PAUSED, "paused");
	if (guest->state != NOVA_GUEST_INCOMING)
		return NOVA_STEP_DONE;
	/* A guest that was paused at its source has arrived: it is ours, and stays paused. */
	json_object_del(guest->runtime, "migration");
	kvm_carry_arrived(guest);
	kvm_guest_state(guest, NOVA_GUEST_PAUSED, "arrived paused");
	kvm_guest_save(task->kvm, guest);
	return NOVA_STEP_DONE;
}

KVM_VERB(pause)
{
	static const struct nova_step rows[] = {
		{ "stop", halt, NULL, kvm_task_stop_waiting },
		{ "tell", tell_paused },
		{ NULL },
	};

	return kvm_task_new(self, guest, args, rows, done, arg, err);
}

/* "cont" during the incoming stream would not fail but start the guest by itself later. */
static enum nova_step_result may_resume(struct kvm_task *task, json_t *value, struct nova_error *err)
{
	const char *status = kvm_spec_text(value, "status") ?: "";

	if (strcmp(status, "inmigrate") != 0)
		return NOVA_STEP_DONE;
	nova_error_set(err, NOVA_STATE, "guest %s cannot run yet: its migration stream is not complete",
	    task->guest->name);
	return NOVA_STEP_FAILED;
}

static enum nova_step_result ask_status(struct nova_run *run, void *ctx, struct nova_error *err)
{
	return kvm_task_qmp(ctx, "query-status", NULL, may_resume, err);
}

static enum nova_step_result go_on(struct nova_run *run, void *ctx, struct nova_error *err)
{
	return kvm_task_qmp(ctx, "cont", NULL, NULL, err);
}

/* It runs here: whatever migration there was is over, and the disks are ours. */
static enum nova_step_result tell_resumed(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct kvm_task *task = ctx;
	struct nova_guest *guest = task->guest;
	char socket[PATH_MAX];

	if (strcmp(kvm_guest_role(guest), "destination") == 0 &&
	    kvm_guest_socket(task->kvm, guest->name, "incoming.sock", socket, sizeof(socket), NULL) == 0)
		unlink(socket);
	json_object_del(guest->runtime, "migration");
	kvm_carry_arrived(guest);
	kvm_guest_state(guest, NOVA_GUEST_RUNNING, "resumed");
	kvm_guest_save(task->kvm, guest);
	return NOVA_STEP_DONE;
}

KVM_VERB(resume)
{
	static const struct nova_step rows[] = {
		{ "ask", ask_status, NULL, kvm_task_stop_waiting },
		{ "keep monitor", kvm_keep_monitor_row, NULL, kvm_task_stop_waiting },
		{ "continue", go_on, NULL, kvm_task_stop_waiting },
		{ "tell", tell_resumed },
		{ NULL },
	};

	return kvm_task_new(self, guest, args, rows, done, arg, err);
}

/* ---- delete --------------------------------------------------------------------------------------- */

static void remove_snapshot_files(const struct nova_guest *guest)
{
	json_t *snapshot, *disk;
	size_t i, k;

	json_array_foreach (json_object_get(guest->runtime, "snapshots"), i, snapshot) {
		json_array_foreach (json_object_get(snapshot, "disks"), k, disk) {
			if (kvm_spec_text(disk, "overlay"))
				unlink(kvm_spec_text(disk, "overlay"));
			if (json_is_true(json_object_get(disk, "owned")))
				unlink(kvm_spec_text(disk, "path"));
		}
	}
}

static void remove_disks(const struct nova_guest *guest)
{
	json_t *disk;
	size_t i;

	json_array_foreach (json_object_get(guest->spec, "disk"), i, disk) {
		if (json_is_true(json_object_get(disk, "owned")))
			unlink(kvm_spec_text(disk, "path"));
	}
}

static enum nova_step_result remove_all(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct kvm_task *task = ctx;
	struct nova_guest *guest = task->guest;
	bool keep = json_is_true(json_object_get(task->args, "keep_disks"));
	const json_t *carried = json_object_get(task->args, "carried");

	/* What CREATE or the destination of a migration made and nothing else: it is undone. */
	if (json_is_true(json_object_get(task->args, "created_only"))) {
		kvm_carry_unmake(guest);
	} else if (!keep && json_is_true(json_object_get(guest->runtime, "disks_elsewhere"))) {
		kvm_carry_discard(guest);
	} else if (!keep) {
		remove_snapshot_files(guest);
		remove_disks(guest);
	}
	if (carried)
		json_object_set_new(task->result, "left",
		    kvm_carry_leave(guest, carried, json_is_true(json_object_get(task->args, "keep_carried"))));
	kvm_guest_drop(task->kvm, guest);
	kvm_guest_remove_dirs(task->kvm, guest->name);
	return NOVA_STEP_DONE;
}

KVM_VERB(delete)
{
	static const struct nova_step rows[] = {
		{ "quit", kvm_quit_row, NULL, kvm_task_stop_waiting },
		{ "remove", remove_all },
		{ NULL },
	};

	return kvm_task_new(self, guest, args, rows, done, arg, err);
}
