/* SPDX-License-Identifier: Apache-2.0
 *
 * test_admission.c - limits of the host and of owners: what fits exactly is let in, one more is refused with the limit
 * and the numbers; a reservation counts at once; a resize reserves before it acts and gives back when it fails.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "access_host.h"

#define MIB ((json_int_t)1 << 20)

static int admit(struct access_host *a, const char *owner, int memory_mib, int vcpus, int disk_mib)
{
	NOVA_AUTOJSON json_t *needs = json_pack("{s:I, s:i, s:I}", "memory_bytes", memory_mib * MIB, "vcpus", vcpus,
	    "disk_bytes", disk_mib * MIB);

	a->err = (struct nova_error){ 0 };
	return nova_admit_guest(a->host, "new", owner, needs, &a->err);
}

static void expect_refusal(struct access_host *a, int result, const char *text)
{
	assert_int_equal(result, -1);
	assert_int_equal(a->err.category, NOVA_REFUSED);
	assert_string_equal(a->err.text, text);
}

static void test_limits_of_the_host(void **state)
{
	static const char *const options[] = { "max-memory", "1G", "max-vcpus", "4", "max-disk", "10G", "max-guests", "2", NULL };
	struct access_host a;

	access_open(&a, options);
	access_guest(&a, "old", "bob", 600, 3, 9000);
	assert_int_equal(admit(&a, "alice", 424, 1, 1240), 0);
	expect_refusal(&a, admit(&a, "alice", 425, 1, 1240),
	    "no capacity on alpha for guest new: it needs 425 MiB of memory, 600 MiB of 1024 MiB are taken (limit max-memory)");
	expect_refusal(&a, admit(&a, "alice", 424, 2, 1240),
	    "no capacity on alpha for guest new: it needs 2 of vCPUs, 3 of 4 are taken (limit max-vcpus)");
	expect_refusal(&a, admit(&a, "alice", 424, 1, 1241),
	    "no capacity on alpha for guest new: it needs 1241 MiB of disk, 9000 MiB of 10240 MiB are taken (limit max-disk)");
	access_guest(&a, "other", "bob", 1, 0, 0);
	expect_refusal(&a, admit(&a, "alice", 1, 0, 0),
	    "no capacity on alpha for guest new: it needs 1 of guests, 2 of 2 are taken (limit max-guests)");
	access_close(&a);
}

static void test_limits_of_an_owner(void **state)
{
	static const char *const options[] = { "owner", "bob:max-memory=1G", "owner", "bob:max-guests=2", "owner",
		"*:max-vcpus=2", NULL };
	struct access_host a;

	access_open(&a, options);
	access_guest(&a, "old", "bob", 1000, 8, 0);
	access_guest(&a, "hers", "alice", 1000, 1, 0);
	assert_int_equal(admit(&a, "bob", 24, 8, 0), 0);
	expect_refusal(&a, admit(&a, "bob", 25, 1, 0),
	    "no capacity on alpha for guest new of bob: it needs 25 MiB of memory, 1000 MiB of 1024 MiB are taken (limit max-memory of owner bob)");
	assert_int_equal(admit(&a, "alice", 2000, 1, 0), 0);
	expect_refusal(&a, admit(&a, "alice", 1, 2, 0),
	    "no capacity on alpha for guest new of alice: it needs 2 of vCPUs, 1 of 2 are taken (limit max-vcpus of owner alice)");
	access_guest(&a, "second", "bob", 1, 1, 0);
	expect_refusal(&a, admit(&a, "bob", 1, 1, 0),
	    "no capacity on alpha for guest new of bob: it needs 1 of guests, 2 of 2 are taken (limit max-guests of owner bob)");
	access_close(&a);
}

/* Numbers from peers are not to be trusted: no sum overflows. */
static void test_absurd_needs(void **state)
{
	static const char *const options[] = { "max-memory", "1G", NULL };
	NOVA_AUTOJSON json_t *needs = json_pack("{s:I}", "memory_bytes", (json_int_t)INT64_MAX);
	struct access_host a;

	access_open(&a, options);
	access_guest(&a, "old", "bob", 600, 3, 0);
	assert_int_equal(nova_admit_guest(a.host, "new", "bob", needs, &a.err), -1);
	access_close(&a);
}

