/* SPDX-License-Identifier: Apache-2.0
 *
 * backing.c - the backing file of a carried disk: is the same one at the destination?
 *
 * A qcow2 disk with one backing file moves as an overlay again if the destination has that file: beside the new image
 * or where the source has it, below the roots, and with the same SHA-256. Then only the overlay's own blocks travel
 * (mirror sync=top). In every other case (another file, a longer chain, a file of more than 16 GiB, which takes too
 * long to hash) the disk arrives whole, as one image. qemu-img tells the chain, sha256sum the hash.
 */
#include "kvm.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define HASHED_MAX (16ll << 30)

/* ---- hashes ---------------------------------------------------------------------------------------- */

static enum nova_step_result hash_file(
    struct kvm_task *task, const char *path, kvm_reply_fn reply, struct nova_error *err)
{
	const char *argv[] = { "sha256sum", "-b", "--", path, NULL };

	return kvm_task_run_program(task, argv, reply, err);
}

/* The 64 digits at the beginning of what sha256sum printed, or NULL. */
static json_t *hash_in(const json_t *ran)
{
	const char *text = kvm_spec_text(ran, "stdout") ?: "";

	if (kvm_spec_int(ran, "status") != 0 || *text == '\\' || strspn(text, "0123456789abcdef") != 64)
		return NULL;
	return json_stringn(text, 64);
}

static bool small_enough(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0 && S_ISREG(st.st_mode) && st.st_size <= HASHED_MAX;
}

/* ---- the source: what the backing file is ---------------------------------------------------------- */

static enum nova_step_result describe_next(struct kvm_task *task, struct nova_error *err);

/* The carried disk whose turn it is. */
static json_t *disk_at(const struct kvm_task *task)
{
	return json_array_get(json_object_get(json_object_get(task->result, "spec"), "disk"),
	    (size_t)kvm_spec_int(task->notes, "backing"));
}

static enum nova_step_result described(struct kvm_task *task, struct nova_error *err)
{
	json_object_set_new(task->notes, "backing", json_integer(kvm_spec_int(task->notes, "backing") + 1));
	return describe_next(task, err);
}

static enum nova_step_result hash_known(struct kvm_task *task, json_t *value, struct nova_error *err)
{
	json_t *carried = json_object_get(disk_at(task), "carried"), *hash = hash_in(value);

	if (hash)
		json_object_set_new(json_object_get(carried, "backing"), "sha256", hash);
	else
		json_object_del(carried, "backing");
	return described(task, err);
}

static enum nova_step_result chain_known(struct kvm_task *task, json_t *value, struct nova_error *err)
{
	json_t *carried = json_object_get(disk_at(task), "carried");
	NOVA_AUTOJSON json_t *chain = json_loads(kvm_spec_text(value, "stdout") ?: "", 0, NULL);
	const json_t *top = json_array_get(chain, 0);
	const char *path = kvm_spec_text(top, "full-backing-filename");
	const char *format = kvm_spec_text(top, "backing-filename-format");

	if (nova_child_check("qemu-img", value, err) < 0)
		return NOVA_STEP_FAILED;
	if (json_array_size(chain) != 2 || !path || !format || !small_enough(path))
		return described(task, err);
	json_object_set_new(carried, "backing", json_pack("{s:s,s:s}", "path", path, "format", format));
	return hash_file(task, path, hash_known, err);
}

/* Where the image of a disk is here: its place in the specification is the destination's by now. */
static const char *image_of(const struct kvm_task *task, size_t index)
{
	json_t *carried;
	char name[32];
	size_t i;

	snprintf(name, sizeof(name), "disk%zu", index);
	json_array_foreach (json_object_get(task->result, "carried"), i, carried)
		if (strcmp(kvm_spec_text(carried, "disk") ?: "", name) == 0)
			return kvm_spec_text(carried, "path");
	return NULL;
}

static enum nova_step_result describe_next(struct kvm_task *task, struct nova_error *err)
{
	const json_t *disk;

