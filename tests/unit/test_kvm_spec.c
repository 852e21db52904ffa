/* SPDX-License-Identifier: Apache-2.0
 *
 * test_kvm_spec.c - the KVM driver's specifications without a QEMU: completing and refusing, command lines,
 * files below the roots, qcow2 headers, and reading a foreign QEMU's command line.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "drivers/kvm/kvm.h"

static char root[64]; /* the one allowed directory; "outside" is beside it */
static char outside[80];
static json_t *facts, *roots;

static char *in_root(const char *name)
{
	static char path[4][200];
	static int turn;

	turn = (turn + 1) % 4;
	snprintf(path[turn], sizeof(path[turn]), "%s/%s", root, name);
	return path[turn];
}

static void write_file(const char *path, const void *bytes, size_t size)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, bytes, size), size);
	close(fd);
}

static int set_up(void **state)
{
	strcpy(root, "/tmp/nova-spec-XXXXXX");
	assert_non_null(mkdtemp(root));
	snprintf(outside, sizeof(outside), "%s.outside", root);
	write_file(outside, "secret", 6);
	write_file(in_root("vmlinuz"), "kernel", 6);
	roots = json_pack("[s,s]", "/nonexistent/images", root);
	/* The shape of QEMU's own answers. */
	facts = json_pack("{s:s,s:s,s:[{s:s,s:s,s:i},{s:s,s:s,s:i},{s:s,s:i},{s:s,s:i}],s:[{s:s,s:[]},{s:s,s:"
	                  "[]},{s:s,s:[s,s]}]}",
	    "accel", "tcg", "version", "7.2.22", "machines", "name", "pc-i440fx-7.2", "alias", "pc",
	    "cpu-max", 255, "name", "pc-q35-7.2", "alias", "q35", "cpu-max", 288, "name", "microvm",
	    "cpu-max", 288, "name", "none", "cpu-max", 1, "cpus", "name", "max", "unavailable-features",
	    "name", "qemu64", "unavailable-features", "name", "Haswell", "unavailable-features", "hle",
	    "rtm");
	assert_non_null(facts);
	return 0;
}

static int tear_down(void **state)
{
	char command[100];

	json_decref(facts);
	json_decref(roots);
	unlink(outside);
	snprintf(command, sizeof(command), "rm -rf %s", root);
	return system(command);
}

static struct kvm_limits limits(void)
{
	return (struct kvm_limits) { .facts = facts, .roots = roots };
}

/* text: a specification as JSON. */
static json_t *parse(const char *text)
{
	json_t *spec = json_loads(text, 0, NULL);

	assert_non_null(spec);
	return spec;
}

static json_t *complete(const char *text)
{
	struct kvm_limits with = limits();
	struct nova_error err;
	json_t *raw = parse(text), *spec = kvm_spec_complete(raw, &with, &err);

	json_decref(raw);
	if (!spec)
		fail_msg("%s: %s", text, err.text);
	return spec;
}

static void refused_with(const struct kvm_limits *with, json_t *raw, const char *because)
{
	struct nova_error err;
	json_t *spec = kvm_spec_complete(raw, with, &err);

	if (spec)
		fail_msg("accepted, not refused with \"%s\"", because);
	if (!strstr(err.text, because))
		fail_msg("\"%s\" does not say \"%s\"", err.text, because);
	json_decref(raw);
}

static void refused(const char *text, const char *because)
{
	struct kvm_limits with = limits();

	refused_with(&with, parse(text), because);
}

/* ---- completing ------------------------------------------------------------------------------------- */

static void test_defaults(void **state)
{
	struct kvm_limits again = limits();
	json_t *spec = complete("{}"), *twice;
	struct nova_error err;

	assert_string_equal(kvm_spec_text(spec, "machine"), "pc-i440fx-7.2");
	assert_string_equal(kvm_spec_text(spec, "cpu"), "max");
	assert_string_equal(kvm_spec_text(spec, "accel"), "tcg");
	assert_int_equal(kvm_spec_int(spec, "memory"), 512 * KVM_MIB);
	assert_int_equal(kvm_spec_int(spec, "max-memory"), 512 * KVM_MIB);
	assert_int_equal(kvm_spec_int(spec, "serial"), 2);
	assert_true(json_is_true(json_object_get(spec, "balloon")));
	again.incoming = true;
	twice = kvm_spec_complete(spec, &again, &err);
	assert_non_null(twice);
	assert_true(json_equal(spec, twice));
	json_decref(twice);
	json_decref(spec);
}

