/* SPDX-License-Identifier: Apache-2.0
 *
 * replica.c - replicas of guests that run elsewhere: which there are, what they hold, what a peer may ask of them. See
 * replicate.h. How a point arrives is in replica_point.c, how a guest is started from one in failover.c.
 *
 * A replica has a directory of its own below the roots, POOL/GUEST.replica-TOKEN. A point of it is a set of images,
 * diskN.POINT.qcow2, each an overlay on the one of the point before. What of them counts is in the journal: images that
 * stand there in no point are of one that did not arrive whole, and go when the daemon starts.
 */
#include "replicate.h"

#include "cleanup.h"
#include "pace.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define KEY "standby/"

static const char *text_of(const json_t *object, const char *name)
{
	const char *text = json_string_value(json_object_get(object, name));

	return text ? text : "";
}

const char *nova_replica_text(const struct nova_replica *replica, const char *name)
{
	return text_of(replica->body, name);
}

json_t *nova_replica_points(const struct nova_replica *replica)
{
	return json_object_get(replica->body, "points");
}

static bool is_whole(const json_t *point)
{
	return strcmp(text_of(point, "kind"), "base") != 0;
}

json_t *nova_replica_point(const struct nova_replica *replica, json_int_t id)
{
	json_t *points = nova_replica_points(replica);

	for (size_t i = json_array_size(points); i > 0; i--) {
		json_t *point = json_array_get(points, i - 1);

		if (is_whole(point) && (!id || json_integer_value(json_object_get(point, "id")) == id))
			return point;
	}
	return NULL;
}

json_t *nova_replica_copies(const struct nova_replica *replica)
{
	const json_t *points = nova_replica_points(replica);
	const json_t *files = json_object_get(json_array_get(points, json_array_size(points) - 1), "files");
	json_t *copies = json_array(), *disk;
	size_t i;

	json_array_foreach (json_object_get(replica->body, "disks"), i, disk)
		if (json_array_get(files, i))
			json_array_append_new(copies,
			    json_pack("{s:O, s:O, s:s, s:O, s:b}", "disk", json_object_get(disk, "disk"), "path", json_array_get(files, i),
				"format", "qcow2", "size", json_object_get(disk, "size"), "replica", 1));
	return copies;
}

struct nova_replica *nova_replica_find(struct nova_host *host, const char *guest)
{
	struct nova_replica *replica;

	TAILQ_FOREACH (replica, &host->replicas, link)
		if (!strcmp(replica->guest, guest))
			return replica;
	return NULL;
}

struct nova_replica *nova_replica_by_token(struct nova_host *host, const char *token)
{
	struct nova_replica *replica;

	TAILQ_FOREACH (replica, &host->replicas, link)
		if (!strcmp(replica->token, token))
			return replica;
	return NULL;
}

int nova_replica_save(struct nova_replica *replica, struct nova_error *err)
{
	char key[64];

	snprintf(key, sizeof(key), KEY "%s", replica->token);
	if (nova_store_replica_put(replica->host->store, key, replica->body, err) < 0)
		return -1;
	replica->stale = false;
	return 0;
}

json_t *nova_replica_change(struct nova_replica *replica, struct nova_error *err)
{
	json_t *before = replica->body, *copy = json_deep_copy(before);

	if (!json_equal(copy, before)) {
		json_decref(copy);
		nova_error_sys(err, ENOMEM, "replica of guest %s", replica->guest);
		return NULL;
	}
	replica->body = copy;
	return before;
}

int nova_replica_changed(struct nova_replica *replica, json_t *before, bool made, struct nova_error *err)
{
	if (!made)
		nova_error_sys(err, ENOMEM, "replica of guest %s", replica->guest);
	if (made && nova_replica_save(replica, err) == 0) {
		json_decref(before);
		return 0;
	}
	json_decref(replica->body);
	replica->body = before;
	return -1;
}

