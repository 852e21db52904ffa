/* SPDX-License-Identifier: Apache-2.0
 *
 * nbd_reader.h - read an export of an NBD server on a unix socket, several requests at a time.
 */
#ifndef NOVA_NBD_READER_H
#define NOVA_NBD_READER_H

#include "nbd.h"

struct nova_nbd_reader;

struct nova_nbd_reader_events {
	void (*opened)(void *arg, const struct nova_nbd_export *export);
	/* The answer to the oldest request that was not answered yet. data is gone after the call. */
	void (*got)(void *arg, uint64_t offset, const uint8_t *data, size_t length);
	/* Nothing more comes. */
	void (*failed)(void *arg, const struct nova_error *err);
};

/* Callbacks come from the loop, and may free the reader. name is copied. */
struct nova_nbd_reader *nova_nbd_reader_new(struct event_base *base, const char *path, const char *name,
    const struct nova_nbd_reader_events *events, void *arg, struct nova_error *err);
/* After opened; length is at most 4 MiB and within the export. */
int nova_nbd_reader_read(struct nova_nbd_reader *reader, uint64_t offset, uint32_t length, struct nova_error *err);
struct nova_nbd_reader *nova_nbd_reader_free(struct nova_nbd_reader *reader);

#endif
