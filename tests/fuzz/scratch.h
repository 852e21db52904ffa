/* SPDX-License-Identifier: Apache-2.0
 *
 * scratch.h - for fuzz targets whose parser reads files: one private directory for the life of the program.
 */
#ifndef NOVA_FUZZ_SCRATCH_H
#define NOVA_FUZZ_SCRATCH_H

#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static inline void require(bool holds, const char *what)
{
	if (holds)
		return;
	fprintf(stderr, "does not hold: %s\n", what);
	abort();
}

static char scratch_dir[64];

static void scratch_remove(void)
{
	char command[128];

	snprintf(command, sizeof(command), "rm -rf %s", scratch_dir);
	require(system(command) == 0, "the scratch directory can be removed");
}

static inline const char *scratch(void)
{
	if (scratch_dir[0])
		return scratch_dir;
	snprintf(scratch_dir, sizeof(scratch_dir), "%s/nova-fuzz-XXXXXX", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
	require(mkdtemp(scratch_dir) != NULL, "a scratch directory can be made");
	atexit(scratch_remove);
	return scratch_dir;
}

static inline void scratch_write(const char *path, const uint8_t *data, size_t size)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	require(fd >= 0 && write(fd, data, size) == (ssize_t)size, "a scratch file can be written");
	close(fd);
}

#endif
