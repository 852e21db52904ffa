/* SPDX-License-Identifier: Apache-2.0
 *
 * confine.c - seccomp and landlock for children.
 *
 * The filter is written by libseccomp and kept as the kernel's program (a memfd, then memory): the child has it put on
 * with two prctl(). Landlock is three system calls without a library; rights that the running kernel does not know are
 * left out by its version. Not here: limits, users, descriptors (child.c).
 */
#include "confine.h"
#include "cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/landlock.h>
#include <linux/seccomp.h>
#include <seccomp.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

struct nova_confinement {
	struct sock_fprog program; /* filter: owned */
	int landlock;              /* owned; -1: the kernel has none */
};

/* ---- seccomp ---- */

static const int denied[] = {
	SCMP_SYS(ptrace), SCMP_SYS(process_vm_readv), SCMP_SYS(process_vm_writev), SCMP_SYS(mount), SCMP_SYS(umount2),
	SCMP_SYS(move_mount), SCMP_SYS(open_tree), SCMP_SYS(fsopen), SCMP_SYS(fsmount), SCMP_SYS(pivot_root),
	SCMP_SYS(chroot), SCMP_SYS(unshare), SCMP_SYS(setns), SCMP_SYS(init_module), SCMP_SYS(finit_module),
	SCMP_SYS(delete_module), SCMP_SYS(kexec_load), SCMP_SYS(kexec_file_load), SCMP_SYS(reboot), SCMP_SYS(bpf),
	SCMP_SYS(perf_event_open), SCMP_SYS(keyctl), SCMP_SYS(add_key), SCMP_SYS(request_key), SCMP_SYS(userfaultfd),
	SCMP_SYS(swapon), SCMP_SYS(swapoff), SCMP_SYS(settimeofday), SCMP_SYS(clock_settime), SCMP_SYS(adjtimex),
	SCMP_SYS(sethostname), SCMP_SYS(setdomainname), SCMP_SYS(mknod), SCMP_SYS(mknodat), SCMP_SYS(iopl),
	SCMP_SYS(ioperm), SCMP_SYS(acct), SCMP_SYS(quotactl), SCMP_SYS(open_by_handle_at), SCMP_SYS(pidfd_getfd),
	SCMP_SYS(setuid), SCMP_SYS(setgid), SCMP_SYS(setresuid), SCMP_SYS(setresgid), SCMP_SYS(io_uring_setup),
};

static const int worker_allowed[] = {
	SCMP_SYS(read), SCMP_SYS(write), SCMP_SYS(readv), SCMP_SYS(writev), SCMP_SYS(recvfrom), SCMP_SYS(sendto),
	SCMP_SYS(recvmsg), SCMP_SYS(sendmsg), SCMP_SYS(shutdown), SCMP_SYS(close), SCMP_SYS(poll), SCMP_SYS(ppoll),
	SCMP_SYS(epoll_wait), SCMP_SYS(epoll_pwait), SCMP_SYS(epoll_pwait2), SCMP_SYS(epoll_ctl), SCMP_SYS(timerfd_settime),
	SCMP_SYS(munmap), SCMP_SYS(mremap), SCMP_SYS(madvise), SCMP_SYS(brk), SCMP_SYS(futex), SCMP_SYS(clock_gettime),
	SCMP_SYS(gettimeofday), SCMP_SYS(getrandom), SCMP_SYS(restart_syscall), SCMP_SYS(rt_sigreturn), SCMP_SYS(exit),
	SCMP_SYS(exit_group), SCMP_SYS(sched_yield), SCMP_SYS(getpid),
};

/* Unix sockets stay: qemu-img talks to nobody else. */
static int deny_network(scmp_filter_ctx ctx)
{
	return seccomp_rule_add(
	    ctx, SCMP_ACT_ERRNO(EACCES), SCMP_SYS(socket), 1, SCMP_A0(SCMP_CMP_NE, AF_UNIX));
}

/* Memory, but no code; of ioctl only the question how much there is to read. */
static int add_worker_rules(scmp_filter_ctx ctx)
{
	int failed = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(mmap), 1, SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0)) ||
		     seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(mprotect), 1, SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0)) ||
		     seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(ioctl), 1, SCMP_A1(SCMP_CMP_EQ, FIONREAD));

	for (size_t i = 0; i < sizeof(worker_allowed) / sizeof(*worker_allowed) && failed == 0; i++)
		failed = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, worker_allowed[i], 0);
	return failed;
}

static int add_rules(scmp_filter_ctx ctx)
{
	int failed = deny_network(ctx);

	for (size_t i = 0; i < sizeof(denied) / sizeof(*denied) && failed == 0; i++)
		failed = seccomp_rule_add(ctx, SCMP_ACT_ERRNO(EPERM), denied[i], 0);
	return failed;
}

static int take_program(scmp_filter_ctx ctx, struct sock_fprog *program)
{
	NOVA_AUTOCLOSE int fd = memfd_create("filter", MFD_CLOEXEC);
	off_t size;

	if (fd < 0 || seccomp_export_bpf(ctx, fd) < 0 || (size = lseek(fd, 0, SEEK_END)) <= 0)
		return -1;
	program->filter = malloc((size_t)size);
	program->len = (unsigned short)((size_t)size / sizeof(struct sock_filter));
	return program->filter && pread(fd, program->filter, (size_t)size, 0) == size ? 0 : -1;
}

