# SPDX-License-Identifier: BSD-3-Clause
"""Which destinations go the same way: the machine's IPv4 routes, as words that the program reads.

::

    groups[first octet].word[second octet] ──▶ 0: ask the kernel about each destination
                                           ──▶ group ──▶ gateways[group]: one answer for all of them, for one tick
                                           ──▶ MORE | element ──▶ groups[element].word[third octet] ──▶ …

A group is what goes by one gateway on one interface. The program asks the kernel about one destination of the group in
each tick, and the answer is only one for the others if it names that gateway; and all of it holds for as long as
somebody follows the kernel's routes and says so (``Groups.trust``).
"""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from isthmus.address import Address, Family

if TYPE_CHECKING:
    from isthmus.plane.kernel.loader import Map

WORDS = 256
ELEMENTS = 4096
GROUPS = 1024  # of each family
MORE = 0x8000
"""As in abi.h; tests/test_abi.py compares them. In what ``lay`` returns, ``MORE`` alone refers to the node below."""
MANY = 4096
"""From so many routes on NumPy lays them."""
_BITS, _STRIDE, _TOP = 32, 8, 8
GATEWAY = struct.Struct("=II16s")
"struct gateway: interface, family, address."

Nodes = dict[tuple[int, int], "array[int]"]
"""By the bits that an address begins with, and their number: a word for each value of the next octet."""


@dataclass(slots=True)
class Routes:
    """Unicast routes of a table, in columns of one length."""

    first: array[int] = field(default_factory=lambda: array("I"))
    "The lowest destination."
    length: array[int] = field(default_factory=lambda: array("B"))
    "Of the prefix, in bits."
    group: array[int] = field(default_factory=lambda: array("H"))
    "What goes this way; 0: whatever one cannot say that of."

    def add(self, first: int, length: int, group: int) -> None:
        """Add a route."""
        self.first.append(first)
        self.length.append(length)
        self.group.append(group)

    def __len__(self) -> int:
        return len(self.first)


def lay(routes: Routes) -> Nodes:
    """Say of every destination which group it is in, by its longest prefix.

    A prefix with several routes (by metric, by TOS) is in none.

    Returns:
        All nodes of eight bits, and below them those that say more than one thing.
    """
    if len(routes) >= MANY:
        return _lay_many(routes)
    prefixes: dict[tuple[int, int], int] = {}
    for first, length, group in zip(routes.first, routes.length, routes.group, strict=True):
        prefixes[length, first] = 0 if (length, first) in prefixes else group
    nodes: Nodes = {(_TOP, number): array("H", bytes(2 * WORDS)) for number in range(1 << _TOP)}
    for (length, first), group in sorted(prefixes.items()):
        paint(nodes, first, length, group)
    for bits in (_BITS - _STRIDE, _TOP + _STRIDE):
        for key in [each for each in nodes if each[0] == bits]:
            _merge(nodes, key)
    return nodes


def paint(nodes: Nodes, first: int, length: int, group: int) -> None:
    """Put all destinations of a prefix into a group, whatever was said of them before."""
    for number in range(first >> _BITS - _TOP, (first >> _BITS - _TOP) + (1 << max(_TOP - length, 0))):
        if length <= _TOP:
            nodes[_TOP, number][:] = array("H", [group]) * WORDS
    bits = _TOP
    while length > bits + _STRIDE:
        node, at = nodes[bits, first >> _BITS - bits], first >> _BITS - bits - _STRIDE & WORDS - 1
        bits += _STRIDE
        if node[at] != MORE:
            nodes[bits, first >> _BITS - bits] = array("H", [node[at]]) * WORDS
            node[at] = MORE
    if length > _TOP:
        at, several = first >> _BITS - bits - _STRIDE & WORDS - 1, 1 << bits + _STRIDE - length
        nodes[bits, first >> _BITS - bits][at : at + several] = array("H", [group]) * several


def _merge(nodes: Nodes, key: tuple[int, int]) -> None:
    """Leave out a node that says one thing."""
    bits, number = key
    node = nodes[key]
    if node[0] != MORE and node.count(node[0]) == WORDS:
        nodes[bits - _STRIDE, number >> _STRIDE][number & WORDS - 1] = node[0]
        del nodes[key]


