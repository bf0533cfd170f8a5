# SPDX-License-Identifier: BSD-3-Clause
"""The free ports of one shared address, kept so that aligned blocks of them are found at once, and in few octets."""

from __future__ import annotations

import copy
import random
from array import array
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Generic, TypeVar

from isthmus.border.ranges import Ranges

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

T = TypeVar("T")

_PORTS = 1 << 16
_DRAWS = 8
"""How many split slices are looked into before an open one is split."""


def below(limit: int, rng: random.Random) -> int:
    """A random number from 0 to a limit, which is excluded and positive: what ``rng.randrange`` gives, in less time."""
    bits, draw = limit.bit_length(), rng.getrandbits
    number = draw(bits)
    while number >= limit:
        number = draw(bits)
    return number


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

    def __getitem__(self, at: int) -> T:
        """A member by its place, which changes whenever another is taken out."""
        return self._items[at]

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


class Numbers:
    """A ``Bag`` of numbers below a limit of at most 65,536, in four octets for each that it could have.

    All numbers stand in one row, the members first; a second row says where each of them stands.
    """

    __slots__ = ("_at", "_count", "_row")

    def __init__(self, members: Iterable[int], limit: int) -> None:
        """Begin with some; each is named once."""
        self._row = array("H", members)
        self._count = len(self._row)
        here = set(self._row)
        self._row.extend(number for number in range(limit) if number not in here)
        self._at = array("H", bytes(2 * limit))
        for at, number in enumerate(self._row):
            self._at[number] = at

    def copy(self) -> Numbers:
        """The same members, to be changed apart."""
        return copy.deepcopy(self)

    def __len__(self) -> int:
        """How many members there are."""
        return self._count

    def __contains__(self, number: int) -> bool:
        """Whether it is a member."""
        return self._at[number] < self._count

    def __iter__(self) -> Iterator[int]:
        """Every member, in no order that means anything."""
        return iter(self._row[: self._count])

    def add(self, number: int) -> None:
        """Make it a member, if it is none."""
        if self._at[number] >= self._count:
            self._swap(number, self._count)
            self._count += 1

    def discard(self, number: int) -> None:
        """Let it be no member."""
        if self._at[number] < self._count:
            self._count -= 1
            self._swap(number, self._count)

    def draw(self, rng: random.Random) -> int:
        """Choose any member."""
        return self._row[below(self._count, rng)]

    def discard_all(self, gone: NDArray[np.int64]) -> None:
        """Let many numbers be no members, whether they were or not."""
        import numpy as np

        row, at = np.frombuffer(self._row, np.uint16), np.frombuffer(self._at, np.uint16)
        stays = np.zeros(len(row), np.bool_)
        stays[row[: self._count]] = True
        stays[gone] = False
        kept = stays[row]
        row[:] = np.concatenate((row[kept], row[~kept]))
        at[row] = np.arange(len(row), dtype=np.uint16)
        self._count = int(kept.sum())

    def _swap(self, number: int, to: int) -> None:
        row, at = self._row, self._at
        other, here = row[to], at[number]
        row[to], row[here] = number, other
        at[number], at[other] = to, here


