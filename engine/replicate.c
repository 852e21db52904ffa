/* SPDX-License-Identifier: Apache-2.0
 *
 * replicate.c - replications of guests that run here: when points are due, whether they are late, and the command
 * `replicate`. See replicate.h. How a point is made is in replicate_point.c.
 *
 * A replication stands in the journal as one object. A restarted daemon waits until its guest is found again, and goes
 * on with the next point.
 */
#include "replicate.h"

#include "cleanup.h"
#include "migrate.h"
#include "pace.h"

#include <errno.h>
#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define KEY "source/"

static const char *const state_names[] = { "active", "paused", "handed-over" };

const char *nova_replicate_state_name(enum nova_replicate_state state)
{
	return state_names[state];
}

static const char *text_of(const json_t *object, const char *name)
{
	const char *text = json_string_value(json_object_get(object, name));

	return text ? text : "";
}

struct nova_replicate *nova_replicate_find(struct nova_host *host, const char *guest)
{
	struct nova_replicate *replicate;

	TAILQ_FOREACH (replicate, &host->replicates, link)
		if (!strcmp(replicate->guest, guest) && !replicate->deleted)
			return replicate;
	return NULL;
}

int nova_replicate_save(struct nova_replicate *replicate, struct nova_error *err)
{
	char key[64];

	snprintf(key, sizeof(key), KEY "%s", replicate->token);
	json_object_set_new(replicate->body, "state", json_string(state_names[replicate->state]));
	return nova_store_replica_put(replicate->host->store, key, replicate->body, err);
}

static void save_or_log(struct nova_replicate *replicate)
{
	struct nova_error err;

	if (nova_replicate_save(replicate, &err) < 0)
		nova_host_log(replicate->host, NOVA_LOG_ERROR, "replication of %s: %s", replicate->guest, err.text);
}

/* ---- lag ---- */

static void add_to(json_t *object, const char *name, json_int_t more)
{
	json_object_set_new(object, name, json_integer(json_integer_value(json_object_get(object, name)) + more));
}

/* Age of the newest point over there; -1: there is none. */
static int64_t lag_ms(const struct nova_replicate *replicate)
{
	int64_t lag = nova_wall_ms() - replicate->taken_ms;

	return !replicate->taken_ms ? -1 : lag > 0 ? lag : 0;
}

static void became_late(struct nova_replicate *replicate)
{
	struct nova_host *host = replicate->host;

	replicate->late = true;
	add_to(replicate->body, "violations", 1);
	nova_metrics_add(host->metrics, "novacron_replica_violations_total", replicate->guest, 1);
	nova_host_log(host, NOVA_LOG_WARNING, "replication of %s to %s is late: the newest point there is %lld ms old",
	    replicate->guest, replicate->peer, (long long)lag_ms(replicate));
	nova_host_emit(host, "REPLICA_LATE",
	    json_pack("{s:s, s:s, s:s, s:I, s:I, s:s*}", "guest", replicate->guest, "owner", replicate->owner, "peer",
		replicate->peer, "lag_ms", (json_int_t)lag_ms(replicate), "every_ms", (json_int_t)replicate->every_ms, "error",
		json_string_value(json_object_get(replicate->body, "error"))));
}

static void watch(evutil_socket_t fd, short what, void *arg)
{
	struct nova_replicate *replicate = arg;
	int64_t lag = lag_ms(replicate);

	if (lag < 0 || replicate->state == NOVA_REPLICATE_HANDED_OVER)
		return;
	nova_metrics_set(replicate->host->metrics, "novacron_replica_lag_ms", replicate->guest, (double)lag);
	if (!replicate->late && replicate->state == NOVA_REPLICATE_ACTIVE &&
	    nova_pace_late(replicate->every_ms, replicate->taken_ms, nova_wall_ms()))
		became_late(replicate);
}

/* ---- when ---- */

