/* SPDX-License-Identifier: Apache-2.0
 *
 * grpc.c - gRPC over a unix socket (grpc.h): one nghttp2 session, a stream a call.
 *
 * Nobody who waits is called from within nghttp2's frames, and never two of them from one frame of ours: an
 * event of our own hands on one message or one end at a time, as the last thing it does, since what that leads
 * to may start or drop any call. Bytes that came wait in their call: at most one message that is not complete
 * (GRPC_MESSAGE_MAX, checked when its head is there) and what one read of READ_BYTES brought.
 */
#include "transport/grpc.h"
#include "engine/cleanup.h"
#include "engine/clock.h"

#include <ctype.h>
#include <errno.h>
#include <event2/buffer.h>
#include <event2/event.h>
#include <nghttp2/nghttp2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define READ_BYTES (64u << 10)
#define WRITE_BYTES (64u << 10) /* handed to the socket at a time */
#define WINDOW_BYTES (4 << 20)  /* HTTP/2 flow control, of a stream and of the connection */
#define HEAD_BYTES 5            /* a message: compressed or not, then its length as 4 bytes big-endian */

struct call;

struct grpc {
	struct event_base *base; /* borrowed */
	const char *name;        /* static */
	char *path;              /* owned */
	int fd;                  /* -1: not connected */
	nghttp2_session *session; /* owned; NULL: not connected */
	struct evbuffer *out;    /* owned: bytes that the socket did not take yet */
	struct event *readable, *writable; /* owned; NULL: not connected */
	struct event *deliver;   /* owned */
	struct call *calls;      /* owned by those who wait */
	size_t count;
	bool leaving;            /* the server takes no more calls on this connection */
};

struct call {
	struct nova_op op; /* first */
	struct grpc *grpc;
	struct call *next;
	int32_t stream;          /* 0: closed */
	struct evbuffer *in, *out; /* owned */
	struct event *timer;     /* owned; NULL: no limit */
	bool more, streaming;
	size_t messages;
	int http_status, status; /* -1: not told */
	char text[400];          /* the server's words */
	bool ended, failed;
	struct nova_error failure;
	uint32_t tolerated;
	void (*message_came)(void *arg, const void *bytes, size_t length);
	void *message_arg;
	nova_done_fn done;
	void *arg;
};

enum nova_category grpc_category(int status)
{
	static const enum nova_category categories[GRPC_STATUSES] = {
		NOVA_OK,        /* 0 ok */
		NOVA_CANCELLED, /* 1 cancelled */
		NOVA_REFUSED,   /* 2 unknown */
		NOVA_INVALID,   /* 3 invalid argument */
		NOVA_TIMEOUT,   /* 4 deadline exceeded */
		NOVA_INVALID,   /* 5 not found */
		NOVA_STATE,     /* 6 already exists */
		NOVA_REFUSED,   /* 7 permission denied */
		NOVA_REFUSED,   /* 8 resource exhausted */
		NOVA_STATE,     /* 9 failed precondition */
		NOVA_STATE,     /* 10 aborted */
		NOVA_INVALID,   /* 11 out of range */
		NOVA_REFUSED,   /* 12 unimplemented */
		NOVA_REFUSED,   /* 13 internal */
		NOVA_LINK,      /* 14 unavailable */
		NOVA_REFUSED,   /* 15 data loss */
		NOVA_REFUSED,   /* 16 unauthenticated */
	};

	return status >= 0 && status < GRPC_STATUSES ? categories[status] : NOVA_REFUSED;
}

/* ---- ends of calls ---- */

/* The message that begins call->in. 1: it is whole; 0: not yet; -1: we do not take it. */
static int look_at_message(const struct call *call, size_t *length, struct nova_error *err)
{
	unsigned char head[HEAD_BYTES];

	if (evbuffer_copyout(call->in, head, sizeof(head)) < (ev_ssize_t)sizeof(head))
		return 0;
	*length = (size_t)head[1] << 24 | (size_t)head[2] << 16 | (size_t)head[3] << 8 | head[4];
	if (head[0])
		return nova_error_set(err, NOVA_REFUSED, "%s sent a compressed message, unasked", call->grpc->name);
	if (*length > GRPC_MESSAGE_MAX)
		return nova_error_set(err, NOVA_REFUSED, "%s sent a message of %zu bytes, %u are allowed", call->grpc->name, *length,
		    GRPC_MESSAGE_MAX);
	return evbuffer_get_length(call->in) >= HEAD_BYTES + *length;
}

