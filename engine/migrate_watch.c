/* SPDX-License-Identifier: Apache-2.0
 *
 * migrate_watch.c - a look at a running precopy every NOVA_TICK_MS: the driver's figures and the link's go
 * to the convergence controller, its decisions go back to the driver, and users get a progress event four
 * times a second. The report at the end comes from the same figures.
 */
#include "cleanup.h"
#include "migrate.h"

#include "moves.h"

#include <errno.h>
#include <event2/event.h>
#include <stdio.h>
#include <string.h>

#define SWITCH_LIMIT_MS 2000000 /* QEMU's largest downtime-limit: switch at the next look */
#define QUEUE_MS 25             /* of encoded stream beyond what the link itself holds, from the second round on */
#define QUEUE_LEAST (64u << 10) /* bytes */
#define DIRECT_RATE_MS 250      /* over which the hypervisor's own rate is taken */
#define HALT_HOLD_MS 2000       /* longest hold while the guest is being halted */
#define HELD_MOST (8u << 20)    /* bytes: more than a socket holds is a difference in how they are counted */

static void look(struct nova_source *source);

static void link_stats(const struct nova_source *source, struct nova_link_stats *stats)
{
	memset(stats, 0, sizeof(*stats));
	if (source->session)
		source->ops->stats(source->session, stats);
}

static uint64_t wire_sent(const struct nova_source *source, const struct nova_link_stats *stats)
{
	return stats->wire_sent_bytes + (source->direct ? source->sample.transferred_bytes : 0);
}

/* What the link can carry: the cap if there is one and it is being used, else the best second so far. */
static uint64_t link_rate(struct nova_source *source, const struct nova_link_stats *stats)
{
	uint64_t cap = source->cap_bps / 8, now = stats->rate_now_bps / 8;

	if (now > source->link_peak_bytes_per_s)
		source->link_peak_bytes_per_s = now;
	if (stats->queued_bytes > 1 << 20 && now > 0)
		source->link_peak_bytes_per_s = now; /* the link is the bottleneck: believe what it does now */
	if (cap && (source->link_peak_bytes_per_s > cap || source->link_peak_bytes_per_s < cap / 2))
		return cap;
	return source->link_peak_bytes_per_s;
}

/* Encoded and not there yet. What was consumed over there is known a round trip later: that much of the
 * unacknowledged has arrived, or is on its way as it would be on an empty link. */
static uint64_t in_flight(const struct nova_source *source, const struct nova_pipe_stats *pipe)
{
	uint64_t travelling = source->sample.link_bytes_per_s * source->least_rtt_us / 1000000;

	return pipe->unacknowledged_bytes > travelling ? pipe->unacknowledged_bytes - travelling : 0;
}

/* On the direct path what the hypervisor has sent is what was on the wire. Pages of zeros are hardly any bytes:
 * the link's rate is the best that was seen. */
static void fill_direct(struct nova_source *source)
{
	struct nova_sample *sample = &source->sample;
	int64_t ms = sample->now_ms - source->direct_rate.ms;
	uint64_t cap = source->cap_bps / 8, rate = 0;

	if (source->direct_rate.ms && ms >= DIRECT_RATE_MS)
		rate = (sample->transferred_bytes - source->direct_rate.bytes) * 1000 / (uint64_t)ms;
	if (!source->direct_rate.ms || ms >= DIRECT_RATE_MS) {
		source->direct_rate.ms = sample->now_ms;
		source->direct_rate.bytes = sample->transferred_bytes;
		source->direct_rate.bytes_per_s = rate;
	}
	if (rate > source->link_peak_bytes_per_s)
		source->link_peak_bytes_per_s = rate;
	sample->wire_bytes = sample->transferred_bytes;
	sample->held_bytes = sample->in_flight_bytes = 0;
	sample->link_bytes_per_s =
	    cap && source->link_peak_bytes_per_s > cap ? cap : source->link_peak_bytes_per_s;
}

