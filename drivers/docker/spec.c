/* SPDX-License-Identifier: Apache-2.0
 *
 * spec.c - what a Docker guest may be made of; a specification as the body of a create request, and an
 * inspected container as a specification.
 *
 * A container of ours has no privileges beyond the engine's defaults, gains none (no-new-privileges), and is
 * never restarted behind our back.
 */
#include "drivers/docker/docker.h"

#include <stdio.h>
#include <string.h>

const struct nova_param docker_spec_params[] = {
	{ "image", NOVA_T_STRING, .required = true, .metavar = "IMAGE", .help = "image that the engine has" },
	BOX_COMMAND,
	BOX_ENV,
	BOX_VOLUME,
	BOX_NETWORK,
	BOX_LABEL,
	BOX_USER,
	BOX_WORKDIR,
	BOX_HOSTNAME,
	BOX_SHARES,
	BOX_MEMORY,
	BOX_VCPUS,
	{ NULL },
};

/* ---- to the engine ---- */

static json_t *labels_of(const struct nova_guest *guest, const json_t *spec)
{
	json_t *labels = json_object(), *item;
	size_t i;

	json_array_foreach (json_object_get(spec, "label"), i, item) {
		const char *text = json_string_value(item), *equals = strchr(text, '=');
		char name[256];

		snprintf(name, sizeof(name), "%.*s", (int)(equals - text), text);
		json_object_set_new(labels, name, json_string(equals + 1));
	}
	json_object_set_new(labels, "novacron.uuid", json_string(guest->uuid));
	json_object_set_new(labels, "novacron.owner", json_string(guest->owner));
	return labels;
}

static json_t *mounts_of(const json_t *spec)
{
	json_t *mounts = json_array(), *volume;
	size_t i;

	json_array_foreach (json_object_get(spec, "volume"), i, volume)
		json_array_append_new(mounts,
		    json_pack("{s:s,s:O,s:O,s:b}", "Type", "bind", "Source", json_object_get(volume, "source"), "Target",
			json_object_get(volume, "target"), "ReadOnly", json_is_true(json_object_get(volume, "readonly"))));
	return mounts;
}

static json_t *host_config(const json_t *spec)
{
	json_int_t memory = json_integer_value(json_object_get(spec, "memory"));
	json_int_t vcpus = json_integer_value(json_object_get(spec, "vcpus"));

	return json_pack("{s:O,s:o,s:O,s:I,s:I,s:I,s:{s:s},s:[s]}", "NetworkMode", json_object_get(spec, "network"), "Mounts",
	    mounts_of(spec), "CpuShares", json_object_get(spec, "cpu-shares"), "Memory", memory, "MemorySwap", memory,
	    "NanoCpus", vcpus * 1000000000, "RestartPolicy", "Name", "no", "SecurityOpt", "no-new-privileges");
}

json_t *docker_create_body(const struct nova_guest *guest, const json_t *spec)
{
	static const char *const members[][2] = {
		{ "Image", "image" }, { "Cmd", "command" }, { "Env", "env" }, { "User", "user" },
		{ "WorkingDir", "workdir" }, { "Hostname", "hostname" },
	};
	json_t *body = json_pack("{s:o,s:o}", "Labels", labels_of(guest, spec), "HostConfig", host_config(spec));

	for (size_t i = 0; i < sizeof(members) / sizeof(*members); i++)
		if (json_object_get(spec, members[i][1]))
			json_object_set(body, members[i][0], json_object_get(spec, members[i][1]));
	return body;
}

/* ---- from the engine ---- */

static json_t *volumes_of(const json_t *inspected, json_t *unknown)
{
	json_t *list = json_array(), *mount;
	size_t i;

	json_array_foreach (json_object_get(inspected, "Mounts"), i, mount) {
		const char *type = task_text(mount, "Type") ?: "";

		if (!strcmp(type, "bind"))
			json_array_append_new(list,
			    json_pack("{s:O,s:O,s:b}", "source", json_object_get(mount, "Source"), "target",
				json_object_get(mount, "Destination"), "readonly",
				!json_is_true(json_object_get(mount, "RW"))));
		else
			json_array_append_new(unknown,
			    json_sprintf("a %s mounted at %s", type, task_text(mount, "Destination") ?: "?"));
	}
	return list;
}

static json_t *labels_back(const json_t *config)
{
	json_t *list = json_array(), *value;
	const char *name;

	json_object_foreach (json_object_get(config, "Labels"), name, value)
		if (strncmp(name, "novacron.", 9))
			json_array_append_new(list, json_sprintf("%s=%s", name, json_string_value(value) ?: ""));
	return list;
}

/* What our own containers never have. */
static void beyond(const json_t *host, json_t *unknown)
{
	static const char *const members[] = { "Privileged", "CapAdd", "CapDrop", "Devices", "PortBindings", "VolumesFrom",
		"Links", "ExtraHosts", "PidMode", "UsernsMode", "CgroupParent", "Sysctls", "Tmpfs", "DeviceRequests" };

	for (size_t i = 0; i < sizeof(members) / sizeof(*members); i++) {
		const json_t *value = json_object_get(host, members[i]);

		if (json_is_true(value) || json_array_size(value) || json_object_size(value) || task_text(host, members[i]))
			json_array_append_new(unknown, json_string(members[i]));
	}
}

json_t *docker_spec_of(const json_t *inspected, json_t *unknown)
{
	static const char *const members[][2] = {
		{ "image", "Image" }, { "command", "Cmd" }, { "env", "Env" }, { "user", "User" },
		{ "workdir", "WorkingDir" }, { "hostname", "Hostname" },
	};
	const json_t *config = json_object_get(inspected, "Config"), *host = json_object_get(inspected, "HostConfig");
	json_int_t cpus = (json_integer_value(json_object_get(host, "NanoCpus")) + 999999999) / 1000000000;
	json_int_t shares = json_integer_value(json_object_get(host, "CpuShares"));
	json_t *spec = json_pack("{s:O?,s:I,s:I,s:I}", "network", json_object_get(host, "NetworkMode"), "cpu-shares",
	    shares ? shares : 1024, "vcpus", cpus ? cpus : 1, "memory", json_integer_value(json_object_get(host, "Memory")));

	for (size_t i = 0; i < sizeof(members) / sizeof(*members); i++) {
		json_t *value = json_object_get(config, members[i][1]);

		if (json_array_size(value) || task_text(config, members[i][1]))
			json_object_set(spec, members[i][0], value);
	}
	json_object_set_new(spec, "volume", volumes_of(inspected, unknown));
	json_object_set_new(spec, "label", labels_back(config));
	beyond(host, unknown);
	return spec;
}
