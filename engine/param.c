/* SPDX-License-Identifier: Apache-2.0
 *
 * param.c - one option or argument: from what a user typed to a JSON value, and the check of a value that
 * is JSON already. Every error names the option, what was wrong and what is accepted.
 */
#include "novacron.h"
#include "cleanup.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

struct unit {
	const char *name;
	double factor;
};

static const struct unit byte_units[] = {
	{ "", 1 }, { "b", 1 }, { "k", 1024 }, { "kib", 1024 }, { "kb", 1024 }, { "m", 1048576 }, { "mib", 1048576 },
	{ "mb", 1048576 }, { "g", 1073741824 }, { "gib", 1073741824 }, { "gb", 1073741824 }, { "t", 1099511627776 },
	{ "tib", 1099511627776 }, { "tb", 1099511627776 }, { NULL },
};
static const struct unit rate_units[] = {
	{ "", 1 }, { "bit", 1 }, { "k", 1e3 }, { "kbit", 1e3 }, { "m", 1e6 }, { "mbit", 1e6 }, { "g", 1e9 },
	{ "gbit", 1e9 }, { "bit/s", 1 }, { "kbit/s", 1e3 }, { "mbit/s", 1e6 }, { "gbit/s", 1e9 }, { NULL },
};
static const struct unit time_units[] = {
	{ "ms", 1 }, { "", 1000 }, { "s", 1000 }, { "sec", 1000 }, { "min", 60000 }, { "m", 60000 }, { "h", 3600000 },
	{ NULL },
};

static const struct {
	const struct unit *units; /* NULL: not a number with a unit */
	const char *what, *accepted;
} kinds[] = {
	[NOVA_T_BYTES] = { byte_units, "a size", "512M, 2GiB or a number of bytes" },
	[NOVA_T_RATE] = { rate_units, "a rate", "200M, 1Gbit or 0 for no limit" },
	[NOVA_T_DURATION] = { time_units, "a time", "300ms, 15s, 5min or 2h" },
	[NOVA_T_JSON] = { NULL, NULL, NULL },
};

static json_t *bad(const struct nova_param *param, const char *text, const char *what, const char *accepted,
    struct nova_error *err)
{
	nova_error_set(err, NOVA_INVALID, "%s: '%.80s' is not %s: try %s", param->name, text, what, accepted);
	return NULL;
}

static int in_range(const struct nova_param *param, double value, struct nova_error *err)
{
	if ((param->min == 0 && param->max == 0) || (value >= (double)param->min && value <= (double)param->max))
		return 0;
	return nova_error_set(err, NOVA_INVALID, "%s: %.0f is out of range: %" PRId64 " to %" PRId64 "%s", param->name,
	    value, param->min, param->max,
	    param->type == NOVA_T_BYTES	     ? " bytes" :
		param->type == NOVA_T_RATE   ? " bits a second" :
		param->type == NOVA_T_DURATION ? " ms" :
						 "");
}

/* A number and one of the units, nothing else. */
static json_t *parse_units(const struct nova_param *param, const char *text, struct nova_error *err)
{
	const struct unit *unit = kinds[param->type].units;
	char *rest;
	double value;

	errno = 0;
	value = strtod(text, &rest);
	if (rest != text + strspn(text, "0123456789.")) /* hexadecimal, exponents */
		return bad(param, text, kinds[param->type].what, kinds[param->type].accepted, err);
	while (isspace((unsigned char)*rest))
		rest++;
	for (; unit->name && strcasecmp(unit->name, rest); unit++)
		;
	if (rest == text || !unit->name || errno || !isfinite(value) || value < 0 || !isdigit((unsigned char)text[0]))
		return bad(param, text, kinds[param->type].what, kinds[param->type].accepted, err);
	value *= unit->factor;
	if (value > 9e18) /* past int64_t */
		return bad(param, text, kinds[param->type].what, kinds[param->type].accepted, err);
	if (in_range(param, value, err) < 0)
		return NULL;
	return json_integer((json_int_t)(value + 0.5));
}

static json_t *parse_int(const struct nova_param *param, const char *text, struct nova_error *err)
{
	char *rest;
	long long value;

	errno = 0;
	value = strtoll(text, &rest, 10);
	if (rest == text || *rest || errno)
		return bad(param, text, "a number", "a whole number", err);
	if (in_range(param, (double)value, err) < 0)
		return NULL;
	return json_integer(value);
}

