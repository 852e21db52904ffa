/* SPDX-License-Identifier: Apache-2.0
 *
 * test_kvm.c - the KVM driver against real QEMUs: every verb, on every machine type, and two drivers that
 * move a guest between them over a plain unix socket.
 *
 * NOVA_TEST_DIR: a private directory below a short path; NOVA_GUEST: vmlinuz and initrd of the test guest.
 * Guests without a kernel (they stay in the firmware) are enough where nothing has to run inside.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <event2/bufferevent.h>
#include <event2/buffer.h>
#include <event2/listener.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "engine/child.h"
#include "engine/drivers.h"
#include "engine/novacron.h"

#define LIMIT_S 120

/* ---- a host: one driver with its own directories --------------------------------------------------- */

struct host {
	char state[80], run[80];
	struct nova_config *config;
	const struct nova_driver *driver;
	void *self;
};

/* A guest as the engine would hold it. */
struct test_guest {
	struct nova_guest guest;
	char name[32];
	json_t *events; /* [ [name, data] ] */
	char why[512];  /* of the last state */
	int saves;
};

static struct event_base *base;
static char top[64]; /* of everything; also the one root of guests' files */
static struct host alpha, beta;

static void log_line(void *arg, enum nova_log_level level, const char *line)
{
	if (getenv("NOVA_TEST_VERBOSE"))
		fprintf(stderr, "%s\n", line);
}

static void hook_state(struct nova_guest *guest, enum nova_guest_state state, const char *why)
{
	struct test_guest *test = guest->hooks_arg;

	guest->state = state;
	snprintf(test->why, sizeof(test->why), "%s", why ? why : "");
}

static void hook_event(struct nova_guest *guest, const char *event, json_t *data)
{
	struct test_guest *test = guest->hooks_arg;

	json_array_append_new(
	    test->events, json_pack("[s,o]", event, data ? json_deep_copy(data) : json_null()));
}

static int hook_save(struct nova_guest *guest, struct nova_error *err)
{
	struct test_guest *test = guest->hooks_arg;

	test->saves++;
	return 0;
}

static const struct nova_guest_hooks hooks = { hook_state, hook_event, hook_save };

static void host_open(struct host *host)
{
	struct nova_driver_env env = { base, host->config, host->state, host->run, log_line, NULL };
	struct nova_error err;

	host->self = host->driver->open(&env, &err);
	if (!host->self)
		fail_msg("%s", err.text);
}

static void host_init(struct host *host, const char *name)
{
	struct nova_error err;

	snprintf(host->state, sizeof(host->state), "%s/%s.state", top, name);
	snprintf(host->run, sizeof(host->run), "%s/%s.run", top, name);
	mkdir(host->state, 0700);
	mkdir(host->run, 0700);
	host->config = nova_config_new();
	if (nova_config_set(host->config, "roots", top, &err) < 0)
		fail_msg("%s", err.text);
	for (size_t i = 0; nova_drivers[i]; i++)
		if (strcmp(nova_drivers[i]->name, "kvm") == 0)
			host->driver = nova_drivers[i];
	assert_non_null(host->driver);
	host_open(host);
}

static void host_release(struct host *host)
{
	host->driver->close(host->self);
	host->config = nova_config_free(host->config);
}

/* ---- calls ----------------------------------------------------------------------------------------- */

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void tick(evutil_socket_t fd, short what, void *arg)
{
}

/* clang-format off */
#define UNTIL(condition) \
	do { \
		double until_ = now() + LIMIT_S; \
		struct timeval every_ = { 0, 20000 }; \
		struct event *ticker_ = event_new(base, -1, EV_PERSIST, tick, NULL); \
		bool holds_; \
		event_add(ticker_, &every_); \
		while (!(holds_ = (condition)) && now() < until_ && event_base_loop(base, EVLOOP_ONCE) == 0) \
			; \
		event_free(ticker_); \
		if (!holds_) \
			fail_msg("line %d: still not: %s", __LINE__, #condition); \
	} while (0)
/* clang-format on */

static void pass_ms(int ms)
{
	struct timeval wait = { 0, ms * 1000 };

	event_base_loopexit(base, &wait);
	event_base_dispatch(base);
}

struct answer {
	int count;
	json_t *result;
	bool failed;
	struct nova_error err;
};

static void answered(void *arg, json_t *result, const struct nova_error *err)
{
	struct answer *answer = arg;

	answer->count++;
	answer->result = json_incref(result);
	answer->failed = err != NULL;
	if (err)
		answer->err = *err;
}

/* args is stolen; the answer's result must be freed. */
static struct answer try_verb(struct host *host, enum nova_verb verb, struct test_guest *test, json_t *args)
{
	struct answer answer = { 0 };

	if (host->driver->verb[verb](
	        host->self, test ? &test->guest : NULL, args, answered, &answer, &answer.err)) {
		assert_int_equal(answer.count, 0);
		UNTIL(answer.count > 0);
	} else {
		answer.failed = true;
	}
	json_decref(args);
	return answer;
}

#define DO(host, verb, test, args) do_verb(__LINE__, host, verb, test, args)
static json_t *do_verb(
    int line, struct host *host, enum nova_verb verb, struct test_guest *test, json_t *args)
{
	struct answer answer = try_verb(host, verb, test, args);

	if (answer.failed)
		fail_msg("line %d: %s: %s", line, nova_verb_name(verb), answer.err.text);
	return answer.result;
}

static void must(int line, struct host *host, enum nova_verb verb, struct test_guest *test, json_t *args)
{
	json_decref(do_verb(line, host, verb, test, args));
}
#define MUST(host, verb, test, args) must(__LINE__, host, verb, test, args)

/* It must fail, and its text must have this in it. */
static void refuse(int line, struct host *host, enum nova_verb verb, struct test_guest *test, json_t *args,
    const char *because)
{
	struct answer answer = try_verb(host, verb, test, args);

	if (!answer.failed)
		fail_msg("line %d: %s succeeded", line, nova_verb_name(verb));
	if (!strstr(answer.err.text, because))
		fail_msg("line %d: %s: \"%s\" does not say \"%s\"", line, nova_verb_name(verb),
		    answer.err.text, because);
	json_decref(answer.result);
}
#define REFUSED(host, verb, test, args, because) refuse(__LINE__, host, verb, test, args, because)

/* ---- guests ---------------------------------------------------------------------------------------- */

static void guest_init(struct test_guest *test, const char *name, json_t *spec)
{
	memset(test, 0, sizeof(*test));
	snprintf(test->name, sizeof(test->name), "%s", name);
	test->events = json_array();
	test->guest = (struct nova_guest) {
		.name = test->name,
		.uuid = "6d1bd3a8-9a07-4ab8-8b1e-6f1c0c5f2a11",
		.owner = "test",
		.spec = spec,
		.runtime = json_object(),
		.hooks = &hooks,
		.hooks_arg = test,
	};
}

static void guest_release(struct test_guest *test)
{
	assert_null(test->guest.driver_data);
	json_decref(test->events);
	json_decref(test->guest.spec);
	json_decref(test->guest.runtime);
}

/* CHECK, CREATE; spec is stolen. */
static void guest_create(struct host *host, struct test_guest *test, const char *name, json_t *spec)
{
	json_t *checked = DO(host, NOVA_VERB_CHECK, NULL, json_pack("{s:o}", "spec", spec));

	guest_init(test, name, json_incref(json_object_get(checked, "spec")));
	json_decref(checked);
	MUST(host, NOVA_VERB_CREATE, test, json_pack("{s:O}", "spec", test->guest.spec));
}

static void guest_delete(struct host *host, struct test_guest *test)
{
	char path[300];

	MUST(host, NOVA_VERB_DELETE, test, NULL);
	snprintf(path, sizeof(path), "%s/guests/%s", host->state, test->name);
	assert_int_equal(access(path, F_OK), -1);
	snprintf(path, sizeof(path), "%s/guests/%s", host->run, test->name);
	assert_int_equal(access(path, F_OK), -1);
	guest_release(test);
}

static int count_events(const struct test_guest *test, const char *name, const char *status)
{
	json_t *event;
	size_t i;
	int count = 0;

	json_array_foreach (test->events, i, event) {
		const char *has = json_string_value(json_object_get(json_array_get(event, 1), "status"));

		count += strcmp(json_string_value(json_array_get(event, 0)), name) == 0 &&
		         (!status || (has && strcmp(has, status) == 0));
	}
	return count;
}

static int pid_of(const struct test_guest *test)
{
	return (int)json_integer_value(json_object_get(test->guest.runtime, "pid"));
}

static char *below_top(const char *name)
{
	static char path[4][256];
	static int turn;

	turn = (turn + 1) % 4;
	snprintf(path[turn], sizeof(path[turn]), "%s/%s", top, name);
	return path[turn];
}

static json_t *firmware_spec(const char *machine)
{
	return json_pack("{s:s,s:i}", "machine", machine, "memory", 64 << 20);
}

static json_t *disk_spec(const char *name)
{
	return json_pack("{s:s,s:i,s:[o]}", "machine", "pc", "memory", 64 << 20, "disk",
	    json_sprintf("path=%s,size=16M,shared=on", below_top(name)));
}

/* A guest with our workload, which fills some memory and dirties it. */
static json_t *linux_spec(const char *machine, const char *work)
{
	return json_pack("{s:s,s:i,s:s,s:s,s:o}", "machine", machine, "memory", 256 << 20, "kernel",
	    below_top("vmlinuz"), "initrd", below_top("initrd"), "cmdline",
	    json_sprintf("console=ttyS0 quiet panic=-1 nokaslr mitigations=off no_timer_check %s %s", work,
	        strcmp(machine, "microvm") == 0 ? "hb=null" : ""));
}

static struct sockaddr_un unix_address(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };

	assert_true(strlen(path) < sizeof(address.sun_path));
	memcpy(address.sun_path, path, strlen(path) + 1);
	return address;
}

