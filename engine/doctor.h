/* SPDX-License-Identifier: Apache-2.0
 *
 * doctor.h - what the parts of `novacron doctor` share: doctor.c runs the checks and asks drivers and peers,
 * doctor_config.c looks at certificates, roles and the configuration, doctor_host.c at the machine.
 */
#ifndef NOVA_DOCTOR_H
#define NOVA_DOCTOR_H

#include "host.h"

enum nova_severity { NOVA_FINE, NOVA_NOTE, NOVA_WARN, NOVA_BAD };

struct nova_doctor {
	struct nova_host *host; /* borrowed */
	json_t *findings;       /* owned: array of {check, severity, text, advice?} */
	enum nova_severity worst;
};

/* One finding. advice: what to do; NULL: nothing is to be done. */
void nova_doctor_say(struct nova_doctor *doctor, enum nova_severity severity, const char *check, const char *advice,
    const char *format, ...) __attribute__((format(printf, 5, 6)));

typedef void (*nova_check_fn)(struct nova_doctor *doctor);
extern const nova_check_fn nova_config_checks[], nova_host_checks[]; /* end with NULL */

#endif