static void test_microvm(void **state)
{
	json_t *spec = complete("{\"machine\":\"microvm\"}");

	assert_int_equal(kvm_spec_int(spec, "serial"), 1);
	assert_true(json_is_false(json_object_get(spec, "balloon")));
	json_decref(spec);
	refused("{\"machine\":\"microvm\",\"serial\":2}", "one serial port");
	refused("{\"machine\":\"microvm\",\"vnc\":\"socket\"}", "no screen");
	refused("{\"machine\":\"microvm\",\"max-vcpus\":2}", "no hot-plug");
}

/* Without a version in its name, a machine type is only the same in the same release. */
static void test_unversioned_machine(void **state)
{
	struct kvm_limits with = limits();
	json_t *spec = complete("{\"machine\":\"microvm\"}"), *same;

	with.incoming = true;
	json_object_set_new(spec, "qemu-version", json_string("7.2.1"));
	same = kvm_spec_complete(spec, &with, NULL);
	assert_non_null(same);
	json_decref(same);
	json_object_set_new(spec, "qemu-version", json_string("8.1.0"));
	refused_with(&with, spec, "QEMU 8.1.0 differs from QEMU 7.2.22");
}

static void test_refusals(void **state)
{
	refused("{\"machine\":\"virt\"}", "machine type virt is not there");
	refused("{\"machine\":\"none\"}", "machine type none");
	refused("{\"machine\":\"pc-i440fx-9.0\"}", "one of pc-i440fx-7.2");
	refused("{\"cpu\":\"Skylake\"}", "CPU model Skylake is not there");
	refused("{\"cpu\":\"Haswell\"}", "lacks hle (2 features)");
	refused("{\"cpu\":\"max -S\"}", "characters");
	refused("{\"accel\":\"kvm\"}", "accelerator kvm is not there, only tcg");
	refused("{\"memory\":1048576}", "memory");
	refused("{\"memory\":134217729}", "multiple of 1 MiB");
	refused("{\"memory\":268435456,\"max-memory\":134217728}", "less than memory");
	refused("{\"memory\":134217728,\"max-memory\":200278016}", "steps of 128 MiB");
	refused("{\"vcpus\":4,\"max-vcpus\":2}", "less than vcpus");
	refused("{\"max-vcpus\":256}", "max-vcpus");
	refused("{\"hotplug-ports\":1}", "only q35");
	refused("{\"initrd\":\"/x\"}", "outside of the roots");
	refused("{\"cmdline\":\"quiet\"}", "give kernel too");
	refused("{\"colour\":\"red\"}", "unknown option colour");
	refused("{\"vcpus\":\"two\"}", "vcpus");
	refused("[]", "JSON object");
}

static void test_allow_lists(void **state)
{
	struct kvm_limits with = limits();
	json_t *q35 = json_pack("[s]", "q35"), *models = json_pack("[s]", "qemu64"), *spec;

	with.machines = q35;
	refused_with(&with, parse("{}"), "not among those allowed here (machines)");
	with.machines = NULL;
	with.cpu_models = models;
	refused_with(&with, parse("{}"), "not among those allowed here (cpu-models)");
	spec = kvm_spec_complete(NULL, &with, NULL);
	assert_null(spec);
	json_decref(q35);
	json_decref(models);
}

