/* SPDX-License-Identifier: Apache-2.0
 *
 * qemu.c - one QEMU: its process, its QMP connection and its log.
 *
 * QEMU is started in a session of its own and outlives us; we know it by pid and start time and watch it
 * through a pidfd. Its QMP socket appears some 100 ms after exec and has no way to tell us: we try every
 * 10 ms, for 30 s at most, while the process lives. One that is lost later is tried as long as it lives. Everything said to a monitor passes kvm_qmp(), which
 * knows the only commands this driver uses.
 */
#include "kvm.h"
#include "engine/clock.h"

#include <assert.h>
#include <event2/event.h>
#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#define RETRY_MS 10
#define AGAIN_FIRST_MS 250 /* after a monitor that had answered was lost; doubled each time */
#define AGAIN_MOST_MS 30000
#define LOG_TAIL_BYTES 2048

/* ---- the monitor ---------------------------------------------------------------------------------- */

/* What this driver ever says to a QEMU. Nothing here runs programs on the host or opens a URI of a caller. */
static const char *const allowed[] = {
	"balloon",
	"block-dirty-bitmap-remove",
	"block-export-add",
	"block-job-cancel",
	"blockdev-add",
	"blockdev-backup",
	"blockdev-del",
	"blockdev-mirror",
	"blockdev-snapshot-sync",
	"calc-dirty-rate",
	"closefd",
	"cont",
	"device_add",
	"device_del",
	"getfd",
	"job-dismiss",
	"migrate",
	"migrate-continue",
	"migrate-incoming",
	"migrate-recover",
	"migrate-set-capabilities",
	"migrate-set-parameters",
	"migrate-start-postcopy",
	"migrate_cancel",
	"nbd-server-start",
	"nbd-server-stop",
	"object-add",
	"object-del",
	"pmemsave",
	"qom-get",
	"query-balloon",
	"query-block",
	"query-block-jobs",
	"query-blockstats",
	"query-chardev",
	"query-cpu-definitions",
	"query-cpus-fast",
	"query-dirty-rate",
	"query-hotpluggable-cpus",
	"query-jobs",
	"query-kvm",
	"query-machines",
	"query-memory-devices",
	"query-memory-size-summary",
	"query-migrate",
	"query-migrate-capabilities",
	"query-migrate-parameters",
	"query-name",
	"query-named-block-nodes",
	"query-status",
	"query-uuid",
	"query-version",
	"quit",
	"set-action",
	"snapshot-load",
	"snapshot-save",
	"stop",
	"system_powerdown",
	"transaction",
	"x-query-ramblock",
};

bool kvm_qmp_allowed(const char *command)
{
	for (size_t i = 0; i < sizeof(allowed) / sizeof(*allowed); i++)
		if (strcmp(allowed[i], command) == 0)
			return true;
	return false;
}

/* A destination in postcopy may be deaf to all other commands: whoever holds its big lock waits for a page. */
static bool is_out_of_band(const char *command)
{
	return strcmp(command, "migrate-recover") == 0;
}

struct nova_op *kvm_qmp_fd(struct kvm_qemu *qemu, const char *command, json_t *args, int fd, nova_done_fn done,
    void *arg, struct nova_error *err)
{
	const struct qmp_call call = { .fd = fd, .oob = is_out_of_band(command) };

	assert(kvm_qmp_allowed(command));
	if (!qemu->qmp) {
		json_decref(args);
		nova_error_set(err, NOVA_LINK, "no connection to QEMU's monitor %s", qemu->path);
		return NULL;
	}
	return qmp_execute(qemu->qmp, command, args, &call, done, arg, err);
}

struct nova_op *kvm_qmp(struct kvm_qemu *qemu, const char *command, json_t *args, nova_done_fn done,
    void *arg, struct nova_error *err)
{
	return kvm_qmp_fd(qemu, command, args, 0, done, arg, err);
}

static void monitor_ready(void *arg, json_t *greeting)
{
	struct kvm_qemu *qemu = arg;

	qemu->was_ready = true;
	qemu->again_ms = 0;
	qemu->events->ready(qemu->arg);
}

static void monitor_event(void *arg, const char *name, json_t *data)
{
	struct kvm_qemu *qemu = arg;

	qemu->events->event(qemu->arg, name, data);
}

static void retry_later(struct kvm_qemu *qemu, int ms)
{
	struct timeval delay = nova_timeval_ms(ms);

	event_add(qemu->retry, &delay);
}

