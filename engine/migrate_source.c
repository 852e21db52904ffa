/* SPDX-License-Identifier: Apache-2.0
 *
 * migrate_source.c - the source's half of a migration, as a table of rows. The conversation with the
 * destination is described in migrate.h; the looks at a running precopy are in migrate_watch.c, what
 * happens when the commit's answer is lost in migrate_doubt.c, when a postcopy loses its stream in migrate_rejoin.c.
 */
#include "migrate.h"
#include "cleanup.h"
#include "migrate_baseline.h"
#include "socket.h"

#include <errno.h>
#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

json_t *nova_digest_json(const uint8_t digest[16])
{
	char text[33];

	for (size_t i = 0; i < 16; i++)
		snprintf(text + 2 * i, 3, "%02x", digest[i]);
	return json_string(text);
}

static void set_state(struct nova_job *job, enum nova_guest_state state, const char *why)
{
	if (job->entry)
		nova_guest_set_state(&job->entry->guest, state, why);
}

/* ---- the context ---- */

static void source_free(struct nova_job *job)
{
	struct nova_source *source = job->ctx;

	if (!source)
		return;
	nova_watch_stop(source);
	nova_tail_stop(source);
	nova_source_stop_stream(source);
	nova_disks_free(source->disks);
	nova_doubt_free(source->doubt);
	nova_rejoin_free(source->rejoin);
	free(source->series);
	nova_base_use_free(source->base);
	source->ops->free(source->session);
	nova_converge_free(source->converge);
	json_decref(source->spec);
	json_decref(source->identity);
	json_decref(source->direct_to);
	json_decref(source->served);
	json_decref(source->last);
	json_decref(source->offer);
	free(source);
	job->ctx = NULL;
}

static void on_guest(struct nova_job *job, const char *event, json_t *data);
static void on_end(struct nova_job *job, enum nova_outcome outcome, const struct nova_error *err);
static bool again(struct nova_job *job, const struct nova_error *why);

struct nova_source *nova_source_of(struct nova_job *job)
{
	struct nova_source *source = job->ctx;
	const char *mode = nova_job_text(job, "mode");

	if (source)
		return source;
	source = calloc(1, sizeof(*source));
	if (!source)
		return NULL;
	source->series = calloc(1, sizeof(*source->series));
	if (!source->series) {
		free(source);
		return NULL;
	}
	source->job = job;
	source->ops = job->host->plugins->links;
	source->listen_fd = -1;
	source->last_predicted_ms = -1;
	source->begin_ms = nova_now_ms();
	source->mode = !strcmp(mode, "cold") ? NOVA_COLD : !strcmp(mode, "warm") ? NOVA_WARM : NOVA_LIVE;
	source->cap_bps = (uint64_t)nova_job_int(job, "bandwidth");
	job->ctx = source;
	job->free_ctx = source_free;
	job->on_guest = on_guest;
	job->on_end = on_end;
	job->on_doubt = nova_doubt_start;
	job->again = again;
	return source;
}

static bool row_is(const struct nova_job *job, const char *name)
{
	return job->run && !nova_run_undoing(job->run) && nova_run_step(job->run) &&
	       !strcmp(nova_run_step(job->run)->name, name);
}

/* Something outside of the current row broke: undo everything, unless it is too late for that. */
static void give_up(struct nova_job *job, const struct nova_error *why)
{
	struct nova_error ignored;

	if (job->run)
		nova_run_cancel(job->run, why, &ignored);
}

/* ---- what the session says ---- */

static void session_up(void *arg, const char *peer)
{
	struct nova_source *source = arg;

	if (row_is(source->job, "connect"))
		nova_run_done(source->job->run);
	else if (source->rejoin)
		nova_rejoin_session_up(source);
}

static void session_request(void *arg, const char *command, json_t *args, struct nova_request *request)
{
	struct nova_source *source = arg;
	const char *text = json_string_value(json_object_get(args, "text"));
	struct nova_error why;

	if (strcmp(command, "failed")) {
		nova_error_set(&why, NOVA_INVALID, "a source does not know the request '%.40s'", command);
		source->ops->answer(request, NULL, &why);
		return;
	}
	source->ops->answer(request, NULL, NULL);
	source->base_damaged |= json_is_true(json_object_get(args, "baseline_damaged"));
	nova_error_set(&why, NOVA_REFUSED, "%s gave up: %s", source->job->peer, text ? text : "it did not say why");
	give_up(source->job, &why);
}

static void session_channel(void *arg, uint16_t id, enum nova_channel_kind kind, struct nova_channel *channel)
{
	channel->ops->free(channel);
}

static void session_state(void *arg, const char *state, json_t *data)
{
	struct nova_source *source = arg;
	bool lost = !strcmp(state, "reconnecting");

	source->reconnect_waited_ms = lost ? json_integer_value(json_object_get(data, "waited_ms")) : 0;
	source->reconnect_limit_ms = lost ? json_integer_value(json_object_get(data, "limit_ms")) : 0;
	nova_watch_progress(source, lost ? "reconnecting" : NULL);
}

static void session_closed(void *arg, const struct nova_error *err)
{
	struct nova_source *source = arg;
	struct nova_error why = *err;

	nova_error_prefix(&why, "link to %s", source->job->peer);
	source->session = source->ops->free(source->session);
	if (row_is(source->job, "drain") && source->postcopy && !source->completed)
		nova_rejoin_start(source, &why);
	else
		give_up(source->job, &why);
}

