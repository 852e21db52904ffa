/* SPDX-License-Identifier: Apache-2.0
 *
 * links.c - listening, accepting, and what all sessions of a daemon share.
 *
 * Strangers (connections that have not shown a certificate and a good HELLO yet) are at most 64, 16 from
 * one host, each for at most 10 s and with at most 300 KiB of memory: who floods the port keeps nobody
 * else's session from working. Sessions: at most 1024.
 */
#include "link.h"
#include "engine/clock.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define LISTEN_AGAIN_MS 200 /* after the process ran out of descriptors */
#define REFILL_MIN_NS 2000000ull /* a burst is what a lost connection loses */

uint64_t links_now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

struct timeval links_timeval(uint64_t ns)
{
	return nova_timeval_us((int64_t)(ns / 1000));
}

/* ---- log ---- */

void links_log(struct nova_links *links, enum nova_log_level level, const char *format, ...)
{
	char line[768];
	va_list ap;

	if (!links->log)
		return;
	va_start(ap, format);
	vsnprintf(line, sizeof(line), format, ap);
	va_end(ap);
	links->log(links->arg, level, line);
}

void links_log_stranger(struct nova_links *links, const char *from, const char *why)
{
	uint64_t now = links_now_ns();

	if (now - links->log_ns > 1000000000u) {
		if (links->log_dropped)
			links_log(
			    links, NOVA_LOG_WARNING, "%u more connections were refused", links->log_dropped);
		links->log_ns = now;
		links->log_count = links->log_dropped = 0;
	}
	if (links->log_count++ < LINKS_LOG_BURST)
		links_log(links, NOVA_LOG_WARNING, "connection from %s refused: %s", from, why);
	else
		links->log_dropped++;
}

/* ---- lifetimes ---- */

static void links_destroy(struct nova_links *links)
{
	for (size_t i = 0; i < links->listener_count; i++)
		evconnlistener_free(links->listeners[i]);
	free(links->listeners);
	if (links->listen_again)
		event_free(links->listen_again);
	if (links->refill)
		event_free(links->refill);
	dial_free_resolver(links->resolver);
	SSL_CTX_free(links->ctx);
	BIO_meth_free(links->method);
	settings_release(&links->settings);
	free(links);
}

void links_enter(struct nova_links *links)
{
	links->entered++;
}

void links_leave(struct nova_links *links)
{
	if (--links->entered)
		return;
	while (links->dead_lanes) {
		struct lane *lane = links->dead_lanes;

		links->dead_lanes = lane->next;
		lane_free(lane);
	}
	while (links->dead_sessions) {
		struct nova_session *session = links->dead_sessions;

		links->dead_sessions = session->next;
		session_destroy(session);
	}
	if (links->closed)
		links_destroy(links);
}

struct nova_links *links_close(struct nova_links *links)
{
	if (!links)
		return NULL;
	links_enter(links);
	links->closed = true;
	links->log = NULL;
	for (struct nova_session *session = links->sessions, *next; session; session = next) {
		next = session->next;
		session_end(session);
	}
	request_answer_ended(links);
	while (links->strangers)
		lane_kill(links->strangers);
	for (size_t i = 0; i < links->listener_count; i++)
		evconnlistener_disable(links->listeners[i]);
	links_leave(links);
	return NULL;
}

/* ---- accepting ---- */

static const char *too_many(struct nova_links *links, const struct address *address)
{
	uint32_t same = 0;

	for (const struct lane *lane = links->strangers; lane; lane = lane->next)
		same += address_same_host(&lane->address, address);
	if (same >= LINKS_STRANGERS_PER_HOST)
		return "too many connections of this host are not authenticated";
	return links->stranger_count >= LINKS_STRANGERS_MAX ? "too many connections are not authenticated"
	                                                    : NULL;
}

static void on_accept(
    struct evconnlistener *listener, evutil_socket_t fd, struct sockaddr *from, int length, void *arg)
{
	struct nova_links *links = arg;
	struct address address = { .length = (socklen_t)length };
	char text[ADDRESS_TEXT];
	struct nova_error err;
	const char *why;

	links_enter(links);
	memcpy(&address.at, from, (size_t)length);
	address_text(&address, text);
	why = too_many(links, &address);
	if (why) {
		links_log_stranger(links, text, why);
		close(fd);
	} else if (!lane_new(links, NULL, fd, &address, &err)) {
		links_log_stranger(links, text, err.text);
	}
	links_leave(links);
}

static void on_accept_error(struct evconnlistener *listener, void *arg)
{
	struct nova_links *links = arg;
	struct timeval later = links_timeval(LISTEN_AGAIN_MS * 1000000ull);

	links_log(links, NOVA_LOG_WARNING, "a connection cannot be accepted: %s", strerrordesc_np(errno));
	for (size_t i = 0; i < links->listener_count; i++)
		evconnlistener_disable(links->listeners[i]);
	evtimer_add(links->listen_again, &later);
}

