/* SPDX-License-Identifier: Dual BSD/GPL */
/*
 * ICMP errors: which are forged (RFC 3102 §6.2). Those that a border sends are made by the
 * reference plane. Pairs with plane/reference/icmp_relay.py.
 */
#ifndef ISTHMUS_ICMP_RELAY_H
#define ISTHMUS_ICMP_RELAY_H

#include <isthmus/classify.h>

/* Whether an error from outside quotes a packet of somebody else than its addressee (RFC 3102 §6.2). */
static __always_inline bool is_forged_inward(const struct ipv4 *packet, const struct ends *both)
{
	return both->quoted && packet->raw.daddr != both->dst;
}

/* Whether an error from a host quotes a packet that was not addressed to its sender (RFC 3102 §6.2). */
static __always_inline bool is_forged_outward(const struct ipv4 *packet, const struct ends *both)
{
	return both->quoted && packet->raw.saddr != both->src;
}

/* Whether an address is zero, loopback, multicast, reserved or broadcast (RFC 1812 §5.3.7). */
static __always_inline bool is_no_host(__be32 address)
{
	__u32 first = bpf_ntohl(address) >> 24;

	return first == 0 || first == 127 || first >= 224;
}

#endif
