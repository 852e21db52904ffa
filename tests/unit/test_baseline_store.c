/* SPDX-License-Identifier: Apache-2.0
 *
 * test_baseline_store.c - which baselines a host keeps and to whom it gives them: budgets, the least recently used, owners,
 * restarts, files that are not what they should be.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <sys/stat.h>

#include "access_host.h"
#include "engine/baseline_store.h"

#define UUID_A "aaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaaa"
#define UUID_B "bbbbbbbb-bbbb-4bbb-8bbb-bbbbbbbbbbbb"
#define UUID_C "cccccccc-cccc-4ccc-8ccc-cccccccccccc"
#define ID(letter) letter letter letter letter letter letter letter letter
#define ID_A ID("aaaa")
#define ID_B ID("bbbb")
#define ID_C ID("cccc")

static struct nova_base_head head_of(const char *id, const char *uuid, const char *owner, const char *image)
{
	struct nova_base_head head = { .guest = "web", .peer = "beta", .side = "source" };

	strcpy(head.id, id);
	strcpy(head.uuid, uuid);
	strcpy(head.owner, owner);
	strcpy(head.image, image);
	return head;
}

static struct nova_making *begin(struct access_host *a, const struct nova_base_head *head, unsigned pages)
{
	struct nova_making *making = nova_making_new(a->host->baselines, head, 0);
	uint8_t page[NOVA_PAGE_BYTES] = { 0 };

	for (uint64_t i = 0; making && i < pages; i++) {
		memcpy(page, &i, sizeof(i));
		nova_spool_page(nova_making_spool(making), i << 12, page);
	}
	return making;
}

static void keep(struct access_host *a, const char *id, const char *uuid, const char *owner, const char *image,
    unsigned pages)
{
	struct nova_base_head head = head_of(id, uuid, owner, image);
	struct nova_making *making = begin(a, &head, pages);

	assert_non_null(making);
	nova_making_keep(making);
	LOOP_UNTIL(&a->loop, nova_baselines_get(a->host->baselines, id));
}

static size_t seen_by(struct access_host *a, enum nova_role role, const char *name)
{
	const struct nova_identity who = access_who(role, name);

	assert_int_equal(access_run(a, &who, "baseline", json_pack("{s:s}", "what", "list")), 0);
	return json_array_size(a->result);
}

static bool finds(struct access_host *a, const char *uuid, const char *owner, const char *image, const char *id)
{
	const struct nova_base_head *head = nova_baselines_find(a->host->baselines, uuid, owner, image);

	return id ? head && !strcmp(head->id, id) : !head;
}

/* Files in the directory of baselines. */
static int files(struct access_host *a)
{
	char command[256];
	FILE *pipe;
	int count = -1;

	snprintf(command, sizeof(command), "ls %s/state/baselines | wc -l", a->loop.dir);
	pipe = popen(command, "r");
	assert_int_equal(fscanf(pipe, "%d", &count), 1);
	pclose(pipe);
	return count;
}

static void restart(struct access_host *a)
{
	nova_host_free(a->host);
	a->host = nova_host_new(a->loop.base, a->config, access_log, NULL, &a->err);
	assert_non_null(a->host);
	LOOP_UNTIL(&a->loop, !a->host->recovery);
}

static void test_one_per_guest(void **state)
{
	struct access_host a;

	access_open(&a, NULL);
	keep(&a, ID_A, UUID_A, "ada", "", 40);
	keep(&a, ID_B, UUID_A, "ada", "", 50);
	assert_int_equal(seen_by(&a, NOVA_ROLE_ADMIN, "root"), 1);
	assert_true(finds(&a, UUID_A, "ada", "", ID_B));
	assert_int_equal(files(&a), 2);
	access_close(&a);
}

static void test_owners(void **state)
{
	struct access_host a;

	access_open(&a, NULL);
	keep(&a, ID_A, UUID_A, "ada", "debian", 40);
	assert_true(finds(&a, UUID_A, "ada", "debian", ID_A));
	assert_true(finds(&a, UUID_A, "bob", "debian", NULL)); /* even the same guest */
	assert_true(finds(&a, UUID_B, "ada", "debian", NULL)); /* not unless the operator says so */
	assert_int_equal(seen_by(&a, NOVA_ROLE_OPERATOR, "ada"), 1);
	assert_int_equal(seen_by(&a, NOVA_ROLE_OPERATOR, "bob"), 0);
	access_close(&a);
}

static void test_sharing(void **state)
{
	static const char *const options[] = { "baseline-share", "owner", NULL };
	struct access_host a;

	access_open(&a, options);
	keep(&a, ID_A, UUID_A, "ada", "debian", 40);
	keep(&a, ID_B, UUID_B, "ada", "", 40);
	assert_true(finds(&a, UUID_C, "ada", "debian", ID_A));
	assert_true(finds(&a, UUID_C, "bob", "debian", NULL));
	assert_true(finds(&a, UUID_C, "ada", "fedora", NULL));
	assert_true(finds(&a, UUID_C, "ada", "", NULL)); /* unknown is not the same as unknown */
	assert_true(finds(&a, UUID_B, "ada", "debian", ID_B)); /* its own comes first */
	access_close(&a);
}

