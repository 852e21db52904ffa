/* SPDX-License-Identifier: Apache-2.0
 *
 * exitcode.h - what the exit status of our programs means, by error category.
 */
#ifndef TOOLS_EXITCODE_H
#define TOOLS_EXITCODE_H

#include "novacron.h"
#include <stdio.h>

enum {
	EXIT_IN_DOUBT = 8,      /* nobody knows yet which side has the guest */
	EXIT_LEFTOVERS = 9,     /* done or undone, but something is left to clean up */
	EXIT_WARNINGS = 10,     /* doctor: warnings, no errors */
	EXIT_INTERRUPTED = 130, /* ^C: only the waiting ended */
};

int exit_of(enum nova_category category);

/* A job's outcome ("completed", "undone", ...); category is its error's. */
int exit_of_outcome(const char *outcome, enum nova_category category);

/* The category of that name; NOVA_SYSTEM if there is none. */
enum nova_category category_of(const char *name);

/* The table as a list of a man page. */
void exit_man(FILE *out);

#endif
