/* SPDX-License-Identifier: Apache-2.0
 *
 * test_qmp.c - the QMP reader, and the QMP client against a scripted peer that lies: wrong ids, duplicate
 * replies, endless events, half messages, silence, giants. The peer lives on the same loop.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/listener.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "loop.h"
#include "qmp/qmp.h"
#include "qmp/reader.h"

/* ---- reader ------------------------------------------------------------------------------------- */

/* Feed text in pieces of so many bytes; the messages as one array, or NULL and *err. */
static json_t *read_all(const char *text, size_t length, size_t piece, const struct qmp_limits *limits,
    bool saturate, struct nova_error *err)
{
	struct qmp_reader reader;
	json_t *all = json_array(), *message;
	int got = 0;

	qmp_reader_init(&reader, limits);
	reader.saturate = saturate;
	for (size_t at = 0; at < length && got >= 0; at += piece) {
		assert_int_equal(
		    qmp_reader_feed(&reader, text + at, length - at < piece ? length - at : piece, err), 0);
		while ((got = qmp_reader_next(&reader, &message, err)) > 0)
			json_array_append_new(all, message);
	}
	qmp_reader_release(&reader);
	if (got == 0)
		return all;
	json_decref(all);
	return NULL;
}

static void test_any_split_gives_the_same(void **state)
{
	static const char text[] =
	    " {\"a\":\"}{][\\\"\\\\\"}\r\n{\"b\":[[],{\"c\":{}}]}{\"\\u00e9\":\"\xc3\xa9\"}\n\t {} ";
	json_t *whole = read_all(text, sizeof(text) - 1, sizeof(text), NULL, false, NULL);
	json_t *split;

	assert_int_equal(json_array_size(whole), 4);
	assert_string_equal(json_string_value(json_object_get(json_array_get(whole, 0), "a")), "}{][\"\\");
	for (size_t piece = 1; piece < sizeof(text); piece++) {
		split = read_all(text, sizeof(text) - 1, piece, NULL, false, NULL);
		assert_true(json_equal(whole, split));
		json_decref(split);
	}
	json_decref(whole);
}

static void refused(const char *text, size_t length, const char *why)
{
	for (size_t piece = 1; piece <= length; piece += piece > 64 ? 4096 : 7) {
		struct nova_error err = { 0 };
		json_t *got = read_all(text, length, piece, NULL, false, &err);

		if (got)
			fail_msg("accepted: %.40s", text);
		assert_int_equal(err.category, NOVA_INVALID);
		if (!strstr(err.text, why))
			fail_msg("%.40s: '%s' does not say '%s'", text, err.text, why);
	}
}

#define REFUSED(text, why) refused(text, sizeof(text) - 1, why)

static void test_bad_messages_are_refused(void **state)
{
	REFUSED("{\"a\":1,\"a\":2}", "duplicate");
	REFUSED("{\"a\":\"x\0y\"}", "NUL");
	REFUSED("{\0}", "NUL");
	REFUSED("\0", "0x00");
	REFUSED("{\"a\":\"\\u0000\"}", "\\u0000");
	REFUSED("{\"a\":\"\xff\"}", "unable to decode byte 0xff");
	REFUSED("{\"a\":\"\xed\xa0\x80\"}", "unable to decode byte 0xed");
	REFUSED("{\"a\":1]", "not valid JSON");
	REFUSED("{\"a\" 1}", "not valid JSON");
	REFUSED("{'a':1}", "not valid JSON");
	REFUSED("{} [1]", "0x5b");
	REFUSED("17", "only JSON objects");
	REFUSED("GET / HTTP/1.0\r\n", "only JSON objects");
	REFUSED("{\"a\":18446744073709551615}", "too big");
}

static void test_limits_hold(void **state)
{
	struct qmp_limits limits = { .message_bytes = 100, .depth = 3 };
	size_t length = 8 << 20;
	char *big = malloc(length);
	struct nova_error err;
	json_t *got;

	memset(big, '[', length);
	memcpy(big, "{\"a\":", 5);
	refused(big, 10000, "deeper than 64");
	memset(big, 'x', length);
	memcpy(big, "{\"a\":\"", 6);
	assert_null(read_all(big, length, 65536, NULL, false, &err));
	assert_string_equal(err.text, "a message is longer than 4194304 bytes");
	assert_null(read_all(big, 101, 101, &limits, false, &err));
	memcpy(big + 98, "\"}{\"", 4);
	got = read_all(big, 102, 3, &limits, false, &err);
	assert_int_equal(json_array_size(got), 1);
	json_decref(got);
	got = read_all("{\"a\":[[]]}", 10, 10, &limits, false, &err);
	assert_non_null(got);
	json_decref(got);
	assert_null(read_all("{\"a\":[[[]]]}", 12, 12, &limits, false, &err));
	free(big);
}

