/* SPDX-License-Identifier: Apache-2.0
 *
 * clock.h - the time, and spans of it as libevent wants them. A timeval must have less than 1,000,000 us: with more
 * the loop sleeps until something else wakes it.
 */
#ifndef NOVA_CLOCK_H
#define NOVA_CLOCK_H

#include <stdint.h>
#include <sys/time.h>
#include <time.h>

static inline int64_t nova_clock_ms(clockid_t clock)
{
	struct timespec now;

	clock_gettime(clock, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Since some moment in the past, never set back. */
static inline int64_t nova_now_ms(void)
{
	return nova_clock_ms(CLOCK_MONOTONIC);
}

/* Since the epoch. */
static inline int64_t nova_wall_ms(void)
{
	return nova_clock_ms(CLOCK_REALTIME);
}

static inline struct timeval nova_timeval_us(int64_t us)
{
	return (struct timeval) { .tv_sec = us / 1000000, .tv_usec = us % 1000000 };
}

static inline struct timeval nova_timeval_ms(int64_t ms)
{
	return nova_timeval_us(ms * 1000);
}

#endif
