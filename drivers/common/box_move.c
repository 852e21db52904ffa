/* SPDX-License-Identifier: Apache-2.0
 *
 * box_move.c - a container's parcel as the stream of a migration (box_move.h).
 */
#include "drivers/common/box_move.h"
#include "drivers/common/task.h"
#include "engine/cleanup.h"
#include "engine/socket.h"

#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct part {
	char *name, *path, *hollow; /* owned */
	json_t *seeds, *held;       /* owned */
};

struct box_move {
	const struct nova_driver_env *env; /* borrowed */
	struct nova_guest *guest;          /* borrowed */
	struct parcel *parcel;             /* owned */
	bool out, ended;
	int listen_fd;                     /* owned */
	struct event *listening;           /* owned */
	char *path;                        /* owned */
	void (*landed)(void *arg);
	void *arg;
	struct part part[PARCEL_PARTS_MAX];
	size_t count;
};

static void tell(struct box_move *move, const char *status, const struct nova_error *err)
{
	NOVA_AUTOJSON json_t *data = json_pack("{s:s}", "status", status);

	if (err)
		json_object_set_new(data, "error", json_string(err->text));
	else
		json_object_set_new(data, "contents", box_move_query(move));
	nova_guest_event(move->guest, "MIGRATION", data);
}

/* ---- the source ---- */

static void sent(void *arg, const struct nova_error *err)
{
	struct box_move *move = arg;

	move->ended = true;
	if (!err)
		nova_guest_set_state(move->guest, NOVA_GUEST_MIGRATED, "everything of it is at the destination");
	tell(move, err ? "failed" : "completed", err);
}

static struct box_move *move_new(
    const struct nova_driver_env *env, struct nova_guest *guest, bool out, struct nova_error *err)
{
	struct box_move *move = calloc(1, sizeof(*move));

	if (!move) {
		nova_error_sys(err, ENOMEM, "guest %s", guest->name);
		return NULL;
	}
	move->env = env;
	move->guest = guest;
	move->out = out;
	move->listen_fd = -1;
	return move;
}

struct box_move *box_move_out(const struct nova_driver_env *env, struct nova_guest *guest, const char *path,
    const struct parcel_part *parts, size_t count, struct nova_error *err)
{
	struct box_move *move = move_new(env, guest, true, err);
	int fd = move ? nova_unix_connect(path, err) : -1;

	if (fd < 0)
		return box_move_free(move);
	move->parcel = parcel_out_new(env->base, fd, parts, count, sent, move, err);
	return move->parcel ? move : box_move_free(move);
}

/* ---- the destination ---- */

static void received(void *arg, const struct nova_error *err)
{
	struct box_move *move = arg;

	if (err)
		box_move_arrived(move, err);
	else
		move->landed(move->arg);
}

void box_move_arrived(struct box_move *move, const struct nova_error *why)
{
	if (move->ended)
		return;
	move->ended = true;
	if (move->parcel)
		parcel_tell(move->parcel, why);
	tell(move, why ? "failed" : "completed", why);
}

static void stop_listening(struct box_move *move)
{
	if (move->listening)
		event_free(nova_take(&move->listening));
	if (move->listen_fd >= 0)
		close(nova_take_fd(&move->listen_fd));
	if (move->path && !move->out)
		unlink(move->path);
}

/* One connection, the engine's. */
static void accept_stream(evutil_socket_t listen_fd, short what, void *arg)
{
	struct box_move *move = arg;
	struct parcel_part parts[PARCEL_PARTS_MAX];
	struct nova_error err;
	int fd = nova_unix_accept(listen_fd);

	if (fd < 0 && (errno == EAGAIN || errno == EINTR || errno == ECONNABORTED))
		return;
	for (size_t i = 0; i < move->count; i++)
		parts[i] = (struct parcel_part){ move->part[i].name, move->part[i].path, NULL, move->part[i].seeds, move->part[i].held };
	if (fd < 0)
		nova_error_sys(&err, errno, "stream of guest %s", move->guest->name);
	else
		move->parcel = parcel_in_new(move->env->base, fd, parts, move->count, received, move, &err);
	stop_listening(move);
	if (!move->parcel)
		box_move_arrived(move, &err);
}

static int copy_parts(struct box_move *move, const struct parcel_part *parts, size_t count)
{
	for (; move->count < count; move->count++) {
		struct part *part = &move->part[move->count];

		part->name = strdup(parts[move->count].name);
		part->path = strdup(parts[move->count].path);
		part->seeds = json_incref((json_t *)parts[move->count].seeds);
		part->held = json_incref((json_t *)parts[move->count].held);
		if (!part->name || !part->path)
			return -1;
	}
	return 0;
}

