/* SPDX-License-Identifier: Apache-2.0
 *
 * plugins.h - how the other layers reach the engine: one struct of callbacks each. The engine includes
 * none of them; drivers/builtin.c names them all.
 */
#ifndef NOVA_PLUGINS_H
#define NOVA_PLUGINS_H

#include "codec.h"
#include "flow.h"

struct nova_control; /* a listening control socket */

struct nova_control_ops {
	/* Serve host on a unix socket; group: "" or who may connect beside its owner. */
	struct nova_control *(*open)(struct event_base *base, struct nova_host *host, const char *path,
	    const char *group, struct nova_error *err);
	void (*emit)(struct nova_control *control, const char *event, json_t *data);
	struct nova_control *(*close)(struct nova_control *control);
};

struct nova_plugins {
	const struct nova_driver *const *drivers; /* ends with NULL */
	const struct nova_link_ops *links;
	const struct nova_scanner_ops *scanner;
	const struct nova_control_ops *control;
};

extern const struct nova_plugins nova_builtin;

#endif
