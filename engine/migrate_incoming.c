/* SPDX-License-Identifier: Apache-2.0
 *
 * migrate_incoming.c - sessions that peers open, and what they ask over them: reserve, commit, abort, outcome, recover.
 * Whatever a peer says is checked here; what it starts are the rows of migrate_dest.c.
 */
#include "config.h"
#include "replicate.h"

#include "migrate_dest.h"

#include "cleanup.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- requests of the source ---- */

typedef int (*request_fn)(struct nova_incoming *incoming, json_t *args, struct nova_request *request,
    struct nova_error *err);

/* {subjects: [...]}: who may connect to the guest's own port */
static int check_direct(const json_t *direct)
{
	const json_t *subjects = json_object_get(direct, "subjects"), *subject;
	size_t i;

	json_array_foreach (subjects, i, subject)
		if (!json_is_string(subject) || !json_string_length(subject) || json_string_length(subject) > 512)
			return -1;
	return json_array_size(subjects) >= 1 && json_array_size(subjects) <= 4 ? 0 : -1;
}

static int check_reserve(const json_t *args, struct nova_error *err)
{
	static const char *const texts[] = { "token", "guest", "uuid", "owner", "driver", "mode" };

	for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++)
		if (!json_is_string(json_object_get(args, texts[i])))
			return nova_error_set(err, NOVA_INVALID, "reserve: %s must be a text", texts[i]);
	if (strlen(nova_text_of(args, "token")) != 32 || strspn(nova_text_of(args, "token"), "0123456789abcdef") != 32)
		return nova_error_set(err, NOVA_INVALID, "reserve: token must be 32 hexadecimal digits");
	if (strlen(nova_text_of(args, "uuid")) != 36)
		return nova_error_set(err, NOVA_INVALID, "reserve: uuid must have 36 characters");
	if (!json_is_object(json_object_get(args, "spec")))
		return nova_error_set(err, NOVA_INVALID, "reserve: spec must be an object");
	if (json_object_get(args, "direct") && check_direct(json_object_get(args, "direct")) < 0)
		return nova_error_set(err, NOVA_INVALID, "reserve: direct must name 1 to 4 subjects of certificates");
	if (json_object_get(args, "contents") && !json_is_object(json_object_get(args, "contents")))
		return nova_error_set(err, NOVA_INVALID, "reserve: contents must be an object");
	if (json_integer_value(json_object_get(args, "disks")) < 0 ||
	    json_integer_value(json_object_get(args, "disks")) > NOVA_DISKS_MAX)
		return nova_error_set(err, NOVA_INVALID, "reserve: disks must be 0 to %d", NOVA_DISKS_MAX);
	if (json_integer_value(json_object_get(args, "memory_bytes")) < 0 ||
	    json_integer_value(json_object_get(args, "memory_bytes")) > (json_int_t)1 << 46)
		return nova_error_set(err, NOVA_INVALID, "reserve: memory_bytes must be 0 to 64 TiB");
	if (json_integer_value(json_object_get(args, "history_bytes")) < 0 ||
	    json_integer_value(json_object_get(args, "history_bytes")) > (json_int_t)1 << 36)
		return nova_error_set(err, NOVA_INVALID, "reserve: history_bytes must be 0 to 64 GiB");
	return nova_guest_name_check(nova_text_of(args, "guest"), err);
}

static int came_here(void *arg, const struct nova_job_row *row)
{
	return row->side && !strcmp(row->side, "destination") ? -2 : 0;
}

/* A token means one migration for ever: what was decided of an older one must not count for this. */
static int check_new(struct nova_host *host, const char *token, struct nova_error *err)
{
	enum nova_decision decision;
	int found = nova_store_job_find(host->store, NULL, token, came_here, NULL, err);

	if (found == -1 || nova_store_decision(host->store, token, &decision, err) < 0)
		return -1;
	if (found == 0 && decision == NOVA_UNDECIDED)
		return 0;
	return nova_error_set(err, NOVA_INVALID, "reserve: this token was used before");
}

