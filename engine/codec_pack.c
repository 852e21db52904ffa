/* SPDX-License-Identifier: Apache-2.0
 *
 * codec_pack.c - LZ4 and zstd with memory across blocks.
 *
 * Bodies are built and unpacked in place, in a chain of 512 KiB: an LZ4 body stays there, and what comes next
 * is put right behind it, so that LZ4 finds its last 64 KiB as a prefix. When the end is near, those 64 KiB
 * move to the front (about once in eight blocks). Bodies of other codecs are overwritten by the next one. A
 * zstd frame cannot change its level: a new level begins a new frame, and so forgets the window. The window is
 * 16 MiB, searched for long matches (zstd's long distance matcher) at every level: programs and libraries
 * repeat themselves far apart. Memory: packer 1.2 MiB with LZ4, and what zstd takes for its window (19 to
 * 22 MiB, by level) once it is used; unpacker 0.6 MiB, and 17 MiB with zstd.
 */
#include "codec_pack.h"

#include <assert.h>
#include <lz4.h>
#include <stdlib.h>
#include <zstd.h>
#include <zstd_errors.h>

#define CHAIN_BYTES (512u * 1024)
#define DICT_BYTES (64u * 1024)
#define WINDOW_LOG 24
#define LEVEL_LARGE 5 /* from here on there is time to look for long matches (level 3 packs better than 1 with them, */
                      /* and faster), and zstd's tables are large: clearing them would take longer than a turn, */
#define TABLE_LOG 18  /* so they have this size; the long matches do not need them */
#define RANDOM_SAMPLES_MIN 1024u /* bytes looked at; of fewer nothing is said */
#define PACKED_MAX (NOVA_BODY_MAX + NOVA_BODY_MAX / 128 + 1024)

struct nova_packer {
	LZ4_stream_t *lz4;
	ZSTD_CCtx *zstd; /* NULL until used */
	int zstd_level;
	bool zstd_open;
	size_t at; /* in chain: where the next body goes */
	uint8_t chain[CHAIN_BYTES];
	uint8_t packed[PACKED_MAX];
};
static_assert(PACKED_MAX >= LZ4_COMPRESSBOUND(NOVA_BODY_MAX), "LZ4's worst case");
static_assert(PACKED_MAX >= ZSTD_COMPRESSBOUND(NOVA_BODY_MAX) + 64, "zstd's worst case, with frame header");
static_assert(PACKED_MAX + NOVA_BLOCK_HEAD_MAX <= NOVA_MESSAGE_MAX, "a block fits a message");
static_assert(CHAIN_BYTES >= DICT_BYTES + 2 * NOVA_BODY_MAX, "room behind the dictionary");

struct nova_packer *nova_packer_new(struct nova_error *err)
{
	struct nova_packer *packer = malloc(sizeof(*packer));

	if (packer) {
		packer->zstd = NULL;
		packer->zstd_open = false;
		packer->at = 0;
		packer->lz4 = LZ4_createStream();
	}
	if (!packer || !packer->lz4) {
		nova_error_set(err, NOVA_SYSTEM, "out of memory for the compressor");
		return nova_packer_free(packer);
	}
	return packer;
}

struct nova_packer *nova_packer_free(struct nova_packer *packer)
{
	if (packer) {
		LZ4_freeStream(packer->lz4);
		ZSTD_freeCCtx(packer->zstd);
	}
	free(packer);
	return NULL;
}

uint8_t *nova_packer_body(struct nova_packer *packer)
{
	if (packer->at + NOVA_BODY_MAX > CHAIN_BYTES)
		packer->at = (size_t)LZ4_saveDict(packer->lz4, (char *)packer->chain, DICT_BYTES);
	return packer->chain + packer->at;
}

static int pack_lz4(
    struct nova_packer *packer, int level, size_t length, size_t *packed_length, struct nova_error *err)
{
	const char *body = (const char *)packer->chain + packer->at;
	int n = LZ4_compress_fast_continue(
	    packer->lz4, body, (char *)packer->packed, (int)length, sizeof(packer->packed), level);

	if (n <= 0)
		return nova_error_set(err, NOVA_SYSTEM, "LZ4 failed on %zu bytes", length);
	*packed_length = (size_t)n;
	return 0;
}

