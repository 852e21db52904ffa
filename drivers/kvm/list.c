/* SPDX-License-Identifier: Apache-2.0
 *
 * list.c - QEMUs on this host, ours or not: LIST.
 *
 * A process is a QEMU if the name it was started under says so. What can be adopted has a QMP unix socket.
 * Command lines are read up to 128 KiB.
 */
#include "kvm.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#define CMDLINE_MAX (128 * 1024)

/* ---- command lines -------------------------------------------------------------------------------- */

static bool is_qemu(const char *program)
{
	const char *slash = strrchr(program, '/');
	const char *name = slash ? slash + 1 : program;

	return strncmp(name, "qemu-system-", 12) == 0 || strcmp(name, "qemu-kvm") == 0 ||
	       strcmp(name, "kvm") == 0;
}

static ssize_t read_all(int fd, char *bytes, size_t size)
{
	size_t used = 0;
	ssize_t got;

	while (used < size && (got = read(fd, bytes + used, size - used)) > 0)
		used += (size_t)got;
	return (ssize_t)used;
}

static int split(struct kvm_seen *seen, size_t length)
{
	size_t count = 0;

	for (size_t i = 0; i < length; i++)
		count += !seen->bytes[i];
	seen->word = calloc(count + 1, sizeof(*seen->word));
	if (!seen->word)
		return -1;
	for (char *at = seen->bytes; seen->count < count; at += strlen(at) + 1)
		seen->word[seen->count++] = at;
	return 0;
}

