/* SPDX-License-Identifier: Dual BSD/GPL */
/*
 * The way out of this machine: the link addresses that a packet gets, found before anything of the packet is changed.
 * The kernel's routing decides; what it said is used again until the next tick: for the same two addresses, and for
 * whatever is in one group with them, of which user space has found that all of it goes by one gateway
 * (plane/kernel/uniform.py, uniform_ipv6.py).
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

/*
 * Ask the kernel, and keep its answer. By an interface that does not forward, as a host's, it says nothing: then it is
 * asked about what comes from the port, which does forward, because what the reference plane sends goes that way. The
 * packet itself is left to the kernel, which so learns once in a tick that the neighbour is in use.
 */
static __always_inline int ask(void *context, struct next_hop *known, const struct realm *realm, __be32 src, __be32 dst)
{
	struct bpf_fib_lookup *route;
	enum way_out out;
	int answer;

	route = question(realm->interface, src, dst, known->tos);
	if (!route)
		return OUT_NOWHERE;
	keep_question(known, route);
	answer = bpf_fib_lookup(context, route, sizeof(*route), BPF_FIB_LOOKUP_OUTPUT);
	out = meaning(answer, route->ifindex == realm->interface);
	if (answer == BPF_FIB_LKUP_RET_FWD_DISABLED && realm->punt && !AT_XDP) {
		route->ifindex = realm->punt;
		if (!bpf_fib_lookup(context, route, sizeof(*route), 0) && route->ifindex == realm->interface)
			keep_answer(known, route);
	}
	if (out == OUT_KNOWN)
		keep_answer(known, route);
	return out;
}

