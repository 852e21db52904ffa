/* SPDX-License-Identifier: Apache-2.0
 *
 * test_docker.c - the Docker driver without an engine: versions, the body of a create request, containers
 * back into specifications, events, the frames of a container's output, and a socket where nobody answers.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "drivers/docker/docker.h"
#include "loop.h"

#define ID "fff79182dbbb1e3a781536d980bf17832a21247a5748177a8ad3f6d7c69dddef"

extern const struct nova_driver nova_driver_docker;

static void no_log(void *arg, enum nova_log_level level, const char *line)
{
}

/* ---- versions ---- */

static int agree(const char *most, const char *least)
{
	struct docker docker = { 0 };
	json_t *answer = json_pack("{s:{s:s,s:s}}", "body", "ApiVersion", most, "MinAPIVersion", least);
	struct nova_error err;
	int rc = docker_agree(&docker, answer, &err);

	json_decref(answer);
	return rc < 0 ? -1 : docker.api;
}

static void test_version(void **state)
{
	assert_int_equal(agree("1.41", "1.12"), 41);
	assert_int_equal(agree("1.99", "1.24"), DOCKER_API_MOST);
	assert_int_equal(agree("1.24", "1.12"), -1);
	assert_int_equal(agree("1.99", "1.60"), -1);
	assert_int_equal(agree("nonsense", "1.12"), -1);
}

static void test_ids(void **state)
{
	assert_true(docker_is_id(ID));
	assert_false(docker_is_id("../" ID));
	assert_false(docker_is_id(NULL));
	assert_false(docker_is_id("abc"));
}

/* ---- specifications ---- */

static void test_body(void **state)
{
	struct nova_guest guest = { .name = "g", .uuid = "u", .owner = "o" };
	json_t *spec = json_pack("{s:s,s:[s,s],s:[s],s:[s],s:s,s:i,s:i,s:i,s:[{s:s,s:s,s:b}]}", "image", "bb:1", "command", "a", "b",
	    "env", "A=1", "label", "x=y=z", "network", "none", "cpu-shares", 512, "memory", 1 << 26, "vcpus", 2, "volume",
	    "source", "/r/d", "target", "/d", "readonly", 1);
	json_t *body = docker_create_body(&guest, spec), *host = json_object_get(body, "HostConfig");

	assert_string_equal(json_string_value(json_object_get(json_object_get(body, "Labels"), "x")), "y=z");
	assert_string_equal(json_string_value(json_object_get(json_object_get(body, "Labels"), "novacron.uuid")), "u");
	assert_string_equal(json_string_value(json_array_get(json_object_get(host, "SecurityOpt"), 0)), "no-new-privileges");
	assert_int_equal(json_integer_value(json_object_get(host, "NanoCpus")), 2000000000);
	assert_true(json_is_true(json_object_get(json_array_get(json_object_get(host, "Mounts"), 0), "ReadOnly")));
	assert_null(json_object_get(host, "Privileged"));
	json_decref(body);
	json_decref(spec);
}

static void test_spec_of(void **state)
{
	json_t *unknown = json_array();
	json_t *inspected = json_pack("{s:{s:s,s:[s],s:{s:s,s:s}},s:{s:s,s:b,s:[s],s:I,s:I},s:[{s:s,s:s,s:s,s:b},{s:s,s:s}]}", "Config",
	    "Image", "bb:1", "Cmd", "sh", "Labels", "a", "b", "novacron.uuid", "u", "HostConfig", "NetworkMode", "none",
	    "Privileged", 1, "CapAdd", "SYS_ADMIN", "NanoCpus", (json_int_t)1500000000, "Memory", (json_int_t)1 << 27, "Mounts", "Type", "bind",
	    "Source", "/r/d", "Destination", "/d", "RW", 0, "Type", "volume", "Destination", "/v");
	json_t *spec = docker_spec_of(inspected, unknown);

	assert_int_equal(json_array_size(unknown), 3); /* Privileged, CapAdd, a volume */
	assert_int_equal(json_integer_value(json_object_get(spec, "vcpus")), 2);
	assert_int_equal(json_array_size(json_object_get(spec, "label")), 1);
	assert_int_equal(json_array_size(json_object_get(spec, "volume")), 1);
	json_decref(spec);
	json_decref(inspected);
	json_decref(unknown);
}

/* ---- events ---- */

static void set_state(struct nova_guest *guest, enum nova_guest_state state, const char *why)
{
	guest->state = state;
}

static void guest_event(struct nova_guest *guest, const char *event, json_t *data)
{
}

static int save(struct nova_guest *guest, struct nova_error *err)
{
	return 0;
}

static void happen(struct docker *docker, const char *action, const char *code)
{
	json_t *event = json_pack("{s:s,s:{s:s,s:{s:s}}}", "Action", action, "Actor", "ID", ID, "Attributes", "exitCode", code);

	docker_event(docker, event);
	json_decref(event);
}

