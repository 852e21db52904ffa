/* SPDX-License-Identifier: Apache-2.0
 *
 * settings.c - the transport's share of the configuration.
 */
#include "settings.h"

#include <stdlib.h>
#include <string.h>

#include "address.h"
#include "cleanup.h"

static int check_addresses(const json_t *list, const char *what, struct nova_error *err)
{
	char host[256], port[8];
	size_t i;
	json_t *text;

	if (!json_is_array(list))
		return nova_error_set(err, NOVA_INVALID, "%s: expected a list of HOST:PORT", what);
	json_array_foreach ((json_t *)list, i, text) {
		if (!json_is_string(text))
			return nova_error_set(err, NOVA_INVALID, "%s: expected a list of HOST:PORT", what);
		if (address_split(json_string_value(text), host, port, err) < 0)
			return nova_error_prefix(err, "%s", what);
	}
	return 0;
}

static int read_peer(struct link_settings *settings, const char *name, json_t *value, struct nova_error *err)
{
	struct link_peer *peer = &settings->peers[settings->peer_count];
	json_t *addresses = json_object_get(value, "address"),
	       *certificate = json_object_get(value, "certificate-name");
	char what[300];

	snprintf(what, sizeof(what), "peer %.200s: address", name);
	if (json_is_string(addresses)) {
		addresses = json_pack("[O]", addresses);
		json_object_set_new(value, "address", addresses);
	} else if (!addresses) {
		addresses = json_array();
		json_object_set_new(value, "address", addresses);
	}
	if (certificate && !json_is_string(certificate))
		return nova_error_set(err, NOVA_INVALID, "peer %s: certificate-name is a text", name);
	if (check_addresses(addresses, what, err) < 0)
		return -1;
	*peer = (struct link_peer) { name, certificate ? json_string_value(certificate) : name, addresses };
	settings->peer_count++;
	return 0;
}

static int read_peers(struct link_settings *settings, const json_t *peers, struct nova_error *err)
{
	const char *name;
	json_t *value;

	settings->table = peers ? json_deep_copy(peers) : json_object();
	settings->peers = calloc(json_object_size(settings->table) + 1, sizeof(*settings->peers));
	if (!settings->table || !settings->peers)
		return nova_error_set(err, NOVA_SYSTEM, "no memory for the peers");
	json_object_foreach (settings->table, name, value) {
		if (read_peer(settings, name, value, err) < 0)
			return -1;
	}
	return 0;
}

/* "cert:NAME" in a role: its owner may come as a user. Other kinds are of the control socket. */
static int read_users(struct link_settings *settings, const json_t *values, struct nova_error *err)
{
	static const char *const roles[] = { "admins", "operators", "viewers" };
	size_t most = 0, i;
	json_t *item;

	for (size_t r = 0; r < sizeof(roles) / sizeof(*roles); r++)
		most += json_array_size(json_object_get(values, roles[r]));
	settings->users = calloc(most + 1, sizeof(*settings->users));
	settings->user_names = json_array();
	if (!settings->users || !settings->user_names)
		return nova_error_set(err, NOVA_SYSTEM, "no memory for the users");
	for (size_t r = 0; r < sizeof(roles) / sizeof(*roles); r++)
		json_array_foreach (json_object_get(values, roles[r]), i, item) {
			const char *text = json_string_value(item);

			if (!text || strncmp(text, "cert:", 5) || !text[5])
				continue;
			json_array_append(settings->user_names, item);
			settings->users[settings->user_count++] =
			    (struct link_peer) { .name = text + 5, .certificate = text + 5 };
		}
	return 0;
}

static int read_path(char **path, const json_t *values, const char *name, struct nova_error *err)
{
	const char *text = json_string_value(json_object_get(values, name));

	if (!text)
		return 0;
	*path = strdup(text);
	return *path ? 0 : nova_error_set(err, NOVA_SYSTEM, "no memory for a path");
}

int settings_init(struct link_settings *settings, const json_t *values, struct nova_error *err)
{
	json_t *listen = json_object_get(values, "listen"), *bandwidth = json_object_get(values, "bandwidth");

	*settings =
	    (struct link_settings) { .handshake_ms = 10000, .heartbeat_ms = 1000, .silence_ms = 5000 };
	if (read_path(&settings->cert, values, "cert", err) < 0 ||
	    read_path(&settings->key, values, "key", err) < 0 ||
	    read_path(&settings->ca, values, "ca", err) < 0)
		return -1;
	if (!settings->cert || !settings->key || !settings->ca)
		return nova_error_set(
		    err, NOVA_INVALID, "links between daemons need the options cert, key and ca");
	if (json_is_string(listen))
		settings->listen = json_pack("[O]", listen);
	else if (listen)
		settings->listen = json_deep_copy(listen);
	if (settings->listen && check_addresses(settings->listen, "listen", err) < 0)
		return -1;
	if (json_integer_value(bandwidth) < 0)
		return nova_error_set(
		    err, NOVA_INVALID, "bandwidth is a number of bits a second, 0 for no limit");
	settings->bandwidth_bps = (uint64_t)json_integer_value(bandwidth);
	if (read_users(settings, values, err) < 0)
		return -1;
	return read_peers(settings, json_object_get(values, "peers"), err);
}

void settings_release(struct link_settings *settings)
{
	json_decref(settings->listen);
	json_decref(settings->table);
	free(settings->cert);
	free(settings->key);
	free(settings->ca);
	free(settings->peers);
	free(settings->users);
	json_decref(settings->user_names);
	*settings = (struct link_settings) { 0 };
}

const struct link_peer *settings_peer(const struct link_settings *settings, const char *name)
{
	for (size_t i = 0; i < settings->peer_count; i++) {
		if (strcmp(settings->peers[i].name, name) == 0)
			return &settings->peers[i];
	}
	return NULL;
}
