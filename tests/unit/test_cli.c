/* SPDX-License-Identifier: Apache-2.0
 *
 * test_cli.c - the command line without a daemon: parsing by tables, help, manual pages, completion, and how
 * numbers, tables and the progress line look.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "tools/cli.h"
#include "tools/exitcode.h"
#include "tools/format.h"
#include "tools/help.h"
#include "tools/progress.h"
#include "tools/suggest.h"
#include "tools/table.h"
#include "tools/views.h"

/* ---- tables to parse by ------------------------------------------------------------------------- */

static const struct nova_param create_params[] = {
	{ .name = "name",
	    .type = NOVA_T_STRING,
	    .required = true,
	    .positional = true,
	    .metavar = "NAME",
	    .help = "name of the guest" },
	{ .name = "driver",
	    .type = NOVA_T_CHOICE,
	    .choices = "kvm|lxc",
	    .fallback = "kvm",
	    .help = "what runs it" },
	{ .name = "spec", .type = NOVA_T_JSON, .help = "its specification" },
	{ 0 },
};
static const struct nova_param migrate_params[] = {
	{ .name = "guest",
	    .type = NOVA_T_STRING,
	    .required = true,
	    .positional = true,
	    .metavar = "GUEST",
	    .help = "which guest" },
	{ .name = "to", .type = NOVA_T_STRING, .required = true, .metavar = "PEER", .help = "where to" },
	{ .name = "mode",
	    .type = NOVA_T_CHOICE,
	    .choices = "live|warm|cold",
	    .fallback = "live",
	    .help = "how" },
	{ .name = "bandwidth", .type = NOVA_T_RATE, .metavar = "RATE", .help = "most bits a second" },
	{ .name = "wait", .type = NOVA_T_BOOL, .help = "wait for it" },
	{ .name = "downtime",
	    .type = NOVA_T_DURATION,
	    .fallback = "300ms",
	    .min = 1,
	    .max = 60000,
	    .help = "longest pause" },
	{ 0 },
};
static const struct nova_param names_params[] = {
	{ .name = "names",
	    .type = NOVA_T_LIST,
	    .positional = true,
	    .metavar = "GUEST",
	    .help = "which guests" },
	{ .name = "tag", .type = NOVA_T_LIST, .metavar = "TAG", .help = "only with this tag" },
	{ .name = "file", .type = NOVA_T_PATH, .help = "a file" },
	{ 0 },
};
static const struct nova_param kvm_params[] = {
	{ .name = "memory",
	    .type = NOVA_T_BYTES,
	    .fallback = "256M",
	    .min = 1 << 20,
	    .max = INT64_MAX,
	    .help = "memory" },
	{ .name = "disk", .type = NOVA_T_LIST, .metavar = "FILE", .help = "a disk" },
	{ 0 },
};
static const struct nova_param lxc_params[] = {
	{ .name = "rootfs", .type = NOVA_T_PATH, .help = "its root" },
	{ 0 },
};
static const struct nova_command commands[] = {
	{ .name = "create", .help = "define a guest", .params = create_params },
	{ .name = "migrate", .help = "move a guest", .params = migrate_params, .job = true },
	{ .name = "list", .help = "list guests", .params = names_params },
	{ .name = "secret", .help = "for programs", .params = names_params, .hidden = true },
};
static const struct nova_command local[] = { { .name = "relay", .help = "alone", .params = names_params },
	{ 0 } };

static const struct nova_param *driver_params(const char *driver, size_t *count)
{
	const struct nova_param *params = !strcmp(driver, "kvm")   ? kvm_params
	                                  : !strcmp(driver, "lxc") ? lxc_params
	                                                           : NULL;

	*count = args_count(params);
	return params;
}

static const char *driver_name(size_t index)
{
	return index == 0 ? "kvm" : index == 1 ? "lxc" : NULL;
}

static const struct cli_tables tables = { commands, sizeof(commands) / sizeof(commands[0]), local,
	driver_params, driver_name };

/* Words separated by blanks; the answer is in cli, to be released. */
static int parse(struct cli *cli, const char *line, struct nova_error *err)
{
	static char copy[512];
	char *words[32], *save = NULL;
	int count = 0;

	snprintf(copy, sizeof(copy), "%s", line);
	for (char *word = strtok_r(copy, " ", &save); word; word = strtok_r(NULL, " ", &save))
		words[count++] = word;
	memset(err, 0, sizeof(*err));
	return cli_parse(cli, &tables, words, count, err);
}

