/* SPDX-License-Identifier: Apache-2.0
 *
 * test_liar.c - peers that are authenticated and lie: sources with wrong tokens, tokens of the past, digests that do not
 * agree, commits for others' migrations, requests in the wrong order; destinations whose answers are no answers. The
 * guest then runs on exactly one side as far as one honest side can see to it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "liar.h"

#define TOKEN "0123456789abcdef0123456789abcdef"
#define OTHER "fedcba9876543210fedcba9876543210"
#define UUID "7c3b4f2e-0000-4000-8000-000000000000"

/* ---- a source that lies to us ---- */

static struct nova_session *arrives(struct liar *liar, const char *peer)
{
	struct nova_session *session = calloc(1, sizeof(*session));

	nova_migrate_accept(liar->a.host, session, peer);
	assert_non_null(session->events);
	return session;
}

static json_t *reservation(const char *token, const char *guest, const char *mode)
{
	return json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:{}, s:b, s:I, s:I}", "token", token, "guest", guest, "uuid", UUID,
	    "owner", "alice", "driver", "liar", "mode", mode, "spec", "run", 1, "memory_bytes", (json_int_t)64 << 20,
	    "history_bytes", (json_int_t)0);
}

static void reserve(struct liar *liar, struct nova_session *session, const char *token, const char *guest,
    const char *mode, struct nova_request *request)
{
	liar_asks(liar, session, "reserve", reservation(token, guest, mode), request);
	LIAR_UNTIL(liar, request->answered);
	if (request->err.category)
		fail_msg("%s", request->err.text);
}

static json_t *commit_of(const char *token, const char *digest, json_int_t raw_bytes)
{
	return json_pack("{s:s, s:s, s:I, s:b, s:b, s:[]}", "token", token, "digest", digest, "raw_bytes", raw_bytes, "postcopy",
	    0, "run", 1, "disks");
}

static enum nova_decision decided(struct liar *liar, const char *token)
{
	enum nova_decision decision;

	assert_int_equal(nova_store_decision(liar->a.host->store, token, &decision, NULL), 0);
	return decision;
}

static void refused(struct liar *liar, struct nova_session *session, const char *command, json_t *args, const char *why)
{
	struct nova_request request = { 0 };

	liar_asks(liar, session, command, args, &request);
	LIAR_UNTIL(liar, request.answered);
	if (!request.err.category || !strstr(request.err.text, why))
		fail_msg("%s: '%s' should say '%s'", command, request.err.category ? request.err.text : "accepted", why);
	json_decref(request.result);
}

static void leaves(struct nova_session *session)
{
	struct nova_error why;

	nova_error_set(&why, NOVA_CANCELLED, "the peer closed the session");
	session->events->closed(session->arg, &why);
	assert_true(session->freed);
	free(session);
}

static void test_wrong_tokens(void **state)
{
	static const char *const bad[] = { "", "0123", TOKEN "0", "0123456789ABCDEF0123456789abcdef",
		"0123456789abcdef0123456789abcdeg", "../../../../../../../etc/passwd1" };
	struct liar liar;
	struct nova_session *session;
	struct nova_request request = { 0 };

	liar_open(&liar);
	session = arrives(&liar, "beta");
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		refused(&liar, session, "reserve", reservation(bad[i], "g", "cold"), "token must be 32");
		refused(&liar, session, "commit", commit_of(bad[i], "", 0), "no reservation");
	}
	refused(&liar, session, "outcome", json_object(), "32 hexadecimal");
	refused(&liar, session, "outcome", json_pack("{s:i}", "token", 7), "32 hexadecimal");
	refused(&liar, session, "commit", NULL, "no reservation");
	refused(&liar, session, "recover", json_pack("{s:s}", "token", TOKEN), "");
	refused(&liar, session, "sing", json_object(), "does not know");
	reserve(&liar, session, TOKEN, "g", "cold", &request);
	refused(&liar, session, "commit", commit_of(OTHER, "", 0), "no reservation");
	refused(&liar, session, "reserve", reservation(OTHER, "h", "cold"), "has a reservation already");
	assert_int_equal(liar.calls[NOVA_VERB_START], 0);
	leaves(session);
	LIAR_UNTIL(&liar, liar_idle(&liar));
	assert_null(nova_entry_find(liar.a.host, "g"));
	assert_int_equal(decided(&liar, TOKEN), NOVA_ABORTED);
	json_decref(request.result);
	liar_close(&liar);
}

