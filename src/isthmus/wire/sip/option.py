# SPDX-License-Identifier: BSD-3-Clause
"""The headers between SIP and the transport: source routing and fragmentation (RFC 8507 §6, §7).

In the layout ``sip92`` of RFC 8507::

    +---------------------------------------------------------------+
    |                           Reserved                            |  source routing,
    +---------------+---------------+---------------+---------------+  payload type 43
    |   Num Addrs   |   Next Addr   | Payload Type  |   Reserved    |
    +---------------+---------------+---------------+---------------+
    |       Address[0] (64), Address[1] (64), ...

    +---------------------------------------------------------------+
    |                        Identification                         |  fragmentation,
    +-----+-------------------------+---------------+---------------+  payload type 44
    |0 0 M|     Fragment Offset     | Payload Type  |   Reserved    |
    +-----+-------------------------+---------------+---------------+

and in the layout ``sipp94`` of draft-ietf-sipp-spec-00 §4.1 and §4.2::

    +---------------+---------------+---------------+---------------+
    | Payload Type  |   Num Addrs   |   Next Addr   |  Reserved (40) ...
    +---------------+---------------+---------------+---------------+

    +---------------+-------------------+-+-------------------------+
    | Payload Type  |   Reserved (10)   |M|  Fragment Offset (13)   |
    +---------------+-------------------+-+-------------------------+
    |                        Identification                         |
    +---------------------------------------------------------------+
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

from isthmus.address import Address, Family
from isthmus.errors import Malformed, Truncated
from isthmus.wire.sip.header import HEADER_OCTETS, SipView

if TYPE_CHECKING:
    Octets = bytes | bytearray | memoryview

SIP_IN_SIP = 41
"""Payload type of a SIP packet inside of another, and protocol of one inside of IPv4 (spec 2.5)."""
# Silent: RFC 8507 leaves the payload types to be assigned; 43 and 44 are those of draft-ietf-sipp-spec-00.
SOURCE_ROUTE = 43
"""Payload type of a source routing header (spec 2.5)."""
FRAGMENT = 44
"""Payload type of a fragmentation header (spec 2.5)."""
OPTION_OCTETS = 8
"""A fragmentation header, and a source routing header without its addresses."""
MOST_OPTIONS = 4
"""Longest chain that is followed: what a source put in, and once more what a tunnel did."""
_ADDRESS_OCTETS = 8
_MOST_ADDRESSES = 255


class OptionLayout(enum.StrEnum):
    """Where the fields of option headers are (spec 2.5)."""

    SIP92 = "sip92"
    "RFC 8507 §6, §7."
    SIPP94 = "sipp94"
    "draft-ietf-sipp-spec-00 §4.1, §4.2."


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceRoute:
    """A source routing header, every bit of it (RFC 8507 §6)."""

    addresses: tuple[Address, ...]
    "Stops: visited ones as the nodes called themselves there, then those to come."
    next_address: int = 0
    "Index of the next stop, Next Addr; as many as there are addresses when all were visited."
    payload_type: int
    "What follows."
    reserved: int = 0
    "40 bits, in the order in which they stand."

    def __post_init__(self) -> None:
        """Refuse what does not fit."""
        if any(each.family is not Family.SIP for each in self.addresses) or len(self.addresses) > _MOST_ADDRESSES:
            raise ValueError(f"{len(self.addresses)} stops; must be SIP addresses, {_MOST_ADDRESSES} at most")
        for name, bits in (("next_address", 8), ("payload_type", 8), ("reserved", 40)):
            if not 0 <= getattr(self, name) < 1 << bits:
                raise ValueError(f"{name} {getattr(self, name)} does not fit in {bits} bits")

    @property
    def octets(self) -> int:
        """Length in octets."""
        return OPTION_OCTETS + _ADDRESS_OCTETS * len(self.addresses)

    @property
    def is_finished(self) -> bool:
        """Whether every stop was visited, so that the packet is delivered where it is."""
        return self.next_address == len(self.addresses)

    @property
    def is_contradictory(self) -> bool:
        """Whether the next stop is beyond the last: a parameter problem (RFC 8507 §6)."""
        return self.next_address > len(self.addresses)

    @classmethod
    def parse(cls, octets: Octets, *, layout: OptionLayout = OptionLayout.SIP92) -> Self:
        """Read a header from the beginning of ``octets``; what follows it is left alone.

        Raises:
            Truncated: it is cut short, or has more addresses than there are octets for.
        """
        if len(octets) < OPTION_OCTETS:
            raise Truncated("source routing header", at=0, need=OPTION_OCTETS, have=len(octets))
        if layout is OptionLayout.SIP92:
            number, following, payload_type = octets[4:7]
            reserved = bytes(octets[:4]) + bytes(octets[7:8])
        else:
            payload_type, number, following = octets[0:3]
            reserved = bytes(octets[3:8])
        need = OPTION_OCTETS + _ADDRESS_OCTETS * number
        if len(octets) < need:
            raise Truncated("source routing header", at=0, need=need, have=len(octets))
        return cls(
            addresses=tuple(
                Address.from_octets(octets[at : at + _ADDRESS_OCTETS])
                for at in range(OPTION_OCTETS, need, _ADDRESS_OCTETS)
            ),
            next_address=following,
            payload_type=payload_type,
            reserved=int.from_bytes(reserved, "big"),
        )

    def emit(self, layout: OptionLayout = OptionLayout.SIP92) -> bytes:
        """Write the header."""
        reserved = self.reserved.to_bytes(5, "big")
        numbers = bytes((len(self.addresses), self.next_address))
        kind = bytes((self.payload_type,))
        head = (
            reserved[:4] + numbers + kind + reserved[4:] if layout is OptionLayout.SIP92 else kind + numbers + reserved
        )
        return head + b"".join(each.octets for each in self.addresses)

    def swap(self, dst: Address) -> tuple[Address, Self]:
        """Make the step that the node at ``dst`` makes: exchange it with the next stop (RFC 8507 §6).

        Args:
            dst: The destination address of the packet.

        Returns:
            The new destination address, and the header as it goes on.

        Raises:
            ValueError: there is no next stop.
        """
        at = self.next_address
        if at >= len(self.addresses):
            raise ValueError(f"stop {at} of {len(self.addresses)}: there is none")
        addresses = (*self.addresses[:at], dst, *self.addresses[at + 1 :])
        return self.addresses[at], replace(self, addresses=addresses, next_address=at + 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fragmentation:
    """A fragmentation header, every bit of it (RFC 8507 §7)."""

    identification: int
    "32 bits."
    more: bool = False
    fragment_offset: int = 0
    "In units of 8 octets."
    payload_type: int
    "What the whole packet's payload begins with, behind this header."
    reserved: int = 0
    "10 bits: the two before M and the last octet in ``sip92``, the ten before M in ``sipp94``."

    def __post_init__(self) -> None:
        """Refuse what does not fit."""
        limits = {"identification": 32, "fragment_offset": 13, "payload_type": 8, "reserved": 10}
        for name, bits in limits.items():
            if not 0 <= getattr(self, name) < 1 << bits:
                raise ValueError(f"{name} {getattr(self, name)} does not fit in {bits} bits")

    @property
    def octets(self) -> int:
        """Length in octets."""
        return OPTION_OCTETS

    @property
    def is_fragment(self) -> bool:
        """Whether there is more of the packet; a whole one has the header to say that DF was 0 (spec 3.5)."""
        return self.more or self.fragment_offset > 0

    @classmethod
    def parse(cls, octets: Octets, *, layout: OptionLayout = OptionLayout.SIP92) -> Self:
        """Read the first eight octets.

        Raises:
            Truncated: fewer than eight octets.
        """
        if len(octets) < OPTION_OCTETS:
            raise Truncated("fragmentation header", at=0, need=OPTION_OCTETS, have=len(octets))
        words = [int.from_bytes(octets[at : at + 4], "big") for at in (0, 4)]
        if layout is OptionLayout.SIP92:
            identification, place = words[0], words[1] >> 16
            payload_type, reserved = octets[6], (place >> 14) << 8 | octets[7]
        else:
            identification, place = words[1], words[0] & 0x3FFF
            payload_type, reserved = octets[0], words[0] >> 14 & 0x3FF
        return cls(
            identification=identification,
            more=bool(place & 0x2000),
            fragment_offset=place & 0x1FFF,
            payload_type=payload_type,
            reserved=reserved,
        )

    def emit(self, layout: OptionLayout = OptionLayout.SIP92) -> bytes:
        """Write the header, 8 octets."""
        identification = self.identification.to_bytes(4, "big")
        place = self.more << 13 | self.fragment_offset
        if layout is OptionLayout.SIP92:
            place |= (self.reserved >> 8) << 14
            return identification + place.to_bytes(2, "big") + bytes((self.payload_type, self.reserved & 0xFF))
        return (self.payload_type << 24 | self.reserved << 14 | place).to_bytes(4, "big") + identification


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """The way through a packet's option headers to what it carries."""

    payload_type: int
    "What follows the last option header."
    at: int
    "Offset of that in octets, from the start of the packet."
    payload: memoryview
    "That, or the part of it that a fragment has."
    final_destination: Address
    "Where the packet ends: what pseudo-headers and connections are about (erratum E12)."
    source_route: SourceRoute | None = None
    "The first one: the node that the packet is addressed to acts on it."
    source_route_at: int | None = None
    "Its offset in octets, from the start of the packet."
    fragmentation: Fragmentation | None = None
    "If there is one; the chain ends behind it if the packet is a part of one."
    fragmentation_at: int | None = None
    "Its offset in octets, from the start of the packet."

    @property
    def is_fragment(self) -> bool:
        """Whether the packet is a part of one."""
        return self.fragmentation is not None and self.fragmentation.is_fragment