/* Say ask (unless NULL) to the console and wait until it said text. */
static void console(struct host *host, struct test_guest *test, const char *ask, const char *text)
{
	struct sockaddr_un address;
	double until = now() + LIMIT_S;
	char path[256], *heard = calloc(1, 65536);
	size_t used = 0;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(path, sizeof(path), "%s/guests/%s/serial0.sock", host->run, test->name);
	address = unix_address(path);
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
		fail_msg("%s: %s", path, strerror(errno));
	if (ask)
		assert_int_equal(write(fd, ask, strlen(ask)), strlen(ask));
	fcntl(fd, F_SETFL, O_NONBLOCK);
	while (!strstr(heard, text) && now() < until && used < 65535) {
		ssize_t got = read(fd, heard + used, 65535 - used);

		used += got > 0 ? (size_t)got : 0;
		pass_ms(20);
	}
	if (!strstr(heard, text))
		fail_msg("the console did not say %s but: %s", text, heard);
	close(fd);
	free(heard);
}

static void wait_for_boot(struct host *host, struct test_guest *test)
{
	console(host, test, NULL, "WL-READY");
}

/* It computes: what it checks of its memory is right. */
static void assert_alive(struct host *host, struct test_guest *test)
{
	console(host, test, "sum here\n", " bad=0 here");
}

/* ---- probe, check, list ---------------------------------------------------------------------------- */

static void test_probe(void **state)
{
	json_t *answer = DO(&alpha, NOVA_VERB_PROBE, NULL, NULL);
	json_t *facts = json_object_get(answer, "facts");

	assert_true(json_is_true(json_object_get(answer, "found")));
	assert_non_null(json_string_value(json_object_get(answer, "version")));
	assert_true(json_is_true(json_object_get(json_object_get(answer, "verbs"), "start")));
	assert_string_equal(json_string_value(json_object_get(json_object_get(answer, "verbs"), "profile")),
	    "not supported by kvm");
	assert_true(json_array_size(json_object_get(facts, "machines")) > 10);
	json_decref(answer);
	answer = DO(&alpha, NOVA_VERB_CAPABILITIES, NULL, NULL);
	assert_true(json_is_true(json_object_get(answer, "live")));
	json_decref(answer);
}

static void test_probe_without_qemu(void **state)
{
	struct nova_config *config = nova_config_new();
	struct host poor = alpha;
	json_t *answer;

	assert_int_equal(nova_config_set(config, "qemu", "/nowhere/qemu-system-x86_64", NULL), 0);
	poor.config = config;
	host_open(&poor);
	answer = DO(&poor, NOVA_VERB_PROBE, NULL, NULL);
	assert_true(json_is_false(json_object_get(answer, "found")));
	json_decref(answer);
	REFUSED(&poor, NOVA_VERB_CHECK, NULL, json_pack("{s:{}}", "spec"),
	    "no /nowhere/qemu-system-x86_64 on this host");
	poor.driver->close(poor.self);
	nova_config_free(config);
}

static void test_check(void **state)
{
	json_t *answer = DO(&alpha, NOVA_VERB_CHECK, NULL, json_pack("{s:o}", "spec", firmware_spec("q35")));
	json_t *spec = json_object_get(answer, "spec"), *again;

	assert_int_equal(strncmp(json_string_value(json_object_get(spec, "machine")), "pc-q35-", 7), 0);
	assert_int_equal(
	    json_integer_value(json_object_get(json_object_get(answer, "needs"), "memory_bytes")), 64 << 20);
	again = DO(&alpha, NOVA_VERB_CHECK, NULL, json_pack("{s:O,s:b}", "spec", spec, "incoming", true));
	assert_true(json_equal(json_object_get(again, "spec"), spec));
	json_decref(again);
	json_decref(answer);
	REFUSED(&alpha, NOVA_VERB_CHECK, NULL, json_pack("{s:o}", "spec", firmware_spec("pc-q35-99.9")),
	    "pc-q35-99.9");
	REFUSED(
	    &alpha, NOVA_VERB_CHECK, NULL, json_pack("{s:{s:s}}", "spec", "cpu", "Turbo9000"), "Turbo9000");
	REFUSED(&alpha, NOVA_VERB_CHECK, NULL, json_pack("{s:{s:s}}", "spec", "kernel", "/etc/passwd"),
	    "outside of the roots");
	REFUSED(&alpha, NOVA_VERB_CHECK, NULL, json_pack("{s:{s:i}}", "spec", "memory", 4 << 20), "memory");
	REFUSED(&alpha, NOVA_VERB_CHECK, NULL,
	    json_pack("{s:{s:[o]},s:b}", "spec", "disk",
	        json_sprintf("path=%s,size=1M", below_top("gone.qcow2")), "incoming", true),
	    "shared storage");
}