def _lay_many(routes: Routes) -> Nodes:
    """The same, a column at a time."""
    import numpy as np

    first, length = np.frombuffer(routes.first, np.uint32).astype(np.uint64), np.frombuffer(routes.length, np.uint8)
    _, where, times = np.unique(first << np.uint64(6) | length, return_index=True, return_counts=True)
    first, length = first[where], length[where]
    group = np.where(times > 1, 0, np.frombuffer(routes.group, np.uint16)[where]).astype(np.uint16)
    levels = []
    numbers, words = np.arange(1 << _TOP, dtype=np.uint64), np.zeros((1 << _TOP, WORDS), np.uint16)
    for bits in (_TOP, _TOP + _STRIDE, _BITS - _STRIDE):
        if bits > _TOP:
            above, of = words, numbers
            numbers = np.unique(first[length > bits] >> np.uint64(_BITS - bits))
            rows = np.searchsorted(of, numbers >> np.uint64(_STRIDE))
            words = np.repeat(above[rows, numbers & np.uint64(WORDS - 1)], WORDS).reshape(-1, WORDS)
        for each in range(0 if bits == _TOP else bits + 1, bits + _STRIDE + 1):
            chosen = length == each
            if each <= _TOP:
                words.reshape(1 << each, -1)[first[chosen] >> np.uint64(_BITS - each)] = group[chosen][:, None]
                continue
            rows = np.searchsorted(numbers, first[chosen] >> np.uint64(_BITS - bits))
            inside = first[chosen] >> np.uint64(_BITS - each) & np.uint64((1 << each - bits) - 1)
            words.reshape(len(numbers), 1 << each - bits, WORDS >> each - bits)[rows, inside] = group[chosen][:, None]
        levels.append((bits, numbers, words))
    nodes: Nodes = {}
    for level in (2, 1):
        bits, numbers, words = levels[level]
        same = (words == words[:, :1]).all(axis=1) & (words[:, 0] != MORE)
        _, of, above = levels[level - 1]
        rows = np.searchsorted(of, numbers >> np.uint64(_STRIDE))
        above[rows, numbers & np.uint64(WORDS - 1)] = np.where(same, words[:, 0], MORE)
        nodes |= {(bits, int(n)): array("H", w.tobytes()) for n, w in zip(numbers[~same], words[~same], strict=True)}
    bits, numbers, words = levels[0]
    return nodes | {(bits, int(n)): array("H", w.tobytes()) for n, w in zip(numbers, words, strict=True)}