def walk(packet: SipView, *, layout: OptionLayout = OptionLayout.SIP92) -> Chain:
    """Walk through the option headers of a packet (RFC 8507 §6, §7, §8.3).

    The final destination is the last address of the innermost source route that is not finished,
    else the destination address.

    Raises:
        Truncated: an option header is cut short.
        Malformed: more option headers than ``MOST_OPTIONS``, or a second fragmentation header.
    """
    kind, rest, at = packet.payload_type, packet.payload, HEADER_OCTETS
    final = packet.dst
    route: tuple[SourceRoute, int] | None = None
    part: tuple[Fragmentation, int] | None = None
    number = 0
    while kind in (SOURCE_ROUTE, FRAGMENT) and not (part and part[0].is_fragment):
        number += 1
        # Silent: RFC 8507 sets no limit; one that both planes keep is better than two.
        if number > MOST_OPTIONS:
            raise Malformed("option headers", at=at, problem=f"more than {MOST_OPTIONS}")
        if kind == FRAGMENT and part:
            raise Malformed("fragmentation header", at=at, problem="there was one already")
        option = _option(kind, rest, at=at, layout=layout)
        if isinstance(option, Fragmentation):
            part = option, at
        else:
            route = route or (option, at)
            if option.next_address < len(option.addresses):
                final = option.addresses[-1]
        kind, at, rest = option.payload_type, at + option.octets, rest[option.octets :]
    return Chain(
        payload_type=kind,
        at=at,
        payload=rest,
        final_destination=final,
        source_route=route and route[0],
        source_route_at=route and route[1],
        fragmentation=part and part[0],
        fragmentation_at=part and part[1],
    )


def _option(kind: int, octets: memoryview, *, at: int, layout: OptionLayout) -> SourceRoute | Fragmentation:
    """Read an option header, with errors that say where in the packet it is."""
    try:
        return (SourceRoute if kind == SOURCE_ROUTE else Fragmentation).parse(octets, layout=layout)
    except Truncated as error:
        raise Truncated(error.field, at=at, need=error.need, have=error.have) from None