static void begin(evutil_socket_t fd, short what, void *arg)
{
	struct nova_replicate *replicate = arg;
	struct nova_entry *entry = nova_entry_find(replicate->host, replicate->guest);
	struct nova_error err;

	if (replicate->attempt || replicate->state != NOVA_REPLICATE_ACTIVE)
		return;
	replicate->begun_ms = nova_now_ms();
	if (!entry)
		nova_error_set(&err, NOVA_STATE, "guest %s is not on this host", replicate->guest);
	else if (entry->attaching)
		nova_error_set(&err, NOVA_STATE, "guest %s is still being looked for", replicate->guest);
	else if (entry->job && !replicate->handover)
		nova_error_set(&err, NOVA_STATE, "guest %s is busy with %s %s", replicate->guest, entry->job->kind, entry->job->id);
	else if (entry->guest.state != NOVA_GUEST_RUNNING && entry->guest.state != NOVA_GUEST_PAUSED)
		nova_error_set(&err, NOVA_STATE, "guest %s is %s: nobody writes its disks", replicate->guest,
		    nova_guest_state_name(entry->guest.state));
	else if (nova_attempt_start(replicate, &err) == 0)
		return;
	nova_replicate_ended(replicate, NULL, &err);
}

void nova_replicate_pace(struct nova_replicate *replicate)
{
	int64_t now = nova_now_ms();
	int64_t wait = nova_pace_next(replicate->every_ms, replicate->begun_ms, now, replicate->failures) - now;
	struct timeval delay = nova_timeval_ms(wait);

	if (replicate->stopped_ms && !replicate->failures)
		delay = (struct timeval) { 0, 0 };
	if (replicate->state == NOVA_REPLICATE_ACTIVE && !replicate->attempt)
		event_add(replicate->timer, &delay);
}

static void failed(struct nova_replicate *replicate, const struct nova_error *err)
{
	bool news = strcmp(text_of(replicate->body, "error"), err->text) != 0;

	replicate->failures++;
	add_to(replicate->body, "failures", 1);
	json_object_set_new(replicate->body, "error", json_string(err->text));
	nova_metrics_add(replicate->host->metrics, "novacron_replica_failures_total", replicate->guest, 1);
	nova_host_log(replicate->host, news ? NOVA_LOG_WARNING : NOVA_LOG_DEBUG, "replication of %s to %s: %s", replicate->guest,
	    replicate->peer, err->text);
	if (news)
		nova_host_emit(replicate->host, "REPLICA_ERROR",
		    json_pack("{s:s, s:s, s:s, s:s}", "guest", replicate->guest, "owner", replicate->owner, "peer", replicate->peer,
			"error", err->text));
}

static void made(struct nova_replicate *replicate, json_t *point)
{
	struct nova_host *host = replicate->host;
	json_int_t taken = json_integer_value(json_object_get(point, "taken_ms"));
	json_int_t before = replicate->taken_ms ? replicate->taken_ms : taken, now = nova_wall_ms();

	json_object_set_new(point, "rpo_ms", json_integer(now - before)); /* what a disaster just before would have lost */
	replicate->newest = json_integer_value(json_object_get(point, "point"));
	replicate->taken_ms = taken;
	replicate->late = false;
	add_to(replicate->body, "points", 1);
	json_object_set(replicate->body, "last", point);
	nova_metrics_add(host->metrics, "novacron_replica_points_total", replicate->guest, 1);
	nova_metrics_set(host->metrics, "novacron_replica_rpo_ms", replicate->guest, (double)(now - before));
	point = json_deep_copy(point);
	json_object_set_new(point, "guest", json_string(replicate->guest));
	json_object_set_new(point, "owner", json_string(replicate->owner));
	json_object_set_new(point, "peer", json_string(replicate->peer));
	nova_host_emit(host, "REPLICA_POINT", point);
}

void nova_replicate_ended(struct nova_replicate *replicate, json_t *point, const struct nova_error *err)
{
	bool base = !strcmp(text_of(point, "kind"), "base");
	json_int_t wire = json_integer_value(json_object_get(point, "wire_bytes"));

	if (point) {
		replicate->failures = 0;
		json_object_del(replicate->body, "error");
		add_to(replicate->body, "wire_bytes", wire);
		nova_metrics_add(replicate->host->metrics, "novacron_replica_wire_bytes_total", replicate->guest, (double)wire);
		if (!base)
			made(replicate, point);
	} else if (err) {
		failed(replicate, err);
	}
	if (base) /* what stands on it follows at once */
		replicate->begun_ms = -1;
	save_or_log(replicate);
	if (!point && err)
		nova_handover_failed(replicate, err);
	else if (point && !base && nova_handover_point(replicate, point))
		return;
	nova_replicate_pace(replicate);
}

