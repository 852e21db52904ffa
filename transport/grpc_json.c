/* SPDX-License-Identifier: Apache-2.0
 *
 * grpc_json.c - protobuf messages from and to JSON, by protobuf-c's descriptors (grpc_json.h).
 *
 * Messages are built in memory of malloc(), as protobuf-c's own unpacking does, so that its own freeing works.
 * Not here: oneof, groups, required fields of proto2.
 */
#include "transport/grpc_json.h"
#include "engine/cleanup.h"

#include <errno.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

/* ---- bytes ---- */

json_t *grpc_json_bytes(const void *bytes, size_t length)
{
	NOVA_AUTOFREE char *text = malloc(length / 3 * 4 + 5);
	int used = text ? EVP_EncodeBlock((unsigned char *)text, bytes, (int)length) : -1;

	return used < 0 ? NULL : json_stringn(text, (size_t)used);
}

void *grpc_json_data(const json_t *value, size_t *length)
{
	const char *text = json_string_value(value);
	size_t size = json_string_length(value);
	NOVA_AUTOFREE unsigned char *bytes = text && size % 4 == 0 ? malloc(size / 4 * 3 + 1) : NULL;
	int used = bytes ? EVP_DecodeBlock(bytes, (const unsigned char *)text, (int)size) : -1;

	if (used < 0)
		return NULL;
	for (size_t i = 0; i < 2 && i < size && text[size - 1 - i] == '='; i++)
		used--;
	bytes[used] = 0;
	*length = (size_t)used;
	return nova_take(&bytes);
}

/* ---- to messages ---- */

static bool is_map(const ProtobufCFieldDescriptor *field)
{
	const ProtobufCMessageDescriptor *type = field->descriptor;

	return field->label == PROTOBUF_C_LABEL_REPEATED && field->type == PROTOBUF_C_TYPE_MESSAGE && !strcmp(type->short_name, "Pair");
}

static size_t size_of(ProtobufCType type)
{
	switch (type) {
	case PROTOBUF_C_TYPE_INT64:
	case PROTOBUF_C_TYPE_SINT64:
	case PROTOBUF_C_TYPE_SFIXED64:
	case PROTOBUF_C_TYPE_UINT64:
	case PROTOBUF_C_TYPE_FIXED64:
	case PROTOBUF_C_TYPE_DOUBLE:
		return 8;
	case PROTOBUF_C_TYPE_BOOL:
		return sizeof(protobuf_c_boolean);
	case PROTOBUF_C_TYPE_STRING:
	case PROTOBUF_C_TYPE_MESSAGE:
		return sizeof(void *);
	case PROTOBUF_C_TYPE_BYTES:
		return sizeof(ProtobufCBinaryData);
	default:
		return 4;
	}
}

static ProtobufCMessage *build(const ProtobufCMessageDescriptor *type, const json_t *value, struct nova_error *err);

static int put_number(ProtobufCType type, const json_t *value, void *at)
{
	json_int_t number = json_integer_value(value);

	if (type == PROTOBUF_C_TYPE_DOUBLE)
		*(double *)at = json_number_value(value);
	else if (type == PROTOBUF_C_TYPE_FLOAT)
		*(float *)at = (float)json_number_value(value);
	else if (size_of(type) == 8)
		*(int64_t *)at = number;
	else
		*(int32_t *)at = (int32_t)number;
	return json_is_number(value) ? 0 : -1;
}

/* at: all zero, or a default. */
static int put(const ProtobufCFieldDescriptor *field, const json_t *value, void *at, struct nova_error *err)
{
	ProtobufCBinaryData *data = at;

	switch (field->type) {
	case PROTOBUF_C_TYPE_MESSAGE:
		*(void **)at = build(field->descriptor, value, err);
		return *(void **)at ? 0 : nova_error_prefix(err, "%s", field->name);
	case PROTOBUF_C_TYPE_STRING:
		if (!json_is_string(value))
			break;
		*(char **)at = strdup(json_string_value(value));
		return *(char **)at ? 0 : nova_error_sys(err, ENOMEM, "%s", field->name);
	case PROTOBUF_C_TYPE_BYTES:
		data->data = grpc_json_data(value, &data->len);
		if (!data->data)
			break;
		return 0;
	case PROTOBUF_C_TYPE_BOOL:
		*(protobuf_c_boolean *)at = json_is_true(value);
		if (!json_is_boolean(value))
			break;
		return 0;
	default:
		if (put_number(field->type, value, at) < 0)
			break;
		return 0;
	}
	return nova_error_set(err, NOVA_INVALID, "%s: not of its field's type", field->name);
}

