/* SPDX-License-Identifier: Apache-2.0
 *
 * novacron.c - the command line: one command to the daemon, its answer as text or JSON, its job followed.
 *
 * ^C ends only the waiting: a job goes on in the daemon. The exit status tells the kind of failure
 * (exitcode.c). Not here: what a command line may say (cli.c), how answers look (views.c).
 */
#include "config.h"
#include "tools/cli.h"
#include "tools/exitcode.h"
#include "tools/follow.h"
#include "tools/format.h"
#include "tools/help.h"
#include "tools/relay.h"
#include "tools/session.h"
#include "tools/views.h"
#include <malloc.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
	COMPLETE_LIMIT_MS = 1000
};

static const struct nova_param watch_params[] = {
	{ .name = "job",
	    .type = NOVA_T_STRING,
	    .required = true,
	    .positional = true,
	    .metavar = "JOB",
	    .help = "id of the job" },
	{ 0 },
};

static const struct nova_command watch_command = {
	.name = "watch",
	.help = "follow a job until it ends, or tell how it ended",
	.params = watch_params,
};

static struct cli_tables tables(void)
{
	static struct nova_command local[3];
	struct cli_tables all = {
		.local = local, .driver_params = nova_driver_params, .driver_name = nova_driver_name
	};

	local[0] = watch_command;
	local[1] = relay_command;
	all.commands = nova_commands(&all.count);
	return all;
}

static const char *socket_path(const json_t *options)
{
	const char *path = json_string_value(json_object_get(options, "socket"));

	if (!path)
		path = getenv("NOVACRON_SOCKET");
	return path && *path ? path : NOVA_CONTROL_PATH;
}

static const char *remote_host(const json_t *options)
{
	const char *host = json_string_value(json_object_get(options, "host"));

	if (!host && !json_object_get(options, "socket"))
		host = getenv("NOVACRON_HOST");
	return host && *host ? host : NULL;
}

/* The file that was named must be there; the usual ones may be missing. */
static int load_client_config(struct nova_config *config, const json_t *options, struct nova_error *err)
{
	const char *path = json_string_value(json_object_get(options, "client-config")), *home = getenv("HOME");
	char own[4096];

	if (!path)
		path = getenv("NOVACRON_CONFIG");
	if (path && *path)
		return nova_config_load(config, path, err);
	snprintf(own, sizeof(own), "%s/.config/novacron.conf", home ? home : "");
	if (home && access(own, R_OK) == 0)
		return nova_config_load(config, own, err);
	return access(CLIENT_CONFIG, R_OK) == 0 ? nova_config_load(config, CLIENT_CONFIG, err) : 0;
}

static int open_remote(struct session *session, const json_t *options, const char *host, struct nova_error *err)
{
	static const char *const files[] = { "cert", "key", "ca" };
	struct nova_config *config = nova_config_new();
	int failed = config ? load_client_config(config, options, err) : -1;

	for (size_t i = 0; failed == 0 && i < sizeof(files) / sizeof(files[0]); i++) {
		const char *path = json_string_value(json_object_get(options, files[i]));
		if (path)
			failed = nova_config_set(config, files[i], path, err);
	}
	if (failed == 0)
		failed = session_open_remote(session, config, host, err);
	nova_config_free(config);
	return failed;
}

static int open_session(struct session *session, const json_t *options, struct nova_error *err)
{
	const char *host = remote_host(options);

	return host ? open_remote(session, options, host, err) : session_open(session, socket_path(options), err);
}

static int print_json(json_t *value)
{
	json_t *shown = value ? value : json_null();

	if (json_dumpf(shown, stdout, JSON_INDENT(2) | JSON_ENCODE_ANY) < 0)
		return 1;
	putchar('\n');
	return 0;
}

/* Text for people on stderr; with --json also a value for programs on stdout. */
static int fail(const struct nova_error *err, bool json)
{
	char *clean = format_clean(err->text);

	fprintf(stderr, "novacron: %s\n", clean ? clean : err->text);
	free(clean);
	if (json) {
		json_t *value = json_pack(
		    "{s{ss ss}}", "error", "category", nova_category_name(err->category), "text", err->text);
		print_json(value);
		json_decref(value);
	}
	return exit_of(err->category);
}

static int started_job(struct session *session, const struct cli *cli, json_t *answer)
{
	const char *job = json_string_value(json_object_get(answer, "job"));

	if (!job) {
		fputs("novacron: the daemon started a job but did not name it\n", stderr);
		return exit_of(NOVA_SYSTEM);
	}
	if (!cli_wants(cli, "detach")) {
		if (cli_wants(cli, "json"))
			follow_put_json("JOB_STARTED", answer);
		else
			fprintf(stderr, "job %s\n", job);
		return follow_job(session, job, cli_wants(cli, "json"));
	}
	if (cli_wants(cli, "json"))
		return print_json(answer);
	printf("%s\n", job);
	return 0;
}