/* A stream of white space, or of messages, costs no memory however long it is. */
static void test_memory_is_given_back(void **state)
{
	struct qmp_reader reader;
	char space[32768];
	json_t *message;
	struct nova_error err;

	memset(space, ' ', sizeof(space));
	qmp_reader_init(&reader, NULL);
	for (int i = 0; i < 1000; i++) {
		assert_int_equal(qmp_reader_feed(&reader, space, sizeof(space), &err), 0);
		assert_int_equal(qmp_reader_feed(&reader, "{}", 2, &err), 0);
		assert_int_equal(qmp_reader_next(&reader, &message, &err), 1);
		json_decref(message);
		assert_int_equal(qmp_reader_next(&reader, &message, &err), 0);
		assert_true(reader.room <= 4 * sizeof(space));
	}
	assert_int_equal(qmp_reader_feed(&reader, "", 0, &err), 0);
	assert_null(reader.data);
	qmp_reader_release(&reader);
}

static int allocations_left;

static void *scarce(size_t size)
{
	return allocations_left-- > 0 ? malloc(size) : NULL;
}

/* Whichever allocation fails, the message is still there when there is memory again. */
static void test_message_outlives_lack_of_memory(void **state)
{
	static const char text[] = "{\"event\":\"STOP\",\"data\":{\"list\":[1,\"two\",{\"three\":null}]}}";
	struct qmp_reader reader;
	json_t *message = NULL;
	struct nova_error err;
	int tries = 0;

	qmp_reader_init(&reader, NULL);
	assert_int_equal(qmp_reader_feed(&reader, text, sizeof(text) - 1, &err), 0);
	while (!message) {
		allocations_left = tries++;
		json_set_alloc_funcs(scarce, free);
		if (qmp_reader_next(&reader, &message, &err) < 0)
			assert_true(reader.misread);
		json_set_alloc_funcs(malloc, free);
	}
	assert_in_range(tries, 5, 1000);
	assert_string_equal(json_string_value(json_object_get(message, "event")), "STOP");
	json_decref(message);
	qmp_reader_release(&reader);
}

static void test_big_numbers_saturate(void **state)
{
	static const char text[] =
	    "{\"a\":18446744073709551615,\"b\":[-9223372036854775809,9223372036854775807],"
	    "\"c\":\"18446744073709551615\",\"d\":0.18446744073709551615e1,\"\\\"1\":9223372036854775808}";
	json_t *got = read_all(text, sizeof(text) - 1, 5, NULL, true, NULL);
	const json_t *value = json_array_get(got, 0);

	assert_non_null(got);
	assert_true(json_integer_value(json_object_get(value, "a")) == INT64_MAX);
	assert_true(json_integer_value(json_array_get(json_object_get(value, "b"), 0)) == INT64_MIN);
	assert_true(json_integer_value(json_array_get(json_object_get(value, "b"), 1)) == INT64_MAX);
	assert_string_equal(json_string_value(json_object_get(value, "c")), "18446744073709551615");
	assert_true(json_real_value(json_object_get(value, "d")) > 1.8);
	assert_true(json_integer_value(json_object_get(value, "\"1")) == INT64_MAX);
	json_decref(got);
	assert_null(read_all("{\"a\":1e999}", 11, 11, NULL, true, NULL));
}

/* ---- scripted peer ------------------------------------------------------------------------------ */

#define GREETING "{\"QMP\":{\"version\":{\"qemu\":{\"major\":7}},\"capabilities\":[]}}\r\n"
#define GREETING_OOB "{\"QMP\":{\"version\":{},\"capabilities\":[\"oob\"]}}\r\n"

struct peer {
	struct loop loop;
	char path[96];
	struct evconnlistener *listener;
	struct bufferevent *connection;
	struct qmp_reader reader;
	const char *greeting;                               /* sent at once; NULL: none */
	void (*script)(struct peer *peer, json_t *command); /* after the handshake */
	json_t *commands;                                   /* that came after the handshake */
	bool handshake_done;
	/* our side */
	struct qmp_client *client;
	struct nova_error closed;
	int ready, events, closings, free_in;
	bool taken;
};

static void say(struct peer *peer, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void say(struct peer *peer, const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	evbuffer_add_vprintf(bufferevent_get_output(peer->connection), format, ap);
	va_end(ap);
}

static long long id_of(json_t *command)
{
	return json_integer_value(json_object_get(command, "id"));
}

static const char *name_of(json_t *command)
{
	json_t *name = json_object_get(command, "execute");

	return json_string_value(name ? name : json_object_get(command, "exec-oob"));
}

static void peer_command(struct peer *peer, json_t *command)
{
	if (!peer->handshake_done && strcmp(name_of(command), "qmp_capabilities") == 0) {
		peer->handshake_done = true;
		say(peer, "{\"return\":{},\"id\":%lld}\n", id_of(command));
		return;
	}
	json_array_append(peer->commands, command);
	if (peer->script)
		peer->script(peer, command);
}

static void peer_read(struct bufferevent *bev, void *arg)
{
	struct peer *peer = arg;
	char bytes[4096];
	size_t got;
	json_t *command;

	while (peer->connection && (got = bufferevent_read(bev, bytes, sizeof(bytes))) > 0) {
		assert_int_equal(qmp_reader_feed(&peer->reader, bytes, got, NULL), 0);
		while (qmp_reader_next(&peer->reader, &command, NULL) > 0) {
			peer_command(peer, command);
			json_decref(command);
		}
	}
}

static void peer_hang_up(struct peer *peer)
{
	if (peer->connection)
		bufferevent_free(peer->connection);
	peer->connection = NULL;
	qmp_reader_release(&peer->reader);
	peer->reader.depth = 0;
}

static void peer_event(struct bufferevent *bev, short what, void *arg)
{
	peer_hang_up(arg);
}

static void peer_accept(
    struct evconnlistener *listener, evutil_socket_t fd, struct sockaddr *from, int length, void *arg)
{
	struct peer *peer = arg;

	peer_hang_up(peer);
	peer->handshake_done = false;
	peer->connection = bufferevent_socket_new(peer->loop.base, fd, BEV_OPT_CLOSE_ON_FREE);
	bufferevent_setcb(peer->connection, peer_read, NULL, peer_event, peer);
	bufferevent_enable(peer->connection, EV_READ | EV_WRITE);
	if (peer->greeting)
		say(peer, "%s", peer->greeting);
}

static void peer_listen(struct peer *peer)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };

	strcpy(address.sun_path, peer->path);
	peer->listener = evconnlistener_new_bind(peer->loop.base, peer_accept, peer, LEV_OPT_CLOSE_ON_FREE, 8,
	    (struct sockaddr *)&address, sizeof(address));
	assert_non_null(peer->listener);
}

