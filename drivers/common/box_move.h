/* SPDX-License-Identifier: Apache-2.0
 *
 * box_move.h - what drivers of containers share of a migration: a parcel's socket, its states, events and figures.
 *
 * A driver makes the directories that a parcel's parts are (a row or two of its own before, and after), everything between is
 * here: at the source MIGRATE-OUT sends the parts into the engine's socket, at the destination MIGRATE-IN waits at a socket
 * of its own for what comes. "completed" at the source means that the destination's driver has it all.
 */
#ifndef NOVA_DRIVER_BOX_MOVE_H
#define NOVA_DRIVER_BOX_MOVE_H

#include "drivers/common/parcel.h"

struct box_move;

/* The source: connect to path and send. When all has arrived the guest is MIGRATED and "completed" is told; else "failed". */
struct box_move *box_move_out(const struct nova_driver_env *env, struct nova_guest *guest, const char *path,
    const struct parcel_part *parts, size_t count, struct nova_error *err);

/* The destination: listen; the parts are received once. landed: all is on disk, call box_move_arrived() when the rest is
 * done (may be from landed itself). */
struct box_move *box_move_in(const struct nova_driver_env *env, struct nova_guest *guest, const struct parcel_part *parts,
    size_t count, void (*landed)(void *arg), void *arg, struct nova_error *err);
const char *box_move_path(const struct box_move *move); /* borrowed: of the socket */
/* why NULL: "completed", also over there; else "failed" with the reason. */
void box_move_arrived(struct box_move *move, const struct nova_error *why);

/* The answer of MIGRATE-OUT-QUERY, and figures for the log; new reference. move may be NULL: nothing is moving. */
json_t *box_move_query(const struct box_move *move);
/* Stops it. NULL is fine. */
struct box_move *box_move_free(struct box_move *move);
/* The socket of a daemon that was killed is not left behind. */
void box_move_clear(const struct nova_driver_env *env, const struct nova_guest *guest);

/* Why no container moves live here, asked from the kernel; static. */
const char *box_no_live(void);
/* -1 and the reason unless this host takes checkpoints of containers from its peers. */
int box_checkpoints_refused(const struct nova_driver_env *env, struct nova_error *err);

/* What every container loses when it moves, for the report; new array. */
json_t *box_move_lost(const json_t *spec, bool warm);

#endif
