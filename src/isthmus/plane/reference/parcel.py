# SPDX-License-Identifier: BSD-3-Clause
"""A SIP packet on its way through a border, and what may become of it.

Pairs with ``bpf/include/isthmus/sip.h``.
"""

from __future__ import annotations

from dataclasses import dataclass

from isthmus.address import Address, Family
from isthmus.border.crossing import Way
from isthmus.border.realm import TunnelEnd
from isthmus.border.verdict import Hold, Miss, Reason
from isthmus.wire.icmp import IcmpType
from isthmus.wire.sip.icmp import Unreachable


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """How a packet came, and as what."""

    realm: int
    "Number of the realm that it arrived in."
    family: Family
    "What it came as: SIP, be it by itself or as an IPAE datagram, or what was translated: IPv4 or IPv6."
    packet: bytes
    "It, as it came; of a datagram, what was in it."
    link: int | None = None
    "Number of the IPv4 realm whose link it came by, as SIP."
    end: TunnelEnd | None = None
    "Of a datagram: the end that it came to."
    way: Way | None = None
    "Of a datagram: how it came; the remote end is its outer source."
    arrived: bytes = b""
    "What to process again if it has to wait: the whole datagram, or as ``packet``."
    device: str | None = None
    "Of a program's packet: the device that it came from."
    is_own: bool = False
    "Whether this machine sent it: a program here, or we ourselves. Who sends does not count itself as a hop."
    may_be_cut: bool = False
    "Whether it is ours to cut where it is too large: IPv4 with DF = 0, a program's packet, our own (spec 3.5)."
    identification: int | None = None
    "What its fragments are told by, if it has a fragmentation header or IPv4's identification already."

    @property
    def is_translated(self) -> bool:
        """Whether it came as something else than SIP."""
        return self.family is not Family.SIP


@dataclass(frozen=True, slots=True, kw_only=True)
class Parcel:
    """A SIP packet that goes on."""

    realm: int
    "Number of the SIP realm."
    octets: bytes
    "It, as it goes on; without padding."
    origin: Origin


@dataclass(frozen=True, slots=True, kw_only=True)
class Complaint:
    """What its sender is to be told, in the words of SIP's ICMP (RFC 8507 §8.1)."""

    type: int
    code: int
    value: int = 0
    "The MTU of SIP packets, or a pointer."
    reporter: Address | None = None
    "The IPv4 router that said so, if it was not us."


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A packet does not cross; its sender may be told."""

    reason: Reason
    complaint: Complaint | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Departure:
    """A packet crosses, in these pieces."""

    realm: int
    packets: tuple[bytes, ...]
    device: str | None = None
    neighbour: Address | None = None
    is_translated: bool = False
    "Whether it is SIP no more."


Crossed = Departure | Refusal | Miss | Hold


def unreachable(code: Unreachable = Unreachable.ADDRESS, *, reporter: Address | None = None) -> Complaint:
    """Nobody can take it there (RFC 8507 §8.1)."""
    return Complaint(type=IcmpType.DESTINATION_UNREACHABLE, code=code, reporter=reporter)


def too_big(mtu: int) -> Complaint:
    """It is too large; SIP packets of ``mtu`` octets would not be."""
    return Complaint(type=IcmpType.DESTINATION_UNREACHABLE, code=Unreachable.PACKET_TOO_BIG, value=mtu)


def exceeded(*, reporter: Address | None = None) -> Complaint:
    """Its hop limit ran out."""
    return Complaint(type=IcmpType.TIME_EXCEEDED, code=0, reporter=reporter)