static bool listed(json_t *list, int pid, bool ours)
{
	json_t *entry;
	size_t i;

	json_array_foreach (list, i, entry)
		if (json_integer_value(json_object_get(entry, "pid")) == pid)
			return json_is_true(json_object_get(entry, "ours")) == ours;
	return false;
}

/* ---- life of a guest -------------------------------------------------------------------------------- */

static void life_on(const char *machine)
{
	struct test_guest g;
	json_t *stats, *list;
	int pid;

	guest_create(&alpha, &g, "life", firmware_spec(machine));
	REFUSED(&alpha, NOVA_VERB_PAUSE, &g, NULL, "does not run");
	MUST(&alpha, NOVA_VERB_START, &g, NULL);
	pid = pid_of(&g);
	assert_int_equal(g.guest.state, NOVA_GUEST_RUNNING);
	REFUSED(&alpha, NOVA_VERB_START, &g, NULL, "runs already");
	list = DO(&alpha, NOVA_VERB_LIST, NULL, NULL);
	assert_true(listed(list, pid, true));
	json_decref(list);
	MUST(&alpha, NOVA_VERB_PAUSE, &g, NULL);
	assert_int_equal(g.guest.state, NOVA_GUEST_PAUSED);
	MUST(&alpha, NOVA_VERB_RESUME, &g, NULL);
	assert_int_equal(g.guest.state, NOVA_GUEST_RUNNING);
	stats = DO(&alpha, NOVA_VERB_STATS, &g, NULL);
	assert_int_equal(json_integer_value(json_object_get(stats, "pid")), pid);
	assert_true(
	    json_integer_value(json_object_get(json_object_get(stats, "memory"), "rss_bytes")) > 1 << 20);
	assert_non_null(json_object_get(json_object_get(stats, "cpu"), "time_ms"));
	json_decref(stats);
	MUST(&alpha, NOVA_VERB_STOP, &g, json_pack("{s:b}", "force", true));
	assert_int_equal(g.guest.state, NOVA_GUEST_STOPPED);
	assert_int_equal(kill(pid, 0), -1);
	assert_int_equal(count_events(&g, "EXIT", NULL), 1);
	MUST(&alpha, NOVA_VERB_START, &g, json_pack("{s:b}", "paused", true));
	assert_int_equal(g.guest.state, NOVA_GUEST_PAUSED);
	guest_delete(&alpha, &g);
}

static void test_life_pc(void **state)
{
	life_on("pc");
}

static void test_life_q35(void **state)
{
	life_on("q35");
}

static void test_life_microvm(void **state)
{
	life_on("microvm");
}

/* The guest's own shut-down, through ACPI; a guest that does not listen is ended at the deadline. */
static void test_stop_by_acpi(void **state)
{
	struct test_guest g;
	json_t *answer;

	guest_create(&alpha, &g, "acpi", linux_spec("pc", ""));
	MUST(&alpha, NOVA_VERB_START, &g, NULL);
	wait_for_boot(&alpha, &g);
	answer = DO(&alpha, NOVA_VERB_STOP, &g, NULL);
	assert_null(json_object_get(answer, "forced"));
	assert_int_equal(g.guest.state, NOVA_GUEST_STOPPED);
	json_decref(answer);
	guest_delete(&alpha, &g);
	guest_create(&alpha, &g, "deaf", firmware_spec("pc"));
	MUST(&alpha, NOVA_VERB_START, &g, NULL);
	answer = DO(&alpha, NOVA_VERB_STOP, &g, json_pack("{s:i}", "timeout", 200));
	assert_non_null(json_object_get(answer, "forced"));
	assert_int_equal(g.guest.state, NOVA_GUEST_STOPPED);
	json_decref(answer);
	guest_delete(&alpha, &g);
}

static mode_t mode_of(struct host *host, const char *guest, const char *file)
{
	struct stat st;
	char path[256];

	snprintf(path, sizeof(path), "%s/guests/%s/%s", host->run, guest, file);
	return stat(path, &st) == 0 ? st.st_mode : 0;
}

/* The screen's socket is in a directory that only its owner enters; a password's file must be below the
 * roots. */
static void test_screen(void **state)
{
	struct test_guest g;
	json_t *spec = firmware_spec("pc");
	FILE *file = fopen(below_top("password"), "w");

	fputs("secret", file);
	fclose(file);
	json_object_set_new(spec, "vnc", json_string("socket"));
	json_object_set_new(spec, "vnc-password-file", json_string("/etc/hostname"));
	REFUSED(&alpha, NOVA_VERB_CHECK, NULL, json_pack("{s:O}", "spec", spec), "outside of the roots");
	json_object_set_new(spec, "vnc-password-file", json_string(below_top("password")));
	guest_create(&alpha, &g, "screen", spec);
	MUST(&alpha, NOVA_VERB_START, &g, NULL);
	assert_true(S_ISSOCK(mode_of(&alpha, "screen", "vnc.sock")));
	assert_int_equal(mode_of(&alpha, "screen", ".") & 0777, 0700);
	guest_delete(&alpha, &g);
	unlink(below_top("password"));
}

/* With qemu-user QEMU is that user from its first instruction, and reaches what it needs. */
static void test_own_user(void **state)
{
	struct nova_config *config = nova_config_new();
	struct host other = alpha;
	struct test_guest g;
	struct stat st;
	char path[64];

	if (geteuid() != 0)
		skip();
	assert_int_equal(nova_config_set(config, "roots", top, NULL), 0);
	assert_int_equal(nova_config_set(config, "qemu-user", "nobody", NULL), 0);
	other.config = config;
	host_open(&other);
	guest_create(&other, &g, "nobody", disk_spec("nobody.qcow2"));
	MUST(&other, NOVA_VERB_START, &g, NULL);
	snprintf(path, sizeof(path), "/proc/%d", pid_of(&g));
	assert_int_equal(stat(path, &st), 0);
	assert_int_not_equal(st.st_uid, 0);
	MUST(&other, NOVA_VERB_PAUSE, &g, NULL);
	guest_delete(&other, &g);
	other.driver->close(other.self);
	nova_config_free(config);
}

static void test_killed(void **state)
{
	struct test_guest g;

	guest_create(&alpha, &g, "killed", firmware_spec("pc"));
	MUST(&alpha, NOVA_VERB_START, &g, NULL);
	kill(pid_of(&g), SIGKILL);
	UNTIL(g.guest.state == NOVA_GUEST_FAILED);
	assert_non_null(strstr(g.why, "killed by signal 9"));
	assert_int_equal(count_events(&g, "EXIT", NULL), 1);
	assert_null(json_object_get(g.guest.runtime, "pid"));
	REFUSED(&alpha, NOVA_VERB_PAUSE, &g, NULL, "does not run");
	guest_delete(&alpha, &g);
}

/* A QEMU that refuses its options says why. */
static void test_start_fails(void **state)
{
	struct test_guest g;

	guest_create(&alpha, &g, "wrong", firmware_spec("pc"));
	json_object_set_new(g.guest.spec, "cpu", json_string("nosuchcpu"));
	REFUSED(&alpha, NOVA_VERB_START, &g, NULL, "nosuchcpu");
	assert_int_equal(g.guest.state, NOVA_GUEST_FAILED);
	guest_delete(&alpha, &g);
}

