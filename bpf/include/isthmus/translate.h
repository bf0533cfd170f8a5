/* SPDX-License-Identifier: Dual BSD/GPL */
/*
 * One header in the place of another, and what that does to the checksum of ICMP; all other transports are left alone
 * (seed IPAE 5.1, 5.2; spec 2.6, 3.3, 3.4). Pairs with plane/reference/translate.py and translate_icmp.py.
 */
#ifndef ISTHMUS_TRANSLATE_H
#define ISTHMUS_TRANSLATE_H

#include <isthmus/images.h>
#include <isthmus/tunnel.h>

/* Make what stands between link header and payload so many octets longer, or shorter. */
static __always_inline bool reframe(struct __sk_buff *skb, __s32 more)
{
	return !more || !bpf_skb_adjust_room(skb, more, BPF_ADJ_ROOM_MAC, BPF_F_ADJ_ROOM_FIXED_GSO);
}

/* Cut off what follows the payload. */
static __always_inline bool trim_payload(struct __sk_buff *skb, const struct passage *packet)
{
	__u32 end = packet->at + packet->octets;

	return skb->len == end || !bpf_skb_change_tail(skb, end, 0);
}

/* Let a packet be one of the other version of IP: 20 octets less for IPv4, 20 more for IPv6 stand before the payload. */
static __always_inline bool as_version(struct __sk_buff *skb, __u32 link, __u16 type)
{
	return !bpf_skb_change_proto(skb, bpf_htons(type), 0) && store_type(skb, link, type);
}

/*
 * Put so many octets of header before the payload, whatever stood there; "type" is the EtherType that goes with them.
 * False if Linux does not make the room.
 */
static __noinline int make_room(struct __sk_buff *skb, const struct ingress *from, struct passage *packet, __u32 octets,
				__u32 type)
{
	__s32 more;

	if (!from || !packet || !trim_payload(skb, packet))
		return 0;
	more = (__s32)octets - (__s32)(packet->at - from->link);
	if (skb->protocol != bpf_htons(type)) {
		if (!as_version(skb, from->link, type))
			return 0;
		more += type == ETH_P_IP ? 20 : -20;
	}
	packet->at = from->link + octets;
	return reframe(skb, more);
}

/* Write the ICMP header anew, where its checksum has changed. */
static __always_inline bool store_icmp(struct __sk_buff *skb, const struct passage *packet)
{
	return !packet->rewritten || store(skb, packet->at, &packet->icmp, 4);
}

/* Read the ICMP header of the payload; false if it is cut short. */
static __always_inline bool parse_echo(struct __sk_buff *skb, struct passage *packet)
{
	if (packet->rewritten)
		return true;
	return packet->octets >= sizeof(packet->icmp) && load(skb, packet->at, &packet->icmp, sizeof(packet->icmp));
}

static __always_inline bool is_echo(const struct icmp *icmp)
{
	return icmp->type == ICMP_ECHO || icmp->type == ICMP_ECHOREPLY;
}

/* Let an ICMP checksum be that of SIP, or of IPv4 again, which has no pseudo-header (spec 2.6). */
static __always_inline bool with_pseudo_header(struct __sk_buff *skb, struct passage *packet, bool come)
{
	__u64 total;

	if (rule_flags() & RULE_ICMP_SLOW || !parse_echo(skb, packet) || !is_echo(&packet->icmp))
		return false;
	total = pseudo_sum(&packet->sip, packet->octets);
	packet->icmp.checksum = come ? exchange(packet->icmp.checksum, 0, total) :
				       exchange(packet->icmp.checksum, total, 0);
	packet->rewritten = true;
	return true;
}

#endif
