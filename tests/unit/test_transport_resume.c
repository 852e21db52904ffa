/* SPDX-License-Identifier: Apache-2.0
 *
 * test_transport_resume.c - sessions whose connections break: cut, silent, out of time, with several lanes.
 * A proxy between the two ends does the damage; every byte must arrive once and in order.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "tests/unit/transport_pair.h"

struct broken {
	struct pair pair;
	struct proxy proxy;
};

static void broken_init(struct broken *broken, const struct nova_session_options *options)
{
	struct pair *pair = &broken->pair;
	char address[64];

	pair_init(pair);
	proxy_open(&broken->proxy, &pair->loop, links_port(pair->beta.links));
	snprintf(address, sizeof(address), "127.0.0.1:%d", proxy_port(&broken->proxy));
	pair_dialler(pair, "alpha", "ca", address, "beta");
	pair->alpha.links->settings.heartbeat_ms = pair->beta.links->settings.heartbeat_ms = 300;
	pair->alpha.links->settings.silence_ms = pair->beta.links->settings.silence_ms = 1500;
	dial(&pair->alpha, options);
	LOOP_UNTIL(&pair->loop, pair->alpha.up && pair->beta.up);
}

static void broken_release(struct broken *broken)
{
	proxy_close(&broken->proxy);
	pair_release(&broken->pair);
}

static void test_twenty_cuts(void **state)
{
	struct flow a = { .to_send = 40 << 20, .finish = true }, b = { .to_send = 30 << 20, .finish = true };
	struct nova_link_stats stats;
	struct answer answers[20] = { 0 };
	struct nova_error err;
	struct broken broken;
	struct pair *pair = &broken.pair;

	broken_init(&broken,
	    &(struct nova_session_options) { .resume_limit_ms = 20000, .rate_bps = 400000000, .lanes = 1 });
	open_flow(pair, &a, &b, 5, NOVA_CHANNEL_STREAM);
	flow_fill(&a);
	flow_fill(&b);
	for (int i = 0; i < 20; i++) {
		uint64_t goal = a.to_send / 25 * (uint64_t)(i + 1);

		LOOP_UNTIL(&pair->loop, b.heard >= goal && pair->alpha.resumed == i);
		assert_non_null(
		    request_send(pair->alpha.session, "echo", NULL, 15000, answer_done, &answers[i], &err));
		proxy_cut(&broken.proxy);
		LOOP_UNTIL(&pair->loop, pair->alpha.resumed == i + 1 && pair->beta.resumed == i + 1);
	}
	LOOP_UNTIL(&pair->loop, a.fins && b.fins);
	assert_true(b.heard == a.to_send && a.heard == b.to_send);
	LOOP_UNTIL(&pair->loop, answers[19].count);
	for (int i = 0; i < 20; i++) {
		assert_int_equal(answers[i].count, 1);
		assert_int_equal(answers[i].err.category, NOVA_OK);
	}
	assert_int_equal(pair->beta.requests, 20);
	session_stats(pair->alpha.session, &stats);
	assert_int_equal(stats.reconnects, 20);
	assert_true(stats.resent_bytes > 0);
	assert_int_equal(pair->alpha.closed + pair->beta.closed + a.broken + b.broken, 0);
	broken_release(&broken);
}

/* What the peer has is not sent again, even if its user has not consumed it yet. */
static void test_held_bytes_are_not_sent_again(void **state)
{
	struct flow a = { .to_send = 3 << 20, .message = 65536 }, b = { .hold = true };
	struct nova_link_stats stats;
	struct broken broken;
	struct pair *pair = &broken.pair;

	broken_init(&broken, &(struct nova_session_options) { .resume_limit_ms = 20000, .lanes = 1 });
	open_flow(pair, &a, &b, 5, NOVA_CHANNEL_STREAM);
	flow_fill(&a);
	LOOP_UNTIL(&pair->loop, b.heard == a.to_send);
	proxy_cut(&broken.proxy);
	LOOP_UNTIL(&pair->loop, pair->alpha.resumed && pair->beta.resumed);
	session_stats(pair->alpha.session, &stats);
	assert_int_equal(stats.resent_bytes, 0);
	assert_true(a.channel->ops->unacknowledged(a.channel) == a.to_send);
	b.channel->ops->consumed(b.channel, b.heard);
	LOOP_UNTIL(&pair->loop, a.channel->ops->unacknowledged(a.channel) == 0);
	broken_release(&broken);
}

