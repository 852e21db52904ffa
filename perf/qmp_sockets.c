/* SPDX-License-Identifier: Apache-2.0
 *
 * qmp_sockets.c - how long does a query take when one reactor holds many monitors and moves bulk data too?
 *
 *     qmp_sockets [SOCKETS [SECONDS]]        200 sockets, 5 s a row
 *
 * Three children: scripted monitors that answer at once, a process that fills a socket pair as fast as it
 * can, and one that drains another. The reactor moves the bulk between the two pairs, 256 KiB a turn, while
 * every socket is asked ten times a second. Printed: p50, p99 and the worst query, without and with bulk.
 * Fails when the busy p99 is 20 ms or more. RESULTS=FILE appends a JSON object a row; QUICK=1 takes 1 s a
 * row.
 */
#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>

#include "engine/cleanup.h"
#include "engine/op.h"
#include "qmp/qmp.h"

#define BULK_BYTES (256u * 1024)
#define SAMPLES_MAX (1u << 20)
#define ASK_MS 100
#define LIMIT_MS 20.0

struct bench;

struct monitor {
	struct bench *bench;
	struct qmp_client *client;
	struct event *ask; /* owned */
	double asked_at;
	bool waiting;
};

struct bench {
	struct event_base *base;
	char path[64];
	int sockets, ready;
	struct monitor *monitors;
	double *samples;       /* ms */
	size_t count, overdue; /* overdue: the answer before had not come when it was time to ask again */
	int from, to;          /* bulk */
	struct event *readable, *writable;
	char *held; /* BULK_BYTES */
	size_t held_bytes, sent_bytes;
	double moved_bytes;
	double no_cpu_s;
};

