/* SPDX-License-Identifier: Apache-2.0
 *
 * test_transport_frames.c - the parts that need no socket: headers and greetings with every limit broken,
 * inbox and outbox over lanes that reorder, repeat and die, the bucket, depth of JSON.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "transport/link.h"

/* ---- headers ---- */

static void test_headers(void **state)
{
	static const struct {
		struct frame_header header;
		bool good;
	} rows[] = {
		{ { 5, FRAME_DATA, FRAME_END, 3, 77 }, true },
		{ { FRAME_PAYLOAD_MAX, FRAME_DATA, 0x10, 3, 0 }, true },
		{ { 0, FRAME_DATA, FRAME_FIN, 3, 77 }, true },
		{ { 12, FRAME_ACK, 0, 0, 77 }, true },
		{ { 8, FRAME_PING, 0, 0, 0 }, true },
		{ { FRAME_PAYLOAD_MAX + 1, FRAME_DATA, 0, 3, 0 }, false },
		{ { 0, FRAME_DATA, 0, 3, 0 }, false },
		{ { 1, FRAME_DATA, FRAME_FIN, 3, 0 }, false },
		{ { 0, FRAME_DATA, FRAME_FIN | FRAME_END, 3, 0 }, false },
		{ { 1, FRAME_DATA, 0x40, 3, 0 }, false },
		{ { 1, FRAME_DATA, 0, 3, UINT64_MAX }, false },
		{ { 11, FRAME_ACK, 0, 0, 0 }, false },
		{ { 12, FRAME_ACK, 1, 0, 0 }, false },
		{ { 9, FRAME_PING, 0, 0, 0 }, false },
		{ { 1, 0, 0, 0, 0 }, false },
		{ { 1, FRAME_TYPES, 0, 0, 0 }, false },
		{ { FRAME_HELLO_MAX + 1, FRAME_HELLO, 0, 0, 0 }, false },
		{ { UINT32_MAX, FRAME_REFUSE, 0, 0, 0 }, false },
	};
	uint8_t bytes[FRAME_HEADER_BYTES];
	struct frame_header got;
	struct nova_error err;

	for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
		frame_put_header(bytes, &rows[i].header);
		if ((frame_get_header(bytes, &got, &err) == 0) != rows[i].good)
			fail_msg("row %zu", i);
		if (rows[i].good)
			assert_true(got.length == rows[i].header.length && got.type == rows[i].header.type &&
			            got.flags == rows[i].header.flags &&
			            got.channel == rows[i].header.channel &&
			            got.offset == rows[i].header.offset);
	}
	/* Byte by byte, as PROTOCOL.md says. */
	frame_put_header(bytes, &(struct frame_header) { 0x010203, FRAME_DATA, FRAME_END, 0x0405, 0x060708 });
	assert_memory_equal(bytes, "\x00\x01\x02\x03\x05\x01\x04\x05\x00\x00\x00\x00\x00\x06\x07\x08", 16);
}

