/* SPDX-License-Identifier: Apache-2.0
 *
 * baseline_store.c - which baselines there are, who may see them, and which one leaves when the budget is used up.
 *
 * STATE_DIR/baselines (0700) holds ID.pages and ID.index (0600), ID being the token of the migration that made them.
 * Names that are not ours are left alone. A guest has one baseline: a new one takes the place of the old one when it
 * is complete, so both count meanwhile. The least recently used (by the time of its index) leaves first; a tenth of the
 * file system stays free. A baseline that is read may be dropped: its reader has it open. Not here: what is in the
 * files (baseline_spool.c, baseline_index.c).
 */
#include "baseline_store.h"
#include "chore.h"
#include "cleanup.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define SLOT_BYTES (NOVA_PAGE_BYTES + NOVA_BASE_ENTRY_BYTES)
#define SPARE_SLOTS 16384u /* beside RAM: video memory, firmware */
#define SEAL_PAUSE_MS 3    /* background work takes a quarter of a core */
#define READ_BYTES 16384u  /* of an index in one slice */

struct kept {
	TAILQ_ENTRY(kept) link;
	struct nova_base_head head;
	int64_t used_ms;
};
TAILQ_HEAD(kepts, kept);
TAILQ_HEAD(makings, nova_making);

struct nova_making {
	TAILQ_ENTRY(nova_making) link;
	struct nova_baselines *baselines; /* borrowed */
	struct nova_base_head head;
	struct nova_spool *spool; /* owned */
	struct nova_chore *chore; /* owned: sealing */
	uint64_t most_bytes;
};

struct nova_baselines {
	struct nova_host *host; /* borrowed */
	char *directory;        /* owned */
	uint64_t budget, guest_budget;
	bool share;
	struct kepts kept;
	struct makings makings;
};

static char *path_of(const struct nova_baselines *b, const char *id, const char *suffix)
{
	char *path;

	return asprintf(&path, "%s/%s%s", b->directory, id, suffix) < 0 ? NULL : path;
}

static uint64_t bytes_of(const struct nova_base_head *head)
{
	return NOVA_BASE_HEAD_BYTES + (uint64_t)head->slots * SLOT_BYTES;
}

/* ---- what there is ------------------------------------------------------------------------------ */

static void remove_files(const struct nova_baselines *b, const char *id)
{
	static const char *const suffixes[] = { ".index", ".new", ".pages" };

	for (size_t i = 0; i < 3; i++) {
		NOVA_AUTOFREE char *path = path_of(b, id, suffixes[i]);

		if (path)
			unlink(path);
	}
}

static void forget(struct nova_baselines *b, struct kept *kept)
{
	remove_files(b, kept->head.id);
	TAILQ_REMOVE(&b->kept, kept, link);
	free(kept);
}

static struct kept *find(const struct nova_baselines *b, const char *id)
{
	struct kept *kept;

	if (!b)
		return NULL;
	TAILQ_FOREACH (kept, &b->kept, link)
		if (!strcmp(kept->head.id, id))
			return kept;
	return NULL;
}

static int add_kept(struct nova_baselines *b, const struct nova_base_head *head, int64_t used_ms)
{
	struct kept *kept = calloc(1, sizeof(*kept));

	if (!kept)
		return -1;
	kept->head = *head;
	kept->used_ms = used_ms;
	TAILQ_INSERT_TAIL(&b->kept, kept, link);
	return 0;
}

