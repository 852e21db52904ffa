/* SPDX-License-Identifier: Apache-2.0
 *
 * chore.c - see chore.h.
 */
#include "chore.h"

#include "clock.h"
#include "codec_block.h"

#include <errno.h>
#include <event2/event.h>
#include <stdlib.h>

#define TURN_NS 1000000u

struct nova_chore {
	struct event *turn;
	struct timeval pause;
	nova_chore_slice_fn slice;
	nova_chore_end_fn end;
	void *arg;
};

static void on_turn(evutil_socket_t fd, short what, void *arg)
{
	struct nova_chore *chore = arg;
	uint64_t began = nova_codec_clock_ns();
	struct nova_error err;
	int rc;

	do
		rc = chore->slice(chore->arg, &err);
	while (rc > 0 && nova_codec_clock_ns() - began < TURN_NS);
	if (rc > 0)
		event_add(chore->turn, &chore->pause);
	else
		chore->end(chore->arg, rc < 0 ? &err : NULL);
}

struct nova_chore *nova_chore_new(struct event_base *base, int pause_ms, nova_chore_slice_fn slice,
    nova_chore_end_fn end, void *arg, struct nova_error *err)
{
	struct nova_chore *chore = calloc(1, sizeof(*chore));

	if (chore) {
		chore->pause = nova_timeval_ms(pause_ms);
		chore->slice = slice;
		chore->end = end;
		chore->arg = arg;
		chore->turn = evtimer_new(base, on_turn, chore);
	}
	if (chore && chore->turn && event_add(chore->turn, &chore->pause) == 0)
		return chore;
	nova_error_sys(err, ENOMEM, "work in slices");
	return nova_chore_free(chore);
}

struct nova_chore *nova_chore_free(struct nova_chore *chore)
{
	if (chore && chore->turn)
		event_free(chore->turn);
	free(chore);
	return NULL;
}
