/* SPDX-License-Identifier: Apache-2.0
 *
 * test_converge.c - the convergence controller against simulated guests: ones that converge, ones that do
 * not, ones that change their mind. What must hold for all: never a switch in the first round, a switch by
 * "it fits" only where the pause then really fits, each policy's end and no other, the same final decision
 * until asked to go on, and numbers in every reason.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/converge.h"

#define MIB (1024.0 * 1024.0)
#define POLL_MS 50
/* A prediction knows only the round before: a guest that fills its working set writes unevenly. */
#define SLACK 1.15

/* A guest whose rounds go as QEMU's do: what was dirty at the sync is sent, what is written meanwhile is
 * found at the next sync. Writes go to a working set, so that more of them hit pages that are dirty already.
 */
struct guest {
	double total_mib, set_mib, write_mib_s; /* memory; what it writes to; how fast */
	double link_mib_s, ratio;               /* encoded; raw for an encoded byte */
	int throttle;                           /* percent */
	double now_s, remaining_mib, dirty_mib, sent_mib, measured_mib_s;
	double round_s; /* when this round began */
	int64_t iteration;
	bool postcopy_possible;
	void (*change)(struct guest *guest); /* called each millisecond; may be NULL */
};

static void guest_ms(struct guest *guest)
{
	double write = guest->write_mib_s * (100 - guest->throttle) / 100 * 0.001;

	if (guest->change)
		guest->change(guest);
	guest->now_s += 0.001;
	guest->dirty_mib += write * (1 - guest->dirty_mib / guest->set_mib);
	guest->sent_mib += guest->link_mib_s * guest->ratio * 0.001;
	guest->remaining_mib -= guest->link_mib_s * guest->ratio * 0.001;
	if (guest->remaining_mib > 0.05)
		return;
	guest->measured_mib_s = guest->dirty_mib / (guest->now_s - guest->round_s);
	guest->remaining_mib = guest->dirty_mib > 0.1 ? guest->dirty_mib : 0.1;
	guest->dirty_mib = 0;
	guest->round_s = guest->now_s;
	guest->iteration++;
}

/* What the pause would really be: the last sync finds what is dirty now. */
static double true_pause_ms(const struct guest *guest)
{
	return (guest->remaining_mib + guest->dirty_mib) / (guest->link_mib_s * guest->ratio) * 1000;
}

static struct nova_sample sample_of(const struct guest *guest)
{
	return (struct nova_sample) {
		.now_ms = (int64_t)(guest->now_s * 1000) + 77000,
		.iteration = guest->iteration,
		.remaining_bytes = (uint64_t)(guest->remaining_mib * MIB),
		.total_bytes = (uint64_t)(guest->total_mib * MIB),
		.dirty_bytes_per_s = (uint64_t)(guest->measured_mib_s * MIB),
		.transferred_bytes = (uint64_t)(guest->sent_mib * MIB),
		.wire_bytes = (uint64_t)(guest->sent_mib / guest->ratio * MIB),
		.link_bytes_per_s = (uint64_t)(guest->link_mib_s * MIB),
		.postcopy_possible = guest->postcopy_possible,
	};
}

static struct guest new_guest(
    double total_mib, double set_mib, double write_mib_s, double link_mib_s, double ratio)
{
	return (struct guest) { .total_mib = total_mib,
		.set_mib = set_mib,
		.write_mib_s = write_mib_s,
		.link_mib_s = link_mib_s,
		.ratio = ratio,
		.remaining_mib = total_mib,
		.iteration = 1 };
}

/* Run until a final decision or limit_s of the guest's time; obeys THROTTLE. */
static enum nova_converge_action drive(struct nova_converge *converge, struct guest *guest, double limit_s)
{
	double until = guest->now_s + limit_s;
	int throttle = 0;

	while (guest->now_s < until) {
		const struct nova_sample sample = sample_of(guest);
		const struct nova_converge_decision *decision = nova_converge_poll(converge, &sample);

		if (decision->action != NOVA_CONVERGE_CONTINUE) {
			assert_non_null(strstr(decision->reason, "remaining"));
			assert_non_null(strstr(decision->reason, "KiB/s"));
		}
		if (decision->action == NOVA_CONVERGE_THROTTLE) {
			assert_true(
			    decision->throttle_percent > throttle && decision->throttle_percent <= 99);
			throttle = guest->throttle = decision->throttle_percent;
		} else if (decision->action != NOVA_CONVERGE_CONTINUE)
			return decision->action;
		assert_int_equal(decision->throttle_percent, throttle);
		for (int i = 0; i < POLL_MS; i++)
			guest_ms(guest);
	}
	return NOVA_CONVERGE_CONTINUE;
}

