/* SPDX-License-Identifier: Apache-2.0
 *
 * watch.c - the engine's events, followed: what happens to our containers is seen, whoever does it.
 *
 * One stream for all guests, open while there are any. Whenever it is opened (again), every guest's container
 * is inspected, so that nothing that happened meanwhile is missed. An engine that goes away is dialled again
 * after 0.2 s, then twice as long each time, 5 s at most; until then guests keep the state last seen.
 */
#include "drivers/docker/docker.h"
#include "engine/clock.h"

#include <errno.h>
#include <event2/event.h>
#include <stdio.h>
#include <string.h>

#define RETRY_FIRST_MS 200
#define RETRY_MOST_MS 5000

struct look;

struct docker_watch {
	struct docker *docker;    /* borrowed */
	struct nova_op *call;     /* owned: the version, then the stream */
	struct event *retry;      /* owned */
	struct json_stream json;
	struct look *looks;       /* owned: inspections under way */
	int wait_ms;
	bool told;                /* that the engine is away */
};

/* ---- states ---- */

enum nova_guest_state docker_state_of(const json_t *inspected)
{
	static const struct {
		const char *status;
		enum nova_guest_state state;
	} states[] = {
		{ "created", NOVA_GUEST_STOPPED }, { "exited", NOVA_GUEST_STOPPED }, { "running", NOVA_GUEST_RUNNING },
		{ "paused", NOVA_GUEST_PAUSED }, { "restarting", NOVA_GUEST_STARTING },
	};
	const char *status = task_text(json_object_get(inspected, "State"), "Status") ?: "";

	for (size_t i = 0; i < sizeof(states) / sizeof(*states); i++)
		if (!strcmp(states[i].status, status))
			return states[i].state;
	return NOVA_GUEST_FAILED;
}

static void tell(struct nova_guest *guest, enum nova_guest_state state, const char *why)
{
	const struct docker_guest *known = guest->driver_data;

	if (guest->state == NOVA_GUEST_INCOMING && !(known && known->released))
		return; /* restored and held: not ours to run yet */
	if (guest->state != state)
		nova_guest_set_state(guest, state, why);
}

/* It ended: as somebody wished, or by itself with a status that says whether all was well. */
static void tell_end(struct nova_guest *guest, long long code, const char *why)
{
	struct docker_guest *known = guest->driver_data;
	bool was_up = guest->state == NOVA_GUEST_RUNNING || guest->state == NOVA_GUEST_PAUSED ||
		      guest->state == NOVA_GUEST_STARTING;
	char text[160];

	json_object_del(guest->runtime, "pid");
	if (guest->state == NOVA_GUEST_FAILED && *docker_id(guest) && strcmp(why, "found"))
		return;
	snprintf(text, sizeof(text), "%s: ended with status %lld", why, code);
	if (code && was_up && known && !known->signalled)
		tell(guest, NOVA_GUEST_FAILED, text);
	else
		tell(guest, NOVA_GUEST_STOPPED, text);
}

void docker_take_state(struct docker *docker, struct nova_guest *guest, const json_t *inspected, const char *why)
{
	json_t *state = json_object_get(inspected, "State");
	json_int_t pid = json_integer_value(json_object_get(state, "Pid"));
	enum nova_guest_state now = docker_state_of(inspected);

	if (pid > 0)
		json_object_set_new(guest->runtime, "pid", json_integer(pid));
	else
		json_object_del(guest->runtime, "pid");
	if (now == NOVA_GUEST_STOPPED)
		tell_end(guest, json_integer_value(json_object_get(state, "ExitCode")), why);
	else
		tell(guest, now, why);
}

/* ---- guests ---- */

static void connect_now(struct docker_watch *watch);

static void retry_now(evutil_socket_t fd, short what, void *arg)
{
	connect_now(arg);
}

static int watch_new(struct docker *docker, struct nova_error *err)
{
	struct docker_watch *watch = calloc(1, sizeof(*watch));

	if (watch)
		watch->retry = event_new(docker->env.base, -1, 0, retry_now, watch);
	if (!watch || !watch->retry) {
		free(watch);
		return nova_error_sys(err, ENOMEM, "docker");
	}
	watch->docker = docker;
	watch->wait_ms = RETRY_FIRST_MS;
	docker->watch = watch;
	event_active(watch->retry, EV_TIMEOUT, 0);
	return 0;
}

