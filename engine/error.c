/* SPDX-License-Identifier: Apache-2.0
 *
 * error.c - errors are values: a category that says what the caller does next, and one line of text.
 * No allocation; texts longer than the buffer are cut.
 */
#include "novacron.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

static const char *const category_names[] = {
	"ok", "invalid", "state", "refused", "link", "timeout", "cancelled", "system",
};
static_assert(sizeof(category_names) / sizeof(*category_names) == NOVA_CATEGORIES, "a name for each category");

const char *nova_category_name(enum nova_category category)
{
	return (unsigned)category < NOVA_CATEGORIES ? category_names[category] : "unknown";
}

/* Bytes of a well-formed UTF-8 character at text, 0 if it is not one. Overlong forms pass: this is for show. */
static size_t character(const unsigned char *text)
{
	size_t length = text[0] < 0x80 ? 1 : text[0] >= 0xc2 && text[0] < 0xe0 ? 2 : (text[0] & 0xf0) == 0xe0 ? 3 :
	    text[0] >= 0xf0 && text[0] < 0xf5 ? 4 : 0;

	for (size_t i = 1; i < length; i++)
		if ((text[i] & 0xc0) != 0x80)
			return 0;
	return length;
}

/* What was quoted or cut may end in the middle of a character, or never have been text: it must still go into JSON. */
static void mend(char *text)
{
	while (*text) {
		size_t length = character((unsigned char *)text);

		if (length == 0) {
			*text = '?';
			length = 1;
		}
		text += length;
	}
}

int nova_error_set(struct nova_error *err, enum nova_category category, const char *format, ...)
{
	va_list ap;

	if (!err)
		return -1;
	err->category = category;
	err->errnum = 0;
	va_start(ap, format);
	vsnprintf(err->text, sizeof(err->text), format, ap);
	va_end(ap);
	mend(err->text);
	return -1;
}

int nova_error_sys(struct nova_error *err, int errnum, const char *format, ...)
{
	va_list ap;
	size_t used;

	if (!err)
		return -1;
	err->category = NOVA_SYSTEM;
	err->errnum = errnum;
	va_start(ap, format);
	vsnprintf(err->text, sizeof(err->text), format, ap);
	va_end(ap);
	used = strlen(err->text);
	snprintf(err->text + used, sizeof(err->text) - used, ": %s", strerrordesc_np(errnum) ?: "unknown error");
	mend(err->text);
	return -1;
}

int nova_error_prefix(struct nova_error *err, const char *format, ...)
{
	char tail[sizeof(err->text)];
	va_list ap;
	size_t used;

	if (!err)
		return -1;
	memcpy(tail, err->text, sizeof(tail));
	va_start(ap, format);
	vsnprintf(err->text, sizeof(err->text), format, ap);
	va_end(ap);
	used = strlen(err->text);
	snprintf(err->text + used, sizeof(err->text) - used, ": %s", tail);
	mend(err->text);
	return -1;
}

int nova_error_copy(struct nova_error *to, const struct nova_error *from)
{
	if (to && to != from)
		*to = *from;
	return -1;
}
