/* SPDX-License-Identifier: Apache-2.0
 *
 * link.h - the objects of the transport: links own sessions, sessions own lanes and channels.
 *
 * Callbacks may free what calls them, so nothing that was in use is freed below a frame of ours: every entry
 * from the loop or the user is bracketed by links_enter() and links_leave(), and what died meanwhile is
 * freed by the outermost leave. Until then it says so (state DEAD or CLOSED, dead).
 *
 *	links.c     listening, accepting, limits on strangers, the rate timer, entering and leaving
 *	dial.c      addresses of a peer one after the other, backoff
 *	lane.c      one TLS connection: states, greeting, frames in
 *	schedule.c  which frame a lane sends next
 *	session.c   states, resumption, heartbeats
 *	channel.c   channels, windows, acknowledgements
 *	request.c   requests and answers on the control channel
 */
#ifndef NOVA_LINK_H
#define NOVA_LINK_H

#include <event2/dns.h>
#include <event2/event.h>
#include <event2/listener.h>

#include "address.h"
#include "bucket.h"
#include "flow.h"
#include "frame.h"
#include "inbox.h"
#include "op.h"
#include "outbox.h"
#include "pump.h"
#include "settings.h"
#include "tls.h"

#define LINKS_STRANGERS_MAX 64u /* connections that are not authenticated yet */
#define LINKS_STRANGERS_PER_HOST 16u
#define LINKS_SESSIONS_MAX 1024u
#define LINKS_LOG_BURST 20u /* log lines about strangers in a second */
#define SESSION_LANES_MAX 16u
#define SESSION_REQUESTS_MAX 1024u      /* outstanding, each way */
#define SESSION_CONTROL_MAX (16u << 20) /* bytes of requests and answers waiting to be sent */
#define SESSION_LEAVE_MS 2000           /* for the last words */
#define LANE_TURN_NS 2000000ull         /* work in one turn of the loop */
#define LANE_BATCH_BYTES (256u * 1024)
#define REQUEST_BYTES_MAX (1u << 20)
#define REQUEST_DEPTH_MAX 32u
#define DIAL_ADDRESSES_MAX 8u /* of one host name */
#define DIAL_CONNECT_MS 5000  /* of one TCP connection attempt */
#define DIAL_BACKOFF_MIN_MS 100
#define DIAL_BACKOFF_MAX_MS 5000

struct nova_session;

/* ---- lanes: one TLS connection ----
 *
 * state       dialler                acceptor               may be sent / received
 * CONNECTING  TCP connects           -                      nothing
 * TLS         handshake              handshake              TLS's own
 * HELLO       HELLO sent             waits for HELLO        HELLO up, WELCOME or REFUSE down
 * UP          in its session         in its session         everything but HELLO, WELCOME, REFUSE
 * REFUSING    -                      says no, waits for EOF  nothing more; what comes is thrown away
 * DEAD        the only state that cleans up; freed by links_leave()
 */
enum lane_state {
	LANE_CONNECTING,
	LANE_TLS,
	LANE_HELLO,
	LANE_UP,
	LANE_REFUSING,
	LANE_DEAD,
	LANE_STATES
};

struct lane {
	struct lane *next;            /* in session->lanes, links->strangers or links->dead_lanes */
	struct nova_links *links;     /* borrowed */
	struct nova_session *session; /* borrowed; NULL: a stranger */
	enum lane_state state;
	bool dialled;
	uint32_t number;        /* within the session, from 1 */
	struct address address; /* of the peer */
	char from[ADDRESS_TEXT];
	char certificate[TLS_NAME];   /* its name; "": none seen yet */
	const struct link_peer *peer; /* borrowed: who that is; a user's entry if it is no peer */
	const struct link_peer *user; /* borrowed: who that is in the roles; NULL: nobody */
	struct pump pump;
	struct event *readable, *writable, *deadline; /* owned */
	bool blocked;                                 /* the socket takes no more now */
	bool refused;                                 /* the peer, authenticated, said no */
	uint64_t charged_bytes;                       /* of pump.made_bytes, taken from the buckets */
	bool pong_due;
	uint64_t pong; /* what the peer wants back */
	bool ping_due;
	uint64_t heard_ns, pinged_ns;
	uint64_t blocked_ns, blocked_since_ns; /* time the socket was the limit */
	/* the frame that is coming in */
	uint8_t header_bytes[FRAME_HEADER_BYTES];
	uint32_t header_got, payload_got;
	struct frame_header header;
	struct nova_buf *in; /* owned */
};

/* ---- channels ---- */

