/* SPDX-License-Identifier: Apache-2.0
 *
 * image.c - see image.h. One image at a time is built: nftw() has no argument to tell it where.
 */
#include "image.h"

#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PAGE 4096u
#define RECORD (8 + PAGE)
#define HEAD (sizeof(head) - 1)

static const uint8_t head[] = "QEVM\0\0\0\3\1\0\0\0\2\3ram\0\0\0\0\0\0\0\4";

static uint64_t rnd(void)
{
	static uint64_t x = 88172645463325252ull;

	x ^= x << 13;
	x ^= x >> 7;
	return x ^= x << 17;
}

static uint8_t *page_of(const struct image *image, size_t i)
{
	return image->bytes + HEAD + i * RECORD + 8;
}

static struct image *filling; /* from files: these pages */
static size_t file_next, file_end;
static size_t files_seen, files_used; /* pages of files: of the walk so far, and that an image had before */

static int take_file(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	int fd;

	if (type != FTW_F || st->st_size < 65536)
		return 0;
	files_seen += (size_t)st->st_size / PAGE;
	if (files_seen <= files_used)
		return 0;
	fd = open(path, O_RDONLY | O_CLOEXEC);
	while (fd >= 0 && file_next < file_end) {
		ssize_t n = read(fd, page_of(filling, file_next), PAGE);

		if (n <= 0)
			break;
		memset(page_of(filling, file_next) + n, 0, PAGE - (size_t)n);
		file_next++;
	}
	if (fd >= 0)
		close(fd);
	return file_next == file_end;
}

static void fill_text(uint8_t *page)
{
	static const char *const words[] = { "request", "session", "user", "error", "the", "and", "status",
		"200", "GET", "/api/v1/items", "cache", "thread", "lock", "value", "2024-05-17", "10.0.0.12",
		"latency_ms", "closed", "by", "peer", "INFO", "commit", "row", "table", "select", "from",
		"where", "order", "pending", "queue", "offset", "null" };
	size_t at = 0;

	while (at + 40 < PAGE) {
		uint64_t x = rnd();

		at += (size_t)sprintf((char *)page + at, "%s", words[x & 31]);
		if ((x >> 6 & 7) == 0)
			at += (size_t)sprintf((char *)page + at, "=%u", (unsigned)(x >> 10) % 100000);
		page[at++] = (x >> 40 & 15) ? ' ' : '\n';
	}
	memset(page + at, ' ', PAGE - at);
}

static void fill_noise(uint8_t *page)
{
	for (size_t i = 0; i < PAGE; i += 8) {
		uint64_t x = rnd();

		memcpy(page + i, &x, 8);
	}
}

void image_renew(struct image *image)
{
	size_t pages = image->pages;

	filling = image;
	file_next = files_seen = 0;
	file_end = pages / 3;
	nftw("/usr/bin", take_file, 20, FTW_PHYS);
	nftw("/usr/lib", take_file, 20, FTW_PHYS);
	for (size_t i = file_next; i < pages / 3 * 2; i++)
		fill_text(page_of(image, i));
	for (size_t i = pages / 3 * 2; i < pages * 5 / 6; i++)
		fill_noise(page_of(image, i));
	for (size_t i = pages * 5 / 6; i < pages; i++)
		memcpy(page_of(image, i), page_of(image, i % 16 * 97 % pages), PAGE);
	files_used = files_seen;
}

void image_build(struct image *image, size_t mib)
{
	size_t pages = mib * 256;

	*image = (struct image) { malloc(HEAD + pages * RECORD), HEAD + pages * RECORD, pages, HEAD };
	memcpy(image->bytes, head, HEAD);
	for (size_t i = 0; i < pages; i++) {
		uint8_t *p = page_of(image, i) - 8;

		for (int k = 0; k < 8; k++)
			p[k] = (uint8_t)((i << 12 | 0x28) >> (56 - 8 * k));
	}
	image_renew(image);
}

void image_edit(struct image *image)
{
	for (size_t i = 0; i < image->pages; i++) {
		uint64_t x = rnd();

		memcpy(page_of(image, i) + x % 512 * 8, &x, 8);
	}
}

void image_free(struct image *image)
{
	free(image->bytes);
	image->bytes = NULL;
}
