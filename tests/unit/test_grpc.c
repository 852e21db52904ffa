/* SPDX-License-Identifier: Apache-2.0
 *
 * test_grpc.c - the gRPC client against a small server on the same loop, which answers as its method's name says:
 * well, wrongly, or not at all.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "drivers/containerd/api.pb-c.h"
#include "engine/cleanup.h"
#include "tests/unit/loop.h"
#include "transport/grpc_json.h"

#include <event2/buffer.h>
#include <nghttp2/nghttp2.h>
#include <sys/socket.h>
#include <sys/un.h>

#define PAYLOAD_MAX 65536

/* ---- a server of one connection ---- */

struct stream {
	int32_t id;
	char method[32], timeout[16], space[32];
	struct evbuffer *in, *out;
	bool ended; /* the client has said all */
	int status; /* in the trailers */
	const char *text;
	bool open, no_trailers;
	struct stream *next;
};

struct server {
	struct loop loop;
	struct grpc *grpc;
	char path[96];
	int listener, fd;
	struct event *accepts, *reads, *writes;
	struct evbuffer *pending;
	nghttp2_session *session;
	struct stream *streams;
	int connections, resets;
	const char *greeting; /* instead of HTTP/2 */
};

static void put(struct stream *stream, const void *bytes, size_t length, size_t claimed)
{
	unsigned char head[5] = { 0, (unsigned char)(claimed >> 24), (unsigned char)(claimed >> 16), (unsigned char)(claimed >> 8),
		(unsigned char)claimed };

	evbuffer_add(stream->out, head, 5);
	evbuffer_add(stream->out, bytes, length);
}

static ssize_t give(nghttp2_session *session, int32_t id, uint8_t *into, size_t size, uint32_t *flags, nghttp2_data_source *source,
    void *arg)
{
	struct stream *stream = source->ptr;
	/* Small frames: messages arrive in pieces. */
	int got = evbuffer_remove(stream->out, into, size < 1000 ? size : 1000);
	char number[12];

	if (got > 0)
		return got;
	if (stream->open)
		return NGHTTP2_ERR_DEFERRED;
	*flags |= NGHTTP2_DATA_FLAG_EOF;
	if (!stream->no_trailers) {
		snprintf(number, sizeof(number), "%d", stream->status);
		nghttp2_nv trailers[] = {
			{ (uint8_t *)"grpc-status", (uint8_t *)number, 11, strlen(number), 0 },
			{ (uint8_t *)"grpc-message", (uint8_t *)stream->text, 12, strlen(stream->text), 0 },
		};
		*flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
		nghttp2_submit_trailer(session, id, trailers, 2);
	}
	return 0;
}

static void hang_up(struct server *server)
{
	if (server->reads)
		event_free(server->reads);
	if (server->writes)
		event_free(server->writes);
	evbuffer_drain(server->pending, evbuffer_get_length(server->pending));
	nghttp2_session_del(server->session);
	if (server->fd >= 0)
		close(server->fd);
	server->reads = server->writes = NULL;
	server->session = NULL;
	server->fd = -1;
	while (server->streams) {
		struct stream *stream = server->streams;

		server->streams = stream->next;
		evbuffer_free(stream->in);
		evbuffer_free(stream->out);
		free(stream);
	}
}