static int reserve(struct nova_incoming *incoming, json_t *args, struct nova_request *request, struct nova_error *err)
{
	struct nova_host *host = incoming->host;
	struct nova_identity who = { .role = NOVA_ROLE_OPERATOR };
	struct nova_slot *slot;
	struct nova_job *job;
	struct nova_dest *dest;

	if (check_reserve(args, err) < 0)
		return -1;
	if (incoming->job)
		return nova_error_set(err, NOVA_STATE, "this session has a reservation already");
	if (check_new(host, nova_text_of(args, "token"), err) < 0)
		return -1;
	slot = nova_slot_find(host, nova_text_of(args, "driver"), err);
	if (!slot)
		return -1;
	snprintf(who.name, sizeof(who.name), "%s", incoming->peer);
	snprintf(who.from, sizeof(who.from), "peer %s", incoming->peer);
	job = nova_job_new(host, "migrate", "destination", &who, nova_text_of(args, "guest"), args, err);
	if (!job)
		return -1;
	snprintf(job->peer, sizeof(job->peer), "%s", incoming->peer);
	snprintf(job->token, sizeof(job->token), "%s", nova_text_of(args, "token"));
	nova_job_set_owner(job, nova_text_of(args, "owner"));
	job->slot = slot;
	dest = nova_dest_of(job);
	if (!dest) {
		nova_job_free(job);
		return nova_error_sys(err, ENOMEM, "reservation");
	}
	dest->incoming = incoming;
	incoming->job = job;
	if (nova_job_start(job, nova_dest_steps, NULL, false, err) < 0)
		return -1;
	dest->reserve = request;
	return 0;
}

/* Every reservation that is asked for is on record, and what became of it. */
static int on_reserve(struct nova_incoming *incoming, json_t *args, struct nova_request *request, struct nova_error *err)
{
	struct nova_identity who = { .role = NOVA_ROLE_NONE };
	int result = reserve(incoming, args, request, err);
	json_t *record = json_pack("{s:s, s:s, s:s, s:s, s:s}", "decision", "reserve", "guest", nova_text_of(args, "guest"), "owner",
	    nova_text_of(args, "owner"), "mode", nova_text_of(args, "mode"), "outcome",
	    result < 0 ? nova_category_name(err->category) : "accepted");

	if (result < 0)
		json_object_set_new(record, "error", json_string(err->text));
	snprintf(who.name, sizeof(who.name), "peer %s", incoming->peer);
	snprintf(who.from, sizeof(who.from), "tls %.100s", incoming->ops->from(incoming->session));
	nova_host_audit(incoming->host, &who, record);
	return result;
}

static struct nova_dest *dest_for(struct nova_incoming *incoming, const json_t *args, struct nova_error *err)
{
	struct nova_job *job = incoming->job;

	if (job && !strcmp(job->token, nova_text_of(args, "token")))
		return job->ctx;
	nova_error_set(err, NOVA_REFUSED, "there is no reservation for this migration on %s",
	    nova_host_name(incoming->host));
	return NULL;
}

static int on_commit(struct nova_incoming *incoming, json_t *args, struct nova_request *request, struct nova_error *err)
{
	struct nova_dest *dest = dest_for(incoming, args, err);

	if (!dest)
		return -1;
	if (dest->commit || !dest->job->run || nova_run_undoing(dest->job->run))
		return nova_error_set(err, NOVA_REFUSED, "%s has given this migration up", nova_host_name(incoming->host));
	dest->commit_args = json_incref(args);
	dest->commit = request;
	nova_dest_look(dest);
	return 0;
}

