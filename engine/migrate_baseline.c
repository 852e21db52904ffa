/* SPDX-License-Identifier: Apache-2.0
 *
 * migrate_baseline.c - see migrate_baseline.h. The index on the wire: messages of entries, each a zigzag varint (pages
 * beyond the page before, less one) and 16 bytes of hash, in the order of slots; FIN after the last. 17 bytes a page: 2.5 MiB for
 * 600 MiB of guest. It is checked against the digest that was offered.
 */
#include "migrate_baseline.h"
#include "cleanup.h"
#include "cursor.h"
#include "flow.h"

#include <endian.h>
#include <errno.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SEND_BYTES 32768u /* of one message of an index */
#define SPARE_SLOTS 65536u /* that a guest may have beyond its memory */

struct nova_base_use {
	struct nova_job *job; /* borrowed */
	void (*ready)(struct nova_job *job);
	struct nova_base_head head;      /* of what we make; image and guest in any case */
	struct nova_base_head offer;     /* what is offered: id, slots, digest */
	char own_id[33];                 /* of the one that is loaded as our own */
	struct nova_base_load *load;     /* owned */
	struct nova_base_index *offered; /* owned, until there is a baseline */
	struct nova_baseline *baseline;  /* owned; NULL: none */
	struct nova_making *making;      /* owned */
	struct nova_channel *channel;    /* owned: an index travels */
	uint32_t next;                   /* slot to be sent */
	uint64_t page;                   /* of the slot before, at either end */
	bool damaged;
};

static const struct nova_link_ops *links_of(const struct nova_base_use *use)
{
	return use->job->host->plugins->links;
}

static const char *text_of(const json_t *object, const char *name)
{
	const char *text = json_string_value(json_object_get(object, name));

	return text ? text : "";
}

static void log_use(const struct nova_base_use *use, const char *what, const struct nova_error *why)
{
	nova_host_log(use->job->host, NOVA_LOG_INFO, "%s: %s: %s", use->job->id, what, why->text);
}

/* ---- what a guest was made from ----------------------------------------------------------------- */

/* Kernel, firmware, container image and disks that cannot be written, where the specification names them. "" if it names
 * none: then there is no other guest like it. */
static void image_of(const json_t *spec, char image[NOVA_BASE_TEXT_MAX + 1])
{
	static const char *const members[] = { "image", "kernel", "initrd", "firmware" };
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	uint8_t digest[32] = { 0 };
	size_t i, named = 0;
	json_t *disk;

	image[0] = 0;
	if (!ctx || !EVP_DigestInit_ex(ctx, EVP_sha256(), NULL)) {
		EVP_MD_CTX_free(ctx);
		return;
	}
	for (i = 0; i < sizeof(members) / sizeof(*members); i++) {
		const char *text = text_of(spec, members[i]);

		EVP_DigestUpdate(ctx, text, strlen(text) + 1);
		named += text[0] != 0;
	}
	json_array_foreach (json_object_get(spec, "disk"), i, disk)
		if (json_is_true(json_object_get(disk, "readonly"))) {
			EVP_DigestUpdate(ctx, text_of(disk, "path"), strlen(text_of(disk, "path")) + 1);
			named++;
		}
	EVP_DigestFinal_ex(ctx, digest, NULL);
	EVP_MD_CTX_free(ctx);
	for (i = 0; i < sizeof(digest) && named; i++)
		snprintf(image + 2 * i, 3, "%02x", digest[i]);
}

struct nova_base_use *nova_base_use_new(struct nova_job *job, const json_t *spec, void (*ready)(struct nova_job *job),
    struct nova_error *err)
{
	struct nova_base_use *use = calloc(1, sizeof(*use));
	const struct nova_guest *guest = &job->entry->guest;