struct channel {
	struct nova_channel public; /* first */
	struct channel *next;
	struct nova_session *session; /* borrowed */
	uint16_t id;
	enum nova_channel_kind kind;
	struct outbox out;
	struct inbox in;
	const struct nova_channel_events *events; /* borrowed; NULL: no user */
	void *arg;
	bool open_due;    /* the peer is to be told that it exists */
	bool known;       /* the peer spoke of it */
	bool room_wanted; /* room() said 0 */
	bool dead;        /* nothing is sent or delivered any more; the id stays taken */
	bool freed;       /* the user let go; what was finished is still delivered */
	/* acknowledging */
	uint64_t told_received, told_consumed;
	uint32_t frames_untold;
	bool ack_due;
	/* following bandwidth x delay */
	uint64_t measure_ns, measure_consumed;
	uint64_t virtual_bytes; /* sent, for fairness among bulk channels */
};

/* ---- requests ---- */

struct call {              /* ours, waiting for the answer */
	struct nova_op op; /* first */
	struct call *next;
	struct nova_session *session; /* borrowed; NULL: the session is gone, failure is the answer */
	uint32_t id;
	struct event *timer; /* owned */
	nova_done_fn done;
	void *arg;
	struct nova_error failure;
	struct nova_links *links; /* whose ended call it is, its session being over; or NULL */
};

struct nova_request { /* theirs, waiting for our answer */
	struct nova_request *next;
	struct nova_session *session; /* borrowed; NULL: gone */
	uint32_t id;
};

/* ---- sessions ----
 *
 * state     lanes up  meaning                                    next
 * NEW       0         no WELCOME yet                             UP, CLOSED
 * UP        >= 1      everything works                           LOST, LEAVING, CLOSED
 * LOST      0         redialling (or waiting to be redialled)    UP, LEAVING, CLOSED
 * LEAVING   any       the user freed it; BYE is on its way       CLOSED
 * CLOSED    0         over; the user frees it, or has done so
 */
enum session_state {
	SESSION_NEW,
	SESSION_UP,
	SESSION_LOST,
	SESSION_LEAVING,
	SESSION_CLOSED,
	SESSION_STATES
};

struct dialler {
	struct event *timer; /* owned: the next attempt */
	size_t next_address; /* of the peer's configured ones */
	size_t tried;        /* of this round */
	struct address found[DIAL_ADDRESSES_MAX];
	size_t found_count, found_next;
	struct lookup *lookup; /* borrowed: lives until evdns answers */
	struct lane *lane;     /* borrowed: being dialled */
	int backoff_ms;
	struct nova_error last; /* why the last attempt failed */
};

struct nova_session {
	struct nova_session *next;
	struct nova_links *links; /* borrowed */
	enum session_state state;
	bool dialled;  /* by us */
	bool welcomed; /* a WELCOME was received */
	bool freed;    /* the user let go */
	bool closing;  /* session_close() is telling everybody */
	uint8_t id[16];
	const struct link_peer *peer; /* borrowed; a user's entry if it is no peer */
	const struct link_peer *user; /* borrowed: accepted from who has a role; NULL: from nobody such */
	char from[ADDRESS_TEXT];      /* accepted: where its first lane came from */
	char certificate[TLS_NAME];
	uint32_t last_lane; /* highest lane number seen or given */
	struct lane *lanes; /* owned */
	uint32_t lanes_up, lanes_wanted, lane_turn;
	bool lanes_auto;
	struct dialler dial;
	struct channel control;
	struct channel *channels; /* owned */
	uint32_t channel_count;
	const struct nova_session_events *events; /* borrowed; NULL: none yet */
	void *arg;
	int resume_limit_ms;
	struct bucket bucket;
	bool starved;            /* waits for tokens */
	struct event *kick;      /* owned: send in the next turn */
	struct event *tick;      /* owned: heartbeats, limits, measuring */
	struct event *ack_timer; /* owned: acknowledge what is small */
	uint64_t lost_ns, reported_ns, leave_ns;
	struct call *calls; /* borrowed: they belong to who called */
	uint32_t call_count, next_call;
	struct nova_request *requests; /* borrowed: they belong to who answers */
	uint32_t request_count;
	uint8_t *heard; /* owned: pieces of a long control message */
	size_t heard_length;
	uint8_t heard_kind;
	/* measured */
	uint64_t closed_sent, closed_received; /* of lanes that are gone */
	uint64_t resent_bytes;
	uint32_t reconnects;
	uint32_t rtt_us, rtt_min_us; /* smoothed; least of the last while */
	uint64_t rtt_min_ns;         /* when the least was seen */
	uint64_t rate_bps;           /* sent over the last second */
	uint64_t sample_ns, sample_sent;
	bool link_bound;      /* over the last second the socket was the limit */
	uint32_t frame_bytes; /* most payload of a new bulk frame, so that control waits little */
	uint32_t queue_bytes; /* a channel's bound for what is not sent yet */
	struct {              /* choosing lanes */
		uint64_t rate_bps, at_ns;
		bool settled;
	} try_lane;
};

