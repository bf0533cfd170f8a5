/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Plays hosts to an RSIP gateway, as perfdhcp plays them to a DHCP server.
 *
 *     cc -O2 -o rsipperf rsipperf.c -lm
 *     rsipperf -r 5000 -t 3 10.0.0.1
 *
 * Each host has an address of its own and goes through one cycle: REGISTER, then ASSIGN of some ports, each request
 * repeated until it is answered (RFC 3103 §5). One socket plays them all: their addresses must be local ones
 * (ip route add local 10.64.0.0/10 dev lo). An exchange is late if its answer comes later than a time after the first
 * sending of the request, or never; a cycle is late if one of its exchanges is. That is perfdhcp's rule, too (-d there).
 *
 *     -r RATE     cycles begun a second; or:
 *     -w WINDOW   cycles under way at any time, the next one begun when one ends
 *     -t SECONDS  how long cycles are begun (3)
 *     -R HOSTS    as many hosts at most (1048576), numbered from
 *     -b ADDRESS  this address on (10.64.0.1); -P PORT: all of them speak from this port
 *     -n PORTS    asked for by each ASSIGN (16)
 *     -a NUMBER   of ASSIGNs in a cycle (1)
 *     -f          each cycle ends with FREE of the last lease and DE-REGISTER
 *     -i SECONDS  before the first repetition; each wait is twice the one before, seven sendings in all (0.1)
 *     -d SECONDS  after which an answer is late (1)
 *     -p NUMBER   send a packet through the last lease of every so manieth host as soon as it is answered, to the echo
 *     -s ADDRESS  server here, and count what comes back; with -f another when FREE is answered, which must not arrive
 *     -L FILE     write what was leased: a line "host address first-port ports bind-id" for each lease
 *
 * With SIGTERM it begins no more cycles. It prints one JSON object. Times are in milliseconds.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <math.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "clock.h"
#include "probe.h"
#include "rsip_message.h"
#include "series.h"
#include "stop.h"

#define BATCH 64
#define SENDINGS 7
#define LONGEST 512
#define ERRORS 512

struct host {
	double first_sent;
	double began;
	uint32_t client_id;
	uint32_t bind_id;
	uint32_t address;
	uint32_t counter;
	uint16_t first_port;
	uint8_t request; /* The message under way, 0 when there is none. */
	uint8_t sendings;
	uint8_t assigns;
	bool late;
	bool probed; /* And not back yet. */
};

/* What may have to be sent again: for each number of sendings a queue, in order of time. */
struct repetition {
	uint32_t host;
	uint32_t counter;
	double due;
};

struct queue {
	struct repetition *items;
	uint64_t first;
	uint64_t end;
};

static struct {
	double rate, seconds, initial_wait, late_after;
	uint32_t window, hosts, first_address, assigns, probe_every, server;
	uint16_t local_port;
	uint8_t ports;
	bool leave;
	struct sockaddr_in gateway;
	FILE *leases;
} options = { .seconds = 3, .initial_wait = 0.1, .late_after = 1, .hosts = 1 << 20, .assigns = 1, .ports = 16 };

static struct {
	uint64_t begun, finished, late, refused, sent, repeated, given_up, answers, unasked, strange, probed, probes_back;
	uint64_t errors[ERRORS];
} seen;

static struct host *hosts;
static uint32_t queue_length;
static struct queue queues[SENDINGS];
static struct series by_register, by_assign, by_cycle;
static int sock;

static struct {
	struct mmsghdr headers[BATCH];
	struct iovec parts[BATCH];
	uint8_t octets[BATCH][LONGEST];
	union {
		uint8_t octets[CMSG_SPACE(sizeof(struct in_pktinfo))];
		struct cmsghdr aligned;
	} control[BATCH];
	unsigned int number;
} out, in;

static void fail(const char *what)
{
	fprintf(stderr, "rsipperf: %s: %s\n", what, strerror(errno));
	exit(2);
}

static void *allocate(size_t number, size_t size)
{
	void *made = calloc(number, size);

	if (!made)
		fail("memory");
	return made;
}

static void flush(void)
{
	for (unsigned int at = 0; at < out.number;) {
		int sent = sendmmsg(sock, out.headers + at, out.number - at, 0);

		if (sent < 0 && errno != EINTR && errno != ENOBUFS && errno != EAGAIN)
			fail("send");
		at += sent > 0 ? sent : 0;
	}
	seen.sent += out.number;
	out.number = 0;
}

