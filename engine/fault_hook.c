/* SPDX-License-Identifier: Apache-2.0
 *
 * fault_hook.c - see fault_hook.h.
 */
#include "fault_hook.h"

#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

int nova_fault_hook(const struct nova_host *host, const char *id, const char *kind, const char *side, const char *step, bool undo,
    struct nova_error *err)
{
	const char *hook = nova_config_text(host->config, "fault-hook");
	char *const argv[] = { (char *)hook, (char *)id, (char *)kind, (char *)side, (char *)step, (char *)(undo ? "undo" : "run"), NULL };
	int status;
	pid_t pid;

	if (!hook[0])
		return 0;
	if (posix_spawn(&pid, hook, NULL, NULL, argv, environ) != 0 || waitpid(pid, &status, 0) != pid)
		return nova_error_set(err, NOVA_INVALID, "fault-hook %s could not be run", hook);
	return status == 0 ? 0 : nova_error_set(err, NOVA_REFUSED, "fault-hook refused row %s", step);
}

void nova_fault_limit(const struct nova_host *host, struct nova_run *run)
{
	nova_run_cap_limits(run, (int)nova_config_int(host->config, "fault-limit"));
}
