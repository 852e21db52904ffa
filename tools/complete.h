/* SPDX-License-Identifier: Apache-2.0
 *
 * complete.h - what could come next on a command line.
 */
#ifndef TOOLS_COMPLETE_H
#define TOOLS_COMPLETE_H

#include "tools/args.h"
#include <stdio.h>

/* Print the names that fit metavar ("GUEST", "PEER", "JOB"), one a line. */
typedef void (*complete_names_fn)(void *arg, FILE *out, const char *metavar);

/* Candidates for the last of words, one a line, "@files" alone for file names. names may be NULL.
 * Returns 0. */
int complete_options(FILE *out, const struct arg_group *groups, size_t group_count, char *const *words,
    int count, complete_names_fn names, void *arg);

#endif
