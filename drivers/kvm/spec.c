/* SPDX-License-Identifier: Apache-2.0
 *
 * spec.c - what a KVM guest may be made of, and completing a specification.
 *
 * A completed specification says everything that QEMU on another host must agree with: the versioned machine
 * type, the CPU model, network addresses, sizes. Completing is idempotent, so the destination of a migration
 * completes the source's again with its own facts and roots and refuses what it cannot keep. Limits: 16
 * disks, 8 networks, 4 serial ports, 8 memory modules.
 */
#include "kvm.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

const struct nova_param kvm_spec_params[] = {
	{ "machine", NOVA_T_STRING, .fallback = "pc", .metavar = "TYPE",
	    .help = "machine type: pc, q35, microvm or a versioned name" },
	{ "cpu", NOVA_T_STRING, .metavar = "MODEL",
	    .help = "CPU model (default: max without KVM, qemu64 with it)" },
	{ "accel", NOVA_T_CHOICE, "auto|kvm|tcg", .fallback = "auto",
	    .help = "hardware virtualization or emulation" },
	{ "memory", NOVA_T_BYTES, .min = KVM_MEMORY_MIN, .max = 1ll << 44, .fallback = "512M",
	    .metavar = "SIZE", .help = "guest memory" },
	{ "max-memory", NOVA_T_BYTES, .min = KVM_MEMORY_MIN, .max = 1ll << 44, .metavar = "SIZE",
	    .help = "most memory after hot-plug (default: memory)" },
	{ "vcpus", NOVA_T_INT, .min = 1, .max = 255, .fallback = "1", .metavar = "COUNT",
	    .help = "virtual CPUs" },
	{ "max-vcpus", NOVA_T_INT, .min = 1, .max = 255, .metavar = "COUNT",
	    .help = "most virtual CPUs after hot-plug (default: vcpus)" },
	{ "kernel", NOVA_T_PATH, .metavar = "FILE", .help = "Linux kernel to boot" },
	{ "initrd", NOVA_T_PATH, .metavar = "FILE", .help = "initial ram disk of the kernel" },
	{ "cmdline", NOVA_T_STRING, .metavar = "TEXT", .help = "command line of the kernel" },
	{ "firmware", NOVA_T_PATH, .metavar = "FILE", .help = "firmware instead of QEMU's own" },
	{ "disk", NOVA_T_LIST, .metavar = "DISK",
	    .help = "path=FILE[,format=qcow2|raw][,size=SIZE][,readonly=on][,cache=MODE][,shared=on]" },
	{ "net", NOVA_T_LIST, .metavar = "NET", .help = "type=user|tap|none[,mac=ADDRESS][,ifname=TAP]" },
	{ "balloon", NOVA_T_BOOL, .help = "memory balloon (default: on but for microvm)" },
	{ "rng", NOVA_T_BOOL, .fallback = "off", .help = "random number device" },
	{ "agent", NOVA_T_BOOL, .fallback = "off", .help = "port for an agent in the guest (qemu-guest-agent): it freezes file systems for points" },
	{ "serial", NOVA_T_INT, .min = 0, .max = KVM_SERIALS_MAX, .metavar = "COUNT",
	    .help = "serial ports on unix sockets (default: 2, microvm 1)" },
	{ "vnc", NOVA_T_CHOICE, "off|socket", .fallback = "off", .help = "screen on a private unix socket" },
	{ "vnc-password-file", NOVA_T_PATH, .metavar = "FILE",
	    .help = "file with the password of the screen" },
	{ "hotplug-ports", NOVA_T_INT, .min = 0, .max = 16, .metavar = "COUNT",
	    .help = "free PCIe ports for hot-plug (q35; default: 4)" },
	{ NULL },
};