/* Send a host's request for the first time or once more, and note when it would be sent again. */
static void transmit(uint32_t number, double now)
{
	struct host *host = hosts + number;
	struct queue *queue = queues + host->sendings;
	unsigned int at = out.number++;
	struct in_pktinfo *from = (struct in_pktinfo *)CMSG_DATA(&out.control[at].aligned);

	out.parts[at].iov_len = emit(&(struct request){ .type = host->request, .client_id = host->client_id,
							.counter = host->counter, .bind_id = host->bind_id,
							.ports = options.ports },
				     out.octets[at]);
	from->ipi_spec_dst.s_addr = htonl(options.first_address + number);
	queue->items[queue->end++ % queue_length] = (struct repetition){
		.host = number, .counter = host->counter, .due = now + ldexp(options.initial_wait, host->sendings)
	};
	host->sendings++;
	if (out.number == BATCH)
		flush();
}

static void ask(uint32_t number, enum message request, double now)
{
	struct host *host = hosts + number;

	host->request = request;
	host->counter++;
	host->sendings = 0;
	host->first_sent = now;
	transmit(number, now);
}

static void begin(double now)
{
	uint32_t number = seen.begun++;

	hosts[number].began = now;
	ask(number, REGISTER, now);
}

static void end(struct host *host)
{
	host->request = 0;
	seen.finished++;
	seen.late += host->late;
}

/* Send again what has waited long enough; give up what was sent often enough. */
static void repeat(double now)
{
	for (int sendings = 0; sendings < SENDINGS; sendings++) {
		struct queue *queue = queues + sendings;

		for (; queue->first < queue->end; queue->first++) {
			struct repetition next = queue->items[queue->first % queue_length];
			struct host *host = hosts + next.host;

			if (host->request && host->counter == next.counter) {
				if (next.due > now)
					break;
				if (sendings < SENDINGS - 1) {
					seen.repeated++;
					transmit(next.host, now);
				} else {
					seen.given_up++;
					host->late = true;
					end(host);
				}
			}
		}
	}
}

static void write_lease(uint32_t host, const struct answer *answer)
{
	char name[INET_ADDRSTRLEN], address[INET_ADDRSTRLEN];

	inet_ntop(AF_INET, &(struct in_addr){ htonl(host) }, name, sizeof(name));
	inet_ntop(AF_INET, &(struct in_addr){ htonl(answer->address) }, address, sizeof(address));
	fprintf(options.leases, "%s %s %u %u %u\n", name, address, answer->first_port, answer->ports, answer->bind_id);
}

static bool is_probed(uint32_t number)
{
	return options.probe_every && number % options.probe_every == 0;
}

static struct returned leased(uint32_t number)
{
	return (struct returned){ .host = options.first_address + number, .address = hosts[number].address,
				  .port = hosts[number].first_port };
}

static void assigned(uint32_t number, const struct answer *answer)
{
	struct host *host = hosts + number;

	host->bind_id = answer->bind_id;
	host->address = answer->address;
	host->first_port = answer->first_port;
	if (options.leases)
		write_lease(options.first_address + number, answer);
	host->probed = is_probed(number) && host->assigns + 1u == options.assigns &&
		       send_probe(leased(number), ntohl(options.gateway.sin_addr.s_addr), options.server, 0);
	seen.probed += host->probed;
}

static void go_on(uint32_t number, const struct answer *answer, double now)
{
	struct host *host = hosts + number;

	if (host->request == REGISTER) {
		host->client_id = answer->client_id;
		ask(number, ASSIGN, now);
	} else if (host->request == ASSIGN) {
		assigned(number, answer);
		if (++host->assigns < options.assigns)
			ask(number, ASSIGN, now);
		else if (options.leave && host->probed)
			host->request = 0; /* What it was leased is freed when the probe is back. */
		else if (options.leave)
			ask(number, FREE, now);
	} else if (host->request == FREE) {
		if (is_probed(number))
			send_probe(leased(number), ntohl(options.gateway.sin_addr.s_addr), options.server, FORMER);
		ask(number, DEREGISTER, now);
	}
}

