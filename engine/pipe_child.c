/* SPDX-License-Identifier: Apache-2.0
 *
 * pipe_child.c - both ends of the socket between us and the process that decodes.
 *
 *   ours                                       the child's
 *   MESSAGE bytes        of the channel   ->   its pipe decodes them into the hypervisor's socket
 *   FINISHED             the peer is done ->
 *                                         <-   MESSAGE bytes for the channel (the way back)
 *                                         <-   CONSUMED u32 bytes, u64 raw bytes so far, digest
 *                                         <-   FINISH, ENDED u32 bits, BROKE text
 *
 * A frame is a byte of kind, a u32 of length in the machine's order, and that many bytes, at most 256 KiB. The channel's
 * window bounds what we queue for the child (it consumes what it has written); what the child queues for us is at most
 * 256 KiB and a message. Not here: the filter (confine.c), the pipe itself (pipe.c).
 */
#include "pipe_child.h"
#include "cleanup.h"
#include "confine.h"

#include <errno.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum kind { MESSAGE = 1, FINISHED, FINISH, CONSUMED, ENDED, BROKE };

#define HEADER 5u
#define QUEUE_BYTES (256u * 1024) /* of the child's for us, before its pipe has to wait */
#define DIGEST_WAIT_MS 500

struct consumed {
	uint32_t bytes;
	uint64_t raw_bytes;
	uint8_t digest[16];
} __attribute__((packed));

/* ---- frames ---- */

static void put(struct evbuffer *out, enum kind kind, const void *data, size_t length)
{
	uint8_t header[HEADER] = { (uint8_t)kind };
	uint32_t size = (uint32_t)length;

	memcpy(header + 1, &size, sizeof(size));
	evbuffer_add(out, header, HEADER);
	evbuffer_add(out, data, length);
}

/* 1: a whole frame, its *data borrowed until drained (HEADER + *length); 0: not there yet; -1: not a frame. */
static int peek(struct evbuffer *in, enum kind *kind, const uint8_t **data, uint32_t *length)
{
	size_t there = evbuffer_get_length(in);
	const uint8_t *bytes;

	if (there < HEADER)
		return 0;
	bytes = evbuffer_pullup(in, HEADER);
	memcpy(length, bytes + 1, sizeof(*length));
	*kind = bytes[0];
	if (*kind < MESSAGE || *kind > BROKE || *length > NOVA_MESSAGE_MAX)
		return -1;
	if (there < HEADER + *length)
		return 0;
	*data = evbuffer_pullup(in, (ev_ssize_t)(HEADER + *length)) + HEADER;
	return 1;
}

/* ---- the child's side: a channel for its pipe ---- */

struct inside {
	struct nova_channel channel; /* first */
	struct event_base *base;
	struct bufferevent *wire;
	const struct nova_channel_events *events;
	void *arg;
	struct nova_pipe *pipe;
	bool blocked;
};

static size_t inside_queued(const struct inside *inside)
{
	return evbuffer_get_length(bufferevent_get_output(inside->wire));
}

static size_t inside_room(struct nova_channel *channel)
{
	struct inside *inside = (struct inside *)channel;
	size_t queued = inside_queued(inside);

	inside->blocked = queued >= QUEUE_BYTES;
	return inside->blocked ? 0 : QUEUE_BYTES - queued;
}

static void inside_send(struct nova_channel *channel, struct nova_buf *buf)
{
	put(bufferevent_get_output(((struct inside *)channel)->wire), MESSAGE, buf->data, buf->length);
	nova_buf_free(buf);
}

static void inside_consumed(struct nova_channel *channel, size_t bytes)
{
	struct inside *inside = (struct inside *)channel;
	struct consumed consumed = { .bytes = (uint32_t)bytes };
	uint64_t raw_bytes = 0;

	nova_pipe_digest_in(inside->pipe, consumed.digest, &raw_bytes);
	consumed.raw_bytes = raw_bytes;
	put(bufferevent_get_output(inside->wire), CONSUMED, &consumed, sizeof(consumed));
}

static void inside_finish(struct nova_channel *channel)
{
	put(bufferevent_get_output(((struct inside *)channel)->wire), FINISH, "", 0);
}

static uint64_t inside_unacknowledged(struct nova_channel *channel)
{
	return inside_queued((struct inside *)channel);
}

static void inside_free(struct nova_channel *channel)
{
}

static const struct nova_channel_ops inside_ops = { inside_room, inside_send, inside_consumed, inside_finish,
	inside_unacknowledged, inside_free };

static void inside_events(struct nova_channel *channel, const struct nova_channel_events *events, void *arg)
{
	struct inside *inside = (struct inside *)channel;

	inside->events = events;
	inside->arg = arg;
}

