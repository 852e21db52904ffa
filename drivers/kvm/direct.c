/* SPDX-License-Identifier: Apache-2.0
 *
 * direct.c - the direct path: QEMU's own multifd migration over TLS, from one QEMU to the other.
 *
 * Both QEMUs get x509 credentials made of the daemon's certificate, key and CA. QEMU reads them from files, so
 * copies lie in the guest's private directory for as long as "object-add" takes, and no longer; the QEMU process
 * itself knows the key from then on, until it ends. The source's QEMU checks that the destination's certificate
 * is for the peer's name (tls-hostname); the destination's takes only the certificate whose subject the source's
 * daemon told over the authenticated session (authz-list). The port is any free one of the listening address.
 *
 * Not here: page compression (the path is for links on which it costs more than it gains), a digest of the
 * stream (it does not pass us; TLS protects it on its way), postcopy, resumption of a lost connection.
 */
#include "kvm.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/bio.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define CREDENTIALS "nova-tls"
#define AUTHORITY "nova-authz"
#define CHANNELS 2
#define FILE_MOST (256 * 1024)
#define SUBJECT_MOST 512

bool kvm_direct(const struct kvm_task *task)
{
	return json_is_object(json_object_get(task->args, "direct"));
}

static const json_t *direct_args(const struct kvm_task *task)
{
	return json_object_get(task->args, "direct");
}

/* ---- who we are ----------------------------------------------------------------------------------- */

static json_t *subject(const X509 *certificate, unsigned long flags)
{
	BIO *memory = BIO_new(BIO_s_mem());
	json_t *text = NULL;
	char *data;
	long length;

	if (memory && X509_NAME_print_ex(memory, X509_get_subject_name(certificate), 0, flags) >= 0 &&
	    (length = BIO_get_mem_data(memory, &data)) > 0 && length < SUBJECT_MOST)
		text = json_stringn(data, (size_t)length);
	BIO_free(memory);
	return text;
}

json_t *kvm_direct_identity(const struct kvm *kvm, struct nova_error *err)
{
	const char *path = kvm_config_text(kvm, "cert");
	FILE *file = path ? fopen(path, "re") : NULL;
	X509 *certificate = file ? PEM_read_X509(file, NULL, NULL, NULL) : NULL;
	json_t *subjects = json_array();

	if (file)
		fclose(file);
	if (certificate) {
		/* TLS libraries do not agree on which end comes first. */
		json_array_append_new(subjects, subject(certificate, XN_FLAG_RFC2253));
		json_array_append_new(subjects, subject(certificate, XN_FLAG_RFC2253 & ~(unsigned long)XN_FLAG_DN_REV));
	}
	X509_free(certificate);
	if (json_array_size(subjects))
		return json_pack("{s:o}", "subjects", subjects);
	json_decref(subjects);
	nova_error_set(err, NOVA_STATE, "the direct path takes a certificate with a subject: %s has none", path ?: "(cert is not set)");
	return NULL;
}

/* ---- files, for a moment -------------------------------------------------------------------------- */

static const struct {
	const char *option, *server, *client; /* of the configuration; QEMU's names */
} files[] = {
	{ "ca", "ca-cert.pem", "ca-cert.pem" },
	{ "cert", "server-cert.pem", "client-cert.pem" },
	{ "key", "server-key.pem", "client-key.pem" },
};

static bool is_server(const struct kvm_task *task)
{
	return json_is_true(json_object_get(task->notes, "incoming"));
}

static int file_path(const struct kvm_task *task, size_t i, char path[PATH_MAX], struct nova_error *err)
{
	return kvm_guest_socket(task->kvm, task->guest->name, is_server(task) ? files[i].server : files[i].client, path,
	    PATH_MAX, err);
}

static void remove_files(const struct kvm_task *task)
{
	char path[PATH_MAX];

	for (size_t i = 0; i < sizeof(files) / sizeof(*files); i++)
		if (file_path(task, i, path, NULL) == 0)
			unlink(path);
}

/* The copy belongs to whom the directory belongs to: the user that QEMU runs as. */
static int copy_file(const char *from, const char *to, const struct stat *home, struct nova_error *err)
{
	NOVA_AUTOFREE char *data = malloc(FILE_MOST);
	NOVA_AUTOCLOSE int in = open(from, O_RDONLY | O_CLOEXEC);
	NOVA_AUTOCLOSE int out = -1;
	ssize_t n;

	if (!data || in < 0 || (n = read(in, data, FILE_MOST)) < 0)
		return nova_error_sys(err, errno, "cannot read %s", from);
	unlink(to);
	out = open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (out < 0 || write(out, data, (size_t)n) != n || fchown(out, home->st_uid, home->st_gid) < 0)
		return nova_error_sys(err, errno, "cannot write %s", to);
	explicit_bzero(data, (size_t)n);
	return 0;
}

static int write_files(const struct kvm_task *task, char home[PATH_MAX], struct nova_error *err)
{
	struct stat owner;

	if (kvm_guest_home(task->kvm, task->guest->name, home, PATH_MAX, err) < 0)
		return -1;
	if (stat(home, &owner) < 0)
		return nova_error_sys(err, errno, "%s", home);
	for (size_t i = 0; i < sizeof(files) / sizeof(*files); i++) {
		const char *from = kvm_config_text(task->kvm, files[i].option);
		char to[PATH_MAX];

		if (!from)
			return nova_error_set(err, NOVA_STATE, "the direct path takes %s in the configuration", files[i].option);
		if (file_path(task, i, to, err) < 0 || copy_file(from, to, &owner, err) < 0)
			return -1;
	}
	return 0;
}

