/* SPDX-License-Identifier: Apache-2.0
 *
 * argv.c - a completed specification as QEMU's command line.
 *
 * The same specification gives the same devices in the same places, which is what a migration needs: the
 * order of the words below is part of it. Paths and addresses were checked by spec.c; here commas in them are
 * doubled where QEMU would split there.
 */
#include "kvm.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static void take_word(struct kvm_argv *argv, char *word)
{
	char **words = argv->word;

	if (argv->count + 2 > argv->capacity) {
		size_t capacity = argv->capacity ? argv->capacity * 2 : 64;

		words = realloc(words, capacity * sizeof(*words));
		if (!words) {
			argv->failed = true;
			free(word);
			return;
		}
		argv->word = words;
		argv->capacity = capacity;
	}
	words[argv->count++] = word;
	words[argv->count] = NULL;
}

void kvm_argv_add(struct kvm_argv *argv, const char *format, ...)
{
	char *word = NULL;
	va_list ap;
	int made;

	va_start(ap, format);
	made = vasprintf(&word, format, ap);
	va_end(ap);
	if (made < 0)
		argv->failed = true;
	else
		take_word(argv, word);
}

void kvm_argv_release(struct kvm_argv *argv)
{
	for (size_t i = 0; i < argv->count; i++)
		free(argv->word[i]);
	free(argv->word);
	memset(argv, 0, sizeof(*argv));
}

/* "name" "value": most of a command line. */
#define OPTION(argv, name, ...) (kvm_argv_add(argv, "%s", name), kvm_argv_add(argv, __VA_ARGS__))

/* With commas doubled; at most PATH_MAX bytes come in. */
static const char *escaped(const char *text, char buffer[2 * PATH_MAX])
{
	char *to = buffer;

	for (; *text && to < buffer + 2 * PATH_MAX - 3; text++) {
		if (*text == ',')
			*to++ = ',';
		*to++ = *text;
	}
	*to = 0;
	return buffer;
}

struct plan {
	struct kvm_argv *argv;
	const json_t *spec;
	const struct kvm_argv_options *options;
	enum kvm_family family;
	const char *bus; /* "pci" or "device": the ends of virtio devices' names */
};

static void add_machine(const struct plan *plan)
{
	const json_t *spec = plan->spec;
	const char *accel = kvm_spec_accel(spec);
	long long memory = kvm_spec_int(spec, "memory"), most = kvm_spec_int(spec, "max-memory");
	int vcpus = (int)kvm_spec_int(spec, "vcpus"), max_vcpus = (int)kvm_spec_int(spec, "max-vcpus");
	/* With ACPI, most boots of a microvm hang under TCG. */
	bool no_acpi = plan->family == KVM_FAMILY_MICROVM && strcmp(accel, "tcg") == 0;

	OPTION(plan->argv, "-machine", "%s,dump-guest-core=off%s", kvm_spec_text(spec, "machine"),
	    no_acpi ? ",acpi=off" : "");
	OPTION(plan->argv, "-accel", "%s", accel);
	OPTION(plan->argv, "-cpu", "%s", kvm_spec_text(spec, "cpu"));
	if (most > memory)
		OPTION(plan->argv, "-m", "size=%lldM,slots=%d,maxmem=%lldM", memory / KVM_MIB, KVM_DIMM_SLOTS,
		    most / KVM_MIB);
	else
		OPTION(plan->argv, "-m", "size=%lldM", memory / KVM_MIB);
	OPTION(plan->argv, "-smp", "cpus=%d,maxcpus=%d,sockets=%d,cores=1,threads=1", vcpus, max_vcpus,
	    max_vcpus);
}

static void add_boot(const struct plan *plan)
{
	static const char *const files[][2] = {
		{ "firmware", "-bios" },
		{ "kernel", "-kernel" },
		{ "initrd", "-initrd" },
		{ "cmdline", "-append" },
	};

	for (size_t i = 0; i < sizeof(files) / sizeof(*files); i++)
		if (kvm_spec_text(plan->spec, files[i][0]))
			OPTION(plan->argv, files[i][1], "%s", kvm_spec_text(plan->spec, files[i][0]));
}

