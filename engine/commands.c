/* SPDX-License-Identifier: Apache-2.0
 *
 * commands.c - the table of commands: names, arguments, roles and what starts them. The control protocol,
 * the command line, its manual page and its completion all come from these rows. Not here: how a
 * command is checked and audited (execute.c), what the longer ones do (verbs.c, migrate_command.c, peers.c).
 */
#include "config.h"

#include "audit.h"
#include "baseline_store.h"
#include "cleanup.h"
#include "converge.h"
#include "estimate.h"
#include "host.h"
#include "pace.h"
#include "replicate.h"

#include <stdio.h>
#include <string.h>

#define GUEST { "guest", NOVA_T_STRING, .required = true, .positional = true, .metavar = "GUEST", .help = "name of the guest" }
#define JOB { "job", NOVA_T_STRING, .required = true, .positional = true, .metavar = "JOB", .help = "id of the job" }
#define DRIVER { "driver", NOVA_T_STRING, .fallback = "kvm", .metavar = "DRIVER", .help = "driver that runs the guest" }
#define END { NULL }

#define STARTER(name) \
	static struct nova_op *name(struct nova_host *host, const struct nova_identity *who, json_t *args, \
	    nova_done_fn done, void *arg, struct nova_error *err)

/* ---- questions that are answered from memory and the store ---- */

static struct nova_op *answer(struct nova_host *host, json_t *result, nova_done_fn done, void *arg,
    struct nova_error *err)
{
	return nova_op_later(host->base, result, NULL, done, arg, err);
}

static const char *text(const json_t *args, const char *name)
{
	const char *value = json_string_value(json_object_get(args, name));

	return value ? value : "";
}

/* Who looks, and what they found so far. */
struct job_list {
	struct nova_host *host;
	const struct nova_identity *who;
	json_t *list;
	bool running; /* those that have not ended alone */
};

STARTER(cmd_about)
{
	return answer(host,
	    json_pack("{s:s, s:s, s:s, s:s, s:i}", "name", nova_host_name(host), "version", PACKAGE_VERSION, "uuid",
		nova_store_host_uuid(host->store), "role",
		nova_role_name(who->role), "port", nova_host_port(host)),
	    done, arg, err);
}

STARTER(cmd_list)
{
	json_t *list = json_array();
	struct nova_entry *entry;

	TAILQ_FOREACH (entry, &host->guests, link)
		if (nova_entry_visible(host, who, entry->owner))
			json_array_append_new(list, nova_entry_json(entry, false));
	return answer(host, list, done, arg, err);
}

STARTER(cmd_show)
{
	struct nova_entry *entry = nova_entry_need(host, who, text(args, "guest"), err);

	return entry ? answer(host, nova_entry_json(entry, true), done, arg, err) : NULL;
}

STARTER(cmd_stats)
{
	struct nova_entry *entry = nova_entry_need(host, who, text(args, "guest"), err);

	return entry ? nova_slot_call(entry->slot, NOVA_VERB_STATS, &entry->guest, args, done, arg, err) : NULL;
}

/* Figures by guest are for those who may see the guest. */
static bool label_visible(void *arg, const char *label_name, const char *label)
{
	const struct job_list *viewer = arg;
	const struct nova_entry *entry = nova_entry_find(viewer->host, label);

	return strcmp(label_name, "guest") || nova_entry_visible(viewer->host, viewer->who, entry ? entry->owner : "");
}

STARTER(cmd_logs)
{
	struct nova_entry *entry = nova_entry_need(host, who, text(args, "guest"), err);

	return entry ? nova_slot_call(entry->slot, NOVA_VERB_LOGS, &entry->guest, args, done, arg, err) : NULL;
}

/* What concerns a driver, and no guest. */
static struct nova_op *ask_driver(struct nova_host *host, enum nova_verb verb, json_t *args, nova_done_fn done, void *arg,
    struct nova_error *err)
{
	struct nova_slot *slot = nova_slot_find(host, text(args, "driver"), err);

	return slot ? nova_slot_call(slot, verb, NULL, args, done, arg, err) : NULL;
}

STARTER(cmd_import)
{
	return ask_driver(host, NOVA_VERB_IMPORT, args, done, arg, err);
}

STARTER(cmd_export)
{
	return ask_driver(host, NOVA_VERB_EXPORT, args, done, arg, err);
}

