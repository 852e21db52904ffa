/* SPDX-License-Identifier: Apache-2.0
 *
 * settings.c - a specification as LXC's configuration file.
 *
 * A container of ours keeps the capabilities that Docker leaves its own by default, gains none (no_new_privs),
 * and may use the devices that LXC makes in its /dev and no others. One setting is one line, so nothing with a
 * line end goes in; the command goes to lxc-start as arguments, never into the file.
 */
#include "drivers/lxc/lxc.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

const struct nova_param lxc_spec_params[] = {
	{ "rootfs", NOVA_T_PATH, .required = true, .metavar = "PATH",
	    .help = "root file system: a tar archive (unpacked for the guest) or a directory (used where it is), below the roots" },
	BOX_COMMAND,
	{ "console", NOVA_T_CHOICE, .choices = "log|none", .fallback = "log", .metavar = "WHERE",
	    .help = "where its words go: to its log, or nowhere, which a warm move needs" },
	BOX_ENV,
	BOX_VOLUME,
	BOX_NETWORK,
	BOX_LABEL,
	BOX_WORKDIR,
	BOX_HOSTNAME,
	BOX_SHARES,
	BOX_MEMORY,
	BOX_VCPUS,
	{ NULL },
};

static int no_line_end(const char *what, const char *text, struct nova_error *err)
{
	if (!text || !strpbrk(text, "\n\r"))
		return 0;
	return nova_error_set(err, NOVA_INVALID, "%s: LXC cannot take a line end in it", what);
}

int lxc_settings_check(const json_t *spec, struct nova_error *err)
{
	static const char *const texts[] = { "rootfs", "workdir", "hostname", "network" };
	json_t *item;
	size_t i;

	json_array_foreach (json_object_get(spec, "env"), i, item)
		if (no_line_end("env", json_string_value(item), err) < 0)
			return -1;
	for (i = 0; i < sizeof(texts) / sizeof(*texts); i++)
		if (no_line_end(texts[i], task_text(spec, texts[i]), err) < 0)
			return -1;
	return 0;
}

static void put_network(FILE *out, const char *network)
{
	if (!strcmp(network, "none"))
		fprintf(out, "lxc.net.0.type = empty\n");
	else if (!strcmp(network, "host"))
		fprintf(out, "lxc.net.0.type = none\n");
	else
		fprintf(out, "lxc.net.0.type = veth\nlxc.net.0.link = %s\nlxc.net.0.flags = up\n", network);
}

static void put_devices(FILE *out, const char *prefix)
{
	/* null, zero, full, random, urandom, tty, console, ptmx, pts */
	static const char *const devices[] = { "c 1:3", "c 1:5", "c 1:7", "c 1:8", "c 1:9", "c 5:0", "c 5:1", "c 5:2", "c 136:*" };

	fprintf(out, "%s.devices.deny = a\n", prefix);
	for (size_t i = 0; i < sizeof(devices) / sizeof(*devices); i++)
		fprintf(out, "%s.devices.allow = %s rwm\n", prefix, devices[i]);
}

/* Version 2 has weights of 1 to 10000 for shares of 2 to 262144, 100 for 1024. */
static void put_limits(FILE *out, const json_t *spec)
{
	long long memory = json_integer_value(json_object_get(spec, "memory"));
	long long quota = 100000 * json_integer_value(json_object_get(spec, "vcpus"));
	long long shares = json_integer_value(json_object_get(spec, "cpu-shares")), weight = shares * 100 / 1024;

	if (cgroup_version(CGROUP_MEMORY) == 1)
		fprintf(out, "lxc.cgroup.memory.limit_in_bytes = %lld\n", memory);
	else
		fprintf(out, "lxc.cgroup2.memory.max = %lld\n", memory);
	if (cgroup_version(CGROUP_CPU) == 1) {
		fprintf(out, "lxc.cgroup.cpu.shares = %lld\nlxc.cgroup.cpu.cfs_quota_us = %lld\n", shares, quota);
		put_devices(out, "lxc.cgroup");
	} else {
		fprintf(out, "lxc.cgroup2.cpu.weight = %lld\nlxc.cgroup2.cpu.max = %lld 100000\n",
		    weight < 1 ? 1 : weight > 10000 ? 10000 : weight, quota);
		put_devices(out, "lxc.cgroup2");
	}
}

static void put_volumes(FILE *out, const json_t *spec)
{
	json_t *volume;
	size_t i;

	json_array_foreach (json_object_get(spec, "volume"), i, volume) {
		const char *source = task_text(volume, "source");
		struct stat st;

		fprintf(out, "lxc.mount.entry = %s %s none bind%s,create=%s 0 0\n", source, task_text(volume, "target") + 1,
		    json_is_true(json_object_get(volume, "readonly")) ? ",ro" : "",
		    stat(source, &st) == 0 && S_ISREG(st.st_mode) ? "file" : "dir");
	}
}

char *lxc_settings(const char *name, const char *rootfs, const json_t *spec, struct nova_error *err)
{
	char *text = NULL;
	size_t size = 0, i;
	json_t *item;
	FILE *out;

	if (lxc_settings_check(spec, err) < 0)
		return NULL;
	out = open_memstream(&text, &size);
	if (!out) {
		nova_error_sys(err, ENOMEM, "guest %s", name);
		return NULL;
	}
	fprintf(out, "lxc.uts.name = %s\nlxc.rootfs.path = dir:%s\n", task_text(spec, "hostname") ?: name, rootfs);
	fprintf(out, "lxc.mount.auto = proc:mixed sys:mixed\nlxc.tty.max = 0\nlxc.console.path = none\nlxc.autodev = 1\n");
	fprintf(out, "lxc.signal.halt = SIGTERM\nlxc.no_new_privs = 1\n");
	fprintf(out, "lxc.cap.keep = chown dac_override fowner fsetid kill setgid setuid setpcap net_bind_service net_raw "
		     "sys_chroot mknod audit_write setfcap\n");
	put_network(out, task_text(spec, "network") ?: "none");
	put_limits(out, spec);
	put_volumes(out, spec);
	if (task_text(spec, "workdir"))
		fprintf(out, "lxc.init.cwd = %s\n", task_text(spec, "workdir"));
	json_array_foreach (json_object_get(spec, "env"), i, item)
		fprintf(out, "lxc.environment = %s\n", json_string_value(item));
	fclose(out);
	return text;
}
