/* SPDX-License-Identifier: Dual BSD/GPL */
/* The part of abi.h that is IPAE's; only that includes this. */
#ifndef ISTHMUS_ABI_SIP_H
#define ISTHMUS_ABI_SIP_H

/*
 * sip_ends: place -> the SIP realm that IPAE datagrams to it lead to, in network order; 0: it is ours, but no end of them.
 * nodes: place -> 1, our SIP addresses. sites: upper half of a site, C = 0 -> a realm of its IPv4.
 */

/* sip_realms: number modulo REALMS -> what IPAE knows of a realm. */
struct sip_realm {
	__be32 number;
	__be32 sip;  /* of an IPv4 realm: the SIP realm whose packets its link carries, too; 0: none */
	__be32 site; /* of an IPv4 realm: the upper half of the SIP site whose IPv4 it is, C = 0; 0: none */
	__be32 mapped_to; /* the SIP realm that its mapping leads into */
	__u32 mapping; /* number of its mapping; 0: none */
	__u32 translates; /* whether a binding leads from it into SIP */
	__u32 family;
	__u16 unmapped;
	__u16 foreign;
	/* of an IPv4 realm: the SIP realm in which all its systems have one upper half, and that; 0: by_image says */
	__be32 known_in;
	__be32 known_as;
	__u64 deep; /* of a SIP realm: bits of the upper halves under which by_prefix has more than 32 bits (OWN_FACTOR) */
};

/* routes: what by_prefix last said of an upper half, each processor by itself. "changes" is that of rules when asked. */
#define KEPT_ROUTES 256
struct route {
	__u32 changes;
	__be32 realm;
	__be32 upper;
	__u32 padding;
	struct binding binding; /* endpoint, deadline and flags; endpoint 0: never asked */
};

/* by_image: longest-prefix match over the realm that asks, the realm of the image, and the image. */
struct image_key {
	__u32 length; /* bits: 64 for the two realms, then the image's */
	__be32 realm;
	struct place image;
};

/* What by_image holds: the selector that the image is known by. */
struct known {
	__be32 address[4];
	__u32 length; /* bits of the selector */
	__u32 family;
};

/*
 * mappings: two words maps for each mapping, its top (2n) and its chunks (2n + 1): border/mapping.py DirectTable.
 * An entry of an array of 256 words of 32 bits; the words of the whole map are in order.
 */
#define MAPPING_WORDS 256
#define MAPPINGS 64
#define MAPPING_POINTER 0x7f
struct words {
	__u32 word[MAPPING_WORDS];
};

/*
 * rules: what of border/rules.py the program has to know; and which of the tables of our own addresses are worth asking
 * about one: those in which the bit of its number is set (the low 32 bits of ends and nodes, the upper ones of sites).
 */
struct rules {
	__u32 flags;
	__u32 next; /* slot of the ring that is written next */
	__u64 ends;
	__u64 nodes;
	__u64 sites;
	__u32 changes; /* of by_prefix; raised after each */
	__u32 padding;
};
#define OWN_FACTOR 0x9e3779b1U /* bit of a number: the upper six of the lower 32 bits of its product with this */

enum rule {
	RULE_SLOW = 1,	    /* every SIP packet is the reference plane's */
	RULE_ICMP_SLOW = 2, /* ICMP whose checksum changes, too */
	RULE_FIT = 4,	    /* what is whole and may be fragmented becomes SIP without a fragmentation header */
	RULE_ACCEPT = 8,    /* IPAE datagrams of any source are taken from some */
	RULE_SITE = 16,	    /* implicit tunnels come from our own site only */
};

/* ways: from one end to the other of IPAE datagrams, where errors have taught something. */
struct way_key {
	/* of a way between SIP addresses, the SIP realm; then both halves of the destination follow */
	__be32 realm;
	__be32 local;
	__be32 remote;
};
struct way {
	__u32 mtu;  /* largest outer packet, or SIP packet of a program, in octets; 0: not known */
	__u32 down; /* whether the other end cannot be reached, which the reference plane tells the sender */
	__u32 hops; /* with less than so many hops left nothing comes through, which likewise */
};

/* ring: the beginnings of the IPAE datagrams that were sent last, by their identification (docs/data-plane.md, Relay). */
#define RING_SLOTS (1 << 16)
#define RING_OCTETS 64
struct slot {
	__u32 second; /* CLOCK_BOOTTIME; 0: never used */
	__be32 realm; /* of the outer addresses */
	__be32 remote;
	__u32 octets; /* of the following */
	__u8 sip[RING_OCTETS];
};

#endif
