# SPDX-License-Identifier: BSD-3-Clause
"""Which destinations of IPv6 go the same way: the machine's routes, as prefixes that the program looks up.

::

    groups6[longest prefix, of at most 104 bits] ──▶ 0: ask the kernel about each destination
                                                 ──▶ group ──▶ gateways[group]: one answer for all, for one tick

The program asks for all destinations at once that differ in their last 24 bits only, once in a tick, and remembers what
it has found. So what a longer prefix says anything of is in no group. Otherwise all is as it is in ``uniform``.
"""

from __future__ import annotations

import struct
import sys
from bisect import bisect_left, insort
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from isthmus.address import Family
from isthmus.errors import PlaneError
from isthmus.plane.kernel.uniform import Gateways

if TYPE_CHECKING:
    from isthmus.plane.kernel.loader import Map

WIDE_BITS = 104
ENTRIES = 1 << 16
"""As in abi.h and maps.h; tests/test_abi.py compares them."""
_BITS = 128
_KEY = struct.Struct("=I16s")
"struct group6_key."
_UNTIL, _CHANGES = 1, 2
"Words of struct followed."
_NONE = bytes(4)

Prefix = tuple[int, int]
"""First destination, and length."""
Laid = dict[Prefix, int]
"""The group of each prefix, or 0; what has no prefix is in none."""


@dataclass(slots=True)
class Routes6:
    """Unicast routes of a table, in columns of one length."""

    first: list[int] = field(default_factory=list)
    length: list[int] = field(default_factory=list)
    group: list[int] = field(default_factory=list)

    def add(self, first: int, length: int, group: int) -> None:
        """Add a route."""
        self.first.append(first)
        self.length.append(length)
        self.group.append(group)


def wide(first: int, length: int) -> Prefix:
    """The prefix of at most ``WIDE_BITS`` that one lies in."""
    if length <= WIDE_BITS:
        return first, length
    return first >> _BITS - WIDE_BITS << _BITS - WIDE_BITS, WIDE_BITS


def lay6(routes: Routes6, exact: Iterable[Prefix] = ()) -> Laid:
    """Say of every destination which group it is in, by its longest prefix.

    A prefix with several routes is in none; nor is what lies around a prefix that is longer than ``WIDE_BITS``.

    Args:
        routes: See there.
        exact: Prefixes of which the kernel is asked about each destination, whatever lies within.

    Returns:
        As few prefixes as say so; none, if even these are more than there is room for.
    """
    said: Laid = {}
    for first, length, group in zip(routes.first, routes.length, routes.group, strict=True):
        key = wide(first, length)
        said[key] = 0 if key in said or length > WIDE_BITS else group
    masks = {wide(*each) for each in exact}
    said |= dict.fromkeys(masks, 0)
    laid: Laid = {}
    around = [(1 << _BITS, 0, False)]
    "Prefixes that the next one may lie in: the last destination of each, its group, whether that is so of all within."
    for (first, length), own in sorted(said.items()):
        while around[-1][0] < first:
            around.pop()
        _, outside, masked = around[-1]
        masked = masked or (first, length) in masks
        group = 0 if masked else own
        if group != outside:
            laid[first, length] = group
        around.append((first + (1 << _BITS - length) - 1, group, masked))
    return laid if len(laid) <= ENTRIES else {}


class Groups6:
    """What the program reads of groups of IPv6, written while it reads.

    Args:
        groups6: The map of that name.
        gateways: The map of that name.
        followed: The map of that name.
    """

    family = Family.IPV6

    def __init__(self, groups6: Map, gateways: Map, followed: Map) -> None:
        self._map, self._memory = groups6, followed.mapped()
        self._words = memoryview(self._memory).cast("I")
        self._gateways = Gateways(gateways, self.family)
        self._laid: Laid = {}
        self._order: list[Prefix] = []
        self._lost = False
        "Whether something could not be written that has to be."
        self._begin_change()
        for key, _ in list(groups6.items()):
            groups6.remove(key)
        self._end_change()

    def number(self, interface: int, gateway: int) -> int:
        """The group of what goes by a gateway; 0: there is no room for one more."""
        return self._gateways.number(interface, gateway)

    def close(self) -> None:
        """Let go; what is written is believed until its time is over."""
        self._words.release()
        self._memory.close()

    def trust(self, until: int) -> None:
        """Say until when the prefixes are true, in seconds of CLOCK_BOOTTIME; 0: they are not any more."""
        self._words[_UNTIL] = 0 if self._lost else until

    def begin(self) -> Routes6:
        """Where to put routes for ``lay``."""
        return Routes6()

    def lay(self, routes: Routes6, ours: Iterable[Prefix]) -> Laid:
        """What ``change`` writes."""
        return lay6(routes, ours)

    def take(self, laid: Laid, used: set[int], changed: Iterable[Prefix]) -> bool:
        """Write what was read; False: something changed meanwhile, and the kernel may have left anything out."""
        if any(True for _ in changed):
            return False
        self.change(laid, used)
        return True

    def change(self, laid: Laid, used: set[int]) -> None:
        """Write what ``lay`` said. Nothing is believed until the next ``trust``, if anything is another.

        Args:
            laid: The prefixes.
            used: The groups that occur in them, and perhaps others.
        """
        self._gateways.show()
        if laid != self._laid or self._lost:
            self._begin_change()
            try:
                self._write(laid)
            finally:
                self._end_change()
        self._gateways.settle(used)

    def _write(self, laid: Laid) -> None:
        for key in self._laid.keys() - laid.keys():
            self._map.remove(key_of(key))
            del self._laid[key]
        fresh = {key: group for key, group in laid.items() if self._laid.get(key) != group or self._lost}
        self._laid |= fresh
        self._order = sorted(self._laid)
        self._lost = True
        self._map.put_all((key_of(key), group.to_bytes(4, sys.byteorder)) for key, group in fresh.items())
        self._lost = False

    def forget(self, first: int, length: int) -> None:
        """Let the kernel be asked about each destination of a prefix; at once, until the next change."""
        first, length = wide(first, length)
        last = first + (1 << _BITS - length) - 1
        # Those within come behind it in order, and before what begins behind its last destination.
        within = self._order[bisect_left(self._order, (first, length)) : bisect_left(self._order, (last + 1, 0))]
        try:
            for key in {(first, length), *within}:
                if self._laid.get(key) != 0:
                    self._map.put(key_of(key), _NONE)
                    self._laid[key] = 0
        except PlaneError:
            self._lost = True
            self.trust(0)
            return
        if (first, length) not in within:
            insort(self._order, (first, length))

    def _begin_change(self) -> None:
        self.trust(0)
        self._count()

    def _end_change(self) -> None:
        self._count()

    def _count(self) -> None:
        self._words[_CHANGES] = self._words[_CHANGES] + 1 & 0xFFFFFFFF


def key_of(prefix: Prefix) -> bytes:
    """A key of ``groups6``."""
    first, length = prefix
    return _KEY.pack(length, first.to_bytes(_BITS // 8, "big"))
