/* SPDX-License-Identifier: Apache-2.0
 *
 * snapshot.c - making snapshots, also with a containerd that was killed while it made one.
 *
 * What it leaves then is a directory that its database does not know. As the number was not spent it meets that directory
 * the next time it makes a snapshot, fails for it and, failing, removes it: a second try goes well.
 */
#include "drivers/containerd/containerd.h"

#include <errno.h>
#include <stdlib.h>

struct making {
	struct nova_op op;    /* first */
	struct task *task;    /* borrowed: it owns us */
	enum containerd_method how;
	json_t *request;      /* owned */
	uint32_t tolerated;
	struct nova_op *call; /* owned */
	nova_done_fn done;
	void *arg;
};

static void making_free(struct making *making)
{
	nova_op_drop(making->call);
	json_decref(making->request);
	free(making);
}

static void making_drop(struct nova_op *op)
{
	making_free((struct making *)op);
}

static void made(void *arg, json_t *result, const struct nova_error *err)
{
	struct making *making = arg;
	nova_done_fn done = making->done;
	void *done_arg = making->arg;

	making->call = NULL;
	making_free(making);
	done(done_arg, result, err);
}

static int ask(struct making *making, uint32_t tolerated, nova_done_fn fn, struct nova_error *err)
{
	struct grpc_options options = { .limit_ms = CONTAINERD_ASK_MS, .tolerated = tolerated };

	making->call = containerd_begin_for(making->task, making->how, json_incref(making->request), &options, fn, making, err);
	return making->call ? 0 : -1;
}

static void tried(void *arg, json_t *result, const struct nova_error *err)
{
	struct making *making = arg;
	struct nova_error why;

	making->call = NULL;
	if (err || containerd_status(result) != GRPC_UNKNOWN)
		made(making, result, err);
	else if (ask(making, making->tolerated, made, &why) < 0)
		made(making, NULL, &why);
}

enum nova_step_result containerd_make_snapshot(struct task *task, enum containerd_method how, json_t *request, uint32_t tolerated,
    task_reply_fn reply, struct nova_error *err)
{
	struct making *making = calloc(1, sizeof(*making));

	if (!making) {
		json_decref(request);
		nova_error_sys(err, ENOMEM, "a snapshot of guest %s", task->guest->name);
		return NOVA_STEP_FAILED;
	}
	*making = (struct making){ .op.drop = making_drop, .task = task, .how = how, .request = request, .tolerated = tolerated,
		.done = task_done, .arg = task };
	if (ask(making, tolerated | 1u << GRPC_UNKNOWN, tried, err) < 0) {
		making_free(making);
		return NOVA_STEP_FAILED;
	}
	return task_wait(task, &making->op, reply);
}
