/* SPDX-License-Identifier: Apache-2.0
 *
 * bucket.c - hold what is sent to the bandwidth the user allowed.
 *
 * After a pause at most 20 ms of the rate may go at once. Who waits for tokens may catch up on 100 ms: a
 * loop that wakes late on a busy machine would otherwise stay below its rate. Frames that bypass the
 * limit (control) are still charged, so that the sum holds. Not here: the timer (links.c).
 */
#include "bucket.h"

#define IDLE_BURST_S 0.020
#define LATE_BURST_S 0.100
#define SEGMENT_BYTES 1448u /* payload of a TCP segment on Ethernet */
#define SEGMENT_HEADERS 52u /* IPv4 20, TCP 20, timestamps 12 */

static double bytes_a_second(const struct bucket *bucket)
{
	return (double)bucket->rate_bps / 8;
}

static void refill(struct bucket *bucket, uint64_t now_ns)
{
	double elapsed_s = (double)(now_ns - bucket->at_ns) / 1e9;
	double most = bytes_a_second(bucket) * (bucket->waiting ? LATE_BURST_S : IDLE_BURST_S);

	bucket->at_ns = now_ns;
	if (most < bucket->tokens)
		most = bucket->tokens; /* what was given stays */
	bucket->tokens += elapsed_s * bytes_a_second(bucket);
	if (bucket->tokens > most)
		bucket->tokens = most;
}

void bucket_set(struct bucket *bucket, uint64_t rate_bps, uint64_t now_ns)
{
	double debt;

	if (bucket->rate_bps)
		refill(bucket, now_ns);
	bucket->rate_bps = rate_bps;
	bucket->at_ns = now_ns;
	debt = -bytes_a_second(bucket) * IDLE_BURST_S;
	if (bucket->tokens > 0 || !rate_bps)
		bucket->tokens = 0;
	else if (bucket->tokens < debt)
		bucket->tokens = debt;
}

bool bucket_ready(struct bucket *bucket, uint64_t now_ns)
{
	if (!bucket->rate_bps)
		return true;
	refill(bucket, now_ns);
	bucket->waiting = bucket->tokens <= 0;
	return !bucket->waiting;
}

void bucket_take(struct bucket *bucket, size_t bytes)
{
	if (bucket->rate_bps)
		bucket->tokens -= (double)bytes * (SEGMENT_BYTES + SEGMENT_HEADERS) / SEGMENT_BYTES;
}

uint64_t bucket_wait_ns(const struct bucket *bucket)
{
	if (!bucket->rate_bps || bucket->tokens > 0)
		return 0;
	return (uint64_t)(-bucket->tokens / bytes_a_second(bucket) * 1e9) + 1;
}
