/* SPDX-License-Identifier: Apache-2.0
 *
 * replicate_point.c - one attempt to make a point, at the guest's host: a table of rows (nova_attempt_steps, at the
 * end). See replicate.h for the conversation, and drivers/README.md for what POINT_... verbs do.
 *
 * Whatever fails is taken back: ways first, so that no copy waits for a link, then what the hypervisor has of the
 * point. A commit whose answer is lost needs nothing: the next attempt asks which point is the newest, and the
 * marks of both are still there.
 */
#include "replicate.h"

#include "cleanup.h"
#include "fault_hook.h"
#include "migrate.h"

#include <errno.h>
#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct nova_attempt {
	struct nova_replicate *replicate; /* borrowed */
	struct nova_entry *entry;         /* borrowed: of the guest */
	struct nova_session *session;     /* owned */
	struct nova_ways *ways;           /* owned */
	struct nova_op *op;               /* owned: what the row waits for */
	enum nova_step_result (*seen)(struct nova_attempt *attempt, json_t *result, struct nova_error *err);
	struct event *look;               /* owned: at a base's copies */
	json_t *marks;                    /* owned: that the guest's disks have */
	json_t *made;                     /* owned: the point, once the standby has said that it is there */
	json_int_t newest;                /* at the standby; 0: none */
	json_int_t point;                 /* that is being made */
	bool delta, base; /* which of them it is; base: once it has begun */
	bool sent, passed_on, mirroring, superseded, unwanted;
	int64_t taken_ms;                 /* wall clock */
	json_int_t read_bytes;            /* that the mark named */
	const char *consistency;          /* static */
};

static const char *text_of(const json_t *object, const char *name)
{
	const char *text = json_string_value(json_object_get(object, name));

	return text ? text : "";
}

static const struct nova_link_ops *links_of(const struct nova_attempt *attempt)
{
	return attempt->replicate->host->plugins->links;
}

static bool row_is(const struct nova_replicate *replicate, const char *name)
{
	return replicate->run && !nova_run_undoing(replicate->run) && nova_run_step(replicate->run) &&
	       !strcmp(nova_run_step(replicate->run)->name, name);
}

static void give_up(struct nova_attempt *attempt, const struct nova_error *why)
{
	struct nova_error ignored;

	nova_run_cancel(attempt->replicate->run, why, &ignored);
}

/* "nova-TOKEN-": the marks of this replication and no other. */
static json_t *mark_of(const struct nova_attempt *attempt, json_int_t point)
{
	return json_sprintf("nova-%.12s-%lld", attempt->replicate->token, (long long)point);
}

static bool has_mark(const struct nova_attempt *attempt, json_int_t point)
{
	NOVA_AUTOJSON json_t *wanted = mark_of(attempt, point);
	json_t *mark;
	size_t i;

	json_array_foreach (attempt->marks, i, mark)
		if (json_equal(mark, wanted))
			return true;
	return false;
}

/* ---- waiting ---- */

static void answered(void *arg, json_t *result, const struct nova_error *err)
{
	struct nova_replicate *replicate = arg;
	struct nova_attempt *attempt = replicate->attempt;
	enum nova_step_result next = NOVA_STEP_DONE;
	struct nova_error why;

	attempt->op = NULL;
	if (err) {
		why = *err;
		nova_run_fail(replicate->run, &why);
		return;
	}
	if (attempt->seen)
		next = attempt->seen(attempt, result, &why);
	if (next == NOVA_STEP_DONE)
		nova_run_done(replicate->run);
	else if (next == NOVA_STEP_FAILED)
		nova_run_fail(replicate->run, &why);
}

static void drop(struct nova_run *run, void *ctx)
{
	struct nova_attempt *attempt = ((struct nova_replicate *)ctx)->attempt;

	nova_op_drop(nova_take(&attempt->op));
	if (attempt->look)
		event_free(nova_take(&attempt->look));
}

typedef enum nova_step_result (*seen_fn)(struct nova_attempt *attempt, json_t *result, struct nova_error *err);

