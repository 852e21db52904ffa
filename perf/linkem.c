/* SPDX-License-Identifier: Apache-2.0
 *
 * linkem.c - the link between two network namespaces, as bad as a test wants it: rate, delay, jitter,
 * loss, silence, resets. For kernels without netem, and exact where tbf is not (1 Gbit/s and more).
 *
 *	linkem [--control PATH] [--device NAME] NAMESPACE-A NAMESPACE-B [KEY=VALUE...]
 *
 * A namespace is a name below /run/netns or a path (/proc/PID/ns/net). Each gets a TUN device (link0) that
 * is up but has no address; what is sent into one comes out of the other. Keys, here and on the control
 * socket:
 *	rate=100mbit    bits a second with bit, kbit, mbit or gbit; 0: no limit
 *	delay=25ms      one way, with us, ms or s; so a round trip takes twice as long
 *	jitter=2ms      the delay varies by this much either way; order is kept
 *	loss=0.5%       of packets, each by itself
 *	queue=256k      bytes that wait for the wire, with k or m; 0: 50 ms of the rate
 * PATH is a unix socket that takes lines and answers each with one: KEY=VALUE... (changes at once, for
 * what enters from now on), "a KEY=VALUE..." or "b ..." (only for what A or B sends), "hole" (nothing
 * arrives any more), "pass" (again), "reset" (every TCP connection is reset at its next packet), "stats"
 * (a JSON object), "quit". When the devices are there, "ready" goes to stdout. Ends on SIGTERM; the
 * devices go with it.
 *
 * The rate counts each packet with the 14 bytes of an Ethernet header, as tbf does. From 500 Mbit/s on, and
 * without loss, the kernel hands us TCP segments in bundles of up to 64 KiB (counted as the packets they
 * stand for), since single packets would take a processor. Arrivals are up to 0.1 ms late on purpose (one
 * wake-up for many packets). At most 8 clients of the control socket.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <linux/virtio_net.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "shaper.h"
#include "tcpreset.h"

#define CLIENTS_MAX 8
#define BATCH 64
#define HEADER sizeof(struct virtio_net_hdr) /* before each packet, from and to the device */
#define ETHERNET_BYTES 14
#define PACKET_MAX (65536 + HEADER)
#define BUNDLE_BPS 500000000 /* from this rate on */
#define WAKE_NS 100000
#define TUN_QUEUE 5000 /* packets that the kernel keeps for us while we do not run */

struct client {
	int fd; /* -1: free */
	char line[256];
	size_t used;
};

/* Index 0 is what A sends and B gets. */
struct link {
	int tun[2];
	struct shaper shaper[2];
	struct tcpreset resets;
	int listener; /* -1: no control socket */
	struct client clients[CLIENTS_MAX];
	bool quit;
};

static volatile sig_atomic_t stopped;

static void on_signal(int number)
{
	stopped = 1;
}

static void die(const char *what)
{
	fprintf(stderr, "linkem: %s: %s\n", what, strerror(errno));
	exit(1);
}

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* ---- settings ----------------------------------------------------------------------------------- */

struct unit {
	const char *name;
	double factor;
};
static const struct unit rate_units[] = { { "bit", 1 }, { "kbit", 1e3 }, { "mbit", 1e6 }, { "gbit", 1e9 },
	{ "", 1 }, { NULL } };
static const struct unit time_units[] = { { "us", 1e3 }, { "ms", 1e6 }, { "s", 1e9 }, { NULL } };
static const struct unit share_units[] = { { "%", 0.01 }, { NULL } };
static const struct unit size_units[] = { { "k", 1024 }, { "m", 1 << 20 }, { "", 1 }, { NULL } };

/* -1 when text is not a number that is followed by one of the units. */
static double parse(const char *text, const struct unit *units)
{
	char *end;
	double value = strtod(text, &end);

	if (end == text || value < 0)
		return -1;
	for (; units->name; units++)
		if (!strcasecmp(end, units->name))
			return value * units->factor;
	return value == 0 && !*end ? 0 : -1;
}

