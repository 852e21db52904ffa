/* SPDX-License-Identifier: Apache-2.0
 *
 * kvm.h - what the files of the KVM driver share.
 *
 *   spec.c      what a guest may be made of; completing a specification
 *   paths.c     files only below the configured roots; qcow2 headers
 *   argv.c      a completed specification as QEMU's command line
 *   probe.c     what the QEMU on this host can do, asked from itself
 *   check.c     CHECK: completed specification or the reason why not
 *   qemu.c      one QEMU: process, QMP connection, log; outlives us
 *   guest.c     one guest's QEMU: events, states, exits
 *   task.c      a verb as a table of rows
 *   direct.c    a stream from QEMU to QEMU, with QEMU's own TLS
 *   agent.c     the guest's file systems stand still for a point
 *   launch.c    starting and ending a guest's QEMU
 *   carry.c     disks that move with their guest
 *   backing.c   and their backing files
 *   kvm.c lifecycle.c snapshot.c resize.c stats.c adopt.c list.c outgoing.c incoming.c estimate.c
 *   mirror.c exports.c point.c replica.c         the verbs
 *
 * guest->runtime holds: pid, start_time, qmp (socket), frozen (agent.c), migration {role, was_running, status}, snapshots,
 * disks_elsewhere (the other side of a migration owns the disks: never delete any but those made here), and "changed": members
 * that replace those of guest->spec since hot-plug, resize and snapshots (kvm_spec_now() joins the two).
 */
#ifndef NOVA_DRIVER_KVM_H
#define NOVA_DRIVER_KVM_H

#include "engine/child.h"
#include "engine/cleanup.h"
#include "engine/novacron.h"
#include "engine/op.h"
#include "engine/steps.h"
#include "qmp/qmp.h"

#include <limits.h>
#include <sys/un.h>

#define KVM_MIB (1024ll * 1024)
#define KVM_MEMORY_MIN (16 * KVM_MIB)
#define KVM_DIMM_UNIT (128 * KVM_MIB) /* Linux on x86 takes memory in blocks of this size */
#define KVM_DIMM_SLOTS 8
#define KVM_DISKS_MAX 16
#define KVM_NETS_MAX 8
#define KVM_SERIALS_MAX 4
#define KVM_LOSS_LIMIT_MS 10000  /* from the end of a stream until QEMU knows */
#define KVM_START_LIMIT_MS 30000 /* from exec to the QMP greeting */

struct kvm_qemu;
struct kvm_guest;

/* ---- the driver ---- */

struct kvm {
	struct nova_driver_env env; /* strings owned by the host */
	char *qemu;                 /* owned: program name or path */
	json_t *roots;              /* owned: directories that guests' files must be below */
	json_t *facts[2];           /* owned: what QEMU said of itself, by accelerator; NULL: not asked yet */
	struct kvm_guest *guests;   /* live objects, for close() */
	struct kvm_dying *dying;    /* killed, not yet gone */
	unsigned probes;            /* counts the names of probe sockets */
};

/* "kvm" or "tcg" */
enum kvm_accel {
	KVM_ACCEL_KVM,
	KVM_ACCEL_TCG
};

