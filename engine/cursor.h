/* SPDX-License-Identifier: Apache-2.0
 *
 * cursor.h - the one way to read and write bytes of a wire format. Big-endian, bounds-checked, no allocation.
 *
 * A read or write past the end moves nothing, gives 0 (or NULL) and marks the cursor bad; from then on
 * everything fails. So a whole header is taken first and asked about once:
 *
 *	struct nova_cursor c = nova_cursor_of(data, length);
 *	uint16_t kind = nova_get_u16(&c);
 *	uint32_t size = nova_get_u32(&c);
 *
 *	if (c.bad || size > LIMIT)
 *		return nova_error_set(err, NOVA_INVALID, ...);
 *
 * Reads are statements: initialisers and arguments are evaluated in unspecified order.
 * Variable-length integers are little-endian base 128 (at most 10 bytes); a signed one is zigzagged first.
 */
#ifndef NOVA_CURSOR_H
#define NOVA_CURSOR_H

#include <endian.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define NOVA_VARINT_MAX 10u /* bytes */

/* ---- reading ---- */

struct nova_cursor {
	const uint8_t *at, *end; /* borrowed */
	bool bad;                /* something was asked for that is not there */
};

static inline struct nova_cursor nova_cursor_of(const void *data, size_t length)
{
	return (struct nova_cursor) { data, (const uint8_t *)data + length, false };
}

static inline size_t nova_cursor_left(const struct nova_cursor *c)
{
	return c->bad ? 0 : (size_t)(c->end - c->at);
}

/* The next length bytes, borrowed; NULL and bad if there are fewer. */
static inline const uint8_t *nova_get_bytes(struct nova_cursor *c, size_t length)
{
	const uint8_t *at = c->at;

	if (c->bad || (size_t)(c->end - at) < length) {
		c->bad = true;
		return NULL;
	}
	c->at = at + length;
	return at;
}

/* A cursor over the next length bytes only; it is born bad if there are fewer. */
static inline struct nova_cursor nova_get_part(struct nova_cursor *c, size_t length)
{
	const uint8_t *at = nova_get_bytes(c, length);

	return at ? nova_cursor_of(at, length) : (struct nova_cursor) { c->end, c->end, true };
}

static inline uint8_t nova_get_u8(struct nova_cursor *c)
{
	const uint8_t *at = nova_get_bytes(c, 1);

	return at ? *at : 0;
}

static inline uint16_t nova_get_u16(struct nova_cursor *c)
{
	const uint8_t *at = nova_get_bytes(c, 2);
	uint16_t value = 0;

	if (at)
		memcpy(&value, at, 2);
	return be16toh(value);
}

static inline uint32_t nova_get_u32(struct nova_cursor *c)
{
	const uint8_t *at = nova_get_bytes(c, 4);
	uint32_t value = 0;

	if (at)
		memcpy(&value, at, 4);
	return be32toh(value);
}

static inline uint64_t nova_get_u64(struct nova_cursor *c)
{
	const uint8_t *at = nova_get_bytes(c, 8);
	uint64_t value = 0;

	if (at)
		memcpy(&value, at, 8);
	return be64toh(value);
}

static inline uint64_t nova_get_varint(struct nova_cursor *c)
{
	uint64_t value = 0;

	for (unsigned shift = 0; shift < 64; shift += 7) {
		uint8_t byte = nova_get_u8(c);

		value |= (uint64_t)(byte & 0x7f) << shift;
		if (c->bad || (shift == 63 && byte > 1))
			break;
		if (!(byte & 0x80))
			return value;
	}
	c->bad = true;
	return 0;
}

static inline int64_t nova_get_zigzag(struct nova_cursor *c)
{
	uint64_t value = nova_get_varint(c);

	return (int64_t)(value >> 1) ^ -(int64_t)(value & 1);
}

/* ---- writing ---- */

struct nova_writer {
	uint8_t *start, *at, *end; /* borrowed */
	bool bad;                  /* something did not fit */
};

static inline struct nova_writer nova_writer_of(void *data, size_t capacity)
{
	return (struct nova_writer) { data, data, (uint8_t *)data + capacity, false };
}

/* Bytes written so far. */
static inline size_t nova_writer_used(const struct nova_writer *w)
{
	return (size_t)(w->at - w->start);
}

/* Room for length bytes, for the caller to fill; NULL and bad if it is not there. */
static inline uint8_t *nova_put_room(struct nova_writer *w, size_t length)
{
	uint8_t *at = w->at;

	if (w->bad || (size_t)(w->end - at) < length) {
		w->bad = true;
		return NULL;
	}
	w->at = at + length;
	return at;
}

static inline void nova_put_bytes(struct nova_writer *w, const void *data, size_t length)
{
	uint8_t *at = nova_put_room(w, length);

	if (at && length)
		memcpy(at, data, length);
}

static inline void nova_put_u8(struct nova_writer *w, uint8_t value)
{
	nova_put_bytes(w, &value, 1);
}

static inline void nova_put_u16(struct nova_writer *w, uint16_t value)
{
	value = htobe16(value);
	nova_put_bytes(w, &value, 2);
}

static inline void nova_put_u32(struct nova_writer *w, uint32_t value)
{
	value = htobe32(value);
	nova_put_bytes(w, &value, 4);
}

static inline void nova_put_u64(struct nova_writer *w, uint64_t value)
{
	value = htobe64(value);
	nova_put_bytes(w, &value, 8);
}

static inline void nova_put_varint(struct nova_writer *w, uint64_t value)
{
	for (; value >= 0x80; value >>= 7)
		nova_put_u8(w, (uint8_t)(value | 0x80));
	nova_put_u8(w, (uint8_t)value);
}

static inline void nova_put_zigzag(struct nova_writer *w, int64_t value)
{
	nova_put_varint(w, ((uint64_t)value << 1) ^ (0 - ((uint64_t)value >> 63)));
}

#endif
