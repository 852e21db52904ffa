/* SPDX-License-Identifier: Apache-2.0
 *
 * resolve.c - an operator decides a migration that is in doubt: what is known, what the risk is, the fence, the decision.
 *
 * The commit was sent and no answer came: the destination may run the guest, or may have given it up, and only it
 * knows. Without --yes nothing is decided: the answer says what both journals say, when the peer was last heard, and
 * what goes wrong if the guess is wrong. With --yes the fence-hook (if one is configured) must make sure that the
 * other side cannot run the guest:
 *
 *   fence-hook GUEST JOB PEER source|destination      the side that is about to have the guest; at most 60 s
 *
 * A status other than 0, a signal, a program that is not there: nothing is decided, the guest stays paused. Not here:
 * how the doubt begins, asks and ends (migrate_doubt.c).
 */
#include "child.h"
#include "cleanup.h"
#include "migrate.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define FENCE_LIMIT_MS 60000

/* A fence under way. */
struct fencing {
	struct nova_op op;
	struct nova_host *host;
	struct nova_identity who;
	char job[NOVA_JOB_ID_SIZE];
	bool keep_source;
	int64_t begin_ms;
	struct nova_op *child; /* owned */
	nova_done_fn done;
	void *arg;
};

static const char *side_name(bool keep_source)
{
	return keep_source ? "source" : "destination";
}

/* ---- what is known ---- */

static json_t *time_json(json_int_t wall_ms)
{
	time_t seconds = (time_t)(wall_ms / 1000);
	char text[40];
	struct tm utc;

	if (!wall_ms)
		return json_string("unknown: the daemon was restarted since");
	gmtime_r(&seconds, &utc);
	strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &utc);
	return json_string(text);
}

static json_t *risk_of(const struct nova_job *job, bool keep_source)
{
	if (keep_source)
		return json_sprintf("if %s has committed, %s runs there already: letting it run here too makes two of it, which "
				    "write to the same disks. Make sure first that %s is off or its guest is stopped for good",
		    job->peer, job->guest_name, job->peer);
	return json_sprintf("if %s has not committed, it has given %s up and has no copy: releasing the one here loses its "
			    "memory for good. Make sure first that it runs on %s",
	    job->peer, job->guest_name, job->peer);
}

static json_t *known_of(const struct nova_job *job, bool keep_source)
{
	const struct nova_source *source = job->ctx;
	const char *hook = nova_config_text(job->host->config, "fence-hook");
	json_t *known = json_pack("{s:s, s:s, s:s, s:s, s:b}", "job", job->id, "guest", job->guest_name, "peer", job->peer,
	    "keep", side_name(keep_source), "decided", 0);
	const char *heard = nova_doubt_error(source->doubt);

	json_object_set_new(known, "source_journal", json_string("the commit was about to be sent or was sent; no answer is recorded"));
	json_object_set_new(known, "destination_journal",
	    json_sprintf("not known: %s%s%s", nova_doubt_tries(source->doubt) ? "" : "it was not asked yet", heard[0] ? "it was asked, " : "",
		heard[0] ? heard : nova_doubt_tries(source->doubt) ? "it was asked and did not answer yet" : ""));
	json_object_set_new(known, "asked", json_integer(nova_doubt_tries(source->doubt)));
	json_object_set_new(
	    known, "commit_sent", time_json(json_integer_value(json_object_get(job->report, "commit_sent_ms"))));
	json_object_set_new(
	    known, "peer_last_heard", time_json(json_integer_value(json_object_get(job->report, "peer_heard_ms"))));
	json_object_set_new(known, "risk", risk_of(job, keep_source));
	json_object_set_new(known, "fence_hook", hook[0] ? json_string(hook) :
							   json_string("none: nothing but you makes sure that only one side runs it"));
	json_object_set_new(known, "next",
	    json_sprintf("wait: the job ends by itself when %s answers; or novacron resolve %s --keep %s --yes", job->peer,
		job->id, side_name(keep_source)));
	json_object_set_new(known, "ok", json_false());
	return known;
}

/* ---- the decision ---- */