/* ---- credentials in QEMU ---------------------------------------------------------------------------- */

static enum nova_step_result authority_added(struct kvm_task *task, json_t *value, struct nova_error *err)
{
	return NOVA_STEP_DONE;
}

static json_t *rules(const json_t *subjects)
{
	json_t *rules = json_array(), *subject;
	size_t i;

	json_array_foreach (subjects, i, subject)
		json_array_append_new(rules, json_pack("{s:O,s:s,s:s}", "match", subject, "policy", "allow", "format", "exact"));
	return rules;
}

static enum nova_step_result add_authority(struct kvm_task *task, json_t *value, struct nova_error *err)
{
	const json_t *subjects = json_object_get(direct_args(task), "subjects");

	return kvm_task_qmp(task, "object-add",
	    json_pack("{s:s,s:s,s:s,s:o}", "qom-type", "authz-list", "id", AUTHORITY, "policy", "deny", "rules", rules(subjects)),
	    authority_added, err);
}

static enum nova_step_result credentials_added(struct kvm_task *task, json_t *value, struct nova_error *err)
{
	remove_files(task);
	if (!is_server(task))
		return NOVA_STEP_DONE;
	return kvm_task_try(task, "object-del", json_pack("{s:s}", "id", AUTHORITY), add_authority, err);
}

static enum nova_step_result add_credentials(struct kvm_task *task, json_t *value, struct nova_error *err)
{
	char home[PATH_MAX];

	if (write_files(task, home, err) < 0)
		return NOVA_STEP_FAILED;
	return kvm_task_qmp(task, "object-add",
	    json_pack("{s:s,s:s,s:s,s:s,s:b}", "qom-type", "tls-creds-x509", "id", CREDENTIALS, "dir", home, "endpoint",
		is_server(task) ? "server" : "client", "verify-peer", 1),
	    credentials_added, err);
}

enum nova_step_result kvm_direct_credentials(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct kvm_task *task = ctx;

	if (!kvm_direct(task))
		return NOVA_STEP_DONE;
	/* Those of an earlier migration, perhaps for the other end. */
	return kvm_task_try(task, "object-del", json_pack("{s:s}", "id", CREDENTIALS), add_credentials, err);
}

enum nova_step_result kvm_direct_forget(struct nova_run *run, void *ctx, struct nova_error *err)
{
	remove_files(ctx);
	return NOVA_STEP_DONE;
}

/* ---- parameters ------------------------------------------------------------------------------------- */

/* Also on the relay's path: what an earlier direct migration left would hold otherwise. */
void kvm_direct_parameters(const struct kvm_task *task, json_t *parameters)
{
	const char *peer = kvm_spec_text(direct_args(task), "peer");
	json_t *cap = json_object_get(direct_args(task), "bandwidth_bytes_per_s");

	json_object_set_new(parameters, "tls-creds", json_string(kvm_direct(task) ? CREDENTIALS : ""));
	json_object_set_new(parameters, "tls-hostname", json_string(kvm_direct(task) && peer ? peer : ""));
	json_object_set_new(parameters, "tls-authz", json_string(kvm_direct(task) && is_server(task) ? AUTHORITY : ""));
	if (!kvm_direct(task))
		return;
	json_object_set_new(parameters, "multifd-channels", json_integer(CHANNELS));
	json_object_set_new(parameters, "multifd-compression", json_string("none"));
	if (cap)
		json_object_set(parameters, "max-bandwidth", cap);
}

json_t *kvm_direct_uri(const struct kvm_task *task, struct nova_error *err)
{
	const char *host = kvm_spec_text(direct_args(task), "host");
	json_int_t port = kvm_spec_int(direct_args(task), "port");

	if (host && port > 0 && port < 65536)
		return json_sprintf(strchr(host, ':') ? "tcp:[%s]:%d" : "tcp:%s:%d", host, (int)port);
	nova_error_set(err, NOVA_INVALID, "direct: host and port of the waiting QEMU are missing");
	return NULL;
}

/* ---- listening ---------------------------------------------------------------------------------------- */

/* The address that peers reach this daemon at, with any free port. */
json_t *kvm_direct_listen_uri(const struct kvm_task *task, struct nova_error *err)
{
	const json_t *listen = kvm_config(task->kvm, "listen");
	const char *address = json_string_value(json_is_array(listen) ? json_array_get(listen, 0) : listen);
	const char *colon = address ? strrchr(address, ':') : NULL;

	if (colon)
		return json_sprintf("tcp:%.*s:0", (int)(colon - address), address);
	nova_error_set(err, NOVA_STATE, "the direct path takes a listening address (listen) of this host");
	return NULL;
}

static enum nova_step_result port_known(struct kvm_task *task, json_t *value, struct nova_error *err)
{
	json_t *address = json_array_get(json_object_get(value, "socket-address"), 0);
	const char *port = kvm_spec_text(address, "port");
	int number = port ? atoi(port) : 0;

	if (number <= 0 || number > 65535) {
		nova_error_set(err, NOVA_REFUSED, "QEMU does not say which port it listens on");
		return NOVA_STEP_FAILED;
	}
	json_object_set_new(task->result, "direct", json_pack("{s:i}", "port", number));
	return NOVA_STEP_DONE;
}

enum nova_step_result kvm_direct_port(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct kvm_task *task = ctx;

	return kvm_direct(task) ? kvm_task_qmp(task, "query-migrate", NULL, port_known, err) : NOVA_STEP_DONE;
}
