/* SPDX-License-Identifier: Apache-2.0
 *
 * replicate.h - a standby far away stays seconds behind: what both sides of replication share. Private to engine/.
 *
 * At the guest's host a replication (replicate.c) makes a point every so often; each attempt is a table of rows
 * (replicate_point.c) over a session of its own. At the standby a replica (replica.c) keeps the points; each one that
 * arrives is a table of rows, too (replica_point.c), and exists when it stands in the journal, not before.
 *
 *   guest's host                                   standby
 *   replica-open {token, guest, spec, disks ...} -> admit, once; the answer says which point is the newest
 *   replica-begin {token, point, kind}           -> kind "delta": overlays on the newest point, for what was written since;
 *                                                   "base": whole new images, older ones beside them for comparison
 *   channels 16, 17, ... (DISK)                  => the disks, one each (disk.h)
 *   replica-commit {token, point, digests ...}   -> compare, sync, write it down; the answer says so
 *   shut down, one more point                    <- replica-handover {token}: a planned fail-over; the answer names the point
 *
 * A "base" is copied while the guest writes: it is only what the next delta stands on, and no point by itself. Which point
 * is the newest is the standby's to say; the guest's host has a mark for each (drivers: POINT_MARK), and sends what was
 * written since that one. So an attempt that fails anywhere, on either side, is forgotten, and costs nothing but time.
 */
#ifndef NOVA_REPLICATE_H
#define NOVA_REPLICATE_H

#include "host.h"
#include "migrate_disks.h"

#define NOVA_REPLICA_EVERY_MIN_MS 1000
#define NOVA_REPLICA_LIMIT_MS 30000     /* for an answer that takes no work */
#define NOVA_REPLICA_WORK_MS 600000     /* for one that does */
#define NOVA_REPLICA_HANDOVER_MS 900000 /* the guest shuts down, and its last point goes over */
#define NOVA_REPLICA_MERGE_MS 120000    /* a merge of old points is waited for */

/* ---- ways of several disks: sockets that the hypervisor connects to (replicate_ways.c) ---- */

struct nova_ways;
struct nova_ways_events {
	void (*ready)(void *arg); /* the hypervisor may connect */
	void (*ended)(void *arg, const struct nova_error *err); /* err NULL: all were passed on, in order */
};
/* names: [{disk}]; sockets are made in the directory `where`. */
struct nova_ways *nova_ways_new(struct nova_host *host, struct nova_session *session, const json_t *names,
    const char *where, const struct nova_ways_events *events, void *arg, struct nova_error *err);
/* The path of a disk's socket, borrowed; NULL past the last one. */
const char *nova_ways_path(const struct nova_ways *ways, size_t i);
void nova_ways_stats(const struct nova_ways *ways, struct nova_disk_stats *sum);
/* [{disk, digest, bytes}]; new. */
json_t *nova_ways_digests(const struct nova_ways *ways);
struct nova_ways *nova_ways_free(struct nova_ways *ways);

/* ---- the guest's host ---- */

enum nova_replicate_state {
	NOVA_REPLICATE_ACTIVE,
	NOVA_REPLICATE_PAUSED,
	NOVA_REPLICATE_HANDED_OVER, /* the standby runs the guest, or is about to */
	NOVA_REPLICATE_STATES
};
const char *nova_replicate_state_name(enum nova_replicate_state state);

struct nova_attempt;

struct nova_replicate {
	TAILQ_ENTRY(nova_replicate) link;
	struct nova_host *host; /* borrowed */
	char token[33];
	char guest[NOVA_NAME_MAX + 1], peer[NOVA_NAME_MAX + 1], owner[128];
	enum nova_replicate_state state;
	int64_t every_ms;
	uint64_t rate_bps;
	int64_t keep;
	json_t *body;      /* owned: as it stands in the journal */
	/* the guest as the standby must know it; NULL: to be asked */
	json_t *spec, *disks; /* owned; disks: [{disk, file, size}] */
	json_int_t pid;       /* of the hypervisor that was asked */
	struct nova_attempt *attempt; /* owned: under way */
	struct nova_run *run;         /* owned: its rows */
	struct event *timer, *watch;  /* owned */
	int64_t begun_ms;             /* of the last attempt, monotonic; negative: none */
	unsigned failures;            /* in a row */
	json_int_t newest;            /* whole point at the standby; 0: none, or not known */
	int64_t taken_ms;             /* of that one, wall clock; 0: none */
	bool late;
	struct nova_request *handover; /* the standby waits for the last point */
	int64_t stopped_ms;            /* wall clock: the guest has stopped, and a point taken since is the last; 0: it was not asked to */
	struct nova_op *stopping;      /* owned: a call for the guest that is none of the attempt's */
	bool deleted;                  /* it only waits for the hypervisor to forget its marks */
};

