/* SPDX-License-Identifier: Apache-2.0
 *
 * migrate_source.h - what the files of the source's half of a migration share beyond migrate.h: rows, and what is told to
 * them. Private to migrate_source.c (the table), migrate_ready.c, migrate_session.c, migrate_stream.c, migrate_says.c.
 */
#ifndef NOVA_MIGRATE_SOURCE_H
#define NOVA_MIGRATE_SOURCE_H

#include "migrate.h"

void nova_source_free(struct nova_job *job);

/* ---- migrate_ready.c: rows before the stream, and what takes them back ---- */
#define NOVA_SOURCE_ROW(name) \
	enum nova_step_result nova_source_##name(struct nova_run *run, void *job, struct nova_error *err)
NOVA_SOURCE_ROW(run_preflight);
NOVA_SOURCE_ROW(run_connect);
NOVA_SOURCE_ROW(undo_connect);
NOVA_SOURCE_ROW(run_reserve);
NOVA_SOURCE_ROW(undo_reserve);
NOVA_SOURCE_ROW(run_baseline);
NOVA_SOURCE_ROW(run_quiesce);
NOVA_SOURCE_ROW(undo_quiesce);
NOVA_SOURCE_ROW(run_open);
NOVA_SOURCE_ROW(run_close);
NOVA_SOURCE_ROW(run_cold_disks);
NOVA_SOURCE_ROW(undo_cold_disks);
NOVA_SOURCE_ROW(run_disks);
NOVA_SOURCE_ROW(undo_disks);
void nova_source_drop_baseline(struct nova_run *run, void *job);
/* The end of a request to the destination is the end of the row. */
void nova_source_answered(void *job, json_t *result, const struct nova_error *err);
bool nova_source_wants_baseline(const struct nova_job *job);

/* ---- migrate_stream.c ---- */
size_t nova_source_history_bytes(const struct nova_source *source);
/* source->path: where its socket is, or was when a daemon that is gone listened there. */
int nova_source_name_socket(struct nova_source *source, struct nova_error *err);

/* ---- migrate_says.c: what the guest's driver says, and the end ---- */
void nova_source_on_guest(struct nova_job *job, const char *event, json_t *data);
void nova_source_on_end(struct nova_job *job, enum nova_outcome outcome, const struct nova_error *err);
bool nova_source_again(struct nova_job *job, const struct nova_error *why);

#endif
