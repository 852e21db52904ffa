/* SPDX-License-Identifier: Apache-2.0
 *
 * doctor.c - `novacron doctor`: is this host fit for what its configuration asks of it? Each check says what it found and,
 * where something is to be done, what. Drivers and peers are asked as by `drivers` and `peers`, at most 5 s.
 *
 * Nothing is changed and nothing is kept open; /dev/kvm and a userfaultfd are opened for a moment.
 */
#include "doctor.h"
#include "cleanup.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const char *const severities[] = { "ok", "note", "warning", "error" };

struct visit {
	struct nova_op op;
	struct nova_doctor doctor;
	struct nova_identity who;
	struct nova_op *asking; /* owned */
	nova_done_fn done;
	void *arg;
};

void nova_doctor_say(struct nova_doctor *doctor, enum nova_severity severity, const char *check, const char *advice,
    const char *format, ...)
{
	char text[600];
	va_list ap;

	va_start(ap, format);
	vsnprintf(text, sizeof(text), format, ap);
	va_end(ap);
	if (severity > doctor->worst)
		doctor->worst = severity;
	json_array_append_new(doctor->findings,
	    json_pack("{s:s, s:s, s:s, s:s*}", "severity", severities[severity], "check", check, "found", text, "advice", advice));
}

static void visit_free(struct visit *visit)
{
	nova_op_drop(visit->asking);
	json_decref(visit->doctor.findings);
	free(visit);
}

static void visit_drop(struct nova_op *op)
{
	visit_free((struct visit *)op);
}

static void visit_end(struct visit *visit)
{
	nova_done_fn done = visit->done;
	void *arg = visit->arg;
	json_t *answer = json_pack("{s:b, s:s, s:O}", "ok", visit->doctor.worst < NOVA_WARN, "worst",
	    severities[visit->doctor.worst], "findings", visit->doctor.findings);

	visit_free(visit);
	done(arg, answer, NULL);
	json_decref(answer);
}

/* ---- peers ---- */

static void say_peer(struct nova_doctor *doctor, json_t *peer)
{
	const char *name = json_string_value(json_object_get(peer, "name"));
	const char *why = json_string_value(json_object_get(peer, "why"));
	const char *version = json_string_value(json_object_get(json_object_get(peer, "about"), "version"));

	if (json_is_true(json_object_get(peer, "answers")))
		nova_doctor_say(doctor, NOVA_FINE, "peers", NULL, "%s answers in %lld us, version %s", name,
		    (long long)json_integer_value(json_object_get(peer, "rtt_us")), version ? version : "unknown");
	else
		nova_doctor_say(doctor, NOVA_WARN, "peers",
		    "see that novacrond runs there and listens, that no firewall is between, and that each knows the other's certificate-name",
		    "%s does not answer: %s", name, why ? why : "no reason is known");
}

static void peers_asked(void *arg, json_t *result, const struct nova_error *err)
{
	struct visit *visit = arg;
	json_t *peer;
	size_t i;

	visit->asking = NULL;
	json_array_foreach (result, i, peer)
		say_peer(&visit->doctor, peer);
	if (err)
		nova_doctor_say(&visit->doctor, NOVA_WARN, "peers", NULL, "peers could not be asked: %s", err->text);
	else if (json_array_size(result) == 0)
		nova_doctor_say(&visit->doctor, NOVA_NOTE, "peers", "add [peer NAME] sections to move guests", "no peer is configured");
	visit_end(visit);
}

static void ask_peers(struct visit *visit)
{
	struct nova_error err;

	visit->asking = nova_cmd_peers(visit->doctor.host, &visit->who, NULL, peers_asked, visit, &err);
	if (!visit->asking)
		peers_asked(visit, NULL, &err);
}

/* ---- drivers ---- */

static void say_driver(struct nova_doctor *doctor, json_t *driver)
{
	const char *name = json_string_value(json_object_get(driver, "name")), *text, *verb;
	json_t *verbs = json_object_get(driver, "verbs"), *value;

	if (!json_is_true(json_object_get(driver, "found"))) {
		text = json_string_value(json_object_get(driver, "why"));
		nova_doctor_say(doctor, NOVA_NOTE, "drivers", "install its runtime if you mean to use it", "%s: not usable here: %s",
		    name, text ? text : "no reason is known");
		return;
	}
	text = json_string_value(json_object_get(driver, "version"));
	nova_doctor_say(doctor, NOVA_FINE, "drivers", NULL, "%s: version %s", name, text ? text : "unknown");
	json_object_foreach (verbs, verb, value)
		if (json_is_string(value))
			nova_doctor_say(doctor, NOVA_NOTE, "drivers", NULL, "%s cannot %s: %s", name, verb, json_string_value(value));
}

static void drivers_asked(void *arg, json_t *result, const struct nova_error *err)
{
	struct visit *visit = arg;
	json_t *driver;
	size_t i;

	visit->asking = NULL;
	json_array_foreach (result, i, driver)
		say_driver(&visit->doctor, driver);
	if (err)
		nova_doctor_say(&visit->doctor, NOVA_WARN, "drivers", NULL, "drivers could not be asked: %s", err->text);
	ask_peers(visit);
}

struct nova_op *nova_cmd_doctor(struct nova_host *host, const struct nova_identity *who, json_t *args, nova_done_fn done,
    void *arg, struct nova_error *err)
{
	struct visit *visit = calloc(1, sizeof(*visit));

	if (!visit) {
		nova_error_sys(err, ENOMEM, "doctor");
		return NULL;
	}
	*visit = (struct visit){ .op.drop = visit_drop, .doctor = { .host = host, .findings = json_array() }, .who = *who,
		.done = done, .arg = arg };
	for (const nova_check_fn *check = nova_config_checks; *check; check++)
		(*check)(&visit->doctor);
	for (const nova_check_fn *check = nova_host_checks; *check; check++)
		(*check)(&visit->doctor);
	visit->asking = nova_cmd_drivers(host, who, NULL, drivers_asked, visit, err);
	if (visit->asking)
		return &visit->op;
	visit_free(visit);
	return NULL;
}
