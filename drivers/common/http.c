/* SPDX-License-Identifier: Apache-2.0
 *
 * http.c - HTTP over a unix socket (http.h).
 *
 * libcurl tells which sockets to watch and when to come back; we tell it what happened. Whoever waits is
 * called outside of libcurl's frames: answers when it has said that a transfer is done, a stream's bytes by
 * an event of their own, since what they lead to may start or drop other calls. A stream that is not read
 * fast enough is paused at STREAM_MAX bytes.
 */
#include "drivers/common/http.h"
#include "engine/cleanup.h"
#include "engine/clock.h"

#include <ctype.h>
#include <curl/curl.h>
#include <errno.h>
#include <event2/buffer.h>
#include <event2/event.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#define STREAM_MAX (1u << 20)

struct http {
	struct event_base *base; /* borrowed */
	const char *name;        /* static */
	char *socket;            /* owned */
	CURLM *multi;            /* owned */
	struct event *timer;     /* owned */
};

struct request {
	struct nova_op op; /* first */
	struct http *http;
	CURL *easy;                  /* owned */
	struct curl_slist *headers;  /* owned */
	char *sent;                  /* owned: a JSON body */
	struct evbuffer *kept;       /* owned: of an answer, or of a stream */
	struct event *deliver;       /* owned: streams */
	int send_fd, answer_fd;      /* borrowed; -1: none */
	int tolerated, write_errno;
	bool too_long, paused, opened;
	void (*on_open)(void *arg);
	void (*data)(void *arg, const void *bytes, size_t length);
	void *stream_arg;
	nova_done_fn done;
	void *arg;
};

/* ---- the loop and libcurl ---- */

static void request_end(struct request *request, CURLcode code);

static void look_for_ends(struct http *http)
{
	CURLMsg *message;
	int left;

	while ((message = curl_multi_info_read(http->multi, &left))) {
		char *request = NULL;

		if (message->msg != CURLMSG_DONE)
			continue;
		curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &request);
		request_end((struct request *)(void *)request, message->data.result);
	}
}

static void on_socket(evutil_socket_t fd, short what, void *arg)
{
	struct http *http = arg;
	int running, bits = (what & EV_READ ? CURL_CSELECT_IN : 0) | (what & EV_WRITE ? CURL_CSELECT_OUT : 0);

	curl_multi_socket_action(http->multi, fd, bits, &running);
	look_for_ends(http);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct http *http = arg;
	int running;

	curl_multi_socket_action(http->multi, CURL_SOCKET_TIMEOUT, 0, &running);
	look_for_ends(http);
}

static int want_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *known)
{
	struct http *http = arg;
	struct event *event = known;
	short kind = EV_PERSIST;

	if (event)
		event_free(event);
	curl_multi_assign(http->multi, fd, NULL);
	if (what == CURL_POLL_REMOVE)
		return 0;
	kind |= what & CURL_POLL_IN ? EV_READ : 0;
	kind |= what & CURL_POLL_OUT ? EV_WRITE : 0;
	event = event_new(http->base, fd, kind, on_socket, http);
	if (!event || event_add(event, NULL) < 0)
		return -1;
	curl_multi_assign(http->multi, fd, event);
	return 0;
}

static int want_timer(CURLM *multi, long ms, void *arg)
{
	struct http *http = arg;
	struct timeval wait = nova_timeval_ms(ms);

	return ms < 0 ? event_del(http->timer) : event_add(http->timer, &wait);
}

struct http *http_free(struct http *http)
{
	if (!http)
		return NULL;
	curl_multi_cleanup(http->multi);
	if (http->timer)
		event_free(http->timer);
	free(http->socket);
	free(http);
	curl_global_cleanup();
	return NULL;
}

struct http *http_new(struct event_base *base, const char *name, const char *socket, struct nova_error *err)
{
	struct http *http = calloc(1, sizeof(*http));

	if (!http || curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) {
		free(http);
		nova_error_sys(err, ENOMEM, "%s", name);
		return NULL;
	}
	http->base = base;
	http->name = name;
	http->socket = strdup(socket);
	http->multi = curl_multi_init();
	http->timer = event_new(base, -1, 0, on_timer, http);
	if (!http->socket || !http->multi || !http->timer) {
		nova_error_sys(err, ENOMEM, "%s", name);
		return http_free(http);
	}
	curl_multi_setopt(http->multi, CURLMOPT_SOCKETFUNCTION, want_socket);
	curl_multi_setopt(http->multi, CURLMOPT_SOCKETDATA, http);
	curl_multi_setopt(http->multi, CURLMOPT_TIMERFUNCTION, want_timer);
	curl_multi_setopt(http->multi, CURLMOPT_TIMERDATA, http);
	return http;
}

const char *http_socket(const struct http *http)
{
	return http->socket;
}

/* ---- a request's bytes ---- */

static curl_socket_t open_socket(void *arg, curlsocktype purpose, struct curl_sockaddr *address)
{
	return socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
}

static size_t send_some(char *into, size_t size, size_t count, void *arg)
{
	struct request *request = arg;
	ssize_t got = read(request->send_fd, into, size * count);

	return got < 0 ? CURL_READFUNC_ABORT : (size_t)got;
}

