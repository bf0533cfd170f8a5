# SPDX-License-Identifier: BSD-3-Clause
"""The little that a border needs of what IP carries (RFC 768, 793, 792, 4302, 4303).

``ports``, ``icmp_identifier`` and ``spi`` look at the first octets only and give None
where the field is not there: that is what a classifier wants. ``UdpHeader`` and
``TcpHeader`` are lossless values, for endpoints, decoding and tests.
"""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from isthmus.checksum import checksum, pseudo_header
from isthmus.errors import Malformed, Truncated

if TYPE_CHECKING:
    from isthmus.address import Address

    Octets = bytes | bytearray | memoryview


class Protocol(enum.IntEnum):
    """IP protocol numbers (IANA "Protocol Numbers")."""

    ICMP = 1
    IPIP = 4
    TCP = 6
    UDP = 17
    IPV6 = 41
    GRE = 47
    ESP = 50
    AH = 51
    ICMPV6 = 58


def ports(protocol: int, octets: Octets) -> tuple[int, int] | None:
    """Return source and destination port of TCP or UDP, else None (RFC 768, RFC 793 §3.1)."""
    if protocol not in (Protocol.TCP, Protocol.UDP) or len(octets) < 4:
        return None
    return octets[0] << 8 | octets[1], octets[2] << 8 | octets[3]


_SPI_OFFSETS: dict[int, int] = {Protocol.ESP: 0, Protocol.AH: 4}


def spi(protocol: int, octets: Octets) -> int | None:
    """Return the SPI of ESP or AH, else None (RFC 4303 §2, RFC 4302 §2)."""
    at = _SPI_OFFSETS.get(protocol)
    if at is None or len(octets) < at + 4:
        return None
    return int.from_bytes(octets[at : at + 4], "big")


def icmp_identifier(octets: Octets) -> int | None:
    """Return the identifier of an ICMP query or its reply, else None (RFC 792)."""
    if len(octets) < 8 or octets[0] not in _ICMP_QUERIES:
        return None
    return octets[4] << 8 | octets[5]


_ICMP_QUERIES = frozenset({0, 8, 13, 14, 15, 16, 17, 18})


def transport_checksum(*, src: Address, dst: Address, protocol: int, octets: Octets) -> int:
    """Compute the checksum of a UDP or TCP header whose own field is zero (RFC 768, RFC 793 §3.1).

    Args:
        src: Source address of the IP header; IPv4 or IPv6.
        dst: Destination address.
        protocol: UDP or TCP.
        octets: Header and data.
    """
    start = pseudo_header(src.octets, dst.octets, protocol, len(octets))
    computed = checksum(octets, start)
    # Zero means "no checksum" in UDP, and is sent as its other form.
    return 0xFFFF if protocol == Protocol.UDP and computed == 0 else computed


@dataclass(frozen=True, slots=True, kw_only=True)
class UdpHeader:
    """A UDP header, every bit of it (RFC 768)."""

    src_port: int
    dst_port: int
    length: int
    "Header and data, in octets, as it stands."
    checksum: int = 0
    "As it stands; 0 means none."

    def __post_init__(self) -> None:
        """Refuse what does not fit."""
        if not all(0 <= field <= 0xFFFF for field in (self.src_port, self.dst_port, self.length, self.checksum)):
            raise ValueError(f"{self} has a field beyond 16 bits")
        if self.length < 8:
            raise ValueError(f"UDP length {self.length}, must be at least 8")

    @classmethod
    def parse(cls, octets: Octets) -> Self:
        """Read the first eight octets of a datagram.

        Raises:
            Truncated: fewer than eight octets.
            Malformed: a length that does not even cover the header.
        """
        if len(octets) < 8:
            raise Truncated("UDP header", at=0, need=8, have=len(octets))
        src_port, dst_port, length, found = struct.unpack_from("!4H", octets)
        if length < 8:
            raise Malformed("Length", at=4, problem=f"{length}, must be at least 8")
        return cls(src_port=src_port, dst_port=dst_port, length=length, checksum=found)

    def emit(self) -> bytes:
        """Write the header."""
        return struct.pack("!4H", self.src_port, self.dst_port, self.length, self.checksum)


