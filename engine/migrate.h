/* SPDX-License-Identifier: Apache-2.0
 *
 * migrate.h - what the source's and the destination's half of a migration share. Private to engine/.
 *
 * The conversation, over one session that the source dials (requests of the control channel):
 *
 *   source                                   destination
 *   reserve {token, guest, spec, ...}   ->   admit, prepare a paused guest; the answer is the reservation, and what
 *                                            is held of the guest from earlier (migrate_baseline.h)
 *   channels 16, 17, ... (DISK)         =>   carried disks, one each (migrate_disks.h)
 *   channel 1 (STREAM)                  =>   the guest's state, both directions through the codec; on the direct
 *                                            path hypervisor to hypervisor instead, and then without a digest.
 *                                            Of a guest that is files (a container: "contents") also when cold
 *   commit {token, digest, raw_bytes}   ->   when the guest is loaded: compare, write the decision, let it run;
 *                                            the answer says so
 *   abort {token}                       ->   undo; the answer comes when nothing is left (baseline_damaged: why)
 *                       failed {token}  <-   the destination had to give up (the same)
 *   outcome {token}                     ->   what was decided; undecided becomes aborted first
 *   recover {token}                     ->   a new session, the stream of a postcopy was lost: the guest's hypervisor
 *                                            waits for the rest; or the answer is {complete}: it had all
 *   channel 1 (STREAM)                  =>   the rest
 *
 * The destination alone decides: its journal's entry for the token is the point of no return. So only a
 * source that has sent commit and lost the answer can be in doubt, and it can ask.
 *
 * The commit may overtake the end of the stream (migrate_tail.c): what the destination compares is then the
 * same, only sooner. Between the guest's last instruction here and its next one there is half a round trip.
 */
#ifndef NOVA_MIGRATE_H
#define NOVA_MIGRATE_H

#include "converge.h"
#include "host.h"
#include "migrate_disks.h"
#include "pipe.h"
#include "series.h"

#include <string.h>

#define NOVA_STREAM_CHANNEL 1
#define NOVA_TICK_MS 100            /* between two looks at a running migration */
#define NOVA_PROGRESS_MS 250        /* between two JOB_PROGRESS events */
#define NOVA_SWITCH_RESUME_MS 10000 /* redial limit while the guest is paused */

/* ---- the source's half ---- */

struct nova_doubt;
struct nova_rejoin;

struct nova_source {
	struct nova_job *job;             /* borrowed */
	const struct nova_link_ops *ops;  /* static */
	struct nova_session *session;     /* owned */
	struct nova_pipe *pipe;           /* owned */
	int listen_fd;                    /* owned */
	int stream_fd;                    /* owned: keeps the hypervisor's connection when the pipe goes */
	struct event *hears_why;          /* owned: the peer has given the stream up, and says why in a moment */
	struct nova_error gave_up;        /* then: what is said if it does not */
	struct event *discarding;         /* owned, made in time: what still comes from it is thrown away */
	struct event *listening;          /* owned: QEMU is expected on listen_fd */
	char *path;                       /* owned: of listen_fd's socket */
	struct event *tick;               /* owned */
	struct nova_op *query;            /* owned: a look under way */
	struct nova_converge *converge;   /* owned */
	struct nova_doubt *doubt;         /* owned */
	struct nova_rejoin *rejoin;       /* owned: a postcopy has lost its stream */
	struct nova_doubt *spare_doubt;   /* owned: when they are needed there may be no memory */
	struct nova_rejoin *spare_rejoin; /* owned */
	struct nova_base_use *base;       /* owned; NULL: cold, or not begun */
	json_t *offer;                    /* owned: baseline that the destination has */
	bool base_damaged;                /* the destination says so */
	json_t *spec;                     /* owned: for the destination */
	json_t *identity;                 /* owned: who the direct path's stream comes from; NULL: there is no such path */
	json_t *direct_to;                /* owned: where the destination waits for it */
	json_t *served;                   /* owned: disks that the destination takes, in order */
	struct nova_disks_out *disks;     /* owned; NULL: none are carried, or not yet */
	json_t *last;                     /* owned: last answer of OUT_QUERY */
	struct nova_sample sample;
	struct nova_series *series;       /* owned */
	struct event *tail;               /* owned: looks for the end of the stream of a halted guest */
	struct nova_op *tail_op;          /* owned */
	enum { NOVA_LIVE, NOVA_WARM, NOVA_COLD } mode;
	bool streaming, switching, stopped, completed, postcopy;
	bool to_postcopy;                     /* it switches over that way */
	bool drains_late;                     /* in the row release: drain failed, but the pages are still needed */
	bool unwanted;                        /* the guest is gone over there: nobody needs its pages */
	bool held;       /* stopped before the switch-over, until its disks are whole */
	bool halted;     /* by us: it does not run again by itself, whatever happens */
	bool written;    /* the hypervisor has written the whole stream ... */
	bool read_whole; /* ... and we have read it: the commit need not wait for "completed" */
	bool direct;     /* the stream does not pass through us */
	uint64_t cap_bps, memory_bytes, wire_bytes;
	uint64_t link_peak_bytes_per_s;
	uint32_t least_rtt_us;
	struct {
		int64_t ms;
		uint64_t bytes, bytes_per_s;
	} direct_rate;                    /* what the hypervisor sent by itself */
	int64_t pass;                     /* the last round that was announced; 0: they are not */
	int settle_ms;                    /* after each count of dirty pages nothing is read for so long */
	struct event *settling;           /* owned: until that is over */
	bool look_again;                  /* something happened while a look was under way */
	int64_t begin_ms, stop_ms, progress_ms, last_predicted_ms;
	int reconnect_waited_ms, reconnect_limit_ms; /* limit 0: connected */
};