/* 0: it is one, and in the list. */
static int scan_one(struct nova_baselines *b, const char *id)
{
	NOVA_AUTOFREE char *index = path_of(b, id, ".index"), *pages = path_of(b, id, ".pages");
	NOVA_AUTOCLOSE int fd = index ? open(index, O_RDONLY | O_CLOEXEC | O_NOFOLLOW) : -1;
	uint8_t file[NOVA_BASE_HEAD_BYTES];
	struct nova_base_head head;
	struct stat index_stat, pages_stat;
	struct nova_error err;
	ssize_t n;

	if (fd < 0 || !pages || fstat(fd, &index_stat) < 0 || lstat(pages, &pages_stat) < 0)
		return -1;
	n = pread(fd, file, sizeof(file), 0);
	if (n < 0 || nova_base_head_read(&head, file, (size_t)n, &err) < 0 || strcmp(head.id, id))
		return -1;
	if (!S_ISREG(pages_stat.st_mode) || pages_stat.st_size < (off_t)head.slots * NOVA_PAGE_BYTES)
		return -1;
	return add_kept(b, &head, (int64_t)index_stat.st_mtim.tv_sec * 1000 + index_stat.st_mtim.tv_nsec / 1000000);
}

static bool is_ours(const char *name, char id[33])
{
	const char *suffix = strlen(name) > 32 ? name + 32 : "";

	snprintf(id, 33, "%.32s", name);
	return strspn(id, "0123456789abcdef") == 32 &&
	       (!strcmp(suffix, ".index") || !strcmp(suffix, ".new") || !strcmp(suffix, ".pages"));
}

static int scan(struct nova_baselines *b, struct nova_error *err)
{
	DIR *directory = opendir(b->directory);
	struct dirent *entry;
	char id[33];

	if (!directory)
		return nova_error_sys(err, errno, "directory %s", b->directory);
	while ((entry = readdir(directory))) {
		if (!is_ours(entry->d_name, id) || find(b, id) || scan_one(b, id) == 0)
			continue;
		nova_host_log(b->host, NOVA_LOG_INFO, "baseline %s is not complete: removed", id);
		remove_files(b, id);
	}
	closedir(directory);
	return 0;
}

static uint64_t used_bytes(const struct nova_baselines *b);
static struct kept *least_used(struct nova_baselines *b, const char *uuid);

/* The budget may be smaller than it was. */
static struct nova_baselines *shrink(struct nova_baselines *b)
{
	struct kept *kept;

	while (used_bytes(b) > b->budget && (kept = least_used(b, "")))
		forget(b, kept);
	return b;
}

struct nova_baselines *nova_baselines_open(struct nova_host *host, struct nova_error *err)
{
	struct nova_baselines *b = calloc(1, sizeof(*b));

	if (!b || asprintf(&b->directory, "%s/baselines", nova_config_text(host->config, "state-dir")) < 0) {
		free(b);
		nova_error_sys(err, ENOMEM, "baselines");
		return NULL;
	}
	b->host = host;
	b->budget = (uint64_t)nova_config_int(host->config, "baseline-bytes");
	b->guest_budget = (uint64_t)nova_config_int(host->config, "baseline-guest-bytes");
	b->share = !strcmp(nova_config_text(host->config, "baseline-share"), "owner");
	TAILQ_INIT(&b->kept);
	TAILQ_INIT(&b->makings);
	if (mkdir(b->directory, 0700) < 0 && errno != EEXIST)
		nova_error_sys(err, errno, "directory %s", b->directory);
	else if (scan(b, err) == 0)
		return shrink(b);
	return nova_baselines_close(b);
}

struct nova_baselines *nova_baselines_close(struct nova_baselines *b)
{
	struct kept *kept;

	if (!b)
		return NULL;
	while (!TAILQ_EMPTY(&b->makings))
		nova_making_free(TAILQ_FIRST(&b->makings));
	while ((kept = TAILQ_FIRST(&b->kept))) {
		TAILQ_REMOVE(&b->kept, kept, link);
		free(kept);
	}
	free(b->directory);
	free(b);
	return NULL;
}

/* ---- asking ------------------------------------------------------------------------------------- */

static bool suits(const struct nova_baselines *b, const struct nova_base_head *head, const char *uuid, const char *owner,
    const char *image)
{
	if (strcmp(head->owner, owner))
		return false;
	return !strcmp(head->uuid, uuid) || (b->share && image[0] && !strcmp(head->image, image));
}

