/* SPDX-License-Identifier: Apache-2.0
 *
 * connection.c - one client of our control socket.
 *
 * Everything a client can make us hold is bounded: 4 KiB a message and 10 s before the handshake is done,
 * then 256 KiB a message, 64 levels, 64 commands or 1 MiB of them without an answer (then we stop reading:
 * its writes block, ours do not), 1 KiB an id, 4 MiB of answers and events it does not read (then it is
 * closed). Input that is not JSON gets an error, and then the connection ends, since nobody knows where the
 * next message would begin.
 */
#include "server.h"
#include "engine/cleanup.h"
#include "engine/clock.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#define HANDSHAKE_BYTES 4096u
#define COMMAND_BYTES (256u * 1024)
#define REQUESTS_MAX 64u
#define REQUESTS_BYTES (1u << 20)
#define ID_BYTES 1024u
#define QUEUE_BYTES (4u << 20)
#define QUEUE_BUSY_BYTES (1u << 20) /* no new commands are read above this */

/* A command whose answer is to come. */
struct request {
	TAILQ_ENTRY(request) link;
	struct qmp_connection *connection;
	struct nova_op *op;
	json_t *id; /* owned, NULL: none */
	size_t bytes;
};

/* ---- output ------------------------------------------------------------------------------------- */

static void doom(struct qmp_connection *connection)
{
	connection->doomed = true;
	event_active(connection->wire.writable, EV_WRITE, 0);
}

static void queue(struct qmp_connection *connection, const char *text, size_t length)
{
	if (connection->doomed)
		return;
	if (qmp_wire_queued(&connection->wire) + length > QUEUE_BYTES ||
	    qmp_wire_queue(&connection->wire, text, length, -1, NULL) < 0)
		doom(connection);
}

/* Send a message of ours, without asking whether it fits. */
static void send_message(struct qmp_connection *connection, const json_t *message)
{
	NOVA_AUTOFREE char *text = message ? json_dumps(message, JSON_COMPACT) : NULL;

	if (!text) {
		doom(connection);
		return;
	}
	queue(connection, text, strlen(text));
	queue(connection, "\r\n", 2);
}

/* Error texts may quote what a client or a runtime said, cut anywhere. */
static json_t *text_value(const char *text)
{
	json_t *value = json_string(text);
	char plain[sizeof(((struct nova_error *)0)->text)];
	size_t i;

	if (value)
		return value;
	for (i = 0; i < sizeof(plain) - 1 && text[i]; i++)
		plain[i] = (unsigned char)text[i] < 0x80 ? text[i] : '?';
	plain[i] = 0;
	return json_string(plain);
}

static void send_error(
    struct qmp_connection *connection, json_t *id, const char *class, const struct nova_error *err)
{
	NOVA_AUTOJSON json_t *message = json_pack("{s:{s:s,s:o,s:s},s:O*}", "error", "class", class, "desc",
	    text_value(err->text), "category", nova_category_name(err->category), "id", id);

	send_message(connection, message);
}

static void send_result(struct qmp_connection *connection, json_t *id, json_t *result)
{
	NOVA_AUTOJSON json_t *message = result ? json_pack("{s:O,s:O*}", "return", result, "id", id)
	                                       : json_pack("{s:{},s:O*}", "return", "id", id);
	NOVA_AUTOFREE char *text = message ? json_dumps(message, JSON_COMPACT) : NULL;
	size_t length = text ? strlen(text) : 0;
	struct nova_error err;

	if (text && length <= QUEUE_BYTES / 2) {
		queue(connection, text, length);
		queue(connection, "\r\n", 2);
		return;
	}
	nova_error_set(&err, NOVA_INVALID, "the answer of %zu bytes is longer than %u: ask for less", length,
	    QUEUE_BYTES / 2);
	send_error(connection, id, "GenericError", &err);
}

void qmp_connection_emit(struct qmp_connection *connection, const char *text, size_t length, size_t share)
{
	if (connection->state != CONNECTION_READY)
		return;
	if (qmp_wire_queued(&connection->wire) + length > share)
		doom(connection);
	else
		queue(connection, text, length);
}

/* ---- requests ----------------------------------------------------------------------------------- */

static void request_free(struct request *request)
{
	struct qmp_connection *connection = request->connection;

	TAILQ_REMOVE(&connection->requests, request, link);
	connection->request_count--;
	connection->request_bytes -= request->bytes;
	json_decref(request->id);
	free(request);
}

static void drop_requests(struct qmp_connection *connection)
{
	struct request *request;

	while ((request = TAILQ_FIRST(&connection->requests))) {
		nova_op_drop(request->op);
		request_free(request);
	}
}

static bool is_full(const struct qmp_connection *connection)
{
	return connection->request_count >= REQUESTS_MAX || connection->request_bytes >= REQUESTS_BYTES ||
	       qmp_wire_queued(&connection->wire) >= QUEUE_BUSY_BYTES;
}