/* A name too long for a socket's path is refused before anything is made. */
static void test_long_name(void **state)
{
	struct test_guest g;

	guest_init(&g, "g", json_object());
	g.guest.name = "a-name-so-long-that-the-path-of-its-sockets-does-not-fit-into-the-108-bytes-that-the-"
	               "kernel-has-for-it";
	REFUSED(&alpha, NOVA_VERB_CREATE, &g, json_pack("{s:{}}", "spec"), "is longer than 107 bytes");
	guest_release(&g);
}

/* The answer of a dropped call never comes; what it began can be deleted. */
static void test_dropped_start(void **state)
{
	struct test_guest g;
	struct answer answer = { 0 };
	struct nova_op *op;
	int pid;

	guest_create(&alpha, &g, "dropped", firmware_spec("pc"));
	op = alpha.driver->verb[NOVA_VERB_START](alpha.self, &g.guest, NULL, answered, &answer, &answer.err);
	assert_non_null(op);
	UNTIL(pid_of(&g) > 0);
	pid = pid_of(&g);
	nova_op_drop(op);
	guest_delete(&alpha, &g);
	assert_int_equal(answer.count, 0);
	assert_int_equal(kill(pid, 0), -1);
}

/* ---- disks and snapshots ----------------------------------------------------------------------------- */

static void test_internal_snapshots(void **state)
{
	struct test_guest g;

	guest_create(&alpha, &g, "snap", disk_spec("snap.qcow2"));
	assert_int_equal(access(below_top("snap.qcow2"), F_OK), 0);
	MUST(&alpha, NOVA_VERB_SNAPSHOT, &g, json_pack("{s:s}", "name", "cold"));
	MUST(&alpha, NOVA_VERB_START, &g, NULL);
	MUST(&alpha, NOVA_VERB_SNAPSHOT, &g, json_pack("{s:s}", "name", "warm"));
	assert_int_equal(g.guest.state, NOVA_GUEST_RUNNING);
	REFUSED(&alpha, NOVA_VERB_SNAPSHOT, &g, json_pack("{s:s}", "name", "warm"), "already");
	REFUSED(&alpha, NOVA_VERB_SNAPSHOT, &g, json_pack("{s:s}", "name", "-x"), "name has");
	MUST(&alpha, NOVA_VERB_RESTORE, &g, json_pack("{s:s}", "name", "warm"));
	UNTIL(g.guest.state == NOVA_GUEST_RUNNING);
	REFUSED(&alpha, NOVA_VERB_RESTORE, &g, json_pack("{s:s}", "name", "cold"), "has no memory");
	REFUSED(&alpha, NOVA_VERB_RESTORE, &g, json_pack("{s:s}", "name", "none"), "no snapshot none");
	MUST(&alpha, NOVA_VERB_STOP, &g, json_pack("{s:b}", "force", true));
	MUST(&alpha, NOVA_VERB_RESTORE, &g, json_pack("{s:s}", "name", "cold"));
	guest_delete(&alpha, &g);
	assert_int_equal(access(below_top("snap.qcow2"), F_OK), -1);
}

static const char *current_disk(const struct test_guest *test)
{
	json_t *disks = json_object_get(json_object_get(test->guest.runtime, "changed"), "disk");

	return json_string_value(json_object_get(json_array_get(disks, 0), "path"));
}

static void test_external_snapshots(void **state)
{
	struct test_guest g;

	guest_create(&alpha, &g, "ext", disk_spec("ext.qcow2"));
	MUST(&alpha, NOVA_VERB_START, &g, NULL);
	MUST(&alpha, NOVA_VERB_SNAPSHOT, &g, json_pack("{s:s,s:b}", "name", "one", "external", true));
	assert_string_equal(current_disk(&g), below_top("ext.one.qcow2"));
	MUST(&alpha, NOVA_VERB_SNAPSHOT, &g, json_pack("{s:s,s:b}", "name", "two", "external", true));
	assert_string_equal(current_disk(&g), below_top("ext.one.two.qcow2"));
	REFUSED(&alpha, NOVA_VERB_RESTORE, &g, json_pack("{s:s}", "name", "one"), "stop guest ext");
	MUST(&alpha, NOVA_VERB_STOP, &g, json_pack("{s:b}", "force", true));
	MUST(&alpha, NOVA_VERB_SNAPSHOT, &g, json_pack("{s:s,s:b}", "name", "three", "external", true));
	MUST(&alpha, NOVA_VERB_START, &g, NULL); /* from the third overlay */
	MUST(&alpha, NOVA_VERB_STOP, &g, json_pack("{s:b}", "force", true));
	MUST(&alpha, NOVA_VERB_RESTORE, &g, json_pack("{s:s}", "name", "one"));
	assert_string_equal(current_disk(&g), below_top("ext.one.qcow2"));
	assert_int_equal(access(below_top("ext.one.two.qcow2"), F_OK), -1);
	MUST(&alpha, NOVA_VERB_START, &g, NULL);
	guest_delete(&alpha, &g);
	assert_int_equal(access(below_top("ext.one.qcow2"), F_OK), -1);
	assert_int_equal(access(below_top("ext.qcow2"), F_OK), -1);
}

/* An image may not lead QEMU out of the roots through its backing file. */
static void test_backing_outside(void **state)
{
	char command[512];

	snprintf(command, sizeof(command), "qemu-img create -q -f qcow2 -u -b /etc/passwd -F raw %s 1M",
	    below_top("trap.qcow2"));
	assert_int_equal(system(command), 0);
	REFUSED(&alpha, NOVA_VERB_CHECK, NULL,
	    json_pack("{s:{s:[s]}}", "spec", "disk", below_top("trap.qcow2")),
	    "backing file /etc/passwd is outside");
	unlink(below_top("trap.qcow2"));
}

/* ---- resize ------------------------------------------------------------------------------------------ */

static json_t *growing_spec(const char *machine)
{
	return json_pack("{s:s,s:i,s:i,s:i,s:i}", "machine", machine, "memory", 128 << 20, "max-memory",
	    512 << 20, "vcpus", 1, "max-vcpus", 4);
}

static void grow(struct test_guest *g)
{
	json_t *answer =
	    DO(&alpha, NOVA_VERB_RESIZE, g, json_pack("{s:i,s:i}", "memory", 256 << 20, "vcpus", 3));
	json_t *hotplug = json_object_get(json_object_get(answer, "spec"), "hotplug");

	assert_int_equal(json_array_size(json_object_get(hotplug, "dimms")), 1);
	assert_int_equal(json_array_size(json_object_get(hotplug, "vcpus")), 2);
	json_decref(answer);
}

