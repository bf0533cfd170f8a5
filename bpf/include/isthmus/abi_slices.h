/* SPDX-License-Identifier: Dual BSD/GPL */
/* The part of abi.h that is slices of ports; only that includes this. */
#ifndef ISTHMUS_ABI_SLICES_H
#define ISTHMUS_ABI_SLICES_H

/*
 * slices: one word per aligned port slice, read and written whole:
 *
 *   63          32 31                    8 7        0
 *   | deadline    | endpoint number       | flags    |
 *   | deadline    | end of the address    | t, flags |       with DIRECT
 *
 * 0 is "no pool's and nobody's". A direct word needs no record of its holder: that has registered, and its tunnel is in
 * all but the last 24 bits of the holder's address, of IPv4 or IPv6, the endpoint of number 1 + t, a template; t is in the
 * upper four bits.
 */
enum slice_flag {
	SLICE_CLAIMED = 1,   /* the whole slice is a pool's */
	SLICE_CONTACTED = 2, /* admits contacted peers only */
	SLICE_SPLIT = 4,     /* ask by_demux; no endpoint here */
	SLICE_DIRECT = 8,    /* what stands there is the end of the holder's address */
};
#define SLICE_TEMPLATE_SHIFT 4
#define TEMPLATES 16
#define SLICE_ENDPOINT_SHIFT 8
#define SLICE_ENDPOINT_MASK 0xffffffU
#define SLICE_DEADLINE_SHIFT 32

/*
 * briefs: direct words once more, in half as many octets, because what is touched at random costs by how much there is
 * of it. One line of the cache is about fifteen slices:
 *
 *   word 0: until when all that follows is true    words 1 to 15: lower halves of the slices' words, or 0
 *
 * From the second in word 0 on, and where there is 0, "slices" says what is true.
 */
#define BRIEF_WORDS 16
#define BRIEF_SLICES (BRIEF_WORDS - 1)
struct brief {
	__u32 words[BRIEF_WORDS];
};

/*
 * blocks: direct words a third time, 64 of them in 16 octets, where the holders of consecutive leases have consecutive
 * addresses, as the pool gives them:
 *
 *   63                    38 37        35 34       32 31                    0
 *   | until, 64 s           | generation | k         | word of slice 0        |    rule
 *   | bit i: the lower half of the word of slice i is that word + (i >> k << SLICE_ENDPOINT_SHIFT),          followers
 *            and its deadline is not before 64 * until                       |
 *
 * Of what does not follow, and from that second on, briefs and slices say what is true. A bit is cleared before its
 * word changes, and all are before the rule's word or k does. Whoever reads the same rule before and after the followers
 * has read what was true together: a rule that comes back has another generation.
 */
#define BLOCK_SHIFT 6
#define BLOCK_SLICES (1 << BLOCK_SHIFT)
#define BLOCK_UNTIL_MASK 0xffffffc0U
#define BLOCK_STEP_MASK 7
struct block {
	__u64 rule;
	__u64 followers;
};

#endif
