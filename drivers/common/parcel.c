/* SPDX-License-Identifier: Apache-2.0
 *
 * parcel.c - the daemon's side of a parcel: its process is forked, confined, watched, and told on.
 *
 * The process has the socket and the directories it was given, nothing else of the daemon's descriptors, and dies with it.
 * The receiving one, which reads what another host sent, may write below its parts and read its seeds only (landlock, where
 * the kernel has it), and can neither reach a network nor make devices (seccomp). Figures and the reason of a failure come
 * back in a shared page that the daemon only reads.
 */
#include "drivers/common/parcel.h"
#include "drivers/common/parcel_record.h"
#include "engine/child.h"
#include "engine/cleanup.h"
#include "engine/confine.h"
#include "engine/cursor.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define SEEDS_MAX 64

struct parcel {
	pid_t pid;
	struct nova_process *watch;   /* owned */
	struct parcel_shared *shared; /* owned mapping */
	int fd;                       /* owned: of the receiving end, for its last word; -1 */
	parcel_fn fn;
	void *arg;
};

typedef int (*work_fn)(
    struct parcel_wire *wire, const struct parcel_part *parts, size_t count, struct nova_error *err);

/* ---- in the process ---- */

static _Noreturn void inside(int fd, work_fn work, const struct parcel_part *parts, size_t count,
    const struct nova_confinement *confinement, struct parcel_shared *shared, pid_t parent)
{
	struct parcel_wire wire;
	struct nova_error err = { 0 };
	sigset_t none;

	for (int signal_number = 1; signal_number < NSIG; signal_number++)
		signal(signal_number, SIG_DFL);
	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(1);
	fd = dup2(fd, 0) == 0 && fcntl(0, F_SETFL, fcntl(0, F_GETFL) & ~O_NONBLOCK) == 0 ? 0 : -1;
	umask(077);
	if (fd < 0 || (confinement && nova_confinement_wear(confinement) < 0) || syscall(SYS_close_range, 3u, ~0u, 0u) < 0) {
		nova_error_sys(&shared->err, errno, "the process of a parcel");
		_exit(1);
	}
	if (parcel_wire_init(&wire, fd, shared, &err) == 0 && work(&wire, parts, count, &err) == 0)
		_exit(0);
	shared->err = err;
	_exit(1);
}

/* ---- the daemon's side ---- */

static void ended(void *arg, const struct nova_exit *how)
{
	struct parcel *parcel = arg;
	struct nova_error err;

	parcel->watch = nova_process_unwatch(parcel->watch);
	parcel->pid = -1;
	if (how->known && how->status == 0 && !how->signal) {
		parcel->fn(parcel->arg, NULL);
		return;
	}
	err = parcel->shared->err;
	err.text[sizeof(err.text) - 1] = 0;
	if (err.category <= NOVA_OK || err.category >= NOVA_CATEGORIES || !err.text[0])
		nova_error_set(&err, NOVA_SYSTEM, "the process that %s ended by signal %d", "carries the container", how->signal);
	parcel->fn(parcel->arg, &err);
}

struct parcel *parcel_free(struct parcel *parcel)
{
	if (!parcel)
		return NULL;
	nova_process_unwatch(parcel->watch);
	if (parcel->pid > 0) {
		kill(parcel->pid, SIGKILL); /* not waited for yet: the pid is still its own */
		while (waitpid(parcel->pid, NULL, 0) < 0 && errno == EINTR)
			;
	}
	if (parcel->fd >= 0)
		close(parcel->fd);
	if (parcel->shared)
		munmap(parcel->shared, sizeof(*parcel->shared));
	free(parcel);
	return NULL;
}

