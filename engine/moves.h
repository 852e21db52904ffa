/* SPDX-License-Identifier: Apache-2.0
 *
 * moves.h - what earlier migrations to a peer taught: kept in the store, read by predictions.
 *
 * A move is a JSON object:
 *   uuid                     of the guest
 *   at_ms                    when it ended, since the epoch
 *   memory_bytes             of the guest
 *   raw_bytes, wire_bytes    what it took
 *   total_ms, downtime_ms    how long, and how long the guest stood still
 *   predicted_downtime_ms    what was said of that when it was stopped; missing: nothing
 *   fixed_ms                 what the controller learned (nova_converge_fixed_ms)
 *   link_bytes_per_s, rtt_ms the link as it was
 *   ratio                    memory bytes of the guest for one on the wire
 *   again_ratio              how well pages shrank that were sent again; 0: not known
 * The newest NOVA_MOVES_KEPT of each peer are kept, whoever's they are.
 */
#ifndef NOVA_MOVES_H
#define NOVA_MOVES_H

#include "store.h"

#define NOVA_MOVES_KEPT 32

/* move is borrowed. */
int nova_moves_add(struct nova_store *store, const char *peer, json_t *move, struct nova_error *err);
/* The newest move of this guest to that peer; else, with own false, the newest of any guest. NULL: there is
 * none, or it cannot be read. The caller owns it. */
json_t *nova_moves_last(struct nova_store *store, const char *peer, const char *uuid, bool own);

#endif
