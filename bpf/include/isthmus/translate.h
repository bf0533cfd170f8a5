/* SPDX-License-Identifier: Dual BSD/GPL */
/*
 * One header in the place of another, and what that does to the checksum of ICMP; all other transports are left alone
 * (seed IPAE 5.1, 5.2; spec 2.6, 3.3, 3.4). Pairs with plane/reference/translate.py and translate_icmp.py.
 */
#ifndef ISTHMUS_TRANSLATE_H
#define ISTHMUS_TRANSLATE_H

#include <isthmus/images.h>
#include <isthmus/tunnel.h>

/*
 * Put so many octets of header before the payload, whatever stood there; "type" is the EtherType that goes with them.
 * False if Linux does not make the room.
 */
static __noinline int make_room(frame_t *frame, const struct ingress *from, struct passage *packet, __u32 octets,
				__u32 type)
{
	__s32 more;

	if (!from || !packet || !cut(frame, packet->at + packet->octets))
		return 0;
	more = (__s32)octets - (__s32)(packet->at - from->link);
	packet->at = from->link + octets;
	return reframe(frame, from->link, more, type);
}

/* Write the ICMP header anew, where its checksum has changed. */
static __always_inline bool store_icmp(frame_t *frame, const struct passage *packet)
{
	return !packet->rewritten || store(frame, packet->at, &packet->icmp, 4);
}

/* Read the ICMP header of the payload; false if it is cut short. */
static __always_inline bool parse_echo(frame_t *frame, struct passage *packet)
{
	if (packet->rewritten)
		return true;
	return packet->octets >= sizeof(packet->icmp) && load(frame, packet->at, &packet->icmp, sizeof(packet->icmp));
}

static __always_inline bool is_echo(const struct icmp *icmp)
{
	return icmp->type == ICMP_ECHO || icmp->type == ICMP_ECHOREPLY;
}

/* Let an ICMP checksum be that of SIP, or of IPv4 again, which has no pseudo-header (spec 2.6). */
static __always_inline bool with_pseudo_header(frame_t *frame, struct passage *packet, bool come)
{
	__u64 total;

	if (rule_flags() & RULE_ICMP_SLOW || !parse_echo(frame, packet) || !is_echo(&packet->icmp))
		return false;
	total = pseudo_sum(&packet->sip, packet->octets);
	packet->icmp.checksum = come ? exchange(packet->icmp.checksum, 0, total) :
				       exchange(packet->icmp.checksum, total, 0);
	packet->rewritten = true;
	return true;
}

#endif
