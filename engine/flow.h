/* SPDX-License-Identifier: Apache-2.0
 *
 * flow.h - what the engine needs of a link between two daemons. transport/ implements it; tests may too.
 *
 * A session is one authenticated conversation with one peer: any number of channels over one or more TLS
 * connections (lanes). A session outlives its connections: it redials and continues from the last
 * acknowledged byte until its limit. Requests (JSON) travel on the control channel and never wait behind
 * pages. Everything runs on the loop of the event_base; callbacks may free the object that calls them.
 *
 * Backpressure: a sender asks room() before it reads its source; a receiver's bytes count against the
 * window until it says consumed(). So what is in flight, and what either side holds, is bounded.
 */
#ifndef NOVA_FLOW_H
#define NOVA_FLOW_H

#include "novacron.h"

#define NOVA_MESSAGE_MAX (256u * 1024) /* bytes of payload in one message */
#define NOVA_BUF_HEADROOM 32u          /* bytes before the payload that belong to the transport */

/* One message on its way. data has `capacity` bytes of room; the transport's header goes below it. */
struct nova_buf {
	struct nova_buf *next; /* whoever holds it */
	uint64_t offset;       /* transport's */
	uint32_t capacity;     /* bytes */
	uint32_t length;       /* bytes used */
	uint8_t *data;         /* inside the same allocation */
};
/* NULL when out of memory or capacity > NOVA_MESSAGE_MAX. */
struct nova_buf *nova_buf_new(size_t capacity);
struct nova_buf *nova_buf_free(struct nova_buf *buf);

/* ---- channels ----------------------------------------------------------------------------------- */

enum nova_channel_kind {
	NOVA_CHANNEL_CONTROL = 0, /* requests; the session's own */
	NOVA_CHANNEL_STREAM = 1,  /* a migration stream: bulk */
	NOVA_CHANNEL_URGENT = 2,  /* postcopy pages: before bulk */
	NOVA_CHANNEL_DISK = 3,    /* NBD: bulk, weighted beside the stream */
};

struct nova_channel_events {
	/* One message, whole and in order. data (borrowed) is gone after the call. Say consumed(length)
	 * when the bytes have left us (they are acknowledged then, and the window moves). */
	void (*message)(void *arg, const uint8_t *data, size_t length);
	/* room() had said 0 and says more now. */
	void (*room)(void *arg);
	/* err NULL: the peer finished its direction, everything was delivered; ours still works. Otherwise
	 * the channel is dead (free it). */
	void (*closed)(void *arg, const struct nova_error *err);
};

struct nova_channel {
	const struct nova_channel_ops *ops;
};
struct nova_channel_ops {
	/* Bytes that may be sent now without growing the queue past its bound; 0: wait for room. */
	size_t (*room)(struct nova_channel *channel);
	/* buf is stolen, sent or resent until acknowledged. Never blocks and never fails while the session
	 * lives; may exceed room by one message. */
	void (*send)(struct nova_channel *channel, struct nova_buf *buf);
	void (*consumed)(struct nova_channel *channel, size_t bytes);
	/* No more from us: the peer's closed(NULL) comes after all that was sent. */
	void (*finish)(struct nova_channel *channel);
	/* Bytes sent or queued that the peer has not yet consumed. */
	uint64_t (*unacknowledged)(struct nova_channel *channel);
	void (*free)(struct nova_channel *channel);
};

/* ---- sessions ----------------------------------------------------------------------------------- */

struct nova_session;

/* A request that waits for our answer. Answer exactly once; after the session closed, an answer goes
 * nowhere but must still be given. */
struct nova_request;

struct nova_session_events {
	/* The session is up for the first time: peer is the name its certificate carries. */
	void (*up)(void *arg, const char *peer);
	/* The peer asks. args is borrowed. */
	void (*request)(void *arg, const char *command, json_t *args, struct nova_request *request);
	/* The peer opened a channel: call ops->set_events on it before returning, or free it. */
	void (*channel)(void *arg, uint16_t id, enum nova_channel_kind kind, struct nova_channel *channel);
	/* "reconnecting" (data: waited_ms, limit_ms, error), "resumed", "lane up", "lane lost". */
	void (*state)(void *arg, const char *state, json_t *data);
	/* The end: the peer closed in order (category NOVA_CANCELLED), or the link is lost past its limit,
	 * or the peer was refused. Outstanding requests were answered NOVA_LINK. Free the session. */
	void (*closed)(void *arg, const struct nova_error *err);
};

struct nova_session_options {
	int resume_limit_ms; /* how long to redial; 0: a lost connection ends the session */
	uint64_t rate_bps;   /* bits a second of this session, 0: no limit */
	int lanes;           /* 0: chosen from rate and round trip */
};

struct nova_link_stats {
	uint64_t wire_sent_bytes, wire_received_bytes; /* on the sockets, TLS included */
	uint64_t resent_bytes;                         /* of wire_sent_bytes, sent once before */
	uint64_t rate_now_bps;                         /* sent, over the last second */
	uint32_t rtt_us;                               /* smoothed; 0: unknown */
	uint32_t rtt_min_us;                           /* least of late: the link without a queue */
	uint32_t lanes;
	uint32_t reconnects;
	uint64_t queued_bytes;                         /* in our queues, not yet on a socket */
};

struct nova_link_ops {
	/* Listen as configured (listen addresses, certificates) and make sessions. accepted: a peer came and
	 * was authenticated (peer NULL: a user who is no peer, see user); call set_events in it or the
	 * session is refused. */
	struct nova_links *(*open)(struct event_base *base, const struct nova_config *config,
	    void (*accepted)(void *arg, struct nova_session *session, const char *peer),
	    void (*log)(void *arg, enum nova_log_level level, const char *line), void *arg, struct nova_error *err);
	struct nova_links *(*close)(struct nova_links *links);
	/* The bound port of the first listening address; 0: not listening. */
	int (*port)(struct nova_links *links);
	/* Dial a configured peer by name. */
	struct nova_session *(*dial)(struct nova_links *links, const char *peer,
	    const struct nova_session_options *options, const struct nova_session_events *events, void *arg,
	    struct nova_error *err);
	void (*host_rate)(struct nova_links *links, uint64_t rate_bps);

	void (*set_events)(struct nova_session *session, const struct nova_session_events *events, void *arg);
	/* Of an accepted session: the NAME of the first "cert:NAME" in the roles that its certificate is for, or
	 * NULL; and the address it came from. Borrowed. */
	const char *(*user)(struct nova_session *session);
	const char *(*from)(struct nova_session *session);
	struct nova_op *(*request)(struct nova_session *session, const char *command, json_t *args /* borrowed */,
	    int limit_ms, nova_done_fn done, void *arg, struct nova_error *err);
	/* result is stolen (may be NULL); err (copied) makes it a refusal with its category. */
	void (*answer)(struct nova_request *request, json_t *result, const struct nova_error *err);
	struct nova_channel *(*channel)(struct nova_session *session, uint16_t id, enum nova_channel_kind kind,
	    const struct nova_channel_events *events, void *arg, struct nova_error *err);
	void (*channel_events)(struct nova_channel *channel, const struct nova_channel_events *events, void *arg);
	void (*session_rate)(struct nova_session *session, uint64_t rate_bps);
	void (*session_limit)(struct nova_session *session, int resume_limit_ms);
	void (*stats)(struct nova_session *session, struct nova_link_stats *stats);
	/* Tells the peer when it can, closes, frees with all channels. NULL is fine. */
	struct nova_session *(*free)(struct nova_session *session);
};

#endif