STARTER(cmd_found)
{
	return ask_driver(host, NOVA_VERB_LIST, args, done, arg, err);
}

STARTER(cmd_metrics)
{
	struct job_list viewer = { host, who, NULL, false };
	char *prometheus;
	json_t *result;

	if (!json_is_true(json_object_get(args, "prometheus")))
		return answer(host, nova_metrics_json(host->metrics, label_visible, &viewer), done, arg, err);
	prometheus = nova_metrics_prometheus(host->metrics, label_visible, &viewer);
	result = json_string(prometheus ? prometheus : "");
	free(prometheus);
	return answer(host, result, done, arg, err);
}

/* ---- jobs ---- */

/* The owner that the guest had then decides, whoever has a guest of this name now. */
static bool row_visible(const struct job_list *jobs, const struct nova_job_row *row)
{
	const char *owner = json_string_value(json_object_get(row->report, "owner"));

	return nova_entry_visible(jobs->host, jobs->who, owner ? owner : row->who ? row->who : "");
}

static int add_job(void *arg, const struct nova_job_row *written)
{
	struct job_list *jobs = arg;
	const struct nova_job *live = nova_job_find(jobs->host, written->id);
	struct nova_job_row now = *written, *row = &now;
	json_t *json;

	nova_debt_ended(jobs->host, row);
	if (!row_visible(jobs, row) || (jobs->running && row->ended_ms))
		return 0;
	json = live ? nova_job_json(live) :
		      json_pack("{s:s, s:s, s:s*, s:s*, s:s, s:s*, s:O*, s:O*, s:I}", "job", row->id, "kind", row->kind,
			  "guest", row->guest, "peer", row->peer, "side", row->side, "who", row->who, "args", row->args,
			  "report", row->report, "started_ms", (json_int_t)row->started_ms);
	if (row->outcome)
		json_object_set_new(json, "outcome", json_string(row->outcome));
	if (row->ended_ms)
		json_object_set_new(json, "ended_ms", json_integer(row->ended_ms));
	json_object_set_new(json, "running", json_boolean(live && live->run));
	json_array_append_new(jobs->list, json);
	return 0;
}

STARTER(cmd_jobs)
{
	NOVA_AUTOJSON json_t *list = json_array();
	struct job_list jobs = { host, who, list, json_is_true(json_object_get(args, "running")) };

	if (nova_store_jobs(host->store, jobs.running ? NOVA_JOBS_OPEN : NOVA_JOBS_ALL, add_job, &jobs, err) < 0)
		return NULL;
	return answer(host, nova_take(&list), done, arg, err);
}

STARTER(cmd_job)
{
	NOVA_AUTOJSON json_t *list = json_array();
	struct job_list jobs = { host, who, list, false };

	if (nova_store_job_find(host->store, text(args, "job"), NULL, add_job, &jobs, err) < 0)
		return NULL;
	if (json_array_size(list) == 0) {
		nova_error_set(err, NOVA_INVALID, "there is no job '%.40s': see novacron jobs", text(args, "job"));
		return NULL;
	}
	return answer(host, json_incref(json_array_get(list, 0)), done, arg, err);
}

static struct nova_job *live_job(struct nova_host *host, const struct nova_identity *who, const json_t *args,
    struct nova_error *err)
{
	struct nova_job *job = nova_job_find(host, text(args, "job"));

	if (job && nova_entry_visible(host, who, job->owner))
		return job;
	nova_error_set(err, NOVA_STATE, "no job '%.40s' is running: see novacron jobs", text(args, "job"));
	return NULL;
}

STARTER(cmd_cancel)
{
	struct nova_job *job = live_job(host, who, args, err);
	struct nova_error why;

	if (!job)
		return NULL;
	if (!job->run) {
		nova_error_set(err, NOVA_STATE, "job %s is in doubt: see novacron resolve", job->id);
		return NULL;
	}
	nova_error_set(&why, NOVA_CANCELLED, "cancelled by %s", who->name);
	if (nova_run_cancel(job->run, &why, err) < 0)
		return NULL;
	return answer(host, json_pack("{s:s}", "job", job->id), done, arg, err);
}

