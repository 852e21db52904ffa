/* SPDX-License-Identifier: Apache-2.0
 *
 * agent.c - one question to the agent in a guest, over the unix socket of its virtio port.
 *
 * Protocol: QEMU's docs/interop/qemu-ga-ref. There is no greeting, answers need not carry an id, and what an earlier client
 * did not read may still come. So a connection is for one command, and begins with a byte that is in no JSON text (0xFF)
 * and guest-sync-delimited with a number of our own: what comes before 0xFF and that number belongs to somebody else. The
 * command is sent only when the agent has answered that: one that sleeps does not find it, and do it, when it wakes up.
 *
 * Whatever comes here is the guest's own: at most MESSAGE_BYTES and DEPTH of it are held, for as long as the limits say.
 */
#include "client.h"
#include "engine/cleanup.h"
#include "engine/clock.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>

#define MESSAGE_BYTES 65536u
#define DEPTH 16
#define SYNC_MS 2000
#define DELIMITER '\xff'

struct agent {
	struct nova_op op; /* first */
	struct qmp_wire wire;
	struct event *timer; /* owned */
	const char *command; /* static, the caller's */
	uint32_t number;
	int limit_ms;
	bool delimited; /* 0xFF has come: what follows is JSON */
	bool synced;
	nova_done_fn done;
	void *arg;
};

static void agent_drop(struct nova_op *op)
{
	struct agent *agent = (struct agent *)op;

	qmp_wire_close(&agent->wire);
	if (agent->timer)
		event_free(agent->timer);
	free(agent);
}

static void end(struct agent *agent, json_t *result, const struct nova_error *why)
{
	nova_done_fn done = agent->done;
	void *arg = agent->arg;
	struct nova_error refusal;

	if (why)
		nova_error_set(&refusal, NOVA_REFUSED, "guest agent: %.400s", why->text);
	agent_drop(&agent->op);
	done(arg, result, why ? &refusal : NULL);
}

static void limit(evutil_socket_t fd, short what, void *arg)
{
	struct agent *agent = arg;
	struct nova_error why;

	nova_error_set(&why, NOVA_TIMEOUT, "no answer to %s within %d s", agent->synced ? agent->command : "guest-sync-delimited",
	    (agent->synced ? agent->limit_ms : SYNC_MS) / 1000);
	end(agent, NULL, &why);
}

static int ask(struct agent *agent, const char *text, int limit_ms, struct nova_error *err)
{
	const struct timeval wait = nova_timeval_ms(limit_ms);

	if (event_add(agent->timer, &wait) < 0)
		return nova_error_sys(err, ENOMEM, "a timer");
	return qmp_wire_queue(&agent->wire, text, strlen(text), -1, err);
}

static int send_command(struct agent *agent, struct nova_error *err)
{
	char text[128];

	agent->synced = true;
	snprintf(text, sizeof(text), "{\"execute\":\"%s\"}\n", agent->command);
	return ask(agent, text, agent->limit_ms, err);
}

/* A message after the delimiter: 1 when the conversation is over, and agent gone. */
static int hear(struct agent *agent, json_t *message, struct nova_error *err)
{
	json_t *result = json_object_get(message, "return"), *error = json_object_get(message, "error");

	if (!agent->synced) /* another number: the answer that somebody else did not wait for */
		return json_integer_value(result) == agent->number ? send_command(agent, err) : 0;
	if (error) {
		qmp_error_decode(error, err);
		return -1;
	}
	if (!result)
		return 0;
	end(agent, result, NULL);
	return 1;
}

static int hear_all(struct agent *agent, struct nova_error *err)
{
	json_t *message;
	int got;

	while ((got = qmp_reader_next(&agent->wire.reader, &message, err)) == 1) {
		NOVA_AUTOJSON json_t *owned = message;

		if ((got = hear(agent, owned, err)) != 0)
			break;
	}
	return got;
}

/* What was begun before a delimiter is nobody's. */
static int feed(struct agent *agent, const char *bytes, size_t length, struct nova_error *err)
{
	const struct qmp_limits limits = { .message_bytes = MESSAGE_BYTES, .depth = DEPTH };
	const char *delimiter = memrchr(bytes, DELIMITER, length);

	if (delimiter) {
		qmp_reader_release(&agent->wire.reader);
		qmp_reader_init(&agent->wire.reader, &limits);
		agent->delimited = true;
		length -= (size_t)(delimiter + 1 - bytes);
		bytes = delimiter + 1;
	}
	if (!agent->delimited || !length)
		return 0;
	if (qmp_reader_feed(&agent->wire.reader, bytes, length, err) < 0)
		return -1;
	return hear_all(agent, err);
}

static void on_read(evutil_socket_t fd, short what, void *arg)
{
	struct agent *agent = arg;
	char bytes[4096];
	ssize_t got = recv(fd, bytes, sizeof(bytes), MSG_DONTWAIT);
	struct nova_error err;

	if (got < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (got > 0 && feed(agent, bytes, (size_t)got, &err) >= 0)
		return;
	if (got <= 0)
		nova_error_set(&err, NOVA_LINK, "the connection is lost");
	end(agent, NULL, &err);
}

static void on_write(evutil_socket_t fd, short what, void *arg)
{
	struct agent *agent = arg;
	struct nova_error err;

	if (qmp_wire_flush(&agent->wire, &err) < 0)
		end(agent, NULL, &err);
}

static int connect_to(const char *path, struct nova_error *err)
{
	NOVA_AUTOCLOSE int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	struct sockaddr_un address;

	if (fd < 0)
		return nova_error_sys(err, errno, "guest agent: a socket");
	if (qmp_wire_address(&address, path, err) < 0)
		return -1;
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
		return nova_error_set(err, NOVA_REFUSED, "guest agent: %s: %s", path, strerrordesc_np(errno));
	return nova_take_fd(&fd);
}

struct nova_op *qmp_agent_ask(struct event_base *base, const char *path, const char *command, int limit_ms,
    nova_done_fn done, void *arg, struct nova_error *err)
{
	const struct qmp_limits limits = { .message_bytes = MESSAGE_BYTES, .depth = DEPTH };
	struct agent *agent = calloc(1, sizeof(*agent));
	char text[128];
	int fd;

	if (!agent || getrandom(&agent->number, sizeof(agent->number), 0) != sizeof(agent->number)) {
		free(agent);
		nova_error_sys(err, ENOMEM, "guest agent");
		return NULL;
	}
	agent->op.drop = agent_drop;
	agent->wire = (struct qmp_wire)QMP_WIRE_CLOSED;
	agent->command = command;
	agent->limit_ms = limit_ms;
	agent->done = done;
	agent->arg = arg;
	agent->timer = evtimer_new(base, limit, agent);
	snprintf(text, sizeof(text), "%c{\"execute\":\"guest-sync-delimited\",\"arguments\":{\"id\":%u}}\n", DELIMITER, agent->number);
	if (!agent->timer)
		nova_error_sys(err, ENOMEM, "guest agent");
	else if ((fd = connect_to(path, err)) >= 0 &&
		 qmp_wire_open(&agent->wire, base, fd, &limits, on_read, on_write, agent, err) == 0 &&
		 ask(agent, text, SYNC_MS, err) == 0)
		return &agent->op;
	agent_drop(&agent->op);
	return NULL;
}