static int on_abort(struct nova_incoming *incoming, json_t *args, struct nova_request *request, struct nova_error *err)
{
	struct nova_error why, ignored;
	struct nova_dest *dest = dest_for(incoming, args, &ignored);

	if (!dest) { /* nothing is reserved: that is what was asked for */
		incoming->ops->answer(request, NULL, NULL);
		return 0;
	}
	nova_error_set(&why, NOVA_CANCELLED, "the source gave up");
	if (!nova_run_undoing(dest->job->run) && nova_run_cancel(dest->job->run, &why, err) < 0)
		return -1;
	dest->abort = request;
	return 0;
}

static int belongs_to(void *peer, const struct nova_job_row *row)
{
	return row->peer && !strcmp(row->peer, peer) && row->side && !strcmp(row->side, "destination") ? -2 : 0;
}

/* Nothing was decided in a journal that has no line of this migration: another journal may have known better. */
static int check_known(struct nova_incoming *incoming, const char *token, struct nova_error *err)
{
	int found = nova_store_job_find(incoming->host->store, NULL, token, belongs_to, incoming->peer, err);

	if (found == -2)
		return 0;
	return found < 0 ? -1 :
			   nova_error_set(err, NOVA_STATE,
			       "the journal of %s knows nothing of this migration from %s (it was renewed since?)",
			       nova_host_name(incoming->host), incoming->peer);
}

/* What was decided. Undecided becomes aborted before it is told, so that it stays true. */
static int on_outcome(struct nova_incoming *incoming, json_t *args, struct nova_request *request, struct nova_error *err)
{
	struct nova_host *host = incoming->host;
	const char *token = nova_text_of(args, "token");
	struct nova_job *job = nova_job_by_token(host, "destination", token);
	enum nova_decision decision;
	struct nova_error why;

	if (strlen(token) != 32)
		return nova_error_set(err, NOVA_INVALID, "outcome: token must be 32 hexadecimal digits");
	if (nova_store_decision(host->store, token, &decision, err) < 0)
		return -1;
	if (decision == NOVA_UNDECIDED) {
		if (check_known(incoming, token, err) < 0)
			return -1;
		decision = NOVA_ABORTED;
		if (nova_store_decide(host->store, token, decision, err) < 0)
			return -1;
		nova_error_set(&why, NOVA_CANCELLED, "the source asked for the outcome before it was decided");
		if (job)
			nova_job_give_up(job, &why);
	}
	incoming->ops->answer(request, json_pack("{s:s}", "decision", nova_decision_name(decision)), NULL);
	return 0;
}

/* No job is open for it: either the guest has all and runs, or it is gone. */
static int recover_ended(struct nova_incoming *incoming, json_t *args, struct nova_request *request, struct nova_error *err)
{
	struct nova_host *host = incoming->host;
	struct nova_entry *entry = nova_entry_find(host, nova_text_of(args, "guest"));
	enum nova_decision decision;

	if (host->recovery) /* the job may be open, and the guest may lack pages */
		return nova_error_set(err, NOVA_STATE, "%s was just started and still looks for its guests: ask again", nova_host_name(host));
	if (nova_store_decision(host->store, nova_text_of(args, "token"), &decision, err) < 0)
		return -1;
	if (decision == NOVA_COMMITTED && entry && !strcmp(entry->uuid, nova_text_of(args, "uuid")) &&
	    (entry->guest.state == NOVA_GUEST_RUNNING || entry->guest.state == NOVA_GUEST_PAUSED)) {
		incoming->ops->answer(request, json_pack("{s:b}", "complete", 1), NULL);
		return 0;
	}
	return nova_error_set(err, NOVA_REFUSED, "guest %s ended on %s: the rest of it is of no use", nova_text_of(args, "guest"),
	    nova_host_name(host));
}