static bool set_key(struct shape *shape, const char *key, const char *text)
{
	const struct unit *units = !strcmp(key, "rate")    ? rate_units
	                           : !strcmp(key, "loss")  ? share_units
	                           : !strcmp(key, "queue") ? size_units
	                                                   : time_units;
	double value = parse(text, units);

	if (value < 0)
		return false;
	if (!strcmp(key, "rate"))
		shape->rate_bps = (uint64_t)value;
	else if (!strcmp(key, "delay"))
		shape->delay_ns = (uint64_t)value;
	else if (!strcmp(key, "jitter"))
		shape->jitter_ns = (uint64_t)value;
	else if (!strcmp(key, "loss"))
		shape->loss = value;
	else if (!strcmp(key, "queue"))
		shape->queue_bytes = (uint64_t)value;
	else
		return false;
	return true;
}

/* Bundles where single packets would cost too much, and where none is lost. */
static void offload(struct link *link)
{
	for (int i = 0; i < 2; i++) {
		const struct shape *shape = &link->shaper[i].shape;
		bool bundles = shape->loss == 0 && (shape->rate_bps == 0 || shape->rate_bps >= BUNDLE_BPS);

		if (ioctl(link->tun[i], TUNSETOFFLOAD, TUN_F_CSUM | (bundles ? TUN_F_TSO4 | TUN_F_TSO6 : 0)) <
		    0)
			die("TUNSETOFFLOAD");
	}
}

/* Words KEY=VALUE for the directions first to last; all of them or none. */
static bool set_words(struct link *link, int first, int last, char *words)
{
	struct shape shape[2] = { link->shaper[0].shape, link->shaper[1].shape };
	char *rest;

	for (char *word = strtok_r(words, " ", &rest); word; word = strtok_r(NULL, " ", &rest)) {
		char *value = strchr(word, '=');

		if (!value)
			return false;
		*value++ = 0;
		for (int i = first; i <= last; i++)
			if (!set_key(&shape[i], word, value))
				return false;
	}
	link->shaper[0].shape = shape[0];
	link->shaper[1].shape = shape[1];
	offload(link);
	return true;
}

static void set_hole(struct link *link, bool hole)
{
	link->shaper[0].shape.hole = link->shaper[1].shape.hole = hole;
}

/* ---- the control socket ------------------------------------------------------------------------- */

static void describe(const struct shaper *shaper, char *text, size_t size)
{
	snprintf(text, size,
	    "{\"packets\": %llu, \"bytes\": %llu, \"lost\": %llu, \"overflowed\": %llu, \"held_bytes\": %zu}",
	    (unsigned long long)shaper->passed_packets, (unsigned long long)shaper->passed_bytes,
	    (unsigned long long)shaper->lost, (unsigned long long)shaper->overflowed, shaper->held_bytes);
}

static void obey(struct link *link, char *line, char *answer, size_t size)
{
	char a[200], b[200];
	bool ok = true;

	if (!strcmp(line, "stats")) {
		describe(&link->shaper[0], a, sizeof(a));
		describe(&link->shaper[1], b, sizeof(b));
		snprintf(answer, size, "{\"a\": %s, \"b\": %s}\n", a, b);
		return;
	}
	if (!strcmp(line, "hole") || !strcmp(line, "pass"))
		set_hole(link, line[0] == 'h');
	else if (!strcmp(line, "reset"))
		tcpreset_all(&link->resets);
	else if (!strcmp(line, "quit"))
		link->quit = true;
	else if ((line[0] == 'a' || line[0] == 'b') && line[1] == ' ')
		ok = set_words(link, line[0] - 'a', line[0] - 'a', line + 2);
	else
		ok = set_words(link, 0, 1, line);
	snprintf(answer, size, ok ? "ok\n" : "error: not understood\n");
}

static void end_client(struct client *client)
{
	close(client->fd);
	client->fd = -1;
	client->used = 0;
}

static void serve(struct link *link, struct client *client)
{
	ssize_t length = recv(
	    client->fd, client->line + client->used, sizeof(client->line) - 1 - client->used, MSG_DONTWAIT);
	char *end, answer[512];

	if (length <= 0) {
		end_client(client);
		return;
	}
	client->used += length;
	client->line[client->used] = 0;
	while ((end = strchr(client->line, '\n'))) {
		*end++ = 0;
		obey(link, client->line, answer, sizeof(answer));
		send(client->fd, answer, strlen(answer), MSG_NOSIGNAL | MSG_DONTWAIT);
		client->used -= end - client->line;
		memmove(client->line, end, client->used + 1);
	}
	if (client->used == sizeof(client->line) - 1)
		end_client(client);
}