/* Told once, however many attempts to come back fail. Who is told may release the QEMU. */
static void monitor_lost(struct kvm_qemu *qemu, const struct nova_error *why)
{
	bool told = qemu->again_ms != 0;

	if (qemu->was_ready) {
		qemu->again_ms = !told ? AGAIN_FIRST_MS : qemu->again_ms < AGAIN_MOST_MS / 2 ? 2 * qemu->again_ms : AGAIN_MOST_MS;
		retry_later(qemu, qemu->again_ms);
	}
	if (!told)
		qemu->events->lost(qemu->arg, why);
}

static void monitor_closed(void *arg, const struct nova_error *err)
{
	struct kvm_qemu *qemu = arg;
	struct nova_error why = *err; /* freeing the client may take *err with it */

	qemu->qmp = qmp_client_free(qemu->qmp);
	if (qemu->gone) {
		qemu->events->exited(qemu->arg, &qemu->how);
		return;
	}
	/* An adopted QEMU whose monitor belongs to somebody else will not change its mind. */
	if (!qemu->was_ready && why.category == NOVA_LINK && nova_now_ms() < qemu->connect_until_ms) {
		retry_later(qemu, RETRY_MS);
		return;
	}
	monitor_lost(qemu, &why);
}

static const struct qmp_events monitor_events = {
	.ready = monitor_ready,
	.event = monitor_event,
	.closed = monitor_closed,
};

static int monitor_open(struct kvm_qemu *qemu, struct nova_error *err)
{
	struct qmp_limits limits = { .greeting_ms = KVM_START_LIMIT_MS };

	/* One that is still starting may be slow to greet; one that ran before is not. */
	if (qemu->connect_until_ms == 0)
		limits.greeting_ms = 0;
	qemu->qmp = qmp_client_new(qemu->kvm->env.base, qemu->path, &limits, &monitor_events, qemu, err);
	return qemu->qmp ? 0 : -1;
}

static void monitor_retry(evutil_socket_t fd, short what, void *arg)
{
	struct kvm_qemu *qemu = arg;
	struct nova_error err;

	if (monitor_open(qemu, &err) < 0)
		monitor_lost(qemu, &err);
}

static int monitor_at(struct kvm_qemu *qemu, const char *path, struct nova_error *err)
{
	if (strlen(path) >= sizeof(qemu->path))
		return nova_error_set(err, NOVA_INVALID,
		    "socket path %s has %zu bytes, at most %zu are possible", path, strlen(path),
		    sizeof(qemu->path) - 1);
	memmove(qemu->path, path, strlen(path) + 1);
	if (!qemu->retry)
		qemu->retry = event_new(qemu->kvm->env.base, -1, 0, monitor_retry, qemu);
	return qemu->retry ? 0 : nova_error_sys(err, ENOMEM, "no memory for a timer");
}

int kvm_qemu_connect(struct kvm_qemu *qemu, const char *path, int limit_ms, struct nova_error *err)
{
	if (monitor_at(qemu, path, err) < 0)
		return -1;
	qemu->connect_until_ms = limit_ms ? nova_now_ms() + limit_ms : 0;
	return monitor_open(qemu, err);
}

int kvm_qemu_take(struct kvm_qemu *qemu, const char *path, int fd, struct nova_error *err)
{
	NOVA_AUTOCLOSE int taken = fd;

	if (monitor_at(qemu, path, err) < 0)
		return -1;
	qemu->connect_until_ms = 0;
	qemu->qmp = qmp_client_take(qemu->kvm->env.base, nova_take_fd(&taken), qemu->path, NULL, &monitor_events, qemu, err);
	return qemu->qmp ? 0 : -1;
}

/* ---- the process ---------------------------------------------------------------------------------- */

struct kvm_dying {
	struct kvm *kvm;
	struct nova_process *watch;
	struct kvm_dying *next;
};

static void dying_gone(void *arg, const struct nova_exit *how)
{
	struct kvm_dying *dying = arg, **at = &dying->kvm->dying;

	while (*at != dying)
		at = &(*at)->next;
	*at = dying->next;
	nova_process_unwatch(dying->watch);
	free(dying);
}

/* A killed child must be watched to its end or it stays a zombie. */
static void see_it_die(struct kvm_qemu *qemu)
{
	struct kvm_dying *dying = calloc(1, sizeof(*dying));

	if (!dying)
		return;
	dying->kvm = qemu->kvm;
	dying->watch =
	    nova_process_watch(qemu->kvm->env.base, qemu->pid, qemu->start_time, dying_gone, dying, NULL);
	if (!dying->watch) {
		free(dying);
		return;
	}
	dying->next = qemu->kvm->dying;
	qemu->kvm->dying = dying;
}

