/* SPDX-License-Identifier: Apache-2.0
 *
 * transport_pair.h - for tests of links: certificates, endpoints named alpha, beta, ..., a TCP proxy that
 * can be cut or fall silent, and channels that count and check what they carry. Header only.
 */
#ifndef NOVA_TEST_TRANSPORT_PAIR_H
#define NOVA_TEST_TRANSPORT_PAIR_H

#include <arpa/inet.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/listener.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <sys/socket.h>

#include "tests/unit/loop.h"
#include "transport/link.h"

/* ---- certificates ---- */

static inline void cert_extension(X509 *cert, X509 *issuer, int nid, const char *value)
{
	X509_EXTENSION *extension;
	X509V3_CTX ctx;

	X509V3_set_ctx(&ctx, issuer, cert, NULL, NULL, 0);
	extension = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
	assert_non_null(extension);
	X509_add_ext(cert, extension, -1);
	X509_EXTENSION_free(extension);
}

struct authority {
	EVP_PKEY *key;
	X509 *cert;
};

static inline X509 *cert_make(
    EVP_PKEY *key, const char *name, const struct authority *ca, long from_s, long until_s)
{
	static long serial;
	X509 *cert = X509_new();
	X509_NAME *subject = X509_get_subject_name(cert);
	char san[300];

	X509_set_version(cert, 2);
	ASN1_INTEGER_set(X509_get_serialNumber(cert), ++serial);
	X509_gmtime_adj(X509_getm_notBefore(cert), from_s);
	X509_gmtime_adj(X509_getm_notAfter(cert), until_s);
	X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC, (const unsigned char *)name, -1, -1, 0);
	X509_set_issuer_name(cert, ca ? X509_get_subject_name(ca->cert) : subject);
	X509_set_pubkey(cert, key);
	snprintf(san, sizeof(san), "DNS:%s", name);
	if (ca)
		cert_extension(cert, ca->cert, NID_subject_alt_name, san);
	else
		cert_extension(cert, cert, NID_basic_constraints, "critical,CA:TRUE");
	assert_true(X509_sign(cert, ca ? ca->key : key, EVP_sha256()) > 0);
	return cert;
}

static inline void write_pem(
    const struct loop *loop, const char *name, const char *what, X509 *cert, EVP_PKEY *key)
{
	char path[128];
	FILE *file;

	snprintf(path, sizeof(path), "%s/%s.%s", loop->dir, name, what);
	file = fopen(path, "w");
	assert_non_null(file);
	if (key)
		PEM_write_PrivateKey(file, key, NULL, NULL, 0, NULL, NULL);
	else
		PEM_write_X509(file, cert);
	fclose(file);
}

static inline void authority_init(const struct loop *loop, struct authority *ca, const char *name)
{
	ca->key = EVP_EC_gen("P-256");
	ca->cert = cert_make(ca->key, name, NULL, -3600, 36000);
	write_pem(loop, name, "pem", ca->cert, NULL);
}

static inline void authority_release(struct authority *ca)
{
	EVP_PKEY_free(ca->key);
	X509_free(ca->cert);
}

/* FILE.pem and FILE.key, a certificate for `name`. */
static inline void issue(
    const struct loop *loop, const struct authority *ca, const char *file, const char *name, long until_s)
{
	EVP_PKEY *key = EVP_EC_gen("P-256");
	X509 *cert = cert_make(key, name, ca, -7200, until_s);

	write_pem(loop, file, "pem", cert, NULL);
	write_pem(loop, file, "key", NULL, key);
	EVP_PKEY_free(key);
	X509_free(cert);
}

static inline void remove_files(const struct loop *loop)
{
	char command[128];

	snprintf(command, sizeof(command), "rm -f %s/*", loop->dir);
	assert_int_equal(system(command), 0);
}

/* ---- endpoints ---- */

struct end {
	struct loop *loop;
	struct nova_links *links;     /* owned */
	struct nova_session *session; /* the last one: dialled or accepted */
	int accepted, up, closed, reconnecting, resumed, requests, channels;
	int lanes_up, lanes_lost, waited_ms;
	char peer[64];
	struct nova_error why;
	struct nova_channel *channel; /* the last one the peer opened */
	uint16_t channel_id;
	enum nova_channel_kind kind;
	const struct nova_channel_events *channel_events;
	void *channel_arg;
	struct nova_request *held; /* of command "hold" */
	bool refuse_sessions;
	char log[8192];
};

static inline void end_up(void *arg, const char *peer)
{
	struct end *end = arg;

	end->up++;
	snprintf(end->peer, sizeof(end->peer), "%s", peer);
}