static void parses(const char *line, const char *args)
{
	json_t *expected = json_loads(args, 0, NULL);
	struct nova_error err;
	struct cli cli;

	if (parse(&cli, line, &err) < 0)
		fail_msg("%s: %s", line, err.text);
	assert_non_null(expected);
	if (!json_equal(cli.args, expected))
		fail_msg("%s gave %s", line, json_dumps(cli.args, 0));
	json_decref(expected);
	cli_release(&cli);
}

static void refuses(const char *line, const char *why)
{
	struct nova_error err;
	struct cli cli;

	assert_int_equal(parse(&cli, line, &err), -1);
	assert_int_equal(err.category, NOVA_INVALID);
	if (!strstr(err.text, why))
		fail_msg("%s: \"%s\" does not say \"%s\"", line, err.text, why);
	cli_release(&cli);
}

static void test_arguments(void **state)
{
	parses("migrate web1 --to beta", "{\"guest\":\"web1\",\"to\":\"beta\"}");
	parses("migrate --to=beta --bandwidth 200M web1",
	    "{\"guest\":\"web1\",\"to\":\"beta\",\"bandwidth\":200000000}");
	parses("migrate web1 --to beta --wait", "{\"guest\":\"web1\",\"to\":\"beta\",\"wait\":true}");
	parses(
	    "migrate web1 --to beta --wait --no-wait", "{\"guest\":\"web1\",\"to\":\"beta\",\"wait\":false}");
	parses("migrate web1 --to beta --wait=false", "{\"guest\":\"web1\",\"to\":\"beta\",\"wait\":false}");
	parses("migrate web1 --to beta --to gamma", "{\"guest\":\"web1\",\"to\":\"gamma\"}");
	parses("migrate --to beta -- --odd", "{\"guest\":\"--odd\",\"to\":\"beta\"}");
	parses("migrate - --to beta", "{\"guest\":\"-\",\"to\":\"beta\"}");
	parses("list a b --tag x c --tag y", "{\"names\":[\"a\",\"b\",\"c\"],\"tag\":[\"x\",\"y\"]}");
	parses("list", "{}");
}

static void test_refusals(void **state)
{
	refuses("migrate web1", "--to is missing");
	refuses("migrate --to beta", "GUEST is missing");
	refuses("migrate web1 --to", "--to needs a value: PEER");
	refuses("migrate web1 --to beta extra", "unexpected argument \"extra\"");
	refuses("migrate web1 --to beta --mode hot", "live|warm|cold");
	refuses("migrate web1 --to beta --bandwith 1M", "did you mean --bandwidth?");
	refuses("migrate web1 --to beta --zzz", "unknown option --zzz");
	refuses("migrate web1 -t beta", "options are written --name");
	refuses("migrate web1 --to beta --no-mode", "unknown option --no-mode");
	refuses("create g --rootfs /x", "unknown option --rootfs");
	refuses("create g --spec [1] --memory 1M", "--spec must be a JSON object");
	refuses("migrte web1", "did you mean migrate?");
	refuses("secre", "novacron --help");
	refuses("qqqqq", "novacron --help");
	refuses("--sock x list", "did you mean --socket?");
}

static void test_spec_of_the_driver(void **state)
{
	parses("create g", "{\"name\":\"g\"}");
	parses("create g --memory 1G --disk a --disk b",
	    "{\"name\":\"g\",\"spec\":{\"memory\":1073741824,\"disk\":[\"a\",\"b\"]}}");
	parses("create g --driver lxc --rootfs /r",
	    "{\"name\":\"g\",\"driver\":\"lxc\",\"spec\":{\"rootfs\":\"/r\"}}");
	parses("create g --rootfs /r --driver=lxc",
	    "{\"name\":\"g\",\"driver\":\"lxc\",\"spec\":{\"rootfs\":\"/r\"}}");
	parses("create g --spec {\"memory\":1,\"x\":2} --memory 1M",
	    "{\"name\":\"g\",\"spec\":{\"memory\":1048576,\"x\":2}}");
}