static const struct nova_session_events session_events = { session_up, session_request, session_channel, session_state,
	session_closed };

/* ---- preflight ---- */

/* The driver may know that this mode is not to be had here, and which one is. */
static void take_mode(struct nova_source *source, const json_t *result)
{
	struct nova_job *job = source->job;
	const char *mode = json_string_value(json_object_get(result, "mode"));

	if (!mode || !strcmp(mode, nova_job_text(job, "mode")))
		return;
	source->mode = !strcmp(mode, "cold") ? NOVA_COLD : !strcmp(mode, "warm") ? NOVA_WARM : NOVA_LIVE;
	json_object_set_new(job->report, "mode_asked", json_incref(json_object_get(job->args, "mode")));
	json_object_set(job->report, "mode_why", json_object_get(result, "mode_why"));
	json_object_set_new(job->args, "mode", json_string(mode));
}

/* What the guest will lose is said before anything of it is stopped. */
static void tell_lost(struct nova_job *job, json_t *lost)
{
	if (!json_array_size(lost))
		return;
	json_object_set(job->report, "lost", lost);
	nova_host_emit(job->host, "JOB_LOSES",
	    json_pack("{s:s, s:s, s:s, s:s, s:O, s:O*}", "job", job->id, "guest", job->guest_name, "owner", job->owner, "peer",
		job->peer, "lost", lost, "mode_why", json_object_get(job->report, "mode_why")));
}

static enum nova_step_result prepared(struct nova_job *job, json_t *result, struct nova_error *err)
{
	struct nova_source *source = job->ctx;
	json_t *spec = json_object_get(result, "spec");

	if (!json_is_object(spec)) {
		nova_error_set(err, NOVA_REFUSED, "driver %s cannot say what the destination needs", job->slot->ops->name);
		return NOVA_STEP_FAILED;
	}
	source->spec = json_incref(spec);
	source->identity = json_incref(json_object_get(result, "direct"));
	source->memory_bytes = (uint64_t)json_integer_value(json_object_get(result, "memory_bytes"));
	source->settle_ms = (int)json_integer_value(json_object_get(result, "settle_ms"));
	if (json_array_size(json_object_get(result, "carried")) > NOVA_DISKS_MAX) {
		nova_error_set(err, NOVA_INVALID, "guest %s has more than %d disks to carry", job->guest_name, NOVA_DISKS_MAX);
		return NOVA_STEP_FAILED;
	}
	json_object_set(job->args, "carried", json_object_get(result, "carried"));
	json_object_set(job->args, "contents", json_object_get(result, "contents"));
	take_mode(source, result);
	tell_lost(job, json_object_get(result, "lost"));
	return nova_job_save(job, "preflight", false, err) < 0 ? NOVA_STEP_FAILED : NOVA_STEP_DONE;
}

static enum nova_step_result run_preflight(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct nova_job *job = ctx;
	enum nova_guest_state state = job->entry->guest.state;

	if (job->host->links == NULL) {
		nova_error_set(err, NOVA_STATE, "this daemon has no link to peers: set cert, key, ca and peers");
		return NOVA_STEP_FAILED;
	}
	if (nova_admit_migration(job, err) < 0)
		return NOVA_STEP_FAILED;
	if (json_object_set_new(job->args, "was_running", json_boolean(state == NOVA_GUEST_RUNNING)) < 0) {
		nova_error_sys(err, ENOMEM, "migration of %s", job->guest_name);
		return NOVA_STEP_FAILED;
	}
	return nova_job_call_then(job, NOVA_VERB_OUT_PREPARE,
	    json_pack("{s:s, s:b, s:{s:O*, s:O*, s:O*, s:O*}}", "mode", nova_job_text(job, "mode"), "direct",
		nova_path_may_be_direct(job), "disks", "pool", json_object_get(job->args, "disk-pool"), "map",
		json_object_get(job->args, "disk-map"), "include", json_object_get(job->args, "include-disk"), "exclude",
		json_object_get(job->args, "exclude-disk")),
	    prepared, err);
}

/* ---- connect ---- */

int nova_source_resume_limit(const struct nova_job *job)
{
	if (json_object_get(job->args, "resume-limit"))
		return (int)nova_job_int(job, "resume-limit");
	return (int)nova_config_int(job->host->config, "resume-limit");
}

int nova_source_dial(struct nova_source *source, struct nova_error *err)
{
	struct nova_job *job = source->job;
	struct nova_session_options options = {
		.resume_limit_ms = nova_source_resume_limit(job),
		.rate_bps = source->cap_bps,
		.lanes = (int)nova_job_int(job, "lanes"),
	};

	if (!job->host->links)
		return nova_error_set(err, NOVA_STATE, "this daemon has no link to peers: set cert, key, ca and peers");
	source->session = source->ops->dial(job->host->links, job->peer, &options, &session_events, source, err);
	return source->session ? 0 : -1;
}

static enum nova_step_result run_connect(struct nova_run *run, void *ctx, struct nova_error *err)
{
	return nova_source_dial(((struct nova_job *)ctx)->ctx, err) < 0 ? NOVA_STEP_FAILED : NOVA_STEP_WAIT;
}

static enum nova_step_result undo_connect(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct nova_source *source = ((struct nova_job *)ctx)->ctx;

	source->session = source->ops->free(source->session);
	return NOVA_STEP_DONE;
}

/* ---- requests to the destination ---- */

