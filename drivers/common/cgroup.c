/* SPDX-License-Identifier: Apache-2.0
 *
 * cgroup.c - control groups of a process: where they are mounted, and their figures (cgroup.h).
 */
#include "drivers/common/cgroup.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const char *const v1_names[CGROUP_CONTROLLERS] = { "cpu", "cpuacct", "memory", "pids", "blkio", "freezer" };

/* ---- places ---- */

static bool listed(const char *list, const char *name)
{
	size_t length = strlen(name);

	for (const char *at = list; (at = strstr(at, name)); at += length)
		if ((at == list || at[-1] == ',') && (!at[length] || at[length] == ',' || at[length] == '\n'))
			return true;
	return false;
}

/* The mount point of a version 1 controller, or (controller NULL) of version 2; "": not mounted. */
static void find_mount(const char *controller, char *mount, size_t size)
{
	FILE *file = fopen("/proc/self/mountinfo", "re");
	char line[4096], at[1024], type[64], options[1024];

	*mount = 0;
	while (file && !*mount && fgets(line, sizeof(line), file)) {
		const char *rest = strstr(line, " - ");

		if (!rest || sscanf(line, "%*s %*s %*s %*s %1023s", at) != 1 ||
		    sscanf(rest, " - %63s %*s %1023s", type, options) != 2)
			continue;
		if (controller ? !strcmp(type, "cgroup") && listed(options, controller) : !strcmp(type, "cgroup2"))
			snprintf(mount, size, "%s", at);
	}
	if (file)
		fclose(file);
}

static void set_place(struct cgroup_place *place, int version, const char *mount, const char *path)
{
	if (!*mount || place->version)
		return;
	place->version = version;
	snprintf(place->path, sizeof(place->path), "%s%s", mount, path);
}

/* "4:memory:/lxc.payload.a" */
static void take_line(struct cgroup_places *places, char *line, const char *v2_mount)
{
	char *names = strchr(line, ':'), *path = names ? strchr(names + 1, ':') : NULL, mount[1024];

	if (!path)
		return;
	*path++ = 0;
	path[strcspn(path, "\n")] = 0;
	names++;
	for (int i = 0; i < CGROUP_CONTROLLERS; i++) {
		if (*names && !listed(names, v1_names[i]))
			continue;
		if (*names)
			find_mount(v1_names[i], mount, sizeof(mount));
		set_place(&places->of[i], *names ? 1 : 2, *names ? mount : v2_mount, path);
	}
}

void cgroup_find(pid_t pid, struct cgroup_places *places)
{
	char path[64], line[4096], v2_mount[1024];
	FILE *file;

	memset(places, 0, sizeof(*places));
	snprintf(path, sizeof(path), "/proc/%d/cgroup", (int)pid);
	file = fopen(path, "re");
	if (!file)
		return;
	find_mount(NULL, v2_mount, sizeof(v2_mount));
	/* Version 2 has the last line, with the number 0: what version 1 has was taken before. */
	while (fgets(line, sizeof(line), file))
		take_line(places, line, v2_mount);
	fclose(file);
}

int cgroup_version(enum cgroup_controller controller)
{
	char mount[1024];

	find_mount(v1_names[controller], mount, sizeof(mount));
	if (*mount)
		return 1;
	find_mount(NULL, mount, sizeof(mount));
	return *mount ? 2 : 0;
}

/* ---- files ---- */

static FILE *open_file(const struct cgroup_place *place, const char *name)
{
	char path[PATH_MAX + 64];

	if (!place->version)
		return NULL;
	snprintf(path, sizeof(path), "%s/%s", place->path, name);
	return fopen(path, "re");
}

static void read_number(const struct cgroup_place *place, const char *name, int64_t *value)
{
	FILE *file = open_file(place, name);
	long long number;

	if (!file)
		return;
	if (fscanf(file, "%lld", &number) == 1)
		*value = number;
	fclose(file);
}

/* "name number" lines. */
static void read_member(const struct cgroup_place *place, const char *name, const char *member, int64_t unit, int64_t *value)
{
	FILE *file = open_file(place, name);
	char line[256], key[128];
	long long number;

	while (file && fgets(line, sizeof(line), file))
		if (sscanf(line, "%127s %lld", key, &number) == 2 && !strcmp(key, member))
			*value = number * unit;
	if (file)
		fclose(file);
}

