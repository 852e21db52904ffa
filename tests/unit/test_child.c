/* SPDX-License-Identifier: Apache-2.0
 *
 * test_child.c - children: their answers, bounds, limits, what they inherit and what not, whom they become,
 * and what is left after a drop (nothing); processes named by pid and start time, ours or not.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "engine/child.h"
#include "tests/unit/loop.h"

struct fixture {
	struct loop loop;
	struct answer answer;
	struct nova_op *op;
	int exits;
	struct nova_exit how;
	struct nova_process *process;
};

static void start(struct fixture *f, const char *script, const struct nova_child_options *options)
{
	const char *argv[] = { "sh", "-c", script, NULL };
	struct nova_error err;

	answer_release(&f->answer);
	f->op = nova_child_run(f->loop.base, argv, options, answer_done, &f->answer, &err);
	if (!f->op)
		fail_msg("%s", err.text);
	assert_int_equal(f->answer.count, 0); /* never before we have returned */
}

static void run(struct fixture *f, const char *script, const struct nova_child_options *options)
{
	start(f, script, options);
	LOOP_UNTIL(&f->loop, f->answer.count);
	assert_int_equal(f->answer.count, 1);
}

static json_int_t number(const struct fixture *f, const char *key)
{
	return json_integer_value(json_object_get(f->answer.result, key));
}

static const char *text(const struct fixture *f, const char *key)
{
	return json_string_value(json_object_get(f->answer.result, key));
}

static void no_children_left(void)
{
	assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
	assert_int_equal(errno, ECHILD);
}

/* ---- run to the end ---- */

static void test_answers(void **state)
{
	struct fixture *f = *state;
	struct nova_error err;

	run(f, "echo out; echo one >&2; echo two >&2; exit 3", NULL);
	assert_int_equal(number(f, "status"), 3);
	assert_int_equal(number(f, "signal"), 0);
	assert_string_equal(text(f, "stdout"), "out\n");
	assert_string_equal(text(f, "stderr"), "one\ntwo\n");
	assert_false(json_is_true(json_object_get(f->answer.result, "truncated")));
	assert_int_equal(nova_child_check("tool", f->answer.result, &err), -1);
	assert_string_equal(err.text, "tool failed with status 3: two");

	run(f, "kill -TERM $$", NULL);
	assert_int_equal(number(f, "status"), -1);
	assert_int_equal(number(f, "signal"), SIGTERM);
	assert_int_equal(nova_child_check("tool", f->answer.result, &err), -1);
	assert_string_equal(err.text, "tool died of signal 15");

	run(f, "true", NULL);
	assert_int_equal(nova_child_check("tool", f->answer.result, &err), 0);
	no_children_left();
}

static void test_output_is_bounded_and_text(void **state)
{
	struct fixture *f = *state;

	run(f, "head -c 300000 /dev/zero | tr '\\0' x; printf 'a\\377b' >&2", NULL);
	assert_int_equal(number(f, "status"), 0);
	assert_int_equal(strlen(text(f, "stdout")), NOVA_CHILD_OUTPUT_MAX);
	assert_true(json_is_true(json_object_get(f->answer.result, "truncated")));
	assert_string_equal(text(f, "stderr"), "a?b");
}

static void test_grandchild_that_holds_the_pipe(void **state)
{
	struct fixture *f = *state;
	double began = loop_now();
	pid_t left;

	run(f, "sleep 600 & echo $!", NULL);
	assert_true(loop_now() - began < 10);
	left = (pid_t)atoi(text(f, "stdout"));
	assert_true(left > 1);
	assert_int_equal(kill(left, SIGKILL), 0);
}

static void test_a_program_that_is_not_there(void **state)
{
	struct fixture *f = *state;
	const char *const argv[] = { "no-such-program-anywhere", NULL };
	struct nova_error err;
	uint64_t start_time;
	pid_t pid;

	assert_null(nova_child_run(f->loop.base, argv, NULL, answer_done, &f->answer, &err));
	assert_int_equal(err.category, NOVA_SYSTEM);
	assert_int_equal(err.errnum, ENOENT);
	assert_non_null(strstr(err.text, "no-such-program-anywhere"));
	assert_int_equal(nova_child_spawn(argv, NULL, NULL, &pid, &start_time, &err), -1);
	assert_int_equal(err.errnum, ENOENT);
	assert_int_equal(f->answer.count, 0);
	no_children_left();
}

