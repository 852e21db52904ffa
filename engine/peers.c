/* SPDX-License-Identifier: Apache-2.0
 *
 * peers.c - commands that ask several others and put their answers together: `peers` dials every
 * configured peer, `drivers` probes every driver. Each waits at most ASK_LIMIT_MS.
 */
#include "cleanup.h"
#include "host.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define ASK_LIMIT_MS 5000

struct survey;

/* One of those asked. */
struct asked {
	struct survey *survey;
	struct nova_session *session; /* owned: peers only */
	struct nova_op *op;           /* owned */
	json_t *row;                  /* borrowed: of the survey's list */
	struct nova_slot *slot;       /* borrowed: drivers only */
	int64_t begin_ms;
	bool over;
};

struct survey {
	struct nova_op op;
	struct nova_host *host;
	json_t *list; /* owned */
	struct asked *asked;
	size_t count, waiting;
	struct nova_op *later; /* owned: all were known at once */
	nova_done_fn done;
	void *arg;
};

static void survey_free(struct survey *survey)
{
	for (size_t i = 0; i < survey->count; i++) {
		nova_op_drop(survey->asked[i].op);
		if (survey->asked[i].session)
			survey->host->plugins->links->free(survey->asked[i].session);
	}
	nova_op_drop(survey->later);
	json_decref(survey->list);
	free(survey->asked);
	free(survey);
}

static void survey_drop(struct nova_op *op)
{
	survey_free((struct survey *)op);
}

static struct survey *survey_new(struct nova_host *host, size_t count, nova_done_fn done, void *arg, struct nova_error *err)
{
	struct survey *survey = calloc(1, sizeof(*survey));

	if (survey)
		survey->asked = calloc(count + 1, sizeof(*survey->asked));
	if (!survey || !survey->asked) {
		free(survey);
		nova_error_sys(err, ENOMEM, "a survey");
		return NULL;
	}
	survey->op.drop = survey_drop;
	survey->host = host;
	survey->list = json_array();
	survey->done = done;
	survey->arg = arg;
	return survey;
}

static struct asked *survey_add(struct survey *survey, json_t *row)
{
	struct asked *asked = &survey->asked[survey->count++];

	asked->survey = survey;
	asked->row = row;
	asked->begin_ms = nova_now_ms();
	json_array_append_new(survey->list, row);
	survey->waiting++;
	return asked;
}

static void survey_end(struct survey *survey)
{
	nova_done_fn done = survey->done;
	void *arg = survey->arg;
	json_t *list = json_incref(survey->list);

	survey_free(survey);
	done(arg, list, NULL);
	json_decref(list);
}

static void asked_end(struct asked *asked, const struct nova_error *err)
{
	struct survey *survey = asked->survey;

	if (asked->over)
		return;
	asked->over = true;
	if (err)
		json_object_set_new(asked->row, "why", json_string(err->text));
	if (--survey->waiting == 0 && !survey->later)
		survey_end(survey);
}

static void all_known(void *arg, json_t *result, const struct nova_error *err)
{
	struct survey *survey = arg;

	survey->later = NULL;
	survey_end(survey);
}

/* Nobody is left to wait for: the answer still comes from the loop. */
static struct nova_op *survey_started(struct survey *survey, struct nova_error *err)
{
	if (survey->waiting)
		return &survey->op;
	survey->later = nova_op_later(survey->host->base, NULL, NULL, all_known, survey, err);
	if (survey->later)
		return &survey->op;
	survey_free(survey);
	return NULL;
}

/* ---- peers ---- */

static void peer_answered(void *arg, json_t *result, const struct nova_error *err)
{
	struct asked *asked = arg;
	struct nova_link_stats stats = { 0 };

	asked->op = NULL;
	if (!err) {
		asked->survey->host->plugins->links->stats(asked->session, &stats);
		json_object_set_new(asked->row, "answers", json_true());
		json_object_set_new(asked->row, "rtt_us", json_integer(stats.rtt_us));
		json_object_set(asked->row, "about", result);
	}
	asked_end(asked, err);
}

