/* SPDX-License-Identifier: Apache-2.0
 *
 * break_socket PID PATH: shut down the connections that process PID has accepted on its unix socket PATH, and leave the
 * process and its listening socket alone. Prints how many there were; exit status 1 if none. Needs root.
 */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

static int is_accepted_on(int fd, const char *path)
{
	struct sockaddr_un name = { 0 };
	socklen_t size = sizeof(name), flag_size = sizeof(int);
	int listens = 1;

	if (getsockname(fd, (struct sockaddr *)&name, &size) < 0 || name.sun_family != AF_UNIX || strcmp(name.sun_path, path))
		return 0;
	return getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &flag_size) == 0 && !listens;
}

int main(int argc, char **argv)
{
	char fds[64];
	const struct dirent *entry;
	int process, broken = 0;
	DIR *dir;

	if (argc != 3) {
		fputs("usage: break_socket PID PATH\n", stderr);
		return 2;
	}
	snprintf(fds, sizeof(fds), "/proc/%s/fd", argv[1]);
	process = (int)syscall(SYS_pidfd_open, atoi(argv[1]), 0);
	dir = opendir(fds);
	if (process < 0 || !dir) {
		perror(argv[1]);
		return 2;
	}
	while ((entry = readdir(dir))) {
		int fd = *entry->d_name == '.' ? -1 : (int)syscall(SYS_pidfd_getfd, process, atoi(entry->d_name), 0);

		if (fd < 0)
			continue;
		if (is_accepted_on(fd, argv[2]) && shutdown(fd, SHUT_RDWR) == 0)
			broken++;
		close(fd);
	}
	printf("%d\n", broken);
	closedir(dir);
	return broken ? 0 : 1;
}
