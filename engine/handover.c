/* SPDX-License-Identifier: Apache-2.0
 *
 * handover.c - a guest's host gives its guest to the standby: on request (a planned fail-over), or because the guest was
 * started there meanwhile. See replicate.h.
 *
 * On request the guest is shut down while its hypervisor stays, since that alone knows what was written; one more point
 * is made; then the hypervisor ends, too, and the answer says which point holds everything. If that point cannot be
 * made, the guest is shut down and stays here.
 */
#include "replicate.h"

#include "cleanup.h"
#include "migrate.h"

#include <stdio.h>
#include <string.h>

#define STOP_TIMEOUT_MS 60000
#define TRIES 4

static void refuse(struct nova_replicate *replicate, const struct nova_error *why)
{
	struct nova_request *request = nova_take(&replicate->handover);

	if (request)
		replicate->host->plugins->links->answer(request, NULL, why);
}

static void ended(void *arg, json_t *result, const struct nova_error *err)
{
	struct nova_replicate *replicate = arg;
	struct nova_error why;

	replicate->stopping = NULL;
	replicate->stopped_ms = 0;
	if (err) {
		why = *err;
		nova_error_prefix(&why, "guest %s has a last point, but its hypervisor did not end", replicate->guest);
		refuse(replicate, &why);
		return;
	}
	nova_replicate_set_state(replicate, NOVA_REPLICATE_HANDED_OVER, "its last point was made");
	if (replicate->handover)
		replicate->host->plugins->links->answer(
		    nova_take(&replicate->handover), json_pack("{s:I}", "point", replicate->newest), NULL);
}

bool nova_handover_point(struct nova_replicate *replicate, const json_t *point)
{
	struct nova_entry *entry = nova_entry_find(replicate->host, replicate->guest);
	NOVA_AUTOJSON json_t *args = json_pack("{s:b}", "force", 1);
	struct nova_error err;

	if (!replicate->stopped_ms || json_integer_value(json_object_get(point, "taken_ms")) < replicate->stopped_ms)
		return false;
	if (entry)
		replicate->stopping = nova_slot_call(entry->slot, NOVA_VERB_STOP, &entry->guest, args, ended, replicate, &err);
	else
		nova_error_set(&err, NOVA_STATE, "guest %s is gone", replicate->guest);
	if (!replicate->stopping)
		refuse(replicate, &err);
	return true;
}

void nova_handover_failed(struct nova_replicate *replicate, const struct nova_error *err)
{
	struct nova_error why = *err;

	if (!replicate->handover || !replicate->stopped_ms || replicate->failures < TRIES)
		return;
	nova_error_prefix(&why, "guest %s is shut down on %s, and its last point could not be made", replicate->guest,
	    nova_host_name(replicate->host));
	replicate->stopped_ms = 0;
	refuse(replicate, &why);
}

static void stopped(void *arg, json_t *result, const struct nova_error *err)
{
	struct nova_replicate *replicate = arg;
	struct nova_error why;

	replicate->stopping = NULL;
	if (err) {
		why = *err;
		nova_error_prefix(&why, "guest %s could not be shut down", replicate->guest);
		refuse(replicate, &why);
		return;
	}
	replicate->stopped_ms = nova_wall_ms();
	replicate->failures = 0;
	replicate->begun_ms = -1;
	if (replicate->state != NOVA_REPLICATE_ACTIVE)
		nova_replicate_set_state(replicate, NOVA_REPLICATE_ACTIVE, "a last point is wanted");
	nova_replicate_pace(replicate);
}

static int hand_over(struct nova_host *host, const char *peer, json_t *args, struct nova_request *request,
    struct nova_error *err)
{
	const char *token = json_string_value(json_object_get(args, "token"));
	const char *guest = json_string_value(json_object_get(args, "guest"));
	struct nova_replicate *replicate = nova_replicate_find(host, guest ? guest : "");
	struct nova_entry *entry = nova_entry_find(host, guest ? guest : "");
	json_int_t timeout = json_integer_value(json_object_get(args, "timeout_ms"));
	NOVA_AUTOJSON json_t *how = json_pack("{s:b, s:I}", "keep", 1, "timeout", timeout > 0 ? timeout : (json_int_t)STOP_TIMEOUT_MS);

