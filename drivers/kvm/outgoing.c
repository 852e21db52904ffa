/* SPDX-License-Identifier: Apache-2.0
 *
 * outgoing.c - the source of a migration: OUT_PREPARE, OUT_START, OUT_QUERY, OUT_SET.
 *
 * QEMU streams into a unix socket of ours, without a limit of its own (the link paces) and with a
 * downtime-limit of 1 ms: the engine decides when to switch over, by halting the guest (one that has hardly
 * written since the last look, QEMU switches over itself). return-path is always on, so
 * that "completed" means that the destination holds everything. auto-converge is on from the start, as it
 * cannot be enabled later, but capped at 1 % until OUT_SET asks for throttling.
 */
#include "kvm.h"
#include "engine/socket.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define EMULATED_SETTLE_MS 100 /* measured: with QEMU 7.2, 11 of 26 moves lose pages at 0 ms, none of 22 at 100 */
#define EMULATED_SOCKET_BYTES (16 << 10)
#define STREAM_NAME "novacron-stream"
#define LEAST_THROTTLE 1 /* percent; QEMU has no 0 */

/* ---- prepare -------------------------------------------------------------------------------------- */

static int check_adopted(const json_t *spec, struct nova_error *err)
{
	json_t *unknown = json_object_get(json_object_get(spec, "adopted"), "unknown");

	if (json_array_size(unknown) == 0)
		return 0;
	return nova_error_set(err, NOVA_INVALID,
	    "the destination cannot make the same QEMU: \"%s\" (%zu unknown options) of the adopted one is "
	    "not "
	    "understood; give its specification (spec)",
	    json_string_value(json_array_get(unknown, 0)), json_array_size(unknown));
}

static enum nova_step_result prepare_answer(struct kvm_task *task, json_t *value, struct nova_error *err)
{
	struct nova_guest *guest = task->guest;
	json_t *spec = json_object_get(task->args, "spec");

	json_object_set_new(task->result, "spec", spec ? json_deep_copy(spec) : kvm_spec_now(guest));
	spec = json_object_get(task->result, "spec");
	json_object_set_new(task->result, "carried", json_array());
	if ((!json_object_get(task->args, "spec") && check_adopted(spec, err) < 0) ||
	    kvm_carry_plan(spec, json_object_get(task->args, "disks"), json_object_get(task->result, "carried"), err) <
	        0)
		return NOVA_STEP_FAILED;
	if (json_is_true(json_object_get(task->args, "direct"))) {
		json_t *identity = kvm_direct_identity(task->kvm, err);

		if (!identity)
			return NOVA_STEP_FAILED;
		json_object_set_new(task->result, "direct", identity);
	}
	json_object_set_new(task->result, "memory_bytes", json_integer(kvm_spec_total_memory(spec)));
	if (strcmp(kvm_spec_accel(spec), "tcg") == 0) /* see short_stream() */
		json_object_set_new(task->result, "settle_ms", json_integer(EMULATED_SETTLE_MS));
	json_object_set_new(task->result, "state", json_string(nova_guest_state_name(guest->state)));
	json_object_set_new(task->result, "runtime",
	    json_pack("{s:O?,s:O?}", "qemu_status", json_object_get(value, "status"), "pid",
	        json_object_get(guest->runtime, "pid")));
	return NOVA_STEP_DONE;
}

static enum nova_step_result prepare(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct kvm_task *task = ctx;

	if (!kvm_guest_live(task->guest)) /* cold: nothing runs, the specification moves */
		return prepare_answer(task, NULL, err);
	return kvm_task_qmp(task, "query-status", NULL, prepare_answer, err);
}

KVM_VERB(out_prepare)
{
	static const struct nova_step rows[] = {
		{ "describe", prepare, NULL, kvm_task_stop_waiting },
		{ "backing files", kvm_backing_describe, NULL, kvm_task_stop_waiting },
		{ NULL },
	};

	return kvm_task_new(self, guest, args, rows, done, arg, err);
}

