/* SPDX-License-Identifier: Apache-2.0
 *
 * store.c - the journal and the inventory of store.h in SQLite. Every statement is prepared where it is
 * used: a row of a migration costs one transaction and one fsync, a few milliseconds, and there are about
 * ten of them. Not here: what the values mean.
 */
#include "store.h"
#include "cleanup.h"
#include "store_file.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>

#define SCHEMA_VERSION 2
#define HELP "stop the daemon and mend it (sqlite3 FILE .recover), or put it aside and begin a new one: novacron journal renew"

static const char *const decision_names[] = { "undecided", "committed", "aborted" };
static_assert(sizeof(decision_names) / sizeof(*decision_names) == NOVA_DECISIONS, "a name for each decision");

const char *nova_decision_name(enum nova_decision decision)
{
	return (unsigned)decision < NOVA_DECISIONS ? decision_names[decision] : "unknown";
}

int nova_store_failed(struct nova_store *store, struct nova_error *err)
{
	int code = sqlite3_errcode(store->db);
	const char *text = sqlite3_errmsg(store->db);

	if (code == SQLITE_CORRUPT || code == SQLITE_NOTADB)
		return nova_error_set(err, NOVA_STATE, "the journal %s is damaged (%s): %s", store->path, text, HELP);
	if (code == SQLITE_FULL)
		return nova_error_set(err, NOVA_STATE, "the journal %s cannot be written (%s): free some space", store->path, text);
	if (code == SQLITE_READONLY || code == SQLITE_CANTOPEN || code == SQLITE_PERM)
		return nova_error_set(err, NOVA_STATE, "the journal %s cannot be written (%s): check the owner of its directory, and whether the file system is read-only",
		    store->path, text);
	if (code == SQLITE_BUSY || code == SQLITE_LOCKED)
		return nova_store_in_use(store, err);
	return nova_error_set(err, NOVA_STATE, "the journal %s: %s", store->path, text);
}

/* A stand-in takes down what the guests are, and nothing that must outlive the process. */
static int refused(const struct nova_store *store, struct nova_error *err)
{
	return nova_error_set(err, NOVA_STATE, "%s", store->refusal);
}

/* ---- statements ---- */

/* types: s text, i int64, j JSON; NULL texts and values become NULL. */
static int bind_all(struct nova_store *store, sqlite3_stmt *statement, const char *types, va_list ap)
{
	for (int i = 0; types[i]; i++) {
		int code = SQLITE_OK;

		if (types[i] == 'i')
			code = sqlite3_bind_int64(statement, i + 1, va_arg(ap, int64_t));
		else if (types[i] == 's')
			code = sqlite3_bind_text(statement, i + 1, va_arg(ap, const char *), -1, SQLITE_TRANSIENT);
		else {
			json_t *value = va_arg(ap, json_t *);
			char *text = value ? json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY) : NULL;

			/* Without memory nothing is written, rather than nothing in its place. */
			code = value && !text ? SQLITE_NOMEM : sqlite3_bind_text(statement, i + 1, text, -1, free);
		}
		if (code != SQLITE_OK)
			return code;
	}
	return SQLITE_OK;
}

static sqlite3_stmt *prepare(struct nova_store *store, const char *sql, const char *types, va_list ap,
    struct nova_error *err)
{
	sqlite3_stmt *statement = NULL;
	int code = sqlite3_prepare_v2(store->db, sql, -1, &statement, NULL);

	if (code == SQLITE_OK)
		code = bind_all(store, statement, types, ap);
	if (code == SQLITE_OK)
		return statement;
	if (code == SQLITE_NOMEM)
		nova_error_sys(err, ENOMEM, "the journal %s", store->path);
	else
		nova_store_failed(store, err);
	sqlite3_finalize(statement);
	return NULL;
}

static int execute(struct nova_store *store, struct nova_error *err, const char *sql, const char *types, ...)
{
	sqlite3_stmt *statement;
	va_list ap;
	int code;

	va_start(ap, types);
	statement = prepare(store, sql, types, ap, err);
	va_end(ap);
	if (!statement)
		return -1;
	code = sqlite3_step(statement);
	if (code != SQLITE_DONE && code != SQLITE_ROW)
		nova_store_failed(store, err);
	sqlite3_finalize(statement);
	return code == SQLITE_DONE || code == SQLITE_ROW ? 0 : -1;
}

typedef int (*row_fn)(sqlite3_stmt *statement, void *fn, void *arg);