int64_t nova_replicas_disk_bytes(const struct nova_host *host, const char *owner, const char *but)
{
	const struct nova_replica *replica;
	int64_t bytes = 0;

	TAILQ_FOREACH (replica, &host->replicas, link)
		if (strcmp(replica->guest, but) && (!owner || !strcmp(owner, replica->owner)))
			bytes += json_integer_value(json_object_get(json_object_get(replica->body, "needs"), "disk_bytes"));
	return bytes;
}

json_t *nova_replica_json(const struct nova_replica *replica)
{
	static const char *const members[] = { "guest", "uuid", "owner", "peer", "state", "every_ms", "keep", "directory", "token",
		"points" };
	const json_t *newest = nova_replica_point(replica, 0);
	json_t *json = json_pack("{s:s}", "side", "standby");

	for (size_t i = 0; i < sizeof(members) / sizeof(*members); i++)
		json_object_set_new(json, members[i], json_deep_copy(json_object_get(replica->body, members[i]) ?: json_null()));
	json_object_set_new(json, "newest", json_incref(json_object_get(newest, "id") ?: json_null()));
	if (newest)
		json_object_set_new(
		    json, "lag_ms", json_integer(nova_wall_ms() - json_integer_value(json_object_get(newest, "taken_ms"))));
	json_object_set_new(json, "arriving", json_boolean(replica->reception != NULL));
	if (json_object_get(replica->body, "merging")) /* images that are no point's own now */
		json_object_set_new(json, "merging", json_deep_copy(json_object_get(replica->body, "merging")));
	return json;
}

/* ---- the table ---- */

static struct nova_replica *replica_free(struct nova_replica *replica)
{
	if (!replica)
		return NULL;
	nova_reception_drop(replica);
	nova_replica_end_waits(replica);
	TAILQ_REMOVE(&replica->host->replicas, replica, link);
	json_decref(replica->body);
	free(replica);
	return NULL;
}

/* body is borrowed. */
static struct nova_replica *replica_new(struct nova_host *host, const json_t *body, struct nova_error *err)
{
	struct nova_slot *slot = nova_slot_find(host, text_of(body, "driver"), err);
	struct nova_replica *replica = slot ? calloc(1, sizeof(*replica)) : NULL;

	if (!replica) {
		if (slot)
			nova_error_sys(err, ENOMEM, "replica");
		return NULL;
	}
	replica->host = host;
	replica->slot = slot;
	replica->body = json_deep_copy(body);
	TAILQ_INIT(&replica->waits);
	TAILQ_INSERT_TAIL(&host->replicas, replica, link);
	snprintf(replica->token, sizeof(replica->token), "%s", text_of(body, "token"));
	snprintf(replica->guest, sizeof(replica->guest), "%s", text_of(body, "guest"));
	snprintf(replica->peer, sizeof(replica->peer), "%s", text_of(body, "peer"));
	snprintf(replica->owner, sizeof(replica->owner), "%s", text_of(body, "owner"));
	return replica;
}

/* Is this file of a point that stands in the journal? */
static bool known(const struct nova_replica *replica, const char *path)
{
	json_t *point, *file;
	size_t i, j;

	json_array_foreach (nova_replica_points(replica), i, point)
		json_array_foreach (json_object_get(point, "files"), j, file)
			if (!strcmp(json_string_value(file), path))
				return true;
	return false;
}

/* all: whatever is a point's image; else only those of points that did not arrive whole. */
static void remove_images(const struct nova_replica *replica, bool all)
{
	const char *directory = nova_replica_text(replica, "directory");
	DIR *dir = opendir(directory);
	const struct dirent *entry;

	while (dir && (entry = readdir(dir))) {
		NOVA_AUTOFREE char *path = NULL;
		unsigned disk, point;

		if (sscanf(entry->d_name, "disk%u.%u.qcow2", &disk, &point) != 2)
			continue;
		if (asprintf(&path, "%s/%s", directory, entry->d_name) < 0) {
			path = NULL;
			continue;
		}
		if (all || !known(replica, path))
			unlink(path);
	}
	if (dir)
		closedir(dir);
}