static void request_answered(void *arg, json_t *result, const struct nova_error *err)
{
	struct nova_job *job = arg;
	struct nova_source *source = job->ctx;
	struct nova_error why;

	job->op = NULL;
	source->base_damaged |= json_is_true(json_object_get(result, "baseline_damaged"));
	if (!source->offer)
		source->offer = json_incref(json_object_get(result, "baseline"));
	if (!err && row_is(job, "reserve"))
		source->served = json_incref(json_object_get(result, "disks"));
	/* Undoing with the link gone: the other side undoes by itself when it misses us. */
	if (!err || (nova_run_undoing(job->run) && (err->category == NOVA_LINK || err->category == NOVA_TIMEOUT))) {
		nova_run_done(job->run);
		return;
	}
	why = *err;
	/* Whatever its reason: it answered, so its state is known. */
	if (why.category != NOVA_LINK && why.category != NOVA_TIMEOUT && why.category != NOVA_CANCELLED)
		why.category = NOVA_REFUSED;
	nova_error_prefix(&why, "%s", job->peer);
	nova_run_fail(job->run, &why);
}

static enum nova_step_result ask(struct nova_job *job, const char *command, json_t *args, int limit_ms,
    struct nova_error *err)
{
	struct nova_source *source = job->ctx;

	job->op = source->ops->request(source->session, command, args, limit_ms, request_answered, job, err);
	json_decref(args);
	return job->op ? NOVA_STEP_WAIT : NOVA_STEP_FAILED;
}

/* History takes memory on both sides: a quarter of the guest's unless said otherwise, at most 1 GiB. */
static size_t history_bytes(const struct nova_source *source)
{
	const uint64_t most = 1ull << 30, quarter = source->memory_bytes / 4;

	if (nova_job_contents(source->job))
		return 0; /* no pages come by */
	if (json_object_get(source->job->args, "history"))
		return (size_t)nova_job_int(source->job, "history");
	return quarter < most ? quarter : most;
}

static void base_ready(struct nova_job *job)
{
	if (row_is(job, "baseline"))
		nova_run_done(job->run);
}

/* On the direct path no page comes by here; past the commit of a postcopy nobody could begin again without it. */
static bool wants_baseline(const struct nova_job *job)
{
	const struct nova_source *source = job->ctx;

	return !source->direct && !nova_job_contents(job) && json_is_true(json_object_get(job->args, "baseline")) &&
	       strcmp(nova_job_text(job, "on-stall"), "postcopy");
}

static void reserved(void *arg, json_t *result, const struct nova_error *err)
{
	struct nova_job *job = arg;
	struct nova_source *source = job->ctx;

	if (!err && source->direct)
		source->direct_to = json_incref(json_object_get(result, "direct"));
	request_answered(arg, result, err);
}

static enum nova_step_result run_reserve(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct nova_job *job = ctx;
	struct nova_source *source = job->ctx;
	const struct nova_guest *guest = &job->entry->guest;
	NOVA_AUTOJSON json_t *args = json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:O, s:b, s:b, s:I, s:I}", "token", job->token, "guest",
	    guest->name, "uuid", guest->uuid, "owner", guest->owner, "driver", job->slot->ops->name, "mode",
	    nova_job_text(job, "mode"), "spec", source->spec, "run", nova_job_was_running(job), "postcopy",
	    !strcmp(nova_job_text(job, "on-stall"), "postcopy"), "memory_bytes", (json_int_t)source->memory_bytes,
	    "history_bytes", (json_int_t)history_bytes(source));

	json_object_set_new(args, "disks", json_integer((json_int_t)json_array_size(json_object_get(job->args, "carried"))));
	if (source->direct)
		json_object_set(args, "direct", source->identity);
	json_object_set(args, "contents", nova_job_contents(job));
	json_object_set_new(args, "baseline", json_boolean(wants_baseline(job)));
	if (source->mode != NOVA_COLD && !source->direct && !nova_job_contents(job) &&
	    !(source->base = nova_base_use_new(job, source->spec, base_ready, err)))
		return NOVA_STEP_FAILED;
	job->op = source->ops->request(source->session, "reserve", args, 300000, reserved, job, err);
	return job->op ? NOVA_STEP_WAIT : NOVA_STEP_FAILED;
}

/* The destination undoes by itself when the session is gone; asking makes sure that nothing is left there. */
static enum nova_step_result undo_reserve(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct nova_job *job = ctx;
	struct nova_source *source = job->ctx;

	if (!source->session || source->reconnect_limit_ms)
		return NOVA_STEP_DONE;
	return ask(job, "abort", json_pack("{s:s}", "token", job->token), 15000, err);
}

/* ---- baseline: what the destination has of the guest ---- */

static enum nova_step_result run_baseline(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct nova_source *source = ((struct nova_job *)ctx)->ctx;

	if (source->base && source->session && wants_baseline(ctx) &&
	    nova_base_use_accept(source->base, source->offer, source->session, source->memory_bytes))
		return NOVA_STEP_WAIT;
	return NOVA_STEP_DONE;
}

static void drop_baseline(struct nova_run *run, void *ctx)
{
	struct nova_source *source = ((struct nova_job *)ctx)->ctx;

	nova_base_use_drop(source->base);
}

/* ---- quiesce: warm and cold stop the guest before its state moves ---- */

