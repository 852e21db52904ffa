/* SPDX-License-Identifier: Apache-2.0
 *
 * jobs.c - block jobs of a guest's QEMU that a task begins, ends and waits for. What is known of them is in the task's
 * notes: `jobs` are those that must end (absent: not known yet), `ended` those that did, with their error ("" if there
 * was none), `copied` how many bytes they had to copy, `cancelling` whether their errors matter.
 */
#include "kvm.h"

#include <string.h>

bool kvm_is_job(const char *job, const char *const prefixes[])
{
	for (; job && *prefixes; prefixes++)
		if (strncmp(job, *prefixes, strlen(*prefixes)) == 0)
			return true;
	return false;
}

bool kvm_job_over(const char *event)
{
	return strcmp(event, "BLOCK_JOB_COMPLETED") == 0 || strcmp(event, "BLOCK_JOB_CANCELLED") == 0;
}

static bool all_ended(const struct kvm_task *task)
{
	json_t *job;
	size_t i;

	json_array_foreach (json_object_get(task->notes, "jobs"), i, job)
		if (!json_object_get(json_object_get(task->notes, "ended"), json_string_value(job)))
			return false;
	return json_object_get(task->notes, "jobs") != NULL;
}

enum nova_step_result kvm_jobs_wait(struct kvm_task *task, struct nova_error *err)
{
	const char *job;
	json_t *error;

	if (!all_ended(task))
		return NOVA_STEP_WAIT;
	if (json_is_true(json_object_get(task->notes, "cancelling")))
		return NOVA_STEP_DONE;
	json_object_foreach (json_object_get(task->notes, "ended"), job, error)
		if (*json_string_value(error)) {
			nova_error_set(err, NOVA_REFUSED, "QEMU's job %s: %s", job, json_string_value(error));
			return NOVA_STEP_FAILED;
		}
	return NOVA_STEP_DONE;
}

/* Of other jobs than those of notes.prefixes nothing is noted. */
static bool is_noted(const struct kvm_task *task, const char *job)
{
	json_t *prefix;
	size_t i;

	json_array_foreach (json_object_get(task->notes, "prefixes"), i, prefix)
		if (job && strncmp(job, json_string_value(prefix), json_string_length(prefix)) == 0)
			return true;
	return false;
}

static enum nova_step_result match_end(struct kvm_task *task, const char *event, json_t *data, struct nova_error *err)
{
	const char *job = kvm_spec_text(data, "device"), *error = kvm_spec_text(data, "error") ?: "";

	if (!is_noted(task, job) || !kvm_job_over(event))
		return NOVA_STEP_WAIT;
	if (strcmp(event, "BLOCK_JOB_CANCELLED") == 0)
		error = "cancelled before it was done";
	json_object_set_new(json_object_get(task->notes, "ended"), job, json_string(error));
	json_object_set(json_object_get(task->notes, "copied"), job, json_object_get(data, "len"));
	return kvm_jobs_wait(task, err);
}

enum nova_step_result kvm_jobs_listen(struct kvm_task *task, const char *const prefixes[], struct nova_error *err)
{
	json_t *list = json_array();

	for (; *prefixes; prefixes++)
		json_array_append_new(list, json_string(*prefixes));
	json_object_set_new(task->notes, "prefixes", list);
	json_object_del(task->notes, "jobs");
	json_object_set_new(task->notes, "ended", json_object());
	json_object_set_new(task->notes, "copied", json_object());
	return kvm_task_listen(task, match_end, 0, err);
}

static enum nova_step_result end_next(struct kvm_task *task, json_t *value, struct nova_error *err)
{
	json_t *jobs = json_object_get(task->notes, "jobs");
	size_t at = (size_t)kvm_spec_int(task->notes, "ending");

	if (at >= json_array_size(jobs))
		return kvm_jobs_wait(task, err);
	json_object_set_new(task->notes, "ending", json_integer((json_int_t)at + 1));
	return kvm_task_try(task, "block-job-cancel",
	    json_pack("{s:O,s:b}", "device", json_array_get(jobs, at), "force",
	        json_is_true(json_object_get(task->notes, "cancelling"))),
	    end_next, err);
}

static enum nova_step_result jobs_known(struct kvm_task *task, json_t *value, struct nova_error *err)
{
	size_t least = (size_t)kvm_spec_int(task->notes, "least"), i;
	json_t *jobs = json_array(), *job;

	json_array_foreach (value, i, job)
		if (is_noted(task, kvm_spec_text(job, "device")))
			json_array_append(jobs, json_object_get(job, "device"));
	json_object_set_new(task->notes, "jobs", jobs);
	if (json_array_size(jobs) && json_array_size(jobs) >= least)
		return end_next(task, NULL, err);
	kvm_task_stop_waiting(NULL, task);
	if (json_array_size(jobs) >= least)
		return NOVA_STEP_DONE;
	nova_error_set(err, NOVA_REFUSED, "only %zu of %zu jobs of QEMU are left", json_array_size(jobs), least);
	return NOVA_STEP_FAILED;
}

enum nova_step_result kvm_jobs_end(
    struct kvm_task *task, const char *const prefixes[], size_t least, bool cancel, struct nova_error *err)
{
	if (!kvm_guest_live(task->guest))
		return NOVA_STEP_DONE;
	json_object_set_new(task->notes, "ending", json_integer(0));
	json_object_set_new(task->notes, "least", json_integer(cancel ? 0 : (json_int_t)least));
	json_object_set_new(task->notes, "cancelling", json_boolean(cancel));
	if (kvm_jobs_listen(task, prefixes, err) == NOVA_STEP_FAILED)
		return NOVA_STEP_FAILED;
	return kvm_task_qmp(task, "query-block-jobs", NULL, jobs_known, err);
}