static bool is_good(const struct request *request)
{
	long status = 0;

	curl_easy_getinfo(request->easy, CURLINFO_RESPONSE_CODE, &status);
	return status >= 200 && status < 400;
}

static size_t write_file(struct request *request, const char *bytes, size_t length)
{
	size_t written = 0;

	while (written < length) {
		ssize_t now = write(request->answer_fd, bytes + written, length - written);

		if (now < 0 && errno == EINTR)
			continue;
		if (now < 0) {
			request->write_errno = errno;
			return 0;
		}
		written += (size_t)now;
	}
	return length;
}

static size_t take(char *bytes, size_t size, size_t count, void *arg)
{
	struct request *request = arg;
	size_t length = size * count, most = request->data ? STREAM_MAX : HTTP_ANSWER_MAX;
	bool good = is_good(request);

	if (good && request->answer_fd >= 0)
		return write_file(request, bytes, length);
	if (evbuffer_get_length(request->kept) + length > most) {
		request->paused = good && request->data;
		request->too_long = !request->paused;
		return request->paused ? CURL_WRITEFUNC_PAUSE : 0;
	}
	evbuffer_add(request->kept, bytes, length);
	if (good && request->data)
		event_active(request->deliver, EV_READ, 0);
	return length;
}

/* The empty line after the headers: the answer has begun. */
static size_t take_header(char *bytes, size_t size, size_t count, void *arg)
{
	struct request *request = arg;

	if (size * count <= 2 && request->data && is_good(request))
		event_active(request->deliver, EV_READ, 0);
	return size * count;
}

static void hand_on(struct request *request)
{
	if (!request->opened) {
		request->opened = true;
		if (request->on_open)
			request->on_open(request->stream_arg);
	}
	for (size_t length; (length = evbuffer_get_contiguous_space(request->kept));) {
		request->data(request->stream_arg, evbuffer_pullup(request->kept, (ev_ssize_t)length), length);
		evbuffer_drain(request->kept, length);
	}
}

static void deliver(evutil_socket_t fd, short what, void *arg)
{
	struct request *request = arg;

	hand_on(request);
	if (!request->paused)
		return;
	request->paused = false;
	curl_easy_pause(request->easy, CURLPAUSE_CONT);
}

/* ---- its end ---- */

static void request_free(struct request *request)
{
	if (request->easy) {
		curl_multi_remove_handle(request->http->multi, request->easy);
		curl_easy_cleanup(request->easy);
	}
	curl_slist_free_all(request->headers);
	if (request->kept)
		evbuffer_free(request->kept);
	if (request->deliver)
		event_free(request->deliver);
	free(request->sent);
	free(request);
}

static void request_drop(struct nova_op *op)
{
	request_free((struct request *)op);
}

static int broken(const struct request *request, CURLcode code, struct nova_error *err)
{
	const struct http *http = request->http;
	long errnum = 0;

	if (request->too_long)
		return nova_error_set(err, NOVA_REFUSED, "%s: an answer of more than %u bytes", http->name, HTTP_ANSWER_MAX);
	if (request->write_errno)
		return nova_error_sys(err, request->write_errno, "%s: cannot write what it sends", http->name);
	if (code == CURLE_OPERATION_TIMEDOUT)
		return nova_error_set(err, NOVA_TIMEOUT, "%s did not answer in time on %s", http->name, http->socket);
	curl_easy_getinfo(request->easy, CURLINFO_OS_ERRNO, &errnum);
	return nova_error_set(err, NOVA_LINK, "%s does not answer on %s: %s", http->name, http->socket,
	    code == CURLE_COULDNT_CONNECT && errnum ? strerrordesc_np((int)errnum) : curl_easy_strerror(code));
}

/* One line of what a daemon says: its control characters become spaces. */
static void one_line(const char *from, char *to, size_t size)
{
	size_t used = 0;

	for (; *from && used + 1 < size; from++)
		to[used++] = iscntrl((unsigned char)*from) ? ' ' : *from;
	while (used && (to[used - 1] == ' ' || to[used - 1] == '.'))
		used--;
	to[used] = 0;
}

static int refused(const struct request *request, long status, json_t *answer, struct nova_error *err)
{
	const char *text = json_string_value(json_object_get(json_object_get(answer, "body"), "message"));
	enum nova_category category = status == 400 || status == 404 ? NOVA_INVALID :
				      status == 409                  ? NOVA_STATE :
								       NOVA_REFUSED;
	char line[400];

	one_line(text ? text : "no reason given", line, sizeof(line));
	return nova_error_set(err, category, "%s: %s (HTTP %ld)", request->http->name, line, status);
}

static json_t *answer_of(struct request *request, long status)
{
	size_t length = evbuffer_get_length(request->kept);
	char *bytes = (char *)evbuffer_pullup(request->kept, -1);
	json_t *answer = json_pack("{s:i}", "status", (int)status);
	json_t *body = length ? json_loadb(bytes, length, JSON_DECODE_ANY, NULL) : NULL;

	if (body)
		json_object_set_new(answer, "body", body);
	else if (length)
		json_object_set_new(answer, "text", json_stringn(bytes, length));
	return answer;
}

