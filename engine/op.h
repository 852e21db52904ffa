/* SPDX-License-Identifier: Apache-2.0
 *
 * op.h - for those who implement asynchronous calls. The contract is in novacron.h (struct nova_op).
 *
 * An implementer embeds struct nova_op first in its own request and sets drop, which must free the
 * request and see to it that nothing more is called. An answer that is known at once goes through
 * nova_op_later(), since no answer may come before the starting function has returned.
 */
#ifndef NOVA_OP_H
#define NOVA_OP_H

#include "novacron.h"

struct nova_op {
	void (*drop)(struct nova_op *op);
};

/* Answer from the next turn of the loop. result is stolen (may be NULL), failure is copied (NULL:
 * success). Returns NULL and *err only when out of memory. */
struct nova_op *nova_op_later(struct event_base *base, json_t *result, const struct nova_error *failure,
    nova_done_fn done, void *arg, struct nova_error *err);

#endif
