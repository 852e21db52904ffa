/* SPDX-License-Identifier: Apache-2.0
 *
 * test_store.c - the journal and the inventory: what is written reads back, the first decision stands, a
 * write that returned survives kill -9, and files that are damaged, in use, read-only or on a full disk give
 * an error that says what to do.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sqlite3.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "engine/store.h"

struct fixture {
	char dir[64], path[128];
	struct nova_store *store;
	struct nova_error err;
	/* what the row callbacks saw */
	int rows, stop_after;
	char names[256];
	json_t *value; /* owned */
	struct nova_job_row job;
	char text[8][64]; /* the job row's texts, copied */
	char *meta;       /* owned */
};

static void open_store(struct fixture *f)
{
	f->store = nova_store_open(f->dir, &f->err);
	if (!f->store)
		fail_msg("%s", f->err.text);
}

static void reopen(struct fixture *f)
{
	nova_store_close(f->store);
	open_store(f);
}

/* Must fail, as what the caller does next says, and name the file. */
static void cannot_open(struct fixture *f, const char *what, const char *help)
{
	memset(&f->err, 0, sizeof(f->err));
	f->store = nova_store_open(f->dir, &f->err);
	assert_null(f->store);
	if (!strstr(f->err.text, f->path) || !strstr(f->err.text, what) || !strstr(f->err.text, help))
		fail_msg("'%s' should name %s, '%s' and '%s'", f->err.text, f->path, what, help);
}

/* ---- guests ---- */

static int see_guest(void *arg, const struct nova_guest_row *row)
{
	struct fixture *f = arg;
	size_t used = strlen(f->names);

	snprintf(
	    f->names + used, sizeof(f->names) - used, "%s(%s) ", row->name, row->state ? row->state : "-");
	json_decref(f->value);
	f->value = json_incref(row->spec);
	f->rows++;
	return f->stop_after && f->rows >= f->stop_after ? -1 : 0;
}

static int see_guests(struct fixture *f, const char *name)
{
	f->rows = 0;
	f->names[0] = 0;
	return nova_store_guests(f->store, name, see_guest, f, &f->err);
}

static void test_guests(void **state)
{
	struct fixture *f = *state;
	json_t *spec = json_pack("{s:I, s:s, s:s%, s:n}", "memory", (json_int_t)1 << 53, "umlaut",
	    "\xc3\xa4\n\"'; drop table guests", "nul", "a\0b", (size_t)3, "nothing");
	json_t *list = json_pack("[i,b]", 1, 1);
	struct nova_guest_row row = { .name = "g'1",
		.uuid = "u",
		.owner = "o",
		.driver = "kvm",
		.state = "running",
		.spec = spec,
		.runtime = list,
		.created_ms = 1234567890123 };

	assert_non_null(spec);
	open_store(f);
	assert_int_equal(nova_store_guest_put(f->store, &row, NULL), 0);
	row.name = "a";
	row.state = NULL;
	row.runtime = NULL;
	assert_int_equal(nova_store_guest_put(f->store, &row, NULL), 0);
	reopen(f);
	assert_int_equal(see_guests(f, NULL), 0);
	assert_string_equal(f->names, "a(-) g'1(running) ");
	assert_true(json_equal(f->value, spec));

	row.name = "g'1";
	row.state = "paused";
	assert_int_equal(nova_store_guest_put(f->store, &row, NULL), 0);
	assert_int_equal(see_guests(f, "g'1"), 0);
	assert_string_equal(f->names, "g'1(paused) ");
	assert_int_equal(see_guests(f, "no such guest"), 0);
	assert_int_equal(f->rows, 0);

	f->stop_after = 1;
	assert_int_equal(see_guests(f, NULL), -1);
	assert_int_equal(f->rows, 1);
	f->stop_after = 0;

	assert_int_equal(nova_store_guest_delete(f->store, "g'1", NULL), 0);
	assert_int_equal(nova_store_guest_delete(f->store, "g'1", NULL), 0); /* that it is gone is fine */
	assert_int_equal(see_guests(f, NULL), 0);
	assert_string_equal(f->names, "a(-) ");
	json_decref(spec);
	json_decref(list);
}

/* ---- jobs ---- */

static int see_job(void *arg, const struct nova_job_row *row)
{
	struct fixture *f = arg;
	size_t used = strlen(f->names);
	const char *texts[8] = { row->kind, row->guest, row->peer, row->side, row->token, row->step,
		row->outcome, row->error };

	snprintf(f->names + used, sizeof(f->names) - used, "%s ", row->id);
	for (int i = 0; i < 8; i++)
		snprintf(f->text[i], sizeof(f->text[i]), "%s", texts[i] ? texts[i] : "-");
	json_decref(f->value);
	f->value = json_incref(row->report);
	f->job = *row;
	f->rows++;
	return 0;
}

