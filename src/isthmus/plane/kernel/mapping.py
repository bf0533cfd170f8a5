# SPDX-License-Identifier: BSD-3-Clause
"""Mapping tables in the kernel: arrays that the program looks up in and this process has mapped.

::

    sip_realms[realm].mapping = n ──▶ mappings[2n]      top     2^24 words     64 MiB
                                      mappings[2n + 1]  chunks  256 words each, as many as there is need of

The arrays of a mapping are made when it comes, so who has none has no memory in use. What they hold is the
``DirectTable`` of ``border.mapping``: changed in place, word by word, while packets are looked up; only a mapping that
needs more chunks than there are gets new arrays, and then the number of a realm changes. They belong to the map
``mappings``, so pinned ones outlive the process.
"""

from __future__ import annotations

import mmap
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from isthmus.errors import PlaneError
from isthmus.plane.kernel.loader import Map

if TYPE_CHECKING:
    from isthmus.border.mapping import DirectTable, Mapping

MAPPINGS = 64
WORDS = 256
"""As in abi.h; tests/test_abi.py compares them. Number 0 is none."""
_TOP_ENTRIES = (1 << 24) // WORDS
_SPARE_CHUNKS = 64
"And a quarter: mappings grow, and chunks given up by one change are filled again from the next but one on."


@dataclass(slots=True)
class _Arrays:
    """A mapping in the kernel, as this process has it mapped."""

    maps: tuple[Map, Map]
    memory: tuple[mmap.mmap, mmap.mmap]
    table: DirectTable | None
    mapping: Mapping | None
    "What it holds; None: what another process has left."

    @classmethod
    def over(cls, top: Map, chunks: Map) -> _Arrays:
        """See two maps as a table."""
        # Here and not above: NumPy is for who has a mapping.
        import numpy as np

        from isthmus.border.mapping import DirectTable

        memory = top.mapped(), chunks.mapped()
        words = [np.frombuffer(each, np.uint32) for each in memory]
        return cls((top, chunks), memory, DirectTable(words[0], words[1]), None)

    def load(self, mapping: Mapping) -> None:
        """Let it say what a mapping says."""
        assert self.table is not None
        # Whoever read by a word that was there at the last change has long done so.
        self.table.reclaim()
        if self.mapping is None:
            self.table.load(mapping)
        else:
            self.table.change(self.mapping, mapping)
        self.mapping = mapping

    def close(self) -> None:
        """Let go of it; the kernel's arrays stay as long as ``mappings`` has them."""
        self.table = None
        for each in (*self.memory, *self.maps):
            each.close()


class KernelMappings:
    """The mappings of realms.

    Args:
        outer: The map ``mappings``.
        known: Numbers of realms' mappings that are there already.
    """

    def __init__(self, outer: Map, known: dict[int, int]) -> None:
        self._outer = outer
        self._numbers = dict(known)
        self._arrays: dict[int, _Arrays] = {}

    def load(self, realm: int, mapping: Mapping) -> int:
        """Put the mapping of a realm where the program finds it; returns its number, 0 if it is empty.

        Raises:
            PlaneError: there is no memory, or no number left.
        """
        if not len(mapping):
            return 0
        number = self._numbers.get(realm, 0)
        if number and number not in self._arrays:
            self._arrays[number] = self._adopt(number)
        if number:
            try:
                self._arrays[number].load(mapping)
            except PlaneError:
                number = 0
        if not number:
            number = self._make(mapping)
        self._numbers[realm] = number
        return number

    def settle(self, used: set[int]) -> None:
        """Free the arrays of mappings that no realm has any more."""
        self._numbers = {realm: number for realm, number in self._numbers.items() if number in used}
        for number in [each for each in self._arrays if each not in used]:
            self._arrays.pop(number).close()
        for key, _ in list(self._outer.items()):
            if int.from_bytes(key, sys.byteorder) // 2 not in used:
                self._outer.remove(key)

    @property
    def octets(self) -> int:
        """Memory of the arrays in the kernel that this process has mapped."""
        return sum(len(memory) for each in self._arrays.values() for memory in each.memory)

    def close(self) -> None:
        """Let go of the arrays."""
        for each in self._arrays.values():
            each.close()
        self._arrays.clear()

    def _make(self, mapping: Mapping) -> int:
        taken = {int.from_bytes(key, sys.byteorder) // 2 for key, _ in self._outer.items()}
        number = next((each for each in range(1, MAPPINGS) if each not in taken), 0)
        if not number:
            raise PlaneError(f"all {MAPPINGS - 1} mappings of the kernel plane are in use")
        from isthmus.border.mapping import chunks_needed

        needed = chunks_needed(mapping)
        room = needed + needed // 4 + _SPARE_CHUNKS
        top = Map.array("top", octets=4 * WORDS, entries=_TOP_ENTRIES)
        arrays = _Arrays.over(top, Map.array("chunks", octets=4 * WORDS, entries=room))
        arrays.load(mapping)
        for at, each in enumerate(arrays.maps):
            self._outer.put(_key(2 * number + at), each.fd.to_bytes(4, sys.byteorder))
        self._arrays[number] = arrays
        return number

    def _adopt(self, number: int) -> _Arrays:
        found = [self._outer.get(_key(2 * number + at)) for at in (0, 1)]
        top, chunks = (Map.numbered("mapping", int.from_bytes(each or b"", sys.byteorder)) for each in found)
        return _Arrays.over(top, chunks)


def _key(number: int) -> bytes:
    return number.to_bytes(4, sys.byteorder)