static void take(uint32_t number, const struct answer *answer, double now)
{
	struct host *host = hosts + number;
	uint8_t request = host->request;
	uint32_t counter = host->counter;
	double waited = now - host->first_sent;

	if (!request || answer->counter != counter) {
		seen.unasked++;
		return;
	}
	seen.answers++;
	host->late |= waited > options.late_after;
	if (answer->type != request + 1) {
		seen.refused++;
		seen.errors[answer->error % ERRORS]++;
		host->late = true;
		end(host);
		return;
	}
	if (request == REGISTER)
		keep(&by_register, waited);
	else if (request == ASSIGN)
		keep(&by_assign, waited);
	go_on(number, answer, now);
	if (host->counter == counter && host->request) {
		keep(&by_cycle, now - host->began);
		end(host);
	}
}

/* Take whatever answers there are; returns how many. */
static int receive(void)
{
	int got;
	double now;

	for (unsigned int at = 0; at < BATCH; at++)
		in.headers[at].msg_hdr.msg_controllen = sizeof(in.control[at].octets);
	got = recvmmsg(sock, in.headers, BATCH, MSG_DONTWAIT, NULL);
	now = clock_now();
	for (int at = 0; at < got; at++) {
		struct in_pktinfo *to = (struct in_pktinfo *)CMSG_DATA(&in.control[at].aligned);
		uint32_t number = ntohl(to->ipi_addr.s_addr) - options.first_address;
		struct answer answer = { 0 };

		if (number < seen.begun && parse(in.octets[at], in.headers[at].msg_len, &answer))
			take(number, &answer, now);
		else
			seen.strange++;
	}
	return got;
}

static void take_probes(double now)
{
	struct returned to;

	while (receive_probe(&to)) {
		uint32_t number = to.host - options.first_address;
		struct host *host = hosts + number;

		if (number >= seen.begun || host->address != to.address || host->first_port != to.port) {
			seen.strange++;
		} else if (host->probed) {
			seen.probes_back++;
			host->probed = false;
			if (options.leave && !host->request)
				ask(number, FREE, now);
		}
	}
}

static void begin_what_is_due(double began, double now)
{
	double due = options.rate ? (now - began) * options.rate : options.hosts;

	while (seen.begun < options.hosts && seen.begun < due &&
	       (!options.window || seen.begun - seen.finished < options.window))
		begin(now);
}

/* Begin cycles for the time asked for, and then wait until all have ended, be it by being given up or being late. */
static double play(void)
{
	double began = clock_now(), now = began, last = began;
	double patience = options.late_after * (options.assigns + 1) + 0.1;

	for (;;) {
		bool beginning = !stopped && now < began + options.seconds && seen.begun < options.hosts;
		bool waiting = seen.finished < seen.begun || seen.probes_back < seen.probed;

		if (!beginning && !(waiting && now < last + patience))
			break;
		if (beginning) {
			begin_what_is_due(began, now);
			last = now;
		}
		repeat(now);
		flush();
		if (options.probe_every)
			take_probes(now);
		if (receive() <= 0) {
			double idle = options.rate ? fmin(1e-3, fmax(1.0 / options.rate, 2e-4)) : 1e-3;
			struct timespec wait = { 0, (long)(idle * 1e9) };

			ppoll(&(struct pollfd){ .fd = sock, .events = POLLIN }, 1, &wait, NULL);
		}
		now = clock_now();
	}
	return last - began;
}

static void print(double seconds)
{
	const char *comma = "";

	/* What has not ended is late. */
	seen.late += seen.begun - seen.finished;
	printf("{\"seconds\": %.3f, \"asked\": %.1f, \"begun\": %lu, \"rate\": %.1f, ", seconds, options.rate,
	       seen.begun, (seen.begun - seen.late) / seconds);
	printf("\"late\": %lu, \"late_ratio\": %.5f, ", seen.late,
	       seen.begun ? (double)seen.late / seen.begun : 1.0);
	print_series("register", &by_register);
	print_series("assign", &by_assign);
	print_series("cycle", &by_cycle);
	printf("\"sent\": %lu, \"repeated\": %lu, \"given_up\": %lu, \"answers\": %lu, \"unasked\": %lu, ", seen.sent,
	       seen.repeated, seen.given_up, seen.answers, seen.unasked);
	printf("\"probed\": %lu, \"probes_back\": %lu, ", seen.probed, seen.probes_back);
	printf("\"cpu_seconds\": %.3f, ", (double)clock() / CLOCKS_PER_SEC);
	printf("\"strange\": %lu, \"refused\": %lu, \"errors\": {", seen.strange, seen.refused);
	for (int code = 0; code < ERRORS; code++) {
		if (seen.errors[code]) {
			printf("%s\"%d\": %lu", comma, code, seen.errors[code]);
			comma = ", ";
		}
	}
	printf("}}\n");
}

