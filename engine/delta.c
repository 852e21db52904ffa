/* SPDX-License-Identifier: Apache-2.0
 *
 * delta.c - compare two pages, 64 bytes at a time until they differ, then bit by bit of a mask.
 *
 * Changes less than four bytes apart are one range: a range of its own costs two bytes or three.
 */
#include "delta.h"

#include <endian.h>
#include <string.h>

#define STRIDE 64u
#define GAP_MAX 3u

static uint64_t load(const uint8_t *at)
{
	uint64_t value;

	memcpy(&value, at, sizeof(value));
	return htole64(value);
}

static bool stride_differs(const uint8_t *old, const uint8_t *new)
{
	uint64_t any = 0;

	for (unsigned i = 0; i < STRIDE; i += 8)
		any |= load(old + i) ^ load(new + i);
	return any != 0;
}

/* One bit for each of eight bytes that differ. */
static uint64_t differing_bytes(uint64_t x)
{
	const uint64_t low = 0x7f7f7f7f7f7f7f7full;
	uint64_t high = (((x & low) + low) | x) & ~low; /* the top bit of each byte that is not 0 */

	return ((high >> 7) * 0x0102040810204080ull) >> 56;
}

static uint64_t stride_mask(const uint8_t *old, const uint8_t *new)
{
	uint64_t mask = 0;

	for (unsigned i = 0; i < STRIDE; i += 8)
		mask |= differing_bytes(load(old + i) ^ load(new + i)) << i;
	return mask;
}

int nova_delta_find(const uint8_t *old, const uint8_t *new, struct nova_range ranges[NOVA_DELTA_RANGES_MAX])
{
	unsigned count = 0, end = 0, bytes = 0; /* end: of the last range */

	for (unsigned at = 0; at < NOVA_PAGE_BYTES; at += STRIDE) {
		if (!stride_differs(old + at, new + at))
			continue;
		for (uint64_t mask = stride_mask(old + at, new + at); mask;) {
			unsigned first = (unsigned)__builtin_ctzll(mask);
			uint64_t rest = ~(mask >> first);
			unsigned length = rest ? (unsigned)__builtin_ctzll(rest) : STRIDE;
			unsigned from = at + first;

			if (length > STRIDE - first)
				length = STRIDE - first;
			mask = first + length < STRIDE ? mask & (~0ull << (first + length)) : 0;
			if (count && from - end <= GAP_MAX) {
				bytes += from + length - end;
				end = from + length;
				ranges[count - 1].length = (uint16_t)(end - ranges[count - 1].at);
			} else if (count == NOVA_DELTA_RANGES_MAX) {
				return -1;
			} else {
				ranges[count++] = (struct nova_range) { (uint16_t)from, (uint16_t)length };
				bytes += length;
				end = from + length;
			}
			if (bytes > NOVA_DELTA_BYTES_MAX)
				return -1;
		}
	}
	return (int)count;
}
