/* SPDX-License-Identifier: Dual BSD/GPL */
/*
 * ICMP errors: which are forged (RFC 3102 §6.2). Those that a border sends are made by the
 * reference plane. Pairs with plane/reference/icmp_relay.py.
 */
#ifndef ISTHMUS_ICMP_RELAY_H
#define ISTHMUS_ICMP_RELAY_H

#include <isthmus/classify.h>

#define ICMP_FRAGMENTATION_NEEDED 4 /* code of "destination unreachable" */
#define ICMPV6_PACKET_TOO_BIG 2

/* Whether an error from outside quotes a packet of somebody else than its addressee (RFC 3102 §6.2). */
static __always_inline bool is_forged_inward(const struct ipv4 *packet, const struct ends *both)
{
	return both->quoted && packet->raw.daddr != both->dst;
}

/* Whether an error from a host quotes a packet that its addressee did not send to its sender (RFC 3102 §6.2). */
static __always_inline bool is_forged_outward(const struct ipv4 *packet, const struct ends *both)
{
	return both->quoted && (packet->raw.saddr != both->src || packet->raw.daddr != both->dst);
}

/* Whether a packet says that another was too large: to a tunnel's end, perhaps an outer one (RFC 1191 §4; RFC 2003 §4). */
static __always_inline bool is_fragmentation_needed(frame_t *frame, const struct ipv4 *packet)
{
	__u8 message[2];

	return packet->raw.protocol == IPPROTO_ICMP && !is_fragment(packet) &&
	       fetch(frame, packet->at + packet->header, message, sizeof(message)) &&
	       message[0] == ICMP_DEST_UNREACH && message[1] == ICMP_FRAGMENTATION_NEEDED;
}

/* The same of IPv6 (RFC 4443 §3.2; RFC 2473 §8). */
static __always_inline bool is_packet_too_big(frame_t *frame, const struct ipv4 *packet)
{
	__u8 type;

	return packet->raw.protocol == IPPROTO_ICMPV6 &&
	       fetch(frame, packet->at + packet->header, &type, sizeof(type)) &&
	       type == ICMPV6_PACKET_TOO_BIG;
}

static __always_inline bool is_multicast(__be32 address)
{
	return bpf_ntohl(address) >> 28 == 14;
}

/*
 * Whether no packet may leave for an address: zero, loopback, reserved, broadcast (RFC 1812 §5.3.7), the groups of one
 * link; with ICMP, ESP and AH every group.
 */
static __always_inline bool is_forbidden(__be32 address, __u8 protocol)
{
	__u32 number = bpf_ntohl(address);
	__u32 first = number >> 24;

	if (first == 0 || first == 127 || first >= 240 || number >> 8 == 0xe00000)
		return true;
	return is_multicast(address) &&
	       (protocol == IPPROTO_ICMP || protocol == IPPROTO_ESP || protocol == IPPROTO_AH);
}

#endif