static void see_jobs(struct fixture *f, enum nova_job_filter filter)
{
	f->rows = 0;
	f->names[0] = 0;
	assert_int_equal(nova_store_jobs(f->store, filter, see_job, f, NULL), 0);
}

static void find_job(struct fixture *f, const char *id, const char *token)
{
	f->rows = 0;
	f->names[0] = 0;
	assert_int_equal(nova_store_job_find(f->store, id, token, see_job, f, NULL), 0);
}

static void new_job(struct fixture *f, const char *token, char id[NOVA_JOB_ID_SIZE])
{
	const struct nova_job_row row = { .kind = "migrate",
		.guest = "g1",
		.peer = "beta",
		.side = "source",
		.token = token,
		.who = "uid 0",
		.started_ms = 1000 };

	assert_int_equal(nova_store_job_new(f->store, &row, id, NULL), 0);
}

static void test_jobs(void **state)
{
	struct fixture *f = *state;
	char id[NOVA_JOB_ID_SIZE];
	json_t *report = json_pack("{s:i}", "downtime_ms", 42);

	open_store(f);
	new_job(f, "t1", id);
	assert_string_equal(id, "j1");
	new_job(f, NULL, id);
	assert_string_equal(id, "j2");
	assert_int_equal(nova_store_job_step(f->store, "j1", "precopy", false, NULL), 0);
	reopen(f);
	find_job(f, "j1", NULL);
	assert_string_equal(f->text[0], "migrate");
	assert_string_equal(f->text[4], "t1");
	assert_string_equal(f->text[5], "precopy");
	assert_string_equal(f->text[6], "-");
	assert_false(f->job.undoing);
	assert_int_equal(f->job.started_ms, 1000);
	assert_int_equal(f->job.ended_ms, 0);
	assert_null(f->value);

	assert_int_equal(nova_store_job_step(f->store, "j1", "reserve", true, NULL), 0);
	find_job(f, NULL, "t1");
	assert_string_equal(f->names, "j1 ");
	assert_true(f->job.undoing);
	find_job(f, "j2", "t1"); /* both must hold */
	assert_int_equal(f->rows, 0);
	find_job(f, "2", NULL);
	assert_int_equal(f->rows, 0);

	assert_int_equal(nova_store_job_end(f->store, "j1", "undone", "no room", report, 2000, NULL), 0);
	see_jobs(f, NOVA_JOBS_OPEN);
	assert_string_equal(f->names, "j2 ");
	see_jobs(f, NOVA_JOBS_ENDED);
	assert_string_equal(f->names, "j1 ");
	assert_string_equal(f->text[6], "undone");
	assert_string_equal(f->text[7], "no room");
	assert_true(json_equal(f->value, report));
	see_jobs(f, NOVA_JOBS_ALL);
	assert_string_equal(f->names, "j1 j2 ");
	json_decref(report);
}

static void test_jobs_that_are_not_there(void **state)
{
	static const char *const ids[] = { "j7", "j0", "j-1", "j1x", "7", "", "j",
		"j99999999999999999999999" };
	struct fixture *f = *state;
	const struct nova_job_row row = { .id = "j7", .kind = "migrate" };

	open_store(f);
	for (size_t i = 0; i < sizeof(ids) / sizeof(*ids); i++) {
		assert_int_equal(nova_store_job_step(f->store, ids[i], "x", false, &f->err), -1);
		assert_int_equal(f->err.category, NOVA_STATE);
		assert_int_equal(nova_store_job_end(f->store, ids[i], "x", NULL, NULL, 1, &f->err), -1);
	}
	assert_int_equal(nova_store_job_put(f->store, &row, &f->err), -1);
	assert_string_equal(f->err.text, "there is no job j7 in the journal");
}

static void test_prune_keeps_the_newest_and_the_doubtful(void **state)
{
	struct fixture *f = *state;
	char id[NOVA_JOB_ID_SIZE];

	open_store(f);
	for (int i = 1; i <= 8; i++) {
		new_job(f, NULL, id);
		if (i != 2)
			assert_int_equal(nova_store_job_end(f->store, id, i == 1 ? "in-doubt" : "completed",
			                     NULL, NULL, 5, NULL),
			    0);
	}
	assert_int_equal(nova_store_jobs_prune(f->store, 2, NULL), 0);
	see_jobs(f, NOVA_JOBS_ALL);
	assert_string_equal(f->names, "j1 j2 j7 j8 ");
	assert_int_equal(nova_store_jobs_prune(f->store, 0, NULL), 0);
	see_jobs(f, NOVA_JOBS_ALL);
	assert_string_equal(f->names, "j1 j2 ");
	reopen(f);
	new_job(f, NULL, id);
	assert_string_equal(id, "j9"); /* never used twice */
}

