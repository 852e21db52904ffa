/* SPDX-License-Identifier: Apache-2.0
 *
 * parcel_record.c - a parcel's records and the rules for entries, for both ends (parcel.h says what travels).
 *
 * What comes from the other host is bounded and checked here, before anything is made of it: an entry names a place below
 * its part and nothing else, modes have permission bits only, attributes are those that files of a container need.
 */
#include "drivers/common/parcel_record.h"
#include "engine/cursor.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#define ENTRY_FIXED (1 + 1 + 4 + 4 + 4 + 8 + 4 + 8 + PARCEL_HASH)

int parcel_wire_init(struct parcel_wire *wire, int fd, struct parcel_shared *shared, struct nova_error *err)
{
	*wire = (struct parcel_wire){
		.fd = fd,
		.shared = shared,
		.out = malloc(2 * PARCEL_RECORD_MAX),
		.in = malloc(PARCEL_RECORD_MAX + PARCEL_HEADER),
	};
	return wire->out && wire->in ? 0 : nova_error_sys(err, ENOMEM, "a parcel");
}

/* ---- writing ---- */

/* Why the other end does not listen any more: its last word may be there to read. */
static int lost(struct parcel_wire *wire, int errnum, struct nova_error *err)
{
	struct pollfd readable = { .fd = wire->fd, .events = POLLIN };
	uint8_t type;
	const uint8_t *data;
	size_t length;

	while (poll(&readable, 1, 0) > 0)
		if (parcel_get(wire, &type, &data, &length, err) < 0)
			return -1;
	return nova_error_sys(err, errnum, "the stream of the container broke");
}

int parcel_flush(struct parcel_wire *wire, struct nova_error *err)
{
	size_t done = 0;

	while (done < wire->out_used) {
		ssize_t now = send(wire->fd, wire->out + done, wire->out_used - done, MSG_NOSIGNAL);

		if (now < 0 && errno == EINTR)
			continue;
		if (now <= 0) {
			wire->out_used = 0;
			return lost(wire, errno, err);
		}
		done += (size_t)now;
	}
	wire->out_used = 0;
	return 0;
}

uint8_t *parcel_put(struct parcel_wire *wire, uint8_t type, size_t length, struct nova_error *err)
{
	struct nova_writer w;

	if (length > PARCEL_RECORD_MAX - PARCEL_HEADER) {
		nova_error_set(err, NOVA_INVALID, "a record of %zu bytes is too long", length);
		return NULL;
	}
	if (wire->out_used + PARCEL_HEADER + length > PARCEL_RECORD_MAX && parcel_flush(wire, err) < 0)
		return NULL;
	w = nova_writer_of(wire->out + wire->out_used, PARCEL_HEADER + length);
	nova_put_u8(&w, type);
	nova_put_u32(&w, (uint32_t)length);
	wire->out_used += PARCEL_HEADER + length;
	return w.at;
}

/* ---- reading ---- */

static int fill(struct parcel_wire *wire, size_t need, struct nova_error *err)
{
	memmove(wire->in, wire->in + wire->in_at, wire->in_used - wire->in_at);
	wire->in_used -= wire->in_at;
	wire->in_at = 0;
	while (wire->in_used < need) {
		ssize_t now = read(wire->fd, wire->in + wire->in_used, PARCEL_RECORD_MAX + PARCEL_HEADER - wire->in_used);

		if (now < 0 && errno == EINTR)
			continue;
		if (now < 0)
			return nova_error_sys(err, errno, "the stream of the container broke");
		if (now == 0)
			return nova_error_set(err, NOVA_LINK, "the stream of the container ended early");
		wire->in_used += (size_t)now;
	}
	return 0;
}

int parcel_get(struct parcel_wire *wire, uint8_t *type, const uint8_t **data, size_t *length, struct nova_error *err)
{
	struct nova_cursor c;
	uint32_t size;

	if (wire->in_used - wire->in_at < PARCEL_HEADER && fill(wire, PARCEL_HEADER, err) < 0)
		return -1;
	c = nova_cursor_of(wire->in + wire->in_at, PARCEL_HEADER);
	*type = nova_get_u8(&c);
	size = nova_get_u32(&c);
	if (size > PARCEL_RECORD_MAX - PARCEL_HEADER)
		return nova_error_set(err, NOVA_INVALID, "a record of %u bytes is too long", size);
	if (wire->in_used - wire->in_at < PARCEL_HEADER + size && fill(wire, PARCEL_HEADER + size, err) < 0)
		return -1;
	*data = wire->in + wire->in_at + PARCEL_HEADER;
	*length = size;
	wire->in_at += PARCEL_HEADER + size;
	if (*type == 'N')
		return nova_error_set(err, NOVA_REFUSED, "%.*s", (int)(size < 400 ? size : 400), (const char *)*data);
	return 0;
}

/* ---- entries ---- */

bool parcel_path_ok(const char *path)
{
	if (strlen(path) >= PARCEL_PATH_MAX)
		return false;
	while (*path) {
		size_t length = strcspn(path, "/");

		if (length == 0 || length > NAME_MAX || (length == 1 && path[0] == '.') ||
		    (length == 2 && path[0] == '.' && path[1] == '.'))
			return false;
		path += length;
		if (*path == '/' && !*++path)
			return false;
	}
	return true;
}

