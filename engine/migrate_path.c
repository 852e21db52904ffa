/* SPDX-License-Identifier: Apache-2.0
 *
 * migrate_path.c - two rows of a migration that look before it leaps: what would it take (and is it begun only
 * to be given up?), and which way shall the bytes go.
 *
 * The relay is the default: it packs, resumes, paces and compares digests. The direct path is for links on
 * which one core of codec and TLS is the bottleneck. `auto` takes it from DIRECT_FROM_BPS on, by the estimate's
 * or its own measurement of the link; what it decided, and why, is in the report. Not here: how QEMU is set up
 * for it (the driver).
 */
#include "cleanup.h"
#include "estimate.h"
#include "migrate.h"

#include <stdio.h>
#include <string.h>

#define DIRECT_FROM_BPS 10000000000.0 /* bits a second of the link */

/* ---- estimate: asked for, or needed to refuse what cannot be done ---- */

static bool gives_up(const struct nova_job *job)
{
	return !strcmp(nova_job_text(job, "on-stall"), "abort") ||
	       (nova_job_int(job, "max-time") && !strcmp(nova_job_text(job, "on-stall"), "wait"));
}

/* Would this migration only be begun to be given up? */
static int check_estimate(const struct nova_job *job, const json_t *estimate, struct nova_error *err)
{
	int64_t most_ms = nova_job_int(job, "max-time"), time_ms = json_integer_value(json_object_get(estimate, "time_ms"));
	const char *why = json_string_value(json_object_get(estimate, "why"));
	bool hopeless = json_is_true(json_object_get(estimate, "hopeless"));

	if (!gives_up(job) || json_is_true(json_object_get(job->args, "ignore-estimate")))
		return 0;
	if (hopeless)
		return nova_error_set(err, NOVA_REFUSED,
		    "it would not converge: %s; nothing was sent (--ignore-estimate begins it all the same)", why);
	if (most_ms && time_ms > most_ms + most_ms / 4)
		return nova_error_set(err, NOVA_REFUSED,
		    "it would take about %lld s, and may take %lld s: %s; nothing was sent (--ignore-estimate begins it all the same)",
		    (long long)time_ms / 1000, (long long)most_ms / 1000, why);
	return 0;
}

static void estimated(void *arg, json_t *result, const struct nova_error *err)
{
	static const char *const compared[] = { "time_ms", "wire_bytes", "downtime_ms" };
	struct nova_job *job = arg;
	struct nova_error why;
	char name[64];

	job->op = NULL;
	if (err) {
		nova_run_fail(job->run, err);
		return;
	}
	json_object_set(job->report, "estimate", result);
	for (size_t i = 0; i < sizeof(compared) / sizeof(*compared); i++) {
		snprintf(name, sizeof(name), "estimated_%s", compared[i]);
		json_object_set(job->report, name, json_object_get(result, compared[i]));
	}
	if (check_estimate(job, result, &why) < 0)
		nova_run_fail(job->run, &why);
	else
		nova_run_done(job->run);
}

enum nova_step_result nova_estimate_row(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct nova_job *job = ctx;
	struct nova_source *source = job->ctx;
	const struct nova_estimate_options options = {
		.peer = job->peer,
		.downtime_ms = (int)nova_job_int(job, "downtime"),
		.rate_bps = source->cap_bps,
	};

	if (source->mode != NOVA_LIVE || !nova_job_was_running(job) ||
	    !(json_is_true(json_object_get(job->args, "estimate")) || gives_up(job)) ||
	    (json_is_true(json_object_get(job->args, "ignore-estimate")) &&
		!json_is_true(json_object_get(job->args, "estimate"))))
		return NOVA_STEP_DONE;
	job->op = nova_estimate_start(job, &options, estimated, job, err);
	return job->op ? NOVA_STEP_WAIT : NOVA_STEP_FAILED;
}

/* ---- path ---- */