static __noinline int ask_next_hop(void *context, struct next_hop *known, const struct realm *realm, __be32 src,
				   __be32 dst)
{
	return known && realm ? ask(context, known, realm, src, dst) : OUT_NOWHERE;
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
static __noinline int ask_for_group(void *context, __u32 group, const struct realm *realm, __be32 src, __be32 dst)
{
	struct gateway *gateway = bpf_map_lookup_elem(&gateways, &group);
	struct next_hop *known = bpf_map_lookup_elem(&group_hops, &group);
	struct scratch *mine = this_scratch();
	struct followed *routes;
	__u32 zero = 0;
	int out;

	routes = bpf_map_lookup_elem(&followed, &zero);
	if (!gateway || !known || !mine || !routes || !realm)
		return OUT_NOT_ASKED;
	if (gateway->interface != realm->interface || (__u32)mine->clock >= routes->until)
		return OUT_NOT_ASKED;
	known->tos = 0;
	out = ask(context, known, realm, src, dst);
	if (mine->route.family != AF_INET || mine->route.ipv4_dst != gateway->address[0])
		known->tick = no_tick();
	return out;
}

/* The way out for a destination of a group; OUT_NOT_ASKED: it has to be asked for by itself. */
static __always_inline int find_group_hop(void *context, const struct realm *realm, __be32 src, __be32 dst,
					  const __u16 **link)
{
	__u32 group = group_of(dst);
	struct next_hop *known;

	if (!group)
		return OUT_NOT_ASKED;
	known = bpf_map_lookup_elem(&group_hops, &group);
	if (!known)
		return OUT_NOT_ASKED;
	*link = known->addresses;
	if (known->tick == (__u32)bpf_jiffies64() && known->interface == realm->interface)
		return OUT_KNOWN;
	return ask_for_group(context, group, realm, src, dst);
}

/*
 * The way out by a realm's interface for a packet from src to dst; with OUT_KNOWN, *link has the link addresses, destination and
 * source. "context" is that of the program, of TC or XDP.
 */
static __always_inline enum way_out find_next_hop(void *context, const struct realm *realm, __be32 src, __be32 dst,
						  __u8 tos, const __u16 **link)
{
	int out = find_group_hop(context, realm, src, dst, link);
	struct next_hop *known;

	if (out != OUT_NOT_ASKED)
		return out;
	known = next_hop_of(src, dst);
	if (!known)
		return OUT_NOWHERE;
	*link = known->addresses;
	if (is_next_hop(known, realm->interface, src, dst, tos))
		return OUT_KNOWN;
	known->tos = tos;
	return ask_next_hop(context, known, realm, src, dst);
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

/* Where the answer about all destinations that differ in their last 24 bits only is kept. */
static __always_inline struct wide_hop6 *wide_hop_of(const __be32 *dst)
{
	__u32 number = dst[0] * 0x9e3779b1U ^ dst[1] * 0x85ebca6bU ^ dst[2] * 0xc2b2ae35U;

	number = (number ^ (dst[3] & bpf_htonl(0xff000000))) * 0x27d4eb2fU >> 24;
	return bpf_map_lookup_elem(&wide_hops6, &number);
}

static __always_inline bool is_wide_hop(const struct wide_hop6 *known, __u32 interface, const __be32 *dst)
{
	__u32 different = known->interface ^ interface;

	for (int i = 0; i < 3; i++)
		different |= known->dst[i] ^ dst[i];
	different |= known->dst[3] ^ (dst[3] & bpf_htonl(0xff000000));
	return !different && known->tick == (__u32)bpf_jiffies64();
}

/* Ask the kernel for the way of the outer header in the scratch. */
static __always_inline enum way_out ask6(void *context, struct scratch *mine, __u32 interface)
{
	struct bpf_fib_lookup *route = &mine->route;

	__builtin_memset(route, 0, sizeof(*route));
	route->family = AF_INET6;
	route->ifindex = interface;
	__builtin_memcpy(route->ipv6_src, &mine->outer.saddr, sizeof(route->ipv6_src));
	__builtin_memcpy(route->ipv6_dst, &mine->outer.daddr, sizeof(route->ipv6_dst));
	return meaning(bpf_fib_lookup(context, route, sizeof(*route), BPF_FIB_LOOKUP_OUTPUT), route->ifindex == interface);
}

static __always_inline void keep_link(__u16 *addresses, const struct bpf_fib_lookup *route)
{
	__builtin_memcpy(addresses, route->dmac, ETH_ALEN);
	__builtin_memcpy(addresses + ETH_ALEN / 2, route->smac, ETH_ALEN);
}

/* Find the way of the outer header in the scratch in what is known; there are its link addresses, then. */
static __noinline int recall_next_hop6(__u32 interface)
{
	struct scratch *mine = this_scratch();
	struct next_hop6 *known;
	struct wide_hop6 *wide;

	if (!mine)
		return OUT_NOT_ASKED;
	wide = wide_hop_of(mine->outer.daddr.in6_u.u6_addr32);
	if (wide && is_wide_hop(wide, interface, mine->outer.daddr.in6_u.u6_addr32)) {
		__builtin_memcpy(mine->link, wide->addresses, sizeof(mine->link));
		return OUT_KNOWN;
	}
	known = next_hop6_of(&mine->outer);
	if (!known || !is_next_hop6(known, interface, &mine->outer))
		return OUT_NOT_ASKED;
	__builtin_memcpy(mine->link, known->addresses, sizeof(mine->link));
	return OUT_KNOWN;
}

/* Ask the kernel, and keep its answer for these two addresses. */
static __noinline int ask_next_hop6(void *context, __u32 interface)
{
	struct scratch *mine = this_scratch();
	struct next_hop6 *known;
	enum way_out out;

	if (!mine)
		return OUT_NOWHERE;
	out = ask6(context, mine, interface);
	known = next_hop6_of(&mine->outer);
	if (out != OUT_KNOWN || !known)
		return out;
	keep_link(mine->link, &mine->route);
	known->tick = no_tick();
	known->interface = interface;
	__builtin_memcpy(known->src, &mine->outer.saddr, sizeof(known->src));
	__builtin_memcpy(known->dst, &mine->outer.daddr, sizeof(known->dst));
	__builtin_memcpy(known->addresses, mine->link, sizeof(known->addresses));
	known->tick = bpf_jiffies64();
	return out;
}

/* The number of the group that all destinations are in which differ in their last 24 bits only; 0: of none. */
static __always_inline __u32 group6_of(struct scratch *mine)
{
	__u32 zero = 0, changes, *group;
	struct followed *routes;

	routes = bpf_map_lookup_elem(&followed, &zero);
	if (!routes)
		return 0;
	changes = *(volatile __u32 *)&routes->changes6;
	mine->wide.length = WIDE_BITS;
	__builtin_memcpy(mine->wide.address, &mine->outer.daddr, sizeof(mine->wide.address));
	group = bpf_map_lookup_elem(&groups6, &mine->wide);
	zero = group ? *group : 0;
	if (*(volatile __u32 *)&routes->changes6 != changes || (__u32)mine->clock >= *(volatile __u32 *)&routes->until6)
		return 0;
	return zero;
}

static __always_inline bool is_gateway(const __u32 *found, const __be32 *gateway)
{
	return found[0] == gateway[0] && found[1] == gateway[1] && found[2] == gateway[2] && found[3] == gateway[3];
}

/* Keep what is known of a group for all destinations that differ in their last 24 bits only. */
static __always_inline void keep_wide(struct scratch *mine, const struct next_hop *known)
{
	struct wide_hop6 *wide = wide_hop_of(mine->outer.daddr.in6_u.u6_addr32);

	__builtin_memcpy(mine->link, known->addresses, sizeof(mine->link));
	if (!wide)
		return;
	wide->tick = no_tick();
	__builtin_memcpy(wide->addresses, known->addresses, sizeof(wide->addresses));
	__builtin_memcpy(wide->dst, &mine->outer.daddr, sizeof(wide->dst));
	wide->dst[3] &= bpf_htonl(0xff000000);
	wide->interface = known->interface;
	wide->tick = known->tick;
}

/* The way out for a destination of a group, as "ask_for_group" finds it; OUT_NOT_ASKED: it has to be asked for by itself. */
static __noinline int ask_for_group6(void *context, __u32 interface)
{
	struct scratch *mine = this_scratch();
	struct gateway *gateway;
	struct next_hop *known;
	enum way_out out;
	__u32 group;

	if (!mine)
		return OUT_NOT_ASKED;
	group = group6_of(mine);
	gateway = bpf_map_lookup_elem(&gateways, &group);
	known = bpf_map_lookup_elem(&group_hops, &group);
	if (!gateway || !known || gateway->family != 6 || gateway->interface != interface)
		return OUT_NOT_ASKED;
	if (known->tick != (__u32)bpf_jiffies64() || known->interface != interface) {
		out = ask6(context, mine, interface);
		if (out != OUT_KNOWN)
			return out;
		keep_link(mine->link, &mine->route);
		if (!is_gateway(mine->route.ipv6_dst, gateway->address))
			return out;
		known->tick = no_tick();
		keep_link(known->addresses, &mine->route);
		known->interface = interface;
		known->tick = bpf_jiffies64();
	}
	keep_wide(mine, known);
	return OUT_KNOWN;
}

/* The same for a packet with the outer header of IPv6 that stands in the scratch; its TOS is not asked about. */
static __always_inline enum way_out find_next_hop6(void *context, __u32 interface, const __u16 **link)
{
	struct scratch *mine = this_scratch();
	int out;

	if (!mine)
		return OUT_NOWHERE;
	*link = mine->link;
	out = recall_next_hop6(interface);
	if (out == OUT_NOT_ASKED)
		out = ask_for_group6(context, interface);
	if (out == OUT_NOT_ASKED)
		out = ask_next_hop6(context, interface);
	return out;
}

#endif
