/* SPDX-License-Identifier: Apache-2.0
 *
 * request.c - what travels on the control channel: requests, answers, and a session's own notes.
 *
 * JSON of at most 1 MiB and 32 levels, in pieces of one message each. At most 1024 requests wait each way;
 * a peer that asks more is told so, one that does not read its answers (16 MiB of them) is disconnected.
 * A request that is not answered in its time gives NOVA_TIMEOUT; its late answer is ignored.
 */
#include "link.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "cursor.h"

enum control_kind {
	CONTROL_REQUEST = 1, /* u32 id, JSON {"command", "args"} */
	CONTROL_ANSWER,      /* u32 id, JSON {"result"} or {"error"} */
	CONTROL_RESET,       /* u16 channel: nothing more is sent or wanted on it */
	CONTROL_BYE,         /* the session is over, in order */
	CONTROL_LIMIT,       /* u32 ms: resume limit from now on */
	CONTROL_KINDS
};
#define CONTROL_MORE 0x80u /* of the kind byte: another piece follows */
#define PIECE_BYTES (64u * 1024)

/* ---- pieces ---- */

static int send_piece(struct nova_session *session, uint8_t kind, const uint8_t *data, size_t length)
{
	struct nova_buf *buf = nova_buf_new(1 + length);

	if (!buf)
		return -1;
	buf->data[0] = kind;
	if (length)
		memcpy(buf->data + 1, data, length);
	buf->length = (uint32_t)(1 + length);
	outbox_add(&session->control.out, buf);
	return 0;
}

/* Pieces of one message stand together: nothing else is sent on the control channel meanwhile. */
static void send_control(
    struct nova_session *session, enum control_kind kind, const uint8_t *data, size_t length)
{
	static const struct nova_error lost = { NOVA_LINK, 0,
		"no memory, or the peer does not read its answers" };
	int sent = session->control.out.end - session->control.out.received > SESSION_CONTROL_MAX ? -1 : 0;

	if (session->state == SESSION_CLOSED)
		return;
	while (sent == 0 && length > PIECE_BYTES) {
		sent = send_piece(session, kind | CONTROL_MORE, data, PIECE_BYTES);
		data += PIECE_BYTES;
		length -= PIECE_BYTES;
	}
	if (sent == 0)
		sent = send_piece(session, kind, data, length);
	if (sent < 0)
		session_close(session, &lost);
	else
		session_kick(session);
}

static void send_small(struct nova_session *session, enum control_kind kind, uint32_t value, size_t bytes)
{
	uint8_t data[4] = { 0 };
	struct nova_writer w = nova_writer_of(data, sizeof(data));

	if (bytes == 2)
		nova_put_u16(&w, (uint16_t)value);
	else if (bytes == 4)
		nova_put_u32(&w, value);
	send_control(session, kind, data, bytes);
}

void request_send_reset(struct nova_session *session, uint16_t channel)
{
	send_small(session, CONTROL_RESET, channel, 2);
}

void request_send_bye(struct nova_session *session)
{
	send_small(session, CONTROL_BYE, 0, 0);
}

void request_send_limit(struct nova_session *session, uint32_t limit_ms)
{
	send_small(session, CONTROL_LIMIT, limit_ms, 4);
}

/* ---- JSON with an id before it ---- */

bool request_depth_ok(const char *text, size_t length)
{
	unsigned depth = 0;
	bool quoted = false;

	for (size_t i = 0; i < length; i++) {
		if (quoted) {
			if (text[i] == '\\')
				i++;
			else if (text[i] == '"')
				quoted = false;
		} else if (text[i] == '"') {
			quoted = true;
		} else if (text[i] == '{' || text[i] == '[') {
			if (++depth > REQUEST_DEPTH_MAX)
				return false;
		} else if ((text[i] == '}' || text[i] == ']') && depth) {
			depth--;
		}
	}
	return true;
}

static int send_json(struct nova_session *session, enum control_kind kind, uint32_t id, const json_t *value,
    struct nova_error *err)
{
	size_t length = json_dumpb(value, NULL, 0, JSON_COMPACT);
	NOVA_AUTOFREE uint8_t *data = NULL;
	struct nova_writer w;

