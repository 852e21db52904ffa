/* SPDX-License-Identifier: Apache-2.0
 *
 * relay_bench.c - the whole relay, per core: unix socket, encoder, TLS over loopback, decoder, unix socket.
 *
 *	relay_bench [MIB]	96
 *
 * Four processes: we feed the image of image.h into the first relay's socket, a sink takes it from the second's.
 * Both relays are the library's, as `novacron relay` runs them. "none" is the relay without a codec; "first" is
 * a history that fills (its memory is touched for the first time); "lz4" and "auto" send the image, then other
 * content in the same pages, and that second pass is what counts; "delta" sends the image again with eight bytes
 * changed in every page, and the second pass counts. "Per core" is bytes of raw stream by processor time of a relay's process (kernel
 * included), which holds also where all share a machine with others. The limits of limits.h are measured in the
 * same run. RESULTS=FILE appends a JSON object a row; QUICK=1: 32 MiB.
 */
#include <event2/event.h>
#include <malloc.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "engine/novacron.h"
#include "image.h"
#include "limits.h"

/* What the processes tell each other. */
struct shared {
	_Atomic uint64_t arrived; /* bytes at the sink */
	_Atomic int port, ready;  /* of the listening relay; the other one waits for its stream */
	_Atomic uint64_t wire[2]; /* at the end: bytes_wire of each relay */
	_Atomic long peak_kib[2];
};

struct bench {
	char dir[32];
	struct shared *shared;
	pid_t relay[2], sink; /* relay 0 encodes, 1 decodes */
	const char *codec;
};

struct half { /* in a relay's process */
	struct bench *bench;
	int number;
	struct event_base *base;
};

static void die(const char *what, const char *why)
{
	fprintf(stderr, "relay_bench: %s: %s\n", what, why);
	exit(2);
}

static const char *path_of(const struct bench *bench, const char *name, char *path, size_t size)
{
	snprintf(path, size, "%s/%s", bench->dir, name);
	return path;
}

/* ---- the two relays ---- */

static void on_event(void *arg, const char *event, json_t *data)
{
	struct half *half = arg;

	if (strcmp(event, "RELAY_READY") == 0)
		half->bench->shared->ready = 1;
}

static void on_done(void *arg, json_t *result, const struct nova_error *err)
{
	struct half *half = arg;
	struct rusage usage;

	if (err)
		die("relay", err->text);
	getrusage(RUSAGE_SELF, &usage);
	half->bench->shared->wire[half->number] =
	    (uint64_t)json_integer_value(json_object_get(result, "wire_bytes"));
	half->bench->shared->peak_kib[half->number] = usage.ru_maxrss;
	event_base_loopbreak(half->base);
}

static void run_relay(struct bench *bench, int number)
{
	struct half half = { bench, number, event_base_new() };
	char address[32], cert[64], key[64], path[64];
	struct nova_relay_config config = {
		.struct_size = sizeof(config),
		.listen_tls = number == 1,
		.address = address,
		.peer = "bench",
		.cert = path_of(bench, "cert", cert, sizeof(cert)),
		.key = path_of(bench, "key", key, sizeof(key)),
		.ca = cert,
		.unix_path = path_of(bench, number ? "out" : "in", path, sizeof(path)),
		.codec = bench->codec,
		.history_bytes = strcmp(bench->codec, "none") == 0 ? 0 : NOVA_RELAY_HISTORY_BYTES,
	};
	struct nova_relay *relay;
	struct nova_error err;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	mallopt(M_TRIM_THRESHOLD, 64 << 20); /* as novacron does */
	mallopt(M_MMAP_THRESHOLD, 4 << 20);
	snprintf(address, sizeof(address), "127.0.0.1:%d", bench->shared->port);
	relay = nova_relay_new(half.base, &config, on_event, on_done, &half, &err);
	if (!relay)
		die("relay", err.text);
	if (number == 1)
		bench->shared->port = nova_relay_port(relay);
	event_base_dispatch(half.base);
	_exit(0);
}

