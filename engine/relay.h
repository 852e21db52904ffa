/* SPDX-License-Identifier: Apache-2.0
 *
 * relay.h - what the three files of the relay share. Private to engine/.
 *
 *	relay.c          the session with the other relay, the waiting, the end
 *	relay_stream.c   local connections: a unix socket here, a channel, a unix socket over there
 *	relay_report.c   what users see: events, progress, the report at the end
 *
 * The conversation, over one session that the connecting relay dials (requests of the control channel):
 *
 *	connecting relay                        listening relay
 *	relay {}                           ->   this is a relay, and free: the answer says so
 *	stream {channel, history_bytes}    ->   connect to the local socket; the answer says that it worked
 *	the channel of that number         =>   that connection, both directions through the codec
 *	over {error?}                      ->   answered when no connection is left; then the session ends
 *	                    over {error}   <-   the listening side was told to stop
 *
 * A stream is asked for before its channel is opened, and requests keep their order: QEMU's destination takes
 * the first connection for the main one.
 */
#ifndef NOVA_RELAY_H
#define NOVA_RELAY_H

#include "clock.h"
#include "codec.h"
#include "flow.h"
#include "op.h"
#include "pipe.h"

#define RELAY_STREAMS 64            /* local connections at a time: multifd uses several */
#define RELAY_HISTORY_MAX (1u << 30)
#define RELAY_PROGRESS_MS 250
#define RELAY_LINGER_MS 2000        /* for the other side's goodbye */

/* One local connection. */
struct relay_stream {
	struct nova_relay *relay;
	bool used;
	uint16_t channel;
	int fd;                  /* owned until the pipe has it; -1 */
	struct nova_op *request; /* owned: the other side is asked to connect */
	struct event *again;     /* owned: QEMU's queue of connections was full: try again */
	struct nova_request *asked; /* listening side, meanwhile: to be answered */
	int tries;
	size_t history_bytes;
	struct nova_pipe *pipe;  /* owned */
	unsigned ended;
};

struct nova_relay {
	struct event_base *base;      /* borrowed */
	struct nova_config *config;   /* owned */
	const struct nova_link_ops *ops;
	struct nova_links *links;     /* owned */
	struct nova_session *session; /* owned */
	struct nova_op *request;      /* owned: "relay" or "over" */
	struct nova_request *over;    /* theirs, answered when no stream is left */
	struct event *listening;      /* owned: local connections (connecting side) */
	int listen_fd;                /* owned */
	struct event *waiting;        /* owned: until somebody comes, then for the goodbye */
	struct event *redial;         /* owned: the other relay could not be reached yet */
	struct event *tick;           /* owned: progress */
	char *unix_path, *peer;       /* owned */
	bool dials, agreed, ending;
	struct nova_session_options link;
	int wait_ms;
	size_t history_bytes;
	enum nova_codec codec;
	uint16_t next_channel;
	struct relay_stream streams[RELAY_STREAMS];
	size_t streams_made, streams_open;
	struct nova_codec_stats total; /* of streams that have ended */
	struct nova_link_stats last;   /* of the link, when it was last looked at */
	int reconnect_waited_ms, reconnect_limit_ms; /* limit 0: connected */
	int64_t begin_ms;
	bool failed, told; /* told: by the other side, which needs not hear it again */
	struct nova_error failure; /* the first */
	nova_event_fn event;
	nova_done_fn done;
	void *arg;
};

/* ---- relay.c ---- */
void nova_relay_fail(struct nova_relay *relay, const struct nova_error *err); /* remembered; the first counts */
/* A stream has ended: is that the end of it all? */
void nova_relay_consider_end(struct nova_relay *relay);
/* The first connection is there: nobody is waited for any more. */
void nova_relay_begun(struct nova_relay *relay);

/* ---- relay_stream.c ---- */
int nova_relay_listen_local(struct nova_relay *relay, struct nova_error *err);
void nova_relay_stop_listening(struct nova_relay *relay);
/* The other side asks for a connection. */
void nova_relay_stream_asked(struct nova_relay *relay, json_t *args, struct nova_request *request);
void nova_relay_channel_opened(struct nova_relay *relay, uint16_t id, struct nova_channel *channel);
void nova_relay_drop_streams(struct nova_relay *relay);

/* ---- relay_report.c ---- */
/* data is stolen */
void nova_relay_say(struct nova_relay *relay, const char *event, json_t *data);
void nova_relay_warn(struct nova_relay *relay, const char *text);
void nova_relay_count(struct nova_relay *relay, const struct nova_pipe *pipe);
void nova_relay_look(struct nova_relay *relay); /* at the link, while there is one */
int nova_relay_watch(struct nova_relay *relay, struct nova_error *err);
json_t *nova_relay_result(struct nova_relay *relay);

#endif
