/* SPDX-License-Identifier: Apache-2.0
 *
 * containerd.h - what the files of the containerd driver share; the Kata driver is the same with another runtime.
 *
 *   containerd.c opening, closing, the table of verbs
 *   service.c    asking containerd: methods, headers, patience
 *   image.c      an image's manifest and configuration; its layers as snapshots
 *   spec.c       a specification as an OCI runtime's, and back
 *   create.c     CREATE, DELETE
 *   run.c        START, STOP, PAUSE, RESUME, RESIZE
 *   checkpoint.c SNAPSHOT, RESTORE
 *   move.c       MIGRATE-OUT...
 *   arrive.c     MIGRATE-IN
 *   watch.c      containerd's events: what happens to our tasks, whoever does it
 *   list.c       LIST, ADOPT, REATTACH, STATS, LOGS
 *   probe.c      PROBE, CAPABILITIES, CHECK
 *   blob.c       blobs into the content store, and out of it
 *   import.c     IMPORT
 *   archive.c    EXPORT, and IMPORT of what it wrote: OCI archives
 *   api.proto    containerd's messages
 *
 * A container is called as its guest, and labelled novacron.uuid; its snapshot and the lease that keeps what is half
 * made from containerd's garbage collection are called novacron-UUID. guest->runtime holds: id (the container's),
 * pid; of one that came from another host: carried (its image is called novacron/carried:UUID). Files of a guest:
 * STATE/guests/NAME/{console.log, checkpoints/}; while it moves STATE/moving/UUID/image.
 */
#ifndef NOVA_DRIVER_CONTAINERD_H
#define NOVA_DRIVER_CONTAINERD_H

#include "drivers/common/box.h"
#include "drivers/common/box_move.h"
#include "drivers/common/task.h"
#include "engine/cleanup.h"
#include "transport/grpc_json.h"

#include <limits.h>

#define CONTAINERD_ASK_MS 30000               /* for what containerd does at once */
#define CONTAINERD_LONG_MS (10 * 60 * 1000)   /* unpacking a layer, a checkpoint */
#define CONTAINERD_LAYER_TYPE "application/vnd.oci.image.layer.v1.tar"
#define CONTAINERD_BLOB_MAX (4u << 20)        /* bytes of a manifest or configuration */

struct containerd_watch;

struct containerd_guest {
	struct nova_guest *guest; /* borrowed */
	struct containerd_guest *next;
	bool signalled;           /* somebody asked for its end: that it ends is no failure */
	bool deleting;            /* by us */
	struct box_move *move;    /* owned; NULL: it is not moving */
	struct containerd *containerd; /* borrowed; set while it arrives, as are the next two */
	struct nova_op *landing;  /* owned: what came becomes a container */
	json_t *held;             /* owned: digests of layers that did not have to come */
};

struct containerd {
	struct nova_driver_env env;
	const struct nova_driver *driver; /* static: containerd or kata */
	const char *runtime;         /* static: the shim's name */
	char *state_dir;             /* owned: env's */
	char *space;                 /* owned: containerd's namespace */
	char *snapshotter;           /* owned */
	json_t *roots;               /* owned */
	struct grpc *grpc;           /* owned */
	struct containerd_guest *guests; /* owned */
	struct containerd_watch *watch;  /* owned: NULL until there are guests */
};

extern const struct nova_param containerd_spec_params[];

/* For the struct of callbacks of each of the two drivers. */
void *containerd_open_as(const struct nova_driver *driver, const char *runtime, const struct nova_driver_env *env,
    struct nova_error *err);
void containerd_close(void *self);
void containerd_let_go(void *self, struct nova_guest *guest);

/* ---- service.c ---- */

