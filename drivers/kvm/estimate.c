/* SPDX-License-Identifier: Apache-2.0
 *
 * estimate.c - ESTIMATE: how fast a guest changes its memory, and a sample of what is in it.
 *
 * The dirty rate is QEMU's own (calc-dirty-rate, page sampling: it hashes some pages twice; a guest is not slowed
 * down by it, and the dirty bitmap it could use instead crashes QEMU 7.2 under TCG). While it runs, QEMU saves
 * PLACES pieces of physical memory, spread evenly, one after the other into a file of the guest's private
 * directory; they are joined in a second file that only we can read, and whoever asked removes it. The first
 * MiB (where devices' windows are) and what may not be memory below 4 GiB are left out.
 *
 * Not here: what the sample is worth (the engine's codecs decide).
 */
#include "kvm.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#define DIRTY_S 1
#define DIRTY_PAGES 4096 /* a GiB */
#define POLL_MS 50
#define PLACES 96
#define PIECE_BYTES (32 * 1024ll)
#define LOW_END (2048 * KVM_MIB)  /* below it all is memory, on every machine type */
#define HOLE_MOST (3584 * KVM_MIB) /* of memory below 4 GiB at most */
#define HIGH_BEGIN (4096 * KVM_MIB)

static int sample_path(struct kvm_task *task, const char *file, char path[PATH_MAX], struct nova_error *err)
{
	return kvm_guest_socket(task->kvm, task->guest->name, file, path, PATH_MAX, err);
}

/* ---- the dirty rate ------------------------------------------------------------------------------- */

static enum nova_step_result measure(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct kvm_task *task = ctx;
	NOVA_AUTOJSON json_t *spec = kvm_spec_now(task->guest);

	json_object_set_new(task->result, "memory_bytes", json_integer(kvm_spec_total_memory(spec)));
	return kvm_task_qmp(task, "calc-dirty-rate",
	    json_pack("{s:i,s:i,s:s}", "calc-time", DIRTY_S, "sample-pages", DIRTY_PAGES, "mode", "page-sampling"), NULL, err);
}

static enum nova_step_result rate_known(struct kvm_task *task, json_t *value, struct nova_error *err);

static enum nova_step_result poll_again(struct kvm_task *task, const char *event, json_t *data, struct nova_error *err)
{
	if (strcmp(event, "TIMEOUT") != 0)
		return NOVA_STEP_WAIT;
	return kvm_task_qmp(task, "query-dirty-rate", NULL, rate_known, err);
}

static enum nova_step_result rate_known(struct kvm_task *task, json_t *value, struct nova_error *err)
{
	const char *status = kvm_spec_text(value, "status") ?: "";

	if (strcmp(status, "measured") != 0)
		return kvm_task_listen(task, poll_again, POLL_MS, err);
	kvm_task_stop_waiting(NULL, task);
	json_object_set_new(task->result, "dirty_bytes_per_s", json_integer(kvm_spec_int(value, "dirty-rate") * KVM_MIB));
	json_object_set_new(task->result, "dirty_ms", json_integer(DIRTY_S * 1000));
	return NOVA_STEP_DONE;
}

static enum nova_step_result await_rate(struct nova_run *run, void *ctx, struct nova_error *err)
{
	return kvm_task_qmp(ctx, "query-dirty-rate", NULL, rate_known, err);
}

/* ---- the sample ----------------------------------------------------------------------------------- */

/* Where the piece of this number begins; pieces are spread over what surely is memory. */
static json_int_t piece_at(json_int_t memory, int number)
{
	json_int_t low = memory < LOW_END ? memory : LOW_END, high = memory > HOLE_MOST ? memory - HOLE_MOST : 0;
	json_int_t at = KVM_MIB + (low - KVM_MIB + high - PIECE_BYTES) / PLACES * number;

	if (at + PIECE_BYTES > low)
		at += at < low ? PIECE_BYTES : 0;
	return (at < low ? at : at - low + HIGH_BEGIN) & ~4095ll;
}

/* QEMU's file becomes a part of ours. */
static int append_piece(struct kvm_task *task, struct nova_error *err)
{
	char piece[PATH_MAX], sample[PATH_MAX], data[PIECE_BYTES];
	NOVA_AUTOCLOSE int from = -1, to = -1;
	ssize_t n;

	if (sample_path(task, "piece.mem", piece, err) < 0 || sample_path(task, "sample.mem", sample, err) < 0)
		return -1;
	from = open(piece, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	to = open(sample, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
	n = from < 0 || to < 0 ? -1 : read(from, data, sizeof(data));
	if (n < 0 || write(to, data, (size_t)n) != n)
		return nova_error_sys(err, errno, "sample of guest %s's memory in %s", task->guest->name, sample);
	unlink(piece);
	return 0;
}

static enum nova_step_result next_piece(struct kvm_task *task, struct nova_error *err);

static enum nova_step_result piece_saved(struct kvm_task *task, json_t *value, struct nova_error *err)
{
	json_int_t number = kvm_spec_int(task->notes, "piece");

	if (!value) { /* a QEMU that is not ours may not write here */
		json_object_set_new(task->result, "sample_error", json_string("QEMU cannot write a sample of its memory"));
		return NOVA_STEP_DONE;
	}
	if (append_piece(task, err) < 0)
		return NOVA_STEP_FAILED;
	json_object_set_new(task->notes, "piece", json_integer(number + 1));
	return next_piece(task, err);
}

static enum nova_step_result next_piece(struct kvm_task *task, struct nova_error *err)
{
	json_int_t number = kvm_spec_int(task->notes, "piece"), memory = kvm_spec_int(task->result, "memory_bytes");
	char path[PATH_MAX];

	if (number == PLACES) {
		if (sample_path(task, "sample.mem", path, err) < 0)
			return NOVA_STEP_FAILED;
		json_object_set_new(task->result, "sample", json_string(path));
		json_object_set_new(task->result, "sample_places", json_integer(PLACES));
		return NOVA_STEP_DONE;
	}
	if (sample_path(task, "piece.mem", path, err) < 0)
		return NOVA_STEP_FAILED;
	return kvm_task_try(task, "pmemsave",
	    json_pack("{s:I,s:I,s:s}", "val", piece_at(memory, (int)number), "size", (json_int_t)PIECE_BYTES, "filename", path),
	    piece_saved, err);
}

static enum nova_step_result sample(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct kvm_task *task = ctx;
	char path[PATH_MAX];

	if (sample_path(task, "sample.mem", path, err) < 0)
		return NOVA_STEP_FAILED;
	unlink(path);
	json_object_set_new(task->notes, "piece", json_integer(0));
	return next_piece(task, err);
}

static enum nova_step_result forget_sample(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct kvm_task *task = ctx;
	char path[PATH_MAX];

	if (sample_path(task, "piece.mem", path, err) == 0)
		unlink(path);
	if (sample_path(task, "sample.mem", path, err) == 0)
		unlink(path);
	return NOVA_STEP_DONE;
}

KVM_VERB(estimate)
{
	static const struct nova_step rows[] = {
		{ "measure", measure, NULL, kvm_task_stop_waiting },
		{ "sample", sample, forget_sample, kvm_task_stop_waiting, 10000 },
		{ "rate", await_rate, NULL, kvm_task_stop_waiting, 10000 },
		{ NULL },
	};

	return kvm_task_new(self, guest, args, rows, done, arg, err);
}
