/* SPDX-License-Identifier: Apache-2.0
 *
 * migrate_dest.h - what the files of the destination's half of a migration share: migrate_incoming.c hears the source,
 * migrate_dest.c runs the rows, migrate_receive.c has the guest's stream. Private to them.
 */
#ifndef NOVA_MIGRATE_DEST_H
#define NOVA_MIGRATE_DEST_H

#include "estimate.h"
#include "migrate.h"
#include "migrate_baseline.h"
#include "pipe_child.h"

#include <string.h>

struct nova_incoming {
	TAILQ_ENTRY(nova_incoming) link;
	struct nova_host *host;          /* borrowed */
	const struct nova_link_ops *ops; /* static */
	struct nova_session *session;    /* owned */
	struct nova_job *job;            /* borrowed: the reservation made here */
	struct nova_remote *remote;      /* owned: commands came over it */
	struct nova_reception *reception; /* borrowed: a point of a replica that comes over it */
	char peer[NOVA_NAME_MAX + 1];    /* "": a user, who may have commands executed and nothing else */
};

struct nova_dest {
	struct nova_job *job;
	struct nova_incoming *incoming;       /* borrowed; NULL: the session is gone */
	struct nova_request *reserve, *commit, *abort; /* to be answered */
	json_t *commit_args;                  /* owned */
	struct nova_channel *channel;         /* owned until the pipe has it */
	struct nova_pipe *pipe;               /* owned; NULL: none yet, or a decoder */
	struct nova_pipe_child *decoder;      /* owned: instead, with sandbox-decoder */
	json_t *copies;                       /* owned: older copies of the guest's disks on this host */
	json_t *seeds;                        /* owned: those and what its replica holds; NULL: only those */
	char replica[33];                     /* that is being read; "": none */
	struct nova_disks_in *disks;          /* owned; NULL: none are carried */
	char *path;                           /* owned: where the guest's state goes */
	bool loaded, postcopy, cold, committed, arrived;
	bool ended;                           /* the guest did: nothing more can come */
	bool undeleted;                       /* what was prepared could not be taken down (yet) */
	struct nova_request *recover;         /* to be answered: the rest of a postcopy is about to come */
	struct nova_op *op;                   /* owned: the driver gets ready for it */
	json_t *direct;                       /* owned: where the guest waits for its stream; NULL: for ours */
	struct nova_base_use *base;           /* owned; NULL: not begun, or cold */
};

static inline const char *nova_text_of(const json_t *object, const char *name)
{
	const char *text = json_string_value(json_object_get(object, name));

	return text ? text : "";
}

/* ---- migrate_dest.c ---- */
extern const struct nova_step nova_dest_steps[];
struct nova_dest *nova_dest_of(struct nova_job *job); /* makes it */
/* Answers once: *request is NULL then. result is stolen. */
void nova_dest_answer(
    struct nova_dest *dest, struct nova_request **request, json_t *result, const struct nova_error *err);

/* Committed: the guest runs here, and waits for the rest of its memory. */
bool nova_dest_drains(const struct nova_job *job);

/* ---- migrate_seeds.c ---- */
enum nova_step_result nova_dest_run_seeds(struct nova_run *run, void *job, struct nova_error *err);
/* They are not read any more. */
void nova_dest_leave_seeds(struct nova_dest *dest);

/* ---- migrate_receive.c ---- */
bool nova_dest_streams(const struct nova_dest *dest);
bool nova_dest_may_commit(const struct nova_dest *dest);
/* Something arrived: is the row over? */
void nova_dest_look(struct nova_dest *dest);
/* dest->channel and the guest's socket, joined. */
int nova_dest_open_pipe(struct nova_dest *dest, struct nova_error *err);
int nova_dest_check_digest(struct nova_dest *dest, struct nova_error *err);
void nova_dest_stream_lost(struct nova_dest *dest, const struct nova_error *why);
int nova_dest_prepare_for_rest(struct nova_dest *dest, struct nova_error *err);

#endif