static void fill_relayed(
    struct nova_source *source, const struct nova_pipe_stats *pipe, const struct nova_link_stats *stats)
{
	struct nova_sample *sample = &source->sample;
	/* What the hypervisor has sent and we have not read yet lies in its socket. */
	uint64_t held = sample->transferred_bytes > pipe->out.raw_bytes ? sample->transferred_bytes - pipe->out.raw_bytes : 0;

	sample->held_bytes = held < HELD_MOST ? held : 0;
	sample->wire_bytes = pipe->out.encoded_bytes;
	sample->transferred_bytes = pipe->out.raw_bytes;
	sample->link_bytes_per_s = link_rate(source, stats);
	sample->in_flight_bytes = in_flight(source, pipe);
	/* The first round is long and fills the link; in later ones, one of which is the last, every byte that
	 * queues is pause. */
	if (source->pipe && sample->iteration > 1 && source->mode == NOVA_LIVE && sample->link_bytes_per_s)
		nova_pipe_limit(source->pipe,
		    sample->link_bytes_per_s * (source->least_rtt_us / 1000 + QUEUE_MS) / 1000 + QUEUE_LEAST);
}

static void fill_sample(struct nova_source *source, const json_t *answer)
{
	struct nova_pipe_stats pipe = { 0 };
	struct nova_link_stats stats;
	struct nova_disks_sum disks;
	struct nova_error ignored;

	link_stats(source, &stats);
	if (source->pipe)
		nova_pipe_stats(source->pipe, &pipe);
	nova_sample_read(&source->sample, answer, &ignored);
	nova_disks_sum(source, &disks);
	source->sample.remaining_bytes += disks.remaining_bytes; /* they go in the same pause */
	source->sample.now_ms = nova_now_ms();
	/* Without a queue: what waits in ours is counted by its bytes. */
	if (stats.rtt_min_us && (!source->least_rtt_us || stats.rtt_min_us < source->least_rtt_us))
		source->least_rtt_us = stats.rtt_min_us;
	source->sample.rtt_ms = source->least_rtt_us / 1000;
	if (source->direct)
		fill_direct(source);
	else
		fill_relayed(source, &pipe, &stats);
	source->sample.postcopy_possible =
	    !strcmp(json_string_value(json_object_get(source->job->args, "on-stall")), "postcopy");
}

static void set_failed(void *arg, json_t *result, const struct nova_error *err)
{
	struct nova_source *source = arg;

	source->query = NULL;
	if (err)
		nova_host_log(source->job->host, NOVA_LOG_WARNING, "%s: %s", source->job->id, err->text);
}

/* Tell the driver; the answer takes the place of the next look. */
static void set(struct nova_source *source, json_t *args)
{
	struct nova_job *job = source->job;
	struct nova_error err;

	nova_op_drop(nova_take(&source->query));
	source->query =
	    nova_slot_call(job->slot, NOVA_VERB_OUT_SET, &job->entry->guest, args, set_failed, source, &err);
	if (!source->query)
		nova_host_log(job->host, NOVA_LOG_WARNING, "%s: %s", job->id, err.text);
	json_decref(args);
}

/* The guest is halted, or (its driver cannot do that) QEMU is told to switch when it likes. */
static void halted(void *arg, json_t *result, const struct nova_error *err)
{
	struct nova_source *source = arg;

	source->query = NULL;
	if (err && err->category == NOVA_INVALID) {
		set(source, json_pack("{s:i}", "downtime_limit_ms", SWITCH_LIMIT_MS));
		return;
	}
	if (err)
		nova_host_log(source->job->host, NOVA_LOG_WARNING, "%s: %s", source->job->id, err->text);
	source->halted = json_is_true(json_object_get(result, "halted"));
	if (source->settle_ms && source->pipe)
		nova_pipe_hold(source->pipe, 0);
	/* With carried disks the stream is not over when the guest has stopped: "completed" tells. */
	if (source->halted && !nova_disks_any(source))
		nova_tail_start(source);
}