STARTER(cmd_bandwidth)
{
	struct nova_job *job = live_job(host, who, args, err);
	json_int_t rate = json_integer_value(json_object_get(args, "rate"));

	if (!job || nova_migrate_set_rate(job, (uint64_t)rate, err) < 0)
		return NULL;
	return answer(host, json_pack("{s:s, s:I}", "job", job->id, "rate_bps", rate), done, arg, err);
}

STARTER(cmd_host_bandwidth)
{
	json_int_t rate = json_integer_value(json_object_get(args, "rate"));

	if (!host->links) {
		nova_error_set(err, NOVA_STATE, "this daemon has no link to peers: set cert, key, ca and peers");
		return NULL;
	}
	host->plugins->links->host_rate(host->links, (uint64_t)rate);
	return answer(host, json_pack("{s:I}", "rate_bps", rate), done, arg, err);
}

STARTER(cmd_resolve)
{
	struct nova_job *job = live_job(host, who, args, err);

	if (!job)
		return NULL;
	return nova_resolve(
	    job, who, !strcmp(text(args, "keep"), "source"), json_is_true(json_object_get(args, "yes")), done, arg, err);
}

STARTER(cmd_audit)
{
	const char *state_dir = nova_config_text(host->config, "state-dir");
	json_t *result = !strcmp(text(args, "what"), "verify") ?
			     nova_audit_verify(state_dir, err) :
			     nova_audit_show(state_dir, (size_t)json_integer_value(json_object_get(args, "count")), err);

	return result ? answer(host, result, done, arg, err) : NULL;
}

STARTER(cmd_baseline)
{
	const char *guest = json_string_value(json_object_get(args, "guest"));
	uint64_t bytes;
	int count;

	if (!strcmp(text(args, "what"), "list"))
		return answer(host, nova_baselines_list(host->baselines, who, guest), done, arg, err);
	if (!guest == !json_is_true(json_object_get(args, "all"))) {
		nova_error_set(err, NOVA_INVALID, "baseline drop: name a guest, or say all");
		return NULL;
	}
	count = nova_baselines_drop_all(host->baselines, who, guest, &bytes);
	if (guest && !count) {
		nova_error_set(err, NOVA_INVALID, "there is no baseline of a guest '%.60s': see novacron baseline list", guest);
		return NULL;
	}
	return answer(host, json_pack("{s:i, s:I}", "dropped", count, "freed_bytes", (json_int_t)bytes), done, arg, err);
}

/* ---- one-call verbs ---- */

