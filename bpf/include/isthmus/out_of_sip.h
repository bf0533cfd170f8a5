/* SPDX-License-Identifier: Dual BSD/GPL */
/*
 * Out of SIP: a packet becomes one of IPv4, or of a program's IPv6 socket (seed IPAE 5.2; spec 3.4, 8.2).
 * Pairs with plane/reference/out_of_sip.py.
 */
#ifndef ISTHMUS_OUT_OF_SIP_H
#define ISTHMUS_OUT_OF_SIP_H

#include <isthmus/ring.h>
#include <isthmus/translate_ipv6.h>
#include <isthmus/verdict.h>

/* Give a packet to a device. Both ends have one MAC address and ask nobody for others (docs/data-plane.md, Devices). */
static __noinline int to_device(frame_t *frame, struct ingress *from, struct passage *packet,
				const struct endpoint *way)
{
	struct bpf_redir_neigh next = { .nh_family = AF_INET };
	struct realm *realm;
	__u32 device;

	if (!from || !packet || !way)
		return FRAME_DROP;
	device = way->device;
	realm = realm_of(way->realm);
	if (!device && realm)
		device = realm->interface;
	if (!device || !with_link(frame, from))
		return drop(frame, NO_ROUTE);
	next.ipv4_nh = packet->datagram.ip.daddr;
	if (way->family == FAMILY_IPV6) {
		next.nh_family = AF_INET6;
		__builtin_memcpy(next.ipv6_nh, &packet->ip6.daddr, sizeof(next.ipv6_nh));
	}
	count(frame, way->realm, TRANSLATED_FROM_SIP);
	return bpf_redirect_neigh(device, &next, sizeof(next), 0);
}

/* Write the header of the IPv4 packet that a SIP packet becomes (seed IPAE 5.2; spec 3.4). */
static __always_inline void ipv4_header(struct iphdr *header, const struct passage *packet, __be32 src, __be32 dst)
{
	__builtin_memset(header, 0, sizeof(*header));
	header->version = 4;
	header->ihl = 5;
	header->tot_len = bpf_htons(sizeof(*header) + packet->octets);
	header->id = bpf_htons(next_slot());
	header->frag_off = has_c_bit(packet->sip.src) ? bpf_htons(IP_DF) : 0;
	header->ttl = packet->sip.hop_limit;
	header->protocol = packet->sip.type;
	header->saddr = src;
	header->daddr = dst;
	header->check = checksum(header);
}

/* Send a SIP packet on as IPv4 (seed IPAE 5.2; spec 3.4). */
static __noinline int to_ipv4(frame_t *frame, struct ingress *from, struct passage *packet,
			      const struct endpoint *way)
{
	const __u16 *link = 0;
	struct realm *realm;
	__be32 src, dst;

	if (!from || !packet || !way)
		return FRAME_DROP;
	realm = realm_of(way->realm);
	if (!realm)
		return drop(frame, NO_ROUTE);
	if (packet->sip.type == IPPROTO_ICMP && !with_pseudo_header(frame, packet, false))
		return punt(frame, from, NO_ROUTE);
	dst = join4(way->local[0], way->image, number(packet->sip.dst));
	if (!in_ipv4(way->realm, packet->realm, packet->sip.src, &src))
		return punt(frame, from, NO_IMAGE);
	if (is_no_host(src) || is_no_host(dst))
		return drop(frame, FORBIDDEN_SIP_ADDRESS);
	if (sizeof(struct iphdr) + packet->octets > realm->mtu)
		return punt(frame, from, TOO_BIG);
	if (!way->device && begins_again(way->realm, dst, packet->sip.type))
		return punt(frame, from, NO_ROUTE);
	if (way->device ? !may_deliver() :
			  !ready(frame, realm, sizeof(struct iphdr) + packet->octets, src, dst, 0, &link))
		return punt(frame, from, NO_ROUTE);
	ipv4_header(&packet->datagram.ip, packet, src, dst);
	if (!make_room(frame, from, packet, sizeof(struct iphdr), ETH_P_IP) ||
	    !store(frame, from->link, &packet->datagram.ip, sizeof(packet->datagram.ip)) || !store_icmp(frame, packet))
		return drop(frame, NO_ROUTE);
	if (way->device && may_deliver())
		return to_device(frame, from, packet, way);
	return forward(frame, from, realm, &packet->datagram.ip, link, TRANSLATED_FROM_SIP);
}

