/* SPDX-License-Identifier: Dual BSD/GPL */
/*
 * How a SIP packet crosses: on a link, or as an IPAE datagram (seed IPAE 4.2, 5.2, 6.3 a, c).
 * Pairs with plane/reference/cross.py; the third way is out_of_sip.h.
 */
#ifndef ISTHMUS_CROSS_H
#define ISTHMUS_CROSS_H

#include <isthmus/ring.h>
#include <isthmus/translate.h>
#include <isthmus/verdict.h>

#define LEAST_MTU 576 /* that every link carries (RFC 8507 §5) */

/* Which of the reasons a packet counts by that goes on as SIP. */
static __always_inline enum reason sip_reason(const struct passage *packet)
{
	return packet->came == BY_LINK || packet->came == BY_DATAGRAM ? FORWARDED_SIP : TRANSLATED_TO_SIP;
}

/* Send a SIP packet on as it is (seed IPAE 4.2.1; RFC 8507 §8.4). */
static __always_inline int native(frame_t *frame, struct ingress *from, struct passage *packet,
			     const struct endpoint *way)
{
	const __u16 *link = 0;
	struct realm *realm;
	__be32 neighbor;

	if (!from || !packet || !way)
		return FRAME_DROP;
	realm = realm_of(way->realm);
	if (!realm || !realm->interface)
		return drop(frame, NO_ROUTE);
	neighbor = way->flags & ENDPOINT_IMPLICIT ? packet->sip.dst[1] : way->remote[0];
	if (is_no_host(neighbor))
		return drop(frame, FORBIDDEN_SIP_ADDRESS);
	if (SIP_OCTETS + packet->octets > realm->mtu)
		return punt(frame, from, TOO_BIG);
	if (!ready_neighbor(realm, SIP_OCTETS + packet->octets, neighbor, &link))
		return punt(frame, from, NO_ROUTE);
	if (!make_room(frame, from, packet, SIP_OCTETS, ETH_P_IP) ||
	    !store(frame, from->link, &packet->sip, sizeof(packet->sip)) || !store_icmp(frame, packet))
		return drop(frame, NO_ROUTE);
	return to_neighbor(frame, from, realm, neighbor, link, sip_reason(packet));
}

/* Whether the last packets by a way have met what this one would meet, too (spec 6.4, layer 3). */
static __always_inline bool is_doomed(const struct way *known, const struct passage *packet)
{
	return known && (known->down || packet->sip.hop_limit < known->hops);
}

/* How large a SIP packet the way to the next IPAE system carries (spec 3.5). */
static __always_inline __s32 room_of(const struct endpoint *way, const struct realm *realm, const struct way *known)
{
	__s32 most = realm->mtu;

	if (known && known->mtu && known->mtu < realm->mtu)
		most = known->mtu;
	most -= sizeof(struct iphdr);
	return most < way->mtu ? most : way->mtu;
}

/* Write the header of an IPAE datagram (seed IPAE 5.2; spec 3.1). */
static __always_inline void datagram_header(struct iphdr *outer, const struct passage *packet, __be32 local,
					    __be32 remote, bool df)
{
	__builtin_memset(outer, 0, sizeof(*outer));
	outer->version = 4;
	outer->ihl = 5;
	outer->tot_len = bpf_htons(sizeof(*outer) + SIP_OCTETS + packet->octets);
	outer->id = bpf_htons(next_slot());
	outer->frag_off = df ? bpf_htons(IP_DF) : 0;
	outer->ttl = packet->sip.hop_limit;
	outer->protocol = IPPROTO_IPV6;
	outer->saddr = local;
	outer->daddr = remote;
	outer->check = checksum(outer);
}

/* Whether a datagram would go back to where its packet came from, or to ourselves. */
static __always_inline bool is_loop(const struct ingress *from, const struct passage *packet,
				    const struct endpoint *way, __be32 remote)
{
	return remote == way->local[0] || (packet->came == BY_DATAGRAM && packet->came_as.raw.saddr == remote &&
					   way->realm == from->realm);
}

/* Whether datagrams to an address come to ourselves. */
static __always_inline bool is_our_end(__be32 realm, __be32 address)
{
	__be32 *leads_to = sip_end(realm, address);

	return leads_to && *leads_to;
}

/* Put a SIP packet into an IPAE datagram, which is sent on (seed IPAE 4.2.2, 5.2; spec 3.1). */
static __always_inline int send_datagram(frame_t *frame, struct ingress *from, struct passage *packet,
				    const struct realm *realm)
{
	const struct iphdr *outer;
	const __u16 *link = 0;

	if (!from || !packet || !realm)
		return FRAME_DROP;
	outer = &packet->datagram.ip;
	if (!ready(frame, realm, sizeof(packet->datagram) + packet->octets, outer->saddr, outer->daddr, 0, &link))
		return punt(frame, from, NO_ROUTE);
	packet->datagram.sip = packet->sip;
	if (!make_room(frame, from, packet, sizeof(packet->datagram), ETH_P_IP) ||
	    !store(frame, from->link, &packet->datagram, sizeof(packet->datagram)) || !store_icmp(frame, packet))
		return drop(frame, NO_ROUTE);
	note_sent(frame, from->link + sizeof(*outer), SIP_OCTETS + packet->octets, outer, realm->number, from->now);
	return forward(frame, from, realm, outer, link, sip_reason(packet));
}

/* Send a SIP packet through IPv4 to the next IPAE system (seed IPAE 4.2.2, 5.2; spec 3.1, 3.5). */
static __noinline int into_datagram(frame_t *frame, struct ingress *from, struct passage *packet,
				    const struct endpoint *way)
{
	__s32 octets, room;
	struct realm *realm;
	struct way *known;
	__be32 remote;

	if (!from || !packet || !way)
		return FRAME_DROP;
	realm = realm_of(way->realm);
	if (!realm || !realm->interface)
		return drop(frame, NO_ROUTE);
	remote = way->flags & ENDPOINT_IMPLICIT ? packet->sip.dst[1] : way->remote[0];
	if (is_no_host(remote))
		return drop(frame, FORBIDDEN_SIP_ADDRESS);
	if (is_loop(from, packet, way, remote))
		return drop(frame, LOOP);
	known = way_of(way->realm, way->local[0], remote);
	if (is_doomed(known, packet))
		return punt(frame, from, TUNNEL_DOWN);
	octets = SIP_OCTETS + packet->octets;
	room = room_of(way, realm, known);
	/* Every way carries so much, if not whole: then IPv4 cuts it, which is the reference plane's to do. */
	if (octets > (room < LEAST_MTU ? LEAST_MTU : room) || octets + (__s32)sizeof(struct iphdr) > (__s32)realm->mtu)
		return punt(frame, from, TOO_BIG);
	if (is_our_end(way->realm, remote))
		return punt(frame, from, NO_ROUTE);
	datagram_header(&packet->datagram.ip, packet, way->local[0], remote, room >= LEAST_MTU);
	return send_datagram(frame, from, packet, realm);
}

#endif
