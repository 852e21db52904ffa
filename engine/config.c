/* SPDX-License-Identifier: Apache-2.0
 *
 * config.c - the daemon's configuration: one table of options, set from text (command line) or a file of
 * "name = value" lines with "[peer NAME]" and "[owner NAME]" sections. Values are JSON; defaults come from the table.
 */
#include "cleanup.h"
#include "client.h"
#include "novacron.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct nova_config {
	json_t *values; /* owned: what was set */
	json_t *all;    /* owned: with defaults; NULL: to be made */
};

#define SIZE_MAX_BYTES INT64_MAX
#define NAME_LONGEST 32 /* bytes of an option's name */

static const struct nova_param params[] = {
	{ "name", NOVA_T_STRING, .metavar = "NAME", .help = "name of this host; default: its host name" },
	{ "state-dir", NOVA_T_PATH, .fallback = "/var/lib/novacron", .metavar = "DIR", .help = "journal, inventory, audit log" },
	{ "runtime-dir", NOVA_T_PATH, .fallback = "/run/novacron", .metavar = "DIR", .help = "sockets" },
	{ "control-socket", NOVA_T_PATH, .metavar = "PATH", .help = "control socket; default: control.sock in runtime-dir" },
	{ "control-group", NOVA_T_STRING, .metavar = "GROUP", .help = "group that may connect to the control socket" },
	{ "listen", NOVA_T_LIST, .metavar = "HOST:PORT", .help = "where peers reach this host; none: it only dials" },
	{ "cert", NOVA_T_PATH, .metavar = "FILE", .help = "certificate of this host (PEM)" },
	{ "key", NOVA_T_PATH, .metavar = "FILE", .help = "its key (PEM)" },
	{ "ca", NOVA_T_PATH, .metavar = "FILE", .help = "certificates that peers' must be signed by (PEM)" },
	{ "peer", NOVA_T_LIST, .metavar = "NAME=HOST:PORT", .help = "a peer; in the file: [peer NAME] with address and certificate-name" },
	{ "roots", NOVA_T_LIST, .metavar = "DIR", .help = "disks, kernels and images must lie below one of these; default: images in state-dir" },
	{ "owner", NOVA_T_LIST, .metavar = "NAME:LIMIT=VALUE", .help = "a limit of one owner's guests; in the file: [owner NAME] with max-guests, max-memory, max-vcpus, max-disk, max-migrations; NAME *: every owner without a section" },
	{ "bandwidth", NOVA_T_RATE, .min = 0, .max = INT64_MAX, .fallback = "0", .metavar = "RATE", .help = "cap of all migrations together; 0: none" },
	{ "resume-limit", NOVA_T_DURATION, .min = 0, .max = 86400000, .fallback = "5min", .metavar = "TIME", .help = "how long a lost connection is redialled" },
	{ "max-guests", NOVA_T_INT, .min = 0, .max = 1000000, .fallback = "256", .metavar = "N", .help = "guests on this host; 0: no limit" },
	{ "max-memory", NOVA_T_BYTES, .min = 0, .max = SIZE_MAX_BYTES, .fallback = "0", .metavar = "SIZE", .help = "memory of all guests together; 0: what the host has" },
	{ "max-vcpus", NOVA_T_INT, .min = 0, .max = 1000000, .fallback = "0", .metavar = "N", .help = "vCPUs of all guests together; 0: no limit" },
	{ "max-disk", NOVA_T_BYTES, .min = 0, .max = SIZE_MAX_BYTES, .fallback = "0", .metavar = "SIZE", .help = "disk of all guests together; 0: no limit" },
	{ "max-incoming", NOVA_T_INT, .min = 0, .max = 10000, .fallback = "4", .metavar = "N", .help = "incoming migrations at a time; 0: no limit" },
	{ "max-outgoing", NOVA_T_INT, .min = 0, .max = 10000, .fallback = "4", .metavar = "N", .help = "outgoing migrations at a time; 0: no limit" },
	{ "baseline-bytes", NOVA_T_BYTES, .min = 0, .max = SIZE_MAX_BYTES, .fallback = "4GiB", .metavar = "SIZE", .help = "disk, below state-dir, for memory of guests that were here, so that they come back with few bytes; 0: none" },
	{ "baseline-guest-bytes", NOVA_T_BYTES, .min = 0, .max = SIZE_MAX_BYTES, .fallback = "0", .metavar = "SIZE", .help = "of it at most, for one guest; 0: no limit of its own" },
	{ "baseline-share", NOVA_T_CHOICE, .choices = "none|owner", .fallback = "none", .metavar = "WHOM", .help = "owner: a baseline serves another guest of the same owner and image, too" },
	{ "qemu", NOVA_T_PATH, .fallback = "qemu-system-x86_64", .metavar = "PROGRAM", .help = "QEMU" },
	{ "qemu-img", NOVA_T_PATH, .fallback = "qemu-img", .metavar = "PROGRAM", .help = "qemu-img" },
	{ "qemu-user", NOVA_T_STRING, .metavar = "USER", .help = "user that QEMU runs as; default: the daemon's" },
	{ "accel", NOVA_T_CHOICE, .choices = "auto|kvm|tcg", .fallback = "auto", .metavar = "ACCEL", .help = "accelerator; auto: KVM where it works" },
	{ "machines", NOVA_T_LIST, .metavar = "TYPE", .help = "machine types that are allowed; none: all that QEMU has" },
	{ "cpu-models", NOVA_T_LIST, .metavar = "MODEL", .help = "CPU models that are allowed; none: all that QEMU has" },
	{ "sandbox", NOVA_T_BOOL, .fallback = "yes", .metavar = "BOOL", .help = "run QEMU with -sandbox on" },
	{ "docker-socket", NOVA_T_PATH, .fallback = "/var/run/docker.sock", .metavar = "PATH", .help = "socket of the Docker engine" },
	{ "containerd-socket", NOVA_T_PATH, .fallback = "/run/containerd/containerd.sock", .metavar = "PATH", .help = "socket of containerd, for its own containers and Kata's" },
	{ "containerd-namespace", NOVA_T_STRING, .fallback = "novacron", .metavar = "NAME", .help = "containerd's namespace for our containers and images" },
	{ "containerd-snapshotter", NOVA_T_STRING, .fallback = "overlayfs", .metavar = "NAME", .help = "containerd's snapshotter for their root file systems: overlayfs, native ..." },
	{ "lxc-path", NOVA_T_PATH, .metavar = "DIR", .help = "where LXC's containers are (lxcpath); default: lxc in state-dir" },
	{ "networks", NOVA_T_LIST, .metavar = "NAME", .help = "networks that containers may use beside none: bridge, host or a network of the runtime" },
	{ "sandbox-decoder", NOVA_T_CHOICE, .choices = "off|on", .fallback = "off", .metavar = "SWITCH", .help = "decode incoming migrations in a process of its own that may do nothing else" },
	{ "accept-checkpoints", NOVA_T_CHOICE, .choices = "off|on", .fallback = "off", .metavar = "SWITCH", .help = "take containers with their processes (migrate --mode warm) from peers: CRIU restores what their checkpoints say, as root" },
	{ "admins", NOVA_T_LIST, .metavar = "WHO", .help = "uid:NAME, gid:NAME or cert:NAME with every right; root always is" },
	{ "operators", NOVA_T_LIST, .metavar = "WHO", .help = "those who may change their own guests" },
	{ "viewers", NOVA_T_LIST, .metavar = "WHO", .help = "those who may look at their own guests" },
	{ "fence-hook", NOVA_T_PATH, .metavar = "PROGRAM", .help = "makes sure that the other side cannot run a guest in doubt before novacron resolve lets one side have it: GUEST JOB PEER source|destination; a status other than 0 forbids it" },
	{ "fault-hook", NOVA_T_PATH, .metavar = "PROGRAM", .help = "for tests: runs, and is waited for, before each row of a job, or of a point of a replica, with ID KIND SIDE STEP run|undo; a status other than 0 fails the row" },
	{ "fault-limit", NOVA_T_DURATION, .fallback = "0", .min = 0, .max = 3600000, .metavar = "TIME", .help = "for tests: no such row may wait longer than this; 0: as long as it needs" },
	{ "log-level", NOVA_T_CHOICE, .choices = "error|warning|info|debug", .fallback = "info", .metavar = "LEVEL", .help = "least important lines that are logged" },
};