static int open_frame(struct nova_packer *packer, int level, struct nova_error *err)
{
	size_t rc;

	if (!packer->zstd)
		packer->zstd = ZSTD_createCCtx();
	if (!packer->zstd)
		return nova_error_set(err, NOVA_SYSTEM, "out of memory for zstd");
	ZSTD_CCtx_reset(packer->zstd, ZSTD_reset_session_and_parameters);
	rc = ZSTD_CCtx_setParameter(packer->zstd, ZSTD_c_compressionLevel, level);
	if (!ZSTD_isError(rc))
		rc = ZSTD_CCtx_setParameter(packer->zstd, ZSTD_c_windowLog, WINDOW_LOG);
	if (!ZSTD_isError(rc) && level >= LEVEL_LARGE)
		rc = ZSTD_CCtx_setParameter(packer->zstd, ZSTD_c_enableLongDistanceMatching, 1);
	if (!ZSTD_isError(rc) && level >= LEVEL_LARGE)
		rc = ZSTD_CCtx_setParameter(packer->zstd, ZSTD_c_hashLog, TABLE_LOG);
	if (!ZSTD_isError(rc) && level >= LEVEL_LARGE)
		rc = ZSTD_CCtx_setParameter(packer->zstd, ZSTD_c_chainLog, TABLE_LOG);
	if (ZSTD_isError(rc))
		return nova_error_set(err, NOVA_SYSTEM, "zstd level %d: %s", level, ZSTD_getErrorName(rc));
	packer->zstd_open = true;
	packer->zstd_level = level;
	return 0;
}

static int pack_zstd(struct nova_packer *packer, int level, size_t length, size_t *packed_length, bool *fresh,
    struct nova_error *err)
{
	ZSTD_inBuffer in = { packer->chain + packer->at, length, 0 };
	ZSTD_outBuffer out = { packer->packed, sizeof(packer->packed), 0 };
	size_t rc;

	*fresh = !packer->zstd_open || packer->zstd_level != level;
	if (*fresh && open_frame(packer, level, err) < 0)
		return -1;
	rc = ZSTD_compressStream2(packer->zstd, &out, &in, ZSTD_e_flush);
	if (ZSTD_isError(rc))
		return nova_error_set(err, NOVA_SYSTEM, "zstd: %s", ZSTD_getErrorName(rc));
	if (rc > 0)
		return nova_error_set(err, NOVA_SYSTEM, "zstd left %zu bytes behind", rc);
	*packed_length = out.pos;
	return 0;
}

int nova_packer_pack(struct nova_packer *packer, enum nova_codec codec, int level, size_t length,
    const uint8_t **packed, size_t *packed_length, bool *fresh, struct nova_error *err)
{
	*fresh = false;
	*packed = packer->packed;
	if (codec == NOVA_CODEC_ZSTD)
		return pack_zstd(packer, level, length, packed_length, fresh, err);
	if (codec == NOVA_CODEC_LZ4) {
		if (pack_lz4(packer, level, length, packed_length, err) < 0)
			return -1;
		packer->at += length;
		if (*packed_length < length)
			return 0;
		*packed = packer->chain + packer->at - length; /* it did not shrink: as it is */
	} else {
		*packed = packer->chain + packer->at;
	}
	*packed_length = length;
	return 0;
}

/* In n random bytes each value comes n / 256 times, and the squares of these counts add up to n + n * n / 256.
 * What packs at all is far above: by a tenth is enough to call it something. About 2000 bytes are looked at. */
bool nova_looks_random(const uint8_t *data, size_t length)
{
	uint32_t counts[256] = { 0 };
	size_t stride = length / 2048 | 1; /* odd: fields of a structure do not hide */
	uint64_t n = 0, squares = 0;

	for (size_t at = 0; at < length; at += stride, n++)
		counts[data[at]]++;
	for (unsigned i = 0; i < 256; i++)
		squares += (uint64_t)counts[i] * counts[i];
	return n >= RANDOM_SAMPLES_MIN && squares * 10 < (n + n * n / 256) * 11;
}

struct nova_unpacker {
	ZSTD_DCtx *zstd; /* NULL until used */
	bool zstd_open;
	size_t at;
	uint8_t chain[CHAIN_BYTES];
};

struct nova_unpacker *nova_unpacker_new(struct nova_error *err)
{
	struct nova_unpacker *unpacker = malloc(sizeof(*unpacker));