static void answer(struct server *server, struct stream *stream)
{
	nghttp2_nv headers[] = {
		{ (uint8_t *)":status", (uint8_t *)"200", 7, 3, 0 },
		{ (uint8_t *)"content-type", (uint8_t *)"application/grpc", 12, 16, 0 },
	};
	nghttp2_data_provider provider = { .source.ptr = stream, .read_callback = give };
	size_t length = evbuffer_get_length(stream->in);
	unsigned char *bytes = evbuffer_pullup(stream->in, -1);
	const char *method = stream->method;
	static const char zeros[3000];

	stream->text = "";
	if (!strcmp(method, "silent"))
		return;
	if (!strcmp(method, "reset")) {
		nghttp2_submit_rst_stream(server->session, 0, stream->id, NGHTTP2_INTERNAL_ERROR);
		return;
	}
	if (!strcmp(method, "refused")) {
		nghttp2_submit_rst_stream(server->session, 0, stream->id, NGHTTP2_REFUSED_STREAM);
		return;
	}
	if (!strcmp(method, "echo"))
		put(stream, bytes + 5, length - 5, length - 5);
	else if (!strcmp(method, "all")) /* what all messages of a stream hold */
		evbuffer_add_buffer(stream->out, stream->in);
	else if (!strcmp(method, "three"))
		for (int i = 0; i < 3; i++)
			put(stream, zeros, 100 + 1000 * (size_t)i, 100 + 1000 * (size_t)i);
	else if (!strcmp(method, "two"))
		put(stream, "a", 1, 1), put(stream, "b", 1, 1);
	else if (!strcmp(method, "huge"))
		put(stream, zeros, sizeof(zeros), GRPC_MESSAGE_MAX + 1);
	else if (!strcmp(method, "half"))
		put(stream, zeros, 10, 20);
	else if (!strcmp(method, "packed"))
		evbuffer_add(stream->out, "\1\0\0\0\1x", 6);
	else if (!strcmp(method, "garbage"))
		put(stream, "\xff\xff\xff", 3, 3);
	else if (!strcmp(method, "version"))
		put(stream, "\12\0031.6\22\2r1", 9, 9);
	else if (!strcmp(method, "bare"))
		stream->no_trailers = true;
	else if (!strcmp(method, "endless"))
		put(stream, "tick", 4, 4), stream->open = true;
	else if (!strncmp(method, "status", 6))
		stream->status = atoi(method + 6), stream->text = "no%20such %22thing%22%0aat all";
	if (!strcmp(method, "http404"))
		headers[0].value = (uint8_t *)"404", stream->no_trailers = true;
	nghttp2_submit_response(server->session, stream->id, headers, 2, &provider);
}

static int on_begin(nghttp2_session *session, const nghttp2_frame *frame, void *arg)
{
	struct server *server = arg;
	struct stream *stream = calloc(1, sizeof(*stream));

	stream->id = frame->hd.stream_id;
	stream->in = evbuffer_new();
	stream->out = evbuffer_new();
	stream->next = server->streams;
	server->streams = stream;
	nghttp2_session_set_stream_user_data(session, stream->id, stream);
	return 0;
}

static void copy(char *to, size_t size, const uint8_t *from, size_t length)
{
	snprintf(to, size, "%.*s", (int)length, (const char *)from);
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name, size_t name_length,
    const uint8_t *value, size_t length, uint8_t flags, void *arg)
{
	struct stream *stream = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);

	if (!strncmp((const char *)name, ":path", name_length))
		copy(stream->method, sizeof(stream->method), value + 3, length - 3); /* /t/ */
	else if (!strncmp((const char *)name, "grpc-timeout", name_length))
		copy(stream->timeout, sizeof(stream->timeout), value, length);
	else if (!strncmp((const char *)name, "containerd-namespace", name_length))
		copy(stream->space, sizeof(stream->space), value, length);
	return 0;
}

static int on_data(nghttp2_session *session, uint8_t flags, int32_t id, const uint8_t *bytes, size_t length, void *arg)
{
	struct stream *stream = nghttp2_session_get_stream_user_data(session, id);

	evbuffer_add(stream->in, bytes, length);
	return 0;
}

static int on_frame(nghttp2_session *session, const nghttp2_frame *frame, void *arg)
{
	struct server *server = arg;
	struct stream *stream = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);

	if (frame->hd.type == NGHTTP2_RST_STREAM)
		server->resets++;
	if (stream && !stream->ended && (frame->hd.flags & NGHTTP2_FLAG_END_STREAM)) {
		stream->ended = true;
		answer(server, stream);
	}
	return 0;
}

