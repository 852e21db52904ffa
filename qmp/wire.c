/* SPDX-License-Identifier: Apache-2.0
 *
 * wire.c - one end of a QMP connection over a unix socket.
 *
 * A turn of the loop reads at most 32 KiB from a socket, so that a peer that never stops talking costs the
 * others about a millisecond. Descriptors that a peer sends to us are discarded by the kernel, since we read
 * with recv(). Not here: how much may be queued (the owners know what it means when a queue is full).
 */
#include "wire.h"
#include "engine/cleanup.h"

#include <errno.h>
#include <event2/buffer.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#define READ_BYTES (32u * 1024)
#define WRITE_PARTS 16

int qmp_wire_address(struct sockaddr_un *address, const char *path, struct nova_error *err)
{
	size_t length = strlen(path);

	if (length == 0 || length >= sizeof(address->sun_path))
		return nova_error_set(err, NOVA_INVALID,
		    "socket path %s has %zu bytes; 1 to %zu are possible", path, length,
		    sizeof(address->sun_path) - 1);
	*address = (struct sockaddr_un) { .sun_family = AF_UNIX };
	memcpy(address->sun_path, path, length);
	return 0;
}

int qmp_wire_open(struct qmp_wire *wire, struct event_base *base, int fd, const struct qmp_limits *limits,
    event_callback_fn on_read, event_callback_fn on_write, void *arg, struct nova_error *err)
{
	*wire = (struct qmp_wire) { .fd = fd, .pass_fd = -1 };
	qmp_reader_init(&wire->reader, limits);
	wire->readable = event_new(base, fd, EV_READ | EV_PERSIST, on_read, arg);
	wire->writable = event_new(base, fd, EV_WRITE | EV_PERSIST, on_write, arg);
	wire->look = event_new(base, -1, EV_PERSIST, on_read, arg);
	wire->out = evbuffer_new();
	if (wire->readable && wire->writable && wire->look && wire->out &&
	    event_add(wire->readable, NULL) == 0)
		return 0;
	qmp_wire_close(wire);
	return nova_error_sys(err, ENOMEM, "no memory for a connection");
}

static void free_event(struct event **event)
{
	if (*event)
		event_free(*event);
	*event = NULL;
}

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

void qmp_wire_close(struct qmp_wire *wire)
{
	free_event(&wire->readable);
	free_event(&wire->writable);
	free_event(&wire->look);
	if (wire->out)
		evbuffer_free(wire->out);
	wire->out = NULL;
	close_fd(&wire->fd);
	close_fd(&wire->pass_fd);
	qmp_reader_release(&wire->reader);
}

int qmp_wire_read(struct qmp_wire *wire, struct nova_error *err)
{
	char bytes[READ_BYTES];
	ssize_t got = recv(wire->fd, bytes, sizeof(bytes), MSG_DONTWAIT | MSG_PEEK);

	if (got > 0) {
		if (qmp_reader_feed(&wire->reader, bytes, (size_t)got, err) < 0)
			return -1; /* they stay in the socket */
		return recv(wire->fd, bytes, (size_t)got, MSG_DONTWAIT) == got ? 1 : nova_error_set(err, NOVA_LINK, "reading failed");
	}
	if (got == 0)
		return nova_error_set(err, NOVA_LINK, "closed by the peer");
	if (errno == EAGAIN || errno == EINTR)
		return 0;
	return nova_error_set(err, NOVA_LINK, "reading failed: %s", strerrordesc_np(errno));
}

/* libevent's EV_CLOSED would tell at once, but spins when a peer dies with unread bytes (EPOLLERR alone). */
void qmp_wire_pause(struct qmp_wire *wire, bool pause)
{
	const struct timeval second = { 1, 0 };

	if (pause) {
		event_del(wire->readable);
		event_add(wire->look, &second);
	} else {
		event_del(wire->look);
		event_add(wire->readable, NULL);
	}
}