static enum nova_step_result run_quiesce(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct nova_job *job = ctx;
	struct nova_source *source = job->ctx;

	if (source->mode == NOVA_LIVE || !nova_job_was_running(job))
		return NOVA_STEP_DONE;
	source->stop_ms = nova_now_ms();
	if (source->mode == NOVA_WARM && nova_job_contents(job))
		return NOVA_STEP_DONE; /* it stops when its checkpoint is taken */
	if (source->mode == NOVA_WARM)
		return nova_job_call(job, NOVA_VERB_PAUSE, json_object(), err);
	return nova_job_call(job, NOVA_VERB_STOP, json_pack("{s:I}", "timeout", (json_int_t)nova_job_int(job, "stop-timeout")), err);
}

static enum nova_step_result undo_quiesce(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct nova_job *job = ctx;
	enum nova_guest_state state = job->entry->guest.state;

	if (!nova_job_was_running(job) || state == NOVA_GUEST_RUNNING)
		return NOVA_STEP_DONE;
	if (state == NOVA_GUEST_STOPPED)
		return nova_source_of(job)->mode == NOVA_COLD ? nova_job_call(job, NOVA_VERB_START, json_object(), err) :
								NOVA_STEP_DONE;
	return nova_job_call(job, NOVA_VERB_RESUME, json_object(), err);
}

/* ---- open, close: a guest that is shut down has nobody who reads its disks; its hypervisor does, and runs nothing ---- */

static bool cold_with_disks(const struct nova_source *source)
{
	return source->mode == NOVA_COLD && nova_disks_any(source);
}

static enum nova_step_result run_open(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct nova_job *job = ctx;

	if (!cold_with_disks(job->ctx))
		return NOVA_STEP_DONE;
	return nova_job_call(job, NOVA_VERB_START, json_pack("{s:b}", "paused", 1), err);
}

static enum nova_step_result run_close(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct nova_job *job = ctx;
	enum nova_guest_state state = job->entry->guest.state;

	if (!cold_with_disks(job->ctx) || state == NOVA_GUEST_STOPPED || state == NOVA_GUEST_FAILED)
		return NOVA_STEP_DONE;
	return nova_job_call(job, NOVA_VERB_STOP, json_pack("{s:b}", "force", 1), err);
}

static enum nova_step_result run_cold_disks(struct nova_run *run, void *ctx, struct nova_error *err)
{
	return cold_with_disks(((struct nova_job *)ctx)->ctx) ? nova_disks_run(run, ctx, err) : NOVA_STEP_DONE;
}

static enum nova_step_result undo_cold_disks(struct nova_run *run, void *ctx, struct nova_error *err)
{
	return cold_with_disks(((struct nova_job *)ctx)->ctx) ? nova_disks_undo(run, ctx, err) : NOVA_STEP_DONE;
}

static enum nova_step_result run_disks(struct nova_run *run, void *ctx, struct nova_error *err)
{
	return cold_with_disks(((struct nova_job *)ctx)->ctx) ? NOVA_STEP_DONE : nova_disks_run(run, ctx, err);
}

static enum nova_step_result undo_disks(struct nova_run *run, void *ctx, struct nova_error *err)
{
	return cold_with_disks(((struct nova_job *)ctx)->ctx) ? NOVA_STEP_DONE : nova_disks_undo(run, ctx, err);
}

/* ---- precopy ---- */

void nova_source_stop_stream(struct nova_source *source)
{
	source->pipe = nova_pipe_free(source->pipe);
	if (source->listening)
		event_free(nova_take(&source->listening));
	if (source->listen_fd >= 0)
		close(nova_take_fd(&source->listen_fd));
	if (source->path)
		unlink(source->path);
	free(nova_take(&source->path));
}

static void pipe_ended(void *arg, unsigned ended, const struct nova_error *err)
{
	struct nova_source *source = arg;
	struct nova_error why;

	if (!err || source->completed)
		return;
	why = *err;
	nova_error_prefix(&why, "stream of guest %s", source->job->guest_name);
	give_up(source->job, &why);
}

enum nova_codec nova_source_codec(const struct nova_source *source)
{
	for (enum nova_codec codec = 0; codec < NOVA_CODECS; codec++)
		if (!strcmp(nova_job_text(source->job, "codec"), nova_codec_name(codec)))
			return codec;
	return NOVA_CODEC_AUTO;
}

static int open_pipe(struct nova_source *source, int fd, struct nova_error *err)
{
	struct nova_job *job = source->job;
	NOVA_AUTOCLOSE int stream = fd;
	struct nova_pipe_options options = { .scanner = nova_job_contents(job) ? NULL : job->host->plugins->scanner };
	struct nova_channel *channel;

	options.out.codec = nova_source_codec(source);
	options.out.history_bytes = history_bytes(source);
	options.in.codec = NOVA_CODEC_NONE;
	nova_base_use_stream(source->base, &options.out, source->memory_bytes);
	if (!source->session)
		return nova_error_set(err, NOVA_LINK, "the link to %s is gone", job->peer);
	channel = source->ops->channel(source->session, NOVA_STREAM_CHANNEL, NOVA_CHANNEL_STREAM, NULL, NULL, err);
	if (!channel)
		return -1;
	source->pipe = nova_pipe_new(
	    job->host->base, source->ops, nova_take_fd(&stream), channel, &options, pipe_ended, source, err);
	return source->pipe ? 0 : -1;
}

