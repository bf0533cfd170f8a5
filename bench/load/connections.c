// SPDX-License-Identifier: BSD-3-Clause
// New TCP connections as fast as they go, one thread at each end.
//
//     connections serve ADDRESS FIRST_PORT PORTS
//     connections drive ADDRESS FIRST_PORT PORTS AT_ONCE SECONDS
//
// A connection counts when an octet of the server's has come through it. Then the client resets it, so that neither end
// remembers it and its ports are free again. "drive" prints a JSON object.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define EVENTS 256

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000000ULL + now.tv_nsec;
}

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static void watch(int poll, int socket, uint32_t events)
{
	struct epoll_event event = { .events = events, .data.fd = socket };

	if (epoll_ctl(poll, EPOLL_CTL_ADD, socket, &event))
		fail("epoll_ctl");
}

static struct sockaddr_in place(const char *address, int port)
{
	struct sockaddr_in made = { .sin_family = AF_INET, .sin_port = htons(port) };

	if (!inet_aton(address, &made.sin_addr))
		fail(address);
	return made;
}

static void answer(int poll, int listening)
{
	int accepted;

	while ((accepted = accept4(listening, 0, 0, SOCK_NONBLOCK)) >= 0) {
		if (send(accepted, "!", 1, MSG_NOSIGNAL) == 1)
			watch(poll, accepted, EPOLLIN | EPOLLRDHUP);
		else
			close(accepted);
	}
}

static _Noreturn void serve(const char *address, int first, int ports)
{
	struct epoll_event events[EVENTS];
	int poll = epoll_create1(0), one = 1, last = 0;

	for (int at = 0; at < ports; at++) {
		struct sockaddr_in local = place(address, first + at);
		int listening = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);

		setsockopt(listening, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
		if (bind(listening, (void *)&local, sizeof(local)) || listen(listening, 4096))
			fail("listen");
		watch(poll, listening, EPOLLIN);
		last = listening;
	}
	printf("ready\n");
	fflush(stdout);
	for (;;) {
		int found = epoll_wait(poll, events, EVENTS, -1);

		for (int at = 0; at < found; at++) {
			if (events[at].data.fd <= last)
				answer(poll, events[at].data.fd);
			else
				close(events[at].data.fd);
		}
	}
}

struct client {
	const char *address;
	int poll, first, ports, next;
	uint64_t made, failed;
};

static void begin(struct client *client)
{
	struct sockaddr_in remote = place(client->address, client->first + client->next++ % client->ports);
	struct linger reset = { .l_onoff = 1 };
	int made = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);

	setsockopt(made, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
	if (connect(made, (void *)&remote, sizeof(remote)) && errno != EINPROGRESS)
		fail("connect");
	watch(client->poll, made, EPOLLIN);
}

static void drive(struct client *client, int at_once, double seconds)
{
	uint64_t start = now_ns(), end = start + seconds * 1e9;
	struct epoll_event events[EVENTS];
	char octet;

	client->poll = epoll_create1(0);
	for (int at = 0; at < at_once; at++)
		begin(client);
	while (now_ns() < end) {
		int found = epoll_wait(client->poll, events, EVENTS, 100);

		for (int at = 0; at < found; at++) {
			if (recv(events[at].data.fd, &octet, 1, 0) == 1)
				client->made++;
			else
				client->failed++;
			close(events[at].data.fd);
			begin(client);
		}
	}
	printf("{\"made\": %lu, \"failed\": %lu, \"seconds\": %.6f}\n", client->made, client->failed,
	       (now_ns() - start) / 1e9);
}

int main(int count, char **words)
{
	struct rlimit files = { 1 << 16, 1 << 16 };

	setrlimit(RLIMIT_NOFILE, &files);
	if (count == 5 && !strcmp(words[1], "serve"))
		serve(words[2], atoi(words[3]), atoi(words[4]));
	if (count == 7 && !strcmp(words[1], "drive")) {
		struct client client = { .address = words[2], .first = atoi(words[3]), .ports = atoi(words[4]) };

		drive(&client, atoi(words[5]), atof(words[6]));
		return 0;
	}
	fprintf(stderr, "see the source\n");
	return 2;
}