class Slices:
    """The ports of one shared address, kept by aligned slice.

    A slice is *open* (free whole), *split* (some of its ports are free) or used up. The odd ports at the edges of
    the pool's ranges are split slices as well, which never become open.
    """

    __slots__ = ("_bits", "_free", "_split", "open", "ports", "slice_size")

    def __init__(self, ports: Ranges, slice_size: int) -> None:
        """Begin with everything free.

        Args:
            ports: What may be leased.
            slice_size: Ports of a slice, a power of two.
        """
        self.ports = ports
        self.slice_size = slice_size
        self._bits = slice_size.bit_length() - 1
        self.open = _whole_slices(ports, slice_size).copy()
        "Numbers of slices that are free whole."
        self._free: dict[int, int] = {}
        "Number of a split slice, to its free ports, a bit for each; never 0."
        self._split: Bag[int] = Bag()
        "The keys of that."
        self._put(Ranges(tuple(_edges(ports, slice_size))))

    def __len__(self) -> int:
        """How many ports are free."""
        return len(self.open) * self.slice_size + sum(each.bit_count() for each in self._free.values())

    @property
    def has_room(self) -> bool:
        """Whether any port is free."""
        return bool(self.open) or bool(self._free)

    def is_free(self, port: int) -> bool:
        """Whether a port is free."""
        at = port >> self._bits
        return at in self.open or bool(self._free.get(at, 0) >> (port & self.slice_size - 1) & 1)

    def free_ports(self) -> NDArray[np.bool_]:
        """For each port from 0 to 65535 whether it is free."""
        import numpy as np

        free = np.zeros((_PORTS >> self._bits, self.slice_size), np.bool_)
        free[list(self.open)] = True
        for at, bits in self._free.items():
            free[at] = [bits >> low & 1 for low in range(self.slice_size)]
        return free.reshape(_PORTS)

    def take(self, ports: Ranges) -> None:
        """Let ports be free no more, whether they were or not."""
        if len(ports.pairs) == 1:
            self.take_run(*ports.pairs[0])
            return
        self._take(ports)

    def take_run(self, first: int, last: int) -> None:
        """Let ports that follow one another be free no more, whether they were or not."""
        at = first >> self._bits
        if first == at << self._bits and last == first + self.slice_size - 1:
            if at in self._free:
                self._set(at, 0)
            self.open.discard(at)
        else:
            self._take(Ranges(((first, last),)))

    def _take(self, ports: Ranges) -> None:
        whole = self._whole
        for at, bits in self._slices(ports):
            if at in self.open:
                self.open.discard(at)
                if bits != whole:
                    self._set(at, whole & ~bits)
            elif at in self._free:
                self._set(at, self._free[at] & ~bits)

    def take_slices(self, numbers: NDArray[np.int64]) -> None:
        """Let slices be free no more, whether they were or not."""
        self.open.discard_all(numbers)
        for at in set(numbers.tolist()) & self._free.keys() if self._free else ():
            self._set(at, 0)

    def give(self, ports: Ranges) -> None:
        """Make ports free, as far as they may be leased."""
        self._put(ports if self.ports.covers(ports) else ports - (ports - self.ports))

    def has_run(self, first: int, count: int) -> bool:
        """Whether ports that follow one another are all free; it is quickest for a whole slice."""
        if count == self.slice_size and first & count - 1 == 0 and first >> self._bits in self.open:
            return True
        return self._has_room(first, count)

    def find(self, count: int, rng: random.Random) -> int | None:
        """First of ``count`` consecutive free ports, aligned to the next power of two.

        Split slices are used before open ones, but not all of them are searched while there
        are open ones: a few draws find room if there is much.
        """
        size = 1 << (count - 1).bit_length()
        if size > self.slice_size:
            return self._find_long(count, size, rng)
        if size < self.slice_size and self._free:
            for _ in range(_DRAWS):
                starts = self._starts(self._split.draw(rng), count, size)
                if starts:
                    return rng.choice(starts)
        if self.open:
            return self.open.draw(rng) << self._bits
        if count == self.slice_size:
            return None
        starts = [start for at in sorted(self._free) for start in self._starts(at, count, size)]
        return rng.choice(starts) if starts else None

    def _find_long(self, count: int, size: int, rng: random.Random) -> int | None:
        for _ in range(_DRAWS if self.open else 0):
            start = (self.open.draw(rng) << self._bits) & -size
            if self._has_room(start, count):
                return start
        starts = sorted({(at << self._bits) & -size for at in self.open})
        rng.shuffle(starts)
        return next((start for start in starts if self._has_room(start, count)), None)

    def _starts(self, at: int, count: int, size: int) -> list[int]:
        free, wanted, first = self._free[at], (1 << count) - 1, at << self._bits
        return [first + low for low in range(0, self.slice_size, size) if free >> low & wanted == wanted]

    def _has_room(self, start: int, count: int) -> bool:
        return all(
            at in self.open or self._free.get(at, 0) & bits == bits
            for at, bits in self._slices(Ranges(((start, start + count - 1),)))
        )

    @property
    def _whole(self) -> int:
        return (1 << self.slice_size) - 1

    def _slices(self, ports: Ranges) -> Iterator[tuple[int, int]]:
        """Cut into slices: the number of each, and which of its ports are meant, a bit for each."""
        size, bits = self.slice_size, self._bits
        for low, high in ports.pairs:
            for at in range(low >> bits, (high >> bits) + 1):
                first = at << bits
                start, end = max(low - first, 0), min(high - first, size - 1)
                yield at, (1 << end + 1) - (1 << start)

    def _put(self, ports: Ranges) -> None:
        for at, bits in self._slices(ports):
            if at not in self.open:
                self._set(at, self._free.get(at, 0) | bits)

    def _set(self, at: int, free: int) -> None:
        """Say what is free of a slice that is not open."""
        if free == self._whole:
            self.open.add(at)
            free = 0
        if free:
            self._free[at] = free
            self._split.add(at)
        elif at in self._free:
            del self._free[at]
            self._split.discard(at)


@lru_cache(16)
def _whole_slices(ports: Ranges, slice_size: int) -> Numbers:
    """Numbers of the aligned slices that lie in some ports whole: very many addresses have the same."""
    return Numbers((first // slice_size for first in ports.blocks(slice_size)), _PORTS // slice_size)


def _edges(ports: Ranges, slice_size: int) -> Iterator[tuple[int, int]]:
    """What is left of ports beside them."""
    for first, last in ports.pairs:
        start, end = -(-first // slice_size) * slice_size, (last + 1) // slice_size * slice_size
        if start >= end:
            yield first, last
            continue
        if first < start:
            yield first, start - 1
        if end <= last:
            yield end, last