	if (!use) {
		nova_error_sys(err, ENOMEM, "baseline of guest %s", job->guest_name);
		return NULL;
	}
	use->job = job;
	use->ready = ready;
	snprintf(use->head.id, sizeof(use->head.id), "%s", job->token);
	snprintf(use->head.uuid, sizeof(use->head.uuid), "%s", guest->uuid);
	snprintf(use->head.guest, sizeof(use->head.guest), "%s", guest->name);
	snprintf(use->head.owner, sizeof(use->head.owner), "%s", guest->owner);
	snprintf(use->head.peer, sizeof(use->head.peer), "%s", job->peer);
	snprintf(use->head.side, sizeof(use->head.side), "%s", job->side);
	image_of(spec, use->head.image);
	return use;
}

struct nova_base_use *nova_base_use_free(struct nova_base_use *use)
{
	if (!use)
		return NULL;
	nova_base_use_drop(use);
	nova_making_free(use->making);
	nova_baseline_free(use->baseline);
	free(use);
	return NULL;
}

const char *nova_base_use_image(const struct nova_base_use *use)
{
	return use->head.image;
}

static void close_channel(struct nova_base_use *use)
{
	if (use->channel)
		use->channel->ops->free(nova_take(&use->channel));
}

void nova_base_use_drop(struct nova_base_use *use)
{
	if (!use)
		return;
	use->load = nova_base_load_free(use->load);
	use->offered = nova_base_index_free(use->offered);
	close_channel(use);
}

/* Everything is there: offered, and of our own what there is. */
static void complete(struct nova_base_use *use, struct nova_base_index *own, int pages_fd)
{
	struct nova_error err;

	use->baseline = nova_baseline_new(nova_take(&use->offered), own, pages_fd, &err);
	if (!use->baseline)
		log_use(use, "without a baseline", &err);
	use->ready(use->job);
}

/* ---- the destination ---------------------------------------------------------------------------- */

static void offer_loaded(void *arg, struct nova_base_index *index, const struct nova_error *why)
{
	struct nova_base_use *use = arg;

	use->load = nova_base_load_free(use->load);
	use->offered = index;
	if (index)
		complete(use, NULL, nova_baselines_pages(use->job->host->baselines, use->offer.id));
	else
		use->ready(use->job);
}

bool nova_base_use_offer(struct nova_base_use *use)
{
	struct nova_baselines *baselines = use->job->host->baselines;
	const struct nova_base_head *found =
	    nova_baselines_find(baselines, use->head.uuid, use->head.owner, use->head.image);
	struct nova_error err;

	if (!found)
		return false;
	use->offer = *found;
	use->load = nova_base_load_new(baselines, use->offer.id, offer_loaded, use, &err);
	if (!use->load)
		log_use(use, "without a baseline", &err);
	return use->load != NULL;
}

json_t *nova_base_use_offered(const struct nova_base_use *use)
{
	char digest[65];

	if (!use || !use->baseline)
		return NULL;
	for (size_t i = 0; i < sizeof(use->offer.digest); i++)
		snprintf(digest + 2 * i, 3, "%02x", use->offer.digest[i]);
	return json_pack("{s:s, s:I, s:s, s:I}", "id", use->offer.id, "slots", (json_int_t)use->offer.slots, "digest", digest,
	    "created_ms", (json_int_t)use->offer.created_ms);
}

static struct nova_buf *next_piece(struct nova_base_use *use)
{
	const struct nova_base_index *index = nova_baseline_offered(use->baseline);
	struct nova_buf *buf = nova_buf_new(SEND_BYTES);
	const struct nova_base_entry *entry;
	struct nova_writer w;

	if (!buf)
		return NULL;
	w = nova_writer_of(buf->data, SEND_BYTES - NOVA_VARINT_MAX - NOVA_BASE_HASH_BYTES);
	while ((entry = nova_base_index_at(index, use->next)) && (size_t)(w.end - w.at) > NOVA_VARINT_MAX + NOVA_BASE_HASH_BYTES) {
		nova_put_zigzag(&w, (int64_t)(entry->page - use->page) / (int64_t)NOVA_PAGE_BYTES - 1);
		nova_put_bytes(&w, entry->hash, sizeof(entry->hash));
		use->page = entry->page;
		use->next++;
	}
	buf->length = (uint32_t)nova_writer_used(&w);
	return buf;
}

