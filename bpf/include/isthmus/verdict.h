/* SPDX-License-Identifier: Dual BSD/GPL */
/*
 * The ways that a packet leaves the path, each counted by its reason. drop() is the only way
 * to drop. Pairs with border/verdict.py.
 */
#ifndef ISTHMUS_VERDICT_H
#define ISTHMUS_VERDICT_H

#include <linux/pkt_cls.h>
#include <isthmus/classify.h>
#include <isthmus/lookup.h>
#include <isthmus/maps.h>

#define AF_INET 2
#define EVENTS_PER_SECOND 1000 /* on each processor */

/* Where a packet came in. */
struct ingress {
	__be32 realm;
	__u32 now;     /* CLOCK_BOOTTIME, seconds */
	__be32 sender; /* of a tunnelled packet: the outer source */
	__u8 kind;     /* and its tunnel type, or 0 */
	__u8 end;
	__u8 link; /* octets of the link header */
};

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
	__be16 type = bpf_htons(ETH_P_IP);

	if (from->link)
		return true;
	from->link = ETH_HLEN;
	return !bpf_skb_change_head(skb, ETH_HLEN, 0) &&
	       !bpf_skb_store_bytes(skb, ETH_HLEN - sizeof(type), &type, sizeof(type), 0);
}

/* Hand a packet, as it came in, to the reference plane; without a way there, drop it. */
static __noinline int punt(struct __sk_buff *skb, struct ingress *from, enum reason why)
{
	struct realm *realm;

	if (!from)
		return TC_ACT_SHOT;
	realm = realm_of(from->realm);
	if (!realm || !realm->punt || !with_link(skb, from))
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
	event->owner[0] = from->sender;
	event->tunnel_kind = from->kind;
	if (flow) {
		event->flags = EVENT_FLOW | (flow->has_remote_port ? EVENT_REMOTE_PORT : 0);
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

/* Send a finished packet on into a realm. */
static __noinline int forward(struct __sk_buff *skb, struct ingress *from, __be32 into, const struct iphdr *header,
			      enum reason why)
{
	struct bpf_fib_lookup route = { .family = AF_INET };
	struct realm *realm;
	bool bare;

	if (!from || !header)
		return TC_ACT_SHOT;
	realm = realm_of(into);
	if (!realm || !realm->interface)
		return drop(skb, NO_ROUTE);
	route.ifindex = realm->interface;
	route.tos = header->tos & ~3;
	route.ipv4_src = header->saddr;
	route.ipv4_dst = header->daddr;
	bare = !from->link;
	if (!with_link(skb, from))
		return drop(skb, NO_ROUTE);
	switch (bpf_fib_lookup(skb, &route, sizeof(route), BPF_FIB_LOOKUP_OUTPUT)) {
	case BPF_FIB_LKUP_RET_SUCCESS:
		if (bare || route.ifindex != realm->interface)
			break;
		if (!store(skb, 0, route.dmac, ETH_ALEN) || !store(skb, ETH_ALEN, route.smac, ETH_ALEN))
			return drop(skb, NO_ROUTE);
		count(skb, into, why);
		return bpf_redirect(realm->interface, 0);
	case BPF_FIB_LKUP_RET_BLACKHOLE:
	case BPF_FIB_LKUP_RET_UNREACHABLE:
	case BPF_FIB_LKUP_RET_PROHIBIT:
		return drop(skb, NO_ROUTE);
	}
	/* No neighbour yet, or the interface does not forward (a host): the kernel finds the way itself. */
	count(skb, into, why);
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