void nova_replicate_set_state(struct nova_replicate *replicate, enum nova_replicate_state state, const char *why)
{
	nova_host_log(replicate->host, NOVA_LOG_INFO, "replication of %s to %s: %s: %s", replicate->guest, replicate->peer,
	    state_names[state], why);
	replicate->state = state;
	if (state != NOVA_REPLICATE_ACTIVE) {
		event_del(replicate->timer);
		nova_attempt_cancel(replicate);
	}
	save_or_log(replicate);
	nova_host_emit(replicate->host, "REPLICA_STATE",
	    json_pack("{s:s, s:s, s:s, s:s, s:s}", "guest", replicate->guest, "owner", replicate->owner, "peer", replicate->peer,
		"state", state_names[state], "why", why));
}

enum nova_step_result nova_points_row(struct nova_run *run, void *ctx, struct nova_error *err)
{
	const struct nova_job *job = ctx;
	const struct nova_replicate *replicate = nova_replicate_find(job->host, job->guest_name);

	if (!replicate || !replicate->attempt)
		return NOVA_STEP_DONE;
	if (!nova_attempt_is_base(replicate))
		return NOVA_STEP_WAIT;
	nova_error_set(err, NOVA_STATE,
	    "all of the disks of guest %s are being copied to %s for its first point: wait for it (novacron replicate show %s), or "
	    "novacron replicate pause %s, and what was copied is lost",
	    job->guest_name, replicate->peer, job->guest_name, job->guest_name);
	return NOVA_STEP_FAILED;
}

void nova_points_rest(struct nova_replicate *replicate)
{
	struct nova_entry *entry = nova_entry_find(replicate->host, replicate->guest);

	if (entry && entry->job && nova_job_at(entry->job, "points"))
		nova_run_done(entry->job->run);
}

static struct nova_replicate *replicate_free(struct nova_replicate *replicate)
{
	struct nova_error why;

	if (!replicate)
		return NULL;
	nova_attempt_drop(replicate);
	nova_op_drop(replicate->stopping);
	nova_error_set(&why, NOVA_CANCELLED, "the replication of guest %s ended", replicate->guest);
	if (replicate->handover)
		replicate->host->plugins->links->answer(replicate->handover, NULL, &why);
	TAILQ_REMOVE(&replicate->host->replicates, replicate, link);
	if (replicate->timer)
		event_free(replicate->timer);
	if (replicate->watch)
		event_free(replicate->watch);
	json_decref(replicate->body);
	json_decref(replicate->spec);
	json_decref(replicate->disks);
	free(replicate);
	return NULL;
}

/* It has moved to its standby, where nobody waits for points of it: they go on when it is back. */
static void rest_if_moved(struct nova_replicate *replicate, const struct nova_entry *entry)
{
	const struct nova_job *job = entry->job;

	if (!job || strcmp(job->kind, "migrate") || strcmp(job->side, "source") || strcmp(job->peer, replicate->peer) ||
	    replicate->state != NOVA_REPLICATE_ACTIVE || replicate->host->closing)
		return;
	json_object_set_new(replicate->body, "moved", json_true());
	nova_replicate_set_state(replicate, NOVA_REPLICATE_HANDED_OVER, "the guest has moved there");
}

void nova_replicates_guest_gone(struct nova_host *host, struct nova_entry *entry)
{
	struct nova_replicate *replicate, *next;

	for (replicate = TAILQ_FIRST(&host->replicates); replicate; replicate = next) {
		next = TAILQ_NEXT(replicate, link);
		if (strcmp(replicate->guest, entry->name))
			continue;
		nova_op_drop(nova_take(&replicate->stopping));
		if (replicate->deleted) {
			replicate_free(replicate);
			continue;
		}
		nova_attempt_drop(replicate);
		rest_if_moved(replicate, entry);
		if (!host->closing)
			nova_replicate_pace(replicate);
	}
}

/* ---- the table ---- */