#define PARAMS (sizeof(params) / sizeof(*params))

/* What [owner NAME] may hold. */
static const struct nova_param owner_params[] = {
	{ "max-guests", NOVA_T_INT, .min = 0, .max = 1000000 },
	{ "max-memory", NOVA_T_BYTES, .min = 0, .max = SIZE_MAX_BYTES },
	{ "max-vcpus", NOVA_T_INT, .min = 0, .max = 1000000 },
	{ "max-disk", NOVA_T_BYTES, .min = 0, .max = SIZE_MAX_BYTES },
	{ "max-migrations", NOVA_T_INT, .min = 0, .max = 10000 },
};

const struct nova_param *nova_config_params(size_t *count)
{
	*count = PARAMS;
	return params;
}

/* Edits that turn one word into the other: letters put in, left out or replaced. */
static unsigned distance(const char *a, const char *b)
{
	unsigned row[NAME_LONGEST + 1], above, corner;
	size_t length = strlen(b);

	for (size_t j = 0; j <= length; j++)
		row[j] = (unsigned)j;
	for (size_t i = 1; *a; a++, i++) {
		corner = row[0];
		row[0] = (unsigned)i;
		for (size_t j = 1; j <= length; j++) {
			above = row[j];
			row[j] = *a == b[j - 1] ? corner : 1 + corner;
			if (above + 1 < row[j])
				row[j] = above + 1;
			if (row[j - 1] + 1 < row[j])
				row[j] = row[j - 1] + 1;
			corner = above;
		}
	}
	return row[length];
}

