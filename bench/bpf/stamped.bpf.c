// SPDX-License-Identifier: BSD-3-Clause
// Looks whether stamped packets arrive where they may: `near` on the hosts' link, `far` at the server.
//
// It counts and drops them, and lets everything else through. A packet of a lease that changes hands may reach who holds
// the lease in the era that it was made in, or in a later one; never an earlier one.
#include <stdbool.h>
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/pkt_cls.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "../load/stamp.h"

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, COUNTS);
	__type(key, __u32);
	__type(value, __u64);
} counts SEC(".maps");

struct carried {
	struct iphdr ip;
	struct udphdr udp;
	struct stamp stamp;
};

static __always_inline int count(__u32 kind, bool right)
{
	__u32 at = kind + (right ? ARRIVED : ASTRAY);
	__u64 *number = kind < STAMP_KINDS ? bpf_map_lookup_elem(&counts, &at) : NULL;

	if (number)
		__sync_fetch_and_add(number, 1);
	return TC_ACT_SHOT;
}

SEC("tc")
int near(struct __sk_buff *skb)
{
	struct iphdr outer;
	struct carried inner;
	struct stamp *stamp = &inner.stamp;

	if (bpf_skb_load_bytes(skb, ETH_HLEN, &outer, sizeof(outer)) ||
	    bpf_skb_load_bytes(skb, ETH_HLEN + sizeof(outer), &inner, sizeof(inner)) ||
	    stamp->magic != bpf_htonl(STAMP_MAGIC))
		return TC_ACT_OK;
	__u32 host = bpf_ntohl(outer.daddr), kind = bpf_ntohl(stamp->kind);
	bool addressed = inner.ip.daddr == stamp->address && bpf_ntohs(inner.udp.dest) == bpf_ntohl(stamp->port);

	if (kind == STANDING_INWARD)
		return count(kind, addressed && outer.daddr == stamp->host);
	__u32 since = (host >> ERA_SHIFT) - bpf_ntohl(stamp->era);

	return count(kind, kind == CHANGING_INWARD && addressed && (host & LEASE_MASK) == bpf_ntohl(stamp->lease) &&
				   (since & ERA_MASK) <= ERA_MASK / 2);
}

SEC("tc")
int far(struct __sk_buff *skb)
{
	struct carried packet;
	struct stamp *stamp = &packet.stamp;

	if (bpf_skb_load_bytes(skb, ETH_HLEN, &packet, sizeof(packet)) || stamp->magic != bpf_htonl(STAMP_MAGIC))
		return TC_ACT_OK;
	__u32 kind = bpf_ntohl(stamp->kind);

	return count(kind, (kind == STANDING_OUTWARD || kind == PRESENT_OUTWARD) && packet.ip.saddr == stamp->address &&
				   bpf_ntohs(packet.udp.source) == bpf_ntohl(stamp->port));
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
