/* SPDX-License-Identifier: Apache-2.0
 *
 * test_relay.c - two relays on one loop, over real TLS and real unix sockets: several connections both ways, one
 * that is refused over there, wrong names, a busy socket, nobody who comes, and the end in order.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "tests/unit/transport_pair.h"

#define BYTES (3u << 20)

struct side {
	struct nova_relay *relay; /* owned */
	int ready, connected, streams, links, warnings, dones;
	json_t *result; /* owned */
	struct nova_error err;
	char warning[512];
};

struct joined {
	struct loop loop;
	struct authority ca;
	struct side alpha, beta; /* alpha connects, beta listens */
	int server;              /* where beta's relay connects to; -1 */
};

static void on_event(void *arg, const char *event, json_t *data)
{
	struct side *side = arg;

	side->ready += !strcmp(event, "RELAY_READY");
	side->connected += !strcmp(event, "RELAY_CONNECTED");
	side->streams += !strcmp(event, "RELAY_STREAM");
	side->links += !strcmp(event, "RELAY_LINK");
	if (!strcmp(event, "RELAY_WARNING")) {
		side->warnings++;
		snprintf(side->warning, sizeof(side->warning), "%s", json_string_value(json_object_get(data, "text")));
	}
}

static void on_done(void *arg, json_t *result, const struct nova_error *err)
{
	struct side *side = arg;

	side->dones++;
	side->result = json_incref(result);
	if (err)
		side->err = *err;
}

static char *path_of(struct joined *joined, const char *name)
{
	static char paths[4][128];
	static int next;
	char *path = paths[next++ % 4];

	snprintf(path, sizeof(paths[0]), "%s/%s", joined->loop.dir, name);
	return path;
}

static void joined_init(struct joined *joined)
{
	memset(joined, 0, sizeof(*joined));
	joined->server = -1;
	loop_init(&joined->loop);
	authority_init(&joined->loop, &joined->ca, "ca");
	issue(&joined->loop, &joined->ca, "alpha", "alpha", 3600);
	issue(&joined->loop, &joined->ca, "beta", "beta", 3600);
	issue(&joined->loop, &joined->ca, "gamma", "gamma", 3600);
}

static struct sockaddr_un unix_address(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };

	snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	return address;
}

static void serve(struct joined *joined)
{
	struct sockaddr_un address = unix_address(path_of(joined, "b.sock"));

	joined->server = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
	assert_int_equal(bind(joined->server, (struct sockaddr *)&address, sizeof(address)), 0);
	assert_int_equal(listen(joined->server, 8), 0);
}

static struct nova_relay_config config_of(struct joined *joined, const char *cert, const char *peer, int wait_ms)
{
	char file[32];
	struct nova_relay_config config = { .struct_size = sizeof(config), .peer = peer, .wait_ms = wait_ms,
		.resume_limit_ms = 10000, .history_bytes = 4 << 20 };

	snprintf(file, sizeof(file), "%s.pem", cert);
	config.cert = path_of(joined, file);
	snprintf(file, sizeof(file), "%s.key", cert);
	config.key = path_of(joined, file);
	config.ca = path_of(joined, "ca.pem");
	return config;
}

static struct nova_error open_beta(struct joined *joined, const char *cert, int wait_ms)
{
	struct nova_relay_config config = config_of(joined, cert, "alpha", wait_ms);
	struct nova_error err = { 0 };

	config.listen_tls = true;
	config.address = "127.0.0.1:0";
	config.unix_path = path_of(joined, "b.sock");
	joined->beta.relay =
	    nova_relay_new(joined->loop.base, &config, on_event, on_done, &joined->beta, &err);
	return err;
}

static struct nova_error open_alpha(struct joined *joined, const char *cert, int port, int wait_ms)
{
	struct nova_relay_config config = config_of(joined, cert, "beta", wait_ms);
	struct nova_error err = { 0 };
	char address[32];

