/* SPDX-License-Identifier: BSD-3-Clause */
/* What a packet of bench churn says of itself, and what is counted of it where it arrives. */
#ifndef BENCH_STAMP_H
#define BENCH_STAMP_H

#include <linux/types.h>

#define STAMP_MAGIC 0x69736368 /* "isch" */

/* Hosts of leases that change hands: 10.128.0.0/9, where a host is (era of its lease, number of its lease). */
#define CHANGING_HOSTS 0x0a800000
#define ERA_SHIFT 16
#define ERA_MASK 0x3f
#define LEASE_MASK 0xffff

enum stamp_kind {
	STANDING_OUTWARD,
	STANDING_INWARD,
	CHANGING_INWARD,
	PRESENT_OUTWARD, /* By who holds the lease now. */
	FORMER_OUTWARD,	 /* By who held it before. */
	STAMP_KINDS,
};

/* For each kind of packet: those that arrived where they may, and those that arrived where they may not. */
enum count {
	ARRIVED = 0,
	ASTRAY = STAMP_KINDS,
	COUNTS = 2 * STAMP_KINDS,
};

/* All of it in network order. */
struct stamp {
	__u32 magic;
	__u32 kind;
	__u32 host;	/* STANDING: the holder. */
	__u32 address;	/* The lease's. */
	__u32 port;
	__u32 lease;	/* CHANGING: its number, */
	__u32 era;	/* and how often it had changed hands when the packet was made. */
};

#endif
