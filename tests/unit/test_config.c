/* SPDX-License-Identifier: Apache-2.0
 *
 * test_config.c - typed texts and JSON values of every type of parameter, the daemon's options with their
 * defaults, configuration files with peers; and that every error names the option, what was wrong and what
 * is accepted, and for files the line.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/novacron.h"

/* ---- parameters ---- */

static const struct nova_param size = { "size", NOVA_T_BYTES };
static const struct nova_param rate = { "bandwidth", NOVA_T_RATE };
static const struct nova_param wait = { "wait", NOVA_T_DURATION, .min = 10, .max = 60000 };
static const struct nova_param count = { "vcpus", NOVA_T_INT, .min = 1, .max = 64 };
static const struct nova_param any = { "offset", NOVA_T_INT };
static const struct nova_param flag = { "force", NOVA_T_BOOL };
static const struct nova_param mode = { "mode", NOVA_T_CHOICE, .choices = "live|warm|cold" };
static const struct nova_param name = { "name", NOVA_T_STRING };
static const struct nova_param path = { "disk", NOVA_T_PATH };
static const struct nova_param list = { "root", NOVA_T_LIST };
static const struct nova_param json = { "spec", NOVA_T_JSON };

static void test_numbers(void **state)
{
	static const struct {
		const struct nova_param *param;
		const char *text;
		json_int_t value;
	} rows[] = {
		{ &size, "0", 0 },
		{ &size, "512M", 512ll << 20 },
		{ &size, "2GiB", 2ll << 30 },
		{ &size, "1.5k", 1536 },
		{ &size, "1 t", 1ll << 40 },
		{ &size, "7b", 7 },
		{ &rate, "200M", 200000000 },
		{ &rate, "1Gbit", 1000000000 },
		{ &rate, "0", 0 },
		{ &rate, "2.5gbit/s", 2500000000 },
		{ &rate, "10k", 10000 },
		{ &wait, "300ms", 300 },
		{ &wait, "15s", 15000 },
		{ &wait, "1min", 60000 },
		{ &wait, "2", 2000 },
		{ &wait, "0.5s", 500 },
		{ &count, "1", 1 },
		{ &count, "64", 64 },
		{ &any, "-5", -5 },
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
		struct nova_error err = { 0 };
		json_t *value = nova_param_parse(rows[i].param, rows[i].text, &err);

		if (!value || json_integer_value(value) != rows[i].value)
			fail_msg("%s: %lld, expected %lld (%s)", rows[i].text,
			    (long long)json_integer_value(value), (long long)rows[i].value, err.text);
		assert_int_equal(nova_param_check(rows[i].param, value, &err), 0);
		json_decref(value);
	}
}

static void test_wrong_texts_say_what_is_accepted(void **state)
{
	static const struct {
		const struct nova_param *param;
		const char *text, *error;
	} rows[] = {
		{ &rate, "fast", "bandwidth: 'fast' is not a rate: try 200M, 1Gbit or 0 for no limit" },
		{ &rate, "", "bandwidth: '' is not a rate: try 200M, 1Gbit or 0 for no limit" },
		{ &rate, "200MB", "bandwidth: '200MB' is not a rate: try 200M, 1Gbit or 0 for no limit" },
		{ &rate, "-1", "bandwidth: '-1' is not a rate: try 200M, 1Gbit or 0 for no limit" },
		{ &rate, "1e3", "bandwidth: '1e3' is not a rate: try 200M, 1Gbit or 0 for no limit" },
		{ &size, "12 apples",
		    "size: '12 apples' is not a size: try 512M, 2GiB or a number of bytes" },
		{ &size, "0x10", "size: '0x10' is not a size: try 512M, 2GiB or a number of bytes" },
		{ &size, "1.2.3", "size: '1.2.3' is not a size: try 512M, 2GiB or a number of bytes" },
		{ &size, "99999999999T",
		    "size: '99999999999T' is not a size: try 512M, 2GiB or a number of bytes" },
		{ &size, "nan", "size: 'nan' is not a size: try 512M, 2GiB or a number of bytes" },
		{ &wait, "soon", "wait: 'soon' is not a time: try 300ms, 15s, 5min or 2h" },
		{ &wait, "2h", "wait: 7200000 is out of range: 10 to 60000 ms" },
		{ &wait, "9ms", "wait: 9 is out of range: 10 to 60000 ms" },
		{ &count, "two", "vcpus: 'two' is not a number: try a whole number" },
		{ &count, "2.5", "vcpus: '2.5' is not a number: try a whole number" },
		{ &count, "99999999999999999999",
		    "vcpus: '99999999999999999999' is not a number: try a whole number" },
		{ &flag, "maybe", "force: 'maybe' is not yes or no: try yes, no, on, off, true or false" },
		{ &mode, "hot", "mode: 'hot' is not one of the choices: try live|warm|cold" },
		{ &mode, "liv", "mode: 'liv' is not one of the choices: try live|warm|cold" },
		{ &mode, "live|warm", "mode: 'live|warm' is not one of the choices: try live|warm|cold" },
		{ &mode, "", "mode: '' is not one of the choices: try live|warm|cold" },
		{ &path, "", "disk: '' is not a path: try the name of a file" },
		{ &name, "\xff", "name: '...' is not UTF-8 text: try text in UTF-8" },
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
		struct nova_error err = { 0 };

		if (nova_param_parse(rows[i].param, rows[i].text, &err))
			fail_msg("'%s' was accepted", rows[i].text);
		assert_string_equal(err.text, rows[i].error);
		assert_int_equal(err.category, NOVA_INVALID);
	}
}