static struct nova_converge *new_converge(enum nova_stall_policy policy, int downtime_ms, int64_t max_ms)
{
	const struct nova_converge_options options = {
		.policy = policy, .downtime_ms = downtime_ms, .max_ms = max_ms
	};
	struct nova_converge *converge = nova_converge_new(&options);

	assert_non_null(converge);
	return converge;
}

static size_t count_decisions(const struct nova_converge *converge, const char *action)
{
	json_t *report = nova_converge_report(converge), *entry;
	size_t i, count = 0;

	json_array_foreach (json_object_get(report, "decisions"), i, entry)
		count += !strcmp(json_string_value(json_object_get(entry, "action")), action);
	json_decref(report);
	return count;
}

/* ---- guests that converge ---- */

static void test_switch_fits_for_all_guests_that_converge(void **state)
{
	static const double writes[] = { 0, 1, 5, 20, 40 }, links[] = { 12, 60, 120 }, ratios[] = { 1, 2.5 };
	static const int budgets[] = { 100, 300, 1000 };

	for (size_t w = 0; w < 5; w++)
		for (size_t l = 0; l < 3; l++)
			for (size_t r = 0; r < 2; r++)
				for (size_t b = 0; b < 3; b++) {
					struct guest guest =
					    new_guest(512, 256, writes[w], links[l], ratios[r]);
					struct nova_converge *converge =
					    new_converge(NOVA_STALL_WAIT, budgets[b], 0);

					if (writes[w] >
					    links[l] * ratios[r] * 0.7) { /* it need not converge */
						nova_converge_free(converge);
						continue;
					}
					assert_int_equal(drive(converge, &guest, 600), NOVA_CONVERGE_SWITCH);
					assert_true(guest.iteration > 1);
					/* what the controller allows for beside the bytes is in the budget
					 * too */
					if (true_pause_ms(&guest) > budgets[b] * SLACK)
						fail_msg("writes %g link %g x %g: pause %g of %d", writes[w],
						    links[l], ratios[r], true_pause_ms(&guest), budgets[b]);
					assert_int_equal(count_decisions(converge, "switch"), 1);
					nova_converge_free(converge);
				}
}

static void test_round_trips_and_bytes_in_flight_count(void **state)
{
	struct nova_sample sample = { .iteration = 1,
		.remaining_bytes = 10 << 20,
		.total_bytes = 1 << 30,
		.link_bytes_per_s = 100 << 20,
		.rtt_ms = 50 };
	struct nova_converge *converge = new_converge(NOVA_STALL_WAIT, 1, 0);

	nova_converge_poll(converge, &sample);
	sample.iteration = 2;
	assert_int_equal(nova_converge_poll(converge, &sample)->predicted_downtime_ms, 100 + 75 + 50);
	sample.in_flight_bytes = 5 << 20;
	assert_int_equal(nova_converge_poll(converge, &sample)->predicted_downtime_ms, 100 + 50 + 75 + 50);
	sample.held_bytes = 10 << 20;
	assert_int_equal(nova_converge_poll(converge, &sample)->predicted_downtime_ms, 200 + 50 + 75 + 50);
	sample.link_bytes_per_s = 0;
	assert_int_equal(
	    nova_converge_poll(converge, &sample)->predicted_downtime_ms, -1); /* and no division by it */
	nova_converge_free(converge);
}

static void test_compression_counts(void **state)
{
	struct guest plain = new_guest(256, 64, 20, 40, 1), packed = new_guest(256, 64, 20, 40, 4);
	struct nova_converge *a = new_converge(NOVA_STALL_WAIT, 200, 0),
	                     *b = new_converge(NOVA_STALL_WAIT, 200, 0);

	assert_int_equal(drive(a, &plain, 600), NOVA_CONVERGE_SWITCH);
	assert_int_equal(drive(b, &packed, 600), NOVA_CONVERGE_SWITCH);
	assert_true(packed.now_s < plain.now_s);
	nova_converge_free(a);
	nova_converge_free(b);
}

