/* SPDX-License-Identifier: Apache-2.0
 *
 * disk_in.c - the destination's end of a disk's way: an NBD client of the hypervisor that has the new disk.
 *
 * The handshake first; then, if there is an older copy, it is read through an export of its own (4 requests of
 * up to 1 MiB at a time) and its hashes are told. From then on records become requests again, in order: while
 * named blocks are read, what follows them waits. A block of the older copy that is not what it was when its
 * hash was told ends the migration; nothing of it is written.
 */
#include "cleanup.h"
#include "disk_record.h"
#include "nbd.h"
#include "nbd_reader.h"
#include "socket.h"

#include <errno.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define SCAN_AT_ONCE 4u
#define SCAN_BYTES (1u << 20)

struct nova_disk_in {
	struct event_base *base;
	struct nova_pipe *pipe;         /* owned */
	struct bufferevent *records;    /* owned: to the pipe */
	struct bufferevent *hypervisor; /* owned */
	struct nova_nbd_reader *seed;   /* owned; NULL: no older copy */
	struct event *report;           /* owned */
	char *name;                     /* owned: of the export */
	const struct nova_disk_events *events;
	void *arg;

	struct nova_nbd_client client;
	struct disk_info info;
	bool open, seed_open, described, ready, disconnecting, finished, ended, broken, told;
	struct nova_error error;
	uint8_t *hashes;          /* owned */
	uint32_t asked, hashed;   /* blocks of the scan: asked for, and known */
	uint32_t fetched, wanted; /* next block that is fetched, and the end of the named ones; equal: none */
	struct nova_disk_stats stats;
};

static size_t queued(struct bufferevent *side)
{
	return evbuffer_get_length(bufferevent_get_output(side));
}

/* ---- the end ---- */

static void on_report(evutil_socket_t fd, short what, void *arg)
{
	struct nova_disk_in *in = arg;

	if (in->told)
		return;
	in->told = true;
	in->events->ended(in->arg, in->broken ? &in->error : NULL);
}

static void broke(struct nova_disk_in *in, const struct nova_error *why)
{
	if (in->broken || in->ended)
		return;
	in->broken = true;
	in->error = *why;
	bufferevent_disable(in->hypervisor, EV_READ | EV_WRITE);
	bufferevent_disable(in->records, EV_READ | EV_WRITE);
	event_active(in->report, 0, 0);
}

/* The end is told when our own direction of the channel is finished, too: whoever frees it earlier resets it, and the
 * source takes that for giving up. */
static void pipe_ended(void *arg, unsigned ended, const struct nova_error *err)
{
	struct nova_disk_in *in = arg;

	if (in->ended && (err || ended & NOVA_PIPE_TO_CHANNEL))
		event_active(in->report, 0, 0);
	else if (err)
		broke(in, err);
}

/* All that the source sent is with the hypervisor: let its server and the source see the end. */
static void end_if_done(struct nova_disk_in *in)
{
	if (!in->finished || !in->disconnecting || in->ended || in->broken || in->fetched != in->wanted || queued(in->hypervisor))
		return;
	in->ended = true;
	shutdown(bufferevent_getfd(in->hypervisor), SHUT_WR);
	shutdown(bufferevent_getfd(in->records), SHUT_WR);
}

/* ---- the older copy ---- */

static uint32_t scan_step(const struct nova_disk_in *in)
{
	uint32_t step = SCAN_BYTES / in->info.seed_block;

	return step ? step : 1;
}

static int ask_for(struct nova_disk_in *in, uint32_t first, uint32_t count, struct nova_error *err)
{
	return nova_nbd_reader_read(in->seed, (uint64_t)first * in->info.seed_block, count * in->info.seed_block, err);
}

static int scan_more(struct nova_disk_in *in, struct nova_error *err)
{
	uint32_t step = scan_step(in);

	while (in->asked < in->info.seed_blocks && in->asked - in->hashed < SCAN_AT_ONCE * step) {
		uint32_t left = in->info.seed_blocks - in->asked, count = left < step ? left : step;

		if (ask_for(in, in->asked, count, err) < 0)
			return -1;
		in->asked += count;
	}
	return 0;
}

