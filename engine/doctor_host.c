/* SPDX-License-Identifier: Apache-2.0
 *
 * doctor_host.c - the doctor's look at the machine: clock, KVM, memory, what the kernel offers, limits, space, and the
 * daemon's own files.
 */
#include "audit.h"
#include "cleanup.h"
#include "confine.h"
#include "doctor.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/timex.h>
#include <unistd.h>

#define FILES_WANTED 4096
#define SPACE_LOW ((unsigned long long)1 << 30)
#define SPACE_NONE ((unsigned long long)64 << 20)

static void check_clock(struct nova_doctor *doctor)
{
	struct timex now = { 0 };

	if (adjtimex(&now) < 0 || now.status & STA_UNSYNC)
		nova_doctor_say(doctor, NOVA_NOTE, "clock", "run chrony or systemd-timesyncd: certificates and the audit log need the time",
		    "the kernel does not know the clock to be synchronized");
	else
		nova_doctor_say(doctor, NOVA_FINE, "clock", NULL, "synchronized");
}

static void check_kvm(struct nova_doctor *doctor)
{
	NOVA_AUTOCLOSE int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	NOVA_AUTOCLOSE int vm = fd >= 0 ? ioctl(fd, KVM_CREATE_VM, 0) : -1;

	if (fd < 0)
		nova_doctor_say(doctor, NOVA_WARN, "kvm", "enable virtualization in the firmware, load kvm_intel or kvm_amd, and let the daemon open it",
		    "/dev/kvm: %s: guests are emulated, many times slower", strerror(errno));
	else if (vm < 0)
		nova_doctor_say(doctor, NOVA_WARN, "kvm", "enable virtualization in the firmware (or nested virtualization)",
		    "/dev/kvm makes no virtual machine: %s", strerror(errno));
	else
		nova_doctor_say(doctor, NOVA_FINE, "kvm", NULL, "/dev/kvm makes virtual machines (QEMU's own word is under drivers)");
}

static void check_userfaultfd(struct nova_doctor *doctor)
{
	NOVA_AUTOCLOSE int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);

	if (fd < 0)
		nova_doctor_say(doctor, NOVA_NOTE, "userfaultfd", "vm.unprivileged_userfaultfd=1, if you want --on-stall postcopy",
		    "userfaultfd: %s: no postcopy into this host", strerror(errno));
	else
		nova_doctor_say(doctor, NOVA_FINE, "userfaultfd", NULL, "postcopy can arrive here");
}

static long long meminfo(const char *name)
{
	FILE *file = fopen("/proc/meminfo", "re");
	char line[128];
	long long value = -1;

	while (file && fgets(line, sizeof(line), file))
		if (!strncmp(line, name, strlen(name)) && line[strlen(name)] == ':')
			value = atoll(line + strlen(name) + 1);
	if (file)
		fclose(file);
	return value;
}

static void check_memory(struct nova_doctor *doctor)
{
	long long total = meminfo("MemTotal"), available = meminfo("MemAvailable"), huge = meminfo("HugePages_Total");

	if (total > 0 && available >= 0 && available < total / 20)
		nova_doctor_say(doctor, NOVA_WARN, "memory", "stop something, or set max-memory lower", "%lld of %lld MiB are available",
		    available / 1024, total / 1024);
	else
		nova_doctor_say(doctor, NOVA_FINE, "memory", NULL, "%lld of %lld MiB are available", available / 1024, total / 1024);
	nova_doctor_say(doctor, huge > 0 ? NOVA_FINE : NOVA_NOTE, "huge pages", NULL, "%lld reserved, %lld free",
	    huge > 0 ? huge : 0, huge > 0 ? meminfo("HugePages_Free") : 0);
}

static void check_confinement(struct nova_doctor *doctor)
{
	int landlock = nova_confine_landlock_version();

	if (nova_confine_seccomp_there())
		nova_doctor_say(doctor, NOVA_FINE, "seccomp", NULL, "the kernel has filters");
	else
		nova_doctor_say(doctor, NOVA_WARN, "seccomp", "use a kernel with CONFIG_SECCOMP_FILTER",
		    "the kernel has no filters: programs that read foreign images are not confined");
	if (landlock)
		nova_doctor_say(doctor, NOVA_FINE, "landlock", NULL, "version %d", landlock);
	else
		nova_doctor_say(doctor, NOVA_NOTE, "landlock", "boot with lsm=landlock,... if the kernel has it",
		    "not there: qemu-img could read files outside of roots if an image took it over");
}

static void check_limits(struct nova_doctor *doctor)
{
	struct rlimit files, core;

	getrlimit(RLIMIT_NOFILE, &files);
	getrlimit(RLIMIT_CORE, &core);
	nova_doctor_say(doctor, files.rlim_max < FILES_WANTED ? NOVA_WARN : NOVA_FINE, "limits",
	    files.rlim_max < FILES_WANTED ? "raise LimitNOFILE of the unit, or ulimit -Hn" : NULL,
	    "%llu descriptors: each guest, link and user takes some", (unsigned long long)files.rlim_max);
	if (core.rlim_cur != 0)
		nova_doctor_say(doctor, NOVA_NOTE, "limits", "LimitCORE=0, unless you hunt a crash",
		    "core dumps are on: one of the daemon would hold its key");
}

static void check_space(struct nova_doctor *doctor, const char *option)
{
	const char *path = nova_config_text(doctor->host->config, option);
	struct statvfs fs;
	unsigned long long room;

	if (statvfs(path, &fs) < 0)
		return;
	room = (unsigned long long)fs.f_bavail * fs.f_frsize;
	if (room < SPACE_LOW || (fs.f_files && fs.f_favail < 1000))
		nova_doctor_say(doctor, room < SPACE_NONE ? NOVA_BAD : NOVA_WARN, "space",
		    "make room: a journal that cannot be written stops every new operation", "%s has %llu MiB and %llu inodes left", path,
		    room >> 20, (unsigned long long)fs.f_favail);
	else
		nova_doctor_say(doctor, NOVA_FINE, "space", NULL, "%s has %llu MiB left", path, room >> 20);
}

static void check_files(struct nova_doctor *doctor)
{
	struct nova_error err;
	NOVA_AUTOJSON json_t *audit = nova_audit_verify(nova_config_text(doctor->host->config, "state-dir"), &err);
	json_t *problems = json_object_get(audit, "problems");

	check_space(doctor, "state-dir");
	check_space(doctor, "runtime-dir");
	if (nova_store_check(doctor->host->store, &err) < 0)
		nova_doctor_say(doctor, NOVA_BAD, "journal", "stop the daemon, keep a copy, and restore novacron.db from a backup: guests run on",
		    "%s", err.text);
	else
		nova_doctor_say(doctor, NOVA_FINE, "journal", NULL, "novacron.db is sound");
	if (!audit)
		nova_doctor_say(doctor, NOVA_BAD, "audit", "see the permissions of the state directory", "%s", err.text);
	else if (json_array_size(problems))
		nova_doctor_say(doctor, NOVA_BAD, "audit", "see novacron audit verify: somebody or something changed it",
		    "%zu problems, the first: %s", json_array_size(problems), json_string_value(json_array_get(problems, 0)));
	else
		nova_doctor_say(doctor, NOVA_FINE, "audit", NULL, "%lld lines, the chain is whole",
		    (long long)json_integer_value(json_object_get(audit, "lines")));
}

const nova_check_fn nova_host_checks[] = { check_clock, check_kvm, check_userfaultfd, check_memory, check_confinement,
	check_limits, check_files, NULL };
