/* SPDX-License-Identifier: Dual BSD/GPL */
/* How a packet leaves the path at TC. Included by verdict.h; pairs with border/verdict.py. */
#ifndef ISTHMUS_LEAVE_TC_H
#define ISTHMUS_LEAVE_TC_H

static __always_inline int pass(frame_t *frame)
{
	count(frame, 0, PASSED);
	return TC_ACT_OK;
}

/* Give room for a link header to a packet that came without one. */
static __always_inline bool with_link(frame_t *frame, struct ingress *from)
{
	__be16 type = frame->protocol;

	if (from->link)
		return true;
	from->link = ETH_HLEN;
	return !bpf_skb_change_head(frame, ETH_HLEN, 0) &&
	       !bpf_skb_store_bytes(frame, ETH_HLEN - sizeof(type), &type, sizeof(type), 0);
}

/*
 * Write where a program's packet came from into the link header, for the reference plane: a source address of two
 * octets that no device of ours has, and the index of the device.
 */
static __always_inline bool note_device(frame_t *frame)
{
	__be32 index = bpf_htonl(frame->ifindex);
	__u8 source[ETH_ALEN] = { PUNTED_FROM >> 8, PUNTED_FROM & 0xff };

	__builtin_memcpy(source + 2, &index, sizeof(index));
	return !bpf_skb_store_bytes(frame, ETH_ALEN, source, sizeof(source), 0);
}

/* Hand a packet, as it came in, to the reference plane; without a way there, drop it. */
static __noinline int punt(frame_t *frame, struct ingress *from, enum reason why)
{
	struct realm *realm;

	if (!from)
		return FRAME_DROP;
	realm = realm_of(from->realm);
	if (!realm || !realm->punt || !with_link(frame, from) || (from->end == HOST && !note_device(frame)))
		return drop(frame, why);
	count(frame, from->realm, PUNTED);
	return bpf_redirect(realm->punt, 0);
}

/* Write the link addresses of a way out into the link header. */
static __always_inline bool store_link(frame_t *frame, const __u16 *link)
{
	return link && store(frame, 0, link, 2 * ETH_ALEN);
}

/* A packet may always be changed: what the way is, is asked afterwards. */
static __always_inline bool ready(frame_t *frame, const struct realm *realm, __u32 octets, __be32 src, __be32 dst,
				  __u8 tos, const __u16 **link)
{
	return true;
}

static __always_inline bool ready6(frame_t *frame, const struct realm *realm, __u32 octets, const __u16 **link)
{
	return true;
}

static __always_inline bool ready_neighbor(const struct realm *realm, __u32 octets, __be32 neighbor,
					   const __u16 **link)
{
	return true;
}

/* Whether packets may be given to programs from here. */
static __always_inline bool may_deliver(void)
{
	return true;
}

/* Send a finished packet on into a realm. */
static __always_inline int forward(frame_t *frame, struct ingress *from, const struct realm *realm,
				   const struct iphdr *header, const __u16 *link, enum reason why)
{
	enum way_out out;
	bool bare;

	if (!realm || !realm->interface)
		return drop(frame, NO_ROUTE);
	out = find_next_hop(frame, realm, header->saddr, header->daddr, header->tos & ~3, &link);
	bare = !from->link;
	if (out == OUT_NOWHERE || !with_link(frame, from) || (out == OUT_KNOWN && !bare && !store_link(frame, link)))
		return drop(frame, NO_ROUTE);
	count(frame, realm->number, why);
	if (out == OUT_KNOWN && !bare)
		return bpf_redirect(realm->interface, 0);
	/* This machine itself is known to SIP by an IPv4 address of the site, like its hosts. */
	if (out == OUT_NOT_FORWARDED && why == TRANSLATED_FROM_SIP && !bare)
		return TC_ACT_OK;
	return bpf_redirect_neigh(realm->interface, 0, 0, 0);
}

