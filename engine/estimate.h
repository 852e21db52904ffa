/* SPDX-License-Identifier: Apache-2.0
 *
 * estimate.h - what a migration will take, said before it begins. Private to engine/.
 *
 *   estimate_model.c     arithmetic: rounds of precopy out of a few rates; no I/O
 *   estimate_content.c   how well a sample of the guest's memory shrinks
 *   estimate_probe.c     what the link to the peer carries, measured on a channel of its own
 *   estimate.c           asks driver, link and history, and puts the answer together
 *
 * Bounds: a sample of 4 MiB, a probe of 2 s or 32 MiB, a dirty rate over 1 s, all at the same time. Nothing of
 * it touches the guest but the reads of its memory.
 */
#ifndef NOVA_ESTIMATE_H
#define NOVA_ESTIMATE_H

#include "flow.h"
#include "host.h"

/* ---- the model ---- */

struct nova_estimate_input {
	uint64_t memory_bytes;      /* of the guest */
	double full_share;          /* of it that is not zero */
	double ratio;               /* how well that shrinks: memory bytes for one on the wire */
	uint64_t codec_bytes_per_s; /* memory bytes that the encoder takes; 0: no limit */
	uint64_t link_bytes_per_s;
	uint64_t dirty_bytes_per_s; /* of memory that the guest changes */
	double again_ratio;         /* how well pages shrink that are sent again; 0: as ratio */
	uint32_t rtt_ms;
	int fixed_ms;               /* of the pause */
	int downtime_ms;            /* budget of the pause */
};
struct nova_estimate {
	int64_t time_ms, wire_bytes, downtime_ms;
	int rounds;
	bool converges;  /* the pause fits its budget */
	char why[160];   /* one line, with the numbers */
};
#define NOVA_ESTIMATE_FIXED_MS 50 /* of a pause, before there is a move to learn from */
/* link_bytes_per_s and memory_bytes must not be 0. */
void nova_estimate_model(const struct nova_estimate_input *input, struct nova_estimate *estimate);
/* Not only does it not converge, it is so far from it that the measurements' errors cannot be why. */
bool nova_estimate_hopeless(const struct nova_estimate_input *input, const struct nova_estimate *estimate);

/* ---- the content ---- */

/* Read the file (at most 4 MiB of it), and find what the codecs make of it. Answers {sampled_bytes, zero_share,
 * lz4: {ratio, bytes_per_s}, zstd: {...}}. The file stays. */
struct nova_op *nova_estimate_content(struct event_base *base, const char *path, nova_done_fn done, void *arg,
    struct nova_error *err);

/* ---- the link ---- */

#define NOVA_PROBE_CHANNEL 100
#define NOVA_PROBE_MOST (32u << 20)  /* bytes of a probe */
#define NOVA_PROBE_MOST_MS 2000

/* session is up. Answers {link_bytes_per_s, rtt_us, sent_bytes, ms}. The channel is closed by then. */
struct nova_op *nova_probe_start(struct event_base *base, const struct nova_link_ops *ops, struct nova_session *session,
    nova_done_fn done, void *arg, struct nova_error *err);
/* The other end of it: take what comes and forget it. */
void nova_probe_accept(const struct nova_link_ops *ops, struct nova_channel *channel);

/* ---- all of it ---- */

struct nova_estimate_options {
	const char *peer;
	int downtime_ms;
	uint64_t rate_bps; /* cap; 0: none */
};
/* Asks everybody about the guest of this job. The answer is {guest, peer,
 * time_ms, wire_bytes, downtime_ms, rounds, converges, hopeless, why, and what it is based on}. */
struct nova_op *nova_estimate_start(struct nova_job *job, const struct nova_estimate_options *options, nova_done_fn done,
    void *arg, struct nova_error *err);
struct nova_op *nova_cmd_estimate(struct nova_host *, const struct nova_identity *, json_t *, nova_done_fn, void *,
    struct nova_error *);

#endif
