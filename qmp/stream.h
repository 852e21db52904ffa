/* SPDX-License-Identifier: Apache-2.0
 *
 * stream.h - tells guest pages from other bytes in QEMU's migration stream. A hint for the codec, never a
 * truth.
 */
#ifndef QMP_STREAM_H
#define QMP_STREAM_H

#include "engine/codec.h"

extern const struct nova_scanner_ops qmp_stream_scanner;

#endif
