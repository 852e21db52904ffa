/* SPDX-License-Identifier: Apache-2.0
 *
 * recover.c - what a restarted daemon finds: guests in the inventory, which it attaches to again by their
 * recorded pids and sockets, then jobs that had not ended, which it finishes or undoes by their journal.
 *
 *   create, adopt         undone from the row it was at
 *   delete                gone on with
 *   one-call verbs        ended as "interrupted": the guest's state is asked anew
 *   failover              before the guest is started: undone; from then on: gone on with
 *   migrate, source       before handover: undone; at handover: in doubt; after: gone on with
 *   migrate, destination  decided committed: gone on with; otherwise undone
 *
 * Jobs wait until every guest has been asked, since their rows look at the guests' states. Without a journal that can be
 * used, journal.c looks for more guests and no job is taken up.
 */
#include "cleanup.h"
#include "replicate.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

extern const struct nova_step nova_create_steps[], nova_adopt_steps[], nova_delete_steps[];

/* ---- guests ---- */

static enum nova_guest_state state_of(const char *text)
{
	for (enum nova_guest_state state = 0; state < NOVA_GUEST_STATES; state++)
		if (text && !strcmp(text, nova_guest_state_name(state)))
			return state;
	return NOVA_GUEST_FAILED;
}

static int load_guest(void *arg, const struct nova_guest_row *row)
{
	struct nova_host *host = arg;
	struct nova_error err;
	struct nova_slot *slot =
	    nova_guest_name_check(row->name, &err) < 0 ? NULL : nova_slot_find(host, row->driver, &err);
	struct nova_entry *entry;

	if (!slot) {
		nova_host_log(host, NOVA_LOG_ERROR, "guest %.80s stays unattended: %s", row->name, err.text);
		return 0;
	}
	entry = nova_entry_new(host, slot, row->name, row->uuid, row->owner ? row->owner : "", row->spec,
	    row->needs, &err);
	if (!entry) {
		nova_host_log(host, NOVA_LOG_ERROR, "%s", err.text);
		return 0;
	}
	json_object_update(entry->guest.runtime, row->runtime);
	entry->left_over = nova_leftover_marked(entry->guest.runtime);
	entry->guest.state = state_of(row->state);
	entry->created_ms = row->created_ms;
	return 0;
}

/* ---- jobs ---- */

struct open_job {
	const char *kind, *side;
	const struct nova_step *steps;
	bool undo;
};

static const struct open_job local_jobs[] = {
	{ "create", "local", nova_create_steps, true },
	{ "adopt", "local", nova_adopt_steps, true },
	{ "delete", "local", nova_delete_steps, false },
};

static struct nova_job *load_job(struct nova_host *host, const struct nova_job_row *row, const char *kind,
    const char *side, struct nova_error *err)
{
	struct nova_identity who = { .role = NOVA_ROLE_OPERATOR, .from = "restart" };
	struct nova_job *job;
	struct nova_entry *entry = nova_entry_find(host, row->guest ? row->guest : "");

	snprintf(who.name, sizeof(who.name), "%s", row->who ? row->who : "");
	job = nova_job_new(host, kind, side, &who, row->guest, row->args, err);
	if (!job)
		return NULL;
	snprintf(job->id, sizeof(job->id), "%s", row->id);
	snprintf(job->peer, sizeof(job->peer), "%s", row->peer ? row->peer : "");
	snprintf(job->token, sizeof(job->token), "%s", row->token ? row->token : "");
	job->started_ms = row->started_ms;
	if (row->report)
		json_object_update(job->report, row->report);
	json_object_set_new(job->report, "restarted", json_true());
	nova_job_set_owner(job, entry ? entry->owner : json_string_value(json_object_get(job->report, "owner")) ?: who.name);
	if (entry) {
		job->entry = entry;
		job->slot = entry->slot;
		entry->job = job;
	}
	return job;
}