static bool is_better(const struct kept *kept, const struct kept *best, const char *uuid)
{
	bool own = !strcmp(kept->head.uuid, uuid);

	if (!best || own != !strcmp(best->head.uuid, uuid))
		return !best || own;
	return kept->head.created_ms > best->head.created_ms;
}

const struct nova_base_head *nova_baselines_find(struct nova_baselines *b, const char *uuid, const char *owner,
    const char *image)
{
	struct kept *kept, *best = NULL;

	if (!b)
		return NULL;
	TAILQ_FOREACH (kept, &b->kept, link)
		if (suits(b, &kept->head, uuid, owner, image) && is_better(kept, best, uuid))
			best = kept;
	return best ? &best->head : NULL;
}

const struct nova_base_head *nova_baselines_get(struct nova_baselines *b, const char *id)
{
	struct kept *kept = find(b, id);

	return kept ? &kept->head : NULL;
}

void nova_baselines_drop(struct nova_baselines *b, const char *id)
{
	struct kept *kept = find(b, id);

	if (kept)
		forget(b, kept);
}

static bool concerns(const struct nova_baselines *b, const struct kept *kept, const struct nova_identity *who, const char *guest)
{
	return (!guest || !strcmp(kept->head.guest, guest)) && nova_entry_visible(b->host, who, kept->head.owner);
}

json_t *nova_baselines_list(struct nova_baselines *b, const struct nova_identity *who, const char *guest)
{
	json_t *list = json_array();
	struct kept *kept;

	if (!b)
		return list;
	TAILQ_FOREACH (kept, &b->kept, link) {
		const struct nova_base_head *head = &kept->head;

		if (!concerns(b, kept, who, guest))
			continue;
		json_array_append_new(list,
		    json_pack("{s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:s, s:s, s:s, s:s}", "guest", head->guest, "owner",
			head->owner, "size_bytes", (json_int_t)bytes_of(head), "pages", (json_int_t)head->slots,
			"created_ms", (json_int_t)head->created_ms, "used_ms", (json_int_t)kept->used_ms, "age_ms",
			(json_int_t)(nova_wall_ms() - head->created_ms), "peer",
			head->peer, "side", head->side, "uuid", head->uuid, "id", head->id));
	}
	return list;
}

int nova_baselines_drop_all(struct nova_baselines *b, const struct nova_identity *who, const char *guest, uint64_t *bytes)
{
	struct kept *kept, *next;
	int count = 0;

	*bytes = 0;
	for (kept = b ? TAILQ_FIRST(&b->kept) : NULL; kept; kept = next) {
		next = TAILQ_NEXT(kept, link);
		if (!concerns(b, kept, who, guest))
			continue;
		*bytes += bytes_of(&kept->head);
		count++;
		forget(b, kept);
	}
	return count;
}

int nova_baselines_pages(struct nova_baselines *b, const char *id)
{
	NOVA_AUTOFREE char *path = b ? path_of(b, id, ".pages") : NULL;

	return path ? open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW) : -1;
}

/* ---- reading an index --------------------------------------------------------------------------- */

struct nova_base_load {
	struct nova_baselines *baselines; /* borrowed */
	char id[33];
	uint8_t digest[32];
	int fd;                        /* owned */
	off_t at;
	struct nova_base_index *index; /* owned */
	struct nova_chore *chore;      /* owned */
	nova_base_load_fn fn;
	void *arg;
};

static int load_slice(void *arg, struct nova_error *err)
{
	struct nova_base_load *load = arg;
	uint8_t piece[READ_BYTES];
	ssize_t n = pread(load->fd, piece, sizeof(piece), load->at);

	if (n < 0)
		return nova_error_sys(err, errno, "index of baseline %s", load->id);
	if (n == 0)
		return nova_base_index_check(load->index, load->digest, err);
	load->at += n;
	return nova_base_index_add(load->index, piece, (size_t)n, err) < 0 ? -1 : 1;
}

