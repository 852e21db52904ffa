/* SPDX-License-Identifier: Apache-2.0
 *
 * paths.c - a guest's files lie below the configured roots, and nowhere else.
 *
 * drivers/common/roots.c opens below the roots. A qcow2 image names further files (backing files, 16 deep at most, and
 * external data files, which we refuse): they are checked as well, before QEMU opens the first. QEMU opens by
 * name later: whoever may write below the roots is trusted not to swap links meanwhile.
 */
#include "drivers/common/roots.h"
#include "kvm.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#define BACKING_DEPTH_MAX 64
#define BACKING_NAME_MAX 1023 /* qcow2's own limit */

static int64_t size_of(int fd, const char *what, const char *path, struct nova_error *err)
{
	struct stat st;
	uint64_t bytes = 0;

	if (fstat(fd, &st) < 0)
		return nova_error_sys(err, errno, "%s %s", what, path);
	if (S_ISREG(st.st_mode))
		return st.st_size;
	if (S_ISBLK(st.st_mode)) {
		char name[64];
		NOVA_AUTOCLOSE int device = -1;

		snprintf(name, sizeof(name), "/proc/self/fd/%d", fd);
		device = open(name, O_RDONLY | O_CLOEXEC);
		if (device < 0 || ioctl(device, BLKGETSIZE64, &bytes) < 0)
			return nova_error_sys(err, errno, "%s %s", what, path);
		return (int64_t)bytes;
	}
	return nova_error_set(err, NOVA_INVALID, "%s %s is neither a file nor a block device", what, path);
}

int64_t kvm_path_existing(const json_t *roots, const char *what, const char *path, struct nova_error *err)
{
	NOVA_AUTOCLOSE int fd = roots_open(roots, path, O_PATH);

	if (fd < 0 && errno == EXDEV)
		return roots_refuse(roots, what, path, err);
	if (fd < 0)
		return nova_error_sys(err, errno, "%s %s", what, path);
	return size_of(fd, what, path, err);
}

int kvm_path_creatable(const json_t *roots, const char *what, const char *path, struct nova_error *err)
{
	NOVA_AUTOCLOSE int fd = roots_open(roots, path, O_PATH);
	NOVA_AUTOCLOSE int parent = -1;
	NOVA_AUTOFREE char *directory = NULL;
	const char *slash = strrchr(path, '/');

	if (fd >= 0)
		return 1;
	if (errno == EXDEV)
		return roots_refuse(roots, what, path, err);
	if (errno != ENOENT)
		return nova_error_sys(err, errno, "%s %s", what, path);
	if (!slash[1] || strcmp(slash, "/..") == 0 || strcmp(slash, "/.") == 0)
		return nova_error_set(err, NOVA_INVALID, "%s %s is not the name of a file", what, path);
	/* "/." keeps a root itself below itself */
	if (asprintf(&directory, "%.*s/.", (int)(slash - path), path) < 0)
		return nova_error_sys(err, ENOMEM, "%s", path);
	parent = roots_open(roots, directory, O_PATH | O_DIRECTORY);
	if (parent < 0)
		return nova_error_sys(err, errno, "directory of %s %s", what, path);
	return 0;
}

/* ---- qcow2 ---------------------------------------------------------------------------------------- */

struct qcow2_header {
	uint32_t version;
	uint64_t backing_offset;
	uint32_t backing_length;
	uint64_t size;
	uint64_t incompatible;
};

static uint64_t big_endian(const uint8_t *bytes, int count)
{
	uint64_t value = 0;

	while (count--)
		value = value << 8 | *bytes++;
	return value;
}

static int read_header(int fd, const char *path, struct qcow2_header *header, struct nova_error *err)
{
	uint8_t bytes[104] = { 0 };
	ssize_t got = pread(fd, bytes, sizeof(bytes), 0);

	if (got < 72 || memcmp(bytes, "QFI\xfb", 4) != 0)
		return nova_error_set(
		    err, NOVA_INVALID, "disk %s is not a qcow2 image: say format=raw if it is one", path);
	header->version = (uint32_t)big_endian(bytes + 4, 4);
	header->backing_offset = big_endian(bytes + 8, 8);
	header->backing_length = (uint32_t)big_endian(bytes + 16, 4);
	header->size = big_endian(bytes + 24, 8);
	header->incompatible = header->version >= 3 ? big_endian(bytes + 72, 8) : 0;
	if (header->size > INT64_MAX || header->backing_length > BACKING_NAME_MAX ||
	    header->backing_offset > INT64_MAX)
		return nova_error_set(err, NOVA_INVALID, "disk %s: its qcow2 header is damaged", path);
	if (header->incompatible & 4)
		return nova_error_set(
		    err, NOVA_INVALID, "disk %s keeps its data in another file: not supported", path);
	return 0;
}

/* The backing file's name as a path; 0: there is none, 1: in *backing, -1. */
static int read_backing(
    int fd, const char *path, const struct qcow2_header *header, char **backing, struct nova_error *err)
{
	char name[BACKING_NAME_MAX + 1] = "";
	const char *slash = strrchr(path, '/');
	int made;

	if (!header->backing_offset || !header->backing_length)
		return 0;
	if (pread(fd, name, header->backing_length, (off_t)header->backing_offset) != header->backing_length)
		return nova_error_set(err, NOVA_INVALID, "disk %s: its qcow2 header is damaged", path);
	if (strcspn(name, ":") < strcspn(name, "/"))
		return nova_error_set(
		    err, NOVA_INVALID, "disk %s: its backing file %s is not a plain file", path, name);
	if (*name == '/')
		made = asprintf(backing, "%s", name);
	else
		made = asprintf(backing, "%.*s/%s", (int)(slash - path), path, name);
	return made < 0 ? nova_error_sys(err, ENOMEM, "%s", path) : 1;
}

static int64_t check_chain(const json_t *roots, const char *path, int depth, struct nova_error *err)
{
	NOVA_AUTOCLOSE int fd = roots_open(roots, path, O_RDONLY);
	struct qcow2_header header = { 0 };
	NOVA_AUTOFREE char *backing = NULL;
	struct nova_error not_qcow2;
	int has;

	if (fd < 0 && errno == EXDEV)
		return roots_refuse(roots, depth ? "backing file" : "disk", path, err);
	if (fd < 0)
		return nova_error_sys(err, errno, "%s %s", depth ? "backing file" : "disk", path);
	if (depth > BACKING_DEPTH_MAX)
		return nova_error_set(
		    err, NOVA_INVALID, "more than %d backing files below each other", BACKING_DEPTH_MAX);
	if (depth && read_header(fd, path, &header, &not_qcow2) < 0 && !(header.incompatible & 4))
		return 0; /* a raw backing file names no others */
	if (read_header(fd, path, &header, err) < 0)
		return -1;
	has = read_backing(fd, path, &header, &backing, err);
	if (has < 0 || (has && check_chain(roots, backing, depth + 1, err) < 0))
		return depth ? -1 : nova_error_prefix(err, "disk %s", path); /* once, or a long chain hides the reason */
	return (int64_t)header.size;
}

int64_t kvm_path_qcow2(const json_t *roots, const char *path, struct nova_error *err)
{
	return check_chain(roots, path, 0, err);
}
