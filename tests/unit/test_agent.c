/* SPDX-License-Identifier: Apache-2.0
 *
 * test_agent.c - one question to a guest's agent: what belongs to somebody else is not heard, nothing is asked of one that
 * sleeps, and whatever the guest says instead of an answer is a refusal.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/listener.h>
#include <sys/un.h>

#include "engine/cleanup.h"
#include "loop.h"
#include "qmp/qmp.h"

#define COMMAND "guest-fsfreeze-status"

/* ---- a guest ---- */

struct guest {
	struct loop loop;
	struct evconnlistener *listener;
	struct bufferevent *client;
	char path[128];
	const char *before; /* said as soon as somebody is there, and again before the answer to sync */
	bool sleeps;        /* sync is not answered */
	const char *answer; /* to the command; NULL: none */
	bool hang_up;       /* after that */
	int synced, asked;
	struct answer heard;
};

static void say(struct guest *guest, const char *text)
{
	if (text)
		bufferevent_write(guest->client, text, strlen(text));
}

static void hear(struct guest *guest, const char *line)
{
	NOVA_AUTOJSON json_t *message = json_loads(line + (*line == '\xff'), 0, NULL);
	const char *command = json_string_value(json_object_get(message, "execute"));
	json_t *id = json_object_get(json_object_get(message, "arguments"), "id");

	assert_non_null(command);
	if (!strcmp(command, "guest-sync-delimited")) {
		assert_int_equal((unsigned char)*line, 0xff);
		guest->synced++;
		if (guest->sleeps)
			return;
		say(guest, guest->before);
		evbuffer_add_printf(bufferevent_get_output(guest->client), "\xff{\"return\": %lld}\n", (long long)json_integer_value(id));
		return;
	}
	assert_string_equal(command, COMMAND);
	guest->asked++;
	say(guest, guest->answer);
	if (guest->hang_up) {
		evbuffer_write(bufferevent_get_output(guest->client), bufferevent_getfd(guest->client));
		bufferevent_free(guest->client);
		guest->client = NULL;
	}
}

static void on_line(struct bufferevent *client, void *arg)
{
	struct guest *guest = arg;
	char *line;

	while (guest->client && (line = evbuffer_readln(bufferevent_get_input(client), NULL, EVBUFFER_EOL_LF))) {
		hear(guest, line);
		free(line);
	}
}

static void on_end(struct bufferevent *client, short what, void *arg)
{
	struct guest *guest = arg;

	bufferevent_free(client);
	guest->client = NULL;
}

static void on_connect(struct evconnlistener *listener, evutil_socket_t fd, struct sockaddr *address, int length, void *arg)
{
	struct guest *guest = arg;

	guest->client = bufferevent_socket_new(guest->loop.base, fd, BEV_OPT_CLOSE_ON_FREE);
	bufferevent_setcb(guest->client, on_line, NULL, on_end, guest);
	bufferevent_enable(guest->client, EV_READ | EV_WRITE);
	say(guest, guest->before);
}

static void begin(struct guest *guest)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };

	loop_init(&guest->loop);
	snprintf(guest->path, sizeof(guest->path), "%s/agent.sock", guest->loop.dir);
	strcpy(address.sun_path, guest->path);
	guest->listener = evconnlistener_new_bind(guest->loop.base, on_connect, guest, LEV_OPT_CLOSE_ON_FREE, 1,
	    (struct sockaddr *)&address, sizeof(address));
	assert_non_null(guest->listener);
}

static void finish(struct guest *guest)
{
	if (guest->client)
		bufferevent_free(guest->client);
	evconnlistener_free(guest->listener);
	unlink(guest->path);
	answer_release(&guest->heard);
	loop_release(&guest->loop);
}

static struct nova_op *ask(struct guest *guest, int limit_ms)
{
	struct nova_error err;
	struct nova_op *op = qmp_agent_ask(guest->loop.base, guest->path, COMMAND, limit_ms, answer_done, &guest->heard, &err);

	assert_non_null(op);
	return op;
}