static void send_more(void *arg)
{
	struct nova_base_use *use = arg;
	const struct nova_channel_ops *ops = use->channel->ops;

	while (use->next < use->offer.slots && ops->room(use->channel)) {
		struct nova_buf *buf = next_piece(use);

		if (!buf) {
			close_channel(use);
			return;
		}
		ops->send(use->channel, buf);
		if (use->next == use->offer.slots)
			ops->finish(use->channel);
	}
}

static void ignore_message(void *arg, const uint8_t *data, size_t length)
{
	struct nova_base_use *use = arg;

	use->channel->ops->consumed(use->channel, length);
}

static void sending_closed(void *arg, const struct nova_error *err)
{
	if (err)
		close_channel(arg);
}

static const struct nova_channel_events sending = { ignore_message, send_more, sending_closed };

void nova_base_use_send(struct nova_base_use *use, struct nova_channel *channel)
{
	if (!use || !use->baseline || use->channel) {
		channel->ops->free(channel);
		return;
	}
	use->channel = channel;
	links_of(use)->channel_events(channel, &sending, use);
	send_more(use);
}

/* ---- the source --------------------------------------------------------------------------------- */

static bool read_digest(const char *text, uint8_t digest[32])
{
	if (strlen(text) != 64 || strspn(text, "0123456789abcdef") != 64)
		return false;
	for (size_t i = 0; i < 32; i++) {
		unsigned byte = 0;

		sscanf(text + 2 * i, "%2x", &byte);
		digest[i] = (uint8_t)byte;
	}
	return true;
}

static int read_offer(struct nova_base_use *use, const json_t *offer, uint64_t memory_bytes, struct nova_error *err)
{
	json_int_t slots = json_integer_value(json_object_get(offer, "slots"));
	const char *id = text_of(offer, "id");

	if (strlen(id) != 32 || strspn(id, "0123456789abcdef") != 32 || !read_digest(text_of(offer, "digest"), use->offer.digest))
		return nova_error_set(err, NOVA_INVALID, "the baseline offered has no id or digest");
	if (slots < 1 || (uint64_t)slots > memory_bytes / NOVA_PAGE_BYTES + SPARE_SLOTS || slots > NOVA_BASE_SLOTS_MAX)
		return nova_error_set(err, NOVA_INVALID, "the baseline offered has %lld pages", (long long)slots);
	snprintf(use->offer.id, sizeof(use->offer.id), "%s", id);
	use->offer.slots = (uint32_t)slots;
	return 0;
}

/* ours: of the same guest, or of one like it; it need not be the same. */
static void own_loaded(void *arg, struct nova_base_index *index, const struct nova_error *why)
{
	struct nova_base_use *use = arg;
	bool same = !use->offered;

	use->load = nova_base_load_free(use->load);
	if (same)
		use->offered = index;
	if (!use->offered) {
		use->ready(use->job);
		return;
	}
	if (index)
		json_object_set_new(json_object_get(use->job->report, "baseline"), "counterpart",
		    json_string(same ? "same" : "other"));
	complete(use, same ? NULL : index, index ? nova_baselines_pages(use->job->host->baselines, use->own_id) : -1);
}

static bool load_own(struct nova_base_use *use, const char *id)
{
	struct nova_error err;

	snprintf(use->own_id, sizeof(use->own_id), "%s", id);
	use->load = nova_base_load_new(use->job->host->baselines, use->own_id, own_loaded, use, &err);
	if (!use->load)
		log_use(use, "without a baseline", &err);
	return use->load != NULL;
}

static void give_index_up(struct nova_base_use *use, const struct nova_error *why)
{
	log_use(use, "without the baseline offered", why);
	nova_base_use_drop(use);
	use->ready(use->job);
}

