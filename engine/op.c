/* SPDX-License-Identifier: Apache-2.0
 *
 * op.c - answers that are known at once, given from the next turn of the loop.
 */
#include "op.h"

#include <event2/event.h>
#include <errno.h>
#include <stdlib.h>

struct later {
	struct nova_op op;
	struct event *event; /* owned */
	json_t *result;      /* owned */
	bool failed;
	struct nova_error failure;
	nova_done_fn done;
	void *arg;
};

void nova_op_drop(struct nova_op *op)
{
	if (op)
		op->drop(op);
}

static void later_free(struct later *later)
{
	if (later->event)
		event_free(later->event);
	json_decref(later->result);
	free(later);
}

static void later_drop(struct nova_op *op)
{
	later_free((struct later *)op);
}

static void later_answer(evutil_socket_t fd, short what, void *arg)
{
	struct later taken = *(struct later *)arg;

	taken.event = NULL;
	((struct later *)arg)->result = NULL;
	later_free(arg);
	taken.done(taken.arg, taken.failed ? NULL : taken.result, taken.failed ? &taken.failure : NULL);
	json_decref(taken.result);
}

struct nova_op *nova_op_later(struct event_base *base, json_t *result, const struct nova_error *failure,
    nova_done_fn done, void *arg, struct nova_error *err)
{
	struct later *later = calloc(1, sizeof(*later));

	if (later)
		later->event = event_new(base, -1, 0, later_answer, later);
	if (!later || !later->event) {
		free(later);
		json_decref(result);
		nova_error_sys(err, ENOMEM, "no memory for an answer");
		return NULL;
	}
	later->op.drop = later_drop;
	later->result = result;
	later->failed = failure != NULL;
	if (failure)
		later->failure = *failure;
	later->done = done;
	later->arg = arg;
	event_active(later->event, EV_TIMEOUT, 0);
	return &later->op;
}