	if (!replicate || !token || strcmp(replicate->token, token) || strcmp(replicate->peer, peer))
		return nova_error_set(err, NOVA_REFUSED, "guest %.60s is not replicated from %s to %s", guest ? guest : "",
		    nova_host_name(host), peer);
	if (replicate->state == NOVA_REPLICATE_HANDED_OVER || replicate->handover || replicate->stopping)
		return nova_error_set(err, NOVA_STATE, "guest %s is handed over already", replicate->guest);
	if (!entry || entry->job || (entry->guest.state != NOVA_GUEST_RUNNING && entry->guest.state != NOVA_GUEST_PAUSED))
		return nova_error_set(err, NOVA_STATE, "guest %s is %s: it can be handed over when it is running or paused, and not busy",
		    replicate->guest, entry ? nova_guest_state_name(entry->guest.state) : "gone");
	replicate->stopping = nova_slot_call(entry->slot, NOVA_VERB_STOP, &entry->guest, how, stopped, replicate, err);
	if (!replicate->stopping)
		return -1;
	replicate->handover = request;
	nova_host_log(host, NOVA_LOG_INFO, "replication of %s: %s takes the guest over: it is shut down", replicate->guest, peer);
	return 0;
}

/* On record: it stops a guest. */
int nova_replicate_handover(struct nova_host *host, const char *peer, json_t *args, struct nova_request *request,
    struct nova_error *err)
{
	const char *guest = json_string_value(json_object_get(args, "guest"));
	struct nova_identity who = { .role = NOVA_ROLE_NONE };
	int result = hand_over(host, peer, args, request, err);
	json_t *record = json_pack("{s:s, s:s, s:s}", "decision", "handover", "guest", guest ? guest : "", "outcome",
	    result < 0 ? nova_category_name(err->category) : "accepted");

	if (result < 0)
		json_object_set_new(record, "error", json_string(err->text));
	snprintf(who.name, sizeof(who.name), "peer %s", peer);
	snprintf(who.from, sizeof(who.from), "peer %s", peer);
	nova_host_audit(host, &who, record);
	return result;
}

/* ---- superseded ---- */

/* It had moved to its standby, and is back. */
static bool goes_on(struct nova_replicate *replicate)
{
	const struct nova_entry *entry = nova_entry_find(replicate->host, replicate->guest);

	if (replicate->state != NOVA_REPLICATE_HANDED_OVER || !json_object_get(replicate->body, "moved") || !entry ||
	    strcmp(json_string_value(json_object_get(replicate->body, "uuid")) ?: "", entry->uuid))
		return false;
	json_object_del(replicate->body, "moved");
	replicate->begun_ms = -1;
	replicate->failures = 0;
	nova_replicate_set_state(replicate, NOVA_REPLICATE_ACTIVE, "the guest is back");
	nova_replicate_pace(replicate);
	return true;
}

void nova_replicate_came_back(struct nova_host *host, const char *guest, const char *from)
{
	struct nova_replicate *replicate = nova_replicate_find(host, guest);
	struct nova_error err;

	if (!replicate || goes_on(replicate) || strcmp(replicate->peer, from))
		return;
	json_object_set_new(replicate->body, "came_back", json_true());
	if (nova_replicate_save(replicate, &err) < 0)
		nova_host_log(host, NOVA_LOG_ERROR, "replication of %s: %s", guest, err.text);
}

/* The standby has not started it: what runs here is what is replicated, wherever it was in between. */
void nova_replicate_confirmed(struct nova_replicate *replicate)
{
	struct nova_error err;

	if (json_object_del(replicate->body, "came_back") == 0 && nova_replicate_save(replicate, &err) < 0)
		nova_host_log(replicate->host, NOVA_LOG_ERROR, "replication of %s: %s", replicate->guest, err.text);
}

static void paused(void *arg, json_t *result, const struct nova_error *err)
{
	struct nova_replicate *replicate = arg;

	replicate->stopping = NULL;
	if (err)
		nova_host_log(replicate->host, NOVA_LOG_ERROR, "guest %s runs here AND on %s: it could not be paused: %s",
		    replicate->guest, replicate->peer, err->text);
}

void nova_replicate_superseded(struct nova_replicate *replicate)
{
	struct nova_entry *entry = nova_entry_find(replicate->host, replicate->guest);
	struct nova_error err;

	if (json_is_true(json_object_get(replicate->body, "came_back"))) {
		nova_replicate_set_state(replicate, NOVA_REPLICATE_HANDED_OVER, "the guest was started there, and came back: replicate it anew");
		return;
	}
	nova_replicate_set_state(replicate, NOVA_REPLICATE_HANDED_OVER, "the guest was started there; it is paused here");
	if (!entry || entry->guest.state != NOVA_GUEST_RUNNING || replicate->stopping)
		return;
	nova_host_log(replicate->host, NOVA_LOG_ERROR, "guest %s was started on %s while it ran here: it is paused", replicate->guest,
	    replicate->peer);
	replicate->stopping = nova_slot_call(entry->slot, NOVA_VERB_PAUSE, &entry->guest, NULL, paused, replicate, &err);
	if (!replicate->stopping)
		nova_host_log(replicate->host, NOVA_LOG_ERROR, "guest %s: %s", replicate->guest, err.text);
}
