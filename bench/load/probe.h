/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A packet through a lease as soon as it was answered: out by the tunnel, to an echo server, and back to the host.
 * Includes nothing of rsipperf.c: addresses are numbers in the host's byte order.
 */
#ifndef BENCH_PROBE_H
#define BENCH_PROBE_H

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <netinet/udp.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/types.h>

#define ECHO_PORT 7
#define FORMER 0x80000000 /* In the mark: sent when the lease was not its sender's any more. */

struct probe {
	struct iphdr outer; /* RFC 2003 §3.1 */
	struct iphdr inner;
	struct udphdr udp;
	uint32_t mark; /* The host, which is no larger than 31 bits, and FORMER. */
};

/* Where a probe that came back came to: the host, and what it has leased. */
struct returned {
	uint32_t host;
	uint32_t address;
	uint16_t port;
};

static struct {
	int sending, receiving;
} probe_sockets;

static uint16_t header_sum(const struct iphdr *header)
{
	uint16_t words[10];
	uint32_t sum = 0;

	memcpy(words, header, sizeof(words));
	for (int at = 0; at < 10; at++)
		sum += words[at];
	sum = (sum & 0xffff) + (sum >> 16);
	return ~((sum & 0xffff) + (sum >> 16));
}

static struct iphdr probe_header(uint8_t protocol, uint32_t from, uint32_t to, uint16_t length)
{
	return (struct iphdr){ .version = 4, .ihl = 5, .ttl = 64, .protocol = protocol, .saddr = htonl(from),
			       .daddr = htonl(to), .tot_len = htons(length), .frag_off = htons(0x4000) };
}

static bool send_probe(struct returned from, uint32_t gateway, uint32_t server, uint32_t former)
{
	struct probe probe = { .mark = htonl(from.host | former) };
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(gateway) };
	uint16_t inner = sizeof(probe) - sizeof(probe.outer);

	probe.outer = probe_header(IPPROTO_IPIP, from.host, gateway, sizeof(probe));
	probe.inner = probe_header(IPPROTO_UDP, from.address, server, inner);
	probe.inner.check = header_sum(&probe.inner);
	probe.udp = (struct udphdr){ .source = htons(from.port), .dest = htons(ECHO_PORT),
				     .len = htons(inner - sizeof(struct iphdr)) };
	return sendto(probe_sockets.sending, &probe, sizeof(probe), 0, (struct sockaddr *)&to, sizeof(to)) ==
	       (ssize_t)sizeof(probe);
}

/* Take one that came back, with the mark of the host it came to; false if there is none (any more). */
static bool receive_probe(struct returned *to)
{
	struct probe probe;

	while (recv(probe_sockets.receiving, &probe, sizeof(probe), MSG_DONTWAIT) > 0) {
		if (ntohl(probe.mark) != ntohl(probe.outer.daddr) || probe.udp.source != htons(ECHO_PORT))
			continue;
		to->host = ntohl(probe.outer.daddr);
		to->address = ntohl(probe.inner.daddr);
		to->port = ntohs(probe.udp.dest);
		return true;
	}
	return false;
}

static bool open_probe_sockets(void)
{
	probe_sockets.sending = socket(AF_INET, SOCK_RAW, IPPROTO_RAW);
	probe_sockets.receiving = socket(AF_INET, SOCK_RAW, IPPROTO_IPIP);
	return probe_sockets.sending >= 0 && probe_sockets.receiving >= 0;
}

#endif
