/* SPDX-License-Identifier: Apache-2.0
 *
 * lane.c - one TLS connection: from the first packet to its session, then frames in and out.
 *
 * The greeting has 10 s. A connection that is not TLS, shows no certificate or a wrong one, or begins with
 * anything but a good HELLO is logged and closed; nobody else notices. A refusal that the other side should
 * read is flushed, and input thrown away for up to 1 s, since closing with unread bytes would reset the
 * connection and lose it. One turn takes at most 2 ms. Not here: what a frame means to the session.
 */
#include "link.h"

#include <assert.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "cursor.h"

#define REFUSING_MS 1000
#define LINKS_SESSIONS_PER_USER 32
#define USER_RESUME_MAX_MS 60000
#define NOTSENT_BYTES (128 * 1024) /* the kernel's part of the queue; measure.c adapts it */

/* ---- states ---- */

static const struct {
	const char *name;
	unsigned next; /* bits */
} states[] = {
	[LANE_CONNECTING] = { "connecting", 1u << LANE_TLS | 1u << LANE_DEAD },
	[LANE_TLS] = { "tls", 1u << LANE_HELLO | 1u << LANE_REFUSING | 1u << LANE_DEAD },
	[LANE_HELLO] = { "hello", 1u << LANE_UP | 1u << LANE_REFUSING | 1u << LANE_DEAD },
	[LANE_UP] = { "up", 1u << LANE_DEAD },
	[LANE_REFUSING] = { "refusing", 1u << LANE_DEAD },
	[LANE_DEAD] = { "dead", 0 },
};
static_assert(sizeof(states) / sizeof(*states) == LANE_STATES, "a row for each state");

const char *lane_state_name(enum lane_state state)
{
	return states[state].name;
}

static void lane_set(struct lane *lane, enum lane_state state)
{
	links_log(lane->links, NOVA_LOG_DEBUG, "lane %u %s %s: %s -> %s", lane->number,
	    lane->dialled ? "to" : "from", lane->from, states[lane->state].name, states[state].name);
	assert(states[lane->state].next & 1u << state);
	lane->state = state;
}

/* ---- the end ---- */

static void unlink_lane(struct lane *lane)
{
	struct lane **at = lane->session ? &lane->session->lanes : &lane->links->strangers;

	while (*at != lane)
		at = &(*at)->next;
	*at = lane->next;
	if (!lane->session)
		lane->links->stranger_count--;
}

void lane_kill(struct lane *lane)
{
	if (lane->state == LANE_DEAD)
		return;
	lane_set(lane, LANE_DEAD);
	unlink_lane(lane);
	if (lane->session) {
		lane->session->closed_sent += lane->pump.sent_bytes;
		lane->session->closed_received += lane->pump.received_bytes;
	}
	event_del(lane->readable);
	event_del(lane->writable);
	event_del(lane->deadline);
	shutdown(lane->pump.fd, SHUT_RDWR);
	lane->next = lane->links->dead_lanes;
	lane->links->dead_lanes = lane;
}

void lane_fail(struct lane *lane, const struct nova_error *why)
{
	enum lane_state state = lane->state;

	if (state == LANE_DEAD)
		return;
	lane_kill(lane);
	if (lane->session && state == LANE_UP)
		session_lane_down(lane->session, lane, why);
	else if (lane->dialled)
		dial_failed(lane->session, why, lane->refused);
	else if (lane->session && lane->session->state == SESSION_NEW)
		session_close(lane->session, why);
}

void lane_free(struct lane *lane)
{
	if (!lane)
		return;
	if (lane->readable)
		event_free(lane->readable);
	if (lane->writable)
		event_free(lane->writable);
	if (lane->deadline)
		event_free(lane->deadline);
	pump_release(&lane->pump);
	nova_buf_free(lane->in);
	free(lane);
}

static void set_deadline(struct lane *lane, int limit_ms)
{
	struct timeval limit = links_timeval((uint64_t)limit_ms * 1000000u);

	evtimer_add(lane->deadline, &limit);
}