static void accept_client(struct link *link)
{
	int fd = accept4(link->listener, NULL, NULL, SOCK_CLOEXEC);

	for (int i = 0; fd >= 0 && i < CLIENTS_MAX; i++) {
		if (link->clients[i].fd < 0) {
			link->clients[i].fd = fd;
			return;
		}
	}
	if (fd >= 0)
		close(fd);
}

static int listen_unix(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (strlen(path) >= sizeof(address.sun_path)) {
		errno = ENAMETOOLONG;
		die(path);
	}
	strcpy(address.sun_path, path);
	unlink(path);
	if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 ||
	    listen(fd, CLIENTS_MAX) < 0)
		die(path);
	return fd;
}

/* ---- devices ------------------------------------------------------------------------------------ */

static void enter(const char *namespace)
{
	char path[256];
	int fd;

	snprintf(path, sizeof(path), strchr(namespace, '/') ? "%s" : "/run/netns/%s", namespace);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || setns(fd, CLONE_NEWNET) < 0)
		die(path);
	close(fd);
}

static void bring_up(const char *device)
{
	struct ifreq request = { 0 };
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	strcpy(request.ifr_name, device);
	request.ifr_qlen = TUN_QUEUE;
	if (ioctl(fd, SIOCSIFTXQLEN, &request) < 0)
		die("SIOCSIFTXQLEN");
	if (ioctl(fd, SIOCGIFFLAGS, &request) < 0)
		die("SIOCGIFFLAGS");
	request.ifr_flags |= IFF_UP;
	if (ioctl(fd, SIOCSIFFLAGS, &request) < 0)
		die("SIOCSIFFLAGS");
	close(fd);
}

/* The device belongs to the namespace we are in when it is made, whoever holds it open. */
static int open_tun(const char *namespace, const char *device)
{
	struct ifreq request = { .ifr_flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR };
	int fd;

	enter(namespace);
	fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0)
		die("/dev/net/tun");
	strcpy(request.ifr_name, device);
	if (ioctl(fd, TUNSETIFF, &request) < 0)
		die(device);
	bring_up(device);
	return fd;
}

/* ---- packets ------------------------------------------------------------------------------------ */

/* What a packet takes of the wire: a bundle as much as the packets it stands for. */
static size_t wire_bytes(const uint8_t *packet, size_t length)
{
	size_t bytes = length - HEADER, headers, packets;
	struct virtio_net_hdr header;

	memcpy(&header, packet, HEADER);
	if (header.gso_type == VIRTIO_NET_HDR_GSO_NONE || !header.gso_size || header.csum_start + 20u > bytes)
		return bytes + ETHERNET_BYTES;
	headers = header.csum_start + (packet[HEADER + header.csum_start + 12] >> 4) * 4u;
	if (headers >= bytes)
		return bytes + ETHERNET_BYTES;
	packets = (bytes - headers + header.gso_size - 1) / header.gso_size;
	return bytes - headers + packets * (headers + ETHERNET_BYTES);
}

static void send_back(struct link *link, int i, const uint8_t answer[TCPRESET_BYTES])
{
	uint8_t packet[HEADER + TCPRESET_BYTES] = { 0 };

	memcpy(packet + HEADER, answer, TCPRESET_BYTES);
	shaper_put(&link->shaper[!i], now_ns(), packet, sizeof(packet), wire_bytes(packet, sizeof(packet)));
}

/* What came into direction i: on the wire, or back with a reset. */
static void take_in(struct link *link, int i)
{
	static uint8_t packet[PACKET_MAX];
	uint8_t answer[TCPRESET_BYTES];

	for (int n = 0; n < BATCH; n++) {
		ssize_t length = read(link->tun[i], packet, sizeof(packet));
		int reset;

		if (length <= (ssize_t)HEADER)
			return;
		reset = tcpreset_see(&link->resets, packet + HEADER, length - HEADER, answer);
		if (reset > 0)
			send_back(link, i, answer);
		else if (reset == 0)
			shaper_put(&link->shaper[i], now_ns(), packet, length, wire_bytes(packet, length));
	}
}

