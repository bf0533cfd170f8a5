# SPDX-License-Identifier: BSD-3-Clause
"""The map ``blocks``: what ``slices`` says of direct words, 64 of them in 16 octets, where consecutive leases are of
consecutive addresses.

::

    rule        until, generation, k, word of slice 0     (abi.h)
    followers   bit i: the word of slice i is that word, with the holder's address greater by i >> k

As ``briefs`` it is worked out of the words, may be silent, and is never wrong: at every moment each slice that has a
bit has the word that the rule says, and a deadline that is not before the rule's.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterable, Sequence

from isthmus.plane.kernel.direct import DIRECT
from isthmus.plane.kernel.image import Image
from isthmus.plane.kernel.owners import LOW_32, first_word, word_count
from isthmus.plane.kernel.pinned import BLOCK_SLICES

SHIFT = BLOCK_SLICES.bit_length() - 1
MOST_STEP = SHIFT
"""Greatest k: of leases of whole blocks, and longer ones."""
STEP_AT, GENERATION_AT, UNTIL_AT = 32, 35, 38
"""Bits of a rule."""
GENERATION = 7 << GENERATION_AT
FEW = 8
"""A k is a rule's if more than one in as many words is of a lease as long."""
_BODY = 7 << STEP_AT | LOW_32
"What decides whether a word follows."
_WITHIN = BLOCK_SLICES - 1
_RUN = 256
"Blocks that are looked at together."


class Blocks:
    """The blocks.

    Args:
        mapped: The map ``blocks``.
        words: The map ``slices``, in words.
    """

    def __init__(self, mapped: mmap.mmap, words: memoryview) -> None:
        self._mapped, self._words = mapped, words
        self._pairs = memoryview(mapped).cast("Q")
        "Rule and followers in turn."
        self._left: set[int] = set()
        "Blocks of which the follower with the first deadline may have gone by ``forget``, or the last one."

    def close(self) -> None:
        """Let go of the map."""
        self._pairs.release()
        self._mapped.close()

    @property
    def memory(self) -> memoryview:
        """The map, in its words."""
        return self._pairs

    def forget(self, numbers: Iterable[int]) -> None:
        """Say nothing of these words, which are about to change."""
        pairs, words = self._pairs, self._words
        for number in numbers:
            at = number >> SHIFT << 1
            followers, bit = pairs[at + 1], 1 << (number & _WITHIN)
            if followers & bit:
                pairs[at + 1] = followers ^ bit
                if followers == bit or words[number] >> UNTIL_AT == pairs[at] >> UNTIL_AT:
                    self._left.add(number >> SHIFT)

    def tell(self, numbers: Iterable[int]) -> None:
        """Say of these words what they are, as far as they follow their blocks' rules."""
        pairs, words = self._pairs, self._words
        for number in numbers:
            word = words[number]
            if not word & DIRECT:
                continue
            at, nth = number >> SHIFT << 1, number & _WITHIN
            rule, followers = pairs[at], pairs[at + 1]
            if not follows(rule, nth, word):
                if not followers:
                    self._exchange(number >> SHIFT, rule_by(nth, word, self._step(number)), 1 << nth)
                elif self._has_company(number, word):
                    self._elect(number >> SHIFT, followers)
                continue
            if not followers:
                self._begin(at, rule & _BODY | word >> UNTIL_AT << UNTIL_AT)
            elif word >> UNTIL_AT < rule >> UNTIL_AT:
                pairs[at] = rule & ~(-1 << UNTIL_AT) | word >> UNTIL_AT << UNTIL_AT
            pairs[at + 1] = followers | 1 << nth
        if self._left:
            for block in self._left:
                self._prolong(block)
            self._left.clear()

    def renew(self, image: Image) -> None:
        """Say what follows from the words, all of which are what an image says, and nothing else."""
        wanted: set[int] = set()
        for tag in image.owners:
            for run in image.owners.runs(tag):
                first = first_word(run)
                wanted.update(range(first >> SHIFT, (first + word_count(run) - 1 >> SHIFT) + 1))
        silent = memoryview(bytes(16 * _RUN)).cast("Q")
        for start in range(0, len(self._pairs) >> 1, _RUN):
            pairs = self._pairs[2 * start : 2 * (start + _RUN)]
            if pairs != silent[: len(pairs)]:
                wanted.update(range(start, start + (len(pairs) >> 1)))
        for block in wanted:
            self._exchange(block, *block_of(self._words_of(block)))
        self._left.clear()

    def _words_of(self, block: int) -> list[int]:
        return self._words[block << SHIFT : (block + 1) << SHIFT].tolist()

    def _exchange(self, block: int, rule: int, followers: int) -> None:
        """Give a block another rule and other followers, unless it has them."""
        pairs, at = self._pairs, block << 1
        if (pairs[at] ^ rule) & ~GENERATION or pairs[at + 1] != followers:
            pairs[at + 1] = 0
            self._begin(at, rule)
            pairs[at + 1] = followers

    def _begin(self, at: int, rule: int) -> None:
        """Write the rule of a block without followers, or one that is true for longer."""
        before = self._pairs[at]
        if (before ^ rule) & ~GENERATION:
            self._pairs[at] = rule & ~GENERATION | before + (1 << GENERATION_AT) & GENERATION

    def _prolong(self, block: int) -> None:
        """Let a rule be true until the first deadline of those who follow it; if nobody does, have another."""
        at = block << 1
        rule, followers = self._pairs[at], self._pairs[at + 1]
        words = list(filter(LOW_32.__lt__, self._words_of(block)))  # but those of nobody
        if not followers:
            if words:
                self._elect(block, 0)
            return
        if len(words) != followers.bit_count():
            words = [word for nth, word in enumerate(self._words_of(block)) if followers >> nth & 1]
        least = min(words) >> UNTIL_AT
        if least > rule >> UNTIL_AT:
            self._begin(at, rule & _BODY | least << UNTIL_AT)

    def _step(self, number: int) -> int:
        """The k of which a lease is as long as the one that has this word: its words are equal but for deadlines."""
        words, step = self._words, 0
        half = words[number] & LOW_32
        while step < MOST_STEP and (number ^ 1 << step) < len(words) and words[number ^ 1 << step] & LOW_32 == half:
            step += 1
        return step

    def _has_company(self, number: int, word: int) -> bool:
        """Whether a neighbour would follow a rule that begins with this word."""
        nth, words = number & _WITHIN, self._words
        step = self._step(number)
        rule, apart = rule_by(nth, word, step), 1 << step
        before, after = nth - apart, nth + apart
        return (before >= 0 and follows(rule, before, words[number - apart])) or (
            after < BLOCK_SLICES and follows(rule, after, words[number + apart])
        )

    def _elect(self, block: int, followers: int) -> None:
        """Give a block the rule that most words follow, if that is many more than now."""
        rule, others = block_of(self._words_of(block))
        if others.bit_count() > 2 * followers.bit_count():
            self._exchange(block, rule, others)