static void test_events(void **state)
{
	static const struct nova_guest_hooks hooks = { set_state, guest_event, save };
	struct nova_guest guest = { .name = "g", .runtime = json_pack("{s:s}", "id", ID), .hooks = &hooks };
	struct docker_guest known = { .guest = &guest };
	struct docker docker = { .guests = &known };

	guest.driver_data = &known;
	happen(&docker, "start", "");
	assert_int_equal(guest.state, NOVA_GUEST_RUNNING);
	happen(&docker, "pause", "");
	assert_int_equal(guest.state, NOVA_GUEST_PAUSED);
	happen(&docker, "unpause", "");
	happen(&docker, "die", "3");
	assert_int_equal(guest.state, NOVA_GUEST_FAILED); /* by itself */
	happen(&docker, "start", "");
	happen(&docker, "die", "0");
	assert_int_equal(guest.state, NOVA_GUEST_STOPPED);
	happen(&docker, "start", "");
	happen(&docker, "kill", "");
	happen(&docker, "die", "137");
	assert_int_equal(guest.state, NOVA_GUEST_STOPPED); /* somebody's wish */
	happen(&docker, "destroy", "");
	assert_int_equal(guest.state, NOVA_GUEST_FAILED);
	assert_string_equal(docker_id(&guest), "");
	happen(&docker, "start", ""); /* somebody else's container by now */
	assert_int_equal(guest.state, NOVA_GUEST_FAILED);
	json_decref(guest.runtime);
}

/* ---- output ---- */

static void test_frames(void **state)
{
	static const char bytes[] = "\1\0\0\0\0\0\0\5hello\2\0\0\0\0\0\0\1!";

	for (size_t piece = 1; piece <= sizeof(bytes); piece++) {
		struct docker_frames frames = { 0 };

		for (size_t at = 0; at < sizeof(bytes) - 1; at += piece)
			assert_int_equal(docker_frames_feed(&frames, bytes + at,
			                     sizeof(bytes) - 1 - at < piece ? sizeof(bytes) - 1 - at : piece, NULL), 0);
		assert_int_equal(frames.used, 6);
		assert_memory_equal(frames.text, "hello!", 6);
		docker_frames_release(&frames);
	}
}

static void test_frames_bounds(void **state)
{
	struct docker_frames frames = { 0 };
	struct nova_error err;
	char block[5000];

	memset(block, 'x', sizeof(block));
	for (int i = 0; i < 300; i++)
		assert_int_equal(docker_frames_feed(&frames, block, sizeof(block), &err), 0); /* a terminal's output */
	assert_true(frames.raw && frames.cut);
	assert_true(frames.used <= 2 * DOCKER_LOG_MAX);
	docker_frames_release(&frames);
	assert_int_equal(docker_frames_feed(&frames, "\1\0\0\0\0\0\0\0", 8, &err), 0);
	assert_int_equal(docker_frames_feed(&frames, "\1\0\0\0\xff\0\0\0", 8, &err), -1);
	docker_frames_release(&frames);
}

/* ---- nobody there ---- */

static void test_nobody(void **state)
{
	struct loop loop;
	struct nova_config *config = nova_config_new();
	struct nova_driver_env env = { .config = config, .log = no_log };
	struct answer answer = { 0 };
	struct nova_error err;
	char path[100];
	void *self;
	struct nova_op *op;

	loop_init(&loop);
	snprintf(path, sizeof(path), "%s/none.sock", loop.dir);
	assert_int_equal(nova_config_set(config, "docker-socket", path, &err), 0);
	env.base = loop.base;
	env.state_dir = env.runtime_dir = loop.dir;
	self = nova_driver_docker.open(&env, &err);
	assert_non_null(self);
	assert_non_null(nova_driver_docker.verb[NOVA_VERB_PROBE](self, NULL, NULL, answer_done, &answer, &err));
	assert_int_equal(answer.count, 0); /* never before the call returned */
	LOOP_UNTIL(&loop, answer.count);
	assert_int_equal(answer.err.category, NOVA_LINK);
	assert_non_null(strstr(answer.err.text, "none.sock"));
	answer_release(&answer);
	op = nova_driver_docker.verb[NOVA_VERB_LIST](self, NULL, NULL, answer_done, &answer, &err);
	assert_non_null(op);
	nova_op_drop(op);
	loop_run_ms(&loop, 50);
	assert_int_equal(answer.count, 0); /* never after it was dropped */
	nova_driver_docker.close(self);
	nova_config_free(config);
	loop_release(&loop);
}

/* ---- what arrives from another host ---- */

#define DIFF "sha256:" ID
#define OTHER "sha256:0f5bdd6b5b4e9b1fbb4de7e4a7f3b8a3e6a1d5c2b9f8e7d6c5b4a39281706f5e"
#define CONFIG(own, diffs) "{\"config\":{" own "},\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[" diffs "]}}"

