/* SPDX-License-Identifier: Apache-2.0
 *
 * adapt.c - the tiers of the adaptive codec, and the choice between them.
 *
 * Encoding and the link work at the same time, so a byte of body takes the longer of two: the processor's
 * time (packing it, and sending what became of it), divided by the share of a core we may use, and the
 * link's. Both follow from a tier's rate and ratio. Of a tier in use they are measured; of the others they
 * follow from typical figures, scaled by how the measured tier compares with its own: content that packs
 * badly with one does so with all.
 *
 * A tier is left when another promises a gain of 8 %, at most every 400 ms; between levels of zstd 4 % and
 * 3 s, since another level forgets the window, unless it is 1.3 times slower than the best. Of tiers that take
 * equally long the cheapest wins: the processor has other work. When we have to wait for a processor, others
 * want it, too: the share shrinks by the part of the time that we waited. Tiers whose smallest block (8 KiB)
 * takes more than a millisecond are not used: the loop must turn. While the link shows no limit, it is taken
 * to be a quarter faster than what it does, and a tenth more each time while that is at least half of it, so
 * that it may show one; a limit that it showed is believed for 10 s.
 */
#include "adapt.h"

#include <stdlib.h>
#include <string.h>

#define GAIN_MIN 1.08
#define DWELL_MS 400u
#define SEND_RATE 1.5e9 /* bytes a second and core: TLS, sockets, copies */
#define ZSTD_GAIN_MIN 1.04
#define ZSTD_GAIN_AT_ONCE 1.3
#define ZSTD_DWELL_MS 3000u
#define RATE_MIN 8e6 /* bytes a second: a block of 8 KiB in a millisecond */
#define SHARE_DEFAULT 0.85
#define SHARE_MIN 0.05
#define SMOOTH 0.3 /* weight of a new sample of 256 KiB or more */
#define SAMPLE_BYTES (256u * 1024)
#define STALE_MS 10000u /* a measurement older than this no longer counts */

struct tier {
	enum nova_codec codec;
	int level;
	double rate, ratio; /* typical: bytes a second, raw over packed */
};

/* Measured on binaries and text as nova_packer packs them; only how they compare with each other matters. */
static const struct tier tiers[] = {
	{ NOVA_CODEC_NONE, 1, 15e9, 1.00 },
	{ NOVA_CODEC_LZ4, 1, 550e6, 2.20 },
	{ NOVA_CODEC_ZSTD, 1, 255e6, 3.04 },
	{ NOVA_CODEC_ZSTD, 3, 195e6, 3.69 },
	{ NOVA_CODEC_ZSTD, 5, 80e6, 3.90 },
	{ NOVA_CODEC_ZSTD, 6, 69e6, 4.03 },
	{ NOVA_CODEC_ZSTD, 7, 58e6, 4.09 },
	{ NOVA_CODEC_ZSTD, 8, 48e6, 4.18 },
};
#define N_TIERS (sizeof(tiers) / sizeof(*tiers))
#define FIRST_TIER 1u /* that packs */

struct measured {
	double rate, ratio; /* 0: never */
	uint64_t at_ms;
};

struct nova_adapt {
	unsigned now;       /* the tier in use */
	double share, starved;
	double link; /* link: bytes a second, 0: unknown */
	double full_rate;   /* what it did when there always was more, */
	uint64_t full_ms;   /* last then */
	uint64_t changed_ms;
	bool link_known;
	bool packing; /* since the last choice something was packed */
	struct measured measured[N_TIERS];
	uint64_t body, packed, ns; /* of the tier in use, not yet in measured */
	uint64_t last_ms;
	size_t n_log;
	struct nova_codec_choice log[NOVA_ADAPT_LOG_MAX];
};

static double at_least(double value, double least)
{
	return value > least ? value : least;
}

struct nova_adapt *nova_adapt_free(struct nova_adapt *a)
{
	free(a);
	return NULL;
}

void nova_adapt_cpu_share(struct nova_adapt *a, double share)
{
	if (share <= 0)
		share = SHARE_DEFAULT;
	a->share = at_least(share > 1 ? 1 : share, SHARE_MIN);
}

void nova_adapt_starved(struct nova_adapt *a, double part)
{
	part = part > 0 ? (part < 1 ? part : 1) : 0;
	a->starved += SMOOTH * (part - a->starved);
}