static int end_job(void *arg, const struct nova_job_row *row)
{
	struct fixture *f = arg;

	f->rows++;
	return nova_store_job_end(f->store, row->id, "undone", NULL, NULL, 9, NULL);
}

static void test_a_row_callback_may_write(void **state)
{
	struct fixture *f = *state;
	char id[NOVA_JOB_ID_SIZE];

	open_store(f);
	for (int i = 0; i < 20; i++)
		new_job(f, NULL, id);
	f->rows = 0;
	assert_int_equal(nova_store_jobs(f->store, NOVA_JOBS_OPEN, end_job, f, NULL), 0);
	assert_int_equal(f->rows, 20);
	see_jobs(f, NOVA_JOBS_OPEN);
	assert_int_equal(f->rows, 0);
}

/* ---- decisions and facts ---- */

static void test_the_first_decision_stands(void **state)
{
	struct fixture *f = *state;
	enum nova_decision decision = NOVA_ABORTED;

	open_store(f);
	assert_int_equal(nova_store_decision(f->store, "t", &decision, NULL), 0);
	assert_int_equal(decision, NOVA_UNDECIDED);
	assert_int_equal(nova_store_decide(f->store, "t", NOVA_COMMITTED, NULL), 0);
	assert_int_equal(nova_store_decide(f->store, "t", NOVA_COMMITTED, NULL), 0);
	assert_int_equal(nova_store_decide(f->store, "t", NOVA_ABORTED, &f->err), -1);
	assert_int_equal(f->err.category, NOVA_STATE);
	assert_string_equal(f->err.text, "migration t is decided already: committed");
	reopen(f);
	assert_int_equal(nova_store_decision(f->store, "t", &decision, NULL), 0);
	assert_int_equal(decision, NOVA_COMMITTED);
	assert_int_equal(nova_store_decision_forget(f->store, "t", NULL), 0);
	assert_int_equal(nova_store_decide(f->store, "t", NOVA_ABORTED, NULL), 0);
	assert_string_equal(nova_decision_name(NOVA_ABORTED), "aborted");
	assert_string_equal(nova_decision_name((enum nova_decision)9), "unknown");
}

static void test_facts_and_the_hosts_name(void **state)
{
	struct fixture *f = *state;
	char uuid[37];

	open_store(f);
	snprintf(uuid, sizeof(uuid), "%s", nova_store_host_uuid(f->store));
	assert_int_equal(strlen(uuid), 36);
	f->err.category = NOVA_LINK;
	assert_null(nova_store_meta_get(f->store, "colour", &f->err));
	assert_int_equal(f->err.category, NOVA_OK);
	assert_int_equal(nova_store_meta_set(f->store, "colour", "red", NULL), 0);
	assert_int_equal(nova_store_meta_set(f->store, "colour", "blue", NULL), 0);
	reopen(f);
	f->meta = nova_store_meta_get(f->store, "colour", &f->err);
	assert_string_equal(f->meta, "blue");
	assert_string_equal(nova_store_host_uuid(f->store), uuid);
}

static void test_all_or_none(void **state)
{
	struct fixture *f = *state;
	enum nova_decision decision;

	open_store(f);
	assert_int_equal(nova_store_begin(f->store, NULL), 0);
	assert_int_equal(nova_store_begin(f->store, &f->err), -1); /* not nested */
	assert_int_equal(nova_store_decide(f->store, "t", NOVA_COMMITTED, NULL), 0);
	assert_int_equal(nova_store_end(f->store, false, NULL), 0);
	assert_int_equal(nova_store_decision(f->store, "t", &decision, NULL), 0);
	assert_int_equal(decision, NOVA_UNDECIDED);
	assert_int_equal(nova_store_begin(f->store, NULL), 0);
	assert_int_equal(nova_store_decide(f->store, "t", NOVA_COMMITTED, NULL), 0);
	assert_int_equal(nova_store_end(f->store, true, NULL), 0);
	reopen(f);
	assert_int_equal(nova_store_decision(f->store, "t", &decision, NULL), 0);
	assert_int_equal(decision, NOVA_COMMITTED);
}

/* ---- kill -9 ---- */