static void fail_call(struct call *call, const struct nova_error *failure)
{
	call->ended = true;
	if (!call->failed)
		call->failure = *failure;
	call->failed = true;
	event_active(call->grpc->deliver, EV_READ, 0);
}

/* The stream's end: was all well? */
static int judge(const struct call *call, struct nova_error *err)
{
	const char *name = call->grpc->name;

	if (call->failed)
		return nova_error_copy(err, &call->failure);
	if (call->status < 0)
		return nova_error_set(err, NOVA_REFUSED, "%s: its answer (HTTP %d) is not gRPC", name, call->http_status);
	if (call->status > 31 || (call->status && !(call->tolerated & 1u << call->status)))
		return nova_error_set(err, grpc_category(call->status), "%s: %s (gRPC %d)", name,
		    *call->text ? call->text : "no reason given", call->status);
	if (call->status == 0 && evbuffer_get_length(call->in))
		return nova_error_set(err, NOVA_LINK, "%s ended its answer in the middle of a message", name);
	if (call->status == 0 && !call->streaming && call->messages != 1)
		return nova_error_set(err, NOVA_REFUSED, "%s sent %zu messages where one is due", name, call->messages);
	return 0;
}

static void call_free(struct call *call)
{
	struct call **at = &call->grpc->calls;

	while (*at && *at != call)
		at = &(*at)->next;
	if (*at) {
		*at = call->next;
		call->grpc->count--;
	}
	if (call->timer)
		event_free(call->timer);
	if (call->in)
		evbuffer_free(call->in);
	if (call->out)
		evbuffer_free(call->out);
	free(call);
}

static void finish(struct call *call)
{
	nova_done_fn done = call->done;
	void *arg = call->arg;
	struct nova_error err;
	bool failed = judge(call, &err) < 0;
	NOVA_AUTOJSON json_t *answer = failed ? NULL : json_pack("{s:i,s:s*}", "status", call->status, "text", *call->text ? call->text : NULL);

	call_free(call);
	done(arg, answer, failed ? &err : NULL);
}

static void hand_on_message(struct call *call, size_t length)
{
	void (*came)(void *arg, const void *bytes, size_t length) = call->message_came;
	void *arg = call->message_arg;
	NOVA_AUTOFREE char *bytes = malloc(length + 1);

	if (!bytes) {
		struct nova_error err;

		nova_error_sys(&err, ENOMEM, "%s", call->grpc->name);
		evbuffer_drain(call->in, HEAD_BYTES + length);
		fail_call(call, &err);
		return;
	}
	evbuffer_drain(call->in, HEAD_BYTES);
	evbuffer_remove(call->in, bytes, length);
	call->messages++;
	if (came)
		came(arg, bytes, length);
}

/* Nothing of it is heard any more. */
static void cancel(struct call *call)
{
	struct grpc *grpc = call->grpc;

	if (!call->stream || !grpc->session)
		return;
	nghttp2_session_set_stream_user_data(grpc->session, call->stream, NULL);
	nghttp2_submit_rst_stream(grpc->session, NGHTTP2_FLAG_NONE, call->stream, NGHTTP2_CANCEL);
	call->stream = 0;
	event_add(grpc->writable, NULL);
}

/* One message or one end; what is left comes by the next activation. */
static void deliver(evutil_socket_t fd, short what, void *arg)
{
	struct grpc *grpc = arg;
	struct nova_error err;
	size_t length;

	for (struct call *call = grpc->calls; call; call = call->next) {
		int whole = call->failed ? 0 : look_at_message(call, &length, &err);

		if (whole < 0) {
			cancel(call);
			fail_call(call, &err);
			continue;
		}
		if (!whole && !call->ended)
			continue;
		event_active(grpc->deliver, EV_READ, 0);
		if (whole)
			hand_on_message(call, length);
		else
			finish(call);
		return;
	}
}

