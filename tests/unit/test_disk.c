/* SPDX-License-Identifier: Apache-2.0
 *
 * test_disk.c - a disk's way from an NBD client (the real qemu-img) to an NBD server (the real qemu-storage-daemon),
 * with and without an older copy at the destination, and what breaks it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <event2/buffer.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>

#include "engine/child.h"
#include "engine/cleanup.h"
#include "engine/disk_record.h"
#include "engine/nbd.h"
#include "engine/socket.h"
#include "tests/unit/channel_pair.h"
#include "tests/unit/loop.h"

#define DISK_BYTES (12u << 20)
#define WINDOW (1u << 20)

struct way {
	struct loop loop;
	char server_socket[96], client_socket[96], source[96], target[96], seed[96];
	pid_t server;
	uint64_t server_start;
	struct nova_disk_out *out;
	struct nova_disk_in *in;
	struct end *in_end; /* its channel's */
	bool in_finished;   /* when the end was told */
	struct event *listening;
	int listen_fd;
	int ready, ended_out, ended_in;
	struct nova_error why_out, why_in;
	struct answer copied;
};

/* ---- files ---- */

/* Random but for holes: every fourth MiB. */
static void write_disk(const char *path, unsigned seed, bool holes)
{
	static uint8_t mib[1 << 20];
	NOVA_AUTOCLOSE int fd = open(path, O_CREAT | O_TRUNC | O_WRONLY, 0600);

	assert_true(fd >= 0 && ftruncate(fd, DISK_BYTES) == 0);
	srandom(seed);
	for (unsigned i = 0; i < DISK_BYTES >> 20; i++) {
		for (size_t at = 0; at < sizeof(mib); at += 4) {
			int32_t value = (int32_t)random();
			memcpy(mib + at, &value, 4);
		}
		if (!holes || i % 4 != 3)
			assert_int_equal(pwrite(fd, mib, sizeof(mib), (off_t)i << 20), sizeof(mib));
	}
}

static void change_byte(const char *path, off_t at)
{
	NOVA_AUTOCLOSE int fd = open(path, O_RDWR);
	uint8_t byte;

	assert_int_equal(pread(fd, &byte, 1, at), 1);
	byte ^= 0x5a;
	assert_int_equal(pwrite(fd, &byte, 1, at), 1);
}

static bool same_files(const char *a, const char *b)
{
	static uint8_t one[1 << 16], two[1 << 16];
	NOVA_AUTOCLOSE int fd_a = open(a, O_RDONLY);
	NOVA_AUTOCLOSE int fd_b = open(b, O_RDONLY);
	ssize_t n;

	while ((n = read(fd_a, one, sizeof(one))) > 0)
		if (read(fd_b, two, sizeof(two)) != n || memcmp(one, two, (size_t)n))
			return false;
	return n == 0 && read(fd_b, two, 1) == 0;
}

/* ---- the scene ---- */

static void start_server(struct way *way, bool with_seed)
{
	char target[200], seed[200], server[200];
	const char *argv[] = { "qemu-storage-daemon", "--blockdev", target, "--nbd-server", server, "--export",
		"type=nbd,id=d,node-name=d,name=disk0,writable=on", with_seed ? "--blockdev" : NULL, seed, "--export",
		"type=nbd,id=s,node-name=s,name=seed-disk0,writable=off", NULL };
	struct nova_child_options options = { 0 };
	struct nova_error err;

	snprintf(target, sizeof(target), "driver=file,node-name=d,filename=%s,discard=unmap", way->target);
	snprintf(seed, sizeof(seed), "driver=file,node-name=s,filename=%s,read-only=on", way->seed);
	snprintf(server, sizeof(server), "addr.type=unix,addr.path=%s", way->server_socket);
	if (nova_child_spawn(argv, &options, NULL, &way->server, &way->server_start, &err) < 0)
		fail_msg("%s", err.text);
	LOOP_UNTIL(&way->loop, access(way->server_socket, F_OK) == 0);
}

