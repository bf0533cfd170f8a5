/* SPDX-License-Identifier: Dual BSD/GPL */
/*
 * Everything that user space also sees, and nothing else.
 *
 * This is the only declaration of these layouts: Python reads them from the BTF of the
 * compiled object (plane/kernel/btf.py), by the names used here. A field whose type is
 * __be16 or __be32 is in network order, every other in the machine's. Padding is explicit
 * and zero, because hash maps compare it.
 *
 * Addresses stand left aligned in sixteen octets, whatever the family, and the realm goes
 * before them in network order: one longest-prefix key serves every family, and the same
 * address in two realms never collides.
 *
 *   packet ──▶ interfaces ──▶ realm, end
 *                 │
 *    realm ──▶ run of addresses ──▶ slices[first + (port >> shift)]          one word: the
 *    (realm, address) ──▶ addresses ──▶  │ holder, deadline, flags           whole answer;
 *                 │                      │                                   sooner in blocks, briefs
 *                 │                      ├─ DIRECT ──▶ endpoints[template]    all but the holder
 *                 │                      └─ SPLIT ──▶ by_demux               one port, or a remote
 *                 │                                                          limit
 *                 ├──────────▶ by_spi                                        SPIs, by aligned blocks
 *                 ├──────────▶ by_demux, HOLDER                              what an owner sends in
 *                 │                                                          ESP and AH
 *                 └──────────▶ by_prefix                                     held whole
 *                                  │
 *                                  └──▶ endpoints[number] ──▶ the tunnel, or how IPAE goes on
 *    (realm, realm, address) ──▶ by_image                        by what address one is known in another realm
 *    (realm, IPv4 address) ──▶ sip_realms ──▶ mappings            the upper half of its SIP address
 */
#ifndef ISTHMUS_ABI_H
#define ISTHMUS_ABI_H

#include <linux/types.h>

/* border/verdict.py Reason; tests/test_abi.py compares the two. */
enum reason {
	FORWARDED_INWARD = 0,
	FORWARDED_OUTWARD = 1,
	PASSED = 2,
	PUNTED = 3,
	REPLIED = 4,
	MALFORMED = 5,
	NO_BINDING = 6,
	LEASE_EXPIRED = 7,
	NOT_CONTACTED = 8,
	UNREGISTERED = 9,
	WRONG_TUNNEL_TYPE = 10,
	SOURCE_ADDRESS_NOT_LEASED = 11,
	SOURCE_PORT_NOT_LEASED = 12,
	REMOTE_ADDRESS_NOT_ALLOWED = 13,
	REMOTE_PORT_NOT_ALLOWED = 14,
	TTL_EXCEEDED = 15,
	TOO_BIG = 16,
	FRAGMENT = 17,
	NO_DISCRIMINATOR = 18,
	UNKNOWN_TUNNEL_PEER = 19,
	NOT_OUR_LEASE = 20,
	FORGED_QUOTE = 21,
	FORBIDDEN_DESTINATION = 22,
	NO_ROUTE = 23,
	HELD = 24,
	FRAGMENT_OVERLAP = 25,
	FRAGMENT_TIMEOUT = 26,
	FRAGMENT_LIMIT = 27,
	UNKNOWN_COOKIE = 28,
	COOKIE_IN_USE = 29,
	NO_IDENTIFIER = 30,
	NOT_TUNNELLED = 31,
	FORWARDED_SIP = 32,
	TRANSLATED_TO_SIP = 33,
	TRANSLATED_FROM_SIP = 34,
	RELAYED = 35,
	FORBIDDEN_SIP_ADDRESS = 36,
	SITE_SOURCE_OUTSIDE = 37,
	WRONG_WAY = 38,
	UNMAPPED = 39,
	NO_IMAGE = 40,
	SOURCE_ROUTE = 41,
	NOT_FOR_US = 42,
	TUNNEL_DOWN = 43,
	FORGED_ERROR = 44,
	RELAY_LIMIT = 45,
	NOT_SIP = 46,
	LOOP = 47,
	NOT_ALLOWED_HERE = 48,
};
#define REASONS 64 /* room in the counters */

/* border/realm.py End. */
enum end {
	GATEWAY = 1,
	HOST = 2,
};

/* border/selector.py Kind; 0 is "no discriminator". */
enum kind {
	PORT = 1,
	SPI = 2,
	COOKIE = 3,
	IDENTITY = 4,
};