extern const struct nova_step nova_source_steps[];

bool nova_source_drains(const struct nova_source *source);
struct nova_source *nova_source_of(struct nova_job *job); /* makes it when a restart finds the job */
void nova_source_stop_pipe(struct nova_source *source);
void nova_source_stop_stream(struct nova_source *source);
/* From here on what the hypervisor writes goes nowhere: it must not hang in a full socket while it is cancelled. */
void nova_source_discard_stream(struct nova_source *source);
int nova_source_listen(struct nova_source *source, struct nova_error *err); /* for the guest's stream */
int nova_source_dial(struct nova_source *source, struct nova_error *err);
int nova_source_resume_limit(const struct nova_job *job);
enum nova_codec nova_source_codec(const struct nova_source *source);

/* Is the job at this row, going forward? */
static inline bool nova_job_at(const struct nova_job *job, const char *row)
{
	return job->run && !nova_run_undoing(job->run) && nova_run_step(job->run) &&
	       !strcmp(nova_run_step(job->run)->name, row);
}

/* Something outside of the current row broke: undo everything, unless it is too late for that. */
static inline void nova_job_give_up(struct nova_job *job, const struct nova_error *why)
{
	struct nova_error ignored;

	if (job->run)
		nova_run_cancel(job->run, why, &ignored);
}

static inline const char *nova_job_text(const struct nova_job *job, const char *name)
{
	const char *text = json_string_value(json_object_get(job->args, name));

	return text ? text : "";
}

static inline int64_t nova_job_int(const struct nova_job *job, const char *name)
{
	return json_integer_value(json_object_get(job->args, name));
}

static inline bool nova_job_was_running(const struct nova_job *job)
{
	return json_is_true(json_object_get(job->args, "was_running"));
}

/* A guest that is files rather than a machine: what its driver says of them. Its stream carries them, cold too, and no
 * memory: there is nothing to converge, and no baseline. NULL: it is a machine. */
static inline json_t *nova_job_contents(const struct nova_job *job)
{
	json_t *contents = json_object_get(job->args, "contents");

	return json_is_object(contents) ? contents : NULL;
}

/* migrate_path.c: rows that look before the migration begins */
enum nova_step_result nova_estimate_row(struct nova_run *run, void *job, struct nova_error *err);
enum nova_step_result nova_path_row(struct nova_run *run, void *job, struct nova_error *err);
bool nova_path_may_be_direct(const struct nova_job *job);
/* The driver's arguments; new reference. */
json_t *nova_path_direct(const struct nova_source *source);

/* migrate_watch.c: the look at a running precopy, its decisions and its progress line */
int nova_watch_start(struct nova_source *source, struct nova_error *err);
/* A round has begun, and what it has to send is known: look at once. A hypervisor whose limit is low goes round
 * and round while nobody looks. */
void nova_watch_pass(struct nova_source *source, int64_t pass);
/* The cap has changed, and the stream does not pass us: tell the hypervisor. */
void nova_watch_cap(struct nova_source *source);
void nova_watch_stop(struct nova_source *source);
void nova_watch_progress(struct nova_source *source, const char *phase);
void nova_watch_report(struct nova_source *source);

/* What earlier moves taught of the pause's fixed cost, in ms; 0: nothing. */
int nova_watch_remember(struct nova_source *source);
/* The pause is over: what was predicted, what was, and what to remember of it. */
void nova_watch_paused(struct nova_source *source, int64_t downtime_ms);

/* migrate_tail.c: the guest is halted; when its stream has been read whole, the row switchover is done */
void nova_tail_start(struct nova_source *source);
void nova_tail_stop(struct nova_source *source);

/* migrate_doubt.c: ask the destination until it answers */
void nova_doubt_start(struct nova_job *job);
struct nova_doubt *nova_doubt_new(struct nova_job *job);
void nova_doubt_free(struct nova_doubt *doubt);
/* How often it was asked, and why it did not answer the last time ("": not asked, or not failed yet). */
int nova_doubt_tries(const struct nova_doubt *doubt);
const char *nova_doubt_error(const struct nova_doubt *doubt);
/* The answer is known: go on after the commit row, or undo what is before it. */
void nova_doubt_end(struct nova_job *job, bool committed);

/* migrate_rejoin.c: a postcopy that lost its stream goes on over a new session */
void nova_rejoin_start(struct nova_source *source, const struct nova_error *why);
void nova_rejoin_session_up(struct nova_source *source);
/* The hypervisor goes on: whatever is lost from here on is a new loss. */
void nova_rejoin_done(struct nova_source *source);
int64_t nova_rejoin_waited_ms(const struct nova_source *source);
struct nova_rejoin *nova_rejoin_new(struct nova_source *source);
void nova_rejoin_free(struct nova_rejoin *rejoin);

json_t *nova_digest_json(const uint8_t digest[16]);

#endif