static void test_black_hole(void **state)
{
	struct flow a = { .to_send = 20 << 20 }, b = { 0 };
	struct broken broken;
	struct pair *pair = &broken.pair;

	broken_init(&broken,
	    &(struct nova_session_options) { .resume_limit_ms = 20000, .rate_bps = 200000000, .lanes = 1 });
	open_flow(pair, &a, &b, 5, NOVA_CHANNEL_STREAM);
	flow_fill(&a);
	LOOP_UNTIL(&pair->loop, b.heard > 2000000);
	broken.proxy.silent = true;
	LOOP_UNTIL(&pair->loop, pair->alpha.reconnecting >= 2);
	assert_true(pair->alpha.waited_ms > 0);
	broken.proxy.silent = false;
	LOOP_UNTIL(&pair->loop, b.heard == a.to_send);
	assert_int_equal(pair->alpha.resumed, 1);
	broken_release(&broken);
}

static void test_limit_exceeded(void **state)
{
	struct flow a = { .to_send = 20 << 20 }, b = { 0 };
	struct answer held = { 0 };
	struct nova_error err;
	struct broken broken;
	struct pair *pair = &broken.pair;

	broken_init(&broken, &(struct nova_session_options) { .resume_limit_ms = 20000, .lanes = 1 });
	open_flow(pair, &a, &b, 5, NOVA_CHANNEL_STREAM);
	assert_non_null(request_send(pair->alpha.session, "hold", NULL, 0, answer_done, &held, &err));
	LOOP_UNTIL(&pair->loop, pair->beta.held);
	session_limit(pair->alpha.session, 700);
	LOOP_UNTIL(&pair->loop, pair->beta.session->resume_limit_ms == 700);
	broken.proxy.refuse = true;
	proxy_cut(&broken.proxy);
	LOOP_UNTIL(&pair->loop, pair->alpha.closed && pair->beta.closed);
	assert_int_equal(pair->alpha.why.category, NOVA_LINK);
	assert_non_null(strstr(pair->alpha.why.text, "700 ms"));
	assert_int_equal(pair->beta.why.category, NOVA_LINK);
	assert_int_equal(held.count, 1);
	assert_int_equal(held.err.category, NOVA_LINK);
	assert_int_equal(a.broken, 1);
	assert_int_equal(b.broken, 1);
	request_answer(pair->beta.held, NULL, NULL);
	broken_release(&broken);
}

static void test_no_resumption_wanted(void **state)
{
	struct broken broken;
	struct pair *pair = &broken.pair;

	broken_init(&broken, &plain);
	proxy_cut(&broken.proxy);
	LOOP_UNTIL(&pair->loop, pair->alpha.closed && pair->beta.closed);
	assert_int_equal(pair->alpha.why.category, NOVA_LINK);
	assert_int_equal(pair->alpha.reconnecting, 0);
	broken_release(&broken);
}

/* The peer's daemon restarted: it does not know the session. */
static void test_forgotten_session(void **state)
{
	struct link_settings settings;
	struct broken broken;
	struct pair *pair = &broken.pair;

	broken_init(&broken, &(struct nova_session_options) { .resume_limit_ms = 20000, .lanes = 1 });
	proxy_cut(&broken.proxy);
	end_close(&pair->beta);
	settings = end_settings(&pair->loop, "beta", "ca",
	    json_pack("{s:[s], s:{s:{}}}", "listen", "127.0.0.1:0", "peers", "alpha"));
	end_open(&pair->beta, &pair->loop, &settings);
	broken.proxy.target_port = links_port(pair->beta.links);
	LOOP_UNTIL(&pair->loop, pair->alpha.closed);
	assert_int_equal(pair->beta.accepted, 0);
	assert_int_equal(pair->alpha.why.category, NOVA_LINK);
	assert_non_null(strstr(pair->alpha.why.text, "not known"));
	broken_release(&broken);
}

