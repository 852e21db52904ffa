/* SPDX-License-Identifier: Apache-2.0
 *
 * parcel_out.c - the source's end of a parcel: lists and hashes the parts' files, then sends those that are wanted.
 *
 * Runs in a process of its own and blocks. Nothing else writes the parts meanwhile (the container does not run); a file
 * that changes all the same fails the parcel, since its content no longer has the hash that was told.
 */
#include "drivers/common/parcel_record.h"
#include "engine/cleanup.h"
#include "engine/cursor.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <search.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#define DEPTH_MAX 512

struct sent_file {
	uint8_t part;
	bool file;
	uint64_t size;
	char *path; /* owned */
};

struct link_of {
	uint8_t part;
	dev_t dev;
	ino_t ino;
	char *path; /* owned */
};

struct sender {
	struct parcel_wire *wire;
	const struct parcel_part *parts;
	int root[PARCEL_PARTS_MAX]; /* owned */
	struct sent_file *files;    /* owned: by entry */
	size_t count, capacity;
	void *links;                /* tsearch tree of struct link_of */
	uint8_t *buffer;            /* PARCEL_DATA */
	uint8_t *xattrs;            /* PARCEL_XATTRS_MAX */
};

/* ---- hard links: the second name of a file is a link to the first ---- */

static int compare_links(const void *one, const void *other)
{
	const struct link_of *a = one, *b = other;

	if (a->part != b->part)
		return a->part < b->part ? -1 : 1;
	if (a->dev != b->dev)
		return a->dev < b->dev ? -1 : 1;
	return a->ino < b->ino ? -1 : a->ino > b->ino;
}

/* The path of the first name, or NULL: this is the first. */
static const char *first_name(struct sender *sender, uint8_t part, const struct stat *st, const char *path)
{
	struct link_of key = { .part = part, .dev = st->st_dev, .ino = st->st_ino }, *new;
	struct link_of **found = tfind(&key, &sender->links, compare_links);

	if (found)
		return (*found)->path;
	new = malloc(sizeof(*new));
	if (new) {
		*new = key;
		new->path = strdup(path);
		tsearch(new, &sender->links, compare_links);
	}
	return NULL;
}

/* ---- one entry ---- */

static int remember(struct sender *sender, const struct parcel_entry *entry, struct nova_error *err)
{
	struct sent_file *file;

	if (sender->count >= PARCEL_ENTRIES_MAX)
		return nova_error_set(err, NOVA_REFUSED, "%s has more than %u files", sender->parts[entry->part].name, PARCEL_ENTRIES_MAX);
	if (sender->count == sender->capacity) {
		size_t capacity = sender->capacity ? sender->capacity * 2 : 1024;
		struct sent_file *files = realloc(sender->files, capacity * sizeof(*files));

		if (!files)
			return nova_error_sys(err, ENOMEM, "%zu files", capacity);
		sender->files = files;
		sender->capacity = capacity;
	}
	file = &sender->files[sender->count++];
	*file = (struct sent_file){ entry->part, entry->type == PARCEL_FILE, entry->size, strdup(entry->path) };
	sender->wire->shared->figures.entries++;
	return file->path ? 0 : nova_error_sys(err, ENOMEM, "%s", entry->path);
}

static int hash_file(struct sender *sender, int fd, uint64_t size, uint8_t hash[PARCEL_HASH])
{
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	uint64_t total = 0;
	ssize_t now;

	if (!ctx)
		return -1;
	EVP_DigestInit_ex(ctx, EVP_sha256(), NULL);
	while ((now = read(fd, sender->buffer, PARCEL_DATA)) > 0) {
		EVP_DigestUpdate(ctx, sender->buffer, (size_t)now);
		total += (uint64_t)now;
	}
	EVP_DigestFinal_ex(ctx, hash, NULL);
	EVP_MD_CTX_free(ctx);
	if (now == 0 && total != size)
		errno = ESTALE;
	return now < 0 || total != size ? -1 : 0;
}

