/* SPDX-License-Identifier: Apache-2.0
 *
 * nowhere.h - what a receiver that keeps nothing says to a QEMU that recovers its postcopy: every page has been received,
 * go on, and this is the end. Bytes in and out; the socket and QMP are take_back.c's.
 */
#ifndef NOVA_KVM_NOWHERE_H
#define NOVA_KVM_NOWHERE_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

struct evbuffer;

/* The last message of a receiver that has everything: SHUT, no error. */
#define KVM_NOWHERE_SHUT_BYTES 8
extern const uint8_t kvm_nowhere_shut[KVM_NOWHERE_SHUT_BYTES];

/* {name: bytes in use} of QEMU's memory blocks, out of x-query-ramblock's text for people; new reference, empty if it has none. */
json_t *kvm_nowhere_blocks(const char *text);
/* Answer what is whole in the buffer, by what blocks there are. 0: more must come; 1: all was said, what comes now is of no
 * interest (and is drained); -1: no recovering QEMU talks like this, or of a block that there is not. */
int kvm_nowhere_talk(const json_t *blocks, struct evbuffer *in, struct evbuffer *out);

#endif