static json_t *parse_bool(const struct nova_param *param, const char *text, struct nova_error *err)
{
	static const char *const yes[] = { "yes", "on", "true", "1", "" }, *const no[] = { "no", "off", "false", "0" };

	for (size_t i = 0; i < sizeof(yes) / sizeof(*yes); i++)
		if (!strcasecmp(text, yes[i]))
			return json_true();
	for (size_t i = 0; i < sizeof(no) / sizeof(*no); i++)
		if (!strcasecmp(text, no[i]))
			return json_false();
	return bad(param, text, "yes or no", "yes, no, on, off, true or false", err);
}

static bool is_choice(const char *choices, const char *text)
{
	size_t length = strlen(text);

	if (strchr(text, '|'))
		return false;
	for (const char *at = choices; at; at = strchr(at, '|') ? strchr(at, '|') + 1 : NULL)
		if (!strncmp(at, text, length) && (at[length] == '|' || at[length] == 0) && length)
			return true;
	return false;
}

static json_t *parse_json(const struct nova_param *param, const char *text, struct nova_error *err)
{
	json_error_t why;
	bool literal = strchr("{[\"", text[0]) != NULL;
	json_t *value = literal ? json_loads(text, JSON_DECODE_ANY | JSON_REJECT_DUPLICATES, &why) :
				  json_load_file(text, JSON_DECODE_ANY | JSON_REJECT_DUPLICATES, &why);

	if (!value)
		nova_error_set(err, NOVA_INVALID, "%s: %s%.80s: %s (line %d)", param->name, literal ? "" : "file ", text, why.text,
		    why.line);
	return value;
}

json_t *nova_param_parse(const struct nova_param *param, const char *text, struct nova_error *err)
{
	switch (param->type) {
	case NOVA_T_BYTES:
	case NOVA_T_RATE:
	case NOVA_T_DURATION:
		return parse_units(param, text, err);
	case NOVA_T_INT:
		return parse_int(param, text, err);
	case NOVA_T_BOOL:
		return parse_bool(param, text, err);
	case NOVA_T_CHOICE:
		return is_choice(param->choices, text) ? json_string(text) :
							 bad(param, text, "one of the choices", param->choices, err);
	case NOVA_T_JSON:
		return parse_json(param, text, err);
	case NOVA_T_LIST:
		return json_pack("[s]", text);
	case NOVA_T_PATH:
		if (!text[0])
			return bad(param, text, "a path", "the name of a file", err);
		break;
	case NOVA_T_STRING:
		break;
	}
	return json_string(text) ?: bad(param, "...", "UTF-8 text", "text in UTF-8", err);
}

/* ---- values that are JSON already ---- */

static int wrong(const struct nova_param *param, const char *accepted, struct nova_error *err)
{
	return nova_error_set(err, NOVA_INVALID, "%s: must be %s", param->name, accepted);
}

static int check_number(const struct nova_param *param, const json_t *value, struct nova_error *err)
{
	if (!json_is_integer(value))
		return wrong(param,
		    param->type == NOVA_T_BYTES	       ? "a number of bytes" :
			param->type == NOVA_T_RATE     ? "a number of bits a second" :
			param->type == NOVA_T_DURATION ? "a number of milliseconds" :
							 "a number",
		    err);
	if (param->type != NOVA_T_INT && json_integer_value(value) < 0)
		return wrong(param, "0 or more", err);
	return in_range(param, (double)json_integer_value(value), err);
}

static int check_list(const struct nova_param *param, const json_t *value, struct nova_error *err)
{
	size_t i;
	json_t *item;

	if (!json_is_array(value))
		return wrong(param, "an array", err);
	json_array_foreach (value, i, item)
		if (!json_is_string(item) && !json_is_object(item))
			return wrong(param, "an array of texts or objects", err);
	return 0;
}

int nova_param_check(const struct nova_param *param, const json_t *value, struct nova_error *err)
{
	switch (param->type) {
	case NOVA_T_BYTES:
	case NOVA_T_RATE:
	case NOVA_T_DURATION:
	case NOVA_T_INT:
		return check_number(param, value, err);
	case NOVA_T_BOOL:
		return json_is_boolean(value) ? 0 : wrong(param, "true or false", err);
	case NOVA_T_CHOICE:
		return json_is_string(value) && is_choice(param->choices, json_string_value(value)) ?
			   0 :
			   nova_error_set(err, NOVA_INVALID, "%s: must be one of %s", param->name, param->choices);
	case NOVA_T_LIST:
		return check_list(param, value, err);
	case NOVA_T_JSON:
		return 0;
	case NOVA_T_PATH:
	case NOVA_T_STRING:
		break;
	}
	return json_is_string(value) ? 0 : wrong(param, "a text", err);
}
