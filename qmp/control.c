/* SPDX-License-Identifier: Apache-2.0
 *
 * control.c - the public client of a daemon's control socket: a QMP client whose peer is one of ours, so that
 * errors keep the category they had over there.
 *
 * Commands have no time limit here: a command of a daemon may take as long as its rows allow, and a lost
 * daemon is noticed by its socket. Whoever cannot wait drops the call.
 */
#include "qmp.h"

#include <errno.h>
#include <stdlib.h>

struct nova_client {
	struct qmp_client *qmp; /* owned */
	nova_event_fn event;
	void (*gone)(void *arg, const struct nova_error *err);
	void *arg;
};

static void on_event(void *arg, const char *name, json_t *data)
{
	struct nova_client *client = arg;

	if (client->event)
		client->event(client->arg, name, data);
}

static void on_closed(void *arg, const struct nova_error *err)
{
	struct nova_client *client = arg;

	if (client->gone)
		client->gone(client->arg, err);
}

struct nova_client *nova_client_new(struct event_base *base, const char *path, nova_event_fn event,
    void (*gone)(void *arg, const struct nova_error *err), void *arg, struct nova_error *err)
{
	const struct qmp_events events = { .event = on_event, .closed = on_closed };
	struct nova_client *client = calloc(1, sizeof(*client));

	if (!client) {
		nova_error_sys(err, ENOMEM, "no memory for a client");
		return NULL;
	}
	*client = (struct nova_client) { .event = event, .gone = gone, .arg = arg };
	client->qmp = qmp_client_new(base, path, NULL, &events, client, err);
	return client->qmp ? client : nova_client_free(client);
}

struct nova_client *nova_client_free(struct nova_client *client)
{
	if (client)
		qmp_client_free(client->qmp);
	free(client);
	return NULL;
}

struct nova_op *nova_client_execute(struct nova_client *client, const char *command, json_t *args,
    nova_done_fn done, void *arg, struct nova_error *err)
{
	const struct qmp_call no_limit = { .limit_ms = -1 };

	return qmp_execute(client->qmp, command, json_incref(args), &no_limit, done, arg, err);
}
