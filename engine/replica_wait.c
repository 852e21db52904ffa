/* SPDX-License-Identifier: Apache-2.0
 *
 * replica_wait.c - who wants to read images of a replica waits for the merge that writes them.
 *
 * A merge of old points writes images that all newer points stand on, so that no point can be read meanwhile. Whoever
 * reads says so first (readers, job, holds: nova_replica_holds): then no other merge begins, and the one that is under
 * way is waited for here. Not here: when a merge begins and ends (replica_point.c).
 */
#include "replicate.h"

#include <errno.h>
#include <event2/event.h>
#include <stdlib.h>

struct nova_replica_wait {
	struct nova_op op; /* first */
	TAILQ_ENTRY(nova_replica_wait) link;
	struct nova_replica *replica; /* borrowed; NULL: it is gone */
	struct event *event;          /* owned: the limit, or the news */
	int limit_ms;
	nova_done_fn done;
	void *arg;
};

static void forget(struct nova_replica_wait *wait)
{
	if (wait->replica)
		TAILQ_REMOVE(&wait->replica->waits, wait, link);
	event_free(wait->event);
	free(wait);
}

static void drop(struct nova_op *op)
{
	forget((struct nova_replica_wait *)op);
}

static void on_event(evutil_socket_t fd, short what, void *arg)
{
	struct nova_replica_wait *wait = arg, known = *wait;
	bool failed = !known.replica || known.replica->merging;
	struct nova_error err;

	if (!known.replica)
		nova_error_set(&err, NOVA_CANCELLED, "the replica is gone");
	else if (failed)
		nova_error_set(&err, NOVA_TIMEOUT,
		    "older points of guest %s are still being merged after %g s, and no point can be read meanwhile: try again later",
		    known.replica->guest, known.limit_ms / 1000.0);
	forget(wait);
	known.done(known.arg, NULL, failed ? &err : NULL);
}

struct nova_op *nova_replica_wait(struct nova_replica *replica, int limit_ms, nova_done_fn done, void *arg,
    struct nova_error *err)
{
	const struct timeval limit = nova_timeval_ms(limit_ms);
	struct nova_replica_wait *wait = calloc(1, sizeof(*wait));

	if (wait)
		wait->event = event_new(replica->host->base, -1, 0, on_event, wait);
	if (!wait || !wait->event || event_add(wait->event, &limit) < 0) {
		if (wait && wait->event)
			event_free(wait->event);
		free(wait);
		nova_error_sys(err, ENOMEM, "replica of %s", replica->guest);
		return NULL;
	}
	wait->op.drop = drop;
	wait->replica = replica;
	wait->limit_ms = limit_ms;
	wait->done = done;
	wait->arg = arg;
	TAILQ_INSERT_TAIL(&replica->waits, wait, link);
	if (!replica->merging)
		event_active(wait->event, EV_TIMEOUT, 0);
	return &wait->op;
}

void nova_replica_set_merging(struct nova_replica *replica, bool merging)
{
	struct nova_replica_wait *wait;

	replica->merging = merging;
	if (!merging)
		TAILQ_FOREACH (wait, &replica->waits, link)
			event_active(wait->event, EV_TIMEOUT, 0);
}

void nova_replica_end_waits(struct nova_replica *replica)
{
	struct nova_replica_wait *wait;

	while ((wait = TAILQ_FIRST(&replica->waits))) {
		TAILQ_REMOVE(&replica->waits, wait, link);
		wait->replica = NULL;
		event_active(wait->event, EV_TIMEOUT, 0);
	}
}
