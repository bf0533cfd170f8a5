# SPDX-License-Identifier: BSD-3-Clause
"""The program's ring of what it sent as IPAE datagrams, seen from user space.

The slots are those of ``bpf/include/isthmus/abi.h``. The program takes the next number with an atomic addition, which
this process cannot: of two that take the same at once, one is not remembered, and an error about it is
told by what else is known of it, or not at all.
"""

from __future__ import annotations

import mmap
import sys
from typing import TYPE_CHECKING, Any

from isthmus.address import Address
from isthmus.plane.kernel.maps import Codec
from isthmus.plane.reference.ring import KEPT_OCTETS, LIFETIME_SECONDS, LOOKED_AHEAD, SLOTS, Sent

if TYPE_CHECKING:
    from numpy.typing import NDArray

SLOT_OCTETS = 80
_NEXT_AT = 4
"Offset of ``next`` in ``struct rules``."
_SIP_AT = 16


class KernelRing:
    """Beginnings of what was sent; a ``plane.reference.ring.Ring``.

    Args:
        slots: The map ``ring``.
        state: The map ``rules``, in which the next number is.
        codec: Knows the program's clock.
    """

    def __init__(self, slots: mmap.mmap, state: mmap.mmap, codec: Codec) -> None:
        self._slots, self._state, self._codec = slots, state, codec

    def number(self) -> int:
        """Take the next identification for a packet that is not kept."""
        at = slice(_NEXT_AT, _NEXT_AT + 4)
        number = int.from_bytes(self._state[at], sys.byteorder)
        self._state[at] = ((number + 1) & 0xFFFFFFFF).to_bytes(4, sys.byteorder)
        identification = number % SLOTS
        self._slots[identification * SLOT_OCTETS : identification * SLOT_OCTETS + 4] = bytes(4)
        return identification

    def put(self, destination: Address, packet: bytes | bytearray | memoryview, *, now: float) -> int:
        """Keep the beginning of a SIP packet that goes to an IPAE system; the identification that it goes with."""
        identification = self.number()
        start = identification * SLOT_OCTETS
        beginning = bytes(packet[:KEPT_OCTETS])
        self._slots[start + 8 : start + 12] = destination.octets
        self._slots[start + 12 : start + 16] = len(beginning).to_bytes(4, sys.byteorder)
        self._slots[start + _SIP_AT : start + _SIP_AT + len(beginning)] = beginning
        self._slots[start : start + 4] = self._codec.second(now).to_bytes(4, sys.byteorder)
        return identification

    def find(self, identification: int, *, now: float) -> Sent | None:
        """What went with an identification in the last ``LIFETIME_SECONDS``."""
        start = identification * SLOT_OCTETS
        slot = self._slots[start : start + SLOT_OCTETS]
        second = int.from_bytes(slot[:4], sys.byteorder)
        at = self._codec.time(second)
        if not second or now >= at + LIFETIME_SECONDS:
            return None
        octets = int.from_bytes(slot[12:16], sys.byteorder)
        return Sent(at, Address.from_octets(slot[8:12]), slot[_SIP_AT : _SIP_AT + octets])

    def has_sent_to(self, destination: Address, *, now: float) -> bool:
        """Whether anything went to an IPAE system in the last ``LIFETIME_SECONDS``."""
        seconds, remotes = self._columns()
        since = max(self._codec.second(now) - int(LIFETIME_SECONDS), 0)
        return bool(((remotes == destination.number) & (seconds > since)).any())

    def is_overrun(self, *, now: float) -> bool:
        """Whether slots are used again within ``LIFETIME_SECONDS``, so that what an error quotes may be lost."""
        seconds, _ = self._columns()
        following = int.from_bytes(self._state[_NEXT_AT : _NEXT_AT + 4], sys.byteorder)
        since = max(self._codec.second(now) - int(LIFETIME_SECONDS), 0)
        ahead = [(following + at) % SLOTS for at in range(LOOKED_AHEAD)]
        return bool((seconds[ahead] > since).any())

    def _columns(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """When each slot was filled, and for whom."""
        # Here and not above: a plane without IPAE has no use for NumPy.
        import numpy as np

        layout: Any = {
            "names": ["second", "remote"],
            "formats": ["=u4", ">u4"],
            "offsets": [0, 8],
            "itemsize": SLOT_OCTETS,
        }
        slots = np.frombuffer(self._slots, np.dtype(layout))
        return slots["second"], slots["remote"]
