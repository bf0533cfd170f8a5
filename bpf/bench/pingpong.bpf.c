/* SPDX-License-Identifier: Dual BSD/GPL */
/*
 * What a packet costs: every run sends one inward, takes what came out, turns it round and sends
 * it outward again, so that the buffer is as before and BPF_PROG_TEST_RUN can repeat it. Each
 * packet belongs to another lease, chosen by a number that the one before led to.
 */
#include <linux/bpf.h>
#include <isthmus/border.h>

char _license[] SEC("license") = "Dual BSD/GPL";
const struct declared declared = {};

/* Lease n: ports 1024 + 64 * (n % 1000) ff. of the address 192.0.2.0 + n / 1000, held by 10.0.0.0 + n + 2. */
#define PORTS 64
#define LEASES_PER_ADDRESS 1000
#define FIRST_PORT 1024
#define FIRST_ADDRESS 0xc0000200
#define FIRST_HOST 0x0a000002
#define GATEWAY_ADDRESS 0x0a000001
#define PEER 0xc6336409
#define PRIVATE 1
#define PUBLIC 2

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 8);
	__type(key, __u32);
	__type(value, __u64);
} bench SEC(".maps");

enum cell { LEASES, SEED, RUNS, INWARD_NS, OUTWARD_NS, CLOCK_NS, FAILED };

static __always_inline __u64 *cell(__u32 number)
{
	return bpf_map_lookup_elem(&bench, &number);
}

/* Not on the stack, which the program nearly fills. */
static struct ingress from;
static struct interface interface;

struct headers {
	struct iphdr ip;
	struct udphdr udp;
};

static __always_inline void write(struct headers *headers, __u32 src, __u32 dst, __u16 sport, __u16 dport)
{
	__builtin_memset(headers, 0, sizeof(*headers));
	headers->ip.version = 4;
	headers->ip.ihl = 5;
	headers->ip.ttl = 64;
	headers->ip.protocol = IPPROTO_UDP;
	headers->ip.tot_len = bpf_htons(46);
	headers->ip.saddr = bpf_htonl(src);
	headers->ip.daddr = bpf_htonl(dst);
	headers->ip.check = checksum(&headers->ip);
	headers->udp.source = bpf_htons(sport);
	headers->udp.dest = bpf_htons(dport);
	headers->udp.len = bpf_htons(26);
}

static __noinline int timed(struct __sk_buff *skb, __u32 realm, __u32 cell_number)
{
	__u64 start, *total = cell(cell_number);
	struct scratch *mine;
	int action;

	interface.first.leads_to = bpf_htonl(PUBLIC);
	interface.first.end = GATEWAY;
	interface.first_address[0] = bpf_htonl(GATEWAY_ADDRESS);
	interface.realm = from.realm = bpf_htonl(realm);
	from.end = GATEWAY;
	from.link = ETH_HLEN;
	mine = this_scratch();
	if (!mine)
		return TC_ACT_SHOT;
	start = bpf_ktime_get_ns();
	from.now = seconds(mine);
	if (skb->protocol == bpf_htons(ETH_P_IPV6))
		action = decide6(skb, &from, &interface);
	else
		action = decide(skb, &from, &interface, &mine->arrival);

	if (total)
		*total += bpf_ktime_get_ns() - start;
	return action;
}

static __noinline int put_inward(struct __sk_buff *skb, __u32 lease)
{
	struct headers inner;

	write(&inner, PEER, FIRST_ADDRESS + lease / LEASES_PER_ADDRESS, 80,
	      FIRST_PORT + lease % LEASES_PER_ADDRESS * PORTS + (lease & 63));
	return bpf_skb_store_bytes(skb, ETH_HLEN, &inner, sizeof(inner), 0);
}

static __noinline int put_outward(struct __sk_buff *skb, __u32 lease)
{
	struct headers inner;
	struct iphdr outer = { .version = 4, .ihl = 5, .ttl = 64, .protocol = IPPROTO_IPIP };

	outer.tot_len = bpf_htons(66);
	outer.saddr = bpf_htonl(FIRST_HOST + lease);
	outer.daddr = bpf_htonl(GATEWAY_ADDRESS);
	outer.check = checksum(&outer);
	write(&inner, FIRST_ADDRESS + lease / LEASES_PER_ADDRESS, PEER,
	      FIRST_PORT + lease % LEASES_PER_ADDRESS * PORTS + (lease & 63), 80);
	return bpf_skb_store_bytes(skb, ETH_HLEN, &outer, sizeof(outer), 0) ||
	       bpf_skb_store_bytes(skb, ETH_HLEN + sizeof(outer), &inner, sizeof(inner), 0);
}

SEC("tc")
int border(struct __sk_buff *skb)
{
	__u64 *leases = cell(LEASES), *seed = cell(SEED), *runs = cell(RUNS), *failed = cell(FAILED);
	__u64 *clock = cell(CLOCK_NS), start;
	__u32 lease;

	if (!leases || !seed || !runs || !failed || !clock || !*leases)
		return TC_ACT_SHOT;
	start = bpf_ktime_get_ns();
	*clock += bpf_ktime_get_ns() - start;
	*seed ^= *seed << 13;
	*seed ^= *seed >> 7;
	*seed ^= *seed << 17;
	lease = *seed % *leases;
	*runs += 1;
	if (put_inward(skb, lease) || timed(skb, PUBLIC, INWARD_NS) != TC_ACT_REDIRECT)
		*failed += 1;
	if (put_outward(skb, lease) || timed(skb, PRIVATE, OUTWARD_NS) != TC_ACT_REDIRECT)
		*failed += 1;
	return TC_ACT_OK;
}

/* The loader wants both programs; IPAE is not measured here. */
SEC("tc")
int ipae(struct __sk_buff *skb)
{
	return TC_ACT_UNSPEC;
}