/* Rows are collected by the callback while the statement is open: it may write to the store. */
static int query(struct nova_store *store, struct nova_error *err, row_fn row, void *fn, void *arg, const char *sql,
    const char *types, ...)
{
	sqlite3_stmt *statement;
	va_list ap;
	int code, result = 0;

	va_start(ap, types);
	statement = prepare(store, sql, types, ap, err);
	va_end(ap);
	if (!statement)
		return -1;
	while ((code = sqlite3_step(statement)) == SQLITE_ROW && result == 0)
		result = row(statement, fn, arg);
	if (code != SQLITE_DONE && code != SQLITE_ROW)
		result = nova_store_failed(store, err);
	sqlite3_finalize(statement);
	return result;
}

static const char *column(sqlite3_stmt *statement, int i)
{
	return (const char *)sqlite3_column_text(statement, i);
}

static json_t *column_json(sqlite3_stmt *statement, int i)
{
	const char *text = column(statement, i);

	return text ? json_loads(text, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL) : NULL;
}

/* ---- opening ---- */

static const char *const schema[] = {
	"create table if not exists meta (key text primary key, value text) without rowid",
	"create table if not exists guests (name text primary key, uuid text, owner text, driver text, state text, "
	"spec text, runtime text, needs text, created_ms integer) without rowid",
	"create table if not exists jobs (number integer primary key autoincrement, kind text, guest text, peer text, "
	"side text, token text, step text, undoing integer, outcome text, error text, args text, report text, who text, "
	"started_ms integer, ended_ms integer)",
	"create index if not exists jobs_token on jobs (token)",
	"create table if not exists decisions (token text primary key, decision text) without rowid",
	"create table if not exists replicas (key text primary key, body text) without rowid",
};

static int pragma_row(sqlite3_stmt *statement, void *fn, void *arg)
{
	snprintf(arg, 64, "%s", column(statement, 0));
	return -2; /* the first row is all we want */
}

static int check_file(struct nova_store *store, struct nova_error *err)
{
	char answer[64] = "";

	if (query(store, err, pragma_row, NULL, answer, "pragma quick_check(1)", "") == -1)
		return -1;
	if (strcmp(answer, "ok"))
		return nova_error_set(err, NOVA_STATE, "the journal %s is damaged (%s): %s", store->path, answer, HELP);
	if (query(store, err, pragma_row, NULL, answer, "pragma user_version", "") == -1)
		return -1;
	if (atoi(answer) > SCHEMA_VERSION)
		return nova_error_set(err, NOVA_STATE,
		    "the journal %s was written by a newer version (schema %s, this one knows %d): start that version again, or "
		    "put the file aside and begin a new one: novacron journal renew",
		    store->path, answer, SCHEMA_VERSION);
	return 0;
}

int nova_store_check(struct nova_store *store, struct nova_error *err)
{
	if (store->refusal)
		return refused(store, err);
	return check_file(store, err);
}

/* A file that has its schema already is not written to: its disk may be full, and is then no reason not to start. */
static int make_schema(struct nova_store *store, struct nova_error *err)
{
	char version[64] = "";

	if (execute(store, err, "pragma journal_mode=wal", "") < 0 || execute(store, err, "pragma synchronous=full", "") < 0)
		return -1;
	if (query(store, err, pragma_row, NULL, version, "pragma user_version", "") == -1)
		return -1;
	if (atoi(version) == SCHEMA_VERSION)
		return 0;
	if (nova_store_begin(store, err) < 0)
		return -1;
	for (size_t i = 0; i < sizeof(schema) / sizeof(*schema); i++)
		if (execute(store, err, schema[i], "") < 0) {
			nova_store_end(store, false, NULL);
			return -1;
		}
	snprintf(version, sizeof(version), "pragma user_version=%d", SCHEMA_VERSION);
	if (execute(store, err, version, "") < 0) {
		nova_store_end(store, false, NULL);
		return -1;
	}
	return nova_store_end(store, true, err);
}

static int load_uuid(struct nova_store *store, struct nova_error *err)
{
	struct nova_error none = { 0 };
	NOVA_AUTOFREE char *known = nova_store_meta_get(store, "host-uuid", &none);
	unsigned char b[16];

	if (known) {
		snprintf(store->host_uuid, sizeof(store->host_uuid), "%s", known);
		return 0;
	}
	if (none.category != NOVA_OK)
		return nova_error_copy(err, &none);
	if (getrandom(b, sizeof(b), 0) != sizeof(b))
		return nova_error_sys(err, errno, "random bytes");
	b[6] = (b[6] & 0x0f) | 0x40;
	b[8] = (b[8] & 0x3f) | 0x80;
	snprintf(store->host_uuid, sizeof(store->host_uuid),
	    "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", b[0], b[1], b[2], b[3], b[4], b[5], b[6],
	    b[7], b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]);
	return nova_store_meta_set(store, "host-uuid", store->host_uuid, err);
}

