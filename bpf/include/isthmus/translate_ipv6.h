/* SPDX-License-Identifier: Dual BSD/GPL */
/*
 * SIP for programs that use IPv6 sockets: the header and ICMP echo both ways (spec 8.1, 8.2).
 * Pairs with plane/reference/translate_ipv6.py.
 */
#ifndef ISTHMUS_TRANSLATE_IPV6_H
#define ISTHMUS_TRANSLATE_IPV6_H

#include <isthmus/translate.h>

#define ICMPV6_ECHO 128
#define ICMPV6_ECHOREPLY 129

/* The sum of the pseudo-header of ICMPv6 (RFC 8200 §8.1). */
static __always_inline __u64 pseudo_sum6(const struct ipv6hdr *header, __u32 octets)
{
	const __u32 *words = (const __u32 *)&header->saddr;
	__u64 total = bpf_htons(IPPROTO_ICMPV6) + bpf_htons(octets);

	for (int i = 0; i < 8; i++)
		total += words[i];
	return total;
}

/* Type and code, as they are summed. */
static __always_inline __u16 first_word(const struct icmp *icmp)
{
	return bpf_htons(icmp->type << 8 | icmp->code);
}

/* The same between ICMPv6 and SIP: both have one, and other numbers for echo (spec 8.1). */
static __always_inline bool from_icmpv6(frame_t *frame, struct passage *packet)
{
	__u16 before, after;
	__u64 gone, come;

	if (rule_flags() & RULE_ICMP_SLOW || !parse_echo(frame, packet))
		return false;
	if (packet->icmp.type != ICMPV6_ECHO && packet->icmp.type != ICMPV6_ECHOREPLY)
		return false;
	before = first_word(&packet->icmp);
	packet->icmp.type = packet->icmp.type == ICMPV6_ECHO ? ICMP_ECHO : ICMP_ECHOREPLY;
	after = first_word(&packet->icmp);
	gone = pseudo_sum6(&packet->came_as6, packet->octets) + before;
	come = pseudo_sum(&packet->sip, packet->octets) + after;
	packet->icmp.checksum = exchange(packet->icmp.checksum, gone, come);
	packet->rewritten = true;
	return true;
}

static __always_inline bool to_icmpv6(frame_t *frame, struct passage *packet)
{
	__u16 before, after;
	__u64 gone, come;

	if (rule_flags() & RULE_ICMP_SLOW || !parse_echo(frame, packet) || !is_echo(&packet->icmp))
		return false;
	before = first_word(&packet->icmp);
	packet->icmp.type = packet->icmp.type == ICMP_ECHO ? ICMPV6_ECHO : ICMPV6_ECHOREPLY;
	after = first_word(&packet->icmp);
	gone = pseudo_sum(&packet->sip, packet->octets) + before;
	come = pseudo_sum6(&packet->ip6, packet->octets) + after;
	packet->icmp.checksum = exchange(packet->icmp.checksum, gone, come);
	packet->rewritten = true;
	return true;
}

/* The IPv6 address of a SIP address: plain, or so that its upper 96 bits add up to zero (spec 8.2). */
static __always_inline void ipv6_address(__be32 *to, const struct endpoint *way, const __be32 *address, bool compatible)
{
	const __be32 *base = compatible ? way->remote : way->local;
	__u16 word = 0;

	if (compatible)
		word = ~fold((__u64)base[0] + (base[1] & bpf_htonl(0xffff0000)) + address[0]);
	to[0] = base[0];
	to[1] = compatible ? (base[1] & bpf_htonl(0xffff0000)) | bpf_htonl(bpf_ntohs(word)) : base[1];
	to[2] = address[0];
	to[3] = address[1];
}

/* What only IPv6 understands: hop-by-hop, routing, destination options, mobility, HIP, shim6. */
static __always_inline bool is_extension(__u8 kind)
{
	return kind == 0 || kind == 43 || kind == 60 || kind == 135 || kind == 139 || kind == 140;
}

/* Messages of the link: listeners, routers, neighbours (RFC 2710, RFC 4861). */
static __always_inline bool is_discovery(__u8 type)
{
	return type >= 130 && type < 138;
}

#endif
