/* SPDX-License-Identifier: Apache-2.0
 *
 * migrate_tail.c - the end of a live stream: the guest is halted here, its last bytes are on their way.
 *
 * Waiting for the hypervisor's "completed" before the commit is sent costs the guest a round trip: the
 * destination's word that all is loaded has to come here first. So the commit goes as soon as the whole
 * stream has been read, and the destination, which alone decides, holds it until its guest is loaded and the
 * digests agree. Nothing is weaker for it, because the guest was halted by us and not by its hypervisor: it
 * stays halted here whatever becomes of the link, of us, or of the stream, until somebody lets it run.
 *
 * Where the hypervisor switched over by itself, or cannot be halted, the commit waits for "completed". So it
 * does when more than QUEUE_MOST_MS of stream still wait for the link: that long we would rather be able to
 * undo than to ask.
 */
#include "migrate.h"
#include "cleanup.h"

#include <errno.h>
#include <event2/event.h>
#include <string.h>

#define LOOK_MS 3 /* between two looks at what is left */
#define QUEUE_MOST_MS 1500

static void look_later(struct nova_source *source)
{
	const struct timeval wait = nova_timeval_ms(LOOK_MS);

	event_add(source->tail, &wait);
}

static bool in_switchover(const struct nova_source *source)
{
	const struct nova_run *run = source->job->run;

	return run && !nova_run_undoing(run) && !strcmp(nova_run_step(run)->name, "switchover");
}

/* All that the hypervisor wrote has been read, and what is queued will be gone soon. */
static bool all_read(const struct nova_source *source)
{
	struct nova_pipe_stats stats;

	if (source->direct)
		return true;
	if (!source->pipe || !nova_pipe_idle(source->pipe))
		return false;
	nova_pipe_stats(source->pipe, &stats);
	return stats.unacknowledged_bytes * 1000 < source->sample.link_bytes_per_s * QUEUE_MOST_MS;
}

static void end_looked(void *arg, json_t *result, const struct nova_error *err)
{
	struct nova_source *source = arg;

	source->tail_op = NULL;
	if (err) /* its events tell what is wrong */
		return;
	source->written |= json_is_true(json_object_get(result, "written"));
	if (source->completed || source->read_whole)
		return;
	look_later(source);
}

static void look(evutil_socket_t fd, short what, void *arg)
{
	struct nova_source *source = arg;
	struct nova_job *job = source->job;
	NOVA_AUTOJSON json_t *args = NULL;
	struct nova_error err;

	if (!job->entry || source->completed || (job->run && nova_run_undoing(job->run)))
		return;
	if (source->written) {
		if (all_read(source) && in_switchover(source) && !source->reconnect_limit_ms) {
			source->read_whole = true;
			nova_run_done(job->run);
		} else
			look_later(source);
		return;
	}
	args = json_pack("{s:b}", "end", 1);
	source->tail_op = nova_slot_call(job->slot, NOVA_VERB_OUT_QUERY, &job->entry->guest, args, end_looked, source, &err);
}

void nova_tail_start(struct nova_source *source)
{
	if (!source->tail)
		source->tail = evtimer_new(source->job->host->base, look, source);
	if (source->tail)
		look_later(source);
}

void nova_tail_stop(struct nova_source *source)
{
	nova_op_drop(nova_take(&source->tail_op));
	if (source->tail)
		event_free(nova_take(&source->tail));
}
