/* SPDX-License-Identifier: Apache-2.0
 *
 * socket.c - unix sockets between us and the hypervisors of this host.
 */
#include "socket.h"
#include "cleanup.h"

#include <errno.h>
#include <libgen.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

static int address_of(const char *path, struct sockaddr_un *address, struct nova_error *err)
{
	*address = (struct sockaddr_un) { .sun_family = AF_UNIX };
	if (strlen(path) >= sizeof(address->sun_path))
		return nova_error_set(err, NOVA_INVALID, "socket path %s has %zu bytes, at most %zu are possible", path,
		    strlen(path), sizeof(address->sun_path) - 1);
	memcpy(address->sun_path, path, strlen(path));
	return 0;
}

static int bind_for_owner(int fd, const struct sockaddr_un *address)
{
	char directory[sizeof(address->sun_path)];
	struct stat owner;

	memcpy(directory, address->sun_path, sizeof(directory));
	unlink(address->sun_path);
	if (stat(dirname(directory), &owner) < 0 ||
	    bind(fd, (const struct sockaddr *)address, sizeof(*address)) < 0 || chmod(address->sun_path, 0600) < 0)
		return -1;
	return lchown(address->sun_path, owner.st_uid, owner.st_gid);
}

int nova_unix_listen(const char *path, struct nova_error *err)
{
	struct sockaddr_un address;
	NOVA_AUTOCLOSE int fd = -1;

	if (address_of(path, &address, err) < 0)
		return -1;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0 || bind_for_owner(fd, &address) < 0 || listen(fd, 4) < 0)
		return nova_error_sys(err, errno, "socket %s", path);
	return nova_take_fd(&fd);
}

int nova_unix_accept(int listen_fd)
{
	return accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
}

int nova_unix_connect(const char *path, struct nova_error *err)
{
	struct sockaddr_un address;
	NOVA_AUTOCLOSE int fd = -1;

	if (address_of(path, &address, err) < 0)
		return -1;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
		return nova_error_sys(err, errno, "connecting to %s", path);
	return nova_take_fd(&fd);
}

int nova_unix_pair(int fd[2], struct nova_error *err)
{
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fd) < 0)
		return nova_error_sys(err, errno, "no pair of sockets");
	return 0;
}
