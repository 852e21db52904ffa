/* SPDX-License-Identifier: Apache-2.0
 *
 * foreign.c - the command line of a QEMU that somebody else started, as a specification of ours.
 *
 * A migration needs the same devices in the same places at the destination, so half an understanding is none:
 * what this table does not know, or what our own command line (argv.c) would make differently, is listed as
 * unknown, and the engine then asks for a specification before it moves the guest. Backends (where a serial
 * port or a monitor is connected on this host) do not matter.
 */
#include "kvm.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

struct reading {
	json_t *spec;
	json_t *unknown;
	json_t *nodes;   /* block nodes and drives by name: {driver, filename, file, ...} */
	json_t *netdevs; /* by id */
	json_t *virtio;  /* drivers of "-drive if=virtio": QEMU adds them after the others */
	bool nodefaults;
	bool bad; /* the option at hand is not understood */
};

static bool only(const json_t *words, const char *const *names)
{
	const char *name;
	json_t *value;
	size_t i;

	json_object_foreach ((json_t *)words, name, value) {
		for (i = 0; names[i] && strcmp(names[i], name) != 0; i++)
			;
		if (!names[i])
			return false;
	}
	return true;
}

static void set_text(struct reading *reading, const char *member, const char *text)
{
	json_object_set_new(reading->spec, member, json_string(text));
}

static bool is_on(const char *text)
{
	return text && (strcmp(text, "on") == 0 || strcmp(text, "yes") == 0 || strcmp(text, "true") == 0);
}

/* "512", "512M", "2G" (QEMU counts in MiB without a unit) as bytes; 0: no size */
static int64_t memory_size(const char *text)
{
	struct nova_param size = { "memory", NOVA_T_BYTES, .max = 1ll << 44 };
	char with_unit[40];
	json_t *value;
	int64_t bytes;

	snprintf(with_unit, sizeof(with_unit), "%s%s", text, text[strspn(text, "0123456789")] ? "" : "M");
	value = nova_param_parse(&size, with_unit, NULL);
	bytes = json_integer_value(value);
	json_decref(value);
	return bytes;
}

/* ---- options -------------------------------------------------------------------------------------- */

static void read_machine(struct reading *reading, const json_t *words, const char *text)
{
	static const char *const known[] = { "", "type", "accel", "dump-guest-core", "acpi", NULL };
	const char *accel = kvm_spec_text(words, "accel"), *acpi = kvm_spec_text(words, "acpi");
	const char *machine = kvm_spec_text(reading->spec, "machine") ?: "";
	bool micro = kvm_family_of(machine) == KVM_FAMILY_MICROVM;

	if (accel)
		set_text(reading, "accel", accel);
	/* Ours have ACPI but for a microvm under TCG. */
	reading->bad = !only(words, known) || micro != (acpi && strcmp(acpi, "off") == 0);
}

static void read_accel(struct reading *reading, const json_t *words, const char *text)
{
	set_text(reading, "accel", kvm_spec_text(words, "") ?: kvm_spec_text(words, "accel") ?: "");
}

static void read_memory(struct reading *reading, const json_t *words, const char *text)
{
	const char *size = kvm_spec_text(words, "") ?: kvm_spec_text(words, "size"), *slots, *most;

	slots = kvm_spec_text(words, "slots");
	most = kvm_spec_text(words, "maxmem");
	if (!size || !memory_size(size) || (slots && atoi(slots) != KVM_DIMM_SLOTS)) {
		reading->bad = true;
		return;
	}
	json_object_set_new(reading->spec, "memory", json_integer(memory_size(size)));
	if (most)
		json_object_set_new(reading->spec, "max-memory", json_integer(memory_size(most)));
}

static void read_smp(struct reading *reading, const json_t *words, const char *text)
{
	static const char *const known[] = { "", "cpus", "maxcpus", "sockets", "cores", "threads", NULL };
	const char *cpus = kvm_spec_text(words, "") ?: kvm_spec_text(words, "cpus") ?: "1";
	const char *most = kvm_spec_text(words, "maxcpus") ?: cpus;
	const char *sockets = kvm_spec_text(words, "sockets") ?: "1";

	reading->bad = !only(words, known) || atoi(sockets) != atoi(most);
	json_object_set_new(reading->spec, "vcpus", json_integer(atoi(cpus)));
	json_object_set_new(reading->spec, "max-vcpus", json_integer(atoi(most)));
}

