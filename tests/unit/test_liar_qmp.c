/* SPDX-License-Identifier: Apache-2.0
 *
 * test_liar_qmp.c - a hypervisor that lies: the KVM driver, attached to a monitor that this test plays, is told
 * numbers, types and events that no QEMU should say, during no migration and during one. What the protocol itself can
 * get wrong (ids, order, halves, floods) is in test_qmp.c.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/listener.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "engine/child.h"
#include "engine/converge.h"
#include "liar.h"

#define GREETING "{\"QMP\": {\"version\": {}, \"capabilities\": []}}\r\n"
#define UUID "7c3b4f2e-0000-4000-8000-000000000000"

/* ---- a monitor ---- */

struct word {
	const char *command, *answer;
};

struct monitor {
	struct evconnlistener *listener;
	struct bufferevent *client;
	const struct word *words; /* of the scene; NULL: only what is honest */
	const char *hang_up_at;   /* close in the middle of the answer to this */
	int asked;                /* query-migrate */
	bool migrating;
};

static const struct word honest[] = {
	{ "query-status", "{\"status\": \"running\", \"running\": true, \"singlestep\": false}" },
	{ "query-migrate", "{}" },
	{ NULL, NULL },
};

static const char *words_for(const struct word *words, const char *command)
{
	for (; words && words->command; words++)
		if (!strcmp(words->command, command))
			return words->answer;
	return NULL;
}

static void hang_up(struct monitor *monitor)
{
	bufferevent_free(monitor->client);
	monitor->client = NULL;
}

static void hear(struct monitor *monitor, const char *line)
{
	NOVA_AUTOJSON json_t *message = json_loads(line, 0, NULL);
	const char *command = json_string_value(json_object_get(message, "execute"));
	json_int_t id = json_integer_value(json_object_get(message, "id"));
	const char *answer = command ? words_for(monitor->words, command) : NULL;

	if (!command)
		return;
	if (!answer)
		answer = words_for(honest, command);
	monitor->asked += !strcmp(command, "query-migrate");
	monitor->migrating |= !strcmp(command, "migrate");
	if (monitor->hang_up_at && !strcmp(command, monitor->hang_up_at)) {
		evbuffer_add_printf(bufferevent_get_output(monitor->client), "{\"id\": %lld, \"return\": {\"sta", (long long)id);
		bufferevent_flush(monitor->client, EV_WRITE, BEV_FLUSH);
		evbuffer_write(bufferevent_get_output(monitor->client), bufferevent_getfd(monitor->client));
		hang_up(monitor);
		return;
	}
	evbuffer_add_printf(bufferevent_get_output(monitor->client), "{\"id\": %lld, \"return\": %s}\r\n", (long long)id,
	    answer ?: "{}");
}

static void on_data(struct bufferevent *client, void *arg)
{
	struct monitor *monitor = arg;

	while (monitor->client) {
		NOVA_AUTOFREE char *line = evbuffer_readln(bufferevent_get_input(client), NULL, EVBUFFER_EOL_ANY);

		if (!line)
			return;
		hear(monitor, line);
	}
}

static void on_gone(struct bufferevent *client, short what, void *arg)
{
	hang_up(arg);
}

static void on_client(struct evconnlistener *listener, evutil_socket_t fd, struct sockaddr *address, int length, void *arg)
{
	struct monitor *monitor = arg;

	assert_null(monitor->client);
	monitor->client = bufferevent_socket_new(evconnlistener_get_base(listener), fd, BEV_OPT_CLOSE_ON_FREE);
	bufferevent_setcb(monitor->client, on_data, NULL, on_gone, monitor);
	bufferevent_enable(monitor->client, EV_READ | EV_WRITE);
	evbuffer_add_printf(bufferevent_get_output(monitor->client), GREETING);
}

static void say(struct monitor *monitor, const char *text)
{
	evbuffer_add_printf(bufferevent_get_output(monitor->client), "%s\r\n", text);
}

/* ---- a guest whose hypervisor it is ---- */

struct scene {
	struct liar liar;
	struct monitor monitor;
	pid_t pid; /* of what the driver takes for the process */
	struct nova_entry *entry;
};

