/* SPDX-License-Identifier: Apache-2.0
 *
 * native_shim.c - preloaded into a daemon under valgrind (see tests/memcheck), whose 3.19 does not know some calls that give
 * descriptors: pidfd_open and openat2 are made by the program NOVA_NATIVE_OPEN, which valgrind does not follow, and
 * pidfd_send_signal becomes kill(). A child's seccomp filter and its limit of descriptors are left out, since valgrind could
 * not work in the one and refuses the other. Every other call of syscall() goes to the kernel as it is.
 */
#include <dlfcn.h>
#include <errno.h>
#include <linux/openat2.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static int receive(int from)
{
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(sizeof(int))];
	} control = { 0 };
	char byte;
	struct iovec data = { &byte, 1 };
	struct msghdr message = { .msg_iov = &data, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control) };
	int fd;

	if (recvmsg(from, &message, MSG_CMSG_CLOEXEC) != 1 || control.header.cmsg_type != SCM_RIGHTS)
		return -1;
	memcpy(&fd, CMSG_DATA(&control.header), sizeof(fd));
	return fd;
}

/* directory: -1, or what becomes descriptor 3 of the program. */
static long open_elsewhere(char *const argv[], int directory)
{
	char *program = getenv("NOVA_NATIVE_OPEN"), *envp[] = { NULL };
	posix_spawn_file_actions_t actions;
	int pair[2], status = 0, fd = -1;
	pid_t child;

	if (!program || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0) {
		errno = ENOSYS;
		return -1;
	}
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, pair[1], STDIN_FILENO);
	if (directory >= 0)
		posix_spawn_file_actions_adddup2(&actions, directory, 3);
	errno = posix_spawn(&child, program, &actions, NULL, argv, envp);
	posix_spawn_file_actions_destroy(&actions);
	close(pair[1]);
	if (errno == 0) {
		fd = receive(pair[0]);
		while (waitpid(child, &status, 0) < 0 && errno == EINTR)
			;
		errno = fd < 0 ? WEXITSTATUS(status) : 0;
	}
	close(pair[0]);
	return fd;
}

static long native_pidfd(long pid)
{
	char number[24], *argv[] = { "native_open", "pidfd", number, NULL };

	snprintf(number, sizeof(number), "%ld", pid);
	return open_elsewhere(argv, -1);
}

static long native_openat2(long directory, const char *path, const struct open_how *how)
{
	char number[3][24], *argv[] = { "native_open", "openat2", (char *)path, number[0], number[1], number[2], NULL };

	snprintf(number[0], sizeof(number[0]), "%llu", (unsigned long long)how->flags);
	snprintf(number[1], sizeof(number[1]), "%llu", (unsigned long long)how->mode);
	snprintf(number[2], sizeof(number[2]), "%llu", (unsigned long long)how->resolve);
	return open_elsewhere(argv, (int)directory);
}

static long signal_by_pid(long pidfd, long signal)
{
	char path[64], line[128];
	int pid = -1;
	FILE *info;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%ld", pidfd);
	info = fopen(path, "re");
	while (info && fgets(line, sizeof(line), info))
		if (sscanf(line, "Pid: %d", &pid) == 1)
			break;
	if (info)
		fclose(info);
	errno = ESRCH;
	return pid > 0 ? kill(pid, (int)signal) : -1;
}

__attribute__((visibility("default"))) long syscall(long number, ...)
{
	long (*real)(long number, ...) = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
	long arg[6];
	va_list list;

	va_start(list, number);
	for (int i = 0; i < 6; i++)
		arg[i] = va_arg(list, long);
	va_end(list);
	if (number == SYS_pidfd_open)
		return native_pidfd(arg[0]);
	if (number == SYS_openat2)
		return native_openat2(arg[0], (const char *)arg[1], (const struct open_how *)arg[2]);
	if (number == SYS_pidfd_send_signal)
		return signal_by_pid(arg[0], arg[1]);
	return real(number, arg[0], arg[1], arg[2], arg[3], arg[4], arg[5]);
}

__attribute__((visibility("default"))) int prctl(int option, ...)
{
	int (*real)(int option, ...) = (int (*)(int, ...))dlsym(RTLD_NEXT, "prctl");
	unsigned long arg[4];
	va_list list;

	va_start(list, option);
	for (int i = 0; i < 4; i++)
		arg[i] = va_arg(list, unsigned long);
	va_end(list);
	return option == PR_SET_SECCOMP ? 0 : real(option, arg[0], arg[1], arg[2], arg[3]);
}

__attribute__((visibility("default"))) int setrlimit(__rlimit_resource_t resource, const struct rlimit *limit)
{
	int (*real)(__rlimit_resource_t, const struct rlimit *) =
	    (int (*)(__rlimit_resource_t, const struct rlimit *))dlsym(RTLD_NEXT, "setrlimit");

	return resource == RLIMIT_NOFILE ? 0 : real(resource, limit);
}