/* ---- start ---------------------------------------------------------------------------------------- */

json_t *kvm_migration_capabilities(bool source, bool postcopy, bool multifd, bool hold)
{
	const struct {
		const char *name;
		bool on;
	} wanted[] = {
		{ "return-path", true },
		{ "events", true },
		{ "late-block-activate", true },
		{ "postcopy-ram", postcopy },
		{ "multifd", multifd },
		{ "auto-converge", source },
		{ "pause-before-switchover", hold },
	};
	json_t *list = json_array();

	for (size_t i = 0; i < sizeof(wanted) / sizeof(*wanted); i++)
		json_array_append_new(
		    list, json_pack("{s:s,s:b}", "capability", wanted[i].name, "state", wanted[i].on));
	return json_pack("{s:o}", "capabilities", list);
}

static enum nova_step_result status_known(struct kvm_task *task, json_t *value, struct nova_error *err)
{
	struct nova_guest *guest = task->guest;

	if (guest->state != NOVA_GUEST_RUNNING && guest->state != NOVA_GUEST_PAUSED) {
		nova_error_set(err, NOVA_STATE, "guest %s is %s: only a running or paused guest has a stream",
		    guest->name, nova_guest_state_name(guest->state));
		return NOVA_STEP_FAILED;
	}
	if (json_object_set_new(guest->runtime, "migration",
	        json_pack("{s:s,s:O,s:s}", "role", "source", "was_running", json_object_get(value, "running"),
	            "status", "setup")) < 0) {
		nova_error_sys(err, ENOMEM, "no memory for the migration of %s", guest->name);
		return NOVA_STEP_FAILED;
	}
	return nova_guest_save(guest, err) < 0 ? NOVA_STEP_FAILED : NOVA_STEP_DONE;
}

bool kvm_one_of(const char *text, const char *const *list)
{
	for (; *list; list++)
		if (strcmp(*list, text) == 0)
			return true;
	return false;
}

bool kvm_migration_over(const char *status)
{
	static const char *const over[] = { "none", "completed", "failed", "cancelled", NULL };

	return kvm_one_of(status, over);
}

static enum nova_step_result none_known(struct kvm_task *task, json_t *value, struct nova_error *err)
{
	const char *status = kvm_spec_text(value, "status") ?: "none";

	if (kvm_migration_over(status))
		return NOVA_STEP_DONE;
	if (strcmp(status, "cancelling") == 0)
		nova_error_set(err, NOVA_STATE,
		    "the QEMU of guest %s hangs in the cancel of an earlier migration: shut the guest down and start it, then it can move",
		    task->guest->name);
	else
		nova_error_set(err, NOVA_STATE, "guest %s has a migration going on already (%s)", task->guest->name, status);
	return NOVA_STEP_FAILED;
}

static enum nova_step_result check_none(struct nova_run *run, void *ctx, struct nova_error *err)
{
	return kvm_task_qmp(ctx, "query-migrate", NULL, none_known, err);
}

static enum nova_step_result note_status(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct kvm_task *task = ctx;

	if (kvm_direct(task) && json_is_true(json_object_get(task->args, "postcopy"))) {
		nova_error_set(err, NOVA_INVALID, "kvm: postcopy and the direct path exclude each other");
		return NOVA_STEP_FAILED;
	}
	if (!kvm_direct(task) && !kvm_spec_text(task->args, "path")) {
		nova_error_set(err, NOVA_INVALID, "path is missing: the unix socket to stream into");
		return NOVA_STEP_FAILED;
	}
	return kvm_task_qmp(task, "query-status", NULL, status_known, err);
}

static enum nova_step_result set_capabilities(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct kvm_task *task = ctx;
	bool postcopy = json_is_true(json_object_get(task->args, "postcopy"));

	return kvm_task_qmp(task, "migrate-set-capabilities",
	    kvm_migration_capabilities(
	        true, postcopy, kvm_direct(task), json_is_true(json_object_get(task->args, "hold"))),
	    NULL, err);
}