static void write_guest(struct scene *scene, const char *socket)
{
	NOVA_AUTOJSON json_t *spec = json_pack("{s:I, s:i}", "memory", (json_int_t)64 << 20, "vcpus", 1);
	NOVA_AUTOJSON json_t *runtime = json_pack("{s:i, s:I, s:s}", "pid", (int)scene->pid, "start_time",
	    (json_int_t)nova_process_start_time(scene->pid, NULL), "qmp", socket);
	NOVA_AUTOJSON json_t *needs = json_object();
	const struct nova_guest_row row = { .name = "g", .uuid = UUID, .owner = "alice", .driver = "kvm", .state = "running",
		.spec = spec, .runtime = runtime, .needs = needs, .created_ms = 1 };
	char state[128];
	struct nova_store *store;
	struct nova_error err;

	snprintf(state, sizeof(state), "%s/state", scene->liar.a.loop.dir);
	assert_int_equal(mkdir(state, 0700), 0);
	store = nova_store_open(state, &err);
	assert_non_null(store);
	assert_int_equal(nova_store_guest_put(store, &row, &err), 0);
	nova_store_close(store);
}

static void listen_as_monitor(struct scene *scene, struct sockaddr_un *address)
{
	char path[128];

	address->sun_family = AF_UNIX;
	snprintf(path, sizeof(path), "%s/run", scene->liar.a.loop.dir);
	assert_int_equal(mkdir(path, 0700), 0);
	snprintf(path, sizeof(path), "%s/run/guests", scene->liar.a.loop.dir);
	assert_int_equal(mkdir(path, 0700), 0);
	snprintf(path, sizeof(path), "%s/run/guests/g", scene->liar.a.loop.dir);
	assert_int_equal(mkdir(path, 0700), 0);
	snprintf(address->sun_path, sizeof(address->sun_path), "%s/run/guests/g/qmp.sock", scene->liar.a.loop.dir);
	scene->monitor.listener = evconnlistener_new_bind(scene->liar.a.loop.base, on_client, &scene->monitor,
	    LEV_OPT_CLOSE_ON_FREE, -1, (struct sockaddr *)address, sizeof(*address));
	assert_non_null(scene->monitor.listener);
}

static void raise_curtain(struct scene *scene, const struct word *words)
{
	struct sockaddr_un address;

	memset(scene, 0, sizeof(*scene));
	scene->pid = fork();
	if (scene->pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		alarm(60);
		pause();
		_exit(0);
	}
	liar_prepare(&scene->liar);
	scene->monitor.words = words;
	listen_as_monitor(scene, &address);
	write_guest(scene, address.sun_path);
	liar_host(&scene->liar);
	scene->entry = nova_entry_find(scene->liar.a.host, "g");
	assert_non_null(scene->entry);
}

static void drop_curtain(struct scene *scene)
{
	if (scene->monitor.client)
		hang_up(&scene->monitor);
	evconnlistener_free(scene->monitor.listener);
	liar_close(&scene->liar);
	assert_int_equal(kill(scene->pid, SIGKILL), 0); /* nothing of this made the driver end a process */
	waitpid(scene->pid, NULL, 0);
}

static void ask(struct scene *scene, enum nova_verb verb)
{
	struct access_host *a = &scene->liar.a;
	struct nova_op *op;

	json_decref(a->result);
	a->result = NULL;
	a->over = false;
	a->err = (struct nova_error){ 0 };
	op = nova_slot_call(scene->entry->slot, verb, &scene->entry->guest, NULL, access_done, a, &a->err);
	if (op)
		LOOP_UNTIL(&a->loop, a->over);
}

/* ---- numbers and types ---- */

static const char *const migrate_lies[] = {
	"[]",
	"1",
	"\"active\"",
	"{\"status\": 1, \"ram\": 2, \"error-desc\": 3}",
	"{\"status\": \"active\", \"ram\": []}",
	"{\"status\": \"\\u0001\", \"ram\": {\"total\": \"1\", \"remaining\": null, \"page-size\": [], \"transferred\": 1.5}}",
	"{\"status\": \"active\", \"ram\": {\"total\": -1, \"remaining\": -5, \"transferred\": -9223372036854775808, "
	"\"dirty-sync-count\": -1, \"page-size\": -4096, \"dirty-pages-rate\": -7, \"normal\": -1, \"duplicate\": -1, "
	"\"postcopy-requests\": -1}, \"downtime\": -1, \"expected-downtime\": -1, \"total-time\": -1, \"setup-time\": -1, "
	"\"cpu-throttle-percentage\": -1}",
	"{\"status\": \"active\", \"ram\": {\"total\": 1, \"remaining\": 9223372036854775807, \"page-size\": 9223372036854775807, "
	"\"dirty-pages-rate\": 9223372036854775807, \"transferred\": 18446744073709551615, \"dirty-sync-count\": 1}}",
	"{\"status\": \"active\", \"ram\": {\"total\": 1e308, \"remaining\": 1e308, \"page-size\": 0, \"dirty-pages-rate\": 3}}",
	"{\"status\": \"active\", \"ram\": {\"total\": 1, \"remaining\": 4611686018427387905, \"page-size\": 2, "
	"\"dirty-pages-rate\": -9223372036854775808}}",
	"{\"status\": \"completed\"}",
	"{\"status\": \"failed\", \"error-desc\": {}}",
	"{\"status\": \"no such status\", \"error-desc\": \"\\ud83d\\ude00 \\u001b[2J\"}",
};
#define MIGRATE_LIES (sizeof(migrate_lies) / sizeof(*migrate_lies))

