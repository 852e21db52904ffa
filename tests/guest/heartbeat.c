/* SPDX-License-Identifier: Apache-2.0
 *
 * heartbeat.c - watch a guest's heartbeat on every socket where it may appear, and say what it missed.
 *
 *	heartbeat TRACE SOCKET...
 *
 * The SOCKETs are those of the guest's heartbeat port, one a host (see sockets.h). TRACE gets a line for each
 * beat: host_ms seq socket (0 is the first).
 *
 * On SIGTERM or SIGINT one JSON object goes to stdout:
 *
 * - beats, first_seq, last_seq: of what was seen
 * - max_gap_ms, max_gap_seq: the longest silence by the host's clock, and the beat that ended it
 * - missing, duplicated: sequence numbers that never came, or came again
 * - garbled: lines that are no beat (a console that shares the port has some)
 * - per_socket: beats by socket
 *
 * Lines over 255 bytes count as garbled. A beat is 10 ms: shorter gaps are not seen.
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "sockets.h"

struct watch {
	struct sockets sockets;
	FILE *trace;
	char line[256];
	size_t used;
	bool whole; /* the line under way began at its beginning */

	uint64_t beats, first_seq, last_seq, missing, duplicated, garbled;
	uint64_t per_socket[SOCKETS_MAX];
	double last_ms, max_gap_ms;
	uint64_t max_gap_seq;
};

static double now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1e3 + now.tv_nsec / 1e6;
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

static void take_bytes(void *arg, size_t from, const char *bytes, size_t length)
{
	struct watch *watch = arg;

	for (size_t i = 0; i < length; i++) {
		if (bytes[i] == '\n')
			take_line(watch, from);
		else if (bytes[i] != '\r' && watch->used + 1 < sizeof(watch->line))
			watch->line[watch->used++] = bytes[i];
	}
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
	for (size_t i = 0; i < watch->sockets.count; i++)
		printf("%s%llu", i ? ", " : "", (unsigned long long)watch->per_socket[i]);
	printf("]}\n");
}

int main(int argc, char **argv)
{
	static struct watch watch;

	if (argc < 3 || argc - 2 > SOCKETS_MAX) {
		fprintf(stderr, "usage: heartbeat TRACE SOCKET... (at most %d)\n", SOCKETS_MAX);
		return 2;
	}
	watch.trace = fopen(argv[1], "we");
	if (!watch.trace) {
		perror(argv[1]);
		return 1;
	}
	sockets_init(&watch.sockets, argv + 2, (size_t)argc - 2);
	while (!sockets_stopped) {
		sockets_turn(&watch.sockets, -1, take_bytes, &watch);
		fflush(watch.trace);
	}
	sockets_read_all(&watch.sockets, take_bytes, &watch);
	report(&watch);
	return 0;
}