static enum nova_step_result set_parameters(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct kvm_task *task = ctx;
	/* With 0 QEMU 7.2 would not look for dirty pages again before it switches over. */
	json_int_t downtime_ms = kvm_spec_int(task->args, "downtime_limit_ms") ?: 1;
	json_t *parameters =
	    json_pack("{s:i,s:i,s:I,s:i,s:i,s:i,s:i}", "max-bandwidth", 0, "max-postcopy-bandwidth", 0,
	        "downtime-limit", downtime_ms, "cpu-throttle-initial", LEAST_THROTTLE,
	        "cpu-throttle-increment", 99, "max-cpu-throttle", LEAST_THROTTLE,
	        "throttle-trigger-threshold", 1);

	kvm_direct_parameters(task, parameters);
	return kvm_task_qmp(task, "migrate-set-parameters", parameters, NULL, err);
}

/* An emulated guest's writes are tracked only some ms after a count of dirty pages. What is sent until then should be
 * little: the engine stops reading at each count (settle_ms), and the socket in between takes no more than this. */
static enum nova_step_result short_stream(struct nova_run *run, void *ctx, struct nova_error *err)
{
	const int room = EMULATED_SOCKET_BYTES;
	struct kvm_task *task = ctx;
	NOVA_AUTOJSON json_t *spec = kvm_spec_now(task->guest);
	enum nova_step_result result;
	int fd;

	if (kvm_direct(task) || strcmp(kvm_spec_accel(spec), "tcg") != 0)
		return NOVA_STEP_DONE;
	fd = nova_unix_connect(kvm_spec_text(task->args, "path"), err);
	if (fd < 0)
		return NOVA_STEP_FAILED;
	setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &room, sizeof(room));
	json_object_set_new(task->notes, "stream", json_string("fd:" STREAM_NAME));
	result = kvm_task_send_fd(task, "getfd", json_pack("{s:s}", "fdname", STREAM_NAME), fd, NULL, err);
	close(fd);
	return result;
}

static enum nova_step_result migrate(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct kvm_task *task = ctx;
	json_t *stream = json_object_get(task->notes, "stream");
	json_t *uri = kvm_direct(task) ? kvm_direct_uri(task, err) :
		      stream ? json_incref(stream) :
			       json_sprintf("unix:%s", kvm_spec_text(task->args, "path"));

	return uri ? kvm_task_qmp(task, "migrate", json_pack("{s:o}", "uri", uri), NULL, err) : NOVA_STEP_FAILED;
}

/* ---- a postcopy whose stream was lost goes on over a new one ---- */

/* A QEMU that has written all of its memory waits for the last answer, and pauses no more when its stream ends (seen with 7.2). */
static enum nova_step_result not_lost(const struct kvm_task *task, struct nova_error *err)
{
	const char *name = task->guest->name;

	if (json_is_true(json_object_get(task->notes, "all_sent")))
		nova_error_set(err, NOVA_TIMEOUT,
		    "QEMU of guest %s had sent all of its memory and cannot send it again: what was on its way when a daemon or the link "
		    "ended is lost. If the guest goes on waiting at its destination, end it there (novacron stop %s --force) and start it again",
		    name, name);
	else
		nova_error_set(err, NOVA_TIMEOUT, "QEMU of guest %s has not noticed in %d s that its stream has ended", name,
		    KVM_LOSS_LIMIT_MS / 1000);
	return NOVA_STEP_FAILED;
}

static enum nova_step_result match_lost(
    struct kvm_task *task, const char *event, json_t *data, struct nova_error *err)
{
	const char *status = strcmp(event, "MIGRATION") == 0 ? kvm_spec_text(data, "status") : NULL;

