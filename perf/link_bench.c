/* SPDX-License-Identifier: Apache-2.0
 *
 * link_bench.c - what the TLS link carries, per core: one session over loopback between two processes, one
 * bulk channel, nothing else.
 *
 *	link_bench [MESSAGE-BYTES [SECONDS [LANES]]]   65536, 5, 1
 *
 * Messages are not filled: what is measured is encryption, framing, sockets and acknowledgement. "Per core"
 * is bytes by processor time of the process, which holds also where both share a machine with others.
 * RESULTS=FILE appends a JSON object; QUICK=1 takes 1 s.
 */
#include <event2/event.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

#include "engine/cleanup.h"
#include "transport/link.h"

struct bench {
	struct event_base *base;
	struct nova_links *links;
	struct nova_session *session;
	struct nova_channel *channel;
	uint32_t message_bytes;
	uint64_t sent, heard; /* bytes */
	int lanes, lanes_up;
	bool up, stop;
	json_t *answer;
};

/* What the receiver says when it is asked, and what we say of ourselves. */
struct usage {
	double cpu_s;
	long peak_rss_bytes;
};

static void die(const char *what, const char *why)
{
	fprintf(stderr, "link_bench: %s: %s\n", what, why);
	exit(2);
}

static struct usage usage_now(void)
{
	struct rusage r;

	getrusage(RUSAGE_SELF, &r);
	return (struct usage) {
		(double)(r.ru_utime.tv_sec + r.ru_stime.tv_sec) +
		    (double)(r.ru_utime.tv_usec + r.ru_stime.tv_usec) / 1e6,
		r.ru_maxrss * 1024,
	};
}

static double now_s(void)
{
	return (double)links_now_ns() / 1e9;
}

/* ---- both ends ---- */

static void on_room(void *arg)
{
	struct bench *bench = arg;

	while (!bench->stop && bench->channel->ops->room(bench->channel)) {
		struct nova_buf *buf = nova_buf_new(bench->message_bytes);

		if (!buf)
			die("message", "no memory");
		buf->length = bench->message_bytes;
		bench->sent += buf->length;
		bench->channel->ops->send(bench->channel, buf);
	}
}

static void on_message(void *arg, const uint8_t *data, size_t length)
{
	struct bench *bench = arg;

	bench->heard += length;
	bench->channel->ops->consumed(bench->channel, length);
}

static void on_channel_closed(void *arg, const struct nova_error *err)
{
}

static const struct nova_channel_events channel_events = { on_message, on_room, on_channel_closed };

static void on_channel(void *arg, uint16_t id, enum nova_channel_kind kind, struct nova_channel *channel)
{
	((struct bench *)arg)->channel = channel;
	channel_set_events(channel, &channel_events, arg);
}

static void on_request(void *arg, const char *command, json_t *args, struct nova_request *request)
{
	struct usage usage = usage_now();

	request_answer(request,
	    json_pack("{s:f, s:I, s:I}", "cpu_s", usage.cpu_s, "peak_rss_bytes",
	        (json_int_t)usage.peak_rss_bytes, "bytes", (json_int_t)((struct bench *)arg)->heard),
	    NULL);
}

static void on_up(void *arg, const char *peer)
{
	((struct bench *)arg)->up = true;
}

static void on_state(void *arg, const char *state, json_t *data)
{
	((struct bench *)arg)->lanes_up += strcmp(state, "lane up") == 0;
}

static void on_closed(void *arg, const struct nova_error *err)
{
	struct bench *bench = arg;

	if (!bench->stop && err->category != NOVA_CANCELLED)
		die("session", err->text);
	bench->session = session_free(bench->session);
	event_base_loopbreak(bench->base);
}

static const struct nova_session_events session_events = { on_up, on_request, on_channel, on_state,
	on_closed };

static void on_accepted(void *arg, struct nova_session *session, const char *peer)
{
	((struct bench *)arg)->session = session;
	session_set_events(session, &session_events, arg);
}