/* args is stolen. */
static enum nova_step_result call(struct nova_attempt *attempt, enum nova_verb verb, json_t *args, seen_fn seen,
    struct nova_error *err)
{
	attempt->seen = seen;
	attempt->op = nova_slot_call(
	    attempt->entry->slot, verb, &attempt->entry->guest, args, answered, attempt->replicate, err);
	json_decref(args);
	return attempt->op ? NOVA_STEP_WAIT : NOVA_STEP_FAILED;
}

static enum nova_step_result ask(struct nova_attempt *attempt, const char *command, json_t *args, int limit_ms, seen_fn seen,
    struct nova_error *err)
{
	attempt->seen = seen;
	if (!attempt->session) {
		json_decref(args);
		nova_error_set(err, NOVA_LINK, "the link to %s is gone", attempt->replicate->peer);
		return NOVA_STEP_FAILED;
	}
	attempt->op =
	    links_of(attempt)->request(attempt->session, command, args, limit_ms, answered, attempt->replicate, err);
	json_decref(args);
	return attempt->op ? NOVA_STEP_WAIT : NOVA_STEP_FAILED;
}

/* ---- disks: what the guest has, once for each of its hypervisors ---- */

static enum nova_step_result disks_known(struct nova_attempt *attempt, json_t *result, struct nova_error *err)
{
	struct nova_replicate *replicate = attempt->replicate;
	json_t *carried = json_object_get(result, "carried"), *disk;
	size_t i;

	if (!json_array_size(carried) || json_array_size(carried) > NOVA_DISKS_MAX) {
		nova_error_set(err, NOVA_INVALID, "guest %s has %zu disks of its own: 1 to %d can be replicated", replicate->guest,
		    json_array_size(carried), NOVA_DISKS_MAX);
		return NOVA_STEP_FAILED;
	}
	json_decref(replicate->spec);
	json_decref(replicate->disks);
	replicate->spec = json_incref(json_object_get(result, "spec"));
	replicate->disks = json_array();
	json_array_foreach (carried, i, disk)
		json_array_append_new(replicate->disks,
		    json_pack("{s:O, s:O, s:O}", "disk", json_object_get(disk, "disk"), "file", json_object_get(disk, "path"), "size",
			json_object_get(disk, "size")));
	replicate->pid = json_integer_value(json_object_get(attempt->entry->guest.runtime, "pid"));
	return NOVA_STEP_DONE;
}

static enum nova_step_result run_disks(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct nova_replicate *replicate = ctx;
	struct nova_attempt *attempt = replicate->attempt;

	if (replicate->disks && replicate->pid == json_integer_value(json_object_get(attempt->entry->guest.runtime, "pid")))
		return NOVA_STEP_DONE;
	return call(attempt, NOVA_VERB_OUT_PREPARE, json_pack("{s:s, s:{}}", "mode", "live", "disks"), disks_known, err);
}

/* ---- clear: nothing is left of what was before; marks are known ---- */

static enum nova_step_result marks_known(struct nova_attempt *attempt, json_t *result, struct nova_error *err)
{
	json_decref(attempt->marks);
	attempt->marks = json_incref(json_object_get(result, "marks"));
	return NOVA_STEP_DONE;
}

/* keep: the point whose mark stays alone; 0: all stay. */
static enum nova_step_result clear(struct nova_attempt *attempt, json_int_t keep, struct nova_error *err)
{
	json_t *args = json_pack("{s:o, s:O}", "prefix", json_sprintf("nova-%.12s-", attempt->replicate->token), "disks",
	    attempt->replicate->disks);

	if (keep)
		json_object_set_new(args, "keep", mark_of(attempt, keep));
	return call(attempt, NOVA_VERB_POINT_CLEAR, args, marks_known, err);
}

static enum nova_step_result mirrors_gone(struct nova_attempt *attempt, json_t *result, struct nova_error *err)
{
	attempt->mirroring = false;
	return clear(attempt, 0, err);
}