/* Another peer knows the token, or the same one over another session. */
static void test_commit_for_another_session(void **state)
{
	struct liar liar;
	struct nova_session *honest, *other;
	struct nova_request request = { 0 };

	liar_open(&liar);
	honest = arrives(&liar, "beta");
	other = arrives(&liar, "gamma");
	reserve(&liar, honest, TOKEN, "g", "cold", &request);
	refused(&liar, other, "commit", commit_of(TOKEN, "", 0), "no reservation");
	refused(&liar, other, "recover", json_pack("{s:s, s:s, s:s}", "token", TOKEN, "guest", "g", "uuid", UUID), "not one of");
	refused(&liar, other, "outcome", json_pack("{s:s}", "token", TOKEN), "knows nothing");
	refused(&liar, other, "reserve", reservation(TOKEN, "h", "cold"), "used before");
	liar_asks(&liar, other, "abort", json_pack("{s:s}", "token", TOKEN), &request);
	assert_true(request.answered); /* "nothing of yours is here", and so it stays */
	assert_non_null(nova_entry_find(liar.a.host, "g"));
	assert_int_equal(decided(&liar, TOKEN), NOVA_UNDECIDED);

	liar_asks(&liar, honest, "commit", commit_of(TOKEN, "", 0), &request);
	LIAR_UNTIL(&liar, request.answered);
	assert_true(json_is_true(json_object_get(request.result, "running")));
	assert_int_equal(decided(&liar, TOKEN), NOVA_COMMITTED);
	leaves(other);
	leaves(honest);
	LIAR_UNTIL(&liar, liar_idle(&liar));
	assert_int_equal(nova_entry_find(liar.a.host, "g")->guest.state, NOVA_GUEST_RUNNING);
	json_decref(request.result);
	liar_close(&liar);
}

/* What was decided once is not decided again for a guest that comes under the same token. */
static void test_token_of_the_past(void **state)
{
	struct liar liar;
	struct nova_session *session;
	struct nova_request request = { 0 };

	liar_open(&liar);
	session = arrives(&liar, "beta");
	reserve(&liar, session, TOKEN, "g", "cold", &request);
	liar_asks(&liar, session, "commit", commit_of(TOKEN, "", 0), &request);
	LIAR_UNTIL(&liar, request.answered);
	LIAR_UNTIL(&liar, liar_idle(&liar));
	leaves(session);
	session = arrives(&liar, "beta");
	refused(&liar, session, "reserve", reservation(TOKEN, "h", "cold"), "used before");
	assert_null(nova_entry_find(liar.a.host, "h"));
	refused(&liar, session, "commit", commit_of(TOKEN, "", 0), "no reservation");
	liar_asks(&liar, session, "outcome", json_pack("{s:s}", "token", TOKEN), &request);
	assert_string_equal(json_string_value(json_object_get(request.result, "decision")), "committed");
	refused(&liar, session, "outcome", json_pack("{s:s}", "token", OTHER), "knows nothing"); /* not "aborted" */
	assert_int_equal(decided(&liar, OTHER), NOVA_UNDECIDED);
	leaves(session);
	json_decref(request.result);
	liar_close(&liar);
}

