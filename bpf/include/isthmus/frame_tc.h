/* SPDX-License-Identifier: Dual BSD/GPL */
/* A frame at TC: struct __sk_buff. Large segments stay large, and their marks (of tunnels, of IP versions) are kept right. */
#ifndef ISTHMUS_FRAME_TC_H
#define ISTHMUS_FRAME_TC_H

#include <stdbool.h>
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define AT_XDP 0
#define FRAME_DROP TC_ACT_SHOT
/* Newer than the headers of Debian 12 (Linux 6.4): what is left is IPv4. Without it IPv6 stays IPv6, IPv4 IPv4. */
#define ADJ_ROOM_DECAP_L3_IPV4 (1ULL << 7)

typedef struct __sk_buff frame_t;

static __always_inline __u32 frame_octets(const frame_t *frame)
{
	return frame->len;
}

/* Octets of one segment of a large one; 0: it is none. */
static __always_inline __u32 segment_octets(const frame_t *frame)
{
	return frame->gso_size;
}

/* Where octets stand if they are in the linear part of the buffer, else null. */
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
	return !bpf_skb_load_bytes(frame, at, to, octets);
}

static __always_inline bool put(frame_t *frame, __u32 at, const void *from, __u32 octets)
{
	return !bpf_skb_store_bytes(frame, at, from, octets, 0);
}

/* Leave a note of what was decided for tests and tracing: realm, and reason plus one. */
static __always_inline void note(frame_t *frame, __be32 realm, __u32 reason)
{
	frame->cb[0] = realm;
	frame->cb[1] = reason + 1;
}

/* Cut off what follows an octet. */
static __always_inline bool cut(frame_t *frame, __u32 end)
{
	return frame->len == end || (!frame->gso_size && !bpf_skb_change_tail(frame, end, 0));
}

/* Make room for an outer header of IPv4 between link header and IP header. */
static __always_inline bool grow(frame_t *frame, __u32 octets, bool gre)
{
	__u64 flags = BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_NO_CSUM_RESET;
	__u64 encap = BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 | (gre ? BPF_F_ADJ_ROOM_ENCAP_L4_GRE : 0);

	if (!bpf_skb_adjust_room(frame, octets, BPF_ADJ_ROOM_MAC, flags | encap))
		return true;
	/* What came out of a tunnel just now is still marked as tunnelled, and Linux marks nothing twice. */
	return !frame->gso_size && !bpf_skb_adjust_room(frame, octets, BPF_ADJ_ROOM_MAC, flags);
}

/* The same of IPv6; "over6": whether what is there is IPv6 already. */
static __always_inline bool grow6(frame_t *frame, __u32 octets, bool gre, bool over6)
{
	__u64 flags = BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_NO_CSUM_RESET;
	__u64 encap = BPF_F_ADJ_ROOM_ENCAP_L3_IPV6 | (gre ? BPF_F_ADJ_ROOM_ENCAP_L4_GRE : 0);

	if (!bpf_skb_adjust_room(frame, octets, BPF_ADJ_ROOM_MAC, flags | encap))
		return true;
	/* Without the mark IPv4 stays IPv4: the reference plane puts it into the tunnel. */
	return over6 && !frame->gso_size && !bpf_skb_adjust_room(frame, octets, BPF_ADJ_ROOM_MAC, flags);
}

/*
 * Let there be more octets before the payload, or less, and let the packet be of a version of IP, which the link header says,
 * too. What makes the other version of a packet takes 20 octets away, or puts them there, by itself.
 */
static __always_inline bool reframe(frame_t *frame, __u32 link, __s32 more, __u16 type)
{
	__be16 word = bpf_htons(type);

	if (frame->protocol != word) {
		if (bpf_skb_change_proto(frame, word, 0) || (link && !put(frame, link - sizeof(word), &word, sizeof(word))))
			return false;
		more += type == ETH_P_IP ? 20 : -20;
	}
	return !more || !bpf_skb_adjust_room(frame, more, BPF_ADJ_ROOM_MAC, BPF_F_ADJ_ROOM_FIXED_GSO);
}

/* Take octets away behind the link header; "to_ipv4": whether that turns IPv6 into IPv4. */
static __always_inline bool shrink(frame_t *frame, __u32 octets, bool to_ipv4)
{
	__u64 flags = BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_NO_CSUM_RESET | (to_ipv4 ? ADJ_ROOM_DECAP_L3_IPV4 : 0);

	return !bpf_skb_adjust_room(frame, -(__s32)octets, BPF_ADJ_ROOM_MAC, flags);
}

#endif