static enum nova_step_result run_clear(struct nova_run *run, void *ctx, struct nova_error *err)
{
	return call(((struct nova_replicate *)ctx)->attempt, NOVA_VERB_MIRROR_END, json_pack("{s:b}", "cancel", 1), mirrors_gone,
	    err);
}

/* ---- connect ---- */

static void session_up(void *arg, const char *peer)
{
	struct nova_replicate *replicate = arg;

	if (row_is(replicate, "connect"))
		nova_run_done(replicate->run);
}

static void session_request(void *arg, const char *command, json_t *args, struct nova_request *request)
{
	struct nova_replicate *replicate = arg;
	const char *text = text_of(args, "text");
	struct nova_error why;

	if (strcmp(command, "replica-failed")) {
		nova_error_set(&why, NOVA_INVALID, "a replication does not know the request '%.40s'", command);
		replicate->host->plugins->links->answer(request, NULL, &why);
		return;
	}
	replicate->host->plugins->links->answer(request, NULL, NULL);
	nova_error_set(&why, NOVA_REFUSED, "%s gave the point up: %s", replicate->peer, text[0] ? text : "it did not say why");
	give_up(replicate->attempt, &why);
}

static void session_channel(void *arg, uint16_t id, enum nova_channel_kind kind, struct nova_channel *channel)
{
	channel->ops->free(channel);
}

static void session_state(void *arg, const char *state, json_t *data)
{
	struct nova_replicate *replicate = arg;

	nova_host_log(replicate->host, NOVA_LOG_INFO, "replication of %s: link to %s: %s", replicate->guest, replicate->peer, state);
}

static void session_closed(void *arg, const struct nova_error *err)
{
	struct nova_replicate *replicate = arg;
	struct nova_attempt *attempt = replicate->attempt;
	struct nova_error why = *err;

	nova_error_prefix(&why, "link to %s", replicate->peer);
	attempt->session = links_of(attempt)->free(attempt->session);
	give_up(attempt, &why);
}

static const struct nova_session_events session_events = { session_up, session_request, session_channel, session_state,
	session_closed };

static enum nova_step_result run_connect(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct nova_replicate *replicate = ctx;
	struct nova_attempt *attempt = replicate->attempt;
	const struct nova_session_options options = {
		.resume_limit_ms = (int)nova_config_int(replicate->host->config, "resume-limit"),
		.rate_bps = replicate->rate_bps,
	};

	attempt->session =
	    links_of(attempt)->dial(replicate->host->links, replicate->peer, &options, &session_events, replicate, err);
	return attempt->session ? NOVA_STEP_WAIT : NOVA_STEP_FAILED;
}

static enum nova_step_result undo_connect(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct nova_attempt *attempt = ((struct nova_replicate *)ctx)->attempt;

	attempt->session = links_of(attempt)->free(attempt->session);
	return NOVA_STEP_DONE;
}

/* ---- open: the standby says what it has ---- */

static enum nova_step_result opened(struct nova_attempt *attempt, json_t *result, struct nova_error *err)
{
	if (json_is_true(json_object_get(result, "superseded"))) {
		attempt->superseded = true;
		nova_error_set(err, NOVA_STATE, "guest %s was started on %s", attempt->replicate->guest, attempt->replicate->peer);
		return NOVA_STEP_FAILED;
	}
	nova_replicate_confirmed(attempt->replicate);
	attempt->newest = json_integer_value(json_object_get(result, "newest"));
	attempt->point = json_integer_value(json_object_get(result, "next"));
	attempt->delta = attempt->newest > 0 && has_mark(attempt, attempt->newest);
	if (attempt->point > attempt->newest)
		return NOVA_STEP_DONE;
	nova_error_set(err, NOVA_INVALID, "%s gave point %lld a number that is not above the newest", attempt->replicate->peer,
	    (long long)attempt->point);
	return NOVA_STEP_FAILED;
}

