# SPDX-License-Identifier: BSD-3-Clause
"""Realms: the domains in which an address is unique (RFC 3102 §1)."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from isthmus.address import Address, Family, Prefix
from isthmus.border.rules import Rules
from isthmus.border.selector import Selector


class Unmapped(enum.IntEnum):
    """What becomes of IPv4 in transit to where no mapping leads (spec 6.2). The value is the kernel plane's."""

    PASS = 0
    "The machine routes it as IPv4: while IPv4 addresses are unique (milestones I and H)."
    REFUSE = 1
    "It is refused, ICMP 3/6: from milestone R on an IPv4 address means nothing outside of its site."
    ASK = 2
    "It waits while the mapping is looked up (seed IPAE 8.1)."


class Foreign(enum.IntEnum):
    """What IPv4-only hosts see of a SIP source that has no image in their realm. The value is the kernel plane's."""

    LOW = 0
    "Its low 32 bits (seed IPAE 5.2)."
    ASK = 1
    "An alias, which is made now (spec 8.3): its low 32 bits may be somebody else's here."
    REFUSE = 2
    "Nothing: the packet is refused."


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
    sip: int | None = None
    "Of an IPv4 realm: number of the SIP realm whose packets its link carries, too (EtherType 0x0800, version 6)."
    site: Prefix | None = None
    "Of an IPv4 realm: the SIP site whose IPv4 it is, 32 bits with C = 0; its addresses are known to others under it."
    unmapped: Unmapped = Unmapped.PASS
    foreign: Foreign = Foreign.LOW

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
class Node:
    """A SIP address of this machine, whatever link it is reached by."""

    realm: int
    "Number of the SIP realm."
    address: Address


@dataclass(frozen=True, slots=True, kw_only=True)
class Border:
    """What a plane must know before the first binding."""

    realms: tuple[Realm, ...]
    tunnel_ends: tuple[TunnelEnd, ...] = ()
    claims: tuple[Selector, ...] = ()
    "The resources of the pools: a packet for one that nobody holds is dropped, not passed."
    slice_size: int = 64
    "Ports of an aligned slice, a power of two: what the kernel plane keeps one word for."
    nodes: tuple[Node, ...] = ()
    "Our SIP addresses, then Anyone addresses that are ours with them; the first of a realm is who says what we say."
    rules: Rules = Rules()
    "What IPAE leaves to configuration."

    def realm(self, number: int) -> Realm:
        """The realm of a number.

        Raises:
            KeyError: there is none.
        """
        for each in self.realms:
            if each.number == number:
                return each
        raise KeyError(number)
