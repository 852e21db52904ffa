/* SPDX-License-Identifier: Apache-2.0
 *
 * confined.c - qemu-img reads images that strangers made: it runs as a child that sees the system's programs, writes
 * below the configured roots and nowhere else, has no network, no new privileges and limits.
 */
#include "kvm.h"

#include "engine/confine.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define LIMIT_MS 120000
#define MEMORY_BYTES ((rlim_t)8 << 30)
#define DESCRIPTORS 256
#define CPU_S 300

/* Where a program that is not one of the system's has its libraries: /opt/qemu/bin/qemu-img -> /opt/qemu. */
static char *prefix_of(const char *program)
{
	char *prefix = program[0] == '/' ? strdup(program) : NULL;

	for (int i = 0; prefix && i < 2; i++)
		if (strrchr(prefix, '/'))
			*strrchr(prefix, '/') = 0;
	return prefix;
}

static struct nova_confinement *confinement_of(
    const struct kvm *kvm, const char *program, const char *directory, struct nova_error *err)
{
	NOVA_AUTOFREE char *prefix = prefix_of(program);
	size_t count = json_array_size(kvm->roots);
	const char *read[] = { "/usr", "/bin", "/lib", "/lib64", "/etc", "/dev/urandom", "/sys/devices/system", prefix && *prefix ? prefix : NULL, NULL };
	NOVA_AUTOFREE const char **write = calloc(count + 3, sizeof(*write));

	if (!write) {
		nova_error_sys(err, ENOMEM, "%s", program);
		return NULL;
	}
	write[0] = "/dev/null";
	for (size_t i = 0; i < count; i++)
		write[i + 1] = json_string_value(json_array_get(kvm->roots, i));
	write[count + 1] = directory;
	return nova_confinement_new(&(struct nova_confine_paths) { read, write }, err);
}

static struct nova_op *run(const struct kvm *kvm, const char *const argv[], const char *directory, nova_done_fn done,
    void *arg, struct nova_error *err)
{
	static const struct nova_child_limit limits[] = {
		{ RLIMIT_CORE, { 0, 0 } },
		{ RLIMIT_AS, { MEMORY_BYTES, MEMORY_BYTES } },
		{ RLIMIT_NOFILE, { DESCRIPTORS, DESCRIPTORS } },
		{ RLIMIT_CPU, { CPU_S, CPU_S } },
	};
	struct nova_confinement *confinement = confinement_of(kvm, argv[0], directory, err);
	const struct nova_child_options options = {
		.limit_ms = directory ? 0 : LIMIT_MS,
		.no_new_privs = true,
		.limits = limits,
		.limit_count = sizeof(limits) / sizeof(*limits) - (directory ? 1 : 0), /* a server's time is not limited */
		.confinement = confinement,
	};
	struct nova_op *op;

	if (!confinement)
		return NULL;
	op = nova_child_run(kvm->env.base, argv, &options, done, arg, err);
	nova_confinement_free(confinement);
	return op;
}

struct nova_op *kvm_run_confined(
    const struct kvm *kvm, const char *const argv[], nova_done_fn done, void *arg, struct nova_error *err)
{
	return run(kvm, argv, NULL, done, arg, err);
}

struct nova_op *kvm_serve_confined(const struct kvm *kvm, const char *const argv[], const char *directory,
    nova_done_fn done, void *arg, struct nova_error *err)
{
	return run(kvm, argv, directory, done, arg, err);
}
