/* SPDX-License-Identifier: Apache-2.0
 *
 * client.c - the public client of a daemon, and its kind for daemons of other hosts: the other end of remote.c.
 *
 * Commands asked before the session is up wait for it. A lost connection is redialled for 30 s; a first one that
 * fails is an error at once. Commands have no time limit here: whoever cannot wait drops the call.
 */
#include "client.h"
#include "cleanup.h"
#include "plugins.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define REDIAL_MS 30000

struct nova_client *nova_client_free(struct nova_client *client)
{
	if (client)
		client->ops->free(client);
	return NULL;
}

struct nova_op *nova_client_execute(struct nova_client *client, const char *command, json_t *args, nova_done_fn done,
    void *arg, struct nova_error *err)
{
	return client->ops->execute(client, command, args, done, arg, err);
}

/* ---- over the links ---- */

struct remote_client {
	struct nova_client client;      /* first */
	const struct nova_link_ops *ops; /* static */
	struct nova_config *config;     /* owned */
	struct nova_links *links;       /* owned */
	struct nova_session *session;   /* owned */
	struct nova_op *subscription;   /* owned */
	nova_event_fn event;
	void (*gone)(void *arg, const struct nova_error *err);
	void *arg;
};

static void remote_free(struct nova_client *base)
{
	struct remote_client *client = (struct remote_client *)base;

	nova_op_drop(client->subscription);
	client->ops->free(client->session);
	if (client->links)
		client->ops->close(client->links);
	nova_config_free(client->config);
	free(client);
}

static struct nova_op *remote_execute(struct nova_client *base, const char *command, json_t *args, nova_done_fn done,
    void *arg, struct nova_error *err)
{
	struct remote_client *client = (struct remote_client *)base;
	NOVA_AUTOJSON json_t *message = json_pack("{s:s, s:O*}", "command", command, "arguments", args);

	if (!client->session) {
		nova_error_set(err, NOVA_LINK, "the session is over");
		return NULL;
	}
	return client->ops->request(client->session, "execute", message, 0, done, arg, err);
}

static const struct nova_client_ops remote_ops = { remote_execute, remote_free };

static void session_up(void *arg, const char *peer)
{
}

static void session_request(void *arg, const char *command, json_t *args, struct nova_request *request)
{
	struct remote_client *client = arg;
	const char *event = json_string_value(json_object_get(args, "event"));
	struct nova_error err;

	if (strcmp(command, "event") || !event) {
		nova_error_set(&err, NOVA_INVALID, "a client does not know the request '%.40s'", command);
		client->ops->answer(request, NULL, &err);
		return;
	}
	client->ops->answer(request, NULL, NULL);
	if (client->event)
		client->event(client->arg, event, json_object_get(args, "data"));
}

static void session_channel(void *arg, uint16_t id, enum nova_channel_kind kind, struct nova_channel *channel)
{
	channel->ops->free(channel);
}

static void session_state(void *arg, const char *state, json_t *data)
{
}

static void session_closed(void *arg, const struct nova_error *err)
{
	struct remote_client *client = arg;

	client->session = client->ops->free(client->session);
	if (client->gone)
		client->gone(client->arg, err);
}

static const struct nova_session_events session_events = { session_up, session_request, session_channel, session_state,
	session_closed };

/* A refusal comes again as the answer to every command. */
static void subscribed(void *arg, json_t *result, const struct nova_error *err)
{
	((struct remote_client *)arg)->subscription = NULL;
}

static int remote_open(struct remote_client *client, struct event_base *base, const struct nova_config *config,
    const char *host, struct nova_error *err)
{
	static const struct nova_session_options options = { .resume_limit_ms = REDIAL_MS, .lanes = 1 };

	client->config = nova_config_for_client(config, host, err);
	if (!client->config)
		return -1;
	client->links = client->ops->open(base, client->config, NULL, NULL, NULL, err);
	if (!client->links)
		return -1;
	client->session = client->ops->dial(client->links, NOVA_CLIENT_PEER, &options, &session_events, client, err);
	if (!client->session)
		return -1;
	if (client->event)
		client->subscription =
		    client->ops->request(client->session, "events", NULL, 0, subscribed, client, NULL);
	return 0;
}

struct nova_client *nova_client_new_remote(struct event_base *base, const struct nova_config *config, const char *host,
    nova_event_fn event, void (*gone)(void *arg, const struct nova_error *err), void *arg, struct nova_error *err)
{
	struct remote_client *client = calloc(1, sizeof(*client));

	if (!client) {
		nova_error_sys(err, ENOMEM, "no memory for a client");
		return NULL;
	}
	*client = (struct remote_client){
		.client.ops = &remote_ops,
		.ops = nova_builtin.links,
		.event = event,
		.gone = gone,
		.arg = arg,
	};
	if (remote_open(client, base, config, host, err) == 0)
		return &client->client;
	return nova_client_free(&client->client);
}
