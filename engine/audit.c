/* SPDX-License-Identifier: Apache-2.0
 *
 * audit.c - the hash-chained audit log described in audit.h. Lines are written with one write(2) and not
 * flushed to the disk one by one: what a power cut may take is the last second's, what kill -9 may take is
 * at most the last line. Not here: what is worth a line (commands.c, jobs.c).
 */
#include "audit.h"
#include "cleanup.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#define HASH_TEXT 65 /* hexadecimal SHA-256 and its end */

struct nova_audit {
	char *directory; /* owned */
	int fd;          /* owned: the newest file */
	unsigned number; /* of it */
	off_t bytes;     /* in it */
	uint64_t seq;    /* of the last line */
	char prev[HASH_TEXT];
	size_t torn_bytes; /* found at opening, not yet told */
};

static void hash_line(const char *line, size_t length, char text[HASH_TEXT])
{
	unsigned char digest[32];

	EVP_Digest(line, length, digest, NULL, EVP_sha256(), NULL);
	for (size_t i = 0; i < sizeof(digest); i++)
		snprintf(text + 2 * i, 3, "%02x", digest[i]);
}

/* ---- files ---- */

static int by_number(const void *a, const void *b)
{
	unsigned x = *(const unsigned *)a, y = *(const unsigned *)b;

	return x < y ? -1 : x > y;
}

/* Numbers of the files there are, ascending; *count of them (the caller frees). NULL and errno if unreadable. */
static unsigned *list_files(const char *directory, size_t *count)
{
	DIR *dir = opendir(directory);
	unsigned *numbers = NULL, number;
	const struct dirent *entry;
	char check[64];

	*count = 0;
	if (!dir)
		return NULL;
	numbers = malloc(sizeof(*numbers));
	while (numbers && (entry = readdir(dir))) {
		unsigned *more;

		if (sscanf(entry->d_name, "audit.%u.log", &number) != 1)
			continue;
		snprintf(check, sizeof(check), "audit.%u.log", number);
		if (strcmp(check, entry->d_name))
			continue;
		more = realloc(numbers, (*count + 2) * sizeof(*numbers));
		if (!more)
			break;
		numbers = more;
		numbers[(*count)++] = number;
	}
	closedir(dir);
	if (numbers)
		qsort(numbers, *count, sizeof(*numbers), by_number);
	return numbers;
}

/* ---- reading ---- */

struct reading {
	uint64_t lines, seq;
	char prev[HASH_TEXT];
	char first_time[40], last_time[40];
	size_t torn;
	bool tolerate; /* the chain's beginning was rotated away: take the first prev as given */
	bool torn_now; /* the line before this one could not be read */
	json_t *problems; /* borrowed */
	json_t *tail;     /* borrowed: collects lines; may be NULL */
	size_t tail_most;
};

static void problem(struct reading *reading, unsigned file, const char *what)
{
	char text[256];

	snprintf(text, sizeof(text), "audit.%u.log, after line %llu: %s", file, (unsigned long long)reading->seq, what);
	if (json_array_size(reading->problems) < 100)
		json_array_append_new(reading->problems, json_string(text));
}

static void copy_text(char *to, size_t size, const json_t *object, const char *name)
{
	const char *text = json_string_value(json_object_get(object, name));

	snprintf(to, size, "%s", text ? text : "");
}

static void check_chain(struct reading *reading, unsigned file, const json_t *record)
{
	const char *prev = json_string_value(json_object_get(record, "prev"));
	json_int_t seq = json_integer_value(json_object_get(record, "seq"));

	if (reading->tolerate) {
		reading->tolerate = false;
		return;
	}
	if (!prev || strcmp(prev, reading->prev))
		problem(reading, file, "the chain is broken: a line was changed, removed or put in");
	else if ((uint64_t)seq != reading->seq + 1)
		problem(reading, file, "the sequence number is wrong");
}