static json_t *disks_to_tell(const struct nova_replicate *replicate)
{
	json_t *list = json_array(), *disk;
	size_t i;

	json_array_foreach (replicate->disks, i, disk)
		json_array_append_new(list,
		    json_pack("{s:O, s:O}", "disk", json_object_get(disk, "disk"), "size", json_object_get(disk, "size")));
	return list;
}

static enum nova_step_result run_open(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct nova_replicate *replicate = ctx;
	const struct nova_entry *entry = replicate->attempt->entry;

	return ask(replicate->attempt, "replica-open",
	    json_pack("{s:s, s:s, s:s, s:s, s:s, s:O, s:o, s:O, s:I, s:O*}", "token", replicate->token, "guest", entry->name, "uuid",
		entry->uuid, "owner", entry->owner, "driver", entry->slot->ops->name, "spec", replicate->spec, "disks",
		disks_to_tell(replicate), "keep", json_object_get(replicate->body, "keep"), "every_ms",
		(json_int_t)replicate->every_ms, "pool", json_object_get(replicate->body, "pool")),
	    NOVA_REPLICA_WORK_MS, opened, err);
}

/* Marks of points that never came to be, or were the newest once. */
static enum nova_step_result run_settle(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct nova_attempt *attempt = ((struct nova_replicate *)ctx)->attempt;

	return clear(attempt, attempt->newest ? attempt->newest : -1, err);
}

/* ---- begin, ways ---- */

static enum nova_step_result run_begin(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct nova_replicate *replicate = ctx;
	struct nova_attempt *attempt = replicate->attempt;

	attempt->base = !attempt->delta;
	return ask(attempt, "replica-begin",
	    json_pack("{s:s, s:I, s:s}", "token", replicate->token, "point", attempt->point, "kind", attempt->delta ? "delta" : "base"),
	    NOVA_REPLICA_WORK_MS, NULL, err);
}

static void ways_ready(void *arg)
{
	struct nova_replicate *replicate = arg;

	if (row_is(replicate, "ways"))
		nova_run_done(replicate->run);
}

static void ways_ended(void *arg, const struct nova_error *err)
{
	struct nova_replicate *replicate = arg;
	struct nova_attempt *attempt = replicate->attempt;
	struct nova_error why;

	if (err) {
		why = *err;
		give_up(attempt, &why);
		return;
	}
	attempt->passed_on = true;
	if (attempt->sent && row_is(replicate, "copy"))
		nova_run_done(replicate->run);
}

static const struct nova_ways_events ways_events = { ways_ready, ways_ended };

static enum nova_step_result run_ways(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct nova_replicate *replicate = ctx;
	struct nova_attempt *attempt = replicate->attempt;
	NOVA_AUTOFREE char *where = NULL;

	if (asprintf(&where, "%s/guests/%s", nova_config_text(replicate->host->config, "runtime-dir"), replicate->guest) < 0) {
		where = NULL;
		nova_error_sys(err, ENOMEM, "disks of guest %s", replicate->guest);
		return NOVA_STEP_FAILED;
	}
	if (!attempt->session) {
		nova_error_set(err, NOVA_LINK, "the link to %s is gone", replicate->peer);
		return NOVA_STEP_FAILED;
	}
	attempt->ways =
	    nova_ways_new(replicate->host, attempt->session, replicate->disks, where, &ways_events, replicate, err);
	return attempt->ways ? NOVA_STEP_WAIT : NOVA_STEP_FAILED;
}

static enum nova_step_result undo_ways(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct nova_attempt *attempt = ((struct nova_replicate *)ctx)->attempt;

	attempt->ways = nova_ways_free(attempt->ways);
	return NOVA_STEP_DONE;
}

/* ---- take: the instant ---- */

static enum nova_step_result point_taken(struct nova_attempt *attempt, json_t *result, struct nova_error *err)
{
	json_t *disk;
	size_t i;