/* Those that are carried, as they travel. */
static int read_xattrs(struct sender *sender, int fd, struct parcel_entry *entry)
{
	struct nova_writer w = nova_writer_of(sender->xattrs, PARCEL_XATTRS_MAX);
	char names[4096], value[16384];
	ssize_t length = flistxattr(fd, names, sizeof(names));

	for (const char *name = names; length > 0 && name < names + length; name += strlen(name) + 1) {
		ssize_t size;

		if (!parcel_xattr_ok(name) || strlen(name) > 255)
			continue;
		size = fgetxattr(fd, name, value, sizeof(value));
		if (size < 0)
			return -1;
		nova_put_u8(&w, (uint8_t)strlen(name));
		nova_put_bytes(&w, name, strlen(name));
		nova_put_u32(&w, (uint32_t)size);
		nova_put_bytes(&w, value, (size_t)size);
	}
	if (length < 0 && errno != ENOTSUP)
		return -1;
	if (w.bad)
		errno = E2BIG;
	entry->xattrs = sender->xattrs;
	entry->xattrs_length = (uint32_t)nova_writer_used(&w);
	return w.bad ? -1 : 0;
}

static void take_stat(struct parcel_entry *entry, const struct stat *st)
{
	entry->mode = st->st_mode & 07777;
	entry->uid = st->st_uid;
	entry->gid = st->st_gid;
	entry->mtime_s = st->st_mtim.tv_sec;
	entry->mtime_ns = (uint32_t)st->st_mtim.tv_nsec;
	entry->size = entry->type == PARCEL_FILE ? (uint64_t)st->st_size : 0;
}

static int tell(struct sender *sender, const struct parcel_entry *entry, struct nova_error *err)
{
	if (remember(sender, entry, err) < 0 || parcel_entry_put(sender->wire, entry, err) < 0)
		return -1;
	sender->wire->shared->figures.total_bytes += entry->size;
	return 0;
}

static int file_failed(const struct parcel_entry *entry, struct nova_error *err)
{
	return nova_error_sys(err, errno, "reading '%.200s'", entry->path);
}

static int tell_file(struct sender *sender, int dir, const char *name, struct parcel_entry *entry, struct nova_error *err)
{
	NOVA_AUTOCLOSE int fd = openat(dir, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NOATIME);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0)
		return file_failed(entry, err);
	take_stat(entry, &st);
	if (st.st_nlink > 1 && (entry->target = first_name(sender, entry->part, &st, entry->path))) {
		entry->type = PARCEL_LINK;
		entry->size = 0;
		return tell(sender, entry, err);
	}
	entry->target = "";
	if (read_xattrs(sender, fd, entry) < 0 || hash_file(sender, fd, entry->size, entry->hash) < 0)
		return file_failed(entry, err);
	return tell(sender, entry, err);
}

static int tell_symlink(struct sender *sender, int dir, const char *name, struct parcel_entry *entry, const struct stat *st,
    struct nova_error *err)
{
	char target[PARCEL_PATH_MAX];
	ssize_t length = readlinkat(dir, name, target, sizeof(target) - 1);

	if (length <= 0)
		return file_failed(entry, err);
	target[length] = 0;
	take_stat(entry, st);
	entry->target = target;
	return tell(sender, entry, err);
}

/* ---- a tree ---- */

static int walk(struct sender *sender, uint8_t part, int dir, const char *path, int depth, struct nova_error *err);

static int tell_directory(struct sender *sender, int dir, const char *name, struct parcel_entry *entry, int depth,
    struct nova_error *err)
{
	const char *hollow = sender->parts[entry->part].hollow;
	NOVA_AUTOCLOSE int fd = openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0 || read_xattrs(sender, fd, entry) < 0)
		return file_failed(entry, err);
	take_stat(entry, &st);
	if (tell(sender, entry, err) < 0)
		return -1;
	if (hollow && !strcmp(entry->path, hollow))
		return 0;
	return walk(sender, entry->part, nova_take_fd(&fd), entry->path, depth + 1, err);
}

