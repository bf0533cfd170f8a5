/* SPDX-License-Identifier: Dual BSD/GPL */
/* The Internet checksum (RFC 1071, RFC 1624), with end-around carry, always. Pairs with checksum.py. */
#ifndef ISTHMUS_CHECKSUM_H
#define ISTHMUS_CHECKSUM_H

#include <isthmus/cursor.h>

/* Fold a sum into 16 bits (RFC 1071 §1). */
static __always_inline __u16 fold(__u64 total)
{
	total = (total & 0xffffffff) + (total >> 32);
	total = (total & 0xffff) + (total >> 16);
	total = (total & 0xffff) + (total >> 16);
	total = (total & 0xffff) + (total >> 16);
	return total;
}

/* Add up a header without options, as words of 32 bits: the sum is the same (RFC 1071 §2). */
static __always_inline __u64 ones_sum(const struct iphdr *header)
{
	const __u32 *words = (const __u32 *)header;

	return (__u64)words[0] + words[1] + words[2] + words[3] + words[4];
}

/* The checksum that belongs into a header whose own field is zero (RFC 1071 §1). */
static __always_inline __u16 checksum(const struct iphdr *header)
{
	return ~fold(ones_sum(header));
}

/* Whether the checksum fits the header, options included (RFC 791 §3.1). */
static __always_inline bool checksum_ok(frame_t *frame, const struct ipv4 *packet)
{
	struct cursor cursor = { packet->at + IPV4_MINIMUM, packet->at + packet->header };
	__u64 total = ones_sum(&packet->raw);
	__u32 word;

	for (int i = 0; i < 10 && cursor.at < cursor.end; i++) {
		if (!fetch(frame, cursor.at, &word, sizeof(word)))
			return false;
		total += word;
		cursor.at += sizeof(word);
	}
	return fold(total) == 0xffff;
}

/* Change a checksum for one word that changes: HC' = ~(~HC + ~m + m') (RFC 1624 §3, eqn. 3). */
static __always_inline __u16 update(__u16 old, __u16 before, __u16 after)
{
	return ~fold((__u32)(__u16)~old + (__u16)~before + after);
}

#endif
