/* SPDX-License-Identifier: Apache-2.0
 *
 * tcp_proxy.c - a TCP connection that a test can hurt: it stands between two daemons and obeys.
 *
 *	tcp_proxy LISTEN-ADDRESS[:PORT] TARGET-ADDRESS:PORT CONTROL
 *
 * Without a port any is taken; the port we listen on is the line on stdout. CONTROL is a FIFO that we make
 * and read lines from:
 *
 * - pass: forward (as at the start)
 * - hole: forward nothing and say nothing: connections stay open, new ones are accepted
 * - reset: end every connection with a reset; new ones are forwarded
 * - refuse: reset, and every new connection too
 * - after N WORD: do WORD once N more bytes have been forwarded (both directions together)
 * - every N WORD TIMES: the same, again and again, TIMES times in all
 *
 * Numeric addresses. At most 256 KiB are held for each direction of a connection. Ends on SIGTERM.
 */
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/listener.h>
#include <event2/util.h>
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define HELD_MAX (256 * 1024)

/* One connection: a pair of sockets. */
struct pair {
	struct pair *next, **link;
	struct proxy *proxy;
	struct bufferevent *side[2]; /* who came, whom we dialled; NULL: that direction has ended */
};

struct proxy {
	struct event_base *base;
	struct pair *pairs;
	struct sockaddr_storage target;
	int target_length;
	bool hole, refuse;
	uint64_t forwarded, act_at; /* bytes; act_at 0: nothing planned */
	uint64_t act_every;         /* bytes between acts */
	unsigned acts;              /* still to do */
	char act[16];
};

static void obey(struct proxy *proxy, const char *word);

static void close_side(struct bufferevent *side, bool reset)
{
	struct linger linger = { .l_onoff = 1 };

	if (reset)
		setsockopt(bufferevent_getfd(side), SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
	bufferevent_free(side);
}

static void pair_free(struct pair *pair, bool reset)
{
	*pair->link = pair->next;
	if (pair->next)
		pair->next->link = pair->link;
	for (int i = 0; i < 2; i++)
		if (pair->side[i])
			close_side(pair->side[i], reset);
	free(pair);
}

static struct bufferevent *other_side(struct pair *pair, struct bufferevent *side)
{
	return pair->side[side == pair->side[0]];
}

static void on_read(struct bufferevent *side, void *arg)
{
	struct pair *pair = arg;
	struct proxy *proxy = pair->proxy;
	struct bufferevent *other = other_side(pair, side);

	proxy->forwarded += evbuffer_get_length(bufferevent_get_input(side));
	evbuffer_add_buffer(bufferevent_get_output(other), bufferevent_get_input(side));
	if (evbuffer_get_length(bufferevent_get_output(other)) > HELD_MAX)
		bufferevent_disable(side, EV_READ);
	if (proxy->act_at && proxy->forwarded >= proxy->act_at) {
		proxy->act_at = --proxy->acts ? proxy->forwarded + proxy->act_every : 0;
		obey(proxy, proxy->act);
	}
}

/* The other side took what we held for it: read on. */
static void on_written(struct bufferevent *side, void *arg)
{
	struct pair *pair = arg;

	if (!pair->proxy->hole)
		bufferevent_enable(other_side(pair, side), EV_READ);
}

static void on_drained(struct bufferevent *side, void *arg)
{
	pair_free(arg, false);
}

/* One side ended: the other gets what is still held, then the end as well. */
static void on_event(struct bufferevent *side, short what, void *arg)
{
	struct pair *pair = arg;
	struct bufferevent *other = other_side(pair, side);

	if (what & BEV_EVENT_CONNECTED)
		return;
	if ((what & BEV_EVENT_ERROR) || evbuffer_get_length(bufferevent_get_output(other)) == 0) {
		pair_free(pair, what & BEV_EVENT_ERROR);
		return;
	}
	bufferevent_disable(side, EV_READ);
	bufferevent_setwatermark(other, EV_WRITE, 0, 0);
	bufferevent_setcb(other, NULL, on_drained, on_event, pair);
}

static void let_flow(struct pair *pair, bool flow)
{
	for (int i = 0; i < 2; i++) {
		if (flow)
			bufferevent_enable(pair->side[i], EV_READ | EV_WRITE);
		else
			bufferevent_disable(pair->side[i], EV_READ | EV_WRITE);
	}
}

static void on_accept(
    struct evconnlistener *listener, evutil_socket_t fd, struct sockaddr *from, int length, void *arg)
{
	struct proxy *proxy = arg;
	struct pair *pair = calloc(1, sizeof(*pair));

	pair->proxy = proxy;
	pair->next = proxy->pairs;
	pair->link = &proxy->pairs;
	if (pair->next)
		pair->next->link = &pair->next;
	proxy->pairs = pair;
	pair->side[0] = bufferevent_socket_new(proxy->base, fd, BEV_OPT_CLOSE_ON_FREE);
	pair->side[1] = bufferevent_socket_new(proxy->base, -1, BEV_OPT_CLOSE_ON_FREE);
	for (int i = 0; i < 2; i++) {
		bufferevent_setcb(pair->side[i], on_read, on_written, on_event, pair);
		bufferevent_setwatermark(pair->side[i], EV_WRITE, HELD_MAX / 2, 0);
	}
	if (proxy->refuse)
		pair_free(pair, true);
	else if (bufferevent_socket_connect(
	             pair->side[1], (struct sockaddr *)&proxy->target, proxy->target_length) < 0)
		pair_free(pair, true);
	else
		let_flow(pair, !proxy->hole);
}

static void reset_all(struct proxy *proxy)
{
	while (proxy->pairs)
		pair_free(proxy->pairs, true);
}

static void obey(struct proxy *proxy, const char *word)
{
	bool known = !strcmp(word, "pass") || !strcmp(word, "hole") || !strcmp(word, "reset") ||
	             !strcmp(word, "refuse");

	if (!known) {
		fprintf(stderr, "tcp_proxy: what is \"%s\"?\n", word);
		return;
	}
	proxy->hole = !strcmp(word, "hole");
	proxy->refuse = !strcmp(word, "refuse");
	if (!strcmp(word, "reset") || proxy->refuse)
		reset_all(proxy);
	for (struct pair *pair = proxy->pairs; pair; pair = pair->next)
		let_flow(pair, !proxy->hole);
}

static void on_control(struct bufferevent *control, void *arg)
{
	struct proxy *proxy = arg;
	unsigned long long bytes;
	char *line;

	while ((line = evbuffer_readln(bufferevent_get_input(control), NULL, EVBUFFER_EOL_LF))) {
		unsigned times = 1;

		if (sscanf(line, "after %llu %15s", &bytes, proxy->act) == 2 ||
		    (sscanf(line, "every %llu %15s %u", &bytes, proxy->act, &times) == 3 && times)) {
			proxy->act_at = proxy->forwarded + bytes;
			proxy->act_every = bytes;
			proxy->acts = times;
		} else {
			obey(proxy, line);
		}
		free(line);
	}
}

/* The FIFO is open for writing too, so that it never ends. */
static struct bufferevent *open_control(struct proxy *proxy, const char *path)
{
	struct bufferevent *control;
	int fd;

	unlink(path);
	fd = mkfifo(path, 0600) < 0 ? -1 : open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0) {
		perror(path);
		exit(1);
	}
	control = bufferevent_socket_new(proxy->base, fd, BEV_OPT_CLOSE_ON_FREE);
	bufferevent_setcb(control, on_control, NULL, NULL, proxy);
	bufferevent_enable(control, EV_READ);
	return control;
}

