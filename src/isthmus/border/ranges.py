# SPDX-License-Identifier: BSD-3-Clause
"""Sets of numbers (ports, identifiers, SPIs) as sorted, disjoint, inclusive ranges."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from isthmus.value import quick


@quick
@dataclass(frozen=True, slots=True)
class Ranges:
    """A set of numbers. Build it with ``Ranges.of``; the constructor takes what is already normal."""

    pairs: tuple[tuple[int, int], ...]
    "(first, last) pairs, both inclusive, ascending, neither overlapping nor touching."

    def __post_init__(self) -> None:
        """Refuse pairs that are not in normal form."""
        before = -2
        for first, last in self.pairs:
            if first < 0 or last < first or first <= before + 1:
                raise ValueError(f"ranges {self.pairs} are not ascending and disjoint")
            before = last

    @classmethod
    def of(cls, *items: int | tuple[int, int] | range) -> Ranges:
        """Gather single numbers, inclusive (first, last) pairs and Python ranges, in any order, overlaps allowed."""
        if len(items) == 1 and isinstance(items[0], tuple):
            return cls(items)  # type: ignore[arg-type]
        raw = sorted(_pair(item) for item in items if not (isinstance(item, range) and not item))
        merged: list[tuple[int, int]] = []
        for first, last in raw:
            if merged and first <= merged[-1][1] + 1:
                merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
            else:
                merged.append((first, last))
        return cls(tuple(merged))

    @classmethod
    def parse(cls, text: str) -> Ranges:
        """Read ``"80,443,10000-10063"``.

        Raises:
            ValueError: something else than numbers and ``first-last`` pairs with commas between.
        """
        items: list[int | tuple[int, int]] = []
        for part in text.split(","):
            first, dash, last = part.strip().partition("-")
            items.append((int(first), int(last)) if dash else int(first))
        return cls.of(*items)

    def __contains__(self, number: int) -> bool:
        """Whether the number is in the set."""
        at = bisect_right(self.pairs, (number, 1 << 64)) - 1
        return at >= 0 and number <= self.pairs[at][1]

    def __iter__(self) -> Iterator[int]:
        """Every number, ascending."""
        for first, last in self.pairs:
            yield from range(first, last + 1)

    def __len__(self) -> int:
        """How many numbers are in the set."""
        if len(self.pairs) == 1:
            ((first, last),) = self.pairs
            return last - first + 1
        return sum(last - first + 1 for first, last in self.pairs)

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self.pairs)

    def __or__(self, other: Ranges) -> Ranges:
        """The union."""
        return Ranges.of(*self.pairs, *other.pairs)

    def __sub__(self, other: Ranges) -> Ranges:
        """What is in this set and not in the other."""
        left: list[tuple[int, int]] = []
        for first, last in self.pairs:
            for low, high in other.pairs:
                if high < first or low > last:
                    continue
                if low > first:
                    left.append((first, low - 1))
                first = high + 1  # noqa: PLW2901 - what is left of this pair
                if first > last:
                    break
            if first <= last:
                left.append((first, last))
        return Ranges(tuple(left))

    def __and__(self, other: Ranges) -> Ranges:
        """What is in both."""
        return self - (self - other)

    def overlaps(self, other: Ranges) -> bool:
        """Whether any number is in both."""
        if not self.pairs or not other.pairs:
            return False
        return len(self - other) != len(self)

    def covers(self, other: Ranges) -> bool:
        """Whether every number of the other is in this set."""
        return not other - self

    def blocks(self, size: int) -> Iterator[int]:
        """First numbers of the blocks of ``size``, aligned to ``size``, that lie in the set whole.

        Args:
            size: A power of two.
        """
        for first, last in self.pairs:
            start = (first + size - 1) & ~(size - 1)
            yield from range(start, last - size + 2, size)

    def __str__(self) -> str:
        """The form that ``parse`` reads."""
        if len(self.pairs) == 1:
            ((first, last),) = self.pairs
            return f"{first}-{last}" if first != last else str(first)
        return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in self.pairs)


def _pair(item: int | tuple[int, int] | range) -> tuple[int, int]:
    if isinstance(item, int):
        return item, item
    if isinstance(item, range):
        return item[0], item[-1]
    return item


def merge(sets: Iterable[Ranges]) -> Ranges:
    """The union of any number of sets."""
    return Ranges.of(*(pair for each in sets for pair in each.pairs))
