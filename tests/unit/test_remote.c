/* SPDX-License-Identifier: Apache-2.0
 *
 * test_remote.c - a daemon's commands over mutual TLS, with real certificates on the loopback: who a certificate is,
 * what each may do and see, and that neither a host nor a user can be taken for the other.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "access_host.h"
#include "transport_pair.h"

struct fixture {
	struct access_host a;
	struct authority ca;
};

static void set_file(struct nova_config *config, const struct loop *loop, const char *option, const char *file)
{
	char path[128];
	struct nova_error err;

	snprintf(path, sizeof(path), "%s/%s", loop->dir, file);
	assert_int_equal(nova_config_set(config, option, path, &err), 0);
}

static void setup_host(struct fixture *f)
{
	static const char *const names[] = { "alpha", "beta", "carol", "alice", "bob", "eve", "nobody" };

	access_prepare(&f->a);
	authority_init(&f->a.loop, &f->ca, "ca");
	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
		issue(&f->a.loop, &f->ca, names[i], names[i], 3600);
	set_file(f->a.config, &f->a.loop, "cert", "alpha.pem");
	set_file(f->a.config, &f->a.loop, "key", "alpha.key");
	set_file(f->a.config, &f->a.loop, "ca", "ca.pem");
	access_set(&f->a, "listen", "127.0.0.1:0");
	access_set(&f->a, "peer", "beta=127.0.0.1:1");
	access_set(&f->a, "admins", "cert:carol");
	access_set(&f->a, "operators", "cert:alice");
	access_set(&f->a, "operators", "cert:bob");
	access_set(&f->a, "viewers", "cert:eve");
	access_set(&f->a, "viewers", "uid:nobody"); /* a local user: not the certificate of that name */
	access_start(&f->a);
}

static void release_host(struct fixture *f)
{
	nova_host_free(f->a.host);
	f->a.host = NULL;
	authority_release(&f->ca);
	nova_config_free(f->a.config);
	json_decref(f->a.result);
	char command[256];
	snprintf(command, sizeof(command), "rm -rf %s/*", f->a.loop.dir);
	assert_int_equal(system(command), 0);
	loop_release(&f->a.loop);
}

struct user {
	struct fixture *f;
	struct nova_client *client;
	int events, gone;
	char last[64];
	struct nova_error why;
};

static void on_event(void *arg, const char *event, json_t *data)
{
	struct user *user = arg;

	user->events++;
	snprintf(user->last, sizeof(user->last), "%s", event);
}

static void on_gone(void *arg, const struct nova_error *err)
{
	struct user *user = arg;

	user->gone++;
	user->why = *err;
}

static void come(struct fixture *f, struct user *user, const char *name)
{
	struct nova_config *config = nova_config_new();
	char file[64], host[64];
	struct nova_error err;

	*user = (struct user){ .f = f };
	snprintf(file, sizeof(file), "%s.pem", name);
	set_file(config, &f->a.loop, "cert", file);
	snprintf(file, sizeof(file), "%s.key", name);
	set_file(config, &f->a.loop, "key", file);
	set_file(config, &f->a.loop, "ca", "ca.pem");
	snprintf(host, sizeof(host), "alpha=127.0.0.1:%d", nova_host_port(f->a.host));
	user->client = nova_client_new_remote(f->a.loop.base, config, host, on_event, on_gone, user, &err);
	if (!user->client)
		fail_msg("%s", err.text);
	nova_config_free(config);
}

/* 0, or -1 and a->err, as access_run(). */
static int ask(struct user *user, const char *command, json_t *args)
{
	struct access_host *a = &user->f->a;
	struct nova_op *op;

	json_decref(a->result);
	a->result = NULL;
	a->over = false;
	a->err = (struct nova_error){ 0 };
	op = nova_client_execute(user->client, command, args, access_done, a, &a->err);
	json_decref(args);
	if (!op)
		return -1;
	LOOP_UNTIL(&a->loop, a->over);
	return a->err.category ? -1 : 0;
}

