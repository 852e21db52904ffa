/* SPDX-License-Identifier: Apache-2.0
 *
 * test_transport.c - sessions between two ends in one process: requests, channels, priorities, rates, limits,
 * and everybody who must stay out.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "tests/unit/transport_pair.h"

/* ---- up, requests ---- */

static void test_up_and_requests_both_ways(void **state)
{
	struct answer one = { 0 }, two = { 0 }, three = { 0 };
	json_t *args = json_pack("{s:s}", "text", "hello");
	struct nova_error err;
	struct pair pair;

	pair_init(&pair);
	pair_connect(&pair, &plain);
	assert_string_equal(pair.alpha.peer, "beta");
	assert_string_equal(pair.beta.peer, "alpha");
	assert_non_null(request_send(pair.alpha.session, "echo", args, 5000, answer_done, &one, &err));
	assert_non_null(request_send(pair.beta.session, "echo", args, 5000, answer_done, &two, &err));
	assert_non_null(request_send(pair.alpha.session, "dance", NULL, 5000, answer_done, &three, &err));
	assert_int_equal(one.count, 0);
	LOOP_UNTIL(&pair.loop, one.count && two.count && three.count);
	assert_true(json_equal(one.result, args));
	assert_true(json_equal(two.result, args));
	assert_int_equal(three.err.category, NOVA_REFUSED);
	assert_string_equal(three.err.text, "no dance today");
	answer_release(&one);
	answer_release(&two);
	answer_release(&three);
	json_decref(args);
	pair_release(&pair);
}

static void test_large_and_bad_requests(void **state)
{
	struct answer big = { 0 };
	char *text = malloc(1100000);
	json_t *args, *deep = json_object();
	struct nova_error err;
	struct pair pair;

	pair_init(&pair);
	pair_connect(&pair, &plain);
	memset(text, 'x', 1100000);
	args = json_pack("{s:s%}", "text", text, (size_t)1000000);
	assert_non_null(request_send(pair.alpha.session, "echo", args, 5000, answer_done, &big, &err));
	LOOP_UNTIL(&pair.loop, big.count);
	assert_true(json_equal(big.result, args));
	json_object_set_new(args, "text", json_stringn(text, 1099999));
	assert_null(request_send(pair.alpha.session, "echo", args, 5000, answer_done, &big, &err));
	assert_int_equal(err.category, NOVA_INVALID);
	for (int i = 0; i < 40; i++)
		deep = json_pack("{s:o}", "in", deep);
	assert_null(request_send(pair.alpha.session, "echo", deep, 5000, answer_done, &big, &err));
	assert_int_equal(err.category, NOVA_INVALID);
	assert_non_null(strstr(err.text, "32"));
	answer_release(&big);
	json_decref(args);
	json_decref(deep);
	free(text);
	pair_release(&pair);
}

static void test_deadline_drop_and_late_answer(void **state)
{
	struct answer late = { 0 }, dropped = { 0 }, after = { 0 };
	struct nova_error err;
	struct nova_op *op;
	struct pair pair;

	pair_init(&pair);
	pair_connect(&pair, &plain);
	assert_non_null(request_send(pair.alpha.session, "hold", NULL, 30, answer_done, &late, &err));
	LOOP_UNTIL(&pair.loop, late.count && pair.beta.held);
	assert_int_equal(late.err.category, NOVA_TIMEOUT);
	request_answer(pair.beta.held, NULL, NULL);
	op = request_send(pair.alpha.session, "echo", NULL, 1000, answer_done, &dropped, &err);
	nova_op_drop(op);
	assert_non_null(request_send(pair.alpha.session, "echo", NULL, 1000, answer_done, &after, &err));
	LOOP_UNTIL(&pair.loop, after.count);
	assert_int_equal(late.count, 1);
	assert_int_equal(dropped.count, 0);
	pair_release(&pair);
}

