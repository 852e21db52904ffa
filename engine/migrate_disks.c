/* SPDX-License-Identifier: Apache-2.0
 *
 * migrate_disks.c - the source's half of carried disks: rows "disks" and "detach" of a migration, and the figures
 * of both. See migrate_disks.h.
 */
#include "migrate_disks.h"

#include "cleanup.h"
#include "migrate.h"
#include "socket.h"

#include <errno.h>
#include <event2/event.h>
#include <stdio.h>
#include <string.h>

struct disk {
	struct nova_disks_out *disks;   /* borrowed */
	char *name;                     /* owned: "disk0" */
	char *path;                     /* owned: of the socket that the hypervisor connects to */
	struct nova_disk_out *way;      /* owned */
	struct event *listening;        /* owned */
	int listen_fd;                  /* owned */
	bool ready, mirrored, ended;
	uint64_t done_bytes, total_bytes;
};

struct nova_disks_out {
	struct nova_source *source; /* borrowed */
	struct event *tick;         /* owned */
	struct nova_op *query;      /* owned */
	size_t count;
	bool detached; /* the hypervisor has let go of all */
	struct disk disk[];
};

bool nova_disks_any(const struct nova_source *source)
{
	return json_array_size(json_object_get(source->job->args, "carried")) > 0;
}

static struct nova_job *job_of(const struct nova_disks_out *disks)
{
	return disks->source->job;
}

static bool row_is(const struct nova_job *job, const char *name)
{
	return job->run && !nova_run_undoing(job->run) && nova_run_step(job->run) &&
	       !strcmp(nova_run_step(job->run)->name, name);
}

static bool copying(const struct nova_job *job)
{
	return row_is(job, "disks") || row_is(job, "cold disks");
}

static void give_up(struct nova_disks_out *disks, const struct nova_error *why)
{
	struct nova_job *job = job_of(disks);
	struct nova_error ignored;

	if (job->run)
		nova_run_cancel(job->run, why, &ignored);
}

/* ---- the end ---- */

static void close_disk(struct disk *disk)
{
	disk->way = nova_disk_out_free(disk->way);
	if (disk->listening)
		event_free(nova_take(&disk->listening));
	if (disk->listen_fd >= 0)
		close(nova_take_fd(&disk->listen_fd));
	if (disk->path)
		unlink(disk->path);
	free(nova_take(&disk->path));
	free(nova_take(&disk->name));
}

static void stop_looking(struct nova_disks_out *disks)
{
	nova_op_drop(nova_take(&disks->query));
	if (disks->tick)
		event_free(nova_take(&disks->tick));
}

struct nova_disks_out *nova_disks_free(struct nova_disks_out *disks)
{
	if (!disks)
		return NULL;
	stop_looking(disks);
	for (size_t i = 0; i < disks->count; i++)
		close_disk(&disks->disk[i]);
	free(disks);
	return NULL;
}

/* ---- looking at the copies ---- */

static struct disk *find(struct nova_disks_out *disks, const char *name)
{
	for (size_t i = 0; name && i < disks->count; i++)
		if (!strcmp(disks->disk[i].name, name))
			return &disks->disk[i];
	return NULL;
}

static bool all_mirrored(const struct nova_disks_out *disks)
{
	for (size_t i = 0; i < disks->count; i++)
		if (!disks->disk[i].mirrored)
			return false;
	return true;
}

static void looked(void *arg, json_t *result, const struct nova_error *err)
{
	struct nova_disks_out *disks = arg;
	struct nova_source *source = disks->source;
	json_t *seen;
	size_t i;

	disks->query = NULL;
	if (err) /* a failed copy is told by its event; a slow answer only means no news */
		return;
	json_array_foreach (json_object_get(result, "disks"), i, seen) {
		struct disk *disk = find(disks, json_string_value(json_object_get(seen, "disk")));

		if (!disk)
			continue;
		disk->mirrored = json_is_true(json_object_get(seen, "ready"));
		disk->done_bytes = (uint64_t)json_integer_value(json_object_get(seen, "done_bytes"));
		disk->total_bytes = (uint64_t)json_integer_value(json_object_get(seen, "total_bytes"));
	}
	if (!copying(source->job))
		return;
	if (nova_now_ms() - source->progress_ms >= NOVA_PROGRESS_MS)
		nova_watch_progress(source, NULL);
	if (all_mirrored(disks))
		nova_run_done(source->job->run);
}