/* Whatever was said, what comes out is a sample that the controller can use: no number is below 0. */
static void expect_sane(const json_t *sample, const char *lie)
{
	struct nova_sample read = { 0 };
	struct nova_error err;
	const char *name;
	json_t *value;

	if (!json_is_object(sample))
		fail_msg("%s: no sample", lie);
	json_object_foreach ((json_t *)sample, name, value)
		if (json_is_integer(value) && json_integer_value(value) < 0)
			fail_msg("%s: %s is %lld", lie, name, (long long)json_integer_value(value));
	if (nova_sample_read(&read, sample, &err) < 0)
		fail_msg("%s: %s", lie, err.text);
}

static void test_figures(void **state)
{
	struct scene scene;

	raise_curtain(&scene, NULL);
	assert_int_equal(scene.entry->guest.state, NOVA_GUEST_RUNNING);
	for (size_t i = 0; i < MIGRATE_LIES; i++) {
		const struct word words[] = { { "query-migrate", migrate_lies[i] }, { NULL, NULL } };

		scene.monitor.words = words;
		ask(&scene, NOVA_VERB_OUT_QUERY);
		if (!scene.liar.a.err.category)
			expect_sane(scene.liar.a.result, migrate_lies[i]);
		ask(&scene, NOVA_VERB_STATS);
		assert_int_equal(scene.entry->guest.state, NOVA_GUEST_RUNNING);
		scene.monitor.words = NULL;
	}
	drop_curtain(&scene);
}

static void test_status(void **state)
{
	static const char *const lies[] = { "{}", "[]", "0", "{\"status\": 5}", "{\"status\": \"flying\"}", "{\"status\": null, \"running\": true}" };

	for (size_t i = 0; i < sizeof(lies) / sizeof(*lies); i++) {
		const struct word words[] = { { "query-status", lies[i] }, { NULL, NULL } };
		struct scene scene;

		raise_curtain(&scene, words); /* REATTACH has asked */
		ask(&scene, NOVA_VERB_STATS);
		ask(&scene, NOVA_VERB_OUT_QUERY);
		ask(&scene, NOVA_VERB_OUT_PREPARE);
		drop_curtain(&scene);
	}
}

/* ---- events that belong to nothing ---- */

static const char *const event_lies[] = {
	"{\"event\": \"MIGRATION\"}",
	"{\"event\": \"MIGRATION\", \"data\": []}",
	"{\"event\": \"MIGRATION\", \"data\": {\"status\": 5}}",
	"{\"event\": \"MIGRATION\", \"data\": {\"status\": \"completed\"}}",
	"{\"event\": \"MIGRATION\", \"data\": {\"status\": \"failed\"}}",
	"{\"event\": \"MIGRATION\", \"data\": {\"status\": \"active\"}}",
	"{\"event\": \"MIGRATION\", \"data\": {\"status\": \"pre-switchover\"}}",
	"{\"event\": \"MIGRATION\", \"data\": {\"status\": \"postcopy-active\"}}",
	"{\"event\": \"MIGRATION\", \"data\": {\"status\": \"postcopy-paused\"}}",
	"{\"event\": \"MIGRATION_PASS\", \"data\": {\"pass\": -1}}",
	"{\"event\": \"MIGRATION_PASS\", \"data\": {\"pass\": \"x\"}}",
	"{\"event\": \"BLOCK_JOB_READY\", \"data\": {\"device\": 7}}",
	"{\"event\": \"BLOCK_JOB_COMPLETED\", \"data\": {\"device\": \"mirror-nobody\", \"error\": []}}",
	"{\"event\": \"DEVICE_DELETED\", \"data\": 3}",
	"{\"event\": \"RESUME\", \"data\": \"x\"}",
	"{\"event\": 5}",
	"{\"event\": \"\", \"data\": {}}",
};
#define EVENT_LIES (sizeof(event_lies) / sizeof(*event_lies))

