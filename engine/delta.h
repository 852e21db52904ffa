/* SPDX-License-Identifier: Apache-2.0
 *
 * delta.h - where two versions of a page differ.
 */
#ifndef NOVA_DELTA_H
#define NOVA_DELTA_H

#include "codec.h"

#define NOVA_DELTA_RANGES_MAX 400u
#define NOVA_DELTA_BYTES_MAX 3072u /* beyond, a page goes whole */

/* Changed bytes of a page: [at, at + length). */
struct nova_range {
	uint16_t at, length;
};

/* Fills ranges in order, none adjacent; returns their number, 0: equal, or -1 if more than the limits above.
 */
int nova_delta_find(const uint8_t *old, const uint8_t *new, struct nova_range ranges[NOVA_DELTA_RANGES_MAX]);

#endif
