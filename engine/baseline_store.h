/* SPDX-License-Identifier: Apache-2.0
 *
 * baseline_store.h - the baselines of a host: files below STATE_DIR/baselines, within a budget, the least recently used
 * leaving first. Private to engine/. Everything here works with host->baselines NULL: nothing is kept then.
 */
#ifndef NOVA_BASELINE_STORE_H
#define NOVA_BASELINE_STORE_H

#include "baseline.h"
#include "host.h"

struct nova_baselines;
/* What an earlier run left unfinished, what does not read as a baseline, and what is beyond the budget is removed. */
struct nova_baselines *nova_baselines_open(struct nova_host *host, struct nova_error *err);
struct nova_baselines *nova_baselines_close(struct nova_baselines *baselines);

/* The one to offer when this guest comes: its own, or (only if baseline-share says so) the newest of the same owner and
 * image. NULL: none. Borrowed until the loop runs again. */
const struct nova_base_head *nova_baselines_find(struct nova_baselines *baselines, const char *uuid, const char *owner,
    const char *image);
const struct nova_base_head *nova_baselines_get(struct nova_baselines *baselines, const char *id);
void nova_baselines_drop(struct nova_baselines *baselines, const char *id);
/* Those that this identity may see; guest NULL: of all. */
json_t *nova_baselines_list(struct nova_baselines *baselines, const struct nova_identity *who, const char *guest);
/* Those of a guest (NULL: all) that this identity may see; how many. */
int nova_baselines_drop_all(struct nova_baselines *baselines, const struct nova_identity *who, const char *guest,
    uint64_t *bytes);
int nova_baselines_pages(struct nova_baselines *baselines, const char *id); /* an fd of its pages, -1: not there */

/* ---- reading an index, in slices ---- */

struct nova_base_load;
/* index is the caller's; NULL: why, and the baseline was dropped. */
typedef void (*nova_base_load_fn)(void *arg, struct nova_base_index *index, const struct nova_error *why);
struct nova_base_load *nova_base_load_new(struct nova_baselines *baselines, const char *id, nova_base_load_fn fn,
    void *arg, struct nova_error *err);
struct nova_base_load *nova_base_load_free(struct nova_base_load *load);

/* ---- making one ---- */

struct nova_making;
/* Room for a guest of so much memory, or what there is; NULL: nothing is kept (not an error). */
struct nova_making *nova_making_new(struct nova_baselines *baselines, const struct nova_base_head *head,
    uint64_t memory_bytes);
struct nova_spool *nova_making_spool(struct nova_making *making); /* NULL for NULL */
/* The migration is committed: hash it in the background, then it takes the place of the guest's older ones. */
void nova_making_keep(struct nova_making *making);
struct nova_making *nova_making_free(struct nova_making *making); /* it was not */

#endif
