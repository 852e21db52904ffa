/* SPDX-License-Identifier: Apache-2.0
 *
 * host.h - the engine's own view of a host: its drivers, guests, jobs and peers. Private to engine/.
 *
 * host.c opens and closes it all; guests.c keeps the guests, admission.c says who fits, jobs.c runs and
 * journals operations, verbs.c holds the local ones, migrate_*.c the migrations, commands.c the table of
 * what users may ask.
 */
#ifndef NOVA_HOST_H
#define NOVA_HOST_H

#include <sys/queue.h>

#include "clock.h"
#include "metrics.h"
#include "op.h"
#include "plugins.h"
#include "steps.h"
#include "store.h"

#define NOVA_NAME_MAX 63 /* bytes of a guest's or peer's name */

/* A driver as it is on this host. */
struct nova_slot {
	const struct nova_driver *ops;
	void *self;                /* owned: NULL if it could not be opened */
	struct nova_error failure; /* then: why */
	char *state_dir, *runtime_dir; /* owned */
	json_t *probe;             /* owned: last answer of PROBE */
};

/* A guest in the engine's table. */
struct nova_entry {
	struct nova_guest guest; /* first: what the driver sees */
	TAILQ_ENTRY(nova_entry) link;
	struct nova_host *host; /* borrowed */
	struct nova_slot *slot; /* borrowed */
	char *name, *uuid, *owner;
	json_t *needs;          /* owned: what admission counts */
	int64_t created_ms;
	struct nova_job *job;   /* borrowed: the operation that has it; NULL: free */
	bool attaching;         /* a restarted daemon is still looking for it */
	bool left_over;         /* it runs elsewhere: to be deleted here */
	struct nova_debt *debt; /* owned: for what the journal cannot take down; NULL: in the list of debts */
};

struct nova_job;
/* Look at a driver's answer: how does the row end (WAIT: later)? */
typedef enum nova_step_result (*nova_seen_fn)(struct nova_job *job, json_t *result, struct nova_error *err);

struct nova_job {
	TAILQ_ENTRY(nova_job) link;
	struct nova_host *host;      /* borrowed */
	char id[NOVA_JOB_ID_SIZE];
	const char *kind;            /* static: "migrate", "create", ... */
	const char *side;            /* static: "source", "destination", "local" */
	char guest_name[NOVA_NAME_MAX + 1];
	char peer[NOVA_NAME_MAX + 1];
	char token[33];              /* names the migration on both hosts */
	struct nova_identity who;
	char owner[128];             /* of the guest: who may see the job; also in the report */
	struct nova_slot *slot;      /* borrowed: the driver; NULL until known */
	enum nova_verb verb;         /* of a one-verb job */
	struct nova_entry *entry;    /* borrowed: NULL until there is one */
	json_t *args;                /* owned */
	json_t *report;              /* owned object */
	const struct nova_step *steps;
	struct nova_run *run;        /* owned */
	struct nova_op *op;          /* owned: what the row waits for */
	nova_seen_fn seen;           /* for op's answer; may be NULL */
	int64_t started_ms;
	nova_done_fn done;           /* who waits for the end; may be NULL */
	void *done_arg;
	json_t *result;              /* owned: what done gets on success */
	struct nova_op *waiter;      /* the handle of whoever waits */
	/* A guest's event while this job has it. */
	void (*on_guest)(struct nova_job *job, const char *event, json_t *data);
	/* The end, before the job is freed: free ctx, let go of links. */
	void (*on_end)(struct nova_job *job, enum nova_outcome outcome, const struct nova_error *err);
	/* IN_DOUBT: keep the job and see to it; otherwise NULL. */
	void (*on_doubt)(struct nova_job *job);
	/* It was undone: begin anew (nova_job_again) and say true, or let it end. May be NULL. */
	bool (*again)(struct nova_job *job, const struct nova_error *why);
	void (*free_ctx)(struct nova_job *job);
	void *ctx;                   /* owned: the operation's own */
	struct nova_debt *debt;      /* owned: for an end that the journal cannot take down */
};