def emit_udp(*, src: Address, dst: Address, src_port: int, dst_port: int, payload: bytes) -> bytes:
    """Write a whole datagram with its checksum (RFC 768)."""
    length = 8 + len(payload)
    octets = UdpHeader(src_port=src_port, dst_port=dst_port, length=length).emit() + payload
    found = transport_checksum(src=src, dst=dst, protocol=Protocol.UDP, octets=octets)
    return octets[:6] + found.to_bytes(2, "big") + payload


class TcpFlag(enum.IntFlag):
    """Control bits (RFC 793 §3.1, RFC 3168 §6.1)."""

    FIN = 0x01
    SYN = 0x02
    RST = 0x04
    PSH = 0x08
    ACK = 0x10
    URG = 0x20
    ECE = 0x40
    CWR = 0x80


@dataclass(frozen=True, slots=True, kw_only=True)
class TcpHeader:
    """A TCP header, every bit of it (RFC 793 §3.1)."""

    src_port: int
    dst_port: int
    sequence: int
    acknowledgement: int = 0
    reserved: int = 0
    "The four bits after the data offset."
    flags: int
    "Eight bits, see ``TcpFlag``."
    window: int = 0
    checksum: int = 0
    "As it stands."
    urgent_pointer: int = 0
    options: bytes = b""

    def __post_init__(self) -> None:
        """Refuse what does not fit."""
        words = (self.src_port, self.dst_port, self.window, self.checksum, self.urgent_pointer)
        if not all(0 <= word <= 0xFFFF for word in words):
            raise ValueError(f"{self} has a field beyond 16 bits")
        if not (0 <= self.sequence <= 0xFFFFFFFF and 0 <= self.acknowledgement <= 0xFFFFFFFF):
            raise ValueError(f"{self} has a number beyond 32 bits")
        if not (0 <= self.reserved <= 0xF and 0 <= self.flags <= 0xFF):
            raise ValueError(f"{self} has bits beyond the flags")
        if len(self.options) % 4 or len(self.options) > 40:
            raise ValueError(f"{len(self.options)} octets of options; must be a multiple of 4, 40 at most")

    @property
    def octets(self) -> int:
        """Length of the header in octets."""
        return 20 + len(self.options)

    @classmethod
    def parse(cls, octets: Octets) -> Self:
        """Read the header of a segment.

        Raises:
            Truncated: the header is cut short.
            Malformed: a data offset that does not even cover the fixed part.
        """
        if len(octets) < 20:
            raise Truncated("TCP header", at=0, need=20, have=len(octets))
        source, destination, sequence, acknowledgement, bits, window, found, urgent = struct.unpack_from(
            "!HHLLHHHH", octets
        )
        header_octets = (bits >> 12) * 4
        if header_octets < 20:
            raise Malformed("Data Offset", at=12, problem=f"{header_octets} octets, must be at least 20")
        if header_octets > len(octets):
            raise Truncated("TCP header", at=0, need=header_octets, have=len(octets))
        return cls(
            src_port=source,
            dst_port=destination,
            sequence=sequence,
            acknowledgement=acknowledgement,
            reserved=bits >> 8 & 0xF,
            flags=bits & 0xFF,
            window=window,
            checksum=found,
            urgent_pointer=urgent,
            options=bytes(octets[20:header_octets]),
        )

    def emit(self) -> bytes:
        """Write the header."""
        fixed = struct.pack(
            "!HHLLHHHH",
            self.src_port,
            self.dst_port,
            self.sequence,
            self.acknowledgement,
            self.octets // 4 << 12 | self.reserved << 8 | self.flags,
            self.window,
            self.checksum,
            self.urgent_pointer,
        )
        return fixed + self.options