	if (strcmp(event, "TIMEOUT") == 0)
		return not_lost(task, err);
	if (status && strcmp(status, "completed") == 0)
		json_object_set_new(task->result, "complete", json_true());
	return status && (strcmp(status, "postcopy-paused") == 0 || strcmp(status, "completed") == 0)
	           ? NOVA_STEP_DONE
	           : NOVA_STEP_WAIT;
}

enum nova_step_result kvm_wait_for_loss(struct kvm_task *task, json_t *value, struct nova_error *err)
{
	const char *status = kvm_spec_text(value, "status") ?: "none";

	if (strcmp(status, "postcopy-paused") == 0)
		return NOVA_STEP_DONE;
	if (strcmp(status, "completed") == 0) {
		json_object_set_new(task->result, "complete", json_true());
		return NOVA_STEP_DONE;
	}
	if (strcmp(status, "postcopy-active") != 0 && strcmp(status, "postcopy-recover") != 0) {
		nova_error_set(err, NOVA_STATE, "guest %s is in no postcopy (%s)", task->guest->name, status);
		return NOVA_STEP_FAILED;
	}
	json_object_set_new(task->notes, "all_sent",
	    json_boolean(strcmp(kvm_guest_role(task->guest), "source") == 0 &&
	        kvm_spec_int(json_object_get(value, "ram"), "remaining") == 0));
	return kvm_task_listen(task, match_lost, KVM_LOSS_LIMIT_MS, err);
}

static enum nova_step_result wait_lost(struct nova_run *run, void *ctx, struct nova_error *err)
{
	return kvm_task_qmp(ctx, "query-migrate", NULL, kvm_wait_for_loss, err);
}

static enum nova_step_result migrate_on(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct kvm_task *task = ctx;

	if (json_is_true(json_object_get(task->result, "complete")))
		return NOVA_STEP_DONE;
	return kvm_task_qmp(task, "migrate",
	    json_pack("{s:o,s:b}", "uri", json_sprintf("unix:%s", kvm_spec_text(task->args, "path")), "resume", 1),
	    NULL, err);
}

/* QEMU did not take it: there is no migration. */
static enum nova_step_result forget_migration(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct kvm_task *task = ctx;

	json_object_del(task->guest->runtime, "migration");
	kvm_guest_save(task->kvm, task->guest);
	return NOVA_STEP_DONE;
}

KVM_VERB(out_start)
{
	static const struct nova_step rows[] = {
		{ "check", check_none, NULL, kvm_task_stop_waiting },
		{ "status", note_status, forget_migration, kvm_task_stop_waiting },
		{ "credentials", kvm_direct_credentials, kvm_direct_forget, kvm_task_stop_waiting },
		{ "capabilities", set_capabilities, NULL, kvm_task_stop_waiting },
		{ "parameters", set_parameters, NULL, kvm_task_stop_waiting },
		{ "stream", short_stream, NULL, kvm_task_stop_waiting },
		{ "migrate", migrate, NULL, kvm_task_stop_waiting },
		{ NULL },
	};
	static const struct nova_step resume_rows[] = {
		{ "wait", wait_lost, NULL, kvm_task_stop_waiting, 2 * KVM_LOSS_LIMIT_MS },
		{ "migrate", migrate_on, NULL, kvm_task_stop_waiting },
		{ NULL },
	};
	bool resume = json_is_true(json_object_get(args, "resume"));

	return kvm_task_new(self, guest, args, resume ? resume_rows : rows, done, arg, err);
}

/* ---- query ---------------------------------------------------------------------------------------- */

/* What QEMU counts is never negative, and nothing it says may make our own sums overflow. */
static int64_t count_of(const json_t *object, const char *member)
{
	const int64_t most = 1ll << 60;
	int64_t value = kvm_spec_int(object, member);

	return value < 0 ? 0 : value > most ? most : value;
}

