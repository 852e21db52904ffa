/* SPDX-License-Identifier: Apache-2.0
 *
 * guests.c - the table of guests: names, states, the inventory behind it, and who may see which.
 */
#include "replicate.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

int nova_guest_name_check(const char *name, struct nova_error *err)
{
	size_t length = strlen(name);
	bool good = length > 0 && length <= NOVA_NAME_MAX && isalnum((unsigned char)name[0]);

	for (size_t i = 0; i < length && good; i++)
		good = isalnum((unsigned char)name[i]) || strchr("-_.", name[i]);
	if (good)
		return 0;
	return nova_error_set(err, NOVA_INVALID,
	    "'%.80s' is not a guest name: 1 to %d of A-Z a-z 0-9 - _ . and a letter or digit first", name,
	    NOVA_NAME_MAX);
}

void nova_uuid_new(char uuid[37])
{
	unsigned char b[16];

	if (getrandom(b, sizeof(b), 0) != sizeof(b))
		abort(); /* cannot happen for 16 bytes once the kernel is seeded */
	b[6] = (b[6] & 0x0f) | 0x40;
	b[8] = (b[8] & 0x3f) | 0x80;
	snprintf(uuid, 37, "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", b[0], b[1],
	    b[2], b[3], b[4], b[5], b[6], b[7], b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]);
}

struct nova_entry *nova_entry_find(struct nova_host *host, const char *name)
{
	struct nova_entry *entry;

	TAILQ_FOREACH (entry, &host->guests, link)
		if (!strcmp(entry->name, name))
			return entry;
	return NULL;
}

bool nova_entry_visible(const struct nova_host *host, const struct nova_identity *who, const char *owner)
{
	return who->role == NOVA_ROLE_ADMIN || (who->role > NOVA_ROLE_NONE && !strcmp(owner, who->name));
}

struct nova_entry *nova_entry_need(struct nova_host *host, const struct nova_identity *who, const char *name,
    struct nova_error *err)
{
	struct nova_entry *entry = nova_entry_find(host, name);

	if (entry && nova_entry_visible(host, who, entry->owner))
		return entry;
	nova_error_set(err, NOVA_INVALID, "there is no guest '%.80s' on %s: see novacron list", name,
	    nova_host_name(host));
	return NULL;
}

/* ---- what drivers say ---- */

static void guest_set_state(struct nova_guest *guest, enum nova_guest_state state, const char *why)
{
	struct nova_entry *entry = guest->hooks_arg;
	struct nova_error err;

	if (guest->state == state)
		return;
	nova_host_log(entry->host, NOVA_LOG_INFO, "guest %s: %s -> %s%s%s", guest->name,
	    nova_guest_state_name(guest->state), nova_guest_state_name(state), why ? ": " : "", why ? why : "");
	guest->state = state;
	if (nova_entry_save(entry, &err) < 0)
		nova_host_log(entry->host, NOVA_LOG_ERROR, "%s", err.text);
	nova_host_emit(entry->host, "GUEST_STATE",
	    json_pack("{s:s, s:s, s:s, s:s*}", "guest", guest->name, "owner", entry->owner, "state",
		nova_guest_state_name(state), "why", why));
}

static void guest_event(struct nova_guest *guest, const char *event, json_t *data)
{
	struct nova_entry *entry = guest->hooks_arg;

	if (entry->job && entry->job->on_guest)
		entry->job->on_guest(entry->job, event, data);
	nova_host_emit(entry->host, "GUEST_EVENT",
	    json_pack("{s:s, s:s, s:s, s:O*}", "guest", guest->name, "owner", entry->owner, "event", event, "data",
		data));
}

static int guest_save(struct nova_guest *guest, struct nova_error *err)
{
	return nova_entry_save(guest->hooks_arg, err);
}

static const struct nova_guest_hooks hooks = { guest_set_state, guest_event, guest_save };

/* ---- the table ---- */

static struct nova_entry *entry_release(struct nova_entry *entry)
{
	if (!entry)
		return NULL;
	json_decref(entry->guest.spec);
	json_decref(entry->guest.runtime);
	json_decref(entry->needs);
	nova_debt_free(entry->debt);
	free(entry->name);
	free(entry->uuid);
	free(entry->owner);
	free(entry);
	return NULL;
}