static void test_predicted_is_what_happens(void **state)
{
	static const double writes[] = { 1, 4, 20 }, links[] = { 12, 60, 120 };

	for (size_t w = 0; w < 3; w++)
		for (size_t l = 0; l < 3; l++) {
			struct guest guest = new_guest(512, 256, writes[w], links[l], 2);
			struct nova_converge *converge = new_converge(NOVA_STALL_WAIT, 300, 0);
			struct nova_sample sample;
			double real, predicted;

			assert_int_equal(drive(converge, &guest, 600), NOVA_CONVERGE_SWITCH);
			sample = sample_of(&guest);
			predicted = (double)nova_converge_poll(converge, &sample)->predicted_downtime_ms;
			real = true_pause_ms(&guest) + nova_converge_fixed_ms(converge);
			if (predicted > real * 1.5 || real > predicted * 1.5)
				fail_msg("writes %g link %g: %g ms, predicted %g", writes[w], links[l], real, predicted);
			nova_converge_free(converge);
		}
}

/* Half of the budget is good, a tenth is better, and it is only a moment away. */
static void test_a_pause_that_fits_may_get_shorter(void **state)
{
	struct nova_sample sample = {
		.now_ms = 1000, .iteration = 1, .remaining_bytes = 900u << 20, .total_bytes = 1u << 30, .link_bytes_per_s = 100 << 20
	};
	struct nova_converge *converge = new_converge(NOVA_STALL_WAIT, 300, 0);

	nova_converge_poll(converge, &sample);
	sample.iteration = 2;
	for (uint64_t mib = 60; mib > 0; mib -= 10) { /* far beyond the budget, then well within it */
		const struct nova_converge_decision *decision;

		sample.now_ms += 100;
		sample.remaining_bytes = (mib > 20 ? mib : mib / 2) << 20;
		decision = nova_converge_poll(converge, &sample);
		assert_int_equal(decision->action, NOVA_CONVERGE_CONTINUE);
		assert_true(mib > 20 || decision->eta_ms == 0);
	}
	sample.remaining_bytes = 100 << 10;
	assert_int_equal(nova_converge_poll(converge, &sample)->action, NOVA_CONVERGE_SWITCH);
	nova_converge_free(converge);

	/* It does not get shorter any more: now. */
	converge = new_converge(NOVA_STALL_WAIT, 300, 0);
	sample.iteration = 1;
	nova_converge_poll(converge, &sample);
	sample.iteration = 2;
	sample.remaining_bytes = 15 << 20;
	assert_int_equal(nova_converge_poll(converge, &sample)->action, NOVA_CONVERGE_CONTINUE);
	assert_int_equal(nova_converge_poll(converge, &sample)->action, NOVA_CONVERGE_SWITCH);
	nova_converge_free(converge);
}

/* The first pass shrank by half; what is sent again shrinks by a hundred, and that is what the pause is of. */
static void test_pages_sent_again_shrink_differently(void **state)
{
	struct nova_sample sample = {
		.now_ms = 1000, .iteration = 1, .remaining_bytes = 900u << 20, .total_bytes = 1u << 30, .link_bytes_per_s = 10 << 20
	};
	struct nova_converge *converge = new_converge(NOVA_STALL_WAIT, 300, 0);

	for (int i = 0; i < 20; i++) {
		sample.now_ms += 1000;
		sample.transferred_bytes += 20 << 20;
		sample.wire_bytes += 10 << 20;
		nova_converge_poll(converge, &sample);
	}
	assert_true(nova_converge_again_ratio(converge) == 0);
	sample.iteration = 2;
	sample.remaining_bytes = 60 << 20;
	assert_in_range(nova_converge_poll(converge, &sample)->predicted_downtime_ms, 2900, 3100);
	sample.now_ms += 100;
	sample.transferred_bytes += 20 << 20;
	sample.wire_bytes += 200 << 10;
	nova_converge_poll(converge, &sample);
	assert_true(nova_converge_again_ratio(converge) > 90);
	/* 40 MiB at a thousandfold ratio would be 40 ms; the encoder has been seen to take 200 MiB a second */
	sample.remaining_bytes = 40 << 20;
	assert_in_range(nova_converge_poll(converge, &sample)->predicted_downtime_ms, 200, 260);
	nova_converge_free(converge);
}

/* ---- guests that do not ---- */