static inline void end_request(void *arg, const char *command, json_t *args, struct nova_request *request)
{
	struct end *end = arg;
	struct nova_error no;

	end->requests++;
	if (strcmp(command, "echo") == 0) {
		request_answer(request, json_incref(args), NULL);
	} else if (strcmp(command, "hold") == 0) {
		end->held = request;
	} else {
		nova_error_set(&no, NOVA_REFUSED, "no %s today", command);
		request_answer(request, NULL, &no);
	}
}

static inline void end_channel(
    void *arg, uint16_t id, enum nova_channel_kind kind, struct nova_channel *channel)
{
	struct end *end = arg;

	end->channels++;
	end->channel = channel;
	end->channel_id = id;
	end->kind = kind;
	if (end->channel_events)
		channel_set_events(channel, end->channel_events, end->channel_arg);
}

static inline void end_state(void *arg, const char *state, json_t *data)
{
	struct end *end = arg;

	end->reconnecting += strcmp(state, "reconnecting") == 0;
	end->resumed += strcmp(state, "resumed") == 0;
	end->lanes_up += strcmp(state, "lane up") == 0;
	end->lanes_lost += strcmp(state, "lane lost") == 0;
	if (strcmp(state, "reconnecting") == 0) {
		assert_true(json_is_integer(json_object_get(data, "limit_ms")));
		end->waited_ms = (int)json_integer_value(json_object_get(data, "waited_ms"));
	}
}

static inline void end_closed(void *arg, const struct nova_error *err)
{
	struct end *end = arg;

	end->closed++;
	end->why = *err;
	end->session = session_free(end->session);
}

static const struct nova_session_events end_events = { end_up, end_request, end_channel, end_state,
	end_closed };

static inline void end_accepted(void *arg, struct nova_session *session, const char *peer)
{
	struct end *end = arg;

	end->accepted++;
	if (end->refuse_sessions)
		return;
	end->session = session;
	session_set_events(session, &end_events, end);
}

static inline void end_log(void *arg, enum nova_log_level level, const char *line)
{
	struct end *end = arg;
	size_t used = strlen(end->log);

	if (getenv("VERBOSE"))
		fprintf(stderr, "%p %d %s\n", arg, (int)level, line);
	if (level < NOVA_LOG_DEBUG)
		snprintf(end->log + used, sizeof(end->log) - used, "%s\n", line);
}

/* values (stolen) is completed with the files FILE.pem and FILE.key, and CA.pem. */
static inline struct link_settings end_settings(
    struct loop *loop, const char *file, const char *ca, json_t *values)
{
	struct link_settings settings;
	struct nova_error err;
	char path[128];

	snprintf(path, sizeof(path), "%s/%s.pem", loop->dir, file);
	json_object_set_new(values, "cert", json_string(path));
	snprintf(path, sizeof(path), "%s/%s.key", loop->dir, file);
	json_object_set_new(values, "key", json_string(path));
	snprintf(path, sizeof(path), "%s/%s.pem", loop->dir, ca);
	json_object_set_new(values, "ca", json_string(path));
	if (settings_init(&settings, values, &err) < 0)
		fail_msg("%s", err.text);
	json_decref(values);
	return settings;
}

static inline void end_open(struct end *end, struct loop *loop, struct link_settings *settings)
{
	struct nova_error err;

	memset(end, 0, sizeof(*end));
	end->loop = loop;
	end->links = links_open(loop->base, settings, end_accepted, end_log, end, &err);
	if (!end->links)
		fail_msg("%s", err.text);
}

static inline void end_close(struct end *end)
{
	end->session = session_free(end->session);
	end->links = links_close(end->links);
}

/* ---- a proxy: one TCP hop that can break ---- */

struct proxy {
	struct loop *loop;
	struct evconnlistener *listener;
	int target_port;
	bool ipv6;
	bool silent; /* takes everything, forwards nothing */
	bool refuse; /* closes whoever comes */
	int connections;
	struct hop *hops;
};
struct hop {
	struct hop *next;
	struct proxy *proxy;
	struct bufferevent *side[2];
	bool ending; /* one side has ended: the other gets what is left */
};

static inline void hop_close(struct hop *hop, bool reset)
{
	struct hop **at = &hop->proxy->hops;
	struct linger hard = { 1, 0 };

	while (*at != hop)
		at = &(*at)->next;
	*at = hop->next;
	for (int i = 0; i < 2; i++) {
		if (reset)
			setsockopt(
			    bufferevent_getfd(hop->side[i]), SOL_SOCKET, SO_LINGER, &hard, sizeof(hard));
		bufferevent_free(hop->side[i]);
	}
	free(hop);
}

