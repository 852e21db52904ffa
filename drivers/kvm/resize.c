/* SPDX-License-Identifier: Apache-2.0
 *
 * resize.c - RESIZE: memory by balloon and memory modules, virtual CPUs by hot-plug.
 *
 * Down to what the balloon can take and up to what is plugged in, the balloon does it; above that a module of
 * the missing size is plugged in (steps of 128 MiB, 8 modules), then the balloon is opened. A guest gives
 * memory back in its own time: STATS shows how far it is. What is plugged in becomes part of the
 * specification, so that the destination of a migration, and the next start, have it too. CPUs that were
 * plugged in are not taken out again. A guest that does not run is simply given its new size.
 */
#include "kvm.h"

#include <stdio.h>
#include <string.h>

/* ---- a guest that does not run -------------------------------------------------------------------- */

/* Its modules become part of its base size again. */
static int resize_stopped(struct kvm_task *task, const json_t *spec, struct nova_error *err)
{
	int64_t memory = kvm_spec_int(task->args, "memory") ?: kvm_spec_total_memory(spec);
	int64_t vcpus = kvm_spec_int(task->args, "vcpus") ?: kvm_spec_total_vcpus(spec);
	int64_t most = kvm_spec_int(spec, "max-memory");
	bool fixed = kvm_spec_int(spec, "max-memory") == kvm_spec_int(spec, "memory");

	if (memory % KVM_MIB || memory < KVM_MEMORY_MIN)
		return nova_error_set(err, NOVA_INVALID,
		    "memory: give a multiple of 1 MiB, at least %lld MiB", KVM_MEMORY_MIN / KVM_MIB);
	/* Room for hot-plug stays a whole number of modules. */
	if (fixed || memory > most)
		most = memory;
	most -= (most - memory) % KVM_DIMM_UNIT;
	if (kvm_spec_change(task->guest, "memory", json_integer(memory), err) < 0 ||
	    kvm_spec_change(task->guest, "max-memory", json_integer(most), err) < 0 ||
	    kvm_spec_change(task->guest, "vcpus", json_integer(vcpus), err) < 0 ||
	    kvm_spec_change(task->guest, "hotplug", json_object(), err) < 0)
		return -1;
	if (vcpus > kvm_spec_int(spec, "max-vcpus"))
		return kvm_spec_change(task->guest, "max-vcpus", json_integer(vcpus), err);
	return 0;
}

/* ---- what is to be done --------------------------------------------------------------------------- */

static int check_memory(const json_t *spec, int64_t wanted, struct nova_error *err)
{
	int64_t total = kvm_spec_total_memory(spec), most = kvm_spec_int(spec, "max-memory");

	if (wanted < KVM_MEMORY_MIN || wanted % KVM_MIB)
		return nova_error_set(err, NOVA_INVALID,
		    "memory: give a multiple of 1 MiB, at least %lld MiB", KVM_MEMORY_MIN / KVM_MIB);
	if (wanted > most)
		return nova_error_set(err, NOVA_INVALID,
		    "%lld MiB is more than the guest's max-memory of %lld MiB: stop it to give it more",
		    (long long)(wanted / KVM_MIB), (long long)(most / KVM_MIB));
	if (wanted > total && (wanted - total) % KVM_DIMM_UNIT)
		return nova_error_set(err, NOVA_INVALID, "memory above %lld MiB grows in steps of %lld MiB",
		    (long long)(total / KVM_MIB), KVM_DIMM_UNIT / KVM_MIB);
	if (wanted < total && !json_is_true(json_object_get(spec, "balloon")))
		return nova_error_set(
		    err, NOVA_INVALID, "the guest has no balloon: its memory cannot shrink while it runs");
	if (wanted > total &&
	    json_array_size(json_object_get(json_object_get(spec, "hotplug"), "dimms")) >= KVM_DIMM_SLOTS)
		return nova_error_set(
		    err, NOVA_INVALID, "all %d places for memory modules are taken", KVM_DIMM_SLOTS);
	return 0;
}

static int check_vcpus(const json_t *spec, int64_t wanted, struct nova_error *err)
{
	if (wanted > kvm_spec_int(spec, "max-vcpus"))
		return nova_error_set(err, NOVA_INVALID,
		    "%lld is more than the guest's max-vcpus of %lld: stop it to give it more",
		    (long long)wanted, (long long)kvm_spec_int(spec, "max-vcpus"));
	if (wanted < kvm_spec_total_vcpus(spec))
		return nova_error_set(err, NOVA_INVALID,
		    "virtual CPUs (%lld) cannot be taken out while the guest runs",
		    (long long)kvm_spec_total_vcpus(spec));
	return 0;
}

