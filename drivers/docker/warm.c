/* SPDX-License-Identifier: Apache-2.0
 *
 * warm.c - a container that moves with its processes: CRIU, through the engine, writes them down at the source, where that
 * ends them, and brings them to life at the destination, where they are paused at once.
 *
 * The checkpoint is called CHECKPOINT and lies in the container's own directory below the engine's root, which is where the
 * engine wants it: from there it is sent, there it is put. Between the engine's word that the container runs and its pause
 * it runs for some milliseconds at the destination, before anything is decided; when the move is taken back after that, these
 * are lost, and it goes on at the source from the checkpoint. Not here: rounds before the checkpoint (the engine has none).
 */
#include "drivers/docker/docker.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define CHECKPOINT "novacron-move"
#define CHECKPOINT_MS (10 * 60 * 1000)
#define RESTORE_MS 35000
#define VERSION_ROW { "version", docker_version_row, NULL, task_drop_row }

/* ---- where the engine has it ---- */

static enum nova_step_result root_told(struct task *task, json_t *value, struct nova_error *err)
{
	const char *root = task_text(json_object_get(value, "body"), "DockerRootDir");

	if (!root || *root != '/') {
		nova_error_set(err, NOVA_REFUSED, "docker: it does not say where its files are");
		return NOVA_STEP_FAILED;
	}
	json_object_set_new(task->notes, "root", json_string(root));
	return NOVA_STEP_DONE;
}

enum nova_step_result docker_ask_root(struct nova_run *run, void *ctx, struct nova_error *err)
{
	if (!docker_is_warm(ctx))
		return NOVA_STEP_DONE;
	return docker_ask(ctx, "GET", NULL, 0, root_told, err, "/info");
}

static int checkpoint_path(const struct task *task, const char *name, char *path, size_t size)
{
	int length = snprintf(path, size, "%s/containers/%s/checkpoints%s%s", task_text(task->notes, "root") ?: "",
	    docker_id(task->guest), *name ? "/" : "", name);

	return length > 0 && (size_t)length < size ? 0 : -1;
}

bool docker_is_warm(const struct task *task)
{
	return json_is_true(json_object_get(task->notes, "warm")) || !strcmp(task_text(task->args, "mode") ?: "", "warm");
}

/* ---- the source ---- */

/* Its end is no failure. On record before it comes. */
enum nova_step_result docker_take_checkpoint(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;
	struct docker_guest *known = task->guest->driver_data;
	NOVA_AUTOJSON json_t *body = json_pack("{s:s, s:b}", "CheckpointID", CHECKPOINT, "Exit", 1);
	struct http_call call = { .method = "POST", .body = body, .limit_ms = CHECKPOINT_MS };

	if (!docker_is_warm(task))
		return NOVA_STEP_DONE;
	known->signalled = true;
	json_object_set_new(task->guest->runtime, "checkpoint", json_true());
	if (nova_guest_save(task->guest, err) < 0)
		return NOVA_STEP_FAILED;
	return docker_call(task, &call, NULL, err, "/containers/%s/checkpoints", docker_id(task->guest));
}

int docker_checkpoint_part(const struct task *task, char *path, size_t size)
{
	return docker_is_warm(task) ? checkpoint_path(task, CHECKPOINT, path, size) :
				      docker_stage(task->self, task->guest, "checkpoint", path, size);
}

/* ---- it goes on at the source ---- */

static bool had_checkpoint(const struct task *task)
{
	return json_is_true(json_object_get(task->guest->runtime, "checkpoint"));
}

static enum nova_step_result running_told(struct task *task, json_t *value, struct nova_error *err)
{
	json_t *state = json_object_get(json_object_get(value, "body"), "State");

	json_object_set(task->notes, "running", json_object_get(state, "Running"));
	return NOVA_STEP_DONE;
}

static enum nova_step_result is_running(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;

	if (!had_checkpoint(task))
		return NOVA_STEP_DONE;
	return docker_ask(task, "GET", NULL, 0, running_told, err, "/containers/%s/json", docker_id(task->guest));
}

static bool is_to_run(const struct task *task)
{
	return had_checkpoint(task) && json_is_true(json_object_get(task->args, "resume")) &&
	       !json_is_true(json_object_get(task->notes, "running"));
}

/* A checkpoint that cannot be restored here either: it is started anew, which is what there is. */
static void went_on(void *arg, json_t *result, const struct nova_error *err)
{
	struct task *task = arg;

	if (err && err->category != NOVA_LINK) {
		driver_log(task->env, NOVA_LOG_WARNING, "docker: guest %s does not go on from its checkpoint and is started anew: %s",
		    task->guest->name, err->text);
		json_object_set_new(task->notes, "anew", json_true());
		task_done(task, NULL, NULL);
		return;
	}
	task_done(task, result, err);
}

static enum nova_step_result go_on(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;
	struct docker *docker = task->self;
	struct docker_guest *known = task->guest->driver_data;
	struct http_call call = { .method = "POST", .limit_ms = CHECKPOINT_MS };
	char path[256];

	if (!is_to_run(task))
		return NOVA_STEP_DONE;
	if (known)
		known->signalled = false;
	docker_path(docker, path, sizeof(path), "/containers/%s/start?checkpoint=%s", docker_id(task->guest), CHECKPOINT);
	call.path = path;
	return task_wait(task, http_start(docker->http, &call, went_on, task, err), NULL);
}