/* One daemon per state directory: an exclusive lock stays for as long as the file is open. */
static int open_file(struct nova_store *store, struct nova_error *err)
{
	int fd = open(store->path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);

	if (fd < 0)
		return nova_error_sys(err, errno,
		    "the journal %s cannot be opened (check the owner of its directory, and whether the file system is full "
		    "or read-only)",
		    store->path);
	if (fchmod(fd, 0600) < 0) {
		close(fd);
		return nova_error_sys(err, errno, "the journal %s cannot be made private", store->path);
	}
	close(fd);
	if (sqlite3_open_v2(store->path, &store->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL) != SQLITE_OK)
		return store->db ? nova_store_failed(store, err) : nova_error_sys(err, ENOMEM, "the journal");
	return execute(store, err, "pragma locking_mode=exclusive", "");
}

static struct nova_store *new_store(const char *state_dir, struct nova_error *err)
{
	struct nova_store *store = calloc(1, sizeof(*store));

	if (store && asprintf(&store->path, "%s/novacron.db", state_dir) < 0)
		store->path = NULL;
	if (store && store->path) {
		store->lock = -1;
		return store;
	}
	free(store);
	nova_error_sys(err, ENOMEM, "the journal");
	return NULL;
}

struct nova_store *nova_store_open(const char *state_dir, struct nova_error *err)
{
	struct nova_store *store = new_store(state_dir, err);

	if (!store)
		return NULL;
	if (nova_store_lock(store, state_dir, err) == 0 && nova_store_renewal_ended(store, err) == 0 &&
	    open_file(store, err) == 0 && check_file(store, err) == 0 && make_schema(store, err) == 0 &&
	    load_uuid(store, err) == 0)
		return store;
	return nova_store_close(store);
}

struct nova_store *nova_store_stand_in(
    const char *state_dir, const char *scratch_dir, const struct nova_error *why, struct nova_error *err)
{
	struct nova_store *store = new_store(state_dir, err);

	if (!store)
		return NULL;
	if (nova_store_lock(store, state_dir, err) < 0)
		return nova_store_close(store);
	if (sqlite3_open(":memory:", &store->db) != SQLITE_OK || make_schema(store, err) < 0) {
		nova_error_sys(err, ENOMEM, "a stand-in for the journal");
		return nova_store_close(store);
	}
	nova_store_salvage(store, scratch_dir);
	if (load_uuid(store, err) < 0)
		return nova_store_close(store);
	if (asprintf(&store->refusal, "no new work, guests go on as they are: %s", why->text) < 0) {
		store->refusal = NULL;
		nova_error_sys(err, ENOMEM, "a stand-in for the journal");
		return nova_store_close(store);
	}
	return store;
}

const char *nova_store_path(const struct nova_store *store)
{
	return store->path;
}

const char *nova_store_refusal(const struct nova_store *store)
{
	return store->refusal;
}

struct nova_store *nova_store_close(struct nova_store *store)
{
	if (!store)
		return NULL;
	sqlite3_close(store->db);
	if (store->lock >= 0)
		close(store->lock);
	free(store->path);
	free(store->refusal);
	free(store);
	return NULL;
}

const char *nova_store_host_uuid(const struct nova_store *store)
{
	return store->host_uuid;
}

/* ---- guests ---- */

int nova_store_guest_put(struct nova_store *store, const struct nova_guest_row *row, struct nova_error *err)
{
	return execute(store, err, "insert or replace into guests values (?,?,?,?,?,?,?,?,?)", "sssssjjji", row->name,
	    row->uuid, row->owner, row->driver, row->state, row->spec, row->runtime, row->needs, row->created_ms);
}

int nova_store_guest_delete(struct nova_store *store, const char *name, struct nova_error *err)
{
	return execute(store, err, "delete from guests where name=?", "s", name);
}

static int guest_row(sqlite3_stmt *statement, void *fn, void *arg)
{
	NOVA_AUTOJSON json_t *spec = column_json(statement, 5), *runtime = column_json(statement, 6),
			     *needs = column_json(statement, 7);
	const struct nova_guest_row row = {
		.name = column(statement, 0),
		.uuid = column(statement, 1),
		.owner = column(statement, 2),
		.driver = column(statement, 3),
		.state = column(statement, 4),
		.spec = spec,
		.runtime = runtime,
		.needs = needs,
		.created_ms = sqlite3_column_int64(statement, 8),
	};

	return ((nova_guest_row_fn)fn)(arg, &row);
}

