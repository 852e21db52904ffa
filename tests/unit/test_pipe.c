/* SPDX-License-Identifier: Apache-2.0
 *
 * test_pipe.c - two pipes joined by a channel pair in this process: bytes both ways, flush, end of file,
 * backpressure with bounds, and every way to break.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <zstd.h>

#include "engine/pipe.h"
#include "qmp/stream.h"
#include "tests/unit/channel_pair.h"

#define STREAM_MAX (8u << 20)

/* ---- the scene: socket - pipe - channel pair - pipe - socket ---------------------------------- */

struct side {
	int socket; /* the user's */
	struct nova_pipe *pipe;
	struct end *end; /* the pipe's */
	unsigned ended;
	struct nova_error error;
	int calls;
	bool free_in_call;
};

struct scene {
	struct event_base *base;
	struct side a, b;
};

static void on_side(void *arg, unsigned ended, const struct nova_error *err)
{
	struct side *side = arg;

	side->calls++;
	side->ended = ended;
	if (err)
		side->error = *err;
	if (side->free_in_call)
		side->pipe = nova_pipe_free(side->pipe);
}

static void side_open(
    struct scene *s, struct side *side, struct end *end, const struct nova_pipe_options *options)
{
	struct nova_error err;
	int fd[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fd), 0);
	side->socket = fd[0];
	side->end = end;
	side->pipe = nova_pipe_new(s->base, &links, fd[1], &end->channel, options, on_side, side, &err);
	assert_non_null(side->pipe);
}

static void scene_open(struct scene *s, enum nova_codec codec, size_t window)
{
	const struct nova_pipe_options options = {
		.out.codec = codec,
		.in.codec = codec,
		.scanner = &qmp_stream_scanner,
	};
	struct end *a, *b;

	*s = (struct scene) { .base = event_base_new() };
	a = end_new(s->base, window);
	b = end_new(s->base, window);
	a->peer = b;
	b->peer = a;
	side_open(s, &s->a, a, &options);
	side_open(s, &s->b, b, &options);
}

static void scene_close(struct scene *s)
{
	nova_pipe_free(s->a.pipe);
	nova_pipe_free(s->b.pipe);
	close(s->a.socket);
	close(s->b.socket);
	event_base_free(s->base);
}

static void turn(struct scene *s)
{
	event_base_loop(s->base, EVLOOP_NONBLOCK);
}

struct stream {
	uint8_t *data;
	size_t length;
};

static struct stream load(void)
{
	const char *top = getenv("srcdir");
	struct stream s = { malloc(STREAM_MAX), 0 };
	uint8_t *packed = malloc(STREAM_MAX);
	char path[512];
	FILE *f;

	snprintf(path, sizeof(path), "%s/tests/fixtures/qemu72-postcopy.zst", top ? top : ".");
	f = fopen(path, "rb");
	assert_non_null(f);
	s.length = ZSTD_decompress(s.data, STREAM_MAX, packed, fread(packed, 1, STREAM_MAX, f));
	assert_false(ZSTD_isError(s.length));
	fclose(f);
	free(packed);
	return s;
}

/* Write what the socket takes of data from *at; at the end, shut down. */
static void push(int fd, const uint8_t *data, size_t length, size_t *at)
{
	ssize_t n;

	if (*at == length)
		return;
	n = write(fd, data + *at, length - *at);
	if (n > 0)
		*at += (size_t)n;
	if (*at == length)
		shutdown(fd, SHUT_WR);
}

/* Read at most `most` bytes and compare; true at end of file. */
static bool pull(int fd, const uint8_t *expected, size_t length, size_t *at, size_t most)
{
	static uint8_t space[1 << 20];
	ssize_t n = read(fd, space, most < sizeof(space) ? most : sizeof(space));

	if (n == 0)
		return true;
	if (n > 0) {
		assert_true((size_t)n <= length - *at);
		assert_memory_equal(space, expected + *at, (size_t)n);
		*at += (size_t)n;
	}
	return false;
}

