/* SPDX-License-Identifier: Apache-2.0
 *
 * novacrond.c - the daemon of one host: a configuration, an event loop and the engine on it.
 *
 * Options are the rows of the configuration plus the few below; a row given on the command line goes over
 * the configuration file, lists add to it. SIGTERM and SIGINT end the daemon, guests run on. SIGHUP does
 * nothing: a terminal that closes does not end it, and there is no file to reopen.
 * Not here: everything the daemon does (the library), the log format (notify.c).
 */
#include "config.h"
#include "tools/args.h"
#include "tools/complete.h"
#include "tools/exitcode.h"
#include "tools/help.h"
#include "tools/notify.h"
#include <malloc.h>
#include <event2/event.h>
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#define DEFAULT_CONFIG SYSCONFDIR "/novacron/novacrond.conf"

static const struct nova_param own_params[] = {
	{ .name = "config",
	    .type = NOVA_T_PATH,
	    .metavar = "FILE",
	    .help = "read the configuration from here instead of " DEFAULT_CONFIG },
	{ .name = "check",
	    .type = NOVA_T_BOOL,
	    .help = "validate the configuration, print it as it takes effect, and end" },
	{ .name = "ready-fd",
	    .type = NOVA_T_INT,
	    .min = 1,
	    .max = 1048576,
	    .metavar = "FD",
	    .help = "when ready, write {\"port\":N,\"control\":PATH} and a line end to this descriptor and "
	            "close it" },
	{ .name = "help", .type = NOVA_T_BOOL, .help = "print this text and end" },
	{ .name = "version", .type = NOVA_T_BOOL, .help = "print the version and end" },
	{ 0 },
};

static const struct nova_param hidden_params[] = {
	{ .name = "man", .type = NOVA_T_BOOL, .help = "fill the manual page's template from standard input" },
	{ 0 },
};

struct daemon {
	struct nova_config *config;
	json_t *options; /* what own_params and hidden_params were given */
	enum nova_log_level level;
	struct event_base *base;
	struct nova_host *host;
	struct event *signals[3];
};

static bool wants(const struct daemon *daemon, const char *name)
{
	return json_is_true(json_object_get(daemon->options, name));
}

static int set_config(void *arg, const char *name, const char *text, struct nova_error *err)
{
	return nova_config_set(arg, name, text, err);
}

static int skip_config(void *arg, const char *name, const char *text, struct nova_error *err)
{
	return 0;
}

/* First only our own options, since --config says what comes below the others; then those over it. */
static int read_options(
    struct daemon *daemon, char *const *words, int count, bool configure, struct nova_error *err)
{
	size_t config_count;
	const struct nova_param *config_params = nova_config_params(&config_count);
	struct arg_group groups[] = {
		{ own_params, args_count(own_params), daemon->options },
		{ hidden_params, args_count(hidden_params), daemon->options },
		{ config_params, config_count, NULL, configure ? set_config : skip_config, daemon->config },
	};

	return args_parse(groups, 3, words, count, false, err) < 0 ? -1 : 0;
}

static int configure(struct daemon *daemon, char *const *words, int count, struct nova_error *err)
{
	const char *path = json_string_value(json_object_get(daemon->options, "config"));

	if (!path && access(DEFAULT_CONFIG, F_OK) == 0)
		path = DEFAULT_CONFIG;
	if (path && nova_config_load(daemon->config, path, err) < 0)
		return -1;
	return read_options(daemon, words, count, true, err);
}

static void print_value(const struct nova_param *param, const json_t *value)
{
	printf("%s = ", param->name);
	if (json_is_string(value))
		fputs(json_string_value(value), stdout);
	else if (json_is_integer(value))
		help_number(stdout, param->type, json_integer_value(value));
	else
		fputs(json_is_true(value) ? "yes" : "no", stdout);
	putchar('\n');
}

/* A section takes the lines below it, so these come last. */
static void print_peers(const json_t *peers)
{
	const char *name;
	json_t *peer, *address;
	size_t i;

	json_object_foreach ((json_t *)peers, name, peer) {
		printf("\n[peer %s]\n", name);
		json_array_foreach (json_object_get(peer, "address"), i, address)
			printf("address = %s\n", json_string_value(address));
		printf(
		    "certificate-name = %s\n", json_string_value(json_object_get(peer, "certificate-name")));
	}
}

