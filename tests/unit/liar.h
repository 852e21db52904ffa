/* SPDX-License-Identifier: Apache-2.0
 *
 * liar.h - for unit tests of what a peer may say: a real host whose links lead to the test, so that it plays the other
 * daemon word by word, and whose driver is a guest that does as it is told and counts. Header only.
 */
#ifndef NOVA_TEST_LIAR_H
#define NOVA_TEST_LIAR_H

#include "access_host.h"

/* What the host asked us and what it answered. */
struct nova_request {
	bool answered;
	json_t *result; /* owned */
	struct nova_error err;
};

struct nova_session {
	const struct nova_session_events *events;
	void *arg;
	bool freed;
	char asked[512]; /* commands, in order, with a space after each */
};

struct liar_line {
	const char *command;
	const char *json;        /* the answer; NULL: an error of this category */
	enum nova_category category;
};

struct liar {
	struct access_host a;
	struct nova_plugins plugins;
	struct nova_link_ops links;
	struct nova_driver driver;
	const struct nova_driver *real; /* of the slot, to be put back */
	struct nova_session *session;   /* owned: the newest */
	const struct liar_line *script;
	int calls[NOVA_VERBS];
	char path[128]; /* of the socket that IN_PREPARE tells */
};

static struct liar *liar_now; /* callbacks of a driver and of links know no test */

/* ---- the peer ---- */

static inline void liar_up(void *arg, json_t *result, const struct nova_error *err)
{
	struct nova_session *session = arg;

	if (!session->freed)
		session->events->up(session->arg, "beta");
}

static inline struct nova_session *liar_session(void)
{
	struct nova_session *session = calloc(1, sizeof(*session));

	assert_non_null(session);
	liar_now->session = session;
	return session;
}

static inline struct nova_session *liar_dial(struct nova_links *links, const char *peer,
    const struct nova_session_options *options, const struct nova_session_events *events, void *arg, struct nova_error *err)
{
	char asked[512] = "";

	if (liar_now->session) { /* what was asked before stays known */
		assert_true(liar_now->session->freed);
		memcpy(asked, liar_now->session->asked, sizeof(asked));
		free(liar_now->session);
	}
	liar_session();
	memcpy(liar_now->session->asked, asked, sizeof(asked));
	liar_now->session->events = events;
	liar_now->session->arg = arg;
	nova_op_later(liar_now->a.loop.base, NULL, NULL, liar_up, liar_now->session, err);
	return liar_now->session;
}

static inline void liar_set_events(struct nova_session *session, const struct nova_session_events *events, void *arg)
{
	session->events = events;
	session->arg = arg;
}

static inline const char *liar_user(struct nova_session *session)
{
	return NULL;
}

static inline const char *liar_from(struct nova_session *session)
{
	return "192.0.2.1:1";
}

static inline struct nova_op *liar_request(struct nova_session *session, const char *command, json_t *args, int limit_ms,
    nova_done_fn done, void *arg, struct nova_error *err)
{
	size_t used = strlen(session->asked);
	struct nova_error failure;

	assert_false(session->freed);
	snprintf(session->asked + used, sizeof(session->asked) - used, "%s ", command);
	for (const struct liar_line *line = liar_now->script; line && line->command; line++) {
		json_t *answer = line->json ? json_loads(line->json, JSON_DECODE_ANY, NULL) : NULL;

		if (strcmp(line->command, command)) {
			json_decref(answer);
			continue;
		}
		if (line->json && strcmp(line->json, "null") && !answer)
			fail_msg("the script has no JSON: %s", line->json);
		nova_error_set(&failure, line->category, "as the script says");
		return nova_op_later(liar_now->a.loop.base, answer, line->json ? NULL : &failure, done, arg, err);
	}
	return nova_op_later(liar_now->a.loop.base, json_object(), NULL, done, arg, err);
}

static inline void liar_answer(struct nova_request *request, json_t *result, const struct nova_error *err)
{
	assert_false(request->answered);
	request->answered = true;
	request->result = result;
	if (err)
		request->err = *err;
}

static inline void liar_session_limit(struct nova_session *session, int ms)
{
}

static inline void liar_session_rate(struct nova_session *session, uint64_t rate)
{
}

static inline void liar_stats(struct nova_session *session, struct nova_link_stats *stats)
{
	memset(stats, 0, sizeof(*stats));
}

static inline struct nova_session *liar_free(struct nova_session *session)
{
	if (session)
		session->freed = true;
	return NULL;
}

/* ---- the guest ---- */

static inline struct nova_op *liar_verb(enum nova_verb verb, struct nova_guest *guest, json_t *args, nova_done_fn done,
    void *arg, struct nova_error *err)
{
	json_t *result = json_object();

	liar_now->calls[verb]++;
	if (verb == NOVA_VERB_CHECK || verb == NOVA_VERB_OUT_PREPARE)
		json_object_update_new(result, json_pack("{s:{}, s:{}, s:[], s:I}", "spec", "needs", "carried", "memory_bytes",
						   (json_int_t)64 << 20));
	if (verb == NOVA_VERB_IN_PREPARE)
		json_object_set_new(result, "path", json_string(liar_now->path));
	if (verb == NOVA_VERB_START || verb == NOVA_VERB_RESUME)
		nova_guest_set_state(guest, NOVA_GUEST_RUNNING, NULL);
	if (verb == NOVA_VERB_STOP)
		nova_guest_set_state(guest, NOVA_GUEST_STOPPED, NULL);
	return nova_op_later(liar_now->a.loop.base, result, NULL, done, arg, err);
}

