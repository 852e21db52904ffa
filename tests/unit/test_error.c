/* SPDX-License-Identifier: Apache-2.0
 *
 * test_error.c - the error value: one-line raising, prefixes, cutting, NULL.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <errno.h>
#include <string.h>

#include "engine/novacron.h"

static void test_set_and_prefix(void **state)
{
	struct nova_error err;

	assert_int_equal(nova_error_set(&err, NOVA_REFUSED, "no room for %d", 3), -1);
	assert_int_equal(nova_error_prefix(&err, "guest %s", "g1"), -1);
	assert_int_equal(err.category, NOVA_REFUSED);
	assert_string_equal(err.text, "guest g1: no room for 3");
}

static void test_sys_keeps_errno(void **state)
{
	struct nova_error err;

	nova_error_sys(&err, ENOENT, "open %s", "x");
	assert_int_equal(err.category, NOVA_SYSTEM);
	assert_int_equal(err.errnum, ENOENT);
	assert_string_equal(err.text, "open x: No such file or directory");
}

static void test_long_text_is_cut(void **state)
{
	struct nova_error err;
	char big[2000];

	memset(big, 'a', sizeof(big) - 1);
	big[sizeof(big) - 1] = 0;
	nova_error_set(&err, NOVA_INVALID, "%s", big);
	nova_error_prefix(&err, "%s", big);
	assert_int_equal(strlen(err.text), sizeof(err.text) - 1);
	assert_int_equal(nova_error_set(NULL, NOVA_INVALID, "nobody listens"), -1);
}

static void test_cut_characters_are_mended(void **state)
{
	struct nova_error err;

	nova_error_set(&err, NOVA_INVALID, "'%.2s' and \xff", "a\xc3\xa9");
	assert_string_equal(err.text, "'a?' and ?");
	nova_error_set(&err, NOVA_INVALID, "%s", "na\xc3\xafve");
	assert_string_equal(err.text, "na\xc3\xafve");
}

static void test_category_names(void **state)
{
	assert_string_equal(nova_category_name(NOVA_LINK), "link");
	assert_string_equal(nova_category_name((enum nova_category)99), "unknown");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_set_and_prefix),
		cmocka_unit_test(test_sys_keeps_errno),
		cmocka_unit_test(test_long_text_is_cut),
		cmocka_unit_test(test_cut_characters_are_mended),
		cmocka_unit_test(test_category_names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
