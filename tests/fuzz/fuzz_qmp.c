/* SPDX-License-Identifier: Apache-2.0
 *
 * fuzz_qmp.c - bytes from a hostile peer: into the client (input 'c' + cut + bytes), into the server ('s'), into the
 * client of a guest's agent ('a'), and into the reader alone (anything else), over real sockets.
 *
 * Beyond not crashing: every call is answered exactly once, every connection ends, nothing is left behind,
 * and how a stream is cut changes nothing.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "engine/cleanup.h"
#include "engine/op.h"
#include "qmp/reader.h"
#include "qmp/server.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CALLS 12
#define TURNS_MAX 100000

static void require(bool holds, const char *what)
{
	if (holds)
		return;
	fprintf(stderr, "does not hold: %s\n", what);
	abort();
}

/* What a run of the program keeps: one loop, one directory, a server of ours. */
static struct {
	struct event_base *base;
	char dir[32], listen_path[64], server_path[64];
	int listening;
	struct qmp_server *server;
	int held;
} world;

/* ---- the commands behind our server ------------------------------------------------------------- */

static void held_drop(struct nova_op *op)
{
	world.held--;
	free(op);
}

static void identify(void *arg, unsigned uid, unsigned gid, int pid, struct nova_identity *who)
{
	who->role = NOVA_ROLE_ADMIN;
}

static struct nova_op *execute(void *arg, const struct nova_identity *who, const char *command, json_t *args,
    nova_done_fn done, void *done_arg, struct nova_error *err)
{
	struct nova_error failure;
	struct nova_op *op;

	nova_error_set(&failure, NOVA_STATE, "%s", command);
	qmp_server_emit(world.server, "EXECUTED", args);
	if (command[0] == 'n')
		nova_error_copy(err, &failure);
	if (command[0] == 'n')
		return NULL;
	if (command[0] != 'h')
		return nova_op_later(
		    world.base, json_incref(args), command[0] == 'f' ? &failure : NULL, done, done_arg, err);
	op = malloc(sizeof(*op));
	op->drop = held_drop;
	world.held++;
	return op;
}

static bool knows(void *arg, const char *command)
{
	return command[0] != 'u';
}

/* ---- set-up ------------------------------------------------------------------------------------- */

static void clean_up(void)
{
	qmp_server_free(world.server);
	event_base_free(world.base);
	close(world.listening);
	unlink(world.listen_path);
	rmdir(world.dir);
}

static void set_up(void)
{
	static const struct qmp_server_events events = {
		.identify = identify, .execute = execute, .knows = knows
	};

	world.base = event_base_new();
	strcpy(world.dir, "/tmp/nova-fuzz-XXXXXX");
	require(mkdtemp(world.dir) != NULL, "directory");
	snprintf(world.listen_path, sizeof(world.listen_path), "%s/client", world.dir);
	snprintf(world.server_path, sizeof(world.server_path), "%s/server", world.dir);
	world.listening = qmp_listen(world.listen_path, 0600, NULL);
	world.server =
	    qmp_server_new(world.base, world.server_path, 0, json_object(), 0, &events, NULL, NULL);
	require(world.listening >= 0 && world.server, "sockets");
	atexit(clean_up);
}

static void turn(void)
{
	event_base_loop(world.base, EVLOOP_NONBLOCK);
}

