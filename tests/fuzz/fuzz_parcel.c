/* SPDX-License-Identifier: Apache-2.0
 *
 * fuzz_parcel.c - entries of a parcel as another host may send them: what is let through keeps the rules that making files
 * relies on.
 */
#include <stdlib.h>
#include <string.h>

#include "drivers/common/parcel_record.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* No way up, and none from the top. */
static void check_path(const char *path)
{
	if (*path == '/' || strstr(path, "//") || !strcmp(path, "..") || !strncmp(path, "../", 3) || strstr(path, "/../") ||
	    (strlen(path) >= 3 && !strcmp(path + strlen(path) - 3, "/..")) || strlen(path) >= PARCEL_PATH_MAX)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct parcel_entry entry;
	struct nova_error err;
	uint8_t *copy = malloc(size ? size : 1); /* so that a byte too far is seen */

	if (!copy)
		return 0;
	if (size)
		memcpy(copy, data, size);
	if (parcel_entry_get(copy, size, 2, &entry, &err) == 0) {
		check_path(entry.path);
		if (entry.type == PARCEL_LINK)
			check_path(entry.target);
		if (entry.part > 1 || entry.mode & ~07777u || (!*entry.path && entry.type != PARCEL_DIRECTORY))
			abort();
	}
	free(copy);
	return 0;
}
