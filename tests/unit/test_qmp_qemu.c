/* SPDX-License-Identifier: Apache-2.0
 *
 * test_qmp_qemu.c - the QMP client against a real QEMU without a machine: pipelining, descriptors, a monitor
 * that belongs to somebody else, QEMU killed in the middle. Skipped where there is no qemu-system-x86_64.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>

#include "loop.h"
#include "qmp/qmp.h"

#define QEMU "qemu-system-x86_64"

struct monitor {
	struct loop loop;
	char path[96];
	pid_t qemu;
	struct qmp_client *client;
	struct nova_error closed;
	int ready, closings, events;
	bool oob;
};

static void on_ready(void *arg, json_t *greeting)
{
	struct monitor *monitor = arg;

	monitor->ready++;
	monitor->oob = json_array_size(json_object_get(greeting, "capabilities")) > 0;
}

static void on_event(void *arg, const char *name, json_t *data)
{
	((struct monitor *)arg)->events++;
}

static void on_closed(void *arg, const struct nova_error *err)
{
	struct monitor *monitor = arg;

	monitor->closings++;
	monitor->closed = *err;
}

static const struct qmp_events events = { .ready = on_ready, .event = on_event, .closed = on_closed };

static struct qmp_client *new_client(struct monitor *monitor, const struct qmp_limits *limits)
{
	struct nova_error err;
	struct qmp_client *client =
	    qmp_client_new(monitor->loop.base, monitor->path, limits, &events, monitor, &err);

	if (!client)
		fail_msg("%s", err.text);
	return client;
}

static void start_qemu(struct monitor *monitor)
{
	char option[128];

	snprintf(monitor->path, sizeof(monitor->path), "%s/qmp", monitor->loop.dir);
	snprintf(option, sizeof(option), "unix:%s,server=on,wait=off", monitor->path);
	monitor->qemu = fork();
	assert_true(monitor->qemu >= 0);
	if (monitor->qemu == 0) {
		execlp(QEMU, QEMU, "-M", "none", "-nodefaults", "-display", "none", "-qmp", option,
		    (char *)NULL);
		_exit(127);
	}
}

static void kill_qemu(struct monitor *monitor)
{
	if (monitor->qemu > 0) {
		kill(monitor->qemu, SIGKILL);
		assert_int_equal(waitpid(monitor->qemu, NULL, 0), monitor->qemu);
	}
	monitor->qemu = 0;
}

/* Until QEMU has made its socket, a connection is refused: try again. */
static void connect_client(struct monitor *monitor)
{
	double limit = loop_now() + LOOP_LIMIT_S;

	while (!monitor->ready && loop_now() < limit) {
		monitor->closings = 0;
		monitor->client = new_client(monitor, NULL);
		LOOP_UNTIL(&monitor->loop, monitor->ready || monitor->closings);
		if (monitor->ready)
			return;
		if (monitor->closed.category != NOVA_LINK)
			break;
		fprintf(stderr, "connecting again: %s\n", monitor->closed.text);
		qmp_client_free(monitor->client);
		loop_run_ms(&monitor->loop, 20);
	}
	kill_qemu(monitor); /* who fails in the set-up has no tear-down */
	fail_msg("QEMU did not come up: %s", monitor->closed.text);
}

static int set_up(void **state)
{
	struct monitor *monitor = calloc(1, sizeof(*monitor));

	*state = monitor;
	loop_init(&monitor->loop);
	start_qemu(monitor);
	connect_client(monitor);
	return 0;
}

static int tear_down(void **state)
{
	struct monitor *monitor = *state;

	qmp_client_free(monitor->client);
	kill_qemu(monitor);
	unlink(monitor->path);
	loop_release(&monitor->loop);
	free(monitor);
	return 0;
}

static void execute(struct monitor *monitor, const char *command, json_t *args, const struct qmp_call *call,
    struct answer *answer)
{
	struct nova_error err;

