/* SPDX-License-Identifier: Apache-2.0
 *
 * buf.c - one allocation per message: the descriptor, the transport's headroom, then at most 256 KiB of
 * payload.
 */
#include "flow.h"

#include <stdlib.h>

struct nova_buf *nova_buf_new(size_t capacity)
{
	struct nova_buf *buf;

	if (capacity > NOVA_MESSAGE_MAX)
		return NULL;
	buf = malloc(sizeof(*buf) + NOVA_BUF_HEADROOM + capacity);
	if (!buf)
		return NULL;
	*buf = (struct nova_buf) {
		.capacity = (uint32_t)capacity,
		.data = (uint8_t *)(buf + 1) + NOVA_BUF_HEADROOM,
	};
	return buf;
}

struct nova_buf *nova_buf_free(struct nova_buf *buf)
{
	free(buf);
	return NULL;
}
