/* SPDX-License-Identifier: Apache-2.0
 *
 * estimate.c - `novacron estimate`: what a migration of this guest to that peer would take.
 *
 * Three sources are asked at the same time: the driver (how fast the guest changes memory, and a sample of it,
 * which goes through the codecs), the link (a probe), and the store (what the last move of this guest, or of
 * any guest to that peer, taught). estimate_model.c makes one answer of them. It is a job of the guest, so that
 * nothing else happens to it meanwhile; a migration asks the same in a row of its own.
 *
 * Not here: what page history saves of pages that are sent again, unless this guest moved there before.
 */
#include "estimate.h"
#include "cleanup.h"
#include "moves.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define CPU_SHARE 0.8 /* of the codec's speed alone: the link wants some of the processor, too */
#define CORRECTION_MOST 2.0

struct estimate {
	struct nova_op op;
	struct nova_job *job;          /* borrowed */
	struct nova_host *host;        /* borrowed */
	const struct nova_link_ops *ops;
	struct nova_session *session;  /* owned: for the probe */
	struct nova_op *driver, *content, *probe; /* owned: under way */
	json_t *dirty, *sample, *link; /* owned: answers */
	struct nova_estimate_options options;
	char peer[NOVA_NAME_MAX + 1];
	nova_done_fn done;
	void *arg;
};

static void forget_sample(const struct estimate *estimate)
{
	const char *path = json_string_value(json_object_get(estimate->dirty, "sample"));

	if (path)
		unlink(path);
}

static void estimate_free(struct estimate *estimate)
{
	nova_op_drop(estimate->driver);
	nova_op_drop(estimate->content);
	nova_op_drop(estimate->probe);
	if (estimate->ops)
		estimate->ops->free(estimate->session);
	forget_sample(estimate);
	json_decref(estimate->dirty);
	json_decref(estimate->sample);
	json_decref(estimate->link);
	free(estimate);
}

static void estimate_drop(struct nova_op *op)
{
	estimate_free((struct estimate *)op);
}

static void estimate_end(struct estimate *estimate, json_t *result, const struct nova_error *err)
{
	nova_done_fn done = estimate->done;
	void *arg = estimate->arg;
	struct nova_error why;

	if (err)
		why = *err;
	estimate_free(estimate);
	done(arg, result, err ? &why : NULL);
	json_decref(result);
}

/* ---- putting it together ---- */

static json_int_t integer(const json_t *json, const char *name)
{
	return json_integer_value(json_object_get(json, name));
}

static double real(const json_t *json, const char *name)
{
	return json_number_value(json_object_get(json, name));
}

/* The codec with which this link moves memory fastest. */
static const char *choose_codec(const json_t *sample, struct nova_estimate_input *input)
{
	static const char *const names[] = { "lz4", "zstd" };
	const char *chosen = names[0];
	double best = 0;

	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
		const json_t *codec = json_object_get(sample, names[i]);
		double ratio = real(codec, "ratio"), speed = (double)integer(codec, "bytes_per_s") * CPU_SHARE;
		double rate = (double)input->link_bytes_per_s * ratio;

		if (speed > 0 && rate > speed)
			rate = speed;
		if (rate <= best)
			continue;
		best = rate;
		chosen = names[i];
		input->ratio = ratio;
		input->codec_bytes_per_s = (uint64_t)speed;
	}
	return chosen;
}

/* Halfway between what the sample says and what the last move of this guest took. */
static double correction(const json_t *move, const json_t *sample, const struct nova_estimate_input *input)
{
	double moved = real(move, "ratio"), sampled = input->ratio / (input->full_share > 0.01 ? input->full_share : 0.01);
	double factor;

	if (moved <= 0 || sampled <= 0)
		return 1;
	if (!integer(sample, "sampled_bytes"))
		return moved; /* it is all we have */
	factor = (1 + moved / sampled) / 2;
	return factor > CORRECTION_MOST ? CORRECTION_MOST : factor < 1 / CORRECTION_MOST ? 1 / CORRECTION_MOST : factor;
}