static void wait_ended(struct scene *s, struct side *side, unsigned ended)
{
	for (int i = 0; i < 100000 && (side->ended & ended) != ended; i++)
		turn(s);
	assert_int_equal(side->ended & ended, ended);
}

/* ---- tests -------------------------------------------------------------------------------------- */

static void both_ways(enum nova_codec codec, size_t window, size_t most)
{
	struct stream stream = load();
	size_t sent_a = 0, sent_b = 0, got_a = 0, got_b = 0, back = stream.length / 3;
	bool end_a = false, end_b = false;
	uint8_t out[16], in[16];
	uint64_t n_out, n_in;
	struct scene s;

	scene_open(&s, codec, window);
	while (!end_a || !end_b) {
		push(s.a.socket, stream.data, stream.length, &sent_a);
		push(s.b.socket, stream.data, back, &sent_b);
		turn(&s);
		end_a = end_a || pull(s.a.socket, stream.data, back, &got_a, most);
		end_b = end_b || pull(s.b.socket, stream.data, stream.length, &got_b, most);
	}
	assert_int_equal(got_a, back);
	assert_int_equal(got_b, stream.length);
	wait_ended(&s, &s.a, NOVA_PIPE_TO_CHANNEL | NOVA_PIPE_TO_SOCKET);
	wait_ended(&s, &s.b, NOVA_PIPE_TO_CHANNEL | NOVA_PIPE_TO_SOCKET);
	assert_int_equal(s.a.error.category, NOVA_OK);
	assert_true(s.a.end->most <= window + NOVA_MESSAGE_MAX); /* may exceed by one message */
	nova_pipe_digest_out(s.a.pipe, out, &n_out);
	nova_pipe_digest_in(s.b.pipe, in, &n_in);
	assert_int_equal(n_out, stream.length);
	assert_int_equal(n_in, stream.length);
	assert_memory_equal(out, in, 16);
	scene_close(&s);
	free(stream.data);
}

static void test_both_ways(void **state)
{
	both_ways(NOVA_CODEC_NONE, 4 << 20, SIZE_MAX);
	both_ways(NOVA_CODEC_LZ4, 4 << 20, SIZE_MAX);
	both_ways(NOVA_CODEC_ZSTD, 4 << 20, SIZE_MAX);
}

static void test_narrow_window(void **state)
{
	both_ways(NOVA_CODEC_LZ4, 1, SIZE_MAX);
	both_ways(NOVA_CODEC_NONE, 10000, SIZE_MAX);
	both_ways(NOVA_CODEC_LZ4, 100000, 30000);
}

/* What was written arrives although the socket stays open: a handshake must not hang. */
static void test_flush(void **state)
{
	struct scene s;

	scene_open(&s, NOVA_CODEC_LZ4, 1 << 20);
	for (int i = 0; i < 20; i++) {
		static const uint8_t ping[] = "QEVM\0\0\0\3", pong[] = "\0\1\0\4\0\0\0\0";
		size_t got = 0, back = 0;

		assert_int_equal(write(s.a.socket, ping, 8), 8);
		for (int k = 0; k < 100000 && got < 8; k++) {
			turn(&s);
			pull(s.b.socket, ping, 8, &got, SIZE_MAX);
		}
		assert_int_equal(got, 8);
		assert_int_equal(write(s.b.socket, pong, 3), 3);
		for (int k = 0; k < 100000 && back < 3; k++) {
			turn(&s);
			pull(s.a.socket, pong, 3, &back, SIZE_MAX);
		}
		assert_int_equal(back, 3);
	}
	scene_close(&s);
}

