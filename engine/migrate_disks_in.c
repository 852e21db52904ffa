/* SPDX-License-Identifier: Apache-2.0
 *
 * migrate_disks_in.c - the destination's half of carried disks: a way for each channel that the source opens. See
 * migrate_disks.h.
 */
#include "migrate_disks.h"

#include "cleanup.h"
#include "migrate.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct disk {
	struct nova_disks_in *disks; /* borrowed */
	char *name, *seed;           /* owned; seed NULL: no older copy */
	struct nova_disk_in *way;    /* owned */
	bool arrived;
};

struct nova_disks_in {
	struct nova_host *host; /* borrowed */
	const struct nova_disks_in_events *events;
	void *arg;
	char *path; /* owned: of the hypervisor's NBD server */
	size_t count;
	struct disk disk[];
};

static char *copy_text(const json_t *object, const char *name)
{
	const char *text = json_string_value(json_object_get(object, name));

	return text ? strdup(text) : NULL;
}

struct nova_disks_in *nova_disks_in_new(struct nova_host *host, const json_t *served,
    const struct nova_disks_in_events *events, void *arg, struct nova_error *err)
{
	const json_t *list = json_object_get(served, "disks");
	size_t count = json_array_size(list);
	struct nova_disks_in *disks = calloc(1, sizeof(*disks) + count * sizeof(*disks->disk));

	if (!disks) {
		nova_error_sys(err, ENOMEM, "disks");
		return NULL;
	}
	disks->host = host;
	disks->events = events;
	disks->arg = arg;
	disks->count = count;
	disks->path = copy_text(served, "path");
	for (size_t i = 0; i < count; i++) {
		disks->disk[i].disks = disks;
		disks->disk[i].name = copy_text(json_array_get(list, i), "disk");
		disks->disk[i].seed = copy_text(json_array_get(list, i), "seed");
		if (!disks->disk[i].name || !disks->path) {
			nova_error_set(err, NOVA_REFUSED, "the driver gave no socket for disks");
			return nova_disks_in_free(disks);
		}
	}
	return disks;
}

static void way_ready(void *arg)
{
}

static void way_ended(void *arg, const struct nova_error *err)
{
	struct disk *disk = arg;
	struct nova_disks_in *disks = disk->disks;
	struct nova_error why;

	if (!err) {
		disk->arrived = true;
		disks->events->changed(disks->arg);
		return;
	}
	why = *err;
	disks->events->failed(disks->arg, &why);
}

static const struct nova_disk_events way_events = { way_ready, way_ended };

int nova_disks_in_channel(
    struct nova_disks_in *disks, uint16_t id, struct nova_channel *channel, struct nova_error *err)
{
	size_t i = (size_t)id - NOVA_DISK_CHANNEL;
	struct disk *disk = i < disks->count ? &disks->disk[i] : NULL;

	if (!disk || disk->way) {
		channel->ops->free(channel);
		return nova_error_set(err, NOVA_INVALID, "channel %u belongs to no disk that is expected", id);
	}
	disk->way = nova_disk_in_new(disks->host->base, disks->host->plugins->links, channel, disks->path, disk->name,
	    disk->seed, NULL, &way_events, disk, err);
	return disk->way ? 0 : -1;
}

bool nova_disks_in_arrived(const struct nova_disks_in *disks)
{
	for (size_t i = 0; i < disks->count; i++)
		if (!disks->disk[i].arrived)
			return false;
	return true;
}

int nova_disks_in_check(const struct nova_disks_in *disks, const json_t *digests, struct nova_error *err)
{
	if (json_array_size(digests) != disks->count)
		return nova_error_set(err, NOVA_REFUSED, "%zu disks are expected, %zu were sent", disks->count,
		    json_array_size(digests));
	for (size_t i = 0; i < disks->count; i++) {
		const json_t *theirs = json_array_get(digests, i);
		const char *sent = json_string_value(json_object_get(theirs, "digest"));
		NOVA_AUTOJSON json_t *ours = NULL;
		uint8_t digest[16];
		uint64_t bytes;

		nova_disk_in_digest(disks->disk[i].way, digest, &bytes);
		ours = nova_digest_json(digest);
		if (!ours)
			return nova_error_sys(err, ENOMEM, "the digest of %s", disks->disk[i].name);
		if (!sent || strcmp(sent, json_string_value(ours)) ||
		    bytes != (uint64_t)json_integer_value(json_object_get(theirs, "bytes")))
			return nova_error_set(err, NOVA_REFUSED, "%s differs from what was sent", disks->disk[i].name);
	}
	return 0;
}

struct nova_disks_in *nova_disks_in_free(struct nova_disks_in *disks)
{
	if (!disks)
		return NULL;
	for (size_t i = 0; i < disks->count; i++) {
		nova_disk_in_free(disks->disk[i].way);
		free(disks->disk[i].name);
		free(disks->disk[i].seed);
	}
	free(disks->path);
	free(disks);
	return NULL;
}
