/* SPDX-License-Identifier: Apache-2.0
 *
 * watch.c - containerd's events, followed: what happens to our tasks is seen, whoever does it.
 *
 * One stream for all guests of a driver, open while there are any. containerd does not say when a subscription has
 * begun, so every guest's task is looked at when the stream is opened (again), and once more LOOK_AGAIN_MS later:
 * what happens in between is seen by one or the other. A containerd that goes away is dialled again after 0.2 s, then
 * twice as long each time, 5 s at most; until then guests keep the state last seen, and they run on.
 */
#include "drivers/containerd/containerd.h"
#include "drivers/containerd/api.pb-c.h"
#include "engine/clock.h"

#include <errno.h>
#include <event2/event.h>
#include <stdio.h>
#include <string.h>

#define RETRY_FIRST_MS 200
#define RETRY_MOST_MS 5000
#define LOOK_AGAIN_MS 1000

struct look;

struct containerd_watch {
	struct containerd *containerd; /* borrowed */
	struct nova_op *call;  /* owned: the version, then the stream */
	struct event *retry;   /* owned: dial, or look again */
	struct look *looks;    /* owned: tasks that are asked for */
	int wait_ms;
	bool following;
	bool told;             /* that containerd is away */
};

/* ---- states ---- */

static void tell(struct nova_guest *guest, enum nova_guest_state state, const char *why)
{
	if (guest->state != state)
		nova_guest_set_state(guest, state, why);
}

static bool is_up(const struct nova_guest *guest)
{
	return guest->state == NOVA_GUEST_RUNNING || guest->state == NOVA_GUEST_PAUSED || guest->state == NOVA_GUEST_STARTING;
}

/* It ended: as somebody wished, or by itself with a status that says whether all was well. */
static void tell_end(struct nova_guest *guest, long long code, const char *why, bool anew)
{
	struct containerd_guest *known = guest->driver_data;
	char text[160];

	json_object_del(guest->runtime, "pid");
	if (guest->state == NOVA_GUEST_FAILED && !anew)
		return; /* an answer that is older than the event does not undo it */
	snprintf(text, sizeof(text), "%s: ended with status %lld", why, code);
	tell(guest, code && is_up(guest) && known && !known->signalled ? NOVA_GUEST_FAILED : NOVA_GUEST_STOPPED, text);
}

/* No task: never started, removed when it had ended, or lost with its shim. */
static void tell_none(struct nova_guest *guest)
{
	struct containerd_guest *known = guest->driver_data;

	json_object_del(guest->runtime, "pid");
	if (is_up(guest) && known && !known->signalled)
		tell(guest, NOVA_GUEST_FAILED, "its task is gone");
	else if (guest->state != NOVA_GUEST_FAILED)
		tell(guest, NOVA_GUEST_STOPPED, "no task");
}

void containerd_take_state(struct nova_guest *guest, const json_t *answer, const char *why, bool anew)
{
	const json_t *process = json_object_get(json_object_get(answer, "body"), "process");
	json_int_t pid = json_integer_value(json_object_get(process, "pid"));

	/* Where it is to run is not decided by what is seen here. */
	if (guest->state == NOVA_GUEST_INCOMING || guest->state == NOVA_GUEST_MIGRATED || guest->state == NOVA_GUEST_IN_DOUBT)
		return;
	if (!process) {
		tell_none(guest);
		return;
	}
	if (pid > 0)
		json_object_set_new(guest->runtime, "pid", json_integer(pid));
	switch (json_integer_value(json_object_get(process, "status"))) {
	case 1: /* made but not started: START goes on, or the next one begins anew */
		json_object_del(guest->runtime, "pid");
		tell(guest, NOVA_GUEST_STOPPED, why);
		break;
	case 2:
		tell(guest, NOVA_GUEST_RUNNING, why);
		break;
	case 4: /* paused, pausing */
	case 5:
		tell(guest, NOVA_GUEST_PAUSED, why);
		break;
	default:
		tell_end(guest, json_integer_value(json_object_get(process, "exit_status")), why, anew);
	}
}

/* ---- guests ---- */

static void connect_now(struct containerd_watch *watch);
static void look_at_all(struct containerd_watch *watch);

static void retry_now(evutil_socket_t fd, short what, void *arg)
{
	struct containerd_watch *watch = arg;

	if (watch->following)
		look_at_all(watch);
	else
		connect_now(watch);
}

