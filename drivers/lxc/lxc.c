/* SPDX-License-Identifier: Apache-2.0
 *
 * lxc.c - the LXC driver: guests are containers of LXC's own commands, below lxc-path. Containers outlive us:
 * close() and forget() only let go. Not here: images (a root file system is a file).
 */
#include "drivers/lxc/lxc.h"
#include "drivers/common/roots.h"

#include <errno.h>
#include <event2/event.h>
#include <stdio.h>
#include <string.h>

#define NO_STEERING "not supported by lxc: nothing of a container converges"

extern const struct nova_driver nova_driver_lxc;

/* ---- probe ---- */

bool lxc_in_path(const char *program)
{
	NOVA_AUTOFREE char *list = strdup(getenv("PATH") ?: "/usr/bin:/bin");
	char *rest = list, *dir, path[PATH_MAX];

	while (list && (dir = strsep(&rest, ":"))) {
		snprintf(path, sizeof(path), "%s/%s", dir, program);
		if (access(path, X_OK) == 0)
			return true;
	}
	return false;
}

static const char *no_snapshot(void)
{
	return !lxc_in_path("lxc-snapshot") ? "lxc-snapshot is not installed" :
	       !lxc_in_path("rsync")        ? "rsync is not installed: lxc-snapshot needs it" :
					  NULL;
}

static enum nova_step_result told(struct task *task, json_t *value, struct nova_error *err)
{
	struct lxc *lxc = task->self;
	const char *text = task_text(value, "stdout") ?: "";

	if (nova_child_check("lxc-start", value, err) < 0)
		return NOVA_STEP_FAILED;
	json_decref(task->result);
	task->result = json_pack("{s:b,s:o,s:o,s:{s:s,s:i}}", "found", true, "version", json_stringn(text, strcspn(text, "\n")),
	    "verbs", box_verbs(&nova_driver_lxc, NO_STEERING, no_snapshot()), "facts", "path", lxc->path, "cgroup-version", cgroup_version(CGROUP_MEMORY));
	box_moves(json_object_get(task->result, "facts"), lxc_no_checkpoint(), box_no_live());
	return NOVA_STEP_DONE;
}

static enum nova_step_result ask_version(struct nova_run *run, void *ctx, struct nova_error *err)
{
	static const char *const argv[] = { "lxc-start", "--version", NULL };

	return task_program(ctx, argv, LXC_COMMAND_MS, told, err);
}

LXC_VERB(probe)
{
	static const struct nova_step rows[] = {
		{ "version", ask_version, NULL, task_drop_row },
		{ NULL },
	};
	struct lxc *lxc = self;

	if (!lxc_in_path("lxc-start"))
		return nova_op_later(lxc->env.base,
		    json_pack("{s:b,s:s,s:{},s:{}}", "found", 0, "why", "no lxc-start in PATH: install LXC (Debian: lxc)", "verbs", "facts"),
		    NULL, done, arg, err);
	return task_new(self, &lxc->env, guest, args, rows, done, arg, err);
}

LXC_VERB(capabilities)
{
	static const char *const modes[] = { "cold", "warm", "live" };
	struct lxc *lxc = self;
	json_t *answer = json_object();

	for (size_t i = 0; i < sizeof(modes) / sizeof(*modes); i++) {
		const char *why = lxc_no_move(lxc, modes[i]);

		json_object_set_new(answer, modes[i], why ? json_string(why) : json_true());
	}
	return nova_op_later(lxc->env.base, answer, NULL, done, arg, err);
}