static void test_free_answers_and_tells_the_peer(void **state)
{
	struct answer held = { 0 };
	struct nova_error err;
	struct pair pair;

	pair_init(&pair);
	pair_connect(&pair, &plain);
	assert_non_null(request_send(pair.alpha.session, "hold", NULL, 0, answer_done, &held, &err));
	LOOP_UNTIL(&pair.loop, pair.beta.held);
	pair.alpha.session = session_free(pair.alpha.session);
	assert_int_equal(held.count, 0);
	LOOP_UNTIL(&pair.loop, held.count && pair.beta.closed);
	assert_int_equal(held.err.category, NOVA_CANCELLED);
	assert_int_equal(pair.beta.why.category, NOVA_CANCELLED);
	request_answer(pair.beta.held, json_string("into nothing"), NULL);
	assert_int_equal(pair.alpha.closed, 0);
	pair_release(&pair);
}

/* The last answer before the session is freed still arrives. */
static void test_last_words(void **state)
{
	struct answer held = { 0 };
	struct nova_error err;
	struct pair pair;

	pair_init(&pair);
	pair_connect(&pair, &plain);
	assert_non_null(request_send(pair.alpha.session, "hold", NULL, 0, answer_done, &held, &err));
	LOOP_UNTIL(&pair.loop, pair.beta.held);
	request_answer(pair.beta.held, json_integer(7), NULL);
	pair.beta.session = session_free(pair.beta.session);
	LOOP_UNTIL(&pair.loop, held.count && pair.alpha.closed);
	assert_int_equal(json_integer_value(held.result), 7);
	answer_release(&held);
	pair_release(&pair);
}

/* ---- channels ---- */

static void test_bulk_both_ways(void **state)
{
	struct flow a = { .to_send = 8 << 20, .finish = true }, b = { .to_send = 6 << 20, .finish = true };
	struct pair pair;

	pair_init(&pair);
	pair_connect(&pair, &plain);
	open_flow(&pair, &a, &b, 5, NOVA_CHANNEL_STREAM);
	flow_fill(&a);
	flow_fill(&b);
	LOOP_UNTIL(&pair.loop, a.fins && b.fins);
	assert_true(b.heard == a.to_send && a.heard == b.to_send);
	LOOP_UNTIL(&pair.loop, a.channel->ops->unacknowledged(a.channel) == 0);
	assert_true(a.rooms > 0 && a.broken == 0 && b.broken == 0);
	a.channel->ops->free(a.channel);
	b.channel->ops->free(b.channel);
	pair_release(&pair);
}

/* A user that takes nothing: what is sent stops at the window, what is queued at the bound. */
static void test_slow_consumer_is_bounded(void **state)
{
	struct flow a = { .to_send = 12 << 20, .message = 65536 }, b = { .hold = true };
	struct nova_link_stats stats;
	struct pair pair;
	uint64_t held;

	pair_init(&pair);
	pair_connect(&pair, &plain);
	open_flow(&pair, &a, &b, 5, NOVA_CHANNEL_STREAM);
	flow_fill(&a);
	LOOP_UNTIL(&pair.loop, b.heard + 65536 > FRAME_WINDOW_START);
	loop_run_ms(&pair.loop, 100);
	assert_true(b.heard <= FRAME_WINDOW_START);
	session_stats(pair.alpha.session, &stats);
	assert_true(stats.queued_bytes <= (1 << 20) + 65536);
	assert_true(a.sent <= FRAME_WINDOW_START + (1 << 20) + 65536);
	assert_true(a.channel->ops->unacknowledged(a.channel) == a.sent);
	flow_fill(&a);
	assert_int_equal(a.channel->ops->room(a.channel), 0);
	assert_true(a.sent <= FRAME_WINDOW_START + (1 << 20) + 65536);
	held = b.heard;
	b.hold = false;
	b.channel->ops->consumed(b.channel, held);
	LOOP_UNTIL(&pair.loop, b.heard == a.to_send);
	pair_release(&pair);
}