	while ((disk = disk_at(task))) {
		size_t at = (size_t)kvm_spec_int(task->notes, "backing");
		const char *path = image_of(task, at);
		const char *argv[] = { kvm_qemu_img(task->kvm), "info", "-U", "--backing-chain", "--output=json", path,
			NULL };

		if (path && json_object_get(disk, "carried") && strcmp(kvm_spec_text(disk, "format"), "qcow2") == 0)
			return kvm_task_run_program(task, argv, chain_known, err);
		json_object_set_new(task->notes, "backing", json_integer((json_int_t)at + 1));
	}
	return NOVA_STEP_DONE;
}

enum nova_step_result kvm_backing_describe(struct nova_run *run, void *ctx, struct nova_error *err)
{
	return describe_next(ctx, err);
}

/* ---- the destination: is it here? -------------------------------------------------------------------- */

static enum nova_step_result find_next(struct kvm_task *task, struct nova_error *err);

static json_t *wanted_at(const struct kvm_task *task)
{
	return json_array_get(json_object_get(json_object_get(task->notes, "spec"), "disk"),
	    (size_t)kvm_spec_int(task->notes, "backing"));
}

/* The n-th place where the backing file may be; NULL past the last. Freed by the caller. */
static char *candidate(const json_t *disk, const char *backing, int number)
{
	const char *path = kvm_spec_text(disk, "path"), *name = strrchr(backing, '/');
	char *beside = NULL;

	if (number == 1)
		return strdup(backing);
	if (number > 1 || asprintf(&beside, "%.*s%s", (int)(strrchr(path, '/') - path), path, name ?: backing) < 0)
		return NULL;
	return beside;
}

static enum nova_step_result tried(struct kvm_task *task, json_t *value, struct nova_error *err)
{
	json_t *disk = wanted_at(task), *backing = json_object_get(json_object_get(disk, "carried"), "backing");
	int number = (int)kvm_spec_int(task->notes, "candidate");
	NOVA_AUTOJSON json_t *hash = hash_in(value);
	NOVA_AUTOFREE char *path = candidate(disk, kvm_spec_text(backing, "path"), number);
	bool same = hash && json_equal(hash, json_object_get(backing, "sha256"));

	if (same)
		json_object_set_new(json_object_get(disk, "carried"), "based_on", json_string(path));
	json_object_set_new(task->notes, "candidate", json_integer(same ? 2 : number + 1));
	return find_next(task, err);
}

static bool has_backing(const json_t *disk)
{
	const json_t *backing = json_object_get(json_object_get(disk, "carried"), "backing");
	const char *path = kvm_spec_text(backing, "path"), *format = kvm_spec_text(backing, "format");

	return path && *path == '/' && format && (strcmp(format, "qcow2") == 0 || strcmp(format, "raw") == 0);
}

static enum nova_step_result find_next(struct kvm_task *task, struct nova_error *err)
{
	json_t *disk;

	for (; (disk = wanted_at(task)); json_object_set_new(task->notes, "candidate", json_integer(0))) {
		const char *backing = kvm_spec_text(json_object_get(json_object_get(disk, "carried"), "backing"), "path");
		int number = (int)kvm_spec_int(task->notes, "candidate");
		NOVA_AUTOFREE char *path = has_backing(disk) ? candidate(disk, backing, number) : NULL;

		if (number == 0)
			json_object_del(json_object_get(disk, "carried"), "based_on");
		if (path && kvm_path_existing(task->kvm->roots, "backing file", path, NULL) >= 0 && small_enough(path))
			return hash_file(task, path, tried, err);
		if (path) {
			json_object_set_new(task->notes, "candidate", json_integer(number + 1));
			return find_next(task, err);
		}
		json_object_set_new(
		    task->notes, "backing", json_integer(kvm_spec_int(task->notes, "backing") + 1));
	}
	return NOVA_STEP_DONE;
}

enum nova_step_result kvm_backing_find(struct nova_run *run, void *ctx, struct nova_error *err)
{
	return find_next(ctx, err);
}
