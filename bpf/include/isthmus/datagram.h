/* SPDX-License-Identifier: Dual BSD/GPL */
/*
 * Out of the IPAE datagram: is it one, and may its source be in it (seed IPAE 5.3; spec 3.2, 9.2, 9.4).
 * Pairs with plane/reference/datagram.py.
 */
#ifndef ISTHMUS_DATAGRAM_H
#define ISTHMUS_DATAGRAM_H

#include <isthmus/images.h>
#include <isthmus/tunnel.h>

/* Whether a datagram came from a system that leads to the SIP source in it (spec 9.4). */
static __always_inline enum reason came_right(const struct ingress *from, const struct passage *packet)
{
	struct sip_realm *home = sip_realm_of(from->realm);
	__be32 outer = packet->came_as.raw.saddr;
	__be32 site = site_of(packet->sip.src);
	struct endpoint *way;

	if (home && home->site && home->site == site)
		return 0;
	if (is_site(site))
		return SITE_SOURCE_OUTSIDE;
	if (outer == packet->sip.src[1] && !(rule_flags() & RULE_SITE))
		return 0;
	way = crossing(route(packet->realm, packet->sip.src));
	if (way && way->kind == ENCAPSULATION && way->realm == from->realm &&
	    outer == (way->flags & ENDPOINT_IMPLICIT ? packet->sip.src[1] : way->remote[0]))
		return 0;
	return rule_flags() & RULE_ACCEPT ? PUNTED : WRONG_WAY;
}

/*
 * Take a SIP packet out of the datagram that it came in; 0 or why not, PASSED where it is IPv6
 * (seed IPAE 5.3; spec 3.2, 9.2, 9.4).
 */
static __noinline int out_of_datagram(frame_t *frame, struct ingress *from, struct passage *packet)
{
	struct cursor cursor;
	enum reason refused;
	__u32 octets;

	if (!from || !packet)
		return MALFORMED;
	if (!checksum_ok(frame, &packet->came_as))
		return MALFORMED;
	if (is_fragment(&packet->came_as))
		return PUNTED;
	cursor = payload(&packet->came_as);
	octets = cursor.end - cursor.at;
	if (!parse_sip(frame, cursor, packet))
		return NOT_SIP;
	if (!is_sip(&packet->sip))
		return NOT_SIP;
	if (octets == sizeof(struct ipv6hdr) + packet->octets)
		return PASSED;
	if (octets != SIP_OCTETS + packet->octets || packet->sip.type == IPPROTO_IPV6)
		return NOT_SIP;
	if (has_options(&packet->sip))
		return PUNTED;
	packet->came = BY_DATAGRAM;
	refused = came_right(from, packet);
	if (refused)
		return refused;
	if (packet->came_as.raw.ttl < packet->sip.hop_limit)
		packet->sip.hop_limit = packet->came_as.raw.ttl;
	return 0;
}

#endif
