/* SPDX-License-Identifier: Apache-2.0
 *
 * parcel_in.c - the destination's end of a parcel: makes what is told, takes contents from seeds where it can, asks for the
 * rest, and compares the hash of everything it has written.
 *
 * Runs in a confined process of its own and blocks. Everything is made below a part's directory, which was empty: each
 * directory on the way is opened by the kernel's own rules (RESOLVE_BENEATH, no links), each file made new (O_EXCL), and no
 * link is ever followed, so an entry can neither lead out nor over something that is there. Owners and modes come last:
 * until then a file is readable by us alone.
 */
#include "drivers/common/parcel_record.h"
#include "engine/cleanup.h"
#include "engine/cursor.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

struct held {
	struct parcel_entry entry; /* its texts and attributes lie in bytes */
	uint8_t *bytes;            /* owned */
	bool wanted;
};

struct receiver {
	struct parcel_wire *wire;
	const struct parcel_part *parts;
	size_t part_count;
	int root[PARCEL_PARTS_MAX];
	struct held *held; /* by entry */
	size_t count, capacity;
	char parent[PARCEL_PATH_MAX]; /* of which parent_fd is open */
	int parent_fd, parent_part;
	uint8_t *buffer; /* PARCEL_DATA */
};

/* ---- where ---- */