static int make_filter(bool worker, struct sock_fprog *program, struct nova_error *err)
{
	scmp_filter_ctx ctx = seccomp_init(worker ? SCMP_ACT_KILL_PROCESS : SCMP_ACT_ALLOW);
	int failed = !ctx || (worker ? add_worker_rules(ctx) : add_rules(ctx)) != 0 || take_program(ctx, program) < 0;

	if (ctx)
		seccomp_release(ctx);
	return failed ? nova_error_set(err, NOVA_SYSTEM, "no memory for a seccomp filter") : 0;
}

bool nova_confine_seccomp_there(void)
{
	/* a filter at NULL is a bad address where there are filters */
	return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, NULL, 0, 0) < 0 && errno == EFAULT;
}

/* ---- landlock ---- */

#define ACCESS_READ (LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR)
#define ACCESS_1 (((uint64_t)LANDLOCK_ACCESS_FS_MAKE_SYM << 1) - 1) /* all of the first version */
#define ACCESS_FILE (LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_WRITE_FILE | ACCESS_TRUNCATE)
#define ACCESS_REFER ((uint64_t)1 << 13)    /* version 2 */
#define ACCESS_TRUNCATE ((uint64_t)1 << 14) /* version 3 */

int nova_confine_landlock_version(void)
{
	long version = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);

	return version > 0 ? (int)version : 0;
}

static uint64_t known_access(void)
{
	int version = nova_confine_landlock_version();

	return version == 0 ? 0 : ACCESS_1 | (version >= 2 ? ACCESS_REFER : 0) | (version >= 3 ? ACCESS_TRUNCATE : 0);
}

static int allow_below(int ruleset, const char *path, uint64_t access, struct nova_error *err)
{
	NOVA_AUTOCLOSE int fd = open(path, O_PATH | O_CLOEXEC);
	struct landlock_path_beneath_attr rule = { .parent_fd = fd };
	struct stat status;

	if (fd < 0 || fstat(fd, &status) < 0)
		return 0;
	rule.allowed_access = S_ISDIR(status.st_mode) ? access : access & ACCESS_FILE;
	if (syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &rule, 0) < 0)
		return nova_error_sys(err, errno, "landlock rule for %s", path);
	return 0;
}

static int make_ruleset(struct nova_confinement *confinement, const struct nova_confine_paths *paths, struct nova_error *err)
{
	struct landlock_ruleset_attr attr = { .handled_access_fs = known_access() };

	if (!attr.handled_access_fs)
		return 0;
	confinement->landlock = (int)syscall(SYS_landlock_create_ruleset, &attr, sizeof(attr), 0);
	if (confinement->landlock < 0)
		return nova_error_sys(err, errno, "landlock");
	for (const char *const *path = paths ? paths->read : NULL; path && *path; path++)
		if (allow_below(confinement->landlock, *path, ACCESS_READ & attr.handled_access_fs, err) < 0)
			return -1;
	for (const char *const *path = paths ? paths->write : NULL; path && *path; path++)
		if (allow_below(confinement->landlock, *path, attr.handled_access_fs & ~(uint64_t)LANDLOCK_ACCESS_FS_EXECUTE, err) < 0)
			return -1;
	return 0;
}

/* ---- both ---- */

struct nova_confinement *nova_confinement_new(const struct nova_confine_paths *paths, struct nova_error *err)
{
	struct nova_confinement *confinement = calloc(1, sizeof(*confinement));

	if (!confinement) {
		nova_error_sys(err, ENOMEM, "confinement");
		return NULL;
	}
	confinement->landlock = -1;
	if ((!nova_confine_seccomp_there() || make_filter(false, &confinement->program, err) == 0) &&
	    make_ruleset(confinement, paths, err) == 0)
		return confinement;
	return nova_confinement_free(confinement);
}

struct nova_confinement *nova_confinement_new_worker(struct nova_error *err)
{
	struct nova_confinement *confinement = calloc(1, sizeof(*confinement));

	if (!nova_confine_seccomp_there()) {
		free(confinement);
		nova_error_set(err, NOVA_REFUSED, "this kernel has no seccomp filters");
		return NULL;
	}
	if (!confinement) {
		nova_error_sys(err, ENOMEM, "confinement");
		return NULL;
	}
	confinement->landlock = -1;
	return make_filter(true, &confinement->program, err) == 0 ? confinement : nova_confinement_free(confinement);
}

struct nova_confinement *nova_confinement_free(struct nova_confinement *confinement)
{
	if (!confinement)
		return NULL;
	if (confinement->landlock >= 0)
		close(confinement->landlock);
	free(confinement->program.filter);
	free(confinement);
	return NULL;
}

int nova_confinement_wear(const struct nova_confinement *confinement)
{
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return -1;
	if (confinement->landlock >= 0 && syscall(SYS_landlock_restrict_self, confinement->landlock, 0) < 0)
		return -1;
	if (confinement->program.filter && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &confinement->program, 0, 0) < 0)
		return -1;
	return 0;
}
