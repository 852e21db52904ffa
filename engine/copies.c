/* SPDX-License-Identifier: Apache-2.0
 *
 * copies.c - which older copies of disks guests left on this host when they moved away.
 *
 * A copy is only ever a hint: its content is hashed before it is used, and compared again when it is. So a record
 * whose file has changed or gone costs bytes, never data.
 */
#include "cleanup.h"
#include "migrate_disks.h"

#include <stdio.h>
#include <string.h>

static void key_of(const char *uuid, char key[64])
{
	snprintf(key, 64, "copies/%.36s", uuid);
}

json_t *nova_copies_get(struct nova_host *host, const char *uuid)
{
	NOVA_AUTOFREE char *text = NULL;
	struct nova_error err;
	json_t *copies;
	char key[64];

	key_of(uuid, key);
	text = nova_store_meta_get(host->store, key, &err);
	if (!text && err.category != NOVA_OK)
		nova_host_log(host, NOVA_LOG_WARNING, "older copies of guest %s: %s", uuid, err.text);
	copies = text ? json_loads(text, 0, NULL) : NULL;
	if (json_is_array(copies))
		return copies;
	json_decref(copies);
	return json_array();
}

int nova_copies_set(struct nova_host *host, const char *uuid, const json_t *copies, struct nova_error *err)
{
	NOVA_AUTOFREE char *text = json_array_size(copies) ? json_dumps(copies, JSON_COMPACT) : NULL;
	char key[64];

	key_of(uuid, key);
	return nova_store_meta_set(host->store, key, text ? text : "", err);
}