static enum nova_step_result plan(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct kvm_task *task = ctx;
	json_t *spec = kvm_spec_now(task->guest);
	int64_t memory = kvm_spec_int(task->args, "memory"), vcpus = kvm_spec_int(task->args, "vcpus");
	int result = 0;

	json_object_set_new(task->notes, "spec", spec);
	if (!kvm_guest_live(task->guest))
		return resize_stopped(task, spec, err) < 0 ? NOVA_STEP_FAILED : NOVA_STEP_DONE;
	if (memory)
		result = check_memory(spec, memory, err);
	if (vcpus && result == 0)
		result = check_vcpus(spec, vcpus, err);
	return result < 0 ? NOVA_STEP_FAILED : NOVA_STEP_DONE;
}

/* ---- memory --------------------------------------------------------------------------------------- */

/* Bytes to plug in; 0: nothing. */
static int64_t missing_memory(const struct kvm_task *task)
{
	int64_t wanted = kvm_spec_int(task->args, "memory");
	int64_t total = kvm_spec_total_memory(json_object_get(task->notes, "spec"));

	return kvm_guest_live(task->guest) && wanted > total ? wanted - total : 0;
}

static json_t *hotplug_list(json_t *spec, const char *what)
{
	json_t *hotplug = json_object_get(spec, "hotplug"), *list;

	if (!hotplug) {
		hotplug = json_object();
		json_object_set_new(spec, "hotplug", hotplug);
	}
	list = json_object_get(hotplug, what);
	if (!list) {
		list = json_array();
		json_object_set_new(hotplug, what, list);
	}
	return list;
}

static enum nova_step_result make_memory(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct kvm_task *task = ctx;
	int64_t bytes = missing_memory(task);
	size_t number = json_array_size(hotplug_list(json_object_get(task->notes, "spec"), "dimms"));

	if (!bytes)
		return NOVA_STEP_DONE;
	json_object_set_new(task->notes, "dimm", json_sprintf("dimm%zu", number));
	return kvm_task_qmp(task, "object-add",
	    json_pack("{s:s,s:o,s:I}", "qom-type", "memory-backend-ram", "id",
	        json_sprintf("memory-dimm%zu", number), "size", (json_int_t)bytes),
	    NULL, err);
}

static enum nova_step_result unmake_memory(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct kvm_task *task = ctx;
	const char *dimm = kvm_spec_text(task->notes, "dimm");

	if (!dimm || !kvm_guest_live(task->guest) || json_object_get(task->notes, "plugged"))
		return NOVA_STEP_DONE;
	return kvm_task_try(
	    task, "object-del", json_pack("{s:o}", "id", json_sprintf("memory-%s", dimm)), NULL, err);
}

static enum nova_step_result plugged(struct kvm_task *task, json_t *value, struct nova_error *err)
{
	json_object_set_new(task->notes, "plugged", json_true());
	return NOVA_STEP_DONE;
}

static enum nova_step_result plug_memory(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct kvm_task *task = ctx;
	const char *dimm = kvm_spec_text(task->notes, "dimm");

	if (!dimm)
		return NOVA_STEP_DONE;
	return kvm_task_qmp(task, "device_add",
	    json_pack(
	        "{s:s,s:s,s:o}", "driver", "pc-dimm", "id", dimm, "memdev", json_sprintf("memory-%s", dimm)),
	    plugged, err);
}

/* Where QEMU put it: the destination must put it there too. */
static enum nova_step_result memory_placed(struct kvm_task *task, json_t *value, struct nova_error *err)
{
	const char *dimm = kvm_spec_text(task->notes, "dimm");
	json_t *spec = json_object_get(task->notes, "spec"), *device;
	size_t i;

	json_array_foreach (value, i, device) {
		const json_t *data = json_object_get(device, "data");

		if (strcmp(kvm_spec_text(data, "id") ?: "", dimm) != 0)
			continue;
		json_array_append_new(hotplug_list(spec, "dimms"),
		    json_pack("{s:s,s:O,s:O,s:O}", "id", dimm, "size", json_object_get(data, "size"), "slot",
		        json_object_get(data, "slot"), "addr", json_object_get(data, "addr")));
		if (kvm_spec_change(
		        task->guest, "hotplug", json_deep_copy(json_object_get(spec, "hotplug")), err) < 0)
			return NOVA_STEP_FAILED;
		return NOVA_STEP_DONE;
	}
	nova_error_set(err, NOVA_REFUSED, "QEMU does not show the memory module that was plugged in");
	return NOVA_STEP_FAILED;
}

static enum nova_step_result place_memory(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct kvm_task *task = ctx;

	if (!kvm_spec_text(task->notes, "dimm"))
		return NOVA_STEP_DONE;
	return kvm_task_qmp(task, "query-memory-devices", NULL, memory_placed, err);
}

