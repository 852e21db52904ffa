/* SPDX-License-Identifier: Apache-2.0
 *
 * admission.c - does a guest fit on this host, and into what its owner may have here? Every guest in the table
 * counts, running or not, and so does one that is still on its way in: a place once given is not given twice. Replicas of
 * guests elsewhere count with their disks.
 *
 * Check and reservation are one act, since nothing else runs between nova_admit_guest() and the entry in the
 * table (or its new needs). Not here: what a guest needs (the driver says), whether its files fit on their disk.
 */
#include "replicate.h"

#include <inttypes.h>
#include <string.h>
#include <unistd.h>

/* Whose guests are counted. */
struct scope {
	const struct nova_host *host;
	const char *owner;    /* NULL: the whole host */
	const json_t *limits; /* of the owner; NULL with owner: none */
};

struct resource {
	const char *limit; /* option */
	const char *need;  /* member of needs; NULL: the guest itself */
	const char *what;
	bool bytes;
	int64_t (*host_has)(void); /* when the host's option is 0; NULL: no limit then */
};

static int64_t host_memory(void)
{
	return (int64_t)sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGESIZE);
}

static const struct resource resources[] = {
	{ "max-guests", NULL, "guests", false, NULL },
	{ "max-memory", "memory_bytes", "memory", true, host_memory },
	{ "max-vcpus", "vcpus", "vCPUs", false, NULL },
	{ "max-disk", "disk_bytes", "disk", true, NULL },
};

static struct scope scope_of_owner(const struct nova_host *host, const char *owner)
{
	const json_t *owners = nova_config_get(host->config, "owners");
	const json_t *limits = json_object_get(owners, owner);

	return (struct scope){ host, owner, limits ? limits : json_object_get(owners, "*") };
}

/* 0: no limit. */
static int64_t limit_of(const struct scope *scope, const char *option, int64_t (*host_has)(void))
{
	int64_t most;

	if (scope->owner)
		return json_integer_value(json_object_get(scope->limits, option));
	most = nova_config_int(scope->host->config, option);
	return most == 0 && host_has ? host_has() : most;
}

static int64_t need_of(const json_t *needs, const struct resource *resource)
{
	return resource->need ? json_integer_value(json_object_get(needs, resource->need)) : 1;
}

static int64_t used_by_others(const struct scope *scope, const char *name, const struct resource *resource)
{
	const struct nova_entry *entry;
	int64_t used = 0;

	TAILQ_FOREACH (entry, &scope->host->guests, link)
		if (strcmp(entry->name, name) && (!scope->owner || !strcmp(entry->owner, scope->owner)))
			used += need_of(entry->needs, resource);
	if (resource->need && !strcmp(resource->need, "disk_bytes"))
		used += nova_replicas_disk_bytes(scope->host, scope->owner, name);
	return used;
}

static int check(const struct scope *scope, const char *name, const struct resource *resource, const json_t *needs,
    struct nova_error *err)
{
	int64_t most = limit_of(scope, resource->limit, resource->host_has), unit = resource->bytes ? 1 << 20 : 1;
	int64_t want = need_of(needs, resource), used;
	const char *mib = resource->bytes ? " MiB" : "", *owner = scope->owner ? scope->owner : "";

	if (most == 0)
		return 0;
	used = used_by_others(scope, name, resource);
	if (want <= most && used <= most - want)
		return 0;
	return nova_error_set(err, NOVA_REFUSED,
	    "no capacity on %s for guest %s%s%s: it needs %" PRId64 "%s of %s, %" PRId64 "%s of %" PRId64
	    "%s are taken (limit %s%s%s)",
	    nova_host_name(scope->host), name, scope->owner ? " of " : "", owner, want / unit + (want % unit != 0), mib,
	    resource->what, used / unit, mib, most / unit, mib, resource->limit, scope->owner ? " of owner " : "", owner);
}

int nova_admit_guest(struct nova_host *host, const char *name, const char *owner, const json_t *needs,
    struct nova_error *err)
{
	const struct scope scopes[] = { { .host = host }, scope_of_owner(host, owner) };

	for (size_t i = 0; i < 2; i++)
		for (size_t j = 0; j < sizeof(resources) / sizeof(*resources); j++)
			if (check(&scopes[i], name, &resources[j], needs, err) < 0)
				return -1;
	return 0;
}

/* Those that run: one in doubt waits and moves nothing. side NULL: both; owner NULL: everybody's. */
static int64_t migrations(const struct nova_job *but, const char *side, const char *owner)
{
	const struct nova_job *job;
	int64_t count = 0;

	TAILQ_FOREACH (job, &but->host->jobs, link)
		count += job != but && job->run && !strcmp(job->kind, "migrate") && (!side || !strcmp(job->side, side)) &&
			 (!owner || !strcmp(job->owner, owner));
	return count;
}

int nova_admit_migration(const struct nova_job *job, struct nova_error *err)
{
	bool incoming = !strcmp(job->side, "destination");
	const struct scope host = { .host = job->host }, owner = scope_of_owner(job->host, job->owner);
	const char *option = incoming ? "max-incoming" : "max-outgoing";
	int64_t most = limit_of(&host, option, NULL), quota = limit_of(&owner, "max-migrations", NULL);
	int64_t count = migrations(job, job->side, NULL), own = migrations(job, NULL, job->owner);

	if (most && count >= most)
		return nova_error_set(err, NOVA_REFUSED, "%s has %" PRId64 " %s migrations already (limit %s %" PRId64 ")",
		    nova_host_name(job->host), count, incoming ? "incoming" : "outgoing", option, most);
	if (quota && own >= quota)
		return nova_error_set(err, NOVA_REFUSED,
		    "%s has %" PRId64 " migrations of %s already (limit max-migrations of owner %s %" PRId64 ")",
		    nova_host_name(job->host), own, job->owner, job->owner, quota);
	return 0;
}
