/* SPDX-License-Identifier: Apache-2.0
 *
 * stream.c - a scanner of QEMU's migration stream: main channel (precopy, postcopy, multifd's headers) and
 * postcopy's preempt channel.
 *
 * RAM sections are self-delimiting: records of a big-endian u64 (page address and flags) up to one with EOS.
 * Device sections are not: their data carries no length. So from the first one on, and after anything that we
 * do not understand, we hunt: everything is opaque until a footer (7e, section id) with a plausible RAM
 * section behind it comes by, or RAM's own start if we have not seen it yet. Hunting may be wrong both ways;
 * that costs compression and nothing else. Not here: multifd's page channels, they are opaque.
 *
 * Limits: names up to 255 bytes; at most 8 KiB is looked at to tell the next span.
 */
#include "qmp/stream.h"
#include "engine/cursor.h"

#include <stdlib.h>
#include <xxhash.h>

enum section { /* the type byte of a section */
	SECTION_EOF = 0x00,
	SECTION_START = 0x01,
	SECTION_PART = 0x02,
	SECTION_END = 0x03,
	SECTION_FULL = 0x04,
	SECTION_VMDESCRIPTION = 0x06,
	SECTION_CONFIGURATION = 0x07,
	SECTION_COMMAND = 0x08,
	SECTION_FOOTER = 0x7e,
};

enum ram { /* flags in the low bits of a record's u64 */
	RAM_ZERO = 0x02,
	RAM_MEM_SIZE = 0x04,
	RAM_PAGE = 0x08,
	RAM_EOS = 0x10,
	RAM_CONTINUE = 0x20,
	RAM_XBZRLE = 0x40,
	RAM_COMPRESSED = 0x100,
	RAM_MULTIFD_FLUSH = 0x200,
};
#define COMMAND_PACKAGED 7u
#define HUNT_TAIL 24u /* bytes: a sign may begin in the last ones that are there */

struct scanner {
	int (*parse)(struct scanner *s, struct nova_cursor *c, struct nova_span *span);
	uint64_t skip;     /* bytes that are opaque whatever they are */
	uint64_t ram_left; /* bytes of RAM whose blocks are still to be listed after MEM_SIZE */
	uint64_t block;    /* of RAM, as the upper 16 bits of a page's identity */
	uint32_t ram_id;
	bool ram_known;
	bool bare; /* records without sections around: the preempt channel */
};

static int parse_section(struct scanner *s, struct nova_cursor *c, struct nova_span *span);
static int parse_ram(struct scanner *s, struct nova_cursor *c, struct nova_span *span);
static int parse_hunt(struct scanner *s, struct nova_cursor *c, struct nova_span *span);

/* ---- answers: 1 a span, 0 more bytes are needed, -1 ask the (new) parser again ---------------------- */

static int opaque(struct nova_span *span, size_t bytes)
{
	*span = (struct nova_span) { .kind = NOVA_SPAN_BYTES, .total_bytes = (uint32_t)bytes };
	return 1;
}

static int hunt(struct scanner *s)
{
	s->bare = false;
	s->parse = parse_hunt;
	return -1;
}

/* What the cursor has passed is opaque, and then `skip` bytes more. */
static int opaque_to(struct scanner *s, const uint8_t *start, const struct nova_cursor *c, uint64_t skip,
    struct nova_span *span)
{
	if (c->bad)
		return 0;
	s->skip = skip;
	return opaque(span, (size_t)(c->at - start));
}

/* ---- RAM ---------------------------------------------------------------------------------------- */

static uint64_t block_of(const uint8_t *name, size_t length)
{
	return (XXH3_64bits(name, length) & 0xffff) << 48;
}

/* The list of RAM blocks after MEM_SIZE: it ends when their sizes add up. */
static int parse_blocks(struct scanner *s, struct nova_cursor *c, struct nova_span *span)
{
	const uint8_t *start = c->at;
	uint8_t length = nova_get_u8(c);
	uint64_t size;

	nova_get_bytes(c, length);
	size = nova_get_u64(c);
	if (c->bad)
		return 0;
	if (!length || !size || size > s->ram_left)
		return hunt(s);
	s->ram_left -= size;
	if (!s->ram_left)
		s->parse = parse_ram;
	return opaque_to(s, start, c, 0, span);
}