/* A postcopy lost its stream; over this session comes the rest. */
static int on_recover(struct nova_incoming *incoming, json_t *args, struct nova_request *request, struct nova_error *err)
{
	struct nova_job *job = nova_job_by_token(incoming->host, "destination", nova_text_of(args, "token"));
	struct nova_dest *dest = job ? job->ctx : NULL;

	if (!job)
		return recover_ended(incoming, args, request, err);
	if (strcmp(job->peer, incoming->peer) || (incoming->job && incoming->job != job))
		return nova_error_set(err, NOVA_INVALID, "recover: this migration is not one of this session's");
	if (!nova_dest_drains(job) || !dest->postcopy || dest->recover)
		return nova_error_set(err, NOVA_STATE, "guest %s is not ready for its rest yet", job->guest_name);
	if (dest->incoming)
		dest->incoming->job = NULL; /* the old session, which has not noticed */
	dest->incoming = incoming;
	incoming->job = job;
	if (nova_dest_prepare_for_rest(dest, err) < 0)
		return -1;
	dest->recover = request;
	return 0;
}

static int on_about(struct nova_incoming *incoming, json_t *args, struct nova_request *request, struct nova_error *err)
{
	struct nova_host *host = incoming->host;
	json_t *drivers = json_array();

	for (size_t i = 0; i < host->slot_count; i++)
		if (host->slots[i].self)
			json_array_append_new(drivers, json_string(host->slots[i].ops->name));
	incoming->ops->answer(request,
	    json_pack("{s:s, s:s, s:s, s:o}", "name", nova_host_name(host), "version", PACKAGE_VERSION, "uuid",
		nova_store_host_uuid(host->store), "drivers", drivers),
	    NULL);
	return 0;
}

static void incoming_free(struct nova_incoming *incoming);

static void remote_lost(void *arg)
{
	incoming_free(arg);
}

/* A command, by whoever the certificate says: a peer has no role unless the configuration gives it one. */
static int on_remote(struct nova_incoming *incoming, const char *command, json_t *args, struct nova_request *request,
    struct nova_error *err)
{
	if (incoming->job)
		return nova_error_set(err, NOVA_STATE, "this session carries a migration: commands take another one");
	if (!incoming->remote)
		incoming->remote = nova_remote_new(incoming->host, incoming->session, incoming->peer, remote_lost, incoming);
	if (!incoming->remote)
		return nova_error_sys(err, ENOMEM, "commands of %s", incoming->ops->from(incoming->session));
	return nova_remote_request(incoming->remote, command, args, request, err);
}

static const struct {
	const char *name;
	request_fn fn;
} requests[] = {
	{ "about", on_about },
	{ "reserve", on_reserve },
	{ "commit", on_commit },
	{ "abort", on_abort },
	{ "outcome", on_outcome },
	{ "recover", on_recover },
};

/* ---- sessions ---- */

static void session_up(void *arg, const char *peer)
{
}

static void session_request(void *arg, const char *command, json_t *args, struct nova_request *request)
{
	struct nova_incoming *incoming = arg;
	struct nova_error err;

	if (!strcmp(command, "execute") || !strcmp(command, "events")) {
		if (on_remote(incoming, command, args, request, &err) < 0)
			incoming->ops->answer(request, NULL, &err);
		return;
	}
	if (!strncmp(command, "replica-", 8) && incoming->peer[0] && !incoming->job) {
		if (nova_replica_request(incoming->host, incoming->peer, incoming->ops->from(incoming->session), &incoming->reception,
			command, args, request, &err) < 0)
			incoming->ops->answer(request, NULL, &err);
		return;
	}
	nova_error_set(&err, NOVA_INVALID, "%s does not know the request '%.40s'", nova_host_name(incoming->host), command);
	if (!incoming->peer[0])
		nova_error_set(&err, NOVA_REFUSED, "%.40s is for hosts that are peers of %s", command,
		    nova_host_name(incoming->host));
	for (size_t i = 0; i < sizeof(requests) / sizeof(*requests) && incoming->peer[0]; i++)
		if (!strcmp(requests[i].name, command)) {
			if (requests[i].fn(incoming, args, request, &err) < 0)
				break;
			return;
		}
	incoming->ops->answer(request, NULL, &err);
}

