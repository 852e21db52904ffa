/* SPDX-License-Identifier: Apache-2.0
 *
 * execute.c - from a command's name to its answer: its arguments are checked against its row, its caller
 * against its role, and both the question and its end go to the audit log. Not here: the commands.
 */
#include "audit.h"
#include "cleanup.h"
#include "host.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const char *const role_names[] = { "none", "viewer", "operator", "admin" };

const char *nova_role_name(enum nova_role role)
{
	return role_names[role];
}

/* ---- checking arguments ---- */

static const struct nova_param *find_param(const struct nova_param *params, const char *name)
{
	for (; params && params->name; params++)
		if (!strcmp(params->name, name))
			return params;
	return NULL;
}

static int fill_one(const struct nova_param *param, json_t *filled, const char *what, struct nova_error *err)
{
	const json_t *value = json_object_get(filled, param->name);
	json_t *fallback;

	if (value)
		return nova_param_check(param, value, err);
	if (param->required)
		return nova_error_set(err, NOVA_INVALID, "%s: %s is missing (%s)", what, param->name, param->help);
	if (!param->fallback)
		return 0;
	fallback = nova_param_parse(param, param->fallback, err);
	if (!fallback)
		return -1;
	json_object_set_new(filled, param->name, fallback);
	return 0;
}

json_t *nova_params_fill(const struct nova_param *params, const json_t *args, const char *what, struct nova_error *err)
{
	NOVA_AUTOJSON json_t *filled = json_object();
	const char *name;
	json_t *value;

	if (args && !json_is_object(args)) {
		nova_error_set(err, NOVA_INVALID, "%s: arguments must be an object", what);
		return NULL;
	}
	json_object_foreach ((json_t *)args, name, value) {
		if (!find_param(params, name)) {
			nova_error_set(err, NOVA_INVALID, "%s has no argument '%.40s'", what, name);
			return NULL;
		}
		if (!json_is_null(value))
			json_object_set(filled, name, value);
	}
	for (const struct nova_param *param = params; param && param->name; param++)
		if (fill_one(param, filled, what, err) < 0)
			return NULL;
	return nova_take(&filled);
}

/* ---- the audit log ---- */

void nova_host_audit(struct nova_host *host, const struct nova_identity *who, json_t *record)
{
	struct nova_error err;

	json_object_set_new(record, "who", json_string(who->name));
	json_object_set_new(record, "role", json_string(nova_role_name(who->role)));
	json_object_set_new(record, "from", json_string(who->from));
	if (nova_audit_append(host->audit, record, &err) < 0)
		nova_host_log(host, NOVA_LOG_ERROR, "%s", err.text);
}

/* A command on its way: its end goes to the log whoever waits for it. */
struct executed {
	struct nova_op op;
	struct nova_op *inner; /* owned */
	struct nova_host *host;
	struct nova_identity who;
	json_t *record; /* owned until written */
	int64_t begin_ms;
	nova_done_fn done;
	void *arg;
};

/* What changes something is written when it begins, too: a daemon that is killed has said what it was doing. */
static void write_begin(const struct executed *executed)
{
	json_t *record = json_copy(executed->record);

	json_object_set_new(record, "outcome", json_string("accepted"));
	nova_host_audit(executed->host, &executed->who, record);
}

static void write_end(struct executed *executed, const char *outcome, const struct nova_error *err)
{
	json_t *record = nova_take(&executed->record);

	json_object_set_new(record, "outcome", json_string(outcome));
	json_object_set_new(record, "ms", json_integer(nova_now_ms() - executed->begin_ms));
	if (err)
		json_object_set_new(record, "error", json_string(err->text));
	nova_host_audit(executed->host, &executed->who, record);
}

static void executed_drop(struct nova_op *op)
{
	struct executed *executed = (struct executed *)op;

	nova_op_drop(executed->inner);
	write_end(executed, "not waited for", NULL);
	free(executed);
}

static void executed_done(void *arg, json_t *result, const struct nova_error *err)
{
	struct executed *executed = arg;
	nova_done_fn done = executed->done;
	void *done_arg = executed->arg;

	write_end(executed, err ? nova_category_name(err->category) : "ok", err);
	if (err)
		nova_metrics_add(executed->host->metrics, "novacron_commands_failed_total",
		    nova_category_name(err->category), 1);
	free(executed);
	done(done_arg, result, err);
}

static struct nova_op *start(struct executed *executed, const struct nova_command *command, json_t *args,
    struct nova_error *err)
{
	struct nova_host *host = executed->host;
	const struct nova_identity *who = &executed->who;
	NOVA_AUTOJSON json_t *filled = NULL;

	if (who->role < command->role) {
		nova_error_set(err, NOVA_REFUSED,
		    "%s may not %s: it takes the role %s (see admins, operators and viewers in the configuration)",
		    who->name, command->name, nova_role_name(command->role));
		return NULL;
	}
	filled = nova_params_fill(command->params, args, command->name, err);
	if (!filled)
		return NULL;
	nova_metrics_add(host->metrics, "novacron_commands_total", command->name, 1);
	return command->start(host, who, filled, executed_done, executed, err);
}

static const struct nova_command *find_command(const char *name)
{
	size_t count;
	const struct nova_command *commands = nova_commands(&count);

	for (size_t i = 0; i < count; i++)
		if (!strcmp(commands[i].name, name))
			return &commands[i];
	return NULL;
}

struct nova_op *nova_host_execute(struct nova_host *host, const struct nova_identity *who, const char *name,
    json_t *args, nova_done_fn done, void *arg, struct nova_error *err)
{
	const struct nova_command *command = find_command(name);
	struct executed *executed = calloc(1, sizeof(*executed));
	struct nova_error ignored = { 0 };

	err = err ? err : &ignored;
	if (!executed) {
		nova_error_sys(err, ENOMEM, "%s", name);
		return NULL;
	}
	*executed = (struct executed){
		.op.drop = executed_drop,
		.host = host,
		.who = *who,
		.begin_ms = nova_now_ms(),
		.done = done,
		.arg = arg,
	};
	executed->record = json_pack("{s:s, s:O*}", "command", name, "args", args);
	if (command)
		executed->inner = start(executed, command, args, err);
	else
		nova_error_set(err, NOVA_INVALID, "there is no command '%.40s'", name);
	if (executed->inner) {
		if (command->role >= NOVA_ROLE_OPERATOR)
			write_begin(executed);
		return &executed->op;
	}
	write_end(executed, nova_category_name(err->category), err);
	nova_metrics_add(host->metrics, "novacron_commands_failed_total", nova_category_name(err->category), 1);
	free(executed);
	return NULL;
}