/* QEMU connects to our socket. */
static void accept_stream(evutil_socket_t listen_fd, short what, void *arg)
{
	struct nova_source *source = arg;
	struct nova_error why;
	int fd = nova_unix_accept(listen_fd);

	if (fd < 0 && (errno == EAGAIN || errno == EINTR || errno == ECONNABORTED))
		return;
	event_del(source->listening);
	if (fd < 0)
		nova_error_sys(&why, errno, "stream of guest %s", source->job->guest_name);
	if (fd < 0 || open_pipe(source, fd, &why) < 0)
		give_up(source->job, &why);
}

/* The socket lies in the guest's own runtime directory; a guest that is files has none. */
static int name_socket(struct nova_source *source, struct nova_error *err)
{
	const struct nova_job *job = source->job;
	const char *runtime = nova_config_text(job->host->config, "runtime-dir");

	if ((nova_job_contents(job) ? asprintf(&source->path, "%s/%s.out", runtime, job->id) :
				      asprintf(&source->path, "%s/guests/%s/out.sock", runtime, job->guest_name)) < 0) {
		source->path = NULL;
		return nova_error_sys(err, ENOMEM, "guest %s", job->guest_name);
	}
	return 0;
}

int nova_source_listen(struct nova_source *source, struct nova_error *err)
{
	struct nova_job *job = source->job;

	if (name_socket(source, err) < 0)
		return -1;
	source->listen_fd = nova_unix_listen(source->path, err);
	if (source->listen_fd < 0)
		return nova_error_prefix(err, "runtime-dir");
	source->listening =
	    event_new(job->host->base, source->listen_fd, EV_READ | EV_PERSIST, accept_stream, source);
	if (!source->listening || event_add(source->listening, NULL) < 0)
		return nova_error_sys(err, ENOMEM, "socket %s", source->path);
	return 0;
}

/* QEMU has begun: the row goes on until the controller switches over, or QEMU does by itself. */
static enum nova_step_result stream_begun(struct nova_job *job, json_t *result, struct nova_error *err)
{
	struct nova_source *source = job->ctx;

	source->streaming = true;
	if (source->completed || source->held)
		return NOVA_STEP_DONE;
	return nova_watch_start(source, err) < 0 ? NOVA_STEP_FAILED : NOVA_STEP_WAIT;
}

static enum nova_step_result run_precopy(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct nova_job *job = ctx;
	struct nova_source *source = job->ctx;
	struct nova_converge_options options = {
		.downtime_ms = (int)nova_job_int(job, "downtime"),
		.max_ms = nova_job_int(job, "max-time"),
		.half_trips = 1,
		.fixed_ms = nova_watch_remember(source),
	};

	if (source->mode == NOVA_COLD && !nova_job_contents(job))
		return NOVA_STEP_DONE;
	if (nova_stall_policy_parse(nova_job_text(job, "on-stall"), &options.policy, err) < 0 ||
	    (!source->direct && nova_source_listen(source, err) < 0))
		return NOVA_STEP_FAILED;
	source->converge = nova_converge_new(&options);
	if (!source->converge) {
		nova_error_sys(err, ENOMEM, "guest %s", job->guest_name);
		return NOVA_STEP_FAILED;
	}
	return nova_job_call_then(job, NOVA_VERB_OUT_START,
	    json_pack("{s:s*, s:s, s:b, s:b, s:o*, s:O*}", "path", source->path, "mode", nova_job_text(job, "mode"), "postcopy",
		options.policy == NOVA_STALL_POSTCOPY, "hold", nova_disks_any(source), "direct",
		source->direct ? nova_path_direct(source) : NULL, "contents", nova_job_contents(job)),
	    stream_begun, err);
}

static void drop_precopy(struct nova_run *run, void *ctx)
{
	struct nova_source *source = ((struct nova_job *)ctx)->ctx;

	nova_job_drop_op(run, ctx);
	nova_watch_stop(source);
	nova_tail_stop(source);
}

static enum nova_step_result undone_precopy(struct nova_job *job, json_t *result, struct nova_error *err)
{
	nova_source_stop_stream(job->ctx);
	return NOVA_STEP_DONE;
}

/* Also from after `completed`: the driver lets the guest go on here. A restarted daemon comes here, too. */
static enum nova_step_result undo_precopy(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct nova_job *job = ctx;
	struct nova_source *source = job->ctx;

	nova_watch_stop(source);
	nova_tail_stop(source);
	if (source->mode == NOVA_COLD && !nova_job_contents(job))
		return NOVA_STEP_DONE;
	if (!source->path && nova_job_contents(job) && name_socket(source, err) < 0) /* a killed daemon's may be there */
		return NOVA_STEP_FAILED;
	if (!nova_job_contents(job) &&
	    (job->entry->guest.state == NOVA_GUEST_STOPPED || job->entry->guest.state == NOVA_GUEST_FAILED)) {
		nova_source_stop_stream(source);
		return NOVA_STEP_DONE; /* its QEMU is gone: nothing to bring back */
	}
	return nova_job_call_then(job, NOVA_VERB_OUT_CANCEL,
	    json_pack("{s:b}", "resume", source->mode != NOVA_COLD && (source->mode == NOVA_LIVE || nova_job_contents(job)) && nova_job_was_running(job)),
	    undone_precopy, err);
}

/* ---- hold: with carried disks the guest stops first, they become whole, and only then the rest goes ---- */

