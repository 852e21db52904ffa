/* SPDX-License-Identifier: Apache-2.0
 *
 * measure.c - rate and round trip of a session, and what follows from them.
 *
 * What waits in our queues and in the kernel in front of an urgent message, or of the last byte of a
 * stopped guest, is time. So on a slow link (or below a rate limit) queues hold about 20 ms of the rate; on a
 * fast one they are large, since that is cheap there. A frame that a lost connection cut in two is sent again
 * as a whole: it holds 2 ms of the rate.
 *
 * Lanes: one TCP connection fills most links. When the socket is the limit, no rate limit applies and the
 * round trip is at least 5 ms, twice as many are tried (up to 8); if two seconds later the rate has not grown by
 * a tenth, it stays at that. The extra lanes are kept: they do no harm.
 */
#include "link.h"

#include <netinet/tcp.h>

#define FRAME_BYTES_MIN 2048u
#define FRAME_BYTES_MAX 65536u
#define QUEUE_BYTES_MIN (16u * 1024)
#define QUEUE_BYTES_MAX (1024u * 1024)
#define NOTSENT_MIN (16u * 1024)
#define NOTSENT_MAX (256u * 1024)
#define SAMPLE_NS 1000000000ull
#define RTT_FORGET_NS 30000000000ull
#define LANES_AUTO_MAX 8u
#define LANES_AUTO_RTT_US 5000u
#define LANES_AUTO_TRIAL_NS 2000000000ull

uint64_t measure_sent(const struct nova_session *session)
{
	uint64_t sent = session->closed_sent;

	for (const struct lane *lane = session->lanes; lane; lane = lane->next)
		sent += lane->pump.sent_bytes;
	return sent;
}

static uint32_t clamp(uint64_t value, uint32_t least, uint32_t most)
{
	return value < least ? least : value > most ? most : (uint32_t)value;
}

/* The rate that queues are sized for; 0: as fast as can be. */
static uint64_t expected_bps(const struct nova_session *session)
{
	uint64_t own = session->bucket.rate_bps, host = session->links->bucket.rate_bps;
	uint64_t limit = own && (!host || own < host) ? own : host;

	if (session->link_bound && session->rate_bps && (!limit || session->rate_bps < limit))
		return session->rate_bps;
	return limit;
}

void measure_tune(struct nova_session *session)
{
	uint64_t bps = expected_bps(session), in_10_ms = bps / 8 / 100;
	int notsent = (int)(bps ? clamp(in_10_ms, NOTSENT_MIN, NOTSENT_MAX) : NOTSENT_MAX);

	session->frame_bytes = bps ? clamp(in_10_ms / 5, FRAME_BYTES_MIN, FRAME_BYTES_MAX) : FRAME_BYTES_MAX;
	session->queue_bytes = bps ? clamp(2 * in_10_ms, QUEUE_BYTES_MIN, QUEUE_BYTES_MAX) : QUEUE_BYTES_MAX;
	for (struct lane *lane = session->lanes; lane; lane = lane->next)
		setsockopt(lane->pump.fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &notsent, sizeof(notsent));
}

static uint64_t take_blocked_ns(struct nova_session *session, uint64_t now_ns)
{
	uint64_t most = 0;

	for (struct lane *lane = session->lanes; lane; lane = lane->next) {
		if (lane->blocked) {
			lane->blocked_ns += now_ns - lane->blocked_since_ns;
			lane->blocked_since_ns = now_ns;
		}
		if (lane->blocked_ns > most)
			most = lane->blocked_ns;
		lane->blocked_ns = 0;
	}
	return most;
}

static void consider_lane(struct nova_session *session, uint64_t now_ns)
{
	if (!session->lanes_auto || !session->dialled || session->state != SESSION_UP ||
	    session->try_lane.settled)
		return;
	if (!session->link_bound || session->bucket.rate_bps || session->links->bucket.rate_bps ||
	    session->rtt_min_us < LANES_AUTO_RTT_US || session->lanes_up < session->lanes_wanted)
		return;
	if (session->try_lane.at_ns && now_ns - session->try_lane.at_ns < LANES_AUTO_TRIAL_NS)
		return;
	if (session->lanes_up >= LANES_AUTO_MAX ||
	    (session->try_lane.at_ns &&
	        session->rate_bps < session->try_lane.rate_bps + session->try_lane.rate_bps / 10)) {
		session->try_lane.settled = true;
		return;
	}
	session->try_lane.rate_bps = session->rate_bps;
	session->try_lane.at_ns = now_ns;
	session->lanes_wanted = session->lanes_up * 2 < LANES_AUTO_MAX ? session->lanes_up * 2 : LANES_AUTO_MAX;
	dial_start(session, 0);
}

void measure_tick(struct nova_session *session, uint64_t now_ns)
{
	uint64_t elapsed = now_ns - session->sample_ns, sent = measure_sent(session);

	if (elapsed < SAMPLE_NS)
		return;
	session->rate_bps = (uint64_t)((double)(sent - session->sample_sent) * 8e9 / (double)elapsed);
	session->link_bound = take_blocked_ns(session, now_ns) > elapsed / 2;
	session->sample_ns = now_ns;
	session->sample_sent = sent;
	if (now_ns - session->rtt_min_ns > RTT_FORGET_NS)
		session->rtt_min_us = session->rtt_us;
	measure_tune(session);
	consider_lane(session, now_ns);
}