static void look(evutil_socket_t fd, short what, void *arg)
{
	struct nova_disks_out *disks = arg;
	struct nova_job *job = job_of(disks);
	struct nova_error err;

	if (disks->query || !job->entry || disks->detached)
		return;
	disks->query =
	    nova_slot_call(job->slot, NOVA_VERB_MIRROR_QUERY, &job->entry->guest, NULL, looked, disks, &err);
}

static int start_looking(struct nova_disks_out *disks, struct nova_error *err)
{
	const struct timeval period = nova_timeval_ms(NOVA_TICK_MS);

	disks->tick = event_new(job_of(disks)->host->base, -1, EV_PERSIST, look, disks);
	if (!disks->tick || event_add(disks->tick, &period) < 0)
		return nova_error_sys(err, ENOMEM, "disks of guest %s", job_of(disks)->guest_name);
	return 0;
}

/* ---- the ways ---- */

static enum nova_step_result mirrors_begun(struct nova_job *job, json_t *result, struct nova_error *err)
{
	struct nova_source *source = job->ctx;

	return start_looking(source->disks, err) < 0 ? NOVA_STEP_FAILED : NOVA_STEP_WAIT;
}

/* Everything is ready over there: the hypervisor may begin. */
static void begin_mirrors(struct nova_disks_out *disks)
{
	struct nova_job *job = job_of(disks);
	json_t *list = json_array(), *carried = json_object_get(job->args, "carried");
	json_t *served = disks->source->served;
	struct nova_error err;

	for (size_t i = 0; i < disks->count; i++)
		json_array_append_new(list,
		    json_pack("{s:s, s:s, s:O?, s:O?, s:O?}", "disk", disks->disk[i].name, "path", disks->disk[i].path,
			"file", json_object_get(json_array_get(carried, i), "path"), "size",
			json_object_get(json_array_get(carried, i), "size"), "sync",
			json_object_get(json_array_get(served, i), "sync")));
	if (nova_job_call_then(job, NOVA_VERB_MIRROR_START, json_pack("{s:o}", "disks", list), mirrors_begun, &err) ==
	    NOVA_STEP_FAILED)
		nova_run_fail(job->run, &err);
}

static void accept_disk(evutil_socket_t fd, short what, void *arg)
{
	struct disk *disk = arg;
	struct nova_error err;
	int socket = nova_unix_accept(fd);

	if (socket < 0 && (errno == EAGAIN || errno == EINTR || errno == ECONNABORTED))
		return;
	if (socket < 0)
		nova_error_sys(&err, errno, "connection of %s", disk->name);
	if (socket < 0 || nova_disk_out_join(disk->way, socket, &err) < 0)
		give_up(disk->disks, &err);
}

static int listen_for_disk(struct disk *disk, struct nova_error *err)
{
	struct nova_job *job = job_of(disk->disks);

	if (asprintf(&disk->path, "%s/guests/%s/%s.sock", nova_config_text(job->host->config, "runtime-dir"),
		job->guest_name, disk->name) < 0) {
		disk->path = NULL;
		return nova_error_sys(err, ENOMEM, "%s", disk->name);
	}
	disk->listen_fd = nova_unix_listen(disk->path, err);
	if (disk->listen_fd < 0)
		return -1;
	disk->listening = event_new(job->host->base, disk->listen_fd, EV_READ | EV_PERSIST, accept_disk, disk);
	if (!disk->listening || event_add(disk->listening, NULL) < 0)
		return nova_error_sys(err, ENOMEM, "%s", disk->name);
	return 0;
}

static void way_ready(void *arg)
{
	struct disk *disk = arg;
	struct nova_disks_out *disks = disk->disks;
	struct nova_error err;

	disk->ready = true;
	if (listen_for_disk(disk, &err) < 0) {
		give_up(disks, &err);
		return;
	}
	for (size_t i = 0; i < disks->count; i++)
		if (!disks->disk[i].ready)
			return;
	if (copying(job_of(disks)))
		begin_mirrors(disks);
}