struct box_move *box_move_in(const struct nova_driver_env *env, struct nova_guest *guest, const struct parcel_part *parts,
    size_t count, void (*landed)(void *arg), void *arg, struct nova_error *err)
{
	struct box_move *move = move_new(env, guest, false, err);

	if (!move)
		return NULL;
	move->landed = landed;
	move->arg = arg;
	if (count > PARCEL_PARTS_MAX || copy_parts(move, parts, count) < 0 ||
	    asprintf(&move->path, "%s/%.36s.in", env->runtime_dir, guest->uuid) < 0) {
		nova_error_sys(err, ENOMEM, "guest %s", guest->name);
		return box_move_free(move);
	}
	move->listen_fd = nova_unix_listen(move->path, err);
	if (move->listen_fd < 0)
		return box_move_free(move);
	move->listening = event_new(env->base, move->listen_fd, EV_READ | EV_PERSIST, accept_stream, move);
	if (move->listening && event_add(move->listening, NULL) == 0)
		return move;
	nova_error_sys(err, ENOMEM, "guest %s", guest->name);
	return box_move_free(move);
}

const char *box_move_path(const struct box_move *move)
{
	return move->path;
}

/* ---- both ---- */

void box_move_clear(const struct nova_driver_env *env, const struct nova_guest *guest)
{
	NOVA_AUTOFREE char *path = NULL;

	if (asprintf(&path, "%s/%.36s.in", env->runtime_dir, guest->uuid) < 0)
		path = NULL;
	else
		unlink(path);
}

json_t *box_move_query(const struct box_move *move)
{
	struct parcel_figures figures = { 0 };

	if (move && move->parcel)
		parcel_stats(move->parcel, &figures);
	return json_pack("{s:s, s:i, s:I, s:I, s:I, s:I, s:i, s:i, s:i}", "status", !move ? "" : move->ended ? "completed" : "active", "iteration", 1,
	    "total_bytes", (json_int_t)figures.total_bytes, "remaining_bytes",
	    (json_int_t)(figures.total_bytes - (figures.done_bytes < figures.total_bytes ? figures.done_bytes : figures.total_bytes)),
	    "transferred_bytes", (json_int_t)(figures.done_bytes - figures.held_bytes), "held_bytes",
	    (json_int_t)figures.held_bytes, "entries", (int)figures.entries, "held_entries", (int)figures.held_entries, "skipped_entries",
	    (int)figures.skipped_entries);
}

struct box_move *box_move_free(struct box_move *move)
{
	if (!move)
		return NULL;
	stop_listening(move);
	parcel_free(move->parcel);
	free(move->path);
	for (size_t i = 0; i < PARCEL_PARTS_MAX; i++) {
		free(move->part[i].name);
		free(move->part[i].path);
		json_decref(move->part[i].seeds);
		json_decref(move->part[i].held);
	}
	free(move);
	return NULL;
}

/* ---- processes ---- */

/* A page just written has the bit, where the kernel keeps it. */
static bool tracks_memory(void)
{
	const uint64_t soft_dirty = 1ull << 55;
	NOVA_AUTOFREE volatile char *page = aligned_alloc(4096, 4096);
	NOVA_AUTOCLOSE int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	uint64_t entry = 0;

	if (!page || fd < 0)
		return false;
	page[0] = 1;
	return pread(fd, &entry, sizeof(entry), (off_t)((uintptr_t)page / 4096 * sizeof(entry))) == sizeof(entry) &&
	       (entry & soft_dirty);
}

const char *box_no_live(void)
{
	return tracks_memory() ? "rounds of a container's memory are not there yet: it moves warm" :
				 "this kernel does not track the memory of processes (no soft-dirty): a container moves warm";
}

int box_checkpoints_refused(const struct nova_driver_env *env, struct nova_error *err)
{
	if (!strcmp(driver_option(env, "accept-checkpoints") ?: "off", "on"))
		return 0;
	return nova_error_set(err, NOVA_REFUSED, "this host takes no checkpoints of containers, since CRIU restores what they say as root: "
						 "accept-checkpoints is off in its configuration; --mode cold needs none");
}

json_t *box_move_lost(const json_t *spec, bool warm)
{
	const char *network = task_text(spec, "network") ?: "none";
	json_t *lost = json_array(), *volume;
	size_t i;

	if (!warm)
		json_array_append_new(lost, json_string("its processes and memory: it is stopped here and started there"));
	json_array_append_new(lost, json_string("open network connections"));
	if (strcmp(network, "none"))
		json_array_append_new(lost, json_sprintf("addresses on network %s", network));
	json_array_append_new(lost, json_string("what it has logged"));
	json_array_foreach (json_object_get(spec, "volume"), i, volume)
		json_array_append_new(lost,
		    json_sprintf("the content of %s, unless the destination reaches the same directory", task_text(volume, "source") ?: "a volume"));
	return lost;
}
