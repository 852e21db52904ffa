/* SPDX-License-Identifier: Apache-2.0
 *
 * test_shaper.c - the emulated link: the rate is exact, late callers are made good, order is kept, the queue
 * is bounded, and a hole lets nothing through.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "perf/shaper.h"
#include "perf/tcpreset.h"

#define MS UINT64_C(1000000)
#define START (1000 * MS)

static const uint8_t bytes[1500];

static struct shaper *link_of(uint64_t rate_bps, uint64_t delay_ns)
{
	struct shaper *shaper = malloc(sizeof(*shaper));

	shaper_init(shaper, 7);
	shaper->shape.rate_bps = rate_bps;
	shaper->shape.delay_ns = delay_ns;
	return shaper;
}

static void drop_link(struct shaper *shaper)
{
	shaper_release(shaper);
	free(shaper);
}

static size_t arrived(struct shaper *shaper, uint64_t now_ns)
{
	struct packet *packet;
	size_t count = 0;

	for (; (packet = shaper_take(shaper, now_ns)); count++)
		free(packet);
	return count;
}

/* 8 Mbit/s and 1000 bytes a packet: one each millisecond, 20 ms after it left. */
static void test_rate_and_delay(void **state)
{
	struct shaper *shaper = link_of(8000000, 20 * MS);

	shaper->free_ns = START;
	for (int i = 0; i < 50; i++)
		shaper_put(shaper, START, bytes, 500, 1000);
	assert_int_equal(shaper_due(shaper), START + 21 * MS);
	assert_int_equal(arrived(shaper, START + 21 * MS - 1), 0);
	assert_int_equal(arrived(shaper, START + 30 * MS), 10);
	assert_int_equal(arrived(shaper, START + 70 * MS), 40);
	assert_int_equal(shaper_due(shaper), UINT64_MAX);
	assert_int_equal(shaper->passed_bytes, 50000);
	drop_link(shaper);
}

/* A caller that comes every 3 ms still gets the whole rate; one that was away for a second does not get it
 * all. */
static void test_late_caller(void **state)
{
	struct shaper *shaper = link_of(8000000, 0);

	shaper->free_ns = START;
	for (int turn = 0; turn < 100; turn++)
		for (int i = 0; i < 3; i++)
			shaper_put(shaper, START + (turn + 1) * 3 * MS, bytes, 500, 1000);
	assert_int_equal(arrived(shaper, START + 300 * MS), 300);
	for (int i = 0; i < 60; i++)
		shaper_put(shaper, START + 1300 * MS, bytes, 500, 1000);
	assert_int_equal(arrived(shaper, START + 1300 * MS), SHAPER_SLACK_NS / MS);
	drop_link(shaper);
}

static void test_jitter_keeps_order(void **state)
{
	struct shaper *shaper = link_of(0, 10 * MS);
	struct packet *packet;
	uint64_t last_ns = 0;
	bool varies = false;

	shaper->shape.jitter_ns = 5 * MS;
	for (unsigned char i = 0; i < 200; i++)
		shaper_put(shaper, START + i * MS, &i, 1, 1);
	for (unsigned char i = 0; i < 200; i++) {
		packet = shaper_take(shaper, UINT64_MAX);
		assert_int_equal(packet->data[0], i);
		assert_true(packet->due_ns >= last_ns);
		assert_in_range(packet->due_ns - START - i * MS, 5 * MS, 15 * MS);
		varies |= packet->due_ns - START - i * MS != 10 * MS;
		last_ns = packet->due_ns;
		free(packet);
	}
	assert_true(varies);
	drop_link(shaper);
}

static void test_queue_is_bounded(void **state)
{
	struct shaper *shaper = link_of(8000000, 0);

	shaper->shape.queue_bytes = 20000;
	shaper->free_ns = START;
	for (int i = 0; i < 100; i++)
		shaper_put(shaper, START, bytes, 500, 1000);
	assert_int_equal(shaper->overflowed, 80);
	assert_int_equal(arrived(shaper, UINT64_MAX), 20);
	drop_link(shaper);
}

static void test_loss(void **state)
{
	struct shaper *shaper = link_of(0, 0);

	shaper->shape.loss = 0.1;
	for (int i = 0; i < 10000; i++)
		shaper_put(shaper, START, bytes, 1, 1);
	assert_in_range(shaper->lost, 800, 1200);
	assert_int_equal(arrived(shaper, START), 10000 - shaper->lost);
	drop_link(shaper);
}

static void test_hole(void **state)
{
	struct shaper *shaper = link_of(0, 10 * MS);

	shaper_put(shaper, START, bytes, 100, 100);
	shaper->shape.hole = true;
	shaper_put(shaper, START, bytes, 100, 100);
	assert_int_equal(arrived(shaper, START + 20 * MS), 0);
	shaper->shape.hole = false;
	shaper_put(shaper, START + 20 * MS, bytes, 100, 100);
	assert_int_equal(arrived(shaper, START + 40 * MS), 1);
	drop_link(shaper);
}

/* A TCP packet from .1:1000 to .2:2000 (or back), sequence 5, acknowledging 9. */
static void make_tcp(uint8_t packet[40], bool back, uint8_t flags)
{
	static const uint8_t there[40] = { 0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2,
		0x03, 0xe8, 0x07, 0xd0, 0, 0, 0, 5, 0, 0, 0, 9, 0x50 };

	memcpy(packet, there, 40);
	packet[33] = flags;
	if (back) {
		memcpy(packet + 12, there + 16, 4);
		memcpy(packet + 16, there + 12, 4);
		memcpy(packet + 20, there + 22, 2);
		memcpy(packet + 22, there + 20, 2);
	}
}

static void test_reset(void **state)
{
	enum {
		SYN = 2,
		RST = 4,
		ACK = 16
	};
	struct tcpreset *table = calloc(1, sizeof(*table));
	uint8_t packet[40], answer[TCPRESET_BYTES];

	make_tcp(packet, false, ACK);
	assert_int_equal(tcpreset_see(table, packet, 40, answer), 0);
	tcpreset_all(table);
	make_tcp(packet, true, ACK);
	assert_int_equal(tcpreset_see(table, packet, 40, answer), TCPRESET_BYTES);
	assert_memory_equal(answer + 12, packet + 16, 4);
	assert_memory_equal(answer + 16, packet + 12, 4);
	assert_memory_equal(answer + 24, packet + 28, 4);
	assert_int_equal(answer[33], RST);
	make_tcp(packet, false, RST);
	assert_int_equal(tcpreset_see(table, packet, 40, answer), -1);
	make_tcp(packet, false, SYN);
	assert_int_equal(tcpreset_see(table, packet, 40, answer), 0);
	make_tcp(packet, false, ACK);
	assert_int_equal(tcpreset_see(table, packet, 40, answer), 0);
	for (size_t length = 0; length < 40; length++)
		assert_int_equal(tcpreset_see(table, packet, length, answer), 0);
	free(table);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rate_and_delay),
		cmocka_unit_test(test_late_caller),
		cmocka_unit_test(test_jitter_keeps_order),
		cmocka_unit_test(test_queue_is_bounded),
		cmocka_unit_test(test_loss),
		cmocka_unit_test(test_hole),
		cmocka_unit_test(test_reset),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