static void tell_ready(struct nova_disk_in *in)
{
	in->ready = true;
	disk_record_put(bufferevent_get_output(in->records), DISK_READY, 0);
}

static int scanned(struct nova_disk_in *in, const uint8_t *data, uint32_t count, struct nova_error *err)
{
	struct evbuffer *out = bufferevent_get_output(in->records);
	uint8_t *at = in->hashes + (size_t)in->hashed * NOVA_DISK_HASH_BYTES;

	for (uint32_t i = 0; i < count; i++)
		disk_hash(data + (size_t)i * in->info.seed_block, in->info.seed_block, at + i * NOVA_DISK_HASH_BYTES);
	disk_record_put(out, DISK_HASHES, count * NOVA_DISK_HASH_BYTES);
	evbuffer_add(out, at, count * NOVA_DISK_HASH_BYTES);
	in->hashed += count;
	if (in->hashed == in->info.seed_blocks)
		tell_ready(in);
	return scan_more(in, err);
}

static void take_records(struct nova_disk_in *in);

/* A named block has come: it is written if it is still what it was. */
static int fetch_done(struct nova_disk_in *in, const uint8_t *data, uint32_t count, struct nova_error *err)
{
	uint8_t hash[NOVA_DISK_HASH_BYTES];

	for (uint32_t i = 0; i < count; i++) {
		disk_hash(data + (size_t)i * in->info.seed_block, in->info.seed_block, hash);
		if (memcmp(hash, in->hashes + (size_t)(in->fetched + i) * NOVA_DISK_HASH_BYTES, sizeof(hash)))
			return nova_error_set(err, NOVA_REFUSED,
			    "the older copy of disk %s changed while it was used", in->name);
	}
	evbuffer_add(bufferevent_get_output(in->hypervisor), data, (size_t)count * in->info.seed_block);
	in->fetched += count;
	in->stats.same_bytes += (uint64_t)count * in->info.seed_block;
	return 0;
}

static void seed_got(void *arg, uint64_t offset, const uint8_t *data, size_t length)
{
	struct nova_disk_in *in = arg;
	uint32_t count = (uint32_t)(length / in->info.seed_block);
	struct nova_error err = { 0 };

	if (in->broken)
		return;
	if ((in->ready ? fetch_done : scanned)(in, data, count, &err) < 0)
		broke(in, &err);
	else if (in->ready && in->fetched == in->wanted)
		take_records(in);
}

static void describe(struct nova_disk_in *in)
{
	struct nova_error err;

	if (!in->open || (in->seed && !in->seed_open) || in->described)
		return;
	in->described = true;
	in->info.size_bytes = in->client.export.size_bytes;
	in->info.flags = in->client.export.flags;
	in->info.block_min = in->client.export.block_min;
	in->info.block_preferred = in->client.export.block_preferred;
	in->info.block_max = in->client.export.block_max;
	in->hashes = calloc(in->info.seed_blocks + 1, NOVA_DISK_HASH_BYTES);
	disk_info_put(bufferevent_get_output(in->records), &in->info);
	if (!in->info.seed_blocks)
		tell_ready(in);
	else if (!in->hashes)
		broke(in, (nova_error_sys(&err, ENOMEM, "hashes of disk %s", in->name), &err));
	else if (scan_more(in, &err) < 0)
		broke(in, &err);
}

static void seed_opened(void *arg, const struct nova_nbd_export *export)
{
	struct nova_disk_in *in = arg;
	uint64_t blocks;

	in->seed_open = true;
	in->info.seed_block = disk_block_bytes(export->size_bytes);
	blocks = export->size_bytes / in->info.seed_block;
	in->info.seed_blocks = blocks < NOVA_DISK_BLOCKS_MAX ? (uint32_t)blocks : NOVA_DISK_BLOCKS_MAX;
	in->stats.seed_bytes = export->size_bytes;
	describe(in);
}

static void seed_failed(void *arg, const struct nova_error *err)
{
	struct nova_disk_in *in = arg;
	struct nova_error why = *err;

	if (in->ended)
		return;
	nova_error_prefix(&why, "older copy of disk %s", in->name);
	broke(in, &why);
}

