/* SPDX-License-Identifier: Apache-2.0
 *
 * replica.c - images of a replica at the standby: REPLICA_MAKE, REPLICA_SERVE, REPLICA_MERGE, REPLICA_EXPORT.
 *
 * All are qcow2, and no guest runs on them: qemu-img and qemu-nbd do the work, confined to the roots (confined.c),
 * and end with us. A point of a disk is an overlay on the point before it. Merging writes an overlay into what is
 * below it and lets the overlay above stand there instead: both hold the same content all the while, so that it can
 * be done again after a crash.
 */
#include "kvm.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

static const char *qemu_nbd(const struct kvm *kvm, char path[PATH_MAX])
{
	const char *img = kvm_qemu_img(kvm), *slash = strrchr(img, '/');

	if (!slash)
		return "qemu-nbd";
	snprintf(path, PATH_MAX, "%.*s/qemu-nbd", (int)(slash - img), img);
	return path;
}

static enum nova_step_result ran(struct kvm_task *task, json_t *value, struct nova_error *err)
{
	return nova_child_check(kvm_spec_text(task->notes, "program") ?: "qemu-img", value, err) < 0 ? NOVA_STEP_FAILED :
	                                                                                             NOVA_STEP_DONE;
}

static int need_texts(const json_t *args, const char *const names[], struct nova_error *err)
{
	for (; *names; names++)
		if (!kvm_spec_text(args, *names))
			return nova_error_set(err, NOVA_INVALID, "%s is missing", *names);
	return 0;
}

/* What was written is on the disk, and so is the name of the file. */
static int sync_path(const char *path, struct nova_error *err)
{
	NOVA_AUTOFREE char *directory = strdup(path);
	NOVA_AUTOCLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW), top = -1;

	if (!directory || fd < 0 || fsync(fd) < 0)
		return nova_error_sys(err, directory ? errno : ENOMEM, "%s", path);
	*strrchr(directory, '/') = 0;
	top = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return top < 0 || fsync(top) < 0 ? nova_error_sys(err, errno, "%s", directory) : 0;
}

/* ---- make ---- */

/* The replica's own, below the roots. */
static int make_directory(const struct kvm *kvm, const char *path, struct nova_error *err)
{
	struct stat info;

	if (!path || (lstat(path, &info) == 0 && S_ISDIR(info.st_mode)))
		return 0;
	if (kvm_path_creatable(kvm->roots, "directory of a replica", path, err) < 0)
		return -1;
	return mkdir(path, 0700) < 0 && errno != EEXIST ? nova_error_sys(err, errno, "directory %s", path) : 0;
}

static enum nova_step_result make(struct nova_run *run, void *ctx, struct nova_error *err)
{
	static const char *const texts[] = { "path", NULL };
	struct kvm_task *task = ctx;
	const char *path = kvm_spec_text(task->args, "path"), *backing = kvm_spec_text(task->args, "backing");
	char size[32];
	const char *whole[] = { kvm_qemu_img(task->kvm), "create", "-q", "-f", "qcow2", path, size, NULL };
	const char *overlay[] = { kvm_qemu_img(task->kvm), "create", "-q", "-f", "qcow2", "-b", backing, "-F", "qcow2", path,
		size, NULL };

	if (need_texts(task->args, texts, err) < 0 ||
	    make_directory(task->kvm, kvm_spec_text(task->args, "directory"), err) < 0 ||
	    kvm_path_creatable(task->kvm->roots, "image of a replica", path, err) < 0)
		return NOVA_STEP_FAILED;
	unlink(path); /* of an attempt that failed */
	snprintf(size, sizeof(size), "%lld", (long long)kvm_spec_int(task->args, "size"));
	return kvm_task_run_program(task, backing ? overlay : whole, ran, err);
}

