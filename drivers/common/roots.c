/* SPDX-License-Identifier: Apache-2.0
 *
 * roots.c - opening below the configured roots (roots.h).
 */
#include "drivers/common/roots.h"
#include "engine/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>

static void name_roots(const json_t *roots, char *text, size_t size)
{
	size_t used = 0, i;
	json_t *root;

	*text = 0;
	json_array_foreach ((json_t *)roots, i, root)
		if (used < size)
			used += (size_t)snprintf(
			    text + used, size - used, "%s%s", i ? ", " : "", json_string_value(root));
}

int roots_refuse(const json_t *roots, const char *what, const char *path, struct nova_error *err)
{
	char names[256];

	if (json_array_size(roots) == 0)
		return nova_error_set(err, NOVA_INVALID,
		    "%s %s: no directories for guests' files are configured (roots)", what, path);
	name_roots(roots, names, sizeof(names));
	return nova_error_set(err, NOVA_INVALID, "%s %s is outside of the roots (%s)", what, path, names);
}

/* What follows the root's name in path, or NULL. */
static const char *below(const char *root, const char *path)
{
	size_t length = strlen(root);

	while (length && root[length - 1] == '/')
		length--;
	if (strncmp(root, path, length) != 0 || path[length] != '/')
		return NULL;
	path += length;
	while (*path == '/')
		path++;
	return *path ? path : NULL;
}

static int open_beneath(const char *root, const char *rest, int flags)
{
	NOVA_AUTOCLOSE int dir = open(root, O_PATH | O_DIRECTORY | O_CLOEXEC);
	struct open_how how = {
		.flags = (unsigned)(flags | O_CLOEXEC),
		.resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS,
	};

	if (flags & O_CREAT)
		how.mode = 0600;
	if (dir < 0)
		return -1;
	return (int)syscall(SYS_openat2, dir, rest, &how, sizeof(how));
}

int roots_open(const json_t *roots, const char *path, int flags)
{
	int fd = -1, errnum = EXDEV;
	json_t *root;
	size_t i;

	json_array_foreach ((json_t *)roots, i, root) {
		const char *rest = below(json_string_value(root), path);

		if (!rest)
			continue;
		fd = open_beneath(json_string_value(root), rest, flags);
		if (fd >= 0)
			return fd;
		if (errno != EXDEV && errno != ELOOP)
			errnum = errno;
	}
	errno = errnum;
	return -1;
}

int roots_need(const json_t *roots, const char *what, const char *path, unsigned kind, struct nova_error *err)
{
	NOVA_AUTOCLOSE int fd = roots_open(roots, path, O_PATH);
	struct stat st;

	if (fd < 0 && errno == EXDEV)
		return roots_refuse(roots, what, path, err);
	if (fd < 0 || fstat(fd, &st) < 0)
		return nova_error_sys(err, errno, "%s %s", what, path);
	if (kind ? (st.st_mode & S_IFMT) != kind : !S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode))
		return nova_error_set(err, NOVA_INVALID, "%s %s is not a %s", what, path,
		    kind == S_IFREG ? "file" : kind == S_IFDIR ? "directory" : "file or directory");
	return 0;
}

json_t *roots_of(const struct nova_driver_env *env)
{
	const json_t *roots = env->config ? nova_config_get(env->config, "roots") : NULL;

	if (json_array_size(roots) > 0)
		return json_deep_copy(roots);
	return json_pack("[o]", json_sprintf("%s/images", env->state_dir));
}
