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
#include <isthmus/classify.h>

#ifndef IPPROTO_IPIP
#define IPPROTO_IPIP 4
#endif
#define OUTER_TTL 64
#define ECN_MASK 3
#define ECN_NOT_ECT 0
#define ECN_ECT1 1
#define ECN_ECT0 2
#define ECN_CE 3
#define MUST_DROP (-1)
#define MALFORMED_SHIM (~0U)
/* Newer than the headers of Debian 12 (Linux 6.4). */
#define ADJ_ROOM_DECAP_L3_IPV4 (1ULL << 7)

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
static __always_inline __u32 tunnel_kind(const struct ipv4 *outer)
{
	if (outer->raw.protocol == IPPROTO_IPIP)
		return IPIP;
	return outer->raw.protocol == IPPROTO_GRE ? GRE : 0;
}

/* Octets that the outer header and its shim add. */
static __always_inline __u32 overhead(__u32 kind)
{
	return sizeof(struct iphdr) + (kind == GRE ? sizeof(struct gre) : 0);
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

/* Octets of the GRE header of a tunnelled packet, or MALFORMED_SHIM (RFC 2784 §2.2, §2.3). */
static __always_inline __u32 parse_gre(struct __sk_buff *skb, struct cursor cursor)
{
	__u32 octets = sizeof(struct gre);
	struct gre gre;

	if (!parse_octets(skb, &cursor, &gre, sizeof(gre)) || gre.bits & bpf_htons(GRE_MUST_BE_ZERO) ||
	    gre.protocol_type != bpf_htons(ETH_P_IP))
		return MALFORMED_SHIM;
	if (gre.bits & bpf_htons(GRE_CHECKSUM))
		octets += 4;
	return octets;
}

/*
 * Look into a tunnelled packet, checking whatever can be checked without a table; 0 or why it is dropped.
 * RFC 2003 §3 and RFC 2784 §2 for the format, RFC 1122 §3.2.1.2 for the inner checksum.
 */
static __always_inline enum reason decapsulate(struct __sk_buff *skb, const struct ipv4 *outer, struct ipv4 *inner)
{
	struct cursor cursor = payload(outer);

	if (outer->raw.protocol == IPPROTO_GRE) {
		/* Deviation: RFC 2784 §2.5 wants a checksum verified. */
		__u32 shim = parse_gre(skb, cursor);

		if (shim == MALFORMED_SHIM || cursor.at + shim > cursor.end)
			return MALFORMED;
		cursor.at += shim;
	}
	if (!parse_ipv4(skb, cursor, inner) || !checksum_ok(skb, inner))
		return MALFORMED;
	if (is_fragment(inner))
		return FRAGMENT;
	if (is_cut_off(inner) || egress_tos(outer->raw.tos, inner->raw.tos) == MUST_DROP)
		return MALFORMED;
	return 0;
}

/* Largest packet on the wire: the packet, or one segment of a large one. */
static __always_inline __u32 wire_octets(struct __sk_buff *skb, const struct ipv4 *packet)
{
	__u32 transport = sizeof(struct udphdr);
	__u8 offset = 0;

	if (!skb->gso_size)
		return packet->total;
	if (packet->raw.protocol == IPPROTO_TCP) {
		bpf_skb_load_bytes(skb, packet->at + packet->header + 12, &offset, 1);
		transport = (offset >> 4) * 4;
	}
	return packet->header + transport + skb->gso_size;
}

/* Write the octets of a header that forwarding may change: TTL, TOS, and their checksum (RFC 1624). */
static __always_inline bool amend(struct __sk_buff *skb, struct ipv4 *packet, __u8 tos, bool hop)
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
	return store(skb, packet->at, &packet->raw, 12);
}

/* Cut off what follows the packet's total length. */
static __always_inline bool trim(struct __sk_buff *skb, const struct ipv4 *packet)
{
	__u32 end = packet->at + packet->total;

	return skb->len == end || (!skb->gso_size && !bpf_skb_change_tail(skb, end, 0));
}

/* Write the outer header of a tunnel (RFC 2003 §3.1; RFC 6040 §4.1; RFC 2784 §2). */
static __always_inline void outer_header(struct outer *outer, const struct ipv4 *inner, const struct endpoint *tunnel)
{
	__u32 total = inner->total + overhead(tunnel->kind);

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
	outer->ip.daddr = tunnel->remote[0];
	outer->ip.check = checksum(&outer->ip);
	outer->gre.protocol_type = bpf_htons(ETH_P_IP);
}

/* Make or take away room between link header and IP header. */
static __always_inline bool grow(struct __sk_buff *skb, __u32 octets, __u32 kind)
{
	__u64 flags = BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_NO_CSUM_RESET;
	__u64 encap = BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 | (kind == GRE ? BPF_F_ADJ_ROOM_ENCAP_L4_GRE : 0);

	if (!bpf_skb_adjust_room(skb, octets, BPF_ADJ_ROOM_MAC, flags | encap))
		return true;
	/* What came out of a tunnel just now is still marked as tunnelled, and Linux marks nothing twice. */
	return !skb->gso_size && !bpf_skb_adjust_room(skb, octets, BPF_ADJ_ROOM_MAC, flags);
}

static __always_inline bool shrink(struct __sk_buff *skb, __u32 octets)
{
	__u64 flags = BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_NO_CSUM_RESET;

	return !bpf_skb_adjust_room(skb, -(__s32)octets, BPF_ADJ_ROOM_MAC, flags | ADJ_ROOM_DECAP_L3_IPV4);
}

/*
 * Put a packet into its tunnel; RFC 2003 §3.1 for the outer header, RFC 6040 §4.1 for ECN, RFC 2784 §2 for GRE.
 * Its TTL has been decremented. Octets between link header and packet (of a tunnel that it just left) are
 * reused, so that a large segment turned round keeps its marks.
 */
static __always_inline int encapsulate(struct __sk_buff *skb, __u32 link, const struct ipv4 *inner,
				  const struct endpoint *tunnel, struct outer *outer)
{
	__u32 room, head;

	if (!inner || !tunnel || !outer)
		return 0;
	room = inner->at - link;
	head = overhead(tunnel->kind);
	outer_header(outer, inner, tunnel);
	if (!trim(skb, inner))
		return 0;
	if (room > head && !shrink(skb, room - head))
		return 0;
	if (room < head && !grow(skb, head - room, tunnel->kind))
		return 0;
	if (!store(skb, link, &outer->ip, sizeof(outer->ip)))
		return 0;
	return tunnel->kind != GRE || store(skb, link + sizeof(outer->ip), &outer->gre, sizeof(outer->gre));
}

/* Take away what stands between link header and packet (RFC 2003 §3.1). */
static __always_inline bool emerge(struct __sk_buff *skb, __u32 link, const struct ipv4 *inner)
{
	return trim(skb, inner) && shrink(skb, inner->at - link);
}

#endif