/* NULL if none is near enough to be a slip: two edits, or three in a long name. */
static const char *nearest_option(const char *name)
{
	const char *nearest = NULL;
	unsigned least = strlen(name) > 8 ? 4 : 3;

	for (size_t i = 0; i < PARAMS && strlen(name) <= NAME_LONGEST; i++) {
		unsigned edits = distance(name, params[i].name);

		if (edits < least && edits < strlen(name)) {
			least = edits;
			nearest = params[i].name;
		}
	}
	return nearest;
}

static const struct nova_param *find(const char *name, struct nova_error *err)
{
	const char *nearest;

	for (size_t i = 0; i < PARAMS; i++)
		if (!strcmp(params[i].name, name))
			return &params[i];
	nearest = nearest_option(name);
	if (nearest)
		nova_error_set(err, NOVA_INVALID, "there is no option '%.60s': did you mean %s?", name, nearest);
	else
		nova_error_set(err, NOVA_INVALID, "there is no option '%.60s': see novacrond --help", name);
	return NULL;
}

struct nova_config *nova_config_new(void)
{
	struct nova_config *config = calloc(1, sizeof(*config));

	if (config)
		config->values = json_pack("{s:{}, s:{}}", "peers", "owners");
	return config;
}

struct nova_config *nova_config_free(struct nova_config *config)
{
	if (!config)
		return NULL;
	json_decref(config->values);
	json_decref(config->all);
	free(config);
	return NULL;
}

static void changed(struct nova_config *config)
{
	json_decref(config->all);
	config->all = NULL;
}

/* ---- peers ---- */

static json_t *peer_of(struct nova_config *config, const char *name)
{
	json_t *peers = json_object_get(config->values, "peers"), *peer = json_object_get(peers, name);

	if (peer)
		return peer;
	peer = json_pack("{s:[], s:s}", "address", "certificate-name", name);
	json_object_set_new(peers, name, peer);
	return peer;
}