static const char *leaf_of(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

/* The directory that a path is in. It stays open for the next one. */
static int parent_of(struct receiver *receiver, uint8_t part, const char *path, struct nova_error *err)
{
	size_t length = (size_t)(leaf_of(path) - path);
	char parent[PARCEL_PATH_MAX];

	snprintf(parent, sizeof(parent), "%.*s", (int)(length ? length - 1 : 0), path);
	if (receiver->parent_fd >= 0 && receiver->parent_part == part && !strcmp(parent, receiver->parent))
		return receiver->parent_fd;
	if (receiver->parent_fd >= 0)
		close(nova_take_fd(&receiver->parent_fd));
	receiver->parent_fd = parcel_open(receiver->root[part], parent, O_PATH | O_DIRECTORY, 0);
	if (receiver->parent_fd < 0)
		return nova_error_sys(err, errno, "directory of '%.200s'", path);
	receiver->parent_part = part;
	snprintf(receiver->parent, sizeof(receiver->parent), "%s", parent);
	return receiver->parent_fd;
}

static int failed(const struct parcel_entry *entry, struct nova_error *err)
{
	return nova_error_sys(err, errno, "making '%.200s'", entry->path);
}

/* ---- what comes last ---- */

static int set_xattrs(int fd, const struct parcel_entry *entry)
{
	struct nova_cursor c = nova_cursor_of(entry->xattrs, entry->xattrs_length);
	char name[256];

	while (nova_cursor_left(&c)) {
		uint8_t size = nova_get_u8(&c);
		uint32_t length;

		memcpy(name, nova_get_bytes(&c, size), size); /* looked at when it came */
		name[size] = 0;
		length = nova_get_u32(&c);
		if (fsetxattr(fd, name, nova_get_bytes(&c, length), length, 0) < 0)
			return -1;
	}
	return 0;
}

/* Owner before mode and capabilities: a change of owner takes those away. */
static int finish(int fd, const struct parcel_entry *entry)
{
	struct timespec times[2] = { { .tv_nsec = UTIME_OMIT }, { entry->mtime_s, entry->mtime_ns } };

	return fchown(fd, entry->uid, entry->gid) < 0 || fchmod(fd, entry->mode) < 0 || set_xattrs(fd, entry) < 0 ||
		       futimens(fd, times) < 0 ?
		   -1 :
		   0;
}

/* ---- contents ---- */

static bool all_zero(const uint8_t *data, size_t length)
{
	return length && data[0] == 0 && !memcmp(data, data + 1, length - 1);
}

/* Zeros become a hole. */
static int write_sparse(int fd, const uint8_t *data, size_t length)
{
	if (all_zero(data, length))
		return lseek(fd, (off_t)length, SEEK_CUR) < 0 ? -1 : 0;
	while (length) {
		ssize_t now = write(fd, data, length);

		if (now < 0 && errno == EINTR)
			continue;
		if (now < 0)
			return -1;
		data += now;
		length -= (size_t)now;
	}
	return 0;
}

/* The seed's file as the content of fd, if it is the one. */
static bool take_seed(struct receiver *receiver, int seed, int fd, const struct parcel_entry *entry)
{
	NOVA_AUTOCLOSE int from = parcel_open(seed, entry->path, O_RDONLY | O_NONBLOCK, 0);
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	uint8_t hash[PARCEL_HASH];
	struct stat st;
	ssize_t now = -1;

	if (from >= 0 && ctx && fstat(from, &st) == 0 && S_ISREG(st.st_mode) && (uint64_t)st.st_size == entry->size) {
		EVP_DigestInit_ex(ctx, EVP_sha256(), NULL);
		while ((now = read(from, receiver->buffer, PARCEL_DATA)) > 0) {
			EVP_DigestUpdate(ctx, receiver->buffer, (size_t)now);
			if (write_sparse(fd, receiver->buffer, (size_t)now) < 0)
				break;
		}
		EVP_DigestFinal_ex(ctx, hash, NULL);
	}
	EVP_MD_CTX_free(ctx);
	if (now == 0 && !memcmp(hash, entry->hash, PARCEL_HASH) && ftruncate(fd, (off_t)entry->size) == 0)
		return true;
	if (ftruncate(fd, 0) < 0 || lseek(fd, 0, SEEK_SET) < 0)
		return false; /* what comes then is too long, and is found out */
	return false;
}

static bool from_seeds(struct receiver *receiver, int fd, const struct parcel_entry *entry)
{
	const json_t *seeds = receiver->parts[entry->part].seeds;
	bool taken = false;
	json_t *one;
	size_t i;

	json_array_foreach ((json_t *)seeds, i, one) {
		NOVA_AUTOCLOSE int seed = open(json_string_value(one), O_PATH | O_DIRECTORY | O_CLOEXEC);

		if (!taken && seed >= 0)
			taken = take_seed(receiver, seed, fd, entry);
	}
	return taken;
}

static bool is_held(const struct receiver *receiver, const struct parcel_entry *entry)
{
	const json_t *held = receiver->parts[entry->part].held;
	char hex[2 * PARCEL_HASH + 1];
	json_t *one;
	size_t i;

	for (i = 0; i < PARCEL_HASH; i++)
		snprintf(hex + 2 * i, 3, "%02x", entry->hash[i]);
	json_array_foreach ((json_t *)held, i, one)
		if (!strcmp(json_string_value(one) ?: "", hex))
			return true;
	return false;
}

/* ---- entries ---- */

static int make_file(struct receiver *receiver, struct held *held, struct nova_error *err)
{
	const struct parcel_entry *entry = &held->entry;
	struct parcel_figures *figures = &receiver->wire->shared->figures;
	int dir = parent_of(receiver, entry->part, entry->path, err);
	NOVA_AUTOCLOSE int fd = -1;

	if (dir < 0)
		return -1;
	if (entry->size && is_held(receiver, entry)) {
		figures->done_bytes += entry->size;
		figures->held_bytes += entry->size;
		return 0;
	}
	fd = openat(dir, leaf_of(entry->path), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return failed(entry, err);
	if (entry->size && !from_seeds(receiver, fd, entry)) {
		held->wanted = true;
		return 0;
	}
	figures->done_bytes += entry->size;
	figures->held_bytes += entry->size;
	return finish(fd, entry) < 0 ? failed(entry, err) : 0;
}

static int make_directory(struct receiver *receiver, const struct parcel_entry *entry, struct nova_error *err)
{
	int dir = *entry->path ? parent_of(receiver, entry->part, entry->path, err) : receiver->root[entry->part];

	if (dir < 0)
		return -1;
	return *entry->path && mkdirat(dir, leaf_of(entry->path), 0700) < 0 ? failed(entry, err) : 0;
}

static int make_symlink(struct receiver *receiver, const struct parcel_entry *entry, struct nova_error *err)
{
	struct timespec times[2] = { { .tv_nsec = UTIME_OMIT }, { entry->mtime_s, entry->mtime_ns } };
	int dir = parent_of(receiver, entry->part, entry->path, err);
	const char *leaf = leaf_of(entry->path);

	if (dir < 0)
		return -1;
	if (symlinkat(entry->target, dir, leaf) < 0 || fchownat(dir, leaf, entry->uid, entry->gid, AT_SYMLINK_NOFOLLOW) < 0 ||
	    utimensat(dir, leaf, times, AT_SYMLINK_NOFOLLOW) < 0)
		return failed(entry, err);
	return 0;
}

static int make_link(struct receiver *receiver, const struct parcel_entry *entry, struct nova_error *err)
{
	const char *leaf = leaf_of(entry->target);
	size_t length = (size_t)(leaf - entry->target);
	char parent[PARCEL_PATH_MAX];
	int dir = parent_of(receiver, entry->part, entry->path, err);
	NOVA_AUTOCLOSE int from = -1;

	if (dir < 0)
		return -1;
	snprintf(parent, sizeof(parent), "%.*s", (int)(length ? length - 1 : 0), entry->target);
	from = parcel_open(receiver->root[entry->part], parent, O_PATH | O_DIRECTORY, 0);
	if (from < 0 || linkat(from, leaf, dir, leaf_of(entry->path), 0) < 0)
		return failed(entry, err);
	return 0;
}

static int make(struct receiver *receiver, struct held *held, struct nova_error *err)
{
	switch (held->entry.type) {
	case PARCEL_FILE:
		return make_file(receiver, held, err);
	case PARCEL_DIRECTORY:
		return make_directory(receiver, &held->entry, err);
	case PARCEL_SYMLINK:
		return make_symlink(receiver, &held->entry, err);
	default:
		return make_link(receiver, &held->entry, err);
	}
}

static int keep(struct receiver *receiver, const uint8_t *data, size_t length, struct nova_error *err)
{
	struct held *held;

	if (receiver->count >= PARCEL_ENTRIES_MAX)
		return nova_error_set(err, NOVA_REFUSED, "more than %u files", PARCEL_ENTRIES_MAX);
	if (receiver->count == receiver->capacity) {
		size_t capacity = receiver->capacity ? receiver->capacity * 2 : 1024;

		held = realloc(receiver->held, capacity * sizeof(*held));
		if (!held)
			return nova_error_sys(err, ENOMEM, "%zu files", capacity);
		receiver->held = held;
		receiver->capacity = capacity;
	}
	held = &receiver->held[receiver->count];
	*held = (struct held){ .bytes = malloc(length) };
	if (!held->bytes)
		return nova_error_sys(err, ENOMEM, "a file");
	memcpy(held->bytes, data, length);
	if (parcel_entry_get(held->bytes, length, receiver->part_count, &held->entry, err) < 0)
		return -1;
	receiver->count++;
	receiver->wire->shared->figures.entries++;
	receiver->wire->shared->figures.total_bytes += held->entry.size;
	return make(receiver, held, err);
}

static int take_list(struct receiver *receiver, struct nova_error *err)
{
	const uint8_t *data;
	size_t length;
	uint8_t type;

	while (parcel_get(receiver->wire, &type, &data, &length, err) == 0) {
		if (type == 'L') {
			receiver->wire->shared->figures.listed = 1;
			return 0;
		}
		if (type != 'E')
			return nova_error_set(err, NOVA_INVALID, "a record '%c' in the list of files", type);
		if (keep(receiver, data, length, err) < 0)
			return -1;
	}
	return -1;
}

static int tell_wants(struct receiver *receiver, struct nova_error *err)
{
	for (size_t i = 0, end; i < receiver->count; i = end + 1) {
		struct nova_writer w;
		uint8_t *room;

		for (end = i; end < receiver->count && receiver->held[end].wanted; end++)
			;
		if (end == i)
			continue;
		room = parcel_put(receiver->wire, 'W', 8, err);
		if (!room)
			return -1;
		w = nova_writer_of(room, 8);
		nova_put_u32(&w, (uint32_t)i);
		nova_put_u32(&w, (uint32_t)(end - i));
	}
	return !parcel_put(receiver->wire, 'R', 0, err) || parcel_flush(receiver->wire, err) < 0 ? -1 : 0;
}

/* ---- contents that come ---- */

static int take_hole(EVP_MD_CTX *ctx, int fd, uint64_t bytes)
{
	static const uint8_t zeros[PARCEL_DATA];

	if (lseek(fd, (off_t)bytes, SEEK_CUR) < 0)
		return -1;
	for (; bytes; bytes -= bytes < PARCEL_DATA ? bytes : PARCEL_DATA)
		EVP_DigestUpdate(ctx, zeros, bytes < PARCEL_DATA ? (size_t)bytes : PARCEL_DATA);
	return 0;
}

static int take_pieces(
    struct receiver *receiver, EVP_MD_CTX *ctx, int fd, const struct parcel_entry *entry, struct nova_error *err)
{
	uint64_t left = entry->size;
	const uint8_t *data;
	size_t length;
	uint8_t type;

	while (parcel_get(receiver->wire, &type, &data, &length, err) == 0) {
		struct nova_cursor c = nova_cursor_of(data, length);
		uint64_t bytes = type == 'Z' ? nova_get_u64(&c) : length;

		if (type == '.' && left == 0)
			return 0;
		if ((type != 'D' && type != 'Z') || bytes > left)
			return nova_error_set(err, NOVA_INVALID, "the content of '%.200s' is not %llu bytes", entry->path,
			    (unsigned long long)entry->size);
		if (type == 'Z' ? take_hole(ctx, fd, bytes) < 0 : write_sparse(fd, data, length) < 0)
			return nova_error_sys(err, errno, "writing '%.200s'", entry->path);
		if (type == 'D')
			EVP_DigestUpdate(ctx, data, length);
		left -= bytes;
		receiver->wire->shared->figures.done_bytes += bytes;
	}
	return -1;
}

static int take_content(struct receiver *receiver, struct held *held, struct nova_error *err)
{
	const struct parcel_entry *entry = &held->entry;
	NOVA_AUTOCLOSE int fd = parcel_open(receiver->root[entry->part], entry->path, O_WRONLY, 0);
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	uint8_t hash[PARCEL_HASH];

	if (fd < 0 || !ctx)
		return nova_error_sys(err, fd < 0 ? errno : ENOMEM, "writing '%.200s'", entry->path);
	EVP_DigestInit_ex(ctx, EVP_sha256(), NULL);
	if (take_pieces(receiver, ctx, fd, entry, err) < 0)
		return -1;
	EVP_DigestFinal_ex(ctx, hash, NULL);
	EVP_MD_CTX_free(ctx);
	if (memcmp(hash, entry->hash, PARCEL_HASH))
		return nova_error_set(err, NOVA_REFUSED, "'%.200s' arrived with another content than was told", entry->path);
	if (ftruncate(fd, (off_t)entry->size) < 0 || finish(fd, entry) < 0)
		return failed(entry, err);
	held->wanted = false;
	return 0;
}

static int take_contents(struct receiver *receiver, struct nova_error *err)
{
	const uint8_t *data;
	size_t length;
	uint8_t type;

	while (parcel_get(receiver->wire, &type, &data, &length, err) == 0) {
		struct nova_cursor c = nova_cursor_of(data, length);
		uint32_t number;

		if (type == 'X')
			return 0;
		number = nova_get_u32(&c);
		if (type != 'F' || c.bad || number >= receiver->count || !receiver->held[number].wanted)
			return nova_error_set(err, NOVA_INVALID, "content comes that was not asked for");
		if (take_content(receiver, &receiver->held[number], err) < 0)
			return -1;
	}
	return -1;
}

/* ---- the end ---- */

/* Deepest first: what is made in a directory changes its time. */
static int finish_all(struct receiver *receiver, struct nova_error *err)
{
	for (size_t i = receiver->count; i-- > 0;) {
		const struct held *held = &receiver->held[i];
		NOVA_AUTOCLOSE int fd = -1;

		if (held->wanted)
			return nova_error_set(err, NOVA_INVALID, "the content of '%.200s' did not come", held->entry.path);
		if (held->entry.type != PARCEL_DIRECTORY)
			continue;
		fd = parcel_open(receiver->root[held->entry.part], held->entry.path, O_RDONLY | O_DIRECTORY, 0);
		if (fd < 0 || finish(fd, &held->entry) < 0)
			return failed(&held->entry, err);
	}
	for (size_t i = 0; i < receiver->part_count; i++)
		if (syncfs(receiver->root[i]) < 0)
			return nova_error_sys(err, errno, "writing %s to disk", receiver->parts[i].name);
	return 0;
}

/* Only ever called in a process that ends with it: memory and descriptors go with that. */
int parcel_receive(struct parcel_wire *wire, const struct parcel_part *parts, size_t count, struct nova_error *err)
{
	struct receiver receiver = {
		.wire = wire,
		.parts = parts,
		.part_count = count,
		.parent_fd = -1,
		.buffer = malloc(PARCEL_DATA),
	};

	if (!receiver.buffer)
		return nova_error_sys(err, ENOMEM, "a parcel");
	for (size_t i = 0; i < count; i++) {
		receiver.root[i] = open(parts[i].path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (receiver.root[i] < 0)
			return nova_error_sys(err, errno, "%s", parts[i].path);
	}
	return take_list(&receiver, err) < 0 || tell_wants(&receiver, err) < 0 || take_contents(&receiver, err) < 0 ||
		       finish_all(&receiver, err) < 0 ?
		   -1 :
		   0;
}
