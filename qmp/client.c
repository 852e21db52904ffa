/* SPDX-License-Identifier: Apache-2.0
 *
 * client.c - the connection of a QMP client: connecting, greeting, negotiation, messages, the end.
 *
 * A monitor serves one client. A second one's connect() succeeds (it waits in QEMU's backlog of one), a third
 * one's says EAGAIN, and neither is greeted: both mean "owned by someone else", which is not "dead". So
 * connecting is tried again every 50 ms, and the whole handshake has one limit (5 s unless told).
 *
 * The peer is not trusted: its messages are bounded (reader.c), replies that nobody asked for are counted and
 * ignored, and a stream that is no JSON ends the connection, after it has been read again: it may have been memory
 * that lacked. Commands are in call.c.
 */
#include "client.h"
#include "engine/cleanup.h"
#include "engine/clock.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>

#define GREETING_MS 5000
#define RETRY_MS 50
#define MISREAD_MAX 20 /* times that one message is read again */

static const unsigned transitions[] = {
	[CLIENT_CONNECTING] = 1u << CLIENT_GREETING | 1u << CLIENT_CLOSED,
	[CLIENT_GREETING] = 1u << CLIENT_NEGOTIATING | 1u << CLIENT_CLOSED,
	[CLIENT_NEGOTIATING] = 1u << CLIENT_READY | 1u << CLIENT_CLOSED,
	[CLIENT_READY] = 1u << CLIENT_CLOSED,
	[CLIENT_CLOSED] = 0,
};
static_assert(sizeof(transitions) / sizeof(*transitions) == CLIENT_STATES, "a row for each state");

static void set_state(struct qmp_client *client, enum client_state state)
{
	assert(transitions[client->state] & 1u << state);
	client->state = state;
}

static void start_timer(struct qmp_client *client, int64_t ms)
{
	struct timeval wait = nova_timeval_ms(ms);

	event_add(client->timer, &wait);
}

/* Callbacks may free the client; its memory stays until the frame that called them is left. */
static void enter(struct qmp_client *client)
{
	client->busy++;
}

static void leave(struct qmp_client *client)
{
	if (--client->busy == 0 && client->freed)
		free(client);
}

static bool alive(const struct qmp_client *client)
{
	return !client->freed && client->state != CLIENT_CLOSED;
}

/* The one way to CLOSED: everybody who waits is told, then the owner. Called between enter() and leave(). */
static void fail(struct qmp_client *client, const struct nova_error *why)
{
	if (!alive(client))
		return;
	client->failure = *why;
	nova_error_prefix(&client->failure, "%s", client->path);
	set_state(client, CLIENT_CLOSED);
	event_del(client->timer);
	qmp_wire_close(&client->wire);
	while (!client->freed && qmp_calls_fail_one(client, &client->failure))
		;
	if (!client->freed)
		client->events.closed(client->arg, &client->failure);
}

/* The monitor of a guest that runs is not given up because there was no memory for a message: what it says stays in the
 * socket, what we say waits, and both are tried again soon. */
static void fail_or_wait(struct qmp_client *client, const struct nova_error *why)
{
	bool misread = client->wire.reader.misread && ++client->misread <= MISREAD_MAX;

	if ((misread || why->category == NOVA_SYSTEM) && client->state == CLIENT_READY)
		start_timer(client, RETRY_MS);
	else
		fail(client, why);
}

static void pump(struct qmp_client *client)
{
	struct nova_error err;

	if (client->state == CLIENT_READY && qmp_calls_pump(client, &err) < 0)
		fail_or_wait(client, &err);
}

/* ---- handshake ---------------------------------------------------------------------------------- */

static void on_negotiated(void *arg, json_t *result, const struct nova_error *err)
{
	struct qmp_client *client = arg;
	NOVA_AUTOJSON json_t *greeting = nova_take(&client->greeting);
	struct nova_error why;

	if (client->state != CLIENT_NEGOTIATING)
		return;
	if (err) {
		why = *err;
		nova_error_prefix(&why, "qmp_capabilities");
		fail(client, &why);
		return;
	}
	set_state(client, CLIENT_READY);
	event_del(client->timer);
	if (client->events.ready)
		client->events.ready(client->arg, greeting);
}

