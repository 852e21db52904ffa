/* SPDX-License-Identifier: Apache-2.0
 *
 * follow.h - stay with a job until it ends.
 */
#ifndef TOOLS_FOLLOW_H
#define TOOLS_FOLLOW_H

#include "tools/session.h"

/* Show the job's progress and its outcome: text on stderr and stdout, or with json an object a line on
 * stdout. Returns the exit status; ^C and a lost daemon leave the job alone. */
int follow_job(struct session *session, const char *job, bool json);

/* One such line of JSON. */
void follow_put_json(const char *event, json_t *data);

#endif
