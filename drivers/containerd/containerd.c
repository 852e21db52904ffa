/* SPDX-License-Identifier: Apache-2.0
 *
 * containerd.c - the containerd driver: guests are containers of the containerd on this host, driven by gRPC over
 * its unix socket. Containers outlive us and containerd: close() and forget() only let go. Not here: pulling
 * images, exec.
 */
#include "drivers/containerd/containerd.h"
#include "drivers/common/roots.h"

#include <errno.h>
#include <string.h>

void containerd_close(void *self)
{
	struct containerd *containerd = self;

	containerd_watch_free(containerd->watch);
	containerd->watch = NULL;
	while (containerd->guests)
		containerd_forget(containerd, containerd->guests->guest);
	grpc_free(containerd->grpc);
	json_decref(containerd->roots);
	free(containerd->state_dir);
	free(containerd->space);
	free(containerd->snapshotter);
	free(containerd);
}

void *containerd_open_as(const struct nova_driver *driver, const char *runtime, const struct nova_driver_env *env,
    struct nova_error *err)
{
	struct containerd *containerd = calloc(1, sizeof(*containerd));

	if (!containerd) {
		nova_error_sys(err, ENOMEM, "%s", driver->name);
		return NULL;
	}
	containerd->env = *env;
	containerd->driver = driver;
	containerd->runtime = runtime;
	containerd->state_dir = strdup(env->state_dir);
	containerd->env.state_dir = containerd->state_dir;
	containerd->space = strdup(driver_option(env, "containerd-namespace") ?: "novacron");
	containerd->snapshotter = strdup(driver_option(env, "containerd-snapshotter") ?: "overlayfs");
	containerd->roots = roots_of(env);
	containerd->grpc = grpc_new(env->base, "containerd", driver_option(env, "containerd-socket") ?: "/run/containerd/containerd.sock", err);
	if (containerd->state_dir && containerd->space && containerd->snapshotter && containerd->roots && containerd->grpc)
		return containerd;
	if (containerd->grpc)
		nova_error_sys(err, ENOMEM, "%s", driver->name);
	containerd_close(containerd);
	return NULL;
}

void containerd_let_go(void *self, struct nova_guest *guest)
{
	containerd_forget(self, guest);
}

extern const struct nova_driver nova_driver_containerd;

static void *open_it(const struct nova_driver_env *env, struct nova_error *err)
{
	return containerd_open_as(&nova_driver_containerd, "io.containerd.runc.v2", env, err);
}

const struct nova_driver nova_driver_containerd = {
	.struct_size = sizeof(struct nova_driver),
	.name = "containerd",
	.help = "containers of containerd",
	.open = open_it,
	.close = containerd_close,
	.forget = containerd_let_go,
	.verb = {
		[NOVA_VERB_PROBE] = containerd_probe,
		[NOVA_VERB_CHECK] = containerd_check,
		[NOVA_VERB_CREATE] = containerd_create,
		[NOVA_VERB_START] = containerd_start,
		[NOVA_VERB_STOP] = containerd_stop,
		[NOVA_VERB_DELETE] = containerd_delete,
		[NOVA_VERB_PAUSE] = containerd_pause,
		[NOVA_VERB_RESUME] = containerd_resume,
		[NOVA_VERB_SNAPSHOT] = containerd_snapshot,
		[NOVA_VERB_RESTORE] = containerd_restore,
		[NOVA_VERB_LIST] = containerd_list,
		[NOVA_VERB_ADOPT] = containerd_adopt,
		[NOVA_VERB_REATTACH] = containerd_reattach,
		[NOVA_VERB_STATS] = containerd_stats,
		[NOVA_VERB_RESIZE] = containerd_resize,
		[NOVA_VERB_CAPABILITIES] = containerd_capabilities,
		[NOVA_VERB_LOGS] = containerd_logs,
		[NOVA_VERB_IMPORT] = containerd_import,
		[NOVA_VERB_EXPORT] = containerd_export,
		[NOVA_VERB_OUT_PREPARE] = containerd_out_prepare,
		[NOVA_VERB_OUT_START] = containerd_out_start,
		[NOVA_VERB_OUT_QUERY] = containerd_out_query,
		[NOVA_VERB_OUT_CANCEL] = containerd_out_cancel,
		[NOVA_VERB_IN_PREPARE] = containerd_in_prepare,
	},
	.spec_params = containerd_spec_params,
};
