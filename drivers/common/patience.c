/* SPDX-License-Identifier: Apache-2.0
 *
 * patience.c - asking again until a runtime answers (patience.h).
 */
#include "drivers/common/patience.h"
#include "engine/clock.h"

#include <errno.h>
#include <event2/event.h>
#include <stdlib.h>

#define AWAY_MS 30000
#define AGAIN_MS 250

struct patience {
	struct nova_op op; /* first */
	patience_ask_fn ask;
	void *self;           /* borrowed: the driver's */
	struct nova_op *call; /* owned */
	struct event *again;  /* owned */
	int left;             /* times to ask */
	nova_done_fn done;
	void *arg;
};

static void patience_free(struct patience *patience)
{
	nova_op_drop(patience->call);
	event_free(patience->again);
	free(patience);
}

static void patience_drop(struct nova_op *op)
{
	patience_free((struct patience *)op);
}

static void answered(void *arg, json_t *result, const struct nova_error *err)
{
	struct patience *patience = arg;
	nova_done_fn done = patience->done;
	void *done_arg = patience->arg;
	struct timeval wait = nova_timeval_ms(AGAIN_MS);

	patience->call = NULL;
	if (err && patience->left-- > 0) {
		event_add(patience->again, &wait);
		return;
	}
	patience_free(patience);
	done(done_arg, result, err);
}

static void ask(evutil_socket_t fd, short what, void *arg)
{
	struct patience *patience = arg;
	struct nova_error err;

	patience->call = patience->ask(patience->self, answered, patience, &err);
	if (!patience->call)
		answered(patience, NULL, &err);
}

struct nova_op *patience_new(struct event_base *base, patience_ask_fn ask_fn, void *self, nova_done_fn done, void *arg,
    struct nova_error *err)
{
	struct patience *patience = calloc(1, sizeof(*patience));

	if (patience)
		patience->again = event_new(base, -1, 0, ask, patience);
	if (!patience || !patience->again) {
		free(patience);
		nova_error_sys(err, ENOMEM, "waiting for a runtime");
		return NULL;
	}
	patience->op.drop = patience_drop;
	patience->ask = ask_fn;
	patience->self = self;
	patience->left = AWAY_MS / AGAIN_MS;
	patience->done = done;
	patience->arg = arg;
	event_active(patience->again, EV_TIMEOUT, 0);
	return &patience->op;
}
