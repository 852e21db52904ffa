/* SPDX-License-Identifier: Apache-2.0
 *
 * pipe_child.h - a pipe (pipe.h) whose codec runs in a child of its own: what a peer sends is decoded by a process that
 * has the hypervisor's socket, a socket to us, and nothing else.
 *
 * For the receiving end. The child keeps no secret of ours from being read in its copy of our memory; it keeps code that a
 * broken stream might run there from doing anything: no file, no network, no process, no signal (seccomp), and its death
 * is an error of the pipe like any other.
 */
#ifndef NOVA_PIPE_CHILD_H
#define NOVA_PIPE_CHILD_H

#include "pipe.h"

#include <sys/types.h>

struct nova_pipe_child;

/* As nova_pipe_new(); options.in may have neither baseline nor spool (their files stay with us). */
struct nova_pipe_child *nova_pipe_child_new(struct event_base *base, const struct nova_link_ops *links, int fd,
    struct nova_channel *channel, const struct nova_pipe_options *options, nova_pipe_fn fn, void *arg,
    struct nova_error *err);
struct nova_pipe_child *nova_pipe_child_free(struct nova_pipe_child *child);
/* Raw bytes and digest of what the socket was given. Waits up to 500 ms for the child to have told of raw_bytes_wanted. */
void nova_pipe_child_digest_in(
    struct nova_pipe_child *child, uint64_t raw_bytes_wanted, uint8_t digest[16], uint64_t *raw_bytes);
pid_t nova_pipe_child_pid(const struct nova_pipe_child *child);

#endif
