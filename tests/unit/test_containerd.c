/* SPDX-License-Identifier: Apache-2.0
 *
 * test_containerd.c - the containerd driver without containerd: names of snapshots, an OCI configuration and back,
 * users, events, states, and a socket where nobody answers.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "drivers/containerd/api.pb-c.h"
#include "drivers/containerd/containerd.h"
#include "loop.h"

extern const struct nova_driver nova_driver_containerd;

static void no_log(void *arg, enum nova_log_level level, const char *line)
{
}

/* ---- images ---- */

static void test_chain(void **state)
{
	NOVA_AUTOJSON json_t *ids = json_pack("[s,s]", "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
	    "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb");
	NOVA_AUTOJSON json_t *wrong = json_pack("[i]", 1), *none = json_array();
	NOVA_AUTOJSON json_t *chain = containerd_chain(ids), *empty = containerd_chain(none);

	assert_int_equal(json_array_size(chain), 2);
	assert_true(json_equal(json_array_get(chain, 0), json_array_get(ids, 0)));
	/* printf 'sha256:aaa... sha256:bbb...' | sha256sum */
	assert_string_equal(json_string_value(json_array_get(chain, 1)), "sha256:ccd722928bd92476ba1745586fed6e45a102504185ad88cd89e01ff116fd146c");
	assert_null(containerd_chain(wrong));
	assert_int_equal(json_array_size(empty), 0);
}

/* ---- specifications ---- */

static void test_user(void **state)
{
	unsigned uid, gid;
	struct nova_error err;

	assert_int_equal(containerd_user(NULL, &uid, &gid, &err), 0);
	assert_int_equal(uid, 0);
	assert_int_equal(containerd_user("1000", &uid, &gid, &err), 0);
	assert_int_equal(uid, 1000);
	assert_int_equal(gid, 0);
	assert_int_equal(containerd_user("7:8", &uid, &gid, &err), 0);
	assert_int_equal(gid, 8);
	assert_int_equal(containerd_user("nobody", &uid, &gid, &err), -1);
	assert_int_equal(containerd_user("7:", &uid, &gid, &err), -1);
	assert_int_equal(containerd_user("-1", &uid, &gid, &err), -1);
	assert_non_null(strstr(err.text, "UID"));
}

static json_t *spec_of(const char *network)
{
	return json_pack("{s:s,s:[s,s],s:[s],s:[s],s:s,s:s,s:i,s:i,s:i,s:[{s:s,s:s,s:b}]}", "image", "bb:1", "command", "a", "b", "env", "A=1", "label",
	    "x=y=z", "user", "5:6", "network", network, "cpu-shares", 512, "memory", 1 << 26, "vcpus", 2, "volume", "source", "/r/d", "target", "/d",
	    "readonly", 1);
}

static const json_t *at(const json_t *value, const char *a, const char *b)
{
	return json_object_get(json_object_get(value, a), b);
}

static void test_oci(void **state)
{
	const struct nova_guest guest = { .name = "g", .uuid = "u", .owner = "o" };
	NOVA_AUTOJSON json_t *spec = spec_of("none");
	NOVA_AUTOJSON json_t *config = json_pack("{s:{s:[s],s:[s],s:s}}", "config", "Env", "PATH=/x", "Cmd", "other", "WorkingDir", "/w");
	NOVA_AUTOJSON json_t *oci = containerd_oci_spec(&guest, spec, config, NULL);
	const json_t *process = json_object_get(oci, "process"), *mounts = json_object_get(oci, "mounts");

	assert_true(json_is_true(json_object_get(process, "noNewPrivileges")));
	assert_true(json_equal(json_object_get(process, "args"), json_object_get(spec, "command")));
	assert_string_equal(json_string_value(json_array_get(json_object_get(process, "env"), 0)), "PATH=/x");
	assert_string_equal(json_string_value(json_array_get(json_object_get(process, "env"), 1)), "A=1");
	assert_string_equal(json_string_value(json_object_get(process, "cwd")), "/w");
	assert_int_equal(json_integer_value(at(process, "user", "gid")), 6);
	assert_int_equal(json_integer_value(at(at(oci, "linux", "resources"), "cpu", "quota")), 200000);
	assert_int_equal(json_array_size(at(oci, "linux", "namespaces")), 5);
	assert_string_equal(json_string_value(at(oci, "linux", "cgroupsPath")), "/novacron-u");
	assert_string_equal(json_string_value(json_object_get(json_array_get(mounts, json_array_size(mounts) - 1), "source")), "/r/d");
	assert_null(at(oci, "linux", "devices"));
}

