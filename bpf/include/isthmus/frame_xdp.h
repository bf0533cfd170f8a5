/* SPDX-License-Identifier: Dual BSD/GPL */
/*
 * A frame at XDP: struct xdp_md. There are no large segments and no marks. The link header does not move when room is made
 * behind it: whoever sends a frame on writes all of it (leave_xdp.h).
 */
#ifndef ISTHMUS_FRAME_XDP_H
#define ISTHMUS_FRAME_XDP_H

#include <stdbool.h>
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define AT_XDP 1
#define FRAME_DROP XDP_DROP

typedef struct xdp_md frame_t;

static __always_inline __u32 frame_octets(const frame_t *frame)
{
	return frame->data_end - frame->data;
}

/* Octets of one segment of a large one: there are none. */
static __always_inline __u32 segment_octets(const frame_t *frame)
{
	return 0;
}

/* Where octets stand; null if they are not all there, or far behind. */
static __always_inline void *linear(frame_t *frame, __u32 at, __u32 octets)
{
	void *start = (void *)(long)frame->data;
	void *end = (void *)(long)frame->data_end;

	if (at > LINEAR_MOST || start + at + octets > end)
		return 0;
	return start + at;
}

/* Copy octets out of a frame, and into one, by a call. */
static __always_inline bool fetch(frame_t *frame, __u32 at, void *to, __u32 octets)
{
	return !bpf_xdp_load_bytes(frame, at, to, octets);
}

static __always_inline bool put(frame_t *frame, __u32 at, const void *from, __u32 octets)
{
	return !bpf_xdp_store_bytes(frame, at, (void *)from, octets);
}

/* There is no place for notes in a frame. */
static __always_inline void note(frame_t *frame, __be32 realm, __u32 reason)
{
}

/* Cut off what follows an octet. */
static __always_inline bool cut(frame_t *frame, __u32 end)
{
	__s32 more = end - frame_octets(frame);

	return !more || !bpf_xdp_adjust_tail(frame, more);
}

/* Make room between link header and IP header. */
static __always_inline bool grow(frame_t *frame, __u32 octets, bool gre)
{
	return !bpf_xdp_adjust_head(frame, -(__s32)octets);
}

static __always_inline bool grow6(frame_t *frame, __u32 octets, bool gre, bool over6)
{
	return grow(frame, octets, gre);
}

/* Let there be more octets before the payload, or less. */
static __always_inline bool reframe(frame_t *frame, __u32 link, __s32 more, __u16 type)
{
	return !more || !bpf_xdp_adjust_head(frame, -more);
}

/* Take octets away there. */
static __always_inline bool shrink(frame_t *frame, __u32 octets, bool to_ipv4)
{
	return !bpf_xdp_adjust_head(frame, octets);
}

#endif