static const struct nova_nbd_reader_events seed_events = { seed_opened, seed_got, seed_failed };

/* ---- records of the source ---- */

static int take_same(struct nova_disk_in *in, struct evbuffer *from, uint32_t length, struct nova_error *err)
{
	uint32_t first, count, step = in->info.seed_blocks ? scan_step(in) : 1;

	if (disk_same_get(from, length, in->info.seed_blocks, &first, &count, err) < 0)
		return -1;
	if ((uint64_t)count * in->info.seed_block > NOVA_NBD_DATA_MAX)
		return nova_error_set(err, NOVA_INVALID, "more blocks were named than a request carries");
	in->fetched = first;
	in->wanted = first + count;
	for (uint32_t at = first; at < in->wanted; at += step)
		if (ask_for(in, at, in->wanted - at < step ? in->wanted - at : step, err) < 0)
			return -1;
	return 0;
}

static int take_record(
    struct nova_disk_in *in, const struct disk_record *record, struct evbuffer *from, struct nova_error *err)
{
	if (!in->ready)
		return nova_error_set(err, NOVA_INVALID, "requests came before the disk was ready");
	if (record->type == DISK_DATA) {
		evbuffer_remove_buffer(from, bufferevent_get_output(in->hypervisor), record->length);
		return 0;
	}
	if (record->type == DISK_END && !record->length) {
		in->disconnecting = true;
		return 0;
	}
	if (record->type == DISK_SAME)
		return take_same(in, from, record->length, err);
	return nova_error_set(err, NOVA_INVALID, "a record of unknown type %u came", record->type);
}

static void take_records(struct nova_disk_in *in)
{
	struct evbuffer *from = bufferevent_get_input(in->records);
	struct disk_record record;
	struct nova_error err;
	int result = 1;

	while (result > 0 && !in->broken && in->fetched == in->wanted) {
		if (queued(in->hypervisor) > DISK_QUEUE_BYTES) {
			bufferevent_disable(in->records, EV_READ);
			return;
		}
		result = disk_record_get(from, &record, &err);
		if (result > 0 && take_record(in, &record, from, &err) < 0)
			result = -1;
	}
	if (result < 0)
		broke(in, &err);
	else
		end_if_done(in);
}

static void records_read(struct bufferevent *side, void *arg)
{
	take_records(arg);
}

static void records_written(struct bufferevent *side, void *arg)
{
	struct nova_disk_in *in = arg;

	if (!in->broken && !in->ended)
		bufferevent_enable(in->hypervisor, EV_READ);
}

static void records_gone(struct bufferevent *side, short what, void *arg)
{
	struct nova_disk_in *in = arg;
	struct nova_error err;

	if (what & BEV_EVENT_EOF) {
		in->finished = true;
		take_records(in);
		if (!in->disconnecting)
			broke(in, (nova_error_set(&err, NOVA_LINK, "the source gave disk %s up", in->name), &err));
	} else if (what & BEV_EVENT_ERROR) {
		nova_error_set(&err, NOVA_LINK, "disk %s: its way broke", in->name);
		broke(in, &err);
	}
}

/* ---- the hypervisor ---- */

static void hypervisor_read(struct bufferevent *side, void *arg)
{
	struct nova_disk_in *in = arg;
	struct evbuffer *from = bufferevent_get_input(side);
	struct nova_error err;
	int result;

	if (in->broken || in->ended)
		return;
	if (!in->open) {
		result = nova_nbd_client_step(&in->client, from, bufferevent_get_output(side), &err);
		if (result < 0)
			broke(in, &err);
		if (result <= 0)
			return;
		in->open = true;
		describe(in);
	}
	disk_record_move(bufferevent_get_output(in->records), DISK_ANSWER, from, evbuffer_get_length(from));
	if (queued(in->records) > DISK_QUEUE_BYTES)
		bufferevent_disable(side, EV_READ);
}

static void hypervisor_written(struct bufferevent *side, void *arg)
{
	struct nova_disk_in *in = arg;

	if (in->broken)
		return;
	bufferevent_enable(in->records, EV_READ);
	take_records(in);
}

