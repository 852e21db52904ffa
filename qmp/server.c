/* SPDX-License-Identifier: Apache-2.0
 *
 * server.c - the control socket: accepts, holds the connections, spreads events.
 *
 * At most 1200 connections unless told, 16 new ones a turn of the loop. One too many is told so and closed.
 * Unread events take at most 256 MiB in all (1200 x 256 KiB at worst): the more clients, the sooner one that
 * does not read is closed. Without descriptors left it stops accepting for 100 ms, instead of spinning. Not
 * here: what a connection may do and hold (connection.c), what commands mean (the owner's callbacks).
 */
#include "server.h"
#include "engine/cleanup.h"
#include "engine/clock.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>

#define CONNECTIONS_MAX 1200
#define HANDSHAKE_MS 10000
#define EVENTS_BYTES (256u << 20)        /* unread events of all connections together */
#define EVENTS_SHARE_LEAST (256u * 1024) /* but this much for each */
#define REFUSED_MAX 64                   /* connections beyond the limit that are being told so */
#define ACCEPTS_PER_TURN 16
#define ACCEPT_AGAIN_MS 100
#define SOCKET_MODE 0660

static void on_accept_again(evutil_socket_t fd, short what, void *arg)
{
	event_add(((struct qmp_server *)arg)->acceptable, NULL);
}

static void pause_accepting(struct qmp_server *server)
{
	struct timeval wait = nova_timeval_ms(ACCEPT_AGAIN_MS);

	event_del(server->acceptable);
	event_add(server->accept_again, &wait);
}

static bool out_of_something(int errnum)
{
	return errnum == EMFILE || errnum == ENFILE || errnum == ENOBUFS || errnum == ENOMEM;
}

static void on_acceptable(evutil_socket_t listening, short what, void *arg)
{
	struct qmp_server *server = arg;

	for (int i = 0; i < ACCEPTS_PER_TURN; i++) {
		int fd = accept4(server->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

		if (fd < 0 && out_of_something(errno))
			pause_accepting(server);
		if (fd < 0)
			return;
		if (server->count >= server->max_connections + REFUSED_MAX)
			close(fd);
		else if (qmp_connection_new(server, fd, NULL) < 0)
			pause_accepting(server);
	}
}

static int open_socket(struct qmp_server *server, const char *path, unsigned mode, struct nova_error *err)
{
	struct stat file;

	server->fd = qmp_listen(path, mode ? mode : SOCKET_MODE, err);
	if (server->fd < 0)
		return -1;
	if (lstat(path, &file) < 0)
		return nova_error_sys(err, errno, "socket %s", path);
	server->device = file.st_dev;
	server->inode = file.st_ino;
	server->acceptable = event_new(server->base, server->fd, EV_READ | EV_PERSIST, on_acceptable, server);
	server->accept_again = event_new(server->base, -1, 0, on_accept_again, server);
	if (!server->acceptable || !server->accept_again || event_add(server->acceptable, NULL) < 0)
		return nova_error_sys(err, ENOMEM, "no memory for a control socket");
	return 0;
}

struct qmp_server *qmp_server_new(struct event_base *base, const char *path, unsigned mode,
    json_t *version_stolen, int max_connections, const struct qmp_server_events *events, void *arg,
    struct nova_error *err)
{
	NOVA_AUTOJSON json_t *version = version_stolen;
	struct qmp_server *server = calloc(1, sizeof(*server));

	if (!server) {
		nova_error_sys(err, ENOMEM, "no memory for a control socket");
		return NULL;
	}
	*server = (struct qmp_server) { .base = base,
		.events = *events,
		.arg = arg,
		.max_connections = max_connections ? max_connections : CONNECTIONS_MAX,
		.handshake_ms = HANDSHAKE_MS,
		.events_bytes = EVENTS_BYTES,
		.fd = -1,
		.version = nova_take(&version),
		.path = strdup(path) };
	TAILQ_INIT(&server->connections);
	if (!server->path)
		nova_error_sys(err, ENOMEM, "no memory for a control socket");
	else if (open_socket(server, path, mode, err) == 0)
		return server;
	return qmp_server_free(server);
}

struct qmp_server *qmp_server_free(struct qmp_server *server)
{
	struct stat file;

	if (!server)
		return NULL;
	while (!TAILQ_EMPTY(&server->connections))
		qmp_connection_free(TAILQ_FIRST(&server->connections));
	if (server->acceptable)
		event_free(server->acceptable);
	if (server->accept_again)
		event_free(server->accept_again);
	if (server->fd >= 0) {
		if (lstat(server->path, &file) == 0 && file.st_dev == server->device &&
		    file.st_ino == server->inode)
			unlink(server->path);
		close(server->fd);
	}
	json_decref(server->version);
	free(server->path);
	free(server);
	return NULL;
}

static char *event_text(const char *event, json_t *data)
{
	NOVA_AUTOJSON json_t *message = NULL;
	struct timeval now;
	char *text, *line;

	gettimeofday(&now, NULL);
	message = json_pack("{s:s,s:O*,s:{s:I,s:I}}", "event", event, "data", data, "timestamp", "seconds",
	    (json_int_t)now.tv_sec, "microseconds", (json_int_t)now.tv_usec);
	text = message ? json_dumps(message, JSON_COMPACT) : NULL;
	if (!text || asprintf(&line, "%s\r\n", text) < 0)
		line = NULL;
	free(text);
	return line;
}

void qmp_server_emit(struct qmp_server *server, const char *event, json_t *data)
{
	NOVA_AUTOFREE char *text = event_text(event, data);
	size_t length = text ? strlen(text) : 0;
	size_t share = server->count ? server->events_bytes / (size_t)server->count : 0;
	struct qmp_connection *connection;

	share = share > EVENTS_SHARE_LEAST ? share : EVENTS_SHARE_LEAST;
	TAILQ_FOREACH(connection, &server->connections, link)
	if (text &&
	    (!server->events.may_see || server->events.may_see(server->arg, &connection->who, event, data)))
		qmp_connection_emit(connection, text, length, share);
}