static void same(const struct nova_param *param, const char *text, json_t *expected)
{
	json_t *value = nova_param_parse(param, text, NULL);

	assert_non_null(value);
	assert_true(json_equal(value, expected));
	assert_int_equal(nova_param_check(param, value, NULL), 0);
	json_decref(value);
	json_decref(expected);
}

static void test_other_types(void **state)
{
	struct nova_error err;

	same(&flag, "Yes", json_true());
	same(&flag, "", json_true()); /* --force */
	same(&flag, "off", json_false());
	same(&mode, "cold", json_string("cold"));
	same(&name, "", json_string(""));
	same(&name, "\xc3\xa4", json_string("\xc3\xa4"));
	same(&path, "/a b", json_string("/a b"));
	same(&list, "/a", json_pack("[s]", "/a"));
	same(&json, "{\"a\": [1]}", json_pack("{s:[i]}", "a", 1));
	same(&json, "\"text\"", json_string("text"));
	assert_null(nova_param_parse(&json, "{\"a\": 1, \"a\": 2}", &err));
	assert_null(nova_param_parse(&json, "{\"a\": ", &err));
	assert_int_equal(strncmp(err.text, "spec: {\"a\": : ", 14), 0);
	assert_null(nova_param_parse(&json, "/no/such/file", &err));
	assert_non_null(strstr(err.text, "/no/such/file"));
}

static void test_json_values(void **state)
{
	const struct {
		const struct nova_param *param;
		json_t *value;
		const char *error; /* NULL: fine */
	} rows[] = {
		{ &size, json_integer(5), NULL },
		{ &size, json_string("5"), "size: must be a number of bytes" },
		{ &size, json_integer(-1), "size: must be 0 or more" },
		{ &rate, json_real(1.5), "bandwidth: must be a number of bits a second" },
		{ &wait, json_integer(5), "wait: 5 is out of range: 10 to 60000 ms" },
		{ &wait, json_null(), "wait: must be a number of milliseconds" },
		{ &count, json_integer(65), "vcpus: 65 is out of range: 1 to 64" },
		{ &flag, json_integer(1), "force: must be true or false" },
		{ &mode, json_string("hot"), "mode: must be one of live|warm|cold" },
		{ &mode, json_true(), "mode: must be one of live|warm|cold" },
		{ &name, json_integer(1), "name: must be a text" },
		{ &path, json_array(), "disk: must be a text" },
		{ &list, json_string("/a"), "root: must be an array" },
		{ &list, json_pack("[s,i]", "/a", 1), "root: must be an array of texts or objects" },
		{ &list, json_array(), NULL },
		{ &json, json_null(), NULL },
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
		struct nova_error err = { 0 };

		assert_int_equal(
		    nova_param_check(rows[i].param, rows[i].value, &err), rows[i].error ? -1 : 0);
		if (rows[i].error)
			assert_string_equal(err.text, rows[i].error);
		json_decref(rows[i].value);
	}
}

/* ---- configuration ---- */

struct fixture {
	struct nova_config *config;
	struct nova_error err;
	char path[64];
};

static void has(struct fixture *f, const char *option, json_t *expected)
{
	const json_t *value = nova_config_get(f->config, option);
	char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);

	if (!json_equal(value, expected))
		fail_msg("%s is %s", option, text ? text : "not set");
	free(text);
	json_decref(expected);
}

static void set(struct fixture *f, const char *option, const char *text)
{
	if (nova_config_set(f->config, option, text, &f->err) < 0)
		fail_msg("%s", f->err.text);
}

static void refused(struct fixture *f, const char *option, const char *text, const char *error)
{
	assert_int_equal(nova_config_set(f->config, option, text, &f->err), -1);
	assert_int_equal(f->err.category, NOVA_INVALID);
	assert_string_equal(f->err.text, error);
}

