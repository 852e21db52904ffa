/* SPDX-License-Identifier: Apache-2.0
 *
 * migrate_rejoin.c - a postcopy has lost its session for good: its limit passed, or a daemon was restarted. The guest
 * runs at the destination, and pages that it will need are still here. So nothing ends: both hypervisors keep
 * what they have (a guest that touches a missing page waits for it), and the source dials the destination again
 * and again, until the rest can follow over a new session and a new stream, or an operator gives the guest up.
 */
#include "cleanup.h"
#include "migrate.h"

#include <errno.h>
#include <event2/event.h>
#include <stdlib.h>
#include <string.h>

#define TRY_FIRST_MS 500
#define TRY_MOST_MS 15000 /* between two tries, after doubling */
#define RECOVER_LIMIT_MS 30000

struct nova_rejoin {
	struct nova_source *source; /* borrowed */
	struct nova_op *op;         /* owned: a request, or a call of the driver */
	struct event *timer;        /* owned: the next try */
	int64_t since_ms;
	int wait_ms;
	bool told;   /* why it does not work was logged */
	bool active; /* the hypervisor goes on, and its driver has not answered yet */
};

void nova_rejoin_free(struct nova_rejoin *rejoin)
{
	if (!rejoin)
		return;
	nova_op_drop(rejoin->op);
	if (rejoin->timer)
		event_free(rejoin->timer);
	free(rejoin);
}

int64_t nova_rejoin_waited_ms(const struct nova_source *source)
{
	return source->rejoin ? nova_now_ms() - source->rejoin->since_ms : 0;
}

static void again(struct nova_rejoin *rejoin, const struct nova_error *err)
{
	struct timeval wait = nova_timeval_ms(rejoin->wait_ms);
	struct nova_source *source = rejoin->source;

	nova_host_log(source->job->host, rejoin->told ? NOVA_LOG_DEBUG : NOVA_LOG_WARNING,
	    "%s: the rest of guest %s cannot follow to %s yet: %s", source->job->id, source->job->guest_name,
	    source->job->peer, err->text);
	rejoin->told = true;
	nova_op_drop(nova_take(&rejoin->op));
	nova_source_stop_stream(source);
	source->session = source->ops->free(source->session);
	rejoin->wait_ms = rejoin->wait_ms * 2 > TRY_MOST_MS ? TRY_MOST_MS : rejoin->wait_ms * 2;
	event_add(rejoin->timer, &wait);
}

static void try_now(evutil_socket_t fd, short what, void *arg)
{
	struct nova_rejoin *rejoin = arg;
	struct nova_error err;

	if (nova_source_dial(rejoin->source, &err) < 0)
		again(rejoin, &err);
}

/* The hypervisor was told: its events say how it goes on. */
static void streaming(void *arg, json_t *result, const struct nova_error *err)
{
	struct nova_rejoin *rejoin = arg;
	struct nova_source *source = rejoin->source;

	rejoin->op = NULL;
	if (err) {
		again(rejoin, err);
		return;
	}
	if (json_is_true(json_object_get(result, "complete"))) {
		source->completed = true;
		nova_run_done(source->job->run);
	} else if (rejoin->active) {
		nova_rejoin_done(source);
	}
}

static void recovered(void *arg, json_t *result, const struct nova_error *err)
{
	struct nova_rejoin *rejoin = arg;
	struct nova_source *source = rejoin->source;
	struct nova_job *job = source->job;
	NOVA_AUTOJSON json_t *args = NULL;
	struct nova_error why;

	rejoin->op = NULL;
	if (err && err->category == NOVA_REFUSED) { /* the guest is gone over there */
		source->unwanted = true;
		nova_run_fail(job->run, err);
		return;
	}
	if (err) {
		again(rejoin, err);
		return;
	}
	if (json_is_true(json_object_get(result, "complete"))) { /* it had all, and could not say so any more */
		source->completed = true;
		nova_run_done(job->run);
		return;
	}
	if (nova_source_listen(source, &why) < 0) {
		again(rejoin, &why);
		return;
	}
	args = json_pack("{s:s, s:b}", "path", source->path, "resume", 1);
	rejoin->op = nova_slot_call(job->slot, NOVA_VERB_OUT_START, &job->entry->guest, args, streaming, rejoin, &why);
	if (!rejoin->op)
		again(rejoin, &why);
}

void nova_rejoin_session_up(struct nova_source *source)
{
	struct nova_rejoin *rejoin = source->rejoin;
	NOVA_AUTOJSON json_t *args = json_pack("{s:s, s:s, s:s}", "token", source->job->token, "guest",
	    source->job->guest_name, "uuid", source->job->entry ? source->job->entry->uuid : "");
	struct nova_error err;

	rejoin->op =
	    source->ops->request(source->session, "recover", args, RECOVER_LIMIT_MS, recovered, rejoin, &err);
	if (!rejoin->op)
		again(rejoin, &err);
}

void nova_rejoin_done(struct nova_source *source)
{
	if (!source->rejoin)
		return;
	source->rejoin->active = true;
	if (source->rejoin->op)
		return;
	nova_host_log(source->job->host, NOVA_LOG_INFO, "%s: the rest of guest %s follows to %s again after %lld s",
	    source->job->id, source->job->guest_name, source->job->peer,
	    (long long)nova_rejoin_waited_ms(source) / 1000);
	evtimer_del(source->rejoin->timer);
	source->spare_rejoin = nova_take(&source->rejoin);
}

struct nova_rejoin *nova_rejoin_new(struct nova_source *source)
{
	struct nova_rejoin *rejoin = calloc(1, sizeof(*rejoin));

	if (!rejoin)
		return NULL;
	rejoin->source = source;
	rejoin->timer = evtimer_new(source->job->host->base, try_now, rejoin);
	if (rejoin->timer)
		return rejoin;
	free(rejoin);
	return NULL;
}

void nova_rejoin_start(struct nova_source *source, const struct nova_error *why)
{
	struct nova_job *job = source->job;
	const struct timeval first = nova_timeval_ms(TRY_FIRST_MS);
	struct nova_rejoin *rejoin = source->rejoin;
	struct nova_error err;

	if (rejoin) {
		if (!evtimer_pending(rejoin->timer, NULL))
			again(rejoin, why);
		return;
	}
	nova_host_log(job->host, NOVA_LOG_WARNING,
	    "%s: %s; guest %s runs there, and pages that it may need are here: both stay, %s is dialled until it answers",
	    job->id, why->text, job->guest_name, job->peer);
	nova_source_stop_stream(source);
	source->session = source->ops->free(source->session);
	source->reconnect_limit_ms = 0;
	rejoin = nova_take(&source->spare_rejoin);
	rejoin->told = rejoin->active = false;
	rejoin->since_ms = nova_now_ms();
	rejoin->wait_ms = TRY_FIRST_MS;
	source->rejoin = rejoin;
	event_add(rejoin->timer, &first);
	if (!source->tick && nova_watch_start(source, &err) < 0)
		nova_host_log(job->host, NOVA_LOG_WARNING, "%s: %s", job->id, err.text);
}
