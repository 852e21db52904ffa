/* SPDX-License-Identifier: Apache-2.0
 *
 * relay.c - `novacron relay`: join two unix sockets over the accelerated link, for those whose QEMU belongs
 * to somebody else. No daemon takes part; the library's relay runs on a loop of this process.
 */
#include "tools/exitcode.h"
#include "tools/relay.h"
#include "tools/views.h"
#include <event2/event.h>
#include <errno.h>
#include <signal.h>
#include <string.h>

static const struct nova_param relay_params[] = {
	{ .name = "mode",
	    .type = NOVA_T_CHOICE,
	    .choices = "listen|connect",
	    .required = true,
	    .positional = true,
	    .metavar = "listen|connect",
	    .help = "listen: wait for the other relay and connect to --unix; "
	            "connect: listen on --unix and dial the other relay" },
	{ .name = "address",
	    .type = NOVA_T_STRING,
	    .required = true,
	    .metavar = "HOST:PORT",
	    .help = "where to listen (port 0: any) or whom to dial" },
	{ .name = "unix",
	    .type = NOVA_T_PATH,
	    .required = true,
	    .metavar = "SOCKET",
	    .help = "the local unix socket; listen connects to it, connect creates it" },
	{ .name = "peer",
	    .type = NOVA_T_STRING,
	    .required = true,
	    .metavar = "NAME",
	    .help = "name that the other side's certificate must carry" },
	{ .name = "cert",
	    .type = NOVA_T_PATH,
	    .required = true,
	    .metavar = "FILE",
	    .help = "our certificate (PEM)" },
	{ .name = "key",
	    .type = NOVA_T_PATH,
	    .required = true,
	    .metavar = "FILE",
	    .help = "its private key (PEM)" },
	{ .name = "ca",
	    .type = NOVA_T_PATH,
	    .required = true,
	    .metavar = "FILE",
	    .help = "certificates of the authorities that are trusted (PEM)" },
	{ .name = "codec",
	    .type = NOVA_T_STRING,
	    .fallback = "lz4",
	    .metavar = "CODEC",
	    .help = "how the stream is packed: lz4, none" },
	{ .name = "bandwidth",
	    .type = NOVA_T_RATE,
	    .fallback = "0",
	    .metavar = "RATE",
	    .help = "most bits a second on the link; 0: no limit" },
	{ 0 },
};

const struct nova_command relay_command = {
	.name = "relay",
	.help = "join two unix sockets over the accelerated link, without a daemon",
	.params = relay_params,
};

struct relay_run {
	struct event_base *base;
	bool json, over, interrupted, failed;
	struct nova_error error;
	json_t *result;
};

static void on_event(void *arg, const char *event, json_t *data)
{
	struct relay_run *run = arg;
	json_t *line;

	if (!run->json) {
		fprintf(stderr, "%s\n", event);
		return;
	}
	line = json_pack("{ss sO*}", "event", event, "data", data);
	json_dumpf(line, stdout, JSON_COMPACT);
	putchar('\n');
	fflush(stdout);
	json_decref(line);
}

static void on_done(void *arg, json_t *result, const struct nova_error *err)
{
	struct relay_run *run = arg;

	run->over = true;
	run->failed = err != NULL;
	if (err)
		run->error = *err;
	run->result = json_incref(result);
	event_base_loopbreak(run->base);
}

static void on_interrupt(evutil_socket_t number, short what, void *arg)
{
	struct relay_run *run = arg;

	run->interrupted = true;
	event_base_loopbreak(run->base);
}

static const char *text_of(const json_t *args, const char *name)
{
	return json_string_value(json_object_get(args, name));
}

static struct nova_relay *open_relay(struct relay_run *run, const json_t *args, struct nova_error *err)
{
	struct nova_relay_config config = {
		.struct_size = sizeof(config),
		.listen_tls = !strcmp(text_of(args, "mode"), "listen"),
		.address = text_of(args, "address"),
		.peer = text_of(args, "peer"),
		.cert = text_of(args, "cert"),
		.key = text_of(args, "key"),
		.ca = text_of(args, "ca"),
		.unix_path = text_of(args, "unix"),
		.codec = text_of(args, "codec") ? text_of(args, "codec") : "lz4",
		.rate_bps = (uint64_t)json_integer_value(json_object_get(args, "bandwidth")),
	};

	return nova_relay_new(run->base, &config, on_event, on_done, run, err);
}

static void announce(const struct relay_run *run, const struct nova_relay *relay, const json_t *args)
{
	bool listens = !strcmp(text_of(args, "mode"), "listen");
	int port = nova_relay_port(relay);

	if (run->json) {
		json_t *data = json_pack("{si}", "port", port);
		on_event((void *)run, "RELAY_READY", data);
		json_decref(data);
	} else if (listens) {
		fprintf(stderr, "novacron: waiting for %s on port %d\n", text_of(args, "peer"), port);
	} else {
		fprintf(stderr, "novacron: waiting for a stream on %s\n", text_of(args, "unix"));
	}
}

static int report(struct relay_run *run)
{
	if (run->interrupted && !run->over)
		return EXIT_INTERRUPTED;
	if (run->failed) {
		fprintf(stderr, "novacron: %s\n", run->error.text);
		return exit_of(run->error.category);
	}
	if (run->json && run->result) {
		json_dumpf(run->result, stdout, JSON_COMPACT);
		putchar('\n');
	} else if (run->result) {
		view_answer(stdout, "relay", run->result);
	}
	return 0;
}

int relay_run(json_t *args, bool json)
{
	struct relay_run run = { .base = event_base_new(), .json = json };
	struct event *interrupt = run.base ? evsignal_new(run.base, SIGINT, on_interrupt, &run) : NULL;
	struct event *end = run.base ? evsignal_new(run.base, SIGTERM, on_interrupt, &run) : NULL;
	struct nova_error err = { 0 };
	struct nova_relay *relay = NULL;
	int status;

	signal(SIGPIPE, SIG_IGN);
	if (interrupt && end && event_add(interrupt, NULL) == 0 && event_add(end, NULL) == 0)
		relay = open_relay(&run, args, &err);
	else
		nova_error_sys(&err, errno, "no event loop could be made");
	if (relay) {
		announce(&run, relay, args);
		while (!run.over && !run.interrupted && event_base_loop(run.base, EVLOOP_ONCE) == 0)
			;
		status = report(&run);
	} else {
		fprintf(stderr, "novacron: %s\n", err.text);
		status = exit_of(err.category);
	}
	nova_relay_free(relay);
	if (interrupt)
		event_free(interrupt);
	if (end)
		event_free(end);
	if (run.base)
		event_base_free(run.base);
	json_decref(run.result);
	return status;
}
