/* SPDX-License-Identifier: Apache-2.0
 *
 * baseline_spool.c - collect a guest's memory in a file while its stream goes by, then hash it.
 *
 * New pages are collected, 16 of them, and written at once after the last; a page that comes again is written over its
 * old content. Writing takes at most a quarter of the time that passes (and 250 ms to begin with): a page that comes
 * when this is used up is not kept, or keeps its older content, which is as good a baseline as any. So fast links
 * lose some pages, slow ones none. One write takes what the kernel takes: it is memory, unless the disk is far
 * behind. The first error ends it all.
 *
 * Sealing reads the file again, 64 KiB a slice, and writes the index beside it; the index appears by rename,
 * complete. Memory: 16 bytes a page, touched as it fills, and 64 KiB.
 */
#include "baseline.h"
#include "cleanup.h"
#include "codec_block.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define BUFFER_PAGES 16u
#define SHARE 4u            /* one part in so many of the time may go into writing */
#define BURST_NS 250000000u /* and this at first */

struct nova_spool {
	char *path;
	int fd, index_fd; /* owned */
	void *map;        /* pages and table */
	size_t map_bytes;
	uint64_t *pages; /* by slot */
	uint32_t *table; /* slot and one, by page; 0: empty. Open addressing */
	uint64_t n_table;
	uint32_t capacity, slots;
	uint32_t buffered; /* the last so many slots are in the buffer only */
	uint64_t born_ns, spent_ns;
	bool broken, kept;
	struct nova_error error;

	uint32_t sealed; /* slots that are hashed */
	struct nova_base_hasher *hasher;
	EVP_MD_CTX *digest;
	uint8_t buffer[BUFFER_PAGES * NOVA_PAGE_BYTES];
};

