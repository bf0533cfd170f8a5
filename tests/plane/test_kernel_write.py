# SPDX-License-Identifier: BSD-3-Clause
"""Whenever a ``Writer`` is ended between two stores, ``blocks`` and ``briefs`` say nothing but what ``slices`` says."""

from __future__ import annotations

import mmap
from array import array
from collections.abc import Callable
from types import SimpleNamespace

from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.plane.kernel.batch import Batch
from isthmus.plane.kernel.blocks import UNTIL_AT, Blocks, follows
from isthmus.plane.kernel.briefs import WORDS, Briefs
from isthmus.plane.kernel.direct import CLAIMED, CONTACTED, DIRECT
from isthmus.plane.kernel.pinned import BLOCK_SLICES, BRIEF_SLICES
from isthmus.plane.kernel.write import Writer

COUNT = 2 * BLOCK_SLICES
LOW_32 = (1 << 32) - 1


class Watched:
    """Memory of words; somebody looks after every store."""

    def __init__(self, memory: memoryview, look: Callable[[], None]) -> None:
        self._memory, self._look = memory, look

    def __len__(self):
        return len(self._memory)

    def __getitem__(self, at):
        return self._memory[at]

    def __setitem__(self, at, value):
        if isinstance(at, slice):
            for number, word in zip(range(*at.indices(len(self._memory))), value, strict=True):
                self[number] = word
            return
        self._memory[at] = value
        self._look()


class Stand:
    """A writer, and who looks over its shoulder."""

    def __init__(self) -> None:
        self.words = memoryview(bytearray(8 * COUNT)).cast("Q")
        watched = Watched(self.words, self.look)
        briefs = Briefs(mmap.mmap(-1, 4 * WORDS * -(-COUNT // BRIEF_SLICES)), watched)
        blocks = Blocks(mmap.mmap(-1, 16 * COUNT // BLOCK_SLICES), watched)
        self.lines, self.pairs = briefs.memory, blocks.memory
        briefs._lines, blocks._pairs = (Watched(each, self.look) for each in (self.lines, self.pairs))
        self.writer = Writer({}, watched, briefs, blocks, mmap.mmap(-1, 4096))

    def look(self) -> None:
        words, lines, pairs = self.words.tolist(), self.lines.tolist(), self.pairs.tolist()
        for number, word in enumerate(words):
            rule, followers = pairs[number // BLOCK_SLICES * 2 :][:2]
            if followers >> number % BLOCK_SLICES & 1:
                assert word & DIRECT
                assert follows(rule, number % BLOCK_SLICES, word)
                assert rule >> UNTIL_AT <= word >> UNTIL_AT
            until, *brief = lines[number // BRIEF_SLICES * WORDS :][:WORDS]
            if brief[number % BRIEF_SLICES]:
                assert brief[number % BRIEF_SLICES] == word & LOW_32
                assert until <= word >> 32

    def apply(self, changes: dict[int, int]) -> None:
        batch = Batch()
        batch.words.update(changes)
        self.writer.write([batch])

    def reconcile(self, changes: dict[int, int]) -> None:
        words = array("Q", self.words.tolist())
        for number, word in changes.items():
            words[number] = word
        self.writer._write_words(SimpleNamespace(is_large=False, words=words, owners=()))


@st.composite
def leases(draw):
    """Words of a lease that comes, lasts longer or shorter, ends, or changes hands; most are as their holder computes to."""
    length = 1 << draw(st.integers(0, 3))
    first = draw(st.integers(0, COUNT // length - 1)) * length
    number = draw(st.sampled_from([first // length] * 3 + [7]))
    holder = number + draw(st.sampled_from([0x100000] * 3 + [0xFFFFF0])) & 0xFFFFFF
    until = draw(st.sampled_from([1000, 1063, 1100, 5000, LOW_32]))
    flags = CLAIMED | DIRECT | draw(st.sampled_from([0, 0, CONTACTED]))
    word = draw(st.sampled_from([until << 32 | holder << 8 | flags] * 4 + [CLAIMED, 0]))
    return dict.fromkeys(range(first, first + length), word)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.booleans(), st.lists(leases(), min_size=1, max_size=8)), max_size=8))
def test_after_every_store_nothing_wrong_is_said(steps):
    stand = Stand()
    for anew, some in steps:
        changes = {number: word for each in some for number, word in each.items()}
        (stand.reconcile if anew else stand.apply)(changes)
        assert all(stand.words[number] == word for number, word in changes.items())


def test_a_lease_that_changes_hands_is_forgotten_before_its_word_changes():
    stand = Stand()
    word = 5000 << 32 | 0x100000 << 8 | CLAIMED | DIRECT
    stand.apply({number: word + (number << 8) for number in range(COUNT)})
    assert stand.pairs[1] == stand.pairs[3] == (1 << 64) - 1
    stand.apply({5: word + (0x777777 << 8)})
    assert not stand.pairs[1] >> 5 & 1
    assert stand.lines[1 + 5] >> 8 == 0x877777