static void test_commit_twice_and_abort_after_it(void **state)
{
	struct liar liar;
	struct nova_session *session;
	struct nova_request request = { 0 }, second = { 0 }, third = { 0 };

	liar_open(&liar);
	session = arrives(&liar, "beta");
	reserve(&liar, session, TOKEN, "g", "cold", &request);
	liar_asks(&liar, session, "commit", commit_of(TOKEN, "", 0), &request);
	liar_asks(&liar, session, "commit", commit_of(TOKEN, "", 0), &second);
	assert_true(second.answered);
	assert_int_equal(second.err.category, NOVA_REFUSED);
	LIAR_UNTIL(&liar, decided(&liar, TOKEN) != NOVA_UNDECIDED);
	liar_asks(&liar, session, "abort", json_pack("{s:s}", "token", TOKEN), &third);
	LIAR_UNTIL(&liar, request.answered);
	LIAR_UNTIL(&liar, liar_idle(&liar));
	assert_int_equal(decided(&liar, TOKEN), NOVA_COMMITTED);
	assert_int_equal(nova_entry_find(liar.a.host, "g")->guest.state, NOVA_GUEST_RUNNING);
	assert_int_equal(liar.calls[NOVA_VERB_START], 1);
	assert_int_equal(liar.calls[NOVA_VERB_DELETE], 0);
	leaves(session);
	json_decref(request.result);
	json_decref(second.result);
	json_decref(third.result);
	liar_close(&liar);
}

static void test_outcome_before_the_commit(void **state)
{
	struct liar liar;
	struct nova_session *session, *again;
	struct nova_request request = { 0 }, outcome = { 0 };

	liar_open(&liar);
	session = arrives(&liar, "beta");
	again = arrives(&liar, "beta");
	reserve(&liar, session, TOKEN, "g", "cold", &request);
	liar_asks(&liar, again, "outcome", json_pack("{s:s}", "token", TOKEN), &outcome);
	assert_string_equal(json_string_value(json_object_get(outcome.result, "decision")), "aborted");
	refused(&liar, session, "commit", commit_of(TOKEN, "", 0), ""); /* too late, for ever */
	LIAR_UNTIL(&liar, liar_idle(&liar));
	assert_null(nova_entry_find(liar.a.host, "g"));
	assert_int_equal(liar.calls[NOVA_VERB_START], 0);
	assert_int_equal(decided(&liar, TOKEN), NOVA_ABORTED);
	leaves(again);
	leaves(session);
	json_decref(request.result);
	json_decref(outcome.result);
	liar_close(&liar);
}

/* The guest's hypervisor says that all has arrived; the source's digest is of something else, or there was no stream. */
static void test_digests_that_do_not_agree(void **state)
{
	static const struct {
		const char *digest;
		json_int_t raw_bytes;
	} lies[] = { { "", 0 }, { "00000000000000000000000000000000", 0 }, { "d41d8cd98f00b204e9800998ecf8427e", -1 },
		{ "ffffffffffffffffffffffffffffffff", INT64_MAX } };
	struct liar liar;

	for (size_t i = 0; i < sizeof(lies) / sizeof(*lies); i++) {
		struct nova_session *session;
		struct nova_request request = { 0 };
		struct nova_entry *entry;
		NOVA_AUTOJSON json_t *completed = json_pack("{s:s}", "status", "completed");

		liar_open(&liar);
		session = arrives(&liar, "beta");
		reserve(&liar, session, TOKEN, "g", "live", &request);
		entry = nova_entry_find(liar.a.host, "g");
		nova_guest_event(&entry->guest, "MIGRATION", completed);
		refused(&liar, session, "commit", commit_of(TOKEN, lies[i].digest, lies[i].raw_bytes), "stream");
		LIAR_UNTIL(&liar, liar_idle(&liar));
		assert_null(nova_entry_find(liar.a.host, "g"));
		assert_int_equal(liar.calls[NOVA_VERB_RESUME] + liar.calls[NOVA_VERB_START], 0);
		assert_int_equal(decided(&liar, TOKEN), NOVA_ABORTED);
		leaves(session);
		json_decref(request.result);
		liar_close(&liar);
	}
}

