/* SPDX-License-Identifier: Apache-2.0
 *
 * test_follow.c - following a job as a user sees it: a child runs follow_job() on a pseudo-terminal against a
 * control socket of ours that plays one job. What the terminal got and the exit status are judged.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <fcntl.h>
#include <pty.h>
#include <signal.h>
#include <sys/wait.h>
#include <utmp.h>

#include "engine/op.h"
#include "loop.h"
#include "qmp/qmp.h"
#include "tools/exitcode.h"
#include "tools/follow.h"

struct scene {
	struct loop loop;
	char path[96];
	struct qmp_server *server;
	const char *job; /* what "job" answers, JSON */
	int asked;
	pid_t child;
	int status;
	bool exited;
	int terminal; /* master side of the child's stderr */
	int output;   /* the child's stdout */
	char screen[16384], out[16384];
	size_t screen_used, out_used;
};

static void identify(void *arg, unsigned uid, unsigned gid, int pid, struct nova_identity *who)
{
	who->role = NOVA_ROLE_ADMIN;
}

static struct nova_op *execute(void *arg, const struct nova_identity *who, const char *command, json_t *args,
    nova_done_fn done, void *done_arg, struct nova_error *err)
{
	struct scene *scene = arg;

	assert_string_equal(command, "job");
	assert_string_equal(json_string_value(json_object_get(args, "job")), "j7");
	scene->asked++;
	return nova_op_later(scene->loop.base, json_loads(scene->job, 0, NULL), NULL, done, done_arg, err);
}

/* The child: a session of its own, with the terminal as controlling one, so that ^C reaches it. */
static void run_child(const struct scene *scene, int slave, int output, bool json)
{
	struct session session = { 0 };
	struct nova_error err = { 0 };
	int status;

	if (login_tty(slave) < 0 || dup2(output, STDOUT_FILENO) < 0)
		_exit(99);
	setenv("TERM", "xterm", 1);
	if (session_open(&session, scene->path, &err) < 0)
		_exit(98);
	status = follow_job(&session, "j7", json);
	session_hang_up(&session);
	fflush(NULL);
	_exit(status);
}

static void scene_open(struct scene *scene, const char *job, bool json)
{
	static const struct qmp_server_events events = { .identify = identify, .execute = execute };
	struct winsize size = { .ws_row = 24, .ws_col = 70 };
	int slave, out[2];

	memset(scene, 0, sizeof(*scene));
	loop_init(&scene->loop);
	scene->job = job;
	snprintf(scene->path, sizeof(scene->path), "%s/s", scene->loop.dir);
	assert_int_equal(openpty(&scene->terminal, &slave, NULL, NULL, &size), 0);
	assert_int_equal(pipe2(out, O_CLOEXEC), 0);
	scene->server =
	    qmp_server_new(scene->loop.base, scene->path, 0600, json_object(), 0, &events, scene, NULL);
	assert_non_null(scene->server);
	scene->child = fork();
	if (scene->child == 0)
		run_child(scene, slave, out[1], json);
	assert_true(scene->child > 0);
	close(slave);
	close(out[1]);
	scene->output = out[0];
	fcntl(scene->terminal, F_SETFL, O_NONBLOCK);
	fcntl(scene->output, F_SETFL, O_NONBLOCK);
}

static void drain(int fd, char *text, size_t size, size_t *used)
{
	ssize_t got;

	while (*used < size - 1 && (got = read(fd, text + *used, size - 1 - *used)) > 0)
		*used += (size_t)got;
	text[*used] = '\0';
}

/* Is it on the screen (or in the output)? */
static bool seen(struct scene *scene, const char *text)
{
	drain(scene->terminal, scene->screen, sizeof(scene->screen), &scene->screen_used);
	drain(scene->output, scene->out, sizeof(scene->out), &scene->out_used);
	return strstr(scene->screen, text) || strstr(scene->out, text);
}

static bool exited(struct scene *scene)
{
	seen(scene, "");
	if (!scene->exited && waitpid(scene->child, &scene->status, WNOHANG) == scene->child)
		scene->exited = true;
	return scene->exited;
}

static void emit(struct scene *scene, const char *event, const char *json)
{
	json_t *data = json_loads(json, 0, NULL);

	assert_non_null(data);
	qmp_server_emit(scene->server, event, data);
	json_decref(data);
}

static void scene_close(struct scene *scene, int status)
{
	LOOP_UNTIL(&scene->loop, exited(scene));
	seen(scene, "");
	assert_true(WIFEXITED(scene->status));
	assert_int_equal(WEXITSTATUS(scene->status), status);
	close(scene->terminal);
	close(scene->output);
	qmp_server_free(scene->server);
	unlink(scene->path);
	loop_release(&scene->loop);
}

