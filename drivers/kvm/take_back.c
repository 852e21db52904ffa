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
 * What a recovering QEMU says and wants to hear: nowhere.c; the bitmaps' sizes come from x-query-ramblock (since 6.2).
 * Where any of this is not as it should be, the row ends all the same, and the rows after it find that QEMU hangs.
 */
#include "nowhere.h"
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

static void stream_came(struct bufferevent *wire, void *arg)
{
	struct kvm_nowhere *nowhere = arg;
	struct evbuffer *in = bufferevent_get_input(wire);
	int said = nowhere->over ? 1 : kvm_nowhere_talk(nowhere->blocks, in, bufferevent_get_output(wire));

	nowhere->over = said > 0;
	if (said > 0)
		evbuffer_drain(in, evbuffer_get_length(in));
	else if (said < 0)
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

static struct kvm_nowhere *nowhere_new(struct kvm_task *task, const char *blocks, struct nova_error *err)
{
	struct kvm_nowhere *nowhere = calloc(1, sizeof(*nowhere));

	if (!nowhere) {
		nova_error_sys(err, ENOMEM, "guest %s", task->guest->name);
		return NULL;
	}
	nowhere->listen_fd = -1;
	nowhere->blocks = kvm_nowhere_blocks(blocks);
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
	int fd = json_object_get(task->args, "stream_fd") ? (int)kvm_spec_int(task->args, "stream_fd") : -1;

	if (fd < 0 || json_object_get(task->notes, "shut"))
		return;
	json_object_set_new(task->notes, "shut", json_true());
	if (send(fd, kvm_nowhere_shut, sizeof(kvm_nowhere_shut), MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
		kvm_log(task->kvm, NOVA_LOG_WARNING, "kvm: guest %s: its stream's way back: %s", task->guest->name, strerror(errno));
}

static bool patience_ends(const struct kvm_task *task)
{
	return nova_now_ms() - kvm_spec_int(task->notes, "began_ms") > KVM_TAKE_BACK_MS;
}

static enum nova_step_result looked(struct kvm_task *task, json_t *value, struct nova_error *err)
{
	const char *status = kvm_spec_text(value, "status") ?: "none";

	if (!kvm_one_of(status, in_postcopy))
		return NOVA_STEP_DONE;
	if (patience_ends(task)) {
		kvm_log(task->kvm, NOVA_LOG_WARNING, "kvm: guest %s: its postcopy did not end within %d ms (%s): QEMU is told to cancel it",
		    task->guest->name, KVM_TAKE_BACK_MS, status);
		return NOVA_STEP_DONE;
	}
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
