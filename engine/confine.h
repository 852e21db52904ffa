/* SPDX-License-Identifier: Apache-2.0
 *
 * confine.h - what a program that reads foreign bytes may still do: a seccomp filter, and landlock where the kernel has
 * it. Made by the parent, since the child between fork and exec may only make plain system calls; worn by the child.
 */
#ifndef NOVA_CONFINE_H
#define NOVA_CONFINE_H

#include "novacron.h"

/* Paths end with NULL; ones that are not there are left out. */
struct nova_confine_paths {
	const char *const *read;  /* and execute, with all below them */
	const char *const *write; /* read, write, make and remove, with all below them */
};

struct nova_confinement;

/* For a program that is executed: no network (unix sockets stay), mounts, namespaces, modules, tracing, keys, clocks, and
 * no files but these. paths is borrowed. NULL and *err only when out of memory or descriptors: what the kernel does not
 * have is left out. */
struct nova_confinement *nova_confinement_new(const struct nova_confine_paths *paths, struct nova_error *err);
/* For a child that has its descriptors and needs no other: read, write, memory and time; anything else kills it. NULL and
 * *err also where the kernel has no filters. */
struct nova_confinement *nova_confinement_new_worker(struct nova_error *err);
struct nova_confinement *nova_confinement_free(struct nova_confinement *confinement);
/* In the child: no new privileges, then landlock, then the filter. Only system calls; -1 and errno. */
int nova_confinement_wear(const struct nova_confinement *confinement);

/* What this kernel has: the version of landlock's interface (0: none), seccomp filters. */
int nova_confine_landlock_version(void);
bool nova_confine_seccomp_there(void);

#endif
