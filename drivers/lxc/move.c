/* SPDX-License-Identifier: Apache-2.0
 *
 * move.c - a container from one host's LXC to another's: its root file system as a parcel (drivers/common/parcel.h).
 *
 * What travels is files, never a configuration: the destination writes that anew from the specification, which it has checked
 * by its own rules. Files that other containers of the same owner have there, at the same path, are not sent. With its
 * processes: warm.c.
 */
#include "drivers/lxc/lxc.h"

#include <stdio.h>
#include <string.h>

const char *lxc_no_move(const struct lxc *lxc, const char *mode)
{
	if (!strcmp(mode, "cold"))
		return NULL;
	return !strcmp(mode, "warm") ? lxc_no_checkpoint() : box_no_live();
}

static bool is_warm(const json_t *args)
{
	return !strcmp(task_text(args, "mode") ?: "cold", "warm");
}

/* ---- the source ---- */

static int check_movable(const struct lxc *lxc, const struct nova_guest *guest, const char *mode, struct nova_error *err)
{
	const json_t *unknown = json_object_get(json_object_get(guest->spec, "adopted"), "unknown");
	const char *why = strcmp(mode, "cold") ? lxc_no_move(lxc, "warm") : NULL;

	if (json_array_size(unknown))
		return nova_error_set(err, NOVA_REFUSED, "guest %s was adopted, and the destination could not make it the same: %.200s",
		    guest->name, json_string_value(json_array_get(unknown, 0)) ?: "");
	if (guest->state == NOVA_GUEST_PAUSED)
		return nova_error_set(err, NOVA_STATE, "guest %s is paused: a container moves when it runs, or is stopped", guest->name);
	if (strcmp(mode, "cold") && !why && strcmp(task_text(guest->spec, "console") ?: "log", "none"))
		why = "its console is a file of this host: it would have to be created with --console none";
	if (why)
		return nova_error_set(err, NOVA_REFUSED, "lxc: a container does not move %s here: %s; --mode cold stops it and starts it there",
		    mode, why);
	return 0;
}

LXC_VERB(out_prepare)
{
	struct lxc *lxc = self;
	const char *mode = task_text(args, "mode") ?: "cold";
	json_t *spec, *answer;

	if (check_movable(lxc, guest, mode, err) < 0)
		return NULL;
	spec = json_deep_copy(guest->spec);
	json_object_del(spec, "adopted");
	json_object_set_new(spec, "rootfs", json_string(LXC_CARRIED));
	answer = json_pack("{s:O, s:s, s:{s:s}, s:o, s:o, s:s}", "memory_bytes", json_object_get(spec, "memory"), "state",
	    nova_guest_state_name(guest->state), "contents", "parts", "rootfs", "lost", box_move_lost(spec, strcmp(mode, "cold") != 0), "spec",
	    spec, "mode", strcmp(mode, "cold") ? "warm" : "cold");
	if (!strcmp(mode, "live"))
		json_object_set_new(answer, "mode_why", json_string(box_no_live()));
	return nova_op_later(lxc->env.base, answer, NULL, done, arg, err);
}

static enum nova_step_result checkpoint_directory(struct nova_run *run, void *ctx, struct nova_error *err)
{
	return is_warm(((struct task *)ctx)->args) ? lxc_make_checkpoint_directory(run, ctx, err) : NOVA_STEP_DONE;
}

static enum nova_step_result checkpoint(struct nova_run *run, void *ctx, struct nova_error *err)
{
	return is_warm(((struct task *)ctx)->args) ? lxc_take_checkpoint(run, ctx, err) : NOVA_STEP_DONE;
}

static enum nova_step_result go(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;
	struct lxc *lxc = task->self;
	struct lxc_guest *live = task->guest->driver_data;
	char rootfs[PATH_MAX], images[PATH_MAX];
	const struct parcel_part parts[] = { { .name = "rootfs", .path = rootfs, .hollow = "dev" },
		{ .name = "checkpoint", .path = images } };

	if (lxc_rootfs(task->guest, rootfs, sizeof(rootfs)) < 0 || lxc_file(task->guest, "checkpoint", images, sizeof(images)) < 0) {
		nova_error_set(err, NOVA_INVALID, "lxc: the path of guest %s is too long", task->guest->name);
		return NOVA_STEP_FAILED;
	}
	box_move_free(live->move);
	live->move = box_move_out(
	    &lxc->env, task->guest, task_text(task->args, "path") ?: "", parts, is_warm(task->args) ? 2 : 1, err);
	return live->move ? NOVA_STEP_DONE : NOVA_STEP_FAILED;
}

/* What is left by a failure, OUT_CANCEL takes away. */
LXC_VERB(out_start)
{
	static const struct nova_step rows[] = {
		{ "directory", checkpoint_directory },
		{ "checkpoint", checkpoint, NULL, task_drop_row },
		{ "send", go },
		{ NULL },
	};

	return lxc_know(self, guest, err) ? task_new(self, &((struct lxc *)self)->env, guest, args, rows, done, arg, err) : NULL;
}

LXC_VERB(out_query)
{
	const struct lxc_guest *live = guest->driver_data;

	return nova_op_later(((struct lxc *)self)->env.base, box_move_query(live ? live->move : NULL), NULL, done, arg, err);
}

/* ---- the destination ---- */

/* Root file systems of the owner's other containers. */
static json_t *seeds_for(const struct lxc *lxc, const struct nova_guest *guest)
{
	json_t *seeds = json_array();
	char path[PATH_MAX];

	for (const struct lxc_guest *live = lxc->guests; live; live = live->next)
		if (live->guest != guest && !strcmp(live->guest->owner, guest->owner) && live->guest->state != NOVA_GUEST_INCOMING &&
		    lxc_rootfs(live->guest, path, sizeof(path)) == 0)
			json_array_append_new(seeds, json_string(path));
	return seeds;
}

static void landed(void *arg)
{
	box_move_arrived(((struct lxc_guest *)arg)->move, NULL);
}

static enum nova_step_result wait_for_parcel(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;
	struct lxc *lxc = task->self;
	struct lxc_guest *live = task->guest->driver_data;
	NOVA_AUTOJSON json_t *seeds = seeds_for(lxc, task->guest);
	char rootfs[PATH_MAX], images[PATH_MAX];
	const struct parcel_part parts[] = { { .name = "rootfs", .path = rootfs, .seeds = seeds },
		{ .name = "checkpoint", .path = images } };

	lxc_file(task->guest, "rootfs", rootfs, sizeof(rootfs));
	lxc_file(task->guest, "checkpoint", images, sizeof(images));
	box_move_free(live->move);
	live->move = box_move_in(&lxc->env, task->guest, parts, is_warm(task->args) ? 2 : 1, landed, live, err);
	if (!live->move)
		return NOVA_STEP_FAILED;
	json_object_set_new(task->result, "path", json_string(box_move_path(live->move)));
	return NOVA_STEP_DONE;
}

LXC_VERB(in_prepare)
{
	static const struct nova_step rows[] = {
		{ "directory", lxc_make_directory, lxc_remove_directory, task_drop_row },
		{ "settings", lxc_write_settings },
		{ "checkpoint", checkpoint_directory },
		{ "listen", wait_for_parcel },
		{ NULL },
	};

	if (is_warm(args) && box_checkpoints_refused(&((struct lxc *)self)->env, err) < 0)
		return NULL;
	return task_new(self, &((struct lxc *)self)->env, guest, args, rows, done, arg, err);
}
