/* SPDX-License-Identifier: Apache-2.0
 *
 * disk_out.c - the source's end of a disk's way: an NBD server for the hypervisor that mirrors its disk.
 *
 * Between the hypervisor's socket and one end of a pair of sockets, whose other end belongs to the pipe (codec,
 * channel). A block of a write request that lies on a block of the destination's older copy is hashed and, if
 * it is the same there, named. Neighbours are named together. Held at most: 4 MiB read ahead, 1 MiB that waits
 * for either socket, and the hashes.
 */
#include "cleanup.h"
#include "disk_record.h"
#include "nbd.h"
#include "socket.h"

#include <errno.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

struct nova_disk_out {
	struct event_base *base;
	struct nova_pipe *pipe;         /* owned */
	struct bufferevent *records;    /* owned: to the pipe */
	struct bufferevent *hypervisor; /* owned; NULL: not connected yet */
	struct event *report;           /* owned */
	const struct nova_disk_events *events;
	void *arg;

	bool described, ready, serving, disconnected, hung_up, ended, broken, told;
	struct nova_error error;
	struct disk_info info;
	uint8_t *hashes; /* owned */
	uint32_t hashes_known;
	struct nova_nbd_server server;

	uint64_t write_at;     /* where the content that follows belongs */
	uint32_t write_left;   /* bytes of it still to come */
	uint32_t same_first, same_count; /* named, not yet told */
	struct nova_disk_stats stats;
};

/* ---- the end ---- */

static void on_report(evutil_socket_t fd, short what, void *arg)
{
	struct nova_disk_out *out = arg;

	if (out->told)
		return;
	out->told = true;
	out->events->ended(out->arg, out->broken ? &out->error : NULL);
}

/* A hypervisor that halts its guest waits for what it asked for, deaf to all else: it gets its end at once. */
static void broke(struct nova_disk_out *out, const struct nova_error *why)
{
	if (out->broken || out->ended)
		return;
	out->broken = true;
	out->error = *why;
	if (out->hypervisor) {
		bufferevent_disable(out->hypervisor, EV_READ | EV_WRITE);
		shutdown(bufferevent_getfd(out->hypervisor), SHUT_RDWR);
	}
	bufferevent_disable(out->records, EV_READ | EV_WRITE);
	event_active(out->report, 0, 0);
}

static void pipe_ended(void *arg, unsigned ended, const struct nova_error *err)
{
	struct nova_disk_out *out = arg;

	if (err)
		broke(out, err);
	else if ((ended & NOVA_PIPE_TO_CHANNEL) && out->disconnected && !out->ended) {
		out->ended = true;
		event_active(out->report, 0, 0);
	}
}

/* ---- requests of the hypervisor ---- */

static void tell_same(struct nova_disk_out *out)
{
	if (out->same_count)
		disk_same_put(bufferevent_get_output(out->records), out->same_first, out->same_count);
	out->same_count = 0;
}

static void pass_on(struct nova_disk_out *out, struct evbuffer *in, size_t length)
{
	tell_same(out);
	disk_record_move(bufferevent_get_output(out->records), DISK_DATA, in, length);
}

/* The number of the seed's block that lies whole in what is still to come and begins here, or -1. */
static int64_t seed_block(const struct nova_disk_out *out)
{
	uint32_t bytes = out->info.seed_block;

	if (!out->info.seed_blocks || out->write_at % bytes || out->write_left < bytes ||
	    out->write_at / bytes >= out->info.seed_blocks)
		return -1;
	return (int64_t)(out->write_at / bytes);
}

static bool is_same(struct nova_disk_out *out, struct evbuffer *in, uint32_t block)
{
	const uint8_t *data = evbuffer_pullup(in, out->info.seed_block);
	uint8_t hash[NOVA_DISK_HASH_BYTES];

	if (!data)
		return false;
	disk_hash(data, out->info.seed_block, hash);
	return memcmp(hash, out->hashes + (size_t)block * NOVA_DISK_HASH_BYTES, sizeof(hash)) == 0;
}

static void name_block(struct nova_disk_out *out, struct evbuffer *in, uint32_t block)
{
	if (out->same_count && out->same_first + out->same_count != block)
		tell_same(out);
	if (!out->same_count)
		out->same_first = block;
	out->same_count++;
	out->stats.same_bytes += out->info.seed_block;
	evbuffer_drain(in, out->info.seed_block);
}

