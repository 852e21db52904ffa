/* SPDX-License-Identifier: Apache-2.0
 *
 * relay_stream.c - local connections of a relay. Whoever connects to the connecting side's unix socket gets a
 * connection to the listening side's unix socket, through a channel of its own. The first one has the page
 * history: QEMU's other connections (multifd, postcopy preempt) are no stream of pages that the parser knows.
 *
 * QEMU's queue of connections may be full for a moment: tried again for up to CONNECT_TRIES x 50 ms. Any other
 * reason is told at once.
 */
#include "relay.h"

#include "cleanup.h"
#include "plugins.h"

#include <errno.h>
#include <event2/event.h>
#include <event2/util.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#define CONNECT_TRIES 100
#define CONNECT_AGAIN_MS 50
#define STREAM_LIMIT_MS 3600000 /* for the answer: the link's own limit comes first */

/* ---- streams come and go ---- */

static struct relay_stream *stream_new(struct nova_relay *relay, uint16_t channel, size_t history_bytes,
    struct nova_error *err)
{
	for (size_t i = 0; i < RELAY_STREAMS; i++) {
		struct relay_stream *stream = &relay->streams[i];

		if (stream->used)
			continue;
		*stream = (struct relay_stream){ .relay = relay, .used = true, .channel = channel, .fd = -1,
			.history_bytes = history_bytes };
		relay->streams_open++;
		return stream;
	}
	nova_error_set(err, NOVA_REFUSED, "more than %d connections at a time", RELAY_STREAMS);
	return NULL;
}

static struct relay_stream *stream_find(struct nova_relay *relay, uint16_t channel)
{
	for (size_t i = 0; i < RELAY_STREAMS; i++)
		if (relay->streams[i].used && relay->streams[i].channel == channel)
			return &relay->streams[i];
	return NULL;
}

static void stream_free(struct relay_stream *stream)
{
	struct nova_relay *relay = stream->relay;

	nova_op_drop(nova_take(&stream->request));
	if (stream->again)
		event_free(nova_take(&stream->again));
	if (stream->pipe)
		nova_relay_count(relay, stream->pipe);
	stream->pipe = nova_pipe_free(stream->pipe);
	if (stream->fd >= 0)
		close(nova_take_fd(&stream->fd));
	stream->used = false;
	relay->streams_open--;
}

/* It could not be joined: whoever connected sees its connection end. */
static void stream_failed(struct relay_stream *stream, const struct nova_error *why)
{
	struct nova_relay *relay = stream->relay;

	stream_free(stream);
	nova_relay_fail(relay, why);
	nova_relay_consider_end(relay);
}

void nova_relay_drop_streams(struct nova_relay *relay)
{
	static const struct nova_error dropped = { NOVA_CANCELLED, 0, "the relay ends" };

	for (size_t i = 0; i < RELAY_STREAMS; i++) {
		struct relay_stream *stream = &relay->streams[i];

		if (!stream->used)
			continue;
		if (stream->asked)
			relay->ops->answer(nova_take(&stream->asked), NULL, &dropped);
		stream_free(stream);
	}
}

/* ---- the pipe ---- */

static void pipe_ended(void *arg, unsigned ended, const struct nova_error *err)
{
	struct relay_stream *stream = arg;
	struct nova_relay *relay = stream->relay;
	struct nova_error why;

	stream->ended |= ended;
	if (!err && stream->ended != (NOVA_PIPE_TO_CHANNEL | NOVA_PIPE_TO_SOCKET))
		return;
	if (err) {
		why = *err;
		nova_error_prefix(&why, "connection %u", stream->channel);
		nova_relay_fail(relay, &why);
	}
	stream_free(stream);
	nova_relay_consider_end(relay);
}

