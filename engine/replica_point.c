/* SPDX-License-Identifier: Apache-2.0
 *
 * replica_point.c - a point that arrives at the standby: a table of rows (nova_reception_steps, at the end). See
 * replicate.h.
 *
 * Its images are made and served by the driver, one server for each image, which ends (and has synced) when its only client,
 * our end of the disk's way, has gone. The point is there when the journal says so; before, every failure removes the
 * images again. Old points are thinned out before the new images are made: an old point's successor is written into
 * its images (both hold the same content meanwhile; "merging" in the journal says that this is to be done again after a
 * crash). That is never done to images that somebody uses, directly or below others; who comes while it is being done
 * waits (replica_wait.c).
 */
#include "replicate.h"

#include "cleanup.h"
#include "fault_hook.h"
#include "migrate.h"
#include "pace.h"

#include <errno.h>
#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LOOK_MS 20           /* between two looks whether the servers listen */
#define SERVE_LIMIT_MS 20000
#define CHAIN_MAX 60         /* images on each other */

/* A disk of the point. */
struct part {
	struct nova_reception *reception; /* borrowed */
	char *name, *path, *socket;       /* owned */
	char *seed_path, *seed_format, *seed_socket; /* owned; NULL: nothing to compare with */
	struct nova_op *server, *seed_server; /* owned */
	struct nova_disk_in *way;         /* owned */
	json_t *digest;                   /* owned: {disk, digest, bytes} of what came */
	bool listening, served, arrived;
};

struct nova_reception {
	struct nova_replica *replica;  /* borrowed */
	struct nova_reception **slot;  /* where the session keeps us; NULL: it is gone */
	struct nova_run *run;          /* owned */
	struct nova_op *op;            /* owned: what the row waits for */
	struct event *look;            /* owned: for servers that listen */
	struct nova_request *begin, *commit; /* to be answered */
	json_t *commit_args;           /* owned */
	json_int_t id;
	bool delta;
	bool recorded;
	size_t at;                     /* disk that a row is at */
	size_t count;
	struct part part[];
};

static const char *text_of(const json_t *object, const char *name)
{
	const char *text = json_string_value(json_object_get(object, name));

	return text ? text : "";
}

static bool row_is(const struct nova_reception *reception, const char *name)
{
	return reception->run && !nova_run_undoing(reception->run) && nova_run_step(reception->run) &&
	       !strcmp(nova_run_step(reception->run)->name, name);
}

static void give_up(struct nova_reception *reception, const struct nova_error *why)
{
	struct nova_error ignored;

	if (reception->run)
		nova_run_cancel(reception->run, why, &ignored);
}

static void answer(struct nova_reception *reception, struct nova_request **request, const struct nova_error *err)
{
	if (*request)
		reception->replica->host->plugins->links->answer(nova_take(request), NULL, err);
}

struct nova_replica *nova_reception_replica(struct nova_reception *reception)
{
	return reception->replica;
}

/* ---- calls of the driver, one at a time ---- */

static void drop(struct nova_run *run, void *ctx)
{
	struct nova_reception *reception = ctx;

	nova_op_drop(nova_take(&reception->op));
	nova_replica_set_merging(reception->replica, false);
	if (reception->look)
		event_free(nova_take(&reception->look));
}

/* args is stolen. */
static enum nova_step_result call(struct nova_reception *reception, enum nova_verb verb, json_t *args, nova_done_fn done,
    struct nova_error *err)
{
	reception->op = nova_slot_call(reception->replica->slot, verb, NULL, args, done, reception, err);
	json_decref(args);
	return reception->op ? NOVA_STEP_WAIT : NOVA_STEP_FAILED;
}

static void finish_row(struct nova_reception *reception, enum nova_step_result result, const struct nova_error *err)
{
	if (result == NOVA_STEP_DONE)
		nova_run_done(reception->run);
	else if (result == NOVA_STEP_FAILED)
		nova_run_fail(reception->run, err);
}

/* ---- thin: old points go ---- */

static json_t *points_of(const struct nova_reception *reception)
{
	return nova_replica_points(reception->replica);
}

static json_int_t id_of(const json_t *point)
{
	return json_integer_value(json_object_get(point, "id"));
}

