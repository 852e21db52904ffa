/* SPDX-License-Identifier: Apache-2.0
 *
 * drivers.h - the drivers that are built in.
 *
 * The array is generated at build time from the list in configure.ac (nova_drivers): a driver NAME is the
 * struct nova_driver_NAME of drivers/NAME/.
 */
#ifndef NOVA_DRIVERS_H
#define NOVA_DRIVERS_H

#include "novacron.h"

extern const struct nova_driver *const nova_drivers[]; /* ends with NULL */

#endif
