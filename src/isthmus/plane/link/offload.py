# SPDX-License-Identifier: BSD-3-Clause
"""Finishing what a sender's IP stack left to a network card that is not there.

Across a veth pair a stack hands on TCP as segments of up to 64 KB and checksums not filled in. A
packet socket tells so in a ``virtio_net_hdr``; here the card's work is done, in plain Python.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Self

from isthmus.checksum import checksum
from isthmus.errors import WireError
from isthmus.wire.ipv4 import Ipv4View
from isthmus.wire.transport import Protocol, TcpFlag, transport_checksum

_LAYOUT = struct.Struct("=BBHHHH")
OCTETS = _LAYOUT.size
NOTHING = bytes(OCTETS)
"""What stands before a packet that is complete."""

_NEEDS_CHECKSUM = 1
_NO_SEGMENTS, _TCP, _UDP = 0, 1, 5
_ECN = 0x80
_IPV6 = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Unfinished:
    """What is left to do (Linux, ``struct virtio_net_hdr``)."""

    needs_checksum: bool
    cut: int
    "0, or how: TCP segments or UDP datagrams."
    size: int
    "Data of each segment, in octets."
    checksum_from: int
    "Offset in the frame."
    checksum_at: int
    "Offset from there."

    @classmethod
    def parse(cls, octets: bytes) -> Self:
        """Read the header that stands before a frame."""
        flags, cut, _header, size, start, at = _LAYOUT.unpack_from(octets)
        return cls(
            needs_checksum=bool(flags & _NEEDS_CHECKSUM),
            cut=cut & ~_ECN,
            size=size,
            checksum_from=start,
            checksum_at=at,
        )


def finish(packet: bytes, left: Unfinished, link_octets: int) -> list[bytes]:
    """Cut and sum a packet as a network card would; none where it asks for what no card was asked for.

    Args:
        packet: A whole packet, which the local stack has made; of IPv6 nothing is cut.
        left: What is left to do.
        link_octets: Length of the link header that stood before it.
    """
    if left.cut == _NO_SEGMENTS:
        if not left.needs_checksum:
            return [packet]
        octets = bytearray(packet)
        start = left.checksum_from - link_octets
        at = start + left.checksum_at
        if not 0 < start < at + 2 <= len(octets):
            return []
        # The field holds the sum of the pseudo-header already.
        found = checksum(octets[start:])
        protocol = octets[6] if octets[0] >> 4 == _IPV6 else octets[9]
        if protocol == Protocol.UDP and not found:
            found = 0xFFFF
        octets[at : at + 2] = found.to_bytes(2, "big")
        return [bytes(octets)]
    try:
        view = Ipv4View.parse(packet)
        transport_octets = {_TCP: (view.payload[12] >> 4) * 4, _UDP: 8}[left.cut]
    except (WireError, IndexError, KeyError):
        return []
    return _cut(view, transport_octets, left) if left.size else []


def _cut(view: Ipv4View, transport_octets: int, left: Unfinished) -> list[bytes]:
    data = bytes(view.payload[transport_octets:])
    starts = range(0, max(len(data), 1), left.size)
    return [
        _segment(view, transport_octets, number, data[start : start + left.size], last=start == starts[-1], start=start)
        for number, start in enumerate(starts)
    ]


def _segment(view: Ipv4View, transport_octets: int, number: int, data: bytes, *, last: bool, start: int) -> bytes:
    header = bytearray(view.header)
    transport = bytearray(view.payload[:transport_octets])
    header[2:4] = (len(header) + transport_octets + len(data)).to_bytes(2, "big")
    header[4:6] = (view.identification + number & 0xFFFF).to_bytes(2, "big")
    if view.protocol == Protocol.TCP:
        sequence = int.from_bytes(transport[4:8], "big") + start & 0xFFFFFFFF
        transport[4:8] = sequence.to_bytes(4, "big")
        if not last:
            transport[13] &= ~(TcpFlag.FIN | TcpFlag.PSH) & 0xFF
        if number:
            transport[13] &= ~TcpFlag.CWR & 0xFF
        at = 16
    else:
        transport[4:6] = (transport_octets + len(data)).to_bytes(2, "big")
        at = 6
    transport[at : at + 2] = bytes(2)
    content = bytes(transport) + data
    found = transport_checksum(src=view.src, dst=view.dst, protocol=view.protocol, octets=content)
    packet = header + content
    packet[len(header) + at : len(header) + at + 2] = found.to_bytes(2, "big")
    Ipv4View.parse(packet).fix_checksum()
    return bytes(packet)