/* A reader that does not read stops the writer at the other end: nothing piles up. */
static void test_backpressure(void **state)
{
	struct stream stream = load();
	struct nova_pipe_stats stats;
	size_t sent = 0, before, got = 0;
	struct scene s;

	scene_open(&s, NOVA_CODEC_NONE, 300000);
	for (int i = 0; i < 300; i++) {
		push(s.a.socket, stream.data, stream.length, &sent);
		turn(&s);
	}
	before = sent;
	assert_true(before < stream.length / 2);
	for (int i = 0; i < 300; i++) {
		push(s.a.socket, stream.data, stream.length, &sent);
		turn(&s);
	}
	assert_int_equal(sent, before);
	nova_pipe_stats(s.b.pipe, &stats);
	assert_true(stats.held_bytes > 0 && stats.held_bytes <= 300000 + 2 * NOVA_MESSAGE_MAX);
	while (!pull(s.b.socket, stream.data, stream.length, &got, SIZE_MAX)) {
		push(s.a.socket, stream.data, stream.length, &sent);
		turn(&s);
	}
	assert_int_equal(got, stream.length);
	nova_pipe_stats(s.b.pipe, &stats);
	assert_int_equal(stats.held_bytes, 0);
	assert_int_equal(stats.socket_out_bytes, stream.length);
	assert_int_equal(s.a.end->unacknowledged, 0);
	scene_close(&s);
	free(stream.data);
}

/* A wide window, and a limit below it: what is on the way stays within the limit and one block, and all
 * arrives; nobody tells the pipe when there is less on the way. */
static void test_limit_on_the_way(void **state)
{
	const uint64_t limit = 100000;
	struct stream stream = load();
	size_t sent = 0, got = 0;
	struct scene s;

	scene_open(&s, NOVA_CODEC_NONE, 4 << 20);
	nova_pipe_limit(s.a.pipe, limit);
	while (!pull(s.b.socket, stream.data, stream.length, &got, 60000)) {
		push(s.a.socket, stream.data, stream.length, &sent);
		turn(&s);
	}
	assert_int_equal(got, stream.length);
	assert_true(s.a.end->most > limit / 2 && s.a.end->most <= limit + NOVA_MESSAGE_MAX);
	scene_close(&s);
	free(stream.data);
}

/* While it is held nothing is read, and it is not idle; all arrives when the hold is taken back, or is over. */
static void test_hold(void **state)
{
	struct stream stream = load();

	for (int taken_back = 0; taken_back < 2; taken_back++) {
		struct nova_pipe_stats stats;
		size_t sent = 0, got = 0;
		struct scene s;

		scene_open(&s, NOVA_CODEC_LZ4, 4 << 20);
		nova_pipe_hold(s.a.pipe, taken_back ? 3600000 : 50);
		push(s.a.socket, stream.data, stream.length, &sent);
		assert_true(sent > 0);
		turn(&s);
		turn(&s);
		nova_pipe_stats(s.a.pipe, &stats);
		assert_int_equal(stats.socket_in_bytes, 0);
		assert_false(nova_pipe_idle(s.a.pipe));
		if (taken_back)
			nova_pipe_hold(s.a.pipe, 0);
		while (!pull(s.b.socket, stream.data, stream.length, &got, SIZE_MAX)) {
			push(s.a.socket, stream.data, stream.length, &sent);
			turn(&s);
		}
		assert_int_equal(got, stream.length);
		scene_close(&s);
	}
	free(stream.data);
}

/* Idle means: nothing in the socket, nothing in the encoder. Only then a digest is of all that was written. */
static void test_idle(void **state)
{
	struct stream stream = load();
	size_t part = stream.length / 2, got = 0;
	uint8_t digest[16];
	uint64_t taken = 0;
	struct scene s;

	scene_open(&s, NOVA_CODEC_LZ4, 4 << 20);
	assert_true(nova_pipe_idle(s.a.pipe));
	for (size_t at = 0; at < part;) {
		ssize_t n = write(s.a.socket, stream.data + at, part - at < 50000 ? part - at : 50000);

		at += n > 0 ? (size_t)n : 0;
		assert_true(n <= 0 || !nova_pipe_idle(s.a.pipe));
		turn(&s);
		pull(s.b.socket, stream.data, stream.length, &got, SIZE_MAX);
	}
	for (int i = 0; i < 100000 && !nova_pipe_idle(s.a.pipe); i++)
		turn(&s);
	nova_pipe_digest_out(s.a.pipe, digest, &taken);
	assert_int_equal(taken, part);
	for (int i = 0; i < 100000 && got < part; i++) {
		turn(&s);
		pull(s.b.socket, stream.data, stream.length, &got, SIZE_MAX);
	}
	assert_int_equal(got, part);
	scene_close(&s);
	free(stream.data);
}

