/* SPDX-License-Identifier: Apache-2.0
 *
 * kata.h - what the files of the Kata driver share.
 *
 *   kata.c       the struct of callbacks: containerd's, with the runtime io.containerd.kata.v2; PROBE, CHECK,
 *                CAPABILITIES
 *   monitor.c    STATS: what the sandbox's QEMU says over QMP, if its monitor is free
 */
#ifndef NOVA_DRIVER_KATA_H
#define NOVA_DRIVER_KATA_H

#include "drivers/containerd/containerd.h"

#define KATA_RUNTIME "io.containerd.kata.v2"
#define KATA_SHIM "containerd-shim-kata-v2"
/* Below it the Go runtime keeps a directory a sandbox, with its QEMU's sockets. The Rust runtime's is private. */
#define KATA_SANDBOXES "/run/vc/vm"
#define KATA_OWNED "the monitor is owned by the shim"

struct nova_op *kata_stats(void *self, struct nova_guest *guest, json_t *args, nova_done_fn done, void *arg, struct nova_error *err);

#endif