/* A file that two processes write to proves that they live; ours is a fifo: its reader sees the end when the
 * last writer has died. */
static int open_fifo(struct fixture *f, char *path, size_t size)
{
	int fd;

	snprintf(path, size, "%s/fifo", f->loop.dir);
	assert_int_equal(mkfifo(path, 0600), 0);
	fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	assert_true(fd >= 0);
	return fd;
}

/* Whether somebody holds the other end open. */
static bool has_writer(int fd)
{
	char byte;
	ssize_t n = read(fd, &byte, 1);

	return n > 0 || (n < 0 && errno == EAGAIN);
}

static bool got_byte(int fd)
{
	char byte;

	return read(fd, &byte, 1) == 1;
}

static void test_limit_kills_the_group(void **state)
{
	struct fixture *f = *state;
	const struct nova_child_options options = { .limit_ms = 300 };
	char path[128], script[256];
	int fd = open_fifo(f, path, sizeof(path));

	snprintf(script, sizeof(script), "exec 9>%s; trap '' TERM; sleep 600 & sleep 600", path);
	run(f, script, &options);
	assert_null(f->answer.result);
	assert_int_equal(f->answer.err.category, NOVA_TIMEOUT);
	assert_string_equal(f->answer.err.text, "sh took longer than 0.3 s and was killed");
	LOOP_UNTIL(&f->loop, !has_writer(fd));
	close(fd);
	unlink(path);
	no_children_left();
}

static void test_drop_kills_the_group_and_answers_nothing(void **state)
{
	struct fixture *f = *state;
	char path[128], script[256];
	int fd = open_fifo(f, path, sizeof(path));

	snprintf(script, sizeof(script), "exec 9>%s; echo x >&9; sleep 600 & sleep 600", path);
	start(f, script, NULL);
	LOOP_UNTIL(&f->loop, got_byte(fd));
	nova_op_drop(f->op);
	LOOP_UNTIL(&f->loop, !has_writer(fd));
	assert_int_equal(f->answer.count, 0);
	close(fd);
	unlink(path);
	no_children_left();
}

static void nothing(int signal)
{
}

static void test_what_is_inherited(void **state)
{
	struct fixture *f = *state;
	const char *const env[] = { "PATH=/usr/bin:/bin", "COLOUR=blue", NULL };
	int open_fd = open("/dev/zero", O_RDONLY), kept = open("/dev/zero", O_RDONLY | O_CLOEXEC);
	const struct nova_child_limit limit = { RLIMIT_CORE, { 0, 0 } };
	const struct nova_child_options options = { .keep_fds = &kept,
		.keep_fd_count = 1,
		.env = env,
		.cwd = f->loop.dir,
		.limits = &limit,
		.limit_count = 1,
		.no_new_privs = true };
	char expected[256];
	sigset_t blocked, old;

	assert_true(open_fd >= 3 && kept >= 3);
	signal(SIGPIPE, SIG_IGN);
	signal(SIGUSR1, nothing);
	sigemptyset(&blocked);
	sigaddset(&blocked, SIGUSR2);
	sigprocmask(SIG_BLOCK, &blocked, &old);
	run(f,
	    "pwd; echo $COLOUR $HOME; ulimit -c; cat /proc/self/status | "
	    "grep -E '^(SigBlk|SigIgn|SigCgt|NoNewPrivs)'; "
	    "ls -l /proc/self/fd | grep -c zero; readlink /proc/self/fd/0",
	    &options);
	sigprocmask(SIG_SETMASK, &old, NULL);
	signal(SIGPIPE, SIG_DFL);
	signal(SIGUSR1, SIG_DFL);
	snprintf(expected, sizeof(expected),
	    "%s\nblue\n0\nSigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\nSigCgt:\t0000000000000000\n"
	    "NoNewPrivs:\t1\n1\n/dev/null\n",
	    f->loop.dir);
	assert_string_equal(text(f, "stdout"), expected);
	close(open_fd);
	close(kept);
}

static void test_descriptors_that_cannot_be_kept(void **state)
{
	struct fixture *f = *state;
	const char *const argv[] = { "true", NULL };
	const int stdout_fd = 1;
	const struct nova_child_options options = { .keep_fds = &stdout_fd, .keep_fd_count = 1 };
	struct nova_error err;

	assert_null(nova_child_run(f->loop.base, argv, &options, answer_done, &f->answer, &err));
	assert_int_equal(err.category, NOVA_INVALID);
}