enum containerd_method {
	CTRD_VERSION,
	CTRD_PLUGINS,
	CTRD_LEASE_CREATE,
	CTRD_LEASE_DELETE,
	CTRD_IMAGE_GET,
	CTRD_IMAGE_CREATE,
	CTRD_IMAGE_UPDATE,
	CTRD_IMAGE_DELETE,
	CTRD_CONTENT_INFO,
	CTRD_CONTENT_READ,
	CTRD_CONTENT_WRITE,
	CTRD_CONTENT_ABORT,
	CTRD_SNAPSHOT_PREPARE,
	CTRD_SNAPSHOT_VIEW,
	CTRD_SNAPSHOT_MOUNTS,
	CTRD_SNAPSHOT_COMMIT,
	CTRD_SNAPSHOT_REMOVE,
	CTRD_SNAPSHOT_STAT,
	CTRD_DIFF_APPLY,
	CTRD_DIFF_DIFF,
	CTRD_CONTAINER_GET,
	CTRD_CONTAINER_LIST,
	CTRD_CONTAINER_CREATE,
	CTRD_CONTAINER_UPDATE,
	CTRD_CONTAINER_DELETE,
	CTRD_TASK_GET,
	CTRD_TASK_LIST,
	CTRD_TASK_CREATE,
	CTRD_TASK_START,
	CTRD_TASK_KILL,
	CTRD_TASK_WAIT,
	CTRD_TASK_DELETE,
	CTRD_TASK_PAUSE,
	CTRD_TASK_RESUME,
	CTRD_TASK_CHECKPOINT,
	CTRD_TASK_UPDATE,
	CTRD_EVENTS,
	CTRD_METHODS
};
extern const struct grpc_method containerd_methods[CTRD_METHODS];

/* Ask; request is stolen. tolerated: bits of statuses that are answers. What is made goes under the lease that
 * task->notes names, if any. limit_ms 0: CONTAINERD_ASK_MS. */
enum nova_step_result containerd_ask(struct task *task, enum containerd_method method, json_t *request, uint32_t tolerated,
    int limit_ms, task_reply_fn reply, struct nova_error *err);
/* The same outside of tasks; request is stolen. */
struct nova_op *containerd_begin(struct containerd *containerd, enum containerd_method method, json_t *request,
    const struct grpc_options *options, nova_done_fn done, void *arg, struct nova_error *err);
/* The same under the lease of the task, which must outlive it. */
struct nova_op *containerd_begin_for(struct task *task, enum containerd_method method, json_t *request,
    const struct grpc_options *options, nova_done_fn done, void *arg, struct nova_error *err);
/* For rows: a snapshot, made by CTRD_SNAPSHOT_PREPARE or _VIEW, also where a killed containerd left half of one. request is
 * stolen; its answer goes to reply (NULL: it is enough that there was one). */
enum nova_step_result containerd_make_snapshot(struct task *task, enum containerd_method how, json_t *request, uint32_t tolerated,
    task_reply_fn reply, struct nova_error *err);
/* A row: waits for a containerd that went away to come back, when something made must be taken back (args.created_only,
 * notes.sync). */
enum nova_step_result containerd_patient_row(struct nova_run *run, void *task, struct nova_error *err);
int containerd_status(const json_t *answer);
/* An Any: type_url and a message, or a JSON text. New reference; NULL and the reason. */
json_t *containerd_any(const char *type_url, const ProtobufCMessageDescriptor *type, const json_t *value, struct nova_error *err);
json_t *containerd_any_json(const char *type_url, const json_t *value);
/* The guest's container; "" if none is known. */
const char *containerd_id(const struct nova_guest *guest);
/* "novacron-UUID" */
void containerd_key(const struct nova_guest *guest, char key[64]);
/* A file of the guest's; file "": its directory. -1: too long. */
int containerd_file(const struct containerd *containerd, const struct nova_guest *guest, const char *file, char *path, size_t size);

/* ---- bundle.c ---- */

/* A task, also where a killed containerd left the beginning of one; request (containerd_task_request()) is stolen. */
enum nova_step_result containerd_make_task(struct task *task, json_t *request, int limit_ms, struct nova_error *err);

/* ---- image.c ---- */

