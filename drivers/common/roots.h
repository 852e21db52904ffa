/* SPDX-License-Identifier: Apache-2.0
 *
 * roots.h - files of guests lie below the configured roots, and nowhere else.
 *
 * The kernel decides, not our reading of the path: openat2 with RESOLVE_BENEATH refuses "..", links that lead
 * out and /proc's magic links. Whoever opens the path by its name later (a hypervisor, a runtime) trusts those
 * who may write below the roots not to swap links meanwhile.
 */
#ifndef NOVA_DRIVER_ROOTS_H
#define NOVA_DRIVER_ROOTS_H

#include "engine/novacron.h"

/* A descriptor, or -1 with errno: EXDEV means outside of every root. roots: array of directories. */
int roots_open(const json_t *roots, const char *path, int flags);
/* The error for EXDEV: names the roots. Returns -1. */
int roots_refuse(const json_t *roots, const char *what, const char *path, struct nova_error *err);
/* There is something of this kind below a root (S_IFREG, S_IFDIR; 0: either); else -1 and the reason. */
int roots_need(const json_t *roots, const char *what, const char *path, unsigned kind, struct nova_error *err);
/* As configured, or "images" in the state directory. New reference. */
json_t *roots_of(const struct nova_driver_env *env);

#endif
