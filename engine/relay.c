/* SPDX-License-Identifier: Apache-2.0
 *
 * relay.c - the data path alone, for a QEMU that belongs to somebody else: every connection to a local
 * unix socket becomes a channel of one session, and a connection to a unix socket on the other host. No
 * QMP, no ownership, no commit: both QEMUs' owner decides what a broken migration means.
 *
 * The dialling side asks "relay {history_bytes}" first, so that both page histories agree. At most
 * RELAY_PIPES connections at a time (multifd uses several).
 */
#include "cleanup.h"
#include "codec.h"
#include "flow.h"
#include "op.h"
#include "pipe.h"
#include "plugins.h"

#include <errno.h>
#include <event2/event.h>
#include <event2/util.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>

#define RELAY_PIPES 64
#define RELAY_HISTORY_BYTES (256u << 20)

struct relay_pipe {
	struct nova_relay *relay;
	struct nova_pipe *pipe; /* owned */
	unsigned ended;
};

struct nova_relay {
	struct event_base *base; /* borrowed */
	struct nova_config *config; /* owned */
	const struct nova_link_ops *ops;
	struct nova_links *links;     /* owned */
	struct nova_session *session; /* owned */
	struct nova_op *request;      /* owned */
	struct event *listening;      /* owned: local connections */
	int listen_fd;                /* owned */
	char *unix_path, *peer;       /* owned */
	bool dials, agreed;
	size_t history_bytes;
	enum nova_codec codec;
	uint64_t rate_bps;
	uint16_t next_channel;
	struct relay_pipe pipes[RELAY_PIPES];
	size_t pipes_made, pipes_open;
	struct nova_codec_stats total; /* of pipes that have ended */
	struct timespec begin;
	nova_event_fn event;
	nova_done_fn done;
	void *arg;
};

static void say(struct nova_relay *relay, const char *event, const char *text)
{
	json_t *data = json_pack("{s:s}", "text", text);

	if (relay->event)
		relay->event(relay->arg, event, data);
	json_decref(data);
}

static void links_log(void *arg, enum nova_log_level level, const char *line)
{
	if (level <= NOVA_LOG_WARNING)
		say(arg, "WARNING", line);
}

/* ---- the end ---- */

static json_t *result_of(struct nova_relay *relay)
{
	struct nova_link_stats link = { 0 };
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	if (relay->session)
		relay->ops->stats(relay->session, &link);
	return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I}", "bytes_raw", (json_int_t)relay->total.raw_bytes, "bytes_encoded",
	    (json_int_t)relay->total.encoded_bytes, "bytes_wire",
	    (json_int_t)(link.wire_sent_bytes + link.wire_received_bytes), "connections",
	    (json_int_t)relay->pipes_made, "reconnects", (json_int_t)link.reconnects, "ms",
	    (json_int_t)((now.tv_sec - relay->begin.tv_sec) * 1000 + (now.tv_nsec - relay->begin.tv_nsec) / 1000000));
}

static void finish(struct nova_relay *relay, const struct nova_error *err)
{
	nova_done_fn done = relay->done;
	json_t *result;

	if (!done)
		return;
	relay->done = NULL;
	result = result_of(relay);
	done(relay->arg, err ? NULL : result, err);
	json_decref(result);
}

static void count(struct nova_relay *relay, struct nova_pipe *pipe)
{
	struct nova_pipe_stats stats;

	nova_pipe_stats(pipe, &stats);
	relay->total.raw_bytes += stats.out.raw_bytes + stats.in.raw_bytes;
	relay->total.encoded_bytes += stats.out.encoded_bytes + stats.in.encoded_bytes;
}

static void pipe_ended(void *arg, unsigned ended, const struct nova_error *err)
{
	struct relay_pipe *slot = arg;
	struct nova_relay *relay = slot->relay;

	slot->ended |= ended;
	if (!err && slot->ended != 3)
		return;
	count(relay, slot->pipe);
	slot->pipe = nova_pipe_free(slot->pipe);
	relay->pipes_open--;
	if (err)
		say(relay, "WARNING", err->text);
	if (relay->pipes_open == 0)
		finish(relay, err);
}

/* ---- pipes ---- */

static int add_pipe(struct nova_relay *relay, int fd, struct nova_channel *channel, struct nova_error *err)
{
	struct nova_pipe_options options = { 0 };
	struct relay_pipe *slot = NULL;

	for (size_t i = 0; i < RELAY_PIPES && !slot; i++)
		if (!relay->pipes[i].pipe)
			slot = &relay->pipes[i];
	if (!slot) {
		close(fd);
		channel->ops->free(channel);
		return nova_error_set(err, NOVA_REFUSED, "more than %d connections at a time", RELAY_PIPES);
	}
	*slot = (struct relay_pipe){ .relay = relay };
	options.out.codec = relay->dials ? relay->codec : NOVA_CODEC_NONE;
	options.out.history_bytes = relay->dials ? relay->history_bytes : 0;
	options.in.history_bytes = relay->dials ? 0 : relay->history_bytes;
	options.scanner = relay->dials ? nova_builtin.scanner : NULL;
	slot->pipe = nova_pipe_new(relay->base, relay->ops, fd, channel, &options, pipe_ended, slot, err);
	if (!slot->pipe)
		return -1;
	relay->pipes_made++;
	relay->pipes_open++;
	return 0;
}