static void hypervisor_gone(struct bufferevent *side, short what, void *arg)
{
	struct nova_disk_in *in = arg;
	struct nova_error err;

	if (!(what & (BEV_EVENT_EOF | BEV_EVENT_ERROR)) || in->ended)
		return;
	if (in->disconnecting) /* it closes by itself then */
		return;
	nova_error_set(&err, NOVA_REFUSED, "the hypervisor closed disk %s", in->name);
	broke(in, &err);
}

/* ---- the interface ---- */

static struct bufferevent *join(struct nova_disk_in *in, int fd, bufferevent_data_cb read,
    bufferevent_data_cb written, bufferevent_event_cb gone, struct nova_error *err)
{
	struct bufferevent *side =
	    bufferevent_socket_new(in->base, fd, BEV_OPT_CLOSE_ON_FREE | BEV_OPT_DEFER_CALLBACKS);

	if (!side) {
		close(fd);
		nova_error_sys(err, ENOMEM, "a disk's way");
		return NULL;
	}
	bufferevent_setwatermark(side, EV_READ, 0, DISK_READ_BYTES);
	bufferevent_setwatermark(side, EV_WRITE, DISK_QUEUE_BYTES / 4, 0);
	bufferevent_setcb(side, read, written, gone, in);
	bufferevent_enable(side, EV_READ | EV_WRITE);
	return side;
}

/* channel is stolen once the pipe is made; before, the caller frees it. */
static int open_ways(struct nova_disk_in *in, const struct nova_link_ops *links, struct nova_channel **channel,
    const char *path, const char *seed, const char *seed_path, struct nova_error *err)
{
	struct nova_pipe_options options = { .out.codec = NOVA_CODEC_LZ4 };
	int fd[2] = { nova_unix_connect(path, err), -1 };

	in->hypervisor =
	    fd[0] < 0 ? NULL : join(in, fd[0], hypervisor_read, hypervisor_written, hypervisor_gone, err);
	if (!in->hypervisor || nova_unix_pair(fd, err) < 0)
		return -1;
	in->records = join(in, fd[0], records_read, records_written, records_gone, err);
	if (!in->records) {
		close(fd[1]);
		return -1;
	}
	in->pipe = nova_pipe_new(in->base, links, fd[1], nova_take(channel), &options, pipe_ended, in, err);
	if (!in->pipe)
		return -1;
	if (!seed)
		return 0;
	in->seed = nova_nbd_reader_new(in->base, seed_path ? seed_path : path, seed, &seed_events, in, err);
	return in->seed ? 0 : -1;
}

struct nova_disk_in *nova_disk_in_new(struct event_base *base, const struct nova_link_ops *links,
    struct nova_channel *channel, const char *path, const char *name, const char *seed, const char *seed_path,
    const struct nova_disk_events *events, void *arg, struct nova_error *err)
{
	struct nova_disk_in *in = calloc(1, sizeof(*in));

	if (in) {
		in->base = base;
		in->events = events;
		in->arg = arg;
		in->name = strdup(name);
		in->client.name = in->name;
		in->report = event_new(base, -1, 0, on_report, in);
	}
	if (!in || !in->name || !in->report)
		nova_error_sys(err, ENOMEM, "disk %s", name);
	else if (open_ways(in, links, &channel, path, seed, seed_path, err) == 0)
		return in;
	if (channel)
		channel->ops->free(channel);
	return nova_disk_in_free(in);
}

void nova_disk_in_stats(const struct nova_disk_in *in, struct nova_disk_stats *stats)
{
	*stats = in->stats;
	nova_pipe_stats(in->pipe, &stats->pipe);
}

void nova_disk_in_digest(const struct nova_disk_in *in, uint8_t digest[16], uint64_t *bytes)
{
	nova_pipe_digest_in(in->pipe, digest, bytes);
}

struct nova_disk_in *nova_disk_in_free(struct nova_disk_in *in)
{
	if (!in)
		return NULL;
	nova_pipe_free(in->pipe);
	nova_nbd_reader_free(in->seed);
	if (in->records)
		bufferevent_free(in->records);
	if (in->hypervisor)
		bufferevent_free(in->hypervisor);
	if (in->report)
		event_free(in->report);
	free(in->name);
	free(in->hashes);
	free(in);
	return NULL;
}