static int show_answer(struct session *session, const struct cli *cli, json_t *answer)
{
	if (cli->command->job)
		return started_job(session, cli, answer);
	if (cli_wants(cli, "json"))
		print_json(answer);
	else
		view_answer(stdout, cli->command->name, answer);
	if (!strcmp(cli->command->name, "doctor") &&
	    !strcmp(json_string_value(json_object_get(answer, "worst")) ?: "", "warning"))
		return EXIT_WARNINGS;
	/* a check that found something is no failed command, but scripts must notice */
	return json_is_false(json_object_get(answer, "ok")) ? exit_of(NOVA_SYSTEM) : 0;
}

static int ask_daemon(struct session *session, const struct cli *cli, struct nova_error *err)
{
	json_t *answer = NULL;
	int status;

	if (open_session(session, cli->options, err) < 0)
		return -1;
	if (cli->command->name == watch_command.name)
		return follow_job(
		    session, json_string_value(json_object_get(cli->args, "job")), cli_wants(cli, "json"));
	if (session_call(session, cli->command->name, cli->args, 0, &answer, err) < 0)
		return -1;
	status = show_answer(session, cli, answer);
	json_decref(answer);
	return status;
}

static int run_command(const struct cli *cli)
{
	struct session session = { 0 };
	struct nova_error err = { 0 };
	int status;

	if (cli->command->name == relay_command.name)
		return relay_run(cli->args, cli_wants(cli, "json"));
	status = ask_daemon(&session, cli, &err);
	if (status < 0 && session.interrupted) {
		fputs("novacron: interrupted; what was asked for may go on: novacron jobs\n", stderr);
		status = EXIT_INTERRUPTED;
	} else if (status < 0) {
		status = fail(&err, cli_wants(cli, "json"));
	}
	session_hang_up(&session);
	return status;
}

/* Names of guests, peers and jobs, from the daemon; a daemon that is slow or away completes nothing. */
static void complete_names(void *arg, FILE *out, const char *metavar)
{
	static const struct {
		const char *metavar, *command, *member;
	} sources[] = { { "GUEST", "list", "name" }, { "PEER", "peers", "name" }, { "JOB", "jobs", "job" } };
	struct session session = { .quiet = true };
	json_t *rows = NULL, *item;
	const char *name;
	size_t i, s = 0;

	for (i = 0; !strcmp(metavar, "DRIVER") && (name = nova_driver_name(i)); i++)
		fprintf(out, "%s\n", name);
	while (s < sizeof(sources) / sizeof(sources[0]) && strcmp(sources[s].metavar, metavar))
		s++;
	if (s == sizeof(sources) / sizeof(sources[0]))
		return;
	if (session_open(&session, arg, NULL) == 0)
		session_call(&session, sources[s].command, NULL, COMPLETE_LIMIT_MS, &rows, NULL);
	json_array_foreach (rows, i, item) {
		name = json_string_value(json_object_get(item, sources[s].member));
		if (name)
			fprintf(out, "%s\n", name);
	}
	json_decref(rows);
	session_hang_up(&session);
}

static int complete(char *const *words, int count)
{
	struct cli_tables all = tables();
	const char *path = args_peek(words, count, "socket");

	if (!path)
		path = socket_path(NULL);
	cli_complete(stdout, &all, words, count, complete_names, (void *)path);
	return 0;
}

static int man_section(FILE *out, const char *name)
{
	struct cli_tables all = tables();

	return cli_man_section(out, &all, name);
}

static int run(const struct cli *cli)
{
	if (cli_wants(cli, "version"))
		return puts("novacron " PACKAGE_VERSION) < 0;
	if (cli->command && !cli_wants(cli, "help"))
		return run_command(cli);
	cli_help(cli_wants(cli, "help") ? stdout : stderr, cli);
	return cli_wants(cli, "help") ? 0 : exit_of(NOVA_INVALID);
}

/* Messages come and go by the thousand: glibc would give the heap back and fault it in again for each. */
static void keep_heap(void)
{
	mallopt(M_TRIM_THRESHOLD, 64 << 20);
	mallopt(M_MMAP_THRESHOLD, 4 << 20);
}

int main(int argc, char **argv)
{
	struct cli_tables all = tables();
	struct nova_error err = { 0 };
	struct cli cli;
	int status;

	keep_heap();
	if (argc > 1 && !strcmp(argv[1], "--complete"))
		return complete(argv + 2, argc - 2);
	if (argc == 2 && !strcmp(argv[1], "--man"))
		return help_man_page(stdin, stdout, PACKAGE_VERSION, man_section) < 0;
	if (cli_parse(&cli, &all, argv + 1, argc - 1, &err) < 0) {
		status = fail(&err, cli_wants(&cli, "json"));
		if (cli.command)
			fprintf(stderr, "novacron %s --help explains it\n", cli.command->name);
	} else {
		status = run(&cli);
	}
	cli_release(&cli);
	if (fflush(stdout) && !status)
		status = 1;
	return status;
}