static void print_owners(const json_t *owners)
{
	const char *name, *limit;
	json_t *owner, *value;

	json_object_foreach ((json_t *)owners, name, owner) {
		printf("\n[owner %s]\n", name);
		json_object_foreach (owner, limit, value)
			printf("%s = %" JSON_INTEGER_FORMAT "\n", limit, json_integer_value(value));
	}
}

/* In the form of a configuration file, so that it can be one. */
static int print_config(const struct nova_config *config)
{
	size_t count, index;
	const struct nova_param *params = nova_config_params(&count);
	json_t *item;

	for (size_t i = 0; i < count; i++) {
		const json_t *value = nova_config_get(config, params[i].name);
		if (!strcmp(params[i].name, "peer") || !strcmp(params[i].name, "owner"))
			continue;
		if (!value)
			printf("# %s is not set\n", params[i].name);
		else if (json_is_array(value))
			json_array_foreach (value, index, item)
				print_value(&params[i], item);
		else
			print_value(&params[i], value);
	}
	print_peers(nova_config_get(config, "peers"));
	print_owners(nova_config_get(config, "owners"));
	return fflush(stdout) ? 1 : 0;
}

static enum nova_log_level log_level(const struct nova_config *config)
{
	static const char *const names[] = { "error", "warning", "info", "debug" };
	const char *name = json_string_value(nova_config_get(config, "log-level"));

	for (size_t i = 0; name && i < sizeof(names) / sizeof(names[0]); i++)
		if (!strcmp(names[i], name))
			return (enum nova_log_level)i;
	return NOVA_LOG_INFO;
}

static int man_section(FILE *out, const char *name)
{
	size_t count;
	const struct nova_param *params = nova_config_params(&count);

	if (!strcmp(name, "OPTIONS"))
		help_man_params(out, own_params, args_count(own_params), false);
	else if (!strcmp(name, "CONFIG-OPTIONS"))
		help_man_params(out, params, count, false);
	else if (!strcmp(name, "CONFIG"))
		help_man_params(out, params, count, true);
	else if (!strcmp(name, "EXIT"))
		exit_man(out);
	else
		return -1;
	return 0;
}

static int print_help(void)
{
	size_t count;
	const struct nova_param *params = nova_config_params(&count);

	puts("usage: novacrond [options]\n\nThe daemon of one host: owns or adopts its guests and migrates "
	     "them.");
	help_params(stdout, "options", own_params, args_count(own_params));
	help_params(stdout, "configuration, also as \"name = value\" lines of the file", params, count);
	return fflush(stdout) ? 1 : 0;
}

static void on_end(evutil_socket_t signal_number, short what, void *arg)
{
	struct daemon *daemon = arg;
	char line[64];

	snprintf(line, sizeof(line), "novacrond: %s: ending, guests run on", strsignal((int)signal_number));
	notify_log(&daemon->level, NOVA_LOG_INFO, line);
	notify_systemd("STOPPING=1");
	event_base_loopexit(daemon->base, NULL);
}

static void on_hangup(evutil_socket_t signal_number, short what, void *arg)
{
}

static int open_loop(struct daemon *daemon, struct nova_error *err)
{
	static const struct {
		int number;
		event_callback_fn handler;
	} table[] = { { SIGTERM, on_end }, { SIGINT, on_end }, { SIGHUP, on_hangup } };
	struct event_config *config = event_config_new();

	if (config) {
		event_config_set_flag(config, EVENT_BASE_FLAG_NOLOCK);
		event_config_set_flag(config, EVENT_BASE_FLAG_PRECISE_TIMER);
		daemon->base = event_base_new_with_config(config);
		event_config_free(config);
	}
	if (!daemon->base)
		return nova_error_sys(err, errno, "no event loop could be made");
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		daemon->signals[i] = evsignal_new(daemon->base, table[i].number, table[i].handler, daemon);
		if (!daemon->signals[i] || event_add(daemon->signals[i], NULL) < 0)
			return nova_error_set(
			    err, NOVA_SYSTEM, "signal %d could not be watched", table[i].number);
	}
	return 0;
}