static void maybe_detached(struct nova_disks_out *disks)
{
	for (size_t i = 0; i < disks->count; i++)
		if (!disks->disk[i].ended)
			return;
	if (disks->detached && row_is(job_of(disks), "detach"))
		nova_run_done(job_of(disks)->run);
}

static void way_ended(void *arg, const struct nova_error *err)
{
	struct disk *disk = arg;
	struct nova_error why;

	if (!err) {
		disk->ended = true;
		maybe_detached(disk->disks);
		return;
	}
	why = *err;
	nova_error_prefix(&why, "%s of guest %s", disk->name, job_of(disk->disks)->guest_name);
	give_up(disk->disks, &why);
}

static const struct nova_disk_events way_events = { way_ready, way_ended };

static int open_way(struct nova_disks_out *disks, size_t i, enum nova_codec codec, struct nova_error *err)
{
	struct nova_source *source = disks->source;
	struct disk *disk = &disks->disk[i];
	const json_t *carried = json_array_get(json_object_get(source->job->args, "carried"), i);
	const char *name = json_string_value(json_object_get(carried, "disk"));
	struct nova_channel *channel;

	disk->disks = disks;
	disk->listen_fd = -1;
	disk->name = strdup(name ? name : "");
	if (!disk->name)
		return nova_error_sys(err, ENOMEM, "disks");
	channel = source->ops->channel(
	    source->session, (uint16_t)(NOVA_DISK_CHANNEL + i), NOVA_CHANNEL_DISK, NULL, NULL, err);
	if (!channel)
		return -1;
	disk->way =
	    nova_disk_out_new(source->job->host->base, source->ops, channel, codec, &way_events, disk, err);
	return disk->way ? 0 : -1;
}

/* ---- rows ---- */

enum nova_step_result nova_disks_run(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct nova_job *job = ctx;
	struct nova_source *source = job->ctx;
	size_t count = json_array_size(json_object_get(job->args, "carried"));
	struct nova_disks_out *disks;

	if (!count)
		return NOVA_STEP_DONE;
	if (json_array_size(source->served) != count) {
		nova_error_set(err, NOVA_REFUSED, "%s does not take the disks of guest %s", job->peer, job->guest_name);
		return NOVA_STEP_FAILED;
	}
	if (!source->session) {
		nova_error_set(err, NOVA_LINK, "the link to %s is gone", job->peer);
		return NOVA_STEP_FAILED;
	}
	disks = calloc(1, sizeof(*disks) + count * sizeof(*disks->disk));
	if (!disks) {
		nova_error_sys(err, ENOMEM, "disks of guest %s", job->guest_name);
		return NOVA_STEP_FAILED;
	}
	disks->source = source;
	source->disks = disks;
	for (; disks->count < count; disks->count++)
		if (open_way(disks, disks->count, nova_source_codec(source), err) < 0) {
			disks->count++; /* half open: to be closed too */
			return NOVA_STEP_FAILED;
		}
	return NOVA_STEP_WAIT;
}

void nova_disks_drop(struct nova_run *run, void *ctx)
{
	struct nova_source *source = ((struct nova_job *)ctx)->ctx;

	nova_job_drop_op(run, ctx);
	if (source->disks)
		nova_op_drop(nova_take(&source->disks->query));
}

/* A restarted daemon comes here, too, with nothing but the guest's hypervisor left. */
enum nova_step_result nova_disks_undo(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct nova_job *job = ctx;
	struct nova_source *source = job->ctx;
	enum nova_guest_state state = job->entry->guest.state;

	/* First our ends: a mirror that waits for an answer from over there is not cancelled before its connection ends. */
	source->disks = nova_disks_free(source->disks);
	if (!nova_disks_any(source) || state == NOVA_GUEST_STOPPED || state == NOVA_GUEST_FAILED)
		return NOVA_STEP_DONE;
	return nova_job_call(job, NOVA_VERB_MIRROR_END, json_pack("{s:b}", "cancel", 1), err);
}

