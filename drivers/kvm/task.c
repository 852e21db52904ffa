/* SPDX-License-Identifier: Apache-2.0
 *
 * task.c - a verb as a table of rows.
 *
 * A task is the request behind one verb's struct nova_op: it runs a table (engine/steps.h) whose rows ask
 * the guest's QEMU, run a program, or wait for an event, one thing at a time. The verb succeeds with the
 * task's result when the last row is done, and fails with the error of the row that failed; rows that have
 * an undo were taken back then.
 */
#include "kvm.h"
#include "engine/clock.h"

#include <assert.h>
#include <errno.h>
#include <event2/event.h>
#include <string.h>

static void task_free(struct kvm_task *task)
{
	kvm_probe_drop(NULL, task);
	kvm_nowhere_free(task->nowhere);
	json_decref(task->args);
	json_decref(task->result);
	json_decref(task->notes);
	free(task);
}

static void task_drop(struct nova_op *op)
{
	struct kvm_task *task = (struct kvm_task *)op;

	nova_run_free(task->run);
	task_free(task);
}

static void task_ended(void *ctx, enum nova_outcome outcome, const struct nova_error *err, const char *notes)
{
	struct kvm_task *task = ctx;
	nova_done_fn done = task->done;
	void *arg = task->arg;
	json_t *result = nova_take(&task->result);
	struct nova_error failure;
	bool failed = outcome != NOVA_COMPLETED;

	if (failed)
		failure = *err;
	if (notes && *notes)
		kvm_log(task->kvm, NOVA_LOG_WARNING, "kvm: left over: %s", notes);
	task_free(task);
	done(arg, failed ? NULL : result, failed ? &failure : NULL);
	json_decref(result);
}

static const struct nova_run_events run_events = { .ended = task_ended };

struct nova_op *kvm_task_new(struct kvm *kvm, struct nova_guest *guest, json_t *args,
    const struct nova_step *rows, nova_done_fn done, void *arg, struct nova_error *err)
{
	struct kvm_task *task = calloc(1, sizeof(*task));

	if (!task) {
		nova_error_sys(err, ENOMEM, "no memory for a call");
		return NULL;
	}
	task->op.drop = task_drop;
	task->kvm = kvm;
	task->guest = guest;
	task->args = json_is_object(args) ? json_incref(args) : json_object();
	task->notes = json_object();
	task->result = json_object();
	task->done = done;
	task->arg = arg;
	task->run = nova_run_new(kvm->env.base, rows, NULL, false, &run_events, task, err);
	if (!task->run) {
		task_free(task);
		return NULL;
	}
	return &task->op;
}

void kvm_task_end_row(struct kvm_task *task, enum nova_step_result result, const struct nova_error *err)
{
	if (result == NOVA_STEP_DONE)
		nova_run_done(task->run);
	else if (result == NOVA_STEP_FAILED)
		nova_run_fail(task->run, err);
}

static void unlisten(struct kvm_task *task)
{
	struct kvm_guest *live = task->guest ? task->guest->driver_data : NULL;
	struct kvm_task **at;

	task->match = NULL;
	if (task->timer)
		event_free(nova_take(&task->timer));
	for (at = live ? &live->listeners : NULL; at && *at; at = &(*at)->next)
		if (*at == task) {
			*at = task->next;
			return;
		}
}

void kvm_task_stop_waiting(struct nova_run *run, void *ctx)
{
	struct kvm_task *task = ctx;

	nova_op_drop(nova_take(&task->waiting));
	if (task->match)
		unlisten(task);
}

