/* SPDX-License-Identifier: Dual BSD/GPL */
/*
 * Reading a packet: every parse_* checks the octets against an end and copies what it
 * reads, so that what is not in the linear part of the buffer needs no care: a call reads
 * it then. Writing is the same the other way round.
 */
#ifndef ISTHMUS_CURSOR_H
#define ISTHMUS_CURSOR_H

#include <linux/ip.h>
#include <linux/ipv6.h>
#include <isthmus/frame.h>

#define IP_FRAGMENT 0x3fff /* offset and "more fragments" */
#define IP_OFFSET 0x1fff
#define IP_DF 0x4000
#define IPV4_MINIMUM 20

/* A position in a packet, and where what may be read ends. */
struct cursor {
	__u32 at;
	__u32 end;
};

/* An IPv4 header that parses, and where it stands. */
struct ipv4 {
	__u16 at;     /* from the start of the buffer */
	__u16 header; /* octets, options included */
	__u32 total;  /* octets of the packet; what follows is padding */
	struct iphdr raw;
};

static __always_inline bool parse_octets(frame_t *frame, struct cursor *cursor, void *to, __u32 octets)
{
	if (cursor->at + octets > cursor->end || !load(frame, cursor->at, to, octets))
		return false;
	cursor->at += octets;
	return true;
}

/* See octets as an IPv4 packet: version, IHL and total length are sound (RFC 791 §3.1). */
static __always_inline bool parse_ipv4(frame_t *frame, struct cursor cursor, struct ipv4 *packet)
{
	__u32 have = cursor.end - cursor.at;

	packet->at = cursor.at;
	if (!parse_octets(frame, &cursor, &packet->raw, sizeof(packet->raw)) || packet->raw.version != 4)
		return false;
	packet->header = packet->raw.ihl * 4;
	packet->total = bpf_ntohs(packet->raw.tot_len);
	if (!packet->total && segment_octets(frame))
		packet->total = have; /* a large segment that does not fit the field */
	return packet->header >= IPV4_MINIMUM && packet->header <= packet->total && packet->total <= have;
}

/*
 * See octets as an IPv6 packet: version and payload length are sound (RFC 8200 §3). What is asked of an outer header,
 * whichever version it is, is where it ends, its TOS and its protocol: "packet" has just these.
 */
static __always_inline bool parse_ipv6(frame_t *frame, struct cursor cursor, struct ipv6hdr *header,
				       struct ipv4 *packet)
{
	__u32 have = cursor.end - cursor.at;

	packet->at = cursor.at;
	packet->header = sizeof(*header);
	/* Of what a function is given nobody knows how it is aligned, and each octet would be copied by itself. */
	header = __builtin_assume_aligned(header, FRAME_ALIGNMENT);
	if (!parse_octets(frame, &cursor, header, sizeof(*header)) || header->version != 6)
		return false;
	packet->total = sizeof(*header) + bpf_ntohs(header->payload_len);
	if (!header->payload_len && segment_octets(frame))
		packet->total = have; /* a large segment that does not fit the field */
	packet->raw.tos = header->priority << 4 | header->flow_lbl[0] >> 4;
	packet->raw.protocol = header->nexthdr;
	return packet->total <= have;
}

/* The payload of a packet, up to its total length. */
static __always_inline struct cursor payload(const struct ipv4 *packet)
{
	struct cursor cursor = { packet->at + packet->header, packet->at + packet->total };

	return cursor;
}

static __always_inline bool is_fragment(const struct ipv4 *packet)
{
	return packet->raw.frag_off & bpf_htons(IP_FRAGMENT);
}

static __always_inline bool forbids_fragments(const struct ipv4 *packet)
{
	return packet->raw.frag_off & bpf_htons(IP_DF);
}

#endif
