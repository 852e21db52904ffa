/* SPDX-License-Identifier: Apache-2.0
 *
 * socket.h - unix sockets between us and the hypervisors of this host.
 */
#ifndef NOVA_SOCKET_H
#define NOVA_SOCKET_H

#include "novacron.h"

/* Listen (non-blocking) at path, in a directory that exists. The socket belongs to whom the directory belongs
 * to, and to nobody else: a hypervisor may run as another user. What was at path is removed. */
int nova_unix_listen(const char *path, struct nova_error *err);
/* A connection that waits; -1 with errno EAGAIN, EINTR or ECONNABORTED: none does. Non-blocking. */
int nova_unix_accept(int listen_fd);
/* Connect (non-blocking) to a socket that listens. */
int nova_unix_connect(const char *path, struct nova_error *err);
/* Two ends of one connection, both non-blocking. */
int nova_unix_pair(int fd[2], struct nova_error *err);

#endif