static void stop_server(struct way *way)
{
	if (way->server) {
		kill(way->server, SIGKILL);
		waitpid(way->server, NULL, 0);
	}
	way->server = 0;
}

static void out_ready(void *arg)
{
	((struct way *)arg)->ready++;
}

static void out_ended(void *arg, const struct nova_error *err)
{
	struct way *way = arg;

	way->ended_out++;
	if (err)
		way->why_out = *err;
}

static void in_ended(void *arg, const struct nova_error *err)
{
	struct way *way = arg;

	way->ended_in++;
	way->in_finished = way->in_end->finished;
	if (err)
		way->why_in = *err;
}

static const struct nova_disk_events out_events = { out_ready, out_ended };
static const struct nova_disk_events in_events = { NULL, in_ended };

static void accepted(evutil_socket_t fd, short what, void *arg)
{
	struct way *way = arg;
	int client = nova_unix_accept(fd);
	struct nova_error err;

	if (client >= 0 && nova_disk_out_join(way->out, client, &err) < 0)
		fail_msg("%s", err.text);
}

static void way_open(struct way *way, bool with_seed)
{
	struct end *a, *b;
	struct nova_error err;

	a = end_new(way->loop.base, WINDOW);
	b = end_new(way->loop.base, WINDOW);
	a->peer = b;
	b->peer = a;
	way->in_end = b;
	way->out = nova_disk_out_new(
	    way->loop.base, &links, &a->channel, NOVA_CODEC_LZ4, &out_events, way, &err);
	assert_non_null(way->out);
	way->in = nova_disk_in_new(way->loop.base, &links, &b->channel, way->server_socket, "disk0",
	    with_seed ? "seed-disk0" : NULL, NULL, &in_events, way, &err);
	if (!way->in)
		fail_msg("%s", err.text);
	LOOP_UNTIL(&way->loop, way->ready || way->ended_in || way->ended_out);
	assert_int_equal(way->ready, 1);
	way->listen_fd = nova_unix_listen(way->client_socket, &err);
	assert_true(way->listen_fd >= 0);
	way->listening = event_new(way->loop.base, way->listen_fd, EV_READ | EV_PERSIST, accepted, way);
	event_add(way->listening, NULL);
}

static void way_begin(struct way *way, bool with_seed)
{
	memset(way, 0, sizeof(*way));
	loop_init(&way->loop);
	snprintf(way->server_socket, sizeof(way->server_socket), "%s/server", way->loop.dir);
	snprintf(way->client_socket, sizeof(way->client_socket), "%s/client", way->loop.dir);
	snprintf(way->source, sizeof(way->source), "%s/source", way->loop.dir);
	snprintf(way->target, sizeof(way->target), "%s/target", way->loop.dir);
	snprintf(way->seed, sizeof(way->seed), "%s/seed", way->loop.dir);
	write_disk(way->source, 1, true);
	write_disk(way->seed, 1, true);
	{
		NOVA_AUTOCLOSE int fd = open(way->target, O_CREAT | O_WRONLY, 0600);
		assert_int_equal(ftruncate(fd, DISK_BYTES), 0);
	}
	start_server(way, with_seed);
	way_open(way, with_seed);
}

/* Write the source's content through the way, as a mirror would. */
static void copy(struct way *way)
{
	char target[128];
	const char *argv[] = { "qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", way->source, target, NULL };
	struct nova_child_options options = { .limit_ms = 15000 };
	struct nova_error err;

	snprintf(target, sizeof(target), "nbd+unix:///?socket=%s", way->client_socket);
	if (!nova_child_run(way->loop.base, argv, &options, answer_done, &way->copied, &err))
		fail_msg("%s", err.text);
}

static void way_end(struct way *way)
{
	stop_server(way);
	nova_disk_out_free(way->out);
	nova_disk_in_free(way->in);
	event_free(way->listening);
	close(way->listen_fd);
	answer_release(&way->copied);
	unlink(way->server_socket);
	unlink(way->client_socket);
	unlink(way->source);
	unlink(way->target);
	unlink(way->seed);
	loop_release(&way->loop);
}

