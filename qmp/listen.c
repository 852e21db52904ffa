/* SPDX-License-Identifier: Apache-2.0
 *
 * listen.c - a listening unix socket where a file of that name may be left from a process that died.
 *
 * The file's mode is never wider than asked, not even between bind() and chmod(). A socket that somebody
 * listens on, and a file that is no socket, are errors. Two processes that start at the same instant over the
 * same left-over file are not kept apart here: the daemon's state directory does that.
 */
#include "server.h"
#include "engine/cleanup.h"

#include <errno.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#define BACKLOG 512

/* 0: nobody listens and the file was removed. */
static int remove_stale(const char *path, const struct sockaddr_un *address, struct nova_error *err)
{
	NOVA_AUTOCLOSE int probe = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	struct stat file;

	if (probe < 0)
		return nova_error_sys(err, errno, "no socket");
	if (lstat(path, &file) < 0)
		return errno == ENOENT ? 0 : nova_error_sys(err, errno, "%s", path);
	if (!S_ISSOCK(file.st_mode))
		return nova_error_set(
		    err, NOVA_INVALID, "%s exists and is not a socket; name another path", path);
	if (connect(probe, (const struct sockaddr *)address, sizeof(*address)) == 0 || errno == EAGAIN)
		return nova_error_set(
		    err, NOVA_STATE, "%s is in use by a running process; stop it or name another path", path);
	if (errno != ECONNREFUSED)
		return nova_error_sys(err, errno, "%s is there already", path);
	if (unlink(path) < 0 && errno != ENOENT)
		return nova_error_sys(err, errno, "stale socket %s cannot be removed", path);
	return 0;
}

int qmp_listen(const char *path, unsigned mode, struct nova_error *err)
{
	NOVA_AUTOCLOSE int fd = -1;
	struct sockaddr_un address;

	if (qmp_wire_address(&address, path, err) < 0)
		return -1;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0 || fchmod(fd, mode) < 0)
		return nova_error_sys(err, errno, "no socket");
	if (bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
		if (errno != EADDRINUSE)
			return nova_error_sys(err, errno, "socket %s cannot be made", path);
		if (remove_stale(path, &address, err) < 0)
			return -1;
		if (bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
			return nova_error_sys(err, errno, "socket %s cannot be made", path);
	}
	if (chmod(path, mode) < 0 || listen(fd, BACKLOG) < 0) {
		int why = errno;

		unlink(path);
		return nova_error_sys(err, why, "socket %s cannot be opened", path);
	}
	return nova_take_fd(&fd);
}