int nova_store_guests(
    struct nova_store *store, const char *name, nova_guest_row_fn fn, void *arg, struct nova_error *err)
{
	return query(store, err, guest_row, fn, arg, "select * from guests where ?1 is null or name=?1 order by name", "s",
	    name);
}

/* ---- jobs ---- */

int nova_store_job_new(struct nova_store *store, const struct nova_job_row *row, char id[NOVA_JOB_ID_SIZE],
    struct nova_error *err)
{
	if (store->refusal)
		return refused(store, err);
	if (execute(store, err,
		"insert into jobs (kind,guest,peer,side,token,step,undoing,outcome,error,args,report,who,started_ms,ended_ms) "
		"values (?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
		"ssssssissjjsii", row->kind, row->guest, row->peer, row->side, row->token, row->step, (int64_t)row->undoing,
		row->outcome, row->error, row->args, row->report, row->who, row->started_ms, row->ended_ms) < 0)
		return -1;
	snprintf(id, NOVA_JOB_ID_SIZE, "j%lld", (long long)sqlite3_last_insert_rowid(store->db));
	return 0;
}

/* "j12" -> 12; 0 for anything else. */
static int64_t number_of(const char *id)
{
	char *rest;
	long long number;

	if (!id || id[0] != 'j' || id[1] < '1' || id[1] > '9')
		return 0;
	number = strtoll(id + 1, &rest, 10);
	return *rest ? 0 : number;
}

static int need_change(struct nova_store *store, const char *id, struct nova_error *err)
{
	return sqlite3_changes(store->db) ? 0 : nova_error_set(err, NOVA_STATE, "there is no job %s in the journal", id);
}

int nova_store_job_put(struct nova_store *store, const struct nova_job_row *row, struct nova_error *err)
{
	if (store->refusal)
		return refused(store, err);
	if (execute(store, err,
		"update jobs set kind=?,guest=?,peer=?,side=?,token=?,step=?,undoing=?,outcome=?,error=?,args=?,report=?,who=?,"
		"started_ms=?,ended_ms=? where number=?",
		"ssssssissjjsiii", row->kind, row->guest, row->peer, row->side, row->token, row->step, (int64_t)row->undoing,
		row->outcome, row->error, row->args, row->report, row->who, row->started_ms, row->ended_ms,
		number_of(row->id)) < 0)
		return -1;
	return need_change(store, row->id, err);
}

int nova_store_job_step(
    struct nova_store *store, const char *id, const char *step, bool undoing, struct nova_error *err)
{
	if (store->refusal)
		return refused(store, err);
	if (execute(store, err, "update jobs set step=?,undoing=? where number=?", "sii", step, (int64_t)undoing,
		number_of(id)) < 0)
		return -1;
	return need_change(store, id, err);
}

int nova_store_job_end(struct nova_store *store, const char *id, const char *outcome, const char *error, json_t *report,
    int64_t ended_ms, struct nova_error *err)
{
	if (store->refusal)
		return refused(store, err);
	if (execute(store, err,
		"update jobs set outcome=?,error=?,report=coalesce(?,report),ended_ms=?,step='' where number=?", "ssjii",
		outcome, error, report, ended_ms, number_of(id)) < 0)
		return -1;
	return need_change(store, id, err);
}

static int job_row(sqlite3_stmt *statement, void *fn, void *arg)
{
	NOVA_AUTOJSON json_t *args = column_json(statement, 10), *report = column_json(statement, 11);
	char id[NOVA_JOB_ID_SIZE];
	const struct nova_job_row row = {
		.id = id,
		.kind = column(statement, 1),
		.guest = column(statement, 2),
		.peer = column(statement, 3),
		.side = column(statement, 4),
		.token = column(statement, 5),
		.step = column(statement, 6),
		.undoing = sqlite3_column_int(statement, 7),
		.outcome = column(statement, 8),
		.error = column(statement, 9),
		.args = args,
		.report = report,
		.who = column(statement, 12),
		.started_ms = sqlite3_column_int64(statement, 13),
		.ended_ms = sqlite3_column_int64(statement, 14),
	};

	snprintf(id, sizeof(id), "j%lld", (long long)sqlite3_column_int64(statement, 0));
	return ((nova_job_row_fn)fn)(arg, &row);
}

