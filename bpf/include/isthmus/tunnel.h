/* SPDX-License-Identifier: Dual BSD/GPL */
/*
 * Into tunnels and out of them (RFC 2003; RFC 2784; RFC 6040).
 * Pairs with plane/reference/tunnel.py, which has the figure.
 */
#ifndef ISTHMUS_TUNNEL_H
#define ISTHMUS_TUNNEL_H

#include <linux/tcp.h>
#include <linux/udp.h>
#include <isthmus/checksum.h>
#include <isthmus/scratch.h>

#define OUTER_TTL 64
#define ECN_MASK 3
#define ECN_NOT_ECT 0
#define ECN_ECT1 1
#define ECN_ECT0 2
#define ECN_CE 3
#define MUST_DROP (-1)

/* The GRE header that we write and, as its first half, read (RFC 2784 §2). */
struct gre {
	__be16 bits;
	__be16 protocol_type;
};
#define GRE_CHECKSUM 0x8000
#define GRE_MUST_BE_ZERO 0x7c07 /* bits 1 to 5, and the version */

struct outer {
	struct iphdr ip;
	struct gre gre; /* of a GRE tunnel */
};

/* The tunnel type of a packet; 0 if it is not tunnelled (RFC 3103 §8.6). */
static __always_inline __u32 tunnel_kind(__u8 protocol)
{
	if (protocol == IPPROTO_IPIP)
		return IPIP;
	return protocol == IPPROTO_GRE ? GRE : 0;
}

/* Octets that the outer header and its shim add. */
static __always_inline __u32 overhead(__u32 header, __u32 kind)
{
	return header + (kind == GRE ? sizeof(struct gre) : 0);
}

/*
 * The protocol of what an IPv6 packet carries: IPPROTO_IPIP or IPPROTO_GRE, 0 if it is not tunnelled, and
 * IPPROTO_FRAGMENT if the reference plane has to look, for fragments and options (RFC 8200 §4; RFC 2473 §4.1.1).
 */
static __noinline int tunnelled6(frame_t *frame, __u32 at, __u8 next)
{
	__u8 option[2];

	for (int i = 0; i < 8; i++) {
		if (next == IPPROTO_IPIP || next == IPPROTO_GRE)
			return i ? IPPROTO_FRAGMENT : next;
		if (next != IPPROTO_HOPOPTS && next != IPPROTO_DSTOPTS && next != IPPROTO_FRAGMENT)
			return 0;
		if (!fetch(frame, at, option, sizeof(option)))
			return 0;
		if (next == IPPROTO_FRAGMENT && option[0] == IPPROTO_DSTOPTS)
			return IPPROTO_FRAGMENT; /* in the first fragment only, so nobody knows */
		at += next == IPPROTO_FRAGMENT ? 8 : (option[1] + 1) * 8;
		next = option[0];
	}
	return IPPROTO_FRAGMENT;
}

/* TOS of a packet that comes out: the inner one, with congestion marks of the way (RFC 6040 §4.2, figure 4). */
static __always_inline int egress_tos(__u8 outer, __u8 inner)
{
	if ((outer & ECN_MASK) == ECN_CE)
		return (inner & ECN_MASK) == ECN_NOT_ECT ? MUST_DROP : inner | ECN_CE;
	if ((outer & ECN_MASK) == ECN_ECT1 && (inner & ECN_MASK) == ECN_ECT0)
		return (inner & ~ECN_MASK) | ECN_ECT1;
	return inner;
}

/* Go beyond the GRE header of a tunnelled packet; 0 or why not (RFC 2784 §2.2, §2.3). */
static __always_inline enum reason parse_gre(frame_t *frame, struct cursor *cursor)
{
	struct gre gre;

	if (!parse_octets(frame, cursor, &gre, sizeof(gre)) || gre.bits & bpf_htons(GRE_MUST_BE_ZERO) ||
	    gre.protocol_type != bpf_htons(ETH_P_IP))
		return MALFORMED;
	/* The reference plane adds it up. */
	return gre.bits & bpf_htons(GRE_CHECKSUM) ? PUNTED : 0;
}

/*
 * Look into a tunnelled packet, checking whatever can be checked without a table; 0 or why it is dropped or punted.
 * RFC 2003 §3 and RFC 2784 §2 for the format, RFC 1122 §3.2.1.2 for the inner checksum.
 */
