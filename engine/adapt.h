/* SPDX-License-Identifier: Apache-2.0
 *
 * adapt.h - which codec makes the stream leave soonest. Logic only: it is told what was measured, and when.
 */
#ifndef NOVA_ADAPT_H
#define NOVA_ADAPT_H

#include "codec.h"

#define NOVA_ADAPT_LOG_MAX 256u /* choices remembered; of more, the oldest go */

struct nova_adapt;

struct nova_adapt *nova_adapt_new(struct nova_error *err);
struct nova_adapt *nova_adapt_free(struct nova_adapt *adapt);
/* The part of one core that encoding and sending may take, 0.05 to 1; 0: the default. */
void nova_adapt_cpu_share(struct nova_adapt *adapt, double share);
/* A body of that many bytes became packed bytes in ns nanoseconds of processor time, with the codec chosen. */
void nova_adapt_block(struct nova_adapt *adapt, size_t body, size_t packed, uint64_t ns);
/* A block left with the codec chosen: for the log. */
void nova_adapt_sent(struct nova_adapt *adapt, size_t raw, size_t packed);
/* The part of the time we wanted to run but waited for a processor, 0 to 1: others need it, too. */
void nova_adapt_starved(struct nova_adapt *adapt, double part);
/* The link took that many bytes a second. queue_full: there always was more to send, so that is what it can
 * do; otherwise it can do at least that. Then the choice is made again; true: it changed. */
bool nova_adapt_link(struct nova_adapt *adapt, uint64_t now_ms, double bytes_per_second, bool queue_full);
void nova_adapt_choice(const struct nova_adapt *adapt, enum nova_codec *codec, int *level);
const struct nova_codec_choice *nova_adapt_log(const struct nova_adapt *adapt, size_t *count);

#endif