static int watch_new(struct containerd *containerd, struct nova_error *err)
{
	struct containerd_watch *watch = calloc(1, sizeof(*watch));

	if (watch)
		watch->retry = event_new(containerd->env.base, -1, 0, retry_now, watch);
	if (!watch || !watch->retry) {
		free(watch);
		return nova_error_sys(err, ENOMEM, "containerd");
	}
	watch->containerd = containerd;
	watch->wait_ms = RETRY_FIRST_MS;
	containerd->watch = watch;
	event_active(watch->retry, EV_TIMEOUT, 0);
	return 0;
}

int containerd_know(struct containerd *containerd, struct nova_guest *guest, struct nova_error *err)
{
	struct containerd_guest *known = guest->driver_data;

	if (known)
		return 0;
	known = calloc(1, sizeof(*known));
	if (!known)
		return nova_error_sys(err, ENOMEM, "guest %s", guest->name);
	known->guest = guest;
	known->next = containerd->guests;
	containerd->guests = known;
	guest->driver_data = known;
	return containerd->watch ? 0 : watch_new(containerd, err);
}

static struct containerd_guest *by_id(struct containerd *containerd, const char *id)
{
	for (struct containerd_guest *known = containerd->guests; known; known = known->next)
		if (id && *id && !strcmp(containerd_id(known->guest), id))
			return known;
	return NULL;
}

/* ---- looking at all of them ---- */