	if (!length || length > REQUEST_BYTES_MAX)
		return nova_error_set(err, NOVA_INVALID, "a message of %zu bytes: at most %u may be sent",
		    length, REQUEST_BYTES_MAX);
	data = malloc(4 + length);
	if (!data)
		return nova_error_set(err, NOVA_SYSTEM, "no memory for a message");
	w = nova_writer_of(data, 4 + length);
	nova_put_u32(&w, id);
	json_dumpb(value, (char *)nova_put_room(&w, length), length, JSON_COMPACT);
	if (!request_depth_ok((const char *)data + 4, length))
		return nova_error_set(
		    err, NOVA_INVALID, "a message of more than %u levels", REQUEST_DEPTH_MAX);
	send_control(session, kind, data, 4 + length);
	return 0;
}

static json_t *get_json(struct nova_cursor *c, struct nova_error *err)
{
	size_t length = nova_cursor_left(c);
	const char *text = (const char *)nova_get_bytes(c, length);
	json_error_t why;
	json_t *value = NULL;

	if (!request_depth_ok(text, length)) {
		nova_error_set(err, NOVA_INVALID, "more than %u levels of JSON", REQUEST_DEPTH_MAX);
		return NULL;
	}
	value = json_loadb(text, length, JSON_REJECT_DUPLICATES, &why);
	if (json_is_object(value))
		return value;
	json_decref(value);
	nova_error_set(err, NOVA_INVALID, "not a JSON object: %s", why.text);
	return NULL;
}

/* ---- our requests ---- */

static void take_out(struct call **at, const struct call *call)
{
	while (*at != call)
		at = &(*at)->next;
	*at = call->next;
}

static void unlink_call(struct call *call)
{
	take_out(&call->session->calls, call);
	call->session->call_count--;
	call->session = NULL;
}

/* A call whose session is over, until its answer's turn. */
static void end_call(struct nova_links *links, struct call *call)
{
	unlink_call(call);
	call->links = links;
	call->next = links->ended_calls;
	links->ended_calls = call;
}

static void call_free(struct call *call)
{
	if (call->session)
		unlink_call(call);
	else if (call->links)
		take_out(&call->links->ended_calls, call);
	if (call->timer)
		event_free(call->timer);
	free(call);
}

static void call_answer(struct call *call, json_t *result, const struct nova_error *err)
{
	nova_done_fn done = call->done;
	void *arg = call->arg;

	call_free(call);
	done(arg, result, err);
}

static void call_drop(struct nova_op *op)
{
	call_free((struct call *)op);
}

static void on_call_timer(evutil_socket_t fd, short what, void *arg)
{
	struct call *call = arg;
	struct nova_links *links = call->session ? call->session->links : call->links;
	struct nova_error failure = call->failure;

	if (links)
		links_enter(links);
	call_answer(call, NULL, &failure);
	if (links)
		links_leave(links);
}

static int call_start(struct call *call, struct nova_session *session, const char *command, json_t *args,
    int limit_ms, struct nova_error *err)
{
	NOVA_AUTOJSON json_t *message = json_pack("{s:s, s:O?}", "command", command, "args", args);
	struct timeval limit = links_timeval((uint64_t)(limit_ms > 0 ? limit_ms : 0) * 1000000u);

	call->timer = evtimer_new(session->links->base, on_call_timer, call);
	if (!message || !call->timer)
		return nova_error_sys(err, ENOMEM, "no memory for a request, or a command that is not UTF-8");
	nova_error_set(&call->failure, NOVA_TIMEOUT, "%s did not answer %s in %d ms", session->peer->name,
	    command, limit_ms);
	call->op.drop = call_drop;
	call->id = ++session->next_call;
	if (send_json(session, CONTROL_REQUEST, call->id, message, err) < 0)
		return -1;
	if (limit_ms > 0)
		evtimer_add(call->timer, &limit);
	call->session = session;
	call->next = session->calls;
	session->calls = call;
	session->call_count++;
	return 0;
}

struct nova_op *request_send(struct nova_session *session, const char *command, json_t *args, int limit_ms,
    nova_done_fn done, void *arg, struct nova_error *err)
{
	struct call *call;

	if (session->state >= SESSION_LEAVING) {
		nova_error_set(err, NOVA_LINK, "the session with %s is over", session->peer->name);
		return NULL;
	}
	if (session->call_count >= SESSION_REQUESTS_MAX ||
	    session->control.out.end - session->control.out.received > SESSION_CONTROL_MAX / 2) {
		nova_error_set(
		    err, NOVA_STATE, "too many requests to %s wait for their answers", session->peer->name);
		return NULL;
	}
	call = calloc(1, sizeof(*call));
	if (!call) {
		nova_error_sys(err, ENOMEM, "no memory for a request");
		return NULL;
	}
	call->done = done;
	call->arg = arg;
	if (call_start(call, session, command, args, limit_ms, err) == 0)
		return &call->op;
	call_free(call);
	return NULL;
}

