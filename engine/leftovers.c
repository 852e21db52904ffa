/* SPDX-License-Identifier: Apache-2.0
 *
 * leftovers.c - a guest runs elsewhere: it was handed over, or it never came. What its migration could not take down here
 * (a stopped QEMU, its sockets, its line in the inventory) is deleted later, tried every RETRY_MS, also by a restarted
 * daemon. Only guests with the mark are touched: the source makes it after the commit, the destination when the migration
 * is aborted, so that what it stands on is not the only copy. The timer always runs: when it is needed, there may be no
 * memory to start one.
 */
#include "host.h"

#include <errno.h>
#include <event2/event.h>

#define RETRY_MS 2000
#define MARK "left_over" /* in the guest's runtime */

extern const struct nova_step nova_delete_steps[];

static void clear(struct nova_host *host, struct nova_entry *entry)
{
	const struct nova_identity who = { .name = "novacrond", .role = NOVA_ROLE_ADMIN, .from = "leftovers" };
	json_t *args = json_pack("{s:s, s:b, s:b}", "guest", entry->name, "keep-disks", 1, "force", 1);
	struct nova_error err;
	struct nova_job *job = nova_job_new(host, "delete", "local", &who, entry->name, args, &err);

	json_decref(args);
	if (!job || nova_job_start(job, nova_delete_steps, NULL, false, &err) < 0)
		nova_host_log(host, NOVA_LOG_WARNING, "what is left of guest %s: %s", entry->name, err.text);
}

/* A mark that there was no memory for is made now. */
static void look(evutil_socket_t fd, short what, void *arg)
{
	struct nova_host *host = arg;
	struct nova_entry *entry;

	TAILQ_FOREACH (entry, &host->guests, link)
		if (entry->left_over && !entry->job && !entry->attaching) {
			if (!nova_leftover_marked(entry->guest.runtime))
				nova_leftover(entry);
			clear(host, entry);
		}
}

bool nova_leftover_marked(const json_t *runtime)
{
	return json_is_true(json_object_get(runtime, MARK));
}

void nova_leftover(struct nova_entry *entry)
{
	struct nova_error err;

	entry->left_over = true;
	json_object_set_new(entry->guest.runtime, MARK, json_true());
	if (nova_entry_save(entry, &err) < 0)
		nova_host_log(entry->host, NOVA_LOG_ERROR, "%s", err.text);
}

int nova_leftovers_open(struct nova_host *host, struct nova_error *err)
{
	const struct timeval every = nova_timeval_ms(RETRY_MS);

	host->leftover_timer = event_new(host->base, -1, EV_PERSIST, look, host);
	if (host->leftover_timer && event_add(host->leftover_timer, &every) == 0)
		return 0;
	return nova_error_sys(err, ENOMEM, "host");
}

void nova_leftovers_free(struct nova_host *host)
{
	if (host->leftover_timer)
		event_free(host->leftover_timer);
	host->leftover_timer = NULL;
}