/* body is borrowed. */
static struct nova_replicate *replicate_new(struct nova_host *host, json_t *body, struct nova_error *err)
{
	const struct timeval second = { 0, 500000 };
	struct nova_replicate *replicate = calloc(1, sizeof(*replicate));
	const json_t *last = json_object_get(body, "last");

	if (!replicate) {
		nova_error_sys(err, ENOMEM, "replication");
		return NULL;
	}
	replicate->host = host;
	TAILQ_INSERT_TAIL(&host->replicates, replicate, link);
	replicate->body = json_deep_copy(body);
	snprintf(replicate->token, sizeof(replicate->token), "%s", text_of(body, "token"));
	snprintf(replicate->guest, sizeof(replicate->guest), "%s", text_of(body, "guest"));
	snprintf(replicate->peer, sizeof(replicate->peer), "%s", text_of(body, "peer"));
	snprintf(replicate->owner, sizeof(replicate->owner), "%s", text_of(body, "owner"));
	for (enum nova_replicate_state state = 0; state < NOVA_REPLICATE_STATES; state++)
		if (!strcmp(text_of(body, "state"), state_names[state]))
			replicate->state = state;
	replicate->every_ms = json_integer_value(json_object_get(body, "every_ms"));
	replicate->rate_bps = (uint64_t)json_integer_value(json_object_get(body, "rate_bps"));
	replicate->keep = json_integer_value(json_object_get(body, "keep"));
	replicate->newest = json_integer_value(json_object_get(last, "point"));
	replicate->taken_ms = json_integer_value(json_object_get(last, "taken_ms"));
	replicate->begun_ms = -1;
	replicate->timer = event_new(host->base, -1, 0, begin, replicate);
	replicate->watch = event_new(host->base, -1, EV_PERSIST, watch, replicate);
	if (replicate->body && replicate->timer && replicate->watch && event_add(replicate->watch, &second) == 0)
		return replicate;
	nova_error_sys(err, ENOMEM, "replication of %s", replicate->guest);
	return replicate_free(replicate);
}

static int load(void *arg, const char *key, json_t *body)
{
	struct nova_host *host = arg;
	struct nova_replicate *replicate;
	struct nova_error err;

	if (strncmp(key, KEY, strlen(KEY)))
		return 0;
	replicate = replicate_new(host, body, &err);
	if (!replicate)
		nova_host_log(host, NOVA_LOG_ERROR, "%s", err.text);
	else
		nova_replicate_pace(replicate);
	return 0;
}

int nova_replicates_open(struct nova_host *host, struct nova_error *err)
{
	if (nova_store_replicas(host->store, load, host, err) == 0)
		return 0;
	if (!nova_store_refusal(host->store))
		return -1;
	nova_host_log(host, NOVA_LOG_ERROR, "nothing is replicated: %s", err->text);
	return 0;
}

void nova_replicates_close(struct nova_host *host)
{
	while (!TAILQ_EMPTY(&host->replicates))
		replicate_free(TAILQ_FIRST(&host->replicates));
}

json_t *nova_replicate_json(const struct nova_replicate *replicate)
{
	json_t *json = json_deep_copy(replicate->body);
	json_t *attempt = nova_attempt_json(replicate);
	int64_t lag = lag_ms(replicate);

	json_object_set_new(json, "side", json_string("source"));
	json_object_set_new(json, "state", json_string(state_names[replicate->state]));
	json_object_set_new(json, "newest", json_integer(replicate->newest));
	if (lag >= 0)
		json_object_set_new(json, "lag_ms", json_integer(lag));
	json_object_set_new(json, "rpo_ms", json_incref(json_object_get(json_object_get(json, "last"), "rpo_ms") ?: json_null()));
	json_object_set_new(json, "late", json_boolean(replicate->late));
	if (attempt)
		json_object_set_new(json, "attempt", attempt);
	return json;
}

/* ---- the command ---- */

static void token_new(char token[33])
{
	unsigned char random[16];

	if (getrandom(random, sizeof(random), 0) != sizeof(random))
		abort(); /* cannot happen for 16 bytes once the kernel is seeded */
	for (size_t i = 0; i < sizeof(random); i++)
		snprintf(token + 2 * i, 3, "%02x", random[i]);
}

