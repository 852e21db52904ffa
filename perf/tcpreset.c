/* SPDX-License-Identifier: Apache-2.0
 *
 * tcpreset.c - TCP connections ended from the middle (see tcpreset.h).
 */
#include "tcpreset.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <netinet/tcp.h>
#include <string.h>

/* The same for both directions of a connection. */
static struct tcpreset_flow identify(const struct iphdr *ip, const struct tcphdr *tcp)
{
	bool turned = ip->saddr > ip->daddr || (ip->saddr == ip->daddr && tcp->source > tcp->dest);
	uint64_t low = turned ? ip->daddr : ip->saddr, high = turned ? ip->saddr : ip->daddr;
	uint32_t low_port = turned ? tcp->dest : tcp->source, high_port = turned ? tcp->source : tcp->dest;

	return (struct tcpreset_flow) { .addresses = low << 32 | high, .ports = low_port << 16 | high_port };
}

static struct tcpreset_flow *slot_of(struct tcpreset *table, const struct tcpreset_flow *flow)
{
	uint64_t mixed = (flow->addresses ^ (uint64_t)flow->ports << 17) * 0x9e3779b97f4a7c15u;

	return &table->flows[mixed >> 32 & (TCPRESET_SLOTS - 1)];
}

static uint32_t sum_words(uint32_t sum, const void *bytes, size_t length)
{
	const uint8_t *at = bytes;

	for (size_t i = 0; i + 1 < length; i += 2)
		sum += (uint32_t)at[i] << 8 | at[i + 1];
	return sum;
}

static uint16_t fold(uint32_t sum)
{
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return htons((uint16_t)~sum);
}

static void make_reset(const struct iphdr *ip, const struct tcphdr *tcp, uint8_t *answer)
{
	struct iphdr back = { .version = 4,
		.ihl = 5,
		.tot_len = htons(TCPRESET_BYTES),
		.ttl = 64,
		.protocol = IPPROTO_TCP,
		.saddr = ip->daddr,
		.daddr = ip->saddr };
	struct tcphdr reset = {
		.source = tcp->dest, .dest = tcp->source, .seq = tcp->ack_seq, .doff = 5, .rst = 1
	};

	back.check = fold(sum_words(0, &back, sizeof(back)));
	reset.check =
	    fold(sum_words(sum_words(IPPROTO_TCP + sizeof(reset), &back.saddr, 8), &reset, sizeof(reset)));
	memcpy(answer, &back, sizeof(back));
	memcpy(answer + sizeof(back), &reset, sizeof(reset));
}

void tcpreset_all(struct tcpreset *table)
{
	for (size_t i = 0; i < TCPRESET_SLOTS; i++)
		table->flows[i].dead = table->flows[i].addresses != 0;
}

int tcpreset_see(struct tcpreset *table, const uint8_t *packet, size_t length, uint8_t answer[TCPRESET_BYTES])
{
	struct tcpreset_flow flow, *slot;
	struct tcphdr tcp;
	struct iphdr ip;

	if (length < sizeof(ip) || packet[0] >> 4 != 4)
		return 0;
	memcpy(&ip, packet, sizeof(ip));
	if (ip.protocol != IPPROTO_TCP || length < ip.ihl * 4u + sizeof(tcp))
		return 0;
	memcpy(&tcp, packet + ip.ihl * 4u, sizeof(tcp));
	flow = identify(&ip, &tcp);
	slot = slot_of(table, &flow);
	if (tcp.syn || slot->addresses != flow.addresses || slot->ports != flow.ports)
		*slot = flow;
	if (!slot->dead)
		return 0;
	if (tcp.rst || !tcp.ack)
		return -1;
	make_reset(&ip, &tcp, answer);
	return TCPRESET_BYTES;
}