static void test_hello(void **state)
{
	struct frame_hello hello = { .version_min = 1,
		.version_max = 3,
		.lane = 9,
		.known = true,
		.resume_limit_ms = 300000,
		.channel_count = 2 };
	uint8_t bytes[FRAME_HELLO_MAX], broken[FRAME_HELLO_MAX];
	struct frame_hello got;
	struct nova_error err;
	size_t length;

	memset(hello.session, 0xab, sizeof(hello.session));
	hello.channels[1] = (struct frame_channel) { 7, NOVA_CHANNEL_DISK, { 1000, 900, FRAME_WINDOW_MAX } };
	length = frame_put_hello(bytes, &hello);
	assert_int_equal(length, 36 + 2 * 23);
	assert_int_equal(frame_get_hello(bytes, length, &got, &err), 0);
	assert_true(got.known && !got.alone && got.lane == 9 && got.version_max == 3 &&
	            got.channels[1].ack.received == 1000);
	for (size_t cut = 0; cut < length; cut++)
		assert_int_equal(frame_get_hello(bytes, cut, &got, &err), -1);
	for (size_t i = 0; i < 4; i++) {
		memcpy(broken, bytes, length);
		broken[i] ^= 1;
		assert_int_equal(frame_get_hello(broken, length, &got, &err), -1);
	}
	memcpy(broken, bytes, length);
	broken[35]++; /* one channel more than there is */
	assert_int_equal(frame_get_hello(broken, length, &got, &err), -1);
	hello.channels[1].ack.consumed = 1001; /* more than received */
	assert_int_equal(frame_get_hello(bytes, frame_put_hello(bytes, &hello), &got, &err), -1);
	hello.channels[1].ack.consumed = 0;
	hello.channels[1].kind = 9;
	assert_int_equal(frame_get_hello(bytes, frame_put_hello(bytes, &hello), &got, &err), -1);
	hello.channels[1].kind = NOVA_CHANNEL_CONTROL; /* only channel 0 is that */
	assert_int_equal(frame_get_hello(bytes, frame_put_hello(bytes, &hello), &got, &err), -1);
}

/* ---- outbox to inbox over bad lanes ---- */

#define LANES 4
#define POST 64

struct post { /* a frame on its way */
	struct frame_header header;
	uint8_t *data;
};
struct line {
	struct outbox out;
	struct inbox in;
	struct post lanes[LANES + 1][POST];
	size_t count[LANES + 1];
	uint64_t written, read, sizes[4096];
	size_t messages_written, messages_read;
	bool fin;
};

static uint8_t byte_at(uint64_t at)
{
	return (uint8_t)(at * 2654435761u >> 13);
}

static bool line_message(void *arg, const uint8_t *data, size_t length)
{
	struct line *line = arg;

	assert_int_equal(length, line->sizes[line->messages_read++]);
	for (size_t i = 0; i < length; i++)
		assert_int_equal(data[i], byte_at(line->read + i));
	line->read += length;
	return true;
}

static bool line_fin(void *arg)
{
	((struct line *)arg)->fin = true;
	return false;
}

static const struct inbox_events line_events = { line_message, line_fin };

static void line_write(struct line *line, size_t length)
{
	struct nova_buf *buf = nova_buf_new(length);

	for (size_t i = 0; i < length; i++)
		buf->data[i] = byte_at(line->written + i);
	buf->length = (uint32_t)length;
	line->written += length;
	line->sizes[line->messages_written++] = length;
	outbox_add(&line->out, buf);
}

static void line_send(struct line *line, uint32_t lane)
{
	struct segment *segment;
	struct post *post = &line->lanes[lane][line->count[lane]];

	if (line->count[lane] == POST || !outbox_ready(&line->out))
		return;
	segment = outbox_take(&line->out, lane, 1 + (uint32_t)rand() % 9000);
	assert_non_null(segment);
	post->header = (struct frame_header) { segment->buf ? segment->span : 0, FRAME_DATA,
		(uint8_t)((segment->end ? FRAME_END : 0) | (segment->buf ? 0 : FRAME_FIN)), 5,
		segment->offset };
	post->data = malloc(segment->span);
	if (segment->buf)
		memcpy(post->data, segment->buf->data + segment->within, segment->span);
	line->count[lane]++;
}

static void line_drop(struct line *line, uint32_t lane, size_t from)
{
	for (size_t i = from; i < line->count[lane]; i++)
		free(line->lanes[lane][i].data);
	line->count[lane] = from;
}

static void line_arrive(struct line *line, uint32_t lane)
{
	struct post post = line->lanes[lane][0];
	struct nova_buf *buf;
	struct nova_error err;

	if (!line->count[lane])
		return;
	memmove(line->lanes[lane], line->lanes[lane] + 1, --line->count[lane] * sizeof(post));
	buf = nova_buf_new(post.header.length + (size_t)rand() % 5000);
	memcpy(buf->data, post.data, post.header.length);
	if (inbox_add(&line->in, &post.header, &buf, &line_events, line, &err) < 0)
		fail_msg("%s", err.text);
	nova_buf_free(buf);
	free(post.data);
}

