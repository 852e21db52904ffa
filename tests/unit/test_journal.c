/* SPDX-License-Identifier: Apache-2.0
 *
 * test_journal.c - a journal that cannot be used when the daemon starts: what can be read is served, nothing new begins,
 * the file stays as it is, and a renewal puts it aside and goes on.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <sqlite3.h>
#include <sys/stat.h>

#include "access_host.h"

#define GUESTS 300

/* ---- journals of all kinds of brokenness ---- */

static void path_of(const struct access_host *a, const char *name, char path[PATH_MAX])
{
	snprintf(path, PATH_MAX, "%s/state/%s", a->loop.dir, name);
}

static void fill(const char *state_dir)
{
	NOVA_AUTOJSON json_t *spec = json_pack("{s:I, s:i}", "memory", (json_int_t)64 << 20, "vcpus", 1);
	NOVA_AUTOJSON json_t *nothing = json_object();
	struct nova_error err;
	struct nova_store *store = nova_store_open(state_dir, &err);

	if (!store)
		fail_msg("%s", err.text);
	assert_int_equal(nova_store_begin(store, &err), 0);
	for (int i = 0; i < GUESTS; i++) {
		char name[16], id[NOVA_JOB_ID_SIZE];
		const struct nova_guest_row guest = { .name = name, .uuid = "7c3b4f2e-0000-4000-8000-000000000000", .owner = "alice",
			.driver = "kvm", .state = "running", .spec = spec, .runtime = nothing, .needs = nothing, .created_ms = 1 };
		const struct nova_job_row job = { .kind = "migrate", .guest = name, .side = "source", .token = name, .args = nothing,
			.report = nothing, .who = "alice", .step = i ? "" : "handover", .started_ms = 1, .ended_ms = i ? 2 : 0 };

		snprintf(name, sizeof(name), "g%03d", i);
		assert_int_equal(nova_store_guest_put(store, &guest, &err), 0);
		assert_int_equal(nova_store_job_new(store, &job, id, &err), 0);
	}
	assert_int_equal(nova_store_decide(store, "t", NOVA_COMMITTED, &err), 0);
	assert_int_equal(nova_store_end(store, true, &err), 0);
	nova_store_close(store);
}

static void overwrite(const char *path, off_t at, size_t length)
{
	NOVA_AUTOFREE char *bytes = malloc(length);
	int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

	memset(bytes, 0xa5, length);
	assert_int_equal(pwrite(fd, bytes, length, at), length);
	close(fd);
}

static void damage_inside(const char *path)
{
	overwrite(path, 7 * 4096, 2 * 4096);
}

static void no_database(const char *path)
{
	assert_int_equal(truncate(path, 0), 0);
	overwrite(path, 0, 10000);
}

static void newer(const char *path)
{
	sqlite3 *db;

	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	assert_int_equal(sqlite3_exec(db, "pragma user_version=99; alter table guests add colour text", NULL, NULL, NULL), SQLITE_OK);
	sqlite3_close(db);
}

static void interrupted(const char *path)
{
	char marker[PATH_MAX];

	snprintf(marker, sizeof(marker), "%s.renewing", path);
	overwrite(marker, 0, 1);
}

static const struct kind {
	const char *name;
	void (*make)(const char *path);
	const char *says;
	int least, most; /* guests that can be read */
} kinds[] = {
	{ "damage inside", damage_inside, "damaged", GUESTS / 3, GUESTS - 1 },
	{ "no database", no_database, "damaged", 0, 0 },
	{ "newer", newer, "newer version", GUESTS, GUESTS },
	{ "interrupted renewal", interrupted, "interrupted", GUESTS, GUESTS },
};

static char *slurp(const char *path, size_t *length)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat status;
	char *bytes;

	assert_true(fd >= 0);
	assert_int_equal(fstat(fd, &status), 0);
	bytes = malloc((size_t)status.st_size + 1);
	*length = (size_t)status.st_size;
	assert_int_equal(read(fd, bytes, *length), *length);
	close(fd);
	return bytes;
}

/* ---- a host on such a journal ---- */

struct broken {
	struct access_host a;
	char path[PATH_MAX];
	char *before;   /* owned: the file's bytes */
	size_t length;
	char first[64]; /* name of a guest that was listed */
};

static void open_broken(struct broken *b, const struct kind *kind)
{
	char state[PATH_MAX];

	access_prepare(&b->a);
	path_of(&b->a, "", state);
	path_of(&b->a, "novacron.db", b->path);
	assert_int_equal(mkdir(state, 0700), 0);
	state[strlen(state) - 1] = 0;
	fill(state);
	kind->make(b->path);
	b->before = slurp(b->path, &b->length);
	access_start(&b->a);
}

static void close_broken(struct broken *b)
{
	access_close(&b->a);
	free(b->before);
}

static void expect_bytes(const struct broken *b, const char *path)
{
	size_t length;
	NOVA_AUTOFREE char *now = slurp(path, &length);

	assert_int_equal(length, b->length);
	assert_memory_equal(now, b->before, length);
}

static size_t guests(struct broken *b, const struct nova_identity *who)
{
	if (access_run(&b->a, who, "list", NULL) < 0)
		fail_msg("%s", b->a.err.text);
	snprintf(b->first, sizeof(b->first), "%s",
	    json_string_value(json_object_get(json_array_get(b->a.result, 0), "name")) ?: "");
	return json_array_size(b->a.result);
}

