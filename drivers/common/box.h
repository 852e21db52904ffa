/* SPDX-License-Identifier: Apache-2.0
 *
 * box.h - what containers of every driver are made of: options, their checks, and figures in one form.
 *
 * A completed specification has "volume" as a list of objects {source, target, readonly}; everything else is
 * as the options say. Completing is idempotent. What a container may reach is a matter of this host's
 * configuration (roots, networks), never of what the specification says of itself.
 */
#ifndef NOVA_DRIVER_BOX_H
#define NOVA_DRIVER_BOX_H

#include "engine/novacron.h"

#define BOX_LIST_MAX 256 /* words, variables, labels, volumes each */

/* Rows of a driver's option table. */
#define BOX_COMMAND \
	{ "command", NOVA_T_LIST, .metavar = "WORD", .help = "a word of the command to run instead of its own; may be repeated" }
#define BOX_ENV { "env", NOVA_T_LIST, .metavar = "NAME=VALUE", .help = "a variable of its environment" }
#define BOX_VOLUME \
	{ "volume", NOVA_T_LIST, .metavar = "VOLUME", .help = "source=PATH,target=PATH[,readonly=on]: PATH of this host, below the roots" }
#define BOX_LABEL { "label", NOVA_T_LIST, .metavar = "NAME=VALUE", .help = "a label" }
#define BOX_USER { "user", NOVA_T_STRING, .metavar = "USER", .help = "user that the command runs as" }
#define BOX_WORKDIR { "workdir", NOVA_T_PATH, .metavar = "DIR", .help = "directory that the command runs in" }
#define BOX_HOSTNAME { "hostname", NOVA_T_STRING, .metavar = "NAME", .help = "host name inside" }
#define BOX_NETWORK \
	{ "network", NOVA_T_STRING, .fallback = "none", .metavar = "NETWORK", .help = "none, or one of the daemon's networks" }
#define BOX_SHARES \
	{ "cpu-shares", NOVA_T_INT, .min = 2, .max = 262144, .fallback = "1024", .metavar = "N", .help = "weight beside other containers" }
#define BOX_MEMORY \
	{ "memory", NOVA_T_BYTES, .min = 6 << 20, .max = (int64_t)1 << 44, .fallback = "256M", .metavar = "SIZE", .help = "most memory it may use" }
#define BOX_VCPUS \
	{ "vcpus", NOVA_T_INT, .min = 1, .max = 1024, .fallback = "1", .metavar = "N", .help = "processors' time it may use" }

struct box_limits {
	const struct nova_param *params; /* the driver's rows */
	const char *driver;
	const json_t *roots;             /* directories */
	const json_t *networks;          /* names that are allowed beside none; may be NULL */
};
/* New reference, or NULL and the reason. */
json_t *box_complete(const json_t *spec, const struct box_limits *limits, struct nova_error *err);
/* {memory_bytes, vcpus, disk_bytes} of a completed specification; new reference. */
json_t *box_needs(const json_t *spec);

/* What the driver can do here: {verb: true, or why not}. no_move: why containers do not move; no_checkpoint: why there
 * is no snapshot and restore, or NULL. New reference. */
json_t *box_verbs(const struct nova_driver *driver, const char *no_move, const char *no_checkpoint);

/* Facts of a driver's probe: how containers move here. warm, live: why not, NULL: they do. */
void box_moves(json_t *facts, const char *no_warm, const char *no_live);

/* What a container used. Unknown figures are -1. */
struct box_disk {
	char name[32];
	int64_t read_bytes, written_bytes, read_operations, write_operations;
};
struct box_figures {
	int pid; /* of its first process; 0: none */
	int64_t user_ns, system_ns, total_ns;
	int64_t used_bytes, rss_bytes, cache_bytes, limit_bytes;
	int64_t processes, throttled_ns;
	struct box_disk disk[8];
	size_t disks;
};
void box_figures_init(struct box_figures *figures);
struct box_disk *box_figures_disk(struct box_figures *figures, const char *name);
/* STATS as every driver answers it (drivers/README.md); new reference. */
json_t *box_stats(const struct nova_guest *guest, const struct box_figures *figures);

#endif