static struct nova_job *migration(struct access_host *a, const char *side, const char *owner)
{
	const struct nova_identity who = access_who(NOVA_ROLE_OPERATOR, owner);
	struct nova_job *job = nova_job_new(a->host, "migrate", side, &who, "g", NULL, &a->err);

	assert_non_null(job);
	nova_job_set_owner(job, owner);
	return job;
}

static enum nova_step_result wait_for_ever(struct nova_run *run, void *ctx, struct nova_error *err)
{
	return NOVA_STEP_WAIT;
}

static void drop(struct nova_run *run, void *ctx)
{
}

static void begin(struct access_host *a, struct nova_job *job)
{
	static const struct nova_step steps[] = { { "wait", wait_for_ever, NULL, drop, 0 }, { NULL } };

	assert_int_equal(nova_job_start(job, steps, NULL, false, &a->err), 0);
}

static void test_migrations_at_a_time(void **state)
{
	static const char *const options[] = { "max-incoming", "1", "max-outgoing", "2", "owner", "bob:max-migrations=1", NULL };
	struct access_host a;
	struct nova_job *job;

	access_open(&a, options);
	job = migration(&a, "destination", "alice");
	assert_int_equal(nova_admit_migration(job, &a.err), 0); /* the first of one */
	begin(&a, job);
	job = migration(&a, "destination", "alice");
	expect_refusal(&a, nova_admit_migration(job, &a.err), "alpha has 1 incoming migrations already (limit max-incoming 1)");
	job = migration(&a, "source", "bob");
	assert_int_equal(nova_admit_migration(job, &a.err), 0);
	begin(&a, job);
	job = migration(&a, "source", "bob");
	expect_refusal(&a, nova_admit_migration(job, &a.err),
	    "alpha has 1 migrations of bob already (limit max-migrations of owner bob 1)");
	access_close(&a);
}

static json_int_t memory_of(struct access_host *a, const char *guest)
{
	return json_integer_value(json_object_get(nova_entry_find(a->host, guest)->needs, "memory_bytes"));
}

/* With the real driver, on a guest that does not run. */
static void test_create_and_resize(void **state)
{
	static const char *const options[] = { "owner", "bob:max-memory=256M", NULL };
	const struct nova_identity bob = access_who(NOVA_ROLE_OPERATOR, "bob");
	struct access_host a;

	access_open(&a, options);
	assert_int_equal(
	    access_run(&a, &bob, "create", json_pack("{s:s, s:{s:I}}", "guest", "big", "spec", "memory", 257 * MIB)), -1);
	assert_non_null(strstr(a.err.text, "it needs 257 MiB of memory, 0 MiB of 256 MiB are taken (limit max-memory of owner bob)"));
	assert_null(nova_entry_find(a.host, "big"));
	if (access_run(&a, &bob, "create", json_pack("{s:s, s:{s:I}}", "guest", "g", "spec", "memory", 128 * MIB)) < 0)
		fail_msg("%s", a.err.text);
	assert_int_equal(access_run(&a, &bob, "resize", json_pack("{s:s, s:I}", "guest", "g", "memory", 257 * MIB)), -1);
	assert_non_null(strstr(a.err.text, "it needs 257 MiB of memory, 0 MiB of 256 MiB are taken"));
	assert_int_equal(memory_of(&a, "g"), 128 * MIB);
	/* the driver refuses what is no whole MiB: what was reserved is given back */
	assert_int_equal(access_run(&a, &bob, "resize", json_pack("{s:s, s:I}", "guest", "g", "memory", 200 * MIB + 1)), -1);
	assert_int_equal(memory_of(&a, "g"), 128 * MIB);
	if (access_run(&a, &bob, "resize", json_pack("{s:s, s:I}", "guest", "g", "memory", 256 * MIB)) < 0)
		fail_msg("%s", a.err.text);
	assert_int_equal(memory_of(&a, "g"), 256 * MIB);
	assert_int_equal(access_run(&a, &bob, "delete", json_pack("{s:s}", "guest", "g")), 0);
	access_close(&a);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_limits_of_the_host),
		cmocka_unit_test(test_limits_of_an_owner),
		cmocka_unit_test(test_absurd_needs),
		cmocka_unit_test(test_migrations_at_a_time),
		cmocka_unit_test(test_create_and_resize),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