/* ---- the connection ---- */

static void hang_up(struct grpc *grpc)
{
	if (grpc->readable)
		event_free(grpc->readable);
	if (grpc->writable)
		event_free(grpc->writable);
	nghttp2_session_del(grpc->session);
	if (grpc->fd >= 0)
		close(grpc->fd);
	grpc->readable = grpc->writable = NULL;
	grpc->session = NULL;
	grpc->fd = -1;
	grpc->leaving = false;
	evbuffer_drain(grpc->out, evbuffer_get_length(grpc->out));
}

/* Every call is told. */
static void lose(struct grpc *grpc, const char *why)
{
	struct nova_error err;

	hang_up(grpc);
	nova_error_set(&err, NOVA_LINK, "%s does not answer on %s: %s", grpc->name, grpc->path, why);
	for (struct call *call = grpc->calls; call; call = call->next) {
		call->stream = 0;
		if (!call->ended)
			fail_call(call, &err);
	}
}

/* Not evbuffer_write(): a server that is gone shall not end us by SIGPIPE. */
static int send_out(struct grpc *grpc)
{
	size_t length = evbuffer_get_contiguous_space(grpc->out);
	ssize_t sent = send(grpc->fd, evbuffer_pullup(grpc->out, (ev_ssize_t)length), length, MSG_NOSIGNAL);

	return sent < 0 ? -1 : evbuffer_drain(grpc->out, (size_t)sent);
}

/* Hand on what nghttp2 has to say; false: the connection was lost. */
static bool flush(struct grpc *grpc)
{
	const uint8_t *bytes;
	ssize_t length = 1;

	while (grpc->session) {
		while (evbuffer_get_length(grpc->out) < WRITE_BYTES && (length = nghttp2_session_mem_send(grpc->session, &bytes)) > 0)
			evbuffer_add(grpc->out, bytes, (size_t)length);
		if (length < 0) {
			lose(grpc, nghttp2_strerror((int)length));
			return false;
		}
		if (evbuffer_get_length(grpc->out) == 0) {
			event_del(grpc->writable);
			break;
		}
		if (send_out(grpc) < 0) {
			if (errno == EAGAIN || errno == EINTR) {
				event_add(grpc->writable, NULL);
				break;
			}
			lose(grpc, strerrordesc_np(errno));
			return false;
		}
	}
	if (grpc->session && !nghttp2_session_want_read(grpc->session) && !nghttp2_session_want_write(grpc->session))
		lose(grpc, "it ended the connection");
	return grpc->session != NULL;
}

static void can_write(evutil_socket_t fd, short what, void *arg)
{
	flush(arg);
}