static void inside_read(struct bufferevent *wire, void *arg)
{
	struct evbuffer *in = bufferevent_get_input(wire);
	struct inside *inside = arg;
	const uint8_t *data;
	enum kind kind;
	uint32_t length;

	while (peek(in, &kind, &data, &length) > 0) {
		if (kind == MESSAGE)
			inside->events->message(inside->arg, data, length);
		else if (kind == FINISHED)
			inside->events->closed(inside->arg, NULL);
		evbuffer_drain(in, HEADER + length);
	}
}

static void inside_written(struct bufferevent *wire, void *arg)
{
	struct inside *inside = arg;

	if (inside->blocked && inside_queued(inside) < QUEUE_BYTES) {
		inside->blocked = false;
		inside->events->room(inside->arg);
	}
}

static void inside_gone(struct bufferevent *wire, short what, void *arg)
{
	_exit(0); /* nobody is left to work for */
}

static void inside_ended(void *arg, unsigned ended, const struct nova_error *err)
{
	struct inside *inside = arg;
	uint32_t bits = ended;

	if (err)
		put(bufferevent_get_output(inside->wire), BROKE, err, sizeof(*err));
	else
		put(bufferevent_get_output(inside->wire), ENDED, &bits, sizeof(bits));
}

static void default_signals(void)
{
	sigset_t none;

	for (int i = 1; i < NSIG; i++)
		signal(i, SIG_DFL);
	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

/* Nothing of ours but the two sockets is open from here on; they get the numbers 3 and 4. */
static int keep_two(int *wire, int *socket)
{
	int high_wire = fcntl(*wire, F_DUPFD_CLOEXEC, 1000), high_socket = fcntl(*socket, F_DUPFD_CLOEXEC, 1000);
	int null = open("/dev/null", O_RDWR);

	if (high_wire < 0 || high_socket < 0 || null < 0 || dup2(null, 0) < 0 || dup2(null, 1) < 0 || dup2(null, 2) < 0 ||
	    dup3(high_wire, 3, O_CLOEXEC) < 0 || dup3(high_socket, 4, O_CLOEXEC) < 0)
		return -1;
	*wire = 3;
	*socket = 4;
	return close_range(5, ~0u, 0);
}

static _Noreturn void inside_main(int wire, int socket, const struct nova_pipe_options *options,
    const struct nova_confinement *confinement, pid_t parent)
{
	static const struct nova_link_ops links = { .channel_events = inside_events };
	struct inside inside = { .channel.ops = &inside_ops };
	struct nova_error err;

	default_signals();
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	prctl(PR_SET_NAME, "novacron-decode");
	if (getppid() != parent || keep_two(&wire, &socket) < 0)
		_exit(2);
	inside.base = event_base_new();
	inside.wire = inside.base ? bufferevent_socket_new(inside.base, wire, 0) : NULL;
	if (!inside.wire)
		_exit(3);
	bufferevent_setcb(inside.wire, inside_read, inside_written, inside_gone, &inside);
	bufferevent_setwatermark(inside.wire, EV_WRITE, QUEUE_BYTES / 2, 0);
	inside.pipe = nova_pipe_new(inside.base, &links, socket, &inside.channel, options, inside_ended, &inside, &err);
	if (!inside.pipe)
		put(bufferevent_get_output(inside.wire), BROKE, &err, sizeof(err));
	if (nova_confinement_wear(confinement) < 0)
		_exit(4);
	bufferevent_enable(inside.wire, inside.pipe ? EV_READ | EV_WRITE : EV_WRITE);
	event_base_dispatch(inside.base);
	_exit(0);
}

/* ---- ours ---- */

struct nova_pipe_child {
	struct nova_channel *channel; /* owned; NULL: dead */
	struct bufferevent *wire;     /* owned */
	struct event *report;         /* owned */
	pid_t pid;
	nova_pipe_fn fn;
	void *arg;
	uint64_t unread; /* bytes of messages that the child has not consumed */
	uint64_t raw_bytes;
	uint8_t digest[16];
	bool broken, finished;
	unsigned ended, reported;
	struct nova_error error;
};

static const struct timeval at_once = { 0, 0 };

static void on_report(evutil_socket_t fd, short what, void *arg)
{
	struct nova_pipe_child *child = arg;

	if (child->broken) {
		child->fn(child->arg, child->ended, &child->error);
	} else if (child->ended != child->reported) {
		child->reported = child->ended;
		child->fn(child->arg, child->ended, NULL);
	}
}

static void broke(struct nova_pipe_child *child, const struct nova_error *err)
{
	if (child->broken)
		return;
	child->broken = true;
	nova_error_copy(&child->error, err);
	bufferevent_disable(child->wire, EV_READ | EV_WRITE);
	event_add(child->report, &at_once);
}

/* What it says is believed no more than what the peer says. */
static void child_lies(struct nova_pipe_child *child)
{
	struct nova_error err;

	nova_error_set(&err, NOVA_INVALID, "the decoder's process speaks nonsense");
	broke(child, &err);
}

static void to_channel(struct nova_pipe_child *child, const uint8_t *data, uint32_t length)
{
	struct nova_buf *buf = length ? nova_buf_new(length) : NULL;

	if (!buf || !child->channel) {
		nova_buf_free(buf);
		child_lies(child);
		return;
	}
	memcpy(buf->data, data, length);
	buf->length = length;
	child->channel->ops->send(child->channel, buf);
}

static void take_consumed(struct nova_pipe_child *child, const uint8_t *data, uint32_t length)
{
	struct consumed consumed;

	if (length != sizeof(consumed)) {
		child_lies(child);
		return;
	}
	memcpy(&consumed, data, sizeof(consumed));
	child->raw_bytes = consumed.raw_bytes;
	memcpy(child->digest, consumed.digest, sizeof(child->digest));
	if (child->unread < consumed.bytes) {
		child_lies(child);
		return;
	}
	child->unread -= consumed.bytes;
	if (child->channel && consumed.bytes)
		child->channel->ops->consumed(child->channel, consumed.bytes);
}

static void take_error(struct nova_pipe_child *child, const uint8_t *data, uint32_t length)
{
	struct nova_error err;

	if (length != sizeof(err)) {
		child_lies(child);
		return;
	}
	memcpy(&err, data, sizeof(err));
	err.text[sizeof(err.text) - 1] = 0;
	if (err.category <= NOVA_OK || err.category >= NOVA_CATEGORIES)
		err.category = NOVA_INVALID;
	broke(child, &err);
}

static void take_ended(struct nova_pipe_child *child, const uint8_t *data, uint32_t length)
{
	uint32_t bits = 0;

	if (length == sizeof(bits))
		memcpy(&bits, data, sizeof(bits));
	child->ended |= bits & (NOVA_PIPE_TO_CHANNEL | NOVA_PIPE_TO_SOCKET);
	event_add(child->report, &at_once);
}

static void take(struct nova_pipe_child *child, enum kind kind, const uint8_t *data, uint32_t length)
{
	if (kind == MESSAGE)
		to_channel(child, data, length);
	else if (kind == CONSUMED)
		take_consumed(child, data, length);
	else if (kind == FINISH && child->channel && !child->finished) {
		child->finished = true;
		child->channel->ops->finish(child->channel);
	} else if (kind == ENDED)
		take_ended(child, data, length);
	else if (kind == BROKE)
		take_error(child, data, length);
	else
		child_lies(child);
}

static void take_all(struct nova_pipe_child *child)
{
	struct evbuffer *in = bufferevent_get_input(child->wire);
	const uint8_t *data;
	enum kind kind;
	uint32_t length;
	int got = 0;

	while (!child->broken && (got = peek(in, &kind, &data, &length)) > 0) {
		take(child, kind, data, length);
		evbuffer_drain(in, HEADER + length);
	}
	if (got < 0)
		child_lies(child);
}

static void on_read(struct bufferevent *wire, void *arg)
{
	take_all(arg);
}

static void on_gone(struct bufferevent *wire, short what, void *arg)
{
	struct nova_pipe_child *child = arg;
	struct nova_error err;
	siginfo_t how = { 0 };

	/* Its socket closes before it can be waited for. What it is dying of already stays its status. */
	kill(child->pid, SIGKILL);
	while (waitid(P_PID, (id_t)child->pid, &how, WEXITED | WNOWAIT) < 0 && errno == EINTR)
		;
	if (how.si_code == CLD_KILLED || how.si_code == CLD_DUMPED)
		nova_error_set(&err, NOVA_SYSTEM, "the decoder's process was killed by signal %d (%s)", how.si_status,
		    how.si_status == SIGSYS ? "it did what it must not" : strsignal(how.si_status));
	else
		nova_error_set(&err, NOVA_SYSTEM, "the decoder's process has ended");
	broke(child, &err);
}

static void channel_message(void *arg, const uint8_t *data, size_t length)
{
	struct nova_pipe_child *child = arg;

	if (child->broken)
		return;
	child->unread += length;
	put(bufferevent_get_output(child->wire), MESSAGE, data, length);
}

/* Its pipe asks nobody for room: what it sends is little. */
static void channel_room(void *arg)
{
}

static void channel_closed(void *arg, const struct nova_error *err)
{
	struct nova_pipe_child *child = arg;

	if (!err) {
		put(bufferevent_get_output(child->wire), FINISHED, "", 0);
		return;
	}
	child->channel->ops->free(child->channel);
	child->channel = NULL;
	broke(child, err);
}

static const struct nova_channel_events channel_events = { channel_message, channel_room, channel_closed };

static int start_child(struct nova_pipe_child *child, struct event_base *base, int socket,
    const struct nova_pipe_options *options, struct nova_error *err)
{
	struct nova_confinement *confinement = nova_confinement_new_worker(err);
	int wire[2], failed = 0;
	pid_t parent = getpid();
	sigset_t all, mask;

	if (!confinement)
		return -1;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, wire) < 0) {
		nova_confinement_free(confinement);
		return nova_error_sys(err, errno, "the decoder's process");
	}
	/* a handler of the host program must not run in the child */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &mask);
	child->pid = fork();
	if (child->pid == 0)
		inside_main(wire[1], socket, options, confinement, parent);
	pthread_sigmask(SIG_SETMASK, &mask, NULL);
	if (child->pid < 0)
		failed = nova_error_sys(err, errno, "the decoder's process");
	nova_confinement_free(confinement);
	close(wire[1]);
	child->wire = failed ? NULL : bufferevent_socket_new(base, wire[0], BEV_OPT_CLOSE_ON_FREE);
	if (!child->wire)
		close(wire[0]);
	return failed;
}