static void say(struct server *server)
{
	const uint8_t *bytes;
	ssize_t length;

	while (server->session) {
		if (evbuffer_get_length(server->pending) == 0) {
			length = nghttp2_session_mem_send(server->session, &bytes);
			if (length <= 0)
				return;
			evbuffer_add(server->pending, bytes, (size_t)length);
		}
		if (evbuffer_write(server->pending, server->fd) <= 0) {
			event_add(server->writes, NULL);
			return;
		}
	}
}

static void can_say(evutil_socket_t fd, short what, void *arg)
{
	say(arg);
}

static void hear(evutil_socket_t fd, short what, void *arg)
{
	struct server *server = arg;
	static uint8_t bytes[65536];
	ssize_t got = read(fd, bytes, sizeof(bytes));

	if (got <= 0 || nghttp2_session_mem_recv(server->session, bytes, (size_t)got) < 0)
		hang_up(server);
	say(server);
}

static void take_caller(evutil_socket_t fd, short what, void *arg)
{
	struct server *server = arg;
	nghttp2_session_callbacks *callbacks;
	int caller = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	server->connections++;
	if (server->greeting) {
		assert_true(write(caller, server->greeting, strlen(server->greeting)) > 0);
		close(caller);
		return;
	}
	server->fd = caller;
	nghttp2_session_callbacks_new(&callbacks);
	nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, on_begin);
	nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
	nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
	nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame);
	nghttp2_session_server_new(&server->session, callbacks, server);
	nghttp2_session_callbacks_del(callbacks);
	nghttp2_submit_settings(server->session, 0, NULL, 0);
	server->reads = event_new(server->loop.base, caller, EV_READ | EV_PERSIST, hear, server);
	event_add(server->reads, NULL);
	server->writes = event_new(server->loop.base, caller, EV_WRITE, can_say, server);
	say(server);
}

static int set_up(void **state)
{
	struct server *server = calloc(1, sizeof(*server));
	struct sockaddr_un address = { .sun_family = AF_UNIX };

	loop_init(&server->loop);
	server->fd = -1;
	server->pending = evbuffer_new();
	snprintf(server->path, sizeof(server->path), "%s/sock", server->loop.dir);
	strcpy(address.sun_path, server->path);
	server->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(server->listener, (struct sockaddr *)&address, sizeof(address)), 0);
	assert_int_equal(listen(server->listener, 8), 0);
	server->accepts = event_new(server->loop.base, server->listener, EV_READ | EV_PERSIST, take_caller, server);
	event_add(server->accepts, NULL);
	server->grpc = grpc_new(server->loop.base, "tester", server->path, NULL);
	assert_non_null(server->grpc);
	*state = server;
	return 0;
}

static int tear_down(void **state)
{
	struct server *server = *state;

	grpc_free(server->grpc);
	hang_up(server);
	evbuffer_free(server->pending);
	event_free(server->accepts);
	close(server->listener);
	unlink(server->path);
	loop_release(&server->loop);
	free(server);
	return 0;
}

/* ---- calls ---- */

struct heard {
	int messages;
	size_t bytes;
	char last[PAYLOAD_MAX];
	struct nova_op *drop; /* with the first message */
};

static void message_came(void *arg, const void *bytes, size_t length)
{
	struct heard *heard = arg;

	heard->messages++;
	heard->bytes += length;
	memcpy(heard->last, bytes, length < PAYLOAD_MAX ? length : PAYLOAD_MAX);
	nova_op_drop(nova_take(&heard->drop));
}

static struct nova_op *begin(struct server *server, const char *path, struct heard *heard, bool streaming, struct answer *answered)
{
	struct grpc_call call = { .path = path, .message = "hello", .length = 5, .streaming = streaming, .message_came = message_came,
		.message_arg = heard };

	return grpc_start(server->grpc, &call, answer_done, answered, NULL);
}