static void prepare_messages(void)
{
	for (int at = 0; at < BATCH; at++) {
		struct cmsghdr *header = &out.control[at].aligned;

		out.parts[at].iov_base = out.octets[at];
		out.headers[at].msg_hdr = (struct msghdr){
			.msg_name = &options.gateway, .msg_namelen = sizeof(options.gateway), .msg_iov = out.parts + at,
			.msg_iovlen = 1, .msg_control = header, .msg_controllen = sizeof(out.control[at].octets)
		};
		*header = (struct cmsghdr){
			.cmsg_len = CMSG_LEN(sizeof(struct in_pktinfo)), .cmsg_level = IPPROTO_IP, .cmsg_type = IP_PKTINFO
		};
		in.parts[at] = (struct iovec){ in.octets[at], LONGEST };
		in.headers[at].msg_hdr = (struct msghdr){
			.msg_iov = in.parts + at, .msg_iovlen = 1, .msg_control = &in.control[at]
		};
	}
}

static void prepare(void)
{
	int yes = 1, room = 64 << 20;
	struct sockaddr_in here = { .sin_family = AF_INET, .sin_port = htons(options.local_port) };
	size_t longest = (size_t)options.hosts * (options.assigns + 3);

	sock = socket(AF_INET, SOCK_DGRAM, 0);
	if (sock < 0 || setsockopt(sock, IPPROTO_IP, IP_PKTINFO, &yes, sizeof(yes)) ||
	    bind(sock, (struct sockaddr *)&here, sizeof(here)))
		fail("socket");
	if (setsockopt(sock, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof(room)) ||
	    setsockopt(sock, SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof(room)))
		fail("room in the socket");
	if (options.probe_every && !open_probe_sockets())
		fail("raw sockets");
	hosts = allocate(options.hosts, sizeof(*hosts));
	/* A host has one request under way; stale entries leave when their time has come. */
	queue_length = longest;
	for (int at = 0; at < SENDINGS; at++)
		queues[at].items = allocate(queue_length, sizeof(struct repetition));
	by_register.values = allocate(options.hosts, sizeof(float));
	by_assign.values = allocate((size_t)options.hosts * options.assigns, sizeof(float));
	by_cycle.values = allocate(options.hosts, sizeof(float));
	prepare_messages();
}

static void set(int option, const char *value)
{
	switch (option) {
	case 'r': options.rate = atof(value); break;
	case 'w': options.window = atoi(value); break;
	case 't': options.seconds = atof(value); break;
	case 'R': options.hosts = atoi(value); break;
	case 'b': options.first_address = ntohl(inet_addr(value)); break;
	case 'P': options.local_port = atoi(value); break;
	case 'n': options.ports = atoi(value); break;
	case 'a': options.assigns = atoi(value); break;
	case 'f': options.leave = true; break;
	case 'i': options.initial_wait = atof(value); break;
	case 'd': options.late_after = atof(value); break;
	case 'p': options.probe_every = atoi(value); break;
	case 's': options.server = ntohl(inet_addr(value)); break;
	case 'L':
		options.leases = fopen(value, "w");
		if (!options.leases)
			fail(value);
		break;
	default: exit(2);
	}
}

int main(int argc, char **argv)
{
	int option;

	options.first_address = ntohl(inet_addr("10.64.0.1"));
	while ((option = getopt(argc, argv, "r:w:t:R:b:P:n:a:fi:d:p:s:L:")) != -1)
		set(option, optarg);
	options.gateway = (struct sockaddr_in){ .sin_family = AF_INET, .sin_port = htons(4555) };
	if (optind != argc - 1 || !inet_aton(argv[optind], &options.gateway.sin_addr) ||
	    !(options.rate || options.window)) {
		fprintf(stderr, "usage: rsipperf -r RATE | -w WINDOW [options] GATEWAY\n");
		return 2;
	}
	prepare();
	signal(SIGTERM, stop);
	print(play());
	if (options.leases && fclose(options.leases))
		fail("leases");
	return 0;
}