static json_t *basis(const struct estimate *estimate, const json_t *own, const json_t *any, double factor)
{
	json_t *basis = json_object();

	json_object_set_new(basis, "dirty",
	    json_sprintf("%" JSON_INTEGER_FORMAT " ms of page sampling", integer(estimate->dirty, "dirty_ms")));
	json_object_set_new(basis, "content", !integer(estimate->sample, "sampled_bytes") ?
	    json_string("nothing: memory could not be sampled and counts as incompressible") :
	    json_sprintf("%" JSON_INTEGER_FORMAT " KiB of memory in %" JSON_INTEGER_FORMAT " places",
		integer(estimate->sample, "sampled_bytes") / 1024, integer(estimate->dirty, "sample_places")));
	json_object_set_new(basis, "link",
	    json_sprintf("a probe of %" JSON_INTEGER_FORMAT " KiB in %" JSON_INTEGER_FORMAT " ms%s",
		integer(estimate->link, "sent_bytes") / 1024, integer(estimate->link, "ms"),
		estimate->options.rate_bps ? " under the cap" : ""));
	json_object_set_new(basis, "history",
	    own ? json_sprintf("this guest's last move to %s (ratio corrected by %.2f)", estimate->peer, factor) :
	    any ? json_sprintf("another guest's last move to %s (pause only)", estimate->peer) :
		  json_sprintf("none: no guest was moved from here to %s yet", estimate->peer));
	return basis;
}

static json_t *put_together(struct estimate *estimate, const struct nova_estimate_input *in, const char *codec,
    const struct nova_estimate *out)
{
	return json_pack("{s:s, s:s, s:I, s:I, s:I, s:i, s:b, s:s, s:I, s:f, s:f, s:s, s:I, s:I, s:I, s:i, s:f, s:i, s:I}",
	    "guest", estimate->job->guest_name, "peer", estimate->peer, "time_ms", (json_int_t)out->time_ms, "wire_bytes",
	    (json_int_t)out->wire_bytes, "downtime_ms", (json_int_t)out->downtime_ms, "rounds", out->rounds, "converges",
	    out->converges, "why", out->why, "memory_bytes", (json_int_t)in->memory_bytes, "full_share", in->full_share,
	    "ratio", in->ratio, "codec", codec, "dirty_bytes_per_s", (json_int_t)in->dirty_bytes_per_s,
	    "link_bytes_per_s", (json_int_t)in->link_bytes_per_s, "codec_bytes_per_s", (json_int_t)in->codec_bytes_per_s,
	    "rtt_ms", (int)in->rtt_ms, "again_ratio", in->again_ratio, "fixed_ms", in->fixed_ms, "downtime_budget_ms",
	    (json_int_t)in->downtime_ms);
}