static void expect(struct server *server, const char *path, enum nova_category category, const char *words)
{
	struct heard *heard = calloc(1, sizeof(*heard));
	struct answer answered = { 0 };

	assert_non_null(begin(server, path, heard, false, &answered));
	LOOP_UNTIL(&server->loop, answered.count);
	if (answered.err.category != category || (words && !strstr(answered.err.text, words)))
		fail_msg("%s: %s: %s", path, nova_category_name(answered.err.category), answered.err.text);
	answer_release(&answered);
	free(heard);
}

static void unary(void **state)
{
	struct server *server = *state;
	struct heard *heard = calloc(1, sizeof(*heard));
	struct answer answered = { 0 };

	assert_non_null(begin(server, "/t/echo", heard, false, &answered));
	assert_int_equal(answered.count, 0);
	LOOP_UNTIL(&server->loop, answered.count);
	assert_int_equal(answered.err.category, NOVA_OK);
	assert_int_equal(json_integer_value(json_object_get(answered.result, "status")), 0);
	assert_int_equal(heard->messages, 1);
	assert_memory_equal(heard->last, "hello", 5);
	answer_release(&answered);
	free(heard);
	expect(server, "/t/echo", NOVA_OK, NULL);
	assert_int_equal(server->connections, 1);
}

static void streams(void **state)
{
	struct server *server = *state;
	struct heard *heard = calloc(1, sizeof(*heard));
	struct answer answered = { 0 };

	assert_non_null(begin(server, "/t/three", heard, true, &answered));
	LOOP_UNTIL(&server->loop, answered.count);
	assert_int_equal(answered.err.category, NOVA_OK);
	assert_int_equal(heard->messages, 3);
	assert_int_equal(heard->bytes, 3300);
	answer_release(&answered);
	/* One that stays open, dropped by the one who hears its first message: nothing comes any more, the server is told. */
	memset(heard, 0, sizeof(*heard));
	heard->drop = begin(server, "/t/endless", heard, true, &answered);
	LOOP_UNTIL(&server->loop, server->resets == 1);
	assert_int_equal(heard->messages, 1);
	assert_int_equal(answered.count, 0);
	/* An empty one is an answer, too. */
	assert_non_null(begin(server, "/t/none", heard, true, &answered));
	LOOP_UNTIL(&server->loop, answered.count);
	assert_int_equal(answered.err.category, NOVA_OK);
	answer_release(&answered);
	free(heard);
}

static void sends_many(void **state)
{
	struct server *server = *state;
	struct heard *heard = calloc(1, sizeof(*heard));
	char *block = calloc(1, 200000);
	struct answer answered = { 0 };
	struct grpc_call call = { .path = "/t/all", .message = "one", .length = 3, .more = true, .streaming = true,
		.message_came = message_came, .message_arg = heard };
	struct nova_op *op = grpc_start(server->grpc, &call, answer_done, &answered, NULL);
	struct nova_error err;

	assert_non_null(op);
	loop_run_ms(&server->loop, 20);
	for (int i = 0; i < 30; i++)
		assert_int_equal(grpc_send(op, block, 200000, false, NULL), 0);
	assert_int_equal(grpc_send(op, "last", 4, true, NULL), 0);
	assert_int_equal(grpc_send(op, "more", 4, true, &err), -1);
	assert_int_equal(err.category, NOVA_STATE);
	LOOP_UNTIL(&server->loop, answered.count);
	assert_int_equal(answered.err.category, NOVA_OK);
	assert_int_equal(heard->messages, 32);
	assert_int_equal(heard->bytes, 3 + 30 * 200000 + 4);
	assert_memory_equal(heard->last, "last", 4);
	answer_release(&answered);
	free(block);
	free(heard);
}

