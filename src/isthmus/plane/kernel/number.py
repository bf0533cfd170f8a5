# SPDX-License-Identifier: BSD-3-Clause
"""Who has which number in the maps: first slices of addresses, endpoint numbers, templates.

Each can start from what pinned maps hold (``known``), so that a plane that comes back gives
the same numbers to the same things and rewrites nothing. What was known and is not taken
again stays unused until ``settle``, because packets may still go by it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

from isthmus.errors import PlaneError

TEMPLATES = 16
"""Endpoint numbers 1 to 16: what tunnels of plain leases have in common (``bpf/include/isthmus/abi.h``)."""


class Slots:
    """Room in ``slices``: as many words as an address has slices, for each address.

    Args:
        shift: Ports of a slice, as a power of two.
        addresses: How many addresses there is room for.
        known: First slices by place, from pinned maps.
    """

    def __init__(self, shift: int, addresses: int, known: Mapping[bytes, int] | None = None) -> None:
        self.shift = shift
        self.each = (1 << 16) >> shift
        self.words = self.each * addresses
        self._known = dict(known or {})
        self._taken: dict[bytes, int] = {}
        used = set(self._known.values())
        self._free = deque(first for first in range(0, self.words, self.each) if first not in used)

    def take(self, place: bytes) -> int | None:
        """The first slice of an address, or None if there is no room."""
        first = self._known.pop(place, None)
        if first is None:
            first = self._free.popleft() if self._free else None
        if first is not None:
            self._taken[place] = first
        return first

    def give(self, place: bytes) -> None:
        """Free the slices of an address, which are zero again; they are used last."""
        first = self._taken.pop(place, None)
        if first is not None:
            self._free.append(first)

    def settle(self) -> None:
        """Free what was known and nobody took."""
        self._free.extend(self._known.values())
        self._known = {}


class Numbers:
    """Endpoint numbers; what is equal has one number, however often it is taken.

    Args:
        capacity: One more than the greatest number; 0 is nobody's.
        known: Numbers by the octets of the endpoint, from pinned maps.
        first: The least number.
    """

    def __init__(self, capacity: int, known: Mapping[bytes, int] | None = None, *, first: int = 1 + TEMPLATES) -> None:
        self._known = dict(known or {})
        self._of: dict[bytes, list[int]] = {}
        used = set(self._known.values())
        self._unused = (number for number in range(first, capacity) if number not in used)
        self._free: deque[int] = deque()
        "Given back; used again when all have been used once, lest a packet still goes by one."

    def __getitem__(self, octets: bytes) -> int:
        """The number of what was taken."""
        return self._of[octets][0]

    def take(self, octets: bytes, times: int = 1) -> int:
        """The number of an endpoint, so many times more.

        Raises:
            PlaneError: every number is in use.
        """
        number = self.try_take(octets, times)
        if not number:
            raise PlaneError(f"all {len(self._of)} tunnel endpoints of the kernel plane are in use")
        return number

    def try_take(self, octets: bytes, times: int = 1) -> int:
        """The same; 0 if every number is in use."""
        entry = self._of.get(octets)
        if entry is None:
            number = self._known.pop(octets, None)
            if number is None:
                number = next(self._unused, 0) or (self._free.popleft() if self._free else 0)
            if not number:
                return 0
            entry = self._of[octets] = [number, 0]
        entry[1] += times
        return entry[0]

    def give(self, octets: bytes, times: int = 1) -> int:
        """Give it back so many times; returns the number if nobody has it any more, else 0."""
        entry = self._of[octets]
        entry[1] -= times
        if entry[1]:
            return 0
        del self._of[octets]
        self._free.append(entry[0])
        return entry[0]

    def settle(self) -> None:
        """Free what was known and nobody took."""
        self._free.extend(self._known.values())
        self._known = {}
