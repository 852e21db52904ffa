/* SPDX-License-Identifier: Apache-2.0
 *
 * migrate_baseline.h - a migration's use of baselines (baseline.h), either side. Private to engine/.
 *
 * The destination offers in its answer to `reserve` what it holds of the guest: {id, slots, digest}. If the source holds
 * the same index, under the same id, it uses its own; otherwise it opens NOVA_BASELINE_CHANNEL and the destination sends
 * its index. Both sides keep what goes by in this migration as the baseline of the next.
 *
 * Not with postcopy: it is past its commit when a damaged page is found. A damaged baseline ends the migration before
 * its commit; the destination drops the baseline and says so (`baseline_damaged` in `failed` or in the answer to `abort`),
 * and the source begins again without it, once.
 */
#ifndef NOVA_MIGRATE_BASELINE_H
#define NOVA_MIGRATE_BASELINE_H

#include "baseline_store.h"
#include "host.h"

#define NOVA_BASELINE_CHANNEL 2

struct nova_base_use;
/* ready: what was begun (offer, accept) is over, with a baseline or without; from the loop. */
struct nova_base_use *nova_base_use_new(struct nova_job *job, const json_t *spec /* borrowed */,
    void (*ready)(struct nova_job *job), struct nova_error *err);
struct nova_base_use *nova_base_use_free(struct nova_base_use *use);
const char *nova_base_use_image(const struct nova_base_use *use); /* "" unknown */

/* The destination: load what there is to offer. false: nothing; true: ready comes. */
bool nova_base_use_offer(struct nova_base_use *use);
json_t *nova_base_use_offered(const struct nova_base_use *use); /* for the answer; NULL: nothing */
void nova_base_use_send(struct nova_base_use *use, struct nova_channel *channel /* stolen */);

/* The source: prepare for what was offered. false: nothing will come of it; true: ready comes. */
bool nova_base_use_accept(struct nova_base_use *use, const json_t *offer, struct nova_session *session,
    uint64_t memory_bytes);
void nova_base_use_drop(struct nova_base_use *use); /* stop what was begun */

/* The stream begins: fill in what its codec uses, and what collects it. */
void nova_base_use_stream(struct nova_base_use *use, struct nova_codec_options *options, uint64_t memory_bytes);
/* It has ended (its pipe is gone or stands still). committed: what was collected is kept. */
void nova_base_use_end(struct nova_base_use *use, bool committed);
/* This migration broke because of the baseline; it was dropped. */
bool nova_base_use_damaged(const struct nova_base_use *use);

#endif
