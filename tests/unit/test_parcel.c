/* SPDX-License-Identifier: Apache-2.0
 *
 * test_parcel.c - parcels: a tree arrives as it was, what a seed has is not sent, and entries that lead elsewhere make
 * nothing. Owners need root; elsewhere everything is ours.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#include "drivers/common/parcel_record.h"
#include "tests/unit/loop.h"

struct end {
	int count;
	bool failed;
	struct nova_error err;
	struct parcel *parcel; /* of the receiving end: it gives its word */
};

static void over(void *arg, const struct nova_error *err)
{
	struct end *end = arg;

	end->count++;
	end->failed = err != NULL;
	if (err)
		end->err = *err;
	if (end->parcel)
		parcel_tell(end->parcel, err);
}

static char *path_in(const struct loop *loop, const char *name)
{
	static char path[4][256];
	static unsigned next;

	next = (next + 1) % 4;
	snprintf(path[next], sizeof(path[next]), "%s/%s", loop->dir, name);
	return path[next];
}

static void shell(const struct loop *loop, const char *command)
{
	char line[1024];

	snprintf(line, sizeof(line), "cd %s && { %s; }", loop->dir, command);
	if (system(line) != 0)
		fail_msg("%s", line);
}

/* From a to b, by way of seeds. */
static void carry(struct loop *loop, const json_t *seeds, struct parcel_figures *figures)
{
	struct parcel_part from = { .name = "tree", .path = path_in(loop, "a"), .hollow = "dev" };
	struct parcel_part to = { .name = "tree", .path = path_in(loop, "b"), .seeds = seeds };
	struct end sent = { 0 }, received = { 0 };
	struct parcel *out;
	int pair[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	received.parcel = parcel_in_new(loop->base, pair[1], &to, 1, over, &received, &received.err);
	out = parcel_out_new(loop->base, pair[0], &from, 1, over, &sent, &sent.err);
	assert_non_null(received.parcel);
	assert_non_null(out);
	LOOP_UNTIL(loop, sent.count && received.count);
	if (sent.failed || received.failed)
		fail_msg("%s; %s", sent.err.text, received.err.text);
	parcel_stats(out, figures);
	parcel_free(out);
	parcel_free(received.parcel);
}

static void make_tree(struct loop *loop)
{
	shell(loop, "mkdir -p a/d/e a/dev b; echo one >a/one; ln a/one a/d/same; ln -s ../../../etc/passwd a/d/e/out; "
		    "truncate -s 10M a/hole; printf x >>a/hole; head -c 400000 /dev/urandom >a/random; : >a/empty; "
		    "chmod 4750 a/random; chmod 1777 a/d; mkfifo a/pipe; echo hidden >a/dev/x; touch -d 2001-02-03T04:05:06 a/d/e a/one");
}

static void test_tree(void **state)
{
	struct loop loop;
	struct parcel_figures figures;
	struct stat one, same, hole;
	char value[8];

	loop_init(&loop);
	make_tree(&loop);
	setxattr(path_in(&loop, "a/random"), "user.mark", "yes", 3, 0);
	carry(&loop, NULL, &figures);
	shell(&loop, "test ! -e b/pipe -a ! -e b/dev/x -a -d b/dev; rm -r a/pipe a/dev b/dev; diff -r --no-dereference a b");
	shell(&loop, "list() { (cd $1 && find . -printf '%p %y %m %l %T@\\n' | sort); }; touch -r b a; list a >la; list b >lb; cmp la lb; rm la lb");
	assert_int_equal(stat(path_in(&loop, "b/one"), &one), 0);
	assert_int_equal(stat(path_in(&loop, "b/d/same"), &same), 0);
	assert_int_equal(one.st_ino, same.st_ino);
	assert_int_equal(stat(path_in(&loop, "b/hole"), &hole), 0);
	assert_true(hole.st_blocks * 512 < 1 << 20);
	if (getxattr(path_in(&loop, "a/random"), "user.mark", value, sizeof(value)) == 3)
		assert_int_equal(getxattr(path_in(&loop, "b/random"), "user.mark", value, sizeof(value)), 3);
	assert_int_equal(figures.skipped_entries, 1);
	assert_int_equal(figures.held_bytes, 0);
	shell(&loop, "rm -r a b");
	loop_release(&loop);
}

static void test_seed(void **state)
{
	struct loop loop;
	struct parcel_figures figures;
	json_t *seeds;

	loop_init(&loop);
	make_tree(&loop);
	shell(&loop, "mkdir -p s; cp -r a/random s; head -c 10485761 /dev/zero >s/hole; echo two >s/one");
	seeds = json_pack("[s]", path_in(&loop, "s"));
	carry(&loop, seeds, &figures);
	json_decref(seeds);
	shell(&loop, "rm -r a/pipe a/dev b/dev; diff -r --no-dereference a b");
	assert_int_equal(figures.held_bytes, 400000);
	shell(&loop, "rm -r a b s");
	loop_release(&loop);
}

/* ---- a source that lies ---- */

static int mute(struct parcel_wire *wire, int fd, struct parcel_shared *shared)
{
	struct nova_error err;

	return parcel_wire_init(wire, fd, shared, &err);
}

/* These entries, and nothing more: the reason why the destination refuses. */
static void refused(struct loop *loop, const struct parcel_entry *entries, size_t count, const char *words)
{
	struct parcel_part to = { .name = "tree", .path = path_in(loop, "b") };
	struct end received = { 0 };
	struct parcel_shared shared;
	struct parcel_wire wire;
	struct nova_error err;
	int pair[2];

	shell(loop, "mkdir b; echo safe >safe");
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	received.parcel = parcel_in_new(loop->base, pair[1], &to, 1, over, &received, &err);
	assert_non_null(received.parcel);
	assert_int_equal(mute(&wire, pair[0], &shared), 0);
	for (size_t i = 0; i < count; i++)
		assert_int_equal(parcel_entry_put(&wire, &entries[i], &err), 0);
	assert_non_null(parcel_put(&wire, 'L', 0, &err));
	assert_non_null(parcel_put(&wire, 'X', 0, &err));
	parcel_flush(&wire, &err);
	LOOP_UNTIL(loop, received.count);
	assert_true(received.failed);
	if (!strstr(received.err.text, words))
		fail_msg("\"%s\" says nothing of \"%s\"", received.err.text, words);
	parcel_free(received.parcel);
	free(wire.in);
	free(wire.out);
	close(pair[0]);
	shell(loop, "test \"$(cat safe)\" = safe; test ! -e made; rm -r b safe");
}

#define FILE_AT(where) { .type = PARCEL_FILE, .mode = 0644, .path = where, .target = "" }

static void test_escapes(void **state)
{
	const struct parcel_entry root = { .type = PARCEL_DIRECTORY, .mode = 0755, .path = "", .target = "" };
	const struct parcel_entry up = { .type = PARCEL_SYMLINK, .mode = 0777, .path = "up", .target = ".." };
	const struct parcel_entry self = { .type = PARCEL_SYMLINK, .mode = 0777, .path = "up", .target = "/proc/self/cwd" };
	const struct {
		struct parcel_entry entry[3];
		const char *words;
	} cases[] = {
		{ { root, FILE_AT("../made") }, "cannot be" },
		{ { root, FILE_AT("/made") }, "cannot be" },
		{ { root, FILE_AT("x/../../made") }, "cannot be" },
		{ { root, FILE_AT("x//made") }, "cannot be" },
		{ { root, FILE_AT(".") }, "cannot be" },
		{ { root, up, FILE_AT("up/made") }, "up/made" },
		{ { root, self, FILE_AT("up/made") }, "up/made" },
		{ { root, up, FILE_AT("up") }, "File exists" },
		{ { root, up, { .type = PARCEL_LINK, .path = "in", .target = "up/safe" } }, "'in'" },
		{ { root, { .type = PARCEL_LINK, .path = "in", .target = "../safe" } }, "cannot be" },
		{ { root, { .type = 'b', .mode = 0600, .path = "disk", .target = "" } }, "cannot be" },
		{ { root, { .type = PARCEL_FILE, .mode = 0100644, .path = "made", .target = "" } }, "cannot be" },
		{ { root, { .type = PARCEL_FILE, .mode = 0644, .path = "made", .target = "",
			      .xattrs = (const uint8_t *)"\x14trusted.overlay.meta\0\0\0\0", .xattrs_length = 25 } },
		    "cannot be" },
		{ { root, { .type = PARCEL_FILE, .mode = 0644, .size = 5, .path = "short", .target = "" } }, "did not come" },
		{ { root, { .part = 1, .type = PARCEL_FILE, .mode = 0644, .path = "made", .target = "" } }, "cannot be" },
	};
	struct loop loop;

	loop_init(&loop);
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		refused(&loop, cases[i].entry, cases[i].entry[2].path ? 3 : 2, cases[i].words);
	}
	loop_release(&loop);
}

/* What the two ends say of a source that breaks off. */
static void test_broken(void **state)
{
	struct loop loop;
	struct parcel_part to = { .name = "tree" };
	struct end received = { 0 };
	struct nova_error err;
	int pair[2];

	loop_init(&loop);
	shell(&loop, "mkdir b");
	to.path = path_in(&loop, "b");
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	received.parcel = parcel_in_new(loop.base, pair[1], &to, 1, over, &received, &err);
	assert_int_equal(write(pair[0], "E\0\0", 3), 3);
	close(pair[0]);
	LOOP_UNTIL(&loop, received.count);
	assert_true(received.failed);
	assert_non_null(strstr(received.err.text, "ended early"));
	parcel_free(received.parcel);
	shell(&loop, "rm -r b");
	loop_release(&loop);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_tree),
		cmocka_unit_test(test_seed),
		cmocka_unit_test(test_escapes),
		cmocka_unit_test(test_broken),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