static bool ram_header_plausible(uint64_t value)
{
	switch (value & 0xfff & ~(uint64_t)RAM_CONTINUE) {
	case RAM_ZERO:
	case RAM_PAGE:
	case RAM_XBZRLE:
	case RAM_COMPRESSED:
		return value < 1ull << 48;
	case RAM_EOS:
	case RAM_MULTIFD_FLUSH:
		return value < 0x1000 && !(value & RAM_CONTINUE);
	default:
		return false;
	}
}

static int parse_page(
    struct scanner *s, struct nova_cursor *c, struct nova_span *span, const uint8_t *start, uint64_t value)
{
	bool page = value & RAM_PAGE;

	span->kind = page ? NOVA_SPAN_PAGE : NOVA_SPAN_FILL;
	span->header_bytes = (uint32_t)(c->at - start);
	span->total_bytes = span->header_bytes + (page ? NOVA_PAGE_BYTES : 1);
	span->page = s->block | (value & ~0xfffull);
	nova_get_bytes(c, page ? NOVA_PAGE_BYTES : 1);
	return c->bad ? 0 : 1;
}

static int parse_sized(
    struct scanner *s, struct nova_cursor *c, struct nova_span *span, const uint8_t *start, uint64_t value)
{
	bool xbzrle = value & RAM_XBZRLE;
	uint64_t length;

	if (xbzrle)
		nova_get_u8(c);
	length = xbzrle ? nova_get_u16(c) : nova_get_u32(c);
	if (length > 2 * NOVA_PAGE_BYTES)
		return hunt(s);
	return opaque_to(s, start, c, length, span);
}

static int parse_end(struct scanner *s, struct nova_cursor *c, struct nova_span *span, const uint8_t *start)
{
	if (!s->bare)
		s->parse = parse_section;
	return opaque_to(s, start, c, 0, span);
}

static int parse_mem_size(
    struct scanner *s, struct nova_cursor *c, struct nova_span *span, const uint8_t *start, uint64_t value)
{
	s->ram_left = value & ~0xfffull;
	if (s->ram_left)
		s->parse = parse_blocks;
	return opaque_to(s, start, c, 0, span);
}

static int parse_ram(struct scanner *s, struct nova_cursor *c, struct nova_span *span)
{
	const uint8_t *start = c->at;
	uint64_t value = nova_get_u64(c);

	if (c->bad)
		return 0;
	if ((value & 0xfff) == RAM_MEM_SIZE)
		return parse_mem_size(s, c, span, start, value);
	if (!ram_header_plausible(value))
		return hunt(s);
	if (value & RAM_EOS)
		return parse_end(s, c, span, start);
	if (value & RAM_MULTIFD_FLUSH)
		return opaque_to(s, start, c, 0, span);
	if (!(value & RAM_CONTINUE)) {
		uint8_t length = nova_get_u8(c);
		const uint8_t *name = nova_get_bytes(c, length);

		if (!name)
			return 0;
		s->block = block_of(name, length);
	}
	if (value & (RAM_PAGE | RAM_ZERO))
		return parse_page(s, c, span, start, value);
	return parse_sized(s, c, span, start, value);
}

/* ---- sections ----------------------------------------------------------------------------------- */

static int parse_start(struct scanner *s, struct nova_cursor *c, struct nova_span *span, bool full)
{
	const uint8_t *start = c->at - 1;
	uint32_t id = nova_get_u32(c);
	uint8_t length = nova_get_u8(c);
	const uint8_t *name = nova_get_bytes(c, length);

	nova_get_bytes(c, 8); /* instance, version */
	if (c->bad)
		return 0;
	s->parse = parse_hunt;
	if (!full && length == 3 && memcmp(name, "ram", 3) == 0) {
		s->ram_id = id;
		s->ram_known = true;
		s->parse = parse_ram;
	}
	return opaque_to(s, start, c, 0, span);
}

static int parse_part(struct scanner *s, struct nova_cursor *c, struct nova_span *span)
{
	const uint8_t *start = c->at - 1;
	uint32_t id = nova_get_u32(c);

	if (c->bad)
		return 0;
	s->parse = s->ram_known && id == s->ram_id ? parse_ram : parse_hunt;
	return opaque_to(s, start, c, 0, span);
}

static int parse_command(struct scanner *s, struct nova_cursor *c, struct nova_span *span)
{
	const uint8_t *start = c->at - 1;
	uint16_t command = nova_get_u16(c);
	uint16_t length = nova_get_u16(c);

	if (command == COMMAND_PACKAGED && length == 4) {
		uint32_t inside = nova_get_u32(c);

		return opaque_to(s, start, c, inside, span);
	}
	return opaque_to(s, start, c, length, span);
}