static void add_serials(const struct plan *plan)
{
	char home[2 * PATH_MAX];

	escaped(plan->options->home, home);
	for (int i = 0; i < kvm_spec_int(plan->spec, "serial"); i++) {
		OPTION(plan->argv, "-chardev", "socket,id=serial%d,path=%s/serial%d.sock,server=on,wait=off",
		    i, home, i);
		OPTION(plan->argv, "-serial", "chardev:serial%d", i);
	}
}

static void add_blockdev(const struct plan *plan, json_t *node)
{
	char *text = json_dumps(node, JSON_COMPACT);

	if (text)
		OPTION(plan->argv, "-blockdev", "%s", text);
	else
		plan->argv->failed = true;
	free(text);
	json_decref(node);
}

static void add_disk(const struct plan *plan, size_t i, const json_t *disk)
{
	const char *cache = kvm_spec_text(disk, "cache") ?: "writeback";
	bool direct = strcmp(cache, "none") == 0 || strcmp(cache, "directsync") == 0;
	bool through = strcmp(cache, "writethrough") == 0 || strcmp(cache, "directsync") == 0;
	bool readonly = json_is_true(json_object_get(disk, "readonly"));
	char file[32], node[32];

	snprintf(node, sizeof(node), "disk%zu", i);
	snprintf(file, sizeof(file), "disk%zu-file", i);
	add_blockdev(plan, json_pack("{s:s,s:s,s:s,s:b,s:s,s:{s:b,s:b}}", "driver", "file", "node-name", file,
	                       "filename", kvm_spec_text(disk, "path"), "read-only", readonly, "discard", "unmap",
	                       "cache", "direct", direct, "no-flush", strcmp(cache, "unsafe") == 0));
	add_blockdev(plan, json_pack("{s:s,s:s,s:s,s:b,s:s}", "driver", kvm_spec_text(disk, "format"),
	                       "node-name", node, "file", file, "read-only", readonly, "discard", "unmap"));
	OPTION(plan->argv, "-device", "virtio-blk-%s,id=%s-device,drive=%s,write-cache=%s", plan->bus, node,
	    node, through ? "off" : "on");
}

static void add_net(const struct plan *plan, size_t i, const json_t *net)
{
	const char *rom =
	    plan->family == KVM_FAMILY_MICROVM ? "" : ",romfile="; /* nobody boots from the network */

	if (kvm_spec_is(net, "type", "tap"))
		OPTION(plan->argv, "-netdev", "tap,id=net%zu,ifname=%s,script=no,downscript=no", i,
		    kvm_spec_text(net, "ifname"));
	else
		OPTION(plan->argv, "-netdev", "user,id=net%zu", i);
	OPTION(plan->argv, "-device", "virtio-net-%s,id=net%zu-device,netdev=net%zu,mac=%s%s", plan->bus, i,
	    i, kvm_spec_text(net, "mac"), rom);
}

static void add_screen(const struct plan *plan)
{
	const char *password = kvm_spec_text(plan->spec, "vnc-password-file");
	char text[2 * PATH_MAX];

	if (kvm_spec_is(plan->spec, "vnc", "off"))
		return;
	if (password)
		OPTION(plan->argv, "-object", "secret,id=vnc-password,file=%s", escaped(password, text));
	OPTION(plan->argv, "-vnc", "unix:%s/vnc.sock%s", escaped(plan->options->home, text),
	    password ? ",password-secret=vnc-password" : "");
	OPTION(plan->argv, "-device", "VGA,id=screen");
}

/* Under the name that qemu-ga looks for. */
static void add_agent(const struct plan *plan)
{
	char home[2 * PATH_MAX];

	if (!json_is_true(json_object_get(plan->spec, "agent")))
		return;
	OPTION(plan->argv, "-chardev", "socket,id=" KVM_AGENT_ID ",path=%s/" KVM_AGENT_SOCKET ",server=on,wait=off",
	    escaped(plan->options->home, home));
	OPTION(plan->argv, "-device", "virtio-serial-%s,id=agent-bus", plan->bus);
	OPTION(plan->argv, "-device", "virtserialport,id=agent-port,bus=agent-bus.0,chardev=" KVM_AGENT_ID
	    ",name=org.qemu.guest_agent.0");
}