/* elements: array, or object of a map. */
static int put_all(ProtobufCMessage *message, const ProtobufCFieldDescriptor *field, json_t *elements, struct nova_error *err)
{
	size_t count = is_map(field) ? json_object_size(elements) : json_array_size(elements), step = size_of(field->type);
	size_t *used = (size_t *)(void *)((char *)message + field->quantifier_offset);
	char *list = count ? calloc(count, step) : NULL;
	const char *key;
	json_t *element;
	size_t i;

	if (!count)
		return 0;
	if (!list)
		return nova_error_sys(err, ENOMEM, "%s", field->name);
	*(void **)(void *)((char *)message + field->offset) = list;
	json_array_foreach (elements, i, element)
		if (put(field, element, list + (*used)++ * step, err) < 0)
			return -1;
	json_object_foreach (elements, key, element) {
		NOVA_AUTOJSON json_t *pair = json_pack("{s:s,s:O}", "key", key, "value", element);

		if (put(field, pair, list + (*used)++ * step, err) < 0)
			return -1;
	}
	return 0;
}

/* What is there is freed by the caller. */
static int fill(ProtobufCMessage *message, const json_t *value, struct nova_error *err)
{
	const ProtobufCMessageDescriptor *type = message->descriptor;
	const char *name;
	json_t *member;

	json_object_foreach ((json_t *)value, name, member) {
		const ProtobufCFieldDescriptor *field = protobuf_c_message_descriptor_get_field_by_name(type, name);
		int rc;

		if (!field)
			return nova_error_set(err, NOVA_INVALID, "%s has no field %.60s", type->name, name);
		rc = field->label == PROTOBUF_C_LABEL_REPEATED ? put_all(message, field, member, err) :
								put(field, member, (char *)message + field->offset, err);
		if (rc < 0)
			return -1;
	}
	return 0;
}

static ProtobufCMessage *build(const ProtobufCMessageDescriptor *type, const json_t *value, struct nova_error *err)
{
	ProtobufCMessage *message = malloc(type->sizeof_message);

	if (!message) {
		nova_error_sys(err, ENOMEM, "%s", type->name);
		return NULL;
	}
	protobuf_c_message_init(type, message);
	if ((!value || json_is_object(value)) && fill(message, value, err) == 0)
		return message;
	if (value && !json_is_object(value))
		nova_error_set(err, NOVA_INVALID, "%s: an object is due", type->name);
	protobuf_c_message_free_unpacked(message, NULL);
	return NULL;
}

void *grpc_json_pack(const ProtobufCMessageDescriptor *type, const json_t *value, size_t *length, struct nova_error *err)
{
	ProtobufCMessage *message = build(type, value, err);
	void *bytes;

	if (!message)
		return NULL;
	*length = protobuf_c_message_get_packed_size(message);
	bytes = malloc(*length + 1);
	if (bytes)
		protobuf_c_message_pack(message, bytes);
	else
		nova_error_sys(err, ENOMEM, "%s", type->name);
	protobuf_c_message_free_unpacked(message, NULL);
	return bytes;
}

/* ---- from messages ---- */

static json_t *take_apart(const ProtobufCMessage *message);

/* Text that is no UTF-8 has '?' for the bytes above 127. */
static json_t *text_of(const char *text)
{
	json_t *value = json_string(text);
	NOVA_AUTOFREE char *copy = value ? NULL : strdup(text);

	for (char *at = copy; at && *at; at++)
		if (*at & 0x80)
			*at = '?';
	return value ? value : json_string(copy ? copy : "");
}

static json_t *number_of(ProtobufCType type, const void *at)
{
	switch (type) {
	case PROTOBUF_C_TYPE_DOUBLE:
		return json_real(*(const double *)at);
	case PROTOBUF_C_TYPE_FLOAT:
		return json_real((double)*(const float *)at);
	case PROTOBUF_C_TYPE_UINT32:
	case PROTOBUF_C_TYPE_FIXED32:
		return json_integer(*(const uint32_t *)at);
	default:
		return json_integer(size_of(type) == 8 ? *(const int64_t *)at : *(const int32_t *)at);
	}
}

/* NULL: it has its default value, which is left out. */
static json_t *get(const ProtobufCFieldDescriptor *field, const void *at, bool always)
{
	const ProtobufCBinaryData *data = at;
	json_t *number;

	switch (field->type) {
	case PROTOBUF_C_TYPE_MESSAGE:
		return *(void *const *)at ? take_apart(*(const ProtobufCMessage *const *)at) : NULL;
	case PROTOBUF_C_TYPE_STRING:
		return always || **(const char *const *)at ? text_of(*(const char *const *)at) : NULL;
	case PROTOBUF_C_TYPE_BYTES:
		return always || data->len ? grpc_json_bytes(data->data, data->len) : NULL;
	case PROTOBUF_C_TYPE_BOOL:
		return always || *(const protobuf_c_boolean *)at ? json_boolean(*(const protobuf_c_boolean *)at) : NULL;
	default:
		number = number_of(field->type, at);
		if (always || json_number_value(number) != 0)
			return number;
		json_decref(number);
		return NULL;
	}
}

