/* SPDX-License-Identifier: Apache-2.0
 *
 * notify.c - tell whoever started the daemon how it stands: systemd (one datagram, so there is no need for
 * libsystemd), a waiting parent (a line on a descriptor), and people and journald (the log on standard
 * error). A log line has at most 4 KiB.
 */
#include "tools/notify.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

void notify_systemd(const char *state)
{
	const char *path = getenv("NOTIFY_SOCKET");
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	size_t length = path ? strlen(path) : 0;
	int fd;

	if (length < 2 || length >= sizeof(address.sun_path) || !strchr("/@", path[0]))
		return;
	memcpy(address.sun_path, path, length);
	if (path[0] == '@')
		address.sun_path[0] = '\0';
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return;
	sendto(fd, state, strlen(state), MSG_NOSIGNAL, (struct sockaddr *)&address,
	    (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length));
	close(fd);
}

int notify_fd(int fd, int port, const char *control, struct nova_error *err)
{
	json_t *facts = json_pack("{si ss*}", "port", port, "control", control);
	char *line = facts ? json_dumps(facts, JSON_COMPACT) : NULL;
	int failed = 0;

	if (!line || dprintf(fd, "%s\n", line) < 0)
		failed = nova_error_sys(err, errno, "--ready-fd %d cannot be written", fd);
	free(line);
	json_decref(facts);
	close(fd);
	return failed;
}

/* JOURNAL_STREAM is inherited by everything a service starts: only believe it if it names our stderr. */
static bool to_journal(void)
{
	const char *stream = getenv("JOURNAL_STREAM");
	unsigned long long device, inode;
	struct stat st;

	return stream && sscanf(stream, "%llu:%llu", &device, &inode) == 2 &&
	       fstat(STDERR_FILENO, &st) == 0 && st.st_dev == device && st.st_ino == inode;
}

void notify_log(void *arg, enum nova_log_level level, const char *line)
{
	static const struct {
		int priority; /* syslog's */
		const char *name;
	} levels[] = {
		[NOVA_LOG_ERROR] = { 3, "error" },
		[NOVA_LOG_WARNING] = { 4, "warning" },
		[NOVA_LOG_INFO] = { 6, "info" },
		[NOVA_LOG_DEBUG] = { 7, "debug" },
	};
	const enum nova_log_level *least = arg;
	char clean[4096], when[32];
	struct timespec now;
	struct tm utc;

	if (level > *least)
		return;
	snprintf(clean, sizeof(clean), "%s", line);
	for (unsigned char *c = (unsigned char *)clean; *c; c++)
		if (*c < 0x20 || *c == 0x7f)
			*c = ' ';
	if (to_journal()) {
		fprintf(stderr, "<%d>%s\n", levels[level].priority, clean);
		return;
	}
	clock_gettime(CLOCK_REALTIME, &now);
	gmtime_r(&now.tv_sec, &utc);
	strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%S", &utc);
	fprintf(stderr, "%s.%03ldZ %-7s %s\n", when, now.tv_nsec / 1000000, levels[level].name, clean);
}