static int set_up(void **state)
{
	struct peer *peer = calloc(1, sizeof(*peer));

	*state = peer;
	loop_init(&peer->loop);
	snprintf(peer->path, sizeof(peer->path), "%s/qmp", peer->loop.dir);
	peer->greeting = GREETING;
	peer->commands = json_array();
	qmp_reader_init(&peer->reader, NULL);
	peer_listen(peer);
	return 0;
}

static int tear_down(void **state)
{
	struct peer *peer = *state;

	qmp_client_free(peer->client);
	peer_hang_up(peer);
	if (peer->listener)
		evconnlistener_free(peer->listener);
	json_decref(peer->commands);
	unlink(peer->path);
	loop_release(&peer->loop);
	free(peer);
	return 0;
}

/* ---- our side ----------------------------------------------------------------------------------- */

enum {
	FREE_IN_READY = 1,
	FREE_IN_EVENT,
	FREE_IN_CLOSED
};

static void maybe_free(struct peer *peer, int where)
{
	if (peer->free_in == where)
		peer->client = qmp_client_free(peer->client);
}

static void on_ready(void *arg, json_t *greeting)
{
	struct peer *peer = arg;

	assert_true(peer->taken ? !greeting : json_is_object(greeting));
	peer->ready++;
	maybe_free(peer, FREE_IN_READY);
}

static void on_event(void *arg, const char *name, json_t *data)
{
	struct peer *peer = arg;

	peer->events++;
	maybe_free(peer, FREE_IN_EVENT);
}

static void on_closed(void *arg, const struct nova_error *err)
{
	struct peer *peer = arg;

	peer->closings++;
	peer->closed = *err;
	maybe_free(peer, FREE_IN_CLOSED);
}

static void start_client(struct peer *peer, const struct qmp_limits *limits)
{
	const struct qmp_events events = { .ready = on_ready, .event = on_event, .closed = on_closed };

	peer->client = qmp_client_new(peer->loop.base, peer->path, limits, &events, peer, NULL);
	assert_non_null(peer->client);
}

static struct nova_op *execute(
    struct peer *peer, const char *command, json_t *args, const struct qmp_call *call, struct answer *answer)
{
	struct nova_error err;
	struct nova_op *op = qmp_execute(peer->client, command, args, call, answer_done, answer, &err);

	if (!op)
		fail_msg("%s: %s", command, err.text);
	assert_int_equal(answer->count, 0);
	return op;
}

static void closes_with(struct peer *peer, enum nova_category category, const char *text)
{
	LOOP_UNTIL(&peer->loop, peer->closings);
	assert_int_equal(peer->closings, 1);
	if (!strstr(peer->closed.text, text))
		fail_msg("'%s' does not say '%s'", peer->closed.text, text);
	assert_int_equal(peer->closed.category, category);
}

/* ---- handshake ---------------------------------------------------------------------------------- */

static void test_never_greets(void **state)
{
	struct peer *peer = *state;
	struct qmp_limits limits = { .greeting_ms = 100 };
	struct answer answer = { 0 };

	peer->greeting = NULL;
	start_client(peer, &limits);
	execute(peer, "query-status", NULL, NULL, &answer);
	closes_with(peer, NOVA_STATE,
	    "monitor is owned by someone else, or hangs: it accepts but did not greet within 100 ms");
	assert_int_equal(answer.count, 1);
	assert_int_equal(answer.err.category, NOVA_STATE);
}

static void test_refused_and_missing(void **state)
{
	struct peer *peer = *state;

	evconnlistener_free(peer->listener);
	peer->listener = NULL;
	start_client(peer, NULL);
	closes_with(peer, NOVA_LINK, "Connection refused");
	qmp_client_free(peer->client);
	unlink(peer->path);
	peer->closings = 0;
	start_client(peer, NULL);
	closes_with(peer, NOVA_LINK, "No such file");
	peer_listen(peer);
}

static void test_closes_before_greeting(void **state)
{
	struct peer *peer = *state;

	peer->greeting = NULL;
	start_client(peer, NULL);
	LOOP_UNTIL(&peer->loop, peer->connection);
	peer_hang_up(peer);
	closes_with(peer, NOVA_LINK, "closed by the peer");
}

