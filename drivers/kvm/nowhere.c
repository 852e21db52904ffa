/* SPDX-License-Identifier: Apache-2.0
 *
 * nowhere.c - the other end of a postcopy recovery, as QEMU speaks it (docs/devel/migration, postcopy recovery; its
 * migration/savevm.c and migration/ram.c, 7.2).
 *
 *   QEMU: a command               byte 8, u16 command, u16 length, payload
 *     10 RECV_BITMAP (u8 length, name)   ->  5 RECV_BITMAP (the same), u64 bytes, as many of a bitmap (1: received), u64 mark
 *      9 POSTCOPY_RESUME                 ->  6 RESUME_ACK (u32 1), and at once 1 SHUT (u32 0: no error)
 *   us: a message                 u16 type, u16 length, payload; all of it big-endian
 */
#include "nowhere.h"

#include <endian.h>
#include <event2/buffer.h>
#include <stdio.h>
#include <string.h>

#define PAGE_BITS 12 /* of a page in the bitmaps, whatever backs the memory */
#define BLOCK_BYTES_MAX (1ll << 44)
#define NAME_BYTES 256

enum { QEMU_VM_COMMAND = 8, MIG_CMD_POSTCOPY_RESUME = 9, MIG_CMD_RECV_BITMAP = 10 };
enum { MIG_RP_MSG_SHUT = 1, MIG_RP_MSG_RECV_BITMAP = 5, MIG_RP_MSG_RESUME_ACK = 6 };
#define BITMAP_END 0x0123456789abcdefull
#define COMMAND_HEAD 5

json_t *kvm_nowhere_blocks(const char *text)
{
	json_t *blocks = json_object();

	/* NAME PAGE-SIZE UNIT OFFSET USED TOTAL ...; the first line has headings. */
	for (const char *line = strchr(text, '\n'); line; line = strchr(line + 1, '\n')) {
		char name[NAME_BYTES];
		unsigned long long used;

		if (sscanf(line + 1, "%255s %*s %*s %*s %llx", name, &used) == 2 && used <= BLOCK_BYTES_MAX)
			json_object_set_new(blocks, name, json_integer((json_int_t)used));
	}
	return blocks;
}

static void put_u64(struct evbuffer *out, uint64_t value)
{
	const uint64_t big_endian = htobe64(value);

	evbuffer_add(out, &big_endian, sizeof(big_endian));
}

static void say(struct evbuffer *out, uint16_t what, const void *data, uint16_t length)
{
	const uint8_t head[] = { (uint8_t)(what >> 8), (uint8_t)what, (uint8_t)(length >> 8), (uint8_t)length };

	evbuffer_add(out, head, sizeof(head));
	evbuffer_add(out, data, length);
}

/* All pages of a block have been received. */
static int say_received(const json_t *known, struct evbuffer *out, const uint8_t *name, size_t length)
{
	char text[NAME_BYTES];
	json_int_t bytes;
	uint64_t words;

	if (length < 1 || name[0] != length - 1)
		return -1;
	memcpy(text, name + 1, length - 1);
	text[length - 1] = 0;
	bytes = json_integer_value(json_object_get(known, text));
	if (bytes <= 0)
		return -1;
	words = (((uint64_t)bytes >> PAGE_BITS) + 63) / 64;
	say(out, MIG_RP_MSG_RECV_BITMAP, name, (uint16_t)length);
	put_u64(out, words * 8);
	while (words--)
		put_u64(out, UINT64_MAX);
	put_u64(out, BITMAP_END);
	return 0;
}

const uint8_t kvm_nowhere_shut[KVM_NOWHERE_SHUT_BYTES] = { 0, MIG_RP_MSG_SHUT, 0, 4, 0, 0, 0, 0 };

static void say_the_end(struct evbuffer *out)
{
	const uint8_t accepted[] = { 0, 0, 0, 1 };

	say(out, MIG_RP_MSG_RESUME_ACK, accepted, sizeof(accepted));
	evbuffer_add(out, kvm_nowhere_shut, sizeof(kvm_nowhere_shut));
}

/* One command. 0: not whole yet; -1: not what it should be. */
static int take_command(const json_t *blocks, struct evbuffer *in, struct evbuffer *out, bool *over)
{
	const uint8_t *head = evbuffer_pullup(in, COMMAND_HEAD), *whole;
	size_t length;
	unsigned command;

	if (!head)
		return 0;
	command = (unsigned)head[1] << 8 | head[2];
	length = (size_t)head[3] << 8 | head[4];
	if (head[0] != QEMU_VM_COMMAND)
		return -1;
	whole = evbuffer_pullup(in, (ev_ssize_t)(COMMAND_HEAD + length));
	if (!whole)
		return 0;
	if (command == MIG_CMD_RECV_BITMAP && say_received(blocks, out, whole + COMMAND_HEAD, length) < 0)
		return -1;
	*over = command == MIG_CMD_POSTCOPY_RESUME;
	if (*over)
		say_the_end(out);
	evbuffer_drain(in, COMMAND_HEAD + length);
	return 1;
}

int kvm_nowhere_talk(const json_t *blocks, struct evbuffer *in, struct evbuffer *out)
{
	bool over = false;
	int taken = 1;

	while (taken > 0 && !over)
		taken = take_command(blocks, in, out, &over);
	if (over)
		evbuffer_drain(in, evbuffer_get_length(in));
	return over ? 1 : taken;
}
