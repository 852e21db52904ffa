/* SPDX-License-Identifier: Apache-2.0
 *
 * patience.h - waiting for a runtime's daemon that went away: it is asked four times a second, half a minute long.
 *
 * After a restart of the host ours may be up before the runtime's. What was begun with it can only be taken back
 * when it answers.
 */
#ifndef NOVA_DRIVER_PATIENCE_H
#define NOVA_DRIVER_PATIENCE_H

#include "engine/op.h"

struct event_base;

/* Ask the runtime something that it answers when it is there. NULL: could not be asked now, *err says why. */
typedef struct nova_op *(*patience_ask_fn)(void *self, nova_done_fn done, void *arg, struct nova_error *err);

/* done gets the first answer that is no error, or the last error. */
struct nova_op *patience_new(struct event_base *base, patience_ask_fn ask, void *self, nova_done_fn done, void *arg,
    struct nova_error *err);

#endif