static double now_s(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void die(const char *what)
{
	fprintf(stderr, "qmp_sockets: %s: %s\n", what, strerror(errno));
	exit(1);
}

/* ---- children ----------------------------------------------------------------------------------- */

static pid_t start_child(void (*run)(void *arg), void *arg)
{
	pid_t pid = fork();

	if (pid < 0)
		die("fork");
	if (pid > 0)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	run(arg);
	_exit(0);
}

static void identify(void *arg, unsigned uid, unsigned gid, int pid, struct nova_identity *who)
{
	who->role = NOVA_ROLE_ADMIN;
}

static struct nova_op *answer(void *arg, const struct nova_identity *who, const char *command, json_t *args,
    nova_done_fn done, void *done_arg, struct nova_error *err)
{
	json_t *result = json_pack("{s:s,s:b,s:{s:I,s:I,s:f}}", "status", "running", "running", 1, "ram",
	    "transferred", (json_int_t)123456789, "remaining", (json_int_t)987654321, "mbps", 941.5);

	return nova_op_later(arg, result, NULL, done, done_arg, err);
}

struct peers {
	const char *path;
	int listening_pipe; /* closed when the socket is there */
};

static void run_peers(void *arg)
{
	static const struct qmp_server_events events = { .identify = identify, .execute = answer };
	struct peers *peers = arg;
	struct event_base *base = event_base_new();
	struct nova_error err;

	if (!qmp_server_new(base, peers->path, 0, json_object(), 0, &events, base, &err)) {
		fprintf(stderr, "qmp_sockets: %s\n", err.text);
		return;
	}
	close(peers->listening_pipe);
	event_base_dispatch(base);
}

static void run_source(void *arg)
{
	char *bytes = calloc(1, BULK_BYTES);

	while (write(*(int *)arg, bytes, BULK_BYTES) > 0)
		;
}

static void run_drain(void *arg)
{
	char *bytes = malloc(BULK_BYTES);

	while (read(*(int *)arg, bytes, BULK_BYTES) > 0)
		;
}

static void stop_child(pid_t pid)
{
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

/* ---- bulk --------------------------------------------------------------------------------------- */

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
	struct bench *bench = arg;
	ssize_t got = read(bench->from, bench->held, BULK_BYTES);

	if (got <= 0)
		return;
	bench->held_bytes = (size_t)got;
	bench->sent_bytes = 0;
	event_del(bench->readable);
	event_add(bench->writable, NULL);
}

static void on_writable(evutil_socket_t fd, short what, void *arg)
{
	struct bench *bench = arg;
	ssize_t sent = send(
	    bench->to, bench->held + bench->sent_bytes, bench->held_bytes - bench->sent_bytes, MSG_NOSIGNAL);

	if (sent <= 0)
		return;
	bench->sent_bytes += (size_t)sent;
	bench->moved_bytes += (double)sent;
	if (bench->sent_bytes < bench->held_bytes)
		return;
	event_del(bench->writable);
	event_add(bench->readable, NULL);
}

static void make_pair(int *ours, int *theirs)
{
	int ends[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0)
		die("socketpair");
	*ours = ends[0];
	*theirs = ends[1];
	evutil_make_socket_nonblocking(*ours);
}

/* ---- queries ------------------------------------------------------------------------------------ */

static void on_ready(void *arg, json_t *greeting)
{
	((struct monitor *)arg)->bench->ready++;
}

static void on_closed(void *arg, const struct nova_error *err)
{
	fprintf(stderr, "qmp_sockets: %s\n", err->text);
	exit(1);
}

static void on_answer(void *arg, json_t *result, const struct nova_error *err)
{
	struct monitor *monitor = arg;
	struct bench *bench = monitor->bench;

	monitor->waiting = false;
	if (err)
		on_closed(arg, err);
	if (bench->count < SAMPLES_MAX)
		bench->samples[bench->count++] = (now_s() - monitor->asked_at) * 1e3;
}

static void on_ask(evutil_socket_t fd, short what, void *arg)
{
	struct monitor *monitor = arg;
	struct nova_error err;

	monitor->bench->overdue += monitor->waiting;
	if (monitor->waiting)
		return;
	monitor->asked_at = now_s();
	monitor->waiting = true;
	if (!qmp_execute(monitor->client, "query-migrate", NULL, NULL, on_answer, monitor, &err))
		on_closed(arg, &err);
}

/* Spread over the interval, so that the queries do not come as one burst. */
static void on_first_ask(evutil_socket_t fd, short what, void *arg)
{
	const struct timeval interval = { 0, ASK_MS * 1000 };
	struct monitor *monitor = arg;

	event_free(monitor->ask);
	monitor->ask = event_new(monitor->bench->base, -1, EV_PERSIST, on_ask, monitor);
	event_add(monitor->ask, &interval);
}

static void connect_all(struct bench *bench)
{
	static const struct qmp_events events = { .ready = on_ready, .closed = on_closed };

	for (int i = 0; i < bench->sockets; i++) {
		struct monitor *monitor = &bench->monitors[i];
		struct timeval first = { 0, (long)i * ASK_MS * 1000 / bench->sockets };

		monitor->bench = bench;
		monitor->client = qmp_client_new(bench->base, bench->path, NULL, &events, monitor, NULL);
		monitor->ask = event_new(bench->base, -1, 0, on_first_ask, monitor);
		if (!monitor->client || !monitor->ask)
			die("client");
		event_add(monitor->ask, &first);
	}
}

/* ---- rows --------------------------------------------------------------------------------------- */

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

/* Print a row; true if it is good enough. */
static bool report(struct bench *bench, const char *name, double seconds, FILE *results)
{
	NOVA_AUTOJSON json_t *row = NULL;
	double p50, p99, worst, rate = bench->moved_bytes / seconds / 1e9;
	bool ok;

	if (bench->count == 0 || bench->ready < bench->sockets) {
		printf("%-6s %d of %d sockets ready, %zu answers\n", name, bench->ready, bench->sockets,
		    bench->count);
		return false;
	}
	qsort(bench->samples, bench->count, sizeof(*bench->samples), by_value);
	p50 = bench->samples[bench->count / 2];
	p99 = bench->samples[bench->count * 99 / 100];
	worst = bench->samples[bench->count - 1];
	ok = p99 < LIMIT_MS && bench->overdue == 0;
	printf("%-6s %8d %9.0f %8.3f %8.3f %8.3f %8zu %8.2f %8.1f  %s\n", name, bench->sockets,
	    (double)bench->count / seconds, p50, p99, worst, bench->overdue, rate,
	    bench->no_cpu_s / seconds * 100, ok ? "ok" : "TOO SLOW");
	row = json_pack("{s:s,s:s,s:i,s:f,s:I,s:f,s:f,s:f,s:I,s:f,s:f,s:b}", "bench", "qmp_sockets",
	    "workload", name, "sockets", bench->sockets, "time_s", seconds, "queries",
	    (json_int_t)bench->count, "p50_ms", p50, "p99_ms", p99, "worst_ms", worst, "overdue",
	    (json_int_t)bench->overdue, "bulk_gb_per_s", rate, "no_cpu_s", bench->no_cpu_s, "ok", ok);
	if (results) {
		json_dumpf(row, results, JSON_COMPACT);
		fputc('\n', results);
	}
	return ok;
}

/* Time this process has waited on a run queue so far; 0 where the kernel does not count it. */
static double waited_s(void)
{
	FILE *file = fopen("/proc/self/schedstat", "re");
	unsigned long long ran, waited;
	double seconds = file && fscanf(file, "%llu %llu", &ran, &waited) == 2 ? (double)waited / 1e9 : 0;

	if (file)
		fclose(file);
	return seconds;
}

static void measure(struct bench *bench, double seconds)
{
	struct timeval wait = { (long)seconds, (long)((seconds - (double)(long)seconds) * 1e6) };

	bench->count = bench->overdue = 0;
	bench->moved_bytes = 0;
	bench->no_cpu_s = -waited_s();
	event_base_loopexit(bench->base, &wait);
	event_base_dispatch(bench->base);
	bench->no_cpu_s += waited_s();
}

static void start_bulk(struct bench *bench, pid_t children[2])
{
	int source, drain;

	make_pair(&bench->from, &source);
	make_pair(&bench->to, &drain);
	children[0] = start_child(run_source, &source);
	children[1] = start_child(run_drain, &drain);
	close(source);
	close(drain);
	bench->held = malloc(BULK_BYTES);
	bench->readable = event_new(bench->base, bench->from, EV_READ | EV_PERSIST, on_readable, bench);
	bench->writable = event_new(bench->base, bench->to, EV_WRITE | EV_PERSIST, on_writable, bench);
	if (!bench->held || !bench->readable || !bench->writable)
		die("bulk");
	event_add(bench->readable, NULL);
}

static void release(struct bench *bench)
{
	for (int i = 0; i < bench->sockets; i++) {
		event_free(bench->monitors[i].ask);
		qmp_client_free(bench->monitors[i].client);
	}
	event_free(bench->readable);
	event_free(bench->writable);
	event_base_free(bench->base);
	close(bench->from);
	close(bench->to);
	free(bench->held);
	free(bench->monitors);
	free(bench->samples);
}

static pid_t start_peers(struct bench *bench)
{
	int ends[2];
	char nobody;
	pid_t pid;

	if (pipe2(ends, O_CLOEXEC) < 0)
		die("pipe");
	struct peers peers = { bench->path, ends[1] };

	pid = start_child(run_peers, &peers);
	close(ends[1]);
	if (read(ends[0], &nobody, 1) != 0)
		die("peers");
	close(ends[0]);
	return pid;
}

int main(int argc, char **argv)
{
	struct bench bench = { .sockets = argc > 1 ? atoi(argv[1]) : 200 };
	double seconds = argc > 2 ? atof(argv[2]) : getenv("QUICK") ? 1 : 5;
	FILE *results = getenv("RESULTS") ? fopen(getenv("RESULTS"), "ae") : NULL;
	char dir[] = "/tmp/nova-perf-XXXXXX";
	pid_t children[3];
	bool ok;

	if (bench.sockets < 1 || bench.sockets > 1000 || seconds <= 0 || !mkdtemp(dir)) {
		fprintf(stderr, "usage: qmp_sockets [SOCKETS (1 to 1000) [SECONDS]]\n");
		return 2;
	}
	snprintf(bench.path, sizeof(bench.path), "%s/peers", dir);
	bench.monitors = calloc((size_t)bench.sockets, sizeof(*bench.monitors));
	bench.samples = malloc(SAMPLES_MAX * sizeof(*bench.samples));
	children[2] = start_peers(&bench);
	bench.base = event_base_new();
	if (!bench.base || !bench.monitors || !bench.samples)
		die("set-up");
	connect_all(&bench);
	measure(&bench, 0.5);
	printf("%-6s %8s %9s %8s %8s %8s %8s %8s %8s\n", "load", "sockets", "queries/s", "p50 ms", "p99 ms",
	    "worst", "overdue", "GB/s", "no CPU %");
	measure(&bench, seconds);
	ok = report(&bench, "idle", seconds, results);
	start_bulk(&bench, children);
	measure(&bench, seconds);
	ok = report(&bench, "bulk", seconds, results) && ok;
	release(&bench);
	for (int i = 0; i < 3; i++)
		stop_child(children[i]);
	unlink(bench.path);
	rmdir(dir);
	if (results)
		fclose(results);
	return !ok;
}