static enum nova_step_result start_anew(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;

	if (!json_is_true(json_object_get(task->notes, "anew")))
		return NOVA_STEP_DONE;
	return docker_ask(task, "POST", NULL, 0, NULL, err, "/containers/%s/start", docker_id(task->guest));
}

static enum nova_step_result taken_state(struct task *task, json_t *value, struct nova_error *err)
{
	docker_take_state(task->self, task->guest, json_object_get(value, "body"), "it stays here");
	return NOVA_STEP_DONE;
}

static enum nova_step_result look(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;

	if (!had_checkpoint(task))
		return NOVA_STEP_DONE;
	return docker_ask(task, "GET", NULL, 0, taken_state, err, "/containers/%s/json", docker_id(task->guest));
}

/* Gone, or never there: as good. */
static void dropped(void *arg, json_t *result, const struct nova_error *err)
{
	bool fine = !err || err->category != NOVA_LINK;

	task_done(arg, fine ? result : NULL, fine ? NULL : err);
}

static enum nova_step_result no_checkpoint(struct task *task, json_t *value, struct nova_error *err)
{
	json_object_del(task->guest->runtime, "checkpoint");
	return nova_guest_save(task->guest, err) < 0 ? NOVA_STEP_FAILED : NOVA_STEP_DONE;
}

static enum nova_step_result drop_checkpoint(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;
	struct docker *docker = task->self;
	struct http_call call = { .method = "DELETE", .limit_ms = DOCKER_ASK_MS };
	char path[256];

	if (!had_checkpoint(task))
		return NOVA_STEP_DONE;
	docker_path(docker, path, sizeof(path), "/containers/%s/checkpoints/%s", docker_id(task->guest), CHECKPOINT);
	call.path = path;
	return task_wait(task, http_start(docker->http, &call, dropped, task, err), no_checkpoint);
}

static enum nova_step_result tell_stopped(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct nova_guest *guest = ((struct task *)ctx)->guest;

	if (guest->state == NOVA_GUEST_MIGRATED || guest->state == NOVA_GUEST_IN_DOUBT)
		nova_guest_set_state(guest, NOVA_GUEST_STOPPED, "it stays here");
	return nova_guest_save(guest, err) < 0 ? NOVA_STEP_FAILED : NOVA_STEP_DONE;
}

/* After a restart, too, with nothing but the record. */
DOCKER_VERB(out_cancel)
{
	static const struct nova_step rows[] = {
		{ "stop", docker_stop_moving },
		{ "clear", docker_stage_clear, NULL, task_drop_row },
		VERSION_ROW,
		{ "images", docker_keep_images, NULL, task_drop_row },
		{ "running?", is_running, NULL, task_drop_row },
		{ "restore", go_on, NULL, task_drop_row },
		{ "start", start_anew, NULL, task_drop_row },
		{ "look", look, NULL, task_drop_row },
		{ "checkpoint", drop_checkpoint, NULL, task_drop_row },
		{ "tell", tell_stopped },
		{ NULL },
	};

	return task_new(self, &((struct docker *)self)->env, guest, args, rows, done, arg, err);
}

/* ---- the destination ---- */

/* The part's directory becomes the container's checkpoint. */
static enum nova_step_result move_it(struct task *task, struct nova_error *err)
{
	char from[PATH_MAX], to[PATH_MAX];
	const char *argv[] = { "mv", "-T", "--", from, to, NULL };

	docker_stage(task->self, task->guest, "checkpoint", from, sizeof(from));
	if (checkpoint_path(task, "", to, sizeof(to)) < 0 || (mkdir(to, 0700) < 0 && access(to, F_OK) < 0)) {
		nova_error_set(err, NOVA_REFUSED, "docker: the directory of container %s cannot be written", task->guest->name);
		return NOVA_STEP_FAILED;
	}
	checkpoint_path(task, CHECKPOINT, to, sizeof(to));
	return task_program(task, argv, DOCKER_IMAGE_MS, NULL, err);
}

enum nova_step_result docker_place_checkpoint(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;

	if (!docker_is_warm(task))
		return NOVA_STEP_DONE;
	json_object_set_new(task->guest->runtime, "checkpoint", json_true());
	if (nova_guest_save(task->guest, err) < 0)
		return NOVA_STEP_FAILED;
	return move_it(task, err);
}

static enum nova_step_result restore(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;
	struct http_call call = { .method = "POST", .limit_ms = RESTORE_MS };

	return docker_call(task, &call, NULL, err, "/containers/%s/start?checkpoint=%s", docker_id(task->guest), CHECKPOINT);
}

static enum nova_step_result hold(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;

	return docker_ask(task, "POST", NULL, 0, NULL, err, "/containers/%s/pause", docker_id(task->guest));
}

struct nova_op *docker_start_paused(void *self, struct nova_guest *guest, json_t *args, nova_done_fn done, void *arg,
    struct nova_error *err)
{
	static const struct nova_step rows[] = {
		VERSION_ROW,
		{ "restore", restore, NULL, task_drop_row },
		{ "pause", hold, NULL, task_drop_row },
		{ "look", look, NULL, task_drop_row },
		{ "checkpoint", drop_checkpoint, NULL, task_drop_row },
		{ NULL },
	};

	if (!json_is_true(json_object_get(guest->runtime, "checkpoint"))) {
		nova_error_set(err, NOVA_REFUSED, "not supported by docker: a container cannot be started paused");
		return NULL;
	}
	return task_new(self, &((struct docker *)self)->env, guest, args, rows, done, arg, err);
}
