/* SPDX-License-Identifier: Apache-2.0
 *
 * process.c - processes by pid and start time, watched through pidfds (child.h): children or not, they are
 * told apart from a later process that got the same pid. Not here: starting them (child.c).
 */
#include "child.h"

#include <errno.h>
#include <event2/event.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cleanup.h"

struct nova_process {
	pid_t pid;
	int pidfd;           /* owned; -1: it was gone when we looked */
	struct event *event; /* owned */
	nova_exit_fn on_exit;
	void *arg;
};

/* Fields 3 (state) and 22 (start time) of /proc/PID/stat; the name in field 2 may hold anything. errno is
 * ESRCH if there is no such process: whoever calls must not take "we are out of descriptors" for that. */
static int read_stat(pid_t pid, char *state, uint64_t *start_time)
{
	char path[64], line[1024];
	const char *rest;
	unsigned long long start;
	size_t length;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	file = fopen(path, "re");
	if (!file) {
		errno = errno == ENOENT ? ESRCH : errno;
		return -1;
	}
	length = fread(line, 1, sizeof(line) - 1, file);
	fclose(file);
	line[length] = 0;
	rest = strrchr(line, ')');
	if (!rest || sscanf(rest + 1,
	                 " %c %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %llu",
	                 state, &start) != 2) {
		errno = ESRCH; /* it ended while we read */
		return -1;
	}
	*start_time = start;
	return 0;
}

uint64_t nova_process_start_time(pid_t pid, struct nova_error *err)
{
	uint64_t start_time;
	char state;

	if (pid > 0 && read_stat(pid, &state, &start_time) == 0)
		return start_time;
	if (pid <= 0 || errno == ESRCH)
		nova_error_set(err, NOVA_STATE, "there is no process %d", (int)pid);
	else
		nova_error_sys(err, errno, "process %d", (int)pid);
	return 0;
}

bool nova_process_alive(pid_t pid, uint64_t start_time)
{
	uint64_t now;
	char state;

	if (pid <= 0)
		return false;
	if (read_stat(pid, &state, &now) == 0)
		return now == start_time && state != 'Z' && state != 'X';
	/* If we cannot look, a process of that pid counts as ours: the other mistake would start a second
	 * one. */
	return errno != ESRCH && (kill(pid, 0) == 0 || errno == EPERM);
}

static void exited(evutil_socket_t fd, short what, void *arg)
{
	struct nova_process *process = arg;
	struct nova_exit how = { .status = -1 };
	siginfo_t info = { 0 };

	if (process->pidfd >= 0 && waitid(P_PIDFD, (id_t)process->pidfd, &info, WEXITED | WNOHANG) == 0 &&
	    info.si_pid) {
		how.known = true;
		if (info.si_code == CLD_EXITED)
			how.status = info.si_status;
		else
			how.signal = info.si_status;
	}
	event_del(process->event);
	process->on_exit(process->arg, &how);
}

/* A pidfd of exactly this process; -1 with ESRCH if it is gone, or with what else went wrong. The pidfd
 * first, then the start time: so the pidfd is of the process we mean, or of nobody. */
static int open_pidfd(pid_t pid, uint64_t start_time)
{
	NOVA_AUTOCLOSE int fd = pid > 0 ? (int)syscall(SYS_pidfd_open, pid, 0) : -1;
	uint64_t now;
	char state;

	if (pid <= 0)
		errno = ESRCH;
	if (fd < 0 || read_stat(pid, &state, &now) < 0)
		return -1;
	if (now == start_time)
		return nova_take_fd(&fd);
	errno = ESRCH;
	return -1;
}

struct nova_process *nova_process_watch(struct event_base *base, pid_t pid, uint64_t start_time,
    nova_exit_fn on_exit, void *arg, struct nova_error *err)
{
	struct nova_process *process = calloc(1, sizeof(*process));

	if (!process) {
		nova_error_sys(err, ENOMEM, "process %d", (int)pid);
		return NULL;
	}
	process->pid = pid;
	process->on_exit = on_exit;
	process->arg = arg;
	process->pidfd = open_pidfd(pid, start_time);
	if (process->pidfd < 0 && errno != ESRCH) {
		nova_error_sys(err, errno, "process %d cannot be watched", (int)pid);
		return nova_process_unwatch(process);
	}
	process->event = event_new(base, process->pidfd, process->pidfd >= 0 ? EV_READ : 0, exited, process);
	if (!process->event || (process->pidfd >= 0 && event_add(process->event, NULL) < 0)) {
		nova_error_sys(err, ENOMEM, "process %d", (int)pid);
		return nova_process_unwatch(process);
	}
	if (process->pidfd < 0)
		event_active(process->event, EV_TIMEOUT, 0);
	return process;
}

struct nova_process *nova_process_unwatch(struct nova_process *process)
{
	if (!process)
		return NULL;
	if (process->event)
		event_free(process->event);
	if (process->pidfd >= 0)
		close(process->pidfd);
	free(process);
	return NULL;
}

int nova_process_signal(struct nova_process *process, int signal, struct nova_error *err)
{
	if (process->pidfd >= 0 && syscall(SYS_pidfd_send_signal, process->pidfd, signal, NULL, 0) == 0)
		return 0;
	if (process->pidfd < 0 || errno == ESRCH)
		return nova_error_set(err, NOVA_STATE, "process %d is gone", (int)process->pid);
	return nova_error_sys(err, errno, "signal %d to process %d", signal, (int)process->pid);
}
