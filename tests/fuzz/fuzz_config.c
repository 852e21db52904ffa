/* SPDX-License-Identifier: Apache-2.0
 *
 * fuzz_config.c - any bytes as a configuration file. Beyond not crashing: it is taken or refused with a reason, and every
 * option can be asked for either way.
 */
#include "engine/novacron.h"
#include "scratch.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct nova_config *config = nova_config_new();
	struct nova_error err = { 0 };
	char path[128];
	size_t count;
	const struct nova_param *params = nova_config_params(&count);

	snprintf(path, sizeof(path), "%s/config", scratch());
	scratch_write(path, data, size);
	if (nova_config_load(config, path, &err) < 0)
		require(err.text[0] && err.category != NOVA_OK, "a refusal has a reason");
	for (size_t i = 0; i < count; i++)
		nova_config_get(config, params[i].name);
	nova_config_get(config, "peers");
	nova_config_free(config);
	return 0;
}
