/* SPDX-License-Identifier: Apache-2.0
 *
 * migrate_seeds.c - older copies of an arriving guest's disks: what it left here when it moved away, and better, what its
 * replica here holds. See migrate_disks.h for how they are used.
 *
 * A replica counts if it is of the same guest and owner, and comes from the host that the guest comes from: what others
 * sent is not referred to. Its newest images are read until the disks have arrived; meanwhile nothing of it is merged.
 */
#include "migrate_dest.h"

#include "replicate.h"

#include <string.h>

#define WAIT_MS 20000 /* for a merge: without the replica the disks just take longer */

void nova_dest_leave_seeds(struct nova_dest *dest)
{
	struct nova_replica *replica = dest->replica[0] ? nova_replica_by_token(dest->job->host, dest->replica) : NULL;

	if (replica)
		replica->readers--;
	dest->replica[0] = 0;
}

/* The replica's first: of two copies of a disk the driver takes the first. */
static void images_rest(void *arg, json_t *result, const struct nova_error *err)
{
	struct nova_job *job = arg;
	struct nova_dest *dest = job->ctx;
	const struct nova_replica *replica = nova_replica_by_token(job->host, dest->replica);

	job->op = NULL;
	if (!err && replica) {
		dest->seeds = nova_replica_copies(replica);
		json_array_extend(dest->seeds, dest->copies);
	} else {
		nova_host_log(job->host, NOVA_LOG_WARNING, "migration of %s: its replica is not compared with: %s", job->guest_name,
		    err ? err->text : "it is gone");
		nova_dest_leave_seeds(dest);
	}
	nova_run_done(job->run);
}

enum nova_step_result nova_dest_run_seeds(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct nova_job *job = ctx;
	struct nova_dest *dest = job->ctx;
	struct nova_replica *replica = nova_replica_find(job->host, job->guest_name);

	if (json_integer_value(json_object_get(job->args, "disks")) <= 0 || !replica || strcmp(replica->peer, job->peer) ||
	    strcmp(replica->owner, nova_text_of(job->args, "owner")) ||
	    strcmp(nova_replica_text(replica, "uuid"), nova_text_of(job->args, "uuid")))
		return NOVA_STEP_DONE;
	memcpy(dest->replica, replica->token, sizeof(dest->replica));
	replica->readers++;
	job->op = nova_replica_wait(replica, WAIT_MS, images_rest, job, err);
	return job->op ? NOVA_STEP_WAIT : NOVA_STEP_FAILED;
}