static void can_read(evutil_socket_t fd, short what, void *arg)
{
	struct grpc *grpc = arg;
	static _Thread_local uint8_t bytes[READ_BYTES];
	ssize_t got = read(fd, bytes, sizeof(bytes)), used;

	if (got < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (got <= 0) {
		lose(grpc, got == 0 ? "it ended the connection" : strerrordesc_np(errno));
		return;
	}
	used = nghttp2_session_mem_recv(grpc->session, bytes, (size_t)got);
	if (used < 0)
		lose(grpc, nghttp2_strerror((int)used));
	else
		flush(grpc);
}

/* ---- what nghttp2 tells ---- */

static int hex_of(char digit)
{
	return digit >= '0' && digit <= '9' ? digit - '0' : isxdigit((unsigned char)digit) ? tolower((unsigned char)digit) - 'a' + 10 : -1;
}

/* grpc-message: one line, with bytes as %XX. */
static void take_text(struct call *call, const char *value, size_t length)
{
	size_t used = 0;

	for (size_t i = 0; i < length && used + 1 < sizeof(call->text); i++) {
		int byte = (unsigned char)value[i];

		if (byte == '%' && i + 2 < length && hex_of(value[i + 1]) >= 0 && hex_of(value[i + 2]) >= 0) {
			byte = hex_of(value[i + 1]) * 16 + hex_of(value[i + 2]);
			i += 2;
		}
		call->text[used++] = (char)(byte < ' ' || byte > 126 ? ' ' : byte);
	}
	while (used && call->text[used - 1] == ' ')
		used--;
	call->text[used] = 0;
}

/* A number of at most 3 digits; -1: none. */
static int number_of(const char *value, size_t length)
{
	int number = 0;

	for (size_t i = 0; i < length; i++) {
		if (value[i] < '0' || value[i] > '9' || length > 3)
			return -1;
		number = number * 10 + value[i] - '0';
	}
	return length ? number : -1;
}

static bool is_name(const uint8_t *name, size_t length, const char *wanted)
{
	return length == strlen(wanted) && !memcmp(name, wanted, length);
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name, size_t name_length,
    const uint8_t *value, size_t length, uint8_t flags, void *arg)
{
	struct call *call = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
	const char *text = (const char *)value;

	if (!call)
		return 0;
	if (is_name(name, name_length, ":status"))
		call->http_status = number_of(text, length);
	else if (is_name(name, name_length, "grpc-status"))
		call->status = number_of(text, length);
	else if (is_name(name, name_length, "grpc-message"))
		take_text(call, text, length);
	return 0;
}

static int on_data(nghttp2_session *session, uint8_t flags, int32_t stream, const uint8_t *bytes, size_t length, void *arg)
{
	struct grpc *grpc = arg;
	struct call *call = nghttp2_session_get_stream_user_data(session, stream);

	if (!call || call->failed || call->http_status != 200)
		return 0;
	evbuffer_add(call->in, bytes, length);
	event_active(grpc->deliver, EV_READ, 0);
	return 0;
}

static int on_close(nghttp2_session *session, int32_t stream, uint32_t code, void *arg)
{
	struct call *call = nghttp2_session_get_stream_user_data(session, stream);
	struct nova_error err;

	if (!call)
		return 0;
	call->stream = 0;
	if (call->ended)
		return 0;
	if (code != NGHTTP2_NO_ERROR && call->status < 0) {
		nova_error_set(&err, code == NGHTTP2_REFUSED_STREAM ? NOVA_REFUSED : NOVA_LINK, "%s broke the call off: %s", call->grpc->name,
		    nghttp2_http2_strerror(code));
		fail_call(call, &err);
		return 0;
	}
	call->ended = true;
	event_active(call->grpc->deliver, EV_READ, 0);
	return 0;
}

static int on_frame(nghttp2_session *session, const nghttp2_frame *frame, void *arg)
{
	struct grpc *grpc = arg;

	if (frame->hd.type == NGHTTP2_GOAWAY)
		grpc->leaving = true;
	return 0;
}

/* ---- beginning ---- */

static int set_up_session(struct grpc *grpc)
{
	static const nghttp2_settings_entry settings[] = {
		{ NGHTTP2_SETTINGS_ENABLE_PUSH, 0 },
		{ NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, WINDOW_BYTES },
		{ NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, 64u << 10 },
	};
	nghttp2_session_callbacks *callbacks;
	int rc;

	if (nghttp2_session_callbacks_new(&callbacks) != 0)
		return -1;
	nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
	nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
	nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_close);
	nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame);
	rc = nghttp2_session_client_new(&grpc->session, callbacks, grpc);
	nghttp2_session_callbacks_del(callbacks);
	if (rc != 0 || nghttp2_submit_settings(grpc->session, NGHTTP2_FLAG_NONE, settings, sizeof(settings) / sizeof(*settings)) != 0)
		return -1;
	return nghttp2_session_set_local_window_size(grpc->session, NGHTTP2_FLAG_NONE, 0, WINDOW_BYTES);
}

