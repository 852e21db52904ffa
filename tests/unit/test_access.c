/* SPDX-License-Identifier: Apache-2.0
 *
 * test_access.c - who may do what, on a real host: every command with every role; nobody without the right sees, in
 * any answer or event, a guest that is not theirs.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "access_host.h"

static const enum nova_role roles[] = { NOVA_ROLE_NONE, NOVA_ROLE_VIEWER, NOVA_ROLE_OPERATOR, NOVA_ROLE_ADMIN };

static void ignore(void *arg, json_t *result, const struct nova_error *err)
{
}

/* Whatever else is wrong with the call: was it refused for the role? */
static bool refused_for_role(struct access_host *a, enum nova_role role, const char *command)
{
	struct nova_identity who = access_who(role, "carol");
	struct nova_error err = { 0 };
	struct nova_op *op = nova_host_execute(a->host, &who, command, NULL, ignore, NULL, &err);

	nova_op_drop(op);
	return !op && err.category == NOVA_REFUSED && strstr(err.text, "it takes the role");
}

static void test_every_command_every_role(void **state)
{
	struct access_host a;
	size_t count;
	const struct nova_command *commands = nova_commands(&count);

	access_open(&a, NULL);
	for (size_t i = 0; i < count; i++) {
		assert_in_range(commands[i].role, NOVA_ROLE_VIEWER, NOVA_ROLE_ADMIN);
		for (size_t r = 0; r < sizeof(roles) / sizeof(*roles); r++)
			if (refused_for_role(&a, roles[r], commands[i].name) != (roles[r] < commands[i].role))
				fail_msg("%s as %s", commands[i].name, nova_role_name(roles[r]));
	}
	access_close(&a);
}

/* What changes anything is not for viewers; what tells about everybody is for admins. */
static void test_roles_of_the_table(void **state)
{
	static const char *const reading[] = { "list", "show", "stats", "drivers", "peers", "jobs", "job", "metrics", "about" };
	static const char *const admin[] = { "adopt", "host-bandwidth", "resolve", "audit", "doctor" };
	size_t count, readers = 0, admins = 0;
	const struct nova_command *commands = nova_commands(&count);

	for (size_t i = 0; i < count; i++) {
		for (size_t r = 0; r < sizeof(reading) / sizeof(*reading); r++)
			readers += commands[i].role == NOVA_ROLE_VIEWER && !strcmp(commands[i].name, reading[r]);
		for (size_t r = 0; r < sizeof(admin) / sizeof(*admin); r++)
			admins += commands[i].role == NOVA_ROLE_ADMIN && !strcmp(commands[i].name, admin[r]);
		if (commands[i].job)
			assert_true(commands[i].role >= NOVA_ROLE_OPERATOR);
	}
	assert_int_equal(readers, sizeof(reading) / sizeof(*reading));
	assert_int_equal(admins, sizeof(admin) / sizeof(*admin));
}

/* ---- what is not yours is not there ---- */

static bool mentions(const json_t *value, const char *word)
{
	NOVA_AUTOFREE char *text = json_dumps(value, JSON_ENCODE_ANY);

	return text && strstr(text, word);
}

static void expect_hidden(struct access_host *a, const struct nova_identity *who, const char *command, json_t *args)
{
	NOVA_AUTOFREE char *unknown = NULL;
	int failed = access_run(a, who, command, args);

	if (failed == 0 && mentions(a->result, "secret"))
		fail_msg("%s tells %s of bob's guest", command, who->name);
	if (failed < 0 && a->err.category != NOVA_INVALID && a->err.category != NOVA_STATE)
		fail_msg("%s: %s", command, a->err.text);
}

static void end_job(struct access_host *a, const struct nova_identity *who, const char *guest, char id[NOVA_JOB_ID_SIZE])
{
	struct nova_job *job = nova_job_new(a->host, "pause", "local", who, guest, NULL, &a->err);
	struct nova_job_row row = { .kind = "pause", .guest = guest, .side = "local", .who = who->name };

	assert_non_null(job);
	nova_job_set_owner(job, nova_entry_find(a->host, guest)->owner);
	row.report = job->report;
	assert_int_equal(nova_store_job_new(a->host->store, &row, job->id, &a->err), 0);
	strcpy(id, job->id);
	nova_job_settle(job, NOVA_COMPLETED, NULL, "");
}