static void test_drop(void **state)
{
	const struct nova_identity ada = access_who(NOVA_ROLE_OPERATOR, "ada"), bob = access_who(NOVA_ROLE_OPERATOR, "bob");
	struct access_host a;

	access_open(&a, NULL);
	keep(&a, ID_A, UUID_A, "ada", "", 40);
	assert_int_equal(access_run(&a, &ada, "baseline", json_pack("{s:s}", "what", "drop")), -1);
	assert_non_null(strstr(a.err.text, "name a guest"));
	assert_int_equal(access_run(&a, &bob, "baseline", json_pack("{s:s, s:s}", "what", "drop", "guest", "web")), -1);
	assert_int_equal(access_run(&a, &bob, "baseline", json_pack("{s:s, s:b}", "what", "drop", "all", 1)), 0);
	assert_int_equal(files(&a), 2);
	assert_int_equal(access_run(&a, &ada, "baseline", json_pack("{s:s, s:s}", "what", "drop", "guest", "web")), 0);
	assert_int_equal(json_integer_value(json_object_get(a.result, "dropped")), 1);
	assert_int_equal(files(&a), 0);
	access_close(&a);
}

/* Each takes 8 MB, and room for 67 MB is asked for: the third does not fit beside two. */
static void test_least_recently_used_leaves(void **state)
{
	static const char *const options[] = { "baseline-bytes", "80M", NULL };
	struct nova_base_head head = head_of(ID_C, UUID_C, "ada", "");
	struct access_host a;
	struct nova_making *making;

	access_open(&a, options);
	keep(&a, ID_A, UUID_A, "ada", "", 2000);
	keep(&a, ID_B, UUID_B, "ada", "", 2000);
	making = begin(&a, &head, 1);
	assert_non_null(making);
	assert_true(finds(&a, UUID_A, "ada", "", NULL));
	assert_true(finds(&a, UUID_B, "ada", "", ID_B));
	nova_making_free(making); /* not committed */
	assert_int_equal(files(&a), 2);
	access_close(&a);
}

static void test_budgets(void **state)
{
	static const char *const options[] = { "baseline-bytes", "80M", "baseline-guest-bytes", "2M", NULL };
	struct nova_base_head head = head_of(ID_C, UUID_C, "ada", "");
	struct access_host a;

	access_open(&a, options);
	keep(&a, ID_A, UUID_A, "ada", "", 2000);
	assert_in_range(nova_baselines_get(a.host->baselines, ID_A)->slots, 400, 512);
	access_set(&a, "baseline-bytes", "0");
	restart(&a);
	assert_int_equal(files(&a), 0);
	assert_null(begin(&a, &head, 1));
	access_close(&a);
}

static void cut(struct access_host *a, const char *file, off_t length)
{
	char path[256];

	snprintf(path, sizeof(path), "%s/state/baselines/%s", a->loop.dir, file);
	assert_int_equal(truncate(path, length), 0);
}

static void test_restart(void **state)
{
	struct access_host a;

	access_open(&a, NULL);
	keep(&a, ID_A, UUID_A, "ada", "", 40);
	keep(&a, ID_B, UUID_B, "ada", "", 40);
	keep(&a, ID_C, UUID_C, "ada", "", 40);
	begin(&a, &(struct nova_base_head){ .id = ID("dddd"), .uuid = UUID_A, .owner = "ada" }, 40); /* freed with the host */
	restart(&a);
	assert_int_equal(files(&a), 6);
	cut(&a, ID_A ".index", 100);
	cut(&a, ID_B ".pages", 4096);
	restart(&a);
	assert_true(finds(&a, UUID_A, "ada", "", NULL));
	assert_true(finds(&a, UUID_B, "ada", "", NULL));
	assert_true(finds(&a, UUID_C, "ada", "", ID_C));
	assert_int_equal(files(&a), 2);
	access_close(&a);
}

static void loaded(void *arg, struct nova_base_index *index, const struct nova_error *why)
{
	bool *result = arg;

	result[0] = true;
	result[1] = index != NULL;
	nova_base_index_free(index);
}

static void test_load(void **state)
{
	bool result[2] = { false };
	struct nova_base_load *load;
	struct access_host a;

	access_open(&a, NULL);
	keep(&a, ID_A, UUID_A, "ada", "", 3000);
	load = nova_base_load_new(a.host->baselines, ID_A, loaded, result, &a.err);
	assert_non_null(load);
	LOOP_UNTIL(&a.loop, result[0]);
	assert_true(result[1]);
	nova_base_load_free(load);
	cut(&a, ID_A ".index", 50000); /* under our feet */
	result[0] = false;
	load = nova_base_load_new(a.host->baselines, ID_A, loaded, result, &a.err);
	LOOP_UNTIL(&a.loop, result[0]);
	assert_false(result[1]);
	nova_base_load_free(load);
	assert_int_equal(files(&a), 0); /* and it is gone */
	access_close(&a);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_one_per_guest),
		cmocka_unit_test(test_owners),
		cmocka_unit_test(test_sharing),
		cmocka_unit_test(test_drop),
		cmocka_unit_test(test_least_recently_used_leaves),
		cmocka_unit_test(test_budgets),
		cmocka_unit_test(test_restart),
		cmocka_unit_test(test_load),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