static void test_own_options(void **state)
{
	struct nova_error err;
	struct cli cli;

	assert_int_equal(parse(&cli, "--socket /a list --json x", &err), 0);
	assert_string_equal(cli.command->name, "list");
	assert_true(cli_wants(&cli, "json"));
	assert_string_equal(json_string_value(json_object_get(cli.options, "socket")), "/a");
	cli_release(&cli);
	assert_int_equal(parse(&cli, "migrate web1 --to b --detach", &err), 0);
	assert_true(cli_wants(&cli, "detach"));
	cli_release(&cli);
	assert_int_equal(parse(&cli, "migrate --help", &err), 0);
	assert_true(cli_wants(&cli, "help"));
	cli_release(&cli);
	assert_int_equal(parse(&cli, "help migrate", &err), 0);
	assert_true(cli_wants(&cli, "help"));
	assert_string_equal(cli.command->name, "migrate");
	cli_release(&cli);
	refuses("list --detach", "unknown option --detach");
}

/* ---- text that is printed ----------------------------------------------------------------------- */

#define PRINTED(into, call)                                                                                  \
	do {                                                                                                 \
		char *text_ = NULL;                                                                          \
		size_t size_;                                                                                \
		FILE *out = open_memstream(&text_, &size_);                                                  \
		call;                                                                                        \
		fclose(out);                                                                                 \
		snprintf(into, sizeof(into), "%s", text_);                                                   \
		free(text_);                                                                                 \
	} while (0)

static void holds(const char *text, const char *part)
{
	if (!strstr(text, part))
		fail_msg("no \"%s\" in:\n%s", part, text);
}

static void test_help(void **state)
{
	struct nova_error err;
	char text[8192];
	struct cli cli;

	assert_int_equal(parse(&cli, "--help", &err), 0);
	PRINTED(text, cli_help(out, &cli));
	holds(text, "  migrate      move a guest\n");
	holds(text, "  relay        alone\n");
	assert_null(strstr(text, "secret"));
	cli_release(&cli);
	assert_int_equal(parse(&cli, "migrate --help", &err), 0);
	PRINTED(text, cli_help(out, &cli));
	holds(text, "usage: novacron migrate GUEST --to PEER [options]\n");
	holds(text, "--downtime TIME             longest pause (default 300ms; 1ms to 1min)\n");
	holds(text, "--mode live|warm|cold       how (default live)\n");
	holds(text, "--detach");
	cli_release(&cli);
	assert_int_equal(parse(&cli, "create --help --driver kvm", &err), 0);
	PRINTED(text, cli_help(out, &cli));
	holds(text,
	    "options of the driver kvm:\n  --memory SIZE               memory (default 256M; 1M or more)\n");
	cli_release(&cli);
}

static int section(FILE *out, const char *name)
{
	return cli_man_section(out, &tables, name);
}

static void test_man_page(void **state)
{
	char page[] = ".TH NOVACRON 1 \"@VERSION@\"\n@COMMANDS@\n@EXIT@\nend\n", text[16384];
	FILE *in = fmemopen(page, sizeof(page) - 1, "r");

	PRINTED(text, assert_int_equal(help_man_page(in, out, "1.2.3", section), 0));
	fclose(in);
	holds(text, ".TH NOVACRON 1 \"1.2.3\"\n");
	holds(text, ".SS \"migrate GUEST --to PEER [options]\"\nmove a guest.\n");
	holds(text, "\\fB\\-\\-to\\fR \\fIPEER\\fR\n");
	holds(text, ".B \\-\\-driver lxc\n");
	holds(text, ".B 8\na migration is in doubt");
	holds(text, "\nend\n");
	PRINTED(text, help_man_text(out, ".a-b\\c"));
	assert_string_equal(text, "\\&.a\\-b\\ec");
	in = fmemopen("@NOTHING@\n", 10, "r");
	PRINTED(text, assert_int_equal(help_man_page(in, out, "1", section), -1));
	fclose(in);
}

static void names(void *arg, FILE *out, const char *metavar)
{
	fprintf(out, "a-%s\n", metavar);
}

static void completes(const char *line, const char *expected)
{
	char copy[256], text[1024], *words[16], *save = copy;
	int count = 0;

	snprintf(copy, sizeof(copy), "%s", line);
	for (char *word; (word = strsep(&save, " ")); count++)
		words[count] = word;
	PRINTED(text, cli_complete(out, &tables, words, count, names, NULL));
	if (strcmp(text, expected))
		fail_msg("\"%s\" completes to:\n%s", line, text);
}