static int bound_port(struct evconnlistener *listener)
{
	struct sockaddr_in address;
	socklen_t length = sizeof(address);

	getsockname(evconnlistener_get_fd(listener), (struct sockaddr *)&address, &length);
	return ntohs(address.sin_port);
}

static void on_term(evutil_socket_t number, short what, void *arg)
{
	event_base_loopbreak(arg);
}

int main(int argc, char **argv)
{
	struct proxy proxy = { .target_length = sizeof(proxy.target) };
	struct sockaddr_storage own;
	int own_length = sizeof(own);
	struct evconnlistener *listener;
	struct bufferevent *control;
	struct event *term;

	if (argc != 4 || evutil_parse_sockaddr_port(argv[1], (struct sockaddr *)&own, &own_length) < 0 ||
	    evutil_parse_sockaddr_port(argv[2], (struct sockaddr *)&proxy.target, &proxy.target_length) < 0) {
		fprintf(stderr, "usage: tcp_proxy LISTEN-ADDRESS[:PORT] TARGET-ADDRESS:PORT CONTROL\n");
		return 2;
	}
	signal(SIGPIPE, SIG_IGN); /* who fell silent has often hung up when we speak again */
	proxy.base = event_base_new();
	control = open_control(&proxy, argv[3]);
	listener = evconnlistener_new_bind(proxy.base, on_accept, &proxy,
	    LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC | LEV_OPT_REUSEABLE, -1, (struct sockaddr *)&own,
	    own_length);
	if (!listener) {
		perror(argv[1]);
		return 1;
	}
	term = evsignal_new(proxy.base, SIGTERM, on_term, proxy.base);
	event_add(term, NULL);
	printf("%d\n", bound_port(listener));
	fflush(stdout);
	event_base_dispatch(proxy.base);
	reset_all(&proxy);
	event_free(term);
	evconnlistener_free(listener);
	bufferevent_free(control);
	event_base_free(proxy.base);
	unlink(argv[3]);
	return 0;
}
