// SPDX-License-Identifier: BSD-3-Clause
// What a program costs a packet: "step" writes a packet of another lease and calls the program by tail call, again and
// again in one BPF_PROG_TEST_RUN. Compiled twice: for TC, and with -DAT_XDP.
//
// What is timed begins right before the tail call and ends at the first instruction of the next step, which looks at
// what came out, makes the buffer what it was, and writes the next packet; none of that is timed. The clock, the tail
// call and the kernel's loop are: "returns" has nothing else, so it is what bench/packet.py subtracts. Which
// lease comes next depends on what came out, so that no two packets are worked on at a time.
#include <stdbool.h>
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define BINS 1024
#define LEASES (1 << 20)
#define PEERS 0xc6120000 // 198.18.0.0/15
#define PEER_PORT 80
#define DECAP_IPV4 (1ULL << 7) // BPF_F_ADJ_ROOM_DECAP_L3_IPV4, since Linux 6.4

// bench/packet.py writes all of it before a run.
struct setup {
	__u64 started; // the clock when the last packet was given to the program; 0: none was
	__u64 seed;
	__u64 spent; // nanoseconds for all that was timed
	__u64 timed; // how many
	__u64 longer; // how many took longer than all bins together, and are not among those: something came between
	__u64 wrong; // packets that came out other than they should
	__u32 at; // in order: the next lease
	__u32 lease; // of the packet that is on its way
	__u32 leases;
	__u32 chosen; // only leases that are in "among" are used
	__u32 in_order; // one lease after the other
	__u32 target; // slot of the program
	__u32 inward; // whether the packets go into tunnels
	__u32 changed; // whether the program makes or takes away the outer header
	__u32 outer6; // whether that is IPv6
	__u32 per_address;
	__u32 ports; // of a lease
	__u32 first_address; // leased, in the machine's order, as all of these
	__u32 first_host;
	__u32 ours; // our end of the tunnels
	__u32 record; // note in "among" which leases' packets came through
	__u32 fresh; // every second step only looks at what came out, so that each packet has a buffer of its own
	__u32 apart; // odd: how far the hosts of consecutive leases are from each other, modulo LEASES
	struct ethhdr ethernet;
	__u8 padding[6];
	struct in6_addr near; // our end of the tunnels over IPv6; the hosts' have their own last 32 bits
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct setup);
} setups SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, BINS);
	__type(key, __u32);
	__type(value, __u64);
} bins SEC(".maps");

// Some of the leases, a bit for each: the least memory, since it competes for the caches with what is measured.
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, LEASES / 64);
	__type(key, __u32);
	__type(value, __u64);
} among SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 8);
	__type(key, __u32);
	__type(value, __u32);
} targets SEC(".maps");

struct headers {
	struct iphdr ip;
	struct udphdr udp;
};

struct tunnelled {
	struct iphdr outer;
	struct headers inner;
};

struct tunnelled6 {
	struct ipv6hdr outer;
	struct headers inner;
};

#ifdef AT_XDP
typedef struct xdp_md packet_t;
#define SECTION "xdp"
#define DONE XDP_PASS
#define FAILED XDP_DROP
#define load(packet, at, to, octets) bpf_xdp_load_bytes(packet, at, to, octets)
#define store(packet, at, from, octets) bpf_xdp_store_bytes(packet, at, from, octets)
#define grow(packet, octets, six) bpf_xdp_adjust_head(packet, -(int)(octets))
#define shrink(packet, octets, six) bpf_xdp_adjust_head(packet, octets)
#define length(packet) ((__u32)((packet)->data_end - (packet)->data))
#else
typedef struct __sk_buff packet_t;
#define SECTION "tc"
#define DONE TC_ACT_OK
#define FAILED TC_ACT_SHOT
#define load(packet, at, to, octets) bpf_skb_load_bytes(packet, at, to, octets)
#define store(packet, at, from, octets) bpf_skb_store_bytes(packet, at, from, octets, 0)
#define ROOM (BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_NO_CSUM_RESET)
#define grow(packet, octets, six) \
	(((six) && bpf_skb_change_proto(packet, bpf_htons(ETH_P_IPV6), 0)) || \
	 bpf_skb_adjust_room(packet, (six) ? (octets) - 20 : (octets), BPF_ADJ_ROOM_MAC, ROOM))
