/* SPDX-License-Identifier: Apache-2.0
 *
 * bucket.h - a token bucket in bytes, for a rate in bits a second.
 */
#ifndef NOVA_BUCKET_H
#define NOVA_BUCKET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct bucket {
	uint64_t rate_bps; /* 0: no limit */
	double tokens;     /* bytes; negative: spent in advance */
	uint64_t at_ns;    /* of the last refill */
	bool waiting;      /* somebody was told to wait */
};

/* The new rate holds from now on; what was spent in advance stays spent, up to one burst. */
void bucket_set(struct bucket *bucket, uint64_t rate_bps, uint64_t now_ns);
bool bucket_ready(struct bucket *bucket, uint64_t now_ns);
/* bytes of TLS on a socket; headers of TCP and IP are added here. */
void bucket_take(struct bucket *bucket, size_t bytes);
/* Until it is ready again, 0: it is. */
uint64_t bucket_wait_ns(const struct bucket *bucket);

#endif