struct nova_links {
	struct event_base *base; /* borrowed */
	struct link_settings settings;
	SSL_CTX *ctx;                      /* owned */
	BIO_METHOD *method;                /* owned */
	struct resolver *resolver;         /* owned; NULL until a name must be looked up */
	struct evconnlistener **listeners; /* owned */
	size_t listener_count;
	struct event *listen_again;    /* owned: after running out of descriptors */
	struct event *refill;          /* owned: tokens */
	struct bucket bucket;          /* the host's */
	struct nova_session *sessions; /* owned */
	uint32_t session_count;
	struct lane *strangers; /* owned */
	uint32_t stranger_count;
	uint32_t entered;
	bool closed;
	struct lane *dead_lanes; /* to be freed by links_leave() */
	struct nova_session *dead_sessions;
	struct call *ended_calls; /* of sessions that are over: answered in their turn, or when the links close */
	void (*accepted)(void *arg, struct nova_session *session, const char *peer);
	void (*log)(void *arg, enum nova_log_level level, const char *line);
	void *arg;
	uint64_t log_ns;
	uint32_t log_count, log_dropped;
};

/* ---- links.c ---- */
struct nova_links *links_open(struct event_base *base, struct link_settings *settings /* stolen */,
    void (*accepted)(void *arg, struct nova_session *session, const char *peer),
    void (*log)(void *arg, enum nova_log_level level, const char *line), void *arg, struct nova_error *err);