	json_array_foreach (json_object_get(result, "disks"), i, disk)
		attempt->read_bytes += json_integer_value(json_object_get(disk, "bytes"));
	attempt->consistency = strcmp(text_of(result, "consistency"), "application") ? "crash" : "application";
	return NOVA_STEP_DONE;
}

static enum nova_step_result run_take(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct nova_replicate *replicate = ctx;
	struct nova_attempt *attempt = replicate->attempt;
	json_t *args = json_pack("{s:o, s:o}", "mark", mark_of(attempt, attempt->point), "disks", json_deep_copy(replicate->disks));

	attempt->taken_ms = nova_wall_ms(); /* it is taken a little later: no age is shown too small */
	if (!attempt->delta)
		return call(attempt, NOVA_VERB_POINT_MARK, args, NULL, err);
	json_object_set_new(args, "since", mark_of(attempt, attempt->newest));
	return call(attempt, NOVA_VERB_POINT_TAKE, args, point_taken, err);
}

/* Our ends are gone already: no copy waits for an answer from over there. */
static enum nova_step_result undo_take(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct nova_attempt *attempt = ((struct nova_replicate *)ctx)->attempt;
	enum nova_guest_state state = attempt->entry->guest.state;

	attempt->ways = nova_ways_free(attempt->ways);
	if (state != NOVA_GUEST_RUNNING && state != NOVA_GUEST_PAUSED)
		return NOVA_STEP_DONE;
	return clear(attempt, 0, err);
}

/* ---- copy ---- */

static json_t *disks_with_sockets(const struct nova_attempt *attempt)
{
	json_t *list = json_deep_copy(attempt->replicate->disks), *disk;
	size_t i;

	json_array_foreach (list, i, disk)
		json_object_set_new(disk, "path", json_string(nova_ways_path(attempt->ways, i)));
	return list;
}

/* The hypervisor has let go of its ends. */
static enum nova_step_result copied(struct nova_attempt *attempt, json_t *result, struct nova_error *err)
{
	attempt->sent = true;
	attempt->mirroring = false;
	return attempt->passed_on ? NOVA_STEP_DONE : NOVA_STEP_WAIT;
}

static enum nova_step_result copies_seen(struct nova_attempt *attempt, json_t *result, struct nova_error *err)
{
	json_t *seen;
	size_t i, ready = 0, count = json_array_size(json_object_get(result, "disks"));

	json_array_foreach (json_object_get(result, "disks"), i, seen)
		ready += json_is_true(json_object_get(seen, "ready"));
	if (count < json_array_size(attempt->replicate->disks)) {
		nova_error_set(err, NOVA_REFUSED, "only %zu of %zu copies are left", count, json_array_size(attempt->replicate->disks));
		return NOVA_STEP_FAILED;
	}
	if (ready < count || !attempt->look)
		return NOVA_STEP_WAIT;
	/* Whatever the guest wrote since, the mark knows: the copies may end where they are. */
	event_free(nova_take(&attempt->look));
	return call(attempt, NOVA_VERB_MIRROR_END, json_pack("{s:b}", "cancel", 1), copied, err);
}

static void look(evutil_socket_t fd, short what, void *arg)
{
	struct nova_replicate *replicate = arg;
	struct nova_attempt *attempt = replicate->attempt;
	struct nova_error err;

	if (!attempt->op && call(attempt, NOVA_VERB_MIRROR_QUERY, NULL, copies_seen, &err) == NOVA_STEP_FAILED)
		nova_run_fail(replicate->run, &err);
}

static enum nova_step_result mirrors_begun(struct nova_attempt *attempt, json_t *result, struct nova_error *err)
{
	const struct timeval period = nova_timeval_ms(NOVA_TICK_MS);

	attempt->look = event_new(attempt->replicate->host->base, -1, EV_PERSIST, look, attempt->replicate);
	if (attempt->look && event_add(attempt->look, &period) == 0)
		return NOVA_STEP_WAIT;
	nova_error_sys(err, ENOMEM, "point of guest %s", attempt->replicate->guest);
	return NOVA_STEP_FAILED;
}

