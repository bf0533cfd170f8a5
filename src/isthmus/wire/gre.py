# SPDX-License-Identifier: BSD-3-Clause
"""Generic Routing Encapsulation, as RSIP's tunnel type 2 needs it (RFC 2784 §2).

::

     0                   1                   2                   3
     0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
    +-+---------+-------------+-----+-------------------------------+
    |C| must be |   ignored   | Ver |         Protocol Type         |
    +-+---0-----+-------------+-----+-------------------------------+
    |      Checksum (if C)          |     Reserved1 (if C)          |
    +-------------------------------+-------------------------------+

Bits 1 to 5 hold routing, key and sequence number of RFC 1701 and RFC 2890. RSIP has no
means to agree on those, so a packet with one of them is refused, as RFC 2784 §2.3 says.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Self

from isthmus.checksum import checksum
from isthmus.errors import Malformed, Truncated

ETHERTYPE_IPV4 = 0x0800
ETHERTYPE_IPV6 = 0x86DD
_CHECKSUM_PRESENT = 0x8000
_MUST_BE_ZERO = 0x7C00
_IGNORED = 0x03F8
_VERSION = 0x0007


@dataclass(frozen=True, slots=True, kw_only=True)
class GreHeader:
    """A header, every bit of it (RFC 2784 §2)."""

    protocol_type: int
    "Ethertype of the payload (RFC 2784 §2.4)."
    reserved: int = 0
    "Bits 6 to 12: sent as zero, ignored (RFC 2784 §2.3)."
    checksum: int | None = None
    "As it stands; None where the C bit is not set."
    reserved1: int = 0
    "Second half of the optional word (RFC 2784 §2.6)."

    def __post_init__(self) -> None:
        """Refuse what does not fit."""
        if not (0 <= self.protocol_type <= 0xFFFF and 0 <= self.reserved1 <= 0xFFFF and 0 <= self.reserved <= 0x7F):
            raise ValueError(f"{self} has a field that is too big")
        if self.checksum is None:
            if self.reserved1:
                raise ValueError("reserved1 is there only with a checksum")
        elif not 0 <= self.checksum <= 0xFFFF:
            raise ValueError(f"checksum {self.checksum} does not fit in 16 bits")

    @property
    def octets(self) -> int:
        """Length of the header in octets: 4, or 8 with a checksum."""
        return 4 if self.checksum is None else 8

    @classmethod
    def parse(cls, octets: bytes | bytearray | memoryview, *, verify: bool = True) -> Self:
        """Read the header of a packet.

        Args:
            octets: Header and payload, exactly.
            verify: Whether to verify the checksum, which covers both; not possible if they are cut short.

        Raises:
            Truncated: the header is cut short.
            Malformed: bits that must be zero, a version other than 0, or a wrong checksum.
        """
        if len(octets) < 4:
            raise Truncated("GRE header", at=0, need=4, have=len(octets))
        bits, protocol_type = struct.unpack_from("!HH", octets)
        if bits & _MUST_BE_ZERO:
            raise Malformed("Reserved0", at=0, problem=f"bits 1 to 5 of {bits:#06x} must be zero")
        if bits & _VERSION:
            raise Malformed("Version", at=1, problem=f"{bits & _VERSION}, must be 0")
        reserved = (bits & _IGNORED) >> 3
        if not bits & _CHECKSUM_PRESENT:
            return cls(protocol_type=protocol_type, reserved=reserved)
        if len(octets) < 8:
            raise Truncated("GRE checksum", at=4, need=4, have=len(octets) - 4)
        if verify and checksum(octets):
            raise Malformed("Checksum", at=4, problem="does not fit header and payload")
        found, reserved1 = struct.unpack_from("!HH", octets, 4)
        return cls(protocol_type=protocol_type, reserved=reserved, checksum=found, reserved1=reserved1)

    def emit(self) -> bytes:
        """Write the header, with the checksum as it stands."""
        bits = (_CHECKSUM_PRESENT if self.checksum is not None else 0) | self.reserved << 3
        octets = struct.pack("!HH", bits, self.protocol_type)
        return octets if self.checksum is None else octets + struct.pack("!HH", self.checksum, self.reserved1)


def emit(protocol_type: int, payload: bytes | bytearray | memoryview, *, with_checksum: bool = False) -> bytes:
    """Write a whole packet: header, checksum if wanted, payload (RFC 2784 §2.5)."""
    if not with_checksum:
        return GreHeader(protocol_type=protocol_type).emit() + bytes(payload)
    blank = GreHeader(protocol_type=protocol_type, checksum=0).emit() + bytes(payload)
    return GreHeader(protocol_type=protocol_type, checksum=checksum(blank)).emit() + bytes(payload)