static void test_resize(void **state)
{
	struct test_guest g;
	json_t *answer;

	guest_create(&alpha, &g, "grow", growing_spec("pc"));
	MUST(&alpha, NOVA_VERB_START, &g, NULL);
	grow(&g);
	REFUSED(&alpha, NOVA_VERB_RESIZE, &g, json_pack("{s:i}", "memory", 300 << 20), "steps of 128 MiB");
	REFUSED(
	    &alpha, NOVA_VERB_RESIZE, &g, json_pack("{s:I}", "memory", (json_int_t)1 << 30), "max-memory");
	REFUSED(&alpha, NOVA_VERB_RESIZE, &g, json_pack("{s:i}", "vcpus", 5), "max-vcpus");
	REFUSED(&alpha, NOVA_VERB_RESIZE, &g, json_pack("{s:i}", "vcpus", 1), "cannot be taken out");
	MUST(&alpha, NOVA_VERB_RESIZE, &g, json_pack("{s:i}", "memory", 64 << 20));
	answer = DO(&alpha, NOVA_VERB_STATS, &g, NULL);
	assert_int_equal(
	    json_integer_value(json_object_get(json_object_get(answer, "memory"), "bytes")), 256 << 20);
	assert_int_equal(json_integer_value(json_object_get(json_object_get(answer, "cpu"), "vcpus")), 3);
	json_decref(answer);
	MUST(&alpha, NOVA_VERB_STOP, &g, json_pack("{s:b}", "force", true));
	MUST(&alpha, NOVA_VERB_START, &g, NULL); /* with what was plugged in */
	MUST(&alpha, NOVA_VERB_STOP, &g, json_pack("{s:b}", "force", true));
	MUST(&alpha, NOVA_VERB_RESIZE, &g, json_pack("{s:i,s:i}", "memory", 192 << 20, "vcpus", 2));
	MUST(&alpha, NOVA_VERB_START, &g, NULL);
	guest_delete(&alpha, &g);
}

/* A real guest gives memory back through its balloon. */
static void test_balloon(void **state)
{
	struct test_guest g;
	json_int_t actual = 0;

	guest_create(&alpha, &g, "balloon", linux_spec("pc", ""));
	MUST(&alpha, NOVA_VERB_START, &g, NULL);
	wait_for_boot(&alpha, &g);
	MUST(&alpha, NOVA_VERB_RESIZE, &g, json_pack("{s:i}", "memory", 192 << 20));
	for (double until = now() + LIMIT_S; actual != 192 << 20 && now() < until;) {
		json_t *stats = DO(&alpha, NOVA_VERB_STATS, &g, NULL);

		actual =
		    json_integer_value(json_object_get(json_object_get(stats, "memory"), "balloon_bytes"));
		json_decref(stats);
	}
	assert_int_equal(actual, 192 << 20);
	guest_delete(&alpha, &g);
}

/* ---- again ours, or taken over ------------------------------------------------------------------------ */

static void restart(struct host *host)
{
	host->driver->close(host->self);
	host_open(host);
}

static void test_reattach(void **state)
{
	struct test_guest g;
	json_t *answer;

	guest_create(&alpha, &g, "again", firmware_spec("pc"));
	MUST(&alpha, NOVA_VERB_START, &g, NULL);
	restart(&alpha);
	assert_null(g.guest.driver_data);
	g.guest.state = NOVA_GUEST_STOPPED;
	answer = DO(&alpha, NOVA_VERB_REATTACH, &g, NULL);
	assert_string_equal(json_string_value(json_object_get(answer, "state")), "running");
	assert_int_equal(g.guest.state, NOVA_GUEST_RUNNING);
	json_decref(answer);
	MUST(&alpha, NOVA_VERB_PAUSE, &g, NULL);
	/* The daemon died before it knew the pid: the command line tells. */
	restart(&alpha);
	json_object_del(g.guest.runtime, "pid");
	json_object_del(g.guest.runtime, "start_time");
	answer = DO(&alpha, NOVA_VERB_REATTACH, &g, NULL);
	assert_string_equal(json_string_value(json_object_get(answer, "state")), "paused");
	json_decref(answer);
	/* It died while we were away. */
	restart(&alpha);
	kill(pid_of(&g), SIGKILL);
	UNTIL(!nova_process_alive(pid_of(&g), nova_process_start_time(pid_of(&g), NULL)));
	answer = DO(&alpha, NOVA_VERB_REATTACH, &g, NULL);
	assert_string_equal(json_string_value(json_object_get(answer, "state")), "stopped");
	json_decref(answer);
	guest_delete(&alpha, &g);
}

static pid_t foreign_qemu(const char *monitor, const char *option)
{
	char qmp[300], log[300];
	const char *argv[] = { "qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none",
		"-M", "pc", "-accel", "tcg", "-cpu", "max", "-m", "64", "-name", "stranger", "-qmp", qmp,
		"-serial", "null", option, NULL };
	struct nova_child_options options = { 0 };
	struct nova_error err;
	uint64_t start_time;
	pid_t pid;

	snprintf(qmp, sizeof(qmp), "unix:%s,server=on,wait=off", monitor);
	snprintf(log, sizeof(log), "%s/foreign.log", top);
	if (nova_child_spawn(argv, &options, log, &pid, &start_time, &err) < 0)
		fail_msg("%s", err.text);
	UNTIL(access(monitor, F_OK) == 0);
	return pid;
}

static void test_adopt(void **state)
{
	const char *monitor = below_top("foreign.sock");
	pid_t pid = foreign_qemu(monitor, NULL);
	struct test_guest g;
	json_t *answer, *list, *prepared;

	guest_init(&g, "adopted", json_object());
	list = DO(&alpha, NOVA_VERB_LIST, NULL, NULL);
	assert_true(listed(list, pid, false));
	json_decref(list);
	answer = DO(&alpha, NOVA_VERB_ADOPT, &g, json_pack("{s:s}", "qmp", monitor));
	assert_int_equal(g.guest.state, NOVA_GUEST_RUNNING);
	assert_int_equal(pid_of(&g), pid);
	assert_string_equal(json_string_value(json_object_get(answer, "name")), "stranger");
	json_decref(g.guest.spec);
	g.guest.spec = json_incref(json_object_get(answer, "spec"));
	assert_int_equal(json_integer_value(json_object_get(g.guest.spec, "memory")), 64 << 20);
	assert_int_equal(
	    json_array_size(json_object_get(json_object_get(g.guest.spec, "adopted"), "unknown")), 0);
	prepared = DO(&alpha, NOVA_VERB_OUT_PREPARE, &g, json_pack("{s:s}", "mode", "live"));
	json_decref(prepared);
	json_decref(answer);
	MUST(&alpha, NOVA_VERB_PAUSE, &g, NULL);
	guest_delete(&alpha, &g);
	assert_int_equal(kill(pid, 0), -1);
	unlink(monitor);
}

/* What cannot be made again at a destination is named, and such a guest does not move. */
static void test_adopt_unknown(void **state)
{
	const char *monitor = below_top("foreign.sock");
	pid_t pid = foreign_qemu(monitor, "-usb");
	struct test_guest g;
	json_t *answer;

	guest_init(&g, "odd", json_object());
	answer = DO(&alpha, NOVA_VERB_ADOPT, &g, json_pack("{s:s}", "qmp", monitor));
	json_decref(g.guest.spec);
	g.guest.spec = json_incref(json_object_get(answer, "spec"));
	json_decref(answer);
	REFUSED(&alpha, NOVA_VERB_OUT_PREPARE, &g, json_pack("{s:s}", "mode", "live"), "-usb");
	answer = DO(&alpha, NOVA_VERB_OUT_PREPARE, &g,
	    json_pack("{s:s,s:o}", "mode", "live", "spec", firmware_spec("pc")));
	json_decref(answer);
	guest_delete(&alpha, &g);
	assert_int_equal(kill(pid, 0), -1);
	unlink(monitor);
	guest_init(&g, "nobody", json_object());
	REFUSED(&alpha, NOVA_VERB_ADOPT, &g, json_pack("{s:s}", "qmp", monitor), "foreign.sock");
	guest_release(&g);
}

