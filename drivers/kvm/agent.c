/* SPDX-License-Identifier: Apache-2.0
 *
 * agent.c - a guest's file systems stand still while a point is taken (qemu-ga's guest-fsfreeze-freeze and -thaw), so that
 * the point is application-consistent: no journal has to be replayed on it, and what the guest's freeze hooks flush is there.
 *
 * A guest that stands still is our debt: guest->runtime says "frozen" before it is asked to, and until it has said that it
 * goes on. Whoever finds that word (an undo, the next point, POINT_CLEAR, the daemon after a restart) lets it go on. No
 * agent, one that sleeps or one that refuses costs the consistency, never the point.
 */
#include "kvm.h"

#include <errno.h>
#include <string.h>

#define STATUS_MS 2000
#define FREEZE_MS 10000
#define THAW_MS 10000

static bool frozen(const struct nova_guest *guest)
{
	return json_is_true(json_object_get(guest->runtime, "frozen"));
}

static int note_frozen(struct nova_guest *guest, bool is, struct nova_error *err)
{
	if (!is)
		json_object_del(guest->runtime, "frozen");
	else if (json_object_set_new(guest->runtime, "frozen", json_true()) < 0)
		return nova_error_sys(err, ENOMEM, "guest %s", guest->name);
	return nova_guest_save(guest, err);
}

static const char *refusal_of(const struct kvm_task *task)
{
	return kvm_spec_text(task->notes, "refusal") ?: "its agent refuses";
}

/* Said when it changes, since points are taken all the time. */
static void note_agent(struct kvm_task *task, const char *refusal)
{
	struct kvm_guest *live = kvm_guest_live(task->guest);
	enum kvm_agent_seen seen = refusal ? KVM_AGENT_SILENT : KVM_AGENT_ANSWERS;

	if (!live || live->agent == seen)
		return;
	live->agent = seen;
	if (refusal)
		kvm_log(task->kvm, NOVA_LOG_WARNING, "kvm: guest %s: points are crash-consistent: %s", task->guest->name, refusal);
	else
		kvm_log(task->kvm, NOVA_LOG_INFO, "kvm: guest %s: points are application-consistent: its agent freezes the file systems",
		    task->guest->name);
}

static enum nova_step_result ask(struct kvm_task *task, const char *command, int limit_ms, kvm_reply_fn reply,
    struct nova_error *err)
{
	char path[PATH_MAX];

	if (kvm_guest_socket(task->kvm, task->guest->name, KVM_AGENT_SOCKET, path, sizeof(path), err) < 0)
		return NOVA_STEP_FAILED;
	return kvm_task_agent(task, path, command, limit_ms, reply, err);
}

/* ---- thaw ---- */

enum nova_step_result kvm_agent_thaw(struct kvm_task *task, kvm_reply_fn reply, struct nova_error *err)
{
	if (!frozen(task->guest) || !kvm_guest_live(task->guest))
		return reply(task, NULL, err);
	return ask(task, "guest-fsfreeze-thaw", THAW_MS, reply, err);
}

enum nova_step_result kvm_agent_thawed(struct kvm_task *task, json_t *value, struct nova_error *err)
{
	if (!frozen(task->guest))
		return NOVA_STEP_DONE;
	if (!value) {
		nova_error_set(err, NOVA_REFUSED, "the file systems of guest %s may stand still: %s; it is asked again with the next point "
						  "(in the guest: restart qemu-guest-agent, or fsfreeze --unfreeze)",
		    task->guest->name, refusal_of(task));
		json_object_del(task->notes, "refusal");
		return NOVA_STEP_FAILED;
	}
	if (note_frozen(task->guest, false, err) < 0)
		kvm_log(task->kvm, NOVA_LOG_WARNING, "kvm: guest %s goes on, which is written down later: %s", task->guest->name,
		    err->text);
	return NOVA_STEP_DONE;
}

enum nova_step_result kvm_agent_thaw_row(struct nova_run *run, void *ctx, struct nova_error *err)
{
	return kvm_agent_thaw(ctx, kvm_agent_thawed, err);
}

/* It is asked again later: what the task is for goes on. */
static enum nova_step_result thaw_tried(struct kvm_task *task, json_t *value, struct nova_error *err)
{
	if (kvm_agent_thawed(task, value, err) == NOVA_STEP_FAILED)
		kvm_log(task->kvm, NOVA_LOG_ERROR, "kvm: %s", err->text);
	return NOVA_STEP_DONE;
}

enum nova_step_result kvm_agent_try_thaw_row(struct nova_run *run, void *ctx, struct nova_error *err)
{
	return kvm_agent_thaw(ctx, thaw_tried, err);
}

/* ---- freeze ---- */

static enum nova_step_result freeze_said(struct kvm_task *task, json_t *value, struct nova_error *err)
{
	if (json_integer_value(value) > 0) {
		json_object_set_new(task->notes, "consistency", json_string("application"));
		note_agent(task, NULL);
		return NOVA_STEP_DONE;
	}
	note_agent(task, value ? "its agent found no file system to freeze" : refusal_of(task));
	return kvm_agent_thaw(task, thaw_tried, err); /* it may do late what it was asked for */
}

/* One that does not answer this is not asked to freeze: it might do that when nobody expects it any more. */
static enum nova_step_result status_known(struct kvm_task *task, json_t *value, struct nova_error *err)
{
	const char *status = json_string_value(value);

	if (!value) {
		note_agent(task, refusal_of(task));
		json_object_del(task->notes, "refusal");
		return NOVA_STEP_DONE;
	}
	if (!status || strcmp(status, "thawed") != 0) {
		note_agent(task, "somebody else has frozen its file systems");
		return NOVA_STEP_DONE;
	}
	if (note_frozen(task->guest, true, err) < 0) {
		json_object_del(task->guest->runtime, "frozen");
		note_agent(task, err->text);
		return NOVA_STEP_DONE;
	}
	json_object_set_new(task->notes, "froze", json_true());
	return ask(task, "guest-fsfreeze-freeze", FREEZE_MS, freeze_said, err);
}

/* QEMU knows whether somebody in the guest has the port open: no answer is waited for where nobody is. */
static enum nova_step_result ports_known(struct kvm_task *task, json_t *value, struct nova_error *err)
{
	bool open = false;
	json_t *port;
	size_t i;

	json_array_foreach (value, i, port)
		if (kvm_spec_is(port, "label", KVM_AGENT_ID))
			open = json_is_true(json_object_get(port, "frontend-open"));
	if (!open) {
		note_agent(task, "no agent runs in the guest (qemu-guest-agent)");
		return NOVA_STEP_DONE;
	}
	return ask(task, "guest-fsfreeze-status", STATUS_MS, status_known, err);
}

static enum nova_step_result left_thawed(struct kvm_task *task, json_t *value, struct nova_error *err)
{
	if (thaw_tried(task, value, err) != NOVA_STEP_DONE || frozen(task->guest))
		return NOVA_STEP_DONE;
	return kvm_task_qmp(task, "query-chardev", NULL, ports_known, err);
}

enum nova_step_result kvm_agent_freeze_row(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct kvm_task *task = ctx;

	if (!json_is_true(json_object_get(task->guest->spec, "agent")) || task->guest->state != NOVA_GUEST_RUNNING)
		return NOVA_STEP_DONE;
	return kvm_agent_thaw(task, left_thawed, err);
}