static const struct nova_param disk_params[] = {
	{ "path", NOVA_T_PATH, .required = true },
	{ "format", NOVA_T_CHOICE, "qcow2|raw" },
	{ "size", NOVA_T_BYTES, .min = 512, .max = INT64_MAX },
	{ "readonly", NOVA_T_BOOL },
	{ "cache", NOVA_T_CHOICE, "none|writeback|writethrough|directsync|unsafe" },
	{ "shared", NOVA_T_BOOL },
	{ "owned", NOVA_T_BOOL }, /* goes with the guest; on if CREATE made it */
	{ "carried", NOVA_T_JSON }, /* from the source of a migration: to be made here (carry.c) */
	{ NULL },
};

static const struct nova_param net_params[] = {
	{ "type", NOVA_T_CHOICE, "user|tap|none", .required = true },
	{ "mac", NOVA_T_STRING },
	{ "ifname", NOVA_T_STRING },
	{ NULL },
};

/* Members that users do not give: what was found out, plugged in or adopted. */
static const char *const own_members[] = { "hotplug", "adopted", "qemu-version", "driver", "name", "uuid",
	"owner" };

/* ---- members -------------------------------------------------------------------------------------- */

const char *kvm_spec_text(const json_t *spec, const char *member)
{
	const char *text = json_string_value(json_object_get(spec, member));

	return text && *text ? text : NULL;
}

bool kvm_spec_is(const json_t *spec, const char *member, const char *text)
{
	const char *has = kvm_spec_text(spec, member);

	return has && strcmp(has, text) == 0;
}

int64_t kvm_spec_int(const json_t *spec, const char *member)
{
	return json_integer_value(json_object_get(spec, member));
}

const char *kvm_spec_accel(const json_t *spec)
{
	return kvm_spec_text(spec, "accel") ?: "auto";
}

int64_t kvm_spec_total_memory(const json_t *spec)
{
	int64_t bytes = kvm_spec_int(spec, "memory");
	json_t *dimm;
	size_t i;

	json_array_foreach (json_object_get(json_object_get(spec, "hotplug"), "dimms"), i, dimm)
		bytes += kvm_spec_int(dimm, "size");
	return bytes;
}

int64_t kvm_spec_total_vcpus(const json_t *spec)
{
	return kvm_spec_int(spec, "vcpus") +
	       (int64_t)json_array_size(json_object_get(json_object_get(spec, "hotplug"), "vcpus"));
}

json_t *kvm_spec_now(const struct nova_guest *guest)
{
	json_t *spec = json_deep_copy(guest->spec);
	json_t *changed = json_object_get(guest->runtime, "changed");

	if (spec && changed)
		json_object_update(spec, changed);
	return spec;
}

int kvm_spec_change(struct nova_guest *guest, const char *member, json_t *value, struct nova_error *err)
{
	json_t *changed = json_object_get(guest->runtime, "changed");

	if (!changed) {
		changed = json_object();
		json_object_set_new(guest->runtime, "changed", changed);
	}
	json_object_set_new(changed, member, value);
	return nova_guest_save(guest, err);
}

enum kvm_family kvm_family_of(const char *machine)
{
	if (!machine)
		return KVM_FAMILY_OTHER;
	if (strcmp(machine, "microvm") == 0)
		return KVM_FAMILY_MICROVM;
	if (strcmp(machine, "q35") == 0 || strncmp(machine, "pc-q35-", 7) == 0)
		return KVM_FAMILY_Q35;
	if (strcmp(machine, "pc") == 0 || strncmp(machine, "pc-i440fx-", 10) == 0)
		return KVM_FAMILY_PC;
	return KVM_FAMILY_OTHER;
}

/* ---- shape ---------------------------------------------------------------------------------------- */

static const struct nova_param *find_param(const struct nova_param *params, const char *name)
{
	for (; params->name; params++)
		if (strcmp(params->name, name) == 0)
			return params;
	return NULL;
}