#define shrink(packet, octets, six) \
	bpf_skb_adjust_room(packet, -(int)(octets), BPF_ADJ_ROOM_MAC, ROOM | ((six) ? DECAP_IPV4 : 0))
#define length(packet) ((packet)->len)
#endif

static __always_inline struct setup *setup_of(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&setups, &zero);
}

static __always_inline __u16 checksum(const struct iphdr *ip)
{
	const __u16 *words = (const __u16 *)ip;
	__u32 sum = 0;

	for (int i = 0; i < 10; i++)
		sum += words[i];
	sum = (sum & 0xffff) + (sum >> 16);
	return ~((sum & 0xffff) + (sum >> 16));
}

static __always_inline void ip_header(struct iphdr *ip, __u8 protocol, __u32 octets, __u32 src, __u32 dst)
{
	__builtin_memset(ip, 0, sizeof(*ip));
	ip->version = 4;
	ip->ihl = 5;
	ip->ttl = 64;
	ip->frag_off = bpf_htons(0x4000);
	ip->protocol = protocol;
	ip->tot_len = bpf_htons(octets);
	ip->saddr = bpf_htonl(src);
	ip->daddr = bpf_htonl(dst);
	ip->check = checksum(ip);
}

static __always_inline __u32 peer(__u32 lease)
{
	return PEERS + (lease * 0x9e3779b1U >> 15);
}

static __always_inline __u32 local(const struct setup *setup)
{
	return setup->first_address + setup->lease / (setup->per_address ?: 1);
}

static __always_inline __u16 port(const struct setup *setup)
{
	return 1024 + setup->lease % (setup->per_address ?: 1) * setup->ports + (setup->lease & 7);
}

static __always_inline __u32 host(const struct setup *setup)
{
	return setup->first_host + (setup->lease * setup->apart & (LEASES - 1));
}

#define OCTETS 46 // of the inner packet

static __always_inline void inner_headers(struct headers *inner, const struct setup *setup)
{
	__u32 ours = local(setup), theirs = peer(setup->lease);
	bool inward = setup->inward;

	ip_header(&inner->ip, IPPROTO_UDP, OCTETS, inward ? theirs : ours, inward ? ours : theirs);
	inner->udp.source = bpf_htons(inward ? PEER_PORT : port(setup));
	inner->udp.dest = bpf_htons(inward ? port(setup) : PEER_PORT);
	inner->udp.len = bpf_htons(OCTETS - sizeof(inner->ip));
	inner->udp.check = 0;
}

static __noinline int write_inward(packet_t *packet, struct setup *setup)
{
	struct headers inner;

	if (!setup)
		return 1;
	inner_headers(&inner, setup);
	return store(packet, 0, &setup->ethernet, ETH_HLEN) || store(packet, ETH_HLEN, &inner, sizeof(inner));
}

static __noinline int write_outward(packet_t *packet, struct setup *setup)
{
	struct tunnelled all;

	if (!setup)
		return 1;
	ip_header(&all.outer, IPPROTO_IPIP, sizeof(all.outer) + OCTETS, host(setup), setup->ours);
	inner_headers(&all.inner, setup);
	return store(packet, 0, &setup->ethernet, ETH_HLEN) || store(packet, ETH_HLEN, &all, sizeof(all));
}

