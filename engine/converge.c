/* SPDX-License-Identifier: Apache-2.0
 *
 * converge.c - the convergence controller of converge.h. A round is one pass of the hypervisor over dirty
 * memory. What a round began with (its remaining bytes right after the sync) says whether precopy still
 * gains: when that has not shrunk for stall_rounds rounds, precopy is stalled and the user's policy
 * decides, at the next local minimum of the remaining bytes. The first round never ends in a switch: what
 * the guest writes during it is known only after its sync. Not here: how a decision is carried out.
 */
#include "converge.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEFAULT_DOWNTIME_MS 300
#define DEFAULT_STALL_ROUNDS 3
#define DEFAULT_FIXED_MS 50
#define DEFAULT_HALF_TRIPS 3
#define RATIO_BYTES (4u << 20)  /* raw bytes between two looks at how well they shrink, in the first round */
#define AGAIN_BYTES (512u << 10) /* and of pages that are sent again */
#define SPEED_MS 50             /* least time over which the encoder's speed is taken */
#define WORTH_MS 15             /* of pause to be gained: worth to let a round go on */
#define THROTTLE_FIRST 20
#define THROTTLE_STEP 20
#define THROTTLE_MOST 99
#define LOG_FIRST 16 /* decisions kept from the beginning */
#define LOG_LAST 48  /* and from the end */
#define ROUNDS_KEPT 64
#define SHRINKS 0.95 /* a round gains if it begins with less than this share of the one before */

struct entry {
	int64_t at_ms, iteration;
	enum nova_converge_action action;
	uint64_t remaining_bytes;
	int64_t predicted_ms;
	char reason[192];
};

struct round {
	int64_t at_ms, iteration;
	uint64_t remaining_bytes, dirty_bytes_per_s, link_bytes_per_s, wire_bytes;
	int64_t predicted_ms;
};

struct nova_converge {
	struct nova_converge_options options;
	struct nova_converge_decision decision;
	struct nova_sample last;
	bool begun;
	int64_t begin_ms;
	int64_t round_iteration;
	uint64_t round_begin_bytes; /* remaining at the begin of this round, and of the best one so far */
	uint64_t best_begin_bytes;
	int64_t round_ms; /* when this round began */
	int64_t least_ms, last_least_ms; /* shortest predicted pause of this round and the one before; -1: none */
	int rounds_without_gain;
	int throttle;
	double window_ratio;        /* raw bytes for an encoded byte, lately */
	uint64_t window_raw, window_wire;
	bool sends_again;           /* the window holds pages of later rounds only */
	bool ratio_is_old;          /* nothing of the kind that is sent now was measured yet */
	double speed;               /* most raw bytes a second that were taken; 0: unknown */
	int64_t speed_ms;           /* since when, and from which raw byte on, it is measured */
	uint64_t speed_raw;
	int64_t fits_since;         /* iteration in which the pause fitted first; 0: it did not */
	int64_t fitted_ms;          /* and what it was at the last look when it did */
	struct entry log[LOG_FIRST + LOG_LAST];
	size_t log_count;
	struct round rounds[ROUNDS_KEPT];
	size_t round_count;
};

static const char *const policy_names[] = { "wait", "force", "throttle", "postcopy", "abort" };
static_assert(sizeof(policy_names) / sizeof(*policy_names) == NOVA_STALL_POLICIES, "a name for each policy");
static const char *const action_names[] = { "continue", "switch", "throttle", "postcopy", "abort" };
static_assert(sizeof(action_names) / sizeof(*action_names) == NOVA_CONVERGE_ACTIONS, "a name for each action");

const char *nova_stall_policy_name(enum nova_stall_policy policy)
{
	return (unsigned)policy < NOVA_STALL_POLICIES ? policy_names[policy] : "unknown";
}

const char *nova_converge_action_name(enum nova_converge_action action)
{
	return (unsigned)action < NOVA_CONVERGE_ACTIONS ? action_names[action] : "unknown";
}

int nova_stall_policy_parse(const char *text, enum nova_stall_policy *policy, struct nova_error *err)
{
	for (enum nova_stall_policy i = 0; i < NOVA_STALL_POLICIES; i++)
		if (!strcmp(policy_names[i], text)) {
			*policy = i;
			return 0;
		}
	return nova_error_set(err, NOVA_INVALID, "'%.40s' is not a stall policy: " NOVA_STALL_CHOICES, text);
}