static int load(void *arg, const char *key, json_t *body)
{
	struct nova_host *host = arg;
	struct nova_replica *replica;
	struct nova_error err;

	if (strncmp(key, KEY, strlen(KEY)))
		return 0;
	replica = replica_new(host, body, &err);
	if (!replica)
		nova_host_log(host, NOVA_LOG_ERROR, "replica of %s: %s", text_of(body, "guest"), err.text);
	else if (!json_object_get(body, "merging"))
		remove_images(replica, false);
	return 0;
}

int nova_replicas_open(struct nova_host *host, struct nova_error *err)
{
	if (nova_store_replicas(host->store, load, host, err) == 0)
		return 0;
	if (!nova_store_refusal(host->store))
		return -1;
	nova_host_log(host, NOVA_LOG_ERROR, "nothing is replicated: %s", err->text);
	return 0;
}

void nova_replicas_close(struct nova_host *host)
{
	while (!TAILQ_EMPTY(&host->replicas))
		replica_free(TAILQ_FIRST(&host->replicas));
}

bool nova_replica_holds(const struct nova_replica *replica, json_int_t id)
{
	const char *guest;
	json_t *point;

	if (replica->readers || replica->job)
		return true;
	json_object_foreach (json_object_get(replica->body, "holds"), guest, point)
		if (json_integer_value(point) == id && nova_entry_find(replica->host, guest))
			return true;
	return false;
}

/* A guest that was started from it has its images below its own. */
static const char *user_of(const struct nova_replica *replica)
{
	const char *guest;
	json_t *point;

	json_object_foreach (json_object_get(replica->body, "holds"), guest, point)
		if (nova_entry_find(replica->host, guest))
			return guest;
	return NULL;
}

int nova_replica_remove(struct nova_replica *replica, struct nova_error *err)
{
	const char *user = user_of(replica);
	char key[64];

	if (replica->readers)
		return nova_error_set(err, NOVA_STATE, "the replica of guest %s is being read: by an export, or by a migration of the guest",
		    replica->guest);
	if (replica->job)
		return nova_error_set(err, NOVA_STATE, "guest %s is being started from this replica by %s", replica->guest,
		    replica->job->id);
	if (user)
		return nova_error_set(err, NOVA_STATE, "guest %s uses the images of this replica: delete it first", user);
	snprintf(key, sizeof(key), KEY "%s", replica->token);
	if (nova_store_replica_delete(replica->host->store, key, err) < 0)
		return -1;
	nova_reception_drop(replica);
	remove_images(replica, true);
	rmdir(nova_replica_text(replica, "directory"));
	replica_free(replica);
	return 0;
}

/* ---- replica-open ---- */

static int check_disks(const json_t *disks, struct nova_error *err)
{
	json_t *disk;
	size_t i;

	if (!json_array_size(disks) || json_array_size(disks) > NOVA_DISKS_MAX)
		return nova_error_set(err, NOVA_INVALID, "replica-open: disks must be 1 to %d", NOVA_DISKS_MAX);
	json_array_foreach ((json_t *)disks, i, disk) {
		unsigned number;
		char rest;

		if (sscanf(text_of(disk, "disk"), "disk%3u%c", &number, &rest) != 1)
			return nova_error_set(err, NOVA_INVALID, "replica-open: a disk's name is disk0, disk1, ...");
		if (json_integer_value(json_object_get(disk, "size")) <= 0)
			return nova_error_set(err, NOVA_INVALID, "replica-open: size of %s must be above 0", text_of(disk, "disk"));
	}
	return 0;
}

