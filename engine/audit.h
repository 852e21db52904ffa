/* SPDX-License-Identifier: Apache-2.0
 *
 * audit.h - who did what, and how it ended: append-only files of JSON lines, each with the SHA-256 of the
 * line before it. A removed, changed or reordered line breaks the chain; the newest lines of the newest
 * file can only be cut off, which shows when a later line or a copy of the last hash is at hand.
 *
 * Files are STATE_DIR/audit/audit.N.log, N counting up; the newest is written. The first line of a file
 * continues the chain of the one before.
 */
#ifndef NOVA_AUDIT_H
#define NOVA_AUDIT_H

#include "novacron.h"

#define NOVA_AUDIT_FILE_BYTES (16u << 20) /* a new file is begun past this */
#define NOVA_AUDIT_FILES 64               /* older ones are deleted */
#define NOVA_AUDIT_LINE_BYTES 16384       /* longest line: arguments are cut to fit */

struct nova_audit;

/* Makes the directory (0700). A line torn by a crash is closed off and said so in the next line. */
struct nova_audit *nova_audit_open(const char *state_dir, struct nova_error *err);
struct nova_audit *nova_audit_close(struct nova_audit *audit);
/* record (stolen) is an object; seq, time and prev are added. One write(2): a kill -9 tears at most it. */
int nova_audit_append(struct nova_audit *audit, json_t *record, struct nova_error *err);

/* Read every file. The answer (the caller's): {files, lines, first, last, last_hash, torn, ok, problems:[text]}.
 * Works on a directory of a daemon that runs or not. */
json_t *nova_audit_verify(const char *state_dir, struct nova_error *err);
/* The newest `count` lines, oldest first, as an array (the caller's). */
json_t *nova_audit_show(const char *state_dir, size_t count, struct nova_error *err);

#endif
