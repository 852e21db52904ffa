/* SPDX-License-Identifier: Apache-2.0
 *
 * regain.c - a QEMU whose monitor was lost answers again: what has become of its guest meanwhile?
 *
 * Whatever it said in between is lost, so that it is asked: how the guest is, then how its migration is, if it has one.
 */
#include "kvm.h"

#include <string.h>

static void migration_told(void *arg, json_t *result, const struct nova_error *failure)
{
	struct kvm_guest *live = arg;
	const json_t *record = json_object_get(live->guest->runtime, "migration");
	const char *status = kvm_spec_text(result, "status"), *known = kvm_spec_text(record, "status");
	NOVA_AUTOJSON json_t *data = status ? json_pack("{s:s}", "status", status) : NULL;

	live->inquiry = NULL;
	if (data && record && (!known || strcmp(status, known) != 0))
		kvm_guest_migration(live, data);
}

static void status_told(void *arg, json_t *result, const struct nova_error *failure)
{
	struct kvm_guest *live = arg;
	const char *status = kvm_spec_text(result, "status");

	live->inquiry = NULL;
	/* Finishing or finished: whose the guest is, the migration's status tells. */
	if (status && strcmp(status, "postmigrate") != 0 && strcmp(status, "finish-migrate") != 0)
		kvm_guest_state(live->guest, kvm_state_of(status, kvm_guest_role(live->guest)), "its monitor answers again");
	if (status && json_object_get(live->guest->runtime, "migration"))
		live->inquiry = kvm_qmp(&live->qemu, "query-migrate", NULL, migration_told, live, NULL);
}

void kvm_guest_regained(struct kvm_guest *live)
{
	kvm_log(live->qemu.kvm, NOVA_LOG_INFO, "kvm: guest %s: its monitor answers again", live->guest->name);
	nova_op_drop(nova_take(&live->inquiry));
	live->inquiry = kvm_qmp(&live->qemu, "query-status", NULL, status_told, live, NULL);
}