	if (!qmp_execute(monitor->client, command, args, call, answer_done, answer, &err))
		fail_msg("%s: %s", command, err.text);
	assert_int_equal(answer->count, 0);
}

static void test_version_and_errors(void **state)
{
	struct monitor *monitor = *state;
	struct answer version = { 0 }, unknown = { 0 }, wrong = { 0 };

	execute(monitor, "query-version", NULL, NULL, &version);
	execute(monitor, "no-such-command", NULL, NULL, &unknown);
	execute(monitor, "getfd", json_pack("{s:s}", "fdname", "none"), NULL, &wrong);
	LOOP_UNTIL(&monitor->loop, version.count && unknown.count && wrong.count);
	assert_true(json_is_integer(json_object_get(json_object_get(version.result, "qemu"), "major")));
	assert_int_equal(unknown.err.category, NOVA_REFUSED);
	assert_string_equal(
	    unknown.err.text, "CommandNotFound: The command no-such-command has not been found");
	assert_int_equal(wrong.err.category, NOVA_REFUSED);
	assert_non_null(strstr(wrong.err.text, "GenericError: "));
	assert_int_equal(qmp_client_pid(monitor->client), monitor->qemu);
	answer_release(&version);
}

static void test_hundred_pipelined(void **state)
{
	struct monitor *monitor = *state;
	struct answer answers[100] = { 0 }, last = { 0 };

	for (int i = 0; i < 100; i++)
		execute(monitor, i % 2 ? "query-status" : "query-version", NULL, NULL, &answers[i]);
	execute(monitor, "query-name", NULL, NULL, &last);
	LOOP_UNTIL(&monitor->loop, last.count);
	for (int i = 0; i < 100; i++) {
		assert_int_equal(answers[i].count, 1);
		assert_non_null(json_object_get(answers[i].result, i % 2 ? "running" : "qemu"));
		answer_release(&answers[i]);
	}
	assert_int_equal(qmp_client_strays(monitor->client), 0);
	answer_release(&last);
}

static json_t *fd_name(int i)
{
	char name[16];

	snprintf(name, sizeof(name), "fd%d", i);
	return json_pack("{s:s}", "fdname", name);
}

/* Pipelined descriptors: QEMU refuses a getfd whose descriptor was replaced by the next one's, so each must
 * have waited for its turn. Ours are closed at once: the client keeps its own copy. */