/* What the kind of a demux_key may be besides. No packet has these. */
enum index_kind {
	/*
	 * By whose right ESP and AH are sent, which carry the peer's SPI (border/table.py lookup_holder): the value is
	 * the owner's tag; at a host also 0, for whomever the address is leased from.
	 */
	HOLDER = 255,
};

/* border/crossing.py TunnelKind: RSIP's numbers (RFC 3103 §8.6). */
enum tunnel_kind {
	IPIP = 1,
	GRE = 2,
};

/* The kinds of endpoint that are none of RSIP's tunnels (border/crossing.py). */
enum crossing_kind {
	ENCAPSULATION = 16,
	NATIVE = 17,
	TRANSLATE = 18,
};

/* border/realm.py Unmapped and Foreign. */
enum unmapped {
	UNMAPPED_PASS = 0,
	UNMAPPED_REFUSE = 1,
	UNMAPPED_ASK = 2,
};
enum foreign {
	FOREIGN_LOW = 0,
	FOREIGN_ASK = 1,
	FOREIGN_REFUSE = 2,
};

/* An address in a realm. */
struct place {
	__be32 realm;
	__be32 address[4];
};

/* tunnel_ends: place -> the realm of the inner packets. */
struct tunnel_end {
	__be32 leads_to;
	__u32 end;
};

/* interfaces: ifindex -> where its packets are. */
struct interface {
	__be32 realm;
	__u32 end;
	__u32 flags;
	struct tunnel_end first; /* of the realm's tunnel ends of IPv4; end 0: it has none */
	__be32 first_address[4]; /* of that; the others are looked up */
	struct tunnel_end first6; /* and the same of IPv6; end 0: it has none at all */
	__be32 first6_address[4];
	__u32 index; /* ifindex, for near_interfaces */
	__u16 link_address[3]; /* as octets: at XDP nothing else says which frames are for us */
	__u16 padding;
	__u32 peer; /* of a device: ifindex of its other end, if that is in this network namespace; 0: not known to be */
};
#define NEAR_INTERFACES 1024

enum interface_flag {
	INTERFACE_BARE = 1,	    /* packets begin with the IP header: TUN, WireGuard */
	INTERFACE_TUNNELS_ONLY = 2, /* IPv4 is not the realm's family: what comes in no tunnel passes */
	INTERFACE_PEER_AWAY = 4,    /* of a device: its other end is in another network namespace */
};

/* realms: number modulo REALMS -> the way into it. */
struct realm {
	__be32 number;
	__u32 interface; /* ifindex; 0: none */
	__u32 punt;	 /* ifindex of the port to the reference plane; 0: none */
	__u32 mtu;	 /* of the interface: what comes out of a tunnel has to fit */
	__u32 flags;
	/* The longest run of consecutive addresses whose slices are consecutive, too; their "addresses" need not be asked. */
	__u32 run_address; /* the first, as a number */
	__u32 run_length;  /* how many; 0: none */
	__u32 run_slice;   /* the first slice of the first */
	__u32 run_shift;   /* ports of a slice, as a power of two */
};
#define REALMS 1024

enum realm_flag {
	REALM_IPAE = 1, /* what goes there may concern us there again: SIP begins there, or datagrams come to us */
	REALM_XDP = 2,	/* the programs at XDP send into it, too */
};

/* by_prefix: longest-prefix match over realm and address. */
struct prefix_key {
	__u32 length; /* bits: 32 for the realm, then the prefix's */
	struct place place;
};

/* by_demux: one discriminator of one address. */
struct demux_key {
	struct place place;
	__u32 kind; /* enum kind, enum index_kind */
	__u64 value;
};

/* by_spi: longest-prefix match over realm, address and SPI. */
struct spi_key {
	__u32 length; /* bits: 160 for the place, then the block's */
	struct place place;
	__be32 spi;
};

/* What by_prefix, by_spi and by_demux hold. */
struct binding {
	__u32 endpoint; /* 0: claimed by a pool, held by nobody */
	__u32 deadline; /* CLOCK_BOOTTIME, whole seconds; BINDING_FOREVER */
	__u32 flags;
	__u16 remote_port;
	__u8 remote_length; /* BINDING_REMOTE_NEVER: of another family, admits nobody */
	__u8 padding;
	__be32 remote[4];
};

