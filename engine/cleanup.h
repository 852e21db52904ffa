/* SPDX-License-Identifier: Apache-2.0
 *
 * cleanup.h - scope cleanup and explicit hand-over.
 */
#ifndef NOVA_CLEANUP_H
#define NOVA_CLEANUP_H

#include <jansson.h>
#include <stdlib.h>
#include <unistd.h>

static inline void nova_cleanup_free(void *p)
{
	free(*(void **)p);
}

static inline void nova_cleanup_close(int *fd)
{
	if (*fd >= 0)
		close(*fd);
}

static inline void nova_cleanup_json(json_t **value)
{
	json_decref(*value);
}

#define NOVA_AUTOFREE __attribute__((cleanup(nova_cleanup_free)))
#define NOVA_AUTOCLOSE __attribute__((cleanup(nova_cleanup_close)))
#define NOVA_AUTOJSON __attribute__((cleanup(nova_cleanup_json)))

/* Hand over: the variable is empty afterwards. */
static inline int nova_take_fd(int *fd)
{
	int taken = *fd;
	*fd = -1;
	return taken;
}

#define nova_take(pointer) \
	({ \
		__typeof__(*(pointer)) taken_ = *(pointer); \
		*(pointer) = NULL; \
		taken_; \
	})

#endif