static void test_roles_of_certificates(void **state)
{
	static const struct {
		const char *name, *role;
	} rows[] = { { "carol", "admin" }, { "alice", "operator" }, { "eve", "viewer" } };
	struct fixture f;
	struct user user;

	setup_host(&f);
	for (size_t i = 0; i < 3; i++) {
		come(&f, &user, rows[i].name);
		if (ask(&user, "about", NULL) < 0)
			fail_msg("%s", f.a.err.text);
		assert_string_equal(json_string_value(json_object_get(f.a.result, "role")), rows[i].role);
		nova_client_free(user.client);
	}
	come(&f, &user, "eve");
	assert_int_equal(ask(&user, "create", json_pack("{s:s}", "guest", "g")), -1);
	assert_int_equal(f.a.err.category, NOVA_REFUSED);
	assert_non_null(strstr(f.a.err.text, "eve may not create: it takes the role operator"));
	nova_client_free(user.client);
	release_host(&f);
}

/* A certificate of the same authority that nobody gave a role, and one that only local users' rows name. */
static void test_unknown_certificate_is_refused(void **state)
{
	struct fixture f;
	struct user user;

	setup_host(&f);
	come(&f, &user, "nobody");
	assert_int_equal(ask(&user, "list", NULL), -1);
	assert_non_null(strstr(f.a.err.text, "no configured peer or user has this certificate name"));
	nova_client_free(user.client);
	release_host(&f);
}

static bool audited(struct fixture *f, const char *word, const char *other)
{
	char command[256];

	snprintf(command, sizeof(command), "cat %s/state/audit/audit.*.log | grep -F '%s' | grep -qF '%s'", f->a.loop.dir, word,
	    other);
	return system(command) == 0;
}

static void test_a_peer_is_no_operator(void **state)
{
	struct fixture f;
	struct user user;

	setup_host(&f);
	come(&f, &user, "beta");
	assert_int_equal(ask(&user, "list", NULL), -1);
	assert_int_equal(f.a.err.category, NOVA_REFUSED);
	assert_non_null(strstr(f.a.err.text, "peer beta may not list: it takes the role viewer"));
	assert_true(audited(&f, "\"who\":\"peer beta\"", "\"outcome\":\"refused\""));
	nova_client_free(user.client);
	release_host(&f);
}

static struct nova_error reserve_error;
static bool reserve_over;

static void reserved(void *arg, json_t *result, const struct nova_error *err)
{
	reserve_over = true;
	if (err)
		reserve_error = *err;
}

static void nothing_up(void *arg, const char *peer)
{
}

static void nothing_closed(void *arg, const struct nova_error *err)
{
}

static void nothing_request(void *arg, const char *command, json_t *args, struct nova_request *request)
{
	nova_builtin.links->answer(request, NULL, NULL);
}

static void nothing_channel(void *arg, uint16_t id, enum nova_channel_kind kind, struct nova_channel *channel)
{
	channel->ops->free(channel);
}

static void nothing_state(void *arg, const char *what, json_t *data)
{
}

/* An admin's certificate is not a host's: no reservation, no outcome. */
static void test_a_user_is_no_peer(void **state)
{
	static const struct nova_session_events events = { nothing_up, nothing_request, nothing_channel, nothing_state,
		nothing_closed };
	static const char *const requests[] = { "reserve", "commit", "abort", "outcome", "about" };
	const struct nova_session_options options = { 0 };
	const struct nova_link_ops *ops = nova_builtin.links;
	struct nova_config *config = nova_config_new();
	struct nova_session *session;
	struct nova_links *links;
	char peer[64];
	struct fixture f;

	setup_host(&f);
	set_file(config, &f.a.loop, "cert", "carol.pem");
	set_file(config, &f.a.loop, "key", "carol.key");
	set_file(config, &f.a.loop, "ca", "ca.pem");
	snprintf(peer, sizeof(peer), "alpha=127.0.0.1:%d", nova_host_port(f.a.host));
	assert_int_equal(nova_config_set(config, "peer", peer, NULL), 0);
	links = ops->open(f.a.loop.base, config, NULL, NULL, NULL, NULL);
	session = ops->dial(links, "alpha", &options, &events, NULL, NULL);
	assert_non_null(session);
	for (size_t i = 0; i < sizeof(requests) / sizeof(*requests); i++) {
		reserve_over = false;
		reserve_error = (struct nova_error){ 0 };
		assert_non_null(ops->request(session, requests[i], NULL, 0, reserved, NULL, NULL));
		LOOP_UNTIL(&f.a.loop, reserve_over);
		assert_int_equal(reserve_error.category, NOVA_REFUSED);
		assert_non_null(strstr(reserve_error.text, "is for hosts that are peers of alpha"));
	}
	ops->free(session);
	ops->close(links);
	nova_config_free(config);
	release_host(&f);
}