int docker_know(struct docker *docker, struct nova_guest *guest, struct nova_error *err)
{
	struct docker_guest *known = guest->driver_data;

	if (known)
		return 0;
	known = calloc(1, sizeof(*known));
	if (!known)
		return nova_error_sys(err, ENOMEM, "guest %s", guest->name);
	known->guest = guest;
	known->next = docker->guests;
	docker->guests = known;
	guest->driver_data = known;
	return docker->watch ? 0 : watch_new(docker, err);
}

static struct docker_guest *by_id(struct docker *docker, const char *id)
{
	for (struct docker_guest *known = docker->guests; known; known = known->next)
		if (id && *id && !strcmp(docker_id(known->guest), id))
			return known;
	return NULL;
}

/* ---- inspecting all of them ---- */

struct look {
	struct docker_watch *watch;
	struct nova_guest *guest;
	struct nova_op *call;
	struct look *next;
};

static void look_free(struct look *look)
{
	struct look **at = &look->watch->looks;

	while (*at != look)
		at = &(*at)->next;
	*at = look->next;
	nova_op_drop(look->call);
	free(look);
}

static void gone(struct docker *docker, struct nova_guest *guest)
{
	struct docker_guest *known = guest->driver_data;
	struct nova_error err;

	if (known && known->deleting)
		return;
	json_object_del(guest->runtime, "id");
	json_object_del(guest->runtime, "pid");
	if (nova_guest_save(guest, &err) < 0)
		driver_log(&docker->env, NOVA_LOG_ERROR, "docker: guest %s: %s", guest->name, err.text);
	tell(guest, NOVA_GUEST_FAILED, "somebody else removed its container");
}

static void looked(void *arg, json_t *result, const struct nova_error *err)
{
	struct look *look = arg;
	struct docker *docker = look->watch->docker;
	struct nova_guest *guest = look->guest;

	look->call = NULL;
	look_free(look);
	if (err)
		return; /* the stream ends as well, and all is asked again */
	if (docker_status(result) == 404)
		gone(docker, guest);
	else
		docker_take_state(docker, guest, json_object_get(result, "body"), "found");
}

static void look_at(struct docker_watch *watch, struct nova_guest *guest)
{
	struct look *look = calloc(1, sizeof(*look));
	struct http_call call = { .method = "GET", .limit_ms = DOCKER_ASK_MS, .tolerated = 404 };
	char path[128];

	if (!look)
		return;
	docker_path(watch->docker, path, sizeof(path), "/containers/%s/json", docker_id(guest));
	call.path = path;
	look->watch = watch;
	look->guest = guest;
	look->next = watch->looks;
	watch->looks = look;
	look->call = http_start(watch->docker->http, &call, looked, look, NULL);
	if (!look->call)
		look_free(look);
}

void docker_forget(struct docker *docker, struct nova_guest *guest)
{
	struct docker_guest **at = &docker->guests, *known = guest->driver_data;

	if (!known)
		return;
	for (struct look *look = docker->watch ? docker->watch->looks : NULL, *next; look; look = next) {
		next = look->next;
		if (look->guest == guest)
			look_free(look);
	}
	while (*at != known)
		at = &(*at)->next;
	*at = known->next;
	guest->driver_data = NULL;
	nova_op_drop(known->landing);
	box_move_free(known->move);
	json_decref(known->images);
	free(known);
}

/* ---- events ---- */