/* ---- migration ---------------------------------------------------------------------------------------- */

/* Two unix sockets joined: the source's QEMU dials path, we dial the destination's. */
struct joint {
	char path[100], to[100];
	struct evconnlistener *listener;
	struct bufferevent *source, *destination;
};

static void joint_read(struct bufferevent *from, void *arg)
{
	struct joint *joint = arg;

	bufferevent_write_buffer(
	    from == joint->source ? joint->destination : joint->source, bufferevent_get_input(from));
}

static void joint_break(struct joint *joint)
{
	if (joint->source)
		bufferevent_free(joint->source);
	if (joint->destination)
		bufferevent_free(joint->destination);
	joint->source = joint->destination = NULL;
}

/* One side ended: the other hears of it after what is still on its way, "everything is loaded" among it. */
static void joint_drained(struct bufferevent *side, void *arg)
{
	shutdown(bufferevent_getfd(side), SHUT_WR);
}

static void joint_event(struct bufferevent *side, short what, void *arg)
{
	struct joint *joint = arg;
	struct bufferevent *other = side == joint->source ? joint->destination : joint->source;

	if (what & BEV_EVENT_ERROR) {
		joint_break(joint);
		return;
	}
	if (!(what & BEV_EVENT_EOF))
		return;
	joint_read(side, joint);
	bufferevent_setcb(other, joint_read, joint_drained, joint_event, joint);
	bufferevent_trigger(other, EV_WRITE, 0);
}

static void joint_accept(
    struct evconnlistener *listener, evutil_socket_t fd, struct sockaddr *from, int length, void *arg)
{
	struct joint *joint = arg;
	struct sockaddr_un address = unix_address(joint->to);

	joint->source = bufferevent_socket_new(base, fd, BEV_OPT_CLOSE_ON_FREE);
	joint->destination = bufferevent_socket_new(base, -1, BEV_OPT_CLOSE_ON_FREE);
	bufferevent_setcb(joint->source, joint_read, NULL, joint_event, joint);
	bufferevent_setcb(joint->destination, joint_read, NULL, joint_event, joint);
	bufferevent_socket_connect(joint->destination, (struct sockaddr *)&address, sizeof(address));
	bufferevent_enable(joint->source, EV_READ | EV_WRITE);
	bufferevent_enable(joint->destination, EV_READ | EV_WRITE);
}

static void joint_init(struct joint *joint, const char *to)
{
	struct sockaddr_un address;

	memset(joint, 0, sizeof(*joint));
	snprintf(joint->to, sizeof(joint->to), "%s", to);
	snprintf(joint->path, sizeof(joint->path), "%s/joint.sock", top);
	unlink(joint->path);
	address = unix_address(joint->path);
	joint->listener = evconnlistener_new_bind(base, joint_accept, joint,
	    LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC, 1, (struct sockaddr *)&address, sizeof(address));
	assert_non_null(joint->listener);
}

static void joint_release(struct joint *joint)
{
	joint_break(joint);
	evconnlistener_free(joint->listener);
	unlink(joint->path);
}

/* Everything up to the first byte: the destination waits, joined to a path for the source. */
static void prepare_move(struct test_guest *from, struct test_guest *to, struct joint *joint, bool postcopy)
{
	json_t *prepared = DO(&alpha, NOVA_VERB_OUT_PREPARE, from, json_pack("{s:s}", "mode", "live"));
	json_t *checked = DO(&beta, NOVA_VERB_CHECK, NULL,
	    json_pack("{s:O,s:b}", "spec", json_object_get(prepared, "spec"), "incoming", true));
	json_t *waiting;

	guest_init(to, from->name, json_incref(json_object_get(checked, "spec")));
	waiting = DO(&beta, NOVA_VERB_IN_PREPARE, to,
	    json_pack("{s:O,s:s,s:b}", "spec", to->guest.spec, "mode", "live", "postcopy", postcopy));
	assert_int_equal(to->guest.state, NOVA_GUEST_INCOMING);
	REFUSED(&beta, NOVA_VERB_RESUME, to, NULL, "not complete");
	joint_init(joint, json_string_value(json_object_get(waiting, "path")));
	json_decref(waiting);
	json_decref(checked);
	json_decref(prepared);
}

static void start_move(struct test_guest *from, struct joint *joint, bool postcopy)
{
	MUST(&alpha, NOVA_VERB_OUT_START, from,
	    json_pack("{s:s,s:s,s:b}", "path", joint->path, "mode", "live", "postcopy", postcopy));
}

static void start_linux(struct test_guest *g, const char *machine, const char *work)
{
	guest_create(&alpha, g, "mover", linux_spec(machine, work));
	MUST(&alpha, NOVA_VERB_START, g, NULL);
	wait_for_boot(&alpha, g);
}

/* One look at the migration; asked in a loop, it leaves QEMU time for its work. */
static json_int_t sample(struct test_guest *g, const char *figure)
{
	json_t *answer = DO(&alpha, NOVA_VERB_OUT_QUERY, g, NULL);
	json_int_t value = json_integer_value(json_object_get(answer, figure));

	json_decref(answer);
	pass_ms(20);
	return value;
}

static void switch_over(struct test_guest *g)
{
	MUST(&alpha, NOVA_VERB_OUT_SET, g, json_pack("{s:i}", "downtime_limit_ms", 2000));
}

static void completed(struct test_guest *from, struct test_guest *to)
{
	UNTIL(count_events(from, "MIGRATION", "completed") && count_events(to, "MIGRATION", "completed"));
}

static void move(const char *machine)
{
	struct test_guest from, to;
	struct joint joint;

	start_linux(&from, machine, "dirty=edit8:16:4");
	prepare_move(&from, &to, &joint, false);
	start_move(&from, &joint, false);
	switch_over(&from);
	completed(&from, &to);
	assert_int_equal(from.guest.state, NOVA_GUEST_MIGRATED);
	assert_int_equal(to.guest.state, NOVA_GUEST_INCOMING);
	assert_true(count_events(&from, "MIGRATION_PASS", NULL) > 0);
	assert_int_equal(count_events(&from, "STOP", NULL), 1);
	assert_true(sample(&from, "transferred_bytes") > 20 << 20);
	assert_true(sample(&from, "page_bytes") == 4096);
	MUST(&beta, NOVA_VERB_RESUME, &to, NULL);
	assert_int_equal(to.guest.state, NOVA_GUEST_RUNNING);
	MUST(&alpha, NOVA_VERB_STOP, &from, json_pack("{s:b}", "force", true));
	guest_delete(&alpha, &from);
	joint_release(&joint);
	assert_alive(&beta, &to);
	guest_delete(&beta, &to);
}

static void test_move_pc(void **state)
{
	move("pc");
}

static void test_move_q35(void **state)
{
	move("q35");
}

static void test_move_microvm(void **state)
{
	move("microvm");
}