static enum nova_step_result run_copy(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct nova_attempt *attempt = ((struct nova_replicate *)ctx)->attempt;
	json_t *args = json_pack("{s:o}", "disks", disks_with_sockets(attempt));

	if (attempt->delta) {
		json_object_set_new(args, "mark", mark_of(attempt, attempt->point));
		return call(attempt, NOVA_VERB_POINT_SEND, args, copied, err);
	}
	attempt->mirroring = true;
	return call(attempt, NOVA_VERB_MIRROR_START, args, mirrors_begun, err);
}

static enum nova_step_result undo_copy(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct nova_attempt *attempt = ((struct nova_replicate *)ctx)->attempt;
	enum nova_guest_state state = attempt->entry->guest.state;

	attempt->ways = nova_ways_free(attempt->ways);
	if (!attempt->mirroring || (state != NOVA_GUEST_RUNNING && state != NOVA_GUEST_PAUSED))
		return NOVA_STEP_DONE;
	return call(attempt, NOVA_VERB_MIRROR_END, json_pack("{s:b}", "cancel", 1), NULL, err);
}

/* ---- commit, finish ---- */

static json_t *point_json(const struct nova_attempt *attempt);

/* It exists, whatever happens here from now on. */
static enum nova_step_result committed(struct nova_attempt *attempt, json_t *result, struct nova_error *err)
{
	attempt->made = point_json(attempt);
	return NOVA_STEP_DONE;
}

static enum nova_step_result run_commit(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct nova_replicate *replicate = ctx;
	struct nova_attempt *attempt = replicate->attempt;

	return ask(attempt, "replica-commit",
	    json_pack("{s:s, s:I, s:I, s:s, s:I, s:o}", "token", replicate->token, "point", attempt->point, "taken_ms",
		(json_int_t)attempt->taken_ms, "consistency", attempt->consistency, "bytes", attempt->read_bytes, "digests",
		nova_ways_digests(attempt->ways)),
	    NOVA_REPLICA_WORK_MS, committed, err);
}

static enum nova_step_result run_finish(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct nova_attempt *attempt = ((struct nova_replicate *)ctx)->attempt;

	return clear(attempt, attempt->point, err);
}

static enum nova_step_result nothing(struct nova_run *run, void *ctx, struct nova_error *err)
{
	return NOVA_STEP_DONE;
}

static const struct nova_step nova_attempt_steps[] = {
	/* what        how          take it back   stop waiting  limit_ms */
	{ "disks",     run_disks,   NULL,          drop,         600000 },
	{ "clear",     run_clear,   NULL,          drop,         60000 },
	{ "connect",   run_connect, undo_connect,  NULL,         30000 },
	{ "open",      run_open,    NULL,          drop },
	{ "settle",    run_settle,  NULL,          drop,         60000 },
	{ "begin",     run_begin,   NULL,          drop },
	{ "ways",      run_ways,    undo_ways,     NULL },
	{ "take",      run_take,    undo_take,     drop },
	{ "copy",      run_copy,    undo_copy,     drop },
	{ "commit",    run_commit,  nothing,       drop },
	{ "finish",    run_finish,  NULL,          drop,         60000 },
	{ NULL },
};

/* ---- the attempt ---- */

static json_t *point_json(const struct nova_attempt *attempt)
{
	struct nova_disk_stats stats;
	struct nova_link_stats link = { 0 };

	nova_ways_stats(attempt->ways, &stats);
	if (attempt->session)
		links_of(attempt)->stats(attempt->session, &link);
	return json_pack("{s:I, s:s, s:I, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:i}", "point", attempt->point, "kind",
	    attempt->delta ? "delta" : "base", "taken_ms", (json_int_t)attempt->taken_ms, "consistency", attempt->consistency,
	    "written_bytes", (json_int_t)stats.written_bytes, "same_bytes", (json_int_t)stats.same_bytes, "zero_bytes",
	    (json_int_t)stats.zero_bytes, "encoded_bytes", (json_int_t)stats.pipe.out.encoded_bytes, "wire_bytes",
	    (json_int_t)link.wire_sent_bytes, "resent_bytes", (json_int_t)link.resent_bytes, "reconnects", (int)link.reconnects);
}