static void test_completion(void **state)
{
	completes("m", "create\nmigrate\nlist\nrelay\nhelp\n");
	completes("--json ", "create\nmigrate\nlist\nrelay\nhelp\n");
	completes("help ", "create\nmigrate\nlist\nrelay\nhelp\n");
	completes("-", "--socket\n--host\n--client-config\n--cert\n--key\n--ca\n--json\n--help\n--version\n");
	completes("--socket ", "@files\n");
	completes("migrate ", "a-GUEST\n");
	completes("migrate x --to ", "a-PEER\n");
	completes("migrate --to b ", "a-GUEST\n");
	completes("--socket /x migrate x --mode ", "live\nwarm\ncold\n");
	completes("migrate x --mo",
	    "--to\n--mode\n--bandwidth\n--wait\n--downtime\n--detach\n--socket\n--host\n--client-config\n--cert\n--key\n--ca\n--json\n--help\n--version\n");
	completes("create x --driver ", "kvm\nlxc\n");
	completes("create x --disk ", "@files\n");
	completes(
	    "create x --driver lxc --r", "--driver\n--spec\n--rootfs\n--socket\n--host\n--client-config\n--cert\n--key\n--ca\n--json\n--help\n--version\n");
	completes("list a b ", "a-GUEST\n");
	completes("list --file ", "@files\n");
	completes("nonsense ", "");
}

static void test_suggestions(void **state)
{
	static const struct {
		const char *typed, *candidate;
		bool near;
	} rows[] = {
		{ "lst", "list", true },
		{ "ilst", "list", true },
		{ "listt", "list", true },
		{ "band", "bandwidth", true },
		{ "migarte", "migrate", true },
		{ "stop", "start", false },
		{ "x", "list", false },
		{ "snapshoot", "snapshot", true },
		{ "", "list", false },
		{ "ba", "bandwidth", false },
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct suggestion best = { 0 };
		suggest_offer(&best, rows[i].typed, rows[i].candidate);
		if ((best.name != NULL) != rows[i].near)
			fail_msg("%s and %s", rows[i].typed, rows[i].candidate);
	}
}

static void test_units(void **state)
{
	assert_string_equal(format_bytes(0).s, "0 B");
	assert_string_equal(format_bytes(1023).s, "1023 B");
	assert_string_equal(format_bytes(1024).s, "1 KiB");
	assert_string_equal(format_bytes(1536).s, "1.50 KiB");
	assert_string_equal(format_bytes(268435456).s, "256 MiB");
	assert_string_equal(format_bytes(1048575).s, "1 MiB");
	assert_string_equal(format_bytes(13.37 * 1073741824).s, "13.4 GiB");
	assert_string_equal(format_rate(0).s, "0 bit/s");
	assert_string_equal(format_rate(200e6).s, "200 Mbit/s");
	assert_string_equal(format_rate(999999).s, "1 Mbit/s");
	assert_string_equal(format_rate(2.5e9).s, "2.50 Gbit/s");
	assert_string_equal(format_duration(0).s, "0 ms");
	assert_string_equal(format_duration(1.54).s, "1.5 ms");
	assert_string_equal(format_duration(85).s, "85 ms");
	assert_string_equal(format_duration(12345).s, "12.3 s");
	assert_string_equal(format_duration(59960).s, "1 min 0 s");
	assert_string_equal(format_duration(185000).s, "3 min 5 s");
	assert_string_equal(format_duration(7800000).s, "2 h 10 min");
	assert_string_equal(format_duration(266400000).s, "3 d 2 h");
	assert_string_equal(format_number(7).s, "7");
	assert_string_equal(format_number(2.345).s, "2.35");
}

static void member(const char *name, const char *json, const char *expected)
{
	json_t *value = json_loads(json, JSON_DECODE_ANY, NULL);
	char *text = format_member(name, value);

	assert_string_equal(text, expected);
	free(text);
	json_decref(value);
}

static void test_members(void **state)
{
	member("wire_bytes", "1048576", "1 MiB");
	member("rate_bps", "1000000", "1 Mbit/s");
	member("dirty_bytes_per_s", "1048576", "1 MiB/s");
	member("total_ms", "1500", "1.5 s");
	member("cpu_percent", "12.5", "12.5 %");
	member("ratio", "2.5", "2.50");
	member("vcpus", "4", "4");
	member("found", "true", "yes");
	member("why", "null", "-");
	member("list", "[\"a\",\"b\"]", "a, b");
	member("caps", "{\"max_bytes\":1024,\"n\":1}", "max 1 KiB, n 1");
	member("name", "\"a\\u001b[31mb\\u0007\\u009b\"", "a?[31mb???");
	assert_string_equal(format_label("guest_memory_bytes").s, "guest memory");
	assert_int_equal(format_columns("gr\xc3\xbc\xc3\x9f"), 4);
}