static int refuse_name(
    const struct nova_param *params, const char *what, const char *name, struct nova_error *err)
{
	char names[300] = "";
	size_t used = 0;

	for (; params->name && used < sizeof(names); params++)
		used += (size_t)snprintf(
		    names + used, sizeof(names) - used, "%s%s", used ? ", " : "", params->name);
	return nova_error_set(err, NOVA_INVALID, "unknown option %s of %s: there are %s", name, what, names);
}

/* One "name=value" of a list; a first word without "=" is the value of the first row. */
static int parse_word(const struct nova_param *params, const char *what, char *word, bool first, json_t *into,
    struct nova_error *err)
{
	char *equals = strchr(word, '=');
	const struct nova_param *param = params;
	json_t *value;

	if (equals)
		*equals++ = 0;
	else if (first)
		equals = word;
	else
		return nova_error_set(
		    err, NOVA_INVALID, "%s: \"%s\" is not of the form name=value", what, word);
	if (equals != word)
		param = find_param(params, word);
	if (!param)
		return refuse_name(params, what, word, err);
	value = nova_param_parse(param, equals, err);
	if (!value)
		return nova_error_prefix(err, "%s", what);
	json_object_set_new(into, param->name, value);
	return 0;
}

static json_t *parse_words(
    const struct nova_param *params, const char *what, const char *text, struct nova_error *err)
{
	NOVA_AUTOJSON json_t *object = json_object();
	NOVA_AUTOFREE char *copy = strdup(text);
	char *rest = copy, *word;

	if (!copy) {
		nova_error_sys(err, ENOMEM, "%s", what);
		return NULL;
	}
	while ((word = strsep(&rest, ",")))
		if (parse_word(params, what, word, word == copy, object, err) < 0)
			return NULL;
	return nova_take(&object);
}

static int check_members(
    const struct nova_param *params, const char *what, const json_t *object, struct nova_error *err)
{
	const char *name;
	json_t *value;

	json_object_foreach ((json_t *)object, name, value) {
		const struct nova_param *param = find_param(params, name);

		if (!param)
			return refuse_name(params, what, name, err);
		if (nova_param_check(param, value, err) < 0)
			return nova_error_prefix(err, "%s", what);
	}
	for (; params->name; params++)
		if (params->required && !json_object_get(object, params->name))
			return nova_error_set(err, NOVA_INVALID, "%s: %s is missing", what, params->name);
	return 0;
}

/* "disk" and "net": an array of texts or objects, or one of them. New array of objects. */
static json_t *parse_list(
    const struct nova_param *params, const char *what, json_t *value, size_t most, struct nova_error *err)
{
	NOVA_AUTOJSON json_t *list = json_is_array(value) ? json_incref(value) : json_pack("[O]", value);
	NOVA_AUTOJSON json_t *result = json_array();
	json_t *item;
	size_t i;

	if (json_array_size(list) > most) {
		nova_error_set(
		    err, NOVA_INVALID, "%zu of %s: at most %zu", json_array_size(list), what, most);
		return NULL;
	}
	json_array_foreach (list, i, item) {
		json_t *object = json_is_string(item)
		                     ? parse_words(params, what, json_string_value(item), err)
		                     : json_deep_copy(item);

		if (object && !json_is_object(object))
			nova_error_set(err, NOVA_INVALID, "%s: neither a text nor an object", what);
		if (!json_is_object(object) || check_members(params, what, object, err) < 0) {
			json_decref(object);
			return NULL;
		}
		json_array_append_new(result, object);
	}
	return nova_take(&result);
}

static bool is_own_member(const char *name)
{
	for (size_t i = 0; i < sizeof(own_members) / sizeof(*own_members); i++)
		if (strcmp(own_members[i], name) == 0)
			return true;
	return false;
}