static int open_pipe(struct relay_stream *stream, struct nova_channel *channel, struct nova_error *err)
{
	struct nova_relay *relay = stream->relay;
	struct nova_pipe_options options = { 0 };

	options.out.codec = relay->dials ? relay->codec : NOVA_CODEC_NONE;
	options.out.history_bytes = relay->dials ? stream->history_bytes : 0;
	options.in.history_bytes = relay->dials ? 0 : stream->history_bytes;
	/* With neither codec nor history it is a pipe: what is a page does not matter. */
	if (relay->dials && (relay->codec != NOVA_CODEC_NONE || stream->history_bytes))
		options.scanner = nova_builtin.scanner;
	stream->pipe = nova_pipe_new(relay->base, relay->ops, nova_take_fd(&stream->fd), channel, &options, pipe_ended,
	    stream, err);
	if (!stream->pipe)
		return -1;
	relay->streams_made++;
	nova_relay_say(relay, "RELAY_STREAM", json_pack("{s:i}", "connection", stream->channel));
	return 0;
}

static int fill_address(struct sockaddr_un *address, const char *path, struct nova_error *err)
{
	memset(address, 0, sizeof(*address));
	address->sun_family = AF_UNIX;
	if (snprintf(address->sun_path, sizeof(address->sun_path), "%s", path) < (int)sizeof(address->sun_path))
		return 0;
	return nova_error_set(err, NOVA_INVALID, "the socket's path is longer than %zu bytes: %s",
	    sizeof(address->sun_path) - 1, path);
}

/* ---- the connecting side: local connections become channels ---- */

static void stream_answered(void *arg, json_t *result, const struct nova_error *err)
{
	struct relay_stream *stream = arg;
	struct nova_relay *relay = stream->relay;
	struct nova_channel *channel;
	struct nova_error why;

	stream->request = NULL;
	if (err) {
		why = *err;
		nova_error_prefix(&why, "%s", relay->peer);
		stream_failed(stream, &why);
		return;
	}
	channel = relay->ops->channel(relay->session, stream->channel, NOVA_CHANNEL_STREAM, NULL, NULL, &why);
	if (!channel || open_pipe(stream, channel, &why) < 0)
		stream_failed(stream, &why);
}

static void accept_local(evutil_socket_t listen_fd, short what, void *arg)
{
	struct nova_relay *relay = arg;
	NOVA_AUTOCLOSE int fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	NOVA_AUTOJSON json_t *args = NULL;
	struct relay_stream *stream;
	struct nova_error err;

	if (fd < 0)
		return;
	stream = stream_new(relay, relay->next_channel, relay->next_channel == 1 ? relay->history_bytes : 0, &err);
	if (!stream) {
		nova_relay_warn(relay, err.text);
		return;
	}
	relay->next_channel++;
	stream->fd = nova_take_fd(&fd);
	nova_relay_begun(relay);
	args = json_pack("{s:i, s:I}", "channel", stream->channel, "history_bytes", (json_int_t)stream->history_bytes);
	stream->request =
	    relay->ops->request(relay->session, "stream", args, STREAM_LIMIT_MS, stream_answered, stream, &err);
	if (!stream->request)
		stream_failed(stream, &err);
}

/* A socket file that nobody listens on is left over from somebody who was killed. */
static int clear_path(const struct sockaddr_un *address, struct nova_error *err)
{
	NOVA_AUTOCLOSE int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct stat found;

	if (lstat(address->sun_path, &found) < 0)
		return 0;
	if (!S_ISSOCK(found.st_mode))
		return nova_error_set(err, NOVA_INVALID, "%s is there and is no socket", address->sun_path);
	if (fd >= 0 && connect(fd, (const struct sockaddr *)address, sizeof(*address)) < 0 && errno == ECONNREFUSED)
		return unlink(address->sun_path) < 0 ? nova_error_sys(err, errno, "%s", address->sun_path) : 0;
	return nova_error_set(err, NOVA_STATE, "somebody listens on %s already", address->sun_path);
}

