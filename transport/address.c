/* SPDX-License-Identifier: Apache-2.0
 *
 * address.c - addresses as text, and sockets of them.
 *
 * Sockets are non-blocking and close-on-exec from birth. Not here: host names (dial.c asks evdns).
 */
#include "address.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"

int address_split(const char *text, char host[256], char port[8], struct nova_error *err)
{
	const char *colon = strrchr(text, ':'), *end = colon;
	char *rest;
	unsigned long number;

	if (text[0] == '[' && colon && colon > text && colon[-1] == ']') {
		text++;
		end = colon - 1;
	} else if (colon && memchr(text, ':', (size_t)(colon - text))) {
		colon = NULL;
	}
	if (!colon || end - text > 255 || strlen(colon + 1) > 5)
		return nova_error_set(err, NOVA_INVALID,
		    "address %s: expected HOST:PORT, IPv6 hosts in brackets, as in [::1]:7654", text);
	number = strtoul(colon + 1, &rest, 10);
	if (colon[1] < '0' || colon[1] > '9' || *rest || number > 65535)
		return nova_error_set(
		    err, NOVA_INVALID, "address %s: the port is a number from 0 to 65535", text);
	memcpy(host, text, (size_t)(end - text));
	host[end - text] = 0;
	snprintf(port, 8, "%lu", number);
	return 0;
}

bool address_numeric(const char *host, const char *port, bool listening, struct address *address)
{
	struct addrinfo hints = {
		.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV | (listening ? AI_PASSIVE : 0),
		.ai_socktype = SOCK_STREAM,
	};
	struct addrinfo *found = NULL;

	if (!*host && !listening)
		return false;
	if (getaddrinfo(*host ? host : NULL, port, &hints, &found) != 0)
		return false;
	memcpy(&address->at, found->ai_addr, found->ai_addrlen);
	address->length = found->ai_addrlen;
	freeaddrinfo(found);
	return true;
}

void address_text(const struct address *address, char text[ADDRESS_TEXT])
{
	char host[64], port[8];

	if (getnameinfo((const struct sockaddr *)&address->at, address->length, host, sizeof(host), port,
	        sizeof(port), NI_NUMERICHOST | NI_NUMERICSERV) != 0)
		snprintf(text, ADDRESS_TEXT, "unknown address");
	else if (address->at.ss_family == AF_INET6)
		snprintf(text, ADDRESS_TEXT, "[%s]:%s", host, port);
	else
		snprintf(text, ADDRESS_TEXT, "%s:%s", host, port);
}

bool address_same_host(const struct address *a, const struct address *b)
{
	if (a->at.ss_family != b->at.ss_family)
		return false;
	if (a->at.ss_family == AF_INET6)
		return memcmp(&((const struct sockaddr_in6 *)&a->at)->sin6_addr,
		           &((const struct sockaddr_in6 *)&b->at)->sin6_addr, 8) == 0;
	return ((const struct sockaddr_in *)&a->at)->sin_addr.s_addr ==
	       ((const struct sockaddr_in *)&b->at)->sin_addr.s_addr;
}

static int stream_socket(const struct address *address)
{
	return socket(address->at.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
}

int address_listen(const struct address *address, struct nova_error *err)
{
	NOVA_AUTOCLOSE int fd = stream_socket(address);
	char text[ADDRESS_TEXT];
	int on = 1;

	address_text(address, text);
	if (fd < 0)
		return nova_error_sys(err, errno, "socket for %s", text);
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (address->at.ss_family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on));
	if (bind(fd, (const struct sockaddr *)&address->at, address->length) < 0)
		return nova_error_sys(err, errno, "listen on %s", text);
	if (listen(fd, 128) < 0)
		return nova_error_sys(err, errno, "listen on %s", text);
	return nova_take_fd(&fd);
}

int address_connect(const struct address *address, struct nova_error *err)
{
	NOVA_AUTOCLOSE int fd = stream_socket(address);
	char text[ADDRESS_TEXT];

	if (fd >= 0 && (connect(fd, (const struct sockaddr *)&address->at, address->length) == 0 ||
	                   errno == EINPROGRESS))
		return nova_take_fd(&fd);
	address_text(address, text);
	return nova_error_sys(err, errno, "%s", text);
}
