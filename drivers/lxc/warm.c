/* SPDX-License-Identifier: Apache-2.0
 *
 * warm.c - a container that moves with its processes: CRIU, by lxc-checkpoint, writes them down at the source, where that ends
 * them, and brings them to life at the destination.
 *
 * There they are restored stopped (CRIU's leave-stopped), then frozen, and only then continued: not one instruction of theirs
 * runs before somebody unfreezes the container, which is after the commit. Checkpoints are in PATH/NAME/checkpoint. Only
 * containers whose console is none: CRIU takes no descriptors of the host's. Not here: rounds before the checkpoint.
 */
#include "drivers/lxc/lxc.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define CHECKPOINT_MS (10 * 60 * 1000)
#define RESTORE_MS 30000

const char *lxc_no_checkpoint(void)
{
	return !lxc_in_path("lxc-checkpoint") ? "lxc-checkpoint is not installed" :
	       !lxc_in_path("criu")	      ? "criu is not installed" :
						NULL;
}

bool lxc_had_checkpoint(const struct nova_guest *guest)
{
	return json_is_true(json_object_get(guest->runtime, "checkpoint"));
}

static int directory(const struct nova_guest *guest, char *path, size_t size)
{
	return lxc_file(guest, "checkpoint", path, size);
}

/* ---- taking one ---- */

enum nova_step_result lxc_make_checkpoint_directory(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;
	char path[PATH_MAX];

	if (directory(task->guest, path, sizeof(path)) < 0 || (mkdir(path, 0700) < 0 && errno != EEXIST)) {
		nova_error_sys(err, errno, "directory of the checkpoint of guest %s", task->guest->name);
		return NOVA_STEP_FAILED;
	}
	json_object_set_new(task->guest->runtime, "checkpoint", json_true());
	return nova_guest_save(task->guest, err) < 0 ? NOVA_STEP_FAILED : NOVA_STEP_DONE;
}

/* CRIU's own last words are more than LXC's. */
static void words_of_criu(const struct task *task, const char *log, char *words, size_t size)
{
	char path[PATH_MAX], line[512], name[64];
	FILE *file;

	*words = 0;
	snprintf(name, sizeof(name), "checkpoint/%s", log);
	if (lxc_file(task->guest, name, path, sizeof(path)) < 0 || !(file = fopen(path, "re")))
		return;
	while (fgets(line, sizeof(line), file)) {
		const char *at = strstr(line, "Error (");

		if (at && !strstr(at, "RLIMIT_NOFILE") && !*words)
			snprintf(words, size, "%.*s", (int)strcspn(at, "\n"), at);
	}
	fclose(file);
}

static enum nova_step_result failed(const struct task *task, const char *what, const char *log, struct nova_error *err)
{
	char words[300];

	words_of_criu(task, log, words, sizeof(words));
	nova_error_set(err, NOVA_REFUSED, "container %s could not be %s: %s", task->guest->name, what,
	    *words ? words : "lxc-checkpoint and CRIU do not say why");
	return NOVA_STEP_FAILED;
}

static enum nova_step_result taken(struct task *task, json_t *value, struct nova_error *err)
{
	return json_integer_value(json_object_get(value, "status")) ? failed(task, "checkpointed", "dump.log", err) : NOVA_STEP_DONE;
}

enum nova_step_result lxc_take_checkpoint(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;
	struct lxc_guest *live = task->guest->driver_data;
	char path[PATH_MAX];
	const char *argv[] = { "lxc-checkpoint", "-P", lxc_path_of(task->guest), "-n", lxc_name_of(task->guest), "-s", "-D", path, NULL };

	directory(task->guest, path, sizeof(path));
	live->stopping = true;
	return task_program(task, argv, CHECKPOINT_MS, taken, err);
}

/* ---- restoring one ---- */

static enum nova_step_result restored(struct task *task, json_t *value, struct nova_error *err)
{
	return json_integer_value(json_object_get(value, "status")) ? failed(task, "restored", "restore.log", err) : NOVA_STEP_DONE;
}

/* stopped: nothing of it runs until it is told to. */
static enum nova_step_result restore(struct task *task, bool stopped, struct nova_error *err)
{
	struct lxc *lxc = task->self;
	char path[PATH_MAX], settings[PATH_MAX], variable[PATH_MAX + 32];
	const char *argv[] = { "env", variable, "lxc-checkpoint", "-P", lxc_path_of(task->guest), "-n", lxc_name_of(task->guest), "-r",
		"-d", "-D", path, NULL };
	NOVA_AUTOCLOSE int fd = -1;