static int64_t dirty_bytes_per_s(const json_t *ram)
{
	int64_t pages = count_of(ram, "dirty-pages-rate"), size = count_of(ram, "page-size"), bytes;

	return __builtin_mul_overflow(pages, size, &bytes) ? INT64_MAX : bytes;
}

json_t *kvm_migration_sample(const json_t *info)
{
	/* our member, QEMU's member of "ram" */
	static const char *const of_ram[][2] = {
		{ "iteration", "dirty-sync-count" },
		{ "remaining_bytes", "remaining" },
		{ "total_bytes", "total" },
		{ "transferred_bytes", "transferred" },
		{ "page_bytes", "page-size" },
		{ "normal_pages", "normal" },
		{ "zero_pages", "duplicate" },
		{ "postcopy_requests", "postcopy-requests" },
	};
	static const char *const of_info[][2] = {
		{ "throttle_percent", "cpu-throttle-percentage" },
		{ "downtime_ms", "downtime" },
		{ "expected_downtime_ms", "expected-downtime" },
		{ "total_ms", "total-time" },
		{ "setup_ms", "setup-time" },
	};
	const json_t *ram = json_object_get(info, "ram");
	json_t *sample = json_pack("{s:s}", "status", kvm_spec_text(info, "status") ?: "none");
	const char *error = kvm_spec_text(info, "error-desc");

	for (size_t i = 0; i < sizeof(of_ram) / sizeof(*of_ram); i++)
		json_object_set_new(sample, of_ram[i][0], json_integer(count_of(ram, of_ram[i][1])));
	for (size_t i = 0; i < sizeof(of_info) / sizeof(*of_info); i++)
		json_object_set_new(sample, of_info[i][0], json_integer(count_of(info, of_info[i][1])));
	json_object_set_new(sample, "dirty_bytes_per_s", json_integer(dirty_bytes_per_s(ram)));
	if (error)
		json_object_set_new(sample, "error", json_string(error));
	return sample;
}

static enum nova_step_result sampled(struct kvm_task *task, json_t *value, struct nova_error *err)
{
	json_decref(task->result);
	task->result = kvm_migration_sample(value);
	return NOVA_STEP_DONE;
}

static enum nova_step_result ask_migration(struct nova_run *run, void *ctx, struct nova_error *err)
{
	return kvm_task_qmp(ctx, "query-migrate", NULL, sampled, err);
}

/* While QEMU writes the last pages and the devices it holds its big lock, and no question is begun. So the answer
 * "finish-migrate" to a question means that the whole stream is in the socket, if the question was asked when it was
 * finishing already. (One that came before can be answered by the migration itself, while it drains the disks.) */
static enum nova_step_result end_known(struct kvm_task *task, json_t *value, struct nova_error *err)
{
	static const char *const written[] = { "finish-migrate", "postmigrate", NULL };
	const char *status = kvm_spec_text(value, "status") ?: "";

	if (strcmp(status, "finish-migrate") == 0 && !json_object_get(task->notes, "finishing")) {
		json_object_set_new(task->notes, "finishing", json_true());
		return kvm_task_qmp(task, "query-status", NULL, end_known, err);
	}
	json_object_set_new(
	    task->result, "written", json_boolean(kvm_one_of(status, written)));
	return NOVA_STEP_DONE;
}

static enum nova_step_result ask_end(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct kvm_task *task = ctx;

	if (!json_is_true(json_object_get(task->args, "end")))
		return NOVA_STEP_DONE;
	return kvm_task_qmp(task, "query-status", NULL, end_known, err);
}

KVM_VERB(out_query)
{
	static const struct nova_step rows[] = {
		{ "ask", ask_migration, NULL, kvm_task_stop_waiting },
		{ "end", ask_end, NULL, kvm_task_stop_waiting },
		{ NULL },
	};

	return kvm_task_new(self, guest, args, rows, done, arg, err);
}

/* ---- set ------------------------------------------------------------------------------------------ */