struct nova_debt;
TAILQ_HEAD(nova_debts, nova_debt);
TAILQ_HEAD(nova_entries, nova_entry);
TAILQ_HEAD(nova_jobs, nova_job);
struct nova_remote;
TAILQ_HEAD(nova_remotes, nova_remote);
struct nova_incoming;
TAILQ_HEAD(nova_incomings, nova_incoming);
struct nova_replicate;
TAILQ_HEAD(nova_replicates, nova_replicate);
struct nova_replica;
TAILQ_HEAD(nova_replicas, nova_replica);

struct nova_host {
	struct event_base *base;          /* borrowed */
	const struct nova_config *config; /* borrowed */
	const struct nova_plugins *plugins;
	struct nova_store *store;         /* owned */
	struct nova_metrics *metrics;     /* owned */
	struct nova_audit *audit;         /* owned */
	struct nova_baselines *baselines; /* owned; NULL: nothing can be kept */
	struct nova_slot *slots;          /* owned array */
	size_t slot_count;
	struct nova_entries guests;
	struct nova_jobs jobs;
	struct nova_incomings incomings;  /* sessions that peers and users opened */
	struct nova_replicates replicates; /* of guests here (replicate.c) */
	struct nova_replicas replicas;    /* of guests elsewhere (replica.c) */
	struct nova_remotes remotes;      /* those of them that execute commands */
	struct nova_links *links;         /* owned */
	struct nova_control *control;     /* owned */
	char *control_path;               /* owned */
	nova_event_fn on_event;
	void *on_event_arg;
	nova_log_fn on_log;
	void *on_log_arg;
	struct nova_recovery *recovery;   /* owned: while guests are being found again */
	struct nova_debts debts;          /* what the journal could not take down */
	struct event *debt_timer;         /* owned */
	struct event *leftover_timer;     /* owned */
	bool closing;
};

