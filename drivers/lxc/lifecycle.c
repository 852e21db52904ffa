/* SPDX-License-Identifier: Apache-2.0
 *
 * lifecycle.c - CREATE, START, STOP, PAUSE, RESUME, DELETE.
 *
 * lxc-start stays in the foreground of a session of its own: it is the container's monitor, it outlives us, and
 * what the container writes goes to its console.log (read by LOGS; not rotated). A root file system that was
 * given as a directory is never removed.
 */
#include "drivers/lxc/lxc.h"
#include "drivers/common/roots.h"
#include "engine/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#define UNPACK_MS (30 * 60 * 1000)
#define START_MS 20000
#define STOP_MS 30000
#define UP_MS 5000
#define LOOK_MS 10
#define COMMAND_WORDS 300

/* ---- create ---- */

static const json_t *spec_of(const struct task *task)
{
	const json_t *given = json_object_get(task->args, "spec");

	return given ? given : task->guest->spec;
}

static bool is_directory(const char *path)
{
	struct stat st;

	return *path == '/' && stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

int lxc_rootfs(const struct nova_guest *guest, char *path, size_t size)
{
	const char *given = task_text(guest->spec, "rootfs") ?: "";

	if (!is_directory(given))
		return lxc_file(guest, "rootfs", path, size);
	return snprintf(path, size, "%s", given) < (int)size ? 0 : -1;
}

/* On record before it is there. */
enum nova_step_result lxc_make_directory(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;
	struct lxc *lxc = task->self;
	char home[PATH_MAX], rootfs[PATH_MAX];

	json_object_set_new(task->guest->runtime, "path", json_string(lxc->path));
	json_object_set_new(task->guest->runtime, "container", json_string(task->guest->name));
	if (lxc_file(task->guest, "", home, sizeof(home)) < 0 || lxc_file(task->guest, "rootfs", rootfs, sizeof(rootfs)) < 0) {
		nova_error_set(err, NOVA_INVALID, "lxc: the path of guest %s is too long", task->guest->name);
		return NOVA_STEP_FAILED;
	}
	if (mkdir(lxc->path, 0700) < 0 && errno != EEXIST) {
		nova_error_sys(err, errno, "cannot make %s", lxc->path);
		return NOVA_STEP_FAILED;
	}
	if (access(home, F_OK) == 0) {
		nova_error_set(err, NOVA_STATE, "there is a container %s in %s already: adopt it, or remove it", task->guest->name, lxc->path);
		return NOVA_STEP_FAILED;
	}
	json_object_set_new(task->guest->runtime, "made", json_true());
	if (nova_guest_save(task->guest, err) < 0)
		return NOVA_STEP_FAILED;
	/* Other users inside must get through, whatever our umask is. */
	if (mkdir(home, 0700) < 0 || mkdir(rootfs, 0755) < 0 || chmod(rootfs, 0755) < 0) {
		nova_error_sys(err, errno, "cannot make %s", rootfs);
		return NOVA_STEP_FAILED;
	}
	return NOVA_STEP_DONE;
}

enum nova_step_result lxc_remove_directory(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;
	char home[PATH_MAX];
	const char *argv[] = { "rm", "-rf", "--one-file-system", "--", home, NULL };

	if (!json_is_true(json_object_get(task->guest->runtime, "made")) || !*lxc_name_of(task->guest) ||
	    lxc_file(task->guest, "", home, sizeof(home)) < 0)
		return NOVA_STEP_DONE;
	return task_program(task, argv, UNPACK_MS, NULL, err);
}

static enum nova_step_result unpack(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;
	const char *archive = task_text(spec_of(task), "rootfs");
	char rootfs[PATH_MAX];
	const char *argv[] = { "tar", "--extract", "--auto-compress", "--numeric-owner", "--preserve-permissions", "--exclude=./dev/*",
		"--exclude=dev/*", "--directory", rootfs, "--file", archive, NULL };

	lxc_file(task->guest, "rootfs", rootfs, sizeof(rootfs));
	if (is_directory(archive))
		return NOVA_STEP_DONE;
	return task_program(task, argv, UNPACK_MS, NULL, err);
}

enum nova_step_result lxc_write_settings(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;
	struct lxc *lxc = task->self;
	const char *given = task_text(spec_of(task), "rootfs");
	char rootfs[PATH_MAX], path[PATH_MAX];
	NOVA_AUTOFREE char *text = NULL;
	NOVA_AUTOCLOSE int fd = -1;

	lxc_file(task->guest, "rootfs", rootfs, sizeof(rootfs));
	lxc_file(task->guest, "config", path, sizeof(path));
	text = lxc_settings(task->guest->name, is_directory(given) ? given : rootfs, spec_of(task), err);
	if (!text)
		return NOVA_STEP_FAILED;
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text)) {
		nova_error_sys(err, errno, "cannot write %s", path);
		return NOVA_STEP_FAILED;
	}
	return lxc_know(lxc, task->guest, err) ? NOVA_STEP_DONE : NOVA_STEP_FAILED;
}