	snprintf(address, sizeof(address), "127.0.0.1:%d", port);
	config.address = address;
	config.unix_path = path_of(joined, "a.sock");
	joined->alpha.relay =
	    nova_relay_new(joined->loop.base, &config, on_event, on_done, &joined->alpha, &err);
	return err;
}

static void joined_open(struct joined *joined)
{
	joined_init(joined);
	assert_int_equal(open_beta(joined, "beta", 0).category, NOVA_OK);
	assert_int_equal(open_alpha(joined, "alpha", nova_relay_port(joined->beta.relay), 0).category, NOVA_OK);
	LOOP_UNTIL(&joined->loop, joined->alpha.ready && joined->beta.connected);
}

static void joined_release(struct joined *joined)
{
	nova_relay_free(joined->alpha.relay);
	nova_relay_free(joined->beta.relay);
	json_decref(joined->alpha.result);
	json_decref(joined->beta.result);
	if (joined->server >= 0)
		close(joined->server);
	authority_release(&joined->ca);
	remove_files(&joined->loop);
	loop_release(&joined->loop);
}

static int come(struct joined *joined)
{
	struct sockaddr_un address = unix_address(path_of(joined, "a.sock"));
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);

	assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	return fd;
}

static bool came(struct joined *joined, int *fd)
{
	*fd = accept4(joined->server, NULL, NULL, SOCK_NONBLOCK);
	return *fd >= 0;
}

/* Send a pattern one way until all of it has arrived unharmed. */
struct transfer {
	int from, to;
	uint32_t salt, sent, got;
};

static uint8_t byte_at(const struct transfer *transfer, uint32_t at)
{
	return (uint8_t)((at >> 8) * 7 + at % 251 + transfer->salt);
}

static bool moved(struct transfer *transfer)
{
	uint8_t bytes[8192];
	ssize_t n;

	if (transfer->sent < BYTES) {
		uint32_t length = BYTES - transfer->sent < sizeof(bytes) ? BYTES - transfer->sent : sizeof(bytes);

		for (uint32_t i = 0; i < length; i++)
			bytes[i] = byte_at(transfer, transfer->sent + i);
		n = write(transfer->from, bytes, length);
		transfer->sent += n > 0 ? (uint32_t)n : 0;
	}
	n = read(transfer->to, bytes, sizeof(bytes));
	for (ssize_t i = 0; i < n; i++)
		if (bytes[i] != byte_at(transfer, transfer->got++))
			fail_msg("byte %u arrived wrong", transfer->got - 1);
	return transfer->got == BYTES;
}

static void move_all(struct joined *joined, struct transfer *transfers, size_t count)
{
	double limit = loop_now() + LOOP_LIMIT_S;
	bool over = false;

	while (!over && loop_now() < limit) {
		event_base_loop(joined->loop.base, EVLOOP_NONBLOCK);
		over = true;
		for (size_t i = 0; i < count; i++)
			over = moved(&transfers[i]) && over;
	}
	assert_true(over);
}

static bool ended(int fd)
{
	char byte;

	return read(fd, &byte, 1) == 0;
}

static void test_several_connections(void **state)
{
	struct joined joined;
	int near[3], far[3];
	struct transfer transfers[6];

	joined_open(&joined);
	serve(&joined);
	for (uint32_t i = 0; i < 3; i++) {
		near[i] = come(&joined);
		LOOP_UNTIL(&joined.loop, came(&joined, &far[i]));
		transfers[2 * i] = (struct transfer) { near[i], far[i], i, 0, 0 };
		transfers[2 * i + 1] = (struct transfer) { far[i], near[i], i + 100, 0, 0 };
	}
	move_all(&joined, transfers, 6);
	assert_int_equal(joined.alpha.streams, 3);
	assert_int_equal(joined.beta.streams, 3);
	for (size_t i = 0; i < 3; i++) { /* half closed first, like a stream whose return path still speaks */
		shutdown(near[i], SHUT_WR);
		LOOP_UNTIL(&joined.loop, ended(far[i]));
		assert_int_equal(write(far[i], "x", 1), 1);
		close(far[i]);
	}
	LOOP_UNTIL(&joined.loop, joined.alpha.dones && joined.beta.dones);
	assert_int_equal(joined.alpha.err.category, NOVA_OK);
	assert_int_equal(joined.beta.err.category, NOVA_OK);
	assert_int_equal(json_integer_value(json_object_get(joined.alpha.result, "raw_bytes")), 6 * BYTES + 3);
	assert_int_equal(json_integer_value(json_object_get(joined.beta.result, "connections")), 3);
	for (size_t i = 0; i < 3; i++) {
		assert_int_equal(read(near[i], &(char) { 0 }, 1), 1);
		assert_true(ended(near[i]));
		close(near[i]);
	}
	assert_int_not_equal(access(path_of(&joined, "a.sock"), F_OK), 0);
	joined_release(&joined);
}

