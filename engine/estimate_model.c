/* SPDX-License-Identifier: Apache-2.0
 *
 * estimate_model.c - the arithmetic of an estimate: rounds of precopy with constant rates.
 *
 * The first round carries all memory that is not zero. Each later one carries what was changed during the one
 * before, at most what there is. Rounds end when what is left fits the pause, or when they stop shrinking.
 * Real guests write unevenly and to the same places again: the model errs on the side of more bytes.
 */
#include "estimate.h"

#include <inttypes.h>
#include <stdio.h>

#define ROUNDS_MOST 64
#define SHRINKS 0.95         /* a round gains if it has less than this share of the one before */
#define HOPELESS 1.25        /* the guest writes so many times faster than memory drains */
#define RECORD_BYTES 9.0     /* of a page on the stream beside its content */
#define ZERO_ON_WIRE (1 / 400.0) /* wire bytes of a zero page's record, packed, as a share of a byte */
#define PAGE 4096.0

static double drain(double link, double ratio, uint64_t codec)
{
	double rate = link * ratio;

	return codec && rate > (double)codec ? (double)codec : rate;
}

void nova_estimate_model(const struct nova_estimate_input *in, struct nova_estimate *out)
{
	double link = (double)in->link_bytes_per_s, again = in->again_ratio > 0 ? in->again_ratio : in->ratio;
	double full = (double)in->memory_bytes * in->full_share;
	double pages = (double)in->memory_bytes / PAGE;
	double first_rate = drain(link, in->ratio, in->codec_bytes_per_s);
	double again_rate = drain(link, again, in->codec_bytes_per_s);
	double least_s = (in->rtt_ms / 2.0 + in->fixed_ms) / 1000, budget_s = in->downtime_ms / 1000.0;
	double wire = full / in->ratio + pages * RECORD_BYTES * ZERO_ON_WIRE;
	double time_s = full / first_rate, left = (double)in->dirty_bytes_per_s * time_s;
	int rounds = 1;
	bool gains = true;

	if (left > full)
		left = full;
	while (left / again_rate + least_s > budget_s && gains && rounds < ROUNDS_MOST) {
		double took_s = left / again_rate, next = (double)in->dirty_bytes_per_s * took_s;

		wire += left / again;
		time_s += took_s;
		gains = next < left * SHRINKS;
		left = next < full ? next : full;
		rounds++;
	}
	out->downtime_ms = (int64_t)((left / again_rate + least_s) * 1000);
	out->converges = out->downtime_ms <= in->downtime_ms;
	out->rounds = rounds;
	out->wire_bytes = (int64_t)(wire + left / again);
	out->time_ms = (int64_t)(time_s * 1000) + out->downtime_ms;
	snprintf(out->why, sizeof(out->why),
	    "dirty %" PRIu64 " KiB/s, drain %.0f KiB/s (link %" PRIu64 " KiB/s x %.2f), pause %" PRId64 " ms of %d",
	    in->dirty_bytes_per_s >> 10, again_rate / 1024, in->link_bytes_per_s >> 10, again, out->downtime_ms,
	    in->downtime_ms);
}

bool nova_estimate_hopeless(const struct nova_estimate_input *in, const struct nova_estimate *out)
{
	double again = in->again_ratio > 0 ? in->again_ratio : in->ratio;

	return !out->converges &&
	       (double)in->dirty_bytes_per_s > HOPELESS * drain((double)in->link_bytes_per_s, again, in->codec_bytes_per_s);
}