static int take_entries(struct nova_base_use *use, const uint8_t *data, size_t length, struct nova_error *err)
{
	struct nova_cursor c = nova_cursor_of(data, length);

	while (nova_cursor_left(&c)) {
		int64_t step = nova_get_zigzag(&c);
		const uint8_t *hash = nova_get_bytes(&c, NOVA_BASE_HASH_BYTES);
		uint8_t entry[NOVA_BASE_ENTRY_BYTES];
		uint64_t page;

		if (!hash)
			return nova_error_set(err, NOVA_INVALID, "an index cut within an entry");
		use->page += ((uint64_t)step + 1) * NOVA_PAGE_BYTES;
		page = htobe64(use->page);
		memcpy(entry, &page, sizeof(page));
		memcpy(entry + sizeof(page), hash, NOVA_BASE_HASH_BYTES);
		if (nova_base_index_add(use->offered, entry, sizeof(entry), err) < 0)
			return -1;
	}
	return 0;
}

static void index_message(void *arg, const uint8_t *data, size_t length)
{
	struct nova_base_use *use = arg;
	struct nova_error err;

	if (take_entries(use, data, length, &err) < 0)
		give_index_up(use, &err);
	else
		use->channel->ops->consumed(use->channel, length);
}

static void index_closed(void *arg, const struct nova_error *why)
{
	struct nova_base_use *use = arg;
	const struct nova_base_head *own;
	struct nova_error err;

	if (why || nova_base_index_check(use->offered, use->offer.digest, &err) < 0) {
		give_index_up(use, why ? why : &err);
		return;
	}
	close_channel(use);
	own = nova_baselines_find(use->job->host->baselines, use->head.uuid, use->head.owner, use->head.image);
	if (!own || !load_own(use, own->id))
		complete(use, NULL, -1);
}

static void index_room(void *arg)
{
}

static const struct nova_channel_events receiving = { index_message, index_room, index_closed };

static bool ask_for_index(struct nova_base_use *use, struct nova_session *session)
{
	struct nova_error err;

	use->offered = nova_base_index_new(use->offer.slots, &err);
	if (use->offered)
		use->channel = links_of(use)->channel(
		    session, NOVA_BASELINE_CHANNEL, NOVA_CHANNEL_STREAM, &receiving, use, &err);
	if (use->channel)
		return true;
	log_use(use, "without the baseline offered", &err);
	nova_base_use_drop(use);
	return false;
}

bool nova_base_use_accept(struct nova_base_use *use, const json_t *offer, struct nova_session *session,
    uint64_t memory_bytes)
{
	const struct nova_base_head *own;
	struct nova_error err;

	if (!json_is_object(offer))
		return false;
	if (read_offer(use, offer, memory_bytes, &err) < 0) {
		log_use(use, "without a baseline", &err);
		return false;
	}
	json_object_set_new(use->job->report, "baseline",
	    json_pack("{s:s, s:I, s:s}", "id", use->offer.id, "pages", (json_int_t)use->offer.slots, "counterpart", "none"));
	own = nova_baselines_get(use->job->host->baselines, use->offer.id);
	if (own && own->slots == use->offer.slots && !memcmp(own->digest, use->offer.digest, sizeof(own->digest)))
		return load_own(use, own->id);
	return ask_for_index(use, session);
}

/* ---- the stream --------------------------------------------------------------------------------- */

void nova_base_use_stream(struct nova_base_use *use, struct nova_codec_options *options, uint64_t memory_bytes)
{
	if (!use)
		return;
	if (!use->making)
		use->making = nova_making_new(use->job->host->baselines, &use->head, memory_bytes);
	options->baseline = use->baseline;
	options->spool = nova_making_spool(use->making);
}

void nova_base_use_end(struct nova_base_use *use, bool committed)
{
	if (!use)
		return;
	if (nova_baseline_damaged(use->baseline) && !use->damaged) {
		use->damaged = true;
		nova_host_log(use->job->host, NOVA_LOG_WARNING, "the baseline of guest %s is damaged: dropped",
		    use->job->guest_name);
		nova_baselines_drop(use->job->host->baselines, use->offer.id);
	}
	if (committed)
		nova_making_keep(nova_take(&use->making));
}

bool nova_base_use_damaged(const struct nova_base_use *use)
{
	return use && use->damaged;
}
