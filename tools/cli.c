/* SPDX-License-Identifier: Apache-2.0
 *
 * cli.c - what a command line of novacron asks for. Commands and their options are the rows of the control
 * protocol; what a driver accepts for a new guest are rows of that driver, gathered into the argument
 * "spec". Help, manual page and completion are made here from the same rows.
 */
#include "tools/cli.h"
#include "tools/complete.h"
#include "tools/exitcode.h"
#include "tools/help.h"
#include "tools/suggest.h"
#include <string.h>

enum {
	GROUPS_MAX = 4
};

const struct nova_param cli_options[] = {
	{ .name = "socket",
	    .type = NOVA_T_PATH,
	    .metavar = "PATH",
	    .help = "control socket of the daemon (default: NOVACRON_SOCKET, or " NOVA_CONTROL_PATH ")" },
	{ .name = "host",
	    .type = NOVA_T_STRING,
	    .metavar = "PEER",
	    .help = "ask the daemon of another host, over mutual TLS: a [peer] of the client's configuration, "
	            "HOST:PORT or NAME=HOST:PORT (default: NOVACRON_HOST, or the local daemon)" },
	{ .name = "client-config",
	    .type = NOVA_T_PATH,
	    .metavar = "FILE",
	    .help = "with --host: cert, key, ca and [peer NAME] sections (default: NOVACRON_CONFIG, "
	            "~/.config/novacron.conf, or " CLIENT_CONFIG ")" },
	{ .name = "cert", .type = NOVA_T_PATH, .metavar = "FILE", .help = "with --host: your certificate (PEM)" },
	{ .name = "key", .type = NOVA_T_PATH, .metavar = "FILE", .help = "with --host: its private key (PEM)" },
	{ .name = "ca",
	    .type = NOVA_T_PATH,
	    .metavar = "FILE",
	    .help = "with --host: the authorities that daemons' certificates must be signed by (PEM)" },
	{ .name = "json",
	    .type = NOVA_T_BOOL,
	    .help = "answer as one JSON value; while following a job, an object a line" },
	{ .name = "help", .type = NOVA_T_BOOL, .help = "explain the command, or novacron" },
	{ .name = "version", .type = NOVA_T_BOOL, .help = "print the version and end" },
	{ 0 },
};

const struct nova_param cli_job_options[] = {
	{ .name = "detach",
	    .type = NOVA_T_BOOL,
	    .help = "print the id of the job and end, instead of following it" },
	{ 0 },
};

const struct nova_command *cli_find(const struct cli_tables *tables, const char *name)
{
	for (size_t i = 0; i < tables->count; i++)
		if (!strcmp(tables->commands[i].name, name))
			return &tables->commands[i];
	for (const struct nova_command *command = tables->local; command->name; command++)
		if (!strcmp(command->name, name))
			return command;
	return NULL;
}

bool cli_wants(const struct cli *cli, const char *option)
{
	return json_is_true(json_object_get(cli->options, option));
}

static int unknown_command(const struct cli_tables *tables, const char *name, struct nova_error *err)
{
	struct suggestion best = { 0 };

	for (size_t i = 0; i < tables->count; i++)
		if (!tables->commands[i].hidden)
			suggest_offer(&best, name, tables->commands[i].name);
	for (const struct nova_command *command = tables->local; command->name; command++)
		suggest_offer(&best, name, command->name);
	if (best.name)
		return nova_error_set(
		    err, NOVA_INVALID, "unknown command '%.60s'; did you mean %s?", name, best.name);
	return nova_error_set(err, NOVA_INVALID, "unknown command '%.60s'; novacron --help lists them", name);
}

static const struct nova_param *row(const struct nova_command *command, const char *name)
{
	for (size_t i = 0; i < args_count(command->params); i++)
		if (!strcmp(command->params[i].name, name))
			return &command->params[i];
	return NULL;
}

static bool has_driver_rows(const struct nova_command *command)
{
	const struct nova_param *driver = row(command, "driver"), *spec = row(command, "spec");

	return driver && spec && spec->type == NOVA_T_JSON;
}