static void read_line(struct reading *reading, unsigned file, const char *line, size_t length, bool whole)
{
	NOVA_AUTOJSON json_t *record = whole ? json_loadb(line, length, JSON_REJECT_DUPLICATES, NULL) : NULL;

	if (!json_is_object(record)) { /* fine if the next line says that it was torn */
		reading->torn_now = true;
		hash_line(line, length, reading->prev);
		return;
	}
	if (reading->torn_now && !json_object_get(record, "torn_bytes"))
		problem(reading, file, "a line cannot be read and nothing says that a crash tore it");
	reading->torn += reading->torn_now;
	reading->torn_now = false;
	check_chain(reading, file, record);
	hash_line(line, length, reading->prev);
	reading->seq = (uint64_t)json_integer_value(json_object_get(record, "seq"));
	if (reading->lines++ == 0)
		copy_text(reading->first_time, sizeof(reading->first_time), record, "time");
	copy_text(reading->last_time, sizeof(reading->last_time), record, "time");
	if (!reading->tail)
		return;
	json_array_append(reading->tail, record);
	if (json_array_size(reading->tail) > reading->tail_most)
		json_array_remove(reading->tail, 0);
}

static int read_file(struct reading *reading, const char *directory, unsigned number, struct nova_error *err)
{
	NOVA_AUTOFREE char *path = NULL, *line = NULL;
	size_t size = 0;
	ssize_t length;
	FILE *file;

	if (asprintf(&path, "%s/audit.%u.log", directory, number) < 0)
		return nova_error_sys(err, ENOMEM, "audit log");
	file = fopen(path, "re");
	if (!file)
		return nova_error_sys(err, errno, "audit log %s", path);
	while ((length = getline(&line, &size, file)) > 0) {
		bool whole = line[length - 1] == '\n';

		read_line(reading, number, line, (size_t)length - whole, whole);
	}
	fclose(file);
	return 0;
}

static int read_all(struct reading *reading, const char *directory, size_t *files, struct nova_error *err)
{
	NOVA_AUTOFREE unsigned *numbers = list_files(directory, files);

	if (!numbers)
		return nova_error_sys(err, errno, "audit directory %s", directory);
	memset(reading->prev, '0', HASH_TEXT - 1);
	reading->tolerate = *files && numbers[0] > 1;
	for (size_t i = 0; i < *files; i++) {
		if (i && numbers[i] != numbers[i - 1] + 1)
			problem(reading, numbers[i], "the file before this one is missing");
		if (read_file(reading, directory, numbers[i], err) < 0)
			return -1;
	}
	return 0;
}

json_t *nova_audit_verify(const char *state_dir, struct nova_error *err)
{
	NOVA_AUTOFREE char *directory = NULL;
	NOVA_AUTOJSON json_t *problems = json_array();
	struct reading reading = { .problems = problems };
	size_t files;

	if (asprintf(&directory, "%s/audit", state_dir) < 0) {
		nova_error_sys(err, ENOMEM, "audit log");
		return NULL;
	}
	if (read_all(&reading, directory, &files, err) < 0)
		return NULL;
	return json_pack("{s:I, s:I, s:s, s:s, s:s, s:I, s:b, s:b, s:O}", "files", (json_int_t)files, "lines",
	    (json_int_t)reading.lines, "first", reading.first_time, "last", reading.last_time, "last_hash", reading.prev,
	    "torn", (json_int_t)reading.torn, "last_line_torn", reading.torn_now, "ok", json_array_size(problems) == 0,
	    "problems", problems);
}

json_t *nova_audit_show(const char *state_dir, size_t count, struct nova_error *err)
{
	NOVA_AUTOFREE char *directory = NULL;
	NOVA_AUTOJSON json_t *problems = json_array(), *tail = json_array();
	struct reading reading = { .problems = problems, .tail = tail, .tail_most = count };
	size_t files;

	if (asprintf(&directory, "%s/audit", state_dir) < 0) {
		nova_error_sys(err, ENOMEM, "audit log");
		return NULL;
	}
	if (read_all(&reading, directory, &files, err) < 0)
		return NULL;
	return nova_take(&tail);
}

/* ---- writing ---- */

static int open_file(struct nova_audit *audit, unsigned number, struct nova_error *err)
{
	NOVA_AUTOFREE char *path = NULL;
	struct stat status;

	if (asprintf(&path, "%s/audit.%u.log", audit->directory, number) < 0)
		return nova_error_sys(err, ENOMEM, "audit log");
	if (audit->fd >= 0)
		close(audit->fd);
	audit->fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (audit->fd < 0 || fstat(audit->fd, &status) < 0)
		return nova_error_sys(err, errno, "audit log %s", path);
	audit->number = number;
	audit->bytes = status.st_size;
	return 0;
}

static void forget_old(struct nova_audit *audit)
{
	size_t count;
	NOVA_AUTOFREE unsigned *numbers = list_files(audit->directory, &count);

	for (size_t i = 0; numbers && i + NOVA_AUDIT_FILES < count; i++) {
		NOVA_AUTOFREE char *path = NULL;

		if (asprintf(&path, "%s/audit.%u.log", audit->directory, numbers[i]) > 0)
			unlink(path);
	}
}

