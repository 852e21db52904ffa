/* SPDX-License-Identifier: Apache-2.0
 *
 * transport.c - the table behind engine/flow.h.
 */
#include "transport.h"

#include "cleanup.h"
#include "link.h"

static int settings_of(
    struct link_settings *settings, const struct nova_config *config, struct nova_error *err)
{
	static const char *const names[] = { "listen", "cert", "key", "ca", "bandwidth", "peers",
		"admins", "operators", "viewers" };
	NOVA_AUTOJSON json_t *values = json_object();

	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
		const json_t *value = nova_config_get(config, names[i]);

		if (value && !json_is_null(value))
			json_object_set(values, names[i], (json_t *)value);
	}
	return settings_init(settings, values, err);
}

static struct nova_links *open_configured(struct event_base *base, const struct nova_config *config,
    void (*accepted)(void *arg, struct nova_session *session, const char *peer),
    void (*log)(void *arg, enum nova_log_level level, const char *line), void *arg, struct nova_error *err)
{
	struct link_settings settings;

	if (settings_of(&settings, config, err) < 0) {
		settings_release(&settings);
		return NULL;
	}
	return links_open(base, &settings, accepted, log, arg, err);
}

const struct nova_link_ops nova_tls_links = {
	.open = open_configured,
	.close = links_close,
	.port = links_port,
	.dial = session_dial,
	.host_rate = links_host_rate,
	.set_events = session_set_events,
	.user = session_user,
	.from = session_from,
	.request = request_send,
	.answer = request_answer,
	.channel = channel_open,
	.channel_events = channel_set_events,
	.session_rate = session_rate,
	.session_limit = session_limit,
	.stats = session_stats,
	.free = session_free,
};
