/* SPDX-License-Identifier: Apache-2.0
 *
 * store_salvage.c - a journal that cannot be used: damaged, not a database, of a newer version, out of reach.
 *
 * The daemon then works from a stand-in in memory (store.h), so that it goes on serving its guests. What the file still
 * says is read from a copy, row by row from both ends of each table, so that one bad page costs the rows on it; the file
 * itself is not opened for writing. An administrator ends that: mends the file, or renews the journal, which puts the
 * file aside and writes what the stand-in holds to a new one:
 *
 *   novacron.db.new       written and synced
 *   novacron.db.renewing  from here on a restart says that the renewal is to be run again
 *   novacron.db.TIME      second name of the old file, and -wal of its log; then the log's first name goes
 *   novacron.db           the new one takes the name
 *   novacron.db.renewing  gone: done
 *
 * Not here: who may ask for it and what is said about the guests (journal.c).
 */
#include "cleanup.h"
#include "steps.h"
#include "store_file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>

#define COPY_BYTES (64 << 10)

/* ---- one daemon per state directory ---- */

int nova_store_in_use(const struct nova_store *store, struct nova_error *err)
{
	return nova_error_set(
	    err, NOVA_REFUSED, "the journal %s is in use: does another daemon run on this state directory?", store->path);
}

int nova_store_lock(struct nova_store *store, const char *state_dir, struct nova_error *err)
{
	store->lock = open(state_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (store->lock < 0)
		return nova_error_sys(err, errno, "the journal %s cannot be opened (check the owner of its directory)", store->path);
	if (flock(store->lock, LOCK_EX | LOCK_NB) == 0)
		return 0;
	return errno == EWOULDBLOCK ? nova_store_in_use(store, err) :
				      nova_error_sys(err, errno, "the directory of the journal %s", store->path);
}

bool nova_store_may_stand_in(const struct nova_error *why)
{
	return why->category != NOVA_REFUSED && why->errnum != ENOMEM;
}

/* ---- names beside the file ---- */

static void beside(const struct nova_store *store, const char *suffix, char *path)
{
	snprintf(path, PATH_MAX, "%s%s", store->path, suffix);
}

int nova_store_renewal_ended(const struct nova_store *store, struct nova_error *err)
{
	char marker[PATH_MAX];

	beside(store, ".renewing", marker);
	if (access(marker, F_OK) < 0)
		return 0;
	return nova_error_set(err, NOVA_STATE,
	    "the renewal of the journal %s was interrupted: run novacron journal renew again (what it put aside is beside it)",
	    store->path);
}

/* ---- reading what is left ---- */

static int copy_file(const char *from, const char *to)
{
	NOVA_AUTOCLOSE int in = open(from, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	NOVA_AUTOCLOSE int out = in < 0 ? -1 : open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	NOVA_AUTOFREE char *bytes = malloc(COPY_BYTES);
	ssize_t got;

	if (in < 0 || out < 0 || !bytes)
		return -1;
	while ((got = read(in, bytes, COPY_BYTES)) > 0)
		if (write(out, bytes, (size_t)got) != got)
			return -1;
	return got < 0 ? -1 : 0;
}

static const struct {
	const char *name, *columns;
	int count;
	const char *key;
} tables[] = {
	{ "meta", "key,value", 2, "key" },
	{ "guests", "name,uuid,owner,driver,state,spec,runtime,needs,created_ms", 9, "name" },
	{ "jobs",
	    "number,kind,guest,peer,side,token,step,undoing,outcome,error,args,report,who,started_ms,ended_ms", 15,
	    "number" },
	{ "decisions", "token,decision", 2, "token" },
};
#define TABLES (sizeof(tables) / sizeof(*tables))

/* One row after the other; a row that the stand-in does not take (a key twice) is passed over. */
static void copy_rows(sqlite3_stmt *from, sqlite3_stmt *to, int columns)
{
	while (sqlite3_step(from) == SQLITE_ROW) {
		for (int i = 0; i < columns; i++)
			sqlite3_bind_value(to, i + 1, sqlite3_column_value(from, i));
		sqlite3_step(to);
		sqlite3_reset(to);
	}
}

static void salvage_table(struct nova_store *store, sqlite3 *copy, size_t table, const char *order)
{
	static const char marks[] = "?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?"; /* more than any table has columns */
	char select[512], insert[512];
	sqlite3_stmt *from = NULL, *to = NULL;

	snprintf(select, sizeof(select), "select %s from %s order by %s %s", tables[table].columns, tables[table].name,
	    tables[table].key, order);
	snprintf(insert, sizeof(insert), "insert or ignore into %s (%s) values (%.*s)", tables[table].name,
	    tables[table].columns, 2 * tables[table].count - 1, marks);
	if (sqlite3_prepare_v2(copy, select, -1, &from, NULL) == SQLITE_OK &&
	    sqlite3_prepare_v2(store->db, insert, -1, &to, NULL) == SQLITE_OK)
		copy_rows(from, to, tables[table].count);
	sqlite3_finalize(from);
	sqlite3_finalize(to);
}

/* Rows that a bad page made nonsense of: what is no specification is no guest. */
static const char *const sift[] = {
	("delete from guests where name is null or driver is null or uuid is null or "
	 "case when json_valid(spec) then json_type(spec)<>'object' else 1 end"),
	"update guests set runtime='{}' where case when json_valid(runtime) then json_type(runtime)<>'object' else 1 end",
	"update guests set needs='{}' where case when json_valid(needs) then json_type(needs)<>'object' else 1 end",
	"delete from jobs where kind is null or started_ms is null or ended_ms is null",
	"update jobs set report='{}' where not json_valid(report)",
	"update jobs set args='{}' where not json_valid(args)",
	"delete from decisions where token is null or decision not in ('committed','aborted')",
	"delete from meta where key='host-uuid' and length(value)<>36",
};

static void salvage_from(struct nova_store *store, const char *path)
{
	sqlite3 *copy = NULL;

	if (sqlite3_open_v2(path, &copy, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL) == SQLITE_OK) {
		sqlite3_exec(copy, "pragma trusted_schema=off; pragma cell_size_check=on; pragma locking_mode=exclusive", NULL,
		    NULL, NULL);
		for (size_t i = 0; i < TABLES; i++) {
			salvage_table(store, copy, i, "asc");
			salvage_table(store, copy, i, "desc");
		}
	}
	sqlite3_close(copy);
	for (size_t i = 0; i < sizeof(sift) / sizeof(*sift); i++)
		sqlite3_exec(store->db, sift[i], NULL, NULL, NULL);
}

void nova_store_salvage(struct nova_store *store, const char *scratch_dir)
{
	static const char *const suffixes[] = { "", "-wal", "-shm" };
	char from[PATH_MAX], to[PATH_MAX];
	NOVA_AUTOFREE char *scratch = NULL;

	if (asprintf(&scratch, "%s/journal-copy.db", scratch_dir) < 0) {
		scratch = NULL;
		return;
	}
	snprintf(to, sizeof(to), "%s-wal", scratch);
	beside(store, "-wal", from);
	copy_file(from, to); /* there may be none */
	if (copy_file(store->path, scratch) == 0)
		salvage_from(store, scratch);
	for (size_t i = 0; i < 3; i++) {
		snprintf(to, sizeof(to), "%s%s", scratch, suffixes[i]);
		unlink(to);
	}
}

/* ---- renewing ---- */

static int run(struct nova_store *store, struct nova_error *err, const char *sql, const char *text, int64_t number)
{
	sqlite3_stmt *statement = NULL;
	int code = sqlite3_prepare_v2(store->db, sql, -1, &statement, NULL);

	if (code == SQLITE_OK && sqlite3_bind_parameter_count(statement) > 0)
		sqlite3_bind_text(statement, 1, text, -1, SQLITE_TRANSIENT);
	if (code == SQLITE_OK && sqlite3_bind_parameter_count(statement) > 1)
		sqlite3_bind_int64(statement, 2, number);
	if (code == SQLITE_OK)
		code = sqlite3_step(statement);
	sqlite3_finalize(statement);
	if (code == SQLITE_DONE || code == SQLITE_ROW)
		return 0;
	return nova_error_set(err, NOVA_SYSTEM, "the new journal cannot be written beside %s: %s", store->path,
	    sqlite3_errmsg(store->db));
}

static int sync_path(const char *path)
{
	NOVA_AUTOCLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);

	return fd < 0 ? -1 : fsync(fd);
}

static int write_new(struct nova_store *store, const char *name, const char *aside, struct nova_error *err)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	unlink(name);
	if (nova_store_meta_set(store, "renewed", aside, err) < 0 ||
	    run(store, err,
		"update jobs set outcome=?1, ended_ms=?2, step='', error='the journal was renewed before it had ended: see the "
		"guest''s state' where ended_ms=0",
		nova_outcome_name(NOVA_UNDO_FAILED), (int64_t)now.tv_sec * 1000) < 0 ||
	    run(store, err, "vacuum into ?1", name, 0) < 0)
		return -1;
	if (chmod(name, 0600) < 0 || sync_path(name) < 0)
		return nova_error_sys(err, errno, "the new journal %s", name);
	return 0;
}

