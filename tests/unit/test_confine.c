/* SPDX-License-Identifier: Apache-2.0
 *
 * test_confine.c - a confined child can do what it is for and nothing else: really tried, in real children.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "engine/child.h"
#include "engine/confine.h"
#include "loop.h"

/* The child's verdict: 0 as it should be, 99 could not be confined; a signal counts as 128 + number. */
static int in_child(const struct nova_confinement *confinement, int (*act)(const void *arg), const void *arg)
{
	int status;
	pid_t pid = fork();

	if (pid == 0)
		_exit(nova_confinement_wear(confinement) < 0 ? 99 : act(arg));
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

static int try_tool(const void *arg)
{
	const char *const *files = arg; /* readable, writable, forbidden */
	int fd;

	if ((fd = open(files[0], O_RDONLY)) < 0)
		return 1;
	if ((fd = open(files[1], O_RDWR | O_CREAT, 0600)) < 0 || write(fd, "x", 1) != 1)
		return 2;
	if (nova_confine_landlock_version() && (open(files[2], O_RDONLY) >= 0 || errno != EACCES))
		return 3;
	if (nova_confine_landlock_version() && (open(files[0], O_RDWR) >= 0 || errno != EACCES))
		return 4;
	if (socket(AF_INET, SOCK_STREAM, 0) >= 0 || errno != EACCES)
		return 5;
	if (socket(AF_NETLINK, SOCK_RAW, 0) >= 0 || errno != EACCES)
		return 6;
	if (mount("none", "/mnt", "tmpfs", 0, NULL) == 0 || errno != EPERM)
		return 7;
	if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) == 0 || errno != EPERM)
		return 8;
	if (socket(AF_UNIX, SOCK_STREAM, 0) < 0)
		return 9;
	return 0;
}

static void test_tool(void **state)
{
	char writable[128], secret[128];
	const char *const read[] = { "/etc/passwd", "/no/such/place", NULL };
	const char *const files[] = { "/etc/passwd", writable, secret };
	struct loop loop;
	struct nova_error err;
	struct nova_confinement *confinement;
	FILE *file;

	loop_init(&loop);
	snprintf(writable, sizeof(writable), "%s/in", loop.dir);
	assert_int_equal(mkdir(writable, 0700), 0);
	const char *const write[] = { writable, NULL };
	confinement = nova_confinement_new(&(struct nova_confine_paths){ read, write }, &err);
	assert_non_null(confinement);
	snprintf(secret, sizeof(secret), "%s/secret", loop.dir);
	file = fopen(secret, "w");
	fclose(file);
	snprintf(writable, sizeof(writable), "%s/in/file", loop.dir);
	assert_int_equal(in_child(confinement, try_tool, files), 0);
	nova_confinement_free(confinement);
	unlink(writable);
	unlink(secret);
	snprintf(writable, sizeof(writable), "%s/in", loop.dir);
	rmdir(writable);
	loop_release(&loop);
}

/* A program of child.c, as /proc shows it. */
static void test_program(void **state)
{
	const char *const read[] = { "/usr", "/lib", "/lib64", "/bin", "/etc", "/proc", NULL };
	const char *const write[] = { "/dev/null", NULL };
	const char *const argv[] = { "sh", "-c", "grep -E '^(NoNewPrivs|Seccomp):' /proc/self/status; ls /tmp 2>&1", NULL };
	struct nova_error err;
	struct nova_confinement *confinement =
	    nova_confinement_new(&(struct nova_confine_paths){ read, write }, &err);
	const struct nova_child_options options = { .limit_ms = 10000, .confinement = confinement };
	struct answer answer = { 0 };
	const char *out;
	struct loop loop;

	loop_init(&loop);
	assert_non_null(nova_child_run(loop.base, argv, &options, answer_done, &answer, &err));
	LOOP_UNTIL(&loop, answer.count);
	out = json_string_value(json_object_get(answer.result, "stdout"));
	assert_non_null(strstr(out, "NoNewPrivs:\t1"));
	assert_non_null(strstr(out, "Seccomp:\t2"));
	if (nova_confine_landlock_version())
		assert_non_null(strstr(out, "ermission denied"));
	answer_release(&answer);
	nova_confinement_free(confinement);
	loop_release(&loop);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_tool),
		cmocka_unit_test(test_program),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
