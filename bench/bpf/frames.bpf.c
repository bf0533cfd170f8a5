// SPDX-License-Identifier: BSD-3-Clause
// Frames for the benchmarks of IPAE: whole ones out of a table, one after the other, sent where the setup says.
//
// Run by BPF_PROG_TEST_RUN with BPF_F_TEST_XDP_LIVE_FRAMES. Frames come back as the receiver left them, so this
// program writes all of each. The sink counts where a driver's transmit routine would begin, and drops.
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>

#define OCTETS 96
#define FRAMES 65536
#define PATIENCE 4096 // readings of the clock before a frame goes in any case

struct setup {
	__u64 next; // when the next frame is due, CLOCK_MONOTONIC
	__u64 gap; // nanoseconds from one frame to the next; 0: as fast as possible
	__u32 at; // which frame comes next
	__u32 frames; // how many of the table are used
	__u32 octets; // of each
	__u32 ifindex; // where to send
};

struct frame {
	__u8 octets[OCTETS];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct setup);
} setups SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, FRAMES);
	__type(key, __u32);
	__type(value, struct frame);
} frames SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} sunk SEC(".maps");

static __always_inline void wait_for_turn(struct setup *setup)
{
	__u64 now = bpf_ktime_get_ns();

	if (now > setup->next + 64 * setup->gap)
		setup->next = now; // the kernel made a pause: no burst to make up for it
	for (int i = 0; i < PATIENCE && now < setup->next; i++)
		now = bpf_ktime_get_ns();
	setup->next += setup->gap;
}

SEC("xdp")
int generate(struct xdp_md *ctx)
{
	__u32 zero = 0, octets, at;
	struct setup *setup = bpf_map_lookup_elem(&setups, &zero);
	struct frame *frame;

	if (!setup || !setup->frames)
		return XDP_ABORTED;
	if (setup->gap)
		wait_for_turn(setup);
	at = setup->at++ % setup->frames;
	frame = bpf_map_lookup_elem(&frames, &at);
	octets = setup->octets;
	if (!frame || octets < 1 || octets > OCTETS || bpf_xdp_store_bytes(ctx, 0, frame->octets, octets))
		return XDP_ABORTED;
	return bpf_redirect(setup->ifindex, 0);
}

// The least that can be done with a packet: out again by the interface of the setup.
SEC("tc")
int through(struct __sk_buff *skb)
{
	__u32 zero = 0;
	struct setup *setup = bpf_map_lookup_elem(&setups, &zero);

	return setup ? bpf_redirect(setup->ifindex, 0) : TC_ACT_SHOT;
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