static struct guest hopeless(void)
{
	return new_guest(512, 256, 400, 25, 1);
}

static void test_wait_waits_until_its_limit(void **state)
{
	struct guest guest = hopeless();
	struct nova_converge *converge = new_converge(NOVA_STALL_WAIT, 300, 0);

	assert_int_equal(drive(converge, &guest, 600), NOVA_CONVERGE_CONTINUE);
	nova_converge_free(converge);
	guest = hopeless();
	converge = new_converge(NOVA_STALL_WAIT, 300, 120000);
	assert_int_equal(drive(converge, &guest, 600), NOVA_CONVERGE_ABORT);
	assert_true(guest.now_s >= 119.9 && guest.now_s <= 121);
	nova_converge_free(converge);
}

static void test_abort_gives_up(void **state)
{
	struct guest guest = hopeless();
	struct nova_converge *converge = new_converge(NOVA_STALL_ABORT, 300, 0);

	assert_int_equal(drive(converge, &guest, 600), NOVA_CONVERGE_ABORT);
	assert_true(guest.iteration >= 4); /* it was given its rounds */
	nova_converge_free(converge);
}

static void quick_bursts(struct guest *guest)
{
	guest->write_mib_s = (int)(guest->now_s / 3) % 2 ? 10 : 400;
}

/* At half of the moments of the next ten seconds, at least, the pause would be longer. */
static void test_force_switches_at_a_good_moment(void **state)
{
	struct nova_converge *converge = new_converge(NOVA_STALL_FORCE, 1, 0);
	struct guest guest = new_guest(512, 128, 400, 40, 1);
	int better = 0;
	double pause;

	guest.change = quick_bursts;
	assert_int_equal(drive(converge, &guest, 600), NOVA_CONVERGE_SWITCH);
	pause = true_pause_ms(&guest);
	for (int i = 0; i < 10000; i++) {
		guest_ms(&guest);
		better += true_pause_ms(&guest) < pause;
	}
	if (better > 5000)
		fail_msg("a pause of %g ms: %d %% of the time it was shorter", pause, better / 100);
	nova_converge_free(converge);
}

static void test_throttle_slows_until_it_fits(void **state)
{
	struct guest guest = new_guest(256, 128, 80, 50, 1);
	struct nova_converge *converge = new_converge(NOVA_STALL_THROTTLE, 300, 0);

	assert_int_equal(drive(converge, &guest, 600), NOVA_CONVERGE_SWITCH);
	assert_true(guest.throttle >= 20);
	assert_true(true_pause_ms(&guest) <= 300 * SLACK);
	assert_true(count_decisions(converge, "throttle") >= 1);
	nova_converge_free(converge);

	/* A guest that no throttle slows (the device writes): it ends all the same. */
	guest = new_guest(256, 128, 100000, 10, 1);
	converge = new_converge(NOVA_STALL_THROTTLE, 300, 0);
	assert_int_equal(drive(converge, &guest, 6000), NOVA_CONVERGE_SWITCH);
	assert_int_equal(guest.throttle, 99);
	nova_converge_free(converge);
}

static void test_postcopy_where_possible(void **state)
{
	struct guest guest = hopeless();
	struct nova_converge *converge = new_converge(NOVA_STALL_POSTCOPY, 300, 0);

	guest.postcopy_possible = true;
	assert_int_equal(drive(converge, &guest, 600), NOVA_CONVERGE_POSTCOPY);
	assert_true(guest.iteration > 1);
	nova_converge_free(converge);
	guest = hopeless();
	converge = new_converge(NOVA_STALL_POSTCOPY, 300, 0);
	assert_int_equal(drive(converge, &guest, 600), NOVA_CONVERGE_SWITCH);
	nova_converge_free(converge);
}

static void test_the_limit_ends_every_policy(void **state)
{
	static const enum nova_converge_action ends[] = { NOVA_CONVERGE_ABORT, NOVA_CONVERGE_SWITCH,
		NOVA_CONVERGE_SWITCH, NOVA_CONVERGE_SWITCH, NOVA_CONVERGE_ABORT };

	for (enum nova_stall_policy policy = 0; policy < NOVA_STALL_POLICIES; policy++) {
		struct guest guest = new_guest(100000, 256, 400, 25, 1); /* still in its first round then */
		struct nova_converge *converge = new_converge(policy, 300, 5000);

		assert_int_equal(drive(converge, &guest, 600), ends[policy]);
		assert_true(guest.now_s >= 4.9 && guest.now_s < 5.2);
		nova_converge_free(converge);
	}
}