static int check_options(const struct nova_pipe_options *options, struct nova_error *err)
{
	if (options->in.baseline || options->in.spool)
		return nova_error_set(err, NOVA_INVALID, "a decoder in a process of its own has no files: no baseline, no spool");
	return 0;
}

struct nova_pipe_child *nova_pipe_child_new(struct event_base *base, const struct nova_link_ops *links, int fd,
    struct nova_channel *channel, const struct nova_pipe_options *options, nova_pipe_fn fn, void *arg,
    struct nova_error *err)
{
	struct nova_pipe_child *child = calloc(1, sizeof(*child));
	int failed;

	if (!child) {
		close(fd);
		channel->ops->free(channel);
		nova_error_sys(err, ENOMEM, "the decoder's process");
		return NULL;
	}
	*child = (struct nova_pipe_child){ .channel = channel, .pid = -1, .fn = fn, .arg = arg };
	child->report = evtimer_new(base, on_report, child);
	failed = check_options(options, err) < 0 || start_child(child, base, fd, options, err) < 0;
	close(fd);
	if (failed)
		return nova_pipe_child_free(child);
	if (!child->report || !child->wire) {
		nova_error_sys(err, ENOMEM, "the decoder's process");
		return nova_pipe_child_free(child);
	}
	bufferevent_setcb(child->wire, on_read, NULL, on_gone, child);
	bufferevent_enable(child->wire, EV_READ | EV_WRITE);
	links->channel_events(channel, &channel_events, child);
	return child;
}