static void switch_over(struct nova_source *source)
{
	struct nova_job *job = source->job;
	NOVA_AUTOJSON json_t *args = json_pack("{s:b, s:i}", "halt", 1, "downtime_limit_ms", SWITCH_LIMIT_MS);
	struct nova_error err;

	source->switching = true;
	if (source->settle_ms && source->pipe) /* no further count before the guest stands still */
		nova_pipe_hold(source->pipe, HALT_HOLD_MS);
	nova_op_drop(nova_take(&source->query));
	source->query = nova_slot_call(job->slot, NOVA_VERB_OUT_SET, &job->entry->guest, args, halted, source, &err);
	if (!source->query)
		nova_host_log(job->host, NOVA_LOG_WARNING, "%s: %s", job->id, err.text);
	nova_run_done(job->run);
}

static void act(struct nova_source *source, const struct nova_converge_decision *decision)
{
	struct nova_job *job = source->job;
	struct nova_error why, ignored;

	if (decision->action != NOVA_CONVERGE_CONTINUE)
		nova_host_log(job->host, NOVA_LOG_INFO, "%s: %s: %s", job->id,
		    nova_converge_action_name(decision->action), decision->reason);
	switch (decision->action) {
	case NOVA_CONVERGE_SWITCH:
		switch_over(source);
		break;
	case NOVA_CONVERGE_POSTCOPY:
		source->switching = source->to_postcopy = true;
		nova_run_done(job->run);
		break;
	case NOVA_CONVERGE_THROTTLE:
		set(source, json_pack("{s:i}", "throttle_percent", decision->throttle_percent));
		break;
	case NOVA_CONVERGE_ABORT:
		nova_error_set(&why, NOVA_REFUSED, "does not converge: %s", decision->reason);
		nova_run_cancel(job->run, &why, &ignored);
		break;
	default:
		break;
	}
}

/* ---- a hypervisor that misses writes right after a count ---- */

static bool settling(const struct nova_source *source)
{
	return source->settling && evtimer_pending(source->settling, NULL);
}

static void settled(evutil_socket_t fd, short what, void *arg)
{
	look(arg);
}

/* An emulator takes up to some ms to track all that a guest writes again after dirty pages were counted, and what
 * was sent and written to in between is lost, unless the guest writes there once more. So each round stands
 * still at its beginning while the guest runs on, and the guest is not halted before that is over. */
static void settle(struct nova_source *source)
{
	const struct timeval wait = nova_timeval_ms(source->settle_ms);

	if (!source->settling)
		source->settling = evtimer_new(source->job->host->base, settled, source);
	if (!source->settling)
		return;
	nova_pipe_hold(source->pipe, source->settle_ms);
	event_add(source->settling, &wait);
}

static void decide(struct nova_source *source)
{
	const struct nova_run *run = source->job->run;
	const struct nova_converge_decision *decision;

	/* Between the count of a new round and its announcement the remaining bytes are the old round's. */
	if (source->pass && source->sample.iteration > source->pass)
		return;
	if (source->switching || source->mode != NOVA_LIVE || nova_run_undoing(run) || settling(source) ||
	    strcmp(nova_run_step(run)->name, "precopy"))
		return;
	decision = nova_converge_poll(source->converge, &source->sample);
	source->last_predicted_ms = decision->predicted_downtime_ms;
	act(source, decision);
}

/* The codec in use, and its level: "zstd-3". */
static void codec_name(const struct nova_source *source, char *name, size_t size)
{
	size_t count = 0;
	const struct nova_codec_choice *choices = source->pipe ? nova_pipe_choices(source->pipe, &count) : NULL;
	const char *asked = json_string_value(json_object_get(source->job->args, "codec"));

	if (!source->pipe)
		snprintf(name, size, "%s", source->direct ? "multifd" : "");
	else if (!count)
		snprintf(name, size, "%s", asked && strcmp(asked, "auto") ? asked : "");
	else if (choices[count - 1].level)
		snprintf(name, size, "%s-%d", nova_codec_name(choices[count - 1].codec), choices[count - 1].level);
	else
		snprintf(name, size, "%s", nova_codec_name(choices[count - 1].codec));
}

