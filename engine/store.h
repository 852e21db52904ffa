/* SPDX-License-Identifier: Apache-2.0
 *
 * store.h - the journal and the inventory: one SQLite file below the state directory.
 *
 * Every write is on the disk when the call returns (WAL, synchronous=FULL): that is what lets the journal
 * be written before the act. One process has the file open at a time. JSON values are dumped and loaded,
 * never interpreted. Strings in rows may be NULL where nothing is known; they read back as NULL.
 */
#ifndef NOVA_STORE_H
#define NOVA_STORE_H

#include "novacron.h"

struct nova_store;

/* Open STATE_DIR/novacron.db (made 0600 if it is not there; the directory must exist), check it and bring
 * its schema up to date. Errors say what to do. */
struct nova_store *nova_store_open(const char *state_dir, struct nova_error *err);
struct nova_store *nova_store_close(struct nova_store *store);

/* The identity of this host, made at the first open: 36 characters. Borrowed. */
const char *nova_store_host_uuid(const struct nova_store *store);

/* Is the file sound? Errors say what is not. Reads all of it: some ms. */
int nova_store_check(struct nova_store *store, struct nova_error *err);

/* ---- a journal that cannot be used --------------------------------------------------------------- */

/* After nova_store_open() failed with `why`: would a stand-in do (false: the journal belongs to another daemon, or
 * there is no memory)? */
bool nova_store_may_stand_in(const struct nova_error *why);
/* A store in memory with what a copy of the file (made below scratch_dir, removed again) still says; the file itself is
 * left as it is. Guests and facts can be written and are gone with the process; jobs and decisions are refused with
 * NOVA_STATE and the reason. */
struct nova_store *nova_store_stand_in(
    const char *state_dir, const char *scratch_dir, const struct nova_error *why, struct nova_error *err);
/* Of the file. Borrowed. */
const char *nova_store_path(const struct nova_store *store);
/* The reason, or NULL for a store that is no stand-in. Borrowed. */
const char *nova_store_refusal(const struct nova_store *store);
/* Put the file aside, never deleted, and a new journal with what the stand-in holds in its place; jobs that had not
 * ended end as "undo-failed". *store is the new one then. aside (PATH_MAX bytes) gets the name of the old file; it is
 * empty if there was none. Its fact "renewed" is
 * that name. On failure the stand-in stays, and the old file with it; what was begun is begun again by the next call. */
int nova_store_renew(struct nova_store **store, const char *state_dir, char *aside, struct nova_error *err);

/* ---- guests ------------------------------------------------------------------------------------- */

/* As an argument everything is borrowed; in a row callback everything is gone after the call (json_incref
 * what is to stay). */
struct nova_guest_row {
	const char *name; /* key */
	const char *uuid;
	const char *owner;
	const char *driver;
	const char *state;
	json_t *spec;
	json_t *runtime;
	json_t *needs; /* what admission counts */
	int64_t created_ms; /* since the epoch */
};
/* -1 stops the list, and is what the list returns then. */
typedef int (*nova_guest_row_fn)(void *arg, const struct nova_guest_row *row);

/* Insert or replace. */
int nova_store_guest_put(struct nova_store *store, const struct nova_guest_row *row, struct nova_error *err);
/* A guest that is not there is fine. */
int nova_store_guest_delete(struct nova_store *store, const char *name, struct nova_error *err);
/* All, by name; with name only that one (none: no call). */
int nova_store_guests(
    struct nova_store *store, const char *name, nova_guest_row_fn fn, void *arg, struct nova_error *err);

/* ---- jobs: the journal -------------------------------------------------------------------------- */

#define NOVA_JOB_ID_SIZE 24

