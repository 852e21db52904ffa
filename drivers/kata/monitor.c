/* SPDX-License-Identifier: Apache-2.0
 *
 * monitor.c - STATS of a Kata guest: what its control groups say, and "hypervisor": what the sandbox's QEMU says.
 *
 * QEMU's monitor serves one client, and that is the shim, for as long as the sandbox lives. Where the runtime was told to
 * open another (extra-monitor.sock), or the shim does not hold its own (qmp.sock), it answers us within MONITOR_MS; if
 * not, "hypervisor" says why, and the rest is told all the same. Only questions are asked.
 */
#include "drivers/kata/kata.h"
#include "qmp/qmp.h"

#include <errno.h>
#include <event2/event.h>
#include <stdio.h>
#include <string.h>

#define MONITOR_MS 1000

static const struct {
	const char *command, *member, *name; /* of the answer, and in ours */
} questions[] = {
	{ "query-status", "status", "status" },
	{ "query-memory-size-summary", "base-memory", "memory_bytes" },
	{ "query-balloon", "actual", "balloon_bytes" }, /* refused where there is none */
};
#define QUESTIONS (sizeof(questions) / sizeof(*questions))

struct asking {
	struct nova_op op; /* first */
	struct nova_op *stats, *call;  /* owned */
	struct qmp_client *client;     /* owned */
	struct event *ended;           /* owned */
	json_t *result, *hypervisor;   /* owned */
	struct event_base *base;       /* borrowed */
	char path[PATH_MAX];
	size_t next;
	nova_done_fn done;
	void *arg;
};

static void asking_free(struct asking *asking)
{
	nova_op_drop(asking->stats);
	nova_op_drop(asking->call);
	qmp_client_free(asking->client);
	event_free(asking->ended);
	json_decref(asking->result);
	json_decref(asking->hypervisor);
	free(asking);
}

static void asking_drop(struct nova_op *op)
{
	asking_free((struct asking *)op);
}

/* Of its own, so that the client is not freed below its own frames. */
static void end_now(evutil_socket_t fd, short what, void *arg)
{
	struct asking *asking = arg;
	nova_done_fn done = asking->done;
	void *done_arg = asking->arg;
	json_t *result = nova_take(&asking->result);

	json_object_set(result, "hypervisor", asking->hypervisor);
	asking_free(asking);
	done(done_arg, result, NULL);
	json_decref(result);
}

static void end_with(struct asking *asking, const char *why)
{
	if (why)
		json_object_set_new(asking->hypervisor, "why", json_string(why));
	event_active(asking->ended, EV_TIMEOUT, 0);
}

static void ask_next(struct asking *asking);

static void answered(void *arg, json_t *result, const struct nova_error *err)
{
	struct asking *asking = arg;
	json_t *value = json_object_get(result, questions[asking->next].member);

	asking->call = NULL;
	if (err && err->category != NOVA_REFUSED) {
		end_with(asking, err->text);
		return;
	}
	if (value)
		json_object_set(asking->hypervisor, questions[asking->next].name, value);
	asking->next++;
	ask_next(asking);
}

static void ask_next(struct asking *asking)
{
	struct qmp_call call = { .limit_ms = MONITOR_MS };
	struct nova_error err;

	if (asking->next == QUESTIONS) {
		end_with(asking, NULL);
		return;
	}
	asking->call = qmp_execute(asking->client, questions[asking->next].command, NULL, &call, answered, asking, &err);
	if (!asking->call)
		end_with(asking, err.text);
}

static void ready(void *arg, json_t *greeting)
{
	ask_next(arg);
}

static void closed(void *arg, const struct nova_error *err)
{
	struct asking *asking = arg;

	if (!asking->call) /* otherwise its answer says so */
		end_with(asking, err->category == NOVA_STATE ? KATA_OWNED : err->text);
}

/* The socket to ask: a monitor for others, if there is one. */
static void choose(const struct nova_guest *guest, char *path, size_t size)
{
	snprintf(path, size, KATA_SANDBOXES "/%s/extra-monitor.sock", containerd_id(guest));
	if (access(path, F_OK) < 0)
		snprintf(path, size, KATA_SANDBOXES "/%s/qmp.sock", containerd_id(guest));
}

static void stats_came(void *arg, json_t *result, const struct nova_error *failure)
{
	static const struct qmp_events events = { .ready = ready, .closed = closed };
	struct asking *asking = arg;
	struct qmp_limits limits = { .greeting_ms = MONITOR_MS };
	struct nova_error err;

	asking->stats = NULL;
	asking->result = result ? json_incref(result) : json_object();
	if (!json_object_get(result, "pid")) {
		end_with(asking, "it does not run");
	} else if (access(asking->path, F_OK) < 0) {
		end_with(asking, "the sandbox has no monitor that we can reach (" KATA_SANDBOXES ")");
	} else {
		asking->client = qmp_client_new(asking->base, asking->path, &limits, &events, asking, &err);
		if (!asking->client)
			end_with(asking, err.text);
	}
}

struct nova_op *kata_stats(void *self, struct nova_guest *guest, json_t *args, nova_done_fn done, void *arg, struct nova_error *err)
{
	struct containerd *containerd = self;
	struct asking *asking = calloc(1, sizeof(*asking));

	if (asking)
		asking->ended = event_new(containerd->env.base, -1, 0, end_now, asking);
	if (!asking || !asking->ended) {
		free(asking);
		nova_error_sys(err, ENOMEM, "kata");
		return NULL;
	}
	asking->op.drop = asking_drop;
	asking->base = containerd->env.base;
	asking->hypervisor = json_object();
	asking->done = done;
	asking->arg = arg;
	choose(guest, asking->path, sizeof(asking->path));
	asking->stats = containerd_stats(self, guest, args, stats_came, asking, err);
	if (asking->stats)
		return &asking->op;
	asking_free(asking);
	return NULL;
}
