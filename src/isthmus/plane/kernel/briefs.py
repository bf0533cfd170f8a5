# SPDX-License-Identifier: BSD-3-Clause
"""The map ``briefs``: what ``slices`` says of direct words, in half as many octets.

A line is worked out of the words that it is about, so there is nothing to remember. It may be silent, and is never
wrong: what is about to change is forgotten first, and told again when the words are written.
"""

from __future__ import annotations

import mmap
from array import array
from collections.abc import Iterable

from isthmus.plane.kernel.direct import DIRECT
from isthmus.plane.kernel.image import Image
from isthmus.plane.kernel.owners import LOW_32, first_word, word_count
from isthmus.plane.kernel.pinned import BRIEF_SLICES

WORDS = BRIEF_SLICES + 1
"""Of a line, of four octets each."""
_RUN = 256
"Lines that are looked at together."


class Briefs:
    """The lines.

    Args:
        mapped: The map ``briefs``.
        words: The map ``slices``, in words.
    """

    def __init__(self, mapped: mmap.mmap, words: memoryview) -> None:
        self._mapped, self._words = mapped, words
        self._lines = memoryview(mapped).cast("I")

    def close(self) -> None:
        """Let go of the map."""
        self._lines.release()
        self._mapped.close()

    @property
    def memory(self) -> memoryview:
        """The map, in its words."""
        return self._lines

    def forget(self, numbers: Iterable[int]) -> None:
        """Say nothing of these words, which are about to change."""
        lines = self._lines
        for number in numbers:
            lines[number // BRIEF_SLICES * WORDS + 1 + number % BRIEF_SLICES] = 0

    def tell(self, numbers: Iterable[int]) -> None:
        """Say of these words what they are."""
        for line in {number // BRIEF_SLICES for number in numbers}:
            self._tell(line)

    def renew(self, image: Image) -> None:
        """Say what follows from the words, all of which are what an image says, and nothing else."""
        wanted: set[int] = set()
        for tag in image.owners:
            for run in image.owners.runs(tag):
                first = first_word(run)
                wanted.update(range(first // BRIEF_SLICES, (first + word_count(run) - 1) // BRIEF_SLICES + 1))
        silent = array("I", bytes(4 * WORDS * _RUN))
        for start in range(0, len(self._lines) // WORDS, _RUN):
            run_of_lines = self._lines[start * WORDS : (start + _RUN) * WORDS]
            if run_of_lines != memoryview(silent)[: len(run_of_lines)]:
                wanted.update(range(start, start + len(run_of_lines) // WORDS))
        for line in wanted:
            self._tell(line)

    def _tell(self, line: int) -> None:
        brief = brief_of(self._words[line * BRIEF_SLICES : (line + 1) * BRIEF_SLICES])
        at = line * WORDS
        if self._lines[at : at + WORDS] != memoryview(brief):
            # First what is true for a shorter time: whoever dies in between has promised nobody more than he has.
            self._lines[at] = min(self._lines[at], brief[0])
            self._lines[at : at + WORDS] = memoryview(brief)


def brief_of(words: memoryview) -> array[int]:
    """A line, of the words that it is about."""
    line = array("I", bytes(4 * WORDS))
    least = 0
    for at, word in enumerate(words, 1):
        if word & DIRECT:
            line[at] = word & LOW_32
            if word < least or not least:
                least = word
    line[0] = least >> 32
    return line
