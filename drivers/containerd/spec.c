/* SPDX-License-Identifier: Apache-2.0
 *
 * spec.c - what a containerd guest may be made of; a specification as an OCI runtime's configuration, and a
 * container's record as a specification.
 *
 * The configuration is made here, from the specification and from four things that the image says (command,
 * environment, directory, user); nothing else of an image or archive becomes part of it. A container of ours keeps
 * the capabilities that Docker leaves its own by default, gains none (noNewPrivileges), has the usual masks of
 * /proc and /sys, and may use the usual character devices only. Not here: seccomp profiles, user namespaces.
 */
#include "drivers/containerd/containerd.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

const struct nova_param containerd_spec_params[] = {
	{ "image", NOVA_T_STRING, .required = true, .metavar = "IMAGE", .help = "image that containerd has" },
	BOX_COMMAND,
	BOX_ENV,
	BOX_VOLUME,
	BOX_NETWORK,
	BOX_LABEL,
	{ "user", NOVA_T_STRING, .metavar = "UID[:GID]", .help = "user that the command runs as, in numbers" },
	BOX_WORKDIR,
	BOX_HOSTNAME,
	BOX_SHARES,
	BOX_MEMORY,
	BOX_VCPUS,
	{ NULL },
};

#define PATH_DEFAULT "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

int containerd_user(const char *text, unsigned *uid, unsigned *gid, struct nova_error *err)
{
	int used = 0;

	*uid = *gid = 0;
	if (!text || !*text)
		return 0;
	if (strspn(text, "0123456789:") == strlen(text) && strlen(text) < 22 &&
	    ((sscanf(text, "%u:%u%n", uid, gid, &used) == 2 && !text[used]) || (sscanf(text, "%u%n", uid, &used) == 1 && !text[used])))
		return 0;
	return nova_error_set(err, NOVA_INVALID, "user '%.60s': containerd's guests take numbers, UID or UID:GID", text);
}

/* ---- the process ---- */

static json_t *args_of(const json_t *spec, const json_t *image, struct nova_error *err)
{
	json_t *args = json_array();

	if (json_array_size(json_object_get(spec, "command"))) {
		json_array_extend(args, json_object_get(spec, "command"));
	} else {
		json_array_extend(args, json_object_get(image, "Entrypoint"));
		json_array_extend(args, json_object_get(image, "Cmd"));
	}
	if (json_array_size(args))
		return args;
	json_decref(args);
	nova_error_set(err, NOVA_INVALID, "the image has no command of its own: say one (command)");
	return NULL;
}

static bool has_path(const json_t *list)
{
	json_t *item;
	size_t i;

	json_array_foreach ((json_t *)list, i, item)
		if (!strncmp(json_string_value(item) ?: "", "PATH=", 5))
			return true;
	return false;
}

/* The image's, then ours: of two with one name the later counts. */
static json_t *env_of(const json_t *spec, const json_t *image)
{
	json_t *env = json_array();

	json_array_extend(env, json_object_get(image, "Env"));
	json_array_extend(env, json_object_get(spec, "env"));
	if (!has_path(env))
		json_array_insert_new(env, 0, json_string(PATH_DEFAULT));
	return env;
}

static json_t *capabilities(void)
{
	static const char *const names[] = { "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID", "CAP_SETUID",
		"CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_NET_RAW", "CAP_SYS_CHROOT", "CAP_MKNOD", "CAP_AUDIT_WRITE", "CAP_SETFCAP" };
	NOVA_AUTOJSON json_t *list = json_array();

	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
		json_array_append_new(list, json_string(names[i]));
	return json_pack("{s:O,s:O,s:O}", "bounding", list, "effective", list, "permitted", list);
}

static json_t *process_of(const json_t *spec, const json_t *image, struct nova_error *err)
{
	unsigned uid, gid;
	const char *cwd = task_text(spec, "workdir") ?: task_text(image, "WorkingDir") ?: "/";
	json_t *args;

	if (containerd_user(task_text(spec, "user") ?: task_text(image, "User"), &uid, &gid, err) < 0)
		return NULL;
	/* A directory in /proc may be a descriptor of the runtime's that leads to the host. */
	if (*cwd != '/' || !strncmp(cwd, "/proc", 5) || strstr(cwd, "..")) {
		nova_error_set(err, NOVA_INVALID, "workdir '%.120s' of the image: an absolute path outside of /proc is due", cwd);
		return NULL;
	}
	args = args_of(spec, image, err);
	if (!args)
		return NULL;
	return json_pack("{s:b,s:{s:I,s:I},s:o,s:o,s:s,s:o,s:b}", "terminal", false, "user", "uid", (json_int_t)uid, "gid", (json_int_t)gid, "args", args,
	    "env", env_of(spec, image), "cwd", cwd, "capabilities", capabilities(), "noNewPrivileges", true);
}

