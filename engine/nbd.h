/* SPDX-License-Identifier: Apache-2.0
 *
 * nbd.h - the part of the Network Block Device protocol that a disk's way to another host needs.
 *
 * Handshakes of both sides (fixed newstyle, OPT_GO, no TLS: the sockets are local), and the headers of the
 * transmission phase. Structured replies are not negotiated: both sides' transmission is the same bytes then.
 * Everything is read from evbuffers as it comes: 1 means done, 0 that more must come, -1 and *err a breach.
 * Limits: an option or information of at most 8 KiB, a request that carries at most 64 MiB.
 */
#ifndef NOVA_NBD_H
#define NOVA_NBD_H

#include "novacron.h"

struct evbuffer;

#define NOVA_NBD_REQUEST_BYTES 28u
#define NOVA_NBD_REPLY_BYTES 16u
#define NOVA_NBD_DATA_MAX (64u << 20)

enum nova_nbd_command {
	NOVA_NBD_READ = 0,
	NOVA_NBD_WRITE = 1,
	NOVA_NBD_DISCONNECT = 2,
	NOVA_NBD_FLUSH = 3,
	NOVA_NBD_TRIM = 4,
	NOVA_NBD_WRITE_ZEROES = 6,
};

/* What a server says of an export. */
struct nova_nbd_export {
	uint64_t size_bytes;
	uint16_t flags; /* transmission flags, as on the wire */
	uint32_t block_min, block_preferred, block_max; /* bytes; 0: not said */
};

/* ---- handshakes ---- */

/* We are the server, and serve one export whatever name is asked for. */
struct nova_nbd_server {
	struct nova_nbd_export export;
	int state; /* 0: nothing was said yet */
	bool no_zeroes;
};
int nova_nbd_server_step(
    struct nova_nbd_server *server, struct evbuffer *in, struct evbuffer *out, struct nova_error *err);

/* We are the client, and want the export of this name (borrowed until done). */
struct nova_nbd_client {
	const char *name;
	struct nova_nbd_export export; /* when done */
	int state;
};
int nova_nbd_client_step(
    struct nova_nbd_client *client, struct evbuffer *in, struct evbuffer *out, struct nova_error *err);

/* ---- transmission ---- */

struct nova_nbd_request {
	uint16_t flags, type;
	uint64_t cookie, offset;
	uint32_t length;
};
struct nova_nbd_reply {
	uint32_t error; /* 0, or an errno of Linux */
	uint64_t cookie;
};
/* Bytes that follow the header. */
static inline uint32_t nova_nbd_payload(const struct nova_nbd_request *request)
{
	return request->type == NOVA_NBD_WRITE ? request->length : 0;
}
/* The header is taken out of the buffer. size_bytes: of the export; requests beyond it are a breach. */
int nova_nbd_request_get(
    struct evbuffer *in, uint64_t size_bytes, struct nova_nbd_request *request, struct nova_error *err);
void nova_nbd_request_put(struct evbuffer *out, const struct nova_nbd_request *request);
int nova_nbd_reply_get(struct evbuffer *in, struct nova_nbd_reply *reply, struct nova_error *err);

#endif