void qmp_wire_stop(struct qmp_wire *wire)
{
	event_del(wire->readable);
	event_del(wire->look);
}

bool qmp_wire_hung_up(const struct qmp_wire *wire)
{
	struct pollfd peer = { .fd = wire->fd, .events = POLLRDHUP };

	return poll(&peer, 1, 0) > 0 && peer.revents;
}

size_t qmp_wire_queued(const struct qmp_wire *wire)
{
	return wire->out ? evbuffer_get_length(wire->out) : 0;
}

int qmp_wire_reserve(struct qmp_wire *wire, size_t length, struct nova_error *err)
{
	if (evbuffer_expand(wire->out, length) < 0 || event_add(wire->writable, NULL) < 0)
		return nova_error_sys(err, ENOMEM, "no memory for a message of %zu bytes", length);
	return 0;
}

int qmp_wire_queue(
    struct qmp_wire *wire, const void *data, size_t length, int pass_fd, struct nova_error *err)
{
	NOVA_AUTOCLOSE int fd = pass_fd;
	size_t before = evbuffer_get_length(wire->out);

	if (evbuffer_add(wire->out, data, length) < 0 || event_add(wire->writable, NULL) < 0)
		return nova_error_sys(err, ENOMEM, "no memory for a message of %zu bytes", length);
	if (fd >= 0) {
		wire->pass_fd = nova_take_fd(&fd);
		wire->pass_after = before;
	}
	return 0;
}

/* Put the descriptor into the message's ancillary data. */
static void attach(struct msghdr *message, void *control, size_t control_bytes, int fd)
{
	struct cmsghdr *header = control;

	memset(control, 0, control_bytes);
	header->cmsg_level = SOL_SOCKET;
	header->cmsg_type = SCM_RIGHTS;
	header->cmsg_len = CMSG_LEN(sizeof(fd));
	memcpy(CMSG_DATA(header), &fd, sizeof(fd));
	message->msg_control = control;
	message->msg_controllen = control_bytes;
}

/* One sendmsg(): up to the byte the descriptor belongs to, or from that byte on together with it. */
static ssize_t send_some(struct qmp_wire *wire)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(int))];
	} control;
	struct evbuffer_iovec parts[WRITE_PARTS];
	bool before_fd = wire->pass_fd >= 0 && wire->pass_after > 0;
	size_t limit = before_fd ? wire->pass_after : evbuffer_get_length(wire->out);
	int count = evbuffer_peek(wire->out, (ev_ssize_t)limit, NULL, parts, WRITE_PARTS);
	struct msghdr message = { .msg_iov = parts,
		.msg_iovlen = count < WRITE_PARTS ? (size_t)count : WRITE_PARTS };
	size_t sum = 0;

	for (size_t i = 0; i < message.msg_iovlen; i++) {
		if (parts[i].iov_len > limit - sum)
			parts[i].iov_len = limit - sum;
		sum += parts[i].iov_len;
	}
	if (wire->pass_fd >= 0 && !before_fd)
		attach(&message, &control, sizeof(control), wire->pass_fd);
	return sendmsg(wire->fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
}

int qmp_wire_flush(struct qmp_wire *wire, struct nova_error *err)
{
	while (evbuffer_get_length(wire->out) > 0) {
		ssize_t sent = send_some(wire);

		if (sent < 0 && errno == EINTR)
			continue;
		if (sent < 0 && errno == EAGAIN)
			return 0;
		if (sent < 0)
			return nova_error_set(err, NOVA_LINK, "writing failed: %s", strerrordesc_np(errno));
		evbuffer_drain(wire->out, (size_t)sent);
		if (wire->pass_fd >= 0 && wire->pass_after == 0)
			close_fd(&wire->pass_fd);
		else if (wire->pass_fd >= 0)
			wire->pass_after -= (size_t)sent;
	}
	event_del(wire->writable);
	return 0;
}