bool parcel_xattr_ok(const char *name)
{
	return !strncmp(name, "user.", 5) || !strcmp(name, "security.capability") ||
	       !strcmp(name, "system.posix_acl_access") || !strcmp(name, "system.posix_acl_default");
}

int parcel_entry_put(struct parcel_wire *wire, const struct parcel_entry *entry, struct nova_error *err)
{
	size_t path = strlen(entry->path) + 1, target = strlen(entry->target) + 1;
	size_t length = ENTRY_FIXED + 2 + path + 2 + target + 4 + entry->xattrs_length;
	uint8_t *room = parcel_put(wire, 'E', length, err);
	struct nova_writer w;

	if (!room)
		return -1;
	w = nova_writer_of(room, length);
	nova_put_u8(&w, entry->part);
	nova_put_u8(&w, entry->type);
	nova_put_u32(&w, entry->mode);
	nova_put_u32(&w, entry->uid);
	nova_put_u32(&w, entry->gid);
	nova_put_u64(&w, (uint64_t)entry->mtime_s);
	nova_put_u32(&w, entry->mtime_ns);
	nova_put_u64(&w, entry->size);
	nova_put_bytes(&w, entry->hash, PARCEL_HASH);
	nova_put_u16(&w, (uint16_t)path);
	nova_put_bytes(&w, entry->path, path);
	nova_put_u16(&w, (uint16_t)target);
	nova_put_bytes(&w, entry->target, target);
	nova_put_u32(&w, entry->xattrs_length);
	nova_put_bytes(&w, entry->xattrs, entry->xattrs_length);
	return 0;
}

/* A text with its NUL, and no other NUL in it. */
static const char *get_text(struct nova_cursor *c)
{
	uint16_t length = nova_get_u16(c);
	const char *text = (const char *)nova_get_bytes(c, length);

	if (!text || length == 0 || length > PARCEL_PATH_MAX || memchr(text, 0, length) != text + length - 1) {
		c->bad = true;
		return "";
	}
	return text;
}

static bool xattrs_ok(const uint8_t *data, size_t length)
{
	struct nova_cursor c = nova_cursor_of(data, length);
	char name[256];

	while (nova_cursor_left(&c)) {
		uint8_t size = nova_get_u8(&c);
		const uint8_t *text = nova_get_bytes(&c, size);
		uint32_t value;

		if (!text || memchr(text, 0, size))
			return false;
		memcpy(name, text, size);
		name[size] = 0;
		value = nova_get_u32(&c);
		if (!nova_get_bytes(&c, value) || !parcel_xattr_ok(name))
			return false;
	}
	return !c.bad;
}

static bool entry_ok(const struct parcel_entry *entry, size_t parts)
{
	bool target = entry->type == PARCEL_SYMLINK || entry->type == PARCEL_LINK;

	return entry->part < parts && (entry->mode & ~07777u) == 0 && entry->uid != (uint32_t)-1 &&
	       entry->gid != (uint32_t)-1 && entry->mtime_ns < 1000000000 && entry->size <= INT64_MAX &&
	       parcel_path_ok(entry->path) && (*entry->path || entry->type == PARCEL_DIRECTORY) &&
	       (entry->type == PARCEL_FILE || entry->size == 0) && (target == (*entry->target != 0)) &&
	       (entry->type == PARCEL_FILE || entry->type == PARCEL_DIRECTORY || target) &&
	       (entry->type != PARCEL_LINK || parcel_path_ok(entry->target)) &&
	       (!target || entry->xattrs_length == 0) && xattrs_ok(entry->xattrs, entry->xattrs_length);
}

int parcel_entry_get(
    const uint8_t *data, size_t length, size_t parts, struct parcel_entry *entry, struct nova_error *err)
{
	struct nova_cursor c = nova_cursor_of(data, length);
	const uint8_t *hash;

	entry->part = nova_get_u8(&c);
	entry->type = nova_get_u8(&c);
	entry->mode = nova_get_u32(&c);
	entry->uid = nova_get_u32(&c);
	entry->gid = nova_get_u32(&c);
	entry->mtime_s = (int64_t)nova_get_u64(&c);
	entry->mtime_ns = nova_get_u32(&c);
	entry->size = nova_get_u64(&c);
	hash = nova_get_bytes(&c, PARCEL_HASH);
	entry->path = get_text(&c);
	entry->target = get_text(&c);
	entry->xattrs_length = nova_get_u32(&c);
	entry->xattrs = nova_get_bytes(&c, entry->xattrs_length);
	if (c.bad || nova_cursor_left(&c) || entry->xattrs_length > PARCEL_XATTRS_MAX || !entry_ok(entry, parts))
		return nova_error_set(err, NOVA_INVALID, "an entry that cannot be: '%.120s'", c.bad ? "" : entry->path);
	memcpy(entry->hash, hash, PARCEL_HASH);
	return 0;
}

int parcel_open(int dir, const char *path, int flags, mode_t mode)
{
	struct open_how how = {
		.flags = (uint64_t)(flags | O_CLOEXEC | O_NOFOLLOW),
		.mode = mode,
		.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV,
	};

	return (int)syscall(SYS_openat2, dir, *path ? path : ".", &how, sizeof(how));
}
