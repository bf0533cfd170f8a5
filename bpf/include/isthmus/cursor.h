/* SPDX-License-Identifier: Dual BSD/GPL */
/*
 * Reading a packet: every parse_* checks the octets against an end and copies what it
 * reads, so that what is not in the linear part of the buffer needs no care: a call reads
 * it then. Writing is the same the other way round.
 */
#ifndef ISTHMUS_CURSOR_H
#define ISTHMUS_CURSOR_H

#include <stdbool.h>
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define IP_FRAGMENT 0x3fff /* offset and "more fragments" */
#define IP_OFFSET 0x1fff
#define IP_DF 0x4000
#define IPV4_MINIMUM 20
/* Furthest octet that is looked at without a call; link header, IPv6, GRE and IPv4 header are 118. Tests set it to 0. */
#ifndef LINEAR_MOST
#define LINEAR_MOST 255
#endif

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

/*
 * Where octets stand if they are in the linear part of the buffer, else null.
 * Every IPv4 header begins at a multiple of four, as the kernel sees it (NET_IP_ALIGN).
 */
static __always_inline void *linear(struct __sk_buff *skb, __u32 at, __u32 octets)
{
	void *start = (void *)(long)skb->data;
	void *end = (void *)(long)skb->data_end;

	if (at > LINEAR_MOST || start + at + octets > end)
		return 0;
	return start + at;
}

/* Copy octets out of a packet; their number is a constant. */
static __always_inline bool load(struct __sk_buff *skb, __u32 at, void *to, __u32 octets)
{
	void *from = linear(skb, at, octets);

	if (!from)
		return !bpf_skb_load_bytes(skb, at, to, octets);
	__builtin_memcpy(to, __builtin_assume_aligned(from, 4), octets);
	return true;
}

/* Copy octets into a packet; their number is a constant. */
static __always_inline bool store(struct __sk_buff *skb, __u32 at, const void *from, __u32 octets)
{
	void *to = linear(skb, at, octets);

	if (!to)
		return !bpf_skb_store_bytes(skb, at, from, octets, 0);
	__builtin_memcpy(__builtin_assume_aligned(to, 4), from, octets);
	return true;
}

static __always_inline bool parse_octets(struct __sk_buff *skb, struct cursor *cursor, void *to, __u32 octets)
{
	if (cursor->at + octets > cursor->end || !load(skb, cursor->at, to, octets))
		return false;
	cursor->at += octets;
	return true;
}

/* See octets as an IPv4 packet: version, IHL and total length are sound (RFC 791 §3.1). */
static __always_inline bool parse_ipv4(struct __sk_buff *skb, struct cursor cursor, struct ipv4 *packet)
{
	__u32 have = cursor.end - cursor.at;

	packet->at = cursor.at;
	if (!parse_octets(skb, &cursor, &packet->raw, sizeof(packet->raw)) || packet->raw.version != 4)
		return false;
	packet->header = packet->raw.ihl * 4;
	packet->total = bpf_ntohs(packet->raw.tot_len);
	if (!packet->total && skb->gso_size)
		packet->total = have; /* a large segment that does not fit the field */
	return packet->header >= IPV4_MINIMUM && packet->header <= packet->total && packet->total <= have;
}

/*
 * See octets as an IPv6 packet: version and payload length are sound (RFC 8200 §3). What is asked of an outer header,
 * whichever version it is, is where it ends, its TOS and its protocol: "packet" has just these.
 */
static __always_inline bool parse_ipv6(struct __sk_buff *skb, struct cursor cursor, struct ipv6hdr *header,
				       struct ipv4 *packet)
{
	__u32 have = cursor.end - cursor.at;

	packet->at = cursor.at;
	packet->header = sizeof(*header);
	if (!parse_octets(skb, &cursor, header, sizeof(*header)) || header->version != 6)
		return false;
	packet->total = sizeof(*header) + bpf_ntohs(header->payload_len);
	if (!header->payload_len && skb->gso_size)
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
