/* SPDX-License-Identifier: Apache-2.0
 *
 * chore.h - long work on the loop, in slices: one turn takes a millisecond (and what the last slice takes beyond it).
 */
#ifndef NOVA_CHORE_H
#define NOVA_CHORE_H

#include "novacron.h"

struct nova_chore;
/* One slice, well below a millisecond. 1: more; 0: done; -1: failed, *err filled. */
typedef int (*nova_chore_slice_fn)(void *arg, struct nova_error *err);
/* From the loop, once; may free the chore. err NULL: done. */
typedef void (*nova_chore_end_fn)(void *arg, const struct nova_error *err);

/* pause_ms: between two turns; 0: only to let others have theirs. */
struct nova_chore *nova_chore_new(struct event_base *base, int pause_ms, nova_chore_slice_fn slice,
    nova_chore_end_fn end, void *arg, struct nova_error *err);
struct nova_chore *nova_chore_free(struct nova_chore *chore);

#endif
