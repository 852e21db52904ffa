/* SPDX-License-Identifier: Apache-2.0
 *
 * tcpreset.h - end TCP connections that pass through an emulated link the way a firewall that lost its
 * state does: every further packet of theirs is answered with a reset and goes nowhere.
 *
 * A reset is believed when it carries the sequence number its receiver waits for: that is the
 * acknowledgement number of the packet it answers. So both ends learn of it with their next packet. IPv4
 * only; 1024 connections are remembered (of two that share a place, the newer one).
 */
#ifndef NOVA_PERF_TCPRESET_H
#define NOVA_PERF_TCPRESET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TCPRESET_SLOTS 1024
#define TCPRESET_BYTES 40 /* of an answer: two headers without options */

struct tcpreset_flow {
	uint64_t addresses;
	uint32_t ports;
	bool dead;
};

struct tcpreset {
	struct tcpreset_flow flows[TCPRESET_SLOTS];
};

/* All connections seen so far are dead from now on. */
void tcpreset_all(struct tcpreset *table);
/* A packet on its way: 0 lets it pass; otherwise it is of a dead connection, and that many bytes of answer go
 * back to where it came from (-1: it is dropped without one). A new SYN starts a new life. */
int tcpreset_see(
    struct tcpreset *table, const uint8_t *packet, size_t length, uint8_t answer[TCPRESET_BYTES]);

#endif
