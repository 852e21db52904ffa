/* SPDX-License-Identifier: Apache-2.0
 *
 * test_qmp_server.c - the control socket: handshake, ids, errors, identity, events, stale sockets, and
 * clients that flood, stall, vanish or send giants. Then our own client against it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "engine/op.h"
#include "loop.h"
#include "qmp/qmp.h"
#include "qmp/reader.h"
#include "qmp/server.h"

/* ---- what stands behind the socket -------------------------------------------------------------- */

#define HELD_MAX 200

struct daemon;
struct held {
	struct nova_op op;
	struct daemon *daemon;
	nova_done_fn done;
	void *arg;
	json_t *args;
};

struct daemon {
	struct loop loop;
	char path[96];
	struct qmp_server *server;
	enum nova_role role;
	struct nova_identity last;
	int identified, executed, held_count, dropped;
	unsigned uid;
	int pid;
	struct held *held[HELD_MAX];
};

static void identify(void *arg, unsigned uid, unsigned gid, int pid, struct nova_identity *who)
{
	struct daemon *daemon = arg;

	who->role = daemon->role;
	snprintf(who->name, sizeof(who->name), "user%d", ++daemon->identified);
	daemon->uid = uid;
	daemon->pid = pid;
}

static void forget(struct held *held)
{
	struct daemon *daemon = held->daemon;

	for (int i = 0; i < HELD_MAX; i++)
		if (daemon->held[i] == held)
			daemon->held[i] = NULL;
	daemon->held_count--;
	json_decref(held->args);
	free(held);
}

static void held_drop(struct nova_op *op)
{
	struct held *held = (struct held *)op;

	held->daemon->dropped++;
	forget(held);
}

static void release_held(struct daemon *daemon, int i)
{
	struct held *held = daemon->held[i];
	nova_done_fn done = held->done;
	void *arg = held->arg;
	json_t *args = json_incref(held->args);

	forget(held);
	done(arg, args, NULL);
	json_decref(args);
}

static struct nova_op *hold(struct daemon *daemon, json_t *args, nova_done_fn done, void *arg)
{
	struct held *held = calloc(1, sizeof(*held));
	int i = 0;

	*held = (struct held) { { held_drop }, daemon, done, arg, json_incref(args) };
	while (daemon->held[i])
		assert_true(++i < HELD_MAX);
	daemon->held[i] = held;
	daemon->held_count++;
	return &held->op;
}

static struct nova_op *execute(void *arg, const struct nova_identity *who, const char *command, json_t *args,
    nova_done_fn done, void *done_arg, struct nova_error *err)
{
	struct daemon *daemon = arg;
	struct nova_error failure;

	daemon->executed++;
	daemon->last = *who;
	if (strcmp(command, "echo") == 0)
		return nova_op_later(daemon->loop.base, json_incref(args), NULL, done, done_arg, err);
	if (strcmp(command, "hold") == 0)
		return hold(daemon, args, done, done_arg);
	if (strcmp(command, "emit") == 0)
		qmp_server_emit(daemon->server, "EMITTED", args);
	if (strcmp(command, "fail") == 0) {
		nova_error_set(&failure, NOVA_STATE, "caf\xc3"); /* a text cut in the middle of a letter */
		return nova_op_later(daemon->loop.base, NULL, &failure, done, done_arg, err);
	}
	nova_error_set(err, NOVA_TIMEOUT, "%s failed at once", command);
	return NULL;
}

static bool knows(void *arg, const char *command)
{
	return strcmp(command, "unknown") != 0;
}

static bool may_see(void *arg, const struct nova_identity *who, const char *event, json_t *data)
{
	return strcmp(event, "SECRET") != 0 || strcmp(who->name, "user1") == 0;
}

static const struct qmp_server_events events = { identify, execute, knows, may_see };

