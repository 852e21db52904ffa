/* SPDX-License-Identifier: Apache-2.0
 *
 * task.c - a verb as a table of rows (task.h).
 */
#include "drivers/common/task.h"
#include "engine/child.h"
#include "engine/cleanup.h"
#include "engine/clock.h"

#include <assert.h>
#include <errno.h>
#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void task_free(struct task *task)
{
	nova_op_drop(task->waiting);
	for (size_t i = 0; i < sizeof(task->fd) / sizeof(*task->fd); i++)
		if (task->fd[i] >= 0)
			close(task->fd[i]);
	json_decref(task->args);
	json_decref(task->result);
	json_decref(task->notes);
	free(task);
}

static void task_drop(struct nova_op *op)
{
	struct task *task = (struct task *)op;

	nova_run_free(task->run);
	task_free(task);
}

static void task_ended(void *ctx, enum nova_outcome outcome, const struct nova_error *err, const char *notes)
{
	struct task *task = ctx;
	nova_done_fn done = task->done;
	void *arg = task->arg;
	json_t *result = nova_take(&task->result);
	bool failed = outcome != NOVA_COMPLETED;
	struct nova_error failure;

	if (failed)
		failure = *err;
	if (notes && *notes)
		driver_log(task->env, NOVA_LOG_WARNING, "left over: %s", notes);
	task_free(task);
	done(arg, failed ? NULL : result, failed ? &failure : NULL);
	json_decref(result);
}

static const struct nova_run_events run_events = { .ended = task_ended };

struct nova_op *task_new(void *self, const struct nova_driver_env *env, struct nova_guest *guest, json_t *args,
    const struct nova_step *rows, nova_done_fn done, void *arg, struct nova_error *err)
{
	struct task *task = calloc(1, sizeof(*task));

	if (!task) {
		nova_error_sys(err, ENOMEM, "no memory for a call");
		return NULL;
	}
	*task = (struct task){
		.op.drop = task_drop,
		.self = self,
		.env = env,
		.guest = guest,
		.args = json_is_object(args) ? json_incref(args) : json_object(),
		.result = json_object(),
		.notes = json_object(),
		.fd = { -1, -1 },
		.done = done,
		.arg = arg,
	};
	task->run = nova_run_new(env->base, rows, NULL, false, &run_events, task, err);
	if (task->run)
		return &task->op;
	task_free(task);
	return NULL;
}

static void end_row(struct task *task, enum nova_step_result result, const struct nova_error *err)
{
	if (result == NOVA_STEP_DONE)
		nova_run_done(task->run);
	else if (result == NOVA_STEP_FAILED)
		nova_run_fail(task->run, err);
}

void task_done(void *arg, json_t *result, const struct nova_error *failure)
{
	struct task *task = arg;
	task_reply_fn reply = task->reply;
	struct nova_error err;

	task->waiting = NULL;
	if (failure)
		end_row(task, NOVA_STEP_FAILED, failure);
	else
		end_row(task, reply ? reply(task, result, &err) : NOVA_STEP_DONE, &err);
}

enum nova_step_result task_wait(struct task *task, struct nova_op *op, task_reply_fn reply)
{
	assert(!task->waiting);
	task->waiting = op;
	task->reply = reply;
	return op ? NOVA_STEP_WAIT : NOVA_STEP_FAILED;
}

void task_drop_row(struct nova_run *run, void *arg)
{
	struct task *task = arg;

	nova_op_drop(nova_take(&task->waiting));
}

/* ---- programs ---- */

static enum nova_step_result program_ended(struct task *task, json_t *value, struct nova_error *err)
{
	return nova_child_check(task->program, value, err) < 0 ? NOVA_STEP_FAILED : NOVA_STEP_DONE;
}

enum nova_step_result task_program(struct task *task, const char *const argv[], int limit_ms, task_reply_fn reply,
    struct nova_error *err)
{
	struct nova_child_options options = { .limit_ms = limit_ms };

	task->program = argv[0];
	return task_wait(task, nova_child_run(task->env->base, argv, &options, task_done, task, err),
	    reply ? reply : program_ended);
}

/* ---- pauses ---- */

struct pause {
	struct nova_op op; /* first */
	struct event *timer;
	struct task *task;
};

static void pause_drop(struct nova_op *op)
{
	struct pause *pause = (struct pause *)op;

	if (pause->timer)
		event_free(pause->timer);
	free(pause);
}

static void pause_over(evutil_socket_t fd, short what, void *arg)
{
	struct task *task = ((struct pause *)arg)->task;

	pause_drop(arg);
	task_done(task, NULL, NULL);
}

enum nova_step_result task_pause(struct task *task, int ms, task_reply_fn reply, struct nova_error *err)
{
	struct timeval wait = nova_timeval_ms(ms);
	struct pause *pause = calloc(1, sizeof(*pause));

	if (pause) {
		pause->op.drop = pause_drop;
		pause->task = task;
		pause->timer = evtimer_new(task->env->base, pause_over, pause);
	}
	if (pause && pause->timer && evtimer_add(pause->timer, &wait) == 0)
		return task_wait(task, &pause->op, reply);
	if (pause)
		pause_drop(&pause->op);
	nova_error_sys(err, ENOMEM, "no memory for a timer");
	return NOVA_STEP_FAILED;
}

/* ---- small things ---- */

const char *task_text(const json_t *object, const char *member)
{
	const char *text = json_string_value(json_object_get(object, member));

	return text && *text ? text : NULL;
}

void driver_log(const struct nova_driver_env *env, enum nova_log_level level, const char *format, ...)
{
	char line[600];
	va_list ap;

	va_start(ap, format);
	vsnprintf(line, sizeof(line), format, ap);
	va_end(ap);
	env->log(env->log_arg, level, line);
}

const char *driver_option(const struct nova_driver_env *env, const char *name)
{
	const char *text = env->config ? json_string_value(nova_config_get(env->config, name)) : NULL;

	return text && *text ? text : NULL;
}
