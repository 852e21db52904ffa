/* SPDX-License-Identifier: Apache-2.0
 *
 * help.c - option tables as text: --help and the man pages, so that neither can differ from what the
 * programs accept. The prose around the tables is in tools/man/.
 */
#include "tools/help.h"
#include <inttypes.h>
#include <string.h>

enum {
	INDENT = 2,
	LEFT_MAX = 28,
	LINE = 100
};

const char *help_value(const struct nova_param *param)
{
	static const char *const by_type[] = {
		[NOVA_T_STRING] = "TEXT",
		[NOVA_T_BOOL] = "",
		[NOVA_T_INT] = "N",
		[NOVA_T_BYTES] = "SIZE",
		[NOVA_T_RATE] = "RATE",
		[NOVA_T_DURATION] = "TIME",
		[NOVA_T_CHOICE] = "",
		[NOVA_T_PATH] = "FILE",
		[NOVA_T_LIST] = "TEXT",
		[NOVA_T_JSON] = "JSON",
	};

	if (param->type == NOVA_T_BOOL)
		return "";
	if (param->type == NOVA_T_CHOICE)
		return param->choices;
	return param->metavar ? param->metavar : by_type[param->type];
}

static const char *positional_name(const struct nova_param *param)
{
	return param->metavar ? param->metavar : param->name;
}

void help_synopsis(FILE *out, const struct nova_param *params, size_t count)
{
	bool options = false;

	for (size_t i = 0; i < count; i++)
		if (params[i].positional)
			fprintf(out, params[i].required ? " %s%s" : " [%s%s]", positional_name(&params[i]),
			    params[i].type == NOVA_T_LIST ? "..." : "");
	for (size_t i = 0; i < count; i++) {
		if (params[i].positional)
			continue;
		if (params[i].required)
			fprintf(out, " --%s %s", params[i].name, help_value(&params[i]));
		else
			options = true;
	}
	if (options)
		fputs(" [options]", out);
}

void help_number(FILE *out, enum nova_type type, int64_t value)
{
	static const char binary[] = " KMGTPE", decimal[] = " kMGTPE";
	int64_t step = type == NOVA_T_BYTES ? 1024 : 1000;
	size_t scale = 0;

	if (type == NOVA_T_DURATION) {
		if (value && value % 60000 == 0)
			fprintf(out, "%" PRId64 "min", value / 60000);
		else if (value && value % 1000 == 0)
			fprintf(out, "%" PRId64 "s", value / 1000);
		else
			fprintf(out, "%" PRId64 "ms", value);
		return;
	}
	while ((type == NOVA_T_BYTES || type == NOVA_T_RATE) && value && value % step == 0 && scale < 6) {
		value /= step;
		scale++;
	}
	fprintf(out, "%" PRId64, value);
	if (scale)
		fputc(type == NOVA_T_BYTES ? binary[scale] : decimal[scale], out);
}

/* "(required)", "(default 5min; 1s to 1h; may be repeated)": what the help line does not say. */
static void put_facts(FILE *out, const struct nova_param *param)
{
	const char *before = " (";

	if (param->required && !param->positional) {
		fprintf(out, "%srequired", before);
		before = "; ";
	}
	if (param->type == NOVA_T_BOOL && param->fallback && !strcmp(param->fallback, "yes")) {
		fprintf(out, "%sdefault yes; --no-%s turns it off", before, param->name);
		before = "; ";
	} else if (param->type != NOVA_T_BOOL && param->fallback && *param->fallback) {
		fprintf(out, "%sdefault %s", before, param->fallback);
		before = "; ";
	}
	if ((param->min || param->max) && param->type >= NOVA_T_INT && param->type <= NOVA_T_DURATION) {
		fputs(before, out);
		help_number(out, param->type, param->min);
		if (param->max == INT64_MAX) {
			fputs(" or more", out);
		} else {
			fputs(" to ", out);
			help_number(out, param->type, param->max);
		}
		before = "; ";
	}
	if (param->type == NOVA_T_LIST && !param->positional) {
		fprintf(out, "%smay be repeated", before);
		before = "; ";
	}
	if (*before == ';')
		fputc(')', out);
}

