/* SPDX-License-Identifier: Apache-2.0
 *
 * relay.c - `novacron relay`: join two unix sockets over the accelerated link, for those whose QEMU belongs
 * to somebody else. No daemon takes part; the library's relay runs on a loop of this process.
 */
#include "tools/exitcode.h"
#include "tools/follow.h"
#include "tools/format.h"
#include "tools/progress_view.h"
#include "tools/relay.h"
#include "tools/views.h"
#include <event2/event.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
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
	    .help = "where to listen (port 0: any) or whom to dial; several to dial, with commas, are tried in turn" },
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
	    .type = NOVA_T_CHOICE,
	    .choices = "auto|none|lz4|zstd",
	    .fallback = "auto",
	    .metavar = "CODEC",
	    .help = "how the stream is packed; the connecting side's counts, as for the next four" },
	{ .name = "history",
	    .type = NOVA_T_BYTES,
	    .max = 1 << 30,
	    .fallback = "256M",
	    .metavar = "SIZE",
	    .help = "memory for the page history, on each side; 0: none" },
	{ .name = "bandwidth",
	    .type = NOVA_T_RATE,
	    .fallback = "0",
	    .metavar = "RATE",
	    .help = "most bits a second on the link; 0: no limit" },
	{ .name = "lanes",
	    .type = NOVA_T_INT,
	    .max = 16,
	    .fallback = "0",
	    .metavar = "COUNT",
	    .help = "TCP connections, 1 to 16; 0: chosen from rate and round trip" },
	{ .name = "resume-limit",
	    .type = NOVA_T_DURATION,
	    .max = 3600000,
	    .fallback = "5min",
	    .metavar = "DURATION",
	    .help = "how long a lost link is redialled; 0: not at all" },
	{ .name = "wait",
	    .type = NOVA_T_DURATION,
	    .max = 86400000,
	    .fallback = "5min",
	    .metavar = "DURATION",
	    .help = "how long to wait for the other relay and for a stream; 0: for ever" },
	{ 0 },
};

const struct nova_command relay_command = {
	.name = "relay",
	.help = "join two unix sockets over the accelerated link, without a daemon",
	.params = relay_params,
};

struct relay_run {
	struct event_base *base;
	struct nova_relay *relay;
	struct progress_view view;
	bool json, over, failed;
	int interrupted; /* how often */
	struct nova_error error;
	json_t *result;
};

static const char *text_of(const json_t *object, const char *name)
{
	const char *text = json_string_value(json_object_get(object, name));

	return text ? text : "";
}

/* ---- what the relay says ---- */

static void on_link(struct relay_run *run, const json_t *data)
{
	if (strcmp(text_of(data, "state"), "resumed"))
		return; /* the progress line says "reconnecting" */
	progress_clear(&run->view);
	fprintf(stderr, "novacron: the link is back after %s\n",
	    format_duration(json_number_value(json_object_get(data, "waited_ms"))).s);
}

static void on_event(void *arg, const char *event, json_t *data)
{
	static const struct {
		const char *event, *text, *member;
	} lines[] = {
		{ "RELAY_READY", "waiting for a stream on", "unix" },
		{ "RELAY_CONNECTED", "connected with", "peer" },
		{ "RELAY_WARNING", "warning:", "text" },
	};
	struct relay_run *run = arg;
	char *clean;

	if (run->json) {
		follow_put_json(event, data);
		return;
	}
	if (!strcmp(event, "RELAY_PROGRESS"))
		progress_show(&run->view, data);
	else if (!strcmp(event, "RELAY_LINK"))
		on_link(run, data);
	for (size_t i = 0; i < sizeof(lines) / sizeof(*lines); i++)
		if (!strcmp(event, lines[i].event)) {
			clean = format_clean(text_of(data, lines[i].member));
			progress_clear(&run->view);
			fprintf(stderr, "novacron: %s %s\n", lines[i].text, clean ? clean : "");
			free(clean);
		}
}

static void on_done(void *arg, json_t *result, const struct nova_error *err)
{
	struct relay_run *run = arg;

	run->over = true;
	run->failed = err != NULL;
	if (err)
		run->error = *err;
	run->result = json_incref(result);
}

