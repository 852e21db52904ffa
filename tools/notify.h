/* SPDX-License-Identifier: Apache-2.0
 *
 * notify.h - tell whoever started the daemon how it stands.
 */
#ifndef TOOLS_NOTIFY_H
#define TOOLS_NOTIFY_H

#include "novacron.h"

/* Send "READY=1" and the like to systemd; nothing without NOTIFY_SOCKET. */
void notify_systemd(const char *state);

/* Write {"port":N,"control":"PATH"} and a line end to fd and close it. */
int notify_fd(int fd, int port, const char *control, struct nova_error *err);

/* Log to standard error: for journald (JOURNAL_STREAM names our stderr) with its level prefix, else with
 * time and level. *arg is the least important level shown, an enum nova_log_level. */
void notify_log(void *arg, enum nova_log_level level, const char *line);

#endif
