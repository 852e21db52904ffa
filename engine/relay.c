/* SPDX-License-Identifier: Apache-2.0
 *
 * relay.c - the data path alone, for a QEMU that belongs to somebody else: local unix sockets on two hosts,
 * joined over one session. No QMP, no ownership, no commit: what a broken migration means is for the QEMUs'
 * owner to decide. A relay serves one migration and ends with it. See relay.h for the conversation.
 */
#include "relay.h"

#include "cleanup.h"
#include "plugins.h"

#include <errno.h>
#include <event2/event.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define REDIAL_MS 500   /* between tries to reach the other relay for the first time */
#define AGREE_MS 10000  /* for the answer to "relay" */
#define OVER_MS 10000   /* for the answer to "over", beyond the resume limit */

static const struct nova_session_events session_events;

/* ---- the end ---- */

static void finish(struct nova_relay *relay)
{
	nova_done_fn done = relay->done;
	NOVA_AUTOJSON json_t *result = NULL;

	if (!done)
		return;
	relay->done = NULL;
	relay->ending = true;
	result = nova_relay_result(relay);
	done(relay->arg, result, relay->failed ? &relay->failure : NULL);
}

void nova_relay_fail(struct nova_relay *relay, const struct nova_error *err)
{
	if (relay->failed)
		return;
	relay->failed = true;
	relay->failure = *err;
}

static void fail_now(struct nova_relay *relay, const struct nova_error *err)
{
	nova_relay_fail(relay, err);
	finish(relay);
}

static void add_failure(const struct nova_relay *relay, json_t *args)
{
	if (relay->failed && !relay->told)
		json_object_set_new(args, "error", json_string(relay->failure.text));
}

/* The other side says why it ends. */
static void take_failure(struct nova_relay *relay, const json_t *args)
{
	const char *text = json_string_value(json_object_get(args, "error"));
	struct nova_error why;

	if (!text)
		return;
	if (relay->failed)
		nova_error_set(&why, relay->failure.category, "%s; the relay at %s: %s", relay->failure.text, relay->peer, text);
	else
		nova_error_set(&why, NOVA_LINK, "the relay at %s: %s", relay->peer, text);
	relay->told = relay->failed = true;
	relay->failure = why;
}

static void over_answered(void *arg, json_t *result, const struct nova_error *err)
{
	struct nova_relay *relay = arg;

	relay->request = NULL;
	take_failure(relay, result);
	finish(relay);
}

/* Say that it is over, and end when the other side has heard it. */
static void say_over(struct nova_relay *relay)
{
	NOVA_AUTOJSON json_t *args = json_object();
	struct nova_error ignored;

	relay->ending = true;
	nova_relay_stop_listening(relay);
	nova_op_drop(nova_take(&relay->request));
	add_failure(relay, args);
	if (relay->session)
		relay->request = relay->ops->request(relay->session, "over", args,
		    relay->link.resume_limit_ms + OVER_MS, over_answered, relay, &ignored);
	if (!relay->request)
		finish(relay);
}

static void answer_over(struct nova_relay *relay)
{
	const struct timeval linger = nova_timeval_ms(RELAY_LINGER_MS);
	json_t *result = json_object();

	add_failure(relay, result);
	relay->ops->answer(nova_take(&relay->over), result, NULL);
	event_add(relay->waiting, &linger);
}

void nova_relay_consider_end(struct nova_relay *relay)
{
	if (relay->streams_open || !relay->done)
		return;
	if (relay->over)
		answer_over(relay);
	else if (relay->dials && !relay->ending)
		say_over(relay);
}

void nova_relay_stop(struct nova_relay *relay)
{
	struct nova_error why;

	nova_error_set(&why, NOVA_CANCELLED, "interrupted");
	nova_relay_fail(relay, &why);
	nova_relay_drop_streams(relay);
	if (relay->agreed && !relay->over)
		say_over(relay);
	else
		finish(relay);
}

/* ---- waiting for somebody to come ---- */

void nova_relay_begun(struct nova_relay *relay)
{
	if (relay->waiting)
		event_del(relay->waiting);
}

static void on_waiting(evutil_socket_t fd, short what, void *arg)
{
	struct nova_relay *relay = arg;
	int limit_s = relay->wait_ms / 1000;
	struct nova_error why;

	if (relay->ending) { /* it said "over", heard our answer or not: nothing is left to do */
		finish(relay);
		return;
	}
	if (relay->agreed && relay->dials)
		nova_error_set(&why, NOVA_TIMEOUT, "nobody connected to %s within %d s", relay->unix_path, limit_s);
	else if (relay->agreed)
		nova_error_set(&why, NOVA_TIMEOUT, "%s is connected, but brought no stream within %d s", relay->peer, limit_s);
	else if (relay->dials)
		nova_error_set(&why, NOVA_TIMEOUT, "no relay of %s within %d s%s%s", relay->peer, limit_s,
		    relay->failed ? ": " : "", relay->failed ? relay->failure.text : "");
	else
		nova_error_set(&why, NOVA_TIMEOUT, "no relay with the certificate name %s came within %d s", relay->peer, limit_s);
	relay->failed = false;
	nova_relay_fail(relay, &why);
	if (relay->agreed)
		say_over(relay);
	else
		finish(relay);
}