static void read_cpu(struct reading *reading, const json_t *words, const char *text)
{
	set_text(reading, "cpu", text);
}

static void read_kernel(struct reading *reading, const json_t *words, const char *text)
{
	set_text(reading, "kernel", text);
}

static void read_initrd(struct reading *reading, const json_t *words, const char *text)
{
	set_text(reading, "initrd", text);
}

static void read_append(struct reading *reading, const json_t *words, const char *text)
{
	set_text(reading, "cmdline", text);
}

static void read_bios(struct reading *reading, const json_t *words, const char *text)
{
	set_text(reading, "firmware", text);
}

static void read_serial(struct reading *reading, const json_t *words, const char *text)
{
	if (strcmp(text, "none") != 0)
		json_object_set_new(
		    reading->spec, "serial", json_integer(kvm_spec_int(reading->spec, "serial") + 1));
}

static void read_nodefaults(struct reading *reading, const json_t *words, const char *text)
{
	reading->nodefaults = true;
}

/* ---- disks and networks --------------------------------------------------------------------------- */

static void read_blockdev(struct reading *reading, const json_t *words, const char *text)
{
	NOVA_AUTOJSON json_t *node = *text == '{' ? json_loads(text, 0, NULL) : json_incref((json_t *)words);
	const char *name = kvm_spec_text(node, "node-name");
	const char *inner =
	    kvm_spec_text(node, "file.filename") ?: kvm_spec_text(json_object_get(node, "file"), "filename");

	reading->bad = !name;
	if (inner && name)
		json_object_set_new(node, "filename", json_string(inner));
	if (name)
		json_object_set(reading->nodes, name, node);
}

static void read_drive(struct reading *reading, const json_t *words, const char *text)
{
	static const char *const known[] = { "file", "format", "if", "id", "readonly", "read-only", "cache",
		"media", NULL };
	const char *iface = kvm_spec_text(words, "if") ?: "", *id = kvm_spec_text(words, "id");
	NOVA_AUTOJSON json_t *node = json_pack("{s:s,s:s,s:b}", "driver",
	    kvm_spec_text(words, "format") ?: "raw", "filename", kvm_spec_text(words, "file") ?: "",
	    "read-only", is_on(kvm_spec_text(words, "readonly") ?: kvm_spec_text(words, "read-only")));

	if (!only(words, known) || !kvm_spec_text(words, "format") || !kvm_spec_text(words, "file"))
		reading->bad = true;
	else if (strcmp(iface, "none") == 0 && id)
		json_object_set(reading->nodes, id, node);
	else if (strcmp(iface, "virtio") == 0)
		json_array_append(reading->virtio, node);
	else
		reading->bad = true;
}

/* The node a device names, and the file it ends in, as one of our disks. */
static void add_disk(struct reading *reading, const json_t *node)
{
	const json_t *file = json_object_get(reading->nodes, kvm_spec_text(node, "file") ?: "");
	const char *path = kvm_spec_text(node, "filename") ?: kvm_spec_text(file, "filename");
	const char *driver = kvm_spec_text(node, "driver") ?: "";
	json_t *readonly = json_object_get(node, "read-only"),
	       *disks = json_object_get(reading->spec, "disk");

	if (strcmp(driver, "file") == 0)
		driver = "raw";
	if (!path || (strcmp(driver, "raw") != 0 && strcmp(driver, "qcow2") != 0)) {
		reading->bad = true;
		return;
	}
	json_array_append_new(disks, json_pack("{s:s,s:s,s:b}", "path", path, "format", driver, "readonly",
	                                 json_is_true(readonly) || is_on(json_string_value(readonly))));
}

static void read_netdev(struct reading *reading, const json_t *words, const char *text)
{
	static const char *const known[] = { "", "id", "ifname", "script", "downscript", NULL };

	reading->bad = !only(words, known) || !kvm_spec_text(words, "id");
	if (!reading->bad)
		json_object_set(reading->netdevs, kvm_spec_text(words, "id"), (json_t *)words);
}

static void device_disk(struct reading *reading, const json_t *words)
{
	static const char *const known[] = { "", "id", "drive", "write-cache", NULL };
	const json_t *node = json_object_get(reading->nodes, kvm_spec_text(words, "drive") ?: "");

	if (!node || !only(words, known))
		reading->bad = true;
	else
		add_disk(reading, node);
}