static int parse_section(struct scanner *s, struct nova_cursor *c, struct nova_span *span)
{
	const uint8_t *start = c->at;
	uint32_t length;

	switch (nova_get_u8(c)) {
	case SECTION_EOF:
		return opaque_to(s, start, c, 0, span);
	case SECTION_START:
		return parse_start(s, c, span, false);
	case SECTION_FULL:
		return parse_start(s, c, span, true);
	case SECTION_PART:
	case SECTION_END:
		return parse_part(s, c, span);
	case SECTION_FOOTER:
		nova_get_u32(c);
		return opaque_to(s, start, c, 0, span);
	case SECTION_COMMAND:
		return parse_command(s, c, span);
	case SECTION_CONFIGURATION:
	case SECTION_VMDESCRIPTION:
		length = nova_get_u32(c);
		return opaque_to(s, start, c, length, span);
	default:
		return hunt(s);
	}
}

/* The first bytes tell which channel this is. */
static int parse_magic(struct scanner *s, struct nova_cursor *c, struct nova_span *span)
{
	const uint8_t *start = c->at;
	const uint8_t *magic = nova_get_bytes(c, 8);
	struct nova_cursor again = nova_cursor_of(start, 8);

	if (!magic)
		return 0;
	if (memcmp(magic, "QEVM\0\0\0\3", 8) == 0) {
		s->parse = parse_section;
		return opaque(span, 8);
	}
	s->bare = ram_header_plausible(nova_get_u64(&again));
	s->parse = s->bare ? parse_ram : parse_hunt;
	return -1;
}

/* ---- hunting ------------------------------------------------------------------------------------ */

/* A section of RAM begins at c: PART or END with its id, and a first record that makes sense. */
static bool ram_begins(const struct scanner *s, struct nova_cursor c)
{
	uint8_t type = nova_get_u8(&c);
	uint32_t id = nova_get_u32(&c);
	uint64_t value = nova_get_u64(&c);

	return s->ram_known && (type == SECTION_PART || type == SECTION_END) && id == s->ram_id && !c.bad &&
	       ram_header_plausible(value);
}

/* RAM's START at c. */
static bool ram_starts(struct nova_cursor c)
{
	uint8_t type = nova_get_u8(&c);

	nova_get_u32(&c);
	return type == SECTION_START && nova_cursor_left(&c) >= 4 && memcmp(c.at, "\3ram", 4) == 0;
}

/* The first place where a section of RAM may begin, told by a sign in [data, end); NULL if there is none. The
 * HUNT_TAIL bytes behind end may be read. */
static const uint8_t *find_sign(const struct scanner *s, const uint8_t *data, const uint8_t *end)
{
	int sign = s->ram_known ? SECTION_FOOTER : SECTION_START;

	for (const uint8_t *at = data; at < end; at++) {
		at = memchr(at, sign, (size_t)(end - at));
		if (!at)
			return NULL;
		if (s->ram_known && ram_begins(s, nova_cursor_of(at + 5, HUNT_TAIL - 5)))
			return at + 5;
		if (!s->ram_known && ram_starts(nova_cursor_of(at, HUNT_TAIL)))
			return at;
	}
	return NULL;
}

static int parse_hunt(struct scanner *s, struct nova_cursor *c, struct nova_span *span)
{
	size_t length = nova_cursor_left(c);
	const uint8_t *end, *found;

	if (length <= HUNT_TAIL)
		return 0;
	end = c->at + length - HUNT_TAIL;
	found = find_sign(s, c->at, end);
	if (found)
		s->parse = parse_section;
	if (found == c->at)
		return -1;
	return opaque(span, (size_t)((found ? found : end) - c->at));
}

/* ---- the interface ------------------------------------------------------------------------------ */

static void *scanner_new(void)
{
	struct scanner *s = calloc(1, sizeof(*s));

	if (s)
		s->parse = parse_magic;
	return s;
}

static int scanner_next(void *arg, const uint8_t *data, size_t length, struct nova_span *span)
{
	struct scanner *s = arg;
	int rc;

	if (s->skip && length) {
		size_t bytes = s->skip < length ? s->skip : length;

		s->skip -= bytes;
		return opaque(span, bytes);
	}
	do {
		struct nova_cursor c = nova_cursor_of(data, length);

		rc = s->parse(s, &c, span);
	} while (rc < 0);
	return rc;
}

const struct nova_scanner_ops qmp_stream_scanner = {
	.new = scanner_new,
	.free = free,
	.next = scanner_next,
};