static int dial(struct nova_relay *relay, struct nova_error *err)
{
	relay->session = relay->ops->dial(relay->links, relay->peer, &relay->link, &session_events, relay, err);
	return relay->session ? 0 : -1;
}

static void on_redial(evutil_socket_t fd, short what, void *arg)
{
	struct nova_relay *relay = arg;
	struct nova_error err;

	if (dial(relay, &err) < 0)
		fail_now(relay, &err);
}

/* Not there yet: try again until the waiting ends. Who is refused need not try again. */
static void redial(struct nova_relay *relay, const struct nova_error *why)
{
	const struct timeval later = nova_timeval_ms(REDIAL_MS);
	bool first = !relay->failed;

	nova_relay_fail(relay, why);
	if (why->category != NOVA_LINK) {
		finish(relay);
		return;
	}
	if (first)
		nova_relay_say(relay, "RELAY_WARNING",
		    json_pack("{s:o}", "text", json_sprintf("%s; it is tried again", why->text)));
	event_add(relay->redial, &later);
}

/* ---- what the session says ---- */

static void agreed(void *arg, json_t *result, const struct nova_error *err)
{
	struct nova_relay *relay = arg;
	struct nova_error why;

	relay->request = NULL;
	if (err) {
		why = *err;
		nova_error_prefix(&why, "%s", relay->peer);
		fail_now(relay, &why);
		return;
	}
	relay->failed = false; /* tries that did not reach it are forgotten */
	relay->agreed = true;
	nova_relay_say(relay, "RELAY_CONNECTED", json_pack("{s:s}", "peer", relay->peer));
	if (nova_relay_listen_local(relay, &why) < 0) {
		nova_relay_fail(relay, &why);
		say_over(relay);
	}
}

static void session_up(void *arg, const char *peer)
{
	struct nova_relay *relay = arg;
	struct nova_error err;

	if (!relay->dials)
		return;
	relay->request = relay->ops->request(relay->session, "relay", NULL, AGREE_MS, agreed, relay, &err);
	if (!relay->request)
		fail_now(relay, &err);
}

static void session_request(void *arg, const char *command, json_t *args, struct nova_request *request)
{
	struct nova_relay *relay = arg;
	struct nova_error err;

	if (!strcmp(command, "stream")) {
		nova_relay_stream_asked(relay, args, request);
	} else if (!strcmp(command, "over")) {
		take_failure(relay, args);
		relay->over = request;
		relay->ending = true;
		if (json_object_get(args, "error"))
			nova_relay_drop_streams(relay);
		nova_relay_consider_end(relay);
	} else if (!strcmp(command, "relay") && !relay->dials) {
		relay->agreed = true;
		relay->ops->answer(request, NULL, NULL);
		nova_relay_say(relay, "RELAY_CONNECTED", json_pack("{s:s}", "peer", relay->peer));
	} else {
		nova_error_set(&err, NOVA_INVALID, "this is a relay: it does not know the request '%.40s'", command);
		relay->ops->answer(request, NULL, &err);
	}
}

static void session_channel(void *arg, uint16_t id, enum nova_channel_kind kind, struct nova_channel *channel)
{
	nova_relay_channel_opened(arg, id, channel);
}

static void session_state(void *arg, const char *state, json_t *data)
{
	struct nova_relay *relay = arg;
	bool lost = !strcmp(state, "reconnecting");

	relay->reconnect_waited_ms = lost ? (int)json_integer_value(json_object_get(data, "waited_ms")) : 0;
	relay->reconnect_limit_ms = lost ? (int)json_integer_value(json_object_get(data, "limit_ms")) : 0;
	data = json_copy(data);
	json_object_set_new(data, "state", json_string(state));
	nova_relay_say(relay, "RELAY_LINK", data);
}

/* The answer goes nowhere, but it is owed. */
static void forget_over(struct nova_relay *relay)
{
	if (relay->over)
		relay->ops->answer(nova_take(&relay->over), NULL, NULL);
}

static void session_closed(void *arg, const struct nova_error *err)
{
	struct nova_relay *relay = arg;
	struct nova_error why = *err;

	nova_relay_look(relay);
	relay->session = relay->ops->free(relay->session);
	nova_op_drop(nova_take(&relay->request));
	forget_over(relay);
	if (relay->ending) {
		finish(relay);
		return;
	}
	if (relay->dials && !relay->agreed) {
		redial(relay, &why);
		return;
	}
	if (!relay->agreed) /* somebody who did not get to say that it is a relay: the next may come */
		return;
	if (relay->streams_made == 0 || relay->streams_open) {
		nova_error_prefix(&why, "link with %s", relay->peer);
		nova_relay_fail(relay, &why);
	}
	nova_relay_drop_streams(relay);
	finish(relay);
}