#define THIN_MAX 256

static size_t describe(const struct nova_reception *reception, struct nova_thin_point found[THIN_MAX])
{
	json_t *points = points_of(reception), *point;
	size_t i;

	json_array_foreach (points, i, point)
		if (i < THIN_MAX)
			found[i] = (struct nova_thin_point) {
				.whole = strcmp(text_of(point, "kind"), "base") != 0,
				.based = i > 0 && json_integer_value(json_object_get(point, "base")) == id_of(json_array_get(points, i - 1)),
				.held = nova_replica_holds(reception->replica, id_of(point)),
			};
	return i < THIN_MAX ? i : THIN_MAX;
}

static enum nova_thin what_to_thin(const struct nova_reception *reception, size_t *at)
{
	struct nova_thin_point found[THIN_MAX];
	size_t count = describe(reception, found);

	return nova_thin(found, count, (unsigned)json_integer_value(json_object_get(reception->replica->body, "keep")), at);
}

static void remove_files(const json_t *files)
{
	json_t *file;
	size_t i;

	json_array_foreach ((json_t *)files, i, file)
		unlink(json_string_value(file));
}

static enum nova_step_result thin_more(struct nova_reception *reception, struct nova_error *err);

static const json_t *merging_of(const struct nova_reception *reception)
{
	return json_object_get(reception->replica->body, "merging");
}

/* The place of the point that is written into the images below it. */
static size_t merging_at(const struct nova_reception *reception)
{
	json_t *points = points_of(reception), *point;
	size_t i;

	json_array_foreach (points, i, point)
		if (json_equal(json_object_get(point, "id"), json_object_get(merging_of(reception), "point")))
			break;
	return i;
}

/* Its images are those that were below it now. */
static enum nova_step_result merged_all(struct nova_reception *reception, struct nova_error *err)
{
	struct nova_replica *replica = reception->replica;
	json_t *before = nova_replica_change(replica, err), *point;
	NOVA_AUTOJSON json_t *old = NULL;
	bool made;

	if (!before)
		return NOVA_STEP_FAILED;
	point = json_array_get(points_of(reception), merging_at(reception));
	old = json_incref(json_object_get(point, "files"));
	made = json_object_set(point, "files", json_object_get(merging_of(reception), "into")) == 0 &&
	       json_object_set(point, "base", json_object_get(merging_of(reception), "base")) == 0;
	json_object_del(replica->body, "merging");
	if (nova_replica_changed(replica, before, made, err) < 0)
		return NOVA_STEP_FAILED;
	remove_files(old);
	nova_replica_set_merging(replica, false);
	return thin_more(reception, err);
}

static enum nova_step_result merge_next(struct nova_reception *reception, struct nova_error *err);

static void merged(void *arg, json_t *result, const struct nova_error *err)
{
	struct nova_reception *reception = arg;
	struct nova_error why;

	reception->op = NULL;
	if (err) {
		why = *err;
		nova_error_prefix(&why, "old points of guest %s", reception->replica->guest);
		nova_run_fail(reception->run, &why);
		return;
	}
	reception->at++;
	finish_row(reception, merge_next(reception, &why), &why);
}

static enum nova_step_result merge_next(struct nova_reception *reception, struct nova_error *err)
{
	size_t place = merging_at(reception), at = reception->at;
	const json_t *into = json_object_get(merging_of(reception), "into");
	const json_t *point = json_array_get(points_of(reception), place), *above = json_array_get(points_of(reception), place + 1);
	json_t *args;

	if (at >= json_array_size(into))
		return merged_all(reception, err);
	args = json_pack("{s:O, s:O}", "path", json_array_get(json_object_get(point, "files"), at), "into", json_array_get(into, at));
	if (above && json_integer_value(json_object_get(above, "base")) == id_of(point))
		json_object_set(args, "above", json_array_get(json_object_get(above, "files"), at));
	return call(reception, NOVA_VERB_REPLICA_MERGE, args, merged, err);
}

static enum nova_step_result begin_merge(struct nova_reception *reception, struct nova_error *err)
{
	reception->at = 0;
	nova_replica_set_merging(reception->replica, true);
	return merge_next(reception, err);
}

