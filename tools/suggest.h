/* SPDX-License-Identifier: Apache-2.0
 *
 * suggest.h - which name did the user mean? Offer every candidate; the nearest stays.
 */
#ifndef TOOLS_SUGGEST_H
#define TOOLS_SUGGEST_H

struct suggestion {
	const char *name; /* borrowed from the candidates; NULL: nothing is near enough */
	unsigned distance;
};

void suggest_offer(struct suggestion *best, const char *typed, const char *candidate);

#endif
