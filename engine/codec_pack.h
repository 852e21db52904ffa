/* SPDX-License-Identifier: Apache-2.0
 *
 * codec_pack.h - bodies in, packed bytes out, and back; the compressors remember earlier bodies.
 *
 * LZ4 blocks form a chain: each may refer to the last 64 KiB of bodies of LZ4 blocks. zstd blocks form a
 * frame with a window of 16 MiB that is flushed after each block. Blocks of another codec in between disturb
 * neither.
 */
#ifndef NOVA_CODEC_PACK_H
#define NOVA_CODEC_PACK_H

#include "codec_block.h"

struct nova_packer;

struct nova_packer *nova_packer_new(struct nova_error *err);
struct nova_packer *nova_packer_free(struct nova_packer *packer);
/* Where to build the next body: NOVA_BODY_MAX bytes, until pack. */
uint8_t *nova_packer_body(struct nova_packer *packer);
/* *packed is borrowed until the next call. *fresh: a zstd frame began with this block. */
int nova_packer_pack(struct nova_packer *packer, enum nova_codec codec, int level, size_t body_length,
    const uint8_t **packed, size_t *packed_length, bool *fresh, struct nova_error *err);

/* Whether these bytes look random (encrypted, or packed already): trying to pack them would only take time. */
bool nova_looks_random(const uint8_t *data, size_t length);

struct nova_unpacker;

struct nova_unpacker *nova_unpacker_new(struct nova_error *err);
struct nova_unpacker *nova_unpacker_free(struct nova_unpacker *unpacker);
/* Gives exactly body_length (at most NOVA_BODY_MAX) bytes at *body, borrowed until the next call or, with
 * NOVA_CODEC_NONE, as long as packed. */
int nova_unpacker_unpack(struct nova_unpacker *unpacker, enum nova_codec codec, bool fresh,
    const uint8_t *packed, size_t packed_length, size_t body_length, const uint8_t **body,
    struct nova_error *err);

#endif