static inline void hop_read(struct bufferevent *from, void *arg)
{
	struct hop *hop = arg;
	struct bufferevent *to = hop->side[hop->side[0] == from];

	if (hop->proxy->silent)
		return;
	bufferevent_write_buffer(to, bufferevent_get_input(from));
	if (evbuffer_get_length(bufferevent_get_output(to)) > 256 * 1024)
		bufferevent_disable(from, EV_READ);
}

static inline void hop_written(struct bufferevent *to, void *arg)
{
	struct hop *hop = arg;

	if (hop->ending)
		hop_close(hop, false);
	else
		bufferevent_enable(hop->side[hop->side[0] == to], EV_READ);
}

static inline void hop_event(struct bufferevent *side, short what, void *arg)
{
	struct hop *hop = arg;
	struct bufferevent *to = hop->side[hop->side[0] == side];

	if (!(what & (BEV_EVENT_EOF | BEV_EVENT_ERROR)))
		return;
	hop_read(side, hop);
	if (what & BEV_EVENT_ERROR || hop->ending || !evbuffer_get_length(bufferevent_get_output(to))) {
		hop_close(hop, false);
		return;
	}
	hop->ending = true;
	bufferevent_disable(side, EV_READ | EV_WRITE);
	bufferevent_setwatermark(to, EV_WRITE, 0, 0);
}

static inline void proxy_accept(
    struct evconnlistener *listener, evutil_socket_t fd, struct sockaddr *from, int length, void *arg)
{
	struct proxy *proxy = arg;
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons((uint16_t)proxy->target_port) };
	struct hop *hop;

	proxy->connections++;
	if (proxy->refuse) {
		evutil_closesocket(fd);
		return;
	}
	to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	hop = calloc(1, sizeof(*hop));
	hop->proxy = proxy;
	hop->next = proxy->hops;
	proxy->hops = hop;
	hop->side[0] = bufferevent_socket_new(proxy->loop->base, fd, BEV_OPT_CLOSE_ON_FREE);
	hop->side[1] = bufferevent_socket_new(proxy->loop->base, -1, BEV_OPT_CLOSE_ON_FREE);
	for (int i = 0; i < 2; i++) {
		bufferevent_setcb(hop->side[i], hop_read, hop_written, hop_event, hop);
		bufferevent_setwatermark(hop->side[i], EV_WRITE, 64 * 1024, 0);
		bufferevent_enable(hop->side[i], EV_READ | EV_WRITE);
	}
	bufferevent_socket_connect(hop->side[1], (struct sockaddr *)&to, sizeof(to));
}

static inline void proxy_open(struct proxy *proxy, struct loop *loop, int target_port)
{
	struct sockaddr_in any = { .sin_family = AF_INET };

	memset(proxy, 0, sizeof(*proxy));
	proxy->loop = loop;
	proxy->target_port = target_port;
	any.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	proxy->listener = evconnlistener_new_bind(loop->base, proxy_accept, proxy,
	    LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC, 16, (struct sockaddr *)&any, sizeof(any));
	assert_non_null(proxy->listener);
}

static inline int proxy_port(const struct proxy *proxy)
{
	struct sockaddr_in at;
	socklen_t length = sizeof(at);

	getsockname(evconnlistener_get_fd(proxy->listener), (struct sockaddr *)&at, &length);
	return ntohs(at.sin_port);
}

/* Reset every connection. */
static inline void proxy_cut(struct proxy *proxy)
{
	while (proxy->hops)
		hop_close(proxy->hops, true);
}

static inline void proxy_close(struct proxy *proxy)
{
	proxy_cut(proxy);
	evconnlistener_free(proxy->listener);
}

/* ---- a channel that carries a pattern and checks it ---- */

struct flow {
	struct nova_channel *channel;
	uint64_t to_send, sent; /* bytes */
	uint64_t heard, consumed;
	uint64_t seed_out, seed_in;
	size_t message; /* bytes of one; 0: changing sizes */
	bool hold;      /* do not consume */
	bool finish;    /* finish after the last byte */
	int fins, broken, rooms;
	struct nova_error why;
};

static inline uint8_t pattern(uint64_t seed, uint64_t at)
{
	uint64_t x = (at >> 3) + seed * 0x9e3779b97f4a7c15ull;

	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
	return (uint8_t)(x >> (at & 7) * 8);
}

