/* SPDX-License-Identifier: Apache-2.0
 *
 * fuzz_grpc.c - what containerd, or whoever sits at its socket, may answer: HTTP/2 frames with gRPC messages in them, in
 * two parts, to a call with one answer and one with many; or a message by itself, as every type that we take.
 *
 * The first byte chooses; for HTTP/2 the second says how long the first part is. What must hold beyond memory: each call ends
 * exactly once, with an answer or with an error that has a text.
 */
#include <event2/event.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "drivers/containerd/api.pb-c.h"
#include "engine/cleanup.h"
#include "scratch.h"
#include "transport/grpc_json.h"

static const ProtobufCMessageDescriptor *const types[] = { &ctrd__version_response__descriptor, &ctrd__plugins_response__descriptor,
	&ctrd__image_list__descriptor, &ctrd__read_response__descriptor, &ctrd__write_response__descriptor, &ctrd__mounts__descriptor,
	&ctrd__snapshot_stat__descriptor, &ctrd__apply_response__descriptor, &ctrd__diff_response__descriptor,
	&ctrd__container_list__descriptor, &ctrd__task_got__descriptor, &ctrd__task_list__descriptor, &ctrd__task_waited__descriptor,
	&ctrd__envelope__descriptor, &ctrd__task_exit_event__descriptor, &ctrd__container_event__descriptor,
	&ctrd__runc_options__descriptor };

struct ending {
	struct nova_op *op;
	unsigned times;
};

static void done(void *arg, json_t *result, const struct nova_error *err)
{
	struct ending *ending = arg;

	require(!!result != !!err, "a call has an answer or an error");
	require(!err || err->text[0], "an error has a text");
	ending->op = NULL;
	ending->times++;
}

static void each(void *arg, json_t *value)
{
	require(json_is_object(value), "a message is an object");
}

static void message(const uint8_t *data, size_t size)
{
	const ProtobufCMessageDescriptor *type = types[data[0] % (sizeof(types) / sizeof(*types))];
	struct nova_error err = { 0 };
	json_t *value = grpc_json_unpack(type, data + 1, size - 1, &err);
	size_t length;

	require(value || err.text[0], "a message that is none has a reason");
	if (value) {
		void *again = grpc_json_pack(type, value, &length, &err);

		free(again);
		json_decref(value);
	}
}

static const char *socket_path(int *listener)
{
	static struct sockaddr_un address = { .sun_family = AF_UNIX };
	static int fd = -1;

	if (fd < 0) {
		snprintf(address.sun_path, sizeof(address.sun_path), "%s/grpc", scratch());
		fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
		require(fd >= 0 && bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0 && listen(fd, 8) == 0, "a socket");
	}
	*listener = fd;
	return address.sun_path;
}

static void turns(struct event_base *base, unsigned n)
{
	while (n--)
		event_base_loop(base, EVLOOP_NONBLOCK);
}

static void say(int fd, struct event_base *base, const uint8_t *data, size_t size)
{
	ssize_t sent = size ? send(fd, data, size, MSG_NOSIGNAL) : 0;

	(void)sent; /* the client may have hung up already */
	turns(base, 4);
}

static void wire(const uint8_t *data, size_t size)
{
	static const struct grpc_method many = { "/fuzz.Many", &ctrd__filters__descriptor, &ctrd__container_list__descriptor };
	static const struct grpc_method one = { "/fuzz.One", &ctrd__filters__descriptor, &ctrd__task_list__descriptor };
	struct grpc_options stream = { .each = each }, single = { .tolerated = 1u << GRPC_NOT_FOUND };
	struct ending endings[2] = { 0 };
	struct event_base *base = event_base_new();
	size_t first = (size - 1) * data[0] / 255;
	struct nova_error err;
	int listener;
	const char *path = socket_path(&listener);
	struct grpc *grpc = grpc_new(base, "fuzz", path, &err);

	require(grpc != NULL, "a client");
	endings[0].op = grpc_ask(grpc, &one, NULL, &single, done, &endings[0], &err);
	endings[1].op = grpc_ask(grpc, &many, NULL, &stream, done, &endings[1], &err);
	require(endings[0].op && endings[1].op, "two calls");
	turns(base, 1);
	NOVA_AUTOCLOSE int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	require(fd >= 0, "a connection");
	turns(base, 2);
	say(fd, base, data + 1, first);
	say(fd, base, data + 1 + first, size - 1 - first);
	shutdown(fd, SHUT_RDWR);
	turns(base, 6);
	require(endings[0].times == 1 && endings[1].times == 1, "each call ends once");
	grpc_free(grpc);
	event_base_free(base);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size > 2 && data[0] & 1)
		message(data + 1, size - 1);
	else if (size > 2)
		wire(data + 1, size - 1);
	return 0;
}
