/* SPDX-License-Identifier: Apache-2.0
 *
 * migrate.h - what the source's and the destination's half of a migration share. Private to engine/.
 *
 * The conversation, over one session that the source dials (requests of the control channel):
 *
 *   source                                   destination
 *   reserve {token, guest, spec, ...}   ->   admit, prepare a paused guest; the answer is the reservation
 *   channel 1 (STREAM)                  =>   the guest's state, both directions through the codec
 *   commit {token, digest, raw_bytes}   ->   compare, write the decision, let it run; the answer says so
 *   abort {token}                       ->   undo; the answer comes when nothing is left
 *                       failed {token}  <-   the destination had to give up
 *   outcome {token}                     ->   what was decided; undecided becomes aborted first
 *   recover {token}                     ->   a new session, the stream of a postcopy was lost: the guest's hypervisor
 *                                            waits for the rest; or the answer is {complete}: it had all
 *   channel 1 (STREAM)                  =>   the rest
 *
 * The destination alone decides: its journal's entry for the token is the point of no return. So only a
 * source that has sent commit and lost the answer can be in doubt, and it can ask.
 */
#ifndef NOVA_MIGRATE_H
#define NOVA_MIGRATE_H

#include "converge.h"
#include "host.h"
#include "pipe.h"

#define NOVA_STREAM_CHANNEL 1
#define NOVA_TICK_MS 100            /* between two looks at a running migration */
#define NOVA_PROGRESS_MS 250        /* between two JOB_PROGRESS events */
#define NOVA_SWITCH_RESUME_MS 10000 /* redial limit while the guest is paused */

/* ---- the source's half ---- */

struct nova_doubt;
struct nova_rejoin;

struct nova_source {
	struct nova_job *job;             /* borrowed */
	const struct nova_link_ops *ops;  /* static */
	struct nova_session *session;     /* owned */
	struct nova_pipe *pipe;           /* owned */
	int listen_fd;                    /* owned */
	struct event *listening;          /* owned: QEMU is expected on listen_fd */
	char *path;                       /* owned: of listen_fd's socket */
	struct event *tick;               /* owned */
	struct nova_op *query;            /* owned: a look under way */
	struct nova_converge *converge;   /* owned */
	struct nova_doubt *doubt;         /* owned */
	struct nova_rejoin *rejoin;       /* owned: a postcopy has lost its stream */
	json_t *spec;                     /* owned: for the destination */
	json_t *last;                     /* owned: last answer of OUT_QUERY */
	struct nova_sample sample;
	enum { NOVA_LIVE, NOVA_WARM, NOVA_COLD } mode;
	bool streaming, switching, stopped, completed, postcopy;
	uint64_t cap_bps, memory_bytes, wire_bytes;
	uint64_t link_peak_bytes_per_s;
	int64_t begin_ms, stop_ms, progress_ms, last_predicted_ms;
	int reconnect_waited_ms, reconnect_limit_ms; /* limit 0: connected */
};

extern const struct nova_step nova_source_steps[];

struct nova_source *nova_source_of(struct nova_job *job); /* makes it when a restart finds the job */
void nova_source_stop_stream(struct nova_source *source);
int nova_source_listen(struct nova_source *source, struct nova_error *err); /* for the guest's stream */
int nova_source_dial(struct nova_source *source, struct nova_error *err);
int nova_source_resume_limit(const struct nova_job *job);

/* migrate_watch.c: the look at a running precopy, its decisions and its progress line */
int nova_watch_start(struct nova_source *source, struct nova_error *err);
/* Look at once: a round has ended. A hypervisor whose limit is low goes round and round while nobody looks. */
void nova_watch_now(struct nova_source *source);
void nova_watch_stop(struct nova_source *source);
void nova_watch_progress(struct nova_source *source, const char *phase);
void nova_watch_report(struct nova_source *source);

/* migrate_doubt.c: ask the destination until it answers */
void nova_doubt_start(struct nova_job *job);
void nova_doubt_free(struct nova_doubt *doubt);
/* How often it was asked, and why it did not answer the last time ("": not asked, or not failed yet). */
int nova_doubt_tries(const struct nova_doubt *doubt);
const char *nova_doubt_error(const struct nova_doubt *doubt);
/* The answer is known: go on after the commit row, or undo what is before it. */
void nova_doubt_end(struct nova_job *job, bool committed);

/* migrate_rejoin.c: a postcopy that lost its stream goes on over a new session */
void nova_rejoin_start(struct nova_source *source, const struct nova_error *why);
void nova_rejoin_session_up(struct nova_source *source);
/* The hypervisor goes on: whatever is lost from here on is a new loss. */
void nova_rejoin_done(struct nova_source *source);
int64_t nova_rejoin_waited_ms(const struct nova_source *source);
void nova_rejoin_free(struct nova_rejoin *rejoin);

json_t *nova_digest_json(const uint8_t digest[16]);

#endif