/* ---- feeder and sink ---- */

static int unix_socket(const struct bench *bench, const char *name, struct sockaddr_un *address)
{
	*address = (struct sockaddr_un) { .sun_family = AF_UNIX };
	path_of(bench, name, address->sun_path, sizeof(address->sun_path));
	return socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
}

static void run_sink(struct bench *bench, int listener)
{
	static uint8_t waste[256 * 1024];
	int fd = accept(listener, NULL, NULL);
	ssize_t n;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	while ((n = read(fd, waste, sizeof(waste))) > 0)
		bench->shared->arrived += (uint64_t)n;
	_exit(n < 0);
}

static void feed(int fd, const uint8_t *data, size_t length)
{
	while (length) {
		ssize_t n = write(fd, data, length < 256 * 1024 ? length : 256 * 1024);

		if (n <= 0)
			die("feeding", "the relay does not take it");
		data += n;
		length -= (size_t)n;
	}
}

static void await(const struct bench *bench, const char *what, bool (*done)(const struct bench *, uint64_t), uint64_t goal)
{
	for (int ms = 0; !done(bench, goal); ms++) {
		if (ms > 60000)
			die(what, "not within a minute");
		usleep(1000);
	}
}

static bool has_port(const struct bench *bench, uint64_t goal)
{
	return bench->shared->port != 0;
}

static bool is_ready(const struct bench *bench, uint64_t goal)
{
	return bench->shared->ready;
}

static bool has_arrived(const struct bench *bench, uint64_t goal)
{
	return bench->shared->arrived >= goal;
}