static void copy_all(struct way *way, struct nova_disk_stats *stats)
{
	uint8_t sent[16], got[16];
	uint64_t bytes_sent, bytes_got;
	struct nova_error err;

	copy(way);
	LOOP_UNTIL(&way->loop, way->copied.count && way->ended_out && way->ended_in);
	if (way->why_out.text[0] || way->why_in.text[0])
		fail_msg("%s; %s", way->why_out.text, way->why_in.text);
	if (nova_child_check("qemu-img", way->copied.result, &err) < 0)
		fail_msg("%s", err.text);
	nova_disk_out_digest(way->out, sent, &bytes_sent);
	nova_disk_in_digest(way->in, got, &bytes_got);
	assert_true(way->in_finished);
	assert_int_equal(bytes_sent, bytes_got);
	assert_memory_equal(sent, got, sizeof(sent));
	nova_disk_out_stats(way->out, stats);
}

/* ---- tests ---- */

static void test_whole(void **state)
{
	struct nova_disk_stats stats;
	struct way way;

	way_begin(&way, false);
	copy_all(&way, &stats);
	assert_true(same_files(way.source, way.target));
	assert_int_equal(stats.same_bytes, 0);
	assert_int_equal(stats.written_bytes, DISK_BYTES / 4 * 3);
	assert_true(stats.zero_bytes >= DISK_BYTES / 4);
	way_end(&way);
}

/* Two blocks differ: they are sent, all others are named. */
static void test_only_what_differs(void **state)
{
	struct nova_disk_stats stats;
	struct way way;

	way_begin(&way, true);
	change_byte(way.source, 70000);
	change_byte(way.source, 9 << 20);
	copy_all(&way, &stats);
	assert_true(same_files(way.source, way.target));
	assert_int_equal(stats.written_bytes, DISK_BYTES / 4 * 3);
	assert_int_equal(stats.same_bytes, stats.written_bytes - 2 * NOVA_DISK_BLOCK_MIN);
	assert_true(stats.pipe.out.encoded_bytes < 16 * NOVA_DISK_BLOCK_MIN);
	way_end(&way);
}

/* The older copy changes after its hashes were told: nothing of it is taken for what it was. */
static void test_older_copy_changes(void **state)
{
	struct way way;

	way_begin(&way, true);
	change_byte(way.seed, 5 << 20);
	copy(&way);
	LOOP_UNTIL(&way.loop, way.ended_in);
	assert_int_equal(way.why_in.category, NOVA_REFUSED);
	assert_non_null(strstr(way.why_in.text, "changed while it was used"));
	way.in = nova_disk_in_free(way.in);
	LOOP_UNTIL(&way.loop, way.ended_out);
	assert_true(way.why_out.text[0]);
	LOOP_UNTIL(&way.loop, way.copied.count); /* who writes is not kept waiting */
	way_end(&way);
}

static void test_server_dies(void **state)
{
	struct way way;

	way_begin(&way, false);
	stop_server(&way);
	LOOP_UNTIL(&way.loop, way.ended_in);
	assert_non_null(strstr(way.why_in.text, "closed disk disk0"));
	way_end(&way);
}

/* A client that goes away in the middle of a request. */
static void test_client_dies(void **state)
{
	struct evbuffer *words = evbuffer_new(), *answer = evbuffer_new();
	struct nova_nbd_request request = { .type = NOVA_NBD_WRITE, .length = 4096 };
	struct nova_nbd_client client = { .name = "" };
	struct nova_error err;
	struct way way;
	int fd, result = 0;

	way_begin(&way, false);
	fd = nova_unix_connect(way.client_socket, &err);
	assert_true(fd >= 0);
	while (result == 0) {
		loop_run_ms(&way.loop, 5);
		evbuffer_read(answer, fd, -1);
		result = nova_nbd_client_step(&client, answer, words, &err);
		evbuffer_write(words, fd);
	}
	assert_int_equal(result, 1);
	assert_int_equal(client.export.size_bytes, DISK_BYTES);
	nova_nbd_request_put(words, &request);
	evbuffer_add(words, "half", 4);
	evbuffer_write(words, fd);
	close(fd);
	LOOP_UNTIL(&way.loop, way.ended_out);
	assert_non_null(strstr(way.why_out.text, "closed the disk's connection"));
	evbuffer_free(words);
	evbuffer_free(answer);
	way_end(&way);
}

