/* SPDX-License-Identifier: Apache-2.0
 *
 * call.c - the QMP client's commands from qmp_execute() to their answer.
 *
 * Commands are pipelined with ids of our own; a reply is matched by its id alone, so order, duplicates and
 * inventions of the peer do not matter. Limits: 1024 commands without a reply, 4 MiB of them (and one more)
 * waiting to be sent. Where out-of-band is on, at most 8 in-band commands are in flight, since QEMU stops
 * reading with more and an urgent command would not get through. A command with a descriptor waits until the
 * one before has been answered: QEMU keeps only the last descriptor it received.
 */
#include "client.h"
#include "engine/cleanup.h"
#include "engine/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#define CALLS_MAX 1024u
#define WAITING_BYTES (4u << 20)
#define WIRE_BYTES (64u * 1024) /* handed to the wire ahead of the socket */
#define IN_BAND_MAX 8u
#define LIMIT_MS 10000

static void call_drop(struct nova_op *op)
{
	struct call *call = (struct call *)op;

	struct qmp_client *client = call->client;

	if (!call->sent) {
		qmp_call_free(call);
		if (client->state == CLIENT_READY) /* those behind it may be free to go now */
			event_active(client->wire.writable, EV_WRITE, 0);
		return;
	}
	call->done = NULL;
	if (call->limit)
		event_del(call->limit);
}

void qmp_call_free(struct call *call)
{
	struct qmp_client *client = call->client;

	TAILQ_REMOVE(call->sent ? &client->sent : &client->waiting, call, link);
	client->count--;
	if (!call->sent)
		client->waiting_bytes -= call->length;
	else if (!call->oob)
		client->in_band--;
	if (call->sent && call->carries_fd)
		client->fds--;
	if (call->limit)
		event_free(call->limit);
	if (call->fd >= 0)
		close(call->fd);
	free(call->command);
	free(call->text);
	free(call);
}

/* The call is over: its handle is gone before done is called, which may do anything. */
static void answer(struct call *call, json_t *result, const struct nova_error *err)
{
	nova_done_fn done = call->done;
	void *arg = call->arg;

	qmp_call_free(call);
	if (done)
		done(arg, result, err);
}

static void on_limit(evutil_socket_t fd, short what, void *arg)
{
	struct call *call = arg;
	nova_done_fn done = call->done;
	void *done_arg = call->arg;
	struct nova_error err;

	nova_error_set(&err, NOVA_TIMEOUT, "%s: %s was not answered within %d ms", call->client->path,
	    call->command, call->limit_ms);
	call_drop(&call->op);
	done(done_arg, NULL, &err);
}

/* The message without its first key, which is "execute" or "exec-oob" and known when it is sent. */
static char *encode(const char *command, const json_t *args, uint64_t id)
{
	NOVA_AUTOJSON json_t *name = json_string(command);
	NOVA_AUTOFREE char *quoted = name ? json_dumps(name, JSON_ENCODE_ANY) : NULL;
	NOVA_AUTOFREE char *arguments = args ? json_dumps(args, JSON_COMPACT) : NULL;
	char *text;

	if (!quoted || (args && !arguments))
		return NULL;
	if (asprintf(&text, "%s%s%s,\"id\":%llu}\r\n", quoted, args ? ",\"arguments\":" : "",
	        args ? arguments : "", (unsigned long long)id) < 0)
		return NULL;
	return text;
}

bool qmp_calls_full(const struct qmp_client *client, struct nova_error *err)
{
	if (client->count < CALLS_MAX && client->waiting_bytes < WAITING_BYTES)
		return false;
	nova_error_set(err, NOVA_STATE,
	    "%s: %u commands are without a reply, %zu bytes wait to be sent; wait for some", client->path,
	    client->count, client->waiting_bytes);
	return true;
}

static int arm_limit(struct call *call, struct nova_error *err)
{
	struct timeval limit = nova_timeval_ms(call->limit_ms);

	if (call->limit_ms < 0)
		return 0;
	call->limit = event_new(call->client->base, -1, 0, on_limit, call);
	if (!call->limit || event_add(call->limit, &limit) < 0)
		return nova_error_sys(err, ENOMEM, "no memory for a time limit");
	return 0;
}

/* Everything of a call that may fail. */
static int fill(struct call *call, const char *command, json_t *args, const struct qmp_call *options,
    struct nova_error *err)
{
	struct qmp_client *client = call->client;

	call->command = strdup(command);
	call->text = encode(command, args, call->id);
	if (!call->command || !call->text) {
		nova_error_set(err, NOVA_INVALID,
		    "a command could not be encoded: its name and arguments must "
		    "be UTF-8, and there must be memory");
		if (err)
			err->errnum = ENOMEM; /* perhaps: jansson does not say */
		return -1;
	}
	call->length = strlen(call->text);
	client->waiting_bytes += call->length;
	if (options && options->fd > 0 && (call->fd = fcntl(options->fd, F_DUPFD_CLOEXEC, 3)) < 0)
		return nova_error_sys(err, errno, "descriptor %d cannot be passed", options->fd);
	call->carries_fd = call->fd >= 0;
	return arm_limit(call, err);
}