/* Up to where no block of the seed begins. */
static size_t plain_bytes(const struct nova_disk_out *out)
{
	uint32_t bytes = out->info.seed_block;
	uint64_t to_next = out->info.seed_blocks ? bytes - out->write_at % bytes : out->write_left;

	return to_next < out->write_left ? to_next : out->write_left;
}

/* Some content of a write request. Bytes taken; 0: more must come first. */
static size_t take_content(struct nova_disk_out *out, struct evbuffer *in)
{
	size_t have = evbuffer_get_length(in), piece = plain_bytes(out);
	int64_t block = seed_block(out);

	if (block >= 0) {
		piece = out->info.seed_block;
		if (have < piece)
			return 0;
		if (is_same(out, in, (uint32_t)block))
			name_block(out, in, (uint32_t)block);
		else
			pass_on(out, in, piece);
	} else {
		if (piece > have)
			piece = have;
		if (piece)
			pass_on(out, in, piece);
	}
	out->write_at += piece;
	out->write_left -= (uint32_t)piece;
	return piece;
}

/* 1, 0: more must come, -1. */
static int take_request(struct nova_disk_out *out, struct evbuffer *in, struct nova_error *err)
{
	struct evbuffer *records = bufferevent_get_output(out->records);
	struct nova_nbd_request request;
	int result = nova_nbd_request_get(in, out->info.size_bytes, &request, err);

	if (result <= 0)
		return result;
	tell_same(out);
	if (request.type == NOVA_NBD_DISCONNECT)
		disk_record_put(records, DISK_END, 0);
	disk_record_put(records, DISK_DATA, NOVA_NBD_REQUEST_BYTES);
	nova_nbd_request_put(records, &request);
	out->write_at = request.offset;
	out->write_left = nova_nbd_payload(&request);
	out->stats.written_bytes += out->write_left;
	if (request.type == NOVA_NBD_TRIM || request.type == NOVA_NBD_WRITE_ZEROES)
		out->stats.zero_bytes += request.length;
	if (request.type == NOVA_NBD_DISCONNECT)
		out->disconnected = true;
	return 1;
}

static size_t queued(struct bufferevent *side)
{
	return evbuffer_get_length(bufferevent_get_output(side));
}

/* What is there, until it is used up, the way is full, or the turn is over. */
static void take_requests(struct nova_disk_out *out)
{
	struct evbuffer *in = bufferevent_get_input(out->hypervisor);
	struct nova_error err;
	size_t taken = 0;
	int result = 1;

	while (result > 0 && !out->disconnected) {
		if (queued(out->records) > DISK_QUEUE_BYTES) {
			bufferevent_disable(out->hypervisor, EV_READ);
			return;
		}
		if (taken > DISK_TURN_BYTES) {
			bufferevent_trigger(out->hypervisor, EV_READ, BEV_TRIG_DEFER_CALLBACKS);
			return;
		}
		if (out->write_left) {
			size_t piece = take_content(out, in);

			taken += piece;
			result = piece > 0;
		} else {
			result = take_request(out, in, &err);
		}
	}
	tell_same(out);
	if (result == 0 && out->hung_up && !out->disconnected)
		result = nova_error_set(&err, NOVA_REFUSED, "the hypervisor closed the disk's connection");
	if (result < 0)
		broke(out, &err);
}

/* Finish towards the pipe when all that is queued has gone there. */
static void finish_if_done(struct nova_disk_out *out)
{
	if (out->hung_up && out->disconnected && queued(out->records) == 0)
		shutdown(bufferevent_getfd(out->records), SHUT_WR);
}

static void hypervisor_read(struct bufferevent *side, void *arg)
{
	struct nova_disk_out *out = arg;
	struct nova_error err;
	int result = out->serving;

	if (out->broken || out->ended)
		return;
	if (!out->serving)
		result = nova_nbd_server_step(
		    &out->server, bufferevent_get_input(side), bufferevent_get_output(side), &err);
	if (result < 0)
		broke(out, &err);
	out->serving |= result > 0;
	if (out->serving)
		take_requests(out);
	finish_if_done(out);
}