enum binding_flag {
	BINDING_CLAIMED = 1,   /* a pool claims it */
	BINDING_CONTACTED = 2, /* admits contacted peers only */
	BINDING_REMOTE_NETWORK = 4,
	BINDING_REMOTE_PORT = 8,
	BINDING_PORT = 16,  /* found by a port */
	BINDING_SLICE = 32, /* and the binding holds the whole slice around that */
	BINDING_ASK = 64,   /* of a HOLDER: several bindings, each with a limit on the peer; the reference plane chooses */
	BINDING_ROUTE = 128, /* of by_prefix: nobody's lease, but IPAE's; the endpoint is of a crossing_kind */
};
#define BINDING_FOREVER 0xffffffffU
#define BINDING_REMOTE_NEVER 255

/* addresses: place -> what is held of an address in part. */
struct address {
	__u32 first_slice; /* ADDRESS_UNSLICED: every port is in by_demux */
	__u32 slice_shift;
	__u32 held; /* bindings that hold something of it by value */
	__u32 flags;
	__u32 spi_first; /* the SPIs that a pool claims, with ADDRESS_SPIS_CLAIMED or ADDRESS_SPIS_SEVERAL */
	__u32 spi_last;
};

enum address_flag {
	ADDRESS_SPIS_CLAIMED = 1,
	ADDRESS_SPIS_SEVERAL = 2, /* not all from the first to the last: the reference plane knows which */
	ADDRESS_COOKIES = 4,	  /* UDP port 500 is told apart by cookies, which the reference plane learns */
};
#define ADDRESS_UNSLICED 0xffffffffU

/*
 * meant: one bit for every 256 blocks of 24 bits, set if addresses or by_prefix has anything of one of them in any
 * realm. The bit of a block is block ^ block >> 8, modulo MEANT_BITS.
 */
#define MEANT_BITS (1 << 16)

#include <isthmus/abi_slices.h>

/*
 * endpoints: number -> one tunnel to one owner. The first TEMPLATES after number 0 are templates: what tunnels have in
 * common, all but the last 24 bits of the owner's address and of its tag included.
 */
struct endpoint {
	__u64 owner;  /* the owner's tag */
	__be32 realm; /* the near realm */
	__u32 device; /* at a host: ifindex that delivers; 0: the realm's interface */
	__u16 mtu; /* largest packet that the way carries, as far as is known */
	__u16 kind;
	__u32 flags;
	__be32 local[4];
	__be32 remote[4];
	__u32 made_for; /* the mtu without what errors from within the tunnel say; at a host that of its device */
	__u16 family;	/* of a TRANSLATE: that of its image (4, 6, 8), which is in "local" */
	__u16 image;	/* and how many bits that has; "remote" is the compatible one */
};

enum endpoint_flag {
	ENDPOINT_REGISTERED = 1, /* the other end is the owner itself, and has registered */
	ENDPOINT_IPV6 = 2,	 /* the outer header is IPv6 */
	ENDPOINT_CHECKSUM = 4,	 /* GRE with a checksum, which the reference plane writes */
	ENDPOINT_IMPLICIT = 8,	 /* ENCAPSULATION, NATIVE: the other end is the low half of the SIP destination */
	ENDPOINT_COMPATIBLE = 16, /* TRANSLATE: it has a compatible image of 48 bits */
};

/*
 * owners: place in the near realm -> who that is. A tag is an owner's number in keys, never 0: of an IPv4 owner the realm
 * in its upper half and the address in its lower one; others have nothing in the upper half. What addresses of IPv6 have in
 * common but for their last 24 bits is numbered, from 1 to 255: then the tag is that number and these bits. Owners beyond
 * that are numbered below 2^24.
 */
struct owner {
	__u64 tag;
	__u32 registered;
	__u32 padding;
};

/* holdings: whether an owner holds anything of an address; tells error 313 from 312. */
struct holding_key {
	__u64 owner;
	struct place place;
	__u32 padding;
};

/* wide_holdings: the same of prefixes: longest-prefix match over tag, realm and address. */
struct wide_key {
	__u32 length; /* bits: 96 for tag and realm, then the prefix's */
	__be32 owner_upper;
	__be32 owner_lower;
	struct place place;
};

/*
 * contacted: eight words per bucket, each a peer that an owner has written to:
 *
 *   31            12 11       0
 *   | fingerprint   | epoch     |      0 is an empty word
 *
 * One word is written at a time, so that two processors never make half an entry.
 */
#define CONTACT_BUCKETS (1 << 17) /* a power of two: 4 MiB, a million peers */
#define CONTACT_WORDS 8
#define CONTACT_EPOCH_BITS 12
#define CONTACT_EPOCH_MASK 0xfffU
#define CONTACT_EPOCH_SECONDS 64
#define CONTACT_EPOCHS 120
struct bucket {
	__u32 words[CONTACT_WORDS];
};