static const struct nova_session_events session_events = { session_up, session_request, session_channel, session_state,
	session_closed };

/* One session at a time: another one is refused, having no events. */
static void accepted(void *arg, struct nova_session *session, const char *peer)
{
	struct nova_relay *relay = arg;

	if (relay->dials || relay->session || relay->ending)
		return;
	relay->session = session;
	relay->ops->set_events(session, &session_events, relay);
}

static void links_log(void *arg, enum nova_log_level level, const char *line)
{
	if (level <= NOVA_LOG_WARNING)
		nova_relay_warn(arg, line);
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
	/* A peer has an address; a side that listens never dials it. */
	if (!relay->config ||
	    asprintf(&peer, "%s=%s", config->peer, config->listen_tls ? "127.0.0.1:1" : config->address) < 0)
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

static int take_options(struct nova_relay *relay, const struct nova_relay_config *config, struct nova_error *err)
{
	if (config->history_bytes > RELAY_HISTORY_MAX)
		return nova_error_set(err, NOVA_INVALID, "history: at most %u bytes", RELAY_HISTORY_MAX);
	relay->dials = !config->listen_tls;
	relay->link.resume_limit_ms = config->resume_limit_ms;
	relay->link.rate_bps = config->rate_bps;
	relay->link.lanes = config->lanes;
	relay->history_bytes = config->history_bytes;
	relay->wait_ms = config->wait_ms;
	return parse_codec(relay, config->codec, err);
}

static int make_timers(struct nova_relay *relay, struct nova_error *err)
{
	struct timeval wait = nova_timeval_ms(relay->wait_ms);

	relay->waiting = evtimer_new(relay->base, on_waiting, relay);
	relay->redial = evtimer_new(relay->base, on_redial, relay);
	if (!relay->waiting || !relay->redial || (relay->wait_ms && event_add(relay->waiting, &wait) < 0))
		return nova_error_sys(err, ENOMEM, "relay");
	return nova_relay_watch(relay, err);
}

static int relay_open(struct nova_relay *relay, const struct nova_relay_config *config, struct nova_error *err)
{
	if (take_options(relay, config, err) < 0 || configure(relay, config, err) < 0 || make_timers(relay, err) < 0)
		return -1;
	relay->unix_path = strdup(config->unix_path);
	relay->peer = strdup(config->peer);
	if (!relay->unix_path || !relay->peer)
		return nova_error_sys(err, ENOMEM, "relay");
	relay->links = relay->ops->open(relay->base, relay->config, accepted, links_log, relay, err);
	if (!relay->links)
		return -1;
	return relay->dials ? dial(relay, err) : 0;
}

int nova_relay_port(const struct nova_relay *relay)
{
	return relay->ops->port(relay->links);
}

struct nova_relay *nova_relay_new(struct event_base *base, const struct nova_relay_config *config, nova_event_fn event,
    nova_done_fn done, void *arg, struct nova_error *err)
{
	struct nova_relay *relay;
	struct nova_relay_config options = { .resume_limit_ms = NOVA_RELAY_RESUME_MS, .wait_ms = NOVA_RELAY_WAIT_MS,
		.history_bytes = NOVA_RELAY_HISTORY_BYTES };

	if (config->struct_size < offsetof(struct nova_relay_config, rate_bps) || config->struct_size > sizeof(options)) {
		nova_error_set(err, NOVA_INVALID, "a relay's configuration of %zu bytes: this library knows one of %zu",
		    config->struct_size, sizeof(options));
		return NULL;
	}
	memcpy(&options, config, config->struct_size);
	relay = calloc(1, sizeof(*relay));
	if (!relay) {
		nova_error_sys(err, ENOMEM, "relay");
		return NULL;
	}
	relay->base = base;
	relay->ops = nova_builtin.links;
	relay->listen_fd = -1;
	relay->next_channel = 1;
	relay->event = event;
	relay->done = done;
	relay->arg = arg;
	relay->begin_ms = nova_now_ms();
	return relay_open(relay, &options, err) < 0 ? nova_relay_free(relay) : relay;
}

struct nova_relay *nova_relay_free(struct nova_relay *relay)
{
	struct event *timers[] = { relay ? relay->waiting : NULL, relay ? relay->redial : NULL, relay ? relay->tick : NULL };

	if (!relay)
		return NULL;
	relay->done = NULL;
	nova_op_drop(relay->request);
	nova_relay_drop_streams(relay);
	nova_relay_stop_listening(relay);
	forget_over(relay);
	if (relay->session)
		relay->ops->free(relay->session);
	if (relay->links)
		relay->ops->close(relay->links);
	for (size_t i = 0; i < sizeof(timers) / sizeof(*timers); i++)
		if (timers[i])
			event_free(timers[i]);
	nova_config_free(relay->config);
	free(relay->unix_path);
	free(relay->peer);
	free(relay);
	return NULL;
}