static void request_end(struct request *request, CURLcode code)
{
	nova_done_fn done = request->done;
	void *arg = request->arg;
	NOVA_AUTOJSON json_t *answer = NULL;
	struct nova_error err;
	bool failed = code != CURLE_OK;
	long status = 0;

	if (request->data && is_good(request))
		hand_on(request);
	if (failed) {
		broken(request, code, &err);
	} else {
		curl_easy_getinfo(request->easy, CURLINFO_RESPONSE_CODE, &status);
		answer = answer_of(request, status);
		failed = status >= 400 && status != request->tolerated;
		if (failed)
			refused(request, status, answer, &err);
	}
	request_free(request);
	done(arg, failed ? NULL : answer, failed ? &err : NULL);
}

/* ---- its beginning ---- */

static int add_header(struct request *request, const char *line)
{
	struct curl_slist *grown = curl_slist_append(request->headers, line);

	if (!grown)
		return -1;
	request->headers = grown;
	return 0;
}

static int set_body(struct request *request, const struct http_call *call)
{
	if (call->send_fd) {
		request->send_fd = *call->send_fd;
		curl_easy_setopt(request->easy, CURLOPT_UPLOAD, 1L);
		curl_easy_setopt(request->easy, CURLOPT_READFUNCTION, send_some);
		curl_easy_setopt(request->easy, CURLOPT_READDATA, request);
		return add_header(request, "Content-Type: application/x-tar") < 0 ||
			       add_header(request, "Transfer-Encoding: chunked") < 0 ?
			   -1 :
			   0;
	}
	if (!strcmp(call->method, "POST") || call->body) {
		request->sent = call->body ? json_dumps(call->body, JSON_COMPACT) : strdup("");
		if (!request->sent || add_header(request, "Content-Type: application/json") < 0)
			return -1;
		curl_easy_setopt(request->easy, CURLOPT_POSTFIELDSIZE, (long)strlen(request->sent));
		curl_easy_setopt(request->easy, CURLOPT_POSTFIELDS, request->sent);
	}
	return 0;
}

static int set_up(struct request *request, const struct http_call *call)
{
	char url[2048];
	int length = snprintf(url, sizeof(url), "http://localhost%s", call->path);

	if (length < 0 || (size_t)length >= sizeof(url) || set_body(request, call) < 0 ||
	    add_header(request, "Expect:") < 0)
		return -1;
	curl_easy_setopt(request->easy, CURLOPT_URL, url);
	curl_easy_setopt(request->easy, CURLOPT_UNIX_SOCKET_PATH, request->http->socket);
	curl_easy_setopt(request->easy, CURLOPT_CUSTOMREQUEST, call->method);
	curl_easy_setopt(request->easy, CURLOPT_HTTPHEADER, request->headers);
	curl_easy_setopt(request->easy, CURLOPT_PROXY, "");
	curl_easy_setopt(request->easy, CURLOPT_PROTOCOLS_STR, "http");
	curl_easy_setopt(request->easy, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(request->easy, CURLOPT_TIMEOUT_MS, (long)call->limit_ms);
	curl_easy_setopt(request->easy, CURLOPT_OPENSOCKETFUNCTION, open_socket);
	curl_easy_setopt(request->easy, CURLOPT_WRITEFUNCTION, take);
	curl_easy_setopt(request->easy, CURLOPT_WRITEDATA, request);
	curl_easy_setopt(request->easy, CURLOPT_HEADERFUNCTION, take_header);
	curl_easy_setopt(request->easy, CURLOPT_HEADERDATA, request);
	curl_easy_setopt(request->easy, CURLOPT_PRIVATE, request);
	return curl_multi_add_handle(request->http->multi, request->easy) == CURLM_OK ? 0 : -1;
}

struct nova_op *http_start(struct http *http, const struct http_call *call, nova_done_fn done, void *arg,
    struct nova_error *err)
{
	struct request *request = calloc(1, sizeof(*request));

	if (!request) {
		nova_error_sys(err, ENOMEM, "%s", http->name);
		return NULL;
	}
	*request = (struct request){
		.op.drop = request_drop,
		.http = http,
		.easy = curl_easy_init(),
		.kept = evbuffer_new(),
		.deliver = event_new(http->base, -1, 0, deliver, request),
		.send_fd = -1,
		.answer_fd = call->answer_fd ? *call->answer_fd : -1,
		.tolerated = call->tolerated,
		.on_open = call->opened,
		.data = call->data,
		.stream_arg = call->stream_arg,
		.done = done,
		.arg = arg,
	};
	if (request->easy && request->kept && request->deliver && set_up(request, call) == 0)
		return &request->op;
	request_free(request);
	nova_error_set(err, NOVA_INVALID, "%s: no request could be made of %.200s", http->name, call->path);
	return NULL;
}

char *http_escape(const char *text)
{
	char *escaped = curl_easy_escape(NULL, text, 0), *copy = escaped ? strdup(escaped) : NULL;

	curl_free(escaped);
	return copy;
}
