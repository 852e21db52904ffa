/* SPDX-License-Identifier: Apache-2.0
 *
 * debts.c - what the journal could not take down because its disk was full, read-only or worse: lines of the inventory,
 * replicas whose fail-over was undone and how jobs ended. Nothing that runs waits for it: it is written later, in order,
 * tried every RETRY_MS. Until then no new job begins, so that a guest of the same name, made later, is not taken for the old one.
 *
 * A daemon that dies before finds the job open in its journal and undoes or finishes it once more, which is harmless.
 * What it takes is allocated with the guest and the job, so that a lack of memory is no reason to forget.
 * Not here: decisions and the rows of jobs, which must be written before the act.
 */
#include "cleanup.h"
#include "host.h"
#include "replicate.h"

#include <errno.h>
#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RETRY_MS 1000

struct nova_debt {
	TAILQ_ENTRY(nova_debt) link;
	char *guest; /* owned: whose line in the inventory is stale; NULL: the end of a job */
	char job[NOVA_JOB_ID_SIZE];
	const char *outcome; /* static */
	char error[sizeof(((struct nova_error *)0)->text)];
	json_t *report; /* owned */
	int64_t ended_ms;
};

struct nova_debt *nova_debt_new(const char *guest)
{
	struct nova_debt *debt = calloc(1, sizeof(*debt));

	if (debt && guest && !(debt->guest = strdup(guest)))
		return nova_debt_free(debt);
	return debt;
}

struct nova_debt *nova_debt_free(struct nova_debt *debt)
{
	if (!debt)
		return NULL;
	free(debt->guest);
	json_decref(debt->report);
	free(debt);
	return NULL;
}

static int pay(struct nova_host *host, struct nova_debt *debt, struct nova_error *err)
{
	struct nova_entry *entry = debt->guest ? nova_entry_find(host, debt->guest) : NULL;

	if (entry)
		return nova_entry_write(entry, err);
	if (debt->guest)
		return nova_store_guest_delete(host->store, debt->guest, err);
	return nova_store_job_end(host->store, debt->job, debt->outcome, debt->error[0] ? debt->error : NULL,
	    debt->report, debt->ended_ms, err);
}

/* A guest that is there may need it again. */
static void put_back(struct nova_host *host, struct nova_debt *debt)
{
	struct nova_entry *entry = debt->guest ? nova_entry_find(host, debt->guest) : NULL;

	if (entry && !entry->debt)
		entry->debt = debt;
	else
		nova_debt_free(debt);
}

/* Before the end of the job that changed it: whoever dies in between finds the job open, and undoes it once more. */
static int pay_replicas(struct nova_host *host, struct nova_error *err)
{
	struct nova_replica *replica;

	TAILQ_FOREACH (replica, &host->replicas, link)
		if (replica->stale && nova_replica_save(replica, err) < 0)
			return -1;
	return 0;
}

int nova_debts_pay(struct nova_host *host, struct nova_error *err)
{
	struct nova_debt *debt;

	if (pay_replicas(host, err) < 0)
		return -1;
	while ((debt = TAILQ_FIRST(&host->debts))) {
		if (pay(host, debt, err) < 0)
			return -1;
		TAILQ_REMOVE(&host->debts, debt, link);
		put_back(host, debt);
	}
	return 0;
}

static void wait_a_while(struct nova_host *host)
{
	const struct timeval wait = nova_timeval_ms(RETRY_MS);

	event_add(host->debt_timer, &wait);
}

static void retry(evutil_socket_t fd, short what, void *arg)
{
	struct nova_host *host = arg;
	struct nova_error err;

	if (nova_debts_pay(host, &err) == 0)
		nova_host_log(host, NOVA_LOG_INFO, "the journal can be written again and is complete");
	else
		wait_a_while(host);
}

static void pay_later(struct nova_host *host)
{
	if (host->debt_timer && !evtimer_pending(host->debt_timer, NULL))
		wait_a_while(host);
}

static void owe(struct nova_host *host, struct nova_debt *debt)
{
	if (!debt)
		return; /* it is in the list already */
	TAILQ_INSERT_TAIL(&host->debts, debt, link);
	pay_later(host);
}

void nova_debt_replica(struct nova_replica *replica)
{
	replica->stale = true;
	pay_later(replica->host);
}

void nova_debt_guest(struct nova_entry *entry)
{
	owe(entry->host, nova_take(&entry->debt));
}

void nova_debt_job(struct nova_job *job, const struct nova_job_row *row)
{
	struct nova_debt *debt = nova_take(&job->debt);

	if (!debt)
		return;
	snprintf(debt->job, sizeof(debt->job), "%s", row->id);
	snprintf(debt->error, sizeof(debt->error), "%s", row->error ? row->error : "");
	debt->outcome = row->outcome;
	debt->report = json_incref(row->report);
	debt->ended_ms = row->ended_ms;
	owe(job->host, debt);
}

void nova_debt_ended(const struct nova_host *host, struct nova_job_row *row)
{
	const struct nova_debt *debt;

	TAILQ_FOREACH (debt, &host->debts, link) {
		if (debt->guest || strcmp(debt->job, row->id) != 0)
			continue;
		row->outcome = debt->outcome;
		row->error = debt->error[0] ? debt->error : NULL;
		row->report = debt->report;
		row->ended_ms = debt->ended_ms;
		row->step = "";
	}
}

int nova_debts_open(struct nova_host *host, struct nova_error *err)
{
	host->debt_timer = evtimer_new(host->base, retry, host);
	return host->debt_timer ? 0 : nova_error_sys(err, ENOMEM, "host");
}

void nova_debts_close(struct nova_host *host)
{
	struct nova_error err;

	if (host->store && nova_debts_pay(host, &err) < 0)
		nova_host_log(host, NOVA_LOG_ERROR, "the journal lacks the end of what was done last: %s", err.text);
	while (!TAILQ_EMPTY(&host->debts)) {
		struct nova_debt *debt = TAILQ_FIRST(&host->debts);

		TAILQ_REMOVE(&host->debts, debt, link);
		nova_debt_free(debt);
	}
	if (host->debt_timer)
		event_free(host->debt_timer);
	host->debt_timer = NULL;
}