/* The point is none any more; what it was is in the journal as long as its successor is not merged. */
static enum nova_step_result merge_into(struct nova_reception *reception, size_t at, struct nova_error *err)
{
	struct nova_replica *replica = reception->replica;
	json_t *before = nova_replica_change(replica, err), *points, *point, *merging;
	bool made;

	if (!before)
		return NOVA_STEP_FAILED;
	points = points_of(reception);
	point = json_array_get(points, at);
	merging = json_pack("{s:O, s:O, s:O}", "point", json_object_get(json_array_get(points, at + 1), "id"), "base",
	    json_object_get(point, "base"), "into", json_object_get(point, "files"));
	made = json_object_set_new(replica->body, "merging", merging) == 0;
	json_array_remove(points, at);
	return nova_replica_changed(replica, before, made, err) < 0 ? NOVA_STEP_FAILED : begin_merge(reception, err);
}

static enum nova_step_result remove_point(struct nova_reception *reception, size_t at, struct nova_error *err)
{
	json_t *before = nova_replica_change(reception->replica, err);
	NOVA_AUTOJSON json_t *old = NULL;

	if (!before)
		return NOVA_STEP_FAILED;
	old = json_incref(json_array_get(points_of(reception), at));
	json_array_remove(points_of(reception), at);
	if (nova_replica_changed(reception->replica, before, true, err) < 0)
		return NOVA_STEP_FAILED;
	remove_files(json_object_get(old, "files"));
	return thin_more(reception, err);
}

static enum nova_step_result thin_more(struct nova_reception *reception, struct nova_error *err)
{
	size_t at = 0;
	enum nova_thin what = what_to_thin(reception, &at);

	if (what == NOVA_THIN_MERGE)
		return merge_into(reception, at, err);
	return what == NOVA_THIN_REMOVE ? remove_point(reception, at, err) : NOVA_STEP_DONE;
}

/* One that was broken off is done again first, as soon as nobody uses the images. */
static enum nova_step_result run_thin(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct nova_reception *reception = ctx;
	struct nova_thin_point found[THIN_MAX];
	size_t count = describe(reception, found), at = merging_at(reception);

	if (!merging_of(reception))
		return thin_more(reception, err);
	return at >= count || !nova_thin_idle(found, count, at) ? NOVA_STEP_DONE : begin_merge(reception, err);
}

/* ---- make ---- */

static const json_t *newest_of(const struct nova_reception *reception)
{
	json_t *points = points_of(reception);

	return json_array_get(points, json_array_size(points) - 1);
}

static enum nova_step_result make_next(struct nova_reception *reception, struct nova_error *err);

static void made(void *arg, json_t *result, const struct nova_error *err)
{
	struct nova_reception *reception = arg;
	struct nova_error why;

	reception->op = NULL;
	if (err) {
		why = *err;
		nova_run_fail(reception->run, &why);
		return;
	}
	reception->at++;
	finish_row(reception, make_next(reception, &why), &why);
}

static enum nova_step_result make_next(struct nova_reception *reception, struct nova_error *err)
{
	const struct nova_replica *replica = reception->replica;
	size_t at = reception->at;
	json_t *args;

	if (at == reception->count)
		return NOVA_STEP_DONE;
	args = json_pack("{s:s, s:O, s:O}", "path", reception->part[at].path, "size",
	    json_object_get(json_array_get(json_object_get(replica->body, "disks"), at), "size"), "directory",
	    json_object_get(replica->body, "directory"));
	if (reception->delta)
		json_object_set(args, "backing", json_array_get(json_object_get(newest_of(reception), "files"), at));
	return call(reception, NOVA_VERB_REPLICA_MAKE, args, made, err);
}

static enum nova_step_result run_make(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct nova_reception *reception = ctx;

	reception->at = 0;
	return make_next(reception, err);
}

static enum nova_step_result undo_make(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct nova_reception *reception = ctx;

	for (size_t i = 0; i < reception->count && !reception->recorded; i++)
		unlink(reception->part[i].path);
	return NOVA_STEP_DONE;
}

/* ---- serve ---- */