void request_fail_all(struct nova_session *session, const struct nova_error *why, bool at_once)
{
	while (session->calls) {
		struct call *call = session->calls;

		if (at_once) {
			call_answer(call, NULL, why);
			continue;
		}
		end_call(session->links, call);
		call->failure = *why;
		event_active(call->timer, EV_TIMEOUT, 0);
	}
}

void request_answer_ended(struct nova_links *links)
{
	while (links->ended_calls) {
		struct nova_error failure = links->ended_calls->failure;

		call_answer(links->ended_calls, NULL, &failure);
	}
}

/* ---- their answers ---- */

static enum nova_category category_named(const char *name)
{
	for (unsigned i = 1; name && i < NOVA_CATEGORIES; i++) {
		if (strcmp(name, nova_category_name((enum nova_category)i)) == 0)
			return (enum nova_category)i;
	}
	return NOVA_REFUSED;
}

static void read_refusal(json_t *error, struct nova_error *err)
{
	nova_error_set(err, category_named(json_string_value(json_object_get(error, "category"))), "%s",
	    json_string_value(json_object_get(error, "text")) ?: "refused without a reason");
	err->errnum = (int)json_integer_value(json_object_get(error, "errnum"));
}

static int answer_heard(struct nova_session *session, struct nova_cursor *c, struct nova_error *err)
{
	uint32_t id = nova_get_u32(c);
	NOVA_AUTOJSON json_t *message = get_json(c, err);
	struct call *call = session->calls;
	struct nova_error refusal;
	json_t *error;

	if (!message)
		return -1;
	while (call && call->id != id)
		call = call->next;
	if (!call)
		return 0;
	error = json_object_get(message, "error");
	if (error)
		read_refusal(error, &refusal);
	call_answer(call, error ? NULL : json_object_get(message, "result"), error ? &refusal : NULL);
	return 0;
}

/* ---- their requests, our answers ---- */

/* An answer that there is no memory for, not even to say so, ends the session: the peer must not wait for it. */
static void send_answer(
    struct nova_session *session, uint32_t id, json_t *result, const struct nova_error *failure)
{
	static const struct nova_error mute = { NOVA_LINK, 0, "no memory for an answer" };
	NOVA_AUTOJSON json_t *message = NULL;
	struct nova_error err;

	if (failure)
		message = json_pack("{s:{s:s, s:s%, s:i}}", "error", "category",
		    nova_category_name(failure->category), "text", failure->text,
		    strnlen(failure->text, sizeof(failure->text)), "errnum", failure->errnum);
	else
		message = result ? json_pack("{s:O}", "result", result) : json_pack("{s:n}", "result");
	if (message && send_json(session, CONTROL_ANSWER, id, message, &err) == 0)
		return;
	if (!message)
		nova_error_set(&err, NOVA_INVALID, "the answer cannot be written as JSON");
	json_decref(message);
	message = json_pack(
	    "{s:{s:s, s:s}}", "error", "category", nova_category_name(err.category), "text", err.text);
	if (!message || send_json(session, CONTROL_ANSWER, id, message, NULL) < 0)
		session_close(session, &mute);
}

void request_answer(struct nova_request *request, json_t *result, const struct nova_error *err)
{
	struct nova_session *session = request->session;
	struct nova_request **at = session ? &session->requests : NULL;

	if (session) {
		links_enter(session->links);
		while (*at != request)
			at = &(*at)->next;
		*at = request->next;
		session->request_count--;
		send_answer(session, request->id, result, err);
		links_leave(session->links);
	}
	json_decref(result);
	free(request);
}

static int request_heard_json(struct nova_session *session, struct nova_cursor *c)
{
	uint32_t id = nova_get_u32(c);
	struct nova_error err;
	NOVA_AUTOJSON json_t *message = get_json(c, &err);
	const char *command = json_string_value(json_object_get(message, "command"));
	json_t *args = json_object_get(message, "args");
	struct nova_request *request = NULL;

	if (message && (!command || (args && !json_is_null(args) && !json_is_object(args))))
		nova_error_set(&err, NOVA_INVALID, "a request has a command and an object of args");
	else if (message && session->request_count >= SESSION_REQUESTS_MAX)
		nova_error_set(
		    &err, NOVA_REFUSED, "more than %u requests wait for their answers", SESSION_REQUESTS_MAX);
	else if (message && (!session->events || !session->events->request))
		nova_error_set(&err, NOVA_STATE, "no requests are served here");
	else if (message && !(request = malloc(sizeof(*request))))
		nova_error_sys(&err, ENOMEM, "no memory for a request");
	if (!request) {
		send_answer(session, id, NULL, &err);
		return 0;
	}
	*request = (struct nova_request) { session->requests, session, id };
	session->requests = request;
	session->request_count++;
	session->events->request(session->arg, command, json_is_object(args) ? args : NULL, request);
	return 0;
}