/* The one who connected here learns it, and both relays say which socket it was. */
static void test_nobody_over_there(void **state)
{
	struct joined joined;
	int near;

	joined_open(&joined);
	near = come(&joined);
	LOOP_UNTIL(&joined.loop, joined.alpha.dones && joined.beta.dones);
	assert_true(ended(near));
	close(near);
	assert_non_null(strstr(joined.alpha.err.text, "beta: connecting to "));
	assert_non_null(strstr(joined.alpha.err.text, "b.sock: "));
	assert_non_null(strstr(joined.beta.err.text, "b.sock: "));
	joined_release(&joined);
}

/* Stopped from either side: the other one knows at once, and says who it was. */
static void test_stop(void **state)
{
	for (int i = 0; i < 2; i++) {
		struct joined joined;
		struct side *one, *other;
		int near, far;

		joined_open(&joined);
		serve(&joined);
		one = i ? &joined.alpha : &joined.beta;
		other = i ? &joined.beta : &joined.alpha;
		near = come(&joined);
		LOOP_UNTIL(&joined.loop, came(&joined, &far));
		LOOP_UNTIL(&joined.loop, joined.alpha.streams && joined.beta.streams);
		nova_relay_stop(one->relay);
		LOOP_UNTIL(&joined.loop, one->dones);
		one->relay = nova_relay_free(one->relay); /* as a program does */
		LOOP_UNTIL(&joined.loop, other->dones);
		assert_int_equal(one->err.category, NOVA_CANCELLED);
		assert_string_equal(one->err.text, "interrupted");
		assert_non_null(strstr(other->err.text, i ? "the relay at alpha: interrupted" : "the relay at beta: interrupted"));
		assert_true(ended(near) && ended(far));
		close(near);
		close(far);
		joined_release(&joined);
	}
}

static void test_wrong_name(void **state)
{
	struct joined joined;

	joined_init(&joined);
	assert_int_equal(open_beta(&joined, "gamma", 0).category, NOVA_OK);
	assert_int_equal(open_alpha(&joined, "alpha", nova_relay_port(joined.beta.relay), 0).category, NOVA_OK);
	LOOP_UNTIL(&joined.loop, joined.alpha.dones);
	assert_non_null(strstr(joined.alpha.err.text, "certificate is for gamma, not for beta"));
	joined_release(&joined);

	joined_init(&joined);
	assert_int_equal(open_beta(&joined, "beta", 300).category, NOVA_OK);
	assert_int_equal(open_alpha(&joined, "gamma", nova_relay_port(joined.beta.relay), 0).category, NOVA_OK);
	LOOP_UNTIL(&joined.loop, joined.alpha.dones && joined.beta.dones);
	assert_non_null(strstr(joined.beta.warning, "gamma"));
	assert_int_equal(joined.beta.err.category, NOVA_TIMEOUT);
	assert_non_null(strstr(joined.beta.err.text, "alpha"));
	joined_release(&joined);
}