static bool offers(const json_t *greeting, const char *capability)
{
	size_t i;
	json_t *value;

	json_array_foreach(json_object_get(greeting, "capabilities"), i,
	    value) if (json_is_string(value) &&
	               strcmp(json_string_value(value), capability) == 0) return true;
	return false;
}

static int negotiate(struct qmp_client *client, json_t *greeting, struct nova_error *err)
{
	bool oob = offers(greeting, "oob");
	json_t *args = oob ? json_pack("{s:[s]}", "enable", "oob") : NULL;
	struct qmp_call options = { .limit_ms = -1 }; /* the handshake's limit holds */
	struct call *call;

	call = qmp_call_new(client, "qmp_capabilities", args, &options, on_negotiated, client, err);
	if (!call || qmp_call_send(client, call, err) < 0)
		return -1;
	client->greeting = json_incref(greeting);
	client->oob = oob;
	set_state(client, CLIENT_NEGOTIATING);
	return qmp_wire_flush(&client->wire, err);
}

static void on_greeting(struct qmp_client *client, const json_t *message)
{
	json_t *greeting = json_object_get(message, "QMP");
	const json_t *error = json_object_get(message, "error");
	struct nova_error err;

	if (json_is_object(greeting)) {
		if (negotiate(client, greeting, &err) < 0)
			fail(client, &err);
		return;
	}
	if (error)
		qmp_error_decode(error, &err);
	else
		nova_error_set(&err, NOVA_INVALID, "the peer does not greet with QMP");
	fail(client, &err);
}

/* ---- messages ----------------------------------------------------------------------------------- */

static void on_message(struct qmp_client *client, const json_t *message)
{
	const char *event = json_string_value(json_object_get(message, "event"));

	/* A QEMU that is starting may say RESUME to a monitor that it has not greeted yet. */
	if (client->state == CLIENT_GREETING && !event)
		on_greeting(client, message);
	else if (json_object_get(message, "return") || json_object_get(message, "error"))
		qmp_calls_reply(client, message);
	else if (event && client->state == CLIENT_READY && client->events.event)
		client->events.event(client->arg, event, json_object_get(message, "data"));
	else if (!event)
		client->strays++;
}

/* Whether the line is over, and with it what was not for us. */
static bool skip_line(struct qmp_client *client)
{
	char bytes[4096];
	ssize_t got = recv(client->wire.fd, bytes, sizeof(bytes), MSG_DONTWAIT | MSG_PEEK);
	const char *end = got > 0 ? memchr(bytes, '\n', (size_t)got) : NULL;

	if (got > 0)
		got = recv(client->wire.fd, bytes, end ? (size_t)(end - bytes) + 1 : (size_t)got, MSG_DONTWAIT);
	client->skip = got > 0 && !end;
	return !client->skip;
}

/* Messages that are here, and what more there is to read. */
static void on_read(evutil_socket_t fd, short what, void *arg)
{
	struct qmp_client *client = arg;
	struct nova_error err;
	int got = 1;

	if (client->skip && !skip_line(client))
		return;
	enter(client);
	if (fd >= 0)
		got = qmp_wire_read(&client->wire, &err);
	while (got > 0 && alive(client)) {
		NOVA_AUTOJSON json_t *message = NULL;

		got = qmp_reader_next(&client->wire.reader, &message, &err);
		if (got > 0) {
			client->misread = 0;
			on_message(client, message);
		}
	}
	if (got < 0)
		fail_or_wait(client, &err);
	if (alive(client))
		pump(client);
	leave(client);
}

static void on_write(evutil_socket_t fd, short what, void *arg)
{
	struct qmp_client *client = arg;
	struct nova_error err;

	enter(client);
	if (qmp_wire_flush(&client->wire, &err) < 0)
		fail(client, &err);
	else
		pump(client);
	leave(client);
}

