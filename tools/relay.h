/* SPDX-License-Identifier: Apache-2.0
 *
 * relay.h - `novacron relay`: the data path alone, in this process.
 */
#ifndef TOOLS_RELAY_H
#define TOOLS_RELAY_H

#include "novacron.h"

/* A command of ours, with the same kind of row as the daemon's. */
extern const struct nova_command relay_command;

/* Run until both directions have ended, or ^C. Returns the exit status. */
int relay_run(json_t *args, bool json);

#endif
