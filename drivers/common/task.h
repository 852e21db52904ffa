/* SPDX-License-Identifier: Apache-2.0
 *
 * task.h - a verb of a container driver as a table of rows.
 *
 * A task is the request behind one verb's struct nova_op: it runs a table (engine/steps.h) whose rows ask the
 * runtime one thing at a time. The verb succeeds with the task's result when the last row is done, and fails
 * with the error of the row that failed; rows that have an undo were taken back then.
 */
#ifndef NOVA_DRIVER_TASK_H
#define NOVA_DRIVER_TASK_H

#include "engine/op.h"
#include "engine/steps.h"

struct task;
/* What a row asked for has come: DONE, WAIT (it asked for something more) or FAILED. */
typedef enum nova_step_result (*task_reply_fn)(struct task *task, json_t *value, struct nova_error *err);

struct task {
	struct nova_op op;                 /* first */
	void *self;                        /* the driver's */
	const struct nova_driver_env *env; /* borrowed: the driver's */
	struct nova_guest *guest;          /* may be NULL */
	json_t *args;                      /* owned; an object */
	json_t *result;                    /* owned; the answer */
	json_t *notes;                     /* owned object: what rows leave for later rows */
	struct nova_run *run;
	struct nova_op *waiting;           /* owned: what the row waits for */
	task_reply_fn reply;
	const char *program;               /* static: that the row runs */
	int fd[2];                         /* owned: files that rows opened; -1: none */
	nova_done_fn done;
	void *arg;
};

struct nova_op *task_new(void *self, const struct nova_driver_env *env, struct nova_guest *guest, json_t *args,
    const struct nova_step *rows, nova_done_fn done, void *arg, struct nova_error *err);
/* For rows: wait for op (NULL: it could not be begun, *err says why), which must have been started with
 * task_done and the task. reply may be NULL. */
enum nova_step_result task_wait(struct task *task, struct nova_op *op, task_reply_fn reply);
void task_done(void *task, json_t *result, const struct nova_error *err);
/* Every waiting row's drop. */
void task_drop_row(struct nova_run *run, void *task);
/* For rows: run a program to its end (limit_ms 0: none). reply gets nova_child_run()'s answer, whatever the
 * status is; without a reply a status other than 0 fails the row with the program's last words. */
enum nova_step_result task_program(struct task *task, const char *const argv[], int limit_ms, task_reply_fn reply,
    struct nova_error *err);
/* For rows: nothing for so long; then reply, with NULL. */
enum nova_step_result task_pause(struct task *task, int ms, task_reply_fn reply, struct nova_error *err);
/* A text member of an object, or NULL if it is missing or empty. */
const char *task_text(const json_t *object, const char *member);
/* One line to the daemon's log. */
void driver_log(const struct nova_driver_env *env, enum nova_log_level level, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* A configuration value as text; NULL: not set. */
const char *driver_option(const struct nova_driver_env *env, const char *name);

#endif
