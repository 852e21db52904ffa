/* SPDX-License-Identifier: Apache-2.0
 *
 * codec.c - names of codecs. Encoder, decoder and compressors are in codec_encode.c, codec_decode.c,
 * codec_pack.c.
 */
#include "codec.h"

#include <assert.h>

static const char *const names[] = { "auto", "none", "lz4", "zstd" };
static_assert(sizeof(names) / sizeof(*names) == NOVA_CODECS, "a name for each codec");

const char *nova_codec_name(enum nova_codec codec)
{
	return (unsigned)codec < NOVA_CODECS ? names[codec] : "unknown";
}