static void test_networks(void **state)
{
	json_t *spec =
	    complete("{\"net\":[\"user\",\"type=tap,ifname=tap7,mac=52:54:00:aa:bb:cc\",\"none\"]}");
	json_t *nets = json_object_get(spec, "net");

	assert_int_equal(json_array_size(nets), 2);
	assert_int_equal(strncmp(kvm_spec_text(json_array_get(nets, 0), "mac"), "52:54:00:", 9), 0);
	assert_string_equal(kvm_spec_text(json_array_get(nets, 1), "ifname"), "tap7");
	json_decref(spec);
	refused("{\"net\":[\"tap\"]}", "ifname");
	refused("{\"net\":[\"user,ifname=x\"]}", "ifname");
	refused("{\"net\":[\"user,mac=01:00:00:00:00:01\"]}", "no unicast address");
	refused("{\"net\":[\"user,mac=52:54:00:12:34:56,script=/bin/sh\"]}", "unknown option script");
	refused("{\"net\":[\"type=tap,ifname=a,script=x\"]}", "unknown option script");
}

/* ---- files -------------------------------------------------------------------------------------------- */

static json_t *with_disk(const char *disk)
{
	return json_pack("{s:[s]}", "disk", disk);
}

static void test_disks(void **state)
{
	struct kvm_limits with = limits();
	char text[300];
	json_t *raw, *spec, *disk, *needs;
	struct nova_error err;

	snprintf(text, sizeof(text), "path=%s,size=1M,shared=on", in_root("new.qcow2"));
	raw = with_disk(text);
	spec = kvm_spec_complete(raw, &with, &err);
	if (!spec)
		fail_msg("%s", err.text);
	disk = json_array_get(json_object_get(spec, "disk"), 0);
	assert_string_equal(kvm_spec_text(disk, "format"), "qcow2");
	assert_true(json_is_true(json_object_get(disk, "owned")));
	needs = kvm_spec_needs(spec);
	assert_int_equal(kvm_spec_int(needs, "disk_bytes"), 1 << 20);
	json_decref(needs);
	json_decref(spec);
	with.incoming = true;
	refused_with(&with, raw, "must be on shared storage");
	snprintf(text, sizeof(text), "%s", in_root("gone.raw"));
	with.incoming = false;
	refused_with(&with, with_disk(text), "say size=SIZE");
	refused_with(&with, with_disk("relative.raw"), "absolute path");
	snprintf(text, sizeof(text), "%s,size=9M", in_root("vmlinuz"));
	refused_with(&with, with_disk(text), "exists and has 6 bytes");
	snprintf(text, sizeof(text), "%s,format=vmdk", in_root("vmlinuz"));
	refused_with(&with, with_disk(text), "format");
}

static void test_roots(void **state)
{
	struct nova_error err;
	char path[300];

	assert_int_equal(kvm_path_existing(roots, "kernel", in_root("vmlinuz"), &err), 6);
	assert_int_equal(kvm_path_existing(roots, "kernel", outside, &err), -1);
	assert_non_null(strstr(err.text, "outside of the roots (/nonexistent/images, "));
	snprintf(path, sizeof(path), "%s/../%s", root, strrchr(outside, '/') + 1);
	assert_int_equal(kvm_path_existing(roots, "kernel", path, &err), -1);
	assert_non_null(strstr(err.text, "outside of the roots"));
	assert_int_equal(symlink(outside, in_root("link")), 0);
	assert_int_equal(kvm_path_existing(roots, "kernel", in_root("link"), &err), -1);
	assert_non_null(strstr(err.text, "outside of the roots"));
	assert_int_equal(symlink("vmlinuz", in_root("good")), 0);
	assert_int_equal(kvm_path_existing(roots, "kernel", in_root("good"), &err), 6);
	assert_int_equal(kvm_path_existing(roots, "kernel", root, &err), -1);
	assert_int_equal(kvm_path_existing(NULL, "kernel", "/x", &err), -1);
	assert_non_null(strstr(err.text, "(roots)"));
	assert_int_equal(kvm_path_creatable(roots, "disk", in_root("new"), &err), 0);
	assert_int_equal(kvm_path_creatable(roots, "disk", in_root("vmlinuz"), &err), 1);
	assert_int_equal(kvm_path_creatable(roots, "disk", in_root("no/dir"), &err), -1);
	assert_int_equal(kvm_path_creatable(roots, "disk", in_root("link/x"), &err), -1);
	snprintf(path, sizeof(path), "%s-evil/x", root); /* the root's name is only its beginning */
	assert_int_equal(kvm_path_creatable(roots, "disk", path, &err), -1);
	unlink(in_root("link"));
	unlink(in_root("good"));
}

