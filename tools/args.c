/* SPDX-License-Identifier: Apache-2.0
 *
 * args.c - the one parser of command lines, for both programs.
 *
 * --name value and --name=value; a bool is --name, --no-name or --name=true; "--" ends the options; what
 * remains fills the positional rows in order, and a positional list takes all that is left. The last one
 * of a repeated option counts, lists collect. Values are judged by nova_param_parse(), so that a typed
 * argument and one in the control protocol meet the same limits.
 * Not here: what the options mean, and the help that is printed from the same rows (help.c).
 */
#include "tools/args.h"
#include "tools/suggest.h"
#include <string.h>

size_t args_count(const struct nova_param *params)
{
	size_t count = 0;

	while (params && params[count].name)
		count++;
	return count;
}

static const struct nova_param *group_find(const struct arg_group *group, const char *name, size_t length)
{
	for (size_t i = 0; i < group->count; i++) {
		const struct nova_param *param = &group->params[i];
		if (!param->positional && strlen(param->name) == length && !memcmp(param->name, name, length))
			return param;
	}
	return NULL;
}

static const struct nova_param *find(const struct arg_group *groups, size_t count, const char *name,
    size_t length, const struct arg_group **where)
{
	for (size_t i = 0; i < count; i++) {
		const struct nova_param *param = group_find(&groups[i], name, length);
		if (param) {
			*where = &groups[i];
			return param;
		}
	}
	return NULL;
}

const struct nova_param *args_find(const struct arg_group *groups, size_t count, const char *name)
{
	const struct arg_group *where;
	const struct nova_param *param = find(groups, count, name, strlen(name), &where);

	if (!param && !strncmp(name, "no-", 3)) {
		param = find(groups, count, name + 3, strlen(name + 3), &where);
		if (param && param->type != NOVA_T_BOOL)
			param = NULL;
	}
	return param;
}

static int unknown_option(
    const struct arg_group *groups, size_t count, const char *word, size_t length, struct nova_error *err)
{
	char typed[64];
	struct suggestion best = { 0 };

	snprintf(typed, sizeof(typed), "%.*s", (int)length, word);
	for (size_t i = 0; i < count; i++)
		for (size_t j = 0; j < groups[i].count; j++)
			if (!groups[i].params[j].positional)
				suggest_offer(&best, typed + 2, groups[i].params[j].name);
	if (best.name)
		return nova_error_set(
		    err, NOVA_INVALID, "unknown option %s; did you mean --%s?", typed, best.name);
	return nova_error_set(err, NOVA_INVALID, "unknown option %s", typed);
}

static int store(
    const struct arg_group *group, const struct nova_param *param, const char *text, struct nova_error *err)
{
	json_t *value, *list;

	if (group->set)
		return group->set(group->arg, param->name, text, err);
	value = nova_param_parse(param, text, err);
	if (!value)
		return -1;
	if (param->type != NOVA_T_LIST) {
		json_object_set_new(group->values, param->name, value);
		return 0;
	}
	list = json_object_get(group->values, param->name);
	if (list)
		json_array_extend(list, value);
	else
		json_object_set(group->values, param->name, value);
	json_decref(value);
	return 0;
}

/* One option at words[0]; returns the number of words it took. */
static int parse_option(
    const struct arg_group *groups, size_t count, char *const *words, int left, struct nova_error *err)
{
	const char *name = words[0] + 2, *equals = strchr(name, '=');
	size_t length = equals ? (size_t)(equals - name) : strlen(name);
	const struct arg_group *group;
	const struct nova_param *param = find(groups, count, name, length, &group);

	if (!param && !equals && !strncmp(name, "no-", 3)) {
		param = find(groups, count, name + 3, length - 3, &group);
		if (param && param->type == NOVA_T_BOOL)
			return store(group, param, "false", err) < 0 ? -1 : 1;
		param = NULL;
	}
	if (!param)
		return unknown_option(groups, count, words[0], length + 2, err);
	if (equals)
		return store(group, param, equals + 1, err) < 0 ? -1 : 1;
	if (param->type == NOVA_T_BOOL)
		return store(group, param, "true", err) < 0 ? -1 : 1;
	if (left < 2)
		return nova_error_set(err, NOVA_INVALID, "--%s needs a value%s%s", param->name,
		    param->metavar ? ": " : "", param->metavar ? param->metavar : "");
	return store(group, param, words[1], err) < 0 ? -1 : 2;
}

/* The index-th positional row over all groups; a list stays current for ever. */
static const struct nova_param *positional(
    const struct arg_group *groups, size_t count, size_t index, const struct arg_group **where)
{
	for (size_t i = 0; i < count; i++)
		for (size_t j = 0; j < groups[i].count; j++) {
			const struct nova_param *param = &groups[i].params[j];
			if (!param->positional)
				continue;
			if (index == 0 || param->type == NOVA_T_LIST) {
				*where = &groups[i];
				return param;
			}
			index--;
		}
	return NULL;
}

int args_parse(const struct arg_group *groups, size_t group_count, char *const *words, int count,
    bool stop_at_word, struct nova_error *err)
{
	bool options = true;
	size_t seen = 0;
	int i = 0;

	while (i < count) {
		const struct arg_group *group;
		const struct nova_param *param;

		if (options && !strcmp(words[i], "--")) {
			options = false;
			i++;
			continue;
		}
		if (options && !strncmp(words[i], "--", 2)) {
			int used = parse_option(groups, group_count, words + i, count - i, err);
			if (used < 0)
				return -1;
			i += used;
			continue;
		}
		if (stop_at_word)
			return i;
		if (options && words[i][0] == '-' && words[i][1] && !strchr("0123456789.", words[i][1]))
			return nova_error_set(
			    err, NOVA_INVALID, "unknown option %.60s; options are written --name", words[i]);
		param = positional(groups, group_count, seen++, &group);
		if (!param)
			return nova_error_set(err, NOVA_INVALID, "unexpected argument \"%.100s\"", words[i]);
		if (store(group, param, words[i++], err) < 0)
			return -1;
	}
	return i;
}

int args_check_required(const struct arg_group *group, struct nova_error *err)
{
	for (size_t i = 0; i < group->count; i++) {
		const struct nova_param *param = &group->params[i];
		if (!param->required || json_object_get(group->values, param->name))
			continue;
		if (param->positional)
			return nova_error_set(err, NOVA_INVALID, "%s is missing: %s",
			    param->metavar ? param->metavar : param->name, param->help);
		return nova_error_set(err, NOVA_INVALID, "--%s is missing: %s", param->name, param->help);
	}
	return 0;
}

const char *args_peek(char *const *words, int count, const char *name)
{
	size_t length = strlen(name);

	for (int i = 0; i < count && strcmp(words[i], "--"); i++) {
		if (strncmp(words[i], "--", 2) || strncmp(words[i] + 2, name, length))
			continue;
		if (words[i][2 + length] == '=')
			return words[i] + 3 + length;
		if (!words[i][2 + length] && i + 1 < count)
			return words[i + 1];
	}
	return NULL;
}
