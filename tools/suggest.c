/* SPDX-License-Identifier: Apache-2.0
 *
 * suggest.c - "did you mean" for commands and options.
 *
 * Edit distance with swapped neighbours counted once. Near enough is one edit for every three letters
 * typed, at least one; a typed beginning of at least three letters is near as well. Words of more than
 * 32 letters get no suggestion.
 */
#include "tools/suggest.h"
#include <string.h>

enum {
	WORD_MAX = 32
};

static unsigned min2(unsigned a, unsigned b)
{
	return a < b ? a : b;
}

static unsigned distance(const char *a, size_t a_length, const char *b, size_t b_length)
{
	unsigned d[WORD_MAX + 1][WORD_MAX + 1];

	for (size_t i = 0; i <= a_length; i++)
		d[i][0] = (unsigned)i;
	for (size_t j = 0; j <= b_length; j++)
		d[0][j] = (unsigned)j;
	for (size_t i = 1; i <= a_length; i++)
		for (size_t j = 1; j <= b_length; j++) {
			unsigned change = d[i - 1][j - 1] + (a[i - 1] != b[j - 1]);
			d[i][j] = min2(change, min2(d[i - 1][j], d[i][j - 1]) + 1);
			if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
				d[i][j] = min2(d[i][j], d[i - 2][j - 2] + 1);
		}
	return d[a_length][b_length];
}

void suggest_offer(struct suggestion *best, const char *typed, const char *candidate)
{
	size_t length = strlen(typed), other = strlen(candidate);
	unsigned near;

	if (length == 0 || length > WORD_MAX || other > WORD_MAX)
		return;
	near = distance(typed, length, candidate, other);
	if (length >= 3 && !strncmp(typed, candidate, length))
		near = 1;
	if (near > (length < 6 ? 1 : length / 3))
		return;
	if (!best->name || near < best->distance)
		*best = (struct suggestion) { candidate, near };
}