static void add_devices(const struct plan *plan)
{
	json_t *item;
	size_t i;

	json_array_foreach (json_object_get(plan->spec, "disk"), i, item)
		add_disk(plan, i, item);
	json_array_foreach (json_object_get(plan->spec, "net"), i, item)
		add_net(plan, i, item);
	if (json_is_true(json_object_get(plan->spec, "balloon")))
		OPTION(plan->argv, "-device", "virtio-balloon-%s,id=balloon0", plan->bus);
	if (json_is_true(json_object_get(plan->spec, "rng"))) {
		OPTION(plan->argv, "-object", "rng-builtin,id=rng0");
		OPTION(plan->argv, "-device", "virtio-rng-%s,id=rng0-device,rng=rng0", plan->bus);
	}
	add_screen(plan);
	add_agent(plan);
	for (int port = 0; port < kvm_spec_int(plan->spec, "hotplug-ports"); port++)
		OPTION(plan->argv, "-device", "pcie-root-port,id=port%d,chassis=%d", port, port + 1);
}

/* TEXT becomes TEXT,NAME=NUMBER; NULL without memory. */
static void append_number(char **text, const char *name, long long number)
{
	char *longer = NULL;
	int made = *text ? asprintf(&longer, "%s,%s=%lld", *text, name, number) : -1;

	free(*text);
	*text = made < 0 ? NULL : longer;
}

/* What was plugged in while the guest ran stands in the same place again. */
static void add_plugged(const struct plan *plan)
{
	json_t *hotplug = json_object_get(plan->spec, "hotplug"), *item, *value;
	const char *name;
	size_t i;

	json_array_foreach (json_object_get(hotplug, "vcpus"), i, item) {
		NOVA_AUTOFREE char *place = strdup("");

		json_object_foreach (json_object_get(item, "props"), name, value)
			append_number(&place, name, (long long)json_integer_value(value));
		OPTION(plan->argv, "-device", "%s,id=%s%s", kvm_spec_text(item, "type"),
		    kvm_spec_text(item, "id"), place ?: "");
		plan->argv->failed |= !place;
	}
	json_array_foreach (json_object_get(hotplug, "dimms"), i, item) {
		const char *id = kvm_spec_text(item, "id");

		OPTION(plan->argv, "-object", "memory-backend-ram,id=memory-%s,size=%lld", id,
		    (long long)kvm_spec_int(item, "size"));
		OPTION(plan->argv, "-device", "pc-dimm,id=%s,memdev=memory-%s,slot=%d,addr=%lld", id, id,
		    (int)kvm_spec_int(item, "slot"), (long long)kvm_spec_int(item, "addr"));
	}
}

int kvm_argv_build(
    struct kvm_argv *argv, const json_t *spec, const struct kvm_argv_options *options, struct nova_error *err)
{
	struct plan plan = { NULL, spec, options, kvm_family_of(kvm_spec_text(spec, "machine")), "pci" };
	char text[2 * PATH_MAX];

	if (plan.family == KVM_FAMILY_MICROVM)
		plan.bus = "device";
	memset(argv, 0, sizeof(*argv));
	plan.argv = argv;
	kvm_argv_add(argv, "%s", options->program);
	kvm_argv_add(argv, "-nodefaults");
	kvm_argv_add(argv, "-no-user-config");
	OPTION(argv, "-display", "none");
	OPTION(argv, "-name", "guest=%s,debug-threads=on", escaped(options->name, text));
	OPTION(argv, "-uuid", "%s", options->uuid);
	if (options->sandbox)
		OPTION(argv, "-sandbox", "%s", options->sandbox);
	OPTION(argv, "-qmp", "unix:%s/qmp.sock,server=on,wait=off", escaped(options->home, text));
	kvm_argv_add(argv, "-S");
	if (options->incoming)
		OPTION(argv, "-incoming", "defer");
	add_machine(&plan);
	add_boot(&plan);
	add_serials(&plan);
	add_devices(&plan);
	add_plugged(&plan);
	if (!argv->failed)
		return 0;
	kvm_argv_release(argv);
	return nova_error_sys(err, ENOMEM, "no memory for QEMU's command line");
}

json_t *kvm_argv_devices(char *const word[])
{
	json_t *devices = json_array();

	for (size_t i = 0; word[i] && word[i + 1]; i++) {
		char driver[64];

		if (strcmp(word[i], "-device") != 0 && strcmp(word[i], "--device") != 0)
			continue;
		snprintf(driver, sizeof(driver), "%.*s", (int)strcspn(word[i + 1], ","), word[i + 1]);
		json_array_append_new(devices, json_string(driver));
	}
	return devices;
}