static enum nova_step_result set_balloon(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct kvm_task *task = ctx;
	json_t *spec = json_object_get(task->notes, "spec");
	int64_t wanted = kvm_spec_int(task->args, "memory");

	if (!wanted || !kvm_guest_live(task->guest) || !json_is_true(json_object_get(spec, "balloon")))
		return NOVA_STEP_DONE;
	return kvm_task_qmp(task, "balloon", json_pack("{s:I}", "value", (json_int_t)wanted), NULL, err);
}

/* ---- virtual CPUs --------------------------------------------------------------------------------- */

static enum nova_step_result places_told(struct kvm_task *task, json_t *value, struct nova_error *err);

static enum nova_step_result vcpu_added(struct kvm_task *task, json_t *value, struct nova_error *err)
{
	json_t *spec = json_object_get(task->notes, "spec");

	json_array_append(hotplug_list(spec, "vcpus"), json_object_get(task->notes, "vcpu"));
	if (kvm_spec_change(task->guest, "hotplug", json_deep_copy(json_object_get(spec, "hotplug")), err) <
	    0)
		return NOVA_STEP_FAILED;
	return places_told(task, json_object_get(task->notes, "places"), err);
}

/* QEMU lists the places from the last to the first; we fill them from the first. */
static const json_t *free_place(const json_t *places, const json_t *taken)
{
	for (size_t i = json_array_size(places); i-- > 0;) {
		const json_t *place = json_array_get(places, i);
		bool used = json_object_get(place, "qom-path") != NULL;
		json_t *vcpu;
		size_t k;

		json_array_foreach ((json_t *)taken, k, vcpu)
			used |= json_equal(json_object_get(vcpu, "props"), json_object_get(place, "props"));
		if (!used)
			return place;
	}
	return NULL;
}

/* One more, until there are enough. */
static enum nova_step_result places_told(struct kvm_task *task, json_t *value, struct nova_error *err)
{
	json_t *spec = json_object_get(task->notes, "spec"), *taken = hotplug_list(spec, "vcpus"), *vcpu,
	       *call;
	const json_t *place = free_place(value, taken);

	if (kvm_spec_total_vcpus(spec) >= kvm_spec_int(task->args, "vcpus"))
		return NOVA_STEP_DONE;
	if (!place) {
		nova_error_set(err, NOVA_REFUSED, "this machine has no more places for virtual CPUs");
		return NOVA_STEP_FAILED;
	}
	json_object_set(task->notes, "places", value);
	vcpu = json_pack("{s:o,s:O,s:O}", "id", json_sprintf("vcpu%zu", json_array_size(taken)), "type",
	    json_object_get(place, "type"), "props", json_object_get(place, "props"));
	json_object_set_new(task->notes, "vcpu", vcpu);
	call = json_copy(json_object_get(place, "props"));
	json_object_set(call, "driver", json_object_get(place, "type"));
	json_object_set(call, "id", json_object_get(vcpu, "id"));
	return kvm_task_qmp(task, "device_add", call, vcpu_added, err);
}

static enum nova_step_result plug_vcpus(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct kvm_task *task = ctx;
	json_t *spec = json_object_get(task->notes, "spec");

	if (!kvm_guest_live(task->guest) || kvm_spec_int(task->args, "vcpus") <= kvm_spec_total_vcpus(spec))
		return NOVA_STEP_DONE;
	return kvm_task_qmp(task, "query-hotpluggable-cpus", NULL, places_told, err);
}

/* ---- all of it ------------------------------------------------------------------------------------ */

static enum nova_step_result tell(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct kvm_task *task = ctx;
	json_t *spec = kvm_spec_now(task->guest);

	json_object_set_new(task->result, "memory_bytes",
	    json_integer(kvm_spec_int(task->args, "memory") ?: kvm_spec_total_memory(spec)));
	json_object_set_new(task->result, "vcpus", json_integer(kvm_spec_total_vcpus(spec)));
	json_object_set_new(task->result, "needs", kvm_spec_needs(spec));
	json_object_set_new(task->result, "spec", spec);
	return NOVA_STEP_DONE;
}

KVM_VERB(resize)
{
	static const struct nova_step rows[] = {
		{ "plan", plan },
		{ "make memory", make_memory, unmake_memory, kvm_task_stop_waiting },
		{ "plug memory", plug_memory, NULL, kvm_task_stop_waiting },
		{ "place memory", place_memory, NULL, kvm_task_stop_waiting },
		{ "balloon", set_balloon, NULL, kvm_task_stop_waiting },
		{ "plug CPUs", plug_vcpus, NULL, kvm_task_stop_waiting },
		{ "tell", tell },
		{ NULL },
	};

	return kvm_task_new(self, guest, args, rows, done, arg, err);
}