static void statuses(void **state)
{
	struct server *server = *state;
	struct answer answered = { 0 };
	struct grpc_call call = { .path = "/t/status5", .tolerated = 1u << GRPC_NOT_FOUND };

	expect(server, "/t/status5", NOVA_INVALID, "tester: no such \"thing\" at all (gRPC 5)");
	expect(server, "/t/status6", NOVA_STATE, "gRPC 6");
	expect(server, "/t/status9", NOVA_STATE, "gRPC 9");
	expect(server, "/t/status2", NOVA_REFUSED, "gRPC 2");
	expect(server, "/t/status4", NOVA_TIMEOUT, "gRPC 4");
	expect(server, "/t/status14", NOVA_LINK, "gRPC 14");
	expect(server, "/t/status1", NOVA_CANCELLED, "gRPC 1");
	expect(server, "/t/status99", NOVA_REFUSED, "gRPC 99");
	assert_int_equal(grpc_category(-1), NOVA_REFUSED);
	assert_int_equal(grpc_category(GRPC_STATUSES), NOVA_REFUSED);
	assert_non_null(grpc_start(server->grpc, &call, answer_done, &answered, NULL));
	LOOP_UNTIL(&server->loop, answered.count);
	assert_int_equal(answered.err.category, NOVA_OK);
	assert_int_equal(json_integer_value(json_object_get(answered.result, "status")), 5);
	answer_release(&answered);
}

static void malformed(void **state)
{
	struct server *server = *state;

	expect(server, "/t/two", NOVA_REFUSED, "2 messages where one is due");
	expect(server, "/t/none", NOVA_REFUSED, "0 messages where one is due");
	expect(server, "/t/huge", NOVA_REFUSED, "16777217 bytes");
	expect(server, "/t/half", NOVA_LINK, "middle of a message");
	expect(server, "/t/packed", NOVA_REFUSED, "compressed");
	expect(server, "/t/bare", NOVA_REFUSED, "not gRPC");
	expect(server, "/t/http404", NOVA_REFUSED, "HTTP 404");
	expect(server, "/t/reset", NOVA_LINK, "broke the call off");
	expect(server, "/t/refused", NOVA_REFUSED, "broke the call off");
	expect(server, "/t/echo", NOVA_OK, NULL);
	assert_int_equal(server->connections, 1);
}

static void deadline(void **state)
{
	struct server *server = *state;
	struct answer answered = { 0 };
	struct grpc_call call = { .path = "/t/silent", .limit_ms = 60 };
	double began = loop_now();

	assert_non_null(grpc_start(server->grpc, &call, answer_done, &answered, NULL));
	LOOP_UNTIL(&server->loop, answered.count);
	assert_int_equal(answered.err.category, NOVA_TIMEOUT);
	assert_true(loop_now() - began >= 0.055);
	assert_string_equal(server->streams->timeout, "60m");
	LOOP_UNTIL(&server->loop, server->resets == 1);
	answer_release(&answered);
	call.tolerated = 1u << GRPC_DEADLINE_EXCEEDED;
	assert_non_null(grpc_start(server->grpc, &call, answer_done, &answered, NULL));
	LOOP_UNTIL(&server->loop, answered.count);
	assert_int_equal(answered.err.category, NOVA_OK);
	assert_int_equal(json_integer_value(json_object_get(answered.result, "status")), GRPC_DEADLINE_EXCEEDED);
	answer_release(&answered);
	expect(server, "/t/echo", NOVA_OK, NULL);
}

static void loss(void **state)
{
	struct server *server = *state;
	struct heard *heard = calloc(1, sizeof(*heard));
	struct answer answered[3] = { 0 };

	for (int i = 0; i < 3; i++)
		assert_non_null(begin(server, i ? "/t/silent" : "/t/endless", heard, i == 0, &answered[i]));
	LOOP_UNTIL(&server->loop, heard->messages == 1 && server->streams && server->streams->next && server->streams->next->next);
	hang_up(server);
	LOOP_UNTIL(&server->loop, answered[0].count && answered[1].count && answered[2].count);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(answered[i].count, 1);
		assert_int_equal(answered[i].err.category, NOVA_LINK);
		assert_non_null(strstr(answered[i].err.text, server->path));
		answer_release(&answered[i]);
	}
	/* The next call dials again. */
	expect(server, "/t/echo", NOVA_OK, NULL);
	assert_int_equal(server->connections, 2);
	free(heard);
}

