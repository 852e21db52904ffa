/* SPDX-License-Identifier: Apache-2.0
 *
 * test_pipe_child.c - a decoder in a process of its own: bytes arrive as they were and the digest says so, the way back
 * works, the process is confined and holds two sockets, and its end is an error.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>

#include "engine/pipe_child.h"
#include "loop.h"

#define RAW_BYTES (3u << 20)

/* ---- a channel whose other side is the test ---- */

struct end {
	struct nova_channel channel; /* first */
	const struct nova_channel_events *events;
	void *arg;
	size_t consumed, back;
	uint8_t last_back;
	bool finished, freed;
};

static size_t end_room(struct nova_channel *channel)
{
	return NOVA_MESSAGE_MAX;
}

static void end_send(struct nova_channel *channel, struct nova_buf *buf)
{
	struct end *end = (struct end *)channel;

	end->back += buf->length;
	end->last_back = buf->data[buf->length - 1];
	nova_buf_free(buf);
}

static void end_consumed(struct nova_channel *channel, size_t bytes)
{
	((struct end *)channel)->consumed += bytes;
}

static void end_finish(struct nova_channel *channel)
{
	((struct end *)channel)->finished = true;
}

static uint64_t end_unacknowledged(struct nova_channel *channel)
{
	return 0;
}

static void end_free(struct nova_channel *channel)
{
	((struct end *)channel)->freed = true;
}

static const struct nova_channel_ops end_ops = { end_room, end_send, end_consumed, end_finish, end_unacknowledged, end_free };

static void set_events(struct nova_channel *channel, const struct nova_channel_events *events, void *arg)
{
	((struct end *)channel)->events = events;
	((struct end *)channel)->arg = arg;
}
static const struct nova_link_ops links = { .channel_events = set_events };

struct scene {
	struct loop loop;
	struct end end;
	struct nova_pipe_child *child;
	int socket; /* the hypervisor's */
	int calls;
	unsigned ended;
	struct nova_error err;
	uint8_t *raw, *got;
	size_t got_bytes, sent_bytes;
	struct nova_encoder *encoder;
};

static void on_pipe(void *arg, unsigned ended, const struct nova_error *err)
{
	struct scene *s = arg;

	s->calls++;
	s->ended = ended;
	if (err)
		s->err = *err;
}

static void on_emit(void *arg, struct nova_buf *buf)
{
	struct scene *s = arg;

	s->sent_bytes += buf->length;
	s->end.events->message(s->end.arg, buf->data, buf->length);
	nova_buf_free(buf);
}

static void scene_open(struct scene *s)
{
	struct nova_pipe_options options = { 0 };
	const struct nova_codec_options out = { .codec = NOVA_CODEC_LZ4, .history_bytes = 1 << 20 };
	int fd[2];

	memset(s, 0, sizeof(*s));
	loop_init(&s->loop);
	s->end.channel.ops = &end_ops;
	s->raw = malloc(RAW_BYTES);
	s->got = malloc(RAW_BYTES);
	for (size_t i = 0; i < RAW_BYTES; i++)
		s->raw[i] = (uint8_t)(i * 2654435761u >> (i % 7));
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fd), 0);
	s->socket = fd[0];
	options.out.codec = NOVA_CODEC_NONE;
	options.in.history_bytes = 1 << 20;
	s->child = nova_pipe_child_new(s->loop.base, &links, fd[1], &s->end.channel, &options, on_pipe, s, &s->err);
	if (!s->child)
		fail_msg("%s", s->err.text);
	s->encoder = nova_encoder_new(&out, NULL, on_emit, s, &s->err);
	assert_non_null(s->encoder);
}

static void scene_release(struct scene *s)
{
	pid_t pid = s->child ? nova_pipe_child_pid(s->child) : 0;

	nova_pipe_child_free(s->child);
	if (pid)
		assert_int_equal(kill(pid, 0), -1);
	assert_true(s->end.freed);
	nova_encoder_free(s->encoder);
	close(s->socket);
	free(s->raw);
	free(s->got);
	loop_release(&s->loop);
}

static bool all_arrived(struct scene *s)
{
	ssize_t n = read(s->socket, s->got + s->got_bytes, RAW_BYTES - s->got_bytes);

	if (n > 0)
		s->got_bytes += (size_t)n;
	return s->got_bytes == RAW_BYTES;
}