/* What an image says is no reason to do what nobody may. */
static void test_oci_refused(void **state)
{
	const struct nova_guest guest = { .name = "g", .uuid = "u" };
	NOVA_AUTOJSON json_t *bare = json_pack("{s:s,s:s,s:i,s:i}", "image", "i", "network", "none", "memory", 1 << 26, "vcpus", 1);
	static const char *const configs[][2] = {
		{ "{\"config\":{}}", "no command" },
		{ "{\"config\":{\"Cmd\":[\"a\"],\"User\":\"www\"}}", "user 'www'" },
		{ "{\"config\":{\"Cmd\":[\"a\"],\"WorkingDir\":\"/proc/self/fd/8\"}}", "outside of /proc" },
		{ "{\"config\":{\"Cmd\":[\"a\"],\"WorkingDir\":\"/a/../proc/self\"}}", "outside of /proc" },
		{ "{\"config\":{\"Cmd\":[\"a\"],\"WorkingDir\":\"a\"}}", "outside of /proc" },
	};

	for (size_t i = 0; i < sizeof(configs) / sizeof(*configs); i++) {
		NOVA_AUTOJSON json_t *config = json_loads(configs[i][0], 0, NULL);
		struct nova_error err;

		assert_null(containerd_oci_spec(&guest, bare, config, &err));
		assert_non_null(strstr(err.text, configs[i][1]));
	}
}

static void test_spec_of(void **state)
{
	const struct nova_guest guest = { .name = "g", .uuid = "u" };
	NOVA_AUTOJSON json_t *spec = spec_of("host"), *unknown = json_array();
	NOVA_AUTOJSON json_t *oci = containerd_oci_spec(&guest, spec, NULL, NULL);
	NOVA_AUTOJSON json_t *container = json_pack("{s:s,s:{s:s,s:s},s:o}", "image", "bb:1", "labels", "a", "b", "novacron.uuid", "u", "spec",
	    containerd_any_json("t", oci));
	NOVA_AUTOJSON json_t *back = containerd_spec_of(container, unknown), *more = NULL, *again = NULL, *foreign = NULL;

	assert_int_equal(json_array_size(unknown), 0);
	assert_string_equal(json_string_value(json_object_get(back, "network")), "host");
	assert_string_equal(json_string_value(json_object_get(back, "user")), "5:6");
	assert_true(json_equal(json_object_get(back, "volume"), json_object_get(spec, "volume")));
	assert_true(json_equal(json_object_get(back, "memory"), json_object_get(spec, "memory")));
	assert_int_equal(json_integer_value(json_object_get(back, "vcpus")), 2);
	assert_int_equal(json_array_size(json_object_get(back, "label")), 1);
	/* One of somebody else's, with more than ours have. */
	more = json_pack("{s:{s:{s:[s]}},s:{s:[{s:s}]}}", "process", "capabilities", "bounding", "CAP_SYS_ADMIN", "linux", "devices", "path", "/dev/x");
	foreign = json_pack("{s:o}", "spec", containerd_any_json("t", more));
	again = containerd_spec_of(foreign, unknown);
	assert_int_equal(json_array_size(unknown), 4);
}

/* ---- events ---- */

static int states, events;

static void set_state(struct nova_guest *guest, enum nova_guest_state now, const char *why)
{
	guest->state = now;
	states++;
}

static void event(struct nova_guest *guest, const char *name, json_t *data)
{
	events++;
}

static int save(struct nova_guest *guest, struct nova_error *err)
{
	return 0;
}

static const struct nova_guest_hooks hooks = { .set_state = set_state, .event = event, .save = save };

static void tell(struct containerd *containerd, const char *topic, const ProtobufCMessageDescriptor *type, json_t *value)
{
	json_t *any = containerd_any("x", type, value, NULL);
	json_t *envelope = json_pack("{s:s,s:o}", "topic", topic, "event", any);

	containerd_event(containerd, envelope);
	json_decref(envelope);
	json_decref(value);
}