static json_t *decide(struct nova_job *job, const struct nova_identity *who, bool keep_source, const char *fence,
    struct nova_error *err)
{
	json_t *answer = json_pack("{s:s, s:s, s:s, s:s}", "job", job->id, "guest", job->guest_name, "kept",
	    side_name(keep_source), "fence", fence);

	nova_host_audit(job->host, who,
	    json_pack("{s:s, s:s, s:s, s:s, s:s}", "decision", "resolve", "job", job->id, "guest", job->guest_name, "keep",
		side_name(keep_source), "fence", fence));
	json_object_set_new(job->report, "fence", json_string(fence));
	if (nova_migrate_resolve(job, keep_source, err) == 0)
		return answer;
	json_decref(answer);
	return NULL;
}

static json_t *after_fence(struct fencing *fencing, json_t *result, const struct nova_error *failure,
    struct nova_error *err)
{
	struct nova_job *job = nova_job_find(fencing->host, fencing->job);
	const char *hook = nova_config_text(fencing->host->config, "fence-hook");

	if (failure || nova_child_check(hook, result, err) < 0) {
		if (failure)
			nova_error_copy(err, failure);
		err->category = NOVA_REFUSED;
		nova_error_prefix(err, "job %s stays in doubt, the guest stays paused: the fence-hook failed", fencing->job);
		return NULL;
	}
	if (!job) {
		nova_error_set(err, NOVA_STATE, "job %s ended while the fence-hook ran: see novacron job %s", fencing->job,
		    fencing->job);
		return NULL;
	}
	return decide(job, &fencing->who, fencing->keep_source, "the fence-hook succeeded", err);
}

static void fenced(void *arg, json_t *result, const struct nova_error *failure)
{
	struct fencing *fencing = arg;
	nova_done_fn done = fencing->done;
	void *done_arg = fencing->arg;
	struct nova_error err = { 0 };
	json_t *answer = after_fence(fencing, result, failure, &err);

	free(fencing);
	done(done_arg, answer, answer ? NULL : &err);
	json_decref(answer);
}

static void fencing_drop(struct nova_op *op)
{
	struct fencing *fencing = (struct fencing *)op;

	nova_op_drop(fencing->child);
	free(fencing);
}

static struct nova_op *fence(struct nova_job *job, const struct nova_identity *who, bool keep_source, const char *hook,
    nova_done_fn done, void *arg, struct nova_error *err)
{
	const char *const argv[] = { hook, job->guest_name, job->id, job->peer, side_name(keep_source), NULL };
	const struct nova_child_options options = { .limit_ms = FENCE_LIMIT_MS };
	struct fencing *fencing = calloc(1, sizeof(*fencing));

	if (!fencing) {
		nova_error_sys(err, ENOMEM, "the fence-hook");
		return NULL;
	}
	*fencing = (struct fencing){ .op.drop = fencing_drop, .host = job->host, .who = *who, .keep_source = keep_source,
		.done = done, .arg = arg };
	memcpy(fencing->job, job->id, sizeof(fencing->job));
	nova_host_log(job->host, NOVA_LOG_INFO, "%s: %s %s %s %s %s", job->id, hook, job->guest_name, job->id, job->peer,
	    side_name(keep_source));
	fencing->child = nova_child_run(job->host->base, argv, &options, fenced, fencing, err);
	if (fencing->child)
		return &fencing->op;
	nova_error_prefix(err, "job %s stays in doubt: the fence-hook", job->id);
	free(fencing);
	return NULL;
}

struct nova_op *nova_resolve(struct nova_job *job, const struct nova_identity *who, bool keep_source, bool yes,
    nova_done_fn done, void *arg, struct nova_error *err)
{
	const char *hook = nova_config_text(job->host->config, "fence-hook");
	json_t *answer;

	if (!nova_job_in_doubt(job)) {
		nova_error_set(err, NOVA_STATE,
		    "job %s is not in doubt: nothing to resolve (only the source of a migration can be)", job->id);
		return NULL;
	}
	if (yes && hook[0])
		return fence(job, who, keep_source, hook, done, arg, err);
	answer = yes ? decide(job, who, keep_source, "no fence-hook is configured", err) : known_of(job, keep_source);
	return answer ? nova_op_later(job->host->base, answer, NULL, done, arg, err) : NULL;
}
