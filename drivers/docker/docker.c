/* SPDX-License-Identifier: Apache-2.0
 *
 * docker.c - the Docker driver: guests are containers of the Docker engine on this host, driven over its unix
 * socket. Containers outlive us: close() and forget() only let go.
 */
#include "drivers/docker/docker.h"
#include "drivers/common/roots.h"

#include <errno.h>
#include <string.h>

static void docker_close(void *self)
{
	struct docker *docker = self;

	docker_watch_free(docker->watch);
	docker->watch = NULL;
	while (docker->guests)
		docker_forget(docker, docker->guests->guest);
	http_free(docker->http);
	json_decref(docker->roots);
	free(docker->state_dir);
	free(docker);
}

static void *docker_open(const struct nova_driver_env *env, struct nova_error *err)
{
	struct docker *docker = calloc(1, sizeof(*docker));
	const char *socket = driver_option(env, "docker-socket");

	if (!docker) {
		nova_error_sys(err, ENOMEM, "docker");
		return NULL;
	}
	docker->env = *env;
	docker->state_dir = strdup(env->state_dir);
	docker->env.state_dir = docker->state_dir;
	docker->roots = roots_of(env);
	docker->http = http_new(env->base, "docker", socket ? socket : "/var/run/docker.sock", err);
	if (docker->state_dir && docker->roots && docker->http)
		return docker;
	if (docker->http)
		nova_error_sys(err, ENOMEM, "docker");
	docker_close(docker);
	return NULL;
}

static void let_go(void *self, struct nova_guest *guest)
{
	docker_forget(self, guest);
}

extern const struct nova_driver nova_driver_docker;
const struct nova_driver nova_driver_docker = {
	.struct_size = sizeof(struct nova_driver),
	.name = "docker",
	.help = "containers of the Docker engine",
	.open = docker_open,
	.close = docker_close,
	.forget = let_go,
	.verb = {
		[NOVA_VERB_PROBE] = docker_probe,
		[NOVA_VERB_CHECK] = docker_check,
		[NOVA_VERB_CREATE] = docker_create,
		[NOVA_VERB_START] = docker_start,
		[NOVA_VERB_STOP] = docker_stop,
		[NOVA_VERB_DELETE] = docker_delete,
		[NOVA_VERB_PAUSE] = docker_pause,
		[NOVA_VERB_RESUME] = docker_resume,
		[NOVA_VERB_SNAPSHOT] = docker_snapshot,
		[NOVA_VERB_RESTORE] = docker_restore,
		[NOVA_VERB_LIST] = docker_list,
		[NOVA_VERB_ADOPT] = docker_adopt,
		[NOVA_VERB_REATTACH] = docker_reattach,
		[NOVA_VERB_STATS] = docker_stats,
		[NOVA_VERB_RESIZE] = docker_resize,
		[NOVA_VERB_CAPABILITIES] = docker_capabilities,
		[NOVA_VERB_LOGS] = docker_logs,
		[NOVA_VERB_IMPORT] = docker_import,
		[NOVA_VERB_EXPORT] = docker_export,
		[NOVA_VERB_OUT_PREPARE] = docker_out_prepare,
		[NOVA_VERB_OUT_START] = docker_out_start,
		[NOVA_VERB_OUT_QUERY] = docker_out_query,
		[NOVA_VERB_OUT_CANCEL] = docker_out_cancel,
		[NOVA_VERB_IN_PREPARE] = docker_in_prepare,
	},
	.spec_params = docker_spec_params,
};
