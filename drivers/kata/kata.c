/* SPDX-License-Identifier: Apache-2.0
 *
 * kata.c - the Kata driver: guests are containers of containerd that Kata's shim runs, each in a virtual machine of
 * its own. All but the verbs below is the containerd driver's, in the same namespace; the runtime tells them apart.
 *
 * The shim is looked for in our PATH, containerd looks in its own; its refusal is passed on as it is. Not here:
 * checkpoints (the shim offers none), the host's network, warm and live moves (the shim owns the monitor).
 */
#include "drivers/kata/kata.h"

#include <stdio.h>
#include <string.h>

extern const struct nova_driver nova_driver_kata;

static void *open_it(const struct nova_driver_env *env, struct nova_error *err)
{
	return containerd_open_as(&nova_driver_kata, KATA_RUNTIME, env, err);
}

static bool in_path(const char *program)
{
	NOVA_AUTOFREE char *path = strdup(getenv("PATH") ?: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
	char *rest = path, *dir, file[PATH_MAX];

	while (path && (dir = strsep(&rest, ":")))
		if (snprintf(file, sizeof(file), "%s/%s", dir, program) < (int)sizeof(file) && access(file, X_OK) == 0)
			return true;
	return false;
}

static CONTAINERD_VERB(probe_kata)
{
	struct containerd *containerd = self;

	if (in_path(KATA_SHIM))
		return containerd_probe(self, guest, args, done, arg, err);
	return nova_op_later(containerd->env.base,
	    json_pack("{s:b,s:s,s:{},s:{}}", "found", false, "why", "Kata's shim is not installed: " KATA_SHIM " is not in PATH", "verbs", "facts"), NULL, done, arg, err);
}

static CONTAINERD_VERB(check_kata)
{
	const char *network = task_text(json_object_get(args, "spec"), "network") ?: "none";

	if (!strcmp(network, "host")) {
		nova_error_set(err, NOVA_INVALID, "network 'host': a kata guest is a virtual machine, it has no part in the host's network");
		return NULL;
	}
	return containerd_check(self, guest, args, done, arg, err);
}

const struct nova_driver nova_driver_kata = {
	.struct_size = sizeof(struct nova_driver),
	.name = "kata",
	.help = "containers of containerd in virtual machines, by Kata",
	.open = open_it,
	.close = containerd_close,
	.forget = containerd_let_go,
	.verb = {
		[NOVA_VERB_PROBE] = containerd_probe_kata,
		[NOVA_VERB_CHECK] = containerd_check_kata,
		[NOVA_VERB_CREATE] = containerd_create,
		[NOVA_VERB_START] = containerd_start,
		[NOVA_VERB_STOP] = containerd_stop,
		[NOVA_VERB_DELETE] = containerd_delete,
		[NOVA_VERB_PAUSE] = containerd_pause,
		[NOVA_VERB_RESUME] = containerd_resume,
		[NOVA_VERB_LIST] = containerd_list,
		[NOVA_VERB_ADOPT] = containerd_adopt,
		[NOVA_VERB_REATTACH] = containerd_reattach,
		[NOVA_VERB_STATS] = kata_stats,
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