/* The driver whose rows belong to the command: as typed, or the default. */
static void choose_driver(struct cli *cli, char *const *words, int count)
{
	const struct nova_param *driver = row(cli->command, "driver");

	if (!has_driver_rows(cli->command))
		return;
	cli->driver = args_peek(words, count, "driver");
	if (!cli->driver)
		cli->driver = driver->fallback;
	if (cli->driver)
		cli->driver_params = cli->tables->driver_params(cli->driver, &cli->driver_count);
}

static size_t groups_of(struct cli *cli, json_t *spec, struct arg_group *groups)
{
	size_t count = 0;

	if (cli->command) {
		groups[count++] =
		    (struct arg_group) { cli->command->params, args_count(cli->command->params), cli->args };
		if (cli->driver_params)
			groups[count++] = (struct arg_group) { cli->driver_params, cli->driver_count, spec };
		if (cli->command->job)
			groups[count++] =
			    (struct arg_group) { cli_job_options, args_count(cli_job_options), cli->options };
	}
	groups[count++] = (struct arg_group) { cli_options, args_count(cli_options), cli->options };
	return count;
}

/* What was typed goes over what --spec holds. */
static int merge_spec(struct cli *cli, json_t *spec, struct nova_error *err)
{
	json_t *base = json_object_get(cli->args, "spec");

	if (!json_object_size(spec))
		return 0;
	if (base && !json_is_object(base))
		return nova_error_set(err, NOVA_INVALID, "--spec must be a JSON object");
	if (!base)
		return json_object_set(cli->args, "spec", spec);
	return json_object_update(base, spec);
}

static int parse_command(struct cli *cli, char *const *words, int count, struct nova_error *err)
{
	struct arg_group groups[GROUPS_MAX];
	json_t *spec = json_object();
	size_t used;
	int failed = 0;

	choose_driver(cli, words, count);
	used = groups_of(cli, spec, groups);
	if (args_parse(groups, used, words, count, false, err) < 0)
		failed = -1;
	else if (!cli_wants(cli, "help") && !cli_wants(cli, "version"))
		failed = args_check_required(&groups[0], err) < 0 ? -1 : merge_spec(cli, spec, err);
	json_decref(spec);
	return failed;
}

int cli_parse(
    struct cli *cli, const struct cli_tables *tables, char *const *words, int count, struct nova_error *err)
{
	struct arg_group own;
	int used;

	*cli = (struct cli) { .tables = tables, .options = json_object(), .args = json_object() };
	own = (struct arg_group) { cli_options, args_count(cli_options), cli->options };
	used = args_parse(&own, 1, words, count, true, err);
	if (used < 0)
		return -1;
	if (used < count && !strcmp(words[used], "help")) {
		json_object_set_new(cli->options, "help", json_true());
		used++;
	}
	if (used == count)
		return 0;
	cli->command = cli_find(tables, words[used]);
	if (!cli->command)
		return unknown_command(tables, words[used], err);
	return parse_command(cli, words + used + 1, count - used - 1, err);
}

void cli_release(struct cli *cli)
{
	json_decref(cli->options);
	json_decref(cli->args);
}

static void list_commands(FILE *out, const struct nova_command *commands, size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (!commands[i].hidden)
			fprintf(out, "  %-12s %s\n", commands[i].name, commands[i].help);
}

static size_t local_count(const struct cli_tables *tables)
{
	size_t count = 0;

	while (tables->local[count].name)
		count++;
	return count;
}