static void all_known(struct estimate *estimate)
{
	const char *uuid = estimate->job->entry->guest.uuid;
	NOVA_AUTOJSON json_t *own = nova_moves_last(estimate->host->store, estimate->peer, uuid, true);
	NOVA_AUTOJSON json_t *any = nova_moves_last(estimate->host->store, estimate->peer, uuid, false);
	struct nova_estimate_input input = {
		.memory_bytes = (uint64_t)integer(estimate->dirty, "memory_bytes"),
		.full_share = 1 - real(estimate->sample, "zero_share"),
		.ratio = 1,
		.dirty_bytes_per_s = (uint64_t)integer(estimate->dirty, "dirty_bytes_per_s"),
		.link_bytes_per_s = (uint64_t)integer(estimate->link, "link_bytes_per_s"),
		.rtt_ms = (uint32_t)(integer(estimate->link, "rtt_us") / 1000),
		.fixed_ms = any && integer(any, "fixed_ms") > 0 ? (int)integer(any, "fixed_ms") : NOVA_ESTIMATE_FIXED_MS,
		.downtime_ms = estimate->options.downtime_ms,
		.again_ratio = real(own, "again_ratio"),
	};
	struct nova_estimate output;
	struct nova_error err;
	const char *codec;
	double factor;
	json_t *result;

	if (!input.memory_bytes || !input.link_bytes_per_s) {
		nova_error_set(&err, NOVA_STATE, "no estimate: %s", input.memory_bytes ? "nothing came through the link" :
			       "the driver does not know the guest's memory");
		estimate_end(estimate, NULL, &err);
		return;
	}
	codec = choose_codec(estimate->sample, &input);
	factor = correction(own, estimate->sample, &input);
	input.ratio *= factor;
	if (input.ratio < 1)
		input.ratio = 1;
	nova_estimate_model(&input, &output);
	result = put_together(estimate, &input, codec, &output);
	json_object_set_new(result, "basis", basis(estimate, own, any, factor));
	json_object_set_new(result, "hopeless", json_boolean(nova_estimate_hopeless(&input, &output)));
	estimate_end(estimate, result, NULL);
}

static void look(struct estimate *estimate)
{
	if (estimate->dirty && estimate->sample && estimate->link)
		all_known(estimate);
}

/* ---- the driver's part ---- */

static void content_known(void *arg, json_t *result, const struct nova_error *err)
{
	struct estimate *estimate = arg;

	estimate->content = NULL;
	if (err) {
		estimate_end(estimate, NULL, err);
		return;
	}
	estimate->sample = json_incref(result);
	look(estimate);
}

static void driver_answered(void *arg, json_t *result, const struct nova_error *err)
{
	struct estimate *estimate = arg;
	const char *path = json_string_value(json_object_get(result, "sample"));
	struct nova_error why;

	estimate->driver = NULL;
	if (err) {
		estimate_end(estimate, NULL, err);
		return;
	}
	estimate->dirty = json_incref(result);
	if (!path) { /* then memory counts as full, and as not shrinking, unless history knows better */
		estimate->sample = json_object();
		look(estimate);
		return;
	}
	estimate->content = nova_estimate_content(estimate->host->base, path, content_known, estimate, &why);
	if (!estimate->content)
		estimate_end(estimate, NULL, &why);
}

/* ---- the link's part ---- */

static void probed(void *arg, json_t *result, const struct nova_error *err)
{
	struct estimate *estimate = arg;

	estimate->probe = NULL;
	if (err) {
		estimate_end(estimate, NULL, err);
		return;
	}
	estimate->link = json_incref(result);
	look(estimate);
}

static void session_up(void *arg, const char *peer)
{
	struct estimate *estimate = arg;
	struct nova_error err;

	estimate->probe =
	    nova_probe_start(estimate->host->base, estimate->ops, estimate->session, probed, estimate, &err);
	if (!estimate->probe)
		estimate_end(estimate, NULL, &err);
}

static void session_request(void *arg, const char *command, json_t *args, struct nova_request *request)
{
	struct estimate *estimate = arg;
	struct nova_error err;

	nova_error_set(&err, NOVA_INVALID, "not in this session");
	estimate->ops->answer(request, NULL, &err);
}

static void session_channel(void *arg, uint16_t id, enum nova_channel_kind kind, struct nova_channel *channel)
{
	channel->ops->free(channel);
}

static void session_state(void *arg, const char *state, json_t *data)
{
}

static void session_closed(void *arg, const struct nova_error *err)
{
	struct estimate *estimate = arg;
	struct nova_error why = *err;

	if (estimate->link) { /* it has told us what we wanted */
		estimate->session = estimate->ops->free(estimate->session);
		return;
	}
	nova_error_prefix(&why, "link to %s", estimate->peer);
	estimate_end(estimate, NULL, &why);
}