/* It is the owner's to free, in its function at the earliest. */
static void load_ended(void *arg, const struct nova_error *err)
{
	struct nova_base_load *load = arg;
	struct nova_base_index *index = err ? NULL : nova_take(&load->index);

	if (err) {
		nova_host_log(load->baselines->host, NOVA_LOG_WARNING, "baseline %s is dropped: %s", load->id, err->text);
		nova_baselines_drop(load->baselines, load->id);
	}
	load->fn(load->arg, index, err);
}

/* Its index is the one that it had when it was put into the list. */
static int load_open(struct nova_base_load *load, const struct kept *kept, struct nova_error *err)
{
	NOVA_AUTOFREE char *path = path_of(load->baselines, load->id, ".index");

	load->fd = path ? open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW) : -1;
	if (load->fd < 0)
		return nova_error_sys(err, errno, "index of baseline %s", load->id);
	memcpy(load->digest, kept->head.digest, sizeof(load->digest));
	load->index = nova_base_index_new(kept->head.slots, err);
	if (load->index)
		load->chore = nova_chore_new(load->baselines->host->base, 0, load_slice, load_ended, load, err);
	return load->chore ? 0 : -1;
}

struct nova_base_load *nova_base_load_new(struct nova_baselines *b, const char *id, nova_base_load_fn fn, void *arg,
    struct nova_error *err)
{
	struct nova_base_load *load = calloc(1, sizeof(*load));
	struct kept *kept = find(b, id);

	if (!load || !kept) {
		free(load);
		nova_error_set(err, NOVA_STATE, "there is no baseline %s", id);
		return NULL;
	}
	load->baselines = b;
	load->fn = fn;
	load->arg = arg;
	load->at = NOVA_BASE_HEAD_BYTES;
	snprintf(load->id, sizeof(load->id), "%s", id);
	if (load_open(load, kept, err) < 0)
		return nova_base_load_free(load);
	futimens(load->fd, NULL); /* it was used: it stays longer */
	kept->used_ms = nova_wall_ms();
	return load;
}

struct nova_base_load *nova_base_load_free(struct nova_base_load *load)
{
	if (!load)
		return NULL;
	nova_chore_free(load->chore);
	nova_base_index_free(load->index);
	if (load->fd >= 0)
		close(load->fd);
	free(load);
	return NULL;
}

/* ---- room --------------------------------------------------------------------------------------- */

static uint64_t used_bytes(const struct nova_baselines *b)
{
	const struct nova_making *making;
	const struct kept *kept;
	uint64_t sum = 0;

	TAILQ_FOREACH (kept, &b->kept, link)
		sum += bytes_of(&kept->head);
	TAILQ_FOREACH (making, &b->makings, link)
		sum += making->most_bytes;
	return sum;
}

/* Bytes that may be written: of the budget, and of the file system but its last tenth. */
static uint64_t free_bytes(const struct nova_baselines *b)
{
	uint64_t used = used_bytes(b), left = used < b->budget ? b->budget - used : 0, disk = 0;
	struct statvfs fs;

	if (statvfs(b->directory, &fs) == 0 && fs.f_bavail > fs.f_blocks / 10)
		disk = (uint64_t)(fs.f_bavail - fs.f_blocks / 10) * fs.f_frsize;
	return left < disk ? left : disk;
}

/* The guest's own stays: it is about to be used. */
static struct kept *least_used(struct nova_baselines *b, const char *uuid)
{
	struct kept *kept, *least = NULL;

	TAILQ_FOREACH (kept, &b->kept, link)
		if (strcmp(kept->head.uuid, uuid) && (!least || kept->used_ms < least->used_ms))
			least = kept;
	return least;
}