/* "a:1, b:2": commas and spaces separate. */
static int add_addresses(json_t *peer, char *text, struct nova_error *err)
{
	json_t *list = json_object_get(peer, "address");
	char *rest = NULL;

	for (char *address = strtok_r(text, ", \t", &rest); address; address = strtok_r(NULL, ", \t", &rest))
		if (json_array_append_new(list, json_string(address)) < 0)
			return nova_error_set(err, NOVA_INVALID, "peer: an address is not text in UTF-8");
	if (json_array_size(list) == 0)
		return nova_error_set(err, NOVA_INVALID, "peer: there is no address: try HOST:PORT[,HOST:PORT]");
	return 0;
}

static int check_peer_name(const char *name, struct nova_error *err)
{
	size_t length = strlen(name);

	for (size_t i = 0; i < length; i++)
		if (!isalnum((unsigned char)name[i]) && !strchr("-_.", name[i]))
			length = 0;
	if (length >= 1 && length <= 63)
		return 0;
	return nova_error_set(err, NOVA_INVALID, "peer: '%.80s' is not a name: 1 to 63 of A-Z a-z 0-9 - _ .", name);
}

static int set_peer(struct nova_config *config, const char *text, struct nova_error *err)
{
	NOVA_AUTOFREE char *copy = strdup(text);
	char *equals = copy ? strchr(copy, '=') : NULL;

	if (!equals)
		return nova_error_set(err, NOVA_INVALID, "peer: '%.80s' is not NAME=HOST:PORT[,HOST:PORT]", text);
	*equals = 0;
	if (check_peer_name(copy, err) < 0)
		return -1;
	changed(config);
	return add_addresses(peer_of(config, copy), equals + 1, err);
}

static int set_peer_option(struct nova_config *config, const char *peer, const char *name, char *value,
    struct nova_error *err)
{
	changed(config);
	if (!strcmp(name, "address"))
		return add_addresses(peer_of(config, peer), value, err);
	if (strcmp(name, "certificate-name"))
		return nova_error_set(err, NOVA_INVALID, "[peer %s] has no option '%.60s': address and certificate-name are known",
		    peer, name);
	if (!value[0] || json_object_set_new(peer_of(config, peer), name, json_string(value)) < 0)
		return nova_error_set(err, NOVA_INVALID, "certificate-name: must be a name in UTF-8");
	return 0;
}

/* ---- owners ---- */

static int check_owner_name(const char *name, struct nova_error *err)
{
	size_t length = strlen(name);

	for (size_t i = 0; i < length; i++)
		if (!isgraph((unsigned char)name[i]) || strchr("[]=:", name[i]))
			length = 0;
	if (length >= 1 && length <= 63)
		return 0;
	return nova_error_set(err, NOVA_INVALID, "owner: '%.80s' is not a name: 1 to 63 letters without [ ] = :", name);
}

static json_t *owner_of(struct nova_config *config, const char *name)
{
	json_t *owners = json_object_get(config->values, "owners");

	if (!json_object_get(owners, name))
		json_object_set_new(owners, name, json_object());
	return json_object_get(owners, name);
}

static int set_owner_option(struct nova_config *config, const char *owner, const char *name, char *value,
    struct nova_error *err)
{
	changed(config);
	for (size_t i = 0; i < sizeof(owner_params) / sizeof(*owner_params); i++)
		if (!strcmp(owner_params[i].name, name)) {
			json_t *limit = nova_param_parse(&owner_params[i], value, err);

			return limit ? json_object_set_new(owner_of(config, owner), name, limit) : -1;
		}
	return nova_error_set(err, NOVA_INVALID,
	    "[owner %s] has no option '%.60s': max-guests, max-memory, max-vcpus, max-disk and max-migrations are known",
	    owner, name);
}

