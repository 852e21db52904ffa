/* SPDX-License-Identifier: Apache-2.0
 *
 * free_port.c - print a TCP port that is free at an address, for daemons that must know each other's port
 * before either runs. The caller picks an address of 127.0.0.0/8 that nobody else uses, so that nobody
 * takes the port meanwhile.
 *
 *	free_port ADDRESS
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <sys/socket.h>

int main(int argc, char **argv)
{
	struct sockaddr_in address = { .sin_family = AF_INET };
	socklen_t length = sizeof(address);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (argc != 2 || inet_pton(AF_INET, argv[1], &address.sin_addr) != 1) {
		fprintf(stderr, "usage: free_port ADDRESS\n");
		return 2;
	}
	if (fd < 0 || bind(fd, (struct sockaddr *)&address, length) < 0 ||
	    getsockname(fd, (struct sockaddr *)&address, &length) < 0) {
		perror(argv[1]);
		return 1;
	}
	printf("%d\n", ntohs(address.sin_port));
	return 0;
}
