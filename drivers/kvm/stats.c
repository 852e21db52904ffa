/* SPDX-License-Identifier: Apache-2.0
 *
 * stats.c - STATS: a guest's figures in the form that all drivers share.
 *
 * From QEMU: balloon, disks, migration. From /proc: processor time and memory of its process. Counters are
 * since the process began. A guest that does not run answers with its state and what it would have.
 */
#include "kvm.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>

/* ---- /proc ---------------------------------------------------------------------------------------- */

/* Field 14 on of /proc/PID/stat, after the name, which may hold anything. */
static void read_cpu(pid_t pid, json_t *cpu)
{
	unsigned long long user = 0, system = 0;
	char path[64], line[1024] = "";
	long threads = 0, tick = sysconf(_SC_CLK_TCK);
	const char *after;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	file = fopen(path, "re");
	if (!file)
		return;
	after = fgets(line, sizeof(line), file) ? strrchr(line, ')') : NULL;
	fclose(file);
	if (!after ||
	    sscanf(after, ") %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu %*d %*d %*d %*d %ld",
	        &user, &system, &threads) != 3)
		return;
	json_object_set_new(
	    cpu, "user_ms", json_integer((json_int_t)(user * 1000 / (unsigned long long)tick)));
	json_object_set_new(
	    cpu, "system_ms", json_integer((json_int_t)(system * 1000 / (unsigned long long)tick)));
	json_object_set_new(
	    cpu, "time_ms", json_integer((json_int_t)((user + system) * 1000 / (unsigned long long)tick)));
	json_object_set_new(cpu, "threads", json_integer(threads));
}

static void read_rss(pid_t pid, json_t *memory)
{
	char path[64];
	long long total, resident;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/statm", (int)pid);
	file = fopen(path, "re");
	if (!file)
		return;
	if (fscanf(file, "%lld %lld", &total, &resident) == 2)
		json_object_set_new(memory, "rss_bytes", json_integer(resident * sysconf(_SC_PAGESIZE)));
	fclose(file);
}

/* ---- rows ----------------------------------------------------------------------------------------- */

static enum nova_step_result basics(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct kvm_task *task = ctx;
	struct nova_guest *guest = task->guest;
	struct kvm_guest *live = kvm_guest_live(guest);
	NOVA_AUTOJSON json_t *spec = kvm_spec_now(guest);
	json_t *cpu = json_pack("{s:I}", "vcpus", (json_int_t)kvm_spec_total_vcpus(spec));
	json_t *memory = json_pack("{s:I}", "bytes", (json_int_t)kvm_spec_total_memory(spec));

	if (live) {
		read_cpu(live->qemu.pid, cpu);
		read_rss(live->qemu.pid, memory);
		json_object_set_new(task->result, "pid", json_integer(live->qemu.pid));
	}
	json_object_set_new(task->result, "state", json_string(nova_guest_state_name(guest->state)));
	json_object_set_new(task->result, "cpu", cpu);
	json_object_set_new(task->result, "memory", memory);
	json_object_set_new(task->result, "disks", json_array());
	return NOVA_STEP_DONE;
}

static enum nova_step_result disks_told(struct kvm_task *task, json_t *value, struct nova_error *err)
{
	static const char *const figures[][2] = {
		{ "read_bytes", "rd_bytes" },
		{ "written_bytes", "wr_bytes" },
		{ "read_operations", "rd_operations" },
		{ "write_operations", "wr_operations" },
		{ "flush_operations", "flush_operations" },
	};
	json_t *disks = json_object_get(task->result, "disks"), *device;
	size_t i;

	json_array_foreach (value, i, device) {
		const json_t *stats = json_object_get(device, "stats");
		const char *node = kvm_spec_text(device, "node-name") ?: kvm_spec_text(device, "device") ?: "";
		json_t *disk = json_pack("{s:s}", "name", node);

		for (size_t k = 0; k < sizeof(figures) / sizeof(*figures); k++)
			json_object_set(disk, figures[k][0], json_object_get(stats, figures[k][1]));
		json_array_append_new(disks, disk);
	}
	return NOVA_STEP_DONE;
}

static enum nova_step_result ask_disks(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct kvm_task *task = ctx;

	if (!kvm_guest_live(task->guest))
		return NOVA_STEP_DONE;
	return kvm_task_qmp(task, "query-blockstats", NULL, disks_told, err);
}

/* A refusal says that there is no balloon. */
static enum nova_step_result balloon_told(struct kvm_task *task, json_t *value, struct nova_error *err)
{
	if (value)
		json_object_set(json_object_get(task->result, "memory"), "balloon_bytes",
		    json_object_get(value, "actual"));
	return NOVA_STEP_DONE;
}

static enum nova_step_result ask_balloon(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct kvm_task *task = ctx;

	if (!kvm_guest_live(task->guest))
		return NOVA_STEP_DONE;
	return kvm_task_try(task, "query-balloon", NULL, balloon_told, err);
}

static enum nova_step_result migration_told(struct kvm_task *task, json_t *value, struct nova_error *err)
{
	if (kvm_spec_text(value, "status"))
		json_object_set_new(task->result, "migration", kvm_migration_sample(value));
	return NOVA_STEP_DONE;
}

static enum nova_step_result ask_migration(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct kvm_task *task = ctx;

	if (!kvm_guest_live(task->guest))
		return NOVA_STEP_DONE;
	return kvm_task_qmp(task, "query-migrate", NULL, migration_told, err);
}

KVM_VERB(stats)
{
	static const struct nova_step rows[] = {
		{ "process", basics },
		{ "disks", ask_disks, NULL, kvm_task_stop_waiting },
		{ "balloon", ask_balloon, NULL, kvm_task_stop_waiting },
		{ "migration", ask_migration, NULL, kvm_task_stop_waiting },
		{ NULL },
	};

	return kvm_task_new(self, guest, args, rows, done, arg, err);
}