/* We do not talk to this stranger. */
static void stranger_refused(struct lane *lane, const char *why)
{
	struct nova_error err;

	links_log_stranger(lane->links, lane->from, why);
	if (pump_flush(&lane->pump, &err) < 0) {
		lane_kill(lane);
		return;
	}
	lane_set(lane, LANE_REFUSING);
	event_del(lane->writable);
	shutdown(lane->pump.fd, SHUT_WR);
	set_deadline(lane, REFUSING_MS);
}

/* TLS or the greeting went wrong. */
static void greeting_failed(struct lane *lane, const struct nova_error *err)
{
	char why[sizeof(err->text) + TLS_NAME + 20];
	struct nova_error named = *err;

	if (lane->session) {
		pump_flush(&lane->pump, NULL); /* an alert says why */
		nova_error_prefix(&named, "%s", lane->from);
		lane_fail(lane, &named);
		return;
	}
	if (lane->certificate[0])
		snprintf(why, sizeof(why), "certificate %s: %s", lane->certificate, err->text);
	else
		snprintf(why, sizeof(why), "%s", err->text);
	stranger_refused(lane, why);
}

static void refuse(struct lane *lane, enum nova_category category, const char *text)
{
	struct frame_header header = { .type = FRAME_REFUSE, .length = (uint32_t)(1 + strlen(text)) };
	uint8_t frame[FRAME_HEADER_BYTES + FRAME_REFUSE_MAX];
	char why[FRAME_REFUSE_MAX + TLS_NAME];
	struct nova_error err;

	frame_put_header(frame, &header);
	frame[FRAME_HEADER_BYTES] = (uint8_t)category;
	memcpy(frame + FRAME_HEADER_BYTES + 1, text, header.length - 1);
	pump_put(&lane->pump, frame, FRAME_HEADER_BYTES + header.length, &err);
	snprintf(why, sizeof(why), "certificate %s: %s", lane->certificate, text);
	stranger_refused(lane, why);
}

/* ---- the greeting ---- */

static int put_hello(struct lane *lane, enum frame_type type, struct nova_error *err)
{
	uint8_t frame[FRAME_HEADER_BYTES + FRAME_HELLO_MAX];
	struct frame_header header = { .type = (uint8_t)type };
	struct frame_hello hello = { .lane = lane->number };

	session_fill_hello(lane->session, &hello);
	header.length = (uint32_t)frame_put_hello(frame + FRAME_HEADER_BYTES, &hello);
	frame_put_header(frame, &header);
	if (pump_put(&lane->pump, frame, FRAME_HEADER_BYTES + header.length, err) < 0)
		return -1;
	return pump_flush(&lane->pump, err) < 0 ? -1 : 0;
}

static void move_to_session(struct lane *lane, struct nova_session *session)
{
	unlink_lane(lane);
	lane->session = session;
	lane->next = session->lanes;
	session->lanes = lane;
}

static int lane_up(struct lane *lane, const struct frame_hello *hello, struct nova_error *err)
{
	lane_set(lane, LANE_UP);
	event_del(lane->deadline);
	lane->heard_ns = links_now_ns();
	lane->ping_due = true;
	return session_lane_up(lane->session, lane, hello, err);
}

static bool lane_number_taken(const struct nova_session *session, uint32_t number)
{
	for (const struct lane *lane = session->lanes; lane; lane = lane->next) {
		if (lane->number == number)
			return true;
	}
	return false;
}

/* One who is no peer has few sessions, and short ones: they must not crowd out migrations. */
static bool too_many_of_user(const struct lane *lane)
{
	unsigned count = 0;

	if (lane->peer != lane->user)
		return false;
	for (const struct nova_session *session = lane->links->sessions; session; session = session->next)
		count += session->peer == lane->user;
	return count >= LINKS_SESSIONS_PER_USER;
}

static struct nova_session *new_session(struct lane *lane, const struct frame_hello *hello)
{
	struct nova_links *links = lane->links;
	struct nova_session *session;
	struct nova_error err;

