# SPDX-License-Identifier: BSD-3-Clause
"""The SIP header, as a view that edits in place and as a lossless value (RFC 8507 §3; seed IPAE 4.2.1).

::

     0                   1                   2                   3
     0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
    +-------+-------------------------------------------------------+
    |Version|                       Reserved                        |
    +-------+-----------------------+---------------+---------------+
    |        Payload Length         | Payload Type  |   Hop Limit   |
    +-------------------------------+---------------+---------------+
    |      Source Address (64), Destination Address (64)
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Self

from isthmus.address import Address, Family
from isthmus.errors import Malformed, Truncated

HEADER_OCTETS = 24
HOP_LIMIT = 64
"""What a source sends with (spec 2.1; the sources say nothing)."""
MINIMUM_MTU = 576
"""Every link carries this much (RFC 8507 §5)."""
ETHERTYPE = 0x0800
"""That of IPv4; the version tells them apart (seed IPAE 4.2.1)."""
VERSION = 6
_RESERVED = (1 << 28) - 1


# Deviation: the seed has the hop limit before the payload type (erratum E2) and numbers the octets of the addresses
# wrongly (E1). The order is that of RFC 8507 unless told otherwise, and never guessed.
class HeaderOrder(enum.StrEnum):
    """Which of octets 6 and 7 is the payload type (erratum E2)."""

    DEERING = "deering"
    "Payload type, then hop limit (RFC 8507 §3)."
    SEED = "seed"
    "Hop limit, then payload type (seed IPAE 4.2.1)."

    @property
    def payload_type_at(self) -> int:
        """Offset of the payload type in octets."""
        return 6 if self is HeaderOrder.DEERING else 7

    @property
    def hop_limit_at(self) -> int:
        """Offset of the hop limit in octets."""
        return 7 if self is HeaderOrder.DEERING else 6


class SipView:
    """A packet seen through its header; get one with ``parse``. Option headers are payload.

    Reading cannot fail. Setting needs a buffer that can be written (``bytearray``); it
    changes the field and nothing else, since there is no checksum.
    """

    __slots__ = ("_octets", "_order")

    def __init__(self, octets: memoryview, order: HeaderOrder) -> None:
        self._octets = octets
        self._order = order

    @classmethod
    def parse(
        cls,
        octets: bytes | bytearray | memoryview,
        *,
        order: HeaderOrder = HeaderOrder.DEERING,
        quoted: bool = False,
    ) -> Self:
        """Validate version and payload length.

        Args:
            octets: A packet; octets after its end are not part of it.
            order: Of octets 6 and 7.
            quoted: Whether it may be cut short, as packets inside of ICMP errors are.

        Raises:
            Truncated: header or packet are cut short.
            Malformed: not version 6.
        """
        have = len(octets)
        if have < HEADER_OCTETS:
            raise Truncated("SIP header", at=0, need=HEADER_OCTETS, have=have)
        if octets[0] >> 4 != VERSION:
            raise Malformed("Version", at=0, problem=f"{octets[0] >> 4}, must be {VERSION}")
        need = HEADER_OCTETS + (octets[4] << 8 | octets[5])
        if need > have and not quoted:
            raise Truncated("SIP packet", at=0, need=need, have=have)
        return cls(memoryview(octets), order)

    @property
    def order(self) -> HeaderOrder:
        """The order of octets 6 and 7 that it is read in."""
        return self._order

    @property
    def octets(self) -> memoryview:
        """The whole packet, up to its payload length."""
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
    def reserved(self) -> int:
        """28 bits that receivers ignore and forwarders leave alone."""
        return int.from_bytes(self._octets[0:4], "big") & _RESERVED

    @reserved.setter
    def reserved(self, reserved: int) -> None:
        if not 0 <= reserved <= _RESERVED:
            raise ValueError(f"reserved {reserved:#x} does not fit in 28 bits")
        self._octets[0:4] = (VERSION << 28 | reserved).to_bytes(4, "big")

    @property
    def payload_length(self) -> int:
        """Length of all that follows the header, in octets."""
        return self._octets[4] << 8 | self._octets[5]

    @property
    def total_length(self) -> int:
        """Length of header and payload in octets."""
        return HEADER_OCTETS + self.payload_length

    @property
    def payload_type(self) -> int:
        """What follows the header: an IP protocol number, or that of an option header."""
        return self._octets[self._order.payload_type_at]

    @property
    def hop_limit(self) -> int:
        """Hop limit."""
        return self._octets[self._order.hop_limit_at]

    @hop_limit.setter
    def hop_limit(self, hop_limit: int) -> None:
        self._octets[self._order.hop_limit_at] = hop_limit

    @property
    def src(self) -> Address:
        """Source address."""
        return Address(Family.SIP, int.from_bytes(self._octets[8:16], "big"))

    @src.setter
    def src(self, src: Address) -> None:
        self._octets[8:16] = src.octets

    @property
    def dst(self) -> Address:
        """Destination address: the next stop of a source route, not always the last (erratum E12)."""
        return Address(Family.SIP, int.from_bytes(self._octets[16:24], "big"))

    @dst.setter
    def dst(self, dst: Address) -> None:
        self._octets[16:24] = dst.octets


@dataclass(frozen=True, slots=True, kw_only=True)
class SipHeader:
    """A header, every bit of it (RFC 8507 §3)."""

    reserved: int = 0
    "28 bits."
    payload_length: int
    payload_type: int
    hop_limit: int = HOP_LIMIT
    src: Address
    dst: Address

    def __post_init__(self) -> None:
        """Refuse what does not fit."""
        if self.src.family is not Family.SIP or self.dst.family is not Family.SIP:
            raise ValueError(f"{self.src} and {self.dst} must both be SIP")
        limits = {"reserved": _RESERVED, "payload_length": 0xFFFF, "payload_type": 0xFF, "hop_limit": 0xFF}
        for name, limit in limits.items():
            if not 0 <= getattr(self, name) <= limit:
                raise ValueError(f"{name} {getattr(self, name)} is beyond {limit}")

    @classmethod
    def parse(
        cls,
        octets: bytes | bytearray | memoryview,
        *,
        order: HeaderOrder = HeaderOrder.DEERING,
        quoted: bool = False,
    ) -> Self:
        """Read the header of a packet; arguments and errors as in ``SipView.parse``."""
        return cls.of(SipView.parse(octets, order=order, quoted=quoted))

    @classmethod
    def of(cls, view: SipView) -> Self:
        """Take the header of a packet that was seen already."""
        return cls(
            reserved=view.reserved,
            payload_length=view.payload_length,
            payload_type=view.payload_type,
            hop_limit=view.hop_limit,
            src=view.src,
            dst=view.dst,
        )

    def emit(self, order: HeaderOrder = HeaderOrder.DEERING) -> bytes:
        """Write the header, 24 octets."""
        pair = (self.payload_type, self.hop_limit)
        sixth, seventh = pair if order is HeaderOrder.DEERING else reversed(pair)
        first = VERSION << 28 | self.reserved
        second = self.payload_length << 16 | sixth << 8 | seventh
        return (first << 32 | second).to_bytes(8, "big") + self.src.octets + self.dst.octets