static void test_channel_freed_by_the_peer(void **state)
{
	struct flow a = { .to_send = 1 << 20 }, b = { 0 };
	struct nova_error err;
	struct pair pair;

	pair_init(&pair);
	pair_connect(&pair, &plain);
	open_flow(&pair, &a, &b, 5, NOVA_CHANNEL_STREAM);
	flow_fill(&a);
	b.channel->ops->free(b.channel);
	LOOP_UNTIL(&pair.loop, a.broken);
	assert_int_equal(a.why.category, NOVA_CANCELLED);
	a.channel->ops->free(a.channel);
	assert_null(channel_open(pair.alpha.session, 5, NOVA_CHANNEL_STREAM, &flow_events, &a, &err));
	assert_int_equal(err.category, NOVA_STATE);
	memset(&a, 0, sizeof(a));
	memset(&b, 0, sizeof(b));
	a.to_send = 1 << 20;
	open_flow(&pair, &a, &b, 6, NOVA_CHANNEL_DISK);
	flow_fill(&a);
	LOOP_UNTIL(&pair.loop, b.heard == a.to_send);
	pair_release(&pair);
}

/* Finished and freed at once: everything still arrives. */
static void test_freed_after_finish_is_delivered(void **state)
{
	struct flow a = { .to_send = 700000, .finish = true }, b = { 0 };
	struct pair pair;

	pair_init(&pair);
	pair_connect(&pair, &plain);
	open_flow(&pair, &a, &b, 5, NOVA_CHANNEL_STREAM);
	flow_fill(&a);
	assert_true(a.sent == a.to_send);
	a.channel->ops->free(a.channel);
	LOOP_UNTIL(&pair.loop, b.fins && b.broken);
	assert_true(b.heard == 700000);
	b.channel->ops->free(b.channel);
	pair_release(&pair);
}

/* Requests overtake bulk: they wait for a batch, not for what is queued. */
static void test_requests_overtake_bulk(void **state)
{
	struct flow a = { .to_send = 1ull << 40, .message = 65536 }, b = { 0 };
	struct answer answers[10] = { 0 };
	double start, worst = 0;
	struct nova_error err;
	struct pair pair;
	uint64_t before;

	if (loop_patience() > 1)
		skip();
	pair_init(&pair);
	pair_connect(&pair, &(struct nova_session_options) { .rate_bps = 20000000, .lanes = 1 });
	open_flow(&pair, &a, &b, 5, NOVA_CHANNEL_STREAM);
	flow_fill(&a);
	LOOP_UNTIL(&pair.loop, b.heard > 500000);
	for (int i = 0; i < 10; i++) {
		before = b.heard;
		start = loop_now();
		assert_non_null(
		    request_send(pair.alpha.session, "echo", NULL, 5000, answer_done, &answers[i], &err));
		LOOP_UNTIL(&pair.loop, answers[i].count);
		worst = loop_now() - start > worst ? loop_now() - start : worst;
		assert_true(b.heard - before < 1000000);
	}
	if (worst > 1.0)
		fail_msg("a request took %.3f s beside bulk", worst);
	pair_release(&pair);
}

static void test_urgent_overtakes_stream(void **state)
{
	struct flow a = { .to_send = 1ull << 40, .message = 65536 }, b = { 0 };
	struct flow urgent_a = { .to_send = 1 << 20, .message = 4096 }, urgent_b = { 0 };
	struct pair pair;
	uint64_t before;

	pair_init(&pair);
	pair_connect(&pair, &(struct nova_session_options) { .rate_bps = 80000000, .lanes = 1 });
	open_flow(&pair, &a, &b, 5, NOVA_CHANNEL_STREAM);
	open_flow(&pair, &urgent_a, &urgent_b, 6, NOVA_CHANNEL_URGENT);
	flow_fill(&a);
	LOOP_UNTIL(&pair.loop, b.heard > 500000);
	before = b.heard;
	flow_fill(&urgent_a);
	LOOP_UNTIL(&pair.loop, urgent_b.heard == urgent_a.to_send);
	if (b.heard - before > 700000)
		fail_msg("%llu bytes of bulk went before 1 MiB of urgent ones",
		    (unsigned long long)(b.heard - before));
	pair_release(&pair);
}

