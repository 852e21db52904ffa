/* SPDX-License-Identifier: Apache-2.0
 *
 * box.c - container specifications: shape, policy, and statistics in the form that all drivers share.
 */
#include "drivers/common/box.h"
#include "drivers/common/roots.h"
#include "engine/cleanup.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

static const struct nova_param volume_params[] = {
	{ "source", NOVA_T_PATH, .required = true },
	{ "target", NOVA_T_PATH, .required = true },
	{ "readonly", NOVA_T_BOOL, .fallback = "off" },
	{ NULL },
};

static const struct nova_param *row_of(const struct nova_param *params, const char *name)
{
	for (; params->name; params++)
		if (!strcmp(params->name, name))
			return params;
	return NULL;
}

static int unknown(const struct nova_param *params, const char *what, const char *name, struct nova_error *err)
{
	char names[300] = "";
	size_t used = 0;

	for (; params->name && used < sizeof(names); params++)
		used += (size_t)snprintf(names + used, sizeof(names) - used, "%s%s", used ? ", " : "", params->name);
	return nova_error_set(err, NOVA_INVALID, "unknown option %.60s of %s: there are %s", name, what, names);
}

/* Types and ranges of an object's members; defaults are filled in. */
static int check_members(const struct nova_param *params, const char *what, json_t *object, struct nova_error *err)
{
	const char *name;
	json_t *value;

	json_object_foreach (object, name, value) {
		const struct nova_param *row = row_of(params, name);

		if (!row)
			return unknown(params, what, name, err);
		if (nova_param_check(row, value, err) < 0)
			return nova_error_prefix(err, "%s", what);
	}
	for (; params->name; params++) {
		if (json_object_get(object, params->name))
			continue;
		if (params->required)
			return nova_error_set(err, NOVA_INVALID, "%s: %s is missing", what, params->name);
		if (params->fallback)
			json_object_set_new(object, params->name, nova_param_parse(params, params->fallback, err));
	}
	return 0;
}

/* ---- volumes ---- */

static json_t *volume_of_text(const char *text, struct nova_error *err)
{
	NOVA_AUTOFREE char *copy = strdup(text);
	NOVA_AUTOJSON json_t *object = json_object();
	char *rest = copy, *word;

	while (copy && (word = strsep(&rest, ","))) {
		char *equals = strchr(word, '=');
		const struct nova_param *row;
		json_t *value;

		if (!equals) {
			nova_error_set(err, NOVA_INVALID, "volume: '%.80s' is not of the form name=value", word);
			return NULL;
		}
		*equals = 0;
		row = row_of(volume_params, word);
		if (!row) {
			unknown(volume_params, "a volume", word, err);
			return NULL;
		}
		value = nova_param_parse(row, equals + 1, err);
		if (!value)
			return NULL;
		json_object_set_new(object, word, value);
	}
	return nova_take(&object);
}

static int check_target(const char *target, struct nova_error *err)
{
	if (target[0] == '/' && target[1] && !strstr(target, "/../") && !strstr(target, "//") &&
	    (strlen(target) < 3 || strcmp(target + strlen(target) - 3, "/..")) && !strpbrk(target, " \t\n\\"))
		return 0;
	return nova_error_set(err, NOVA_INVALID,
	    "volume: target '%.120s' is no place inside: an absolute path other than /, without .. and spaces", target);
}

static int check_volume(json_t *volume, const json_t *roots, struct nova_error *err)
{
	const char *source;

	if (check_members(volume_params, "volume", volume, err) < 0 ||
	    check_target(json_string_value(json_object_get(volume, "target")), err) < 0)
		return -1;
	source = json_string_value(json_object_get(volume, "source"));
	if (strpbrk(source, " \t\n\\"))
		return nova_error_set(err, NOVA_INVALID, "volume: source '%.120s' has a space or backslash", source);
	return roots_need(roots, "volume", source, 0, err);
}

/* New list of objects. */
static json_t *volumes(const json_t *list, const json_t *roots, struct nova_error *err)
{
	NOVA_AUTOJSON json_t *result = json_array();
	json_t *item;
	size_t i;

	json_array_foreach ((json_t *)list, i, item) {
		json_t *volume = json_is_string(item) ? volume_of_text(json_string_value(item), err) : json_deep_copy(item);

		if (volume && !json_is_object(volume))
			nova_error_set(err, NOVA_INVALID, "volume: neither a text nor an object");
		if (!json_is_object(volume) || check_volume(volume, roots, err) < 0) {
			json_decref(volume);
			return NULL;
		}
		json_array_append_new(result, volume);
	}
	return nova_take(&result);
}

/* ---- texts ---- */

