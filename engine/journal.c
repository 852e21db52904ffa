/* SPDX-License-Identifier: Apache-2.0
 *
 * journal.c - a host whose journal cannot be used: which guests it finds without, and how an administrator ends that.
 *
 *   open      store.c refuses the file: a stand-in takes its place, unless another daemon has the file
 *   guests    those that the file still names; then what the drivers list as ours and the file does not name
 *   serving   list, show, stats, logs, events; every job is refused with the file's name and what to do
 *   jobs      those that had not ended are left as they are: half a journal is no ground to undo or to finish anything
 *   the end   a restart with a mended file, or `journal renew --yes`: the file is put aside, a new one begun
 *
 * A guest that was found by its process alone has no owner: administrators see it. Peers that ask for decisions are told
 * nothing, since "aborted" would let a guest run twice.
 */
#include "cleanup.h"
#include "host.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

/* ---- finding guests without their rows ---- */

/* The drivers' lists, then the guests on them. */
struct nova_search {
	struct nova_host *host;
	size_t slot;          /* whose list is looked at */
	json_t *list;         /* owned */
	size_t item;
	struct nova_entry *entry; /* borrowed: being adopted */
	struct nova_op *op;   /* owned */
	void (*done)(struct nova_host *host);
};

static void look_on(struct nova_search *search);

void nova_search_free(struct nova_search *search)
{
	if (!search)
		return;
	nova_op_drop(search->op);
	json_decref(search->list);
	free(search);
}

static void take_adopted(struct nova_entry *entry, json_t *result)
{
	json_t *spec = json_object_get(result, "spec"), *needs = json_object_get(result, "needs");
	struct nova_error err;

	if (json_is_object(spec))
		nova_entry_set_spec(entry, spec);
	if (json_is_object(needs))
		json_object_update(entry->needs, needs);
	if (nova_entry_save(entry, &err) < 0)
		nova_host_log(entry->host, NOVA_LOG_ERROR, "%s", err.text);
	nova_host_log(entry->host, NOVA_LOG_WARNING, "guest %s was found by what runs, not by the journal: it is %s",
	    entry->name, nova_guest_state_name(entry->guest.state));
}

static void adopted(void *arg, json_t *result, const struct nova_error *err)
{
	struct nova_search *search = arg;
	struct nova_entry *entry = nova_take(&search->entry);

	search->op = NULL;
	entry->attaching = false;
	if (err) {
		nova_host_log(
		    search->host, NOVA_LOG_WARNING, "guest %s runs, and stays unattended: %s", entry->name, err->text);
		nova_entry_free(entry);
	} else {
		take_adopted(entry, result);
	}
	look_on(search);
}

static struct nova_entry *entry_for(struct nova_search *search, const json_t *item)
{
	const char *name = json_string_value(json_object_get(item, "name"));
	const char *known = json_string_value(json_object_get(item, "uuid"));
	NOVA_AUTOJSON json_t *nothing = json_object();
	struct nova_error err;
	char uuid[37];

	if (!json_is_true(json_object_get(item, "ours")) || !name || nova_guest_name_check(name, &err) < 0 ||
	    nova_entry_find(search->host, name))
		return NULL;
	nova_uuid_new(uuid);
	return nova_entry_new(search->host, &search->host->slots[search->slot], name,
	    known && strlen(known) == 36 ? known : uuid, "", nothing, nothing, &err);
}

/* false: it is none of ours, or known. */
static bool adopt(struct nova_search *search, const json_t *item)
{
	struct nova_entry *entry = entry_for(search, item);
	NOVA_AUTOJSON json_t *args =
	    json_pack("{s:O*, s:O*}", "qmp", json_object_get(item, "qmp"), "id", json_object_get(item, "id"));
	struct nova_error err;

	if (!entry)
		return false;
	search->op = nova_slot_call(entry->slot, NOVA_VERB_ADOPT, &entry->guest, args, adopted, search, &err);
	if (!search->op) {
		nova_host_log(
		    search->host, NOVA_LOG_WARNING, "guest %s runs, and stays unattended: %s", entry->name, err.text);
		nova_entry_free(entry);
		return false;
	}
	entry->attaching = true;
	search->entry = entry;
	return true;
}

static void listed(void *arg, json_t *result, const struct nova_error *err)
{
	struct nova_search *search = arg;
	struct nova_slot *slot = &search->host->slots[search->slot];

	search->op = NULL;
	if (err)
		nova_host_log(search->host, NOVA_LOG_WARNING, "driver %s does not say which guests it has: %s",
		    slot->ops->name, err->text);
	search->list = json_is_array(result) ? json_incref(result) : json_array();
	look_on(search);
}

