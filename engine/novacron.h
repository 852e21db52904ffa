/* SPDX-License-Identifier: Apache-2.0
 *
 * novacron.h - the one public header of libnovacron.
 *
 * The library runs on the caller's event_base: no threads, no globals, no signal handlers; it never
 * exits and never logs by itself. Everything below is called from the thread that runs the event_base,
 * and every callback comes from that loop. JSON values are jansson's.
 *
 * Ownership: "borrowed" arguments are the caller's and valid for the call (or as long as said);
 * "stolen" ones become the callee's, also when the call fails.
 */
#ifndef NOVACRON_H
#define NOVACRON_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <jansson.h>

#ifdef __cplusplus
extern "C" {
#endif

#define NOVA_PUBLIC __attribute__((visibility("default")))

struct event_base;

/* ---- errors ------------------------------------------------------------------------------------- */

/* What the caller does next. The values are part of the control protocol: append only. */
enum nova_category {
	NOVA_OK = 0,
	NOVA_INVALID,   /* the request is wrong: tell the user */
	NOVA_STATE,     /* right request, wrong moment */
	NOVA_REFUSED,   /* the other side said no; its state is known */
	NOVA_LINK,      /* connection lost: the other side's state is unknown */
	NOVA_TIMEOUT,   /* no answer in time: the other side's state is unknown */
	NOVA_CANCELLED, /* somebody asked for it */
	NOVA_SYSTEM,    /* a system call failed; errnum says how */
	NOVA_CATEGORIES
};

struct nova_error {
	enum nova_category category;
	int errnum;     /* errno with NOVA_SYSTEM, else 0 */
	char text[508]; /* UTF-8, one line, no final full stop */
};

/* "invalid", "state", ...; never NULL. */
NOVA_PUBLIC const char *nova_category_name(enum nova_category category);

/* Fill *err (may be NULL) and return -1, so that a failure is one line: return nova_error_set(err, ...). */
NOVA_PUBLIC int nova_error_set(struct nova_error *err, enum nova_category category, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* The same with NOVA_SYSTEM: appends ": " and the text of errnum. */
NOVA_PUBLIC int nova_error_sys(struct nova_error *err, int errnum, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* Put "prefix: " before the text on the way up; returns -1. */
NOVA_PUBLIC int nova_error_prefix(struct nova_error *err, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* Copy *from to *to (to may be NULL); returns -1. */
NOVA_PUBLIC int nova_error_copy(struct nova_error *to, const struct nova_error *from);

/* ---- asynchronous calls ------------------------------------------------------------------------- */

/* A started call. Its answer comes exactly once, from the loop, never before the starting function has
 * returned, and never after nova_op_drop(). After the answer the handle is gone. A function that starts
 * a call returns the handle, or NULL with *err filled, and then no answer comes. */
struct nova_op;

/* err is NULL on success. result (borrowed, may be NULL) is an answer's JSON value on success. */
typedef void (*nova_done_fn)(void *arg, json_t *result, const struct nova_error *err);

/* Stop waiting. What was asked may still happen over there; the answer will not come. NULL is fine. */
NOVA_PUBLIC void nova_op_drop(struct nova_op *op);

/* ---- options ------------------------------------------------------------------------------------ */

enum nova_type {
	NOVA_T_STRING,
	NOVA_T_BOOL,
	NOVA_T_INT,      /* plain count */
	NOVA_T_BYTES,    /* 512M, 2GiB: powers of 1024; JSON: a number of bytes */
	NOVA_T_RATE,     /* 200M, 1Gbit: bits a second, powers of 1000; JSON: bits a second; 0: no limit */
	NOVA_T_DURATION, /* 300ms, 15s, 5min: JSON: milliseconds */
	NOVA_T_CHOICE,   /* one of choices, separated by | */
	NOVA_T_PATH,
	NOVA_T_LIST,     /* may be repeated; JSON: array of strings */
	NOVA_T_JSON,     /* any JSON value; on the command line a file name or literal */
};

/* A row of an option table: the daemon's configuration or a command's arguments. --help, man pages and
 * completion derive from these rows. */
struct nova_param {
	const char *name;     /* as typed, without dashes: "bandwidth" */
	enum nova_type type;
	const char *choices;  /* NOVA_T_CHOICE: "live|warm|cold" */
	int64_t min, max;     /* numbers: inclusive; both 0: any */
	const char *fallback; /* default, in the form a user would type; NULL: none */
	bool required;
	bool positional;      /* on the command line without its name */
	const char *metavar;  /* "GUEST", "PEER", "SIZE": also picks the completion */
	const char *help;     /* one line, lower case, no full stop */
};

/* Turn a typed text into the parameter's JSON value; NULL and *err (naming what is accepted) if it is
 * not one. The caller owns the value. */
NOVA_PUBLIC json_t *nova_param_parse(const struct nova_param *param, const char *text, struct nova_error *err);
/* The same check for a value that is JSON already (0, or -1 and *err). */
NOVA_PUBLIC int nova_param_check(const struct nova_param *param, const json_t *value, struct nova_error *err);

/* ---- configuration ------------------------------------------------------------------------------ */

struct nova_config;

NOVA_PUBLIC struct nova_config *nova_config_new(void);
NOVA_PUBLIC struct nova_config *nova_config_free(struct nova_config *config);
/* The option table of the daemon, *count rows; static. */
NOVA_PUBLIC const struct nova_param *nova_config_params(size_t *count);
/* Set one option from text. Lists are appended to. */
NOVA_PUBLIC int nova_config_set(struct nova_config *config, const char *name, const char *text,
    struct nova_error *err);
/* Read a file of "name = value" lines; # starts a comment; "[peer NAME]" sections hold address, etc.
 * Errors name file and line. */
NOVA_PUBLIC int nova_config_load(struct nova_config *config, const char *path, struct nova_error *err);
/* The value with defaults applied; borrowed until the configuration changes; NULL if unset. */
NOVA_PUBLIC const json_t *nova_config_get(const struct nova_config *config, const char *name);

/* ---- commands ----------------------------------------------------------------------------------- */

enum nova_role { NOVA_ROLE_NONE, NOVA_ROLE_VIEWER, NOVA_ROLE_OPERATOR, NOVA_ROLE_ADMIN };

/* Who asks. */
struct nova_identity {
	enum nova_role role;
	char name[128]; /* user or certificate name, for ownership and audit */
	char from[128]; /* "unix uid 1000 pid 77", "tls alpha 10.0.0.1", "embedded" */
};

struct nova_host;
typedef struct nova_op *(*nova_command_fn)(struct nova_host *host, const struct nova_identity *who, json_t *args,
    nova_done_fn done, void *arg, struct nova_error *err);

/* One row per command of the control protocol; the command line is made from the same rows. */
struct nova_command {
	const char *name;                /* "migrate" */
	const char *help;                /* one line */
	enum nova_role role;             /* least role that may use it */
	const struct nova_param *params; /* ends with a row whose name is NULL */
	bool job;                        /* answers {"job": ID} at once; JOB_* events follow */
	bool hidden;                     /* for programs only: not in --help */
	nova_command_fn start;           /* the engine's */
};

NOVA_PUBLIC const struct nova_command *nova_commands(size_t *count);
/* What `create` accepts for this driver; NULL: no such driver is built in. */
NOVA_PUBLIC const struct nova_param *nova_driver_params(const char *driver, size_t *count);
/* The name of a driver that is built in; NULL past the last one. */
NOVA_PUBLIC const char *nova_driver_name(size_t index);

/* ---- host: the engine --------------------------------------------------------------------------- */

enum nova_log_level { NOVA_LOG_ERROR, NOVA_LOG_WARNING, NOVA_LOG_INFO, NOVA_LOG_DEBUG };
typedef void (*nova_log_fn)(void *arg, enum nova_log_level level, const char *line);

/* Open the state directory (journal, inventory), re-adopt running guests, and listen on the control
 * socket and peer addresses the configuration names (none named: none opened). base and config are
 * borrowed until nova_host_free(); log (may be NULL) gets every line. */
NOVA_PUBLIC struct nova_host *nova_host_new(struct event_base *base, const struct nova_config *config,
    nova_log_fn log, void *log_arg, struct nova_error *err);
/* Stop listening and let go of every guest; guests run on. Running jobs are dropped where they stand and
 * finished or undone by the next start. */
NOVA_PUBLIC struct nova_host *nova_host_free(struct nova_host *host);
/* The port peers reach us at (the first listening address), 0: we do not listen. */
NOVA_PUBLIC int nova_host_port(const struct nova_host *host);
/* Path of the control socket, borrowed; NULL: there is none. */
NOVA_PUBLIC const char *nova_host_control_path(const struct nova_host *host);
/* Who a local process is, by the roles of the configuration (root is admin). */
NOVA_PUBLIC void nova_host_identify(const struct nova_host *host, unsigned uid, unsigned gid, int pid,
    struct nova_identity *who);
/* May this identity see this event (guests of others are invisible without the right)? */
NOVA_PUBLIC bool nova_host_may_see(const struct nova_host *host, const struct nova_identity *who,
    const char *event, json_t *data);

/* Run a command. args (borrowed) is an object or NULL. */
NOVA_PUBLIC struct nova_op *nova_host_execute(struct nova_host *host, const struct nova_identity *who,
    const char *command, json_t *args, nova_done_fn done, void *arg, struct nova_error *err);

/* Events: data is borrowed. One subscriber; NULL stops. */
typedef void (*nova_event_fn)(void *arg, const char *event, json_t *data);
NOVA_PUBLIC void nova_host_on_event(struct nova_host *host, nova_event_fn fn, void *arg);

/* ---- client of a daemon's control socket -------------------------------------------------------- */

struct nova_client;

/* Connect to the unix socket at path. Commands may be executed at once: they wait for the greeting. If
 * the connection fails or ends, outstanding calls answer NOVA_LINK and gone (may be NULL) is called. */
NOVA_PUBLIC struct nova_client *nova_client_new(struct event_base *base, const char *path, nova_event_fn event,
    void (*gone)(void *arg, const struct nova_error *err), void *arg, struct nova_error *err);
/* The same to the daemon of another host, over mutual TLS. config (borrowed for the call) holds our cert, key and ca,
 * and peers; host is the name of one of them, NAME=HOST:PORT, or HOST:PORT (its certificate must be for HOST). */
NOVA_PUBLIC struct nova_client *nova_client_new_remote(struct event_base *base, const struct nova_config *config,
    const char *host, nova_event_fn event, void (*gone)(void *arg, const struct nova_error *err), void *arg,
    struct nova_error *err);
NOVA_PUBLIC struct nova_client *nova_client_free(struct nova_client *client);
NOVA_PUBLIC struct nova_op *nova_client_execute(struct nova_client *client, const char *command, json_t *args,
    nova_done_fn done, void *arg, struct nova_error *err);

/* ---- the relay alone ---------------------------------------------------------------------------- */

#define NOVA_RELAY_RESUME_MS 300000
#define NOVA_RELAY_WAIT_MS 300000
#define NOVA_RELAY_HISTORY_BYTES (256u << 20)

struct nova_relay_config {
	size_t struct_size;
	bool listen_tls;          /* true: we wait for the other relay; false: we dial it */
	const char *address;      /* "host:port"; listening: port 0 asks for any; dialling: several, separated by
	                           * commas, are tried in turn */
	const char *peer;         /* name the other side's certificate must carry */
	const char *cert, *key, *ca; /* PEM files */
	const char *unix_path;    /* listen_tls: the socket we connect to; else: the socket we listen on */
	const char *codec;        /* "auto" (also NULL), "none", "lz4", "zstd"; the dialling side's counts, as do the
	                           * next three and history_bytes */
	uint64_t rate_bps;        /* bits a second, 0: no limit */
	int lanes;                /* TCP connections, 0: chosen */
	int resume_limit_ms;      /* how long a lost link is redialled, 0: not at all; NOVA_RELAY_RESUME_MS */
	int wait_ms;              /* for the other relay and the first local connection, 0: for ever */
	uint64_t history_bytes;   /* memory for the page history, on each side; 0: none */
};
struct nova_relay;
/* Every connection to the dialling side's socket becomes a connection to the listening side's. done is called
 * once: all have ended (err NULL), or the relay failed. result carries raw_bytes, encoded_bytes, wire_bytes,
 * resent_bytes, reconnects, connections, total_ms; it comes with an error, too. Events: RELAY_READY {unix},
 * RELAY_CONNECTED {peer}, RELAY_STREAM {connection}, RELAY_PROGRESS, RELAY_LINK {state, waited_ms, limit_ms},
 * RELAY_WARNING {text}. Strings are copied. */
NOVA_PUBLIC struct nova_relay *nova_relay_new(struct event_base *base, const struct nova_relay_config *config,
    nova_event_fn event, nova_done_fn done, void *arg, struct nova_error *err);
/* End it: local connections are closed, the other side is told, done comes with NOVA_CANCELLED. */
NOVA_PUBLIC void nova_relay_stop(struct nova_relay *relay);
NOVA_PUBLIC struct nova_relay *nova_relay_free(struct nova_relay *relay);
/* listen_tls: the bound port. */
NOVA_PUBLIC int nova_relay_port(const struct nova_relay *relay);

/* ---- drivers ------------------------------------------------------------------------------------ */

/* Every verb is one asynchronous call: JSON arguments in, JSON answer out. drivers/README.md lists the
 * arguments and answers of each verb. */
enum nova_verb {
	NOVA_VERB_PROBE,        /* {} -> {found, version, verbs:{name:true|"why not"}, facts} */
	NOVA_VERB_CHECK,        /* {spec} -> {spec completed, needs:{memory_bytes,vcpus,disk_bytes}} or why not */
	NOVA_VERB_CREATE,       /* {spec} -> {}: prepares disks and directories; not started */
	NOVA_VERB_START,        /* {paused} -> {} */
	NOVA_VERB_STOP,         /* {force, timeout: ms} -> {} */
	NOVA_VERB_DELETE,       /* {keep_disks, created_only} -> {} */
	NOVA_VERB_PAUSE,
	NOVA_VERB_RESUME,
	NOVA_VERB_SNAPSHOT,     /* {name, external} -> {} */
	NOVA_VERB_RESTORE,      /* {name} -> {} */
	NOVA_VERB_LIST,         /* {} -> [ {name,...} ]: what the runtime has, ours or not */
	NOVA_VERB_ADOPT,        /* {qmp or id} -> {spec, runtime}: take over a running guest */
	NOVA_VERB_REATTACH,     /* {runtime} -> {state}: after our own restart */
	NOVA_VERB_STATS,        /* {} -> unified metrics */
	NOVA_VERB_RESIZE,       /* {memory: bytes, vcpus} -> {spec, needs} */
	NOVA_VERB_OUT_PREPARE,  /* {mode} -> {spec, memory_bytes, settle_ms}: what the destination needs */
	NOVA_VERB_OUT_START,    /* {path, mode, postcopy, ...}: stream into the unix socket at path */
	NOVA_VERB_OUT_QUERY,    /* {} -> struct nova_sample as JSON */
	NOVA_VERB_OUT_SET,      /* {downtime_limit_ms, bandwidth_bytes, throttle, postcopy} -> {} */
	NOVA_VERB_OUT_CANCEL,   /* {} -> {}: answers when the guest is back in our hands */
	NOVA_VERB_IN_PREPARE,   /* {spec, mode, ...} -> {path}: a paused guest that waits for its stream */
	NOVA_VERB_PROFILE,
	NOVA_VERB_OVERHEAD,
	NOVA_VERB_CAPABILITIES,
	NOVA_VERB_ESTIMATE,
	NOVA_VERB_LOGS,         /* {lines} -> {text, cut}: what the guest wrote last */
	NOVA_VERB_IMPORT,       /* {file, name} -> {}: an image from a file; no guest */
	NOVA_VERB_EXPORT,       /* {file, name} -> {bytes}: an image to a new file; no guest */
	NOVA_VERB_MIRROR_START,  /* {disks:[{disk, path, sync}]}: copy disks into the NBD servers at these sockets */
	NOVA_VERB_MIRROR_QUERY,  /* {} -> {disks:[{disk, ready, done_bytes, total_bytes}]} */
	NOVA_VERB_MIRROR_END,    /* {count} or {cancel}: the copies are whole (guest stopped), or given up */
	NOVA_VERB_MIRROR_IN,     /* {copies} -> {path, disks:[{disk, sync, seed}]}: an NBD server of the new disks */
	NOVA_VERB_MIRROR_IN_END, /* {} -> {}: no more of that */
	NOVA_VERB_POINT_CLEAR,    /* {prefix, keep, disks} -> {marks}: nothing is left of a point, but for marks to keep */
	NOVA_VERB_POINT_MARK,     /* {mark, disks} -> {}: from now on note what the guest writes */
	NOVA_VERB_POINT_TAKE,     /* {since, mark, disks} -> {disks, consistency}: what was written since a mark, at one instant */
	NOVA_VERB_POINT_SEND,     /* {disks:[{disk, path}]} -> {}: what was taken, into the NBD servers at these sockets */
	NOVA_VERB_REPLICA_MAKE,   /* {path, size, backing} -> {}: an image; no guest */
	NOVA_VERB_REPLICA_SERVE,  /* {path, format, socket, export, writable} -> {}: until its client goes; no guest */
	NOVA_VERB_REPLICA_MERGE,  /* {path, into, above} -> {}: an overlay becomes part of what is below it; no guest */
	NOVA_VERB_REPLICA_EXPORT, /* {path, file} -> {bytes}: an image with all that is below it as one file; no guest */
	NOVA_VERBS
};
NOVA_PUBLIC const char *nova_verb_name(enum nova_verb verb);

enum nova_guest_state {
	NOVA_GUEST_STOPPED,
	NOVA_GUEST_STARTING,
	NOVA_GUEST_RUNNING,
	NOVA_GUEST_PAUSED,
	NOVA_GUEST_INCOMING,  /* destination of a migration: not ours to run yet */
	NOVA_GUEST_MIGRATED,  /* source after completed: stopped, kept until commit is known */
	NOVA_GUEST_IN_DOUBT,
	NOVA_GUEST_FAILED,
	NOVA_GUEST_STATES
};
NOVA_PUBLIC const char *nova_guest_state_name(enum nova_guest_state state);

/* What a driver sees of a guest. Owned by the engine, valid between CREATE/ADOPT/IN_PREPARE/REATTACH and
 * DELETE. Drivers change only what is marked theirs. */
struct nova_guest {
	const char *name;            /* borrowed: the engine's */
	const char *uuid;
	const char *owner;
	json_t *spec;                /* borrowed: the completed specification */
	json_t *runtime;             /* driver's: facts that survive a daemon restart (pid, sockets); object */
	enum nova_guest_state state; /* change it with nova_guest_set_state() */
	void *driver_data;           /* driver's: live object, NULL until made */
	const struct nova_guest_hooks *hooks; /* borrowed: where the three calls below go */
	void *hooks_arg;
};

/* The driver learned something. set_state tells users and the inventory; event goes to the engine's
 * migration operations and to subscribers ("MIGRATION", "STOP", "RESUME", "EXIT", ...; data borrowed);
 * save writes guest->runtime to the inventory at once (before the act that depends on it). */
struct nova_guest_hooks {
	void (*set_state)(struct nova_guest *guest, enum nova_guest_state state, const char *why);
	void (*event)(struct nova_guest *guest, const char *event, json_t *data);
	int (*save)(struct nova_guest *guest, struct nova_error *err);
};
NOVA_PUBLIC void nova_guest_set_state(struct nova_guest *guest, enum nova_guest_state state, const char *why);
NOVA_PUBLIC void nova_guest_event(struct nova_guest *guest, const char *event, json_t *data);
NOVA_PUBLIC int nova_guest_save(struct nova_guest *guest, struct nova_error *err);

/* What a driver instance gets from its host; borrowed until close. */
struct nova_driver_env {
	struct event_base *base;
	const struct nova_config *config;
	const char *state_dir;   /* private, 0700, exists */
	const char *runtime_dir; /* short path for sockets, private, 0700, exists */
	nova_log_fn log;         /* never NULL */
	void *log_arg;
};

typedef struct nova_op *(*nova_verb_fn)(void *self, struct nova_guest *guest, json_t *args, nova_done_fn done,
    void *arg, struct nova_error *err);

/* One struct per driver. Verbs that are NULL are answered "not supported by DRIVER". Required: open,
 * close, PROBE. */
struct nova_driver {
	size_t struct_size; /* sizeof(struct nova_driver) */
	const char *name;
	const char *help;
	void *(*open)(const struct nova_driver_env *env, struct nova_error *err);
	void (*close)(void *self);             /* lets go of guests: they run on */
	void (*forget)(void *self, struct nova_guest *guest); /* free driver_data, leave the guest alone */
	nova_verb_fn verb[NOVA_VERBS];
	const struct nova_param *spec_params;  /* what `create` accepts for this driver; ends with name NULL */
};

#ifdef __cplusplus
}
#endif
#endif
