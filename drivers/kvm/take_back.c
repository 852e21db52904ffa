/* SPDX-License-Identifier: Apache-2.0
 *
 * take_back.c - a postcopy is taken back: the first row of OUT_CANCEL.
 *
 * Until the commit the guest has not run over there, so all of its memory is still here; but QEMU's source cannot be
 * cancelled in postcopy, since it goes on waiting for a recovery. So the migration is led to its end instead, towards
 * nobody: QEMU completes, and a completed source lets its guest run again.
 *
 *   postcopy-active    the engine reads the stream to nowhere. When nothing more comes we say, by its way back, that all was
 *                      received (sooner, QEMU would close the stream under its own writer)
 *   postcopy-paused    the stream broke, or its daemon was killed: QEMU is told to recover towards a socket of ours, where
 *                      we answer that every page has been received, and that this is the end
 *
 * What a recovering QEMU says and wants to hear: docs/devel/migration (postcopy recovery), migration/savevm.c and
 * migration/ram.c of QEMU 7.2; the bitmaps' sizes come from x-query-ramblock (since 6.2). Where any of this is not as
 * it should be, the row ends all the same, and the rows after it find that QEMU hangs.
 */
#include "kvm.h"
#include "engine/clock.h"
#include "engine/socket.h"

#include <errno.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define LOOK_AGAIN_MS 50
#define SETTLED_MS 200
#define PAGE_BITS 12 /* of a page in the bitmaps, whatever backs the memory */

enum { QEMU_VM_COMMAND = 8, MIG_CMD_POSTCOPY_RESUME = 9, MIG_CMD_RECV_BITMAP = 10 };
enum { MIG_RP_MSG_SHUT = 1, MIG_RP_MSG_RECV_BITMAP = 5, MIG_RP_MSG_RESUME_ACK = 6 };
#define BITMAP_END 0x0123456789abcdefull

static const char *const in_postcopy[] = { "postcopy-active", "postcopy-paused", "postcopy-recover", NULL };

/* ---- who receives everything, and keeps nothing ---- */

struct kvm_nowhere {
	json_t *blocks; /* owned: {name: bytes} of guest memory */
	char path[PATH_MAX];
	int listen_fd;
	struct event *listening;
	struct bufferevent *wire; /* owned; NULL until QEMU has connected */
	bool over;                /* all was said: what comes is dropped */
};

struct kvm_nowhere *kvm_nowhere_free(struct kvm_nowhere *nowhere)
{
	if (!nowhere)
		return NULL;
	if (nowhere->listening)
		event_free(nowhere->listening);
	if (nowhere->listen_fd >= 0) {
		close(nowhere->listen_fd);
		unlink(nowhere->path);
	}
	if (nowhere->wire)
		bufferevent_free(nowhere->wire);
	json_decref(nowhere->blocks);
	free(nowhere);
	return NULL;
}

static void put_u64(struct evbuffer *out, uint64_t value)
{
	for (int shift = 56; shift >= 0; shift -= 8)
		evbuffer_add(out, &(uint8_t){ (uint8_t)(value >> shift) }, 1);
}

static void say(struct evbuffer *out, uint16_t what, const void *data, uint16_t length)
{
	const uint8_t head[] = { (uint8_t)(what >> 8), (uint8_t)what, (uint8_t)(length >> 8), (uint8_t)length };

	evbuffer_add(out, head, sizeof(head));
	evbuffer_add(out, data, length);
}

/* All pages of a block have been received. */
static int say_received(struct kvm_nowhere *nowhere, struct evbuffer *out, const uint8_t *name, size_t length)
{
	char text[256];
	json_int_t bytes;
	uint64_t words;

	if (length < 1 || name[0] != length - 1)
		return -1;
	memcpy(text, name + 1, length - 1);
	text[length - 1] = 0;
	bytes = json_integer_value(json_object_get(nowhere->blocks, text));
	if (bytes <= 0)
		return -1;
	words = (((uint64_t)bytes >> PAGE_BITS) + 63) / 64;
	say(out, MIG_RP_MSG_RECV_BITMAP, name, (uint16_t)length);
	put_u64(out, words * 8);
	while (words--)
		put_u64(out, UINT64_MAX);
	put_u64(out, BITMAP_END);
	return 0;
}