	directory(task->guest, path, sizeof(path));
	if (lxc_file(task->guest, "criu.conf", settings, sizeof(settings)) < 0)
		return NOVA_STEP_FAILED;
	fd = open(settings, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0 || (stopped && write(fd, "leave-stopped\n", 14) != 14)) {
		nova_error_sys(err, errno, "%s", settings);
		return NOVA_STEP_FAILED;
	}
	lxc_know(lxc, task->guest, err);
	snprintf(variable, sizeof(variable), "CRIU_CONFIG_FILE=%s", settings);
	return task_program(task, argv, RESTORE_MS, restored, err);
}

static enum nova_step_result waited(struct task *task, json_t *value, struct nova_error *err)
{
	return NOVA_STEP_DONE;
}

static enum nova_step_result is_up(struct task *task, json_t *value, struct nova_error *err)
{
	return lxc_take_running(task->self, task->guest, value, err) < 0 ? NOVA_STEP_FAILED : NOVA_STEP_DONE;
}

static enum nova_step_result ask_up(struct nova_run *run, void *ctx, struct nova_error *err)
{
	return lxc_ask_info(ctx, is_up, err);
}

enum nova_step_result lxc_remove_checkpoint(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;
	char path[PATH_MAX], settings[PATH_MAX];
	const char *argv[] = { "rm", "-rf", "--one-file-system", "--", path, settings, NULL };

	if (!lxc_had_checkpoint(task->guest))
		return NOVA_STEP_DONE;
	directory(task->guest, path, sizeof(path));
	lxc_file(task->guest, "criu.conf", settings, sizeof(settings));
	json_object_del(task->guest->runtime, "checkpoint");
	if (nova_guest_save(task->guest, err) < 0)
		return NOVA_STEP_FAILED;
	return task_program(task, argv, LXC_COMMAND_MS, NULL, err);
}

/* ---- the destination: restored, and held ---- */

static enum nova_step_result restore_stopped(struct nova_run *run, void *ctx, struct nova_error *err)
{
	return restore(ctx, true, err);
}

static enum nova_step_result freeze(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;
	const char *argv[] = { "lxc-freeze", "-P", lxc_path_of(task->guest), "-n", lxc_name_of(task->guest), NULL };

	return task_program(task, argv, LXC_COMMAND_MS, NULL, err);
}

static bool same_namespace(pid_t pid, const struct stat *of)
{
	char path[64];
	struct stat st;

	snprintf(path, sizeof(path), "/proc/%d/ns/pid", (int)pid);
	return stat(path, &st) == 0 && st.st_ino == of->st_ino && st.st_dev == of->st_dev;
}

/* They stay where they are, frozen, and run on when that ends. */
static enum nova_step_result continue_all(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;
	pid_t init = (pid_t)json_integer_value(json_object_get(task->guest->runtime, "pid"));
	char path[64];
	struct dirent *entry;
	struct stat st;
	DIR *proc;

	snprintf(path, sizeof(path), "/proc/%d/ns/pid", (int)init);
	proc = init > 1 && stat(path, &st) == 0 ? opendir("/proc") : NULL;
	if (!proc) {
		nova_error_set(err, NOVA_STATE, "container %s ended just now", task->guest->name);
		return NOVA_STEP_FAILED;
	}
	while ((entry = readdir(proc))) {
		pid_t pid = atoi(entry->d_name);

		if (pid > 1 && same_namespace(pid, &st))
			kill(pid, SIGCONT);
	}
	closedir(proc);
	return NOVA_STEP_DONE;
}

/* One that cannot be held shall not run. */
static enum nova_step_result take_down(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;
	struct lxc_guest *live = task->guest->driver_data;
	const char *argv[] = { "lxc-stop", "-P", lxc_path_of(task->guest), "-n", lxc_name_of(task->guest), "-k", NULL };

	if (live)
		live->stopping = true;
	return task_program(task, argv, LXC_COMMAND_MS, waited, err);
}

