/* SPDX-License-Identifier: Apache-2.0
 *
 * host.c - the engine on one event_base: opens the store, the drivers, the links to peers and the control
 * socket, and lets go of them again. Guests live on when it is freed. Not here: what commands do
 * (commands.c, verbs.c, migrate_*.c) and what a restart finds (recover.c).
 */
#include "audit.h"
#include "baseline_store.h"
#include "host.h"
#include "replicate.h"

#include <errno.h>
#include <event2/event.h>
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

static const struct nova_metric metric_table[] = {
	{ "novacron_jobs_total", NOVA_COUNTER, "outcome", "Ended jobs by outcome." },
	{ "novacron_commands_total", NOVA_COUNTER, "command", "Commands started." },
	{ "novacron_commands_failed_total", NOVA_COUNTER, "category", "Commands refused or failed, by category." },
	{ "novacron_migration_raw_bytes_total", NOVA_COUNTER, "side", "Bytes of migration streams before encoding." },
	{ "novacron_migration_wire_bytes_total", NOVA_COUNTER, "side", "Bytes on the wire for migrations." },
	{ "novacron_migration_downtime_ms", NOVA_GAUGE, "guest", "Downtime of a guest's last migration." },
	{ "novacron_migration_remaining_bytes", NOVA_GAUGE, "guest", "Bytes a running migration has to send." },
	{ "novacron_replica_lag_ms", NOVA_GAUGE, "guest", "Age of the newest point at the standby." },
	{ "novacron_replica_rpo_ms", NOVA_GAUGE, "guest", "Age that the standby's newest point had when the last one replaced it." },
	{ "novacron_replica_points_total", NOVA_COUNTER, "guest", "Points that arrived at the standby." },
	{ "novacron_replica_wire_bytes_total", NOVA_COUNTER, "guest", "Bytes on the wire for points." },
	{ "novacron_replica_violations_total", NOVA_COUNTER, "guest", "How often the newest point became too old." },
	{ "novacron_replica_failures_total", NOVA_COUNTER, "guest", "Attempts to make a point that failed." },
	{ NULL },
};

const char *nova_config_text(const struct nova_config *config, const char *name)
{
	const char *text = json_string_value(nova_config_get(config, name));

	return text ? text : "";
}

int64_t nova_config_int(const struct nova_config *config, const char *name)
{
	return json_integer_value(nova_config_get(config, name));
}

const char *nova_host_name(const struct nova_host *host)
{
	return nova_config_text(host->config, "name");
}

void nova_host_emit(struct nova_host *host, const char *event, json_t *data)
{
	if (host->control && !host->closing)
		host->plugins->control->emit(host->control, event, data);
	if (!host->closing)
		nova_remote_emit(host, event, data);
	if (host->on_event)
		host->on_event(host->on_event_arg, event, data);
	json_decref(data);
}

void nova_host_log(struct nova_host *host, enum nova_log_level level, const char *format, ...)
{
	char line[1024];
	va_list ap;

	if (!host->on_log)
		return;
	va_start(ap, format);
	vsnprintf(line, sizeof(line), format, ap);
	va_end(ap);
	host->on_log(host->on_log_arg, level, line);
}

void nova_host_on_event(struct nova_host *host, nova_event_fn fn, void *arg)
{
	host->on_event = fn;
	host->on_event_arg = arg;
}

int nova_host_port(const struct nova_host *host)
{
	return host->links ? host->plugins->links->port(host->links) : 0;
}

const char *nova_host_control_path(const struct nova_host *host)
{
	return host->control_path;
}

/* ---- roles -------------------------------------------------------------------------------------- */

static bool listed(const json_t *list, const char *kind, const char *name, unsigned id)
{
	char by_name[160], by_id[64];
	size_t i;
	json_t *item;

	snprintf(by_name, sizeof(by_name), "%s:%s", kind, name);
	snprintf(by_id, sizeof(by_id), "%s:%u", kind, id);
	json_array_foreach (list, i, item)
		if (!strcmp(json_string_value(item), by_name) || !strcmp(json_string_value(item), by_id))
			return true;
	return false;
}

