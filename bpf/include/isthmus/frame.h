/* SPDX-License-Identifier: Dual BSD/GPL */
/*
 * A frame, wherever the program is attached: at TC it is a buffer of the IP stack, at XDP the driver's memory. Both have
 * the same operations under the same names, and nothing else knows which of them it is.
 */
#ifndef ISTHMUS_FRAME_H
#define ISTHMUS_FRAME_H

/* Furthest octet that is looked at without a call; link header, IPv6, GRE and IPv4 header are 118. Tests set it to 0. */
#ifndef LINEAR_MOST
#define LINEAR_MOST 255
#endif
/* Every IPv4 header begins at a multiple of four, as the kernel sees it (NET_IP_ALIGN). */
#define FRAME_ALIGNMENT 4
/* What no program returns: somebody else decides. */
#define UNDECIDED (-2)

#ifdef ISTHMUS_XDP
#include <isthmus/frame_xdp.h>
#else
#include <isthmus/frame_tc.h>
#endif

/* Copy octets out of a frame; their number is a constant. */
static __always_inline bool load(frame_t *frame, __u32 at, void *to, __u32 octets)
{
	void *from = linear(frame, at, octets);

	if (!from)
		return fetch(frame, at, to, octets);
	__builtin_memcpy(to, __builtin_assume_aligned(from, FRAME_ALIGNMENT), octets);
	return true;
}

/* Copy octets into a frame; their number is a constant. */
static __always_inline bool store(frame_t *frame, __u32 at, const void *from, __u32 octets)
{
	void *to = linear(frame, at, octets);

	if (!to)
		return put(frame, at, from, octets);
	__builtin_memcpy(__builtin_assume_aligned(to, FRAME_ALIGNMENT), from, octets);
	return true;
}

#endif
