/* SPDX-License-Identifier: Dual BSD/GPL */
/*
 * What a packet says about itself: its ends, and from them its flow (RFC 3102 §3.2; RFC 3103 §7.3).
 * Pairs with plane/reference/classify.py, which explains it.
 */
#ifndef ISTHMUS_CLASSIFY_H
#define ISTHMUS_CLASSIFY_H

#include <linux/in.h>
#include <isthmus/abi.h>
#include <isthmus/cursor.h>

/* linux/icmp.h needs a C library; this is all that is wanted of it (RFC 792, RFC 950). */
enum icmp_type {
	ICMP_ECHOREPLY = 0,
	ICMP_DEST_UNREACH = 3,
	ICMP_SOURCE_QUENCH = 4,
	ICMP_ECHO = 8,
	ICMP_TIME_EXCEEDED = 11,
	ICMP_PARAMETERPROB = 12,
	ICMP_TIMESTAMP = 13,
	ICMP_INFO_REQUEST = 15,
	ICMP_ADDRESS = 17,
	ICMP_ADDRESSREPLY = 18,
	NO_ICMP = 255,
};

struct icmp {
	__u8 type;
	__u8 code;
	__be16 checksum;
	__be16 identifier;
	__be16 sequence;
};

/* Which end of a packet is the local one. */
enum side {
	SOURCE,
	DESTINATION,
};

/* Both ends of a packet, or of the conversation that an ICMP error is about. */
struct ends {
	__be32 src;
	__be32 dst;
	__u32 src_value;
	__u32 dst_value;
	__u8 kind; /* 0: nothing tells hosts behind one address apart */
	__u8 has_ports;
	__u8 icmp_type;
	__u8 quoted; /* read, mirrored, from an ICMP error's quote */
	__u8 protocol; /* of the packet, or of the quoted one */
};
#define IKE_PORT 500

/* What a packet says about itself, seen from the binding that it would match. */
struct flow {
	__be32 realm;
	__be32 local;
	__be32 remote;
	__u32 value;
	__u16 remote_port;
	__u8 kind;
	__u8 has_remote_port;
};

/* RFC 3102 §6.2: from outside they are the gateway's own to answer. */
static __always_inline bool is_request(const struct ends *both)
{
	__u8 type = both->icmp_type;

	return type == ICMP_ECHO || type == ICMP_TIMESTAMP || type == ICMP_INFO_REQUEST || type == ICMP_ADDRESS;
}

/* RFC 3102 §6.2: relayed by what they quote; a redirect is meant for one link only. */
static __always_inline bool is_icmp_error(__u8 type)
{
	return type == ICMP_DEST_UNREACH || type == ICMP_SOURCE_QUENCH || type == ICMP_TIME_EXCEEDED ||
	       type == ICMP_PARAMETERPROB;
}

static __always_inline bool is_error(const struct ends *both)
{
	return is_icmp_error(both->icmp_type);
}

/* Queries and their answers, which have an identifier (RFC 792, RFC 950). */
static __always_inline bool is_icmp_query(__u8 type)
{
	return type == ICMP_ECHOREPLY || type == ICMP_ECHO ||
	       (type >= ICMP_TIMESTAMP && type <= ICMP_ADDRESSREPLY);
}

/* Octets of the transport header that classification reads (RFC 768, 793, 792, 4302, 4303). */
static __always_inline __u32 needed(__u8 protocol)
{
	switch (protocol) {
	case IPPROTO_TCP:
	case IPPROTO_UDP:
	case IPPROTO_ESP:
		return 4;
	case IPPROTO_ICMP:
	case IPPROTO_AH:
		return 8;
	}
	return 0;
}

/* Whether the transport header ends before what classification reads. */
static __always_inline bool is_cut_off(const struct ipv4 *packet)
{
	return packet->total - packet->header < needed(packet->raw.protocol);
}

/*
 * Read the ends of the packet that an ICMP error quotes, mirrored (RFC 792; RFC 1122 §3.2.2; RFC 3102 §6.2).
 * False if the quote does not show them.
 */