static enum nova_step_result run_hold(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct nova_job *job = ctx;
	struct nova_source *source = job->ctx;

	if (!nova_disks_any(source) || source->held || source->mode == NOVA_COLD)
		return NOVA_STEP_DONE;
	if (!source->session) {
		nova_error_set(err, NOVA_LINK, "the link to %s is gone", job->peer);
		return NOVA_STEP_FAILED;
	}
	if (nova_source_resume_limit(job) > NOVA_SWITCH_RESUME_MS)
		source->ops->session_limit(source->session, NOVA_SWITCH_RESUME_MS);
	return NOVA_STEP_WAIT;
}

/* ---- switchover: the guest stops, the last bytes and the device state go ---- */

static enum nova_step_result goes_on(struct nova_job *job, json_t *result, struct nova_error *err)
{
	struct nova_source *source = job->ctx;

	return source->completed || source->postcopy ? NOVA_STEP_DONE : NOVA_STEP_WAIT;
}

static enum nova_step_result run_switchover(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct nova_job *job = ctx;
	struct nova_source *source = job->ctx;

	if (source->mode == NOVA_COLD || source->completed || source->postcopy)
		return NOVA_STEP_DONE;
	if (nova_source_resume_limit(job) > NOVA_SWITCH_RESUME_MS)
		source->ops->session_limit(source->session, NOVA_SWITCH_RESUME_MS);
	if (source->held)
		return nova_job_call_then(job, NOVA_VERB_OUT_SET, json_pack("{s:b}", "go_on", 1), goes_on, err);
	return NOVA_STEP_WAIT;
}

/* ---- handover: COMMIT ---- */

/* What is no answer to the commit leaves us in doubt: the guest here is not deleted for it. */
static void commit_answered(void *arg, json_t *result, const struct nova_error *err)
{
	struct nova_error nonsense;

	nova_error_set(&nonsense, NOVA_LINK, "its answer to the commit does not say whether the guest runs");
	if (!err && !json_is_boolean(json_object_get(result, "running")))
		err = &nonsense;
	request_answered(arg, result, err);
}

static enum nova_step_result run_handover(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct nova_job *job = ctx;
	struct nova_source *source = job->ctx;
	NOVA_AUTOJSON json_t *args = NULL;
	uint8_t digest[16] = { 0 };
	uint64_t raw_bytes = 0;

	if (!source->session) {
		nova_error_set(err, NOVA_REFUSED, "the link to %s was lost before the commit was sent", job->peer);
		return NOVA_STEP_FAILED;
	}
	if (source->pipe)
		nova_pipe_digest_out(source->pipe, digest, &raw_bytes);
	/* the stream has just ended well: until now the peer was there */
	json_object_set_new(job->report, "commit_sent_ms", json_integer(nova_wall_ms()));
	json_object_set_new(job->report, "peer_heard_ms", json_integer(nova_wall_ms()));
	args = json_pack("{s:s, s:o, s:I, s:b, s:b, s:o}", "token", job->token, "digest", nova_digest_json(digest), "raw_bytes",
	    (json_int_t)raw_bytes, "postcopy", source->postcopy, "run", nova_job_was_running(job), "disks",
	    nova_disks_digests(source));
	job->op = source->ops->request(source->session, "commit", args, 50000, commit_answered, job, err);
	return job->op ? NOVA_STEP_WAIT : NOVA_STEP_FAILED;
}

/* ---- drain (postcopy): pages the running guest still waits for ---- */

static enum nova_step_result run_drain(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct nova_job *job = ctx;
	struct nova_source *source = job->ctx;
	struct nova_error lost;

	nova_tail_stop(source);
	if (source->stop_ms) /* the answer took half a round trip; the guest runs for that long */
		nova_watch_paused(source, nova_now_ms() - source->stop_ms - source->least_rtt_us / 2000);
	if (json_is_true(json_object_get(job->args, "in-postcopy")))
		source->postcopy = true; /* also after a restart */
	if (!source->postcopy || source->completed)
		return NOVA_STEP_DONE;
	if (source->session) {
		source->ops->session_limit(source->session, nova_source_resume_limit(job));
		return NOVA_STEP_WAIT;
	}
	nova_error_set(&lost, NOVA_LINK, "the link to %s is gone", job->peer);
	nova_rejoin_start(source, &lost);
	return NOVA_STEP_WAIT;
}

/* ---- release ---- */

/* Disks that stay here are older copies from now on: they make the way back cheap. */
static int remember_copies(struct nova_job *job, json_t *left, struct nova_error *err)
{
	json_t *copy;
	size_t i;

	if (!json_is_array(left))
		return 0;
	json_array_foreach (left, i, copy) {
		json_object_set_new(copy, "peer", json_string(job->peer));
		json_object_set_new(copy, "time_ms", json_integer(nova_wall_ms()));
	}
	return nova_copies_set(job->host, job->entry->uuid, left, err);
}

static enum nova_step_result released(struct nova_job *job, json_t *result, struct nova_error *err)
{
	if (remember_copies(job, json_object_get(result, "left"), err) < 0 || nova_entry_forget(job->entry, err) < 0)
		return NOVA_STEP_FAILED;
	return NOVA_STEP_DONE;
}

static enum nova_step_result run_release(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct nova_job *job = ctx;
	struct nova_source *source = job->ctx;

	nova_watch_stop(source);
	if (source->session)
		nova_watch_report(source);
	nova_source_stop_stream(source);
	nova_base_use_end(source->base, !source->postcopy && source->completed);
	nova_base_use_drop(source->base);
	source->disks = nova_disks_free(source->disks);
	source->session = source->ops->free(source->session);
	if (!job->entry)
		return NOVA_STEP_DONE;
	return nova_job_call_then(job, NOVA_VERB_DELETE,
	    json_pack("{s:b, s:b, s:O*, s:b}", "keep_disks", 1, "force", 1, "carried",
		json_object_get(job->args, "carried"), "keep_carried",
		json_is_true(json_object_get(job->args, "keep-copies"))),
	    released, err);
}