/* Members of the wrong type or size. */
static void test_malformed_reservations(void **state)
{
	static const char *const changes[] = { "{\"token\": 1}", "{\"guest\": \"../x\"}", "{\"guest\": \"\"}", "{\"uuid\": \"x\"}",
		"{\"owner\": []}", "{\"driver\": \"nobody\"}", "{\"driver\": 5}", "{\"mode\": {}}", "{\"spec\": []}",
		"{\"spec\": \"text\"}", "{\"disks\": -1}", "{\"disks\": 100000}", "{\"history_bytes\": -1}",
		"{\"history_bytes\": 9223372036854775807}", "{\"direct\": {}}", "{\"direct\": {\"subjects\": [\"\"]}}",
		"{\"direct\": {\"subjects\": [1,2,3,4,5]}}", "{\"direct\": 1}", "{\"memory_bytes\": -1}",
		"{\"memory_bytes\": 9223372036854775807}" };
	struct liar liar;
	struct nova_session *session;

	liar_open(&liar);
	session = arrives(&liar, "beta");
	for (size_t i = 0; i < sizeof(changes) / sizeof(*changes); i++) {
		json_t *args = reservation(TOKEN, "g", "live");
		struct nova_request request = { 0 };

		json_object_update_new(args, json_loads(changes[i], 0, NULL));
		liar_asks(&liar, session, "reserve", args, &request);
		LIAR_UNTIL(&liar, request.answered);
		if (!request.err.category)
			fail_msg("%s was accepted", changes[i]);
		json_decref(request.result);
	}
	assert_true(TAILQ_EMPTY(&liar.a.host->guests));
	leaves(session);
	liar_close(&liar);
}

/* ---- a destination that lies to us ---- */

enum ends { RUNS_HERE, RUNS_THERE, IN_DOUBT };

static const struct {
	const char *what;
	struct liar_line script[4];
	enum ends ends;
} lies[] = {
	{ "honest", { { "commit", "{\"running\": true}" } }, RUNS_THERE },
	{ "refuses the reservation", { { "reserve", NULL, NOVA_REFUSED } }, RUNS_HERE },
	{ "garbage for a reservation", { { "reserve", "[1, {\"direct\": 7}]" }, { "commit", "{\"running\": true}" } }, RUNS_THERE },
	{ "wrong types in a reservation",
	    { { "reserve", "{\"disks\": 5, \"baseline\": \"x\", \"direct\": [], \"job\": null}" }, { "commit", "{\"running\": true}" } },
	    RUNS_THERE },
	{ "refuses the commit", { { "commit", NULL, NOVA_REFUSED } }, RUNS_HERE },
	{ "says that the link is gone, and then aborted",
	    { { "commit", NULL, NOVA_LINK }, { "outcome", "{\"decision\": \"aborted\"}" } }, RUNS_HERE },
	{ "says nothing in time, and then committed",
	    { { "commit", NULL, NOVA_TIMEOUT }, { "outcome", "{\"decision\": \"committed\"}" } }, RUNS_THERE },
	{ "answers the commit with nothing", { { "commit", "{}" }, { "outcome", "{\"decision\": \"committed\"}" } }, RUNS_THERE },
	{ "answers the commit with a list", { { "commit", "[true]" }, { "outcome", "{\"decision\": \"aborted\"}" } }, RUNS_HERE },
	{ "answers the commit with a number", { { "commit", "{\"running\": 1}" }, { "outcome", NULL, NOVA_STATE } }, IN_DOUBT },
	{ "does not know what was decided", { { "commit", NULL, NOVA_LINK }, { "outcome", "{\"decision\": \"undecided\"}" } }, IN_DOUBT },
	{ "a decision that is none", { { "commit", NULL, NOVA_LINK }, { "outcome", "{\"decision\": \"COMMITTED\"}" } }, IN_DOUBT },
	{ "a decision that is no text", { { "commit", NULL, NOVA_LINK }, { "outcome", "{\"decision\": true}" } }, IN_DOUBT },
	{ "an outcome that is a list", { { "commit", NULL, NOVA_LINK }, { "outcome", "[\"aborted\"]" } }, IN_DOUBT },
};