static bool ask_list(struct nova_search *search)
{
	struct nova_slot *slot = &search->host->slots[search->slot];
	struct nova_error err;

	if (slot->self && slot->ops->verb[NOVA_VERB_LIST])
		search->op = nova_slot_call(slot, NOVA_VERB_LIST, NULL, NULL, listed, search, &err);
	return search->op != NULL;
}

/* To the next thing that takes time, or to the end. */
static void look_on(struct nova_search *search)
{
	struct nova_host *host = search->host;
	void (*done)(struct nova_host *) = search->done;

	for (; search->slot < host->slot_count; search->slot++) {
		if (!search->list && ask_list(search))
			return;
		while (search->list && search->item < json_array_size(search->list))
			if (adopt(search, json_array_get(search->list, search->item++)))
				return;
		json_decref(nova_take(&search->list));
		search->item = 0;
	}
	done(host);
}

struct nova_search *nova_search_new(struct nova_host *host, void (*done)(struct nova_host *host))
{
	struct nova_search *search = calloc(1, sizeof(*search));

	if (search)
		*search = (struct nova_search){ .host = host, .done = done };
	return search;
}

void nova_search_start(struct nova_search *search)
{
	look_on(search);
}

/* ---- what is known ---- */

static int add_open_job(void *arg, const struct nova_job_row *row)
{
	json_array_append_new(arg, json_sprintf("%s: %s %s, at %s", row->id, row->kind, row->guest ? row->guest : "",
				       row->step && row->step[0] ? row->step : "its start"));
	return 0;
}

static json_t *guests_json(struct nova_host *host)
{
	json_t *guests = json_array();
	struct nova_entry *entry;

	TAILQ_FOREACH (entry, &host->guests, link)
		json_array_append_new(
		    guests, json_sprintf("%s: %s", entry->name, nova_guest_state_name(entry->guest.state)));
	return guests;
}

static json_t *known(struct nova_host *host, struct nova_error *err)
{
	const char *refusal = nova_store_refusal(host->store);
	NOVA_AUTOJSON json_t *open = json_array();
	NOVA_AUTOFREE char *renewed = nova_store_meta_get(host->store, "renewed", err);
	json_t *answer;

	if (nova_store_jobs(host->store, NOVA_JOBS_OPEN, add_open_job, open, err) < 0)
		return NULL;
	answer = json_pack("{s:s, s:s, s:o, s:O, s:s*}", "file", nova_store_path(host->store), "state",
	    refusal ? refusal : "in use", "guests", guests_json(host), "open_jobs", open, "put_aside", renewed);
	if (refusal)
		json_object_set_new(answer, "risk",
		    json_string("open jobs are forgotten, others that could not be read, too: a guest that does not run here may run on "
				"the host it was moved to. Make sure of that before you start or resume one"));
	return answer;
}

/* ---- journal show, journal renew ---- */

static int renew(struct nova_host *host, const struct nova_identity *who, json_t *answer, struct nova_error *err)
{
	char aside[PATH_MAX];

	nova_host_audit(host, who,
	    json_pack("{s:s, s:s}", "decision", "journal renew", "file", nova_store_path(host->store)));
	if (nova_store_renew(&host->store, nova_config_text(host->config, "state-dir"), aside, err) < 0)
		return -1;
	nova_host_log(host, NOVA_LOG_WARNING, "the journal was renewed by %s; the old one is %s", who->name,
	    aside[0] ? aside : "gone");
	json_object_set_new(answer, "state", json_string("renewed"));
	json_object_set_new(answer, "put_aside", aside[0] ? json_string(aside) : json_null());
	return 0;
}

struct nova_op *nova_cmd_journal(struct nova_host *host, const struct nova_identity *who, json_t *args,
    nova_done_fn done, void *arg, struct nova_error *err)
{
	bool show = !strcmp(json_string_value(json_object_get(args, "what")), "show");
	bool yes = json_is_true(json_object_get(args, "yes"));
	NOVA_AUTOJSON json_t *answer = NULL;

	if (!show && !nova_store_refusal(host->store)) {
		nova_error_set(err, NOVA_STATE, "the journal %s is in use, and could be read when the daemon started: nothing to renew",
		    nova_store_path(host->store));
		return NULL;
	}
	if (!show && host->recovery) {
		nova_error_set(err, NOVA_STATE, "guests are still being found: try again in a moment");
		return NULL;
	}
	answer = known(host, err);
	if (!answer)
		return NULL;
	if (!show && !yes)
		json_object_set_new(answer, "next",
		    json_string("stop the daemon and mend the file, or: novacron journal renew --yes (the file is put aside, not deleted)"));
	if (!show && yes && renew(host, who, answer, err) < 0)
		return NULL;
	return nova_op_later(host->base, nova_take(&answer), NULL, done, arg, err);
}