static void test_strange_greetings(void **state)
{
	static const struct {
		const char *greeting, *text;
		enum nova_category category;
	} rows[] = {
		{ "220 mail ESMTP\r\n", "only JSON objects", NOVA_INVALID },
		{ "{\"hello\":1}", "does not greet with QMP", NOVA_INVALID },
		{ "{\"QMP\":17}", "does not greet with QMP", NOVA_INVALID },
		{ "{\"error\":{\"class\":\"GenericError\",\"desc\":\"no\"}}", "GenericError: no",
		    NOVA_REFUSED },
		{ "{\"error\":{\"desc\":\"too many\",\"category\":\"state\"}}", "too many", NOVA_STATE },
		{ "{\"error\":[]}", "no reason given", NOVA_REFUSED },
		{ "{\"QMP\":{}}{\"error\":{},\"id\":1}", "qmp_capabilities: error: no reason", NOVA_REFUSED },
	};
	struct peer *peer = *state;

	for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
		peer->greeting = rows[i].greeting;
		peer->closings = 0;
		start_client(peer, NULL);
		closes_with(peer, rows[i].category, rows[i].text);
		peer->client = qmp_client_free(peer->client);
	}
}

/* A QEMU that is starting says an event first, now and then. */
static void test_event_before_greeting(void **state)
{
	struct peer *peer = *state;

	peer->greeting = "{\"event\":\"RESUME\",\"timestamp\":{}}\r\n" GREETING;
	start_client(peer, NULL);
	LOOP_UNTIL(&peer->loop, peer->ready || peer->closings);
	assert_int_equal(peer->closings, 0);
	assert_true(qmp_client_ready(peer->client));
}

static void test_capabilities_unanswered(void **state)
{
	struct peer *peer = *state;
	struct qmp_limits limits = { .greeting_ms = 100 };

	start_client(peer, &limits);
	LOOP_UNTIL(&peer->loop, peer->connection);
	bufferevent_disable(peer->connection, EV_READ);
	closes_with(peer, NOVA_TIMEOUT, "qmp_capabilities was not answered within 100 ms");
}

static void test_bad_arguments(void **state)
{
	struct peer *peer = *state;
	const struct qmp_events events = { .closed = on_closed };
	struct nova_error err;
	struct answer answer = { 0 };
	char path[200];

	memset(path, 'p', sizeof(path));
	path[199] = 0;
	assert_null(qmp_client_new(peer->loop.base, path, NULL, &events, peer, &err));
	assert_int_equal(err.category, NOVA_INVALID);
	assert_null(qmp_client_new(peer->loop.base, "", NULL, &events, peer, &err));
	start_client(peer, NULL);
	assert_null(qmp_execute(peer->client, "c", json_array(), NULL, answer_done, &answer, &err));
	assert_int_equal(err.category, NOVA_INVALID);
	assert_null(qmp_execute(peer->client, "\xff", NULL, NULL, answer_done, &answer, &err));
	assert_int_equal(err.category, NOVA_INVALID);
	struct qmp_call call = { .fd = 9999 };
	assert_null(qmp_execute(peer->client, "getfd", NULL, &call, answer_done, &answer, &err));
	assert_int_equal(err.category, NOVA_SYSTEM);
	assert_int_equal(answer.count, 0);
}

/* ---- replies ------------------------------------------------------------------------------------ */

static void reply_backwards(struct peer *peer, json_t *command)
{
	if (json_array_size(peer->commands) < 10)
		return;
	for (int i = 9; i >= 0; i--)
		say(peer, "{\"return\":{\"n\":%d},\"id\":%lld}", i,
		    id_of(json_array_get(peer->commands, (size_t)i)));
}

static void test_out_of_order(void **state)
{
	struct peer *peer = *state;
	struct answer answers[10] = { 0 };

	peer->script = reply_backwards;
	start_client(peer, NULL);
	for (int i = 0; i < 10; i++) /* the first ones before the greeting */
		execute(peer, "c", NULL, NULL, &answers[i]);
	LOOP_UNTIL(&peer->loop, answers[0].count);
	for (int i = 0; i < 10; i++) {
		assert_int_equal(answers[i].count, 1);
		assert_int_equal(json_integer_value(json_object_get(answers[i].result, "n")), i);
		answer_release(&answers[i]);
	}
	assert_int_equal(peer->ready, 1);
}

static void reply_with_lies(struct peer *peer, json_t *command)
{
	long long id = id_of(command);

	say(peer, "{\"return\":{},\"id\":%lld}{\"return\":{},\"id\":\"%lld\"}{\"return\":{},\"id\":-1}",
	    id + 1000, id);
	say(peer, "{\"return\":{}}{\"error\":{}}{\"foo\":1}{}{\"return\":{},\"id\":%lld}", id + 1);
	say(peer, "{\"return\":{\"true\":1},\"id\":%lld}", id);
	say(peer, "{\"return\":{},\"id\":%lld}{\"error\":{},\"id\":%lld}\n", id, id);
}

