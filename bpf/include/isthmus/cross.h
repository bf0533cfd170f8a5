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

/*
 * Write the link addresses for a neighbour on a realm's link; false if bpf_redirect_neigh has to. The first packet of a
 * tick always goes that way, by which the kernel learns that the neighbour is in use and makes sure that it is there.
 */
static __always_inline int store_known_neighbor(struct __sk_buff *skb, const struct realm *realm, __be32 neighbor)
{
	struct next_hop *known = next_hop_of(0, neighbor);
	struct bpf_fib_lookup *route;

	if (!realm)
		return 0;
	if (is_next_hop(known, realm->interface, 0, neighbor, 0))
		return store(skb, 0, known->addresses, sizeof(known->addresses));
	route = question(realm->interface, 0, neighbor, 0);
	if (!route)
		return 0;
	keep_question(known, route);
	if (!bpf_fib_lookup(skb, route, sizeof(*route), BPF_FIB_LOOKUP_OUTPUT) && route->ifindex == realm->interface &&
	    route->ipv4_dst == neighbor)
		keep_answer(known, route);
	return 0;
}

/* Send a SIP packet on as it is (seed IPAE 4.2.1; RFC 8507 §8.4). */
static __always_inline int native(struct __sk_buff *skb, struct ingress *from, struct passage *packet,
			     const struct endpoint *way)
{
	struct bpf_redir_neigh next = { .nh_family = AF_INET };
	struct realm *realm;
	bool bare;

	if (!from || !packet || !way)
		return TC_ACT_SHOT;
	bare = !from->link;
	realm = realm_of(way->realm);
	if (!realm || !realm->interface)
		return drop(skb, NO_ROUTE);
	next.ipv4_nh = way->flags & ENDPOINT_IMPLICIT ? packet->sip.dst[1] : way->remote[0];
	if (is_no_host(next.ipv4_nh))
		return drop(skb, FORBIDDEN_SIP_ADDRESS);
	if (SIP_OCTETS + packet->octets > realm->mtu)
		return punt(skb, from, TOO_BIG);
	if (!make_room(skb, from, packet, SIP_OCTETS, ETH_P_IP) ||
	    !store(skb, from->link, &packet->sip, sizeof(packet->sip)) || !store_icmp(skb, packet) ||
	    !with_link(skb, from))
		return drop(skb, NO_ROUTE);
	count(skb, realm->number, sip_reason(packet));
	if (!bare && store_known_neighbor(skb, realm, next.ipv4_nh))
		return bpf_redirect(realm->interface, 0);
	return bpf_redirect_neigh(realm->interface, &next, sizeof(next), 0);
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
static __always_inline int send_datagram(struct __sk_buff *skb, struct ingress *from, struct passage *packet,
				    const struct realm *realm)
{
	const struct iphdr *outer;

	if (!from || !packet || !realm)
		return TC_ACT_SHOT;
	outer = &packet->datagram.ip;
	packet->datagram.sip = packet->sip;
	if (!make_room(skb, from, packet, sizeof(packet->datagram), ETH_P_IP) ||
	    !store(skb, from->link, &packet->datagram, sizeof(packet->datagram)) || !store_icmp(skb, packet))
		return drop(skb, NO_ROUTE);
	note_sent(skb, from->link + sizeof(*outer), SIP_OCTETS + packet->octets, outer, realm->number, from->now);
	return forward(skb, from, realm, outer, sip_reason(packet));
}

/* Send a SIP packet through IPv4 to the next IPAE system (seed IPAE 4.2.2, 5.2; spec 3.1, 3.5). */
static __noinline int into_datagram(struct __sk_buff *skb, struct ingress *from, struct passage *packet,
				    const struct endpoint *way)
{
	__s32 octets, room;
	struct realm *realm;
	struct way *known;
	__be32 remote;

	if (!from || !packet || !way)
		return TC_ACT_SHOT;
	realm = realm_of(way->realm);
	if (!realm || !realm->interface)
		return drop(skb, NO_ROUTE);
	remote = way->flags & ENDPOINT_IMPLICIT ? packet->sip.dst[1] : way->remote[0];
	if (is_no_host(remote))
		return drop(skb, FORBIDDEN_SIP_ADDRESS);
	if (is_loop(from, packet, way, remote))
		return drop(skb, LOOP);
	known = way_of(way->realm, way->local[0], remote);
	if (is_doomed(known, packet))
		return punt(skb, from, TUNNEL_DOWN);
	octets = SIP_OCTETS + packet->octets;
	room = room_of(way, realm, known);
	/* Every way carries so much, if not whole: then IPv4 cuts it, which is the reference plane's to do. */
	if (octets > (room < LEAST_MTU ? LEAST_MTU : room) || octets + (__s32)sizeof(struct iphdr) > (__s32)realm->mtu)
		return punt(skb, from, TOO_BIG);
	if (is_our_end(way->realm, remote))
		return punt(skb, from, NO_ROUTE);
	datagram_header(&packet->datagram.ip, packet, way->local[0], remote, room >= LEAST_MTU);
	return send_datagram(skb, from, packet, realm);
}

#endif