/* A server that ends in order lets what is under way come to its end, and takes nothing new. */
static void farewell(void **state)
{
	struct server *server = *state;
	struct heard *heard = calloc(1, sizeof(*heard));
	struct answer answered = { 0 };
	struct nova_error err;
	struct grpc_call call = { .path = "/t/echo" };

	assert_non_null(begin(server, "/t/endless", heard, true, &answered));
	LOOP_UNTIL(&server->loop, heard->messages == 1);
	nghttp2_submit_goaway(server->session, 0, server->streams->id, 0, NULL, 0);
	say(server);
	loop_run_ms(&server->loop, 20);
	assert_null(grpc_start(server->grpc, &call, answer_done, &answered, &err));
	assert_int_equal(err.category, NOVA_LINK);
	server->streams->open = false;
	nghttp2_session_resume_data(server->session, server->streams->id);
	say(server);
	LOOP_UNTIL(&server->loop, answered.count);
	assert_int_equal(answered.err.category, NOVA_OK);
	answer_release(&answered);
	loop_run_ms(&server->loop, 20);
	expect(server, "/t/echo", NOVA_OK, NULL);
	assert_int_equal(server->connections, 2);
	free(heard);
}

static void not_a_server(void **state)
{
	struct server *server = *state;
	struct grpc_call call = { .path = "/t/echo" };
	struct answer answered = { 0 };
	struct nova_error err;
	struct grpc *nobody;
	char path[128];

	server->greeting = "HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n";
	expect(server, "/t/echo", NOVA_LINK, "does not answer on");
	snprintf(path, sizeof(path), "%s/nobody", server->loop.dir);
	nobody = grpc_new(server->loop.base, "nobody", path, NULL);
	assert_null(grpc_start(nobody, &call, answer_done, &answered, &err));
	assert_int_equal(err.category, NOVA_LINK);
	assert_non_null(strstr(err.text, "No such file"));
	grpc_free(nobody);
	memset(path, 'x', sizeof(path) - 1);
	path[127] = 0;
	nobody = grpc_new(server->loop.base, "nobody", path, NULL);
	assert_null(grpc_start(nobody, &call, answer_done, &answered, &err));
	assert_int_equal(err.category, NOVA_INVALID);
	grpc_free(nobody);
}

static void bounds(void **state)
{
	struct server *server = *state;
	static struct answer answered[GRPC_CALLS_MAX];
	struct nova_op *op[GRPC_CALLS_MAX];
	struct heard *heard = calloc(1, sizeof(*heard));
	struct grpc_call call = { .path = "/t/silent" };
	struct nova_error err;
	char *big = calloc(1, GRPC_MESSAGE_MAX + 1);

	for (int i = 0; i < GRPC_CALLS_MAX; i++)
		assert_non_null(op[i] = begin(server, "/t/silent", heard, false, &answered[i]));
	assert_null(grpc_start(server->grpc, &call, answer_done, &answered[0], &err));
	assert_int_equal(err.category, NOVA_STATE);
	loop_run_ms(&server->loop, 20);
	for (int i = 0; i < GRPC_CALLS_MAX; i++)
		nova_op_drop(op[i]);
	call.message = big;
	call.length = GRPC_MESSAGE_MAX + 1;
	assert_null(grpc_start(server->grpc, &call, answer_done, &answered[0], &err));
	assert_int_equal(err.category, NOVA_INVALID);
	expect(server, "/t/echo", NOVA_OK, NULL);
	free(big);
	free(heard);
}

/* ---- JSON ---- */