static double cpu_of(pid_t pid)
{
	struct timespec t = { 0 };
	clockid_t clock;

	if (clock_getcpuclockid(pid, &clock) != 0 || clock_gettime(clock, &t) < 0)
		die("processor time", "cannot be read");
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static double now_s(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* ---- one row ---- */

struct figures {
	double time_s, encode_s, decode_s; /* of the pass that counts */
	double raw, wire;
	long peak_kib[2];
};

static void start(struct bench *bench)
{
	struct sockaddr_un address;
	int listener = unix_socket(bench, "out", &address);

	if (listener < 0 || bind(listener, (struct sockaddr *)&address, sizeof(address)) < 0 || listen(listener, 1) < 0)
		die("sink", "cannot listen");
	memset(bench->shared, 0, sizeof(*bench->shared));
	bench->sink = fork();
	if (bench->sink == 0)
		run_sink(bench, listener);
	close(listener);
	for (int number = 1; number >= 0; number--) {
		bench->relay[number] = fork();
		if (bench->relay[number] == 0)
			run_relay(bench, number);
		await(bench, "relay", number ? has_port : is_ready, 0);
	}
}

static void send_pass(struct bench *bench, int fd, const struct image *image, size_t from, struct figures *f)
{
	double began = now_s(), encode_s = cpu_of(bench->relay[0]), decode_s = cpu_of(bench->relay[1]);
	uint64_t goal = bench->shared->arrived + image->length - from;

	feed(fd, image->bytes + from, image->length - from);
	await(bench, "the stream", has_arrived, goal);
	f->time_s = now_s() - began;
	f->encode_s = cpu_of(bench->relay[0]) - encode_s;
	f->decode_s = cpu_of(bench->relay[1]) - decode_s;
	f->raw = (double)(image->length - from);
}

static struct figures measure(struct bench *bench, struct image *image, void (*change)(struct image *image))
{
	struct figures f = { 0 };
	struct sockaddr_un address;
	char path[64];
	int fd;

	start(bench);
	fd = unix_socket(bench, "in", &address);
	if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
		die("relay", "does not take a stream");
	send_pass(bench, fd, image, 0, &f);
	if (change) {
		change(image);
		send_pass(bench, fd, image, image->head, &f);
	}
	close(fd);
	waitpid(bench->sink, NULL, 0);
	for (int number = 0; number < 2; number++) { /* both directions have ended: so do the relays */
		waitpid(bench->relay[number], NULL, 0);
		f.peak_kib[number] = bench->shared->peak_kib[number];
	}
	f.wire = (double)bench->shared->wire[0];
	unlink(path_of(bench, "in", path, sizeof(path)));
	unlink(path_of(bench, "out", path, sizeof(path)));
	return f;
}

static void report(FILE *results, const char *name, const struct figures *f)
{
	double gb = f->raw / 1e9;

	printf("%-28s %8.2f %8.2f %8.2f\n", name, gb / f->encode_s, gb / f->decode_s, gb / f->time_s);
	fflush(stdout);
	if (results)
		fprintf(results,
		    "{\"bench\":\"relay\",\"name\":\"%s\",\"sender_gb_per_core_s\":%.3f,"
		    "\"receiver_gb_per_core_s\":%.3f,\"gb_per_s\":%.3f,\"peak_rss_bytes\":%ld}\n",
		    name, gb / f->encode_s, gb / f->decode_s, gb / f->time_s,
		    1024 * (f->peak_kib[0] > f->peak_kib[1] ? f->peak_kib[0] : f->peak_kib[1]));
}

static void report_limits(FILE *results, const struct image *image)
{
	for (size_t i = 0; i < n_limits; i++) {
		double ratio, gbps = (double)image->length / 1e9 / limits_measure(&limits[i], image->bytes, image->length, &ratio);

		printf("limit: %-21s %8.2f\n", limits[i].name, gbps);
		if (results)
			fprintf(results, "{\"bench\":\"relay\",\"name\":\"limit: %s\",\"gb_per_core_s\":%.3f}\n",
			    limits[i].name, gbps);
	}
}

static void make_certificate(const struct bench *bench)
{
	char command[400];

	snprintf(command, sizeof(command),
	    "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=bench "
	    "-keyout %s/key -out %s/cert 2>/dev/null",
	    bench->dir, bench->dir);
	if (system(command) != 0)
		die("certificate", "the openssl program failed");
}

static void remove_files(const struct bench *bench)
{
	char path[64];

	unlink(path_of(bench, "cert", path, sizeof(path)));
	unlink(path_of(bench, "key", path, sizeof(path)));
	rmdir(bench->dir);
}

static const struct row {
	const char *name, *codec;
	void (*change)(struct image *image); /* before the second pass; NULL: there is none */
} rows[] = {
	{ "none", "none", image_edit },
	{ "first, lz4", "lz4", NULL },
	{ "lz4", "lz4", image_renew },
	{ "auto", "auto", image_renew },
	{ "delta, lz4", "lz4", image_edit },
};

int main(int argc, char **argv)
{
	size_t mib = argc > 1 ? strtoul(argv[1], NULL, 10) : getenv("QUICK") ? 32 : 96;
	FILE *results = getenv("RESULTS") ? fopen(getenv("RESULTS"), "ae") : NULL;
	struct bench bench = { .dir = "/tmp/nova-relay-XXXXXX" };
	struct image image;

	signal(SIGPIPE, SIG_IGN);
	bench.shared = mmap(NULL, sizeof(*bench.shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (mib < 1 || mib > 224 || bench.shared == MAP_FAILED || !mkdtemp(bench.dir)) {
		fprintf(stderr, "usage: relay_bench [MIB], 1 to 224: the relay's history holds it\n");
		return 2;
	}
	make_certificate(&bench);
	image_build(&image, mib);
	printf("%zu MiB mixed guest, GB/s of raw stream\n%-28s %8s %8s %8s\n", mib, "", "encoder", "decoder", "clock");
	printf("%-28s %8s %8s %8s\n", "", "per core", "per core", "");
	report_limits(results, &image);
	for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
		struct figures f;

		bench.codec = rows[i].codec;
		f = measure(&bench, &image, rows[i].change);
		report(results, rows[i].name, &f);
	}
	image_free(&image);
	remove_files(&bench);
	if (results)
		fclose(results);
	return 0;
}
