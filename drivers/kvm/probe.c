/* SPDX-License-Identifier: Apache-2.0
 *
 * probe.c - what the QEMU on this host can do, asked from itself.
 *
 * A QEMU without a machine (-M none) is started for some 200 ms, tells its version, machine types, CPU models
 * and migration capabilities for one accelerator, and quits. The answer is kept until the program file
 * changes.
 */
#include "kvm.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>

/* ---- the program ---------------------------------------------------------------------------------- */

/* name as the shell would find it; new string or NULL. */
static char *find_program(const char *name)
{
	NOVA_AUTOFREE char *path = strdup(getenv("PATH") ?: "/usr/bin:/bin");
	char *rest = path, *dir;

	if (strchr(name, '/'))
		return access(name, X_OK) == 0 ? strdup(name) : NULL;
	while (path && (dir = strsep(&rest, ":"))) {
		char *full = NULL;

		if (asprintf(&full, "%s/%s", dir, name) < 0)
			return NULL;
		if (access(full, X_OK) == 0)
			return full;
		free(full);
	}
	return NULL;
}

static int64_t changed_at(const char *path)
{
	struct stat st;

	if (stat(path, &st) < 0)
		return -1;
	return (int64_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec;
}

static enum kvm_accel accel_index(const char *accel)
{
	return strcmp(accel, "kvm") == 0 ? KVM_ACCEL_KVM : KVM_ACCEL_TCG;
}

#define CPUID_ENTRIES 256
#define CPUID_1_ECX_SSE3 1u

/* Every processor with VMX or SVM has SSE3, and every guest kernel relies on what comes with them. A KVM that
 * does not offer it (page-table based ones do not) runs firmware at best: guests hang in their boot. */
static const char *why_not_hardware(int fd)
{
	NOVA_AUTOFREE struct kvm_cpuid2 *cpuid = calloc(1, sizeof(*cpuid) + CPUID_ENTRIES * sizeof(*cpuid->entries));

	if (!cpuid)
		return strerrordesc_np(ENOMEM);
	cpuid->nent = CPUID_ENTRIES;
	if (ioctl(fd, KVM_GET_SUPPORTED_CPUID, cpuid) < 0)
		return strerrordesc_np(errno);
	for (uint32_t i = 0; i < cpuid->nent; i++)
		if (cpuid->entries[i].function == 1 && !(cpuid->entries[i].ecx & CPUID_1_ECX_SSE3))
			return "no hardware virtualization behind it (it offers no SSE3)";
	return NULL;
}

static const char *why_no_kvm(void)
{
	NOVA_AUTOCLOSE int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);

	return fd >= 0 ? why_not_hardware(fd) : strerrordesc_np(errno);
}

static const char *settle_accel(const char *accel)
{
	if (strcmp(accel, "auto") != 0)
		return accel;
	return why_no_kvm() ? "tcg" : "kvm";
}

const json_t *kvm_probe_facts(struct kvm *kvm, const char *accel)
{
	const json_t *facts = kvm->facts[accel_index(settle_accel(accel))];

	return facts && changed_at(kvm_spec_text(facts, "path")) == kvm_spec_int(facts, "changed") ? facts
	                                                                                           : NULL;
}

/* ---- asking --------------------------------------------------------------------------------------- */

/* What is asked, in this order, and where the answer goes. */
static const struct {
	const char *command;
	const char *member;
} questions[] = {
	{ "query-version", "version" },
	{ "query-machines", "machines" },
	{ "query-cpu-definitions", "cpus" },
	{ "query-migrate-capabilities", "capabilities" },
	{ "quit", NULL },
};

static json_t *version_text(const json_t *answer)
{
	const json_t *qemu = json_object_get(answer, "qemu");

	return json_sprintf("%d.%d.%d", (int)kvm_spec_int(qemu, "major"), (int)kvm_spec_int(qemu, "minor"),
	    (int)kvm_spec_int(qemu, "micro"));
}

static enum nova_step_result answered(struct kvm_task *task, json_t *value, struct nova_error *err)
{
	size_t index = (size_t)kvm_spec_int(task->notes, "question");
	json_t *facts = json_object_get(task->notes, "facts");

	if (strcmp(questions[index].command, "query-version") == 0)
		json_object_set_new(facts, "version", version_text(value));
	else if (questions[index].member)
		json_object_set(facts, questions[index].member, value);
	else
		return NOVA_STEP_WAIT; /* for its end */
	index++;
	json_object_set_new(task->notes, "question", json_integer((json_int_t)index));
	return kvm_task_qmp(task, questions[index].command, NULL, answered, err);
}

static void probe_name(const struct kvm_task *task, char *name, size_t size)
{
	snprintf(name, size, ".probe-%d", (int)kvm_spec_int(task->notes, "number"));
}

/* It is over, one way or the other. */
static void probe_over(struct kvm_task *task, const struct nova_error *failure)
{
	kvm_probe_drop(NULL, task);
	kvm_task_end_row(task, failure ? NOVA_STEP_FAILED : NOVA_STEP_DONE, failure);
}