/* No text with control characters goes to a runtime: some keep them in files of lines. */
static int check_text(const char *what, const char *text, struct nova_error *err)
{
	for (const char *at = text; *at; at++)
		if (iscntrl((unsigned char)*at) && *at != '\t' && *at != '\n')
			return nova_error_set(err, NOVA_INVALID, "%s: there is a control character in it", what);
	return 0;
}

static int check_name_value(const char *what, const char *text, struct nova_error *err)
{
	const char *equals = strchr(text, '=');

	if (!equals || equals == text)
		return nova_error_set(err, NOVA_INVALID, "%s: '%.80s' is not NAME=VALUE", what, text);
	for (const char *at = text; at < equals; at++)
		if (isspace((unsigned char)*at))
			return nova_error_set(err, NOVA_INVALID, "%s: '%.80s' has a space in its name", what, text);
	if (!strcmp(what, "label") && !strncmp(text, "novacron.", 9))
		return nova_error_set(err, NOVA_INVALID, "label: names that begin with novacron. are our own");
	return 0;
}

static int check_list(const char *what, const json_t *list, bool name_value, struct nova_error *err)
{
	json_t *item;
	size_t i;

	if (json_array_size(list) > BOX_LIST_MAX)
		return nova_error_set(err, NOVA_INVALID, "%zu of %s: at most %d", json_array_size(list), what, BOX_LIST_MAX);
	json_array_foreach ((json_t *)list, i, item) {
		const char *text = json_string_value(item);

		if (json_is_object(item))
			continue; /* a volume */
		if (!text)
			return nova_error_set(err, NOVA_INVALID, "%s: a list of texts", what);
		if (check_text(what, text, err) < 0 || (name_value && check_name_value(what, text, err) < 0))
			return -1;
	}
	return 0;
}

/* ---- policy ---- */

/* A working directory in /proc may be a descriptor of the runtime's that leads to the host. */
static int check_workdir(const char *workdir, struct nova_error *err)
{
	if (!workdir || (*workdir == '/' && strncmp(workdir, "/proc", 5) && !strstr(workdir, "..") && !strstr(workdir, "//")))
		return 0;
	return nova_error_set(err, NOVA_INVALID, "workdir '%.120s': an absolute path outside of /proc, without .. and //", workdir);
}

static int check_network(const char *network, const json_t *allowed, struct nova_error *err)
{
	char names[256] = "none";
	size_t used = 4, i;
	json_t *item;

	if (!strcmp(network, "none"))
		return 0;
	json_array_foreach ((json_t *)allowed, i, item) {
		if (!strcmp(json_string_value(item), network))
			return 0;
		if (used < sizeof(names))
			used += (size_t)snprintf(names + used, sizeof(names) - used, ", %s", json_string_value(item));
	}
	return nova_error_set(err, NOVA_INVALID, "network '%.60s' is not allowed on this host: there are %s (see networks in the configuration)",
	    network, names);
}

json_t *box_complete(const json_t *spec, const struct box_limits *limits, struct nova_error *err)
{
	static const struct {
		const char *name;
		bool name_value;
	} lists[] = { { "command", false }, { "env", true }, { "label", true }, { "volume", false } };
	static const char *const texts[] = { "image", "rootfs", "user", "workdir", "hostname" };
	NOVA_AUTOJSON json_t *result = json_deep_copy(spec);
	json_t *list = json_object_get(result, "volume");
	char what[40];

	snprintf(what, sizeof(what), "a %s guest", limits->driver);
	if (!json_is_object(result)) {
		nova_error_set(err, NOVA_INVALID, "a specification is a JSON object");
		return NULL;
	}
	/* A list of objects is ours already: its rows are checked below. */
	if (list && (!json_is_array(list) || check_list("volume", list, false, err) < 0)) {
		if (!json_is_array(list))
			nova_error_set(err, NOVA_INVALID, "volume: a list");
		return NULL;
	}
	list = list ? volumes(list, limits->roots, err) : json_array();
	if (!list)
		return NULL;
	json_object_del(result, "volume");
	if (check_members(limits->params, what, result, err) < 0) {
		json_decref(list);
		return NULL;
	}
	if (json_array_size(list))
		json_object_set(result, "volume", list);
	json_decref(list);
	for (size_t i = 0; i < sizeof(lists) / sizeof(*lists); i++)
		if (check_list(lists[i].name, json_object_get(result, lists[i].name), lists[i].name_value, err) < 0)
			return NULL;
	for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++)
		if (check_text(texts[i], json_string_value(json_object_get(result, texts[i])) ?: "", err) < 0)
			return NULL;
	if (check_workdir(json_string_value(json_object_get(result, "workdir")), err) < 0)
		return NULL;
	if (check_network(json_string_value(json_object_get(result, "network")) ?: "none", limits->networks, err) < 0)
		return NULL;
	return nova_take(&result);
}

