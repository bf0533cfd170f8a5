/* SPDX-License-Identifier: Dual BSD/GPL */
/*
 * SIP packets: the header, the addresses that no packet may have, and what is known of one on its way
 * (RFC 8507 §3, §4.3; seed IPAE 4.1; spec 2.1, 2.2). Pairs with plane/reference/parcel.py and dialect.py.
 */
#ifndef ISTHMUS_SIP_H
#define ISTHMUS_SIP_H

#include <isthmus/checksum.h>
#include <isthmus/scratch.h>

#define SIP_VERSION 6
#define SIP_OCTETS 24
#define SIP_SOURCE_ROUTE 43
#define SIP_FRAGMENT 44
#define C_BIT 0x80000000U

struct sip {
	__be32 first; /* version, and 28 bits that nobody looks at */
	__be16 octets; /* after the header */
	__u8 type;
	__u8 hop_limit;
	__be32 src[2];
	__be32 dst[2];
};

/* How a packet came to be a SIP packet here. */
enum came {
	BY_LINK,
	BY_DATAGRAM,
	AS_IPV4,
	BY_PROGRAM,
};

/* A packet on its way through SIP. Nothing of it is written into the buffer before everything is decided. */
struct passage {
	struct sip sip;
	struct ipv4 came_as;	    /* of a datagram the outer header */
	struct ipv6hdr came_as6;    /* of a program's packet */
	__be32 realm;		    /* the SIP realm */
	__u32 at;		    /* where the payload begins in the buffer */
	__u32 octets;		    /* of the payload */
	__u32 came;		    /* enum came */
	__u32 rewritten;	    /* whether "icmp" is other than in the buffer */
	struct icmp icmp;	    /* the first octets of the payload, if a checksum in there changes */
	struct {
		struct iphdr ip;
		struct sip sip;
	} datagram;		    /* how it leaves; of other packets one of the two, or */
	struct ipv6hdr ip6;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct passage);
} passages SEC(".maps");

static __always_inline struct passage *this_passage(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&passages, &zero);
}

/* An address as a number, most significant octet first. */
static __always_inline __u64 number(const __be32 *address)
{
	return (__u64)bpf_ntohl(address[0]) << 32 | bpf_ntohl(address[1]);
}

static __always_inline bool has_c_bit(const __be32 *address)
{
	return address[0] & bpf_htonl(C_BIT);
}

/* The upper half of the site that an address lies in. */
static __always_inline __be32 site_of(const __be32 *address)
{
	return address[0] & bpf_htonl(~C_BIT);
}

static __always_inline bool is_group(const __be32 *address)
{
	return (bpf_ntohl(address[0]) >> 24 & 0x7f) == 0x7f;
}

/* Whether C is set over an IPv4 address that no node has. */
static __always_inline bool is_special_ipv4(const __be32 *address)
{
	__u32 first = bpf_ntohl(address[1]) >> 24;

	return has_c_bit(address) && !is_group(address) && (first == 0 || first == 127 || first >= 224);
}

/* Whether no packet may have these addresses (RFC 8507 §4.3; spec 2.2). */
static __always_inline bool is_unfit(const struct sip *sip)
{
	__u64 src = number(sip->src), dst = number(sip->dst);

	return src == 0 || is_group(sip->src) || src == 1 || dst == 1 || is_special_ipv4(sip->src) ||
	       is_special_ipv4(sip->dst);
}

/* Whether all systems, hosts or routers are meant: of the link, or of this system (RFC 8507 §4.3). */
static __always_inline bool is_for_everybody(const __be32 *address)
{
	__u32 upper = bpf_ntohl(address[0]), low = bpf_ntohl(address[1]);

	return (upper == 0x7f010000 || upper == 0x7f020000) && low >= 1 && low <= 3;
}

/* Whether an IPv4 address is no host's, so that nothing goes there (RFC 1812 §5.3.7). */
static __always_inline bool is_no_host(__be32 address)
{
	__u32 first = bpf_ntohl(address) >> 24;

	return first == 0 || first == 127 || first >= 224;
}

/* The sum of the pseudo-header of ICMP, both addresses whole (spec 2.6). */
static __always_inline __u64 pseudo_sum(const struct sip *sip, __u32 octets)
{
	return (__u64)sip->src[0] + sip->src[1] + sip->dst[0] + sip->dst[1] + bpf_htons(IPPROTO_ICMP) +
	       bpf_htons(octets);
}

/* Change a checksum for sums that come and go (RFC 1624 §3, eqn. 3). */
static __always_inline __u16 exchange(__u16 old, __u64 gone, __u64 come)
{
	return ~fold((__u64)(__u16)~old + (__u16)~fold(gone) + fold(come));
}

/* Read the header of a SIP packet; false if it is cut short. */
static __always_inline bool parse_sip(frame_t *frame, struct cursor cursor, struct passage *packet)
{
	if (!parse_octets(frame, &cursor, &packet->sip, sizeof(packet->sip)))
		return false;
	packet->at = cursor.at;
	packet->octets = bpf_ntohs(packet->sip.octets);
	return true;
}

/* Whether there are option headers, which the reference plane looks at. */
static __always_inline bool has_options(const struct sip *sip)
{
	return sip->type == SIP_SOURCE_ROUTE || sip->type == SIP_FRAGMENT;
}

static __always_inline bool is_sip(const struct sip *sip)
{
	return bpf_ntohl(sip->first) >> 28 == SIP_VERSION;
}

#endif