/* Without "romfile=" it has a boot ROM, which ours have not: a memory block more in the stream. */
static void device_net(struct reading *reading, const json_t *words)
{
	static const char *const known[] = { "", "id", "netdev", "mac", "romfile", NULL };
	const json_t *netdev = json_object_get(reading->netdevs, kvm_spec_text(words, "netdev") ?: "");
	const char *mac = kvm_spec_text(words, "mac"), *type = kvm_spec_text(netdev, "") ?: "";
	bool rom =
	    kvm_spec_is(words, "", "virtio-net-pci") && !json_object_get(words, "romfile");
	json_t *net;

	if (!netdev || !mac || rom || !only(words, known)) {
		reading->bad = true;
		return;
	}
	net = json_pack("{s:s,s:s}", "type", type, "mac", mac);
	if (kvm_spec_text(netdev, "ifname"))
		json_object_set(net, "ifname", json_object_get(netdev, "ifname"));
	json_array_append_new(json_object_get(reading->spec, "net"), net);
}

static void device_balloon(struct reading *reading, const json_t *words)
{
	static const char *const known[] = { "", "id", NULL };

	reading->bad = !only(words, known);
	json_object_set_new(reading->spec, "balloon", json_true());
}

static void device_rng(struct reading *reading, const json_t *words)
{
	static const char *const known[] = { "", "id", "rng", NULL };

	reading->bad = !only(words, known);
	json_object_set_new(reading->spec, "rng", json_true());
}

static void device_screen(struct reading *reading, const json_t *words)
{
	static const char *const known[] = { "", "id", NULL };

	reading->bad = !only(words, known);
	set_text(reading, "vnc", "socket");
}

static void device_port(struct reading *reading, const json_t *words)
{
	static const char *const known[] = { "", "id", "chassis", NULL };
	json_int_t count = kvm_spec_int(reading->spec, "hotplug-ports") + 1;
	const char *chassis = kvm_spec_text(words, "chassis");

	reading->bad = !only(words, known) || !chassis || atoi(chassis) != count;
	json_object_set_new(reading->spec, "hotplug-ports", json_integer(count));
}

static const struct {
	const char *driver;
	void (*read)(struct reading *reading, const json_t *words);
} devices[] = {
	{ "virtio-blk-pci", device_disk },
	{ "virtio-blk-device", device_disk },
	{ "virtio-net-pci", device_net },
	{ "virtio-net-device", device_net },
	{ "virtio-balloon-pci", device_balloon },
	{ "virtio-balloon-device", device_balloon },
	{ "virtio-rng-pci", device_rng },
	{ "virtio-rng-device", device_rng },
	{ "VGA", device_screen },
	{ "pcie-root-port", device_port },
};

static void read_device(struct reading *reading, const json_t *words, const char *text)
{
	const char *driver = kvm_spec_text(words, "") ?: "";

	for (size_t i = 0; i < sizeof(devices) / sizeof(*devices); i++)
		if (strcmp(devices[i].driver, driver) == 0) {
			devices[i].read(reading, words);
			return;
		}
	reading->bad = true;
}

static void read_object(struct reading *reading, const json_t *words, const char *text)
{
	const char *type = kvm_spec_text(words, "") ?: "";

	reading->bad = strcmp(type, "rng-builtin") != 0 && strcmp(type, "rng-random") != 0 &&
	               strcmp(type, "secret") != 0;
}

static void read_nothing(struct reading *reading, const json_t *words, const char *text)
{
}

