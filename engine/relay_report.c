/* SPDX-License-Identifier: Apache-2.0
 *
 * relay_report.c - what a relay tells: RELAY_READY, RELAY_CONNECTED, RELAY_STREAM, RELAY_PROGRESS (four times a
 * second while something moves or the link is away), RELAY_LINK, RELAY_WARNING, and the report at the end.
 * Members have the names that a migration's progress and report use.
 */
#include "relay.h"

#include <errno.h>
#include <event2/event.h>
#include <time.h>

void nova_relay_say(struct nova_relay *relay, const char *event, json_t *data)
{
	if (relay->event && data)
		relay->event(relay->arg, event, data);
	json_decref(data);
}

void nova_relay_warn(struct nova_relay *relay, const char *text)
{
	nova_relay_say(relay, "RELAY_WARNING", json_pack("{s:s}", "text", text));
}

static void add(struct nova_codec_stats *total, const struct nova_pipe *pipe)
{
	struct nova_pipe_stats stats;

	nova_pipe_stats(pipe, &stats);
	total->raw_bytes += stats.out.raw_bytes + stats.in.raw_bytes;
	total->encoded_bytes += stats.out.encoded_bytes + stats.in.encoded_bytes;
}

void nova_relay_count(struct nova_relay *relay, const struct nova_pipe *pipe)
{
	add(&relay->total, pipe);
}

/* Of all streams, those that move included. */
static struct nova_codec_stats moved(const struct nova_relay *relay)
{
	struct nova_codec_stats total = relay->total;

	for (size_t i = 0; i < RELAY_STREAMS; i++)
		if (relay->streams[i].pipe)
			add(&total, relay->streams[i].pipe);
	return total;
}

void nova_relay_look(struct nova_relay *relay)
{
	if (relay->session)
		relay->ops->stats(relay->session, &relay->last);
}

static void add_int(json_t *object, const char *name, uint64_t value)
{
	json_object_set_new(object, name, json_integer((json_int_t)value));
}

static json_t *figures(struct nova_relay *relay)
{
	struct nova_codec_stats total = moved(relay);
	json_t *data = json_object();

	nova_relay_look(relay);
	add_int(data, "connections", relay->streams_made);
	add_int(data, "raw_bytes", total.raw_bytes);
	add_int(data, "wire_bytes", relay->last.wire_sent_bytes + relay->last.wire_received_bytes);
	if (total.encoded_bytes)
		json_object_set_new(data, "ratio", json_real((double)total.raw_bytes / (double)total.encoded_bytes));
	add_int(data, "rtt_us", relay->last.rtt_us);
	return data;
}

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
	struct nova_relay *relay = arg;
	json_t *data;

	if (!relay->streams_open)
		return;
	data = figures(relay);
	json_object_set_new(data, "job", json_string("relay"));
	json_object_set_new(data, "peer", json_string(relay->peer));
	json_object_set_new(data, "phase", json_string("streaming"));
	add_int(data, "lanes", relay->last.lanes);
	add_int(data, "rate_bps", relay->last.rate_now_bps);
	add_int(data, "cap_bps", relay->link.rate_bps);
	add_int(data, "elapsed_ms", (uint64_t)(nova_now_ms() - relay->begin_ms));
	if (relay->reconnect_limit_ms) {
		add_int(data, "reconnect_waited_ms", (uint64_t)relay->reconnect_waited_ms);
		add_int(data, "reconnect_limit_ms", (uint64_t)relay->reconnect_limit_ms);
	}
	nova_relay_say(relay, "RELAY_PROGRESS", data);
}

int nova_relay_watch(struct nova_relay *relay, struct nova_error *err)
{
	const struct timeval period = nova_timeval_ms(RELAY_PROGRESS_MS);

	relay->tick = event_new(relay->base, -1, EV_PERSIST, on_tick, relay);
	if (!relay->tick || event_add(relay->tick, &period) < 0)
		return nova_error_sys(err, ENOMEM, "relay");
	return 0;
}

json_t *nova_relay_result(struct nova_relay *relay)
{
	json_t *result = figures(relay);

	add_int(result, "encoded_bytes", moved(relay).encoded_bytes);
	add_int(result, "resent_bytes", relay->last.resent_bytes);
	add_int(result, "reconnects", relay->last.reconnects);
	add_int(result, "total_ms", (uint64_t)(nova_now_ms() - relay->begin_ms));
	return result;
}