struct nova_job_row {
	const char *id;   /* key: "j1", "j2", ... never used twice */
	const char *kind; /* "migrate", ... */
	const char *guest;
	const char *peer;
	const char *side;  /* "source", "destination" or "local" */
	const char *token; /* what both sides call this migration */
	const char *step;  /* row that runs or is undone */
	bool undoing;
	const char *outcome; /* NULL: not ended */
	const char *error;
	json_t *args;
	json_t *report;
	const char *who;
	int64_t started_ms;
	int64_t ended_ms; /* 0: not ended */
};
typedef int (*nova_job_row_fn)(void *arg, const struct nova_job_row *row);

/* Write a new job; row->id is not read. id gets its name. */
int nova_store_job_new(struct nova_store *store, const struct nova_job_row *row, char id[NOVA_JOB_ID_SIZE],
    struct nova_error *err);
/* Replace a job's row; NOVA_STATE if there is none. */
int nova_store_job_put(struct nova_store *store, const struct nova_job_row *row, struct nova_error *err);
/* The journal's line: this row is about to run or to be undone. */
int nova_store_job_step(
    struct nova_store *store, const char *id, const char *step, bool undoing, struct nova_error *err);
/* The end of a job; error and report may be NULL. */
int nova_store_job_end(struct nova_store *store, const char *id, const char *outcome, const char *error,
    json_t *report, int64_t ended_ms, struct nova_error *err);
enum nova_job_filter {
	NOVA_JOBS_ALL,
	NOVA_JOBS_OPEN,
	NOVA_JOBS_ENDED
};
/* Oldest first. */
int nova_store_jobs(struct nova_store *store, enum nova_job_filter filter, nova_job_row_fn fn, void *arg,
    struct nova_error *err);
/* Those of one id or token (either may be NULL), oldest first. */
int nova_store_job_find(struct nova_store *store, const char *id, const char *token, nova_job_row_fn fn,
    void *arg, struct nova_error *err);
/* Delete all ended jobs but the newest `keep`; an ended job whose outcome is "in-doubt" stays. */
int nova_store_jobs_prune(struct nova_store *store, unsigned keep, struct nova_error *err);

/* ---- decisions: the point of no return ----------------------------------------------------------- */

enum nova_decision {
	NOVA_UNDECIDED,
	NOVA_COMMITTED,
	NOVA_ABORTED,
	NOVA_DECISIONS
};
const char *nova_decision_name(enum nova_decision decision);

/* Write the decision before the act. The first one stands: the same again is fine, another one is NOVA_STATE
 * naming the one that stands. */
int nova_store_decide(
    struct nova_store *store, const char *token, enum nova_decision decision, struct nova_error *err);
/* *decision is NOVA_UNDECIDED if nothing was written. */
int nova_store_decision(
    struct nova_store *store, const char *token, enum nova_decision *decision, struct nova_error *err);
/* Nobody will ask any more. */
int nova_store_decision_forget(struct nova_store *store, const char *token, struct nova_error *err);

/* ---- replicas: what is replicated from here, and what is kept here for others --------------------- */

/* Insert or replace; key and body are borrowed. */
int nova_store_replica_put(struct nova_store *store, const char *key, json_t *body, struct nova_error *err);
/* One that is not there is fine. */
int nova_store_replica_delete(struct nova_store *store, const char *key, struct nova_error *err);
/* -1 stops, and is the answer then. */
typedef int (*nova_replica_row_fn)(void *arg, const char *key, json_t *body);
int nova_store_replicas(struct nova_store *store, nova_replica_row_fn fn, void *arg, struct nova_error *err);

/* ---- a few facts by key -------------------------------------------------------------------------- */

int nova_store_meta_set(struct nova_store *store, const char *key, const char *value, struct nova_error *err);
/* The value (caller frees), or NULL: *err is filled only if reading failed, its category is NOVA_OK if there
 * is none. */
char *nova_store_meta_get(struct nova_store *store, const char *key, struct nova_error *err);

/* Several writes as one: all or none. Not nested. commit false takes them back. */
int nova_store_begin(struct nova_store *store, struct nova_error *err);
int nova_store_end(struct nova_store *store, bool commit, struct nova_error *err);

#endif