/* A stream gets three times what a disk gets. */
static void test_two_bulk_channels_share(void **state)
{
	struct flow a = { .to_send = 1ull << 40, .message = 65536 }, b = { 0 };
	struct flow disk_a = { .to_send = 1ull << 40, .message = 30000 }, disk_b = { 0 };
	struct pair pair;
	uint64_t stream, disk;

	if (loop_patience() > 1)
		skip();
	pair_init(&pair);
	pair_connect(&pair, &(struct nova_session_options) { .rate_bps = 200000000, .lanes = 1 });
	open_flow(&pair, &a, &b, 5, NOVA_CHANNEL_STREAM);
	open_flow(&pair, &disk_a, &disk_b, 6, NOVA_CHANNEL_DISK);
	flow_fill(&a);
	LOOP_UNTIL(&pair.loop, b.heard > 1000000);
	stream = b.heard;
	flow_fill(&disk_a);
	LOOP_UNTIL(&pair.loop, disk_b.heard > 4000000);
	stream = b.heard - stream;
	disk = disk_b.heard;
	assert_true(stream > disk * 2 && stream < disk * 5);
	pair_release(&pair);
}

/* ---- rates ---- */

/* Bits a second over about ms, as counted on the sockets, headers estimated. */
static double measured_bps(struct pair *pair, int ms)
{
	struct nova_link_stats before, after;
	double start;

	session_stats(pair->alpha.session, &before);
	start = loop_now();
	loop_run_ms(&pair->loop, ms);
	session_stats(pair->alpha.session, &after);
	return (double)(after.wire_sent_bytes - before.wire_sent_bytes) * 8 * 1500 / 1448 /
	       (loop_now() - start);
}

/* Never above; and reached, if not at once: other programs use the processor too. */
static void expect_rate(struct pair *pair, double bps, int ms)
{
	double measured = 0;

	for (int i = 0; i < 15 && measured < bps * 0.85; i++) {
		measured = measured_bps(pair, ms);
		if (measured > bps * 1.25)
			break;
	}
	if (measured < bps * 0.85 || measured > bps * 1.25)
		fail_msg("%.0f bit/s wanted, %.0f measured", bps, measured);
}

static void test_rates_change_in_flight(void **state)
{
	struct flow a = { .to_send = 1ull << 40, .message = 65536 }, b = { 0 };
	struct pair pair;
	uint64_t stream;

	if (loop_patience() > 1)
		skip();
	pair_init(&pair);
	pair_connect(&pair, &(struct nova_session_options) { .rate_bps = 20000000, .lanes = 1 });
	open_flow(&pair, &a, &b, 5, NOVA_CHANNEL_STREAM);
	flow_fill(&a);
	loop_run_ms(&pair.loop, 100);
	expect_rate(&pair, 20e6, 500);
	session_rate(pair.alpha.session, 1000000);
	loop_run_ms(&pair.loop, 200);
	expect_rate(&pair, 1e6, 1000);
	session_rate(pair.alpha.session, 0);
	links_host_rate(pair.alpha.links, 40000000);
	loop_run_ms(&pair.loop, 100);
	expect_rate(&pair, 40e6, 500);
	links_host_rate(pair.alpha.links, 0);
	stream = b.heard;
	LOOP_UNTIL(&pair.loop, measured_bps(&pair, 200) > 50e6);
	assert_true(b.heard > stream);
	pair_release(&pair);
}

/* ---- who must stay out ---- */

static void expect_refused(
    struct pair *pair, enum nova_category category, const char *words, const char *logged)
{
	dial(&pair->alpha, &plain);
	LOOP_UNTIL(&pair->loop, pair->alpha.closed);
	if (pair->alpha.why.category != category || !strstr(pair->alpha.why.text, words))
		fail_msg(
		    "closed with %s: %s", nova_category_name(pair->alpha.why.category), pair->alpha.why.text);
	if (logged)
		LOOP_UNTIL(&pair->loop, strstr(pair->beta.log, logged));
	assert_int_equal(pair->alpha.up, 0);
	assert_int_equal(pair->beta.up, 0);
	end_close(&pair->alpha);
}