static __noinline int write_outward6(packet_t *packet, struct setup *setup)
{
	struct tunnelled6 all;

	if (!setup)
		return 1;
	__builtin_memset(&all.outer, 0, sizeof(all.outer));
	all.outer.version = 6;
	all.outer.payload_len = bpf_htons(OCTETS);
	all.outer.nexthdr = IPPROTO_IPIP;
	all.outer.hop_limit = 64;
	all.outer.saddr = all.outer.daddr = setup->near;
	all.outer.saddr.in6_u.u6_addr32[3] = bpf_htonl(host(setup));
	inner_headers(&all.inner, setup);
	return store(packet, 0, &setup->ethernet, ETH_HLEN) || store(packet, ETH_HLEN, &all, sizeof(all));
}

// Whether what came out of a tunnel is the inner packet, with one hop less.
static __always_inline bool is_inner(const struct headers *inner, const struct setup *setup)
{
	struct headers sent;

	inner_headers(&sent, setup);
	return inner->ip.saddr == sent.ip.saddr && inner->ip.daddr == sent.ip.daddr && inner->ip.ttl == 63 &&
	       inner->udp.source == sent.udp.source && inner->udp.dest == sent.udp.dest;
}

static __noinline int came_inward(packet_t *packet, struct setup *setup)
{
	struct tunnelled all;

	if (!setup || load(packet, ETH_HLEN, &all, sizeof(all)))
		return 0;
	setup->seed += all.outer.daddr;
	return all.outer.protocol == IPPROTO_IPIP && all.outer.daddr == bpf_htonl(host(setup)) &&
	       all.outer.saddr == bpf_htonl(setup->ours) && is_inner(&all.inner, setup);
}

static __noinline int came_inward6(packet_t *packet, struct setup *setup)
{
	struct tunnelled6 all;

	if (!setup || load(packet, ETH_HLEN, &all, sizeof(all)))
		return 0;
	setup->seed += all.outer.daddr.in6_u.u6_addr32[3];
	return all.outer.nexthdr == IPPROTO_IPIP &&
	       all.outer.daddr.in6_u.u6_addr32[3] == bpf_htonl(host(setup)) && is_inner(&all.inner, setup);
}

static __noinline int came_outward(packet_t *packet, struct setup *setup)
{
	struct headers inner;

	if (!setup || load(packet, ETH_HLEN, &inner, sizeof(inner)))
		return 0;
	setup->seed += inner.ip.saddr;
	return is_inner(&inner, setup);
}

#define SHORT (ETH_HLEN + OCTETS)

// Look at what came out, and make the buffer as long as it was.
static __always_inline int finish(packet_t *packet, struct setup *setup)
{
	__u32 header = setup->outer6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr);
	int came = setup->outer6 ? came_inward6(packet, setup) : came_inward(packet, setup);

	if (!setup->inward) {
		came = came_outward(packet, setup);
		if (length(packet) == SHORT && grow(packet, header, setup->outer6))
			return 1;
	} else if (length(packet) == SHORT + header && shrink(packet, header, setup->outer6)) {
		return 1;
	}
	if (setup->changed)
		setup->wrong += !came;
	if (setup->record) {
		__u32 at = setup->lease / 64;
		__u64 *word = bpf_map_lookup_elem(&among, &at);

		if (word)
			*word = (*word & ~(1ULL << (setup->lease & 63))) | (__u64)came << (setup->lease & 63);
	}
	return 0;
}

static __always_inline void tally(struct setup *setup, __u64 now)
{
	__u64 spent = now - setup->started;
	__u32 bin = spent >> 3;
	__u64 *count;

	if (bin >= BINS) {
		setup->longer++;
		return;
	}
	setup->spent += spent;
	setup->timed++;
	count = bpf_map_lookup_elem(&bins, &bin);
	if (count)
		*count += 1;
}

static __always_inline void choose(struct setup *setup)
{
	__u64 seed = setup->seed, *word;
	__u32 at;

	if (setup->in_order) {
		setup->lease = setup->at++ % (setup->leases ?: 1);
		return;
	}
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	setup->seed = seed;
	setup->lease = (seed >> 32) * setup->leases >> 32;
	if (!setup->chosen)
		return;
	at = setup->lease / 64;
	word = bpf_map_lookup_elem(&among, &at);
	// The next one of the same word; most are among them.
	for (__u32 i = 0; word && i < 64; i++) {
		if (*word >> (setup->lease & 63) & 1)
			return;
		setup->lease = (setup->lease & ~63U) | ((setup->lease + 1) & 63);
	}
}

