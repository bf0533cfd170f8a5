/* SPDX-License-Identifier: Dual BSD/GPL */
/*
 * The ways that a packet leaves the path, each counted by its reason. drop() is the only way
 * to drop. Pairs with border/verdict.py.
 */
#ifndef ISTHMUS_VERDICT_H
#define ISTHMUS_VERDICT_H

#include <stddef.h>
#include <linux/pkt_cls.h>
#include <isthmus/lookup.h>

#define AF_INET 2
#define AF_INET6 10
#define PUNTED_FROM 0x0669 /* locally administered; plane/link/packet.py */
#define EVENTS_PER_SECOND 1000 /* on each processor */

/* Count a packet, and leave a note of what was decided for tests and tracing: realm, and reason plus one. */
static __always_inline void count(struct __sk_buff *skb, __be32 realm, enum reason why)
{
	__u32 number = why;
	__u64 *packets = bpf_map_lookup_elem(&counters, &number);

	if (packets)
		*packets += 1;
	skb->cb[0] = realm;
	skb->cb[1] = number + 1;
}

static __always_inline int pass(struct __sk_buff *skb)
{
	count(skb, 0, PASSED);
	return TC_ACT_OK;
}

static __noinline int drop(struct __sk_buff *skb, enum reason why)
{
	count(skb, 0, why);
	return TC_ACT_SHOT;
}

/* Give room for a link header to a packet that came without one. */
static __always_inline bool with_link(struct __sk_buff *skb, struct ingress *from)
{
	__be16 type = skb->protocol;

	if (from->link)
		return true;
	from->link = ETH_HLEN;
	return !bpf_skb_change_head(skb, ETH_HLEN, 0) &&
	       !bpf_skb_store_bytes(skb, ETH_HLEN - sizeof(type), &type, sizeof(type), 0);
}

/*
 * Write where a program's packet came from into the link header, for the reference plane: a source address of two
 * octets that no device of ours has, and the index of the device.
 */
static __always_inline bool note_device(struct __sk_buff *skb)
{
	__be32 index = bpf_htonl(skb->ifindex);
	__u8 source[ETH_ALEN] = { PUNTED_FROM >> 8, PUNTED_FROM & 0xff };

	__builtin_memcpy(source + 2, &index, sizeof(index));
	return !bpf_skb_store_bytes(skb, ETH_ALEN, source, sizeof(source), 0);
}

/* Hand a packet, as it came in, to the reference plane; without a way there, drop it. */
static __noinline int punt(struct __sk_buff *skb, struct ingress *from, enum reason why)
{
	struct realm *realm;

	if (!from)
		return TC_ACT_SHOT;
	realm = realm_of(from->realm);
	if (!realm || !realm->punt || !with_link(skb, from) || (from->end == HOST && !note_device(skb)))
		return drop(skb, why);
	count(skb, from->realm, PUNTED);
	return bpf_redirect(realm->punt, 0);
}

/* Whether one more event may be told of in this second. */
static __always_inline bool may_tell(__u32 now)
{
	struct limit *limit;
	__u32 zero = 0;

	limit = bpf_map_lookup_elem(&limited, &zero);
	if (!limit)
		return false;
	if (limit->second != now) {
		limit->second = now;
		limit->told = 0;
	}
	return limit->told++ < EVENTS_PER_SECOND;
}

/* Tell the protocol of a violation, and drop the packet (RFC 3103 §10.4). */
static __noinline int violation(struct __sk_buff *skb, const struct ingress *from, const struct flow *flow,
				enum reason why)
{
	struct event *event;

