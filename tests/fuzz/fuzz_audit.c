/* SPDX-License-Identifier: Apache-2.0
 *
 * fuzz_audit.c - any bytes as an audit log that a daemon finds. Beyond not crashing: it can be verified and shown; a
 * daemon goes on after it, and the line it appends is the last one shown.
 */
#include "engine/audit.h"
#include "engine/cleanup.h"
#include "scratch.h"

static void append_one(const char *dir)
{
	struct nova_error err = { 0 };
	struct nova_audit *audit = nova_audit_open(dir, &err);
	NOVA_AUTOJSON json_t *shown = NULL;
	json_t *last;

	if (!audit) {
		require(err.text[0], "a refusal has a reason");
		return;
	}
	require(nova_audit_append(audit, json_pack("{s:s}", "command", "fuzz"), &err) == 0, "a line can be appended");
	nova_audit_close(audit);
	shown = nova_audit_show(dir, 1, &err);
	last = json_array_get(shown, 0);
	require(last && !strcmp(json_string_value(json_object_get(last, "command")) ?: "", "fuzz"), "it is the last line");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char dir[128], path[160];
	struct nova_error err = { 0 };
	NOVA_AUTOJSON json_t *verified = NULL, *shown = NULL;

	snprintf(dir, sizeof(dir), "%s/audit", scratch());
	mkdir(dir, 0700);
	snprintf(path, sizeof(path), "%s/audit.1.log", dir);
	scratch_write(path, data, size);
	verified = nova_audit_verify(scratch(), &err);
	require(verified || err.text[0], "a refusal has a reason");
	shown = nova_audit_show(scratch(), 5, &err);
	append_one(scratch());
	return 0;
}