static void line_ack(struct line *line)
{
	struct nova_error err;
	struct frame_ack ack;

	inbox_consumed(&line->in, (size_t)(line->read - line->in.consumed));
	ack = inbox_ack(&line->in);
	assert_int_equal(outbox_ack(&line->out, &ack, &err), 0);
}

/* Some of what was on the lane arrives, the rest is lost and goes again. */
static void line_lose(struct line *line, uint32_t lane)
{
	line_drop(line, lane, line->count[lane] ? (size_t)rand() % line->count[lane] : 0);
	while (line->count[lane])
		line_arrive(line, lane);
	if (rand() % 2)
		line_ack(line);
	outbox_lane_lost(&line->out, lane, UINT64_MAX);
}

static void run_line(unsigned seed)
{
	struct line *line = calloc(1, sizeof(*line));
	struct nova_buf *spare;

	srand(seed);
	outbox_init(&line->out);
	inbox_init(&line->in);
	line->in.window = line->in.limit = line->out.limit = 100000;
	while (!line->fin || !outbox_all_received(&line->out)) {
		uint32_t lane = 1 + (uint32_t)rand() % LANES;

		switch (rand() % 12) {
		case 0:
			if (line->messages_written < 400)
				line_write(line, 1 + (size_t)rand() % (rand() % 4 ? 300 : 20000));
			else
				outbox_finish(&line->out);
			break;
		case 1:
			line_ack(line);
			break;
		case 2:
			if (rand() % 8 == 0)
				line_lose(line, lane);
			break;
		case 3 ... 7:
			line_send(line, lane);
			break;
		default:
			line_arrive(line, lane);
		}
	}
	assert_true(line->read == line->written);
	assert_int_equal(line->messages_read, line->messages_written);
	assert_null(line->out.head);
	assert_null(line->out.segments);
	assert_int_equal(line->out.lost_count, 0);
	for (uint32_t lane = 1; lane <= LANES; lane++)
		line_drop(line, lane, 0);
	spare = line->in.partial;
	assert_null(spare);
	outbox_release(&line->out);
	inbox_release(&line->in);
	free(line);
}

static void test_every_byte_once_over_bad_lanes(void **state)
{
	for (unsigned seed = 1; seed <= 30; seed++)
		run_line(seed);
}

static int add_frame(struct inbox *inbox, uint64_t offset, uint32_t length, uint8_t flags)
{
	struct frame_header header = { length, FRAME_DATA, flags, 5, offset };
	struct nova_buf *buf = nova_buf_new(65536);
	struct nova_error err;
	int result;

	memset(buf->data, 7, length);
	result = inbox_add(inbox, &header, &buf, &(struct inbox_events) { 0 }, NULL, &err);
	nova_buf_free(buf);
	return result;
}

static void test_inbox_limits(void **state)
{
	struct nova_error err;
	struct outbox outbox;
	struct inbox inbox;
	int result = 0;

	inbox_init(&inbox);
	assert_int_equal(add_frame(&inbox, FRAME_WINDOW_START - 10, 11, 0), -1);
	assert_int_equal(add_frame(&inbox, UINT64_MAX / 2, 60000, 0), -1);
	assert_int_equal(add_frame(&inbox, UINT64_MAX / 2, 0, FRAME_FIN), -1);
	/* Frames ahead of a hole: a bounded number, each once. */
	for (uint32_t i = 0; i < FRAME_UNACKED_MAX; i++)
		assert_int_equal(add_frame(&inbox, 1 + 2 * i, 1, 0), 0);
	assert_int_equal(add_frame(&inbox, 1, 1, 0), 0);
	assert_int_equal(inbox.early_count, FRAME_UNACKED_MAX);
	assert_int_equal(add_frame(&inbox, 100000, 1, 0), -1);
	inbox_release(&inbox);
	/* A message without end. */
	inbox_init(&inbox);
	for (uint64_t at = 0; at < 600000 && result == 0; at += 60000)
		result = add_frame(&inbox, at, 60000, 0);
	assert_int_equal(result, -1);
	inbox_release(&inbox);
	outbox_init(&outbox);
	assert_int_equal(outbox_ack(&outbox, &(struct frame_ack) { 1, 0, 0 }, &err), -1);
	outbox_release(&outbox);
}