static void test_table(void **state)
{
	json_t *rows =
	    json_loads("[{\"name\":\"web1\",\"state\":\"running\",\"memory_bytes\":268435456,\"x\":1},"
	               "{\"name\":\"a-longer-name\",\"state\":\"paused\",\"memory_bytes\":2147483648}]",
	        0, NULL);
	char text[1024];

	PRINTED(text, table_print(out, rows, "name state owner memory_bytes"));
	assert_string_equal(text, "NAME           STATE     MEMORY\n"
	                          "web1           running  256 MiB\n"
	                          "a-longer-name  paused     2 GiB\n");
	PRINTED(text, table_print(out, rows, NULL));
	holds(text, "NAME           STATE     MEMORY  X\n");
	holds(text, "a-longer-name  paused     2 GiB  -\n");
	json_decref(rows);
}

static void test_object(void **state)
{
	json_t *object =
	    json_loads("{\"wire_bytes\":1024,\"name\":\"web1\",\"spec\":{\"vcpus\":2,\"empty\":[]},"
	               "\"disks\":[{\"file\":\"a\"}]}",
	        0, NULL);
	char text[1024];

	PRINTED(text, object_print(out, object, "name nothing", 0));
	assert_string_equal(
	    text, "name   web1\nwire   1 KiB\nspec\n  vcpus  2\n  empty  -\ndisks\n  FILE\n  a\n");
	json_decref(object);
}

static json_t *sample(void)
{
	return json_loads(
	    "{\"job\":\"j7\",\"guest\":\"web1\",\"peer\":\"beta\",\"phase\":\"precopy\",\"iteration\":3,"
	    "\"percent\":62.4,\"remaining_bytes\":440401920,\"rate_bps\":199000000,\"cap_bps\":200000000,"
	    "\"dirty_bytes_per_s\":12582912,\"predicted_downtime_ms\":85,\"eta_ms\":14000,\"ratio\":2.345,"
	    "\"throttle_percent\":20}",
	    0, NULL);
}

static void test_progress_line(void **state)
{
	json_t *progress = sample();
	char line[PROGRESS_MAX];

	progress_line(line, progress, 0);
	assert_string_equal(line,
	    "web1 -> beta  precopy round 3   62 %  199 Mbit/s  (cap 200 Mbit/s)  420 MiB left  "
	    "dirties 12 MiB/s  pause 85 ms  throttled 20 %  2.35x  ETA 14.0 s");
	for (size_t columns = 1; columns < 300; columns++) {
		progress_line(line, progress, columns);
		assert_true(format_columns(line) < columns || columns == 1);
	}
	progress_line(line, progress, 80);
	assert_string_equal(
	    line, "web1 -> beta  precopy round 3   62 %  199 Mbit/s  420 MiB left  ETA 14.0 s");
	progress_line(line, progress, 300);
	holds(line, "  [##################............]");
	progress_line(line, progress, 20);
	assert_string_equal(line, "web1 -> beta  preco");
	json_object_set_new(progress, "reconnect_waited_ms", json_integer(12000));
	json_object_set_new(progress, "reconnect_limit_ms", json_integer(300000));
	progress_line(line, progress, 80);
	holds(line, "web1 -> beta  reconnecting (12 s of 300 s)   62 %");
	json_object_set_new(progress, "guest", json_string("\x1b[2Jx"));
	progress_line(line, progress, 0);
	assert_null(strchr(line, '\x1b'));
	json_decref(progress);
	progress = json_object();
	progress_line(line, progress, 80);
	json_decref(progress);
}

static void test_progress_news(void **state)
{
	json_t *before = sample(), *now = sample();

	json_object_set_new(now, "percent", json_integer(70));
	assert_false(progress_is_news(before, now));
	json_object_set_new(now, "iteration", json_integer(4));
	assert_true(progress_is_news(before, now));
	json_object_set_new(now, "iteration", json_integer(3));
	json_object_set_new(now, "reconnect_waited_ms", json_integer(1));
	assert_true(progress_is_news(before, now));
	json_object_set_new(before, "reconnect_waited_ms", json_integer(0));
	assert_false(progress_is_news(before, now));
	json_decref(before);
	json_decref(now);
}