/* NAME:LIMIT=VALUE */
static int set_owner(struct nova_config *config, const char *text, struct nova_error *err)
{
	NOVA_AUTOFREE char *copy = strdup(text);
	char *colon = copy ? strchr(copy, ':') : NULL;
	char *equals = colon ? strchr(colon, '=') : NULL;

	if (!equals)
		return nova_error_set(err, NOVA_INVALID, "owner: '%.80s' is not NAME:LIMIT=VALUE", text);
	if (memchr(copy, '=', (size_t)(colon - copy)))
		return nova_error_set(err, NOVA_INVALID, "owner: '%.80s' is not NAME:LIMIT=VALUE", text);
	*colon = *equals = 0;
	if (check_owner_name(copy, err) < 0)
		return -1;
	return set_owner_option(config, copy, colon + 1, equals + 1, err);
}

/* ---- options ---- */

/* Values are JSON, whose texts are UTF-8. */
static int check_utf8(const char *text, struct nova_error *err)
{
	NOVA_AUTOJSON json_t *value = json_string(text);

	return value ? 0 : nova_error_set(err, NOVA_INVALID, "'%.60s' is not UTF-8", text);
}

int nova_config_set(struct nova_config *config, const char *name, const char *text, struct nova_error *err)
{
	const struct nova_param *param = find(name, err);
	json_t *value;

	if (!param || check_utf8(text, err) < 0)
		return -1;
	if (!strcmp(name, "peer"))
		return set_peer(config, text, err);
	if (!strcmp(name, "owner"))
		return set_owner(config, text, err);
	value = nova_param_parse(param, text, err);
	if (!value)
		return -1;
	if (param->type == NOVA_T_LIST && json_object_get(config->values, name)) {
		json_array_extend(json_object_get(config->values, name), value);
		json_decref(value);
	} else
		json_object_set_new(config->values, name, value);
	changed(config);
	return 0;
}

static void fill_defaults(json_t *all)
{
	char host[256] = "localhost", images[4096];

	for (size_t i = 0; i < PARAMS; i++)
		if (params[i].fallback && !json_object_get(all, params[i].name))
			json_object_set_new(all, params[i].name, nova_param_parse(&params[i], params[i].fallback, NULL));
	gethostname(host, sizeof(host) - 1);
	if (!json_object_get(all, "name"))
		json_object_set_new(all, "name", json_string(host));
	snprintf(images, sizeof(images), "%s/images", json_string_value(json_object_get(all, "state-dir")));
	if (!json_object_get(all, "roots"))
		json_object_set_new(all, "roots", json_pack("[s]", images));
}

const json_t *nova_config_get(const struct nova_config *config, const char *name)
{
	struct nova_config *cache = (struct nova_config *)config; /* defaults are filled in when asked for */

	if (!cache->all) {
		cache->all = json_copy(cache->values);
		fill_defaults(cache->all);
	}
	return json_object_get(cache->all, name);
}

/* ---- clients ---- */

static int set_daemon(struct nova_config *client, const struct nova_config *config, const char *host, struct nova_error *err)
{
	json_t *known = json_object_get(json_object_get(config->values, "peers"), host);
	const char *equals = strchr(host, '='), *port = strrchr(host, ':');
	NOVA_AUTOFREE char *name = equals ? strndup(host, (size_t)(equals - host)) :
	    port && host[0] == '['	  ? strndup(host + 1, strcspn(host + 1, "]")) :
	    port			  ? strndup(host, (size_t)(port - host)) :
					    NULL;
	NOVA_AUTOFREE char *addresses = strdup(equals ? equals + 1 : host);

	if (known)
		return json_object_set(json_object_get(client->values, "peers"), NOVA_CLIENT_PEER, known);
	if (!name || !name[0])
		return nova_error_set(err, NOVA_INVALID,
		    "host '%.80s' is neither a [peer] of the client's configuration nor HOST:PORT or NAME=HOST:PORT", host);
	if (add_addresses(peer_of(client, NOVA_CLIENT_PEER), addresses, err) < 0)
		return -1;
	return json_object_set_new(peer_of(client, NOVA_CLIENT_PEER), "certificate-name", json_string(name));
}