LXC_VERB(check)
{
	struct lxc *lxc = self;
	struct box_limits limits = {
		.params = lxc_spec_params,
		.driver = "lxc",
		.roots = lxc->roots,
		.networks = lxc->env.config ? nova_config_get(lxc->env.config, "networks") : NULL,
	};
	json_t *spec = box_complete(json_object_get(args, "spec"), &limits, err);
	bool carried;

	if (!spec)
		return NULL;
	carried = json_is_true(json_object_get(args, "incoming")) && !strcmp(task_text(spec, "rootfs") ?: "", LXC_CARRIED);
	if (lxc_settings_check(spec, err) < 0 ||
	    (!carried && roots_need(lxc->roots, "rootfs", task_text(spec, "rootfs") ?: "", 0, err) < 0)) {
		json_decref(spec);
		return NULL;
	}
	if (!lxc_in_path("lxc-start")) {
		json_decref(spec);
		nova_error_set(err, NOVA_REFUSED, "lxc: no lxc-start in PATH: install LXC");
		return NULL;
	}
	return nova_op_later(lxc->env.base, json_pack("{s:o,s:o}", "needs", box_needs(spec), "spec", spec), NULL, done, arg, err);
}

/* ---- open, close ---- */

static void lxc_close(void *self)
{
	struct lxc *lxc = self;

	while (lxc->guests)
		lxc_forget_guest(lxc, lxc->guests->guest);
	if (lxc->look)
		event_free(lxc->look);
	json_decref(lxc->roots);
	free(lxc->path);
	free(lxc->state_dir);
	free(lxc);
}

static void *lxc_open(const struct nova_driver_env *env, struct nova_error *err)
{
	struct lxc *lxc = calloc(1, sizeof(*lxc));
	const char *path = driver_option(env, "lxc-path");

	if (!lxc) {
		nova_error_sys(err, ENOMEM, "lxc");
		return NULL;
	}
	lxc->env = *env;
	lxc->state_dir = strdup(env->state_dir);
	lxc->env.state_dir = lxc->state_dir;
	lxc->roots = roots_of(env);
	if (path ? asprintf(&lxc->path, "%s", path) < 0 : asprintf(&lxc->path, "%s/lxc", env->state_dir) < 0)
		lxc->path = NULL;
	if (lxc->state_dir && lxc->roots && lxc->path)
		return lxc;
	nova_error_sys(err, ENOMEM, "lxc");
	lxc_close(lxc);
	return NULL;
}

static void let_go(void *self, struct nova_guest *guest)
{
	lxc_forget_guest(self, guest);
}

const struct nova_driver nova_driver_lxc = {
	.struct_size = sizeof(struct nova_driver),
	.name = "lxc",
	.help = "containers of LXC",
	.open = lxc_open,
	.close = lxc_close,
	.forget = let_go,
	.verb = {
		[NOVA_VERB_PROBE] = lxc_probe,
		[NOVA_VERB_CHECK] = lxc_check,
		[NOVA_VERB_CREATE] = lxc_create,
		[NOVA_VERB_START] = lxc_start,
		[NOVA_VERB_STOP] = lxc_stop,
		[NOVA_VERB_DELETE] = lxc_delete,
		[NOVA_VERB_PAUSE] = lxc_pause,
		[NOVA_VERB_RESUME] = lxc_resume,
		[NOVA_VERB_SNAPSHOT] = lxc_snapshot,
		[NOVA_VERB_RESTORE] = lxc_restore,
		[NOVA_VERB_LIST] = lxc_list,
		[NOVA_VERB_ADOPT] = lxc_adopt,
		[NOVA_VERB_REATTACH] = lxc_reattach,
		[NOVA_VERB_STATS] = lxc_stats,
		[NOVA_VERB_CAPABILITIES] = lxc_capabilities,
		[NOVA_VERB_LOGS] = lxc_logs,
		[NOVA_VERB_OUT_PREPARE] = lxc_out_prepare,
		[NOVA_VERB_OUT_START] = lxc_out_start,
		[NOVA_VERB_OUT_QUERY] = lxc_out_query,
		[NOVA_VERB_OUT_CANCEL] = lxc_out_cancel,
		[NOVA_VERB_IN_PREPARE] = lxc_in_prepare,
	},
	.spec_params = lxc_spec_params,
};