/* ---- connecting --------------------------------------------------------------------------------- */

static int read_pid(int fd)
{
	struct ucred who;
	socklen_t length = sizeof(who);

	return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &length) == 0 ? who.pid : -1;
}

static void try_connect(struct qmp_client *client)
{
	struct sockaddr_un address;
	struct nova_error err;

	if (qmp_wire_address(&address, client->path, &err) < 0) {
		fail(client, &err);
	} else if (connect(client->fd, (struct sockaddr *)&address, sizeof(address)) == 0) {
		client->pid = read_pid(client->fd);
		set_state(client, CLIENT_GREETING);
		if (qmp_wire_open(&client->wire, client->base, nova_take_fd(&client->fd), &client->limits,
		        on_read, on_write, client, &err) < 0)
			fail(client, &err);
		else
			client->wire.reader.saturate = true;
	} else if (errno != EAGAIN && errno != EINTR) {
		nova_error_set(&err, NOVA_LINK, "connection failed: %s", strerrordesc_np(errno));
		fail(client, &err);
	}
}

static void on_give_up(struct qmp_client *client)
{
	struct nova_error err;

	if (client->state == CLIENT_NEGOTIATING)
		nova_error_set(&err, NOVA_TIMEOUT, "qmp_capabilities was not answered within %d ms",
		    client->limits.greeting_ms);
	else
		nova_error_set(&err, NOVA_STATE,
		    "monitor is owned by someone else, or hangs: it %s but did not greet within %d ms",
		    client->state == CLIENT_GREETING ? "accepts" : "listens", client->limits.greeting_ms);
	fail(client, &err);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct qmp_client *client = arg;
	int64_t left = client->give_up_ms - nova_now_ms();

	if (client->state == CLIENT_READY) {
		on_read(-1, EV_READ, client);
		return;
	}
	enter(client);
	if (client->state == CLIENT_CONNECTING)
		try_connect(client);
	if (alive(client) && left <= 0)
		on_give_up(client);
	else if (alive(client))
		start_timer(client, client->state == CLIENT_CONNECTING && left > RETRY_MS ? RETRY_MS : left);
	leave(client);
}

/* ---- life --------------------------------------------------------------------------------------- */

static struct qmp_client *client_alloc(struct event_base *base, const char *path, const struct qmp_limits *limits,
    const struct qmp_events *events, void *arg, struct nova_error *err)
{
	struct qmp_client *client = calloc(1, sizeof(*client));

	if (!client) {
		nova_error_sys(err, ENOMEM, "no memory for a QMP client");
		return NULL;
	}
	*client = (struct qmp_client) {
		.base = base, .events = *events, .arg = arg, .wire = QMP_WIRE_CLOSED, .pid = -1, .fd = -1
	};
	TAILQ_INIT(&client->waiting);
	TAILQ_INIT(&client->sent);
	if (limits)
		client->limits = *limits;
	if (client->limits.greeting_ms <= 0)
		client->limits.greeting_ms = GREETING_MS;
	client->give_up_ms = nova_now_ms() + client->limits.greeting_ms;
	client->path = strdup(path);
	client->timer = event_new(base, -1, 0, on_timer, client);
	if (client->path && client->timer)
		return client;
	nova_error_sys(err, ENOMEM, "no QMP client for %s", path);
	return qmp_client_free(client);
}

struct qmp_client *qmp_client_new(struct event_base *base, const char *path, const struct qmp_limits *limits,
    const struct qmp_events *events, void *arg, struct nova_error *err)
{
	struct qmp_client *client;
	struct sockaddr_un address;

	if (qmp_wire_address(&address, path, err) < 0)
		return NULL;
	client = client_alloc(base, path, limits, events, arg, err);
	if (!client)
		return NULL;
	client->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (client->fd < 0) {
		nova_error_sys(err, errno, "no QMP client for %s", path);
		return qmp_client_free(client);
	}
	event_active(client->timer, EV_TIMEOUT, 0);
	return client;
}