def follows(rule: int, nth: int, word: int) -> bool:
    """Whether a word that is direct, of the n-th slice of a block, is what a rule says, but for the deadline."""
    return not (rule + (nth >> (rule >> STEP_AT & 7) << 8) ^ word) & LOW_32


def rule_by(nth: int, word: int, step: int) -> int:
    """The rule with this k that a word of the n-th slice follows, until its deadline."""
    return word >> UNTIL_AT << UNTIL_AT | step << STEP_AT | word - (nth >> step << 8) & LOW_32


def block_of(words: Sequence[int]) -> tuple[int, int]:
    """Rule (generation 0) and followers of a block; 0 and 0 if none of its words is direct.

    The step is that of the words that equal their neighbours, and the rule that of the majority if there is one.

    Args:
        words: Those of its slices, in their order.
    """
    halves = [(nth, word & LOW_32) for nth, word in enumerate(words) if word & DIRECT]
    if not halves:
        return 0, 0
    of = dict(halves)
    step = 0
    while step < MOST_STEP and FEW * sum(of.get(nth ^ 1 << step) == half for nth, half in halves) > len(halves):
        step += 1
    elected = votes = 0
    for nth, half in halves:
        base = half - (nth >> step << 8) & LOW_32
        if not votes:
            elected = base
        votes += 1 if base == elected else -1
    rule = step << STEP_AT | elected
    found = [nth for nth, half in halves if follows(rule, nth, half)]
    if not found:
        return 0, 0
    until = min(words[nth] for nth in found) >> UNTIL_AT
    return until << UNTIL_AT | rule, sum(1 << nth for nth in found)
