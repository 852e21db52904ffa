/* SPDX-License-Identifier: Apache-2.0
 *
 * test_adapt.c - the adaptive codec on simulated links, processors and contents: what it settles on, how
 * soon, and that it then stays.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdlib.h>

#include "engine/adapt.h"

#define TICK_MS 100u

/* What the machine and the content really give, by codec and level. */
struct world {
	double link;  /* bytes a second */
	double speed; /* of the processor, 1: typical */
	double gain;  /* of the content: 1 typical, 0 noise */
};

static void truth(const struct world *w, enum nova_codec codec, int level, double *rate, double *ratio)
{
	double typical_rate = 14e9, typical_ratio = 1;

	if (codec == NOVA_CODEC_LZ4) {
		typical_rate = 600e6;
		typical_ratio = 1.9;
	} else if (codec == NOVA_CODEC_ZSTD) {
		static const double rates[] = { 0, 260e6, 0, 190e6, 0, 85e6, 66e6, 60e6, 47e6 };
		static const double ratios[] = { 0, 2.9, 0, 3.5, 0, 3.7, 3.85, 3.9, 3.98 };

		typical_rate = rates[level];
		typical_ratio = ratios[level];
	}
	*rate = typical_rate * w->speed;
	*ratio = 1 + (typical_ratio - 1) * w->gain;
}

struct sim {
	struct nova_adapt *adapt;
	uint64_t now_ms;
	double sent; /* raw bytes */
	int changes;
};

/* Let it work for some time in this world. */
static void run(struct sim *s, const struct world *w, unsigned ms)
{
	for (uint64_t end = s->now_ms + ms; s->now_ms < end; s->now_ms += TICK_MS) {
		enum nova_codec codec;
		int level;
		double rate, ratio, cpu, raw;

		nova_adapt_choice(s->adapt, &codec, &level);
		truth(w, codec, level, &rate, &ratio);
		cpu = 1 / (1 / rate + 1 / (ratio * 1.5e9));
		raw = cpu < w->link * ratio ? cpu : w->link * ratio;
		for (double left = raw * TICK_MS / 1000; left > 0; left -= 65536)
			nova_adapt_block(
			    s->adapt, 65536, (size_t)(65536 / ratio), (uint64_t)(65536e9 / rate));
		s->sent += raw * TICK_MS / 1000;
		s->changes += nova_adapt_link(s->adapt, s->now_ms, raw / ratio, cpu > w->link * ratio);
	}
}

static struct sim begin(void)
{
	struct nova_error err;
	struct sim s = { .adapt = nova_adapt_new(&err) };

	assert_non_null(s.adapt);
	return s;
}

/* changes: in a minute, once it has settled. */
static void settles(struct world w, enum nova_codec codec, int least, int most, int changes)
{
	struct sim s = begin();
	enum nova_codec chosen;
	int level;

	run(&s, &w, 6000);
	nova_adapt_choice(s.adapt, &chosen, &level);
	assert_int_equal(chosen, codec);
	assert_in_range(level, least, most);
	s.changes = 0;
	run(&s, &w, 60000);
	assert_in_range(s.changes, 0, changes);
	nova_adapt_free(s.adapt);
}

static void test_settles(void **state)
{
	settles((struct world) { 12.5e6, 1, 1 }, NOVA_CODEC_ZSTD, 6, 9, 2); /* 100 Mbit/s */
	settles((struct world) { 1e6, 1, 1 }, NOVA_CODEC_ZSTD, 6, 9, 2);
	settles((struct world) { 60e6, 1, 1 }, NOVA_CODEC_ZSTD, 1, 3, 12);     /* 500 Mbit/s: the processor is the limit, a faster link is looked for every 10 s */
	settles((struct world) { 119e6, 1, 1 }, NOVA_CODEC_LZ4, 1, 1, 2);      /* 1 Gbit/s */
	settles((struct world) { 250e6, 1, 1 }, NOVA_CODEC_LZ4, 1, 1, 2);      /* 2.1 Gbit/s */
	settles((struct world) { 5e9, 1, 1 }, NOVA_CODEC_NONE, 1, 1, 2);       /* loopback */
	settles((struct world) { 12.5e6, 1, 0.001 }, NOVA_CODEC_LZ4, 1, 1, 2); /* noise: nothing helps */
	settles((struct world) { 12.5e6, 0.2, 1 }, NOVA_CODEC_ZSTD, 1, 3, 2);  /* a slow processor */
	settles((struct world) { 50e6, 0.2, 1 }, NOVA_CODEC_LZ4, 1, 1, 2);
}

