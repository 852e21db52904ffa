/* SPDX-License-Identifier: Apache-2.0
 *
 * converge.h - when to switch over: decisions from numbers, no I/O, no clock of its own.
 *
 * Feed it a sample per poll (every 50 to 1000 ms) of a live migration; do what it says. The pause is
 * predicted as
 *     (remaining raw bytes + written since the last sync + held on the way to the encoder) / raw drain rate
 *     + encoded bytes in flight / link rate + the round trips of the handover
 *     + a fixed cost (stopping, devices, starting), which is learned
 * where raw drain rate = link rate x (raw bytes sent / encoded bytes) lately, and at most what the encoder has
 * been seen to take. Pages that are sent again shrink differently from the first pass: the ratio starts anew
 * with the second round.
 *
 * A pause that fits is not taken at once: while it still gets shorter, the round is let go on, for
 * NOVA_CONVERGE_PATIENCE_ROUNDS rounds at most.
 */
#ifndef NOVA_CONVERGE_H
#define NOVA_CONVERGE_H

#include "novacron.h"

#define NOVA_CONVERGE_PATIENCE_ROUNDS 3

enum nova_stall_policy {
	NOVA_STALL_WAIT,     /* go on until max_ms */
	NOVA_STALL_FORCE,    /* switch at the next local minimum, however long the pause */
	NOVA_STALL_THROTTLE, /* slow the guest down, by 20 % more each round up to 99 %, then force */
	NOVA_STALL_POSTCOPY, /* go to postcopy, if it is possible; otherwise force */
	NOVA_STALL_ABORT,    /* give up, the guest stays at the source */
	NOVA_STALL_POLICIES
};
const char *nova_stall_policy_name(enum nova_stall_policy policy);
/* For options: the names, separated by |. */
#define NOVA_STALL_CHOICES "wait|force|throttle|postcopy|abort"
int nova_stall_policy_parse(const char *text, enum nova_stall_policy *policy, struct nova_error *err);

/* Zeroes are replaced by the defaults. */
struct nova_converge_options {
	int downtime_ms; /* budget for the pause; 300 */
	enum nova_stall_policy policy;
	int stall_rounds; /* rounds in a row whose remaining did not shrink; 3 */
	int64_t max_ms;   /* whole precopy; past it the policy's end comes: wait and abort give up, others
	                     switch; 0: none */
	int fixed_ms;     /* first guess of the fixed cost; 50 */
	int half_trips;   /* journeys over the link between the last byte and the guest's next instruction; 3 */
};

struct nova_sample {
	int64_t now_ms;             /* any monotonic clock */
	int64_t iteration;          /* from 1: QEMU's dirty-sync-count; a new number ends a round */
	uint64_t remaining_bytes;   /* raw */
	uint64_t total_bytes;       /* guest memory; 0: unknown */
	uint64_t dirty_bytes_per_s; /* 0: unknown */
	uint64_t transferred_bytes; /* raw, since the start */
	uint64_t wire_bytes;        /* encoded, since the start */
	uint64_t link_bytes_per_s;  /* measured drain of the encoded stream, or the cap; 0: unknown */
	uint64_t in_flight_bytes;   /* encoded, not yet acknowledged */
	uint64_t held_bytes;        /* raw, read from the guest's socket and not yet encoded */
	uint32_t rtt_ms;            /* of the link without a queue */
	bool postcopy_possible;
};
/* Read the fields a driver knows (same names) from the answer of NOVA_VERB_OUT_QUERY; fields that are not
 * there stay as they are. */
int nova_sample_read(struct nova_sample *sample, const json_t *answer, struct nova_error *err);

enum nova_converge_action {
	NOVA_CONVERGE_CONTINUE,
	NOVA_CONVERGE_SWITCH,   /* raise the downtime limit to predicted_downtime_ms and more: switch now */
	NOVA_CONVERGE_THROTTLE, /* set the guest's throttle to throttle_percent */
	NOVA_CONVERGE_POSTCOPY,
	NOVA_CONVERGE_ABORT,
	NOVA_CONVERGE_ACTIONS
};
const char *nova_converge_action_name(enum nova_converge_action action);

struct nova_converge_decision {
	enum nova_converge_action action;
	int64_t predicted_downtime_ms; /* -1: not known yet */
	int64_t eta_ms;                /* until the pause fits; -1: not at this pace */
	int throttle_percent;          /* what is in force, or to be set with THROTTLE */
	bool stalled;
	char reason[192]; /* one line, with the numbers */
};

struct nova_converge;

struct nova_converge *nova_converge_new(const struct nova_converge_options *options);
struct nova_converge *nova_converge_free(struct nova_converge *converge);
/* options may change in flight (a user's new budget or policy). */
void nova_converge_set(struct nova_converge *converge, const struct nova_converge_options *options);
/* The decision is borrowed until the next call. SWITCH, POSTCOPY and ABORT are final: the same one is
 * repeated until nova_converge_again(). */
const struct nova_converge_decision *nova_converge_poll(
    struct nova_converge *converge, const struct nova_sample *sample);
/* SWITCH did not happen (the guest wrote faster than we raised the limit): go on deciding. */
void nova_converge_again(struct nova_converge *converge);
/* The pause that really happened: what it was longer or shorter than predicted moves the fixed cost. */
void nova_converge_learn(struct nova_converge *converge, int64_t downtime_ms);
/* How well pages shrank that were sent again; 0: there were not enough of them. */
double nova_converge_again_ratio(const struct nova_converge *converge);
int nova_converge_fixed_ms(const struct nova_converge *converge);
/* {"decisions": [{ms, iteration, action, reason, remaining_bytes, ...}, ...], "rounds": [...], ...}: at most
 * 64 decisions (the first 16 and the last 48) and 64 rounds. The caller owns it. */
json_t *nova_converge_report(const struct nova_converge *converge);

#endif