struct call *qmp_call_new(struct qmp_client *client, const char *command, json_t *args_stolen,
    const struct qmp_call *options, nova_done_fn done, void *arg, struct nova_error *err)
{
	NOVA_AUTOJSON json_t *args = args_stolen;
	struct call *call;

	if (args && !json_is_object(args)) {
		nova_error_set(err, NOVA_INVALID, "the arguments of %s must be a JSON object", command);
		return NULL;
	}
	call = calloc(1, sizeof(*call));
	if (!call) {
		nova_error_sys(err, ENOMEM, "no memory for a command");
		return NULL;
	}
	call->op.drop = call_drop;
	call->client = client;
	call->id = ++client->last_id;
	call->fd = -1;
	call->oob = options && options->oob;
	call->limit_ms = options && options->limit_ms ? options->limit_ms : LIMIT_MS;
	call->done = done;
	call->arg = arg;
	TAILQ_INSERT_TAIL(&client->waiting, call, link);
	client->count++;
	if (fill(call, command, args, options, err) == 0)
		return call;
	qmp_call_free(call);
	return NULL;
}

int qmp_call_send(struct qmp_client *client, struct call *call, struct nova_error *err)
{
	NOVA_AUTOFREE char *text = NULL;
	const char *key;

	if (qmp_wire_reserve(&client->wire, sizeof("{\"exec-oob\":") + call->length, err) < 0)
		return -1; /* it still waits */
	text = nova_take(&call->text);
	TAILQ_REMOVE(&client->waiting, call, link);
	TAILQ_INSERT_TAIL(&client->sent, call, link);
	client->waiting_bytes -= call->length;
	call->sent = true;
	call->oob = call->oob && client->oob;
	client->in_band += !call->oob;
	client->fds += call->carries_fd;
	key = call->oob ? "{\"exec-oob\":" : "{\"execute\":";
	if (qmp_wire_queue(&client->wire, key, strlen(key), nova_take_fd(&call->fd), err) < 0)
		return -1;
	return qmp_wire_queue(&client->wire, text, call->length, -1, err);
}

static bool may_send(const struct qmp_client *client, const struct call *call)
{
	if (call->carries_fd && client->fds)
		return false;
	if (call->oob && client->oob)
		return true;
	return qmp_wire_queued(&client->wire) < WIRE_BYTES &&
	       !(client->oob && client->in_band >= IN_BAND_MAX);
}

int qmp_calls_pump(struct qmp_client *client, struct nova_error *err)
{
	struct call *next;
	bool blocked = false;

	for (struct call *call = TAILQ_FIRST(&client->waiting); call; call = next) {
		next = TAILQ_NEXT(call, link);
		if (blocked && !(call->oob && client->oob))
			continue; /* in-band commands keep their order */
		if (!may_send(client, call))
			blocked = true;
		else if (qmp_call_send(client, call, err) < 0)
			return -1;
	}
	return qmp_wire_flush(&client->wire, err);
}

static enum nova_category decode_category(const json_t *name)
{
	for (int c = NOVA_OK + 1; json_is_string(name) && c < NOVA_CATEGORIES; c++)
		if (strcmp(json_string_value(name), nova_category_name(c)) == 0)
			return c;
	return NOVA_OK;
}

/* Our own daemons name the category, and then the class says nothing more. */
void qmp_error_decode(const json_t *error, struct nova_error *err)
{
	const char *class = json_string_value(json_object_get(error, "class"));
	const char *text = json_string_value(json_object_get(error, "desc"));
	enum nova_category category = decode_category(json_object_get(error, "category"));

	if (category != NOVA_OK)
		nova_error_set(err, category, "%s", text ? text : "no reason given");
	else
		nova_error_set(
		    err, NOVA_REFUSED, "%s: %s", class ? class : "error", text ? text : "no reason given");
	for (char *c = err->text; *c; c++)
		if ((unsigned char)*c < ' ')
			*c = ' ';
}

static struct call *find(const struct qmp_client *client, const json_t *id)
{
	struct call *call;

	if (!json_is_integer(id))
		return NULL;
	TAILQ_FOREACH(call, &client->sent, link)
	if (call->id == (uint64_t)json_integer_value(id))
		return call;
	return NULL;
}

void qmp_calls_reply(struct qmp_client *client, const json_t *message)
{
	struct call *call = find(client, json_object_get(message, "id"));
	const json_t *error = json_object_get(message, "error");
	struct nova_error err;

	if (!call) {
		client->strays++;
		return;
	}
	if (error)
		qmp_error_decode(error, &err);
	answer(call, error ? NULL : json_object_get(message, "return"), error ? &err : NULL);
}

bool qmp_calls_fail_one(struct qmp_client *client, const struct nova_error *why)
{
	struct call *call = TAILQ_FIRST(&client->sent);

	if (!call)
		call = TAILQ_FIRST(&client->waiting);
	if (!call)
		return false;
	answer(call, NULL, why);
	return true;
}
