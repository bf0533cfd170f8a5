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
static __noinline int cross(struct __sk_buff *skb, struct ingress *from, struct passage *packet)
{
	struct binding *found;
	struct endpoint *way;

	if (!from || !packet)
		return TC_ACT_SHOT;
	found = route(packet->realm, packet->sip.dst);
	if (found && is_over(found, from->now))
		return drop(skb, LEASE_EXPIRED);
	way = crossing(found);
	if (!way)
		return punt(skb, from, NO_ROUTE);
	if (way->kind == NATIVE)
		return native(skb, from, packet, way);
	if (way->kind == ENCAPSULATION)
		return into_datagram(skb, from, packet, way);
	return out_of_sip(skb, from, packet, way);
}

/* Give a packet for one of our own addresses to a program (RFC 8507 §8.1). */
static __always_inline int for_us(struct __sk_buff *skb, struct ingress *from, struct passage *packet)
{
	struct endpoint *way = crossing(route(packet->realm, packet->sip.dst));

	if (!way || way->kind != TRANSLATE)
		return punt(skb, from, NOT_FOR_US);
	return cross(skb, from, packet);
}

/* Take a packet on whose site has been checked (RFC 8507 §3, §4.3; spec 2.2, 3.2). */
static __noinline int arrived(struct __sk_buff *skb, struct ingress *from, struct passage *packet)
{
	if (!from || !packet)
		return TC_ACT_SHOT;
	if (is_unfit(&packet->sip))
		return drop(skb, FORBIDDEN_SIP_ADDRESS);
	if (has_options(&packet->sip))
		return punt(skb, from, SOURCE_ROUTE);
	if (is_node(packet->realm, packet->sip.dst))
		return for_us(skb, from, packet);
	if (is_group(packet->sip.dst))
		return drop(skb, is_for_everybody(packet->sip.dst) ? NOT_FOR_US : FORBIDDEN_SIP_ADDRESS);
	/* What was translated has been counted in the TTL that it had, or is our own. */
	if (packet->came == BY_LINK || packet->came == BY_DATAGRAM) {
		if (packet->sip.hop_limit <= 1)
			return punt(skb, from, TTL_EXCEEDED);
		packet->sip.hop_limit -= 1;
	}
	return cross(skb, from, packet);
}

/* Take a SIP packet that came by a link (seed IPAE 4.2.1; RFC 8507 §8.4; spec 9.4). */
static __always_inline int from_link(struct __sk_buff *skb, struct ingress *from, struct passage *packet)
{
	struct cursor cursor;

	if (!from || !packet)
		return TC_ACT_SHOT;
	cursor.at = from->link;
	cursor.end = skb->len;
	packet->came = BY_LINK;
	if (!parse_sip(skb, cursor, packet) || packet->at + packet->octets > skb->len)
		return drop(skb, MALFORMED);
	if (rule_flags() & RULE_SLOW || skb->gso_size)
		return punt(skb, from, NO_ROUTE);
	if (is_of_another_site(from->realm, packet->sip.src))
		return drop(skb, SITE_SOURCE_OUTSIDE);
	return arrived(skb, from, packet);
}

/* Whether a packet is an ICMP error that quotes an IPAE datagram (seed IPAE 4.3; spec 6.4). */
static __always_inline bool is_about_datagram(struct __sk_buff *skb, const struct ipv4 *packet)
{
	__u32 at = packet->at + packet->header;
	__u8 type, protocol;

	if (packet->raw.protocol != IPPROTO_ICMP || is_fragment(packet) ||
	    packet->total < packet->header + sizeof(struct icmp) + IPV4_MINIMUM)
		return false;
	return !bpf_skb_load_bytes(skb, at, &type, 1) && is_icmp_error(type) && type != ICMP_SOURCE_QUENCH &&
	       !bpf_skb_load_bytes(skb, at + sizeof(struct icmp) + offsetof(struct iphdr, protocol), &protocol, 1) &&
	       protocol == IPPROTO_IPV6;
}

/* See an IPv4 packet as SIP: a datagram, an error about one, or one that begins here; 0, NOT_OURS, or why not. */
static __always_inline int sip_of_ipv4(struct __sk_buff *skb, struct ingress *from, struct passage *packet)
{
	struct cursor cursor = { from->link, skb->len };
	__be32 *leads_to;

	if (!parse_ipv4(skb, cursor, &packet->came_as))
		return NOT_OURS;
	leads_to = sip_end(from->realm, packet->came_as.raw.daddr);
	if (leads_to && *leads_to) {
		packet->realm = *leads_to;
		if (packet->came_as.raw.protocol == IPPROTO_IPV6)
			return skb->gso_size || rule_flags() & RULE_SLOW ? PUNTED : out_of_datagram(skb, from, packet);
		if (is_about_datagram(skb, &packet->came_as))
			return PUNTED;
	}
	return from_ipv4(skb, from, packet, leads_to);
}

/* Take an IPv4 packet, or what a program sent by an IPv6 socket; NOT_OURS if it is none of IPAE's (spec 6.2, 8.2). */
static __noinline int from_ip(struct __sk_buff *skb, struct ingress *from, struct passage *packet, bool program6)
{
	int refused;

	if (!from || !packet)
		return TC_ACT_SHOT;
	refused = program6 ? from_ipv6(skb, from, packet) : sip_of_ipv4(skb, from, packet);
	switch (refused) {
	case 0:
		return arrived(skb, from, packet);
	case NOT_OURS:
		return NOT_OURS;
	case PUNTED:
		return punt(skb, from, NO_ROUTE);
	case PASSED:
		return pass(skb);
	}
	return drop(skb, refused);
}

/* Take whatever arrives; NOT_OURS if it is none of IPAE's. */
static __always_inline int decide_ipae(struct __sk_buff *skb, struct ingress *from)
{
	struct passage *packet = this_passage();
	struct sip_realm *home = sip_realm_of(from->realm);
	__u8 version;

	if (!packet || !home)
		return NOT_OURS;
	if (skb->protocol != bpf_htons(ETH_P_IP) && skb->protocol != bpf_htons(ETH_P_IPV6))
		return NOT_OURS;
	packet->rewritten = false;
	if (home->family == FAMILY_IPV6)
		return home->translates ? from_ip(skb, from, packet, true) : NOT_OURS;
	if (skb->protocol != bpf_htons(ETH_P_IP) || home->family != FAMILY_IPV4 ||
	    !load(skb, from->link, &version, sizeof(version)))
		return NOT_OURS;
	if (version >> 4 != SIP_VERSION)
		return from_ip(skb, from, packet, false);
	packet->realm = home->sip;
	return home->sip ? from_link(skb, from, packet) : NOT_OURS;
}

#endif