/* What a row waited for has come. A reply that asks for more keeps the row waiting. */
static void task_reply(void *arg, json_t *result, const struct nova_error *failure)
{
	struct kvm_task *task = arg;
	struct nova_error err;
	enum nova_step_result next = NOVA_STEP_DONE;

	task->waiting = NULL;
	/* A connection that ends belongs to a process that does: who listens hears of it. */
	if (failure && failure->category == NOVA_LINK && task->match)
		return;
	if (failure && failure->category == NOVA_REFUSED && task->tolerant) {
		json_object_set_new(task->notes, "refusal", json_string(failure->text));
		failure = NULL;
		result = NULL;
	}
	if (failure) {
		kvm_task_stop_waiting(NULL, task);
		kvm_task_end_row(task, NOVA_STEP_FAILED, failure);
		return;
	}
	if (task->reply)
		next = task->reply(task, result, &err);
	else if (task->match)
		next = NOVA_STEP_WAIT; /* accepted: the event will tell */
	if (next != NOVA_STEP_WAIT)
		kvm_task_stop_waiting(NULL, task);
	kvm_task_end_row(task, next, &err);
}

enum nova_step_result kvm_task_send_fd(struct kvm_task *task, const char *command, json_t *args, int fd,
    kvm_reply_fn reply, struct nova_error *err)
{
	struct kvm_guest *live = kvm_guest_live(task->guest);

	if (!task->probe && kvm_guest_need_qmp(task->guest, err) < 0) {
		json_decref(args);
		return NOVA_STEP_FAILED;
	}
	assert(!task->waiting);
	task->reply = reply;
	task->tolerant = false;
	task->waiting = kvm_qmp_fd(task->probe ?: &live->qemu, command, args, fd, task_reply, task, err);
	return task->waiting ? NOVA_STEP_WAIT : NOVA_STEP_FAILED;
}

enum nova_step_result kvm_task_qmp(
    struct kvm_task *task, const char *command, json_t *args, kvm_reply_fn reply, struct nova_error *err)
{
	return kvm_task_send_fd(task, command, args, 0, reply, err);
}

enum nova_step_result kvm_task_try(
    struct kvm_task *task, const char *command, json_t *args, kvm_reply_fn reply, struct nova_error *err)
{
	enum nova_step_result result = kvm_task_qmp(task, command, args, reply, err);

	task->tolerant = true;
	return result;
}

enum nova_step_result kvm_task_agent(struct kvm_task *task, const char *path, const char *command, int limit_ms,
    kvm_reply_fn reply, struct nova_error *err)
{
	struct nova_error why;

	assert(!task->waiting);
	task->reply = reply;
	task->tolerant = true;
	task->waiting = qmp_agent_ask(task->kvm->env.base, path, command, limit_ms, task_reply, task, &why);
	if (task->waiting)
		return NOVA_STEP_WAIT;
	json_object_set_new(task->notes, "refusal", json_string(why.text));
	return reply(task, NULL, err);
}

enum nova_step_result kvm_task_run_program(
    struct kvm_task *task, const char *const argv[], kvm_reply_fn reply, struct nova_error *err)
{
	assert(!task->waiting);
	task->reply = reply;
	task->tolerant = false;
	task->waiting = kvm_run_confined(task->kvm, argv, task_reply, task, err);
	return task->waiting ? NOVA_STEP_WAIT : NOVA_STEP_FAILED;
}

static void listened_long_enough(evutil_socket_t fd, short what, void *arg)
{
	struct kvm_task *task = arg;
	struct nova_error err;
	enum nova_step_result result = task->match(task, "TIMEOUT", NULL, &err);

	if (result == NOVA_STEP_WAIT)
		return;
	kvm_task_stop_waiting(NULL, task);
	kvm_task_end_row(task, result, &err);
}

enum nova_step_result kvm_task_listen(
    struct kvm_task *task, kvm_event_fn match, int limit_ms, struct nova_error *err)
{
	struct kvm_guest *live = task->guest->driver_data;
	struct timeval limit = nova_timeval_ms(limit_ms);

	if (task->match)
		unlisten(task);
	if (limit_ms) {
		task->timer = event_new(task->kvm->env.base, -1, 0, listened_long_enough, task);
		if (!task->timer || event_add(task->timer, &limit) < 0) {
			nova_error_sys(err, ENOMEM, "no memory for a timer");
			return NOVA_STEP_FAILED;
		}
	}
	task->match = match;
	task->next = live->listeners;
	live->listeners = task;
	return NOVA_STEP_WAIT;
}
