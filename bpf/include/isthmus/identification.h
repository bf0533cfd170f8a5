/* SPDX-License-Identifier: Dual BSD/GPL */
/*
 * Identifications of hosts behind one address do not meet (RFC 3102 §6.3; docs/data-plane.md, Identifications).
 * Pairs with plane/reference/identification.py.
 */
#ifndef ISTHMUS_IDENTIFICATION_H
#define ISTHMUS_IDENTIFICATION_H

#include <isthmus/checksum.h>
#include <isthmus/classify.h>

/*
 * Give a packet that may be cut up an identification out of the block of its sender's port. The segments of a large one
 * are numbered on from that, so they begin with the first of the block.
 */
static __always_inline void identify(struct ipv4 *packet, const struct ends *both, __u32 binding_flags, __u8 shift,
				     bool large)
{
	__u16 before = packet->raw.id, mask, low;

	if (forbids_fragments(packet) || !(binding_flags & BINDING_PORT) || is_error(both))
		return;
	mask = binding_flags & BINDING_SLICE ? (1 << (shift & 15)) - 1 : 0;
	low = large ? 0 : bpf_ntohs(before) & mask;
	packet->raw.id = bpf_htons((both->src_value & ~mask) | low);
	packet->raw.check = update(packet->raw.check, before, packet->raw.id);
}

#endif