	if (links->session_count >= LINKS_SESSIONS_MAX) {
		refuse(lane, NOVA_REFUSED, "too many sessions");
		return NULL;
	}
	if (too_many_of_user(lane)) {
		refuse(lane, NOVA_REFUSED, "too many sessions of this user");
		return NULL;
	}
	session = session_new(links, lane->peer, false, hello->session, &err);
	if (!session) {
		refuse(lane, NOVA_REFUSED, err.text);
		return NULL;
	}
	snprintf(session->certificate, sizeof(session->certificate), "%s", lane->certificate);
	snprintf(session->from, sizeof(session->from), "%s", lane->from);
	session->user = lane->user;
	session->resume_limit_ms = (int)hello->resume_limit_ms;
	if (session->peer == session->user && session->resume_limit_ms > USER_RESUME_MAX_MS)
		session->resume_limit_ms = USER_RESUME_MAX_MS;
	if (links->accepted)
		links->accepted(links->arg, session, session->peer == session->user ? NULL : session->peer->name);
	if (session->events && !session->freed)
		return session;
	refuse(lane, NOVA_REFUSED, "sessions are not accepted now");
	session_free(session);
	return NULL;
}

/* The session this HELLO is for: known, or new. NULL: refused. */
static struct nova_session *session_for(struct lane *lane, const struct frame_hello *hello)
{
	struct nova_session *session = session_find(lane->links, hello->session);

	if (!session && !hello->known)
		return new_session(lane, hello);
	if (!session || session->dialled || session->peer != lane->peer || session->user != lane->user ||
	    session->state >= SESSION_LEAVING) {
		refuse(lane, NOVA_LINK, "the session is not known here any more");
		return NULL;
	}
	if (lane_number_taken(session, hello->lane) ||
	    (session->lanes_up >= SESSION_LANES_MAX && !hello->alone)) {
		refuse(lane, NOVA_REFUSED, "this lane's number is taken, or there are 16 lanes");
		return NULL;
	}
	return session;
}

static int on_hello(struct lane *lane, struct nova_error *err)
{
	struct nova_session *session;
	struct frame_hello hello;
	char text[100];

	if (frame_get_hello(lane->in->data, lane->header.length, &hello, err) < 0)
		return -1;
	if (hello.version_min > FRAME_VERSION || hello.version_max < FRAME_VERSION || !hello.lane) {
		snprintf(text, sizeof(text), "protocol versions %u to %u: %u is spoken here",
		    hello.version_min, hello.version_max, FRAME_VERSION);
		refuse(lane, NOVA_REFUSED, text);
		return 0;
	}
	session = session_for(lane, &hello);
	if (!session)
		return 0;
	lane->number = hello.lane;
	move_to_session(lane, session);
	session_read_rest(session);
	if (lane->state == LANE_DEAD) /* what came broke the protocol: the session is over */
		return 0;
	return put_hello(lane, FRAME_WELCOME, err) < 0 ? -1 : lane_up(lane, &hello, err);
}

static int on_welcome(struct lane *lane, struct nova_error *err)
{
	struct nova_session *session = lane->session;
	struct frame_hello hello;

	if (frame_get_hello(lane->in->data, lane->header.length, &hello, err) < 0)
		return -1;
	if (hello.version_min != FRAME_VERSION || hello.version_max != FRAME_VERSION ||
	    hello.lane != lane->number || memcmp(hello.session, session->id, sizeof(session->id)) != 0)
		return nova_error_set(err, NOVA_INVALID, "WELCOME to another session, lane or version");
	if (!session->welcomed)
		snprintf(session->certificate, sizeof(session->certificate), "%s", lane->certificate);
	session->welcomed = true;
	dial_succeeded(session);
	return lane_up(lane, &hello, err);
}

static int on_refuse(struct lane *lane, struct nova_error *err)
{
	enum nova_category category = lane->in->data[0];
	char text[FRAME_REFUSE_MAX];
	size_t length = lane->header.length - 1;

	for (size_t i = 0; i < length; i++)
		text[i] = lane->in->data[1 + i] < ' ' ? '?' : (char)lane->in->data[1 + i];
	text[length] = 0;
	lane->refused = true;
	return nova_error_set(err, category == NOVA_LINK ? NOVA_LINK : NOVA_REFUSED, "%s", text);
}