	if (!from || !may_tell(from->now))
		return drop(skb, why);
	event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);
	if (!event)
		return drop(skb, why);
	__builtin_memset(event, 0, sizeof(*event));
	event->reason = why;
	event->realm = from->realm;
	if (from->over6)
		bpf_skb_load_bytes(skb, from->link + offsetof(struct ipv6hdr, saddr), event->owner, 16);
	else
		bpf_skb_load_bytes(skb, from->link + offsetof(struct iphdr, saddr), event->owner, 4);
	event->tunnel_kind = from->kind;
	event->flags = from->over6 ? EVENT_IPV6 : 0;
	if (flow) {
		event->flags |= EVENT_FLOW | (flow->has_remote_port ? EVENT_REMOTE_PORT : 0);
		event->flow_realm = flow->realm;
		event->kind = flow->kind;
		event->value = flow->value;
		event->local[0] = flow->local;
		event->remote[0] = flow->remote;
		event->remote_port = flow->remote_port;
	}
	bpf_ringbuf_submit(event, 0);
	return drop(skb, why);
}

/* Write the link addresses of a route into the link header. */
static __always_inline bool store_neighbor(struct __sk_buff *skb, const struct bpf_fib_lookup *route)
{
	__u16 addresses[ETH_ALEN]; /* as octets, two of them */

	__builtin_memcpy(addresses, route->dmac, ETH_ALEN);
	__builtin_memcpy(addresses + ETH_ALEN / 2, route->smac, ETH_ALEN);
	return store(skb, 0, addresses, sizeof(addresses));
}

/*
 * Where the answer about two addresses is kept. Asking the kernel costs more than anything else that is done to a packet, so
 * it is asked once in a tick.
 */
static __always_inline struct next_hop *next_hop_of(__be32 src, __be32 dst)
{
	__u32 number = (bpf_ntohl(src) * 31 + bpf_ntohl(dst)) * 0x9e3779b1U >> 20;

	return bpf_map_lookup_elem(&next_hops, &number);
}

static __always_inline bool is_next_hop(const struct next_hop *known, __u32 interface, __be32 src, __be32 dst, __u8 tos)
{
	return known && known->tick == (__u32)bpf_jiffies64() && known->dst == dst && known->src == src &&
	       known->interface == interface && known->tos == tos;
}

/* Put a question to the kernel's routing; in the scratch, because the stack is short. */
static __always_inline struct bpf_fib_lookup *question(__u32 interface, __be32 src, __be32 dst, __u8 tos)
{
	struct scratch *mine = this_scratch();

	if (!mine)
		return 0;
	__builtin_memset(&mine->route, 0, sizeof(mine->route));
	mine->route.family = AF_INET;
	mine->route.ifindex = interface;
	mine->route.tos = tos;
	mine->route.ipv4_src = src;
	mine->route.ipv4_dst = dst;
	return &mine->route;
}

/* Keep what was asked; what the kernel says of it comes later. */
static __always_inline void keep_question(struct next_hop *known, const struct bpf_fib_lookup *asked)
{
	if (!known)
		return;
	known->tick = 0;
	known->interface = asked->ifindex;
	known->src = asked->ipv4_src;
	known->dst = asked->ipv4_dst;
	known->tos = asked->tos;
}

static __always_inline void keep_answer(struct next_hop *known, const struct bpf_fib_lookup *route)
{
	if (!known)
		return;
	__builtin_memcpy(known->addresses, route->dmac, ETH_ALEN);
	__builtin_memcpy(known->addresses + ETH_ALEN / 2, route->smac, ETH_ALEN);
	known->tick = bpf_jiffies64();
}

