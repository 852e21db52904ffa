/* SPDX-License-Identifier: Apache-2.0
 *
 * child.h - child processes that do not block the loop, and processes that outlive us.
 *
 * Children are watched through pidfds: no SIGCHLD handler, no waitpid(-1), so that the host program may
 * have children of its own. A process is named by its pid and its start time, never by the pid alone.
 * Every child gets stdin from /dev/null, default signal dispositions, an empty signal mask and no file
 * descriptor but the ones named.
 */
#ifndef NOVA_CHILD_H
#define NOVA_CHILD_H

#include "novacron.h"

#include <sys/resource.h>
#include <sys/types.h>

#define NOVA_CHILD_OUTPUT_MAX                                                                                \
	(64u * 1024) /* bytes kept of stdout and of stderr each; the rest is read and lost */

struct nova_confinement;

struct nova_child_limit {
	int resource; /* RLIMIT_... */
	struct rlimit value;
};

/* All may be zero. Everything is borrowed for the call. */
struct nova_child_options {
	int limit_ms; /* nova_child_run: then SIGKILL for the whole process group and NOVA_TIMEOUT; 0: none */
	bool become;  /* become uid, gid and exactly these groups; otherwise we stay who we are */
	uid_t uid;
	gid_t gid;
	const gid_t *groups;
	size_t group_count;
	bool no_new_privs;
	const struct nova_confinement *confinement; /* confine.h: worn last, before the program begins; NULL: none */
	const struct nova_child_limit *limits;
	size_t limit_count;
	const char *cwd;     /* NULL: / */
	const int *keep_fds; /* open in the child under the same numbers, each 3 or more */
	size_t keep_fd_count;
	const char *const *env; /* "NAME=value", ends with NULL; NULL: our PATH, and LC_ALL=C */
};

/* Run argv (ends with NULL; argv[0] is looked up in PATH) to its end in its own process group. It dies with
 * us. Answers {"status": 0..255 or -1, "signal": 0 or the number it died of, "stdout": "", "stderr": "",
 * "truncated": bool}; a status other than 0 is an answer, not an error. Output that is not UTF-8 has '?' for
 * the bytes above 127. Errors: NOVA_SYSTEM if the program could not be started, NOVA_TIMEOUT past limit_ms.
 * Dropping kills the group. */
struct nova_op *nova_child_run(struct event_base *base, const char *const argv[],
    const struct nova_child_options *options, nova_done_fn done, void *arg, struct nova_error *err);
/* The usual thing to do with an answer: 0 if status is 0, else -1 and *err with the program's name and the
 * last line of its stderr. */
int nova_child_check(const char *program, const json_t *result, struct nova_error *err);

/* Start argv in a session of its own, to outlive us: stdout and stderr are appended to the file log_path
 * (created 0600; NULL: /dev/null). *pid and *start_time name it. Waits for the exec (usually 1 ms; at most
 * 5 s, then the child is killed), so that a missing program is an error here. Watch it (nova_process_watch),
 * otherwise it stays a zombie as long as we live. */
int nova_child_spawn(const char *const argv[], const struct nova_child_options *options, const char *log_path,
    pid_t *pid, uint64_t *start_time, struct nova_error *err);

/* ---- processes by pid and start time (field 22 of /proc/PID/stat, clock ticks since boot) ----------- */

/* 0 and *err (may be NULL) if there is no such process. */
uint64_t nova_process_start_time(pid_t pid, struct nova_error *err);
/* A zombie is not alive. */
bool nova_process_alive(pid_t pid, uint64_t start_time);

struct nova_process;

/* known: it was our child and nobody else took its status; then status (-1 if killed) and signal count. */
struct nova_exit {
	bool known;
	int status;
	int signal;
};
typedef void (*nova_exit_fn)(void *arg, const struct nova_exit *how);

/* Call on_exit once, from the loop, when the process has ended; also for processes that are not our
 * children, and at once (from the loop) if it is gone already. on_exit may unwatch. */
struct nova_process *nova_process_watch(struct event_base *base, pid_t pid, uint64_t start_time,
    nova_exit_fn on_exit, void *arg, struct nova_error *err);
/* Stop watching and free; the process goes on. Returns NULL; NULL is fine. */
struct nova_process *nova_process_unwatch(struct nova_process *process);
/* Send a signal to exactly this process; NOVA_STATE if it is gone. */
int nova_process_signal(struct nova_process *process, int signal, struct nova_error *err);

#endif