static void test_defaults(void **state)
{
	struct fixture *f = *state;
	char host[256] = "";

	gethostname(host, sizeof(host) - 1);
	has(f, "name", json_string(host));
	has(f, "state-dir", json_string("/var/lib/novacron"));
	has(f, "roots", json_pack("[s]", "/var/lib/novacron/images"));
	has(f, "resume-limit", json_integer(300000));
	has(f, "max-guests", json_integer(256));
	has(f, "bandwidth", json_integer(0));
	has(f, "sandbox", json_true());
	has(f, "peers", json_object());
	assert_null(nova_config_get(f->config, "listen"));
	assert_null(nova_config_get(f->config, "no such option"));
	set(f, "state-dir", "/srv/nova");
	has(f, "roots", json_pack("[s]", "/srv/nova/images")); /* follows */
}

/* Every row of the table is usable: a unique name, help, a default that its own parser takes. */
static void test_the_table(void **state)
{
	size_t rows;
	const struct nova_param *params = nova_config_params(&rows);

	assert_true(rows > 20);
	for (size_t i = 0; i < rows; i++) {
		json_t *value;

		assert_non_null(params[i].help);
		assert_true(strlen(params[i].name) <= 32);
		for (size_t j = 0; j < i; j++)
			assert_string_not_equal(params[i].name, params[j].name);
		if (!params[i].fallback)
			continue;
		value = nova_param_parse(&params[i], params[i].fallback, NULL);
		assert_non_null(value);
		json_decref(value);
	}
}

static void test_setting(void **state)
{
	struct fixture *f = *state;

	set(f, "bandwidth", "100M");
	has(f, "bandwidth", json_integer(100000000));
	set(f, "bandwidth", "1Gbit");
	has(f, "bandwidth", json_integer(1000000000));
	set(f, "roots", "/a");
	set(f, "roots", "/b");
	has(f, "roots", json_pack("[s,s]", "/a", "/b"));
	refused(f, "bandwidth", "fast", "bandwidth: 'fast' is not a rate: try 200M, 1Gbit or 0 for no limit");
	has(f, "bandwidth", json_integer(1000000000)); /* as it was */
	refused(f, "accel", "hvf", "accel: 'hvf' is not one of the choices: try auto|kvm|tcg");
	refused(f, "listen", "a\xff:1", "'a?:1' is not UTF-8");
	refused(f, "max-guests", "-1", "max-guests: -1 is out of range: 0 to 1000000");
}

static void test_unknown_options_name_the_nearest(void **state)
{
	struct fixture *f = *state;

	refused(f, "bandwith", "1M", "there is no option 'bandwith': did you mean bandwidth?");
	refused(f, "max-guest", "1", "there is no option 'max-guest': did you mean max-guests?");
	refused(f, "statedir", "/x", "there is no option 'statedir': did you mean state-dir?");
	refused(f, "colour", "red", "there is no option 'colour': see novacrond --help");
	refused(f, "", "red", "there is no option '': see novacrond --help");
	refused(f, "a-name-that-is-longer-than-any-option-there-could-be", "x",
	    "there is no option 'a-name-that-is-longer-than-any-option-there-could-be': see novacrond "
	    "--help");
}

static void test_peers(void **state)
{
	struct fixture *f = *state;

	set(f, "peer", "beta=10.0.0.2:7654");
	set(f, "peer", "beta=[fe80::1]:7654,b.example:1");
	set(f, "peer", "gamma=g:1");
	has(f, "peers",
	    json_pack("{s:{s:[s,s,s],s:s}, s:{s:[s],s:s}}", "beta", "address", "10.0.0.2:7654",
	        "[fe80::1]:7654", "b.example:1", "certificate-name", "beta", "gamma", "address", "g:1",
	        "certificate-name", "gamma"));
	refused(f, "peer", "beta", "peer: 'beta' is not NAME=HOST:PORT[,HOST:PORT]");
	refused(f, "peer", "a/b=x:1", "peer: 'a/b' is not a name: 1 to 63 of A-Z a-z 0-9 - _ .");
	refused(f, "peer", "=x:1", "peer: '' is not a name: 1 to 63 of A-Z a-z 0-9 - _ .");
	refused(f, "peer", "delta=", "peer: there is no address: try HOST:PORT[,HOST:PORT]");
}