int nova_relay_listen_local(struct nova_relay *relay, struct nova_error *err)
{
	struct sockaddr_un address;

	if (fill_address(&address, relay->unix_path, err) < 0 || clear_path(&address, err) < 0)
		return -1;
	relay->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (relay->listen_fd < 0)
		return nova_error_sys(err, errno, "socket");
	if (bind(relay->listen_fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
		nova_error_sys(err, errno, "listening on %s", relay->unix_path);
		close(nova_take_fd(&relay->listen_fd)); /* and no unlink: it is not ours */
		return -1;
	}
	if (chmod(relay->unix_path, 0600) < 0 || listen(relay->listen_fd, RELAY_STREAMS) < 0)
		return nova_error_sys(err, errno, "listening on %s", relay->unix_path);
	relay->listening = event_new(relay->base, relay->listen_fd, EV_READ | EV_PERSIST, accept_local, relay);
	if (!relay->listening || event_add(relay->listening, NULL) < 0)
		return nova_error_sys(err, ENOMEM, "listening on %s", relay->unix_path);
	nova_relay_say(relay, "RELAY_READY", json_pack("{s:s}", "unix", relay->unix_path));
	return 0;
}

void nova_relay_stop_listening(struct nova_relay *relay)
{
	if (relay->listening)
		event_free(nova_take(&relay->listening));
	if (relay->listen_fd < 0)
		return;
	close(nova_take_fd(&relay->listen_fd));
	unlink(relay->unix_path);
}

/* ---- the listening side: channels become local connections ---- */

static int connect_local(struct relay_stream *stream, struct nova_error *err)
{
	const char *path = stream->relay->unix_path;
	NOVA_AUTOCLOSE int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct sockaddr_un address;

	if (fill_address(&address, path, err) < 0)
		return -1;
	if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
		return nova_error_sys(err, errno, "connecting to %s", path);
	stream->fd = nova_take_fd(&fd);
	return 0;
}

static void try_connect(struct relay_stream *stream)
{
	const struct timeval later = nova_timeval_ms(CONNECT_AGAIN_MS);
	struct nova_relay *relay = stream->relay;
	struct nova_error err;

	if (connect_local(stream, &err) == 0) {
		nova_relay_begun(relay);
		relay->ops->answer(nova_take(&stream->asked), NULL, NULL);
	} else if (err.errnum == EAGAIN && ++stream->tries < CONNECT_TRIES) {
		event_add(stream->again, &later);
	} else {
		relay->ops->answer(nova_take(&stream->asked), NULL, &err);
		stream_failed(stream, &err);
	}
}

static void on_again(evutil_socket_t fd, short what, void *arg)
{
	try_connect(arg);
}

static struct relay_stream *stream_wanted(struct nova_relay *relay, json_t *args, struct nova_error *err)
{
	json_int_t channel = json_integer_value(json_object_get(args, "channel"));
	json_int_t history = json_integer_value(json_object_get(args, "history_bytes"));
	struct relay_stream *stream;

	if (relay->dials || channel < 1 || channel > UINT16_MAX || history < 0 || history > RELAY_HISTORY_MAX) {
		nova_error_set(err, NOVA_INVALID, "stream: channel is 1 to 65535, history_bytes 0 to %u", RELAY_HISTORY_MAX);
		return NULL;
	}
	if (relay->ending || stream_find(relay, (uint16_t)channel)) {
		nova_error_set(err, NOVA_STATE, "stream %d: there is one already, or the relay ends", (int)channel);
		return NULL;
	}
	stream = stream_new(relay, (uint16_t)channel, (size_t)history, err);
	if (!stream)
		return NULL;
	stream->again = evtimer_new(relay->base, on_again, stream);
	if (stream->again)
		return stream;
	stream_free(stream);
	nova_error_sys(err, ENOMEM, "stream");
	return NULL;
}

void nova_relay_stream_asked(struct nova_relay *relay, json_t *args, struct nova_request *request)
{
	struct nova_error err;
	struct relay_stream *stream = stream_wanted(relay, args, &err);

	if (!stream) {
		relay->ops->answer(request, NULL, &err);
		return;
	}
	stream->asked = request;
	try_connect(stream);
}

void nova_relay_channel_opened(struct nova_relay *relay, uint16_t id, struct nova_channel *channel)
{
	struct relay_stream *stream = stream_find(relay, id);
	struct nova_error err;

	if (relay->dials || !stream || stream->fd < 0)
		channel->ops->free(channel);
	else if (open_pipe(stream, channel, &err) < 0)
		stream_failed(stream, &err);
}