static const struct nova_session_events session_events = { session_up, session_request, session_channel, session_state,
	session_closed };

static int dial(struct estimate *estimate, struct nova_error *err)
{
	const struct nova_session_options options = { .rate_bps = estimate->options.rate_bps };

	if (!estimate->host->links)
		return nova_error_set(err, NOVA_STATE, "this daemon has no link to peers: set cert, key, ca and peers");
	estimate->ops = estimate->host->plugins->links;
	estimate->session =
	    estimate->ops->dial(estimate->host->links, estimate->peer, &options, &session_events, estimate, err);
	return estimate->session ? 0 : -1;
}

struct nova_op *nova_estimate_start(struct nova_job *job, const struct nova_estimate_options *options, nova_done_fn done,
    void *arg, struct nova_error *err)
{
	struct estimate *estimate = calloc(1, sizeof(*estimate));

	if (!estimate) {
		nova_error_sys(err, ENOMEM, "an estimate");
		return NULL;
	}
	estimate->op.drop = estimate_drop;
	estimate->job = job;
	estimate->host = job->host;
	estimate->options = *options;
	snprintf(estimate->peer, sizeof(estimate->peer), "%s", options->peer);
	estimate->done = done;
	estimate->arg = arg;
	estimate->driver =
	    nova_slot_call(job->slot, NOVA_VERB_ESTIMATE, &job->entry->guest, NULL, driver_answered, estimate, err);
	if (estimate->driver && dial(estimate, err) == 0)
		return &estimate->op;
	estimate_free(estimate);
	return NULL;
}

/* ---- the command ---- */

static void command_answered(void *arg, json_t *result, const struct nova_error *err)
{
	struct nova_job *job = arg;

	job->op = NULL;
	if (err) {
		nova_run_fail(job->run, err);
		return;
	}
	job->result = json_incref(result);
	json_object_set(job->report, "estimate", result);
	nova_run_done(job->run);
}

static enum nova_step_result run_estimate(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct nova_job *job = ctx;
	const struct nova_estimate_options options = {
		.peer = job->peer,
		.downtime_ms = (int)integer(job->args, "downtime"),
		.rate_bps = (uint64_t)integer(job->args, "bandwidth"),
	};

	job->op = nova_estimate_start(job, &options, command_answered, job, err);
	return job->op ? NOVA_STEP_WAIT : NOVA_STEP_FAILED;
}

const struct nova_step nova_estimate_steps[] = {
	{ "measure", run_estimate, NULL, nova_job_drop_op, 30000 },
	{ NULL },
};

struct nova_op *nova_cmd_estimate(struct nova_host *host, const struct nova_identity *who, json_t *args, nova_done_fn done,
    void *arg, struct nova_error *err)
{
	struct nova_entry *entry = nova_entry_need(host, who, json_string_value(json_object_get(args, "guest")), err);
	const char *peer = json_string_value(json_object_get(args, "to"));
	struct nova_job *job;

	if (!entry)
		return NULL;
	if (!json_object_get(nova_config_get(host->config, "peers"), peer)) {
		nova_error_set(err, NOVA_INVALID, "there is no peer '%.60s' in the configuration: see novacron peers", peer);
		return NULL;
	}
	if (entry->guest.state != NOVA_GUEST_RUNNING && entry->guest.state != NOVA_GUEST_PAUSED) {
		nova_error_set(err, NOVA_STATE, "guest %s is %s: only a running or paused guest can be estimated", entry->name,
		    nova_guest_state_name(entry->guest.state));
		return NULL;
	}
	job = nova_job_new(host, "estimate", "local", who, entry->name, args, err);
	if (!job)
		return NULL;
	snprintf(job->peer, sizeof(job->peer), "%s", peer);
	if (nova_job_start(job, nova_estimate_steps, NULL, false, err) < 0)
		return NULL;
	return nova_job_wait(job, done, arg, err);
}