/* What never left a connection that died is not counted as sent again. */
static void test_sent_again_or_late(void **state)
{
	struct outbox outbox;
	struct nova_error err;

	outbox_init(&outbox);
	for (int i = 0; i < 3; i++) {
		struct nova_buf *buf = nova_buf_new(100);

		buf->length = 100;
		outbox_add(&outbox, buf);
		outbox_take(&outbox, 1, 1000)->at = (uint64_t)(i + 1) * 130;
	}
	assert_int_equal(outbox_ack(&outbox, &(struct frame_ack) { 100, 0, 4096 }, &err), 0);
	outbox_lane_lost(&outbox, 1, 300); /* the second has left, the third but for a part */
	assert_true(outbox_take(&outbox, 2, 1000)->resent);
	assert_false(outbox_take(&outbox, 2, 1000)->resent);
	assert_null(outbox_take(&outbox, 2, 1000));
	outbox_release(&outbox);
}

/* ---- the bucket ---- */

static void run_bucket(uint64_t rate_bps, uint64_t step_ns, size_t frame, double least, double most)
{
	struct bucket bucket = { 0 };
	uint64_t now = 1, sent = 0, end = 10000000000ull;

	bucket_set(&bucket, rate_bps, now);
	for (; now < end; now += step_ns) {
		while (bucket_ready(&bucket, now)) {
			bucket_take(&bucket, frame);
			sent += frame;
		}
	}
	if ((double)sent * 8 * 1500 / 1448 / 10 < (double)rate_bps * least ||
	    (double)sent * 8 * 1500 / 1448 / 10 > (double)rate_bps * most)
		fail_msg("%llu bit/s wanted, %f sent", (unsigned long long)rate_bps,
		    (double)sent * 8 * 1500 / 1448 / 10);
}

static void test_bucket(void **state)
{
	struct bucket bucket = { 0 };

	run_bucket(1000000, 5000000, 2070, 0.99, 1.01);
	run_bucket(100000000, 5000000, 65600, 0.99, 1.01);
	run_bucket(10000000000ull, 5000000, 65600, 0.99, 1.01);
	run_bucket(100000000, 60000000, 65600, 0.97, 1.01); /* a loop that wakes late */
	assert_true(bucket_ready(&bucket, 5));              /* no limit */
	bucket_set(&bucket, 8000000, 1000);
	assert_true(bucket_ready(&bucket, 1000000001000ull));
	assert_true(bucket.tokens <= 20001); /* 20 ms after a long pause */
	bucket_take(&bucket, 10000000);
	bucket_set(&bucket, 80000000, 1000000001001ull);
	assert_true(bucket_wait_ns(&bucket) <= 20000001); /* the old debt does not outlive the old rate */
}

static void test_depth(void **state)
{
	char deep[200], flat[] = "{\"a\":\"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[\\\"[[[\",\"b\":[{},{}]}";

	memset(deep, '[', sizeof(deep));
	assert_false(request_depth_ok(deep, 33));
	assert_true(request_depth_ok(deep, 32));
	assert_true(request_depth_ok(flat, sizeof(flat) - 1));
	assert_true(request_depth_ok("\"\\", 2));
	assert_false(request_depth_ok("\"\\\\\"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[", 37));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_headers),
		cmocka_unit_test(test_hello),
		cmocka_unit_test(test_every_byte_once_over_bad_lanes),
		cmocka_unit_test(test_inbox_limits),
		cmocka_unit_test(test_sent_again_or_late),
		cmocka_unit_test(test_bucket),
		cmocka_unit_test(test_depth),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