static void test_nobody_comes(void **state)
{
	struct joined joined;

	joined_init(&joined);
	assert_int_equal(open_beta(&joined, "beta", 0).category, NOVA_OK);
	assert_int_equal(open_alpha(&joined, "alpha", nova_relay_port(joined.beta.relay), 1000).category, NOVA_OK);
	LOOP_UNTIL(&joined.loop, joined.alpha.dones && joined.beta.dones);
	assert_int_equal(joined.alpha.err.category, NOVA_TIMEOUT);
	assert_non_null(strstr(joined.alpha.err.text, "nobody connected to "));
	assert_non_null(strstr(joined.beta.err.text, "the relay at alpha: nobody connected"));
	joined_release(&joined);
}

/* The other relay starts later: it is dialled until it is there. */
static void test_dials_until_it_is_there(void **state)
{
	struct joined joined;
	int port;

	joined_init(&joined);
	assert_int_equal(open_beta(&joined, "beta", 0).category, NOVA_OK);
	port = nova_relay_port(joined.beta.relay);
	joined.beta.relay = nova_relay_free(joined.beta.relay);
	assert_int_equal(open_alpha(&joined, "alpha", port, 1000).category, NOVA_OK);
	LOOP_UNTIL(&joined.loop, joined.alpha.dones);
	assert_int_equal(joined.alpha.warnings, 1);
	assert_int_equal(joined.alpha.err.category, NOVA_TIMEOUT);
	assert_non_null(strstr(joined.alpha.err.text, "no relay of beta within 1 s: "));
	joined_release(&joined);
}

static void test_busy_socket(void **state)
{
	struct sockaddr_un address;
	struct joined joined;
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	joined_init(&joined);
	address = unix_address(path_of(&joined, "a.sock"));
	assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	assert_int_equal(listen(fd, 4), 0);
	assert_int_equal(open_beta(&joined, "beta", 0).category, NOVA_OK);
	assert_int_equal(open_alpha(&joined, "alpha", nova_relay_port(joined.beta.relay), 0).category, NOVA_OK);
	LOOP_UNTIL(&joined.loop, joined.alpha.dones && joined.beta.dones);
	assert_non_null(strstr(joined.alpha.err.text, "somebody listens on "));
	assert_int_equal(access(address.sun_path, F_OK), 0); /* and it is still theirs */
	close(fd);
	joined_release(&joined);

	joined_init(&joined); /* left over from somebody who was killed */
	fd = socket(AF_UNIX, SOCK_STREAM, 0);
	address = unix_address(path_of(&joined, "a.sock"));
	assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	close(fd);
	assert_int_equal(open_beta(&joined, "beta", 0).category, NOVA_OK);
	assert_int_equal(open_alpha(&joined, "alpha", nova_relay_port(joined.beta.relay), 0).category, NOVA_OK);
	LOOP_UNTIL(&joined.loop, joined.alpha.ready);
	joined_release(&joined);
}

static void test_bad_options(void **state)
{
	struct joined joined;
	struct nova_relay_config config;
	struct nova_error err;

	joined_init(&joined);
	config = config_of(&joined, "alpha", "beta", 0);
	config.address = "127.0.0.1:1";
	config.unix_path = path_of(&joined, "a.sock");
	config.codec = "rar";
	assert_null(nova_relay_new(joined.loop.base, &config, on_event, on_done, &joined.alpha, &err));
	assert_non_null(strstr(err.text, "'rar' is not one of auto, none, lz4, zstd"));
	config.codec = NULL;
	config.lanes = 17;
	assert_null(nova_relay_new(joined.loop.base, &config, on_event, on_done, &joined.alpha, &err));
	assert_non_null(strstr(err.text, "lanes"));
	config.lanes = 0;
	config.struct_size = 8;
	assert_null(nova_relay_new(joined.loop.base, &config, on_event, on_done, &joined.alpha, &err));
	assert_int_equal(err.category, NOVA_INVALID);
	joined_release(&joined);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_several_connections),
		cmocka_unit_test(test_nobody_over_there),
		cmocka_unit_test(test_stop),
		cmocka_unit_test(test_wrong_name),
		cmocka_unit_test(test_nobody_comes),
		cmocka_unit_test(test_dials_until_it_is_there),
		cmocka_unit_test(test_busy_socket),
		cmocka_unit_test(test_bad_options),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
