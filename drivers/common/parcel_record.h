/* SPDX-License-Identifier: Apache-2.0
 *
 * parcel_record.h - what the two ends of a parcel share: records over a blocking socket, entries, rules. Private to them.
 */
#ifndef NOVA_DRIVER_PARCEL_RECORD_H
#define NOVA_DRIVER_PARCEL_RECORD_H

#include "drivers/common/parcel.h"

#include <sys/types.h>

#define PARCEL_RECORD_MAX (256u * 1024)
#define PARCEL_HEADER 5u
#define PARCEL_HASH 32u
#define PARCEL_PATH_MAX 4096u     /* bytes, with the NUL */
#define PARCEL_DATA (64u * 1024)  /* bytes of content in one record */
#define PARCEL_XATTRS_MAX 65536u  /* bytes of one entry's extended attributes */

enum parcel_type {
	PARCEL_FILE = 'f',
	PARCEL_DIRECTORY = 'd',
	PARCEL_SYMLINK = 'l', /* target: what it says */
	PARCEL_LINK = 'h',    /* target: path in the same part of an entry before */
};

struct parcel_entry {
	uint8_t part, type;
	uint32_t mode, uid, gid, mtime_ns;
	int64_t mtime_s;
	uint64_t size;
	uint8_t hash[PARCEL_HASH];
	const char *path;       /* "" is the part's directory itself */
	const char *target;     /* "" if there is none */
	const uint8_t *xattrs;  /* {u8 length, name, u32 length, value}... */
	uint32_t xattrs_length;
};

/* What a process tells the daemon while it works and when it fails: shared memory, the daemon only reads. */
struct parcel_shared {
	struct parcel_figures figures;
	struct nova_error err;
};

struct parcel_wire {
	int fd;
	struct parcel_shared *shared;
	uint8_t *out;     /* owned: PARCEL_RECORD_MAX * 2 */
	size_t out_used;
	uint8_t *in;      /* owned: PARCEL_RECORD_MAX + PARCEL_HEADER */
	size_t in_used, in_at;
};

int parcel_wire_init(struct parcel_wire *wire, int fd, struct parcel_shared *shared, struct nova_error *err);
/* Room for a payload of length bytes, which the caller fills before the next call. NULL and the reason. */
uint8_t *parcel_put(struct parcel_wire *wire, uint8_t type, size_t length, struct nova_error *err);
int parcel_flush(struct parcel_wire *wire, struct nova_error *err);
/* The next record, borrowed until the next call. The other end's 'N' is an error here. */
int parcel_get(struct parcel_wire *wire, uint8_t *type, const uint8_t **data, size_t *length, struct nova_error *err);

int parcel_entry_put(struct parcel_wire *wire, const struct parcel_entry *entry, struct nova_error *err);
/* Texts and attributes are borrowed from data (texts end with a NUL in it). Whatever is against the rules is an error. */
int parcel_entry_get(
    const uint8_t *data, size_t length, size_t parts, struct parcel_entry *entry, struct nova_error *err);

/* Relative, below its part: no empty name, no "." and "..". */
bool parcel_path_ok(const char *path);
bool parcel_xattr_ok(const char *name);
/* Open below a directory without following any link; -1 and errno. */
int parcel_open(int dir, const char *path, int flags, mode_t mode);

/* The work of either process, to its end: 0, or the reason. */
int parcel_send(struct parcel_wire *wire, const struct parcel_part *parts, size_t count, struct nova_error *err);
int parcel_receive(struct parcel_wire *wire, const struct parcel_part *parts, size_t count, struct nova_error *err);

#endif
