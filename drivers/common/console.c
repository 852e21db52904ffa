/* SPDX-License-Identifier: Apache-2.0
 *
 * console.c - the end of a container's log (console.h). Read at once: it is short.
 */
#include "drivers/common/console.h"
#include "engine/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>

static size_t last_lines(const char *text, size_t length, int64_t lines)
{
	size_t at = length;

	while (at > 0 && lines >= 0) {
		if (text[at - 1] == '\n' && at < length && --lines == 0)
			break;
		at--;
	}
	return at;
}

json_t *console_read(const char *path, int64_t lines, struct nova_error *err)
{
	NOVA_AUTOFREE char *text = malloc(CONSOLE_MAX);
	NOVA_AUTOCLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	ssize_t got = 0;
	size_t from;
	off_t end;

	if (!text || (fd < 0 && errno != ENOENT)) {
		nova_error_sys(err, text ? errno : ENOMEM, "%s", path);
		return NULL;
	}
	end = fd < 0 ? 0 : lseek(fd, 0, SEEK_END);
	if (end > 0)
		got = pread(fd, text, CONSOLE_MAX, end > (off_t)CONSOLE_MAX ? end - (off_t)CONSOLE_MAX : 0);
	if (got < 0)
		got = 0;
	for (ssize_t i = 0; i < got; i++)
		if (text[i] & 0x80)
			text[i] = '?';
	from = last_lines(text, (size_t)got, lines > 0 ? lines : 100);
	return json_pack("{s:o?,s:b}", "text", json_stringn(text + from, (size_t)got - from), "cut", from > 0 || end > (off_t)CONSOLE_MAX);
}