struct nova_links *links_close(struct nova_links *links);
int links_port(struct nova_links *links);
void links_host_rate(struct nova_links *links, uint64_t rate_bps);
void links_enter(struct nova_links *links);
void links_leave(struct nova_links *links);
void links_log(struct nova_links *links, enum nova_log_level level, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* About somebody who is not authenticated: at most LINKS_LOG_BURST lines a second. */
void links_log_stranger(struct nova_links *links, const char *from, const char *why);
/* Wake starved sessions when tokens are there again. */
void links_want_tokens(struct nova_links *links, uint64_t wait_ns);
uint64_t links_now_ns(void);
struct timeval links_timeval(uint64_t ns);

/* ---- dial.c ---- */
int dial_init(struct nova_session *session, struct nova_error *err);
void dial_release(struct nova_session *session);
/* Begin a round over the addresses after delay_ms, unless one is under way. */
void dial_start(struct nova_session *session, int delay_ms);
void dial_stop(struct nova_session *session);
/* The lane that was dialled died before it was up. */
void dial_failed(struct nova_session *session, const struct nova_error *why, bool refused);
void dial_succeeded(struct nova_session *session);
/* The address in use fell silent: another one is dialled first. */
void dial_rotate(struct nova_session *session);
void dial_free_resolver(struct resolver *resolver);

/* ---- lane.c ---- */
const char *lane_state_name(enum lane_state state);
/* fd is stolen, also on failure. session NULL: accepted. The lane is linked in where it belongs. */
struct lane *lane_new(struct nova_links *links, struct nova_session *session, int fd,
    const struct address *address, struct nova_error *err);
/* The end of a lane, for this reason; its session learns it. */
void lane_fail(struct lane *lane, const struct nova_error *why);
/* Without telling anybody. */
void lane_kill(struct lane *lane);
void lane_free(struct lane *lane);
/* Flush, and fill with one batch. 1: there may be more to do, 0: nothing to send or the socket is full. */
int lane_send(struct lane *lane);
/* Take what the socket has, at most one turn. */
void lane_read(struct lane *lane);

/* ---- schedule.c ---- */
/* Put the next frame into the lane's pump. 1: one was put, 0: nothing may be sent now, -1 and *err. */
int schedule_next(struct lane *lane, uint64_t now_ns, struct nova_error *err);
/* Bytes worth gathering before they go to the socket. */
size_t schedule_batch(const struct nova_session *session);

/* ---- session.c ---- */
struct nova_session *session_new(struct nova_links *links, const struct link_peer *peer, bool dialled,
    const uint8_t id[16], struct nova_error *err);
const char *session_user(struct nova_session *session);
const char *session_from(struct nova_session *session);
struct nova_session *session_dial(struct nova_links *links, const char *peer,
    const struct nova_session_options *options, const struct nova_session_events *events, void *arg,
    struct nova_error *err);
void session_destroy(struct nova_session *session);
struct nova_session *session_free(struct nova_session *session);
/* At once, without BYE, and without telling the user. */
void session_end(struct nova_session *session);
struct nova_session *session_find(struct nova_links *links, const uint8_t id[16]);
/* HELLO or WELCOME of a lane that belongs to the session now. */
int session_lane_up(
    struct nova_session *session, struct lane *lane, const struct frame_hello *hello, struct nova_error *err);
void session_lane_down(struct nova_session *session, struct lane *lane, const struct nova_error *why);
void session_read_rest(struct nova_session *session);
void session_fill_hello(struct nova_session *session, struct frame_hello *hello);
/* A frame on a lane that is up. */
int session_frame(struct nova_session *session, struct lane *lane, const struct frame_header *header,
    struct nova_buf **buf, struct nova_error *err);
void session_close(struct nova_session *session, const struct nova_error *why);
void session_kick(struct nova_session *session);
void session_send(struct nova_session *session);
void session_pong(struct nova_session *session, struct lane *lane, uint64_t stamp_ns);
void session_set_events(struct nova_session *session, const struct nova_session_events *events, void *arg);
void session_rate(struct nova_session *session, uint64_t rate_bps);
void session_limit(struct nova_session *session, int resume_limit_ms);
void session_stats(struct nova_session *session, struct nova_link_stats *stats);
void session_report(struct nova_session *session, const char *state, json_t *data /* stolen */);

/* ---- measure.c ---- */
void measure_tick(struct nova_session *session, uint64_t now_ns);
/* Frame size, queue bound and socket limits from the rate. */
void measure_tune(struct nova_session *session);
uint64_t measure_sent(const struct nova_session *session);

/* ---- channel.c ---- */
void channel_init(
    struct channel *channel, struct nova_session *session, uint16_t id, enum nova_channel_kind kind);
void channel_release(struct channel *channel);
struct channel *channel_find(struct nova_session *session, uint16_t id);
struct nova_channel *channel_open(struct nova_session *session, uint16_t id, enum nova_channel_kind kind,
    const struct nova_channel_events *events, void *arg, struct nova_error *err);
void channel_set_events(struct nova_channel *channel, const struct nova_channel_events *events, void *arg);
/* The peer spoke of a channel we may not know: find or make it. NULL and *err: protocol broken. */
struct channel *channel_heard(
    struct nova_session *session, uint16_t id, uint8_t kind, struct nova_error *err);
int channel_data(struct channel *channel, const struct frame_header *header, struct nova_buf **buf,
    struct nova_error *err);
int channel_acked(struct channel *channel, const struct frame_ack *ack, struct nova_error *err);
/* The id is taken, by a channel that the peer gave up before we heard of it. */
void channel_mark(struct nova_session *session, uint16_t id);
/* Nothing more either way; the user is told. */
void channel_kill(struct channel *channel, const struct nova_error *why);
void channel_room_again(struct channel *channel);
/* A freed channel whose last bytes arrived over there is given up. */
void channel_settle(struct channel *channel);
/* Consumed or received enough to tell the peer? */
void channel_consider_ack(struct channel *channel);
struct frame_ack channel_take_ack(struct channel *channel);

/* ---- request.c ---- */
struct nova_op *request_send(struct nova_session *session, const char *command, json_t *args, int limit_ms,
    nova_done_fn done, void *arg, struct nova_error *err);
void request_answer(struct nova_request *request, json_t *result, const struct nova_error *err);
/* One message of the control channel. -1 and *err: the peer broke the protocol. */
int request_heard(struct nova_session *session, const uint8_t *data, size_t length, struct nova_error *err);
/* Every outstanding call is answered so; at_once: before this returns, else from the next turn. */
void request_fail_all(struct nova_session *session, const struct nova_error *why, bool at_once);
/* The calls of sessions that are over, before this returns. */
void request_answer_ended(struct nova_links *links);
void request_send_reset(struct nova_session *session, uint16_t channel);
void request_send_bye(struct nova_session *session);
void request_send_limit(struct nova_session *session, uint32_t limit_ms);
/* Not deeper than REQUEST_DEPTH_MAX? */
bool request_depth_ok(const char *text, size_t length);

#endif
