/* SPDX-License-Identifier: Apache-2.0
 *
 * migrate_disks.h - the disks that a migration carries. Private to engine/.
 *
 * Each carried disk has a channel of its own (NOVA_DISK_CHANNEL + its place in the list) beside the stream's, and
 * shares the migration's cap with it. The source copies the disks first, while the guest runs (row "disks"); from
 * then on they follow what the guest writes. In the pause, when the guest has stopped and before the last of its
 * state goes, the copies are ended (row "detach"): they are whole then. Until the commit the source's guest keeps
 * its own disks, so that everything can be undone.
 */
#ifndef NOVA_MIGRATE_DISKS_H
#define NOVA_MIGRATE_DISKS_H

#include "disk.h"
#include "host.h"

#define NOVA_DISK_CHANNEL 16
#define NOVA_DISKS_MAX 64

/* ---- the source's half (migrate_disks.c) ---- */

struct nova_source;
struct nova_disks_out;

struct nova_disks_sum {
	uint64_t total_bytes, done_bytes, remaining_bytes; /* as the hypervisor counts them */
	struct nova_disk_stats ways;                       /* of all together */
};

/* Does this migration carry disks? */
bool nova_disks_any(const struct nova_source *source);
enum nova_step_result nova_disks_run(struct nova_run *run, void *job, struct nova_error *err);
enum nova_step_result nova_disks_undo(struct nova_run *run, void *job, struct nova_error *err);
void nova_disks_drop(struct nova_run *run, void *job);
/* Guest stopped: the copies become whole. */
enum nova_step_result nova_disks_detach(struct nova_run *run, void *job, struct nova_error *err);
/* The guest's driver says something. */
void nova_disks_event(struct nova_source *source, json_t *data);
void nova_disks_sum(const struct nova_source *source, struct nova_disks_sum *sum);
/* For the report, and for the commit: [{disk, digest, bytes}]; new. */
json_t *nova_disks_report(const struct nova_source *source);
json_t *nova_disks_digests(const struct nova_source *source);
struct nova_disks_out *nova_disks_free(struct nova_disks_out *disks);

/* ---- the destination's half (migrate_disks_in.c) ---- */

struct nova_disks_in;

struct nova_disks_in_events {
	void (*changed)(void *arg);                               /* perhaps all have arrived */
	void (*failed)(void *arg, const struct nova_error *err);
};
/* served: the answer of MIRROR_IN. */
struct nova_disks_in *nova_disks_in_new(struct nova_host *host, const json_t *served,
    const struct nova_disks_in_events *events, void *arg, struct nova_error *err);
/* The source opened a channel (stolen); -1 if it is none of ours. */
int nova_disks_in_channel(
    struct nova_disks_in *disks, uint16_t id, struct nova_channel *channel, struct nova_error *err);
bool nova_disks_in_arrived(const struct nova_disks_in *disks);
/* Are they what the source sent (digests of nova_disks_digests)? */
int nova_disks_in_check(const struct nova_disks_in *disks, const json_t *digests, struct nova_error *err);
/* Let go of the ways; what was written stays. */
struct nova_disks_in *nova_disks_in_free(struct nova_disks_in *disks);

/* ---- older copies (copies.c) ---- */

/* What a guest that moved away left on this host: [{disk, path, format, size, peer, time_ms}]; new, maybe empty. */
json_t *nova_copies_get(struct nova_host *host, const char *uuid);
/* NULL or empty: nothing. copies is borrowed. */
int nova_copies_set(struct nova_host *host, const char *uuid, const json_t *copies, struct nova_error *err);

#endif
