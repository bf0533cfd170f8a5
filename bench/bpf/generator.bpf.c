// SPDX-License-Identifier: BSD-3-Clause
// Packets for the benchmark: one flow after the other out of a table, sent where the setup says.
//
// Run by BPF_PROG_TEST_RUN with BPF_F_TEST_XDP_LIVE_FRAMES. Frames come back as the receiver left them, so
// this program writes all of each: Ethernet, the outer headers of its tunnel if there is one, IPv4, UDP. The
// sink counts where a driver's transmit routine would begin, and drops.
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>
#include <linux/udp.h>
#include <bpf/bpf_helpers.h>

enum tunnel {
	NONE,
	IPIP,
	GRE,
	IPV6,
};

struct setup {
	__u64 count;		// frames made so far
	__u32 flows;		// how many of the table are used
	__u32 ifindex;		// where to send
	__u32 tunnel;		// enum tunnel
	__u32 fresh;		// whether every frame is a flow of its own: its destination moves on
	__u32 outer_sum;	// sum of the outer header without its addresses
	__u32 inner_sum;
	__u32 outer_dst;	// the gateway's end, network order
	__u32 padding;
	struct ethhdr ethernet;
	__u8 more_padding[2];
	struct iphdr outer;	// both without addresses and checksum
	struct iphdr inner;
	struct udphdr udp;
	__u32 gre;		// the shim of a GRE tunnel
	struct ipv6hdr outer6;	// whole, but for the last 32 bits of the source, which are the host's
};

struct flow {
	__u32 outer_src;	// all in network order
	__u32 src;
	__u32 dst;
	__u16 sport;
	__u16 dport;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct setup);
} setups SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 131072);
	__type(key, __u32);
	__type(value, struct flow);
} flows SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} sunk SEC(".maps");

static __always_inline __u16 folded(__u64 sum, __u32 a, __u32 b)
{
	sum += (a & 0xffff) + (a >> 16) + (b & 0xffff) + (b >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

SEC("xdp")
int generate(struct xdp_md *ctx)
{
	void *end = (void *)(long)ctx->data_end;
	struct ethhdr *ethernet = (void *)(long)ctx->data;
	struct iphdr *ip = (void *)(ethernet + 1);
	__u32 zero = 0;
	struct setup *setup = bpf_map_lookup_elem(&setups, &zero);

	if (!setup || !setup->flows)
		return XDP_ABORTED;
	__u64 n = setup->count++;
	__u32 at = n % setup->flows;
	struct flow *flow = bpf_map_lookup_elem(&flows, &at);

	if (!flow || (void *)ip > end)
		return XDP_ABORTED;
	*ethernet = setup->ethernet;
	if (setup->tunnel == IPV6) {
		struct ipv6hdr *outer = (void *)ip;

		if ((void *)(outer + 1) > end)
			return XDP_ABORTED;
		*outer = setup->outer6;
		outer->saddr.in6_u.u6_addr32[3] = flow->outer_src;
		ip = (void *)(outer + 1);
	} else if (setup->tunnel != NONE) {
		if ((void *)(ip + 1) + sizeof(__u32) > end)
			return XDP_ABORTED;
		*ip = setup->outer;
		ip->saddr = flow->outer_src;
		ip->daddr = setup->outer_dst;
		ip->check = folded(setup->outer_sum, ip->saddr, ip->daddr);
		ip++;
		if (setup->tunnel == GRE) {
			*(__u32 *)ip = setup->gre;
			ip = (void *)ip + sizeof(__u32);
		}
	}
	struct udphdr *udp = (void *)(ip + 1);

	if ((void *)(udp + 1) > end)
		return XDP_ABORTED;
	*ip = setup->inner;
	*udp = setup->udp;
	ip->saddr = flow->src;
	// 2^16 destinations, all in the routed /15; the port moves when they have all been seen.
	ip->daddr = setup->fresh ? __builtin_bswap32(__builtin_bswap32(flow->dst) + (__u32)((n * 40503) & 0xffff)) : flow->dst;
	ip->check = folded(setup->inner_sum, ip->saddr, ip->daddr);
	udp->source = flow->sport;
	udp->dest = setup->fresh ? (__u16)(flow->dport ^ (__u16)(n >> 16)) : flow->dport;
	return bpf_redirect(setup->ifindex, 0);
}

SEC("tc")
int sink(struct __sk_buff *skb)
{
	__u32 zero = 0;
	__u64 *count = bpf_map_lookup_elem(&sunk, &zero);

	if (count)
		*count += 1;
	return TC_ACT_SHOT;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