static void put(const struct loop *loop, const char *name, const char *text)
{
	char path[256];
	FILE *file;

	snprintf(path, sizeof(path), "%s/moving/u/image/%s", loop->dir, name);
	file = fopen(path, "w");
	assert_non_null(file);
	fputs(text, file);
	fclose(file);
}

static void shell(const struct loop *loop, const char *command)
{
	char line[512];

	snprintf(line, sizeof(line), "cd %s && { %s; }", loop->dir, command);
	assert_int_equal(system(line), 0);
}

/* The manifest that is made of it; NULL: refused, *err says why. */
static json_t *arrive(struct loop *loop, const char *image, const char *base, const char *more, struct nova_error *err)
{
	struct docker docker = { .state_dir = loop->dir };
	struct nova_guest guest = { .name = "g", .uuid = "u" };
	struct docker_arrival arrival = { .loaded = json_array(), .files = json_array() };
	json_t *here = json_array(), *manifest = NULL;
	char path[256];

	shell(loop, "mkdir -p moving/u/image/layers");
	put(loop, "image.json", image);
	if (base)
		put(loop, "base.json", base);
	put(loop, "layers/" ID ".tar", "layer");
	shell(loop, more);
	snprintf(path, sizeof(path), "%s/moving/u/image/manifest.json", loop->dir);
	if (docker_stage_assemble(&docker, &guest, here, &arrival, err) == 0)
		manifest = json_load_file(path, 0, NULL);
	json_decref(arrival.loaded);
	json_decref(arrival.files);
	json_decref(here);
	shell(loop, "rm -rf moving");
	return manifest;
}

/* Names are made here; a layer that is not there is the engine's own. */
static void test_arrival(void **state)
{
	struct loop loop;
	struct nova_error err;
	json_t *manifest, *base, *image;

	loop_init(&loop);
	manifest = arrive(&loop, CONFIG("", "\"" DIFF "\",\"" OTHER "\""), CONFIG("", "\"" DIFF "\""), ":", &err);
	base = json_array_get(manifest, 0);
	image = json_array_get(manifest, 1);
	assert_int_equal(json_array_size(manifest), 2);
	assert_true(!strncmp(json_string_value(json_array_get(json_object_get(base, "RepoTags"), 0)), "novacron/carried:", 17));
	assert_true(json_is_null(json_object_get(image, "RepoTags")));
	assert_int_equal(json_array_size(json_object_get(base, "Layers")), 1);
	assert_int_equal(json_array_size(json_object_get(image, "Layers")), 2);
	json_decref(manifest);
	loop_release(&loop);
}

static void test_arrival_refused(void **state)
{
	static const struct {
		const char *image, *base, *more, *words;
	} cases[] = {
		{ CONFIG("\"WorkingDir\":\"/proc/self/fd/7\"", "\"" DIFF "\""), NULL, ":", "working directory" },
		{ CONFIG("\"Volumes\":{\"/v\":{}}", "\"" DIFF "\""), NULL, ":", "volumes of its own" },
		{ CONFIG("", "\"sha256:../../../../etc/passwd\""), NULL, ":", "no SHA-256" },
		{ CONFIG("", ""), NULL, ":", "0 layers" },
		{ CONFIG("", "\"" DIFF "\""), CONFIG("", "\"" OTHER "\""), ":", "are not those of image.json" },
		{ "[]", NULL, ":", "layers" },
		{ "{", NULL, ":", "not JSON" },
		{ CONFIG("", "\"" DIFF "\""), NULL, "ln -sf /etc/passwd moving/u/image/layers/" ID ".tar", "is no file" },
		{ CONFIG("", "\"" DIFF "\""), NULL, "mv moving/u/image/layers moving/u/l; ln -s ../l moving/u/image/layers", "is no file" },
		{ CONFIG("", "\"" DIFF "\""), NULL, "mv moving/u/image/image.json moving/i; ln -s ../../i moving/u/image/image.json", "image.json" },
		{ CONFIG("", "\"" DIFF "\""), NULL, "echo '[]' >moving/u/image/manifest.json", "manifest.json" },
	};
	struct loop loop;
	struct nova_error err;

	loop_init(&loop);
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		err.text[0] = 0;
		assert_null(arrive(&loop, cases[i].image, cases[i].base, cases[i].more, &err));
		if (!strstr(err.text, cases[i].words))
			fail_msg("case %zu: \"%s\" says nothing of \"%s\"", i, err.text, cases[i].words);
	}
	loop_release(&loop);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_version), cmocka_unit_test(test_ids), cmocka_unit_test(test_body),
		cmocka_unit_test(test_arrival), cmocka_unit_test(test_arrival_refused),
		cmocka_unit_test(test_spec_of), cmocka_unit_test(test_events), cmocka_unit_test(test_frames),
		cmocka_unit_test(test_frames_bounds), cmocka_unit_test(test_nobody),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
