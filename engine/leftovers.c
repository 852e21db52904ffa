/* SPDX-License-Identifier: Apache-2.0
 *
 * leftovers.c - a guest runs elsewhere: it was handed over, or it never came. What its migration could not take down here
 * (a stopped QEMU, its sockets, its line in the inventory) is deleted later, tried every RETRY_MS, also by a restarted
 * daemon. Only guests with the mark are touched: the source makes it after the commit, the destination when the migration
 * is aborted, so that what it stands on is not the only copy.
 */
#include "host.h"

#include <event2/event.h>
#include <string.h>

#define RETRY_MS 2000
#define MARK "left_over" /* in the guest's runtime */

extern const struct nova_step nova_delete_steps[];

static bool is_left_over(const struct nova_entry *entry)
{
	return json_is_true(json_object_get(entry->guest.runtime, MARK));
}

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

static void look(evutil_socket_t fd, short what, void *arg)
{
	struct nova_host *host = arg;
	struct nova_entry *entry;

	TAILQ_FOREACH (entry, &host->guests, link)
		if (is_left_over(entry) && !entry->job && !entry->attaching)
			clear(host, entry);
	nova_leftovers_look(host);
}

void nova_leftovers_look(struct nova_host *host)
{
	const struct timeval wait = nova_timeval_ms(RETRY_MS);
	struct nova_entry *entry;

	TAILQ_FOREACH (entry, &host->guests, link)
		if (is_left_over(entry))
			break;
	if (!entry)
		return;
	if (!host->leftover_timer)
		host->leftover_timer = evtimer_new(host->base, look, host);
	if (host->leftover_timer && !evtimer_pending(host->leftover_timer, NULL))
		event_add(host->leftover_timer, &wait);
}

void nova_leftover(struct nova_entry *entry)
{
	struct nova_error err;

	json_object_set_new(entry->guest.runtime, MARK, json_true());
	if (nova_entry_save(entry, &err) < 0)
		nova_host_log(entry->host, NOVA_LOG_ERROR, "%s", err.text);
	nova_leftovers_look(entry->host);
}

void nova_leftovers_free(struct nova_host *host)
{
	if (host->leftover_timer)
		event_free(host->leftover_timer);
	host->leftover_timer = NULL;
}
