/* SPDX-License-Identifier: Apache-2.0
 *
 * fuzz_store.c - a journal that is not what we wrote. Input 'f' + bytes: the file itself; anything else: a good file in
 * whose tables these bytes stand, as texts and as JSON. Beyond not crashing: it is opened or refused with a reason, and
 * what is in it can be listed, changed and deleted, or refused with a reason.
 */
#include <sqlite3.h>

#include "engine/cleanup.h"
#include "engine/store.h"
#include "scratch.h"

static int seen_guest(void *arg, const struct nova_guest_row *row)
{
	json_t *spec = row->spec ? json_deep_copy(row->spec) : NULL;

	json_decref(spec);
	return row->name ? 0 : -1;
}

static int seen_job(void *arg, const struct nova_job_row *row)
{
	snprintf(arg, NOVA_JOB_ID_SIZE, "%s", row->id);
	return 0;
}

static void use(struct nova_store *store)
{
	struct nova_error err = { 0 };
	enum nova_decision decision;
	char id[NOVA_JOB_ID_SIZE] = "";
	const struct nova_guest_row row = { .name = "g", .state = "stopped" };

	nova_store_guests(store, NULL, seen_guest, NULL, &err);
	nova_store_jobs(store, NOVA_JOBS_ALL, seen_job, id, &err);
	nova_store_jobs(store, NOVA_JOBS_OPEN, seen_job, id, &err);
	nova_store_decision(store, "t", &decision, &err);
	if (nova_store_guest_put(store, &row, &err) < 0)
		require(err.text[0], "a refusal has a reason");
	if (id[0])
		nova_store_job_step(store, id, "s", true, &err);
	nova_store_decide(store, "t", NOVA_ABORTED, &err);
	nova_store_jobs_prune(store, 0, &err);
	nova_store_guest_delete(store, "g", &err);
}

static void fill(const char *path, const uint8_t *data, size_t size)
{
	static const char *const rows[] = {
		"insert or replace into guests values (?1,?1,?1,?1,?1,?1,?1,?1,?1)",
		"insert into jobs values (null,?1,?1,?1,?1,?1,?1,?1,?1,?1,?1,?1,?1,?1,0)",
		"insert or replace into decisions values ('t',?1)",
	};
	sqlite3 *db;
	sqlite3_stmt *statement;

	require(sqlite3_open(path, &db) == SQLITE_OK, "the file can be opened");
	sqlite3_exec(db, "pragma journal_mode=off", NULL, NULL, NULL);
	for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
		require(sqlite3_prepare_v2(db, rows[i], -1, &statement, NULL) == SQLITE_OK, "the schema is ours");
		sqlite3_bind_text(statement, 1, (const char *)data, (int)size, SQLITE_STATIC);
		sqlite3_step(statement);
		sqlite3_finalize(statement);
	}
	sqlite3_close(db);
}

static void remove_all(const char *path)
{
	static const char *const ends[] = { "", "-wal", "-shm", "-journal" };
	char name[192];

	for (size_t i = 0; i < sizeof(ends) / sizeof(*ends); i++) {
		snprintf(name, sizeof(name), "%s%s", path, ends[i]);
		unlink(name);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct nova_error err = { 0 };
	struct nova_store *store;
	char path[128];

	snprintf(path, sizeof(path), "%s/novacron.db", scratch());
	remove_all(path);
	if (size && data[0] == 'f') {
		scratch_write(path, data + 1, size - 1);
	} else {
		store = nova_store_open(scratch(), &err);
		require(store != NULL, "a new journal can be made");
		nova_store_close(store);
		fill(path, data, size);
	}
	store = nova_store_open(scratch(), &err);
	if (store)
		use(store);
	else
		require(err.text[0], "a refusal has a reason");
	nova_store_close(store);
	return 0;
}