void nova_converge_set(struct nova_converge *converge, const struct nova_converge_options *options)
{
	int fixed_ms = converge->options.fixed_ms;

	converge->options = *options;
	if (!options->downtime_ms)
		converge->options.downtime_ms = DEFAULT_DOWNTIME_MS;
	if (!options->stall_rounds)
		converge->options.stall_rounds = DEFAULT_STALL_ROUNDS;
	if (!options->fixed_ms)
		converge->options.fixed_ms = fixed_ms ? fixed_ms : DEFAULT_FIXED_MS;
	if (!options->half_trips)
		converge->options.half_trips = DEFAULT_HALF_TRIPS;
}

struct nova_converge *nova_converge_new(const struct nova_converge_options *options)
{
	struct nova_converge *converge = calloc(1, sizeof(*converge));

	if (!converge)
		return NULL;
	nova_converge_set(converge, options);
	converge->window_ratio = 1;
	converge->least_ms = converge->last_least_ms = -1;
	converge->decision.predicted_downtime_ms = converge->decision.eta_ms = -1; /* nothing is known yet */
	return converge;
}

struct nova_converge *nova_converge_free(struct nova_converge *converge)
{
	free(converge);
	return NULL;
}

/* ---- samples ---- */

static const struct {
	const char *name;
	size_t offset;
} fields[] = {
	{ "iteration", offsetof(struct nova_sample, iteration) },
	{ "remaining_bytes", offsetof(struct nova_sample, remaining_bytes) },
	{ "total_bytes", offsetof(struct nova_sample, total_bytes) },
	{ "dirty_bytes_per_s", offsetof(struct nova_sample, dirty_bytes_per_s) },
	{ "transferred_bytes", offsetof(struct nova_sample, transferred_bytes) },
};

int nova_sample_read(struct nova_sample *sample, const json_t *answer, struct nova_error *err)
{
	for (size_t i = 0; i < sizeof(fields) / sizeof(*fields); i++) {
		const json_t *value = json_object_get(answer, fields[i].name);

		if (!value || json_is_null(value))
			continue;
		if (!json_is_integer(value) || json_integer_value(value) < 0)
			return nova_error_set(
			    err, NOVA_INVALID, "migration figures: %s is not a number of 0 or more", fields[i].name);
		*(uint64_t *)((char *)sample + fields[i].offset) = (uint64_t)json_integer_value(value);
	}
	return 0;
}

/* ---- the prediction ---- */

static void begin_window(struct nova_converge *converge, const struct nova_sample *sample)
{
	converge->window_raw = sample->transferred_bytes;
	converge->window_wire = sample->wire_bytes;
}

/* How well bytes shrink lately: over the last few MiB, since text, zeros and noise come in runs. Pages that
 * are sent again are another matter than the first pass: the window that straddles the border says nothing,
 * and the first one behind it replaces all that was known. */
static void measure_ratio(struct nova_converge *converge, const struct nova_sample *sample)
{
	uint64_t raw = sample->transferred_bytes - converge->window_raw;
	uint64_t wire = sample->wire_bytes - converge->window_wire;
	bool again = sample->iteration > 1;
	double ratio;

	if (sample->transferred_bytes < converge->window_raw || sample->wire_bytes < converge->window_wire ||
	    (again && !converge->sends_again)) {
		converge->sends_again = again;
		converge->ratio_is_old = true;
		begin_window(converge, sample);
		return;
	}
	if (raw < (again ? AGAIN_BYTES : RATIO_BYTES) || wire == 0)
		return;
	ratio = (double)raw / (double)wire;
	if (!converge->ratio_is_old)
		ratio = converge->window_ratio * 0.5 + ratio * 0.5;
	converge->ratio_is_old = false;
	converge->window_ratio = ratio < 1 ? 1 : ratio;
	begin_window(converge, sample);
}

/* The encoder, and whatever else stands in the way, has a speed of its own. */
static void measure_speed(struct nova_converge *converge, const struct nova_sample *sample)
{
	int64_t ms = sample->now_ms - converge->speed_ms;
	double speed;

	if (converge->speed_ms && ms < SPEED_MS)
		return;
	speed = (double)(sample->transferred_bytes - converge->speed_raw) * 1000 / (double)(ms ? ms : 1);
	if (converge->speed_ms && sample->transferred_bytes > converge->speed_raw && speed > converge->speed)
		converge->speed = speed;
	converge->speed_ms = sample->now_ms;
	converge->speed_raw = sample->transferred_bytes;
}