static const char *first_or(const char *step, const struct nova_step *steps)
{
	return step && step[0] ? step : steps[0].name;
}

static int resume_local(struct nova_host *host, const struct nova_job_row *row, struct nova_error *err)
{
	for (size_t i = 0; i < sizeof(local_jobs) / sizeof(*local_jobs); i++) {
		const struct open_job *open = &local_jobs[i];
		struct nova_job *job;
		struct nova_error why;

		if (strcmp(open->kind, row->kind))
			continue;
		job = load_job(host, row, open->kind, open->side, err);
		if (!job)
			return -1;
		if (!job->entry) { /* it had not begun, or had ended but for its last line */
			nova_error_set(&why, NOVA_CANCELLED, "interrupted by a restart of the daemon");
			nova_job_settle(job, open->undo ? NOVA_UNDONE : NOVA_COMPLETED, open->undo ? &why : NULL, "");
			return 0;
		}
		return nova_job_start(job, open->steps, first_or(row->step, open->steps), open->undo, err);
	}
	return nova_store_job_end(host->store, row->id, nova_outcome_name(NOVA_UNDO_FAILED),
	    "interrupted by a restart of the daemon: see the guest's state", NULL, nova_wall_ms(), err);
}

static int resume_migration(struct nova_host *host, const struct nova_job_row *row, struct nova_error *err)
{
	bool source = !strcmp(row->side, "source");
	struct nova_job *job = load_job(host, row, "migrate", source ? "source" : "destination", err);
	struct nova_error why;

	if (!job)
		return -1;
	if (!job->entry) {
		nova_error_set(&why, NOVA_CANCELLED, "interrupted by a restart of the daemon");
		if (!source && nova_store_decide(host->store, job->token, NOVA_ABORTED, err) < 0)
			nova_host_log(host, NOVA_LOG_ERROR, "%s: %s", job->id, err->text);
		nova_job_settle(job, NOVA_UNDONE, &why, "");
		return 0;
	}
	return source ? nova_source_recover(job, row->step, err) : nova_dest_recover(job, row->step, err);
}

/* Before the guest was started: undone. From then on it may run. */
static int resume_failover(struct nova_host *host, const struct nova_job_row *row, struct nova_error *err)
{
	struct nova_job *job = load_job(host, row, "failover", "local", err);
	const char *step = first_or(row->step, nova_failover_steps);
	bool forwards = !strcmp(step, "tell") || (!strcmp(step, "start") && !row->undoing);

	if (!job)
		return -1;
	if (nova_failover_attach(job, err) < 0) {
		nova_job_free(job);
		return -1;
	}
	return nova_job_start(job, nova_failover_steps, step, !forwards, err);
}

static int resume_one(struct nova_host *host, const struct nova_job_row *row, struct nova_error *err)
{
	if (!strcmp(row->kind, "migrate"))
		return resume_migration(host, row, err);
	if (!strcmp(row->kind, "failover"))
		return resume_failover(host, row, err);
	return resume_local(host, row, err);
}

static int resume_job(void *arg, const struct nova_job_row *row)
{
	struct nova_host *host = arg;
	struct nova_error err;

	nova_host_log(host, NOVA_LOG_INFO, "%s %s %s had not ended (at %s)", row->id, row->kind,
	    row->guest ? row->guest : "", row->step ? row->step : "its start");
	if (resume_one(host, row, &err) < 0)
		nova_host_log(host, NOVA_LOG_ERROR, "%s could not be taken up: %s", row->id, err.text);
	return 0;
}

static void resume_jobs(struct nova_host *host)
{
	struct nova_error err;

	if (nova_store_jobs(host->store, NOVA_JOBS_OPEN, resume_job, host, &err) < 0)
		nova_host_log(host, NOVA_LOG_ERROR, "the journal could not be read: %s", err.text);
}

/* ---- attaching to guests ---- */

struct attach {
	struct nova_recovery *recovery;
	struct nova_entry *entry; /* borrowed */
	struct nova_op *op;       /* owned */
};

