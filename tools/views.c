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
	{ "list", "name state driver owner needs.memory_bytes needs.vcpus needs.disk_bytes job",
	    "no guests" },
	{ "jobs", "job kind guest peer side who step outcome started_ms ended_ms", "no jobs" },
	{ "peers", "name address answers rtt_us about.version why", "no peers are configured" },
	{ "audit", "time who command args outcome ms from job error", "the log is empty" },
	{ "replicate", "guest side state peer every_ms newest lag_ms rpo_ms late owner", "nothing is replicated" },
	{ "baseline", "guest owner size_bytes pages age_ms used_ms peer side id", "no baselines are kept" },
	{ "show", "name state driver owner uuid job created_ms needs", NULL },
	{ "relay", "connections raw_bytes wire_bytes ratio total_ms", NULL },
	{ "job", "job kind guest peer side who outcome step started_ms ended_ms", NULL },
};

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

const json_t *view_error(const json_t *ended)
{
	const json_t *error = json_object_get(ended, "error");

	if (!json_is_object(error)) /* a job of the past: the journal keeps it in the report */
		error = json_object_get(json_object_get(ended, "report"), "error");
	return json_is_object(error) ? error : NULL;
}

static void view_headline(FILE *out, const json_t *ended)
{
	const json_t *error = view_error(ended);
	const char *guest = string_of(ended, "guest"), *peer = string_of(ended, "peer");

	put_clean(out, "job ", string_of(ended, "job"), " ");
	put_clean(out, "", string_of(ended, "outcome"), "");
	if (*guest)
		put_clean(out, ": ", guest, "");
	if (*guest && *peer)
		put_clean(out, strcmp(string_of(ended, "side"), "destination") ? " -> " : " <- ", peer, "");
	fputc('\n', out);
	if (error) {
		put_clean(out, "  why   ", string_of(error, "text"), "");
		put_clean(out, " (", string_of(error, "category"), ")\n");
	}
}

/* Lines of text, each with the same label. */
void view_lines(FILE *out, const char *label, const char *text)
{
	while (*text) {
		size_t length = strcspn(text, "\n");
		char *line = strndup(text, length);
		if (line)
			put_clean(out, label, line, "\n");
		free(line);
		text += length + (text[length] == '\n');
	}
}

/* What people read of a report, under the names they know it by; the rest is in --json and "novacron job". */
static const struct {
	const char *member, *shown;
	bool if_any; /* only if it is not zero */
} report_rows[] = {
	{ "mode", "mode", false },
	{ "total_ms", "total_time_ms", false },
	{ "downtime_ms", "downtime_ms", false },
	{ "qemu_downtime_ms", "downtime_as_QEMU_saw_it_ms", true },
	{ "predicted_downtime_ms", "downtime_predicted_ms", true },
	{ "estimated_time_ms", "time_estimated_ms", true },
	{ "estimated_downtime_ms", "downtime_estimated_ms", true },
	{ "guest_memory_bytes", "guest_memory_bytes", false },
	{ "raw_bytes", "stream_of_QEMU_bytes", false },
	{ "wire_bytes", "on_the_wire_bytes", false },
	{ "estimated_wire_bytes", "estimated_on_the_wire_bytes", true },
	{ "ratio", "ratio", false },
	{ "iterations", "rounds", false },
	{ "reconnects", "reconnects", true },
	{ "resent_bytes", "sent_again_bytes", true },
};

static void view_decisions(FILE *out, const json_t *convergence)
{
	json_t *decision;
	size_t i;

	json_array_foreach (json_object_get(convergence, "decisions"), i, decision) {
		fprintf(out, "  at %s, round %s: ",
		    format_duration(json_number_value(json_object_get(decision, "ms"))).s,
		    format_number(json_number_value(json_object_get(decision, "iteration"))).s);
		put_clean(out, "", string_of(decision, "action"), ": ");
		put_clean(out, "", string_of(decision, "reason"), "\n");
	}
}

static double number_in(const json_t *object, const char *member)
{
	return json_number_value(json_object_get(object, member));
}

/* "  disk0: 24.0 MiB written over there, 20.0 MiB of it was there, 3.1 MiB sent" */
static void view_disks(FILE *out, const json_t *disks)
{
	json_t *disk;
	size_t i;

	json_array_foreach (disks, i, disk) {
		put_clean(out, "  ", string_of(disk, "disk"), ": ");
		fprintf(out, "%s written over there, ", format_bytes(number_in(disk, "written_bytes")).s);
		fprintf(out, "%s of it was there, ", format_bytes(number_in(disk, "same_bytes")).s);
		fprintf(out, "%s sent\n", format_bytes(number_in(disk, "encoded_bytes")).s);
	}
}

static void view_report(FILE *out, const json_t *report)
{
	json_t *shown = json_object(), *value;

	for (size_t i = 0; i < sizeof(report_rows) / sizeof(report_rows[0]); i++) {
		value = json_object_get(report, report_rows[i].member);
		if (value && !(report_rows[i].if_any && json_number_value(value) == 0))
			json_object_set(shown, report_rows[i].shown, value);
	}
	object_print(out, shown, NULL, 2);
	json_decref(shown);
	view_disks(out, json_object_get(report, "disks"));
	view_decisions(out, json_object_get(report, "convergence"));
}

void view_outcome(FILE *out, const json_t *ended)
{
	const json_t *report = json_object_get(ended, "report");
	const char *notes = string_of(ended, "notes");

	view_headline(out, ended);
	view_lines(out, "  note  ", *notes ? notes : string_of(report, "notes"));
	view_report(out, report);
}

