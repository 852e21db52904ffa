/* SPDX-License-Identifier: Apache-2.0
 *
 * heartbeat.c - watch a guest's heartbeat on every socket where it may appear, and say what it missed.
 *
 *	heartbeat TRACE SOCKET...
 *
 * Each SOCKET is the unix socket of the guest's heartbeat port on one host; it need not exist yet, and is
 * connected again whenever it ends. The guest runs on one host at a time, so the bytes of all sockets, in
 * the order of their arrival, are one text: a line that a migration cuts in two comes together again.
 * TRACE gets a line per beat: host_ms seq socket (0 is the first).
 *
 * On SIGTERM or SIGINT one JSON object goes to stdout:
 *
 * - beats, first_seq, last_seq: of what was seen
 * - max_gap_ms, max_gap_seq: the longest silence by the host's clock, and the beat that ended it
 * - missing, duplicated: sequence numbers that never came, or came again
 * - garbled: lines that are no beat (a console that shares the port has some)
 * - per_socket: beats by socket
 *
 * At most 8 sockets; lines over 255 bytes count as garbled. A beat is 10 ms: shorter gaps are not seen.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define SOCKETS_MAX 8
#define RETRY_MS 10

struct watch {
	const char *paths[SOCKETS_MAX];
	int fds[SOCKETS_MAX]; /* -1: not connected */
	size_t count;
	size_t active; /* where the last beat came from: read first */
	FILE *trace;
	char line[256];
	size_t used;
	bool whole; /* the line under way began at its beginning */

	uint64_t beats, first_seq, last_seq, missing, duplicated, garbled;
	uint64_t per_socket[SOCKETS_MAX];
	double last_ms, max_gap_ms;
	uint64_t max_gap_seq;
};

static volatile sig_atomic_t stopped;

static void on_signal(int number)
{
	(void)number;
	stopped = 1;
}

static double now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1e3 + now.tv_nsec / 1e6;
}

static int connect_unix(const char *path)
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

static void beat(struct watch *watch, size_t from, uint64_t seq)
{
	double now = now_ms();

	if (!watch->beats)
		watch->first_seq = seq;
	else if (seq <= watch->last_seq)
		watch->duplicated++;
	else
		watch->missing += seq - watch->last_seq - 1;
	if (watch->beats && now - watch->last_ms > watch->max_gap_ms) {
		watch->max_gap_ms = now - watch->last_ms;
		watch->max_gap_seq = seq;
	}
	watch->last_ms = now;
	if (!watch->beats || seq > watch->last_seq)
		watch->last_seq = seq;
	watch->beats++;
	watch->per_socket[from]++;
	watch->active = from;
	fprintf(watch->trace, "%.0f %llu %zu\n", now, (unsigned long long)seq, from);
}

static void take_line(struct watch *watch, size_t from)
{
	unsigned long long seq, mono, real;
	char end;

	watch->line[watch->used] = 0;
	if (sscanf(watch->line, "H %llu %llu %llu%c", &seq, &mono, &real, &end) == 3)
		beat(watch, from, seq);
	else if (watch->whole)
		watch->garbled++;
	watch->used = 0;
	watch->whole = true;
}

static void take_bytes(struct watch *watch, size_t from, const char *bytes, size_t length)
{
	for (size_t i = 0; i < length; i++) {
		if (bytes[i] == '\n')
			take_line(watch, from);
		else if (bytes[i] != '\r' && watch->used + 1 < sizeof(watch->line))
			watch->line[watch->used++] = bytes[i];
	}
}

static void read_socket(struct watch *watch, size_t from)
{
	char bytes[4096];

	while (watch->fds[from] >= 0) {
		ssize_t length = recv(watch->fds[from], bytes, sizeof(bytes), 0);

		if (length > 0) {
			take_bytes(watch, from, bytes, length);
		} else if (length == 0 || errno != EAGAIN) {
			close(watch->fds[from]);
			watch->fds[from] = -1;
		} else {
			return;
		}
	}
}

/* What the guest wrote where it ran last comes before what it writes where it runs now. */
static void read_all(struct watch *watch)
{
	size_t first = watch->active;

	read_socket(watch, first);
	for (size_t i = 0; i < watch->count; i++)
		if (i != first)
			read_socket(watch, i);
	fflush(watch->trace);
}

static void wait_and_read(struct watch *watch)
{
	struct pollfd polls[SOCKETS_MAX];

	for (size_t i = 0; i < watch->count; i++) {
		if (watch->fds[i] < 0)
			watch->fds[i] = connect_unix(watch->paths[i]);
		polls[i] = (struct pollfd) { .fd = watch->fds[i], .events = POLLIN };
	}
	if (poll(polls, watch->count, RETRY_MS) > 0)
		read_all(watch);
}

static void report(const struct watch *watch)
{
	printf("{\"beats\": %llu, \"first_seq\": %llu, \"last_seq\": %llu, \"max_gap_ms\": %.1f, "
	       "\"max_gap_seq\": %llu, "
	       "\"missing\": %llu, \"duplicated\": %llu, \"garbled\": %llu, \"per_socket\": [",
	    (unsigned long long)watch->beats, (unsigned long long)watch->first_seq,
	    (unsigned long long)watch->last_seq, watch->max_gap_ms, (unsigned long long)watch->max_gap_seq,
	    (unsigned long long)watch->missing, (unsigned long long)watch->duplicated,
	    (unsigned long long)watch->garbled);
	for (size_t i = 0; i < watch->count; i++)
		printf("%s%llu", i ? ", " : "", (unsigned long long)watch->per_socket[i]);
	printf("]}\n");
}

int main(int argc, char **argv)
{
	struct watch watch = { .count = argc - 2 };
	struct sigaction stop = { .sa_handler = on_signal };

	if (argc < 3 || argc - 2 > SOCKETS_MAX) {
		fprintf(stderr, "usage: heartbeat TRACE SOCKET... (at most %d)\n", SOCKETS_MAX);
		return 2;
	}
	watch.trace = fopen(argv[1], "we");
	if (!watch.trace) {
		perror(argv[1]);
		return 1;
	}
	for (size_t i = 0; i < watch.count; i++) {
		watch.paths[i] = argv[i + 2];
		watch.fds[i] = -1;
	}
	sigaction(SIGTERM, &stop, NULL);
	sigaction(SIGINT, &stop, NULL);
	while (!stopped)
		wait_and_read(&watch);
	read_all(&watch);
	report(&watch);
	return 0;
}
