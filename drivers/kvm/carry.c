/* SPDX-License-Identifier: Apache-2.0
 *
 * carry.c - disks that move with their guest: which, where to, and their images at the destination.
 *
 * At the source, kvm_carry_plan() turns the guest's specification into the destination's: paths as the operator
 * wants them, and for each disk that is carried a member "carried" with what its image must be like. At the
 * destination the images are made before QEMU starts. An older copy of the disk that stands in the way is moved
 * aside first: it is the seed, goes when the guest has arrived, and comes back if it does not. All of this is in
 * guest->runtime before it is done: "created" (files that we made), "aside" ([{path, aside}]) and "based_on"
 * ({path: backing file} of images that are overlays).
 */
#include "kvm.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

/* ---- which disks, and where to --------------------------------------------------------------------- */

static const char *base_of(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

/* Does this word mean this disk: its number (disk0), its path, or its file's name? */
static bool means(const char *word, size_t length, const char *name, const char *path)
{
	const char *const names[] = { name, path, base_of(path) };

	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
		if (strlen(names[i]) == length && strncmp(names[i], word, length) == 0)
			return true;
	return false;
}

static bool listed(const json_t *list, const char *name, const char *path)
{
	json_t *word;
	size_t i;

	json_array_foreach ((json_t *)list, i, word) {
		const char *text = json_string_value(word) ?: "";

		if (means(text, strlen(text), name, path))
			return true;
	}
	return false;
}

/* The path after "DISK=" for this disk, or NULL. */
static const char *mapped(const json_t *map, const char *name, const char *path)
{
	json_t *word;
	size_t i;

	json_array_foreach ((json_t *)map, i, word) {
		const char *text = json_string_value(word) ?: "", *equals = strchr(text, '=');

		if (equals && means(text, (size_t)(equals - text), name, path))
			return equals + 1;
	}
	return NULL;
}

static int no_such_disk(const json_t *disks, const char *word, int length, struct nova_error *err)
{
	char names[256] = "";
	size_t used = 0, i;
	json_t *disk;

	json_array_foreach ((json_t *)disks, i, disk)
		if (used < sizeof(names))
			used += (size_t)snprintf(names + used, sizeof(names) - used, "%sdisk%zu (%s)", i ? ", " : "", i,
			    kvm_spec_text(disk, "path"));
	return nova_error_set(err, NOVA_INVALID, "the guest has no disk %.*s: there %s %s", length, word,
	    json_array_size(disks) == 1 ? "is" : "are", used ? names : "none");
}

static int check_words(const json_t *disks, const json_t *list, bool with_path, struct nova_error *err)
{
	json_t *word, *disk;
	size_t i, k;

	json_array_foreach ((json_t *)list, i, word) {
		const char *text = json_string_value(word) ?: "", *equals = strchr(text, '=');
		size_t length = with_path && equals ? (size_t)(equals - text) : strlen(text);
		bool found = false;

		if (with_path && (!equals || equals[1] != '/'))
			return nova_error_set(err, NOVA_INVALID,
			    "disk-map %s: say DISK=PATH with an absolute path at the destination", text);
		json_array_foreach ((json_t *)disks, k, disk) {
			char name[32];

			snprintf(name, sizeof(name), "disk%zu", k);
			found |= means(text, length, name, kvm_spec_text(disk, "path") ?: "");
		}
		if (!found)
			return no_such_disk(disks, text, (int)length, err);
	}
	return 0;
}

static int64_t used_bytes(const char *path)
{
	struct stat st;

	return stat(path, &st) < 0 ? 0 : (int64_t)st.st_blocks * 512;
}

static int move_path(json_t *disk, const char *name, const json_t *wishes, struct nova_error *err)
{
	const char *path = kvm_spec_text(disk, "path"), *pool = kvm_spec_text(wishes, "pool");
	const char *to = mapped(json_object_get(wishes, "map"), name, path);

	if (!to && pool && *pool != '/')
		return nova_error_set(err, NOVA_INVALID, "disk-pool %s: give an absolute path", pool);
	if (to)
		json_object_set_new(disk, "path", json_string(to));
	else if (pool && json_object_get(disk, "carried"))
		json_object_set_new(disk, "path", json_sprintf("%s/%s", pool, base_of(path)));
	return 0;
}

static int plan_disk(json_t *disk, const char *name, const json_t *wishes, json_t *carried, struct nova_error *err)
{
	NOVA_AUTOFREE char *path = strdup(kvm_spec_text(disk, "path") ?: "");
	bool readonly = json_is_true(json_object_get(disk, "readonly"));
	bool stays = readonly || json_is_true(json_object_get(disk, "shared"));
	bool include = listed(json_object_get(wishes, "include"), name, path);
	bool exclude = listed(json_object_get(wishes, "exclude"), name, path);

	json_object_del(disk, "carried");
	if (include && exclude)
		return nova_error_set(err, NOVA_INVALID, "disk %s is to be included and excluded", path);
	if (include && readonly)
		return nova_error_set(err, NOVA_INVALID,
		    "disk %s is read-only: it cannot be carried, it must be at the destination already", path);
	if (!wishes && !stays)
		return nova_error_set(err, NOVA_INVALID,
		    "disk %s is not said to be on storage shared by both hosts (shared=on)", path);
	if (wishes && (include || !stays) && !exclude) {
		json_object_set_new(disk, "carried",
		    json_pack("{s:I}", "used_bytes", (json_int_t)used_bytes(path)));
		json_object_del(disk, "shared");
		json_array_append_new(carried,
		    json_pack("{s:s,s:s,s:O,s:O*}", "disk", name, "path", path, "format",
		        json_object_get(disk, "format"), "size", json_object_get(disk, "size")));
	}
	return move_path(disk, name, wishes, err);
}

int kvm_carry_plan(json_t *spec, const json_t *wishes, json_t *carried, struct nova_error *err)
{
	json_t *disks = json_object_get(spec, "disk"), *disk;
	size_t i;

	if (check_words(disks, json_object_get(wishes, "include"), false, err) < 0 ||
	    check_words(disks, json_object_get(wishes, "exclude"), false, err) < 0 ||
	    check_words(disks, json_object_get(wishes, "map"), true, err) < 0)
		return -1;
	json_array_foreach (disks, i, disk) {
		char name[32];

		snprintf(name, sizeof(name), "disk%zu", i);
		if (plan_disk(disk, name, wishes, carried, err) < 0)
			return -1;
	}
	return 0;
}

/* ---- the destination's check ------------------------------------------------------------------------ */

const json_t *kvm_carry_copy(const json_t *copies, const char *name)
{
	json_t *copy;
	size_t i;

	json_array_foreach ((json_t *)copies, i, copy)
		if (strcmp(kvm_spec_text(copy, "disk") ?: "", name) == 0 && kvm_spec_text(copy, "path"))
			return copy;
	return NULL;
}

static int check_room(const char *path, int64_t needed, struct nova_error *err)
{
	NOVA_AUTOFREE char *directory = strdup(path);
	struct statvfs fs;
	uint64_t have;

	if (!directory)
		return nova_error_sys(err, ENOMEM, "disk %s", path);
	*strrchr(directory, '/') = 0;
	if (statvfs(*directory ? directory : "/", &fs) < 0)
		return nova_error_sys(err, errno, "directory of disk %s", path);
	have = (uint64_t)fs.f_bavail * fs.f_frsize;
	if (needed <= 0 || have >= (uint64_t)needed)
		return 0;
	return nova_error_set(err, NOVA_REFUSED, "disk %s takes %lld MiB, and %s has room for %llu MiB", path,
	    (long long)(needed / KVM_MIB), *directory ? directory : "/", (unsigned long long)(have / KVM_MIB));
}

int kvm_carry_check(const json_t *roots, const json_t *disk, const char *name, const json_t *copies,
    struct nova_error *err)
{
	const char *path = kvm_spec_text(disk, "path");
	const json_t *copy = kvm_carry_copy(copies, name);
	int there = kvm_path_creatable(roots, "disk", path, err);

	if (there < 0)
		return -1;
	if (kvm_spec_int(disk, "size") <= 0)
		return nova_error_set(err, NOVA_INVALID, "disk %s is to be carried, but its size is not said", path);
	if (there && !(copy && strcmp(kvm_spec_text(copy, "path"), path) == 0))
		return nova_error_set(err, NOVA_REFUSED,
		    "disk %s is on this host already, and not as a copy that this guest left: choose another place "
		    "(disk-map, disk-pool), say that it is not to be carried (exclude-disk), or remove it",
		    path);
	return check_room(path, kvm_spec_int(json_object_get(disk, "carried"), "used_bytes"), err);
}

/* ---- images at the destination ----------------------------------------------------------------------- */

static json_t *list_of(struct nova_guest *guest, const char *member)
{
	json_t *list = json_object_get(guest->runtime, member);

	if (!list) {
		list = json_array();
		json_object_set_new(guest->runtime, member, list);
	}
	return list;
}

static const char *aside_of(const struct nova_guest *guest, const char *path)
{
	json_t *item;
	size_t i;

	json_array_foreach (json_object_get(guest->runtime, "aside"), i, item)
		if (strcmp(kvm_spec_text(item, "path") ?: "", path) == 0)
			return kvm_spec_text(item, "aside");
	return NULL;
}

/* The older copy makes room for the new image. */
static int move_aside(struct nova_guest *guest, const char *path, struct nova_error *err)
{
	json_t *aside = json_sprintf("%s.before", path);
	const char *to = json_string_value(aside);

	json_array_append_new(list_of(guest, "aside"), json_pack("{s:s,s:o}", "path", path, "aside", aside));
	if (access(to, F_OK) == 0)
		return nova_error_set(err, NOVA_REFUSED,
		    "the older copy of disk %s cannot be moved aside: %s exists", path, to);
	if (nova_guest_save(guest, err) < 0)
		return -1;
	if (rename(path, to) < 0)
		return nova_error_sys(err, errno, "older copy of disk %s", path);
	return 0;
}

static json_t *based_on(struct nova_guest *guest)
{
	json_t *based = json_object_get(guest->runtime, "based_on");

	if (!based) {
		based = json_object();
		json_object_set_new(guest->runtime, "based_on", based);
	}
	return based;
}

static enum nova_step_result image_made(struct kvm_task *task, json_t *value, struct nova_error *err)
{
	const char *path = kvm_spec_text(task->notes, "making");

	if (nova_child_check("qemu-img", value, err) < 0 || kvm_hand_to_user(task->kvm, path, err) < 0)
		return NOVA_STEP_FAILED;
	return kvm_carry_make(task->run, task, err);
}

static enum nova_step_result make_image(struct kvm_task *task, const json_t *disk, struct nova_error *err)
{
	const char *path = kvm_spec_text(disk, "path");
	const json_t *carried = json_object_get(disk, "carried");
	const char *base = kvm_spec_text(carried, "based_on");
	char size[32];
	const char *whole[] = { kvm_qemu_img(task->kvm), "create", "-q", "-f", kvm_spec_text(disk, "format"), path,
		size, NULL };
	const char *overlay[] = { kvm_qemu_img(task->kvm), "create", "-q", "-f", kvm_spec_text(disk, "format"), "-b",
		base, "-F", kvm_spec_text(json_object_get(carried, "backing"), "format"), path, size, NULL };

	if (base) /* for MIRROR_IN, and for a restarted daemon */
		json_object_set_new(based_on(task->guest), path, json_string(base));
	snprintf(size, sizeof(size), "%lld", (long long)kvm_spec_int(disk, "size"));
	json_array_append_new(list_of(task->guest, "created"), json_string(path));
	json_object_set_new(task->notes, "making", json_string(path));
	if (nova_guest_save(task->guest, err) < 0)
		return NOVA_STEP_FAILED;
	return kvm_task_run_program(task, base ? overlay : whole, image_made, err);
}

enum nova_step_result kvm_carry_make(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct kvm_task *task = ctx;
	json_t *disks = json_object_get(json_object_get(task->notes, "spec"), "disk");
	size_t at = (size_t)kvm_spec_int(task->notes, "disk");

	for (; at < json_array_size(disks); at++) {
		const json_t *disk = json_array_get(disks, at);
		const char *path = kvm_spec_text(disk, "path");
		int there;

		if (!json_object_get(disk, "carried"))
			continue;
		json_object_set_new(task->notes, "disk", json_integer((json_int_t)at + 1));
		there = kvm_path_creatable(task->kvm->roots, "disk", path, err);
		if (there < 0 || (there && move_aside(task->guest, path, err) < 0))
			return NOVA_STEP_FAILED;
		return make_image(task, disk, err);
	}
	return NOVA_STEP_DONE;
}

static void remove_created(const struct nova_guest *guest)
{
	json_t *item;
	size_t i;

	json_array_foreach (json_object_get(guest->runtime, "created"), i, item)
		unlink(json_string_value(item));
}

static void remove_aside(const struct nova_guest *guest)
{
	json_t *item;
	size_t i;

	json_array_foreach (json_object_get(guest->runtime, "aside"), i, item)
		unlink(kvm_spec_text(item, "aside"));
}

/* What was made here is settled. */
static void forget_made(struct nova_guest *guest)
{
	json_object_del(guest->runtime, "created");
	json_object_del(guest->runtime, "aside");
	json_object_del(guest->runtime, "based_on");
}

void kvm_carry_unmake(struct nova_guest *guest)
{
	json_t *item;
	size_t i;

	remove_created(guest);
	json_array_foreach (json_object_get(guest->runtime, "aside"), i, item)
		if (access(kvm_spec_text(item, "path"), F_OK) < 0)
			rename(kvm_spec_text(item, "aside"), kvm_spec_text(item, "path"));
	forget_made(guest);
}

void kvm_carry_discard(struct nova_guest *guest)
{
	remove_created(guest);
	remove_aside(guest);
	forget_made(guest);
}

enum nova_step_result kvm_carry_undo(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct kvm_task *task = ctx;

	kvm_carry_unmake(task->guest);
	return nova_guest_save(task->guest, err) < 0 ? NOVA_STEP_FAILED : NOVA_STEP_DONE;
}

void kvm_carry_arrived(struct nova_guest *guest)
{
	json_object_del(guest->runtime, "disks_elsewhere");
	remove_aside(guest);
	forget_made(guest);
}

const char *kvm_carry_seed(const struct nova_guest *guest, const json_t *copy)
{
	const char *path = kvm_spec_text(copy, "path");

	return aside_of(guest, path) ?: path;
}

/* ---- what stays at the source after the move ---------------------------------------------------------- */

json_t *kvm_carry_leave(const struct nova_guest *guest, const json_t *carried, bool keep)
{
	json_t *left = json_array(), *disk;
	size_t i;

	json_array_foreach ((json_t *)carried, i, disk) {
		const char *path = kvm_spec_text(disk, "path"), *name = kvm_spec_text(disk, "disk") ?: "";
		NOVA_AUTOJSON json_t *spec = kvm_spec_now(guest);
		unsigned index = 0;
		const json_t *own = sscanf(name, "disk%u", &index) == 1
		                        ? json_array_get(json_object_get(spec, "disk"), index)
		                        : NULL;

		/* Only what the specification still says, and only what is the guest's own. */
		if (!path || !own || strcmp(kvm_spec_text(own, "path") ?: "", path) != 0)
			continue;
		if (!keep && json_is_true(json_object_get(own, "owned")))
			unlink(path);
		else
			json_array_append(left, disk);
	}
	return left;
}