struct nova_recovery {
	struct nova_host *host;
	size_t count, waiting;
	struct nova_op *later; /* owned: there was nobody to attach to */
	struct nova_search *search; /* owned: without a journal */
	struct attach attach[];
};

void nova_recovery_free(struct nova_recovery *recovery)
{
	if (!recovery)
		return;
	for (size_t i = 0; i < recovery->count; i++)
		nova_op_drop(recovery->attach[i].op);
	nova_op_drop(recovery->later);
	nova_search_free(recovery->search);
	free(recovery);
}

static void all_found(struct nova_host *host)
{
	nova_recovery_free(nova_take(&host->recovery));
}

/* A journal that cannot be used does not name all guests, and says nothing reliable of jobs. */
static void all_attached(struct nova_host *host)
{
	struct nova_recovery *recovery = host->recovery;

	if (nova_store_refusal(host->store)) {
		recovery->search = nova_search_new(host, all_found);
		if (recovery->search)
			nova_search_start(recovery->search);
		else
			all_found(host);
		return;
	}
	nova_recovery_free(nova_take(&host->recovery));
	resume_jobs(host);
}

static void one_over(struct attach *attach, json_t *result, const struct nova_error *err)
{
	struct nova_guest *guest = &attach->entry->guest;
	const char *state = json_string_value(json_object_get(result, "state"));

	attach->op = NULL;
	attach->entry->attaching = false;
	if (err) {
		nova_host_log(attach->recovery->host, NOVA_LOG_WARNING, "guest %s: %s", guest->name, err->text);
		nova_guest_set_state(guest, NOVA_GUEST_FAILED, err->text);
	} else if (state && guest->state != NOVA_GUEST_IN_DOUBT && guest->state != NOVA_GUEST_INCOMING &&
		   /* it was committed here and could not be let run */
		   !(guest->state == NOVA_GUEST_PAUSED && state_of(state) == NOVA_GUEST_INCOMING))
		nova_guest_set_state(guest, state_of(state), "found after a restart");
	attach->recovery->waiting--;
}

static void attached(void *arg, json_t *result, const struct nova_error *err)
{
	struct attach *attach = arg;
	struct nova_recovery *recovery = attach->recovery;

	one_over(attach, result, err);
	if (recovery->waiting == 0)
		all_attached(recovery->host);
}

static void nobody_there(void *arg, json_t *result, const struct nova_error *err)
{
	struct nova_host *host = arg;

	host->recovery->later = NULL;
	all_attached(host);
}

static void attach_to(struct attach *attach, struct nova_recovery *recovery, struct nova_entry *entry)
{
	struct nova_error err;

	attach->recovery = recovery;
	attach->entry = entry;
	entry->attaching = true;
	recovery->waiting++;
	attach->op =
	    nova_slot_call(entry->slot, NOVA_VERB_REATTACH, &entry->guest, entry->guest.runtime, attached, attach, &err);
	if (!attach->op)
		one_over(attach, NULL, &err);
}

int nova_recover(struct nova_host *host, struct nova_error *err)
{
	struct nova_entry *entry;
	size_t count = 0;

	if (nova_store_guests(host->store, NULL, load_guest, host, err) < 0)
		return -1;
	TAILQ_FOREACH (entry, &host->guests, link)
		count++;
	host->recovery = calloc(1, sizeof(*host->recovery) + count * sizeof(struct attach));
	if (!host->recovery)
		return nova_error_sys(err, ENOMEM, "finding guests");
	host->recovery->host = host;
	TAILQ_FOREACH (entry, &host->guests, link)
		attach_to(&host->recovery->attach[host->recovery->count++], host->recovery, entry);
	if (host->recovery->waiting)
		return 0;
	host->recovery->later = nova_op_later(host->base, NULL, NULL, nobody_there, host, err);
	return host->recovery->later ? 0 : -1;
}