static int look_at(struct sender *sender, uint8_t part, int dir, const char *path, const char *name, int depth,
    struct nova_error *err)
{
	char whole[PARCEL_PATH_MAX];
	struct parcel_entry entry = { .part = part, .path = whole, .target = "" };
	struct stat st;

	if (snprintf(whole, sizeof(whole), "%s%s%s", path, *path ? "/" : "", name) >= (int)sizeof(whole))
		return nova_error_set(err, NOVA_REFUSED, "a path of more than %u bytes below '%.100s'", PARCEL_PATH_MAX - 1, path);
	if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return file_failed(&entry, err);
	switch (st.st_mode & S_IFMT) {
	case S_IFREG:
		entry.type = PARCEL_FILE;
		return tell_file(sender, dir, name, &entry, err);
	case S_IFDIR:
		entry.type = PARCEL_DIRECTORY;
		return tell_directory(sender, dir, name, &entry, depth, err);
	case S_IFLNK:
		entry.type = PARCEL_SYMLINK;
		return tell_symlink(sender, dir, name, &entry, &st, err);
	default: /* devices, sockets, pipes */
		sender->wire->shared->figures.skipped_entries++;
		return 0;
	}
}

/* fd is stolen. In the order of names, so that two lists of the same tree are the same. */
static int walk(struct sender *sender, uint8_t part, int fd, const char *path, int depth, struct nova_error *err)
{
	struct dirent **names = NULL;
	NOVA_AUTOCLOSE int dir = fd;
	int count = depth > DEPTH_MAX ? -1 : scandirat(dir, ".", &names, NULL, alphasort), rc = 0;

	if (depth > DEPTH_MAX)
		return nova_error_set(err, NOVA_REFUSED, "directories more than %d deep", DEPTH_MAX);
	if (count < 0)
		return nova_error_sys(err, errno, "reading '%.200s'", path);
	for (int i = 0; i < count; i++) {
		const char *name = names[i]->d_name;

		if (rc == 0 && strcmp(name, ".") && strcmp(name, ".."))
			rc = look_at(sender, part, dir, path, name, depth, err);
		free(names[i]);
	}
	free(names);
	return rc;
}