void cli_help(FILE *out, const struct cli *cli)
{
	const struct nova_command *command = cli->command;
	char title[96];

	if (!command) {
		fputs(
		    "usage: novacron [options] COMMAND [arguments]\n\n"
		    "Runs guests on this host and migrates them to others, through the daemon novacrond.\n\n"
		    "commands (novacron COMMAND --help explains one):\n",
		    out);
		list_commands(out, cli->tables->commands, cli->tables->count);
		list_commands(out, cli->tables->local, local_count(cli->tables));
		help_params(out, "options", cli_options, args_count(cli_options));
		return;
	}
	fprintf(out, "usage: novacron %s", command->name);
	help_synopsis(out, command->params, args_count(command->params));
	fprintf(out, "\n\n%s\n", command->help);
	help_params(out, "arguments", command->params, args_count(command->params));
	snprintf(title, sizeof(title), "options of the driver %.40s", cli->driver ? cli->driver : "");
	help_params(out, title, cli->driver_params, cli->driver_count);
	if (command->job)
		help_params(out, "following the job", cli_job_options, args_count(cli_job_options));
	help_params(out, "options of every command", cli_options, args_count(cli_options));
}

static void complete_commands(FILE *out, const struct cli_tables *tables, const char *last)
{
	if (*last == '-') {
		for (size_t i = 0; cli_options[i].name; i++)
			fprintf(out, "--%s\n", cli_options[i].name);
		return;
	}
	for (size_t i = 0; i < tables->count; i++)
		if (!tables->commands[i].hidden)
			fprintf(out, "%s\n", tables->commands[i].name);
	for (const struct nova_command *command = tables->local; command->name; command++)
		fprintf(out, "%s\n", command->name);
	fputs("help\n", out);
}

void cli_complete(
    FILE *out, const struct cli_tables *tables, char *const *words, int count, cli_names_fn names, void *arg)
{
	struct cli cli = { .tables = tables };
	struct arg_group groups[GROUPS_MAX] = { { cli_options, args_count(cli_options), NULL } };
	int at = 0;

	/* The command is the first word before the last that is neither an option nor its value. */
	while (at < count - 1 && !strncmp(words[at], "--", 2)) {
		const struct nova_param *param = args_find(groups, 1, words[at] + 2);
		at += param && param->type != NOVA_T_BOOL ? 2 : 1;
	}
	if (at < count - 1 && !strcmp(words[at], "help"))
		at++;
	if (at > count - 1) {
		complete_options(out, groups, 1, words, count, names, arg);
		return;
	}
	if (at == count - 1 || count == 0) {
		complete_commands(out, tables, count ? words[count - 1] : "");
		return;
	}
	cli.command = cli_find(tables, words[at]);
	if (!cli.command)
		return;
	choose_driver(&cli, words + at + 1, count - at - 1);
	complete_options(
	    out, groups, groups_of(&cli, NULL, groups), words + at + 1, count - at - 1, names, arg);
}

static void man_drivers(FILE *out, const struct cli_tables *tables)
{
	const struct nova_param *params;
	const char *driver;
	size_t count;

	for (size_t i = 0; (driver = tables->driver_name(i)); i++) {
		params = tables->driver_params(driver, &count);
		if (!params)
			continue;
		fprintf(out, ".PP\nWith\n.B \\-\\-driver %s\nalso:\n", driver);
		help_man_params(out, params, count, false);
	}
}

static void man_commands(
    FILE *out, const struct cli_tables *tables, const struct nova_command *commands, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		if (commands[i].hidden)
			continue;
		fprintf(out, ".SS \"%s", commands[i].name);
		help_synopsis(out, commands[i].params, args_count(commands[i].params));
		fputs("\"\n", out);
		help_man_text(out, commands[i].help);
		fputs(".\n", out);
		help_man_params(out, commands[i].params, args_count(commands[i].params), false);
		if (has_driver_rows(&commands[i]))
			man_drivers(out, tables);
	}
}

int cli_man_section(FILE *out, const struct cli_tables *tables, const char *name)
{
	if (!strcmp(name, "COMMANDS")) {
		man_commands(out, tables, tables->commands, tables->count);
		man_commands(out, tables, tables->local, local_count(tables));
	} else if (!strcmp(name, "OPTIONS")) {
		help_man_params(out, cli_options, args_count(cli_options), false);
	} else if (!strcmp(name, "JOB-OPTIONS")) {
		help_man_params(out, cli_job_options, args_count(cli_job_options), false);
	} else if (!strcmp(name, "EXIT")) {
		exit_man(out);
	} else {
		return -1;
	}
	return 0;
}