void kvm_qemu_forget_dying(struct kvm *kvm)
{
	while (kvm->dying) {
		struct kvm_dying *dying = kvm->dying;

		kvm->dying = dying->next;
		nova_process_unwatch(dying->watch);
		free(dying);
	}
}

void kvm_qemu_init(struct kvm_qemu *qemu, struct kvm *kvm, const struct kvm_qemu_events *events, void *arg)
{
	memset(qemu, 0, sizeof(*qemu));
	qemu->kvm = kvm;
	qemu->events = events;
	qemu->arg = arg;
}

void kvm_qemu_release(struct kvm_qemu *qemu)
{
	if (qemu->retry)
		event_free(nova_take(&qemu->retry));
	qemu->qmp = qmp_client_free(qemu->qmp);
	if (qemu->watch) {
		qemu->watch = nova_process_unwatch(qemu->watch);
		if (qemu->killed)
			see_it_die(qemu);
	}
	qemu->pid = 0;
	qemu->start_time = 0;
	qemu->killed = false;
	qemu->gone = false;
}

/* Told when its monitor is read to the end as well, so that nobody waits for an answer any more. */
static void process_gone(void *arg, const struct nova_exit *how)
{
	struct kvm_qemu *qemu = arg;

	qemu->how = *how;
	qemu->gone = true;
	qemu->watch = nova_process_unwatch(qemu->watch);
	if (qemu->retry)
		event_del(qemu->retry);
	if (!qemu->qmp)
		qemu->events->exited(qemu->arg, &qemu->how);
}

int kvm_qemu_watch(struct kvm_qemu *qemu, pid_t pid, uint64_t start_time, struct nova_error *err)
{
	qemu->watch = nova_process_watch(qemu->kvm->env.base, pid, start_time, process_gone, qemu, err);
	if (!qemu->watch)
		return -1;
	qemu->pid = pid;
	qemu->start_time = start_time;
	return 0;
}

int kvm_user_ids(const char *name, uid_t *uid, gid_t *gid, struct nova_error *err)
{
	struct passwd *user = getpwnam(name);

	if (!user)
		return nova_error_set(
		    err, NOVA_INVALID, "no user %s on this host (configuration qemu-user)", name);
	*uid = user->pw_uid;
	*gid = user->pw_gid;
	return 0;
}

/* Whom the configuration wants QEMU to be. */
static int become(const struct kvm *kvm, struct nova_child_options *options, struct nova_error *err)
{
	const char *name = kvm_config_text(kvm, "qemu-user");

	if (!name || !*name)
		return 0;
	options->become = true;
	return kvm_user_ids(name, &options->uid, &options->gid, err);
}

int kvm_qemu_spawn(struct kvm_qemu *qemu, char *const argv[], const char *log_path, struct nova_error *err)
{
	struct nova_child_options options = { .no_new_privs = true };
	uint64_t start_time;
	pid_t pid;

	if (become(qemu->kvm, &options, err) < 0)
		return -1;
	if (nova_child_spawn((const char *const *)argv, &options, log_path, &pid, &start_time, err) < 0)
		return -1;
	if (kvm_qemu_watch(qemu, pid, start_time, err) < 0) {
		kill(pid, SIGKILL); /* our own child, not yet waited for: the pid cannot be another's */
		return -1;
	}
	return 0;
}

void kvm_qemu_kill(struct kvm_qemu *qemu)
{
	if (!qemu->watch)
		return;
	qemu->killed = true;
	nova_process_signal(qemu->watch, SIGKILL, NULL);
}

/* ---- the log -------------------------------------------------------------------------------------- */

void kvm_log_tail(const char *path, char *text, size_t size)
{
	char bytes[LOG_TAIL_BYTES + 1];
	NOVA_AUTOCLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	struct stat st;
	ssize_t got = 0;
	size_t used = 0, start;

	*text = 0;
	if (fd < 0 || fstat(fd, &st) < 0)
		return;
	got = pread(fd, bytes, LOG_TAIL_BYTES, st.st_size > LOG_TAIL_BYTES ? st.st_size - LOG_TAIL_BYTES : 0);
	while (got > 0 && (bytes[got - 1] == '\n' || bytes[got - 1] == ' '))
		got--;
	if (got <= 0)
		return;
	start = (size_t)got > size / 2 ? (size_t)got - size / 2 : 0;
	for (size_t i = start; i < (size_t)got && used + 3 < size; i++) {
		if (bytes[i] == '\n') {
			text[used++] = ';';
			text[used++] = ' ';
		} else if ((unsigned char)bytes[i] >= ' ' && (unsigned char)bytes[i] < 127) {
			text[used++] = bytes[i];
		}
	}
	text[used] = 0;
}
