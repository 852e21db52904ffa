/* SPDX-License-Identifier: Apache-2.0
 *
 * cancel.c - the source of a migration takes it back: OUT_CANCEL.
 */
#include "kvm.h"
#include "engine/clock.h"

#include <string.h>

#define CANCEL_LIMIT_MS 10000
#define LOOK_AGAIN_MS 50 /* whether a cancelled migration is over */
#define HANGS_MS 2000 /* a cancel in postcopy that takes longer will not end any more */

static const char *const beyond[] = { "cancelling", "postcopy-active", "postcopy-paused", "postcopy-recover", NULL };

static enum nova_step_result looked_again(struct kvm_task *task, json_t *value, struct nova_error *err);

static enum nova_step_result look_again(struct kvm_task *task, json_t *value, struct nova_error *err)
{
	return kvm_task_qmp(task, "query-migrate", NULL, looked_again, err);
}

/* QEMU's last word may have come before we listened: its event overtakes the answer to an older question, and after
 * "failed" there is no "cancelled". So we look again until it is over. */
static enum nova_step_result match_over(
    struct kvm_task *task, const char *event, json_t *data, struct nova_error *err)
{
	if (strcmp(event, "TIMEOUT") == 0)
		return look_again(task, NULL, err);
	if (strcmp(event, "MIGRATION") != 0)
		return NOVA_STEP_WAIT;
	return kvm_migration_over(kvm_spec_text(data, "status") ?: "") ? NOVA_STEP_DONE : NOVA_STEP_WAIT;
}

/* QEMU 7.2, cancelled in postcopy (where it could not be taken back): if its writer saw the stream break before it saw the
 * cancel, it waits for a recovery for ever, in a migration that is neither paused nor over, and lets nobody run the guest. */
static bool hangs(const struct kvm_task *task, const char *status)
{
	return strcmp(status, "cancelling") == 0 && json_is_true(json_object_get(task->notes, "may_hang")) &&
	       nova_now_ms() - kvm_spec_int(task->notes, "cancelled_ms") > HANGS_MS;
}

static enum nova_step_result looked_again(struct kvm_task *task, json_t *value, struct nova_error *err)
{
	const char *status = kvm_spec_text(value, "status") ?: "none";

	if (hangs(task, status)) {
		nova_error_set(err, NOVA_STATE,
		    "QEMU hangs in the cancelled migration of guest %s, and does not let it run again: stop it and start it anew",
		    task->guest->name);
		return NOVA_STEP_FAILED;
	}
	if (kvm_migration_over(status))
		return NOVA_STEP_DONE;
	return kvm_task_listen(task, match_over, LOOK_AGAIN_MS, err);
}

static enum nova_step_result cancel_if_active(struct kvm_task *task, json_t *value, struct nova_error *err)
{
	const char *status = kvm_spec_text(value, "status") ?: "none";

	if (kvm_migration_over(status))
		return NOVA_STEP_DONE;
	json_object_set_new(task->notes, "may_hang", json_boolean(kvm_one_of(status, beyond)));
	json_object_set_new(task->notes, "cancelled_ms", json_integer(nova_now_ms()));
	if (kvm_task_listen(task, match_over, 0, err) == NOVA_STEP_FAILED)
		return NOVA_STEP_FAILED;
	return kvm_task_qmp(task, "migrate_cancel", NULL, look_again, err);
}

static enum nova_step_result cancel(struct nova_run *run, void *ctx, struct nova_error *err)
{
	return kvm_task_qmp(ctx, "query-migrate", NULL, cancel_if_active, err);
}

static enum nova_step_result run_again(struct kvm_task *task, json_t *value, struct nova_error *err)
{
	json_t *migration = json_object_get(task->guest->runtime, "migration");
	bool runs = json_is_true(json_object_get(value, "running"));

	if (runs || !json_is_true(json_object_get(migration, "was_running")))
		return NOVA_STEP_DONE;
	return kvm_task_qmp(task, "cont", NULL, NULL, err);
}

static enum nova_step_result go_back(struct nova_run *run, void *ctx, struct nova_error *err)
{
	return kvm_task_qmp(ctx, "query-status", NULL, run_again, err);
}

static enum nova_step_result state_again(struct kvm_task *task, json_t *value, struct nova_error *err)
{
	struct nova_guest *guest = task->guest;
	bool runs = json_is_true(json_object_get(value, "running"));

	json_object_del(guest->runtime, "migration");
	json_object_del(guest->runtime, "disks_elsewhere");
	kvm_guest_state(guest, runs ? NOVA_GUEST_RUNNING : NOVA_GUEST_PAUSED, "migration cancelled");
	kvm_guest_save(task->kvm, guest);
	return NOVA_STEP_DONE;
}

static enum nova_step_result tell_back(struct nova_run *run, void *ctx, struct nova_error *err)
{
	return kvm_task_qmp(ctx, "query-status", NULL, state_again, err);
}

KVM_VERB(out_cancel)
{
	static const struct nova_step rows[] = {
		{ "take back", kvm_take_back_row, NULL, kvm_task_stop_waiting, 2 * KVM_TAKE_BACK_MS },
		{ "cancel", cancel, NULL, kvm_task_stop_waiting, CANCEL_LIMIT_MS },
		{ "go back", go_back, NULL, kvm_task_stop_waiting },
		{ "tell", tell_back, NULL, kvm_task_stop_waiting },
		{ NULL },
	};

	return kvm_task_new(self, guest, args, rows, done, arg, err);
}
