/* SPDX-License-Identifier: Apache-2.0
 *
 * pump.c - TLS over one non-blocking socket, in large writes and large reads.
 *
 * OpenSSL's own socket BIO writes once per 16 KiB record. Here records are gathered in memory and leave
 * in one send() of what the caller put (128 to 256 KiB at full rate), and the kernel is asked for 256 KiB
 * at a time: one core moves about half as much again. OpenSSL's own read-ahead would move all that it holds
 * to the front of its buffer for every record (eight bytes moved for each that is read); so what the socket
 * gave is kept here, and OpenSSL takes a record at a time. Memory: PUMP_READ_BYTES, and what the caller puts
 * between flushes, bounded by OUT_MAX.
 */
#include "pump.h"

#include <errno.h>
#include <openssl/err.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tls.h"

#define OUT_MAX (1024u * 1024)

/* ---- the BIO: memory on the way out, the socket on the way in ---- */

static int grow_out(struct pump *pump, size_t length)
{
	size_t capacity = pump->out_capacity ?: 32 * 1024;
	uint8_t *out;

	while (capacity < pump->out_end + length)
		capacity *= 2;
	if (capacity == pump->out_capacity)
		return 0;
	if (capacity > OUT_MAX || !(out = realloc(pump->out, capacity)))
		return -1;
	pump->out = out;
	pump->out_capacity = capacity;
	return 0;
}

static int bio_write(BIO *bio, const char *data, int length)
{
	struct pump *pump = BIO_get_data(bio);

	BIO_clear_retry_flags(bio);
	if (length <= 0 || grow_out(pump, (size_t)length) < 0)
		return -1;
	memcpy(pump->out + pump->out_end, data, (size_t)length);
	pump->out_end += (size_t)length;
	pump->made_bytes += (size_t)length;
	return length;
}

/* Ask the kernel for as much as there is. 1: something came; 0: the peer ended; -1: nothing now, or broken. */
static int refill(struct pump *pump)
{
	ssize_t n;

	if (!pump->in && !(pump->in = malloc(PUMP_READ_BYTES))) {
		pump->socket_errno = ENOMEM;
		return -1;
	}
	do
		n = recv(pump->fd, pump->in, PUMP_READ_BYTES, 0);
	while (n < 0 && errno == EINTR);
	pump->in_at = 0;
	pump->in_end = n > 0 ? (size_t)n : 0;
	pump->received_bytes += pump->in_end;
	if (n == 0)
		pump->ended = true;
	else if (n < 0 && errno != EAGAIN && errno != EWOULDBLOCK)
		pump->socket_errno = errno;
	return n > 0 ? 1 : (int)n;
}

static int bio_read(BIO *bio, char *data, int length)
{
	struct pump *pump = BIO_get_data(bio);
	size_t held;

	BIO_clear_retry_flags(bio);
	if (pump->in_at == pump->in_end) {
		int rc = refill(pump);

		if (rc < 0 && !pump->socket_errno)
			BIO_set_retry_read(bio);
		if (rc <= 0)
			return rc;
	}
	held = pump->in_end - pump->in_at;
	if (held > (size_t)length)
		held = (size_t)length;
	memcpy(data, pump->in + pump->in_at, held);
	pump->in_at += held;
	return (int)held;
}

static long bio_ctrl(BIO *bio, int command, long number, void *pointer)
{
	struct pump *pump = BIO_get_data(bio);

	if (command == BIO_CTRL_FLUSH)
		return 1;
	if (command == BIO_CTRL_EOF)
		return pump->ended;
	return 0;
}

static int bio_create(BIO *bio)
{
	BIO_set_init(bio, 1);
	return 1;
}

BIO_METHOD *pump_method_new(void)
{
	BIO_METHOD *method = BIO_meth_new(BIO_TYPE_SOURCE_SINK, "nova");

	if (!method)
		return NULL;
	BIO_meth_set_write(method, bio_write);
	BIO_meth_set_read(method, bio_read);
	BIO_meth_set_ctrl(method, bio_ctrl);
	BIO_meth_set_create(method, bio_create);
	return method;
}

/* ---- the pump ---- */

int pump_init(
    struct pump *pump, SSL_CTX *ctx, const BIO_METHOD *method, int fd, bool server, struct nova_error *err)
{
	BIO *bio = BIO_new(method);

