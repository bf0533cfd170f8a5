/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Counts the hosts that an RSIP gateway tells, unasked, that their registration has ended (RFC 3103 §9.5.3).
 *
 *     told PORT FIRST HOSTS SECONDS
 *
 * The hosts are so many addresses from FIRST on; all of them were heard from PORT, where this listens. It ends when
 * each has been told, or after so many SECONDS, or with SIGTERM, and prints one JSON object: how many were told, messages that were
 * none of these, copies, and when the first and the last came, in seconds since 1970.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "stop.h"

#define BATCH 256
#define LONGEST 512
#define DEREGISTERED 5

static struct {
	struct mmsghdr headers[BATCH];
	struct iovec parts[BATCH];
	uint8_t octets[BATCH][LONGEST];
	union {
		uint8_t octets[CMSG_SPACE(sizeof(struct in_pktinfo))];
		struct cmsghdr aligned;
	} control[BATCH];
} in;

static struct {
	uint64_t told, copies, others;
	double first, last;
} seen;

static uint32_t first_host, hosts;
static uint8_t *told;

static void fail(const char *what)
{
	fprintf(stderr, "told: %s: %s\n", what, strerror(errno));
	exit(2);
}

static double now(void)
{
	struct timespec at;

	clock_gettime(CLOCK_REALTIME, &at);
	return at.tv_sec + at.tv_nsec * 1e-9;
}

static int listen_at(uint16_t port)
{
	int yes = 1, room = 256 << 20, sock = socket(AF_INET, SOCK_DGRAM, 0);
	struct sockaddr_in here = { .sin_family = AF_INET, .sin_port = htons(port) };

	if (sock < 0 || setsockopt(sock, IPPROTO_IP, IP_PKTINFO, &yes, sizeof(yes)) ||
	    setsockopt(sock, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof(room)) ||
	    bind(sock, (struct sockaddr *)&here, sizeof(here)))
		fail("socket");
	for (int at = 0; at < BATCH; at++) {
		in.parts[at] = (struct iovec){ in.octets[at], LONGEST };
		in.headers[at].msg_hdr = (struct msghdr){
			.msg_iov = in.parts + at, .msg_iovlen = 1, .msg_control = &in.control[at]
		};
	}
	return sock;
}

static void take(int at, double when)
{
	struct in_pktinfo *to = (struct in_pktinfo *)CMSG_DATA(&in.control[at].aligned);
	uint32_t number = ntohl(to->ipi_addr.s_addr) - first_host;
	unsigned int length = in.headers[at].msg_len;

	if (length < 4 || in.octets[at][1] != DEREGISTERED || number >= hosts) {
		seen.others++;
	} else if (told[number]) {
		seen.copies++;
	} else {
		told[number] = 1;
		seen.told++;
		seen.last = when;
		if (!seen.first)
			seen.first = when;
	}
}

int main(int argc, char **argv)
{
	double until;
	int sock;

	if (argc != 5) {
		fprintf(stderr, "usage: told PORT FIRST HOSTS SECONDS\n");
		return 2;
	}
	sock = listen_at(atoi(argv[1]));
	first_host = ntohl(inet_addr(argv[2]));
	hosts = atoi(argv[3]);
	told = calloc(hosts, 1);
	if (!told)
		fail("memory");
	signal(SIGTERM, stop);
	printf("ready\n");
	fflush(stdout);
	until = now() + atof(argv[4]);
	while (seen.told < hosts && !stopped && now() < until) {
		int got;

		for (unsigned int at = 0; at < BATCH; at++)
			in.headers[at].msg_hdr.msg_controllen = sizeof(in.control[at].octets);
		got = recvmmsg(sock, in.headers, BATCH, MSG_DONTWAIT, NULL);
		for (int at = 0; at < got; at++)
			take(at, now());
		if (got <= 0)
			poll(&(struct pollfd){ .fd = sock, .events = POLLIN }, 1, 20);
	}
	printf("{\"told\": %lu, \"copies\": %lu, \"others\": %lu, \"first\": %.3f, \"last\": %.3f}\n", seen.told,
	       seen.copies, seen.others, seen.first, seen.last);
	return 0;
}