static int greeting(struct lane *lane, struct nova_error *err)
{
	if (!lane->dialled && lane->header.type == FRAME_HELLO)
		return on_hello(lane, err);
	if (lane->dialled && lane->header.type == FRAME_WELCOME)
		return on_welcome(lane, err);
	if (lane->dialled && lane->header.type == FRAME_REFUSE)
		return on_refuse(lane, err);
	return nova_error_set(err, NOVA_INVALID, "it begins with a frame of type %u", lane->header.type);
}

/* The chain is good; is the name? */
static int check_name(struct lane *lane, struct nova_error *err)
{
	const struct link_settings *settings = &lane->links->settings;

	tls_peer_name(lane->pump.ssl, lane->certificate);
	if (lane->dialled) {
		if (tls_is_for(lane->pump.ssl, lane->session->peer->certificate))
			return 0;
		return nova_error_set(err, NOVA_REFUSED, "its certificate is for %s, not for %s",
		    lane->certificate[0] ? lane->certificate : "nobody", lane->session->peer->certificate);
	}
	for (size_t i = 0; !lane->peer && i < settings->peer_count; i++) {
		if (tls_is_for(lane->pump.ssl, settings->peers[i].certificate))
			lane->peer = &settings->peers[i];
	}
	for (size_t i = 0; !lane->user && i < settings->user_count; i++) {
		if (tls_is_for(lane->pump.ssl, settings->users[i].certificate))
			lane->user = &settings->users[i];
	}
	if (!lane->peer)
		lane->peer = lane->user;
	if (!lane->peer)
		refuse(lane, NOVA_REFUSED, "no configured peer or user has this certificate name");
	return 0;
}

static void handshake(struct lane *lane)
{
	struct nova_error err;
	int done = pump_handshake(&lane->pump, &err), flushed;

	if (done < 0) {
		greeting_failed(lane, &err);
		return;
	}
	if (done && check_name(lane, &err) < 0) {
		greeting_failed(lane, &err);
		return;
	}
	if (lane->state == LANE_REFUSING)
		return;
	flushed = pump_flush(&lane->pump, &err);
	if (done && flushed >= 0) {
		lane_set(lane, LANE_HELLO);
		if (lane->dialled)
			flushed = put_hello(lane, FRAME_HELLO, &err);
	}
	if (flushed < 0)
		greeting_failed(lane, &err);
	else if (pump_backlog(&lane->pump))
		event_add(lane->writable, NULL);
	if (lane->state == LANE_HELLO)
		lane_read(lane);
}

/* Which certificate failed: for the log. The verdict stays OpenSSL's. */
static int on_verify(int ok, X509_STORE_CTX *store)
{
	SSL *ssl = X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx());
	struct lane *lane = SSL_get_app_data(ssl);
	X509 *leaf = X509_STORE_CTX_get0_cert(store);

	if (leaf)
		tls_name(leaf, lane->certificate);
	return ok;
}

/* ---- frames in ---- */

static int frame_complete(struct lane *lane, struct nova_error *err)
{
	int result;

	if (lane->state == LANE_UP)
		result = session_frame(lane->session, lane, &lane->header, &lane->in, err);
	else
		result = greeting(lane, err);
	lane->header_got = lane->payload_got = 0;
	return result;
}

static int frame_begins(struct lane *lane, struct nova_error *err)
{
	if (frame_get_header(lane->header_bytes, &lane->header, err) < 0)
		return -1;
	if (lane->in && lane->in->capacity < lane->header.length)
		lane->in = nova_buf_free(lane->in);
	if (!lane->in) {
		size_t capacity =
		    lane->state == LANE_UP && lane->header.length <= 65536 ? 65536 : lane->header.length;

		lane->in = nova_buf_new(capacity);
	}
	return lane->in ? 0 : nova_error_set(err, NOVA_SYSTEM, "no memory for a frame");
}

