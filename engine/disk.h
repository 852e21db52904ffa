/* SPDX-License-Identifier: Apache-2.0
 *
 * disk.h - one disk's way from the source's hypervisor to the destination's.
 *
 *   hypervisor --NBD--> disk_out ==records==> codec, channel, codec ==records==> disk_in --NBD--> hypervisor
 *
 * Both NBD handshakes are local, so that no hypervisor waits for the far side while it holds still. After them
 * requests and replies are passed on as they are, with one exception: where the destination has an older
 * copy of the disk (the seed), it tells the hashes of its blocks first, and a written block that has the same
 * content there is named instead of sent. The destination reads it from the seed, compares its hash, and only
 * then writes it.
 *
 * Records: u8 type, u32 length (big-endian, at most DISK_RECORD_MAX), payload.
 *
 *   destination to source                              source to destination
 *   'I' the export: size, flags, block sizes;          'D' bytes of the hypervisor's requests
 *       seed: bytes a block, number of blocks          'S' u32 first, u32 count: these blocks of the seed stand
 *   'H' u32 first, hashes of 32 bytes (SHA-256)            here in the bytes
 *   'R' all hashes were told
 *   'A' bytes of the hypervisor's replies              'E' the next request is the last: disconnect
 *
 * Limits: a block has 4 KiB, what file systems write at least; more for seeds of more than 8 GiB, so that there are at
 * most 2^21 hashes (64 MiB) on each side. Not here: which disks, and when (migrate_disks.c).
 */
#ifndef NOVA_DISK_H
#define NOVA_DISK_H

#include "pipe.h"

#define NOVA_DISK_HASH_BYTES 32u
#define NOVA_DISK_BLOCK_MIN 4096u
#define NOVA_DISK_BLOCKS_MAX (1u << 21)

struct nova_disk_stats {
	uint64_t written_bytes; /* content of write requests */
	uint64_t same_bytes;    /* of these: named, not sent */
	uint64_t zero_bytes;    /* cleared or discarded without content */
	uint64_t seed_bytes;    /* of the older copy at the destination */
	struct nova_pipe_stats pipe;
};

struct nova_disk_events {
	/* The destination's export and hashes are known: the hypervisor may connect (disk_out only). */
	void (*ready)(void *arg);
	/* The end, once, from the loop; may free the end. err NULL: the source's hypervisor disconnected in order
	 * and everything was passed on. */
	void (*ended)(void *arg, const struct nova_error *err);
};

/* ---- the source's end ---- */

struct nova_disk_out;
/* channel is stolen, also on failure. codec: what written data is packed with. */
struct nova_disk_out *nova_disk_out_new(struct event_base *base, const struct nova_link_ops *links,
    struct nova_channel *channel, enum nova_codec codec, const struct nova_disk_events *events, void *arg,
    struct nova_error *err);
/* The hypervisor's connection (stolen), after ready. */
int nova_disk_out_join(struct nova_disk_out *out, int fd, struct nova_error *err);
void nova_disk_out_stats(const struct nova_disk_out *out, struct nova_disk_stats *stats);
/* Of the records sent so far. */
void nova_disk_out_digest(const struct nova_disk_out *out, uint8_t digest[16], uint64_t *bytes);
struct nova_disk_out *nova_disk_out_free(struct nova_disk_out *out);

/* ---- the destination's end ---- */

struct nova_disk_in;
/* path: socket of an NBD server; name: its export that is written; seed: the export that holds the older copy (NULL:
 * there is none), of the server at seed_path (NULL: the same one). Strings are copied; channel is stolen, also on
 * failure. */
struct nova_disk_in *nova_disk_in_new(struct event_base *base, const struct nova_link_ops *links,
    struct nova_channel *channel, const char *path, const char *name, const char *seed, const char *seed_path,
    const struct nova_disk_events *events, void *arg, struct nova_error *err);
void nova_disk_in_stats(const struct nova_disk_in *in, struct nova_disk_stats *stats);
void nova_disk_in_digest(const struct nova_disk_in *in, uint8_t digest[16], uint64_t *bytes);
struct nova_disk_in *nova_disk_in_free(struct nova_disk_in *in);

#endif
