/* SPDX-License-Identifier: Dual BSD/GPL */
/*
 * The way out of this machine: the link addresses that a packet gets, found before anything of the packet is changed.
 * The kernel's routing decides; what it said is used again until the next tick: for the same two addresses, and for
 * whatever is in one group with them, of which user space has found that all of it goes by one gateway
 * (plane/kernel/uniform.py).
 */
#ifndef ISTHMUS_NEXT_HOP_H
#define ISTHMUS_NEXT_HOP_H

#include <linux/if_ether.h>
#include <isthmus/scratch.h>

#define AF_INET 2
#define AF_INET6 10

/* What is known of the way to a destination. */
enum way_out {
	OUT_KNOWN,	   /* by an interface, with these link addresses */
	OUT_BY_KERNEL,	   /* no neighbour yet, or the interface does not forward (a host): the kernel finds the way itself */
	OUT_NOT_FORWARDED, /* the kernel would not forward that: to this machine, or without a route */
	OUT_NOWHERE,	   /* a route says that there is no way */
	OUT_NOT_ASKED,	   /* nothing yet */
};

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

/* The tick before this one: nothing that is known is of it. 0 would be wrong in the tick that has that number. */
static __always_inline __u32 no_tick(void)
{
	return bpf_jiffies64() - 1;
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
	known->tick = no_tick();
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

/* What an answer of the kernel means for a packet that goes out by an interface. */
static __always_inline enum way_out meaning(int answer, bool by_interface)
{
	switch (answer) {
	case BPF_FIB_LKUP_RET_SUCCESS:
		return by_interface ? OUT_KNOWN : OUT_BY_KERNEL;
	case BPF_FIB_LKUP_RET_BLACKHOLE:
	case BPF_FIB_LKUP_RET_UNREACHABLE:
	case BPF_FIB_LKUP_RET_PROHIBIT:
		return OUT_NOWHERE;
	case BPF_FIB_LKUP_RET_NOT_FWDED:
		return OUT_NOT_FORWARDED;
	}
	return OUT_BY_KERNEL;
}

/* Ask the kernel, and keep its answer. */
static __always_inline int ask(void *context, struct next_hop *known, __u32 interface, __be32 src, __be32 dst)
{
	struct bpf_fib_lookup *route;
	enum way_out out;

	route = question(interface, src, dst, known->tos);
	if (!route)
		return OUT_NOWHERE;
	keep_question(known, route);
	out = meaning(bpf_fib_lookup(context, route, sizeof(*route), BPF_FIB_LOOKUP_OUTPUT), route->ifindex == interface);
	if (out == OUT_KNOWN)
		keep_answer(known, route);
	return out;
}

static __noinline int ask_next_hop(void *context, struct next_hop *known, __u32 interface, __be32 src, __be32 dst)
{
	return known ? ask(context, known, interface, src, dst) : OUT_NOWHERE;
}

/* The number of the group that a destination is in; 0: of none. */
static __always_inline __u32 group_of(__be32 dst)
{
	__u32 address = bpf_ntohl(dst), element = address >> 24, word = 0;
	struct group_words *words;

	for (int shift = 16; shift >= 0; shift -= 8) {
		words = bpf_map_lookup_elem(&groups, &element);
		if (!words)
			return 0;
		word = words->word[address >> shift & (GROUP_WORDS - 1)];
		if (!(word & GROUP_MORE))
			return word;
		element = word & ~GROUP_MORE;
	}
	return 0;
}

/*
 * Ask the kernel about one destination of a group. The answer is one for the others, too, if it is what user space expects,
 * and user space has followed the kernel's routes until now. Routes by which a group goes have no TOS.
 */
static __noinline int ask_for_group(void *context, __u32 group, __u32 interface, __be32 src, __be32 dst)
{
	struct gateway *gateway = bpf_map_lookup_elem(&gateways, &group);
	struct next_hop *known = bpf_map_lookup_elem(&group_hops, &group);
	struct scratch *mine = this_scratch();
	struct followed *routes;
	__u32 zero = 0;
	int out;

	routes = bpf_map_lookup_elem(&followed, &zero);
	if (!gateway || !known || !mine || !routes)
		return OUT_NOT_ASKED;
	if (gateway->interface != interface || (__u32)mine->clock >= routes->until)
		return OUT_NOT_ASKED;
	known->tos = 0;
	out = ask(context, known, interface, src, dst);
	if (mine->route.family != AF_INET || mine->route.ipv4_dst != gateway->address)
		known->tick = no_tick();
	return out;
}

/* The way out for a destination of a group; OUT_NOT_ASKED: it has to be asked for by itself. */
static __always_inline int find_group_hop(void *context, __u32 interface, __be32 src, __be32 dst, const __u16 **link)
{
	__u32 group = group_of(dst);
	struct next_hop *known;

	if (!group)
		return OUT_NOT_ASKED;
	known = bpf_map_lookup_elem(&group_hops, &group);
	if (!known)
		return OUT_NOT_ASKED;
	*link = known->addresses;
	if (known->tick == (__u32)bpf_jiffies64() && known->interface == interface)
		return OUT_KNOWN;
	return ask_for_group(context, group, interface, src, dst);
}

/*
 * The way out by an interface for a packet from src to dst; with OUT_KNOWN, *link has the link addresses, destination and
 * source. "context" is that of the program, of TC or XDP.
 */
static __always_inline enum way_out find_next_hop(void *context, __u32 interface, __be32 src, __be32 dst, __u8 tos,
						  const __u16 **link)
{
	int out = find_group_hop(context, interface, src, dst, link);
	struct next_hop *known;

	if (out != OUT_NOT_ASKED)
		return out;
	known = next_hop_of(src, dst);
	if (!known)
		return OUT_NOWHERE;
	*link = known->addresses;
	if (is_next_hop(known, interface, src, dst, tos))
		return OUT_KNOWN;
	known->tos = tos;
	return ask_next_hop(context, known, interface, src, dst);
}

/* Where the answer about two addresses of IPv6 is kept, those of an outer header. */
static __always_inline struct next_hop6 *next_hop6_of(const struct ipv6hdr *header)
{
	__u32 number = 0;

	for (int i = 0; i < 4; i++)
		number = number * 31 + (header->saddr.in6_u.u6_addr32[i] ^ header->daddr.in6_u.u6_addr32[i] * 0x85ebca6bU);
	number = number * 0x9e3779b1U >> 22;
	return bpf_map_lookup_elem(&next_hops6, &number);
}

static __always_inline bool is_next_hop6(const struct next_hop6 *known, __u32 interface, const struct ipv6hdr *header)
{
	__u32 different = known->interface ^ interface;

	for (int i = 0; i < 4; i++) {
		different |= known->src[i] ^ header->saddr.in6_u.u6_addr32[i];
		different |= known->dst[i] ^ header->daddr.in6_u.u6_addr32[i];
	}
	return !different && known->tick == (__u32)bpf_jiffies64();
}

/* Ask the kernel for the way of the outer header in the scratch, and keep its answer. */
static __noinline int ask_next_hop6(void *context, struct next_hop6 *known, __u32 interface)
{
	struct scratch *mine = this_scratch();
	struct bpf_fib_lookup *route;
	enum way_out out;

	if (!mine || !known)
		return OUT_NOWHERE;
	route = &mine->route;
	__builtin_memset(route, 0, sizeof(*route));
	route->family = AF_INET6;
	route->ifindex = interface;
	__builtin_memcpy(route->ipv6_src, &mine->outer.saddr, sizeof(route->ipv6_src));
	__builtin_memcpy(route->ipv6_dst, &mine->outer.daddr, sizeof(route->ipv6_dst));
	out = meaning(bpf_fib_lookup(context, route, sizeof(*route), BPF_FIB_LOOKUP_OUTPUT), route->ifindex == interface);
	known->tick = no_tick();
	if (out != OUT_KNOWN)
		return out;
	known->interface = interface;
	__builtin_memcpy(known->src, &mine->outer.saddr, sizeof(known->src));
	__builtin_memcpy(known->dst, &mine->outer.daddr, sizeof(known->dst));
	__builtin_memcpy(known->addresses, route->dmac, ETH_ALEN);
	__builtin_memcpy(known->addresses + ETH_ALEN / 2, route->smac, ETH_ALEN);
	known->tick = bpf_jiffies64();
	return out;
}

/* The same for a packet with the outer header of IPv6 that stands in the scratch; its TOS is not asked about. */
static __always_inline enum way_out find_next_hop6(void *context, __u32 interface, const __u16 **link)
{
	struct scratch *mine = this_scratch();
	struct next_hop6 *known;

	if (!mine)
		return OUT_NOWHERE;
	known = next_hop6_of(&mine->outer);
	if (!known)
		return OUT_NOWHERE;
	*link = known->addresses;
	return is_next_hop6(known, interface, &mine->outer) ? OUT_KNOWN : ask_next_hop6(context, known, interface);
}

#endif