static int list_part(struct sender *sender, uint8_t part, struct nova_error *err)
{
	struct parcel_entry entry = { .part = part, .type = PARCEL_DIRECTORY, .path = "", .target = "" };

	sender->root[part] = open(sender->parts[part].path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (sender->root[part] < 0)
		return nova_error_sys(err, errno, "%s", sender->parts[part].path);
	return tell_directory(sender, sender->root[part], ".", &entry, 0, err);
}

/* ---- contents ---- */

static int send_hole(struct sender *sender, uint64_t bytes, struct nova_error *err)
{
	uint8_t *room = parcel_put(sender->wire, 'Z', 8, err);
	struct nova_writer w;

	if (!room)
		return -1;
	w = nova_writer_of(room, 8);
	nova_put_u64(&w, bytes);
	return 0;
}

static int send_data(struct sender *sender, int fd, off_t at, off_t end, const char *path, struct nova_error *err)
{
	while (at < end) {
		size_t now = end - at < (off_t)PARCEL_DATA ? (size_t)(end - at) : PARCEL_DATA;
		uint8_t *room;

		if (pread(fd, sender->buffer, now, at) != (ssize_t)now)
			return nova_error_set(err, NOVA_STATE, "'%.200s' changed while it was read", path);
		room = parcel_put(sender->wire, 'D', now, err);
		if (!room)
			return -1;
		memcpy(room, sender->buffer, now);
		at += (off_t)now;
	}
	return 0;
}

/* Data and holes as the file system tells them. */
static int send_extents(struct sender *sender, int fd, const struct sent_file *file, struct nova_error *err)
{
	off_t size = (off_t)file->size, at = 0;

	while (at < size) {
		off_t data = lseek(fd, at, SEEK_DATA), hole;

		if (data < 0 || data > size)
			data = errno == EINVAL ? at : size;
		if (data > at && send_hole(sender, (uint64_t)(data - at), err) < 0)
			return -1;
		if (data >= size)
			return 0;
		hole = lseek(fd, data, SEEK_HOLE);
		if (hole < 0 || hole > size)
			hole = size;
		if (send_data(sender, fd, data, hole, file->path, err) < 0)
			return -1;
		at = hole;
	}
	return 0;
}

static int send_file(struct sender *sender, uint32_t number, struct nova_error *err)
{
	const struct sent_file *file = &sender->files[number];
	NOVA_AUTOCLOSE int fd = parcel_open(sender->root[file->part], file->path, O_RDONLY, 0);
	uint8_t *room = fd < 0 ? NULL : parcel_put(sender->wire, 'F', 4, err);
	struct nova_writer w;

	if (fd < 0)
		return nova_error_sys(err, errno, "reading '%.200s'", file->path);
	if (!room)
		return -1;
	w = nova_writer_of(room, 4);
	nova_put_u32(&w, number);
	if (send_extents(sender, fd, file, err) < 0 || !parcel_put(sender->wire, '.', 0, err))
		return -1;
	sender->wire->shared->figures.done_bytes += file->size;
	return 0;
}

/* What the destination wants, as it says it; before that nothing was sent, so it can tell all first. */
static int take_wants(struct sender *sender, bool *wanted, struct nova_error *err)
{
	const uint8_t *data;
	size_t length;
	uint8_t type;

	while (parcel_get(sender->wire, &type, &data, &length, err) == 0) {
		struct nova_cursor c = nova_cursor_of(data, length);
		uint32_t first, count;

		if (type == 'R')
			return 0;
		first = nova_get_u32(&c);
		count = nova_get_u32(&c);
		if (type != 'W' || c.bad || first > sender->count || count > sender->count - first)
			return nova_error_set(err, NOVA_INVALID, "the other end wants what there is not");
		memset(wanted + first, 1, count);
	}
	return -1;
}

static int send_wanted(struct sender *sender, struct nova_error *err)
{
	struct parcel_figures *figures = &sender->wire->shared->figures;
	bool *wanted = calloc(sender->count + 1, sizeof(*wanted));
	int rc;

	if (!wanted)
		return nova_error_sys(err, ENOMEM, "a parcel");
	rc = take_wants(sender, wanted, err);
	for (size_t i = 0; i < sender->count && rc == 0; i++)
		if (sender->files[i].file && sender->files[i].size && !wanted[i]) {
			figures->held_bytes += sender->files[i].size;
			figures->done_bytes += sender->files[i].size;
			figures->held_entries++;
		}
	for (size_t i = 0; i < sender->count && rc == 0; i++)
		if (wanted[i] && sender->files[i].file)
			rc = send_file(sender, (uint32_t)i, err);
	free(wanted);
	return rc;
}

static int wait_taken(struct sender *sender, struct nova_error *err)
{
	const uint8_t *data;
	size_t length;
	uint8_t type;

	if (!parcel_put(sender->wire, 'X', 0, err) || parcel_flush(sender->wire, err) < 0 ||
	    parcel_get(sender->wire, &type, &data, &length, err) < 0)
		return -1;
	return type == 'K' ? 0 : nova_error_set(err, NOVA_INVALID, "a record '%c' that is not expected", type);
}

/* Only ever called in a process that ends with it: memory goes with that. */
int parcel_send(struct parcel_wire *wire, const struct parcel_part *parts, size_t count, struct nova_error *err)
{
	struct sender sender = { .wire = wire, .parts = parts, .buffer = malloc(PARCEL_DATA), .xattrs = malloc(PARCEL_XATTRS_MAX) };

	if (!sender.buffer || !sender.xattrs)
		return nova_error_sys(err, ENOMEM, "a parcel");
	for (size_t i = 0; i < count; i++)
		if (list_part(&sender, (uint8_t)i, err) < 0)
			return nova_error_prefix(err, "%s", parts[i].name);
	wire->shared->figures.listed = 1;
	if (!parcel_put(wire, 'L', 0, err) || parcel_flush(wire, err) < 0 || send_wanted(&sender, err) < 0)
		return -1;
	return wait_taken(&sender, err);
}
