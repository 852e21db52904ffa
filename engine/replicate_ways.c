/* SPDX-License-Identifier: Apache-2.0
 *
 * replicate_ways.c - the ways of a point's disks: a channel and a socket each. See replicate.h; the same for a
 * migration is migrate_disks.c, whose copies follow the guest.
 */
#include "cleanup.h"
#include "migrate.h"
#include "replicate.h"
#include "socket.h"

#include <errno.h>
#include <event2/event.h>
#include <stdio.h>
#include <string.h>

struct way {
	struct nova_ways *ways;    /* borrowed */
	char *name, *path;         /* owned */
	struct nova_disk_out *out; /* owned */
	struct event *listening;   /* owned */
	int listen_fd;             /* owned */
	bool ready, ended;
};

struct nova_ways {
	struct nova_host *host; /* borrowed */
	const struct nova_ways_events *events;
	void *arg;
	char *where; /* owned */
	size_t count;
	bool failed;
	struct way way[];
};

static void fail(struct nova_ways *ways, const struct nova_error *why)
{
	if (ways->failed)
		return;
	ways->failed = true;
	ways->events->ended(ways->arg, why);
}

static void accept_disk(evutil_socket_t fd, short what, void *arg)
{
	struct way *way = arg;
	struct nova_error err;
	int socket = nova_unix_accept(fd);

	if (socket < 0 && (errno == EAGAIN || errno == EINTR || errno == ECONNABORTED))
		return;
	if (socket < 0)
		nova_error_sys(&err, errno, "connection of %s", way->name);
	if (socket < 0 || nova_disk_out_join(way->out, socket, &err) < 0)
		fail(way->ways, &err);
}

static int listen_for_disk(struct way *way, struct nova_error *err)
{
	if (asprintf(&way->path, "%s/point-%s.sock", way->ways->where, way->name) < 0) {
		way->path = NULL;
		return nova_error_sys(err, ENOMEM, "%s", way->name);
	}
	way->listen_fd = nova_unix_listen(way->path, err);
	if (way->listen_fd < 0)
		return -1;
	way->listening = event_new(way->ways->host->base, way->listen_fd, EV_READ | EV_PERSIST, accept_disk, way);
	if (!way->listening || event_add(way->listening, NULL) < 0)
		return nova_error_sys(err, ENOMEM, "%s", way->name);
	return 0;
}

static void way_ready(void *arg)
{
	struct way *way = arg;
	struct nova_ways *ways = way->ways;
	struct nova_error err;

	way->ready = true;
	if (listen_for_disk(way, &err) < 0) {
		fail(ways, &err);
		return;
	}
	for (size_t i = 0; i < ways->count; i++)
		if (!ways->way[i].ready)
			return;
	ways->events->ready(ways->arg);
}

static void way_ended(void *arg, const struct nova_error *err)
{
	struct way *way = arg;
	struct nova_ways *ways = way->ways;
	struct nova_error why;

	if (err) {
		why = *err;
		nova_error_prefix(&why, "%s", way->name);
		fail(ways, &why);
		return;
	}
	way->ended = true;
	for (size_t i = 0; i < ways->count; i++)
		if (!ways->way[i].ended)
			return;
	ways->events->ended(ways->arg, NULL);
}

static const struct nova_disk_events way_events = { way_ready, way_ended };

static int open_way(struct nova_ways *ways, size_t i, struct nova_session *session, const json_t *names,
    struct nova_error *err)
{
	const struct nova_link_ops *links = ways->host->plugins->links;
	struct way *way = &ways->way[i];
	const char *name = json_string_value(json_object_get(json_array_get(names, i), "disk"));
	struct nova_channel *channel;

	way->ways = ways;
	way->listen_fd = -1;
	way->name = strdup(name ? name : "");
	if (!way->name)
		return nova_error_sys(err, ENOMEM, "disks");
	channel = links->channel(session, (uint16_t)(NOVA_DISK_CHANNEL + i), NOVA_CHANNEL_DISK, NULL, NULL, err);
	if (!channel)
		return -1;
	way->out = nova_disk_out_new(ways->host->base, links, channel, NOVA_CODEC_AUTO, &way_events, way, err);
	return way->out ? 0 : -1;
}

struct nova_ways *nova_ways_new(struct nova_host *host, struct nova_session *session, const json_t *names,
    const char *where, const struct nova_ways_events *events, void *arg, struct nova_error *err)
{
	size_t count = json_array_size(names);
	struct nova_ways *ways = calloc(1, sizeof(*ways) + count * sizeof(*ways->way));

	if (!ways || !(ways->where = strdup(where))) {
		free(ways);
		nova_error_sys(err, ENOMEM, "disks");
		return NULL;
	}
	ways->host = host;
	ways->events = events;
	ways->arg = arg;
	for (; ways->count < count; ways->count++)
		if (open_way(ways, ways->count, session, names, err) < 0) {
			ways->count++; /* half open: to be closed, too */
			return nova_ways_free(ways);
		}
	return ways;
}

const char *nova_ways_path(const struct nova_ways *ways, size_t i)
{
	return i < ways->count ? ways->way[i].path : NULL;
}

void nova_ways_stats(const struct nova_ways *ways, struct nova_disk_stats *sum)
{
	*sum = (struct nova_disk_stats) { 0 };
	for (size_t i = 0; ways && i < ways->count; i++) {
		struct nova_disk_stats one;

		if (!ways->way[i].out)
			continue;
		nova_disk_out_stats(ways->way[i].out, &one);
		sum->written_bytes += one.written_bytes;
		sum->same_bytes += one.same_bytes;
		sum->zero_bytes += one.zero_bytes;
		sum->seed_bytes += one.seed_bytes;
		sum->pipe.out.raw_bytes += one.pipe.out.raw_bytes;
		sum->pipe.out.encoded_bytes += one.pipe.out.encoded_bytes;
	}
}

json_t *nova_ways_digests(const struct nova_ways *ways)
{
	json_t *list = json_array();

	for (size_t i = 0; i < ways->count; i++) {
		uint8_t digest[16];
		uint64_t bytes;

		nova_disk_out_digest(ways->way[i].out, digest, &bytes);
		json_array_append_new(list, json_pack("{s:s, s:o, s:I}", "disk", ways->way[i].name, "digest",
					       nova_digest_json(digest), "bytes", (json_int_t)bytes));
	}
	return list;
}

struct nova_ways *nova_ways_free(struct nova_ways *ways)
{
	if (!ways)
		return NULL;
	for (size_t i = 0; i < ways->count; i++) {
		struct way *way = &ways->way[i];

		nova_disk_out_free(way->out);
		if (way->listening)
			event_free(way->listening);
		if (way->listen_fd >= 0)
			close(way->listen_fd);
		if (way->path)
			unlink(way->path);
		free(way->path);
		free(way->name);
	}
	free(ways->where);
	free(ways);
	return NULL;
}
