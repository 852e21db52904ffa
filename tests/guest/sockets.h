/* SPDX-License-Identifier: Apache-2.0
 *
 * sockets.h - one serial port of a guest that may be on several hosts: the unix sockets where it can appear,
 * read as one text. Header only.
 *
 * A socket need not exist yet, and is connected again whenever it ends. The guest runs on one host at a time,
 * so the bytes of all sockets in the order of their arrival are what it wrote: a line that a migration cuts
 * in two comes together again. At most 8 sockets; looked for every 10 ms.
 */
#ifndef NOVA_TEST_SOCKETS_H
#define NOVA_TEST_SOCKETS_H

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define SOCKETS_MAX 8
#define SOCKETS_RETRY_MS 10

struct sockets {
	char **paths; /* borrowed */
	size_t count;
	int fds[SOCKETS_MAX]; /* -1: not connected */
	size_t active;        /* where the last bytes came from: read first */
};

typedef void (*sockets_fn)(void *arg, size_t from, const char *bytes, size_t length);

static volatile sig_atomic_t sockets_stopped;

static inline void sockets_on_signal(int number)
{
	(void)number;
	sockets_stopped = 1;
}

static inline void sockets_init(struct sockets *sockets, char **paths, size_t count)
{
	struct sigaction stop = { .sa_handler = sockets_on_signal };

	sockets->paths = paths;
	sockets->count = count;
	sockets->active = 0;
	for (size_t i = 0; i < SOCKETS_MAX; i++)
		sockets->fds[i] = -1;
	sigaction(SIGTERM, &stop, NULL);
	sigaction(SIGINT, &stop, NULL);
}

static inline int sockets_connect(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd;

	if (strlen(path) >= sizeof(address.sun_path))
		return -1;
	strcpy(address.sun_path, path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
		close(fd);
		return -1;
	}
	return fd;
}

static inline void sockets_read(struct sockets *sockets, size_t from, sockets_fn fn, void *arg)
{
	char bytes[4096];

	while (sockets->fds[from] >= 0) {
		ssize_t length = recv(sockets->fds[from], bytes, sizeof(bytes), 0);

		if (length > 0) {
			sockets->active = from;
			fn(arg, from, bytes, (size_t)length);
		} else if (length == 0 || errno != EAGAIN) {
			close(sockets->fds[from]);
			sockets->fds[from] = -1;
		} else {
			return;
		}
	}
}

/* What the guest wrote where it ran last comes before what it writes where it runs now. */
static inline void sockets_read_all(struct sockets *sockets, sockets_fn fn, void *arg)
{
	size_t first = sockets->active;

	sockets_read(sockets, first, fn, arg);
	for (size_t i = 0; i < sockets->count; i++)
		if (i != first)
			sockets_read(sockets, i, fn, arg);
}

/* Connect what can be connected, wait a little for bytes there or for `extra` (-1: none), read; true if extra
 * is readable. */
static inline int sockets_turn(struct sockets *sockets, int extra, sockets_fn fn, void *arg)
{
	struct pollfd polls[SOCKETS_MAX + 1] = { { .fd = extra, .events = POLLIN } };

	for (size_t i = 0; i < sockets->count; i++) {
		if (sockets->fds[i] < 0)
			sockets->fds[i] = sockets_connect(sockets->paths[i]);
		polls[i + 1] = (struct pollfd) { .fd = sockets->fds[i], .events = POLLIN };
	}
	if (poll(polls, sockets->count + 1, SOCKETS_RETRY_MS) <= 0)
		return 0;
	sockets_read_all(sockets, fn, arg);
	return polls[0].revents & POLLIN;
}

#endif