/* ---- host.c ---- */
const char *nova_host_name(const struct nova_host *host);
void nova_host_emit(struct nova_host *host, const char *event, json_t *data /* stolen */);
void nova_host_log(struct nova_host *host, enum nova_log_level level, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
const char *nova_config_text(const struct nova_config *config, const char *name); /* "" if unset */
int64_t nova_config_int(const struct nova_config *config, const char *name);
struct nova_slot *nova_slot_find(struct nova_host *host, const char *driver, struct nova_error *err);
/* Call a verb; "not supported by DRIVER" if it has none. args is borrowed and may be NULL. */
struct nova_op *nova_slot_call(struct nova_slot *slot, enum nova_verb verb, struct nova_guest *guest, json_t *args,
    nova_done_fn done, void *arg, struct nova_error *err);

/* Who the owner of a certificate is (name as in cert:NAME, NULL: nobody) that came from an address. */
void nova_host_identify_certificate(const struct nova_host *host, const char *name, const char *from,
    struct nova_identity *who);

/* ---- execute.c ---- */
/* Check args against a command's or driver's rows; the answer (the caller's) has defaults filled in. */
json_t *nova_params_fill(const struct nova_param *params, const json_t *args, const char *what,
    struct nova_error *err);
const char *nova_role_name(enum nova_role role);
/* record is stolen. A log that cannot be written is told to the daemon's log, and commands go on. */
void nova_host_audit(struct nova_host *host, const struct nova_identity *who, json_t *record);

/* ---- guests.c ---- */
int nova_guest_name_check(const char *name, struct nova_error *err);
struct nova_entry *nova_entry_find(struct nova_host *host, const char *name);
/* Find one that this identity may see, or NULL and an error that does not tell hidden from absent. */
struct nova_entry *nova_entry_need(struct nova_host *host, const struct nova_identity *who, const char *name,
    struct nova_error *err);
bool nova_entry_visible(const struct nova_host *host, const struct nova_identity *who, const char *owner);
/* spec and needs are borrowed. The entry is in the table, not yet in the inventory. */
struct nova_entry *nova_entry_new(struct nova_host *host, struct nova_slot *slot, const char *name,
    const char *uuid, const char *owner, json_t *spec, json_t *needs, struct nova_error *err);
struct nova_entry *nova_entry_free(struct nova_entry *entry); /* out of the table; the guest is left alone */
/* Into the inventory. What cannot be written now is written later, whoever the failure is told to. */
int nova_entry_save(struct nova_entry *entry, struct nova_error *err);
int nova_entry_write(struct nova_entry *entry, struct nova_error *err); /* now or not at all */
int nova_entry_forget(struct nova_entry *entry, struct nova_error *err); /* out of inventory, then freed */
void nova_entry_set_spec(struct nova_entry *entry, json_t *spec /* borrowed */);
json_t *nova_entry_json(const struct nova_entry *entry, bool whole);
bool nova_entry_at_rest(const struct nova_entry *entry); /* it runs nowhere here, and nothing of it does */
void nova_uuid_new(char uuid[37]);

/* ---- debts.c: what the journal could not take down is tried again ---- */
struct nova_debt *nova_debt_new(const char *guest); /* NULL: of a job */
struct nova_debt *nova_debt_free(struct nova_debt *debt);
void nova_debt_guest(struct nova_entry *entry); /* its line is stale: it changed, or will be gone */
void nova_debt_replica(struct nova_replica *replica); /* its line is stale */
void nova_debt_job(struct nova_job *job, const struct nova_job_row *row); /* it has ended as row says */
/* How the job row->id ended, if that is not in the journal yet; otherwise row stays. What is pointed to lives until the
 * next turn of the reactor. */
void nova_debt_ended(const struct nova_host *host, struct nova_job_row *row);
/* 0: nothing is owed (any more). */
int nova_debts_pay(struct nova_host *host, struct nova_error *err);
int nova_debts_open(struct nova_host *host, struct nova_error *err);
void nova_debts_close(struct nova_host *host);

/* ---- leftovers.c: what stays at the source after a commit is deleted later ---- */
void nova_leftover(struct nova_entry *entry);
bool nova_leftover_marked(const json_t *runtime);
int nova_leftovers_open(struct nova_host *host, struct nova_error *err);
void nova_leftovers_free(struct nova_host *host);

/* ---- admission.c ---- */
/* Does this guest fit beside those there are, and into what its owner may have? A refusal names the limit and the
 * numbers. Nothing is reserved until the guest is in the table with these needs: do that in the same turn. */
int nova_admit_guest(struct nova_host *host, const char *name, const char *owner, const json_t *needs,
    struct nova_error *err);
/* One more migration, incoming or outgoing by its side; the job itself does not count. */
int nova_admit_migration(const struct nova_job *job, struct nova_error *err);

/* ---- jobs.c ---- */
struct nova_job *nova_job_new(struct nova_host *host, const char *kind, const char *side,
    const struct nova_identity *who, const char *guest, json_t *args, struct nova_error *err);
/* Journal it and run its table. The job has the guest (if any) from here on. On failure it is freed. */
int nova_job_start(struct nova_job *job, const struct nova_step *steps, const char *start_at, bool undo_only,
    struct nova_error *err);
/* The job's table once more, from its first row; its token and arguments may be new. */
int nova_job_again(struct nova_job *job, struct nova_error *err);
/* Let done wait for the end of the job; the handle only stops waiting. */
struct nova_op *nova_job_wait(struct nova_job *job, nova_done_fn done, void *arg, struct nova_error *err);
struct nova_job *nova_job_find(struct nova_host *host, const char *id);
struct nova_job *nova_job_by_token(struct nova_host *host, const char *side, const char *token);
struct nova_job *nova_job_free(struct nova_job *job);
void nova_job_set_owner(struct nova_job *job, const char *owner);
int nova_job_save(struct nova_job *job, const char *step, bool undo, struct nova_error *err);
void nova_job_settle(struct nova_job *job, enum nova_outcome outcome, const struct nova_error *err,
    const char *notes); /* record the end, tell, free */
json_t *nova_job_json(const struct nova_job *job);
/* For rows: call the driver and wait; the row ends with its answer. */
enum nova_step_result nova_job_call(struct nova_job *job, enum nova_verb verb, json_t *args /* stolen */,
    struct nova_error *err);
/* The same, with a look at the answer first: seen says how the row ends. */
enum nova_step_result nova_job_call_then(struct nova_job *job, enum nova_verb verb, json_t *args /* stolen */,
    nova_seen_fn seen, struct nova_error *err);
void nova_job_drop_op(struct nova_run *run, void *job); /* a row's drop */
void nova_job_token_new(struct nova_job *job);

/* ---- verbs.c, migrate_*.c, peers.c, recover.c: what commands start ---- */
struct nova_op *nova_cmd_create(struct nova_host *, const struct nova_identity *, json_t *, nova_done_fn, void *,
    struct nova_error *);
struct nova_op *nova_cmd_delete(struct nova_host *, const struct nova_identity *, json_t *, nova_done_fn, void *,
    struct nova_error *);
struct nova_op *nova_cmd_adopt(struct nova_host *, const struct nova_identity *, json_t *, nova_done_fn, void *,
    struct nova_error *);
struct nova_op *nova_verb_start(struct nova_host *host, const struct nova_identity *who, enum nova_verb verb,
    json_t *args, nova_done_fn done, void *arg, struct nova_error *err);
struct nova_op *nova_cmd_migrate(struct nova_host *, const struct nova_identity *, json_t *, nova_done_fn, void *,
    struct nova_error *);
struct nova_op *nova_cmd_stop(struct nova_host *, const struct nova_identity *, json_t *, nova_done_fn, void *,
    struct nova_error *);
struct nova_op *nova_cmd_peers(struct nova_host *, const struct nova_identity *, json_t *, nova_done_fn, void *,
    struct nova_error *);
struct nova_op *nova_cmd_drivers(struct nova_host *, const struct nova_identity *, json_t *, nova_done_fn, void *,
    struct nova_error *);
struct nova_op *nova_cmd_doctor(struct nova_host *, const struct nova_identity *, json_t *, nova_done_fn, void *,
    struct nova_error *);
int nova_migrate_set_rate(struct nova_job *job, uint64_t rate_bps, struct nova_error *err);
/* Answers what is known, or with yes decides (resolve.c). */
struct nova_op *nova_resolve(struct nova_job *job, const struct nova_identity *who, bool keep_source, bool yes,
    nova_done_fn done, void *arg, struct nova_error *err);
bool nova_job_in_doubt(const struct nova_job *job);
int nova_migrate_resolve(struct nova_job *job, bool keep_source, struct nova_error *err);
int nova_dest_recover(struct nova_job *job, const char *step, struct nova_error *err);
int nova_source_recover(struct nova_job *job, const char *step, struct nova_error *err);
void nova_migrate_accept(void *host, struct nova_session *session, const char *peer);
void nova_incoming_close_all(struct nova_host *host);
/* ---- remote.c: commands and events of a session ---- */
/* peer: the host at the other end, "" if it is none. */
struct nova_remote *nova_remote_new(struct nova_host *host, struct nova_session *session, const char *peer,
    void (*lost)(void *arg), void *arg);
void nova_remote_free(struct nova_remote *remote);
/* "execute" and "events"; answers the request by itself if it returns 0. */
int nova_remote_request(struct nova_remote *remote, const char *command, json_t *args, struct nova_request *request,
    struct nova_error *err);
void nova_remote_emit(struct nova_host *host, const char *event, json_t *data);

/* ---- journal.c: without a journal that can be used ---- */
struct nova_search;
/* Guests that drivers have as ours and the inventory does not name, attended as adopted ones. Then done, once; it may
 * free the search. */
struct nova_search *nova_search_new(struct nova_host *host, void (*done)(struct nova_host *host));
void nova_search_start(struct nova_search *search);
void nova_search_free(struct nova_search *search);
struct nova_op *nova_cmd_journal(struct nova_host *, const struct nova_identity *, json_t *, nova_done_fn, void *,
    struct nova_error *);

/* After a restart: guests first, then unfinished jobs. */
int nova_recover(struct nova_host *host, struct nova_error *err);
void nova_recovery_free(struct nova_recovery *recovery);

#endif