/* Of one core, what we may take. */
static double share_now(const struct nova_adapt *a)
{
	return at_least(a->share * (1 - a->starved), SHARE_MIN);
}

/* ---- what the tiers can do ---------------------------------------------------------------------- */

static void smooth(double *value, double sample)
{
	*value = *value > 0 ? *value + SMOOTH * (sample - *value) : sample;
}

static void take_sample(struct nova_adapt *a)
{
	struct measured *m = &a->measured[a->now];

	if (a->body >= SAMPLE_BYTES && a->ns && a->packed) {
		smooth(&m->rate, (double)a->body * 1e9 / (double)a->ns);
		smooth(&m->ratio, (double)a->body / (double)a->packed);
		m->at_ms = a->last_ms;
		a->body = a->packed = a->ns = 0;
	}
}

void nova_adapt_block(struct nova_adapt *a, size_t body, size_t packed, uint64_t ns)
{
	a->packing = true;
	a->body += body;
	a->packed += packed;
	a->ns += ns;
	take_sample(a);
}

/* The tier to compare by: the one in use, or the packing one that was measured last; 0: none was. */
static unsigned reference(const struct nova_adapt *a)
{
	unsigned last = 0;

	if (a->now >= FIRST_TIER && a->measured[a->now].rate)
		return a->now;
	for (unsigned i = FIRST_TIER; i < N_TIERS; i++)
		if (a->measured[i].rate && (!last || a->measured[i].at_ms > a->measured[last].at_ms))
			last = i;
	return last;
}

/* How processor and content here compare with the typical. Noise may have been all that there was at the
 * time: while nothing packs, that is not believed for long. */
static void scales(const struct nova_adapt *a, double *rate, double *gain)
{
	unsigned tier = reference(a);
	const struct measured *m = &a->measured[tier];

	*rate = *gain = 1;
	if (!tier)
		return;
	*rate = m->rate / tiers[tier].rate;
	if (tier == a->now || a->last_ms - m->at_ms < STALE_MS)
		*gain = at_least(m->ratio - 1, 0.001) / (tiers[tier].ratio - 1);
}

static void estimate(const struct nova_adapt *a, unsigned tier, double *rate, double *ratio)
{
	const struct measured *m = &a->measured[tier];
	double rate_scale, gain_scale;

	if (m->rate && (tier == a->now || a->last_ms - m->at_ms < STALE_MS)) {
		*rate = m->rate;
		*ratio = m->ratio;
		return;
	}
	scales(a, &rate_scale, &gain_scale);
	*rate = tiers[tier].rate * (tier < FIRST_TIER ? 1 : rate_scale);
	*ratio = 1 + (tiers[tier].ratio - 1) * gain_scale;
}

/* Seconds that a byte of body takes, and of those the processor's. */
static double cost(const struct nova_adapt *a, unsigned tier, double *cpu)
{
	double rate, ratio, link;

	estimate(a, tier, &rate, &ratio);
	*cpu = 1 / rate + 1 / (ratio * SEND_RATE);
	link = a->link > 0 ? 1 / (ratio * a->link) : 0;
	return *cpu / share_now(a) > link ? *cpu / share_now(a) : link;
}

/* ---- the choice --------------------------------------------------------------------------------- */

static bool allowed(const struct nova_adapt *a, unsigned tier)
{
	double rate, ratio;

	estimate(a, tier, &rate, &ratio);
	return rate >= RATE_MIN;
}

/* The tier that takes least; among those within 2 % of it, the one that costs the processor least. Packing
 * nothing must be the faster way to be chosen: what does not pack costs LZ4 little, and it sees when that
 * changes. */
static unsigned best_tier(const struct nova_adapt *a, double *best_cost)
{
	double least = 1e9, cpu, least_cpu = 1e9;
	unsigned best = a->now;

	for (unsigned i = 0; i < N_TIERS; i++)
		if (allowed(a, i) && cost(a, i, &cpu) < least)
			least = cost(a, i, &cpu);
	for (unsigned i = N_TIERS; i-- > 0;) {
		if (!allowed(a, i) || cost(a, i, &cpu) > least * 1.02 || cpu > least_cpu)
			continue;
		if (i < FIRST_TIER && least_cpu < 1e9)
			break;
		best = i;
		least_cpu = cpu;
	}
	*best_cost = cost(a, best, &cpu);
	return best;
}