#define VERB(name, VERB) \
	STARTER(name) \
	{ \
		return nova_verb_start(host, who, NOVA_VERB_##VERB, args, done, arg, err); \
	}
VERB(cmd_start, START)
VERB(cmd_pause, PAUSE)
VERB(cmd_resume, RESUME)
VERB(cmd_snapshot, SNAPSHOT)
VERB(cmd_restore, RESTORE)
VERB(cmd_resize, RESIZE)

/* ---- the table ---- */

#define PARAMS static const struct nova_param

PARAMS p_none[] = { END };
PARAMS p_guest[] = { GUEST, END };
PARAMS p_job[] = { JOB, END };
PARAMS p_create[] = {
	GUEST,
	DRIVER,
	{ "owner", NOVA_T_STRING, .metavar = "NAME", .help = "who owns the guest; default: you" },
	{ "spec", NOVA_T_JSON, .metavar = "JSON", .help = "the driver's options as one object" },
	END,
};
PARAMS p_start[] = {
	GUEST,
	{ "paused", NOVA_T_BOOL, .help = "do not let it run yet" },
	END,
};
PARAMS p_stop[] = {
	GUEST,
	{ "force", NOVA_T_BOOL, .help = "at once, like pulling the plug" },
	{ "timeout", NOVA_T_DURATION, .min = 0, .max = 3600000, .fallback = "30s", .metavar = "TIME",
	    .help = "how long the guest may take before it is forced" },
	END,
};
PARAMS p_delete[] = {
	GUEST,
	{ "force", NOVA_T_BOOL, .help = "stop it first if it runs" },
	{ "keep-disks", NOVA_T_BOOL, .help = "leave its disk images" },
	END,
};
PARAMS p_snapshot[] = {
	GUEST,
	{ "name", NOVA_T_STRING, .required = true, .positional = true, .metavar = "NAME", .help = "name of the snapshot" },
	{ "external", NOVA_T_BOOL, .help = "in a new image file, disks only" },
	END,
};
PARAMS p_restore[] = {
	GUEST,
	{ "name", NOVA_T_STRING, .required = true, .positional = true, .metavar = "NAME", .help = "name of the snapshot" },
	END,
};
PARAMS p_resize[] = {
	GUEST,
	{ "memory", NOVA_T_BYTES, .min = 1 << 20, .max = INT64_MAX, .metavar = "SIZE", .help = "memory the guest shall have" },
	{ "vcpus", NOVA_T_INT, .min = 1, .max = 1024, .metavar = "N", .help = "vCPUs the guest shall have" },
	END,
};
PARAMS p_adopt[] = {
	GUEST,
	DRIVER,
	{ "qmp", NOVA_T_PATH, .metavar = "SOCKET", .help = "QMP socket of the running QEMU" },
	{ "id", NOVA_T_STRING, .metavar = "ID", .help = "the runtime's own name of it" },
	{ "spec", NOVA_T_JSON, .metavar = "JSON", .help = "how a destination shall recreate it" },
	{ "owner", NOVA_T_STRING, .metavar = "NAME", .help = "who owns the guest; default: you" },
	END,
};
PARAMS p_migrate[] = {
	GUEST,
	{ "to", NOVA_T_STRING, .required = true, .metavar = "PEER", .help = "host to move it to" },
	{ "mode", NOVA_T_CHOICE, .choices = "live|warm|cold", .fallback = "live", .metavar = "MODE",
	    .help = "live: it runs meanwhile; warm: paused meanwhile; cold: shut down and started there; a container moves warm or cold" },
	{ "bandwidth", NOVA_T_RATE, .min = 0, .max = INT64_MAX, .fallback = "0", .metavar = "RATE", .help = "cap of this migration on the wire" },
	{ "downtime", NOVA_T_DURATION, .min = 1, .max = 3600000, .fallback = "300ms", .metavar = "TIME", .help = "pause that is acceptable" },
	{ "on-stall", NOVA_T_CHOICE, .choices = NOVA_STALL_CHOICES, .fallback = "wait", .metavar = "POLICY",
	    .help = "what to do when the guest writes faster than the link carries" },
	{ "max-time", NOVA_T_DURATION, .min = 0, .max = INT64_MAX, .fallback = "0", .metavar = "TIME", .help = "give up (or act on the stall policy) after this; 0: never" },
	{ "path", NOVA_T_CHOICE, .choices = "relay|direct|auto", .fallback = "relay", .metavar = "PATH",
	    .help = "relay: packed and resumable, through the daemons; direct: from QEMU to QEMU, for fast links; auto: by the measured link" },
	{ "estimate", NOVA_T_BOOL, .help = "predict it first, and compare in the report" },
	{ "ignore-estimate", NOVA_T_BOOL, .help = "begin even if on-stall=abort or max-time would give it up, by the estimate" },
	{ "stop-timeout", NOVA_T_DURATION, .min = 0, .max = 3600000, .fallback = "30s", .metavar = "TIME", .help = "cold: how long the guest may take to shut down before it is forced" },
	{ "codec", NOVA_T_CHOICE, .choices = "auto|none|lz4|zstd", .fallback = "auto", .metavar = "CODEC", .help = "how pages are packed" },
	{ "history", NOVA_T_BYTES, .min = 0, .max = (int64_t)1 << 36, .metavar = "SIZE", .help = "memory for page history on both sides; default: a quarter of the guest's, at most 1GiB" },
	{ "baseline", NOVA_T_BOOL, .fallback = "yes", .help = "use what the destination holds of the guest from earlier (default; --no-baseline: do not)" },
	{ "resume-limit", NOVA_T_DURATION, .min = 0, .max = 86400000, .metavar = "TIME", .help = "how long to redial a lost connection; default: the daemon's" },
	{ "lanes", NOVA_T_INT, .min = 0, .max = 16, .fallback = "0", .metavar = "N", .help = "TCP connections to use; 0: as many as it takes" },
	{ "disk-pool", NOVA_T_PATH, .metavar = "DIR", .help = "directory at the destination for the disks that move with the guest; default: where they are here" },
	{ "disk-map", NOVA_T_LIST, .metavar = "DISK=PATH", .help = "file of one disk at the destination; DISK is disk0, disk1, ..., a path or a file name" },
	{ "include-disk", NOVA_T_LIST, .metavar = "DISK", .help = "move this disk although it is said to be shared" },
	{ "exclude-disk", NOVA_T_LIST, .metavar = "DISK", .help = "do not move this disk: the destination has it" },
	{ "keep-copies", NOVA_T_BOOL, .help = "leave the images here after the move: only what differs moves back" },
	END,
};
PARAMS p_logs[] = {
	GUEST,
	{ "lines", NOVA_T_INT, .min = 1, .max = 100000, .fallback = "100", .metavar = "N", .help = "how many of the last lines" },
	END,
};
#define IMAGE_FILE { "file", NOVA_T_PATH, .required = true, .positional = true, .metavar = "FILE", .help = "file on the host, below the roots" }
#define IMAGE_DRIVER { "driver", NOVA_T_STRING, .required = true, .metavar = "DRIVER", .help = "driver whose runtime keeps the image" }
PARAMS p_import[] = {
	IMAGE_FILE,
	IMAGE_DRIVER,
	{ "name", NOVA_T_STRING, .metavar = "NAME", .help = "the file is a root file system (tar): the image's name; without: an archive of export" },
	END,
};
PARAMS p_export[] = {
	IMAGE_FILE,
	IMAGE_DRIVER,
	{ "name", NOVA_T_STRING, .required = true, .metavar = "NAME", .help = "name of the image" },
	END,
};
PARAMS p_found[] = {
	{ "driver", NOVA_T_STRING, .required = true, .metavar = "DRIVER", .help = "driver whose runtime is asked" },
	END,
};
PARAMS p_estimate[] = {
	GUEST,
	{ "to", NOVA_T_STRING, .required = true, .metavar = "PEER", .help = "host to move it to" },
	{ "bandwidth", NOVA_T_RATE, .min = 0, .max = INT64_MAX, .fallback = "0", .metavar = "RATE", .help = "cap that the migration would have; it holds for the probe, too" },
	{ "downtime", NOVA_T_DURATION, .min = 1, .max = 3600000, .fallback = "300ms", .metavar = "TIME", .help = "pause that is acceptable" },
	END,
};
PARAMS p_jobs[] = {
	{ "running", NOVA_T_BOOL, .help = "only those that have not ended" },
	END,
};
PARAMS p_bandwidth[] = {
	JOB,
	{ "rate", NOVA_T_RATE, .min = 0, .max = INT64_MAX, .required = true, .positional = true, .metavar = "RATE", .help = "the new cap; 0: none" },
	END,
};
PARAMS p_host_bandwidth[] = {
	{ "rate", NOVA_T_RATE, .min = 0, .max = INT64_MAX, .required = true, .positional = true, .metavar = "RATE", .help = "the new cap of all migrations together; 0: none" },
	END,
};
PARAMS p_resolve[] = {
	JOB,
	{ "keep", NOVA_T_CHOICE, .choices = "source|destination", .required = true, .metavar = "SIDE", .help = "which side shall run the guest" },
	{ "yes", NOVA_T_BOOL, .help = "decide; without it only what is known and what the risk is are shown" },
	END,
};
PARAMS p_metrics[] = {
	{ "prometheus", NOVA_T_BOOL, .help = "as Prometheus text" },
	END,
};

PARAMS p_audit[] = {
	{ "what", NOVA_T_CHOICE, .choices = "verify|show", .required = true, .positional = true, .metavar = "WHAT",
	    .help = "verify: is the chain whole; show: the newest lines" },
	{ "count", NOVA_T_INT, .min = 1, .max = 10000, .fallback = "50", .metavar = "N", .help = "how many lines to show" },
	END,
};

PARAMS p_journal[] = {
	{ "what", NOVA_T_CHOICE, .choices = "show|renew", .required = true, .positional = true, .metavar = "WHAT",
	    .help = "show: its file, and whether it can be used; renew: put a file that cannot aside and begin a new one" },
	{ "yes", NOVA_T_BOOL, .help = "renew: do it; without it only what is known and what the risk is are shown" },
	END,
};

PARAMS p_baseline[] = {
	{ "what", NOVA_T_CHOICE, .choices = "list|drop", .required = true, .positional = true, .metavar = "WHAT",
	    .help = "list: what is kept; drop: remove it" },
	{ "guest", NOVA_T_STRING, .positional = true, .metavar = "GUEST", .help = "only of this guest" },
	{ "all", NOVA_T_BOOL, .help = "drop: of every guest" },
	END,
};

PARAMS p_replicate[] = {
	{ "what", NOVA_T_CHOICE, .choices = "create|list|show|pause|resume|delete|export", .required = true, .positional = true,
	    .metavar = "WHAT",
	    .help = "create: begin to keep a replica of a guest on another host; list, show: replicas from and on this host; pause, resume; "
		    "delete: end it (on the standby: remove what is kept); export: write a disk of a point to one new qcow2 file" },
	{ "guest", NOVA_T_STRING, .positional = true, .metavar = "GUEST", .help = "name of the guest" },
	{ "to", NOVA_T_STRING, .metavar = "PEER", .help = "create: the standby" },
	{ "every", NOVA_T_DURATION, .min = NOVA_REPLICA_EVERY_MIN_MS, .max = 86400000, .metavar = "TIME", .help = "create: how often a point is made" },
	{ "rate", NOVA_T_RATE, .min = 0, .max = INT64_MAX, .fallback = "0", .metavar = "RATE", .help = "create: cap on the wire; 0: none" },
	{ "keep", NOVA_T_INT, .min = 1, .max = NOVA_KEEP_MAX, .fallback = "4", .metavar = "N", .help = "create: how many points stay at the standby" },
	{ "pool", NOVA_T_PATH, .metavar = "DIR", .help = "create: directory at the standby for the images; default: its first root" },
	{ "point", NOVA_T_INT, .min = 1, .max = INT64_MAX, .metavar = "POINT", .help = "export: which one; default: the newest" },
	{ "disk", NOVA_T_STRING, .metavar = "DISK", .help = "export: which one (disk0, disk1, ...), if there are several" },
	{ "out", NOVA_T_PATH, .metavar = "FILE", .help = "export: the new file, below the roots" },
	END,
};
PARAMS p_failover[] = {
	GUEST,
	{ "point", NOVA_T_INT, .min = 1, .max = INT64_MAX, .metavar = "POINT", .help = "start from this point; default: the newest" },
	{ "planned", NOVA_T_BOOL, .help = "shut it down where it runs, take over what it wrote last, and start it here: nothing is lost" },
	{ "test", NOVA_T_BOOL, .help = "start a copy, GUEST-test, without network; novacron delete throws it away, its replica goes on" },
	{ "stop-timeout", NOVA_T_DURATION, .min = 1, .max = 600000, .fallback = "60s", .metavar = "TIME", .help = "planned: how long the guest may take to shut down before it is halted" },
	END,
};
PARAMS p_failback[] = {
	GUEST,
	{ "every", NOVA_T_DURATION, .min = NOVA_REPLICA_EVERY_MIN_MS, .max = 86400000, .metavar = "TIME", .help = "how often a point is made; default: as before" },
	{ "rate", NOVA_T_RATE, .min = 0, .max = INT64_MAX, .fallback = "0", .metavar = "RATE", .help = "cap on the wire; 0: none" },
	{ "keep", NOVA_T_INT, .min = 1, .max = NOVA_KEEP_MAX, .metavar = "N", .help = "how many points stay there; default: as before" },
	{ "pool", NOVA_T_PATH, .metavar = "DIR", .help = "directory there for the images; default: its first root" },
	END,
};

static const struct nova_command commands[] = {
	{ "create", "define a guest and prepare what it needs", NOVA_ROLE_OPERATOR, p_create, .start = nova_cmd_create },
	{ "start", "start a guest", NOVA_ROLE_OPERATOR, p_start, .start = cmd_start },
	{ "stop", "shut a guest down", NOVA_ROLE_OPERATOR, p_stop, .start = nova_cmd_stop },
	{ "pause", "halt a guest's processors", NOVA_ROLE_OPERATOR, p_guest, .start = cmd_pause },
	{ "resume", "let a paused guest run", NOVA_ROLE_OPERATOR, p_guest, .start = cmd_resume },
	{ "delete", "remove a guest", NOVA_ROLE_OPERATOR, p_delete, .start = nova_cmd_delete },
	{ "snapshot", "take a snapshot of a guest", NOVA_ROLE_OPERATOR, p_snapshot, .start = cmd_snapshot },
	{ "restore", "go back to a snapshot", NOVA_ROLE_OPERATOR, p_restore, .start = cmd_restore },
	{ "resize", "change a guest's memory or vCPUs", NOVA_ROLE_OPERATOR, p_resize, .start = cmd_resize },
	{ "list", "list guests", NOVA_ROLE_VIEWER, p_none, .start = cmd_list },
	{ "show", "show all that is known of a guest", NOVA_ROLE_VIEWER, p_guest, .start = cmd_show },
	{ "adopt", "take over a guest that somebody else started", NOVA_ROLE_ADMIN, p_adopt, .start = nova_cmd_adopt },
	{ "stats", "show a guest's figures", NOVA_ROLE_VIEWER, p_guest, .start = cmd_stats },
	{ "logs", "show what a guest wrote last", NOVA_ROLE_VIEWER, p_logs, .start = cmd_logs },
	{ "found", "list what a runtime has, ours or not", NOVA_ROLE_ADMIN, p_found, .start = cmd_found },
	{ "import", "make an image of a file", NOVA_ROLE_ADMIN, p_import, .start = cmd_import },
	{ "export", "write an image to a new file", NOVA_ROLE_ADMIN, p_export, .start = cmd_export },
	{ "drivers", "show what this host can do, asked now", NOVA_ROLE_VIEWER, p_none, .start = nova_cmd_drivers },
	{ "peers", "show the other hosts and whether they answer", NOVA_ROLE_VIEWER, p_none, .start = nova_cmd_peers },
	{ "migrate", "move a guest to another host", NOVA_ROLE_OPERATOR, p_migrate, .job = true, .start = nova_cmd_migrate },
	{ "estimate", "predict time, bytes and pause of a migration", NOVA_ROLE_OPERATOR, p_estimate, .start = nova_cmd_estimate },
	{ "cancel", "cancel a job; the guest stays where it was", NOVA_ROLE_OPERATOR, p_job, .start = cmd_cancel },
	{ "bandwidth", "change the cap of a migration", NOVA_ROLE_OPERATOR, p_bandwidth, .start = cmd_bandwidth },
	{ "host-bandwidth", "change the cap of all migrations of this host", NOVA_ROLE_ADMIN, p_host_bandwidth, .start = cmd_host_bandwidth },
	{ "jobs", "list jobs", NOVA_ROLE_VIEWER, p_jobs, .start = cmd_jobs },
	{ "job", "show one job", NOVA_ROLE_VIEWER, p_job, .start = cmd_job },
	{ "resolve", "decide a migration that is in doubt", NOVA_ROLE_ADMIN, p_resolve, .start = cmd_resolve },
	{ "metrics", "show counters", NOVA_ROLE_VIEWER, p_metrics, .start = cmd_metrics },
	{ "audit", "check or show the audit log", NOVA_ROLE_ADMIN, p_audit, .start = cmd_audit },
	{ "journal", "show the journal's state; begin a new one when it is damaged", NOVA_ROLE_ADMIN, p_journal, .start = nova_cmd_journal },
	{ "doctor", "check this host and its configuration, and say what to do", NOVA_ROLE_ADMIN, p_none, .start = nova_cmd_doctor },
	{ "baseline", "list or drop what is kept of the memory of guests that were here", NOVA_ROLE_OPERATOR, p_baseline, .start = cmd_baseline },
	{ "replicate", "keep a replica of a guest's disks on another host, seconds behind", NOVA_ROLE_OPERATOR, p_replicate, .start = nova_cmd_replicate },
	{ "failover", "start a guest from its replica on this host", NOVA_ROLE_OPERATOR, p_failover, .job = true, .start = nova_cmd_failover },
	{ "failback", "replicate a guest that was started from its replica back to where it came from; then failover --planned there", NOVA_ROLE_OPERATOR, p_failback, .start = nova_cmd_failback },
	{ "about", "say who this daemon is", NOVA_ROLE_VIEWER, p_none, .hidden = true, .start = cmd_about },
};

const struct nova_command *nova_commands(size_t *count)
{
	*count = sizeof(commands) / sizeof(*commands);
	return commands;
}