/* 1: bytes were taken, 0: none there, -1: the connection is over, -2: the peer broke the protocol. */
static int read_some(struct lane *lane, struct nova_error *err)
{
	int n;

	if (lane->header_got < FRAME_HEADER_BYTES) {
		n = pump_read(&lane->pump, lane->header_bytes + lane->header_got,
		    FRAME_HEADER_BYTES - lane->header_got, err);
		if (n <= 0)
			return n;
		lane->header_got += (uint32_t)n;
		if (lane->header_got < FRAME_HEADER_BYTES)
			return 1;
		if (frame_begins(lane, err) < 0)
			return -2;
	} else {
		n = pump_read(&lane->pump, lane->in->data + lane->payload_got,
		    lane->header.length - lane->payload_got, err);
		if (n <= 0)
			return n;
		lane->payload_got += (uint32_t)n;
	}
	if (lane->payload_got < lane->header.length)
		return 1;
	return frame_complete(lane, err) < 0 ? -2 : 1;
}

static void read_failed(struct lane *lane, bool protocol, struct nova_error *err)
{
	if (lane->state != LANE_UP) {
		greeting_failed(lane, err);
	} else if (protocol) {
		nova_error_prefix(err, "peer %s broke the protocol", lane->session->peer->name);
		err->category = NOVA_LINK;
		links_log(lane->links, NOVA_LOG_ERROR, "%s", err->text);
		session_close(lane->session, err);
	} else {
		nova_error_prefix(err, "%s", lane->from);
		err->category = NOVA_LINK;
		lane_fail(lane, err);
	}
}

void lane_read(struct lane *lane)
{
	uint64_t start = links_now_ns(), now;
	struct nova_error err;
	int taken = 1;

	while (lane->state == LANE_HELLO || lane->state == LANE_UP) {
		taken = read_some(lane, &err);
		if (taken <= 0)
			break;
		now = links_now_ns();
		lane->heard_ns = now;
		if (now - start > LANE_TURN_NS) {
			/* OpenSSL may hold bytes that the socket will not report. */
			if (lane->state != LANE_DEAD)
				event_active(lane->readable, EV_READ, 0);
			return;
		}
	}
	if (taken < 0 && lane->state != LANE_DEAD && lane->state != LANE_REFUSING)
		read_failed(lane, taken == -2, &err);
}

static void throw_away(struct lane *lane)
{
	char waste[16384];
	ssize_t n = recv(lane->pump.fd, waste, sizeof(waste), 0);

	if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
		lane_kill(lane);
}

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
	struct lane *lane = arg;
	struct nova_links *links = lane->links;

	links_enter(links);
	if (lane->state == LANE_TLS)
		handshake(lane);
	else if (lane->state == LANE_REFUSING)
		throw_away(lane);
	else
		lane_read(lane);
	links_leave(links);
}

/* ---- frames out ---- */

static void charge(struct lane *lane)
{
	uint64_t made = lane->pump.made_bytes - lane->charged_bytes;

	bucket_take(&lane->session->bucket, made);
	bucket_take(&lane->links->bucket, made);
	lane->charged_bytes += made;
}

/* What the peer had sent before the connection broke is still worth reading. */
static int write_failed(struct lane *lane, struct nova_error *err)
{
	lane_read(lane);
	if (lane->state == LANE_UP) {
		nova_error_prefix(err, "%s", lane->from);
		lane_fail(lane, err);
	}
	return 0;
}

static void now_blocked(struct lane *lane)
{
	if (lane->blocked)
		return;
	lane->blocked = true;
	lane->blocked_since_ns = links_now_ns();
	event_add(lane->writable, NULL);
}

static void no_longer_blocked(struct lane *lane)
{
	if (!lane->blocked)
		return;
	lane->blocked = false;
	lane->blocked_ns += links_now_ns() - lane->blocked_since_ns;
	event_del(lane->writable);
}

int lane_send(struct lane *lane)
{
	size_t batch = schedule_batch(lane->session);
	uint64_t now = links_now_ns();
	struct nova_error err;
	int more = 1, flushed;

	if (pump_backlog(&lane->pump) == 0) {
		while (more > 0 && pump_backlog(&lane->pump) < batch) {
			more = schedule_next(lane, now, &err);
			charge(lane);
		}
	}
	flushed = more < 0 ? -1 : pump_flush(&lane->pump, &err);
	charge(lane);
	if (flushed < 0)
		return write_failed(lane, &err);
	if (flushed == 0) {
		now_blocked(lane);
		return 0;
	}
	no_longer_blocked(lane);
	return more;
}

