/* SPDX-License-Identifier: Dual BSD/GPL */
/*
 * A SIP packet's way through a border, however it came (docs/data-plane.md, IPAE; RFC 8507 §3, §4.2; seed IPAE 6.3; spec 6.2).
 * What is none of IPAE's goes on to RSIP's program. Pairs with plane/reference/sip.py and border.py.
 */
#ifndef ISTHMUS_IPAE_H
#define ISTHMUS_IPAE_H

#include <isthmus/cross.h>
#include <isthmus/datagram.h>
#include <isthmus/icmp_relay.h>
#include <isthmus/into_sip.h>
#include <isthmus/out_of_sip.h>

/* Take a packet on by its route (RFC 8507 §4.2; spec 2.4). */
static __noinline int cross(frame_t *frame, struct ingress *from, struct passage *packet)
{
	struct binding *found;
	struct endpoint *way;

	if (!from || !packet)
		return FRAME_DROP;
	found = route(packet->realm, packet->sip.dst);
	if (found && is_over(found, from->now))
		return drop(frame, LEASE_EXPIRED);
	way = crossing(found);
	if (!way)
		return punt(frame, from, NO_ROUTE);
	if (way->kind == NATIVE)
		return native(frame, from, packet, way);
	if (way->kind == ENCAPSULATION)
		return into_datagram(frame, from, packet, way);
	return out_of_sip(frame, from, packet, way);
}

/* Give a packet for one of our own addresses to a program (RFC 8507 §8.1). */
static __always_inline int for_us(frame_t *frame, struct ingress *from, struct passage *packet)
{
	struct endpoint *way = crossing(route(packet->realm, packet->sip.dst));

	if (!way || way->kind != TRANSLATE)
		return punt(frame, from, NOT_FOR_US);
	return cross(frame, from, packet);
}

/* Take a packet on whose site has been checked (RFC 8507 §3, §4.3; spec 2.2, 3.2). */
static __noinline int arrived(frame_t *frame, struct ingress *from, struct passage *packet)
{
	if (!from || !packet)
		return FRAME_DROP;
	if (is_unfit(&packet->sip))
		return drop(frame, FORBIDDEN_SIP_ADDRESS);
	if (has_options(&packet->sip))
		return punt(frame, from, SOURCE_ROUTE);
	if (is_node(packet->realm, packet->sip.dst))
		return for_us(frame, from, packet);
	if (is_group(packet->sip.dst))
		return drop(frame, is_for_everybody(packet->sip.dst) ? NOT_FOR_US : FORBIDDEN_SIP_ADDRESS);
	/* What was translated has been counted in the TTL that it had, or is our own. */
	if (packet->came == BY_LINK || packet->came == BY_DATAGRAM) {
		if (packet->sip.hop_limit <= 1)
			return punt(frame, from, TTL_EXCEEDED);
		packet->sip.hop_limit -= 1;
	}
	return cross(frame, from, packet);
}

/* Take a SIP packet that came by a link (seed IPAE 4.2.1; RFC 8507 §8.4; spec 9.4). */
static __always_inline int from_link(frame_t *frame, struct ingress *from, struct passage *packet)
{
	struct cursor cursor;

	if (!from || !packet)
		return FRAME_DROP;
	cursor.at = from->link;
	cursor.end = frame_octets(frame);
	packet->came = BY_LINK;
	if (!parse_sip(frame, cursor, packet) || packet->at + packet->octets > frame_octets(frame))
		return drop(frame, MALFORMED);
	if (rule_flags() & RULE_SLOW || segment_octets(frame))
		return punt(frame, from, NO_ROUTE);
	if (is_of_another_site(from->realm, packet->sip.src))
		return drop(frame, SITE_SOURCE_OUTSIDE);
	return arrived(frame, from, packet);
}

/* Whether a packet is an ICMP error that quotes an IPAE datagram (seed IPAE 4.3; spec 6.4). */
static __always_inline bool is_about_datagram(frame_t *frame, const struct ipv4 *packet)
{
	__u32 at = packet->at + packet->header;
	__u8 type, protocol;

	if (packet->raw.protocol != IPPROTO_ICMP || is_fragment(packet) ||
	    packet->total < packet->header + sizeof(struct icmp) + IPV4_MINIMUM)
		return false;
	return fetch(frame, at, &type, 1) && is_icmp_error(type) && type != ICMP_SOURCE_QUENCH &&
	       fetch(frame, at + sizeof(struct icmp) + offsetof(struct iphdr, protocol), &protocol, 1) &&
	       protocol == IPPROTO_IPV6;
}

/* See an IPv4 packet as SIP: a datagram, an error about one, or one that begins here; 0, UNDECIDED, or why not. */
static __always_inline int sip_of_ipv4(frame_t *frame, struct ingress *from, struct passage *packet)
{
	struct cursor cursor = { from->link, frame_octets(frame) };
	__be32 *leads_to;

	if (!parse_ipv4(frame, cursor, &packet->came_as))
		return UNDECIDED;
	leads_to = sip_end(from->realm, packet->came_as.raw.daddr);
	if (leads_to && *leads_to) {
		packet->realm = *leads_to;
		if (packet->came_as.raw.protocol == IPPROTO_IPV6)
			return segment_octets(frame) || rule_flags() & RULE_SLOW ? PUNTED : out_of_datagram(frame, from, packet);
		if (is_about_datagram(frame, &packet->came_as))
			return PUNTED;
	}
	return from_ipv4(frame, from, packet, leads_to);
}

/* Take an IPv4 packet, or what a program sent by an IPv6 socket; UNDECIDED if it is none of IPAE's (spec 6.2, 8.2). */
static __noinline int from_ip(frame_t *frame, struct ingress *from, struct passage *packet, bool program6)
{
	int refused;

	if (!from || !packet)
		return FRAME_DROP;
	refused = program6 ? from_ipv6(frame, from, packet) : sip_of_ipv4(frame, from, packet);
	switch (refused) {
	case 0:
		return arrived(frame, from, packet);
	case UNDECIDED:
		return UNDECIDED;
	case PUNTED:
		return punt(frame, from, NO_ROUTE);
	case PASSED:
		return pass(frame);
	}
	return drop(frame, refused);
}

/* Take whatever arrives, of an EtherType; UNDECIDED if it is none of IPAE's. */
static __always_inline int decide_ipae(frame_t *frame, struct ingress *from, __be16 type)
{
	struct passage *packet = this_passage();
	struct sip_realm *home = sip_realm_of(from->realm);
	__u8 version;

	if (!packet || !home)
		return UNDECIDED;
	if (type != bpf_htons(ETH_P_IP) && type != bpf_htons(ETH_P_IPV6))
		return UNDECIDED;
	packet->rewritten = false;
	if (home->family == FAMILY_IPV6)
		return home->translates ? from_ip(frame, from, packet, true) : UNDECIDED;
	if (type != bpf_htons(ETH_P_IP) || home->family != FAMILY_IPV4 ||
	    !load(frame, from->link, &version, sizeof(version)))
		return UNDECIDED;
	if (version >> 4 != SIP_VERSION)
		return from_ip(frame, from, packet, false);
	packet->realm = home->sip;
	return home->sip ? from_link(frame, from, packet) : UNDECIDED;
}

#endif