static void test_events(void **state)
{
	struct scene scene;

	raise_curtain(&scene, NULL);
	for (int round = 0; round < 50; round++)
		for (size_t i = 0; i < EVENT_LIES; i++)
			say(&scene.monitor, event_lies[i]);
	ask(&scene, NOVA_VERB_OUT_QUERY);
	loop_run_ms(&scene.liar.a.loop, 100);
	assert_non_null(nova_entry_find(scene.liar.a.host, "g"));
	assert_int_equal(scene.entry->guest.state, NOVA_GUEST_RUNNING);
	drop_curtain(&scene);
}

/* ---- a migration whose hypervisor lies all the time ---- */

static void begin(struct scene *scene)
{
	const struct nova_identity alice = access_who(NOVA_ROLE_OPERATOR, "alice");
	NOVA_AUTOJSON json_t *args = json_pack("{s:s, s:s, s:b}", "guest", "g", "to", "beta", "baseline", 0);
	struct nova_error err;

	if (!nova_host_execute(scene->liar.a.host, &alice, "migrate", args, access_done, &scene->liar.a, &err))
		fail_msg("%s", err.text);
	LIAR_UNTIL(&scene->liar, scene->monitor.migrating);
}

static void expect_at_home(struct scene *scene)
{
	LIAR_UNTIL(&scene->liar, liar_idle(&scene->liar));
	scene->entry = nova_entry_find(scene->liar.a.host, "g");
	assert_non_null(scene->entry);
	assert_int_equal(scene->entry->guest.state, NOVA_GUEST_RUNNING);
}

static void test_figures_of_a_migration(void **state)
{
	struct scene scene;

	raise_curtain(&scene, NULL);
	begin(&scene);
	for (size_t i = 0; i < MIGRATE_LIES; i++) {
		const struct word words[] = { { "query-migrate", migrate_lies[i] }, { NULL, NULL } };

		scene.monitor.words = words;
		loop_run_ms(&scene.liar.a.loop, 150); /* one look or two, unless it has made up its mind already */
		scene.monitor.words = NULL;
	}
	assert_true(scene.monitor.asked > 2);
	say(&scene.monitor, "{\"event\": \"MIGRATION\", \"data\": {\"status\": \"failed\"}}");
	expect_at_home(&scene);
	drop_curtain(&scene);
}

/* "completed" without a byte in the stream, then back to "active": the destination saw no stream and says so. */
static void test_completed_out_of_nothing(void **state)
{
	static const struct liar_line refuses[] = { { "commit", NULL, NOVA_REFUSED }, { NULL } };
	struct scene scene;

	raise_curtain(&scene, NULL);
	scene.liar.script = refuses;
	begin(&scene);
	say(&scene.monitor, "{\"event\": \"MIGRATION\", \"data\": {\"status\": \"completed\"}}");
	say(&scene.monitor, "{\"event\": \"MIGRATION\", \"data\": {\"status\": \"active\"}}");
	say(&scene.monitor, "{\"event\": \"MIGRATION\", \"data\": {\"status\": \"setup\"}}");
	LIAR_UNTIL(&scene.liar, liar_idle(&scene.liar));
	assert_non_null(nova_entry_find(scene.liar.a.host, "g"));
	assert_int_equal(scene.liar.calls[NOVA_VERB_DELETE], 0);
	drop_curtain(&scene);
}

static void test_hangs_up_in_the_middle(void **state)
{
	static const char *const at[] = { "query-status", "migrate-set-capabilities", "migrate-set-parameters", "migrate" };

	for (size_t i = 0; i < sizeof(at) / sizeof(*at); i++) {
		const struct nova_identity alice = access_who(NOVA_ROLE_OPERATOR, "alice");
		struct scene scene;

		raise_curtain(&scene, NULL);
		scene.monitor.hang_up_at = at[i];
		access_run(&scene.liar.a, &alice, "migrate",
		    json_pack("{s:s, s:s, s:b}", "guest", "g", "to", "beta", "baseline", 0));
		LIAR_UNTIL(&scene.liar, liar_idle(&scene.liar));
		assert_non_null(nova_entry_find(scene.liar.a.host, "g"));
		assert_null(strstr(scene.liar.session ? scene.liar.session->asked : "", "commit "));
		drop_curtain(&scene);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_figures),
		cmocka_unit_test(test_status),
		cmocka_unit_test(test_events),
		cmocka_unit_test(test_figures_of_a_migration),
		cmocka_unit_test(test_completed_out_of_nothing),
		cmocka_unit_test(test_hangs_up_in_the_middle),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