static void test_events(void **state)
{
	struct containerd_watch *none = NULL;
	struct containerd_guest known = { 0 };
	struct nova_guest guest = { .name = "g", .uuid = "u", .hooks = &hooks, .runtime = json_pack("{s:s}", "id", "g"), .driver_data = &known };
	struct containerd containerd = { .env.log = no_log, .guests = &known, .watch = none, .driver = &nova_driver_containerd };

	known.guest = &guest;
	tell(&containerd, "/tasks/start", &ctrd__task_start_event__descriptor, json_pack("{s:s,s:i}", "container_id", "g", "pid", 7));
	assert_int_equal(guest.state, NOVA_GUEST_RUNNING);
	assert_int_equal(json_integer_value(json_object_get(guest.runtime, "pid")), 7);
	tell(&containerd, "/tasks/paused", &ctrd__task_event__descriptor, json_pack("{s:s}", "container_id", "g"));
	assert_int_equal(guest.state, NOVA_GUEST_PAUSED);
	tell(&containerd, "/tasks/resumed", &ctrd__task_event__descriptor, json_pack("{s:s}", "container_id", "g"));
	assert_int_equal(guest.state, NOVA_GUEST_RUNNING);
	/* Another's, an exec's, one that is no message. */
	tell(&containerd, "/tasks/exit", &ctrd__task_exit_event__descriptor, json_pack("{s:s,s:s,s:i}", "container_id", "h", "id", "h", "exit_status", 1));
	tell(&containerd, "/tasks/exit", &ctrd__task_exit_event__descriptor, json_pack("{s:s,s:s,s:i}", "container_id", "g", "id", "exec", "exit_status", 1));
	assert_int_equal(guest.state, NOVA_GUEST_RUNNING);
	tell(&containerd, "/tasks/exit", &ctrd__task_exit_event__descriptor, json_pack("{s:s,s:s,s:i}", "container_id", "g", "id", "g", "exit_status", 1));
	assert_int_equal(guest.state, NOVA_GUEST_FAILED);
	assert_null(json_object_get(guest.runtime, "pid"));
	guest.state = NOVA_GUEST_RUNNING;
	known.signalled = true;
	tell(&containerd, "/tasks/exit", &ctrd__task_exit_event__descriptor, json_pack("{s:s,s:s,s:i}", "container_id", "g", "id", "g", "exit_status", 137));
	assert_int_equal(guest.state, NOVA_GUEST_STOPPED);
	tell(&containerd, "/containers/delete", &ctrd__container_event__descriptor, json_pack("{s:s}", "id", "g"));
	assert_int_equal(guest.state, NOVA_GUEST_FAILED);
	assert_string_equal(containerd_id(&guest), "");
	assert_true(states >= 6 && events >= 6);
	json_decref(guest.runtime);
}

static void test_states(void **state)
{
	struct containerd_guest known = { 0 };
	struct nova_guest guest = { .name = "g", .uuid = "u", .hooks = &hooks, .runtime = json_object(), .driver_data = &known, .state = NOVA_GUEST_RUNNING };
	NOVA_AUTOJSON json_t *none = json_pack("{s:i}", "status", 5);
	NOVA_AUTOJSON json_t *paused = json_pack("{s:{s:{s:i,s:i}}}", "body", "process", "status", 4, "pid", 9);
	NOVA_AUTOJSON json_t *ended = json_pack("{s:{s:{s:i,s:i}}}", "body", "process", "status", 3, "exit_status", 3);

	containerd_take_state(&guest, paused, "asked", false);
	assert_int_equal(guest.state, NOVA_GUEST_PAUSED);
	containerd_take_state(&guest, none, "asked", false);
	assert_int_equal(guest.state, NOVA_GUEST_FAILED);
	guest.state = NOVA_GUEST_RUNNING;
	known.signalled = true;
	containerd_take_state(&guest, none, "asked", false);
	assert_int_equal(guest.state, NOVA_GUEST_STOPPED);
	/* A look that was begun before the event of the failure is answered after it. */
	guest.state = NOVA_GUEST_FAILED;
	containerd_take_state(&guest, ended, "seen", false);
	assert_int_equal(guest.state, NOVA_GUEST_FAILED);
	containerd_take_state(&guest, ended, "found", true);
	assert_int_equal(guest.state, NOVA_GUEST_STOPPED);
	json_decref(guest.runtime);
}

/* ---- nobody there ---- */

static void test_nobody(void **state)
{
	struct loop loop;
	struct nova_config *config = nova_config_new();
	struct answer answered = { 0 };
	char path[96];
	void *self;

	loop_init(&loop);
	snprintf(path, sizeof(path), "%s/none.sock", loop.dir);
	assert_int_equal(nova_config_set(config, "containerd-socket", path, NULL), 0);
	self = nova_driver_containerd.open(
	    &(struct nova_driver_env){ .base = loop.base, .config = config, .state_dir = loop.dir, .runtime_dir = loop.dir, .log = no_log }, NULL);
	assert_non_null(self);
	assert_non_null(nova_driver_containerd.verb[NOVA_VERB_PROBE](self, NULL, NULL, answer_done, &answered, NULL));
	LOOP_UNTIL(&loop, answered.count);
	assert_int_equal(answered.err.category, NOVA_LINK);
	assert_non_null(strstr(answered.err.text, "containerd does not answer on"));
	answer_release(&answered);
	nova_driver_containerd.close(self);
	nova_config_free(config);
	loop_release(&loop);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_chain), cmocka_unit_test(test_user), cmocka_unit_test(test_oci), cmocka_unit_test(test_oci_refused),
		cmocka_unit_test(test_spec_of), cmocka_unit_test(test_events), cmocka_unit_test(test_states), cmocka_unit_test(test_nobody),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
