/* SPDX-License-Identifier: Apache-2.0
 *
 * docker.h - what the files of the Docker driver share.
 *
 *   docker.c     opening, closing, the table of verbs
 *   engine.c     asking the Engine API: version, paths, containers by id
 *   spec.c       a specification as the engine's JSON, and back
 *   lifecycle.c  CREATE, START, STOP, PAUSE, RESUME, DELETE, RESIZE
 *   checkpoint.c SNAPSHOT, RESTORE
 *   move.c       MIGRATE-OUT...
 *   warm.c       processes that move along, MIGRATE-OUT-CANCEL
 *   arrive.c     MIGRATE-IN
 *   stage.c      images as files, on their way
 *   watch.c      the engine's events: what happens to our containers, whoever does it
 *   list.c       LIST, ADOPT, REATTACH
 *   probe.c      PROBE, CAPABILITIES, CHECK
 *   output.c     LOGS, STATS
 *   image.c      IMPORT, EXPORT
 *   logs.c       the framing of a container's output
 *
 * A container is called as its guest, and labelled novacron.uuid. guest->runtime holds: id (the engine's),
 * pid, started_at; of one that came from another host: image, base (ids), loaded (ids that came with it); of one that
 * leaves: moving (there is an image novacron-moving:UUID); of either: checkpoint (there is one, of its processes).
 */
#ifndef NOVA_DRIVER_DOCKER_H
#define NOVA_DRIVER_DOCKER_H

#include "drivers/common/box.h"
#include "drivers/common/box_move.h"
#include "drivers/common/http.h"
#include "drivers/common/json_stream.h"
#include "drivers/common/task.h"
#include "engine/cleanup.h"

#include <limits.h>

#define DOCKER_API_LEAST 30 /* 1.30: the oldest we speak */
#define DOCKER_API_MOST 43  /* 1.43: the newest that we know */
#define DOCKER_ASK_MS 30000 /* for what the engine does at once */
#define DOCKER_IMAGE_MS (30 * 60 * 1000) /* for what goes over a whole image */
#define DOCKER_LAYERS_MAX 125 /* overlay2 takes 128 with what is mounted on top */

struct docker_guest {
	struct nova_guest *guest;  /* borrowed */
	struct docker_guest *next;
	bool signalled;            /* somebody sent it a signal: its end is no failure */
	bool deleting;             /* by us */
	struct box_move *move;     /* owned; NULL: it is not moving */
	struct docker *docker;     /* borrowed; set while it arrives, as are the next two */
	struct nova_op *landing;   /* owned: its images are loaded */
	json_t *images;            /* owned: ids of images that were here before */
	bool warm;                 /* a checkpoint comes with it */
	bool released;             /* it arrived, and is let run */
};

struct docker {
	struct nova_driver_env env;
	char *state_dir;             /* owned: env's */
	json_t *roots;               /* owned */
	struct http *http;           /* owned */
	int api;                     /* 41: version 1.41 was agreed on; 0: not asked yet */
	struct docker_guest *guests; /* owned */
	struct docker_watch *watch;  /* owned: NULL until there are guests */
};

extern const struct nova_param docker_spec_params[];

/* ---- engine.c ---- */

/* The first row of every verb: agrees on a version, unless that was done. */
enum nova_step_result docker_version_row(struct nova_run *run, void *task, struct nova_error *err);
/* The version out of the answer to /version, or -1. */
int docker_agree(struct docker *docker, const json_t *answer, struct nova_error *err);
/* A row for what must not be left undone: waits ENGINE_MS for an engine that went away to come back. */
enum nova_step_result docker_patient_row(struct nova_run *run, void *task, struct nova_error *err);
/* Ask; format makes the path after /v1.N. body is stolen. tolerated: see http.h. */
enum nova_step_result docker_ask(struct task *task, const char *method, json_t *body, int tolerated,
    task_reply_fn reply, struct nova_error *err, const char *format, ...) __attribute__((format(printf, 7, 8)));
/* The same with all that http.h offers; call's path is made here. */
enum nova_step_result docker_call(struct task *task, struct http_call *call, task_reply_fn reply,
    struct nova_error *err, const char *format, ...) __attribute__((format(printf, 5, 6)));