static int check_open(const json_t *args, struct nova_error *err)
{
	static const char *const texts[] = { "token", "guest", "uuid", "owner", "driver" };
	json_int_t keep = json_integer_value(json_object_get(args, "keep"));

	for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++)
		if (!json_is_string(json_object_get(args, texts[i])))
			return nova_error_set(err, NOVA_INVALID, "replica-open: %s must be a text", texts[i]);
	if (strlen(text_of(args, "token")) != 32 || strspn(text_of(args, "token"), "0123456789abcdef") != 32)
		return nova_error_set(err, NOVA_INVALID, "replica-open: token must be 32 hexadecimal digits");
	if (strlen(text_of(args, "uuid")) != 36)
		return nova_error_set(err, NOVA_INVALID, "replica-open: uuid must have 36 characters");
	if (strlen(text_of(args, "owner")) > 127)
		return nova_error_set(err, NOVA_INVALID, "replica-open: owner has at most 127 bytes");
	if (!json_is_object(json_object_get(args, "spec")))
		return nova_error_set(err, NOVA_INVALID, "replica-open: spec must be an object");
	if (keep < 1 || keep > NOVA_KEEP_MAX)
		return nova_error_set(err, NOVA_INVALID, "replica-open: keep must be 1 to %d", NOVA_KEEP_MAX);
	if (json_integer_value(json_object_get(args, "every_ms")) < NOVA_REPLICA_EVERY_MIN_MS)
		return nova_error_set(err, NOVA_INVALID, "replica-open: every_ms must be at least %d", NOVA_REPLICA_EVERY_MIN_MS);
	if (check_disks(json_object_get(args, "disks"), err) < 0)
		return -1;
	return nova_guest_name_check(text_of(args, "guest"), err);
}

/* Room for the disks twice over: the first point, and all that later ones change. What a replica has of them is sparse. */
static json_t *needs_of(const json_t *disks)
{
	json_int_t bytes = 0;
	json_t *disk;
	size_t i;

	json_array_foreach ((json_t *)disks, i, disk)
		bytes += json_integer_value(json_object_get(disk, "size"));
	return json_pack("{s:I}", "disk_bytes", bytes);
}

/* Where they said, or the first of the roots. */
static json_t *directory_of(struct nova_host *host, const json_t *args)
{
	const char *pool = text_of(args, "pool");
	const json_t *roots = nova_config_get(host->config, "roots");
	NOVA_AUTOJSON json_t *images = json_sprintf("%s/images", nova_config_text(host->config, "state-dir"));

	if (!pool[0])
		pool = json_array_size(roots) ? json_string_value(json_array_get(roots, 0)) : json_string_value(images);
	return json_sprintf("%s/%s.replica-%.8s", pool, text_of(args, "guest"), text_of(args, "token"));
}

static struct nova_replica *replica_make(struct nova_host *host, const char *peer, json_t *args, struct nova_error *err)
{
	const char *guest = text_of(args, "guest");
	struct nova_entry *entry = nova_entry_find(host, guest);
	NOVA_AUTOJSON json_t *body = NULL, *needs = needs_of(json_object_get(args, "disks"));
	struct nova_replica *replica;

	if (nova_replica_find(host, guest)) {
		nova_error_set(err, NOVA_REFUSED, "there is another replica of guest %s on %s: delete it first", guest,
		    nova_host_name(host));
		return NULL;
	}
	if (entry && strcmp(entry->uuid, text_of(args, "uuid"))) {
		nova_error_set(err, NOVA_REFUSED, "there is another guest %s on %s", guest, nova_host_name(host));
		return NULL;
	}
	if (entry && !nova_entry_at_rest(entry)) {
		nova_error_set(err, NOVA_REFUSED, "guest %s is %s on %s: its replica can be kept where it does not run (novacron stop %s)", guest,
		    nova_guest_state_name(entry->guest.state), nova_host_name(host), guest);
		return NULL;
	}
	if (nova_admit_guest(host, guest, text_of(args, "owner"), needs, err) < 0)
		return NULL;
	body = json_pack("{s:O, s:O, s:O, s:O, s:O, s:s, s:o, s:O, s:O, s:O, s:s, s:[], s:{}, s:I}", "token",
	    json_object_get(args, "token"), "guest", json_object_get(args, "guest"), "uuid", json_object_get(args, "uuid"), "owner",
	    json_object_get(args, "owner"), "driver", json_object_get(args, "driver"), "peer", peer, "directory",
	    directory_of(host, args), "disks", json_object_get(args, "disks"), "spec", json_object_get(args, "spec"), "needs", needs,
	    "state", "standby", "points", "holds", "last_id", (json_int_t)0);
	replica = replica_new(host, body, err);
	if (replica && nova_replica_save(replica, err) < 0)
		return replica_free(replica);
	return replica;
}