static __always_inline enum reason decapsulate(frame_t *frame, const struct ipv4 *outer, struct ipv4 *inner)
{
	struct cursor cursor = payload(outer);

	if (outer->raw.protocol == IPPROTO_GRE) {
		enum reason refused = parse_gre(frame, &cursor);

		if (refused)
			return refused;
	}
	if (!parse_ipv4(frame, cursor, inner) || !checksum_ok(frame, inner))
		return MALFORMED;
	if (is_fragment(inner))
		return PUNTED;
	if (is_cut_off(inner) || egress_tos(outer->raw.tos, inner->raw.tos) == MUST_DROP)
		return MALFORMED;
	return 0;
}

/* Largest packet on the wire: the packet, or one segment of a large one. */
static __noinline __u32 wire_octets(frame_t *frame, const struct ipv4 *packet)
{
	__u32 transport = sizeof(struct udphdr);
	__u8 offset = 0;

	if (!packet)
		return 0;
	if (!segment_octets(frame))
		return packet->total;
	if (packet->raw.protocol == IPPROTO_TCP) {
		fetch(frame, packet->at + packet->header + 12, &offset, 1);
		transport = (offset >> 4) * 4;
	}
	return packet->header + transport + segment_octets(frame);
}

/* Whether a packet, or a segment of it, is larger than its way carries. */
static __always_inline bool is_too_big(frame_t *frame, const struct ipv4 *packet, __u32 mtu)
{
	return packet->total > mtu && wire_octets(frame, packet) > mtu;
}

/*
 * Change what forwarding changes of a header: TTL, TOS, and their checksum (RFC 1624). In our copy: store_amended
 * writes it into the packet, when there is no way back to the reference plane any more.
 */
static __always_inline void amend(struct ipv4 *packet, __u8 tos, bool hop)
{
	__u16 *words = (__u16 *)&packet->raw;
	__u16 check = packet->raw.check;
	__u16 before;

	if (hop) {
		before = words[4];
		packet->raw.ttl -= 1;
		check = update(check, before, words[4]);
	}
	if (tos != packet->raw.tos) {
		before = words[0];
		packet->raw.tos = tos;
		check = update(check, before, words[0]);
	}
	packet->raw.check = check;
}

static __always_inline bool store_amended(frame_t *frame, __u32 at, const struct ipv4 *packet)
{
	return store(frame, at, &packet->raw, 12);
}

/* Cut off what follows the packet's total length. */
static __always_inline bool trim(frame_t *frame, const struct ipv4 *packet)
{
	return cut(frame, packet->at + packet->total);
}

/* Write the outer header of a tunnel (RFC 2003 §3.1; RFC 6040 §4.1; RFC 2784 §2). */
static __always_inline void outer_header(struct outer *outer, const struct ipv4 *inner, const struct endpoint *tunnel,
					 __be32 remote)
{
	__u32 total = inner->total + overhead(sizeof(struct iphdr), tunnel->kind);

	__builtin_memset(outer, 0, sizeof(*outer));
	outer->ip.version = 4;
	outer->ip.ihl = 5;
	outer->ip.tos = inner->raw.tos;
	/* A large segment may outgrow the field, as on Linux's own tunnels: 0 then, and set when it is cut up. */
	outer->ip.tot_len = total <= 0xffff ? bpf_htons(total) : 0;
	/* Deviation: RFC 2003 §3.1 copies DF; see the reference. */
	outer->ip.frag_off = bpf_htons(IP_DF);
	outer->ip.ttl = OUTER_TTL;
	outer->ip.protocol = tunnel->kind == GRE ? IPPROTO_GRE : IPPROTO_IPIP;
	outer->ip.saddr = tunnel->local[0];
	outer->ip.daddr = remote;
	outer->ip.check = checksum(&outer->ip);
	outer->gre.protocol_type = bpf_htons(ETH_P_IP);
}

