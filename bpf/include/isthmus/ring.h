/* SPDX-License-Identifier: Dual BSD/GPL */
/*
 * What was sent in IPAE datagrams, by their identifications, for the ICMP errors about them (spec 6.4), and what such
 * errors have taught about a way. The reference plane reads the one and writes the other: plane/kernel/ring.py.
 */
#ifndef ISTHMUS_RING_H
#define ISTHMUS_RING_H

#include <isthmus/sip.h>

/*
 * Take the next slot: the identification of a datagram, or of a translated packet, which is no datagram and leaves alone
 * what the slot says of one.
 */
static __always_inline __u16 next_slot(void)
{
	struct rules *state;
	__u32 zero = 0;

	state = bpf_map_lookup_elem(&rules, &zero);
	return state ? __sync_fetch_and_add(&state->next, 1) : 0;
}

/* Keep the beginning of the SIP packet in a datagram, which stands in the buffer. */
static __always_inline void note_sent(frame_t *frame, __u32 at, __u32 octets, const struct iphdr *outer,
				      __be32 realm, __u32 now)
{
	__u32 number = bpf_ntohs(outer->id);
	struct slot *slot = bpf_map_lookup_elem(&ring, &number);

	if (!slot)
		return;
	slot->second = now;
	slot->realm = realm;
	slot->remote = outer->daddr;
	if (octets >= RING_OCTETS) {
		slot->octets = RING_OCTETS;
		fetch(frame, at, slot->sip, RING_OCTETS);
		return;
	}
	octets &= RING_OCTETS - 1;
	asm volatile("" : "+r"(octets)); /* the verifier does not know what the compiler does */
	slot->octets = octets;
	if (octets >= SIP_OCTETS && octets < RING_OCTETS)
		fetch(frame, at, slot->sip, octets);
}

/* What is known of a way; null if nothing. */
static __always_inline struct way *way_of(__be32 realm, __be32 local, __be32 remote)
{
	struct way_key key = { realm, local, remote };

	return bpf_map_lookup_elem(&ways, &key);
}

#endif