static void test_guests_of_others_are_invisible(void **state)
{
	static const char *const questions[] = { "list", "jobs", "metrics", "about", "drivers", "peers" };
	static const char *const of_guest[] = { "show", "stats", "start", "stop", "pause", "resume", "delete", "resize",
		"migrate" };
	static const char *const of_job[] = { "job", "cancel", "bandwidth" };
	const struct nova_identity alice = access_who(NOVA_ROLE_OPERATOR, "alice"), viewer = access_who(NOVA_ROLE_VIEWER, "eve");
	const struct nova_identity admin = access_who(NOVA_ROLE_ADMIN, "root"), bob = access_who(NOVA_ROLE_VIEWER, "bob");
	char job[NOVA_JOB_ID_SIZE];
	struct access_host a;

	access_open(&a, NULL);
	access_guest(&a, "secret", "bob", 64, 1, 0);
	nova_metrics_set(a.host->metrics, "novacron_migration_downtime_ms", "secret", 7);
	end_job(&a, &admin, "secret", job);
	for (size_t i = 0; i < sizeof(questions) / sizeof(*questions); i++) {
		expect_hidden(&a, &alice, questions[i], NULL);
		expect_hidden(&a, &viewer, questions[i], NULL);
	}
	expect_hidden(&a, &viewer, "metrics", json_pack("{s:b}", "prometheus", 1));
	for (size_t i = 0; i < sizeof(of_guest) / sizeof(*of_guest); i++) {
		json_t *args = json_pack("{s:s}", "guest", "secret");

		if (!strcmp(of_guest[i], "migrate"))
			json_object_set_new(args, "to", json_string("beta"));
		assert_int_equal(access_run(&a, &alice, of_guest[i], args), -1);
		assert_string_equal(a.err.text, "there is no guest 'secret' on alpha: see novacron list");
	}
	for (size_t i = 0; i < sizeof(of_job) / sizeof(*of_job); i++) {
		json_t *args = json_pack("{s:s}", "job", job);

		if (!strcmp(of_job[i], "bandwidth"))
			json_object_set_new(args, "rate", json_integer(1));
		assert_int_equal(access_run(&a, &alice, of_job[i], args), -1);
		assert_non_null(strstr(a.err.text, "no job"));
	}
	/* its owner and admins see it */
	assert_int_equal(access_run(&a, &bob, "list", NULL), 0);
	assert_true(mentions(a.result, "secret"));
	assert_int_equal(access_run(&a, &bob, "job", json_pack("{s:s}", "job", job)), 0);
	assert_int_equal(access_run(&a, &bob, "metrics", NULL), 0);
	assert_true(mentions(a.result, "secret"));
	assert_int_equal(access_run(&a, &admin, "jobs", NULL), 0);
	assert_true(mentions(a.result, "secret"));
	access_close(&a);
}

/* A name that is used again does not open the past of the guest that had it. */
static void test_history_stays_with_the_owner(void **state)
{
	const struct nova_identity alice = access_who(NOVA_ROLE_VIEWER, "alice"), bob = access_who(NOVA_ROLE_VIEWER, "bob");
	char job[NOVA_JOB_ID_SIZE];
	struct access_host a;

	access_open(&a, NULL);
	access_guest(&a, "web", "bob", 64, 1, 0);
	end_job(&a, &bob, "web", job);
	nova_entry_forget(nova_entry_find(a.host, "web"), &a.err);
	access_guest(&a, "web", "alice", 64, 1, 0);
	assert_int_equal(access_run(&a, &alice, "job", json_pack("{s:s}", "job", job)), -1);
	assert_int_equal(access_run(&a, &bob, "job", json_pack("{s:s}", "job", job)), 0);
	access_close(&a);
}

struct seen {
	struct nova_host *host;
	const struct nova_identity *who;
	int visible, all;
};

static void on_event(void *arg, const char *event, json_t *data)
{
	struct seen *seen = arg;

	seen->all++;
	seen->visible += nova_host_may_see(seen->host, seen->who, event, data);
}

static void test_events_of_others_are_invisible(void **state)
{
	const struct nova_identity alice = access_who(NOVA_ROLE_OPERATOR, "alice"), bob = access_who(NOVA_ROLE_VIEWER, "bob");
	const struct nova_identity admin = access_who(NOVA_ROLE_ADMIN, "root"), *const all[] = { &alice, &bob, &admin };
	const int expected[] = { 0, 3, 3 };
	char job[NOVA_JOB_ID_SIZE];
	struct access_host a;

	access_open(&a, NULL);
	for (size_t i = 0; i < 3; i++) {
		struct seen seen = { a.host, all[i], 0, 0 };
		struct nova_entry *entry = access_guest(&a, "secret", "bob", 64, 1, 0);

		nova_host_on_event(a.host, on_event, &seen);
		nova_guest_set_state(&entry->guest, NOVA_GUEST_PAUSED, NULL);
		end_job(&a, &admin, "secret", job); /* JOB_ENDED */
		nova_entry_forget(entry, &a.err);   /* GUEST_GONE */
		assert_int_equal(seen.all, 3);
		assert_int_equal(seen.visible, expected[i]);
		nova_host_on_event(a.host, NULL, NULL);
	}
	access_close(&a);
}

static void test_only_admins_name_another_owner(void **state)
{
	const struct nova_identity alice = access_who(NOVA_ROLE_OPERATOR, "alice");
	struct access_host a;

	access_open(&a, NULL);
	assert_int_equal(
	    access_run(&a, &alice, "create", json_pack("{s:s, s:s, s:{s:I}}", "guest", "g", "owner", "bob", "spec", "memory", (json_int_t)64 << 20)), -1);
	assert_int_equal(a.err.category, NOVA_REFUSED);
	assert_non_null(strstr(a.err.text, "only admins name another owner"));
	access_close(&a);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_command_every_role),
		cmocka_unit_test(test_roles_of_the_table),
		cmocka_unit_test(test_guests_of_others_are_invisible),
		cmocka_unit_test(test_history_stays_with_the_owner),
		cmocka_unit_test(test_events_of_others_are_invisible),
		cmocka_unit_test(test_only_admins_name_another_owner),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