static void qcow2_image(const char *path, uint32_t version, const char *backing, uint8_t incompatible)
{
	uint8_t bytes[1200] = { 'Q', 'F', 'I', 0xfb };
	size_t length = strlen(backing);

	bytes[7] = (uint8_t)version;
	if (length) {
		bytes[14] = 104 >> 8;
		bytes[15] = 104;
		bytes[18] = (uint8_t)(length >> 8);
		bytes[19] = (uint8_t)length;
		memcpy(bytes + 104, backing, length);
	}
	bytes[29] = 0x10; /* 1 MiB */
	bytes[79] = incompatible;
	write_file(path, bytes, sizeof(bytes));
}

static void qcow2_refused(const char *path, const char *because)
{
	struct nova_error err;

	assert_int_equal(kvm_path_qcow2(roots, path, &err), -1);
	if (!strstr(err.text, because))
		fail_msg("\"%s\" does not say \"%s\"", err.text, because);
}

static void test_qcow2(void **state)
{
	char path[100];
	uint8_t bytes[104] = { 'Q', 'F', 'I', 0xfb, 0, 0, 0, 3 };
	struct nova_error err;

	snprintf(path, sizeof(path), "%s/a.qcow2", root);
	qcow2_image(path, 3, "", 0);
	assert_int_equal(kvm_path_qcow2(roots, path, &err), 1 << 20);
	qcow2_image(in_root("b.qcow2"), 3, "a.qcow2", 0);
	assert_int_equal(kvm_path_qcow2(roots, in_root("b.qcow2"), &err), 1 << 20);
	qcow2_image(path, 3, "vmlinuz", 0); /* raw below */
	assert_int_equal(kvm_path_qcow2(roots, in_root("b.qcow2"), &err), 1 << 20);
	qcow2_image(path, 3, "/etc/passwd", 0);
	qcow2_refused(in_root("b.qcow2"), "backing file /etc/passwd is outside of the roots");
	qcow2_image(path, 3, "json:{\"driver\":\"nbd\"}", 0);
	qcow2_refused(path, "not a plain file");
	qcow2_image(path, 3, "nbd://host/x", 0);
	qcow2_refused(path, "not a plain file");
	qcow2_image(path, 3, "a.qcow2", 0);
	qcow2_refused(path, "more than 64 backing files");
	qcow2_image(path, 3, "", 4);
	qcow2_refused(path, "data in another file");
	memset(bytes + 16, 0xff, 4); /* a name of 4 GiB */
	bytes[15] = 104;
	write_file(path, bytes, sizeof(bytes));
	qcow2_refused(path, "damaged");
	bytes[16] = bytes[17] = bytes[18] = 0; /* beyond the end of the file */
	bytes[8] = 0x7f;
	write_file(path, bytes, sizeof(bytes));
	qcow2_refused(path, "damaged");
	write_file(path, bytes, 20);
	qcow2_refused(path, "not a qcow2 image");
	qcow2_refused(in_root("vmlinuz"), "not a qcow2 image");
}

/* ---- command lines ------------------------------------------------------------------------------------ */

static const struct kvm_argv_options options = {
	.program = "qemu",
	.name = "g1",
	.uuid = "6d1bd3a8-9a07-4ab8-8b1e-6f1c0c5f2a11",
	.home = "/run/n/guests/g,1",
	.sandbox = "on",
};

static void build(struct kvm_argv *argv, const json_t *spec, bool incoming)
{
	struct kvm_argv_options with = options;
	struct nova_error err;

	with.incoming = incoming;
	assert_int_equal(kvm_argv_build(argv, spec, &with, &err), 0);
}

static const char *after(const struct kvm_argv *argv, const char *option, int nth)
{
	for (size_t i = 0; i + 1 < argv->count; i++)
		if (strcmp(argv->word[i], option) == 0 && nth-- == 0)
			return argv->word[i + 1];
	return NULL;
}