SEC(SECTION)
int step(packet_t *packet)
{
	__u64 now = bpf_ktime_get_ns();
	struct setup *setup = setup_of();
	int failed;

	if (!setup)
		return FAILED;
	if (setup->started) {
		tally(setup, now);
		if (finish(packet, setup))
			setup->wrong++;
		if (setup->fresh) {
			setup->started = 0;
			return DONE;
		}
	}
	choose(setup);
	if (setup->inward)
		failed = write_inward(packet, setup);
	else
		failed = setup->outer6 ? write_outward6(packet, setup) : write_outward(packet, setup);
	if (failed) {
		setup->wrong++;
		return FAILED;
	}
	setup->started = bpf_ktime_get_ns();
	bpf_tail_call(packet, &targets, setup->target);
	setup->wrong++;
	return FAILED;
}

SEC(SECTION)
int returns(packet_t *packet)
{
	return DONE;
}

// Yardstick: find the ports.
SEC(SECTION)
int parses(packet_t *packet)
{
	void *end = (void *)(long)packet->data_end;
	struct ethhdr *ethernet = (void *)(long)packet->data;
	struct iphdr *ip = (void *)(ethernet + 1);
	struct udphdr *udp = (void *)(ip + 1);

	if ((void *)(udp + 1) > end || ethernet->h_proto != bpf_htons(ETH_P_IP) || ip->ihl != 5 ||
	    ip->protocol != IPPROTO_UDP)
		return FAILED;
	return bpf_ntohs(udp->dest) < 1024 ? FAILED : DONE;
}

// Yardstick: an outer header that is always the same, and out.
SEC(SECTION)
int encapsulates(packet_t *packet)
{
	struct ethhdr *ethernet;
	struct iphdr *ip;
	void *end;

	if (grow(packet, sizeof(*ip), 0))
		return FAILED;
	ethernet = (void *)(long)packet->data;
	ip = (void *)(ethernet + 1);
	end = (void *)(long)packet->data_end;
	if ((void *)(ip + 1) > end)
		return FAILED;
	__builtin_memset(ethernet, 2, 2 * ETH_ALEN);
	ethernet->h_proto = bpf_htons(ETH_P_IP);
	ip_header(ip, IPPROTO_IPIP, sizeof(*ip) + OCTETS, 0x0a000001, 0x0a000002);
	return bpf_redirect(1, 0);
}

// Yardstick: off with the outer header, and out.
SEC(SECTION)
int decapsulates(packet_t *packet)
{
	struct ethhdr *ethernet;
	void *end;

	if (shrink(packet, sizeof(struct iphdr), 0))
		return FAILED;
	ethernet = (void *)(long)packet->data;
	end = (void *)(long)packet->data_end;
	if ((void *)(ethernet + 1) > end)
		return FAILED;
	__builtin_memset(ethernet, 2, 2 * ETH_ALEN);
	ethernet->h_proto = bpf_htons(ETH_P_IP);
	return bpf_redirect(1, 0);
}

#ifndef AT_XDP
// Linux marks a buffer that was given an outer header, and a mark is neither taken away with the header nor given twice:
// so in a loop the program under test is refused once for every packet, which no packet of the world is.
SEC(SECTION)
int refused(packet_t *packet)
{
	if (bpf_skb_adjust_room(packet, sizeof(struct iphdr), BPF_ADJ_ROOM_MAC, ROOM | BPF_F_ADJ_ROOM_ENCAP_L3_IPV4))
		return DONE;
	return shrink(packet, sizeof(struct iphdr), 0) ? FAILED : DONE;
}
#endif

char LICENSE[] SEC("license") = "Dual BSD/GPL";