static void note(struct nova_adapt *a, uint64_t now_ms)
{
	struct nova_codec_choice *c;
	double rate, ratio;

	if (a->n_log == NOVA_ADAPT_LOG_MAX)
		memmove(a->log, a->log + 1, --a->n_log * sizeof(*a->log));
	estimate(a, a->now, &rate, &ratio);
	c = &a->log[a->n_log++];
	*c = (struct nova_codec_choice) {
		.t_ms = now_ms,
		.codec = tiers[a->now].codec,
		.level = tiers[a->now].level,
		.link_Bps = (uint64_t)a->link,
		.codec_Bps = (uint64_t)rate,
		.ratio = ratio,
	};
}

struct nova_adapt *nova_adapt_new(struct nova_error *err)
{
	struct nova_adapt *a = calloc(1, sizeof(*a));

	if (!a) {
		nova_error_set(err, NOVA_SYSTEM, "out of memory for the adaptive codec");
		return NULL;
	}
	a->now = FIRST_TIER;
	a->share = SHARE_DEFAULT;
	note(a, 0);
	return a;
}

static void learn_link(struct nova_adapt *a, uint64_t now_ms, double rate, bool queue_full)
{
	double more = rate * 1.25;

	if (queue_full) {
		smooth(&a->link, rate);
		a->full_ms = now_ms;
		a->full_rate = a->link;
		return;
	}
	if (rate * 2 > a->link && a->link * 1.1 > more)
		more = a->link * 1.1;
	if (a->full_rate > 0 && now_ms - a->full_ms < STALE_MS && more > a->full_rate * 1.1)
		more = a->full_rate * 1.1;
	if (more > a->link)
		a->link = more;
}

/* Whether it pays to leave the tier in use for the best: it is slower, or as fast at much more work. */
static bool worth_it(const struct nova_adapt *a, unsigned best, double best_cost, uint64_t waited_ms)
{
	double cpu, best_cpu, gain = cost(a, a->now, &cpu) / best_cost;
	bool zstd = tiers[a->now].codec == NOVA_CODEC_ZSTD && tiers[best].codec == NOVA_CODEC_ZSTD;

	if (!allowed(a, a->now) || gain > ZSTD_GAIN_AT_ONCE)
		return true;
	if (zstd && waited_ms < ZSTD_DWELL_MS)
		return false;
	cost(a, best, &best_cpu);
	return gain > (zstd ? ZSTD_GAIN_MIN : GAIN_MIN) || best_cpu < cpu * 0.6;
}

bool nova_adapt_link(struct nova_adapt *a, uint64_t now_ms, double bytes_per_second, bool queue_full)
{
	double best_cost;
	unsigned best;

	a->last_ms = now_ms;
	if (bytes_per_second > 0)
		learn_link(a, now_ms, bytes_per_second, queue_full);
	if (a->link <= 0)
		return false;
	if (!a->link_known) {
		a->link_known = true;
		a->changed_ms = now_ms;
		a->log[0].link_Bps = (uint64_t)a->link;
	}
	if (a->now >= FIRST_TIER && !a->packing)
		return false; /* all of it was noise, or as before: nothing was learned */
	a->packing = false;
	best = best_tier(a, &best_cost);
	if (best == a->now || now_ms - a->changed_ms < DWELL_MS ||
	    !worth_it(a, best, best_cost, now_ms - a->changed_ms))
		return false;
	a->now = best;
	a->changed_ms = now_ms;
	a->body = a->packed = a->ns = 0;
	note(a, now_ms);
	return true;
}

void nova_adapt_sent(struct nova_adapt *a, size_t raw, size_t packed)
{
	a->log[a->n_log - 1].raw_bytes += raw;
	a->log[a->n_log - 1].encoded_bytes += packed;
}

void nova_adapt_choice(const struct nova_adapt *a, enum nova_codec *codec, int *level)
{
	*codec = tiers[a->now].codec;
	*level = tiers[a->now].level;
}

const struct nova_codec_choice *nova_adapt_log(const struct nova_adapt *a, size_t *count)
{
	*count = a->n_log;
	return a->log;
}