/* Send everything the other side is willing to take, reading what it says meanwhile. */
static void send_bytes(int fd, const uint8_t *data, size_t size)
{
	char nobody[4096];

	for (int turns = 0; size > 0 && turns < TURNS_MAX; turns++) {
		ssize_t sent = send(fd, data, size, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (sent < 0 && errno != EAGAIN)
			return;
		data += sent > 0 ? sent : 0;
		size -= sent > 0 ? (size_t)sent : 0;
		turn();
		while (recv(fd, nobody, sizeof(nobody), MSG_DONTWAIT) > 0)
			;
	}
}

/* ---- client ------------------------------------------------------------------------------------- */

struct session {
	struct qmp_client *client;
	int answers, closings;
	int answered[CALLS];
};

struct expected {
	struct session *session;
	int index;
};

static void on_closed(void *arg, const struct nova_error *err)
{
	((struct session *)arg)->closings++;
}

static void on_answer(void *arg, json_t *result, const struct nova_error *err)
{
	struct expected *expected = arg;

	expected->session->answers++;
	expected->session->answered[expected->index]++;
}

static void fuzz_client(size_t cut, const uint8_t *data, size_t size)
{
	static const struct qmp_events events = { .closed = on_closed };
	static const struct qmp_limits limits = { .message_bytes = 65536 };
	struct session session = { 0 };
	struct expected expected[CALLS];
	int started = 0, fd;

	session.client = qmp_client_new(world.base, world.listen_path, &limits, &events, &session, NULL);
	require(session.client != NULL, "client");
	for (int i = 0; i < CALLS; i++) {
		struct qmp_call call = { .oob = i % 4 == 3, .fd = i % 5 == 4 ? 0 : -1 };

		expected[i] = (struct expected) { &session, i };
		started +=
		    qmp_execute(session.client, "c", NULL, &call, on_answer, &expected[i], NULL) != NULL;
	}
	while ((fd = accept4(world.listening, NULL, NULL, SOCK_CLOEXEC)) < 0)
		turn();
	cut = cut < size ? cut : size;
	send_bytes(fd, data, cut);
	send_bytes(fd, data + cut, size - cut);
	close(fd);
	for (int turns = 0; !session.closings && turns < TURNS_MAX; turns++)
		turn();
	require(session.closings == 1, "the end is told once");
	require(session.answers == started, "an answer for each call");
	for (int i = 0; i < CALLS; i++)
		require(session.answered[i] <= 1, "one answer for each call");
	qmp_client_free(session.client);
}

/* ---- a guest's agent ---------------------------------------------------------------------------- */

static void on_agent_answer(void *arg, json_t *result, const struct nova_error *err)
{
	++*(int *)arg;
	require(err || result, "a result or a reason");
}

/* What is said before the answer to sync, which alone must have the number that was asked for, and after it. */
static void fuzz_agent(size_t cut, const uint8_t *data, size_t size)
{
	char asked[256], synced[64];
	const char *number = NULL;
	ssize_t got;
	int answers = 0, fd;

	require(qmp_agent_ask(world.base, world.listen_path, "guest-ping", 60000, on_agent_answer, &answers, NULL) != NULL, "agent");
	while ((fd = accept4(world.listening, NULL, NULL, SOCK_CLOEXEC)) < 0)
		turn();
	while ((got = recv(fd, asked, sizeof(asked) - 1, MSG_DONTWAIT)) < 0)
		turn();
	asked[got] = 0;
	number = strstr(asked, "\"id\":");
	require(number != NULL, "a number is asked for");
	cut = cut < size ? cut : size;
	send_bytes(fd, data, cut);
	if (!answers) {
		snprintf(synced, sizeof(synced), "\xff{\"return\": %lu}\n", strtoul(number + 5, NULL, 10));
		send_bytes(fd, (const uint8_t *)synced, strlen(synced));
		turn();
		send_bytes(fd, data + cut, size - cut);
	}
	close(fd);
	for (int turns = 0; !answers && turns < TURNS_MAX; turns++)
		turn();
	require(answers == 1, "one answer");
}

/* ---- server ------------------------------------------------------------------------------------- */

static void fuzz_server(size_t cut, const uint8_t *data, size_t size)
{
	struct sockaddr_un address;
	NOVA_AUTOCLOSE int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	qmp_wire_address(&address, world.server_path, NULL);
	require(connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0, "connection");
	cut = cut < size ? cut : size;
	send_bytes(fd, data, cut);
	send_bytes(fd, data + cut, size - cut);
	shutdown(fd, SHUT_RDWR);
	turn(); /* it may not have been accepted before */
	for (int turns = 0; world.server->count > 0 && turns < TURNS_MAX; turns++) {
		struct qmp_connection *connection = TAILQ_FIRST(&world.server->connections);

		if (connection->paused) /* it would look only after a second */
			event_active(connection->wire.look, EV_TIMEOUT, 0);
		event_base_loop(world.base, EVLOOP_ONCE);
	}
	require(world.server->count == 0, "the connection ends");
	require(world.held == 0, "commands of a lost connection are dropped");
}

/* ---- reader ------------------------------------------------------------------------------------- */

/* A failing stream gives the messages before the failure, then null. */
static json_t *read_all(const uint8_t *data, size_t size, size_t piece, bool saturate)
{
	const struct qmp_limits limits = { .message_bytes = 4096, .depth = 16 };
	struct qmp_reader reader;
	json_t *all = json_array(), *message;
	int got = 0;

	qmp_reader_init(&reader, &limits);
	reader.saturate = saturate;
	for (size_t at = 0; at < size && got >= 0; at += piece) {
		require(qmp_reader_feed(&reader, data + at, size - at < piece ? size - at : piece, NULL) == 0,
		    "memory");
		while ((got = qmp_reader_next(&reader, &message, NULL)) > 0)
			json_array_append_new(all, message);
		require(got < 0 || reader.end - reader.start <= limits.message_bytes + piece,
		    "held bytes are bounded");
	}
	if (got < 0)
		json_array_append_new(all, json_null());
	qmp_reader_release(&reader);
	return all;
}

static void fuzz_reader(size_t cut, const uint8_t *data, size_t size)
{
	NOVA_AUTOJSON json_t *whole = read_all(data, size, size ? size : 1, cut & 1);
	NOVA_AUTOJSON json_t *split = read_all(data, size, cut / 2 + 1, cut & 1);

	require(json_equal(whole, split), "how a stream is cut changes nothing");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (!world.base)
		set_up();
	if (size < 2)
		return 0;
	if (data[0] == 'c')
		fuzz_client(data[1], data + 2, size - 2);
	else if (data[0] == 'a')
		fuzz_agent(data[1], data + 2, size - 2);
	else if (data[0] == 's')
		fuzz_server(data[1], data + 2, size - 2);
	else
		fuzz_reader(data[1], data + 2, size - 2);
	return 0;
}