/* One image of a replica: its group may read it. */
static int open_image(int directory, const char *name, gid_t gid)
{
	NOVA_AUTOCLOSE int fd = openat(directory, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	struct stat info;

	if (fd < 0 || fstat(fd, &info) < 0)
		return -1;
	return S_ISREG(info.st_mode) ? (fchown(fd, (uid_t)-1, gid) < 0 || fchmod(fd, 0640) < 0 ? -1 : 0) : 0;
}

static int open_images(const char *path, gid_t gid, struct nova_error *err)
{
	DIR *directory = opendir(path);
	const struct dirent *entry;
	int rc = 0;

	if (!directory)
		return nova_error_sys(err, errno, "directory %s", path);
	while (rc == 0 && (entry = readdir(directory)))
		if (*entry->d_name != '.' && open_image(dirfd(directory), entry->d_name, gid) < 0)
			rc = nova_error_sys(err, errno, "image %s/%s", path, entry->d_name);
	closedir(directory);
	return rc;
}

int kvm_replica_open_to_user(const struct kvm *kvm, const char *image, struct nova_error *err)
{
	const char *name = kvm_config_text(kvm, "qemu-user");
	NOVA_AUTOFREE char *directory = image ? strdup(image) : NULL;
	uid_t uid;
	gid_t gid;

	if (!name || !*name || !directory || geteuid() != 0)
		return 0;
	*strrchr(directory, '/') = 0;
	if (kvm_user_ids(name, &uid, &gid, err) < 0)
		return -1;
	if (lchown(directory, (uid_t)-1, gid) < 0 || chmod(directory, 0750) < 0)
		return nova_error_sys(err, errno, "directory %s", directory);
	return open_images(directory, gid, err);
}

static enum nova_step_result make_done(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct kvm_task *task = ctx;

	if (!json_is_true(json_object_get(task->args, "for_guest")))
		return NOVA_STEP_DONE;
	if (kvm_replica_open_to_user(task->kvm, kvm_spec_text(task->args, "backing"), err) < 0)
		return NOVA_STEP_FAILED;
	return kvm_hand_to_user(task->kvm, kvm_spec_text(task->args, "path"), err) < 0 ? NOVA_STEP_FAILED : NOVA_STEP_DONE;
}

KVM_VERB(replica_make)
{
	static const struct nova_step rows[] = {
		{ "make", make, NULL, kvm_task_stop_waiting },
		{ "hand over", make_done },
		{ NULL },
	};

	return kvm_task_new(self, guest, args, rows, done, arg, err);
}

/* ---- serve ---- */

static void served(void *arg, json_t *result, const struct nova_error *failure)
{
	struct kvm_task *task = arg;
	const char *path = kvm_spec_text(task->args, "path");
	struct nova_error err;
	int failed;

	task->waiting = NULL;
	unlink(kvm_spec_text(task->args, "socket"));
	if (failure)
		err = *failure;
	failed = failure || nova_child_check("qemu-nbd", result, &err) < 0 ||
	         (json_is_true(json_object_get(task->args, "writable")) && sync_path(path, &err) < 0);
	kvm_task_end_row(task, failed ? NOVA_STEP_FAILED : NOVA_STEP_DONE, &err);
}

static enum nova_step_result serve(struct nova_run *run, void *ctx, struct nova_error *err)
{
	static const char *const texts[] = { "path", "format", "socket", "export", NULL };
	struct kvm_task *task = ctx;
	const char *path = kvm_spec_text(task->args, "path"), *socket = kvm_spec_text(task->args, "socket");
	const char *format = kvm_spec_text(task->args, "format");
	bool writable = json_is_true(json_object_get(task->args, "writable"));
	NOVA_AUTOFREE char *directory = NULL;
	char program[PATH_MAX];
	const char *argv[] = { qemu_nbd(task->kvm, program), "-f", format, "-x", kvm_spec_text(task->args, "export"), "-k",
		socket, "--cache=writeback", writable ? "--discard=unmap" : "--read-only", "--detect-zeroes=unmap", path, NULL };
	bool qcow2 = format && strcmp(format, "qcow2") == 0;

	if (need_texts(task->args, texts, err) < 0 ||
	    (qcow2 ? kvm_path_qcow2(task->kvm->roots, path, err) :
	             kvm_path_existing(task->kvm->roots, "image of a replica", path, err)) < 0)
		return NOVA_STEP_FAILED;
	if (!writable) {
		argv[9] = path;
		argv[10] = NULL;
	}
	directory = strdup(socket);
	if (!directory || !strrchr(directory, '/')) {
		nova_error_set(err, NOVA_INVALID, "socket: %s is no whole path", socket);
		return NOVA_STEP_FAILED;
	}
	*strrchr(directory, '/') = 0;
	unlink(socket);
	task->waiting = kvm_serve_confined(task->kvm, argv, directory, served, task, err);
	return task->waiting ? NOVA_STEP_WAIT : NOVA_STEP_FAILED;
}

KVM_VERB(replica_serve)
{
	static const struct nova_step rows[] = {
		{ "serve", serve, NULL, kvm_task_stop_waiting },
		{ NULL },
	};

	return kvm_task_new(self, guest, args, rows, done, arg, err);
}

/* ---- merge ---- */

static enum nova_step_result commit(struct nova_run *run, void *ctx, struct nova_error *err)
{
	static const char *const texts[] = { "path", "into", NULL };
	struct kvm_task *task = ctx;
	const char *argv[] = { kvm_qemu_img(task->kvm), "commit", "-q", "-d", "-f", "qcow2", "-b",
		kvm_spec_text(task->args, "into"), kvm_spec_text(task->args, "path"), NULL };

	if (need_texts(task->args, texts, err) < 0 ||
	    kvm_path_qcow2(task->kvm->roots, kvm_spec_text(task->args, "path"), err) < 0)
		return NOVA_STEP_FAILED;
	return kvm_task_run_program(task, argv, ran, err);
}

static enum nova_step_result rebase(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct kvm_task *task = ctx;
	const char *into = kvm_spec_text(task->args, "into"), *above = kvm_spec_text(task->args, "above");
	const char *argv[] = { kvm_qemu_img(task->kvm), "rebase", "-q", "-u", "-f", "qcow2", "-b", into, "-F", "qcow2", above,
		NULL };

	if (sync_path(into, err) < 0)
		return NOVA_STEP_FAILED;
	return above ? kvm_task_run_program(task, argv, ran, err) : NOVA_STEP_DONE;
}

static enum nova_step_result settle(struct nova_run *run, void *ctx, struct nova_error *err)
{
	const char *above = kvm_spec_text(((struct kvm_task *)ctx)->args, "above");

	return above && sync_path(above, err) < 0 ? NOVA_STEP_FAILED : NOVA_STEP_DONE;
}

KVM_VERB(replica_merge)
{
	static const struct nova_step rows[] = {
		{ "commit", commit, NULL, kvm_task_stop_waiting },
		{ "rebase", rebase, NULL, kvm_task_stop_waiting },
		{ "settle", settle },
		{ NULL },
	};

	return kvm_task_new(self, guest, args, rows, done, arg, err);
}

/* ---- export ---- */

static enum nova_step_result convert(struct nova_run *run, void *ctx, struct nova_error *err)
{
	static const char *const texts[] = { "path", "file", NULL };
	struct kvm_task *task = ctx;
	const char *path = kvm_spec_text(task->args, "path"), *file = kvm_spec_text(task->args, "file");
	const char *argv[] = { kvm_qemu_img(task->kvm), "convert", "-q", "-f", "qcow2", "-O", "qcow2", path, file, NULL };
	int there;

	if (need_texts(task->args, texts, err) < 0 || kvm_path_qcow2(task->kvm->roots, path, err) < 0)
		return NOVA_STEP_FAILED;
	there = kvm_path_creatable(task->kvm->roots, "file", file, err);
	if (there > 0)
		nova_error_set(err, NOVA_REFUSED, "%s is there already: name a new file", file);
	if (there)
		return NOVA_STEP_FAILED;
	json_object_set_new(task->notes, "begun", json_true());
	return kvm_task_run_program(task, argv, ran, err);
}

static enum nova_step_result unconvert(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct kvm_task *task = ctx;

	if (json_object_get(task->notes, "begun"))
		unlink(kvm_spec_text(task->args, "file"));
	return NOVA_STEP_DONE;
}

/* The two are the same, block by block. */
static enum nova_step_result compare(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct kvm_task *task = ctx;
	const char *argv[] = { kvm_qemu_img(task->kvm), "compare", "-q", "-f", "qcow2", "-F", "qcow2",
		kvm_spec_text(task->args, "path"), kvm_spec_text(task->args, "file"), NULL };

	return kvm_task_run_program(task, argv, ran, err);
}

static enum nova_step_result tell_size(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct kvm_task *task = ctx;
	const char *file = kvm_spec_text(task->args, "file");
	struct stat info;

	if (sync_path(file, err) < 0 || stat(file, &info) < 0)
		return NOVA_STEP_FAILED;
	json_object_set_new(task->result, "bytes", json_integer((json_int_t)info.st_blocks * 512));
	return NOVA_STEP_DONE;
}

KVM_VERB(replica_export)
{
	static const struct nova_step rows[] = {
		{ "convert", convert, unconvert, kvm_task_stop_waiting },
		{ "compare", compare, NULL, kvm_task_stop_waiting },
		{ "tell", tell_size },
		{ NULL },
	};

	return kvm_task_new(self, guest, args, rows, done, arg, err);
}