static void test_follows(void **state)
{
	struct sim s = begin();
	enum nova_codec codec;
	int level;
	double before;

	run(&s, &(struct world) { 5e9, 1, 1 }, 5000);
	nova_adapt_choice(s.adapt, &codec, &level);
	assert_int_equal(codec, NOVA_CODEC_NONE);
	run(&s, &(struct world) { 12.5e6, 1, 1 }, 3000); /* the link got slow */
	nova_adapt_choice(s.adapt, &codec, &level);
	assert_int_equal(codec, NOVA_CODEC_ZSTD);
	before = s.sent;
	run(&s, &(struct world) { 12.5e6, 1, 1 }, 10000);
	assert_true(s.sent - before > 10 * 12.5e6 * 2.7);
	run(&s, &(struct world) { 5e9, 1, 1 }, 20000); /* and fast again */
	nova_adapt_choice(s.adapt, &codec, &level);
	assert_int_equal(codec, NOVA_CODEC_NONE);
	nova_adapt_free(s.adapt);
}

/* Noise for longer than a measurement is believed, then text: it must notice. */
static void test_noise_ends(void **state)
{
	for (double link = 12.5e6; link < 6e9; link *= 400) {
		struct sim s = begin();
		enum nova_codec codec;
		int level;

		run(&s, &(struct world) { link, 1, 0 }, 30000);
		run(&s, &(struct world) { 12.5e6, 1, 1 }, 15000);
		nova_adapt_choice(s.adapt, &codec, &level);
		assert_int_equal(codec, NOVA_CODEC_ZSTD);
		nova_adapt_free(s.adapt);
	}
}

static void test_cpu_share(void **state)
{
	struct world w = { 12.5e6, 1, 1 };
	struct sim s = begin();
	enum nova_codec codec;
	int level;

	nova_adapt_cpu_share(s.adapt, 0.1);
	run(&s, &w, 10000);
	nova_adapt_choice(s.adapt, &codec, &level);
	assert_true(codec == NOVA_CODEC_LZ4 || level == 1);
	nova_adapt_cpu_share(s.adapt, 0);
	run(&s, &w, 10000);
	nova_adapt_choice(s.adapt, &codec, &level);
	assert_true(codec == NOVA_CODEC_ZSTD && level >= 6);
	nova_adapt_free(s.adapt);
}

/* Who has to wait for the processor asks for less of it, and for more again when nobody is waiting. */
static void test_starved(void **state)
{
	struct world w = { 12.5e6, 1, 1 };
	struct sim s = begin();
	enum nova_codec codec;
	int level;

	run(&s, &w, 6000);
	nova_adapt_choice(s.adapt, &codec, &level);
	assert_true(codec == NOVA_CODEC_ZSTD && level >= 6);
	for (int i = 0; i < 60; i++) {
		nova_adapt_starved(s.adapt, 0.8);
		run(&s, &w, TICK_MS);
	}
	nova_adapt_choice(s.adapt, &codec, &level);
	assert_true(codec == NOVA_CODEC_LZ4 || level <= 3);
	for (int i = 0; i < 60; i++) {
		nova_adapt_starved(s.adapt, 0);
		run(&s, &w, TICK_MS);
	}
	nova_adapt_choice(s.adapt, &codec, &level);
	assert_true(codec == NOVA_CODEC_ZSTD && level >= 6);
	nova_adapt_free(s.adapt);
}

static void test_log(void **state)
{
	struct sim s = begin();
	const struct nova_codec_choice *log;
	size_t count;

	log = nova_adapt_log(s.adapt, &count);
	assert_int_equal(count, 1); /* what it began with */
	assert_int_equal(log[0].codec, NOVA_CODEC_LZ4);
	nova_adapt_sent(s.adapt, 1000, 400);
	nova_adapt_sent(s.adapt, 500, 300);
	assert_int_equal(log[0].raw_bytes, 1500);
	assert_int_equal(log[0].encoded_bytes, 700);
	for (int i = 0; i < 600; i++)
		run(&s, &(struct world) { i % 2 ? 5e9 : 3e6, 1, 1 }, 15000);
	log = nova_adapt_log(s.adapt, &count);
	assert_true(count > 100 && count <= NOVA_ADAPT_LOG_MAX);
	for (size_t i = 1; i < count; i++)
		assert_true(log[i].t_ms > log[i - 1].t_ms);
	assert_true(log[count - 1].codec_Bps > 0 && log[count - 1].link_Bps > 0 && log[count - 1].ratio >= 1);
	nova_adapt_free(s.adapt);
}

/* Nothing measured, nothing chosen: the first codec stays. */
static void test_silence(void **state)
{
	struct sim s = begin();
	enum nova_codec codec;
	int level;

	for (uint64_t t = 0; t < 10000; t += TICK_MS)
		assert_false(nova_adapt_link(s.adapt, t, 0, false));
	nova_adapt_choice(s.adapt, &codec, &level);
	assert_int_equal(codec, NOVA_CODEC_LZ4);
	nova_adapt_free(s.adapt);
	assert_null(nova_adapt_free(NULL));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_settles),
		cmocka_unit_test(test_follows),
		cmocka_unit_test(test_noise_ends),
		cmocka_unit_test(test_cpu_share),
		cmocka_unit_test(test_starved),
		cmocka_unit_test(test_log),
		cmocka_unit_test(test_silence),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
