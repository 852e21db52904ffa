/* SPDX-License-Identifier: Apache-2.0
 *
 * pump.h - TLS over one non-blocking socket, in large writes and large reads.
 */
#ifndef NOVA_PUMP_H
#define NOVA_PUMP_H

#include <openssl/ssl.h>

#include "novacron.h"

#define PUMP_STAGE_BYTES 8192u         /* small frames are gathered into one TLS record */
#define PUMP_READ_BYTES (256u * 1024)  /* asked from the kernel at once */
#define PUMP_REKEY_BYTES (64ull << 30) /* new keys after that, far below AES-GCM's limit */

struct pump {
	int fd;       /* owned */
	SSL *ssl;     /* owned */
	uint8_t *out; /* owned: encrypted, not yet on the socket */
	size_t out_capacity, out_at, out_end;
	uint8_t stage[PUMP_STAGE_BYTES];
	size_t staged;
	uint8_t *in; /* owned: PUMP_READ_BYTES from the socket that OpenSSL has not taken */
	size_t in_at, in_end;
	int socket_errno;                    /* why the socket failed; 0: it did not */
	bool ended;                          /* the peer closed its end */
	uint64_t sent_bytes, received_bytes; /* on the socket */
	uint64_t made_bytes;                 /* encrypted so far */
	uint64_t rekey_at;                   /* of made_bytes */
};

/* How a pump's TLS reaches its socket; one per nova_links. */
BIO_METHOD *pump_method_new(void);

/* fd is stolen, also on failure. */
int pump_init(
    struct pump *pump, SSL_CTX *ctx, const BIO_METHOD *method, int fd, bool server, struct nova_error *err);
void pump_release(struct pump *pump);
/* 1: done, 0: more must come from the socket, -1 and *err. Flush after each call. */
int pump_handshake(struct pump *pump, struct nova_error *err);
/* Bytes read (> 0), 0: none now, -1 and *err: the connection is over. */
int pump_read(struct pump *pump, void *data, size_t length, struct nova_error *err);
/* Encrypt; nothing is on the socket before pump_flush(). */
int pump_put(struct pump *pump, const void *data, size_t length, struct nova_error *err);
/* 1: all is out, 0: the socket takes no more now, -1 and *err. */
int pump_flush(struct pump *pump, struct nova_error *err);

static inline size_t pump_backlog(const struct pump *pump)
{
	return pump->out_end - pump->out_at + pump->staged;
}

#endif
