/* SPDX-License-Identifier: Apache-2.0
 *
 * logs.c - a container's output out of the frames it comes in. The last DOCKER_LOG_MAX bytes are kept.
 */
#include "drivers/docker/docker.h"

#include <errno.h>
#include <string.h>

static int keep(struct docker_frames *frames, const char *bytes, size_t length, struct nova_error *err)
{
	size_t over;

	if (!frames->text && !(frames->text = malloc(2 * DOCKER_LOG_MAX)))
		return nova_error_sys(err, ENOMEM, "no memory for a log");
	if (length > DOCKER_LOG_MAX) {
		bytes += length - DOCKER_LOG_MAX;
		length = DOCKER_LOG_MAX;
		frames->cut = true;
	}
	if (frames->used + length > 2 * DOCKER_LOG_MAX) {
		over = frames->used + length - DOCKER_LOG_MAX;
		memmove(frames->text, frames->text + over, frames->used - over);
		frames->used -= over;
		frames->cut = true;
	}
	memcpy(frames->text + frames->used, bytes, length);
	frames->used += length;
	return 0;
}

static bool is_head(const unsigned char head[8])
{
	return head[0] <= 2 && !head[1] && !head[2] && !head[3];
}

/* A head that is complete. */
static int begin_frame(struct docker_frames *frames, struct nova_error *err)
{
	const unsigned char *head = frames->head;

	frames->have = 0;
	if (!is_head(head) && !frames->begun) {
		frames->raw = true;
		return keep(frames, (const char *)head, 8, err);
	}
	frames->begun = true;
	frames->left = (uint32_t)head[4] << 24 | (uint32_t)head[5] << 16 | (uint32_t)head[6] << 8 | head[7];
	if (!is_head(head) || frames->left > DOCKER_FRAME_MAX)
		return nova_error_set(err, NOVA_REFUSED, "the container's output is not framed as it should be");
	return 0;
}

int docker_frames_feed(struct docker_frames *frames, const void *bytes, size_t length, struct nova_error *err)
{
	const char *at = bytes;

	while (length) {
		size_t now;

		if (frames->raw)
			return keep(frames, at, length, err);
		if (frames->left == 0) {
			frames->head[frames->have++] = (unsigned char)*at++;
			length--;
			if (frames->have == 8 && begin_frame(frames, err) < 0)
				return -1;
			continue;
		}
		now = length < frames->left ? length : frames->left;
		if (keep(frames, at, now, err) < 0)
			return -1;
		at += now;
		length -= now;
		frames->left -= (uint32_t)now;
	}
	return 0;
}

void docker_frames_release(struct docker_frames *frames)
{
	free(frames->text);
	memset(frames, 0, sizeof(*frames));
}