const struct nova_step nova_source_steps[] = {
	/* what          how              take it back    stop waiting       limit_ms */
	{ "preflight",   run_preflight,   NULL,           nova_job_drop_op,  150000 },
	{ "estimate",    nova_estimate_row, NULL,         nova_job_drop_op,  30000 },
	{ "connect",     run_connect,     undo_connect,   NULL,              20000 },
	{ "path",        nova_path_row,   NULL,           nova_job_drop_op,  10000 },
	{ "reserve",     run_reserve,     undo_reserve,   nova_job_drop_op,  310000 },
	{ "baseline",    run_baseline,    NULL,           drop_baseline,     0 },
	{ "disks",       run_disks,       undo_disks,     nova_disks_drop,   0 },
	{ "quiesce",     run_quiesce,     undo_quiesce,   nova_job_drop_op,  0 },
	{ "open",        run_open,        run_close,      nova_job_drop_op,  60000 },
	{ "cold disks",  run_cold_disks,  undo_cold_disks, nova_disks_drop,  0 },
	{ "precopy",     run_precopy,     undo_precopy,   drop_precopy,      0 },
	{ "hold",        run_hold,        NULL,           NULL,              60000 },
	{ "detach",      nova_disks_detach, NULL,         nova_job_drop_op,  60000 },
	{ "close",       run_close,       NULL,           nova_job_drop_op,  60000 },
	{ "switchover",  run_switchover,  NULL,           nova_job_drop_op,  60000 },
	{ "handover",    run_handover,    NULL,           nova_job_drop_op,  60000, .commit = true },
	{ "drain",       run_drain,       NULL,           NULL,              0 },
	{ "release",     run_release,     NULL,           nova_job_drop_op,  60000 },
	{ NULL },
};

/* ---- what the guest's driver says meanwhile ---- */

/* The journal has to know: from here on the source has pages that the running guest needs. */
static void on_postcopy(struct nova_source *source)
{
	struct nova_job *job = source->job;
	struct nova_error err;

	nova_rejoin_done(source);
	if (source->postcopy)
		return;
	source->postcopy = true;
	json_object_set_new(job->args, "in-postcopy", json_true());
	if (nova_job_save(job, nova_run_step(job->run)->name, false, &err) < 0)
		nova_host_log(job->host, NOVA_LOG_ERROR, "%s", err.text);
}

static void on_migration(struct nova_job *job, json_t *data)
{
	struct nova_source *source = job->ctx;
	const char *status = json_string_value(json_object_get(data, "status"));
	const char *text = json_string_value(json_object_get(data, "error"));
	struct nova_error why;

	if (!status)
		return;
	if (!strcmp(status, "completed")) {
		source->completed = true;
		json_object_set(job->report, "contents", json_object_get(data, "contents"));
	}
	else if (!strcmp(status, "pre-switchover"))
		source->held = true;
	else if (!strcmp(status, "postcopy-active"))
		on_postcopy(source);
	else if (!strcmp(status, "postcopy-paused") && row_is(job, "drain") && (!source->rejoin || source->pipe)) {
		nova_error_set(&why, NOVA_LINK, "the stream of guest %s broke", job->guest_name);
		nova_rejoin_start(source, &why);
	} else if (!strcmp(status, "failed") && !nova_run_undoing(job->run)) {
		nova_error_set(&why, NOVA_REFUSED, "%s gave up: %s",
		    nova_job_contents(job) ? "the carrying of its contents" : "the hypervisor", text ? text : "it did not say why");
		if (row_is(job, "drain"))
			nova_run_fail(job->run, &why);
		else
			give_up(job, &why);
		return;
	}
	if (row_is(job, "precopy") && source->streaming && (source->completed || source->postcopy || source->held))
		nova_run_done(job->run);
	else if (row_is(job, "hold") && source->held)
		nova_run_done(job->run);
	else if (row_is(job, "switchover") && !job->op && (source->completed || source->postcopy))
		nova_run_done(job->run);
	else if (row_is(job, "drain") && source->completed)
		nova_run_done(job->run);
}

static void on_guest(struct nova_job *job, const char *event, json_t *data)
{
	struct nova_source *source = job->ctx;
	const char *reason = json_string_value(json_object_get(data, "reason"));
	struct nova_error why;

	if (!job->run)
		return;
	if (!strcmp(event, "STOP") && !source->stop_ms && source->streaming) {
		source->stop_ms = nova_now_ms();
		source->stopped = true;
	} else if (!strcmp(event, "MIGRATION_PASS"))
		nova_watch_pass(source, json_integer_value(json_object_get(data, "pass")));
	else if (!strcmp(event, "MIGRATION"))
		on_migration(job, data);
	else if (!strcmp(event, "DISK_MIRROR"))
		nova_disks_event(source, data);
	else if (!strcmp(event, "EXIT") && !nova_run_undoing(job->run) && source->mode != NOVA_COLD &&
		 !nova_job_contents(job)) {
		nova_error_set(&why, NOVA_STATE, "guest %s ended during its migration: %s", job->guest_name,
		    reason ? reason : "unknown reason");
		give_up(job, &why);
	}
}

