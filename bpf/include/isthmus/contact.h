/* SPDX-License-Identifier: Dual BSD/GPL */
/*
 * Which peers a host has written to (our reading of RFC 3102 §2): see abi.h for the words.
 * Pairs with plane/reference/contact.py. Unlike that, it keeps a fingerprint of 20 bits, so
 * that a stranger is admitted by chance once in 130,000 times, and eight peers per bucket.
 */
#ifndef ISTHMUS_CONTACT_H
#define ISTHMUS_CONTACT_H

#include <isthmus/classify.h>
#include <isthmus/maps.h>

static __always_inline __u64 mix(__u64 hash)
{
	hash ^= hash >> 32;
	hash *= 0xd6e8feb86659fd93ULL;
	return hash ^ hash >> 32;
}

/* Where a peer is kept, and by which fingerprint. */
static __always_inline struct bucket *bucket(__u64 owner, const struct flow *flow, __u32 *fingerprint)
{
	__u64 hash = mix(mix(owner * 0x9e3779b97f4a7c15ULL ^ ((__u64)flow->local << 32 | flow->remote)));
	__u32 number = hash & (CONTACT_BUCKETS - 1);

	*fingerprint = hash >> 32 & ~CONTACT_EPOCH_MASK;
	if (!*fingerprint) /* with epoch 0 that would be an empty word */
		*fingerprint = CONTACT_EPOCH_MASK + 1;
	return bpf_map_lookup_elem(&contacted, &number);
}

static __always_inline __u32 epoch(__u32 now)
{
	return now / CONTACT_EPOCH_SECONDS & CONTACT_EPOCH_MASK;
}

static __always_inline __u32 age(__u32 word, __u32 now)
{
	return (epoch(now) - word) & CONTACT_EPOCH_MASK;
}

/* The owner has written to a peer from one of its addresses. */
static __always_inline void note_contact(__u64 owner, const struct flow *flow, __u32 now)
{
	__u32 fingerprint, oldest = 0, victim = 0;
	struct bucket *words;

	words = bucket(owner, flow, &fingerprint);
	if (!words)
		return;
	for (__u32 i = 0; i < CONTACT_WORDS; i++) {
		__u32 word = words->words[i];
		__u32 old = word ? age(word, now) : CONTACT_EPOCH_MASK + 1;

		if ((word & ~CONTACT_EPOCH_MASK) == fingerprint) {
			if (old) /* written once per epoch, so that the line is shared between processors */
				words->words[i] = fingerprint | epoch(now);
			return;
		}
		if (old > oldest) {
			oldest = old;
			victim = i;
		}
	}
	words->words[victim & (CONTACT_WORDS - 1)] = fingerprint | epoch(now);
}

/* Whether it has, in this epoch or the 120 before. */
static __noinline int knows_contact(__u64 owner, const struct flow *flow, __u32 now)
{
	struct bucket *words;
	__u32 fingerprint;

	if (!flow)
		return 0;
	words = bucket(owner, flow, &fingerprint);
	if (!words)
		return 0;
	for (__u32 i = 0; i < CONTACT_WORDS; i++) {
		__u32 word = words->words[i];

		if ((word & ~CONTACT_EPOCH_MASK) == fingerprint)
			return age(word, now) <= CONTACT_EPOCHS;
	}
	return 0;
}

#endif