static void test_wrong_and_duplicate_ids(void **state)
{
	struct peer *peer = *state;
	struct answer first = { 0 }, second = { 0 };

	peer->script = reply_with_lies;
	start_client(peer, NULL);
	execute(peer, "c", NULL, NULL, &first);
	LOOP_UNTIL(&peer->loop, first.count && qmp_client_strays(peer->client) == 10);
	execute(peer, "c", NULL, NULL, &second);
	LOOP_UNTIL(&peer->loop, second.count && qmp_client_strays(peer->client) == 20);
	assert_int_equal(first.count, 1);
	assert_int_equal(second.count, 1);
	assert_non_null(json_object_get(first.result, "true"));
	assert_non_null(json_object_get(second.result, "true"));
	assert_true(qmp_client_ready(peer->client));
	answer_release(&first);
	answer_release(&second);
}

static void reply_error(struct peer *peer, json_t *command)
{
	static const char *const errors[] = {
		"{\"class\":\"DeviceNotFound\",\"desc\":\"no\\nsuch device\"}",
		"{\"class\":\"GenericError\",\"desc\":\"busy\",\"category\":\"state\"}",
		"{\"class\":\"GenericError\",\"desc\":\"odd\",\"category\":\"ok\"}",
		"{\"class\":17,\"category\":{}}",
		"null",
	};

	say(peer, "{\"error\":%s,\"id\":%lld}", errors[json_array_size(peer->commands) - 1], id_of(command));
}

static void test_errors_keep_class_and_category(void **state)
{
	struct peer *peer = *state;
	struct answer answers[5] = { 0 };

	peer->script = reply_error;
	start_client(peer, NULL);
	for (int i = 0; i < 5; i++)
		execute(peer, "c", NULL, NULL, &answers[i]);
	LOOP_UNTIL(&peer->loop, answers[4].count);
	assert_int_equal(answers[0].err.category, NOVA_REFUSED);
	assert_string_equal(answers[0].err.text, "DeviceNotFound: no such device");
	assert_int_equal(answers[1].err.category, NOVA_STATE);
	assert_string_equal(answers[1].err.text, "busy");
	assert_string_equal(answers[2].err.text, "GenericError: odd");
	assert_string_equal(answers[3].err.text, "error: no reason given");
	assert_int_equal(answers[4].err.category, NOVA_REFUSED);
}

static void test_late_reply_is_ignored(void **state)
{
	struct peer *peer = *state;
	struct qmp_call call = { .limit_ms = 30 };
	struct answer late = { 0 }, next = { 0 };

	start_client(peer, NULL);
	LOOP_UNTIL(&peer->loop, peer->ready);
	execute(peer, "slow", NULL, &call, &late);
	LOOP_UNTIL(&peer->loop, late.count);
	assert_int_equal(late.err.category, NOVA_TIMEOUT);
	assert_non_null(strstr(late.err.text, "slow was not answered within 30 ms"));
	LOOP_UNTIL(&peer->loop, json_array_size(peer->commands) == 1);
	execute(peer, "next", NULL, NULL, &next);
	LOOP_UNTIL(&peer->loop, json_array_size(peer->commands) == 2);
	for (size_t i = 0; i < 2; i++)
		say(peer, "{\"return\":{},\"id\":%lld}", id_of(json_array_get(peer->commands, i)));
	LOOP_UNTIL(&peer->loop, next.count);
	assert_int_equal(late.count, 1);
	assert_int_equal(next.err.category, NOVA_OK);
	answer_release(&next);
}

static void reply_at_once(struct peer *peer, json_t *command)
{
	say(peer, "{\"return\":{},\"id\":%lld}", id_of(command));
}

static void test_limit_while_unready(void **state)
{
	struct peer *peer = *state;
	struct qmp_call call = { .limit_ms = 20 };
	struct answer answer = { 0 }, other = { 0 };

	peer->greeting = NULL;
	peer->script = reply_at_once;
	start_client(peer, NULL);
	execute(peer, "never-sent", NULL, &call, &answer);
	execute(peer, "sent", NULL, NULL, &other);
	LOOP_UNTIL(&peer->loop, answer.count);
	assert_int_equal(answer.err.category, NOVA_TIMEOUT);
	say(peer, GREETING);
	LOOP_UNTIL(&peer->loop, other.count);
	assert_int_equal(json_array_size(peer->commands), 1);
	answer_release(&other);
}

static void test_drop(void **state)
{
	struct peer *peer = *state;
	struct answer dropped = { 0 }, unsent = { 0 }, kept = { 0 };
	struct nova_op *op;

	start_client(peer, NULL);
	nova_op_drop(execute(peer, "unsent", NULL, NULL, &unsent));
	LOOP_UNTIL(&peer->loop, peer->ready);
	op = execute(peer, "dropped", NULL, NULL, &dropped);
	LOOP_UNTIL(&peer->loop, json_array_size(peer->commands) == 1);
	nova_op_drop(op);
	peer->script = reply_at_once;
	say(peer, "{\"return\":{},\"id\":%lld}", id_of(json_array_get(peer->commands, 0)));
	execute(peer, "kept", NULL, NULL, &kept);
	LOOP_UNTIL(&peer->loop, kept.count);
	assert_int_equal(dropped.count + unsent.count, 0);
	assert_int_equal(qmp_client_strays(peer->client), 0);
	assert_string_equal(name_of(json_array_get(peer->commands, 0)), "dropped");
	answer_release(&kept);
}

/* ---- a hostile stream --------------------------------------------------------------------------- */

