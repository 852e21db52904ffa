/* SPDX-License-Identifier: Apache-2.0
 *
 * exitcode.c - exit statuses, from one table that the man pages print as well. Scripts depend on the
 * numbers: append only.
 */
#include "tools/exitcode.h"
#include <assert.h>
#include <string.h>

static const struct {
	int code;
	enum nova_category category; /* NOVA_CATEGORIES: not made from a category */
	const char *help;
} codes[] = {
	{ 0, NOVA_OK, "done; for a job that was waited for: completed" },
	{ 1, NOVA_SYSTEM, "a system call failed, or the program itself did" },
	{ 2, NOVA_INVALID, "the request is wrong: the text says what is accepted" },
	{ 3, NOVA_STATE, "right request, wrong moment" },
	{ 4, NOVA_REFUSED, "the other side said no" },
	{ 5, NOVA_LINK, "connection lost, or no daemon answers: the state over there is unknown" },
	{ 6, NOVA_TIMEOUT, "no answer in time: the state over there is unknown" },
	{ 7, NOVA_CANCELLED, "somebody cancelled it" },
	{ EXIT_IN_DOUBT, NOVA_CATEGORIES, "a migration is in doubt: see resolve" },
	{ EXIT_LEFTOVERS, NOVA_CATEGORIES, "the job ended but left something behind that it names" },
	{ EXIT_WARNINGS, NOVA_CATEGORIES, "doctor found nothing worse than warnings (errors: 1)" },
	{ EXIT_INTERRUPTED, NOVA_CATEGORIES, "interrupted by ^C; a job that was waited for goes on" },
};

enum {
	CODES = sizeof(codes) / sizeof(codes[0])
};

static_assert(NOVA_CATEGORIES == 8, "a new category needs its exit status");

int exit_of(enum nova_category category)
{
	for (size_t i = 0; i < CODES; i++)
		if (codes[i].category == category && category != NOVA_CATEGORIES)
			return codes[i].code;
	return 1;
}

int exit_of_outcome(const char *outcome, enum nova_category category)
{
	if (!strcmp(outcome, "completed"))
		return 0;
	if (!strcmp(outcome, "in-doubt"))
		return EXIT_IN_DOUBT;
	if (!strcmp(outcome, "leftovers") || !strcmp(outcome, "undo-failed"))
		return EXIT_LEFTOVERS;
	return category == NOVA_OK ? 1 : exit_of(category);
}

enum nova_category category_of(const char *name)
{
	for (int i = 0; name && i < NOVA_CATEGORIES; i++)
		if (!strcmp(name, nova_category_name((enum nova_category)i)))
			return (enum nova_category)i;
	return NOVA_SYSTEM;
}

void exit_man(FILE *out)
{
	for (size_t i = 0; i < CODES; i++)
		fprintf(out, ".TP\n.B %d\n%s.\n", codes[i].code, codes[i].help);
}
