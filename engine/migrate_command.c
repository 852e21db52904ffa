/* SPDX-License-Identifier: Apache-2.0
 *
 * migrate_command.c - how a source's migration begins: by command, or found in the journal after a restart; and the change
 * of its cap.
 */
#include "migrate_source.h"
#include "replicate.h"

#include "cleanup.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* ---- after a restart ---- */

int nova_source_recover(struct nova_job *job, const char *step, struct nova_error *err)
{
	bool after_commit = step && (!strcmp(step, "drain") || !strcmp(step, "release"));

	if (!nova_source_of(job))
		return nova_error_sys(err, ENOMEM, "migration of %s", job->guest_name);
	if (step && !strcmp(step, "handover")) {
		nova_guest_set_state(&job->entry->guest, NOVA_GUEST_IN_DOUBT, "the daemon restarted during the handover");
		nova_doubt_start(job);
		return 0;
	}
	return nova_job_start(
	    job, nova_source_steps, step && step[0] ? step : "preflight", !after_commit, err);
}

/* ---- commands ---- */

int nova_migrate_set_rate(struct nova_job *job, uint64_t rate_bps, struct nova_error *err)
{
	struct nova_source *source = job->ctx;

	if (strcmp(job->kind, "migrate") || strcmp(job->side, "source") || !source || !source->session)
		return nova_error_set(err, NOVA_STATE, "job %s has no link whose rate could change", job->id);
	source->cap_bps = rate_bps;
	json_object_set_new(job->args, "bandwidth", json_integer((json_int_t)rate_bps));
	source->ops->session_rate(source->session, rate_bps);
	if (source->direct && source->streaming)
		nova_watch_cap(source);
	return 0;
}

static int check_migratable(struct nova_host *host, const struct nova_entry *entry, const char *mode, const char *peer,
    struct nova_error *err)
{
	enum nova_guest_state state = entry->guest.state;
	bool cold = !strcmp(mode, "cold");

	if (!json_object_get(nova_config_get(host->config, "peers"), peer))
		return nova_error_set(err, NOVA_INVALID, "there is no peer '%.60s' in the configuration: see novacron peers",
		    peer);
	if (state == NOVA_GUEST_RUNNING || state == NOVA_GUEST_PAUSED || (cold && state == NOVA_GUEST_STOPPED))
		return 0;
	return nova_error_set(err, NOVA_STATE, "guest %s is %s: %s", entry->name, nova_guest_state_name(state),
	    state == NOVA_GUEST_STOPPED ? "a stopped guest moves with --mode cold" :
					  "it can be migrated when it is running or paused");
}

static void job_begun(struct nova_host *host, struct nova_job *job, json_t **answer)
{
	*answer = json_pack("{s:s, s:s, s:s}", "job", job->id, "guest", job->guest_name, "peer", job->peer);
}

struct nova_op *nova_cmd_migrate(struct nova_host *host, const struct nova_identity *who, json_t *args, nova_done_fn done,
    void *arg, struct nova_error *err)
{
	struct nova_entry *entry = nova_entry_need(host, who, json_string_value(json_object_get(args, "guest")), err);
	const char *peer = json_string_value(json_object_get(args, "to"));
	struct nova_job *job;
	json_t *answer;

	if (!entry ||
	    check_migratable(host, entry, json_string_value(json_object_get(args, "mode")), peer, err) < 0)
		return NULL;
	job = nova_job_new(host, "migrate", "source", who, entry->name, args, err);
	if (!job)
		return NULL;
	snprintf(job->peer, sizeof(job->peer), "%s", peer);
	nova_job_token_new(job);
	if (!nova_source_of(job)) {
		nova_job_free(job);
		nova_error_sys(err, ENOMEM, "migration of %s", peer);
		return NULL;
	}
	if (nova_job_start(job, nova_source_steps, NULL, false, err) < 0)
		return NULL;
	job_begun(host, job, &answer);
	return nova_op_later(host->base, answer, NULL, done, arg, err);
}

/* A guest whose memory is still on its way belongs to its migration. All that may be done to it meanwhile is to pull its plug:
 * what it waits for may never come. The migration ends with it, at both sides. */
struct nova_op *nova_cmd_stop(struct nova_host *host, const struct nova_identity *who, json_t *args, nova_done_fn done, void *arg,
    struct nova_error *err)
{
	struct nova_entry *entry = nova_entry_need(host, who, json_string_value(json_object_get(args, "guest")), err);
	bool drains;

	if (!entry)
		return NULL;
	drains = entry->job && !strcmp(entry->job->kind, "migrate") && !strcmp(entry->job->side, "destination") &&
		 nova_job_at(entry->job, "drain");
	if (!drains || !json_is_true(json_object_get(args, "force")))
		return nova_verb_start(host, who, NOVA_VERB_STOP, args, done, arg, err);
	nova_host_log(host, NOVA_LOG_WARNING, "guest %s is ended while %s still brings its memory", entry->name, entry->job->id);
	return nova_slot_call(entry->slot, NOVA_VERB_STOP, &entry->guest, args, done, arg, err);
}