int docker_path(const struct docker *docker, char *path, size_t size, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
/* The guest's container; "" if none is known. */
const char *docker_id(const struct nova_guest *guest);
/* Only hex digits may become part of a path. */
bool docker_is_id(const char *text);
int docker_status(const json_t *answer);

/* ---- spec.c ---- */

json_t *docker_create_body(const struct nova_guest *guest, const json_t *spec);
/* What a container's inspection says, as a specification; what it says beyond that is appended to unknown. */
json_t *docker_spec_of(const json_t *inspected, json_t *unknown);

/* ---- lifecycle.c, image.c ---- */

/* A row: the container, from the specification; with runtime.image instead of its image. */
enum nova_step_result docker_make(struct nova_run *run, void *task, struct nova_error *err);
/* The engine's answer to an image that was sent. */
enum nova_step_result docker_imported(struct task *task, json_t *value, struct nova_error *err);

/* ---- stage.c, move.c ---- */

struct docker_arrival {
	char image[80], base[80]; /* ids */
	json_t *loaded;           /* ids of images that are to be loaded */
	json_t *files;            /* of which the archive is made, beside manifest.json */
};

/* STATE/moving/UUID/sub; -1: too long. */
int docker_stage(const struct docker *docker, const struct nova_guest *guest, const char *sub, char *path, size_t size);
enum nova_step_result docker_stage_clear(struct nova_run *run, void *task, struct nova_error *err);
enum nova_step_result docker_stage_make(struct nova_run *run, void *task, struct nova_error *err);
const json_t *docker_diff_ids(const json_t *config);
/* The engine's archive, unpacked in raw, becomes what is in image. */
int docker_stage_arrange(const struct docker *docker, const struct nova_guest *guest, const char *image, const char *base,
    struct nova_error *err);
/* What came becomes what the engine can load; here: ids of images that it has. */
int docker_stage_assemble(const struct docker *docker, const struct nova_guest *guest, const json_t *here,
    struct docker_arrival *arrival, struct nova_error *err);
/* A row: images that are there only because of a move; with args.created_only all that came with the guest. */
enum nova_step_result docker_drop_images(struct nova_run *run, void *task, struct nova_error *err);
/* A row: whatever is under way of a move ends. */
enum nova_step_result docker_stop_moving(struct nova_run *run, void *task, struct nova_error *err);
/* The same, for one that stays after all: the image that it is made of is kept. */
enum nova_step_result docker_keep_images(struct nova_run *run, void *task, struct nova_error *err);
/* Why a container does not move in this mode, by the engine's /info; NULL: it does. */
const char *docker_no_move(const char *mode, const json_t *info);
const char *docker_no_checkpoint(const json_t *info);

/* ---- warm.c ---- */

/* A task's mode, or its notes (warm), say so. */
bool docker_is_warm(const struct task *task);
/* Rows of MIGRATE-OUT: where the engine's files are; the checkpoint, which ends the container. */
enum nova_step_result docker_ask_root(struct nova_run *run, void *task, struct nova_error *err);
enum nova_step_result docker_take_checkpoint(struct nova_run *run, void *task, struct nova_error *err);
/* The directory that is the part "checkpoint" of what leaves; empty in a cold move. */
int docker_checkpoint_part(const struct task *task, char *path, size_t size);
/* A row of what arrives: the checkpoint into the container's directory. */
enum nova_step_result docker_place_checkpoint(struct nova_run *run, void *task, struct nova_error *err);
/* START of a container with a checkpoint: its processes are restored, and paused. */
struct nova_op *docker_start_paused(void *self, struct nova_guest *guest, json_t *args, nova_done_fn done, void *arg,
    struct nova_error *err);

/* ---- watch.c ---- */

/* Know a guest's container from now on. */
int docker_know(struct docker *docker, struct nova_guest *guest, struct nova_error *err);
void docker_forget(struct docker *docker, struct nova_guest *guest);
void docker_watch_free(struct docker_watch *watch);
/* The state that an inspection shows is the guest's; its pid is recorded. */
enum nova_guest_state docker_state_of(const json_t *inspected);
void docker_take_state(struct docker *docker, struct nova_guest *guest, const json_t *inspected, const char *why);
/* What one event means for a guest; exposed for tests. */
void docker_event(struct docker *docker, json_t *event);

/* ---- logs.c: {stream, 0, 0, 0, length as 4 bytes big-endian} and so many bytes, again and again ---- */

#define DOCKER_FRAME_MAX (16u << 20)
#define DOCKER_LOG_MAX (256u << 10) /* bytes that are kept: the last ones */

struct docker_frames {
	unsigned char head[8];
	unsigned have;     /* bytes of head */
	uint32_t left;     /* bytes of this frame still to come */
	char *text;        /* owned: what was said, both streams as they came */
	size_t used;
	bool raw;          /* the first bytes are no frame: the container has a terminal */
	bool begun, cut;
};
int docker_frames_feed(struct docker_frames *frames, const void *bytes, size_t length, struct nova_error *err);
void docker_frames_release(struct docker_frames *frames);

/* ---- verbs ---- */

#define DOCKER_VERB(name) \
	struct nova_op *docker_##name(void *self, struct nova_guest *guest, json_t *args, nova_done_fn done, \
	    void *arg, struct nova_error *err)
DOCKER_VERB(probe);
DOCKER_VERB(capabilities);
DOCKER_VERB(check);
DOCKER_VERB(create);
DOCKER_VERB(start);
DOCKER_VERB(stop);
DOCKER_VERB(delete);
DOCKER_VERB(pause);
DOCKER_VERB(resume);
DOCKER_VERB(resize);
DOCKER_VERB(snapshot);
DOCKER_VERB(restore);
DOCKER_VERB(list);
DOCKER_VERB(adopt);
DOCKER_VERB(reattach);
DOCKER_VERB(stats);
DOCKER_VERB(logs);
DOCKER_VERB(import);
DOCKER_VERB(export);
DOCKER_VERB(out_prepare);
DOCKER_VERB(out_start);
DOCKER_VERB(out_query);
DOCKER_VERB(out_cancel);
DOCKER_VERB(in_prepare);

#endif
