/* SPDX-License-Identifier: Apache-2.0
 *
 * store_file.h - what store.c and store_salvage.c share: the open file, and what becomes of one that cannot be used.
 */
#ifndef NOVA_STORE_FILE_H
#define NOVA_STORE_FILE_H

#include "store.h"

#include <sqlite3.h>

struct nova_store {
	sqlite3 *db;   /* owned */
	char *path;    /* owned: of the file, also for a stand-in */
	char *refusal; /* owned: why this is a stand-in; NULL: it is none */
	int lock;      /* owned: the state directory, locked */
	char host_uuid[37];
};

/* What SQLite said last, as an error that says what to do. */
int nova_store_failed(struct nova_store *store, struct nova_error *err);
int nova_store_in_use(const struct nova_store *store, struct nova_error *err);
/* One daemon per state directory, whether its journal can be opened or not. */
int nova_store_lock(struct nova_store *store, const char *state_dir, struct nova_error *err);
/* 0 unless a renewal was interrupted, so that the file's place may hold a half of what there was. */
int nova_store_renewal_ended(const struct nova_store *store, struct nova_error *err);
/* Fill a stand-in with the rows that a copy of the file still gives. What cannot be read is not there. */
void nova_store_salvage(struct nova_store *store, const char *scratch_dir);

#endif
