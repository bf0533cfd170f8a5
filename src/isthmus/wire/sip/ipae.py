# SPDX-License-Identifier: BSD-3-Clause
"""The IPAE datagram: a SIP packet inside of an IPv4 datagram (seed IPAE 4.2.2; spec 3.1), and what else 41 has.

::

    +------------------------+-------------------+-----------------+-----------+
    | IPv4, 20, protocol 41  | SIP, 24           | option headers  | transport |
    +------------------------+-------------------+-----------------+-----------+

Protocol 41 is IPv6 today, whose version is 6 like SIP's. The lengths tell them apart, exactly (spec 9.2).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

from isthmus.address import Address, Family
from isthmus.errors import Malformed
from isthmus.wire.ipv4 import MINIMUM_OCTETS, Ipv4Header, Ipv4View
from isthmus.wire.sip.header import HEADER_OCTETS, VERSION, HeaderOrder, SipView
from isthmus.wire.sip.option import SIP_IN_SIP

if TYPE_CHECKING:
    Octets = bytes | bytearray | memoryview

PROTOCOL = SIP_IN_SIP
"""IPv4 protocol of SIP (spec 2.5)."""
OVERHEAD_OCTETS = MINIMUM_OCTETS
"""What encapsulation adds to a SIP packet."""
_IPV6_OCTETS = 40
_LENGTH_END = 6


class Version6(enum.Enum):
    """What a packet of version 6 is."""

    SIP = "sip"
    IPV6 = "ipv6"


def demultiplex(octets: Octets, length: int | None = None) -> Version6 | None:
    """Tell what is inside of an IPv4 datagram of protocol 41 (spec 9.2).

    Args:
        octets: What follows the IPv4 header; six octets suffice.
        length: Length of that in octets by the IPv4 header, if ``octets`` may be cut short as in a quote.

    Returns:
        SIP or IPv6 if the payload length is just that; None: neither, to be dropped.
    """
    if len(octets) < _LENGTH_END or octets[0] >> 4 != VERSION:
        return None
    inside = (octets[4] << 8 | octets[5]) - (len(octets) if length is None else length)
    return {-HEADER_OCTETS: Version6.SIP, -_IPV6_OCTETS: Version6.IPV6}.get(inside)


@dataclass(frozen=True, slots=True)
class Ipae:
    """An IPAE datagram, seen through both headers."""

    outer: Ipv4View
    inner: SipView

    @classmethod
    def parse(cls, outer: Ipv4View, *, order: HeaderOrder = HeaderOrder.DEERING) -> Ipae:
        """See the SIP packet in a whole datagram (seed IPAE 5.3; errata E14).

        Options, type of service and identification of the outer header are ignored; header checksum and
        fragments are the business of whoever received it.

        Raises:
            Truncated: the SIP header is cut short.
            Malformed: not protocol 41, a fragment, or IPv6 or nothing known inside.
        """
        if outer.protocol != PROTOCOL:
            raise Malformed("Protocol", at=9, problem=f"{outer.protocol}, must be {PROTOCOL}")
        if outer.is_fragment:
            raise Malformed("Fragment Offset", at=6, problem="a part of a datagram only")
        inner = SipView.parse(outer.payload, order=order)
        inside = demultiplex(outer.payload)
        if inside is not Version6.SIP:
            found = f"payload length {inner.payload_length} in {len(outer.payload)} octets"
            raise Malformed("Payload Length", at=outer.ihl * 4 + 4, problem=f"{found}: {inside and inside.value}")
        return cls(outer, inner)


def encapsulate(
    packet: SipView,
    *,
    src: Address,
    dst: Address,
    identification: int,
    df: bool = True,
    tos: int = 0,
    protocol: int = PROTOCOL,
) -> bytes:
    """Put a SIP packet into an IPv4 datagram (seed IPAE 5.2; errata E5, E6; spec 3.1).

    Args:
        packet: The packet, its hop limit already decremented; the outer TTL is the same (spec 3.2).
        src: Our own address on the outgoing interface, IPv4.
        dst: The next IPAE node, IPv4.
        identification: Any, if DF is set.
        df: Don't fragment.
        tos: Type of service of the outer header.
        protocol: 41, or one that tests use.

    Raises:
        ValueError: an address that is not IPv4, or a packet too long for an IPv4 datagram.
    """
    if src.family is not Family.IPV4 or dst.family is not Family.IPV4:
        raise ValueError(f"{src} and {dst} must both be IPv4")
    outer = Ipv4Header(
        tos=tos,
        total_length=MINIMUM_OCTETS + packet.total_length,
        identification=identification,
        df=df,
        ttl=packet.hop_limit,
        protocol=protocol,
        src=src,
        dst=dst,
    )
    return outer.emit() + bytes(packet.octets)