static int parse_member(json_t *into, const char *name, json_t *value, struct nova_error *err)
{
	const struct nova_param *param = find_param(kvm_spec_params, name);

	if (is_own_member(name))
		return json_object_set(into, name, value);
	if (!param)
		return refuse_name(kvm_spec_params, "a kvm guest", name, err);
	if (strcmp(name, "disk") == 0)
		value = parse_list(disk_params, "disk", value, KVM_DISKS_MAX, err);
	else if (strcmp(name, "net") == 0)
		value = parse_list(net_params, "net", value, KVM_NETS_MAX, err);
	else if (nova_param_check(param, value, err) < 0)
		return -1;
	else
		json_incref(value);
	return value ? json_object_set_new(into, name, value) : -1;
}

json_t *kvm_spec_parse(const json_t *spec, struct nova_error *err)
{
	NOVA_AUTOJSON json_t *result = json_object();
	const char *name;
	json_t *value;

	if (!json_is_object(spec)) {
		nova_error_set(err, NOVA_INVALID, "a specification is a JSON object");
		return NULL;
	}
	json_object_foreach ((json_t *)spec, name, value)
		if (!json_is_null(value) && parse_member(result, name, value, err) < 0)
			return NULL;
	for (const struct nova_param *param = kvm_spec_params; param->name; param++) {
		if (!param->fallback || json_object_get(result, param->name))
			continue;
		value = nova_param_parse(param, param->fallback, err);
		if (!value)
			return NULL;
		json_object_set_new(result, param->name, value);
	}
	return nova_take(&result);
}

/* ---- machine and CPU ------------------------------------------------------------------------------ */

static bool listed(const json_t *list, const char *name)
{
	json_t *item;
	size_t i;

	if (json_array_size(list) == 0)
		return true;
	json_array_foreach ((json_t *)list, i, item)
		if (strcmp(json_string_value(item) ?: "", name) == 0)
			return true;
	return false;
}

/* Names of facts that begin like name, at most a few. */
static void name_near(const json_t *facts, const char *name, char *text, size_t size)
{
	size_t used = 0, i, alike;
	json_t *fact;

	*text = 0;
	for (alike = strcspn(name, "-"); used == 0; alike = alike ? alike / 2 : 0) {
		json_array_foreach ((json_t *)facts, i, fact) {
			const char *have = kvm_spec_text(fact, "name") ?: "";

			if (strncmp(have, name, alike) == 0 && used + strlen(have) + 8 < size)
				used += (size_t)snprintf(
				    text + used, size - used, "%s%s", used ? ", " : "", have);
		}
		if (alike == 0)
			break;
	}
}

static const json_t *find_fact(const json_t *list, const char *name)
{
	json_t *fact;
	size_t i;

	json_array_foreach ((json_t *)list, i, fact)
		if (strcmp(kvm_spec_text(fact, "name") ?: "", name) == 0 ||
		    strcmp(kvm_spec_text(fact, "alias") ?: "", name) == 0)
			return fact;
	return NULL;
}

static int complete_machine(json_t *spec, const struct kvm_limits *limits, struct nova_error *err)
{
	const char *wanted = kvm_spec_text(spec, "machine");
	const json_t *machines = json_object_get(limits->facts, "machines");
	const json_t *machine = find_fact(machines, wanted);
	char names[300];

	if (!machine || kvm_family_of(wanted) == KVM_FAMILY_OTHER) {
		name_near(machines, wanted, names, sizeof(names));
		return nova_error_set(err, NOVA_REFUSED,
		    "machine type %s is not there (QEMU %s): use pc, q35, microvm or one of %s", wanted,
		    kvm_spec_text(limits->facts, "version"), names);
	}
	if (!listed(limits->machines, wanted) && !listed(limits->machines, kvm_spec_text(machine, "name")))
		return nova_error_set(
		    err, NOVA_REFUSED, "machine type %s is not among those allowed here (machines)", wanted);
	json_object_set(spec, "machine", json_object_get(machine, "name"));
	return 0;
}