/* ---- the matrix of drivers ---- */

/* A row for each verb, a column for each driver: "yes", or why not. */
static json_t *driver_matrix(const json_t *drivers)
{
	json_t *rows = json_array(), *driver, *value;
	const char *verb;
	size_t i, j;

	json_array_foreach (drivers, i, driver) {
		j = 0;
		json_object_foreach (json_object_get(driver, "verbs"), verb, value) {
			json_t *row = json_array_get(rows, j);
			while (row && strcmp(string_of(row, "verb"), verb))
				row = json_array_get(rows, ++j);
			if (!row) {
				row = json_pack("{ss}", "verb", verb);
				json_array_append_new(rows, row);
			}
			json_object_set(row, string_of(driver, "name"), value);
			j = 0;
		}
	}
	return rows;
}

static void view_drivers(FILE *out, const json_t *drivers)
{
	json_t *matrix = driver_matrix(drivers), *driver;
	size_t i;

	table_print(out, drivers, "name found version why");
	if (json_array_size(matrix)) {
		fputc('\n', out);
		table_print(out, matrix, NULL);
	}
	json_array_foreach (drivers, i, driver) {
		const json_t *facts = json_object_get(driver, "facts");
		if (!json_object_size(facts))
			continue;
		put_clean(out, "\n", string_of(driver, "name"), ":\n");
		object_print(out, facts, NULL, 2);
	}
	json_decref(matrix);
}

/* ---- doctor ---- */

static void view_doctor(FILE *out, const json_t *answer)
{
	json_t *finding;
	size_t i;

	json_array_foreach (json_object_get(answer, "findings"), i, finding) {
		fprintf(out, "%-8s ", string_of(finding, "severity"));
		put_clean(out, "", string_of(finding, "check"), ": ");
		put_clean(out, "", string_of(finding, "found"), "\n");
		if (*string_of(finding, "advice"))
			put_clean(out, "         -> ", string_of(finding, "advice"), "\n");
	}
}

/* ---- answers ---- */

/* Names of metrics are not for reading: as they are. */
static void view_metrics(FILE *out, const json_t *metrics)
{
	const char *name, *label;
	json_t *value, *one;

	json_object_foreach ((json_t *)metrics, name, value) {
		if (json_is_number(value))
			fprintf(out, "%s %s\n", name, format_number(json_number_value(value)).s);
		json_object_foreach (value, label, one) {
			put_clean(out, name, "", " ");
			put_clean(out, "", label, " ");
			fprintf(out, "%s\n", format_number(json_number_value(one)).s);
		}
	}
}

static const struct view *view_of(const char *command)
{
	for (size_t i = 0; i < sizeof(views) / sizeof(views[0]); i++)
		if (!strcmp(views[i].command, command))
			return &views[i];
	return NULL;
}

/* Sizes in a specification have no unit in their names, but the driver's rows know. */
static void view_guest(FILE *out, const json_t *guest, const char *first)
{
	json_t *shown = json_deep_copy(guest), *spec = json_object_get(shown, "spec"), *value;
	const struct nova_param *params;
	size_t count = 0;

	params = nova_driver_params(string_of(guest, "driver"), &count);
	for (size_t i = 0; params && i < count; i++) {
		value = json_object_get(spec, params[i].name);
		if (params[i].type == NOVA_T_BYTES && json_is_integer(value))
			json_object_set_new(
			    spec, params[i].name, json_string(format_bytes(json_number_value(value)).s));
	}
	object_print(out, shown, first, 0);
	json_decref(shown);
}

/* Commands whose answer is the guest as it is now: what changed is its state. */
static bool changes_guest(const char *command)
{
	static const char *const commands[] = { "create", "adopt", "start", "stop", "pause", "resume",
		"restore" };

	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
		if (!strcmp(commands[i], command))
			return true;
	return false;
}

void view_answer(FILE *out, const char *command, const json_t *answer)
{
	const struct view *view = view_of(command);
	char *text;

	if (json_is_object(answer) && changes_guest(command)) {
		put_clean(out, "", string_of(answer, "name"), " ");
		put_clean(out, "", string_of(answer, "state"), "\n");
	} else if (json_is_object(answer) && !strcmp(command, "show")) {
		view_guest(out, answer, view->columns);
	} else if (json_is_array(answer) && !json_array_size(answer)) {
		fprintf(out, "%s\n", view && view->none ? view->none : "none");
	} else if (json_is_array(answer) && !strcmp(command, "drivers")) {
		view_drivers(out, answer);
	} else if (json_is_object(answer) && !strcmp(command, "logs")) {
		view_lines(out, "", string_of(answer, "text"));
	} else if (json_is_object(answer) && !strcmp(command, "doctor")) {
		view_doctor(out, answer);
	} else if (json_is_object(answer) && !strcmp(command, "metrics")) {
		view_metrics(out, answer);
	} else if (json_is_array(answer) && json_is_object(json_array_get(answer, 0))) {
		table_print(out, answer, view ? view->columns : NULL);
	} else if (json_is_object(answer)) {
		object_print(out, answer, view ? view->columns : NULL, 0);
	} else if (json_is_string(answer)) {
		view_lines(out, "", json_string_value(answer));
	} else if (answer && !json_is_null(answer)) {
		text = format_member(command, answer);
		fprintf(out, "%s\n", text);
		free(text);
	}
}