static void keep_point(struct nova_source *source)
{
	const struct nova_sample *sample = &source->sample;
	struct nova_point point = {
		.ms = nova_now_ms() - source->begin_ms,
		.iteration = sample->iteration,
		.remaining_bytes = (int64_t)sample->remaining_bytes,
		.dirty_bytes_per_s = (int64_t)sample->dirty_bytes_per_s,
		.raw_bytes = (int64_t)sample->transferred_bytes,
		.link_bytes_per_s = (int64_t)sample->link_bytes_per_s,
		.predicted_downtime_ms = source->last_predicted_ms,
		.throttle_percent = json_integer_value(json_object_get(source->last, "throttle_percent")),
	};
	struct nova_link_stats stats;

	link_stats(source, &stats);
	point.wire_bytes = (int64_t)wire_sent(source, &stats);
	codec_name(source, point.codec, sizeof(point.codec));
	nova_series_add(source->series, &point);
}

static void looked(void *arg, json_t *result, const struct nova_error *err)
{
	struct nova_source *source = arg;

	source->query = NULL;
	if (err) /* QEMU's end is told by its events; a slow answer only means no news */
		return;
	json_decref(source->last);
	source->last = json_incref(result);
	fill_sample(source, result);
	if (nova_now_ms() - source->progress_ms >= NOVA_PROGRESS_MS)
		nova_watch_progress(source, NULL);
	keep_point(source);
	if (!source->reconnect_limit_ms) /* the figures say nothing while nothing flows */
		decide(source);
	if (source->look_again && !source->query)
		look(source);
}

static void look(struct nova_source *source)
{
	struct nova_job *job = source->job;
	struct nova_error err;

	if (source->query || !job->entry) {
		source->look_again = true;
		return;
	}
	source->look_again = false;
	source->query = nova_slot_call(job->slot, NOVA_VERB_OUT_QUERY, &job->entry->guest, NULL, looked, source, &err);
	if (!source->query)
		nova_host_log(job->host, NOVA_LOG_DEBUG, "%s: %s", job->id, err.text);
}

static void tick(evutil_socket_t fd, short what, void *arg)
{
	struct nova_source *source = arg;

	if (!source->query)
		look(source);
}

void nova_watch_pass(struct nova_source *source, int64_t pass)
{
	source->pass = pass;
	if (source->settle_ms && pass > 1 && source->pipe && source->mode == NOVA_LIVE && !source->switching)
		settle(source);
	if (source->tick)
		look(source);
}

int nova_watch_start(struct nova_source *source, struct nova_error *err)
{
	const struct timeval period = nova_timeval_ms(NOVA_TICK_MS);

	source->tick = event_new(source->job->host->base, -1, EV_PERSIST, tick, source);
	if (!source->tick || event_add(source->tick, &period) < 0)
		return nova_error_sys(err, ENOMEM, "guest %s", source->job->guest_name);
	return 0;
}

void nova_watch_cap(struct nova_source *source)
{
	set(source, json_pack("{s:I}", "bandwidth_bytes_per_s", (json_int_t)source->cap_bps / 8));
}

void nova_watch_stop(struct nova_source *source)
{
	nova_op_drop(nova_take(&source->query));
	if (source->tick)
		event_free(nova_take(&source->tick));
	if (source->settling)
		event_free(nova_take(&source->settling));
}

/* ---- what users see ---- */