/* A machine type without a version is what this QEMU makes of it: only the same release agrees. */
static int complete_version(json_t *spec, const struct kvm_limits *limits, struct nova_error *err)
{
	const char *ours = kvm_spec_text(limits->facts, "version") ?: "";
	const char *theirs = kvm_spec_text(spec, "qemu-version");
	bool versioned = kvm_family_of(kvm_spec_text(spec, "machine")) != KVM_FAMILY_MICROVM;
	const char *dot = strchr(ours, '.');
	size_t release = dot ? (size_t)(dot - ours) + 1 + strcspn(dot + 1, ".") : strlen(ours);

	if (limits->incoming && !versioned && theirs && strncmp(ours, theirs, release) != 0)
		return nova_error_set(err, NOVA_REFUSED,
		    "machine type %s of QEMU %s differs from QEMU %s's here", kvm_spec_text(spec, "machine"),
		    theirs, ours);
	json_object_set_new(spec, "qemu-version", json_string(ours));
	return 0;
}

static int complete_accel(json_t *spec, const struct kvm_limits *limits, struct nova_error *err)
{
	const char *have = kvm_spec_text(limits->facts, "accel") ?: "";
	const char *wanted = kvm_spec_accel(spec);

	if (strcmp(wanted, "auto") != 0 && strcmp(wanted, have) != 0)
		return nova_error_set(
		    err, NOVA_REFUSED, "accelerator %s is not there, only %s", wanted, have);
	json_object_set_new(spec, "accel", json_string(have));
	return 0;
}

