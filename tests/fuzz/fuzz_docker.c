/* SPDX-License-Identifier: Apache-2.0
 *
 * fuzz_docker.c - what a Docker engine streams: events (JSON objects one after the other) and the frames of a
 * container's output, in pieces of any size. The first byte says which.
 */
#include <stdlib.h>
#include <string.h>

#include "drivers/docker/docker.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void each(void *arg, json_t *value)
{
	struct docker nobody = { 0 };

	if (!json_is_object(value))
		abort();
	docker_event(&nobody, value);
}

static void events(const uint8_t *data, size_t size, size_t piece)
{
	struct json_stream stream = { 0 };

	for (size_t at = 0; at < size; at += piece)
		if (json_stream_feed(&stream, data + at, size - at < piece ? size - at : piece, each, NULL, NULL) < 0)
			break;
	json_stream_release(&stream);
}

static void frames(const uint8_t *data, size_t size, size_t piece)
{
	struct docker_frames frames = { 0 };

	for (size_t at = 0; at < size; at += piece)
		if (docker_frames_feed(&frames, data + at, size - at < piece ? size - at : piece, NULL) < 0)
			break;
	if (frames.used > 2 * DOCKER_LOG_MAX || frames.used > size)
		abort();
	docker_frames_release(&frames);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	size_t piece = size ? 1 + data[0] / 2 : 1;

	if (size > 1 && data[0] & 1)
		frames(data + 1, size - 1, piece);
	else if (size > 1)
		events(data + 1, size - 1, piece);
	return 0;
}