/* Rows that leave notes.manifest, notes.config and notes.chain (names of snapshots) of notes.image. */
#define CONTAINERD_IMAGE_ROWS \
	{ "image", containerd_image_row, NULL, task_drop_row }, { "manifest", containerd_manifest_row, NULL, task_drop_row }, \
	{ "configuration", containerd_config_row, NULL, task_drop_row }
enum nova_step_result containerd_image_row(struct nova_run *run, void *task, struct nova_error *err);
enum nova_step_result containerd_manifest_row(struct nova_run *run, void *task, struct nova_error *err);
enum nova_step_result containerd_config_row(struct nova_run *run, void *task, struct nova_error *err);
/* Makes the snapshots of the image's layers that are not there yet. */
enum nova_step_result containerd_layers_row(struct nova_run *run, void *task, struct nova_error *err);
/* Of an index's manifests: the digest of the one for this machine, or NULL. */
const char *containerd_choose(const json_t *manifests);
/* Names of the snapshots of these layers (diff_ids), as containerd computes them. New reference, or NULL. */
json_t *containerd_chain(const json_t *diff_ids);

/* ---- blob.c ---- */

/* A blob into the store: of fd (borrowed), or text. labels (stolen) may be NULL. what is part of the name that it has
 * while it is written, after task->notes.lease. Leaves {digest, size}; what is there already is fine. */
enum nova_step_result containerd_upload(struct task *task, const char *what, int fd, const char *text, json_t *labels, task_reply_fn reply,
    struct nova_error *err);
/* A blob into a file (borrowed). Leaves {size}. */
enum nova_step_result containerd_download(struct task *task, const char *digest, int fd, task_reply_fn reply, struct nova_error *err);

/* ---- archive.c: rows for IMPORT of task->fd[0] ---- */

#define CONTAINERD_MANIFEST_TYPE "application/vnd.oci.image.manifest.v1+json"
/* A private directory, notes.directory. */
enum nova_step_result containerd_archive_directory_row(struct nova_run *run, void *task, struct nova_error *err);
enum nova_step_result containerd_archive_remove_row(struct nova_run *run, void *task, struct nova_error *err);
enum nova_step_result containerd_archive_extract_row(struct nova_run *run, void *task, struct nova_error *err);
/* Leaves notes.image, .target, .manifest, .config, .chain. */
enum nova_step_result containerd_archive_index_row(struct nova_run *run, void *task, struct nova_error *err);
/* Blobs that notes.held names are in the store already. */
enum nova_step_result containerd_archive_blobs_row(struct nova_run *run, void *task, struct nova_error *err);
/* A plain file in notes.directory; -1 and the reason. */
int containerd_archive_open(const struct task *task, const char *name, int flags, struct nova_error *err);
/* After CONTAINERD_IMAGE_ROWS, for what EXPORT writes: the image is its manifest; its blobs into notes.directory; what is
 * beside them. */
enum nova_step_result containerd_archive_target_row(struct nova_run *run, void *task, struct nova_error *err);
enum nova_step_result containerd_archive_fetch_row(struct nova_run *run, void *task, struct nova_error *err);
enum nova_step_result containerd_archive_layout_row(struct nova_run *run, void *task, struct nova_error *err);

/* ---- import.c ---- */

/* notes.image is the name of notes.target from now on. */
enum nova_step_result containerd_name_row(struct nova_run *run, void *task, struct nova_error *err);

/* ---- create.c: rows that make a container ---- */

/* The guest's lease. It ends with what is under it, when that is answered: undoing, with args.created_only or notes.sync. */
enum nova_step_result containerd_lease_row(struct nova_run *run, void *task, struct nova_error *err);
enum nova_step_result containerd_unlease_row(struct nova_run *run, void *task, struct nova_error *err);
enum nova_step_result containerd_directory_row(struct nova_run *run, void *task, struct nova_error *err);
/* Upon the last of notes.chain. */
enum nova_step_result containerd_snapshot_row(struct nova_run *run, void *task, struct nova_error *err);
enum nova_step_result containerd_record_row(struct nova_run *run, void *task, struct nova_error *err);