LXC_VERB(create)
{
	static const struct nova_step rows[] = {
		{ "directory", lxc_make_directory, lxc_remove_directory, task_drop_row },
		{ "unpack", unpack, NULL, task_drop_row },
		{ "settings", lxc_write_settings },
		{ NULL },
	};

	return task_new(self, &((struct lxc *)self)->env, guest, args, rows, done, arg, err);
}

/* ---- delete ---- */

static enum nova_step_result forget(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;

	lxc_forget_guest(task->self, task->guest);
	box_move_clear(task->env, task->guest);
	return NOVA_STEP_DONE;
}

/* One that was adopted is LXC's to remove, with what it knows of it. */
static enum nova_step_result destroy(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;
	const char *argv[] = { "lxc-destroy", "-P", lxc_path_of(task->guest), "-n", lxc_name_of(task->guest), "-s", NULL };

	if (json_is_true(json_object_get(task->guest->runtime, "made")) || !*lxc_name_of(task->guest) ||
	    json_is_true(json_object_get(task->args, "created_only")))
		return NOVA_STEP_DONE;
	return task_program(task, argv, UNPACK_MS, NULL, err);
}

LXC_VERB(delete)
{
	static const struct nova_step rows[] = {
		{ "destroy", destroy, NULL, task_drop_row },
		{ "remove", lxc_remove_directory, NULL, task_drop_row },
		{ "forget", forget },
		{ NULL },
	};

	return task_new(self, &((struct lxc *)self)->env, guest, args, rows, done, arg, err);
}

/* ---- start ---- */

/* Otherwise LXC gives it a /dev/null from inside, and a monitor that nobody has to start. */
static bool words_kept(const struct task *task)
{
	return strcmp(task_text(task->guest->spec, "console") ?: "log", "none") != 0;
}

static enum nova_step_result launch(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;
	struct lxc_guest *live = lxc_know(task->self, task->guest, err);
	char console[PATH_MAX], log[PATH_MAX];
	/* What runs inside inherits the umask: the usual one, not the daemon's. */
	const char *argv[COMMAND_WORDS + 16] = { "sh", "-c", "umask 022; exec lxc-start \"$@\"", "lxc-start", words_kept(task) ? "-F" : "-d", "-P",
		lxc_path_of(task->guest), "-n", lxc_name_of(task->guest), "-o", log, "-l", "WARN" };
	struct nova_child_options options = { 0 };
	size_t count = 13, i;
	uint64_t start_time;
	json_t *word;
	pid_t pid;

	lxc_file(task->guest, "console.log", console, sizeof(console));
	lxc_file(task->guest, "lxc.log", log, sizeof(log));
	if (json_array_size(json_object_get(task->guest->spec, "command")))
		argv[count++] = "--";
	json_array_foreach (json_object_get(task->guest->spec, "command"), i, word)
		if (i < COMMAND_WORDS)
			argv[count++] = json_string_value(word);
	lxc_tell(task->guest, NOVA_GUEST_STARTING, "starting");
	if (live && !words_kept(task))
		return task_program(task, argv, START_MS, NULL, err);
	if (!live || nova_child_spawn(argv, &options, console, &pid, &start_time, err) < 0)
		return NOVA_STEP_FAILED;
	return lxc_watch(live, pid, err) < 0 ? NOVA_STEP_FAILED : NOVA_STEP_DONE;
}

static enum nova_step_result killed(struct task *task, json_t *value, struct nova_error *err)
{
	struct lxc_guest *live = task->guest->driver_data;

	if (!live || !live->watch) /* never begun, or over */
		lxc_tell(task->guest, NOVA_GUEST_FAILED, "it could not be started");
	return NOVA_STEP_DONE;
}

/* One that does not come up in time shall not do so later. */
static enum nova_step_result take_down(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;
	const char *argv[] = { "lxc-stop", "-P", lxc_path_of(task->guest), "-n", lxc_name_of(task->guest), "-k", NULL };

	return task_program(task, argv, LXC_COMMAND_MS, killed, err);
}

