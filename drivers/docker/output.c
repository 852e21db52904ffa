/* SPDX-License-Identifier: Apache-2.0
 *
 * output.c - LOGS and STATS: what a container said, and what it used.
 */
#include "drivers/docker/docker.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define VERSION_ROW { "version", docker_version_row, NULL, task_drop_row }

/* ---- stats ---- */

static int64_t number(const json_t *object, const char *member)
{
	const json_t *value = json_object_get(object, member);

	return json_is_number(value) ? (int64_t)json_number_value(value) : -1;
}

static void take_disks(const json_t *blkio, const char *member, bool bytes, struct box_figures *figures)
{
	json_t *row;
	size_t i;

	json_array_foreach (json_object_get(blkio, member), i, row) {
		char name[32];
		const char *op = task_text(row, "op") ?: "";
		struct box_disk *disk;

		snprintf(name, sizeof(name), "%d:%d", (int)number(row, "major"), (int)number(row, "minor"));
		disk = box_figures_disk(figures, name);
		if (!disk)
			return;
		if (!strcasecmp(op, "read"))
			*(bytes ? &disk->read_bytes : &disk->read_operations) = number(row, "value");
		else if (!strcasecmp(op, "write"))
			*(bytes ? &disk->written_bytes : &disk->write_operations) = number(row, "value");
	}
}

/* The members that cgroup v1 and v2 have under different names. */
static void take_memory(const json_t *memory, struct box_figures *figures)
{
	const json_t *stats = json_object_get(memory, "stats");
	int64_t v1 = number(stats, "total_rss"), v2 = number(stats, "anon");

	figures->used_bytes = number(memory, "usage");
	figures->limit_bytes = number(memory, "limit");
	figures->rss_bytes = v1 >= 0 ? v1 : v2;
	v1 = number(stats, "total_cache");
	figures->cache_bytes = v1 >= 0 ? v1 : number(stats, "file");
}

static enum nova_step_result stats_told(struct task *task, json_t *value, struct nova_error *err)
{
	const json_t *body = json_object_get(value, "body");
	const json_t *cpu = json_object_get(body, "cpu_stats"), *usage = json_object_get(cpu, "cpu_usage");
	const json_t *blkio = json_object_get(body, "blkio_stats");
	struct box_figures figures;

	box_figures_init(&figures);
	figures.pid = (int)json_integer_value(json_object_get(task->guest->runtime, "pid"));
	if (figures.pid) {
		figures.total_ns = number(usage, "total_usage");
		figures.user_ns = number(usage, "usage_in_usermode");
		figures.system_ns = number(usage, "usage_in_kernelmode");
		figures.throttled_ns = number(json_object_get(cpu, "throttling_data"), "throttled_time");
		figures.processes = number(json_object_get(body, "pids_stats"), "current");
		take_memory(json_object_get(body, "memory_stats"), &figures);
		take_disks(blkio, "io_service_bytes_recursive", true, &figures);
		take_disks(blkio, "io_serviced_recursive", false, &figures);
	}
	json_decref(task->result);
	task->result = box_stats(task->guest, &figures);
	return NOVA_STEP_DONE;
}

static enum nova_step_result ask_stats(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;
	const struct docker *docker = task->self;

	if (!*docker_id(task->guest))
		return stats_told(task, NULL, err);
	return docker_ask(task, "GET", NULL, 0, stats_told, err, "/containers/%s/stats?stream=0%s", docker_id(task->guest),
	    docker->api >= 41 ? "&one-shot=1" : "");
}

DOCKER_VERB(stats)
{
	static const struct nova_step rows[] = {
		VERSION_ROW,
		{ "stats", ask_stats, NULL, task_drop_row },
		{ NULL },
	};

	return task_new(self, &((struct docker *)self)->env, guest, args, rows, done, arg, err);
}

/* ---- logs ---- */

/* Of its own, beside the task: the frames as they come. */
struct reading {
	struct nova_op op; /* first */
	struct nova_op *call; /* owned */
	struct docker_frames frames;
	struct nova_error failure;
	bool failed;
	nova_done_fn done;
	void *arg;
};

static void reading_free(struct reading *reading)
{
	nova_op_drop(reading->call);
	docker_frames_release(&reading->frames);
	free(reading);
}

static void reading_drop(struct nova_op *op)
{
	reading_free((struct reading *)op);
}

static void reading_data(void *arg, const void *bytes, size_t length)
{
	struct reading *reading = arg;

	if (!reading->failed && docker_frames_feed(&reading->frames, bytes, length, &reading->failure) < 0)
		reading->failed = true;
}

/* What a container writes may be anything; what we answer is UTF-8. */
static json_t *text_of(const char *bytes, size_t length)
{
	json_t *text = json_stringn(bytes, length);
	char *copy;

	if (text || !(copy = malloc(length + 1)))
		return text;
	for (size_t i = 0; i < length; i++)
		copy[i] = bytes[i] & 0x80 ? '?' : bytes[i];
	text = json_stringn(copy, length);
	free(copy);
	return text;
}

static void reading_done(void *arg, json_t *result, const struct nova_error *err)
{
	struct reading *reading = arg;
	nova_done_fn done = reading->done;
	void *done_arg = reading->arg;
	struct nova_error failure = reading->failure;
	bool failed = reading->failed;
	size_t used = reading->frames.used, from = used > DOCKER_LOG_MAX ? used - DOCKER_LOG_MAX : 0;
	NOVA_AUTOJSON json_t *answer = NULL;

	reading->call = NULL;
	answer = json_pack("{s:o?,s:b}", "text", text_of(reading->frames.text ? reading->frames.text + from : "", used - from),
	    "cut", reading->frames.cut || from);
	reading_free(reading);
	if (err)
		failure = *err;
	done(done_arg, err || failed ? NULL : answer, err || failed ? &failure : NULL);
}

static struct nova_op *read_logs(struct docker *docker, const char *id, int64_t lines, nova_done_fn done, void *arg,
    struct nova_error *err)
{
	struct reading *reading = calloc(1, sizeof(*reading));
	struct http_call call = { .method = "GET", .limit_ms = DOCKER_ASK_MS, .data = reading_data, .stream_arg = reading };
	char path[160];

	if (!reading) {
		nova_error_sys(err, ENOMEM, "docker");
		return NULL;
	}
	docker_path(docker, path, sizeof(path), "/containers/%s/logs?stdout=1&stderr=1&tail=%lld", id, (long long)lines);
	call.path = path;
	reading->op.drop = reading_drop;
	reading->done = done;
	reading->arg = arg;
	reading->call = http_start(docker->http, &call, reading_done, reading, err);
	if (reading->call)
		return &reading->op;
	free(reading);
	return NULL;
}

static enum nova_step_result logs_read(struct task *task, json_t *value, struct nova_error *err)
{
	json_object_update(task->result, value);
	return NOVA_STEP_DONE;
}

static enum nova_step_result ask_logs(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;
	int64_t lines = json_integer_value(json_object_get(task->args, "lines"));

	if (!*docker_id(task->guest)) {
		nova_error_set(err, NOVA_STATE, "guest %s has no container any more", task->guest->name);
		return NOVA_STEP_FAILED;
	}
	return task_wait(task, read_logs(task->self, docker_id(task->guest), lines > 0 ? lines : 100, task_done, task, err), logs_read);
}

DOCKER_VERB(logs)
{
	static const struct nova_step rows[] = {
		VERSION_ROW,
		{ "logs", ask_logs, NULL, task_drop_row },
		{ NULL },
	};

	return task_new(self, &((struct docker *)self)->env, guest, args, rows, done, arg, err);
}
