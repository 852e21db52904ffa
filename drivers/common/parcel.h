/* SPDX-License-Identifier: Apache-2.0
 *
 * parcel.h - what a container consists of, from one host's directories into another's, by content.
 *
 * A parcel has parts (a root file system, the layers of an image, the files of a checkpoint), each a directory at either
 * end. It travels as the migration's stream, so the codec, the cap, resumption and the digest of the whole are the engine's.
 * One process at each end, forked off the daemon, does the reading, hashing and writing: nothing of it blocks the loop.
 * Records: u8 type, u32 length (big-endian, at most PARCEL_RECORD_MAX), payload.
 *
 *   source                                             destination
 *   'E' one entry: part, type, owner, mode, times,     makes it; takes the content from a seed if one has it
 *       size, SHA-256, path, extended attributes
 *   'L' that was all                                   'W' u32 first, u32 count: contents that are wanted
 *                                                      'R' those were all
 *   'F' u32 entry, then its content:
 *   'D' bytes, 'Z' u64 bytes that are a hole
 *   '.' the end of it                                  compares its SHA-256
 *   'X' that was all                                   'K' everything is on disk, and the driver has what it needs
 *                                                      'N' why not
 *
 * Limits: 2^20 entries, paths of 4095 bytes. Not carried: device nodes, sockets and named pipes; extended attributes other
 * than PARCEL_XATTRS; a file that changed a little travels whole.
 */
#ifndef NOVA_DRIVER_PARCEL_H
#define NOVA_DRIVER_PARCEL_H

#include "engine/novacron.h"

#define PARCEL_PARTS_MAX 8
#define PARCEL_ENTRIES_MAX (1u << 20)

/* Everything is borrowed for the call that makes a parcel. */
struct parcel_part {
	const char *name;    /* the same at both ends, for errors */
	const char *path;    /* the directory; at the destination it is there and empty */
	const char *hollow;  /* source: of this directory in it, only itself is carried ("dev"); may be NULL */
	const json_t *seeds; /* destination: directories whose file of the same path may have the content; may be NULL */
	const json_t *held;  /* destination: hex SHA-256 of contents that are not wanted, nor made; may be NULL */
};

struct parcel_figures {
	uint64_t total_bytes; /* of all contents */
	uint64_t done_bytes;  /* sent or written, or had at the destination */
	uint64_t held_bytes;  /* had there: not sent */
	uint32_t entries, held_entries, skipped_entries;
	int listed;           /* total_bytes is final */
};

struct parcel;
/* The end, once, from the loop, may free the parcel. err NULL: everything is at the destination, on disk. The receiving
 * end then owes the other its word: parcel_tell(). */
typedef void (*parcel_fn)(void *arg, const struct nova_error *err);

/* fd (a stream socket) is stolen, also on failure. */
struct parcel *parcel_out_new(struct event_base *base, int fd, const struct parcel_part *parts, size_t count, parcel_fn fn,
    void *arg, struct nova_error *err);
struct parcel *parcel_in_new(struct event_base *base, int fd, const struct parcel_part *parts, size_t count, parcel_fn fn,
    void *arg, struct nova_error *err);
/* Of a parcel that was received: why is NULL if all is well. */
void parcel_tell(struct parcel *parcel, const struct nova_error *why);
void parcel_stats(const struct parcel *parcel, struct parcel_figures *figures);
/* Ends its process if it still works; what was written stays. NULL is fine. */
struct parcel *parcel_free(struct parcel *parcel);

#endif
