/* SPDX-License-Identifier: Apache-2.0
 *
 * test_cursor.c - wire cursor: round trips, the edges, and that one bad read spoils all later ones.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "engine/cursor.h"
#include "engine/flow.h"

static void test_round_trip(void **state)
{
	uint8_t wire[64];
	struct nova_writer w = nova_writer_of(wire, sizeof(wire));
	struct nova_cursor c;

	nova_put_u8(&w, 0x12);
	nova_put_u16(&w, 0x3456);
	nova_put_u32(&w, 0x789abcde);
	nova_put_u64(&w, 0x1122334455667788);
	nova_put_varint(&w, 300);
	nova_put_varint(&w, UINT64_MAX);
	nova_put_zigzag(&w, -2);
	nova_put_zigzag(&w, INT64_MIN);
	nova_put_bytes(&w, "abc", 3);
	assert_false(w.bad);
	assert_memory_equal(wire, "\x12\x34\x56\x78\x9a\xbc\xde\x11", 8);

	c = nova_cursor_of(wire, nova_writer_used(&w));
	assert_int_equal(nova_get_u8(&c), 0x12);
	assert_int_equal(nova_get_u16(&c), 0x3456);
	assert_int_equal(nova_get_u32(&c), 0x789abcde);
	assert_true(nova_get_u64(&c) == 0x1122334455667788);
	assert_int_equal(nova_get_varint(&c), 300);
	assert_true(nova_get_varint(&c) == UINT64_MAX);
	assert_true(nova_get_zigzag(&c) == -2);
	assert_true(nova_get_zigzag(&c) == INT64_MIN);
	assert_memory_equal(nova_get_bytes(&c, 3), "abc", 3);
	assert_int_equal(nova_cursor_left(&c), 0);
	assert_false(c.bad);
}

static void test_short_reads_spoil(void **state)
{
	struct nova_cursor c = nova_cursor_of("\x01\x02\x03", 3);
	struct nova_cursor part;

	assert_int_equal(nova_get_u32(&c), 0);
	assert_true(c.bad);
	assert_int_equal(nova_get_u8(&c), 0); /* there is one, but the record is broken already */
	assert_int_equal(nova_cursor_left(&c), 0);

	c = nova_cursor_of("\x01\x02\x03", 3);
	part = nova_get_part(&c, 2);
	assert_int_equal(nova_get_u16(&part), 0x0102);
	assert_false(part.bad);
	part = nova_get_part(&c, 2);
	assert_true(part.bad && c.bad);
	assert_null(nova_get_bytes(&part, 0));
}

static void test_varint_bounds(void **state)
{
	struct nova_cursor c = nova_cursor_of("\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", 10);

	nova_get_varint(&c); /* 65 bits */
	assert_true(c.bad);
	c = nova_cursor_of("\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x00", 11);
	nova_get_varint(&c); /* too long */
	assert_true(c.bad);
	c = nova_cursor_of("\x80", 1);
	nova_get_varint(&c);
	assert_true(c.bad);
}

static void test_full_writer(void **state)
{
	uint8_t wire[4] = { 9, 9, 9, 9 };
	struct nova_writer w = nova_writer_of(wire, 3);

	nova_put_u16(&w, 1);
	nova_put_u16(&w, 2);
	assert_true(w.bad);
	assert_int_equal(nova_writer_used(&w), 2);
	nova_put_u8(&w, 3);
	assert_int_equal(nova_writer_used(&w), 2);
	assert_int_equal(wire[2], 9);
	assert_int_equal(wire[3], 9);
}

static void test_buf(void **state)
{
	struct nova_buf *buf = nova_buf_new(NOVA_MESSAGE_MAX);

	assert_non_null(buf);
	assert_int_equal(buf->capacity, NOVA_MESSAGE_MAX);
	assert_int_equal(buf->length, 0);
	memset(buf->data - NOVA_BUF_HEADROOM, 0xaa, NOVA_BUF_HEADROOM + NOVA_MESSAGE_MAX);
	assert_null(nova_buf_free(buf));
	assert_null(nova_buf_new(NOVA_MESSAGE_MAX + 1));
	assert_null(nova_buf_free(NULL));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_short_reads_spoil),
		cmocka_unit_test(test_varint_bounds),
		cmocka_unit_test(test_full_writer),
		cmocka_unit_test(test_buf),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