/* Requests that were read before may still wait for their turn. */
static void hypervisor_gone(struct bufferevent *side, short what, void *arg)
{
	struct nova_disk_out *out = arg;

	if (!(what & (BEV_EVENT_EOF | BEV_EVENT_ERROR)) || out->broken)
		return;
	out->hung_up = true;
	if (out->serving)
		take_requests(out);
	finish_if_done(out);
}

static void hypervisor_written(struct bufferevent *side, void *arg)
{
	struct nova_disk_out *out = arg;

	if (!out->broken)
		bufferevent_enable(out->records, EV_READ);
}

/* ---- records of the destination ---- */

static int take_info(struct nova_disk_out *out, struct evbuffer *in, uint32_t length, struct nova_error *err)
{
	if (out->described)
		return nova_error_set(err, NOVA_INVALID, "the disk was described twice");
	if (disk_info_get(in, length, &out->info, err) < 0)
		return -1;
	out->described = true;
	out->stats.seed_bytes = (uint64_t)out->info.seed_block * out->info.seed_blocks;
	out->hashes = calloc(out->info.seed_blocks + 1, NOVA_DISK_HASH_BYTES);
	return out->hashes ? 0 : nova_error_sys(err, ENOMEM, "hashes of a disk");
}

static int take_hashes(struct nova_disk_out *out, struct evbuffer *in, uint32_t length, struct nova_error *err)
{
	uint32_t count = length / NOVA_DISK_HASH_BYTES;

	if (out->ready || length % NOVA_DISK_HASH_BYTES || count > out->info.seed_blocks - out->hashes_known)
		return nova_error_set(err, NOVA_INVALID, "more hashes came than the older copy has blocks");
	evbuffer_remove(in, out->hashes + (size_t)out->hashes_known * NOVA_DISK_HASH_BYTES, length);
	out->hashes_known += count;
	return 0;
}

static int take_ready(struct nova_disk_out *out, uint32_t length, struct nova_error *err)
{
	if (!out->described || out->ready || length || out->hashes_known != out->info.seed_blocks)
		return nova_error_set(err, NOVA_INVALID, "the disk is said to be ready too early");
	out->ready = true;
	out->server.export = (struct nova_nbd_export) {
		.size_bytes = out->info.size_bytes,
		.flags = out->info.flags,
		.block_min = out->info.block_min,
		.block_preferred = out->info.block_preferred,
		.block_max = out->info.block_max,
	};
	out->events->ready(out->arg);
	return 0;
}

static int take_record(
    struct nova_disk_out *out, const struct disk_record *record, struct evbuffer *in, struct nova_error *err)
{
	switch (record->type) {
	case DISK_INFO:
		return take_info(out, in, record->length, err);
	case DISK_HASHES:
		return take_hashes(out, in, record->length, err);
	case DISK_READY:
		return take_ready(out, record->length, err);
	case DISK_ANSWER:
		if (out->hypervisor && !out->hung_up)
			evbuffer_remove_buffer(in, bufferevent_get_output(out->hypervisor), record->length);
		else
			evbuffer_drain(in, record->length);
		return 0;
	default:
		return nova_error_set(err, NOVA_INVALID, "a record of unknown type %u came", record->type);
	}
}

static void records_read(struct bufferevent *side, void *arg)
{
	struct nova_disk_out *out = arg;
	struct evbuffer *in = bufferevent_get_input(side);
	struct disk_record record;
	struct nova_error err;
	int result = 1;

	while (result > 0 && !out->broken) {
		if (out->hypervisor && !out->hung_up && queued(out->hypervisor) > DISK_QUEUE_BYTES) {
			bufferevent_disable(side, EV_READ);
			return;
		}
		result = disk_record_get(in, &record, &err);
		if (result > 0 && take_record(out, &record, in, &err) < 0)
			result = -1;
	}
	if (result < 0)
		broke(out, &err);
}

static void records_written(struct bufferevent *side, void *arg)
{
	struct nova_disk_out *out = arg;

	if (out->broken)
		return;
	finish_if_done(out);
	if (!out->hypervisor)
		return;
	if (!out->hung_up)
		bufferevent_enable(out->hypervisor, EV_READ);
	if (evbuffer_get_length(bufferevent_get_input(out->hypervisor)))
		bufferevent_trigger(out->hypervisor, EV_READ, BEV_TRIG_DEFER_CALLBACKS);
}