static bool all(const struct nova_reception *reception, size_t offset)
{
	for (size_t i = 0; i < reception->count; i++)
		if (!*(const bool *)((const char *)&reception->part[i] + offset))
			return false;
	return true;
}
#define ALL(reception, member) all(reception, offsetof(struct part, member))

static void look_for_end(struct nova_reception *reception)
{
	if (row_is(reception, "receive") && reception->commit && ALL(reception, arrived) && ALL(reception, served))
		nova_run_done(reception->run);
}

static void server_failed(struct part *part, const struct nova_error *err)
{
	struct nova_error why = *err;

	nova_error_prefix(&why, "%s of guest %s", part->name, part->reception->replica->guest);
	give_up(part->reception, &why);
}

static void server_ended(void *arg, json_t *result, const struct nova_error *err)
{
	struct part *part = arg;

	part->server = NULL;
	if (err) {
		server_failed(part, err);
		return;
	}
	part->served = true;
	look_for_end(part->reception);
}

static void seed_server_ended(void *arg, json_t *result, const struct nova_error *err)
{
	struct part *part = arg;

	part->seed_server = NULL;
	if (err)
		server_failed(part, err);
}

static struct nova_op *serve(struct part *part, const char *path, const char *format, const char *socket, bool writable,
    nova_done_fn done, struct nova_error *err)
{
	NOVA_AUTOJSON json_t *args = json_pack("{s:s, s:s, s:s, s:s, s:b}", "path", path, "format", format, "socket", socket,
	    "export", part->name, "writable", writable);

	return nova_slot_call(part->reception->replica->slot, NOVA_VERB_REPLICA_SERVE, NULL, args, done, part, err);
}

/* What is here of the disk already, to compare with: only new whole images want that. */
static int find_seed(struct part *part, size_t i, struct nova_error *err)
{
	const struct nova_reception *reception = part->reception;
	const struct nova_replica *replica = reception->replica;
	const char *seed = json_string_value(json_array_get(json_object_get(newest_of(reception), "files"), i)), *format = "qcow2";
	const struct nova_entry *entry = nova_entry_find(replica->host, replica->guest);
	unsigned number = 0;

	/* The guest ran here once: its disks are still there. */
	if (!seed && entry && nova_entry_at_rest(entry) && !strcmp(entry->uuid, nova_replica_text(replica, "uuid")) &&
	    sscanf(part->name, "disk%u", &number) == 1) {
		const json_t *old = json_array_get(json_object_get(entry->guest.spec, "disk"), number);

		seed = json_string_value(json_object_get(old, "path"));
		format = text_of(old, "format");
	}
	if (reception->delta || !seed || access(seed, R_OK) < 0)
		return 0;
	part->seed_path = strdup(seed);
	part->seed_format = strdup(format);
	return part->seed_path && part->seed_format ? 0 : nova_error_sys(err, ENOMEM, "%s", part->name);
}

/* Seen twice: it was bound the first time, and listens the second. */
static void look_for_servers(evutil_socket_t fd, short what, void *arg)
{
	struct nova_reception *reception = arg;
	bool ready = true;

	for (size_t i = 0; i < reception->count; i++) {
		struct part *part = &reception->part[i];

		ready &= part->listening;
		part->listening = access(part->socket, F_OK) == 0 && (!part->seed_path || access(part->seed_socket, F_OK) == 0);
	}
	if (!ready)
		return;
	event_free(nova_take(&reception->look));
	nova_run_done(reception->run);
}

static enum nova_step_result run_serve(struct nova_run *run, void *ctx, struct nova_error *err)
{
	const struct timeval period = nova_timeval_ms(LOOK_MS);
	struct nova_reception *reception = ctx;

	for (size_t i = 0; i < reception->count; i++) {
		struct part *part = &reception->part[i];

		if (find_seed(part, i, err) < 0)
			return NOVA_STEP_FAILED;
		part->server = serve(part, part->path, "qcow2", part->socket, true, server_ended, err);
		if (part->server && part->seed_path)
			part->seed_server =
			    serve(part, part->seed_path, part->seed_format, part->seed_socket, false, seed_server_ended, err);
		if (!part->server || (part->seed_path && !part->seed_server))
			return NOVA_STEP_FAILED;
	}
	reception->look = event_new(reception->replica->host->base, -1, EV_PERSIST, look_for_servers, reception);
	if (reception->look && event_add(reception->look, &period) == 0)
		return NOVA_STEP_WAIT;
	nova_error_sys(err, ENOMEM, "point of guest %s", reception->replica->guest);
	return NOVA_STEP_FAILED;
}

