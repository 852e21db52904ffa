/* SPDX-License-Identifier: Apache-2.0
 *
 * access_host.h - for unit tests of who may do what: a real host in a private directory, commands run to their end as
 * somebody. Header only.
 */
#ifndef NOVA_TEST_ACCESS_HOST_H
#define NOVA_TEST_ACCESS_HOST_H

#include "engine/cleanup.h"
#include "engine/host.h"
#include "loop.h"

struct access_host {
	struct loop loop;
	struct nova_config *config;
	struct nova_host *host;
	bool over;
	json_t *result; /* owned */
	struct nova_error err;
};

static inline void access_set(struct access_host *a, const char *name, const char *value)
{
	struct nova_error err;

	if (nova_config_set(a->config, name, value, &err) < 0)
		fail_msg("%s", err.text);
}

static inline void access_log(void *arg, enum nova_log_level level, const char *line)
{
}

/* A directory and a configuration; options may follow. */
static inline void access_prepare(struct access_host *a)
{
	char path[128];

	memset(a, 0, sizeof(*a));
	loop_init(&a->loop);
	a->config = nova_config_new();
	access_set(a, "name", "alpha");
	snprintf(path, sizeof(path), "%s/state", a->loop.dir);
	access_set(a, "state-dir", path);
	snprintf(path, sizeof(path), "%s/run", a->loop.dir);
	access_set(a, "runtime-dir", path);
}

static inline void access_start(struct access_host *a)
{
	a->host = nova_host_new(a->loop.base, a->config, access_log, NULL, &a->err);
	if (!a->host)
		fail_msg("%s", a->err.text);
	LOOP_UNTIL(&a->loop, !a->host->recovery);
}

/* options: pairs of name and value, ends with NULL. */
static inline void access_open(struct access_host *a, const char *const *options)
{
	access_prepare(a);
	for (; options && *options; options += 2)
		access_set(a, options[0], options[1]);
	access_start(a);
}

static inline void access_close(struct access_host *a)
{
	char command[256];

	nova_host_free(a->host);
	nova_config_free(a->config);
	json_decref(a->result);
	snprintf(command, sizeof(command), "rm -rf %s/state %s/run", a->loop.dir, a->loop.dir);
	assert_int_equal(system(command), 0);
	loop_release(&a->loop);
}

static inline struct nova_identity access_who(enum nova_role role, const char *name)
{
	struct nova_identity who = { .role = role, .from = "test" };

	snprintf(who.name, sizeof(who.name), "%s", name);
	return who;
}

static inline void access_done(void *arg, json_t *result, const struct nova_error *err)
{
	struct access_host *a = arg;

	a->over = true;
	a->result = json_incref(result);
	if (err)
		a->err = *err;
}

/* 0: a->result is the answer; -1: a->err says why not. args is stolen. */
static inline int access_run(struct access_host *a, const struct nova_identity *who, const char *command, json_t *args)
{
	struct nova_op *op;

	json_decref(a->result);
	a->result = NULL;
	a->over = false;
	a->err = (struct nova_error){ 0 };
	op = nova_host_execute(a->host, who, command, args, access_done, a, &a->err);
	json_decref(args);
	if (!op)
		return -1;
	LOOP_UNTIL(&a->loop, a->over);
	return a->err.category ? -1 : 0;
}

/* A guest in the table, as one that came some time ago; needs in MiB. */
static inline struct nova_entry *access_guest(struct access_host *a, const char *name, const char *owner, int memory_mib,
    int vcpus, int disk_mib)
{
	NOVA_AUTOJSON json_t *needs = json_pack("{s:I, s:i, s:I}", "memory_bytes", (json_int_t)memory_mib << 20, "vcpus", vcpus,
	    "disk_bytes", (json_int_t)disk_mib << 20);
	NOVA_AUTOJSON json_t *spec = json_object();
	char uuid[37];
	struct nova_entry *entry;

	nova_uuid_new(uuid);
	entry = nova_entry_new(a->host, &a->host->slots[0], name, uuid, owner, spec, needs, &a->err);
	assert_non_null(entry);
	assert_int_equal(nova_entry_save(entry, &a->err), 0);
	return entry;
}

#endif
