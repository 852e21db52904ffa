/* SPDX-License-Identifier: Apache-2.0
 *
 * dial.c - reach a peer: its addresses one after the other, each resolved without blocking.
 *
 * One attempt at a time; a TCP connection has 5 s to come up and the greeting 10 s. The first dial of a
 * session tries every address once. A session that was up before goes on, round after round with a pause
 * of 100 ms to 5 s between them, until its limit ends it (session.c). The address that worked last comes
 * first, unless it fell silent: who dials it would wait for an answer again.
 */
#include "link.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Outlives its links while evdns owes an answer: it calls back even what was cancelled. */
struct resolver {
	struct evdns_base *dns; /* owned */
	unsigned pending;
	bool orphan;
};

struct lookup {
	struct resolver *resolver;    /* borrowed */
	struct nova_session *session; /* borrowed; NULL: nobody waits any more */
	struct evdns_getaddrinfo_request *request;
};

static void dial_next(struct nova_session *session);

static void again_after(struct nova_session *session, int delay_ms)
{
	struct timeval delay = links_timeval((uint64_t)delay_ms * 1000000u);

	evtimer_add(session->dial.timer, &delay);
}

static void round_failed(struct nova_session *session)
{
	struct dialler *dial = &session->dial;
	struct nova_error why = dial->last;

	dial->tried = 0;
	if (session->state == SESSION_NEW) {
		nova_error_prefix(&why, "peer %s cannot be reached", session->peer->name);
		session_close(session, &why);
		return;
	}
	again_after(session, dial->backoff_ms);
	dial->backoff_ms =
	    dial->backoff_ms * 2 < DIAL_BACKOFF_MAX_MS ? dial->backoff_ms * 2 : DIAL_BACKOFF_MAX_MS;
}

static void attempt_failed(struct nova_session *session)
{
	struct dialler *dial = &session->dial;

	if (dial->found_next < dial->found_count || dial->tried < json_array_size(session->peer->addresses))
		again_after(session, 0);
	else
		round_failed(session);
}

void dial_failed(struct nova_session *session, const struct nova_error *why, bool refused)
{
	session->dial.lane = NULL;
	session->dial.last = *why;
	if (session->state >= SESSION_LEAVING)
		return;
	if (!refused)
		attempt_failed(session);
	else if (session->state == SESSION_UP)
		session->lanes_wanted = session->lanes_up;
	else
		session_close(session, why);
}

void dial_succeeded(struct nova_session *session)
{
	struct dialler *dial = &session->dial;

	dial->lane = NULL;
	dial->backoff_ms = DIAL_BACKOFF_MIN_MS;
	dial->tried = dial->found_count = dial->found_next = 0;
	if (dial->next_address)
		dial->next_address--;
}

void dial_rotate(struct nova_session *session)
{
	session->dial.next_address++;
}

static void connect_to(struct nova_session *session, const struct address *address)
{
	int fd = address_connect(address, &session->dial.last);

	if (fd >= 0)
		session->dial.lane = lane_new(session->links, session, fd, address, &session->dial.last);
	if (!session->dial.lane)
		attempt_failed(session);
}

/* ---- host names ---- */

static void resolver_settle(struct resolver *resolver)
{
	if (!resolver->orphan || resolver->pending)
		return;
	evdns_base_free(resolver->dns, 0);
	free(resolver);
}

void dial_free_resolver(struct resolver *resolver)
{
	if (!resolver)
		return;
	resolver->orphan = true;
	resolver_settle(resolver);
}

static struct resolver *resolver_of(struct nova_links *links)
{
	struct resolver *resolver = links->resolver ?: calloc(1, sizeof(*resolver));

	if (resolver && !resolver->dns)
		resolver->dns = evdns_base_new(
		    links->base, EVDNS_BASE_INITIALIZE_NAMESERVERS | EVDNS_BASE_DISABLE_WHEN_INACTIVE);
	if (resolver && !resolver->dns) {
		free(resolver);
		resolver = NULL;
	}
	return links->resolver = resolver;
}

static const char *last_address(const struct nova_session *session)
{
	return json_string_value(json_array_get(session->peer->addresses, session->dial.next_address - 1));
}