static void migrate(struct liar *liar, struct nova_entry *entry)
{
	const struct nova_identity alice = access_who(NOVA_ROLE_OPERATOR, "alice");

	access_run(&liar->a, &alice, "migrate",
	    json_pack("{s:s, s:s, s:s}", "guest", entry->name, "to", "beta", "mode", "cold"));
}

static void test_destinations_that_lie(void **state)
{
	for (size_t i = 0; i < sizeof(lies) / sizeof(*lies); i++) {
		struct liar liar;
		struct nova_entry *entry;

		liar_open(&liar);
		entry = liar_guest(&liar, "g");
		liar.script = lies[i].script;
		migrate(&liar, entry);
		if (lies[i].ends == IN_DOUBT) {
			loop_run_ms(&liar.a.loop, 1500); /* it asks more than once, and believes nothing */
			assert_int_equal(entry->guest.state, NOVA_GUEST_IN_DOUBT);
			assert_non_null(strstr(liar.session->asked, "outcome "));
			assert_int_equal(liar.calls[NOVA_VERB_START], 0);
			assert_int_equal(liar.calls[NOVA_VERB_DELETE], 0);
		} else {
			LIAR_UNTIL(&liar, liar_idle(&liar));
			entry = nova_entry_find(liar.a.host, "g");
			if ((entry != NULL) != (lies[i].ends == RUNS_HERE))
				fail_msg("%s: the guest is %s", lies[i].what, entry ? "here" : "gone");
			if (entry && entry->guest.state != NOVA_GUEST_RUNNING)
				fail_msg("%s: it is %s", lies[i].what, nova_guest_state_name(entry->guest.state));
		}
		liar_close(&liar);
	}
}

/* Requests that a destination has no business to make, in the middle of everything. */
static struct nova_request nagging[64];

static void nag(evutil_socket_t fd, short what, void *arg)
{
	static const char *const commands[] = { "failed", "commit", "abort", "reserve", "outcome", "execute", "" };
	struct liar *liar = arg;

	for (size_t i = 0; i < sizeof(commands) / sizeof(*commands) && liar->session && !liar->session->freed; i++)
		liar_asks(liar, liar->session, commands[i], json_pack("{s:s, s:[i], s:s}", "token", TOKEN, "text", 1, "baseline_damaged", "x"),
		    &nagging[i]);
}

static void test_a_destination_that_nags(void **state)
{
	struct liar liar;
	struct nova_entry *entry;
	struct event *nagger;
	const struct timeval often = { 0, 0 }; /* each turn of the loop */

	liar_open(&liar);
	entry = liar_guest(&liar, "g");
	liar.script = lies[0].script;
	nagger = event_new(liar.a.loop.base, -1, EV_PERSIST, nag, &liar);
	event_add(nagger, &often);
	migrate(&liar, entry);
	LIAR_UNTIL(&liar, liar_idle(&liar));
	event_free(nagger);
	entry = nova_entry_find(liar.a.host, "g"); /* "failed" was believed, or came too late */
	if (entry)
		assert_int_equal(entry->guest.state, NOVA_GUEST_RUNNING);
	else
		assert_non_null(strstr(liar.session->asked, "commit "));
	for (size_t i = 0; i < sizeof(nagging) / sizeof(*nagging); i++)
		json_decref(nagging[i].result);
	liar_close(&liar);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_wrong_tokens),
		cmocka_unit_test(test_commit_for_another_session),
		cmocka_unit_test(test_token_of_the_past),
		cmocka_unit_test(test_commit_twice_and_abort_after_it),
		cmocka_unit_test(test_outcome_before_the_commit),
		cmocka_unit_test(test_digests_that_do_not_agree),
		cmocka_unit_test(test_malformed_reservations),
		cmocka_unit_test(test_destinations_that_lie),
		cmocka_unit_test(test_a_destination_that_nags),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