/* A few bytes into a socket that nobody else writes to any more. */
void parcel_tell(struct parcel *parcel, const struct nova_error *why)
{
	uint8_t record[PARCEL_HEADER + sizeof(((struct nova_error *)0)->text)];
	struct nova_writer w = nova_writer_of(record, sizeof(record));
	size_t length = why ? strlen(why->text) : 0;

	nova_put_u8(&w, why ? 'N' : 'K');
	nova_put_u32(&w, (uint32_t)length);
	if (why)
		nova_put_bytes(&w, why->text, length);
	if (parcel->fd >= 0 && send(parcel->fd, record, nova_writer_used(&w), MSG_NOSIGNAL | MSG_DONTWAIT) >= 0)
		shutdown(parcel->fd, SHUT_WR);
}

void parcel_stats(const struct parcel *parcel, struct parcel_figures *figures)
{
	*figures = parcel->shared->figures;
}

/* What it may still do: write the parts, read the seeds. */
static struct nova_confinement *confine(const struct parcel_part *parts, size_t count, struct nova_error *err)
{
	const char *write[PARCEL_PARTS_MAX + 1] = { NULL }, *read[SEEDS_MAX + 1] = { NULL };
	struct nova_confine_paths paths = { .read = read, .write = write };
	size_t seeds = 0, i;
	json_t *seed;

	for (size_t part = 0; part < count; part++) {
		write[part] = parts[part].path;
		json_array_foreach ((json_t *)parts[part].seeds, i, seed)
			if (seeds < SEEDS_MAX)
				read[seeds++] = json_string_value(seed);
	}
	return nova_confinement_new(&paths, err);
}

static int start(struct parcel *parcel, struct event_base *base, int fd, work_fn work, const struct parcel_part *parts,
    size_t count, const struct nova_confinement *confinement, struct nova_error *err)
{
	pid_t parent = getpid();
	sigset_t all, mask;
	uint64_t start_time;

	/* a handler of the host program must not run in the process */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &mask);
	parcel->pid = fork();
	if (parcel->pid == 0)
		inside(fd, work, parts, count, confinement, parcel->shared, parent);
	pthread_sigmask(SIG_SETMASK, &mask, NULL);
	if (parcel->pid < 0)
		return nova_error_sys(err, errno, "the process of a parcel");
	start_time = nova_process_start_time(parcel->pid, err);
	if (!start_time)
		return -1;
	parcel->watch = nova_process_watch(base, parcel->pid, start_time, ended, parcel, err);
	return parcel->watch ? 0 : -1;
}

static struct parcel *make(struct event_base *base, int fd, work_fn work, const struct parcel_part *parts, size_t count,
    parcel_fn fn, void *arg, struct nova_error *err)
{
	NOVA_AUTOCLOSE int socket = fd;
	struct nova_confinement *confinement = NULL;
	struct parcel *parcel = calloc(1, sizeof(*parcel));
	int rc;

	if (parcel) {
		*parcel = (struct parcel){ .pid = -1, .fd = -1, .fn = fn, .arg = arg };
		parcel->shared = mmap(NULL, sizeof(*parcel->shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
		if (parcel->shared == MAP_FAILED)
			parcel->shared = NULL;
	}
	if (!parcel || !parcel->shared || count > PARCEL_PARTS_MAX) {
		nova_error_sys(err, ENOMEM, "a parcel");
		return parcel_free(parcel);
	}
	if (work == parcel_receive && !(confinement = confine(parts, count, err)))
		return parcel_free(parcel);
	rc = start(parcel, base, socket, work, parts, count, confinement, err);
	nova_confinement_free(confinement);
	if (rc == 0 && work == parcel_receive)
		parcel->fd = nova_take_fd(&socket);
	return rc < 0 ? parcel_free(parcel) : parcel;
}

struct parcel *parcel_out_new(struct event_base *base, int fd, const struct parcel_part *parts, size_t count, parcel_fn fn,
    void *arg, struct nova_error *err)
{
	return make(base, fd, parcel_send, parts, count, fn, arg, err);
}

struct parcel *parcel_in_new(struct event_base *base, int fd, const struct parcel_part *parts, size_t count, parcel_fn fn,
    void *arg, struct nova_error *err)
{
	return make(base, fd, parcel_receive, parts, count, fn, arg, err);
}