static void test_become_another_user(void **state)
{
	struct fixture *f = *state;
	const gid_t groups[] = { 4242 };
	const struct nova_child_options options = {
		.become = true, .uid = 4240, .gid = 4241, .groups = groups, .group_count = 1
	};

	if (geteuid() != 0)
		skip();
	run(f, "id -ru; id -u; id -rg; id -G; cat /proc/$$/environ | tr '\\0' '\\n' | grep -c =", &options);
	assert_true(!strncmp(text(f, "stdout"), "4240\n4240\n4241\n4241 4242\n", 25));
}

/* With stdio closed, pipes get the numbers 0 to 2. */
static void test_without_stdio(void **state)
{
	struct fixture *f = *state;
	int saved[3];

	fflush(NULL);
	for (int i = 0; i < 3; i++) {
		saved[i] = fcntl(i, F_DUPFD_CLOEXEC, 100);
		close(i);
	}
	start(f, "echo out; echo err >&2; exit 5", NULL);
	event_base_loop(f->loop.base, EVLOOP_ONCE);
	while (!f->answer.count)
		event_base_loop(f->loop.base, EVLOOP_ONCE);
	for (int i = 0; i < 3; i++) {
		dup2(saved[i], i);
		close(saved[i]);
	}
	assert_int_equal(number(f, "status"), 5);
	assert_string_equal(text(f, "stdout"), "out\n");
	assert_string_equal(text(f, "stderr"), "err\n");
}

static void test_many_at_once(void **state)
{
	struct fixture *f = *state;
	const char *const argv[] = { "true", NULL };
	struct answer answers[32] = { 0 };
	int left = 32;

	for (int i = 0; i < 32; i++)
		assert_non_null(nova_child_run(f->loop.base, argv, NULL, answer_done, &answers[i], NULL));
	for (int i = 0; i < 32; i++) {
		LOOP_UNTIL(&f->loop, answers[i].count);
		left -= nova_child_check("true", answers[i].result, NULL) == 0;
		answer_release(&answers[i]);
	}
	assert_int_equal(left, 0);
	no_children_left();
}

/* ---- processes ---- */

static void on_exit_seen(void *arg, const struct nova_exit *how)
{
	struct fixture *f = arg;

	f->exits++;
	f->how = *how;
	f->process = nova_process_unwatch(f->process); /* allowed in here */
}

static void watch(struct fixture *f, pid_t pid, uint64_t start_time)
{
	struct nova_error err;

	f->exits = 0;
	f->process = nova_process_watch(f->loop.base, pid, start_time, on_exit_seen, f, &err);
	if (!f->process)
		fail_msg("%s", err.text);
	assert_int_equal(f->exits, 0);
}

static void test_spawned_is_on_its_own(void **state)
{
	struct fixture *f = *state;
	const char *argv[] = { "sh", "-c", "echo to the log; exec sleep 600", NULL };
	char log[128], line[256] = "";
	struct stat status;
	uint64_t start_time;
	pid_t pid;
	FILE *file;

	snprintf(log, sizeof(log), "%s/log", f->loop.dir);
	assert_int_equal(nova_child_spawn(argv, NULL, log, &pid, &start_time, NULL), 0);
	assert_true(start_time > 0);
	assert_true(nova_process_alive(pid, start_time));
	assert_false(nova_process_alive(pid, start_time + 1)); /* another process of that pid */
	assert_int_equal(nova_process_start_time(pid, NULL), start_time);
	assert_int_equal(getsid(pid), pid);
	watch(f, pid, start_time);
	assert_int_equal(nova_process_signal(f->process, SIGTERM, NULL), 0);
	LOOP_UNTIL(&f->loop, f->exits);
	assert_true(f->how.known);
	assert_int_equal(f->how.signal, SIGTERM);
	assert_false(nova_process_alive(pid, start_time));
	no_children_left();
	assert_int_equal(stat(log, &status), 0);
	assert_int_equal(status.st_mode & 0777, 0600);
	file = fopen(log, "re");
	assert_non_null(file);
	if (fgets(line, sizeof(line), file)) /* it may have been killed before it wrote */
		assert_string_equal(line, "to the log\n");
	fclose(file);
	unlink(log);
}