static int wanted_parameters(const json_t *args, json_t *into, struct nova_error *err)
{
	json_t *throttle = json_object_get(args, "throttle_percent");
	json_t *downtime = json_object_get(args, "downtime_limit_ms");
	json_t *bandwidth = json_object_get(args, "bandwidth_bytes_per_s");
	json_int_t percent = json_integer_value(throttle);

	if (throttle && (!json_is_integer(throttle) || percent < 0 || percent > 99))
		return nova_error_set(err, NOVA_INVALID, "throttle_percent is a number from 0 to 99");
	if (downtime && (json_integer_value(downtime) < 1 || json_integer_value(downtime) > 2000000))
		return nova_error_set(err, NOVA_INVALID, "downtime_limit_ms is a number from 1 to 2000000");
	if (bandwidth && (!json_is_integer(bandwidth) || json_integer_value(bandwidth) < 0))
		return nova_error_set(err, NOVA_INVALID, "bandwidth_bytes_per_s is a number, 0: no limit");
	if (percent < LEAST_THROTTLE)
		percent = LEAST_THROTTLE;
	if (throttle) {
		/* QEMU goes to "initial" at its first trigger and then up by "increment", to "max" at most.
		 */
		json_object_set_new(into, "cpu-throttle-initial", json_integer(percent));
		json_object_set_new(into, "max-cpu-throttle", json_integer(percent));
	}
	if (downtime)
		json_object_set(into, "downtime-limit", downtime);
	if (bandwidth)
		json_object_set(into, "max-bandwidth", bandwidth);
	return 0;
}

static enum nova_step_result change_parameters(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct kvm_task *task = ctx;
	NOVA_AUTOJSON json_t *parameters = json_object();

	if (wanted_parameters(task->args, parameters, err) < 0)
		return NOVA_STEP_FAILED;
	if (json_object_size(parameters) == 0)
		return NOVA_STEP_DONE;
	return kvm_task_qmp(task, "migrate-set-parameters", nova_take(&parameters), NULL, err);
}

static enum nova_step_result go_postcopy(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct kvm_task *task = ctx;

	if (!json_is_true(json_object_get(task->args, "postcopy")))
		return NOVA_STEP_DONE;
	return kvm_task_qmp(task, "migrate-start-postcopy", NULL, NULL, err);
}

/* A QEMU whose processors we stopped does not start them again when its migration fails; one that stopped
 * them for the switch-over does. If it was quicker than we were, it is finishing already. */
static enum nova_step_result halt_known(struct kvm_task *task, json_t *value, struct nova_error *err)
{
	json_object_set_new(
	    task->result, "halted", json_boolean(strcmp(kvm_spec_text(value, "status") ?: "", "paused") == 0));
	return NOVA_STEP_DONE;
}

static enum nova_step_result stopped(struct kvm_task *task, json_t *value, struct nova_error *err)
{
	return kvm_task_qmp(task, "query-status", NULL, halt_known, err);
}

static enum nova_step_result halt(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct kvm_task *task = ctx;

	if (!json_is_true(json_object_get(task->args, "halt")))
		return NOVA_STEP_DONE;
	return kvm_task_qmp(task, "stop", NULL, stopped, err);
}

static enum nova_step_result go_on(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct kvm_task *task = ctx;

	if (!json_is_true(json_object_get(task->args, "go_on")))
		return NOVA_STEP_DONE;
	return kvm_task_qmp(task, "migrate-continue", json_pack("{s:s}", "state", "pre-switchover"), NULL, err);
}

KVM_VERB(out_set)
{
	static const struct nova_step rows[] = {
		{ "halt", halt, NULL, kvm_task_stop_waiting },
		{ "go on", go_on, NULL, kvm_task_stop_waiting },
		{ "parameters", change_parameters, NULL, kvm_task_stop_waiting },
		{ "postcopy", go_postcopy, NULL, kvm_task_stop_waiting },
		{ NULL },
	};

	return kvm_task_new(self, guest, args, rows, done, arg, err);
}