struct look {
	struct containerd_watch *watch;
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

static void looked(void *arg, json_t *result, const struct nova_error *err)
{
	struct look *look = arg;
	struct nova_guest *guest = look->guest;

	look->call = NULL;
	look_free(look);
	if (!err) /* otherwise the stream ends as well, and all is asked again */
		containerd_take_state(guest, result, "seen", false);
}

static void look_at(struct containerd_watch *watch, struct nova_guest *guest)
{
	struct grpc_options options = { .limit_ms = CONTAINERD_ASK_MS, .tolerated = 1u << GRPC_NOT_FOUND };
	struct look *look = calloc(1, sizeof(*look));

	if (!look)
		return;
	look->watch = watch;
	look->guest = guest;
	look->next = watch->looks;
	watch->looks = look;
	look->call = containerd_begin(watch->containerd, CTRD_TASK_GET, json_pack("{s:s}", "container_id", containerd_id(guest)), &options, looked, look, NULL);
	if (!look->call)
		look_free(look);
}

/* Those that a verb is at work on will be looked at by it. */
static void look_at_all(struct containerd_watch *watch)
{
	for (struct containerd_guest *known = watch->containerd->guests; known; known = known->next)
		if (*containerd_id(known->guest) && known->guest->state != NOVA_GUEST_STARTING && !known->deleting)
			look_at(watch, known->guest);
}

void containerd_forget(struct containerd *containerd, struct nova_guest *guest)
{
	struct containerd_guest **at = &containerd->guests, *known = guest->driver_data;

	if (!known)
		return;
	for (struct look *look = containerd->watch ? containerd->watch->looks : NULL, *next; look; look = next) {
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
	json_decref(known->held);
	free(known);
}

/* ---- events ---- */

static void removed(struct containerd *containerd, struct containerd_guest *known)
{
	struct nova_guest *guest = known->guest;
	struct nova_error err;

	if (known->deleting)
		return;
	json_object_del(guest->runtime, "id");
	json_object_del(guest->runtime, "pid");
	if (nova_guest_save(guest, &err) < 0)
		driver_log(&containerd->env, NOVA_LOG_ERROR, "%s: guest %s: %s", containerd->driver->name, guest->name, err.text);
	tell(guest, NOVA_GUEST_FAILED, "somebody else removed its container");
}

/* An exec that ended is no end of the task. */
static bool of_init(const json_t *event)
{
	const char *id = task_text(event, "id");

	return !id || !strcmp(id, task_text(event, "container_id") ?: "");
}

static const ProtobufCMessageDescriptor *type_of(const char *topic)
{
	if (!strcmp(topic, "/tasks/exit"))
		return &ctrd__task_exit_event__descriptor;
	if (!strcmp(topic, "/tasks/start"))
		return &ctrd__task_start_event__descriptor;
	if (!strcmp(topic, "/containers/delete"))
		return &ctrd__container_event__descriptor;
	return strncmp(topic, "/tasks/", 7) ? NULL : &ctrd__task_event__descriptor;
}

void containerd_event(struct containerd *containerd, json_t *envelope)
{
	const char *topic = task_text(envelope, "topic") ?: "";
	const ProtobufCMessageDescriptor *type = type_of(topic);
	size_t length = 0;
	NOVA_AUTOFREE void *bytes = grpc_json_data(json_object_get(json_object_get(envelope, "event"), "value"), &length);
	NOVA_AUTOJSON json_t *event = type && bytes ? grpc_json_unpack(type, bytes, length, NULL) : NULL;
	struct containerd_guest *known = by_id(containerd, task_text(event, "container_id") ?: task_text(event, "id"));

	if (!known)
		return;
	if (!strcmp(topic, "/tasks/start")) {
		json_object_set(known->guest->runtime, "pid", json_object_get(event, "pid"));
		tell(known->guest, NOVA_GUEST_RUNNING, "start");
	} else if (!strcmp(topic, "/tasks/resumed")) {
		tell(known->guest, NOVA_GUEST_RUNNING, "resume");
	} else if (!strcmp(topic, "/tasks/paused")) {
		tell(known->guest, NOVA_GUEST_PAUSED, "pause");
	} else if (!strcmp(topic, "/tasks/exit") && of_init(event)) {
		tell_end(known->guest, json_integer_value(json_object_get(event, "exit_status")), "the container", false);
	} else if (!strcmp(topic, "/containers/delete")) {
		removed(containerd, known);
	}
	if (!strncmp(topic, "/tasks/exec", 11))
		return; /* health checks: many, and nothing changes */
	nova_guest_event(known->guest, topic, event);
}

static void each_event(void *arg, json_t *envelope)
{
	struct containerd_watch *watch = arg;

	containerd_event(watch->containerd, envelope);
}

/* ---- the stream ---- */

static void again_later(struct containerd_watch *watch, const struct nova_error *err)
{
	struct timeval wait = nova_timeval_ms(watch->wait_ms);

	if (!watch->told)
		driver_log(&watch->containerd->env, NOVA_LOG_WARNING, "%s: events are not seen for now: %s", watch->containerd->driver->name,
		    err ? err->text : "containerd ended the stream");
	watch->told = true;
	watch->following = false;
	event_add(watch->retry, &wait);
	watch->wait_ms = watch->wait_ms * 2 < RETRY_MOST_MS ? watch->wait_ms * 2 : RETRY_MOST_MS;
}

static void stream_ended(void *arg, json_t *result, const struct nova_error *err)
{
	struct containerd_watch *watch = arg;

	watch->call = NULL;
	again_later(watch, err);
}

static void follow(struct containerd_watch *watch)
{
	struct timeval again = nova_timeval_ms(LOOK_AGAIN_MS);
	struct grpc_options options = { .each = each_event, .each_arg = watch };
	json_t *filters = json_pack("{s:[o]}", "filters", json_sprintf("namespace==\"%s\"", watch->containerd->space));
	struct nova_error err;

	watch->call = containerd_begin(watch->containerd, CTRD_EVENTS, filters, &options, stream_ended, watch, &err);
	if (!watch->call) {
		again_later(watch, &err);
		return;
	}
	if (watch->told)
		driver_log(&watch->containerd->env, NOVA_LOG_INFO, "%s: events are seen again", watch->containerd->driver->name);
	watch->told = false;
	watch->following = true;
	watch->wait_ms = RETRY_FIRST_MS;
	look_at_all(watch);
	event_add(watch->retry, &again);
}

static void version_came(void *arg, json_t *result, const struct nova_error *failure)
{
	struct containerd_watch *watch = arg;

	watch->call = NULL;
	if (failure)
		again_later(watch, failure);
	else
		follow(watch);
}

static void connect_now(struct containerd_watch *watch)
{
	struct grpc_options options = { .limit_ms = 5000 };
	struct nova_error err;

	watch->call = containerd_begin(watch->containerd, CTRD_VERSION, NULL, &options, version_came, watch, &err);
	if (!watch->call)
		again_later(watch, &err);
}

void containerd_watch_free(struct containerd_watch *watch)
{
	if (!watch)
		return;
	while (watch->looks)
		look_free(watch->looks);
	nova_op_drop(watch->call);
	event_free(watch->retry);
	free(watch);
}