static void hand_out(struct link *link, int i)
{
	struct packet *packet;
	uint64_t now = now_ns();

	while ((packet = shaper_take(&link->shaper[i], now))) {
		/* A device that is down or full loses it, as a wire does. */
		if (write(link->tun[!i], packet->data, packet->length) < 0)
			link->shaper[i].lost++;
		free(packet);
	}
}

static struct timespec until_due(const struct link *link)
{
	uint64_t a = shaper_due(&link->shaper[0]), b = shaper_due(&link->shaper[1]);
	uint64_t due = a < b ? a : b, now = now_ns(), wait = due > now ? due - now : 0;

	if (wait < WAKE_NS)
		wait = WAKE_NS;
	if (wait > 1000000000)
		wait = 1000000000;
	return (struct timespec) { wait / 1000000000, wait % 1000000000 };
}

static void turn(struct link *link)
{
	struct pollfd polls[3 + CLIENTS_MAX] = {
		{ .fd = link->tun[0], .events = POLLIN },
		{ .fd = link->tun[1], .events = POLLIN },
		{ .fd = link->listener, .events = POLLIN },
	};
	struct timespec wait = until_due(link);

	for (int i = 0; i < CLIENTS_MAX; i++)
		polls[3 + i] = (struct pollfd) { .fd = link->clients[i].fd, .events = POLLIN };
	if (ppoll(polls, 3 + CLIENTS_MAX, &wait, NULL) < 0)
		return;
	for (int i = 0; i < 2; i++)
		if (polls[i].revents)
			take_in(link, i);
	for (int i = 0; i < 2; i++)
		hand_out(link, i);
	if (polls[2].revents)
		accept_client(link);
	for (int i = 0; i < CLIENTS_MAX; i++)
		if (polls[3 + i].revents)
			serve(link, &link->clients[i]);
}

/* Late wake-ups are what makes an emulated link inexact. Without the right to it we run as we are. */
static void run_promptly(void)
{
	struct sched_param priority = { .sched_priority = 1 };

	prctl(PR_SET_TIMERSLACK, 1);
	sched_setscheduler(0, SCHED_RR, &priority);
}

static void usage(void)
{
	fprintf(stderr,
	    "usage: linkem [--control PATH] [--device NAME] NAMESPACE-A NAMESPACE-B [KEY=VALUE...]\n"
	    "keys: rate=100mbit delay=25ms jitter=2ms loss=0.5%% queue=256k\n");
	exit(2);
}

int main(int argc, char **argv)
{
	struct sigaction stop = { .sa_handler = on_signal };
	const char *control = NULL, *device = "link0";
	static struct link link;
	int at = 1;

	for (; at + 1 < argc && !strncmp(argv[at], "--", 2); at += 2) {
		if (!strcmp(argv[at], "--control"))
			control = argv[at + 1];
		else if (!strcmp(argv[at], "--device") && strlen(argv[at + 1]) < IFNAMSIZ)
			device = argv[at + 1];
		else
			usage();
	}
	if (argc - at < 2)
		usage();
	link.listener = control ? listen_unix(control) : -1;
	for (int i = 0; i < CLIENTS_MAX; i++)
		link.clients[i].fd = -1;
	for (int i = 0; i < 2; i++) {
		shaper_init(&link.shaper[i], now_ns() + i);
		link.tun[i] = open_tun(argv[at + i], device);
	}
	offload(&link);
	for (at += 2; at < argc; at++)
		if (!set_words(&link, 0, 1, argv[at]))
			usage();
	sigaction(SIGTERM, &stop, NULL);
	sigaction(SIGINT, &stop, NULL);
	run_promptly();
	puts("ready");
	fflush(stdout);
	while (!stopped && !link.quit)
		turn(&link);
	if (control)
		unlink(control);
	shaper_release(&link.shaper[0]);
	shaper_release(&link.shaper[1]);
	return 0;
}