/* What was plugged in is there at the destination as well. */
static void test_move_grown(void **state)
{
	struct test_guest from, to;
	struct joint joint;
	json_t *stats;

	guest_create(&alpha, &from, "grown", growing_spec("q35"));
	MUST(&alpha, NOVA_VERB_START, &from, NULL);
	grow(&from);
	prepare_move(&from, &to, &joint, false);
	start_move(&from, &joint, false);
	switch_over(&from);
	completed(&from, &to);
	MUST(&beta, NOVA_VERB_RESUME, &to, NULL);
	stats = DO(&beta, NOVA_VERB_STATS, &to, NULL);
	assert_int_equal(
	    json_integer_value(json_object_get(json_object_get(stats, "memory"), "bytes")), 256 << 20);
	json_decref(stats);
	guest_delete(&alpha, &from);
	guest_delete(&beta, &to);
	joint_release(&joint);
}

static void test_move_disk(void **state)
{
	struct test_guest from, to;
	struct joint joint;

	guest_create(&alpha, &from, "disky", disk_spec("shared.qcow2"));
	MUST(&alpha, NOVA_VERB_START, &from, NULL);
	prepare_move(&from, &to, &joint, false);
	start_move(&from, &joint, false);
	switch_over(&from);
	completed(&from, &to);
	MUST(&beta, NOVA_VERB_RESUME, &to, NULL);
	guest_delete(&alpha, &from); /* must leave the disk alone: it is the other's now */
	assert_int_equal(access(below_top("shared.qcow2"), F_OK), 0);
	guest_delete(&beta, &to);
	assert_int_equal(access(below_top("shared.qcow2"), F_OK), -1);
	joint_release(&joint);
}

/* A disk that only this host has is no reason for a guest to lose it. */
static void test_move_private_disk(void **state)
{
	struct test_guest g;

	guest_create(&alpha, &g, "private",
	    json_pack("{s:i,s:[o]}", "memory", 64 << 20, "disk",
	        json_sprintf("path=%s,size=1M", below_top("private.raw"))));
	REFUSED(&alpha, NOVA_VERB_OUT_PREPARE, &g, json_pack("{s:s}", "mode", "live"), "shared=on");
	guest_delete(&alpha, &g);
	assert_int_equal(access(below_top("private.raw"), F_OK), -1);
}

static void slow_down(struct test_guest *g)
{
	MUST(&alpha, NOVA_VERB_OUT_SET, g, json_pack("{s:i}", "bandwidth_bytes_per_s", 4 << 20));
}

static void test_cancel(void **state)
{
	struct test_guest from, to;
	struct joint joint;

	start_linux(&from, "pc", "fill=rand:30");
	prepare_move(&from, &to, &joint, false);
	start_move(&from, &joint, false);
	slow_down(&from);
	UNTIL(sample(&from, "transferred_bytes") > 1 << 20);
	REFUSED(&alpha, NOVA_VERB_OUT_START, &from, json_pack("{s:s}", "path", joint.path), "migration");
	MUST(&alpha, NOVA_VERB_OUT_CANCEL, &from, NULL);
	assert_int_equal(from.guest.state, NOVA_GUEST_RUNNING);
	UNTIL(count_events(&to, "EXIT", NULL) == 1);
	assert_int_equal(to.guest.state, NOVA_GUEST_FAILED);
	guest_delete(&beta, &to);
	joint_release(&joint);
	/* And once more, to the end. */
	prepare_move(&from, &to, &joint, false);
	start_move(&from, &joint, false);
	switch_over(&from);
	completed(&from, &to);
	guest_delete(&alpha, &from);
	MUST(&beta, NOVA_VERB_RESUME, &to, NULL);
	guest_delete(&beta, &to);
	joint_release(&joint);
}

/* After "completed" the guest can still come back, by CANCEL or by RESUME. */
static void rollback(enum nova_verb verb)
{
	struct test_guest from, to;
	struct joint joint;

	start_linux(&from, "pc", "dirty=edit8:8:2");
	prepare_move(&from, &to, &joint, false);
	start_move(&from, &joint, false);
	switch_over(&from);
	UNTIL(from.guest.state == NOVA_GUEST_MIGRATED);
	MUST(&alpha, verb, &from, NULL);
	assert_int_equal(from.guest.state, NOVA_GUEST_RUNNING);
	guest_delete(&beta, &to);
	joint_release(&joint);
	assert_alive(&alpha, &from);
	guest_delete(&alpha, &from);
}

static void test_rollback_by_cancel(void **state)
{
	rollback(NOVA_VERB_OUT_CANCEL);
}

static void test_rollback_by_resume(void **state)
{
	rollback(NOVA_VERB_RESUME);
}

/* The connection breaks: the source goes on, the destination ends, both say why. */
static void test_broken(void **state)
{
	struct test_guest from, to;
	struct joint joint;

	start_linux(&from, "pc", "fill=rand:30");
	prepare_move(&from, &to, &joint, false);
	start_move(&from, &joint, false);
	slow_down(&from);
	UNTIL(sample(&from, "transferred_bytes") > 1 << 20);
	joint_break(&joint);
	UNTIL(count_events(&from, "MIGRATION", "failed") == 1 && count_events(&to, "EXIT", NULL) == 1);
	assert_int_equal(from.guest.state, NOVA_GUEST_RUNNING);
	assert_int_equal(to.guest.state, NOVA_GUEST_FAILED);
	assert_non_null(strstr(to.why, "exited with status 1"));
	MUST(&alpha, NOVA_VERB_OUT_CANCEL, &from, NULL); /* nothing is left to cancel: no harm */
	assert_int_equal(from.guest.state, NOVA_GUEST_RUNNING);
	guest_delete(&beta, &to);
	guest_delete(&alpha, &from);
	joint_release(&joint);
}

static void break_now(evutil_socket_t fd, short what, void *arg)
{
	joint_break(arg);
}

/* The connection breaks just before, while or after we cancel: QEMU's "failed" may come before anybody listens for it,
 * and no "cancelled" ever. */
static void cancel_while_breaking(struct test_guest *from, int break_us)
{
	struct answer answer = { 0 };
	struct timeval wait = { 0, break_us };
	struct test_guest to;
	struct joint joint;

	prepare_move(from, &to, &joint, false);
	start_move(from, &joint, false);
	slow_down(from);
	UNTIL(sample(from, "transferred_bytes") > 1 << 20);
	event_base_once(base, -1, EV_TIMEOUT, break_now, &joint, &wait);
	assert_non_null(alpha.driver->verb[NOVA_VERB_OUT_CANCEL](
	    alpha.self, &from->guest, NULL, answered, &answer, &answer.err));
	UNTIL(answer.count > 0);
	if (answer.failed)
		fail_msg("broken after %d us: %s", break_us, answer.err.text);
	json_decref(answer.result);
	assert_int_equal(from->guest.state, NOVA_GUEST_RUNNING);
	UNTIL(!joint.source && count_events(&to, "EXIT", NULL) == 1);
	guest_delete(&beta, &to);
	joint_release(&joint);
}

static void test_cancel_broken(void **state)
{
	struct test_guest from;

	start_linux(&from, "pc", "fill=rand:30");
	for (int break_us = 0; break_us < 2000; break_us += 100)
		cancel_while_breaking(&from, break_us);
	guest_delete(&alpha, &from);
}