static void close_part(struct part *part)
{
	part->way = nova_disk_in_free(part->way);
	nova_op_drop(nova_take(&part->server));
	nova_op_drop(nova_take(&part->seed_server));
	if (part->socket)
		unlink(part->socket);
	if (part->seed_socket)
		unlink(part->seed_socket);
}

static enum nova_step_result undo_serve(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct nova_reception *reception = ctx;

	for (size_t i = 0; i < reception->count; i++)
		close_part(&reception->part[i]);
	return NOVA_STEP_DONE;
}

/* ---- receive ---- */

static void way_ready(void *arg)
{
}

/* All has come: its server sees the end of our connection, syncs, and ends. */
static void way_ended(void *arg, const struct nova_error *err)
{
	struct part *part = arg;
	uint8_t digest[16];
	uint64_t bytes;

	if (err) {
		server_failed(part, err);
		return;
	}
	nova_disk_in_digest(part->way, digest, &bytes);
	part->digest =
	    json_pack("{s:s, s:o, s:I}", "disk", part->name, "digest", nova_digest_json(digest), "bytes", (json_int_t)bytes);
	part->way = nova_disk_in_free(part->way);
	part->arrived = true;
	look_for_end(part->reception);
}

static const struct nova_disk_events way_events = { way_ready, way_ended };

void nova_reception_channel(struct nova_reception *reception, uint16_t id, struct nova_channel *channel)
{
	size_t i = (size_t)id - NOVA_DISK_CHANNEL;
	struct part *part = i < reception->count ? &reception->part[i] : NULL;
	struct nova_host *host = reception->replica->host;
	struct nova_error err;

	if (!part || part->way || part->arrived || !row_is(reception, "receive")) {
		channel->ops->free(channel);
		nova_error_set(&err, NOVA_INVALID, "channel %u belongs to no disk that is expected", id);
		give_up(reception, &err);
		return;
	}
	part->way = nova_disk_in_new(host->base, host->plugins->links, channel, part->socket, part->name,
	    part->seed_path ? part->name : NULL, part->seed_socket, &way_events, part, &err);
	if (!part->way)
		give_up(reception, &err);
}

static enum nova_step_result run_receive(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct nova_reception *reception = ctx;

	answer(reception, &reception->begin, NULL);
	return NOVA_STEP_WAIT;
}

/* ---- record ---- */

static int check_digests(const struct nova_reception *reception, struct nova_error *err)
{
	const json_t *digests = json_object_get(reception->commit_args, "digests");

	if (json_array_size(digests) != reception->count)
		return nova_error_set(err, NOVA_REFUSED, "%zu disks are expected, %zu were sent", reception->count,
		    json_array_size(digests));
	for (size_t i = 0; i < reception->count; i++)
		if (!json_equal(json_array_get(digests, i), reception->part[i].digest))
			return nova_error_set(err, NOVA_REFUSED, "%s differs from what was sent", reception->part[i].name);
	return 0;
}

/* NULL: no memory. */
static json_t *point_json(const struct nova_reception *reception)
{
	json_t *files = json_array();
	const json_t *args = reception->commit_args;

	for (size_t i = 0; i < reception->count; i++)
		if (json_array_append_new(files, json_string(reception->part[i].path)) < 0) {
			json_decref(files);
			return NULL;
		}
	return json_pack("{s:I, s:s, s:I, s:I, s:I, s:I, s:s, s:o}", "id", reception->id, "kind", reception->delta ? "delta" : "base",
	    "base", reception->delta ? id_of(newest_of(reception)) : 0, "taken_ms",
	    json_integer_value(json_object_get(args, "taken_ms")), "received_ms", (json_int_t)nova_wall_ms(), "bytes",
	    json_integer_value(json_object_get(args, "bytes")), "consistency",
	    strcmp(text_of(args, "consistency"), "application") ? "crash" : "application", "files", files);
}