/* paths: what an owner sent in ESP or AH, as an ICMP error quotes it -> who that was. The longest unused go first. */
struct path_key {
	__be32 realm;
	__be32 local[4];
	__be32 remote[4];
	__u32 protocol;
	__u32 spi; /* the peer's */
};
struct path {
	__u64 owner; /* the owner's tag */
};
#define PATHS (1 << 16)

/* events: one violation (border/verdict.py Violation). */
struct event {
	__u32 reason;
	__be32 realm; /* the near realm */
	__be32 owner[4];
	__u32 tunnel_kind;
	__u32 flags;
	__be32 flow_realm;
	__u32 kind;
	__u64 value;
	__be32 local[4];
	__be32 remote[4];
	__u32 remote_port;
	__u32 padding;
};

enum event_flag {
	EVENT_FLOW = 1,	       /* the inner packet could be read */
	EVENT_REMOTE_PORT = 2, /* and names the peer's port */
	EVENT_IPV6 = 4,	       /* the owner's address is one of IPv6 */
};

/* limited: how many events this processor has told of in this second. */
struct limit {
	__u32 second;
	__u32 told;
};

#include <isthmus/abi_sip.h>

/* next_hops: what the kernel's routing has said of two addresses in this tick, by their hash. Each processor has its own. */
#define NEXT_HOPS 4096
struct next_hop {
	__u32 tick;
	__u32 interface;
	__be32 src;
	__be32 dst;
	__u16 tos;
	__u16 addresses[6]; /* of the link: destination and source */
	__u16 padding;
};

/* next_hops6: the same of IPv6. */
#define NEXT_HOPS6 1024
struct next_hop6 {
	__u32 tick;
	__u32 interface;
	__be32 src[4];
	__be32 dst[4];
	__u16 addresses[6];
};

/* wide_hops6: the same of all addresses of IPv6 that differ in their last 24 bits only, where all these are in one group. */
#define WIDE_HOPS6 256
#define WIDE_BITS 104
struct wide_hop6 {
	__u32 tick;
	__u32 interface;
	__be32 dst[4]; /* without these bits */
	__u16 addresses[6];
	__u32 padding;
};

/*
 * groups: which destinations of IPv4 go the same way, eight bits of the address at a time: the first octet is the element,
 * the second the word in it. A word with GROUP_MORE is the number of another element, in which the next octet is the word.
 * Otherwise it is the number of a group, the key of gateways; 0: of none, the kernel is asked about each.
 */
#define GROUP_WORDS 256
#define GROUP_ELEMENTS 4096
#define GROUP_MORE 0x8000
struct group_words {
	__u16 word[GROUP_WORDS];
};

/* groups6: the same of IPv6, by longest prefix; none has more than WIDE_BITS. The value is the number of a group, or 0. */
struct group6_key {
	__u32 length;
	__be32 address[4];
};

/*
 * gateways: what the kernel says of all destinations of a group, if it says anything. Each family has as many, IPv6 those
 * from GROUPS on.
 */
#define GROUPS 1024
struct gateway {
	__u32 interface;
	__u32 family; /* 4 or 6 */
	__be32 address[4];
};

/*
 * followed: as long as groups, groups6 and gateways are what the kernel's routes say; CLOCK_BOOTTIME, seconds. What is read
 * in groups6 counts only if "changes6" is the same before and afterwards: it is not written in one.
 */
struct followed {
	__u32 until;
	__u32 until6;
	__u32 changes6;
	__u32 padding;
};

/* about: whom pinned maps belong to. */
struct about {
	__u64 layout; /* of the structs above */
	__u64 object; /* of the program */
};

/* Never used: BTF only holds types that something has, and no map has these. */
struct declared {
	enum end end;
	enum kind kind;
	enum index_kind index_kind;
	enum tunnel_kind tunnel_kind;
	enum crossing_kind crossing_kind;
	enum unmapped unmapped;
	enum foreign foreign;
	enum rule rule;
	enum realm_flag realm_flag;
	enum interface_flag interface_flag;
	enum binding_flag binding_flag;
	enum address_flag address_flag;
	enum slice_flag slice_flag;
	enum endpoint_flag endpoint_flag;
	enum event_flag event_flag;
	struct event event;
	struct words words;
};

#endif