/* What the guest wrote since the last sync is not in the remaining bytes yet: the last sync will find it. */
static double unseen_bytes(const struct nova_converge *converge, const struct nova_sample *sample)
{
	double most = converge->best_begin_bytes ? (double)converge->best_begin_bytes : (double)sample->total_bytes;
	double written = (double)sample->dirty_bytes_per_s * (double)(sample->now_ms - converge->round_ms) / 1000;

	return sample->iteration != converge->round_iteration ? 0 : written < most ? written : most;
}

/* Raw bytes a second. A guest that was hardly sent yet has no speed that would limit it. */
static double drain_rate(const struct nova_converge *converge, const struct nova_sample *sample)
{
	double drain = (double)sample->link_bytes_per_s * converge->window_ratio;

	return converge->speed > (double)sample->link_bytes_per_s && drain > converge->speed ? converge->speed : drain;
}

/* Figures that make no sense give a time that is too long, never one that no integer holds. */
static int64_t whole_ms(double ms)
{
	const double most = 1e15;

	return ms < most ? (int64_t)ms : (int64_t)most;
}

/* What the pause takes with nothing left to send. */
static int64_t least_pause(const struct nova_converge *converge, const struct nova_sample *sample)
{
	return whole_ms((double)sample->in_flight_bytes / (double)sample->link_bytes_per_s * 1000) +
	       converge->options.half_trips * (int64_t)sample->rtt_ms / 2 + converge->options.fixed_ms;
}

static int64_t predict(const struct nova_converge *converge, const struct nova_sample *sample)
{
	double raw = (double)(sample->remaining_bytes + sample->held_bytes) + unseen_bytes(converge, sample);

	if (sample->link_bytes_per_s == 0)
		return -1;
	return whole_ms(raw / drain_rate(converge, sample) * 1000) + least_pause(converge, sample);
}

/* ---- rounds ---- */

static void keep_round(struct nova_converge *converge, const struct nova_sample *sample, int64_t predicted_ms)
{
	struct round *round;

	if (converge->round_count == ROUNDS_KEPT) { /* thin out: every second one of the older half */
		for (size_t i = 1; i < ROUNDS_KEPT / 2; i++)
			converge->rounds[i] = converge->rounds[2 * i];
		converge->round_count = ROUNDS_KEPT / 2;
	}
	round = &converge->rounds[converge->round_count++];
	*round = (struct round){
		.at_ms = sample->now_ms - converge->begin_ms,
		.iteration = sample->iteration,
		.remaining_bytes = sample->remaining_bytes,
		.dirty_bytes_per_s = sample->dirty_bytes_per_s,
		.link_bytes_per_s = sample->link_bytes_per_s,
		.wire_bytes = sample->wire_bytes,
		.predicted_ms = predicted_ms,
	};
}

static void look_at_round(struct nova_converge *converge, const struct nova_sample *sample, int64_t predicted_ms)
{
	if (sample->iteration == converge->round_iteration) {
		if (predicted_ms >= 0 && (converge->least_ms < 0 || predicted_ms < converge->least_ms))
			converge->least_ms = predicted_ms;
		return;
	}
	converge->last_least_ms = converge->least_ms;
	converge->least_ms = predicted_ms;
	converge->round_iteration = sample->iteration;
	converge->round_begin_bytes = sample->remaining_bytes;
	converge->round_ms = sample->now_ms;
	keep_round(converge, sample, predicted_ms);
	if (sample->iteration <= 1)
		return; /* the first round is everything there is */
	if (!converge->best_begin_bytes || sample->remaining_bytes < converge->best_begin_bytes * SHRINKS) {
		converge->best_begin_bytes = sample->remaining_bytes;
		converge->rounds_without_gain = 0;
	} else
		converge->rounds_without_gain++;
}

/* The pause is shortest at some moment of each round. Watch one whole round, then take the next moment that
 * is about as good; after a second round without one, take what there is. */
static bool local_minimum(const struct nova_converge *converge, const struct nova_sample *sample, int64_t predicted_ms)
{
	if (predicted_ms < 0)
		return false;
	if (converge->rounds_without_gain > converge->options.stall_rounds + 2)
		return true;
	return converge->last_least_ms >= 0 && predicted_ms <= converge->last_least_ms + converge->last_least_ms / 10;
}

/* ---- decisions ---- */

static void decide(struct nova_converge *converge, const struct nova_sample *sample,
    enum nova_converge_action action, const char *why)
{
	struct nova_converge_decision *decision = &converge->decision;
	size_t at = converge->log_count;

