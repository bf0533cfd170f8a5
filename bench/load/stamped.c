/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Sends stamped packets through a gateway in both directions, and loses none of its own.
 *
 *     stamped NEAR FAR COUNTS STANDING CHANGING ERAS SECONDS LEAST
 *
 * NEAR and FAR are packet sockets (descriptors) on the hosts' link and at the server, COUNTS the counts of
 * bpf/stamped.bpf.c, STANDING and CHANGING files of leases, ERAS a file of one number for each lease that changes hands:
 * how often it has. The number of an era is written when nobody holds the lease: the former holder's packets must not
 * get out any more, and no packet made from now on may reach it.
 *
 * It sends for so many SECONDS, and until LEAST packets of standing leases were sent. So that nothing is lost in a queue, no more packets of standing leases are under way than WINDOW; if they do not come
 * within PATIENCE seconds, they are lost. It prints how many of each kind were sent, as a JSON object.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/udp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <fcntl.h>
#include <unistd.h>

#include "clock.h"
#include "stamp.h"

#define WINDOW 64
#define BURST 8
#define PATIENCE 2.0
#define SERVER_PORT 9

/* A lease as its file has it, in the host's byte order. */
struct lease {
	uint32_t host; /* Of a standing one. */
	uint32_t address;
	uint32_t port;
};

/* What the link layer needs, at the head of the file of standing leases. */
struct setup {
	uint8_t near_header[ETH_HLEN];
	uint8_t far_header[ETH_HLEN];
	uint32_t gateway;
	uint32_t server;
};

struct carried {
	struct iphdr ip;
	struct udphdr udp;
	struct stamp stamp;
} __attribute__((packed));

struct outward {
	uint8_t ethernet[ETH_HLEN];
	struct iphdr outer;
	struct carried inner;
} __attribute__((packed));

struct inward {
	uint8_t ethernet[ETH_HLEN];
	struct carried packet;
} __attribute__((packed));

struct file {
	const void *start;
	size_t octets;
};

static struct setup setup;
static const struct lease *standing, *changing;
static size_t standing_number, changing_number;
static const volatile uint64_t *counts;
static const volatile uint32_t *eras;
static uint64_t sent[STAMP_KINDS];
static int near, far;

static void fail(const char *what)
{
	fprintf(stderr, "stamped: %s: %s\n", what, strerror(errno));
	exit(2);
}

static struct file open_file(const char *path)
{
	struct file file = { 0 };
	struct stat about;
	int descriptor = open(path, O_RDONLY);

	if (descriptor < 0 || fstat(descriptor, &about))
		fail(path);
	file.octets = about.st_size;
	if (file.octets)
		file.start = mmap(NULL, file.octets, PROT_READ, MAP_SHARED, descriptor, 0);
	if (file.start == MAP_FAILED)
		fail(path);
	return file;
}

static uint16_t header_sum(const void *header)
{
	uint16_t words[10];
	uint32_t sum = 0;

	memcpy(words, header, sizeof(words));
	for (int at = 0; at < 10; at++)
		sum += words[at];
	sum = (sum & 0xffff) + (sum >> 16);
	return ~((sum & 0xffff) + (sum >> 16));
}

static struct iphdr ip_header(uint8_t protocol, uint32_t from, uint32_t to, size_t length)
{
	struct iphdr header = { .version = 4, .ihl = 5, .ttl = 64, .protocol = protocol, .saddr = htonl(from),
				.daddr = htonl(to), .tot_len = htons(length), .frag_off = htons(0x4000) };

	header.check = header_sum(&header);
	return header;
}

static struct carried carry(const struct stamp *stamp, bool outwards)
{
	uint32_t address = ntohl(stamp->address), port = ntohl(stamp->port);
	struct carried made = { .stamp = *stamp };

	made.ip = ip_header(IPPROTO_UDP, outwards ? address : setup.server, outwards ? setup.server : address,
			    sizeof(made));
	made.udp = (struct udphdr){ .source = htons(outwards ? port : SERVER_PORT),
				    .dest = htons(outwards ? SERVER_PORT : port),
				    .len = htons(sizeof(made) - sizeof(made.ip)) };
	return made;
}

static void transmit(int sock, const void *frame, size_t length)
{
	while (send(sock, frame, length, 0) < 0) {
		if (errno != ENOBUFS && errno != EAGAIN && errno != EINTR)
			fail("send");
	}
}

static void send_outward(uint32_t host, const struct stamp *stamp)
{
	struct outward frame = { .inner = carry(stamp, true) };

	memcpy(frame.ethernet, setup.near_header, ETH_HLEN);
	frame.outer = ip_header(IPPROTO_IPIP, host, setup.gateway, sizeof(frame) - ETH_HLEN);
	transmit(near, &frame, sizeof(frame));
	sent[ntohl(stamp->kind)]++;
}