/* The same of IPv6 (RFC 2473 §3.1, §6); "holder" is what the tunnel, as a template, lacks of its other end, or 0. */
static __always_inline void outer_header6(struct ipv6hdr *outer, const struct ipv4 *inner,
					  const struct endpoint *tunnel, __u32 holder)
{
	__u32 octets = inner->total + overhead(0, tunnel->kind);

	outer->version = 6;
	outer->priority = inner->raw.tos >> 4;
	outer->flow_lbl[0] = inner->raw.tos << 4;
	outer->flow_lbl[1] = outer->flow_lbl[2] = 0;
	outer->payload_len = octets <= 0xffff ? bpf_htons(octets) : 0;
	outer->nexthdr = tunnel->kind == GRE ? IPPROTO_GRE : IPPROTO_IPIP;
	outer->hop_limit = OUTER_TTL;
	__builtin_memcpy(&outer->saddr, tunnel->local, sizeof(outer->saddr));
	__builtin_memcpy(&outer->daddr, tunnel->remote, sizeof(outer->daddr));
	outer->daddr.in6_u.u6_addr32[3] |= bpf_htonl(holder);
}

/* Say in the link header, if there is one, which version of IP follows. */
static __always_inline bool store_type(frame_t *frame, __u32 link, __u16 type)
{
	__be16 word = bpf_htons(type);

	return !link || store(frame, link - sizeof(word), &word, sizeof(word));
}

/*
 * Put a packet into its tunnel; RFC 2003 §3.1 for the outer header, RFC 6040 §4.1 for ECN, RFC 2784 §2 for GRE.
 * It has been amended. Octets between link header and packet (of a tunnel that it just left) are reused, so that a
 * large segment turned round keeps its marks. PUNTED if Linux does not make the room; nothing was changed then.
 */
static __always_inline enum reason encapsulate(frame_t *frame, __u32 link, bool over6, const struct ipv4 *inner,
					       __u32 kind, const struct outer *outer)
{
	__u32 room = inner->at - link;
	__u32 head = overhead(sizeof(outer->ip), kind);

	if (!trim(frame, inner))
		return MALFORMED;
	if (room > head && !shrink(frame, room - head, over6))
		return PUNTED;
	if (room < head && !grow(frame, head - room, kind == GRE))
		return PUNTED;
	if (!store(frame, link, &outer->ip, sizeof(outer->ip)) || !store_amended(frame, link + head, inner))
		return MALFORMED;
	if (over6 && !store_type(frame, link, ETH_P_IP))
		return MALFORMED;
	if (kind == GRE && !store(frame, link + sizeof(outer->ip), &outer->gre, sizeof(outer->gre)))
		return MALFORMED;
	return 0;
}

/* The same over IPv6 (RFC 2473 §3). */
static __always_inline int encapsulate6(frame_t *frame, const struct ingress *from, const struct ipv4 *inner, __u32 kind,
				   const struct ipv6hdr *outer)
{
	struct gre gre = { .protocol_type = bpf_htons(ETH_P_IP) };
	__u32 room, head, link;

	if (!from || !inner || !outer)
		return MALFORMED;
	link = from->link;
	room = inner->at - link;
	head = overhead(sizeof(*outer), kind);
	if (!trim(frame, inner))
		return MALFORMED;
	if (room && !from->over6 && room >= head)
		return PUNTED; /* an IPv4 header with so many options never becomes IPv6 */
	if (room > head && !shrink(frame, room - head, false))
		return PUNTED;
	if (room < head && !grow6(frame, head - room, kind == GRE, from->over6))
		return PUNTED;
	if (!store(frame, link, __builtin_assume_aligned(outer, FRAME_ALIGNMENT), sizeof(*outer)) ||
	    !store_amended(frame, link + head, inner))
		return MALFORMED;
	if (!from->over6 && !store_type(frame, link, ETH_P_IPV6))
		return MALFORMED;
	if (kind == GRE && !store(frame, link + sizeof(*outer), &gre, sizeof(gre)))
		return MALFORMED;
	return 0;
}

/* Take away what stands between link header and packet, which has been amended (RFC 2003 §3.1); as "encapsulate". */
static __always_inline enum reason emerge(frame_t *frame, __u32 link, bool over6, const struct ipv4 *inner)
{
	if (!trim(frame, inner))
		return MALFORMED;
	if (!shrink(frame, inner->at - link, over6))
		return PUNTED;
	if (!store_amended(frame, link, inner) || (over6 && !store_type(frame, link, ETH_P_IP)))
		return MALFORMED;
	return 0;
}

#endif