static void expect_refusal(struct broken *b, const struct nova_identity *who, const char *command, json_t *args)
{
	assert_int_equal(access_run(&b->a, who, command, args), -1);
	if (!strstr(b->a.err.text, "no new work") || !strstr(b->a.err.text, b->path) || !strstr(b->a.err.text, "journal renew"))
		fail_msg("%s: %s", command, b->a.err.text);
}

static void test_serves_and_refuses(void **state)
{
	const struct nova_identity admin = access_who(NOVA_ROLE_ADMIN, "root"), alice = access_who(NOVA_ROLE_OPERATOR, "alice");

	for (size_t i = 0; i < sizeof(kinds) / sizeof(*kinds); i++) {
		struct broken b;
		enum nova_decision decision;
		size_t count;

		open_broken(&b, &kinds[i]);
		assert_non_null(strstr(nova_store_refusal(b.a.host->store), kinds[i].says));
		count = guests(&b, &alice);
		if ((int)count < kinds[i].least || (int)count > kinds[i].most)
			fail_msg("%s: %zu guests", kinds[i].name, count);
		if (count) {
			expect_refusal(&b, &alice, "delete", json_pack("{s:s, s:b}", "guest", b.first, "force", 1));
			expect_refusal(&b, &alice, "start", json_pack("{s:s}", "guest", b.first));
		}
		expect_refusal(&b, &admin, "adopt", json_pack("{s:s, s:s, s:s}", "guest", "new", "driver", "kvm", "qmp", "/nowhere"));
		/* "aborted" would let a guest run at its source that may run here, too. */
		assert_int_equal(nova_store_decision(b.a.host->store, "x", &decision, &b.a.err), -1);
		assert_int_equal(nova_store_decide(b.a.host->store, "x", NOVA_ABORTED, &b.a.err), -1);
		assert_int_equal(guests(&b, &alice), count);
		expect_bytes(&b, b.path);
		close_broken(&b);
	}
}

static int none_open(void *arg, const struct nova_job_row *row)
{
	return row->ended_ms ? 0 : -1;
}

static void test_renewal(void **state)
{
	const struct nova_identity admin = access_who(NOVA_ROLE_ADMIN, "root");

	for (size_t i = 0; i < sizeof(kinds) / sizeof(*kinds); i++) {
		struct broken b;
		size_t count;
		char aside[PATH_MAX];

		open_broken(&b, &kinds[i]);
		count = guests(&b, &admin);
		assert_int_equal(access_run(&b.a, &admin, "journal", json_pack("{s:s}", "what", "renew")), 0);
		assert_non_null(json_object_get(b.a.result, "risk"));
		assert_int_equal(json_array_size(json_object_get(b.a.result, "guests")), count);
		expect_bytes(&b, b.path); /* nothing without --yes */
		assert_int_equal(access_run(&b.a, &admin, "journal", json_pack("{s:s, s:b}", "what", "renew", "yes", 1)), 0);
		snprintf(aside, sizeof(aside), "%s", json_string_value(json_object_get(b.a.result, "put_aside")) ?: "");
		assert_string_not_equal(aside, "");
		expect_bytes(&b, aside);
		assert_null(nova_store_refusal(b.a.host->store));
		assert_int_equal(nova_store_check(b.a.host->store, &b.a.err), 0);
		assert_int_equal(guests(&b, &admin), count);
		assert_int_equal(access_run(&b.a, &admin, "journal", json_pack("{s:s, s:b}", "what", "renew", "yes", 1)), -1);
		if (count) /* work goes on */
			assert_int_equal(
			    access_run(&b.a, &admin, "delete", json_pack("{s:s, s:b}", "guest", b.first, "force", 1)), 0);

		/* and the next daemon finds the same */
		nova_host_free(b.a.host);
		access_start(&b.a);
		assert_null(nova_store_refusal(b.a.host->store));
		assert_int_equal(guests(&b, &admin), count ? count - 1 : 0);
		assert_int_equal(nova_store_jobs(b.a.host->store, NOVA_JOBS_ALL, none_open, NULL, &b.a.err), 0);
		close_broken(&b);
	}
}

static void test_one_daemon(void **state)
{
	struct broken b;
	struct nova_error why, err;

	open_broken(&b, &kinds[1]);
	b.path[strlen(b.path) - strlen("/novacron.db")] = 0;
	assert_null(nova_store_open(b.path, &why));
	assert_non_null(strstr(why.text, "in use"));
	assert_false(nova_store_may_stand_in(&why));
	assert_null(nova_store_stand_in(b.path, b.path, &why, &err));
	close_broken(&b);
}

/* Decisions that can still be read are kept: a peer that is in doubt gets its answer after the renewal. */
static void test_decisions_are_kept(void **state)
{
	const struct nova_identity admin = access_who(NOVA_ROLE_ADMIN, "root");
	enum nova_decision decision;
	struct broken b;

	open_broken(&b, &kinds[2]);
	assert_int_equal(access_run(&b.a, &admin, "journal", json_pack("{s:s, s:b}", "what", "renew", "yes", 1)), 0);
	assert_int_equal(nova_store_decision(b.a.host->store, "t", &decision, &b.a.err), 0);
	assert_int_equal(decision, NOVA_COMMITTED);
	close_broken(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_serves_and_refuses),
		cmocka_unit_test(test_renewal),
		cmocka_unit_test(test_one_daemon),
		cmocka_unit_test(test_decisions_are_kept),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
