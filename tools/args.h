/* SPDX-License-Identifier: Apache-2.0
 *
 * args.h - words of a command line become JSON values, by option tables. Limits and rules: args.c.
 */
#ifndef TOOLS_ARGS_H
#define TOOLS_ARGS_H

#include "novacron.h"

/* Rows that share a destination. An earlier group of a list hides rows of the same name in later ones. */
struct arg_group {
	const struct nova_param *params; /* borrowed */
	size_t count;
	json_t *values; /* borrowed: object that the parsed values are put into */
	/* Where the typed text goes instead; NULL: values */
	int (*set)(void *arg, const char *name, const char *text, struct nova_error *err);
	void *arg;
};

/* Rows up to the one without a name. NULL has none. */
size_t args_count(const struct nova_param *params);

/* Parse words[0..count). With stop_at_word the first word that is no option ends parsing (positional rows
 * stay unused). Returns how many words were used, or -1. */
int args_parse(const struct arg_group *groups, size_t group_count, char *const *words, int count,
    bool stop_at_word, struct nova_error *err);

/* 0 if every required row of the group has a value. */
int args_check_required(const struct arg_group *group, struct nova_error *err);

/* The row that --name means (also --no-NAME of a bool), or NULL. */
const struct nova_param *args_find(const struct arg_group *groups, size_t group_count, const char *name);

/* The typed value of an option before anything is parsed: later rows may depend on it. Borrowed; NULL if
 * it is not there. */
const char *args_peek(char *const *words, int count, const char *name);

#endif