static int open_replica(struct nova_host *host, const char *peer, json_t *args, json_t **answer, struct nova_error *err)
{
	struct nova_replica *replica;
	json_t *points;

	if (check_open(args, err) < 0)
		return -1;
	replica = nova_replica_by_token(host, text_of(args, "token"));
	if (replica && strcmp(replica->peer, peer))
		return nova_error_set(err, NOVA_REFUSED, "this replica is not one of %s's", peer);
	if (!replica)
		replica = replica_make(host, peer, args, err);
	if (!replica)
		return -1;
	if (!strcmp(nova_replica_text(replica, "state"), "failed-over")) {
		*answer = json_pack("{s:b}", "superseded", 1);
		return 0;
	}
	if (!json_equal(json_object_get(replica->body, "disks"), json_object_get(args, "disks")))
		return nova_error_set(err, NOVA_REFUSED,
		    "the disks of guest %s are not those that this replica was made for (number, sizes): delete it, and begin anew",
		    replica->guest);
	json_object_set(replica->body, "spec", json_object_get(args, "spec"));
	json_object_set(replica->body, "keep", json_object_get(args, "keep"));
	json_object_set(replica->body, "every_ms", json_object_get(args, "every_ms"));
	points = nova_replica_points(replica);
	*answer = json_pack("{s:I, s:I}", "newest",
	    json_integer_value(json_object_get(json_array_get(points, json_array_size(points) - 1), "id")), "next",
	    json_integer_value(json_object_get(replica->body, "last_id")) + 1);
	return 0;
}

/* Every replica that is asked for for the first time is on record, and every refusal. */
static int on_open(struct nova_host *host, const char *peer, const char *from, json_t *args, struct nova_request *request,
    struct nova_error *err)
{
	struct nova_identity who = { .role = NOVA_ROLE_NONE };
	bool is_new = !nova_replica_by_token(host, text_of(args, "token"));
	json_t *answer = NULL, *record;
	int result = open_replica(host, peer, args, &answer, err);

	if (is_new || result < 0) {
		record = json_pack("{s:s, s:s, s:s, s:s}", "decision", "replica", "guest", text_of(args, "guest"), "owner",
		    text_of(args, "owner"), "outcome", result < 0 ? nova_category_name(err->category) : "accepted");
		if (result < 0)
			json_object_set_new(record, "error", json_string(err->text));
		snprintf(who.name, sizeof(who.name), "peer %s", peer);
		snprintf(who.from, sizeof(who.from), "tls %.100s", from);
		nova_host_audit(host, &who, record);
	}
	if (result == 0)
		host->plugins->links->answer(request, answer, NULL);
	return result;
}

/* ---- requests ---- */

int nova_replica_request(struct nova_host *host, const char *peer, const char *from, struct nova_reception **reception,
    const char *command, json_t *args, struct nova_request *request, struct nova_error *err)
{
	struct nova_replica *replica;

	if (!strcmp(command, "replica-handover"))
		return nova_replicate_handover(host, peer, args, request, err);
	if (!strcmp(command, "replica-open"))
		return on_open(host, peer, from, args, request, err);
	replica = nova_replica_by_token(host, text_of(args, "token"));
	if (!replica || strcmp(replica->peer, peer))
		return nova_error_set(err, NOVA_REFUSED, "there is no such replica on %s", nova_host_name(host));
	if (!strcmp(command, "replica-begin"))
		return nova_reception_begin(replica, reception, args, request, err);
	if (!strcmp(command, "replica-commit") && *reception && nova_reception_replica(*reception) == replica)
		return nova_reception_commit(*reception, args, request, err);
	return nova_error_set(err, NOVA_STATE, "%.40s: no point of guest %s is on its way in this session", command,
	    replica->guest);
}
