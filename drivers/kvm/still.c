/* SPDX-License-Identifier: Apache-2.0
 *
 * still.c - an emulated guest stands still while QEMU begins to track its writes.
 *
 * QEMU's emulator (TCG) remembers for each vCPU which pages it may write without a note. A sync of dirty memory makes
 * it forget that only if the sync found pages that were not dirty before; at the first sync of a migration all pages
 * are, so pages that a running vCPU writes just then (the stack of its idle loop, for one) go on being written without
 * a note, and arrive as they were. (The counting in cpu_physical_memory_sync_dirty_bitmap, QEMU 7.2 and later.) A vCPU that stands
 * still has forgotten everything by then: turning tracking on sees to that. So such a guest is stopped before "migrate",
 * and goes on when the migration is active: some milliseconds.
 *
 * In between QEMU's own limit is so low that it cannot get to the end, where a `cont` would make the guest run here
 * and there. Not with KVM, whose tracking has no such gap; not on the direct path, whose set-up takes round trips.
 */
#include "kvm.h"

#include <string.h>

#define CREEP_BYTES_PER_S 1024 /* a dozen pages a second */

bool kvm_stands_still(const struct kvm_task *task)
{
	json_t *migration = json_object_get(task->guest->runtime, "migration");

	return strcmp(kvm_spec_accel(task->guest->spec), "tcg") == 0 && !kvm_direct(task) &&
	       json_is_true(json_object_get(migration, "was_running"));
}

int kvm_first_bandwidth(const struct kvm_task *task)
{
	return kvm_stands_still(task) ? CREEP_BYTES_PER_S : 0;
}

enum nova_step_result kvm_stand_still(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct kvm_task *task = ctx;

	if (!kvm_stands_still(task))
		return NOVA_STEP_DONE;
	json_object_set_new(task->notes, "still", json_true());
	return kvm_task_qmp(task, "stop", NULL, NULL, err);
}

enum nova_step_result kvm_go_on(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct kvm_task *task = ctx;

	if (!json_object_get(task->notes, "still"))
		return NOVA_STEP_DONE;
	return kvm_task_qmp(task, "cont", NULL, NULL, err);
}

static enum nova_step_result match_begun(
    struct kvm_task *task, const char *event, json_t *data, struct nova_error *err)
{
	const char *status = strcmp(event, "MIGRATION") == 0 ? kvm_spec_text(data, "status") : NULL;

	return status && strcmp(status, "setup") != 0 ? NOVA_STEP_DONE : NOVA_STEP_WAIT;
}

static enum nova_step_result begun(struct kvm_task *task, json_t *value, struct nova_error *err)
{
	const char *status = kvm_spec_text(value, "status") ?: "none";

	if (strcmp(status, "setup") != 0 && strcmp(status, "none") != 0)
		return NOVA_STEP_DONE;
	return kvm_task_listen(task, match_begun, 0, err);
}

enum nova_step_result kvm_wait_begun(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct kvm_task *task = ctx;

	if (!json_object_get(task->notes, "still"))
		return NOVA_STEP_DONE;
	return kvm_task_qmp(task, "query-migrate", NULL, begun, err);
}

enum nova_step_result kvm_full_speed(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct kvm_task *task = ctx;

	if (!json_object_get(task->notes, "still"))
		return NOVA_STEP_DONE;
	return kvm_task_qmp(task, "migrate-set-parameters", json_pack("{s:i}", "max-bandwidth", 0), NULL, err);
}