	if (!unpacker) {
		nova_error_set(err, NOVA_SYSTEM, "out of memory for the decompressor");
		return NULL;
	}
	unpacker->zstd = NULL;
	unpacker->zstd_open = false;
	unpacker->at = 0;
	return unpacker;
}

struct nova_unpacker *nova_unpacker_free(struct nova_unpacker *unpacker)
{
	if (unpacker)
		ZSTD_freeDCtx(unpacker->zstd);
	free(unpacker);
	return NULL;
}

static int unpack_lz4(struct nova_unpacker *unpacker, uint8_t *body, const uint8_t *packed,
    size_t packed_length, size_t length, struct nova_error *err)
{
	size_t dict = unpacker->at < DICT_BYTES ? unpacker->at : DICT_BYTES;
	int n = (int)length;

	if (packed_length == length)
		memcpy(body, packed, length);
	else
		n = LZ4_decompress_safe_usingDict((const char *)packed, (char *)body, (int)packed_length,
		    (int)length, (const char *)body - dict, (int)dict);
	if (n != (int)length)
		return nova_error_set(
		    err, NOVA_INVALID, "an LZ4 block does not unpack to its %zu bytes", length);
	unpacker->at += length;
	return 0;
}

static int unpack_zstd(struct nova_unpacker *unpacker, bool fresh, uint8_t *body, const uint8_t *packed,
    size_t packed_length, size_t length, struct nova_error *err)
{
	ZSTD_inBuffer in = { packed, packed_length, 0 };
	ZSTD_outBuffer out = { body, length, 0 };
	size_t rc = 0;

	if (!unpacker->zstd && !(unpacker->zstd = ZSTD_createDCtx()))
		return nova_error_set(err, NOVA_SYSTEM, "out of memory for zstd");
	if (fresh) {
		ZSTD_DCtx_reset(unpacker->zstd, ZSTD_reset_session_only);
		ZSTD_DCtx_setParameter(unpacker->zstd, ZSTD_d_windowLogMax, WINDOW_LOG);
		unpacker->zstd_open = true;
	}
	if (!unpacker->zstd_open)
		return nova_error_set(err, NOVA_INVALID, "a zstd block belongs to no frame");
	while (in.pos < in.size || out.pos < out.size) {
		size_t before_in = in.pos, before_out = out.pos;

		rc = ZSTD_decompressStream(unpacker->zstd, &out, &in);
		if (ZSTD_isError(rc)) {
			unpacker->zstd_open = false;
			return nova_error_set(err, NOVA_INVALID, "a zstd block: %s", ZSTD_getErrorName(rc));
		}
		if (rc == 0 || (in.pos == before_in && out.pos == before_out))
			break; /* a frame never ends; or nothing moves any more */
	}
	if (rc == 0 || in.pos != in.size || out.pos != out.size)
		return nova_error_set(
		    err, NOVA_INVALID, "a zstd block does not unpack to its %zu bytes", length);
	return 0;
}

int nova_unpacker_unpack(struct nova_unpacker *unpacker, enum nova_codec codec, bool fresh,
    const uint8_t *packed, size_t packed_length, size_t length, const uint8_t **body, struct nova_error *err)
{
	uint8_t *place;

	if (length > NOVA_BODY_MAX || packed_length > NOVA_MESSAGE_MAX)
		return nova_error_set(
		    err, NOVA_INVALID, "a body of %zu bytes, %u are allowed", length, NOVA_BODY_MAX);
	if (unpacker->at + NOVA_BODY_MAX > CHAIN_BYTES) {
		memmove(unpacker->chain, unpacker->chain + unpacker->at - DICT_BYTES, DICT_BYTES);
		unpacker->at = DICT_BYTES;
	}
	place = unpacker->chain + unpacker->at;
	*body = place;
	if (codec == NOVA_CODEC_LZ4)
		return unpack_lz4(unpacker, place, packed, packed_length, length, err);
	if (codec == NOVA_CODEC_ZSTD)
		return unpack_zstd(unpacker, fresh, place, packed, packed_length, length, err);
	*body = packed;
	if (packed_length != length)
		return nova_error_set(err, NOVA_INVALID, "a stored body of %zu bytes says that it has %zu",
		    packed_length, length);
	return 0;
}
