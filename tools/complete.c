/* SPDX-License-Identifier: Apache-2.0
 *
 * complete.c - what could come next on a command line, from the same option tables that parse it. The shell
 * function (tools/completion/novacron) only hands over the words and filters what fits the beginning typed.
 */
#include "tools/complete.h"
#include "tools/help.h"
#include <string.h>

static void choices(FILE *out, const char *list)
{
	for (size_t length; *list; list += length + (list[length] == '|')) {
		length = strcspn(list, "|");
		fprintf(out, "%.*s\n", (int)length, list);
	}
}

static void values(FILE *out, const struct nova_param *param, complete_names_fn names, void *arg)
{
	const char *metavar = param->metavar ? param->metavar : "";

	if (param->type == NOVA_T_CHOICE)
		choices(out, param->choices);
	else if (param->type == NOVA_T_PATH || param->type == NOVA_T_JSON || !strcmp(metavar, "FILE"))
		fputs("@files\n", out);
	else if (names)
		names(arg, out, metavar);
}

/* How many words before the last one are positional. */
static size_t count_positionals(
    const struct arg_group *groups, size_t group_count, char *const *words, int count)
{
	size_t seen = 0;

	for (int i = 0; i < count - 1; i++) {
		const struct nova_param *param;
		if (strncmp(words[i], "--", 2)) {
			seen++;
			continue;
		}
		param = args_find(groups, group_count, words[i] + 2);
		if (param && param->type != NOVA_T_BOOL)
			i++;
	}
	return seen;
}

static const struct nova_param *positional(const struct arg_group *groups, size_t group_count, size_t index)
{
	for (size_t i = 0; i < group_count; i++)
		for (size_t j = 0; j < groups[i].count; j++) {
			const struct nova_param *param = &groups[i].params[j];
			if (param->positional && (index == 0 || param->type == NOVA_T_LIST))
				return param;
			index -= param->positional;
		}
	return NULL;
}

int complete_options(FILE *out, const struct arg_group *groups, size_t group_count, char *const *words,
    int count, complete_names_fn names, void *arg)
{
	const char *last = count ? words[count - 1] : "", *before = count > 1 ? words[count - 2] : "";
	const struct nova_param *param = NULL;

	if (!strncmp(before, "--", 2))
		param = args_find(groups, group_count, before + 2);
	if (param && param->type != NOVA_T_BOOL) {
		values(out, param, names, arg);
		return 0;
	}
	if (*last != '-') {
		param = positional(groups, group_count, count_positionals(groups, group_count, words, count));
		if (param) {
			values(out, param, names, arg);
			return 0;
		}
	}
	for (size_t i = 0; i < group_count; i++)
		for (size_t j = 0; j < groups[i].count; j++)
			if (!groups[i].params[j].positional)
				fprintf(out, "--%s\n", groups[i].params[j].name);
	return 0;
}