static const char running[] = "{\"job\":\"j7\",\"guest\":\"web1\",\"state\":\"running\",\"outcome\":null}";
static const char progress[] = "{\"job\":\"j7\",\"guest\":\"web1\",\"peer\":\"beta\",\"phase\":\"precopy\","
                               "\"iteration\":1,\"percent\":40,\"rate_bps\":1000000,\"eta_ms\":2000}";

static void test_completes(void **state)
{
	struct scene scene;

	scene_open(&scene, running, false);
	LOOP_UNTIL(&scene.loop, scene.asked == 1);
	emit(&scene, "JOB_PROGRESS", progress);
	LOOP_UNTIL(&scene.loop, seen(&scene, "\rweb1 -> beta  precopy round 1   40 %  1 Mbit/s  ETA 2.0 s"));
	assert_null(strchr(scene.screen, '\n'));                              /* redrawn in place */
	emit(&scene, "JOB_ENDED", "{\"job\":\"j8\",\"outcome\":\"undone\"}"); /* not ours */
	emit(&scene, "JOB_ENDED",
	    "{\"job\":\"j7\",\"guest\":\"web1\",\"peer\":\"beta\",\"outcome\":\"completed\",\"error\":null,"
	    "\"report\":{\"total_ms\":2500}}");
	scene_close(&scene, 0);
	assert_string_equal(scene.out, "job j7 completed: web1 -> beta\n  total time  2.5 s\n");
	assert_non_null(strstr(scene.screen, "\r\033[K"));
}

static void test_ended_before(void **state)
{
	struct scene scene;

	scene_open(&scene,
	    "{\"job\":\"j7\",\"guest\":\"web1\",\"outcome\":\"undone\","
	    "\"error\":{\"category\":\"cancelled\",\"text\":\"cancelled by root\"}}",
	    false);
	scene_close(&scene, 7);
	assert_string_equal(scene.out, "job j7 undone: web1\n  why   cancelled by root (cancelled)\n");
}

static void test_interrupt(void **state)
{
	struct scene scene;

	scene_open(&scene, running, false);
	LOOP_UNTIL(&scene.loop, scene.asked == 1);
	emit(&scene, "JOB_PROGRESS", progress);
	LOOP_UNTIL(&scene.loop, seen(&scene, "40 %"));
	assert_int_equal(write(scene.terminal, "\003", 1), 1);
	scene_close(&scene, EXIT_INTERRUPTED);
	assert_non_null(strstr(scene.screen, "job j7 goes on; novacron watch j7, novacron cancel j7"));
	assert_int_equal(scene.asked, 1); /* nothing else was asked of the daemon */
}

static void test_daemon_goes_away(void **state)
{
	struct scene scene;

	scene_open(&scene, running, false);
	LOOP_UNTIL(&scene.loop, scene.asked == 1);
	emit(&scene, "JOB_PROGRESS", progress);
	LOOP_UNTIL(&scene.loop, seen(&scene, "40 %"));
	scene.server = qmp_server_free(scene.server);
	scene_close(&scene, 5);
	assert_non_null(strstr(scene.screen, "the daemon went away"));
	assert_non_null(strstr(scene.screen, "novacron watch j7"));
}

static void test_json_lines(void **state)
{
	struct scene scene;

	scene_open(&scene, running, true);
	LOOP_UNTIL(&scene.loop, scene.asked == 1);
	emit(&scene, "JOB_PROGRESS", "{\"job\":\"j7\",\"percent\":1}");
	LOOP_UNTIL(&scene.loop, seen(&scene, "}\n"));
	emit(&scene, "JOB_ENDED", "{\"job\":\"j7\",\"outcome\":\"in-doubt\"}");
	scene_close(&scene, EXIT_IN_DOUBT);
	assert_string_equal(scene.out,
	    "{\"event\":\"JOB_PROGRESS\",\"data\":{\"job\":\"j7\",\"percent\":1}}\n"
	    "{\"event\":\"JOB_ENDED\",\"data\":{\"job\":\"j7\",\"outcome\":\"in-doubt\"}}\n");
	assert_string_equal(scene.screen, "");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_completes),
		cmocka_unit_test(test_ended_before),
		cmocka_unit_test(test_interrupt),
		cmocka_unit_test(test_daemon_goes_away),
		cmocka_unit_test(test_json_lines),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