static void say_the_end(struct kvm_nowhere *nowhere, struct evbuffer *out)
{
	const uint8_t accepted[] = { 0, 0, 0, 1 }, no_error[] = { 0, 0, 0, 0 };

	say(out, MIG_RP_MSG_RESUME_ACK, accepted, sizeof(accepted));
	say(out, MIG_RP_MSG_SHUT, no_error, sizeof(no_error));
	nowhere->over = true;
}

/* One command of a recovering source. 1: taken; 0: not whole yet; -1: not what it should be. */
static int take_command(struct kvm_nowhere *nowhere, struct evbuffer *in, struct evbuffer *out)
{
	const uint8_t *head = evbuffer_pullup(in, 5), *whole;
	size_t length;
	unsigned command;

	if (!head)
		return 0;
	command = (unsigned)head[1] << 8 | head[2];
	length = (size_t)head[3] << 8 | head[4];
	if (head[0] != QEMU_VM_COMMAND)
		return -1;
	whole = evbuffer_pullup(in, (ev_ssize_t)(5 + length));
	if (!whole)
		return 0;
	if (command == MIG_CMD_RECV_BITMAP && say_received(nowhere, out, whole + 5, length) < 0)
		return -1;
	if (command == MIG_CMD_POSTCOPY_RESUME)
		say_the_end(nowhere, out);
	evbuffer_drain(in, 5 + length);
	return 1;
}

static void stream_came(struct bufferevent *wire, void *arg)
{
	struct kvm_nowhere *nowhere = arg;
	struct evbuffer *in = bufferevent_get_input(wire);
	int taken = 1;

	while (!nowhere->over && taken > 0)
		taken = take_command(nowhere, in, bufferevent_get_output(wire));
	if (nowhere->over)
		evbuffer_drain(in, evbuffer_get_length(in));
	else if (taken < 0)
		bufferevent_disable(wire, EV_READ); /* the row's limit ends it */
}

static void connected(evutil_socket_t listen_fd, short what, void *arg)
{
	struct kvm_nowhere *nowhere = arg;
	int fd = nova_unix_accept(listen_fd);

	if (fd < 0)
		return;
	event_del(nowhere->listening);
	nowhere->wire = bufferevent_socket_new(event_get_base(nowhere->listening), fd, BEV_OPT_CLOSE_ON_FREE);
	if (!nowhere->wire) {
		close(fd);
		return;
	}
	bufferevent_setcb(nowhere->wire, stream_came, NULL, NULL, nowhere);
	bufferevent_enable(nowhere->wire, EV_READ | EV_WRITE);
}

/* Lines of "NAME PAGE-SIZE UNIT OFFSET USED TOTAL ...", for people; the first has headings. */
static json_t *blocks_of(const char *text)
{
	json_t *blocks = json_object();

	for (const char *line = strchr(text, '\n'); line; line = strchr(line + 1, '\n')) {
		char name[256];
		unsigned long long used;

		if (sscanf(line + 1, "%255s %*s %*s %*s %llx", name, &used) == 2)
			json_object_set_new(blocks, name, json_integer((json_int_t)used));
	}
	return blocks;
}

static struct kvm_nowhere *nowhere_new(struct kvm_task *task, const char *blocks, struct nova_error *err)
{
	struct kvm_nowhere *nowhere = calloc(1, sizeof(*nowhere));

	if (!nowhere) {
		nova_error_sys(err, ENOMEM, "guest %s", task->guest->name);
		return NULL;
	}
	nowhere->listen_fd = -1;
	nowhere->blocks = blocks_of(blocks);
	if (kvm_guest_socket(task->kvm, task->guest->name, "nowhere.sock", nowhere->path, sizeof(nowhere->path), err) < 0 ||
	    (nowhere->listen_fd = nova_unix_listen(nowhere->path, err)) < 0)
		return kvm_nowhere_free(nowhere);
	nowhere->listening = event_new(task->kvm->env.base, nowhere->listen_fd, EV_READ | EV_PERSIST, connected, nowhere);
	if (!nowhere->listening || event_add(nowhere->listening, NULL) < 0) {
		nova_error_sys(err, ENOMEM, "socket %s", nowhere->path);
		return kvm_nowhere_free(nowhere);
	}
	return nowhere;
}