json_t *box_needs(const json_t *spec)
{
	return json_pack("{s:I,s:I,s:i}", "memory_bytes", json_integer_value(json_object_get(spec, "memory")), "vcpus",
	    json_integer_value(json_object_get(spec, "vcpus")), "disk_bytes", 0);
}

/* ---- figures ---- */

void box_figures_init(struct box_figures *figures)
{
	*figures = (struct box_figures){
		.user_ns = -1, .system_ns = -1, .total_ns = -1, .used_bytes = -1, .rss_bytes = -1, .cache_bytes = -1,
		.limit_bytes = -1, .processes = -1, .throttled_ns = -1,
	};
}

struct box_disk *box_figures_disk(struct box_figures *figures, const char *name)
{
	for (size_t i = 0; i < figures->disks; i++)
		if (!strcmp(figures->disk[i].name, name))
			return &figures->disk[i];
	if (figures->disks == sizeof(figures->disk) / sizeof(*figures->disk))
		return NULL;
	snprintf(figures->disk[figures->disks].name, sizeof(figures->disk->name), "%s", name);
	return &figures->disk[figures->disks++];
}

static void put(json_t *into, const char *name, int64_t value, int64_t unit)
{
	if (value >= 0)
		json_object_set_new(into, name, json_integer(value / unit));
}

static json_t *disks_of(const struct box_figures *figures)
{
	json_t *list = json_array();

	for (size_t i = 0; i < figures->disks; i++) {
		const struct box_disk *disk = &figures->disk[i];

		json_array_append_new(list,
		    json_pack("{s:s,s:I,s:I,s:I,s:I}", "name", disk->name, "read_bytes", (json_int_t)disk->read_bytes,
			"written_bytes", (json_int_t)disk->written_bytes, "read_operations",
			(json_int_t)disk->read_operations, "write_operations", (json_int_t)disk->write_operations));
	}
	return list;
}

json_t *box_stats(const struct nova_guest *guest, const struct box_figures *figures)
{
	json_t *cpu = json_pack("{s:O?}", "vcpus", json_object_get(guest->spec, "vcpus"));
	json_t *memory = json_pack("{s:O?}", "bytes", json_object_get(guest->spec, "memory"));
	json_t *stats = json_pack("{s:s}", "state", nova_guest_state_name(guest->state));

	if (figures->pid)
		json_object_set_new(stats, "pid", json_integer(figures->pid));
	put(cpu, "time_ms", figures->total_ns, 1000000);
	put(cpu, "user_ms", figures->user_ns, 1000000);
	put(cpu, "system_ms", figures->system_ns, 1000000);
	put(cpu, "threads", figures->processes, 1);
	put(cpu, "throttled_ms", figures->throttled_ns, 1000000);
	put(memory, "rss_bytes", figures->rss_bytes, 1);
	put(memory, "used_bytes", figures->used_bytes, 1);
	put(memory, "cache_bytes", figures->cache_bytes, 1);
	json_object_set_new(stats, "cpu", cpu);
	json_object_set_new(stats, "memory", memory);
	json_object_set_new(stats, "disks", disks_of(figures));
	return stats;
}

/* ---- what a driver can do ---- */

json_t *box_verbs(const struct nova_driver *driver, const char *no_move, const char *no_checkpoint)
{
	json_t *verbs = json_object();

	for (int verb = 0; verb < NOVA_VERBS; verb++) {
		const char *name = nova_verb_name(verb);
		bool moves = verb >= NOVA_VERB_OUT_PREPARE && verb <= NOVA_VERB_IN_PREPARE;
		bool checkpoints = verb == NOVA_VERB_SNAPSHOT || verb == NOVA_VERB_RESTORE;

		if (checkpoints && no_checkpoint)
			json_object_set_new(verbs, name, json_string(no_checkpoint));
		else if (driver->verb[verb])
			json_object_set_new(verbs, name, json_true());
		else
			json_object_set_new(verbs, name,
			    moves ? json_string(no_move) : json_sprintf("not supported by %s", driver->name));
	}
	return verbs;
}

void box_moves(json_t *facts, const char *no_warm, const char *no_live)
{
	json_object_set_new(facts, "move-cold", json_string("yes"));
	json_object_set_new(facts, "move-warm", json_string(no_warm ? no_warm : "yes, where CRIU works and the peer has accept-checkpoints = on"));
	json_object_set_new(facts, "move-live", json_string(no_live ? no_live : "yes"));
}
