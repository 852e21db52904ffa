/* SPDX-License-Identifier: Apache-2.0
 *
 * migrate_doubt.c - the commit was sent and its answer did not come: the guest stays paused on both sides
 * and the source asks the destination, again and again, until it answers or an operator decides.
 */
#include "cleanup.h"
#include "migrate.h"

#include <errno.h>
#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ASK_FIRST_MS 500
#define ASK_MOST_MS 15000 /* between two tries, after doubling */

struct nova_doubt {
	struct nova_job *job;         /* borrowed */
	struct nova_session *session; /* owned: a try under way */
	struct nova_op *op;           /* owned */
	struct event *timer;          /* owned */
	int wait_ms, tries;
	char last[200];               /* why the last try failed */
};

static const struct nova_link_ops *ops_of(const struct nova_doubt *doubt)
{
	return doubt->job->host->plugins->links;
}

void nova_doubt_free(struct nova_doubt *doubt)
{
	if (!doubt)
		return;
	nova_op_drop(doubt->op);
	ops_of(doubt)->free(doubt->session);
	if (doubt->timer)
		event_free(doubt->timer);
	free(doubt);
}

static void again(struct nova_doubt *doubt, const struct nova_error *err)
{
	struct timeval wait = nova_timeval_ms(doubt->wait_ms);

	if (err)
		snprintf(doubt->last, sizeof(doubt->last), "%.199s", err->text);
	if (err)
		nova_host_log(doubt->job->host, NOVA_LOG_WARNING, "%s is in doubt, %s was asked: %s", doubt->job->id,
		    doubt->job->peer, err->text);
	nova_op_drop(nova_take(&doubt->op));
	doubt->session = ops_of(doubt)->free(doubt->session);
	doubt->wait_ms = doubt->wait_ms * 2 > ASK_MOST_MS ? ASK_MOST_MS : doubt->wait_ms * 2;
	event_add(doubt->timer, &wait);
}

static void decided(void *arg, json_t *result, const struct nova_error *err)
{
	struct nova_doubt *doubt = arg;
	const char *decision = json_string_value(json_object_get(result, "decision"));

	bool committed = decision && !strcmp(decision, nova_decision_name(NOVA_COMMITTED));
	struct nova_error nonsense;

	doubt->op = NULL;
	nova_error_set(&nonsense, NOVA_REFUSED, "its answer is neither committed nor aborted");
	if (err)
		again(doubt, err);
	else if (committed || (decision && !strcmp(decision, nova_decision_name(NOVA_ABORTED))))
		nova_doubt_end(doubt->job, committed);
	else
		again(doubt, &nonsense);
}

static void up(void *arg, const char *peer)
{
	struct nova_doubt *doubt = arg;
	NOVA_AUTOJSON json_t *args = json_pack("{s:s}", "token", doubt->job->token);
	struct nova_error err;

	json_object_set_new(doubt->job->report, "peer_heard_ms", json_integer(nova_wall_ms()));
	doubt->op = ops_of(doubt)->request(doubt->session, "outcome", args, 10000, decided, doubt, &err);
	if (!doubt->op)
		again(doubt, &err);
}

static void request(void *arg, const char *command, json_t *args, struct nova_request *what)
{
	struct nova_doubt *doubt = arg;
	struct nova_error err;

	nova_error_set(&err, NOVA_INVALID, "not now");
	ops_of(doubt)->answer(what, NULL, &err);
}

static void channel(void *arg, uint16_t id, enum nova_channel_kind kind, struct nova_channel *what)
{
	what->ops->free(what);
}

static void state(void *arg, const char *what, json_t *data)
{
}

static void closed(void *arg, const struct nova_error *err)
{
	again(arg, err);
}

static const struct nova_session_events events = { up, request, channel, state, closed };

static void ask(evutil_socket_t fd, short what, void *arg)
{
	struct nova_doubt *doubt = arg;
	const struct nova_session_options options = { 0 };
	struct nova_error err;

	doubt->tries++;
	nova_error_set(&err, NOVA_STATE, "this daemon has no link to peers");
	if (doubt->job->host->links)
		doubt->session =
		    ops_of(doubt)->dial(doubt->job->host->links, doubt->job->peer, &options, &events, doubt, &err);
	if (!doubt->session)
		again(doubt, &err);
}

struct nova_doubt *nova_doubt_new(struct nova_job *job)
{
	struct nova_doubt *doubt = calloc(1, sizeof(*doubt));

	if (!doubt)
		return NULL;
	doubt->job = job;
	doubt->wait_ms = ASK_FIRST_MS;
	doubt->timer = evtimer_new(job->host->base, ask, doubt);
	if (doubt->timer)
		return doubt;
	free(doubt);
	return NULL;
}

void nova_doubt_start(struct nova_job *job)
{
	struct nova_source *source = nova_source_of(job);
	struct nova_doubt *doubt = source ? nova_take(&source->spare_doubt) : NULL;
	const struct timeval wait = nova_timeval_ms(ASK_FIRST_MS);

	if (!doubt) {
		nova_host_log(job->host, NOVA_LOG_ERROR, "%s is in doubt, and there is no memory to ask: restart, or resolve it",
		    job->id);
		return;
	}
	nova_source_stop_pipe(source);
	source->disks = nova_disks_free(source->disks);
	source->session = source->ops->free(source->session);
	source->doubt = doubt;
	evtimer_add(doubt->timer, &wait);
}

void nova_doubt_end(struct nova_job *job, bool committed)
{
	struct nova_source *source = job->ctx;
	const enum nova_guest_state as_it_was = source->mode == NOVA_COLD ? NOVA_GUEST_STOPPED : NOVA_GUEST_MIGRATED;
	struct nova_error err;

	nova_host_log(job->host, NOVA_LOG_INFO, "%s is no longer in doubt: %s", job->id,
	    committed ? "the guest runs at the destination" : "the guest stays here");
	nova_doubt_free(nova_take(&source->doubt));
	if (job->entry)
		nova_guest_set_state(&job->entry->guest, as_it_was, NULL);
	json_object_set_new(job->report, "in_doubt", json_true());
	if (nova_job_start(job, nova_source_steps, committed ? "drain" : "handover", !committed, &err) < 0)
		nova_host_log(job->host, NOVA_LOG_ERROR, "%s", err.text);
}

int nova_doubt_tries(const struct nova_doubt *doubt)
{
	return doubt->tries;
}

const char *nova_doubt_error(const struct nova_doubt *doubt)
{
	return doubt->last;
}

bool nova_job_in_doubt(const struct nova_job *job)
{
	const struct nova_source *source = job->ctx;

	return !strcmp(job->kind, "migrate") && !strcmp(job->side, "source") && source && source->doubt;
}

int nova_migrate_resolve(struct nova_job *job, bool keep_source, struct nova_error *err)
{
	if (!nova_job_in_doubt(job))
		return nova_error_set(err, NOVA_STATE, "job %s is not in doubt: nothing to resolve", job->id);
	json_object_set_new(job->report, "resolved", json_string(keep_source ? "source" : "destination"));
	nova_doubt_end(job, !keep_source);
	return 0;
}