static void test_descriptors_arrive(void **state)
{
	struct monitor *monitor = *state;
	struct answer answers[20] = { 0 }, closed[20] = { 0 }, missing = { 0 };
	char byte;

	for (int i = 0; i < 20; i++) {
		int ends[2];

		assert_int_equal(pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
		struct qmp_call call = { .fd = ends[1] };

		execute(monitor, "getfd", fd_name(i), &call, &answers[i]);
		execute(monitor, "closefd", fd_name(i), NULL, &closed[i]);
		close(ends[1]);
		LOOP_UNTIL(&monitor->loop, i % 5 != 4 || closed[i].count);
		if (i % 5 == 4) /* QEMU closed the last copy of the writing end */
			assert_int_equal(read(ends[0], &byte, 1), 0);
		close(ends[0]);
	}
	for (int i = 0; i < 20; i++) {
		if (answers[i].err.category || closed[i].err.category)
			fail_msg("%d: %s %s", i, answers[i].err.text, closed[i].err.text);
		answer_release(&answers[i]);
		answer_release(&closed[i]);
	}
	execute(monitor, "closefd", fd_name(3), NULL, &missing);
	LOOP_UNTIL(&monitor->loop, missing.count);
	assert_int_equal(missing.err.category, NOVA_REFUSED);
}

/* An urgent command overtakes a queue of ordinary ones. migrate-pause without a migration is refused, which
 * is an answer too. */
static void test_out_of_band(void **state)
{
	struct monitor *monitor = *state;
	struct answer answers[60] = { 0 }, urgent = { 0 };
	struct qmp_call call = { .oob = true };
	int before = 0;

	assert_true(monitor->oob);
	for (int i = 0; i < 60; i++)
		execute(monitor, "query-qmp-schema", NULL, NULL, &answers[i]);
	execute(monitor, "migrate-pause", NULL, &call, &urgent);
	LOOP_UNTIL(&monitor->loop, urgent.count);
	for (int i = 0; i < 60; i++)
		before += answers[i].count;
	assert_true(before < 30);
	assert_int_equal(urgent.err.category, NOVA_REFUSED);
	LOOP_UNTIL(&monitor->loop, answers[59].count);
	for (int i = 0; i < 60; i++)
		answer_release(&answers[i]);
}

static void test_owned_by_someone_else(void **state)
{
	struct monitor *owner = *state;
	struct qmp_limits limits = { .greeting_ms = 300 };
	struct monitor others[4];
	struct qmp_client *clients[4];

	for (int i = 0; i < 4; i++) { /* more than QEMU's backlog holds */
		others[i] = (struct monitor) { .loop = owner->loop };
		strcpy(others[i].path, owner->path);
		clients[i] = new_client(&others[i], &limits);
	}
	for (int i = 0; i < 4; i++) {
		LOOP_UNTIL(&owner->loop, others[i].closings);
		assert_int_equal(others[i].closed.category, NOVA_STATE);
		assert_non_null(strstr(others[i].closed.text, "owned by someone else"));
		qmp_client_free(clients[i]);
	}
	assert_int_equal(owner->closings, 0);
}

static void test_killed_midway(void **state)
{
	struct monitor *monitor = *state;
	struct answer answers[50] = { 0 };
	int lost = 0;

	for (int i = 0; i < 50; i++)
		execute(monitor, "query-qmp-schema", NULL, NULL, &answers[i]);
	LOOP_UNTIL(&monitor->loop, answers[0].count);
	kill_qemu(monitor);
	LOOP_UNTIL(&monitor->loop, monitor->closings);
	for (int i = 0; i < 50; i++) {
		assert_int_equal(answers[i].count, 1);
		lost += answers[i].err.category == NOVA_LINK;
		answer_release(&answers[i]);
	}
	assert_true(lost > 0);
	assert_int_equal(monitor->closed.category, NOVA_LINK);
	assert_false(qmp_client_ready(monitor->client));
}

static void test_quit_and_refused(void **state)
{
	struct monitor *monitor = *state;
	struct monitor late = { .loop = monitor->loop };
	struct answer quit = { 0 }, never = { 0 };
	struct nova_error err = { 0 };

	execute(monitor, "quit", NULL, NULL, &quit);
	LOOP_UNTIL(&monitor->loop, quit.count && monitor->closings);
	assert_int_equal(quit.err.category, NOVA_OK);
	assert_int_equal(monitor->events, 1); /* SHUTDOWN */
	assert_null(qmp_execute(monitor->client, "query-version", NULL, NULL, answer_done, &never, &err));
	assert_int_equal(err.category, NOVA_LINK);
	strcpy(late.path, monitor->path);
	late.client = new_client(&late, NULL);
	assert_non_null(qmp_execute(late.client, "query-version", NULL, NULL, answer_done, &never, &err));
	LOOP_UNTIL(&monitor->loop, late.closings);
	assert_int_equal(late.closed.category, NOVA_LINK);
	assert_int_equal(never.count, 1);
	assert_int_equal(never.err.category, NOVA_LINK);
	qmp_client_free(late.client);
	answer_release(&quit);
}

static bool have_qemu(void)
{
	return system("command -v " QEMU " >/dev/null") == 0;
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(test_version_and_errors),
		TEST(test_hundred_pipelined),
		TEST(test_descriptors_arrive),
		TEST(test_out_of_band),
		TEST(test_owned_by_someone_else),
		TEST(test_killed_midway),
		TEST(test_quit_and_refused),
	};

	if (!have_qemu())
		return 77;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