static void test_outcome(void **state)
{
	json_t *ended = json_loads(
	    "{\"job\":\"j7\",\"guest\":\"web1\",\"peer\":\"beta\",\"outcome\":\"undone\","
	    "\"error\":{\"category\":\"refused\",\"text\":\"beta: no room: 1 GiB of 2 GiB\"},"
	    "\"notes\":\"one\\ntwo\",\"report\":{\"iterations\":3,\"total_ms\":12300,\"wire_bytes\":1024,"
	    "\"reconnects\":0,\"convergence\":{\"decisions\":[{\"ms\":9300,\"iteration\":2,"
	    "\"action\":\"switch\",\"reason\":\"it fits\"}]}}}",
	    0, NULL);
	char text[1024];

	PRINTED(text, view_outcome(out, ended));
	assert_string_equal(text, "job j7 undone: web1 -> beta\n"
	                          "  why   beta: no room: 1 GiB of 2 GiB (refused)\n"
	                          "  note  one\n  note  two\n"
	                          "  total time   12.3 s\n  on the wire  1 KiB\n  rounds       3\n"
	                          "  at 9.3 s, round 2: switch: it fits\n");
	json_decref(ended);
}

static void shows(const char *command, const char *answer, const char *expected)
{
	json_t *value = json_loads(answer, JSON_DECODE_ANY, NULL);
	char text[2048];

	assert_non_null(value);
	PRINTED(text, view_answer(out, command, value));
	assert_string_equal(text, expected);
	json_decref(value);
}

static void test_answers(void **state)
{
	shows("list", "[]", "no guests\n");
	shows("list",
	    "[{\"name\":\"a\",\"state\":\"running\",\"needs\":{\"memory_bytes\":1073741824,\"vcpus\":2},"
	    "\"job\":null}]",
	    "NAME  STATE    MEMORY  VCPUS\na     running   1 GiB      2\n");
	shows("start", "{\"name\":\"a\",\"state\":\"running\",\"uuid\":\"x\"}", "a running\n");
	shows("delete", "{}", "");
	shows("show", "{\"name\":\"a\",\"driver\":\"kvm\",\"spec\":{\"memory\":268435456,\"vcpus\":1}}",
	    "name    a\ndriver  kvm\nspec\n  memory  256 MiB\n  vcpus   1\n");
	shows("metrics", "{\"one\":1,\"jobs\":{\"undone\":2}}", "one 1\njobs undone 2\n");
	shows("metrics", "\"# HELP a\\na 1\\n\"", "# HELP a\na 1\n");
	shows("drivers",
	    "[{\"name\":\"kvm\",\"found\":true,\"version\":\"7.2\",\"verbs\":{\"start\":true,\"stop\":true}},"
	    "{\"name\":\"lxc\",\"found\":false,\"why\":\"no lxc\",\"verbs\":{\"stop\":\"not there\"}}]",
	    "NAME  FOUND  VERSION  WHY\nkvm   yes    7.2      -\nlxc   no     -        no lxc\n\n"
	    "VERB   KVM  LXC\nstart  yes  -\nstop   yes  not there\n");
}

static void test_exit_codes(void **state)
{
	assert_int_equal(exit_of(NOVA_OK), 0);
	assert_int_equal(exit_of(NOVA_SYSTEM), 1);
	assert_int_equal(exit_of(NOVA_INVALID), 2);
	assert_int_equal(exit_of(NOVA_CANCELLED), 7);
	assert_int_equal(exit_of(NOVA_CATEGORIES), 1);
	assert_int_equal(exit_of_outcome("completed", NOVA_OK), 0);
	assert_int_equal(exit_of_outcome("undone", NOVA_REFUSED), 4);
	assert_int_equal(exit_of_outcome("undone", NOVA_OK), 1);
	assert_int_equal(exit_of_outcome("leftovers", NOVA_LINK), 9);
	assert_int_equal(exit_of_outcome("in-doubt", NOVA_LINK), 8);
	assert_int_equal(category_of("timeout"), NOVA_TIMEOUT);
	assert_int_equal(category_of("nonsense"), NOVA_SYSTEM);
	assert_int_equal(category_of(NULL), NOVA_SYSTEM);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_arguments),
		cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_spec_of_the_driver),
		cmocka_unit_test(test_own_options),
		cmocka_unit_test(test_help),
		cmocka_unit_test(test_man_page),
		cmocka_unit_test(test_completion),
		cmocka_unit_test(test_suggestions),
		cmocka_unit_test(test_units),
		cmocka_unit_test(test_members),
		cmocka_unit_test(test_table),
		cmocka_unit_test(test_object),
		cmocka_unit_test(test_progress_line),
		cmocka_unit_test(test_progress_news),
		cmocka_unit_test(test_outcome),
		cmocka_unit_test(test_answers),
		cmocka_unit_test(test_exit_codes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
