/* SPDX-License-Identifier: Apache-2.0
 *
 * console.c - write down all that a guest says on its console, on every socket where it may appear, and tell
 *it lines.
 *
 *	console LOG FIFO SOCKET...
 *
 * LOG gets the guest's text as it comes, without carriage returns. FIFO is made by us; a line "N TEXT" in it
 *sends TEXT to SOCKET number N (0 is the first), if that is connected. Ends on SIGTERM. Lines have at most
 *600 bytes.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "sockets.h"

struct console {
	struct sockets sockets;
	FILE *log;
	char line[600];
	size_t used;
};

static void write_down(void *arg, size_t from, const char *bytes, size_t length)
{
	struct console *console = arg;

	(void)from;
	for (size_t i = 0; i < length; i++)
		if (bytes[i] != '\r')
			putc(bytes[i] ? bytes[i] : ' ', console->log);
	fflush(console->log);
}

static void tell(struct console *console)
{
	char *text;
	unsigned long to = strtoul(console->line, &text, 10);

	if (*text == ' ' && to < console->sockets.count && console->sockets.fds[to] >= 0)
		send(console->sockets.fds[to], text + 1, strlen(text + 1), MSG_NOSIGNAL);
	console->used = 0;
}

static void take_orders(struct console *console, int fifo)
{
	char byte;

	while (read(fifo, &byte, 1) == 1) {
		if (console->used + 2 < sizeof(console->line))
			console->line[console->used++] = byte;
		console->line[console->used] = 0;
		if (byte == '\n')
			tell(console);
	}
}

/* Open for writing too, so that it never ends. */
static int open_fifo(const char *path)
{
	return mkfifo(path, 0600) < 0 ? -1 : open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
}

int main(int argc, char **argv)
{
	static struct console console;
	int fifo;

	if (argc < 4 || argc - 3 > SOCKETS_MAX) {
		fprintf(stderr, "usage: console LOG FIFO SOCKET... (at most %d)\n", SOCKETS_MAX);
		return 2;
	}
	console.log = fopen(argv[1], "ae");
	fifo = open_fifo(argv[2]);
	if (!console.log || fifo < 0) {
		perror(console.log ? argv[2] : argv[1]);
		return 1;
	}
	sockets_init(&console.sockets, argv + 3, (size_t)argc - 3);
	while (!sockets_stopped)
		if (sockets_turn(&console.sockets, fifo, write_down, &console))
			take_orders(&console, fifo);
	sockets_read_all(&console.sockets, write_down, &console);
	unlink(argv[2]);
	return 0;
}