/* Send a finished packet on into a realm. */
static __noinline int forward(struct __sk_buff *skb, struct ingress *from, const struct realm *realm,
			      const struct iphdr *header, enum reason why)
{
	struct bpf_fib_lookup *route;
	struct next_hop *known;
	bool bare;

	if (!from || !header)
		return TC_ACT_SHOT;
	if (!realm || !realm->interface)
		return drop(skb, NO_ROUTE);
	known = next_hop_of(header->saddr, header->daddr);
	bare = !from->link;
	if (!bare && is_next_hop(known, realm->interface, header->saddr, header->daddr, header->tos & ~3)) {
		if (!store(skb, 0, known->addresses, sizeof(known->addresses)))
			return drop(skb, NO_ROUTE);
		count(skb, realm->number, why);
		return bpf_redirect(realm->interface, 0);
	}
	route = question(realm->interface, header->saddr, header->daddr, header->tos & ~3);
	if (!route)
		return drop(skb, NO_ROUTE);
	keep_question(known, route);
	if (!with_link(skb, from))
		return drop(skb, NO_ROUTE);
	switch (bpf_fib_lookup(skb, route, sizeof(*route), BPF_FIB_LOOKUP_OUTPUT)) {
	case BPF_FIB_LKUP_RET_SUCCESS:
		if (bare || route->ifindex != realm->interface)
			break;
		if (!store_neighbor(skb, route))
			return drop(skb, NO_ROUTE);
		keep_answer(known, route);
		count(skb, realm->number, why);
		return bpf_redirect(realm->interface, 0);
	case BPF_FIB_LKUP_RET_BLACKHOLE:
	case BPF_FIB_LKUP_RET_UNREACHABLE:
	case BPF_FIB_LKUP_RET_PROHIBIT:
		return drop(skb, NO_ROUTE);
	case BPF_FIB_LKUP_RET_NOT_FWDED:
		/* This machine itself is known to SIP by an IPv4 address of the site, like its hosts. */
		if (why != TRANSLATED_FROM_SIP || bare)
			break;
		count(skb, realm->number, why);
		return TC_ACT_OK;
	}
	/* No neighbour yet, or the interface does not forward (a host): the kernel finds the way itself. */
	count(skb, realm->number, why);
	return bpf_redirect_neigh(realm->interface, 0, 0, 0);
}

/* The same with an outer header of IPv6, which stands in the scratch. */
static __noinline int forward6(struct __sk_buff *skb, struct ingress *from, const struct realm *realm,
			       enum reason why)
{
	struct scratch *mine = this_scratch();
	struct bpf_fib_lookup *route;
	bool bare;

	if (!from || !mine)
		return TC_ACT_SHOT;
	if (!realm || !realm->interface)
		return drop(skb, NO_ROUTE);
	route = &mine->route;
	__builtin_memset(route, 0, sizeof(*route));
	route->family = AF_INET6;
	route->ifindex = realm->interface;
	__builtin_memcpy(route->ipv6_src, &mine->outer.saddr, sizeof(route->ipv6_src));
	__builtin_memcpy(route->ipv6_dst, &mine->outer.daddr, sizeof(route->ipv6_dst));
	bare = !from->link;
	if (!with_link(skb, from))
		return drop(skb, NO_ROUTE);
	switch (bpf_fib_lookup(skb, route, sizeof(*route), BPF_FIB_LOOKUP_OUTPUT)) {
	case BPF_FIB_LKUP_RET_SUCCESS:
		if (bare || route->ifindex != realm->interface)
			break;
		if (!store_neighbor(skb, route))
			return drop(skb, NO_ROUTE);
		count(skb, realm->number, why);
		return bpf_redirect(realm->interface, 0);
	case BPF_FIB_LKUP_RET_BLACKHOLE:
	case BPF_FIB_LKUP_RET_UNREACHABLE:
	case BPF_FIB_LKUP_RET_PROHIBIT:
		return drop(skb, NO_ROUTE);
	}
	count(skb, realm->number, why);
	return bpf_redirect_neigh(realm->interface, 0, 0, 0);
}

/* Give a packet to the programs that use its binding: a device, or this machine's IP stack. */
static __always_inline int deliver(struct __sk_buff *skb, struct ingress *from, __be32 into, __u32 device, __be32 local)
{
	struct bpf_redir_neigh next = { .nh_family = AF_INET, .ipv4_nh = local };
	struct realm *realm = realm_of(into);

	if (!device && realm)
		device = realm->interface;
	if (device && !with_link(skb, from))
		return drop(skb, NO_ROUTE);
	count(skb, into, FORWARDED_INWARD);
	/* Both ends of a device have one MAC address and do no ARP (docs/data-plane.md, Devices). */
	return device ? bpf_redirect_neigh(device, &next, sizeof(next), 0) : TC_ACT_OK;
}

#endif