static void test_everybody_sees_their_own(void **state)
{
	struct user carol, alice, bob;
	struct fixture f;
	json_t *args;

	setup_host(&f);
	come(&f, &carol, "carol");
	come(&f, &alice, "alice");
	come(&f, &bob, "bob");
	/* all are listening before it begins */
	assert_int_equal(ask(&carol, "about", NULL), 0);
	assert_int_equal(ask(&alice, "about", NULL), 0);
	assert_int_equal(ask(&bob, "about", NULL), 0);
	args = json_pack("{s:s, s:{s:I}}", "guest", "hers", "spec", "memory", (json_int_t)64 << 20);
	if (ask(&alice, "create", args) < 0)
		fail_msg("%s", f.a.err.text);
	assert_string_equal(json_string_value(json_object_get(f.a.result, "owner")), "alice");
	LOOP_UNTIL(&f.a.loop, !strcmp(alice.last, "JOB_ENDED") && !strcmp(carol.last, "JOB_ENDED"));
	assert_int_equal(ask(&bob, "list", NULL), 0);
	assert_int_equal(json_array_size(f.a.result), 0);
	assert_int_equal(bob.events, 0);
	assert_int_equal(ask(&bob, "delete", json_pack("{s:s}", "guest", "hers")), -1);
	assert_non_null(strstr(f.a.err.text, "there is no guest 'hers'"));
	assert_int_equal(ask(&carol, "list", NULL), 0);
	assert_int_equal(json_array_size(f.a.result), 1);
	assert_int_equal(ask(&alice, "delete", json_pack("{s:s}", "guest", "hers")), 0);
	assert_true(audited(&f, "\"who\":\"alice\"", "\"from\":\"tls 127.0.0.1:"));
	nova_client_free(carol.client);
	nova_client_free(alice.client);
	nova_client_free(bob.client);
	release_host(&f);
}

/* Who has no role hears nothing either. */
static void test_no_events_without_a_role(void **state)
{
	struct fixture f;
	struct user beta;
	struct nova_entry *entry;

	setup_host(&f);
	come(&f, &beta, "beta");
	assert_int_equal(ask(&beta, "list", NULL), -1);
	entry = access_guest(&f.a, "g", "bob", 64, 1, 0);
	nova_guest_set_state(&entry->guest, NOVA_GUEST_PAUSED, NULL);
	loop_run_ms(&f.a.loop, 200);
	assert_int_equal(beta.events, 0);
	nova_client_free(beta.client);
	release_host(&f);
}

/* The daemon ends: whoever waits is told. */
static void test_the_end_is_told(void **state)
{
	struct fixture f;
	struct user alice;

	setup_host(&f);
	come(&f, &alice, "alice");
	assert_int_equal(ask(&alice, "about", NULL), 0);
	nova_host_free(f.a.host);
	f.a.host = NULL;
	LOOP_UNTIL(&f.a.loop, alice.gone == 1);
	assert_int_equal(ask(&alice, "about", NULL), -1);
	nova_client_free(alice.client);
	release_host(&f);
}

static void test_what_a_client_needs(void **state)
{
	struct nova_config *config = nova_config_new();
	struct event_base *base = event_base_new();
	struct nova_error err;

	assert_null(nova_client_new_remote(base, config, "beta:1", NULL, NULL, NULL, &err));
	assert_string_equal(err.text,
	    "daemons of other hosts are reached over mutual TLS: cert is not set (--cert, or the client's configuration)");
	nova_config_set(config, "cert", "/x", NULL);
	nova_config_set(config, "key", "/x", NULL);
	nova_config_set(config, "ca", "/x", NULL);
	assert_null(nova_client_new_remote(base, config, "beta", NULL, NULL, NULL, &err));
	assert_string_equal(err.text,
	    "host 'beta' is neither a [peer] of the client's configuration nor HOST:PORT or NAME=HOST:PORT");
	event_base_free(base);
	nova_config_free(config);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_roles_of_certificates),
		cmocka_unit_test(test_unknown_certificate_is_refused),
		cmocka_unit_test(test_a_peer_is_no_operator),
		cmocka_unit_test(test_a_user_is_no_peer),
		cmocka_unit_test(test_everybody_sees_their_own),
		cmocka_unit_test(test_no_events_without_a_role),
		cmocka_unit_test(test_the_end_is_told),
		cmocka_unit_test(test_what_a_client_needs),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
