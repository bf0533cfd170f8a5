/* SPDX-License-Identifier: Dual BSD/GPL */
/*
 * How a packet leaves the path at XDP: sent on, where that is known to the last octet before anything is changed; dropped;
 * or left as it came, and uncounted, to the program at TC. Included by verdict.h.
 */
#ifndef ISTHMUS_LEAVE_XDP_H
#define ISTHMUS_LEAVE_XDP_H

/* Leave a packet to TC. */
static __always_inline int pass(frame_t *frame)
{
	return XDP_PASS;
}

static __always_inline int punt(frame_t *frame, const struct ingress *from, enum reason why)
{
	return XDP_PASS;
}

/* Whether a packet of so many octets may be changed and sent into a realm from here. */
static __always_inline bool takes(const struct realm *realm, __u32 octets)
{
	return realm && realm->interface && realm->flags & REALM_XDP && octets <= realm->mtu;
}

/* The same, and the way from src to dst is known: then *link has its link addresses. */
static __always_inline bool ready(frame_t *frame, const struct realm *realm, __u32 octets, __be32 src, __be32 dst,
				  __u8 tos, const __u16 **link)
{
	return takes(realm, octets) && find_next_hop(frame, realm, src, dst, tos & ~3, link) == OUT_KNOWN;
}

/* The same by the outer header of IPv6 that stands in the scratch. */
static __always_inline bool ready6(frame_t *frame, const struct realm *realm, __u32 octets, const __u16 **link)
{
	return takes(realm, octets) && find_next_hop6(frame, realm->interface, link) == OUT_KNOWN;
}

/* The same to a neighbour. What TC has not asked about in this tick goes there: the kernel learns that it is in use. */
static __always_inline bool ready_neighbor(const struct realm *realm, __u32 octets, __be32 neighbor,
					   const __u16 **link)
{
	struct next_hop *known = next_hop_of(0, neighbor);

	if (!takes(realm, octets) || !is_next_hop(known, realm->interface, 0, neighbor, 0))
		return false;
	*link = known->addresses;
	return true;
}

static __always_inline bool with_link(frame_t *frame, struct ingress *from)
{
	return true;
}

static __always_inline bool may_deliver(void)
{
	return false;
}

/* Write the link header, and send a finished packet on. */
static __always_inline int send(frame_t *frame, const struct realm *realm, __u16 type, const __u16 *link,
				enum reason why)
{
	__u16 header[ETH_HLEN / 2];

	if (!realm || !link)
		return drop(frame, NO_ROUTE);
	__builtin_memcpy(header, link, 2 * ETH_ALEN);
	header[ETH_ALEN] = bpf_htons(type);
	if (!store(frame, 0, header, sizeof(header)))
		return drop(frame, NO_ROUTE);
	count(frame, realm->number, why);
	return bpf_redirect(realm->interface, 0);
}

static __always_inline int forward(frame_t *frame, struct ingress *from, const struct realm *realm,
				   const struct iphdr *header, const __u16 *link, enum reason why)
{
	return send(frame, realm, ETH_P_IP, link, why);
}

static __always_inline int forward6(frame_t *frame, struct ingress *from, const struct realm *realm,
				    const __u16 *link, enum reason why)
{
	return send(frame, realm, ETH_P_IPV6, link, why);
}

static __always_inline int to_neighbor(frame_t *frame, struct ingress *from, const struct realm *realm, __be32 neighbor,
				       const __u16 *link, enum reason why)
{
	return send(frame, realm, ETH_P_IP, link, why);
}

static __always_inline int deliver(frame_t *frame, struct ingress *from, __be32 into, __u32 device, __be32 local)
{
	return XDP_PASS;
}

#endif