static void records_gone(struct bufferevent *side, short what, void *arg)
{
	struct nova_disk_out *out = arg;
	struct nova_error err;

	if (!(what & (BEV_EVENT_EOF | BEV_EVENT_ERROR)) || out->disconnected)
		return;
	nova_error_set(&err, NOVA_REFUSED, "the destination gave the disk up");
	broke(out, &err);
}

/* ---- the interface ---- */

int nova_disk_out_join(struct nova_disk_out *out, int fd, struct nova_error *err)
{
	if (out->hypervisor || !out->ready) {
		close(fd);
		return nova_error_set(err, NOVA_STATE, "the disk has a connection already, or is not ready for one");
	}
	out->hypervisor =
	    bufferevent_socket_new(out->base, fd, BEV_OPT_CLOSE_ON_FREE | BEV_OPT_DEFER_CALLBACKS);
	if (!out->hypervisor) {
		close(fd);
		return nova_error_sys(err, ENOMEM, "a disk's connection");
	}
	bufferevent_setwatermark(out->hypervisor, EV_READ, 0, DISK_READ_BYTES);
	bufferevent_setwatermark(out->hypervisor, EV_WRITE, DISK_QUEUE_BYTES / 4, 0);
	bufferevent_setcb(out->hypervisor, hypervisor_read, hypervisor_written, hypervisor_gone, out);
	bufferevent_enable(out->hypervisor, EV_READ | EV_WRITE);
	hypervisor_read(out->hypervisor, out);
	return 0;
}

static int open_records(struct nova_disk_out *out, const struct nova_link_ops *links,
    struct nova_channel *channel, enum nova_codec codec, struct nova_error *err)
{
	struct nova_pipe_options options = { .out.codec = codec, .in.codec = NOVA_CODEC_NONE };
	int fd[2];

	if (nova_unix_pair(fd, err) < 0) {
		channel->ops->free(channel);
		return -1;
	}
	out->records = bufferevent_socket_new(out->base, fd[0], BEV_OPT_CLOSE_ON_FREE | BEV_OPT_DEFER_CALLBACKS);
	if (!out->records) {
		close(fd[0]);
		close(fd[1]);
		channel->ops->free(channel);
		return nova_error_sys(err, ENOMEM, "a disk's way");
	}
	bufferevent_setwatermark(out->records, EV_READ, 0, DISK_READ_BYTES);
	bufferevent_setwatermark(out->records, EV_WRITE, DISK_QUEUE_BYTES / 4, 0);
	bufferevent_setcb(out->records, records_read, records_written, records_gone, out);
	bufferevent_enable(out->records, EV_READ | EV_WRITE);
	out->pipe = nova_pipe_new(out->base, links, fd[1], channel, &options, pipe_ended, out, err);
	return out->pipe ? 0 : -1;
}

struct nova_disk_out *nova_disk_out_new(struct event_base *base, const struct nova_link_ops *links,
    struct nova_channel *channel, enum nova_codec codec, const struct nova_disk_events *events, void *arg,
    struct nova_error *err)
{
	struct nova_disk_out *out = calloc(1, sizeof(*out));

	if (out)
		out->report = event_new(base, -1, 0, on_report, out);
	if (!out || !out->report) {
		free(out);
		channel->ops->free(channel);
		nova_error_sys(err, ENOMEM, "a disk's way");
		return NULL;
	}
	out->base = base;
	out->events = events;
	out->arg = arg;
	if (open_records(out, links, channel, codec, err) < 0)
		return nova_disk_out_free(out);
	return out;
}

void nova_disk_out_stats(const struct nova_disk_out *out, struct nova_disk_stats *stats)
{
	*stats = out->stats;
	nova_pipe_stats(out->pipe, &stats->pipe);
}

void nova_disk_out_digest(const struct nova_disk_out *out, uint8_t digest[16], uint64_t *bytes)
{
	nova_pipe_digest_out(out->pipe, digest, bytes);
}

struct nova_disk_out *nova_disk_out_free(struct nova_disk_out *out)
{
	if (!out)
		return NULL;
	nova_pipe_free(out->pipe);
	if (out->hypervisor)
		bufferevent_free(out->hypervisor);
	if (out->records)
		bufferevent_free(out->records);
	event_free(out->report);
	free(out->hashes);
	free(out);
	return NULL;
}