/* ^C: end in order, so that the other side knows at once; again: just end. */
static void on_interrupt(evutil_socket_t number, short what, void *arg)
{
	struct relay_run *run = arg;

	if (run->interrupted++ == 0 && run->relay && !run->over) {
		progress_keep(&run->view);
		if (!run->json)
			fputs("novacron: ending: the stream is broken off\n", stderr);
		nova_relay_stop(run->relay);
	}
}

/* ---- running it ---- */

static int64_t number_of(const json_t *args, const char *name, int64_t fallback)
{
	const json_t *value = json_object_get(args, name);

	return value ? json_integer_value(value) : fallback;
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
		.codec = json_string_value(json_object_get(args, "codec")),
		.rate_bps = (uint64_t)number_of(args, "bandwidth", 0),
		.lanes = (int)number_of(args, "lanes", 0),
		.resume_limit_ms = (int)number_of(args, "resume-limit", NOVA_RELAY_RESUME_MS),
		.wait_ms = (int)number_of(args, "wait", NOVA_RELAY_WAIT_MS),
		.history_bytes = (uint64_t)number_of(args, "history", NOVA_RELAY_HISTORY_BYTES),
	};

	return nova_relay_new(run->base, &config, on_event, on_done, run, err);
}

static void announce(const struct relay_run *run, const json_t *args)
{
	bool listens = !strcmp(text_of(args, "mode"), "listen");
	int port = nova_relay_port(run->relay);

	if (run->json && listens) {
		json_t *data = json_pack("{si}", "port", port);
		follow_put_json("RELAY_LISTENING", data);
		json_decref(data);
	} else if (listens) {
		fprintf(stderr, "novacron: waiting for %s on port %d\n", text_of(args, "peer"), port);
	} else if (!run->json) {
		fprintf(stderr, "novacron: dialling %s at %s\n", text_of(args, "peer"), text_of(args, "address"));
	}
}

static void put_end(const struct relay_run *run)
{
	json_t *data = run->result ? json_copy(run->result) : json_object();

	if (run->failed)
		json_object_set_new(data, "error",
		    json_pack("{ss ss}", "category", nova_category_name(run->error.category), "text", run->error.text));
	follow_put_json("RELAY_ENDED", data);
	json_decref(data);
}

static int report(struct relay_run *run)
{
	char *clean = format_clean(run->error.text);

	progress_clear(&run->view);
	if (run->json)
		put_end(run);
	else if (run->result && json_integer_value(json_object_get(run->result, "connections")))
		view_answer(stdout, "relay", run->result);
	if (run->failed)
		fprintf(stderr, "novacron: %s\n", clean ? clean : run->error.text);
	free(clean);
	if (run->interrupted)
		return EXIT_INTERRUPTED;
	return run->failed ? exit_of(run->error.category) : 0;
}

static int run_loop(struct relay_run *run, const json_t *args)
{
	run->relay = open_relay(run, args, &run->error);
	run->failed = !run->relay;
	if (run->relay) {
		announce(run, args);
		while (!run->over && run->interrupted < 2 && event_base_loop(run->base, EVLOOP_ONCE) == 0)
			;
	}
	return report(run);
}

int relay_run(json_t *args, bool json)
{
	struct relay_run run = { .base = event_base_new(), .json = json };
	struct event *interrupt = run.base ? evsignal_new(run.base, SIGINT, on_interrupt, &run) : NULL;
	struct event *end = run.base ? evsignal_new(run.base, SIGTERM, on_interrupt, &run) : NULL;
	int status;

	signal(SIGPIPE, SIG_IGN);
	progress_view_init(&run.view);
	if (interrupt && end && event_add(interrupt, NULL) == 0 && event_add(end, NULL) == 0) {
		status = run_loop(&run, args);
	} else {
		fprintf(stderr, "novacron: no event loop could be made: %s\n", strerrordesc_np(errno));
		status = exit_of(NOVA_SYSTEM);
	}
	nova_relay_free(run.relay);
	progress_release(&run.view);
	if (interrupt)
		event_free(interrupt);
	if (end)
		event_free(end);
	if (run.base)
		event_base_free(run.base);
	json_decref(run.result);
	return status;
}