/* Whether UDP has a checksum, or what it has is cut off: IPv6 wants one (RFC 8200 §8.1). */
static __always_inline bool has_udp_checksum(frame_t *frame, const struct passage *packet)
{
	struct udphdr head;

	return packet->octets < sizeof(head) || (load(frame, packet->at, &head, sizeof(head)) && head.check);
}

/* Write the header of the IPv6 packet that a SIP packet becomes (spec 8.2). */
static __always_inline void ipv6_header(struct ipv6hdr *header, const struct passage *packet,
					const struct endpoint *way)
{
	bool compatible = way->flags & ENDPOINT_COMPATIBLE &&
			  (has_c_bit(packet->sip.src) || has_c_bit(packet->sip.dst));

	__builtin_memset(header, 0, sizeof(*header));
	header->version = 6;
	header->payload_len = packet->sip.octets;
	header->nexthdr = packet->sip.type == IPPROTO_ICMP ? IPPROTO_ICMPV6 : packet->sip.type;
	header->hop_limit = packet->sip.hop_limit;
	ipv6_address(header->saddr.in6_u.u6_addr32, way, packet->sip.src, compatible);
	ipv6_address(header->daddr.in6_u.u6_addr32, way, packet->sip.dst, compatible);
}

/* Give a SIP packet to a program, by its IPv6 socket (spec 8.2). */
static __noinline int to_ipv6(frame_t *frame, struct ingress *from, struct passage *packet,
			      const struct endpoint *way)
{
	struct realm *realm;

	if (!from || !packet || !way)
		return FRAME_DROP;
	realm = realm_of(way->realm);
	if (way->image != 64 || !may_deliver())
		return punt(frame, from, NO_ROUTE);
	ipv6_header(&packet->ip6, packet, way);
	if (packet->sip.type == IPPROTO_ICMP && !to_icmpv6(frame, packet))
		return punt(frame, from, NO_ROUTE);
	if (packet->sip.type == IPPROTO_UDP && !has_udp_checksum(frame, packet))
		return punt(frame, from, NO_ROUTE);
	if (realm && sizeof(packet->ip6) + packet->octets > realm->mtu)
		return punt(frame, from, TOO_BIG);
	if (!make_room(frame, from, packet, sizeof(packet->ip6), ETH_P_IPV6) ||
	    !store(frame, from->link, &packet->ip6, sizeof(packet->ip6)) || !store_icmp(frame, packet))
		return drop(frame, NO_ROUTE);
	return may_deliver() ? to_device(frame, from, packet, way) : FRAME_DROP;
}

/* Write a packet as one of the realm that it goes to (seed IPAE 5.2; spec 3.4, 8.2). */
static __always_inline int out_of_sip(frame_t *frame, struct ingress *from, struct passage *packet,
				      const struct endpoint *way)
{
	if (has_options(&packet->sip))
		return punt(frame, from, NO_ROUTE);
	if (packet->sip.type == IPPROTO_IPV6)
		return drop(frame, NOT_SIP);
	if (packet->sip.type == IPPROTO_ICMP && packet->octets < sizeof(packet->icmp))
		return drop(frame, MALFORMED);
	if (way->family == FAMILY_IPV6)
		return to_ipv6(frame, from, packet, way);
	return way->family == FAMILY_IPV4 ? to_ipv4(frame, from, packet, way) : punt(frame, from, NO_ROUTE);
}

#endif