static void on_end(struct nova_job *job, enum nova_outcome outcome, const struct nova_error *err)
{
	struct nova_source *source = job->ctx;

	nova_watch_stop(source);
	json_object_set_new(job->report, "total_ms", json_integer(nova_now_ms() - source->begin_ms));
	if (outcome == NOVA_IN_DOUBT)
		set_state(job, NOVA_GUEST_IN_DOUBT, err->text);
	if (outcome == NOVA_LEFTOVERS && job->entry)
		nova_leftover(job->entry);
	/* It is ours, since nothing was committed, but did not go on: a way out for the operator. */
	if (outcome == NOVA_UNDO_FAILED && job->entry && job->entry->guest.state == NOVA_GUEST_MIGRATED)
		set_state(job, NOVA_GUEST_PAUSED, "the migration was taken back, but the guest did not go on: see novacron resume");
}

/* The baseline at the destination was damaged and is gone: once more, without. The guest runs here meanwhile. */
static bool again(struct nova_job *job, const struct nova_error *why)
{
	struct nova_source *old = job->ctx, *new;
	struct nova_error err;

	if (!old->base_damaged || !wants_baseline(job))
		return false;
	job->ctx = NULL;
	new = nova_source_of(job);
	job->ctx = old;
	if (!new)
		return false;
	new->begin_ms = old->begin_ms;
	source_free(job);
	job->ctx = new;
	json_object_set_new(job->args, "baseline", json_false());
	json_object_set_new(job->report, "begun_again", json_sprintf("the baseline kept by %s was damaged", job->peer));
	nova_job_token_new(job);
	nova_host_log(job->host, NOVA_LOG_WARNING, "%s: the baseline kept by %s was damaged (%s): begins again without",
	    job->id, job->peer, why->text);
	return nova_job_again(job, &err) == 0;
}

/* ---- after a restart ---- */

int nova_source_recover(struct nova_job *job, const char *step, struct nova_error *err)
{
	bool after_commit = step && (!strcmp(step, "drain") || !strcmp(step, "release"));

	if (!nova_source_of(job))
		return nova_error_sys(err, ENOMEM, "migration of %s", job->guest_name);
	if (step && !strcmp(step, "handover")) {
		nova_guest_set_state(&job->entry->guest, NOVA_GUEST_IN_DOUBT, "the daemon restarted during the handover");
		nova_doubt_start(job);
		return 0;
	}
	return nova_job_start(
	    job, nova_source_steps, step && step[0] ? step : "preflight", !after_commit, err);
}

/* ---- commands ---- */

int nova_migrate_set_rate(struct nova_job *job, uint64_t rate_bps, struct nova_error *err)
{
	struct nova_source *source = job->ctx;

	if (strcmp(job->kind, "migrate") || strcmp(job->side, "source") || !source || !source->session)
		return nova_error_set(err, NOVA_STATE, "job %s has no link whose rate could change", job->id);
	source->cap_bps = rate_bps;
	json_object_set_new(job->args, "bandwidth", json_integer((json_int_t)rate_bps));
	source->ops->session_rate(source->session, rate_bps);
	if (source->direct && source->streaming)
		nova_watch_cap(source);
	return 0;
}

static int check_migratable(struct nova_host *host, const struct nova_entry *entry, const char *mode, const char *peer,
    struct nova_error *err)
{
	enum nova_guest_state state = entry->guest.state;
	bool cold = !strcmp(mode, "cold");

	if (!json_object_get(nova_config_get(host->config, "peers"), peer))
		return nova_error_set(err, NOVA_INVALID, "there is no peer '%.60s' in the configuration: see novacron peers",
		    peer);
	if (state == NOVA_GUEST_RUNNING || state == NOVA_GUEST_PAUSED || (cold && state == NOVA_GUEST_STOPPED))
		return 0;
	return nova_error_set(err, NOVA_STATE, "guest %s is %s: %s", entry->name, nova_guest_state_name(state),
	    state == NOVA_GUEST_STOPPED ? "a stopped guest moves with --mode cold" :
					  "it can be migrated when it is running or paused");
}

static void job_begun(struct nova_host *host, struct nova_job *job, json_t **answer)
{
	*answer = json_pack("{s:s, s:s, s:s}", "job", job->id, "guest", job->guest_name, "peer", job->peer);
}

struct nova_op *nova_cmd_migrate(struct nova_host *host, const struct nova_identity *who, json_t *args, nova_done_fn done,
    void *arg, struct nova_error *err)
{
	struct nova_entry *entry = nova_entry_need(host, who, json_string_value(json_object_get(args, "guest")), err);
	const char *peer = json_string_value(json_object_get(args, "to"));
	struct nova_job *job;
	json_t *answer;

	if (!entry ||
	    check_migratable(host, entry, json_string_value(json_object_get(args, "mode")), peer, err) < 0)
		return NULL;
	job = nova_job_new(host, "migrate", "source", who, entry->name, args, err);
	if (!job)
		return NULL;
	snprintf(job->peer, sizeof(job->peer), "%s", peer);
	nova_job_token_new(job);
	if (!nova_source_of(job)) {
		nova_job_free(job);
		nova_error_sys(err, ENOMEM, "migration of %s", peer);
		return NULL;
	}
	if (nova_job_start(job, nova_source_steps, NULL, false, err) < 0)
		return NULL;
	job_begun(host, job, &answer);
	return nova_op_later(host->base, answer, NULL, done, arg, err);
}