/* The first address as it was configured, with the port that was really bound. */
static void describe_listening(const struct nova_config *config, int port, char *text, size_t size)
{
	const char *address = json_string_value(json_array_get(nova_config_get(config, "listen"), 0));
	const char *colon = address ? strrchr(address, ':') : NULL;

	snprintf(text, size, "listening on %.*s:%d", colon ? (int)(colon - address) : 0,
	    address ? address : "", port);
}

static int announce(struct daemon *daemon, struct nova_error *err)
{
	int port = nova_host_port(daemon->host);
	const char *control = nova_host_control_path(daemon->host);
	json_t *ready_fd = json_object_get(daemon->options, "ready-fd");
	char line[512], listening[256] = "not listening for peers";

	if (port)
		describe_listening(daemon->config, port, listening, sizeof(listening));
	snprintf(line, sizeof(line), "novacrond: ready, control socket %s, %s", control ? control : "none",
	    listening);
	notify_log(&daemon->level, NOVA_LOG_INFO, line);
	notify_systemd("READY=1");
	return ready_fd ? notify_fd((int)json_integer_value(ready_fd), port, control, err) : 0;
}

static int serve(struct daemon *daemon, struct nova_error *err)
{
	struct rlimit files;

	/* Every guest and every link takes descriptors; the soft limit is made for programs that use
	 * select(). */
	if (getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur < files.rlim_max) {
		files.rlim_cur = files.rlim_max;
		setrlimit(RLIMIT_NOFILE, &files);
	}
	signal(SIGPIPE, SIG_IGN);
	umask(0077); /* also for the sockets that guests' processes make */
	if (open_loop(daemon, err) < 0)
		return -1;
	daemon->host = nova_host_new(daemon->base, daemon->config, notify_log, &daemon->level, err);
	if (!daemon->host || announce(daemon, err) < 0)
		return -1;
	if (event_base_dispatch(daemon->base) < 0)
		return nova_error_set(err, NOVA_SYSTEM, "the event loop failed");
	return 0;
}

static int run(struct daemon *daemon, int argc, char **argv, struct nova_error *err)
{
	if (argc > 1 && !strcmp(argv[1], "--complete")) {
		size_t count;
		const struct nova_param *params = nova_config_params(&count);
		const struct arg_group groups[] = { { own_params, args_count(own_params) },
			{ params, count } };
		return complete_options(stdout, groups, 2, argv + 2, argc - 2, NULL, NULL);
	}
	if (read_options(daemon, argv + 1, argc - 1, false, err) < 0)
		return -1;
	if (wants(daemon, "help"))
		return print_help();
	if (wants(daemon, "version"))
		return puts("novacrond " PACKAGE_VERSION) < 0;
	if (wants(daemon, "man"))
		return help_man_page(stdin, stdout, PACKAGE_VERSION, man_section) < 0;
	if (configure(daemon, argv + 1, argc - 1, err) < 0)
		return -1;
	daemon->level = log_level(daemon->config);
	return wants(daemon, "check") ? print_config(daemon->config) : serve(daemon, err);
}

/* Messages come and go by the thousand: glibc would give the heap back and fault it in again for each. */
static void keep_heap(void)
{
	mallopt(M_TRIM_THRESHOLD, 64 << 20);
	mallopt(M_MMAP_THRESHOLD, 4 << 20);
}

int main(int argc, char **argv)
{
	struct daemon daemon = {
		.config = nova_config_new(), .options = json_object(), .level = NOVA_LOG_INFO
	};
	struct nova_error err = { 0 };
	int status;

	keep_heap();
	status = daemon.config && daemon.options ? run(&daemon, argc, argv, &err) : 1;

	nova_host_free(daemon.host);
	for (size_t i = 0; i < sizeof(daemon.signals) / sizeof(daemon.signals[0]); i++)
		if (daemon.signals[i])
			event_free(daemon.signals[i]);
	if (daemon.base)
		event_base_free(daemon.base);
	nova_config_free(daemon.config);
	json_decref(daemon.options);
	if (status >= 0)
		return status;
	fprintf(stderr, "novacrond: %s\n", err.text);
	return exit_of(err.category);
}
