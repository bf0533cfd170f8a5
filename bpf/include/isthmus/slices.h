/* SPDX-License-Identifier: Dual BSD/GPL */
/*
 * Whose a slice of ports is: one word (abi.h), half of one, or one bit. Written by plane/kernel/direct.py, index.py,
 * briefs.py and blocks.py.
 */
#ifndef ISTHMUS_SLICES_H
#define ISTHMUS_SLICES_H

#include <isthmus/scratch.h>

/* Enter what a direct word says, but for its deadline. */
static __always_inline void take_direct(__u32 word, struct entry *entry)
{
	entry->flags = word & (SLICE_CLAIMED | SLICE_CONTACTED);
	entry->holder = word >> SLICE_ENDPOINT_SHIFT;
	entry->endpoint = 1 + (word >> SLICE_TEMPLATE_SHIFT & (TEMPLATES - 1));
}

/* Find whose a slice is where it follows the rule of its block; false: a brief or "slices" decides. */
static __always_inline bool by_block(__u32 number, struct entry *entry, __u32 now)
{
	__u32 nth = number & (BLOCK_SLICES - 1), at = number >> BLOCK_SHIFT;
	struct block *block = bpf_map_lookup_elem(&blocks, &at);
	__u64 rule, followers;
	__u32 until;

	if (!block)
		return false;
	rule = *(volatile __u64 *)&block->rule;
	followers = *(volatile __u64 *)&block->followers;
	if (!(followers >> nth & 1) || *(volatile __u64 *)&block->rule != rule)
		return false;
	until = rule >> 32 & BLOCK_UNTIL_MASK;
	if (until <= now)
		return false;
	take_direct((__u32)rule + (nth >> (rule >> 32 & BLOCK_STEP_MASK) << SLICE_ENDPOINT_SHIFT), entry);
	entry->deadline = until;
	return true;
}

/*
 * Find whose a slice is where a brief says so; false: "slices" decides. Until when it is true is read first, so that
 * of a brief that is exchanged meanwhile the old word never meets the new second.
 */
static __always_inline bool by_brief(__u32 number, struct entry *entry, __u32 now)
{
	__u32 line = number * 0x88888889ULL >> 35; /* a fifteenth */
	struct brief *brief = bpf_map_lookup_elem(&briefs, &line);
	__u32 until, word;

	if (!brief)
		return false;
	until = *(volatile __u32 *)brief->words;
	word = *(volatile __u32 *)&brief->words[(1 + number - line * BRIEF_SLICES) & (BRIEF_WORDS - 1)];
	if (!word || until <= now)
		return false;
	take_direct(word, entry);
	entry->deadline = until;
	return true;
}

/* Find whose a slice is; true if there is no more to ask than who holds its address whole. */
static __always_inline bool by_slice(__u32 number, struct entry *entry)
{
	__u64 *slot = bpf_map_lookup_elem(&slices, &number);
	__u64 word = slot ? *(volatile __u64 *)slot : 0;

	entry->flags = word & SLICE_CLAIMED;
	if (word & SLICE_SPLIT)
		return false;
	entry->deadline = word >> SLICE_DEADLINE_SHIFT;
	if (word & SLICE_DIRECT) {
		take_direct(word, entry);
	} else {
		entry->endpoint = word >> SLICE_ENDPOINT_SHIFT & SLICE_ENDPOINT_MASK;
		entry->flags |= word & SLICE_CONTACTED;
	}
	return true;
}

#endif
