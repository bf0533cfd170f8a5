// SPDX-License-Identifier: BSD-3-Clause
// What IPAE costs a packet, and what a lookup costs, without wires: run by BPF_PROG_TEST_RUN.
//
// "ipae" writes an IPv4 packet of the site to one destination of the table, decides about it as the plane does, makes of
// what came out a packet that comes back, and decides about that: so the buffer is as before. "border" only looks up.
#include <linux/bpf.h>
#include <isthmus/border.h>
#include <isthmus/ipae.h>

char _license[] SEC("license") = "Dual BSD/GPL";
const struct declared declared = {};

#define DESTINATIONS (1 << 20)
#define LOOKUPS 256 // in one run
// As in bench/border_router.py.
#define SITE 1
#define NET 2
#define HOST_ADDRESS 0x0a010005
#define OWN 0x81d54d05 // upper half of the site, C = 1
#define OTHER 0x81020208
#define PAYLOAD 18
#define UDP_OCTETS (8 + PAYLOAD)
#define SKIP_NEIGHBOUR (1U << 2) // BPF_FIB_LOOKUP_SKIP_NEIGH, since Linux 6.3

// OURS and THEIRS: the ends of datagrams, in network order; OURS is 0 for SIP on the link.
enum cell { NEXT, RUNS, INTO_NS, OUT_NS, CLOCK_NS, FAILED, OURS, THEIRS, WHAT, FOUND, INTERFACE, CELLS };
enum what { NOTHING, MAPPING, ROUTES };

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, CELLS);
	__type(key, __u32);
	__type(value, __u64);
} bench SEC(".maps");

// In network order.
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, DESTINATIONS);
	__type(key, __u32);
	__type(value, __be32);
} destinations SEC(".maps");

static __always_inline __u64 *cell(__u32 number)
{
	return bpf_map_lookup_elem(&bench, &number);
}

static __always_inline __be32 destination(__u64 at)
{
	__u32 number = at & (DESTINATIONS - 1);
	__be32 *found = bpf_map_lookup_elem(&destinations, &number);

	return found ? *found : 0;
}

/* Not on the stack, which the program nearly fills. */
static struct ingress from;
static struct {
	struct iphdr ip;
	struct sip sip;
} made;

/* Inline: the plane has all eight calls within each other that Linux allows, but for one. */
static __always_inline int timed(struct __sk_buff *skb, __u32 realm, __u32 cell_number)
{
	__u64 start, *total = cell(cell_number);
	struct scratch *mine;
	int action;

	from.realm = bpf_htonl(realm);
	from.end = GATEWAY;
	from.link = ETH_HLEN;
	mine = this_scratch();
	if (!mine)
		return TC_ACT_SHOT;
	start = bpf_ktime_get_ns();
	from.now = seconds(mine);
	action = decide_ipae(skb, &from, skb->protocol);
	if (total)
		*total += bpf_ktime_get_ns() - start;
	return action;
}

static __always_inline void ipv4_of(__u8 protocol, __u32 octets, __be32 src, __be32 dst)
{
	__builtin_memset(&made.ip, 0, sizeof(made.ip));
	made.ip.version = 4;
	made.ip.ihl = 5;
	made.ip.ttl = 64;
	made.ip.frag_off = bpf_htons(IP_DF);
	made.ip.protocol = protocol;
	made.ip.tot_len = bpf_htons(sizeof(made.ip) + octets);
	made.ip.saddr = src;
	made.ip.daddr = dst;
	made.ip.check = checksum(&made.ip);
}

/* An IPv4 packet of the site. */
static __noinline int put_ipv4(struct __sk_buff *skb, __be32 dst)
{
	ipv4_of(IPPROTO_UDP, UDP_OCTETS, bpf_htonl(HOST_ADDRESS), dst);
	return bpf_skb_store_bytes(skb, ETH_HLEN, &made.ip, sizeof(made.ip), 0);
}

/* What comes back from there. */
static __noinline int put_sip(struct __sk_buff *skb, __be32 src, __be32 ours, __be32 theirs)
{
	made.sip.first = bpf_htonl(SIP_VERSION << 28);
	made.sip.octets = bpf_htons(UDP_OCTETS);
	made.sip.type = IPPROTO_UDP;
	made.sip.hop_limit = 64;
	made.sip.src[0] = bpf_htonl(OTHER);
	made.sip.src[1] = src;
	made.sip.dst[0] = bpf_htonl(OWN);
	made.sip.dst[1] = bpf_htonl(HOST_ADDRESS);
	if (!ours)
		return bpf_skb_store_bytes(skb, ETH_HLEN, &made.sip, sizeof(made.sip), 0);
	ipv4_of(IPPROTO_IPV6, SIP_OCTETS + UDP_OCTETS, theirs, ours);
	return bpf_skb_store_bytes(skb, ETH_HLEN, &made, sizeof(made), 0);
}

SEC("tc")
int ipae(struct __sk_buff *skb)
{
	__u64 *next = cell(NEXT), *runs = cell(RUNS), *failed = cell(FAILED), *clock = cell(CLOCK_NS);
	__u64 *ours = cell(OURS), *theirs = cell(THEIRS), start;
	__be32 address;

	if (!next || !runs || !failed || !clock || !ours || !theirs)
		return TC_ACT_SHOT;
	start = bpf_ktime_get_ns();
	*clock += bpf_ktime_get_ns() - start;
	address = destination((*next)++);
	*runs += 1;
	if (put_ipv4(skb, address) || timed(skb, SITE, INTO_NS) != TC_ACT_REDIRECT)
		*failed += 1;
	if (put_sip(skb, address, *ours, *theirs) || timed(skb, NET, OUT_NS) != TC_ACT_REDIRECT)
		*failed += 1;
	return TC_ACT_OK;
}

static __always_inline bool find_route(struct __sk_buff *skb, __u32 interface, __be32 address)
{
	struct bpf_fib_lookup route = { .family = AF_INET };
	int found;

	route.ifindex = interface;
	route.ipv4_dst = address;
	route.ipv4_src = bpf_htonl(HOST_ADDRESS);
	found = bpf_fib_lookup(skb, &route, sizeof(route), SKIP_NEIGHBOUR);
	return found == BPF_FIB_LKUP_RET_SUCCESS;
}

SEC("tc")
int border(struct __sk_buff *skb)
{
	__u64 *next = cell(NEXT), *runs = cell(RUNS), *what = cell(WHAT), *found = cell(FOUND);
	__u64 *interface = cell(INTERFACE);
	struct sip_realm *home = sip_realm_of(bpf_htonl(SITE));
	__u64 first;

	if (!next || !runs || !what || !found || !interface || !home)
		return TC_ACT_SHOT;
	first = *next;
	for (int i = 0; i < LOOKUPS; i++) {
		__be32 address = destination(first + i);

		switch (*what) {
		case MAPPING:
			*found += mapped(home, address) != 0;
			break;
		case ROUTES:
			*found += find_route(skb, *interface, address);
			break;
		default:
			*found += address != 0;
		}
	}
	*next = first + LOOKUPS;
	*runs += LOOKUPS;
	return TC_ACT_OK;
}
