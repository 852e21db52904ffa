/* SPDX-License-Identifier: Apache-2.0
 *
 * console.c - say one line to a guest's console and print the line that answers it.
 *
 *	console SOCKET SECONDS LINE PATTERN
 *
 * Sends LINE to the unix socket of the console, again every 2 s while nothing answers (a guest that boots
 * throws input away), and prints the first whole line from the guest in which PATTERN stands, from there
 * on. An empty LINE sends nothing. Exit status 1 when SECONDS pass without; what the guest said instead
 * goes to stderr (the last 1 KiB).
 */
#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define AGAIN_MS 2000
#define RETRY_MS 50

struct console {
	const char *path, *line, *pattern;
	int fd; /* -1: not connected */
	double sent_ms;
	char heard[1024];
	size_t used;
};

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
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
		close(fd);
		return -1;
	}
	return fd;
}

static void say(struct console *console)
{
	char text[600];
	int length = snprintf(text, sizeof(text), "%s\n", console->line);

	if (!*console->line || now_ms() - console->sent_ms < AGAIN_MS)
		return;
	send(console->fd, text, length, MSG_NOSIGNAL);
	console->sent_ms = now_ms();
}

/* The whole line in which the pattern stands has come: print it. */
static int answered(struct console *console)
{
	char *found, *end;

	console->heard[console->used] = 0;
	found = strstr(console->heard, console->pattern);
	end = found ? strpbrk(found, "\r\n") : NULL;
	if (end)
		printf("%.*s\n", (int)(end - found), found);
	return end != NULL;
}

/* Keep the newer half when the buffer is full. */
static void hear(struct console *console)
{
	ssize_t length;

	if (console->used + 1 == sizeof(console->heard)) {
		console->used = sizeof(console->heard) / 2;
		memmove(console->heard, console->heard + sizeof(console->heard) - 1 - console->used,
		    console->used);
	}
	length =
	    recv(console->fd, console->heard + console->used, sizeof(console->heard) - 1 - console->used, 0);
	if (length > 0) {
		console->used += length;
		for (size_t i = 0; i < console->used; i++)
			if (!console->heard[i])
				console->heard[i] = ' ';
		return;
	}
	close(console->fd);
	console->fd = -1;
}

static int converse(struct console *console, double until_ms)
{
	while (now_ms() < until_ms) {
		struct pollfd poll_fd = { .fd = console->fd, .events = POLLIN };

		if (console->fd < 0)
			console->fd = connect_unix(console->path);
		else
			say(console);
		if (poll(&poll_fd, 1, RETRY_MS) > 0)
			hear(console);
		if (answered(console))
			return 0;
	}
	fprintf(stderr, "console %s: no \"%s\" in time; it said: %s\n", console->path, console->pattern,
	    console->heard);
	return 1;
}

int main(int argc, char **argv)
{
	struct console console = { .fd = -1, .sent_ms = -AGAIN_MS };

	if (argc != 5 || strlen(argv[3]) > 500) {
		fprintf(stderr, "usage: console SOCKET SECONDS LINE PATTERN\n");
		return 2;
	}
	console.path = argv[1];
	console.line = argv[3];
	console.pattern = argv[4];
	return converse(&console, now_ms() + atof(argv[2]) * 1e3);
}
