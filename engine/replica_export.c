/* SPDX-License-Identifier: Apache-2.0
 *
 * replica_export.c - a disk of a point as one file, compared with the point afterwards.
 */
#include "replicate.h"

#include "cleanup.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct export {
	struct nova_op op; /* first */
	struct nova_host *host;
	char token[33];
	json_int_t point;
	size_t disk;
	char *out;               /* owned: the file */
	struct nova_op *waiting; /* owned */
	nova_done_fn done;
	void *arg;
};

static void export_free(struct export *export)
{
	struct nova_replica *replica = nova_replica_by_token(export->host, export->token);

	if (replica)
		replica->readers--;
	free(export->out);
	free(export);
}

static void drop(struct nova_op *op)
{
	struct export *export = (struct export *)op;

	nova_op_drop(export->waiting);
	export_free(export);
}

static void ended(struct export *export, json_t *answer, const struct nova_error *err)
{
	nova_done_fn done = export->done;
	void *arg = export->arg;

	export_free(export);
	done(arg, answer, err);
}

static void copied(void *arg, json_t *result, const struct nova_error *err)
{
	struct export *export = arg;
	NOVA_AUTOJSON json_t *answer = err ? NULL : json_deep_copy(result);

	if (answer)
		json_object_set_new(answer, "point", json_integer(export->point));
	ended(export, answer, err);
}

/* Where the point's images are is only known now: a merge moves them. */
static struct nova_op *copy(struct export *export, struct nova_error *err)
{
	struct nova_replica *replica = nova_replica_by_token(export->host, export->token);
	const json_t *point = replica ? nova_replica_point(replica, export->point) : NULL;
	NOVA_AUTOJSON json_t *how = NULL;

	if (!point) {
		nova_error_set(err, NOVA_STATE, "point %lld is gone", (long long)export->point);
		return NULL;
	}
	how = json_pack("{s:O, s:s}", "path", json_array_get(json_object_get(point, "files"), export->disk), "file", export->out);
	return nova_slot_call(replica->slot, NOVA_VERB_REPLICA_EXPORT, NULL, how, copied, export, err);
}

static void images_rest(void *arg, json_t *result, const struct nova_error *failure)
{
	struct export *export = arg;
	struct nova_error err;

	export->waiting = NULL;
	if (failure)
		err = *failure;
	else
		export->waiting = copy(export, &err);
	if (!export->waiting)
		ended(export, NULL, &err);
}

/* Which of the replica's disks: the one that was named, or the only one. -1 and *err. */
static int disk_of(const struct nova_replica *replica, const char *name, struct nova_error *err)
{
	const json_t *disks = json_object_get(replica->body, "disks");

	for (size_t i = 0; name && i < json_array_size(disks); i++)
		if (!strcmp(name, json_string_value(json_object_get(json_array_get(disks, i), "disk"))))
			return (int)i;
	if (name)
		return nova_error_set(err, NOVA_INVALID, "guest %s has no %.40s: there are disk0, disk1, ... (%zu)", replica->guest, name,
		    json_array_size(disks));
	if (json_array_size(disks) == 1)
		return 0;
	return nova_error_set(
	    err, NOVA_INVALID, "guest %s has %zu disks: say which (--disk disk0)", replica->guest, json_array_size(disks));
}

struct nova_op *nova_replica_export(struct nova_replica *replica, json_t *args, nova_done_fn done, void *arg,
    struct nova_error *err)
{
	json_int_t id = json_integer_value(json_object_get(args, "point"));
	const json_t *point = nova_replica_point(replica, id);
	const char *out = json_string_value(json_object_get(args, "out"));
	int disk = disk_of(replica, json_string_value(json_object_get(args, "disk")), err);
	struct export *export;

	if (disk < 0)
		return NULL;
	if (!point || !out) {
		nova_error_set(err, NOVA_INVALID, point ? "replicate export: name a new file (--out FILE)" :
							  "guest %s has no such point: see novacron replicate show %s",
		    replica->guest, replica->guest);
		return NULL;
	}
	export = calloc(1, sizeof(*export));
	if (!export || !(export->out = strdup(out))) {
		free(export);
		nova_error_sys(err, ENOMEM, "export");
		return NULL;
	}
	export->op.drop = drop;
	export->host = replica->host;
	export->point = json_integer_value(json_object_get(point, "id"));
	export->disk = (size_t)disk;
	memcpy(export->token, replica->token, sizeof(export->token));
	export->done = done;
	export->arg = arg;
	replica->readers++;
	export->waiting = nova_replica_wait(replica, NOVA_REPLICA_MERGE_MS, images_rest, export, err);
	if (export->waiting)
		return &export->op;
	export_free(export);
	return NULL;
}