struct nova_pipe_child *nova_pipe_child_free(struct nova_pipe_child *child)
{
	if (!child)
		return NULL;
	if (child->pid > 0) {
		kill(child->pid, SIGKILL); /* not waited for yet: the pid is still its own */
		while (waitpid(child->pid, NULL, 0) < 0 && errno == EINTR)
			;
	}
	if (child->wire)
		bufferevent_free(child->wire);
	if (child->report)
		event_free(child->report);
	if (child->channel)
		child->channel->ops->free(child->channel);
	free(child);
	return NULL;
}

/* The hypervisor may say that it has everything before the child's word has come through: it is on its way. */
void nova_pipe_child_digest_in(
    struct nova_pipe_child *child, uint64_t raw_bytes_wanted, uint8_t digest[16], uint64_t *raw_bytes)
{
	struct pollfd readable = { .fd = bufferevent_getfd(child->wire), .events = POLLIN };
	struct evbuffer *in = bufferevent_get_input(child->wire);

	take_all(child);
	while (!child->broken && child->raw_bytes < raw_bytes_wanted && poll(&readable, 1, DIGEST_WAIT_MS) > 0) {
		/* behind libevent's back, but into its buffer and between two of its turns */
		int got = evbuffer_unfreeze(in, 0) < 0 ? -1 : evbuffer_read(in, readable.fd, -1);

		evbuffer_freeze(in, 0);
		if (got <= 0)
			break;
		take_all(child);
	}
	memcpy(digest, child->digest, sizeof(child->digest));
	*raw_bytes = child->raw_bytes;
}

pid_t nova_pipe_child_pid(const struct nova_pipe_child *child)
{
	return child->pid;
}