class Gateways:
    """Numbers of groups, and what the program reads of each.

    Args:
        gateways: The map of that name.
        family: Each has numbers of its own, IPv6 those from ``GROUPS`` on.
    """

    def __init__(self, gateways: Map, family: Family) -> None:
        self._map, self._family = gateways, family
        numbers = range(1, GROUPS) if family is Family.IPV4 else range(GROUPS, 2 * GROUPS)
        self._numbers: dict[tuple[int, int], int] = {}
        for key, value in gateways.items():
            interface, known, address = GATEWAY.unpack(value)
            if known == family:
                octets = address[: family.bits // 8]
                self._numbers[interface, int.from_bytes(octets, "big")] = int.from_bytes(key, sys.byteorder)
        self._written = set(self._numbers.values())
        self._free = [each for each in reversed(numbers) if each not in self._written]

    def number(self, interface: int, gateway: int) -> int:
        """The group of what goes by a gateway; 0: there is no room for one more."""
        number = self._numbers.get((interface, gateway), 0)
        if not number and self._free:
            number = self._numbers[interface, gateway] = self._free.pop()
        return number

    def show(self) -> None:
        """Write those that are new."""
        for (interface, gateway), number in self._numbers.items():
            if number not in self._written:
                address = Address(self._family, gateway).key_octets
                value = GATEWAY.pack(interface, self._family, address)
                self._map.put(number.to_bytes(4, sys.byteorder), value)
                self._written.add(number)

    def settle(self, used: set[int]) -> None:
        """Let go of the numbers that no word has any more."""
        for way in [each for each, number in self._numbers.items() if number not in used]:
            number = self._numbers.pop(way)
            self._map.put(number.to_bytes(4, sys.byteorder), bytes(GATEWAY.size))
            self._written.discard(number)
            self._free.insert(0, number)


class Groups:
    """What the program reads of groups, written while it reads.

    Args:
        groups: The map of that name.
        gateways: The map of that name.
        followed: The map of that name.
    """

    family = Family.IPV4

    def __init__(self, groups: Map, gateways: Map, followed: Map) -> None:
        self._memory = groups.mapped(), followed.mapped()
        self._words, self._until = memoryview(self._memory[0]).cast("H"), memoryview(self._memory[1]).cast("I")
        self.trust(0)
        self._words[:] = memoryview(bytes(self._words.nbytes)).cast("H")
        self._gateways = Gateways(gateways, self.family)
        self._elements: dict[tuple[int, int], int] = {}
        self._room = list(range(ELEMENTS - 1, (1 << _TOP) - 1, -1))

    def number(self, interface: int, gateway: int) -> int:
        """The group of what goes by a gateway; 0: there is no room for one more."""
        return self._gateways.number(interface, gateway)

    def close(self) -> None:
        """Let go; what is written is believed until its time is over."""
        for each in (self._words, self._until):
            each.release()
        for memory in self._memory:
            memory.close()

    def trust(self, until: int) -> None:
        """Say until when the words are true, in seconds of CLOCK_BOOTTIME; 0: they are not any more."""
        self._until[0] = until

    def begin(self) -> Routes:
        """Where to put routes for ``lay``."""
        return Routes()

    def lay(self, routes: Routes, ours: Iterable[tuple[int, int]]) -> Nodes:
        """What ``change`` writes: of routes, and of prefixes of which each destination is asked about."""
        nodes = lay(routes)
        exact(nodes, ours)
        return nodes

    def take(self, nodes: Nodes, used: set[int], changed: Iterable[tuple[int, int]]) -> bool:
        """Write what was read, though some prefixes changed meanwhile; True, because one can."""
        # The kernel keeps routes that begin alike in one place, and may have left others out where one changed.
        exact(nodes, (leaf(first) for first, _ in changed))
        self.change(nodes, used)
        return True

    def change(self, nodes: Nodes, used: set[int]) -> None:
        """Write what ``lay`` said. A destination whose group stays is in it all the time.

        Args:
            nodes: The words.
            used: The groups that occur in them, and perhaps others.
        """
        self._gateways.show()
        below = sorted(key for key in nodes if key[0] > _TOP)
        for bits, number in below:
            # What was let go of now is used again at the next change: nobody reads by an old word then.
            above = bits - _STRIDE, number >> _STRIDE
            if (bits, number) not in self._elements and self._room and (above[0] == _TOP or above in self._elements):
                self._elements[bits, number] = self._room.pop()
        for key in reversed(below):
            if key in self._elements:
                self._write(self._elements[key], self._placed(key, nodes[key]))
        for number in range(1 << _TOP):
            self._write(number, self._placed((_TOP, number), nodes[_TOP, number]))
        gone = [key for key in self._elements if key not in nodes]
        self._room[:0] = [self._elements.pop(key) for key in gone]
        self._gateways.settle(used)

    def _placed(self, key: tuple[int, int], node: array[int]) -> array[int]:
        """A node with the elements of those below it; what has found no room is asked for by itself."""
        bits, number = key
        if MORE not in node:
            return node
        placed = node[:]
        for at, word in enumerate(node):
            if word == MORE:
                element = self._elements.get((bits + _STRIDE, number << _STRIDE | at), 0)
                placed[at] = element and MORE | element
        return placed

    def _write(self, element: int, node: array[int]) -> None:
        place = slice(element * WORDS, (element + 1) * WORDS)
        if self._words[place].tobytes() != node.tobytes():
            self._words[place] = memoryview(node)

    def forget(self, first: int, length: int) -> None:
        """Let the kernel be asked about each destination of a prefix; at once, until the next change."""
        element = first >> _BITS - _TOP
        if length <= _TOP:
            place = slice(element * WORDS, (element + (1 << _TOP - length)) * WORDS)
            self._words[place] = memoryview(bytes(2 * (place.stop - place.start))).cast("H")
            return
        for bits in range(_TOP + _STRIDE, _BITS + 1, _STRIDE):
            at = element * WORDS + (first >> _BITS - bits & WORDS - 1)
            if length > bits and self._words[at] & MORE:
                element = self._words[at] & ~MORE
                continue
            several = 1 << max(bits - length, 0)
            self._words[at : at + several] = memoryview(bytes(2 * several)).cast("H")
            return


def exact(nodes: Nodes, prefixes: Iterable[tuple[int, int]]) -> None:
    """Let the kernel be asked about each destination of some prefixes: our own addresses, what has changed."""
    for first, length in prefixes:
        paint(nodes, first, length, 0)


def leaf(first: int) -> tuple[int, int]:
    """The widest prefix that begins with an address: the kernel keeps all that begin so in one place."""
    return first, _BITS - (first & -first).bit_length() + 1 if first else 0
