/* SPDX-License-Identifier: Apache-2.0
 *
 * child.c - starting programs (child.h): a fork, the options applied in the child, an exec. The child tells
 * a failing exec through a pipe that exec closes. Not here: watching processes (process.c).
 */
#include "child.h"

#include "clock.h"
#include "confine.h"
#include "cleanup.h"
#include "op.h"

#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#define EXEC_LIMIT_MS 5000
#define KEEP_MAX 16
#define PIPE_BYTES (64u * 1024) /* what Linux gives a pipe */

/* What the child does before exec: only async-signal-safe calls. */
struct launch {
	const char *const *argv;
	const struct nova_child_options *options;
	char *const *env;
	int out, err, failure; /* descriptors */
	bool detached;
	pid_t parent;
};

static void fail_in_child(const struct launch *launch)
{
	int code = errno;
	ssize_t ignored = write(launch->failure, &code, sizeof(code));

	(void)ignored;
	_exit(127);
}

static void reset_signals(void)
{
	static const uint64_t kernel_default[4]; /* the kernel's struct sigaction: SIG_DFL is all zeroes */
	struct sigaction action = { .sa_handler = SIG_DFL };
	sigset_t none;

	for (int i = 1; i < NSIG; i++)
		sigaction(i, &action, NULL);
	for (int i = __SIGRTMIN; i < SIGRTMIN; i++) /* the C library's own, which its sigaction() refuses */
		syscall(SYS_rt_sigaction, i, kernel_default, NULL, sizeof(uint64_t));
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

static bool kept(const struct nova_child_options *options, unsigned fd)
{
	for (size_t i = 0; i < options->keep_fd_count; i++)
		if ((unsigned)options->keep_fds[i] == fd)
			return true;
	return false;
}

/* Everything is closed at exec but stdio and what is to be kept. */
static int mark_descriptors(const struct launch *launch)
{
	if (close_range(3, ~0u, CLOSE_RANGE_CLOEXEC) < 0)
		return -1;
	for (size_t i = 0; i < launch->options->keep_fd_count; i++)
		if (fcntl(launch->options->keep_fds[i], F_SETFD, 0) < 0)
			return -1;
	return 0;
}

static int become(const struct nova_child_options *options)
{
	if (!options->become)
		return 0;
	if (setgroups(options->group_count, options->groups) < 0 ||
	    setresgid(options->gid, options->gid, options->gid) < 0)
		return -1;
	return setresuid(options->uid, options->uid, options->uid);
}

/* Where the host program closed its stdio, our descriptors may have those numbers. */
static int above_stdio(int fd)
{
	return fd >= 0 && fd <= 2 ? fcntl(fd, F_DUPFD_CLOEXEC, 3) : fd;
}

static void run_child(struct launch *launch)
{
	const struct nova_child_options *options = launch->options;
	int null = above_stdio(open("/dev/null", O_RDWR | O_CLOEXEC));

	launch->failure = above_stdio(launch->failure);
	launch->out = above_stdio(launch->out);
	launch->err = above_stdio(launch->err);
	reset_signals();
	if (launch->detached)
		setsid();
	else {
		setpgid(0, 0);
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != launch->parent)
			_exit(127);
	}
	if (null < 0 || dup2(null, 0) < 0 || dup2(launch->out >= 0 ? launch->out : null, 1) < 0 ||
	    dup2(launch->err >= 0 ? launch->err : null, 2) < 0)
		fail_in_child(launch);
	for (size_t i = 0; i < options->limit_count; i++)
		if (setrlimit((__rlimit_resource_t)options->limits[i].resource, &options->limits[i].value) <
		    0)
			fail_in_child(launch);
	if (become(options) < 0 || chdir(options->cwd ? options->cwd : "/") < 0 ||
	    (options->no_new_privs && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0) ||
	    mark_descriptors(launch) < 0)
		fail_in_child(launch);
	/* becoming another user clears it */
	if (!launch->detached)
		prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (options->confinement && nova_confinement_wear(options->confinement) < 0)
		fail_in_child(launch);
	execvpe(launch->argv[0], (char *const *)launch->argv, launch->env);
	fail_in_child(launch);
}

static int check_keep(const struct nova_child_options *options, struct nova_error *err)
{
	if (options->keep_fd_count > KEEP_MAX || kept(options, 0) || kept(options, 1) || kept(options, 2))
		return nova_error_set(
		    err, NOVA_INVALID, "a child keeps at most %d descriptors, 3 or more each", KEEP_MAX);
	return 0;
}

/* Wait for the exec: the pipe closes when it worked. */
static int wait_exec(int fd, pid_t pid, const char *program, struct nova_error *err)
{
	struct pollfd poll_fd = { .fd = fd, .events = POLLIN };
	int code = ETIMEDOUT, n;

	do
		n = poll(&poll_fd, 1, EXEC_LIMIT_MS);
	while (n < 0 && errno == EINTR);
	if (n > 0 && read(fd, &code, sizeof(code)) == 0)
		return 0;
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	return nova_error_sys(err, code, "starting %s", program);
}