int nova_store_jobs(struct nova_store *store, enum nova_job_filter filter, nova_job_row_fn fn, void *arg,
    struct nova_error *err)
{
	return query(store, err, job_row, fn, arg,
	    "select * from jobs where ?1=0 or (?1=1 and ended_ms=0) or (?1=2 and ended_ms<>0) order by number", "i",
	    (int64_t)filter);
}

int nova_store_job_find(struct nova_store *store, const char *id, const char *token, nova_job_row_fn fn, void *arg,
    struct nova_error *err)
{
	return query(store, err, job_row, fn, arg,
	    "select * from jobs where (?1=0 or number=?2) and (?3 is null or token=?3) order by number", "iis",
	    (int64_t)(id != NULL), number_of(id), token);
}

int nova_store_jobs_prune(struct nova_store *store, unsigned keep, struct nova_error *err)
{
	return execute(store, err,
	    "delete from jobs where ended_ms<>0 and outcome is not 'in-doubt' and number not in "
	    "(select number from jobs where ended_ms<>0 order by number desc limit ?)",
	    "i", (int64_t)keep);
}

/* ---- decisions ---- */

static int decision_row(sqlite3_stmt *statement, void *fn, void *arg)
{
	for (enum nova_decision decision = 0; decision < NOVA_DECISIONS; decision++)
		if (!strcmp(column(statement, 0), decision_names[decision]))
			*(enum nova_decision *)arg = decision;
	return 0;
}

int nova_store_decision(
    struct nova_store *store, const char *token, enum nova_decision *decision, struct nova_error *err)
{
	*decision = NOVA_UNDECIDED;
	if (store->refusal)
		return refused(store, err);
	return query(
	    store, err, decision_row, NULL, decision, "select decision from decisions where token=?", "s", token);
}

int nova_store_decide(
    struct nova_store *store, const char *token, enum nova_decision decision, struct nova_error *err)
{
	enum nova_decision stands;

	assert(decision == NOVA_COMMITTED || decision == NOVA_ABORTED);
	if (store->refusal)
		return refused(store, err);
	if (execute(store, err, "insert or ignore into decisions values (?,?)", "ss", token, decision_names[decision]) < 0 ||
	    nova_store_decision(store, token, &stands, err) < 0)
		return -1;
	if (stands == decision)
		return 0;
	return nova_error_set(err, NOVA_STATE, "migration %s is decided already: %s", token, decision_names[stands]);
}

int nova_store_decision_forget(struct nova_store *store, const char *token, struct nova_error *err)
{
	return execute(store, err, "delete from decisions where token=?", "s", token);
}

/* ---- replicas ---- */

int nova_store_replica_put(struct nova_store *store, const char *key, json_t *body, struct nova_error *err)
{
	return execute(store, err, "insert or replace into replicas values (?,?)", "sj", key, body);
}

int nova_store_replica_delete(struct nova_store *store, const char *key, struct nova_error *err)
{
	return execute(store, err, "delete from replicas where key=?", "s", key);
}

static int replica_row(sqlite3_stmt *statement, void *fn, void *arg)
{
	NOVA_AUTOJSON json_t *body = column_json(statement, 1);

	return ((nova_replica_row_fn)fn)(arg, column(statement, 0), body);
}

int nova_store_replicas(struct nova_store *store, nova_replica_row_fn fn, void *arg, struct nova_error *err)
{
	return query(store, err, replica_row, (void *)fn, arg, "select key, body from replicas order by key", "");
}

/* ---- facts and transactions ---- */

int nova_store_meta_set(struct nova_store *store, const char *key, const char *value, struct nova_error *err)
{
	return execute(store, err, "insert or replace into meta values (?,?)", "ss", key, value);
}

static int meta_row(sqlite3_stmt *statement, void *fn, void *arg)
{
	*(char **)arg = column(statement, 0) ? strdup(column(statement, 0)) : NULL;
	return 0;
}

char *nova_store_meta_get(struct nova_store *store, const char *key, struct nova_error *err)
{
	char *value = NULL;

	if (err)
		err->category = NOVA_OK; /* tells "none" from a failure */
	if (query(store, err, meta_row, NULL, &value, "select value from meta where key=?", "s", key) < 0) {
		free(value);
		return NULL;
	}
	return value;
}

int nova_store_begin(struct nova_store *store, struct nova_error *err)
{
	return execute(store, err, "begin immediate", "");
}

int nova_store_end(struct nova_store *store, bool commit, struct nova_error *err)
{
	return execute(store, err, commit ? "commit" : "rollback", "");
}
