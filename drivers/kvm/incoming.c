/* SPDX-License-Identifier: Apache-2.0
 *
 * incoming.c - the destination of a migration: IN_PREPARE.
 *
 * A QEMU with the source's devices waits, stopped, at a unix socket in the guest's private directory. It
 * loads the stream and stays stopped: RESUME makes it run, DELETE takes it away. Its disks belong to the
 * source until RESUME: nothing here deletes or writes them before. Images of disks that are carried (carry.c)
 * are made here, and are the only ones that an undo removes. With recover, the QEMU is there and runs, and waits
 * at the socket for the rest of a postcopy whose stream was lost.
 */
#include "kvm.h"

#include <errno.h>
#include <string.h>

static enum nova_step_result mark_incoming(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct kvm_task *task = ctx;
	struct nova_guest *guest = task->guest;

	if (!json_object_get(task->notes, "spec"))
		json_object_set_new(task->notes, "spec", kvm_spec_now(guest));
	json_object_set_new(task->notes, "incoming", json_true());
	json_object_set_new(guest->runtime, "disks_elsewhere", json_true());
	return NOVA_STEP_DONE;
}

/* QEMU is up: from here on it is the destination of a migration, also for a restarted daemon. */
static enum nova_step_result set_capabilities(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct kvm_task *task = ctx;
	bool postcopy = json_is_true(json_object_get(task->args, "postcopy"));

	if (json_object_set_new(task->guest->runtime, "migration",
	        json_pack("{s:s,s:s}", "role", "destination", "status", "setup")) < 0) {
		nova_error_sys(err, ENOMEM, "no memory for the migration of %s", task->guest->name);
		return NOVA_STEP_FAILED;
	}
	if (nova_guest_save(task->guest, err) < 0)
		return NOVA_STEP_FAILED;
	kvm_guest_state(task->guest, NOVA_GUEST_INCOMING, "waits for its stream");
	return kvm_task_qmp(
	    task, "migrate-set-capabilities", kvm_migration_capabilities(false, postcopy, kvm_direct(task), false), NULL, err);
}

static enum nova_step_result set_parameters(struct nova_run *run, void *ctx, struct nova_error *err)
{
	json_t *parameters = json_pack("{s:i,s:i}", "max-bandwidth", 0, "max-postcopy-bandwidth", 0);

	kvm_direct_parameters(ctx, parameters);
	return kvm_task_qmp(ctx, "migrate-set-parameters", parameters, NULL, err);
}

static enum nova_step_result listen_for_stream(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct kvm_task *task = ctx;
	char path[PATH_MAX];
	json_t *uri;

	if (kvm_direct(task)) {
		uri = kvm_direct_listen_uri(task, err);
		return uri ? kvm_task_qmp(task, "migrate-incoming", json_pack("{s:o}", "uri", uri), NULL, err) :
			     NOVA_STEP_FAILED;
	}
	if (kvm_guest_socket(task->kvm, task->guest->name, "incoming.sock", path, sizeof(path), err) < 0)
		return NOVA_STEP_FAILED;
	json_object_set_new(task->result, "path", json_string(path));
	return kvm_task_qmp(
	    task, "migrate-incoming", json_pack("{s:o}", "uri", json_sprintf("unix:%s", path)), NULL, err);
}

/* ---- the rest of a postcopy ---- */

/* Refused: it waits at the socket already, from the last time when nobody came, or knows of no loss yet. */
static enum nova_step_result recover_answer(struct kvm_task *task, json_t *value, struct nova_error *err)
{
	const char *refusal = kvm_spec_text(task->notes, "refusal") ?: "";

	json_object_set_new(task->notes, "listening", json_boolean(value || strstr(refusal, "triggered already")));
	return NOVA_STEP_DONE;
}

/* At first without a look at its state, and for this alone it has ears always. */
static enum nova_step_result listen_again(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct kvm_task *task = ctx;
	char path[PATH_MAX];

	if (json_is_true(json_object_get(task->notes, "listening")) ||
	    json_is_true(json_object_get(task->result, "complete")))
		return NOVA_STEP_DONE;
	if (kvm_guest_socket(task->kvm, task->guest->name, "incoming.sock", path, sizeof(path), err) < 0)
		return NOVA_STEP_FAILED;
	json_object_set_new(task->result, "path", json_string(path));
	return kvm_task_try(
	    task, "migrate-recover", json_pack("{s:o}", "uri", json_sprintf("unix:%s", path)), recover_answer, err);
}

static enum nova_step_result wait_lost(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct kvm_task *task = ctx;

	if (json_is_true(json_object_get(task->notes, "listening")))
		return NOVA_STEP_DONE;
	return kvm_task_qmp(task, "query-migrate", NULL, kvm_wait_for_loss, err);
}

KVM_VERB(in_prepare)
{
	static const struct nova_step rows[] = {
		{ "mark", mark_incoming },
		{ "backing files", kvm_backing_find, NULL, kvm_task_stop_waiting },
		{ "images", kvm_carry_make, kvm_carry_undo, kvm_task_stop_waiting, 120000 },
		{ "launch", kvm_launch_row, kvm_launch_undo, kvm_task_stop_waiting, KVM_START_LIMIT_MS },
		{ "credentials", kvm_direct_credentials, kvm_direct_forget, kvm_task_stop_waiting },
		{ "capabilities", set_capabilities, NULL, kvm_task_stop_waiting },
		{ "parameters", set_parameters, NULL, kvm_task_stop_waiting },
		{ "listen", listen_for_stream, NULL, kvm_task_stop_waiting },
		{ "port", kvm_direct_port, NULL, kvm_task_stop_waiting },
		{ NULL },
	};
	static const struct nova_step recover_rows[] = {
		{ "listen", listen_again, NULL, kvm_task_stop_waiting },
		{ "wait", wait_lost, NULL, kvm_task_stop_waiting, 2 * KVM_LOSS_LIMIT_MS },
		{ "listen again", listen_again, NULL, kvm_task_stop_waiting },
		{ NULL },
	};
	bool recover = json_is_true(json_object_get(args, "recover"));
	struct nova_op *op = kvm_task_new(self, guest, args, recover ? recover_rows : rows, done, arg, err);
	json_t *given = json_object_get(args, "spec");

	if (op && given)
		json_object_set(((struct kvm_task *)op)->notes, "spec", given);
	return op;
}