static enum nova_step_result let_go(struct nova_job *job, json_t *result, struct nova_error *err)
{
	struct nova_disks_out *disks = ((struct nova_source *)job->ctx)->disks;

	disks->detached = true;
	for (size_t i = 0; i < disks->count; i++) {
		if (!disks->disk[i].ended)
			return NOVA_STEP_WAIT;
		disks->disk[i].done_bytes = disks->disk[i].total_bytes;
	}
	return NOVA_STEP_DONE;
}

enum nova_step_result nova_disks_detach(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct nova_job *job = ctx;
	struct nova_source *source = job->ctx;

	if (!nova_disks_any(source))
		return NOVA_STEP_DONE;
	stop_looking(source->disks);
	return nova_job_call_then(
	    job, NOVA_VERB_MIRROR_END, json_pack("{s:I}", "count", (json_int_t)source->disks->count), let_go, err);
}

void nova_disks_event(struct nova_source *source, json_t *data)
{
	const char *status = json_string_value(json_object_get(data, "status"));
	const char *error = json_string_value(json_object_get(data, "error"));
	const char *name = json_string_value(json_object_get(data, "disk"));
	struct nova_error why;

	if (!source->disks || !status || row_is(source->job, "detach") || nova_run_undoing(source->job->run))
		return;
	if (source->disks->detached)
		return;
	nova_error_set(&why, NOVA_REFUSED, "the copy of %s ended early: %s", name ? name : "a disk",
	    error ? error : status);
	give_up(source->disks, &why);
}

/* ---- figures ---- */

static void add_stats(struct nova_disk_stats *sum, const struct nova_disk_stats *one)
{
	sum->written_bytes += one->written_bytes;
	sum->same_bytes += one->same_bytes;
	sum->zero_bytes += one->zero_bytes;
	sum->seed_bytes += one->seed_bytes;
	sum->pipe.out.raw_bytes += one->pipe.out.raw_bytes;
	sum->pipe.out.encoded_bytes += one->pipe.out.encoded_bytes;
}

void nova_disks_sum(const struct nova_source *source, struct nova_disks_sum *sum)
{
	const struct nova_disks_out *disks = source->disks;

	*sum = (struct nova_disks_sum) { 0 };
	for (size_t i = 0; disks && i < disks->count; i++) {
		const struct disk *disk = &disks->disk[i];
		struct nova_disk_stats stats = { 0 };

		if (disk->way)
			nova_disk_out_stats(disk->way, &stats);
		add_stats(&sum->ways, &stats);
		sum->total_bytes += disk->total_bytes;
		sum->done_bytes += disk->done_bytes;
	}
	if (sum->total_bytes > sum->done_bytes)
		sum->remaining_bytes = sum->total_bytes - sum->done_bytes;
}

json_t *nova_disks_report(const struct nova_source *source)
{
	const struct nova_disks_out *disks = source->disks;
	json_t *list = json_array();

	for (size_t i = 0; disks && i < disks->count; i++) {
		struct nova_disk_stats stats = { 0 };

		if (disks->disk[i].way)
			nova_disk_out_stats(disks->disk[i].way, &stats);
		json_array_append_new(list,
		    json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I}", "disk", disks->disk[i].name, "copied_bytes",
			(json_int_t)disks->disk[i].total_bytes, "written_bytes", (json_int_t)stats.written_bytes,
			"same_bytes", (json_int_t)stats.same_bytes, "zero_bytes", (json_int_t)stats.zero_bytes,
			"encoded_bytes", (json_int_t)stats.pipe.out.encoded_bytes, "older_copy_bytes",
			(json_int_t)stats.seed_bytes));
	}
	return list;
}

json_t *nova_disks_digests(const struct nova_source *source)
{
	const struct nova_disks_out *disks = source->disks;
	json_t *list = json_array();

	for (size_t i = 0; disks && i < disks->count; i++) {
		uint8_t digest[16];
		uint64_t bytes;

		nova_disk_out_digest(disks->disk[i].way, digest, &bytes);
		json_array_append_new(list, json_pack("{s:s, s:o, s:I}", "disk", disks->disk[i].name, "digest",
					       nova_digest_json(digest), "bytes", (json_int_t)bytes));
	}
	return list;
}