/* A few messages that unpack to very much: they wait packed. */
static void test_no_bomb(void **state)
{
	uint8_t *zeros = calloc(1, STREAM_MAX);
	struct nova_pipe_stats stats;
	size_t sent = 0, got = 0;
	struct scene s;

	scene_open(&s, NOVA_CODEC_LZ4, 1 << 20);
	for (int i = 0; i < 400; i++) {
		push(s.a.socket, zeros, STREAM_MAX, &sent);
		turn(&s);
	}
	assert_int_equal(sent, STREAM_MAX);
	nova_pipe_stats(s.b.pipe, &stats);
	assert_true(stats.held_bytes < 400000);
	while (!pull(s.b.socket, zeros, STREAM_MAX, &got, SIZE_MAX))
		turn(&s);
	assert_int_equal(got, STREAM_MAX);
	scene_close(&s);
	free(zeros);
}

static void test_channel_lost(void **state)
{
	const struct nova_error lost = { NOVA_LINK, 0, "the link is gone" };
	struct scene s;

	scene_open(&s, NOVA_CODEC_LZ4, 1 << 20);
	s.a.free_in_call = true;
	s.a.end->events->closed(s.a.end->arg, &lost);
	assert_int_equal(s.a.calls, 0); /* from the loop, not from below */
	turn(&s);
	assert_int_equal(s.a.calls, 1);
	assert_int_equal(s.a.error.category, NOVA_LINK);
	assert_null(s.a.pipe);
	scene_close(&s);
}

static void test_socket_lost(void **state)
{
	struct scene s;
	char noise[1000] = { 0 };

	scene_open(&s, NOVA_CODEC_LZ4, 1 << 20);
	close(s.b.socket);
	s.b.socket = -1;
	assert_int_equal(write(s.a.socket, noise, sizeof(noise)), sizeof(noise));
	for (int i = 0; i < 10000 && s.b.error.category == NOVA_OK; i++)
		turn(&s);
	assert_int_equal(s.b.error.category, NOVA_SYSTEM);
	assert_int_equal(s.b.error.errnum, EPIPE);
	for (int i = 0; i < 10; i++)
		turn(&s);
	assert_int_equal(s.a.error.category, NOVA_OK);
	scene_close(&s);
}

static void test_garbage_from_peer(void **state)
{
	struct scene s;
	struct nova_buf *buf = nova_buf_new(3);

	scene_open(&s, NOVA_CODEC_LZ4, 1 << 20);
	memcpy(buf->data, "\xff\xff\xff", 3);
	buf->length = 3;
	end_send(&s.a.end->channel, buf);
	for (int i = 0; i < 10000 && !s.b.calls; i++)
		turn(&s);
	assert_int_equal(s.b.error.category, NOVA_INVALID);
	scene_close(&s);
}

static void test_bad_options(void **state)
{
	const struct nova_pipe_options options = { .out.codec = NOVA_CODECS };
	struct event_base *base = event_base_new();
	struct nova_error err;
	int fd[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd), 0);
	assert_null(
	    nova_pipe_new(base, &links, fd[1], &end_new(base, 1)->channel, &options, on_side, NULL, &err));
	assert_int_equal(err.category, NOVA_INVALID);
	assert_int_equal(fcntl(fd[1], F_GETFD), -1); /* stolen, also on failure */
	close(fd[0]);
	assert_null(nova_pipe_free(NULL));
	event_base_free(base);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_both_ways),
		cmocka_unit_test(test_narrow_window),
		cmocka_unit_test(test_flush),
		cmocka_unit_test(test_backpressure),
		cmocka_unit_test(test_limit_on_the_way),
		cmocka_unit_test(test_hold),
		cmocka_unit_test(test_idle),
		cmocka_unit_test(test_no_bomb),
		cmocka_unit_test(test_channel_lost),
		cmocka_unit_test(test_socket_lost),
		cmocka_unit_test(test_garbage_from_peer),
		cmocka_unit_test(test_bad_options),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