static void json_calls(void **state)
{
	struct server *server = *state;
	static const struct grpc_method version = { "/t/version", &ctrd__empty__descriptor, &ctrd__version_response__descriptor };
	static const struct grpc_method garbage = { "/t/garbage", &ctrd__empty__descriptor, &ctrd__version_response__descriptor };
	static const struct grpc_header headers[] = { { "containerd-namespace", "room" }, { NULL } };
	struct grpc_options options = { .headers = headers };
	NOVA_AUTOJSON json_t *wrong = json_pack("{s:i}", "nope", 1);
	struct answer answered = { 0 };
	struct nova_error err;

	assert_non_null(grpc_ask(server->grpc, &version, NULL, &options, answer_done, &answered, NULL));
	LOOP_UNTIL(&server->loop, answered.count);
	assert_string_equal(json_string_value(json_object_get(json_object_get(answered.result, "body"), "version")), "1.6");
	assert_string_equal(server->streams->space, "room");
	answer_release(&answered);
	assert_non_null(grpc_ask(server->grpc, &garbage, NULL, &options, answer_done, &answered, NULL));
	LOOP_UNTIL(&server->loop, answered.count);
	assert_int_equal(answered.err.category, NOVA_REFUSED);
	answer_release(&answered);
	assert_null(grpc_ask(server->grpc, &version, wrong, &options, answer_done, &answered, &err));
	assert_non_null(strstr(err.text, "nope"));
}

static void json_round_trip(void **state)
{
	NOVA_AUTOJSON json_t *value = json_pack("{s:{s:s,s:{s:s,s:s},s:s,s:{s:s},s:{s:s,s:o}}}", "container", "id", "a", "labels", "x",
	    "1", "y", "", "image", "bb:1", "runtime", "name", "r", "spec", "type_url", "t", "value", grpc_json_bytes("\0\1\2", 3));
	NOVA_AUTOJSON json_t *filters = json_pack("{s:[s,s]}", "filters", "a", "");
	NOVA_AUTOJSON json_t *number = json_pack("{s:s,s:I,s:i,s:b}", "container_id", "c", "signal", (json_int_t)9, "exec_id", 1, "all", 1);
	NOVA_AUTOJSON json_t *back = NULL, *list = NULL;
	struct nova_error err;
	size_t length;
	NOVA_AUTOFREE void *bytes = grpc_json_pack(&ctrd__container_message__descriptor, value, &length, &err);
	NOVA_AUTOFREE void *more = grpc_json_pack(&ctrd__filters__descriptor, filters, &length, &err);
	NOVA_AUTOFREE char *data = NULL;

	assert_non_null(bytes);
	assert_non_null(more);
	list = grpc_json_unpack(&ctrd__filters__descriptor, more, length, &err);
	assert_true(json_equal(list, filters));
	free(nova_take(&bytes));
	bytes = grpc_json_pack(&ctrd__container_message__descriptor, value, &length, &err);
	back = grpc_json_unpack(&ctrd__container_message__descriptor, bytes, length, &err);
	assert_true(json_equal(back, value));
	data = grpc_json_data(json_object_get(json_object_get(json_object_get(back, "container"), "spec"), "value"), &length);
	assert_int_equal(length, 3);
	assert_memory_equal(data, "\0\1\2", 4);
	assert_null(grpc_json_pack(&ctrd__task_kill__descriptor, number, &length, &err));
	assert_non_null(strstr(err.text, "exec_id"));
	assert_null(grpc_json_data(json_object_get(value, "nope"), &length));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(unary, set_up, tear_down),
		cmocka_unit_test_setup_teardown(streams, set_up, tear_down),
		cmocka_unit_test_setup_teardown(sends_many, set_up, tear_down),
		cmocka_unit_test_setup_teardown(statuses, set_up, tear_down),
		cmocka_unit_test_setup_teardown(malformed, set_up, tear_down),
		cmocka_unit_test_setup_teardown(deadline, set_up, tear_down),
		cmocka_unit_test_setup_teardown(loss, set_up, tear_down),
		cmocka_unit_test_setup_teardown(farewell, set_up, tear_down),
		cmocka_unit_test_setup_teardown(not_a_server, set_up, tear_down),
		cmocka_unit_test_setup_teardown(bounds, set_up, tear_down),
		cmocka_unit_test_setup_teardown(json_calls, set_up, tear_down),
		cmocka_unit_test(json_round_trip),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
