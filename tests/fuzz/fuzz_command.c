/* SPDX-License-Identifier: Apache-2.0
 *
 * fuzz_command.c - the arguments of a command as a client may send them: input is the index of a command, then JSON.
 * Beyond not crashing: they are refused with a reason, or completed so that every member belongs to a row of the table.
 * The bytes before, QMP's wire format, are fuzz_qmp's.
 */
#include "engine/cleanup.h"
#include "engine/host.h"
#include "scratch.h"

static bool has_row(const struct nova_param *params, const char *name)
{
	for (; params && params->name; params++)
		if (!strcmp(params->name, name))
			return true;
	return false;
}

static void try_params(const struct nova_param *params, const json_t *args, const char *what)
{
	struct nova_error err = { 0 };
	NOVA_AUTOJSON json_t *filled = nova_params_fill(params, args, what, &err);
	const char *name;
	json_t *value;

	require(filled || err.text[0], "a refusal has a reason");
	json_object_foreach (filled, name, value)
		require(has_row(params, name), "every member is known");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	size_t count, params_count;
	const struct nova_command *commands = nova_commands(&count);
	const struct nova_param *params;
	struct nova_error err;
	char text[256];

	if (size < 2)
		return 0;
	NOVA_AUTOJSON json_t *args = json_loadb((const char *)data + 1, size - 1, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);

	try_params(commands[data[0] % count].params, args, commands[data[0] % count].name);
	params = nova_driver_params(nova_driver_name(0), &params_count);
	try_params(params, args, "spec");
	/* The same bytes as a word of a command line. */
	snprintf(text, sizeof(text), "%.*s", (int)(size - 1 < 255 ? size - 1 : 255), (const char *)data + 1);
	for (size_t i = 0; i < params_count; i++)
		json_decref(nova_param_parse(&params[i], text, &err));
	return 0;
}
