# SPDX-License-Identifier: BSD-3-Clause
"""The free ports of one shared address, kept so that aligned blocks of them are found at once."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from isthmus.border.ranges import Ranges

T = TypeVar("T")

_DRAWS = 8
"""How many split slices are looked into before an open one is split."""
_NONE: frozenset[int] = frozenset()


class Bag(Generic[T]):
    """A set from which a random member can be drawn without looking at all of them."""

    __slots__ = ("_at", "_items")

    def __init__(self, items: Iterable[T] = ()) -> None:
        """Begin with some."""
        self._items = list(items)
        self._at = {item: at for at, item in enumerate(self._items)}

    def __len__(self) -> int:
        """How many members there are."""
        return len(self._items)

    def __contains__(self, item: object) -> bool:
        """Whether it is a member."""
        return item in self._at

    def __iter__(self) -> Iterator[T]:
        """Every member, in no order that means anything."""
        return iter(self._items)

    def add(self, item: T) -> None:
        """Make it a member, if it is none."""
        if item not in self._at:
            self._at[item] = len(self._items)
            self._items.append(item)

    def discard(self, item: T) -> None:
        """Let it be no member."""
        at = self._at.pop(item, None)
        if at is not None:
            last = self._items.pop()
            if at < len(self._items):
                self._items[at] = last
                self._at[last] = at

    def draw(self, rng: random.Random) -> T:
        """Choose any member."""
        return rng.choice(self._items)


@dataclass(slots=True)
class Slices:
    """The ports of one shared address, kept by aligned slice.

    A slice is *open* (free whole, its ports are not listed), *split* (some of its ports
    are in ``free``) or used up. The odd ports at the edges of the pool's ranges are split
    slices as well, which never become open.
    """

    ports: Ranges
    "What may be leased."
    slice_size: int
    open: Bag[int] = field(default_factory=Bag)
    "First ports of slices that are free whole."
    free: dict[int, set[int]] = field(default_factory=dict)
    "First port of a split slice, to its free ports; never empty."
    split: Bag[int] = field(default_factory=Bag)
    "The keys of ``free``."

    def __post_init__(self) -> None:
        """Begin with everything free."""
        aligned = list(self.ports.blocks(self.slice_size))
        self.open = Bag(aligned)
        self._put(self.ports - Ranges.of(*((first, first + self.slice_size - 1) for first in aligned)))

    def __len__(self) -> int:
        """How many ports are free."""
        return len(self.open) * self.slice_size + sum(map(len, self.free.values()))

    def is_free(self, port: int) -> bool:
        """Whether a port is free."""
        first = port & -self.slice_size
        return first in self.open or port in self.free.get(first, ())

    def take(self, ports: Ranges) -> None:
        """Let ports be free no more, whether they were or not."""
        for first, low, high in self._slices(ports):
            if first in self.open:
                self.open.discard(first)
                rest = {*range(first, low), *range(high + 1, first + self.slice_size)}
            else:
                rest = self.free.get(first, set()).difference(range(low, high + 1))
            self._set(first, rest)

    def give(self, ports: Ranges) -> None:
        """Make ports free, as far as they may be leased."""
        self._put(ports - (ports - self.ports))

    def find(self, count: int, rng: random.Random) -> int | None:
        """First of ``count`` consecutive free ports, aligned to the next power of two.

        Split slices are used before open ones, but not all of them are searched while there
        are open ones: a few draws find room if there is much.
        """
        size = 1 << (count - 1).bit_length()
        if size > self.slice_size:
            return self._find_long(count, size, rng)
        if size < self.slice_size and self.split:
            for _ in range(_DRAWS):
                starts = self._starts(self.split.draw(rng), count, size)
                if starts:
                    return rng.choice(starts)
        if self.open:
            return self.open.draw(rng)
        starts = [start for first in sorted(self.split) for start in self._starts(first, count, size)]
        return rng.choice(starts) if starts else None

    def _find_long(self, count: int, size: int, rng: random.Random) -> int | None:
        for _ in range(_DRAWS if self.open else 0):
            start = self.open.draw(rng) & -size
            if self._has_room(start, count):
                return start
        starts = sorted({first & -size for first in self.open})
        rng.shuffle(starts)
        return next((start for start in starts if self._has_room(start, count)), None)

    def _starts(self, first: int, count: int, size: int) -> list[int]:
        free = self.free[first]
        return [
            start
            for start in range(first, first + self.slice_size, size)
            if start in free and (count == 1 or free.issuperset(range(start, start + count)))
        ]

    def _has_room(self, start: int, count: int) -> bool:
        return all(
            first in self.open or self.free.get(first, _NONE).issuperset(range(low, high + 1))
            for first, low, high in self._slices(Ranges(((start, start + count - 1),)))
        )

    def _slices(self, ports: Ranges) -> Iterator[tuple[int, int, int]]:
        """Cut into slices: the first port of each, and the first and last that are meant."""
        for low, high in ports.pairs:
            for first in range(low & -self.slice_size, high + 1, self.slice_size):
                yield first, max(low, first), min(high, first + self.slice_size - 1)

    def _put(self, ports: Ranges) -> None:
        for first, low, high in self._slices(ports):
            if first not in self.open:
                self._set(first, self.free.get(first, _NONE).union(range(low, high + 1)))

    def _set(self, first: int, ports: set[int] | frozenset[int]) -> None:
        """Say what is free of a slice that is not open."""
        if len(ports) == self.slice_size:
            self.open.add(first)
            ports = _NONE
        if ports:
            self.free[first] = set(ports)
            self.split.add(first)
        else:
            self.free.pop(first, None)
            self.split.discard(first)