static void send_inward(const struct stamp *stamp)
{
	struct inward frame = { .packet = carry(stamp, false) };

	memcpy(frame.ethernet, setup.far_header, ETH_HLEN);
	transmit(far, &frame, sizeof(frame));
	sent[ntohl(stamp->kind)]++;
}

static struct stamp stamp_of(enum stamp_kind kind, const struct lease *lease)
{
	return (struct stamp){ .magic = htonl(STAMP_MAGIC), .kind = htonl(kind), .host = htonl(lease->host),
			       .address = htonl(lease->address), .port = htonl(lease->port) };
}

/* Both ways, or outward only. */
static void send_standing(uint64_t number, bool inwards)
{
	const struct lease *lease = standing + number % standing_number;
	struct stamp stamp = stamp_of(STANDING_OUTWARD, lease);

	send_outward(lease->host, &stamp);
	stamp.kind = htonl(STANDING_INWARD);
	if (inwards)
		send_inward(&stamp);
}

static void send_changing(uint64_t number)
{
	/* An odd step: neighbours in the table are not neighbours in time. */
	uint32_t lease = number * 7919 % changing_number;
	uint32_t era = eras[lease];
	struct stamp stamp = stamp_of(CHANGING_INWARD, changing + lease);
	uint32_t present = CHANGING_HOSTS | (era & ERA_MASK) << ERA_SHIFT | lease;
	uint32_t former = CHANGING_HOSTS | ((era - 1) & ERA_MASK) << ERA_SHIFT | lease;

	stamp.lease = htonl(lease);
	stamp.era = htonl(era);
	send_inward(&stamp);
	stamp.kind = htonl(PRESENT_OUTWARD);
	send_outward(present, &stamp);
	if (era) {
		stamp.kind = htonl(FORMER_OUTWARD);
		send_outward(former, &stamp);
	}
}

static uint64_t under_way(void)
{
	return sent[STANDING_OUTWARD] + sent[STANDING_INWARD] - counts[ARRIVED + STANDING_OUTWARD] -
	       counts[ARRIVED + STANDING_INWARD] - counts[ASTRAY + STANDING_OUTWARD] - counts[ASTRAY + STANDING_INWARD];
}

/* Wait until no more than these are under way; false if they do not come. */
static bool wait_below(uint64_t most)
{
	double began = clock_now();

	while (under_way() > most) {
		if (clock_now() > began + PATIENCE)
			return false;
	}
	return true;
}

/*
 * Some leases are reached only by whom they have contacted: a packet inward that overtakes their first one outward is
 * rightly refused, so that one has to have arrived.
 */
static void contact(void)
{
	for (size_t at = 0; at < standing_number; at++) {
		send_standing(at, false);
		wait_below(WINDOW);
	}
	wait_below(0);
}

static void play(double seconds, uint64_t least)
{
	double began = clock_now();
	uint64_t lost = under_way();

	for (uint64_t number = 0; clock_now() < began + seconds || sent[STANDING_INWARD] * 2 < least;) {
		for (int at = 0; at < BURST; at++, number++) {
			send_standing(number, true);
			if (changing_number)
				send_changing(number);
		}
		if (!wait_below(lost + WINDOW))
			lost = under_way();
	}
	wait_below(lost);
}

int main(int argc, char **argv)
{
	struct file leases;

	if (argc != 9) {
		fprintf(stderr, "usage: stamped NEAR FAR COUNTS STANDING CHANGING ERAS SECONDS LEAST\n");
		return 2;
	}
	near = atoi(argv[1]);
	far = atoi(argv[2]);
	counts = mmap(NULL, COUNTS * sizeof(*counts), PROT_READ, MAP_SHARED, atoi(argv[3]), 0);
	if (counts == MAP_FAILED)
		fail("counts");
	leases = open_file(argv[4]);
	memcpy(&setup, leases.start, sizeof(setup));
	standing = leases.start + sizeof(setup);
	standing_number = (leases.octets - sizeof(setup)) / sizeof(*standing);
	leases = open_file(argv[5]);
	changing = leases.start;
	changing_number = leases.octets / sizeof(*changing);
	eras = open_file(argv[6]).start;
	contact();
	play(atof(argv[7]), strtoull(argv[8], NULL, 10));
	printf("{\"standing outward\": %lu, \"standing inward\": %lu, \"changing inward\": %lu, ", sent[0], sent[1],
	       sent[2]);
	printf("\"present outward\": %lu, \"former outward\": %lu}\n", sent[3], sent[4]);
	return 0;
}
