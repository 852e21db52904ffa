/* SPDX-License-Identifier: Apache-2.0
 *
 * test_audit.c - the chain holds over reopening and rotation; every way of tampering shows; kill -9 tears
 * at most the last line, and the next one says so.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "engine/audit.h"
#include "engine/cleanup.h"

static char directory[64];

static int make_directory(void **state)
{
	snprintf(directory, sizeof(directory), "/tmp/nova-audit.XXXXXX");
	return mkdtemp(directory) ? 0 : -1;
}

static int remove_directory(void **state)
{
	char command[128];

	snprintf(command, sizeof(command), "rm -rf %s", directory);
	return system(command);
}

static void append(struct nova_audit *audit, int n)
{
	struct nova_error err;

	assert_int_equal(nova_audit_append(audit, json_pack("{s:s, s:i}", "command", "pause", "n", n), &err), 0);
}

static void write_lines(int first, int count)
{
	struct nova_error err;
	struct nova_audit *audit = nova_audit_open(directory, &err);

	assert_non_null(audit);
	for (int i = 0; i < count; i++)
		append(audit, first + i);
	nova_audit_close(audit);
}

static bool verified(json_int_t *lines)
{
	struct nova_error err;
	NOVA_AUTOJSON json_t *report = nova_audit_verify(directory, &err);

	assert_non_null(report);
	if (lines)
		*lines = json_integer_value(json_object_get(report, "lines"));
	return json_is_true(json_object_get(report, "ok"));
}

static void shell(const char *format)
{
	char command[256];

	snprintf(command, sizeof(command), format, directory);
	assert_int_equal(system(command), 0);
}

static void test_chain_goes_on(void **state)
{
	json_int_t lines;

	write_lines(0, 5);
	write_lines(5, 5);
	assert_true(verified(&lines));
	assert_int_equal(lines, 10);
}

static void test_tampering_shows(void **state)
{
	static const char *const ways[] = {
		"sed -i '4d' %s/audit/audit.1.log",                           /* removed */
		"sed -i '4s/pause/start/' %s/audit/audit.1.log",              /* changed */
		"sed -i '4{h;d};5{G}' %s/audit/audit.1.log",                  /* swapped */
		"sed -i '4p' %s/audit/audit.1.log",                           /* doubled */
		"sed -i '4s/.*/garbage/' %s/audit/audit.1.log",               /* unreadable in the middle */
	};

	write_lines(0, 10);
	shell("cp %s/audit/audit.1.log /tmp/nova-audit-copy.$PPID");
	for (size_t i = 0; i < sizeof(ways) / sizeof(*ways); i++) {
		shell(ways[i]);
		assert_false(verified(NULL));
		shell("cp /tmp/nova-audit-copy.$PPID %s/audit/audit.1.log");
		assert_true(verified(NULL));
	}
	assert_int_equal(system("rm /tmp/nova-audit-copy.$PPID"), 0);
}

static void test_torn_line_is_told(void **state)
{
	struct nova_error err;
	NOVA_AUTOJSON json_t *shown = NULL, *report = NULL;

	write_lines(0, 3);
	shell("truncate -s -10 %s/audit/audit.1.log");
	write_lines(3, 1);
	report = nova_audit_verify(directory, &err);
	assert_true(json_is_true(json_object_get(report, "ok")));
	assert_int_equal(json_integer_value(json_object_get(report, "torn")), 1);
	shown = nova_audit_show(directory, 1, &err);
	assert_true(json_is_true(json_object_get(json_array_get(shown, 0), "torn_bytes")));
}

static void test_kill_tears_at_most_one(void **state)
{
	json_int_t lines;
	pid_t pid = fork();

	if (pid == 0) {
		struct nova_audit *audit = nova_audit_open(directory, NULL);

		for (int i = 0;; i++)
			nova_audit_append(audit, json_pack("{s:i}", "n", i), NULL);
	}
	for (struct stat status = { 0 }; status.st_size < 100000;) {
		char path[128];

		snprintf(path, sizeof(path), "%s/audit/audit.1.log", directory);
		if (stat(path, &status) < 0)
			status.st_size = 0;
	}
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	write_lines(0, 1);
	assert_true(verified(&lines));
	assert_true(lines > 100);
}

/* Past 16 MiB a new file begins, and the chain goes on in it; a file that is taken out shows. */
static void test_rotation(void **state)
{
	struct nova_error err;
	struct nova_audit *audit = nova_audit_open(directory, &err);
	NOVA_AUTOFREE char *text = malloc(16001);
	NOVA_AUTOJSON json_t *report = NULL;

	assert_non_null(audit);
	memset(text, 'x', 16000);
	text[16000] = 0;
	for (int i = 0; i < 2200; i++)
		assert_int_equal(nova_audit_append(audit, json_pack("{s:s, s:i}", "error", text, "n", i), &err), 0);
	nova_audit_close(audit);
	report = nova_audit_verify(directory, &err);
	assert_true(json_is_true(json_object_get(report, "ok")));
	assert_int_equal(json_integer_value(json_object_get(report, "lines")), 2200);
	assert_int_equal(json_integer_value(json_object_get(report, "files")), 3);
	shell("rm %s/audit/audit.2.log");
	assert_false(verified(NULL));
}

static void test_long_arguments_are_cut(void **state)
{
	struct nova_error err;
	struct nova_audit *audit = nova_audit_open(directory, &err);
	char *big = calloc(1, 100001);

	memset(big, 'x', 100000);
	assert_int_equal(nova_audit_append(audit, json_pack("{s:s}", "args", big), &err), 0);
	free(big);
	nova_audit_close(audit);
	assert_true(verified(NULL));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_chain_goes_on, make_directory, remove_directory),
		cmocka_unit_test_setup_teardown(test_tampering_shows, make_directory, remove_directory),
		cmocka_unit_test_setup_teardown(test_torn_line_is_told, make_directory, remove_directory),
		cmocka_unit_test_setup_teardown(test_kill_tears_at_most_one, make_directory, remove_directory),
		cmocka_unit_test_setup_teardown(test_rotation, make_directory, remove_directory),
		cmocka_unit_test_setup_teardown(test_long_arguments_are_cut, make_directory, remove_directory),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