static void test_bytes_and_digest(void **state)
{
	uint8_t ours[16], theirs[16];
	uint64_t raw_bytes, fed;
	struct scene s;
	char byte;

	scene_open(&s);
	assert_int_equal(nova_encoder_feed(s.encoder, s.raw, RAW_BYTES, &s.err), 0);
	assert_int_equal(nova_encoder_flush(s.encoder, true, &s.err), 0);
	LOOP_UNTIL(&s.loop, all_arrived(&s));
	assert_memory_equal(s.raw, s.got, RAW_BYTES);
	/* at once, without another turn of the loop: it waits for the child's word */
	nova_encoder_digest(s.encoder, ours, &fed);
	nova_pipe_child_digest_in(s.child, RAW_BYTES, theirs, &raw_bytes);
	assert_int_equal(raw_bytes, RAW_BYTES);
	assert_memory_equal(ours, theirs, 16);
	LOOP_UNTIL(&s.loop, s.end.consumed == s.sent_bytes);
	/* the way back */
	assert_int_equal(write(s.socket, "back", 4), 4);
	LOOP_UNTIL(&s.loop, s.end.back > 4);
	/* and both ends */
	s.end.events->closed(s.end.arg, NULL);
	LOOP_UNTIL(&s.loop, s.ended & NOVA_PIPE_TO_SOCKET);
	assert_int_equal(read(s.socket, &byte, 1), 0);
	shutdown(s.socket, SHUT_WR);
	LOOP_UNTIL(&s.loop, s.end.finished);
	scene_release(&s);
}

static void read_status(pid_t pid, char *text, size_t size)
{
	char path[64];
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	file = fopen(path, "r");
	assert_non_null(file);
	text[fread(text, 1, size - 1, file)] = 0;
	fclose(file);
}

static bool is_confined(pid_t pid)
{
	char text[4096];

	read_status(pid, text, sizeof(text));
	return strstr(text, "Seccomp:\t2") != NULL;
}

/* 0 to 2 are /dev/null, then the two sockets, and what the loop is made of. */
static void test_confined(void **state)
{
	char path[64], target[128], text[4096];
	int sockets = 0, files = 0;
	struct dirent *entry;
	struct scene s;
	pid_t pid;
	DIR *dir;

	scene_open(&s);
	pid = nova_pipe_child_pid(s.child);
	LOOP_UNTIL(&s.loop, is_confined(pid));
	read_status(pid, text, sizeof(text));
	assert_non_null(strstr(text, "NoNewPrivs:\t1"));
	snprintf(path, sizeof(path), "/proc/%d/fd", pid);
	dir = opendir(path);
	while ((entry = readdir(dir))) {
		ssize_t n = readlinkat(dirfd(dir), entry->d_name, target, sizeof(target) - 1);

		if (n < 0)
			continue;
		target[n] = 0;
		sockets += !strncmp(target, "socket:", 7);
		files += target[0] == '/' && strcmp(target, "/dev/null");
	}
	closedir(dir);
	assert_int_equal(sockets, 2);
	assert_int_equal(files, 0);
	scene_release(&s);
}

static void test_garbage_is_an_error(void **state)
{
	uint8_t garbage[300];
	struct scene s;

	scene_open(&s);
	memset(garbage, 0xee, sizeof(garbage));
	s.end.events->message(s.end.arg, garbage, sizeof(garbage));
	LOOP_UNTIL(&s.loop, s.calls);
	assert_int_equal(s.err.category, NOVA_INVALID);
	scene_release(&s);
}

static void test_killed_is_an_error(void **state)
{
	struct scene s;

	scene_open(&s);
	LOOP_UNTIL(&s.loop, is_confined(nova_pipe_child_pid(s.child)));
	kill(nova_pipe_child_pid(s.child), SIGKILL);
	LOOP_UNTIL(&s.loop, s.calls);
	assert_non_null(strstr(s.err.text, "the decoder's process was killed by signal 9"));
	scene_release(&s);
}

static void test_no_files(void **state)
{
	struct nova_pipe_options options = { .in.spool = (struct nova_spool *)&options };
	struct end end = { .channel.ops = &end_ops };
	struct nova_error err;
	struct loop loop;

	loop_init(&loop);
	assert_null(nova_pipe_child_new(loop.base, &links, open("/dev/null", O_RDWR), &end.channel, &options, on_pipe, NULL, &err));
	assert_true(end.freed);
	assert_int_equal(err.category, NOVA_INVALID);
	loop_release(&loop);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_bytes_and_digest),
		cmocka_unit_test(test_confined),
		cmocka_unit_test(test_garbage_is_an_error),
		cmocka_unit_test(test_killed_is_an_error),
		cmocka_unit_test(test_no_files),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