static void read_cpu(const struct cgroup_places *places, struct box_figures *figures)
{
	const struct cgroup_place *cpu = &places->of[CGROUP_CPU], *acct = &places->of[CGROUP_CPUACCT];
	int64_t tick = 1000000000 / sysconf(_SC_CLK_TCK);

	if (acct->version == 1) {
		read_number(acct, "cpuacct.usage", &figures->total_ns);
		read_member(acct, "cpuacct.stat", "user", tick, &figures->user_ns);
		read_member(acct, "cpuacct.stat", "system", tick, &figures->system_ns);
		read_member(cpu, "cpu.stat", "throttled_time", 1, &figures->throttled_ns);
		return;
	}
	read_member(cpu, "cpu.stat", "usage_usec", 1000, &figures->total_ns);
	read_member(cpu, "cpu.stat", "user_usec", 1000, &figures->user_ns);
	read_member(cpu, "cpu.stat", "system_usec", 1000, &figures->system_ns);
	read_member(cpu, "cpu.stat", "throttled_usec", 1000, &figures->throttled_ns);
}

static void read_memory(const struct cgroup_place *memory, struct box_figures *figures)
{
	bool v1 = memory->version == 1;

	read_number(memory, v1 ? "memory.usage_in_bytes" : "memory.current", &figures->used_bytes);
	read_number(memory, v1 ? "memory.limit_in_bytes" : "memory.max", &figures->limit_bytes);
	read_member(memory, "memory.stat", v1 ? "total_rss" : "anon", 1, &figures->rss_bytes);
	read_member(memory, "memory.stat", v1 ? "total_cache" : "file", 1, &figures->cache_bytes);
}

/* "8:0 Read 4096" */
static void read_io_v1(const struct cgroup_place *io, const char *name, bool bytes, struct box_figures *figures)
{
	FILE *file = open_file(io, name);
	char line[256], device[32], what[32];
	long long number;

	while (file && fgets(line, sizeof(line), file)) {
		struct box_disk *disk;

		if (sscanf(line, "%31s %31s %lld", device, what, &number) != 3 || !strchr(device, ':') ||
		    !(disk = box_figures_disk(figures, device)))
			continue;
		if (!strcmp(what, "Read"))
			*(bytes ? &disk->read_bytes : &disk->read_operations) = number;
		else if (!strcmp(what, "Write"))
			*(bytes ? &disk->written_bytes : &disk->write_operations) = number;
	}
	if (file)
		fclose(file);
}

/* "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6" */
static void read_io_v2(const struct cgroup_place *io, struct box_figures *figures)
{
	FILE *file = open_file(io, "io.stat");
	char line[256], device[32];
	long long rbytes, wbytes, rios, wios;

	while (file && fgets(line, sizeof(line), file)) {
		struct box_disk *disk;

		if (sscanf(line, "%31s rbytes=%lld wbytes=%lld rios=%lld wios=%lld", device, &rbytes, &wbytes, &rios, &wios) != 5 ||
		    !(disk = box_figures_disk(figures, device)))
			continue;
		disk->read_bytes = rbytes;
		disk->written_bytes = wbytes;
		disk->read_operations = rios;
		disk->write_operations = wios;
	}
	if (file)
		fclose(file);
}

void cgroup_read(const struct cgroup_places *places, struct box_figures *figures)
{
	const struct cgroup_place *io = &places->of[CGROUP_IO];

	read_cpu(places, figures);
	read_memory(&places->of[CGROUP_MEMORY], figures);
	read_number(&places->of[CGROUP_PIDS], "pids.current", &figures->processes);
	if (io->version == 2)
		read_io_v2(io, figures);
	read_io_v1(io, "blkio.throttle.io_service_bytes", true, figures);
	read_io_v1(io, "blkio.throttle.io_serviced", false, figures);
}

json_t *cgroup_stats(const struct nova_guest *guest)
{
	struct cgroup_places places;
	struct box_figures figures;

	box_figures_init(&figures);
	figures.pid = (int)json_integer_value(json_object_get(guest->runtime, "pid"));
	if (figures.pid > 0) {
		cgroup_find(figures.pid, &places);
		cgroup_read(&places, &figures);
	}
	return box_stats(guest, &figures);
}

bool cgroup_frozen(const struct cgroup_places *places)
{
	const struct cgroup_place *freezer = &places->of[CGROUP_FREEZER];
	FILE *file = open_file(freezer, freezer->version == 1 ? "freezer.state" : "cgroup.freeze");
	char word[32] = "";
	bool frozen;

	if (!file)
		return false;
	frozen = fscanf(file, "%31s", word) == 1 && (!strcmp(word, "FROZEN") || !strcmp(word, "1"));
	fclose(file);
	return frozen;
}