/* ---- guests that change their mind ---- */

static void bursts(struct guest *guest)
{
	guest->write_mib_s = (int)(guest->now_s / 10) % 2 ? 5 : 400;
}

static void test_wait_takes_the_quiet_moment(void **state)
{
	struct guest guest = new_guest(256, 128, 400, 60, 1);
	struct nova_converge *converge = new_converge(NOVA_STALL_WAIT, 300, 0);

	guest.change = bursts;
	assert_int_equal(drive(converge, &guest, 120), NOVA_CONVERGE_SWITCH);
	assert_true(true_pause_ms(&guest) <= 300 * SLACK);
	nova_converge_free(converge);
}

static void calms_down(struct guest *guest)
{
	guest->write_mib_s = guest->now_s < 300 ? 400 : 2;
}

static void test_a_long_stall_does_not_blind(void **state)
{
	struct guest guest = new_guest(256, 128, 400, 60, 1);
	struct nova_converge *converge = new_converge(NOVA_STALL_WAIT, 300, 0);

	guest.change = calms_down;
	assert_int_equal(drive(converge, &guest, 330), NOVA_CONVERGE_SWITCH);
	assert_true(guest.now_s > 300);
	nova_converge_free(converge);
}

/* ---- the user changes it, the switch fails, the prediction was wrong ---- */

static void test_options_change_in_flight(void **state)
{
	struct guest guest = hopeless();
	struct nova_converge *converge = new_converge(NOVA_STALL_WAIT, 300, 0);
	const struct nova_converge_options more = { .downtime_ms = 60000, .policy = NOVA_STALL_WAIT };

	assert_int_equal(drive(converge, &guest, 60), NOVA_CONVERGE_CONTINUE);
	nova_converge_set(converge, &more);
	assert_int_equal(drive(converge, &guest, 1), NOVA_CONVERGE_SWITCH);
	nova_converge_free(converge);
}

static void test_final_until_asked_again(void **state)
{
	struct guest guest = new_guest(256, 64, 2, 60, 1);
	struct nova_converge *converge = new_converge(NOVA_STALL_WAIT, 300, 0);
	const struct nova_sample worse = {
		.now_ms = 999999, .iteration = 99, .remaining_bytes = 1ull << 40, .link_bytes_per_s = 1
	};

	assert_int_equal(drive(converge, &guest, 600), NOVA_CONVERGE_SWITCH);
	assert_int_equal(nova_converge_poll(converge, &worse)->action, NOVA_CONVERGE_SWITCH);
	assert_int_equal(count_decisions(converge, "switch"), 1);
	nova_converge_again(converge);
	assert_int_equal(nova_converge_poll(converge, &worse)->action, NOVA_CONVERGE_CONTINUE);
	nova_converge_free(converge);
}

static void test_it_learns_the_fixed_cost(void **state)
{
	struct guest guest = new_guest(256, 64, 2, 60, 1);
	struct nova_converge *converge = new_converge(NOVA_STALL_WAIT, 300, 0);
	int before = nova_converge_fixed_ms(converge);

	nova_converge_learn(converge, 5000); /* nothing was predicted: nothing to learn */
	assert_int_equal(drive(converge, &guest, 600), NOVA_CONVERGE_SWITCH);
	nova_converge_learn(converge, 2000);
	assert_true(nova_converge_fixed_ms(converge) > before);
	for (int i = 0; i < 100; i++)
		nova_converge_learn(converge, 1000000);
	assert_true(nova_converge_fixed_ms(converge) <= 2000);
	for (int i = 0; i < 1000; i++)
		nova_converge_learn(converge, 0);
	assert_true(nova_converge_fixed_ms(converge) >= 1);
	nova_converge_free(converge);
}

/* ---- the report, samples, names ---- */