/* Bases that nothing stands on: this one takes their place. */
static int remove_idle_bases(struct nova_reception *reception, json_t *removed)
{
	json_t *points = points_of(reception);

	while (!reception->delta && newest_of(reception) && !strcmp(text_of(newest_of(reception), "kind"), "base")) {
		if (json_array_extend(removed, json_object_get(newest_of(reception), "files")) < 0)
			return -1;
		json_array_remove(points, json_array_size(points) - 1);
	}
	return 0;
}

static void tell_recorded(const struct nova_reception *reception, const json_t *point)
{
	const struct nova_replica *replica = reception->replica;

	nova_host_emit(replica->host, "REPLICA_RECEIVED",
	    json_pack("{s:s, s:s, s:s, s:I, s:O, s:O, s:O}", "guest", replica->guest, "owner", replica->owner, "peer", replica->peer,
		"point", reception->id, "kind", json_object_get(point, "kind"), "taken_ms", json_object_get(point, "taken_ms"),
		"consistency", json_object_get(point, "consistency")));
}

static enum nova_step_result run_record(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct nova_reception *reception = ctx;
	struct nova_replica *replica = reception->replica;
	NOVA_AUTOJSON json_t *removed = json_array(), *point = NULL;
	json_t *before;
	bool made;

	if (check_digests(reception, err) < 0 || !(before = nova_replica_change(replica, err)))
		return NOVA_STEP_FAILED;
	point = point_json(reception);
	made = remove_idle_bases(reception, removed) == 0 && json_array_append(points_of(reception), point) == 0 &&
	       json_object_set_new(replica->body, "last_id", json_integer(reception->id)) == 0;
	if (nova_replica_changed(replica, before, made, err) < 0)
		return NOVA_STEP_FAILED;
	reception->recorded = true;
	remove_files(removed);
	tell_recorded(reception, point);
	answer(reception, &reception->commit, NULL);
	return NOVA_STEP_DONE;
}

static const struct nova_step nova_reception_steps[] = {
	/* what        how          take it back  stop waiting  limit_ms */
	{ "thin",      run_thin,    NULL,         drop },
	{ "make",      run_make,    undo_make,    drop,         60000 },
	{ "serve",     run_serve,   undo_serve,   drop,         SERVE_LIMIT_MS },
	{ "receive",   run_receive, NULL,         NULL },
	{ "record",    run_record,  NULL,         NULL },
	{ NULL },
};

/* ---- the reception ---- */

static struct nova_reception *reception_free(struct nova_reception *reception)
{
	struct nova_error err;

	nova_run_free(reception->run);
	nova_op_drop(reception->op);
	nova_replica_set_merging(reception->replica, false);
	if (reception->look)
		event_free(reception->look);
	nova_error_set(&err, NOVA_CANCELLED, "the point was given up");
	answer(reception, &reception->begin, &err);
	answer(reception, &reception->commit, &err);
	for (size_t i = 0; i < reception->count; i++) {
		struct part *part = &reception->part[i];

		close_part(part);
		if (!reception->recorded && part->path)
			unlink(part->path);
		json_decref(part->digest);
		free(part->name);
		free(part->path);
		free(part->socket);
		free(part->seed_path);
		free(part->seed_format);
		free(nova_take(&part->seed_socket));
	}
	json_decref(reception->commit_args);
	if (reception->slot)
		*reception->slot = NULL;
	if (reception->replica->reception == reception)
		reception->replica->reception = NULL;
	free(reception);
	return NULL;
}

static void ended(void *ctx, enum nova_outcome outcome, const struct nova_error *err, const char *notes)
{
	struct nova_reception *reception = ctx;

	reception->run = NULL;
	if (outcome != NOVA_COMPLETED) {
		nova_host_log(reception->replica->host, NOVA_LOG_INFO, "point %lld of guest %s: %s", (long long)reception->id,
		    reception->replica->guest, err->text);
		answer(reception, &reception->begin, err);
		answer(reception, &reception->commit, err);
	}
	reception_free(reception);
}

static int before_row(void *ctx, const struct nova_step *step, bool undo, struct nova_error *err)
{
	const struct nova_replica *replica = ((struct nova_reception *)ctx)->replica;

	return nova_fault_hook(replica->host, replica->token, "replica", "standby", step->name, undo, err);
}