/* Writes as long as it lives, and tells of each write that has returned. */
static void write_for_ever(const char *dir, int out)
{
	struct nova_store *store = nova_store_open(dir, NULL);

	for (int i = 0; store; i++) {
		const struct nova_job_row row = { .kind = "migrate", .started_ms = i };
		char id[NOVA_JOB_ID_SIZE], token[16];

		snprintf(token, sizeof(token), "t%d", i);
		if (nova_store_job_new(store, &row, id, NULL) < 0 ||
		    nova_store_job_step(store, id, token, false, NULL) < 0 ||
		    nova_store_decide(store, token, NOVA_COMMITTED, NULL) < 0 ||
		    write(out, &i, sizeof(i)) != sizeof(i))
			_exit(1);
	}
	_exit(1);
}

static int kill_in_mid_write(const struct fixture *f, int after)
{
	int ends[2], told = -1, status;
	pid_t pid;

	assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
	pid = fork();
	if (pid == 0)
		write_for_ever(f->dir, ends[1]);
	close(ends[1]);
	while (told < after)
		assert_int_equal(read(ends[0], &told, sizeof(told)), sizeof(told));
	usleep((useconds_t)(after * 37)); /* somewhere in the next writes */
	kill(pid, SIGKILL);
	waitpid(pid, &status, 0);
	assert_true(WIFSIGNALED(status));
	for (int more; read(ends[0], &more, sizeof(more)) == sizeof(more);)
		told = more;
	close(ends[0]);
	return told;
}

static void test_what_returned_survives_kill_9(void **state)
{
	struct fixture *f = *state;

	for (int round = 0; round < 4; round++) {
		int told = kill_in_mid_write(f, 5 + round * 3);

		open_store(f); /* the lock went with the process; the file is whole */
		for (int i = 0; i <= told; i++) {
			enum nova_decision decision;
			char token[16];

			snprintf(token, sizeof(token), "t%d", i);
			assert_int_equal(nova_store_decision(f->store, token, &decision, NULL), 0);
			assert_int_equal(decision, NOVA_COMMITTED);
		}
		see_jobs(f, NOVA_JOBS_ALL);
		assert_true(f->rows >= told + 1 && f->rows <= told + 3);
		f->store = nova_store_close(f->store);
		unlink(f->path);
	}
}

/* ---- files that cannot be used ---- */

static void write_file(const char *path, const void *bytes, size_t length, off_t at)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

	assert_int_equal(pwrite(fd, bytes, length, at), (ssize_t)length);
	close(fd);
}

static void test_private_file_and_one_owner(void **state)
{
	struct fixture *f = *state;
	struct nova_store *first;
	struct stat status;
	mode_t old = umask(0);

	write_file(f->path, "", 0, 0);
	chmod(f->path, 0644);
	open_store(f);
	umask(old);
	assert_int_equal(stat(f->path, &status), 0);
	assert_int_equal(status.st_mode & 0777, 0600);
	first = f->store;
	cannot_open(f, "in use", "another daemon");
	f->store = first;
	assert_int_equal(nova_store_meta_set(f->store, "still", "works", NULL), 0);
}

static void test_garbage(void **state)
{
	struct fixture *f = *state;
	char bytes[8192];

	memset(bytes, 'x', sizeof(bytes));
	write_file(f->path, bytes, sizeof(bytes), 0);
	cannot_open(f, "damaged", "journal renew");
	assert_int_equal(f->err.category, NOVA_STATE);
	assert_int_equal(truncate(f->path, 20), 0);
	cannot_open(f, "damaged", "journal renew");
}

static void test_damage_inside(void **state)
{
	struct fixture *f = *state;
	char id[NOVA_JOB_ID_SIZE], bytes[4096];

	open_store(f);
	for (int i = 0; i < 100; i++)
		new_job(f, "some token", id);
	f->store = nova_store_close(f->store);
	memset(bytes, 0xa5, sizeof(bytes));
	write_file(f->path, bytes, sizeof(bytes), 3 * 4096);
	write_file(f->path, bytes, sizeof(bytes), 5 * 4096);
	cannot_open(f, "damaged", ".recover");
}

static void test_written_by_a_newer_version(void **state)
{
	struct fixture *f = *state;
	sqlite3 *db;

	open_store(f);
	f->store = nova_store_close(f->store);
	assert_int_equal(sqlite3_open(f->path, &db), SQLITE_OK);
	assert_int_equal(sqlite3_exec(db, "pragma user_version=99", NULL, NULL, NULL), SQLITE_OK);
	sqlite3_close(db);
	cannot_open(f, "newer version", "99");
}

