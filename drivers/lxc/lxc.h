/* SPDX-License-Identifier: Apache-2.0
 *
 * lxc.h - what the files of the LXC driver share.
 *
 *   lxc.c        opening, closing, the table of verbs, PROBE, CHECK, CAPABILITIES
 *   settings.c   a specification as LXC's configuration file
 *   lifecycle.c  CREATE, START, STOP, PAUSE, RESUME, DELETE
 *   move.c       MIGRATE-OUT..., MIGRATE-IN
 *   warm.c       processes that move along, MIGRATE-OUT-CANCEL
 *   snapshot.c   SNAPSHOT, RESTORE
 *   watch.c      a container's processes: its end, and whether it is frozen
 *   list.c       LIST, ADOPT, REATTACH, STATS, LOGS
 *
 * LXC's own commands do the work, in child processes. guest->runtime holds: path (lxcpath), container (its
 * name there), made (we made its directory), pid (of its first process), snapshots {name: LXC's name},
 * checkpoint (there is one of its processes, in PATH/NAME/checkpoint).
 * Files of a container of ours: PATH/NAME/{config, rootfs, console.log, lxc.log}.
 */
#ifndef NOVA_DRIVER_LXC_H
#define NOVA_DRIVER_LXC_H

#include "drivers/common/box.h"
#include "drivers/common/box_move.h"
#include "drivers/common/cgroup.h"
#include "drivers/common/task.h"
#include "engine/child.h"
#include "engine/cleanup.h"

#define LXC_COMMAND_MS 30000
#define LXC_CARRIED "carried" /* rootfs of a guest that came from another host: its own directory */

struct lxc;

struct lxc_guest {
	struct lxc *lxc;           /* borrowed */
	struct nova_guest *guest;  /* borrowed */
	struct nova_process *watch; /* owned: of the monitor, LXC's process beside the container's first; NULL: not up */
	struct lxc_guest *next;
	bool stopping;             /* somebody asked for its end */
	struct box_move *move;     /* owned; NULL: it is not moving */
};

struct lxc {
	struct nova_driver_env env;
	char *state_dir; /* owned: env's */
	char *path;      /* owned: where containers are (lxcpath) */
	json_t *roots;   /* owned */
	struct lxc_guest *guests;
	struct event *look; /* owned: the next look at who is frozen */
};

extern const struct nova_param lxc_spec_params[];

/* ---- settings.c ---- */

/* The text of LXC's configuration file; free() it. NULL and the reason. */
char *lxc_settings(const char *name, const char *rootfs, const json_t *spec, struct nova_error *err);
/* What LXC's file cannot hold. */
int lxc_settings_check(const json_t *spec, struct nova_error *err);

/* ---- watch.c ---- */

struct lxc_guest *lxc_know(struct lxc *lxc, struct nova_guest *guest, struct nova_error *err);
void lxc_forget_guest(struct lxc *lxc, struct nova_guest *guest);
/* Its monitor, so that its end is seen. */
int lxc_watch(struct lxc_guest *live, pid_t monitor, struct nova_error *err);
/* Who made this process; 0: it is gone. */
pid_t lxc_parent(pid_t pid);
/* The pid in lxc-info's answer; 0: it does not run. */
pid_t lxc_info_pid(const json_t *answer);
/* The state that lxc-info's answer shows. */
enum nova_guest_state lxc_info_state(const json_t *answer);
/* For rows: ask LXC for state and pid of the guest's container. */
enum nova_step_result lxc_ask_info(struct task *task, task_reply_fn reply, struct nova_error *err);
/* A row: until it is up, or its command over, or 5 s. */
enum nova_step_result lxc_wait_up_row(struct nova_run *run, void *ctx, struct nova_error *err);
const char *lxc_path_of(const struct nova_guest *guest);
const char *lxc_name_of(const struct nova_guest *guest);
/* A file in the container's directory. */
int lxc_file(const struct nova_guest *guest, const char *file, char *path, size_t size);
void lxc_tell(struct nova_guest *guest, enum nova_guest_state state, const char *why);

/* ---- lifecycle.c: rows that make a guest's directory, and its configuration in it ---- */

enum nova_step_result lxc_make_directory(struct nova_run *run, void *task, struct nova_error *err);
enum nova_step_result lxc_remove_directory(struct nova_run *run, void *task, struct nova_error *err);
enum nova_step_result lxc_write_settings(struct nova_run *run, void *task, struct nova_error *err);
/* Where its root file system is; -1: too long. */
int lxc_rootfs(const struct nova_guest *guest, char *path, size_t size);

/* ---- list.c ---- */

/* lxc-info's answer about a container that runs: its pid is recorded, its end will be seen. Its state is not told. */
int lxc_take_running(struct lxc *lxc, struct nova_guest *guest, const json_t *info, struct nova_error *err);

/* ---- lxc.c ---- */

bool lxc_in_path(const char *program);

/* ---- warm.c ---- */

/* Why no container's processes can be written down here; NULL: they can. */
const char *lxc_no_checkpoint(void);
bool lxc_had_checkpoint(const struct nova_guest *guest);
/* Rows. */
enum nova_step_result lxc_make_checkpoint_directory(struct nova_run *run, void *task, struct nova_error *err);
enum nova_step_result lxc_take_checkpoint(struct nova_run *run, void *task, struct nova_error *err);
enum nova_step_result lxc_remove_checkpoint(struct nova_run *run, void *task, struct nova_error *err);
/* START of a container with a checkpoint: its processes are restored, and not one of them runs. */
struct nova_op *lxc_start_paused(void *self, struct nova_guest *guest, json_t *args, nova_done_fn done, void *arg,
    struct nova_error *err);

/* ---- move.c ---- */

/* Why a container does not move in this mode; NULL: it does. */
const char *lxc_no_move(const struct lxc *lxc, const char *mode);

/* ---- verbs ---- */

#define LXC_VERB(name) \
	struct nova_op *lxc_##name(void *self, struct nova_guest *guest, json_t *args, nova_done_fn done, void *arg, \
	    struct nova_error *err)
LXC_VERB(probe);
LXC_VERB(capabilities);
LXC_VERB(check);
LXC_VERB(create);
LXC_VERB(start);
LXC_VERB(stop);
LXC_VERB(delete);
LXC_VERB(pause);
LXC_VERB(resume);
LXC_VERB(snapshot);
LXC_VERB(restore);
LXC_VERB(list);
LXC_VERB(adopt);
LXC_VERB(reattach);
LXC_VERB(stats);
LXC_VERB(logs);
LXC_VERB(out_prepare);
LXC_VERB(out_start);
LXC_VERB(out_query);
LXC_VERB(out_cancel);
LXC_VERB(in_prepare);

#endif