static int dial(struct grpc *grpc, struct nova_error *err)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };

	if (snprintf(address.sun_path, sizeof(address.sun_path), "%s", grpc->path) >= (int)sizeof(address.sun_path))
		return nova_error_set(err, NOVA_INVALID, "%s: the socket's path %s is too long", grpc->name, grpc->path);
	grpc->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (grpc->fd < 0)
		return nova_error_sys(err, errno, "%s", grpc->name);
	if (connect(grpc->fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
		nova_error_set(err, NOVA_LINK, "%s does not answer on %s: %s", grpc->name, grpc->path, strerrordesc_np(errno));
		hang_up(grpc);
		return -1;
	}
	grpc->readable = event_new(grpc->base, grpc->fd, EV_READ | EV_PERSIST, can_read, grpc);
	grpc->writable = event_new(grpc->base, grpc->fd, EV_WRITE, can_write, grpc);
	if (grpc->readable && grpc->writable && set_up_session(grpc) == 0 && event_add(grpc->readable, NULL) == 0)
		return 0;
	hang_up(grpc);
	return nova_error_sys(err, ENOMEM, "%s", grpc->name);
}

static void call_drop(struct nova_op *op)
{
	struct call *call = (struct call *)op;

	cancel(call);
	call_free(call);
}

static void too_late(evutil_socket_t fd, short what, void *arg)
{
	struct call *call = arg;
	struct nova_error err;

	if (call->ended)
		return;
	cancel(call);
	if (call->tolerated & 1u << GRPC_DEADLINE_EXCEEDED) {
		call->status = GRPC_DEADLINE_EXCEEDED;
		call->ended = true;
		event_active(call->grpc->deliver, EV_READ, 0);
		return;
	}
	nova_error_set(&err, NOVA_TIMEOUT, "%s did not answer in time on %s", call->grpc->name, call->grpc->path);
	fail_call(call, &err);
}

/* What is sent comes from the call's out. A call that was dropped meanwhile is reset already. */
static ssize_t send_some(nghttp2_session *session, int32_t stream, uint8_t *into, size_t size, uint32_t *flags,
    nghttp2_data_source *source, void *arg)
{
	struct call *call = nghttp2_session_get_stream_user_data(session, stream);
	int got;

	if (!call)
		return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
	got = evbuffer_remove(call->out, into, size);
	if (evbuffer_get_length(call->out) == 0 && !call->more)
		*flags |= NGHTTP2_DATA_FLAG_EOF;
	else if (got <= 0)
		return NGHTTP2_ERR_DEFERRED;
	return got > 0 ? got : 0;
}

static int put_message(struct call *call, const void *message, size_t length, struct nova_error *err)
{
	const unsigned char head[HEAD_BYTES] = { 0, (unsigned char)(length >> 24), (unsigned char)(length >> 16),
		(unsigned char)(length >> 8), (unsigned char)length };

	if (length > GRPC_MESSAGE_MAX)
		return nova_error_set(err, NOVA_INVALID, "%s: a message of %zu bytes, %u are allowed", call->grpc->name, length,
		    GRPC_MESSAGE_MAX);
	if (evbuffer_add(call->out, head, sizeof(head)) < 0 || evbuffer_add(call->out, message, length) < 0)
		return nova_error_sys(err, ENOMEM, "%s", call->grpc->name);
	return 0;
}

int grpc_send(struct nova_op *op, const void *message, size_t length, bool last, struct nova_error *err)
{
	struct call *call = (struct call *)op;

	if (!call->more)
		return nova_error_set(err, NOVA_STATE, "%s: the last message was sent already", call->grpc->name);
	if (put_message(call, message, length, err) < 0)
		return -1;
	call->more = !last;
	if (!call->stream) /* its end is on the way */
		return 0;
	nghttp2_session_resume_data(call->grpc->session, call->stream);
	event_add(call->grpc->writable, NULL);
	return 0;
}

#define HEADERS_MAX 16
#define HEADER(name, value) \
	(nghttp2_nv) { (uint8_t *)(name), (uint8_t *)(value), strlen(name), strlen(value), NGHTTP2_NV_FLAG_NONE }