struct nova_config *nova_config_for_client(const struct nova_config *config, const char *host, struct nova_error *err)
{
	static const char *const files[] = { "cert", "key", "ca" };
	struct nova_config *client = nova_config_new();

	for (size_t i = 0; i < sizeof(files) / sizeof(*files); i++) {
		json_t *file = json_object_get(config->values, files[i]);

		if (!file) {
			nova_error_set(err, NOVA_INVALID,
			    "daemons of other hosts are reached over mutual TLS: %s is not set (--%s, or the client's configuration)",
			    files[i], files[i]);
			return nova_config_free(client);
		}
		json_object_set(client->values, files[i], file);
	}
	return set_daemon(client, config, host, err) < 0 ? nova_config_free(client) : client;
}

/* ---- files ---- */

static char *trim(char *text)
{
	char *end;

	while (isspace((unsigned char)*text))
		text++;
	end = text + strlen(text);
	while (end > text && isspace((unsigned char)end[-1]))
		*--end = 0;
	return text;
}

/* A # ends the line where a comment can begin: at the start, or after white space (a file name may hold one). */
static void cut_comment(char *line)
{
	for (char *at = line; *at; at++)
		if (*at == '#' && (at == line || isspace((unsigned char)at[-1])))
			*at = 0;
}

/* Where the lines of a file belong. */
struct section {
	enum { TOP, PEER, OWNER } kind;
	char name[64];
};

/* "[peer NAME]" or "[owner NAME]" */
static int read_section(struct nova_config *config, char *line, struct section *section, struct nova_error *err)
{
	char *end = strchr(line, ']'), *name;
	bool peer = !strncmp(line, "[peer ", 6), owner = !strncmp(line, "[owner ", 7);

	if (!end || end[1] || (!peer && !owner))
		return nova_error_set(
		    err, NOVA_INVALID, "'%.60s' is not a section: [peer NAME] and [owner NAME] are known", line);
	*end = 0;
	name = trim(strchr(line, ' '));
	if ((peer ? check_peer_name(name, err) : check_owner_name(name, err)) < 0)
		return -1;
	section->kind = peer ? PEER : OWNER;
	snprintf(section->name, sizeof(section->name), "%s", name);
	if (peer)
		peer_of(config, name);
	else
		owner_of(config, name);
	changed(config);
	return 0;
}

static int read_line(struct nova_config *config, char *line, struct section *section, struct nova_error *err)
{
	char *equals, *name, *value;

	cut_comment(line);
	line = trim(line);
	if (!*line || *line == ';')
		return 0;
	if (*line == '[')
		return check_utf8(line, err) < 0 ? -1 : read_section(config, line, section, err);
	equals = strchr(line, '=');
	if (!equals)
		return nova_error_set(err, NOVA_INVALID, "'%.60s' is not name = value", line);
	*equals = 0;
	name = trim(line);
	value = trim(equals + 1);
	if (section->kind == PEER)
		return set_peer_option(config, section->name, name, value, err);
	if (section->kind == OWNER)
		return set_owner_option(config, section->name, name, value, err);
	return nova_config_set(config, name, value, err);
}

int nova_config_load(struct nova_config *config, const char *path, struct nova_error *err)
{
	NOVA_AUTOFREE char *line = NULL;
	FILE *file = fopen(path, "re");
	struct section section = { TOP, "" };
	size_t size = 0;
	int number = 0, result = 0;

	if (!file)
		return nova_error_sys(err, errno, "configuration %s", path);
	while (result == 0 && getline(&line, &size, file) >= 0) {
		number++;
		result = read_line(config, line, &section, err);
	}
	if (result < 0)
		nova_error_prefix(err, "%s:%d", path, number);
	else if (ferror(file))
		result = nova_error_sys(err, errno, "configuration %s", path);
	fclose(file);
	return result;
}