json_t *nova_attempt_json(const struct nova_replicate *replicate)
{
	json_t *json;

	if (!replicate->attempt)
		return NULL;
	json = point_json(replicate->attempt);
	json_object_set_new(json, "row",
	    json_string(replicate->run && nova_run_step(replicate->run) ? nova_run_step(replicate->run)->name : ""));
	return json;
}

static void attempt_free(struct nova_attempt *attempt)
{
	nova_op_drop(attempt->op);
	if (attempt->look)
		event_free(attempt->look);
	nova_ways_free(attempt->ways);
	links_of(attempt)->free(attempt->session);
	json_decref(attempt->marks);
	json_decref(attempt->made);
	free(attempt);
}

void nova_attempt_cancel(struct nova_replicate *replicate)
{
	struct nova_error why;

	nova_error_set(&why, NOVA_CANCELLED, "no point of guest %s is wanted any more", replicate->guest);
	if (!replicate->attempt)
		return;
	replicate->attempt->unwanted = true;
	give_up(replicate->attempt, &why);
}

void nova_attempt_drop(struct nova_replicate *replicate)
{
	if (!replicate->attempt)
		return;
	replicate->run = nova_run_free(replicate->run);
	attempt_free(nova_take(&replicate->attempt));
	nova_points_rest(replicate);
}

bool nova_attempt_is_base(const struct nova_replicate *replicate)
{
	return replicate->attempt && replicate->attempt->base;
}

void nova_attempt_set_rate(struct nova_replicate *replicate)
{
	struct nova_attempt *attempt = replicate->attempt;

	if (attempt && attempt->session)
		links_of(attempt)->session_rate(attempt->session, replicate->rate_bps);
}

static void ended(void *ctx, enum nova_outcome outcome, const struct nova_error *err, const char *notes)
{
	struct nova_replicate *replicate = ctx;
	struct nova_error why;
	bool superseded = replicate->attempt->superseded, unwanted = replicate->attempt->unwanted;
	NOVA_AUTOJSON json_t *point = NULL;

	point = nova_take(&replicate->attempt->made);
	if (!point)
		why = *err;
	if (notes && *notes)
		nova_host_log(replicate->host, NOVA_LOG_DEBUG, "replication of %s: %s", replicate->guest, notes);
	replicate->run = NULL;
	attempt_free(nova_take(&replicate->attempt));
	if (superseded)
		nova_replicate_superseded(replicate);
	nova_replicate_ended(replicate, point, point || unwanted ? NULL : &why);
	nova_points_rest(replicate);
}

static int before_row(void *ctx, const struct nova_step *step, bool undo, struct nova_error *err)
{
	const struct nova_replicate *replicate = ctx;

	return nova_fault_hook(replicate->host, replicate->token, "replicate", "source", step->name, undo, err);
}

static const struct nova_run_events run_events = { .before = before_row, .ended = ended };

int nova_attempt_start(struct nova_replicate *replicate, struct nova_error *err)
{
	struct nova_attempt *attempt = calloc(1, sizeof(*attempt));

	if (!attempt)
		return nova_error_sys(err, ENOMEM, "point of guest %s", replicate->guest);
	attempt->replicate = replicate;
	attempt->entry = nova_entry_find(replicate->host, replicate->guest);
	attempt->consistency = "crash";
	replicate->attempt = attempt;
	replicate->run = nova_run_new(replicate->host->base, nova_attempt_steps, NULL, false, &run_events, replicate, err);
	if (!replicate->run) {
		attempt_free(nova_take(&replicate->attempt));
		return -1;
	}
	nova_fault_limit(replicate->host, replicate->run);
	return 0;
}