int nova_replicates_open(struct nova_host *host, struct nova_error *err);
void nova_replicates_close(struct nova_host *host);
/* The guest is about to be freed. */
void nova_replicates_guest_gone(struct nova_host *host, struct nova_entry *entry);
/* A row of a job that needs the guest's disks: the point that is being made is waited for, and no other begins. */
enum nova_step_result nova_points_row(struct nova_run *run, void *job, struct nova_error *err);
/* None is being made any more: the row goes on. */
void nova_points_rest(struct nova_replicate *replicate);
struct nova_replicate *nova_replicate_find(struct nova_host *host, const char *guest);
int nova_replicate_save(struct nova_replicate *replicate, struct nova_error *err);
void nova_replicate_pace(struct nova_replicate *replicate);
void nova_replicate_set_state(struct nova_replicate *replicate, enum nova_replicate_state state, const char *why);
json_t *nova_replicate_json(const struct nova_replicate *replicate);
/* Begin one, of a guest here; what is to be known is in args, as `replicate create` has it. The answer, or NULL. */
json_t *nova_replicate_create(struct nova_host *host, const struct nova_identity *who, const char *guest, const json_t *args,
    struct nova_error *err);
/* It is over, as far as this host is concerned. */
int nova_replicate_delete(struct nova_replicate *replicate, struct nova_error *err);
struct nova_op *nova_cmd_replicate(struct nova_host *, const struct nova_identity *, json_t *, nova_done_fn, void *,
    struct nova_error *);

/* handover.c: the standby wants the guest */
int nova_replicate_handover(struct nova_host *host, const char *peer, json_t *args, struct nova_request *request,
    struct nova_error *err);
/* Was this the last point? Then it is on its way to being handed over. */
bool nova_handover_point(struct nova_replicate *replicate, const json_t *point);
void nova_handover_failed(struct nova_replicate *replicate, const struct nova_error *err);
/* The guest was started over there: it must not run here. */
void nova_replicate_superseded(struct nova_replicate *replicate);
/* A guest of this name arrived by a migration from a peer. If it had moved to its standby, points of it are made again. If that
 * is the standby, and it says that it had started the guest, then that is the one that came: it is not paused for it. Until
 * the standby says that it had not (_confirmed). */
void nova_replicate_came_back(struct nova_host *host, const char *guest, const char *from);
void nova_replicate_confirmed(struct nova_replicate *replicate);

/* replicate_point.c */
int nova_attempt_start(struct nova_replicate *replicate, struct nova_error *err);
/* Take back what there is of it; it is over some turns later. */
void nova_attempt_cancel(struct nova_replicate *replicate);
/* Forget it, where it stands. */
void nova_attempt_drop(struct nova_replicate *replicate);
/* Are all of the disks being copied, which takes its time? */
bool nova_attempt_is_base(const struct nova_replicate *replicate);
/* Bytes of the point that is being made. */
json_t *nova_attempt_json(const struct nova_replicate *replicate);
void nova_attempt_set_rate(struct nova_replicate *replicate);
/* Said by replicate_point.c when an attempt is over: point is what was made (borrowed), or err says why there is none; neither: it
 * was not wanted any more. */
void nova_replicate_ended(struct nova_replicate *replicate, json_t *point, const struct nova_error *err);

/* ---- the standby ---- */

struct nova_reception;
struct nova_replica_wait;

struct nova_replica {
	TAILQ_ENTRY(nova_replica) link;
	struct nova_host *host; /* borrowed */
	struct nova_slot *slot; /* borrowed */
	char token[33];
	char guest[NOVA_NAME_MAX + 1], peer[NOVA_NAME_MAX + 1], owner[128];
	/* owned: as it stands in the journal: guest, uuid, owner, driver, peer, directory, spec, disks, needs, every_ms, keep,
	 * state ("standby", "failed-over"), points [{id, kind, base, taken_ms, received_ms, bytes, consistency, files, hashes?}],
	 * holds {guest: point}, merging? {point, base, into}: this point is being written into these images */
	json_t *body;
	struct nova_reception *reception; /* owned: a point that arrives */
	struct nova_job *job;             /* borrowed: a fail-over */
	unsigned readers;                 /* exports, and migrations that compare with it: the images stay as they are */
	bool merging;                     /* images that newer points stand on are being written */
	bool stale;                       /* the journal's line of it (debts.c) */
	TAILQ_HEAD(nova_replica_waits, nova_replica_wait) waits; /* for the end of that */
};