static void test_owners(void **state)
{
	struct fixture *f = *state;

	set(f, "owner", "bob:max-memory=4G");
	set(f, "owner", "bob:max-guests=2");
	set(f, "owner", "*:max-vcpus=8");
	has(f, "owners",
	    json_pack("{s:{s:I,s:i}, s:{s:i}}", "bob", "max-memory", (json_int_t)4 << 30, "max-guests", 2, "*", "max-vcpus", 8));
	refused(f, "owner", "bob", "owner: 'bob' is not NAME:LIMIT=VALUE");
	refused(f, "owner", "a=b:max-guests=1", "owner: 'a=b:max-guests=1' is not NAME:LIMIT=VALUE");
}

static int load(struct fixture *f, const char *text)
{
	FILE *file = fopen(f->path, "we");

	assert_non_null(file);
	fputs(text, file);
	fclose(file);
	return nova_config_load(f->config, f->path, &f->err);
}

static void test_files(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(load(f, "# hosts\n\n"
	                         "name = alpha   # this one\n"
	                         "  bandwidth=200M\r\n"
	                         "roots = /a#b\n"
	                         "roots = /c d\n"
	                         "[peer beta]\n"
	                         "address = 10.0.0.2:7654, 10.0.1.2:7654\n"
	                         "certificate-name = beta.example\n"
	                         "[ignored]"),
	    -1);
	assert_non_null(
	    strstr(f->err.text, ":10: '[ignored]' is not a section: [peer NAME] and [owner NAME] are known"));
	has(f, "name", json_string("alpha"));
	has(f, "bandwidth", json_integer(200000000));
	has(f, "roots", json_pack("[s,s]", "/a#b", "/c d"));
	has(f, "peers",
	    json_pack("{s:{s:[s,s],s:s}}", "beta", "address", "10.0.0.2:7654", "10.0.1.2:7654",
	        "certificate-name", "beta.example"));
	assert_int_equal(load(f, ""), 0);
	assert_int_equal(load(f, "max-vcpus = 4"), 0); /* no end of line */
	has(f, "max-vcpus", json_integer(4));
}

static void test_errors_name_file_and_line(void **state)
{
	static const struct {
		const char *text, *error;
	} rows[] = {
		{ "name = a\n\nbandwith = 1M\n",
		    ":3: there is no option 'bandwith': did you mean bandwidth?" },
		{ "name\n", ":1: 'name' is not name = value" },
		{ "bandwidth = fast\n",
		    ":1: bandwidth: 'fast' is not a rate: try 200M, 1Gbit or 0 for no limit" },
		{ "[peer a b]\n", ":1: peer: 'a b' is not a name: 1 to 63 of A-Z a-z 0-9 - _ ." },
		{ "[peer a\n", ":1: '[peer a' is not a section: [peer NAME] and [owner NAME] are known" },
		{ "[peer a]\nport = 1\n",
		    ":2: [peer a] has no option 'port': address and certificate-name are known" },
		{ "[peer a]\naddress =\n", ":2: peer: there is no address: try HOST:PORT[,HOST:PORT]" },
		{ "[peer a]\ncertificate-name = \n", ":2: certificate-name: must be a name in UTF-8" },
		{ "[owner a b]\n", ":1: owner: 'a b' is not a name: 1 to 63 letters without [ ] = :" },
		{ "[owner bob]\nmax-fun = 1\n",
		    ":2: [owner bob] has no option 'max-fun': max-guests, max-memory, max-vcpus, max-disk and max-migrations are known" },
		{ "[peer a]\naddress = \xff\n", ":2: peer: an address is not text in UTF-8" },
	};
	struct fixture *f = *state;

	for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
		assert_int_equal(load(f, rows[i].text), -1);
		assert_int_equal(strncmp(f->err.text, f->path, strlen(f->path)), 0);
		assert_string_equal(f->err.text + strlen(f->path), rows[i].error);
		assert_int_equal(f->err.category, NOVA_INVALID);
	}
	assert_int_equal(nova_config_load(f->config, "/no/such/file", &f->err), -1);
	assert_int_equal(f->err.errnum, ENOENT);
	assert_int_equal(nova_config_load(f->config, "/tmp", &f->err), -1);
	assert_int_equal(f->err.errnum, EISDIR);
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	f->config = nova_config_new();
	assert_non_null(f->config);
	strcpy(f->path, "/tmp/nova-test-XXXXXX");
	close(mkstemp(f->path));
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	assert_null(nova_config_free(f->config));
	unlink(f->path);
	free(f);
	return 0;
}

#define T(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_numbers),
		cmocka_unit_test(test_wrong_texts_say_what_is_accepted),
		cmocka_unit_test(test_other_types),
		cmocka_unit_test(test_json_values),
		T(test_defaults),
		cmocka_unit_test(test_the_table),
		T(test_setting),
		T(test_unknown_options_name_the_nearest),
		T(test_peers),
		T(test_owners),
		T(test_files),
		T(test_errors_name_file_and_line),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
