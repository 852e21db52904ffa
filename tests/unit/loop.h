/* SPDX-License-Identifier: Apache-2.0
 *
 * loop.h - for unit tests of things that live on a loop: run it until something holds, a private directory,
 * and an answer to wait for. Header only.
 */
#ifndef NOVA_TEST_LOOP_H
#define NOVA_TEST_LOOP_H

#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "engine/novacron.h"

#define LOOP_LIMIT_S (20 * loop_patience())

struct loop {
	struct event_base *base;
	char dir[64];
};

/* NOVA_PATIENCE: how many times slower than usual everything is, under valgrind. Tests that measure time or memory skip then. */
static inline double loop_patience(void)
{
	const char *text = getenv("NOVA_PATIENCE");

	return text && atof(text) > 1 ? atof(text) : 1;
}

static inline void loop_init(struct loop *loop)
{
	loop->base = event_base_new();
	strcpy(loop->dir, "/tmp/nova-test-XXXXXX");
	assert_non_null(loop->base);
	assert_non_null(mkdtemp(loop->dir));
}

/* The directory must be empty again: what a test leaves behind is a failure. */
static inline void loop_release(struct loop *loop)
{
	event_base_free(loop->base);
	assert_int_equal(rmdir(loop->dir), 0);
}

static inline double loop_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static inline void loop_tick(evutil_socket_t fd, short what, void *arg)
{
}

/* Run turns of the loop until the condition holds; fails the test after LOOP_LIMIT_S. */
#define LOOP_UNTIL(loop, condition) \
	do { \
		double limit_ = loop_now() + LOOP_LIMIT_S; \
		struct timeval tick_ = { 0, 50000 }; \
		struct event *ticker_ = event_new((loop)->base, -1, EV_PERSIST, loop_tick, NULL); \
		bool holds_; \
		event_add(ticker_, &tick_); \
		while (!(holds_ = (condition)) && loop_now() < limit_) \
			event_base_loop((loop)->base, EVLOOP_ONCE); \
		event_free(ticker_); \
		if (!holds_) \
			fail_msg("%s:%d: still not: %s", __FILE__, __LINE__, #condition); \
	} while (0)

/* Run the loop for a while, to see that something does not happen. */
static inline void loop_run_ms(struct loop *loop, int ms)
{
	struct timeval wait = { ms / 1000, ms % 1000 * 1000 };

	event_base_loopexit(loop->base, &wait);
	event_base_dispatch(loop->base);
}

/* An answer: zero it, give &answer to a call as arg. */
struct answer {
	int count;
	json_t *result; /* owned */
	struct nova_error err;
};

static inline void answer_done(void *arg, json_t *result, const struct nova_error *err)
{
	struct answer *answer = arg;

	answer->count++;
	json_decref(answer->result);
	answer->result = json_incref(result);
	if (err)
		answer->err = *err;
}

static inline void answer_release(struct answer *answer)
{
	json_decref(answer->result);
	memset(answer, 0, sizeof(*answer));
}

#endif