struct nova_entry *nova_entry_new(struct nova_host *host, struct nova_slot *slot, const char *name,
    const char *uuid, const char *owner, json_t *spec, json_t *needs, struct nova_error *err)
{
	struct nova_entry *entry = calloc(1, sizeof(*entry));

	if (!entry || !(entry->name = strdup(name)) || !(entry->uuid = strdup(uuid)) ||
	    !(entry->owner = strdup(owner)) || !(entry->debt = nova_debt_new(name))) {
		nova_error_sys(err, ENOMEM, "guest %s", name);
		return entry_release(entry);
	}
	entry->host = host;
	entry->slot = slot;
	entry->needs = needs ? json_deep_copy(needs) : json_object();
	entry->created_ms = nova_wall_ms();
	entry->guest = (struct nova_guest){
		.name = entry->name,
		.uuid = entry->uuid,
		.owner = entry->owner,
		.spec = json_deep_copy(spec),
		.runtime = json_object(),
		.state = NOVA_GUEST_STOPPED,
		.hooks = &hooks,
		.hooks_arg = entry,
	};
	TAILQ_INSERT_TAIL(&host->guests, entry, link);
	return entry;
}

struct nova_entry *nova_entry_free(struct nova_entry *entry)
{
	if (!entry)
		return NULL;
	nova_replicates_guest_gone(entry->host, entry);
	if (entry->slot->ops->forget && entry->slot->self)
		entry->slot->ops->forget(entry->slot->self, &entry->guest);
	if (entry->job)
		entry->job->entry = NULL;
	TAILQ_REMOVE(&entry->host->guests, entry, link);
	return entry_release(entry);
}

int nova_entry_write(struct nova_entry *entry, struct nova_error *err)
{
	struct nova_guest_row row = {
		.name = entry->name,
		.uuid = entry->uuid,
		.owner = entry->owner,
		.driver = entry->slot->ops->name,
		.state = nova_guest_state_name(entry->guest.state),
		.spec = entry->guest.spec,
		.runtime = entry->guest.runtime,
		.needs = entry->needs,
		.created_ms = entry->created_ms,
	};

	return nova_store_guest_put(entry->host->store, &row, err);
}

int nova_entry_save(struct nova_entry *entry, struct nova_error *err)
{
	int result = nova_entry_write(entry, err);

	if (result < 0)
		nova_debt_guest(entry);
	return result;
}

int nova_entry_forget(struct nova_entry *entry, struct nova_error *err)
{
	struct nova_host *host = entry->host;
	json_t *event = json_pack("{s:s, s:s}", "guest", entry->name, "owner", entry->owner);
	struct nova_error why;

	if (nova_store_guest_delete(host->store, entry->name, &why) < 0) {
		nova_host_log(host, NOVA_LOG_ERROR, "guest %s is gone, which is written down later: %s", entry->name,
		    why.text);
		nova_debt_guest(entry);
	}
	nova_entry_free(entry);
	nova_host_emit(host, "GUEST_GONE", event);
	return 0;
}

void nova_entry_set_spec(struct nova_entry *entry, json_t *spec)
{
	json_t *old = entry->guest.spec;

	entry->guest.spec = json_deep_copy(spec);
	json_decref(old);
}

bool nova_entry_at_rest(const struct nova_entry *entry)
{
	return entry->guest.state == NOVA_GUEST_STOPPED || entry->guest.state == NOVA_GUEST_FAILED;
}

json_t *nova_entry_json(const struct nova_entry *entry, bool whole)
{
	json_t *json = json_pack("{s:s, s:s, s:s, s:s, s:s, s:O}", "name", entry->name, "state",
	    nova_guest_state_name(entry->guest.state), "driver", entry->slot->ops->name, "owner", entry->owner,
	    "uuid", entry->uuid, "needs", entry->needs);

	json_object_set_new(json, "job", entry->job ? json_string(entry->job->id) : json_null());
	if (whole) {
		json_object_set(json, "spec", entry->guest.spec);
		json_object_set(json, "runtime", entry->guest.runtime);
		json_object_set_new(json, "created_ms", json_integer(entry->created_ms));
	}
	return json;
}