static int fill_address(struct sockaddr_un *address, const char *path, struct nova_error *err)
{
	memset(address, 0, sizeof(*address));
	address->sun_family = AF_UNIX;
	if (snprintf(address->sun_path, sizeof(address->sun_path), "%s", path) < (int)sizeof(address->sun_path))
		return 0;
	return nova_error_set(err, NOVA_INVALID, "socket path longer than %zu bytes: %s", sizeof(address->sun_path) - 1, path);
}

/* ---- the dialling side: local connections become channels ---- */

static void accept_local(evutil_socket_t listen_fd, short what, void *arg)
{
	struct nova_relay *relay = arg;
	struct nova_error err;
	struct nova_channel *channel;
	int fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd < 0)
		return;
	channel = relay->ops->channel(relay->session, relay->next_channel++, NOVA_CHANNEL_STREAM, NULL, NULL, &err);
	if (!channel) {
		close(fd);
		finish(relay, &err);
	} else if (add_pipe(relay, fd, channel, &err) < 0)
		finish(relay, &err);
}

static int listen_local(struct nova_relay *relay, struct nova_error *err)
{
	struct sockaddr_un address;

	if (fill_address(&address, relay->unix_path, err) < 0)
		return -1;
	relay->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (relay->listen_fd < 0 || bind(relay->listen_fd, (struct sockaddr *)&address, sizeof(address)) < 0 ||
	    chmod(relay->unix_path, 0600) < 0 || listen(relay->listen_fd, RELAY_PIPES) < 0)
		return nova_error_sys(err, errno, "listening on %s", relay->unix_path);
	relay->listening = event_new(relay->base, relay->listen_fd, EV_READ | EV_PERSIST, accept_local, relay);
	if (!relay->listening || event_add(relay->listening, NULL) < 0)
		return nova_error_sys(err, ENOMEM, "listening on %s", relay->unix_path);
	say(relay, "READY", relay->unix_path);
	return 0;
}

static void agreed(void *arg, json_t *result, const struct nova_error *err)
{
	struct nova_relay *relay = arg;
	struct nova_error why;

	relay->request = NULL;
	if (err) {
		finish(relay, err);
		return;
	}
	relay->agreed = true;
	if (listen_local(relay, &why) < 0)
		finish(relay, &why);
}

static void session_up(void *arg, const char *peer)
{
	struct nova_relay *relay = arg;
	NOVA_AUTOJSON json_t *args = json_pack("{s:I}", "history_bytes", (json_int_t)relay->history_bytes);
	struct nova_error err;

	if (!relay->dials)
		return;
	relay->request = relay->ops->request(relay->session, "relay", args, 10000, agreed, relay, &err);
	if (!relay->request)
		finish(relay, &err);
}

/* ---- the listening side: channels become local connections ---- */

static void session_request(void *arg, const char *command, json_t *args, struct nova_request *request)
{
	struct nova_relay *relay = arg;
	json_int_t history = json_integer_value(json_object_get(args, "history_bytes"));
	struct nova_error err;

	if (strcmp(command, "relay") || relay->dials || history < 0 || history > RELAY_HISTORY_BYTES) {
		nova_error_set(&err, NOVA_INVALID, "this is a relay: it knows relay {history_bytes: 0 to %u}", RELAY_HISTORY_BYTES);
		relay->ops->answer(request, NULL, &err);
		return;
	}
	relay->history_bytes = (size_t)history;
	relay->agreed = true;
	relay->ops->answer(request, NULL, NULL);
}

static int connect_local(struct nova_relay *relay, struct nova_error *err)
{
	NOVA_AUTOCLOSE int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct sockaddr_un address;

	if (fill_address(&address, relay->unix_path, err) < 0)
		return -1;
	if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
		return nova_error_sys(err, errno, "connecting to %s", relay->unix_path);
	return nova_take_fd(&fd);
}

static void session_channel(void *arg, uint16_t id, enum nova_channel_kind kind, struct nova_channel *channel)
{
	struct nova_relay *relay = arg;
	struct nova_error err;
	int fd;

	if (relay->dials || !relay->agreed) {
		channel->ops->free(channel);
		return;
	}
	fd = connect_local(relay, &err);
	if (fd < 0) {
		channel->ops->free(channel);
		finish(relay, &err);
	} else if (add_pipe(relay, fd, channel, &err) < 0)
		finish(relay, &err);
}

static void session_state(void *arg, const char *state, json_t *data)
{
	struct nova_relay *relay = arg;

	if (relay->event)
		relay->event(relay->arg, "LINK", data);
	say(relay, "STATE", state);
}

