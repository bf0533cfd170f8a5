# SPDX-License-Identifier: BSD-3-Clause
"""The IPv6 header, as the outer header of a tunnel (RFC 8200 §3; RFC 2473 §3.1).

::

    +-------+---------------+---------------------------------------+
    |Version| Traffic Class |              Flow Label               |
    +-------+---------------+-------+---------------+---------------+
    |        Payload Length         |  Next Header  |   Hop Limit   |
    +-------------------------------+---------------+---------------+
    |       Source Address (128), Destination Address (128)

Of the extension headers the two with options are passed over (RFC 8200 §4.3, §4.6; RFC 2473 §4.1.1
has the one that tunnels use) and the fragment header is read (RFC 8200 §4.5)::

    +---------------+---------------+-------------------------+---+-+
    |  Next Header  |   Reserved    |     Fragment Offset     |Res|M|
    +---------------+---------------+-------------------------+---+-+
    |                         Identification                        |
    +---------------------------------------------------------------+
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from isthmus.address import Address, Family
from isthmus.errors import Malformed, Truncated

HEADER_OCTETS = 40
FRAGMENT_OCTETS = 8
HOP_BY_HOP_OPTIONS, FRAGMENT, DESTINATION_OPTIONS = 0, 44, 60
"""Next headers that this module knows (RFC 8200 §4)."""
_VERSION = 6


class Ipv6View:
    """A packet seen through its header; get one with ``parse``. Extension headers are payload."""

    __slots__ = ("_octets",)

    def __init__(self, octets: memoryview) -> None:
        self._octets = octets

    @classmethod
    def parse(cls, octets: bytes | bytearray | memoryview, *, quoted: bool = False) -> Self:
        """Validate version and payload length.

        Args:
            octets: A packet; octets after its end are not part of it.
            quoted: Whether it may be cut short, as packets inside of ICMP errors are.

        Raises:
            Truncated: header or packet are cut short.
            Malformed: not version 6.
        """
        have = len(octets)
        if have < HEADER_OCTETS:
            raise Truncated("IPv6 header", at=0, need=HEADER_OCTETS, have=have)
        if octets[0] >> 4 != _VERSION:
            raise Malformed("Version", at=0, problem=f"{octets[0] >> 4}, must be {_VERSION}")
        need = HEADER_OCTETS + (octets[4] << 8 | octets[5])
        if need > have and not quoted:
            raise Truncated("IPv6 packet", at=0, need=need, have=have)
        return cls(memoryview(octets))

    @property
    def octets(self) -> memoryview:
        """The whole packet."""
        return self._octets[: HEADER_OCTETS + self.payload_length]

    @property
    def header(self) -> memoryview:
        """The header."""
        return self._octets[:HEADER_OCTETS]

    @property
    def payload(self) -> memoryview:
        """What follows the header, up to its length or, if quoted, as far as it goes."""
        return self._octets[HEADER_OCTETS : HEADER_OCTETS + self.payload_length]

    @property
    def traffic_class(self) -> int:
        """DSCP and ECN (RFC 2474, RFC 3168)."""
        return (self._octets[0] & 0xF) << 4 | self._octets[1] >> 4

    @traffic_class.setter
    def traffic_class(self, traffic_class: int) -> None:
        if not 0 <= traffic_class <= 0xFF:
            raise ValueError(f"traffic class {traffic_class} does not fit in 8 bits")
        self._octets[0] = _VERSION << 4 | traffic_class >> 4
        self._octets[1] = (traffic_class & 0xF) << 4 | self._octets[1] & 0xF

    @property
    def dscp(self) -> int:
        """Differentiated services code point, 6 bits (RFC 2474 §3)."""
        return self.traffic_class >> 2

    @property
    def ecn(self) -> int:
        """Explicit congestion notification, 2 bits (RFC 3168 §5)."""
        return self.traffic_class & 3

    @property
    def flow_label(self) -> int:
        """Flow label, 20 bits."""
        return int.from_bytes(self._octets[1:4], "big") & 0xFFFFF

    @property
    def payload_length(self) -> int:
        """Length of all that follows the header, in octets."""
        return self._octets[4] << 8 | self._octets[5]

    @property
    def next_header(self) -> int:
        """What follows the header."""
        return self._octets[6]

    @property
    def hop_limit(self) -> int:
        """Hop limit."""
        return self._octets[7]

    @hop_limit.setter
    def hop_limit(self, hop_limit: int) -> None:
        self._octets[7] = hop_limit

    @property
    def src(self) -> Address:
        """Source address."""
        return Address(Family.IPV6, int.from_bytes(self._octets[8:24], "big"))

    @property
    def dst(self) -> Address:
        """Destination address."""
        return Address(Family.IPV6, int.from_bytes(self._octets[24:40], "big"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Ipv6Header:
    """A header, every bit of it (RFC 8200 §3)."""

    traffic_class: int = 0
    flow_label: int = 0
    payload_length: int
    next_header: int
    hop_limit: int = 64
    src: Address
    dst: Address

    def __post_init__(self) -> None:
        """Refuse what does not fit."""
        if self.src.family is not Family.IPV6 or self.dst.family is not Family.IPV6:
            raise ValueError(f"{self.src} and {self.dst} must both be IPv6")
        limits = {
            "traffic_class": 0xFF,
            "flow_label": 0xFFFFF,
            "payload_length": 0xFFFF,
            "next_header": 0xFF,
            "hop_limit": 0xFF,
        }
        for name, limit in limits.items():
            if not 0 <= getattr(self, name) <= limit:
                raise ValueError(f"{name} {getattr(self, name)} is beyond {limit}")

    @classmethod
    def parse(cls, octets: bytes | bytearray | memoryview, *, quoted: bool = False) -> Self:
        """Read the header of a packet; ``quoted`` and errors as in ``Ipv6View.parse``."""
        view = Ipv6View.parse(octets, quoted=quoted)
        return cls(
            traffic_class=view.traffic_class,
            flow_label=view.flow_label,
            payload_length=view.payload_length,
            next_header=view.next_header,
            hop_limit=view.hop_limit,
            src=view.src,
            dst=view.dst,
        )

    def emit(self) -> bytes:
        """Write the header."""
        first = _VERSION << 28 | self.traffic_class << 20 | self.flow_label
        second = self.payload_length << 16 | self.next_header << 8 | self.hop_limit
        return (first << 32 | second).to_bytes(8, "big") + self.src.octets + self.dst.octets


@dataclass(frozen=True, slots=True, kw_only=True)
class FragmentHeader:
    """A fragment header, every bit of it (RFC 8200 §4.5)."""

    next_header: int
    "What the whole packet's fragmentable part begins with."
    fragment_offset: int = 0
    "In units of 8 octets."
    more: bool = False
    identification: int
    reserved: int = 0
    "The second octet."
    reserved1: int = 0
    "The two bits before M."

    def __post_init__(self) -> None:
        """Refuse what does not fit."""
        limits = {"next_header": 8, "fragment_offset": 13, "identification": 32, "reserved": 8, "reserved1": 2}
        for name, bits in limits.items():
            if not 0 <= getattr(self, name) < 1 << bits:
                raise ValueError(f"{name} {getattr(self, name)} does not fit in {bits} bits")

    @property
    def is_fragment(self) -> bool:
        """Whether there is more of the packet; an "atomic" one has a fragment header for nothing (RFC 6946 §2)."""
        return self.more or self.fragment_offset > 0

    @classmethod
    def parse(cls, octets: bytes | bytearray | memoryview) -> Self:
        """Read the first eight octets.

        Raises:
            Truncated: fewer than eight octets.
        """
        if len(octets) < FRAGMENT_OCTETS:
            raise Truncated("fragment header", at=0, need=FRAGMENT_OCTETS, have=len(octets))
        place = octets[2] << 8 | octets[3]
        return cls(
            next_header=octets[0],
            reserved=octets[1],
            fragment_offset=place >> 3,
            reserved1=place >> 1 & 3,
            more=bool(place & 1),
            identification=int.from_bytes(octets[4:8], "big"),
        )

    def emit(self) -> bytes:
        """Write the header."""
        place = self.fragment_offset << 3 | self.reserved1 << 1 | self.more
        return (
            bytes((self.next_header, self.reserved)) + place.to_bytes(2, "big") + self.identification.to_bytes(4, "big")
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Carried:
    """What an IPv6 packet carries, behind its options."""

    next_header: int
    payload: memoryview
    "What follows the headers that were passed over."
    fragment: FragmentHeader | None = None
    "If it is a fragment; then ``next_header`` is what the whole packet carries."


def carried(packet: Ipv6View) -> Carried:
    """Pass over hop-by-hop and destination options, whatever they say, and over a fragment header (RFC 8200 §4).

    Raises:
        Truncated: an extension header is cut short.
    """
    next_header, payload = packet.next_header, packet.payload
    at = HEADER_OCTETS
    while next_header in (HOP_BY_HOP_OPTIONS, DESTINATION_OPTIONS, FRAGMENT):
        if next_header == FRAGMENT:
            fragment = FragmentHeader.parse(payload)
            next_header, length = fragment.next_header, FRAGMENT_OCTETS
            if fragment.is_fragment:
                return Carried(next_header=next_header, payload=payload[length:], fragment=fragment)
        else:
            length = (payload[1] + 1) * 8 if len(payload) > 1 else 8
            if len(payload) < length:
                raise Truncated("options header", at=at, need=length, have=len(payload))
            next_header = payload[0]
        at, payload = at + length, payload[length:]
    return Carried(next_header=next_header, payload=payload)