/* Memory and disks together; before the first look memory is all there is to do. */
static int percent_of_all(const struct nova_source *source, const struct nova_disks_sum *disks)
{
	uint64_t memory = source->sample.total_bytes ? source->sample.total_bytes : source->memory_bytes;
	uint64_t left = source->sample.total_bytes ? source->sample.remaining_bytes : memory + disks->remaining_bytes;
	uint64_t total = memory + disks->total_bytes;

	return left < total ? (int)((total - left) * 100 / total) : 0;
}

static int percent_done(const struct nova_sample *sample)
{
	if (!sample->total_bytes || sample->iteration > 1)
		return sample->total_bytes ? 100 - (int)(sample->remaining_bytes * 100 / sample->total_bytes) : 0;
	return (int)((sample->total_bytes - sample->remaining_bytes) * 100 / sample->total_bytes);
}

static void add_int(json_t *object, const char *name, int64_t value)
{
	json_object_set_new(object, name, json_integer(value));
}

void nova_watch_progress(struct nova_source *source, const char *phase)
{
	struct nova_job *job = source->job;
	const struct nova_sample *sample = &source->sample;
	const struct nova_step *step = job->run ? nova_run_step(job->run) : NULL;
	struct nova_pipe_stats pipe = { 0 };
	struct nova_disks_sum disks;
	struct nova_link_stats stats;
	json_t *event;

	link_stats(source, &stats);
	nova_disks_sum(source, &disks);
	if (source->pipe)
		nova_pipe_stats(source->pipe, &pipe);
	source->progress_ms = nova_now_ms();
	event = json_pack("{s:s, s:s, s:s, s:s, s:s, s:b}", "job", job->id, "kind", job->kind, "guest", job->guest_name,
	    "peer", job->peer, "phase", phase ? phase : step ? step->name : "", "undoing",
	    job->run && nova_run_undoing(job->run));
	if (job->entry)
		json_object_set_new(event, "owner", json_string(job->entry->owner));
	add_int(event, "elapsed_ms", source->progress_ms - source->begin_ms);
	add_int(event, "iteration", sample->iteration);
	add_int(event, "percent", source->disks ? percent_of_all(source, &disks) : percent_done(sample));
	add_int(event, "total_bytes", (int64_t)(sample->total_bytes + disks.total_bytes));
	add_int(event, "remaining_bytes",
	    (int64_t)(sample->total_bytes ? sample->remaining_bytes : disks.remaining_bytes));
	if (source->disks) {
		add_int(event, "disk_total_bytes", (int64_t)disks.total_bytes);
		add_int(event, "disk_done_bytes", (int64_t)disks.done_bytes);
		add_int(event, "disk_same_bytes", (int64_t)disks.ways.same_bytes);
	}
	add_int(event, "dirty_bytes_per_s", (int64_t)sample->dirty_bytes_per_s);
	add_int(event, "raw_bytes", (int64_t)(source->direct ? sample->transferred_bytes : pipe.out.raw_bytes));
	add_int(event, "wire_bytes", (int64_t)wire_sent(source, &stats));
	add_int(event, "rate_bps",
	    (int64_t)(source->direct ? source->direct_rate.bytes_per_s * 8 : stats.rate_now_bps));
	add_int(event, "cap_bps", (int64_t)source->cap_bps);
	add_int(event, "rtt_us", stats.rtt_us);
	add_int(event, "throttle_percent", json_integer_value(json_object_get(source->last, "throttle_percent")));
	add_int(event, "predicted_downtime_ms", source->last_predicted_ms);
	if (source->sample.link_bytes_per_s && pipe.out.raw_bytes)
		add_int(event, "eta_ms",
		    (int64_t)((double)sample->remaining_bytes * pipe.out.encoded_bytes / pipe.out.raw_bytes * 1000 /
			      source->sample.link_bytes_per_s));
	if (pipe.out.encoded_bytes)
		json_object_set_new(event, "ratio", json_real((double)pipe.out.raw_bytes / pipe.out.encoded_bytes));
	if (source->rejoin) { /* without a limit */
		add_int(event, "reconnect_waited_ms", nova_rejoin_waited_ms(source));
	} else if (source->reconnect_limit_ms) {
		add_int(event, "reconnect_waited_ms", source->reconnect_waited_ms);
		add_int(event, "reconnect_limit_ms", source->reconnect_limit_ms);
	}
	nova_metrics_set(job->host->metrics, "novacron_migration_remaining_bytes", job->guest_name,
	    (double)sample->remaining_bytes);
	nova_host_emit(job->host, "JOB_PROGRESS", event);
}

