/* SPDX-License-Identifier: Apache-2.0
 *
 * history.h - pages that both ends of a stream hold, so that a page can be sent as what changed.
 *
 * Encoder and decoder each keep one, with the same budget, and make the same calls in the same order (they
 * follow from the tokens of the stream); then both hold the same pages in the same slots, and no message is
 * needed to agree. What is found in a slot may be an older version of the page than the last one sent; it is
 * the same at both ends, and that is all that counts.
 */
#ifndef NOVA_HISTORY_H
#define NOVA_HISTORY_H

#include "codec.h"

#define NOVA_NO_SLOT UINT32_MAX

struct nova_history;

/* budget_bytes: of everything, bookkeeping included; below 64 KiB nothing is kept. by_content: pages can be
 * found by their content, too (the encoder's side). Memory is touched as it fills. */
struct nova_history *nova_history_new(size_t budget_bytes, bool by_content, struct nova_error *err);
struct nova_history *nova_history_free(struct nova_history *history);

/* Looking changes nothing. */
uint32_t nova_history_find(const struct nova_history *history, uint64_t page);
void nova_history_prefetch(const struct nova_history *history, uint64_t page);
/* A slot with exactly this content; hash is nova_history_hash's, the bytes are compared. */
uint64_t nova_history_hash(const uint8_t *content);
uint32_t nova_history_find_content(const struct nova_history *history, uint64_t hash, const uint8_t *content);
/* NULL: no such slot, or nothing was ever put there. */
uint8_t *nova_history_content(struct nova_history *history, uint32_t slot);

/* The changes; slot is what nova_history_find said of that page. */

/* It was sent again and had not changed. */
void nova_history_same(struct nova_history *history, uint32_t slot);
/* It was sent with new content (slot: NOVA_NO_SLOT if it was not found). Returns the slot that is to take the
 * new content, which may be the old one; NOVA_NO_SLOT: it is not kept, what was there stays. */
uint32_t nova_history_rewrite(struct nova_history *history, uint64_t page, uint32_t slot);
/* It was sent as the content of another slot. */
void nova_history_share(struct nova_history *history, uint64_t page, uint32_t other);
/* By content the slot is found under this hash from now on; 0: not at all. */
void nova_history_index(struct nova_history *history, uint32_t slot, uint64_t hash);

#endif