static void test_wrong_certificates(void **state)
{
	struct authority other;
	char address[64];
	struct pair pair;

	pair_init(&pair);
	snprintf(address, sizeof(address), "127.0.0.1:%d", links_port(pair.beta.links));
	authority_init(&pair.loop, &other, "other");
	issue(&pair.loop, &other, "stranger", "alpha", 36000);
	issue(&pair.loop, &pair.ca, "old", "alpha", -3600);
	issue(&pair.loop, &pair.ca, "gamma", "gamma", 36000);

	pair_dialler(&pair, "stranger", "ca", address, "beta");
	expect_refused(
	    &pair, NOVA_REFUSED, "unknown ca", "certificate alpha: its certificate is not accepted");
	pair_dialler(&pair, "old", "ca", address, "beta");
	expect_refused(&pair, NOVA_REFUSED, "expired", "certificate has expired");
	pair_dialler(&pair, "gamma", "ca", address, "beta");
	expect_refused(&pair, NOVA_REFUSED, "no configured peer", "certificate gamma: no configured peer");
	pair_dialler(&pair, "alpha", "other", address, "beta");
	expect_refused(&pair, NOVA_REFUSED, "its certificate is not accepted", "unknown ca");
	pair_dialler(&pair, "alpha", "ca", address, "delta");
	expect_refused(&pair, NOVA_REFUSED, "is for beta, not for delta", NULL);

	/* And nothing of that disturbs who is right. */
	pair.beta.accepted = 0;
	pair_connect(&pair, &plain);
	assert_int_equal(pair.beta.accepted, 1);
	authority_release(&other);
	pair_release(&pair);
}

static int raw_connect(int port)
{
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof(to)), 0);
	return fd;
}

static bool ended(int fd)
{
	char byte[512];
	ssize_t n = recv(fd, byte, sizeof(byte), MSG_DONTWAIT);

	return n == 0 || (n < 0 && errno != EAGAIN);
}

