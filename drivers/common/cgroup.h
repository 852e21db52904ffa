/* SPDX-License-Identifier: Apache-2.0
 *
 * cgroup.h - what a container used, read from its control groups, version 1 and 2 (and both at once, as hybrid
 * hosts have them).
 */
#ifndef NOVA_DRIVER_CGROUP_H
#define NOVA_DRIVER_CGROUP_H

#include "drivers/common/box.h"

#include <limits.h>
#include <sys/types.h>

/* A directory for each controller; "" where there is none. */
struct cgroup_place {
	int version; /* 1 or 2; 0: none */
	char path[PATH_MAX];
};
enum cgroup_controller {
	CGROUP_CPU,
	CGROUP_CPUACCT,
	CGROUP_MEMORY,
	CGROUP_PIDS,
	CGROUP_IO,
	CGROUP_FREEZER,
	CGROUP_CONTROLLERS
};
struct cgroup_places {
	struct cgroup_place of[CGROUP_CONTROLLERS];
};

/* Where a process is. */
void cgroup_find(pid_t pid, struct cgroup_places *places);
/* 1, 2: the hierarchy that has this controller on this host; 0: none. */
int cgroup_version(enum cgroup_controller controller);
/* What the files there say; the rest of figures stays as it is. */
void cgroup_read(const struct cgroup_places *places, struct box_figures *figures);
/* The answer of the verb stats, for the process that is the guest's (runtime's "pid"). */
json_t *cgroup_stats(const struct nova_guest *guest);
/* Is it frozen? */
bool cgroup_frozen(const struct cgroup_places *places);

#endif