static void peer_up(void *arg, const char *peer)
{
	struct asked *asked = arg;
	const struct nova_link_ops *links = asked->survey->host->plugins->links;
	struct nova_error err;

	asked->op = links->request(asked->session, "about", NULL, ASK_LIMIT_MS, peer_answered, asked, &err);
	if (!asked->op)
		asked_end(asked, &err);
}

static void peer_request(void *arg, const char *command, json_t *args, struct nova_request *request)
{
	struct asked *asked = arg;
	struct nova_error err;

	nova_error_set(&err, NOVA_INVALID, "not in this session");
	asked->survey->host->plugins->links->answer(request, NULL, &err);
}

static void peer_channel(void *arg, uint16_t id, enum nova_channel_kind kind, struct nova_channel *channel)
{
	channel->ops->free(channel);
}

static void peer_state(void *arg, const char *state, json_t *data)
{
}

static void peer_closed(void *arg, const struct nova_error *err)
{
	struct asked *asked = arg;

	asked->session = asked->survey->host->plugins->links->free(asked->session);
	asked_end(asked, err);
}

static const struct nova_session_events peer_events = { peer_up, peer_request, peer_channel, peer_state, peer_closed };

static void ask_peer(struct asked *asked, const char *name)
{
	static const struct nova_session_options options = { .resume_limit_ms = 0 };
	struct nova_host *host = asked->survey->host;
	struct nova_error err;

	nova_error_set(&err, NOVA_STATE, "this daemon has no certificate: set cert, key and ca");
	if (host->links)
		asked->session = host->plugins->links->dial(host->links, name, &options, &peer_events, asked, &err);
	if (!asked->session) {
		asked->over = true;
		asked->survey->waiting--;
		json_object_set_new(asked->row, "why", json_string(err.text));
	}
}

struct nova_op *nova_cmd_peers(struct nova_host *host, const struct nova_identity *who, json_t *args, nova_done_fn done,
    void *arg, struct nova_error *err)
{
	json_t *peers = (json_t *)nova_config_get(host->config, "peers"), *peer;
	struct survey *survey = survey_new(host, json_object_size(peers), done, arg, err);
	const char *name;

	if (!survey)
		return NULL;
	json_object_foreach (peers, name, peer) {
		json_t *row = json_pack("{s:s, s:O?, s:b}", "name", name, "address", json_object_get(peer, "address"),
		    "answers", 0);

		ask_peer(survey_add(survey, row), name);
	}
	return survey_started(survey, err);
}

/* ---- drivers ---- */

static void driver_answered(void *arg, json_t *result, const struct nova_error *err)
{
	struct asked *asked = arg;

	asked->op = NULL;
	if (!err) {
		json_object_update(asked->row, result);
		json_decref(asked->slot->probe);
		asked->slot->probe = json_incref(result);
	}
	asked_end(asked, err);
}

struct nova_op *nova_cmd_drivers(struct nova_host *host, const struct nova_identity *who, json_t *args,
    nova_done_fn done, void *arg, struct nova_error *err)
{
	struct survey *survey = survey_new(host, host->slot_count, done, arg, err);

	if (!survey)
		return NULL;
	for (size_t i = 0; i < host->slot_count; i++) {
		struct nova_slot *slot = &host->slots[i];
		struct asked *asked =
		    survey_add(survey, json_pack("{s:s, s:b}", "name", slot->ops->name, "found", 0));
		struct nova_error why;

		asked->slot = slot;
		asked->op = nova_slot_call(slot, NOVA_VERB_PROBE, NULL, NULL, driver_answered, asked, &why);
		if (!asked->op) {
			asked->over = true;
			survey->waiting--;
			json_object_set_new(asked->row, "why", json_string(why.text));
		}
	}
	return survey_started(survey, err);
}
