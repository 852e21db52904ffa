/* SPDX-License-Identifier: Apache-2.0
 *
 * native_open.c - a descriptor for a process under valgrind (tests/native_shim.c), sent through the socket that is standard
 * input: "pidfd PID", or "openat2 PATH FLAGS MODE RESOLVE" with the directory as descriptor 3, if any. Exits with the errno.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

static int opened(int argc, char **argv)
{
	if (argc == 3 && !strcmp(argv[1], "pidfd"))
		return (int)syscall(SYS_pidfd_open, atoi(argv[2]), 0);
	if (argc == 6 && !strcmp(argv[1], "openat2")) {
		struct open_how how = { strtoull(argv[3], NULL, 10), strtoull(argv[4], NULL, 10), strtoull(argv[5], NULL, 10) };

		return (int)syscall(SYS_openat2, fcntl(3, F_GETFD) < 0 ? AT_FDCWD : 3, argv[2], &how, sizeof(how));
	}
	errno = EINVAL;
	return -1;
}

int main(int argc, char **argv)
{
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(sizeof(int))];
	} control = { 0 };
	char byte = 0;
	struct iovec data = { &byte, 1 };
	struct msghdr message = { .msg_iov = &data, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control) };
	int fd = opened(argc, argv);

	if (fd < 0)
		return errno;
	control.header = (struct cmsghdr){ CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS };
	memcpy(CMSG_DATA(&control.header), &fd, sizeof(fd));
	return sendmsg(STDIN_FILENO, &message, 0) == 1 ? 0 : errno;
}
