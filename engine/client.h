/* SPDX-License-Identifier: Apache-2.0
 *
 * client.h - the two kinds of client of a daemon behind the public nova_client: of its control socket (qmp/control.c)
 * and of its listening port (client.c).
 */
#ifndef NOVA_CLIENT_H
#define NOVA_CLIENT_H

#include "novacron.h"

struct nova_client {
	const struct nova_client_ops *ops; /* static */
};

struct nova_client_ops {
	/* args is borrowed. */
	struct nova_op *(*execute)(struct nova_client *client, const char *command, json_t *args, nova_done_fn done,
	    void *arg, struct nova_error *err);
	void (*free)(struct nova_client *client);
};

/* config.c: the certificate of a configuration and one peer, who is called "daemon" in it: a name in the configuration,
 * NAME=HOST:PORT or HOST:PORT. */
struct nova_config *nova_config_for_client(const struct nova_config *config, const char *host, struct nova_error *err);
#define NOVA_CLIENT_PEER "daemon"

#endif
