/* SPDX-License-Identifier: Apache-2.0
 *
 * help.h - option tables as text: --help and the man pages.
 */
#ifndef TOOLS_HELP_H
#define TOOLS_HELP_H

#include "novacron.h"
#include <stdio.h>

/* "GUEST --to PEER [options]": what follows the name of a command. */
void help_synopsis(FILE *out, const struct nova_param *params, size_t count);

/* The rows as aligned text, for a terminal of 80 to 100 columns; nothing for no rows. */
void help_params(FILE *out, const char *title, const struct nova_param *params, size_t count);

/* What a user would write for the value: "PEER", "live|warm|cold", "SIZE". */
const char *help_value(const struct nova_param *param);

/* A number exactly, as a user would type it for a row of this type: "512M", "15s". */
void help_number(FILE *out, enum nova_type type, int64_t value);

/* Fill a man page's template from standard input: a line that consists of @NAME@ alone is replaced by
 * what section prints for NAME; @VERSION@ anywhere by the version. 0, or -1 when a name is unknown. */
int help_man_page(FILE *in, FILE *out, const char *version, int (*section)(FILE *out, const char *name));

/* The rows as a list of a man page. In a configuration file options have no dashes. */
void help_man_params(FILE *out, const struct nova_param *params, size_t count, bool in_file);

/* Text with what roff would take for its own made harmless. */
void help_man_text(FILE *out, const char *text);

#endif
