/* SPDX-License-Identifier: Apache-2.0
 *
 * workload.c - what runs inside the test guest: memory of a known kind, a steady dirty rate, a heartbeat.
 *
 * Arguments are the words of the kernel command line; words that are not ours are ignored:
 *
 * - fill=KIND:MIB,... is memory that is written once; at most 16 areas. KIND is text, rand, dup, zero, or
 * disk (what /dev/vda holds).
 * - dirty=KIND:MIB:RATE is one more area, of which RATE MiB of pages a second are touched. KIND as above (the
 *   page is written anew), or edit8 (8 bytes somewhere), seq8 (8 bytes, page after page), verify (a counter
 * in each page, checked at every touch), none.
 * - disk=DEVICE:MIB:RATE[:keep],... is the beginning of a block device (vda) that is written and checked, past all caches: at
 *   first all of it, then RATE MiB a second of random blocks, each read, compared and written anew. Wrong blocks
 *   count as pages. keep: a disk that an earlier boot wrote is checked instead of being written at first ("WL-KEPT DEVICE
 *   blocks=N bad=N").
 * - hb=DEVICE is where "H seq mono_us real_us" goes every 10 ms: ttyS1 unless told, none for nowhere.
 *
 * The console (stdin, stdout) says WL-READY once memory is filled, WL-BAD when a page is not what it should
 * be, and answers lines:
 *
 * - "sum TAG" with "WL-SUM hash bad=N TAG": the hash of the filled areas, not of the dirty one; N counts
 * wrong pages since the start.
 * - "rate MIB": dirty so much from now on.
 * - "disk-rate MIB": write so much to each block device from now on.
 * - "sh COMMAND": run by the shell, not waited for.
 *
 * The generator has a fixed seed: the same arguments give the same memory. Linked statically, without
 * threads; the heartbeat is a process of its own with real-time priority, so that its gaps mean a stopped
 * machine.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096u
#define AREAS_MAX 16
#define BLOCK_DEVICES_MAX 4
#define DISK_CHUNK (1u << 20)
#define BEAT_MS 10
#define TICK_MS 10
#define BACKLOG_MS 200 /* a machine that was stopped longer does not catch up with its dirty rate */

struct area {
	uint8_t *at;
	size_t pages;
};

struct dirty {
	struct area area;
	const struct kind *kind;
	uint32_t *expected; /* verify: the counter each page should hold */
	size_t next;        /* seq8: the page whose turn it is */
	double pages_per_s;
	double owed; /* pages */
	uint64_t last_us;
};

struct kind {
	const char *name;
	void (*fill)(uint8_t *page);
	void (*touch)(struct dirty *dirty); /* NULL: fill a random page anew */
};

static uint64_t random_state = 88172645463325252u;
static uint8_t repeated[16][PAGE]; /* what "dup" pages are copies of */
static uint64_t bad_pages;

static uint64_t random_u64(void)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return random_state;
}