static void test_half_messages(void **state)
{
	struct peer *peer = *state;
	struct answer answer = { 0 };
	char text[200];

	start_client(peer, NULL);
	execute(peer, "c", NULL, NULL, &answer);
	LOOP_UNTIL(&peer->loop, json_array_size(peer->commands) == 1);
	snprintf(text, sizeof(text),
	    "{\"event\":\"A\"}{\"return\":{\"x\":\"}\\\"\"},\"id\":%lld}{\"event\":\"B\"}{\"ev",
	    id_of(json_array_get(peer->commands, 0)));
	for (const char *c = text; *c; c++) {
		say(peer, "%c", *c);
		LOOP_UNTIL(&peer->loop, evbuffer_get_length(bufferevent_get_output(peer->connection)) == 0);
	}
	LOOP_UNTIL(&peer->loop, peer->events == 2);
	assert_int_equal(answer.count, 1);
	peer_hang_up(peer);
	closes_with(peer, NOVA_LINK, "closed by the peer");
	answer_release(&answer);
}

static void test_closes_midway(void **state)
{
	struct peer *peer = *state;
	struct answer answers[5] = { 0 };

	start_client(peer, NULL);
	for (int i = 0; i < 5; i++)
		execute(peer, "c", NULL, NULL, &answers[i]);
	LOOP_UNTIL(&peer->loop, json_array_size(peer->commands) == 5);
	say(peer, "{\"return\":{},\"id\":%lld}{\"return\":", id_of(json_array_get(peer->commands, 2)));
	LOOP_UNTIL(&peer->loop, answers[2].count);
	peer_hang_up(peer);
	closes_with(peer, NOVA_LINK, "closed by the peer");
	for (int i = 0; i < 5; i++) {
		assert_int_equal(answers[i].count, 1);
		assert_int_equal(answers[i].err.category, i == 2 ? NOVA_OK : NOVA_LINK);
		answer_release(&answers[i]);
	}
}

static void more_events(struct bufferevent *bev, void *arg)
{
	for (int i = 0; i < 2000; i++)
		evbuffer_add_printf(
		    bufferevent_get_output(bev), "{\"event\":\"E\",\"data\":{\"n\":[1,2,3]}}\n");
}

/* The peer never stops talking: our command is answered, and a turn of the loop takes no more than a read. */
static void test_endless_events(void **state)
{
	struct peer *peer = *state;
	struct answer answer = { 0 };
	double limit = loop_now() + LOOP_LIMIT_S;
	int worst = 0;

	peer->script = reply_at_once;
	start_client(peer, NULL);
	LOOP_UNTIL(&peer->loop, peer->ready);
	bufferevent_setcb(peer->connection, peer_read, more_events, peer_event, peer);
	more_events(peer->connection, peer);
	execute(peer, "c", NULL, NULL, &answer);
	while ((!answer.count || peer->events < 10000) && loop_now() < limit) {
		int before = peer->events;

		event_base_loop(peer->loop.base, EVLOOP_ONCE);
		worst = peer->events - before > worst ? peer->events - before : worst;
	}
	assert_int_equal(answer.count, 1);
	assert_true(peer->events >= 10000);
	assert_in_range(worst, 1, 1000); /* 32 KiB of them */
	answer_release(&answer);
}

static void test_giant_and_deep_messages(void **state)
{
	struct peer *peer = *state;
	size_t length = 8 << 20;
	char *big = malloc(length + 1);
	struct answer answer = { 0 };

	for (int deep = 0; deep < 2; deep++) {
		memset(big, deep ? '[' : 'x', length);
		memcpy(big, deep ? "{\"return\":" : "{\"return\":\"", deep ? 10 : 11);
		big[deep ? 10000 : length] = 0;
		peer->closings = 0;
		start_client(peer, NULL);
		execute(peer, "c", NULL, NULL, &answer);
		LOOP_UNTIL(&peer->loop, json_array_size(peer->commands) == (size_t)deep + 1);
		say(peer, "%s", big);
		closes_with(peer, NOVA_INVALID, deep ? "nested deeper than 64" : "longer than 4194304");
		assert_int_equal(answer.count, 1);
		assert_int_equal(answer.err.category, NOVA_INVALID);
		answer_release(&answer);
		peer->client = qmp_client_free(peer->client);
	}
	free(big);
}

static void test_bounded_queue(void **state)
{
	struct peer *peer = *state;
	struct answer answers[1200] = { 0 };
	struct nova_error err;
	char *text = calloc(1, 100001);
	int count = 0;

	start_client(peer, NULL);
	LOOP_UNTIL(&peer->loop, peer->ready);
	while (count < 1200 && qmp_execute(peer->client, "c", NULL, NULL, answer_done, &answers[count], &err))
		count++;
	assert_int_equal(count, 1024);
	assert_int_equal(err.category, NOVA_STATE);
	peer->client = qmp_client_free(peer->client);
	memset(text, 'x', 100000);
	peer->ready = 0;
	start_client(peer, NULL);
	LOOP_UNTIL(&peer->loop, peer->ready);
	bufferevent_disable(peer->connection, EV_READ);
	count = 0;
	while (count < 1200 && qmp_execute(peer->client, "c", json_pack("{s:s}", "x", text), NULL,
	                           answer_done, &answers[count], &err))
		count++;
	assert_in_range(count, 42, 50);
	assert_int_equal(err.category, NOVA_STATE);
	bufferevent_enable(peer->connection, EV_READ);
	peer->script = reply_at_once;
	LOOP_UNTIL(&peer->loop, answers[count - 1].count);
	for (int i = 0; i < count; i++) {
		assert_int_equal(answers[i].count, 1);
		answer_release(&answers[i]);
	}
	free(text);
}

