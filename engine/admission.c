/* SPDX-License-Identifier: Apache-2.0
 *
 * admission.c - does a guest fit on this host? Every guest in the table counts, running or not, and so
 * does one that is still on its way in: a place once given is not given twice.
 */
#include "host.h"

#include <inttypes.h>
#include <string.h>
#include <unistd.h>

struct limit {
	const char *option; /* configuration */
	const char *need;   /* member of needs */
	const char *what;
	bool bytes;
	int64_t (*host_has)(void); /* when the option is 0; NULL: no limit then */
};

static int64_t host_memory(void)
{
	return (int64_t)sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGESIZE);
}

static const struct limit limits[] = {
	{ "max-memory", "memory_bytes", "memory", true, host_memory },
	{ "max-vcpus", "vcpus", "vCPUs", false, NULL },
	{ "max-disk", "disk_bytes", "disk", true, NULL },
};

static int64_t need_of(const json_t *needs, const char *key)
{
	return json_integer_value(json_object_get(needs, key));
}

static int check_limit(struct nova_host *host, const char *name, const struct limit *limit, const json_t *needs,
    struct nova_error *err)
{
	int64_t most = nova_config_int(host->config, limit->option);
	int64_t want = need_of(needs, limit->need), used = 0;
	const struct nova_entry *entry;
	int64_t unit = limit->bytes ? 1 << 20 : 1;

	if (most == 0 && limit->host_has)
		most = limit->host_has();
	if (most == 0)
		return 0;
	TAILQ_FOREACH (entry, &host->guests, link)
		if (strcmp(entry->name, name))
			used += need_of(entry->needs, limit->need);
	if (used + want <= most)
		return 0;
	return nova_error_set(err, NOVA_REFUSED,
	    "no capacity on %s for guest %s: it needs %" PRId64 "%s of %s, %" PRId64 "%s of %" PRId64
	    "%s are taken (limit %s)",
	    nova_host_name(host), name, want / unit, limit->bytes ? " MiB" : "", limit->what, used / unit,
	    limit->bytes ? " MiB" : "", most / unit, limit->bytes ? " MiB" : "", limit->option);
}

int nova_admit_guest(struct nova_host *host, const char *name, const json_t *needs, struct nova_error *err)
{
	int64_t most = nova_config_int(host->config, "max-guests"), count = 0;
	const struct nova_entry *entry;

	TAILQ_FOREACH (entry, &host->guests, link)
		count += strcmp(entry->name, name) != 0;
	if (most && count >= most)
		return nova_error_set(err, NOVA_REFUSED,
		    "no capacity on %s for guest %s: it has %" PRId64 " guests (limit max-guests %" PRId64 ")",
		    nova_host_name(host), name, count, most);
	for (size_t i = 0; i < sizeof(limits) / sizeof(*limits); i++)
		if (check_limit(host, name, &limits[i], needs, err) < 0)
			return -1;
	return 0;
}

int nova_admit_migration(struct nova_host *host, bool incoming, struct nova_error *err)
{
	const char *option = incoming ? "max-incoming" : "max-outgoing";
	const char *side = incoming ? "destination" : "source";
	int64_t most = nova_config_int(host->config, option), count = 0;
	const struct nova_job *job;

	TAILQ_FOREACH (job, &host->jobs, link)
		count += !strcmp(job->side, side);
	if (most == 0 || count < most)
		return 0;
	return nova_error_set(err, NOVA_REFUSED,
	    "%s has %" PRId64 " %s migrations already (limit %s %" PRId64 ")", nova_host_name(host), count,
	    incoming ? "incoming" : "outgoing", option, most);
}