#define LIAR_VERB(name, VERB) \
	static inline struct nova_op *liar_##name( \
	    void *self, struct nova_guest *guest, json_t *args, nova_done_fn done, void *arg, struct nova_error *err) \
	{ \
		return liar_verb(NOVA_VERB_##VERB, guest, args, done, arg, err); \
	}
LIAR_VERB(check, CHECK)
LIAR_VERB(create, CREATE)
LIAR_VERB(start, START)
LIAR_VERB(stop, STOP)
LIAR_VERB(delete, DELETE)
LIAR_VERB(pause, PAUSE)
LIAR_VERB(resume, RESUME)
LIAR_VERB(out_prepare, OUT_PREPARE)
LIAR_VERB(in_prepare, IN_PREPARE)

/* ---- the host between them ---- */

static inline void liar_prepare(struct liar *liar)
{
	memset(liar, 0, sizeof(*liar));
	liar_now = liar;
	access_prepare(&liar->a);
	access_set(&liar->a, "resume-limit", "1s");
	access_set(&liar->a, "peer", "beta=192.0.2.1:1");
}

/* The host, with links that lead here. */
static inline void liar_host(struct liar *liar)
{
	access_start(&liar->a);
	snprintf(liar->path, sizeof(liar->path), "%s/run/incoming", liar->a.loop.dir);
	liar->plugins = *liar->a.host->plugins;
	liar->links = *liar->plugins.links;
	liar->links.dial = liar_dial;
	liar->links.set_events = liar_set_events;
	liar->links.user = liar_user;
	liar->links.from = liar_from;
	liar->links.request = liar_request;
	liar->links.answer = liar_answer;
	liar->links.session_limit = liar_session_limit;
	liar->links.session_rate = liar_session_rate;
	liar->links.stats = liar_stats;
	liar->links.free = liar_free;
	liar->plugins.links = &liar->links;
	liar->a.host->plugins = &liar->plugins;
	liar->a.host->links = (struct nova_links *)liar; /* never looked into: every call comes here */
}

/* The same with the scripted driver in the place of a real one. */
static inline void liar_open(struct liar *liar)
{
	liar_prepare(liar);
	liar_host(liar);
	liar->driver = (struct nova_driver){ .struct_size = sizeof(liar->driver), .name = "liar" };
	liar->driver.verb[NOVA_VERB_CHECK] = liar_check;
	liar->driver.verb[NOVA_VERB_CREATE] = liar_create;
	liar->driver.verb[NOVA_VERB_START] = liar_start;
	liar->driver.verb[NOVA_VERB_STOP] = liar_stop;
	liar->driver.verb[NOVA_VERB_DELETE] = liar_delete;
	liar->driver.verb[NOVA_VERB_PAUSE] = liar_pause;
	liar->driver.verb[NOVA_VERB_RESUME] = liar_resume;
	liar->driver.verb[NOVA_VERB_OUT_PREPARE] = liar_out_prepare;
	liar->driver.verb[NOVA_VERB_IN_PREPARE] = liar_in_prepare;
	liar->real = liar->a.host->slots[0].ops;
	liar->a.host->slots[0].ops = &liar->driver;
}

static inline void liar_close(struct liar *liar)
{
	struct nova_host *host = liar->a.host;

	while (!TAILQ_EMPTY(&host->jobs))
		nova_job_free(TAILQ_FIRST(&host->jobs));
	nova_incoming_close_all(host);
	while (!TAILQ_EMPTY(&host->guests))
		nova_entry_free(TAILQ_FIRST(&host->guests));
	host->links = NULL;
	if (liar->real)
		host->slots[0].ops = liar->real;
	access_close(&liar->a);
	free(liar->session);
	liar_now = NULL;
}

/* A guest of the scripted driver, running. */
static inline struct nova_entry *liar_guest(struct liar *liar, const char *name)
{
	struct nova_entry *entry = access_guest(&liar->a, name, "alice", 64, 1, 0);

	nova_guest_set_state(&entry->guest, NOVA_GUEST_RUNNING, NULL);
	return entry;
}

/* Something the peer asks; 0 when it was accepted. result and err are in the request until the next. */
static inline void liar_asks(struct liar *liar, struct nova_session *session, const char *command, json_t *args,
    struct nova_request *request)
{
	json_decref(request->result);
	memset(request, 0, sizeof(*request));
	session->events->request(session->arg, command, args, request);
	json_decref(args);
}

#define LIAR_UNTIL(liar, condition) LOOP_UNTIL(&(liar)->a.loop, condition)

static inline bool liar_idle(const struct liar *liar)
{
	return TAILQ_EMPTY(&liar->a.host->jobs);
}

#endif