	decision->action = action;
	snprintf(decision->reason, sizeof(decision->reason),
	    "%s (remaining %" PRIu64 " KiB, dirty %" PRIu64 " KiB/s, link %" PRIu64 " KiB/s x %.2f, pause %" PRId64
	    " ms of %d)",
	    why, sample->remaining_bytes >> 10, sample->dirty_bytes_per_s >> 10, sample->link_bytes_per_s >> 10,
	    converge->window_ratio, decision->predicted_downtime_ms, converge->options.downtime_ms);
	if (at >= LOG_FIRST + LOG_LAST) {
		memmove(&converge->log[LOG_FIRST], &converge->log[LOG_FIRST + 1], (LOG_LAST - 1) * sizeof(*converge->log));
		at = LOG_FIRST + LOG_LAST - 1;
	} else
		converge->log_count++;
	converge->log[at] = (struct entry){
		.at_ms = sample->now_ms - converge->begin_ms,
		.iteration = sample->iteration,
		.action = action,
		.remaining_bytes = sample->remaining_bytes,
		.predicted_ms = decision->predicted_downtime_ms,
	};
	memcpy(converge->log[at].reason, decision->reason, sizeof(decision->reason));
}

static void throttle_more(struct nova_converge *converge, const struct nova_sample *sample)
{
	if (converge->throttle >= THROTTLE_MOST) {
		if (local_minimum(converge, sample, converge->decision.predicted_downtime_ms))
			decide(converge, sample, NOVA_CONVERGE_SWITCH, "stalled at full throttle: switching at a local minimum");
		return;
	}
	converge->throttle = converge->throttle ? converge->throttle + THROTTLE_STEP : THROTTLE_FIRST;
	if (converge->throttle > THROTTLE_MOST)
		converge->throttle = THROTTLE_MOST;
	converge->decision.throttle_percent = converge->throttle;
	converge->rounds_without_gain = converge->options.stall_rounds - 1; /* see what it does for a round */
	decide(converge, sample, NOVA_CONVERGE_THROTTLE, "stalled: the guest is slowed down");
}

static void on_stall(struct nova_converge *converge, const struct nova_sample *sample, bool too_long)
{
	bool minimum = local_minimum(converge, sample, converge->decision.predicted_downtime_ms) || too_long;

	switch (converge->options.policy) {
	case NOVA_STALL_WAIT:
		if (too_long)
			decide(converge, sample, NOVA_CONVERGE_ABORT, "the time limit is over and the pause does not fit");
		break;
	case NOVA_STALL_ABORT:
		decide(converge, sample, NOVA_CONVERGE_ABORT,
		    too_long ? "the time limit is over and the pause does not fit" :
			       "stalled: the guest writes faster than the link carries");
		break;
	case NOVA_STALL_FORCE:
		if (minimum)
			decide(converge, sample, NOVA_CONVERGE_SWITCH, "stalled: switching at a local minimum, whatever the pause");
		break;
	case NOVA_STALL_THROTTLE:
		if (too_long)
			decide(converge, sample, NOVA_CONVERGE_SWITCH, "the time limit is over: switching, whatever the pause");
		else
			throttle_more(converge, sample);
		break;
	case NOVA_STALL_POSTCOPY:
		if (sample->postcopy_possible)
			decide(converge, sample, NOVA_CONVERGE_POSTCOPY, "stalled: going to postcopy");
		else if (minimum)
			decide(converge, sample, NOVA_CONVERGE_SWITCH, "stalled, postcopy is not possible: switching at a local minimum");
		break;
	default:
		break;
	}
}

/* The pause fits. Let the round go on while that makes it shorter by more than it costs to wait. */
static bool good_moment(struct nova_converge *converge, const struct nova_sample *sample, int64_t predicted_ms)
{
	int64_t gain = predicted_ms - least_pause(converge, sample), before_ms = converge->fitted_ms;

	converge->fitted_ms = predicted_ms;
	if (!converge->fits_since)
		converge->fits_since = sample->iteration;
	else if (predicted_ms >= before_ms)
		return true;
	return gain <= WORTH_MS || gain <= predicted_ms / 8 ||
	       sample->iteration - converge->fits_since >= NOVA_CONVERGE_PATIENCE_ROUNDS;
}

static bool is_final(enum nova_converge_action action)
{
	return action == NOVA_CONVERGE_SWITCH || action == NOVA_CONVERGE_POSTCOPY || action == NOVA_CONVERGE_ABORT;
}