static const struct nova_run_events run_events = { .before = before_row, .ended = ended };

static int name_part(struct nova_reception *reception, size_t i, struct nova_error *err)
{
	struct nova_replica *replica = reception->replica;
	struct part *part = &reception->part[i];
	const char *directory = nova_replica_text(replica, "directory");
	const char *runtime = nova_config_text(replica->host->config, "runtime-dir");

	part->reception = reception;
	part->name = strdup(text_of(json_array_get(json_object_get(replica->body, "disks"), i), "disk"));
	if (!part->name ||
	    asprintf(&part->path, "%s/%s.%lld.qcow2", directory, part->name, (long long)reception->id) < 0 ||
	    asprintf(&part->socket, "%s/replica-%.8s-%s.sock", runtime, replica->token, part->name) < 0 ||
	    asprintf(&part->seed_socket, "%s/replica-%.8s-%s-seed.sock", runtime, replica->token, part->name) < 0)
		return nova_error_sys(err, ENOMEM, "point of guest %s", replica->guest);
	return 0;
}

int nova_reception_begin(struct nova_replica *replica, struct nova_reception **slot, json_t *args,
    struct nova_request *request, struct nova_error *err)
{
	size_t count = json_array_size(json_object_get(replica->body, "disks"));
	json_int_t id = json_integer_value(json_object_get(args, "point"));
	bool delta = !strcmp(text_of(args, "kind"), "delta");
	struct nova_reception *reception;

	if (strcmp(nova_replica_text(replica, "state"), "standby"))
		return nova_error_set(err, NOVA_STATE, "guest %s was started here, or is about to be", replica->guest);
	if (*slot)
		return nova_error_set(err, NOVA_STATE, "this session has a point on its way already");
	if (id <= json_integer_value(json_object_get(replica->body, "last_id")))
		return nova_error_set(err, NOVA_INVALID, "replica-begin: point must be above %lld",
		    (long long)json_integer_value(json_object_get(replica->body, "last_id")));
	if (delta && !json_array_size(nova_replica_points(replica)))
		return nova_error_set(err, NOVA_STATE, "there is nothing that a delta could stand on");
	if (json_array_size(nova_replica_points(replica)) >= CHAIN_MAX)
		return nova_error_set(err, NOVA_REFUSED,
		    "guest %s has %zu points here that are in use by others started from them: delete those first", replica->guest,
		    json_array_size(nova_replica_points(replica)));
	nova_reception_drop(replica); /* of a session that nobody comes back to */
	reception = calloc(1, sizeof(*reception) + count * sizeof(*reception->part));
	if (!reception)
		return nova_error_sys(err, ENOMEM, "point of guest %s", replica->guest);
	reception->replica = replica;
	reception->id = id;
	reception->delta = delta;
	replica->reception = reception;
	for (; reception->count < count; reception->count++)
		if (name_part(reception, reception->count, err) < 0) {
			reception->count++;
			reception_free(reception);
			return -1;
		}
	reception->run = nova_run_new(replica->host->base, nova_reception_steps, NULL, false, &run_events, reception, err);
	if (!reception->run) {
		reception_free(reception);
		return -1;
	}
	nova_fault_limit(replica->host, reception->run);
	reception->slot = slot;
	*slot = reception;
	reception->begin = request;
	return 0;
}

int nova_reception_commit(struct nova_reception *reception, json_t *args, struct nova_request *request, struct nova_error *err)
{
	if (reception->commit || !row_is(reception, "receive") ||
	    json_integer_value(json_object_get(args, "point")) != reception->id)
		return nova_error_set(err, NOVA_STATE, "point %lld is not on its way here",
		    (long long)json_integer_value(json_object_get(args, "point")));
	reception->commit_args = json_incref(args);
	reception->commit = request;
	look_for_end(reception);
	return 0;
}

void nova_reception_lost(struct nova_reception *reception, const struct nova_error *why)
{
	reception->slot = NULL;
	give_up(reception, why);
}

void nova_reception_drop(struct nova_replica *replica)
{
	if (replica->reception)
		reception_free(replica->reception);
}
