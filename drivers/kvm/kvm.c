/* SPDX-License-Identifier: Apache-2.0
 *
 * kvm.c - the KVM driver: guests are QEMU processes, with KVM where there is one and without it (TCG)
 * elsewhere.
 *
 * One process a guest, driven over its own QMP socket. Guests outlive us: close() and forget() only let go.
 */
#include "kvm.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

void kvm_log(struct kvm *kvm, enum nova_log_level level, const char *format, ...)
{
	char line[600];
	va_list ap;

	va_start(ap, format);
	vsnprintf(line, sizeof(line), format, ap);
	va_end(ap);
	kvm->env.log(kvm->env.log_arg, level, line);
}

const json_t *kvm_config(const struct kvm *kvm, const char *name)
{
	return kvm->env.config ? nova_config_get(kvm->env.config, name) : NULL;
}

const char *kvm_config_text(const struct kvm *kvm, const char *name)
{
	return json_string_value(kvm_config(kvm, name));
}

const char *kvm_qemu_img(const struct kvm *kvm)
{
	const char *program = kvm_config_text(kvm, "qemu-img");

	return program && *program ? program : "qemu-img";
}

static void kvm_close(void *self)
{
	struct kvm *kvm = self;

	while (kvm->guests)
		kvm_guest_drop(kvm, kvm->guests->guest);
	kvm_qemu_forget_dying(kvm);
	for (size_t i = 0; i < sizeof(kvm->facts) / sizeof(*kvm->facts); i++)
		json_decref(kvm->facts[i]);
	json_decref(kvm->roots);
	free(kvm->qemu);
	free((char *)kvm->env.state_dir);
	free((char *)kvm->env.runtime_dir);
	free(kvm);
}

/* Where guests' files may be: as configured, or "images" in the state directory. */
static json_t *roots_of(const struct kvm *kvm)
{
	const json_t *roots = kvm_config(kvm, "roots");

	if (json_array_size(roots) > 0)
		return json_deep_copy(roots);
	return json_pack("[o]", json_sprintf("%s/images", kvm->env.state_dir));
}

static void *kvm_open(const struct nova_driver_env *env, struct nova_error *err)
{
	struct kvm *kvm = calloc(1, sizeof(*kvm));
	const char *program;

	if (!kvm) {
		nova_error_sys(err, ENOMEM, "kvm");
		return NULL;
	}
	kvm->env = *env;
	program = kvm_config_text(kvm, "qemu");
	kvm->env.state_dir = strdup(env->state_dir);
	kvm->env.runtime_dir = strdup(env->runtime_dir);
	kvm->qemu = strdup(program && *program ? program : "qemu-system-x86_64");
	kvm->roots = kvm->env.state_dir ? roots_of(kvm) : NULL;
	if (!kvm->env.state_dir || !kvm->env.runtime_dir || !kvm->qemu || !kvm->roots) {
		kvm_close(kvm);
		nova_error_sys(err, ENOMEM, "kvm");
		return NULL;
	}
	return kvm;
}

static void kvm_forget(void *self, struct nova_guest *guest)
{
	kvm_guest_drop(self, guest);
}

extern const struct nova_driver nova_driver_kvm;
const struct nova_driver nova_driver_kvm = {
	.struct_size = sizeof(struct nova_driver),
	.name = "kvm",
	.help = "virtual machines of QEMU, with KVM where there is one",
	.open = kvm_open,
	.close = kvm_close,
	.forget = kvm_forget,
	.verb = {
		[NOVA_VERB_PROBE] = kvm_probe,
		[NOVA_VERB_CHECK] = kvm_check,
		[NOVA_VERB_CREATE] = kvm_create,
		[NOVA_VERB_START] = kvm_start,
		[NOVA_VERB_STOP] = kvm_stop,
		[NOVA_VERB_DELETE] = kvm_delete,
		[NOVA_VERB_PAUSE] = kvm_pause,
		[NOVA_VERB_RESUME] = kvm_resume,
		[NOVA_VERB_SNAPSHOT] = kvm_snapshot,
		[NOVA_VERB_RESTORE] = kvm_restore,
		[NOVA_VERB_LIST] = kvm_list,
		[NOVA_VERB_ADOPT] = kvm_adopt,
		[NOVA_VERB_REATTACH] = kvm_reattach,
		[NOVA_VERB_STATS] = kvm_stats,
		[NOVA_VERB_RESIZE] = kvm_resize,
		[NOVA_VERB_OUT_PREPARE] = kvm_out_prepare,
		[NOVA_VERB_OUT_START] = kvm_out_start,
		[NOVA_VERB_OUT_QUERY] = kvm_out_query,
		[NOVA_VERB_OUT_SET] = kvm_out_set,
		[NOVA_VERB_OUT_CANCEL] = kvm_out_cancel,
		[NOVA_VERB_IN_PREPARE] = kvm_in_prepare,
		[NOVA_VERB_CAPABILITIES] = kvm_capabilities,
		[NOVA_VERB_ESTIMATE] = kvm_estimate,
		[NOVA_VERB_MIRROR_START] = kvm_mirror_start,
		[NOVA_VERB_MIRROR_QUERY] = kvm_mirror_query,
		[NOVA_VERB_MIRROR_END] = kvm_mirror_end,
		[NOVA_VERB_MIRROR_IN] = kvm_mirror_in,
		[NOVA_VERB_MIRROR_IN_END] = kvm_mirror_in_end,
		[NOVA_VERB_POINT_CLEAR] = kvm_point_clear,
		[NOVA_VERB_POINT_MARK] = kvm_point_mark,
		[NOVA_VERB_POINT_TAKE] = kvm_point_take,
		[NOVA_VERB_POINT_SEND] = kvm_point_send,
		[NOVA_VERB_REPLICA_MAKE] = kvm_replica_make,
		[NOVA_VERB_REPLICA_SERVE] = kvm_replica_serve,
		[NOVA_VERB_REPLICA_MERGE] = kvm_replica_merge,
		[NOVA_VERB_REPLICA_EXPORT] = kvm_replica_export,
	},
	.spec_params = kvm_spec_params,
};