static void probe_ready(void *arg)
{
	struct kvm_task *task = arg;
	struct nova_error err;

	if (kvm_task_qmp(task, questions[0].command, NULL, answered, &err) == NOVA_STEP_FAILED)
		probe_over(task, &err);
}

static void probe_event(void *arg, const char *name, json_t *data)
{
}

static void probe_lost(void *arg, const struct nova_error *failure)
{
	struct kvm_task *task = arg;

	if (!questions[kvm_spec_int(task->notes, "question")].member)
		return; /* it was told to quit */
	probe_over(task, failure);
}

static void probe_exited(void *arg, const struct nova_exit *how)
{
	struct kvm_task *task = arg;
	const char *accel = kvm_spec_text(task->notes, "accel");
	char name[32], log[PATH_MAX], tail[256] = "";
	struct nova_error err;

	if (!questions[kvm_spec_int(task->notes, "question")].member) {
		json_t **facts = &task->kvm->facts[accel_index(accel)];

		json_decref(*facts);
		*facts = json_incref(json_object_get(task->notes, "facts"));
		probe_over(task, NULL);
		return;
	}
	probe_name(task, name, sizeof(name));
	if (kvm_guest_log_path(task->kvm, name, log, sizeof(log), NULL) == 0)
		kvm_log_tail(log, tail, sizeof(tail));
	nova_error_set(&err, NOVA_REFUSED, "%s cannot run here with accelerator %s: %s", task->kvm->qemu,
	    accel, *tail ? tail : "it gave no reason");
	probe_over(task, &err);
}

static int probe_spawn(struct kvm_task *task, const char *program, struct nova_error *err)
{
	static const struct kvm_qemu_events events = {
		.ready = probe_ready,
		.event = probe_event,
		.lost = probe_lost,
		.exited = probe_exited,
	};
	char name[32], socket[PATH_MAX], log[PATH_MAX], monitor[PATH_MAX + 64];
	const char *accel = kvm_spec_text(task->notes, "accel");
	const char *argv[] = { program, "-M", "none", "-accel", accel, "-nodefaults", "-no-user-config",
		"-display", "none", "-qmp", monitor, NULL };

	probe_name(task, name, sizeof(name));
	if (kvm_guest_make_dirs(task->kvm, name, err) < 0 ||
	    kvm_guest_socket(task->kvm, name, "qmp.sock", socket, sizeof(socket), err) < 0 ||
	    kvm_guest_log_path(task->kvm, name, log, sizeof(log), err) < 0)
		return -1;
	snprintf(monitor, sizeof(monitor), "unix:%s,server=on,wait=off", socket);
	task->probe = calloc(1, sizeof(*task->probe));
	if (!task->probe)
		return nova_error_sys(err, ENOMEM, "no memory to ask QEMU");
	kvm_qemu_init(task->probe, task->kvm, &events, task);
	if (kvm_qemu_spawn(task->probe, (char *const *)argv, log, err) < 0)
		return -1;
	return kvm_qemu_connect(task->probe, socket, KVM_START_LIMIT_MS, err);
}

/* What the specification says, then the configuration, then what there is. */
static const char *wanted_accel(const struct kvm_task *task)
{
	const char *accel = kvm_spec_accel(task->notes), *configured = kvm_config_text(task->kvm, "accel");

	if (strcmp(accel, "auto") == 0 && configured)
		accel = configured;
	return settle_accel(accel);
}

enum nova_step_result kvm_probe_row(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct kvm_task *task = ctx;
	char accel[8];
	NOVA_AUTOFREE char *program = find_program(task->kvm->qemu);
	json_t *facts;

	snprintf(accel, sizeof(accel), "%s", wanted_accel(task));
	json_object_set_new(task->notes, "accel", json_string(accel));
	if (!program) {
		nova_error_set(
		    err, NOVA_REFUSED, "no %s on this host: install QEMU or set qemu", task->kvm->qemu);
		return NOVA_STEP_FAILED;
	}
	if (kvm_probe_facts(task->kvm, accel))
		return NOVA_STEP_DONE;
	json_object_set_new(task->notes, "number", json_integer(++task->kvm->probes));
	json_object_set_new(task->notes, "question", json_integer(0));
	facts = json_pack(
	    "{s:s,s:s,s:I}", "accel", accel, "path", program, "changed", (json_int_t)changed_at(program));
	json_object_set_new(task->notes, "facts", facts);
	return probe_spawn(task, program, err) < 0 ? NOVA_STEP_FAILED : NOVA_STEP_WAIT;
}

void kvm_probe_drop(struct nova_run *run, void *ctx)
{
	struct kvm_task *task = ctx;
	char name[32];

	kvm_task_stop_waiting(run, task);
	if (!task->probe)
		return;
	kvm_qemu_kill(task->probe);
	kvm_qemu_release(task->probe);
	free(nova_take(&task->probe));
	probe_name(task, name, sizeof(name));
	kvm_guest_remove_dirs(task->kvm, name);
}