/* ---- taking over -------------------------------------------------------------------------------- */

/* Read away what was said to the dead; lines end with a newline. */
static bool ends_within_a_line(int fd)
{
	char bytes[4096], last = '\n';
	ssize_t got;

	while ((got = recv(fd, bytes, sizeof(bytes), MSG_DONTWAIT)) > 0)
		last = bytes[got - 1];
	return last != '\n';
}

/* Answers to the dead may still come: their ids were small. query-yank (QEMU 6.0) is a harmless question that is answered
 * out of band. */
static int make_heard(struct qmp_client *client, struct nova_error *err)
{
	const struct qmp_call options = { .limit_ms = -1, .oob = true }; /* the handshake's limit holds */
	struct call *call;

	client->last_id = (uint64_t)nova_wall_ms() << 16;
	client->oob = true;
	call = qmp_call_new(client, "query-yank", NULL, &options, on_negotiated, client, err);
	if (!call || qmp_call_send(client, call, err) < 0)
		return -1;
	start_timer(client, client->limits.greeting_ms);
	return qmp_wire_flush(&client->wire, err);
}

struct qmp_client *qmp_client_take(struct event_base *base, int fd, const char *path, const struct qmp_limits *limits,
    const struct qmp_events *events, void *arg, struct nova_error *err)
{
	NOVA_AUTOCLOSE int taken = fd;
	struct qmp_client *client = client_alloc(base, path, limits, events, arg, err);

	if (!client)
		return NULL;
	client->pid = read_pid(taken);
	client->skip = ends_within_a_line(taken);
	if (qmp_wire_open(&client->wire, base, nova_take_fd(&taken), &client->limits, on_read, on_write, client, err) < 0)
		return qmp_client_free(client);
	client->wire.reader.saturate = true;
	client->state = CLIENT_NEGOTIATING;
	return make_heard(client, err) == 0 ? client : qmp_client_free(client);
}

/* ---- the end of a life -------------------------------------------------------------------------- */

struct qmp_client *qmp_client_free(struct qmp_client *client)
{
	if (!client)
		return NULL;
	while (!TAILQ_EMPTY(&client->sent))
		qmp_call_free(TAILQ_FIRST(&client->sent));
	while (!TAILQ_EMPTY(&client->waiting))
		qmp_call_free(TAILQ_FIRST(&client->waiting));
	qmp_wire_close(&client->wire);
	if (client->fd >= 0)
		close(client->fd);
	if (client->timer)
		event_free(client->timer);
	json_decref(client->greeting);
	free(client->path);
	client->freed = true;
	if (client->busy == 0)
		free(client);
	return NULL;
}

bool qmp_client_ready(const struct qmp_client *client)
{
	return client->state == CLIENT_READY;
}

int qmp_client_fd(const struct qmp_client *client)
{
	return client->wire.fd;
}

int qmp_client_pid(const struct qmp_client *client)
{
	return client->pid;
}

uint64_t qmp_client_strays(const struct qmp_client *client)
{
	return client->strays;
}

struct nova_op *qmp_execute(struct qmp_client *client, const char *command, json_t *args,
    const struct qmp_call *options, nova_done_fn done, void *arg, struct nova_error *err)
{
	struct call *call;
	struct nova_error ignored;

	if (client->state == CLIENT_CLOSED)
		nova_error_copy(err, &client->failure);
	if (client->state == CLIENT_CLOSED || qmp_calls_full(client, err)) {
		json_decref(args);
		return NULL;
	}
	call = qmp_call_new(client, command, args, options, done, arg, err);
	if (!call)
		return NULL;
	/* A failure to write here is found again, and told, from the loop. */
	if (client->state == CLIENT_READY && qmp_calls_pump(client, &ignored) < 0)
		event_active(client->wire.writable, EV_WRITE, 0);
	return &call->op;
}