static void set_paused(struct qmp_connection *connection, bool paused)
{
	if (connection->paused == paused || connection->state == CONNECTION_CLOSING)
		return;
	connection->paused = paused;
	qmp_wire_pause(&connection->wire, paused);
	if (!paused) /* whole messages may wait in the reader */
		event_active(connection->wire.readable, EV_READ, 0);
}

static void on_answer(void *arg, json_t *result, const struct nova_error *err)
{
	struct request *request = arg;
	struct qmp_connection *connection = request->connection;

	if (err)
		send_error(connection, request->id, "GenericError", err);
	else
		send_result(connection, request->id, result);
	request_free(request);
	if (connection->paused && !is_full(connection))
		set_paused(connection, false);
}

static void run(
    struct qmp_connection *connection, const char *command, json_t *args, json_t *id, size_t bytes)
{
	struct qmp_server *server = connection->server;
	struct request *request = calloc(1, sizeof(*request));
	struct nova_error err;

	if (!request) {
		doom(connection);
		return;
	}
	request->connection = connection;
	request->id = json_incref(id);
	request->bytes = bytes;
	TAILQ_INSERT_TAIL(&connection->requests, request, link);
	connection->request_count++;
	connection->request_bytes += bytes;
	request->op =
	    server->events.execute(server->arg, &connection->who, command, args, on_answer, request, &err);
	if (request->op)
		return;
	send_error(connection, id, "GenericError", &err);
	request_free(request);
}

/* ---- commands ----------------------------------------------------------------------------------- */

static void negotiate(struct qmp_connection *connection, const json_t *args, json_t *id)
{
	struct nova_error err;

	if (json_array_size(json_object_get(args, "enable")) > 0) {
		nova_error_set(&err, NOVA_INVALID, "no capabilities are offered, so none can be enabled");
		send_error(connection, id, "GenericError", &err);
		return;
	}
	connection->state = CONNECTION_READY;
	connection->wire.reader.message_bytes = COMMAND_BYTES;
	event_del(connection->limit);
	send_result(connection, id, NULL);
}

static int check_command(const json_t *message, struct nova_error *err)
{
	const char *key;
	json_t *value;
	const json_t *args = json_object_get(message, "arguments");
	json_t *id = json_object_get(message, "id");

	json_object_foreach((json_t *)message, key,
	    value) if (strcmp(key, "execute") != 0 && strcmp(key, "arguments") != 0 &&
	               strcmp(key, "id") != 0) return nova_error_set(err, NOVA_INVALID,
	    "a command has no member '%.64s'; only execute, "
	    "arguments and id are accepted",
	    key);
	if (!json_is_string(json_object_get(message, "execute")))
		return nova_error_set(err, NOVA_INVALID, "a command needs \"execute\" with its name");
	if (args && !json_is_object(args))
		return nova_error_set(err, NOVA_INVALID, "\"arguments\" must be an object");
	if (id && json_dumpb(id, NULL, 0, JSON_ENCODE_ANY | JSON_COMPACT) > ID_BYTES)
		return nova_error_set(err, NOVA_INVALID, "an id is longer than %u bytes", ID_BYTES);
	return 0;
}

static bool is_known(const struct qmp_server *server, const char *command)
{
	return !server->events.knows || server->events.knows(server->arg, command);
}

/* Whatever is wrong with a message that is an object: answered, and the conversation goes on. */
static void on_message(struct qmp_connection *connection, const json_t *message, size_t bytes)
{
	const char *command = json_string_value(json_object_get(message, "execute"));
	json_t *args = json_object_get(message, "arguments");
	json_t *id = json_object_get(message, "id");
	bool capabilities = command && strcmp(command, "qmp_capabilities") == 0;
	struct nova_error err;

	if (check_command(message, &err) < 0) {
		send_error(connection, NULL, "GenericError", &err);
	} else if (connection->state == CONNECTION_GREETED && !capabilities) {
		nova_error_set(&err, NOVA_STATE,
		    "%.64s came before the handshake: execute qmp_capabilities first", command);
		send_error(connection, id, "CommandNotFound", &err);
	} else if (connection->state == CONNECTION_GREETED) {
		negotiate(connection, args, id);
	} else if (capabilities || !is_known(connection->server, command)) {
		nova_error_set(&err, NOVA_INVALID,
		    capabilities ? "%.64s was executed before; once is enough" : "there is no command %.64s",
		    command);
		send_error(connection, id, "CommandNotFound", &err);
	} else {
		run(connection, command, args, id, bytes);
	}
}

/* ---- events of the socket ----------------------------------------------------------------------- */

static void start_limit(struct qmp_connection *connection)
{
	int ms = connection->server->handshake_ms;
	struct timeval limit = nova_timeval_ms(ms);

	event_add(connection->limit, &limit);
}

