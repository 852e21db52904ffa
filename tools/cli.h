/* SPDX-License-Identifier: Apache-2.0
 *
 * cli.h - what a command line of novacron asks for, and the tables behind it.
 */
#ifndef TOOLS_CLI_H
#define TOOLS_CLI_H

#include "tools/args.h"
#include <stdio.h>

#define CLIENT_CONFIG "/etc/novacron/novacron.conf"
#define NOVA_CONTROL_PATH "/run/novacron/control.sock"

/* The commands of the daemon and those of novacron itself. */
struct cli_tables {
	const struct nova_command *commands; /* borrowed */
	size_t count;
	const struct nova_command *local; /* borrowed; ends with a row whose name is NULL */
	/* What a driver adds to a command that has a "driver" and a "spec"; NULL: no such driver. */
	const struct nova_param *(*driver_params)(const char *driver, size_t *count);
	const char *(*driver_name)(size_t index); /* NULL past the last one */
};

struct cli {
	const struct cli_tables *tables;        /* borrowed */
	const struct nova_command *command;     /* NULL: none was given */
	const struct nova_param *driver_params; /* what --driver adds to the command */
	size_t driver_count;
	const char *driver;
	json_t *options; /* owned: our own options */
	json_t *args;    /* owned: the command's arguments */
};

/* Options of novacron itself: for every command, and for those that start or watch jobs. */
extern const struct nova_param cli_options[];
extern const struct nova_param cli_job_options[];

/* Parse words (without the program's name). On failure and on success cli_release() is due. */
int cli_parse(
    struct cli *cli, const struct cli_tables *tables, char *const *words, int count, struct nova_error *err);
void cli_release(struct cli *cli);

const struct nova_command *cli_find(const struct cli_tables *tables, const char *name);
bool cli_wants(const struct cli *cli, const char *option);

/* --help, of one command or (NULL) of the program. */
void cli_help(FILE *out, const struct cli *cli);
/* Candidates for the last word, as in complete.h. */
typedef void (*cli_names_fn)(void *arg, FILE *out, const char *metavar);
void cli_complete(
    FILE *out, const struct cli_tables *tables, char *const *words, int count, cli_names_fn names, void *arg);
/* The section of this name of the manual page; -1: there is none. */
int cli_man_section(FILE *out, const struct cli_tables *tables, const char *name);

#endif