/* Where the chain stands, and whether a crash tore its last line. */
static int take_up(struct nova_audit *audit, struct nova_error *err)
{
	NOVA_AUTOJSON json_t *problems = json_array();
	struct reading reading = { .problems = problems };
	NOVA_AUTOFREE unsigned *numbers = NULL;
	size_t files;

	if (read_all(&reading, audit->directory, &files, err) < 0)
		return -1;
	numbers = list_files(audit->directory, &files);
	audit->seq = reading.seq;
	memcpy(audit->prev, reading.prev, HASH_TEXT);
	if (open_file(audit, numbers && files ? numbers[files - 1] : 1, err) < 0)
		return -1;
	if (!reading.torn_now)
		return 0;
	audit->torn_bytes = 1;
	if (write(audit->fd, "\n", 1) != 1)
		return nova_error_sys(err, errno, "audit log");
	audit->bytes++;
	return 0;
}

struct nova_audit *nova_audit_open(const char *state_dir, struct nova_error *err)
{
	struct nova_audit *audit = calloc(1, sizeof(*audit));

	if (!audit || asprintf(&audit->directory, "%s/audit", state_dir) < 0) {
		free(audit);
		nova_error_sys(err, ENOMEM, "audit log");
		return NULL;
	}
	audit->fd = -1;
	if (mkdir(audit->directory, 0700) < 0 && errno != EEXIST) {
		nova_error_sys(err, errno, "audit directory %s", audit->directory);
		return nova_audit_close(audit);
	}
	if (take_up(audit, err) < 0)
		return nova_audit_close(audit);
	return audit;
}

struct nova_audit *nova_audit_close(struct nova_audit *audit)
{
	if (!audit)
		return NULL;
	if (audit->fd >= 0)
		close(audit->fd);
	free(audit->directory);
	free(audit);
	return NULL;
}

static void stamp(struct nova_audit *audit, json_t *record)
{
	struct timespec now;
	struct tm utc;
	char text[40];
	size_t used;

	clock_gettime(CLOCK_REALTIME, &now);
	gmtime_r(&now.tv_sec, &utc);
	used = strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &utc);
	snprintf(text + used, sizeof(text) - used, ".%03ldZ", now.tv_nsec / 1000000);
	json_object_set_new(record, "seq", json_integer((json_int_t)audit->seq + 1));
	json_object_set_new(record, "time", json_string(text));
	json_object_set_new(record, "prev", json_string(audit->prev));
	if (audit->torn_bytes)
		json_object_set_new(record, "torn_bytes", json_true());
}

static int write_line(struct nova_audit *audit, const char *line, size_t length, struct nova_error *err)
{
	ssize_t written = write(audit->fd, line, length);

	if (written == (ssize_t)length) {
		audit->bytes += written;
		return 0;
	}
	if (written > 0 && ftruncate(audit->fd, audit->bytes) < 0)
		return nova_error_sys(err, errno, "audit log: a torn line could not be taken back");
	return nova_error_sys(err, written < 0 ? errno : ENOSPC, "audit log");
}

int nova_audit_append(struct nova_audit *audit, json_t *record_stolen, struct nova_error *err)
{
	NOVA_AUTOJSON json_t *record = record_stolen;
	NOVA_AUTOFREE char *line = NULL;
	size_t length;

	if (!audit)
		return nova_error_set(err, NOVA_STATE, "the audit log could not be opened: this is not in it");
	if (audit->bytes >= NOVA_AUDIT_FILE_BYTES) {
		if (open_file(audit, audit->number + 1, err) < 0)
			return -1;
		forget_old(audit);
	}
	stamp(audit, record);
	line = json_dumps(record, JSON_COMPACT);
	if (line && strlen(line) > NOVA_AUDIT_LINE_BYTES) {
		free(line);
		json_object_set_new(record, "args", json_string("cut: too long"));
		line = json_dumps(record, JSON_COMPACT);
	}
	if (!line)
		return nova_error_sys(err, ENOMEM, "audit log");
	length = strlen(line);
	line[length] = '\n'; /* in the place of its end: written with its length */
	if (write_line(audit, line, length + 1, err) < 0)
		return -1;
	hash_line(line, length, audit->prev);
	audit->seq++;
	audit->torn_bytes = 0;
	return 0;
}