static void session_channel(void *arg, uint16_t id, enum nova_channel_kind kind, struct nova_channel *channel)
{
	struct nova_incoming *incoming = arg;
	struct nova_dest *dest = incoming->job ? incoming->job->ctx : NULL;
	struct nova_error why;

	bool expected = dest && (nova_job_at(incoming->job, "receive") || (nova_dest_drains(incoming->job) && dest->path));

	if (id == NOVA_PROBE_CHANNEL && !incoming->job) {
		nova_probe_accept(incoming->ops, channel);
		return;
	}
	if (kind == NOVA_CHANNEL_DISK && incoming->reception) {
		nova_reception_channel(incoming->reception, id, channel);
		return;
	}
	if (id == NOVA_BASELINE_CHANNEL && dest && nova_job_at(incoming->job, "receive")) {
		nova_base_use_send(dest->base, channel);
		return;
	}
	if (kind == NOVA_CHANNEL_DISK && dest && dest->disks && nova_job_at(incoming->job, "receive")) {
		if (nova_disks_in_channel(dest->disks, id, channel, &why) < 0)
			nova_job_give_up(incoming->job, &why);
		return;
	}
	if (id != NOVA_STREAM_CHANNEL || !expected || dest->direct || dest->pipe || dest->decoder) {
		channel->ops->free(channel);
		return;
	}
	dest->channel = channel;
	if (nova_dest_open_pipe(dest, &why) < 0)
		nova_job_give_up(incoming->job, &why);
}

static void session_state(void *arg, const char *state, json_t *data)
{
	struct nova_incoming *incoming = arg;

	nova_host_log(incoming->host, NOVA_LOG_INFO, "link from %s: %s",
	    incoming->peer[0] ? incoming->peer : incoming->ops->from(incoming->session), state);
}

static void incoming_free(struct nova_incoming *incoming)
{
	TAILQ_REMOVE(&incoming->host->incomings, incoming, link);
	if (incoming->reception)
		nova_reception_drop(nova_reception_replica(incoming->reception));
	nova_remote_free(incoming->remote);
	incoming->ops->free(incoming->session);
	free(incoming);
}

static void session_closed(void *arg, const struct nova_error *err)
{
	struct nova_incoming *incoming = arg;
	struct nova_job *job = incoming->job;
	struct nova_error why = *err;

	if (incoming->reception) {
		nova_error_prefix(&why, "link from %s", incoming->peer);
		nova_reception_lost(nova_take(&incoming->reception), &why);
	}
	if (job) {
		struct nova_dest *dest = job->ctx;

		nova_error_prefix(&why, "link from %s", incoming->peer);
		dest->incoming = NULL;
		if (nova_dest_drains(job) && dest->loaded)
			nova_run_done(job->run);
		else if (nova_dest_drains(job))
			nova_dest_stream_lost(dest, &why);
		else
			nova_job_give_up(job, &why);
	}
	incoming_free(incoming);
}

static const struct nova_session_events session_events = { session_up, session_request, session_channel, session_state,
	session_closed };

void nova_migrate_accept(void *arg, struct nova_session *session, const char *peer)
{
	struct nova_host *host = arg;
	struct nova_incoming *incoming = calloc(1, sizeof(*incoming));

	if (!incoming)
		return; /* without events the session is refused */
	incoming->host = host;
	incoming->ops = host->plugins->links;
	incoming->session = session;
	snprintf(incoming->peer, sizeof(incoming->peer), "%s", peer ? peer : "");
	TAILQ_INSERT_TAIL(&host->incomings, incoming, link);
	incoming->ops->set_events(session, &session_events, incoming);
}

void nova_incoming_close_all(struct nova_host *host)
{
	while (!TAILQ_EMPTY(&host->incomings))
		incoming_free(TAILQ_FIRST(&host->incomings));
}