void kvm_log(struct kvm *kvm, enum nova_log_level level, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* Configuration; NULL and false where it is not set. */
const json_t *kvm_config(const struct kvm *kvm, const char *name);
const char *kvm_config_text(const struct kvm *kvm, const char *name);
const char *kvm_qemu_img(const struct kvm *kvm);

/* A program that reads images: confined to the roots (confined.c). As nova_child_run(). */
struct nova_op *kvm_run_confined(
    const struct kvm *kvm, const char *const argv[], nova_done_fn done, void *arg, struct nova_error *err);
/* The same, for as long as it takes, with a directory for its socket. */
struct nova_op *kvm_serve_confined(const struct kvm *kvm, const char *const argv[], const char *directory,
    nova_done_fn done, void *arg, struct nova_error *err);

/* ---- tasks: a verb as a table of rows (task.c) ---- */

struct kvm_task;
/* The answer to what a row asked: DONE, WAIT (it asked for something more) or FAILED. */
typedef enum nova_step_result (*kvm_reply_fn)(struct kvm_task *task, json_t *value, struct nova_error *err);
/* An event of the guest's QEMU, or "EXIT": DONE, WAIT (not that one) or FAILED. */
typedef enum nova_step_result (*kvm_event_fn)(
    struct kvm_task *task, const char *event, json_t *data, struct nova_error *err);

struct kvm_task {
	struct nova_op op; /* first */
	struct kvm *kvm;
	struct nova_guest *guest; /* may be NULL */
	json_t *args;             /* owned; an object */
	json_t *result;           /* owned; the answer */
	json_t *notes;            /* owned object: what rows leave for later rows */
	struct nova_run *run;
	struct nova_op *waiting; /* what the row waits for */
	kvm_reply_fn reply;
	bool tolerant;          /* a refusal is told to reply, as NULL */
	kvm_event_fn match;     /* listening to events */
	struct event *timer;    /* owned; while listening with a limit */
	struct kvm_task *next;  /* in the guest's list of listeners */
	struct kvm_qemu *probe; /* owned: a QEMU of our own, to ask it */
	struct kvm_nowhere *nowhere; /* owned: where a postcopy that is taken back ends */
	nova_done_fn done;
	void *arg;
};

struct nova_op *kvm_task_new(struct kvm *kvm, struct nova_guest *guest, json_t *args,
    const struct nova_step *rows, nova_done_fn done, void *arg, struct nova_error *err);
/* For rows: ask the guest's QEMU. args is stolen; reply may be NULL. */
enum nova_step_result kvm_task_qmp(
    struct kvm_task *task, const char *command, json_t *args, kvm_reply_fn reply, struct nova_error *err);
/* The same with a descriptor sent along (borrowed for the call). */
enum nova_step_result kvm_task_send_fd(struct kvm_task *task, const char *command, json_t *args, int fd,
    kvm_reply_fn reply, struct nova_error *err);
/* The same where a refusal is an answer too: reply gets NULL then. */
enum nova_step_result kvm_task_try(
    struct kvm_task *task, const char *command, json_t *args, kvm_reply_fn reply, struct nova_error *err);
/* Ask the agent in the guest (qmp_agent_ask): reply gets its answer, or NULL and the reason in notes.refusal. */
enum nova_step_result kvm_task_agent(struct kvm_task *task, const char *path, const char *command, int limit_ms,
    kvm_reply_fn reply, struct nova_error *err);
enum nova_step_result kvm_task_run_program(
    struct kvm_task *task, const char *const argv[], kvm_reply_fn reply, struct nova_error *err);
/* Wait for an event. Fails if QEMU ends, unless match takes "EXIT". limit_ms (0: none): then match is told
 * "TIMEOUT". */
enum nova_step_result kvm_task_listen(
    struct kvm_task *task, kvm_event_fn match, int limit_ms, struct nova_error *err);
/* Every waiting row's drop. */
void kvm_task_stop_waiting(struct nova_run *run, void *ctx);
/* The row is over (used outside of replies). */
void kvm_task_end_row(struct kvm_task *task, enum nova_step_result result, const struct nova_error *err);

/* ---- one QEMU (qemu.c) ---- */

struct kvm_qemu_events {
	void (*ready)(void *arg);
	void (*event)(void *arg, const char *name, json_t *data);
	/* No QMP any more, for good or (while the process lives) until it is connected again. */
	void (*lost)(void *arg, const struct nova_error *err);
	/* The process is gone. */
	void (*exited)(void *arg, const struct nova_exit *how);
};
struct kvm_qemu {
	struct kvm *kvm;
	pid_t pid; /* 0: no process known */
	uint64_t start_time;
	char path[sizeof(((struct sockaddr_un *)0)->sun_path)]; /* of the QMP socket */
	struct nova_process *watch;                             /* owned */
	struct qmp_client *qmp;                                 /* owned; NULL: not connected */
	struct event *retry;                                    /* owned */
	int64_t connect_until_ms;                               /* monotonic */
	bool was_ready;
	int again_ms; /* lost since it was ready: the wait before the next attempt; 0: not lost */
	bool killed;
	bool gone; /* the process ended; its last words may still be in the socket */
	struct nova_exit how;
	const struct kvm_qemu_events *events;
	void *arg;
};
void kvm_qemu_init(struct kvm_qemu *qemu, struct kvm *kvm, const struct kvm_qemu_events *events, void *arg);
/* Lets go: the process goes on. */
void kvm_qemu_release(struct kvm_qemu *qemu);
int kvm_qemu_spawn(struct kvm_qemu *qemu, char *const argv[], const char *log_path, struct nova_error *err);
int kvm_qemu_watch(struct kvm_qemu *qemu, pid_t pid, uint64_t start_time, struct nova_error *err);
/* Connect to path, again and again for limit_ms while the process lives and its socket refuses. */
int kvm_qemu_connect(struct kvm_qemu *qemu, const char *path, int limit_ms, struct nova_error *err);
/* The same over a connection that was kept (stolen, also on failure). */
int kvm_qemu_take(struct kvm_qemu *qemu, const char *path, int fd, struct nova_error *err);
int kvm_user_ids(const char *name, uid_t *uid, gid_t *gid, struct nova_error *err);
/* Whoever releases it afterwards need not wait for its end. */
void kvm_qemu_kill(struct kvm_qemu *qemu);
void kvm_qemu_forget_dying(struct kvm *kvm);
/* The only way to a QEMU's monitor: asserts that the command is on the driver's list. args is stolen. */
struct nova_op *kvm_qmp(struct kvm_qemu *qemu, const char *command, json_t *args, nova_done_fn done,
    void *arg, struct nova_error *err);
/* The same with a descriptor sent along (borrowed for the call). */
struct nova_op *kvm_qmp_fd(struct kvm_qemu *qemu, const char *command, json_t *args, int fd, nova_done_fn done,
    void *arg, struct nova_error *err);
bool kvm_qmp_allowed(const char *command);
/* The last lines of a log, at most size - 1 bytes, joined by "; ", without control characters. */
void kvm_log_tail(const char *path, char *text, size_t size);

/* ---- a guest's QEMU (guest.c) ---- */

enum kvm_agent_seen {
	KVM_AGENT_UNKNOWN,
	KVM_AGENT_ANSWERS,
	KVM_AGENT_SILENT
};

struct kvm_guest {
	struct kvm_qemu qemu;
	struct nova_guest *guest;
	struct kvm_task *listeners;
	struct nova_op *inquiry; /* our own question after a failed migration, or a lost monitor; or what it keeps is given back */
	bool lost;               /* its monitor is: what it says is not heard */
	bool quitting;           /* we asked it to end */
	bool powered_off;        /* the guest itself did */
	enum kvm_agent_seen agent; /* when it was last asked */
	struct kvm_guest *next;
};

/* What QEMU says of its migration: {status, ...}. */
void kvm_guest_migration(struct kvm_guest *live, json_t *data);
/* Its monitor answers again. */
void kvm_guest_regained(struct kvm_guest *live);
/* Tell it unless it is so already. */
void kvm_guest_state(struct nova_guest *guest, enum nova_guest_state state, const char *why);
/* The live object, made when missing. */
struct kvm_guest *kvm_guest_get(struct kvm *kvm, struct nova_guest *guest, struct nova_error *err);
struct kvm_guest *kvm_guest_live(struct nova_guest *guest); /* NULL: no QEMU runs */
void kvm_guest_drop(struct kvm *kvm, struct nova_guest *guest);
/* 0 if QMP is there; else -1 and NOVA_STATE. */
int kvm_guest_need_qmp(struct nova_guest *guest, struct nova_error *err);
int kvm_guest_home(struct kvm *kvm, const char *name, char *path, size_t size, struct nova_error *err);
int kvm_guest_socket(
    struct kvm *kvm, const char *name, const char *file, char *path, size_t size, struct nova_error *err);
int kvm_guest_log_path(struct kvm *kvm, const char *name, char *path, size_t size, struct nova_error *err);
int kvm_guest_make_dirs(struct kvm *kvm, const char *name, struct nova_error *err);
void kvm_guest_remove_sockets(struct kvm *kvm, const char *name);
void kvm_guest_remove_dirs(struct kvm *kvm, const char *name);
/* Save guest->runtime; a failure is logged. */
void kvm_guest_save(struct kvm *kvm, struct nova_guest *guest);
/* guest->runtime without a process. */
void kvm_guest_clear_runtime(struct nova_guest *guest);
/* Its QEMU is gone: so is what there was for it. */
void kvm_guest_ended(struct kvm *kvm, struct nova_guest *guest);
/* Staging images of points that no QEMU will send any more. */
void kvm_point_forget(const struct nova_guest *guest);
enum nova_guest_state kvm_state_of(const char *qemu_status, const char *role);
/* runtime.migration.role: "source", "destination" or "". */
const char *kvm_guest_role(const struct nova_guest *guest);
/* query-migrate's answer as the members of struct nova_sample; new reference. */
json_t *kvm_migration_sample(const json_t *info);
bool kvm_one_of(const char *text, const char *const *list); /* ends with NULL */
/* QEMU's status of a migration: none is going on. */
bool kvm_migration_over(const char *status);
/* kept.c: before a guest runs in postcopy; when its stream is complete; and the kept connection (-1: there is none). */
enum nova_step_result kvm_keep_monitor_row(struct nova_run *run, void *ctx, struct nova_error *err);
void kvm_monitor_give_back(struct kvm_guest *live);
int kvm_kept_monitor(struct kvm *kvm, const struct nova_guest *guest, pid_t pid);
/* take_back.c */
#define KVM_TAKE_BACK_MS 8000
enum nova_step_result kvm_take_back_row(struct nova_run *run, void *ctx, struct nova_error *err);
struct kvm_nowhere *kvm_nowhere_free(struct kvm_nowhere *nowhere);
/* Arguments of migrate-set-capabilities; new reference. */
json_t *kvm_migration_capabilities(bool source, bool postcopy, bool multifd, bool hold);
/* Answer of query-migrate, of a QEMU in postcopy: wait until it knows that its stream is lost. If it had all
 * before, the task's result says "complete". */
enum nova_step_result kvm_wait_for_loss(struct kvm_task *task, json_t *value, struct nova_error *err);

/* ---- the direct path (direct.c): for tasks whose arguments have an object "direct" ---- */

bool kvm_direct(const struct kvm_task *task);
/* {subjects: [...]} of our certificate; new reference. */
json_t *kvm_direct_identity(const struct kvm *kvm, struct nova_error *err);
/* Rows: give QEMU its credentials (done at once on the relay's path); learn the port it listens on. */
enum nova_step_result kvm_direct_credentials(struct nova_run *run, void *ctx, struct nova_error *err);
enum nova_step_result kvm_direct_forget(struct nova_run *run, void *ctx, struct nova_error *err);
enum nova_step_result kvm_direct_port(struct nova_run *run, void *ctx, struct nova_error *err);
/* Add what this path needs to the arguments of migrate-set-parameters. */
void kvm_direct_parameters(const struct kvm_task *task, json_t *parameters);
/* Where to connect to, where to listen; new reference, NULL and *err. */
json_t *kvm_direct_uri(const struct kvm_task *task, struct nova_error *err);
json_t *kvm_direct_listen_uri(const struct kvm_task *task, struct nova_error *err);

/* ---- agent.c: rows of tasks that need the guest's file systems to stand still ---- */

#define KVM_AGENT_ID "agent" /* of the chardev */
#define KVM_AGENT_SOCKET "agent.sock"
/* notes.froze when it was asked to, notes.consistency says "application" when they stand still. Its undo is the thaw row. */
enum nova_step_result kvm_agent_freeze_row(struct nova_run *run, void *ctx, struct nova_error *err);
enum nova_step_result kvm_agent_thaw_row(struct nova_run *run, void *ctx, struct nova_error *err);
/* The same, where the task goes on if the agent does not answer: it is asked again later. */
enum nova_step_result kvm_agent_try_thaw_row(struct nova_run *run, void *ctx, struct nova_error *err);
/* Within a row: ask; reply (also when they do not stand still: value NULL) calls kvm_agent_thawed first. */
enum nova_step_result kvm_agent_thaw(struct kvm_task *task, kvm_reply_fn reply, struct nova_error *err);
enum nova_step_result kvm_agent_thawed(struct kvm_task *task, json_t *value, struct nova_error *err);

/* ---- specification (spec.c, paths.c, argv.c) ---- */

extern const struct nova_param kvm_spec_params[];

enum kvm_family {
	KVM_FAMILY_PC,
	KVM_FAMILY_Q35,
	KVM_FAMILY_MICROVM,
	KVM_FAMILY_OTHER
};
enum kvm_family kvm_family_of(const char *machine);

/* What a specification is completed with. */
struct kvm_limits {
	const json_t *facts;      /* of probe.c, for the accelerator of the specification */
	const json_t *roots;      /* array of directories, may be NULL */
	const json_t *machines;   /* array of allowed types, NULL or empty: all */
	const json_t *cpu_models; /* the same */
	const json_t *copies;     /* older copies of carried disks, NULL: none */
	bool incoming;            /* destination of a migration: nothing may be made up, disks must exist */
};
/* "auto", "kvm" or "tcg" of a specification that was not checked yet; "auto" if it says nothing. */
const char *kvm_spec_accel(const json_t *spec);
/* Shape only: names, types, ranges, lists to objects. New reference. */
json_t *kvm_spec_parse(const json_t *spec, struct nova_error *err);
/* The completed specification (new reference) or NULL and the reason. */
json_t *kvm_spec_complete(const json_t *spec, const struct kvm_limits *limits, struct nova_error *err);
/* {memory_bytes, vcpus, disk_bytes}; new reference. */
json_t *kvm_spec_needs(const json_t *spec);
/* guest->spec with what changed since it was written; new reference. */
json_t *kvm_spec_now(const struct nova_guest *guest);
/* Replace a member of the specification from now on (value stolen); saved with the runtime. */
int kvm_spec_change(struct nova_guest *guest, const char *member, json_t *value, struct nova_error *err);
const char *kvm_spec_text(const json_t *spec, const char *member);
bool kvm_spec_is(const json_t *spec, const char *member, const char *text);
int64_t kvm_spec_int(const json_t *spec, const char *member);
/* Base memory and the memory modules plugged since. */
int64_t kvm_spec_total_memory(const json_t *spec);
int64_t kvm_spec_total_vcpus(const json_t *spec);

/* The file must exist below a root; its size in bytes, or -1. */
int64_t kvm_path_existing(const json_t *roots, const char *what, const char *path, struct nova_error *err);
/* Or may be made there: 1 exists, 0 does not, -1 refused. */
int kvm_path_creatable(const json_t *roots, const char *what, const char *path, struct nova_error *err);
/* A qcow2 image: its virtual size, after its backing files were checked as well; or -1. */
int64_t kvm_path_qcow2(const json_t *roots, const char *path, struct nova_error *err);

struct kvm_argv {
	char **word; /* owned, ends with NULL */
	size_t count, capacity;
	bool failed; /* out of memory somewhere */
};
struct kvm_argv_options {
	const char *program;
	const char *name, *uuid;
	const char *home;    /* directory of the sockets */
	const char *sandbox; /* value for -sandbox, NULL: none */
	bool incoming;
};
int kvm_argv_build(struct kvm_argv *argv, const json_t *spec, const struct kvm_argv_options *options,
    struct nova_error *err);
void kvm_argv_add(struct kvm_argv *argv, const char *format, ...) __attribute__((format(printf, 2, 3)));
void kvm_argv_release(struct kvm_argv *argv);
/* The words after each "-device", with only their driver and place: to compare topologies. Array, new. */
json_t *kvm_argv_devices(char *const word[]);

/* ---- probe.c ---- */

/* Rows of other verbs begin with this one: facts for the accelerator in task->notes.accel ("auto" is
 * settled by it) are in task->kvm->facts afterwards. */
enum nova_step_result kvm_probe_row(struct nova_run *run, void *ctx, struct nova_error *err);
void kvm_probe_drop(struct nova_run *run, void *ctx);
const json_t *kvm_probe_facts(struct kvm *kvm, const char *accel);

/* ---- list.c: processes that are QEMUs ---- */

struct kvm_seen {
	pid_t pid;
	uint64_t start_time;
	char *bytes; /* owned: its command line, as /proc has it */
	char **word; /* owned: into bytes, ends with NULL */
	size_t count;
};
/* -1 (err may be NULL) if there is no such process or it is no QEMU. */
int kvm_seen_read(struct kvm_seen *seen, pid_t pid, struct nova_error *err);
void kvm_seen_release(struct kvm_seen *seen);
/* The path of its QMP unix socket, or "". */
void kvm_seen_qmp(const struct kvm_seen *seen, char *path, size_t size);
/* The word after an option; NULL: it has none. */
const char *kvm_seen_option(const struct kvm_seen *seen, const char *option);
/* Call visit for every QEMU in /proc until it returns true. */
void kvm_seen_each(bool (*visit)(void *arg, const struct kvm_seen *seen), void *arg);
/* "first,name=value,..." as an object; the first word is the member "". Doubled commas are one. */
json_t *kvm_option_words(const char *text);

/* What a running QEMU's command line says, as a specification; what it says beyond that is appended to
 * unknown (array). machine: its type as QEMU told it. */
json_t *kvm_spec_of_words(char *const word[], const char *machine, json_t *unknown);

/* ---- launch.c: rows that several verbs begin or end with ---- */

enum nova_step_result kvm_launch_row(struct nova_run *run, void *ctx, struct nova_error *err);
enum nova_step_result kvm_launch_undo(struct nova_run *run, void *ctx, struct nova_error *err);
/* The guest's QEMU quits or is killed; done at once if there is none. */
enum nova_step_result kvm_quit_row(struct nova_run *run, void *ctx, struct nova_error *err);
/* Wait for the monitor: "READY". */
enum nova_step_result kvm_match_ready(
    struct kvm_task *task, const char *event, json_t *data, struct nova_error *err);

/* ---- carry.c: disks that move with their guest ---- */

/* Make a specification the destination's. wishes (NULL: nothing may be carried): {pool, map, include, exclude};
 * {disk, path, format, size} of each disk that is carried is appended to the array carried. */
int kvm_carry_plan(json_t *spec, const json_t *wishes, json_t *carried, struct nova_error *err);
/* Can this carried disk be made here? copies: [{disk, path, format}], older copies of the guest's disks. */
int kvm_carry_check(const json_t *roots, const json_t *disk, const char *name, const json_t *copies,
    struct nova_error *err);
const json_t *kvm_carry_copy(const json_t *copies, const char *name); /* NULL: there is none */
/* A row and its undo: the images of the carried disks of notes.spec. */
enum nova_step_result kvm_carry_make(struct nova_run *run, void *ctx, struct nova_error *err);
enum nova_step_result kvm_carry_undo(struct nova_run *run, void *ctx, struct nova_error *err);
/* The same undo after a restart: what was made here goes, older copies are where they were. */
void kvm_carry_unmake(struct nova_guest *guest);
/* Nobody wants the guest any more, which never ran from them: the new images go, and the older copies. */
void kvm_carry_discard(struct nova_guest *guest);
/* The guest runs here: its disks are ours, and older copies of them go. */
void kvm_carry_arrived(struct nova_guest *guest);
/* Where an older copy is now. */
const char *kvm_carry_seed(const struct nova_guest *guest, const json_t *copy);
/* The guest has moved: remove the images of carried disks ([{disk, path}]) that are its own, unless keep.
 * Those that are left; new array. */
json_t *kvm_carry_leave(const struct nova_guest *guest, const json_t *carried, bool keep);
/* backing.c: rows. The source's: carried.backing {path, format, sha256} of the disks of result.spec; the
 * destination's: carried.based_on, the same file here, of those of notes.spec. */
enum nova_step_result kvm_backing_describe(struct nova_run *run, void *ctx, struct nova_error *err);
enum nova_step_result kvm_backing_find(struct nova_run *run, void *ctx, struct nova_error *err);
int kvm_hand_to_user(const struct kvm *kvm, const char *path, struct nova_error *err);
/* The user that guests run as may read the images beside this one, on which others stand, and write none of them. */
int kvm_replica_open_to_user(const struct kvm *kvm, const char *image, struct nova_error *err);
/* mirror.c: what is in the device of a disk ({disk, file}), of query-block's answer; NULL: QEMU has no such disk. */
const json_t *kvm_disk_inserted(const json_t *devices, const json_t *disk);
/* jobs.c: block jobs whose names begin with one of prefixes (NULL at the end). Listen for their ends, then begin jobs and
 * note them in notes.jobs, then wait until all have ended; FAILED with QEMU's reason if one did not do its work. */
enum nova_step_result kvm_jobs_listen(struct kvm_task *task, const char *const prefixes[], struct nova_error *err);
enum nova_step_result kvm_jobs_wait(struct kvm_task *task, struct nova_error *err);
/* End (or cancel, whatever state they are in) those that there are, at least so many, and wait for that. */
enum nova_step_result kvm_jobs_end(
    struct kvm_task *task, const char *const prefixes[], size_t least, bool cancel, struct nova_error *err);
bool kvm_is_job(const char *job, const char *const prefixes[]);
bool kvm_job_over(const char *event);
/* A job's end, as the engine's DISK_MIRROR event. */
void kvm_mirror_event(struct kvm_guest *live, const char *name, json_t *data);

/* ---- verbs ---- */

#define KVM_VERB(name)                                                                                       \
	struct nova_op *kvm_##name(void *self, struct nova_guest *guest, json_t *args, nova_done_fn done,    \
	    void *arg, struct nova_error *err)
KVM_VERB(probe);
KVM_VERB(capabilities);
KVM_VERB(check);
KVM_VERB(create);
KVM_VERB(start);
KVM_VERB(stop);
KVM_VERB(delete);
KVM_VERB(pause);
KVM_VERB(resume);
KVM_VERB(snapshot);
KVM_VERB(restore);
KVM_VERB(list);
KVM_VERB(adopt);
KVM_VERB(reattach);
KVM_VERB(stats);
KVM_VERB(resize);
KVM_VERB(out_prepare);
KVM_VERB(out_start);
KVM_VERB(out_query);
KVM_VERB(out_set);
KVM_VERB(out_cancel);
KVM_VERB(in_prepare);
KVM_VERB(estimate);
KVM_VERB(mirror_start);
KVM_VERB(mirror_query);
KVM_VERB(mirror_end);
KVM_VERB(mirror_in);
KVM_VERB(mirror_in_end);
KVM_VERB(point_clear);
KVM_VERB(point_mark);
KVM_VERB(point_take);
KVM_VERB(point_send);
KVM_VERB(replica_make);
KVM_VERB(replica_serve);
KVM_VERB(replica_merge);
KVM_VERB(replica_export);

#endif