static void open_links(struct bench *bench, const char *dir, json_t *values)
{
	char cert[64], key[64];
	struct link_settings settings;
	struct nova_error err;

	snprintf(cert, sizeof(cert), "%s/cert", dir);
	snprintf(key, sizeof(key), "%s/key", dir);
	json_object_update_new(values, json_pack("{s:s, s:s, s:s}", "cert", cert, "key", key, "ca", cert));
	bench->base = event_base_new();
	if (!bench->base || settings_init(&settings, values, &err) < 0)
		die("settings", err.text);
	json_decref(values);
	bench->links = links_open(bench->base, &settings, on_accepted, NULL, bench, &err);
	if (!bench->links)
		die("links", err.text);
}

static void make_certificate(const char *dir)
{
	char command[400];

	snprintf(command, sizeof(command),
	    "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=bench "
	    "-keyout %s/key -out %s/cert 2>/dev/null",
	    dir, dir);
	if (system(command) != 0)
		die("certificate", "the openssl program failed");
}

/* ---- receiver: a child ---- */

static int receive(const char *dir, int port_fd)
{
	struct bench bench = { 0 };
	int port;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	open_links(&bench, dir, json_pack("{s:s, s:{s:{}}}", "listen", "127.0.0.1:0", "peers", "bench"));
	port = links_port(bench.links);
	if (write(port_fd, &port, sizeof(port)) != sizeof(port))
		die("port", "cannot be told");
	event_base_dispatch(bench.base);
	links_close(bench.links);
	event_base_free(bench.base);
	return 0;
}

/* ---- sender ---- */

static void run_until(struct bench *bench, double until, const bool *flag)
{
	struct timeval tick = { 0, 10000 };

	while (now_s() < until && !(flag && *flag)) {
		event_base_loopexit(bench->base, &tick);
		event_base_dispatch(bench->base);
	}
}

static void on_answer(void *arg, json_t *result, const struct nova_error *err)
{
	struct bench *bench = arg;

	if (err)
		die("receiver", err->text);
	bench->answer = json_incref(result);
	bench->up = true;
}

static json_t *ask(struct bench *bench)
{
	struct nova_error err;

	bench->up = false;
	if (!request_send(bench->session, "usage", NULL, 5000, on_answer, bench, &err))
		die("request", err.text);
	run_until(bench, now_s() + 6, &bench->up);
	if (!bench->up)
		die("request", "no answer");
	return bench->answer;
}

static void connect_to(struct bench *bench, const char *dir, int port)
{
	struct nova_session_options options = { .lanes = bench->lanes };
	struct nova_error err;
	char address[32];

	snprintf(address, sizeof(address), "127.0.0.1:%d", port);
	open_links(bench, dir, json_pack("{s:{s:{s:[s]}}}", "peers", "bench", "address", address));
	bench->session = session_dial(bench->links, "bench", &options, &session_events, bench, &err);
	if (!bench->session)
		die("dial", err.text);
	run_until(bench, now_s() + 10, &bench->up);
	bench->channel = channel_open(bench->session, 1, NOVA_CHANNEL_STREAM, &channel_events, bench, &err);
	if (!bench->channel)
		die("channel", err.text);
}

static double number(const json_t *object, const char *name)
{
	return json_number_value(json_object_get(object, name));
}