/* Words of text from column on, continued below it. */
static void put_wrapped(FILE *out, const char *text, size_t column)
{
	size_t at = column;

	while (*text) {
		size_t word = strcspn(text, " ");
		if (at > column && at + 1 + word > LINE) {
			fprintf(out, "\n%*s", (int)column, "");
			at = column;
		} else if (at > column) {
			fputc(' ', out);
			at++;
		}
		fprintf(out, "%.*s", (int)word, text);
		at += word;
		text += word + strspn(text + word, " ");
	}
	fputc('\n', out);
}

static void help_row(FILE *out, const struct nova_param *param)
{
	char left[128], right[512];
	FILE *text = fmemopen(right, sizeof(right), "w");
	int used;

	if (!text)
		return;
	fputs(param->help, text);
	put_facts(text, param);
	fclose(text);
	if (param->positional)
		used = snprintf(left, sizeof(left), "%s", positional_name(param));
	else
		used = snprintf(left, sizeof(left), "--%s%s%s", param->name, *help_value(param) ? " " : "",
		    help_value(param));
	if (used < LEFT_MAX)
		fprintf(out, "%*s%-*s", INDENT, "", LEFT_MAX, left);
	else
		fprintf(out, "%*s%s\n%*s", INDENT, "", left, INDENT + LEFT_MAX, "");
	put_wrapped(out, right, INDENT + LEFT_MAX);
}

void help_params(FILE *out, const char *title, const struct nova_param *params, size_t count)
{
	if (!count)
		return;
	fprintf(out, "\n%s:\n", title);
	for (size_t i = 0; i < count; i++)
		help_row(out, &params[i]);
}

void help_man_text(FILE *out, const char *text)
{
	if (*text == '.' || *text == '\'')
		fputs("\\&", out);
	for (; *text; text++) {
		if (*text == '\\')
			fputs("\\e", out);
		else if (*text == '-')
			fputs("\\-", out);
		else
			fputc(*text, out);
	}
}

void help_man_params(FILE *out, const struct nova_param *params, size_t count, bool in_file)
{
	for (size_t i = 0; i < count; i++) {
		const struct nova_param *param = &params[i];
		char right[512];
		FILE *text = fmemopen(right, sizeof(right), "w");

		if (!text)
			return;
		fputs(param->help, text);
		put_facts(text, param);
		fclose(text);
		fputs(".TP\n", out);
		if (param->positional) {
			fputs("\\fI", out);
			help_man_text(out, positional_name(param));
		} else {
			fputs(in_file ? "\\fB" : "\\fB\\-\\-", out);
			help_man_text(out, param->name);
			fputs(in_file ? "\\fR = \\fI" : "\\fR \\fI", out);
			help_man_text(out, *help_value(param) ? help_value(param) : in_file ? "yes|no" : "");
		}
		fputs("\\fR\n", out);
		help_man_text(out, right);
		fputs(".\n", out);
	}
}

static void put_with_version(FILE *out, char *line, const char *version)
{
	char *mark = strstr(line, "@VERSION@");

	if (!mark) {
		fputs(line, out);
		return;
	}
	fprintf(out, "%.*s%s%s", (int)(mark - line), line, version, mark + strlen("@VERSION@"));
}

int help_man_page(FILE *in, FILE *out, const char *version, int (*section)(FILE *out, const char *name))
{
	char line[1024];

	while (fgets(line, sizeof(line), in)) {
		size_t length = strcspn(line, "\n");
		if (length > 2 && line[0] == '@' && line[length - 1] == '@') {
			line[length - 1] = '\0';
			if (section(out, line + 1) < 0)
				return -1;
			continue;
		}
		put_with_version(out, line, version);
	}
	return ferror(in) || fflush(out) ? -1 : 0;
}