static const struct {
	const char *option;
	enum nova_role role;
} role_lists[] = {
	{ "admins", NOVA_ROLE_ADMIN },
	{ "operators", NOVA_ROLE_OPERATOR },
	{ "viewers", NOVA_ROLE_VIEWER },
};
#define ROLE_LISTS (sizeof(role_lists) / sizeof(*role_lists))

void nova_host_identify(const struct nova_host *host, unsigned uid, unsigned gid, int pid,
    struct nova_identity *who)
{
	const struct passwd *user = getpwuid(uid);
	const struct group *group = getgrgid(gid);

	memset(who, 0, sizeof(*who));
	if (user)
		snprintf(who->name, sizeof(who->name), "%s", user->pw_name);
	else
		snprintf(who->name, sizeof(who->name), "%u", uid);
	snprintf(who->from, sizeof(who->from), "unix uid %u pid %d", uid, pid);
	who->role = uid == 0 ? NOVA_ROLE_ADMIN : NOVA_ROLE_NONE;
	for (size_t i = 0; i < ROLE_LISTS && who->role == NOVA_ROLE_NONE; i++) {
		const json_t *list = nova_config_get(host->config, role_lists[i].option);

		if (listed(list, "uid", who->name, uid) || listed(list, "gid", group ? group->gr_name : "", gid))
			who->role = role_lists[i].role;
	}
}

void nova_host_identify_certificate(const struct nova_host *host, const char *name, const char *from,
    struct nova_identity *who)
{
	char entry[160];
	size_t n;
	json_t *item;

	memset(who, 0, sizeof(*who));
	snprintf(who->name, sizeof(who->name), "%s", name ? name : "");
	snprintf(who->from, sizeof(who->from), "tls %.100s", from);
	snprintf(entry, sizeof(entry), "cert:%s", who->name);
	for (size_t i = 0; i < ROLE_LISTS && name && who->role == NOVA_ROLE_NONE; i++)
		json_array_foreach (nova_config_get(host->config, role_lists[i].option), n, item)
			if (!strcmp(json_string_value(item), entry))
				who->role = role_lists[i].role;
}

bool nova_host_may_see(const struct nova_host *host, const struct nova_identity *who, const char *event, json_t *data)
{
	const char *owner = json_string_value(json_object_get(data, "owner"));

	return nova_entry_visible(host, who, owner ? owner : "");
}

/* ---- drivers ------------------------------------------------------------------------------------ */

struct nova_slot *nova_slot_find(struct nova_host *host, const char *driver, struct nova_error *err)
{
	for (size_t i = 0; i < host->slot_count; i++) {
		struct nova_slot *slot = &host->slots[i];

		if (strcmp(slot->ops->name, driver))
			continue;
		if (slot->self)
			return slot;
		nova_error_copy(err, &slot->failure);
		nova_error_prefix(err, "driver %s", driver);
		return NULL;
	}
	nova_error_set(err, NOVA_INVALID, "there is no driver '%.40s': see novacron drivers", driver);
	return NULL;
}

struct nova_op *nova_slot_call(struct nova_slot *slot, enum nova_verb verb, struct nova_guest *guest, json_t *args,
    nova_done_fn done, void *arg, struct nova_error *err)
{
	if (!slot->self) {
		nova_error_copy(err, &slot->failure);
		return NULL;
	}
	if (!slot->ops->verb[verb]) {
		nova_error_set(err, NOVA_REFUSED, "%s is not supported by driver %s", nova_verb_name(verb),
		    slot->ops->name);
		return NULL;
	}
	return slot->ops->verb[verb](slot->self, guest, args, done, arg, err);
}

static int make_directory(const char *path, struct nova_error *err)
{
	if (mkdir(path, 0700) == 0 || errno == EEXIST)
		return 0;
	return nova_error_sys(err, errno, "directory %s", path);
}