/* The last line of a file that says something, without control characters. */
static void last_words(const struct nova_guest *guest, const char *file, char *text, size_t size)
{
	char path[PATH_MAX], tail[1024];
	NOVA_AUTOCLOSE int fd = -1;
	ssize_t got;
	off_t end;
	char *line;

	*text = 0;
	if (lxc_file(guest, file, path, sizeof(path)) < 0 || (fd = open(path, O_RDONLY | O_CLOEXEC)) < 0)
		return;
	end = lseek(fd, 0, SEEK_END);
	got = pread(fd, tail, sizeof(tail) - 1, end > (off_t)sizeof(tail) - 1 ? end - (off_t)sizeof(tail) + 1 : 0);
	while (got > 0 && (unsigned char)tail[got - 1] <= ' ')
		got--;
	if (got <= 0)
		return;
	tail[got] = 0;
	line = strrchr(tail, '\n');
	snprintf(text, size, "%.*s", (int)size - 1, line ? line + 1 : tail);
	for (char *at = text; *at; at++)
		if ((unsigned char)*at < ' ' || (unsigned char)*at > 126)
			*at = ' ';
}

static enum nova_step_result is_up(struct task *task, json_t *value, struct nova_error *err)
{
	struct lxc_guest *live = task->guest->driver_data;
	pid_t pid = lxc_info_pid(value);
	char words[300];

	if (pid > 0 && !words_kept(task) && lxc_take_running(task->self, task->guest, value, err) < 0)
		return NOVA_STEP_FAILED;
	if (pid > 0 && live && live->watch) {
		json_object_set_new(task->guest->runtime, "pid", json_integer(pid));
		lxc_tell(task->guest, NOVA_GUEST_RUNNING, "started");
		return nova_guest_save(task->guest, err) < 0 ? NOVA_STEP_FAILED : NOVA_STEP_DONE;
	}
	/* A command that is over already, and all was well. */
	if (live && !live->watch && task->guest->state == NOVA_GUEST_STOPPED)
		return NOVA_STEP_DONE;
	last_words(task->guest, "console.log", words, sizeof(words));
	if (!*words)
		last_words(task->guest, "lxc.log", words, sizeof(words));
	nova_error_set(err, NOVA_REFUSED, "container %s did not start or ended at once: %s", task->guest->name,
	    *words ? words : "it said nothing");
	return NOVA_STEP_FAILED;
}

static enum nova_step_result ask_up(struct nova_run *run, void *ctx, struct nova_error *err)
{
	return lxc_ask_info(ctx, is_up, err);
}

/* ---- until it is up: lxc-wait looks once a second while there is no monitor to tell it ---- */

static enum nova_step_result look_for_it(struct task *task, json_t *value, struct nova_error *err);

static enum nova_step_result seen(struct task *task, json_t *value, struct nova_error *err)
{
	const struct lxc_guest *live = task->guest->driver_data;
	bool over = words_kept(task) && live && !live->watch;

	if (over || lxc_info_state(value) == NOVA_GUEST_RUNNING || nova_now_ms() > json_integer_value(json_object_get(task->notes, "until_ms")))
		return NOVA_STEP_DONE; /* the next row finds out how it is */
	return task_pause(task, LOOK_MS, look_for_it, err);
}

static enum nova_step_result look_for_it(struct task *task, json_t *value, struct nova_error *err)
{
	return lxc_ask_info(task, seen, err);
}

enum nova_step_result lxc_wait_up_row(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;

	json_object_set_new(task->notes, "until_ms", json_integer(nova_now_ms() + UP_MS));
	return look_for_it(task, NULL, err);
}

LXC_VERB(start)
{
	static const struct nova_step rows[] = {
		{ "launch", launch, take_down, task_drop_row },
		{ "wait", lxc_wait_up_row, NULL, task_drop_row },
		{ "look", ask_up, NULL, task_drop_row },
		{ NULL },
	};

	if (json_is_true(json_object_get(args, "paused")))
		return lxc_start_paused(self, guest, args, done, arg, err);
	if (json_array_size(json_object_get(guest->spec, "command")) > COMMAND_WORDS) {
		nova_error_set(err, NOVA_INVALID, "command: at most %d words", COMMAND_WORDS);
		return NULL;
	}
	return task_new(self, &((struct lxc *)self)->env, guest, args, rows, done, arg, err);
}

/* ---- stop ---- */

