/* SPDX-License-Identifier: Dual BSD/GPL */
/*
 * Into SIP: IPv4 by a mapping or a binding, and what programs send by IPv6 sockets (seed IPAE 5.1; spec 3.3, 8.2). What has
 * options, is a fragment, or may become one, and ICMP other than echo, is the reference plane's.
 * Pairs with plane/reference/into_sip.py.
 */
#ifndef ISTHMUS_INTO_SIP_H
#define ISTHMUS_INTO_SIP_H

#include <isthmus/ring.h>
#include <isthmus/translate_ipv6.h>

/* Not a verdict: the packet is none of IPAE's, and RSIP's program has the next word. */
#ifndef IPPROTO_IGMP
#define IPPROTO_IGMP 2
#endif

/* Begin the SIP header of a packet that had none. */
static __always_inline void begin(struct passage *packet, __u8 type, __u8 hop_limit, __u32 at, __u32 octets)
{
	packet->sip.first = bpf_htonl(SIP_VERSION << 28);
	packet->sip.octets = bpf_htons(octets);
	packet->sip.type = type;
	packet->sip.hop_limit = hop_limit;
	packet->at = at;
	packet->octets = octets;
}

/* Whether IPv4 becomes SIP without a header for options or fragments (spec 3.3, 3.5). */
static __always_inline bool is_plain(const struct ipv4 *packet)
{
	if (packet->header != IPV4_MINIMUM || is_fragment(packet))
		return false;
	return forbids_fragments(packet) || rule_flags() & RULE_FIT;
}

/* Whether a transport header ends too early; of later fragments nobody knows. */
static __always_inline bool is_torn(const struct ipv4 *packet)
{
	return !(packet->raw.frag_off & bpf_htons(IP_OFFSET)) && is_cut_off(packet);
}

/* What becomes of an IPv4 packet that stands for nobody in SIP (spec 6.2, 6.3). */
static __always_inline int unmapped(frame_t *frame, const struct ingress *from, const struct ipv4 *packet)
{
	struct sip_realm *home = sip_realm_of(from->realm);

	if (!home || !home->site || !home->sip || home->unmapped == UNMAPPED_PASS)
		return UNDECIDED;
	if (is_meant(from->realm, packet->raw.daddr) || mapped(home, packet->raw.daddr))
		return UNDECIDED;
	return !checksum_ok(frame, packet) || is_torn(packet) ? MALFORMED : PUNTED;
}

/* See an IPv4 packet as SIP; 0, UNDECIDED, or why not (seed IPAE 5.1; spec 3.3, 6.2). */
static __always_inline int from_ipv4(frame_t *frame, struct ingress *from, struct passage *packet, bool ours)
{
	const struct ipv4 *came;
	struct target found;
	__u8 hops;

	if (!from || !packet)
		return UNDECIDED;
	came = &packet->came_as;
	if (is_no_host(came->raw.daddr) || came->raw.protocol == IPPROTO_IPV6 || came->raw.protocol == IPPROTO_IGMP)
		return UNDECIDED;
	if (!target(from, came->raw.daddr, ours, &found))
		return ours ? UNDECIDED : unmapped(frame, from, came);
	if (rule_flags() & RULE_SLOW)
		return PUNTED;
	if (!checksum_ok(frame, came))
		return MALFORMED;
	if (found.over)
		return LEASE_EXPIRED;
	if (segment_octets(frame) || (is_fragment(came) && came->raw.protocol == IPPROTO_ICMP))
		return PUNTED;
	if (is_torn(came))
		return MALFORMED;
	/* Whoever is its own gateway is no further hop, neither as the source nor as the destination (erratum E15). */
	hops = from->end != HOST && !is_node(found.realm, found.address);
	if (came->header != IPV4_MINIMUM || (hops && came->raw.ttl <= 1))
		return PUNTED;
	if (!in_sip(found.realm, from->realm, came->raw.saddr, packet->sip.src))
		return NO_IMAGE;
	if (!is_plain(came))
		return PUNTED;
	packet->realm = found.realm;
	packet->came = AS_IPV4;
	packet->sip.dst[0] = found.address[0];
	packet->sip.dst[1] = found.address[1];
	begin(packet, came->raw.protocol, came->raw.ttl - hops, came->at + IPV4_MINIMUM, came->total - IPV4_MINIMUM);
	if (came->raw.protocol == IPPROTO_ICMP && !with_pseudo_header(frame, packet, true))
		return PUNTED;
	return 0;
}

/* Whether somebody on its way has said that a program's packet is too large, though all of IPv6 is made for more. */
static __always_inline bool is_to_be_cut(const struct passage *packet)
{
	const struct way *known = way_of(packet->realm, packet->sip.dst[0], packet->sip.dst[1]);

	return known && known->mtu && SIP_OCTETS + packet->octets > known->mtu;
}

/* The same of what has been read of a program's packet. */
static __always_inline int from_program6(frame_t *frame, struct ingress *from, struct passage *packet)
{
	const struct ipv6hdr *came = &packet->came_as6;
	struct endpoint *way;

	way = crossing(route6(from->realm, &came->daddr));
	if (!way || way->kind != TRANSLATE || way->family != FAMILY_SIP || segment_octets(frame))
		return PUNTED;
	packet->realm = way->realm;
	join(packet->sip.dst, way->local, way->image, number(&came->daddr.in6_u.u6_addr32[2]));
	packet->sip.src[0] = came->saddr.in6_u.u6_addr32[2];
	packet->sip.src[1] = came->saddr.in6_u.u6_addr32[3];
	if (!is_node(packet->realm, packet->sip.src))
		return NO_IMAGE;
	if (is_to_be_cut(packet))
		return PUNTED;
	if (came->nexthdr != IPPROTO_ICMPV6)
		return 0;
	packet->sip.type = IPPROTO_ICMP;
	return from_icmpv6(frame, packet) ? 0 : PUNTED;
}

/* See what a program sent by an IPv6 socket as SIP; 0, UNDECIDED, or why not (spec 8.2). */
static __noinline int from_ipv6(frame_t *frame, struct ingress *from, struct passage *packet)
{
	const struct ipv6hdr *came;
	struct cursor cursor;
	struct ipv4 ends;
	__u8 type;

	if (!from || !packet)
		return UNDECIDED;
	came = &packet->came_as6;
	cursor.at = from->link;
	cursor.end = frame_octets(frame);
	if (!parse_ipv6(frame, cursor, &packet->came_as6, &ends) || is_extension(came->nexthdr))
		return MALFORMED;
	if (came->daddr.in6_u.u6_addr8[0] == 0xff && came->nexthdr != IPPROTO_FRAGMENT)
		return FORBIDDEN_SIP_ADDRESS;
	begin(packet, came->nexthdr, came->hop_limit, from->link + sizeof(*came), bpf_ntohs(came->payload_len));
	packet->came = BY_PROGRAM;
	if (came->nexthdr == IPPROTO_FRAGMENT)
		return PUNTED;
	if (came->nexthdr == IPPROTO_ICMPV6) {
		if (packet->octets && fetch(frame, packet->at, &type, sizeof(type)) && is_discovery(type))
			return FORBIDDEN_SIP_ADDRESS;
		if (packet->octets < sizeof(packet->icmp))
			return PUNTED;
	}
	return rule_flags() & RULE_SLOW ? PUNTED : from_program6(frame, from, packet);
}

#endif