/* ---- verbs ---------------------------------------------------------------------------------------- */

static json_t *names_of(const json_t *list, const char *member)
{
	json_t *names = json_array(), *item;
	size_t i;

	json_array_foreach ((json_t *)list, i, item)
		json_array_append(names, json_object_get(item, member));
	return names;
}

static json_t *verbs_here(const struct kvm *kvm)
{
	extern const struct nova_driver nova_driver_kvm;
	NOVA_AUTOFREE char *qemu_img = find_program(kvm_qemu_img(kvm));
	json_t *verbs = json_object();

	for (int verb = 0; verb < NOVA_VERBS; verb++)
		json_object_set_new(verbs, nova_verb_name(verb),
		    nova_driver_kvm.verb[verb] ? json_true() : json_string("not supported by kvm"));
	if (!qemu_img) {
		json_object_set_new(
		    verbs, "create", json_string("only with disks that exist: qemu-img is not installed"));
		json_object_set_new(
		    verbs, "snapshot", json_string("only of running guests: qemu-img is not installed"));
	}
	return verbs;
}

static enum nova_step_result tell_found(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct kvm_task *task = ctx;
	const json_t *facts = kvm_probe_facts(task->kvm, kvm_spec_text(task->notes, "accel"));
	const char *no_kvm = why_no_kvm();

	json_decref(task->result);
	task->result = json_pack("{s:b,s:O,s:o,s:{s:O,s:O,s:o,s:o,s:o,s:o}}", "found", true, "version",
	    json_object_get(facts, "version"), "verbs", verbs_here(task->kvm), "facts", "program",
	    json_object_get(facts, "path"), "accel", json_object_get(facts, "accel"), "kvm",
	    no_kvm ? json_sprintf("/dev/kvm: %s", no_kvm) : json_true(), "machines",
	    names_of(json_object_get(facts, "machines"), "name"), "cpu-models",
	    names_of(json_object_get(facts, "cpus"), "name"), "migration",
	    names_of(json_object_get(facts, "capabilities"), "capability"));
	return NOVA_STEP_DONE;
}

KVM_VERB(probe)
{
	static const struct nova_step rows[] = {
		{ "ask QEMU", kvm_probe_row, NULL, kvm_probe_drop, KVM_START_LIMIT_MS },
		{ "tell", tell_found },
		{ NULL },
	};
	struct kvm *kvm = self;
	NOVA_AUTOFREE char *program = find_program(kvm->qemu);

	if (!program)
		return nova_op_later(kvm->env.base,
		    json_pack("{s:b,s:o,s:{},s:{}}", "found", false, "why",
		        json_sprintf("no %s in PATH: install QEMU or set qemu", kvm->qemu), "verbs", "facts"),
		    NULL, done, arg, err);
	return kvm_task_new(kvm, guest, args, rows, done, arg, err);
}

/* Postcopy's destination needs it. */
static const char *why_no_userfaultfd(void)
{
	NOVA_AUTOCLOSE int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);

	return fd >= 0 ? NULL : strerrordesc_np(errno);
}

static void tell_capability(
    json_t *into, const char *name, const json_t *capabilities, const char *needed, const char *why_not)
{
	bool there = false;
	json_t *item;
	size_t i;

	json_array_foreach ((json_t *)capabilities, i, item)
		there |= strcmp(kvm_spec_text(item, "capability") ?: "", needed) == 0;
	if (!there)
		json_object_set_new(into, name, json_sprintf("this QEMU has no capability %s", needed));
	else
		json_object_set_new(into, name, why_not ? json_string(why_not) : json_true());
}

static enum nova_step_result tell_capabilities(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct kvm_task *task = ctx;
	const json_t *facts = kvm_probe_facts(task->kvm, kvm_spec_text(task->notes, "accel"));
	const json_t *have = json_object_get(facts, "capabilities");
	const char *no_fault = why_no_userfaultfd();
	char postcopy[128];

	snprintf(postcopy, sizeof(postcopy), "userfaultfd: %s", no_fault ?: "");
	json_object_set_new(task->result, "cold", json_true());
	tell_capability(task->result, "warm", have, "return-path", NULL);
	tell_capability(task->result, "live", have, "late-block-activate", NULL);
	tell_capability(task->result, "throttle", have, "auto-converge", NULL);
	tell_capability(task->result, "postcopy", have, "postcopy-ram", no_fault ? postcopy : NULL);
	tell_capability(task->result, "multifd", have, "multifd", NULL);
	tell_capability(task->result, "dirty-bitmaps", have, "dirty-bitmaps", NULL);
	json_object_set(task->result, "accel", json_object_get(facts, "accel"));
	return NOVA_STEP_DONE;
}

KVM_VERB(capabilities)
{
	static const struct nova_step rows[] = {
		{ "ask QEMU", kvm_probe_row, NULL, kvm_probe_drop, KVM_START_LIMIT_MS },
		{ "tell", tell_capabilities },
		{ NULL },
	};

	return kvm_task_new(self, guest, args, rows, done, arg, err);
}