static pid_t launch_child(struct launch *launch, struct nova_error *err)
{
	char path[4096], *env[] = { path, (char *)"LC_ALL=C", NULL };
	const char *our_path = getenv("PATH");
	int failure[2], code;
	sigset_t all, mask;
	pid_t pid;

	snprintf(path, sizeof(path), "PATH=%s", our_path ? our_path : "/usr/sbin:/usr/bin:/sbin:/bin");
	if (check_keep(launch->options, err) < 0)
		return -1;
	if (pipe2(failure, O_CLOEXEC) < 0)
		return nova_error_sys(err, errno, "starting %s", launch->argv[0]);
	launch->env = launch->options->env ? (char *const *)launch->options->env : env;
	launch->parent = getpid();
	launch->failure = failure[1];
	/* A handler of the host program must not run in the child: it would write to the parent's wake-up
	 * pipe. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &mask);
	pid = fork();
	if (pid == 0)
		run_child(launch);
	code = errno;
	pthread_sigmask(SIG_SETMASK, &mask, NULL);
	close(failure[1]);
	if (pid < 0)
		nova_error_sys(err, code, "starting %s", launch->argv[0]);
	else if (wait_exec(failure[0], pid, launch->argv[0], err) < 0)
		pid = -1;
	close(failure[0]);
	launch->env = NULL; /* ours was here */
	return pid;
}

