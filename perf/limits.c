/* SPDX-License-Identifier: Apache-2.0
 *
 * limits.c - see limits.h. Pieces of 64 KiB, as our blocks are; of 16 KiB where TLS has records of that size
 * (our TLS prefers AES-128).
 */
#include "limits.h"

#include <lz4.h>
#include <openssl/evp.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <xxhash.h>
#include <zstd.h>

#define ROUNDS 3

double limits_cpu_s(void)
{
	struct timespec t;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static uint8_t scratch[512 * 1024];

static size_t run_memcpy(void *state, const uint8_t *data, size_t length)
{
	memcpy(scratch, data, length);
	__asm__ volatile("" : : "r"(scratch) : "memory");
	return 0;
}

static size_t run_xxh3(void *state, const uint8_t *data, size_t length)
{
	XXH3_128bits_update(state, data, length);
	return 0;
}

static void *open_xxh3(void)
{
	XXH3_state_t *state = XXH3_createState();

	XXH3_128bits_reset(state);
	return state;
}

static void close_xxh3(void *state)
{
	XXH3_freeState(state);
}

static size_t run_lz4(void *state, const uint8_t *data, size_t length)
{
	return (size_t)LZ4_compress_fast_continue(
	    state, (const char *)data, (char *)scratch, (int)length, sizeof(scratch), 1);
}

static void *open_lz4(void)
{
	return LZ4_createStream();
}

static void close_lz4(void *state)
{
	LZ4_freeStream(state);
}

static size_t run_zstd(void *state, const uint8_t *data, size_t length)
{
	ZSTD_inBuffer in = { data, length, 0 };
	ZSTD_outBuffer out = { scratch, sizeof(scratch), 0 };

	ZSTD_compressStream2(state, &out, &in, ZSTD_e_flush);
	return out.pos;
}

static void *open_zstd_level(int level)
{
	ZSTD_CCtx *state = ZSTD_createCCtx();

	ZSTD_CCtx_setParameter(state, ZSTD_c_compressionLevel, level);
	ZSTD_CCtx_setParameter(state, ZSTD_c_windowLog, 20);
	return state;
}

static void *open_zstd1(void)
{
	return open_zstd_level(1);
}

static void *open_zstd3(void)
{
	return open_zstd_level(3);
}

static void close_zstd(void *state)
{
	ZSTD_freeCCtx(state);
}

static size_t run_aes(void *state, const uint8_t *data, size_t length)
{
	static const uint8_t nonce[12];
	int n;

	EVP_EncryptInit_ex(state, NULL, NULL, NULL, nonce);
	EVP_EncryptUpdate(state, scratch, &n, data, (int)length);
	EVP_EncryptFinal_ex(state, scratch + n, &n);
	EVP_CIPHER_CTX_ctrl(state, EVP_CTRL_GCM_GET_TAG, 16, scratch);
	return 0;
}

static void *open_aes(const EVP_CIPHER *cipher)
{
	static const uint8_t key[32];
	EVP_CIPHER_CTX *state = EVP_CIPHER_CTX_new();

	EVP_EncryptInit_ex(state, cipher, NULL, key, NULL);
	return state;
}

static void *open_aes256(void)
{
	return open_aes(EVP_aes_256_gcm());
}

static void *open_aes128(void)
{
	return open_aes(EVP_aes_128_gcm());
}

static void close_aes(void *state)
{
	EVP_CIPHER_CTX_free(state);
}

/* What a page costs that was never used before: the kernel clears it (and a hypervisor below us finds it). */
static size_t run_first_touch(void *state, const uint8_t *data, size_t length)
{
	uint8_t *fresh = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (fresh == MAP_FAILED)
		return 0;
	madvise(fresh, length, MADV_HUGEPAGE);
	memcpy(fresh, data, length);
	munmap(fresh, length);
	return 0;
}

const struct limit limits[] = {
	{ "memcpy", 65536, run_memcpy },
	{ "first touch of memory", 32u << 20, run_first_touch },
	{ "XXH3-128", 65536, run_xxh3, open_xxh3, close_xxh3 },
	{ "AES-256-GCM", 16384, run_aes, open_aes256, close_aes },
	{ "AES-128-GCM", 16384, run_aes, open_aes128, close_aes },
	{ "LZ4", 65536, run_lz4, open_lz4, close_lz4 },
	{ "zstd 1", 65536, run_zstd, open_zstd1, close_zstd },
	{ "zstd 3", 65536, run_zstd, open_zstd3, close_zstd },
};
const size_t n_limits = sizeof(limits) / sizeof(*limits);

double limits_measure(const struct limit *limit, const uint8_t *data, size_t length, double *ratio)
{
	double best = 1e9;
	size_t out = 0;

	for (int round = 0; round < ROUNDS; round++) {
		void *state = limit->open ? limit->open() : NULL;
		double began = limits_cpu_s(), took;

		out = 0;
		for (size_t at = 0; at < length; at += limit->piece)
			out += limit->run(
			    state, data + at, length - at < limit->piece ? length - at : limit->piece);
		took = limits_cpu_s() - began;
		best = took < best ? took : best;
		if (limit->close)
			limit->close(state);
	}
	*ratio = out ? (double)length / (double)out : 0;
	return best;
}