static void on_listen_again(evutil_socket_t fd, short what, void *arg)
{
	struct nova_links *links = arg;

	for (size_t i = 0; i < links->listener_count; i++)
		evconnlistener_enable(links->listeners[i]);
}

static int listen_on(struct nova_links *links, const char *text, struct nova_error *err)
{
	struct evconnlistener *listener;
	struct address address;
	char host[256], port[8];
	int fd;

	if (address_split(text, host, port, err) < 0)
		return -1;
	if (!address_numeric(host, port, true, &address))
		return nova_error_set(
		    err, NOVA_INVALID, "listen on %s: a numeric address is needed, as in 0.0.0.0:7654", text);
	fd = address_listen(&address, err);
	if (fd < 0)
		return -1;
	listener = evconnlistener_new(
	    links->base, on_accept, links, LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC, -1, fd);
	if (!listener) {
		close(fd);
		return nova_error_set(err, NOVA_SYSTEM, "no memory to listen on %s", text);
	}
	evconnlistener_set_error_cb(listener, on_accept_error);
	links->listeners[links->listener_count++] = listener;
	return 0;
}

static int listen_all(struct nova_links *links, struct nova_error *err)
{
	size_t i;
	json_t *text;

	links->listeners = calloc(json_array_size(links->settings.listen) + 1, sizeof(*links->listeners));
	if (!links->listeners)
		return nova_error_set(err, NOVA_SYSTEM, "no memory to listen");
	json_array_foreach (links->settings.listen, i, text) {
		if (listen_on(links, json_string_value(text), err) < 0)
			return -1;
	}
	return 0;
}

int links_port(struct nova_links *links)
{
	union {
		struct sockaddr any;
		struct sockaddr_in v4;
		struct sockaddr_in6 v6;
	} at;
	socklen_t length = sizeof(at);

	memset(&at, 0, sizeof(at));
	if (!links->listener_count ||
	    getsockname(evconnlistener_get_fd(links->listeners[0]), &at.any, &length) < 0)
		return 0;
	return ntohs(at.any.sa_family == AF_INET6 ? at.v6.sin6_port : at.v4.sin_port);
}

/* ---- rates ---- */

void links_want_tokens(struct nova_links *links, uint64_t wait_ns)
{
	struct timeval later = links_timeval(wait_ns > REFILL_MIN_NS ? wait_ns : REFILL_MIN_NS);

	if (!evtimer_pending(links->refill, NULL))
		evtimer_add(links->refill, &later);
}

/* Whoever was first the last time is last now: the host's rate is shared. */
static void on_refill(evutil_socket_t fd, short what, void *arg)
{
	struct nova_links *links = arg;
	struct nova_session *first = links->sessions, **last = &links->sessions;

	links_enter(links);
	if (first && first->next) {
		links->sessions = first->next;
		while (*last)
			last = &(*last)->next;
		*last = first;
		first->next = NULL;
	}
	for (struct nova_session *session = links->sessions, *next; session; session = next) {
		next = session->next;
		if (!session->starved)
			continue;
		session->starved = false;
		session_kick(session);
	}
	links_leave(links);
}

void links_host_rate(struct nova_links *links, uint64_t rate_bps)
{
	links_enter(links);
	bucket_set(&links->bucket, rate_bps, links_now_ns());
	for (struct nova_session *session = links->sessions; session; session = session->next) {
		measure_tune(session);
		session_kick(session);
	}
	links_leave(links);
}

/* ---- opening ---- */

static int prepare(struct nova_links *links, struct nova_error *err)
{
	const struct link_settings *settings = &links->settings;

	links->ctx = tls_context_new(settings->cert, settings->key, settings->ca, err);
	if (!links->ctx)
		return -1;
	links->method = pump_method_new();
	links->refill = evtimer_new(links->base, on_refill, links);
	links->listen_again = evtimer_new(links->base, on_listen_again, links);
	if (!links->method || !links->refill || !links->listen_again)
		return nova_error_set(err, NOVA_SYSTEM, "no memory for links");
	bucket_set(&links->bucket, settings->bandwidth_bps, links_now_ns());
	return listen_all(links, err);
}

struct nova_links *links_open(struct event_base *base, struct link_settings *settings,
    void (*accepted)(void *arg, struct nova_session *session, const char *peer),
    void (*log)(void *arg, enum nova_log_level level, const char *line), void *arg, struct nova_error *err)
{
	struct nova_links *links = calloc(1, sizeof(*links));

	if (!links) {
		settings_release(settings);
		nova_error_set(err, NOVA_SYSTEM, "no memory for links");
		return NULL;
	}
	links->base = base;
	links->settings = *settings;
	*settings = (struct link_settings) { 0 };
	links->accepted = accepted;
	links->log = log;
	links->arg = arg;
	if (prepare(links, err) < 0) {
		links_destroy(links);
		return NULL;
	}
	return links;
}
