/* SPDX-License-Identifier: Apache-2.0
 *
 * remote.c - commands and events of this daemon over a session of the links: what the control socket is for
 * local users, with the certificate as the identity.
 *
 *   client                                         daemon
 *   execute {command, arguments?}         ->       its answer, or its error with its category
 *   events {}                             ->       from now on:
 *                             event {event, data}  <-  what this identity may see; the answer says it was read
 *
 * A certificate that no role names may ask nothing; the refusal is in the audit log. At most 64 commands wait for
 * their answers; a client with more than 512 unread events is let go. Not here: how the session is kept alive
 * (transport/), what commands do and who may (execute.c).
 */
#include "cleanup.h"
#include "host.h"

#include <event2/event.h>
#include <stdlib.h>
#include <string.h>

#define COMMANDS_MOST 64
#define EVENTS_MOST 512

struct call {
	TAILQ_ENTRY(call) link;
	struct nova_remote *remote;   /* NULL: the session is gone, nobody waits */
	struct nova_request *request; /* to be answered */
	struct nova_op *op;           /* owned */
};

/* An event under way. */
struct told {
	TAILQ_ENTRY(told) link;
	struct nova_remote *remote;
	struct nova_op *op; /* owned */
};

struct nova_remote {
	TAILQ_ENTRY(nova_remote) link;
	struct nova_host *host;          /* borrowed */
	const struct nova_link_ops *ops; /* static */
	struct nova_session *session;    /* borrowed */
	struct nova_identity who;
	TAILQ_HEAD(, call) calls;
	TAILQ_HEAD(, told) tolds;
	unsigned call_count, told_count;
	bool events;
	json_t *pending;       /* owned: events that have not been sent */
	struct told *telling;  /* borrowed: its request is being made */
	struct event *send;    /* owned */
	struct event *give_up; /* owned: let go of the session, from the loop */
	void (*lost)(void *arg);
	void *arg;
};

static void on_give_up(evutil_socket_t fd, short what, void *arg)
{
	struct nova_remote *remote = arg;

	nova_host_log(remote->host, NOVA_LOG_WARNING, "%s (%s) does not read its events: session closed", remote->who.name,
	    remote->who.from);
	remote->lost(remote->arg);
}

static void on_send(evutil_socket_t fd, short what, void *arg);

static struct nova_remote *remote_release(struct nova_remote *remote)
{
	if (remote->send)
		event_free(remote->send);
	if (remote->give_up)
		event_free(remote->give_up);
	json_decref(remote->pending);
	free(remote);
	return NULL;
}

struct nova_remote *nova_remote_new(struct nova_host *host, struct nova_session *session, const char *peer,
    void (*lost)(void *arg), void *arg)
{
	struct nova_remote *remote = calloc(1, sizeof(*remote));

	if (!remote)
		return NULL;
	remote->give_up = evtimer_new(host->base, on_give_up, remote);
	remote->send = evtimer_new(host->base, on_send, remote);
	remote->pending = json_array();
	if (!remote->give_up || !remote->send || !remote->pending)
		return remote_release(remote);
	remote->host = host;
	remote->ops = host->plugins->links;
	remote->session = session;
	remote->lost = lost;
	remote->arg = arg;
	TAILQ_INIT(&remote->calls);
	TAILQ_INIT(&remote->tolds);
	nova_host_identify_certificate(host, remote->ops->user(session), remote->ops->from(session), &remote->who);
	if (!remote->who.name[0])
		snprintf(remote->who.name, sizeof(remote->who.name), "peer %.100s", peer);
	TAILQ_INSERT_TAIL(&host->remotes, remote, link);
	return remote;
}

static void call_end(struct call *call, json_t *result, const struct nova_error *err)
{
	struct nova_remote *remote = call->remote;

	TAILQ_REMOVE(&remote->calls, call, link);
	remote->call_count--;
	remote->ops->answer(call->request, json_incref(result), err);
	free(call);
}

static void told_free(struct told *told)
{
	TAILQ_REMOVE(&told->remote->tolds, told, link);
	told->remote->told_count--;
	free(told);
}

/* What was begun goes on, as on the control socket; only nobody waits for it any more. */
void nova_remote_free(struct nova_remote *remote)
{
	struct nova_error gone;
	struct call *call;
	struct told *told;

	if (!remote)
		return;
	nova_error_set(&gone, NOVA_LINK, "the session is over");
	while ((call = TAILQ_FIRST(&remote->calls))) {
		nova_op_drop(call->op);
		call_end(call, NULL, &gone);
	}
	while ((told = TAILQ_FIRST(&remote->tolds))) {
		TAILQ_REMOVE(&remote->tolds, told, link);
		told->remote = NULL;
		nova_op_drop(told->op);
		if (told != remote->telling)
			free(told);
	}
	TAILQ_REMOVE(&remote->host->remotes, remote, link);
	remote_release(remote);
}