/* Ask, and look at how it is refused. */
static void expect_refusal(struct guest *guest, int limit_ms, const char *words)
{
	begin(guest);
	ask(guest, limit_ms);
	LOOP_UNTIL(&guest->loop, guest->heard.count);
	assert_null(guest->heard.result);
	assert_int_equal(guest->heard.err.category, NOVA_REFUSED);
	if (!strstr(guest->heard.err.text, "guest agent: ") || !strstr(guest->heard.err.text, words))
		fail_msg("\"%s\" says nothing of \"%s\"", guest->heard.err.text, words);
	finish(guest);
}

/* ---- tests ---- */

static void test_answer(void **state)
{
	struct guest guest = { .answer = "{\"return\": \"thawed\"}\n" };

	begin(&guest);
	ask(&guest, 5000);
	LOOP_UNTIL(&guest.loop, guest.heard.count);
	assert_string_equal(json_string_value(guest.heard.result), "thawed");
	finish(&guest);
}

/* Halves, answers and delimiters of others, bytes that are no JSON: all before our number. */
static void test_what_others_left(void **state)
{
	struct guest guest = { .before = "frozen\"}\n{\"return\": \xff{\"return\": 1}\n\xff\xff{\"return\": \"of another\"}\n{\"a\":",
		.answer = "{\"return\": \"thawed\"}\n" };

	begin(&guest);
	ask(&guest, 5000);
	LOOP_UNTIL(&guest.loop, guest.heard.count);
	assert_string_equal(json_string_value(guest.heard.result), "thawed");
	assert_int_equal(guest.asked, 1);
	finish(&guest);
}

static void test_sleeps(void **state)
{
	struct guest guest = { .sleeps = true, .before = "\xff{\"return\": 0}\n" };

	expect_refusal(&guest, 5000, "no answer to guest-sync-delimited within 2 s");
	assert_int_equal(guest.synced, 1);
	assert_int_equal(guest.asked, 0); /* so that it does not do it when it wakes up */
}

static void test_no_answer(void **state)
{
	struct guest guest = { .answer = "{\"event\": \"return\"}\n" };

	expect_refusal(&guest, 1000, "no answer to " COMMAND " within 1 s");
}

static void test_refusals(void **state)
{
	struct guest refused = { .answer = "{\"error\": {\"class\": \"CommandNotFound\", \"desc\": \"it is disabled\"}}\n" };
	struct guest strange = { .answer = "{\"error\": 7}\n" };
	struct guest garbled = { .answer = "{\"return\": \"tha\x01\xfewed\"}\n" };
	struct guest deep = { .answer = "{\"return\": [[[[[[[[[[[[[[[[[[[[0]]]]]]]]]]]]]]]]]]]]}\n" };
	struct guest gone = { .answer = "{\"return\": \"tha", .hang_up = true };
	char *text = malloc(100002);
	struct guest longish = { .answer = text };

	memset(text, ' ', 100000);
	memcpy(text, "{\"return\": \"", 12);
	strcpy(text + 100000, "\"");
	expect_refusal(&refused, 5000, "it is disabled");
	expect_refusal(&strange, 5000, "");
	expect_refusal(&garbled, 5000, "");
	expect_refusal(&deep, 5000, "nest");
	expect_refusal(&gone, 5000, "the connection is lost");
	expect_refusal(&longish, 5000, "65536");
	free(text);
}

static void test_nobody(void **state)
{
	struct guest guest = { .sleeps = true };
	struct nova_error err;

	begin(&guest);
	assert_null(qmp_agent_ask(guest.loop.base, "/nowhere/agent.sock", COMMAND, 100, answer_done, &guest.heard, &err));
	assert_int_equal(err.category, NOVA_REFUSED);
	assert_non_null(strstr(err.text, "/nowhere/agent.sock"));
	nova_op_drop(ask(&guest, 5000));
	loop_run_ms(&guest.loop, 50);
	assert_int_equal(guest.heard.count, 0);
	finish(&guest);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_answer),
		cmocka_unit_test(test_what_others_left),
		cmocka_unit_test(test_sleeps),
		cmocka_unit_test(test_no_answer),
		cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_nobody),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
