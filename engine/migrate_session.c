/* SPDX-License-Identifier: Apache-2.0
 *
 * migrate_session.c - the source's session with the destination: dialling, and what is heard over it.
 */
#include "migrate_source.h"

#include "cleanup.h"

#include <string.h>

static void session_up(void *arg, const char *peer)
{
	struct nova_source *source = arg;

	if (nova_job_at(source->job, "connect"))
		nova_run_done(source->job->run);
	else if (source->rejoin)
		nova_rejoin_session_up(source);
}

static void session_request(void *arg, const char *command, json_t *args, struct nova_request *request)
{
	struct nova_source *source = arg;
	const char *text = json_string_value(json_object_get(args, "text"));
	struct nova_error why;

	if (strcmp(command, "failed")) {
		nova_error_set(&why, NOVA_INVALID, "a source does not know the request '%.40s'", command);
		source->ops->answer(request, NULL, &why);
		return;
	}
	source->ops->answer(request, NULL, NULL);
	source->base_damaged |= json_is_true(json_object_get(args, "baseline_damaged"));
	nova_error_set(&why, NOVA_REFUSED, "%s gave up: %s", source->job->peer, text ? text : "it did not say why");
	nova_job_give_up(source->job, &why);
}

static void session_channel(void *arg, uint16_t id, enum nova_channel_kind kind, struct nova_channel *channel)
{
	channel->ops->free(channel);
}

static void session_state(void *arg, const char *state, json_t *data)
{
	struct nova_source *source = arg;
	bool lost = !strcmp(state, "reconnecting");

	source->reconnect_waited_ms = lost ? json_integer_value(json_object_get(data, "waited_ms")) : 0;
	source->reconnect_limit_ms = lost ? json_integer_value(json_object_get(data, "limit_ms")) : 0;
	nova_watch_progress(source, lost ? "reconnecting" : NULL);
}

static void session_closed(void *arg, const struct nova_error *err)
{
	struct nova_source *source = arg;
	struct nova_error why = *err;

	nova_error_prefix(&why, "link to %s", source->job->peer);
	source->session = source->ops->free(source->session);
	if (nova_source_drains(source) && source->postcopy && !source->completed)
		nova_rejoin_start(source, &why);
	else
		nova_job_give_up(source->job, &why);
}

static const struct nova_session_events session_events = { session_up, session_request, session_channel, session_state,
	session_closed };

int nova_source_resume_limit(const struct nova_job *job)
{
	if (json_object_get(job->args, "resume-limit"))
		return (int)nova_job_int(job, "resume-limit");
	return (int)nova_config_int(job->host->config, "resume-limit");
}

int nova_source_dial(struct nova_source *source, struct nova_error *err)
{
	struct nova_job *job = source->job;
	struct nova_session_options options = {
		.resume_limit_ms = nova_source_resume_limit(job),
		.rate_bps = source->cap_bps,
		.lanes = (int)nova_job_int(job, "lanes"),
	};

	if (!job->host->links)
		return nova_error_set(err, NOVA_STATE, "this daemon has no link to peers: set cert, key, ca and peers");
	source->session = source->ops->dial(job->host->links, job->peer, &options, &session_events, source, err);
	return source->session ? 0 : -1;
}