struct nova_op *lxc_start_paused(void *self, struct nova_guest *guest, json_t *args, nova_done_fn done, void *arg,
    struct nova_error *err)
{
	static const struct nova_step rows[] = {
		{ "restore", restore_stopped, take_down, task_drop_row },
		{ "wait", lxc_wait_up_row, NULL, task_drop_row },
		{ "look", ask_up, NULL, task_drop_row },
		{ "freeze", freeze, NULL, task_drop_row },
		{ "continue", continue_all },
		{ "clear", lxc_remove_checkpoint, NULL, task_drop_row },
		{ NULL },
	};

	if (!lxc_had_checkpoint(guest)) {
		nova_error_set(err, NOVA_REFUSED, "not supported by lxc: a container cannot be started paused");
		return NULL;
	}
	return task_new(self, &((struct lxc *)self)->env, guest, args, rows, done, arg, err);
}

/* ---- the source: it stays, and goes on ---- */

static bool is_to_run(const struct task *task)
{
	return lxc_had_checkpoint(task->guest) && json_is_true(json_object_get(task->args, "resume"));
}

/* A checkpoint that was not taken has ended nothing. */
static enum nova_step_result is_running(struct task *task, json_t *value, struct nova_error *err)
{
	json_object_set_new(task->notes, "running", json_boolean(lxc_info_pid(value) > 0));
	return NOVA_STEP_DONE;
}

static enum nova_step_result ask_running(struct nova_run *run, void *ctx, struct nova_error *err)
{
	return is_to_run(ctx) ? lxc_ask_info(ctx, is_running, err) : NOVA_STEP_DONE;
}

/* A checkpoint that cannot be restored here either: it is started anew, which is what there is. */
static enum nova_step_result went_on(struct task *task, json_t *value, struct nova_error *err)
{
	if (restored(task, value, err) == NOVA_STEP_DONE)
		return NOVA_STEP_DONE;
	driver_log(task->env, NOVA_LOG_WARNING, "lxc: guest %s is started anew: %s", task->guest->name, err->text);
	json_object_set_new(task->notes, "anew", json_true());
	return NOVA_STEP_DONE;
}

static enum nova_step_result go_on(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;
	enum nova_step_result result;

	if (!is_to_run(task) || json_is_true(json_object_get(task->notes, "running")))
		return NOVA_STEP_DONE;
	result = restore(task, false, err);
	task->reply = went_on;
	return result;
}

static enum nova_step_result start_anew(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;

	if (!json_is_true(json_object_get(task->notes, "anew")))
		return NOVA_STEP_DONE;
	return task_wait(task, lxc_start(task->self, task->guest, NULL, task_done, task, err), NULL);
}

static enum nova_step_result wait_on(struct nova_run *run, void *ctx, struct nova_error *err)
{
	return is_to_run(ctx) ? lxc_wait_up_row(run, ctx, err) : NOVA_STEP_DONE;
}

static enum nova_step_result is_on(struct task *task, json_t *value, struct nova_error *err)
{
	if (is_up(task, value, err) == NOVA_STEP_FAILED)
		return NOVA_STEP_FAILED;
	lxc_tell(task->guest, NOVA_GUEST_RUNNING, "it goes on here");
	return NOVA_STEP_DONE;
}

static enum nova_step_result look_on(struct nova_run *run, void *ctx, struct nova_error *err)
{
	return is_to_run(ctx) ? lxc_ask_info(ctx, is_on, err) : NOVA_STEP_DONE;
}

static enum nova_step_result stop_moving(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct nova_guest *guest = ((struct task *)ctx)->guest;
	struct lxc_guest *live = guest->driver_data;

	if (live)
		live->move = box_move_free(live->move);
	if (guest->state == NOVA_GUEST_MIGRATED || guest->state == NOVA_GUEST_IN_DOUBT)
		lxc_tell(guest, NOVA_GUEST_STOPPED, "it stays here");
	return NOVA_STEP_DONE;
}

/* After a restart, too, with nothing but the record. */
LXC_VERB(out_cancel)
{
	static const struct nova_step rows[] = {
		{ "stop", stop_moving },
		{ "running?", ask_running, NULL, task_drop_row },
		{ "restore", go_on, NULL, task_drop_row },
		{ "start", start_anew, NULL, task_drop_row },
		{ "wait", wait_on, NULL, task_drop_row },
		{ "look", look_on, NULL, task_drop_row },
		{ "clear", lxc_remove_checkpoint, NULL, task_drop_row },
		{ NULL },
	};

	return task_new(self, &((struct lxc *)self)->env, guest, args, rows, done, arg, err);
}