	*pump = (struct pump) { .fd = fd, .ssl = SSL_new(ctx), .rekey_at = PUMP_REKEY_BYTES };
	if (!bio || !pump->ssl) {
		BIO_free(bio);
		return nova_error_set(err, NOVA_SYSTEM, "no memory for a TLS connection");
	}
	BIO_set_data(bio, pump);
	SSL_set_bio(pump->ssl, bio, bio);
	SSL_set_mode(pump->ssl, SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
	if (server)
		SSL_set_accept_state(pump->ssl);
	else
		SSL_set_connect_state(pump->ssl);
	return 0;
}

void pump_release(struct pump *pump)
{
	SSL_free(pump->ssl);
	free(pump->out);
	free(pump->in);
	if (pump->fd >= 0)
		close(pump->fd);
	*pump = (struct pump) { .fd = -1 };
}

static int failure(struct pump *pump, int code, struct nova_error *err)
{
	if (pump->socket_errno) {
		ERR_clear_error();
		nova_error_sys(err, pump->socket_errno, "connection lost");
		if (err)
			err->category = NOVA_LINK;
		return -1;
	}
	if (code == SSL_ERROR_ZERO_RETURN || (code == SSL_ERROR_SYSCALL && pump->ended)) {
		ERR_clear_error();
		return nova_error_set(err, NOVA_LINK, "connection closed");
	}
	return tls_error(pump->ssl, err);
}

int pump_handshake(struct pump *pump, struct nova_error *err)
{
	int result, code;

	ERR_clear_error();
	result = SSL_do_handshake(pump->ssl);
	if (result == 1)
		return 1;
	code = SSL_get_error(pump->ssl, result);
	if (code == SSL_ERROR_WANT_READ)
		return 0;
	return failure(pump, code, err);
}

int pump_read(struct pump *pump, void *data, size_t length, struct nova_error *err)
{
	int result, code;

	ERR_clear_error();
	result = SSL_read(pump->ssl, data, (int)length);
	if (result > 0)
		return result;
	code = SSL_get_error(pump->ssl, result);
	if (code == SSL_ERROR_WANT_READ)
		return 0;
	return failure(pump, code, err);
}

static int encrypt(struct pump *pump, const void *data, size_t length, struct nova_error *err)
{
	int result;

	ERR_clear_error();
	if (pump->made_bytes > pump->rekey_at) {
		pump->rekey_at = pump->made_bytes + PUMP_REKEY_BYTES;
		SSL_key_update(pump->ssl, SSL_KEY_UPDATE_NOT_REQUESTED);
	}
	result = SSL_write(pump->ssl, data, (int)length);
	return result > 0 ? 0 : failure(pump, SSL_get_error(pump->ssl, result), err);
}

static int encrypt_stage(struct pump *pump, struct nova_error *err)
{
	size_t staged = pump->staged;

	pump->staged = 0;
	return staged ? encrypt(pump, pump->stage, staged, err) : 0;
}

int pump_put(struct pump *pump, const void *data, size_t length, struct nova_error *err)
{
	if (pump->staged + length > PUMP_STAGE_BYTES && encrypt_stage(pump, err) < 0)
		return -1;
	if (length > PUMP_STAGE_BYTES / 2)
		return encrypt_stage(pump, err) < 0 ? -1 : encrypt(pump, data, length, err);
	memcpy(pump->stage + pump->staged, data, length);
	pump->staged += length;
	return 0;
}

int pump_flush(struct pump *pump, struct nova_error *err)
{
	if (encrypt_stage(pump, err) < 0)
		return -1;
	while (pump->out_at < pump->out_end) {
		ssize_t n =
		    send(pump->fd, pump->out + pump->out_at, pump->out_end - pump->out_at, MSG_NOSIGNAL);

		if (n > 0) {
			pump->out_at += (size_t)n;
			pump->sent_bytes += (size_t)n;
		} else if (errno == EAGAIN || errno == EWOULDBLOCK) {
			return 0;
		} else if (errno != EINTR) {
			pump->socket_errno = errno;
			return failure(pump, SSL_ERROR_SYSCALL, err);
		}
	}
	pump->out_at = pump->out_end = 0;
	return 1;
}