/* Options that we understand; those read by read_nothing say nothing about the machine. */
static const struct {
	const char *option;
	bool has_value;
	void (*read)(struct reading *reading, const json_t *words, const char *text);
} options[] = {
	{ "-machine", true, read_machine },
	{ "-M", true, read_machine },
	{ "-accel", true, read_accel },
	{ "-cpu", true, read_cpu },
	{ "-m", true, read_memory },
	{ "-smp", true, read_smp },
	{ "-kernel", true, read_kernel },
	{ "-initrd", true, read_initrd },
	{ "-append", true, read_append },
	{ "-bios", true, read_bios },
	{ "-blockdev", true, read_blockdev },
	{ "-drive", true, read_drive },
	{ "-netdev", true, read_netdev },
	{ "-device", true, read_device },
	{ "-object", true, read_object },
	{ "-serial", true, read_serial },
	{ "-nodefaults", false, read_nodefaults },
	{ "-no-user-config", false, read_nothing },
	{ "-S", false, read_nothing },
	{ "-daemonize", false, read_nothing },
	{ "-display", true, read_nothing },
	{ "-chardev", true, read_nothing },
	{ "-qmp", true, read_nothing },
	{ "-mon", true, read_nothing },
	{ "-monitor", true, read_nothing },
	{ "-name", true, read_nothing },
	{ "-uuid", true, read_nothing },
	{ "-sandbox", true, read_nothing },
	{ "-incoming", true, read_nothing },
	{ "-vnc", true, read_nothing },
	{ "-pidfile", true, read_nothing },
	{ "-D", true, read_nothing },
	{ "-msg", true, read_nothing },
};

static void note_unknown(struct reading *reading, const char *option, const char *value)
{
	json_array_append_new(
	    reading->unknown, json_sprintf("%s%s%s", option, value ? " " : "", value ?: ""));
}

/* Returns how many words were read. */
static size_t read_option(struct reading *reading, char *const word[])
{
	const char *name = word[0][0] == '-' && word[0][1] == '-' ? word[0] + 1 : word[0];

	for (size_t i = 0; i < sizeof(options) / sizeof(*options); i++) {
		NOVA_AUTOJSON json_t *words = NULL;
		const char *value = options[i].has_value ? word[1] : NULL;

		if (strcmp(options[i].option, name) != 0 || (options[i].has_value && !value))
			continue;
		words = kvm_option_words(value ?: "");
		reading->bad = false;
		options[i].read(reading, words, value ?: "");
		if (reading->bad)
			note_unknown(reading, name, value);
		return value ? 2 : 1;
	}
	if (word[1] && word[1][0] != '-') {
		note_unknown(reading, name, word[1]);
		return 2;
	}
	note_unknown(reading, name, NULL);
	return 1;
}

/* Our own command line for what was read must plug the same devices in the same order. */
static void compare_devices(struct reading *reading, char *const word[])
{
	struct kvm_argv_options ours_are = { .program = "", .name = "", .uuid = "", .home = "" };
	NOVA_AUTOJSON json_t *theirs = kvm_argv_devices(word), *ours = NULL,
	                     *full = kvm_spec_parse(reading->spec, NULL);
	struct kvm_argv argv;

	for (size_t i = 0; i < json_array_size(reading->virtio); i++)
		json_array_append_new(theirs, json_string("virtio-blk-pci"));
	if (!full || kvm_argv_build(&argv, full, &ours_are, NULL) < 0)
		return;
	ours = kvm_argv_devices(argv.word);
	kvm_argv_release(&argv);
	if (!json_equal(ours, theirs))
		json_array_append_new(
		    reading->unknown, json_string("its devices stand in another order than ours"));
}

json_t *kvm_spec_of_words(char *const word[], const char *machine, json_t *unknown)
{
	NOVA_AUTOJSON json_t *nodes = json_object(), *netdevs = json_object(), *virtio = json_array();
	struct reading reading = { .unknown = unknown, .nodes = nodes, .netdevs = netdevs, .virtio = virtio };
	bool micro = machine && kvm_family_of(machine) == KVM_FAMILY_MICROVM;
	json_t *node;
	size_t i;

	/* What is not said is QEMU's default. */
	reading.spec = json_pack("{s:s,s:s,s:I,s:i,s:[],s:[],s:b,s:b,s:i}", "machine", machine ?: "pc", "cpu",
	    "qemu64", "memory", (json_int_t)(128 * KVM_MIB), "serial", 0, "disk", "net", "balloon", false,
	    "rng", false, "hotplug-ports", 0);
	for (i = 1; word[0] && word[i];)
		i += read_option(&reading, word + i);
	json_array_foreach (virtio, i, node) {
		reading.bad = false;
		add_disk(&reading, node);
		if (reading.bad)
			note_unknown(&reading, "-drive", kvm_spec_text(node, "filename"));
	}
	if (!reading.nodefaults && !micro)
		json_array_append_new(
		    unknown, json_string("default devices (it was started without -nodefaults)"));
	compare_devices(&reading, word);
	return reading.spec;
}