/* ---- the row ---- */

static enum nova_step_result looked(struct kvm_task *task, json_t *value, struct nova_error *err);

static enum nova_step_result look(struct kvm_task *task, json_t *value, struct nova_error *err)
{
	return kvm_task_qmp(task, "query-migrate", NULL, looked, err);
}

static enum nova_step_result match_news(struct kvm_task *task, const char *event, json_t *data, struct nova_error *err)
{
	return strcmp(event, "TIMEOUT") == 0 ? look(task, NULL, err) : NOVA_STEP_WAIT;
}

static enum nova_step_result look_later(struct kvm_task *task, json_t *value, struct nova_error *err)
{
	return kvm_task_listen(task, match_news, LOOK_AGAIN_MS, err);
}

static enum nova_step_result blocks_known(struct kvm_task *task, json_t *value, struct nova_error *err)
{
	const char *blocks = kvm_spec_text(value, "human-readable-text");

	if (!blocks)
		return NOVA_STEP_DONE; /* a QEMU that does not tell them */
	task->nowhere = nowhere_new(task, blocks, err);
	if (!task->nowhere)
		return NOVA_STEP_FAILED;
	return kvm_task_try(task, "migrate",
	    json_pack("{s:o,s:b}", "uri", json_sprintf("unix:%s", task->nowhere->path), "resume", 1), look_later, err);
}

/* Two looks, at least SETTLED_MS apart, between which nothing was written while nothing was left to write. */
static bool all_written(struct kvm_task *task, const json_t *migration)
{
	const json_t *ram = json_object_get(migration, "ram");
	json_int_t written = kvm_spec_int(ram, "transferred");

	if (kvm_spec_int(ram, "remaining") != 0 || written != kvm_spec_int(task->notes, "written")) {
		json_object_set_new(task->notes, "written", json_integer(written));
		json_object_set_new(task->notes, "still_ms", json_integer(nova_now_ms()));
		return false;
	}
	return nova_now_ms() - kvm_spec_int(task->notes, "still_ms") > SETTLED_MS;
}

/* QEMU waits for this alone. A socket that broke makes it pause, and we go on from there. */
static void say_shut(struct kvm_task *task)
{
	const uint8_t shut[] = { 0, MIG_RP_MSG_SHUT, 0, 4, 0, 0, 0, 0 };
	int fd = json_object_get(task->args, "stream_fd") ? (int)kvm_spec_int(task->args, "stream_fd") : -1;

	if (fd < 0 || json_object_get(task->notes, "shut"))
		return;
	json_object_set_new(task->notes, "shut", json_true());
	if (send(fd, shut, sizeof(shut), MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
		kvm_log(task->kvm, NOVA_LOG_WARNING, "kvm: guest %s: its stream's way back: %s", task->guest->name, strerror(errno));
}

static bool patience_ends(const struct kvm_task *task)
{
	return nova_now_ms() - kvm_spec_int(task->notes, "began_ms") > KVM_TAKE_BACK_MS;
}

static enum nova_step_result looked(struct kvm_task *task, json_t *value, struct nova_error *err)
{
	const char *status = kvm_spec_text(value, "status") ?: "none";

	if (!kvm_one_of(status, in_postcopy) || patience_ends(task))
		return NOVA_STEP_DONE;
	if (!json_is_true(json_object_get(task->args, "uncommitted"))) {
		nova_error_set(err, NOVA_STATE, "guest %s runs at the destination already (%s): too late to cancel", task->guest->name, status);
		return NOVA_STEP_FAILED;
	}
	if (strcmp(status, "postcopy-active") == 0 && all_written(task, value))
		say_shut(task);
	if (strcmp(status, "postcopy-paused") == 0 && !task->nowhere)
		return kvm_task_try(task, "x-query-ramblock", NULL, blocks_known, err);
	return look_later(task, NULL, err);
}

enum nova_step_result kvm_take_back_row(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct kvm_task *task = ctx;

	if (!kvm_guest_live(task->guest)) {
		nova_error_set(err, NOVA_STATE, "guest %s does not run any more", task->guest->name);
		return NOVA_STEP_FAILED;
	}
	json_object_set_new(task->notes, "began_ms", json_integer(nova_now_ms()));
	return look(task, NULL, err);
}