/* ---- mounts ---- */

static void add_mount(json_t *mounts, const char *target, const char *type, const char *source, const char *options)
{
	json_t *list = json_array();
	char copy[160], *rest = copy, *word;

	snprintf(copy, sizeof(copy), "%s", options);
	while ((word = strsep(&rest, ",")))
		json_array_append_new(list, json_string(word));
	json_array_append_new(mounts, json_pack("{s:s,s:s,s:s,s:o}", "destination", target, "type", type, "source", source, "options", list));
}

static json_t *mounts_of(const json_t *spec)
{
	json_t *mounts = json_array(), *volume;
	size_t i;

	add_mount(mounts, "/proc", "proc", "proc", "nosuid,noexec,nodev");
	add_mount(mounts, "/dev", "tmpfs", "tmpfs", "nosuid,strictatime,mode=755,size=65536k");
	add_mount(mounts, "/dev/pts", "devpts", "devpts", "nosuid,noexec,newinstance,ptmxmode=0666,mode=0620,gid=5");
	add_mount(mounts, "/dev/shm", "tmpfs", "shm", "nosuid,noexec,nodev,mode=1777,size=65536k");
	add_mount(mounts, "/dev/mqueue", "mqueue", "mqueue", "nosuid,noexec,nodev");
	add_mount(mounts, "/sys", "sysfs", "sysfs", "nosuid,noexec,nodev,ro");
	json_array_foreach (json_object_get(spec, "volume"), i, volume)
		add_mount(mounts, task_text(volume, "target"), "bind", task_text(volume, "source"),
		    json_is_true(json_object_get(volume, "readonly")) ? "rbind,rprivate,ro" : "rbind,rprivate,rw");
	return mounts;
}

/* ---- limits ---- */

json_t *containerd_resources(const json_t *spec)
{
	json_int_t memory = json_integer_value(json_object_get(spec, "memory"));
	json_int_t quota = 100000 * json_integer_value(json_object_get(spec, "vcpus"));
	json_t *cpu = json_pack("{s:I,s:I}", "quota", quota, "period", (json_int_t)100000);

	if (json_object_get(spec, "cpu-shares"))
		json_object_set(cpu, "shares", json_object_get(spec, "cpu-shares"));
	return json_pack("{s:{s:I},s:o}", "memory", "limit", memory, "cpu", cpu);
}

static json_t *devices(void)
{
	static const struct {
		int major, minor; /* -1: all */
	} allowed[] = { { 1, 3 }, { 1, 5 }, { 1, 7 }, { 1, 8 }, { 1, 9 }, { 5, 0 }, { 5, 1 }, { 5, 2 }, { 136, -1 } };
	json_t *list = json_pack("[{s:b,s:s}]", "allow", false, "access", "rwm");

	for (size_t i = 0; i < sizeof(allowed) / sizeof(*allowed); i++) {
		json_t *row = json_pack("{s:b,s:s,s:i,s:s}", "allow", true, "type", "c", "major", allowed[i].major, "access", "rwm");

		if (allowed[i].minor >= 0)
			json_object_set_new(row, "minor", json_integer(allowed[i].minor));
		json_array_append_new(list, row);
	}
	return list;
}

static json_t *linux_of(const struct nova_guest *guest, const json_t *spec)
{
	json_t *resources = containerd_resources(spec);
	json_t *spaces = json_pack("[{s:s},{s:s},{s:s},{s:s}]", "type", "pid", "type", "ipc", "type", "uts", "type", "mount");

	json_object_set_new(resources, "devices", devices());
	if (strcmp(task_text(spec, "network") ?: "none", "host"))
		json_array_append_new(spaces, json_pack("{s:s}", "type", "network"));
	return json_pack("{s:o,s:o,s:o,s:[s,s,s,s,s,s,s,s,s],s:[s,s,s,s,s]}", "resources", resources, "cgroupsPath",
	    json_sprintf("/novacron-%s", guest->uuid), "namespaces", spaces, "maskedPaths", "/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys",
	    "/proc/latency_stats", "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware", "readonlyPaths", "/proc/bus", "/proc/fs",
	    "/proc/irq", "/proc/sys", "/proc/sysrq-trigger");
}