static bool has(const struct kvm_argv *argv, const char *word)
{
	for (size_t i = 0; i < argv->count; i++)
		if (strcmp(argv->word[i], word) == 0)
			return true;
	return false;
}

static void test_argv(void **state)
{
	char text[500];
	struct kvm_argv argv;
	json_t *spec;

	snprintf(text, sizeof(text),
	    "{\"machine\":\"q35\",\"memory\":268435456,\"max-memory\":536870912,\"kernel\":\"%s\","
	    "\"cmdline\":\"a,b c\","
	    "\"disk\":[\"path=%s,size=1M,cache=directsync\"],\"net\":\"user,mac=52:54:00:12:34:56\",\"rng\":"
	    "true}",
	    in_root("vmlinuz"), in_root("d.raw"));
	spec = complete(text);
	build(&argv, spec, false);
	assert_true(has(&argv, "-nodefaults") && has(&argv, "-no-user-config") && has(&argv, "-S"));
	assert_false(has(&argv, "-incoming"));
	assert_string_equal(after(&argv, "-machine", 0), "pc-q35-7.2,dump-guest-core=off");
	assert_string_equal(after(&argv, "-m", 0), "size=256M,slots=8,maxmem=512M");
	assert_string_equal(after(&argv, "-append", 0), "a,b c");
	assert_string_equal(after(&argv, "-qmp", 0), "unix:/run/n/guests/g,,1/qmp.sock,server=on,wait=off");
	assert_string_equal(after(&argv, "-sandbox", 0), "on");
	assert_non_null(strstr(after(&argv, "-blockdev", 0), "\"direct\":true"));
	assert_string_equal(
	    after(&argv, "-device", 0), "virtio-blk-pci,id=disk0-device,drive=disk0,write-cache=off");
	assert_string_equal(after(&argv, "-device", 1),
	    "virtio-net-pci,id=net0-device,netdev=net0,mac=52:54:00:12:34:56,romfile=");
	assert_string_equal(after(&argv, "-device", 7), "pcie-root-port,id=port3,chassis=4");
	assert_null(after(&argv, "-device", 8));
	kvm_argv_release(&argv);
	build(&argv, spec, true);
	assert_string_equal(after(&argv, "-incoming", 0), "defer");
	kvm_argv_release(&argv);
	json_decref(spec);
	spec = complete("{\"machine\":\"microvm\",\"rng\":true}");
	build(&argv, spec, false);
	assert_string_equal(after(&argv, "-machine", 0), "microvm,dump-guest-core=off,acpi=off");
	assert_string_equal(after(&argv, "-device", 0), "virtio-rng-device,id=rng0-device,rng=rng0");
	kvm_argv_release(&argv);
	json_decref(spec);
}

static const char plugged[] =
    "{\"memory\":134217728,\"max-memory\":402653184,\"max-vcpus\":2,\"hotplug\":{"
    "\"dimms\":[{\"id\":\"dimm0\",\"size\":134217728,\"slot\":0,\"addr\":4294967296}],"
    "\"vcpus\":[{\"id\":\"vcpu0\",\"type\":\"max-x86_64-cpu\",\"props\":{\"socket-id\":1,\"core-id\":0,"
    "\"thread-id\":0}}]}}";

static void test_plugged(void **state)
{
	json_t *spec = complete(plugged);
	struct kvm_argv argv;

	assert_int_equal(kvm_spec_total_memory(spec), 256 * KVM_MIB);
	assert_int_equal(kvm_spec_total_vcpus(spec), 2);
	build(&argv, spec, true);
	assert_string_equal(
	    after(&argv, "-device", 1), "max-x86_64-cpu,id=vcpu0,socket-id=1,core-id=0,thread-id=0");
	assert_string_equal(
	    after(&argv, "-device", 2), "pc-dimm,id=dimm0,memdev=memory-dimm0,slot=0,addr=4294967296");
	kvm_argv_release(&argv);
	json_decref(spec);
}