bool nova_path_may_be_direct(const struct nova_job *job)
{
	return strcmp(nova_job_text(job, "path"), "relay") && strcmp(nova_job_text(job, "mode"), "cold");
}

/* Where the destination's hypervisor waits: on its host's address, as we reach it, at the port it told. */
json_t *nova_path_direct(const struct nova_source *source)
{
	const struct nova_job *job = source->job;
	const json_t *peer = json_object_get(nova_config_get(job->host->config, "peers"), job->peer);
	const char *address = json_string_value(json_array_get(json_object_get(peer, "address"), 0));
	const char *name = json_string_value(json_object_get(peer, "certificate-name"));
	const char *colon = address ? strrchr(address, ':') : NULL;
	bool brackets = colon && address[0] == '[' && colon[-1] == ']';

	if (!colon)
		return NULL;
	return json_pack("{s:s%, s:O?, s:s, s:I}", "host", address + brackets, (size_t)(colon - address) - 2u * brackets, "port",
	    json_object_get(source->direct_to, "port"), "peer", name ? name : job->peer, "bandwidth_bytes_per_s",
	    (json_int_t)source->cap_bps / 8);
}

static void chosen(struct nova_source *source, bool direct, json_t *why /* stolen */)
{
	source->direct = direct;
	json_object_set_new(source->job->report, "path", json_string(direct ? "direct" : "relay"));
	json_object_set_new(source->job->report, "path_why", why);
	if (direct)
		json_object_set_new(source->job->report, "digest",
		    json_string("none: the stream did not pass the daemons; TLS protected it on its way"));
}

static void choose_by_rate(struct nova_source *source, double link_bytes_per_s)
{
	bool direct = link_bytes_per_s * 8 >= DIRECT_FROM_BPS;

	chosen(source, direct,
	    json_sprintf("the link carries %.2f Gbit/s: %s", link_bytes_per_s * 8 / 1e9,
		direct ? "one core of codec would be the bottleneck" : "packing gains more than it costs (direct from 10 Gbit/s on)"));
}

static void probed(void *arg, json_t *result, const struct nova_error *err)
{
	struct nova_job *job = arg;

	job->op = NULL;
	if (err)
		chosen(job->ctx, false, json_sprintf("the link could not be measured: %s", err->text));
	else
		choose_by_rate(job->ctx, json_number_value(json_object_get(result, "link_bytes_per_s")));
	nova_run_done(job->run);
}

/* The direct path cannot do everything. */
static int check_direct(const struct nova_source *source, struct nova_error *err)
{
	if (!source->identity)
		return nova_error_set(err, NOVA_REFUSED, "--path direct is not supported by driver %s",
		    source->job->slot->ops->name);
	if (!strcmp(nova_job_text(source->job, "on-stall"), "postcopy"))
		return nova_error_set(
		    err, NOVA_INVALID, "--path direct and --on-stall postcopy exclude each other: use --path relay");
	return 0;
}

enum nova_step_result nova_path_row(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct nova_job *job = ctx;
	struct nova_source *source = job->ctx;
	const json_t *estimate = json_object_get(job->report, "estimate");
	struct nova_error why;

	if (!nova_path_may_be_direct(job))
		return NOVA_STEP_DONE;
	if (!strcmp(nova_job_text(job, "path"), "direct")) {
		if (check_direct(source, err) < 0)
			return NOVA_STEP_FAILED;
		chosen(source, true, json_string("asked for"));
		return NOVA_STEP_DONE;
	}
	if (check_direct(source, &why) < 0) {
		chosen(source, false, json_string(why.text));
		return NOVA_STEP_DONE;
	}
	if (estimate) {
		choose_by_rate(source, json_number_value(json_object_get(estimate, "link_bytes_per_s")));
		return NOVA_STEP_DONE;
	}
	job->op = nova_probe_start(job->host->base, source->ops, source->session, probed, job, err);
	return job->op ? NOVA_STEP_WAIT : NOVA_STEP_FAILED;
}