static void test_requests_are_bounded(void **state)
{
	static const struct nova_nbd_request bad[] = {
		{ .type = NOVA_NBD_WRITE, .offset = 1 << 20, .length = 1 },
		{ .type = NOVA_NBD_WRITE, .offset = UINT64_MAX, .length = 4096 },
		{ .type = NOVA_NBD_WRITE_ZEROES, .offset = 0, .length = (1 << 20) + 1 },
		{ .type = NOVA_NBD_READ, .offset = (1 << 20) - 1, .length = 2 },
	};
	struct evbuffer *buffer = evbuffer_new();
	struct nova_nbd_request request;
	struct nova_error err;

	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		nova_nbd_request_put(buffer, &bad[i]);
		assert_int_equal(nova_nbd_request_get(buffer, 1 << 20, &request, &err), -1);
		evbuffer_drain(buffer, evbuffer_get_length(buffer));
	}
	nova_nbd_request_put(buffer, &(struct nova_nbd_request) { .type = NOVA_NBD_WRITE, .length = 1 << 20 });
	assert_int_equal(nova_nbd_request_get(buffer, 1 << 20, &request, &err), 1);
	assert_int_equal(request.length, 1 << 20);
	assert_int_equal(nova_nbd_request_get(buffer, 1 << 20, &request, &err), 0);
	evbuffer_free(buffer);
}

static void test_references_are_bounded(void **state)
{
	static const uint32_t bad[][2] = { { 8, 1 }, { 7, 2 }, { 0, 0 }, { 0, 9 }, { UINT32_MAX, 2 }, { 1, UINT32_MAX } };
	struct evbuffer *buffer = evbuffer_new();
	struct disk_record record;
	uint32_t first, count;
	struct nova_error err;

	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		disk_same_put(buffer, bad[i][0], bad[i][1]);
		assert_int_equal(disk_record_get(buffer, &record, &err), 1);
		assert_int_equal(disk_same_get(buffer, record.length, 8, &first, &count, &err), -1);
	}
	disk_same_put(buffer, 7, 1);
	assert_int_equal(disk_record_get(buffer, &record, &err), 1);
	assert_int_equal(disk_same_get(buffer, record.length, 8, &first, &count, &err), 0);
	disk_record_put(buffer, DISK_DATA, DISK_RECORD_MAX + 1);
	assert_int_equal(disk_record_get(buffer, &record, &err), -1);
	evbuffer_free(buffer);
}

static void test_block_sizes(void **state)
{
	assert_int_equal(disk_block_bytes(0), 4096);
	assert_int_equal(disk_block_bytes(8ull << 30), 4096);
	assert_int_equal(disk_block_bytes((8ull << 30) + 4096), 8192);
	assert_int_equal(disk_block_bytes(64ull << 30), 32768);
	assert_int_equal(disk_block_bytes(1ull << 40), 512 << 10);
	assert_int_equal(disk_block_bytes(INT64_MAX), 2 << 20);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_whole),
		cmocka_unit_test(test_only_what_differs),
		cmocka_unit_test(test_older_copy_changes),
		cmocka_unit_test(test_server_dies),
		cmocka_unit_test(test_client_dies),
		cmocka_unit_test(test_requests_are_bounded),
		cmocka_unit_test(test_references_are_bounded),
		cmocka_unit_test(test_block_sizes),
	};

	if (system("command -v qemu-storage-daemon && command -v qemu-img") != 0)
		return 77; /* the Debian packages qemu-system-common and qemu-utils */
	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