static int64_t eta(const struct nova_converge *converge, const struct nova_sample *sample, int64_t predicted_ms)
{
	double gain = drain_rate(converge, sample) - (double)sample->dirty_bytes_per_s;

	if (predicted_ms >= 0 && predicted_ms <= converge->options.downtime_ms)
		return 0;
	if (sample->link_bytes_per_s == 0 || gain <= 0)
		return -1;
	return whole_ms((double)sample->remaining_bytes / gain * 1000);
}

const struct nova_converge_decision *nova_converge_poll(struct nova_converge *converge, const struct nova_sample *sample)
{
	struct nova_converge_decision *decision = &converge->decision;
	bool too_long, fits;

	if (!converge->begun)
		converge->begin_ms = sample->now_ms;
	if (is_final(decision->action))
		return decision;
	measure_ratio(converge, sample);
	measure_speed(converge, sample);
	decision->action = NOVA_CONVERGE_CONTINUE;
	decision->reason[0] = 0;
	decision->throttle_percent = converge->throttle;
	decision->predicted_downtime_ms = predict(converge, sample);
	look_at_round(converge, sample, decision->predicted_downtime_ms);
	decision->eta_ms = eta(converge, sample, decision->predicted_downtime_ms);
	decision->stalled = converge->rounds_without_gain >= converge->options.stall_rounds;
	too_long = converge->options.max_ms && sample->now_ms - converge->begin_ms >= converge->options.max_ms;
	fits = sample->iteration > 1 && decision->predicted_downtime_ms >= 0 &&
	       decision->predicted_downtime_ms <= converge->options.downtime_ms;
	if (fits && (too_long || good_moment(converge, sample, decision->predicted_downtime_ms)))
		decide(converge, sample, NOVA_CONVERGE_SWITCH, "the pause fits");
	else if (fits)
		decision->eta_ms = 0;
	else if (decision->stalled || too_long)
		on_stall(converge, sample, too_long);
	converge->last = *sample;
	converge->begun = true;
	return decision;
}

void nova_converge_again(struct nova_converge *converge)
{
	converge->decision.action = NOVA_CONVERGE_CONTINUE;
	converge->fits_since = 0;
}

/* Half of the error each time: one odd pause must not spoil the next prediction. */
void nova_converge_learn(struct nova_converge *converge, int64_t downtime_ms)
{
	int64_t error = downtime_ms - converge->decision.predicted_downtime_ms;
	int64_t fixed = converge->options.fixed_ms + error / 2;

	if (converge->decision.predicted_downtime_ms < 0)
		return;
	converge->options.fixed_ms = (int)(fixed < 5 ? 5 : fixed > 2000 ? 2000 : fixed);
}

double nova_converge_again_ratio(const struct nova_converge *converge)
{
	return converge->sends_again && !converge->ratio_is_old ? converge->window_ratio : 0;
}

int nova_converge_fixed_ms(const struct nova_converge *converge)
{
	return converge->options.fixed_ms;
}

/* ---- the report ---- */

json_t *nova_converge_report(const struct nova_converge *converge)
{
	json_t *decisions = json_array(), *rounds = json_array();

	for (size_t i = 0; i < converge->log_count; i++) {
		const struct entry *entry = &converge->log[i];

		json_array_append_new(decisions,
		    json_pack("{s:I, s:I, s:s, s:I, s:I, s:s}", "ms", (json_int_t)entry->at_ms, "iteration",
			(json_int_t)entry->iteration, "action", action_names[entry->action], "remaining_bytes",
			(json_int_t)entry->remaining_bytes, "predicted_downtime_ms", (json_int_t)entry->predicted_ms, "reason",
			entry->reason));
	}
	for (size_t i = 0; i < converge->round_count; i++) {
		const struct round *round = &converge->rounds[i];

		json_array_append_new(rounds,
		    json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "ms", (json_int_t)round->at_ms, "iteration",
			(json_int_t)round->iteration, "remaining_bytes", (json_int_t)round->remaining_bytes,
			"dirty_bytes_per_s", (json_int_t)round->dirty_bytes_per_s, "link_bytes_per_s",
			(json_int_t)round->link_bytes_per_s, "wire_bytes", (json_int_t)round->wire_bytes,
			"predicted_downtime_ms", (json_int_t)round->predicted_ms));
	}
	return json_pack("{s:s, s:i, s:i, s:f, s:o, s:o}", "policy", policy_names[converge->options.policy],
	    "downtime_budget_ms", converge->options.downtime_ms, "throttle_percent", converge->throttle, "ratio",
	    converge->window_ratio, "decisions", decisions, "rounds", rounds);
}
