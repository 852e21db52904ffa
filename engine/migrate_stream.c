/* SPDX-License-Identifier: Apache-2.0
 *
 * migrate_stream.c - the guest's stream at the source: the socket its hypervisor connects to, and the pipe from there to
 * the channel.
 */
#include "migrate_source.h"

#include "cleanup.h"
#include "clock.h"
#include "migrate_baseline.h"
#include "socket.h"

#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define HEAR_WHY_MS 3000

/* History takes memory on both sides: a quarter of the guest's unless said otherwise, at most 1 GiB. */
size_t nova_source_history_bytes(const struct nova_source *source)
{
	const uint64_t most = 1ull << 30, quarter = source->memory_bytes / 4;

	if (nova_job_contents(source->job))
		return 0; /* no pages come by */
	if (json_object_get(source->job->args, "history"))
		return (size_t)nova_job_int(source->job, "history");
	return quarter < most ? quarter : most;
}

/* The hypervisor must not notice: in postcopy a broken stream could not be cancelled any more. */
void nova_source_stop_pipe(struct nova_source *source)
{
	source->pipe = nova_pipe_free(source->pipe);
	if (source->hears_why)
		event_free(nova_take(&source->hears_why));
}

static void discard(evutil_socket_t fd, short what, void *arg)
{
	struct nova_source *source = arg;
	char nowhere[16 << 10];
	ssize_t n = read(fd, nowhere, sizeof(nowhere));

	if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
		event_del(source->discarding);
}

void nova_source_discard_stream(struct nova_source *source)
{
	nova_source_stop_pipe(source);
	if (source->discarding)
		event_add(source->discarding, NULL);
}

void nova_source_stop_stream(struct nova_source *source)
{
	nova_source_stop_pipe(source);
	if (source->discarding)
		event_free(nova_take(&source->discarding));
	if (source->stream_fd >= 0)
		close(nova_take_fd(&source->stream_fd));
	if (source->listening)
		event_free(nova_take(&source->listening));
	if (source->listen_fd >= 0)
		close(nova_take_fd(&source->listen_fd));
	if (source->path)
		unlink(source->path);
	free(nova_take(&source->path));
}

static void did_not_say(evutil_socket_t fd, short what, void *arg)
{
	struct nova_source *source = arg;

	nova_job_give_up(source->job, &source->gave_up);
}

/* A destination that fails lets go of the stream first, and says why when it has taken back what it did. Until the guest
 * is halted there is time to hear it. */
static bool hears_why(struct nova_source *source, const struct nova_error *why)
{
	const struct timeval wait = nova_timeval_ms(HEAR_WHY_MS);

	if (why->category != NOVA_CANCELLED || !nova_job_at(source->job, "precopy") || source->hears_why)
		return false;
	source->gave_up = *why;
	source->hears_why = evtimer_new(source->job->host->base, did_not_say, source);
	return source->hears_why && evtimer_add(source->hears_why, &wait) == 0;
}

static void pipe_ended(void *arg, unsigned ended, const struct nova_error *err)
{
	struct nova_source *source = arg;
	struct nova_error why;

	if (!err || source->completed)
		return;
	why = *err;
	nova_error_prefix(&why, "stream of guest %s", source->job->guest_name);
	if (!hears_why(source, &why))
		nova_job_give_up(source->job, &why);
}

enum nova_codec nova_source_codec(const struct nova_source *source)
{
	for (enum nova_codec codec = 0; codec < NOVA_CODECS; codec++)
		if (!strcmp(nova_job_text(source->job, "codec"), nova_codec_name(codec)))
			return codec;
	return NOVA_CODEC_AUTO;
}

/* Until the guest runs over there, the hypervisor must not notice that the other one ended. QEMU closes its socket then, and
 * a cancel cannot shut down what is closed: its writer hangs in it. In postcopy it cannot be cancelled any more at all. */
static int open_pipe(struct nova_source *source, int fd, struct nova_error *err)
{
	struct nova_job *job = source->job;
	NOVA_AUTOCLOSE int stream = fd;
	struct nova_pipe_options options = { .scanner = nova_job_contents(job) ? NULL : job->host->plugins->scanner };
	struct nova_channel *channel;

	options.out.codec = nova_source_codec(source);
	options.out.history_bytes = nova_source_history_bytes(source);
	options.in.codec = NOVA_CODEC_NONE;
	nova_base_use_stream(source->base, &options.out, source->memory_bytes);
	if (!source->session)
		return nova_error_set(err, NOVA_LINK, "the link to %s is gone", job->peer);
	if (source->stream_fd < 0 && (source->stream_fd = fcntl(stream, F_DUPFD_CLOEXEC, 3)) < 0)
		return nova_error_sys(err, errno, "stream of guest %s", job->guest_name);
	if (!source->discarding)
		source->discarding = event_new(job->host->base, source->stream_fd, EV_READ | EV_PERSIST, discard, source);
	if (!source->discarding)
		return nova_error_sys(err, ENOMEM, "stream of guest %s", job->guest_name);
	channel = source->ops->channel(source->session, NOVA_STREAM_CHANNEL, NOVA_CHANNEL_STREAM, NULL, NULL, err);
	if (!channel)
		return -1;
	source->pipe = nova_pipe_new(
	    job->host->base, source->ops, nova_take_fd(&stream), channel, &options, pipe_ended, source, err);
	if (!source->pipe)
		return -1;
	nova_pipe_keep_open(source->pipe, !nova_job_contents(job) && !nova_source_drains(source));
	return 0;
}

/* QEMU connects to our socket. */
static void accept_stream(evutil_socket_t listen_fd, short what, void *arg)
{
	struct nova_source *source = arg;
	struct nova_error why;
	int fd = nova_unix_accept(listen_fd);

	if (fd < 0 && (errno == EAGAIN || errno == EINTR || errno == ECONNABORTED))
		return;
	event_del(source->listening);
	if (fd < 0)
		nova_error_sys(&why, errno, "stream of guest %s", source->job->guest_name);
	if (fd < 0 || open_pipe(source, fd, &why) < 0)
		nova_job_give_up(source->job, &why);
}

/* The socket lies in the guest's own runtime directory; a guest that is files has none. */
int nova_source_name_socket(struct nova_source *source, struct nova_error *err)
{
	const struct nova_job *job = source->job;
	const char *runtime = nova_config_text(job->host->config, "runtime-dir");

	if ((nova_job_contents(job) ? asprintf(&source->path, "%s/%s.out", runtime, job->id) :
				      asprintf(&source->path, "%s/guests/%s/out.sock", runtime, job->guest_name)) < 0) {
		source->path = NULL;
		return nova_error_sys(err, ENOMEM, "guest %s", job->guest_name);
	}
	return 0;
}

int nova_source_listen(struct nova_source *source, struct nova_error *err)
{
	struct nova_job *job = source->job;

	if (nova_source_name_socket(source, err) < 0)
		return -1;
	source->listen_fd = nova_unix_listen(source->path, err);
	if (source->listen_fd < 0)
		return nova_error_prefix(err, "runtime-dir");
	source->listening =
	    event_new(job->host->base, source->listen_fd, EV_READ | EV_PERSIST, accept_stream, source);
	if (!source->listening || event_add(source->listening, NULL) < 0)
		return nova_error_sys(err, ENOMEM, "socket %s", source->path);
	return 0;
}
