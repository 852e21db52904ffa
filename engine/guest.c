/* SPDX-License-Identifier: Apache-2.0
 *
 * guest.c - what drivers tell the engine about a guest, and the names of states and verbs.
 */
#include "novacron.h"

#include <assert.h>

static const char *const state_names[] = {
	"stopped", "starting", "running", "paused", "incoming", "migrated", "in-doubt", "failed",
};
static_assert(sizeof(state_names) / sizeof(*state_names) == NOVA_GUEST_STATES, "a name for each state");

static const char *const verb_names[] = {
	"probe", "check", "create", "start", "stop", "delete", "pause", "resume", "snapshot", "restore", "list",
	"adopt", "reattach", "stats", "resize", "migrate-out-prepare", "migrate-out", "migrate-out-query",
	"migrate-out-set", "migrate-out-cancel", "migrate-in", "profile", "overhead", "capabilities", "estimate",
	"logs", "import", "export",
	"mirror-start", "mirror-query", "mirror-end", "mirror-in", "mirror-in-end",
	"point-clear", "point-mark", "point-take", "point-send", "replica-make", "replica-serve", "replica-merge",
	"replica-export",
};
static_assert(sizeof(verb_names) / sizeof(*verb_names) == NOVA_VERBS, "a name for each verb");

const char *nova_guest_state_name(enum nova_guest_state state)
{
	return (unsigned)state < NOVA_GUEST_STATES ? state_names[state] : "unknown";
}

const char *nova_verb_name(enum nova_verb verb)
{
	return (unsigned)verb < NOVA_VERBS ? verb_names[verb] : "unknown";
}

void nova_guest_set_state(struct nova_guest *guest, enum nova_guest_state state, const char *why)
{
	guest->hooks->set_state(guest, state, why);
}

void nova_guest_event(struct nova_guest *guest, const char *event, json_t *data)
{
	guest->hooks->event(guest, event, data);
}

int nova_guest_save(struct nova_guest *guest, struct nova_error *err)
{
	return guest->hooks->save(guest, err);
}