/* ---- dispatch ---- */

static int reset_heard(struct nova_session *session, struct nova_cursor *c, struct nova_error *err)
{
	uint16_t id = nova_get_u16(c);
	struct channel *channel = id ? channel_find(session, id) : NULL;
	struct nova_error why;

	if (c->bad || !id)
		return nova_error_set(err, NOVA_INVALID, "malformed note about a channel");
	nova_error_set(&why, NOVA_CANCELLED, "%s gave channel %u up", session->peer->name, id);
	if (channel)
		channel_kill(channel, &why);
	else
		channel_mark(session, id);
	return 0;
}

static int limit_heard(struct nova_session *session, struct nova_cursor *c, struct nova_error *err)
{
	uint32_t limit_ms = nova_get_u32(c);

	if (c->bad || limit_ms > FRAME_RESUME_LIMIT_MAX_MS)
		return nova_error_set(err, NOVA_INVALID, "malformed resume limit");
	session->resume_limit_ms = (int)limit_ms;
	return 0;
}

static int dispatch(
    struct nova_session *session, uint8_t kind, const uint8_t *data, size_t length, struct nova_error *err)
{
	struct nova_cursor c = nova_cursor_of(data, length);
	struct nova_error why;

	if (session->freed && kind != CONTROL_BYE)
		return 0;
	if ((kind == CONTROL_REQUEST || kind == CONTROL_ANSWER) && length < 4)
		return nova_error_set(
		    err, NOVA_INVALID, "message of %zu bytes on the control channel", length);
	switch (kind) {
	case CONTROL_REQUEST:
		return request_heard_json(session, &c);
	case CONTROL_ANSWER:
		return answer_heard(session, &c, err);
	case CONTROL_RESET:
		return reset_heard(session, &c, err);
	case CONTROL_LIMIT:
		return limit_heard(session, &c, err);
	case CONTROL_BYE:
		nova_error_set(&why, NOVA_CANCELLED, "%s closed the session", session->peer->name);
		session_close(session, &why);
		return 0;
	default:
		return nova_error_set(
		    err, NOVA_INVALID, "message of unknown kind %u on the control channel", kind);
	}
}

static int keep_piece(
    struct nova_session *session, uint8_t kind, const uint8_t *data, size_t length, struct nova_error *err)
{
	uint8_t *heard;

	if (session->heard_length && session->heard_kind != kind)
		return nova_error_set(
		    err, NOVA_INVALID, "pieces of different messages on the control channel");
	if (session->heard_length + length > REQUEST_BYTES_MAX + 4)
		return nova_error_set(err, NOVA_INVALID,
		    "message of more than %u bytes on the control channel", REQUEST_BYTES_MAX);
	heard = realloc(session->heard, session->heard_length + length + 1);
	if (!heard)
		return nova_error_set(err, NOVA_SYSTEM, "no memory for a message");
	memcpy(heard + session->heard_length, data, length);
	session->heard = heard;
	session->heard_length += length;
	session->heard_kind = kind;
	return 0;
}

int request_heard(struct nova_session *session, const uint8_t *data, size_t length, struct nova_error *err)
{
	uint8_t kind = data[0] & ~CONTROL_MORE;
	NOVA_AUTOFREE uint8_t *whole = NULL;
	size_t whole_length;

	if (!(data[0] & CONTROL_MORE) && !session->heard_length)
		return dispatch(session, kind, data + 1, length - 1, err);
	if (data[0] & CONTROL_MORE && length < 2)
		return nova_error_set(err, NOVA_INVALID, "empty piece on the control channel");
	if (keep_piece(session, kind, data + 1, length - 1, err) < 0)
		return -1;
	if (data[0] & CONTROL_MORE)
		return 0;
	whole = session->heard;
	whole_length = session->heard_length;
	session->heard = NULL;
	session->heard_length = 0;
	return dispatch(session, kind, whole, whole_length, err);
}
