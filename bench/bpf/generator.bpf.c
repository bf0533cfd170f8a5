// SPDX-License-Identifier: BSD-3-Clause
// Packets for the benchmark: flows that are computed from a number, sent where the setup says; and what counts them.
//
// Run by BPF_PROG_TEST_RUN with BPF_F_TEST_XDP_LIVE_FRAMES. Frames come back as the receiver left them, so
// this program writes all of each: Ethernet, the outer headers of its tunnel if there is one, IPv4, UDP. The
// sinks count where a driver's transmit routine would begin, and where one has delivered.
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>
#include <linux/udp.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#define PEERS 0xc6120000 // 198.18.0.0/15
#define PEER_BITS 17

enum tunnel {
	NONE,
	IPIP,
	GRE,
	IPV6,
};

struct setup {
	__u64 count;		// frames made so far
	__u32 flows;		// so many, by chance; 0: every frame is a flow of its own
	__u32 leases;		// that they belong to
	__u32 per_address;
	__u32 ports;		// of a lease
	__u32 first_host;	// the lower 32 bits, in the machine's order
	__u32 first_address;	// that the flows are from; 0: the hosts' own
	__u32 ifindex;		// where to send
	__u32 tunnel;		// enum tunnel
	__u32 outer_sum;	// sum of the outer header without its addresses
	__u32 inner_sum;
	__u32 outer_dst;	// the gateway's end, network order
	struct ethhdr ethernet;
	__u8 padding[2];
	struct iphdr outer;	// both without addresses and checksum
	struct iphdr inner;
	struct udphdr udp;
	__u32 gre;		// the shim of a GRE tunnel
	struct ipv6hdr outer6;	// whole, but for the last 32 bits of the source, which are the host's
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct setup);
} setups SEC(".maps");

enum where {
	AT_TRANSMIT,
	AT_XDP_TRANSMIT,
	AT_RECEIVE,
	PLACES,
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, PLACES);
	__type(key, __u32);
	__type(value, __u64);
} sunk SEC(".maps");

static __always_inline void add(__u32 where, __u64 number)
{
	__u64 *count = bpf_map_lookup_elem(&sunk, &where);

	if (count)
		*count += number;
}

static __always_inline __u16 folded(__u64 sum, __u32 a, __u32 b)
{
	sum += (a & 0xffff) + (a >> 16) + (b & 0xffff) + (b >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

static __always_inline __u32 mix(__u32 hash)
{
	hash ^= hash >> 16;
	hash *= 0x7feb352d;
	hash ^= hash >> 15;
	hash *= 0x846ca68b;
	return hash ^ hash >> 16;
}

SEC("xdp")
int generate(struct xdp_md *ctx)
{
	void *end = (void *)(long)ctx->data_end;
	struct ethhdr *ethernet = (void *)(long)ctx->data;
	struct iphdr *ip = (void *)(ethernet + 1);
	__u32 zero = 0;
	struct setup *setup = bpf_map_lookup_elem(&setups, &zero);

	if (!setup || (void *)ip > end)
		return XDP_ABORTED;
	__u64 n = setup->count++;
	// In an order that caches do not foresee.
	__u32 flow = setup->flows ? (__u64)mix(n) * setup->flows >> 32 : n;
	__u32 lease = (__u64)mix(flow) * setup->leases >> 32;
	__u32 host = __builtin_bswap32(setup->first_host + lease);

	*ethernet = setup->ethernet;
	if (setup->tunnel == IPV6) {
		struct ipv6hdr *outer = (void *)ip;

		if ((void *)(outer + 1) > end)
			return XDP_ABORTED;
		*outer = setup->outer6;
		outer->saddr.in6_u.u6_addr32[3] = host;
		ip = (void *)(outer + 1);
	} else if (setup->tunnel != NONE) {
		if ((void *)(ip + 1) + sizeof(__u32) > end)
			return XDP_ABORTED;
		*ip = setup->outer;
		ip->saddr = host;
		ip->daddr = setup->outer_dst;
		ip->check = folded(setup->outer_sum, ip->saddr, ip->daddr);
		ip++;
		if (setup->tunnel == GRE) {
			*(__u32 *)ip = setup->gre;
			ip = (void *)ip + sizeof(__u32);
		}
	}
	struct udphdr *udp = (void *)(ip + 1);

	if ((void *)(udp + 1) > end || !setup->per_address || !setup->ports)
		return XDP_ABORTED;
	*ip = setup->inner;
	*udp = setup->udp;
	ip->saddr = setup->first_address ? __builtin_bswap32(setup->first_address + lease / setup->per_address) : host;
	// Peers, and then their ports, so that no two flows have the same: masquerade never searches for a port.
	ip->daddr = __builtin_bswap32(PEERS + ((flow * 40503) & ((1 << PEER_BITS) - 1)));
	ip->check = folded(setup->inner_sum, ip->saddr, ip->daddr);
	udp->source = __builtin_bswap16(1024 + lease % setup->per_address * setup->ports + flow % setup->ports);
	udp->dest = __builtin_bswap16(7 + (flow >> PEER_BITS));
	return bpf_redirect(setup->ifindex, 0);
}

SEC("tc")
int sink(struct __sk_buff *skb)
{
	add(AT_TRANSMIT, 1);
	return TC_ACT_SHOT;
}

SEC("xdp")
int receives(struct xdp_md *ctx)
{
	add(AT_RECEIVE, 1);
	return XDP_DROP;
}

struct net_device {
	char name[16];
} __attribute__((preserve_access_index));

// What an XDP program has redirected to wan0: once for a bulk of them, whether the driver took them or not.
SEC("tp_btf/xdp_devmap_xmit")
int BPF_PROG(transmits, const struct net_device *from, const struct net_device *to, int sent, int drops, int error)
{
	if (to->name[0] == 'w' && to->name[1] == 'a' && to->name[2] == 'n')
		add(AT_XDP_TRANSMIT, sent + drops);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