static void report_codec(json_t *report, const struct nova_codec_stats *stats)
{
	json_object_set_new(report, "codec",
	    json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "pages", (json_int_t)stats->pages, "fill_pages",
		(json_int_t)stats->fill_pages, "same_pages", (json_int_t)stats->same_pages, "delta_pages",
		(json_int_t)stats->delta_pages, "reference_pages", (json_int_t)stats->reference_pages, "raw_pages",
		(json_int_t)stats->raw_pages, "baseline_pages",
		(json_int_t)stats->baseline_pages, "baseline_delta_pages", (json_int_t)stats->baseline_delta_pages, "blocks", (json_int_t)stats->blocks, "busy_us",
		(json_int_t)stats->busy_us));
}

/* What the adaptive codec chose, first to last. */
static void report_choices(json_t *report, const struct nova_pipe *pipe)
{
	size_t count;
	const struct nova_codec_choice *choice = nova_pipe_choices(pipe, &count);
	json_t *rows;

	if (!count || !(rows = json_array()))
		return;
	for (; count; count--, choice++)
		json_array_append_new(rows,
		    json_pack("{s:I, s:s, s:i, s:I, s:I, s:f, s:I, s:I}", "ms", (json_int_t)choice->t_ms, "codec",
			nova_codec_name(choice->codec), "level", choice->level, "link_bytes_per_s",
			(json_int_t)choice->link_Bps, "codec_bytes_per_s", (json_int_t)choice->codec_Bps, "ratio",
			choice->ratio, "raw_bytes", (json_int_t)choice->raw_bytes, "encoded_bytes",
			(json_int_t)choice->encoded_bytes));
	json_object_set_new(report, "codec_choices", rows);
}

/* ---- what is remembered ---- */

int nova_watch_remember(struct nova_source *source)
{
	struct nova_job *job = source->job;
	NOVA_AUTOJSON json_t *move = nova_moves_last(job->host->store, job->peer, job->entry->guest.uuid, false);
	json_int_t fixed_ms = json_integer_value(json_object_get(move, "fixed_ms"));

	return fixed_ms > 0 && fixed_ms < 10000 ? (int)fixed_ms : 0;
}

void nova_watch_paused(struct nova_source *source, int64_t downtime_ms)
{
	json_t *report = source->job->report;

	add_int(report, "downtime_ms", downtime_ms > 0 ? downtime_ms : 0);
	if (source->mode != NOVA_LIVE || source->postcopy || source->last_predicted_ms <= 0)
		return;
	add_int(report, "predicted_downtime_ms", source->last_predicted_ms);
	/* Otherwise the hypervisor chose the moment, or the answer was lost: nothing to learn from. */
	if (source->switching && !json_object_get(report, "in_doubt"))
		nova_converge_learn(source->converge, downtime_ms);
}