static void report(const struct bench *bench, double seconds, const struct usage spent[2],
    const json_t *first, const json_t *last)
{
	FILE *results = getenv("RESULTS") ? fopen(getenv("RESULTS"), "ae") : NULL;
	double gb = (number(last, "bytes") - number(first, "bytes")) / 1e9,
	       own = spent[1].cpu_s - spent[0].cpu_s;
	double other = number(last, "cpu_s") - number(first, "cpu_s");
	NOVA_AUTOJSON json_t *row = json_pack("{s:s, s:s, s:i, s:i, s:f, s:f, s:f, s:f, s:f, s:I, s:b}",
	    "bench", "link", "link", "loopback", "message_bytes", (int)bench->message_bytes, "lanes",
	    bench->lanes, "time_s", seconds, "gb_per_s", gb / seconds, "sender_gb_per_core_s", gb / own,
	    "receiver_gb_per_core_s", gb / other, "cpu_s", own + other, "peak_rss_bytes",
	    (json_int_t)(spent[1].peak_rss_bytes + (long)number(last, "peak_rss_bytes")), "ok", 1);

	printf("%8s %6s %8s %20s %22s %12s\n", "message", "lanes", "GB/s", "sender GB/s a core",
	    "receiver GB/s a core", "peak MiB");
	printf("%8u %6d %8.2f %20.2f %22.2f %12.0f\n", bench->message_bytes, bench->lanes, gb / seconds,
	    gb / own, gb / other, number(row, "peak_rss_bytes") / 1048576);
	if (!results)
		return;
	json_dumpf(row, results, JSON_COMPACT);
	fputc('\n', results);
	fclose(results);
}

static void send_bulk(struct bench *bench, const char *dir, int port, double seconds)
{
	json_t *first, *last;
	struct usage spent[2];
	double start;

	connect_to(bench, dir, port);
	on_room(bench);
	run_until(bench, now_s() + 0.5, NULL); /* windows open, lanes come up */
	first = ask(bench);
	spent[0] = usage_now();
	start = now_s();
	run_until(bench, start + seconds, NULL);
	last = ask(bench);
	spent[1] = usage_now();
	report(bench, now_s() - start, spent, first, last);
	json_decref(first);
	json_decref(last);
	bench->stop = true;
	session_free(bench->session);
	while (bench->links->session_count)
		event_base_loop(bench->base, EVLOOP_ONCE);
	links_close(bench->links);
	event_base_free(bench->base);
}

static void remove_files(const char *dir)
{
	char path[64];

	snprintf(path, sizeof(path), "%s/cert", dir);
	unlink(path);
	snprintf(path, sizeof(path), "%s/key", dir);
	unlink(path);
	rmdir(dir);
}

int main(int argc, char **argv)
{
	struct bench bench = {
		.message_bytes = argc > 1 ? (uint32_t)strtoul(argv[1], NULL, 10) : 65536,
		.lanes = argc > 3 ? atoi(argv[3]) : 1,
	};
	double seconds = argc > 2 ? atof(argv[2]) : getenv("QUICK") ? 1 : 5;
	char dir[] = "/tmp/nova-link-XXXXXX";
	int ports[2], port;
	pid_t child;

	if (!bench.message_bytes || bench.message_bytes > NOVA_MESSAGE_MAX || seconds <= 0 ||
	    bench.lanes < 1 || bench.lanes > (int)SESSION_LANES_MAX || !mkdtemp(dir) || pipe(ports) < 0) {
		fprintf(stderr, "usage: link_bench [MESSAGE-BYTES (1 to %u) [SECONDS [LANES (1 to %u)]]]\n",
		    NOVA_MESSAGE_MAX, SESSION_LANES_MAX);
		return 2;
	}
	/* Messages come and go by the gigabyte: a heap that is given back to the kernel and faulted in again
	 * each time costs more than the encryption. A program's business, not the library's. */
	mallopt(M_TRIM_THRESHOLD, 64 << 20);
	mallopt(M_MMAP_THRESHOLD, 4 << 20);
	make_certificate(dir);
	child = fork();
	if (child == 0)
		_exit(receive(dir, ports[1]));
	if (child < 0 || read(ports[0], &port, sizeof(port)) != sizeof(port))
		die("receiver", "did not start");
	send_bulk(&bench, dir, port, seconds);
	waitpid(child, NULL, 0);
	remove_files(dir);
	return 0;
}