static uint64_t make_room(struct nova_baselines *b, const char *uuid, uint64_t wanted)
{
	struct kept *kept;

	while (free_bytes(b) < wanted && (kept = least_used(b, uuid))) {
		nova_host_log(b->host, NOVA_LOG_INFO, "baseline of %s leaves for a newer one", kept->head.guest);
		forget(b, kept);
	}
	return free_bytes(b) < wanted ? free_bytes(b) : wanted;
}

/* ---- making one --------------------------------------------------------------------------------- */

struct nova_making *nova_making_new(struct nova_baselines *b, const struct nova_base_head *head, uint64_t memory_bytes)
{
	uint64_t wanted = (memory_bytes / NOVA_PAGE_BYTES + SPARE_SLOTS) * SLOT_BYTES, bytes, slots;
	NOVA_AUTOFREE char *path = b ? path_of(b, head->id, "") : NULL;
	struct nova_making *making;
	struct nova_error err;

	if (!path || !b->budget)
		return NULL;
	if (b->guest_budget && wanted > b->guest_budget)
		wanted = b->guest_budget;
	bytes = make_room(b, head->uuid, wanted < b->budget ? wanted : b->budget);
	if (bytes / SLOT_BYTES < 256 || !(making = calloc(1, sizeof(*making)))) {
		nova_host_log(b->host, NOVA_LOG_INFO, "no room for a baseline of guest %s", head->guest);
		return NULL;
	}
	making->baselines = b;
	making->head = *head;
	making->most_bytes = bytes;
	slots = bytes / SLOT_BYTES;
	making->spool = nova_spool_new(path, slots < NOVA_BASE_SLOTS_MAX ? (uint32_t)slots : NOVA_BASE_SLOTS_MAX, &err);
	if (!making->spool) {
		nova_host_log(b->host, NOVA_LOG_WARNING, "no baseline of guest %s: %s", head->guest, err.text);
		free(making);
		return NULL;
	}
	TAILQ_INSERT_TAIL(&b->makings, making, link);
	return making;
}

struct nova_spool *nova_making_spool(struct nova_making *making)
{
	return making ? making->spool : NULL;
}

struct nova_making *nova_making_free(struct nova_making *making)
{
	if (!making)
		return NULL;
	TAILQ_REMOVE(&making->baselines->makings, making, link);
	nova_chore_free(making->chore);
	nova_spool_free(making->spool);
	free(making);
	return NULL;
}

static int seal_slice(void *arg, struct nova_error *err)
{
	struct nova_making *making = arg;

	return nova_spool_seal(making->spool, &making->head, err);
}

static void replace_older(struct nova_baselines *b, const struct nova_base_head *head)
{
	struct kept *kept, *next;

	for (kept = TAILQ_FIRST(&b->kept); kept; kept = next) {
		next = TAILQ_NEXT(kept, link);
		if (!strcmp(kept->head.uuid, head->uuid))
			forget(b, kept);
	}
}

static void sealed(void *arg, const struct nova_error *err)
{
	struct nova_making *making = arg;
	struct nova_baselines *b = making->baselines;

	if (err) {
		nova_host_log(b->host, NOVA_LOG_WARNING, "no baseline of guest %s: %s", making->head.guest, err->text);
	} else {
		replace_older(b, &making->head);
		if (add_kept(b, &making->head, nova_wall_ms()) < 0)
			remove_files(b, making->head.id);
		nova_host_log(b->host, NOVA_LOG_DEBUG, "baseline of guest %s: %u pages", making->head.guest,
		    making->head.slots);
	}
	nova_making_free(making);
}

void nova_making_keep(struct nova_making *making)
{
	struct nova_error err;

	if (!making)
		return;
	making->head.created_ms = nova_wall_ms();
	making->chore =
	    nova_chore_new(making->baselines->host->base, SEAL_PAUSE_MS, seal_slice, sealed, making, &err);
	if (!making->chore)
		nova_making_free(making);
}