/* Somebody else with a good certificate cannot take a session over. */
static void test_session_belongs_to_its_peer(void **state)
{
	struct link_settings settings;
	struct broken broken;
	struct pair *pair = &broken.pair;
	struct end gamma;
	char address[64];

	pair_init(pair);
	end_close(&pair->beta);
	issue(&pair->loop, &pair->ca, "gamma", "gamma", 36000);
	settings = end_settings(&pair->loop, "beta", "ca",
	    json_pack("{s:[s], s:{s:{}, s:{}}}", "listen", "127.0.0.1:0", "peers", "alpha", "gamma"));
	end_open(&pair->beta, &pair->loop, &settings);
	pair_connect(pair, &(struct nova_session_options) { .resume_limit_ms = 20000, .lanes = 1 });
	snprintf(address, sizeof(address), "127.0.0.1:%d", links_port(pair->beta.links));
	settings = end_settings(
	    &pair->loop, "gamma", "ca", json_pack("{s:{s:{s:[s]}}}", "peers", "beta", "address", address));
	end_open(&gamma, &pair->loop, &settings);
	dial(&gamma, &plain);
	memcpy(gamma.session->id, pair->alpha.session->id, sizeof(gamma.session->id));
	LOOP_UNTIL(&pair->loop, gamma.closed);
	assert_non_null(strstr(gamma.why.text, "not known"));
	assert_int_equal(pair->alpha.closed + pair->beta.closed + pair->beta.reconnecting, 0);
	end_close(&gamma);
	pair_release(pair);
}

/* ---- lanes ---- */

static void test_lanes(void **state)
{
	struct flow a = { .to_send = 40 << 20, .finish = true }, b = { .to_send = 10 << 20, .finish = true };
	struct nova_link_stats stats;
	struct broken broken;
	struct pair *pair = &broken.pair;

	broken_init(&broken,
	    &(struct nova_session_options) { .resume_limit_ms = 20000, .rate_bps = 400000000, .lanes = 4 });
	LOOP_UNTIL(&pair->loop, pair->alpha.session->lanes_up == 4 && pair->beta.session->lanes_up == 4);
	open_flow(pair, &a, &b, 5, NOVA_CHANNEL_STREAM);
	flow_fill(&a);
	flow_fill(&b);
	for (int i = 0; i < 3; i++) {
		LOOP_UNTIL(&pair->loop, b.heard >= a.to_send / 10 * (uint64_t)(i + 1));
		hop_close(broken.proxy.hops, true);
		LOOP_UNTIL(&pair->loop, pair->alpha.lanes_lost == i + 1 && pair->beta.lanes_lost == i + 1);
	}
	assert_int_equal(pair->alpha.reconnecting, 0);
	LOOP_UNTIL(&pair->loop, pair->alpha.session->lanes_up == 4);
	LOOP_UNTIL(&pair->loop, a.fins && b.fins);
	session_stats(pair->alpha.session, &stats);
	assert_int_equal(stats.lanes, 4);
	assert_int_equal(stats.reconnects, 0);
	broken_release(&broken);
}

static void test_all_lanes_cut(void **state)
{
	struct flow a = { .to_send = 20 << 20, .finish = true }, b = { 0 };
	struct broken broken;
	struct pair *pair = &broken.pair;

	broken_init(&broken,
	    &(struct nova_session_options) { .resume_limit_ms = 20000, .rate_bps = 400000000, .lanes = 3 });
	LOOP_UNTIL(&pair->loop, pair->alpha.session->lanes_up == 3 && pair->beta.session->lanes_up == 3);
	open_flow(pair, &a, &b, 5, NOVA_CHANNEL_STREAM);
	flow_fill(&a);
	for (int i = 0; i < 5; i++) {
		LOOP_UNTIL(&pair->loop, b.heard >= a.to_send / 8 * (uint64_t)(i + 1));
		proxy_cut(&broken.proxy);
		LOOP_UNTIL(&pair->loop, pair->alpha.resumed == i + 1);
	}
	LOOP_UNTIL(&pair->loop, b.fins);
	assert_true(b.heard == a.to_send);
	broken_release(&broken);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_twenty_cuts),
		cmocka_unit_test(test_held_bytes_are_not_sent_again),
		cmocka_unit_test(test_black_hole),
		cmocka_unit_test(test_limit_exceeded),
		cmocka_unit_test(test_no_resumption_wanted),
		cmocka_unit_test(test_forgotten_session),
		cmocka_unit_test(test_session_belongs_to_its_peer),
		cmocka_unit_test(test_lanes),
		cmocka_unit_test(test_all_lanes_cut),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