/* The daemon restarts in the middle of a migration and finds it going on. */
static void test_reattach_moving(void **state)
{
	struct test_guest from, to;
	struct joint joint;
	json_t *answer;

	start_linux(&from, "pc", "fill=rand:30");
	prepare_move(&from, &to, &joint, false);
	start_move(&from, &joint, false);
	slow_down(&from);
	restart(&alpha);
	restart(&beta);
	answer = DO(&alpha, NOVA_VERB_REATTACH, &from, NULL);
	assert_string_equal(json_string_value(json_object_get(answer, "state")), "running");
	assert_string_equal(
	    json_string_value(json_object_get(json_object_get(answer, "migration"), "status")), "active");
	json_decref(answer);
	answer = DO(&beta, NOVA_VERB_REATTACH, &to, NULL);
	assert_string_equal(json_string_value(json_object_get(answer, "state")), "incoming");
	json_decref(answer);
	MUST(&alpha, NOVA_VERB_OUT_CANCEL, &from, NULL);
	assert_int_equal(from.guest.state, NOVA_GUEST_RUNNING);
	guest_delete(&beta, &to);
	guest_delete(&alpha, &from);
	joint_release(&joint);
}

/* Throttling takes hold in flight and lets go again. */
static void test_throttle(void **state)
{
	struct test_guest from, to;
	struct joint joint;

	start_linux(&from, "pc", "dirty=rand:32:64");
	prepare_move(&from, &to, &joint, false);
	start_move(&from, &joint, false);
	MUST(&alpha, NOVA_VERB_OUT_SET, &from, json_pack("{s:i}", "bandwidth_bytes_per_s", 12 << 20));
	MUST(&alpha, NOVA_VERB_OUT_SET, &from, json_pack("{s:i}", "throttle_percent", 70));
	UNTIL(sample(&from, "throttle_percent") == 70);
	REFUSED(&alpha, NOVA_VERB_OUT_SET, &from, json_pack("{s:i}", "throttle_percent", 100), "0 to 99");
	MUST(&alpha, NOVA_VERB_OUT_CANCEL, &from, NULL);
	guest_delete(&beta, &to);
	guest_delete(&alpha, &from);
	joint_release(&joint);
}

static void test_postcopy(void **state)
{
	struct test_guest from, to;
	struct joint joint;
	json_t *capabilities = DO(&beta, NOVA_VERB_CAPABILITIES, NULL, NULL);
	bool can = json_is_true(json_object_get(capabilities, "postcopy"));

	json_decref(capabilities);
	if (!can)
		skip();
	start_linux(&from, "pc", "dirty=rand:32:64");
	prepare_move(&from, &to, &joint, true);
	start_move(&from, &joint, true);
	slow_down(&from);
	UNTIL(sample(&from, "transferred_bytes") > 1 << 20);
	MUST(&alpha, NOVA_VERB_OUT_SET, &from, json_pack("{s:b}", "postcopy", true));
	UNTIL(count_events(&to, "MIGRATION", "postcopy-active"));
	MUST(&beta, NOVA_VERB_RESUME, &to, NULL);
	REFUSED(&alpha, NOVA_VERB_OUT_CANCEL, &from, NULL, "too late");
	MUST(&alpha, NOVA_VERB_OUT_SET, &from, json_pack("{s:i}", "bandwidth_bytes_per_s", 0));
	UNTIL(from.guest.state == NOVA_GUEST_MIGRATED && count_events(&to, "MIGRATION", "completed"));
	assert_int_equal(to.guest.state, NOVA_GUEST_RUNNING);
	guest_delete(&alpha, &from);
	assert_alive(&beta, &to);
	guest_delete(&beta, &to);
	joint_release(&joint);
}

/* ---- all of it ---------------------------------------------------------------------------------------- */

static void link_in(const char *dir, const char *name)
{
	char command[512];

	snprintf(command, sizeof(command), "cp %s/%s %s/%s", dir, name, top, name);
	if (system(command) != 0)
		fail_msg("no guest in %s: build it with tests/guest/build", dir);
}

static int open_hosts(void **state)
{
	const char *dir = getenv("NOVA_TEST_DIR"), *guest = getenv("NOVA_GUEST");

	snprintf(top, sizeof(top), "%s/kvm-XXXXXX", dir ? dir : "/tmp");
	assert_non_null(mkdtemp(top));
	/* QEMU may run as another user (qemu-user): it passes through, and does not look. */
	if (dir)
		chmod(dir, 0711);
	chmod(top, 0711);
	link_in(guest ? guest : "guest", "vmlinuz");
	link_in(guest ? guest : "guest", "initrd");
	base = event_base_new();
	host_init(&alpha, "a");
	host_init(&beta, "b");
	return 0;
}

/* Nothing but what we made ourselves is left. */
static void assert_clean(const char *host)
{
	char path[300];
	DIR *dir;
	struct dirent *entry;

	snprintf(path, sizeof(path), "%s/guests", host);
	dir = opendir(path);
	while (dir && (entry = readdir(dir)))
		if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
			fail_msg("left behind: %s/%s", path, entry->d_name);
	if (dir)
		closedir(dir);
}

static int close_hosts(void **state)
{
	char command[200];

	assert_clean(alpha.state);
	assert_clean(alpha.run);
	assert_clean(beta.state);
	assert_clean(beta.run);
	host_release(&alpha);
	host_release(&beta);
	event_base_free(base);
	snprintf(command, sizeof(command), "rm -rf %s", top);
	return system(command);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_probe),
		cmocka_unit_test(test_probe_without_qemu),
		cmocka_unit_test(test_check),
		cmocka_unit_test(test_life_pc),
		cmocka_unit_test(test_life_q35),
		cmocka_unit_test(test_life_microvm),
		cmocka_unit_test(test_stop_by_acpi),
		cmocka_unit_test(test_screen),
		cmocka_unit_test(test_own_user),
		cmocka_unit_test(test_killed),
		cmocka_unit_test(test_start_fails),
		cmocka_unit_test(test_long_name),
		cmocka_unit_test(test_dropped_start),
		cmocka_unit_test(test_internal_snapshots),
		cmocka_unit_test(test_external_snapshots),
		cmocka_unit_test(test_backing_outside),
		cmocka_unit_test(test_resize),
		cmocka_unit_test(test_balloon),
		cmocka_unit_test(test_reattach),
		cmocka_unit_test(test_adopt),
		cmocka_unit_test(test_adopt_unknown),
		cmocka_unit_test(test_move_pc),
		cmocka_unit_test(test_move_q35),
		cmocka_unit_test(test_move_microvm),
		cmocka_unit_test(test_move_grown),
		cmocka_unit_test(test_move_disk),
		cmocka_unit_test(test_move_private_disk),
		cmocka_unit_test(test_cancel),
		cmocka_unit_test(test_rollback_by_cancel),
		cmocka_unit_test(test_rollback_by_resume),
		cmocka_unit_test(test_broken),
		cmocka_unit_test(test_cancel_broken),
		cmocka_unit_test(test_reattach_moving),
		cmocka_unit_test(test_throttle),
		cmocka_unit_test(test_postcopy),
	};

	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests(tests, open_hosts, close_hosts);
}