static void connected(struct lane *lane)
{
	socklen_t length = sizeof(int);
	struct nova_error err;
	int failure = 0;

	getsockopt(lane->pump.fd, SOL_SOCKET, SO_ERROR, &failure, &length);
	if (failure) {
		nova_error_sys(&err, failure, "%s", lane->from);
		err.category = NOVA_LINK;
		lane_fail(lane, &err);
		return;
	}
	lane_set(lane, LANE_TLS);
	set_deadline(lane, lane->links->settings.handshake_ms);
	event_del(lane->writable);
	event_add(lane->readable, NULL);
	handshake(lane);
}

static void on_writable(evutil_socket_t fd, short what, void *arg)
{
	struct lane *lane = arg;
	struct nova_links *links = lane->links;
	struct nova_error err;

	links_enter(links);
	if (lane->state == LANE_CONNECTING) {
		connected(lane);
	} else if (lane->state == LANE_UP) {
		no_longer_blocked(lane);
		session_send(lane->session);
	} else {
		int flushed = pump_flush(&lane->pump, &err);

		if (flushed < 0)
			greeting_failed(lane, &err);
		else if (flushed)
			event_del(lane->writable);
	}
	links_leave(links);
}

static void on_deadline(evutil_socket_t fd, short what, void *arg)
{
	struct lane *lane = arg;
	struct nova_links *links = lane->links;
	struct nova_error err;

	links_enter(links);
	nova_error_set(&err, NOVA_LINK, "no answer in time (%s)", states[lane->state].name);
	if (lane->state == LANE_REFUSING)
		lane_kill(lane);
	else
		greeting_failed(lane, &err);
	links_leave(links);
}

/* ---- the beginning ---- */

static void tune_socket(int fd, int silence_ms)
{
	int on = 1, lowat = NOTSENT_BYTES;
	unsigned limit_ms = (unsigned)silence_ms * 2;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	setsockopt(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &lowat, sizeof(lowat));
	setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &limit_ms, sizeof(limit_ms));
	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
}

static int make_events(struct lane *lane, int fd, struct nova_error *err)
{
	struct event_base *base = lane->links->base;

	lane->readable = event_new(base, fd, EV_READ | EV_PERSIST, on_readable, lane);
	lane->writable = event_new(base, fd, EV_WRITE | EV_PERSIST, on_writable, lane);
	lane->deadline = evtimer_new(base, on_deadline, lane);
	if (!lane->readable || !lane->writable || !lane->deadline)
		return nova_error_set(err, NOVA_SYSTEM, "no memory for a connection");
	return 0;
}

struct lane *lane_new(struct nova_links *links, struct nova_session *session, int fd,
    const struct address *address, struct nova_error *err)
{
	struct lane *lane = calloc(1, sizeof(*lane));

	if (!lane) {
		evutil_closesocket(fd);
		nova_error_set(err, NOVA_SYSTEM, "no memory for a connection");
		return NULL;
	}
	lane->links = links;
	lane->session = session;
	lane->dialled = session != NULL;
	lane->state = session ? LANE_CONNECTING : LANE_TLS;
	lane->number = session ? ++session->last_lane : 0;
	lane->address = *address;
	address_text(address, lane->from);
	if (pump_init(&lane->pump, links->ctx, links->method, fd, !session, err) < 0 ||
	    make_events(lane, fd, err) < 0) {
		lane_free(lane);
		return NULL;
	}
	SSL_set_app_data(lane->pump.ssl, lane);
	SSL_set_verify(lane->pump.ssl, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, on_verify);
	tune_socket(fd, links->settings.silence_ms);
	lane->next = session ? session->lanes : links->strangers;
	*(session ? &session->lanes : &links->strangers) = lane;
	links->stranger_count += !session;
	event_add(session ? lane->writable : lane->readable, NULL);
	set_deadline(lane, session && links->settings.handshake_ms > DIAL_CONNECT_MS
	                       ? DIAL_CONNECT_MS
	                       : links->settings.handshake_ms);
	return lane;
}