static void remember(struct nova_source *source, const struct nova_pipe_stats *pipe, const struct nova_link_stats *stats)
{
	struct nova_job *job = source->job;
	NOVA_AUTOJSON json_t *move = NULL;
	struct nova_error err;

	if (source->mode != NOVA_LIVE || !job->entry || !stats->wire_sent_bytes)
		return;
	/* Nothing of a direct one holds for the relay, which is what estimates are for; of one that a restart interrupted
	 * only the end is known. */
	if (source->direct || !source->converge)
		return;
	move = json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:O*, s:O*, s:i, s:I, s:I, s:f, s:f}", "uuid", job->entry->guest.uuid,
	    "at_ms", (json_int_t)nova_wall_ms(), "memory_bytes", (json_int_t)source->memory_bytes, "raw_bytes",
	    (json_int_t)pipe->out.raw_bytes, "wire_bytes", (json_int_t)stats->wire_sent_bytes, "total_ms",
	    (json_int_t)(nova_now_ms() - source->begin_ms), "downtime_ms", json_object_get(job->report, "downtime_ms"),
	    "predicted_downtime_ms", json_object_get(job->report, "predicted_downtime_ms"), "fixed_ms",
	    nova_converge_fixed_ms(source->converge), "link_bytes_per_s", (json_int_t)source->sample.link_bytes_per_s,
	    "rtt_ms", (json_int_t)source->sample.rtt_ms, "ratio",
	    (double)source->memory_bytes / (double)stats->wire_sent_bytes, "again_ratio",
	    nova_converge_again_ratio(source->converge));
	if (!move || nova_moves_add(job->host->store, job->peer, move, &err) < 0)
		nova_host_log(job->host, NOVA_LOG_WARNING, "%s: not remembered for predictions: %s", job->id,
		    move ? err.text : "no figures");
}

void nova_watch_report(struct nova_source *source)
{
	struct nova_job *job = source->job;
	json_t *report = job->report, *decisions;
	struct nova_pipe_stats pipe = { 0 };
	struct nova_link_stats stats;

	link_stats(source, &stats);
	if (source->pipe)
		nova_pipe_stats(source->pipe, &pipe);
	json_object_set_new(report, "mode", json_incref(json_object_get(job->args, "mode")));
	json_object_set_new(report, "postcopy", json_boolean(source->postcopy));
	add_int(report, "guest_memory_bytes", (int64_t)source->memory_bytes);
	add_int(report, "raw_bytes", (int64_t)(source->direct ? source->sample.transferred_bytes : pipe.out.raw_bytes));
	add_int(report, "encoded_bytes", (int64_t)pipe.out.encoded_bytes);
	add_int(report, "wire_bytes", (int64_t)(wire_sent(source, &stats) + stats.wire_received_bytes));
	add_int(report, "resent_bytes", (int64_t)stats.resent_bytes);
	add_int(report, "reconnects", stats.reconnects);
	add_int(report, "rtt_us", stats.rtt_us);
	add_int(report, "lanes", stats.lanes);
	add_int(report, "iterations", source->sample.iteration);
	add_int(report, "qemu_downtime_ms", json_integer_value(json_object_get(source->last, "downtime_ms")));
	if (pipe.out.encoded_bytes)
		json_object_set_new(report, "ratio", json_real((double)pipe.out.raw_bytes / pipe.out.encoded_bytes));
	report_codec(report, &pipe.out);
	if (source->pipe) {
		report_choices(report, source->pipe);
		add_int(report, "longest_turn_us", (int64_t)pipe.longest_turn_us);
		add_int(report, "longest_turn_cpu_us", (int64_t)pipe.longest_turn_cpu_us);
	}
	if (source->disks)
		json_object_set_new(report, "disks", nova_disks_report(source));
	decisions = source->converge ? nova_converge_report(source->converge) : NULL;
	if (decisions)
		json_object_set_new(report, "convergence", decisions);
	json_object_set_new(report, "series", nova_series_json(source->series));
	remember(source, &pipe, &stats);
	nova_metrics_add(job->host->metrics, "novacron_migration_raw_bytes_total", "source", (double)pipe.out.raw_bytes);
	nova_metrics_add(
	    job->host->metrics, "novacron_migration_wire_bytes_total", "source", (double)stats.wire_sent_bytes);
	nova_metrics_set(job->host->metrics, "novacron_migration_downtime_ms", job->guest_name,
	    (double)json_integer_value(json_object_get(report, "downtime_ms")));
}