json_t *containerd_oci_spec(const struct nova_guest *guest, const json_t *spec, const json_t *config, struct nova_error *err)
{
	json_t *process = process_of(spec, json_object_get(config, "config"), err);

	if (!process)
		return NULL;
	return json_pack("{s:s,s:o,s:{s:s},s:s,s:o,s:o}", "ociVersion", "1.0.2", "process", process, "root", "path", "rootfs", "hostname",
	    task_text(spec, "hostname") ?: guest->name, "mounts", mounts_of(spec), "linux", linux_of(guest, spec));
}

/* ---- from containerd ---- */

static json_t *volumes_of(const json_t *oci, json_t *unknown)
{
	json_t *list = json_array(), *mount, *option;
	size_t i, j;

	json_array_foreach (json_object_get(oci, "mounts"), i, mount) {
		bool readonly = false;

		if (strcmp(task_text(mount, "type") ?: "", "bind"))
			continue;
		json_array_foreach (json_object_get(mount, "options"), j, option)
			readonly = readonly || !strcmp(json_string_value(option) ?: "", "ro");
		json_array_append_new(list,
		    json_pack("{s:O?,s:O?,s:b}", "source", json_object_get(mount, "source"), "target", json_object_get(mount, "destination"), "readonly", readonly));
	}
	return list;
}

static bool has_space(const json_t *oci, const char *type)
{
	json_t *row;
	size_t i;

	json_array_foreach (json_object_get(json_object_get(oci, "linux"), "namespaces"), i, row)
		if (!strcmp(task_text(row, "type") ?: "", type))
			return true;
	return false;
}

static json_t *labels_of(const json_t *container)
{
	json_t *list = json_array(), *value;
	const char *name;

	json_object_foreach (json_object_get(container, "labels"), name, value)
		if (strncmp(name, "novacron.", 9) && strncmp(name, "io.containerd.", 14))
			json_array_append_new(list, json_sprintf("%s=%s", name, json_string_value(value)));
	return list;
}

/* What our own containers never have. */
static void beyond(const json_t *oci, json_t *unknown)
{
	const json_t *process = json_object_get(oci, "process"), *capabilities_had = json_object_get(process, "capabilities");
	NOVA_AUTOJSON json_t *ours = capabilities();
	json_t *item, *own;
	size_t i, j;

	if (!json_is_true(json_object_get(process, "noNewPrivileges")))
		json_array_append_new(unknown, json_string("privileges that it may gain"));
	json_array_foreach (json_object_get(capabilities_had, "bounding"), i, item) {
		bool known = false;

		json_array_foreach (json_object_get(ours, "bounding"), j, own)
			known = known || json_equal(item, own);
		if (!known)
			json_array_append(unknown, item);
	}
	if (json_array_size(json_object_get(json_object_get(oci, "linux"), "devices")))
		json_array_append_new(unknown, json_string("devices"));
	if (json_object_size(json_object_get(oci, "hooks")))
		json_array_append_new(unknown, json_string("hooks"));
	if (!has_space(oci, "pid"))
		json_array_append_new(unknown, json_string("processes of the host"));
}

json_t *containerd_spec_of(const json_t *container, json_t *unknown)
{
	size_t length = 0;
	NOVA_AUTOFREE char *text = grpc_json_data(json_object_get(json_object_get(container, "spec"), "value"), &length);
	NOVA_AUTOJSON json_t *oci = text ? json_loadb(text, length, 0, NULL) : NULL;
	const json_t *process = json_object_get(oci, "process"), *user = json_object_get(process, "user");
	const json_t *resources = json_object_get(json_object_get(oci, "linux"), "resources"), *cpu = json_object_get(resources, "cpu");
	json_int_t period = json_integer_value(json_object_get(cpu, "period")), quota = json_integer_value(json_object_get(cpu, "quota"));
	json_int_t shares = json_integer_value(json_object_get(cpu, "shares"));
	json_t *spec = json_pack("{s:O?,s:O?,s:O?,s:O?,s:s,s:I,s:I,s:I,s:o,s:o}", "image", json_object_get(container, "image"), "command",
	    json_object_get(process, "args"), "env", json_object_get(process, "env"), "workdir", json_object_get(process, "cwd"), "network",
	    has_space(oci, "network") ? "none" : "host", "cpu-shares", shares > 1 ? shares : 1024, "vcpus", quota > 0 && period > 0 ? (quota + period - 1) / period : 1,
	    "memory", json_integer_value(json_object_get(json_object_get(resources, "memory"), "limit")), "volume", volumes_of(oci, unknown), "label",
	    labels_of(container));

	if (json_integer_value(json_object_get(user, "uid")))
		json_object_set_new(spec, "user", json_sprintf("%lld:%lld", (long long)json_integer_value(json_object_get(user, "uid")),
		    (long long)json_integer_value(json_object_get(user, "gid"))));
	beyond(oci, unknown);
	return spec;
}