static json_t *get_all(const ProtobufCMessage *message, const ProtobufCFieldDescriptor *field)
{
	size_t count = *(const size_t *)(const void *)((const char *)message + field->quantifier_offset);
	const char *list = *(const char *const *)(const void *)((const char *)message + field->offset);
	bool map = is_map(field);
	json_t *all = !count ? NULL : map ? json_object() : json_array();

	for (size_t i = 0; i < count; i++) {
		json_t *one = get(field, list + i * size_of(field->type), true);

		if (map) {
			json_t *value = json_object_get(one, "value");

			json_object_set_new(all, json_string_value(json_object_get(one, "key")) ?: "", value ? json_incref(value) : json_string(""));
			json_decref(one);
		} else {
			json_array_append_new(all, one);
		}
	}
	return all;
}

static json_t *take_apart(const ProtobufCMessage *message)
{
	json_t *value = json_object();

	for (unsigned i = 0; i < message->descriptor->n_fields; i++) {
		const ProtobufCFieldDescriptor *field = &message->descriptor->fields[i];
		json_t *member = field->label == PROTOBUF_C_LABEL_REPEATED ? get_all(message, field) :
									     get(field, (const char *)message + field->offset, false);

		if (member)
			json_object_set_new(value, field->name, member);
	}
	return value;
}

json_t *grpc_json_unpack(const ProtobufCMessageDescriptor *type, const void *bytes, size_t length, struct nova_error *err)
{
	ProtobufCMessage *message = protobuf_c_message_unpack(type, NULL, length, bytes);
	json_t *value;

	if (!message) {
		nova_error_set(err, NOVA_REFUSED, "%zu bytes came that are no %s", length, type->name);
		return NULL;
	}
	value = take_apart(message);
	protobuf_c_message_free_unpacked(message, NULL);
	return value;
}

/* ---- calls ---- */

struct asking {
	struct nova_op op; /* first */
	struct nova_op *call; /* owned */
	const ProtobufCMessageDescriptor *type;
	const char *name;
	json_t *body;         /* owned */
	struct nova_error failure;
	bool failed;
	void (*each)(void *arg, json_t *value);
	void *each_arg;
	nova_done_fn done;
	void *arg;
};

static void asking_free(struct asking *asking)
{
	nova_op_drop(asking->call);
	json_decref(asking->body);
	free(asking);
}

static void asking_drop(struct nova_op *op)
{
	asking_free((struct asking *)op);
}

static void message_came(void *arg, const void *bytes, size_t length)
{
	struct asking *asking = arg;
	json_t *value = asking->failed ? NULL : grpc_json_unpack(asking->type, bytes, length, &asking->failure);

	if (!value) {
		if (!asking->failed)
			nova_error_prefix(&asking->failure, "%s", asking->name);
		asking->failed = true;
		return;
	}
	if (!asking->each) {
		json_decref(asking->body);
		asking->body = value;
		return;
	}
	asking->each(asking->each_arg, value); /* may have dropped us */
	json_decref(value);
}

static void asking_done(void *arg, json_t *result, const struct nova_error *err)
{
	struct asking *asking = arg;
	nova_done_fn done = asking->done;
	void *done_arg = asking->arg;
	struct nova_error failure = asking->failure;
	bool failed = err || asking->failed;

	asking->call = NULL;
	if (err)
		failure = *err;
	if (asking->body && result)
		json_object_set(result, "body", asking->body);
	asking_free(asking);
	done(done_arg, failed ? NULL : result, failed ? &failure : NULL);
}

struct nova_op *grpc_ask(struct grpc *grpc, const struct grpc_method *method, const json_t *request,
    const struct grpc_options *options, nova_done_fn done, void *arg, struct nova_error *err)
{
	struct asking *asking = calloc(1, sizeof(*asking));
	size_t length;
	NOVA_AUTOFREE void *bytes = grpc_json_pack(method->request, request, &length, err);
	struct grpc_call call = {
		.path = method->path, .message = bytes, .length = length, .message_came = message_came, .message_arg = asking,
		.headers = options->headers, .limit_ms = options->limit_ms, .tolerated = options->tolerated, .streaming = options->each != NULL,
	};

	if (!asking)
		nova_error_sys(err, ENOMEM, "%s", grpc_name(grpc));
	if (!asking || !bytes) {
		free(asking);
		return NULL;
	}
	*asking = (struct asking){
		.op.drop = asking_drop, .type = method->answer, .name = grpc_name(grpc), .each = options->each,
		.each_arg = options->each_arg, .done = done, .arg = arg,
	};
	asking->call = grpc_start(grpc, &call, asking_done, asking, err);
	if (asking->call)
		return &asking->op;
	free(asking);
	return NULL;
}