static void test_the_report_is_bounded_and_whole(void **state)
{
	struct nova_converge *converge = new_converge(NOVA_STALL_WAIT, 300, 0);
	struct nova_sample sample = { .link_bytes_per_s = 100 << 20, .total_bytes = 1 << 30 };
	json_t *report, *decisions, *rounds;

	for (int i = 1; i <= 5000; i++) {
		sample.now_ms += 100;
		sample.iteration = i;
		sample.remaining_bytes = i % 3 ? 1 << 30 : 1 << 20;
		if (nova_converge_poll(converge, &sample)->action == NOVA_CONVERGE_SWITCH)
			nova_converge_again(converge);
	}
	report = nova_converge_report(converge);
	decisions = json_object_get(report, "decisions");
	rounds = json_object_get(report, "rounds");
	assert_int_equal(json_array_size(decisions), 64);
	assert_true(json_array_size(rounds) > 0 && json_array_size(rounds) <= 64);
	assert_int_equal(json_integer_value(json_object_get(json_array_get(decisions, 0), "iteration")), 3);
	assert_int_equal(
	    json_integer_value(json_object_get(json_array_get(decisions, 63), "iteration")), 4998);
	assert_int_equal(json_integer_value(json_object_get(json_array_get(rounds, 0), "iteration")), 1);
	assert_string_equal(json_string_value(json_object_get(report, "policy")), "wait");
	json_decref(report);
	nova_converge_free(converge);
}

static void test_samples_from_a_driver(void **state)
{
	json_t *answer = json_pack("{s:i, s:I, s:n, s:s}", "iteration", 3, "remaining_bytes",
	    (json_int_t)1 << 40, "dirty_bytes_per_s", "status", "active");
	struct nova_sample sample = { .dirty_bytes_per_s = 7, .wire_bytes = 8 };
	struct nova_error err;

	assert_int_equal(nova_sample_read(&sample, answer, NULL), 0);
	assert_int_equal(sample.iteration, 3);
	assert_int_equal(sample.remaining_bytes, (uint64_t)1 << 40);
	assert_int_equal(sample.dirty_bytes_per_s, 7);
	assert_int_equal(sample.wire_bytes, 8);
	json_object_set_new(answer, "remaining_bytes", json_integer(-1));
	assert_int_equal(nova_sample_read(&sample, answer, &err), -1);
	assert_non_null(strstr(err.text, "remaining_bytes"));
	json_object_set_new(answer, "remaining_bytes", json_string("1"));
	assert_int_equal(nova_sample_read(&sample, answer, &err), -1);
	json_decref(answer);
}

static void test_names(void **state)
{
	enum nova_stall_policy policy;
	struct nova_error err;
	char all[128] = "";

	for (enum nova_stall_policy i = 0; i < NOVA_STALL_POLICIES; i++) {
		assert_int_equal(nova_stall_policy_parse(nova_stall_policy_name(i), &policy, NULL), 0);
		assert_int_equal(policy, i);
		sprintf(all + strlen(all), "%s%s", i ? "|" : "", nova_stall_policy_name(i));
	}
	assert_string_equal(all, NOVA_STALL_CHOICES);
	assert_int_equal(nova_stall_policy_parse("hope", &policy, &err), -1);
	assert_string_equal(err.text, "'hope' is not a stall policy: " NOVA_STALL_CHOICES);
	assert_string_equal(nova_converge_action_name(NOVA_CONVERGE_POSTCOPY), "postcopy");
	assert_null(nova_converge_free(NULL));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_switch_fits_for_all_guests_that_converge),
		cmocka_unit_test(test_round_trips_and_bytes_in_flight_count),
		cmocka_unit_test(test_compression_counts),
		cmocka_unit_test(test_predicted_is_what_happens),
		cmocka_unit_test(test_a_pause_that_fits_may_get_shorter),
		cmocka_unit_test(test_pages_sent_again_shrink_differently),
		cmocka_unit_test(test_wait_waits_until_its_limit),
		cmocka_unit_test(test_abort_gives_up),
		cmocka_unit_test(test_force_switches_at_a_good_moment),
		cmocka_unit_test(test_throttle_slows_until_it_fits),
		cmocka_unit_test(test_postcopy_where_possible),
		cmocka_unit_test(test_the_limit_ends_every_policy),
		cmocka_unit_test(test_wait_takes_the_quiet_moment),
		cmocka_unit_test(test_a_long_stall_does_not_blind),
		cmocka_unit_test(test_options_change_in_flight),
		cmocka_unit_test(test_final_until_asked_again),
		cmocka_unit_test(test_it_learns_the_fixed_cost),
		cmocka_unit_test(test_the_report_is_bounded_and_whole),
		cmocka_unit_test(test_samples_from_a_driver),
		cmocka_unit_test(test_names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