static uint64_t now_us(clockid_t clock)
{
	struct timespec now;

	clock_gettime(clock, &now);
	return (uint64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

/* ---- memory by kind ----------------------------------------------------------------------------- */

static void fill_rand(uint8_t *page)
{
	for (size_t at = 0; at < PAGE; at += sizeof(uint64_t)) {
		uint64_t value = random_u64();

		memcpy(page + at, &value, sizeof(value));
	}
}

/* Lines that look like a server's log: words, numbers, time stamps. */
static void fill_text(uint8_t *page)
{
	static const char *const words[] = {
		"INFO",
		"WARN",
		"request",
		"session=",
		"user=",
		"status=200",
		"status=404",
		"GET /api/v1/orders",
		"POST /login",
		"worker",
		"latency_us=",
		"retry",
		"connection closed",
		"cache miss",
		"cache hit",
		"commit",
		"row",
		"index",
		"select name, id from customer",
		"queue",
		"offset=",
		"replica",
		"node-",
		"ok",
		"2024-05-17T08:",
		"10.0.3.",
		"timeout after",
		"bytes=",
		"payment pending",
		"flush",
		"table",
		"done",
	};
	size_t at = 0;

	while (at + 48 <= PAGE) {
		uint64_t value = random_u64();
		const char *word = words[value % 32];
		size_t length = strlen(word);

		memcpy(page + at, word, length);
		at += length;
		for (uint64_t digits = (value >> 5) % 10000; word[length - 1] < 'A' && digits; digits /= 10)
			page[at++] = '0' + digits % 10;
		page[at++] = (value >> 40) % 8 ? ' ' : '\n';
	}
	memset(page + at, '\n', PAGE - at);
}

static void fill_dup(uint8_t *page)
{
	memcpy(page, repeated[random_u64() % 16], PAGE);
}

/* Written, then cleared: the machine has touched the page, unlike memory that was only mapped. */
static void fill_zero(uint8_t *page)
{
	*(volatile uint8_t *)page = 1;
	memset(page, 0, PAGE);
}

/* The next page of the first disk, around its end to its beginning; past the page cache, so that memory holds
 * it once. */
static void fill_disk(uint8_t *page)
{
	static uint8_t chunk[DISK_CHUNK] __attribute__((aligned(PAGE)));
	static size_t at, length;
	static int fd = -1;

	if (fd < 0)
		fd = open("/dev/vda", O_RDONLY | O_DIRECT | O_CLOEXEC);
	if (at + PAGE > length) {
		ssize_t got = read(fd, chunk, sizeof(chunk));

		if (got == 0 && lseek(fd, 0, SEEK_SET) == 0)
			got = read(fd, chunk, sizeof(chunk));
		if (got < (ssize_t)PAGE) {
			printf("WL-ERROR fill=disk: %s\n", strerror(errno));
			exit(1);
		}
		length = got;
		at = 0;
	}
	memcpy(page, chunk + at, PAGE);
	at += PAGE;
}

static void edit(struct dirty *dirty, size_t page)
{
	uint64_t value = random_u64();

	memcpy(dirty->area.at + page * PAGE + value % (PAGE / sizeof(value)) * sizeof(value), &value,
	    sizeof(value));
}

static void touch_edit8(struct dirty *dirty)
{
	edit(dirty, random_u64() % dirty->area.pages);
}

static void touch_seq8(struct dirty *dirty)
{
	edit(dirty, dirty->next++ % dirty->area.pages);
}

/* Where in its page the counter stands: not everywhere the same. */
static uint32_t *counter(const struct dirty *dirty, size_t page)
{
	return (uint32_t *)(dirty->area.at + page * PAGE) + page % (PAGE / sizeof(uint32_t));
}

static void verify(struct dirty *dirty, size_t page)
{
	uint32_t *count = counter(dirty, page);

	if (*count == dirty->expected[page])
		return;
	bad_pages++;
	printf("WL-BAD page %zu has %u, not %u\n", page, *count, dirty->expected[page]);
	*count = dirty->expected[page];
}

static void touch_verify(struct dirty *dirty)
{
	size_t page = random_u64() % dirty->area.pages;

	verify(dirty, page);
	*counter(dirty, page) = ++dirty->expected[page];
}

static const struct kind kinds[] = {
	{ "text", fill_text, NULL },
	{ "rand", fill_rand, NULL },
	{ "dup", fill_dup, NULL },
	{ "zero", fill_zero, NULL },
	{ "disk", fill_disk, NULL },
	{ "edit8", fill_text, touch_edit8 },
	{ "seq8", fill_text, touch_seq8 },
	{ "verify", fill_text, touch_verify },
};

static const struct kind *find_kind(const char *name)
{
	for (size_t i = 0; i < sizeof(kinds) / sizeof(*kinds); i++)
		if (!strcmp(kinds[i].name, name))
			return &kinds[i];
	return NULL;
}

static void *map(size_t bytes)
{
	void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (at != MAP_FAILED)
		return at;
	printf("WL-ERROR no memory for %zu MiB\n", bytes >> 20);
	exit(1);
}

static struct area make_area(const struct kind *kind, size_t mib)
{
	struct area area = { .at = map(mib << 20), .pages = (mib << 20) / PAGE };

	for (size_t i = 0; i < area.pages; i++)
		kind->fill(area.at + i * PAGE);
	return area;
}

static size_t make_filled(char *list, struct area *areas)
{
	size_t count = 0;

	for (char *word = strtok(list, ","); word && count < AREAS_MAX; word = strtok(NULL, ",")) {
		char name[16];
		size_t mib;

		if (sscanf(word, "%15[^:]:%zu", name, &mib) == 2 && find_kind(name))
			areas[count++] = make_area(find_kind(name), mib);
		else
			printf("WL-ERROR fill=%s is not KIND:MIB\n", word);
	}
	return count;
}

static void make_dirty(const char *text, struct dirty *dirty)
{
	char name[16];
	size_t mib;
	double rate;

	if (!text || !strcmp(text, "none"))
		return;
	if (sscanf(text, "%15[^:]:%zu:%lf", name, &mib, &rate) != 3 || !find_kind(name) || !mib) {
		printf("WL-ERROR dirty=%s is not KIND:MIB:RATE\n", text);
		return;
	}
	dirty->kind = find_kind(name);
	dirty->area = make_area(dirty->kind, mib);
	dirty->pages_per_s = rate * (1 << 20) / PAGE;
	if (dirty->kind->touch != touch_verify)
		return;
	dirty->expected = map(dirty->area.pages * sizeof(uint32_t));
	for (size_t i = 0; i < dirty->area.pages; i++)
		*counter(dirty, i) = dirty->expected[i] = 1;
}

/* Touch as many pages as the rate allows since the last call. */
static void work(struct dirty *dirty)
{
	uint64_t now = now_us(CLOCK_MONOTONIC), passed_us = now - dirty->last_us;

	dirty->last_us = now;
	if (!dirty->kind)
		return;
	if (passed_us > BACKLOG_MS * 1000)
		passed_us = BACKLOG_MS * 1000;
	for (dirty->owed += dirty->pages_per_s * passed_us / 1e6; dirty->owed >= 1; dirty->owed--)
		if (dirty->kind->touch)
			dirty->kind->touch(dirty);
		else
			dirty->kind->fill(dirty->area.at + random_u64() % dirty->area.pages * PAGE);
}

/* ---- block devices ------------------------------------------------------------------------------ */

struct device {
	char name[16];
	int fd;
	size_t blocks;
	uint32_t *expected; /* how often each block was written */
	double blocks_per_s;
	double owed;
	uint64_t last_us;
};

static struct device block_devices[BLOCK_DEVICES_MAX];
static size_t block_device_count;

/* What a block holds after so many writes: that number, so that whoever finds the block can check it, and nothing that packs. */
static void fill_block(uint8_t *block, size_t number, uint32_t count)
{
	uint64_t state = (uint64_t)(number + 1) * 0x9e3779b97f4a7c15u ^ count;

	memcpy(block, &(uint64_t) { count }, sizeof(uint64_t));
	for (size_t at = sizeof(uint64_t); at < PAGE; at += sizeof(state)) {
		state ^= state << 13;
		state ^= state >> 7;
		state ^= state << 17;
		memcpy(block + at, &state, sizeof(state));
	}
}

static void write_block(struct device *device, size_t number)
{
	static uint8_t block[PAGE] __attribute__((aligned(PAGE)));

	fill_block(block, number, ++device->expected[number]);
	if (pwrite(device->fd, block, PAGE, (off_t)(number * PAGE)) != PAGE) {
		bad_pages++;
		printf("WL-BAD %s: writing block %zu: %s\n", device->name, number, strerror(errno));
	}
}

static void check_block(struct device *device, size_t number)
{
	static uint8_t block[PAGE] __attribute__((aligned(PAGE))), expected[PAGE];

	fill_block(expected, number, device->expected[number]);
	if (pread(device->fd, block, PAGE, (off_t)(number * PAGE)) == PAGE && memcmp(block, expected, PAGE) == 0)
		return;
	bad_pages++;
	printf("WL-BAD %s block %zu is not what write %u left\n", device->name, number, device->expected[number]);
}

/* A block that an earlier boot wrote: how often, 0 if it holds nothing that we write. */
static uint32_t writes_of(struct device *device, size_t number)
{
	static uint8_t block[PAGE] __attribute__((aligned(PAGE))), expected[PAGE];
	uint64_t count;

	if (pread(device->fd, block, PAGE, (off_t)(number * PAGE)) != PAGE)
		return 0;
	memcpy(&count, block, sizeof(count));
	fill_block(expected, number, (uint32_t)count);
	return memcmp(block, expected, PAGE) ? 0 : (uint32_t)count;
}

/* True if it is the disk of an earlier boot: all blocks are checked, and go on from there. */
static bool take_over(struct device *device)
{
	size_t bad = 0;

	if (!writes_of(device, 0))
		return false;
	for (size_t i = 0; i < device->blocks; i++)
		if (!(device->expected[i] = writes_of(device, i)))
			bad++;
	bad_pages += bad;
	printf("WL-KEPT %s blocks=%zu bad=%zu\n", device->name, device->blocks, bad);
	return true;
}

static void make_device(const char *word)
{
	struct device *device = &block_devices[block_device_count];
	char path[32], keep[8] = "";
	size_t mib;

	if (sscanf(word, "%15[^:]:%zu:%lf:%7s", device->name, &mib, &device->blocks_per_s, keep) < 3 || !mib) {
		printf("WL-ERROR disk=%s is not DEVICE:MIB:RATE[:keep]\n", word);
		return;
	}
	snprintf(path, sizeof(path), "/dev/%s", device->name);
	device->fd = open(path, O_RDWR | O_DIRECT | O_CLOEXEC);
	if (device->fd < 0) {
		printf("WL-ERROR disk=%s: %s\n", word, strerror(errno));
		return;
	}
	device->blocks = (mib << 20) / PAGE;
	device->blocks_per_s *= (1 << 20) / PAGE;
	device->expected = map(device->blocks * sizeof(uint32_t));
	if (strcmp(keep, "keep") || !take_over(device))
		for (size_t i = 0; i < device->blocks; i++)
			write_block(device, i);
	device->last_us = now_us(CLOCK_MONOTONIC);
	block_device_count++;
}

static void make_devices(char *list)
{
	for (char *word = strtok(list, ","); word && block_device_count < BLOCK_DEVICES_MAX; word = strtok(NULL, ","))
		make_device(word);
}

static void work_on_devices(void)
{
	for (struct device *device = block_devices; device < block_devices + block_device_count; device++) {
		uint64_t now = now_us(CLOCK_MONOTONIC), passed_us = now - device->last_us;

		device->last_us = now;
		if (passed_us > BACKLOG_MS * 1000)
			passed_us = BACKLOG_MS * 1000;
		for (device->owed += device->blocks_per_s * passed_us / 1e6; device->owed >= 1; device->owed--) {
			size_t number = random_u64() % device->blocks;

			check_block(device, number);
			write_block(device, number);
		}
	}
}

static void check_devices(void)
{
	for (struct device *device = block_devices; device < block_devices + block_device_count; device++)
		for (size_t i = 0; i < device->blocks; i++)
			check_block(device, i);
}

/* ---- heartbeat ---------------------------------------------------------------------------------- */

static int open_raw(const char *device)
{
	char path[64];
	struct termios mode;
	int fd;

	snprintf(path, sizeof(path), "/dev/%s", device);
	fd = open(path, O_WRONLY | O_NOCTTY | O_CLOEXEC);
	if (fd >= 0 && tcgetattr(fd, &mode) == 0) {
		cfmakeraw(&mode);
		cfsetspeed(&mode, B115200);
		tcsetattr(fd, TCSANOW, &mode);
	}
	return fd;
}

static void beat_for_ever(const char *device)
{
	struct sched_param priority = { .sched_priority = 1 };
	struct timespec next;
	char line[96];
	int fd = open_raw(device);

	if (fd < 0) {
		printf("WL-ERROR hb=%s: %s\n", device, strerror(errno));
		_exit(1);
	}
	sched_setscheduler(0, SCHED_FIFO, &priority);
	clock_gettime(CLOCK_MONOTONIC, &next);
	for (uint64_t seq = 0;; seq++) {
		int length = snprintf(line, sizeof(line), "H %llu %llu %llu\n", (unsigned long long)seq,
		    (unsigned long long)now_us(CLOCK_MONOTONIC), (unsigned long long)now_us(CLOCK_REALTIME));

		if (write(fd, line, length) != length)
			_exit(1);
		next.tv_nsec += BEAT_MS * 1000000;
		next.tv_sec += next.tv_nsec / 1000000000;
		next.tv_nsec %= 1000000000;
		clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &next, NULL);
	}
}

static void start_heartbeat(const char *device)
{
	if (strcmp(device, "none") && fork() == 0)
		beat_for_ever(device);
}

/* ---- console ------------------------------------------------------------------------------------ */

/* The hash begins with a number of this boot: a guest that was started anew is not the same guest. */
static uint64_t hash_areas(const struct area *areas, size_t count)
{
	static uint64_t boot;
	uint64_t hash;

	while (!boot)
		if (getrandom(&boot, sizeof(boot), 0) != sizeof(boot))
			boot = 0;
	hash = boot;

	for (size_t i = 0; i < count; i++) {
		const uint64_t *words = (const uint64_t *)areas[i].at;

		for (size_t w = 0; w < areas[i].pages * PAGE / sizeof(*words); w++)
			hash = (hash ^ words[w]) * 0x9e3779b97f4a7c15u + (hash >> 29);
	}
	return hash;
}

static void run_shell(const char *command)
{
	if (fork() == 0) {
		execl("/bin/sh", "sh", "-c", command, NULL);
		_exit(127);
	}
}

static void answer(const char *line, const struct area *areas, size_t count, struct dirty *dirty)
{
	if (!strncmp(line, "sh ", 3)) {
		run_shell(line + 3);
	} else if (!strncmp(line, "rate ", 5)) {
		dirty->pages_per_s = atof(line + 5) * (1 << 20) / PAGE;
		printf("WL-RATE %s\n", line + 5);
	} else if (!strncmp(line, "disk-rate ", 10)) {
		for (size_t i = 0; i < block_device_count; i++)
			block_devices[i].blocks_per_s = atof(line + 10) * (1 << 20) / PAGE;
		printf("WL-DISK-RATE %s\n", line + 10);
	} else if (!strncmp(line, "sum", 3)) {
		for (size_t i = 0; dirty->expected && i < dirty->area.pages; i++)
			verify(dirty, i);
		check_devices();
		printf("WL-SUM %016llx bad=%llu%s\n", (unsigned long long)hash_areas(areas, count),
		    (unsigned long long)bad_pages, line + 3);
	}
}

/* Whole lines from the console; the terminal hands out at most one a read. */
static void serve_console(const struct area *areas, size_t count, struct dirty *dirty)
{
	struct pollfd console = { .fd = STDIN_FILENO, .events = POLLIN };
	char line[512];

	for (;;) {
		ssize_t length = 0;

		if (poll(&console, 1, TICK_MS) > 0)
			length = read(STDIN_FILENO, line, sizeof(line) - 1);
		if (length > 0) {
			line[length] = 0;
			line[strcspn(line, "\r\n")] = 0;
			answer(line, areas, count, dirty);
		}
		work(dirty);
		work_on_devices();
	}
}

static char *option(int argc, char **argv, const char *name, char *fallback)
{
	size_t length = strlen(name);

	for (int i = 1; i < argc; i++)
		if (!strncmp(argv[i], name, length) && argv[i][length] == '=')
			return argv[i] + length + 1;
	return fallback;
}

int main(int argc, char **argv)
{
	struct area areas[AREAS_MAX];
	struct dirty dirty = { 0 };
	size_t count;

	setvbuf(stdout, NULL, _IOLBF, 0);
	signal(SIGCHLD, SIG_IGN);
	start_heartbeat(option(argc, argv, "hb", "ttyS1"));
	for (size_t i = 0; i < 16; i++)
		(i % 2 ? fill_text : fill_rand)(repeated[i]);
	count = make_filled(option(argc, argv, "fill", ""), areas);
	make_dirty(option(argc, argv, "dirty", NULL), &dirty);
	make_devices(option(argc, argv, "disk", ""));
	dirty.last_us = now_us(CLOCK_MONOTONIC);
	printf("WL-READY\n");
	serve_console(areas, count, &dirty);
}