static inline void flow_fill(struct flow *flow)
{
	while (flow->channel && flow->sent < flow->to_send && flow->channel->ops->room(flow->channel)) {
		size_t length =
		    flow->message
		        ?: 1 + (size_t)(flow->sent * 2654435761u >> 7) % (flow->sent % 3 ? 3000 : 200000);
		struct nova_buf *buf;

		if (length > flow->to_send - flow->sent)
			length = flow->to_send - flow->sent;
		buf = nova_buf_new(length);
		for (size_t i = 0; i < length; i++)
			buf->data[i] = pattern(flow->seed_out, flow->sent + i);
		buf->length = (uint32_t)length;
		flow->sent += length;
		flow->channel->ops->send(flow->channel, buf);
		if (flow->sent == flow->to_send && flow->finish)
			flow->channel->ops->finish(flow->channel);
	}
}

static inline void flow_message(void *arg, const uint8_t *data, size_t length)
{
	struct flow *flow = arg;
	size_t wrong = 0;

	for (size_t i = 0; i < length; i++)
		wrong += data[i] != pattern(flow->seed_in, flow->heard + i);
	if (wrong)
		fail_msg(
		    "%zu of %zu bytes are wrong at %llu", wrong, length, (unsigned long long)flow->heard);
	flow->heard += length;
	if (flow->hold)
		return;
	flow->channel->ops->consumed(flow->channel, length);
	flow->consumed += length;
}

static inline void flow_room(void *arg)
{
	struct flow *flow = arg;

	flow->rooms++;
	flow_fill(flow);
}

static inline void flow_closed(void *arg, const struct nova_error *err)
{
	struct flow *flow = arg;

	if (!err) {
		flow->fins++;
		return;
	}
	flow->broken++;
	flow->why = *err;
}

static const struct nova_channel_events flow_events = { flow_message, flow_room, flow_closed };

/* ---- alpha, that dials, and beta, that listens ---- */

struct pair {
	struct loop loop;
	struct authority ca;
	struct end alpha, beta;
};

static inline void pair_init(struct pair *pair)
{
	struct link_settings settings;

	loop_init(&pair->loop);
	authority_init(&pair->loop, &pair->ca, "ca");
	issue(&pair->loop, &pair->ca, "alpha", "alpha", 36000);
	issue(&pair->loop, &pair->ca, "beta", "beta", 36000);
	settings = end_settings(&pair->loop, "beta", "ca",
	    json_pack("{s:[s], s:{s:{}}}", "listen", "127.0.0.1:0", "peers", "alpha"));
	end_open(&pair->beta, &pair->loop, &settings);
}

static inline void pair_dialler(
    struct pair *pair, const char *file, const char *ca, const char *address, const char *name)
{
	struct link_settings settings;

	settings = end_settings(&pair->loop, file, ca,
	    json_pack("{s:{s:{s:[s], s:s}}}", "peers", "beta", "address", address, "certificate-name", name));
	end_open(&pair->alpha, &pair->loop, &settings);
}

static inline void dial(struct end *end, const struct nova_session_options *options)
{
	struct nova_error err;

	end->session = session_dial(end->links, "beta", options, &end_events, end, &err);
	if (!end->session)
		fail_msg("%s", err.text);
}

static inline void pair_connect(struct pair *pair, const struct nova_session_options *options)
{
	char address[64];

	snprintf(address, sizeof(address), "127.0.0.1:%d", links_port(pair->beta.links));
	pair_dialler(pair, "alpha", "ca", address, "beta");
	dial(&pair->alpha, options);
	LOOP_UNTIL(&pair->loop, pair->alpha.up && pair->beta.up);
}

static inline void pair_release(struct pair *pair)
{
	end_close(&pair->alpha);
	end_close(&pair->beta);
	authority_release(&pair->ca);
	remove_files(&pair->loop);
	loop_release(&pair->loop);
}

static const struct nova_session_options plain = { .resume_limit_ms = 0, .lanes = 1 };

static inline void open_flow(
    struct pair *pair, struct flow *at_alpha, struct flow *at_beta, uint16_t id, enum nova_channel_kind kind)
{
	struct nova_error err;
	int before = pair->beta.channels;

	pair->beta.channel_events = &flow_events;
	pair->beta.channel_arg = at_beta;
	at_alpha->seed_out = at_beta->seed_in = id;
	at_alpha->seed_in = at_beta->seed_out = id + 1000u;
	at_alpha->channel = channel_open(pair->alpha.session, id, kind, &flow_events, at_alpha, &err);
	if (!at_alpha->channel)
		fail_msg("%s", err.text);
	LOOP_UNTIL(&pair->loop, pair->beta.channels == before + 1);
	at_beta->channel = pair->beta.channel;
	assert_int_equal(pair->beta.channel_id, id);
	assert_int_equal(pair->beta.kind, kind);
}

#endif