int kvm_seen_read(struct kvm_seen *seen, pid_t pid, struct nova_error *err)
{
	char path[64];
	NOVA_AUTOCLOSE int fd = -1;
	ssize_t length;

	memset(seen, 0, sizeof(*seen));
	snprintf(path, sizeof(path), "/proc/%d/cmdline", (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return nova_error_sys(err, errno, "process %d", (int)pid);
	seen->pid = pid;
	seen->bytes = calloc(1, CMDLINE_MAX + 1);
	if (!seen->bytes)
		return nova_error_sys(err, ENOMEM, "process %d", (int)pid);
	length = read_all(fd, seen->bytes, CMDLINE_MAX);
	if (length > 0 && is_qemu(seen->bytes) && split(seen, (size_t)length) == 0)
		seen->start_time = nova_process_start_time(pid, NULL);
	if (seen->start_time)
		return 0;
	kvm_seen_release(seen);
	return nova_error_set(err, NOVA_INVALID, "process %d is no QEMU", (int)pid);
}

void kvm_seen_release(struct kvm_seen *seen)
{
	free(seen->bytes);
	free(seen->word);
	memset(seen, 0, sizeof(*seen));
}

const char *kvm_seen_option(const struct kvm_seen *seen, const char *option)
{
	for (size_t i = 1; i + 1 < seen->count; i++)
		if (strcmp(seen->word[i], option) == 0)
			return seen->word[i + 1];
	return NULL;
}

/* One "name=value" or the first word, up to a comma that is not doubled. */
static const char *next_word(const char *text, char *word, size_t size)
{
	size_t used = 0;

	for (; *text; text++) {
		if (*text == ',' && *++text != ',')
			break;
		if (used + 1 < size)
			word[used++] = *text;
	}
	word[used] = 0;
	return text;
}

json_t *kvm_option_words(const char *text)
{
	json_t *object = json_object();
	char word[PATH_MAX];
	bool first = true;

	while (*text) {
		char *equals;

		text = next_word(text, word, sizeof(word));
		equals = strchr(word, '=');
		if (equals)
			*equals++ = 0;
		if (equals || !first)
			json_object_set_new(object, word, json_string(equals ?: "on"));
		else
			json_object_set_new(object, "", json_string(word));
		first = false;
	}
	return object;
}

/* "-chardev socket,id=X,path=P" of "-mon chardev=X,mode=control", as libvirt does it. */
static void qmp_of_chardev(const struct kvm_seen *seen, char *path, size_t size)
{
	const char *mon = kvm_seen_option(seen, "-mon");
	NOVA_AUTOJSON json_t *monitor = mon ? kvm_option_words(mon) : NULL;
	const char *id = kvm_spec_text(monitor, "chardev");

	if (!id || strcmp(kvm_spec_text(monitor, "mode") ?: "", "control") != 0)
		return;
	for (size_t i = 1; i + 1 < seen->count; i++) {
		NOVA_AUTOJSON json_t *chardev = NULL;

		if (strcmp(seen->word[i], "-chardev") != 0)
			continue;
		chardev = kvm_option_words(seen->word[i + 1]);
		if (strcmp(kvm_spec_text(chardev, "id") ?: "", id) == 0)
			snprintf(path, size, "%s", kvm_spec_text(chardev, "path") ?: "");
	}
}

void kvm_seen_qmp(const struct kvm_seen *seen, char *path, size_t size)
{
	const char *qmp = kvm_seen_option(seen, "-qmp");

	*path = 0;
	if (qmp && strncmp(qmp, "unix:", 5) == 0)
		next_word(qmp + 5, path, size);
	else if (!qmp)
		qmp_of_chardev(seen, path, size);
}

void kvm_seen_each(bool (*visit)(void *arg, const struct kvm_seen *seen), void *arg)
{
	DIR *proc = opendir("/proc");
	struct dirent *entry;
	bool found = false;

	while (proc && !found && (entry = readdir(proc))) {
		struct kvm_seen seen;
		int pid = atoi(entry->d_name);

		if (pid <= 0 || kvm_seen_read(&seen, pid, NULL) < 0)
			continue;
		found = visit(arg, &seen);
		kvm_seen_release(&seen);
	}
	if (proc)
		closedir(proc);
}

/* ---- LIST ----------------------------------------------------------------------------------------- */

struct listing {
	struct kvm *kvm;
	json_t *list;
};

static bool is_ours(const struct kvm *kvm, const char *qmp)
{
	char guests[PATH_MAX];
	int length = snprintf(guests, sizeof(guests), "%s/guests/", kvm->env.runtime_dir);

	return length > 0 && (size_t)length < sizeof(guests) && strncmp(qmp, guests, (size_t)length) == 0;
}

static bool list_one(void *arg, const struct kvm_seen *seen)
{
	struct listing *listing = arg;
	const char *name_option = kvm_seen_option(seen, "-name"), *uuid = kvm_seen_option(seen, "-uuid");
	const char *machine = kvm_seen_option(seen, "-M");
	NOVA_AUTOJSON json_t *words = name_option ? kvm_option_words(name_option) : NULL;
	const char *name = kvm_spec_text(words, "guest") ?: kvm_spec_text(words, "");
	char qmp[PATH_MAX];
	bool ours;
	json_t *entry;

	if (machine && strcmp(machine, "none") == 0)
		return false; /* somebody asks it what it can do */
	kvm_seen_qmp(seen, qmp, sizeof(qmp));
	ours = is_ours(listing->kvm, qmp);
	entry = json_pack("{s:s,s:i,s:I,s:b}", "name", name ?: "", "pid", (int)seen->pid, "start_time",
	    (json_int_t)seen->start_time, "ours", ours);
	if (uuid)
		json_object_set_new(entry, "uuid", json_string(uuid));
	if (*qmp)
		json_object_set_new(entry, "qmp", json_string(qmp));
	if (!ours)
		json_object_set_new(
		    entry, "adoptable", *qmp ? json_true() : json_string("it has no QMP unix socket"));
	json_array_append_new(listing->list, entry);
	return false;
}

KVM_VERB(list)
{
	struct kvm *kvm = self;
	struct listing listing = { kvm, json_array() };

	kvm_seen_each(list_one, &listing);
	return nova_op_later(kvm->env.base, listing.list, NULL, done, arg, err);
}
