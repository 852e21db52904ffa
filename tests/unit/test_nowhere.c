/* SPDX-License-Identifier: Apache-2.0
 *
 * test_nowhere.c - the receiver of a postcopy that is taken back, against what QEMU 7.2 says.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "drivers/kvm/nowhere.h"
#include "engine/cleanup.h"

#include <event2/buffer.h>
#include <string.h>

static const char blocks_text[] = "              Block Name    PSize              Offset               Used              Total\r\n"
				  "                  pc.ram    4 KiB  0x0000000000000000 0x0000000000048000 0x0000000010000000\r\n"
				  "    /rom@etc/acpi/tables    4 KiB  0x0000000011100000 0x0000000000020000 0x0000000000200000\r\n";

struct talk {
	struct evbuffer *in, *out;
	json_t *blocks;
};

static int set_up(void **state)
{
	static struct talk talk;

	talk = (struct talk) { evbuffer_new(), evbuffer_new(), kvm_nowhere_blocks(blocks_text) };
	*state = &talk;
	return 0;
}

static int tear_down(void **state)
{
	struct talk *talk = *state;

	evbuffer_free(talk->in);
	evbuffer_free(talk->out);
	json_decref(talk->blocks);
	return 0;
}

static int hears(struct talk *talk, const void *bytes, size_t length)
{
	evbuffer_add(talk->in, bytes, length);
	return kvm_nowhere_talk(talk->blocks, talk->in, talk->out);
}

static void answers(struct talk *talk, const void *bytes, size_t length)
{
	assert_int_equal(evbuffer_get_length(talk->out), length);
	assert_memory_equal(evbuffer_pullup(talk->out, -1), bytes, length);
	evbuffer_drain(talk->out, length);
}

static void test_blocks(void **state)
{
	struct talk *talk = *state;

	assert_int_equal(json_object_size(talk->blocks), 2);
	assert_int_equal(json_integer_value(json_object_get(talk->blocks, "pc.ram")), 0x48000);
	assert_int_equal(json_integer_value(json_object_get(talk->blocks, "/rom@etc/acpi/tables")), 0x20000);
	NOVA_AUTOJSON json_t *none = kvm_nowhere_blocks("");
	assert_int_equal(json_object_size(none), 0);
}

static const uint8_t ask_ram[] = { 8, 0, 10, 0, 7, 6, 'p', 'c', '.', 'r', 'a', 'm' }, resume[] = { 8, 0, 9, 0, 0 };

/* 72 pages: two words of bitmap. */
static void test_whole_dialogue(void **state)
{
	static const uint8_t received[] = { 0, 5, 0, 7, 6, 'p', 'c', '.', 'r', 'a', 'm', 0, 0, 0, 0, 0, 0, 0, 16, 0xff, 0xff, 0xff, 0xff,
		0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef },
			     end[] = { 0, 6, 0, 4, 0, 0, 0, 1, 0, 1, 0, 4, 0, 0, 0, 0 };
	struct talk *talk = *state;

	for (size_t i = 0; i < sizeof(ask_ram); i++) {
		assert_int_equal(evbuffer_get_length(talk->out), 0);
		assert_int_equal(hears(talk, ask_ram + i, 1), 0);
	}
	answers(talk, received, sizeof(received));
	assert_int_equal(hears(talk, resume, sizeof(resume)), 1);
	answers(talk, end, sizeof(end));
}

static void test_what_follows_is_dropped(void **state)
{
	struct talk *talk = *state;
	uint8_t bytes[sizeof(resume) + 1000] = { 0 };

	memcpy(bytes, resume, sizeof(resume));
	assert_int_equal(hears(talk, bytes, sizeof(bytes)), 1);
	assert_int_equal(evbuffer_get_length(talk->in), 0);
}

static void test_other_commands_are_passed_over(void **state)
{
	static const uint8_t ping[] = { 8, 0, 2, 0, 4, 0, 0, 0, 7 };
	struct talk *talk = *state;

	assert_int_equal(hears(talk, ping, sizeof(ping)), 0);
	assert_int_equal(evbuffer_get_length(talk->in), 0);
	assert_int_equal(evbuffer_get_length(talk->out), 0);
}

static void test_nonsense(void **state)
{
	static const uint8_t no_command[] = { 5, 0, 0, 0, 0 }, stranger[] = { 8, 0, 10, 0, 3, 2, 'n', 'o' }, lies[] = { 8, 0, 10, 0, 3, 9, 'n', 'o' },
			     nothing[] = { 8, 0, 10, 0, 0 };
	static const struct {
		const uint8_t *bytes;
		size_t length;
	} all[] = { { no_command, sizeof(no_command) }, { stranger, sizeof(stranger) }, { lies, sizeof(lies) }, { nothing, sizeof(nothing) } };
	struct talk *talk = *state;

	for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++) {
		assert_int_equal(hears(talk, all[i].bytes, all[i].length), -1);
		assert_int_equal(evbuffer_get_length(talk->out), 0);
		evbuffer_drain(talk->in, evbuffer_get_length(talk->in));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_blocks, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_whole_dialogue, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_what_follows_is_dropped, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_other_commands_are_passed_over, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_nonsense, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
