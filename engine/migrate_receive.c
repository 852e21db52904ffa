/* SPDX-License-Identifier: Apache-2.0
 *
 * migrate_receive.c - the guest's stream at the destination: from the channel to its hypervisor's socket, what of it has
 * arrived, whether it is what was sent, and the rest of a postcopy that lost its stream.
 */
#include "migrate_dest.h"

#include "cleanup.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>

/* Is its stream its state? Of a machine that is shut down there is none. */
bool nova_dest_streams(const struct nova_dest *dest)
{
	return !dest->cold || nova_job_contents(dest->job);
}

bool nova_dest_may_commit(const struct nova_dest *dest)
{
	if (!dest->commit || (dest->disks && !nova_disks_in_arrived(dest->disks)))
		return false;
	return !nova_dest_streams(dest) || dest->loaded ||
	       (dest->postcopy && json_is_true(json_object_get(dest->commit_args, "postcopy")));
}

void nova_dest_look(struct nova_dest *dest)
{
	if (nova_job_at(dest->job, "receive") && nova_dest_may_commit(dest))
		nova_run_done(dest->job->run);
}

static void pipe_ended(void *arg, unsigned ended, const struct nova_error *err)
{
	struct nova_dest *dest = arg;
	struct nova_error why;

	if (!err || dest->loaded || dest->committed)
		return;
	why = *err;
	nova_error_prefix(&why, "stream of guest %s", dest->job->guest_name);
	nova_job_give_up(dest->job, &why);
}

static int connect_guest(const char *path, struct nova_error *err)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	NOVA_AUTOCLOSE int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0)
		return nova_error_sys(err, errno, "socket");
	if (snprintf(address.sun_path, sizeof(address.sun_path), "%s", path) >= (int)sizeof(address.sun_path))
		return nova_error_set(err, NOVA_INVALID, "socket path too long: %s", path);
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
		return nova_error_sys(err, errno, "connecting to %s", path);
	return nova_take_fd(&fd);
}

int nova_dest_open_pipe(struct nova_dest *dest, struct nova_error *err)
{
	struct nova_job *job = dest->job;
	struct nova_pipe_options options = { 0 };
	int fd = connect_guest(dest->path, err);

	if (fd < 0)
		return -1;
	options.out.codec = NOVA_CODEC_NONE;
	options.in.history_bytes = (size_t)json_integer_value(json_object_get(job->args, "history_bytes"));
	if (!strcmp(nova_config_text(job->host->config, "sandbox-decoder"), "on")) {
		dest->decoder = nova_pipe_child_new(job->host->base, job->host->plugins->links, fd, nova_take(&dest->channel),
		    &options, pipe_ended, dest, err);
		return dest->decoder ? 0 : -1;
	}
	nova_base_use_stream(dest->base, &options.in, (uint64_t)json_integer_value(json_object_get(job->args, "memory_bytes")));
	dest->pipe = nova_pipe_new(job->host->base, job->host->plugins->links, fd, nova_take(&dest->channel), &options,
	    pipe_ended, dest, err);
	return dest->pipe ? 0 : -1;
}

int nova_dest_check_digest(struct nova_dest *dest, struct nova_error *err)
{
	NOVA_AUTOJSON json_t *ours = NULL;
	const char *theirs = nova_text_of(dest->commit_args, "digest");
	uint64_t bytes = 0, sent = (uint64_t)json_integer_value(json_object_get(dest->commit_args, "raw_bytes"));
	uint8_t digest[16];

	if (!nova_dest_streams(dest) || dest->postcopy || dest->direct)
		return 0;
	if (!dest->pipe && !dest->decoder)
		return nova_error_set(err, NOVA_REFUSED, "no stream has arrived");
	if (dest->decoder)
		nova_pipe_child_digest_in(dest->decoder, sent, digest, &bytes);
	else
		nova_pipe_digest_in(dest->pipe, digest, &bytes);
	ours = nova_digest_json(digest);
	if (!ours)
		return nova_error_sys(err, ENOMEM, "the digest of the stream");
	if (bytes == sent && !strcmp(theirs, json_string_value(ours)))
		return 0;
	return nova_error_set(err, NOVA_REFUSED,
	    "the stream differs: %llu bytes with digest %s arrived, %llu with %s were sent", (unsigned long long)bytes,
	    json_string_value(ours), (unsigned long long)sent, theirs);
}

/* The stream is gone and pages are missing: the hypervisor keeps the guest, which waits when it needs one, until the
 * source comes again. */
void nova_dest_stream_lost(struct nova_dest *dest, const struct nova_error *why)
{
	struct nova_job *job = dest->job;

	dest->pipe = nova_pipe_free(dest->pipe);
	dest->decoder = nova_pipe_child_free(dest->decoder);
	nova_host_log(job->host, NOVA_LOG_WARNING,
	    "%s: %s; guest %s runs here, and pages that it may need are at %s: it waits for them until %s comes again",
	    job->id, why->text, job->guest_name, job->peer, job->peer);
}

static void ready_for_rest(void *arg, json_t *result, const struct nova_error *err)
{
	struct nova_dest *dest = arg;
	struct nova_job *job = dest->job;

	dest->op = NULL;
	if (err) {
		nova_host_log(job->host, NOVA_LOG_WARNING, "%s: guest %s cannot take the rest yet: %s", job->id,
		    job->guest_name, err->text);
		nova_dest_answer(dest, &dest->recover, NULL, err);
		return;
	}
	if (json_is_true(json_object_get(result, "complete"))) { /* it had all, and nobody was there to hear it */
		nova_dest_answer(dest, &dest->recover, json_pack("{s:b}", "complete", 1), NULL);
		dest->loaded = true;
		nova_run_done(job->run);
		return;
	}
	free(dest->path);
	dest->path = strdup(nova_text_of(result, "path"));
	nova_dest_answer(dest, &dest->recover, NULL, NULL);
}

int nova_dest_prepare_for_rest(struct nova_dest *dest, struct nova_error *err)
{
	struct nova_job *job = dest->job;
	NOVA_AUTOJSON json_t *args = json_pack("{s:b}", "recover", 1);

	dest->pipe = nova_pipe_free(dest->pipe);
	dest->decoder = nova_pipe_child_free(dest->decoder);
	if (dest->channel)
		dest->channel->ops->free(nova_take(&dest->channel));
	nova_op_drop(nova_take(&dest->op));
	dest->op =
	    nova_slot_call(job->slot, NOVA_VERB_IN_PREPARE, &job->entry->guest, args, ready_for_rest, dest, err);
	return dest->op ? 0 : -1;
}