static __noinline bool quoted_ends(frame_t *frame, __u32 at, __u32 end, struct ends *both)
{
	struct cursor cursor = { at, end };
	struct iphdr raw;
	struct icmp head;
	__u32 header, total;
	__u8 kind = PORT;

	if (!both || !parse_octets(frame, &cursor, &raw, sizeof(raw)) || raw.version != 4)
		return false;
	header = raw.ihl * 4;
	total = bpf_ntohs(raw.tot_len);
	/* What is quoted may be cut short, but not the header. */
	if (header < IPV4_MINIMUM || at + header > end || total < header || raw.frag_off & bpf_htons(IP_OFFSET))
		return false;
	cursor.at = at + header;
	if (at + total < end)
		cursor.end = at + total;
	if (raw.protocol == IPPROTO_TCP || raw.protocol == IPPROTO_UDP) {
		__be16 ports[2];

		if (!parse_octets(frame, &cursor, ports, sizeof(ports)))
			return false;
		both->src_value = bpf_ntohs(ports[1]);
		both->dst_value = bpf_ntohs(ports[0]);
		both->has_ports = true;
	} else if (raw.protocol == IPPROTO_ICMP) {
		if (!parse_octets(frame, &cursor, &head, sizeof(head)) || !is_icmp_query(head.type))
			return false;
		both->src_value = both->dst_value = bpf_ntohs(head.identifier);
	} else if (raw.protocol == IPPROTO_ESP || raw.protocol == IPPROTO_AH) {
		__be32 spi;

		if (raw.protocol == IPPROTO_AH)
			cursor.at += 4;
		if (!parse_octets(frame, &cursor, &spi, sizeof(spi)))
			return false;
		both->src_value = both->dst_value = bpf_ntohl(spi);
		kind = SPI;
	} else {
		return false;
	}
	both->src = raw.daddr;
	both->dst = raw.saddr;
	both->kind = kind;
	both->quoted = true;
	both->protocol = raw.protocol;
	return true;
}

/* Whether only the host itself can tell whose it is: identifiers are translated there (docs/data-plane.md). */
static __always_inline bool has_identifier(const struct ends *both)
{
	return both->protocol == IPPROTO_ICMP && both->kind == PORT;
}

/* Read both ends of an ICMP message (RFC 792; RFC 3102 §6.2). */
static __always_inline void icmp_ends(frame_t *frame, struct cursor cursor, struct ends *both)
{
	struct icmp head;

	if (!parse_octets(frame, &cursor, &head, sizeof(head)))
		return;
	both->icmp_type = head.type;
	if (is_icmp_error(head.type)) {
		quoted_ends(frame, cursor.at, cursor.end, both);
	} else if (is_icmp_query(head.type)) {
		both->kind = PORT;
		both->src_value = both->dst_value = bpf_ntohs(head.identifier);
	}
}

/* Read both ends of a packet that is neither a fragment nor cut off (RFC 3102 §3.2, §6.2; RFC 3104 §4). */
static __always_inline void ends(frame_t *frame, const struct ipv4 *packet, struct ends *both)
{
	struct cursor cursor = payload(packet);
	__be32 word;

	__builtin_memset(both, 0, sizeof(*both));
	both->src = packet->raw.saddr;
	both->dst = packet->raw.daddr;
	both->icmp_type = NO_ICMP;
	both->protocol = packet->raw.protocol;
	switch (packet->raw.protocol) {
	case IPPROTO_TCP:
	case IPPROTO_UDP:
		if (!parse_octets(frame, &cursor, &word, sizeof(word)))
			return;
		both->kind = PORT;
		both->has_ports = true;
		both->src_value = bpf_ntohl(word) >> 16;
		both->dst_value = bpf_ntohl(word) & 0xffff;
		return;
	case IPPROTO_ICMP:
		icmp_ends(frame, cursor, both);
		return;
	case IPPROTO_AH:
		cursor.at += 4;
		/* fall through */
	case IPPROTO_ESP:
		if (!parse_octets(frame, &cursor, &word, sizeof(word)))
			return;
		both->kind = SPI;
		both->src_value = both->dst_value = bpf_ntohl(word);
	}
}

/* Orient the ends of a packet: one is local, the other the peer (RFC 3103 §9.8.1). */
static __always_inline void orient(const struct ends *both, __be32 realm, enum side local, struct flow *flow)
{
	flow->realm = realm;
	flow->kind = both->kind;
	flow->has_remote_port = both->has_ports;
	if (local == SOURCE) {
		flow->local = both->src;
		flow->remote = both->dst;
		flow->value = both->src_value;
		flow->remote_port = both->dst_value;
	} else {
		flow->local = both->dst;
		flow->remote = both->src;
		flow->value = both->dst_value;
		flow->remote_port = both->src_value;
	}
}

#endif
