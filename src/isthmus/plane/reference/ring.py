# SPDX-License-Identifier: BSD-3-Clause
"""The identification ring: which IPAE datagram an ICMP error speaks of (spec 6.4, layer 2).

A router that quotes eight octets quotes nothing of a SIP packet that says who sent it. But the identification of
the outer header is ours to choose, since DF is set (RFC 6864 §4.1), and it is quoted: it is the number of a slot in
which the beginning of the packet is kept. What matches the slot in all that eight octets tell is not forged, either.

Behind the kernel plane the ring is the kernel's: ``Ring`` is what both are.

Pairs with ``bpf/include/isthmus/ring.h``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from isthmus.address import Address
from isthmus.plane.reference.classify import Octets

SLOTS = 1 << 16
KEPT_OCTETS = 64
"""How much of a SIP packet a slot holds."""
LIFETIME_SECONDS = 10.0
"""How long what was sent may be spoken of."""


@dataclass(frozen=True, slots=True)
class Sent:
    """What a slot holds."""

    at: float
    "Seconds since 1970."
    destination: Address
    "Outer destination: the next IPAE system."
    octets: bytes
    "The beginning of the SIP packet, ``KEPT_OCTETS`` at most."


LOOKED_AHEAD = 256
"""Of how many slots that come next one must have been used in ``LIFETIME_SECONDS`` for the ring to be overrun."""


class Ring(Protocol):
    """A memory of what was sent as IPAE datagrams a moment ago."""

    def number(self) -> int:
        """Take the next identification for a packet that is not kept."""

    def put(self, destination: Address, packet: Octets, *, now: float) -> int:
        """Keep the beginning of a SIP packet that goes to an IPAE system; the identification that it goes with."""

    def find(self, identification: int, *, now: float) -> Sent | None:
        """What went with an identification in the last ``LIFETIME_SECONDS``."""

    def has_sent_to(self, destination: Address, *, now: float) -> bool:
        """Whether anything went to an IPAE system in the last ``LIFETIME_SECONDS``."""

    def is_overrun(self, *, now: float) -> bool:
        """Whether slots are used again within ``LIFETIME_SECONDS``, so that what an error quotes may be lost."""


class IdentificationRing:
    """A ring in memory.

    Args:
        first: The identification that comes next.
    """

    def __init__(self, first: int = 0) -> None:
        self._next = first
        self._slots: dict[int, Sent] = {}
        # In the order of the last sending, so that those who are long past come first.
        self._destinations: dict[Address, float] = {}

    def number(self) -> int:
        """Take the next identification for a packet that is not kept."""
        identification = self._next
        self._next = (identification + 1) % SLOTS
        self._slots.pop(identification, None)
        return identification

    def put(self, destination: Address, packet: Octets, *, now: float) -> int:
        """Keep the beginning of a SIP packet that goes to an IPAE system; the identification that it goes with."""
        identification = self.number()
        self._slots[identification] = Sent(now, destination, bytes(packet[:KEPT_OCTETS]))
        self._destinations.pop(destination, None)
        self._destinations[destination] = now
        while self._destinations:
            address, at = next(iter(self._destinations.items()))
            if at + LIFETIME_SECONDS > now:
                break
            del self._destinations[address]
        return identification

    def find(self, identification: int, *, now: float) -> Sent | None:
        """What went with an identification in the last ``LIFETIME_SECONDS``."""
        sent = self._slots.get(identification)
        return sent if sent is not None and now < sent.at + LIFETIME_SECONDS else None

    def has_sent_to(self, destination: Address, *, now: float) -> bool:
        """Whether anything went to an IPAE system in the last ``LIFETIME_SECONDS``."""
        at = self._destinations.get(destination)
        return at is not None and now < at + LIFETIME_SECONDS

    def is_overrun(self, *, now: float) -> bool:
        """Whether slots are used again within ``LIFETIME_SECONDS``, so that what an error quotes may be lost."""
        ahead = (self._slots.get((self._next + at) % SLOTS) for at in range(LOOKED_AHEAD))
        return any(sent is not None and now < sent.at + LIFETIME_SECONDS for sent in ahead)