/* They come over the wire: nothing of it may become more than it says. */
static void test_plugged_damaged(void **state)
{
	refused("{\"hotplug\":{\"dimms\":[{\"id\":\"a,b=c\",\"size\":134217728,\"slot\":0,\"addr\":1}]}}",
	    "damaged");
	refused("{\"hotplug\":{\"dimms\":[{\"id\":\"a\",\"size\":5,\"slot\":0,\"addr\":1}]}}", "damaged");
	refused("{\"hotplug\":{\"dimms\":[{\"id\":\"a\",\"size\":134217728,\"slot\":99,\"addr\":1}]}}",
	    "damaged");
	refused("{\"hotplug\":{\"dimms\":[7]}}", "damaged");
	refused("{\"hotplug\":{\"vcpus\":[{\"id\":\"a\",\"type\":\"x,y\",\"props\":{}}]}}", "damaged");
	refused("{\"hotplug\":{\"vcpus\":[{\"id\":\"a\",\"type\":\"x\",\"props\":{\"a,b\":1}}]}}", "damaged");
	refused("{\"hotplug\":{\"dimms\":[{\"id\":\"a\",\"size\":134217728,\"slot\":0,\"addr\":1}]}}",
	    "more was plugged in");
}

/* ---- other people's command lines ---------------------------------------------------------------------- */

/* Our own command line, read back, is the specification it was made from. */
static void test_own_words(void **state)
{
	char text[400];
	struct kvm_argv argv;
	json_t *spec, *back, *unknown = json_array(), *again;
	struct kvm_limits with = limits();

	snprintf(text, sizeof(text),
	    "{\"kernel\":\"%s\",\"cmdline\":\"x\",\"disk\":[\"path=%s,format=raw\"],\"rng\":true,"
	    "\"net\":\"user,mac=52:54:00:12:34:56\",\"vcpus\":2,\"max-vcpus\":4,\"serial\":3}",
	    in_root("vmlinuz"), in_root("vmlinuz"));
	spec = complete(text);
	build(&argv, spec, false);
	back = kvm_spec_of_words(argv.word, "pc-i440fx-7.2", unknown);
	if (json_array_size(unknown))
		fail_msg("unknown: %s", json_string_value(json_array_get(unknown, 0)));
	again = kvm_spec_complete(back, &with, NULL);
	assert_non_null(again);
	json_object_set_new(json_array_get(json_object_get(spec, "disk"), 0), "readonly", json_false());
	assert_true(json_equal(again, spec));
	kvm_argv_release(&argv);
	json_decref(spec);
	json_decref(back);
	json_decref(again);
	json_decref(unknown);
}

static void unknown_in(char *const word[], const char *what)
{
	json_t *unknown = json_array(), *spec = kvm_spec_of_words(word, "pc-i440fx-7.2", unknown), *item;
	bool found = !what && json_array_size(unknown) == 0;
	size_t i;

	json_array_foreach (unknown, i, item)
		found |= what && strstr(json_string_value(item), what);
	if (!found)
		fail_msg("\"%s\" is not among %zu unknown options (first: %s)", what ? what : "nothing",
		    json_array_size(unknown), json_string_value(json_array_get(unknown, 0)));
	json_decref(spec);
	json_decref(unknown);
}

#define WORDS(...) ((char *const[]) { "qemu", "-nodefaults", __VA_ARGS__, NULL })

static void test_foreign_words(void **state)
{
	char *const nothing[] = { "qemu", NULL };

	unknown_in(WORDS("-m", "256", "-serial", "stdio", "-S", "-daemonize"), NULL);
	unknown_in(nothing, "default devices");
	unknown_in(WORDS("-usb"), "-usb");
	unknown_in(WORDS("-device", "e1000,netdev=n"), "-device e1000");
	unknown_in(WORDS("-device", "virtio-balloon-pci,addr=0x9"), "addr=0x9");
	unknown_in(WORDS("-smp", "2"), "-smp 2");
	unknown_in(WORDS("-smp", "2,sockets=2"), NULL);
	unknown_in(WORDS("-drive", "file=/a,if=virtio"), "-drive");
	unknown_in(WORDS("-drive", "file=/a,if=virtio,format=raw"), NULL);
	unknown_in(WORDS("-netdev", "user,id=n", "-device", "virtio-net-pci,netdev=n,mac=52:54:00:12:34:56"),
	    "virtio-net");
	unknown_in(WORDS("-device", "virtio-balloon-pci", "-drive", "file=/a,if=virtio,format=raw"),
	    "another order");
	unknown_in(WORDS("-machine", "pc,vmport=off"), "vmport");
	unknown_in(WORDS("--device", "virtio-balloon-pci"), NULL);
	unknown_in(WORDS("-m"), "-m");
}