/* ---- out-of-band and descriptors ---------------------------------------------------------------- */

static void test_out_of_band_overtakes(void **state)
{
	struct peer *peer = *state;
	struct answer answers[20] = { 0 }, urgent = { 0 };
	struct qmp_call oob = { .oob = true };

	peer->greeting = GREETING_OOB;
	start_client(peer, NULL);
	for (int i = 0; i < 20; i++)
		execute(peer, "slow", NULL, NULL, &answers[i]);
	LOOP_UNTIL(&peer->loop, json_array_size(peer->commands) == 8);
	execute(peer, "urgent", NULL, &oob, &urgent);
	LOOP_UNTIL(&peer->loop, json_array_size(peer->commands) == 9);
	assert_string_equal(
	    json_string_value(json_object_get(json_array_get(peer->commands, 8), "exec-oob")), "urgent");
	peer->script = reply_at_once;
	for (size_t i = 0; i < 9; i++)
		reply_at_once(peer, json_array_get(peer->commands, i));
	LOOP_UNTIL(&peer->loop, urgent.count && answers[19].count);
	for (int i = 0; i < 20; i++) {
		assert_int_equal(answers[i].count, 1);
		answer_release(&answers[i]);
	}
	answer_release(&urgent);
}

/* A client has died; somebody else goes on with its connection, in the middle of a line, while answers to the dead still come. */
static void test_taken_over(void **state)
{
	const struct qmp_events events = { .ready = on_ready, .event = on_event, .closed = on_closed };
	struct peer *peer = *state;
	struct answer of_the_dead = { 0 }, answer = { 0 };
	json_t *heard;
	int fd;

	peer->greeting = GREETING_OOB;
	start_client(peer, NULL);
	execute(peer, "slow", NULL, NULL, &of_the_dead);
	LOOP_UNTIL(&peer->loop, json_array_size(peer->commands) == 1);
	fd = fcntl(qmp_client_fd(peer->client), F_DUPFD_CLOEXEC, 3);
	assert_true(fd >= 0);
	peer->client = qmp_client_free(peer->client);
	say(peer, "{\"event\":\"OLD\",\"data\":{}}\r\n{\"event\":\"OL");
	LOOP_UNTIL(&peer->loop, evbuffer_get_length(bufferevent_get_output(peer->connection)) == 0);
	peer->taken = true;
	peer->client = qmp_client_take(peer->loop.base, fd, peer->path, NULL, &events, peer, NULL);
	assert_non_null(peer->client);
	execute(peer, "query-status", NULL, NULL, &answer);
	LOOP_UNTIL(&peer->loop, json_array_size(peer->commands) == 2);
	heard = json_array_get(peer->commands, 1);
	assert_string_equal(json_string_value(json_object_get(heard, "exec-oob")), "query-yank");
	say(peer, "D\"}\r\n{\"return\":{},\"id\":%lld}\r\n", id_of(json_array_get(peer->commands, 0)));
	LOOP_UNTIL(&peer->loop, qmp_client_strays(peer->client) == 1);
	assert_int_equal(peer->ready, 1);
	peer->script = reply_at_once;
	reply_at_once(peer, heard);
	LOOP_UNTIL(&peer->loop, answer.count);
	assert_int_equal(peer->ready, 2);
	assert_int_equal(peer->events, 0);
	assert_int_equal(answer.err.category, NOVA_OK);
	assert_int_equal(of_the_dead.count, 0);
	answer_release(&answer);
}

static void test_out_of_band_not_offered(void **state)
{
	struct peer *peer = *state;
	struct answer answer = { 0 };
	struct qmp_call oob = { .oob = true };

	peer->script = reply_at_once;
	start_client(peer, NULL);
	execute(peer, "urgent", NULL, &oob, &answer);
	LOOP_UNTIL(&peer->loop, answer.count);
	assert_non_null(json_object_get(json_array_get(peer->commands, 0), "execute"));
	answer_release(&answer);
}

static void test_descriptors_wait_for_each_other(void **state)
{
	struct peer *peer = *state;
	struct answer first = { 0 }, second = { 0 }, third = { 0 }, plain = { 0 };
	int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	struct qmp_call call = { .fd = fd };
	struct nova_op *op;

	start_client(peer, NULL);
	execute(peer, "getfd", NULL, &call, &first);
	op = execute(peer, "getfd", NULL, &call, &second);
	execute(peer, "plain", NULL, NULL, &plain);
	close(fd); /* the client has its own */
	LOOP_UNTIL(&peer->loop, json_array_size(peer->commands) == 1);
	loop_run_ms(&peer->loop, 20);
	assert_int_equal(json_array_size(peer->commands), 1);
	nova_op_drop(op); /* what waited behind it may go */
	LOOP_UNTIL(&peer->loop, json_array_size(peer->commands) == 2);
	assert_string_equal(name_of(json_array_get(peer->commands, 1)), "plain");
	peer->script = reply_at_once;
	reply_at_once(peer, json_array_get(peer->commands, 0));
	LOOP_UNTIL(&peer->loop, first.count);
	fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	call.fd = fd;
	execute(peer, "getfd", NULL, &call, &third);
	LOOP_UNTIL(&peer->loop, third.count);
	assert_int_equal(second.count, 0);
	close(fd);
	answer_release(&first);
	answer_release(&third);
}

