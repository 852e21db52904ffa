/* SPDX-License-Identifier: Apache-2.0
 *
 * control.c - the client of a daemon's control socket: a QMP client whose peer is one of ours, so that
 * errors keep the category they had over there.
 *
 * Commands have no time limit here: a command of a daemon may take as long as its rows allow, and a lost
 * daemon is noticed by its socket. Whoever cannot wait drops the call.
 */
#include "qmp.h"
#include "engine/client.h"

#include <errno.h>
#include <stdlib.h>

struct control_client {
	struct nova_client client; /* first */
	struct qmp_client *qmp; /* owned */
	nova_event_fn event;
	void (*gone)(void *arg, const struct nova_error *err);
	void *arg;
};

static void on_event(void *arg, const char *name, json_t *data)
{
	struct control_client *client = arg;

	if (client->event)
		client->event(client->arg, name, data);
}

static void on_closed(void *arg, const struct nova_error *err)
{
	struct control_client *client = arg;

	if (client->gone)
		client->gone(client->arg, err);
}

static void control_free(struct nova_client *base)
{
	struct control_client *client = (struct control_client *)base;

	qmp_client_free(client->qmp);
	free(client);
}

static struct nova_op *control_execute(struct nova_client *base, const char *command, json_t *args,
    nova_done_fn done, void *arg, struct nova_error *err)
{
	const struct qmp_call no_limit = { .limit_ms = -1 };

	return qmp_execute(
	    ((struct control_client *)base)->qmp, command, json_incref(args), &no_limit, done, arg, err);
}

static const struct nova_client_ops control_ops = { control_execute, control_free };

struct nova_client *nova_client_new(struct event_base *base, const char *path, nova_event_fn event,
    void (*gone)(void *arg, const struct nova_error *err), void *arg, struct nova_error *err)
{
	const struct qmp_events events = { .event = on_event, .closed = on_closed };
	struct control_client *client = calloc(1, sizeof(*client));

	if (!client) {
		nova_error_sys(err, ENOMEM, "no memory for a client");
		return NULL;
	}
	*client = (struct control_client) {
		.client.ops = &control_ops, .event = event, .gone = gone, .arg = arg
	};
	client->qmp = qmp_client_new(base, path, NULL, &events, client, err);
	return client->qmp ? &client->client : nova_client_free(&client->client);
}
