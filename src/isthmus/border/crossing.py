# SPDX-License-Identifier: BSD-3-Clause
"""Crossings: the ways a packet gets across. A closed union, not a registry.

================  ==============================================================================
``Tunnel``        RSIP: behind an outer header, to the host that leases or to its gateway
``Encapsulation`` IPAE: a SIP packet behind an IPv4 header, to the next IPAE system
``Native``        SIP without anything else, to a neighbour on the link
``Translate``     as a packet of another realm: mapped addresses, gateways, sockets of another family
================  ==============================================================================
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import NamedTuple

from isthmus.address import Address, Family, Prefix
from isthmus.checksum import ones_sum
from isthmus.value import quick


class TunnelKind(enum.IntEnum):
    """RSIP's tunnel types by their wire numbers (RFC 3103 §8.6); L2TP is never offered."""

    IPIP = 1
    "IP in IP (RFC 2003); over IPv6 the same with an IPv6 outer header."
    GRE = 2
    "GRE without key or sequence (RFC 2784); over IPv6 likewise."


_OVERHEAD = {
    (TunnelKind.IPIP, Family.IPV4): 20,
    (TunnelKind.IPIP, Family.IPV6): 40,
    (TunnelKind.GRE, Family.IPV4): 24,
    (TunnelKind.GRE, Family.IPV6): 44,
}


_SURELY_FITS = 65535 - max(_OVERHEAD.values()) - 4
"""A tunnel MTU that is right whatever the tunnel adds, in octets."""


class Way(NamedTuple):
    """From one end of tunnels to the other: what all tunnels between the two have in common."""

    realm: int
    "Number of the realm that the ends are in."
    local: Address
    remote: Address


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class Tunnel:
    """One way across the near realm (RFC 3103 §8.6; RFC 2003)."""

    realm: int
    "Number of the near realm, the one that the outer header belongs to."
    local: Address
    "Our end."
    remote: Address
    "The other end: at a gateway the host's private address, at a host the gateway's."
    kind: TunnelKind = TunnelKind.IPIP
    mtu: int = 1480
    "Largest inner packet carried whole, in octets, outer header already subtracted."
    checksum: bool = False
    "Whether what we put into a GRE tunnel has a checksum, four octets more (RFC 2784 §2.5). What comes may or may not."

    def __post_init__(self) -> None:
        """Refuse ends of two families and MTUs below IPv4's minimum."""
        if self.local.family is not self.remote.family:
            raise ValueError(f"a tunnel has ends of one family, not {self.local} and {self.remote}")
        if self.checksum and self.kind is not TunnelKind.GRE:
            raise ValueError("only GRE has a checksum of its own")
        if not 68 <= self.mtu <= _SURELY_FITS and not 68 <= self.mtu <= 65535 - self.overhead:
            raise ValueError(f"tunnel MTU {self.mtu} is not within 68..{65535 - self.overhead}")

    @property
    def way(self) -> Way:
        """Between which ends it is."""
        return Way(self.realm, self.local, self.remote)

    @property
    def overhead(self) -> int:
        """Octets that the outer header and its shim add."""
        return overhead(self.kind, self.local.family, checksum=self.checksum)


def overhead(kind: TunnelKind, family: Family, *, checksum: bool = False) -> int:
    """Octets that a tunnel of this kind adds over this outer family (spec 14.6)."""
    return _OVERHEAD[kind, family] + 4 * checksum


IPAE_PROTOCOL = 41
"""SIP in IPv4 (spec 2.5); a configuration may say another."""
IPAE_OVERHEAD = 20
"""Octets that encapsulation adds: an IPv4 header without options (seed IPAE 4.2.2)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Encapsulation:
    """Across IPv4 as an IPAE datagram (seed IPAE 4.2.2, 5.2)."""

    realm: int
    "Number of the IPv4 realm that the outer header belongs to."
    local: Address
    "Our own IPv4 address there."
    remote: Address | None = None
    """The next IPAE system; None: the low 32 bits of the SIP destination, which is that system itself
    (an implicit tunnel, T93 4.2)."""
    mtu: int = 1480
    "Largest SIP packet carried, in octets, the outer header already subtracted."

    def __post_init__(self) -> None:
        """Refuse ends that are not IPv4."""
        if self.local.family is not Family.IPV4 or (self.remote and self.remote.family is not Family.IPV4):
            raise ValueError(f"IPAE goes from an IPv4 address to one, not from {self.local} to {self.remote}")

    def end(self, destination: Address) -> Address:
        """The IPv4 address of the next IPAE system for a SIP destination."""
        return self.remote or Address(Family.IPV4, destination.number & 0xFFFFFFFF)


@dataclass(frozen=True, slots=True, kw_only=True)
class Native:
    """On a link, as it is (seed IPAE 4.2.1; RFC 8507 §8.4)."""

    realm: int
    "Number of the IPv4 realm whose link it is: SIP shares its EtherType and its ARP."
    neighbour: Address | None = None
    "IPv4 address by which ARP finds the next SIP system; None: the low 32 bits of the SIP destination."

    def next_hop(self, destination: Address) -> Address:
        """By which address to find the next SIP system for a SIP destination."""
        return self.neighbour or Address(Family.IPV4, destination.number & 0xFFFFFFFF)


@dataclass(frozen=True, slots=True, kw_only=True)
class Translate:
    """As a packet of another realm, with other addresses (seed IPAE 5.1, 5.2).

    The destination begins like ``image`` and ends as it did::

        selector (realm)              image (other realm)       what it is
        201.5.7.0/24     (site)       c1.2.2.8/32   (SIP)       an entry of the mapping table, seed 5.1
        100.64.108.191   (site)       1.2.2.8/201.5.7.250/64    an alias, for who knows 32 bits only
        c1.213.77.5/32   (SIP)        0.0.0.0/0     (site)      the gateway to our own site, seed 5.2
        fd49:...::/64    (sockets)    SIP ::/0                  what programs send by IPv6 sockets
        1.2.2.8/10.0.0.7 (SIP)        fd49:...::/64 (sockets)   and what they receive
    """

    realm: int
    "Number of the realm that the packet goes on in."
    image: Prefix
    "How destinations begin there."
    compatible: Prefix | None = None
    """Of an IPv6 image: the /48 that addresses begin with where either end is IPv4-only, and the pseudo-header of the
    transport checksum therefore the compatible one. The next 16 bits make the sum of the upper 96 zero (spec 8.2)."""

    def image_of(self, address: Address, *, compatible: bool = False) -> Address:
        """An address as the other realm knows it.

        Args:
            address: An address of the selector's realm.
            compatible: Whether either end of the packet is IPv4-only (its C bit is 1).
        """
        family = self.image.family
        if compatible and self.compatible is not None:
            return neutral(self.compatible, address)
        kept = (1 << (family.bits - self.image.length)) - 1
        return Address(family, self.image.address.number | (address.number & kept))


def neutral(base: Prefix, address: Address) -> Address:
    """The IPv6 address for a SIP address whose upper 96 bits add up to zero (spec 8.2).

    Args:
        base: 48 bits.
        address: 64 bits; its upper half is made up for by the 16 bits between the two.
    """
    word = ~ones_sum(base.address.octets[:6] + address.octets[:4]) & 0xFFFF
    return Address(Family.IPV6, base.address.number | word << 64 | address.number)


Crossing = Tunnel | Encapsulation | Native | Translate
"""What a binding crosses by: RSIP leases the first, IPAE derives the others."""