static void driver_log(void *arg, enum nova_log_level level, const char *line)
{
	nova_host_log(arg, level, "%s", line);
}

static void slot_open(struct nova_host *host, struct nova_slot *slot, const struct nova_driver *ops)
{
	struct nova_driver_env env = { .base = host->base, .config = host->config, .log = driver_log, .log_arg = host };

	slot->ops = ops;
	if (asprintf(&slot->state_dir, "%s", nova_config_text(host->config, "state-dir")) < 0 ||
	    asprintf(&slot->runtime_dir, "%s", nova_config_text(host->config, "runtime-dir")) < 0) {
		nova_error_sys(&slot->failure, ENOMEM, "driver %s", ops->name);
		return;
	}
	env.state_dir = slot->state_dir;
	env.runtime_dir = slot->runtime_dir;
	slot->self = ops->open(&env, &slot->failure);
	if (!slot->self)
		nova_host_log(host, NOVA_LOG_WARNING, "driver %s: %s", ops->name, slot->failure.text);
}

static int open_drivers(struct nova_host *host, struct nova_error *err)
{
	size_t count = 0;

	while (host->plugins->drivers[count])
		count++;
	host->slots = calloc(count + 1, sizeof(*host->slots));
	if (!host->slots)
		return nova_error_sys(err, ENOMEM, "drivers");
	for (host->slot_count = 0; host->slot_count < count; host->slot_count++)
		slot_open(host, &host->slots[host->slot_count], host->plugins->drivers[host->slot_count]);
	return 0;
}

const struct nova_param *nova_driver_params(const char *driver, size_t *count)
{
	for (size_t i = 0; nova_builtin.drivers[i]; i++) {
		const struct nova_param *params = nova_builtin.drivers[i]->spec_params;

		if (strcmp(nova_builtin.drivers[i]->name, driver))
			continue;
		for (*count = 0; params && params[*count].name;)
			++*count;
		return params;
	}
	*count = 0;
	return NULL;
}

const char *nova_driver_name(size_t index)
{
	for (size_t i = 0; i <= index; i++)
		if (!nova_builtin.drivers[i])
			return NULL;
	return nova_builtin.drivers[index]->name;
}

/* ---- open and close ----------------------------------------------------------------------------- */

static void links_log(void *arg, enum nova_log_level level, const char *line)
{
	nova_host_log(arg, level, "%s", line);
}

static int open_links(struct nova_host *host, struct nova_error *err)
{
	if (!nova_config_text(host->config, "cert")[0]) {
		if (json_array_size(nova_config_get(host->config, "listen")))
			return nova_error_set(err, NOVA_INVALID,
			    "listen is set but cert, key and ca are not: peers are met over mutual TLS only");
		return 0;
	}
	host->links = host->plugins->links->open(host->base, host->config, nova_migrate_accept, links_log, host, err);
	return host->links ? 0 : -1;
}

static int open_control(struct nova_host *host, struct nova_error *err)
{
	const char *path = nova_config_text(host->config, "control-socket");

	if (path[0] ? asprintf(&host->control_path, "%s", path) < 0 :
		      asprintf(&host->control_path, "%s/control.sock", nova_config_text(host->config, "runtime-dir")) < 0)
		return nova_error_sys(err, ENOMEM, "control socket");
	host->control = host->plugins->control->open(
	    host->base, host, host->control_path, nova_config_text(host->config, "control-group"), err);
	return host->control ? 0 : -1;
}

/* Without them migrations take more bytes, that is all. */
static void open_baselines(struct nova_host *host)
{
	struct nova_error err;

	host->baselines = nova_baselines_open(host, &err);
	if (!host->baselines)
		nova_host_log(host, NOVA_LOG_WARNING, "no baselines: %s", err.text);
}

