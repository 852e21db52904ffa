/* SPDX-License-Identifier: Apache-2.0
 *
 * check.c - CHECK: a specification completed for this host, or the reason why it cannot be had here.
 *
 * The destination of a migration asks this before the first byte.
 */
#include "kvm.h"

static enum nova_step_result complete(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct kvm_task *task = ctx;
	struct kvm_limits limits = {
		.facts = kvm_probe_facts(task->kvm, kvm_spec_text(task->notes, "accel")),
		.roots = task->kvm->roots,
		.machines = kvm_config(task->kvm, "machines"),
		.cpu_models = kvm_config(task->kvm, "cpu-models"),
		.copies = json_object_get(task->args, "copies"),
		.incoming = json_is_true(json_object_get(task->args, "incoming")),
	};
	json_t *spec = kvm_spec_complete(json_object_get(task->args, "spec"), &limits, err);

	if (!spec)
		return NOVA_STEP_FAILED;
	json_object_set_new(task->result, "needs", kvm_spec_needs(spec));
	json_object_set_new(task->result, "spec", spec);
	return NOVA_STEP_DONE;
}

KVM_VERB(check)
{
	static const struct nova_step rows[] = {
		{ "ask QEMU", kvm_probe_row, NULL, kvm_probe_drop, KVM_START_LIMIT_MS },
		{ "complete", complete },
		{ NULL },
	};
	NOVA_AUTOJSON json_t *spec = kvm_spec_parse(json_object_get(args, "spec"), err);
	struct nova_op *op = NULL;

	if (!spec)
		return NULL;
	op = kvm_task_new(self, guest, args, rows, done, arg, err);
	if (op)
		json_object_set(((struct kvm_task *)op)->notes, "accel", json_object_get(spec, "accel"));
	return op;
}