static int complete_cpu(json_t *spec, const struct kvm_limits *limits, struct nova_error *err)
{
	const json_t *models = json_object_get(limits->facts, "cpus"), *model, *lacking;
	const char *wanted = kvm_spec_text(spec, "cpu");
	char name[64], near[300];

	if (!wanted) {
		wanted = strcmp(kvm_spec_accel(spec), "kvm") == 0 ? "qemu64" : "max";
		json_object_set_new(spec, "cpu", json_string(wanted));
	}
	if (strspn(wanted, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.,+=") !=
	    strlen(wanted))
		return nova_error_set(
		    err, NOVA_INVALID, "CPU model %s has characters that no model has", wanted);
	snprintf(name, sizeof(name), "%.*s", (int)strcspn(wanted, ","), wanted);
	model = find_fact(models, name);
	if (!model) {
		name_near(models, name, near, sizeof(near));
		return nova_error_set(err, NOVA_REFUSED, "CPU model %s is not there (QEMU %s): there are %s",
		    name, kvm_spec_text(limits->facts, "version"), near);
	}
	if (!listed(limits->cpu_models, name))
		return nova_error_set(
		    err, NOVA_REFUSED, "CPU model %s is not among those allowed here (cpu-models)", name);
	lacking = json_object_get(model, "unavailable-features");
	if (json_array_size(lacking) > 0)
		return nova_error_set(err, NOVA_REFUSED,
		    "CPU model %s cannot be had here: this host lacks %s (%zu features)", name,
		    json_string_value(json_array_get(lacking, 0)), json_array_size(lacking));
	return 0;
}

/* ---- sizes, paths, devices ------------------------------------------------------------------------ */

static void default_int(json_t *spec, const char *member, int64_t value)
{
	if (!json_object_get(spec, member))
		json_object_set_new(spec, member, json_integer(value));
}

static int complete_sizes(json_t *spec, const struct kvm_limits *limits, struct nova_error *err)
{
	int64_t memory = kvm_spec_int(spec, "memory");
	bool fixed = kvm_family_of(kvm_spec_text(spec, "machine")) == KVM_FAMILY_MICROVM;

	const json_t *machine =
	    find_fact(json_object_get(limits->facts, "machines"), kvm_spec_text(spec, "machine"));

	default_int(spec, "max-memory", memory);
	default_int(spec, "max-vcpus", kvm_spec_int(spec, "vcpus"));
	if (memory < KVM_MEMORY_MIN || memory % KVM_MIB)
		return nova_error_set(err, NOVA_INVALID,
		    "memory of %lld bytes: give a multiple of 1 MiB, at least %lld MiB", (long long)memory,
		    KVM_MEMORY_MIN / KVM_MIB);
	if (kvm_spec_int(spec, "max-memory") < memory)
		return nova_error_set(err, NOVA_INVALID, "max-memory is less than memory");
	if ((kvm_spec_int(spec, "max-memory") - memory) % KVM_DIMM_UNIT)
		return nova_error_set(err, NOVA_INVALID, "max-memory: memory grows in steps of %lld MiB",
		    KVM_DIMM_UNIT / KVM_MIB);
	if (kvm_spec_int(spec, "max-vcpus") < kvm_spec_int(spec, "vcpus"))
		return nova_error_set(err, NOVA_INVALID, "max-vcpus is less than vcpus");
	if (kvm_spec_int(spec, "max-vcpus") > kvm_spec_int(machine, "cpu-max"))
		return nova_error_set(err, NOVA_INVALID, "machine type %s has at most %d virtual CPUs",
		    kvm_spec_text(machine, "name"), (int)kvm_spec_int(machine, "cpu-max"));
	if (fixed && (kvm_spec_int(spec, "max-memory") != memory ||
	                 kvm_spec_int(spec, "max-vcpus") != kvm_spec_int(spec, "vcpus")))
		return nova_error_set(
		    err, NOVA_INVALID, "microvm has no hot-plug: leave out max-memory and max-vcpus");
	return 0;
}

static int check_file(
    const json_t *spec, const char *member, const struct kvm_limits *limits, struct nova_error *err)
{
	const char *path = kvm_spec_text(spec, member);

	return path && kvm_path_existing(limits->roots, member, path, err) < 0 ? -1 : 0;
}

static int complete_boot(json_t *spec, const struct kvm_limits *limits, struct nova_error *err)
{
	static const char *const files[] = { "kernel", "initrd", "firmware", "vnc-password-file" };

	for (size_t i = 0; i < sizeof(files) / sizeof(*files); i++)
		if (check_file(spec, files[i], limits, err) < 0)
			return -1;
	if (!kvm_spec_text(spec, "kernel") &&
	    (kvm_spec_text(spec, "initrd") || kvm_spec_text(spec, "cmdline")))
		return nova_error_set(
		    err, NOVA_INVALID, "initrd and cmdline are a kernel's: give kernel too");
	return 0;
}

static int complete_disk(json_t *disk, const char *name, const struct kvm_limits *limits, struct nova_error *err)
{
	const char *path = kvm_spec_text(disk, "path") ?: "";
	size_t length = strlen(path);
	bool qcow2 = length > 6 && strcmp(path + length - 6, ".qcow2") == 0;
	int64_t asked = kvm_spec_int(disk, "size"), size;
	int there;

	if (!json_object_get(disk, "format"))
		json_object_set_new(disk, "format", json_string(qcow2 ? "qcow2" : "raw"));
	if (*path != '/')
		return nova_error_set(err, NOVA_INVALID, "disk %s: give an absolute path", path);
	if (!limits->incoming)
		json_object_del(disk, "carried");
	if (json_object_get(disk, "carried"))
		return kvm_carry_check(limits->roots, disk, name, limits->copies, err);
	there = kvm_path_creatable(limits->roots, "disk", path, err);
	if (there < 0)
		return -1;
	if (!there && limits->incoming)
		return nova_error_set(err, NOVA_REFUSED,
		    "disk %s is not on this host: it must be on shared storage, or be carried", path);
	if (!there && !asked)
		return nova_error_set(
		    err, NOVA_INVALID, "disk %s does not exist: say size=SIZE to make it", path);
	if (!there)
		return json_object_set_new(disk, "owned", json_true());
	if (kvm_spec_is(disk, "format", "qcow2"))
		size = kvm_path_qcow2(limits->roots, path, err);
	else
		size = kvm_path_existing(limits->roots, "disk", path, err);
	if (size < 0)
		return -1;
	if (asked && asked != size)
		return nova_error_set(err, NOVA_INVALID, "disk %s exists and has %lld bytes, not %lld", path,
		    (long long)size, (long long)asked);
	json_object_set_new(disk, "size", json_integer(size));
	return 0;
}

static int complete_disks(json_t *spec, const struct kvm_limits *limits, struct nova_error *err)
{
	char name[32];
	json_t *disk;
	size_t i;

	if (!json_object_get(spec, "disk"))
		json_object_set_new(spec, "disk", json_array());
	json_array_foreach (json_object_get(spec, "disk"), i, disk)
		if (snprintf(name, sizeof(name), "disk%zu", i) > 0 && complete_disk(disk, name, limits, err) < 0)
			return -1;
	return 0;
}

static bool is_mac(const char *text)
{
	unsigned b[6];
	int end = 0;

	return sscanf(text, "%2x:%2x:%2x:%2x:%2x:%2x%n", &b[0], &b[1], &b[2], &b[3], &b[4], &b[5], &end) ==
	           6 &&
	       end == 17 && !text[17] && !(b[0] & 1);
}

static int complete_net(json_t *net, struct nova_error *err)
{
	const char *mac = kvm_spec_text(net, "mac"), *ifname = kvm_spec_text(net, "ifname");
	bool tap = kvm_spec_is(net, "type", "tap");
	uint8_t random[3];
	char text[18];

	if (!mac) {
		if (getrandom(random, sizeof(random), 0) != sizeof(random))
			return nova_error_sys(err, errno, "no random numbers");
		snprintf(text, sizeof(text), "52:54:00:%02x:%02x:%02x", random[0], random[1], random[2]);
		json_object_set_new(net, "mac", json_string(text));
	} else if (!is_mac(mac)) {
		return nova_error_set(
		    err, NOVA_INVALID, "net: %s is no unicast address like 52:54:00:12:34:56", mac);
	}
	if (tap != (ifname != NULL))
		return nova_error_set(
		    err, NOVA_INVALID, "net: ifname names the interface of type=tap, and only that");
	if (ifname && (strlen(ifname) > 15 || strpbrk(ifname, "/, ")))
		return nova_error_set(err, NOVA_INVALID, "net: %s is not the name of an interface", ifname);
	return 0;
}

static int complete_nets(json_t *spec, const struct kvm_limits *limits, struct nova_error *err)
{
	json_t *nets = json_object_get(spec, "net"), *net;

	if (!nets) {
		nets = json_array();
		json_object_set_new(spec, "net", nets);
	}
	for (size_t i = 0; i < json_array_size(nets);) {
		net = json_array_get(nets, i);
		if (kvm_spec_is(net, "type", "none")) {
			json_array_remove(nets, i);
			continue;
		}
		if (complete_net(net, err) < 0)
			return -1;
		i++;
	}
	return 0;
}

static int complete_devices(json_t *spec, const struct kvm_limits *limits, struct nova_error *err)
{
	enum kvm_family family = kvm_family_of(kvm_spec_text(spec, "machine"));
	bool micro = family == KVM_FAMILY_MICROVM, screen = !kvm_spec_is(spec, "vnc", "off");

	if (!json_object_get(spec, "balloon"))
		json_object_set_new(spec, "balloon", json_boolean(!micro));
	default_int(spec, "serial", micro ? 1 : 2);
	default_int(spec, "hotplug-ports", family == KVM_FAMILY_Q35 ? 4 : 0);
	if (micro && kvm_spec_int(spec, "serial") > 1)
		return nova_error_set(err, NOVA_INVALID, "microvm has one serial port");
	if (micro && screen)
		return nova_error_set(err, NOVA_INVALID, "microvm has no screen: leave out vnc");
	if (family != KVM_FAMILY_Q35 && kvm_spec_int(spec, "hotplug-ports"))
		return nova_error_set(err, NOVA_INVALID, "only q35 has PCIe ports: leave out hotplug-ports");
	if (!screen && kvm_spec_text(spec, "vnc-password-file"))
		return nova_error_set(err, NOVA_INVALID, "vnc-password-file without vnc=socket");
	return 0;
}

/* ---- what was plugged in (from the source of a migration: bytes from the wire) --------------------- */

static bool plain_word(const json_t *value)
{
	const char *text = json_string_value(value);

	return text && *text && strlen(text) < 64 &&
	       strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") ==
	           strlen(text);
}

static bool plain_dimm(const json_t *dimm)
{
	int64_t size = kvm_spec_int(dimm, "size");

	return plain_word(json_object_get(dimm, "id")) && size >= KVM_DIMM_UNIT &&
	       size % KVM_DIMM_UNIT == 0 && size <= 1ll << 44 && kvm_spec_int(dimm, "addr") > 0 &&
	       kvm_spec_int(dimm, "slot") >= 0 && kvm_spec_int(dimm, "slot") < KVM_DIMM_SLOTS;
}

static bool plain_vcpu(const json_t *vcpu)
{
	const char *name;
	json_t *value;

	json_object_foreach (json_object_get(vcpu, "props"), name, value)
		if (!json_is_integer(value) || strspn(name, "abcdefghijklmnopqrstuvwxyz-") != strlen(name))
			return false;
	return plain_word(json_object_get(vcpu, "id")) && plain_word(json_object_get(vcpu, "type")) &&
	       json_is_object(json_object_get(vcpu, "props"));
}

static int check_hotplug(json_t *spec, const struct kvm_limits *limits, struct nova_error *err)
{
	json_t *dimms = json_object_get(json_object_get(spec, "hotplug"), "dimms");
	json_t *vcpus = json_object_get(json_object_get(spec, "hotplug"), "vcpus");
	json_t *item;
	size_t i;
	bool plain = json_array_size(dimms) <= KVM_DIMM_SLOTS;

	json_array_foreach (dimms, i, item)
		plain = plain && plain_dimm(item);
	json_array_foreach (vcpus, i, item)
		plain = plain && plain_vcpu(item);
	if (!plain)
		return nova_error_set(
		    err, NOVA_INVALID, "the list of devices plugged in (hotplug) is damaged");
	if (kvm_spec_total_memory(spec) > kvm_spec_int(spec, "max-memory") ||
	    kvm_spec_total_vcpus(spec) > kvm_spec_int(spec, "max-vcpus"))
		return nova_error_set(
		    err, NOVA_INVALID, "more was plugged in (hotplug) than max-memory and max-vcpus allow");
	return 0;
}

/* ---- all of it ------------------------------------------------------------------------------------ */

json_t *kvm_spec_complete(const json_t *raw, const struct kvm_limits *limits, struct nova_error *err)
{
	static int (*const rows[])(json_t * spec, const struct kvm_limits *limits, struct nova_error *err) = {
		complete_accel,
		complete_machine,
		complete_version,
		complete_sizes,
		complete_cpu,
		complete_boot,
		complete_disks,
		complete_nets,
		complete_devices,
		check_hotplug,
	};
	NOVA_AUTOJSON json_t *spec = kvm_spec_parse(raw, err);

	for (size_t i = 0; spec && i < sizeof(rows) / sizeof(*rows); i++)
		if (rows[i](spec, limits, err) < 0)
			return NULL;
	return nova_take(&spec);
}

json_t *kvm_spec_needs(const json_t *spec)
{
	int64_t disk_bytes = 0;
	json_t *disk;
	size_t i;

	json_array_foreach (json_object_get(spec, "disk"), i, disk)
		if (access(kvm_spec_text(disk, "path") ?: "", F_OK) < 0)
			disk_bytes += kvm_spec_int(disk, "size");
	return json_pack("{s:I,s:I,s:I}", "memory_bytes", (json_int_t)kvm_spec_total_memory(spec), "vcpus",
	    (json_int_t)kvm_spec_total_vcpus(spec), "disk_bytes", (json_int_t)disk_bytes);
}