static int open_part(const struct nova_spool *spool, const char *suffix, struct nova_error *err)
{
	NOVA_AUTOFREE char *name = NULL;
	int fd;

	if (asprintf(&name, "%s%s", spool->path, suffix) < 0)
		return nova_error_sys(err, ENOMEM, "a baseline");
	fd = open(name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	return fd >= 0 ? fd : nova_error_sys(err, errno, "baseline %s", name);
}

static void remove_part(const struct nova_spool *spool, const char *suffix)
{
	NOVA_AUTOFREE char *name = NULL;

	if (asprintf(&name, "%s%s", spool->path, suffix) >= 0)
		unlink(name);
}

struct nova_spool *nova_spool_new(const char *path, uint32_t slots, struct nova_error *err)
{
	struct nova_spool *spool = calloc(1, sizeof(*spool));

	if (!spool || !(spool->path = strdup(path)) || slots > NOVA_BASE_SLOTS_MAX) {
		if (spool)
			free(spool->path);
		free(spool);
		nova_error_sys(err, ENOMEM, "a baseline of %u pages", slots);
		return NULL;
	}
	spool->index_fd = -1;
	spool->capacity = slots;
	spool->n_table = (uint64_t)slots * 2 + 16;
	spool->map_bytes = (size_t)slots * sizeof(uint64_t) + spool->n_table * sizeof(uint32_t);
	spool->map = mmap(
	    NULL, spool->map_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	spool->fd = open_part(spool, ".pages", err);
	spool->kept = spool->fd < 0; /* what is there is not ours */
	if (spool->map == MAP_FAILED) {
		spool->map = NULL;
		nova_error_sys(err, ENOMEM, "a baseline of %u pages", slots);
	}
	if (!spool->map || spool->fd < 0)
		return nova_spool_free(spool);
	spool->pages = spool->map;
	spool->table = (uint32_t *)(spool->pages + slots);
	spool->born_ns = nova_codec_clock_ns();
	return spool;
}

struct nova_spool *nova_spool_free(struct nova_spool *spool)
{
	if (!spool)
		return NULL;
	if (!spool->kept)
		remove_part(spool, ".pages");
	if (spool->index_fd >= 0) {
		close(spool->index_fd);
		remove_part(spool, ".new");
	}
	if (spool->fd >= 0)
		close(spool->fd);
	if (spool->map)
		munmap(spool->map, spool->map_bytes);
	nova_base_hasher_free(spool->hasher);
	EVP_MD_CTX_free(spool->digest);
	free(spool->path);
	free(spool);
	return NULL;
}

uint64_t nova_spool_bytes(const struct nova_spool *spool)
{
	return NOVA_BASE_HEAD_BYTES + (uint64_t)spool->slots * (NOVA_PAGE_BYTES + NOVA_BASE_ENTRY_BYTES);
}

/* ---- writing ------------------------------------------------------------------------------------ */

static bool may_write(const struct nova_spool *spool)
{
	return spool->spent_ns * SHARE <= nova_codec_clock_ns() - spool->born_ns + BURST_NS * SHARE;
}

static void write_at(struct nova_spool *spool, uint32_t slot, const uint8_t *data, size_t length)
{
	uint64_t began = nova_codec_clock_ns();
	off_t at = (off_t)slot * NOVA_PAGE_BYTES;

	while (length && !spool->broken) {
		ssize_t n = pwrite(spool->fd, data, length, at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			spool->broken = true;
			nova_error_sys(&spool->error, n < 0 ? errno : ENOSPC, "baseline %s.pages", spool->path);
			break;
		}
		data += n;
		at += n;
		length -= (size_t)n;
	}
	spool->spent_ns += nova_codec_clock_ns() - began;
}

static void flush(struct nova_spool *spool)
{
	if (spool->buffered)
		write_at(spool, spool->slots - spool->buffered, spool->buffer, (size_t)spool->buffered * NOVA_PAGE_BYTES);
	spool->buffered = 0;
}

static uint32_t *place_of(const struct nova_spool *spool, uint64_t page)
{
	uint64_t key = page * 0x9e3779b97f4a7c15ull;
	uint64_t at = ((key >> 32) * spool->n_table) >> 32;

	while (spool->table[at] && spool->pages[spool->table[at] - 1] != page)
		at = at + 1 < spool->n_table ? at + 1 : 0;
	return &spool->table[at];
}

static void append(struct nova_spool *spool, uint32_t *place, uint64_t page, const uint8_t *content)
{
	if (spool->slots == spool->capacity)
		return;
	if (spool->buffered == BUFFER_PAGES) {
		if (!may_write(spool))
			return;
		flush(spool);
	}
	memcpy(spool->buffer + (size_t)spool->buffered++ * NOVA_PAGE_BYTES, content, NOVA_PAGE_BYTES);
	spool->pages[spool->slots++] = page;
	*place = spool->slots;
}

void nova_spool_page(struct nova_spool *spool, uint64_t page, const uint8_t *content)
{
	uint32_t *place, slot;

	if (spool->broken)
		return;
	place = place_of(spool, page);
	if (!*place) {
		append(spool, place, page, content);
		return;
	}
	slot = *place - 1;
	if (slot >= spool->slots - spool->buffered)
		memcpy(spool->buffer + (size_t)(slot - (spool->slots - spool->buffered)) * NOVA_PAGE_BYTES, content,
		    NOVA_PAGE_BYTES);
	else if (may_write(spool))
		write_at(spool, slot, content, NOVA_PAGE_BYTES);
}

/* ---- sealing ------------------------------------------------------------------------------------ */

static int begin_seal(struct nova_spool *spool, struct nova_error *err)
{
	flush(spool);
	if (spool->broken)
		return nova_error_copy(err, &spool->error), -1;
	if (!spool->slots)
		return nova_error_set(err, NOVA_STATE, "no page was seen");
	spool->hasher = nova_base_hasher_new(err);
	if (!spool->hasher)
		return -1;
	spool->digest = EVP_MD_CTX_new();
	if (!spool->digest || !EVP_DigestInit_ex(spool->digest, EVP_sha256(), NULL))
		return nova_error_sys(err, ENOMEM, "a baseline");
	spool->index_fd = open_part(spool, ".new", err);
	return spool->index_fd < 0 ? -1 : 1;
}

static int write_index(struct nova_spool *spool, const void *data, size_t length, off_t at, struct nova_error *err)
{
	ssize_t n = pwrite(spool->index_fd, data, length, at);

	if (n == (ssize_t)length)
		return 0;
	return nova_error_sys(err, n < 0 ? errno : ENOSPC, "baseline %s.index", spool->path);
}

static int seal_slice(struct nova_spool *spool, struct nova_error *err)
{
	uint32_t count = spool->slots - spool->sealed < BUFFER_PAGES ? spool->slots - spool->sealed : BUFFER_PAGES;
	size_t length = (size_t)count * NOVA_PAGE_BYTES;
	struct nova_base_entry entries[BUFFER_PAGES];

	if (pread(spool->fd, spool->buffer, length, (off_t)spool->sealed * NOVA_PAGE_BYTES) != (ssize_t)length)
		return nova_error_set(err, NOVA_SYSTEM, "baseline %s.pages cannot be read again", spool->path);
	for (uint32_t i = 0; i < count; i++) {
		entries[i].page = htobe64(spool->pages[spool->sealed + i]);
		nova_base_hash(spool->hasher, spool->buffer + (size_t)i * NOVA_PAGE_BYTES, entries[i].hash);
	}
	EVP_DigestUpdate(spool->digest, entries, count * sizeof(*entries));
	if (write_index(spool, entries, count * sizeof(*entries),
		NOVA_BASE_HEAD_BYTES + (off_t)spool->sealed * NOVA_BASE_ENTRY_BYTES, err) < 0)
		return -1;
	spool->sealed += count;
	return 1;
}

static int end_seal(struct nova_spool *spool, struct nova_base_head *head, struct nova_error *err)
{
	NOVA_AUTOFREE char *from = NULL, *to = NULL;
	uint8_t file[NOVA_BASE_HEAD_BYTES];

	head->slots = spool->slots;
	EVP_DigestFinal_ex(spool->digest, head->digest, NULL);
	nova_base_head_write(head, file);
	if (write_index(spool, file, sizeof(file), 0, err) < 0)
		return -1;
	if (asprintf(&from, "%s.new", spool->path) < 0 || asprintf(&to, "%s.index", spool->path) < 0)
		return nova_error_sys(err, ENOMEM, "a baseline");
	if (rename(from, to) < 0)
		return nova_error_sys(err, errno, "baseline %s", to);
	spool->kept = true;
	close(nova_take_fd(&spool->index_fd));
	return 0;
}

int nova_spool_seal(struct nova_spool *spool, struct nova_base_head *head, struct nova_error *err)
{
	if (spool->index_fd < 0)
		return begin_seal(spool, err);
	if (spool->sealed < spool->slots)
		return seal_slice(spool, err);
	return end_seal(spool, head, err);
}