static int check_create(struct nova_host *host, const struct nova_entry *entry, const json_t *args, struct nova_error *err)
{
	const char *peer = text_of(args, "to");

	if (!peer[0] || !json_object_get(args, "every"))
		return nova_error_set(err, NOVA_INVALID, "replicate create: say where to (--to PEER) and how often (--every TIME)");
	if (!json_object_get(nova_config_get(host->config, "peers"), peer))
		return nova_error_set(err, NOVA_INVALID, "there is no peer '%.60s' in the configuration: see novacron peers", peer);
	if (!host->links)
		return nova_error_set(err, NOVA_STATE, "this daemon has no link to peers: set cert, key, ca and peers");
	if (nova_replicate_find(host, entry->name))
		return nova_error_set(err, NOVA_STATE, "guest %s is replicated already: see novacron replicate show %s", entry->name,
		    entry->name);
	if (!entry->slot->ops->verb[NOVA_VERB_POINT_TAKE])
		return nova_error_set(err, NOVA_REFUSED, "replication is not supported by driver %s", entry->slot->ops->name);
	return 0;
}

json_t *nova_replicate_create(struct nova_host *host, const struct nova_identity *who, const char *guest, const json_t *args,
    struct nova_error *err)
{
	struct nova_entry *entry = nova_entry_need(host, who, guest, err);
	struct nova_replicate *replicate;
	NOVA_AUTOJSON json_t *body = NULL;
	char token[33];

	if (!entry || check_create(host, entry, args, err) < 0)
		return NULL;
	token_new(token);
	body = json_pack("{s:s, s:s, s:s, s:s, s:s, s:O, s:O, s:O, s:s*, s:s, s:s, s:I}", "token", token, "guest", entry->name,
	    "uuid", entry->uuid, "owner", entry->owner, "peer", text_of(args, "to"), "every_ms", json_object_get(args, "every"),
	    "rate_bps", json_object_get(args, "rate"), "keep", json_object_get(args, "keep"), "pool",
	    json_string_value(json_object_get(args, "pool")), "who", who->name, "state", state_names[NOVA_REPLICATE_ACTIVE],
	    "created_ms", (json_int_t)nova_wall_ms());
	replicate = replicate_new(host, body, err);
	if (!replicate)
		return NULL;
	if (nova_replicate_save(replicate, err) < 0) {
		replicate_free(replicate);
		return NULL;
	}
	nova_replicate_pace(replicate);
	return nova_replicate_json(replicate);
}

static void forgotten(void *arg, json_t *result, const struct nova_error *err)
{
	struct nova_replicate *replicate = arg;

	replicate->stopping = NULL;
	if (err)
		nova_host_log(replicate->host, NOVA_LOG_WARNING, "guest %s keeps the notes of a replication that has ended: %s",
		    replicate->guest, err->text);
	replicate_free(replicate);
}

/* The hypervisor forgets, too: snapshots are not restored on disks that are still being noted. */
static void forget_marks(struct nova_replicate *replicate)
{
	struct nova_entry *entry = nova_entry_find(replicate->host, replicate->guest);
	NOVA_AUTOJSON json_t *args = json_pack("{s:o, s:s, s:O?}", "prefix", json_sprintf("nova-%.12s-", replicate->token), "keep", "",
	    "disks", replicate->disks);
	struct nova_error err;

	nova_op_drop(nova_take(&replicate->stopping));
	if (entry && replicate->disks)
		replicate->stopping =
		    nova_slot_call(entry->slot, NOVA_VERB_POINT_CLEAR, &entry->guest, args, forgotten, replicate, &err);
	if (!replicate->stopping)
		replicate_free(replicate);
}

/* The standby's half stays: what it holds may be wanted just because this host is gone. */
int nova_replicate_delete(struct nova_replicate *replicate, struct nova_error *err)
{
	struct nova_host *host = replicate->host;
	char key[64];

	snprintf(key, sizeof(key), KEY "%s", replicate->token);
	if (nova_store_replica_delete(host->store, key, err) < 0)
		return -1;
	nova_metrics_forget(host->metrics, "guest", replicate->guest);
	nova_attempt_drop(replicate);
	event_del(replicate->timer);
	event_del(replicate->watch);
	replicate->deleted = true;
	forget_marks(replicate);
	return 0;
}

