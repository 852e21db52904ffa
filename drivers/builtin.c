/* SPDX-License-Identifier: Apache-2.0
 *
 * builtin.c - the one place where the layers are put together: what the engine knows only as structs of
 * callbacks gets its names here. The list of drivers is generated from configure.ac (registry.c).
 */
#include "config.h"

#include <errno.h>
#include <grp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/drivers.h"
#include "engine/plugins.h"
#include "qmp/qmp.h"
#include "qmp/stream.h"
#include "transport/transport.h"

/* ---- the control socket, by qmp/server.c ---- */

struct nova_control {
	struct qmp_server *server; /* owned */
	struct nova_host *host;    /* borrowed */
};

static void identify(void *arg, unsigned uid, unsigned gid, int pid, struct nova_identity *who)
{
	nova_host_identify(((struct nova_control *)arg)->host, uid, gid, pid, who);
}

static struct nova_op *execute(void *arg, const struct nova_identity *who, const char *command, json_t *args,
    nova_done_fn done, void *done_arg, struct nova_error *err)
{
	return nova_host_execute(((struct nova_control *)arg)->host, who, command, args, done, done_arg, err);
}

static bool knows(void *arg, const char *command)
{
	size_t count;
	const struct nova_command *commands = nova_commands(&count);

	for (size_t i = 0; i < count; i++)
		if (!strcmp(commands[i].name, command))
			return true;
	return false;
}

static bool may_see(void *arg, const struct nova_identity *who, const char *event, json_t *data)
{
	return nova_host_may_see(((struct nova_control *)arg)->host, who, event, data);
}

static struct nova_control *control_close(struct nova_control *control)
{
	if (!control)
		return NULL;
	qmp_server_free(control->server);
	free(control);
	return NULL;
}

/* With a group its members may connect; what they may do is a matter of roles. */
static int give_to_group(const char *path, const char *name, struct nova_error *err)
{
	const struct group *group;

	if (!name[0])
		return 0;
	group = getgrnam(name);
	if (!group)
		return nova_error_set(err, NOVA_INVALID, "control-group: there is no group '%s'", name);
	if (chown(path, (uid_t)-1, group->gr_gid) < 0)
		return nova_error_sys(err, errno, "control-group %s for %s", name, path);
	return 0;
}

static struct nova_control *control_open(struct event_base *base, struct nova_host *host, const char *path,
    const char *group, struct nova_error *err)
{
	static const struct qmp_server_events events = { identify, execute, knows, may_see };
	struct nova_control *control = calloc(1, sizeof(*control));
	json_t *version = json_pack("{s:s, s:s}", "novacron", PACKAGE_VERSION, "package", PACKAGE_NAME);

	if (!control) {
		json_decref(version);
		nova_error_sys(err, ENOMEM, "control socket");
		return NULL;
	}
	control->host = host;
	control->server = qmp_server_new(base, path, group[0] ? 0660 : 0600, version, 0, &events, control, err);
	if (!control->server || give_to_group(path, group, err) < 0)
		return control_close(control);
	return control;
}

static void control_emit(struct nova_control *control, const char *event, json_t *data)
{
	qmp_server_emit(control->server, event, data);
}

static const struct nova_control_ops control_ops = { control_open, control_emit, control_close };

const struct nova_plugins nova_builtin = {
	.drivers = nova_drivers,
	.links = &nova_tls_links,
	.scanner = &qmp_stream_scanner,
	.control = &control_ops,
};
