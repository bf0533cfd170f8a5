/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Requests and responses over one TCP connection, and connections opened and closed; each as fast as answers come.
 *
 *     roundtrip serve PORT
 *     roundtrip ADDRESS PORT SECONDS
 *
 * The client prints one JSON object: how many, median and 99th percentile in microseconds.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "clock.h"
#include "series.h"

#define OCTETS 64
#define MOST 1000000
#define CLIENTS 64

static void fail(const char *what)
{
	fprintf(stderr, "roundtrip: %s: %s\n", what, strerror(errno));
	exit(2);
}

static int open_socket(void)
{
	int yes = 1, made = socket(AF_INET, SOCK_STREAM, 0);

	if (made < 0)
		fail("socket");
	setsockopt(made, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
	setsockopt(made, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof(yes));
	return made;
}

/* Give back whatever comes, to as many as there are. */
static void serve(uint16_t port)
{
	struct sockaddr_in here = { .sin_family = AF_INET, .sin_port = htons(port) };
	struct pollfd polled[1 + CLIENTS];
	int number = 1;
	char octets[4096];

	polled[0] = (struct pollfd){ .fd = open_socket(), .events = POLLIN };
	if (bind(polled[0].fd, (struct sockaddr *)&here, sizeof(here)) || listen(polled[0].fd, CLIENTS))
		fail("listen");
	printf("ready\n");
	fflush(stdout);
	for (;;) {
		if (poll(polled, number, -1) < 0 && errno != EINTR)
			fail("poll");
		for (int at = number - 1; at > 0; at--) {
			ssize_t got = polled[at].revents ? recv(polled[at].fd, octets, sizeof(octets), 0) : 1;

			if (polled[at].revents && got > 0)
				got = send(polled[at].fd, octets, got, MSG_NOSIGNAL);
			if (got <= 0) {
				close(polled[at].fd);
				polled[at] = polled[--number];
			}
		}
		if (polled[0].revents && number < 1 + CLIENTS) {
			int yes = 1, made = accept(polled[0].fd, NULL, NULL);

			if (made < 0)
				fail("accept");
			setsockopt(made, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof(yes));
			polled[number++] = (struct pollfd){ .fd = made, .events = POLLIN };
		}
	}
}

static int connect_to(const struct sockaddr_in *there)
{
	int made = open_socket();

	if (connect(made, (const struct sockaddr *)there, sizeof(*there)))
		fail("connect");
	return made;
}

static void round_trip(int sock)
{
	char octets[OCTETS] = { 0 };

	if (send(sock, octets, OCTETS, 0) != OCTETS || recv(sock, octets, OCTETS, MSG_WAITALL) != OCTETS)
		fail("round trip");
}

/* By a reset: thousands of ports that wait for two minutes each (TIME-WAIT) are not what is measured. */
static void close_at_once(int sock)
{
	struct linger none = { .l_onoff = 1 };

	setsockopt(sock, SOL_SOCKET, SO_LINGER, &none, sizeof(none));
	close(sock);
}

static void measure(const struct sockaddr_in *there, double seconds, struct series *trips, struct series *connections)
{
	int sock = connect_to(there);

	round_trip(sock);
	for (double began = clock_now(), now = began; now < began + seconds && trips->number < MOST;) {
		double sent = now;

		round_trip(sock);
		now = clock_now();
		keep(trips, now - sent);
	}
	close_at_once(sock);
	for (double began = clock_now(), now = began; now < began + seconds / 2 && connections->number < MOST;) {
		double sent = now;

		sock = connect_to(there);
		round_trip(sock);
		now = clock_now();
		keep(connections, now - sent);
		close_at_once(sock);
	}
}

int main(int argc, char **argv)
{
	struct sockaddr_in there = { .sin_family = AF_INET };
	struct series trips = { .values = calloc(MOST, sizeof(float)) };
	struct series connections = { .values = calloc(MOST, sizeof(float)) };

	if (argc == 3 && !strcmp(argv[1], "serve"))
		serve(atoi(argv[2]));
	if (argc != 4 || !inet_aton(argv[1], &there.sin_addr) || !trips.values || !connections.values) {
		fprintf(stderr, "usage: roundtrip serve PORT | roundtrip ADDRESS PORT SECONDS\n");
		return 2;
	}
	there.sin_port = htons(atoi(argv[2]));
	measure(&there, atof(argv[3]), &trips, &connections);
	printf("{");
	print_series("request", &trips);
	print_series("connection", &connections);
	printf("\"unit\": \"ms\"}\n");
	return 0;
}
