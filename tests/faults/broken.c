/* SPDX-License-Identifier: Apache-2.0
 *
 * broken.c - for tests: a library that takes memory or the disk away from the daemon it is preloaded into, when told to.
 *
 *	LD_PRELOAD=libbroken.so BROKEN=FILE novacrond
 *
 * FILE is mapped; it holds three numbers (4 bytes each, in the machine's order) that others write:
 *
 * - so many calls of malloc, calloc, realloc, memalign and their like fail; each takes one off
 * - the errno with which writing to a file fails, but for logs that are only added to (0: it works)
 * - so many ms each fsync or fdatasync takes longer
 *
 * The daemon's children are not affected. If it dies of a signal, where goes to its standard error. Not here: mmap, which fails in other ways.
 */
#include <errno.h>
#include <execinfo.h>
#include <fcntl.h>
#include <malloc.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#pragma GCC visibility push(default) /* what stands in the place of libc's must be seen */

#define PROGRAM "novacrond"

extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);
extern void *__libc_realloc(void *at, size_t size);
extern void *__libc_memalign(size_t alignment, size_t size);

struct orders {
	_Atomic int fail_allocations, write_errno, sync_ms;
};
static struct orders nothing;
static struct orders *orders = &nothing;

/* Where it died goes to its log. */
static void last_words(int signal_number)
{
	void *frames[64];

	orders = &nothing;
	backtrace_symbols_fd(frames, backtrace(frames, 64), STDERR_FILENO);
	signal(signal_number, SIG_DFL);
	raise(signal_number);
}

__attribute__((constructor)) static void broken_init(void)
{
	const char *path = getenv("BROKEN");
	const char *name = strstr(program_invocation_short_name, PROGRAM);
	int fd;
	void *map;

	if (!name || strcmp(name, PROGRAM) != 0)
		return; /* a shell on the way to it */
	fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
	map = fd < 0 ? MAP_FAILED : mmap(NULL, sizeof(*orders), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (fd >= 0)
		close(fd);
	if (map != MAP_FAILED)
		orders = map;
	signal(SIGSEGV, last_words);
	signal(SIGABRT, last_words);
	unsetenv("LD_PRELOAD");
	unsetenv("BROKEN");
}

static int fails(void)
{
	int now = atomic_load(&orders->fail_allocations);

	while (now > 0)
		if (atomic_compare_exchange_weak(&orders->fail_allocations, &now, now - 1)) {
			errno = ENOMEM;
			return 1;
		}
	return 0;
}

/* ---- memory ---- */

void *malloc(size_t size)
{
	return fails() ? NULL : __libc_malloc(size);
}

void *calloc(size_t count, size_t size)
{
	return fails() ? NULL : __libc_calloc(count, size);
}

void *realloc(void *at, size_t size)
{
	return fails() ? NULL : __libc_realloc(at, size);
}

void *memalign(size_t alignment, size_t size)
{
	return fails() ? NULL : __libc_memalign(alignment, size);
}

void *aligned_alloc(size_t alignment, size_t size)
{
	return memalign(alignment, size);
}

int posix_memalign(void **at, size_t alignment, size_t size)
{
	*at = memalign(alignment, size);
	return *at ? 0 : ENOMEM;
}

/* ---- the disk ---- */

/* A file, and not the log that is only added to. */
static bool is_file(int fd)
{
	struct stat file;

	return fstat(fd, &file) == 0 && S_ISREG(file.st_mode) && !(fcntl(fd, F_GETFL) & O_APPEND);
}

ssize_t write(int fd, const void *data, size_t size)
{
	int broken = atomic_load(&orders->write_errno);

	if (!broken || !is_file(fd))
		return syscall(SYS_write, fd, data, size);
	errno = broken;
	return -1;
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t offset)
{
	int broken = atomic_load(&orders->write_errno);

	if (!broken)
		return syscall(SYS_pwrite64, fd, data, size, offset);
	errno = broken;
	return -1;
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t offset)
{
	return pwrite64(fd, data, size, offset);
}

static void dawdle(void)
{
	int ms = atomic_load(&orders->sync_ms);
	const struct timespec wait = { ms / 1000, ms % 1000 * 1000000L };

	if (ms > 0)
		nanosleep(&wait, NULL);
}

int fsync(int fd)
{
	dawdle();
	return (int)syscall(SYS_fsync, fd);
}

int fdatasync(int fd)
{
	dawdle();
	return (int)syscall(SYS_fdatasync, fd);
}
