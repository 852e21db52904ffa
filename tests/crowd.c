/* SPDX-License-Identifier: Apache-2.0
 *
 * crowd.c - far too many clients of one daemon, and some bad ones; how is a good client served meanwhile?
 *
 *	crowd CONTROL-SOCKET ADDRESS:PORT DAEMON-PID IDLE COMMANDS [calm]
 *
 * IDLE control connections are made and left alone. Then, all at once: one asks and never reads, one sends JSON nested
 * without end, one a text without end, and FLOOD connections come to the peers' port and say nothing. A last client asks
 * "list" COMMANDS times, one after the other. calm: without the bad ones.
 *
 * One JSON object goes to stdout: idle (connections made), refused (of them), bytes_per_idle (of the daemon's memory),
 * grown_bytes (by all that came after), answered, p50_ms, p99_ms, worst_ms, ended (bad clients that the daemon ended).
 * Exit status 1 when something could not be done at all; each answer may take LIMIT_S.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define LIMIT_S 30
#define FLOOD 400
#define IDLE_MAX 4000

static void die(const char *what)
{
	fprintf(stderr, "crowd: %s: %s\n", what, strerror(errno));
	exit(1);
}

static double now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

static long resident_bytes(const char *pid)
{
	char path[64];
	long pages = 0;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%s/statm", pid);
	file = fopen(path, "re");
	if (!file || fscanf(file, "%*d %ld", &pages) != 1)
		die(path);
	fclose(file);
	return pages * sysconf(_SC_PAGESIZE);
}

static int control(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	struct timeval limit = { LIMIT_S, 0 };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
		die(path);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
	return fd;
}

/* One line, which may be long; false at the end of the connection or of our patience. */
static bool line_ends(int fd)
{
	char text[65536];
	ssize_t got;

	while ((got = recv(fd, text, sizeof(text), 0)) > 0)
		if (text[got - 1] == '\n')
			return true;
	return false;
}

static bool say(int fd, const char *text)
{
	return send(fd, text, strlen(text), MSG_NOSIGNAL) == (ssize_t)strlen(text);
}

static int client(const char *path)
{
	int fd = control(path);

	if (line_ends(fd) && say(fd, "{\"execute\":\"qmp_capabilities\"}\n") && line_ends(fd))
		return fd;
	close(fd);
	return -1;
}

/* ---- bad clients ---- */

enum bad {
	NEVER_READS,
	NESTED,
	ENDLESS,
	BADS
};

static const char *const words[BADS] = { "{\"execute\":\"list\"}\n", "[[[[[[[[[[[[[[[[", "xxxxxxxxxxxxxxxx" };

struct bad_client {
	int fd;
	bool ended;
	size_t sent;
};

/* As much as the socket takes at once. */
static void push(struct bad_client *bad, const char *word)
{
	char block[16384];
	size_t length = strlen(word), used = 0;

	while (used + length <= sizeof(block)) {
		memcpy(block + used, word, length);
		used += length;
	}
	for (int i = 0; i < 64 && !bad->ended; i++) {
		ssize_t sent = send(bad->fd, block, used, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (sent > 0)
			bad->sent += (size_t)sent;
		else if (errno == EAGAIN)
			return;
		else
			bad->ended = true;
	}
}

static int flood(const char *where)
{
	struct sockaddr_in address = { .sin_family = AF_INET };
	char host[64];
	const char *colon = strrchr(where, ':');
	int made = 0;

	snprintf(host, sizeof(host), "%.*s", (int)(colon - where), where);
	address.sin_port = htons((uint16_t)atoi(colon + 1));
	if (inet_pton(AF_INET, host, &address.sin_addr) != 1)
		die(where);
	for (int i = 0; i < FLOOD; i++) {
		int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

		if (fd >= 0 && (connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0 || errno == EINPROGRESS))
			made++;
	}
	return made;
}

/* ---- the good one ---- */

static int by_size(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

static int ask_all(const char *path, int commands, double *took, struct bad_client *bads)
{
	int fd = client(path);
	int answered = 0;

	for (int i = 0; fd >= 0 && i < commands; i++) {
		double begin;

		for (enum bad bad = 0; bads && bad < BADS; bad++)
			push(&bads[bad], words[bad]);
		begin = now_ms();
		if (!say(fd, words[NEVER_READS]) || !line_ends(fd))
			break;
		took[answered++] = now_ms() - begin;
	}
	if (fd >= 0)
		close(fd);
	qsort(took, (size_t)answered, sizeof(*took), by_size);
	return answered;
}

int main(int argc, char **argv)
{
	struct rlimit files;
	struct bad_client bads[BADS] = { 0 };
	int idle, commands, made = 0, answered, flooded = 0, ended = 0;
	bool calm = argc == 7 && strcmp(argv[6], "calm") == 0;
	long before, after;
	double *took;

	if (argc != 6 && !calm) {
		fprintf(stderr, "usage: crowd CONTROL-SOCKET ADDRESS:PORT DAEMON-PID IDLE COMMANDS [calm]\n");
		return 2;
	}
	idle = atoi(argv[4]), commands = atoi(argv[5]);
	if (idle < 1 || idle > IDLE_MAX || commands < 1 || commands > 1000000)
		die("IDLE is 1 to 4000, COMMANDS 1 to 1000000");
	getrlimit(RLIMIT_NOFILE, &files);
	files.rlim_cur = files.rlim_max;
	setrlimit(RLIMIT_NOFILE, &files);
	took = calloc((size_t)commands, sizeof(*took));
	if (!took)
		die("memory");
	ask_all(argv[1], commands < 100 ? commands : 100, took, NULL);
	before = resident_bytes(argv[3]);
	for (int i = 0; i < idle; i++)
		made += client(argv[1]) >= 0;
	after = resident_bytes(argv[3]);
	for (enum bad bad = 0; !calm && bad < BADS; bad++)
		bads[bad].fd = client(argv[1]);
	if (!calm)
		flooded = flood(argv[2]);
	answered = ask_all(argv[1], commands, took, calm ? NULL : bads);
	for (enum bad bad = 0; bad < BADS; bad++)
		ended += bads[bad].ended;
	printf("{\"idle\":%d,\"refused\":%d,\"bytes_per_idle\":%ld,\"flooded\":%d,\"grown_bytes\":%ld,\"answered\":%d,"
	       "\"p50_ms\":%.2f,\"p99_ms\":%.2f,\"worst_ms\":%.2f,\"ended\":%d,\"pushed_bytes\":%zu}\n",
	    made, idle - made, (after - before) / (made ? made : 1), flooded, resident_bytes(argv[3]) - after, answered,
	    answered ? took[answered / 2] : 0, answered ? took[answered * 99 / 100] : 0, answered ? took[answered - 1] : 0,
	    ended, bads[0].sent + bads[1].sent + bads[2].sent);
	free(took);
	return answered == commands ? 0 : 1;
}
