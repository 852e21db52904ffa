/* SPDX-License-Identifier: Apache-2.0
 *
 * test_lxc.c - the LXC driver without LXC: its configuration file, the answers of lxc-info, and figures out of
 * control groups of both versions.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "drivers/lxc/lxc.h"

static json_t *spec_of(const char *env)
{
	return json_pack("{s:s,s:[s],s:s,s:i,s:i,s:i,s:[{s:s,s:s,s:b}]}", "rootfs", "/r/fs", "env", env, "network", "none", "cpu-shares",
	    512, "memory", 1 << 26, "vcpus", 2, "volume", "source", "/tmp", "target", "/data/d", "readonly", 1);
}

static bool has_line(const char *text, const char *line)
{
	const char *at = strstr(text, line);

	return at && (at == text || at[-1] == '\n') && at[strlen(line)] == '\n';
}

static void test_settings(void **state)
{
	json_t *spec = spec_of("A=b c");
	char *text = lxc_settings("g", "/r/fs", spec, NULL);

	assert_non_null(text);
	assert_true(has_line(text, "lxc.uts.name = g"));
	assert_true(has_line(text, "lxc.rootfs.path = dir:/r/fs"));
	assert_true(has_line(text, "lxc.net.0.type = empty"));
	assert_true(has_line(text, "lxc.environment = A=b c"));
	assert_true(has_line(text, "lxc.mount.entry = /tmp data/d none bind,ro,create=dir 0 0"));
	assert_true(has_line(text, "lxc.no_new_privs = 1"));
	assert_null(strstr(text, "sys_admin"));
	free(text);
	json_decref(spec);
}

/* A line end would be a setting of the user's own. */
static void test_line_ends(void **state)
{
	json_t *spec = spec_of("A=b\nlxc.cap.keep = sys_admin");
	struct nova_error err;

	assert_null(lxc_settings("g", "/r/fs", spec, &err));
	assert_int_equal(err.category, NOVA_INVALID);
	assert_non_null(strstr(err.text, "env"));
	json_decref(spec);
}

static void test_info(void **state)
{
	static const struct {
		const char *text;
		enum nova_guest_state state;
		int pid;
	} answers[] = { { "State:          RUNNING\nPID:            9061\n", NOVA_GUEST_RUNNING, 9061 },
		{ "PID: 12\nState: FROZEN\n", NOVA_GUEST_PAUSED, 12 }, { "State:          STOPPED\n", NOVA_GUEST_STOPPED, 0 },
		{ "", NOVA_GUEST_FAILED, 0 } };

	for (size_t i = 0; i < sizeof(answers) / sizeof(*answers); i++) {
		json_t *answer = json_pack("{s:s}", "stdout", answers[i].text);

		assert_int_equal(lxc_info_state(answer), answers[i].state);
		assert_int_equal(lxc_info_pid(answer), answers[i].pid);
		json_decref(answer);
	}
}

static void test_parent(void **state)
{
	assert_int_equal(lxc_parent(getpid()), getppid());
	assert_int_equal(lxc_parent(0x7ffffff0), 0);
}

/* ---- control groups: files as the kernel writes them ---- */

static char dir[64];

static void put(const char *name, const char *text)
{
	char path[128];
	FILE *file;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	file = fopen(path, "w");
	assert_non_null(file);
	fputs(text, file);
	fclose(file);
}

static struct cgroup_places places(int version)
{
	struct cgroup_places all;

	for (int i = 0; i < CGROUP_CONTROLLERS; i++) {
		all.of[i].version = version;
		snprintf(all.of[i].path, sizeof(all.of[i].path), "%s", dir);
	}
	return all;
}

static void begin(void)
{
	strcpy(dir, "/tmp/nova-cgroup-XXXXXX");
	assert_non_null(mkdtemp(dir));
}

static void end(void)
{
	char command[100];

	snprintf(command, sizeof(command), "rm -rf %s", dir);
	assert_int_equal(system(command), 0);
}

static void test_cgroup_v1(void **state)
{
	struct cgroup_places all;
	struct box_figures figures;

	begin();
	put("cpuacct.usage", "5000000000\n");
	put("cpuacct.stat", "user 300\nsystem 200\n");
	put("memory.usage_in_bytes", "4096\n");
	put("memory.stat", "cache 1\nrss 2\ntotal_cache 100\ntotal_rss 200\n");
	put("pids.current", "3\n");
	put("blkio.throttle.io_service_bytes", "8:0 Read 10\n8:0 Write 20\n8:0 Total 30\nTotal 30\n");
	put("freezer.state", "FROZEN\n");
	all = places(1);
	box_figures_init(&figures);
	cgroup_read(&all, &figures);
	assert_int_equal(figures.total_ns, 5000000000);
	assert_int_equal(figures.user_ns, 3000000000);
	assert_int_equal(figures.rss_bytes, 200);
	assert_int_equal(figures.cache_bytes, 100);
	assert_int_equal(figures.processes, 3);
	assert_int_equal(figures.disks, 1);
	assert_int_equal(figures.disk[0].written_bytes, 20);
	assert_int_equal(figures.limit_bytes, -1); /* there is no such file */
	assert_true(cgroup_frozen(&all));
	end();
}

static void test_cgroup_v2(void **state)
{
	struct cgroup_places all;
	struct box_figures figures;

	begin();
	put("cpu.stat", "usage_usec 5000\nuser_usec 3000\nsystem_usec 2000\nthrottled_usec 7\n");
	put("memory.current", "4096\n");
	put("memory.max", "max\n");
	put("memory.stat", "anon 200\nfile 100\n");
	put("io.stat", "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n");
	put("cgroup.freeze", "0\n");
	all = places(2);
	box_figures_init(&figures);
	cgroup_read(&all, &figures);
	assert_int_equal(figures.total_ns, 5000000);
	assert_int_equal(figures.throttled_ns, 7000);
	assert_int_equal(figures.limit_bytes, -1);
	assert_int_equal(figures.rss_bytes, 200);
	assert_int_equal(figures.disk[0].write_operations, 4);
	assert_false(cgroup_frozen(&all));
	end();
}

static void test_own_cgroup(void **state)
{
	struct cgroup_places all;

	cgroup_find(getpid(), &all);
	for (int i = 0; i < CGROUP_CONTROLLERS; i++)
		assert_true(all.of[i].version == 0 || all.of[i].path[0] == '/');
	cgroup_find(0x7ffffff0, &all);
	assert_int_equal(all.of[CGROUP_CPU].version, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_settings), cmocka_unit_test(test_line_ends), cmocka_unit_test(test_info),
		cmocka_unit_test(test_parent), cmocka_unit_test(test_cgroup_v1), cmocka_unit_test(test_cgroup_v2),
		cmocka_unit_test(test_own_cgroup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
