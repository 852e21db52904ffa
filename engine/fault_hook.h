/* SPDX-License-Identifier: Apache-2.0
 *
 * fault_hook.h - where tests break things: before each row of a job and of a replication's points. Private to engine/.
 */
#ifndef NOVA_FAULT_HOOK_H
#define NOVA_FAULT_HOOK_H

#include "host.h"

/* Run the configuration's fault-hook as HOOK ID KIND SIDE STEP run|undo and wait for it; -1: it refused the row, or could not
 * be run. Without one: 0. It blocks the loop: never set it in production. */
int nova_fault_hook(const struct nova_host *host, const char *id, const char *kind, const char *side, const char *step, bool undo,
    struct nova_error *err);
/* No row of this run may wait longer than fault-limit. */
void nova_fault_limit(const struct nova_host *host, struct nova_run *run);

#endif