int nova_child_spawn(const char *const argv[], const struct nova_child_options *options, const char *log_path,
    pid_t *pid, uint64_t *start_time, struct nova_error *err)
{
	static const struct nova_child_options none;
	NOVA_AUTOCLOSE int log = -1;
	struct launch launch = {
		.argv = argv, .options = options ? options : &none, .detached = true, .out = -1, .err = -1
	};
	pid_t child;

	if (log_path) {
		log = open(log_path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
		if (log < 0)
			return nova_error_sys(err, errno, "log file %s", log_path);
		launch.out = launch.err = log;
	}
	child = launch_child(&launch, err);
	if (child < 0)
		return -1;
	*pid = child;
	*start_time = nova_process_start_time(child, err);
	if (*start_time)
		return 0;
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
	return -1;
}

/* ---- run to the end ---- */

struct stream {
	struct run *run;
	struct event *event; /* owned: NULL once it has ended */
	int fd;              /* owned */
	char *text;          /* owned: NOVA_CHILD_OUTPUT_MAX + 1 */
	size_t length;
};

struct run {
	struct nova_op op;
	struct event_base *base;
	char *program; /* owned */
	pid_t pid;
	struct nova_process *process; /* owned */
	struct event *limit;          /* owned */
	struct stream out, err;
	bool exited, truncated, timed_out;
	struct nova_exit how;
	int limit_ms;
	nova_done_fn done;
	void *arg;
};

static void stream_close(struct stream *stream)
{
	if (stream->event)
		event_free(nova_take(&stream->event));
	if (stream->fd >= 0)
		close(nova_take_fd(&stream->fd));
}

static void run_free(struct run *run)
{
	nova_process_unwatch(run->process);
	if (run->limit)
		event_free(run->limit);
	stream_close(&run->out);
	stream_close(&run->err);
	free(run->out.text);
	free(run->err.text);
	free(run->program);
	free(run);
}

static void run_drop(struct nova_op *op)
{
	struct run *run = (struct run *)op;

	if (!run->exited && run->pid > 0) {
		kill(-run->pid, SIGKILL);
		waitpid(run->pid, NULL, 0); /* it is killed: this returns at once */
	}
	run_free(run);
}

static json_t *text_of(const struct stream *stream)
{
	json_t *text = json_stringn(stream->text, stream->length);

	if (text)
		return text;
	for (size_t i = 0; i < stream->length; i++)
		if (stream->text[i] & 0x80)
			stream->text[i] = '?';
	return json_stringn(stream->text, stream->length);
}

static void run_answer(struct run *run)
{
	nova_done_fn done = run->done;
	void *arg = run->arg;
	struct nova_error err;
	json_t *result = NULL;

	nova_error_sys(&err, ENOMEM, "the answer of %s", run->program);
	if (run->timed_out)
		nova_error_set(&err, NOVA_TIMEOUT, "%s took longer than %g s and was killed", run->program,
		    run->limit_ms / 1000.0);
	else
		result = json_pack("{s:i, s:i, s:o, s:o, s:b}", "status", run->how.status, "signal",
		    run->how.signal, "stdout", text_of(&run->out), "stderr", text_of(&run->err), "truncated",
		    run->truncated);
	run_free(run);
	done(arg, result, result ? NULL : &err);
	json_decref(result);
}

/* One read; false: there is nothing more now. */
static bool stream_read(struct stream *stream)
{
	char chunk[16384];
	ssize_t n = read(stream->fd, chunk, sizeof(chunk));
	size_t room = NOVA_CHILD_OUTPUT_MAX - stream->length;

	if (n < 0 && errno == EINTR)
		return true;
	if (n < 0 && errno == EAGAIN)
		return false;
	if (n <= 0) {
		stream_close(stream);
		return false;
	}
	stream->run->truncated |= (size_t)n > room;
	memcpy(stream->text + stream->length, chunk, (size_t)n < room ? (size_t)n : room);
	stream->length += (size_t)n < room ? (size_t)n : room;
	return true;
}

static void readable(evutil_socket_t fd, short what, void *arg)
{
	stream_read(arg);
}

/* The rest of what the child wrote is in the pipe. Whoever else holds the pipe may go on writing: what a pipe
 * holds is all we take. */
static void stream_drain(struct stream *stream)
{
	for (size_t taken = 0; stream->event && taken < PIPE_BYTES; taken += 16384)
		if (!stream_read(stream))
			break;
}

/* A grandchild that keeps the pipes open is not waited for. */
static void run_exited(void *arg, const struct nova_exit *how)
{
	struct run *run = arg;

	run->exited = true;
	run->how = *how;
	stream_drain(&run->out);
	stream_drain(&run->err);
	run_answer(run);
}

static void too_long(evutil_socket_t fd, short what, void *arg)
{
	struct run *run = arg;

	run->timed_out = true;
	kill(-run->pid, SIGKILL);
}

static int stream_open(struct run *run, struct stream *stream, int *write_end, struct nova_error *err)
{
	int ends[2];

	stream->run = run;
	stream->text = malloc(NOVA_CHILD_OUTPUT_MAX + 1);
	if (!stream->text || pipe2(ends, O_CLOEXEC) < 0)
		return nova_error_sys(err, stream->text ? errno : ENOMEM, "starting %s", run->program);
	stream->fd = ends[0];
	*write_end = ends[1];
	if (fcntl(stream->fd, F_SETFL, O_NONBLOCK) < 0)
		return nova_error_sys(err, errno, "starting %s", run->program);
	stream->event = event_new(run->base, stream->fd, EV_READ | EV_PERSIST, readable, stream);
	if (!stream->event || event_add(stream->event, NULL) < 0)
		return nova_error_sys(err, ENOMEM, "starting %s", run->program);
	return 0;
}

static int run_start(struct run *run, const char *const argv[], const struct nova_child_options *options,
    struct nova_error *err)
{
	NOVA_AUTOCLOSE int out = -1;
	NOVA_AUTOCLOSE int err_fd = -1;
	struct launch launch = { .argv = argv, .options = options };
	const struct timeval limit = nova_timeval_ms(options->limit_ms);
	uint64_t start_time;

	run->program = strdup(argv[0]);
	if (!run->program)
		return nova_error_sys(err, ENOMEM, "starting %s", argv[0]);
	if (stream_open(run, &run->out, &out, err) < 0 || stream_open(run, &run->err, &err_fd, err) < 0)
		return -1;
	launch.out = out;
	launch.err = err_fd;
	run->pid = launch_child(&launch, err);
	if (run->pid < 0)
		return -1;
	start_time = nova_process_start_time(run->pid, err);
	run->process =
	    start_time ? nova_process_watch(run->base, run->pid, start_time, run_exited, run, err) : NULL;
	run->limit = evtimer_new(run->base, too_long, run);
	if (!run->process || !run->limit || (options->limit_ms && evtimer_add(run->limit, &limit) < 0))
		return nova_error_sys(err, ENOMEM, "starting %s", argv[0]);
	return 0;
}

struct nova_op *nova_child_run(struct event_base *base, const char *const argv[],
    const struct nova_child_options *options, nova_done_fn done, void *arg, struct nova_error *err)
{
	static const struct nova_child_options none;
	struct run *run = calloc(1, sizeof(*run));

	if (!run) {
		nova_error_sys(err, ENOMEM, "starting %s", argv[0]);
		return NULL;
	}
	options = options ? options : &none;
	run->op.drop = run_drop;
	run->base = base;
	run->out.fd = run->err.fd = -1;
	run->done = done;
	run->arg = arg;
	run->limit_ms = options->limit_ms;
	if (run_start(run, argv, options, err) == 0)
		return &run->op;
	run_drop(&run->op);
	return NULL;
}

int nova_child_check(const char *program, const json_t *result, struct nova_error *err)
{
	json_int_t status = json_integer_value(json_object_get(result, "status"));
	json_int_t signal = json_integer_value(json_object_get(result, "signal"));
	NOVA_AUTOFREE char *text = NULL;
	char *last;

	if (status == 0 && signal == 0)
		return 0;
	if (status < 0 && !signal)
		return nova_error_set(
		    err, NOVA_STATE, "%s ended, but how is not known: is SIGCHLD ignored?", program);
	if (signal)
		return nova_error_set(err, NOVA_REFUSED, "%s died of signal %d", program, (int)signal);
	text = strdup(json_string_value(json_object_get(result, "stderr")) ?: "");
	for (size_t n = text ? strlen(text) : 0; n && text[n - 1] == '\n';)
		text[--n] = 0;
	last = text ? strrchr(text, '\n') : NULL;
	return nova_error_set(err, NOVA_REFUSED, "%s failed with status %d: %s", program, (int)status,
	    last              ? last + 1
	    : text && text[0] ? text
	                      : "it did not say why");
}