/* ---- small things -------------------------------------------------------------------------------------- */

static void test_option_words(void **state)
{
	json_t *words = kvm_option_words("socket,id=s,path=/a,,b,server");

	assert_string_equal(kvm_spec_text(words, ""), "socket");
	assert_string_equal(kvm_spec_text(words, "path"), "/a,b");
	assert_string_equal(kvm_spec_text(words, "server"), "on");
	json_decref(words);
}

static void test_sample(void **state)
{
	json_t *info =
	    parse("{\"status\":\"active\",\"total-time\":7,\"ram\":{\"remaining\":8192,\"page-size\":4096,"
	          "\"dirty-pages-rate\":10,\"dirty-sync-count\":3,\"duplicate\":5}}");
	json_t *sample = kvm_migration_sample(info), *none = kvm_migration_sample(NULL);

	assert_string_equal(kvm_spec_text(sample, "status"), "active");
	assert_int_equal(kvm_spec_int(sample, "remaining_bytes"), 8192);
	assert_int_equal(kvm_spec_int(sample, "dirty_bytes_per_s"), 40960);
	assert_int_equal(kvm_spec_int(sample, "iteration"), 3);
	assert_int_equal(kvm_spec_int(sample, "zero_pages"), 5);
	assert_int_equal(kvm_spec_int(sample, "total_ms"), 7);
	assert_string_equal(kvm_spec_text(none, "status"), "none");
	json_decref(info);
	json_decref(sample);
	json_decref(none);
}

static void test_states(void **state)
{
	assert_int_equal(kvm_state_of("running", ""), NOVA_GUEST_RUNNING);
	assert_int_equal(kvm_state_of("prelaunch", ""), NOVA_GUEST_PAUSED);
	assert_int_equal(kvm_state_of("postmigrate", "source"), NOVA_GUEST_MIGRATED);
	assert_int_equal(kvm_state_of("inmigrate", ""), NOVA_GUEST_INCOMING);
	assert_int_equal(kvm_state_of("paused", "destination"), NOVA_GUEST_INCOMING);
	assert_int_equal(kvm_state_of("internal-error", ""), NOVA_GUEST_FAILED);
}

static void test_commands_allowed(void **state)
{
	assert_true(kvm_qmp_allowed("query-status"));
	assert_true(kvm_qmp_allowed("transaction"));
	assert_false(kvm_qmp_allowed("human-monitor-command"));
	assert_false(kvm_qmp_allowed("add_client"));
	assert_false(kvm_qmp_allowed(""));
}

static void test_log_tail(void **state)
{
	char text[64];

	write_file(in_root("log"), "first\nse\033cond\n\n", 15);
	kvm_log_tail(in_root("log"), text, sizeof(text));
	assert_string_equal(text, "first; second");
	kvm_log_tail(in_root("nothing"), text, sizeof(text));
	assert_string_equal(text, "");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_defaults),
		cmocka_unit_test(test_microvm),
		cmocka_unit_test(test_unversioned_machine),
		cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_allow_lists),
		cmocka_unit_test(test_networks),
		cmocka_unit_test(test_disks),
		cmocka_unit_test(test_roots),
		cmocka_unit_test(test_qcow2),
		cmocka_unit_test(test_argv),
		cmocka_unit_test(test_plugged),
		cmocka_unit_test(test_plugged_damaged),
		cmocka_unit_test(test_own_words),
		cmocka_unit_test(test_foreign_words),
		cmocka_unit_test(test_option_words),
		cmocka_unit_test(test_sample),
		cmocka_unit_test(test_states),
		cmocka_unit_test(test_commands_allowed),
		cmocka_unit_test(test_log_tail),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
