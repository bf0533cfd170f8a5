# SPDX-License-Identifier: BSD-3-Clause
"""Who has which number in the maps: first slices of addresses, endpoint numbers, owners' tags.

Each can start from what pinned maps hold (``known``), so that a plane that comes back gives
the same numbers to the same things and rewrites nothing. What was known and is not taken
again stays unused until ``settle``, because packets may still go by it.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

from isthmus.errors import PlaneError


class Slots:
    """Room in ``slices``: as many words as an address has slices, for each address.

    Args:
        shift: Ports of a slice, as a power of two.
        addresses: How many addresses there is room for.
        known: First slices by place, from pinned maps.
    """

    def __init__(self, shift: int, addresses: int, known: Mapping[bytes, int] | None = None) -> None:
        self.shift = shift
        self._each = (1 << 16) >> shift
        self.words = self._each * addresses
        self._known = dict(known or {})
        self._taken: dict[bytes, int] = {}
        used = set(self._known.values())
        self._free = deque(first for first in range(0, self.words, self._each) if first not in used)

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
    """

    def __init__(self, capacity: int, known: Mapping[bytes, int] | None = None) -> None:
        self._known = dict(known or {})
        self._of: dict[bytes, list[int]] = {}
        used = set(self._known.values())
        self._unused = (number for number in range(1, capacity) if number not in used)
        self._free: deque[int] = deque()
        "Given back; used again when all have been used once, lest a packet still goes by one."

    def __getitem__(self, octets: bytes) -> int:
        """The number of what was taken."""
        return self._of[octets][0]

    def take(self, octets: bytes) -> int:
        """The number of an endpoint, once more.

        Raises:
            PlaneError: every number is in use.
        """
        entry = self._of.get(octets)
        if entry is None:
            number = self._known.pop(octets, None)
            if number is None:
                number = next(self._unused, 0) or (self._free.popleft() if self._free else 0)
            if not number:
                raise PlaneError(f"all {len(self._of)} tunnel endpoints of the kernel plane are in use")
            entry = self._of[octets] = [number, 0]
        entry[1] += 1
        return entry[0]

    def give(self, octets: bytes) -> int:
        """Give it back once; returns the number if nobody has it any more, else 0."""
        entry = self._of[octets]
        entry[1] -= 1
        if entry[1]:
            return 0
        del self._of[octets]
        self._free.append(entry[0])
        return entry[0]

    def settle(self) -> None:
        """Free what was known and nobody took."""
        self._free.extend(self._known.values())
        self._known = {}


@dataclass(slots=True)
class Known:
    """One owner."""

    tag: int
    registered: bool = False
    bindings: int = 0


class Owners:
    """Owners and their tags: numbers that differ, and for one owner are the same in every process if they can be.

    Args:
        known: Tags by place, from pinned maps.
    """

    def __init__(self, known: Mapping[bytes, int] | None = None) -> None:
        self._known = dict(known or {})
        self._tags = set(self._known.values()) | {0}
        self._of: dict[bytes, Known] = {}

    def get(self, place: bytes) -> Known | None:
        """An owner that has registered or holds something."""
        return self._of.get(place)

    def tag(self, place: bytes) -> int:
        """The tag of such an owner."""
        return self._of[place].tag

    def register(self, place: bytes, *, registered: bool) -> None:
        """Note whether an owner has registered."""
        if registered or place in self._of:
            self._enter(place).registered = registered
            self._leave(place)

    def hold(self, place: bytes) -> int:
        """Note one more binding; returns the tag."""
        owner = self._enter(place)
        owner.bindings += 1
        return owner.tag

    def release(self, place: bytes) -> None:
        """Note one binding less."""
        self._of[place].bindings -= 1
        self._leave(place)

    def _enter(self, place: bytes) -> Known:
        if place not in self._of:
            tag = self._known.pop(place, None)
            self._of[place] = Known(self._choose(place) if tag is None else tag)
        return self._of[place]

    def _leave(self, place: bytes) -> None:
        owner = self._of[place]
        if not owner.registered and not owner.bindings:
            self._tags.discard(owner.tag)
            del self._of[place]

    def _choose(self, place: bytes) -> int:
        """A number that the place itself says, or the next that is free."""
        tag = int.from_bytes(hashlib.blake2b(place, digest_size=4).digest(), "big")
        while tag in self._tags:
            tag = (tag + 1) & 0xFFFFFFFF
        self._tags.add(tag)
        return tag

    def settle(self) -> None:
        """Free what was known and nobody took."""
        self._tags.difference_update(self._known.values())
        self._known = {}