static void test_no_directory_and_no_file(void **state)
{
	struct fixture *f = *state;

	snprintf(f->dir + strlen(f->dir), 8, "/no");
	snprintf(f->path, sizeof(f->path), "%s/novacron.db", f->dir);
	cannot_open(f, "No such file", "check the owner");
	f->dir[strlen(f->dir) - 3] = 0;
	snprintf(f->path, sizeof(f->path), "%s/novacron.db", f->dir);
	assert_int_equal(symlink("/etc/passwd", f->path), 0);
	cannot_open(f, "symbolic links", "");
}

/* A file system of our own, which nobody else sees. */
static void mount_small(struct fixture *f)
{
	if (geteuid() != 0)
		skip();
	assert_int_equal(unshare(CLONE_NEWNS), 0);
	assert_int_equal(mount("none", "/", "none", MS_REC | MS_PRIVATE, NULL), 0);
	assert_int_equal(mount("none", f->dir, "tmpfs", 0, "size=256k"), 0);
}

static void test_read_only_file_system(void **state)
{
	struct fixture *f = *state;

	mount_small(f);
	open_store(f);
	f->store = nova_store_close(f->store);
	assert_int_equal(mount("none", f->dir, "none", MS_REMOUNT | MS_RDONLY, NULL), 0);
	cannot_open(f, "Read-only", "check the owner");
	assert_int_equal(umount(f->dir), 0);
}

/* Fill the rest of the disk. */
static void fill(const struct fixture *f)
{
	char path[128], bytes[4096] = { 0 };
	int fd;

	snprintf(path, sizeof(path), "%s/ballast", f->dir);
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	while (write(fd, bytes, sizeof(bytes)) > 0)
		;
	assert_int_equal(errno, ENOSPC);
	close(fd);
}

static void test_full_disk(void **state)
{
	struct fixture *f = *state;
	char path[128], id[NOVA_JOB_ID_SIZE];
	const struct nova_job_row row = { .kind = "migrate", .token = "t" };
	enum nova_decision decision;
	int written = 0;

	mount_small(f);
	open_store(f);
	assert_int_equal(nova_store_decide(f->store, "before", NOVA_COMMITTED, NULL), 0);
	fill(f);
	memset(&f->err, 0, sizeof(f->err));
	while (nova_store_job_new(f->store, &row, id, &f->err) == 0)
		assert_true(++written < 10000);
	assert_non_null(strstr(f->err.text, "free some space"));
	assert_int_equal(nova_store_decide(f->store, "after", NOVA_COMMITTED, &f->err), -1);
	see_jobs(f, NOVA_JOBS_ALL); /* reading goes on, and shows what was written and no more */
	assert_int_equal(f->rows, written);
	snprintf(path, sizeof(path), "%s/ballast", f->dir);
	unlink(path);
	assert_int_equal(nova_store_decision(f->store, "after", &decision, NULL), 0);
	assert_int_equal(decision, NOVA_UNDECIDED);
	assert_int_equal(
	    nova_store_decide(f->store, "after", NOVA_COMMITTED, NULL), 0); /* there is space again */
	reopen(f);
	assert_int_equal(nova_store_decision(f->store, "before", &decision, NULL), 0);
	assert_int_equal(decision, NOVA_COMMITTED);
	f->store = nova_store_close(f->store);
	fill(f);
	unlink(f->path);
	fill(f);
	cannot_open(f, "free some space", "");
	assert_int_equal(umount2(f->dir, MNT_DETACH), 0);
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	strcpy(f->dir, "/tmp/nova-test-XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	snprintf(f->path, sizeof(f->path), "%s/novacron.db", f->dir);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	char wal[140];

	nova_store_close(f->store);
	json_decref(f->value);
	free(f->meta);
	unlink(f->path);
	snprintf(wal, sizeof(wal), "%s-wal", f->path);
	unlink(wal);
	assert_int_equal(rmdir(f->dir), 0); /* and nothing else is left */
	free(f);
	return 0;
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_guests),
		T(test_jobs),
		T(test_jobs_that_are_not_there),
		T(test_prune_keeps_the_newest_and_the_doubtful),
		T(test_a_row_callback_may_write),
		T(test_the_first_decision_stands),
		T(test_facts_and_the_hosts_name),
		T(test_all_or_none),
		T(test_what_returned_survives_kill_9),
		T(test_private_file_and_one_owner),
		T(test_garbage),
		T(test_damage_inside),
		T(test_written_by_a_newer_version),
		T(test_no_directory_and_no_file),
		T(test_read_only_file_system),
		T(test_full_disk),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