/* ---- lifetimes ---------------------------------------------------------------------------------- */

static void test_free_in_callbacks(void **state)
{
	struct peer *peer = *state;
	struct answer answer = { 0 };

	for (peer->free_in = FREE_IN_READY; peer->free_in <= FREE_IN_CLOSED; peer->free_in++) {
		peer->greeting = GREETING;
		start_client(peer, NULL);
		execute(peer, "c", NULL, NULL, &answer);
		if (peer->free_in != FREE_IN_READY) {
			LOOP_UNTIL(&peer->loop, peer->connection && peer->handshake_done);
			say(peer, "{\"event\":\"E\"}{\"event\":\"E\"}");
			if (peer->free_in == FREE_IN_CLOSED)
				say(peer, "]");
		}
		LOOP_UNTIL(&peer->loop, !peer->client);
		answer_release(&answer);
		peer->closings = 0;
		peer->handshake_done = false;
	}
}

static void free_client(void *arg, json_t *result, const struct nova_error *err)
{
	struct peer *peer = arg;

	peer->client = qmp_client_free(peer->client);
}

static void test_free_in_answer(void **state)
{
	struct peer *peer = *state;
	struct answer other = { 0 };

	peer->script = reply_at_once;
	for (int killed = 0; killed < 2; killed++) {
		start_client(peer, NULL);
		assert_non_null(qmp_execute(peer->client, "c", NULL, NULL, free_client, peer, NULL));
		execute(peer, "c", NULL, NULL, &other);
		if (killed) {
			peer->script = NULL;
			LOOP_UNTIL(&peer->loop, json_array_size(peer->commands) >= 4);
			peer_hang_up(peer);
		}
		LOOP_UNTIL(&peer->loop, !peer->client);
	}
	loop_run_ms(&peer->loop, 10);
	assert_int_equal(other.count, 0);
	assert_int_equal(peer->closings, 0);
}

static void again(void *arg, json_t *result, const struct nova_error *err)
{
	struct peer *peer = arg;

	peer->events++;
	if (!err && peer->events < 100)
		assert_non_null(qmp_execute(peer->client, "c", NULL, NULL, again, peer, NULL));
	else if (err) /* the connection is over: no new calls, and that is said at once */
		assert_null(qmp_execute(peer->client, "c", NULL, NULL, again, peer, NULL));
}

static void test_execute_in_answer(void **state)
{
	struct peer *peer = *state;

	peer->script = reply_at_once;
	start_client(peer, NULL);
	assert_non_null(qmp_execute(peer->client, "c", NULL, NULL, again, peer, NULL));
	LOOP_UNTIL(&peer->loop, peer->events == 99);
	LOOP_UNTIL(&peer->loop, peer->events == 100);
	peer->script = NULL;
	assert_non_null(qmp_execute(peer->client, "c", NULL, NULL, again, peer, NULL));
	LOOP_UNTIL(&peer->loop, json_array_size(peer->commands) == 101);
	peer_hang_up(peer);
	closes_with(peer, NOVA_LINK, "closed by the peer");
	assert_int_equal(peer->events, 101);
}

int main(void)
{
#define PEER(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_any_split_gives_the_same),
		cmocka_unit_test(test_bad_messages_are_refused),
		cmocka_unit_test(test_limits_hold),
		cmocka_unit_test(test_memory_is_given_back),
		cmocka_unit_test(test_message_outlives_lack_of_memory),
		cmocka_unit_test(test_big_numbers_saturate),
		PEER(test_never_greets),
		PEER(test_refused_and_missing),
		PEER(test_closes_before_greeting),
		PEER(test_strange_greetings),
		PEER(test_event_before_greeting),
		PEER(test_capabilities_unanswered),
		PEER(test_bad_arguments),
		PEER(test_out_of_order),
		PEER(test_wrong_and_duplicate_ids),
		PEER(test_errors_keep_class_and_category),
		PEER(test_late_reply_is_ignored),
		PEER(test_limit_while_unready),
		PEER(test_drop),
		PEER(test_half_messages),
		PEER(test_closes_midway),
		PEER(test_endless_events),
		PEER(test_giant_and_deep_messages),
		PEER(test_bounded_queue),
		PEER(test_out_of_band_overtakes),
		PEER(test_taken_over),
		PEER(test_out_of_band_not_offered),
		PEER(test_descriptors_wait_for_each_other),
		PEER(test_free_in_callbacks),
		PEER(test_free_in_answer),
		PEER(test_execute_in_answer),
	};

	signal(
	    SIGPIPE, SIG_IGN); /* the scripted peer's; test_qmp_qemu and test_qmp_server run without this */
	return cmocka_run_group_tests(tests, NULL, NULL);
}
