/* SPDX-License-Identifier: Apache-2.0
 *
 * estimate_content.c - how well a sample of a guest's memory shrinks, and how fast.
 *
 * The sample goes through the encoder that a migration uses, once as LZ4 and once as zstd, a block a turn of
 * the loop. Pages of zeros are counted and left out: on the stream they are a few bytes each. Not here: what
 * is in the sample (the driver's choice), and what page history saves (it takes a migration to know).
 */
#include "cleanup.h"
#include "codec.h"
#include "estimate.h"

#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <string.h>

#define SAMPLE_MOST (4u << 20)
#define SLICE NOVA_BLOCK_RAW_MAX

struct content {
	struct nova_op op;
	struct event *turn;
	uint8_t *data;   /* owned: pages that are not zero */
	size_t length, sampled;
	size_t at;       /* what the encoder has had */
	enum nova_codec codec;
	struct nova_encoder *encoder; /* owned */
	json_t *result;  /* owned */
	nova_done_fn done;
	void *arg;
};

static const struct timeval at_once = { 0, 0 };

static void content_free(struct content *content)
{
	if (content->turn)
		event_free(content->turn);
	nova_encoder_free(content->encoder);
	json_decref(content->result);
	free(content->data);
	free(content);
}

static void content_drop(struct nova_op *op)
{
	content_free((struct content *)op);
}

static void content_end(struct content *content, const struct nova_error *err)
{
	json_t *result = nova_take(&content->result);
	nova_done_fn done = content->done;
	void *arg = content->arg;

	content_free(content);
	done(arg, err ? NULL : result, err);
	json_decref(result);
}

static void take_block(void *arg, struct nova_buf *buf)
{
	nova_buf_free(buf);
}

static int begin(struct content *content, enum nova_codec codec, struct nova_error *err)
{
	const struct nova_codec_options options = { .codec = codec };

	content->codec = codec;
	content->at = 0;
	content->encoder = nova_encoder_new(&options, NULL, take_block, NULL, err);
	return content->encoder ? 0 : -1;
}

/* One codec is through. */
static void note(struct content *content)
{
	struct nova_codec_stats stats;

	nova_encoder_stats(content->encoder, &stats);
	json_object_set_new(content->result, nova_codec_name(content->codec),
	    json_pack("{s:f, s:I}", "ratio",
		stats.encoded_bytes ? (double)stats.raw_bytes / (double)stats.encoded_bytes : 1.0, "bytes_per_s",
		(json_int_t)(stats.busy_us ? stats.raw_bytes * 1000000 / stats.busy_us : 0)));
	content->encoder = nova_encoder_free(content->encoder);
}

static int slice(struct content *content, struct nova_error *err)
{
	size_t length = content->length - content->at;

	if (length > SLICE)
		length = SLICE;
	if (nova_encoder_feed(content->encoder, content->data + content->at, length, err) < 0)
		return -1;
	content->at += length;
	return content->at < content->length ? 0 : nova_encoder_flush(content->encoder, true, err);
}

static void on_turn(evutil_socket_t fd, short what, void *arg)
{
	struct content *content = arg;
	struct nova_error err;

	if (slice(content, &err) < 0) {
		content_end(content, &err);
		return;
	}
	if (content->at < content->length) {
		event_add(content->turn, &at_once);
		return;
	}
	note(content);
	if (content->codec == NOVA_CODEC_ZSTD)
		content_end(content, NULL);
	else if (begin(content, NOVA_CODEC_ZSTD, &err) < 0)
		content_end(content, &err);
	else
		event_add(content->turn, &at_once);
}

static bool is_zero(const uint8_t *page)
{
	return !page[0] && !memcmp(page, page + 1, NOVA_PAGE_BYTES - 1);
}

static int read_sample(struct content *content, const char *path, struct nova_error *err)
{
	NOVA_AUTOCLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);

	if (fd < 0)
		return nova_error_sys(err, errno, "sample of the guest's memory %s", path);
	while (content->sampled < SAMPLE_MOST &&
	       read(fd, content->data + content->length, NOVA_PAGE_BYTES) == NOVA_PAGE_BYTES) {
		content->sampled += NOVA_PAGE_BYTES;
		if (!is_zero(content->data + content->length))
			content->length += NOVA_PAGE_BYTES;
	}
	if (!content->sampled)
		return nova_error_set(err, NOVA_INVALID, "sample of the guest's memory %s: there is nothing in it", path);
	return 0;
}

struct nova_op *nova_estimate_content(struct event_base *base, const char *path, nova_done_fn done, void *arg,
    struct nova_error *err)
{
	struct content *content = calloc(1, sizeof(*content));

	if (!content) {
		nova_error_sys(err, ENOMEM, "a sample of memory");
		return NULL;
	}
	content->op.drop = content_drop;
	content->done = done;
	content->arg = arg;
	content->data = malloc(SAMPLE_MOST);
	content->turn = evtimer_new(base, on_turn, content);
	content->result = json_object();
	if (!content->data || !content->turn)
		nova_error_sys(err, ENOMEM, "a sample of memory");
	else if (read_sample(content, path, err) == 0 && begin(content, NOVA_CODEC_LZ4, err) == 0) {
		json_object_set_new(content->result, "sampled_bytes", json_integer((json_int_t)content->sampled));
		json_object_set_new(content->result, "zero_share",
		    json_real(1 - (double)content->length / (double)content->sampled));
		event_add(content->turn, &at_once);
		return &content->op;
	}
	content_free(content);
	return NULL;
}