int nova_replicas_open(struct nova_host *host, struct nova_error *err);
void nova_replicas_close(struct nova_host *host);
struct nova_replica *nova_replica_find(struct nova_host *host, const char *guest);
struct nova_replica *nova_replica_by_token(struct nova_host *host, const char *token);
int nova_replica_save(struct nova_replica *replica, struct nova_error *err);
/* Change the body (what was borrowed of it is to be asked for again) and write it down, as a whole or not at all. What is returned
 * goes to _changed, which says so (made: nothing failed in between); -1: the body is what it was. NULL: no memory. */
json_t *nova_replica_change(struct nova_replica *replica, struct nova_error *err);
int nova_replica_changed(struct nova_replica *replica, json_t *before, bool made, struct nova_error *err);
const char *nova_replica_text(const struct nova_replica *replica, const char *name);
json_t *nova_replica_points(const struct nova_replica *replica); /* borrowed */
/* The newest whole point, or the one of this id; NULL: there is none. Borrowed. */
json_t *nova_replica_point(const struct nova_replica *replica, json_int_t id);
json_t *nova_replica_json(const struct nova_replica *replica);
/* What its newest images hold, as older copies of the guest's disks (see nova_copies_get); new. */
json_t *nova_replica_copies(const struct nova_replica *replica);
/* Remove it with its images. */
int nova_replica_remove(struct nova_replica *replica, struct nova_error *err);
/* Does something stand on the images of this point? */
bool nova_replica_holds(const struct nova_replica *replica, json_int_t id);
/* replica_wait.c: its images are about to be read, by somebody whom nova_replica_holds knows of already. Answers when
 * nothing writes them, or NOVA_TIMEOUT. */
struct nova_op *nova_replica_wait(struct nova_replica *replica, int limit_ms, nova_done_fn done, void *arg,
    struct nova_error *err);
void nova_replica_set_merging(struct nova_replica *replica, bool merging);
void nova_replica_end_waits(struct nova_replica *replica); /* it is about to be freed */
/* Bytes of disk that replicas of this owner (NULL: all) have reserved, but for the guest of this name. */
int64_t nova_replicas_disk_bytes(const struct nova_host *host, const char *owner, const char *but);

/* Requests of a peer's session, and what belongs to them. *reception is the session's. -1: *err is the answer. */
int nova_replica_request(struct nova_host *host, const char *peer, const char *from, struct nova_reception **reception,
    const char *command, json_t *args, struct nova_request *request, struct nova_error *err);
/* replica_point.c. slot: where the session keeps it, NULLed when it ends. */
int nova_reception_begin(struct nova_replica *replica, struct nova_reception **slot, json_t *args,
    struct nova_request *request, struct nova_error *err);
int nova_reception_commit(struct nova_reception *reception, json_t *args, struct nova_request *request,
    struct nova_error *err);
struct nova_replica *nova_reception_replica(struct nova_reception *reception);
void nova_reception_channel(struct nova_reception *reception, uint16_t id, struct nova_channel *channel);
/* The session is gone, or another one took over: the half point goes. */
void nova_reception_lost(struct nova_reception *reception, const struct nova_error *why);
void nova_reception_drop(struct nova_replica *replica);

/* failover.c, replica_export.c */
extern const struct nova_step nova_failover_steps[];
/* A job of this kind, after a restart too, belongs to its replica. */
int nova_failover_attach(struct nova_job *job, struct nova_error *err);
struct nova_op *nova_cmd_failover(struct nova_host *, const struct nova_identity *, json_t *, nova_done_fn, void *,
    struct nova_error *);
struct nova_op *nova_cmd_failback(struct nova_host *, const struct nova_identity *, json_t *, nova_done_fn, void *,
    struct nova_error *);
struct nova_op *nova_replica_export(struct nova_replica *replica, json_t *args, nova_done_fn done, void *arg,
    struct nova_error *err);

#endif
