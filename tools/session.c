/* SPDX-License-Identifier: Apache-2.0
 *
 * session.c - one conversation with a daemon: the asynchronous client of the library, waited for.
 *
 * A daemon that does not answer within 5 s is told to the user once, on standard error; there is no time
 * limit of our own, ^C is the user's.
 */
#include "tools/session.h"
#include <event2/event.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

enum {
	SLOW_S = 5
};

static void on_event(void *arg, const char *event, json_t *data)
{
	struct session *session = arg;

	if (session->on_event)
		session->on_event(session->on_event_arg, event, data);
}

static void on_gone(void *arg, const struct nova_error *err)
{
	struct session *session = arg;

	session->gone = true;
	nova_error_copy(&session->why, err);
	event_base_loopbreak(session->base);
}

static void on_interrupt(evutil_socket_t number, short what, void *arg)
{
	struct session *session = arg;

	session->interrupted = true;
	event_base_loopbreak(session->base);
}

static int prepare(struct session *session, const char *path, struct nova_error *err)
{
	signal(SIGPIPE, SIG_IGN);
	session->path = path;
	session->base = event_base_new();
	if (!session->base)
		return nova_error_sys(err, errno, "no event loop could be made");
	session->interrupt = evsignal_new(session->base, SIGINT, on_interrupt, session);
	if (!session->interrupt || event_add(session->interrupt, NULL) < 0)
		return nova_error_set(err, NOVA_SYSTEM, "^C could not be watched");
	return 0;
}

int session_open(struct session *session, const char *path, struct nova_error *err)
{
	if (prepare(session, path, err) < 0)
		return -1;
	session->client = nova_client_new(session->base, path, on_event, on_gone, session, err);
	return session->client ? 0 : -1;
}

int session_open_remote(
    struct session *session, const struct nova_config *config, const char *host, struct nova_error *err)
{
	if (prepare(session, host, err) < 0)
		return -1;
	session->remote = true;
	session->client = nova_client_new_remote(session->base, config, host, on_event, on_gone, session, err);
	return session->client ? 0 : -1;
}

void session_hang_up(struct session *session)
{
	nova_client_free(session->client);
	if (session->interrupt)
		event_free(session->interrupt);
	if (session->base)
		event_base_free(session->base);
	session->client = NULL;
	session->interrupt = NULL;
	session->base = NULL;
}

struct call {
	struct session *session;
	bool over, answered; /* over, but not answered: our own limit */
	int failed;
	json_t *result;
	struct nova_error error;
};

static void on_answer(void *arg, json_t *result, const struct nova_error *err)
{
	struct call *call = arg;

	call->over = call->answered = true;
	call->failed = err ? -1 : 0;
	call->session->heard = call->session->heard || !err || err->category != NOVA_LINK;
	if (err)
		call->error = *err;
	call->result = json_incref(result);
	event_base_loopbreak(call->session->base);
}

static void on_slow(evutil_socket_t fd, short what, void *arg)
{
	struct session *session = arg;

	if (!session->quiet)
		fprintf(stderr, "novacron: still waiting for the daemon on %s (^C ends the waiting)\n",
		    session->path);
}

static void on_limit(evutil_socket_t fd, short what, void *arg)
{
	struct call *call = arg;

	call->over = true;
	call->failed = nova_error_set(&call->error, NOVA_TIMEOUT, "no answer on %s", call->session->path);
	event_base_loopbreak(call->session->base);
}

int session_wait(struct session *session, const bool *over, struct nova_error *err)
{
	while (!*over && !session->interrupted && !session->gone)
		if (event_base_loop(session->base, EVLOOP_ONCE) < 0)
			return nova_error_set(err, NOVA_SYSTEM, "the event loop failed");
	if (*over)
		return 0;
	if (session->interrupted)
		return nova_error_set(err, NOVA_CANCELLED, "interrupted");
	return nova_error_copy(err, &session->why);
}

/* The first thing that goes wrong for everybody: no daemon, or another socket. A daemon that answers may speak of other
 * connections that failed. */
static void explain_absence(const struct session *session, struct nova_error *err)
{
	size_t used = err ? strlen(err->text) : 0;

	if (err && err->category == NOVA_LINK && session->gone)
		snprintf(err->text + used, sizeof(err->text) - used, "%s",
		    session->remote ? "; is novacrond running there, and does it listen?"
		                    : "; is novacrond running? --socket names another socket");
}

int session_call(struct session *session, const char *command, json_t *args, int limit_ms, json_t **result,
    struct nova_error *err)
{
	struct call call = { .session = session };
	struct timeval slow = { SLOW_S, 0 }, limit = { limit_ms / 1000, limit_ms % 1000 * 1000 };
	struct nova_op *op = nova_client_execute(session->client, command, args, on_answer, &call, err);
	struct event *note, *end;
	int failed;

	if (!op)
		return -1;
	note = evtimer_new(session->base, on_slow, session);
	end = evtimer_new(session->base, on_limit, &call);
	if (note)
		evtimer_add(note, &slow);
	if (end && limit_ms)
		evtimer_add(end, &limit);
	failed = session_wait(session, &call.over, err);
	if (failed == 0 && call.failed < 0)
		failed = nova_error_copy(err, &call.error);
	if (failed < 0 && !session->heard && !session->interrupted)
		explain_absence(session, err);
	if (!call.answered)
		nova_op_drop(op);
	if (note)
		event_free(note);
	if (end)
		event_free(end);
	if (failed == 0 && result)
		*result = json_incref(call.result);
	json_decref(call.result);
	return failed;
}
