# SPDX-License-Identifier: BSD-3-Clause
"""Paths: which host sends by a peer's SPI, for ICMP errors about it (RFC 3104 §4; RFC 3102 §6.2).

A packet in ESP or AH carries one number only, the SPI by which its *receiver* knows it. What
a host sends therefore carries the peer's SPI, and so does the quote of an error about it. Nothing
in the table says whose that is: a gateway has to remember who sent it.

Behind the kernel plane the memory is the kernel's, as for contacted peers: ``Paths`` is what both are.

Pairs with ``bpf/include/isthmus/path.h``.
"""

from __future__ import annotations

from typing import Protocol

from isthmus.address import Address
from isthmus.border.binding import Owner

CAPACITY = 1 << 16


class Paths(Protocol):
    """A memory of who sends by which SPI of a peer."""

    def note(self, owner: Owner, local: Address, remote: Address, protocol: int, spi: int, *, realm: int) -> None:
        """The owner sends from one of its addresses to a peer, by this SPI of the peer's."""

    def owner(self, local: Address, remote: Address, protocol: int, spi: int, *, realm: int) -> Owner | None:
        """Who does; None if nobody is known to."""


class KnownPaths:
    """A memory of paths; the longest unused ones go when it is full.

    Args:
        capacity: Most paths that are kept.
    """

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._owners: dict[tuple[int, Address, Address, int, int], Owner] = {}

    def __len__(self) -> int:
        """How many paths are kept."""
        return len(self._owners)

    def note(self, owner: Owner, local: Address, remote: Address, protocol: int, spi: int, *, realm: int) -> None:
        """The owner sends from one of its addresses to a peer, by this SPI of the peer's."""
        key = (realm, local, remote, protocol, spi)
        # Taken out first, so that the order of the dictionary is that of the last use.
        self._owners.pop(key, None)
        if len(self._owners) >= self._capacity:
            del self._owners[next(iter(self._owners))]
        self._owners[key] = owner

    def owner(self, local: Address, remote: Address, protocol: int, spi: int, *, realm: int) -> Owner | None:
        """Who does; None if nobody is known to."""
        key = (realm, local, remote, protocol, spi)
        found = self._owners.pop(key, None)
        if found is not None:
            self._owners[key] = found
        return found