/* Guests that run need a daemon also when the journal cannot be used: a stand-in serves them. */
static int open_journal(struct nova_host *host, struct nova_error *err)
{
	const char *state_dir = nova_config_text(host->config, "state-dir");
	struct nova_error why;

	host->store = nova_store_open(state_dir, &why);
	if (!host->store && nova_store_may_stand_in(&why))
		host->store = nova_store_stand_in(state_dir, nova_config_text(host->config, "runtime-dir"), &why, &why);
	if (!host->store)
		return nova_error_copy(err, &why);
	if (nova_store_refusal(host->store))
		nova_host_log(host, NOVA_LOG_ERROR, "%s", nova_store_refusal(host->store));
	return 0;
}

static int open_all(struct nova_host *host, struct nova_error *err)
{
	if (make_directory(nova_config_text(host->config, "state-dir"), err) < 0 ||
	    make_directory(nova_config_text(host->config, "runtime-dir"), err) < 0)
		return -1;
	if (open_journal(host, err) < 0)
		return -1;
	host->audit = nova_audit_open(nova_config_text(host->config, "state-dir"), err);
	if (!host->audit && !nova_store_refusal(host->store))
		return -1;
	if (!host->audit) /* the same disk: guests come first */
		nova_host_log(host, NOVA_LOG_ERROR, "nothing is audited: %s", err->text);
	open_baselines(host);
	if (open_drivers(host, err) < 0 || nova_replicas_open(host, err) < 0 || open_links(host, err) < 0 ||
	    nova_recover(host, err) < 0 || nova_replicates_open(host, err) < 0)
		return -1;
	return open_control(host, err);
}

struct nova_host *nova_host_new(struct event_base *base, const struct nova_config *config, nova_log_fn log,
    void *log_arg, struct nova_error *err)
{
	struct nova_host *host = calloc(1, sizeof(*host));

	if (!host) {
		nova_error_sys(err, ENOMEM, "host");
		return NULL;
	}
	host->base = base;
	host->config = config;
	host->plugins = &nova_builtin;
	host->on_log = log;
	host->on_log_arg = log_arg;
	TAILQ_INIT(&host->guests);
	TAILQ_INIT(&host->jobs);
	TAILQ_INIT(&host->incomings);
	TAILQ_INIT(&host->remotes);
	TAILQ_INIT(&host->replicates);
	TAILQ_INIT(&host->replicas);
	TAILQ_INIT(&host->debts);
	host->metrics = nova_metrics_new(metric_table);
	if (host->metrics && nova_debts_open(host, err) == 0 && nova_leftovers_open(host, err) == 0 && open_all(host, err) == 0)
		return host;
	if (!host->metrics)
		nova_error_sys(err, ENOMEM, "host");
	return nova_host_free(host);
}

struct nova_host *nova_host_free(struct nova_host *host)
{
	if (!host)
		return NULL;
	host->closing = true;
	nova_debts_close(host); /* while the guests are known */
	if (host->control)
		host->plugins->control->close(host->control);
	nova_recovery_free(host->recovery);
	while (!TAILQ_EMPTY(&host->jobs))
		nova_job_free(TAILQ_FIRST(&host->jobs));
	nova_replicates_close(host);
	nova_incoming_close_all(host);
	nova_replicas_close(host);
	while (!TAILQ_EMPTY(&host->guests))
		nova_entry_free(TAILQ_FIRST(&host->guests));
	nova_baselines_close(host->baselines);
	if (host->links)
		host->plugins->links->close(host->links);
	for (size_t i = 0; i < host->slot_count; i++) {
		if (host->slots[i].self)
			host->slots[i].ops->close(host->slots[i].self);
		json_decref(host->slots[i].probe);
		free(host->slots[i].state_dir);
		free(host->slots[i].runtime_dir);
	}
	free(host->slots);
	nova_audit_close(host->audit);
	nova_leftovers_free(host);
	nova_store_close(host->store);
	nova_metrics_free(host->metrics);
	free(host->control_path);
	free(host);
	return NULL;
}