/* A second name first, so that no step in between leaves the bytes without any. */
static int second_name(const char *from, const char *to, struct nova_error *err)
{
	if (link(from, to) == 0 || errno == ENOENT)
		return 0;
	return nova_error_sys(err, errno, "%s cannot be put aside as %s", from, to);
}

static int change_places(struct nova_store *store, const char *name, const char *aside, struct nova_error *err)
{
	char marker[PATH_MAX], log[PATH_MAX], log_aside[PATH_MAX];
	NOVA_AUTOCLOSE int fd = -1;

	beside(store, ".renewing", marker);
	beside(store, "-wal", log);
	snprintf(log_aside, sizeof(log_aside), "%s-wal", aside);
	if (second_name(store->path, aside, err) < 0 || second_name(log, log_aside, err) < 0)
		return -1;
	fd = open(marker, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0 || fsync(fd) < 0 || fsync(store->lock) < 0)
		return nova_error_sys(err, errno, "%s", marker);
	if ((unlink(log) < 0 && errno != ENOENT) || rename(name, store->path) < 0 || fsync(store->lock) < 0)
		return nova_error_sys(err, errno, "%s cannot take the place of %s", name, store->path);
	if (unlink(marker) < 0 || fsync(store->lock) < 0)
		return nova_error_sys(err, errno, "%s", marker);
	return 0;
}

