/* SPDX-License-Identifier: Apache-2.0
 *
 * migrate_says.c - what a guest's driver says while it moves away, and what the end of the job means for the guest.
 */
#include "migrate_source.h"

#include "cleanup.h"

#include <string.h>

static void set_state(struct nova_job *job, enum nova_guest_state state, const char *why)
{
	if (job->entry)
		nova_guest_set_state(&job->entry->guest, state, why);
}

/* The journal has to know: from here on the source has pages that the running guest needs. */
static void on_postcopy(struct nova_source *source)
{
	struct nova_job *job = source->job;
	struct nova_error err;

	nova_rejoin_done(source);
	if (source->postcopy)
		return;
	source->postcopy = true;
	json_object_set_new(job->args, "in-postcopy", json_true());
	if (nova_job_save(job, nova_run_step(job->run)->name, false, &err) < 0)
		nova_host_log(job->host, NOVA_LOG_ERROR, "%s", err.text);
}

static void on_migration(struct nova_job *job, json_t *data)
{
	struct nova_source *source = job->ctx;
	const char *status = json_string_value(json_object_get(data, "status"));
	const char *text = json_string_value(json_object_get(data, "error"));
	struct nova_error why;

	if (!status)
		return;
	if (!strcmp(status, "completed")) {
		source->completed = true;
		json_object_set(job->report, "contents", json_object_get(data, "contents"));
	}
	else if (!strcmp(status, "pre-switchover"))
		source->held = true;
	else if (!strcmp(status, "postcopy-active"))
		on_postcopy(source);
	else if (!strcmp(status, "postcopy-paused") && nova_source_drains(source) && (!source->rejoin || source->pipe)) {
		nova_error_set(&why, NOVA_LINK, "the stream of guest %s broke", job->guest_name);
		nova_rejoin_start(source, &why);
	} else if (!strcmp(status, "failed") && !nova_run_undoing(job->run)) {
		nova_error_set(&why, NOVA_REFUSED, "%s gave up: %s",
		    nova_job_contents(job) ? "the carrying of its contents" : "the hypervisor", text ? text : "it did not say why");
		if (nova_source_drains(source))
			nova_run_fail(job->run, &why);
		else
			nova_job_give_up(job, &why);
		return;
	}
	if (nova_job_at(job, "precopy") && source->streaming && (source->completed || source->postcopy || source->held))
		nova_run_done(job->run);
	else if (nova_job_at(job, "hold") && source->held)
		nova_run_done(job->run);
	else if (nova_job_at(job, "switchover") && !job->op && (source->completed || source->postcopy))
		nova_run_done(job->run);
	else if (nova_source_drains(source) && source->completed)
		nova_run_done(job->run);
}

void nova_source_on_guest(struct nova_job *job, const char *event, json_t *data)
{
	struct nova_source *source = job->ctx;
	const char *reason = json_string_value(json_object_get(data, "reason"));
	struct nova_error why;

	if (!job->run)
		return;
	if (!strcmp(event, "STOP") && !source->stop_ms && source->streaming) {
		source->stop_ms = nova_now_ms();
		source->stopped = true;
	} else if (!strcmp(event, "MIGRATION_PASS"))
		nova_watch_pass(source, json_integer_value(json_object_get(data, "pass")));
	else if (!strcmp(event, "MIGRATION"))
		on_migration(job, data);
	else if (!strcmp(event, "DISK_MIRROR"))
		nova_disks_event(source, data);
	else if (!strcmp(event, "EXIT") && !nova_run_undoing(job->run) && source->mode != NOVA_COLD &&
		 !nova_job_contents(job)) {
		nova_error_set(&why, NOVA_STATE, "guest %s ended during its migration: %s", job->guest_name,
		    reason ? reason : "unknown reason");
		nova_job_give_up(job, &why);
	}
}

void nova_source_on_end(struct nova_job *job, enum nova_outcome outcome, const struct nova_error *err)
{
	struct nova_source *source = job->ctx;

	nova_watch_stop(source);
	json_object_set_new(job->report, "total_ms", json_integer(nova_now_ms() - source->begin_ms));
	if (outcome == NOVA_IN_DOUBT)
		set_state(job, NOVA_GUEST_IN_DOUBT, err->text);
	if (outcome == NOVA_LEFTOVERS && job->entry)
		nova_leftover(job->entry);
	/* It is ours, since nothing was committed, but did not go on: a way out for the operator. */
	if (outcome == NOVA_UNDO_FAILED && job->entry && job->entry->guest.state == NOVA_GUEST_MIGRATED)
		set_state(job, NOVA_GUEST_PAUSED, "the migration was taken back, but the guest did not go on: see novacron resume");
}

/* The baseline at the destination was damaged and is gone: once more, without. The guest runs here meanwhile. */
bool nova_source_again(struct nova_job *job, const struct nova_error *why)
{
	struct nova_source *old = job->ctx, *new;
	struct nova_error err;

	if (!old->base_damaged || !nova_source_wants_baseline(job))
		return false;
	job->ctx = NULL;
	new = nova_source_of(job);
	job->ctx = old;
	if (!new)
		return false;
	new->begin_ms = old->begin_ms;
	nova_source_free(job);
	job->ctx = new;
	json_object_set_new(job->args, "baseline", json_false());
	json_object_set_new(job->report, "begun_again", json_sprintf("the baseline kept by %s was damaged", job->peer));
	nova_job_token_new(job);
	nova_host_log(job->host, NOVA_LOG_WARNING, "%s: the baseline kept by %s was damaged (%s): begins nova_source_again without",
	    job->id, job->peer, why->text);
	return nova_job_again(job, &err) == 0;
}
