# SPDX-License-Identifier: BSD-3-Clause
"""What was given back and rests: a queue by time, in 16 octets for one run of ports, which nearly all of it is."""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING

from isthmus.border.resource import Resource

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Run = tuple[int, int, int]
"""The number of an address, the first and the last port."""

_SPENT = 4096
"""Entries at the head that were taken out before room is made."""


class Resting:
    """What rests until when. Entries come in the order of their ends."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self._until = array("d")
        self._runs = array("Q")
        self._head = 0
        self._others: deque[tuple[float, Resource]] = deque()

    def __len__(self) -> int:
        """How many entries there are."""
        return len(self._until) - self._head + len(self._others)

    def add_run(self, run: Run, *, until: float) -> None:
        """Let a run of ports rest until a time in seconds since 1970."""
        address, first, last = run
        self._until.append(until)
        self._runs.append(address << 32 | first << 16 | last)

    def add_runs(
        self,
        addresses: NDArray[np.int64],
        first: NDArray[np.int64],
        last: NDArray[np.int64],
        until: NDArray[np.float64],
    ) -> None:
        """Let many runs rest; columns of the same length, in the order of ``until``."""
        self._until.frombytes(until.tobytes())
        self._runs.frombytes((addresses << 32 | first << 16 | last).tobytes())

    def add(self, resource: Resource, *, until: float) -> None:
        """Let anything else rest."""
        self._others.append((until, resource))

    def is_over(self, now: float) -> bool:
        """Whether anything has rested."""
        return (self._head < len(self._until) and self._until[self._head] <= now) or bool(
            self._others and self._others[0][0] <= now
        )

    def pop_runs(self, now: float, most: int) -> Iterator[Run]:
        """Take out runs that have rested, the oldest first."""
        end = min(self._head + most, len(self._until))
        while self._head < end and self._until[self._head] <= now:
            run = self._runs[self._head]
            self._head += 1
            yield run >> 32, run >> 16 & 0xFFFF, run & 0xFFFF
        if self._head >= _SPENT and self._head * 2 >= len(self._until):
            del self._until[: self._head], self._runs[: self._head]
            self._head = 0

    def pop_others(self, now: float) -> Iterator[Resource]:
        """Take out what else has rested."""
        while self._others and self._others[0][0] <= now:
            yield self._others.popleft()[1]