static enum nova_step_result stopped(struct task *task, json_t *value, struct nova_error *err)
{
	json_int_t status = json_integer_value(json_object_get(value, "status"));

	const json_t *most = json_object_get(task->notes, "most_ms");

	/* 2: it did not run */
	if (status != 0 && status != 2 && nova_child_check("lxc-stop", value, err) < 0)
		return NOVA_STEP_FAILED;
	if (most && nova_now_ms() - json_integer_value(json_object_get(task->notes, "began_ms")) >= json_integer_value(most))
		json_object_set_new(task->result, "forced", json_string("the container did not end in time"));
	lxc_tell(task->guest, NOVA_GUEST_STOPPED, "stopped");
	return NOVA_STEP_DONE;
}

static enum nova_step_result halt(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;
	struct lxc_guest *live = task->guest->driver_data;
	const json_t *timeout = json_object_get(task->args, "timeout");
	long long ms = timeout ? json_integer_value(timeout) : STOP_MS;
	char seconds[24];
	const char *kindly[] = { "lxc-stop", "-P", lxc_path_of(task->guest), "-n", lxc_name_of(task->guest), "-t", seconds, NULL };
	const char *at_once[] = { "lxc-stop", "-P", lxc_path_of(task->guest), "-n", lxc_name_of(task->guest), "-k", NULL };
	bool force = json_is_true(json_object_get(task->args, "force"));

	if (!*lxc_name_of(task->guest))
		return NOVA_STEP_DONE;
	if (live)
		live->stopping = true;
	if (!force)
		json_object_set_new(task->notes, "most_ms", json_integer(ms));
	json_object_set_new(task->notes, "began_ms", json_integer(nova_now_ms()));
	snprintf(seconds, sizeof(seconds), "%lld", (ms + 999) / 1000);
	return task_program(task, force ? at_once : kindly, (int)ms + LXC_COMMAND_MS, stopped, err);
}

static enum nova_step_result thawed(struct task *task, json_t *value, struct nova_error *err)
{
	return NOVA_STEP_DONE; /* what matters is that it stops */
}

static enum nova_step_result thaw(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;
	const char *argv[] = { "lxc-unfreeze", "-P", lxc_path_of(task->guest), "-n", lxc_name_of(task->guest), NULL };

	return task->guest->state == NOVA_GUEST_PAUSED ? task_program(task, argv, LXC_COMMAND_MS, thawed, err) : NOVA_STEP_DONE;
}

LXC_VERB(stop)
{
	static const struct nova_step rows[] = {
		{ "unfreeze", thaw, NULL, task_drop_row },
		{ "stop", halt, NULL, task_drop_row },
		{ NULL },
	};

	return task_new(self, &((struct lxc *)self)->env, guest, args, rows, done, arg, err);
}

/* ---- pause, resume ---- */

static enum nova_step_result freeze(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;
	const char *argv[] = { "lxc-freeze", "-P", lxc_path_of(task->guest), "-n", lxc_name_of(task->guest), NULL };

	return task_program(task, argv, LXC_COMMAND_MS, NULL, err);
}

static enum nova_step_result unfreeze(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;
	const char *argv[] = { "lxc-unfreeze", "-P", lxc_path_of(task->guest), "-n", lxc_name_of(task->guest), NULL };

	return task_program(task, argv, LXC_COMMAND_MS, NULL, err);
}

static enum nova_step_result tell_paused(struct nova_run *run, void *ctx, struct nova_error *err)
{
	lxc_tell(((struct task *)ctx)->guest, NOVA_GUEST_PAUSED, "frozen");
	return NOVA_STEP_DONE;
}

static enum nova_step_result tell_running(struct nova_run *run, void *ctx, struct nova_error *err)
{
	lxc_tell(((struct task *)ctx)->guest, NOVA_GUEST_RUNNING, "unfrozen");
	return NOVA_STEP_DONE;
}

LXC_VERB(pause)
{
	static const struct nova_step rows[] = {
		{ "freeze", freeze, NULL, task_drop_row },
		{ "tell", tell_paused },
		{ NULL },
	};

	return task_new(self, &((struct lxc *)self)->env, guest, args, rows, done, arg, err);
}

LXC_VERB(resume)
{
	static const struct nova_step rows[] = {
		{ "unfreeze", unfreeze, NULL, task_drop_row },
		{ "tell", tell_running },
		{ NULL },
	};

	return task_new(self, &((struct lxc *)self)->env, guest, args, rows, done, arg, err);
}
