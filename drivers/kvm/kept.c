/* SPDX-License-Identifier: Apache-2.0
 *
 * kept.c - a monitor connection that outlives its daemon.
 *
 * A guest that runs in postcopy may touch a page that is still at its source while QEMU holds its big lock. QEMU then serves
 * nothing but out-of-band commands, on connections where those were negotiated before; and it takes such a command,
 * migrate-recover, to get the page after a loss. A daemon that was started again could never connect. So before
 * the guest runs, QEMU itself is handed a descriptor of our end of the connection (getfd), which keeps it open; the next
 * daemon finds it among QEMU's descriptors by its inode, takes it out of there (pidfd_getfd(2), Linux 5.6, CAP_SYS_PTRACE)
 * and goes on talking. It is given back when the stream is complete.
 */
#include "kvm.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define KEPT_NAME "novacron-monitor"
#define KEPT_INODE "monitor_inode" /* in the guest's runtime: of our end of the kept connection */

static bool needs_keeping(const struct nova_guest *guest)
{
	const json_t *migration = json_object_get(guest->runtime, "migration");
	const char *status = kvm_spec_text(migration, "status") ?: "";

	return strcmp(kvm_guest_role(guest), "destination") == 0 && strncmp(status, "postcopy", 8) == 0;
}

/* Without it the guest runs as well: only its daemon must not be killed. */
static enum nova_step_result kept(struct kvm_task *task, json_t *value, struct nova_error *err)
{
	if (value)
		return NOVA_STEP_DONE;
	kvm_log(task->kvm, NOVA_LOG_WARNING, "kvm: guest %s: QEMU does not keep its monitor's connection: %s", task->guest->name,
	    kvm_spec_text(task->notes, "refusal") ?: "no reason");
	json_object_del(task->guest->runtime, KEPT_INODE);
	return NOVA_STEP_DONE;
}

enum nova_step_result kvm_keep_monitor_row(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct kvm_task *task = ctx;
	struct kvm_guest *live = kvm_guest_live(task->guest);
	enum nova_step_result result;
	struct stat st;
	int fd;

	if (!needs_keeping(task->guest) || !live || !live->qemu.qmp)
		return NOVA_STEP_DONE;
	fd = qmp_client_fd(live->qemu.qmp);
	if (fd < 0 || fstat(fd, &st) < 0)
		return NOVA_STEP_DONE;
	json_object_set_new(task->guest->runtime, KEPT_INODE, json_integer((json_int_t)st.st_ino));
	kvm_guest_save(task->kvm, task->guest);
	result = kvm_task_send_fd(task, "getfd", json_pack("{s:s}", "fdname", KEPT_NAME), fd, kept, err);
	task->tolerant = true;
	return result;
}

static void given_back(void *arg, json_t *result, const struct nova_error *failure)
{
	((struct kvm_guest *)arg)->inquiry = NULL;
}

void kvm_monitor_give_back(struct kvm_guest *live)
{
	struct nova_guest *guest = live->guest;

	if (!json_object_get(guest->runtime, KEPT_INODE))
		return;
	json_object_del(guest->runtime, KEPT_INODE);
	kvm_guest_save(live->qemu.kvm, guest);
	nova_op_drop(nova_take(&live->inquiry));
	live->inquiry = kvm_qmp(&live->qemu, "closefd", json_pack("{s:s}", "fdname", KEPT_NAME), given_back, live, NULL);
}

/* Which descriptor of the process is the socket with this inode; -1: none. */
static int find_descriptor(pid_t pid, json_int_t inode)
{
	char directory[64], wanted[64], link[64];
	struct dirent *entry;
	DIR *dir;
	int found = -1;

	snprintf(directory, sizeof(directory), "/proc/%d/fd", (int)pid);
	snprintf(wanted, sizeof(wanted), "socket:[%lld]", (long long)inode);
	dir = opendir(directory);
	while (dir && found < 0 && (entry = readdir(dir))) {
		ssize_t length = readlinkat(dirfd(dir), entry->d_name, link, sizeof(link) - 1);

		link[length > 0 ? length : 0] = 0;
		if (strcmp(link, wanted) == 0)
			found = (int)strtol(entry->d_name, NULL, 10);
	}
	if (dir)
		closedir(dir);
	return found;
}

int kvm_kept_monitor(struct kvm *kvm, const struct nova_guest *guest, pid_t pid)
{
	json_int_t inode = kvm_spec_int(guest->runtime, KEPT_INODE);
	int theirs = inode > 0 ? find_descriptor(pid, inode) : -1;
	NOVA_AUTOCLOSE int pidfd = theirs >= 0 ? (int)syscall(SYS_pidfd_open, pid, 0) : -1;

	int ours = pidfd >= 0 ? (int)syscall(SYS_pidfd_getfd, pidfd, theirs, 0) : -1;

	if (theirs >= 0 && ours < 0)
		kvm_log(kvm, NOVA_LOG_WARNING,
		    "kvm: guest %s: the monitor's connection that QEMU (%d) keeps cannot be taken over: %s; give the daemon CAP_SYS_PTRACE (Linux 5.6 or newer) and start it again",
		    guest->name, (int)pid, strerrordesc_np(errno));
	return ours;
}