static json_t *set_paused(struct nova_replicate *replicate, bool paused, struct nova_error *err)
{
	if (replicate->handover) {
		nova_error_set(err, NOVA_STATE, "guest %s is being handed over to %s", replicate->guest, replicate->peer);
		return NULL;
	}
	replicate->stopped_ms = 0;
	nova_replicate_set_state(replicate, paused ? NOVA_REPLICATE_PAUSED : NOVA_REPLICATE_ACTIVE, "as it was asked for");
	replicate->begun_ms = -1;
	replicate->failures = 0;
	nova_replicate_pace(replicate);
	return nova_replicate_json(replicate);
}

static json_t *list(struct nova_host *host, const struct nova_identity *who, const char *guest)
{
	json_t *list = json_array();
	struct nova_replicate *replicate;
	struct nova_replica *replica;

	TAILQ_FOREACH (replicate, &host->replicates, link)
		if (!replicate->deleted && nova_entry_visible(host, who, replicate->owner) && (!guest || !strcmp(guest, replicate->guest)))
			json_array_append_new(list, nova_replicate_json(replicate));
	TAILQ_FOREACH (replica, &host->replicas, link)
		if (nova_entry_visible(host, who, replica->owner) && (!guest || !strcmp(guest, replica->guest)))
			json_array_append_new(list, nova_replica_json(replica));
	return list;
}

static int none(const struct nova_host *host, const char *guest, struct nova_error *err)
{
	return nova_error_set(err, NOVA_INVALID, "there is no replication of a guest '%.60s' on %s: see novacron replicate list",
	    guest, nova_host_name(host));
}

static json_t *act(struct nova_host *host, const struct nova_identity *who, const char *what, const char *guest,
    struct nova_error *err)
{
	struct nova_replicate *replicate = nova_replicate_find(host, guest);
	struct nova_replica *replica = nova_replica_find(host, guest);
	NOVA_AUTOJSON json_t *shown = NULL;

	if (replicate && !nova_entry_visible(host, who, replicate->owner))
		replicate = NULL;
	if (replica && !nova_entry_visible(host, who, replica->owner))
		replica = NULL;
	if (!replicate && !replica) {
		none(host, guest, err);
		return NULL;
	}
	if (!strcmp(what, "show")) {
		shown = list(host, who, guest);
		return json_incref(json_array_get(shown, 0));
	}
	if (!strcmp(what, "delete") && replicate)
		return nova_replicate_delete(replicate, err) < 0 ? NULL : json_pack("{s:b}", "deleted", 1);
	if (!strcmp(what, "delete"))
		return nova_replica_remove(replica, err) < 0 ? NULL : json_pack("{s:b}", "deleted", 1);
	if (replicate)
		return set_paused(replicate, !strcmp(what, "pause"), err);
	nova_error_set(err, NOVA_STATE, "guest %s is replicated from %s: %s it there", guest, replica->peer, what);
	return NULL;
}

struct nova_op *nova_cmd_replicate(struct nova_host *host, const struct nova_identity *who, json_t *args, nova_done_fn done,
    void *arg, struct nova_error *err)
{
	const char *what = text_of(args, "what"), *guest = json_string_value(json_object_get(args, "guest"));
	json_t *result;

	if (!strcmp(what, "list")) {
		result = list(host, who, guest);
	} else if (!guest) {
		nova_error_set(err, NOVA_INVALID, "replicate %s: name a guest", what);
		return NULL;
	} else if (!strcmp(what, "create")) {
		result = nova_replicate_create(host, who, guest, args, err);
	} else if (!strcmp(what, "export")) {
		struct nova_replica *replica = nova_replica_find(host, guest);

		if (replica && nova_entry_visible(host, who, replica->owner))
			return nova_replica_export(replica, args, done, arg, err);
		none(host, guest, err);
		return NULL;
	} else {
		result = act(host, who, what, guest, err);
	}
	return result ? nova_op_later(host->base, result, NULL, done, arg, err) : NULL;
}