void docker_event(struct docker *docker, json_t *event)
{
	static const struct {
		const char *action;
		enum nova_guest_state state;
	} changes[] = { { "start", NOVA_GUEST_RUNNING }, { "unpause", NOVA_GUEST_RUNNING }, { "pause", NOVA_GUEST_PAUSED } };
	json_t *actor = json_object_get(event, "Actor");
	const char *action = task_text(event, "Action") ?: "";
	struct docker_guest *known = by_id(docker, task_text(actor, "ID"));
	const char *code = task_text(json_object_get(actor, "Attributes"), "exitCode");

	if (!known)
		return;
	if (!strcmp(action, "kill"))
		known->signalled = true;
	else if (!strcmp(action, "start"))
		known->signalled = false;
	for (size_t i = 0; i < sizeof(changes) / sizeof(*changes); i++)
		if (!strcmp(changes[i].action, action))
			tell(known->guest, changes[i].state, action);
	if (!strcmp(action, "die"))
		tell_end(known->guest, code ? atoll(code) : 0, "the container");
	else if (!strcmp(action, "destroy"))
		gone(docker, known->guest);
	if (!strncmp(action, "exec_", 5))
		return; /* health checks: many, and nothing changes */
	nova_guest_event(known->guest, action, actor);
}

static void each_event(void *arg, json_t *event)
{
	docker_event(((struct docker_watch *)arg)->docker, event);
}

/* ---- the stream ---- */

static void again_later(struct docker_watch *watch, const struct nova_error *err)
{
	struct timeval wait = nova_timeval_ms(watch->wait_ms);

	if (!watch->told)
		driver_log(&watch->docker->env, NOVA_LOG_WARNING, "docker: events are not seen for now: %s",
		    err ? err->text : "the engine ended the stream");
	watch->told = true;
	watch->docker->api = 0; /* another engine may come */
	json_stream_release(&watch->json);
	event_add(watch->retry, &wait);
	watch->wait_ms = watch->wait_ms * 2 < RETRY_MOST_MS ? watch->wait_ms * 2 : RETRY_MOST_MS;
}

static void stream_opened(void *arg)
{
	struct docker_watch *watch = arg;

	if (watch->told)
		driver_log(&watch->docker->env, NOVA_LOG_INFO, "docker: events are seen again");
	watch->told = false;
	watch->wait_ms = RETRY_FIRST_MS;
	for (struct docker_guest *known = watch->docker->guests; known; known = known->next)
		if (*docker_id(known->guest))
			look_at(watch, known->guest);
}

static void stream_data(void *arg, const void *bytes, size_t length)
{
	struct docker_watch *watch = arg;
	struct nova_error err;

	if (json_stream_feed(&watch->json, bytes, length, each_event, watch, &err) == 0)
		return;
	driver_log(&watch->docker->env, NOVA_LOG_WARNING, "docker: events: %s", err.text);
	json_stream_release(&watch->json);
}

static void stream_ended(void *arg, json_t *result, const struct nova_error *err)
{
	struct docker_watch *watch = arg;

	watch->call = NULL;
	again_later(watch, err);
}

static void follow(struct docker_watch *watch)
{
	struct http_call call = { .method = "GET", .opened = stream_opened, .data = stream_data, .stream_arg = watch };
	char path[160];
	struct nova_error err;

	/* filters={"type":["container"]} */
	docker_path(watch->docker, path, sizeof(path), "/events?filters=%%7B%%22type%%22%%3A%%5B%%22container%%22%%5D%%7D");
	call.path = path;
	watch->call = http_start(watch->docker->http, &call, stream_ended, watch, &err);
	if (!watch->call)
		again_later(watch, &err);
}

static void version_came(void *arg, json_t *result, const struct nova_error *failure)
{
	struct docker_watch *watch = arg;
	struct nova_error err;

	watch->call = NULL;
	if (failure)
		again_later(watch, failure);
	else if (docker_agree(watch->docker, result, &err) < 0)
		again_later(watch, &err);
	else
		follow(watch);
}

static void connect_now(struct docker_watch *watch)
{
	struct http_call call = { .method = "GET", .path = "/version", .limit_ms = 5000 };
	struct nova_error err;

	watch->call = http_start(watch->docker->http, &call, version_came, watch, &err);
	if (!watch->call)
		again_later(watch, &err);
}

void docker_watch_free(struct docker_watch *watch)
{
	if (!watch)
		return;
	while (watch->looks)
		look_free(watch->looks);
	nova_op_drop(watch->call);
	event_free(watch->retry);
	json_stream_release(&watch->json);
	free(watch);
}