/* The same with an outer header of IPv6, which stands in the scratch. */
static __noinline int forward6_by(frame_t *frame, struct ingress *from, const struct realm *realm, enum reason why)
{
	const __u16 *link = 0;
	enum way_out out;
	bool bare;

	if (!from)
		return FRAME_DROP;
	if (!realm || !realm->interface)
		return drop(frame, NO_ROUTE);
	out = find_next_hop6(frame, realm->interface, &link);
	bare = !from->link;
	if (out == OUT_NOWHERE || !with_link(frame, from) || (out == OUT_KNOWN && !bare && !store_link(frame, link)))
		return drop(frame, NO_ROUTE);
	count(frame, realm->number, why);
	if (out == OUT_KNOWN && !bare)
		return bpf_redirect(realm->interface, 0);
	return bpf_redirect_neigh(realm->interface, 0, 0, 0);
}

static __always_inline int forward6(frame_t *frame, struct ingress *from, const struct realm *realm,
				    const __u16 *link, enum reason why)
{
	return forward6_by(frame, from, realm, why);
}

/*
 * Write the link addresses for a neighbour on a realm's link; false if bpf_redirect_neigh has to. The first packet of a
 * tick always goes that way, by which the kernel learns that the neighbour is in use and makes sure that it is there.
 */
static __always_inline int store_known_neighbor(frame_t *frame, const struct realm *realm, __be32 neighbor)
{
	struct next_hop *known = next_hop_of(0, neighbor);
	struct bpf_fib_lookup *route;

	if (!realm)
		return 0;
	if (is_next_hop(known, realm->interface, 0, neighbor, 0))
		return store(frame, 0, known->addresses, sizeof(known->addresses));
	route = question(realm->interface, 0, neighbor, 0);
	if (!route)
		return 0;
	keep_question(known, route);
	if (!bpf_fib_lookup(frame, route, sizeof(*route), BPF_FIB_LOOKUP_OUTPUT) && route->ifindex == realm->interface &&
	    route->ipv4_dst == neighbor)
		keep_answer(known, route);
	return 0;
}

/* Send a finished packet to a neighbour on a realm's link. */
static __always_inline int to_neighbor(frame_t *frame, struct ingress *from, const struct realm *realm, __be32 neighbor,
				       const __u16 *link, enum reason why)
{
	struct bpf_redir_neigh next = { .nh_family = AF_INET, .ipv4_nh = neighbor };
	bool bare = !from->link;

	if (!with_link(frame, from))
		return drop(frame, NO_ROUTE);
	count(frame, realm->number, why);
	if (!bare && store_known_neighbor(frame, realm, neighbor))
		return bpf_redirect(realm->interface, 0);
	return bpf_redirect_neigh(realm->interface, &next, sizeof(next), 0);
}

/*
 * Put a packet into a device, so that it arrives at the other end: past the transmit side of this one, if it is known where
 * the other is. In this network namespace it has to be there still, and up to that size.
 */
static __always_inline int into_device(frame_t *frame, __u32 device, const struct bpf_redir_neigh *next, bool bare)
{
	struct interface *end = bare ? 0 : interface_of(device);
	__u32 octets = 0;

	if (end && end->flags & INTERFACE_PEER_AWAY)
		return bpf_redirect_peer(device, 0);
	if (end && end->peer && !bpf_check_mtu(frame, end->peer, &octets, 0, 0) &&
	    put(frame, 0, end->link_address, sizeof(end->link_address)))
		return bpf_redirect(end->peer, BPF_F_INGRESS);
	/* Both ends of a device have one MAC address and do no ARP (docs/data-plane.md, Devices). */
	return bpf_redirect_neigh(device, (void *)next, sizeof(*next), 0);
}

/* Give a packet to the programs that use its binding: a device, or this machine's IP stack. */
static __always_inline int deliver(frame_t *frame, struct ingress *from, __be32 into, __u32 device, __be32 local)
{
	struct bpf_redir_neigh next = { .nh_family = AF_INET, .ipv4_nh = local };
	struct realm *realm = realm_of(into);
	bool bare = !from->link;

	if (!device && realm)
		device = realm->interface;
	if (device && !with_link(frame, from))
		return drop(frame, NO_ROUTE);
	count(frame, into, FORWARDED_INWARD);
	return device ? into_device(frame, device, &next, bare) : TC_ACT_OK;
}

#endif
