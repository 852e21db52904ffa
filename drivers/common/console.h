/* SPDX-License-Identifier: Apache-2.0
 *
 * console.h - LOGS of containers whose output goes to a file.
 */
#ifndef NOVA_DRIVER_CONSOLE_H
#define NOVA_DRIVER_CONSOLE_H

#include "engine/novacron.h"

#define CONSOLE_MAX (256u << 10) /* bytes of the file's end that are looked at */

/* The last lines (0: 100) of a file as {text, cut}; a file that is not there is empty. Bytes above 127 are '?'. New
 * reference, or NULL and the reason. */
json_t *console_read(const char *path, int64_t lines, struct nova_error *err);

#endif
