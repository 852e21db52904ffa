/* SPDX-License-Identifier: Apache-2.0
 *
 * views.c - answers of the daemon as people read them. A command that is not in the table below is shown
 * well enough by its shape: a list is a table, an object is lines.
 */
#include "tools/format.h"
#include "tools/table.h"
#include "tools/views.h"
#include <stdlib.h>
#include <string.h>

static const struct view {
	const char *command;
	const char *columns; /* of a list; of an object: what leads */
	const char *none;    /* for an empty list */
} views[] = {
	{ "list", "name state driver owner memory_bytes vcpus uuid", "no guests" },
	{ "jobs", "job kind guest peer state phase percent outcome started", "no jobs" },
	{ "peers", NULL, "no peers are configured" },
	{ "drivers", NULL, "no drivers are built in" },
	{ "show", "name state driver owner uuid", NULL },
	{ "job", "job kind guest peer state phase outcome", NULL },
};

static const struct view *view_of(const char *command)
{
	for (size_t i = 0; i < sizeof(views) / sizeof(views[0]); i++)
		if (!strcmp(views[i].command, command))
			return &views[i];
	return NULL;
}

void view_answer(FILE *out, const char *command, const json_t *answer)
{
	const struct view *view = view_of(command);
	char *text;

	if (json_is_array(answer) && !json_array_size(answer)) {
		fprintf(out, "%s\n", view && view->none ? view->none : "none");
	} else if (json_is_array(answer) && json_is_object(json_array_get(answer, 0))) {
		table_print(out, answer, view ? view->columns : NULL);
	} else if (json_is_object(answer)) {
		object_print(out, answer, view ? view->columns : NULL, 0);
	} else if (answer && !json_is_null(answer)) {
		text = format_member(command, answer);
		fprintf(out, "%s\n", text);
		free(text);
	}
}

static void put_clean(FILE *out, const char *before, const char *text, const char *after)
{
	char *clean = format_clean(text);

	fprintf(out, "%s%s%s", before, clean ? clean : "", after);
	free(clean);
}

static const char *string_of(const json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));

	return text ? text : "";
}

static void view_headline(FILE *out, const json_t *ended)
{
	const json_t *error = json_object_get(ended, "error");
	const char *guest = string_of(ended, "guest"), *peer = string_of(ended, "peer");

	put_clean(out, "job ", string_of(ended, "job"), " ");
	put_clean(out, "", string_of(ended, "outcome"), "");
	if (*guest)
		put_clean(out, ": ", guest, "");
	if (*guest && *peer)
		put_clean(out, " -> ", peer, "");
	fputc('\n', out);
	if (json_is_object(error)) {
		put_clean(out, "  why   ", string_of(error, "text"), "");
		put_clean(out, " (", string_of(error, "category"), ")\n");
	}
}

/* Lines of text, each below the other. */
static void view_notes(FILE *out, const char *notes)
{
	const char *label = "  note  ";

	while (*notes) {
		size_t length = strcspn(notes, "\n");
		char *line = strndup(notes, length);
		if (line && *line)
			put_clean(out, label, line, "\n");
		free(line);
		notes += length + (notes[length] == '\n');
	}
}

static const char report_order[] =
    "total_ms downtime_ms guest_memory_bytes raw_bytes wire_bytes ratio iterations codec";

void view_outcome(FILE *out, const json_t *ended)
{
	json_t *report = json_object_get(ended, "report"), *rest;

	view_headline(out, ended);
	view_notes(out, string_of(ended, "notes"));
	if (!json_is_object(report) || !json_object_size(report))
		return;
	rest = json_copy(report);
	json_object_del(rest, "decisions");
	object_print(out, rest, report_order, 2);
	json_decref(rest);
	report = json_object_get(report, "decisions");
	if (json_array_size(report)) {
		fputs("  decisions\n", out);
		table_print(out, report, NULL);
	}
}