static void test_exit_status_of_a_spawned_one(void **state)
{
	struct fixture *f = *state;
	const char *argv[] = { "sh", "-c", "exit 7", NULL };
	uint64_t start_time;
	pid_t pid;

	assert_int_equal(nova_child_spawn(argv, NULL, NULL, &pid, &start_time, NULL), 0);
	while (nova_process_alive(pid, start_time)) /* a zombie is not alive, and can still be watched */
		usleep(1000);
	watch(f, pid, start_time);
	LOOP_UNTIL(&f->loop, f->exits);
	assert_true(f->how.known);
	assert_int_equal(f->how.status, 7);
	assert_int_equal(f->how.signal, 0);
}

static void test_watch_somebody_elses_child(void **state)
{
	struct fixture *f = *state;
	struct nova_error err;
	uint64_t start_time;
	pid_t pid;

	run(f, "sleep 600 >/dev/null 2>&1 & echo $!", NULL);
	pid = (pid_t)atoi(text(f, "stdout"));
	start_time = nova_process_start_time(pid, NULL);
	assert_true(start_time > 0);
	watch(f, pid, start_time);
	assert_int_equal(nova_process_signal(f->process, SIGKILL, &err), 0);
	LOOP_UNTIL(&f->loop, f->exits);
	assert_false(f->how.known);
	LOOP_UNTIL(&f->loop, !nova_process_alive(pid, start_time));

	/* Gone already: told from the loop. */
	watch(f, pid, start_time);
	LOOP_UNTIL(&f->loop, f->exits);
	assert_int_equal(f->exits, 1);

	/* Our own pid with another start time is somebody who is gone. */
	watch(f, getpid(), 1);
	assert_int_equal(nova_process_signal(f->process, SIGKILL, &err), -1);
	assert_int_equal(err.category, NOVA_STATE);
	LOOP_UNTIL(&f->loop, f->exits);
}

static void test_without_descriptors_nobody_is_dead(void **state)
{
	struct fixture *f = *state;
	uint64_t start_time = nova_process_start_time(getpid(), NULL);
	struct rlimit old, none;
	struct nova_error err = { 0 };
	struct nova_process *process;
	uint64_t found;
	bool alive;

	if (loop_patience() > 1)
		skip();
	getrlimit(RLIMIT_NOFILE, &old);
	none = (struct rlimit) { 0, old.rlim_max };
	setrlimit(RLIMIT_NOFILE, &none);
	process = nova_process_watch(f->loop.base, getpid(), start_time, on_exit_seen, f, &err);
	alive = nova_process_alive(getpid(), start_time);
	found = nova_process_start_time(getpid(), NULL);
	setrlimit(RLIMIT_NOFILE, &old);
	assert_null(process);
	assert_int_equal(err.category, NOVA_SYSTEM);
	assert_int_equal(err.errnum, EMFILE);
	assert_true(alive);
	assert_int_equal(found, 0);
}

static void test_names_with_spaces_and_brackets(void **state)
{
	uint64_t before = nova_process_start_time(getpid(), NULL);
	char name[16];

	prctl(PR_GET_NAME, name);
	prctl(PR_SET_NAME, "x) R 1 (y Z 5");
	assert_int_equal(nova_process_start_time(getpid(), NULL), before);
	assert_true(nova_process_alive(getpid(), before));
	prctl(PR_SET_NAME, name);
}

static void test_no_such_process(void **state)
{
	struct nova_error err;

	assert_int_equal(nova_process_start_time(-1, &err), 0);
	assert_int_equal(nova_process_start_time(0, &err), 0);
	assert_int_equal(nova_process_start_time(0x7ffffffe, &err), 0);
	assert_int_equal(err.category, NOVA_STATE);
	assert_false(nova_process_alive(0, 0));
	assert_null(nova_process_unwatch(NULL));
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	loop_init(&f->loop);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	answer_release(&f->answer);
	nova_process_unwatch(f->process);
	loop_release(&f->loop);
	free(f);
	return 0;
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_answers),
		T(test_output_is_bounded_and_text),
		T(test_grandchild_that_holds_the_pipe),
		T(test_a_program_that_is_not_there),
		T(test_limit_kills_the_group),
		T(test_drop_kills_the_group_and_answers_nothing),
		T(test_what_is_inherited),
		T(test_descriptors_that_cannot_be_kept),
		T(test_become_another_user),
		T(test_without_stdio),
		T(test_many_at_once),
		T(test_spawned_is_on_its_own),
		T(test_exit_status_of_a_spawned_one),
		T(test_watch_somebody_elses_child),
		T(test_without_descriptors_nobody_is_dead),
		cmocka_unit_test(test_names_with_spaces_and_brackets),
		cmocka_unit_test(test_no_such_process),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
