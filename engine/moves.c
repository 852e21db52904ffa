/* SPDX-License-Identifier: Apache-2.0
 *
 * moves.c - the memory of moves.h: one array a peer among the store's facts, oldest first. What cannot be
 * read (a newer version wrote it, a hand did) counts as nothing: predictions work without.
 */
#include "moves.h"
#include "cleanup.h"

#include <stdio.h>
#include <string.h>

static void key_of(const char *peer, char *key, size_t size)
{
	snprintf(key, size, "moves %s", peer);
}

static json_t *read_all(struct nova_store *store, const char *peer)
{
	char key[128];
	struct nova_error ignored;
	NOVA_AUTOFREE char *text = NULL;
	json_t *moves;

	key_of(peer, key, sizeof(key));
	text = nova_store_meta_get(store, key, &ignored);
	moves = text ? json_loads(text, 0, NULL) : NULL;
	if (json_is_array(moves))
		return moves;
	json_decref(moves);
	return json_array();
}

int nova_moves_add(struct nova_store *store, const char *peer, json_t *move, struct nova_error *err)
{
	NOVA_AUTOJSON json_t *moves = read_all(store, peer);
	NOVA_AUTOFREE char *text = NULL;
	char key[128];

	json_array_append(moves, move);
	while (json_array_size(moves) > NOVA_MOVES_KEPT)
		json_array_remove(moves, 0);
	text = json_dumps(moves, JSON_COMPACT);
	if (!text)
		return nova_error_set(err, NOVA_SYSTEM, "out of memory for the record of a migration");
	key_of(peer, key, sizeof(key));
	return nova_store_meta_set(store, key, text, err);
}

json_t *nova_moves_last(struct nova_store *store, const char *peer, const char *uuid, bool own)
{
	NOVA_AUTOJSON json_t *moves = read_all(store, peer);
	size_t count = json_array_size(moves);

	for (size_t i = count; i-- > 0;) {
		json_t *move = json_array_get(moves, i);
		const char *whose = json_string_value(json_object_get(move, "uuid"));

		if (whose && !strcmp(whose, uuid))
			return json_incref(move);
	}
	return own || !count || !json_is_object(json_array_get(moves, count - 1)) ?
		   NULL :
		   json_incref(json_array_get(moves, count - 1));
}