static void session_closed(void *arg, const struct nova_error *err)
{
	struct nova_relay *relay = arg;
	struct nova_error why = *err;

	relay->session = relay->ops->free(relay->session);
	finish(relay, &why);
}

static const struct nova_session_events session_events = { session_up, session_request, session_channel, session_state,
	session_closed };

static void accepted(void *arg, struct nova_session *session, const char *peer)
{
	struct nova_relay *relay = arg;

	if (relay->dials || relay->session)
		return; /* one session at a time: without events it is refused */
	relay->session = session;
	relay->ops->set_events(session, &session_events, relay);
	say(relay, "CONNECTED", peer);
}

/* ---- open and close ---- */

static int configure(struct nova_relay *relay, const struct nova_relay_config *config, struct nova_error *err)
{
	NOVA_AUTOFREE char *peer = NULL;
	const struct {
		const char *name, *value;
	} options[] = { { "name", "relay" }, { "cert", config->cert }, { "key", config->key }, { "ca", config->ca } };

	if (!config->address || !config->peer || !config->cert || !config->key || !config->ca || !config->unix_path)
		return nova_error_set(err, NOVA_INVALID, "a relay needs address, peer, cert, key, ca and a unix socket");
	relay->config = nova_config_new();
	if (!relay->config || asprintf(&peer, "%s=%s", config->peer, config->listen_tls ? "" : config->address) < 0)
		return nova_error_sys(err, ENOMEM, "relay");
	for (size_t i = 0; i < sizeof(options) / sizeof(*options); i++)
		if (nova_config_set(relay->config, options[i].name, options[i].value, err) < 0)
			return -1;
	if (nova_config_set(relay->config, "peer", peer, err) < 0)
		return -1;
	return config->listen_tls ? nova_config_set(relay->config, "listen", config->address, err) : 0;
}

static int parse_codec(struct nova_relay *relay, const char *name, struct nova_error *err)
{
	for (enum nova_codec codec = 0; codec < NOVA_CODECS; codec++)
		if (!strcmp(name ? name : "auto", nova_codec_name(codec))) {
			relay->codec = codec;
			return 0;
		}
	return nova_error_set(err, NOVA_INVALID, "codec: '%.40s' is not one of auto, none, lz4, zstd", name);
}

static int relay_open(struct nova_relay *relay, const struct nova_relay_config *config, struct nova_error *err)
{
	struct nova_session_options options = { .resume_limit_ms = 300000, .rate_bps = config->rate_bps };

	if (parse_codec(relay, config->codec, err) < 0 || configure(relay, config, err) < 0)
		return -1;
	relay->unix_path = strdup(config->unix_path);
	relay->peer = strdup(config->peer);
	if (!relay->unix_path || !relay->peer)
		return nova_error_sys(err, ENOMEM, "relay");
	relay->links = relay->ops->open(relay->base, relay->config, accepted, links_log, relay, err);
	if (!relay->links)
		return -1;
	if (config->listen_tls)
		return 0;
	relay->session = relay->ops->dial(relay->links, relay->peer, &options, &session_events, relay, err);
	return relay->session ? 0 : -1;
}

int nova_relay_port(const struct nova_relay *relay)
{
	return relay->ops->port(relay->links);
}

struct nova_relay *nova_relay_new(struct event_base *base, const struct nova_relay_config *config, nova_event_fn event,
    nova_done_fn done, void *arg, struct nova_error *err)
{
	struct nova_relay *relay = calloc(1, sizeof(*relay));

	if (!relay) {
		nova_error_sys(err, ENOMEM, "relay");
		return NULL;
	}
	relay->base = base;
	relay->ops = nova_builtin.links;
	relay->listen_fd = -1;
	relay->dials = !config->listen_tls;
	relay->history_bytes = RELAY_HISTORY_BYTES;
	relay->next_channel = 1;
	relay->event = event;
	relay->done = done;
	relay->arg = arg;
	clock_gettime(CLOCK_MONOTONIC, &relay->begin);
	if (relay_open(relay, config, err) == 0)
		return relay;
	return nova_relay_free(relay);
}

struct nova_relay *nova_relay_free(struct nova_relay *relay)
{
	if (!relay)
		return NULL;
	relay->done = NULL;
	nova_op_drop(relay->request);
	for (size_t i = 0; i < RELAY_PIPES; i++)
		nova_pipe_free(relay->pipes[i].pipe);
	if (relay->listening)
		event_free(relay->listening);
	if (relay->listen_fd >= 0) {
		close(relay->listen_fd);
		unlink(relay->unix_path);
	}
	if (relay->session)
		relay->ops->free(relay->session);
	if (relay->links)
		relay->ops->close(relay->links);
	nova_config_free(relay->config);
	free(relay->unix_path);
	free(relay->peer);
	free(relay);
	return NULL;
}
