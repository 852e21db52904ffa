/* SPDX-License-Identifier: Apache-2.0
 *
 * transport.h - sessions over mutual TLS: the implementation of engine/flow.h.
 *
 * PROTOCOL.md has the bytes.
 */
#ifndef NOVA_TRANSPORT_H
#define NOVA_TRANSPORT_H

#include "flow.h"

extern const struct nova_link_ops nova_tls_links;

#endif