/* ---- move.c, arrive.c ---- */

/* STATE/moving/UUID/sub; -1: too long. */
int containerd_stage(const struct task *task, const char *sub, char *path, size_t size);
enum nova_step_result containerd_stage_clear_row(struct nova_run *run, void *task, struct nova_error *err);
enum nova_step_result containerd_stage_make_row(struct nova_run *run, void *task, struct nova_error *err);
/* Whatever is under way of a move ends. */
enum nova_step_result containerd_stop_moving_row(struct nova_run *run, void *task, struct nova_error *err);
/* The image that came with the guest. */
enum nova_step_result containerd_drop_image_row(struct nova_run *run, void *task, struct nova_error *err);
/* Why a container does not move with its processes; static. */
const char *containerd_no_warm(const struct containerd *containerd);

/* ---- spec.c ---- */

/* config: the image's. New reference, or NULL and the reason. */
json_t *containerd_oci_spec(const struct nova_guest *guest, const json_t *spec, const json_t *config, struct nova_error *err);
/* "UID" or "UID:GID" to numbers. */
int containerd_user(const char *text, unsigned *uid, unsigned *gid, struct nova_error *err);
/* What a container's record says, as a specification; what it says beyond that is appended to unknown. */
json_t *containerd_spec_of(const json_t *container, json_t *unknown);
/* LinuxResources of memory and vcpus of a specification. */
json_t *containerd_resources(const json_t *spec);

/* ---- run.c ---- */

/* Rows that end the guest's task, if there is one, and leave none. */
enum nova_step_result containerd_end_task_row(struct nova_run *run, void *task, struct nova_error *err);
enum nova_step_result containerd_mounts_row(struct nova_run *run, void *task, struct nova_error *err);
/* What is the task's state now? */
enum nova_step_result containerd_look_row(struct nova_run *run, void *task, struct nova_error *err);
/* The request for a task of the guest's container; options (stolen) may be NULL. */
json_t *containerd_task_request(struct task *task, json_t *options);

/* ---- watch.c ---- */

int containerd_know(struct containerd *containerd, struct nova_guest *guest, struct nova_error *err);
void containerd_forget(struct containerd *containerd, struct nova_guest *guest);
void containerd_watch_free(struct containerd_watch *watch);
/* What Tasks/Get answered is the guest's state; its pid is recorded. why is for people. anew: whatever was known before (a
 * failure stays one otherwise). */
void containerd_take_state(struct nova_guest *guest, const json_t *answer, const char *why, bool anew);
/* What one event means; exposed for tests. */
void containerd_event(struct containerd *containerd, json_t *envelope);

/* ---- verbs ---- */

#define CONTAINERD_VERB(name) \
	struct nova_op *containerd_##name(void *self, struct nova_guest *guest, json_t *args, nova_done_fn done, void *arg, \
	    struct nova_error *err)
CONTAINERD_VERB(probe);
CONTAINERD_VERB(capabilities);
CONTAINERD_VERB(check);
CONTAINERD_VERB(create);
CONTAINERD_VERB(start);
CONTAINERD_VERB(stop);
CONTAINERD_VERB(delete);
CONTAINERD_VERB(pause);
CONTAINERD_VERB(resume);
CONTAINERD_VERB(resize);
CONTAINERD_VERB(snapshot);
CONTAINERD_VERB(restore);
CONTAINERD_VERB(list);
CONTAINERD_VERB(adopt);
CONTAINERD_VERB(reattach);
CONTAINERD_VERB(stats);
CONTAINERD_VERB(logs);
CONTAINERD_VERB(import);
CONTAINERD_VERB(export);
CONTAINERD_VERB(out_prepare);
CONTAINERD_VERB(out_start);
CONTAINERD_VERB(out_query);
CONTAINERD_VERB(out_cancel);
CONTAINERD_VERB(in_prepare);

#endif
