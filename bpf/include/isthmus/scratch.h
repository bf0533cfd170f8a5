/* SPDX-License-Identifier: Dual BSD/GPL */
/* What a processor works with while it decides about a packet; the stack has 512 octets for all functions together. */
#ifndef ISTHMUS_SCRATCH_H
#define ISTHMUS_SCRATCH_H

#include <isthmus/classify.h>
#include <isthmus/maps.h>

/* A binding as it was found. */
struct entry {
	__u32 endpoint;
	__u32 deadline;
	__u32 flags;  /* enum binding_flag; BINDING_CLAIMED counts also where nothing was found */
	__be32 remote;
	__u16 remote_port;
	__u8 remote_length;
	__u8 slice_shift; /* with BINDING_SLICE: how many ports the slice has, as a power of two */
	__u32 holder; /* of a direct word: what its endpoint, a template, lacks of the owner's address, as a number; else 0 */
};

/* Where a packet came in. */
struct ingress {
	__be32 realm;
	__u32 now; /* CLOCK_BOOTTIME, seconds */
	__u8 kind; /* of a tunnelled packet: its tunnel type, or 0 */
	__u8 over6; /* and whether its outer header is IPv6 */
	__u8 end;
	__u8 link; /* octets of the link header */
};

/* A packet that came out of a tunnel, and how; of any other only "outer". */
struct arrival {
	struct ipv4 outer;
	struct ipv4 inner;
	struct ends both;
	struct flow flow;
	struct entry entry;
	__be32 leads_to;
};

struct scratch {
	__u64 clock; /* the tick in which this processor last read the clock (upper half), and the second that it read */
	struct arrival arrival;
	struct ipv6hdr outer;	     /* that a packet came in, or will go out by */
	struct bpf_fib_lookup route; /* what the kernel's routing is asked */
	struct group6_key wide;	     /* and what "groups6" is */
	__u16 link[6];		     /* link addresses of the way out of "outer" */
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct scratch);
} scratch SEC(".maps");

static __always_inline struct scratch *this_scratch(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&scratch, &zero);
}

/*
 * Seconds of the clock that deadlines are in, CLOCK_BOOTTIME. Reading it costs a fifth of a packet, so it is read once
 * per tick. Ticks do not count while a machine sleeps; the first one afterwards reads the clock.
 */
static __always_inline __u32 seconds(struct scratch *mine)
{
	__u32 tick = bpf_jiffies64(), now;
	__u64 word = mine->clock;

	if (word && word >> 32 == tick)
		return word;
	now = bpf_ktime_get_boot_ns() / 1000000000;
	mine->clock = (__u64)tick << 32 | now;
	return now;
}

#endif