static struct qmp_server *new_server(struct daemon *daemon, int max, struct nova_error *err)
{
	return qmp_server_new(daemon->loop.base, daemon->path, 0, json_pack("{s:s}", "novacron", "0"), max,
	    &events, daemon, err);
}

static int set_up(void **state)
{
	struct daemon *daemon = calloc(1, sizeof(*daemon));
	struct nova_error err;

	*state = daemon;
	daemon->role = NOVA_ROLE_ADMIN;
	loop_init(&daemon->loop);
	snprintf(daemon->path, sizeof(daemon->path), "%s/control", daemon->loop.dir);
	daemon->server = new_server(daemon, 0, &err);
	if (!daemon->server)
		fail_msg("%s", err.text);
	return 0;
}

static int tear_down(void **state)
{
	struct daemon *daemon = *state;

	qmp_server_free(daemon->server);
	assert_int_equal(daemon->held_count, 0);
	loop_release(&daemon->loop);
	free(daemon);
	return 0;
}

/* ---- a client of bytes -------------------------------------------------------------------------- */

struct raw {
	struct daemon *daemon;
	int fd;
	bool end;
	struct qmp_reader reader;
	json_t *message;
};

static struct raw *raw_new(struct daemon *daemon)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	struct raw *raw = calloc(1, sizeof(*raw));

	raw->daemon = daemon;
	qmp_reader_init(&raw->reader, NULL);
	raw->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	strcpy(address.sun_path, daemon->path);
	assert_int_equal(connect(raw->fd, (struct sockaddr *)&address, sizeof(address)), 0);
	return raw;
}

static void raw_free(struct raw *raw)
{
	close(raw->fd);
	qmp_reader_release(&raw->reader);
	json_decref(raw->message);
	free(raw);
}