/* Say why, and end when that is written. */
static void refuse(struct qmp_connection *connection, const struct nova_error *why)
{
	drop_requests(connection);
	send_error(connection, NULL, "GenericError", why);
	connection->state = CONNECTION_CLOSING;
	qmp_wire_stop(&connection->wire);
	start_limit(connection);
}

/* Work on the messages that are here, until too much is under way: then stop reading. */
static void process(struct qmp_connection *connection)
{
	struct qmp_reader *reader = &connection->wire.reader;
	struct nova_error err;
	int got = 1;

	while (got > 0 && connection->state != CONNECTION_CLOSING && !is_full(connection)) {
		NOVA_AUTOJSON json_t *message = NULL;
		size_t held = reader->end - reader->start;

		got = qmp_reader_next(reader, &message, &err);
		if (got > 0)
			on_message(connection, message, held - (reader->end - reader->start));
	}
	if (got < 0)
		refuse(connection, &err);
	else
		set_paused(connection, is_full(connection));
}

static void on_read(evutil_socket_t fd, short what, void *arg)
{
	struct qmp_connection *connection = arg;

	if (what & EV_TIMEOUT) {
		if (qmp_wire_hung_up(&connection->wire))
			qmp_connection_free(connection);
		return;
	}
	process(connection);
	if (connection->state == CONNECTION_CLOSING || connection->paused)
		return;
	if (qmp_wire_read(&connection->wire, NULL) < 0)
		qmp_connection_free(connection);
	else
		process(connection);
}

static void on_write(evutil_socket_t fd, short what, void *arg)
{
	struct qmp_connection *connection = arg;
	bool failed = connection->doomed || qmp_wire_flush(&connection->wire, NULL) < 0;

	if (failed || (connection->state == CONNECTION_CLOSING && qmp_wire_queued(&connection->wire) == 0))
		qmp_connection_free(connection);
	else if (connection->paused && !is_full(connection))
		set_paused(connection, false);
}

static void on_limit(evutil_socket_t fd, short what, void *arg)
{
	struct qmp_connection *connection = arg;
	struct nova_error err;

	if (connection->state == CONNECTION_CLOSING) {
		qmp_connection_free(connection);
		return;
	}
	nova_error_set(
	    &err, NOVA_TIMEOUT, "no qmp_capabilities within %d ms", connection->server->handshake_ms);
	refuse(connection, &err);
}

/* ---- life --------------------------------------------------------------------------------------- */

/* Who is it? Then the greeting, or why there is none. */
static void greet(struct qmp_connection *connection)
{
	struct qmp_server *server = connection->server;
	NOVA_AUTOJSON json_t *greeting = NULL;
	struct ucred peer = { .pid = -1, .uid = (uid_t)-1, .gid = (gid_t)-1 };
	socklen_t length = sizeof(peer);
	struct nova_error err;

	getsockopt(connection->wire.fd, SOL_SOCKET, SO_PEERCRED, &peer, &length);
	server->events.identify(server->arg, peer.uid, peer.gid, peer.pid, &connection->who);
	if (connection->who.role == NOVA_ROLE_NONE) {
		nova_error_set(
		    &err, NOVA_REFUSED, "user %u has no role here; an administrator can give one", peer.uid);
		refuse(connection, &err);
	} else if (server->count > server->max_connections) {
		nova_error_set(&err, NOVA_REFUSED, "%d connections are open already; close some",
		    server->max_connections);
		refuse(connection, &err);
	} else {
		greeting = json_pack("{s:{s:O,s:[]}}", "QMP", "version", server->version, "capabilities");
		send_message(connection, greeting);
	}
}

int qmp_connection_new(struct qmp_server *server, int fd, struct nova_error *err)
{
	const struct qmp_limits limits = { .message_bytes = HANDSHAKE_BYTES };
	struct qmp_connection *connection = calloc(1, sizeof(*connection));

	if (!connection) {
		close(fd);
		return nova_error_sys(err, ENOMEM, "no memory for a connection");
	}
	connection->server = server;
	TAILQ_INIT(&connection->requests);
	TAILQ_INSERT_TAIL(&server->connections, connection, link);
	server->count++;
	connection->limit = event_new(server->base, -1, 0, on_limit, connection);
	if (qmp_wire_open(&connection->wire, server->base, fd, &limits, on_read, on_write, connection, err) <
	        0 ||
	    !connection->limit) {
		qmp_connection_free(connection);
		return nova_error_sys(err, ENOMEM, "no memory for a connection");
	}
	start_limit(connection);
	greet(connection);
	return 0;
}

struct qmp_connection *qmp_connection_free(struct qmp_connection *connection)
{
	drop_requests(connection);
	TAILQ_REMOVE(&connection->server->connections, connection, link);
	connection->server->count--;
	if (connection->limit)
		event_free(connection->limit);
	qmp_wire_close(&connection->wire);
	free(connection);
	return NULL;
}
