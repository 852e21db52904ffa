/* SPDX-License-Identifier: Apache-2.0
 *
 * limits.h - what the parts cost alone: the limits that a codec or a relay on one core can reach.
 */
#ifndef PERF_LIMITS_H
#define PERF_LIMITS_H

#include <stddef.h>
#include <stdint.h>

struct limit {
	const char *name;
	size_t piece;
	/* Returns what the piece became, in bytes; 0: no matter. */
	size_t (*run)(void *state, const uint8_t *data, size_t length);
	void *(*open)(void);
	void (*close)(void *state);
};
extern const struct limit limits[];
extern const size_t n_limits;

/* Processor time of this process, in seconds. */
double limits_cpu_s(void);
/* Seconds that the data takes, the best of three; *ratio: what it shrank by, 0: it does not. */
double limits_measure(const struct limit *limit, const uint8_t *data, size_t length, double *ratio);

#endif