/* ---- commands ---- */

static void executed(void *arg, json_t *result, const struct nova_error *err)
{
	call_end(arg, result, err);
}

static int execute(struct nova_remote *remote, json_t *args, struct nova_request *request, struct nova_error *err)
{
	const char *command = json_string_value(json_object_get(args, "command"));
	json_t *arguments = json_object_get(args, "arguments");
	struct call *call;

	if (!command)
		return nova_error_set(err, NOVA_INVALID, "execute: command must be a text");
	if (remote->call_count >= COMMANDS_MOST)
		return nova_error_set(err, NOVA_STATE, "%d commands of this session wait already", COMMANDS_MOST);
	call = calloc(1, sizeof(*call));
	if (!call)
		return nova_error_set(err, NOVA_SYSTEM, "no memory for a command");
	*call = (struct call){ .remote = remote, .request = request };
	TAILQ_INSERT_TAIL(&remote->calls, call, link);
	remote->call_count++;
	call->op = nova_host_execute(
	    remote->host, &remote->who, command, json_is_null(arguments) ? NULL : arguments, executed, call, err);
	if (call->op)
		return 0;
	TAILQ_REMOVE(&remote->calls, call, link);
	remote->call_count--;
	free(call);
	return -1;
}

int nova_remote_request(struct nova_remote *remote, const char *command, json_t *args, struct nova_request *request,
    struct nova_error *err)
{
	if (!strcmp(command, "execute"))
		return execute(remote, args, request, err);
	if (remote->who.role == NOVA_ROLE_NONE)
		return nova_error_set(err, NOVA_REFUSED, "this certificate has no role on %s: an administrator can give it one",
		    nova_host_name(remote->host));
	remote->events = true;
	remote->ops->answer(request, NULL, NULL);
	return 0;
}

/* ---- events ---- */

static void event_read(void *arg, json_t *result, const struct nova_error *err)
{
	told_free(arg);
}

static void too_slow(struct nova_remote *remote)
{
	const struct timeval now = { 0, 0 };

	remote->events = false;
	event_add(remote->give_up, &now);
}

/* A session that breaks while it is asked frees us: then told alone is left. */
static void tell(struct nova_remote *remote, json_t *message)
{
	struct told *told = calloc(1, sizeof(*told));
	struct nova_op *op;

	if (!told) {
		too_slow(remote);
		return;
	}
	told->remote = remote;
	TAILQ_INSERT_TAIL(&remote->tolds, told, link);
	remote->told_count++;
	remote->telling = told;
	op = remote->ops->request(remote->session, "event", message, 0, event_read, told, NULL);
	if (!told->remote) {
		nova_op_drop(op);
		free(told);
		return;
	}
	remote->telling = NULL;
	told->op = op;
	if (op)
		return;
	told_free(told);
	too_slow(remote);
}

/* One a turn. */
static void on_send(evutil_socket_t fd, short what, void *arg)
{
	const struct timeval now = { 0, 0 };
	struct nova_remote *remote = arg;
	NOVA_AUTOJSON json_t *message = json_incref(json_array_get(remote->pending, 0));

	if (!message || !remote->events)
		return;
	json_array_remove(remote->pending, 0);
	if (json_array_size(remote->pending))
		event_add(remote->send, &now);
	tell(remote, message);
}

/* Events come from anywhere, also from within the session's own calls: they leave from the loop. */
static void enqueue(struct nova_remote *remote, json_t *message)
{
	const struct timeval now = { 0, 0 };

	if (json_array_size(remote->pending) + remote->told_count >= EVENTS_MOST ||
	    json_array_append(remote->pending, message) < 0)
		too_slow(remote);
	else
		event_add(remote->send, &now);
}

void nova_remote_emit(struct nova_host *host, const char *event, json_t *data)
{
	NOVA_AUTOJSON json_t *message = NULL;
	struct nova_remote *remote;

	TAILQ_FOREACH (remote, &host->remotes, link) {
		if (!remote->events || !nova_host_may_see(host, &remote->who, event, data))
			continue;
		if (!message)
			message = json_pack("{s:s, s:O?}", "event", event, "data", data);
		enqueue(remote, message);
	}
}
