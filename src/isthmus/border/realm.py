# SPDX-License-Identifier: BSD-3-Clause
"""Realms: the domains in which an address is unique (RFC 3102 §1)."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from isthmus.address import Address, Family
from isthmus.border.selector import Selector


class End(enum.IntEnum):
    """Which end of the tunnels we are, for the bindings of a realm. The value is the kernel plane's."""

    GATEWAY = 1
    "The realm lies beyond us: its packets *for* a local address go into a tunnel."
    HOST = 2
    "The mirror image. The realm's local addresses are ours: packets *from* them go into a tunnel."


@dataclass(frozen=True, slots=True, kw_only=True)
class Realm:
    """One addressing realm that a border stands in.

    The same address may mean two things in two realms; the number tells them apart in
    every table, as the first four octets of a kernel key.
    """

    number: int
    "1 to 2^32 - 1, unique on this machine; 0 is no realm."
    name: str
    'As the configuration calls it: "public", "private", "site-a".'
    family: Family = Family.IPV4
    "Which addresses live there; SIP and IPv6 share a version number, so an interface must say."
    end: End = End.GATEWAY
    "What we are to the bindings whose selectors belong to this realm."
    interface: str | None = None
    "The network interface that leads into it; None in tests and on a plane without links."
    mtu: int = 65535
    "Largest packet that its interface carries, in octets: what comes out of a tunnel has to fit."

    def __post_init__(self) -> None:
        """Refuse numbers that a key cannot hold."""
        if not 0 < self.number < 1 << 32:
            raise ValueError(f"realm {self.name}: number {self.number} is not within 1..2^32-1")


@dataclass(frozen=True, slots=True, kw_only=True)
class TunnelEnd:
    """An address of ours at which tunnels end."""

    realm: int
    "Number of the near realm that the address belongs to."
    address: Address
    leads_to: int
    "Number of the realm that the inner packets belong to."


@dataclass(frozen=True, slots=True, kw_only=True)
class Border:
    """What a plane must know before the first binding."""

    realms: tuple[Realm, ...]
    tunnel_ends: tuple[TunnelEnd, ...] = ()
    claims: tuple[Selector, ...] = ()
    "The resources of the pools: a packet for one that nobody holds is dropped, not passed."
    slice_size: int = 64
    "Ports of an aligned slice, a power of two: what the kernel plane keeps one word for."

    def realm(self, number: int) -> Realm:
        """The realm of a number.

        Raises:
            KeyError: there is none.
        """
        for each in self.realms:
            if each.number == number:
                return each
        raise KeyError(number)