/* Of the moment, and of a file that is not there yet. */
static void name_aside(const struct nova_store *store, char *aside)
{
	char suffix[64];
	time_t now = time(NULL);
	struct tm utc;

	gmtime_r(&now, &utc);
	strftime(suffix, sizeof(suffix), ".%Y%m%dT%H%M%SZ", &utc);
	beside(store, suffix, aside);
	for (int i = 2; access(aside, F_OK) == 0 && i < 1000; i++) {
		snprintf(suffix + strcspn(suffix, "Z") + 1, 8, ".%d", i);
		beside(store, suffix, aside);
	}
}

int nova_store_renew(struct nova_store **store, const char *state_dir, char *aside, struct nova_error *err)
{
	struct nova_store *renewed;
	char name[PATH_MAX];
	struct nova_error why;

	name_aside(*store, aside);
	beside(*store, ".new", name);
	if (write_new(*store, name, aside, err) < 0 || change_places(*store, name, aside, err) < 0)
		return -1;
	if (access(aside, F_OK) < 0)
		aside[0] = 0;
	flock((*store)->lock, LOCK_UN);
	renewed = nova_store_open(state_dir, &why);
	if (!renewed) {
		nova_error_copy(err, &why);
		if (flock((*store)->lock, LOCK_EX | LOCK_NB) < 0)
			nova_error_prefix(err, "the state directory is no longer locked");
		return -1;
	}
	nova_store_close(*store);
	*store = renewed;
	return 0;
}