static int submit(struct call *call, const struct grpc_call *asked, struct nova_error *err)
{
	char limit[24];
	size_t count = 0;
	nghttp2_nv headers[HEADERS_MAX];
	nghttp2_data_provider provider = { .read_callback = send_some };

	headers[count++] = HEADER(":method", "POST");
	headers[count++] = HEADER(":scheme", "http");
	headers[count++] = HEADER(":path", asked->path);
	headers[count++] = HEADER(":authority", "localhost");
	headers[count++] = HEADER("te", "trailers");
	headers[count++] = HEADER("content-type", "application/grpc");
	if (asked->limit_ms > 0) {
		snprintf(limit, sizeof(limit), "%dm", asked->limit_ms < 99999999 ? asked->limit_ms : 99999999);
		headers[count++] = HEADER("grpc-timeout", limit);
	}
	for (const struct grpc_header *header = asked->headers; header && header->name && count < HEADERS_MAX; header++)
		headers[count++] = HEADER(header->name, header->value);
	call->stream = nghttp2_submit_request(call->grpc->session, NULL, headers, count, &provider, call);
	if (call->stream > 0)
		return 0;
	return nova_error_set(err, NOVA_LINK, "%s: %s", call->grpc->name, nghttp2_strerror(call->stream));
}

static int set_limit(struct call *call, int limit_ms, struct nova_error *err)
{
	struct timeval limit = nova_timeval_ms(limit_ms);

	if (limit_ms <= 0)
		return 0;
	call->timer = event_new(call->grpc->base, -1, 0, too_late, call);
	if (!call->timer || event_add(call->timer, &limit) < 0)
		return nova_error_sys(err, ENOMEM, "%s", call->grpc->name);
	return 0;
}

static int connect_for(struct grpc *grpc, struct nova_error *err)
{
	if (grpc->count >= GRPC_CALLS_MAX)
		return nova_error_set(err, NOVA_STATE, "%s: %d calls are under way already, no more are allowed", grpc->name,
		    GRPC_CALLS_MAX);
	if (grpc->leaving)
		return nova_error_set(err, NOVA_LINK, "%s is about to end the connection", grpc->name);
	return grpc->session ? 0 : dial(grpc, err);
}

struct nova_op *grpc_start(struct grpc *grpc, const struct grpc_call *asked, nova_done_fn done, void *arg, struct nova_error *err)
{
	struct call *call;

	if (connect_for(grpc, err) < 0)
		return NULL;
	call = calloc(1, sizeof(*call));
	if (!call) {
		nova_error_sys(err, ENOMEM, "%s", grpc->name);
		return NULL;
	}
	*call = (struct call){
		.op.drop = call_drop, .grpc = grpc, .in = evbuffer_new(), .out = evbuffer_new(),
		.more = asked->more, .streaming = asked->streaming, .status = -1, .tolerated = asked->tolerated,
		.message_came = asked->message_came, .message_arg = asked->message_arg, .done = done, .arg = arg,
	};
	if (!call->in || !call->out) {
		nova_error_sys(err, ENOMEM, "%s", grpc->name);
	} else if (put_message(call, asked->message, asked->length, err) == 0 && set_limit(call, asked->limit_ms, err) == 0 &&
		   submit(call, asked, err) == 0) {
		call->next = grpc->calls;
		grpc->calls = call;
		grpc->count++;
		event_add(grpc->writable, NULL);
		return &call->op;
	}
	call_free(call);
	return NULL;
}

struct grpc *grpc_free(struct grpc *grpc)
{
	if (!grpc)
		return NULL;
	if (grpc->out) {
		hang_up(grpc);
		evbuffer_free(grpc->out);
	}
	if (grpc->deliver)
		event_free(grpc->deliver);
	free(grpc->path);
	free(grpc);
	return NULL;
}

struct grpc *grpc_new(struct event_base *base, const char *name, const char *socket, struct nova_error *err)
{
	struct grpc *grpc = calloc(1, sizeof(*grpc));

	if (!grpc) {
		nova_error_sys(err, ENOMEM, "%s", name);
		return NULL;
	}
	grpc->base = base;
	grpc->name = name;
	grpc->fd = -1;
	grpc->path = strdup(socket);
	grpc->out = evbuffer_new();
	grpc->deliver = event_new(base, -1, 0, deliver, grpc);
	if (grpc->path && grpc->out && grpc->deliver)
		return grpc;
	nova_error_sys(err, ENOMEM, "%s", name);
	return grpc_free(grpc);
}

const char *grpc_name(const struct grpc *grpc)
{
	return grpc->name;
}

const char *grpc_socket(const struct grpc *grpc)
{
	return grpc->path;
}