static void on_lookup(int result, struct evutil_addrinfo *found, void *arg)
{
	struct lookup *lookup = arg;
	struct nova_session *session = lookup->session;
	struct resolver *resolver = lookup->resolver;

	free(lookup);
	resolver->pending--;
	if (session) {
		struct dialler *dial = &session->dial;

		dial->lookup = NULL;
		dial->found_count = dial->found_next = 0;
		for (struct evutil_addrinfo *one = found; one && dial->found_count < DIAL_ADDRESSES_MAX;
		     one = one->ai_next) {
			struct address *address = &dial->found[dial->found_count++];

			memcpy(&address->at, one->ai_addr, one->ai_addrlen);
			address->length = one->ai_addrlen;
		}
		if (result)
			nova_error_set(&dial->last, NOVA_LINK, "%s: %s", last_address(session),
			    evutil_gai_strerror(result));
		again_after(session, 0);
	}
	if (found)
		evutil_freeaddrinfo(found);
	resolver_settle(resolver);
}

/* The answer may come before evdns_getaddrinfo() returns. */
static int look_up(struct nova_session *session, const char *host, const char *port, struct nova_error *err)
{
	struct evutil_addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_protocol = IPPROTO_TCP };
	struct resolver *resolver = resolver_of(session->links);
	struct lookup *lookup = calloc(1, sizeof(*lookup));
	struct evdns_getaddrinfo_request *request;

	if (!lookup || !resolver) {
		free(lookup);
		return nova_error_set(err, NOVA_SYSTEM, "%s cannot be looked up: no resolver", host);
	}
	lookup->resolver = resolver;
	lookup->session = session;
	session->dial.lookup = lookup;
	resolver->pending++;
	request = evdns_getaddrinfo(resolver->dns, host, port, &hints, on_lookup, lookup);
	if (session->dial.lookup == lookup)
		lookup->request = request;
	return 0;
}

/* ---- attempts ---- */

static void dial_next(struct nova_session *session)
{
	struct dialler *dial = &session->dial;
	size_t count = json_array_size(session->peer->addresses);
	struct nova_error *err = &dial->last;
	const char *text;
	char host[256], port[8];

	if (dial->found_next < dial->found_count) {
		connect_to(session, &dial->found[dial->found_next++]);
		return;
	}
	if (dial->tried >= count) {
		round_failed(session);
		return;
	}
	dial->tried++;
	dial->next_address = dial->next_address % count + 1;
	text = last_address(session);
	dial->found_count = dial->found_next = 0;
	if (address_split(text, host, port, err) < 0) {
		attempt_failed(session);
	} else if (address_numeric(host, port, false, &dial->found[0])) {
		dial->found_count = dial->found_next = 1;
		connect_to(session, &dial->found[0]);
	} else if (look_up(session, host, port, err) < 0) {
		attempt_failed(session);
	}
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct nova_session *session = arg;
	struct nova_links *links = session->links;

	links_enter(links);
	if (!session->dial.lane && !session->dial.lookup && session->state < SESSION_LEAVING)
		dial_next(session);
	links_leave(links);
}

int dial_init(struct nova_session *session, struct nova_error *err)
{
	session->dial.backoff_ms = DIAL_BACKOFF_MIN_MS;
	session->dial.timer = evtimer_new(session->links->base, on_timer, session);
	return session->dial.timer ? 0 : nova_error_set(err, NOVA_SYSTEM, "no memory for a session");
}

void dial_start(struct nova_session *session, int delay_ms)
{
	if (session->dial.lane || session->dial.lookup || evtimer_pending(session->dial.timer, NULL))
		return;
	again_after(session, delay_ms);
}

void dial_stop(struct nova_session *session)
{
	struct lookup *lookup = session->dial.lookup;

	if (session->dial.timer)
		evtimer_del(session->dial.timer);
	session->dial.lookup = NULL;
	if (!lookup)
		return;
	lookup->session = NULL;
	if (lookup->request)
		evdns_getaddrinfo_cancel(lookup->request);
}

void dial_release(struct nova_session *session)
{
	dial_stop(session);
	if (session->dial.timer)
		event_free(session->dial.timer);
	session->dial.timer = NULL;
}
