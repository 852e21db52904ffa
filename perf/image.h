/* SPDX-License-Identifier: Apache-2.0
 *
 * image.h - a guest in small, as QEMU would send it: what the benchmarks of the codec and the relay feed.
 *
 * A third files of /usr, a third text, a sixth noise, a sixth repeats of 16 pages; page records with headers
 * behind the head of a stream. An edit changes eight bytes in every page; renewed, it has other files, text and
 * noise in the same pages.
 */
#ifndef PERF_IMAGE_H
#define PERF_IMAGE_H

#include <stddef.h>
#include <stdint.h>

struct image {
	uint8_t *bytes;
	size_t length, pages;
	size_t head; /* bytes before the first record: sent once */
};

void image_build(struct image *image, size_t mib);
void image_renew(struct image *image);
void image_edit(struct image *image);
void image_free(struct image *image);

#endif