static void raw_say(struct raw *raw, const char *text)
{
	assert_int_equal(send(raw->fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

/* Is there a message, or the end? */
static bool raw_poll(struct raw *raw)
{
	char bytes[65536];
	ssize_t got;
	struct nova_error err;

	while (!raw->end && qmp_reader_next(&raw->reader, &raw->message, &err) == 0) {
		got = recv(raw->fd, bytes, sizeof(bytes), 0);
		if (got < 0 && errno == EAGAIN)
			return false;
		raw->end = got <= 0;
		assert_int_equal(qmp_reader_feed(&raw->reader, bytes, got > 0 ? (size_t)got : 0, &err), 0);
	}
	return true;
}

/* The next message, borrowed until the one after; NULL: the server closed. */
static json_t *raw_next(struct raw *raw)
{
	json_decref(raw->message);
	raw->message = NULL;
	LOOP_UNTIL(&raw->daemon->loop, raw_poll(raw));
	return raw->message;
}

/* The next message is exactly this. */
static void raw_expect(struct raw *raw, const char *text)
{
	json_t *message = raw_next(raw);
	char *got = message ? json_dumps(message, JSON_COMPACT) : strdup("the end");

	assert_string_equal(got, text);
	free(got);
}

static struct raw *raw_ready(struct daemon *daemon)
{
	struct raw *raw = raw_new(daemon);

	raw_expect(raw, "{\"QMP\":{\"version\":{\"novacron\":\"0\"},\"capabilities\":[]}}");
	raw_say(raw, "{\"execute\":\"qmp_capabilities\"}");
	raw_expect(raw, "{\"return\":{}}");
	return raw;
}

static void raw_expect_end(struct raw *raw, const char *class, const char *text, const char *category)
{
	json_t *error = json_object_get(raw_next(raw), "error");

	assert_non_null(error);
	assert_string_equal(json_string_value(json_object_get(error, "class")), class);
	assert_string_equal(json_string_value(json_object_get(error, "category")), category);
	if (!strstr(json_string_value(json_object_get(error, "desc")), text))
		fail_msg("'%s' does not say '%s'", json_string_value(json_object_get(error, "desc")), text);
	assert_null(raw_next(raw));
}

/* ---- protocol ----------------------------------------------------------------------------------- */

static void test_handshake_and_ids(void **state)
{
	struct daemon *daemon = *state;
	struct raw *raw = raw_new(daemon);

	raw_next(raw);
	raw_say(raw, "{\"execute\":\"echo\",\"id\":1}");
	raw_expect(raw,
	    "{\"error\":{\"class\":\"CommandNotFound\",\"desc\":\"echo came before the handshake: execute "
	    "qmp_capabilities first\",\"category\":\"state\"},\"id\":1}");
	raw_say(raw, "{\"execute\":\"qmp_capabilities\",\"arguments\":{\"enable\":[\"oob\"]},\"id\":2}");
	assert_non_null(json_object_get(raw_next(raw), "error"));
	raw_say(raw, "{\"execute\":\"qmp_capabilities\",\"arguments\":{\"enable\":[]},\"id\":\"three\"}");
	raw_expect(raw, "{\"return\":{},\"id\":\"three\"}");
	raw_say(raw, "{\"execute\":\"qmp_capabilities\",\"id\":null}");
	assert_string_equal(
	    json_string_value(json_object_get(json_object_get(raw_next(raw), "error"), "class")),
	    "CommandNotFound");
	raw_say(raw, "{\"execute\":\"echo\",\"arguments\":{\"x\":[1]},\"id\":{\"a\":[null,2.5]}}{\"execute\":"
	             "\"echo\"}");
	raw_expect(raw, "{\"return\":{\"x\":[1]},\"id\":{\"a\":[null,2.5]}}");
	raw_expect(raw, "{\"return\":{}}");
	assert_int_equal(daemon->uid, getuid());
	assert_int_equal(daemon->pid, getpid());
	assert_string_equal(daemon->last.name, "user1");
	raw_free(raw);
}

static void test_errors(void **state)
{
	struct raw *raw = raw_ready(*state);
	char text[2000];

	raw_say(raw, "{\"execute\":\"unknown\",\"id\":1}{\"execute\":\"now\",\"id\":2}{\"execute\":\"fail\","
	             "\"id\":3}");
	raw_expect(raw, "{\"error\":{\"class\":\"CommandNotFound\",\"desc\":\"there is no command unknown\","
	                "\"category\":\"invalid\"},\"id\":1}");
	raw_expect(raw, "{\"error\":{\"class\":\"GenericError\",\"desc\":\"now failed at "
	                "once\",\"category\":\"timeout\"},"
	                "\"id\":2}");
	raw_expect(raw,
	    "{\"error\":{\"class\":\"GenericError\",\"desc\":\"caf?\",\"category\":\"state\"},\"id\":3}");
	raw_say(raw,
	    "{\"execute\":\"echo\",\"argument\":{},\"id\":4}{\"execute\":7}{\"id\":5}{\"execute\":\"echo\","
	    "\"arguments\":[]}");
	for (int i = 0; i < 4; i++)
		assert_non_null(json_object_get(raw_next(raw), "error"));
	snprintf(text, sizeof(text), "{\"execute\":\"echo\",\"id\":\"%01100d\"}", 0);
	raw_say(raw, text);
	raw_expect(raw, "{\"error\":{\"class\":\"GenericError\",\"desc\":\"an id is longer than 1024 bytes\","
	                "\"category\":\"invalid\"}}");
	assert_int_equal(raw->daemon->executed, 2);
	raw_free(raw);
}

static void test_answers_out_of_order(void **state)
{
	struct daemon *daemon = *state;
	struct raw *raw = raw_ready(daemon);

	raw_say(raw,
	    "{\"execute\":\"hold\",\"id\":1}{\"execute\":\"hold\",\"id\":2}{\"execute\":\"echo\",\"id\":3}");
	raw_expect(raw, "{\"return\":{},\"id\":3}");
	release_held(daemon, 1);
	raw_expect(raw, "{\"return\":{},\"id\":2}");
	release_held(daemon, 0);
	raw_expect(raw, "{\"return\":{},\"id\":1}");
	raw_free(raw);
}

static void test_events(void **state)
{
	struct daemon *daemon = *state;
	struct raw *first = raw_ready(daemon), *second = raw_ready(daemon), *unready = raw_new(daemon);
	json_t *data = json_pack("{s:i}", "n", 1), *event;

	raw_next(unready);
	qmp_server_emit(daemon->server, "SECRET", data);
	qmp_server_emit(daemon->server, "OPEN", NULL);
	event = raw_next(first);
	assert_string_equal(json_string_value(json_object_get(event, "event")), "SECRET");
	assert_true(json_equal(json_object_get(event, "data"), data));
	assert_true(json_is_integer(json_object_get(json_object_get(event, "timestamp"), "microseconds")));
	event = raw_next(second);
	assert_string_equal(json_string_value(json_object_get(event, "event")), "OPEN");
	assert_null(json_object_get(event, "data"));
	raw_say(unready, "{\"execute\":\"qmp_capabilities\"}{\"execute\":\"emit\"}");
	raw_expect(unready, "{\"return\":{}}");
	assert_string_equal(json_string_value(json_object_get(raw_next(unready), "event")), "EMITTED");
	raw_free(first);
	raw_free(second);
	raw_free(unready);
	json_decref(data);
}

/* ---- admission ---------------------------------------------------------------------------------- */

static void test_no_role_is_refused(void **state)
{
	struct daemon *daemon = *state;
	struct raw *raw = raw_new(daemon);

	daemon->role = NOVA_ROLE_NONE;
	raw_say(raw, "{\"execute\":\"qmp_capabilities\"}");
	raw_expect_end(raw, "GenericError", "has no role here", "refused");
	raw_free(raw);
}

static void test_too_many_connections(void **state)
{
	struct daemon *daemon = *state;
	struct raw *all[3], *more;

	qmp_server_free(daemon->server);
	daemon->server = new_server(daemon, 3, NULL);
	for (int i = 0; i < 3; i++)
		all[i] = raw_ready(daemon);
	more = raw_new(daemon);
	raw_expect_end(more, "GenericError", "3 connections are open already", "refused");
	raw_free(more);
	raw_free(all[0]);
	LOOP_UNTIL(&daemon->loop, daemon->server->count == 2);
	all[0] = raw_ready(daemon);
	for (int i = 0; i < 3; i++)
		raw_free(all[i]);
}

static void test_handshake_has_a_limit(void **state)
{
	struct daemon *daemon = *state;
	struct raw *idle, *ready;

	assert_int_equal(daemon->server->handshake_ms, 10000);
	ready = raw_ready(daemon);
	daemon->server->handshake_ms = 50;
	idle = raw_new(daemon);
	raw_next(idle);
	raw_expect_end(idle, "GenericError", "no qmp_capabilities within 50 ms", "timeout");
	raw_say(ready, "{\"execute\":\"echo\"}");
	raw_expect(ready, "{\"return\":{}}");
	raw_free(idle);
	raw_free(ready);
}

static void test_stale_and_live_sockets(void **state)
{
	struct daemon *daemon = *state;
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	struct nova_error err;
	struct stat file;
	int fd;

	assert_int_equal(stat(daemon->path, &file), 0);
	assert_int_equal(file.st_mode & 07777, 0660);
	assert_null(new_server(daemon, 0, &err));
	assert_int_equal(err.category, NOVA_STATE);
	assert_non_null(strstr(err.text, "in use"));
	raw_free(raw_ready(daemon)); /* asking did no harm */

	daemon->server = qmp_server_free(daemon->server);
	assert_int_equal(access(daemon->path, F_OK), -1);
	strcpy(address.sun_path, daemon->path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	close(fd); /* the file stays behind, as after a crash */
	assert_int_equal(access(daemon->path, F_OK), 0);
	daemon->server = new_server(daemon, 0, &err);
	assert_non_null(daemon->server);
	raw_free(raw_ready(daemon));

	unlink(daemon->path); /* somebody else's file of that name is not ours to remove */
	fd = open(daemon->path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	close(fd);
	daemon->server = qmp_server_free(daemon->server);
	assert_int_equal(access(daemon->path, F_OK), 0);
	assert_null(new_server(daemon, 0, &err));
	assert_int_equal(err.category, NOVA_INVALID);
	assert_non_null(strstr(err.text, "is not a socket"));
	unlink(daemon->path);
	strcpy(daemon->path, "/nonexistent/directory/socket");
	assert_null(new_server(daemon, 0, &err));
	assert_int_equal(err.category, NOVA_SYSTEM);
}

/* Without descriptors, connections wait in the kernel until there are some again. */
static void test_out_of_descriptors(void **state)
{
	struct daemon *daemon = *state;
	struct raw *raw;
	const char *preload = getenv("LD_PRELOAD");
	struct rlimit before, tight;
	int next = dup(0);

	close(next);
	if (preload && strstr(preload, "vgpreload"))
		skip(); /* valgrind's accept4() takes the connection, closes it and then says EMFILE */
	raw = raw_new(daemon);
	next++;
	getrlimit(RLIMIT_NOFILE, &before);
	tight = before;
	tight.rlim_cur = (rlim_t)next;
	setrlimit(RLIMIT_NOFILE, &tight);
	loop_run_ms(&daemon->loop, 50);
	assert_int_equal(daemon->identified, 0);
	setrlimit(RLIMIT_NOFILE, &before);
	assert_non_null(json_object_get(raw_next(raw), "QMP"));
	raw_free(raw);
}

/* ---- hostile clients ---------------------------------------------------------------------------- */

static void test_broken_input_ends_the_connection(void **state)
{
	static const struct {
		const char *text, *why;
	} rows[] = {
		{ "{\"execute\":\"echo\",\"execute\":\"echo\"}", "duplicate" },
		{ "hello\n", "only JSON objects" },
		{ "{\"execute\":\"\xff\"}", "unable to decode" },
		{ "{\"execute\" \"echo\"}", "not valid JSON" },
	};
	struct daemon *daemon = *state;

	for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
		struct raw *raw = raw_ready(daemon);

		raw_say(raw, "{\"execute\":\"hold\"}");
		raw_say(raw, rows[i].text);
		raw_expect_end(raw, "GenericError", rows[i].why, "invalid");
		assert_int_equal(daemon->dropped, i + 1);
		raw_free(raw);
	}
}

static void send_lots(struct raw *raw, const char *head, char filler, size_t length)
{
	char piece[4096];
	ssize_t sent = 0;

	memset(piece, filler, sizeof(piece));
	raw_say(raw, head);
	for (size_t done = 0; done<length; done += sent> 0 ? (size_t)sent : 0) {
		sent = send(raw->fd, piece, sizeof(piece), MSG_NOSIGNAL);
		if (sent < 0 && errno != EAGAIN)
			return; /* the server had enough */
		event_base_loop(raw->daemon->loop.base, EVLOOP_NONBLOCK);
	}
}

static void test_giant_and_deep_messages(void **state)
{
	struct daemon *daemon = *state;
	struct raw *raw = raw_ready(daemon);

	send_lots(raw, "{\"execute\":\"", 'x', 8 << 20);
	raw_expect_end(raw, "GenericError", "longer than 262144 bytes", "invalid");
	raw_free(raw);
	raw = raw_ready(daemon);
	send_lots(raw, "{\"execute\":", '[', 10000);
	raw_expect_end(raw, "GenericError", "deeper than 64", "invalid");
	raw_free(raw);
	raw = raw_new(daemon);
	raw_next(raw);
	send_lots(raw, "{\"execute\":\"", 'x', 8192);
	raw_expect_end(raw, "GenericError", "longer than 4096 bytes", "invalid");
	raw_free(raw);
}

static void test_client_that_does_not_read(void **state)
{
	struct daemon *daemon = *state;
	struct raw *deaf = raw_ready(daemon), *good = raw_ready(daemon);
	char *text = calloc(1, 100001);
	json_t *data;

	memset(text, 'x', 100000);
	data = json_pack("{s:s}", "x", text);
	raw_say(deaf, "{\"execute\":\"hold\"}");
	LOOP_UNTIL(&daemon->loop, daemon->held_count == 1);
	for (int i = 0; i < 60; i++) { /* 6 MB */
		qmp_server_emit(daemon->server, "BIG", data);
		assert_string_equal(json_string_value(json_object_get(raw_next(good), "event")), "BIG");
	}
	assert_int_equal(daemon->server->count, 1);
	assert_int_equal(daemon->dropped, 1);
	/* Many events in one turn, below anybody's frame: closing waits for the loop. */
	for (int i = 0; i < 60; i++)
		qmp_server_emit(daemon->server, "BIG", data);
	assert_int_equal(daemon->server->count, 1);
	LOOP_UNTIL(&daemon->loop, daemon->server->count == 0);
	raw_free(deaf);
	raw_free(good);
	free(text);
	json_decref(data);
}

/* Many clients share what unread events may take. */
static void test_many_that_do_not_read(void **state)
{
	enum {
		MANY = 8
	};
	struct daemon *daemon = *state;
	struct raw *deaf[MANY], *good;
	char *text = calloc(1, 100001);
	json_t *data;

	assert_int_equal(daemon->server->events_bytes, 256 << 20);
	daemon->server->events_bytes = 1 << 20;
	for (int i = 0; i < MANY; i++)
		deaf[i] = raw_ready(daemon);
	good = raw_ready(daemon);
	memset(text, 'x', 100000);
	data = json_pack("{s:s}", "x", text);
	for (int i = 0; i < 10; i++) {
		qmp_server_emit(daemon->server, "BIG", data);
		assert_non_null(json_object_get(raw_next(good), "event"));
	}
	assert_int_equal(daemon->server->count, 1);
	for (int i = 0; i < MANY; i++)
		raw_free(deaf[i]);
	raw_free(good);
	free(text);
	json_decref(data);
}

static void test_backpressure(void **state)
{
	struct daemon *daemon = *state;
	struct raw *raw = raw_ready(daemon);
	char *command = calloc(1, 200100);

	for (int i = 0; i < 150; i++)
		raw_say(raw, "{\"execute\":\"hold\"}");
	LOOP_UNTIL(&daemon->loop, daemon->held_count == 64);
	loop_run_ms(&daemon->loop, 20);
	assert_int_equal(daemon->held_count, 64);
	for (int i = 0; i < 150; i++) { /* each answer lets one more in */
		LOOP_UNTIL(&daemon->loop, daemon->held[i % 64]);
		release_held(daemon, i % 64);
		raw_expect(raw, "{\"return\":{}}");
	}
	assert_int_equal(daemon->executed, 150);
	strcpy(command, "{\"execute\":\"hold\",\"arguments\":{\"x\":\"");
	memset(command + strlen(command), 'y', 200000);
	strcat(command, "\"}}");
	for (int i = 0; i < 6; i++) /* 1 MiB of commands is enough, too */
		send_lots(raw, command, ' ', 1);
	LOOP_UNTIL(&daemon->loop, daemon->held_count == 6);
	for (int i = 0; i < 6; i++) {
		raw_say(raw, "{\"execute\":\"echo\"}");
		loop_run_ms(&daemon->loop, 5);
	}
	assert_int_equal(daemon->executed, 156);
	release_held(daemon, 0);
	LOOP_UNTIL(&daemon->loop, daemon->executed == 162);
	raw_free(raw);
	LOOP_UNTIL(&daemon->loop, daemon->held_count == 0);
	free(command);
}

static void test_disconnect_drops(void **state)
{
	struct daemon *daemon = *state;
	struct raw *raw = raw_ready(daemon);
	double cpu;

	raw_say(raw, "{\"execute\":\"hold\"}{\"execute\":\"hold\"}");
	LOOP_UNTIL(&daemon->loop, daemon->held_count == 2);
	raw_free(raw);
	LOOP_UNTIL(&daemon->loop, daemon->dropped == 2);
	/* A client that dies while we do not read from it, with answers it has not read. */
	raw = raw_ready(daemon);
	raw_say(raw, "{\"execute\":\"echo\"}");
	for (int i = 0; i < 100; i++)
		raw_say(raw, "{\"execute\":\"hold\"}");
	LOOP_UNTIL(&daemon->loop, daemon->held_count == 64);
	loop_run_ms(&daemon->loop, 10);
	raw_free(raw);
	cpu = (double)clock() / CLOCKS_PER_SEC;
	LOOP_UNTIL(&daemon->loop, daemon->held_count == 0);
	assert_true((double)clock() / CLOCKS_PER_SEC - cpu < 0.3); /* it slept meanwhile */
	assert_int_equal(daemon->dropped, 66);
	/* The server goes while commands run. */
	raw = raw_ready(daemon);
	raw_say(raw, "{\"execute\":\"hold\"}{\"execute\":\"echo\"}");
	LOOP_UNTIL(&daemon->loop, daemon->held_count == 1);
	daemon->server = qmp_server_free(daemon->server);
	assert_int_equal(daemon->dropped, 67);
	raw_free(raw);
}

static void test_answer_that_is_too_long(void **state)
{
	struct daemon *daemon = *state;
	struct raw *raw = raw_ready(daemon);
	char *text = calloc(1, (3 << 20) + 1);

	raw_say(raw, "{\"execute\":\"hold\",\"id\":1}");
	LOOP_UNTIL(&daemon->loop, daemon->held_count == 1);
	memset(text, 'x', 3 << 20);
	daemon->held[0]->args = json_string(text);
	release_held(daemon, 0);
	assert_string_equal(
	    json_string_value(json_object_get(json_object_get(raw_next(raw), "error"), "category")),
	    "invalid");
	raw_say(raw, "{\"execute\":\"hold\",\"id\":2}");
	LOOP_UNTIL(&daemon->loop, daemon->held_count == 1);
	text[2000000] = 0;
	daemon->held[0]->args = json_string(text);
	release_held(daemon, 0);
	assert_int_equal(json_string_length(json_object_get(raw_next(raw), "return")), 2000000);
	raw_free(raw);
	free(text);
}

static void test_many_idle_connections(void **state)
{
	enum {
		MANY = 1000
	};
	struct daemon *daemon = *state;
	struct raw *all[MANY], *busy;

	for (int i = 0; i < MANY; i++)
		all[i] = raw_ready(daemon);
	busy = raw_ready(daemon);
	raw_say(busy, "{\"execute\":\"echo\"}");
	raw_expect(busy, "{\"return\":{}}");
	qmp_server_emit(daemon->server, "OPEN", NULL);
	for (int i = 0; i < MANY; i++) {
		assert_string_equal(json_string_value(json_object_get(raw_next(all[i]), "event")), "OPEN");
		raw_free(all[i]);
	}
	raw_free(busy);
	LOOP_UNTIL(&daemon->loop, daemon->server->count == 0);
}

/* ---- our own client ----------------------------------------------------------------------------- */

struct watcher {
	int events, gone;
	struct nova_error err;
};

static void on_event(void *arg, const char *event, json_t *data)
{
	((struct watcher *)arg)->events++;
}

static void on_gone(void *arg, const struct nova_error *err)
{
	struct watcher *watcher = arg;

	watcher->gone++;
	watcher->err = *err;
}

static void test_public_client(void **state)
{
	struct daemon *daemon = *state;
	struct watcher watcher = { 0 };
	struct nova_error err;
	struct nova_client *client =
	    nova_client_new(daemon->loop.base, daemon->path, on_event, on_gone, &watcher, &err);
	struct answer echo = { 0 }, failed = { 0 }, at_once = { 0 }, unknown = { 0 }, held = { 0 };
	json_t *args = json_pack("{s:i}", "n", 7);

	assert_non_null(client);
	assert_non_null(nova_client_execute(client, "echo", args, answer_done, &echo, &err));
	assert_non_null(nova_client_execute(client, "fail", NULL, answer_done, &failed, &err));
	assert_non_null(nova_client_execute(client, "now", NULL, answer_done, &at_once, &err));
	assert_non_null(nova_client_execute(client, "unknown", NULL, answer_done, &unknown, &err));
	assert_non_null(nova_client_execute(client, "hold", NULL, answer_done, &held, &err));
	LOOP_UNTIL(&daemon->loop, echo.count && failed.count && at_once.count && unknown.count);
	assert_true(json_equal(echo.result, args));
	assert_int_equal(failed.err.category, NOVA_STATE);
	assert_int_equal(at_once.err.category, NOVA_TIMEOUT);
	assert_string_equal(at_once.err.text, "now failed at once");
	assert_int_equal(unknown.err.category, NOVA_INVALID);
	qmp_server_emit(daemon->server, "OPEN", NULL);
	LOOP_UNTIL(&daemon->loop, watcher.events == 1);
	LOOP_UNTIL(&daemon->loop, daemon->held_count == 1);
	daemon->server = qmp_server_free(daemon->server);
	LOOP_UNTIL(&daemon->loop, watcher.gone == 1);
	assert_int_equal(watcher.err.category, NOVA_LINK);
	assert_int_equal(held.count, 1);
	assert_int_equal(held.err.category, NOVA_LINK);
	assert_null(nova_client_execute(client, "echo", NULL, answer_done, &held, &err));
	nova_client_free(client);
	json_decref(args);
	answer_release(&echo);
}

static void test_public_client_refused(void **state)
{
	struct daemon *daemon = *state;
	struct watcher watcher = { 0 };
	struct nova_client *client =
	    nova_client_new(daemon->loop.base, daemon->path, NULL, on_gone, &watcher, NULL);
	struct answer answer = { 0 };

	daemon->role = NOVA_ROLE_NONE;
	assert_non_null(nova_client_execute(client, "echo", NULL, answer_done, &answer, NULL));
	LOOP_UNTIL(&daemon->loop, watcher.gone);
	assert_int_equal(watcher.err.category, NOVA_REFUSED);
	assert_int_equal(answer.err.category, NOVA_REFUSED);
	assert_non_null(strstr(answer.err.text, "has no role here"));
	nova_client_free(client);
	client = nova_client_new(daemon->loop.base, "/nonexistent/socket", NULL, NULL, NULL, NULL);
	answer_release(&answer);
	assert_non_null(nova_client_execute(client, "echo", NULL, answer_done, &answer, NULL));
	LOOP_UNTIL(&daemon->loop, answer.count);
	assert_int_equal(answer.err.category, NOVA_LINK);
	nova_client_free(client);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(test_handshake_and_ids),
		TEST(test_errors),
		TEST(test_answers_out_of_order),
		TEST(test_events),
		TEST(test_no_role_is_refused),
		TEST(test_too_many_connections),
		TEST(test_handshake_has_a_limit),
		TEST(test_stale_and_live_sockets),
		TEST(test_out_of_descriptors),
		TEST(test_broken_input_ends_the_connection),
		TEST(test_giant_and_deep_messages),
		TEST(test_client_that_does_not_read),
		TEST(test_many_that_do_not_read),
		TEST(test_backpressure),
		TEST(test_disconnect_drops),
		TEST(test_answer_that_is_too_long),
		TEST(test_many_idle_connections),
		TEST(test_public_client),
		TEST(test_public_client_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
