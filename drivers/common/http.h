/* SPDX-License-Identifier: Apache-2.0
 *
 * http.h - HTTP requests to a daemon of this host over its unix socket, by libcurl's multi interface on our
 * loop: nothing blocks but the copying of files that are sent or received (64 KiB at a time, from and to the
 * page cache). Connections are reused. No proxies, no redirections, no TLS.
 */
#ifndef NOVA_DRIVER_HTTP_H
#define NOVA_DRIVER_HTTP_H

#include "engine/op.h"

#define HTTP_ANSWER_MAX (4u << 20) /* bytes of an answer that is kept in memory */

struct http;

/* Everything is borrowed for the call but the descriptors, which must stay open until the answer. */
struct http_call {
	const char *method;   /* "GET" ... */
	const char *path;     /* with its query, escaped: "/v1.41/info" */
	json_t *body;         /* sent as JSON */
	const int *send_fd;   /* sent as a tar archive, from where it stands to its end */
	const int *answer_fd; /* where the body of a good answer goes */
	int limit_ms;         /* of the whole call; 0: none */
	int tolerated;        /* a status of 400 or more that is an answer, not an error */
	/* A stream: called, from the loop, when a good answer begins, and with its bytes as they come. They must
	 * not drop the call. */
	void (*opened)(void *arg);
	void (*data)(void *arg, const void *bytes, size_t length);
	void *stream_arg;
};

/* name: of whom we talk to, for errors; static. socket is copied. */
struct http *http_new(struct event_base *base, const char *name, const char *socket, struct nova_error *err);
/* Drop all calls first. NULL is fine. */
struct http *http_free(struct http *http);
const char *http_socket(const struct http *http);
/* Answers {"status": 200, "body": JSON or "text": what is not}. A status of 400 or more is an error with the
 * daemon's message: 400, 404: INVALID; 409: STATE; others: REFUSED. No connection, or one that broke: LINK. */
struct nova_op *http_start(struct http *http, const struct http_call *call, nova_done_fn done, void *arg,
    struct nova_error *err);
/* text, escaped for a path or query; free() it. NULL: no memory. */
char *http_escape(const char *text);

#endif