static void test_plaintext_and_garbage(void **state)
{
	static const struct {
		const char *bytes;
		size_t length;
	} inputs[] = {
#define INPUT(text) { text, sizeof(text) - 1 }
		INPUT("GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
		INPUT("NOVA\0\1\0\1 let me in, I am a peer"),
		INPUT("\x16\x03\x01\x00\x05garbage in a record's clothes"),
#undef INPUT
	};
	struct pair pair;

	pair_init(&pair);
	pair_connect(&pair, &plain);
	for (size_t i = 0; i < 3; i++) {
		int fd = raw_connect(links_port(pair.beta.links));

		pair.beta.log[0] = 0;
		assert_int_equal(send(fd, inputs[i].bytes, inputs[i].length, 0), inputs[i].length);
		LOOP_UNTIL(&pair.loop, ended(fd));
		close(fd);
		LOOP_UNTIL(
		    &pair.loop, strstr(pair.beta.log, "127.0.0.1:") && strstr(pair.beta.log, "refused"));
	}
	assert_int_equal(pair.alpha.closed + pair.beta.closed, 0);
	assert_int_equal(pair.beta.accepted, 1);
	pair_release(&pair);
}

static void test_silent_strangers(void **state)
{
	int fds[LINKS_STRANGERS_PER_HOST + 1];
	struct pair pair;
	double start;

	pair_init(&pair);
	pair.beta.links->settings.handshake_ms = 300;
	start = loop_now();
	for (size_t i = 0; i < LINKS_STRANGERS_PER_HOST; i++)
		fds[i] = raw_connect(links_port(pair.beta.links));
	LOOP_UNTIL(&pair.loop, pair.beta.links->stranger_count == LINKS_STRANGERS_PER_HOST);
	fds[LINKS_STRANGERS_PER_HOST] = raw_connect(links_port(pair.beta.links));
	LOOP_UNTIL(&pair.loop, ended(fds[LINKS_STRANGERS_PER_HOST]));
	assert_non_null(strstr(pair.beta.log, "too many"));
	LOOP_UNTIL(&pair.loop, ended(fds[0]) && ended(fds[LINKS_STRANGERS_PER_HOST - 1]));
	assert_true(loop_now() - start < 10);
	assert_non_null(strstr(pair.beta.log, "no answer in time"));
	for (size_t i = 0; i <= LINKS_STRANGERS_PER_HOST; i++)
		close(fds[i]);
	LOOP_UNTIL(&pair.loop, pair.beta.links->stranger_count == 0);
	pair_connect(&pair, &plain);
	pair_release(&pair);
}

static void test_sessions_not_wanted(void **state)
{
	char address[64];
	struct pair pair;

	pair_init(&pair);
	pair.beta.refuse_sessions = true;
	snprintf(address, sizeof(address), "127.0.0.1:%d", links_port(pair.beta.links));
	pair_dialler(&pair, "alpha", "ca", address, "beta");
	expect_refused(&pair, NOVA_REFUSED, "not accepted now", "not accepted now");
	pair.alpha.links = NULL;
	pair_release(&pair);
}

/* ---- addresses ---- */

static void test_addresses(void **state)
{
	struct link_settings settings;
	struct nova_error err;
	char host[256], port[8];
	struct pair pair;
	int v6_port;

	assert_int_equal(address_split("[::1]:7654", host, port, &err), 0);
	assert_string_equal(host, "::1");
	assert_string_equal(port, "7654");
	assert_int_equal(address_split("beta.example:1", host, port, &err), 0);
	assert_string_equal(host, "beta.example");
	assert_int_equal(address_split("::1:7654", host, port, &err), -1);
	assert_int_equal(address_split("beta", host, port, &err), -1);
	assert_int_equal(address_split("beta:x", host, port, &err), -1);
	assert_int_equal(address_split("beta:65536", host, port, &err), -1);
	assert_int_equal(address_split("", host, port, &err), -1);

	/* IPv6, a dead address before a good one, and a host name. */
	pair_init(&pair);
	end_close(&pair.beta);
	settings = end_settings(&pair.loop, "beta", "ca",
	    json_pack("{s:[s,s], s:{s:{}}}", "listen", "[::1]:0", "127.0.0.1:0", "peers", "alpha"));
	end_open(&pair.beta, &pair.loop, &settings);
	v6_port = links_port(pair.beta.links);
	snprintf(host, sizeof(host), "[::1]:%d", v6_port);
	settings = end_settings(&pair.loop, "alpha", "ca",
	    json_pack("{s:{s:{s:[s,s]}}}", "peers", "beta", "address", "127.0.0.1:1", host));
	end_open(&pair.alpha, &pair.loop, &settings);
	dial(&pair.alpha, &plain);
	LOOP_UNTIL(&pair.loop, pair.alpha.up && pair.beta.up);
	end_close(&pair.alpha);
	LOOP_UNTIL(&pair.loop, pair.beta.closed);
	snprintf(host, sizeof(host), "localhost:%d", v6_port);
	pair_dialler(&pair, "alpha", "ca", host, "beta");
	dial(&pair.alpha, &plain);
	LOOP_UNTIL(&pair.loop, pair.alpha.up || pair.alpha.closed);
	assert_true(pair.alpha.up || strstr(pair.alpha.why.text, "refused"));
	pair_release(&pair);
}

static void test_unreachable_and_unknown(void **state)
{
	struct nova_error err;
	struct pair pair;

	pair_init(&pair);
	pair_dialler(&pair, "alpha", "ca", "127.0.0.1:1", "beta");
	assert_null(session_dial(pair.alpha.links, "nobody", &plain, &end_events, &pair.alpha, &err));
	assert_int_equal(err.category, NOVA_INVALID);
	expect_refused(&pair, NOVA_LINK, "refused", NULL);
	pair.alpha.links = NULL;
	pair_release(&pair);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_up_and_requests_both_ways),
		cmocka_unit_test(test_large_and_bad_requests),
		cmocka_unit_test(test_deadline_drop_and_late_answer),
		cmocka_unit_test(test_free_answers_and_tells_the_peer),
		cmocka_unit_test(test_last_words),
		cmocka_unit_test(test_bulk_both_ways),
		cmocka_unit_test(test_slow_consumer_is_bounded),
		cmocka_unit_test(test_channel_freed_by_the_peer),
		cmocka_unit_test(test_freed_after_finish_is_delivered),
		cmocka_unit_test(test_requests_overtake_bulk),
		cmocka_unit_test(test_urgent_overtakes_stream),
		cmocka_unit_test(test_two_bulk_channels_share),
		cmocka_unit_test(test_rates_change_in_flight),
		cmocka_unit_test(test_wrong_certificates),
		cmocka_unit_test(test_plaintext_and_garbage),
		cmocka_unit_test(test_silent_strangers),
		cmocka_unit_test(test_sessions_not_wanted),
		cmocka_unit_test(test_addresses),
		cmocka_unit_test(test_unreachable_and_unknown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
